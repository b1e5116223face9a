package zookeeper

import (
	"embed"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/vars"
)

// settings are what the inventory says of one server.
type settings struct {
	ID         int
	Datacenter string
	Address    string
	Listen     string // the address that clients connect to; empty is all
	Client     int
	Peer       int
	Election   int

	DataDir, TxnDir, ConfigDir string
	TickTime                   int // milliseconds
	InitLimit, SyncLimit       int // ticks
	MaxConnections             int // of one client address
	EnforceAuth                bool
	QuorumTLS                  string
	SuperDigest                string
	Extra                      []setting
	Servers                    []settings // all of the datacenter, by id

	User, Java, Heap, JavaOptions, Classpath, JavaPackage, LogLevel string
}

type setting struct{ Key, Value string }

// variables are those of the inventory that it reads.
var variables = []cluster.VariableDoc{
	{Name: "zookeeper_client_port", Doc: "port for clients; default 2181"},
	{Name: "zookeeper_peer_port", Doc: "port that followers connect to; default 2888"},
	{Name: "zookeeper_election_port", Doc: "port for electing the leader; default 3888"},
	{Name: "zookeeper_listen", Doc: "address that clients connect to; default all of the machine's"},
	{Name: "zookeeper_data_dir", Doc: "directory of snapshots and of the server's id; default /var/lib/zookeeper"},
	{Name: "zookeeper_txn_dir", Doc: "directory of the transaction log, if it has a disk of its own"},
	{Name: "zookeeper_config_dir", Doc: "default /etc/mi-lb/zookeeper"},
	{Name: "zookeeper_tick_time", Doc: "milliseconds of one tick; sessions last 2 to 20 of them; default 2000"},
	{Name: "zookeeper_init_limit", Doc: "ticks that a follower may take to connect and catch up; default 20"},
	{Name: "zookeeper_sync_limit", Doc: "ticks that a follower may be behind; default 5"},
	{Name: "zookeeper_max_client_connections", Doc: "connections that one address may have; default 200"},
	{Name: "zookeeper_enforce_auth", Doc: "refuse sessions that show no digest at all; default no, as old clients of Mesos are not known to cope"},
	{Name: "zookeeper_quorum_tls", Doc: "require, prefer, accept or off: TLS between servers; default require. An ensemble that runs is changed in steps: off, accept, prefer, require"},
	{Name: "zookeeper_config", Doc: "mapping of further keys of zoo.cfg"},
	{Name: "zookeeper_java", Doc: "path of java; default /usr/bin/java"},
	{Name: "zookeeper_java_package", Doc: "package that has java, where ZooKeeper is not from a package; default that of the system"},
	{Name: "zookeeper_java_options", Doc: "further options of java"},
	{Name: "zookeeper_heap", Doc: "size of java's heap; default 512m"},
	{Name: "zookeeper_classpath", Doc: "where ZooKeeper's classes are, where it is preinstalled"},
	{Name: "zookeeper_log_level", Doc: "ERROR, WARN, INFO or DEBUG; default INFO"},
	{Name: "zookeeper_user", Doc: "user that it runs as; default zookeeper"},
}

var (
	configKey   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	heapSize    = regexp.MustCompile(`[0-9]+[kmgKMG]`)
	userName    = regexp.MustCompile(`[a-z_][a-z0-9_-]*`)
	javaOptions = regexp.MustCompile(`[A-Za-z0-9 ._:,=/+@-]*`)
	classpath   = regexp.MustCompile(`[A-Za-z0-9._:/*+@-]+`)
	listen      = regexp.MustCompile(`[0-9.]*`)
)

// ownKeys of zoo.cfg have variables, or would undo what keeps an ensemble safe.
var ownKeys = []string{
	"tickTime", "initLimit", "syncLimit", "dataDir", "dataLogDir", "clientPort", "clientPortAddress", "maxClientCnxns", "reconfigEnabled",
	"standaloneEnabled", "dynamicConfigFile", "sslQuorum", "portUnification", "db.autocreate", "skipACL", "4lw.commands.whitelist",
	"DigestAuthenticationProvider.superDigest", "admin.enableServer",
}

// readServer reads what other servers need to know of one, too.
func readServer(r *vars.Reader, n *cluster.Node) settings {
	return settings{
		ID: n.ZooKeeperID, Datacenter: n.Datacenter, Address: n.Address.String(),
		Client:   r.Port("zookeeper_client_port", 2181),
		Peer:     r.Port("zookeeper_peer_port", 2888),
		Election: r.Port("zookeeper_election_port", 3888),
		Listen:   r.Matching("zookeeper_listen", "", listen, "an IPv4 address"),
		DataDir:  r.Path("zookeeper_data_dir", "/var/lib/zookeeper"),
		TxnDir:   r.Path("zookeeper_txn_dir", ""),
	}
}

// read reads everything about one server.
func read(p component.Platform, n *cluster.Node) (settings, []component.Problem) {
	r := vars.For(Name, n)
	s := readServer(r, n)
	s.ConfigDir = r.Path("zookeeper_config_dir", "/etc/mi-lb/zookeeper")
	s.TickTime = r.Int("zookeeper_tick_time", 2000, 100, 60000)
	s.InitLimit = r.Int("zookeeper_init_limit", 20, 2, 10000)
	s.SyncLimit = r.Int("zookeeper_sync_limit", 5, 2, 10000)
	s.MaxConnections = r.Int("zookeeper_max_client_connections", 200, 0, 1<<20)
	s.EnforceAuth = r.Bool("zookeeper_enforce_auth", false)
	s.QuorumTLS = r.OneOf("zookeeper_quorum_tls", "require", "require", "prefer", "accept", "off")
	s.Java = r.Path("zookeeper_java", "/usr/bin/java")
	s.JavaPackage = r.Text("zookeeper_java_package", "")
	s.JavaOptions = r.Matching("zookeeper_java_options", "", javaOptions, "options of java without quotes")
	s.Heap = r.Matching("zookeeper_heap", "512m", heapSize, `a size such as "512m"`)
	s.Classpath = r.Matching("zookeeper_classpath", "", classpath, "a class path")
	s.LogLevel = r.OneOf("zookeeper_log_level", "INFO", "ERROR", "WARN", "INFO", "DEBUG")
	s.User = r.Matching("zookeeper_user", "zookeeper", userName, "the name of a user")
	s.SuperDigest = p.Secrets.ZooKeeper(n.Datacenter, "super").Digest()
	if s.Listen != "" {
		if a, err := netip.ParseAddr(s.Listen); err != nil || !a.Is4() {
			r.Refuse("zookeeper_listen", "is %q, which is not an IPv4 address", s.Listen)
		}
	}
	extra := r.Map("zookeeper_config")
	for _, key := range slices.Sorted(maps.Keys(extra)) {
		switch {
		case !configKey.MatchString(key) || strings.HasPrefix(key, "server.") || strings.HasPrefix(key, "ssl.quorum."):
			r.Refuse("zookeeper_config", "has the key %q, which cannot be set this way", key)
		case slices.Contains(ownKeys, key):
			r.Refuse("zookeeper_config", "has the key %q, which is not for the inventory to set or has a variable of its own", key)
		case strings.ContainsAny(extra[key], "\\#") || strings.TrimSpace(extra[key]) != extra[key]:
			r.Refuse("zookeeper_config", "has a value for %q that zoo.cfg cannot hold", key)
		}
		s.Extra = append(s.Extra, setting{key, extra[key]})
	}
	problems := r.Problems()
	d, _ := p.Cluster.Datacenter(n.Datacenter)
	for _, member := range d.With(cluster.ZooKeeper) {
		mr := vars.For(Name, member)
		s.Servers = append(s.Servers, readServer(mr, member))
		if member != n {
			problems = append(problems, mr.Problems()...)
		}
	}
	slices.SortFunc(s.Servers, func(a, b settings) int { return a.ID - b.ID })
	return s, problems
}

// dial is where a server is asked from its own machine.
func (s settings) dial() string {
	if s.Listen != "" {
		return s.Listen + ":" + strconv.Itoa(s.Client)
	}
	return "127.0.0.1:" + strconv.Itoa(s.Client)
}

// remote is where a server is asked from other machines of the datacenter.
func (s settings) remote() string {
	if s.Listen != "" {
		return s.Listen + ":" + strconv.Itoa(s.Client)
	}
	return s.Address + ":" + strconv.Itoa(s.Client)
}

// initializeDir is where the file is that lets a server begin with nothing.
func (s settings) initializeDir() string {
	if s.TxnDir != "" {
		return s.TxnDir
	}
	return s.DataDir
}

// Servers are the servers of a datacenter as clients connect to them:
// "10.0.0.1:2181,10.0.0.2:2181", by id.
func Servers(d *cluster.Datacenter) string {
	var all []settings
	for _, n := range d.With(cluster.ZooKeeper) {
		all = append(all, readServer(vars.For(Name, n), n))
	}
	slices.SortFunc(all, func(a, b settings) int { return a.ID - b.ID })
	var texts []string
	for _, s := range all {
		texts = append(texts, s.remote())
	}
	return strings.Join(texts, ",")
}

//go:embed files
var files embed.FS

var templates = template.Must(template.New("").ParseFS(files, "files/*.tmpl"))

func render(name string, s settings) string {
	var b strings.Builder
	if err := templates.ExecuteTemplate(&b, name+".tmpl", s); err != nil {
		// The templates are part of the program and their data is typed: they fail for
		// everybody or for nobody.
		panic(fmt.Sprintf("render %s: %v", name, err))
	}
	return b.String()
}
