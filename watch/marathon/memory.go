package marathon

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/watch"
)

// memory is what outlives a single answer of Marathon: the last verdict on each
// task, and which tasks are known to end or to have ended.
type memory struct {
	verdicts map[string]verdict
	endings  map[string]ending
	// until is how long each task that has ended stays in its app.
	until  map[string]time.Time
	linger time.Duration
}

// ending is what an event said about a task that a read begun before the event
// must not undo.
type ending struct {
	routing routing
	state   string
	reason  string
	// at is when it happened by Marathon's clock, zero if it did not say; heard
	// is when the event came, by ours.
	at, heard time.Time
}

// believed is how long an ending stands against reads that say otherwise: far
// longer than any read takes, and not for ever, as events may be wrong.
const believed = 10 * time.Minute

// damagedAgain is when a document that lacks what is always there is asked for again.
const damagedAgain = 5 * time.Second

// mostEndings bounds the memory against a flood of events about unknown tasks.
const mostEndings = 50_000

func newMemory(saved map[string]*watch.App, linger time.Duration) *memory {
	m := &memory{verdicts: map[string]verdict{}, endings: map[string]ending{}, until: map[string]time.Time{}, linger: linger}
	for _, app := range saved {
		for i := range app.Tasks {
			if v := verdictOf(&app.Tasks[i]); v != noVerdict {
				m.verdicts[app.Tasks[i].ID] = v
			}
		}
	}
	return m
}

// forget drops what is about tasks that nobody lists any more.
func (m *memory) forget(apps map[string]*watch.App, docs []*document, now time.Time) {
	listed := map[string]bool{}
	for _, d := range docs {
		for i := range d.tasks {
			listed[d.tasks[i].id] = true
		}
	}
	for _, app := range apps {
		for i := range app.Tasks {
			listed[app.Tasks[i].ID] = true
		}
	}
	maps.DeleteFunc(m.verdicts, func(id string, _ verdict) bool { return !listed[id] })
	maps.DeleteFunc(m.until, func(id string, _ time.Time) bool { return !listed[id] })
	maps.DeleteFunc(m.endings, func(_ string, e ending) bool { return now.Sub(e.heard) > believed })
}

func (m *memory) end(task string, e ending) {
	if before, ok := m.endings[task]; ok && before.routing > e.routing {
		return // killed stays killed, in whatever order the events come
	}
	if len(m.endings) >= mostEndings {
		maps.DeleteFunc(m.endings, func(_ string, e ending) bool { return e.routing == gone })
		if len(m.endings) >= mostEndings {
			clear(m.endings)
		}
	}
	m.endings[task] = e
}

// ended is the task's ending, if it has one and was not started again since
// under the same id (a task with a persistent volume is).
func (m *memory) ended(t *taskDocument, now time.Time) (ending, bool) {
	e, ok := m.endings[t.id]
	if !ok || now.Sub(e.heard) > believed {
		return ending{}, false
	}
	if !e.at.IsZero() && (t.stagedAt.After(e.at) || t.startedAt.After(e.at)) {
		return ending{}, false
	}
	return e, true
}

// taskView is what build needs to know about the world around a document.
type taskView struct {
	source string
	memory *memory
	agents map[string]agentAddress
	now    time.Time
	// hold says that the document is not believed where it lacks tasks.
	hold bool
}

// agentAddress is what an agent's host name leads to.
type agentAddress struct {
	addr netip.Addr
	err  error
}

// build makes the app out of its document and what was known of it earlier.
// The time is when to look again because something depends on the time alone;
// zero for never.
func build(d *document, before *watch.App, v taskView) (*watch.App, []watch.Finding, time.Time) {
	c := &complaints{source: v.source, app: d.app.ID}
	app := d.app
	var recheck time.Time
	again := func(at time.Time) {
		if !at.IsZero() && (recheck.IsZero() || at.Before(recheck)) {
			recheck = at
		}
	}
	if before != nil && before.Version != "" && app.Version == "" {
		// Every Marathon writes the version. Where it is null so is everything else:
		// no ports, no labels, tasks without addresses.
		c.add(watch.Finding{
			Code: "invalid-document", Key: "version", Message: "the app comes without its version, which Marathon always writes",
			Instead: "the app is left as it was last known",
		})
		return before, c.all(), v.now.Add(damagedAgain)
	}
	if !d.tasksKnown {
		// Not knowing the tasks is not having none.
		if before != nil && len(before.Tasks) > 0 {
			app.Tasks = before.Tasks
			c.add(watch.Finding{
				Code: "invalid-document", Key: "tasks", Message: "the app comes without a list of tasks",
				Instead: "the tasks last known are kept",
			})
		}
	}
	for i := range d.tasks {
		t := &d.tasks[i]
		if known := findTask(before, t.id); known != nil && known.Node != "" && t.host == "" && !hasEnded(known.State) {
			c.add(watch.Finding{
				Code: "invalid-document", Key: fmt.Sprintf("tasks[%d].host", i), Message: "the task comes without its host, which Marathon always writes",
				Instead: "the task is left as it was last known",
			})
			again(v.now.Add(damagedAgain))
			app.Tasks = append(app.Tasks, *known)
			continue
		}
		state, reason := t.state, ""
		way, known := routingOf(state)
		if !known {
			c.add(watch.Finding{
				Code: "invalid-document", Key: "tasks.state",
				Message: fmt.Sprintf("unknown state %q", watch.Printable(state)), Instead: "the task gets no traffic",
			})
		}
		if e, ok := v.memory.ended(t, v.now); ok && e.routing > way {
			way, state, reason = e.routing, e.state, e.reason
		}
		task := watch.Task{
			ID: t.id, Node: t.host, State: state, StartedAt: t.startedAt, Version: t.version,
		}
		if way == gone {
			// Its agent may be gone as well, which is nothing to complain about.
			task.Addresses = new(complaints).taskAddresses(d, t, findTask(before, t.id), v.agents)
			if v.memory.markEnded(&task, state, v.now) {
				app.Tasks = append(app.Tasks, task)
			}
			continue
		}
		delete(v.memory.until, t.id)
		if t.verdict != noVerdict {
			v.memory.verdicts[t.id] = t.verdict
		}
		task.Addresses = c.taskAddresses(d, t, findTask(before, t.id), v.agents)
		switch way {
		case awaited:
			if !reachable(&task) {
				continue
			}
			task.Health, task.Reason = watch.HealthCritical, state
		case draining:
			task.Health, task.Reason = watch.HealthMaintenance, cmp.Or(reason, state)
		default:
			task.Health, task.Reason = d.health(t, v.memory, v.now, again)
		}
		if way == routed && len(d.ports) > 0 && len(t.ports) == 0 && len(t.addresses) == 0 && !unreachable(state) &&
			slices.Contains(task.Addresses, netip.AddrPort{}) {
			// The task has just been started and its address is not in yet.
			again(v.now.Add(time.Second))
		}
		app.Tasks = append(app.Tasks, task)
	}
	if d.tasksKnown {
		if before != nil {
			app.Tasks = append(app.Tasks, v.unlisted(d, before)...)
			slices.SortFunc(app.Tasks, func(t, u watch.Task) int { return strings.Compare(t.ID, u.ID) })
		}
		settle(app.Tasks)
	}
	if before != nil && sameApp(before, &app) {
		return before, c.all(), recheck
	}
	return &app, c.all(), recheck
}

// health is that of a task that may be routed to, before settle.
func (d *document) health(t *taskDocument, m *memory, now time.Time, again func(time.Time)) (watch.Health, string) {
	ready, at := d.isReady(t, now)
	if !ready {
		again(at)
		return watch.HealthCritical, reasonNotReady
	}
	if len(d.app.HealthChecks) == 0 {
		return watch.HealthUnknown, ""
	}
	switch m.verdicts[t.id] {
	case alive:
		return watch.HealthPassing, ""
	case notAlive:
		return watch.HealthCritical, reasonFailing
	}
	if unreachable(t.state) {
		return watch.HealthUnknown, reasonUnreachable
	}
	if !t.startedAt.IsZero() {
		at := t.startedAt.Add(d.firstResult)
		if !now.Before(at) {
			// Past its time: the results are lost, not awaited.
			return watch.HealthUnknown, ""
		}
		again(at)
	}
	return watch.HealthUnknown, reasonUnchecked
}

// taskAddresses are the task's, with what it had before in the place of what
// cannot be told now.
func (c *complaints) taskAddresses(d *document, t *taskDocument, before *watch.Task, agents map[string]agentAddress) []netip.AddrPort {
	agent := agents[t.host]
	all := d.addresses(t, agent.addr)
	needsAgent := slices.ContainsFunc(d.ports, func(p port) bool { return p.mapped })
	if needsAgent && agent.err != nil {
		instead := "the address last known is kept"
		if !agent.addr.IsValid() && before == nil {
			instead = "its tasks get no traffic until the name resolves"
		}
		c.add(watch.Finding{
			Code: "unresolved-host", Key: t.host,
			Message: "the agent's address is not known: " + watch.Printable(agent.err.Error()), Instead: instead,
		})
	}
	if before == nil || len(before.Addresses) != len(all) {
		return all
	}
	outdated := t.version != "" && d.app.Version != "" && t.version != d.app.Version
	for i, was := range before.Addresses {
		switch {
		case !all[i].IsValid():
			all[i] = was
		case outdated && !d.ports[i].mapped && was.IsValid() && was.Addr() == all[i].Addr():
			// A task of an older definition still listens where that one said.
			all[i] = was
		}
	}
	return all
}

func findTask(app *watch.App, id string) *watch.Task {
	if app == nil {
		return nil
	}
	i, found := slices.BinarySearchFunc(app.Tasks, id, func(t watch.Task, id string) int { return strings.Compare(t.ID, id) })
	if !found {
		return nil
	}
	return &app.Tasks[i]
}

// sameApp says whether two apps are equal in every field.
func sameApp(a, b *watch.App) bool {
	return a.ID == b.ID && a.Image == b.Image && a.KillGrace == b.KillGrace && a.Version == b.Version &&
		maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Env, b.Env) &&
		slices.EqualFunc(a.Ports, b.Ports, func(p, q watch.AppPort) bool {
			return p.Name == q.Name && p.ServicePort == q.ServicePort && p.ContainerPort == q.ContainerPort &&
				p.Protocol == q.Protocol && maps.Equal(p.Labels, q.Labels)
		}) &&
		slices.Equal(a.HealthChecks, b.HealthChecks) &&
		slices.EqualFunc(a.Tasks, b.Tasks, sameTask)
}

func sameTask(t, u watch.Task) bool {
	return t.ID == u.ID && t.Node == u.Node && t.State == u.State && t.Health == u.Health && t.Reason == u.Reason &&
		t.StartedAt.Equal(u.StartedAt) && t.Version == u.Version && slices.Equal(t.Addresses, u.Addresses)
}
