package routing

import (
	"slices"
	"strings"

	"github.com/mi-lb/mi-lb/watch"
)

// compileUnits compiles the units that were touched.
func (x *index) compileUnits() {
	exists := func(name string) bool { return x.names[name] != nil }
	for name := range x.touched.units {
		known := x.units[name]
		if len(known.ports) == 0 && len(known.names) == 0 {
			x.replaceUnit(name, &known.compiled, compiled{})
			delete(x.units, name)
			continue
		}
		u := &unit{name: name}
		for _, port := range known.ports {
			u.addApp(*port)
		}
		for _, n := range known.names {
			u.register(n, x.registrations(n, x.names[n]), exists)
		}
		u.finish()
		x.replaceUnit(name, &known.compiled, compileUnit(u, &x.policy, x.local, x.distances))
	}
}

// replaceUnit puts what came of a unit in the place of what came of it before. What of
// it is the same stays the very same.
func (x *index) replaceUnit(name string, was *compiled, is compiled) {
	switch {
	case is.row == nil && was.row != nil:
		x.touched.services = append(x.touched.services, change[*Service]{was.row, true})
	case was.row != nil && was.row.Equal(is.row):
		is.row = was.row
	case is.row != nil:
		x.touched.services = append(x.touched.services, change[*Service]{is.row, false})
	}
	app := func(row *Service) string {
		if row == nil {
			return ""
		}
		return row.App
	}
	if app(was.row) != app(is.row) && len(x.alike[name]) > 1 {
		x.unsettled[name] = true
	}
	x.replaceBackends(was.backends, is.backends)
	if !slices.Equal(was.findings, is.findings) {
		x.find(was.findings, -1)
		x.find(is.findings, 1)
	}
	if slices.Equal(was.routes, is.routes) {
		is.routes = was.routes
	} else {
		x.replaceRoutes(name, was.routes, is.routes)
	}
	if slices.Equal(was.ports, is.ports) {
		is.ports = was.ports
	} else {
		x.replacePorts(name, was.ports, is.ports)
	}
	*was = is
}

func (x *index) replaceBackends(was, is []*Backend) {
	for i, b := range is {
		known := x.backends[b.ID]
		if known == nil {
			known = x.former[b.ID]
		}
		if known != nil && known.Equal(b) {
			is[i] = known
		}
		if is[i] != x.backends[b.ID] {
			x.backends[b.ID] = is[i]
			x.touched.backends[b.ID] = true
		}
	}
	for _, b := range was {
		if !slices.ContainsFunc(is, func(other *Backend) bool { return other.ID == b.ID }) {
			delete(x.backends, b.ID)
			x.touched.backends[b.ID] = true
		}
	}
}

func (x *index) replaceRoutes(unit string, was, is []routeClaim) {
	for i := range was {
		key := was[i].route.key()
		x.touchRoute(key)
		x.routes[key] = slices.DeleteFunc(x.routes[key], func(c *routeClaim) bool { return c.route.Service == unit })
	}
	for i := range is {
		key := is[i].route.key()
		x.touchRoute(key)
		x.routes[key] = append(x.routes[key], &is[i])
	}
}

// touchRoute notes how a route was, before the first change to it.
func (x *index) touchRoute(key routeKey) {
	if _, done := x.touched.routes[key]; done {
		return
	}
	rivals := x.routes[key]
	former := settling[*routeClaim]{holder: x.held.route(key)}
	if len(rivals) > 0 {
		former.winner = rivals[0]
	}
	x.find(lostRoute(rivals), -1)
	x.touched.routes[key] = former
}

func (x *index) replacePorts(unit string, was, is []portClaim) {
	for i := range was {
		number := was[i].port.Number
		x.touchPort(number)
		x.ports[number] = slices.DeleteFunc(x.ports[number], func(c *portClaim) bool { return c.port.Service == unit })
	}
	for i := range is {
		number := is[i].port.Number
		x.touchPort(number)
		x.ports[number] = append(x.ports[number], &is[i])
	}
}

func (x *index) touchPort(number int) {
	if _, done := x.touched.ports[number]; done {
		return
	}
	rivals := x.ports[number]
	former := settling[*portClaim]{holder: x.held.port(number)}
	if len(rivals) > 0 {
		former.winner = rivals[0]
	}
	x.find(lostPort(rivals, &x.policy), -1)
	x.touched.ports[number] = former
}

// settle decides about the routes and ports that were touched.
func (x *index) settle() {
	for key, former := range x.touched.routes {
		rivals := x.routes[key]
		if len(rivals) > 1 {
			settleRoute(rivals, former.holder)
			x.find(lostRoute(rivals), 1)
		}
		if former.winner != nil {
			x.lead(former.winner.route.Backend, -1)
		}
		if len(rivals) > 0 {
			x.lead(rivals[0].route.Backend, 1)
		} else {
			delete(x.routes, key)
		}
	}
	for number, former := range x.touched.ports {
		rivals := x.ports[number]
		settlePort(rivals, former.holder)
		x.find(lostPort(rivals, &x.policy), 1)
		if len(rivals) == 0 {
			delete(x.ports, number)
		}
		if x.reserved(number) {
			continue
		}
		if former.winner != nil {
			x.lead(former.winner.port.Backend, -1)
		}
		if len(rivals) > 0 {
			x.lead(rivals[0].port.Backend, 1)
		}
	}
}

func (x *index) reserved(number int) bool {
	_, reserved := x.policy.Reserved[number]
	return reserved
}

// lead notes that more routes or ports, or fewer, lead to a backend.
func (x *index) lead(backend string, more int) {
	was := x.leads[backend]
	x.leads[backend] = was + more
	if was+more == 0 {
		delete(x.leads, backend)
	}
	x.touched.backends[backend] = true
}

// name, route and port are who has them in the table: the index holds them for the next.

func (x *index) name(name string) string {
	if u := x.units[name]; u != nil && u.row != nil {
		return u.row.App
	}
	return ""
}

func (x *index) route(key routeKey) string {
	if rivals := x.routes[key]; len(rivals) > 0 {
		return rivals[0].route.Service
	}
	return ""
}

func (x *index) port(number int) string {
	if rivals := x.ports[number]; len(rivals) > 0 && !x.reserved(number) {
		return rivals[0].port.Service
	}
	return ""
}

// change is the table with what the update touched.
func (x *index) change(t *Table) *Table {
	var routes []change[Route]
	for key, former := range x.touched.routes {
		rivals := x.routes[key]
		switch {
		case len(rivals) > 0 && (former.winner == nil || former.winner.route != rivals[0].route):
			routes = append(routes, change[Route]{rivals[0].route, false})
		case len(rivals) == 0 && former.winner != nil:
			routes = append(routes, change[Route]{former.winner.route, true})
		}
	}
	var ports []change[Port]
	for number, former := range x.touched.ports {
		rivals := x.ports[number]
		switch {
		case x.reserved(number):
		case len(rivals) > 0 && (former.winner == nil || former.winner.port != rivals[0].port):
			ports = append(ports, change[Port]{rivals[0].port, false})
		case len(rivals) == 0 && former.winner != nil:
			ports = append(ports, change[Port]{former.winner.port, true})
		}
	}
	next := &Table{
		Ports:    orNil(splice(t.Ports, ports, comparePorts)),
		Routes:   splice(t.Routes, routes, compareRoutes),
		Backends: orNil(splice(t.Backends, x.changedBackends(t), compareBackends)),
		Services: orNil(splice(t.Services, x.touched.services, func(a, b *Service) int { return strings.Compare(a.Name, b.Name) })),
		Findings: orNil(splice(t.Findings, x.changedFindings(), watch.Finding.Compare)),
	}
	x.touched = touched{}
	return next
}

// changedBackends are those that are others than in the table, or lead to other ones.
func (x *index) changedBackends(t *Table) []change[*Backend] {
	var changes []change[*Backend]
	for id := range x.touched.backends {
		is := x.backends[id]
		if x.leads[id] == 0 {
			is = nil
		}
		at, had := slices.BinarySearchFunc(t.Backends, id, func(b *Backend, id string) int { return strings.Compare(b.ID, id) })
		switch {
		case is == nil && had:
			changes = append(changes, change[*Backend]{t.Backends[at], true})
		case is != nil && (!had || t.Backends[at] != is):
			changes = append(changes, change[*Backend]{is, false})
		}
	}
	return changes
}

func (x *index) changedFindings() []change[watch.Finding] {
	var changes []change[watch.Finding]
	for f, more := range x.touched.findings {
		was := x.findings[f]
		is := was + more
		if is == 0 {
			delete(x.findings, f)
		} else {
			x.findings[f] = is
		}
		if (was > 0) != (is > 0) {
			changes = append(changes, change[watch.Finding]{f, is == 0})
		}
	}
	return changes
}
