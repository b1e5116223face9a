package consul

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/watch"
)

// key identifies an instance within its datacenter.
type key struct{ node, id string }

func (k key) compare(o key) int { return cmp.Or(cmp.Compare(k.node, o.node), cmp.Compare(k.id, o.id)) }

// entry is one instance as an answer has it.
type entry struct {
	service string
	// instance lacks its address where host is set: a name yet to be resolved.
	instance watch.Instance
	host     string
	port     uint16
	// finding is set where the instance cannot be used; it is then kept out.
	finding *watch.Finding
}

func (e entry) key() key { return key{e.instance.Node, e.instance.ID} }

// check is what matters of one of Consul's. One that passes has nothing but the service
// that it is about.
type check struct {
	service          string // its id; "" for one of the node
	id, name, status string
	notes            string
}

func convertCheck(c *api.HealthCheck) check {
	if c.Status == api.HealthPassing && !maintenance(c.CheckID) {
		return check{service: c.ServiceID, status: api.HealthPassing}
	}
	return check{service: c.ServiceID, id: c.CheckID, name: c.Name, status: c.Status, notes: c.Notes}
}

func convertChecks(checks api.HealthChecks) []check {
	all := make([]check, 0, len(checks))
	for _, c := range checks {
		if c != nil {
			all = append(all, convertCheck(c))
		}
	}
	return all
}

// convert makes an entry of what Consul says about an instance, but for its health;
// remote says that it runs in another datacenter. It is false for what is no service:
// proxies and gateways of Consul Connect.
func convert(node *api.Node, service *api.AgentService, remote bool) (entry, bool) {
	if node == nil || service == nil || service.Kind != api.ServiceKindTypical {
		return entry{}, false
	}
	e := entry{service: service.Service}
	e.instance = watch.Instance{
		ID:      cmp.Or(service.ID, service.Service),
		Node:    node.Node,
		Weights: weights(service.Weights),
		Tags:    service.Tags,
		Meta:    service.Meta,
	}
	if len(e.instance.Tags) == 0 {
		e.instance.Tags = nil
	}
	if len(e.instance.Meta) == 0 {
		e.instance.Meta = nil
	}
	e.address(node, service, remote)
	if !askable(service.Service) {
		e.refuse("invalid-name", "name", fmt.Sprintf("the name %q cannot be asked for in Consul's API", watch.Printable(service.Service)),
			"the service is left out; rename it")
	}
	return e, true
}

// askable says whether a name survives being part of a URL's path: an agent
// redirects what has dots or empty segments for segments.
func askable(name string) bool {
	for segment := range strings.SplitSeq(name, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return false
		}
	}
	return true
}

func (e *entry) refuse(code, key, message, instead string) {
	e.host = ""
	e.instance.Address = netip.AddrPort{}
	e.finding = &watch.Finding{
		Code:    code,
		Service: e.service,
		Key:     key,
		Message: fmt.Sprintf("instance %s on node %s: %s", watch.Printable(e.instance.ID), watch.Printable(e.instance.Node), message),
		Instead: instead,
	}
}

func (e *entry) address(node *api.Node, service *api.AgentService, remote bool) {
	host, port := reach(node, service, remote)
	const instead = "the instance is left out; register it with an address and port that can be connected to"
	if port < 1 || port > math.MaxUint16 {
		e.refuse("invalid-port", "port", fmt.Sprintf("port %d", port), instead)
		return
	}
	e.port = uint16(port)
	address, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	switch {
	case err == nil && usable(address):
		e.instance.Address = netip.AddrPortFrom(address.Unmap(), e.port)
	case err != nil && hostname(host):
		e.host = strings.ToLower(strings.TrimSuffix(host, "."))
	default:
		e.refuse("invalid-address", "address", fmt.Sprintf("address %q", watch.Printable(host)), instead)
	}
}

func usable(a netip.Addr) bool {
	return a.IsValid() && a.Zone() == "" && !a.IsUnspecified() && !a.IsMulticast() && a.Unmap() != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// hostname says whether the text can be a DNS name. One that ends in a number
// cannot: it is an address with a slip.
func hostname(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	last := ""
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
				return false
			}
		}
		last = label
	}
	return strings.Trim(last, "0123456789") != ""
}

// reach is where the instance is connected to. At home that is the service's
// address, else its node's. From another datacenter it is the service's address
// tagged wan, else its node's; an agent tags a service wan_ipv4 with its own
// address by itself, so where that is no more than the node's LAN address, the
// node's WAN address is meant.
func reach(node *api.Node, service *api.AgentService, remote bool) (host string, port int) {
	port = service.DefaultPort()
	if port == 0 {
		port = service.Port
	}
	if !remote {
		return cmp.Or(service.Address, node.Address), port
	}
	wan := ""
	for _, tag := range []string{"wan", "wan_ipv4", "wan_ipv6"} {
		wan = cmp.Or(wan, node.TaggedAddresses[tag])
	}
	for _, tag := range []string{"wan", "wan_ipv4", "wan_ipv6"} {
		tagged := service.TaggedAddresses[tag]
		if tagged.Address == "" {
			continue
		}
		if tag != "wan" && wan != "" && tagged.Address == service.Address && lan(node, tagged.Address) {
			continue
		}
		return tagged.Address, cmp.Or(tagged.Port, port)
	}
	if service.Address != "" && !lan(node, service.Address) {
		return service.Address, port
	}
	return cmp.Or(wan, service.Address, node.Address), port
}

// lan says whether the address is the one that the node has in its own
// datacenter.
func lan(node *api.Node, address string) bool {
	return address == node.Address || address == node.TaggedAddresses["lan"] ||
		address == node.TaggedAddresses["lan_ipv4"] || address == node.TaggedAddresses["lan_ipv6"]
}

// weights are Consul's, with its defaults where a registration is older than
// weights are, and within its bounds.
func weights(w api.AgentWeights) watch.Weights {
	if w.Passing == 0 && w.Warning == 0 {
		return watch.Weights{Passing: 1, Warning: 1}
	}
	const most = math.MaxUint16
	return watch.Weights{Passing: min(max(w.Passing, 0), most), Warning: min(max(w.Warning, 0), most)}
}

// health is the worst of the checks in Consul's order (maintenance, critical,
// warning, passing), and which check it is.
func health(all ...[]check) (watch.Health, string) {
	var worst *check
	for _, checks := range all {
		for i := range checks {
			c := &checks[i]
			if c.rank() == 0 {
				continue
			}
			if worst == nil || c.rank() > worst.rank() || c.rank() == worst.rank() && c.id < worst.id {
				worst = c
			}
		}
	}
	switch {
	case worst == nil:
		return watch.HealthPassing, ""
	case worst.id == api.NodeMaint:
		return watch.HealthMaintenance, because("node maintenance", worst.notes)
	case maintenance(worst.id):
		return watch.HealthMaintenance, because("service maintenance", worst.notes)
	}
	name := watch.Printable(cmp.Or(worst.name, worst.id))
	switch worst.status {
	case api.HealthWarning:
		return watch.HealthWarning, fmt.Sprintf("check %q warns", name)
	case api.HealthCritical:
		return watch.HealthCritical, fmt.Sprintf("check %q is critical", name)
	default:
		return watch.HealthUnknown, fmt.Sprintf("check %q is %q", name, watch.Printable(worst.status))
	}
}

func (c *check) rank() int {
	if maintenance(c.id) {
		return 4
	}
	switch c.status {
	case api.HealthPassing:
		return 0
	case api.HealthWarning:
		return 1
	case api.HealthCritical:
		return 3
	default:
		return 2 // a status that this Consul has and we do not know
	}
}

func maintenance(id string) bool {
	return id == api.NodeMaint || strings.HasPrefix(id, api.ServiceMaintPrefix)
}

func because(what, notes string) string {
	if notes == "" {
		return what
	}
	return what + ": " + watch.Printable(notes)
}

// convertService is a health/service answer.
func convertService(answer []*api.ServiceEntry, remote bool) []entry {
	entries := make([]entry, 0, len(answer))
	for _, s := range answer {
		if s == nil {
			continue
		}
		if e, ok := convert(s.Node, s.Service, remote); ok {
			e.instance.Health, e.instance.Reason = health(convertChecks(s.Checks))
			entries = append(entries, e)
		}
	}
	return unique(entries)
}

// unique drops all but the first of entries with one key, which no Consul
// sends.
func unique(entries []entry) []entry {
	seen := make(map[key]bool, len(entries))
	return slices.DeleteFunc(entries, func(e entry) bool {
		again := seen[e.key()]
		seen[e.key()] = true
		return again
	})
}
