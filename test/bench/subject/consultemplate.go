package subject

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mi-lb/mi-lb/test/bench/program"
	"github.com/mi-lb/mi-lb/test/bench/usage"
	"github.com/mi-lb/mi-lb/test/bench/world"
	"github.com/mi-lb/mi-lb/test/child"
	"github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/test/edge"
)

// ConsulTemplate is consul-template with HAProxy; wait is its quiescence, 0 for none,
// which is the default.
func ConsulTemplate(quiescence time.Duration) Kind {
	name := "consul-template"
	if quiescence > 0 {
		name += fmt.Sprintf(" (wait %d ms)", quiescence.Milliseconds())
	}
	return Kind{Name: name, Peer: true, Start: func(p *program.Program, b Binaries, agent *consul.Agent) Subject {
		return startConsulTemplate(p, b, agent, quiescence)
	}}
}

// The template. Only services that have instances that are passing are written, as most
// people's do. HAProxy's own checks are on unless the service says otherwise, as in
// mi-lb.
const haproxyTemplate = `global
    nbthread %[1]d
    stats socket %[2]s/haproxy.sock mode 600 level admin expose-fd listeners
    hard-stop-after 30m
defaults
    mode http
    timeout connect 1s
    timeout client 1m
    timeout server 1m
    timeout http-request 10s
    timeout http-keep-alive 30s
    retries 3
    option redispatch 1
frontend http
    bind %[3]s
    option forwardfor
    http-request set-header X-Forwarded-Proto http
    use_backend %%[req.hdr(host),host_only,lower,field(1,.)]
{{ range services }}{{ if ne .Name "consul" }}
backend {{ .Name }}
    balance roundrobin
{{ range service .Name }}    server {{ .ID }} {{ .Address }}:{{ .Port }} weight {{ .Weights.Passing }}{{ if not (index .ServiceMeta "%[4]s") }} check{{ end }}
{{ end }}{{ end }}{{ end }}`

// The reload is that of Debian's unit, both lines of ExecReload, and then a wait until
// the new worker is there, as systemd waits for READY=1: HAProxy's master loses a signal
// that comes before. Where HAProxy does not run yet there is nothing to reload.
const reloadScript = `#!/bin/sh
[ -s %[1]s/haproxy.pid ] || exit 0
%[2]s -c -q -f %[1]s/haproxy.cfg || exit 1
echo reload >>%[1]s/reloads
master=$(cat %[1]s/haproxy.pid)
before=$(cat /proc/$master/task/$master/children)
kill -USR2 "$master"
tries=0
while [ $tries -lt 500 ]; do
	for worker in $(cat /proc/$master/task/$master/children); do
		case " $before " in
		*" $worker "*) ;;
		*) exit 0 ;;
		esac
	done
	tries=$((tries + 1))
	sleep 0.01
done
`

const consulTemplateConfig = `consul {
  address = "%[2]s"
  transport { max_idle_conns_per_host = 20000 }
}
log_level = "warn"
%[3]s
template {
  source = "%[1]s/haproxy.cfg.ctmpl"
  destination = "%[1]s/haproxy.cfg"
  command = "/bin/sh %[1]s/reload"
  command_timeout = "60s"
}
`

type consulTemplate struct {
	p       *program.Program
	dir     string
	address string
	agent   *consul.Agent
	control *child.Process
	// haproxy is nil until the file is there for the first time.
	haproxy atomic.Pointer[child.Process]
}

func startConsulTemplate(p *program.Program, b Binaries, agent *consul.Agent, quiescence time.Duration) Subject {
	s := &consulTemplate{p: p, dir: p.TempDir(), address: fmt.Sprintf("127.0.0.1:%d", edge.FreePort(p)), agent: agent}
	waiting := ""
	if quiescence > 0 {
		waiting = fmt.Sprintf("wait { min = %q max = %q }", quiescence, 4*quiescence)
	}
	for name, content := range map[string]string{
		"haproxy.cfg.ctmpl": fmt.Sprintf(haproxyTemplate, Threads, s.dir, s.address, world.QuietKey),
		"reload":            fmt.Sprintf(reloadScript, s.dir, b.HAProxy),
		"config.hcl":        fmt.Sprintf(consulTemplateConfig, s.dir, agent.HTTPAddress(), waiting),
	} {
		p.Check(os.WriteFile(s.file(name), []byte(content), 0o600))
	}
	s.control = startChild(p, s.file("log"), b.ConsulTemplate, "-config", s.file("config.hcl"))
	ctx, cancel := context.WithCancel(p.Context())
	started := make(chan struct{})
	p.Cleanup(func() {
		cancel()
		<-started
		s.killHAProxy()
	})
	go func() { // HAProxy starts when its file is there
		defer close(started)
		if wait(ctx, func() bool { _, err := os.Stat(s.file("haproxy.cfg")); return err == nil }) == nil {
			s.haproxy.Store(startChild(p, s.file("haproxy.log"), b.HAProxy, "-W", "-db", "-S", s.file("master.sock"), "-p", s.file("haproxy.pid"), "-f", s.file("haproxy.cfg")))
		}
	}()
	return s
}

func (s *consulTemplate) file(name string) string { return filepath.Join(s.dir, name) }

// killHAProxy ends all of its processes, old workers too.
func (s *consulTemplate) killHAProxy() {
	for _, pid := range s.HAProxy() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

func (s *consulTemplate) HTTPAddress() string  { return s.address }
func (s *consulTemplate) Control() int         { return s.control.PID() }
func (s *consulTemplate) Agent() *consul.Agent { return s.agent }

func (s *consulTemplate) HAProxy() []int {
	return usage.Matching("\x00-S\x00" + s.dir + "/")
}

func (s *consulTemplate) Reloads() int {
	text, err := os.ReadFile(s.file("reloads"))
	if err != nil {
		return 0
	}
	return bytes.Count(text, []byte("\n"))
}

func (s *consulTemplate) Log() string {
	text, err := os.ReadFile(s.file("log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (s *consulTemplate) Ended() string {
	if !s.control.IsRunning() {
		return fmt.Sprintf("consul-template has ended: %v", s.control.Err())
	}
	if h := s.haproxy.Load(); h != nil && !h.IsRunning() {
		return fmt.Sprintf("HAProxy has ended: %v", h.Err())
	}
	return ""
}

// BuildConsulTemplate builds the version of go.mod into the directory.
func BuildConsulTemplate(ctx context.Context, dir string) (path, version string, err error) {
	const module = "github.com/hashicorp/consul-template"
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Version}}", module).Output()
	if err != nil {
		return "", "", fmt.Errorf("find the version of consul-template: %w", err)
	}
	version = strings.TrimSpace(string(out))
	// By its own go.mod: the parts that are programs need modules that ours does not.
	build := exec.CommandContext(ctx, "go", "install", module+"@"+version)
	build.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("build consul-template: %w\n%s", err, out)
	}
	return filepath.Join(dir, "consul-template"), version, nil
}
