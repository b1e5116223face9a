package routing

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/mi-lb/mi-lb/watch"
)

// A unit is what one name stands for: a service of Consul, a port of a Marathon
// app, or both where they are the same.
type unit struct {
	// name is in lower case, as Consul and DNS compare names.
	name    string
	aliases []string
	// apps that have this name for one of their ports.
	apps []appPort
	// profiles of what its instances and apps ask for, most important first.
	profiles []profile
	members  []member
	// at is where the member of an address is.
	at       map[netip.AddrPort]int
	sources  []string
	findings []watch.Finding
}

// origin is the part that something comes from.
type origin struct {
	source watch.Source
	// name is the source as it is written.
	name       string
	datacenter string
}

func originOf(part *watch.Part) *origin {
	return &origin{source: part.Source, name: part.Source.String(), datacenter: part.Datacenter}
}

// appPort is one port of an app of one cluster.
type appPort struct {
	*origin
	app *watch.App
	// index of the port; 0 also for an app without ports.
	index  int
	wishes []wish
	// withheld says why the owner or the operator does not want it published
	// here; its instances are then not reachable under any other name either.
	withheld string
}

func (a appPort) port() watch.AppPort {
	if a.index < len(a.app.Ports) {
		return a.app.Ports[a.index]
	}
	return watch.AppPort{}
}

// tcp says whether the port can be published at all; an app without ports can.
func (a appPort) tcp() bool { return len(a.app.Ports) == 0 || a.app.Ports[a.index].TCP() }

// namedPort is a port of an app and the name that it has.
type namedPort struct {
	appPort
	unit    string
	aliases []string
	// finding about the name of the app; empty for none.
	finding watch.Finding
}

// namePorts gives every port of an app its name.
func namePorts(from *origin, app *watch.App, named appName, policy *Policy) []namedPort {
	ports := make([]namedPort, max(1, len(app.Ports)))
	for i := range ports {
		p := appPort{origin: from, app: app, index: i, wishes: appWishes(from.name, app, i)}
		ports[i].unit, ports[i].aliases = portNames(named.name, app, i, p.wishes)
		if p.tcp() {
			p.withheld = withheld(p, policy)
		}
		if i == 0 {
			ports[i].finding = named.finding
		}
		ports[i].appPort = p
	}
	return ports
}

// withheld says why the app's port must not be published here, "" if it may.
func withheld(port appPort, policy *Policy) string {
	s, _ := readSettings("", []profile{{wishes: port.wishes, count: 1, app: true}})
	switch {
	case s.enable != nil && !*s.enable:
		return "mi-lb.enable is false"
	case s.restricted != "":
		return s.restricted + " is not supported yet"
	case !policy.serves(port.source, s.groups):
		return fmt.Sprintf("this edge serves the groups %s", strings.Join(policy.groups(port.source), ", "))
	}
	return ""
}

// addApp takes in a port of an app, with its tasks.
func (u *unit) addApp(port namedPort) {
	if !port.tcp() {
		u.findings = append(u.findings, watch.Finding{
			Code: "udp-port", Source: port.origin.name, Service: u.name, Key: fmt.Sprintf("port %d of %s", port.index, port.app.ID),
			Message: "speaks UDP only, which HAProxy cannot balance", Instead: "the port is not published",
		})
		return
	}
	u.apps = append(u.apps, port.appPort)
	u.aliases = append(u.aliases, port.aliases...)
	u.sources = append(u.sources, port.origin.name)
	if port.finding != (watch.Finding{}) {
		u.findings = append(u.findings, port.finding)
	}
	if port.withheld != "" {
		return
	}
	for address, task := range port.tasks {
		if !ended(task.State) {
			u.add(taskMember(port.appPort, *task, address))
		}
	}
}

// tasks of the port whose address is known, and the address.
func (a appPort) tasks(yield func(netip.AddrPort, *watch.Task) bool) {
	for i := range a.app.Tasks {
		task := &a.app.Tasks[i]
		if a.index < len(task.Addresses) && task.Addresses[a.index].IsValid() && !yield(task.Addresses[a.index], task) {
			return
		}
	}
}

// A member is an instance of a unit, merged from every source that knows it.
type member struct {
	// name identifies it: datacenter, node, id.
	name       string
	datacenter string
	node       string
	address    netip.AddrPort
	health     watch.Health
	reason     string
	weights    watch.Weights
	tags       []string
	wishes     []wish
	sources    []string
}

func taskMember(port appPort, task watch.Task, address netip.AddrPort) member {
	m := member{
		name:       port.datacenter + "/" + task.Node + "/" + task.ID,
		datacenter: port.datacenter,
		node:       task.Node,
		address:    address,
		health:     task.Health,
		reason:     task.Reason,
		weights:    watch.Weights{Passing: 1, Warning: 1},
		wishes:     ofKey(port.wishes, "weight"),
		sources:    []string{port.origin.name},
	}
	if !started(task.State) {
		m.health, m.reason = watch.HealthCritical, task.State
	}
	return m
}

// ofKey are the wishes of one key: of what an app asks for, the weight is the only
// thing that is not for the whole service, since two apps may share one.
func ofKey(wishes []wish, key string) []wish {
	var of []wish
	for _, w := range wishes {
		if w.key == key {
			of = append(of, w)
		}
	}
	return of
}

// ended says whether the task's process is gone. Such a task is known for a while
// only so that a registration that outlives it is recognised.
func ended(state string) bool {
	switch state {
	case "TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_GONE", "TASK_GONE_BY_OPERATOR", "TASK_DROPPED":
		return true
	}
	return false
}

func started(state string) bool {
	return state != "TASK_STAGING" && state != "TASK_STARTING" && state != "TASK_CREATED"
}

// add merges a member into the unit: what has the same address is the same instance.
func (u *unit) add(m member) {
	if i, ok := u.at[m.address]; ok {
		known := &u.members[i]
		if worse := known.health.Worse(m.health); worse != known.health {
			known.health, known.reason = worse, m.reason
		}
		known.sources = append(known.sources, m.sources...)
		known.tags = append(slices.Clip(known.tags), m.tags...)
		known.wishes = append(slices.Clip(known.wishes), m.wishes...)
		if m.weights != (watch.Weights{Passing: 1, Warning: 1}) {
			known.weights = m.weights
		}
		return
	}
	if u.at == nil {
		u.at = map[netip.AddrPort]int{}
	}
	u.at[m.address] = len(u.members)
	u.members = append(u.members, m)
}

// registration is one instance under one name of Consul or of a file.
type registration struct {
	*origin
	// name is that of the service, in lower case, and as the one that it asks to be
	// known under, mostly the same.
	name, as string
	// key of the service in its part.
	key string
	// instance is nil for a service that has none.
	instance *watch.Instance
	wishes   []wish
	// tasks at the same address.
	tasks []taskAt
}

// registrations are those that a service stands for.
func registrations(from *origin, key string, service *watch.Service) []registration {
	name := strings.ToLower(service.Name)
	if len(service.Instances) == 0 {
		return []registration{{origin: from, name: name, as: name, key: key}}
	}
	all := make([]registration, len(service.Instances))
	for i := range service.Instances {
		r := registration{origin: from, name: name, as: name, key: key, instance: &service.Instances[i]}
		r.wishes = instanceWishes(from.name, r.instance)
		for _, wish := range r.wishes {
			if wish.key == "service" {
				if other, err := parseServiceName(wish.value); err == nil {
					r.as = other
				}
			}
		}
		all[i] = r
	}
	return all
}

// address of the registration; invalid for one without.
func (r *registration) address() netip.AddrPort {
	if r.instance == nil {
		return netip.AddrPort{}
	}
	return r.instance.Address
}

// compare orders registrations in a way that does not depend on that of the maps they
// came from.
func (r registration) compare(o registration) int {
	c := cmp.Or(r.source.Compare(o.source), boolCompare(r.instance != nil, o.instance != nil))
	if c != 0 || r.instance == nil {
		return cmp.Or(c, strings.Compare(r.key, o.key))
	}
	a, b := r.instance, o.instance
	return cmp.Or(strings.Compare(a.Node, b.Node), strings.Compare(a.ID, b.ID), strings.Compare(r.key, o.key), a.Address.Compare(b.Address))
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// register takes in what one name has: those of the unit itself, and those of others
// that turned out to be the same.
func (u *unit) register(name string, all []registration, exists func(name string) bool) {
	if name != u.name {
		u.aliases = append(u.aliases, name)
	}
	slices.SortStableFunc(all, registration.compare)
	for _, r := range all {
		if r.name != name && !exists(r.name) {
			u.aliases = append(u.aliases, r.name)
		}
		u.addRegistration(r)
	}
}

func (u *unit) addRegistration(r registration) {
	u.sources = append(u.sources, r.origin.name)
	if !r.address().IsValid() {
		return
	}
	m := member{
		name:       r.datacenter + "/" + r.instance.Node + "/" + r.instance.ID,
		datacenter: r.datacenter,
		node:       r.instance.Node,
		address:    r.instance.Address,
		health:     r.instance.Health,
		reason:     r.instance.Reason,
		weights:    r.instance.Weights,
		tags:       r.instance.Tags,
		wishes:     r.wishes,
		sources:    []string{r.origin.name},
	}
	for _, at := range r.tasks {
		if at.port.withheld != "" {
			return
		}
		// An address that two tasks claim says nothing about either.
		if len(r.tasks) > 1 {
			break
		}
		t := taskMember(at.port.appPort, *at.task, m.address)
		m.wishes = append(t.wishes, m.wishes...)
		if ended(at.task.State) {
			t.health, t.reason = watch.HealthCritical, at.task.State
		}
		m.name, m.node = t.name, t.node
		if worse := m.health.Worse(t.health); worse != m.health {
			m.health, m.reason = worse, t.reason
		}
		if !slices.Contains(m.sources, t.sources[0]) {
			m.sources = append(m.sources, t.sources[0])
		}
	}
	u.add(m)
}

// taskAt is a task that has an address.
type taskAt struct {
	port *namedPort
	task *watch.Task
}

// living are the tasks of one address that count: one whose process is gone does only
// if no other has the address by now.
func living(all []taskAt) []taskAt {
	if len(all) < 2 {
		return all
	}
	var live []taskAt
	for _, at := range all {
		if !ended(at.task.State) {
			live = append(live, at)
		}
	}
	if len(live) == 0 {
		return all[:1]
	}
	return live
}

// finish puts what was gathered in order.
func (u *unit) finish() {
	slices.Sort(u.sources)
	u.sources = slices.Compact(u.sources)
	slices.Sort(u.aliases)
	u.aliases = slices.DeleteFunc(slices.Compact(u.aliases), func(a string) bool { return a == u.name })
	names := map[string]int{}
	for _, m := range u.members {
		names[m.name]++
	}
	for i := range u.members {
		m := &u.members[i]
		if names[m.name] > 1 {
			// Two registries that use one id for different instances.
			m.name += "/" + m.address.String()
		}
		slices.Sort(m.sources)
		m.sources = slices.Compact(m.sources)
	}
	slices.SortFunc(u.members, func(a, b member) int { return strings.Compare(a.name, b.name) })
	for _, a := range u.apps {
		if len(a.wishes) > 0 {
			u.profiles = append(u.profiles, profile{wishes: a.wishes, count: len(a.app.Tasks), app: true})
		}
	}
	own := make([][]wish, 0, len(u.members))
	for _, m := range u.members {
		own = append(own, m.wishes)
	}
	u.profiles = append(u.profiles, profiles(own)...)
}
