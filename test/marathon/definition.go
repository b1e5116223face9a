package marathon

import (
	"bytes"
	"encoding/json"
	"sync"
)

// Definition is an app as Marathon 1.5 and later have it. It is never changed
// once it is part of a cluster.
type Definition struct {
	ID                         string                     `json:"id"`
	AcceptedResourceRoles      []string                   `json:"acceptedResourceRoles,omitempty"`
	Args                       []string                   `json:"args,omitempty"`
	BackoffFactor              float64                    `json:"backoffFactor"`
	BackoffSeconds             float64                    `json:"backoffSeconds"`
	Cmd                        *string                    `json:"cmd,omitempty"`
	Constraints                [][]string                 `json:"constraints,omitempty"`
	Container                  *Container                 `json:"container,omitempty"`
	CPUs                       float64                    `json:"cpus"`
	Dependencies               []string                   `json:"dependencies,omitempty"`
	Disk                       float64                    `json:"disk"`
	Env                        map[string]json.RawMessage `json:"env,omitempty"`
	Executor                   string                     `json:"executor"`
	Fetch                      []json.RawMessage          `json:"fetch,omitempty"`
	HealthChecks               []HealthCheck              `json:"healthChecks,omitempty"`
	Instances                  int                        `json:"instances"`
	Labels                     map[string]string          `json:"labels"`
	MaxLaunchDelaySeconds      float64                    `json:"maxLaunchDelaySeconds"`
	Mem                        float64                    `json:"mem"`
	GPUs                       int                        `json:"gpus"`
	Networks                   []Network                  `json:"networks,omitempty"`
	PortDefinitions            []PortDefinition           `json:"portDefinitions,omitzero"`
	ReadinessChecks            []ReadinessCheck           `json:"readinessChecks,omitempty"`
	Residency                  json.RawMessage            `json:"residency,omitempty"`
	RequirePorts               bool                       `json:"requirePorts"`
	Role                       string                     `json:"role,omitempty"`
	Secrets                    map[string]json.RawMessage `json:"secrets,omitempty"`
	TaskKillGracePeriodSeconds *float64                   `json:"taskKillGracePeriodSeconds,omitempty"`
	TTY                        *bool                      `json:"tty,omitempty"`
	UpgradeStrategy            UpgradeStrategy            `json:"upgradeStrategy"`
	User                       *string                    `json:"user,omitempty"`
	Version                    string                     `json:"version,omitempty"`
	VersionInfo                *VersionInfo               `json:"versionInfo,omitempty"`
	KillSelection              string                     `json:"killSelection"`
	UnreachableStrategy        json.RawMessage            `json:"unreachableStrategy,omitempty"`

	rendered func() []byte // the document, rendered once
}

// Container is an app's container.
type Container struct {
	Type         string            `json:"type"`
	Docker       *Docker           `json:"docker,omitempty"`
	AppC         json.RawMessage   `json:"appc,omitempty"`
	Volumes      []json.RawMessage `json:"volumes"`
	PortMappings []PortMapping     `json:"portMappings,omitzero"`
}

// Docker is a container's image. Network and PortMappings are Marathon 1.4's.
type Docker struct {
	Credential     json.RawMessage   `json:"credential,omitempty"`
	ForcePullImage bool              `json:"forcePullImage"`
	Image          string            `json:"image"`
	Network        string            `json:"network,omitempty"`
	Parameters     []json.RawMessage `json:"parameters"`
	PortMappings   []PortMapping     `json:"portMappings,omitzero"`
	Privileged     bool              `json:"privileged"`
}

// PortMapping leads from a port of the agent to one of the container.
type PortMapping struct {
	ContainerPort int `json:"containerPort"`
	// HostPort 0 is any; nil is none, in container networking.
	HostPort     *int              `json:"hostPort,omitempty"`
	Labels       map[string]string `json:"labels"`
	Name         string            `json:"name,omitempty"`
	Protocol     string            `json:"protocol"`
	ServicePort  int               `json:"servicePort"`
	NetworkNames []string          `json:"networkNames,omitempty"`
}

// PortDefinition is a port of an app in host networking.
type PortDefinition struct {
	Labels   map[string]string `json:"labels"`
	Name     string            `json:"name,omitempty"`
	Port     int               `json:"port"`
	Protocol string            `json:"protocol"`
}

// Networking modes.
const (
	modeHost      = "host"
	modeBridge    = "container/bridge"
	modeContainer = "container"
)

// Network is one that an app joins.
type Network struct {
	Name   string            `json:"name,omitempty"`
	Mode   string            `json:"mode"`
	Labels map[string]string `json:"labels,omitempty"`
}

// HealthCheck is how an app's tasks are checked.
type HealthCheck struct {
	Command                *Command `json:"command,omitempty"`
	GracePeriodSeconds     float64  `json:"gracePeriodSeconds"`
	IgnoreHTTP1xx          bool     `json:"ignoreHttp1xx"`
	IntervalSeconds        float64  `json:"intervalSeconds"`
	MaxConsecutiveFailures int      `json:"maxConsecutiveFailures"`
	Path                   string   `json:"path,omitempty"`
	Port                   *int     `json:"port,omitempty"`
	PortIndex              *int     `json:"portIndex,omitempty"`
	Protocol               string   `json:"protocol"`
	IPProtocol             string   `json:"ipProtocol,omitempty"`
	TimeoutSeconds         float64  `json:"timeoutSeconds"`
	DelaySeconds           float64  `json:"delaySeconds"`
}

// Command is a shell command line.
type Command struct {
	Value string `json:"value"`
}

// UnmarshalJSON fills in Marathon's defaults.
func (h *HealthCheck) UnmarshalJSON(data []byte) error {
	type plain HealthCheck
	check := plain{
		GracePeriodSeconds: 300, IntervalSeconds: 60, MaxConsecutiveFailures: 3,
		Protocol: "HTTP", IPProtocol: "IPv4", TimeoutSeconds: 20, DelaySeconds: 15,
	}
	if err := json.Unmarshal(data, &check); err != nil {
		return err
	}
	*h = HealthCheck(check)
	return nil
}

// ReadinessCheck says when a task of a deployment can take traffic.
type ReadinessCheck struct {
	Name                    string  `json:"name"`
	Protocol                string  `json:"protocol"`
	Path                    string  `json:"path"`
	PortName                string  `json:"portName"`
	IntervalSeconds         float64 `json:"intervalSeconds"`
	TimeoutSeconds          float64 `json:"timeoutSeconds"`
	HTTPStatusCodesForReady []int   `json:"httpStatusCodesForReady"`
	PreserveLastResponse    bool    `json:"preserveLastResponse"`
}

// UnmarshalJSON fills in Marathon's defaults.
func (r *ReadinessCheck) UnmarshalJSON(data []byte) error {
	type plain ReadinessCheck
	check := plain{
		Name: "readinessCheck", Protocol: "HTTP", Path: "/", PortName: "http-api",
		IntervalSeconds: 30, TimeoutSeconds: 10,
	}
	if err := json.Unmarshal(data, &check); err != nil {
		return err
	}
	if check.HTTPStatusCodesForReady == nil {
		check.HTTPStatusCodesForReady = []int{200}
	}
	*r = ReadinessCheck(check)
	return nil
}

// UpgradeStrategy bounds a rolling restart; both are fractions of instances.
type UpgradeStrategy struct {
	MaximumOverCapacity   float64 `json:"maximumOverCapacity"`
	MinimumHealthCapacity float64 `json:"minimumHealthCapacity"`
}

// VersionInfo says which versions the last scaling and the last change of
// anything else were.
type VersionInfo struct {
	LastScalingAt      string `json:"lastScalingAt"`
	LastConfigChangeAt string `json:"lastConfigChangeAt"`
}

// mode is the app's networking.
func (d *Definition) mode() string {
	for _, network := range d.Networks {
		if network.Mode != modeHost {
			return network.Mode
		}
	}
	return modeHost
}

// networkNames are those of the container networks joined.
func (d *Definition) networkNames() []string {
	var names []string
	for _, network := range d.Networks {
		names = append(names, network.Name)
	}
	return names
}

// port is one of an app's ports whatever its networking.
type port struct {
	name          string
	protocol      string
	servicePort   int
	containerPort int  // 0 for the same as the host port
	hostPort      *int // 0 for any, nil for none
}

func (d *Definition) ports() []port {
	var ports []port
	if d.mode() == modeHost {
		for _, definition := range d.PortDefinitions {
			wanted := 0
			if d.RequirePorts {
				wanted = definition.Port
			}
			ports = append(ports, port{
				name: definition.Name, protocol: definition.Protocol,
				servicePort: definition.Port, hostPort: &wanted,
			})
		}
		return ports
	}
	if d.Container == nil {
		return nil
	}
	for _, mapping := range d.Container.PortMappings {
		ports = append(ports, port{
			name: mapping.Name, protocol: mapping.Protocol, servicePort: mapping.ServicePort,
			containerPort: mapping.ContainerPort, hostPort: mapping.HostPort,
		})
	}
	return ports
}

func (d *Definition) servicePorts() []int {
	ports := []int{}
	for _, port := range d.ports() {
		ports = append(ports, port.servicePort)
	}
	return ports
}

func (d *Definition) image() string {
	if d.Container != nil && d.Container.Docker != nil {
		return d.Container.Docker.Image
	}
	return ""
}

// plainEnv leaves out variables whose value is a reference to a secret.
func (d *Definition) plainEnv() map[string]string {
	env := map[string]string{}
	for name, raw := range d.Env {
		var value string
		if json.Unmarshal(raw, &value) == nil {
			env[name] = value
		}
	}
	return env
}

// configVersion changes with everything but the number of instances.
func (d *Definition) configVersion() string {
	if d.VersionInfo == nil {
		return d.Version
	}
	return d.VersionInfo.LastConfigChangeAt
}

// seal makes the definition's document be rendered once, however often it is
// asked for, in the given release's shape.
func (d *Definition) seal(r release) *Definition {
	d.rendered = sync.OnceValue(func() []byte {
		if r.networksField() {
			return mustMarshal(d)
		}
		return mustMarshal(legacyDocument(d))
	})
	return d
}

// document is the app's JSON in the shape of the cluster's release.
func (d *Definition) document() []byte { return d.rendered() }

// clone copies deeply, without versions.
func (d *Definition) clone() *Definition {
	copied := new(Definition)
	mustUnmarshal(mustMarshal(d), copied)
	return copied
}

// sameConfig says whether the two differ in instances and versions at most.
func (d *Definition) sameConfig(other *Definition) bool {
	return bytes.Equal(d.configDocument(), other.configDocument())
}

func (d *Definition) configDocument() []byte {
	config := *d
	config.Instances, config.Version, config.VersionInfo = 0, "", nil
	return mustMarshal(&config)
}

// mustMarshal renders what is known to be renderable.
func mustMarshal(value any) []byte {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic("marathon emulator: " + err.Error())
	}
	return bytes.TrimSuffix(buffer.Bytes(), []byte("\n"))
}

// mustUnmarshal parses what this package rendered.
func mustUnmarshal(data []byte, value any) {
	if err := json.Unmarshal(data, value); err != nil {
		panic("marathon emulator: " + err.Error())
	}
}
