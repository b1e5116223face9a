package routing

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/mi-lb/mi-lb/watch"
)

// index is what a compiler knows about the last snapshot: what each unit was made of
// and what it has claimed, and which names, addresses and units depend on each other.
//
// It is brought from one snapshot to the next in steps: services and apps that changed
// are replaced; apps that would have the same name are settled; names find the units
// that they belong to; units that any of this touched are compiled; what they claim, or
// claimed, is settled. Each step touches what the next one has to look at.
type index struct {
	policy    Policy
	local     string
	distances map[string]int
	// held is who has what in the table before: the index itself, but for the first.
	held holders
	// former are the backends of the index before this one; nil but for the first time.
	former map[string]*Backend

	origins map[watch.Source]*origin
	apps    map[appKey]*knownApp
	// alike are the apps that would have a name because of their ids.
	alike map[string][]namesake
	// tasks by address, in the order of source, app and port.
	tasks map[netip.AddrPort][]taskAt
	names map[string]*knownName
	// at are the names that addresses are registered under, once for each registration.
	at map[netip.AddrPort][]string
	// askers are the names under which services of a name asked to be known.
	askers map[string][]string
	units  map[string]*knownUnit

	routes   map[routeKey][]*routeClaim // the winner first
	ports    map[int][]*portClaim       // the winner first
	findings map[watch.Finding]int      // how many there are of each
	backends map[string]*Backend        // all, whether anything leads to them or not
	leads    map[string]int             // how many routes and ports lead to each backend

	// unsettled are the names of apps that are to be settled again although nothing
	// about them changed: another app has the name in the table.
	unsettled map[string]bool
	touched   touched
}

// knownApp is an app under the name it has.
type knownApp struct {
	appKey
	*origin
	app   *watch.App
	named appName
	// ports are nil until it has its name.
	ports []namedPort
}

// knownName is a name that something is registered under.
type knownName struct {
	services []knownService
	// unit that the name belongs to, if it is placed.
	unit   string
	placed bool
}

// knownService is a service some or all of whose instances are registered under a name.
type knownService struct {
	*origin
	key     string
	service *watch.Service
}

// knownUnit is what a unit is made of, and what came of it.
type knownUnit struct {
	ports []*namedPort // in the order of source, app and port
	names []string     // sorted
	compiled
}

// touched is what an update has to look at.
type touched struct {
	alike     map[string]bool
	addresses map[netip.AddrPort]bool
	names     map[string]bool
	units     map[string]bool

	routes   map[routeKey]settling[*routeClaim]
	ports    map[int]settling[*portClaim]
	findings map[watch.Finding]int // more or fewer of each
	backends map[string]bool
	services []change[*Service]
}

// settling is what a route or port was before the update: who had it, nil for nobody,
// and who is to keep it.
type settling[C any] struct {
	winner C
	holder string
}

func newTouched() touched {
	return touched{
		alike: map[string]bool{}, addresses: map[netip.AddrPort]bool{}, names: map[string]bool{}, units: map[string]bool{},
		routes: map[routeKey]settling[*routeClaim]{}, ports: map[int]settling[*portClaim]{},
		findings: map[watch.Finding]int{}, backends: map[string]bool{},
	}
}

// newIndex makes an index that is about to get so many services and apps.
func newIndex(policy Policy, local string, distances map[string]int, size int) *index {
	return &index{
		policy: policy, local: local, distances: distances,
		origins: map[watch.Source]*origin{}, apps: map[appKey]*knownApp{}, alike: map[string][]namesake{},
		tasks: map[netip.AddrPort][]taskAt{}, names: make(map[string]*knownName, size), at: make(map[netip.AddrPort][]string, 2*size),
		askers: map[string][]string{}, units: make(map[string]*knownUnit, size),
		routes: make(map[routeKey][]*routeClaim, 3*size), ports: map[int][]*portClaim{}, findings: map[watch.Finding]int{},
		backends: make(map[string]*Backend, size), leads: make(map[string]int, size), unsettled: map[string]bool{},
	}
}

// update brings the index from one snapshot to another.
func (x *index) update(before, after *watch.Snapshot) {
	x.touched = newTouched()
	for was, is := range pairs(before.Parts, after.Parts) {
		if was != is {
			x.replacePart(was, is)
		}
	}
	x.nameApps()
	x.placeNames()
	x.compileUnits()
	x.settle()
	x.held, x.former = x, nil
}

func (x *index) replacePart(was, is *watch.Part) {
	none := &watch.Part{}
	from := x.origins[cmp.Or(was, is).Source]
	switch {
	case was == nil:
		was, from = none, originOf(is)
		x.origins[is.Source] = from
	case is == nil:
		is = none
		delete(x.origins, was.Source)
	}
	if !slices.Equal(was.Findings, is.Findings) {
		x.find(was.Findings, -1)
		x.find(is.Findings, 1)
	}
	if changed, known := is.ChangedSince(was); known {
		for _, key := range changed {
			x.replaceService(from, key, was.Services[key], is.Services[key])
		}
	} else {
		differences(was.Services, is.Services, func(key string, was, is *watch.Service) { x.replaceService(from, key, was, is) })
	}
	differences(was.Apps, is.Apps, func(id string, was, is *watch.App) { x.replaceApp(from, id, is) })
}

func (x *index) find(findings []watch.Finding, more int) {
	for _, f := range findings {
		x.touched.findings[f] += more
	}
}

func (x *index) replaceService(from *origin, key string, was, is *watch.Service) {
	if was != nil {
		x.unregister(from, key, was)
	}
	if is != nil {
		x.register(from, key, is)
	}
}

func (x *index) register(from *origin, key string, service *watch.Service) {
	for r := range x.roles(from, key, service, func(address netip.AddrPort, as string) { x.at[address] = append(x.at[address], as) }) {
		n := x.names[r.as]
		if n == nil {
			n = &knownName{}
			x.names[r.as] = n
		}
		n.services = append(n.services, knownService{from, key, service})
		if r.as != r.name {
			x.askers[r.name] = append(x.askers[r.name], r.as)
		}
	}
}

func (x *index) unregister(from *origin, key string, service *watch.Service) {
	for r := range x.roles(from, key, service, func(address netip.AddrPort, as string) { takeOut(x.at, address, as) }) {
		n := x.names[r.as]
		n.services = slices.DeleteFunc(n.services, func(s knownService) bool { return s.origin == from && s.key == key })
		if r.as != r.name {
			takeOut(x.askers, r.name, r.as)
		}
	}
}

// roles are the names that a service is registered under, with one registration of
// each; and it calls for every address that it has under one of them.
func (x *index) roles(from *origin, key string, service *watch.Service, at func(netip.AddrPort, string)) func(yield func(registration) bool) {
	return func(yield func(registration) bool) {
		var seen []string
		for _, r := range registrations(from, key, service) {
			if address := r.address(); address.IsValid() {
				at(address, r.as)
			}
			if slices.Contains(seen, r.as) {
				continue
			}
			seen = append(seen, r.as)
			x.touched.names[r.as] = true
			if !yield(r) {
				return
			}
		}
	}
}

// takeOut takes one of the values out of a list, and the list away with the last.
func takeOut[K comparable, V comparable](lists map[K][]V, key K, value V) {
	list := lists[key]
	if i := slices.Index(list, value); i >= 0 {
		list = slices.Delete(list, i, i+1)
	}
	if len(list) == 0 {
		delete(lists, key)
	} else {
		lists[key] = list
	}
}

func (x *index) replaceApp(from *origin, id string, is *watch.App) {
	key := appKey{from.source, id}
	if a := x.apps[key]; a != nil {
		x.retract(a)
		delete(x.apps, key)
		if name := dashed(id); slices.ContainsFunc(x.alike[name], func(n namesake) bool { return n.appKey == key }) {
			takeOut(x.alike, name, namesake{key, from.datacenter == x.local})
			x.touched.alike[name] = true
		}
	}
	if is == nil {
		return
	}
	a := &knownApp{appKey: key, origin: from, app: is}
	x.apps[key] = a
	if name := askedName(is); name != "" {
		a.named = appName{name: name}
		x.place(a)
		return
	}
	name := dashed(id)
	x.alike[name] = append(x.alike[name], namesake{key, from.datacenter == x.local})
	x.touched.alike[name] = true
}

// nameApps settles who has the names that apps would have because of their ids.
func (x *index) nameApps() {
	for name := range x.unsettled {
		x.touched.alike[name] = true
	}
	clear(x.unsettled)
	for name := range x.touched.alike {
		apps := x.alike[name]
		if len(apps) == 0 {
			continue
		}
		for key, named := range settleNames(name, apps, x.held.name(name)) {
			a := x.apps[key]
			if a.ports != nil && a.named == named {
				continue
			}
			x.retract(a)
			a.named = named
			x.place(a)
		}
	}
}

// place gives the ports of an app to their units.
func (x *index) place(a *knownApp) {
	a.ports = namePorts(a.origin, a.app, a.named, &x.policy)
	for i := range a.ports {
		port := &a.ports[i]
		u := x.unit(port.unit)
		if len(u.ports) == 0 {
			x.touched.names[port.unit] = true // it is no free name any more
		}
		at, _ := slices.BinarySearchFunc(u.ports, port, comparePortsOfApps)
		u.ports = slices.Insert(u.ports, at, port)
		if !port.tcp() {
			continue
		}
		for address, task := range port.tasks {
			x.touched.addresses[address] = true
			list := x.tasks[address]
			at, _ := slices.BinarySearchFunc(list, port, func(t taskAt, p *namedPort) int {
				return cmp.Or(comparePortsOfApps(t.port, p), -1) // behind those of the port itself
			})
			x.tasks[address] = slices.Insert(list, at, taskAt{port, task})
		}
	}
}

// retract takes back what place gave.
func (x *index) retract(a *knownApp) {
	for i := range a.ports {
		port := &a.ports[i]
		u := x.unit(port.unit)
		u.ports = slices.DeleteFunc(u.ports, func(p *namedPort) bool { return p == port })
		if len(u.ports) == 0 {
			x.touched.names[port.unit] = true
		}
		if !port.tcp() {
			continue
		}
		for address, task := range port.tasks {
			x.touched.addresses[address] = true
			takeOut(x.tasks, address, taskAt{port, task})
		}
	}
	a.ports = nil
}

func comparePortsOfApps(a, b *namedPort) int {
	return cmp.Or(a.source.Compare(b.source), cmp.Compare(a.app.ID, b.app.ID), cmp.Compare(a.index, b.index))
}

// unit is the one of that name, and touched.
func (x *index) unit(name string) *knownUnit {
	x.touched.units[name] = true
	u := x.units[name]
	if u == nil {
		u = &knownUnit{}
		x.units[name] = u
	}
	return u
}

// placeNames finds the unit that each name belongs to of which that may have changed.
func (x *index) placeNames() {
	for address := range x.touched.addresses {
		for _, name := range x.at[address] {
			x.touched.names[name] = true
		}
	}
	var turned []string // into names that there are, or are no more
	for name := range x.touched.names {
		n := x.names[name]
		if n == nil {
			continue
		}
		was, wasPlaced := n.unit, n.placed
		n.unit, n.placed = x.unitOf(name, n), len(n.services) > 0
		if wasPlaced && (!n.placed || was != n.unit) {
			u := x.unit(was)
			u.names = slices.DeleteFunc(u.names, func(other string) bool { return other == name })
		}
		if n.placed {
			u := x.unit(n.unit)
			if at, there := slices.BinarySearch(u.names, name); !there {
				u.names = slices.Insert(u.names, at, name)
			}
		} else {
			delete(x.names, name)
		}
		if n.placed != wasPlaced {
			turned = append(turned, name)
		}
	}
	// A name is an alias of those that its services ask to be known as, unless there are
	// others that do not.
	for _, name := range turned {
		for _, as := range x.askers[name] {
			if n := x.names[as]; n != nil {
				x.unit(n.unit)
			}
		}
	}
}

// unitOf is the unit that a name belongs to: its own, or an app's where all that is
// registered under it are tasks of that.
func (x *index) unitOf(name string, n *knownName) string {
	if u := x.units[name]; (u == nil || len(u.ports) == 0) && len(x.tasks) > 0 {
		if sole := soleUnit(x.registrations(name, n)); sole != "" {
			return sole
		}
	}
	return name
}

// registrations are all of a name.
func (x *index) registrations(name string, n *knownName) []registration {
	var all []registration
	for _, s := range n.services {
		for _, r := range registrations(s.origin, s.key, s.service) {
			if r.as == name {
				r.tasks = living(x.tasks[r.address()])
				all = append(all, r)
			}
		}
	}
	return all
}
