package haproxy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/lb/haproxy/render"
	"github.com/mi-lb/mi-lb/lb/haproxy/render/haproxytest"
	"github.com/mi-lb/mi-lb/lb/haproxy/runtime"
	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/watch"
)

// freeRange are so many ports in a row that nobody listens on, below those that the
// kernel gives to outgoing connections.
func freeRange(t *testing.T, n int) render.PortRange {
	t.Helper()
	for range 1000 {
		r := render.PortRange{First: 21000 + rand.IntN(9000)}
		r.Last = r.First + n - 1
		free := true
		for port := r.First; port <= r.Last && free; port++ {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if free = err == nil; free {
				l.Close()
			}
		}
		if free {
			return r
		}
	}
	t.Fatal("no range of ports is free")
	return render.PortRange{}
}

// portSays waits until the port is answered with the text.
func portSays(t *testing.T, port int, text string) {
	t.Helper()
	haproxytest.Until(t, fmt.Sprintf("port %d says %q", port, text), func() error {
		_, body, err := fetch(fmt.Sprintf("http://127.0.0.1:%d/", port), "x")
		if err == nil && body != text {
			err = fmt.Errorf("%q", body)
		}
		return err
	})
}

func TestServicesComeAndGoWithoutAReload(t *testing.T) {
	e := newEdge(t, func(o *Options) { o.Settings.SpareBackends = 2 })
	one := says(t, "one")
	e.want(world(service("one", nil, one)))
	e.until("one.example.com", 200, "one")
	reloads := e.counts.reloaded()
	// More than there are spares: they serve again when their service is gone.
	for i := range 4 {
		name := fmt.Sprintf("new-%d", i)
		host := []string{"mi-lb.host=" + name + ".org"}
		a, b := says(t, name+"a"), says(t, name+"b")
		e.want(world(service("one", nil, one), service(name, host, a)))
		e.until(name+".org", 200, name+"a")
		e.want(world(service("one", nil, one), service(name, host, a, b)))
		e.until(name+".org", 200, name+"b")
		e.until(name+".example.com", 200, name+"a")
		e.want(world(service("one", nil, one)))
		e.until(name+".org", 503, "")
		haproxytest.Until(t, "its servers are in maintenance", func() error {
			if left := e.serving(t, render.Internal); len(left) > 0 {
				return fmt.Errorf("%v", left)
			}
			return nil
		})
	}
	if n := e.counts.reloaded(); n != reloads {
		t.Errorf("%d reloads for new services: %v", n-reloads, e.counts.reasons)
	}
	e.settled("backend one")
}

func TestMoreServicesThanSparesReloadOnlyAHAProxyThatMakesNoBackends(t *testing.T) {
	e := newEdge(t, func(o *Options) { o.Settings.SpareBackends = 2 })
	one := says(t, "one")
	keys := []string{"mi-lb.check.path=/", "mi-lb.check.interval=1s"}
	e.want(world(service("one", keys, one)))
	e.until("one.example.com", 200, "one")
	caps, err := e.process.Runtime().Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	reloads := e.counts.reloaded()
	all := []*watch.Service{service("one", keys, one)}
	for i := range 6 {
		name := fmt.Sprintf("new-%d", i)
		all = append(all, service(name, keys, says(t, name)))
	}
	e.want(world(all...))
	serve := func() {
		for i := range 6 {
			e.until(fmt.Sprintf("new-%d.example.com", i), 200, fmt.Sprintf("new-%d", i))
		}
	}
	serve()
	e.settled("backend new-5")
	if !caps.AddBackend {
		haproxytest.Until(t, "a reload", func() error {
			if e.counts.reloaded() == reloads {
				return errors.New("none")
			}
			return nil
		})
	} else if n := e.counts.reloaded() - reloads; n != 0 {
		t.Errorf("HAProxy %s: %d reloads: %v", caps.Version, n, e.counts.reasons)
	}

	// The next driver knows those that were made.
	reloads = e.counts.reloaded()
	e.leave()
	e.start()
	last := says(t, "last")
	e.want(world(append(all, service("last", keys, last))...))
	e.until("last.example.com", 200, "last")
	serve()
	if n := e.counts.reloaded() - reloads; caps.AddBackend && n != 0 {
		t.Errorf("HAProxy %s: %d reloads after a handover: %v", caps.Version, n, e.counts.reasons)
	}
	e.settled("backend last")
	// Files that nobody has asked HAProxy to read are right too.
	e.runsItsFiles("at the end")
}

// serving are the servers that may have traffic, of backends that fit.
func (e *edge) serving(t *testing.T, fits func(backend string) bool) []string {
	t.Helper()
	servers, err := e.process.Runtime().Servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range servers {
		if fits(s.Backend) && s.State != runtime.Maint {
			names = append(names, s.Backend+"/"+s.Name)
		}
	}
	return names
}

func TestASpareIsCheckedAsItsServiceAsks(t *testing.T) {
	e := newEdge(t, func(o *Options) { o.Settings.SpareBackends = 8 })
	var host atomic.Value
	var healthy atomic.Bool
	checked := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			host.Store(r.Host)
			if !healthy.Load() {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}
	}))
	t.Cleanup(checked.Close)
	asks := func(path string) []string {
		return []string{"mi-lb.check.path=" + path, "mi-lb.check.interval=1s"}
	}
	other := says(t, "other")
	e.want(world(service("other", asks("/other"), other)))
	e.until("other.example.com", 200, "other")
	reloads := e.counts.reloaded()
	e.want(world(service("other", asks("/other"), other), service("web", asks("/health"), checked)))
	// It is up until a check says otherwise.
	e.until("web.example.com", 200, "")
	e.until("web.example.com", 503, "")
	healthy.Store(true)
	e.until("web.example.com", 200, "")
	if got := host.Load(); got != "web.example.com" {
		t.Errorf("it was checked as %v", got)
	}
	if n := e.counts.reloaded(); n != reloads {
		t.Errorf("%d reloads: %v", n-reloads, e.counts.reasons)
	}
	// After a reload it has a section of its own, that says the same.
	if err := e.Reload(t.Context(), "asked"); err != nil {
		t.Fatal(err)
	}
	e.until("web.example.com", 200, "")
	healthy.Store(false)
	e.until("web.example.com", 503, "")
}

func TestADriverTakesOverSparesInUse(t *testing.T) {
	e := newEdge(t, func(o *Options) { o.Settings.SpareBackends = 3 })
	one, two, three := says(t, "one"), says(t, "two"), says(t, "three")
	e.want(world(service("one", nil, one)))
	e.until("one.example.com", 200, "one")
	e.want(world(service("one", nil, one), service("two", nil, two)))
	e.until("two.example.com", 200, "two")
	e.settled("backend two")
	worker, reloads := e.Status().Worker, e.counts.reloaded()
	e.leave()
	e.options.Engine = nil
	e.start()
	e.want(world(service("one", nil, one), service("two", nil, two, three), service("three", nil, three)))
	e.until("three.example.com", 200, "three")
	e.until("two.example.com", 200, "three")
	e.until("two.example.com", 200, "two")
	e.want(world(service("one", nil, one), service("three", nil, three)))
	e.until("two.example.com", 503, "")
	e.until("three.example.com", 200, "three")
	if now := e.Status().Worker; now != worker || e.counts.reloaded() != reloads {
		t.Errorf("worker %d became %d, with %d reloads: %v", worker, now, e.counts.reloaded()-reloads, e.counts.reasons)
	}
}

func TestASpareThatSomebodyElseHasFilledIsLeftAlone(t *testing.T) {
	e := newEdge(t, func(o *Options) { o.Settings.SpareBackends = 1 })
	one, two := says(t, "one"), says(t, "two")
	e.want(world(service("one", nil, one)))
	e.untilStatus("running", func(s Status) bool { return s.Running && s.Pending == "" })
	e.leave()
	command := fmt.Sprintf("add server %s/x 127.0.0.1:1", render.SpareName(0))
	if _, err := e.process.Runtime().Exec(t.Context(), []string{command}); err != nil {
		t.Fatal(err)
	}
	e.options.Engine = nil
	e.start()
	e.want(world(service("one", nil, one), service("two", nil, two)))
	for range 20 {
		e.until("two.example.com", 200, "two")
	}
}

func TestPortsOfTheRangeOpenAndCloseWithoutAReload(t *testing.T) {
	for _, mode := range []string{"tcp", "http"} {
		t.Run(mode, func(t *testing.T) {
			ports := freeRange(t, 10)
			e := newEdge(t, func(o *Options) { o.Settings.SpareBackends, o.Settings.ServicePortRange = 8, ports })
			one := says(t, "one")
			e.want(world(service("one", nil, one)))
			e.until("one.example.com", 200, "one")
			reloads := e.counts.reloaded()
			for i := range 3 {
				port := ports.First + i
				name := fmt.Sprintf("new-%d", i)
				instance := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					fmt.Fprint(w, name+r.Header.Get("X-Forwarded-Port")+r.Header.Get("X-Forwarded-For"))
				}))
				t.Cleanup(instance.Close)
				e.want(world(service("one", nil, one), service(name, []string{fmt.Sprintf("mi-lb.port=%d", port), "mi-lb.mode=" + mode}, instance)))
				want := name
				if mode == "http" {
					want += fmt.Sprint(port) + "127.0.0.1"
				}
				portSays(t, port, want)
				e.want(world(service("one", nil, one)))
				haproxytest.Until(t, "the port is closed", func() error {
					if _, body, err := fetch(fmt.Sprintf("http://127.0.0.1:%d/", port), "x"); err == nil {
						return fmt.Errorf("%q", body)
					}
					return nil
				})
			}
			if n := e.counts.reloaded(); n != reloads {
				t.Errorf("%d reloads: %v", n-reloads, e.counts.reasons)
			}
		})
	}
}

func TestAPortOfTheRangeThatAnotherProgramHasIsLeftOutUntilItIsFree(t *testing.T) {
	ports := freeRange(t, 5)
	other, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", ports.First+2))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	e := newEdge(t, func(o *Options) { o.Settings.SpareBackends, o.Settings.ServicePortRange = 2, ports })
	a, b := says(t, "a"), says(t, "b")
	all := world(
		service("a", []string{fmt.Sprintf("mi-lb.port=%d", ports.First+2)}, a),
		service("b", []string{fmt.Sprintf("mi-lb.port=%d", ports.First+3)}, b),
	)
	e.want(all)
	portSays(t, ports.First+3, "b")
	e.until("a.example.com", 200, "a")
	haproxytest.Until(t, "the finding", func() error {
		for _, f := range e.findings() {
			if f.Code == "port-busy" && f.Service == "a" {
				return nil
			}
		}
		return fmt.Errorf("%v", e.findings())
	})
	// A driver that takes over knows of the hole.
	worker := e.Status().Worker
	e.leave()
	e.options.Engine = nil
	e.start()
	e.want(all)
	e.untilStatus("applied", func(s Status) bool { return s.Revision == e.revision && s.Pending == "" })
	if now := e.Status().Worker; now != worker {
		t.Errorf("worker %d became %d: %v", worker, now, e.counts.reasons)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	portSays(t, ports.First+2, "a")
}

func TestLeftoversAreTidiedUpByADeferredReload(t *testing.T) {
	if mostLeftovers < 100 {
		t.Fatalf("%d leftovers would have HAProxy reloaded all the time", mostLeftovers)
	}
	e := newEdge(t, func(o *Options) { o.Patience = time.Millisecond })
	a := says(t, "a")
	many := service("web", nil, a)
	for i := range mostLeftovers + 10 {
		more := many.Instances[0]
		more.ID = fmt.Sprintf("more-%d", i)
		more.Address = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), 1)
		many.Instances = append(many.Instances, more)
	}
	tags := []string{"mi-lb.check.disable=true"}
	for i := range many.Instances {
		many.Instances[i].Tags = tags
	}
	e.want(world(many))
	e.untilStatus("applied", func(s Status) bool { return s.Revision == e.revision && s.Pending == "" })
	e.want(world(service("web", tags, a)))
	e.until("web.example.com", 200, "a")
	haproxytest.Until(t, "the servers are gone", func() error {
		if n := e.Status().Leftovers; n > 0 {
			return fmt.Errorf("%d are left", n)
		}
		return nil
	})
}

func TestAReloadThatWouldOpenABusyPortIsNotTried(t *testing.T) {
	ports := freeRange(t, 5)
	other, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", ports.First+2))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	e := newEdge(t, nil)
	a := says(t, "a")
	all := world(service("a", []string{fmt.Sprintf("mi-lb.port=%d", ports.First+3)}, a))
	e.want(world(service("a", nil, a)))
	e.until("a.example.com", 200, "a")
	e.untilStatus("running", func(s Status) bool { return s.Running && s.Pending == "" })
	e.leave()
	e.options.Engine, e.options.Settings.ServicePortRange = nil, ports
	stop, asked := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			if status, _, err := e.get("a.example.com"); err != nil || status != 200 {
				asked <- fmt.Errorf("answered %d, %w", status, err)
				return
			}
			select {
			case <-stop:
				asked <- nil
				return
			default:
			}
		}
	}()
	e.start()
	e.want(all)
	portSays(t, ports.First+3, "a")
	close(stop)
	if err := <-asked; err != nil {
		t.Errorf("while HAProxy was reloaded: %v", err)
	}
	if n := e.counts.failed; n > 0 {
		t.Errorf("%d reloads failed: %v", n, e.counts.reasons)
	}
}

func TestLocalityChangesWithoutAReload(t *testing.T) {
	e := newEdge(t, nil)
	near, far := says(t, "near"), says(t, "far")
	world := func(locality string) *watch.Snapshot {
		e.revision++
		part := func(dc string, server *httptest.Server) *watch.Part {
			return &watch.Part{
				Source: watch.Source{Kind: watch.Consul, Name: dc}, Datacenter: dc,
				Services: world(service("web", []string{"mi-lb.locality=" + locality}, server)),
			}
		}
		return &watch.Snapshot{
			Revision: e.revision, Datacenter: "dc1", At: time.Now(), Parts: []*watch.Part{part("dc1", near), part("dc2", far)},
		}
	}
	want := func(locality string) {
		snapshot := world(locality)
		e.Want(Wanted{Table: routing.Compile(snapshot, routing.Policy{Domain: "example.com"}, nil), Snapshot: snapshot})
	}
	want("local-first")
	e.until("web.example.com", 200, "near")
	reloads := e.counts.reloaded()
	for range 3 {
		want("global")
		e.until("web.example.com", 200, "far")
		e.until("web.example.com", 200, "near")
		want("local-first")
		e.untilStatus("applied", func(s Status) bool { return s.Revision == e.revision && s.Pending == "" })
		for range 6 {
			if _, body, err := e.get("web.example.com"); err != nil || body != "near" {
				t.Fatalf("local-first leads to %q, %v", body, err)
			}
		}
	}
	if n := e.counts.reloaded(); n != reloads {
		t.Errorf("%d reloads: %v", n-reloads, e.counts.reasons)
	}
}
