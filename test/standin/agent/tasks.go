package agent

//lint:file-ignore ST1005 these are the words of Mesos.

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mi-lb/mi-lb/test/standin/wire"
)

// Labels by which an agent knows its containers after a restart.
const (
	taskLabel  = "MESOS_TASK_ID"
	agentLabel = "MESOS_AGENT_ID"
	prefix     = "mesos-"
)

// tasks are the containers that the agent runs.
type tasks struct {
	settings settings
	log      *slog.Logger
	report   func(wire.TaskStatus)

	mu      sync.Mutex
	running map[string]*container
}

type container struct {
	name   string
	status wire.TaskStatus
	killed bool
}

// docker runs the client, as Mesos does.
func (t *tasks) docker(ctx context.Context, arguments ...string) (string, error) {
	command := exec.CommandContext(ctx, t.settings.docker, append([]string{"-H", "unix://" + t.settings.socket}, arguments...)...)
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("%s: %w", strings.TrimSpace(errs.String()), err)
	}
	return strings.TrimSpace(out.String()), nil
}

// recover finds the containers of the agent that was here.
func (t *tasks) recover(ctx context.Context, agentID string) error {
	list, err := t.docker(ctx, "ps", "--all", "--no-trunc", "--filter", "label="+taskLabel, "--format", `{{.Names}} {{.Label "`+taskLabel+`"}} {{.Label "`+agentLabel+`"}}`)
	if err != nil {
		return fmt.Errorf("Failed to perform recovery: Collect failed: %w", err)
	}
	for line := range strings.Lines(list) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			continue
		}
		if fields[2] != agentID { // docker_kill_orphans
			t.log.Info("removing an orphan", "container", fields[0])
			if _, err := t.docker(ctx, "rm", "--force", fields[0]); err != nil {
				return err
			}
			continue
		}
		up, err := t.docker(ctx, "inspect", "--format", "{{.State.Running}}", fields[0])
		if err != nil || up != "true" {
			continue
		}
		c := &container{name: fields[0], status: wire.TaskStatus{TaskID: fields[1], AgentID: agentID, State: "TASK_RUNNING", Container: fields[0]}}
		t.mu.Lock()
		t.running[fields[1]] = c
		t.mu.Unlock()
		go t.wait(c)
	}
	return nil
}

// list is what runs.
func (t *tasks) list() []wire.TaskStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := []wire.TaskStatus{}
	for _, c := range t.running {
		all = append(all, c.status)
	}
	slices.SortFunc(all, func(a, b wire.TaskStatus) int { return strings.Compare(a.TaskID, b.TaskID) })
	return all
}

// launch runs a task until it ends.
func (t *tasks) launch(task wire.Task) {
	c := &container{name: prefix + uuid(), status: wire.TaskStatus{TaskID: task.ID, AgentID: task.AgentID, State: "TASK_STARTING"}}
	t.mu.Lock()
	if t.running[task.ID] != nil {
		t.mu.Unlock()
		return
	}
	t.running[task.ID] = c
	t.mu.Unlock()
	t.report(c.status)
	if err := t.start(c, task); err != nil {
		t.finish(c, "TASK_FAILED", err.Error())
		return
	}
	t.wait(c)
}

func (t *tasks) start(c *container, task wire.Task) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if task.Image == "" {
		return errors.New("the stand-in runs containers of Docker only")
	}
	image, err := t.docker(ctx, "image", "inspect", task.Image)
	if err != nil || task.ForcePull {
		if _, err := t.docker(ctx, "pull", task.Image); err != nil {
			return fmt.Errorf("Failed to launch container: Failed to run 'docker pull %s': %w", task.Image, err)
		}
		if image, err = t.docker(ctx, "image", "inspect", task.Image); err != nil {
			return fmt.Errorf("Failed to launch container: %w", err)
		}
	}
	var fields []map[string]json.RawMessage
	if err := json.Unmarshal([]byte(image), &fields); err != nil || len(fields) != 1 {
		return errors.New("Failed to launch container: Failed to parse the output of docker inspect")
	}
	if len(fields[0]["ContainerConfig"]) == 0 {
		return errors.New("Failed to launch container: Unable to find 'ContainerConfig.Entrypoint'")
	}
	arguments := []string{
		"run", "--detach", "--name", c.name, "--label", taskLabel + "=" + task.ID, "--label", agentLabel + "=" + task.AgentID,
		"--cpu-shares", strconv.Itoa(max(2, int(task.CPUs*1024))),
	}
	if task.MemoryMegabyte >= 6 {
		arguments = append(arguments, "--memory", strconv.FormatInt(int64(task.MemoryMegabyte)<<20, 10))
	}
	for _, name := range sortedKeys(task.Env) {
		arguments = append(arguments, "--env", name+"="+task.Env[name])
	}
	arguments = append(arguments, "--env", "MESOS_CONTAINER_NAME="+c.name, "--env", "MESOS_SANDBOX=/mnt/mesos/sandbox")
	if task.HostNetwork {
		arguments = append(arguments, "--net", "host")
	} else {
		arguments = append(arguments, "--net", "bridge")
		for _, p := range task.Ports {
			if p.Host != 0 {
				arguments = append(arguments, "--publish", fmt.Sprintf("%d:%d/%s", p.Host, p.Container, p.Protocol))
			}
		}
	}
	if task.Privileged {
		arguments = append(arguments, "--privileged")
	}
	for _, p := range task.Parameters {
		arguments = append(arguments, "--"+p.Key+"="+p.Value)
	}
	if task.Shell != "" {
		arguments = append(arguments, "--entrypoint", "/bin/sh", task.Image, "-c", task.Shell)
	} else {
		arguments = append(append(arguments, task.Image), task.Arguments...)
	}
	if _, err := t.docker(ctx, arguments...); err != nil {
		_, _ = t.docker(ctx, "rm", "--force", c.name) // it may have been made
		return fmt.Errorf("Failed to launch container: Failed to run 'docker run': %w", err)
	}
	address, err := t.docker(ctx, "inspect", "--format", "{{.NetworkSettings.IPAddress}}", c.name)
	if err != nil {
		return fmt.Errorf("Failed to launch container: Unable to find 'NetworkSettings.IPAddress': %w", err)
	}
	t.mu.Lock()
	c.status.State, c.status.Container, c.status.IP = "TASK_RUNNING", c.name, address
	status := c.status
	t.mu.Unlock()
	t.report(status)
	return nil
}

// wait reports the end of a container.
func (t *tasks) wait(c *container) {
	for {
		code, err := t.docker(context.Background(), "wait", c.name)
		if err != nil {
			// The engine may be away for a moment; a container that is gone is not.
			if _, gone := t.docker(context.Background(), "version"); gone == nil {
				if _, err := t.docker(context.Background(), "inspect", c.name); err != nil {
					t.finish(c, "TASK_FAILED", "the container is gone")
					return
				}
			}
			time.Sleep(500 * time.Millisecond)
			continue
		}
		if up, err := t.docker(context.Background(), "inspect", "--format", "{{.State.Running}}", c.name); err == nil && up == "true" {
			continue
		}
		if code == "0" {
			t.finish(c, "TASK_FINISHED", "Command exited with status 0")
		} else {
			t.finish(c, "TASK_FAILED", "Command exited with status "+code)
		}
		return
	}
}

func (t *tasks) finish(c *container, state, message string) {
	t.mu.Lock()
	if c.killed {
		state = "TASK_KILLED"
	}
	c.status.State, c.status.Message = state, message
	status := c.status
	delete(t.running, status.TaskID)
	t.mu.Unlock()
	t.log.Info("task ended", "task", status.TaskID, "state", state, "message", message)
	t.report(status)
	time.AfterFunc(t.settings.removeDelay, func() { _, _ = t.docker(context.Background(), "rm", "--force", c.name) })
}

// kill ends a task with a grace.
func (t *tasks) kill(k wire.Kill) {
	t.mu.Lock()
	c := t.running[k.TaskID]
	if c != nil {
		c.killed = true
	}
	t.mu.Unlock()
	if c == nil {
		t.report(wire.TaskStatus{TaskID: k.TaskID, AgentID: k.AgentID, State: "TASK_DROPPED", Message: "the agent does not know it"})
		return
	}
	if _, err := t.docker(context.Background(), "stop", "--time", strconv.Itoa(max(0, int(k.Grace))), c.name); err != nil {
		t.log.Warn("stop a container", "container", c.name, "error", err)
	}
}

func sortedKeys(m map[string]string) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func uuid() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
