package routing

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mi-lb/mi-lb/watch"
)

// Request is what Explain is asked about: a host and path, an app id, a server
// name, or a port.
type Request struct {
	Host  string
	Path  string
	AppID string
	SNI   string
	Port  int
}

// Explanation says where a request goes, and why.
type Explanation struct {
	// Steps are sentences, in the order in which the decision falls.
	Steps []string `json:"steps"`
	// Route or Port that decides, nil if none does.
	Route   *Route   `json:"route,omitempty"`
	Port    *Port    `json:"port,omitempty"`
	Service *Service `json:"service,omitempty"`
	Backend *Backend `json:"backend,omitempty"`
	// Serving are the servers that may get the request, by name.
	Serving  []string        `json:"serving,omitempty"`
	Findings []watch.Finding `json:"findings,omitempty"`
}

// Explain follows a request through the table.
func Explain(t *Table, request Request) Explanation {
	e := &explainer{table: t}
	switch {
	case request.Port != 0:
		e.byPort(request.Port)
	case request.AppID != "":
		e.byName(ByAppID, strings.ToLower(request.AppID))
	case request.SNI != "":
		e.byName(BySNI, hostOf(request.SNI))
	default:
		e.byHost(hostOf(request.Host), request.Path)
	}
	e.finish()
	return e.Explanation
}

// hostOf is the host that routes are compared with: in lower case, without port
// and trailing dot.
func hostOf(header string) string {
	host := strings.ToLower(header)
	if i := strings.IndexByte(host, ':'); i >= 0 {
		host = host[:i]
	}
	return strings.TrimSuffix(host, ".")
}

type explainer struct {
	Explanation
	table *Table
}

func (e *explainer) say(format string, arguments ...any) {
	e.Steps = append(e.Steps, fmt.Sprintf(format, arguments...))
}

func (e *explainer) byPort(number int) {
	for i := range e.table.Ports {
		if p := &e.table.Ports[i]; p.Number == number {
			e.Port = p
			e.say("port %d is open (%s) for service %q, because of %s", number, p.Protocol, p.Service, p.Via)
			return
		}
	}
	e.say("port %d is not open for any service", number)
	for _, f := range e.table.Findings {
		if f.Code == "port-taken" && strings.HasPrefix(f.Message, fmt.Sprintf("port %d ", number)) {
			e.Findings = append(e.Findings, f)
		}
	}
}

func (e *explainer) byName(kind RouteKind, name string) {
	for i := range e.table.Routes {
		if r := &e.table.Routes[i]; r.Kind == kind && r.Host == name {
			e.take(r)
			return
		}
	}
	e.say("no route for %s %q", kind, watch.Printable(name))
}

func (e *explainer) byHost(host, path string) {
	if path == "" {
		path = "/"
	}
	candidates := []string{host}
	if _, rest, ok := strings.Cut(host, "."); ok {
		candidates = append(candidates, "*."+rest)
	}
	for _, candidate := range append(candidates, "*") {
		if r := e.longest(candidate, path); r != nil {
			e.take(r)
			return
		}
		if candidate == host {
			e.say("no route for host %q", watch.Printable(host))
		}
	}
	e.say("nothing matches: the edge answers 503")
	e.nearMisses(host)
}

// longest is the host's route with the longest path that the request's begins with.
func (e *explainer) longest(host, path string) *Route {
	var best *Route
	for i := range e.table.Routes {
		r := &e.table.Routes[i]
		if r.Kind == ByHost && r.Host == host && r.matches(path) && (best == nil || len(r.Path) > len(best.Path)) {
			best = r
		}
	}
	return best
}

func (r *Route) matches(path string) bool {
	if r.PathPrefix || r.Path == "/" {
		return strings.HasPrefix(path, r.Path)
	}
	return path == r.Path || strings.HasPrefix(path, r.Path+"/")
}

// nearMisses names the service that the host looks like, and why it is not there.
func (e *explainer) nearMisses(host string) {
	name, _, _ := strings.Cut(host, ".")
	for _, s := range e.table.Services {
		if s.Name != name && !slices.Contains(s.Aliases, name) {
			continue
		}
		e.Service = s
		if s.Published {
			e.say("there is a service %q, but not under this host", s.Name)
		} else {
			e.say("there is a service %q, and it is not published: %s", s.Name, s.Reason)
		}
	}
}

func (e *explainer) take(r *Route) {
	e.Route = r
	e.say("%s leads to service %q, because of its %s", r.where(), r.Service, r.Via)
}

func (e *explainer) finish() {
	id, name := "", ""
	switch {
	case e.Route != nil:
		id, name = e.Route.Backend, e.Route.Service
	case e.Port != nil:
		id, name = e.Port.Backend, e.Port.Service
	}
	if i := slices.IndexFunc(e.table.Services, func(s *Service) bool { return s.Name == name }); i >= 0 {
		e.Service = e.table.Services[i]
	}
	if i := slices.IndexFunc(e.table.Backends, func(b *Backend) bool { return b.ID == id }); i >= 0 {
		e.Backend = e.table.Backends[i]
		e.servers()
	}
	if e.Service != nil {
		for _, f := range e.table.Findings {
			if f.Service == e.Service.Name {
				e.Findings = append(e.Findings, f)
			}
		}
	}
}

func (e *explainer) servers() {
	active, backup := []string{}, []string{}
	serving := func(s Server) string {
		return fmt.Sprintf("%s at %s in %s", watch.Printable(s.Name), s.Address, watch.Printable(s.Datacenter))
	}
	lines := map[bool][]string{} // by whether it is a backup
	for _, s := range e.Backend.Servers {
		why := ""
		if s.Reason != "" {
			why = " (" + watch.Printable(s.Reason) + ")"
		}
		switch {
		case s.State != Ready:
			e.say("%s at %s gets no new traffic: %s, %s%s", watch.Printable(s.Name), s.Address, s.State, s.Health, why)
		case s.Weight == 0:
			e.say("%s at %s has weight 0: a nearer datacenter is preferred, or it asks for none", watch.Printable(s.Name), s.Address)
		case s.Backup:
			backup = append(backup, s.Name)
			lines[true] = append(lines[true], serving(s))
		default:
			active = append(active, s.Name)
			lines[false] = append(lines[false], serving(s))
		}
	}
	list := func(backup bool) {
		for _, line := range lines[backup] {
			e.say("  %s", line)
		}
	}
	switch {
	case len(active) > 0:
		e.Serving = active
		e.say("backend %q balances %s over %s:", e.Backend.ID, e.Backend.Balance, servers(len(active)))
		list(false)
		if len(backup) > 0 {
			e.say("when none of them can serve, %s of other datacenters:", servers(len(backup)))
			list(true)
		}
	case len(backup) > 0:
		e.Serving = backup
		e.say("no local server can serve; %s of other datacenters:", servers(len(backup)))
		list(true)
	default:
		e.say("backend %q has no server that can serve: the edge answers 503", e.Backend.ID)
	}
}

func servers(n int) string {
	if n == 1 {
		return "1 server"
	}
	return fmt.Sprintf("%d servers", n)
}
