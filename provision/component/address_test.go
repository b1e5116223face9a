package component_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/facts"
)

func TestAddress(t *testing.T) {
	found := func(all map[string][]string) *facts.Facts {
		f := &facts.Facts{Addresses: map[string][]netip.Prefix{}}
		for name, prefixes := range all {
			for _, p := range prefixes {
				f.Addresses[name] = append(f.Addresses[name], netip.MustParsePrefix(p))
			}
		}
		return f
	}
	one := found(map[string][]string{"lo": {"127.0.0.1/8"}, "docker0": {"172.17.0.1/16"}, "eth0": {"10.0.0.7/24", "fe80::1/64"}})
	two := found(map[string][]string{"eth0": {"10.0.0.7/24"}, "eth1": {"192.168.3.7/24"}})
	for name, c := range map[string]struct {
		node  cluster.Node
		facts *facts.Facts
		want  string // or a part of the error
	}{
		"the inventory's":           {cluster.Node{Address: netip.MustParseAddr("10.1.1.1")}, two, "10.1.1.1"},
		"the only one":              {cluster.Node{}, one, "10.0.0.7"},
		"of the interface":          {cluster.Node{Interface: "eth1"}, two, "192.168.3.7"},
		"of a bridge that is named": {cluster.Node{Interface: "docker0"}, one, "172.17.0.1"},
		"several":                   {cluster.Node{}, two, "set private_ipv4 or private_interface"},
		"no such interface":         {cluster.Node{Interface: "eth9"}, two, "eth9"},
		"none":                      {cluster.Node{}, found(nil), "set private_ipv4"},
		"not reached":               {cluster.Node{}, nil, "was not reached"},
	} {
		c.node.Name = "a"
		p := component.Platform{Facts: map[string]*facts.Facts{"a": c.facts}}
		got, err := p.Address(&c.node)
		switch {
		case err == nil && got.String() != c.want:
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		case err != nil && !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: %v; want %s", name, err, c.want)
		}
	}
}
