package compile

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/lb/routing"
)

// behaviour is what requests see of a configuration, whoever wrote it.
type behaviour struct {
	// Ports are the service ports, by number.
	Ports map[int]service
	// Hosts are what hosts, and hosts with the beginning of a path, lead to:
	// "test.example.com/some/path". Apps are what app ids lead to.
	Hosts, Apps map[string]service
}

// service is what one port, host or app id leads to.
type service struct {
	Mode    string
	Balance string
	Sticky  bool
	Servers []string
	// CheckPath is that of an HTTP check; the others are 0 where nothing is said.
	CheckPath     string
	CheckInterval time.Duration
	CheckTimeout  time.Duration
	CheckFall     int
	// CheckPort is 0 where it is the server's own.
	CheckPort int
}

// ofTable is the behaviour of a table. Routes by names that services have without
// asking are left out: Marathon-lb has none.
func ofTable(t *testing.T, table *routing.Table, own routing.Policy) behaviour {
	t.Helper()
	known := backends(table)
	b := behaviour{Ports: map[int]service{}, Hosts: map[string]service{}, Apps: map[string]service{}}
	for _, p := range table.Ports {
		b.Ports[p.Number] = ofBackend(known[p.Backend])
	}
	for _, r := range table.Routes {
		switch {
		case r.Kind == routing.ByAppID:
			b.Apps[r.Host] = ofBackend(known[r.Backend])
		case r.Kind != routing.ByHost:
			t.Errorf("route of an unexpected kind: %+v", r)
		case strings.HasSuffix(r.Host, "."+own.Domain) || strings.HasSuffix(r.Host, "."+own.ConsulDomain):
		default:
			b.Hosts[strings.TrimSuffix(r.Host+r.Path, "/")] = ofBackend(known[r.Backend])
			if r.Path != "/" && !r.PathPrefix {
				t.Errorf("%s%s matches whole segments, Marathon-lb's path_beg does not", r.Host, r.Path)
			}
		}
	}
	return b
}

func ofBackend(b *routing.Backend) service {
	s := service{
		Mode: string(b.Protocol), Balance: b.Balance, Sticky: b.Sticky,
		CheckPath: b.Check.Path, CheckInterval: b.Check.Interval, CheckTimeout: b.Check.Timeout, CheckFall: b.Check.Fall,
		CheckPort: b.Check.Port,
	}
	for _, server := range b.Servers {
		if server.State != routing.Ready {
			continue
		}
		s.Servers = append(s.Servers, server.Address.String())
		if int(server.Address.Port()) == b.Check.Port {
			s.CheckPort = 0
		}
	}
	slices.Sort(s.Servers)
	return s
}

// ofMarathonLB is the behaviour of a configuration that Marathon-lb rendered, in
// which the map files are given as lists of single entries.
func ofMarathonLB(t *testing.T, cfg string, domains, apps []map[string]string) behaviour {
	t.Helper()
	type frontend struct {
		port int
		acls map[string][]string
		// uses are the words of each use_backend. A host that is redirected to
		// HTTPS has one on the HTTPS frontend only.
		uses [][]string
	}
	frontends, services := map[string]*frontend{}, map[string]service{}
	var f *frontend
	name := ""
	for line := range strings.Lines(cfg) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if !strings.HasPrefix(line, " ") {
			f, name = nil, words[1]
			switch words[0] {
			case "frontend":
				f = &frontend{acls: map[string][]string{}}
				frontends[name] = f
			case "backend":
				services[name] = service{}
			case "userlist":
			default:
				t.Fatalf("unknown section %q", line)
			}
			continue
		}
		if f != nil {
			switch words[0] {
			case "bind":
				_, port, _ := strings.Cut(words[1], ":")
				f.port, _ = strconv.Atoi(port)
			case "acl":
				f.acls[words[1]] = append(f.acls[words[1]], strings.Join(words[2:], " "))
			case "use_backend":
				f.uses = append(f.uses, words[1:])
			}
			continue
		}
		s := services[name]
		backendLine(&s, words)
		services[name] = s
	}

	b := behaviour{Ports: map[int]service{}, Hosts: map[string]service{}, Apps: map[string]service{}}
	lead := func(to map[string]service, what, backend string) {
		s, ok := services[backend]
		if !ok {
			t.Fatalf("%s leads to no backend: %q", what, backend)
		}
		to[what] = s
	}
	fromMap := func(to map[string]service, entries []map[string]string) {
		for _, entry := range entries {
			for what, backend := range entry {
				lead(to, what, backend)
			}
		}
	}
	for name, f := range frontends {
		for _, use := range f.uses {
			switch {
			case strings.Contains(use[0], "domain2backend.map"):
				fromMap(b.Hosts, domains)
			case strings.Contains(use[0], "app2backend.map"):
				fromMap(b.Apps, apps)
			case len(use) == 1:
				b.Ports[f.port] = services[use[0]]
			case name == "marathon_http_appid_in":
				for _, condition := range f.acls[use[2]] {
					lead(b.Apps, strings.TrimPrefix(condition, "hdr(x-marathon-app-id) -i "), use[0])
				}
			default:
				hosts, paths := []string{}, []string{""}
				for _, word := range use[2:] {
					for _, condition := range f.acls[word] {
						if host, ok := strings.CutPrefix(condition, "hdr(host) -i "); ok {
							hosts = append(hosts, host)
						} else if beginnings, ok := strings.CutPrefix(condition, "path_beg "); ok {
							paths = strings.Fields(beginnings)
						}
					}
				}
				if i := slices.Index(use, "ssl_fc_sni"); i >= 0 {
					hosts = append(hosts, use[i+1])
				}
				if len(hosts) == 0 {
					t.Fatalf("no host in use_backend %v", use)
				}
				for _, host := range hosts {
					for _, path := range paths {
						lead(b.Hosts, host+path, use[0])
					}
				}
			}
		}
	}
	return b
}

// backendLine takes in one line of a backend.
func backendLine(s *service, words []string) {
	switch {
	case words[0] == "mode":
		s.Mode = words[1]
	case words[0] == "balance":
		s.Balance = words[1]
	case words[0] == "cookie":
		s.Sticky = true
	case words[0] == "option" && words[1] == "httpchk":
		s.CheckPath = words[3]
	case words[0] == "timeout" && words[1] == "check":
		s.CheckTimeout, _ = time.ParseDuration(words[2])
	case words[0] == "server":
		s.Servers = append(s.Servers, words[2])
		slices.Sort(s.Servers)
		for i, word := range words[3 : len(words)-1] {
			value := words[3:][i+1]
			switch word {
			case "inter":
				s.CheckInterval, _ = time.ParseDuration(value)
			case "fall":
				s.CheckFall, _ = strconv.Atoi(value)
			case "port":
				s.CheckPort, _ = strconv.Atoi(value)
				if address, err := netip.ParseAddrPort(words[2]); err == nil && int(address.Port()) == s.CheckPort {
					s.CheckPort = 0
				}
			}
		}
	}
}
