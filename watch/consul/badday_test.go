package consul_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	agent "github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/watch"
	"github.com/mi-lb/mi-lb/watch/consul"
)

// soon confirms absences in test time, though only after everything else that a
// test waits for in between.
var soon = consul.Confirmation{Some: 2 * time.Second, Most: 2 * time.Second}

func TestEveryDatacenterIsWatchedForItself(t *testing.T) {
	t.Parallel()
	dc1 := startAgent(t, agent.Options{})
	dc2 := startAgent(t, agent.Options{Datacenter: "dc2", JoinWAN: []string{dc1.SerfWAN()}})
	ctx := testContext(t)
	if err := dc1.WaitDatacenters(ctx, "dc2"); err != nil {
		t.Fatal(err)
	}
	for _, a := range []*agent.Agent{dc1, dc2} {
		register(t, a, registration("n1", "web", func(r *api.CatalogRegistration) {
			r.TaggedAddresses = map[string]string{"lan": "10.0.0.1", "wan": "203.0.113.1"}
		}))
		register(t, a, registration("n2", "web", func(r *api.CatalogRegistration) {
			r.Service.TaggedAddresses = map[string]api.ServiceAddress{"wan": {Address: "203.0.113.2", Port: 18080}}
		}))
	}
	w := start(t, consul.Config{Address: dc1.HTTPAddress()})
	w.waitCurrent(t, "dc1")
	w.waitCurrent(t, "dc2")
	for name, want := range map[string][2]string{
		"dc1": {"10.0.0.1:8080", "10.0.0.1:8080"},
		"dc2": {"203.0.113.1:8080", "203.0.113.2:18080"},
	} {
		for i, node := range []string{"n1", "n2"} {
			if got := w.instance(name, "web", node); got == nil || got.Address != addrPort(want[i]) {
				t.Errorf("%s %s: %+v, want %s", name, node, got, want[i])
			}
		}
		if p := w.part(name); p.Datacenter != name {
			t.Errorf("part of %s says %q", name, p.Datacenter)
		}
	}
	w.wait(t, "both datacenters", func() bool { return w.part("") != nil && len(w.part("").Datacenters) == 2 })

	dc2.Kill()
	w.wait(t, "dc2 stale", func() bool { return w.state("dc2").Status == watch.Stale })
	if w.instance("dc2", "web", "n1") == nil {
		t.Error("the last good part of dc2 is gone")
	}
	// Home goes on as if nothing had happened.
	register(t, dc1, registration("n1", "web", status(api.HealthCritical)))
	w.waitInstance(t, "dc1", "web", "n1", hasHealth(watch.HealthCritical))
	if s := w.state("dc1"); s.Status != watch.Current {
		t.Errorf("dc1 is %s", s.Status)
	}

	if err := dc2.Restart(ctx, false); err != nil {
		t.Fatal(err)
	}
	if err := dc2.WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	register(t, dc2, registration("n3", "web"))
	w.waitInstance(t, "dc2", "web", "n3", healthy)
	w.waitCurrent(t, "dc2")
}

func TestAConfiguredDatacenterThatDoesNotExistIsSaidToBeSo(t *testing.T) {
	t.Parallel()
	a := startAgent(t, agent.Options{})
	w := start(t, consul.Config{Address: a.HTTPAddress(), Datacenters: []string{"dc1", "atlantis"}})
	w.waitCurrent(t, "dc1")
	w.wait(t, "an error", func() bool {
		return strings.Contains(w.state("atlantis").LastError, `Consul knows no datacenter "atlantis"`)
	})
	if !w.Settled() {
		t.Error("not settled, though all have answered or failed")
	}
}

func TestAnAgentThatComesBackEmptyTakesNothingAway(t *testing.T) {
	t.Parallel()
	a := startAgent(t, agent.Options{})
	ctx := testContext(t)
	for _, node := range []string{"n1", "n2", "n3"} {
		register(t, a, registration(node, "web"))
	}
	w := start(t, consul.Config{Address: a.HTTPAddress(), Confirm: soon})
	w.waitCurrent(t, "dc1")

	if err := a.Restart(ctx, true); err != nil {
		t.Fatal(err)
	}
	if err := a.WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	w.wait(t, "three held", func() bool { return w.state("dc1").Held == 3 })
	if s := w.state("dc1"); s.Status != watch.Stale || !strings.Contains(s.Detail, "3 of 4 instances are missing") {
		t.Errorf("state %+v", s)
	}
	for _, node := range []string{"n1", "n2", "n3"} {
		if w.instance("dc1", "web", node) == nil {
			t.Errorf("the instance on %s is gone", node)
		}
	}
	// One comes back, and worse than it was; one is replaced at its address.
	register(t, a, registration("n1", "web", status(api.HealthCritical)))
	w.waitInstance(t, "dc1", "web", "n1", hasHealth(watch.HealthCritical))
	// The others are believed to be gone in the end.
	w.waitGone(t, "dc1", "web", "n2")
	w.waitGone(t, "dc1", "web", "n3")
	w.wait(t, "current", func() bool { s := w.state("dc1"); return s.Status == watch.Current && s.Held == 0 })
	if w.instance("dc1", "web", "n1") == nil {
		t.Error("the one that came back is gone")
	}
}

func TestWhatWasSavedIsHeldWhenConsulRestartedEmptyMeanwhile(t *testing.T) {
	t.Parallel()
	a := startAgent(t, agent.Options{})
	ctx := testContext(t)
	register(t, a, registration("n1", "web"))
	register(t, a, registration("n2", "web"))
	before := start(t, consul.Config{Address: a.HTTPAddress()})
	before.waitCurrent(t, "dc1")
	saved := before.part("dc1")
	before.stop()

	if err := a.Restart(ctx, true); err != nil {
		t.Fatal(err)
	}
	if err := a.WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	register(t, a, registration("n1", "web"))
	w := start(t, consul.Config{Address: a.HTTPAddress(), Confirm: consul.Confirmation{Some: time.Hour, Most: time.Hour}}, saved)
	w.wait(t, "one held", func() bool { s := w.state("dc1"); return s.Held == 1 && s.Status == watch.Stale })
	if w.instance("dc1", "web", "n1") == nil || w.instance("dc1", "web", "n2") == nil {
		t.Errorf("instances are gone: %s", w.describe())
	}
	register(t, a, registration("n2", "web"))
	w.waitCurrent(t, "dc1")
	// From here on an instance that leaves, leaves.
	deregister(t, a, "n2", "web")
	w.waitGone(t, "dc1", "web", "n2")
}

func TestARestoredSnapshotIsFollowedAndTakesNothingAwayAtOnce(t *testing.T) {
	t.Parallel()
	a := startAgent(t, agent.Options{})
	register(t, a, registration("n1", "web"))
	snapshot, _, err := a.Client().Snapshot().Save(nil)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(snapshot)
	snapshot.Close()
	if err != nil {
		t.Fatal(err)
	}
	register(t, a, registration("n2", "web"))
	register(t, a, registration("n1", "web", status(api.HealthCritical)))
	w := start(t, consul.Config{Address: a.HTTPAddress(), Confirm: soon})
	w.waitCurrent(t, "dc1")
	w.waitInstance(t, "dc1", "web", "n1", hasHealth(watch.HealthCritical))
	if err := a.Client().Snapshot().Restore(nil, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	restored := time.Now()
	w.waitInstance(t, "dc1", "web", "n1", healthy)
	t.Logf("followed %s after the restored snapshot was in force", time.Since(restored))
	w.wait(t, "one held", func() bool { return w.state("dc1").Held == 1 || w.instance("dc1", "web", "n2") == nil })
	if e := w.state("dc1").LastError; !strings.Contains(e, "index went backwards") {
		t.Errorf("last error %q", e)
	}
	w.waitGone(t, "dc1", "web", "n2")
	register(t, a, registration("n1", "web", status(api.HealthWarning)))
	w.waitInstance(t, "dc1", "web", "n1", hasHealth(watch.HealthWarning))
}

func TestFaultsOfTheAgentTakeNothingAwayAndHealByThemselves(t *testing.T) {
	t.Parallel()
	a := startAgent(t, agent.Options{})
	fail := func(code int, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			http.Error(w, body, code)
			return true
		}
	}
	catalogOnly := func(r *http.Request) bool {
		return strings.Contains(r.URL.Path, "/v1/health") || strings.Contains(r.URL.Path, "/v1/catalog")
	}
	for _, fault := range []struct {
		name  string
		serve func(http.ResponseWriter, *http.Request) bool
		// answer is a fault of what comes back.
		answer func(*http.Response) error
		says   string
	}{
		{"500", fail(500, "No cluster leader"), nil, "have no leader"},
		{"500 rpc", fail(500, "rpc error: EOF"), nil, "answered 500 rpc error: EOF"},
		{"503", fail(503, "retry later"), nil, "answered 503"},
		{"403", fail(403, "ACL not found"), nil, "denies access"},
		{"truncated", nil, func(r *http.Response) error {
			if catalogOnly(r.Request) {
				r.Body.Close()
				r.Body = io.NopCloser(strings.NewReader(`[{"Node":{"Node":"n1"`))
				r.ContentLength = -1
				r.Header.Del("Content-Length")
			}
			return nil
		}, "unexpected EOF"},
		{"not JSON", nil, func(r *http.Response) error {
			if catalogOnly(r.Request) {
				r.Body.Close()
				r.Body = io.NopCloser(strings.NewReader(`<html>`))
				r.ContentLength = -1
				r.Header.Del("Content-Length")
			}
			return nil
		}, "invalid character"},
		{"index backwards", nil, func(r *http.Response) error {
			if index, err := strconv.Atoi(r.Header.Get("X-Consul-Index")); err == nil && index > 3 {
				r.Header.Set("X-Consul-Index", strconv.Itoa(index/3))
			}
			return nil
		}, ""},
		{"empty answers and an index that went backwards", nil, func(r *http.Response) error {
			if catalogOnly(r.Request) {
				body := "[]"
				if strings.HasSuffix(r.Request.URL.Path, "/catalog/services") {
					body = `{}`
				} else if strings.Contains(r.Request.URL.Path, "/node-services/") {
					body = `null`
				}
				r.Body.Close()
				r.Body = io.NopCloser(strings.NewReader(body))
				r.ContentLength = int64(len(body))
				r.Header.Set("Content-Length", strconv.Itoa(len(body)))
				r.Header.Set("X-Consul-Index", "2")
			}
			return nil
		}, ""},
	} {
		t.Run(fault.name, func(t *testing.T) {
			p := startProxy(t, a)
			register(t, a, registration("n1", "web"))
			register(t, a, registration("n2", "web"))
			w := start(t, consul.Config{Address: p.URL, Confirm: consul.Confirmation{Some: time.Hour, Most: time.Hour}})
			w.waitCurrent(t, "dc1")
			w.waitInstance(t, "dc1", "web", "n1", healthy)
			p.set(fault.serve, fault.answer)
			wake(t, a, "n3", "waker")
			register(t, a, registration("n1", "web", status(api.HealthCritical)))
			if fault.says != "" {
				w.wait(t, fault.says, func() bool { return strings.Contains(w.state("dc1").LastError, fault.says) })
			} else {
				before := p.requests.Load()
				w.wait(t, "a fault met", func() bool {
					s := w.state("dc1")
					return s.Held > 0 || s.LastError != "" || p.requests.Load() > before+20
				})
			}
			if w.instance("dc1", "web", "n1") == nil || w.instance("dc1", "web", "n2") == nil {
				t.Errorf("instances are gone: %s", w.describe())
			}
			p.heal()
			wake(t, a, "n3", "waker")
			w.waitInstance(t, "dc1", "web", "n1", hasHealth(watch.HealthCritical))
			w.waitCurrent(t, "dc1")
			deregister(t, a, "n2", "web")
			w.waitGone(t, "dc1", "web", "n2")
		})
	}
}

func TestA429IsExplainedAndAnsweredWithFewerConnections(t *testing.T) {
	t.Parallel()
	a := startAgent(t, agent.Options{Config: map[string]any{"limits": map[string]any{"http_max_conns_per_client": 40}}})
	var ops api.TxnOps
	for i := range 60 {
		ops = append(ops, &api.TxnOp{Node: &api.NodeTxnOp{Verb: api.NodeSet, Node: api.Node{Node: fmt.Sprintf("bare-%d", i), Address: "10.0.0.9"}}})
	}
	if ok, answer, _, err := a.Client().Txn().Txn(ops, nil); err != nil || !ok {
		t.Fatalf("%v %+v", err, answer)
	}
	registerMany(t, a, 0, 80, 40)
	w := start(t, consul.Config{Address: a.HTTPAddress()})
	w.wait(t, "a 429", func() bool { return strings.Contains(w.state("dc1").LastError, "http_max_conns_per_client") })
	w.wait(t, "all services nevertheless", func() bool {
		s := w.state("dc1")
		return strings.HasPrefix(s.Detail, "by trigger") && w.part("dc1") != nil && len(w.part("dc1").Services) == 81
	})
}

func TestASilentConnectionIsNoticed(t *testing.T) {
	t.Parallel()
	a := startAgent(t, agent.Options{})
	register(t, a, registration("n1", "web"))
	p := startProxy(t, a)
	w := start(t, consul.Config{Address: p.URL})
	w.waitCurrent(t, "dc1")
	p.set(func(_ http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done()
		return true
	}, nil)
	w.wait(t, "stale", func() bool { return w.state("dc1").Status == watch.Stale })
	if w.instance("dc1", "web", "n1") == nil {
		t.Error("the instance is gone")
	}
	p.heal()
	register(t, a, registration("n1", "web", status(api.HealthCritical)))
	w.waitInstance(t, "dc1", "web", "n1", hasHealth(watch.HealthCritical))
	w.waitCurrent(t, "dc1")
}

func TestATokenThatSeesLessTakesNothingAwayAtOnceAndANewOneIsUsedAtOnce(t *testing.T) {
	t.Parallel()
	const management = "5b9b2ad4-6f0c-4c8e-9b11-0a5a4bb6a0c1"
	a := startAgent(t, agent.Options{ManagementToken: management})
	register(t, a, registration("n1", "web"))
	register(t, a, registration("n1", "api"))
	policy, _, err := a.Client().ACL().PolicyCreate(&api.ACLPolicy{
		Name: "mi-lb", Rules: `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := a.Client().ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{ID: policy.ID}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(token.SecretID)
	w := start(t, consul.Config{Address: a.HTTPAddress(), TokenFile: file, Confirm: consul.Confirmation{Some: time.Hour, Most: time.Hour}})
	w.waitCurrent(t, "dc1")

	policy.Rules = `service "api" { policy = "read" } node_prefix "" { policy = "read" }`
	if _, _, err := a.Client().ACL().PolicyUpdate(policy, nil); err != nil {
		t.Fatal(err)
	}
	// A policy wakes no query, and one that waits keeps the permissions it began
	// with: the second registration from here on is answered with less.
	wake(t, a, "n1", "api")
	w.waitInstance(t, "dc1", "api", "n1", func(i watch.Instance) bool { return i.Meta["woken"] != "" })
	register(t, a, registration("n1", "web", status(api.HealthWarning), func(r *api.CatalogRegistration) {
		r.Service.Tags = []string{"new"}
	}))
	w.wait(t, "web held", func() bool { s := w.state("dc1"); return s.Held > 0 && s.Status == watch.Stale })
	if w.instance("dc1", "web", "n1") == nil {
		t.Error("web is gone")
	}

	if _, err := a.Client().ACL().TokenDelete(token.AccessorID, nil); err != nil {
		t.Fatal(err)
	}
	wake(t, a, "n1", "api")
	w.wait(t, "a denial", func() bool { return strings.Contains(w.state("dc1").LastError, file) })
	if w.instance("dc1", "web", "n1") == nil || w.instance("dc1", "api", "n1") == nil {
		t.Error("instances are gone")
	}
	if e := w.state("dc1").LastError; strings.Contains(e, token.SecretID) {
		t.Errorf("the token is in %q", e)
	}

	write(management)
	w.waitInstance(t, "dc1", "web", "n1", hasHealth(watch.HealthWarning))
	w.waitCurrent(t, "dc1")
}

func TestAHostNameIsResolvedAndKeptOutUntilItIs(t *testing.T) {
	t.Parallel()
	a := startAgent(t, agent.Options{})
	register(t, a, registration("n1", "web", func(r *api.CatalogRegistration) { r.Service.Address = "Web.example.com" }))
	answers := make(chan error, 1)
	answers <- fmt.Errorf("no such host")
	lookup := func(_ context.Context, host string) ([]netip.Addr, error) {
		select {
		case err := <-answers:
			return nil, err
		default:
		}
		if host != "web.example.com" {
			return nil, fmt.Errorf("unexpected %s", host)
		}
		return []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1")}, nil
	}
	w := start(t, consul.Config{Address: a.HTTPAddress(), Lookup: lookup})
	w.wait(t, "a finding", func() bool {
		p := w.part("dc1")
		return p != nil && len(p.Findings) == 1 && p.Findings[0].Code == "unresolved-address" && len(p.Services["web"].Instances) == 0
	})
	w.waitInstance(t, "dc1", "web", "n1", func(i watch.Instance) bool { return i.Address == addrPort("192.0.2.1:8080") })
	w.wait(t, "no finding", func() bool { return len(w.part("dc1").Findings) == 0 })
}

func TestAWatcherThatEndsLeavesNothingBehind(t *testing.T) {
	a := startAgent(t, agent.Options{})
	p := startProxy(t, a)
	registerMany(t, a, 0, 30, 40)
	for range 3 {
		w := start(t, consul.Config{Address: p.URL})
		w.waitCurrent(t, "dc1")
		p.CloseClientConnections()
		wake(t, a, "n1", "web")
		w.waitInstance(t, "dc1", "web", "n1", healthy)
		w.waitCurrent(t, "dc1")
		w.stop()
		deregister(t, a, "n1", "web")
	}
	// The connections were the watcher's to close, its goroutines ended before stop
	// returned.
	deadline := time.Now().Add(patience)
	for p.open.Load() > 0 || len(ours()) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections, goroutines:\n%s", p.open.Load(), strings.Join(ours(), "\n\n"))
		}
		time.Sleep(20 * time.Millisecond)
	}
	if p.most.Load() > 150 {
		t.Errorf("%d connections at a time", p.most.Load())
	}
}

// ours are the stacks of goroutines that are in the watcher's code.
func ours() []string {
	stacks := make([]byte, 4<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	var found []string
	for stack := range strings.SplitSeq(string(stacks), "\n\n") {
		if strings.Contains(stack, "mi-lb/watch/consul.") {
			found = append(found, stack)
		}
	}
	return found
}
