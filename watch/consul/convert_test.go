package consul

import (
	"encoding/json"
	"net/netip"
	"testing"
	"unicode/utf8"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/watch"
)

func TestHealthIsTheWorstCheckInConsulsOrder(t *testing.T) {
	check := func(id, status string) *api.HealthCheck {
		return &api.HealthCheck{CheckID: id, Name: id, Status: status, Notes: "why"}
	}
	for _, test := range []struct {
		name   string
		checks api.HealthChecks
		want   watch.Health
		reason string
	}{
		{"no checks", nil, watch.HealthPassing, ""},
		{"all pass", api.HealthChecks{check("a", "passing"), nil}, watch.HealthPassing, ""},
		{"one warns", api.HealthChecks{check("a", "passing"), check("b", "warning")}, watch.HealthWarning, `check "b" warns`},
		{"critical before warning", api.HealthChecks{check("b", "warning"), check("c", "critical")}, watch.HealthCritical, `check "c" is critical`},
		{"the first of two by id", api.HealthChecks{check("z", "critical"), check("c", "critical")}, watch.HealthCritical, `check "c" is critical`},
		{"maintenance before critical", api.HealthChecks{check("c", "critical"), check("_service_maintenance:x", "critical")},
			watch.HealthMaintenance, "service maintenance: why"},
		{"node maintenance", api.HealthChecks{check("_node_maintenance", "critical")}, watch.HealthMaintenance, "node maintenance: why"},
		{"a status nobody knows", api.HealthChecks{check("a", "molten")}, watch.HealthUnknown, `check "a" is "molten"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, reason := health(convertChecks(test.checks)); got != test.want || reason != test.reason {
				t.Errorf("%s %q, want %s %q", got, reason, test.want, test.reason)
			}
		})
	}
}

func TestAnInstanceIsReachedWhereItCanBe(t *testing.T) {
	type addresses = map[string]api.ServiceAddress
	for _, test := range []struct {
		name    string
		node    api.Node
		service api.AgentService
		remote  bool
		want    string // empty: a finding
	}{
		{"at home: the service's", api.Node{Address: "10.0.0.1"}, api.AgentService{Address: "10.0.0.2", Port: 80}, false, "10.0.0.2:80"},
		{"at home: the node's", api.Node{Address: "10.0.0.1"}, api.AgentService{Port: 80}, false, "10.0.0.1:80"},
		{"at home: not the WAN's", api.Node{Address: "10.0.0.1", TaggedAddresses: map[string]string{"wan": "203.0.113.1"}},
			api.AgentService{Port: 80, TaggedAddresses: addresses{"wan": {Address: "203.0.113.2", Port: 81}}}, false, "10.0.0.1:80"},
		{"remote: the service's wan, with its port", api.Node{Address: "10.0.0.1", TaggedAddresses: map[string]string{"wan": "203.0.113.1"}},
			api.AgentService{Port: 80, TaggedAddresses: addresses{"wan": {Address: "203.0.113.2", Port: 81}, "wan_ipv4": {Address: "203.0.113.3"}}}, true, "203.0.113.2:81"},
		{"remote: the service's wan_ipv4", api.Node{Address: "10.0.0.1"},
			api.AgentService{Address: "10.0.0.9", Port: 80, TaggedAddresses: addresses{"wan_ipv4": {Address: "203.0.113.3"}}}, true, "203.0.113.3:80"},
		{"remote: the node's wan", api.Node{Address: "10.0.0.1", TaggedAddresses: map[string]string{"wan": "203.0.113.1"}}, api.AgentService{Port: 80}, true, "203.0.113.1:80"},
		{"remote: the node's wan where the agent tagged the service with the node's LAN address",
			api.Node{Address: "10.0.0.1", TaggedAddresses: map[string]string{"wan": "203.0.113.1"}},
			api.AgentService{Address: "10.0.0.1", Port: 80, TaggedAddresses: addresses{"wan_ipv4": {Address: "10.0.0.1", Port: 80}}}, true, "203.0.113.1:80"},
		{"remote: the service's own where it is not the node's", api.Node{Address: "10.0.0.1", TaggedAddresses: map[string]string{"wan": "203.0.113.1"}},
			api.AgentService{Address: "10.9.9.9", Port: 80}, true, "10.9.9.9:80"},
		{"remote: nothing tagged", api.Node{Address: "10.0.0.1"}, api.AgentService{Port: 80}, true, "10.0.0.1:80"},
		{"IPv6 in brackets", api.Node{Address: "[2001:db8::1]"}, api.AgentService{Port: 80}, false, "[2001:db8::1]:80"},
		{"no port", api.Node{Address: "10.0.0.1"}, api.AgentService{}, false, ""},
		{"a port too high", api.Node{Address: "10.0.0.1"}, api.AgentService{Port: 70000}, false, ""},
		{"nowhere", api.Node{Address: "0.0.0.0"}, api.AgentService{Port: 80}, false, ""},
		{"an address with a slip", api.Node{Address: "10.0.0.256"}, api.AgentService{Port: 80}, false, ""},
		{"an address with more to it", api.Node{Address: "10.0.0.1\nserver evil 1.2.3.4"}, api.AgentService{Port: 80}, false, ""},
		{"no address", api.Node{}, api.AgentService{Port: 80}, false, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.node.Node, test.service.Service = "n", "s"
			e, ok := convert(&test.node, &test.service, test.remote)
			switch {
			case !ok:
				t.Fatal("not a service")
			case test.want == "":
				if e.finding == nil || e.instance.Address.IsValid() {
					t.Errorf("%+v, want a finding", e)
				}
			case e.instance.Address != netip.MustParseAddrPort(test.want):
				t.Errorf("%s, want %s (%v)", e.instance.Address, test.want, e.finding)
			}
		})
	}
}

func FuzzAnswersOfTheCatalogConvertToInstancesThatCanBeUsed(f *testing.F) {
	f.Add([]byte(`[{"Node":{"Node":"n","Address":"10.0.0.1"},"Service":{"ID":"a","Service":"web","Port":80},"Checks":[{"CheckID":"c","Status":"critical"}]}]`), true)
	f.Add([]byte(`[null,{},{"Node":null,"Service":null,"Checks":[null]},{"Node":{"TaggedAddresses":{"wan":"x y"}},"Service":{"Port":-1}}]`), false)
	f.Add([]byte(`[{"Node":{"Node":"n","Address":"web.example.com"},"Service":{"Service":"../../kv","Port":80,"Weights":{"Passing":-3,"Warning":99999}}}]`), false)
	f.Fuzz(func(t *testing.T, answer []byte, remote bool) {
		var services []*api.ServiceEntry
		if json.Unmarshal(answer, &services) != nil {
			return
		}
		entries := convertService(services, remote)
		for _, s := range services {
			if s != nil && s.Service != nil {
				list, err := json.Marshal(&api.CatalogNodeServiceList{Node: s.Node, Services: []*api.AgentService{s.Service, nil}})
				if err != nil {
					continue
				}
				reader := &nodeReader{remote: remote}
				view := &nodeView{}
				if view.list, err = reader.decodeServices(&reader.services, list); err != nil {
					t.Fatalf("%s: %v", list, err)
				}
				view.common = convertChecks(s.Checks)
				entries = append(entries, view.entries()...)
			}
		}
		c := newCatalog("dc1", nil, Confirmation{}, func(string) (netip.Addr, error) { return netip.Addr{}, nil })
		for _, e := range entries {
			c.see(e)
			usableNow := e.instance.Address.IsValid() && e.instance.Address.Port() > 0 && usable(e.instance.Address.Addr())
			if e.finding == nil && !usableNow && e.host == "" {
				t.Errorf("neither usable nor a finding: %+v", e)
			}
			if e.finding != nil && (e.instance.Address.IsValid() || !utf8.ValidString(e.finding.Message)) {
				t.Errorf("a finding, and yet: %+v", e)
			}
			if w := e.instance.Weights; w.Passing < 0 || w.Passing > 65535 || w.Warning < 0 || w.Warning > 65535 {
				t.Errorf("weights %+v", w)
			}
			if e.host != "" && !hostname(e.host) {
				t.Errorf("host %q", e.host)
			}
		}
		if part := c.flush(); part == nil {
			t.Error("no first part")
		}
	})
}
