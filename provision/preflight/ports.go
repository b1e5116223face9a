package preflight

import (
	"net/netip"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/vars"
)

// Scope is on which addresses a port is.
type Scope string

// Scopes.
const (
	Everywhere Scope = "everywhere" // all addresses
	Private    Scope = "private"    // that of the datacenter
	Loopback   Scope = "loopback"
)

// Port is a port of the platform.
type Port struct {
	Component string
	Network   string // "tcp" or "udp"
	Number    int
	// Variable changes it; empty where nothing does.
	Variable string
	Scope    Scope
	// From are the nodes that must reach it; none where only the machine itself does.
	From []*cluster.Node
	// WAN are nodes of other datacenters that must reach it at the WAN address.
	WAN []*cluster.Node
}

// meets says whether a listener on an address is in the way of the port.
func (p Port) meets(taken, private netip.Addr) bool {
	switch {
	case taken.IsUnspecified() || p.Scope == Everywhere:
		return true
	case p.Scope == Private:
		return taken == private
	}
	return taken.IsLoopback()
}

// Ports are the ports that a node listens on for the platform, and who must reach
// them.
func Ports(p component.Platform, n *cluster.Node) []Port {
	d, ok := p.Cluster.Datacenter(n.Datacenter)
	if !ok {
		return nil
	}
	number := func(component, variable string, otherwise int) int {
		return vars.For(component, n).Port(variable, otherwise)
	}
	with := func(roles ...cluster.Role) []*cluster.Node {
		var all []*cluster.Node
		for _, other := range d.Nodes {
			for _, role := range roles {
				if other.Name != n.Name && other.Has(role) {
					all = append(all, other)
					break
				}
			}
		}
		return all
	}
	var all []Port
	add := func(component, network, variable string, otherwise int, scope Scope, from, wan []*cluster.Node) {
		port := otherwise
		if variable != "" {
			port = number(component, variable, otherwise)
		}
		all = append(all, Port{component, network, port, variable, scope, from, wan})
	}
	if n.Has(cluster.ZooKeeper) {
		add("zookeeper", "tcp", "zookeeper_client_port", 2181, Private, with(cluster.ZooKeeper, cluster.MesosMaster, cluster.Marathon, cluster.MesosAgent), nil)
		add("zookeeper", "tcp", "zookeeper_peer_port", 2888, Private, with(cluster.ZooKeeper), nil)
		add("zookeeper", "tcp", "zookeeper_election_port", 3888, Private, with(cluster.ZooKeeper), nil)
	}
	servers := with(cluster.ConsulServer)
	if n.Has(cluster.ConsulServer) {
		var others []*cluster.Node
		for _, dc := range p.Cluster.Datacenters {
			if dc.Name != d.Name {
				others = append(others, dc.With(cluster.ConsulServer)...)
			}
		}
		add("consul", "tcp", "", 8300, Private, with(cluster.ConsulServer, cluster.ConsulClient), others)
		add("consul", "tcp", "", 8302, Private, servers, others)
		add("consul", "udp", "", 8302, Private, nil, nil)
	}
	add("consul", "tcp", "", 8301, Private, servers, nil)
	add("consul", "udp", "", 8301, Private, nil, nil)
	add("consul", "tcp", "", 8500, Loopback, nil, nil)
	add("consul", "tcp", "", 8600, Loopback, nil, nil)
	add("consul", "udp", "", 8600, Loopback, nil, nil)
	if n.Has(cluster.MesosMaster) {
		add("mesos-master", "tcp", "mesos_master_port", 5050, Private, with(cluster.MesosMaster, cluster.MesosAgent, cluster.Marathon), nil)
	}
	if n.Has(cluster.MesosAgent) {
		add("mesos-agent", "tcp", "mesos_agent_port", 5051, Private, with(cluster.MesosMaster), nil)
	}
	if n.Has(cluster.Marathon) {
		add("marathon", "tcp", "marathon_http_port", 8080, Private, with(cluster.Marathon, cluster.Edge), nil)
	}
	if n.Has(cluster.Edge) {
		for _, address := range vars.For("edge", n).List("edge_http", []string{"0.0.0.0:80"}) {
			if at, err := netip.ParseAddrPort(address); err == nil {
				all = append(all, Port{"edge", "tcp", int(at.Port()), "edge_http", Everywhere, nil, nil})
			}
		}
		add("edge", "tcp", "edge_admin_port", 9090, Loopback, nil, nil)
	}
	return all
}
