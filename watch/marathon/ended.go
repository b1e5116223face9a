package marathon

import (
	"net/netip"
	"slices"
	"time"

	"github.com/mi-lb/mi-lb/watch"
)

// markEnded makes the task one that has ended, in the state that it ended in. It
// says whether the task stays for a while: not if its time is over, or if there is
// no address that a registration could be recognised by.
func (m *memory) markEnded(t *watch.Task, state string, now time.Time) bool {
	delete(m.verdicts, t.ID)
	t.State, t.Health, t.Reason = state, watch.HealthCritical, watch.Printable(state)
	if !hasEnded(state) {
		// TASK_UNKNOWN, or what no version documents: the reason says which.
		t.State = stateGone
	}
	return reachable(t) && now.Before(m.lingers(t.ID, now))
}

// lingers is until when the task stays, which is decided when it is first known to
// have ended.
func (m *memory) lingers(task string, now time.Time) time.Time {
	until, ok := m.until[task]
	if !ok {
		until = now.Add(m.linger)
		m.until[task] = until
	}
	return until
}

// unlisted are the tasks known before that the document has no more: they have
// ended, unless it is not believed.
func (v taskView) unlisted(d *document, before *watch.App) []watch.Task {
	var all []watch.Task
	for _, t := range before.Tasks {
		if d.lists(t.ID) {
			continue
		}
		e, announced := v.memory.endings[t.ID]
		if v.hold && !announced && !hasEnded(t.State) && len(t.Addresses) == len(d.ports) {
			all = append(all, t)
			continue
		}
		if len(t.Addresses) != len(d.ports) {
			addresses := make([]netip.AddrPort, len(d.ports))
			copy(addresses, t.Addresses)
			t.Addresses = addresses
		}
		state, reason := t.State, t.Reason
		switch {
		case hasEnded(state):
		case announced && e.routing == gone:
			state, reason = e.state, e.state
		default:
			state, reason = stateGone, stateGone
		}
		if v.memory.markEnded(&t, state, v.now) {
			t.Reason = reason
			all = append(all, t)
		}
	}
	return all
}

// reachable says whether any of the task's ports has an address.
func reachable(t *watch.Task) bool {
	return slices.ContainsFunc(t.Addresses, netip.AddrPort.IsValid)
}

// endedTask is one that has ended and is still in its app.
type endedTask struct{ app, task string }

// put replaces an app, nil for none, and keeps account of its tasks. Nothing else
// writes to apps.
func (v *view) put(id string, app *watch.App) {
	before := v.apps[id]
	if app == before {
		return
	}
	v.changed = true
	v.account(id, before, -1)
	v.account(id, app, 1)
	if app == nil {
		delete(v.apps, id)
		return
	}
	v.apps[id] = app
}

func (v *view) account(id string, app *watch.App, by int) {
	if app == nil {
		return
	}
	for i := range app.Tasks {
		t := &app.Tasks[i]
		if hasEnded(t.State) {
			if key := (endedTask{id, t.ID}); by > 0 {
				v.ended[key] = true
			} else {
				delete(v.ended, key)
			}
			continue
		}
		for _, a := range t.Addresses {
			if !a.IsValid() {
				continue
			}
			if v.occupied[a] += by; v.occupied[a] == 0 {
				delete(v.occupied, a)
			}
		}
	}
}

// sweep takes away the tasks that ended long enough ago, and those whose address
// another task has by now. The time is when the next one goes; zero for none.
func (v *view) sweep(now time.Time) (next time.Time) {
	over := map[string]map[string]bool{}
	for key := range v.ended {
		until := v.memory.lingers(key.task, now)
		if now.Before(until) && !v.taken(findTask(v.apps[key.app], key.task)) {
			if next.IsZero() || until.Before(next) {
				next = until
			}
			continue
		}
		if over[key.app] == nil {
			over[key.app] = map[string]bool{}
		}
		over[key.app][key.task] = true
		if now.Before(until) {
			// Marathon may still list it.
			v.memory.until[key.task] = now
		}
	}
	for id, tasks := range over {
		app := *v.apps[id]
		app.Tasks = slices.DeleteFunc(slices.Clone(app.Tasks), func(t watch.Task) bool { return tasks[t.ID] })
		v.put(id, &app)
	}
	return next
}

// taken says whether a task that has not ended has one of the task's addresses.
func (v *view) taken(t *watch.Task) bool {
	return t != nil && slices.ContainsFunc(t.Addresses, func(a netip.AddrPort) bool { return v.occupied[a] > 0 })
}
