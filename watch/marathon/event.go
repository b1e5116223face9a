package marathon

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/watch"
)

// eventTypes are those asked for. Old names are among them: a Marathon that
// does not know a name ignores it.
var eventTypes = []string{
	"status_update_event",
	"instance_changed_event",
	"instance_health_changed_event",
	"health_status_changed_event",
	"unhealthy_instance_kill_event",
	"unhealthy_task_kill_event",
	"unknown_instance_terminated_event",
	"api_post_event",
	"app_terminated_event",
	"deployment_info",
	"deployment_step_success",
	"deployment_success",
	"deployment_failed",
	"group_change_success",
	"event_stream_attached",
}

// event is what an event of Marathon means: which apps to read again, and what
// can be said about a task before that.
type event struct {
	// refresh are the ids of apps to read again; everything to read all.
	refresh    []string
	everything bool
	change     taskChange
}

// taskChange is news about one task; the zero value is none.
type taskChange struct {
	app string
	// task is the id of the task, or of the instance it belongs to.
	task   string
	effect effect
	state  string
	reason string
	// at is Marathon's time of it, zero if it did not say.
	at time.Time
}

type effect int

const (
	noEffect effect = iota
	// lostSight: the task's agent is unreachable; its health stays.
	lostSight
	// failsCheck: one of its health checks fails.
	failsCheck
	// ends: it is about to end.
	ends
	// ended: it is no more.
	ended
)

// about says whether the change is about that task. An instance's id is a
// task's without its last parts.
func (t taskChange) about(id string) bool {
	return id == t.task || strings.HasPrefix(id, t.task) && id[len(t.task)] == '.'
}

// decodeEvent reads one event. One that cannot be read, or of an unknown type,
// means nothing: events are only hints, what counts is read again anyway.
func decodeEvent(m message) event {
	var p struct {
		EventType  string          `json:"eventType"`
		AppID      json.RawMessage `json:"appId"`
		RunSpecID  json.RawMessage `json:"runSpecId"`
		TaskID     json.RawMessage `json:"taskId"`
		InstanceID json.RawMessage `json:"instanceId"`
		TaskStatus json.RawMessage `json:"taskStatus"`
		Timestamp  json.RawMessage `json:"timestamp"`
		Alive      json.RawMessage `json:"alive"`
		Healthy    json.RawMessage `json:"healthy"`
		URI        json.RawMessage `json:"uri"`
		App        json.RawMessage `json:"appDefinition"`
		Plan       json.RawMessage `json:"plan"`
		Step       json.RawMessage `json:"currentStep"`
	}
	if json.Unmarshal(m.data, &p) != nil {
		return event{everything: m.event != ""}
	}
	kind := m.event
	if kind == "" {
		kind = p.EventType
	}
	app := text(p.AppID)
	if app == "" {
		app = text(p.RunSpecID)
	}
	e := event{}
	if app != "" {
		e.refresh = []string{app}
	}
	change := taskChange{app: app, at: timestamp(p.Timestamp)}
	switch kind {
	case "status_update_event":
		change.task, change.state = text(p.TaskID), text(p.TaskStatus)
		change.effect = effectOf(change.state)
	case "health_status_changed_event", "instance_health_changed_event":
		change.task = text(p.InstanceID)
		if change.task == "" {
			change.task = text(p.TaskID)
		}
		if string(p.Alive) == "false" || string(p.Healthy) == "false" {
			change.effect = failsCheck
		}
	case "unhealthy_instance_kill_event", "unhealthy_task_kill_event":
		change.task = text(p.InstanceID)
		if change.task == "" {
			change.task = text(p.TaskID)
		}
		change.effect, change.state, change.reason = ends, "TASK_KILLING", reasonUnhealthy
	case "instance_changed_event", "unknown_instance_terminated_event", "app_terminated_event":
	case "api_post_event":
		e.refresh = appendID(e.refresh, idOf(p.App))
		if uri := text(p.URI); len(e.refresh) == 0 && !strings.HasPrefix(uri, "/v2/apps/") {
			e.everything = true
		} else if len(e.refresh) == 0 {
			e.refresh = appendID(nil, strings.TrimPrefix(uri, "/v2/apps"))
		}
	case "deployment_info", "deployment_step_success", "deployment_success", "deployment_failed":
		var plan struct {
			Steps json.RawMessage `json:"steps"`
		}
		_ = json.Unmarshal(p.Plan, &plan)
		e.refresh = actions(e.refresh, plan.Steps, 0)
		e.refresh = actions(e.refresh, p.Step, 0)
		e.everything = len(e.refresh) == 0
	case "group_change_success":
		e.everything = true
	default:
		return event{}
	}
	if change.effect != noEffect && change.task != "" && change.app != "" {
		e.change = change
	}
	for _, id := range e.refresh {
		if !readable(id) {
			return event{everything: true, change: e.change}
		}
	}
	return e
}

func effectOf(state string) effect {
	if unreachable(state) {
		return lostSight
	}
	switch state {
	case "TASK_STAGING", "TASK_STARTING", "TASK_UNKNOWN":
		return noEffect
	}
	switch way, known := routingOf(state); {
	case !known:
		return noEffect
	case way == draining:
		return ends
	case way == gone:
		return ended
	}
	return noEffect
}

// actions appends the ids of the apps that a deployment's steps are about:
// {"actions":[{"app":"/x"}]}, a list of those, or a list of lists of actions.
func actions(ids []string, raw json.RawMessage, depth int) []string {
	type action struct {
		App json.RawMessage `json:"app"`
	}
	var step struct {
		Actions []action `json:"actions"`
	}
	var list []json.RawMessage
	switch {
	case absent(raw), depth > 2:
	case json.Unmarshal(raw, &list) == nil:
		for _, r := range list {
			ids = actions(ids, r, depth+1)
		}
	case json.Unmarshal(raw, &step) == nil:
		if len(step.Actions) == 0 {
			var a action
			_ = json.Unmarshal(raw, &a)
			step.Actions = append(step.Actions, a)
		}
		for _, a := range step.Actions {
			ids = appendID(ids, text(a.App))
			ids = appendID(ids, idOf(a.App))
		}
	}
	return ids
}

func appendID(ids []string, id string) []string {
	if id == "" || slices.Contains(ids, id) {
		return ids
	}
	return append(ids, id)
}

func idOf(raw json.RawMessage) string {
	var o struct {
		ID json.RawMessage `json:"id"`
	}
	if absent(raw) || json.Unmarshal(raw, &o) != nil {
		return ""
	}
	return text(o.ID)
}

func text(raw json.RawMessage) string {
	var s string
	if absent(raw) || json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

func timestamp(raw json.RawMessage) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text(raw))
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

// readable says whether the app can be asked for by its id: ids become paths,
// and "/v2/apps/../leader" must not.
func readable(id string) bool {
	if len(id) < 2 || len(id) > 1024 || id[0] != '/' {
		return false
	}
	for segment := range strings.SplitSeq(id[1:], "/") {
		if segment == "" || segment == "." || segment == ".." {
			return false
		}
		for _, r := range segment {
			switch {
			case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '.', r == '_':
			default:
				return false
			}
		}
	}
	return true
}

// apply is the app after the change; the same pointer if it changes nothing.
func (t taskChange) apply(app *watch.App, m *memory, now time.Time) *watch.App {
	var changed *watch.App
	over := map[string]bool{}
	for i := range app.Tasks {
		if !t.about(app.Tasks[i].ID) {
			continue
		}
		task, stays := app.Tasks[i], true
		if hasEnded(task.State) && t.effect != ended {
			continue // events may overtake each other
		}
		switch t.effect {
		case lostSight:
			task.State = t.state
		case failsCheck:
			if len(app.HealthChecks) == 0 || task.Health == watch.HealthMaintenance {
				continue
			}
			task.Health, task.Reason = watch.HealthCritical, reasonFailing
		case ends:
			task.State, task.Health = t.state, watch.HealthMaintenance
			task.Reason = t.state
			if t.reason != "" {
				task.Reason = t.reason
			}
		case ended:
			stays = m.markEnded(&task, t.state, now)
		}
		if stays && sameTask(task, app.Tasks[i]) {
			continue
		}
		if changed == nil {
			clone := *app
			clone.Tasks = slices.Clone(app.Tasks)
			changed = &clone
		}
		if !stays {
			over[task.ID] = true
		}
		changed.Tasks[i] = task
	}
	if changed == nil {
		return app
	}
	changed.Tasks = slices.DeleteFunc(changed.Tasks, func(u watch.Task) bool { return over[u.ID] })
	settle(changed.Tasks)
	return changed
}
