package marathon

import (
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// The actions of a deployment.
const (
	startApp   = "StartApplication"
	scaleApp   = "ScaleApplication"
	restartApp = "RestartApplication"
	stopApp    = "StopApplication"
)

type action struct {
	kind string
	app  string
}

// deployment changes apps step by step.
type deployment struct {
	id       string
	version  string
	steps    [][]action
	current  int // from 0
	entered  bool
	affected []string
	// what the root group was and is to be
	original, target map[string]*Definition
}

// plan orders the change from one set of apps to another: stop what vanishes,
// create what is new with no instances, then scale and restart, what others
// depend on first. restart names apps to restart without a change.
func plan(original, target map[string]*Definition, restart map[string]bool) [][]action {
	var steps [][]action
	var stop, start []action
	pending := map[string]action{}
	for _, id := range sortedKeys(original) {
		if target[id] == nil {
			stop = append(stop, action{stopApp, id})
		}
	}
	for _, id := range sortedKeys(target) {
		before, now := original[id], target[id]
		switch {
		case before == nil:
			start = append(start, action{startApp, id})
			pending[id] = action{scaleApp, id}
		case restart[id] || !before.sameConfig(now):
			pending[id] = action{restartApp, id}
		case before.Instances != now.Instances:
			pending[id] = action{scaleApp, id}
		}
	}
	for _, step := range [][]action{stop, start} {
		if len(step) > 0 {
			steps = append(steps, step)
		}
	}
	for len(pending) > 0 {
		var step []action
		for _, id := range sortedKeys(pending) {
			waits := slices.ContainsFunc(target[id].Dependencies, func(other string) bool {
				_, later := pending[other]
				return later && other != id
			})
			if !waits {
				step = append(step, pending[id])
			}
		}
		if len(step) == 0 { // a cycle: all at once
			for _, id := range sortedKeys(pending) {
				step = append(step, pending[id])
			}
		}
		for _, action := range step {
			delete(pending, action.app)
		}
		steps = append(steps, step)
	}
	return steps
}

// deploy makes the root group's apps be target. It refuses with 409 while other
// deployments have apps of it, unless forced; then those are given up.
func (c *Cluster) deploy(target map[string]*Definition, version string, restart map[string]bool, force bool) (*deployment, error) {
	original := c.definitions()
	d := &deployment{
		id: newUUID(), version: version, original: original, target: target,
		steps: plan(original, target, restart),
	}
	for _, step := range d.steps {
		for _, action := range step {
			if !slices.Contains(d.affected, action.app) {
				d.affected = append(d.affected, action.app)
			}
		}
	}
	if conflicts := c.deploymentsOf(d.affected...); len(conflicts) > 0 {
		if !force {
			return nil, locked(conflicts)
		}
		for _, id := range conflicts {
			c.giveUp(id)
		}
	}
	for _, id := range d.affected {
		c.adopt(id, target[id])
	}
	c.rootVersion = version
	c.publish("group_change_success", "groupId", "/", "version", version)
	c.deployments = append(c.deployments, d)
	c.touch(d.affected...)
	return d, nil
}

// adopt makes def the app's definition as the API shows it; nil deletes it.
func (c *Cluster) adopt(id string, def *Definition) {
	a := c.apps[id]
	if a == nil {
		a = &app{id: id}
		c.apps[id] = a
	}
	if a.def == def {
		return
	}
	if a.def != nil {
		for _, port := range a.def.servicePorts() {
			c.servicePorts[port]--
		}
	}
	a.def = def
	if def == nil {
		a.versions = nil
		return
	}
	for _, port := range def.servicePorts() {
		c.servicePorts[port]++
	}
	a.versions = append(a.versions, def)
	a.failures, a.launchAfter = 0, time.Time{}
}

// definitions are the apps of the root group.
func (c *Cluster) definitions() map[string]*Definition {
	apps := make(map[string]*Definition, len(c.apps))
	for id, a := range c.apps {
		if a.def != nil {
			apps[id] = a.def
		}
	}
	return apps
}

// deploymentsOf lists the deployments that have any of the apps.
func (c *Cluster) deploymentsOf(apps ...string) []string {
	ids := []string{}
	for _, d := range c.deployments {
		if slices.ContainsFunc(apps, func(id string) bool { return slices.Contains(d.affected, id) }) {
			ids = append(ids, d.id)
		}
	}
	return ids
}

// giveUp ends a deployment where it is.
func (c *Cluster) giveUp(id string) {
	c.deployments = slices.DeleteFunc(c.deployments, func(d *deployment) bool {
		if d.id != id {
			return false
		}
		c.publishDeployment("deployment_failed", d)
		return true
	})
}

// advance moves deployments on as far as their apps have come.
func (c *Cluster) advance() (moved bool) {
	for _, d := range slices.Clone(c.deployments) {
		for {
			if d.current == len(d.steps) {
				c.deployments = slices.DeleteFunc(c.deployments, func(other *deployment) bool { return other == d })
				c.publishDeployment("deployment_success", d)
				moved = true
				break
			}
			if !d.entered {
				d.entered, moved = true, true
				c.publishDeployment("deployment_info", d)
				for _, action := range d.steps[d.current] {
					c.enter(d, action)
				}
			}
			if slices.ContainsFunc(d.steps[d.current], func(a action) bool { return !c.done(a) }) {
				break
			}
			c.publishDeployment("deployment_step_success", d)
			d.current++
			d.entered, moved = false, true
		}
	}
	return moved
}

// enter gives an app the target of an action.
func (c *Cluster) enter(d *deployment, act action) {
	a := c.apps[act.app]
	if a == nil {
		return
	}
	switch act.kind {
	case startApp, stopApp:
		none := d.target[act.app]
		if none == nil {
			none = d.original[act.app]
		}
		none = none.clone()
		none.Instances = 0
		a.target = none.seal(c.release)
		if act.kind == stopApp {
			for _, t := range slices.Clone(a.tasks) {
				c.kill(t)
			}
		} else {
			for i := range a.def.HealthChecks {
				c.publish("add_health_check_event", "appId", a.id, "version", a.def.Version, "healthCheck", a.def.HealthChecks[i])
			}
		}
	default:
		a.target = d.target[act.app]
	}
	c.touch(a.id)
}

// done says whether an action has reached its end, and cleans up behind it.
func (c *Cluster) done(act action) bool {
	a := c.apps[act.app]
	switch {
	case a == nil || act.kind == startApp:
		return true
	case act.kind != stopApp:
		return a.converged()
	case len(a.tasks) > 0:
		return false
	}
	if a.def == nil {
		delete(c.apps, a.id)
		c.publish("app_terminated_event", "appId", a.id)
	}
	return true
}

type deploymentStep struct {
	Actions []map[string]any `json:"actions"`
}

func actionDocuments(step []action) []map[string]any {
	documents := []map[string]any{}
	for _, a := range step {
		documents = append(documents, map[string]any{"action": a.kind, "app": a.app})
	}
	return documents
}

func (c *Cluster) stepDocuments(d *deployment) any {
	flat := []deploymentStep{}
	nested := [][]map[string]any{}
	for _, step := range d.steps {
		flat = append(flat, deploymentStep{actionDocuments(step)})
		nested = append(nested, actionDocuments(step))
	}
	if c.release.flatSteps() {
		return flat
	}
	return nested
}

// deploymentDocument is a running deployment's JSON.
func (c *Cluster) deploymentDocument(d *deployment) json.RawMessage {
	current := []map[string]any{}
	if d.current < len(d.steps) {
		current = actionDocuments(d.steps[d.current])
		for _, document := range current {
			results := []readinessResult{}
			if a := c.apps[document["app"].(string)]; a != nil {
				results = c.readinessResults(a)
			}
			document["readinessCheckResults"] = results
		}
	}
	return object("id", d.id, "version", d.version, "affectedApps", emptyIfNil(d.affected), "affectedPods", []string{},
		"steps", c.stepDocuments(d), "currentActions", current,
		"currentStep", min(d.current+1, len(d.steps)), "totalSteps", len(d.steps))
}

func emptyIfNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// publishDeployment sends one of the deployment events; the groups of the plan
// go only to streams that want them.
func (c *Cluster) publishDeployment(kind string, d *deployment) {
	step := deploymentStep{Actions: []map[string]any{}}
	if d.current < len(d.steps) {
		step.Actions = actionDocuments(d.steps[d.current])
	}
	now := time.Now()
	steps := c.stepDocuments(d)
	light := object("id", d.id, "steps", steps, "version", d.version)
	pairs := func(plan json.RawMessage) []any {
		if kind == "deployment_success" || kind == "deployment_failed" {
			return []any{"id", d.id, "plan", plan}
		}
		return []any{"plan", plan, "currentStep", step}
	}
	groups := maps.Clone(c.groups)
	root := c.rootVersion
	c.hub.publish(event{
		kind:  kind,
		light: eventObject(kind, now, pairs(light)),
		full: func() []byte {
			plan := object("id", d.id,
				"original", groupTree("/", d.original, groups, root), "target", groupTree("/", d.target, groups, root),
				"steps", steps, "version", d.version)
			return eventObject(kind, now, pairs(plan))
		},
	})
}
