package consul_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	agent "github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/watch"
	"github.com/mi-lb/mi-lb/watch/consul"
)

func TestEveryModeFollowsEveryChange(t *testing.T) {
	t.Parallel()
	a := startAgent(t, agent.Options{})
	for _, mode := range []struct {
		name  string
		polls int
		fill  func()
	}{
		{"by trigger", 1, func() {}},
		{"by service", 0, func() {
			for i := range 4 {
				register(t, a, &api.CatalogRegistration{Node: fmt.Sprintf("bare-%d", i), Address: "10.0.1.1"})
			}
		}},
		{"by node", 0, func() { registerMany(t, a, 0, 40, 1) }},
	} {
		t.Run(mode.name, func(t *testing.T) {
			mode.fill()
			w := start(t, consul.Config{Address: a.HTTPAddress(), Polls: mode.polls})
			w.waitCurrent(t, "dc1")
			if d := w.state("dc1").Detail; !strings.HasPrefix(d, mode.name) {
				t.Fatalf("watched %s, want %s", d, mode.name)
			}
			consulService := w.service("dc1", "consul")

			register(t, a, registration("n1", "web", status(api.HealthCritical)))
			register(t, a, registration("n2", "web"))
			w.waitInstance(t, "dc1", "web", "n2", healthy)
			w.waitInstance(t, "dc1", "web", "n1", hasHealth(watch.HealthCritical))
			if r := w.instance("dc1", "web", "n1").Reason; r != `check "web alive" is critical` {
				t.Errorf("reason %q", r)
			}
			register(t, a, registration("n1", "web"))
			w.waitInstance(t, "dc1", "web", "n1", healthy)
			register(t, a, registration("n1", "web", status(api.HealthWarning)))
			w.waitInstance(t, "dc1", "web", "n1", hasHealth(watch.HealthWarning))

			maintenance := &api.CatalogRegistration{Node: "n1", Address: "10.0.0.1", SkipNodeUpdate: true, Checks: api.HealthChecks{{
				Node: "n1", CheckID: "_service_maintenance:web", Status: api.HealthCritical, Notes: "disk", ServiceID: "web", ServiceName: "web",
			}}}
			register(t, a, maintenance)
			w.waitInstance(t, "dc1", "web", "n1", func(i watch.Instance) bool {
				return i.Health == watch.HealthMaintenance && i.Reason == "service maintenance: disk"
			})
			if err := a.Deregister(testContext(t), &api.CatalogDeregistration{Node: "n1", CheckID: "_service_maintenance:web"}); err != nil {
				t.Fatal(err)
			}
			w.waitInstance(t, "dc1", "web", "n1", hasHealth(watch.HealthWarning))
			nodeMaintenance := &api.CatalogRegistration{Node: "n2", Address: "10.0.0.1", SkipNodeUpdate: true, Checks: api.HealthChecks{{
				Node: "n2", CheckID: api.NodeMaint, Status: api.HealthCritical,
			}}}
			register(t, a, nodeMaintenance)
			w.waitInstance(t, "dc1", "web", "n2", hasHealth(watch.HealthMaintenance))

			register(t, a, registration("n1", "web", func(r *api.CatalogRegistration) {
				r.Service.Weights = api.AgentWeights{Passing: 7, Warning: 3}
				r.Service.Tags = []string{"mi-lb.host=shop.example.com"}
				r.Service.Meta = map[string]string{"mi-lb_path": "/"}
			}))
			w.waitInstance(t, "dc1", "web", "n1", func(i watch.Instance) bool {
				return i.Weights == watch.Weights{Passing: 7, Warning: 3} && slices.Equal(i.Tags, []string{"mi-lb.host=shop.example.com"}) &&
					i.Meta["mi-lb_path"] == "/"
			})
			// What neither names, tags nor checks show.
			register(t, a, registration("n1", "web", func(r *api.CatalogRegistration) {
				r.Service.Port, r.Service.Address = 9999, "10.0.0.77"
				r.Service.Tags = []string{"mi-lb.host=shop.example.com"}
			}))
			w.waitInstance(t, "dc1", "web", "n1", func(i watch.Instance) bool { return i.Address == addrPort("10.0.0.77:9999") })

			// A proxy is no service; an instance that is not routable is a finding.
			register(t, a, registration("n1", "web-proxy", func(r *api.CatalogRegistration) {
				r.Service.Kind = api.ServiceKindConnectProxy
				r.Service.Proxy = &api.AgentServiceConnectProxyConfig{DestinationServiceName: "web"}
			}))
			register(t, a, registration("n1", "portless", func(r *api.CatalogRegistration) { r.Service.Port = 0 }))
			w.wait(t, "a finding", func() bool { return len(w.part("dc1").Findings) == 1 })
			if f := w.part("dc1").Findings[0]; f.Code != "invalid-port" || f.Service != "portless" {
				t.Errorf("finding %s", f)
			}
			if w.service("dc1", "web-proxy") != nil {
				t.Error("the proxy is a service")
			}
			if w.service("dc1", "consul") != consulService {
				t.Error("a service that did not change has another pointer")
			}

			deregister(t, a, "n2", "web")
			w.waitGone(t, "dc1", "web", "n2")
			if err := a.Deregister(testContext(t), &api.CatalogDeregistration{Node: "n1"}); err != nil {
				t.Fatal(err)
			}
			w.wait(t, "no web", func() bool { return w.service("dc1", "web") == nil })
			w.wait(t, "no finding", func() bool { return len(w.part("dc1").Findings) == 0 })
			if s := w.state("dc1"); s.Held != 0 || s.LastError != "" {
				t.Errorf("state %+v", s)
			}
			_ = a.Deregister(testContext(t), &api.CatalogDeregistration{Node: "n2"})
		})
	}
}

// A check that does not pass goes away both when it passes and when its instance goes.
func TestAnInstanceIsNotHealthyInTheMomentItGoes(t *testing.T) {
	t.Parallel()
	a := startAgent(t, agent.Options{})
	registerMany(t, a, 0, 40, 1)
	w := start(t, consul.Config{Address: a.HTTPAddress()})
	w.waitCurrent(t, "dc1")
	if d := w.state("dc1").Detail; !strings.HasPrefix(d, "by node") {
		t.Fatalf("watched %s", d)
	}
	for range 25 {
		register(t, a, registration("n1", "web", status(api.HealthCritical)))
		w.waitInstance(t, "dc1", "web", "n1", hasHealth(watch.HealthCritical))
		look := func(p *watch.Part) {
			if s := p.Services["web"]; s != nil && len(s.Instances) > 0 && s.Instances[0].Health == watch.HealthPassing {
				t.Error("an instance passes while it is taken out")
			}
		}
		w.look.Store(&look)
		deregister(t, a, "n1", "web")
		w.waitGone(t, "dc1", "web", "n1")
		w.look.Store(nil)
	}
	register(t, a, registration("n1", "web", status(api.HealthCritical)))
	w.waitInstance(t, "dc1", "web", "n1", hasHealth(watch.HealthCritical))
	if err := a.Deregister(testContext(t), &api.CatalogDeregistration{Node: "n1", CheckID: "web-alive"}); err != nil {
		t.Fatal(err)
	}
	w.waitInstance(t, "dc1", "web", "n1", healthy)
}

func TestTheModeFollowsTheSizeOfTheCatalogAndNothingIsLost(t *testing.T) {
	t.Parallel()
	a := startAgent(t, agent.Options{}) // with its default of 200 connections per address
	registerMany(t, a, 0, 20, 100)
	w := start(t, consul.Config{Address: a.HTTPAddress()})
	w.waitCurrent(t, "dc1")
	lost := make(chan string, 1)
	stop := make(chan struct{})
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		for {
			_, changed := w.Snapshot()
			for i := range 10 {
				name := fmt.Sprintf("service-%d", i)
				if s := w.service("dc1", name); s == nil || len(s.Instances) != 1 {
					select {
					case lost <- name:
					default:
					}
				}
			}
			select {
			case <-changed:
			case <-stop:
				return
			}
		}
	}()
	inMode := func(mode string, services int) {
		t.Helper()
		w.wait(t, mode, func() bool {
			s := w.state("dc1")
			return strings.HasPrefix(s.Detail, mode) && s.Status == watch.Current && len(w.part("dc1").Services) == services
		})
		register(t, a, registration("fresh", "probe", status(api.HealthCritical)))
		w.waitInstance(t, "dc1", "probe", "fresh", hasHealth(watch.HealthCritical))
		deregister(t, a, "fresh", "probe")
		w.waitGone(t, "dc1", "probe", "fresh")
	}
	inMode("by service", 21)
	registerMany(t, a, 20, 250, 100)
	inMode("by trigger", 251)
	var ops api.TxnOps
	for i := 10; i < 100; i++ {
		if i == 20 {
			continue
		}
		ops = append(ops, &api.TxnOp{Node: &api.NodeTxnOp{Verb: api.NodeDelete, Node: api.Node{Node: fmt.Sprintf("node-%d", i)}}})
		if len(ops) == 60 || i == 99 {
			if ok, answer, _, err := a.Client().Txn().Txn(ops, nil); err != nil || !ok {
				t.Fatalf("%v %+v", err, answer)
			}
			ops = nil
		}
	}
	close(stop)
	<-watching
	select {
	case name := <-lost:
		t.Errorf("%s was lost for a time", name)
	default:
	}
	registerMany(t, a, 300, 600, 5)
	inMode("by node", 334)
	if e := w.state("dc1").LastError; e != "" {
		t.Errorf("an error: %s", e)
	}
}

func TestHTTPSAndASocketAreUsedWithinWhatEachAllows(t *testing.T) {
	t.Parallel()
	certificates, err := agent.NewCertificates(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	a := startAgent(t, agent.Options{TLS: certificates, UnixSocket: true})
	registerMany(t, a, 0, 300, 290)
	for address, mode := range map[string]string{
		"https://" + a.HTTPSAddress(): "by service, 302 long-polls",
		"unix://" + a.Socket():        "by trigger",
	} {
		w := start(t, consul.Config{Address: address, TLS: consul.TLS{
			CAFile: certificates.CAFile, CertFile: certificates.CertFile, KeyFile: certificates.KeyFile,
		}})
		w.waitCurrent(t, "dc1")
		if s := w.state("dc1"); !strings.HasPrefix(s.Detail, mode) || s.LastError != "" {
			t.Errorf("%s: %+v", address, s)
		}
		register(t, a, registration("node-0", "service-0", status(api.HealthCritical)))
		w.waitInstance(t, "dc1", "service-0", "node-0", hasHealth(watch.HealthCritical))
		register(t, a, registration("node-0", "service-0"))
		w.waitInstance(t, "dc1", "service-0", "node-0", healthy)
		w.stop()
	}
}

func TestNothingIsPublishedWhenNothingChanges(t *testing.T) {
	t.Parallel()
	a := startAgent(t, agent.Options{})
	p := startProxy(t, a)
	register(t, a, registration("n1", "web"))
	w := start(t, consul.Config{Address: p.URL})
	w.waitCurrent(t, "dc1")
	w.wait(t, "datacenters", func() bool { return w.part("") != nil })
	parts := w.parts.Load()
	// The same registration again, and a check's output, wake polls and change
	// nothing that is of interest.
	for i := range 3 {
		register(t, a, registration("n1", "web", func(r *api.CatalogRegistration) { r.Checks[0].Output = fmt.Sprint(i) }))
	}
	register(t, a, registration("n1", "marker"))
	w.waitInstance(t, "dc1", "marker", "n1", healthy)
	if n := w.parts.Load(); n != parts+1 {
		t.Errorf("%d parts published, want 1", n-parts)
	}
}

// The latency is measured, not asserted: see the log.
func TestAChangeIsPublishedSoonAfterConsulAnswers(t *testing.T) {
	a := startAgent(t, agent.Options{})
	registerMany(t, a, 0, 100, 20)
	w := start(t, consul.Config{Address: a.HTTPAddress()})
	w.waitCurrent(t, "dc1")
	var took []time.Duration
	for i := range 20 {
		want, text := watch.HealthPassing, api.HealthPassing
		if i%2 == 0 {
			want, text = watch.HealthCritical, api.HealthCritical
		}
		began := time.Now()
		register(t, a, registration("node-1", "service-1", status(text)))
		w.waitInstance(t, "dc1", "service-1", "node-1", hasHealth(want))
		took = append(took, time.Unix(0, w.last.Load()).Sub(began))
	}
	slices.Sort(took)
	t.Logf("from the start of the registration to the part, %s: median %s, most %s", w.state("dc1").Detail, took[len(took)/2], took[len(took)-1])
}
