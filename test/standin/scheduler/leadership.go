package scheduler

//lint:file-ignore ST1005 these are the words of Marathon.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	emulator "github.com/mi-lb/mi-lb/test/marathon"
	"github.com/mi-lb/mi-lb/test/standin/ensemble"
	"github.com/mi-lb/mi-lb/test/standin/wire"
)

// leadership is the leader's side towards Mesos.
type leadership struct {
	member   *member
	settings settings
	log      *slog.Logger
	cluster  *emulator.Cluster
	kills    *kills
	term     context.Context // ends with the leadership

	mu     sync.Mutex
	master string // URL of the leading master that serves us; empty for none
}

// schedule keeps the framework subscribed with whoever leads the masters.
func (l *leadership) schedule(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := l.follow(ctx); err != nil && ctx.Err() == nil {
			var refused *wire.RefusedError
			if errors.As(err, &refused) && (refused.Status == http.StatusUnauthorized || refused.Status == http.StatusForbidden) {
				return fmt.Errorf("Mesos refuses the framework: %w", err)
			}
			l.log.Warn("not subscribed", "error", err)
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return nil
}

func (l *leadership) follow(ctx context.Context) error {
	dial, cancel := context.WithTimeout(ctx, time.Minute)
	session, err := ensemble.Dial(dial, l.settings.master, l.settings.sessionTimeout, l.log)
	cancel()
	if err != nil {
		return err
	}
	defer session.Close()
	for {
		members, changed, err := session.Members(l.settings.master.Path, "json.info_")
		if err != nil {
			return err
		}
		if len(members) > 0 {
			var leader wire.MasterInfo
			if err := json.Unmarshal(members[0].Data, &leader); err != nil {
				return fmt.Errorf("read %s: %w", members[0].Path, err)
			}
			stream, cancel := context.WithCancel(ctx)
			go func() {
				select {
				case <-changed:
					cancel()
				case <-session.Lost():
					cancel()
				case <-stream.Done():
				}
			}()
			err := l.subscribe(stream, leader)
			cancel()
			if err != nil && ctx.Err() == nil {
				return err
			}
			continue
		}
		select {
		case <-changed:
		case <-session.Lost():
			return errors.New("the session with the masters' ZooKeeper is over")
		case <-ctx.Done():
			return nil
		}
	}
}

func (l *leadership) subscribe(ctx context.Context, leader wire.MasterInfo) error {
	l.member.mu.Lock()
	id := l.member.framework
	l.member.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.master = ""
		l.mu.Unlock()
	}()
	return wire.Stream(ctx, leader.URL()+"/standin/framework", l.settings.login, wire.Subscribe{ID: id, Name: l.settings.name, Role: l.settings.role}, func(line wire.ToFramework) {
		switch {
		case line.Subscribed != "":
			l.log.Info("subscribed", "framework", line.Subscribed, "master", leader.PID)
			l.member.mu.Lock()
			l.member.framework = line.Subscribed
			l.member.mu.Unlock()
			l.mu.Lock()
			l.master = leader.URL()
			l.mu.Unlock()
		case line.Update != nil:
			l.update(*line.Update)
		case line.Agents != nil:
			l.agents(line.Agents)
		}
	})
}

// update passes on what became of a task; a task that nobody knows is ended.
func (l *leadership) update(u wire.TaskStatus) {
	state := u.State
	if state == "TASK_LOST" || state == "TASK_GONE_BY_OPERATOR" {
		state = "TASK_GONE"
	}
	known := l.cluster.Update(u.TaskID, state, u.Message)
	if isOver(state) {
		l.kills.ended(u.TaskID)
	}
	if !known && (state == "TASK_RUNNING" || state == "TASK_STARTING") {
		l.log.Warn("killing a task that is not known", "task", u.TaskID)
		go l.kills.kill(l.term, wire.Kill{TaskID: u.TaskID, AgentID: u.AgentID, Grace: 3})
	}
}

// agents takes the agents there are, and compares what they run with what should.
func (l *leadership) agents(all []wire.Agent) {
	var active []emulator.Agent
	for _, a := range all {
		address, err := netip.ParseAddr(a.IP)
		if err != nil {
			continue
		}
		if a.Active {
			agent := emulator.Agent{ID: a.ID, Hostname: a.Hostname, Address: address, Attributes: map[string]string{}}
			for item := range strings.SplitSeq(a.Attributes, ";") {
				if name, value, ok := strings.Cut(item, ":"); ok {
					agent.Attributes[name] = value
				}
			}
			agent.PortMin, agent.PortMax = ports(a.Resources)
			active = append(active, agent)
		}
		has := map[string]bool{}
		for _, t := range a.Tasks {
			has[t.TaskID] = true
			if t.State != "TASK_STAGING" {
				l.update(t)
			}
		}
		young := map[string]bool{}
		for _, t := range l.cluster.State().Tasks {
			// A task that was just launched may have crossed this list on its way.
			young[t.ID] = time.Since(t.StagedAt) < 10*time.Second
		}
		for _, id := range l.cluster.Known(a.ID) {
			if !has[id] && !young[id] && a.Active {
				l.cluster.Update(id, "TASK_GONE", "the agent does not have it")
				l.kills.ended(id)
			}
		}
	}
	if err := l.cluster.SetAgents(active); err != nil {
		l.log.Warn("agents", "error", err)
	}
}

// ports are the first range of ports of an agent's resources.
func ports(resources string) (first, last int) {
	for item := range strings.SplitSeq(resources, ";") {
		name, value, ok := strings.Cut(item, ":")
		if ok && strings.HasPrefix(strings.TrimSpace(name), "ports") {
			if _, err := fmt.Sscanf(strings.TrimSpace(value), "[%d-%d", &first, &last); err == nil {
				return first, last
			}
		}
	}
	return 0, 0
}

// Launch implements the emulator's Runner.
func (l *leadership) Launch(t emulator.Task, d *emulator.Definition) {
	task := wire.Task{
		ID: t.ID, AgentID: t.Agent.ID, Name: t.AppID, Image: t.Image, Env: t.Env,
		HostNetwork: t.Mode == "host", CPUs: d.CPUs, MemoryMegabyte: d.Mem, Arguments: d.Args,
	}
	if d.Cmd != nil {
		task.Shell = *d.Cmd
	}
	if d.Container != nil && d.Container.Docker != nil {
		task.ForcePull, task.Privileged = d.Container.Docker.ForcePullImage, d.Container.Docker.Privileged
		for _, raw := range d.Container.Docker.Parameters {
			var p wire.Parameter
			if json.Unmarshal(raw, &p) == nil {
				task.Parameters = append(task.Parameters, p)
			}
		}
	}
	for _, p := range t.Ports {
		for protocol := range strings.SplitSeq(p.Protocol, ",") {
			task.Ports = append(task.Ports, wire.Port{Host: p.HostPort, Container: p.ContainerPort, Protocol: protocol})
		}
	}
	if err := l.call(wire.Call{Launch: &task}); err != nil {
		l.log.Warn("launch", "task", t.ID, "error", err)
		l.cluster.Update(t.ID, "TASK_DROPPED", err.Error())
	}
}

// Kill implements the emulator's Runner.
func (l *leadership) Kill(t emulator.Task, grace time.Duration) {
	go l.kills.kill(l.term, wire.Kill{TaskID: t.ID, AgentID: t.Agent.ID, Grace: grace.Seconds()})
}

func (l *leadership) call(c wire.Call) error {
	l.mu.Lock()
	master := l.master
	l.mu.Unlock()
	if master == "" {
		return errors.New("no master serves the framework")
	}
	return wire.Post(context.Background(), master+"/standin/call", l.settings.login, c)
}
