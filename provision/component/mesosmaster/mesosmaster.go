package mesosmaster

import (
	"bytes"
	_ "embed"
	"fmt"
	"strconv"
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

// Unit is the unit of a master.
const Unit = "mesos-master.service"

const (
	name            = "mesos-master"
	user            = "mesos"
	directory       = "/etc/mi-lb/mesos-master"
	environmentFile = directory + "/environment"
	zkFile          = directory + "/zk"
	credentialsFile = directory + "/credentials.json"
	aclsFile        = directory + "/acls.json"
)

//go:embed unit.service.tmpl
var unitText string

var unit = template.Must(template.New(Unit).Parse(unitText))

type master struct{}

// New is the component.
func New() component.Component { return master{} }

// Name is "mesos-master".
func (master) Name() string { return name }

// On is true for nodes with a Mesos master.
func (master) On(n *cluster.Node) bool { return n.Has(cluster.MesosMaster) }

// Desired is the program, its configuration and its unit.
func (master) Desired(p component.Platform, n *cluster.Node) (*desired.Part, []component.Problem) {
	r := vars.For(name, n)
	d, _ := p.Cluster.Datacenter(n.Datacenter)
	work := r.Path("mesos_master_work_dir", "/var/lib/mesos/master")
	part := &desired.Part{
		Component: name,
		Users:     []desired.User{{Name: user, Home: "/var/lib/mesos"}},
		Directories: []desired.Directory{
			{Path: directory, Mode: 0o755, Owner: "root:root"},
			{Path: work, Mode: 0o750, Owner: user + ":" + user},
		},
	}
	var system facts.System
	if found := p.Facts[n.Name]; found != nil {
		system = found.System
	}
	install, problems := mesos.Add(part, n, r, system, name, Unit)
	environment := settings(p, n, d, r, work)
	acls := r.Object("mesos_acls")
	aclText, err := aclDocument(acls)
	if err != nil {
		r.Refuse("mesos_acls", "cannot be written as JSON: %v", err)
	}
	var text bytes.Buffer
	err = unit.Execute(&text, map[string]string{
		"Image": install.Image, "Program": install.Program, "User": user,
		"Environment": environmentFile, "Directory": directory, "WorkDir": work,
	})
	if err != nil {
		r.Refuse("mesos_image", "leads to a unit that cannot be rendered: %v", err)
	}
	if r.Bad() {
		return nil, append(problems, r.Problems()...)
	}
	secret := func(path string, content redact.Text) desired.File {
		return desired.File{Path: path, Mode: 0o600, Owner: user + ":" + user, Secret: content, Restarts: []string{Unit}}
	}
	logins := []secrets.Login{}
	for _, principal := range []string{secrets.MesosMarathon, secrets.MesosAgent, secrets.MesosOperator} {
		logins = append(logins, p.Secrets.Mesos(n.Datacenter, principal))
	}
	change := look(p, d)
	env := desired.File{Path: environmentFile, Mode: 0o644, Owner: "root:root", Content: environment.String(), Restarts: []string{Unit}}
	if change.losesRegistry() && r.Bool("mesos_accept_registry_loss", false) {
		// Replicas that know nothing agree on nothing; ones that know different
		// things never would.
		env.Then = "systemctl stop " + Unit + " && rm -rf " + work + "/replicated_log"
	}
	part.Files = []desired.File{
		// Mesos reads the value of any flag from a file, which keeps the password
		// out of the environment.
		secret(zkFile, mesos.URL(p, n, secrets.ZooKeeperMesos, zookeeper.MesosPath)),
		secret(credentialsFile, mesos.Credentials(logins...)),
		{Path: aclsFile, Mode: 0o644, Owner: "root:root", Content: aclText, Restarts: []string{Unit}},
		env,
	}
	state := desired.Running
	if change.waits(n) {
		state = desired.Stopped
	}
	part.Units = []desired.Unit{{Name: Unit, Content: text.String(), State: state, Quorum: true}}
	return part, problems
}

// settings are the environment of a master.
func settings(p component.Platform, n *cluster.Node, d *cluster.Datacenter, r *vars.Reader, work string) *mesos.Environment {
	address := n.Address.String()
	e := &mesos.Environment{}
	e.Set("MESOS_ZK", "file://"+zkFile)
	e.Set("MESOS_QUORUM", strconv.Itoa(d.Quorum(cluster.MesosMaster)))
	e.SetGiven(r, "MESOS_CLUSTER", "mesos_cluster", r.Text("mesos_cluster", n.Datacenter))
	e.Set("MESOS_IP", address)
	// Without it a master looks up its own name, which names services of the platform may be needed for.
	e.Set("MESOS_HOSTNAME", address)
	e.Set("MESOS_PORT", strconv.Itoa(r.Port("mesos_master_port", mesos.MasterPort)))
	e.Set("MESOS_WORK_DIR", work)
	e.Set("MESOS_ZK_SESSION_TIMEOUT", "10secs")
	e.Set("MESOS_AGENT_PING_TIMEOUT", "15secs")
	e.Set("MESOS_MAX_AGENT_PING_TIMEOUTS", "5")
	e.Set("MESOS_AGENT_REREGISTER_TIMEOUT", "10mins")
	e.Set("MESOS_RECOVERY_AGENT_REMOVAL_LIMIT", removalLimit(len(d.With(cluster.MesosAgent))))
	e.Set("MESOS_AUTHENTICATE_FRAMEWORKS", "true")
	e.Set("MESOS_AUTHENTICATE_AGENTS", "true")
	e.Set("MESOS_AUTHENTICATE_HTTP_READONLY", "true")
	e.Set("MESOS_AUTHENTICATE_HTTP_READWRITE", "true")
	e.Set("MESOS_AUTHENTICATE_HTTP_FRAMEWORKS", "true")
	e.Set("MESOS_HTTP_FRAMEWORK_AUTHENTICATORS", "basic")
	e.Set("MESOS_CREDENTIALS", "file://"+credentialsFile)
	e.Set("MESOS_ACLS", "file://"+aclsFile)
	own := []string{"zk", "quorum", "ip", "hostname", "port", "work_dir", "credentials", "acls"}
	e.Options(r, "mesos_master_options", "MESOS_", own...)
	return e
}

// removalLimit is how many of the agents may be missing when a master takes over:
// a quarter, but at least one of them, or a single dead machine would end every
// master of a small datacenter.
func removalLimit(agents int) string {
	if agents == 0 {
		return "100%"
	}
	return fmt.Sprintf("%d%%", max(25, (100+agents-1)/agents))
}

// Variables are those that it reads.
func (master) Variables() []cluster.VariableDoc {
	return []cluster.VariableDoc{
		{Name: "mesos_cluster", Doc: "name of the cluster that Mesos shows; default the datacenter"},
		{Name: "mesos_master_port", Doc: "port of masters; default 5050"},
		{Name: "mesos_master_work_dir", Doc: "where masters keep the registry; default /var/lib/mesos/master"},
		{Name: "mesos_master_options", Doc: "mapping of further flags of masters: {allocation_interval: 500ms}"},
		{Name: "mesos_acls", Doc: "mapping with Mesos's ACLs; default permissive, with register_agents and register_frameworks for the platform's own principals"},
		{Name: "mesos_prefix", Doc: "where preinstalled Mesos is: PREFIX/sbin/mesos-master; default /usr"},
		{Name: "mesos_accept_registry_loss", Doc: "with it a single master may become several: agents register anew, and tasks of agents that do not come back in time are lost; default no"},
	}
}
