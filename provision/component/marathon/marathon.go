package marathon

import (
	"bytes"
	_ "embed"
	"net"
	"path"
	"strconv"
	"strings"
	"text/template"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/internal/mesos"
	"github.com/mi-lb/mi-lb/provision/component/vars"
	"github.com/mi-lb/mi-lb/provision/component/zookeeper"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
	"github.com/mi-lb/mi-lb/provision/redact"
	"github.com/mi-lb/mi-lb/provision/secrets"
)

// Unit is the unit of a Marathon.
const Unit = "marathon.service"

const (
	name            = "marathon"
	user            = "marathon"
	directory       = "/etc/mi-lb/marathon"
	environmentFile = directory + "/environment"
	secretFile      = directory + "/secret-environment"
	mesosSecretFile = directory + "/mesos-secret"
	tree            = "/opt/marathon"
)

//go:embed unit.service.tmpl
var unitText string

var unit = template.Must(template.New(Unit).Parse(unitText))

type marathon struct{}

// New is the component.
func New() component.Component { return marathon{} }

// Name is "marathon".
func (marathon) Name() string { return name }

// On is true for nodes with Marathon.
func (marathon) On(n *cluster.Node) bool { return n.Has(cluster.Marathon) }

// Desired is the program, its configuration and its unit.
func (marathon) Desired(p component.Platform, n *cluster.Node) (*desired.Part, []component.Problem) {
	r := vars.For(name, n)
	work := r.Path("marathon_work_dir", "/var/lib/marathon")
	part := &desired.Part{
		Component: name,
		Users:     []desired.User{{Name: user, Home: work}},
		Directories: []desired.Directory{
			{Path: directory, Mode: 0o755, Owner: "root:root"},
			{Path: work, Mode: 0o750, Owner: user + ":" + user},
			{Path: work + "/backup", Mode: 0o750, Owner: user + ":" + user},
		},
	}
	var system facts.System
	if found := p.Facts[n.Name]; found != nil {
		system = found.System
	}
	install, problems := add(part, n, r, system)
	environment := settings(p, n, r, work, install)
	var text bytes.Buffer
	err := unit.Execute(&text, map[string]string{
		"Image": install.image, "Program": install.program, "User": user, "Directory": directory, "WorkDir": work,
		"Environment": environmentFile, "SecretEnvironment": secretFile,
	})
	if err != nil {
		r.Refuse("marathon_image", "leads to a unit that cannot be rendered: %v", err)
	}
	if r.Bad() {
		return nil, append(problems, r.Problems()...)
	}
	logins := &mesos.Environment{}
	logins.Set("MARATHON_MASTER", mesos.URL(p, n, secrets.ZooKeeperMesos, zookeeper.MesosPath).Reveal())
	logins.Set("MARATHON_ZK", mesos.URL(p, n, secrets.ZooKeeperMarathon, zookeeper.MarathonPath).Reveal())
	// As a flag it would be in the list of processes.
	logins.Set("MESOSPHERE_HTTP_CREDENTIALS", p.Secrets.Marathon(n.Datacenter).Pair().Reveal())
	part.Files = []desired.File{
		{
			// The bytes are the secret: a newline would be a part of it.
			Path: mesosSecretFile, Mode: 0o600, Owner: user + ":" + user, Restarts: []string{Unit},
			Secret: p.Secrets.Mesos(n.Datacenter, secrets.MesosMarathon).Password,
		},
		{Path: secretFile, Mode: 0o600, Owner: "root:root", Secret: redact.New(logins.String()), Restarts: []string{Unit}},
		{Path: environmentFile, Mode: 0o644, Owner: "root:root", Content: environment.String(), Restarts: []string{Unit}},
	}
	part.Units = []desired.Unit{{Name: Unit, Content: text.String(), State: desired.Running, Quorum: true}}
	return part, problems
}

// install is how Marathon gets onto a node.
type install struct{ program, image, library string }

// add adds to a part what brings Marathon onto the node: itself, Java and libmesos.
func add(part *desired.Part, n *cluster.Node, r *vars.Reader, system facts.System) (install, []component.Problem) {
	a := n.Artefacts[cluster.ComponentMarathon]
	var i install
	var problems []component.Problem
	switch a.Source {
	case cluster.SourceDefault, cluster.SourcePackage:
		packageName := a.Package
		if packageName == "" {
			packageName = "marathon"
		}
		part.Packages = append(part.Packages, desired.Package{Name: packageName, Version: a.Version, Restarts: []string{Unit}})
		i.program = "/usr/share/marathon/bin/marathon"
		if a.Source == cluster.SourceDefault {
			problems = append(problems, component.Problem{
				Code: "artefact", Node: n.Name, Component: name,
				Message: "no public repository has had Marathon since 2021; its package " + packageName + " must come from one of your own",
				Advice:  "set marathon_source and marathon_package, marathon_file, marathon_url or marathon_image (mesosphere/marathon:v1.11.24) in the inventory",
			})
		}
	case cluster.SourceFile, cluster.SourceURL:
		if !mesos.IsArchive(a) {
			r.Refuse("marathon_"+string(a.Source), "is no archive; give Marathon's release, a .tgz that has bin/marathon")
			break
		}
		part.Programs = append(part.Programs, desired.Program{Path: tree, Tree: true, Mode: 0o755, Artefact: a, Restarts: []string{Unit}})
		i.program = tree + "/bin/marathon"
	case cluster.SourceImage:
		// Java and libmesos are in it.
		i.image = a.Image
		if a.Version != "" && !strings.Contains(path.Base(a.Image), ":") {
			i.image += ":" + a.Version
		}
		return i, problems
	case cluster.SourcePreinstalled:
		i.program = r.Path("marathon_program", "/usr/share/marathon/bin/marathon")
	}
	if a.Source != cluster.SourcePreinstalled {
		java := "default-jre-headless"
		if system.Family == facts.RedHat {
			java = "java-1.8.0-openjdk-headless"
		}
		if java = r.Matching("marathon_java_package", java, packageName, "the name of a package"); java != "none" {
			part.Packages = append(part.Packages, desired.Package{Name: java})
		}
	}
	if n.Artefacts[cluster.ComponentMesos].Source == cluster.SourceImage {
		r.Refuse("mesos_source", "is image, and Marathon needs libmesos on the node: set marathon_image, too")
		return i, problems
	}
	native, more := mesos.Add(part, n, r, system, "mesos-master", Unit)
	i.library = r.Path("marathon_libmesos", native.Library)
	if !n.Has(cluster.MesosMaster) {
		problems = append(problems, more...) // else the master says so
	}
	return i, problems
}

// settings are the environment of a Marathon, without what is secret.
func settings(p component.Platform, n *cluster.Node, r *vars.Reader, work string, i install) *mesos.Environment {
	address := n.Address.String()
	listen := address
	if n.WANAddress != n.Address {
		// Edges of other datacenters come in by another address.
		listen = "0.0.0.0"
	}
	e := &mesos.Environment{}
	// An empty value is how Marathon reads a flag that is given.
	e.Set("MARATHON_HA", "")
	e.Set("MARATHON_HOSTNAME", address)
	e.Set("MARATHON_HTTP_ADDRESS", listen)
	e.Set("MARATHON_HTTP_PORT", strconv.Itoa(r.Port("marathon_http_port", 8080)))
	least := r.Int("marathon_local_port_min", 10000, 1, 65535)
	most := r.Int("marathon_local_port_max", 20000, 1, 65535)
	if least >= most {
		r.Refuse("marathon_local_port_min", "is %d, and must be below marathon_local_port_max, %d", least, most)
	}
	e.Set("MARATHON_LOCAL_PORT_MIN", strconv.Itoa(least))
	e.Set("MARATHON_LOCAL_PORT_MAX", strconv.Itoa(most))
	e.Set("MARATHON_MESOS_AUTHENTICATION", "")
	e.Set("MARATHON_MESOS_AUTHENTICATION_PRINCIPAL", secrets.MesosMarathon)
	e.Set("MARATHON_MESOS_AUTHENTICATION_SECRET_FILE", mesosSecretFile)
	if role := r.Text("marathon_mesos_role", ""); role != "" {
		e.SetGiven(r, "MARATHON_MESOS_ROLE", "marathon_mesos_role", role)
	}
	e.SetGiven(r, "MARATHON_FRAMEWORK_NAME", "marathon_framework_name", r.Text("marathon_framework_name", "marathon"))
	e.Set("MARATHON_FAILOVER_TIMEOUT", "604800")
	// A new version of Marathon backs up what it is about to migrate.
	e.Set("MARATHON_BACKUP_LOCATION", "file://"+work+"/backup/before-migration")
	e.SetGiven(r, "MARATHON_ENABLE_FEATURES", "marathon_features", strings.Join(r.List("marathon_features", []string{"task_killing"}), ","))
	e.Set("MARATHON_TASK_LAUNCH_TIMEOUT", "300000")
	e.Set("MARATHON_METRICS_PROMETHEUS", "")
	// Or Mesos would be told to answer to whatever the host's name resolves to.
	e.Set("LIBPROCESS_IP", address)
	if i.library != "" {
		e.Set("MESOS_NATIVE_JAVA_LIBRARY", i.library)
	}
	e.SetGiven(r, "JAVA_OPTS", "marathon_java_opts", r.Text("marathon_java_opts", "-Xms256m -Xmx512m"))
	e.Options(r, "marathon_options", "MARATHON_", "zk", "master", "hostname", "http_address", "http_port", "http_credentials",
		"mesos_authentication", "mesos_authentication_principal", "mesos_authentication_secret_file")
	return e
}

// address is where a Marathon answers on its own machine.
func address(n *cluster.Node) string {
	return net.JoinHostPort(n.Address.String(), strconv.Itoa(vars.For(name, n).Port("marathon_http_port", 8080)))
}

// Variables are those that it reads.
func (marathon) Variables() []cluster.VariableDoc {
	return []cluster.VariableDoc{
		{Name: "marathon_http_port", Doc: "port of Marathon's API; default 8080"},
		{Name: "marathon_local_port_min", Doc: "first service port that is assigned; default 10000"},
		{Name: "marathon_local_port_max", Doc: "end of the service ports that are assigned, itself not included; default 20000"},
		{Name: "marathon_mesos_role", Doc: "role that Marathon registers with; default Mesos's own"},
		{Name: "marathon_framework_name", Doc: "name that Mesos shows; default marathon"},
		{Name: "marathon_features", Doc: "features that are enabled, a list; default task_killing"},
		{Name: "marathon_java_opts", Doc: "options of Java; default -Xms256m -Xmx512m"},
		{Name: "marathon_java_package", Doc: "package with Java, or none where another one brings it; Marathon 1.11 was made for Java 8. Default default-jre-headless on Debian, java-1.8.0-openjdk-headless on RHEL"},
		{Name: "marathon_libmesos", Doc: "libmesos.so on the node; default that of the installed Mesos"},
		{Name: "marathon_program", Doc: "preinstalled Marathon; default /usr/share/marathon/bin/marathon"},
		{Name: "marathon_work_dir", Doc: "Marathon's own directory, with its backups; default /var/lib/marathon"},
		{Name: "marathon_allow_version_change", Doc: "accept a change of the version that Marathon does not migrate by itself; default no"},
		{Name: "marathon_options", Doc: "mapping of further flags: {task_launch_timeout: 600000}; a flag without a value is empty"},
	}
}
