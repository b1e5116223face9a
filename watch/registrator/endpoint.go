package registrator

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// endpoint is one port of a container and where it is reached.
type endpoint struct {
	// exposed is the port inside the container: the one in ids, names and
	// SERVICE_<port>_*.
	exposed int
	// declared is the port that the app's definition asked Marathon for where
	// Marathon gave it another one, 0 otherwise. It also goes by SERVICE_<port>_*.
	declared int
	protocol string
	// suffix tells the container's services apart by name where it has several.
	suffix  string
	address string
	port    int
}

// numbers are those that SERVICE_<port>_* may use for the endpoint.
func (e endpoint) numbers() []string {
	numbers := []string{strconv.Itoa(e.exposed)}
	if e.declared != 0 && e.declared != e.exposed {
		numbers = append(numbers, strconv.Itoa(e.declared))
	}
	return numbers
}

// problem is something about a container that could not be honoured.
type problem struct{ code, key, message, instead string }

// endpoints are those of the container that are to be registered, by port. The
// peer function finds the container whose network this one shares.
func endpoints(p Policy, c *Container, peer func(idOrName string) *Container) ([]endpoint, []problem) {
	if owner, ok := c.networkOf(); ok {
		return sharedEndpoints(p, c, owner, peer)
	}
	switch {
	case c.hostNetwork():
		return hostEndpoints(p, c)
	case c.HostConfig.NetworkMode == "none":
		return nil, nil
	}
	var found []endpoint
	var problems []problem
	for key := range exposedPorts(c) {
		number, protocol, err := parsePort(key)
		if err != nil {
			problems = append(problems, problem{"invalid-port", "", err.Error(), "the port is not registered"})
			continue
		}
		e := endpoint{exposed: number, protocol: protocol, suffix: strconv.Itoa(number)}
		bindings, inNetwork := c.NetworkSettings.Ports[key]
		binding, published := reachable(bindings)
		switch {
		case p.Internal:
			e.address, e.port = c.address(), number
		case published:
			e.port, _ = strconv.Atoi(binding.HostPort)
			var problem *problem
			if e.address, problem = bindingAddress(p, binding); problem != nil {
				problems = append(problems, *problem)
			}
		case !inNetwork && userDefined(c.HostConfig.NetworkMode):
			// Networks that do not publish at all (macvlan, ipvlan) are reached
			// at the container's own address.
			e.address, e.port = c.address(), number
		default:
			continue // exposed, but nobody asked for it to be published
		}
		found = append(found, e)
	}
	return sorted(found), problems
}

func exposedPorts(c *Container) map[string]struct{} {
	all := make(map[string]struct{}, len(c.Config.ExposedPorts))
	for key := range c.Config.ExposedPorts {
		all[key] = struct{}{}
	}
	for key := range c.NetworkSettings.Ports {
		all[key] = struct{}{}
	}
	return all
}

func userDefined(networkMode string) bool {
	return networkMode != "" && networkMode != "default" && networkMode != "bridge"
}

// reachable is the binding to register: the first for IPv4, else the first. A
// port published for both families may have a number of its own in each.
func reachable(bindings []PortBinding) (PortBinding, bool) {
	var first *PortBinding
	for i, b := range bindings {
		if n, err := strconv.Atoi(b.HostPort); err != nil || n < 1 || n > 65535 {
			continue
		}
		if ip, err := netip.ParseAddr(b.HostIP); b.HostIP == "" || err == nil && ip.Is4() {
			return b, true
		}
		if first == nil {
			first = &bindings[i]
		}
	}
	if first == nil {
		return PortBinding{}, false
	}
	return *first, true
}

// bindingAddress is where a published port is reached: what -ip says, else the
// address it is bound to, else the host's.
func bindingAddress(p Policy, b PortBinding) (string, *problem) {
	ip, err := netip.ParseAddr(b.HostIP)
	bound := err == nil && !ip.IsUnspecified()
	if !bound {
		return p.Address, nil
	}
	if !p.ForceAddress {
		return b.HostIP, nil
	}
	forced, err := netip.ParseAddr(p.Address)
	if ip.IsLoopback() && (err != nil || !forced.IsLoopback()) {
		return p.Address, &problem{"loopback-binding", "",
			fmt.Sprintf("port %s is published on %s only, but -ip registers it at %s, where nothing answers", b.HostPort, b.HostIP, p.Address),
			"it is registered as -ip says; publish it on that address, or ignore it with SERVICE_<port>_IGNORE=true"}
	}
	return p.Address, nil
}

// hostEndpoints are those of a container in the host's network: the ports that
// Marathon gave it if it is Marathon's, else what it exposes.
func hostEndpoints(p Policy, c *Container) ([]endpoint, []problem) {
	if isTask(c) {
		if found, problems, assigned := taskEndpoints(p, c); assigned {
			return found, problems
		}
	}
	var found []endpoint
	var problems []problem
	for key := range c.Config.ExposedPorts {
		number, protocol, err := parsePort(key)
		if err != nil {
			problems = append(problems, problem{"invalid-port", "", err.Error(), "the port is not registered"})
			continue
		}
		found = append(found, endpoint{
			exposed: number, protocol: protocol, suffix: strconv.Itoa(number), address: p.Address, port: number,
		})
	}
	return sorted(found), problems
}

// isTask says whether Marathon, or another Mesos framework, started the container.
func isTask(c *Container) bool {
	_, marathon := c.env("MARATHON_APP_ID")
	_, mesos := c.env("MESOS_TASK_ID")
	return marathon || mesos
}

// taskEndpoints are the ports that Marathon gave a task, from PORTS or PORT0,
// PORT1, …; assigned is false where it gave none. The environment does not say
// their protocol: they are taken for TCP.
func taskEndpoints(p Policy, c *Container) (found []endpoint, problems []problem, assigned bool) {
	given := taskPorts(c)
	if len(given) == 0 {
		return nil, nil, false
	}
	declared := declaredPorts(c)
	for i, text := range given {
		number, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || number < 1 || number > 65535 {
			problems = append(problems, problem{"invalid-port", "PORT" + strconv.Itoa(i),
				fmt.Sprintf("%q is not a port", text), "the port is not registered"})
			continue
		}
		e := endpoint{exposed: number, protocol: "tcp", declared: declared[number], address: p.Address, port: number}
		// A name that holds the port's number would differ from task to task.
		if e.suffix = strconv.Itoa(i); e.declared != 0 {
			e.suffix = strconv.Itoa(e.declared)
		}
		found = append(found, e)
	}
	return found, problems, true
}

func taskPorts(c *Container) []string {
	if list, ok := c.env("PORTS"); ok && strings.Trim(list, ", ") != "" {
		return strings.Split(list, ",")
	}
	var given []string
	for i := 0; ; i++ {
		port, ok := c.env("PORT" + strconv.Itoa(i))
		if !ok {
			return given
		}
		given = append(given, port)
	}
}

// declaredPorts maps the ports Marathon gave to those the app asked for, which
// Marathon hands over as PORT_<asked>=<given>.
func declaredPorts(c *Container) map[int]int {
	declared := map[int]int{}
	for _, kv := range c.Config.Env {
		name, value, _ := strings.Cut(kv, "=")
		asked, ok := strings.CutPrefix(name, "PORT_")
		if !ok {
			continue
		}
		from, err1 := strconv.Atoi(asked)
		to, err2 := strconv.Atoi(value)
		if err1 == nil && err2 == nil && from > 0 {
			declared[to] = from
		}
	}
	return declared
}

// sharedEndpoints are those of a container that lives in another one's network:
// where the other publishes the port, else at the other's own address.
func sharedEndpoints(p Policy, c *Container, owner string, peer func(string) *Container) ([]endpoint, []problem) {
	other := peer(owner)
	if other == nil {
		if len(c.Config.ExposedPorts) == 0 {
			return nil, nil
		}
		return nil, []problem{{"network-container-unknown", "",
			fmt.Sprintf("it uses the network of container %s, which does not run", shortID(owner)), "it is not registered"}}
	}
	if other.hostNetwork() {
		return hostEndpoints(p, c)
	}
	var found []endpoint
	var problems []problem
	for key := range c.Config.ExposedPorts {
		number, protocol, err := parsePort(key)
		if err != nil {
			problems = append(problems, problem{"invalid-port", "", err.Error(), "the port is not registered"})
			continue
		}
		e := endpoint{exposed: number, protocol: protocol, suffix: strconv.Itoa(number), address: other.address(), port: number}
		if binding, published := reachable(other.NetworkSettings.Ports[key]); published && !p.Internal {
			e.port, _ = strconv.Atoi(binding.HostPort)
			e.address, _ = bindingAddress(p, binding)
		}
		found = append(found, e)
	}
	return sorted(found), problems
}

// parsePort reads Docker's "80/tcp"; the protocol is tcp where it is left out.
func parsePort(key string) (number int, protocol string, err error) {
	text, protocol, _ := strings.Cut(key, "/")
	number, err = strconv.Atoi(text)
	if err != nil || number < 1 || number > 65535 {
		return 0, "", fmt.Errorf("%q is not a port", key)
	}
	return number, cmp.Or(strings.ToLower(protocol), "tcp"), nil
}

func sorted(found []endpoint) []endpoint {
	slices.SortFunc(found, func(a, b endpoint) int {
		return cmp.Or(cmp.Compare(a.exposed, b.exposed), cmp.Compare(a.protocol, b.protocol))
	})
	return found
}
