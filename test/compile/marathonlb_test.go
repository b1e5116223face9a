package compile

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/watch"
)

// lbCase is one of Marathon-lb's own tests: what Marathon answers, and what
// Marathon-lb makes of it.
type lbCase struct {
	Name  string `json:"name"`
	Flags struct {
		Groups []string `json:"groups"`
	} `json:"flags"`
	Apps     []json.RawMessage   `json:"apps"`
	Expected string              `json:"expected_cfg_after_head"`
	Domains  []map[string]string `json:"expected_domain_map"`
	AppIDs   []map[string]string `json:"expected_app_map"`
}

func cases(t testing.TB) []lbCase {
	t.Helper()
	var all []lbCase
	if err := json.Unmarshal(fixture(t, "marathon-lb-cases.json"), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// supported are the labels of the cases that mean what they mean to Marathon-lb.
// Every other one must be a finding; what it does beside (redirects to HTTPS and
// elsewhere, paths that are rewritten) is not compared.
var supported = []string{"ENABLED", "GROUP", "VHOST", "PATH", "BALANCE", "STICKY"}

// differences are the cases in which mi-lb does something else on purpose, and how
// the expectation changes. Where it does not do something yet, the finding
// not-supported-yet says so to the app's owner.
var differences = map[string]struct {
	reason string
	change func(b *behaviour)
}{
	"test_config_haproxy_group_fallback":    {appIDs, anyAppByID("/nginx", 10000)},
	"test_config_haproxy_group_per_service": {appIDs, anyAppByID("/nginx", 10000)},
	"test_config_simple_app_sticky":         {appIDs, anyAppByID("/nginx", 10000)},
	"test_config_healthcheck_command": {
		"a COMMAND runs inside of the task; Marathon-lb checks by TCP connect with its timing, mi-lb with the edge's",
		func(b *behaviour) {
			b.change(func(s *service) { s.CheckInterval, s.CheckFall = 0, 0 })
			anyAppByID("/nginx", 10000)(b)
		},
	},
	"test_config_simple_app_healthcheck_port_diff_portindex_and_group": {
		"BACKEND_HEALTHCHECK_PORT_INDEX is not supported yet: each port is checked by its own health check",
		func(b *behaviour) { b.change(func(s *service) { s.CheckPort = 0 }) },
	},
	"test_config_simple_app_multiple_vhost_with_path_and_auth": {withheld, nothing},
	"test_config_simple_app_vhost_with_auth":                   {withheld, nothing},
}

const (
	appIDs   = "every app that is not declared to be TCP answers by its id; with Marathon-lb only those on an HTTP port"
	withheld = "AUTH is not supported yet, and without it everyone would have access: the app is not published at all"
)

// anyAppByID adds the app id, which leads to what the port leads to, by HTTP.
func anyAppByID(id string, port int) func(*behaviour) {
	return func(b *behaviour) {
		s := b.Ports[port]
		s.Mode = "http"
		b.Apps[id] = s
	}
}

func nothing(b *behaviour) {
	clear(b.Ports)
	clear(b.Hosts)
	clear(b.Apps)
}

// change changes everything that anything leads to.
func (b *behaviour) change(how func(*service)) {
	for number, s := range b.Ports {
		how(&s)
		b.Ports[number] = s
	}
	for _, names := range []map[string]service{b.Hosts, b.Apps} {
		for name, s := range names {
			how(&s)
			names[name] = s
		}
	}
}

func TestAppsOfMarathonLBBehaveAsTheyDidThere(t *testing.T) {
	all := cases(t)
	if len(all) != 30 {
		t.Fatalf("%d cases", len(all))
	}
	differ := maps.Clone(differences)
	for _, c := range all {
		t.Run(c.Name, func(t *testing.T) {
			own := policy
			own.Groups = map[watch.Source][]string{source: c.Flags.Groups}
			part := decoded(t, listOf(t, append([]json.RawMessage{}, c.Apps...)))
			table := compiled(t, own, part)

			want := ofMarathonLB(t, c.Expected, c.Domains, c.AppIDs)
			if difference, ok := differ[c.Name]; ok {
				delete(differ, c.Name)
				t.Log("differs: " + difference.reason)
				difference.change(&want)
			}
			if diff := cmp.Diff(want, ofTable(t, table, own)); diff != "" {
				t.Errorf("-Marathon-lb +mi-lb:\n%s", diff)
			}
			checkFindings(t, part, table)
			checkOwnNames(t, table, own)
		})
	}
	if len(differ) > 0 {
		t.Errorf("no such cases: %v", slices.Collect(maps.Keys(differ)))
	}
}

// checkFindings says that every label that is not supported yet is a finding, and
// that there are no others.
func checkFindings(t *testing.T, part *watch.Part, table *routing.Table) {
	t.Helper()
	var want, got []string
	for _, app := range part.Apps {
		for label := range app.Labels {
			_, what, _ := strings.Cut(label, "_")
			if index, rest, found := strings.Cut(what, "_"); found && strings.Trim(index, "0123456789") == "" {
				what = rest
			}
			if !slices.Contains(supported, what) {
				want = append(want, "not-supported-yet "+label)
			}
		}
	}
	for _, f := range table.Findings {
		got = append(got, f.Code+" "+f.Key)
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("findings: %s", diff)
	}
}

// checkOwnNames says that whatever is published is also there by its name, which
// Marathon-lb does not do.
func checkOwnNames(t *testing.T, table *routing.Table, own routing.Policy) {
	t.Helper()
	for _, s := range table.Services {
		found := slices.ContainsFunc(table.Routes, func(r routing.Route) bool {
			return r.Kind == routing.ByHost && r.Host == s.Name+"."+own.Domain && r.Service == s.Name
		})
		if found != s.Published {
			t.Errorf("%s: published %t, reachable by name %t", s.Name, s.Published, found)
		}
	}
}
