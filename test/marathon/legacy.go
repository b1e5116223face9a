package marathon

import "encoding/json"

// legacyApp is an app's document as Marathon 1.4 and earlier wrote it: every
// field present, null where unset, ports in three places.
type legacyApp struct {
	ID                         string                     `json:"id"`
	Cmd                        *string                    `json:"cmd"`
	Args                       []string                   `json:"args"`
	User                       *string                    `json:"user"`
	Env                        map[string]json.RawMessage `json:"env"`
	Instances                  int                        `json:"instances"`
	CPUs                       float64                    `json:"cpus"`
	Mem                        float64                    `json:"mem"`
	Disk                       float64                    `json:"disk"`
	GPUs                       int                        `json:"gpus"`
	Executor                   string                     `json:"executor"`
	Constraints                [][]string                 `json:"constraints"`
	URIs                       []string                   `json:"uris"`
	Fetch                      []json.RawMessage          `json:"fetch"`
	StoreURLs                  []string                   `json:"storeUrls"`
	BackoffSeconds             float64                    `json:"backoffSeconds"`
	BackoffFactor              float64                    `json:"backoffFactor"`
	MaxLaunchDelaySeconds      float64                    `json:"maxLaunchDelaySeconds"`
	Container                  *legacyContainer           `json:"container"`
	HealthChecks               []HealthCheck              `json:"healthChecks"`
	ReadinessChecks            []ReadinessCheck           `json:"readinessChecks"`
	Dependencies               []string                   `json:"dependencies"`
	UpgradeStrategy            UpgradeStrategy            `json:"upgradeStrategy"`
	Labels                     map[string]string          `json:"labels"`
	AcceptedResourceRoles      []string                   `json:"acceptedResourceRoles"`
	IPAddress                  *legacyIPAddress           `json:"ipAddress"`
	Version                    string                     `json:"version"`
	Residency                  json.RawMessage            `json:"residency"`
	Secrets                    map[string]json.RawMessage `json:"secrets"`
	TaskKillGracePeriodSeconds *float64                   `json:"taskKillGracePeriodSeconds"`
	Ports                      []int                      `json:"ports"`
	PortDefinitions            []PortDefinition           `json:"portDefinitions"`
	RequirePorts               bool                       `json:"requirePorts"`
	VersionInfo                *VersionInfo               `json:"versionInfo"`
}

type legacyContainer struct {
	Type    string            `json:"type"`
	Volumes []json.RawMessage `json:"volumes"`
	Docker  *legacyDocker     `json:"docker,omitempty"`
}

type legacyDocker struct {
	Image          string            `json:"image"`
	Network        *string           `json:"network"`
	PortMappings   []PortMapping     `json:"portMappings"`
	Privileged     bool              `json:"privileged"`
	Parameters     []json.RawMessage `json:"parameters"`
	ForcePullImage bool              `json:"forcePullImage"`
}

// legacyIPAddress is Marathon 1.4's networking of an address per task.
type legacyIPAddress struct {
	Groups      []string          `json:"groups"`
	Labels      map[string]string `json:"labels"`
	Discovery   legacyDiscovery   `json:"discovery"`
	NetworkName *string           `json:"networkName,omitempty"`
}

type legacyDiscovery struct {
	Ports []legacyDiscoveryPort `json:"ports"`
}

type legacyDiscoveryPort struct {
	Number   int               `json:"number"`
	Name     string            `json:"name"`
	Protocol string            `json:"protocol"`
	Labels   map[string]string `json:"labels"`
}

func legacyDocument(d *Definition) legacyApp {
	app := legacyApp{
		ID: d.ID, Cmd: d.Cmd, Args: d.Args, User: d.User, Env: d.Env, Instances: d.Instances,
		CPUs: d.CPUs, Mem: d.Mem, Disk: d.Disk, GPUs: d.GPUs, Executor: d.Executor,
		Constraints: d.Constraints, URIs: []string{}, Fetch: d.Fetch, StoreURLs: []string{},
		BackoffSeconds: d.BackoffSeconds, BackoffFactor: d.BackoffFactor,
		MaxLaunchDelaySeconds: d.MaxLaunchDelaySeconds, HealthChecks: d.HealthChecks,
		ReadinessChecks: d.ReadinessChecks, Dependencies: d.Dependencies,
		UpgradeStrategy: d.UpgradeStrategy, Labels: d.Labels,
		AcceptedResourceRoles: d.AcceptedResourceRoles, Version: d.Version,
		Residency: d.Residency, Secrets: d.Secrets,
		TaskKillGracePeriodSeconds: d.TaskKillGracePeriodSeconds,
		Ports:                      d.servicePorts(), PortDefinitions: legacyPortDefinitions(d),
		RequirePorts: d.RequirePorts, VersionInfo: d.VersionInfo,
		Container: legacyContainerOf(d), IPAddress: legacyIPAddressOf(d),
	}
	for _, raw := range d.Fetch {
		var fetch struct{ URI string }
		if json.Unmarshal(raw, &fetch) == nil {
			app.URIs = append(app.URIs, fetch.URI)
		}
	}
	emptyNotNull(&app.Env)
	emptyNotNull(&app.Labels)
	emptyNotNull(&app.Secrets)
	emptyListNotNull(&app.Constraints)
	emptyListNotNull(&app.Fetch)
	emptyListNotNull(&app.HealthChecks)
	emptyListNotNull(&app.ReadinessChecks)
	emptyListNotNull(&app.Dependencies)
	return app
}

func emptyNotNull[V any](m *map[string]V) {
	if *m == nil {
		*m = map[string]V{}
	}
}

func emptyListNotNull[V any](list *[]V) {
	if *list == nil {
		*list = []V{}
	}
}

// legacyPortDefinitions: 1.4 wrote them for every networking, as far as there
// were service ports.
func legacyPortDefinitions(d *Definition) []PortDefinition {
	definitions := []PortDefinition{}
	if d.mode() == modeHost {
		return append(definitions, d.PortDefinitions...)
	}
	for _, port := range d.ports() {
		definitions = append(definitions, PortDefinition{
			Labels: map[string]string{}, Port: port.servicePort, Protocol: "tcp",
		})
	}
	return definitions
}

func legacyContainerOf(d *Definition) *legacyContainer {
	if d.Container == nil || d.Container.Docker == nil && d.mode() == modeContainer {
		return nil
	}
	container := &legacyContainer{Type: d.Container.Type, Volumes: d.Container.Volumes}
	if d.Container.Docker == nil {
		return container
	}
	container.Docker = &legacyDocker{
		Image: d.Container.Docker.Image, Privileged: d.Container.Docker.Privileged,
		Parameters: d.Container.Docker.Parameters, ForcePullImage: d.Container.Docker.ForcePullImage,
		PortMappings: []PortMapping{},
	}
	network := map[string]string{modeHost: "HOST", modeBridge: "BRIDGE", modeContainer: "USER"}[d.mode()]
	if d.Container.Type == "DOCKER" {
		container.Docker.Network = &network
		container.Docker.PortMappings = append(container.Docker.PortMappings, d.Container.PortMappings...)
	}
	return container
}

func legacyIPAddressOf(d *Definition) *legacyIPAddress {
	if d.mode() != modeContainer {
		return nil
	}
	address := &legacyIPAddress{Groups: []string{}, Labels: map[string]string{}}
	address.Discovery.Ports = []legacyDiscoveryPort{}
	for _, network := range d.Networks {
		if network.Name != "" {
			address.NetworkName = &network.Name
		}
		for key, value := range network.Labels {
			address.Labels[key] = value
		}
	}
	if d.Container != nil && d.Container.Docker != nil {
		return address // its ports are in docker.portMappings
	}
	if d.Container != nil {
		for _, mapping := range d.Container.PortMappings {
			address.Discovery.Ports = append(address.Discovery.Ports, legacyDiscoveryPort{
				Number: mapping.ContainerPort, Name: mapping.Name, Protocol: mapping.Protocol, Labels: mapping.Labels,
			})
		}
	}
	return address
}
