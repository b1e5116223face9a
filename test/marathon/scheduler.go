package marathon

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// app is what the cluster knows of one app id.
type app struct {
	id string
	// def is the definition the API shows; nil once the app is deleted and only
	// its tasks remain.
	def *Definition
	// target is what deployments have told the tasks to become; nil where tasks
	// are put by the caller, or nothing was deployed yet.
	target   *Definition
	versions []*Definition // oldest first
	tasks    []*task       // oldest first

	failures    int
	launchAfter time.Time
	retry       *time.Timer
	lastFailure *taskFailure
	queuedSince time.Time
}

// taskFailure is the JSON of an app's last failed task.
type taskFailure struct {
	AppID     string `json:"appId"`
	Host      string `json:"host"`
	Message   string `json:"message"`
	State     string `json:"state"`
	TaskID    string `json:"taskId"`
	Timestamp string `json:"timestamp"`
	Version   string `json:"version"`
	SlaveID   string `json:"slaveId"`
}

// census is an app's tasks by what the scheduler thinks of them.
type census struct {
	fresh, old, killing []*task
	freshReady          int
}

func (a *app) census() census {
	var now census
	for _, t := range a.tasks {
		switch {
		case t.killing:
			now.killing = append(now.killing, t)
		case a.target != nil && t.def.configVersion() == a.target.configVersion():
			now.fresh = append(now.fresh, t)
			if t.ready() {
				now.freshReady++
			}
		default:
			now.old = append(now.old, t)
		}
	}
	return now
}

// converged: what is running is what was asked for.
func (a *app) converged() bool {
	now := a.census()
	return a.target != nil && len(now.old) == 0 && len(now.killing) == 0 &&
		len(now.fresh) == a.target.Instances && now.freshReady == a.target.Instances
}

// missing is how many tasks are still to be launched.
func (a *app) missing() int {
	if a.target == nil {
		return 0
	}
	return max(0, a.target.Instances-len(a.census().fresh))
}

// reconcile launches and kills tasks towards the app's target, within its
// upgrade strategy where older tasks are to be replaced.
func (c *Cluster) reconcile(a *app) {
	if a.target == nil {
		return
	}
	now := a.census()
	instances := a.target.Instances
	if len(now.fresh) > instances {
		c.killSome(now.fresh, len(now.fresh)-instances, a.target.KillSelection)
	}
	if len(now.old) > 0 {
		minimum := int(math.Ceil(float64(instances) * a.target.UpgradeStrategy.MinimumHealthCapacity))
		serving := len(now.old) + now.freshReady
		c.killSome(now.old, min(len(now.old), serving-minimum), "OLDEST_FIRST")
		now = a.census()
	}
	c.launchMissing(a, a.capacity()-len(now.fresh)-len(now.old))
}

// capacity is how many tasks may run at once.
func (a *app) capacity() int {
	instances := a.target.Instances
	if len(a.census().old) == 0 {
		return instances
	}
	strategy := a.target.UpgradeStrategy
	most := int(float64(instances) * (1 + strategy.MaximumOverCapacity))
	if minimum := int(math.Ceil(float64(instances) * strategy.MinimumHealthCapacity)); most <= minimum {
		most = minimum + 1 // or nothing could ever be replaced
	}
	return most
}

// killSome kills n of the tasks; n may be out of range.
func (c *Cluster) killSome(tasks []*task, n int, selection string) {
	tasks = slices.Clone(tasks)
	slices.SortStableFunc(tasks, func(x, y *task) int {
		if selection == "OLDEST_FIRST" {
			// Those that do not serve go first.
			return cmp.Or(readyRank(x)-readyRank(y), x.stagedAt.Compare(y.stagedAt))
		}
		return y.stagedAt.Compare(x.stagedAt)
	})
	for _, t := range tasks[:min(max(n, 0), len(tasks))] {
		c.kill(t)
	}
}

func readyRank(t *task) int {
	if t.ready() {
		return 1
	}
	return 0
}

// launchMissing launches up to room of the tasks that are missing, unless the
// app is backing off.
func (c *Cluster) launchMissing(a *app, room int) {
	missing := a.missing()
	if missing == 0 {
		a.queuedSince = time.Time{}
		return
	}
	if a.queuedSince.IsZero() {
		a.queuedSince = time.Now()
	}
	if wait := time.Until(a.launchAfter); wait > 0 {
		c.retryLater(a, wait)
		return
	}
	for range min(missing, room) {
		if err := c.launch(a); err != nil {
			c.log.Info("task waits for an offer that fits", "app", a.id, "reason", err)
			c.retryLater(a, 500*time.Millisecond)
			return
		}
	}
}

func (c *Cluster) retryLater(a *app, wait time.Duration) {
	if a.retry != nil {
		return
	}
	a.retry = time.AfterFunc(wait, func() {
		c.mu.Lock()
		defer c.unlock()
		a.retry = nil
		c.touch(a.id)
	})
}

// backOff delays the app's next launch after a task that did not last.
func (c *Cluster) backOff(a *app, t *task) {
	const viable = time.Minute // a task that lasted this long was no failed start
	if !t.startedAt.IsZero() && time.Since(t.startedAt) > viable {
		a.failures = 0
	}
	delay := t.def.BackoffSeconds * math.Pow(t.def.BackoffFactor, float64(a.failures))
	a.failures++
	a.launchAfter = time.Now().Add(seconds(min(delay, t.def.MaxLaunchDelaySeconds)))
}
