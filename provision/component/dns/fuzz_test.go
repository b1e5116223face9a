package dns

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/provision/facts"
)

// FuzzResolvConf heads any resolv.conf: ours is first, the others stay in their
// order, and what was headed is left as it is.
func FuzzResolvConf(f *testing.F) {
	f.Add("nameserver 192.0.2.53\nsearch example.com\n")
	f.Add("# The first name server is mi-lb's.\nnameserver 127.0.0.1\n\n nameserver\t127.0.0.1 # x\nnameserver fe80::1%eth0")
	f.Fuzz(func(t *testing.T, text string) {
		s := settings{Port: 53, Listen: []string{"127.0.0.1"}, resolvConf: "manage"}
		own := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
		once, ok := s.headResolvConf(facts.Resolver{ResolvConf: text})
		if !ok || !strings.HasPrefix(once, heading+"nameserver 127.0.0.1\n") {
			t.Fatalf("headed: %q", once)
		}
		twice, _ := s.headResolvConf(facts.Resolver{ResolvConf: once})
		if twice != once {
			t.Errorf("headed again:\n%q\n%q", once, twice)
		}
		before, after := nameservers(text, own), nameservers(once, own)
		if len(before) != len(after) {
			t.Errorf("name servers were %v and are %v", before, after)
		}
		for i := range before {
			if before[i] != after[i] {
				t.Errorf("name servers were %v and are %v", before, after)
			}
		}
	})
}
