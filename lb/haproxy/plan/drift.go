package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/mi-lb/mi-lb/lb/haproxy/encode"
	"github.com/mi-lb/mi-lb/lb/haproxy/runtime"
	"github.com/mi-lb/mi-lb/lb/routing"
)

// Kinds of drift: stable words, fit for a metric's label.
const (
	ServerMissing = "server-missing"
	ServerUnknown = "server-unknown"
	ServerAddress = "server-address"
	ServerWeight  = "server-weight"
	ServerState   = "server-state"
	RowMissing    = "row-missing"
	RowUnknown    = "row-unknown"
	RowValue      = "row-value"
	// SpareUsed: a spare has servers that nobody knows of.
	SpareUsed = "spare-used"
)

// Drifted is how what runs differs from the model of it.
type Drifted struct {
	// Ops make what runs equal to the model again, but for servers that it does not
	// know: they are drained.
	Ops []Op
	// Counts by kind.
	Counts map[string]int
	// Observed is the model corrected by what was seen. After Ops it is
	// Observed.Apply(Ops).
	Observed *Running
	// Leaving are the servers that the model does not know, as in a [Plan].
	Leaving []Ref
	// Reload is for servers that are missing and cannot be added.
	Reload  []Reason
	Refused []error
}

// Total is how many differences there are.
func (d Drifted) Total() int {
	n := 0
	for _, count := range d.Counts {
		n += count
	}
	return n
}

// Drift compares the model with the servers that run and the rows of maps. A map that
// is not among the maps given was not read, and is not compared; one that is empty
// was. Backends that are not of the model are somebody else's.
func Drift(running *Running, servers []runtime.Server, rowsOf map[string][]runtime.MapEntry, caps runtime.Capabilities) Drifted {
	d := &drift{Drifted: Drifted{Counts: map[string]int{}, Observed: running}, running: running, caps: caps, edit: newEdit(running)}
	seen := map[string][]runtime.Server{}
	for _, s := range servers {
		seen[s.Backend] = append(seen[s.Backend], s)
	}
	for _, b := range running.backends {
		d.backend(b, seen[b.Name])
	}
	free := running.spares
	for _, spare := range running.spares {
		if len(seen[spare.Name]) > 0 {
			// It belongs to whoever made it so, until HAProxy is reloaded.
			free = slices.DeleteFunc(slices.Clone(free), func(s Spare) bool { return s.Name == spare.Name })
			d.found(SpareUsed, nil)
		}
	}
	d.edit.r.spares = free
	for _, file := range slices.Sorted(maps.Keys(rowsOf)) {
		d.rows(file, rowsOf[file])
	}
	if len(d.Counts) > 0 {
		d.Observed = d.edit.done()
	}
	return d.Drifted
}

type drift struct {
	Drifted
	running *Running
	caps    runtime.Capabilities
	edit    *edit
}

func (d *drift) found(kind string, observe Op, repair ...Op) {
	d.Counts[kind]++
	if observe != nil {
		observe.apply(d.edit)
	}
	d.Ops = append(d.Ops, repair...)
}

func (d *drift) backend(b *Backend, seen []runtime.Server) {
	// Slices, since most often the two are equal and in order already.
	slices.SortFunc(seen, func(x, y runtime.Server) int { return cmp.Compare(x.Name, y.Name) })
	var missing []Server
	have := b.Servers
	for len(have) > 0 || len(seen) > 0 {
		switch {
		case len(seen) == 0 || (len(have) > 0 && have[0].Name < seen[0].Name):
			missing = append(missing, have[0])
			have = have[1:]
		case len(have) == 0 || seen[0].Name < have[0].Name:
			d.unknown(b, seen[0])
			seen = seen[1:]
		default:
			d.server(b, have[0], seen[0])
			have, seen = have[1:], seen[1:]
		}
	}
	d.missing(b, missing)
}

func (d *drift) unknown(b *Backend, s runtime.Server) {
	ref := Ref{b.ID, b.Name, s.Name}
	if copied := d.edit.backend(b.ID); copied != nil {
		i, _ := copied.find(s.Name)
		copied.Servers = slices.Insert(copied.Servers, i, Server{
			Name: s.Name, Address: s.Address, Weight: s.Weight, State: routing.ServerState(s.State), Backup: encode.IsBackup(s.Name),
		})
	}
	var repair []Op
	if s.State == runtime.Ready {
		repair = append(repair, SetServerState{ref, routing.Drain})
	}
	if s.State != runtime.Maint {
		d.Leaving = append(d.Leaving, ref)
	}
	d.found(ServerUnknown, nil, repair...)
}

func (d *drift) missing(b *Backend, servers []Server) {
	var wanted []routing.Server
	for _, s := range servers {
		d.found(ServerMissing, DelServer{Ref{b.ID, b.Name, s.Name}})
		// One in maintenance that nobody wants was deleted by somebody: good riddance.
		if w, ok := d.wanted(b, s); ok {
			wanted = append(wanted, w)
		}
	}
	if len(wanted) == 0 {
		return
	}
	if !d.caps.AddServer || d.running.encoding.static(b.options) {
		d.Reload = append(d.Reload, Reason{Word: ServersStatic, Detail: b.ID})
		return
	}
	args, err := d.running.encoding.args(b.options, wanted)
	if err != nil {
		d.Refused = append(d.Refused, fmt.Errorf("add servers to backend %q again: %w", b.ID, err))
		return
	}
	for i, s := range wanted {
		d.Ops = append(d.Ops, AddServer{
			Ref: Ref{b.ID, b.Name, serverName(s)}, Server: s, Args: args[i],
			DynamicCookie: b.options.Sticky && b.options.Protocol == routing.HTTP,
		})
	}
}

// wanted is the routing server behind one of the model, with what the model says of
// it.
func (d *drift) wanted(b *Backend, s Server) (routing.Server, bool) {
	source := b.source
	if source == nil {
		source = b.options
	}
	for _, w := range source.Servers {
		if serverName(w) == s.Name {
			w.Address, w.Weight, w.State, w.Backup, w.MaxConn = s.Address, s.Weight, s.State, s.Backup, s.MaxConn
			return w, true
		}
	}
	return routing.Server{}, false
}

func (d *drift) server(b *Backend, have Server, seen runtime.Server) {
	ref := Ref{b.ID, b.Name, have.Name}
	if seen.Address != have.Address {
		d.found(ServerAddress, SetServerAddress{ref, seen.Address}, SetServerAddress{ref, have.Address})
	}
	if seen.Weight != have.Weight {
		var repair []Op
		if !d.running.encoding.static(b.options) {
			repair = append(repair, SetServerWeight{ref, have.Weight})
		}
		d.found(ServerWeight, SetServerWeight{ref, seen.Weight}, repair...)
	}
	if state := routing.ServerState(seen.State); state != have.State {
		d.found(ServerState, SetServerState{ref, state}, SetServerState{ref, have.State})
	}
}

func (d *drift) rows(file string, entries []runtime.MapEntry) {
	seen := make(map[string]string, len(entries))
	double := map[string]bool{}
	for _, e := range entries {
		if _, twice := seen[e.Key]; twice {
			double[e.Key] = true
			continue
		}
		seen[e.Key] = e.Value
	}
	for _, row := range d.running.Rows(file) {
		value, ok := seen[row.Key]
		delete(seen, row.Key)
		switch {
		case !ok:
			d.found(RowMissing, DelMap{file, row.Key}, AddMap(row))
		case double[row.Key]:
			d.found(RowUnknown, nil, DelMap{file, row.Key}, AddMap(row))
		case value != row.Value:
			d.found(RowValue, SetMap{file, row.Key, value}, SetMap(row))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(seen)) {
		d.found(RowUnknown, AddMap{file, key, seen[key]}, DelMap{file, key})
	}
}
