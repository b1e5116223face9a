package marathon

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/test/marathon/process"
)

// The states of a task that the emulator itself puts it into.
const (
	stateStaging  = "TASK_STAGING"
	stateStarting = "TASK_STARTING"
	stateRunning  = "TASK_RUNNING"
	stateKilling  = "TASK_KILLING"
	stateKilled   = "TASK_KILLED"
	stateFailed   = "TASK_FAILED"
	stateFinished = "TASK_FINISHED"
)

func terminal(state string) bool {
	switch state {
	case stateKilled, stateFailed, stateFinished, "TASK_ERROR", "TASK_GONE", "TASK_DROPPED":
		return true
	}
	return false
}

// task is one copy of an app; all of it belongs to the cluster's lock.
type task struct {
	id, instanceID string
	app            string
	def            *Definition
	version        string
	agent          *Agent
	ports          []int // host ports, as Marathon lists them
	placed         []placedPort
	ips            []netip.Addr
	held           []hostPort
	claims         []*process.Claim
	reserved       []*process.Reservation // of its own addresses
	state          string
	stagedAt       time.Time
	startedAt      time.Time
	health         []health
	readiness      *readinessResult
	notReady       bool // has a readiness check that has not passed
	killing        bool
	unhealthy      bool // killed for failing health checks
	observed       bool
	fake           bool            // put by the caller
	ctx            context.Context // ends with the task
	cancel         context.CancelFunc
	proc           *process.Process
	env            map[string]string
}

// placedPort is a port of the definition with what a task was given for it.
type placedPort struct {
	port
	given     int // host port, 0 for none
	container int // 0 in host networking
	reserved  *process.Reservation
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// taskIDs makes a new task's id and its instance's.
func (c *Cluster) taskIDs(app string) (id, instance string) {
	name := strings.ReplaceAll(strings.TrimPrefix(app, "/"), "/", "_")
	if !c.release.networksField() {
		id = name + "." + newUUID()
		if c.release.instances() {
			return id, strings.Replace(id, name+".", name+".marathon-", 1)
		}
		return id, id
	}
	instance = name + ".instance-" + newUUID()
	if c.release.taskSuffix() {
		return instance + "._app.1", instance
	}
	return instance, instance
}

type ipAddress struct {
	IPAddress string `json:"ipAddress"`
	Protocol  string `json:"protocol"`
}

func (t *task) ipAddresses() []ipAddress {
	addresses := []ipAddress{}
	for _, ip := range t.ips {
		protocol := "IPv4"
		if ip.Is6() {
			protocol = "IPv6"
		}
		addresses = append(addresses, ipAddress{ip.String(), protocol})
	}
	return addresses
}

// active: neither gone nor lost from sight; only then does Marathon list ports.
func (t *task) active() bool {
	return !terminal(t.state) && t.state != "TASK_UNREACHABLE" && t.state != "TASK_UNKNOWN" && t.state != "TASK_LOST"
}

// healthy is Marathon's verdict: unknown until a check has a result.
func (t *task) healthy() (alive, known bool) {
	alive = true
	for _, result := range t.health {
		if result.known {
			known = true
			alive = alive && result.alive
		}
	}
	return alive && known, known
}

// ready says whether a deployment may count on the task.
func (t *task) ready() bool {
	if t.state != stateRunning || t.notReady {
		return false
	}
	for _, result := range t.health {
		if !result.known || !result.alive {
			return false
		}
	}
	return true
}

// taskDocument is a task's JSON.
type taskDocument struct {
	IPAddresses        []ipAddress       `json:"ipAddresses"`
	StagedAt           string            `json:"stagedAt,omitempty"`
	State              string            `json:"state"`
	Ports              []int             `json:"ports"`
	StartedAt          string            `json:"startedAt,omitempty"`
	Version            string            `json:"version,omitempty"`
	ID                 string            `json:"id"`
	AppID              string            `json:"appId"`
	SlaveID            string            `json:"slaveId"`
	Host               string            `json:"host"`
	HealthCheckResults *[]healthDocument `json:"healthCheckResults,omitempty"`
	ServicePorts       *[]int            `json:"servicePorts,omitempty"`
	LocalVolumes       *[]string         `json:"localVolumes,omitempty"`
	Region             string            `json:"region,omitempty"`
	Zone               string            `json:"zone,omitempty"`
	Role               string            `json:"role,omitempty"`
}

// document renders the task; service ports are filled in by /v2/tasks only.
func (c *Cluster) taskDocument(t *task, withServicePorts bool) taskDocument {
	doc := taskDocument{
		IPAddresses: t.ipAddresses(), State: t.state, Ports: []int{},
		ID: t.id, AppID: t.app, SlaveID: t.agent.ID, Host: t.agent.Hostname,
	}
	if t.active() {
		doc.StagedAt, doc.Version, doc.Ports = timestamp(t.stagedAt), t.version, t.ports
		if !t.startedAt.IsZero() {
			doc.StartedAt = timestamp(t.startedAt)
		}
	}
	results := c.healthDocuments(t)
	servicePorts := []int{}
	if withServicePorts {
		servicePorts = t.def.servicePorts()
		if a := c.apps[t.app]; a != nil && a.def != nil {
			servicePorts = a.def.servicePorts()
		}
	}
	if c.release.networksField() {
		doc.HealthCheckResults, doc.ServicePorts, doc.LocalVolumes = &results, &servicePorts, &[]string{}
		doc.Region, doc.Zone = t.agent.Region, t.agent.Zone
		if c.release.roles() {
			doc.Role = t.def.Role
		}
		return doc
	}
	if len(results) > 0 {
		doc.HealthCheckResults = &results
	}
	if len(servicePorts) > 0 {
		doc.ServicePorts = &servicePorts
	}
	return doc
}

// view is the task as observers and tests see it.
func (t *task) view() Task {
	view := Task{
		ID: t.id, InstanceID: t.instanceID, AppID: t.app, Version: t.version, State: t.state,
		Image: t.def.image(), Labels: t.def.Labels, Env: t.env, Agent: *t.agent, Mode: t.def.mode(),
		Addresses: t.ips, StartedAt: t.startedAt,
	}
	if t.proc != nil {
		view.PID = t.proc.PID()
	}
	for _, placed := range t.placed {
		view.Ports = append(view.Ports, TaskPort{
			Name: placed.name, Protocol: placed.protocol, ContainerPort: placed.container,
			HostPort: placed.given, ServicePort: placed.servicePort,
		})
	}
	return view
}
