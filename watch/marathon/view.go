package marathon

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/watch"
)

// view is what is known of one cluster: the apps as they are published, and
// what it takes to put answers and events together in the right order. It does
// no input or output; reads are numbered by whoever starts them, and an answer
// never replaces that of a read that was started later.
type view struct {
	source     watch.Source
	datacenter string

	apps     map[string]*watch.App
	findings map[string][]watch.Finding
	// listFindings are about the list of apps as a whole.
	listFindings []watch.Finding
	memory       *memory
	// ended are the tasks in apps that have ended, and occupied counts the others
	// by address.
	ended    map[endedTask]bool
	occupied map[netip.AddrPort]int

	// readOf is the number of the newest read of each app, also of those that
	// turned out not to exist; readAll of the newest read of the whole list.
	readOf  map[string]uint64
	readAll uint64
	// held counts, by app, the tasks that the newest list no longer has but that
	// are kept.
	held map[string]int
	// changed says that the part differs from the one published last.
	changed bool
}

// listing is a successfully read list of apps.
type listing struct {
	number   uint64
	docs     []*document
	nameless int
	findings []watch.Finding
	agents   map[string]agentAddress
}

func newView(source watch.Source, datacenter string, saved *watch.Part, linger time.Duration) *view {
	v := &view{
		source: source, datacenter: datacenter,
		apps: map[string]*watch.App{}, findings: map[string][]watch.Finding{}, readOf: map[string]uint64{}, held: map[string]int{},
		ended: map[endedTask]bool{}, occupied: map[netip.AddrPort]int{},
	}
	if saved != nil && saved.Source == source {
		for id, app := range saved.Apps {
			if app != nil {
				v.put(id, app)
			}
		}
	}
	v.changed = false
	v.memory = newMemory(v.apps, linger)
	return v
}

// part is what is known now. Publishing it makes it immutable, which costs a
// copy of the map and nothing of the apps.
func (v *view) part() *watch.Part {
	p := &watch.Part{Source: v.source, Datacenter: v.datacenter, Apps: maps.Clone(v.apps)}
	p.Findings = slices.Clone(v.listFindings)
	for _, f := range v.findings {
		p.Findings = append(p.Findings, f...)
	}
	slices.SortFunc(p.Findings, watch.Finding.Compare)
	p.Findings = slices.Compact(p.Findings)
	v.changed = false
	return p
}

// shrunk says whether the list lacks so much of what is known that, right
// after trouble, it had better be asked for again: everything, or more than
// half of the apps or tasks. Tasks whose end was announced do not count.
func (v *view) shrunk(l *listing) bool {
	listed := make(map[string]*document, len(l.docs))
	for _, d := range l.docs {
		listed[d.app.ID] = d
	}
	tasks, missingTasks, missingApps := 0, 0, 0
	for id, app := range v.apps {
		d := listed[id]
		if d == nil {
			missingApps++
		}
		for i := range app.Tasks {
			t := &app.Tasks[i]
			if _, announced := v.memory.endings[t.ID]; announced || hasEnded(t.State) {
				continue
			}
			tasks++
			if d == nil || d.tasksKnown && !d.lists(t.ID) {
				missingTasks++
			}
		}
	}
	return missingTasks*2 > tasks || missingApps*2 > len(v.apps)
}

// heldTasks is how many tasks are kept although the newest list lacks them.
func (v *view) heldTasks() int {
	n := 0
	for _, tasks := range v.held {
		n += tasks
	}
	return n
}

func (d *document) lists(task string) bool {
	_, found := slices.BinarySearchFunc(d.tasks, task, func(t taskDocument, id string) int { return strings.Compare(t.id, id) })
	return found
}

// all takes in a list of all apps. With hold, what is missing from it is kept
// and counted. Out come the apps to read again, and when.
func (v *view) all(l *listing, hold bool, now time.Time) map[string]time.Time {
	again := map[string]time.Time{}
	if l.number < v.readAll {
		return again
	}
	clear(v.held)
	v.readAll = l.number
	listed := make(map[string]bool, len(l.docs))
	for _, d := range l.docs {
		id := d.app.ID
		listed[id] = true
		if v.readOf[id] > l.number {
			continue
		}
		at := v.take(d, l.number, taskView{agents: l.agents, now: now, hold: hold})
		if !at.IsZero() {
			again[id] = at
		}
		if hold && d.tasksKnown {
			for _, t := range notEnded(v.apps[id]) {
				if !d.lists(t.ID) {
					v.held[id]++
				}
			}
		}
	}
	for id, app := range v.apps {
		switch {
		case listed[id] || v.readOf[id] > l.number:
		case hold:
			v.held[id] = len(notEnded(app))
		case l.nameless > 0 && readable(id):
			// It may be the one that could not be read: ask for it by name.
			v.held[id] = len(notEnded(app))
			again[id] = now
		default:
			v.remove(id)
		}
	}
	if !slices.Equal(v.listFindings, l.findings) {
		v.listFindings, v.changed = l.findings, true
	}
	maps.DeleteFunc(v.readOf, func(id string, n uint64) bool { return n < l.number && v.apps[id] == nil })
	v.memory.forget(v.apps, l.docs, now)
	return again
}

// notEnded are the app's tasks that have not ended.
func notEnded(app *watch.App) []watch.Task {
	return slices.DeleteFunc(slices.Clone(app.Tasks), func(t watch.Task) bool { return hasEnded(t.State) })
}

// one takes in the document of one app, and says when to read it again; zero
// for not before something happens.
func (v *view) one(number uint64, d *document, agents map[string]agentAddress, now time.Time) time.Time {
	if number < v.readAll || number < v.readOf[d.app.ID] {
		return time.Time{}
	}
	return v.take(d, number, taskView{agents: agents, now: now})
}

// none takes in that there is no app of that id.
func (v *view) none(number uint64, id string) {
	if number < v.readAll || number < v.readOf[id] {
		return
	}
	v.readOf[id] = number
	delete(v.held, id)
	v.remove(id)
}

func (v *view) take(d *document, number uint64, world taskView) time.Time {
	id := d.app.ID
	v.readOf[id] = number
	delete(v.held, id)
	world.source, world.memory = v.source.String(), v.memory
	app, found, again := build(d, v.apps[id], world)
	v.put(id, app)
	found = append(slices.Clip(d.findings), found...)
	if !slices.Equal(v.findings[id], found) {
		v.changed = true
		if len(found) == 0 {
			delete(v.findings, id)
		} else {
			v.findings[id] = found
		}
	}
	return again
}

func (v *view) remove(id string) {
	if v.apps[id] == nil {
		return
	}
	v.put(id, nil)
	delete(v.findings, id)
}

// hear takes in what an event says about a task, before anything is read.
func (v *view) hear(t taskChange, now time.Time) {
	app := v.apps[t.app]
	end := ending{state: t.state, reason: t.reason, at: t.at, heard: now}
	switch t.effect {
	case ends:
		end.routing = draining
	case ended:
		end.routing = gone
	}
	if end.routing != routed {
		v.memory.end(t.task, end)
	}
	if app == nil {
		return
	}
	for i := range app.Tasks {
		id := app.Tasks[i].ID
		if !t.about(id) {
			continue
		}
		if end.routing != routed {
			v.memory.end(id, end)
		}
		if t.effect == failsCheck && len(app.HealthChecks) > 0 && !hasEnded(app.Tasks[i].State) {
			v.memory.verdicts[id] = notAlive
		}
	}
	v.put(t.app, t.apply(app, v.memory, now))
}
