package consul_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	agent "github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/watch"
	"github.com/mi-lb/mi-lb/watch/consul"
)

// patience is how long a test waits for what must happen; a sweep alone comes every
// 30 seconds.
const patience = time.Minute

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	t.Cleanup(cancel)
	return ctx
}

// startAgent runs a Consul agent with a leader until the test ends.
func startAgent(t *testing.T, o agent.Options) *agent.Agent {
	t.Helper()
	ctx := testContext(t)
	a, err := agent.Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Stop)
	if err := a.WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	return a
}

// world is a watch.World that counts what is published.
type world struct {
	*watch.World
	parts atomic.Int64
	last  atomic.Int64 // when, in Unix nanoseconds
	stop  func()
	// looks at each part, if set.
	look atomic.Pointer[func(*watch.Part)]
}

func (w *world) Publish(p *watch.Part) {
	if look := w.look.Load(); look != nil {
		(*look)(p)
	}
	w.last.Store(time.Now().UnixNano())
	w.parts.Add(1)
	w.World.Publish(p)
}

// start runs a watcher until the test ends, or stop is called.
func start(t *testing.T, c consul.Config, saved ...*watch.Part) *world {
	t.Helper()
	c.Known = saved
	if c.Logger == nil {
		c.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	watcher, err := consul.New(c)
	if err != nil {
		t.Fatal(err)
	}
	var snapshot *watch.Snapshot
	if len(saved) > 0 {
		snapshot = &watch.Snapshot{Parts: saved}
	}
	w := &world{World: watch.NewWorld(snapshot, "dc1", time.Now)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		watcher.Run(ctx, w)
	}()
	w.stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(w.stop)
	return w
}

// wait returns when the condition holds of the snapshot and states.
func (w *world) wait(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		_, changed := w.Snapshot()
		if holds() {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("not seen in %s: %s\n%s", patience, what, w.describe())
		}
	}
}

func (w *world) describe() string {
	var b strings.Builder
	s, _ := w.Snapshot()
	for _, p := range s.Parts {
		fmt.Fprintf(&b, "%s: %d services, findings %v\n", p.Source, len(p.Services), p.Findings)
		if len(p.Services) < 20 {
			for _, service := range p.Services {
				fmt.Fprintf(&b, "  %s: %+v\n", service.Name, service.Instances)
			}
		}
	}
	for _, state := range w.States() {
		fmt.Fprintf(&b, "%+v\n", state)
	}
	return b.String()
}

func source(datacenter string) watch.Source {
	return watch.Source{Kind: watch.Consul, Name: datacenter}
}

func (w *world) part(datacenter string) *watch.Part {
	s, _ := w.Snapshot()
	return s.Part(source(datacenter))
}

func (w *world) state(datacenter string) watch.State {
	for _, s := range w.States() {
		if s.Source == source(datacenter) {
			return s
		}
	}
	return watch.State{}
}

func (w *world) service(datacenter, name string) *watch.Service {
	p := w.part(datacenter)
	if p == nil {
		return nil
	}
	return p.Services[name]
}

// instance is that service's on that node, nil if there is none.
func (w *world) instance(datacenter, service, node string) *watch.Instance {
	s := w.service(datacenter, service)
	if s == nil {
		return nil
	}
	for i := range s.Instances {
		if s.Instances[i].Node == node {
			return &s.Instances[i]
		}
	}
	return nil
}

func (w *world) waitCurrent(t *testing.T, datacenter string) {
	t.Helper()
	w.wait(t, datacenter+" current", func() bool {
		return w.part(datacenter) != nil && w.state(datacenter).Status == watch.Current
	})
}

func (w *world) waitInstance(t *testing.T, datacenter, service, node string, holds func(watch.Instance) bool) {
	t.Helper()
	w.wait(t, "the instance of "+service+" on "+node+" in "+datacenter, func() bool {
		i := w.instance(datacenter, service, node)
		return i != nil && holds(*i)
	})
}

func (w *world) waitGone(t *testing.T, datacenter, service, node string) {
	t.Helper()
	w.wait(t, "no instance of "+service+" on "+node+" in "+datacenter, func() bool {
		return w.instance(datacenter, service, node) == nil
	})
}

func healthy(i watch.Instance) bool { return i.Health == watch.HealthPassing }

func hasHealth(h watch.Health) func(watch.Instance) bool {
	return func(i watch.Instance) bool { return i.Health == h }
}

// registration is a service with a check on a node that has no agent.
func registration(node, service string, change ...func(*api.CatalogRegistration)) *api.CatalogRegistration {
	r := &api.CatalogRegistration{
		Node: node, Address: "10.0.0.1",
		Service: &api.AgentService{ID: service, Service: service, Port: 8080, Weights: api.AgentWeights{Passing: 1, Warning: 1}},
		Checks: api.HealthChecks{{
			Node: node, CheckID: service + "-alive", Name: service + " alive", Status: api.HealthPassing, ServiceID: service, ServiceName: service,
		}},
	}
	for _, c := range change {
		c(r)
	}
	return r
}

func status(s string) func(*api.CatalogRegistration) {
	return func(r *api.CatalogRegistration) { r.Checks[0].Status = s }
}

func register(t *testing.T, a *agent.Agent, r *api.CatalogRegistration) {
	t.Helper()
	if err := a.Register(testContext(t), r); err != nil {
		t.Fatal(err)
	}
}

func deregister(t *testing.T, a *agent.Agent, node, service string) {
	t.Helper()
	if err := a.Deregister(testContext(t), &api.CatalogDeregistration{Node: node, ServiceID: service}); err != nil {
		t.Fatal(err)
	}
}

// registerMany puts services first to last-1, named service-<n>, on nodes in
// turn, many to a transaction.
func registerMany(t *testing.T, a *agent.Agent, first, last, nodes int) {
	t.Helper()
	var ops api.TxnOps
	known := map[string]bool{}
	flush := func() {
		ok, answer, _, err := a.Client().Txn().Txn(ops, nil)
		if err != nil || !ok {
			t.Fatalf("register: %v %+v", err, answer)
		}
		ops = nil
	}
	for i := first; i < last; i++ {
		node, name := fmt.Sprintf("node-%d", i%nodes), fmt.Sprintf("service-%d", i)
		if !known[node] {
			known[node] = true
			ops = append(ops, &api.TxnOp{Node: &api.NodeTxnOp{Verb: api.NodeSet, Node: api.Node{Node: node, Address: "10.0.0.1"}}})
		}
		ops = append(ops,
			&api.TxnOp{Service: &api.ServiceTxnOp{Verb: api.ServiceSet, Node: node, Service: api.AgentService{ID: name, Service: name, Port: 1000 + i}}},
			&api.TxnOp{Check: &api.CheckTxnOp{Verb: api.CheckSet, Check: api.HealthCheck{Node: node, CheckID: name, Status: api.HealthPassing, ServiceID: name, ServiceName: name}}})
		if len(ops) > 50 {
			flush()
		}
	}
	if len(ops) > 0 {
		flush()
	}
}

// proxy stands between a watcher and an agent and does what the test tells it to.
type proxy struct {
	*httptest.Server
	mu sync.Mutex
	// serve handles a request itself if it returns true.
	serve func(http.ResponseWriter, *http.Request) bool
	// answer changes an agent's answer.
	answer   func(*http.Response) error
	requests atomic.Int64
	open     atomic.Int64
	most     atomic.Int64
}

func startProxy(t *testing.T, a *agent.Agent) *proxy {
	t.Helper()
	p := &proxy{}
	back := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: a.HTTPAddress()})
	back.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(io.Discard, nil), slog.LevelInfo)
	back.ModifyResponse = func(r *http.Response) error {
		p.mu.Lock()
		answer := p.answer
		p.mu.Unlock()
		if answer != nil {
			return answer(r)
		}
		return nil
	}
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.requests.Add(1)
		p.mu.Lock()
		serve := p.serve
		p.mu.Unlock()
		if serve == nil || !serve(w, r) {
			back.ServeHTTP(w, r)
		}
	}))
	p.Config.ErrorLog = back.ErrorLog
	p.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			if n := p.open.Add(1); n > p.most.Load() {
				p.most.Store(n)
			}
		case http.StateClosed:
			p.open.Add(-1)
		}
	}
	p.Start()
	t.Cleanup(func() {
		p.CloseClientConnections()
		p.Close()
	})
	return p
}

func (p *proxy) set(serve func(http.ResponseWriter, *http.Request) bool, answer func(*http.Response) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serve, p.answer = serve, answer
}

// heal lets everything through again.
func (p *proxy) heal() { p.set(nil, nil) }

// wake makes the agent answer the long-polls, so that they meet the proxy's
// fault.
func wake(t *testing.T, a *agent.Agent, node, service string) {
	t.Helper()
	register(t, a, registration(node, service, func(r *api.CatalogRegistration) {
		r.Service.Meta = map[string]string{"woken": fmt.Sprint(time.Now().UnixNano())}
	}))
}

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
