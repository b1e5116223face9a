package marathon

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"
)

// Options say what to emulate. The zero value is one Marathon 1.11 on a free
// loopback port, with one agent on 127.0.0.1, that runs apps as processes.
type Options struct {
	// Version is Marathon's, as /v2/info gives it; it decides the shapes of
	// documents and events. Default "1.11.24".
	Version string
	// Listen are the addresses of the cluster's members, the first one leads at
	// the start. Default one, "127.0.0.1:0".
	Listen []string
	// Username and Password, where set, are asked for in HTTP Basic.
	Username, Password string
	// Agents run the tasks. Default one on 127.0.0.1.
	Agents []Agent
	// Fake starts no processes: tasks run at once, on ports that nobody listens on.
	Fake bool
	// FakeDelay is how long fake tasks take to start and to stop.
	FakeDelay time.Duration
	// Runner, where set, runs the tasks on agents that are somewhere else; Close
	// leaves them running. It implies Fake.
	Runner Runner
	// Restore is what an earlier cluster with a runner had.
	Restore *State
	// Observer hears of tasks.
	Observer Observer
	// HeartbeatInterval of event streams. Default 10 s.
	HeartbeatInterval time.Duration
	// EventBuffer is how many events a stream may be behind. Default 1024.
	EventBuffer int
	// LocalPortMin and LocalPortMax bound the service ports that are assigned,
	// the upper one excluded. Default 10000 and 20000.
	LocalPortMin, LocalPortMax int
	// AllowServicePortConflicts accepts a service port that another app has, as
	// some releases do.
	AllowServicePortConflicts bool
	// DisableTaskKilling leaves out TASK_KILLING, as without
	// --enable_features task_killing.
	DisableTaskKilling bool
	// DefaultNetwork is the name of a container network that names none.
	// Default "dcos".
	DefaultNetwork string
	// ElectionHold is how long a member without a leader holds a request before
	// it answers 502. Default 2.5 s.
	ElectionHold time.Duration
	// ElectionGap is how long the cluster has no leader after an abdication over
	// HTTP. Default 200 ms.
	ElectionGap time.Duration
	// Dir gets the tasks' sandboxes. Default a temporary directory, removed by
	// Close.
	Dir string
	// Logger gets the life of tasks. Default none.
	Logger *slog.Logger
}

// Agent is a Mesos agent.
type Agent struct {
	// ID is the Mesos agent id. Default made from the position.
	ID string
	// Hostname is the tasks' host. Default the address.
	Hostname string
	// Address is where host ports are reached: a loopback address. Default
	// 127.0.0.1.
	Address netip.Addr
	// PortMin and PortMax bound the host ports offered, both included. Default
	// 31000 and 32000.
	PortMin, PortMax int
	// ContainerNetwork has the addresses of tasks in container networking, all
	// of them on loopback. Default 127.<100 + position>.0.0/16.
	ContainerNetwork netip.Prefix
	// Attributes are what constraints compare.
	Attributes map[string]string
	// Region and Zone are Mesos's fault domain.
	Region, Zone string
}

// Observer hears of tasks, one call at a time and in order, without holding the
// cluster up. Its calls may use the cluster.
type Observer interface {
	// TaskStarted is called when a task is running.
	TaskStarted(Task)
	// TaskStopped is called when a started task is gone.
	TaskStopped(Task)
}

// Task is one running copy of an app, as an [Observer] and tests see it.
type Task struct {
	ID         string
	InstanceID string
	AppID      string
	// Version is that of the definition it was started from.
	Version string
	State   string
	Image   string
	Labels  map[string]string
	// Env is the whole environment of the process but for the emulator's own.
	Env   map[string]string
	Agent Agent
	// Mode is "host", "container/bridge" or "container".
	Mode string
	// Addresses are the task's own, in bridge and container networking.
	Addresses []netip.Addr
	Ports     []TaskPort
	StartedAt time.Time
	// PID is the process group's; 0 for a fake task.
	PID int
}

// TaskPort is one port of a task, in the order of the app's definition.
type TaskPort struct {
	Name     string
	Protocol string
	// ContainerPort is 0 in host networking.
	ContainerPort int
	// HostPort is 0 where the port is not reached through the agent.
	HostPort    int
	ServicePort int
}

func (o Options) withDefaults() (Options, error) {
	fallback(&o.Version, "1.11.24")
	fallback(&o.HeartbeatInterval, 10*time.Second)
	fallback(&o.EventBuffer, 1024)
	fallback(&o.LocalPortMin, 10000)
	fallback(&o.LocalPortMax, 20000)
	fallback(&o.DefaultNetwork, "dcos")
	fallback(&o.ElectionHold, 2500*time.Millisecond)
	fallback(&o.ElectionGap, 200*time.Millisecond)
	o.Fake = o.Fake || o.Runner != nil
	if len(o.Listen) == 0 {
		o.Listen = []string{"127.0.0.1:0"}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.LocalPortMin >= o.LocalPortMax {
		return o, fmt.Errorf("service ports: %d is not below %d", o.LocalPortMin, o.LocalPortMax)
	}
	if len(o.Agents) == 0 {
		o.Agents = []Agent{{}}
	}
	agents := make([]Agent, len(o.Agents))
	for i, agent := range o.Agents {
		if !agent.Address.IsValid() {
			agent.Address = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		fallback(&agent.ID, fmt.Sprintf("96d7da70-b731-4cfb-96a7-0ee877af615d-S%d", i))
		fallback(&agent.Hostname, agent.Address.String())
		fallback(&agent.PortMin, 31000)
		fallback(&agent.PortMax, 32000)
		fallback(&agent.Region, "primary")
		fallback(&agent.Zone, "a")
		if !agent.ContainerNetwork.IsValid() {
			agent.ContainerNetwork = netip.PrefixFrom(netip.AddrFrom4([4]byte{127, byte(100 + i), 0, 0}), 16)
		}
		if err := agent.check(o.Fake); err != nil {
			return o, fmt.Errorf("agent %s: %w", agent.Hostname, err)
		}
		agents[i] = agent
	}
	o.Agents = agents
	return o, nil
}

func (a Agent) check(fake bool) error {
	if a.PortMin > a.PortMax {
		return fmt.Errorf("host ports: %d is above %d", a.PortMin, a.PortMax)
	}
	if fake {
		return nil
	}
	if !a.Address.Is4() || !a.Address.IsLoopback() {
		return fmt.Errorf("address %s is not an IPv4 loopback address", a.Address)
	}
	if !a.ContainerNetwork.Addr().IsLoopback() {
		return errors.New("container network is not on loopback")
	}
	return nil
}

func fallback[T comparable](value *T, to T) {
	var zero T
	if *value == zero {
		*value = to
	}
}
