package marathon

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// FakeTask is a task put by the caller: nothing runs for it.
type FakeTask struct {
	// ID is the task's. Default a new one.
	ID string
	// Host is what the API gives as the task's host. Default the first agent's.
	Host string
	// Ports are the host ports, in the order of the app's.
	Ports []int
	// Addresses are the task's own.
	Addresses []netip.Addr
	// State is any of Marathon's. Default TASK_RUNNING.
	State string
	// Health has one entry per health check of the app: nil for no result yet.
	// Fewer are no result yet for the rest.
	Health []*bool
	// Version is that of the definition it runs. Default the app's newest.
	Version string
	// StartedAt, default now.
	StartedAt time.Time
}

// PutApp adds or replaces an app at once, without a deployment: the document is
// as for POST /v2/apps, the tasks replace those put before. Service ports that
// other apps have are accepted. The emulator starts no tasks for such an app.
func (c *Cluster) PutApp(document []byte, tasks ...FakeTask) error {
	c.mu.Lock()
	defer c.unlock()
	def, err := c.parseApp("", document)
	if err != nil {
		return fmt.Errorf("put app: %w", err)
	}
	var before *Definition
	if a := c.apps[def.ID]; a != nil {
		before = a.def
	}
	if err := c.assignServicePorts(def, before, func(port int) bool { return c.servicePorts[port] > 0 }); err != nil {
		return fmt.Errorf("put app %s: %w", def.ID, err)
	}
	c.adopt(def.ID, c.version(def, before, c.newVersion()))
	c.apps[def.ID].target = nil
	c.publishPost("127.0.0.1", "/v2/apps", c.apps[def.ID].def)
	return c.setTasks(def.ID, tasks)
}

// RemoveApp removes an app with its tasks at once, without a deployment.
func (c *Cluster) RemoveApp(id string) error {
	c.mu.Lock()
	defer c.unlock()
	id = canonicalID("", id)
	a := c.apps[id]
	if a == nil || a.def == nil {
		return unknownApp(id)
	}
	a.target = nil
	for _, t := range slices.Clone(a.tasks) {
		c.setState(t, stateKilled, "")
	}
	c.adopt(id, nil)
	c.publish("app_terminated_event", "appId", id)
	return nil
}

// SetTasks replaces an app's tasks by those given: those of the same id are
// changed, the others vanish or appear, each with its events.
func (c *Cluster) SetTasks(appID string, tasks ...FakeTask) error {
	c.mu.Lock()
	defer c.unlock()
	return c.setTasks(canonicalID("", appID), tasks)
}

func (c *Cluster) setTasks(appID string, wanted []FakeTask) error {
	a := c.apps[appID]
	if a == nil || a.def == nil {
		return unknownApp(appID)
	}
	kept := map[string]bool{}
	for _, fake := range wanted {
		kept[fake.ID] = true
	}
	for _, t := range slices.Clone(a.tasks) {
		if !kept[t.id] {
			c.setState(t, stateKilled, "")
		}
	}
	for _, fake := range wanted {
		index := slices.IndexFunc(a.tasks, func(t *task) bool { return t.id == fake.ID })
		if index < 0 {
			c.putTask(a, fake)
			continue
		}
		c.changeTask(a.tasks[index], fake)
	}
	c.touch(appID)
	return nil
}

func (c *Cluster) putTask(a *app, fake FakeTask) {
	t := &task{
		app: a.id, def: a.def, version: a.def.Version, agent: &c.options.Agents[0], fake: true,
		state: stateStaging, stagedAt: time.Now(), health: make([]health, len(a.def.HealthChecks)),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.id, t.instanceID = c.taskIDs(a.id)
	if fake.ID != "" {
		t.id, t.instanceID = fake.ID, fake.ID
	}
	c.load[t.agent.ID]++
	c.byID[t.id] = t
	a.tasks = append(a.tasks, t)
	c.changeTask(t, fake)
}

// changeTask makes a task what the fake says, with the events of the change.
func (c *Cluster) changeTask(t *task, fake FakeTask) {
	if fake.Host != "" && fake.Host != t.agent.Hostname {
		agent := *t.agent
		agent.Hostname = fake.Host
		t.agent = &agent
	}
	fallback(&fake.State, stateRunning)
	t.ports = append([]int{}, fake.Ports...)
	t.ips = fake.Addresses
	if fake.Version != "" {
		t.version = fake.Version
	}
	t.startedAt = fake.StartedAt
	t.placed = nil
	for i, port := range t.def.ports() {
		placed := placedPort{port: port, container: port.containerPort}
		if i < len(t.ports) {
			placed.given = t.ports[i]
		}
		t.placed = append(t.placed, placed)
	}
	t.killing = fake.State == stateKilling
	if t.startedAt.IsZero() && t.active() {
		t.startedAt = time.Now()
	}
	c.setState(t, fake.State, "")
	for i := range t.health {
		var verdict *bool
		if i < len(fake.Health) {
			verdict = fake.Health[i]
		}
		c.setHealth(t, i, verdict)
	}
}

// setHealth gives a check's result; nil is none.
func (c *Cluster) setHealth(t *task, index int, alive *bool) {
	before := t.health[index]
	if alive == nil {
		t.health[index] = health{}
		return
	}
	now := time.Now()
	result := &t.health[index]
	result.known, result.alive = true, *alive
	if *alive {
		result.lastSuccess, result.consecutiveFailures = now, 0
		if result.firstSuccess.IsZero() {
			result.firstSuccess = now
		}
	} else {
		result.lastFailure, result.lastFailureCause = now, "ConnectionAttemptFailed"
		result.consecutiveFailures++
	}
	if !before.known || before.alive != *alive {
		c.publishHealth(t, *alive)
	}
}

// SetState moves a task of any app to a state, with the events of that. A
// process goes with the last state of its task, and is not touched by others.
func (c *Cluster) SetState(taskID, state string) error {
	return c.changeTaskByID(taskID, func(t *task) { c.setState(t, state, "") })
}

// SetHealth gives the results of all health checks of a task, with the events
// of that; nil is no result.
func (c *Cluster) SetHealth(taskID string, alive *bool) error {
	return c.changeTaskByID(taskID, func(t *task) {
		for i := range t.health {
			c.setHealth(t, i, alive)
		}
	})
}

func (c *Cluster) changeTaskByID(taskID string, change func(*task)) error {
	c.mu.Lock()
	defer c.unlock()
	t := c.findTask(taskID)
	if t == nil {
		return fmt.Errorf("task %q does not exist", taskID)
	}
	change(t)
	c.touch(t.app)
	return nil
}

func (c *Cluster) findTask(id string) *task {
	return c.byID[id]
}
