package bootstrap

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/mi-lb/mi-lb/test/hosts"
)

// originals are the inventories of the platform that mi-lb succeeds.
const originals = "../../provision/inventory/testdata/original/0.1.0"

// TestInventoriesThatPlan plans what nobody has machines for in a test: every host
// of the inventory has an address of its own, and few machines have them all.
func TestInventoriesThatPlan(t *testing.T) {
	h := machines(t, "one", "two", "three")
	ctx := context.Background()
	for _, m := range h.Machines {
		// The original's login.
		if _, err := m.Run(ctx, "useradd -m -s /bin/bash centos && cp -r /home/admin/.ssh /home/centos/ && chown -R centos: /home/centos/.ssh && "+
			"echo 'centos ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/centos"); err != nil {
			t.Fatal(err)
		}
	}
	next := h.Machines[len(h.Machines)-1].Address
	addresses := func(t *testing.T, names []string) map[string]netip.Addr {
		t.Helper()
		all := map[string]netip.Addr{}
		lines := map[*hosts.Machine]string{}
		for i, name := range names {
			m := h.Machines[i%len(h.Machines)]
			next = next.Next()
			all[name] = next
			lines[m] += fmt.Sprintf("ip address add %s/24 dev eth0\n", next)
		}
		for m, line := range lines {
			if _, err := m.Run(ctx, line); err != nil {
				t.Fatal(err)
			}
		}
		return all
	}
	trust := func(t *testing.T, o *operator, names []string, at map[string]netip.Addr) {
		t.Helper()
		var known strings.Builder
		for i, name := range names {
			fmt.Fprintf(&known, "%s %s", at[name], ssh.MarshalAuthorizedKey(h.Machines[i%len(h.Machines)].HostKey))
		}
		o.write(filepath.Join(".mi-lb", filepath.Base(o.inventory), "known_hosts"), known.String())
	}

	for name, count := range map[string]int{"1-datacenter": 5, "2-datacenter": 10} {
		t.Run("the original's "+name, func(t *testing.T) {
			o := &operator{t: t, dir: t.TempDir()}
			if err := os.CopyFS(o.dir, os.DirFS(originals)); err != nil {
				t.Fatal(err)
			}
			o.inventory = filepath.Join(o.dir, name)
			var names []string
			for i := range count {
				names = append(names, fmt.Sprintf("host-%02d", i+1))
			}
			at := addresses(t, names)
			var text strings.Builder
			for _, name := range names {
				fmt.Fprintf(&text, "%s ansible_host=%s\n", name, at[name])
			}
			o.extra = []string{"-i", o.write("addresses", text.String())}
			key, err := os.ReadFile(h.KeyFile)
			if err != nil {
				t.Fatal(err)
			}
			o.write(".ssh/id_ed25519", string(key))
			trust(t, o, names, at)
			r := o.must("plan")
			for _, want := range append([]string{"zookeeper", "consul-server", "consul-client", "mesos-master", "mesos-agent", "marathon"}, names...) {
				if !strings.Contains(r.stdout, want) {
					t.Errorf("the plan has no %s: %s", want, r)
				}
			}
			t.Logf("planned in %s", r.took)
		})
	}

	t.Run("a hundred hosts", func(t *testing.T) {
		var names []string
		groups := map[string][]string{}
		for _, d := range datacenters {
			for _, role := range []struct {
				name  string
				count int
			}{{"control", 5}, {"worker", 42}, {"edge", 3}} {
				for i := range role.count {
					name := fmt.Sprintf("%s-%s-%02d", d, role.name, i+1)
					names = append(names, name)
					groups["dc="+d] = append(groups["dc="+d], name)
					groups["role="+role.name] = append(groups["role="+role.name], name)
				}
			}
		}
		at := addresses(t, names)
		var text strings.Builder
		for _, name := range names {
			fmt.Fprintf(&text, "%s ansible_host=%s\n", name, at[name])
		}
		for _, group := range []string{"dc=dc1", "dc=dc2", "role=control", "role=worker", "role=edge"} {
			fmt.Fprintf(&text, "[%s]\n%s\n", group, strings.Join(groups[group], "\n"))
		}
		o := newOperator(t, h, text.String()+vars(h))
		trust(t, o, names, at)
		r := o.must("plan", "--output", "json")
		t.Logf("planned in %s", r.took)
		for _, name := range names {
			if !strings.Contains(r.stdout, `"node": "`+name+`"`) {
				t.Errorf("the plan has nothing for %s", name)
			}
		}
	})
}
