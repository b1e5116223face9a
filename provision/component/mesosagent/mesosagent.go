package mesosagent

import (
	"bytes"
	_ "embed"
	"net"
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

// Unit is the unit of an agent.
const Unit = "mesos-agent.service"

const (
	name            = "mesos-agent"
	directory       = "/etc/mi-lb/mesos-agent"
	environmentFile = directory + "/environment"
	zkFile          = directory + "/zk"
	credentialFile  = directory + "/credential.json"
	httpFile        = directory + "/http-credentials.json"
	dockerAPIFile   = directory + "/docker-api"
)

var (
	//go:embed unit.service.tmpl
	unitText string
	//go:embed docker-api.sh
	dockerAPI string

	unit = template.Must(template.New(Unit).Parse(unitText))
)

type agent struct{}

// New is the component.
func New() component.Component { return agent{} }

// Name is "mesos-agent".
func (agent) Name() string { return name }

// On is true for nodes with a Mesos agent.
func (agent) On(n *cluster.Node) bool { return n.Has(cluster.MesosAgent) }

// Desired is the program, its configuration and its unit.
func (agent) Desired(p component.Platform, n *cluster.Node) (*desired.Part, []component.Problem) {
	r := vars.For(name, n)
	found := p.Facts[n.Name]
	if found == nil {
		return nil, []component.Problem{fatal(n, "unknown", "see why the machine was not reached", "what cgroups and which Docker %s has is not known", n.Name)}
	}
	s, problems := read(p, n, r)
	if s == nil {
		return nil, problems
	}
	part := &desired.Part{
		Component: name,
		Directories: []desired.Directory{
			{Path: directory, Mode: 0o755, Owner: "root:root"},
			{Path: s.work, Mode: 0o755, Owner: "root:root"},
		},
	}
	install, more := mesos.Add(part, n, r, found.System, name, Unit)
	problems = append(problems, more...)
	if install.Image != "" {
		problems = append(problems, imageProblems(n, found)...)
	}
	var text bytes.Buffer
	err := unit.Execute(&text, map[string]any{
		"Image": install.Image, "Program": install.Program, "Environment": environmentFile, "Directory": directory,
		"WorkDir": s.work, "RuntimeDir": s.runtime, "Socket": s.environment.Get("MESOS_DOCKER_SOCKET"),
		"DockerAPI": dockerAPIFile, "V1": s.v1,
	})
	if err != nil {
		r.Refuse("mesos_image", "leads to a unit that cannot be rendered: %v", err)
	}
	if r.Bad() {
		return nil, append(problems, r.Problems()...)
	}
	secret := func(path string, content redact.Text) desired.File {
		return desired.File{Path: path, Mode: 0o600, Owner: "root:root", Secret: content, Restarts: []string{Unit}}
	}
	env := desired.File{Path: environmentFile, Mode: 0o644, Owner: "root:root", Content: s.environment.String(), Restarts: []string{Unit}}
	part.Files = []desired.File{
		secret(zkFile, mesos.URL(p, n, secrets.ZooKeeperMesos, zookeeper.MesosPath)),
		secret(credentialFile, mesos.OneCredential(p.Secrets.Mesos(n.Datacenter, secrets.MesosAgent))),
		secret(httpFile, mesos.Credentials(mesos.Operator(p, n))),
		{Path: dockerAPIFile, Mode: 0o755, Owner: "root:root", Content: dockerAPI, Restarts: []string{Unit}},
		env,
	}
	part.Units = []desired.Unit{{Name: Unit, Content: text.String(), State: desired.Running}}
	return part, problems
}

// settings are what an agent runs with.
type settings struct {
	environment   *mesos.Environment
	work, runtime string
	address       string // where it listens
	v1            bool   // cgroups of the first version
	allowReset    bool
	drain         bool
}

func read(p component.Platform, n *cluster.Node, r *vars.Reader) (*settings, []component.Problem) {
	ip, err := p.Address(n)
	if err != nil {
		return nil, []component.Problem{fatal(n, "no-address", "set private_ipv4 in the inventory", "%v", err)}
	}
	port := r.Port("mesos_agent_port", mesos.AgentPort)
	s := &settings{
		environment: &mesos.Environment{},
		work:        r.Path("mesos_agent_work_dir", "/var/lib/mesos/agent"),
		runtime:     r.Path("mesos_agent_runtime_dir", "/var/run/mesos"),
		address:     net.JoinHostPort(ip.String(), strconv.Itoa(port)),
		allowReset:  r.Bool("mesos_allow_agent_reset", false),
		drain:       r.Bool("mesos_drain_before_restart", false),
	}
	if found := p.Facts[n.Name]; found != nil {
		s.v1 = found.Cgroup == 1
	}
	attributes := n.MesosAttributes
	if attributes == "" {
		attributes = "dc:" + n.Datacenter + ";node_id:" + n.Name
	}
	e := s.environment
	e.Set("MESOS_MASTER", "file://"+zkFile)
	e.Set("MESOS_IP", ip.String())
	e.Set("MESOS_HOSTNAME", ip.String())
	e.Set("MESOS_PORT", strconv.Itoa(port))
	e.Set("MESOS_WORK_DIR", s.work)
	e.Set("MESOS_RUNTIME_DIR", s.runtime)
	e.SetGiven(r, "MESOS_ATTRIBUTES", "mesos_attributes", attributes)
	if n.MesosResources != "" {
		e.SetGiven(r, "MESOS_RESOURCES", "mesos_resources", n.MesosResources)
	}
	// What is only more than before needs no new agent.
	e.Set("MESOS_RECONFIGURATION_POLICY", "additive")
	e.Set("MESOS_CONTAINERIZERS", "docker,mesos")
	// Images are pulled within it.
	e.Set("MESOS_EXECUTOR_REGISTRATION_TIMEOUT", "5mins")
	e.Set("MESOS_DOCKER_REMOVE_DELAY", "6hrs")
	e.Set("MESOS_DOCKER_SOCKET", r.Path("mesos_docker_socket", "/var/run/docker.sock"))
	if file := r.Path("mesos_docker_config", ""); file != "" {
		e.Set("MESOS_DOCKER_CONFIG", "file://"+file)
	}
	if s.v1 {
		e.Set("MESOS_SYSTEMD_ENABLE_SUPPORT", "true")
		e.Set("MESOS_LAUNCHER", "linux")
		e.Set("MESOS_ISOLATION", "cgroups/cpu,cgroups/mem")
	} else {
		// Mesos knows cgroups of the first version only. Docker limits its containers
		// by itself; tasks without one are not limited.
		e.Set("MESOS_SYSTEMD_ENABLE_SUPPORT", "false")
		e.Set("MESOS_LAUNCHER", "posix")
		e.Set("MESOS_ISOLATION", "posix/cpu,posix/mem")
	}
	e.Set("MESOS_CREDENTIAL", "file://"+credentialFile)
	e.Set("MESOS_HTTP_CREDENTIALS", "file://"+httpFile)
	// Not readwrite: executors do not log in.
	e.Set("MESOS_AUTHENTICATE_HTTP_READONLY", "true")
	e.Options(r, "mesos_agent_options", "MESOS_", "master", "ip", "hostname", "port", "work_dir", "runtime_dir", "attributes", "resources", "credential", "http_credentials", "reconfiguration_policy")
	if !s.v1 {
		refuseCgroups(r, e)
	}
	if r.Bad() {
		return nil, r.Problems()
	}
	return s, nil
}

// refuseCgroups refuses options that Mesos would not start with on this node.
func refuseCgroups(r *vars.Reader, e *mesos.Environment) {
	if r.Bool("mesos_knows_cgroups_v2", false) {
		return
	}
	why := "on a node with cgroups v2 only: Mesos 1.11 ends at once there; boot the node with systemd.unified_cgroup_hierarchy=0 where its systemd still can (up to 257), or set mesos_knows_cgroups_v2 if this build of Mesos does"
	for _, c := range []struct{ variable, bad string }{
		{"MESOS_ISOLATION", "cgroups/"}, {"MESOS_LAUNCHER", "linux"}, {"MESOS_SYSTEMD_ENABLE_SUPPORT", "true"},
	} {
		if value := e.Get(c.variable); strings.Contains(value, c.bad) {
			r.Refuse("mesos_agent_options", "has %s: %s, %s", strings.ToLower(strings.TrimPrefix(c.variable, "MESOS_")), value, why)
		}
	}
}

// imageProblems are those of an agent in a container.
func imageProblems(n *cluster.Node, found *facts.Facts) []component.Problem {
	if found.Cgroup != 2 {
		return nil
	}
	return []component.Problem{fatal(n, "cgroups", "set mesos_source to package, file or preinstalled for this node, or boot it with cgroups v1",
		"images of Mesos have a Docker client and expect cgroups v1, and %s has cgroups v2", n.Name)}
}

// Variables are those that it reads.
func (agent) Variables() []cluster.VariableDoc {
	return []cluster.VariableDoc{
		{Name: "mesos_agent_port", Doc: "port of agents; default 5051"},
		{Name: "mesos_agent_work_dir", Doc: "where agents keep their state and sandboxes; default /var/lib/mesos/agent"},
		{Name: "mesos_agent_runtime_dir", Doc: "what an agent keeps until the machine is started anew; default /var/run/mesos"},
		{Name: "mesos_agent_options", Doc: "mapping of further flags of agents: {gc_delay: 2days}"},
		{Name: "mesos_docker_socket", Doc: "Docker's socket; default /var/run/docker.sock"},
		{Name: "mesos_docker_config", Doc: "file on the node with logins of image registries, as ~/.docker/config.json"},
		{Name: "mesos_knows_cgroups_v2", Doc: "this build of Mesos knows cgroups v2, so that mesos_agent_options may use them; default no"},
		{Name: "mesos_allow_agent_reset", Doc: "changed attributes or resources that Mesos does not accept may drain an agent and have it register anew; default no"},
		{Name: "mesos_drain_before_restart", Doc: "have tasks run elsewhere while an agent is restarted, though they outlive it; default no"},
		{Name: "mesos_drain_grace", Doc: "how long tasks of an agent that is drained may take to end; default 10m"},
	}
}
