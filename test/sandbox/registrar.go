package sandbox

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/test/marathon"
	"github.com/mi-lb/mi-lb/watch/registrator"
)

// registrar does for a Marathon emulator's tasks what Registrator does for
// containers. It decides by Registrator's own functions; only the containers are
// made up, from tasks.
type registrar struct {
	policy registrator.Policy
	agent  *consul.Agent
	log    *slog.Logger
	wake   chan struct{}

	mu         sync.Mutex
	containers map[string]*registrator.Container // by task id
}

func newRegistrar(dc Datacenter, agent *consul.Agent, log *slog.Logger) *registrar {
	return &registrar{
		policy: registrator.Policy{Host: agent.Node(), Address: dc.Address.String(), ForceAddress: true},
		agent:  agent, log: log, wake: make(chan struct{}, 1), containers: map[string]*registrator.Container{},
	}
}

// TaskStarted is the start of a container. A task without an image has none.
func (r *registrar) TaskStarted(t marathon.Task) {
	if t.Image == "" {
		return
	}
	r.mu.Lock()
	r.containers[t.ID] = container(t)
	r.mu.Unlock()
	r.notify()
}

// TaskStopped is the end of a container.
func (r *registrar) TaskStopped(t marathon.Task) {
	r.mu.Lock()
	delete(r.containers, t.ID)
	r.mu.Unlock()
	r.notify()
}

func (r *registrar) notify() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// resync is how often the agent is looked at without anything having happened: it
// may have been restarted empty.
const resync = time.Second

// run registers until the context ends.
func (r *registrar) run(ctx context.Context) {
	ticker := time.NewTicker(resync)
	defer ticker.Stop()
	failed := ""
	for {
		err := r.reconcile(ctx)
		switch {
		case err == nil:
			failed = ""
		case ctx.Err() == nil && err.Error() != failed:
			failed = err.Error()
			r.log.Warn("tasks are not registered; trying again", "agent", r.agent.Node(), "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-ticker.C:
		}
	}
}

// reconcile makes the agent's services what the containers ask for.
func (r *registrar) reconcile(ctx context.Context) error {
	r.mu.Lock()
	containers := maps.Clone(r.containers)
	r.mu.Unlock()
	described := map[string]registrator.Description{}
	for _, c := range containers {
		described[c.ShortID()] = registrator.Describe(r.policy, registrator.Observed{Container: c}, func(string) *registrator.Container { return nil })
	}
	desired := registrator.Merge(described)
	actual, err := r.read(ctx)
	if err != nil {
		return err
	}
	operations, _ := registrator.Diff(r.policy, desired, actual)
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(operations)) {
		for _, op := range operations[id] {
			switch op.Kind {
			case registrator.Register:
				registration := op.Service.Registration
				err = r.agent.RegisterService(ctx, &registration)
			case registrator.Deregister:
				err = r.agent.DeregisterService(ctx, op.ID)
			default:
				// The others are about Docker's health checks and stop signals, which
				// tasks do not have.
				err = fmt.Errorf("%s %s: no task asks for that", op.Kind, op.ID)
			}
			if err == nil {
				r.log.Info("registrar", "operation", op.Kind, "service_id", op.ID, "why", op.Why)
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (r *registrar) read(ctx context.Context) (*registrator.Actual, error) {
	query := (&api.QueryOptions{}).WithContext(ctx)
	services, err := r.agent.Client().Agent().ServicesWithFilterOpts("", query)
	if err != nil {
		return nil, fmt.Errorf("read the services of Consul agent %s: %w", r.agent.Node(), err)
	}
	checks, err := r.agent.Client().Agent().ChecksWithFilterOpts("", query)
	if err != nil {
		return nil, fmt.Errorf("read the checks of Consul agent %s: %w", r.agent.Node(), err)
	}
	actual := &registrator.Actual{Services: map[string]registrator.ActualService{}}
	for id, s := range services {
		actual.Services[id] = registrator.ActualService{
			Name: s.Service, Address: s.Address, Port: s.Port, Tags: s.Tags, Meta: s.Meta, Checks: map[string]registrator.CheckState{},
		}
	}
	for id, check := range checks {
		if s, ok := actual.Services[check.ServiceID]; ok {
			s.Checks[id] = registrator.CheckState{Status: check.Status, Output: check.Output}
		}
	}
	return actual, nil
}

// container is what Docker would say of the container that Mesos runs a task in.
func container(t marathon.Task) *registrator.Container {
	sum := sha256.Sum256([]byte(t.ID))
	id := hex.EncodeToString(sum[:])
	c := &registrator.Container{
		ID: id, Name: "/mesos-" + uuid(sum), Created: t.StartedAt.UTC().Format(time.RFC3339Nano),
		State:  registrator.State{Status: "running", Running: true, StartedAt: t.StartedAt.UTC().Format(time.RFC3339Nano)},
		Config: registrator.Config{Hostname: id[:12], Image: t.Image, ExposedPorts: map[string]struct{}{}},
	}
	for _, name := range slices.Sorted(maps.Keys(t.Env)) {
		c.Config.Env = append(c.Config.Env, name+"="+t.Env[name])
	}
	switch t.Mode {
	case "host":
		c.HostConfig.NetworkMode = "host"
		return c
	case "container/bridge":
		c.HostConfig.NetworkMode = "bridge"
	default:
		// A network whose addresses others reach, as Calico's: it publishes only
		// what has a host port.
		c.HostConfig.NetworkMode = "mesos"
	}
	c.NetworkSettings.Ports = map[string][]registrator.PortBinding{}
	for _, port := range t.Ports {
		key := strconv.Itoa(port.ContainerPort) + "/" + port.Protocol
		c.Config.ExposedPorts[key] = struct{}{}
		if port.HostPort != 0 {
			c.NetworkSettings.Ports[key] = []registrator.PortBinding{{HostIP: "0.0.0.0", HostPort: strconv.Itoa(port.HostPort)}}
		}
	}
	if len(t.Addresses) > 0 {
		c.NetworkSettings.Networks = map[string]registrator.Network{c.HostConfig.NetworkMode: {IPAddress: t.Addresses[0].String()}}
	}
	return c
}

// uuid is how Mesos names a container, here after its task.
func uuid(sum [sha256.Size]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}
