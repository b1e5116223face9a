package routing

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/mi-lb/mi-lb/watch"
)

// Claims say which service has what only one can have: "host shop.example.com/",
// "port 9000", "name shop". The one that has it keeps it, so the claims of one
// table are an input of the next; they are saved, so that a restart changes nobody's
// traffic.
type Claims map[string]string

func claimName(name string) string { return "name " + name }
func claimPort(number int) string  { return "port " + strconv.Itoa(number) }
func claimRoute(k routeKey) string { return string(k.kind) + " " + k.host + " " + k.path }

// Claims are what the services of the table have.
func (t *Table) Claims() Claims {
	claims := make(Claims, len(t.Routes)+len(t.Ports))
	for i := range t.Routes {
		claims[claimRoute(t.Routes[i].key())] = t.Routes[i].Service
	}
	for _, p := range t.Ports {
		claims[claimPort(p.Number)] = p.Service
	}
	for _, s := range t.Services {
		if s.App != "" {
			claims[claimName(s.Name)] = s.App
		}
	}
	return claims
}

// holders know who has had what so far; "" is nobody.
type holders interface {
	name(name string) (app string)
	route(routeKey) (service string)
	port(number int) (service string)
}

func (c Claims) name(name string) string { return c[claimName(name)] }
func (c Claims) route(k routeKey) string { return c[claimRoute(k)] }
func (c Claims) port(number int) string  { return c[claimPort(number)] }

// routeKey is what only one route can have.
type routeKey struct {
	kind       RouteKind
	host, path string
}

func (r *Route) key() routeKey { return routeKey{r.Kind, r.Host, r.Path} }

// standing orders those who claim one thing, strongest first.
type standing int

const (
	// byRight: the service's own name, or what it asks for.
	byRight standing = iota
	// byAlias never takes anything from anyone.
	byAlias
)

type routeClaim struct {
	route    Route
	standing standing
	local    bool
	source   string
}

type portClaim struct {
	port   Port
	local  bool
	source string
}

// stronger is the stated rule: the one that has it keeps it; then local
// datacenter; then name.
func stronger(holder, a, b string, aLocal, bLocal bool) int {
	return firstTrue(holder == a, holder == b, aLocal, bLocal, a, b)
}

// settleRoute puts the strongest of those who claim one route first. What one service
// claims twice stays in its order.
func settleRoute(rivals []*routeClaim, holder string) {
	slices.SortStableFunc(rivals, func(a, b *routeClaim) int {
		return cmp.Or(
			cmp.Compare(a.standing, b.standing),
			stronger(holder, a.route.Service, b.route.Service, a.local, b.local),
			strings.Compare(a.route.Via, b.route.Via),
		)
	})
}

// lostRoute is what those who do not get a settled route are told.
func lostRoute(rivals []*routeClaim) []watch.Finding {
	if len(rivals) < 2 {
		return nil
	}
	winner := &rivals[0].route
	var findings []watch.Finding
	for _, loser := range rivals[1:] {
		if loser.standing == byAlias || loser.route.Service == winner.Service {
			continue
		}
		findings = append(findings, watch.Finding{
			Code: "route-taken", Source: loser.source, Service: loser.route.Service, Key: watch.Printable(loser.route.Via),
			Message: fmt.Sprintf("%s already leads to service %q", loser.route.where(), watch.Printable(winner.Service)),
			Instead: "the route stays with it; ask for another host or path",
		})
	}
	return findings
}

// where is the route's condition as a person writes it.
func (r Route) where() string {
	switch r.Kind {
	case ByAppID:
		return "app id " + r.Host
	case BySNI:
		return "server name " + r.Host
	}
	if r.Path == "/" {
		return "host " + r.Host
	}
	return "host " + r.Host + r.Path
}

func compareRoutes(a, b Route) int {
	return cmp.Or(
		cmp.Compare(a.Kind, b.Kind),
		cmp.Compare(a.Host, b.Host),
		cmp.Compare(len(b.Path), len(a.Path)),
		cmp.Compare(a.Path, b.Path),
	)
}

func comparePorts(a, b Port) int { return cmp.Compare(a.Number, b.Number) }

func settleRoutes(claims []*routeClaim, held holders) ([]Route, []watch.Finding) {
	byKey := make(map[routeKey][]*routeClaim, len(claims))
	for _, c := range claims {
		byKey[c.route.key()] = append(byKey[c.route.key()], c)
	}
	routes := make([]Route, 0, len(byKey))
	var findings []watch.Finding
	for key, rivals := range byKey {
		if len(rivals) > 1 {
			settleRoute(rivals, held.route(key))
			findings = append(findings, lostRoute(rivals)...)
		}
		routes = append(routes, rivals[0].route)
	}
	slices.SortFunc(routes, compareRoutes)
	return routes, findings
}

// settlePort puts the strongest of those who claim one port first.
func settlePort(rivals []*portClaim, holder string) {
	slices.SortStableFunc(rivals, func(a, b *portClaim) int {
		return cmp.Or(
			stronger(holder, a.port.Service, b.port.Service, a.local, b.local),
			strings.Compare(a.port.Via, b.port.Via),
		)
	})
}

// lostPort is what those who do not get a settled port are told. One that the edge
// uses itself nobody gets.
func lostPort(rivals []*portClaim, policy *Policy) []watch.Finding {
	if len(rivals) == 0 {
		return nil
	}
	var findings []watch.Finding
	refuse := func(c *portClaim, message, instead string) {
		findings = append(findings, watch.Finding{
			Code: "port-taken", Source: c.source, Service: c.port.Service, Key: watch.Printable(c.port.Via),
			Message: fmt.Sprintf("port %d %s", c.port.Number, message), Instead: instead,
		})
	}
	winner := &rivals[0].port
	if by, reserved := policy.Reserved[winner.Number]; reserved {
		for _, c := range rivals {
			refuse(c, "is used by the edge itself ("+by+")", "not opened for the service; choose another port")
		}
		return findings
	}
	for _, c := range rivals[1:] {
		if c.port.Service != winner.Service {
			refuse(c, fmt.Sprintf("already leads to service %q", watch.Printable(winner.Service)),
				"the port stays with it; choose another port")
		}
	}
	return findings
}

func settlePorts(claims []*portClaim, policy *Policy, held holders) ([]Port, []watch.Finding) {
	byNumber := map[int][]*portClaim{}
	for _, c := range claims {
		byNumber[c.port.Number] = append(byNumber[c.port.Number], c)
	}
	var ports []Port
	var findings []watch.Finding
	for number, rivals := range byNumber {
		settlePort(rivals, held.port(number))
		findings = append(findings, lostPort(rivals, policy)...)
		if _, reserved := policy.Reserved[number]; !reserved {
			ports = append(ports, rivals[0].port)
		}
	}
	slices.SortFunc(ports, comparePorts)
	return ports, findings
}
