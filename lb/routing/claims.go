package routing

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/mi-lb/mi-lb/watch"
)

// Claims say which service has what only one can have: "host shop.example.com/",
// "port 9000", "name shop". The one that has it keeps it, so the claims of one
// table are an input of the next; they are saved, so that a restart changes nobody's
// traffic.
type Claims map[string]string

func claimName(name string) string  { return "name " + name }
func claimPort(number int) string   { return fmt.Sprintf("port %d", number) }
func claimRoute(route Route) string { return string(route.Kind) + " " + route.Host + " " + route.Path }

// Claims are what the services of the table have.
func (t *Table) Claims() Claims {
	claims := Claims{}
	for _, r := range t.Routes {
		claims[claimRoute(r)] = r.Service
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
func stronger(key string, held Claims, a, b string, aLocal, bLocal bool) int {
	return firstTrue(held[key] == a, held[key] == b, aLocal, bLocal, a, b)
}

func settleRoutes(claims []routeClaim, held Claims) ([]Route, []watch.Finding) {
	byKey := map[string][]routeClaim{}
	for _, c := range claims {
		key := claimRoute(c.route)
		byKey[key] = append(byKey[key], c)
	}
	routes := make([]Route, 0, len(byKey))
	var findings []watch.Finding
	for key, rivals := range byKey {
		if len(rivals) > 1 {
			slices.SortFunc(rivals, func(a, b routeClaim) int {
				return cmp.Or(
					cmp.Compare(a.standing, b.standing),
					stronger(key, held, a.route.Service, b.route.Service, a.local, b.local),
					strings.Compare(a.route.Via, b.route.Via),
				)
			})
		}
		winner := rivals[0].route
		routes = append(routes, winner)
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
	}
	slices.SortFunc(routes, compareRoutes)
	return routes, findings
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

func settlePorts(claims []portClaim, policy Policy, held Claims) ([]Port, []watch.Finding) {
	byNumber := map[int][]portClaim{}
	for _, c := range claims {
		byNumber[c.port.Number] = append(byNumber[c.port.Number], c)
	}
	var ports []Port
	var findings []watch.Finding
	refuse := func(c portClaim, message, instead string) {
		findings = append(findings, watch.Finding{
			Code: "port-taken", Source: c.source, Service: c.port.Service, Key: watch.Printable(c.port.Via),
			Message: fmt.Sprintf("port %d %s", c.port.Number, message), Instead: instead,
		})
	}
	for number, rivals := range byNumber {
		if by, reserved := policy.Reserved[number]; reserved {
			for _, c := range rivals {
				refuse(c, "is used by the edge itself ("+by+")", "not opened for the service; choose another port")
			}
			continue
		}
		key := claimPort(number)
		slices.SortFunc(rivals, func(a, b portClaim) int {
			return cmp.Or(
				stronger(key, held, a.port.Service, b.port.Service, a.local, b.local),
				strings.Compare(a.port.Via, b.port.Via),
			)
		})
		ports = append(ports, rivals[0].port)
		for _, c := range rivals[1:] {
			if c.port.Service != rivals[0].port.Service {
				refuse(c, fmt.Sprintf("already leads to service %q", watch.Printable(rivals[0].port.Service)),
					"the port stays with it; choose another port")
			}
		}
	}
	slices.SortFunc(ports, func(a, b Port) int { return cmp.Compare(a.Number, b.Number) })
	return ports, findings
}
