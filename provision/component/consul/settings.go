package consul

import (
	"embed"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/vars"
	"github.com/mi-lb/mi-lb/provision/secrets"
)

// settings are what the inventory says of one agent.
type settings struct {
	Node       string
	Datacenter string
	Server     bool
	Address    netip.Addr
	WAN        netip.Addr
	Ports      ports

	// HTTP and DNS are addresses that programs of the machine use.
	HTTP, DNS          string
	HTTPS              bool
	UI                 bool
	LogLevel           string
	RaftMultiplier     int
	ConnectionsPerUser int
	Extra              map[string]any

	DataDir, ConfigDir, Program, User string
	// Exec says whether systemd knows Type=exec.
	Exec bool
	// DNSToken says whether Consul has a token for DNS; it had not before 1.17.
	DNSToken bool
}

type ports struct{ Server, SerfLAN, SerfWAN, HTTP, HTTPS, DNS int }

// variables are those of the inventory that it reads.
var variables = []cluster.VariableDoc{
	{Name: "consul_port_server", Doc: "port for RPC; default 8300"},
	{Name: "consul_port_serf_lan", Doc: "port for gossip within the datacenter; default 8301"},
	{Name: "consul_port_serf_wan", Doc: "port for gossip between datacenters; default 8302"},
	{Name: "consul_port_http", Doc: "port of the API; default 8500"},
	{Name: "consul_port_https", Doc: "port of the API by TLS, with consul_https; default 8501"},
	{Name: "consul_port_dns", Doc: "port for DNS; default 8600"},
	{Name: "consul_client_addr", Doc: "address for the API and DNS, for programs of the machine; default 127.0.0.1"},
	{Name: "consul_https", Doc: "serve the API by TLS on the private address, to whoever has a certificate of the platform; default no"},
	{Name: "consul_ui", Doc: "servers have Consul's web pages; default yes"},
	{Name: "consul_log_level", Doc: "trace, debug, info, warn or error; default info"},
	{Name: "consul_raft_multiplier", Doc: "1 to 10: how patient servers are with their leader; default 2"},
	{Name: "consul_http_max_connections", Doc: "connections to the API that one address may have; default 1000"},
	{Name: "consul_config", Doc: "mapping of further keys of Consul's configuration"},
	{Name: "consul_data_dir", Doc: "default /var/lib/consul"},
	{Name: "consul_config_dir", Doc: "default /etc/mi-lb/consul"},
	{Name: "consul_program", Doc: "path of the program; default /usr/local/bin/consul, or /usr/bin/consul of a package"},
	{Name: "consul_user", Doc: "user that it runs as; default consul"},
}

var userName = regexp.MustCompile(`[a-z_][a-z0-9_-]*`)

// ownKeys of the configuration follow from the platform, or have variables.
var ownKeys = []string{
	"acl", "advertise_addr", "advertise_addr_wan", "auto_config", "auto_encrypt", "bind_addr", "bootstrap", "bootstrap_expect", "data_dir",
	"datacenter", "encrypt", "encrypt_verify_incoming", "encrypt_verify_outgoing", "node_name", "primary_datacenter", "retry_join",
	"retry_join_wan", "server", "tls", "ports", "addresses", "client_addr", "leave_on_terminate", "translate_wan_addrs",
}

func readPorts(r *vars.Reader) ports {
	return ports{
		Server: r.Port("consul_port_server", 8300), SerfLAN: r.Port("consul_port_serf_lan", 8301), SerfWAN: r.Port("consul_port_serf_wan", 8302),
		HTTP: r.Port("consul_port_http", 8500), HTTPS: r.Port("consul_port_https", 8501), DNS: r.Port("consul_port_dns", 8600),
	}
}

// readAccess is how programs of a node reach its agent.
func readAccess(r *vars.Reader) (address string, p ports) {
	address = r.Text("consul_client_addr", "127.0.0.1")
	if _, err := netip.ParseAddr(address); err != nil {
		r.Refuse("consul_client_addr", "is %q, which is not an IP address", address)
		address = "127.0.0.1"
	}
	return address, readPorts(r)
}

// HTTPAddress is host:port of the API of a node's agent, on the node.
func HTTPAddress(n *cluster.Node) string {
	address, p := readAccess(vars.For(ServerName, n))
	return net.JoinHostPort(address, strconv.Itoa(p.HTTP))
}

// DNSAddress is where a node's agent answers DNS, on the node.
func DNSAddress(n *cluster.Node) netip.AddrPort {
	address, p := readAccess(vars.For(ServerName, n))
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, uint16(p.DNS))
}

func read(p component.Platform, n *cluster.Node, of string) (settings, []component.Problem) {
	r := vars.For(of, n)
	s := settings{Node: n.Name, Datacenter: n.Datacenter, Server: n.Has(cluster.ConsulServer), WAN: n.WANAddress}
	s.HTTP, s.Ports = readAccess(r)
	s.DNS = s.HTTP
	s.HTTPS = r.Bool("consul_https", false)
	s.UI = r.Bool("consul_ui", true)
	s.LogLevel = r.OneOf("consul_log_level", "info", "trace", "debug", "info", "warn", "error")
	s.RaftMultiplier = r.Int("consul_raft_multiplier", 2, 1, 10)
	s.ConnectionsPerUser = r.Int("consul_http_max_connections", 1000, 200, 1<<20)
	s.Extra = r.Object("consul_config")
	s.DataDir = r.Path("consul_data_dir", "/var/lib/consul")
	s.ConfigDir = r.Path("consul_config_dir", "/etc/mi-lb/consul")
	a := n.Artefacts[cluster.ComponentConsul]
	program := "/usr/local/bin/consul"
	if a.Source == cluster.SourcePackage {
		program = "/usr/bin/consul"
	}
	s.Program = r.Path("consul_program", program)
	s.User = r.Matching("consul_user", "consul", userName, "the name of a user")
	s.DNSToken = !before(a.Version, 1, 17)
	for _, key := range slices.Sorted(maps.Keys(s.Extra)) {
		if slices.Contains(ownKeys, key) {
			r.Refuse("consul_config", "has the key %q, which follows from the platform or has a variable of its own", key)
		}
	}
	problems := r.Problems()
	address, err := p.Address(n)
	if err != nil {
		problems = append(problems, component.Problem{
			Fatal: true, Code: "no-address", Node: n.Name, Component: of, Message: err.Error(), Advice: "set private_ipv4 in the inventory",
		})
	}
	s.Address = address
	if !s.WAN.IsValid() {
		s.WAN = address
	}
	if f := p.Facts[n.Name]; f != nil {
		s.Exec = f.System.Systemd >= 240
	}
	return s, problems
}

var versionNumbers = regexp.MustCompile(`^v?([0-9]+)\.([0-9]+)`)

// before says whether a version is known to be older than another.
func before(version string, major, minor int) bool {
	m := versionNumbers.FindStringSubmatch(version)
	if m == nil {
		return false
	}
	x, errX := strconv.Atoi(m[1])
	y, errY := strconv.Atoi(m[2])
	return errX == nil && errY == nil && (x < major || x == major && y < minor)
}

// object is a part of a configuration.
type object = map[string]any

// reloadable are the keys that a running agent takes from files that it reads again,
// by Consul's documentation; below limits those of [reloadableLimits] only.
var (
	reloadable = []string{
		"log_level", "discard_check_output", "node_meta", "raft_snapshot_threshold", "raft_snapshot_interval", "raft_trailing_logs",
		"service", "services", "check", "checks", "watches",
	}
	reloadableLimits = []string{"http_max_conns_per_client", "rpc_rate", "rpc_max_burst"}
)

// split is a configuration in two: what an agent is restarted for, and what it reads
// again.
func split(c object) (restarted, reloaded object) {
	restarted, reloaded = maps.Clone(c), object{}
	move := func(from, to object, keys []string) {
		for _, key := range keys {
			if value, ok := from[key]; ok {
				to[key] = value
				delete(from, key)
			}
		}
	}
	move(restarted, reloaded, reloadable)
	if limits, ok := restarted["limits"].(object); ok {
		kept, moved := maps.Clone(limits), object{}
		move(kept, moved, reloadableLimits)
		if restarted["limits"] = kept; len(kept) == 0 {
			delete(restarted, "limits")
		}
		if len(moved) > 0 {
			reloaded["limits"] = moved
		}
	}
	return restarted, reloaded
}

// configuration is all that is neither secret nor for the start only.
func (s settings) configuration(p component.Platform) object {
	c := object{
		"datacenter": s.Datacenter, "primary_datacenter": p.Cluster.Primary, "node_name": s.Node, "server": s.Server, "data_dir": s.DataDir,
		"bind_addr": s.Address.String(), "advertise_addr": s.Address.String(), "advertise_addr_wan": s.WAN.String(), "translate_wan_addrs": true,
		"client_addr": s.HTTP,
		"addresses":   object{"http": s.HTTP, "dns": s.DNS},
		"ports": object{
			"server": s.Ports.Server, "serf_lan": s.Ports.SerfLAN, "serf_wan": s.Ports.SerfWAN, "http": s.Ports.HTTP, "https": -1,
			"dns": s.Ports.DNS, "grpc": -1, "grpc_tls": -1,
		},
		"encrypt_verify_incoming": true, "encrypt_verify_outgoing": true,
		"tls": object{
			"defaults": object{
				"ca_file": s.tls("ca.pem"), "cert_file": s.tls("node.pem"), "key_file": s.tls("node-key.pem"),
				"verify_incoming": true, "verify_outgoing": true,
			},
			"internal_rpc": object{"verify_server_hostname": true},
		},
		"acl": object{
			"enabled": true, "default_policy": "deny", "down_policy": "extend-cache",
			// Tokens are in files: persisted ones would override them unseen.
			"enable_token_persistence": false, "enable_token_replication": true,
		},
		// An agent that is restarted comes back: its services stay.
		"leave_on_terminate": false, "skip_leave_on_interrupt": true, "rejoin_after_leave": true,
		"disable_remote_exec": true, "disable_update_check": true, "enable_script_checks": false,
		"connect":   object{"enabled": false},
		"limits":    object{"http_max_conns_per_client": s.ConnectionsPerUser},
		"log_level": s.LogLevel,
	}
	if s.HTTPS {
		c["ports"].(object)["https"] = s.Ports.HTTPS
		c["addresses"].(object)["https"] = s.Address.String()
	}
	if s.Server {
		c["ui_config"] = object{"enabled": s.UI}
		c["performance"] = object{"raft_multiplier": s.RaftMultiplier}
	}
	return merge(c, s.Extra)
}

func (s settings) tls(file string) string { return s.ConfigDir + "/tls/" + file }

// merge puts b over a, one level of mappings after the other.
func merge(a, b object) object {
	c := maps.Clone(a)
	for key, value := range b {
		below, isObject := value.(object)
		had, hadObject := c[key].(object)
		if isObject && hadObject {
			c[key] = merge(had, below)
			continue
		}
		c[key] = value
	}
	return c
}

// tokens are what an agent reads again without a restart.
func (s settings) tokens(p component.Platform) object {
	tokens := object{"agent": p.Secrets.ConsulToken(secrets.AgentPurpose(s.Node)).Secret.Reveal()}
	dns := "default"
	if s.DNSToken {
		dns = "dns"
	}
	tokens[dns] = p.Secrets.ConsulToken(secrets.DNSPurpose).Secret.Reveal()
	if s.Server && s.Datacenter != p.Cluster.Primary {
		tokens["replication"] = p.Secrets.ConsulToken(secrets.ReplicationPurpose).Secret.Reveal()
	}
	return object{"acl": object{"tokens": tokens}}
}

// start is what counts when an agent starts for the first time, or joins.
func (s settings) start(p component.Platform) object {
	d, _ := p.Cluster.Datacenter(s.Datacenter)
	c := object{"encrypt": p.Secrets.GossipKey().Reveal()}
	if lan := joins(d.With(cluster.ConsulServer), s.Node, false); len(lan) > 0 {
		c["retry_join"] = lan
	}
	if !s.Server {
		return c
	}
	c["bootstrap_expect"] = d.BootstrapExpect()
	if s.Datacenter == p.Cluster.Primary {
		c["acl"] = object{"tokens": object{"initial_management": p.Secrets.ConsulToken(secrets.ManagementPurpose).Secret.Reveal()}}
	}
	var wan []string
	for _, other := range p.Cluster.Datacenters {
		if other.Name != s.Datacenter {
			wan = append(wan, joins(other.With(cluster.ConsulServer), s.Node, true)...)
		}
	}
	if len(wan) > 0 {
		c["retry_join_wan"] = wan
	}
	return c
}

// joins are where servers are joined, but for one of them.
func joins(servers []*cluster.Node, but string, wan bool) []string {
	var all []string
	for _, n := range servers {
		if n.Name == but {
			continue
		}
		p := readPorts(vars.For(ServerName, n))
		address, port := n.Address, p.SerfLAN
		if wan {
			address, port = n.WANAddress, p.SerfWAN
		}
		all = append(all, netip.AddrPortFrom(address, uint16(port)).String())
	}
	return all
}

// encode is JSON with sorted keys, which does not change unless its content does.
func encode(c object) string {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		// All values are texts, numbers, booleans, and lists and mappings of them.
		panic(fmt.Sprintf("encode Consul's configuration: %v", err))
	}
	return string(data) + "\n"
}

//go:embed files
var files embed.FS

var templates = template.Must(template.New("").ParseFS(files, "files/*.tmpl"))

func (s settings) unit() string {
	var b strings.Builder
	if err := templates.ExecuteTemplate(&b, "consul.service.tmpl", s); err != nil {
		// The template is part of the program and its data is typed.
		panic(fmt.Sprintf("render the unit: %v", err))
	}
	return b.String()
}
