package routing

import (
	"slices"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/watch"
)

// maxConsulWeight is Consul's own limit; HAProxy's is maxWeight.
const (
	maxConsulWeight = 65535
	maxWeight       = 256
)

// A subset is which of a unit's instances a backend has, and how it uses them.
type subset struct {
	protocol   Protocol
	strip      string
	tag        string
	datacenter string
}

// id of the backend of that subset: "web", "web:tcp", "canary.web@dc2", "web{/api}". A
// name that has any of these marks itself is set in parentheses, "(api.v1)": no two
// services have a backend of one id, whatever they are called.
func (s subset) id(service string) string {
	var b strings.Builder
	if strings.ContainsAny(service, ".@{}:()") {
		service = "(" + service + ")"
	}
	if s.tag != "" {
		b.WriteString(s.tag + ".")
	}
	b.WriteString(service)
	if s.datacenter != "" {
		b.WriteString("@" + s.datacenter)
	}
	if s.strip != "" {
		b.WriteString("{" + s.strip + "}")
	}
	if s.protocol == TCP {
		b.WriteString(":tcp")
	}
	return b.String()
}

func (s subset) has(m member) bool {
	if s.datacenter != "" && !strings.EqualFold(s.datacenter, m.datacenter) {
		return false
	}
	return s.tag == "" || slices.ContainsFunc(m.tags, func(tag string) bool { return strings.EqualFold(tag, s.tag) })
}

// backend is the one of that subset. A subset that has every instance is no subset:
// most services have one datacenter and all their tags on every instance, and
// need one backend only.
func (c *unitCompiler) backend(of subset) *Backend {
	members := c.unit.members
	if of.tag != "" || of.datacenter != "" {
		chosen := slices.DeleteFunc(slices.Clone(members), func(m member) bool { return !of.has(m) })
		whole := len(chosen) == len(members)
		switch {
		case whole && of.datacenter != "" && c.locality() != LocalOnly:
			of.datacenter, of.tag = "", ""
		case whole && of.datacenter == "":
			of.tag = ""
		case of.tag != "" && of.datacenter != "":
			// Every instance of the datacenter has the tag, or every one with
			// the tag is in the datacenter.
			if c.same(of, subset{datacenter: of.datacenter}) {
				of.tag = ""
			} else if c.locality() != LocalOnly && c.same(of, subset{tag: of.tag}) {
				of.datacenter = ""
			}
		}
		members = chosen
	}
	id := of.id(c.unit.name)
	if b, ok := c.byID[id]; ok {
		return b
	}
	b := &Backend{
		ID: id, Service: c.unit.name, Protocol: of.protocol, StripPath: of.strip,
		Balance: c.balance(of.protocol), Sticky: c.settings.sticky,
		Check: c.check(), Timeouts: c.settings.timeouts,
	}
	locality := c.locality()
	if of.datacenter != "" {
		locality = Global // one datacenter only, wherever it is
	}
	b.Servers = c.servers(members, locality)
	c.byID[id] = b
	c.backends = append(c.backends, b)
	return b
}

func (c *unitCompiler) same(a, b subset) bool {
	return !slices.ContainsFunc(c.unit.members, func(m member) bool { return a.has(m) != b.has(m) })
}

func (c *unitCompiler) locality() Locality {
	switch {
	case c.settings.locality != "":
		return c.settings.locality
	case c.policy.Locality != "":
		return c.policy.Locality
	}
	return LocalFirst
}

func (c *unitCompiler) balance(protocol Protocol) string {
	usual := c.policy.Balance
	if usual == "" {
		usual = "roundrobin"
	}
	if c.settings.balance == "" {
		return usual
	}
	if protocol == TCP && c.settings.balanceHTTPOnly {
		c.find("invalid-value", "", "balance "+c.settings.balance+" is for HTTP only", "its TCP port uses "+usual)
		return usual
	}
	return c.settings.balance
}

// servers of the members. In LocalFirst those of other datacenters are for when no
// local one can serve, and of those only the nearest datacenter that has any to
// serve gets a weight: when it has none left, the next one does.
func (c *unitCompiler) servers(members []member, locality Locality) []Server {
	nearest, found := 0, false
	for _, m := range members {
		if rank := c.distances[m.datacenter]; m.datacenter != c.local && serves(m.health) && (!found || rank < nearest) {
			nearest, found = rank, true
		}
	}
	servers := make([]Server, 0, len(members))
	for _, m := range members {
		remote := m.datacenter != c.local
		if remote && locality == LocalOnly {
			continue
		}
		server := Server{
			Name: m.name, Address: m.address, Weight: c.weight(m), State: state(m.health), MaxConn: c.settings.maxConn,
			Datacenter: m.datacenter, Node: m.node, Health: m.health, Reason: m.reason, Sources: m.sources,
		}
		if remote && locality == LocalFirst {
			server.Backup = true
			if found && c.distances[m.datacenter] != nearest {
				server.Weight = 0
			}
		}
		servers = append(servers, server)
	}
	scale(servers)
	return servers
}

func state(h watch.Health) ServerState {
	switch h {
	case watch.HealthMaintenance:
		return Drain
	case watch.HealthCritical:
		return Maint
	}
	return Ready
}

// weight of an instance: what its app or it asks for, else Consul's.
func (c *unitCompiler) weight(m member) int {
	weights := m.weights
	asked, findings := instanceWeight(c.unit.name, m.wishes)
	c.findings = append(c.findings, findings...)
	if asked >= 0 {
		if weights.Warning < weights.Passing {
			weights.Warning = asked * weights.Warning / weights.Passing
		} else {
			weights.Warning = asked
		}
		weights.Passing = asked
	}
	weight := weights.Passing
	if m.health == watch.HealthWarning {
		weight = weights.Warning
	}
	return min(max(weight, 0), maxConsulWeight)
}

// scale brings Consul's weights into HAProxy's range where they exceed it. None
// but 0 becomes 0.
func scale(servers []Server) {
	most := 0
	for _, s := range servers {
		most = max(most, s.Weight)
	}
	if most <= maxWeight {
		return
	}
	for i := range servers {
		if w := servers[i].Weight; w > 0 {
			servers[i].Weight = max(1, w*maxWeight/most)
		}
	}
}

// check of the unit: what it asks for, else what Marathon checks.
func (c *unitCompiler) check() Check {
	asked := c.settings.check
	if asked != (Check{}) {
		return asked
	}
	for _, a := range c.unit.apps {
		check, ok := marathonCheck(a)
		if !ok {
			continue
		}
		derived := Check{
			Interval: sane(check.Interval), Timeout: sane(check.Timeout),
			Fall: min(max(check.MaxConsecutiveFailures, 0), mostFailures) + 1,
			Port: max(check.Port, 0),
		}
		if isHTTP(check.Protocol) {
			path := check.Path
			if path == "" {
				path = "/"
			}
			// A path with a query or worse: Marathon still checks it.
			parsed, err := parsePath(path)
			if err != nil {
				return Check{}
			}
			derived.Path, derived.TLS = parsed, strings.HasSuffix(check.Protocol, "HTTPS")
		}
		return derived
	}
	return Check{}
}

// mostFailures bounds what an app definition can ask HAProxy to overlook.
const mostFailures = 100

// sane is a duration of an app definition within what a table may hold; 0, the
// edge's default, for one that is not.
func sane(d time.Duration) time.Duration {
	if d < time.Second || d > maxTimeout {
		return 0
	}
	return d
}

// marathonCheck is the first health check of the app's port that can be done from
// outside of the task.
func marathonCheck(a appPort) (watch.HealthCheck, bool) {
	for _, check := range a.app.HealthChecks {
		own := check.PortIndex == a.index || (check.Port > 0 && check.PortIndex < 0 && a.index == 0)
		if own && check.Protocol != "COMMAND" {
			return check, true
		}
	}
	return watch.HealthCheck{}, false
}

func isHTTP(protocol string) bool {
	return strings.HasSuffix(protocol, "HTTP") || strings.HasSuffix(protocol, "HTTPS")
}

// Equal says whether the backends are the same, servers included.
func (b *Backend) Equal(o *Backend) bool {
	return b == o || b.ID == o.ID && b.Service == o.Service && b.Protocol == o.Protocol && b.Balance == o.Balance &&
		b.Sticky == o.Sticky && b.StripPath == o.StripPath && b.Check == o.Check && b.Timeouts == o.Timeouts &&
		slices.EqualFunc(b.Servers, o.Servers, func(x, y Server) bool { return x.Equal(&y) })
}

// Equal says whether the servers are the same in everything.
func (s *Server) Equal(o *Server) bool {
	return s.Name == o.Name && s.Address == o.Address && s.Weight == o.Weight && s.State == o.State && s.Backup == o.Backup &&
		s.MaxConn == o.MaxConn && s.Datacenter == o.Datacenter && s.Node == o.Node && s.Health == o.Health &&
		s.Reason == o.Reason && slices.Equal(s.Sources, o.Sources)
}

// Equal says whether the services are the same in everything.
func (s *Service) Equal(o *Service) bool {
	return s == o || s.Name == o.Name && s.App == o.App && s.Published == o.Published && s.Reason == o.Reason &&
		s.Instances == o.Instances && s.Serving == o.Serving && slices.Equal(s.Aliases, o.Aliases) && slices.Equal(s.Sources, o.Sources)
}
