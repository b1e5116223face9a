package marathon

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Runner runs tasks elsewhere than on this machine: [Options.Runner]. Its calls come
// one at a time and in order, and do not hold the cluster up; what becomes of a task
// is told by [Cluster.Update].
type Runner interface {
	// Launch starts a task of a definition on its agent.
	Launch(Task, *Definition)
	// Kill ends a task, which has the grace to end by itself.
	Kill(t Task, grace time.Duration)
}

// State is what a cluster must remember to go on after a restart.
type State struct {
	Apps  []json.RawMessage `json:"apps"`
	Tasks []RemoteTask      `json:"tasks"`
}

// RemoteTask is a task that a runner has.
type RemoteTask struct {
	ID         string       `json:"id"`
	InstanceID string       `json:"instanceId"`
	App        string       `json:"app"`
	Version    string       `json:"version"`
	AgentID    string       `json:"agentId"`
	Hostname   string       `json:"hostname"`
	Address    netip.Addr   `json:"address"`
	HostPorts  []int        `json:"hostPorts"` // per port of the app, 0 for none
	IPs        []netip.Addr `json:"ips,omitempty"`
	State      string       `json:"state"`
	StagedAt   time.Time    `json:"stagedAt"`
	StartedAt  time.Time    `json:"startedAt,omitzero"`
}

// State is what there is now: apps, and tasks of theirs.
func (c *Cluster) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := State{Apps: []json.RawMessage{}, Tasks: []RemoteTask{}}
	for _, id := range sortedKeys(c.apps) {
		a := c.apps[id]
		if a.def != nil {
			s.Apps = append(s.Apps, mustMarshal(a.def))
		}
		for _, t := range a.tasks {
			remote := RemoteTask{
				ID: t.id, InstanceID: t.instanceID, App: t.app, Version: t.version, AgentID: t.agent.ID,
				Hostname: t.agent.Hostname, Address: t.agent.Address, IPs: t.ips, State: t.state,
				StagedAt: t.stagedAt, StartedAt: t.startedAt,
			}
			for _, p := range t.placed {
				remote.HostPorts = append(remote.HostPorts, p.given)
			}
			s.Tasks = append(s.Tasks, remote)
		}
	}
	return s
}

// Changed is closed with the next change of anything.
func (c *Cluster) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// restore brings back what [Cluster.State] gave. Called with the lock held, before
// anything else.
func (c *Cluster) restore(s State) error {
	for _, document := range s.Apps {
		def := new(Definition)
		if err := json.Unmarshal(document, def); err != nil {
			return fmt.Errorf("restore an app: %w", err)
		}
		def.seal(c.release)
		c.adopt(def.ID, def)
		c.apps[def.ID].target = def
		// Versions go on after those that were given.
		if at, err := time.Parse("2006-01-02T15:04:05.000Z", def.Version); err == nil && at.After(c.lastVersion) {
			c.lastVersion = at
		}
	}
	for _, remote := range s.Tasks {
		a := c.apps[remote.App]
		if a == nil {
			continue // of an app that was being deleted: the runner ends what nobody knows
		}
		t := &task{
			app: a.id, def: a.def, version: remote.Version, id: remote.ID, instanceID: remote.InstanceID,
			agent: &Agent{ID: remote.AgentID, Hostname: remote.Hostname, Address: remote.Address, Region: "primary", Zone: "a"},
			ports: []int{}, ips: remote.IPs, state: remote.State, stagedAt: remote.StagedAt, startedAt: remote.StartedAt,
			health: make([]health, len(a.def.HealthChecks)), observed: remote.State == stateRunning,
		}
		if remote.Version != a.def.Version {
			old := a.def.clone()
			old.Version, old.VersionInfo = remote.Version, &VersionInfo{LastScalingAt: remote.Version, LastConfigChangeAt: remote.Version}
			if a.def.VersionInfo != nil && remote.Version >= a.def.VersionInfo.LastConfigChangeAt {
				old.VersionInfo.LastConfigChangeAt = a.def.VersionInfo.LastConfigChangeAt
			}
			t.def = old.seal(c.release)
		}
		t.ctx, t.cancel = context.WithCancel(context.Background())
		for i, wanted := range t.def.ports() {
			p := placedPort{port: wanted, container: wanted.containerPort}
			if i < len(remote.HostPorts) && remote.HostPorts[i] != 0 {
				p.given = remote.HostPorts[i]
				t.ports = append(t.ports, p.given)
				key := hostPort{t.agent.Address, p.given}
				c.hostPorts[key] = true
				t.held = append(t.held, key)
			}
			t.placed = append(t.placed, p)
		}
		t.killing = t.state == stateKilling
		t.env = c.environment(t)
		a.tasks = append(a.tasks, t)
		c.load[t.agent.ID]++
		c.byID[t.id] = t
		if t.state == stateRunning {
			c.watchHealth(t)
		}
	}
	return nil
}

// SetAgents replaces the agents that tasks can be launched on. Tasks that run stay.
func (c *Cluster) SetAgents(agents []Agent) error {
	checked, err := Options{Agents: agents, Fake: true}.withDefaults()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.unlock()
	if len(agents) == 0 {
		checked.Agents = nil
	}
	c.options.Agents = checked.Agents
	for id := range c.apps {
		c.touch(id)
	}
	return nil
}

// Update says what became of a task that a runner has. Tasks that are not known
// are no error: the answer is false.
func (c *Cluster) Update(taskID, state, message string) bool {
	c.mu.Lock()
	defer c.unlock()
	t := c.byID[taskID]
	if t == nil {
		return false
	}
	if t.killing && state == stateFailed || t.killing && state == stateFinished {
		state = stateKilled
	}
	before := t.state
	c.setState(t, state, message)
	if state == stateRunning && before != stateRunning {
		c.watchHealth(t)
	}
	return true
}

// Known are the ids of the tasks on an agent that have not ended.
func (c *Cluster) Known(agentID string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []string
	for id, t := range c.byID {
		if t.agent.ID == agentID {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// launchRemote and killRemote tell the runner, in order and without the lock.
func (c *Cluster) launchRemote(t *task) {
	view, def := t.view(), t.def
	c.observer.add(func() { c.options.Runner.Launch(view, def) })
}

func (c *Cluster) killRemote(t *task) {
	grace := 3 * time.Second // Mesos's
	if t.def.TaskKillGracePeriodSeconds != nil {
		grace = seconds(*t.def.TaskKillGracePeriodSeconds)
	}
	view := t.view()
	c.observer.add(func() { c.options.Runner.Kill(view, grace) })
}
