package routing

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/mi-lb/mi-lb/watch"
)

// identify decides which names there are and which instances they stand for.
func identify(snapshot *watch.Snapshot, policy Policy, held Claims) []*unit {
	w := &world{policy: policy, units: map[string]*unit{}, tasks: map[netip.AddrPort][]taskAt{}}
	parts := slices.SortedFunc(slices.Values(snapshot.Parts), func(a, b *watch.Part) int { return a.Source.Compare(b.Source) })
	w.addApps(snapshot.Datacenter, parts, held)
	w.addServices(parts)
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

func (w *world) unit(name string) *unit {
	u, ok := w.units[name]
	if !ok {
		u = &unit{name: name}
		w.units[name] = u
	}
	return u
}

// addApps makes a unit of every app's ports.
func (w *world) addApps(local string, parts []*watch.Part, held Claims) {
	names := appNames(local, parts, held)
	for _, part := range parts {
		from := originOf(part)
		for _, id := range slices.Sorted(maps.Keys(part.Apps)) {
			ports := namePorts(from, part.Apps[id], names[appKey{part.Source, id}], &w.policy)
			for i := range ports {
				port := &ports[i]
				w.unit(port.unit).addApp(*port)
				if !port.tcp() {
					continue
				}
				for address, task := range port.tasks {
					w.tasks[address] = append(w.tasks[address], taskAt{port, task})
				}
			}
		}
	}
}

// appNames gives every app its name. Apps that ask for the same name are one
// service, as are apps of one id in several clusters; of apps whose different ids
// merely look alike one has the name.
func appNames(local string, parts []*watch.Part, held Claims) map[appKey]appName {
	names := map[appKey]appName{}
	alike := map[string][]namesake{}
	for _, part := range parts {
		for id, app := range part.Apps {
			key := appKey{part.Source, id}
			if name := askedName(app); name != "" {
				names[key] = appName{name: name}
				continue
			}
			name := dashed(id)
			alike[name] = append(alike[name], namesake{key, part.Datacenter == local})
		}
	}
	for name, apps := range alike {
		maps.Copy(names, settleNames(name, apps, held[claimName(name)]))
	}
	return names
}

// addServices merges the services of Consul and of files into the units that they
// are the same as, and makes units of the others.
func (w *world) addServices(parts []*watch.Part) {
	byName := map[string][]registration{}
	for _, part := range parts {
		from := originOf(part)
		for key, service := range part.Services {
			for _, r := range registrations(from, key, service) {
				r.tasks = living(w.tasks[r.address()])
				byName[r.as] = append(byName[r.as], r)
			}
		}
	}
	// Decided for all names before any is added: whether a name is free does not
	// depend on the order.
	home := map[string]string{}
	for name, registrations := range byName {
		if w.units[name] == nil {
			home[name] = soleUnit(registrations)
		}
	}
	exists := func(name string) bool { return byName[name] != nil }
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		unit := name
		if home[name] != "" {
			unit = home[name]
		}
		w.unit(unit).register(name, byName[name], exists)
	}
}

// soleUnit is the unit whose tasks all of the registrations are, "" if there is
// none: the app `webserver` on image `python` is `python` in Consul, and as long as
// nothing else is, both names are one service.
func soleUnit(all []registration) string {
	sole := ""
	for _, r := range all {
		if len(r.tasks) != 1 || (sole != "" && r.tasks[0].port.unit != sole) {
			return ""
		}
		sole = r.tasks[0].port.unit
	}
	return sole
}
