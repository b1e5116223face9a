package watch

import (
	"net/netip"
	"time"
)

// App is a Marathon app as far as routing is concerned: whatever Marathon's
// version wrote it, its networking is already resolved to ports and addresses.
type App struct {
	// ID is absolute: "/shop/web".
	ID     string            `json:"id"`
	Labels map[string]string `json:"labels,omitempty"`
	// Env holds only the SERVICE_* variables that are plain strings: they name
	// the app for Registrator. Nothing else of the environment is kept, secrets
	// least of all.
	Env map[string]string `json:"env,omitempty"`
	// Image is the container image, empty where there is none.
	Image        string        `json:"image,omitempty"`
	Ports        []AppPort     `json:"ports,omitempty"`
	Tasks        []Task        `json:"tasks,omitempty"`
	HealthChecks []HealthCheck `json:"healthChecks,omitempty"`
	// KillGrace is how long a task in TASK_KILLING still serves.
	KillGrace time.Duration `json:"killGrace,omitempty"`
	// Version changes with every change of the app's definition.
	Version string `json:"version,omitempty"`
}

// AppPort is one of an app's ports, in the order of its definition: the index is
// the n of PORTn, mi-lb.n.* and HAPROXY_n_*.
type AppPort struct {
	Name string `json:"name,omitempty"`
	// ServicePort is the port on the edge; 0 where the app has none.
	ServicePort int `json:"servicePort,omitempty"`
	// ContainerPort is 0 in host networking.
	ContainerPort int `json:"containerPort,omitempty"`
	// Protocols as Marathon has them: "tcp", "udp" or "udp,tcp".
	Protocol string            `json:"protocol,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
}

// TCP says whether the port speaks TCP at all (udp alone does not).
func (p AppPort) TCP() bool { return p.Protocol != "udp" }

// Task is one copy of an app: running, about to run, or ended a while ago.
type Task struct {
	ID string `json:"id"`
	// Node is the agent's host name or address as Marathon has it.
	Node string `json:"node"`
	// Addresses has one entry per port of the app, the zero AddrPort where the
	// port cannot be reached from outside the task or is not known yet.
	Addresses []netip.AddrPort `json:"addresses,omitempty"`
	// State is Marathon's: "TASK_RUNNING", "TASK_KILLING", … Tasks that do not run
	// are critical; they are there so that what a registry still, or already, has
	// at their addresses is known for theirs.
	State  string `json:"state"`
	Health Health `json:"health"`
	// Reason says why Health is not passing.
	Reason    string    `json:"reason,omitempty"`
	StartedAt time.Time `json:"startedAt,omitzero"`
	// Version is that of the app's definition the task was started from.
	Version string `json:"version,omitempty"`
}

// HealthCheck is an app's, as Marathon runs it.
type HealthCheck struct {
	// Protocol is one of HTTP, HTTPS, TCP, COMMAND, MESOS_HTTP, MESOS_HTTPS, MESOS_TCP.
	Protocol string `json:"protocol"`
	Path     string `json:"path,omitempty"`
	// PortIndex is -1 where the check has none; Port then says where, if not 0.
	PortIndex              int           `json:"portIndex"`
	Port                   int           `json:"port,omitempty"`
	Interval               time.Duration `json:"interval,omitempty"`
	Timeout                time.Duration `json:"timeout,omitempty"`
	MaxConsecutiveFailures int           `json:"maxConsecutiveFailures,omitempty"`
}
