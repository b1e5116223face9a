package haproxy

import (
	"crypto/sha256"
	"encoding/json"
	"slices"
	"strings"

	"github.com/mi-lb/mi-lb/lb/haproxy/render"
	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/watch"
)

// settings are those that what is wanted is rendered with.
func (w Wanted) settings(s render.Settings) render.Settings {
	s.BlockedPorts = w.blocked
	return s
}

// without is what is wanted without the services and service ports, as if they did
// not exist.
func (w Wanted) without(services map[string]bool, ports map[int]bool) Wanted {
	if len(services) == 0 && len(ports) == 0 {
		return w
	}
	out := w
	out.Table = w.Table.Without(services)
	if len(ports) > 0 {
		copied := *out.Table
		copied.Ports = slices.DeleteFunc(slices.Clone(copied.Ports), func(p routing.Port) bool { return ports[p.Number] })
		out.Table = &copied
	}
	if len(services) > 0 && w.Snapshot != nil {
		out.Snapshot = w.Snapshot.Filter(w.keeps(services))
	}
	return out
}

// keeps says of a name in a registry, or an app's id, whether it is none of the
// services.
func (w Wanted) keeps(services map[string]bool) func(name string) bool {
	gone := map[string]bool{}
	for _, s := range w.Table.Services {
		if services[s.Name] {
			gone[s.Name], gone[strings.ToLower(s.App)] = true, true
			for _, alias := range s.Aliases {
				gone[alias] = true
			}
		}
	}
	return func(name string) bool { return !gone[strings.ToLower(name)] }
}

// fingerprint of everything that a service brings into the files: as long as it
// stays the same, so does what HAProxy thinks of it.
func (w Wanted) fingerprint(service string) [sha256.Size]byte {
	type content struct {
		Ports    []routing.Port
		Routes   []routing.Route
		Backends []*routing.Backend
		Services []*watch.Service
		Apps     []*watch.App
	}
	var c content
	for _, p := range w.Table.Ports {
		if p.Service == service {
			c.Ports = append(c.Ports, p)
		}
	}
	for _, r := range w.Table.Routes {
		if r.Service == service {
			c.Routes = append(c.Routes, r)
		}
	}
	for _, b := range w.Table.Backends {
		if b.Service == service {
			c.Backends = append(c.Backends, b)
		}
	}
	if w.Snapshot != nil {
		keeps := w.keeps(map[string]bool{service: true})
		for _, part := range w.Snapshot.Parts {
			for name, s := range part.Services {
				if !keeps(name) {
					c.Services = append(c.Services, s)
				}
			}
			for id, a := range part.Apps {
				if !keeps(id) {
					c.Apps = append(c.Apps, a)
				}
			}
		}
	}
	data, err := json.Marshal(c)
	if err != nil {
		// Nothing in it can fail to be encoded; if it did, the service would be
		// tried anew each time.
		return [sha256.Size]byte{}
	}
	return sha256.Sum256(data)
}

// services that have anything in HAProxy's files, sorted.
func (w Wanted) services() []string {
	var names []string
	for _, s := range w.Table.Services {
		names = append(names, s.Name)
	}
	slices.Sort(names)
	return names
}
