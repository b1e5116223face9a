package edge

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/vars"
	"github.com/mi-lb/mi-lb/provision/secrets"
)

// settings are what an edge is configured with.
type settings struct {
	http      []string // where HTTP is taken
	listeners []netip.AddrPort
	admin     string
	marathons []marathon
	yaml      string
}

// marathon is one cluster of Marathon that an edge watches.
type marathon struct {
	datacenter   string
	passwordFile string
}

const header = "# Written by mi-lb bootstrap, which overwrites changes: set edge_config in the inventory.\n"

var portRange = regexp.MustCompile(`^[0-9]{1,5}-[0-9]{1,5}$`)

// settings are nil if they cannot be told because of the problems.
func (c *edge) settings(p component.Platform, n *cluster.Node) (*settings, []component.Problem) {
	r := reader(n)
	s := &settings{}
	listen := map[string]any{}
	s.http = r.List("edge_http", []string{"0.0.0.0:80"})
	for _, key := range []string{"http", "https", "app_id"} {
		variable, addresses := "edge_"+key, s.http
		if key != "http" {
			addresses = r.List(variable, nil)
		}
		for _, address := range addresses {
			if at, err := netip.ParseAddrPort(address); err != nil || at.Port() == 0 {
				r.Refuse(variable, "has %q, which is not an address and port such as 0.0.0.0:80", address)
			} else {
				s.listeners = append(s.listeners, at)
			}
		}
		if len(addresses) > 0 {
			listen[key] = addresses
		}
	}
	if certificates := r.Path("edge_certificates", ""); certificates != "" {
		listen["certificates"] = certificates
	}
	listen["service_port_address"] = address(r, "edge_service_port_address", "0.0.0.0")
	if ports := r.Matching("edge_service_port_range", "", portRange, "a range of ports such as 10000-10100"); ports != "" {
		listen["service_port_range"] = ports
	}
	consul := map[string]any{"address": "http://127.0.0.1:8500", "token_file": tokenFile}
	if datacenters := known(r, p, "edge_datacenters", nil); len(datacenters) > 0 {
		consul["datacenters"] = datacenters
	}
	if groups := r.List("edge_groups", nil); len(groups) > 0 {
		consul["groups"] = groups
	}
	haproxy := map[string]any{"path": haproxyPath(n), "manage": true}
	if most := r.Int("edge_maxconn", 0, 1, 10_000_000); most > 0 {
		haproxy["maxconn"] = most
	}
	if threads := r.Int("edge_threads", 0, 1, 256); threads > 0 {
		haproxy["threads"] = threads
	}
	s.admin = net.JoinHostPort("127.0.0.1", strconv.Itoa(r.Port("edge_admin_port", 9090)))
	config := map[string]any{
		"domain":     p.Cluster.Domain,
		"datacenter": n.Datacenter,
		"state_dir":  "/var/lib/mi-lb",
		"exposure":   r.OneOf("edge_exposure", "all", "all", "tagged"),
		"locality":   r.OneOf("edge_locality", "local-first", "local-first", "global", "local-only"),
		"balance":    r.Text("edge_balance", "roundrobin"),
		"consul":     consul,
		"listen":     listen,
		"haproxy":    haproxy,
		"admin":      map[string]any{"listen": s.admin},
	}
	if clusters := s.watchMarathons(p, n, r); len(clusters) > 0 {
		config["marathon"] = clusters
	}
	merge(config, r.Object("edge_config"))
	s.readBack(config)
	if r.Bad() {
		return nil, r.Problems()
	}
	var text bytes.Buffer
	text.WriteString(header)
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	if err := encoder.Encode(config); err != nil {
		return nil, []component.Problem{fatal(n, "variable", "look at edge_config", "mi-lb.yaml cannot be written: %v", err)}
	}
	s.yaml = text.String()
	return s, r.Problems()
}

// watchMarathons is the list of Marathon clusters: the own datacenter's first.
func (s *settings) watchMarathons(p component.Platform, n *cluster.Node, r *vars.Reader) []any {
	var all []string
	for _, d := range p.Cluster.Datacenters {
		if len(d.With(cluster.Marathon)) > 0 {
			all = append(all, d.Name)
		}
	}
	slices.SortStableFunc(all, func(a, b string) int {
		return rank(a != n.Datacenter) - rank(b != n.Datacenter)
	})
	groups := r.List("edge_marathon_groups", nil)
	var clusters []any
	for _, datacenter := range known(r, p, "edge_marathon_datacenters", all) {
		d, _ := p.Cluster.Datacenter(datacenter)
		var urls []string
		for _, member := range d.With(cluster.Marathon) {
			at := member.Address
			if datacenter != n.Datacenter {
				at = member.WANAddress
			}
			urls = append(urls, "http://"+net.JoinHostPort(at.String(), strconv.Itoa(marathonPort(member))))
		}
		if len(urls) == 0 {
			continue
		}
		m := marathon{datacenter: datacenter, passwordFile: directory + "/marathon-" + datacenter + ".password"}
		s.marathons = append(s.marathons, m)
		entry := map[string]any{
			"name": datacenter, "datacenter": datacenter, "url": urls,
			"username": secrets.MarathonUser, "password_file": m.passwordFile,
		}
		if len(groups) > 0 {
			entry["groups"] = groups
		}
		clusters = append(clusters, entry)
	}
	return clusters
}

// marathonPort is where a Marathon listens.
func marathonPort(n *cluster.Node) int { return vars.For(name, n).Port("marathon_http_port", 8080) }

func rank(last bool) int {
	if last {
		return 1
	}
	return 0
}

// known are datacenters of the inventory.
func known(r *vars.Reader, p component.Platform, variable string, otherwise []string) []string {
	names := r.List(variable, otherwise)
	for _, datacenter := range names {
		if _, ok := p.Cluster.Datacenter(datacenter); !ok {
			r.Refuse(variable, "has %q, which is no datacenter of the inventory", datacenter)
			return nil
		}
	}
	return names
}

func address(r *vars.Reader, variable, otherwise string) string {
	text := r.Text(variable, otherwise)
	if _, err := netip.ParseAddr(text); err != nil {
		r.Refuse(variable, "is %q, which is not an address", text)
		return otherwise
	}
	return text
}

// merge puts what is given over what is there, mapping by mapping.
func merge(into, given map[string]any) {
	for _, key := range slices.Sorted(maps.Keys(given)) {
		inner, isMap := given[key].(map[string]any)
		if there, ok := into[key].(map[string]any); ok && isMap {
			merge(there, inner)
			continue
		}
		into[key] = given[key]
	}
}

// readBack takes what health is asked with from the configuration as it is in the
// end.
func (s *settings) readBack(config map[string]any) {
	if admin, ok := config["admin"].(map[string]any); ok {
		if text, ok := admin["listen"].(string); ok {
			s.admin = text
		}
	}
	listen, ok := config["listen"].(map[string]any)
	if !ok {
		return
	}
	switch addresses := listen["http"].(type) {
	case []string:
		s.http = addresses
	case []any:
		s.http = nil
		for _, a := range addresses {
			s.http = append(s.http, fmt.Sprint(a))
		}
	}
}

func (s *settings) takes(port uint16) bool {
	return slices.ContainsFunc(s.listeners, func(at netip.AddrPort) bool { return at.Port() == port })
}

// adminAddress and httpAddress are where the machine itself reaches them.
func (s *settings) adminAddress() string { return reachable(s.admin) }

func (s *settings) httpAddress() string { return reachable(s.http[0]) }

func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if at, err := netip.ParseAddr(host); err != nil || at.IsUnspecified() {
		host = "127.0.0.1"
		if err == nil && at.Is6() {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, port)
}
