package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/mi-lb/mi-lb/lb/routing"
)

// ports compares the ports that have frontends of their own.
func (d *differ) ports(wanted []routing.Port) {
	own := map[int]routing.Port{}
	for _, p := range wanted {
		row, err := d.running.encoding.Port(p)
		if err != nil {
			d.refuse(fmt.Errorf("port %d of service %q: %w", p.Number, p.Service, err))
		} else if row.Map == "" {
			own[p.Number] = p
		}
	}
	for _, p := range d.running.ports {
		w, ok := own[p.Number]
		delete(own, p.Number)
		switch number := strconv.Itoa(p.Number); {
		case !ok:
			d.reload(PortClosed, number)
		case w.Protocol != p.Protocol || w.Backend != p.Backend:
			d.reload(PortChanged, number)
		}
	}
	for _, p := range wanted {
		if _, opened := own[p.Number]; opened {
			d.reload(PortOpened, strconv.Itoa(p.Number))
		}
	}
}

func (d *differ) refuse(err error) {
	d.plan.Refused = append(d.plan.Refused, err)
	d.plan.unsettled = true
}

// rows compares the rows that changed routes and ports have had and should have, and
// those that a plan has changed that was not done as a whole.
func (d *differ) rows(wanted *routing.Table) {
	e := d.running.encoding
	want := map[rowKey]string{}
	gone := map[rowKey]bool{}
	var keys []rowKey
	take := func(row Row, backend string, add bool) {
		k := rowKey{row.Map, row.Key}
		if _, known := want[k]; !known && !gone[k] {
			keys = append(keys, k)
		}
		if add {
			want[k] = backend
		} else {
			gone[k] = true
		}
	}
	lost, found := changes(d.running.routes, wanted.Routes, func(a, b routing.Route) bool {
		return a.Backend == b.Backend && a.Path == b.Path && a.Host == b.Host && a.Kind == b.Kind && a.PathPrefix == b.PathPrefix
	})
	if len(d.running.unsettled) > 0 {
		found = wanted.Routes
		spares := d.spareRows()
		for k := range d.running.unsettled {
			if !spares[k] {
				take(Row{Map: k.Map, Key: k.Key}, "", false)
			}
		}
	}
	for add, routes := range map[bool][]routing.Route{false: lost, true: found} {
		for _, r := range routes {
			row, err := e.Route(r)
			if err != nil {
				d.refuse(fmt.Errorf("route %s%s of service %q: %w", r.Host, r.Path, r.Service, err))
				continue
			}
			if row.Map != "" {
				take(row, r.Backend, add)
			}
		}
	}
	lostPorts, foundPorts := changes(d.running.portRows, wanted.Ports, func(a, b routing.Port) bool {
		return a.Number == b.Number && a.Backend == b.Backend && a.Protocol == b.Protocol
	})
	if len(d.running.unsettled) > 0 {
		foundPorts = wanted.Ports
	}
	for add, ports := range map[bool][]routing.Port{false: lostPorts, true: foundPorts} {
		for _, p := range ports {
			if row, err := e.Port(p); err == nil && row.Map != "" {
				take(row, p.Backend, add)
			}
		}
	}
	slices.SortFunc(keys, func(a, b rowKey) int { return cmp.Or(cmp.Compare(a.Map, b.Map), cmp.Compare(a.Key, b.Key)) })
	for _, k := range keys {
		d.row(k, want)
	}
}

// spareRows are those that spares need to be what they have become.
func (d *differ) spareRows() map[rowKey]bool {
	keys := map[rowKey]bool{}
	for _, b := range d.running.backends {
		if b.spare == "" {
			continue
		}
		if rows, err := d.running.encoding.claim(b.Name, b.options); err == nil {
			for _, row := range rows {
				keys[rowKey{row.Map, row.Key}] = true
			}
		}
	}
	return keys
}

func (d *differ) row(k rowKey, want map[rowKey]string) {
	value, have := d.running.rows.get(k)
	backend, wanted := want[k]
	if !wanted {
		if have {
			d.forget = append(d.forget, DelMap(k))
		}
		return
	}
	name, runs := d.name(backend)
	switch {
	case !runs:
		// A row that leads nowhere is worse than the one before, or none: the reload
		// that brings the backend brings it too.
		d.plan.unsettled = true
	case !have:
		d.lead = append(d.lead, AddMap{k.Map, k.Key, name})
	case value != name:
		d.lead = append(d.lead, SetMap{k.Map, k.Key, name})
	}
}

// name is HAProxy's for a backend that runs.
func (d *differ) name(id string) (string, bool) {
	if name, ok := d.claimed[id]; ok {
		return name, true
	}
	if b := d.running.Backend(id); b != nil {
		return b.Name, true
	}
	return "", false
}

// nearby is how far a change in a list is looked past.
const nearby = 64

// changes are what two lists do not have in common, found in one walk: both are in
// the same order, mostly. What only moved may be in both results.
func changes[T any](old, new []T, same func(a, b T) bool) (lost, found []T) {
	if len(old) == len(new) && (len(old) == 0 || &old[0] == &new[0]) {
		return nil, nil
	}
	for len(old) > 0 && len(new) > 0 {
		if same(old[0], new[0]) {
			old, new = old[1:], new[1:]
			continue
		}
		i, j := resync(old, new, same)
		lost, found = append(lost, old[:i]...), append(found, new[:j]...)
		old, new = old[i:], new[j:]
	}
	return append(lost, old...), append(found, new...)
}

// resync is how many to leave out of each list for the next to be the same: the
// fewest, or one of each.
func resync[T any](old, new []T, same func(a, b T) bool) (int, int) {
	for sum := 1; sum <= nearby; sum++ {
		for i := 0; i <= sum; i++ {
			if j := sum - i; i < len(old) && j < len(new) && same(old[i], new[j]) {
				return i, j
			}
		}
	}
	return min(1, len(old)), min(1, len(new))
}
