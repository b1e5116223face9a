package routing

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/mi-lb/mi-lb/watch"
)

// history makes snapshots that follow each other out of choices. Names, addresses,
// ports and ids are few, so that what is in a snapshot meets all the time.
type history struct {
	// choose is a number from 0 to n-1.
	choose   func(n int) int
	policy   Policy
	snapshot *watch.Snapshot
}

func newHistory(choose func(n int) int) *history {
	return &history{
		choose:   choose,
		policy:   Policy{Domain: "example.com", ConsulDomain: "consul", Passthrough: true, Reserved: map[int]string{80: "listen.http"}},
		snapshot: &watch.Snapshot{Datacenter: "dc1"},
	}
}

func one[T any](h *history, of ...T) T { return of[h.choose(len(of))] }

func some[T any](h *history, most int, of ...T) []T {
	var chosen []T
	for range h.choose(most + 1) {
		chosen = append(chosen, one(h, of...))
	}
	return chosen
}

func (h *history) service() string {
	return one(h, "web", "Web", "api", "python", "a-b", "shop-web", "shop-web-1", "canary.web", "web:tcp", "consul", "/a/b", "two words")
}

func (h *history) address() netip.AddrPort {
	n := h.choose(14)
	if n == 0 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n % 5)}), uint16(31000+n/5))
}

func (h *history) health() watch.Health { return watch.Health(h.choose(5)) }

func (h *history) instance(id int) watch.Instance {
	i := watch.Instance{
		ID: fmt.Sprintf("i%d", id), Node: one(h, "n1", "n2"), Address: h.address(), Health: h.health(),
		Weights: one(h, watch.Weights{Passing: 1, Warning: 1}, watch.Weights{Passing: 10, Warning: 2}, watch.Weights{Passing: 1000}),
		Tags: some(h, 3, "v1", "canary", "mi-lb.port=9000", "mi-lb.port=9001", "mi-lb.port=80", "mi-lb.host=a.org", "mi-lb.host=a.org,b.org",
			"mi-lb.path=/x", "mi-lb.path.strip=true", "mi-lb.service=web", "mi-lb.service=api", "mi-lb.mode=tcp", "mi-lb.mode=passthrough",
			"mi-lb.enable=false", "mi-lb.enable=true", "urlprefix-a.org/x strip=/x", "urlprefix-:9001 proto=tcp", "mi-lb.weight=5", "mi-lb.locality=global",
			"mi-lb.locality=local-only", "mi-lb.balance=bogus", "mi-lb.balance=uri", "mi-lb.auth=x", "mi-lb.host=web.example.com", "mi-lb.unknown=1"),
	}
	if h.choose(4) == 0 {
		i.Meta = map[string]string{"mi-lb-host": one(h, "a.org", "c.org", "-"), "other": "x"}
	}
	if i.Health != watch.HealthPassing {
		i.Reason = one(h, "", "check", "other")
	}
	return i
}

func (h *history) newService(name string) *watch.Service {
	s := &watch.Service{Name: name}
	for i := range h.choose(4) {
		s.Instances = append(s.Instances, h.instance(i))
	}
	return s
}

func (h *history) app(id string) *watch.App {
	a := &watch.App{ID: id, Labels: map[string]string{}, Env: map[string]string{}}
	for _, label := range some(h, 3, "mi-lb.host", "mi-lb.1.host", "HAPROXY_0_VHOST") {
		a.Labels[label] = one(h, "a.org", "b.org", "c.org", "?")
	}
	for _, label := range some(h, 2, "mi-lb.service", "mi-lb.1.service") {
		a.Labels[label] = one(h, "web", "a-b", "api", "shop-web")
	}
	for _, label := range some(h, 1, "HAPROXY_GROUP", "mi-lb.group") {
		a.Labels[label] = one(h, "external", "internal")
	}
	for _, label := range some(h, 1, "mi-lb.enable", "HAPROXY_0_STICKY", "mi-lb.port", "HAPROXY_0_PORT", "mi-lb.weight", "mi-lb.auth", "mi-lb.mode") {
		a.Labels[label] = one(h, "true", "false", "9000", "9001", "tcp", "passthrough")
	}
	for _, name := range some(h, 1, "SERVICE_NAME", "SERVICE_80_NAME", "SERVICE_81_NAME") {
		a.Env[name] = one(h, "python", "web", "api")
	}
	for range h.choose(4) {
		a.Ports = append(a.Ports, watch.AppPort{
			ServicePort: one(h, 0, 80, 9000, 9001, 9002, 70000), ContainerPort: one(h, 0, 80, 81), Protocol: one(h, "tcp", "tcp", "udp", "udp,tcp"), Name: one(h, "", "web"),
		})
	}
	if h.choose(3) == 0 {
		a.HealthChecks = []watch.HealthCheck{{Protocol: one(h, "HTTP", "MESOS_HTTPS", "TCP", "COMMAND"), Path: one(h, "/health", "", "/?q"), PortIndex: h.choose(2)}}
	}
	for i := range h.choose(4) {
		a.Tasks = append(a.Tasks, h.task(i))
	}
	return a
}

func (h *history) task(i int) watch.Task {
	t := watch.Task{
		ID: fmt.Sprintf("t%d", i), Node: one(h, "n1", "n2"), Health: h.health(), Reason: one(h, "", "check"),
		State: one(h, "TASK_RUNNING", "TASK_RUNNING", "TASK_STAGING", "TASK_KILLING", "TASK_KILLED"),
	}
	for range h.choose(4) {
		t.Addresses = append(t.Addresses, h.address())
	}
	return t
}

func (h *history) source() (source watch.Source, datacenter string) {
	source = one(h,
		watch.Source{Kind: watch.Consul, Name: "dc1"}, watch.Source{Kind: watch.Consul, Name: "dc2"}, watch.Source{Kind: watch.Consul, Name: "dc3"},
		watch.Source{Kind: watch.Marathon, Name: "m1"}, watch.Source{Kind: watch.Marathon, Name: "m2"}, watch.Source{Kind: watch.File, Name: "f"})
	switch source.Name {
	case "m2":
		return source, "dc2"
	case "m1", "f":
		return source, "dc1"
	}
	return source, source.Name
}

// step makes the next snapshot: mostly one change, sometimes a few, rarely a big one.
func (h *history) step() {
	for range 1 + h.choose(2)*h.choose(4) {
		h.change()
	}
}

func (h *history) change() {
	source, datacenter := h.source()
	was := h.snapshot.Part(source)
	if was == nil {
		was = &watch.Part{Source: source, Datacenter: datacenter}
	}
	part := watch.Part{
		Source: was.Source, Datacenter: was.Datacenter, Services: was.Services, Apps: was.Apps, Datacenters: was.Datacenters, Findings: was.Findings,
	}
	publish := func() { h.snapshot = h.snapshot.With(&part, time.Unix(int64(h.snapshot.Revision), 0).UTC()) }
	switch n := h.choose(40); {
	case n == 0:
		h.snapshot = h.snapshot.Without(source, time.Time{})
	case n == 1:
		h.distances()
	case n == 2:
		h.changePolicy()
	case n == 3:
		part.Findings = slices.Clone(part.Findings)
		part.Findings = append(part.Findings, watch.Finding{Code: "x", Service: h.service(), Message: one(h, "a", "b")})
		publish()
	case n == 4:
		part.Findings = nil
		publish()
	case n == 5 && h.choose(4) == 0:
		part.Datacenter = one(h, "dc1", "dc2", "dc3")
		publish()
	case n == 6 && h.choose(4) == 0:
		moved := *h.snapshot
		moved.Datacenter, moved.Revision = one(h, "dc1", "dc2"), moved.Revision+1
		h.snapshot = &moved
	case source.Kind == watch.Marathon:
		part.Apps = maps.Clone(was.Apps)
		if part.Apps == nil {
			part.Apps = map[string]*watch.App{}
		}
		id := one(h, "/a/b", "/a-b", "/A/b", "/shop/web", "/web", "/python", "/z")
		part.Apps[id] = h.changeApp(id, part.Apps[id])
		if part.Apps[id] == nil {
			delete(part.Apps, id)
		}
		publish()
	default:
		part.Services = maps.Clone(was.Services)
		if part.Services == nil {
			part.Services = map[string]*watch.Service{}
		}
		name := h.service()
		part.Services[name] = h.changeService(name, part.Services[name])
		if part.Services[name] == nil {
			delete(part.Services, name)
		}
		if h.choose(2) == 0 {
			part.Follow(was, []string{name})
		}
		publish()
	}
}

func (h *history) changeService(name string, was *watch.Service) *watch.Service {
	if was == nil || len(was.Instances) == 0 || h.choose(4) == 0 {
		if was != nil && h.choose(3) == 0 {
			return nil
		}
		return h.newService(name)
	}
	s := &watch.Service{Name: name, Instances: slices.Clone(was.Instances)}
	at := h.choose(len(s.Instances))
	fresh := h.instance(h.choose(6))
	switch h.choose(6) {
	case 0:
		s.Instances = slices.Delete(s.Instances, at, at+1)
	case 1:
		s.Instances = append(s.Instances, fresh)
	case 2:
		s.Instances[at].Tags = fresh.Tags
	case 3:
		s.Instances[at].Address = fresh.Address
	default:
		s.Instances[at].Health, s.Instances[at].Reason = fresh.Health, fresh.Reason
	}
	// A node has an id once.
	slices.SortStableFunc(s.Instances, func(a, b watch.Instance) int { return cmpText(a.Node+" "+a.ID, b.Node+" "+b.ID) })
	s.Instances = slices.CompactFunc(s.Instances, func(a, b watch.Instance) bool { return a.Node == b.Node && a.ID == b.ID })
	return s
}

func cmpText(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (h *history) changeApp(id string, was *watch.App) *watch.App {
	if was == nil || h.choose(3) == 0 {
		if was != nil && h.choose(3) == 0 {
			return nil
		}
		return h.app(id)
	}
	a := *was
	fresh := h.app(id)
	switch h.choose(6) {
	case 0:
		a.Labels = fresh.Labels
	case 1:
		a.Ports = fresh.Ports
	case 2:
		a.Env = fresh.Env
	default:
		a.Tasks = slices.Clone(was.Tasks)
		if len(a.Tasks) == 0 || h.choose(3) == 0 {
			a.Tasks = fresh.Tasks
		} else {
			a.Tasks[h.choose(len(a.Tasks))].State = one(h, "TASK_RUNNING", "TASK_KILLING", "TASK_KILLED")
		}
	}
	return &a
}

func (h *history) distances() {
	part := &watch.Part{Source: watch.Source{Kind: watch.Consul}}
	for _, name := range []string{"dc1", "dc2", "dc3"} {
		part.Datacenters = append(part.Datacenters, watch.Datacenter{Name: name, RTT: time.Duration(h.choose(3)) * time.Millisecond})
	}
	h.snapshot = h.snapshot.With(part, time.Time{})
}

func (h *history) changePolicy() {
	switch h.choose(5) {
	case 0:
		h.policy.Exposure = one(h, ExposeAll, ExposeTagged)
	case 1:
		h.policy.Locality = one(h, LocalFirst, Global, LocalOnly)
	case 2:
		h.policy.Groups = map[watch.Source][]string{{Kind: watch.Marathon}: some(h, 1, "external")}
	case 3:
		h.policy.Passthrough = !h.policy.Passthrough
	case 4:
		h.policy.Reserved = map[int]string{80: "listen.http", 9000 + h.choose(4): "listen.https"}
	}
}

// follow compares what a compiler makes of a history with what Compile makes of each
// of its snapshots, for as long as there are more.
func follow(t testing.TB, h *history, more func(step int) bool) {
	t.Helper()
	held := Claims{"port 9000": "api", "host a.org /": "web", "name a-b": "/a/b"}
	compiler := NewCompiler(held)
	var last *Table
	for i := 0; more(i); i++ {
		h.step()
		want := Compile(h.snapshot, h.policy, held)
		got := compiler.Compile(h.snapshot, h.policy)
		if !reflect.DeepEqual(want, got) {
			t.Fatalf("step %d (-whole +by change):\n%s", i, cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{})))
		}
		checkConsistent(t, got)
		checkShared(t, last, got)
		held, last = want.Claims(), got
	}
}

// checkShared: whatever is the same in two tables that follow each other is the very same.
func checkShared(t testing.TB, before, after *Table) {
	t.Helper()
	if before == nil {
		return
	}
	for _, b := range after.Backends {
		at, had := slices.BinarySearchFunc(before.Backends, b, compareBackends)
		if had && before.Backends[at] != b && before.Backends[at].Equal(b) {
			t.Fatalf("backend %s was made again", b.ID)
		}
	}
}

func TestAChangeLeavesAloneWhatItDoesNotTouch(t *testing.T) {
	first := benchSnapshot(50, 3)
	second := withChange(first, "service-00020", func(s *watch.Service) *watch.Service {
		s.Instances[1].Health = watch.HealthCritical
		return s
	})
	compiler := NewCompiler(nil)
	before, after := compiler.Compile(first, benchPolicy), compiler.Compile(second, benchPolicy)
	if &before.Routes[0] != &after.Routes[0] {
		t.Error("the routes were made again")
	}
	var backends, services []string
	for i, b := range after.Backends {
		if b != before.Backends[i] {
			backends = append(backends, b.ID)
		}
	}
	for i, s := range after.Services {
		if s != before.Services[i] {
			services = append(services, s.Name)
		}
	}
	want := []string{"service-00020"}
	if !slices.Equal(backends, want) || !slices.Equal(services, want) {
		t.Errorf("backends %v and services %v are others than before", backends, services)
	}
	if state := before.Backends[20].Servers[1].State; state != Ready {
		t.Errorf("the table before has a server that is %s", state)
	}
	if third := compiler.Compile(first.With(first.Parts[0], time.Now()), benchPolicy); third.Backends[20].Servers[1].State != Ready || !reflect.DeepEqual(third.Backends, before.Backends) {
		t.Error("back again, it is not as before")
	}
	// Another policy makes everything anew, and what is the same is shared all the same.
	policy := benchPolicy
	policy.Exposure = ExposeAll
	if again := compiler.Compile(first, policy); again.Backends[0] != before.Backends[0] {
		t.Error("a policy that changes nothing changed a backend")
	}
}

func TestNoTwoServicesHaveABackendOfOneID(t *testing.T) {
	ids := map[string]string{}
	for _, name := range []string{"web", "canary.web", "web:tcp", "web@dc1", "web{/x}", "(canary.web)", "canary.web@dc1", "/a/b"} {
		for _, protocol := range []Protocol{HTTP, TCP} {
			for _, s := range []subset{{}, {tag: "canary"}, {datacenter: "dc1"}, {tag: "canary", datacenter: "dc1"}, {strip: "/x"}, {strip: "/x", tag: "canary", datacenter: "dc1"}} {
				s.protocol = protocol
				what := fmt.Sprintf("%+v of %s", s, name)
				if other, taken := ids[s.id(name)]; taken {
					t.Errorf("%q is %s and %s", s.id(name), other, what)
				}
				ids[s.id(name)] = what
			}
		}
	}
}

func TestCompilerMakesTheSameTables(t *testing.T) {
	for seed := range uint64(24) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 5))
			follow(t, newHistory(random.IntN), func(step int) bool { return step < 200 })
		})
	}
}

// FuzzCompiler takes the choices of a history from the input.
func FuzzCompiler(f *testing.F) {
	for seed := range uint64(8) {
		random := rand.New(rand.NewPCG(seed, 7))
		choices := make([]byte, 300)
		for i := range choices {
			choices[i] = byte(random.IntN(256))
		}
		f.Add(choices)
	}
	f.Fuzz(func(t *testing.T, choices []byte) {
		if len(choices) > 1000 {
			return
		}
		h := newHistory(func(n int) int {
			if len(choices) == 0 {
				return 0
			}
			c := choices[0]
			choices = choices[1:]
			return int(c) % n
		})
		follow(t, h, func(int) bool { return len(choices) > 0 })
	})
}
