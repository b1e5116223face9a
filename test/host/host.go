package host

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/test/child"
	"github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/test/docker"
	"github.com/mi-lb/mi-lb/test/edge"
)

// Name is the host's, the first part of service ids.
const Name = "host1"

// Images that containers run; see [Host.Run].
const (
	// Plain says nothing of its health: traffic comes as soon as it runs.
	Plain = "plain"
	// Checked has a HEALTHCHECK: traffic comes when Docker has called it healthy.
	Checked = "checked"
)

// Host is a running one. Its methods are for the goroutine of the test, unless
// they say otherwise.
type Host struct {
	Engine *docker.Engine
	Agent  *consul.Agent

	t       testing.TB
	logFile string
}

// Start runs a host until the test ends, with the mi-lb of that path (see
// [edge.Build]), and returns when its registrator is ready.
func Start(t testing.TB, binary string) *Host {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*edge.Patience)
	defer cancel()
	h := &Host{t: t, logFile: filepath.Join(t.TempDir(), "registrator.log")}
	var err error
	if h.Engine, err = docker.Start(ctx, docker.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Engine.Stop)
	if h.Agent, err = consul.Start(ctx, consul.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Agent.Stop)
	if err := h.Agent.WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	for name, changes := range map[string][]string{
		Plain:   {"EXPOSE 80"},
		Checked: {"EXPOSE 80", `HEALTHCHECK --interval=1s --retries=3 CMD ["/testserver", "-probe"]`},
	} {
		if err := h.Engine.Import(ctx, name, changes...); err != nil {
			t.Fatal(err)
		}
	}
	h.startRegistrator(binary)
	return h
}

// startRegistrator runs it until the test ends.
func (h *Host) startRegistrator(binary string) {
	h.t.Helper()
	log, err := os.Create(h.logFile)
	if err != nil {
		h.t.Fatal(err)
	}
	defer log.Close() // the process has its own copy
	listen := fmt.Sprintf("127.0.0.1:%d", edge.FreePort(h.t))
	command := exec.Command(binary, "registrator", "-ip", "127.0.0.1", "-hostname", Name, "-listen", listen, "consul://"+h.Agent.HTTPAddress())
	command.Env = append(child.Environment(), "DOCKER_HOST="+h.Engine.Host())
	command.Stdout, command.Stderr = log, log
	registrator, err := child.Start(command, syscall.SIGKILL)
	if err != nil {
		h.t.Fatalf("start mi-lb registrator: %v", err)
	}
	h.t.Cleanup(func() {
		_ = registrator.Signal(syscall.SIGTERM)
		select {
		case <-registrator.Ended():
			if err := registrator.Err(); err != nil {
				h.t.Errorf("mi-lb registrator ended: %v", err)
			}
		case <-time.After(edge.Patience):
			h.t.Error("mi-lb registrator does not end")
			registrator.End(syscall.SIGKILL, edge.Patience)
		}
		h.examineLog()
	})
	edge.Wait(h.t, "mi-lb registrator ready", func() error {
		select {
		case <-registrator.Ended():
			return fmt.Errorf("it ended: %v", registrator.Err())
		default:
		}
		_, err := Get(listen, "/readyz")
		return err
	})
}

func (h *Host) examineLog() {
	log, err := os.ReadFile(h.logFile)
	if err != nil {
		h.t.Error(err)
		return
	}
	for _, trouble := range []string{"WARNING: DATA RACE", "panic: ", "fatal error: "} {
		if strings.Contains(string(log), trouble) {
			h.t.Errorf("registrator's log has %q", trouble)
		}
	}
	if h.t.Failed() {
		const last = 16 << 10
		h.t.Logf("registrator logged:\n%s", log[max(0, len(log)-last):])
	}
}

// Docker runs the docker command and returns what it prints.
func (h *Host) Docker(arguments ...string) string {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), edge.Patience)
	defer cancel()
	out, err := h.Engine.Docker(ctx, arguments...)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

var client = &http.Client{Timeout: edge.Patience, Transport: &http.Transport{DisableKeepAlives: true}}

// Get is the body of what an address answers, if that is 200. Any goroutine may
// call it.
func Get(address, path string) (string, error) { return Ask(http.MethodGet, address, address, path) }

// Ask sends a request without a body for the host to an address, and returns the
// answer's body, if its status is 200. No request is sent twice. Any goroutine may
// call it.
func Ask(method, address, host, path string) (string, error) {
	request, err := http.NewRequest(method, "http://"+address+path, nil)
	if err != nil {
		return "", err
	}
	request.Host = host
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %.200s", response.StatusCode, body)
	}
	return string(body), err
}
