package marathon

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var (
	idSegment = regexp.MustCompile(`^(([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])\.)*([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])$`)
	portName  = regexp.MustCompile(`^[a-z0-9]([a-z0-9\-]*[a-z0-9]+)*$`)
)

// validate says what Marathon would refuse the definition for.
func validate(d *Definition) error {
	var v violations
	validateID(&v, d.ID)
	validateCommand(&v, d)
	if d.Instances < 0 {
		v.add("/instances", "got %d, expected 0 or more", d.Instances)
	}
	for name, value := range map[string]float64{"cpus": d.CPUs, "mem": d.Mem, "disk": d.Disk, "backoffSeconds": d.BackoffSeconds} {
		if value < 0 {
			v.add("/"+name, "got %v, expected 0 or more", value)
		}
	}
	if d.BackoffFactor < 1 {
		v.add("/backoffFactor", "got %v, expected 1.0 or more", d.BackoffFactor)
	}
	for name, value := range map[string]float64{
		"maximumOverCapacity": d.UpgradeStrategy.MaximumOverCapacity, "minimumHealthCapacity": d.UpgradeStrategy.MinimumHealthCapacity,
	} {
		if value < 0 || value > 1 {
			v.add("/upgradeStrategy/"+name, "got %v, expected between 0.0 and 1.0", value)
		}
	}
	validateNetworks(&v, d)
	validatePorts(&v, d)
	validateChecks(&v, d)
	for i, constraint := range d.Constraints {
		if len(constraint) < 2 || len(constraint) > 3 {
			v.add(fmt.Sprintf("/constraints(%d)", i), "Constraint definition must be an array of strings in format: <key>, <operator>[, value]")
		}
	}
	slices.Sort(v.paths)
	if err := v.error(); err != nil {
		return err
	}
	return nil
}

func validateID(v *violations, id string) {
	if id == "/" {
		v.add("/id", "Path must contain at least one path element")
		return
	}
	segments := strings.Split(strings.TrimPrefix(id, "/"), "/")
	for _, segment := range segments {
		if !idSegment.MatchString(segment) {
			v.add("/id", "must fully match regular expression '%s'", idSegment)
			break
		}
	}
	switch segments[len(segments)-1] {
	case "restart", "tasks", "versions":
		v.add("/id", "must not end with any of the following reserved keywords: restart, tasks, versions, .")
	}
}

func validateCommand(v *violations, d *Definition) {
	hasCmd := d.Cmd != nil && *d.Cmd != ""
	hasImage := d.Container != nil && (d.Container.Docker != nil || d.Container.AppC != nil)
	if !hasCmd && len(d.Args) == 0 && !hasImage {
		v.add("/", "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'.")
	}
	if hasCmd && len(d.Args) > 0 {
		v.add("/", "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'.")
	}
	if d.Container != nil && d.Container.Type == "DOCKER" && d.Container.Docker == nil {
		v.add("/container/docker", "not defined")
	}
	if d.Container != nil && d.Container.Docker != nil && d.Container.Docker.Image == "" {
		v.add("/container/docker/image", "must not be empty")
	}
}

func validateNetworks(v *violations, d *Definition) {
	modes := map[string]int{}
	for i, network := range d.Networks {
		switch network.Mode {
		case modeHost, modeBridge, modeContainer:
			modes[network.Mode]++
		default:
			v.add(fmt.Sprintf("/networks(%d)/mode", i), "error.unknown.enum.literal")
		}
		if network.Mode != modeContainer && network.Name != "" {
			v.add("/networks", "may not specify a name for %s networks", network.Mode)
		}
		if network.Mode == modeContainer && network.Name == "" {
			v.add("/networks", "container networks must specify a name")
		}
	}
	if len(modes) > 1 {
		v.add("/networks", "may not mix networking modes")
	}
	if modes[modeHost] > 1 || modes[modeBridge] > 1 {
		v.add("/networks", "may only specify a single host or container/bridge network")
	}
	if modes[modeContainer] > 1 && d.Container != nil && d.Container.Type == "DOCKER" {
		v.add("/networks", "may only specify a single container network when using the Docker container engine")
	}
}

func validatePorts(v *violations, d *Definition) {
	at, inRange := "/portDefinitions", func(where string, port int) {
		if port < 0 || port > 65535 {
			v.add(where, "got %d, expected between 0 and 65535", port)
		}
	}
	if d.mode() != modeHost {
		at = "/container/portMappings"
	}
	names := map[string]bool{}
	for i, port := range d.ports() {
		where := fmt.Sprintf("%s(%d)", at, i)
		inRange(where+"/servicePort", port.servicePort)
		inRange(where+"/containerPort", port.containerPort)
		if port.hostPort != nil {
			inRange(where+"/hostPort", *port.hostPort)
		}
		if !slices.Contains([]string{"tcp", "udp", "udp,tcp"}, port.protocol) {
			v.add(where+"/protocol", "error.unknown.enum.literal")
		}
		if port.name == "" {
			continue
		}
		if !portName.MatchString(port.name) {
			v.add(where+"/name", "must fully match regular expression '%s'", portName)
		}
		if names[port.name] {
			v.add(at, "Port names must be unique.")
		}
		names[port.name] = true
	}
	if d.Container == nil {
		return
	}
	for i, mapping := range d.Container.PortMappings {
		for _, name := range mapping.NetworkNames {
			if !slices.Contains(d.networkNames(), name) {
				v.add(fmt.Sprintf("%s(%d)/networkNames", at, i), "must be one of the networks of the app")
			}
		}
	}
}

func validateChecks(v *violations, d *Definition) {
	protocols := []string{"HTTP", "HTTPS", "TCP", "COMMAND", "MESOS_HTTP", "MESOS_HTTPS", "MESOS_TCP"}
	for i, check := range d.HealthChecks {
		where := fmt.Sprintf("/healthChecks(%d)", i)
		if !slices.Contains(protocols, check.Protocol) {
			v.add(where+"/protocol", "error.unknown.enum.literal")
		}
		if check.Protocol == "COMMAND" && check.Command == nil {
			v.add(where, "COMMAND health checks must have a command")
		}
		if check.Protocol != "COMMAND" && check.Command != nil {
			v.add(where, "Health check protocol must be COMMAND if command is defined")
		}
		if check.PortIndex != nil && check.Port == nil && check.Protocol != "COMMAND" &&
			(*check.PortIndex < 0 || *check.PortIndex >= len(d.ports())) {
			v.add(where+"/portIndex", "Health check port indices must address an element of the ports array or container port mappings.")
		}
		if check.IntervalSeconds < 0 || check.TimeoutSeconds < 0 || check.GracePeriodSeconds < 0 || check.MaxConsecutiveFailures < 0 {
			v.add(where, "got a negative number, expected 0 or more")
		}
	}
	if len(d.ReadinessChecks) > 1 {
		v.add("/readinessChecks", "got %d elements, expected at most 1", len(d.ReadinessChecks))
	}
	for i, check := range d.ReadinessChecks {
		if !slices.ContainsFunc(d.ports(), func(p port) bool { return p.name == check.PortName }) {
			v.add(fmt.Sprintf("/readinessChecks(%d)", i), "portName must be the name of one of the app's ports")
		}
	}
}
