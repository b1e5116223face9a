package plan

import (
	"fmt"
	"slices"

	"github.com/mi-lb/mi-lb/lb/haproxy/runtime"
	"github.com/mi-lb/mi-lb/lb/routing"
)

// Reasons for a reload: stable words, fit for a metric's label.
const (
	NewBackend     = "new-backend"
	BackendChanged = "backend-changed"
	// ServersStatic: servers cannot be added to the backend, or to any, or their
	// weights not be changed.
	ServersStatic = "servers-static"
	PortOpened    = "port-opened"
	PortChanged   = "port-changed"
	PortClosed    = "port-closed"
)

// Reason is why HAProxy must be reloaded.
type Reason struct {
	// Word is one of the constants, Detail what it is about: "web", "9000".
	Word   string
	Detail string
	// Deferred: nothing is wrong until there is a reload; it may wait for others. A
	// port that is not wanted any more stays open until then, and whoever asks there
	// finds what its backend still has.
	Deferred bool
}

func (r Reason) String() string { return r.Word + " " + r.Detail }

// Plan is what it takes.
type Plan struct {
	// Ops are to be done in this order.
	Ops []Op
	// Reload has the reasons that operations cannot meet; empty if there is no need.
	Reload []Reason
	// Leaving are servers that run, are not wanted, and after Ops are drained: to be
	// cut after a grace with [Running.Cut]. Those that left before are among them as
	// long as they are not in maintenance and their backend changes.
	Leaving []Ref
	// Refused is what could not be encoded; the rest of the plan does without.
	Refused []error

	marks  []mark
	routes []routing.Route
	ports  []routing.Port
	// unsettled: some rows wait for a reload.
	unsettled bool
}

// mark says what a backend equals after the plan.
type mark struct {
	id     string
	source *routing.Backend
}

// Empty is true if there is nothing to do.
func (p Plan) Empty() bool { return len(p.Ops) == 0 && len(p.Reload) == 0 && len(p.Refused) == 0 }

// Urgent is true if a reload must be soon.
func (p Plan) Urgent() bool {
	return slices.ContainsFunc(p.Reload, func(r Reason) bool { return !r.Deferred })
}

// After is the model when all operations of the plan, which was made for it, have
// succeeded. If some did not, use [Running.Apply] with those that did: the next plan
// then takes care of the others.
func (r *Running) After(p Plan) *Running {
	e := newEdit(r)
	for _, op := range p.Ops {
		op.apply(e)
	}
	for _, m := range p.marks {
		if b := e.backend(m.id); b != nil {
			b.source, b.gone = m.source, m.source == nil
		}
	}
	after := e.done()
	if !p.unsettled {
		after.routes, after.portRows, after.unsettled = p.routes, p.ports, nil
	}
	return after
}

// Diff is what it takes to make HAProxy run the table.
func Diff(running *Running, wanted *routing.Table, caps runtime.Capabilities) Plan {
	d := &differ{
		running: running, wanted: wanted, caps: caps, claimed: map[string]string{}, taken: map[string]bool{},
		plan: Plan{routes: wanted.Routes, ports: wanted.Ports},
	}
	d.backends(wanted.Backends)
	d.ports(wanted.Ports)
	d.rows(wanted)
	d.plan.Ops = slices.Concat(d.enter, d.lead, d.forget, d.leave)
	return d.plan
}

// differ collects a plan. Its operations are in the order they must be done.
type differ struct {
	running *Running
	wanted  *routing.Table
	caps    runtime.Capabilities
	plan    Plan
	// enter: servers come and change; lead: rows lead to backends; forget: rows go;
	// leave: servers get no new traffic.
	enter, lead, forget, leave []Op
	// claimed are spares that this plan uses, by id; taken are their names.
	claimed map[string]string
	taken   map[string]bool
	// spares are all that there are, with those that this plan adds; nil until asked for.
	spares []Spare
}

func (d *differ) reload(word, detail string) {
	d.plan.Reload = append(d.plan.Reload, Reason{Word: word, Detail: detail, Deferred: word == PortClosed})
}

// backends walks the two lists, both sorted by id.
func (d *differ) backends(wanted []*routing.Backend) {
	have := d.running.backends
	for len(have) > 0 || len(wanted) > 0 {
		switch {
		case len(have) > 0 && len(wanted) > 0 && have[0].source == wanted[0]:
			have, wanted = have[1:], wanted[1:] // the very same
		case len(wanted) == 0 || (len(have) > 0 && have[0].ID < wanted[0].ID):
			d.left(have[0])
			have = have[1:]
		case len(have) == 0 || wanted[0].ID < have[0].ID:
			d.newBackend(wanted[0])
			wanted = wanted[1:]
		default:
			d.backend(have[0], wanted[0])
			have, wanted = have[1:], wanted[1:]
		}
	}
}

// left is a backend that is not wanted: its section stays until a reload.
func (d *differ) left(b *Backend) {
	if b.gone {
		return
	}
	for _, s := range b.Servers {
		d.leaves(b, s)
	}
	d.plan.marks = append(d.plan.marks, mark{id: b.ID})
}

func (d *differ) leaves(b *Backend, s Server) {
	ref := Ref{b.ID, b.Name, s.Name}
	if s.State == routing.Ready {
		d.leave = append(d.leave, SetServerState{ref, routing.Drain})
	}
	if s.State != routing.Maint {
		d.plan.Leaving = append(d.plan.Leaving, ref)
	}
}

func (d *differ) newBackend(b *routing.Backend) {
	spare, servers, found := d.spare(b)
	if !found {
		d.reload(NewBackend, b.ID)
		return
	}
	d.claimed[b.ID], d.taken[spare.Name] = spare.Name, true
	d.enter = append(d.enter, ClaimSpare{ID: b.ID, Backend: spare.Name, From: spare.ID, shape: spare.Shape, options: b})
	d.backend(&Backend{ID: b.ID, Name: spare.Name, options: b, Servers: servers, spare: spare.Shape}, b)
}

// claim sees to the rows that make a spare what it has become.
func (d *differ) claim(have *Backend, want *routing.Backend) bool {
	rows, err := d.running.encoding.claim(have.Name, want)
	if err != nil {
		d.refuse(fmt.Errorf("backend %q of service %q: %w", want.ID, want.Service, err))
		return false
	}
	for _, row := range rows {
		switch value, has := d.running.rows.get(rowKey{row.Map, row.Key}); {
		case !has:
			d.enter = append(d.enter, AddMap(row))
		case value != row.Value:
			d.enter = append(d.enter, SetMap(row))
		}
	}
	return true
}

// spare is one that can become the backend: one that is free, else one whose backend
// nobody wants any more and no traffic reaches, which has servers in maintenance, else
// one that HAProxy makes.
func (d *differ) spare(b *routing.Backend) (spare Spare, servers []Server, found bool) {
	shape := d.running.encoding.shape(b)
	if shape == "" || !d.caps.AddServer {
		return Spare{}, nil, false
	}
	for _, s := range d.running.spares {
		if s.Shape == shape && !d.taken[s.Name] {
			return s, nil, true
		}
	}
	for _, was := range d.running.backends {
		if was.spare != shape || d.taken[was.Name] || backendOf(d.wanted, was.ID) != nil {
			continue
		}
		if !slices.ContainsFunc(was.Servers, func(s Server) bool { return s.State != routing.Maint }) {
			return Spare{Name: was.Name, Shape: shape, ID: was.ID}, was.Servers, true
		}
	}
	return d.grow(shape)
}

// grow has HAProxy make a spare, from the defaults that those have which it has read.
func (d *differ) grow(shape string) (spare Spare, servers []Server, found bool) {
	if !d.caps.AddBackend {
		return Spare{}, nil, false
	}
	if d.spares == nil {
		d.spares = d.running.Spares()
	}
	if !slices.ContainsFunc(d.spares, func(s Spare) bool { return s.Shape == shape }) {
		return Spare{}, nil, false
	}
	name, from := d.running.encoding.grow(shape, len(d.spares))
	if name == "" {
		return Spare{}, nil, false
	}
	spare = Spare{Name: name, Shape: shape}
	d.spares = append(d.spares, spare)
	d.enter = append(d.enter, AddSpare{Name: name, From: from, Shape: shape})
	return spare, nil, true
}

func (d *differ) backend(have *Backend, want *routing.Backend) {
	settled := true
	reload := func(word string) { settled = false; d.reload(word, want.ID) }
	if !sameOptions(have.options, want) {
		reload(BackendChanged)
	} else if have.spare != "" && !d.claim(have, want) {
		settled = false
	}
	var added []routing.Server
	kept := make(map[string]bool, len(want.Servers))
	static := d.running.encoding.static(have.options)
	fixed := false
	for _, s := range want.Servers {
		w := modelled(s)
		kept[w.Name] = true
		h, found := have.Server(w.Name)
		if !found {
			added = append(added, s)
			continue
		}
		if static && h.Weight != w.Weight {
			// What gets no new traffic needs no weight either.
			fixed = fixed || w.State == routing.Ready
			w.Weight = h.Weight
		}
		d.server(Ref{have.ID, have.Name, w.Name}, h, w)
	}
	if fixed || len(added) > 0 && (!d.caps.AddServer || static) {
		reload(ServersStatic)
	} else if len(added) > 0 && !d.add(have, want, added) {
		settled = false
	}
	for _, s := range have.Servers {
		if !kept[s.Name] {
			d.leaves(have, s)
		}
	}
	if settled {
		d.plan.marks = append(d.plan.marks, mark{want.ID, want})
	}
}

func (d *differ) add(have *Backend, want *routing.Backend, servers []routing.Server) bool {
	args, err := d.running.encoding.args(want, servers)
	if err != nil {
		d.plan.Refused = append(d.plan.Refused, fmt.Errorf("add servers to backend %q of service %q: %w", want.ID, want.Service, err))
		return false
	}
	for i, s := range servers {
		d.enter = append(d.enter, AddServer{
			Ref: Ref{have.ID, have.Name, serverName(s)}, Server: s, Args: args[i],
			DynamicCookie: have.options.Sticky && have.options.Protocol == routing.HTTP,
		})
	}
	return true
}

// server makes one that runs equal to the one wanted.
func (d *differ) server(ref Ref, have, want Server) {
	// One that gets no more new traffic does so before anything else about it changes,
	// one that gets it again after.
	if have.State != want.State && want.State != routing.Ready {
		d.leave = append(d.leave, SetServerState{ref, want.State})
	}
	ops := &d.enter
	if want.State != routing.Ready {
		ops = &d.leave
	}
	if have.Address != want.Address {
		*ops = append(*ops, SetServerAddress{ref, want.Address})
	}
	if have.Weight != want.Weight {
		*ops = append(*ops, SetServerWeight{ref, want.Weight})
	}
	if have.MaxConn != want.MaxConn {
		*ops = append(*ops, SetServerMaxConn{ref, want.MaxConn})
	}
	if have.State != want.State && want.State == routing.Ready {
		d.enter = append(d.enter, SetServerState{ref, routing.Ready})
	}
}
