package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/lb/haproxy/runtime"
	"github.com/mi-lb/mi-lb/lb/routing"
)

// able is a HAProxy that can add servers and, like Debian's, not delete them.
var able = runtime.Capabilities{AddServer: true}

// testEncoding writes host routes to /hosts.map, and ports from 10000 to /ports.map.
func testEncoding() *Encoding {
	return &Encoding{
		Servers: func(_ *routing.Backend, servers []routing.Server) ([]string, error) {
			lines := make([]string, len(servers))
			for i, s := range servers {
				if strings.Contains(s.Name, "bad") {
					return nil, fmt.Errorf("server %q is bad", s.Name)
				}
				weight := s.Weight
				if s.State == routing.Drain {
					weight = 0
				}
				lines[i] = fmt.Sprintf("x/y %s weight %d check", s.Address, weight)
				if s.Backup {
					lines[i] += " backup"
				}
				if s.MaxConn > 0 {
					lines[i] += fmt.Sprint(" maxconn ", s.MaxConn)
				}
				if s.State == routing.Maint {
					lines[i] += " disabled"
				}
			}
			return lines, nil
		},
		Route: func(r routing.Route) (Row, error) {
			if strings.Contains(r.Host, "bad") {
				return Row{}, fmt.Errorf("host %q is bad", r.Host)
			}
			return Row{Map: "/hosts.map", Key: r.Host + r.Path}, nil
		},
		Port: func(p routing.Port) (Row, error) {
			if p.Number < 10000 {
				return Row{}, nil
			}
			return Row{Map: "/ports.map", Key: strconv.Itoa(p.Number)}, nil
		},
		Shape: func(b *routing.Backend) string {
			if b.Balance != "roundrobin" || b.Sticky {
				return ""
			}
			if b.Check.Path != "" {
				return string(b.Protocol) + " check"
			}
			return string(b.Protocol)
		},
		Claim: func(spare string, b *routing.Backend) ([]Row, error) {
			if b.Check.Path == "" {
				return nil, nil
			}
			return []Row{{"/checks.map", spare, b.Check.Path}}, nil
		},
	}
}

// spares have these names, whatever the table: spare-… for HTTP, check-… with a
// check by HTTP, tcp-… for TCP.
func spares(names ...string) func(*routing.Table) []Spare {
	return func(*routing.Table) []Spare {
		var all []Spare
		for _, name := range names {
			shape, _, _ := strings.Cut(name, "-")
			switch shape {
			case "spare":
				shape = "http"
			case "check":
				shape = "http check"
			}
			all = append(all, Spare{Name: name, Shape: shape})
		}
		return all
	}
}

// parseTable reads the text form of a table in the test data. Lines that are equal to
// those of the table before share its backends.
func parseTable(t *testing.T, text string) *routing.Table {
	t.Helper()
	table := &routing.Table{}
	var b *routing.Backend
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		switch words[0] {
		case "backend":
			b = &routing.Backend{ID: words[1], Service: words[1], Protocol: routing.Protocol(words[2]), Balance: words[3], Sticky: slices.Contains(words, "sticky")}
			table.Backends = append(table.Backends, b)
		case "route":
			host, path, _ := strings.Cut(words[1], "/")
			table.Routes = append(table.Routes, routing.Route{Kind: routing.ByHost, Host: host, Path: "/" + path, Backend: words[2], Service: words[2]})
		case "port":
			n, err := strconv.Atoi(words[1])
			if err != nil {
				t.Fatal(err)
			}
			table.Ports = append(table.Ports, routing.Port{Number: n, Protocol: routing.Protocol(words[2]), Backend: words[3], Service: words[3]})
		default:
			s := routing.Server{Name: words[0], Address: netip.MustParseAddrPort(words[1]), State: routing.ServerState(words[2]), Weight: 100}
			for _, word := range words[3:] {
				name, value, _ := strings.Cut(word, "=")
				n, _ := strconv.Atoi(value)
				switch name {
				case "weight":
					s.Weight = n
				case "maxconn":
					s.MaxConn = n
				case "backup":
					s.Backup = true
				default:
					t.Fatalf("server %q", line)
				}
			}
			b.Servers = append(b.Servers, s)
		}
	}
	slices.SortFunc(table.Backends, func(a, b *routing.Backend) int { return cmp.Compare(a.ID, b.ID) })
	return table
}

func (p Plan) text() string {
	var b strings.Builder
	for _, op := range p.Ops {
		fmt.Fprintln(&b, op)
	}
	for _, r := range p.Reload {
		kind := "reload"
		if r.Deferred {
			kind = "reload some time"
		}
		fmt.Fprintf(&b, "%s: %s\n", kind, r)
	}
	for _, ref := range p.Leaving {
		fmt.Fprintf(&b, "leaving: %s\n", ref)
	}
	for _, err := range p.Refused {
		fmt.Fprintf(&b, "refused: %v\n", err)
	}
	return b.String()
}
