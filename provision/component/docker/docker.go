package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/base"
	"github.com/mi-lb/mi-lb/provision/component/vars"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
	"github.com/mi-lb/mi-lb/provision/ssh"
)

// Name is the component's name, and Unit that of its unit.
const (
	Name = "docker"
	Unit = "docker.service"
)

// New is the component. It is a [component.Checker].
func New() component.Component { return docker{} }

type docker struct{}

var _ component.Checker = docker{}

// Name implements [component.Component].
func (docker) Name() string { return Name }

// On implements [component.Component]: Mesos's agents have it, and whoever runs
// anything from an image.
func (docker) On(n *cluster.Node) bool { return On(n) }

// On says whether a node has Docker.
func On(n *cluster.Node) bool {
	if n.Has(cluster.MesosAgent) {
		return true
	}
	for c, role := range map[cluster.Component]cluster.Role{cluster.ComponentMesos: cluster.MesosMaster, cluster.ComponentMarathon: cluster.Marathon} {
		if n.Has(role) && n.Artefacts[c].Source == cluster.SourceImage {
			return true
		}
	}
	return false
}

// Variables implements [component.Component].
func (docker) Variables() []cluster.VariableDoc {
	return []cluster.VariableDoc{
		{Name: "docker_repository", Doc: "URL of Docker's own packages or a mirror of them, for docker-ce; default https://download.docker.com"},
		{Name: "docker_repository_key", Doc: "on Debian and Ubuntu, for docker-ce: the repository's key, as https://download.docker.com/linux/debian/gpg has it"},
		{Name: "docker_bridge", Doc: "address and size of the network docker0, or auto for Docker's choice; default 172.17.0.1/16"},
		{Name: "docker_dns", Doc: "list of name servers for containers; default the one of the component dns on docker0"},
		{Name: "docker_data_root", Doc: "directory of images and containers; default /var/lib/docker"},
		{Name: "docker_live_restore", Doc: "whether containers outlive a restart of the engine; default yes"},
		{Name: "docker_log_size", Doc: "most that one log file of a container takes; default 50m"},
		{Name: "docker_log_files", Doc: "how many log files a container has; default 3"},
		{Name: "docker_registry_mirrors", Doc: "list of URLs of mirrors of Docker Hub"},
		{Name: "docker_insecure_registries", Doc: "list of registries without TLS, or with certificates that are not known"},
		{Name: "docker_config", Doc: "mapping of further keys of daemon.json"},
		{Name: "docker_socket", Doc: "the engine's socket; default /var/run/docker.sock"},
	}
}

// settings are what the inventory says of one engine.
type settings struct {
	repository, key  string
	bridge           netip.Prefix // the zero value is Docker's choice
	dns              []string
	dataRoot         string
	liveRestore      bool
	logSize          string
	logFiles         int
	mirrors          []string
	insecure         []string
	extra            map[string]any
	socket           string
	containersUseDNS bool
}

var (
	repositoryURL = regexp.MustCompile(`https?://[A-Za-z0-9._:/@-]+`)
	size          = regexp.MustCompile(`[0-9]+[kmg]?`)
	address       = regexp.MustCompile(`^[A-Za-z0-9._:/@-]+$`)
)

// ownKeys of daemon.json have variables, or would move what others rely on.
var ownKeys = []string{"hosts", "dns", "live-restore", "data-root", "bip", "log-opts", "registry-mirrors", "insecure-registries", "group"}

func read(n *cluster.Node) (settings, *vars.Reader) {
	r := vars.For(Name, n)
	s := settings{
		repository:  strings.TrimSuffix(r.Matching("docker_repository", "https://download.docker.com", repositoryURL, "an http or https URL"), "/"),
		key:         r.Lines("docker_repository_key"),
		dataRoot:    r.Path("docker_data_root", "/var/lib/docker"),
		liveRestore: r.Bool("docker_live_restore", true),
		logSize:     r.Matching("docker_log_size", "50m", size, `a size such as "50m"`),
		logFiles:    r.Int("docker_log_files", 3, 1, 1000),
		mirrors:     r.List("docker_registry_mirrors", nil),
		insecure:    r.List("docker_insecure_registries", nil),
		extra:       r.Object("docker_config"),
		socket:      r.Path("docker_socket", "/var/run/docker.sock"),
	}
	for name, list := range map[string][]string{"docker_registry_mirrors": s.mirrors, "docker_insecure_registries": s.insecure} {
		for _, x := range list {
			if !address.MatchString(x) {
				r.Refuse(name, "has %q, which is no address of a registry", x)
			}
		}
	}
	if s.key != "" && !strings.HasPrefix(s.key, "-----BEGIN PGP PUBLIC KEY BLOCK-----\n") {
		r.Refuse("docker_repository_key", "is no public key of PGP as text")
	}
	if text := r.Text("docker_bridge", "172.17.0.1/16"); text != "auto" {
		p, err := netip.ParsePrefix(text)
		if err != nil || !p.Addr().Is4() || p.Masked().Addr() == p.Addr() {
			r.Refuse("docker_bridge", "is %q, which is not an address and its network, as 172.17.0.1/16 is", text)
		}
		s.bridge = p
	}
	for _, key := range slices.Sorted(maps.Keys(s.extra)) {
		if slices.Contains(ownKeys, key) {
			r.Refuse("docker_config", "has the key %q, which has a variable of its own or moves what others rely on", key)
		}
	}
	for _, a := range r.Addresses("docker_dns", nil) {
		s.dns = append(s.dns, a.String())
	}
	s.containersUseDNS = r.Text("dns", "auto") != "none"
	return s, r
}

// BridgeAddress is the machine's address on docker0, where containers reach it; the
// zero address if Docker has yet to choose one.
func BridgeAddress(p component.Platform, n *cluster.Node) netip.Addr {
	s, _ := read(n)
	if s.bridge.IsValid() {
		return s.bridge.Addr()
	}
	if f := p.Facts[n.Name]; f != nil {
		for _, prefix := range f.Addresses["docker0"] {
			if prefix.Addr().Is4() {
				return prefix.Addr()
			}
		}
	}
	return netip.Addr{}
}

// Desired implements [component.Component].
func (docker) Desired(p component.Platform, n *cluster.Node) (*desired.Part, []component.Problem) {
	f, problems := base.Machine(p, n, Name)
	if f == nil {
		return nil, problems
	}
	s, r := read(n)
	part := &desired.Part{Component: Name}
	problems = append(r.Problems(), s.source(n, f, part)...)
	if len(problems) > 0 {
		return nil, problems
	}
	part.Directories = []desired.Directory{{Path: "/etc/docker", Mode: 0o755, Owner: "root:root"}}
	part.Files = append(part.Files, desired.File{
		Path: "/etc/docker/daemon.json", Mode: 0o644, Owner: "root:root", Content: s.daemon(p, n), Same: sameJSON, Restarts: []string{Unit},
		// Engines before 23.0 cannot check their configuration.
		Check: "if dockerd --help 2>/dev/null | grep -q -e '--validate'; then dockerd --validate --config-file=%s; fi",
	})
	part.Units = []desired.Unit{{Name: Unit, State: desired.Running}}
	return part, nil
}

// daemon is the engine's configuration.
func (s settings) daemon(p component.Platform, n *cluster.Node) string {
	c := map[string]any{
		"live-restore": s.liveRestore,
		"log-driver":   "json-file",
		"log-opts":     map[string]any{"max-size": s.logSize, "max-file": strconv.Itoa(s.logFiles)},
	}
	if s.bridge.IsValid() {
		c["bip"] = s.bridge.String()
	}
	if s.dataRoot != "/var/lib/docker" {
		c["data-root"] = s.dataRoot
	}
	switch at := BridgeAddress(p, n); {
	case len(s.dns) > 0:
		c["dns"] = s.dns
	case s.containersUseDNS && at.IsValid():
		c["dns"] = []string{at.String()}
	}
	if len(s.mirrors) > 0 {
		c["registry-mirrors"] = s.mirrors
	}
	if len(s.insecure) > 0 {
		c["insecure-registries"] = s.insecure
	}
	maps.Copy(c, s.extra)
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		// All values are texts, numbers, booleans, and lists and mappings of them.
		panic(fmt.Sprintf("encode daemon.json: %v", err))
	}
	return string(data) + "\n"
}

func sameJSON(found, wanted string) bool {
	var a, b any
	if json.Unmarshal([]byte(found), &a) != nil || json.Unmarshal([]byte(wanted), &b) != nil {
		return false
	}
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// source adds what the engine comes from.
func (s settings) source(n *cluster.Node, f *facts.Facts, part *desired.Part) []component.Problem {
	refuse := func(code, message, advice string) []component.Problem {
		return []component.Problem{{Fatal: true, Code: code, Node: n.Name, Component: Name, Message: message, Advice: advice}}
	}
	a := n.Artefacts[cluster.ComponentDocker]
	switch a.Source {
	case cluster.SourcePackage, cluster.SourceDefault:
	case cluster.SourcePreinstalled:
		return nil
	default:
		return refuse("source", "Docker cannot be installed as "+string(a.Source), "set docker_source to package or preinstalled")
	}
	name := a.Package
	if name == "" {
		name = map[facts.Family]string{facts.Debian: "docker.io", facts.RedHat: "docker-ce"}[f.System.Family]
	}
	restarts := []string{Unit}
	part.Packages = []desired.Package{{Name: name, Version: a.Version, Restarts: restarts}}
	if name != "docker-ce" {
		if major, err := strconv.Atoi(before(f.System.Version)); name == "docker.io" && f.System.ID == "debian" && err == nil && major >= 13 {
			// Debian has the client in a package of its own since then.
			part.Packages = append(part.Packages, desired.Package{Name: "docker-cli"})
		}
		return nil
	}
	part.Packages = append(part.Packages, desired.Package{Name: "docker-ce-cli", Version: a.Version}, desired.Package{Name: "containerd.io"})
	if f.System.Family == facts.RedHat {
		part.Repositories = []desired.Repository{{Files: []desired.File{{
			Path: "/etc/yum.repos.d/docker-ce.repo", Mode: 0o644, Owner: "root:root", Content: s.yum(f.System),
		}}}}
		return nil
	}
	if s.key == "" {
		return refuse("repository-key", "docker-ce comes from Docker's repository, whose key the inventory does not have",
			"set docker_repository_key to the text of "+s.repository+"/linux/"+f.System.ID+"/gpg, or leave docker_package out for docker.io")
	}
	if f.System.Code == "" {
		return refuse("system", f.System.Name+" has no code name, by which Docker's repository is divided", "leave docker_package out for docker.io")
	}
	const key = "/etc/apt/keyrings/mi-lb-docker.asc"
	part.Repositories = []desired.Repository{{Files: []desired.File{
		{Path: key, Mode: 0o644, Owner: "root:root", Content: s.key},
		{Path: "/etc/apt/sources.list.d/mi-lb-docker.sources", Mode: 0o644, Owner: "root:root", Content: fmt.Sprintf(
			"# Written by mi-lb.\nTypes: deb\nURIs: %s/linux/%s\nSuites: %s\nComponents: stable\nArchitectures: %s\nSigned-By: %s\n",
			s.repository, f.System.ID, f.System.Code, f.System.Arch, key)},
	}}}
	return nil
}

func before(version string) string {
	major, _, _ := strings.Cut(version, ".")
	return major
}

// yum is the repository for dnf; Docker has one for RHEL, one for Fedora, and one for
// all that are like RHEL.
func (s settings) yum(system facts.System) string {
	distribution := "centos"
	if system.ID == "rhel" || system.ID == "fedora" {
		distribution = system.ID
	}
	at := s.repository + "/linux/" + distribution
	return fmt.Sprintf("# Written by mi-lb.\n[docker-ce-stable]\nname=Docker CE\nbaseurl=%s/$releasever/$basearch/stable\nenabled=1\ngpgcheck=1\ngpgkey=%s/gpg\n", at, at)
}

// Check implements [component.Checker].
func (docker) Check(p component.Platform, n *cluster.Node) []component.Problem {
	f := p.Facts[n.Name]
	if f == nil {
		return nil
	}
	var problems []component.Problem
	refuse := func(fatal bool, code, message, advice string) {
		problems = append(problems, component.Problem{Fatal: fatal, Code: code, Node: n.Name, Component: Name, Message: message, Advice: advice})
	}
	s, _ := read(n)
	if s.bridge.IsValid() {
		for _, name := range slices.Sorted(maps.Keys(f.Addresses)) {
			for _, prefix := range f.Addresses[name] {
				if name != "docker0" && prefix.Addr().Is4() && prefix.Overlaps(s.bridge) {
					refuse(true, "docker-bridge", fmt.Sprintf("the network of docker0, %s, overlaps with %s of %s", s.bridge.Masked(), prefix, name),
						"set docker_bridge to an address in a network that nobody uses, such as 172.31.255.1/24")
				}
			}
		}
	}
	if d := f.Docker; d != nil && older(d.API, leastAPI) {
		refuse(true, "docker-api", fmt.Sprintf("Docker %s speaks no API newer than %s, and %s is needed", d.Version, d.API, leastAPI), "upgrade Docker to 18.09 or newer")
	}
	if f.System.Family == facts.RedHat && f.Cgroup == 0 {
		refuse(false, "cgroups", "it cannot be told which cgroups the machine has", "see that /sys/fs/cgroup is mounted")
	}
	return problems
}

// leastAPI is what Registrator and the checks here use: that of Docker 18.09.
const leastAPI = "1.39"

// older compares versions of Docker's API; one that is none is not older.
func older(a, b string) bool {
	parse := func(s string) (major, minor int, ok bool) {
		x, y, found := strings.Cut(s, ".")
		major, err := strconv.Atoi(x)
		minor, err2 := strconv.Atoi(y)
		return major, minor, found && err == nil && err2 == nil
	}
	majorA, minorA, okA := parse(a)
	majorB, minorB, okB := parse(b)
	return okA && okB && (majorA < majorB || majorA == majorB && minorA < minorB)
}

// Healthy implements [component.Component]: the engine answers /version and /info,
// without errors of its own, and with the settings that it should have.
func (docker) Healthy(ctx context.Context, p component.Platform, n *cluster.Node, a component.Access) error {
	host, err := a.Host(n.Name)
	if err != nil {
		return err
	}
	s, _ := read(n)
	// The socket is for root; not every login can be forwarded to it.
	ask := "timeout 20 docker --host " + ssh.Quote("unix://"+s.socket)
	r, err := host.Run(ctx, ssh.Command{
		Line: ask + " version --format '{{json .Server}}' && " + ask + " info --format '{{json .}}'", Root: true,
	})
	if err != nil {
		return fmt.Errorf("ask Docker: %w", err)
	}
	version, info, _ := strings.Cut(string(r.Stdout), "\n")
	return s.judge(version, info)
}

func (s settings) judge(version, info string) error {
	var v struct{ Version, APIVersion string }
	if err := json.Unmarshal([]byte(version), &v); err != nil {
		return fmt.Errorf("read Docker's version: %w", err)
	}
	var i struct {
		ServerErrors       []string
		LiveRestoreEnabled bool
		DockerRootDir      string
	}
	if err := json.Unmarshal([]byte(info), &i); err != nil {
		return fmt.Errorf("read what Docker says of itself: %w", err)
	}
	switch {
	case v.Version == "":
		return errors.New("the engine does not answer")
	case len(i.ServerErrors) > 0:
		return fmt.Errorf("the engine has errors: %s", strings.Join(i.ServerErrors, "; "))
	case i.LiveRestoreEnabled != s.liveRestore:
		return fmt.Errorf("the engine runs with live-restore %v, and daemon.json says %v: it has not read it", i.LiveRestoreEnabled, s.liveRestore)
	}
	return nil
}
