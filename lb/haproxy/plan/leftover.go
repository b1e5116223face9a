package plan

import (
	"slices"
	"strings"

	"github.com/mi-lb/mi-lb/lb/haproxy/runtime"
	"github.com/mi-lb/mi-lb/lb/routing"
)

// Cut puts those of the servers into maintenance that are still not wanted, and ends the
// sessions that they still have: maintenance alone lets those go on. The others have come back, or are gone already.
func (r *Running) Cut(wanted *routing.Table, servers []Ref) []Op {
	var ops []Op
	for _, ref := range servers {
		b := r.Backend(ref.ID)
		if b == nil || b.Name != ref.Backend {
			continue
		}
		if s, ok := b.Server(ref.Server); ok && s.State != routing.Maint && !wants(wanted, ref) {
			ops = append(ops, SetServerState{ref, routing.Maint}, ShutdownSessions{ref})
		}
	}
	return ops
}

// Collect deletes the servers that are not wanted and in maintenance, if this
// HAProxy can do that without risk. Otherwise the next reload, for whatever reason,
// leaves them out. HAProxy refuses to delete a server that has connections.
func (r *Running) Collect(wanted *routing.Table, caps runtime.Capabilities) []Op {
	if !caps.DelServer {
		return nil
	}
	var ops []Op
	r.leftovers(wanted, func(ref Ref, s Server) {
		if s.State == routing.Maint {
			ops = append(ops, DelServer{ref})
		}
	})
	return ops
}

// Leftovers counts the servers that run and are not wanted. Each takes about 5 kB
// until the next reload.
func (r *Running) Leftovers(wanted *routing.Table) int {
	n := 0
	r.leftovers(wanted, func(Ref, Server) { n++ })
	return n
}

// ServerCount is how many servers run.
func (r *Running) ServerCount() int {
	n := 0
	for _, b := range r.backends {
		n += len(b.Servers)
	}
	return n
}

func (r *Running) leftovers(wanted *routing.Table, each func(Ref, Server)) {
	rest := wanted.Backends
	for _, b := range r.backends {
		for len(rest) > 0 && rest[0].ID < b.ID {
			rest = rest[1:]
		}
		var w *routing.Backend
		if len(rest) > 0 && rest[0].ID == b.ID {
			w = rest[0]
		}
		if w != nil && w == b.source && len(w.Servers) == len(b.Servers) {
			continue
		}
		var kept map[string]bool
		if w != nil {
			kept = make(map[string]bool, len(w.Servers))
			for _, s := range w.Servers {
				kept[serverName(s)] = true
			}
		}
		for _, s := range b.Servers {
			if !kept[s.Name] {
				each(Ref{b.ID, b.Name, s.Name}, s)
			}
		}
	}
}

func backendOf(t *routing.Table, id string) *routing.Backend {
	i, found := slices.BinarySearchFunc(t.Backends, id, func(b *routing.Backend, id string) int { return strings.Compare(b.ID, id) })
	if !found {
		return nil
	}
	return t.Backends[i]
}

func wants(t *routing.Table, ref Ref) bool {
	b := backendOf(t, ref.ID)
	return b != nil && slices.ContainsFunc(b.Servers, func(s routing.Server) bool { return serverName(s) == ref.Server })
}
