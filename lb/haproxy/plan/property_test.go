package plan

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mi-lb/mi-lb/lb/haproxy/runtime"
	"github.com/mi-lb/mi-lb/lb/routing"
)

// history makes tables, each a change of the one before.
type history struct {
	*rand.Rand
	backends map[string]*routing.Backend
	routes   map[string]string
	ports    map[int]string
}

func newHistory(seed uint64) *history {
	return &history{Rand: rand.New(rand.NewPCG(seed, 1)), backends: map[string]*routing.Backend{}, routes: map[string]string{}, ports: map[int]string{}}
}

func (h *history) server(name string) routing.Server {
	return routing.Server{
		Name: name, Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(1 + h.IntN(3))}), uint16(8000+h.IntN(3))),
		Weight: h.IntN(3) * 50, State: []routing.ServerState{routing.Ready, routing.Ready, routing.Drain, routing.Maint}[h.IntN(4)],
		Backup: h.IntN(100) == 0, MaxConn: h.IntN(2) * 10,
	}
}

// step changes a few things and is the new table. What did not change is shared.
func (h *history) step() *routing.Table {
	for range 1 + h.IntN(4) {
		id := fmt.Sprintf("b %d", h.IntN(6))
		switch b := h.backends[id]; {
		case b == nil || h.IntN(60) == 0:
			h.backends[id] = &routing.Backend{ID: id, Service: id, Protocol: routing.HTTP, Balance: []string{"roundrobin", "roundrobin", "roundrobin", "leastconn", "leastconn", "static-rr"}[h.IntN(6)], Sticky: h.IntN(9) == 0}
			if h.IntN(2) == 0 {
				h.backends[id].Check.Path = fmt.Sprintf("/health-%d", h.IntN(3))
			}
		case h.IntN(12) == 0:
			delete(h.backends, id)
		default:
			changed := *b
			changed.Servers = slices.Clone(b.Servers)
			name := fmt.Sprintf("s%d", h.IntN(6))
			i, found := slices.BinarySearchFunc(changed.Servers, name, func(s routing.Server, name string) int { return strings.Compare(s.Name, name) })
			switch {
			case !found:
				changed.Servers = slices.Insert(changed.Servers, i, h.server(name))
			case h.IntN(2) == 0:
				changed.Servers = slices.Delete(changed.Servers, i, i+1)
			default:
				changed.Servers[i] = h.server(name)
			}
			h.backends[id] = &changed
		}
		h.routes[fmt.Sprintf("h%d.example.com", h.IntN(8))] = id
		if h.IntN(4) == 0 {
			h.ports[[]int{9000, 9001, 10001, 10002}[h.IntN(4)]] = id
		}
		if h.IntN(6) == 0 {
			for _, n := range slices.Sorted(maps.Keys(h.ports))[:min(1, len(h.ports))] {
				delete(h.ports, n)
			}
		}
	}
	t := &routing.Table{}
	for _, id := range slices.Sorted(maps.Keys(h.backends)) {
		t.Backends = append(t.Backends, h.backends[id])
	}
	for _, host := range slices.Sorted(maps.Keys(h.routes)) {
		if h.backends[h.routes[host]] == nil {
			delete(h.routes, host)
			continue
		}
		t.Routes = append(t.Routes, routing.Route{Kind: routing.ByHost, Host: host, Path: "/", Backend: h.routes[host]})
	}
	for _, n := range slices.Sorted(maps.Keys(h.ports)) {
		if h.backends[h.ports[n]] == nil {
			delete(h.ports, n)
			continue
		}
		t.Ports = append(t.Ports, routing.Port{Number: n, Protocol: routing.TCP, Backend: h.ports[n]})
	}
	return t
}

// traffic is what of a model matters to a request: every server that may have some,
// and every row.
func traffic(r *Running) []string {
	var lines []string
	for _, b := range r.Backends() {
		for _, s := range b.Servers {
			if s.State == routing.Drain && Static(b.options) {
				s.Weight = 0 // it cannot be changed, and does not matter
			}
			if s.State != routing.Maint {
				lines = append(lines, fmt.Sprintf("%s %+v", b.ID, s))
			}
		}
	}
	names := map[string]string{}
	for _, b := range r.Backends() {
		names[b.Name] = b.ID
	}
	for _, file := range r.Maps() {
		if file == "/checks.map" {
			continue // that of spares only: see checked
		}
		for _, row := range r.Rows(file) {
			lines = append(lines, fmt.Sprintf("%s %s %s", row.Map, row.Key, names[row.Value]))
		}
	}
	return lines
}

// checked fails if a spare is not checked as the backend that it has become.
func checked(t *testing.T, name string, r *Running) {
	t.Helper()
	for _, b := range r.Backends() {
		if b.spare == "" || b.options.Check.Path == "" {
			continue
		}
		if path, _ := r.rows.get(rowKey{"/checks.map", b.Name}); path != b.options.Check.Path {
			t.Fatalf("%s: backend %s on %s is checked at %q, not %q", name, b.ID, b.Name, path, b.options.Check.Path)
		}
	}
}

func TestAnyHistoryOfRuntimeChangesEndsWhereAReloadDoes(t *testing.T) {
	reloads, plans := 0, 0
	for seed := range uint64(100) {
		h := newHistory(seed)
		encoding := testEncoding()
		if seed%2 == 1 {
			encoding.Spares = spares("spare-1", "spare-2", "check-1", "check-2", "tcp-1")
		}
		encoding.Grow = func(shape string, spares int) (name, from string) {
			if strings.Contains(shape, "sticky") {
				return "", ""
			}
			return fmt.Sprintf("grown-%d", spares), "like-" + shape
		}
		caps := runtime.Capabilities{AddServer: seed%7 != 0, DelServer: seed%3 == 0, AddBackend: seed%5 < 2}
		table := h.step()
		running, err := New(table, encoding)
		if err != nil {
			t.Fatal(err)
		}
		var leaving []Ref
		for step := range 60 {
			name := fmt.Sprintf("seed %d, step %d", seed, step)
			table = h.step()
			plan := Diff(running, table, caps)
			plans++
			if len(plan.Refused) > 0 {
				t.Fatalf("%s: %v", name, plan.Refused)
			}
			if script := NewScript(plan.Ops); len(script.invalid) > 0 {
				t.Fatalf("%s: %v", name, script.invalid)
			}
			if h.IntN(3) == 0 {
				// Some operations fail: the next plan makes up for them.
				var done []Op
				for _, op := range plan.Ops {
					if h.IntN(2) == 0 || op.Kind() == "claim-spare" {
						done = append(done, op)
					}
				}
				running = running.Apply(done)
				plan = Diff(running, table, caps)
			}
			running = running.After(plan)
			if again := Diff(running, table, caps); len(again.Ops) > 0 || !cmp.Equal(again.Reload, plan.Reload) {
				t.Fatalf("%s: the plan\n%s leaves\n%s", name, plan.text(), again.text())
			}
			leaving = append(leaving, plan.Leaving...)

			fresh, err := New(table, encoding)
			if err != nil {
				t.Fatal(err)
			}
			fresh = fresh.After(Diff(fresh, table, caps))
			if plan.Urgent() || h.IntN(20) == 0 {
				reloads++
				running, leaving = fresh, nil
			} else if len(plan.Reload) == 0 {
				checked(t, name, running)
				cut := running.Apply(running.Cut(table, leaving))
				cut = cut.Apply(cut.Collect(table, caps))
				if diff := cmp.Diff(traffic(fresh), traffic(cut)); diff != "" {
					t.Fatalf("%s: by reload (-), by operations (+):\n%s", name, diff)
				}
				if caps.DelServer && cut.Leftovers(table) != 0 {
					t.Fatalf("%s: %d left over", name, cut.Leftovers(table))
				}
				if h.IntN(3) == 0 {
					running, leaving = cut, nil
				}
			}
			if d := Drift(running, actual(running), actualRows(running), caps); d.Total() != 0 {
				t.Fatalf("%s: drift %v", name, d.Counts)
			}
		}
	}
	t.Logf("%d plans, %d reloads", plans, reloads)
}

func TestATableThatSharesItsBackendsIsComparedByPointer(t *testing.T) {
	table := &routing.Table{}
	for i := range 10000 {
		b := &routing.Backend{ID: fmt.Sprintf("b%05d", i), Protocol: routing.HTTP, Balance: "roundrobin"}
		for j := range 5 {
			b.Servers = append(b.Servers, routing.Server{Name: fmt.Sprint("s", j), Address: netip.MustParseAddrPort("10.0.0.1:80"), State: routing.Ready, Weight: 100})
		}
		table.Backends = append(table.Backends, b)
		table.Routes = append(table.Routes, routing.Route{Kind: routing.ByHost, Host: b.ID, Path: "/", Backend: b.ID})
	}
	running, err := New(table, testEncoding())
	if err != nil {
		t.Fatal(err)
	}
	next := *table
	next.Backends = slices.Clone(table.Backends)
	next.Routes = slices.Clone(table.Routes)
	changed := *table.Backends[5000]
	changed.Servers = changed.Servers[1:]
	next.Backends[5000] = &changed
	allocations := testing.AllocsPerRun(10, func() {
		running.After(Diff(running, &next, able))
	})
	if allocations > 200 {
		t.Errorf("%.0f allocations for a change of one server", allocations)
	}
}

func BenchmarkOneChangeAmongTenThousandBackends(b *testing.B) {
	table := &routing.Table{}
	for i := range 10000 {
		backend := &routing.Backend{ID: fmt.Sprintf("b%05d", i), Protocol: routing.HTTP, Balance: "roundrobin"}
		for j := range 5 {
			backend.Servers = append(backend.Servers, routing.Server{Name: fmt.Sprint("s", j), Address: netip.MustParseAddrPort("10.0.0.1:80"), State: routing.Ready, Weight: 100})
		}
		table.Backends = append(table.Backends, backend)
		for k := range 4 {
			table.Routes = append(table.Routes, routing.Route{Kind: routing.ByHost, Host: fmt.Sprint(backend.ID, k), Path: "/", Backend: backend.ID})
		}
	}
	running, err := New(table, testEncoding())
	if err != nil {
		b.Fatal(err)
	}
	next := *table
	next.Backends, next.Routes = slices.Clone(table.Backends), slices.Clone(table.Routes)
	changed := *table.Backends[5000]
	changed.Servers = changed.Servers[1:]
	next.Backends[5000] = &changed
	for b.Loop() {
		running.After(Diff(running, &next, able))
	}
}
