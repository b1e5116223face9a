package cluster

import (
	"net/netip"
	"slices"

	"github.com/mi-lb/mi-lb/provision/inventory"
	"github.com/mi-lb/mi-lb/provision/redact"
)

// Role is something that a node runs.
type Role string

// Roles. Consul, Docker and Registrator follow from them: see [Node.Has].
const (
	ConsulServer Role = "consul-server"
	// ConsulClient is a Consul agent that is no server; every node with another
	// role has one, unless it is a server.
	ConsulClient Role = "consul-client"
	ZooKeeper    Role = "zookeeper"
	MesosMaster  Role = "mesos-master"
	Marathon     Role = "marathon"
	MesosAgent   Role = "mesos-agent"
	Edge         Role = "edge"
)

// Cluster is the platform: all datacenters, joined by Consul.
type Cluster struct {
	// Datacenters are in the order in which the inventory first names them.
	Datacenters []*Datacenter `json:"datacenters"`
	// Primary is the datacenter whose Consul servers own ACLs.
	Primary string `json:"primary_datacenter"`
	// Domain is where services are published: service "web" as web.<domain>.
	Domain string `json:"domain"`
}

// Nodes are all nodes of all datacenters.
func (c *Cluster) Nodes() []*Node {
	var all []*Node
	for _, d := range c.Datacenters {
		all = append(all, d.Nodes...)
	}
	return all
}

// Node is the node of that name.
func (c *Cluster) Node(name string) (*Node, bool) {
	for _, n := range c.Nodes() {
		if n.Name == name {
			return n, true
		}
	}
	return nil, false
}

// Datacenter is the datacenter of that name.
func (c *Cluster) Datacenter(name string) (*Datacenter, bool) {
	for _, d := range c.Datacenters {
		if d.Name == name {
			return d, true
		}
	}
	return nil, false
}

// Datacenter is one datacenter. It shares nothing with others but Consul's WAN pool.
type Datacenter struct {
	Name  string  `json:"name"`
	Nodes []*Node `json:"nodes"` // in the order of the inventory
	// At is where the inventory first puts a host into it.
	At inventory.Position `json:"at"`
}

// With are the datacenter's nodes that have a role.
func (d *Datacenter) With(role Role) []*Node {
	var nodes []*Node
	for _, n := range d.Nodes {
		if n.Has(role) {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// Quorum is how many of the datacenter's members of that role must agree; 0 if
// there are none.
func (d *Datacenter) Quorum(role Role) int {
	n := len(d.With(role))
	if n == 0 {
		return 0
	}
	return n/2 + 1
}

// BootstrapExpect is how many Consul servers the datacenter starts with.
func (d *Datacenter) BootstrapExpect() int { return len(d.With(ConsulServer)) }

// Node is one machine of the platform.
type Node struct {
	Name       string `json:"name"`
	Datacenter string `json:"datacenter"`
	Roles      []Role `json:"roles"` // sorted
	// Address is where the datacenter's other nodes reach it. It is invalid where
	// the inventory does not say; only nodes without a server role may leave that
	// to what is found on the machine, and machines that mi-lb runs on itself.
	Address netip.Addr `json:"address"`
	// WANAddress is where other datacenters reach it; Address if nothing else is said.
	WANAddress netip.Addr `json:"wan_address"`
	// Interface is the network interface that has the address, where the inventory
	// names that instead of an address.
	Interface string `json:"interface,omitempty"`
	// ZooKeeperID is the server's myid, 1 to 255, unique in its datacenter and
	// never changed; 0 where the node is no ZooKeeper server.
	ZooKeeperID int `json:"zookeeper_id,omitempty"`
	// MesosAttributes and MesosResources are as Mesos takes them; empty for its own.
	MesosAttributes string `json:"mesos_attributes,omitempty"`
	MesosResources  string `json:"mesos_resources,omitempty"`
	Connection      Connection
	Artefacts       map[Component]Artefact `json:"artefacts"`
	// At is where the inventory first names the host.
	At inventory.Position `json:"at"`
	// Host is the host of the inventory, for variables that a component reads.
	Host *inventory.Host `json:"-"`
}

// Has says whether a node has a role.
func (n *Node) Has(role Role) bool { return slices.Contains(n.Roles, role) }

// IsServer says whether others depend on the node's address being known before
// it is asked.
func (n *Node) IsServer() bool {
	return n.Has(ConsulServer) || n.Has(ZooKeeper) || n.Has(MesosMaster) || n.Has(Marathon)
}

// Connection says how mi-lb reaches a node.
type Connection struct {
	// Local is a node that mi-lb runs on itself.
	Local bool `json:"local,omitempty"`
	// Host is a name or address; the name of the node where nothing is said. It
	// may be an alias of the user's ssh_config.
	Host string `json:"host"`
	Port int    `json:"port,omitempty"` // 0: ssh_config's, else 22
	User string `json:"user,omitempty"` // empty: ssh_config's, else that of who runs mi-lb
	// Password logs in; empty where keys do.
	Password redact.Text `json:"-"`
	KeyFile  string      `json:"key_file,omitempty"`
	// Jumps are the hosts on the way, the first one reached first: [user@]host[:port].
	Jumps []string `json:"jumps,omitempty"`
	// ConfigFile replaces the user's ssh_config.
	ConfigFile string `json:"config_file,omitempty"`
	// HostKeys are keys that the host may have, as in known_hosts
	// ("ssh-ed25519 AAAA…"); none: those of the cluster's known_hosts.
	HostKeys []string `json:"host_keys,omitempty"`
	// Become says whether commands run by sudo.
	Become Become `json:"become"`
	// BecomePassword is what sudo asks for.
	BecomePassword redact.Text `json:"-"`
}

// Become says whether commands run by sudo.
type Become string

const (
	// BecomeAuto uses sudo unless the login is root's.
	BecomeAuto Become = "auto"
	// BecomeAlways uses sudo.
	BecomeAlways Become = "always"
	// BecomeNever does not.
	BecomeNever Become = "never"
)

// Component is a program that the platform installs.
type Component string

// Components, as the variables <component>_version and others name them.
const (
	ComponentDocker      Component = "docker"
	ComponentZooKeeper   Component = "zookeeper"
	ComponentConsul      Component = "consul"
	ComponentMesos       Component = "mesos"
	ComponentMarathon    Component = "marathon"
	ComponentRegistrator Component = "registrator"
	ComponentHAProxy     Component = "haproxy"
)

// Components are all components.
func Components() []Component {
	return []Component{ComponentDocker, ComponentZooKeeper, ComponentConsul, ComponentMesos, ComponentMarathon, ComponentRegistrator, ComponentHAProxy}
}

// Source is where a component comes from.
type Source string

const (
	// SourceDefault leaves the choice to the component.
	SourceDefault Source = ""
	// SourcePackage is the system's package manager.
	SourcePackage Source = "package"
	// SourceURL is an archive or program that the node downloads; its checksum is known.
	SourceURL Source = "url"
	// SourceFile is a file on the operator's machine, which is uploaded.
	SourceFile Source = "file"
	// SourceImage is a container image.
	SourceImage Source = "image"
	// SourcePreinstalled is nothing: somebody else installs it.
	SourcePreinstalled Source = "preinstalled"
)

// Artefact is what is installed for one component on one node.
type Artefact struct {
	Version string `json:"version,omitempty"` // empty: whatever the source has
	Source  Source `json:"source,omitempty"`
	Package string `json:"package,omitempty"`
	URL     string `json:"url,omitempty"`
	SHA256  string `json:"sha256,omitempty"` // lower-case hex
	File    string `json:"file,omitempty"`
	Image   string `json:"image,omitempty"`
}

// State is what a platform must remember about itself. It is stored by whoever
// applies a plan, and passed in again.
type State struct {
	// PrimaryDatacenter is Consul's, once it was chosen.
	PrimaryDatacenter string `json:"primary_datacenter,omitempty"`
	// ZooKeeperIDs are the ids by datacenter and node. They stay when a node goes,
	// so that none is ever given twice.
	ZooKeeperIDs map[string]map[string]int `json:"zookeeper_ids,omitempty"`
}
