package bootstrap

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/mi-lb/mi-lb/test/hosts"
)

// originals are the inventories of the platform that mi-lb succeeds.
const originals = "../../provision/inventory/testdata/original/0.1.0"

// TestOriginalsInventoriesPlan plans the original's inventories as they are: on
// machines that only have to be said where they are, and where Consul comes from,
// which was a container image that is gone.
func TestOriginalsInventoriesPlan(t *testing.T) {
	var names []string
	for i := range 10 {
		names = append(names, fmt.Sprintf("host-%02d", i+1))
	}
	h := hosts.Start(t, hosts.Spec{Names: names})
	ctx := context.Background()
	var at strings.Builder
	for _, m := range h.Machines {
		fmt.Fprintln(&at, host(h, m.Name))
		// The original's login.
		if _, err := m.Run(ctx, "useradd -m -s /bin/bash centos && cp -r /home/admin/.ssh /home/centos/ && chown -R centos: /home/centos/.ssh && "+
			"echo 'centos ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/centos"); err != nil {
			t.Fatal(err)
		}
	}
	key, err := os.ReadFile(h.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	for name, count := range map[string]int{"1-datacenter": 5, "2-datacenter": 10} {
		t.Run(name, func(t *testing.T) {
			o := &operator{t: t, dir: t.TempDir(), hosts: h}
			if err := os.CopyFS(o.dir, os.DirFS(originals)); err != nil {
				t.Fatal(err)
			}
			o.inventory = filepath.Join(o.dir, name)
			o.trust()
			o.write(".ssh/id_ed25519", string(key))
			addresses := o.write("addresses", strings.Join(strings.SplitAfter(at.String(), "\n")[:count], ""))
			o.extra = []string{"-i", addresses, "-e", "consul_file=" + programs.consul}
			r := o.must("plan")
			for _, want := range append([]string{"zookeeper", "consul-server", "consul-client", "mesos-master", "mesos-agent", "marathon"}, names[:count]...) {
				if !strings.Contains(r.stdout, want) {
					t.Errorf("the plan has no %s: %s", want, r)
				}
			}
			t.Logf("planned in %s", r.took)
		})
	}
	t.Run("a hundred hosts", func(t *testing.T) { planHundred(t, h) })
}

// planHundred plans for a hundred hosts, each with an address of its own. As there are
// fewer machines, mi-lb says that hosts are the same one, and nothing else is wrong.
func planHundred(t *testing.T, h *hosts.Hosts) {
	next := h.Machines[len(h.Machines)-1].Address
	var names []string
	var list, known strings.Builder
	groups := map[string][]string{}
	for _, d := range datacenters {
		for _, role := range []struct {
			name  string
			count int
		}{{"control", 5}, {"worker", 42}, {"edge", 3}} {
			for i := range role.count {
				name := fmt.Sprintf("%s-%s-%02d", d, role.name, i+1)
				m := h.Machines[len(names)%len(h.Machines)]
				next = next.Next()
				names = append(names, name)
				groups["dc="+d] = append(groups["dc="+d], name)
				groups["role="+role.name] = append(groups["role="+role.name], name)
				fmt.Fprintf(&list, "%s ansible_host=%s\n", name, next)
				fmt.Fprintf(&known, "%s %s", next, ssh.MarshalAuthorizedKey(m.HostKey))
				if _, err := m.Run(context.Background(), fmt.Sprintf("ip address add %s/24 dev eth0", next)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, group := range []string{"dc=dc1", "dc=dc2", "role=control", "role=worker", "role=edge"} {
		fmt.Fprintf(&list, "[%s]\n%s\n", group, strings.Join(groups[group], "\n"))
	}
	o := newOperator(t, h, list.String()+vars(h))
	o.write(filepath.Join(".mi-lb", filepath.Base(o.inventory), "known_hosts"), known.String())
	r := o.try("plan", "--output", "json")
	t.Logf("planned in %s, for which mi-lb itself used %s of the processor", r.took, r.used)
	var made struct {
		Problems []struct {
			Fatal         bool
			Code, Message string
		}
	}
	if err := json.Unmarshal([]byte(r.stdout), &made); err != nil {
		t.Fatalf("the plan: %v: %s", err, r)
	}
	for _, problem := range made.Problems {
		if problem.Fatal && problem.Code != "same-machine" {
			t.Errorf("it refuses: %s", problem.Message)
		}
	}
	for _, name := range names {
		if !strings.Contains(r.stdout, `"node": "`+name+`"`) {
			t.Errorf("the plan has nothing for %s", name)
		}
	}
}
