package routing

import (
	"fmt"
	"strings"
)

// String is the table as a person reads it, one line for each thing, without what
// changes from run to run. Tests and logs use it.
func (t *Table) String() string {
	var b strings.Builder
	for _, p := range t.Ports {
		fmt.Fprintf(&b, "port %d %s -> %s  # %s\n", p.Number, p.Protocol, p.Backend, p.Via)
	}
	for _, r := range t.Routes {
		path := r.Path
		if r.PathPrefix {
			path += "*"
		}
		fmt.Fprintf(&b, "route %s %s%s -> %s  # %s\n", r.Kind, r.Host, path, r.Backend, r.Via)
	}
	for _, backend := range t.Backends {
		b.WriteString(backend.line())
		for _, s := range backend.Servers {
			b.WriteString("  " + s.line())
		}
	}
	for _, s := range t.Services {
		if !s.Published {
			fmt.Fprintf(&b, "unpublished %s  # %s\n", s.Name, s.Reason)
		}
	}
	for _, f := range t.Findings {
		fmt.Fprintf(&b, "finding %s\n", f)
	}
	return b.String()
}

func (b *Backend) line() string {
	var options strings.Builder
	option := func(is bool, format string, arguments ...any) {
		if is {
			options.WriteString(" " + fmt.Sprintf(format, arguments...))
		}
	}
	option(b.Sticky, "sticky")
	option(b.StripPath != "", "strip=%s", b.StripPath)
	option(b.Check.Disabled, "check=off")
	option(b.Check.Path != "", "check=%s", b.Check.Path)
	option(b.Check.TLS, "check-tls")
	option(b.Check.Interval > 0, "inter=%s", b.Check.Interval)
	option(b.Check.Timeout > 0, "check-timeout=%s", b.Check.Timeout)
	option(b.Check.Fall > 0, "fall=%d", b.Check.Fall)
	option(b.Check.Port > 0, "check-port=%d", b.Check.Port)
	option(b.Timeouts.Connect > 0, "connect=%s", b.Timeouts.Connect)
	option(b.Timeouts.Server > 0, "server=%s", b.Timeouts.Server)
	option(b.Timeouts.Tunnel > 0, "tunnel=%s", b.Timeouts.Tunnel)
	return fmt.Sprintf("backend %s %s %s%s\n", b.ID, b.Protocol, b.Balance, options.String())
}

func (s Server) line() string {
	line := fmt.Sprintf("%s %s %s weight=%d", s.Name, s.Address, s.State, s.Weight)
	if s.Backup {
		line += " backup"
	}
	if s.MaxConn > 0 {
		line += fmt.Sprintf(" maxconn=%d", s.MaxConn)
	}
	if s.Reason != "" {
		line += "  # " + s.Health.String() + ": " + s.Reason
	}
	return line + "\n"
}

// Without is the table without the named services: what is left when the ones
// that HAProxy refuses are taken out.
func (t *Table) Without(services map[string]bool) *Table {
	if len(services) == 0 {
		return t
	}
	rest := *t
	rest.Ports, rest.Routes, rest.Backends, rest.Services = nil, nil, nil, nil
	for _, p := range t.Ports {
		if !services[p.Service] {
			rest.Ports = append(rest.Ports, p)
		}
	}
	for _, r := range t.Routes {
		if !services[r.Service] {
			rest.Routes = append(rest.Routes, r)
		}
	}
	for _, b := range t.Backends {
		if !services[b.Service] {
			rest.Backends = append(rest.Backends, b)
		}
	}
	for _, s := range t.Services {
		if services[s.Name] {
			refused := *s
			refused.Published, refused.Reason = false, "HAProxy does not accept its configuration"
			s = &refused
		}
		rest.Services = append(rest.Services, s)
	}
	return &rest
}
