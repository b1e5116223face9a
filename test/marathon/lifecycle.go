package marathon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/test/marathon/process"
)

// launch starts one more task of the app's target. The error says why no agent
// can take it now.
func (c *Cluster) launch(a *app) error {
	agent, err := c.chooseAgent(a)
	if err != nil {
		return err
	}
	t := &task{
		app: a.id, def: a.target, version: a.target.Version, agent: agent,
		ports: []int{}, state: stateStaging, stagedAt: time.Now(),
		health: make([]health, len(a.target.HealthChecks)),
	}
	t.id, t.instanceID = c.taskIDs(a.id)
	if err := c.place(t); err != nil {
		return err
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.env = c.environment(t)
	a.tasks = append(a.tasks, t)
	c.load[agent.ID]++
	c.byID[t.id] = t
	c.touch(a.id)
	c.publishStatus(t, "")
	if c.options.Runner != nil {
		c.launchRemote(t)
		return nil
	}
	if c.options.Fake {
		c.afterFakeDelay(func() { c.runFake(t) })
		return nil
	}
	c.background.Go(func() { c.run(t) })
	return nil
}

// afterFakeDelay runs f with the lock held, at once if there is no delay.
func (c *Cluster) afterFakeDelay(f func()) {
	if c.options.FakeDelay == 0 {
		f()
		return
	}
	time.AfterFunc(c.options.FakeDelay, func() {
		c.mu.Lock()
		defer c.unlock()
		f()
	})
}

// runFake makes a fake task run, healthy.
func (c *Cluster) runFake(t *task) {
	if t.killing || terminal(t.state) {
		return
	}
	c.setState(t, stateStarting, "")
	c.setState(t, stateRunning, "")
	for i := range t.health {
		t.health[i] = health{known: true, alive: true, firstSuccess: time.Now(), lastSuccess: time.Now()}
	}
	if len(t.health) > 0 {
		c.publishHealth(t, true)
	}
}

// run runs a task as a process from its start to its end.
func (c *Cluster) run(t *task) {
	proc, err := c.startProcess(t)
	if err != nil {
		c.mu.Lock()
		defer c.unlock()
		state := stateFailed
		if t.killing {
			state = stateKilled
		}
		c.setState(t, state, err.Error())
		return
	}
	c.mu.Lock()
	t.proc = proc
	if t.killing || c.closed {
		proc.Kill()
	} else {
		t.forward()
		c.setState(t, stateStarting, "")
		c.setState(t, stateRunning, "")
		c.watchHealth(t)
	}
	c.unlock()

	exit := proc.Exit()
	c.mu.Lock()
	defer c.unlock()
	switch {
	case t.killing:
		c.setState(t, stateKilled, "Command terminated with signal Terminated")
	case exit.Code == 0:
		c.setState(t, stateFinished, "Command exited with status 0")
	default:
		c.setState(t, stateFailed, fmt.Sprintf("Command exited with status %d", exit.Code))
	}
}

func (c *Cluster) startProcess(t *task) (*process.Process, error) {
	argv, err := commandOf(t.def)
	if err != nil {
		return nil, err
	}
	sandbox := filepath.Join(c.dir, t.id)
	if err := os.MkdirAll(sandbox, 0o755); err != nil {
		return nil, fmt.Errorf("create sandbox: %w", err)
	}
	output, err := os.Create(filepath.Join(sandbox, "stdout"))
	if err != nil {
		return nil, fmt.Errorf("create sandbox: %w", err)
	}
	defer output.Close() // the process has its own copy
	spec := process.Spec{Argv: argv, Dir: sandbox, Output: output, Env: []string{
		"MESOS_SANDBOX=" + sandbox, "MESOS_DIRECTORY=" + sandbox, "HOME=" + sandbox,
	}}
	for _, inherited := range []string{"PATH", "LANG", "TZ"} {
		if value, ok := os.LookupEnv(inherited); ok {
			spec.Env = append(spec.Env, inherited+"="+value)
		}
	}
	for _, name := range sortedKeys(t.env) {
		spec.Env = append(spec.Env, name+"="+t.env[name])
	}
	if len(t.ips) > 0 {
		spec.Address = t.ips[0]
	}
	proc, err := process.Start(spec)
	if errors.Is(err, process.ErrIsolation) {
		return nil, fmt.Errorf("%s networking cannot be emulated: %w; run the emulator as root, or give the app host networking", t.def.mode(), err)
	}
	return proc, err
}

func commandOf(d *Definition) ([]string, error) {
	switch {
	case d.Cmd != nil && *d.Cmd != "":
		return []string{"/bin/sh", "-c", *d.Cmd}, nil
	case len(d.Args) > 0 && d.image() == "":
		return d.Args, nil
	}
	return nil, fmt.Errorf("the emulator runs no images (%q): give the app a cmd", d.image())
}

// environment is what Marathon and Mesos put into a task's.
func (c *Cluster) environment(t *task) map[string]string {
	env := map[string]string{
		"MARATHON_APP_ID":            t.app,
		"MARATHON_APP_VERSION":       t.version,
		"MARATHON_APP_RESOURCE_CPUS": decimal(t.def.CPUs),
		"MARATHON_APP_RESOURCE_MEM":  decimal(t.def.Mem),
		"MARATHON_APP_RESOURCE_DISK": decimal(t.def.Disk),
		"MARATHON_APP_RESOURCE_GPUS": strconv.Itoa(t.def.GPUs),
		"MESOS_TASK_ID":              t.id,
		"HOST":                       t.agent.Hostname,
		"MESOS_CONTAINER_IP":         t.agent.Address.String(),
	}
	if t.def.image() != "" {
		env["MARATHON_APP_DOCKER_IMAGE"] = t.def.image()
	}
	if len(t.ips) > 0 {
		env["MESOS_CONTAINER_IP"] = t.ips[0].String()
	}
	var labels []string
	for _, key := range sortedKeys(t.def.Labels) {
		name := strings.Map(func(r rune) rune {
			if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
				return r
			}
			return '_'
		}, strings.ToUpper(key))
		labels = append(labels, name)
		env["MARATHON_APP_LABEL_"+name] = t.def.Labels[key]
	}
	env["MARATHON_APP_LABELS"] = strings.Join(labels, " ")
	var numbers []string
	for i, placed := range t.placed {
		number := placed.given
		if number == 0 {
			number = placed.container
		}
		text := strconv.Itoa(number)
		numbers = append(numbers, text)
		env["PORT"+strconv.Itoa(i)] = text
		asked := placed.containerPort
		if t.def.mode() == modeHost {
			asked = placed.servicePort
		}
		if asked != 0 {
			env["PORT_"+strconv.Itoa(asked)] = text
		}
		if placed.name != "" {
			env["PORT_"+strings.ToUpper(strings.ReplaceAll(placed.name, "-", "_"))] = text
		}
	}
	if len(numbers) > 0 {
		env["PORT"], env["PORTS"] = numbers[0], strings.Join(numbers, ",")
	}
	for name, value := range t.def.plainEnv() {
		env[name] = value
	}
	// What the kernel would refuse cannot come from a real agent either.
	for name, value := range env {
		if strings.Contains(name+value, "\x00") {
			delete(env, name)
		}
	}
	return env
}

func decimal(f float64) string { return strconv.FormatFloat(f, 'f', 1, 64) }

// kill asks a task to end, and makes it after its grace period.
func (c *Cluster) kill(t *task) {
	if t.killing || terminal(t.state) {
		return
	}
	t.killing = true
	c.touch(t.app)
	if t.state == stateRunning && !c.options.DisableTaskKilling {
		c.setState(t, stateKilling, "")
	}
	switch {
	case t.proc != nil:
		grace := 3 * time.Second // Mesos's
		if t.def.TaskKillGracePeriodSeconds != nil {
			grace = seconds(*t.def.TaskKillGracePeriodSeconds)
		}
		t.proc.Terminate()
		timer := time.AfterFunc(grace, t.proc.Kill)
		context.AfterFunc(t.ctx, func() { timer.Stop() })
	case c.options.Runner != nil:
		c.killRemote(t)
	case t.fake || c.options.Fake:
		c.afterFakeDelay(func() { c.setState(t, stateKilled, "") })
	}
	// Otherwise its process is just being started, and run sees to it.
}

// setState moves a task to a state, says so, and clears up behind the last one.
func (c *Cluster) setState(t *task, state, message string) {
	if terminal(t.state) || t.state == state {
		return
	}
	before := t.state
	t.state = state
	if state == stateRunning && t.startedAt.IsZero() {
		t.startedAt = time.Now()
	}
	c.log.Info("task", "app", t.app, "task", t.id, "state", state, "message", message)
	c.publishStatus(t, message)
	c.touch(t.app)
	if state == stateRunning && !t.observed {
		t.observed = true
		c.observe(Observer.TaskStarted, t.view())
	}
	if !terminal(state) {
		return
	}
	t.cancel()
	c.giveBack(t)
	c.load[t.agent.ID]--
	delete(c.byID, t.id)
	if t.proc != nil {
		t.proc.Kill() // it has ended, unless it was declared to have
	}
	if t.observed {
		c.observe(Observer.TaskStopped, t.view())
	}
	a := c.apps[t.app]
	if a == nil {
		return
	}
	a.tasks = slices.DeleteFunc(a.tasks, func(other *task) bool { return other == t })
	if state != stateKilled {
		a.lastFailure = &taskFailure{
			AppID: t.app, Host: t.agent.Hostname, Message: message, State: state, TaskID: t.id,
			Timestamp: timestamp(time.Now()), Version: t.version, SlaveID: t.agent.ID,
		}
	}
	if state != stateKilled && before != stateKilling || t.unhealthy {
		c.backOff(a, t)
	}
}
