package haproxy

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/lb/haproxy/render"
	"github.com/mi-lb/mi-lb/lb/haproxy/render/haproxytest"
	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/templates"
	"github.com/mi-lb/mi-lb/watch"
)

// edge is a driver with a real HAProxy of its own.
type edge struct {
	*Driver
	t        *testing.T
	options  Options
	http     int
	revision uint64
	counts   *counts
	cancel   context.CancelFunc
	done     chan error
	held     routing.Claims
	passthru bool
}

// counts is an observer that counts.
type counts struct {
	mu                   sync.Mutex
	reloads, failed, ops int
	repaired             int
	reasons              []string
}

func (c *counts) Applied(time.Duration) {}

func (c *counts) Operated(_ string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ops += n
}

func (c *counts) Reloaded(reason string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ok {
		c.reloads++
	} else {
		c.failed++
	}
	c.reasons = append(c.reasons, reason)
}

func (c *counts) Repaired(_ string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.repaired += n
}

func (c *counts) reloaded() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reloads
}

// newEdge starts a driver; change may alter its options first.
func newEdge(t *testing.T, change func(*Options)) *edge {
	t.Helper()
	dir := haproxytest.Dir(t)
	e := &edge{t: t, http: haproxytest.FreePort(t), counts: &counts{}}
	e.options = Options{
		Path: haproxytest.Path(t), Managed: true, MasterSocket: filepath.Join(dir, "m.sock"), StateFile: filepath.Join(dir, "table.json"),
		Settings: render.Settings{
			Dir: filepath.Join(dir, "h"), Socket: filepath.Join(dir, "h.sock"), Domain: "example.com",
			HTTP: []string{fmt.Sprintf("127.0.0.1:%d", e.http)}, ServicePortAddress: "127.0.0.1",
		},
		Drain: 200 * time.Millisecond, ReloadEvery: 10 * time.Millisecond, Settle: 20 * time.Millisecond, FilesWithin: time.Second, DriftEvery: 100 * time.Millisecond,
		Observer: e.counts, Log: slog.New(slog.NewTextHandler(testLog{t}, nil)),
	}
	if change != nil {
		change(&e.options)
	}
	e.start()
	t.Cleanup(e.stop)
	return e
}

type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s", strings.TrimSpace(string(p)))
	return len(p), nil
}

func (e *edge) start() {
	e.t.Helper()
	if e.options.Engine == nil {
		engine, err := templates.New(templates.Options{})
		if err != nil {
			e.t.Fatal(err)
		}
		e.options.Engine = engine
	}
	driver, err := New(e.options)
	if err != nil {
		e.t.Fatal(err)
	}
	e.Driver = driver
	ctx, cancel := context.WithCancel(context.Background())
	e.cancel, e.done = cancel, make(chan error, 1)
	go func() { e.done <- driver.Run(ctx) }()
}

// leave ends the driver and leaves its HAProxy.
func (e *edge) leave() {
	e.cancel()
	if err := <-e.done; err != nil {
		e.t.Errorf("driver: %v", err)
	}
	if err := e.Close(); err != nil {
		e.t.Errorf("close driver: %v", err)
	}
	e.done <- nil
}

func (e *edge) stop() {
	e.cancel()
	<-e.done
	if err := e.Stop(context.Background(), 0); err != nil && e.options.Managed {
		e.t.Errorf("stop HAProxy: %v", err)
	}
	if err := e.Close(); err != nil {
		e.t.Errorf("close driver: %v", err)
	}
}

// want compiles a world in which the services have the instances.
func (e *edge) want(all map[string]*watch.Service) {
	e.t.Helper()
	e.revision++
	snapshot := &watch.Snapshot{Revision: e.revision, Datacenter: "dc1", At: time.Now(), Parts: []*watch.Part{{
		Source: watch.Source{Kind: watch.Consul, Name: "dc1"}, Datacenter: "dc1", Services: all,
	}}}
	reserved := map[int]string{e.http: "listen.http"}
	table := routing.Compile(snapshot, routing.Policy{Domain: "example.com", ConsulDomain: "consul", Reserved: reserved, Passthrough: e.passthru}, e.held)
	e.held = table.Claims()
	e.Want(Wanted{Table: table, Snapshot: snapshot})
}

// service with an instance at each of the servers.
func service(name string, tags []string, servers ...*httptest.Server) *watch.Service {
	s := &watch.Service{Name: name}
	for i, server := range servers {
		s.Instances = append(s.Instances, watch.Instance{
			ID: fmt.Sprintf("%s-%d", name, i), Node: "n1", Address: netip.MustParseAddrPort(server.Listener.Addr().String()),
			Health: watch.HealthPassing, Weights: watch.Weights{Passing: 1, Warning: 1}, Tags: tags,
		})
	}
	return s
}

func world(all ...*watch.Service) map[string]*watch.Service {
	m := map[string]*watch.Service{}
	for _, s := range all {
		m[s.Name] = s
	}
	return m
}

// says is a server that answers with its name.
func says(t *testing.T, name string) *httptest.Server {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) }))
	t.Cleanup(server.Close)
	return server
}

// get asks the edge on a connection of its own.
func (e *edge) get(host string) (int, string, error) {
	return fetch(fmt.Sprintf("http://127.0.0.1:%d/", e.http), host)
}

func fetch(url, host string) (int, string, error) {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	request.Host = host
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

// until waits for the host to be answered with the text, or with the status if the
// text is empty.
func (e *edge) until(host string, status int, text string) {
	e.t.Helper()
	haproxytest.Until(e.t, fmt.Sprintf("%s answers %d %q", host, status, text), func() error {
		got, body, err := e.get(host)
		if err != nil {
			return err
		}
		if got != status || (text != "" && body != text) {
			return fmt.Errorf("%d %q", got, body)
		}
		return nil
	})
}

func (e *edge) untilStatus(what string, fits func(Status) bool) {
	e.t.Helper()
	haproxytest.Until(e.t, what, func() error {
		if s := e.Status(); !fits(s) {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

func (e *edge) findings() []watch.Finding {
	if table := e.Table(); table != nil {
		return table.Findings
	}
	return nil
}

// settled waits until the files on disk say what is wanted.
func (e *edge) settled(contains string) {
	e.t.Helper()
	haproxytest.Until(e.t, "the file says "+contains, func() error {
		content, err := e.Configuration()
		if err != nil {
			return err
		}
		if !strings.Contains(string(content), contains) {
			return fmt.Errorf("not in\n%s", content)
		}
		return nil
	})
}

func TestInstancesComeAndGoWithoutAReload(t *testing.T) {
	e := newEdge(t, nil)
	a, b := says(t, "a"), says(t, "b")
	e.want(world(service("web", nil, a)))
	e.until("web.example.com", 200, "a")
	reloads := e.counts.reloaded()
	for range 5 {
		e.want(world(service("web", nil, a, b)))
		e.until("web.example.com", 200, "b")
		down := service("web", nil, a, b)
		down.Instances[1].Health = watch.HealthCritical
		e.want(world(down))
		e.until("web.example.com", 200, "a")
		e.want(world(service("web", nil, a)))
		e.untilStatus("applied", func(s Status) bool { return s.Revision == e.revision })
	}
	if n := e.counts.reloaded(); n != reloads {
		t.Errorf("%d reloads for changes of instances: %v", n-reloads, e.counts.reasons)
	}
}

func TestServicesAndPortsComeAndGo(t *testing.T) {
	e := newEdge(t, nil)
	a, b := says(t, "a"), says(t, "b")
	port := haproxytest.FreePort(t)
	e.want(world(service("one", nil, a)))
	e.until("one.example.com", 200, "a")
	e.want(world(service("one", nil, a), service("two", []string{fmt.Sprintf("mi-lb.port=%d", port)}, b)))
	e.until("two.example.com", 200, "b")
	haproxytest.Until(t, "the port answers", func() error {
		_, body, err := fetch(fmt.Sprintf("http://127.0.0.1:%d/", port), "x")
		if err == nil && body != "b" {
			err = fmt.Errorf("%q", body)
		}
		return err
	})
	e.want(world(service("two", nil, b)))
	e.until("one.example.com", 503, "")
	e.until("two.example.com", 200, "b")
}

func TestADriverTakesOverWhatTheLastOneLeft(t *testing.T) {
	e := newEdge(t, nil)
	a, b := says(t, "a"), says(t, "b")
	e.want(world(service("web", nil, a), service("api", nil, b)))
	e.until("web.example.com", 200, "a")
	e.want(world(service("web", nil, a, b), service("api", nil, b)))
	e.until("web.example.com", 200, "b")
	worker, reloads := e.Status().Worker, e.counts.reloaded()
	e.leave()
	if status, _, err := e.get("web.example.com"); err != nil || status != 200 {
		t.Fatalf("HAProxy does not serve without its driver: %d, %v", status, err)
	}
	e.options.Engine = nil
	e.start()
	// What changed meanwhile arrives.
	e.want(world(service("web", nil, b), service("api", nil, b)))
	e.untilStatus("applied", func(s Status) bool { return s.Revision == e.revision && s.Pending == "" })
	for range 10 {
		if status, body, err := e.get("web.example.com"); err != nil || status != 200 || body != "b" {
			t.Fatalf("got %d %q, %v", status, body, err)
		}
	}
	if now := e.Status().Worker; now != worker || e.counts.reloaded() != reloads {
		t.Errorf("worker %d became %d, with %d reloads", worker, now, e.counts.reloaded()-reloads)
	}
	if e.Claims()["host web.example.com /"] != "web" {
		t.Errorf("claims %v", e.Claims())
	}
}

func TestAKilledHAProxyComesBackAsItWas(t *testing.T) {
	e := newEdge(t, nil)
	a, b := says(t, "a"), says(t, "b")
	drained := service("web", nil, a, b)
	drained.Instances[0].Health = watch.HealthMaintenance
	e.want(world(drained))
	e.until("web.example.com", 200, "b")
	for _, what := range []string{"master", "worker"} {
		e.untilStatus("HAProxy is known", func(s Status) bool { return s.Running && s.Worker != 0 && s.Pending == "" })
		before := e.Status()
		pid := before.Master
		if what == "worker" {
			pid = before.Worker
		}
		process, err := os.FindProcess(pid)
		if err != nil {
			t.Fatal(err)
		}
		if err := process.Kill(); err != nil {
			t.Fatal(err)
		}
		e.untilStatus(what+" is another", func(s Status) bool { return s.Running && s.Worker != before.Worker && s.Pending == "" })
		for range 5 {
			e.until("web.example.com", 200, "b")
		}
	}
}

func TestAServiceThatHAProxyRefusesIsLeftOutAlone(t *testing.T) {
	dir := t.TempDir()
	// The operator's own fragment makes nonsense of some services.
	fragment := `backend {{ .Name }}
    balance {{ .Balance }}
{{- if or (eq .Service "bad") (eq .Service "worse") }}
    frobnicate {{ len .Servers }}
{{- end }}
{{- range .Servers }}
    server {{ template "server" . }}
{{- end }}
`
	if err := os.WriteFile(filepath.Join(dir, "backend"), []byte(fragment), 0o600); err != nil {
		t.Fatal(err)
	}
	engine, err := templates.New(templates.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	e := newEdge(t, func(o *Options) { o.Engine = engine })
	a, b := says(t, "a"), says(t, "b")
	all := []*watch.Service{service("bad", nil, a), service("worse", nil, b)}
	for i := range 20 {
		all = append(all, service(fmt.Sprintf("good-%d", i), nil, a))
	}
	e.want(world(all...))
	e.until("good-7.example.com", 200, "a")
	e.until("bad.example.com", 503, "")
	e.untilStatus("both are quarantined", func(s Status) bool { return strings.Join(s.Quarantined, " ") == "bad worse" })
	found := 0
	for _, f := range e.findings() {
		if f.Code == "quarantined" && strings.Contains(f.Message, "[haproxy.cfg:") && strings.Contains(f.Message, "frobnicate") {
			found++
		}
	}
	if found != 2 {
		t.Errorf("findings %v", e.findings())
	}
	// A change of another service does not try them again; a template that is mended
	// and a service that changes do.
	reloads := e.counts.reloaded()
	all[2].Instances = append(all[2].Instances, service("x", nil, b).Instances...)
	e.want(world(all...))
	e.until("good-0.example.com", 200, "b")
	if e.counts.reloaded() != reloads {
		t.Errorf("reloads for %v", e.counts.reasons)
	}
	if err := os.WriteFile(filepath.Join(dir, "backend"), []byte(strings.ReplaceAll(fragment, "frobnicate", "# mended")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := engine.Reload(); err != nil {
		t.Fatal(err)
	}
	e.TemplatesChanged()
	e.until("bad.example.com", 200, "a")
	e.until("worse.example.com", 200, "b")
}

func TestABrokenTemplateChangesNothing(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "defaults")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("defaults\n    mode http\n    timeout connect 1s\n    timeout client 9s\n    timeout server 9s\n    option allbackups\n")
	engine, err := templates.New(templates.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	e := newEdge(t, func(o *Options) { o.Engine = engine })
	a, b := says(t, "a"), says(t, "b")
	e.want(world(service("web", nil, a)))
	e.until("web.example.com", 200, "a")

	for name, text := range map[string]string{
		"does not parse":    "defaults\n{{ if }}\n",
		"does not render":   "defaults\n    mode http\n{{ .Nothing.At.All }}\n",
		"does not validate": "defaults\n    mode http\n    frobnicate\n",
	} {
		write(text)
		if err := engine.Reload(); err != nil {
			if name != "does not parse" || !strings.Contains(err.Error(), file+":2") {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		e.TemplatesChanged()
		haproxytest.Until(t, name+" is told", func() error {
			if s := e.Status(); !strings.Contains(s.LastError, "defaults") && !strings.Contains(s.LastError, "frobnicate") {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
		e.until("web.example.com", 200, "a")
	}
	// Instances still come and go, and a good template is taken over.
	e.want(world(service("web", nil, b)))
	e.until("web.example.com", 200, "b")
	write("defaults\n    mode http\n    timeout connect 1s\n    timeout client 8s\n    timeout server 8s\n    option allbackups\n")
	if err := engine.Reload(); err != nil {
		t.Fatal(err)
	}
	e.TemplatesChanged()
	e.settled("timeout client 8s")
	haproxytest.Until(t, "HAProxy has read it", func() error {
		e.counts.mu.Lock()
		defer e.counts.mu.Unlock()
		if n := len(e.counts.reasons); n == 0 || e.counts.reasons[n-1] != "templates-changed" {
			return fmt.Errorf("reloads %v", e.counts.reasons)
		}
		return nil
	})
}

func TestAPortThatAnotherProgramHasIsLeftOutUntilItIsFree(t *testing.T) {
	e := newEdge(t, nil)
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	port := other.Addr().(*net.TCPAddr).Port
	a := says(t, "a")
	e.want(world(service("web", []string{fmt.Sprintf("mi-lb.port=%d", port)}, a)))
	e.until("web.example.com", 200, "a")
	haproxytest.Until(t, "the finding", func() error {
		for _, f := range e.findings() {
			if f.Code == "port-busy" && f.Service == "web" {
				return nil
			}
		}
		return fmt.Errorf("%v", e.findings())
	})
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	haproxytest.Until(t, "the port opens", func() error {
		_, body, err := fetch(fmt.Sprintf("http://127.0.0.1:%d/", port), "x")
		if err == nil && body != "a" {
			err = fmt.Errorf("%q", body)
		}
		return err
	})
}
