package marathon

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/mi-lb/mi-lb/watch"
)

// networkMode is an app's, in the words of Marathon 1.5.
type networkMode string

const (
	hostMode      networkMode = "host"
	bridgeMode    networkMode = "container/bridge"
	containerMode networkMode = "container"
)

// port is one of an app's ports with what it takes to find it on a task.
type port struct {
	watch.AppPort
	// mapped ports have one of the task's ports, on the agent; the others are
	// only reached at the task's own address.
	mapped bool
	// hostPort is the one that the definition asks for; 0 for any.
	hostPort int
	// networks the port is on, of those that the app is on; empty for all.
	networks []string
}

// network reads the mode and the names of the container networks, in order.
func (c *complaints) network(o, docker object) (networkMode, []string) {
	if networks := c.objects(o, "networks"); len(networks) > 0 {
		mode := containerMode
		var names []string
		for _, n := range networks {
			switch m := c.string(n, "mode"); networkMode(m) {
			case hostMode, bridgeMode, containerMode:
				mode = networkMode(m)
			case "":
				mode = containerMode
			default:
				c.add(watch.Finding{
					Code: "invalid-document", Key: "networks.mode",
					Message: fmt.Sprintf("unknown mode %q", watch.Printable(m)),
					Instead: "treated as a container network",
				})
			}
			names = append(names, c.string(n, "name"))
		}
		return mode, names
	}
	var names []string
	ipAddress := c.object(o, "ipAddress")
	if name := c.string(ipAddress, "networkName"); name != "" {
		names = []string{name}
	}
	switch strings.ToUpper(c.string(docker, "network")) {
	case "HOST":
		return hostMode, nil
	case "BRIDGE":
		return bridgeMode, nil
	case "USER", "NONE":
		return containerMode, names
	}
	if ipAddress != nil {
		return containerMode, names
	}
	return hostMode, nil
}

// ports are the app's in the order of its definition, whichever field of
// whichever version holds them.
func (c *complaints) ports(o, container, docker object, mode networkMode) []port {
	definitions := c.portDefinitions(o)
	mappings := c.objects(container, "portMappings")
	if len(mappings) == 0 {
		mappings = c.objects(docker, "portMappings")
	}
	if mode == hostMode && (len(definitions) > 0 || len(mappings) == 0) {
		return definitions
	}
	if len(mappings) > 0 {
		return c.portMappings(mappings, mode)
	}
	if mode == containerMode {
		if discovered := c.discoveryPorts(o, definitions); len(discovered) > 0 {
			return discovered
		}
	}
	return definitions
}

func (c *complaints) portDefinitions(o object) []port {
	var ports []port
	if definitions := c.objects(o, "portDefinitions"); len(definitions) > 0 {
		for i, d := range definitions {
			number, _ := c.port(fmt.Sprintf("portDefinitions[%d].port", i), d["port"])
			p := port{AppPort: c.described(d), mapped: true}
			p.ServicePort = number
			ports = append(ports, p)
		}
		return ports
	}
	numbers, _ := c.list(o, "ports")
	for i, raw := range numbers {
		number, _ := c.port(fmt.Sprintf("ports[%d]", i), raw)
		ports = append(ports, port{AppPort: watch.AppPort{ServicePort: number, Protocol: "tcp"}, mapped: true})
	}
	return ports
}

func (c *complaints) portMappings(mappings []object, mode networkMode) []port {
	var ports []port
	for i, m := range mappings {
		key := func(field string) string { return fmt.Sprintf("portMappings[%d].%s", i, field) }
		p := port{AppPort: c.described(m)}
		p.ContainerPort, _ = c.port(key("containerPort"), m["containerPort"])
		p.ServicePort, _ = c.port(key("servicePort"), m["servicePort"])
		p.hostPort, p.mapped = c.port(key("hostPort"), m["hostPort"])
		if mode != containerMode {
			// Outside of container networks a mapping without a host port gets
			// one all the same.
			p.mapped = true
		}
		names, _ := c.list(m, "networkNames")
		for _, raw := range names {
			var name string
			if json.Unmarshal(raw, &name) == nil && name != "" {
				p.networks = append(p.networks, name)
			}
		}
		ports = append(ports, p)
	}
	return ports
}

// discoveryPorts are those of an app of Marathon before 1.5 with an address per
// task. It has no service ports of its own; if the app has others, they go with
// these in order.
func (c *complaints) discoveryPorts(o object, definitions []port) []port {
	discovery := c.object(c.object(o, "ipAddress"), "discovery")
	var ports []port
	for i, d := range c.objects(discovery, "ports") {
		p := port{AppPort: c.described(d)}
		p.ContainerPort, _ = c.port(fmt.Sprintf("ipAddress.discovery.ports[%d].number", i), d["number"])
		if i < len(definitions) {
			p.ServicePort = definitions[i].ServicePort
		}
		ports = append(ports, p)
	}
	return ports
}

// described reads what all kinds of port have in common.
func (c *complaints) described(o object) watch.AppPort {
	p := watch.AppPort{
		Name:     c.string(o, "name"),
		Protocol: strings.ToLower(c.string(o, "protocol")),
		Labels:   c.strings(o, "labels"),
	}
	switch p.Protocol {
	case "tcp", "udp", "udp,tcp":
	case "":
		p.Protocol = "tcp"
	case "tcp,udp":
		p.Protocol = "udp,tcp"
	default:
		c.add(watch.Finding{
			Code: "invalid-document", Key: "protocol",
			Message: fmt.Sprintf("unknown protocol %q", watch.Printable(p.Protocol)), Instead: "treated as tcp",
		})
		p.Protocol = "tcp"
	}
	return p
}

// addresses are where the task's ports are reached, one per port of the app;
// the zero AddrPort where that is not known. Agent is the address of the task's
// agent, invalid if it is not known.
func (d *document) addresses(t *taskDocument, agent netip.Addr) []netip.AddrPort {
	if len(d.ports) == 0 {
		return nil
	}
	positional := len(t.ports) == len(d.ports)
	all := make([]netip.AddrPort, len(d.ports))
	next := 0
	for i, p := range d.ports {
		if !p.mapped {
			if addr := d.taskAddress(t, p.networks); addr.IsValid() && p.ContainerPort != 0 {
				all[i] = netip.AddrPortFrom(addr, uint16(p.ContainerPort))
			}
			continue
		}
		number := p.hostPort
		switch {
		case positional:
			number = t.ports[i]
		case next < len(t.ports):
			number = t.ports[next]
		}
		next++
		switch {
		case number != 0 && agent.IsValid():
			all[i] = netip.AddrPortFrom(agent, uint16(number))
		case number == 0 && d.mode == containerMode && p.ContainerPort != 0:
			if addr := d.taskAddress(t, p.networks); addr.IsValid() {
				all[i] = netip.AddrPortFrom(addr, uint16(p.ContainerPort))
			}
		}
	}
	return all
}

// taskAddress is the task's own address on one of the networks, or on the
// app's first if the port names none; invalid where there is no telling.
func (d *document) taskAddress(t *taskDocument, networks []string) netip.Addr {
	candidates := t.addresses
	if len(d.networks) > 1 {
		// Marathon lists the addresses in the order of the app's networks,
		// without names. With a second address family there are more of them.
		var v4 []netip.Addr
		for _, a := range t.addresses {
			if a.Is4() {
				v4 = append(v4, a)
			}
		}
		if len(candidates) != len(d.networks) {
			candidates = v4
		}
		if len(candidates) != len(d.networks) {
			return netip.Addr{}
		}
		at := 0
		if len(networks) > 0 {
			at = slices.IndexFunc(d.networks, func(name string) bool { return slices.Contains(networks, name) })
		}
		if at < 0 {
			return netip.Addr{}
		}
		return candidates[at]
	}
	if i := slices.IndexFunc(candidates, netip.Addr.Is4); i >= 0 {
		return candidates[i]
	}
	if len(candidates) > 0 {
		return candidates[0]
	}
	return netip.Addr{}
}
