package registrator

import (
	"bytes"
	_ "embed"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"text/template"

	"github.com/mi-lb/mi-lb/deploy"
	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/vars"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/redact"
	"github.com/mi-lb/mi-lb/provision/secrets"
)

// Unit is the unit that registers containers.
const Unit = "registrator.service"

const (
	name      = "registrator"
	program   = "/usr/bin/mi-lb"
	envFile   = "/etc/mi-lb/registrator.env"
	tokenFile = "/etc/mi-lb/registrator.token"
	// imageEnvFile is what docker run reads; only root may.
	imageEnvFile = "/etc/mi-lb/registrator-image.env"
)

//go:embed image.service.tmpl
var imageUnitText string

var imageUnit = template.Must(template.New("registrator.service").Parse(imageUnitText))

type registrator struct{}

// New is the component.
func New() component.Component { return registrator{} }

// Name is "registrator".
func (registrator) Name() string { return name }

// On is true where containers run: on nodes with a Mesos agent.
func (registrator) On(n *cluster.Node) bool { return n.Has(cluster.MesosAgent) }

// settings are what a registrator runs with.
type settings struct {
	IP      string
	Node    string
	Tags    string
	Resync  int
	Image   string
	EnvFile string
	listen  string
	options []string
}

// word are tags that need no quotes in a unit's environment; a template of
// registrator's language has more than that.
var word = regexp.MustCompile(`^[A-Za-z0-9._=:/@+-]+$`)

func read(p component.Platform, n *cluster.Node) (*settings, []component.Problem) {
	r := vars.For(name, n)
	s := &settings{Node: n.Name, EnvFile: imageEnvFile, Resync: r.Int("registrator_resync", 60, 5, 86400)}
	ip, err := p.Address(n)
	if err != nil {
		return nil, []component.Problem{{
			Fatal: true, Code: "no-address", Node: n.Name, Component: name,
			Message: err.Error(), Advice: "set private_ipv4 in the inventory",
		}}
	}
	s.IP = ip.String()
	tags := r.List("registrator_tags", []string{n.Datacenter})
	for _, tag := range tags {
		if !word.MatchString(tag) {
			r.Refuse("registrator_tags", "has %q; tags have letters, digits and ._=:/@+- only", tag)
		}
	}
	s.Tags = strings.Join(tags, ",")
	s.listen = net.JoinHostPort("127.0.0.1", strconv.Itoa(r.Port("registrator_port", 9095)))
	s.options = []string{"-ip", s.IP, "-hostname", n.Name, "-resync", strconv.Itoa(s.Resync), "-listen", s.listen}
	if r.Bool("registrator_marathon_names", true) {
		s.options = append(s.options, "-marathon-names")
	}
	if r.Bool("registrator_explicit", false) {
		s.options = append(s.options, "-explicit")
	}
	if r.Bool("registrator_script_checks", false) {
		s.options = append(s.options, "-script-checks")
	}
	if r.Bool("registrator_cleanup", true) {
		s.options = append(s.options, "-cleanup")
	}
	if s.Tags != "" {
		s.options = append(s.options, "-tags", s.Tags)
	}
	a := n.Artefacts[cluster.ComponentRegistrator]
	switch a.Source {
	case cluster.SourceImage:
		s.Image = a.Image
		if a.Version != "" && !strings.Contains(a.Image[strings.LastIndexByte(a.Image, '/')+1:], ":") {
			s.Image += ":" + a.Version
		}
	case cluster.SourceDefault, cluster.SourceFile, cluster.SourcePreinstalled:
	default:
		r.Refuse("registrator_source", "is %s; registrator is the mi-lb program itself, or an image", a.Source)
	}
	if r.Bad() {
		return nil, r.Problems()
	}
	return s, nil
}

// Desired is the unit, its settings and its token.
func (registrator) Desired(p component.Platform, n *cluster.Node) (*desired.Part, []component.Problem) {
	s, problems := read(p, n)
	if s == nil {
		return nil, problems
	}
	token := p.Secrets.ConsulToken(secrets.RegistratorPurpose).Secret.Reveal()
	if s.Image != "" {
		var unit bytes.Buffer
		if err := imageUnit.Execute(&unit, s); err != nil {
			return nil, []component.Problem{{
				Fatal: true, Code: "template", Node: n.Name, Component: name,
				Message: fmt.Sprintf("render %s: %v", Unit, err), Advice: "report this as a fault of mi-lb",
			}}
		}
		return &desired.Part{
			Component: name,
			Files: []desired.File{{
				Path: imageEnvFile, Mode: 0o600, Owner: "root:root",
				Secret: redact.New("CONSUL_HTTP_TOKEN=" + token + "\n"), Restarts: []string{Unit},
			}},
			Units: []desired.Unit{{Name: Unit, Content: unit.String(), State: desired.Running}},
		}, nil
	}
	artefact := n.Artefacts[cluster.ComponentRegistrator]
	part := &desired.Part{
		Component: name,
		Files: []desired.File{
			{
				// The unit runs as a user of its own in the group docker.
				Path: tokenFile, Mode: 0o640, Owner: "root:docker", Secret: redact.New(token + "\n"), Restarts: []string{Unit},
			},
			{
				Path: envFile, Mode: 0o644, Owner: "root:root", Restarts: []string{Unit},
				Content: "# Written by mi-lb bootstrap, which overwrites changes.\n" +
					"REGISTRATOR_OPTIONS=" + strings.Join(s.options, " ") + "\n" +
					"CONSUL_HTTP_TOKEN_FILE=" + tokenFile + "\n",
			},
		},
		Units: []desired.Unit{{Name: Unit, Content: deploy.RegistratorUnit, State: desired.Running}},
	}
	if artefact.Source != cluster.SourcePreinstalled {
		if artefact.Source == cluster.SourceDefault {
			artefact = cluster.Artefact{Source: cluster.SourceFile, File: p.Program}
		}
		part.Programs = []desired.Program{{Path: program, Mode: 0o755, Artefact: artefact, Restarts: []string{Unit}}}
	}
	return part, nil
}

// Variables are those that it reads.
func (registrator) Variables() []cluster.VariableDoc {
	return []cluster.VariableDoc{
		{Name: "registrator_tags", Doc: "tags of all services of a node's containers, a list; default the datacenter"},
		{Name: "registrator_marathon_names", Doc: "name Marathon's tasks for their app where they give no SERVICE_NAME; default yes"},
		{Name: "registrator_explicit", Doc: "register only containers that give a SERVICE_NAME; default no"},
		{Name: "registrator_script_checks", Doc: "pass on checks that run commands on the node; default no"},
		{Name: "registrator_cleanup", Doc: "also deregister what another registrator left behind on the node; default yes"},
		{Name: "registrator_resync", Doc: "compare with the agent at least every so many seconds, 5 to 86400; default 60"},
		{Name: "registrator_port", Doc: "port on 127.0.0.1 for metrics and health; default 9095"},
	}
}
