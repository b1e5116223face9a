package compile

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/watch"
	"github.com/mi-lb/mi-lb/watch/marathon"
)

var (
	noon   = time.Date(2020, 1, 1, 12, 0, 0, 0, time.UTC)
	source = watch.Source{Kind: watch.Marathon, Name: "m1"}
	agents = map[string]netip.Addr{
		"agent1":                     netip.MustParseAddr("10.0.0.1"),
		"agent2":                     netip.MustParseAddr("10.0.0.2"),
		"srv2.example.com":           netip.MustParseAddr("10.1.0.2"),
		"srv4.example.com":           netip.MustParseAddr("10.1.0.4"),
		"srv7.hw.ca1.mesosphere.com": netip.MustParseAddr("10.1.0.7"),
	}
	policy = routing.Policy{Domain: "mi-lb.test", ConsulDomain: "consul"}
)

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", "watch", "marathon", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// listOf is what Marathon answers if it has those apps.
func listOf(t testing.TB, apps any) []byte {
	t.Helper()
	body, err := json.Marshal(map[string]any{"apps": apps})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func decoded(t testing.TB, body []byte) *watch.Part {
	t.Helper()
	part, err := marathon.Decode(source, "dc1", body, agents, noon)
	if err != nil {
		t.Fatal(err)
	}
	return part
}

// compiled is the table of the parts, checked for what holds for every table.
func compiled(t testing.TB, p routing.Policy, parts ...*watch.Part) *routing.Table {
	t.Helper()
	snapshot := &watch.Snapshot{Datacenter: "dc1"}
	for _, part := range parts {
		snapshot = snapshot.With(part, noon)
	}
	table := routing.Compile(snapshot, p, nil)
	known := backends(table)
	for _, r := range table.Routes {
		if known[r.Backend] == nil {
			t.Errorf("route %+v leads to no backend", r)
		}
	}
	for i, port := range table.Ports {
		if b := known[port.Backend]; b == nil || b.Protocol != port.Protocol {
			t.Errorf("port %+v leads to %+v", port, b)
		}
		if i > 0 && table.Ports[i-1].Number == port.Number {
			t.Errorf("port %d is bound twice", port.Number)
		}
	}
	if diff := cmp.Diff(table, routing.Compile(snapshot, p, table.Claims()), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Errorf("the table is another one with its own claims: %s", diff)
	}
	return table
}

func backends(table *routing.Table) map[string]*routing.Backend {
	all := map[string]*routing.Backend{}
	for _, b := range table.Backends {
		all[b.ID] = b
	}
	return all
}

func FuzzCompile(f *testing.F) {
	for _, name := range []string{"app_list.json", "app_list-1.4.json", "group.json"} {
		f.Add(fixture(f, name))
	}
	for _, c := range cases(f) {
		f.Add(listOf(f, c.Apps))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		part, err := marathon.Decode(source, "dc1", body, agents, noon)
		if (part == nil) == (err == nil) {
			t.Fatalf("%v, %v", part, err)
		}
		if part != nil {
			compiled(t, policy, part)
		}
	})
}
