package marathon

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/mi-lb/mi-lb/watch"
)

// verdict is what Marathon's health checks say about a task.
type verdict int

const (
	// noVerdict: no result yet, or lost with Marathon's leader. It never
	// overrides a verdict.
	noVerdict verdict = iota
	alive
	notAlive
)

// Reasons of a task's health. They are part of what is saved, and what a verdict
// is read back from after a restart.
const (
	reasonFailing     = "a health check of Marathon fails"
	reasonAwaited     = "no health check result yet, while other tasks are healthy"
	reasonUnchecked   = "no health check result yet"
	reasonNotReady    = "its readiness check has not passed yet"
	reasonUnhealthy   = "Marathon is about to kill it as unhealthy"
	reasonUnreachable = "its agent is unreachable"
)

// routing says what a task's state means for it.
type routing int

const (
	// routed: as healthy as its checks say.
	routed routing = iota
	// awaited: not started yet.
	awaited
	// draining: still serves what it has, and ends soon.
	draining
	// gone: it has ended, or nobody knows about it.
	gone
)

// routingOf maps every state that REST or a status update has in any version.
// A state that no version documents is gone, with known false.
func routingOf(state string) (r routing, known bool) {
	switch state {
	case "TASK_RUNNING", "TASK_UNREACHABLE", "TASK_LOST":
		// An agent that Mesos lost sight of mostly still serves: only its own
		// checks can tell.
		return routed, true
	case "TASK_CREATED", "TASK_STAGING", "TASK_STARTING":
		return awaited, true
	case "TASK_KILLING":
		return draining, true
	case "TASK_UNKNOWN":
		return gone, true
	}
	return gone, hasEnded(state)
}

// hasEnded says whether a task in that state is no more, and never will be.
func hasEnded(state string) bool {
	switch state {
	case "TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_DROPPED", stateGone, "TASK_GONE_BY_OPERATOR":
		return true
	}
	return false
}

// stateGone is that of a task that Marathon no longer lists without having said
// what became of it.
const stateGone = "TASK_GONE"

func unreachable(state string) bool { return state == "TASK_UNREACHABLE" || state == "TASK_LOST" }

// verdict reads a task's healthCheckResults. A result that was never updated
// (Marathon gives one of those for a task it has just begun to check, and for
// all tasks after it lost its results) is no result.
func (c *complaints) verdict(task object) verdict {
	v := noVerdict
	for _, r := range c.objects(task, "healthCheckResults") {
		var isAlive bool
		if json.Unmarshal(r["alive"], &isAlive) != nil {
			continue
		}
		if isAlive {
			v = max(v, alive)
			continue
		}
		_, counts := r["consecutiveFailures"]
		if counts && c.count(r, "consecutiveFailures") == 0 &&
			absent(r["firstSuccess"]) && absent(r["lastSuccess"]) && absent(r["lastFailure"]) {
			continue
		}
		v = notAlive
	}
	return v
}

// healthChecks are the app's, and how long after its start a task may go
// without a result.
func (c *complaints) healthChecks(o object) (checks []watch.HealthCheck, firstResult time.Duration) {
	for i, h := range c.objects(o, "healthChecks") {
		check := watch.HealthCheck{
			Protocol:               c.string(h, "protocol"),
			Path:                   c.string(h, "path"),
			PortIndex:              -1,
			MaxConsecutiveFailures: c.count(h, "maxConsecutiveFailures"),
		}
		if check.Protocol == "" {
			check.Protocol = "HTTP"
		}
		port, hasPort := c.port(fmt.Sprintf("healthChecks[%d].port", i), h["port"])
		if index, ok := c.number("portIndex", h["portIndex"]); ok && index >= 0 && index < 65536 {
			check.PortIndex = int(index)
		}
		if hasPort && port != 0 {
			check.Port, check.PortIndex = port, -1
		} else if check.PortIndex < 0 && check.Protocol != "COMMAND" {
			check.PortIndex = 0
		}
		check.Interval, _ = c.seconds(h, "intervalSeconds")
		check.Timeout, _ = c.seconds(h, "timeoutSeconds")
		checks = append(checks, check)

		grace, ok := c.seconds(h, "gracePeriodSeconds")
		if !ok {
			grace = 300 * time.Second
		}
		interval := check.Interval
		if interval == 0 {
			interval = 60 * time.Second
		}
		firstResult = max(firstResult, grace+interval+check.Timeout)
	}
	return checks, firstResult
}

// readiness reads the results of readiness checks, and how long one takes; 0
// where the app has none or is not being deployed.
func (c *complaints) readiness(o object) (within time.Duration, ready map[string]bool) {
	deployments, _ := c.list(o, "deployments")
	checks := c.objects(o, "readinessChecks")
	if len(deployments) == 0 || len(checks) == 0 {
		return 0, nil
	}
	for _, check := range checks {
		timeout, ok := c.seconds(check, "timeoutSeconds")
		if !ok {
			timeout = 10 * time.Second
		}
		within = max(within, timeout+5*time.Second)
	}
	ready = map[string]bool{}
	for _, r := range c.objects(o, "readinessCheckResults") {
		id := c.string(r, "taskId")
		var isReady bool
		if id == "" || json.Unmarshal(r["ready"], &isReady) != nil {
			continue
		}
		before, seen := ready[id]
		ready[id] = isReady && (before || !seen)
	}
	return within, ready
}

// isReady is the heuristic that bamboo and Traefik have proven: during a
// deployment a task without a result is an old one, and ready, only if it
// started longer ago than a check takes. The time is when that will be so.
func (d *document) isReady(t *taskDocument, now time.Time) (bool, time.Time) {
	if d.readyWithin == 0 {
		return true, time.Time{}
	}
	if ready, ok := d.ready[t.id]; ok {
		return ready, time.Time{}
	}
	if t.startedAt.IsZero() {
		return false, time.Time{}
	}
	at := t.startedAt.Add(d.readyWithin)
	if now.Before(at) {
		return false, at
	}
	return true, time.Time{}
}

// settle decides about the tasks whose first result is awaited: no traffic
// while another task is healthy, and whatever the edge's own checks find where
// none is. It changes the tasks in place and says whether it did.
func settle(tasks []watch.Task) (changed bool) {
	healthy := false
	for _, t := range tasks {
		healthy = healthy || t.Health == watch.HealthPassing && !unreachable(t.State)
	}
	for i := range tasks {
		t := &tasks[i]
		switch {
		case healthy && t.Reason == reasonUnchecked && t.Health == watch.HealthUnknown:
			t.Health, t.Reason, changed = watch.HealthCritical, reasonAwaited, true
		case !healthy && t.Reason == reasonAwaited:
			t.Health, t.Reason, changed = watch.HealthUnknown, reasonUnchecked, true
		}
	}
	return changed
}

// verdictOf reads a verdict back from a task that was published earlier.
func verdictOf(t *watch.Task) verdict {
	switch {
	case t.Health == watch.HealthPassing:
		return alive
	case t.Health == watch.HealthCritical && t.Reason == reasonFailing:
		return notAlive
	}
	return noVerdict
}
