package routing

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
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

// appPort is one port of an app of one cluster.
type appPort struct {
	part *watch.Part
	app  *watch.App
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

// identify decides which names there are and which instances they stand for.
func identify(snapshot *watch.Snapshot, policy Policy, held Claims) []*unit {
	w := &world{policy: policy, units: map[string]*unit{}, tasks: map[netip.AddrPort][]taskAt{}}
	w.addApps(snapshot, held)
	w.addServices(snapshot)
	units := slices.Collect(maps.Values(w.units))
	slices.SortFunc(units, func(a, b *unit) int { return strings.Compare(a.name, b.name) })
	for _, u := range units {
		u.finish()
	}
	return units
}

type world struct {
	policy Policy
	units  map[string]*unit
	// tasks by address, of all apps.
	tasks map[netip.AddrPort][]taskAt
}

type taskAt struct {
	unit *unit
	port appPort
	task watch.Task
}

// tasksAt are the tasks of an address; one whose process is gone counts only if
// no other has the address by now.
func (w *world) tasksAt(address netip.AddrPort) []taskAt {
	all := w.tasks[address]
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

func (w *world) unit(name string) *unit {
	u, ok := w.units[name]
	if !ok {
		u = &unit{name: name}
		w.units[name] = u
	}
	return u
}

// addApps makes a unit of every app's ports.
func (w *world) addApps(snapshot *watch.Snapshot, held Claims) {
	names := appNames(snapshot, held)
	for _, part := range snapshot.Parts {
		for _, id := range slices.Sorted(maps.Keys(part.Apps)) {
			app := part.Apps[id]
			for i := range max(1, len(app.Ports)) {
				w.addAppPort(part, app, i, names)
			}
		}
	}
}

func (w *world) addAppPort(part *watch.Part, app *watch.App, index int, names map[appKey]appName) {
	port := appPort{part: part, app: app, index: index, wishes: appWishes(part.Source.String(), app, index)}
	named := names[appKey{part.Source, app.ID}]
	name, aliases := portNames(named.name, app, index, port.wishes)
	if len(app.Ports) > 0 && !app.Ports[index].TCP() {
		u := w.unit(name)
		u.findings = append(u.findings, watch.Finding{
			Code: "udp-port", Source: part.Source.String(), Service: name, Key: fmt.Sprintf("port %d of %s", index, app.ID),
			Message: "speaks UDP only, which HAProxy cannot balance", Instead: "the port is not published",
		})
		return
	}
	port.withheld = w.withheld(port)
	u := w.unit(name)
	u.apps = append(u.apps, port)
	u.aliases = append(u.aliases, aliases...)
	u.sources = append(u.sources, part.Source.String())
	if named.finding != nil && index == 0 {
		u.findings = append(u.findings, *named.finding)
	}
	for _, task := range app.Tasks {
		if index >= len(task.Addresses) || !task.Addresses[index].IsValid() {
			continue
		}
		address := task.Addresses[index]
		w.tasks[address] = append(w.tasks[address], taskAt{unit: u, port: port, task: task})
		if port.withheld == "" && !ended(task.State) {
			u.add(taskMember(port, task, address))
		}
	}
}

// withheld says why the app's port must not be published here, "" if it may.
func (w *world) withheld(port appPort) string {
	s, _ := readSettings("", []profile{{wishes: port.wishes, count: 1, app: true}})
	switch {
	case s.enable != nil && !*s.enable:
		return "mi-lb.enable is false"
	case s.restricted != "":
		return s.restricted + " is not supported yet"
	case !w.policy.serves(port.part.Source, s.groups):
		return fmt.Sprintf("this edge serves the groups %s", strings.Join(w.policy.groups(port.part.Source), ", "))
	}
	return ""
}

func taskMember(port appPort, task watch.Task, address netip.AddrPort) member {
	part := port.part
	m := member{
		name:       part.Datacenter + "/" + task.Node + "/" + task.ID,
		datacenter: part.Datacenter,
		node:       task.Node,
		address:    address,
		health:     task.Health,
		reason:     task.Reason,
		weights:    watch.Weights{Passing: 1, Warning: 1},
		wishes:     ofKey(port.wishes, "weight"),
		sources:    []string{part.Source.String()},
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
	part     *watch.Part
	instance watch.Instance
	wishes   []wish
	// tasks at the same address.
	tasks []taskAt
}

// addServices merges the services of Consul and of files into the units that they
// are the same as, and makes units of the others.
func (w *world) addServices(snapshot *watch.Snapshot) {
	byName := map[string][]registration{}
	asked := map[string][]string{} // other names that services ask for
	for _, part := range snapshot.Parts {
		for _, service := range part.Services {
			name := strings.ToLower(service.Name)
			for _, instance := range service.Instances {
				r := registration{
					part: part, instance: instance,
					wishes: instanceWishes(part.Source.String(), instance),
					tasks:  w.tasksAt(instance.Address),
				}
				as := name
				for _, wish := range r.wishes {
					if wish.key == "service" {
						if other, err := parseServiceName(wish.value); err == nil {
							as = other
						}
					}
				}
				if as != name && !slices.Contains(asked[as], name) {
					asked[as] = append(asked[as], name)
				}
				byName[as] = append(byName[as], r)
			}
			if len(service.Instances) == 0 {
				byName[name] = append(byName[name], registration{part: part})
			}
		}
	}
	// Decided for all names before any is added: whether a name is free does not
	// depend on the order.
	home := map[string]*unit{}
	for name, registrations := range byName {
		if w.units[name] == nil {
			home[name] = soleApp(registrations)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		u := home[name]
		if u != nil {
			u.aliases = append(u.aliases, name)
		} else {
			u = w.unit(name)
		}
		u.aliases = append(u.aliases, slices.DeleteFunc(asked[name], func(other string) bool { return byName[other] != nil })...)
		for _, r := range registrations(byName[name]) {
			w.register(u, r)
		}
	}
}

// registrations in an order that does not depend on that of the maps they came from.
func registrations(all []registration) []registration {
	slices.SortFunc(all, func(a, b registration) int {
		if c := a.part.Source.Compare(b.part.Source); c != 0 {
			return c
		}
		if c := strings.Compare(a.instance.Node, b.instance.Node); c != 0 {
			return c
		}
		return strings.Compare(a.instance.ID, b.instance.ID)
	})
	return all
}

// soleApp is the unit whose tasks all of the registrations are, nil if there is
// none: the app `webserver` on image `python` is `python` in Consul, and as long as
// nothing else is, both names are one service.
func soleApp(all []registration) *unit {
	var sole *unit
	for _, r := range all {
		if len(r.tasks) != 1 || (sole != nil && r.tasks[0].unit != sole) {
			return nil
		}
		sole = r.tasks[0].unit
	}
	return sole
}

func (w *world) register(u *unit, r registration) {
	source := r.part.Source.String()
	u.sources = append(u.sources, source)
	if !r.instance.Address.IsValid() {
		return
	}
	m := member{
		name:       r.part.Datacenter + "/" + r.instance.Node + "/" + r.instance.ID,
		datacenter: r.part.Datacenter,
		node:       r.instance.Node,
		address:    r.instance.Address,
		health:     r.instance.Health,
		reason:     r.instance.Reason,
		weights:    r.instance.Weights,
		tags:       r.instance.Tags,
		wishes:     r.wishes,
		sources:    []string{source},
	}
	for _, at := range r.tasks {
		if at.port.withheld != "" {
			return
		}
		// An address that two tasks claim says nothing about either.
		if len(r.tasks) > 1 {
			break
		}
		t := taskMember(at.port, at.task, m.address)
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

// appName is what an app as a whole is called.
type appName struct {
	name    string
	finding *watch.Finding
}

type appKey struct {
	source watch.Source
	id     string
}

// appNames gives every app its name. Apps that ask for the same name are one
// service, as are apps of one id in several clusters; of apps whose different ids
// merely look alike (/a/b and /a-b) one has the name.
func appNames(snapshot *watch.Snapshot, held Claims) map[appKey]appName {
	names := map[appKey]appName{}
	type candidate struct {
		key   appKey
		local bool
	}
	derived := map[string][]candidate{}
	for _, part := range snapshot.Parts {
		for id, app := range part.Apps {
			key := appKey{part.Source, id}
			if name := askedName(app); name != "" {
				names[key] = appName{name: name}
				continue
			}
			name := dashed(id)
			derived[name] = append(derived[name], candidate{key, part.Datacenter == snapshot.Datacenter})
		}
	}
	for name, candidates := range derived {
		slices.SortFunc(candidates, func(a, b candidate) int {
			incumbent := held[claimName(name)]
			return firstTrue(a.key.id == incumbent, b.key.id == incumbent, a.local, b.local, a.key.id, b.key.id)
		})
		winner := candidates[0].key.id
		for _, c := range candidates {
			if c.key.id == winner {
				names[c.key] = appName{name: name}
				continue
			}
			names[c.key] = appName{name: strings.ToLower(c.key.id), finding: &watch.Finding{
				Code: "name-taken", Source: c.key.source.String(), Service: strings.ToLower(c.key.id),
				Message: fmt.Sprintf("the name %q is that of the app %s", name, watch.Printable(winner)),
				Instead: "it is reachable by its service ports only; give it another name with the label mi-lb.service",
			}}
		}
	}
	return names
}

// firstTrue orders by two conditions, then by text.
func firstTrue(a1, b1, a2, b2 bool, a, b string) int {
	switch {
	case a1 != b1 && a1, a1 == b1 && a2 != b2 && a2:
		return -1
	case a1 != b1, a2 != b2:
		return 1
	}
	return strings.Compare(a, b)
}

// askedName is the name that an app asks for, "" if for none.
func askedName(app *watch.App) string {
	candidates := []string{app.Labels[keyPrefix+".service"]}
	if len(app.Ports) == 1 {
		candidates = append(candidates, app.Env["SERVICE_"+strconv.Itoa(app.Ports[0].ContainerPort)+"_NAME"])
	}
	candidates = append(candidates, app.Env["SERVICE_NAME"])
	for _, name := range candidates {
		if name, err := parseServiceName(strings.TrimSpace(name)); err == nil {
			return name
		}
	}
	return ""
}

func dashed(id string) string {
	return strings.ToLower(strings.ReplaceAll(strings.Trim(id, "/"), "/", "-"))
}

// portNames are the name of an app's port and the others it answers to. The first
// port has the app's name; the others, as with Registrator, their port's number
// appended, where nothing names them.
func portNames(app string, a *watch.App, index int, wishes []wish) (name string, aliases []string) {
	number := ""
	if index < len(a.Ports) {
		port := a.Ports[index]
		switch {
		case port.ContainerPort > 0:
			number = strconv.Itoa(port.ContainerPort)
		case port.Name != "":
			number = strings.ToLower(port.Name)
		default:
			number = strconv.Itoa(index)
		}
	}
	asked := ""
	for _, w := range wishes {
		if w.key == "service" {
			if n, err := parseServiceName(w.value); err == nil {
				asked = n
			}
		}
	}
	env := ""
	if n, err := parseServiceName(a.Env["SERVICE_"+number+"_NAME"]); err == nil && number != "" {
		env = n
	}
	name = app
	if index > 0 {
		name = app + "-" + number
		if env != "" {
			name = env
		}
		if asked != "" {
			name = asked
		}
	}
	candidates := []string{env}
	if index == 0 {
		if n, err := parseServiceName(a.Env["SERVICE_NAME"]); err == nil {
			candidates = append(candidates, n)
		}
		candidates = append(candidates, dashed(a.ID))
		if len(a.Ports) > 1 {
			candidates = append(candidates, app+"-"+number)
		}
	}
	for _, c := range candidates {
		if c != "" && c != name {
			aliases = append(aliases, c)
		}
	}
	return name, aliases
}

// isInfrastructure says whether a name is one that the platform itself uses.
func isInfrastructure(name string) bool {
	for _, base := range infrastructure {
		rest, ok := strings.CutPrefix(name, base)
		if !ok {
			continue
		}
		if rest == "" {
			return true
		}
		if suffix, ok := strings.CutPrefix(rest, "-"); ok {
			if _, err := strconv.Atoi(suffix); err == nil || slices.Contains(infrastructureParts, suffix) {
				return true
			}
		}
	}
	return false
}
