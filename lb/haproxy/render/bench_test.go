package render

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/mi-lb/mi-lb/lb/routing"
)

// sized is a table of n services with 4 servers each, and two routes for each.
func sized(n int) *routing.Table {
	t := &routing.Table{}
	for i := range n {
		id := fmt.Sprintf("service-%d", i)
		b := backend(id)
		for j := range 4 {
			b.Servers = append(b.Servers, server(fmt.Sprintf("dc1/node-%d/%s-%d", (i+j)%50, id, j), netip.AddrPortFrom(
				netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(j)}), 8080).String()))
		}
		t.Backends = append(t.Backends, b)
		t.Routes = append(t.Routes, byHost(id+".mi-lb.example.com", "/", id), byHost(id+".service.consul", "/", id))
	}
	return t
}

func BenchmarkRender(b *testing.B) {
	for _, n := range []int{1000, 5000} {
		b.Run(fmt.Sprintf("%dx4", n), func(b *testing.B) {
			table, renderer := sized(n), newRenderer(b)
			for b.Loop() {
				if _, err := renderer.Render(b.Context(), table, Settings{Dir: "/d", HTTP: []string{":80"}}, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkServerArgs(b *testing.B) {
	renderer, table := newRenderer(b), sized(1)
	for b.Loop() {
		if _, err := renderer.ServerArgs(table.Backends[0], table.Backends[0].Servers[:1], Settings{Dir: "/d"}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompare(b *testing.B) {
	renderer, table := newRenderer(b), sized(5000)
	old, err := renderer.Render(b.Context(), table, Settings{Dir: "/d"}, nil)
	if err != nil {
		b.Fatal(err)
	}
	changed := *table.Backends[7]
	changed.Servers = changed.Servers[1:]
	table.Backends[7] = &changed
	new, err := renderer.Render(b.Context(), table, Settings{Dir: "/d"}, nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if c := Compare(old, new); len(c.Servers) != 1 {
			b.Fatalf("%+v", c)
		}
	}
}

func BenchmarkRenderOneChange(b *testing.B) {
	for _, n := range []int{1000, 5000} {
		b.Run(fmt.Sprintf("%dx4", n), func(b *testing.B) {
			table, renderer := sized(n), newRenderer(b)
			i := 0
			for b.Loop() {
				i++
				changed := *table.Backends[7]
				changed.Servers = slices.Clone(changed.Servers)
				changed.Servers[0].Weight = i % 256
				copied := *table
				copied.Backends = slices.Clone(table.Backends)
				copied.Backends[7] = &changed
				if _, err := renderer.Render(b.Context(), &copied, Settings{Dir: "/d", HTTP: []string{":80"}, SpareBackends: 64}, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
