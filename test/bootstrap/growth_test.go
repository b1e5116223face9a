package bootstrap

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/test/hosts"
)

// TestServersJoinThoseThatRun has a datacenter grow from one server to three, one
// after the other, as ZooKeeper needs it, and keep what it knows.
func TestServersJoinThoseThatRun(t *testing.T) {
	names := []string{"one", "two", "three"}
	h := hosts.Start(t, hosts.Spec{Names: names, Packages: packages})
	inventory := func(n int) string {
		var lines []string
		for _, name := range names[:n] {
			lines = append(lines, host(h, name))
		}
		return "[dc=dc1]\n" + strings.Join(lines, "\n") + "\n[consul_servers]\n" + strings.Join(names[:n], "\n") +
			"\n[zookeeper_servers]\n" + strings.Join(names[:n], "\n") + "\n" + vars(h, "allow_even_control=yes")
	}
	p := &platform{operator: newOperator(t, h, inventory(1))}
	token := ""
	for n := 1; n <= len(names); n++ {
		p.write("inventory", inventory(n))
		r := p.must("--yes")
		t.Logf("%d servers in %s", n, r.took)
		if n == 1 {
			token = p.secret("consul/token/management/secret")
			if answer := p.consul(t, h.Machine("one"), token, http.MethodPut, "/v1/kv/kept", []byte("yes")); answer != "true" {
				t.Fatal(answer)
			}
		} else if !strings.Contains(r.stdout, "State from before the changes: ") {
			t.Errorf("there is no snapshot: %s", r)
		}
		modes := map[string]int{}
		for _, name := range names[:n] {
			status, err := fourLetters(h.Machine(name).Address.String()+":2181", "srvr")
			if err != nil {
				t.Fatal(err)
			}
			_, mode, _ := strings.Cut(status, "Mode: ")
			mode, _, _ = strings.Cut(mode, "\n")
			modes[mode]++
			if answer := p.consul(t, h.Machine(name), token, http.MethodGet, "/v1/kv/kept?raw", nil); answer != "yes" {
				t.Errorf("%s has forgotten: %s", name, answer)
			}
		}
		if n > 1 && (modes["leader"] != 1 || modes["follower"] != n-1) {
			t.Errorf("ZooKeeper's servers are %v", modes)
		}
		var raft struct{ Servers []struct{ Voter bool } }
		decode(t, p.consul(t, h.Machine("one"), token, http.MethodGet, "/v1/operator/raft/configuration", nil), &raft)
		if len(raft.Servers) != n {
			t.Errorf("Consul has %s", fmt.Sprint(raft))
		}
		p.must("plan", "--detailed-exitcode")
	}
}
