package routing

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/mi-lb/mi-lb/watch"
)

// Compile turns a snapshot into a table. It is pure: it depends on nothing but its
// arguments, and not on the order of anything in them.
//
// held are the claims of the table before, nil if there is none.
func Compile(snapshot *watch.Snapshot, policy Policy, held Claims) *Table {
	distances := distances(snapshot)
	table := &Table{Revision: snapshot.Revision, At: snapshot.At}
	var routes []*routeClaim
	var ports []*portClaim
	for _, part := range snapshot.Parts {
		table.Findings = append(table.Findings, part.Findings...)
	}
	for _, u := range identify(snapshot, policy, held) {
		c := compileUnit(u, &policy, snapshot.Datacenter, distances)
		table.Backends = append(table.Backends, c.backends...)
		table.Services = append(table.Services, c.row)
		table.Findings = append(table.Findings, c.findings...)
		for i := range c.routes {
			routes = append(routes, &c.routes[i])
		}
		for i := range c.ports {
			ports = append(ports, &c.ports[i])
		}
	}
	var findings []watch.Finding
	table.Routes, findings = settleRoutes(routes, held)
	table.Findings = append(table.Findings, findings...)
	table.Ports, findings = settlePorts(ports, &policy, held)
	table.Findings = append(table.Findings, findings...)
	table.Backends = used(table)
	slices.SortFunc(table.Findings, watch.Finding.Compare)
	table.Findings = slices.Compact(table.Findings)
	return table
}

// distances rank the datacenters: 0 is the local one, then nearest first.
func distances(snapshot *watch.Snapshot) map[string]int {
	ranks := map[string]int{}
	for i, dc := range snapshot.Datacenters() {
		ranks[dc.Name] = i + 1
	}
	ranks[snapshot.Datacenter] = 0
	return ranks
}

// used drops the backends that nothing leads to: HAProxy would carry, and check,
// their servers for nothing.
func used(t *Table) []*Backend {
	lead := map[string]bool{}
	for _, r := range t.Routes {
		lead[r.Backend] = true
	}
	for _, p := range t.Ports {
		lead[p.Backend] = true
	}
	backends := slices.DeleteFunc(t.Backends, func(b *Backend) bool { return !lead[b.ID] })
	if len(backends) == 0 {
		return nil
	}
	slices.SortFunc(backends, compareBackends)
	return backends
}

func compareBackends(a, b *Backend) int { return strings.Compare(a.ID, b.ID) }

// compiled is what one unit asks of the table.
type compiled struct {
	row      *Service
	backends []*Backend
	routes   []routeClaim
	ports    []portClaim
	findings []watch.Finding
}

func compileUnit(u *unit, policy *Policy, local string, distances map[string]int) compiled {
	s, findings := readSettings(u.name, u.profiles)
	c := &unitCompiler{
		unit: u, policy: policy, settings: s, local: local, distances: distances,
		byID: map[string]*Backend{},
	}
	c.findings = append(slices.Clone(u.findings), findings...)
	c.row = &Service{Name: u.name, Aliases: u.aliases, Sources: u.sources, Instances: len(u.members)}
	if len(u.apps) > 0 {
		// Rather the one that is called so by its id: it is what keeps others from the name.
		own := slices.IndexFunc(u.apps, func(a appPort) bool { return a.index == 0 && dashed(a.app.ID) == u.name })
		c.row.App = u.apps[max(own, 0)].app.ID
	}
	for _, m := range u.members {
		if serves(m.health) {
			c.row.Serving++
		}
	}
	if c.row.Reason = c.unpublished(); c.row.Reason != "" {
		return c.compiled
	}
	c.row.Published = true
	c.warnAboutNames()
	c.compileRoutes()
	c.compilePorts()
	return c.compiled
}

// serves says whether an instance of that health may have new traffic.
func serves(h watch.Health) bool {
	return h == watch.HealthUnknown || h == watch.HealthPassing || h == watch.HealthWarning
}

type unitCompiler struct {
	compiled
	unit      *unit
	policy    *Policy
	settings  settings
	local     string
	distances map[string]int
	byID      map[string]*Backend
}

// unpublished says why the unit is not published, "" if it is.
func (c *unitCompiler) unpublished() string {
	enable := c.settings.enable
	switch {
	case enable != nil && !*enable:
		return "mi-lb.enable is false"
	case len(c.unit.apps) == 0 && len(c.unit.sources) == 0:
		return "none of its ports speaks TCP"
	case c.settings.restricted != "":
		return c.settings.restricted + " is not supported yet, and without it everyone would have access"
	case enable == nil && isInfrastructure(c.unit.name):
		return "infrastructure is published only with mi-lb.enable=true"
	case enable == nil && c.policy.Exposure == ExposeTagged:
		return "exposure is \"tagged\" and mi-lb.enable is not set"
	}
	// All of its apps are withheld, and it has nobody else.
	if len(c.unit.apps) > 0 && len(c.unit.members) == 0 {
		for _, a := range c.unit.apps {
			if a.withheld == "" {
				return ""
			}
		}
		return c.unit.apps[0].withheld
	}
	if !c.servesGroups() {
		return "the service is in none of the groups that this edge serves"
	}
	return ""
}

// servesGroups says whether this edge serves the groups of a unit that is not an
// app's (those of apps are looked at app by app).
func (c *unitCompiler) servesGroups() bool {
	if len(c.unit.apps) > 0 || len(c.unit.members) == 0 {
		return true
	}
	for _, m := range c.unit.members {
		for _, name := range m.sources {
			kind, rest, _ := strings.Cut(name, "/")
			if c.policy.serves(watch.Source{Kind: watch.Kind(kind), Name: rest}, c.settings.groups) {
				return true
			}
		}
	}
	return false
}

func (c *unitCompiler) find(code, key, message, instead string) {
	source := ""
	if len(c.unit.sources) > 0 {
		source = c.unit.sources[0]
	}
	c.findings = append(c.findings, watch.Finding{
		Code: code, Source: source, Service: c.unit.name, Key: key, Message: message, Instead: instead,
	})
}

// warnAboutNames is for names that no request can carry.
func (c *unitCompiler) warnAboutNames() {
	if _, err := parseServiceName(c.unit.name); err != nil && len(c.unit.apps) == 0 {
		c.find("name-not-a-host", "", fmt.Sprintf("the name %q %s", watch.Printable(c.unit.name), err),
			"it is not reachable by name; mi-lb.host and mi-lb.port still work")
	}
}

// isLocal says whether any instance of the unit is in the local datacenter.
func (c *unitCompiler) isLocal() bool {
	return slices.ContainsFunc(c.unit.members, func(m member) bool { return m.datacenter == c.local }) ||
		slices.ContainsFunc(c.unit.apps, func(a appPort) bool { return a.datacenter == c.local })
}

func (c *unitCompiler) claim(r Route, standing standing) {
	r.Service = c.unit.name
	c.routes = append(c.routes, routeClaim{route: r, standing: standing, local: c.isLocal(), source: c.source()})
}

func (c *unitCompiler) source() string {
	if len(c.unit.sources) == 0 {
		return ""
	}
	return c.unit.sources[0]
}

func (c *unitCompiler) compileRoutes() {
	switch c.settings.mode {
	case modeTCP:
		for _, asked := range c.settings.routes {
			c.find("host-without-http", watch.Printable(asked.via), "a service with mode=tcp has no host", "ignored; use mode=http or mode=passthrough")
		}
		return
	case modePassthrough:
		c.passthrough()
		return
	}
	c.names()
	for _, asked := range c.settings.routes {
		b := c.backend(subset{protocol: HTTP, strip: asked.strip})
		c.claim(Route{Kind: ByHost, Host: asked.host, Path: asked.path, PathPrefix: asked.prefix, Backend: b.ID, Via: asked.via}, byRight)
	}
	for _, a := range c.unit.apps {
		if id, err := parseAppID(a.app.ID); err == nil && a.index == c.firstHTTP(a) {
			c.claim(Route{Kind: ByAppID, Host: id, Backend: c.backend(subset{protocol: HTTP}).ID, Via: "app id"}, byRight)
		}
	}
}

// firstHTTP is the app's first port that speaks TCP at all.
func (c *unitCompiler) firstHTTP(a appPort) int {
	for i, p := range a.app.Ports {
		if p.TCP() {
			return i
		}
	}
	return 0
}

func (c *unitCompiler) passthrough() {
	if !c.policy.Passthrough && len(c.settings.routes) > 0 {
		c.find("no-tls-listener", "", "mode=passthrough needs an HTTPS listener, and this edge has none", "not reachable by host; ask the operator for listen.https")
		return
	}
	b := c.backend(subset{protocol: TCP})
	for _, asked := range c.settings.routes {
		if asked.path != "/" || asked.host == "*" {
			c.find("path-in-passthrough", watch.Printable(asked.via), "what is inside of TLS cannot be looked at, a path least of all", "the path is ignored")
		}
		if asked.host != "*" {
			c.claim(Route{Kind: BySNI, Host: asked.host, Backend: b.ID, Via: asked.via}, byRight)
		}
	}
	for _, name := range c.hosts(c.unit.name) {
		c.claim(Route{Kind: BySNI, Host: name, Backend: b.ID, Via: "name"}, byRight)
	}
}

// hosts are the names under the edge's domain and, without datacenter and tag,
// Consul's own.
func (c *unitCompiler) hosts(name string) []string {
	if _, err := parseServiceName(name); err != nil {
		return nil
	}
	var hosts []string
	for _, domain := range []string{c.policy.Domain, c.serviceDomain()} {
		if domain == "" {
			continue
		}
		if host, err := parseHost(name + "." + domain); err == nil {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

func (c *unitCompiler) serviceDomain() string {
	if c.policy.ConsulDomain == "" {
		return ""
	}
	return "service." + c.policy.ConsulDomain
}

// names claims the hosts that follow from the unit's names: under the domain, and
// Consul's with and without datacenter and tag.
func (c *unitCompiler) names() {
	whole := c.backend(subset{protocol: HTTP})
	for i, name := range append([]string{c.unit.name}, c.unit.aliases...) {
		standing, via := byRight, "name"
		if i > 0 {
			standing, via = byAlias, "alias of "+c.unit.name
		}
		for _, host := range c.hosts(name) {
			c.claim(Route{Kind: ByHost, Host: host, Path: "/", Backend: whole.ID, Via: via}, standing)
		}
		if _, err := parseServiceName(name); err != nil || c.policy.ConsulDomain == "" {
			continue
		}
		c.dnsNames(name, standing)
	}
}

// mostTags bounds how many backends one service can cause with its tags.
const mostTags = 32

func (c *unitCompiler) dnsNames(name string, standing standing) {
	datacenters := c.datacenters()
	tags := c.tags()
	if len(tags) > mostTags {
		c.find("too-many-tags", "", fmt.Sprintf("has %d tags that only some instances have", len(tags)),
			fmt.Sprintf("Consul's DNS names with a tag lead to it for the first %d only", mostTags))
		tags = tags[:mostTags]
	}
	suffix := "." + c.policy.ConsulDomain
	claim := func(labels string, of subset) {
		host, err := parseHost(labels + suffix)
		if err != nil {
			return
		}
		c.claim(Route{Kind: ByHost, Host: host, Path: "/", Backend: c.backend(of).ID, Via: "consul dns"}, standing)
	}
	for _, dc := range datacenters {
		claim(name+".service."+dc, subset{protocol: HTTP, datacenter: dc})
	}
	for _, tag := range tags {
		claim(tag+"."+name+".service", subset{protocol: HTTP, tag: tag})
		for _, dc := range datacenters {
			claim(tag+"."+name+".service."+dc, subset{protocol: HTTP, tag: tag, datacenter: dc})
		}
	}
}

func (c *unitCompiler) datacenters() []string {
	var all []string
	for _, m := range c.unit.members {
		if m.datacenter != "" && checkLabel(m.datacenter) == nil {
			all = append(all, strings.ToLower(m.datacenter))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// tags that can be part of a DNS name, in lower case.
func (c *unitCompiler) tags() []string {
	var all []string
	for _, m := range c.unit.members {
		for _, tag := range m.tags {
			if checkLabel(tag) == nil {
				all = append(all, strings.ToLower(tag))
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// compilePorts claims the app's service ports and those the unit asks for.
func (c *unitCompiler) compilePorts() {
	asked := c.settings.ports
	if !c.settings.replacePort {
		for _, a := range c.unit.apps {
			if port := a.port().ServicePort; port > 0 && a.withheld == "" {
				asked = append(asked, askedPort{number: port, via: "servicePort of " + watch.Printable(a.app.ID)})
			}
		}
	}
	if len(asked) == 0 {
		return
	}
	b := c.backend(subset{protocol: c.portProtocol()})
	for _, p := range asked {
		if p.number < 1 || p.number > 65535 {
			c.find("invalid-value", watch.Printable(p.via), strconv.Itoa(p.number)+" is no port", "not opened")
			continue
		}
		c.ports = append(c.ports, portClaim{
			port:  Port{Number: p.number, Protocol: b.Protocol, Backend: b.ID, Service: c.unit.name, Via: watch.Printable(p.via)},
			local: c.isLocal(), source: c.source(),
		})
	}
}

// portProtocol follows Marathon-lb where nothing is said: HTTP for what has a host
// or is checked by HTTP, TCP for everything else.
func (c *unitCompiler) portProtocol() Protocol {
	switch c.settings.mode {
	case modeHTTP:
		return HTTP
	case modeTCP, modePassthrough:
		return TCP
	}
	if len(c.settings.routes) > 0 {
		return HTTP
	}
	for _, a := range c.unit.apps {
		if check, ok := marathonCheck(a); ok && isHTTP(check.Protocol) {
			return HTTP
		}
	}
	return TCP
}
