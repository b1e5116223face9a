package dns

import (
	"embed"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/base"
	"github.com/mi-lb/mi-lb/provision/component/consul"
	"github.com/mi-lb/mi-lb/provision/component/docker"
	"github.com/mi-lb/mi-lb/provision/component/vars"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
)

// Name is the component's name, and Unit that of dnsmasq's unit.
const (
	Name = "dns"
	Unit = "mi-lb-dns.service"
)

const resolved = "systemd-resolved.service"

// New is the component. It is a [component.Checker].
func New() component.Component { return dns{} }

type dns struct{}

var _ component.Checker = dns{}

// Name implements [component.Component].
func (dns) Name() string { return Name }

// On implements [component.Component]: every machine has an agent to ask.
func (dns) On(n *cluster.Node) bool {
	if !n.Has(cluster.ConsulServer) && !n.Has(cluster.ConsulClient) {
		return false
	}
	return vars.For(Name, n).Text("dns", "auto") != "none"
}

// Variables implements [component.Component].
func (dns) Variables() []cluster.VariableDoc {
	return []cluster.VariableDoc{
		{Name: "dns", Doc: "auto, resolved (systemd-resolved), dnsmasq or none: how names of .consul are resolved; default auto"},
		{Name: "dns_upstream", Doc: "list of name servers for other names, with dnsmasq; default those that the machine has"},
		{Name: "dns_listen", Doc: "address that dnsmasq listens on for the machine; default 127.0.0.1"},
		{Name: "dns_port", Doc: "port that dnsmasq listens on; default 53. With another one, /etc/resolv.conf is left alone"},
		{Name: "dns_resolv_conf", Doc: "auto, manage or keep: whether /etc/resolv.conf is headed by dnsmasq; default auto"},
		{Name: "dns_config_dir", Doc: "default /etc/mi-lb/dns"},
	}
}

// settings are how names are resolved on one machine.
type settings struct {
	Mode      string // "resolved" or "dnsmasq"
	Domain    string
	Port      int
	Listen    []string
	Consul    string // address#port
	Upstream  []string
	ConfigDir string
	Program   string

	resolvConf string
	consul     netip.AddrPort
	// containers is the address that containers ask; the zero address for none.
	containers netip.Addr
}

var domainName = regexp.MustCompile(`[a-z0-9]([a-z0-9.-]*[a-z0-9])?`)

func read(p component.Platform, n *cluster.Node, f *facts.Facts) (settings, *vars.Reader) {
	r := vars.For(Name, n)
	s := settings{
		Mode:       r.OneOf("dns", "auto", "auto", "resolved", "dnsmasq", "none"),
		Domain:     "consul",
		Port:       r.Port("dns_port", 53),
		ConfigDir:  r.Path("dns_config_dir", "/etc/mi-lb/dns"),
		Program:    "/usr/sbin/dnsmasq",
		resolvConf: r.OneOf("dns_resolv_conf", "auto", "auto", "manage", "keep"),
		consul:     consul.DNSAddress(n),
	}
	// Consul answers for another domain where its configuration says so.
	if domain, ok := r.Object("consul_config")["domain"].(string); ok {
		s.Domain = strings.TrimSuffix(domain, ".")
		if domainName.FindString(s.Domain) != s.Domain {
			r.Refuse("consul_config", "has %q as domain, which is none", domain)
		}
	}
	if docker.On(n) {
		s.containers = docker.BridgeAddress(p, n)
	}
	if s.Mode == "auto" {
		s.Mode = "dnsmasq"
		if f.Resolver.Resolved && strings.Contains(f.Resolver.ResolvConf, "127.0.0.53") && f.System.Systemd >= leastResolved {
			s.Mode = "resolved"
		}
	}
	listen := r.Addresses("dns_listen", []netip.Addr{netip.MustParseAddr("127.0.0.1")})
	for _, a := range listen {
		s.Listen = append(s.Listen, a.String())
	}
	if s.containers.IsValid() {
		s.Listen = append(s.Listen, s.containers.String())
	}
	s.Consul = fmt.Sprintf("%s#%d", s.consul.Addr(), s.consul.Port())
	for _, a := range r.Addresses("dns_upstream", nameservers(f.Resolver.ResolvConf, listen)) {
		s.Upstream = append(s.Upstream, a.String())
	}
	return s, r
}

// leastResolved is the first version of systemd whose resolver can be told a port of
// a name server (246) and further addresses to answer on (247).
const leastResolved = 247

// nameservers are those of a resolv.conf, without our own.
func nameservers(resolvConf string, own []netip.Addr) []netip.Addr {
	var all []netip.Addr
	for line := range strings.SplitSeq(resolvConf, "\n") {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil && a.Zone() == "" && !slices.Contains(own, a) && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all
}

// Desired implements [component.Component].
func (dns) Desired(p component.Platform, n *cluster.Node) (*desired.Part, []component.Problem) {
	f, problems := base.Machine(p, n, Name)
	if f == nil {
		return nil, problems
	}
	s, r := read(p, n, f)
	if r.Bad() {
		return nil, r.Problems()
	}
	part := &desired.Part{Component: Name}
	if s.Mode == "resolved" {
		if f.System.Systemd < leastResolved {
			return nil, []component.Problem{{
				Fatal: true, Code: "resolved", Node: n.Name, Component: Name,
				Message: fmt.Sprintf("systemd %d cannot be told to ask a port of a name server for some names", f.System.Systemd),
				Advice:  "set dns to dnsmasq",
			}}
		}
		part.Directories = []desired.Directory{{Path: "/etc/systemd/resolved.conf.d", Mode: 0o755, Owner: "root:root"}}
		part.Files = []desired.File{{
			Path: "/etc/systemd/resolved.conf.d/60-mi-lb.conf", Mode: 0o644, Owner: "root:root", Content: s.resolved(), Restarts: []string{resolved},
		}}
		part.Units = []desired.Unit{{Name: resolved, State: desired.Running}}
		return part, nil
	}
	name := "dnsmasq-base" // the program alone, without a unit that would start at once
	if f.System.Family == facts.RedHat {
		name = "dnsmasq"
	}
	part.Packages = []desired.Package{{Name: name, Restarts: []string{Unit}}}
	part.Directories = []desired.Directory{{Path: s.ConfigDir, Mode: 0o755, Owner: "root:root"}}
	part.Files = []desired.File{{
		Path: s.ConfigDir + "/dnsmasq.conf", Mode: 0o644, Owner: "root:root", Content: s.render("dnsmasq.conf"), Restarts: []string{Unit},
		Check: s.Program + " --test --conf-file=%s",
	}}
	part.Units = []desired.Unit{{Name: Unit, Content: s.render("mi-lb-dns.service"), State: desired.Running}}
	if content, ok := s.headResolvConf(f.Resolver); ok {
		part.Files = append(part.Files, desired.File{Path: "/etc/resolv.conf", Mode: 0o644, Owner: "root:root", Content: content})
	}
	return part, nil
}

func (s settings) resolved() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by mi-lb.\n[Resolve]\nDNS=%s\nDomains=~%s\nDNSSEC=false\n", s.consul, s.Domain)
	if s.containers.IsValid() {
		fmt.Fprintf(&b, "DNSStubListenerExtra=%s\n", s.containers)
	}
	return b.String()
}

// headResolvConf is /etc/resolv.conf with our own server first; ok is false where it
// is left alone.
func (s settings) headResolvConf(found facts.Resolver) (content string, ok bool) {
	switch {
	case s.resolvConf == "keep" || s.Port != 53:
		return "", false
	case s.resolvConf == "auto" && writtenByOthers(found):
		return "", false
	}
	own := s.Listen[0]
	var b strings.Builder
	b.WriteString(heading + "nameserver " + own + "\n")
	for line := range strings.SplitSeq(strings.TrimRight(found.ResolvConf, "\n"), "\n") {
		fields := strings.Fields(line)
		if strings.TrimSpace(line) == "" || line+"\n" == heading || len(fields) > 1 && fields[0] == "nameserver" && fields[1] == own {
			continue
		}
		b.WriteString(line + "\n")
	}
	return b.String(), true
}

const heading = "# The first name server is mi-lb's.\n"

// writtenByOthers says whether another program owns resolv.conf, and would write it
// again.
func writtenByOthers(found facts.Resolver) bool {
	if found.Link != "" {
		return true
	}
	text := strings.ToLower(found.ResolvConf)
	return slices.ContainsFunc([]string{"generated by", "do not edit", "resolvconf", "networkmanager", "dhclient", "nameserver 127.0.0.11", "nameserver 127.0.0.53"},
		func(mark string) bool { return strings.Contains(text, mark) })
}

//go:embed files
var files embed.FS

var templates = template.Must(template.New("").ParseFS(files, "files/*.tmpl"))

func (s settings) render(name string) string {
	var b strings.Builder
	if err := templates.ExecuteTemplate(&b, name+".tmpl", s); err != nil {
		// The templates are part of the program and their data is typed.
		panic(fmt.Sprintf("render %s: %v", name, err))
	}
	return b.String()
}

// Check implements [component.Checker]: port 53 is free where it is needed, or ours.
func (dns) Check(p component.Platform, n *cluster.Node) []component.Problem {
	f := p.Facts[n.Name]
	if f == nil {
		return nil
	}
	s, r := read(p, n, f)
	if r.Bad() {
		return nil // Desired has said so
	}
	var problems []component.Problem
	add := func(fatal bool, code, message, advice string) {
		problems = append(problems, component.Problem{Fatal: fatal, Code: code, Node: n.Name, Component: Name, Message: message, Advice: advice})
	}
	if s.Mode == "resolved" && !f.Resolver.Resolved {
		add(true, "resolved", "systemd-resolved does not run", "start it, or set dns to dnsmasq")
	}
	for _, l := range f.Listeners {
		if !s.takes(l) {
			continue
		}
		who := l.Process
		if who == "" {
			who = "a program that cannot be seen"
		}
		if l.Unit != "" {
			who += " (" + l.Unit + ")"
		}
		add(true, "port-taken", fmt.Sprintf("%s listens on %s, where names are to be resolved", who, l.Address),
			fmt.Sprintf("stop it; or have it forward the domain %s to %s and set dns to none", s.Domain, s.consul))
		break
	}
	if _, manages := s.headResolvConf(f.Resolver); s.Mode == "dnsmasq" && s.resolvConf == "auto" && !manages && s.Port == 53 &&
		!slices.Contains(nameservers(f.Resolver.ResolvConf, nil), netip.MustParseAddr(s.Listen[0])) {
		add(false, "resolv-conf", "another program writes /etc/resolv.conf: the machine itself will not resolve names of ."+s.Domain+", only containers will",
			"have that program put "+s.Listen[0]+" first, or set dns_resolv_conf to manage (or to keep, where that is as it should be)")
	}
	return problems
}

// takes says whether a listener is where ours is to listen, and not ours.
func (s settings) takes(l facts.Listener) bool {
	if int(l.Address.Port()) != s.Port || l.Unit == Unit {
		return false
	}
	at := l.Address.Addr().Unmap()
	if s.Mode == "resolved" {
		return l.Unit != resolved && s.containers.IsValid() && (at == s.containers || at.IsUnspecified())
	}
	return at.IsUnspecified() || slices.Contains(s.Listen, at.String())
}
