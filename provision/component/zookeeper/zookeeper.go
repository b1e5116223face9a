package zookeeper

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/base"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
	"github.com/mi-lb/mi-lb/provision/redact"
)

// Name is the component's name, and Unit that of its unit.
const (
	Name = "zookeeper"
	Unit = "zookeeper.service"
)

// New is the component. It is a [component.Roller], a [component.Configurer] and a
// [component.Checker].
func New() component.Component { return zookeeper{} }

type zookeeper struct{}

var (
	_ component.Roller     = zookeeper{}
	_ component.Configurer = zookeeper{}
	_ component.Checker    = zookeeper{}
)

// Name implements [component.Component].
func (zookeeper) Name() string { return Name }

// On implements [component.Component].
func (zookeeper) On(n *cluster.Node) bool { return n.Has(cluster.ZooKeeper) }

// Variables implements [component.Component].
func (zookeeper) Variables() []cluster.VariableDoc { return slices.Clone(variables) }

// Desired implements [component.Component].
func (zookeeper) Desired(p component.Platform, n *cluster.Node) (*desired.Part, []component.Problem) {
	f, problems := base.Machine(p, n, Name)
	if f == nil {
		return nil, problems
	}
	pair, problems := base.Certificate(p, n, Name)
	if problems != nil {
		return nil, problems
	}
	s, problems := read(p, n)
	part := &desired.Part{Component: Name}
	problems = append(problems, source(n, f, &s, part)...)
	if len(problems) > 0 {
		return nil, problems
	}
	owner := s.User + ":" + s.User
	part.Users = []desired.User{{Name: s.User, Home: "/var/lib/zookeeper"}}
	for _, path := range slices.Compact([]string{s.DataDir, s.initializeDir()}) {
		part.Directories = append(part.Directories,
			desired.Directory{Path: path, Mode: 0o750, Owner: owner},
			// Where its files will be: whether there are any says if it has data.
			desired.Directory{Path: path + "/" + versionDirectory, Mode: 0o750, Owner: owner})
	}
	part.Directories = append(part.Directories, desired.Directory{Path: s.ConfigDir, Mode: 0o750, Owner: "root:" + s.User})
	restarts := []string{Unit}
	part.Files = []desired.File{
		{Path: s.ConfigDir + "/zoo.cfg", Mode: 0o640, Owner: "root:" + s.User, Content: render("zoo.cfg", s), Same: sameConfiguration, Restarts: restarts},
		{Path: s.ConfigDir + "/logback.xml", Mode: 0o640, Owner: "root:" + s.User, Content: render("logback.xml", s), Restarts: restarts},
		{Path: s.ConfigDir + "/log4j.properties", Mode: 0o640, Owner: "root:" + s.User, Content: render("log4j.properties", s), Restarts: restarts},
		{Path: s.ConfigDir + "/simplelogger.properties", Mode: 0o640, Owner: "root:" + s.User, Content: render("simplelogger.properties", s), Restarts: restarts},
		{Path: s.DataDir + "/myid", Mode: 0o640, Owner: owner, Content: strconv.Itoa(s.ID) + "\n", Restarts: restarts},
	}
	if s.QuorumTLS != "off" {
		// ZooKeeper reads both again by itself when they change.
		part.Files = append(part.Files,
			desired.File{Path: s.ConfigDir + "/ca.pem", Mode: 0o644, Owner: "root:root", Content: p.Secrets.TrustedCertificates()},
			desired.File{
				Path: s.ConfigDir + "/quorum.pem", Mode: 0o640, Owner: "root:" + s.User,
				Secret: redact.New(pair.Key.Reveal() + pair.Certificate),
			})
	}
	if !established(p, n) {
		part.Files = append(part.Files, desired.File{
			Path: s.initializeDir() + "/initialize", Mode: 0o640, Owner: owner, Content: "\n",
			Once: true, OnlyWith: s.initializeDir() + "/" + versionDirectory,
		})
	}
	part.Units = []desired.Unit{{
		Name: Unit, Content: render("zookeeper.service", s), State: desired.Running, NoBlock: true, Quorum: true,
	}}
	return part, nil
}

// versionDirectory is where ZooKeeper keeps its files within its directories.
const versionDirectory = "version-2"

// hasData says whether a server was seen to have data.
func hasData(p component.Platform, n *cluster.Node) bool {
	f := p.Facts[n.Name]
	if f == nil {
		return false
	}
	s, _ := read(p, n)
	found, ok := f.Files[s.initializeDir()+"/"+versionDirectory]
	return ok && found.Directory && !found.Empty
}

// established says whether a quorum of a node's ensemble has data. If so, a server
// without data has lost it or is new, and must take it from the others. If not, the
// first run did not get further, and a server without data must be able to vote.
func established(p component.Platform, n *cluster.Node) bool {
	d, _ := p.Cluster.Datacenter(n.Datacenter)
	with := 0
	for _, member := range d.With(cluster.ZooKeeper) {
		if hasData(p, member) {
			with++
		}
	}
	return with >= d.Quorum(cluster.ZooKeeper)
}

// source adds what the program comes from.
func source(n *cluster.Node, f *facts.Facts, s *settings, part *desired.Part) []component.Problem {
	refuse := func(code, message, advice string) []component.Problem {
		return []component.Problem{{Fatal: true, Code: code, Node: n.Name, Component: Name, Message: message, Advice: advice}}
	}
	a := n.Artefacts[cluster.ComponentZooKeeper]
	if old(a.Version) {
		return refuse("version", "ZooKeeper "+a.Version+" is older than 3.5.5", "set zookeeper_version to 3.5.5 or newer; 3.8 is known to work")
	}
	java := s.JavaPackage
	if java == "" {
		java = map[facts.Family]string{facts.Debian: "default-jre-headless", facts.RedHat: "java-17-openjdk-headless"}[f.System.Family]
	}
	restarts := []string{Unit}
	// The jar's manifest lacks what TLS between servers needs of netty, and a binding
	// for logs.
	debianClasses := "/usr/share/java/zookeeper.jar:/usr/share/java/netty-codec.jar:/usr/share/java/netty-resolver.jar:/usr/share/java/slf4j-simple.jar"
	treeClasses := "/opt/mi-lb/zookeeper/lib/*"
	switch a.Source {
	case cluster.SourcePackage, cluster.SourceDefault:
		switch {
		case f.System.Family != facts.Debian && a.Package == "":
			return refuse("source", f.System.Name+" has no package of ZooKeeper",
				"set zookeeper_url and zookeeper_sha256, or zookeeper_file, to Apache's apache-zookeeper-3.8.x-bin.tar.gz")
		case oldRelease(f.System) && a.Package == "" && a.Version == "":
			return refuse("source", f.System.Name+" packages a ZooKeeper that is too old",
				"set zookeeper_url and zookeeper_sha256, or zookeeper_file, to Apache's apache-zookeeper-3.8.x-bin.tar.gz")
		}
		name := a.Package
		if name == "" {
			name = "zookeeper"
		}
		part.Packages = append(part.Packages, desired.Package{Name: name, Version: a.Version, Restarts: restarts})
		if f.System.Family == facts.Debian {
			if name != "zookeeper" {
				part.Packages = append(part.Packages, desired.Package{Name: java})
			}
			part.Packages = append(part.Packages, desired.Package{Name: "libslf4j-java"}, desired.Package{Name: "libnetty-java"})
		}
		s.classes(debianClasses, f.System.Family == facts.Debian, treeClasses)
	case cluster.SourceURL, cluster.SourceFile:
		part.Packages = append(part.Packages, desired.Package{Name: java})
		part.Programs = append(part.Programs, desired.Program{Path: "/opt/mi-lb/zookeeper", Tree: true, Mode: 0o755, Artefact: a, Restarts: restarts})
		s.classes("", false, treeClasses)
	case cluster.SourcePreinstalled:
		s.classes(debianClasses, f.System.Family == facts.Debian, treeClasses)
	default:
		return refuse("source", "ZooKeeper cannot be installed as "+string(a.Source), "set zookeeper_source to package, url, file or preinstalled")
	}
	return nil
}

func (s *settings) classes(debian string, isDebian bool, tree string) {
	switch {
	case s.Classpath != "":
	case isDebian:
		s.Classpath = debian
	default:
		s.Classpath = tree
	}
}

// oldRelease says whether a system's own package is known to be 3.4.
func oldRelease(s facts.System) bool {
	major, _, _ := strings.Cut(s.Version, ".")
	n, err := strconv.Atoi(major)
	return err == nil && (s.ID == "debian" && n < 12 || s.ID == "ubuntu" && n < 23)
}

var numbers = regexp.MustCompile(`[0-9]+`)

// old says whether a version is known to be older than 3.5.5, which is the first that
// reads certificates as PEM.
func old(version string) bool {
	least := []int{3, 5, 5}
	for i, text := range numbers.FindAllString(version, len(least)) {
		n, err := strconv.Atoi(text)
		if err != nil || n > least[i] {
			return false
		}
		if n < least[i] {
			return true
		}
	}
	return false
}

// configuration reads zoo.cfg; keys that ZooKeeper adds when it rewrites its own
// configuration are left out.
func configuration(text string) map[string]string {
	all := map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == '!' {
			continue
		}
		key, value, _ := strings.Cut(line, "=")
		if key = strings.TrimSpace(key); key != "dynamicConfigFile" {
			all[key] = strings.TrimSpace(value)
		}
	}
	return all
}

func sameConfiguration(found, wanted string) bool {
	return maps.Equal(configuration(found), configuration(wanted))
}

// members are the servers that a configuration lists, as "id=address:port:port".
func members(text string) []string {
	var all []string
	for key, value := range configuration(text) {
		if id, ok := strings.CutPrefix(key, "server."); ok {
			address, _, _ := strings.Cut(value, ";")
			all = append(all, id+"="+address)
		}
	}
	slices.Sort(all)
	return all
}

// Check implements [component.Checker]: what the machine has must lead to what is
// wanted without losing data or having two majorities on the way.
func (zookeeper) Check(p component.Platform, n *cluster.Node) []component.Problem {
	f := p.Facts[n.Name]
	if f == nil || !hasData(p, n) {
		return nil
	}
	s, problems := read(p, n)
	if len(problems) > 0 {
		return nil // Desired has said so
	}
	refuse := func(code, message, advice string) {
		problems = append(problems, component.Problem{Fatal: true, Code: code, Node: n.Name, Component: Name, Message: message, Advice: advice})
	}
	if id, ok := f.Files[s.DataDir+"/myid"]; ok && id.SHA256 != "" && id.SHA256 != sum(strconv.Itoa(s.ID)+"\n") && id.SHA256 != sum(strconv.Itoa(s.ID)) {
		refuse("zookeeper-id", fmt.Sprintf("its data in %s belongs to a server with another id than %d", s.DataDir, s.ID),
			fmt.Sprintf("set zk_id of %s to what is in %s/myid", n.Name, s.DataDir))
	}
	found, ok := f.Files[s.ConfigDir+"/zoo.cfg"]
	if !ok || found.Content == "" {
		return problems
	}
	was, will := members(found.Content), members(render("zoo.cfg", s))
	if changes := different(was, will); changes > 1 && len(was) > 0 {
		refuse("zookeeper-members", fmt.Sprintf("the ensemble is %s and is to become %s: two majorities of these need not have a server in common",
			strings.Join(was, " "), strings.Join(will, " ")),
			"add or remove one server at a time (with allow_even_control for the step between), and run mi-lb bootstrap after each")
	}
	steps := []string{"off", "accept", "prefer", "require"}
	now, then := slices.Index(steps, tlsStep(found.Content)), slices.Index(steps, s.QuorumTLS)
	// A configuration without members is none that a member of an ensemble runs with.
	if len(was) > 0 && len(will) > 1 && (now-then > 1 || then-now > 1) {
		refuse("zookeeper-tls", fmt.Sprintf("zookeeper_quorum_tls is %s and is to become %s: servers of both kinds cannot talk to each other",
			steps[now], steps[then]), "change zookeeper_quorum_tls in steps (off, accept, prefer, require), and run mi-lb bootstrap after each")
	}
	return problems
}

func sum(text string) string {
	s := sha256.Sum256([]byte(text))
	return hex.EncodeToString(s[:])
}

// different is how many members one list has and the other has not, where one that
// moved counts once.
func different(was, will []string) int {
	ids := map[string]bool{}
	for _, pair := range [][2][]string{{was, will}, {will, was}} {
		for _, member := range pair[0] {
			if !slices.Contains(pair[1], member) {
				id, _, _ := strings.Cut(member, "=")
				ids[id] = true
			}
		}
	}
	return len(ids)
}

// tlsStep is the zookeeper_quorum_tls that a configuration has.
func tlsStep(text string) string {
	c := configuration(text)
	switch {
	case c["sslQuorum"] == "true" && c["portUnification"] != "true":
		return "require"
	case c["sslQuorum"] == "true":
		return "prefer"
	case c["portUnification"] == "true":
		return "accept"
	}
	return "off"
}
