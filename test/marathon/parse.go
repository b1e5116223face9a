package marathon

import (
	"encoding/json"
	"errors"
	"maps"
	"path"
	"slices"
	"strings"
)

// posted is an app's document as clients send it, in the shape of any release.
type posted struct {
	Definition
	Ports     []int            `json:"ports"`
	URIs      []string         `json:"uris"`
	IPAddress *postedIPAddress `json:"ipAddress"`
}

type postedIPAddress struct {
	Labels      map[string]string `json:"labels"`
	Discovery   legacyDiscovery   `json:"discovery"`
	NetworkName string            `json:"networkName"`
}

// canonicalID makes an id absolute, in the group given.
func canonicalID(group, id string) string {
	if !strings.HasPrefix(id, "/") {
		id = group + "/" + id
	}
	return path.Clean("/" + id)
}

// parseApp reads a new app's document. group is what a relative id is in.
func (c *Cluster) parseApp(group string, body []byte) (*Definition, error) {
	fields, err := parseFields(body)
	if err != nil {
		return nil, err
	}
	return c.define(group, fields)
}

// updateApp applies an update to an app: fields it has replace the app's whole
// fields, fields that are absent or null leave them.
func (c *Cluster) updateApp(current *Definition, body []byte) (*Definition, error) {
	update, err := parseFields(body)
	if err != nil {
		return nil, err
	}
	fields := map[string]json.RawMessage{}
	mustUnmarshal(mustMarshal(current), &fields)
	delete(fields, "version")
	delete(fields, "versionInfo")
	for _, superseded := range supersededBy(update) {
		delete(fields, superseded)
	}
	for key, value := range update {
		if string(value) != "null" {
			fields[key] = value
		}
	}
	fields["id"] = mustMarshal(current.ID)
	return c.define("", fields)
}

// supersededBy lists the fields of an app that mean the same as fields of the
// update, in another release's words.
func supersededBy(update map[string]json.RawMessage) []string {
	has := func(key string) bool { raw, ok := update[key]; return ok && string(raw) != "null" }
	var fields []string
	if has("ports") && !has("portDefinitions") {
		fields = append(fields, "portDefinitions")
	}
	if has("uris") && !has("fetch") {
		fields = append(fields, "fetch")
	}
	if has("networks") {
		fields = append(fields, "portDefinitions")
	}
	if has("ipAddress") {
		fields = append(fields, "networks", "portDefinitions")
	}
	if has("container") && !has("networks") {
		var container struct {
			Docker *struct{ Network *string }
		}
		if json.Unmarshal(update["container"], &container) == nil && container.Docker != nil && container.Docker.Network != nil {
			fields = append(fields, "networks", "portDefinitions")
		}
	}
	return fields
}

func parseFields(body []byte) (map[string]json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return nil, invalidJSON(err)
	}
	if fields == nil {
		return nil, invalidJSON(&json.UnmarshalTypeError{Value: "null", Field: ""})
	}
	return fields, nil
}

// define builds a definition from a document's fields.
func (c *Cluster) define(group string, fields map[string]json.RawMessage) (*Definition, error) {
	doc := posted{Definition: Definition{
		BackoffFactor: 1.15, BackoffSeconds: 1, CPUs: 1, Instances: 1, MaxLaunchDelaySeconds: 3600, Mem: 128,
		UpgradeStrategy: UpgradeStrategy{MaximumOverCapacity: 1, MinimumHealthCapacity: 1},
		KillSelection:   "YOUNGEST_FIRST",
	}}
	if c.release.atLeast(1, 8) {
		doc.MaxLaunchDelaySeconds = 300
	}
	// A document read from Marathon and written back is welcome: what only
	// Marathon says is dropped.
	fields = maps.Clone(fields)
	for _, own := range []string{
		"tasks", "tasksStaged", "tasksRunning", "tasksHealthy", "tasksUnhealthy", "deployments", "versionInfo", "version",
		"lastTaskFailure", "taskStats", "readinessCheckResults",
	} {
		delete(fields, own)
	}
	if err := json.Unmarshal(mustMarshal(fields), &doc); err != nil {
		return nil, invalidJSON(err)
	}
	d := &doc.Definition
	if d.ID == "" {
		return nil, invalid("/id", "undefined")
	}
	d.ID = canonicalID(group, d.ID)
	if err := doc.migrate(); err != nil {
		return nil, err
	}
	c.normalise(d)
	if err := validate(d); err != nil {
		return nil, err
	}
	return d, nil
}

// migrate turns what Marathon 1.4 and earlier accepted into 1.5's fields.
func (doc *posted) migrate() error {
	d := &doc.Definition
	if doc.URIs != nil && d.Fetch == nil {
		for _, uri := range doc.URIs {
			d.Fetch = append(d.Fetch, mustMarshal(map[string]any{
				"uri": uri, "extract": true, "executable": false, "cache": false,
			}))
		}
	}
	if doc.Ports != nil && d.PortDefinitions == nil {
		d.PortDefinitions = []PortDefinition{}
		for _, port := range doc.Ports {
			d.PortDefinitions = append(d.PortDefinitions, PortDefinition{Port: port})
		}
	}
	legacyNetwork := ""
	if d.Container != nil && d.Container.Docker != nil {
		docker := d.Container.Docker
		legacyNetwork = docker.Network
		if docker.PortMappings != nil {
			if d.Container.PortMappings != nil {
				return invalid("/container/portMappings", "may not specify both container.docker.portMappings and container.portMappings")
			}
			d.Container.PortMappings = docker.PortMappings
		}
		docker.Network, docker.PortMappings = "", nil
	}
	if d.Networks != nil && (legacyNetwork != "" || doc.IPAddress != nil) {
		return invalid("/networks", "must be empty when ipAddress or container.docker.network is specified")
	}
	switch {
	case d.Networks != nil:
	case doc.IPAddress != nil:
		doc.migrateIPAddress()
	case legacyNetwork == "BRIDGE":
		d.Networks = []Network{{Mode: modeBridge}}
	case legacyNetwork == "USER":
		d.Networks = []Network{{Mode: modeContainer}}
	case legacyNetwork == "" || legacyNetwork == "HOST" || legacyNetwork == "NONE":
		d.Networks = []Network{{Mode: modeHost}}
	default:
		return invalid("/container/docker/network", "error.unknown.enum.literal")
	}
	return nil
}

func (doc *posted) migrateIPAddress() {
	d := &doc.Definition
	d.Networks = []Network{{Mode: modeContainer, Name: doc.IPAddress.NetworkName, Labels: doc.IPAddress.Labels}}
	if doc.IPAddress.Discovery.Ports == nil {
		return
	}
	if d.Container == nil {
		d.Container = &Container{Type: "MESOS", PortMappings: []PortMapping{}}
	}
	if len(d.Container.PortMappings) > 0 {
		return
	}
	for _, port := range doc.IPAddress.Discovery.Ports {
		d.Container.PortMappings = append(d.Container.PortMappings, PortMapping{
			ContainerPort: port.Number, Name: port.Name, Protocol: port.Protocol, Labels: port.Labels,
		})
	}
}

// normalise fills in what Marathon fills in.
func (c *Cluster) normalise(d *Definition) {
	emptyNotNull(&d.Labels)
	if c.release.roles() && d.Role == "" {
		d.Role = "*"
	}
	if d.UnreachableStrategy == nil || string(d.UnreachableStrategy) == "null" {
		d.UnreachableStrategy = json.RawMessage(`{"inactiveAfterSeconds":0,"expungeAfterSeconds":0}`)
	}
	if string(d.Residency) == "null" {
		d.Residency = nil
	}
	for i, dependency := range d.Dependencies {
		d.Dependencies[i] = canonicalID(path.Dir(d.ID), dependency)
	}
	for i := range d.Networks {
		if d.Networks[i].Mode == "" {
			d.Networks[i].Mode = modeContainer
		}
		if d.Networks[i].Mode == modeContainer && d.Networks[i].Name == "" {
			d.Networks[i].Name = c.options.DefaultNetwork
		}
	}
	c.normalisePorts(d)
	d.PortDefinitions = slices.Clone(d.PortDefinitions)
	for i := range d.HealthChecks {
		check := &d.HealthChecks[i]
		if check.Protocol != "COMMAND" && check.Port == nil && check.PortIndex == nil {
			first := 0
			check.PortIndex = &first
		}
	}
}

func (c *Cluster) normalisePorts(d *Definition) {
	if d.mode() == modeHost {
		if d.Container != nil {
			normaliseContainer(d.Container)
			d.Container.PortMappings = nil
		}
		if d.PortDefinitions == nil {
			d.PortDefinitions = []PortDefinition{{Name: "default"}}
		}
		for i := range d.PortDefinitions {
			emptyNotNull(&d.PortDefinitions[i].Labels)
			if d.PortDefinitions[i].Protocol == "" {
				d.PortDefinitions[i].Protocol = "tcp"
			}
		}
		return
	}
	d.PortDefinitions = nil
	if d.Container == nil {
		d.Container = &Container{Type: "MESOS"}
	}
	normaliseContainer(d.Container)
	any := 0
	if d.Container.PortMappings == nil {
		d.Container.PortMappings = []PortMapping{{Name: "default", HostPort: &any}}
	}
	for i := range d.Container.PortMappings {
		mapping := &d.Container.PortMappings[i]
		emptyNotNull(&mapping.Labels)
		if mapping.Protocol == "" {
			mapping.Protocol = "tcp"
		}
		if mapping.HostPort == nil && (d.mode() == modeBridge || mapping.ContainerPort == 0) {
			mapping.HostPort = &any
		}
	}
}

func normaliseContainer(container *Container) {
	if container.Type == "" {
		container.Type = "DOCKER"
	}
	emptyListNotNull(&container.Volumes)
	if container.Docker != nil {
		emptyListNotNull(&container.Docker.Parameters)
		if string(container.Docker.Credential) == "null" {
			container.Docker.Credential = nil
		}
	}
	if string(container.AppC) == "null" {
		container.AppC = nil
	}
}

// invalidJSON says what Marathon says to a body it cannot read: 400 where it is
// no JSON, 422 where it is not of the right types.
func invalidJSON(err error) *apiError {
	var wrongType *json.UnmarshalTypeError
	if !errors.As(err, &wrongType) {
		return &apiError{status: 400, body: object("message", "Invalid JSON", "details", err.Error())}
	}
	wanted := "object"
	if wrongType.Type != nil {
		wanted = jsonKind(wrongType.Type.Kind().String())
	}
	return &apiError{status: 422, body: object("message", "Invalid JSON", "details", []any{object(
		"path", "/"+strings.ReplaceAll(strings.TrimPrefix(wrongType.Field, "Definition."), ".", "/"),
		"errors", []string{"error.expected.js" + wanted})})}
}

func jsonKind(kind string) string {
	switch {
	case kind == "string" || kind == "bool":
		return strings.Replace(kind, "bool", "boolean", 1)
	case strings.HasPrefix(kind, "int") || strings.HasPrefix(kind, "float"):
		return "number"
	case kind == "slice":
		return "array"
	}
	return "object"
}
