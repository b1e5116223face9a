package routing

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/watch"
)

// FuzzCompile lets one service say anything in every place where it can, and looks
// at what gets into the table: only characters that need no quoting anywhere, and
// nothing of another service's changed.
func FuzzCompile(f *testing.F) {
	for _, seed := range []string{
		"a.org", "*.a.org", "a.org/x", "-1", "9000", "80", "true", "${HOME}", "%[env(HOME)]", "a\nserver x 1.2.3.4:80",
		"random(2)", "hdr(Host)", "url_param x", "tcp", "passthrough", "/a%20b", "urlprefix-a.org/x strip=/x", "1.host", "\xff", strings.Repeat("x", 10_000),
	} {
		for _, key := range append(Vocabulary(), "0.host", "7.host", "") {
			f.Add("mi-lb."+key, seed)
		}
		f.Add("HAPROXY_0_VHOST", seed)
		f.Add("HAPROXY_0_PATH", seed)
		f.Add(seed, seed)
		f.Add("urlprefix-"+seed, "")
	}
	address := netip.MustParseAddrPort("10.0.0.9:80")
	victim := &watch.Service{Name: "victim", Instances: []watch.Instance{{ID: "v", Node: "n", Address: address, Weights: watch.Weights{Passing: 1, Warning: 1}}}}
	policy := Policy{Domain: "example.com", ConsulDomain: "consul", Passthrough: true, Reserved: map[int]string{80: "listen.http"}}
	f.Fuzz(func(t *testing.T, key, value string) {
		snapshot := &watch.Snapshot{Datacenter: "dc1", Parts: []*watch.Part{
			{
				Source: watch.Source{Kind: watch.Consul, Name: "dc1"}, Datacenter: "dc1",
				Services: map[string]*watch.Service{
					"victim": victim,
					"z" + value: {Name: "z" + value, Instances: []watch.Instance{{
						ID: value, Node: value, Address: netip.MustParseAddrPort("10.0.0.1:80"), Reason: value,
						Tags: []string{key + "=" + value, key, value}, Meta: map[string]string{key: value},
					}}},
				},
			},
			{
				Source: watch.Source{Kind: watch.Marathon, Name: "m"}, Datacenter: "dc1",
				Apps: map[string]*watch.App{"/" + value: {
					ID: "/" + value, Labels: map[string]string{key: value}, Env: map[string]string{"SERVICE_NAME": value},
					Ports:        []watch.AppPort{{Name: value, ServicePort: len(value)}, {Name: value, Labels: map[string]string{key: value}}},
					HealthChecks: []watch.HealthCheck{{Protocol: "HTTP", Path: value}},
					Tasks:        []watch.Task{{ID: value, Node: value, Addresses: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:80")}, Health: watch.HealthPassing}},
				}},
			},
		}}
		table := Compile(snapshot, policy, Claims{"host victim.example.com /": "victim"})
		checkConsistent(t, table)
		safe := func(what, s, alphabet string) {
			for i := range len(s) {
				if !isAlphanumeric(s[i]) && strings.IndexByte(alphabet, s[i]) < 0 {
					t.Fatalf("%s %q", what, s)
				}
			}
		}
		reached := false
		for _, r := range table.Routes {
			switch r.Kind {
			case ByHost, BySNI:
				safe("host", r.Host, "*.-_")
			case ByAppID:
				safe("app id", r.Host, "/.-_")
			}
			safe("path", r.Path, pathPunctuation)
			reached = reached || r.Host == "victim.example.com" && r.Path == "/" && r.Service == "victim"
		}
		if !reached && value != "" {
			t.Fatalf("the victim lost its route: %v", table.Routes)
		}
		for _, b := range table.Backends {
			safe("balance", b.Balance, "-_() ")
			safe("strip", b.StripPath, pathPunctuation)
			safe("check", b.Check.Path, pathPunctuation)
		}
		for _, finding := range table.Findings {
			if strings.ContainsAny(finding.Message+finding.Key, "\n\r\x00\x1b") {
				t.Fatalf("finding %q", finding)
			}
		}
		_ = table.String()
	})
}

func FuzzParsers(f *testing.F) {
	for _, seed := range []string{"a.org", "*.a", "/a/%20", "30s", "1e9h", "random(3)", "hdr()", "-0", "+5", "０"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if host, err := parseHost(s); err == nil {
			if again, err := parseHost(host); err != nil || again != host {
				t.Errorf("host %q -> %q -> %q, %v", s, host, again, err)
			}
		}
		if path, err := parsePath(s); err == nil {
			if again, err := parsePath(path); err != nil || again != path {
				t.Errorf("path %q -> %q -> %q, %v", s, path, again, err)
			}
		}
		if d, err := parseDuration(s); err == nil && (d <= 0 || d > maxTimeout) {
			t.Errorf("duration %q -> %s", s, d)
		}
		if balance, _, err := parseBalance(s); err == nil && balance != s {
			t.Errorf("balance %q -> %q", s, balance)
		}
	})
}
