package config

import (
	"time"
)

// Config is all of it. Field tags: the key, and what the reference and --help say.
type Config struct {
	Domain     string `key:"domain" help:"services are published as <name>.<domain>; empty for not by name"`
	Datacenter string `key:"datacenter" help:"the local datacenter; empty for the Consul agent's own"`
	StateDir   string `key:"state_dir" help:"where the saved snapshot, claims and HAProxy's files live"`
	Exposure   string `key:"exposure" help:"all: every service is published; tagged: only those with mi-lb.enable=true"`
	Locality   string `key:"locality" help:"instances of other datacenters, unless a service says: local-first, global or local-only"`
	Balance    string `key:"balance" help:"HAProxy's balance algorithm, unless a service says"`

	Consul   Consul     `key:"consul"`
	Marathon []Marathon `key:"marathon" help:"Marathon clusters, as YAML on a flag or in the environment"`
	File     string     `key:"file" help:"static services; see watch/file"`
	Listen   Listen     `key:"listen"`
	HAProxy  HAProxy    `key:"haproxy"`
	Admin    Admin      `key:"admin"`
	Log      Log        `key:"log"`
}

// Consul is the agent through which every datacenter is watched.
type Consul struct {
	Address     string   `key:"address" help:"http://, https:// or unix:// address of the agent; empty for no Consul"`
	TokenFile   string   `key:"token_file" help:"file with the ACL token; read again when it changes"`
	Datacenters []string `key:"datacenters" help:"which to watch; empty for all that the catalog knows, as they come and go"`
	CAFile      string   `key:"ca_file" help:"CA that signed the agent's certificate; empty for the system's"`
	CertFile    string   `key:"cert_file" help:"client certificate for the agent"`
	KeyFile     string   `key:"key_file" help:"key of the client certificate"`
	Domain      string   `key:"domain" help:"Consul's DNS domain, for hosts like web.service.consul; empty for no such hosts"`
	Groups      []string `key:"groups" help:"groups this edge serves (key mi-lb.group); empty for all"`
	LongPolls   int      `key:"long_polls" help:"most long-polls at a time; 0 for 120 over plain HTTP and unix sockets, where an agent allows 200 connections by default, and for 4000 over https"`
}

// Marathon is one cluster.
type Marathon struct {
	URL          []string `key:"url" help:"the members of the cluster"`
	Name         string   `key:"name" help:"what the cluster is called; empty for host:port of its first member"`
	Datacenter   string   `key:"datacenter" help:"where its tasks run; empty for the local datacenter"`
	Username     string   `key:"username" help:"for HTTP basic authentication"`
	PasswordFile string   `key:"password_file" help:"file with the password"`
	CAFile       string   `key:"ca_file" help:"CA that signed the members' certificates; empty for the system's"`
	Groups       []string `key:"groups" help:"marathon-lb groups this edge serves; empty for all apps"`
}

// Listen is where the edge takes traffic.
type Listen struct {
	HTTP               []string `key:"http" help:"addresses for HTTP by host"`
	HTTPS              []string `key:"https" help:"addresses for HTTPS by host, and TLS passthrough by server name"`
	Certificates       string   `key:"certificates" help:"PEM file, or directory of them, for the HTTPS addresses; empty for passthrough only"`
	AppID              []string `key:"app_id" help:"addresses for HTTP by header X-Marathon-App-Id"`
	ServicePortAddress string   `key:"service_port_address" help:"address on which service ports are opened"`
	ServicePortRange   string   `key:"service_port_range" help:"\"10000-10100\": service ports that are bound once, and opened and closed without a reload"`
}

// HAProxy is how the process is run and what its files say.
type HAProxy struct {
	Path      string `key:"path" help:"the haproxy program"`
	Manage    bool   `key:"manage" help:"true: start and supervise HAProxy; false: attach to one that systemd runs"`
	ConfigDir string `key:"config_dir" help:"where HAProxy's files are written; empty for <state_dir>/haproxy"`
	// Sockets are short paths: the kernel allows 107 bytes.
	RuntimeSocket string `key:"runtime_socket" help:"HAProxy's runtime API; empty for <state_dir>/haproxy.sock"`
	MasterSocket  string `key:"master_socket" help:"the master's socket; empty for <state_dir>/haproxy-master.sock"`
	Templates     string `key:"templates" help:"directory with templates that replace the built-in ones of the same name"`
	User          string `key:"user" help:"user that HAProxy's workers run as; empty for haproxy, if mi-lb runs as root and there is such a user"`
	Group         string `key:"group" help:"group that HAProxy's workers run as; empty for that of the user"`
	Log           string `key:"log" help:"where HAProxy logs requests, with the facility, like \"/dev/log local0\"; empty for nowhere"`
	LogFormat     string `key:"log_format" help:"HAProxy's log-format of HTTP requests; empty for its httplog"`
	LogErrors     bool   `key:"log_errors" help:"true: log only requests that went wrong"`
	// TrustedProxies are in front of the edge.
	TrustedProxies []string `key:"trusted_proxies" help:"networks whose X-Forwarded-* headers are believed, like 10.0.0.0/8"`

	Threads       int           `key:"threads" help:"threads of a worker; 0 for HAProxy's own choice"`
	MaxConn       int           `key:"maxconn" help:"connections of a worker; 0 for what the limit on descriptors allows"`
	BufferSize    int           `key:"buffer_size" help:"bytes into which the headers of a request or answer must fit, and 1024 more; 0 for HAProxy's 16384"`
	HTTPReuse     string        `key:"http_reuse" help:"when an idle connection to a server serves another client: never, safe, aggressive or always"`
	AbortOnClose  bool          `key:"abort_on_close" help:"true: give up a request that waits for a server when its client has gone away"`
	Drain         time.Duration `key:"drain" help:"how long the sessions of an instance that vanished may go on"`
	ReloadEvery   time.Duration `key:"reload_every" help:"the least time between two reloads"`
	HardStopAfter time.Duration `key:"hard_stop_after" help:"how long a worker that was replaced may finish its sessions"`
	MaxReloads    int           `key:"max_reloads" help:"how many reloads a worker that was replaced may see before it is ended"`
	Retries       int           `key:"retries" help:"how often a connection that failed is tried again, each time on another server"`
	DriftEvery    time.Duration `key:"drift_every" help:"how often what HAProxy runs is compared with what it should, at most; 0 for never"`
	SpareBackends int           `key:"spare_backends" help:"about how many backends are kept ready, so that new services need no reload; 0 for none"`

	Timeout Timeout `key:"timeout"`
	Check   Check   `key:"check"`
}

// Check is how HAProxy watches servers, beside what the catalog says of them.
type Check struct {
	Interval     time.Duration `key:"interval" help:"between two checks of a server that serves, unless its service says"`
	FastInterval time.Duration `key:"fast_interval" help:"between two checks while the verdict changes"`
	DownInterval time.Duration `key:"down_interval" help:"between two checks of a server that is down"`
	Rise         int           `key:"rise" help:"checks in a row that take a server in"`
	Fall         int           `key:"fall" help:"checks in a row that take a server out"`
	ErrorLimit   int           `key:"error_limit" help:"failed connections in a row that take a server out at once"`
}

// Timeout are HAProxy's, for services that do not say.
type Timeout struct {
	Connect     time.Duration `key:"connect" help:"to connect to a server"`
	Client      time.Duration `key:"client" help:"of a silent client"`
	Server      time.Duration `key:"server" help:"of a silent server"`
	Tunnel      time.Duration `key:"tunnel" help:"of a silent tunnel (websocket, CONNECT)"`
	HTTPRequest time.Duration `key:"http_request" help:"to receive a request's headers"`
	KeepAlive   time.Duration `key:"http_keep_alive" help:"between two requests of a client"`
	Queue       time.Duration `key:"queue" help:"to wait for a server that is at its maxconn"`
	Fin         time.Duration `key:"fin" help:"of one side when the other has closed"`
}

// Admin is the HTTP interface for people and programs.
type Admin struct {
	Listen string `key:"listen" help:"address of the admin interface; empty for none"`
}

// Log is where and how mi-lb writes what it does: always to standard error.
type Log struct {
	Level  string `key:"level" help:"debug, info, warn or error"`
	Format string `key:"format" help:"text or json"`
}

// Default is what holds where nothing is said.
func Default() Config {
	return Config{
		StateDir: "/var/lib/mi-lb",
		Exposure: "all",
		Locality: "local-first",
		Balance:  "roundrobin",
		Consul:   Consul{Domain: "consul"},
		Listen:   Listen{HTTP: []string{"0.0.0.0:80"}, ServicePortAddress: "0.0.0.0"},
		HAProxy: HAProxy{
			Path: "haproxy", Manage: true, HTTPReuse: "safe", AbortOnClose: true,
			Drain: 30 * time.Second, ReloadEvery: 2 * time.Second, HardStopAfter: 30 * time.Minute, DriftEvery: 5 * time.Second, SpareBackends: 64,
			MaxReloads: 20, Retries: 5,
			Check: Check{Interval: 30 * time.Second, FastInterval: time.Second, DownInterval: time.Second, Rise: 1, Fall: 3, ErrorLimit: 2},
			Timeout: Timeout{
				Connect: time.Second, Client: time.Minute, Server: time.Minute, Tunnel: time.Hour,
				HTTPRequest: 10 * time.Second, KeepAlive: 30 * time.Second, Queue: 30 * time.Second, Fin: 10 * time.Second,
			},
		},
		Admin: Admin{Listen: "127.0.0.1:9090"},
		Log:   Log{Level: "info", Format: "text"},
	}
}
