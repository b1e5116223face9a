// Package mesos is what masters, agents and Marathon have in common: where Mesos
// comes from and ends up, how it is told where ZooKeeper is, and how its programs
// are asked.
//
// In come the platform and a node. Out go parts of what the node should be, and
// answers of masters and agents. Secrets go into files, never into arguments or
// into the environment of a unit.
package mesos

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/vars"
	"github.com/mi-lb/mi-lb/provision/component/zookeeper"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
	"github.com/mi-lb/mi-lb/provision/redact"
	"github.com/mi-lb/mi-lb/provision/secrets"
)

// Ports where masters and agents listen unless the inventory says otherwise.
const (
	MasterPort = 5050
	AgentPort  = 5051
)

// Tree is where an archive with Mesos is unpacked: sbin/mesos-master is in it.
const Tree = "/opt/mesos"

// packageUnits are the units that packages of Mesos bring, by what they run.
var packageUnits = []string{"mesos-master.service", "mesos-slave.service", "mesos-agent.service"}

// Install is how Mesos gets onto a node.
type Install struct {
	// Program is the path of mesos-master or mesos-agent, Library that of libmesos.
	Program, Library string
	// Image is a container image that has it; empty for none.
	Image string
}

// Add adds to a part what brings Mesos onto the node, for a program of it ("" for
// its library only). A change restarts the unit.
func Add(part *desired.Part, n *cluster.Node, r *vars.Reader, system facts.System, program, unit string) (Install, []component.Problem) {
	a := n.Artefacts[cluster.ComponentMesos]
	i := Install{Program: "/usr/sbin/" + program, Library: "/usr/lib/libmesos.so"}
	var problems []component.Problem
	switch a.Source {
	case cluster.SourceDefault, cluster.SourcePackage:
		name := a.Package
		if name == "" {
			name = "mesos"
		}
		var masked []string
		for _, u := range packageUnits {
			if u != unit && !(u == "mesos-master.service" && n.Has(cluster.MesosMaster)) && !(u == "mesos-agent.service" && n.Has(cluster.MesosAgent)) {
				masked = append(masked, u)
			}
		}
		part.Packages = append(part.Packages, desired.Package{Name: name, Version: a.Version, Masked: masked, Restarts: []string{unit}})
		if a.Source == cluster.SourceDefault {
			problems = append(problems, component.Problem{
				Code: "artefact", Node: n.Name, Component: part.Component,
				Message: "no public repository has had Mesos since 2021; its package " + name + " must come from one of your own",
				Advice:  "set mesos_source and mesos_package, mesos_file, mesos_url or mesos_image in the inventory",
			})
		}
	case cluster.SourceFile, cluster.SourceURL:
		if !IsArchive(a) {
			r.Refuse("mesos_"+string(a.Source), "is no archive; Mesos is several programs and a library: give a .tar.gz that has sbin/mesos-master and sbin/mesos-agent")
			break
		}
		part.Programs = append(part.Programs, desired.Program{Path: Tree, Tree: true, Mode: 0o755, Artefact: a, Restarts: []string{unit}})
		i.Program, i.Library = Tree+"/sbin/"+program, Tree+"/lib/libmesos.so"
	case cluster.SourceImage:
		i.Image = a.Image
		if a.Version != "" && !strings.Contains(path.Base(a.Image), ":") {
			i.Image += ":" + a.Version
		}
		return i, problems
	case cluster.SourcePreinstalled:
		prefix := r.Path("mesos_prefix", "/usr")
		i.Program, i.Library = prefix+"/sbin/"+program, prefix+"/lib/libmesos.so"
	}
	if a.Source != cluster.SourcePreinstalled {
		// CRAM-MD5 is a module of its own; without it nobody can log in.
		sasl := "libsasl2-modules"
		if system.Family == facts.RedHat {
			sasl = "cyrus-sasl-md5"
		}
		part.Packages = append(part.Packages, desired.Package{Name: sasl})
	}
	return i, problems
}

// IsArchive says whether an artefact is an archive by its name.
func IsArchive(a cluster.Artefact) bool {
	name := a.File
	if a.Source == cluster.SourceURL {
		name = a.URL
	}
	for _, end := range []string{".tar.gz", ".tgz", ".tar.xz", ".zip"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return false
}

// URL is the address of a path in ZooKeeper with a user's login, as Mesos and
// Marathon take it.
func URL(p component.Platform, n *cluster.Node, user, path string) redact.Text {
	login := p.Secrets.ZooKeeper(n.Datacenter, user)
	d, _ := p.Cluster.Datacenter(n.Datacenter)
	return redact.New("zk://" + login.Pair().Reveal() + "@" + zookeeper.Servers(d) + path)
}

// Credential is one login in the JSON that Mesos reads.
type Credential struct {
	Principal string `json:"principal"`
	Secret    string `json:"secret"`
}

// Credentials is a file with logins: of one, as an agent has it, or of several.
func Credentials(logins ...secrets.Login) redact.Text {
	var all struct {
		Credentials []Credential `json:"credentials"`
	}
	for _, l := range logins {
		all.Credentials = append(all.Credentials, Credential{l.User, l.Password.Reveal()})
	}
	return encode(all)
}

// OneCredential is a file with the login of an agent.
func OneCredential(l secrets.Login) redact.Text {
	return encode(Credential{l.User, l.Password.Reveal()})
}

func encode(value any) redact.Text {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil { // strings always encode
		panic(fmt.Sprintf("encode credentials: %v", err))
	}
	return redact.New(string(data) + "\n")
}

// Operator is the login with which mi-lb asks masters and agents.
func Operator(p component.Platform, n *cluster.Node) secrets.Login {
	return p.Secrets.Mesos(n.Datacenter, secrets.MesosOperator)
}

// File is the content of a file in the environment's form that was found on a
// node, as names and values; ok is false if it was not found.
func File(p component.Platform, node, path string) (values map[string]string, ok bool) {
	found := p.Facts[node]
	if found == nil {
		return nil, false
	}
	f, ok := found.Files[path]
	if !ok || f.Content == "" {
		return nil, false
	}
	return Parse(f.Content), true
}

// Parse reads a file of "NAME=value" lines, as systemd reads those that are
// written here: without quotes and continued lines.
func Parse(content string) map[string]string {
	values := map[string]string{}
	for line := range strings.SplitSeq(content, "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		if name, value, found := strings.Cut(line, "="); found {
			values[name] = value
		}
	}
	return values
}
