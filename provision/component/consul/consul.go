package consul

import (
	"slices"
	"strings"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/base"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/redact"
	"github.com/mi-lb/mi-lb/provision/secrets"
	"github.com/mi-lb/mi-lb/provision/ssh"
)

// Names of the components, and of the unit that both have.
const (
	ServerName = "consul-server"
	ClientName = "consul-client"
	Unit       = "consul.service"
)

// NewServer is the component of servers. It is a [component.Roller], a
// [component.Quorate], a [component.Configurer] and a [component.Saver].
func NewServer() component.Component { return server{agent{ServerName, cluster.ConsulServer}} }

// NewClient is the component of agents that are no servers.
func NewClient() component.Component { return client{agent{ClientName, cluster.ConsulClient}} }

// agent is what servers and clients have in common.
type agent struct {
	name string
	role cluster.Role
}

type (
	server struct{ agent }
	client struct{ agent }
)

var (
	_ component.Roller     = server{}
	_ component.Quorate    = server{}
	_ component.Configurer = server{}
	_ component.Saver      = server{}
	_ component.Checker    = server{}
)

// Name implements [component.Component].
func (a agent) Name() string { return a.name }

// On implements [component.Component].
func (a agent) On(n *cluster.Node) bool { return n.Has(a.role) }

// Variables implements [component.Component].
func (a agent) Variables() []cluster.VariableDoc { return slices.Clone(variables) }

// Desired implements [component.Component].
func (a agent) Desired(p component.Platform, n *cluster.Node) (*desired.Part, []component.Problem) {
	f, problems := base.Machine(p, n, a.name)
	if f == nil {
		return nil, problems
	}
	pair, problems := base.Certificate(p, n, a.name)
	if problems != nil {
		return nil, problems
	}
	for _, purpose := range []string{secrets.AgentPurpose(n.Name), secrets.DNSPurpose, secrets.ReplicationPurpose, secrets.ManagementPurpose} {
		if p.Secrets.ConsulToken(purpose).Secret.IsEmpty() || p.Secrets.GossipKey().IsEmpty() {
			return nil, []component.Problem{{
				Fatal: true, Code: "secrets", Node: n.Name, Component: a.name,
				Message: "the secrets lack the gossip key or the token " + purpose, Advice: "run mi-lb bootstrap secrets init",
			}}
		}
	}
	s, problems := read(p, n, a.name)
	part := &desired.Part{Component: a.name}
	problems = append(problems, a.source(n, s, part)...)
	if len(problems) > 0 {
		return nil, problems
	}
	owner := "root:" + s.User
	part.Users = []desired.User{{Name: s.User, Home: s.DataDir}}
	part.Directories = []desired.Directory{
		{Path: s.DataDir, Mode: 0o750, Owner: s.User + ":" + s.User},
		{Path: s.ConfigDir, Mode: 0o750, Owner: owner},
		{Path: s.ConfigDir + "/tls", Mode: 0o750, Owner: owner},
	}
	unit := []string{Unit}
	restarted, reloaded := split(s.configuration(p))
	validate := ssh.Quote(s.Program) + " validate -quiet -config-format=json "
	part.Files = []desired.File{
		{Path: s.tls("ca.pem"), Mode: 0o640, Owner: owner, Content: p.Secrets.TrustedCertificates(), Reloads: unit},
		{Path: s.tls("node.pem"), Mode: 0o640, Owner: owner, Content: pair.Certificate, Reloads: unit},
		{Path: s.tls("node-key.pem"), Mode: 0o640, Owner: owner, Secret: pair.Key, Reloads: unit},
		{Path: s.ConfigDir + "/start.json", Mode: 0o640, Owner: owner, Secret: redact.New(encode(s.start(p)))},
		{Path: s.ConfigDir + "/tokens.json", Mode: 0o640, Owner: owner, Secret: redact.New(encode(s.tokens(p))), Reloads: unit},
		{
			Path: s.ConfigDir + "/consul.json", Mode: 0o640, Owner: owner, Content: encode(restarted), Restarts: unit,
			Check: validate + "%s",
		},
		{
			Path: s.ConfigDir + "/reload.json", Mode: 0o640, Owner: owner, Content: encode(reloaded), Reloads: unit,
			// It is no configuration by itself.
			Check: validate + ssh.Quote(s.ConfigDir+"/consul.json") + " %s",
		},
	}
	part.Units = []desired.Unit{{Name: Unit, Content: s.unit(), State: desired.Running, NoBlock: true, Quorum: s.Server}}
	return part, nil
}

// Check implements [component.Checker]: it says once that a change of the gossip key
// was begun.
func (s server) Check(p component.Platform, n *cluster.Node) []component.Problem {
	if p.Secrets.NextGossipKey().IsEmpty() {
		return nil
	}
	d, ok := p.Cluster.Datacenter(p.Cluster.Primary)
	if !ok || slices.Index(d.With(cluster.ConsulServer), n) != 0 {
		return nil
	}
	return []component.Problem{{
		Code: "gossip-key", Node: n.Name, Component: s.name,
		Message: "a change of Consul's gossip key was begun and is not complete; a machine that is added before it is may not be able to join",
		Advice:  "complete it: mi-lb bootstrap secrets rotate-gossip",
	}}
}

const fetch = "set consul_file, or consul_url and consul_sha256, to Consul for Linux (a zip of releases.hashicorp.com, or the program itself)"

// source adds what the program comes from.
func (a agent) source(n *cluster.Node, s settings, part *desired.Part) []component.Problem {
	refuse := func(code, message, advice string) []component.Problem {
		return []component.Problem{{Fatal: true, Code: code, Node: n.Name, Component: a.name, Message: message, Advice: advice}}
	}
	x := n.Artefacts[cluster.ComponentConsul]
	if before(x.Version, 1, 12) {
		return refuse("version", "Consul "+x.Version+" is older than 1.12", "set consul_version to 1.12 or newer")
	}
	unit := []string{Unit}
	switch x.Source {
	case cluster.SourceURL, cluster.SourceFile:
		program := desired.Program{Path: s.Program, Mode: 0o755, Artefact: x, Restarts: unit}
		name := x.File
		if x.Source == cluster.SourceURL {
			name = x.URL
		}
		for _, end := range []string{".zip", ".tar.gz", ".tgz", ".tar.xz"} {
			if strings.HasSuffix(name, end) {
				program.Member = "consul"
			}
		}
		part.Programs = []desired.Program{program}
	case cluster.SourcePackage:
		name := x.Package
		if name == "" {
			name = "consul"
		}
		part.Packages = []desired.Package{{Name: name, Version: x.Version, Restarts: unit}}
	case cluster.SourcePreinstalled:
	case cluster.SourceDefault:
		return refuse("source", "the inventory does not say where Consul comes from, and distributions do not package it", fetch)
	default:
		return refuse("source", "Consul cannot be installed as "+string(x.Source), fetch)
	}
	return nil
}
