package cluster

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/mi-lb/mi-lb/provision/inventory"
)

// machineAddress is s as an address that a machine can have on a network.
func machineAddress(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	if err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

var nodeName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)

// publishedGossipKey is the one that the original platform shipped, in public.
const publishedGossipKey = "xlPbHYLp8khl1qkmrKnU8w=="

// validate refuses what cannot work.
func (r *reader) validate(c *Cluster) {
	for _, d := range c.Datacenters {
		r.quorums(d)
		r.needs(d)
	}
	r.addresses(c)
	lower := map[string]*Node{}
	for _, n := range c.Nodes() {
		if !nodeName.MatchString(n.Name) {
			r.refuse(n.At, "node-name", "%q is no name of a node: letters, digits, dots, - and _, at most 63", n.Name)
		}
		if other, ok := lower[strings.ToLower(n.Name)]; ok {
			r.refuse(n.At, "node-name", "%s and %s (%s) are one name to Consul and DNS", n.Name, other.Name, other.At)
		}
		lower[strings.ToLower(n.Name)] = n
		if n.Connection.Local && len(c.Nodes()) > 1 {
			r.odd(n.At, "local", "host %s is the machine that mi-lb runs on (ansible_connection=local)", n.Name)
		}
		if v, _, ok := r.value(n.Host, "consul_gossip_key"); ok {
			message := "consul_gossip_key is ignored: the secrets bundle has one"
			if v.Value == any(publishedGossipKey) {
				message += "; this one has been public since 2015"
			}
			r.odd(v.At, "ignored-variable", "%s", message)
		}
	}
}

// quorums checks the numbers of servers that vote.
func (r *reader) quorums(d *Datacenter) {
	for _, kind := range []struct {
		role Role
		what string
	}{{ConsulServer, "Consul servers"}, {ZooKeeper, "ZooKeeper servers"}, {MesosMaster, "Mesos masters"}} {
		nodes := d.With(kind.role)
		n := len(nodes)
		if n == 0 {
			continue
		}
		at := nodes[n-1].At
		if group := groupFor(nodes[n-1], kind.role); group != (inventory.Position{}) {
			at = group
		}
		switch {
		case n%2 == 0 && !r.boolean(nodes[0].Host, "allow_even_control", false):
			r.refuse(at, "even-control", "datacenter %s has %d %s, which survive no more failures than %d would; take one away or add one (or set allow_even_control)", d.Name, n, kind.what, n-1)
		case n == 1:
			r.odd(at, "single-control", "datacenter %s has one of the %s only: without it, the datacenter stands still", d.Name, kind.what)
		case n > 7:
			r.odd(at, "many-control", "datacenter %s has %d %s; more than 7 make every write slower", d.Name, n, kind.what)
		}
	}
}

// groupFor is where the node is put into the group that gives it the role.
func groupFor(n *Node, role Role) inventory.Position {
	for group, roles := range rolesByGroup {
		if slices.Contains(roles, role) && !strings.HasPrefix(group, "role=") {
			if at, ok := n.Host.InGroup(group); ok {
				return at
			}
		}
	}
	at, _ := n.Host.InGroup("role=control")
	return at
}

// needs checks that what a role stands on is in its datacenter.
func (r *reader) needs(d *Datacenter) {
	for _, need := range []struct {
		role, on Role
		message  string
	}{
		{MesosMaster, ZooKeeper, "Mesos masters elect their leader by ZooKeeper"},
		{Marathon, MesosMaster, "Marathon runs on Mesos"},
		{Marathon, ZooKeeper, "Marathon keeps its state in ZooKeeper"},
		{MesosAgent, MesosMaster, "Mesos agents need a master"},
		{ConsulClient, ConsulServer, "Consul clients need a server"},
	} {
		if nodes := d.With(need.role); len(nodes) > 0 && len(d.With(need.on)) == 0 {
			r.refuse(nodes[0].At, "missing-role", "datacenter %s has %s on %s and no %s: %s of their own datacenter", d.Name, need.role, nodes[0].Name, need.on, need.message)
		}
	}
}

// addresses checks that servers have one each, and no two nodes the same.
func (r *reader) addresses(c *Cluster) {
	byAddress := map[netip.Addr]*Node{}
	byEndpoint := map[string]*Node{}
	for _, n := range c.Nodes() {
		switch {
		case n.Address.IsValid():
			if other, ok := byAddress[n.Address]; ok && (other.Datacenter == n.Datacenter || !n.Address.IsPrivate()) {
				r.refuse(n.At, "same-address", "%s and %s (%s) have the same address %s", n.Name, other.Name, other.At, n.Address)
			} else if ok && n.WANAddress == other.WANAddress {
				r.refuse(n.At, "same-address", "%s in %s and %s in %s (%s) have the same address %s; if the networks are apart, set public_ipv4", n.Name, n.Datacenter, other.Name, other.Datacenter, other.At, n.Address)
			}
			byAddress[n.Address] = n
			if n.Address.Is6() && n.Has(ZooKeeper) {
				r.refuse(n.At, "address", "the address of %s is IPv6, which Marathon does not understand in its list of ZooKeeper servers", n.Name)
			}
		case n.IsServer() && !n.Connection.Local && n.Interface == "":
			r.refuse(n.At, "no-address", "server %s has no address: set private_ipv4, or ansible_host to an address", n.Name)
		}
		if n.Connection.Local {
			continue
		}
		endpoint := fmt.Sprintf("%s port %d by %v", n.Connection.Host, max(n.Connection.Port, 22), n.Connection.Jumps)
		if other, ok := byEndpoint[endpoint]; ok {
			r.refuse(n.At, "same-machine", "%s and %s (%s) are reached at the same place, %s", n.Name, other.Name, other.At, n.Connection.Host)
		}
		byEndpoint[endpoint] = n
	}
}

// names finds misspelt groups and variables.
func (r *reader) names(inv *inventory.Inventory, read []VariableDoc) {
	known := GroupNames()
	for _, g := range inv.Groups() {
		if !slices.Contains(known, g.Name()) {
			if near := inventory.Nearest(g.Name(), known); near != "" {
				r.odd(g.At(), "misspelt-group", "group %q means nothing here; did you mean %q?", g.Name(), near)
			}
		}
	}
	var variables []string
	for _, v := range read {
		variables = append(append(variables, v.Name), v.Also...)
	}
	for _, h := range inv.Hosts() {
		for name, v := range h.Vars() {
			if len(name) < 6 || slices.Contains(variables, name) || isOriginal(name) {
				continue
			}
			if near := inventory.Nearest(name, variables); near != "" {
				r.odd(v.At, "misspelt-variable", "nothing reads the variable %q; did you mean %q?", name, near)
			}
		}
	}
}
