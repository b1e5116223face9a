package plan

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/mi-lb/mi-lb/lb/routing"
)

// Server is a server of the model.
type Server struct {
	Name    string
	Address netip.AddrPort
	Weight  int
	State   routing.ServerState
	Backup  bool
	MaxConn int
}

// Backend is a backend of the model. It is immutable.
type Backend struct {
	// ID is the routing backend's, Name HAProxy's.
	ID   string
	Name string
	// Servers, sorted by name.
	Servers []Server

	// options is the routing backend whose options run; its servers mean nothing.
	options *routing.Backend
	// source is the routing backend that this one equals in all, as far as it can
	// without a reload; nil if that is not known.
	source *routing.Backend
	// gone: it is not wanted any more, and its servers are drained or in maintenance.
	gone bool
	// spare is the shape of the spare that it was made of; "" if it has a section of
	// its own.
	spare string
}

// Running is a model of what HAProxy runs. It is immutable; a copy with a change
// shares with it what did not change.
type Running struct {
	encoding *Encoding
	// backends, sorted by ID.
	backends []*Backend
	rows     rows
	// routes and portRows are what the rows were last made equal to.
	routes   []routing.Route
	portRows []routing.Port
	// unsettled are rows that have changed since.
	unsettled map[rowKey]bool
	// ports have frontends of their own, sorted by number.
	ports []routing.Port
	// spares are not used yet.
	spares []Spare
}

// New is the model of a HAProxy that has just read files rendered from the table.
// The configuration has no word for drain: such a server is ready with weight 0.
func New(table *routing.Table, encoding *Encoding) (*Running, error) {
	return Adopt(table, encoding, encoding.spares(table))
}

// Adopt is the model of a HAProxy that runs the table, some of it on spares.
func Adopt(table *routing.Table, encoding *Encoding, spares []Spare) (*Running, error) {
	r := &Running{encoding: encoding, routes: table.Routes, portRows: table.Ports}
	claimed := map[string]Spare{}
	for _, s := range spares {
		if s.ID == "" {
			r.spares = append(r.spares, s)
		} else {
			claimed[s.ID] = s
		}
	}
	base := map[rowKey]string{}
	name := func(id string) string {
		if s, ok := claimed[id]; ok {
			return s.Name
		}
		return backendName(id)
	}
	for _, b := range table.Backends {
		m := rendered(b)
		if s, ok := claimed[b.ID]; ok {
			m.Name, m.spare, m.source = s.Name, s.Shape, nil
			rows, err := encoding.claim(s.Name, b)
			if err != nil {
				return nil, fmt.Errorf("backend %q of service %q on %s: %w", b.ID, b.Service, s.Name, err)
			}
			for _, row := range rows {
				base[rowKey{row.Map, row.Key}] = row.Value
			}
		}
		r.backends = append(r.backends, m)
	}
	slices.SortFunc(r.backends, func(a, b *Backend) int { return cmp.Compare(a.ID, b.ID) })
	for _, row := range encoding.Extra {
		base[rowKey{row.Map, row.Key}] = row.Value
	}
	for _, route := range table.Routes {
		row, err := encoding.Route(route)
		if err != nil {
			return nil, fmt.Errorf("route %s%s of service %q: %w", route.Host, route.Path, route.Service, err)
		}
		if row.Map != "" {
			base[rowKey{row.Map, row.Key}] = name(route.Backend)
		}
	}
	for _, port := range table.Ports {
		row, err := encoding.Port(port)
		if err != nil {
			return nil, fmt.Errorf("port %d of service %q: %w", port.Number, port.Service, err)
		}
		if row.Map == "" {
			r.ports = append(r.ports, port)
		} else {
			base[rowKey{row.Map, row.Key}] = name(port.Backend)
		}
	}
	slices.SortFunc(r.ports, func(a, b routing.Port) int { return cmp.Compare(a.Number, b.Number) })
	r.rows = rows{base: base}
	return r, nil
}

func rendered(b *routing.Backend) *Backend {
	m := &Backend{ID: b.ID, Name: backendName(b.ID), options: b, source: b, Servers: make([]Server, len(b.Servers))}
	for i, s := range b.Servers {
		m.Servers[i] = modelled(s)
		if s.State == routing.Drain {
			m.Servers[i].State, m.Servers[i].Weight = routing.Ready, 0
			m.source = nil
		}
	}
	slices.SortFunc(m.Servers, func(a, b Server) int { return cmp.Compare(a.Name, b.Name) })
	return m
}

func modelled(s routing.Server) Server {
	return Server{Name: serverName(s), Address: s.Address, Weight: s.Weight, State: s.State, Backup: s.Backup, MaxConn: s.MaxConn}
}

// Spares that HAProxy has, free or not, for [Adopt].
func (r *Running) Spares() []Spare {
	all := slices.Clone(r.spares)
	for _, b := range r.backends {
		if b.spare != "" {
			all = append(all, Spare{Name: b.Name, Shape: b.spare, ID: b.ID})
		}
	}
	return all
}

// Backends of the model, sorted by ID. They must not be changed.
func (r *Running) Backends() []*Backend { return r.backends }

// Backend is the one with the id, nil if none runs.
func (r *Running) Backend(id string) *Backend {
	if i, found := r.find(id); found {
		return r.backends[i]
	}
	return nil
}

func (r *Running) find(id string) (int, bool) {
	return slices.BinarySearchFunc(r.backends, id, func(b *Backend, id string) int { return strings.Compare(b.ID, id) })
}

// Server is the one with HAProxy's name.
func (b *Backend) Server(name string) (Server, bool) {
	if i, found := b.find(name); found {
		return b.Servers[i], true
	}
	return Server{}, false
}

func (b *Backend) find(name string) (int, bool) {
	return slices.BinarySearchFunc(b.Servers, name, func(s Server, name string) int { return strings.Compare(s.Name, name) })
}

// Maps are the paths of the maps that have rows, sorted.
func (r *Running) Maps() []string {
	var files []string
	for key := range r.rows.all() {
		if i, found := slices.BinarySearch(files, key.Map); !found {
			files = slices.Insert(files, i, key.Map)
		}
	}
	return files
}

// Rows of the map, sorted by key.
func (r *Running) Rows(file string) []Row {
	var all []Row
	for key, value := range r.rows.all() {
		if key.Map == file {
			all = append(all, Row{key.Map, key.Key, value})
		}
	}
	slices.SortFunc(all, func(a, b Row) int { return cmp.Compare(a.Key, b.Key) })
	return all
}

// sameOptions is whether the two differ in nothing but their servers.
func sameOptions(a, b *routing.Backend) bool {
	if a == b {
		return true
	}
	x, y := *a, *b
	x.Servers, y.Servers = nil, nil
	return reflect.DeepEqual(x, y)
}

// Apply is the model after the operations, which must be for it.
func (r *Running) Apply(ops []Op) *Running {
	if len(ops) == 0 {
		return r
	}
	e := newEdit(r)
	for _, op := range ops {
		op.apply(e)
	}
	return e.done()
}

// edit changes a copy of a model.
type edit struct {
	r *Running
	// touched backends are copies of the edit's own.
	touched map[string]*Backend
	rows    map[rowKey]*string
}

func newEdit(r *Running) *edit {
	copied := *r
	copied.backends = slices.Clone(r.backends)
	return &edit{r: &copied, touched: map[string]*Backend{}, rows: map[rowKey]*string{}}
}

func (e *edit) done() *Running {
	e.r.rows = e.r.rows.with(e.rows)
	if len(e.rows) > 0 {
		unsettled := make(map[rowKey]bool, len(e.r.unsettled)+len(e.rows))
		maps.Copy(unsettled, e.r.unsettled)
		for key := range e.rows {
			unsettled[key] = true
		}
		e.r.unsettled = unsettled
	}
	return e.r
}

// backend is the edit's own copy, which is equal to no routing backend from now on;
// nil if there is none.
func (e *edit) backend(id string) *Backend {
	if b := e.touched[id]; b != nil {
		return b
	}
	i, found := e.r.find(id)
	if !found {
		return nil
	}
	b := *e.r.backends[i]
	b.Servers = slices.Clone(b.Servers)
	b.source, b.gone = nil, false
	e.r.backends[i], e.touched[id] = &b, &b
	return &b
}

func (e *edit) server(ref Ref, change func(*Server)) {
	if b := e.backend(ref.ID); b != nil {
		if i, found := b.find(ref.Server); found {
			change(&b.Servers[i])
		}
	}
}

func (o AddServer) apply(e *edit) {
	b := e.backend(o.Ref.ID)
	if b == nil {
		return
	}
	s := modelled(o.Server)
	i, found := b.find(s.Name)
	if found {
		b.Servers[i] = s
	} else {
		b.Servers = slices.Insert(b.Servers, i, s)
	}
}

// The model knows no sessions.
func (o ShutdownSessions) apply(*edit) {}

func (o DelServer) apply(e *edit) {
	if b := e.backend(o.Ref.ID); b != nil {
		b.Servers = slices.DeleteFunc(b.Servers, func(s Server) bool { return s.Name == o.Ref.Server })
	}
}

func (o SetServerAddress) apply(e *edit) { e.server(o.Ref, func(s *Server) { s.Address = o.Address }) }
func (o SetServerWeight) apply(e *edit)  { e.server(o.Ref, func(s *Server) { s.Weight = o.Weight }) }
func (o SetServerState) apply(e *edit)   { e.server(o.Ref, func(s *Server) { s.State = o.State }) }
func (o SetServerMaxConn) apply(e *edit) { e.server(o.Ref, func(s *Server) { s.MaxConn = o.MaxConn }) }
func (o AddMap) apply(e *edit)           { e.rows[rowKey{o.Map, o.Key}] = &o.Value }
func (o SetMap) apply(e *edit)           { e.rows[rowKey{o.Map, o.Key}] = &o.Value }
func (o DelMap) apply(e *edit)           { e.rows[rowKey(o)] = nil }

func (o AddSpare) apply(e *edit) {
	e.r.spares = append(slices.Clone(e.r.spares), Spare{Name: o.Name, Shape: o.Shape})
}

func (o ClaimSpare) apply(e *edit) {
	b := &Backend{ID: o.ID, Name: o.Backend, options: o.options, spare: o.shape}
	if o.From == "" {
		e.r.spares = slices.DeleteFunc(slices.Clone(e.r.spares), func(s Spare) bool { return s.Name == o.Backend })
	} else if i, found := e.r.find(o.From); found {
		b.Servers = slices.Clone(e.r.backends[i].Servers)
		e.r.backends = slices.Delete(e.r.backends, i, i+1)
		delete(e.touched, o.From)
	}
	if i, found := e.r.find(o.ID); !found {
		e.r.backends = slices.Insert(e.r.backends, i, b)
		e.touched[o.ID] = b
	}
}
