package cluster

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/mi-lb/mi-lb/provision/inventory"
)

// Result is what [Build] finds.
type Result struct {
	// Cluster is nil if anything is refused.
	Cluster *Cluster
	// State is what to store before the cluster is built.
	State State
	// Findings are the inventory's and the cluster's, by file and line.
	Findings []inventory.Finding
}

// Refused are the findings that keep the cluster from being built.
func (r Result) Refused() []inventory.Finding {
	return slices.DeleteFunc(slices.Clone(r.Findings), func(f inventory.Finding) bool { return f.Severity != inventory.Refused })
}

// DefaultDomain is where services are published if the inventory does not say.
const DefaultDomain = "mi-lb.example.com"

// rolesByGroup are the roles that a group gives its hosts. A role=control host is a
// Consul server unless consul_is_server says no.
var rolesByGroup = map[string][]Role{
	"consul_servers":    {ConsulServer},
	"zookeeper_servers": {ZooKeeper},
	"mesos_leaders":     {MesosMaster},
	"marathon_servers":  {Marathon},
	"consul_clients":    {ConsulClient},
	"mesos_followers":   {MesosAgent},
	"proxy_servers":     {Edge},
	"role=control":      {ConsulServer, ZooKeeper, MesosMaster, Marathon},
	"role=worker":       {MesosAgent},
	"role=edge":         {Edge},
}

// GroupNames are the names of groups that mean something here, without those of
// datacenters.
func GroupNames() []string { return slices.Sorted(maps.Keys(rolesByGroup)) }

// Build says what platform the inventory describes, given the state that an
// earlier run stored; the zero State for a new platform. others are variables that
// others read: what is spelt almost like one of them is found odd.
func Build(inv *inventory.Inventory, state State, others ...VariableDoc) Result {
	r := &reader{findings: inv.Findings()}
	c := &Cluster{}
	datacenters := map[string]*Datacenter{}
	for _, h := range inv.Hosts() {
		roles := r.roles(h)
		if len(roles) == 0 {
			r.odd(h.At(), "no-role", "host %s is in no group that gives it something to do, and is left alone", h.Name())
			continue
		}
		n := r.node(h, roles)
		if n.Datacenter == "" {
			continue
		}
		d := datacenters[n.Datacenter]
		if d == nil {
			d = &Datacenter{Name: n.Datacenter, At: h.At()}
			datacenters[d.Name] = d
			c.Datacenters = append(c.Datacenters, d)
		}
		d.Nodes = append(d.Nodes, n)
	}
	if len(c.Datacenters) == 0 && len(r.findings) == len(inv.Findings()) {
		at := inventory.Position{File: "inventory"}
		if files := inv.Files(); len(files) > 0 {
			at = inventory.Position{File: files[0], Line: 1}
		}
		r.refuse(at, "no-hosts", "there are no hosts")
	}
	c.Domain = r.domain(inv)
	c.Primary = r.primary(inv, c, state)
	next := State{PrimaryDatacenter: c.Primary, ZooKeeperIDs: r.zooKeeperIDs(c, state)}
	r.names(inv, append(Variables(), others...))
	r.validate(c)
	slices.SortStableFunc(r.findings, inventory.CompareFindings)
	result := Result{Cluster: c, State: next, Findings: slices.CompactFunc(r.findings, func(a, b inventory.Finding) bool { return a == b })}
	if len(result.Refused()) > 0 {
		result.Cluster, result.State = nil, state
	}
	return result
}

// roles are what the groups of a host make of it.
func (r *reader) roles(h *inventory.Host) []Role {
	var roles []Role
	for _, group := range h.Groups() {
		for _, role := range rolesByGroup[group] {
			if role == ConsulServer && group == "role=control" && !r.boolean(h, "consul_is_server", true) {
				role = ConsulClient
			}
			if !slices.Contains(roles, role) {
				roles = append(roles, role)
			}
		}
	}
	if slices.Contains(roles, ConsulServer) && slices.Contains(roles, ConsulClient) {
		at, ok := h.InGroup("consul_clients")
		if !ok {
			at = h.At()
		}
		r.refuse(at, "server-and-client", "host %s is a Consul server and a Consul client; it can be one of them", h.Name())
	}
	if slices.Contains(roles, ConsulServer) && h.In("consul_servers") && !r.boolean(h, "consul_is_server", true) {
		v, _, _ := r.value(h, "consul_is_server")
		r.refuse(v.At, "server-and-client", "consul_is_server of host %s is no, and the group consul_servers says that it is one", h.Name())
	}
	if len(roles) > 0 && !slices.Contains(roles, ConsulServer) && !slices.Contains(roles, ConsulClient) {
		roles = append(roles, ConsulClient)
	}
	slices.Sort(roles)
	return roles
}

// node is one host as a node.
func (r *reader) node(h *inventory.Host, roles []Role) *Node {
	n := &Node{Name: h.Name(), Roles: roles, At: h.At(), Host: h, Artefacts: map[Component]Artefact{}}
	n.Datacenter = r.datacenter(h)
	n.Connection = r.connection(h)
	n.Interface, _ = r.text(h, "private_interface")
	n.Address, _ = r.address(h, "private_ipv4")
	if !n.Address.IsValid() && n.Interface == "" {
		// What SSH connects to, and the name, if they are addresses.
		for _, s := range []string{n.Connection.Host, n.Name} {
			if a, ok := machineAddress(s); ok {
				n.Address = a
				break
			}
		}
	}
	n.WANAddress, _ = r.address(h, "public_ipv4")
	if !n.WANAddress.IsValid() {
		n.WANAddress = n.Address
	}
	n.MesosAttributes, _ = r.text(h, "mesos_attributes")
	n.MesosResources, _ = r.text(h, "mesos_resources")
	for _, c := range Components() {
		if a := r.artefact(h, c); a != (Artefact{}) {
			n.Artefacts[c] = a
		}
	}
	return n
}

var (
	datacenterGroup = regexp.MustCompile(`^dc[0-9]+$`)
	datacenterName  = regexp.MustCompile(`^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$`)
)

// claim is something that puts a host into a datacenter.
type claim struct {
	name string
	by   string
	at   inventory.Position
}

// datacenter is the one datacenter of a host: that of a dc=NAME or dcN group, of
// a group that sets consul_dc, or of the host's own consul_dc.
func (r *reader) datacenter(h *inventory.Host) string {
	var claims []claim
	for _, name := range h.Groups() {
		g, _ := groupOf(h, name)
		at := g.At()
		if in, ok := h.InGroup(name); ok {
			at = in
		}
		own, set := ownDatacenter(g)
		switch {
		case strings.HasPrefix(name, "dc="):
			claims = append(claims, claim{strings.TrimPrefix(name, "dc="), "group " + name, at})
			if set {
				claims = append(claims, claim{own, "consul_dc of group " + name, at})
			}
		case set:
			claims = append(claims, claim{own, "group " + name + " (consul_dc)", at})
		case datacenterGroup.MatchString(name):
			claims = append(claims, claim{name, "group " + name, at})
		}
	}
	effective, at := r.text(h, "consul_dc")
	if _, ok := ownVariable(h, "consul_dc"); ok || len(claims) == 0 && effective != "" {
		claims = append(claims, claim{effective, "consul_dc", at})
	}
	if len(claims) == 0 {
		r.refuse(h.At(), "no-datacenter", "host %s is in no datacenter; put it into a group dc=NAME, or set consul_dc", h.Name())
		return ""
	}
	for _, other := range claims[1:] {
		if other.name != claims[0].name {
			r.refuse(other.at, "two-datacenters", "host %s is in two datacenters: %s by %s (%s), and %s by %s", h.Name(), claims[0].name, claims[0].by, claims[0].at, other.name, other.by)
			return ""
		}
	}
	if name := claims[0].name; !datacenterName.MatchString(name) {
		r.refuse(claims[0].at, "datacenter-name", "%q is no name of a datacenter: Consul takes lower-case letters, digits, - and _", name)
		return ""
	}
	return claims[0].name
}

func groupOf(h *inventory.Host, name string) (*inventory.Group, bool) {
	return h.Inventory().Group(name)
}

// ownDatacenter is the consul_dc that a group sets itself.
func ownDatacenter(g *inventory.Group) (string, bool) {
	for _, alias := range aliases("consul_dc") {
		if v, ok := g.Var(alias); ok {
			s, isText := inventory.Text(v.Value)
			return s, isText && s != "" && !strings.Contains(s, "{{")
		}
	}
	return "", false
}

func ownVariable(h *inventory.Host, name string) (inventory.Variable, bool) {
	for _, alias := range aliases(name) {
		if v, ok := h.Own(alias); ok {
			return v, true
		}
	}
	return inventory.Variable{}, false
}

// domain is the one domain of the platform.
func (r *reader) domain(inv *inventory.Inventory) string {
	domain := ""
	for _, h := range inv.Hosts() {
		s, at := r.text(h, "domain")
		s = strings.ToLower(strings.TrimSuffix(s, "."))
		switch {
		case s == "":
		case !domainName.MatchString(s):
			r.refuse(at, "domain", "%q is no domain", s)
			return DefaultDomain
		case domain != "" && s != domain:
			r.refuse(at, "domain", "host %s has the domain %s, and others have %s; there is one for the platform", h.Name(), s, domain)
		default:
			domain = s
		}
	}
	if domain == "" {
		return DefaultDomain
	}
	return domain
}

var domainName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)

// primary is the datacenter that owns ACLs: the inventory's choice, else the one
// that was stored, else the first.
func (r *reader) primary(inv *inventory.Inventory, c *Cluster, state State) string {
	if len(c.Datacenters) == 0 {
		return ""
	}
	for _, h := range inv.Hosts() {
		name, at := r.text(h, "consul_primary_datacenter")
		if name == "" {
			continue
		}
		if _, ok := c.Datacenter(name); !ok {
			r.refuse(at, "primary-datacenter", "the primary datacenter %q has no hosts", name)
		}
		if state.PrimaryDatacenter != "" && state.PrimaryDatacenter != name {
			r.refuse(at, "primary-datacenter", "the primary datacenter is %q, and cannot become %q: tokens and policies belong to it", state.PrimaryDatacenter, name)
		}
		return name
	}
	if state.PrimaryDatacenter == "" {
		return c.Datacenters[0].Name
	}
	if _, ok := c.Datacenter(state.PrimaryDatacenter); !ok {
		r.refuse(c.Datacenters[0].At, "primary-datacenter", "the primary datacenter %q is no longer in the inventory", state.PrimaryDatacenter)
	}
	return state.PrimaryDatacenter
}

// zooKeeperIDs gives every ZooKeeper server its id: the inventory's, else the
// stored one, else the lowest that was never given in its datacenter. It returns
// all ids ever given.
func (r *reader) zooKeeperIDs(c *Cluster, state State) map[string]map[string]int {
	all := map[string]map[string]int{}
	for name, ids := range state.ZooKeeperIDs {
		all[name] = maps.Clone(ids)
	}
	for _, d := range c.Datacenters {
		servers := d.With(ZooKeeper)
		if len(servers) == 0 {
			continue
		}
		ids := all[d.Name]
		if ids == nil {
			ids = map[string]int{}
			all[d.Name] = ids
		}
		at := map[string]inventory.Position{}
		for _, n := range servers {
			id, where := r.number(n.Host, "zk_id", 1, 255)
			at[n.Name] = n.At
			if id == 0 {
				continue
			}
			at[n.Name] = where
			if stored, ok := ids[n.Name]; ok && stored != id {
				r.refuse(where, "zookeeper-id", "the ZooKeeper id of %s is %d, and cannot become %d: it is how the others know the server", n.Name, stored, id)
			}
			ids[n.Name] = id
		}
		for _, n := range servers {
			if ids[n.Name] == 0 {
				used := slices.Collect(maps.Values(ids))
				id := 1
				for slices.Contains(used, id) {
					id++
				}
				if id > 255 {
					r.refuse(n.At, "zookeeper-id", "all 255 ZooKeeper ids of datacenter %s were given once; set zk_id of %s to that of a server that is gone for good", d.Name, n.Name)
					continue
				}
				ids[n.Name] = id
			}
			n.ZooKeeperID = ids[n.Name]
			for _, other := range servers {
				if other != n && other.ZooKeeperID == n.ZooKeeperID {
					r.refuse(at[n.Name], "zookeeper-id", "%s and %s (%s) both have the ZooKeeper id %d in datacenter %s", n.Name, other.Name, at[other.Name], n.ZooKeeperID, d.Name)
				}
			}
		}
	}
	return all
}
