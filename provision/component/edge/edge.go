package edge

import (
	"fmt"
	"path"

	"github.com/mi-lb/mi-lb/deploy"
	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/vars"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/redact"
	"github.com/mi-lb/mi-lb/provision/secrets"
)

// Unit is the unit that runs mi-lb serve; HAProxy is its child.
const Unit = "mi-lb.service"

const (
	name          = "edge"
	program       = "/usr/bin/mi-lb"
	configFile    = "/etc/mi-lb/mi-lb.yaml"
	directory     = "/etc/mi-lb/edge"
	tokenFile     = directory + "/consul.token"
	haproxyUnit   = "haproxy.service"
	packageBinary = "/usr/sbin/haproxy"
	ownBinary     = "/usr/local/sbin/haproxy"
)

type edge struct{}

// New is the component.
func New() component.Component { return &edge{} }

// Name is "edge".
func (*edge) Name() string { return name }

// On is true for edge nodes.
func (*edge) On(n *cluster.Node) bool { return n.Has(cluster.Edge) }

// Desired is HAProxy, mi-lb and its configuration.
func (c *edge) Desired(p component.Platform, n *cluster.Node) (*desired.Part, []component.Problem) {
	s, problems := c.settings(p, n)
	if s == nil {
		return nil, problems
	}
	part := &desired.Part{
		Component: name,
		Directories: []desired.Directory{
			{Path: directory, Mode: 0o755, Owner: "root:root"},
			{Path: "/var/lib/mi-lb", Mode: 0o755, Owner: "root:root"},
		},
		Programs: []desired.Program{{
			Path: program, Mode: 0o755, Restarts: []string{Unit},
			Artefact: cluster.Artefact{Source: cluster.SourceFile, File: p.Program},
		}},
		Units: []desired.Unit{
			{Name: haproxyUnit, State: desired.Masked},
			{Name: Unit, Content: deploy.EdgeUnit, State: desired.Running},
		},
	}
	if problem := addHAProxy(part, n); problem != nil {
		return nil, append(problems, *problem)
	}
	secret := func(path string, content string) {
		part.Files = append(part.Files, desired.File{
			Path: path, Mode: 0o600, Owner: "root:root", Secret: redact.New(content), Restarts: []string{Unit},
		})
	}
	secret(tokenFile, p.Secrets.ConsulToken(secrets.EdgePurpose).Secret.Reveal()+"\n")
	for _, m := range s.marathons {
		secret(m.passwordFile, p.Secrets.Marathon(m.datacenter).Password.Reveal()+"\n")
	}
	part.Files = append(part.Files, desired.File{
		Path: configFile, Mode: 0o644, Owner: "root:root", Content: s.yaml,
		Check: program + " validate --config %s", Restarts: []string{Unit},
	})
	return part, problems
}

// addHAProxy adds what brings HAProxy to the node.
func addHAProxy(part *desired.Part, n *cluster.Node) *component.Problem {
	artefact := n.Artefacts[cluster.ComponentHAProxy]
	switch artefact.Source {
	case cluster.SourceDefault, cluster.SourcePackage:
		packageName := artefact.Package
		if packageName == "" {
			packageName = "haproxy"
		}
		part.Packages = append(part.Packages, desired.Package{
			Name: packageName, Version: artefact.Version, Masked: []string{haproxyUnit}, Restarts: []string{Unit},
		})
	case cluster.SourceFile, cluster.SourceURL:
		part.Users = append(part.Users, desired.User{Name: "haproxy", Home: "/var/lib/haproxy"})
		part.Programs = append(part.Programs, desired.Program{
			Path: ownBinary, Member: member(artefact, "haproxy"), Mode: 0o755, Artefact: artefact, Restarts: []string{Unit},
		})
	case cluster.SourcePreinstalled:
	case cluster.SourceImage:
		return &component.Problem{
			Fatal: true, Code: "artefact", Node: n.Name, Component: name,
			Message: "haproxy_source is image, and mi-lb starts HAProxy as a process of its own",
			Advice:  "set haproxy_source to package, url, file or preinstalled",
		}
	}
	return nil
}

// member is the file to take out of an archive; empty where the artefact is the
// program itself.
func member(a cluster.Artefact, program string) string {
	file := a.File
	if a.Source == cluster.SourceURL {
		file = a.URL
	}
	switch path.Ext(file) {
	case ".gz", ".tgz", ".xz", ".zip":
		return program
	}
	return ""
}

// haproxyPath is where HAProxy is on the node.
func haproxyPath(n *cluster.Node) string {
	switch n.Artefacts[cluster.ComponentHAProxy].Source {
	case cluster.SourceFile, cluster.SourceURL:
		return ownBinary
	}
	return packageBinary
}

// Check finds ports that an edge takes and that something else on the node has too.
func (c *edge) Check(p component.Platform, n *cluster.Node) []component.Problem {
	s, problems := c.settings(p, n)
	if s == nil {
		return nil // Desired says why
	}
	if n.Has(cluster.Marathon) && s.takes(8080) {
		problems = append(problems, component.Problem{
			Fatal: true, Code: "port-taken", Node: n.Name, Component: name,
			Message: "the edge is to listen on port 8080, which Marathon has on the same node",
			Advice:  "give the edge other addresses with edge_http",
		})
	}
	return problems
}

// Variables are those that edges read.
func (*edge) Variables() []cluster.VariableDoc {
	return []cluster.VariableDoc{
		{Name: "edge_http", Doc: "addresses for HTTP by host, a list; default 0.0.0.0:80"},
		{Name: "edge_https", Doc: "addresses for HTTPS by host and TLS passthrough, a list; default none"},
		{Name: "edge_certificates", Doc: "PEM file, or directory of them, on the edge, for edge_https"},
		{Name: "edge_app_id", Doc: "addresses for HTTP by header X-Marathon-App-Id, a list; default none"},
		{Name: "edge_service_port_address", Doc: "address on which service ports are opened; default 0.0.0.0"},
		{Name: "edge_service_port_range", Doc: "service ports that are bound once, 10000-10100; default none"},
		{Name: "edge_exposure", Doc: "all or tagged: which services are published; default all"},
		{Name: "edge_locality", Doc: "local-first, global or local-only: how instances of other datacenters are used; default local-first"},
		{Name: "edge_balance", Doc: "HAProxy's balance algorithm; default roundrobin"},
		{Name: "edge_datacenters", Doc: "datacenters that are watched, a list; default all, as they come and go"},
		{Name: "edge_marathon_datacenters", Doc: "datacenters whose Marathon is watched, a list; default all of the inventory"},
		{Name: "edge_groups", Doc: "groups of services that this edge serves, a list; default all"},
		{Name: "edge_marathon_groups", Doc: "marathon-lb groups that this edge serves, a list; default all apps"},
		{Name: "edge_admin_port", Doc: "port of mi-lb's admin interface on 127.0.0.1; default 9090"},
		{Name: "edge_maxconn", Doc: "connections of an HAProxy worker; default what the limit on descriptors allows"},
		{Name: "edge_threads", Doc: "threads of an HAProxy worker; default HAProxy's own choice"},
		{Name: "edge_config", Doc: "mapping with further keys of mi-lb.yaml, as in docs/configuration.md; it wins over everything else"},
	}
}

// reader reads variables of a node for this component.
func reader(n *cluster.Node) *vars.Reader { return vars.For(name, n) }

func fatal(n *cluster.Node, code, advice, format string, arguments ...any) component.Problem {
	return component.Problem{Fatal: true, Code: code, Node: n.Name, Component: name, Message: fmt.Sprintf(format, arguments...), Advice: advice}
}
