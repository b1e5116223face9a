package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mi-lb/mi-lb/provision/inventory"
)

// build reads an inventory text.
func build(t *testing.T, text string, state State) Result {
	t.Helper()
	directory := t.TempDir()
	t.Chdir(directory)
	if err := os.WriteFile("inventory", []byte(strings.TrimPrefix(text, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	inv, err := inventory.Load(t.Context(), inventory.Options{Sources: []string{"inventory"}})
	if err != nil {
		t.Fatal(err)
	}
	return Build(inv, state)
}

const good = `
c1 ansible_host=10.0.0.1 zk_id=1
c2 ansible_host=10.0.0.2 zk_id=2
c3 ansible_host=10.0.0.3 zk_id=3
w1 ansible_host=10.0.0.4
e1 ansible_host=10.0.0.5
[role=control]
c[1:3]
[role=worker]
w1
[role=edge]
e1
[dc=dc1]
c[1:3]
w1
e1
`

func TestRolesFollowFromGroups(t *testing.T) {
	result := build(t, good, State{})
	if result.Cluster == nil {
		t.Fatal(result.Findings)
	}
	got := map[string]string{}
	for _, n := range result.Cluster.Nodes() {
		got[n.Name] = fmt.Sprintf("%s %v %s %d", n.Datacenter, n.Roles, n.Address, n.ZooKeeperID)
	}
	want := map[string]string{
		"c1": "dc1 [consul-server marathon mesos-master zookeeper] 10.0.0.1 1",
		"c2": "dc1 [consul-server marathon mesos-master zookeeper] 10.0.0.2 2",
		"c3": "dc1 [consul-server marathon mesos-master zookeeper] 10.0.0.3 3",
		"w1": "dc1 [consul-client mesos-agent] 10.0.0.4 0",
		"e1": "dc1 [consul-client edge] 10.0.0.5 0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	d := result.Cluster.Datacenters[0]
	if d.Quorum(ZooKeeper) != 2 || d.Quorum(MesosMaster) != 2 || d.BootstrapExpect() != 3 {
		t.Errorf("quorums: ZooKeeper %d, Mesos %d, Consul %d", d.Quorum(ZooKeeper), d.Quorum(MesosMaster), d.BootstrapExpect())
	}
}

func TestTheOriginalsInventoriesNeedNothingButAddresses(t *testing.T) {
	for name, datacenters := range map[string]int{"1-datacenter": 1, "2-datacenter": 2} {
		t.Run(name, func(t *testing.T) {
			source := filepath.Join("..", "inventory", "testdata", "original", "0.1.0", name)
			bare, err := inventory.Load(t.Context(), inventory.Options{Sources: []string{source}})
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range Build(bare, State{}).Refused() {
				if f.Code != "no-address" {
					t.Errorf("without addresses: %s", f)
				}
			}
			// Addresses alone, from a second source.
			addresses := filepath.Join(t.TempDir(), "addresses")
			var b strings.Builder
			for i := 1; i <= datacenters*5; i++ {
				fmt.Fprintf(&b, "host-%02d ansible_host=10.0.0.%d\n", i, i)
			}
			if err := os.WriteFile(addresses, []byte(b.String()), 0o600); err != nil {
				t.Fatal(err)
			}
			inv, err := inventory.Load(t.Context(), inventory.Options{Sources: []string{source, addresses}})
			if err != nil {
				t.Fatal(err)
			}
			result := Build(inv, State{})
			if result.Cluster == nil {
				t.Fatal(result.Refused())
			}
			if len(result.Cluster.Datacenters) != datacenters {
				t.Errorf("%d datacenters", len(result.Cluster.Datacenters))
			}
			for _, d := range result.Cluster.Datacenters {
				if d.Quorum(MesosMaster) != 2 || d.BootstrapExpect() != 3 || len(d.With(MesosAgent)) != 2 {
					t.Errorf("%s: quorum %d, %d Consul servers, %d agents", d.Name, d.Quorum(MesosMaster), d.BootstrapExpect(), len(d.With(MesosAgent)))
				}
			}
			if n := result.Cluster.Nodes()[0]; n.Connection.User != "centos" {
				t.Errorf("login %q", n.Connection.User)
			}
		})
	}
}

func TestWhatCannotWorkIsRefusedWithReasonAndLine(t *testing.T) {
	swap := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("no %q", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	tests := []struct{ name, text, want string }{
		{"an even number of servers", strings.ReplaceAll(good, "c[1:3]", "c[1:2]"), `inventory:7: error: datacenter dc1 has 2 (Consul servers|ZooKeeper servers|Mesos masters), .* \(even-control\)`},
		{"a host in two datacenters", good + "[dc=dc2]\nw1\n", `inventory:17: error: host w1 is in two datacenters: dc1 by group dc=dc1 \(inventory:14\), and dc2 by group dc=dc2`},
		{"a host whose consul_dc says otherwise", swap("w1 ansible", "w1 consul_dc=dc9 ansible"), `inventory:4: error: host w1 is in two datacenters`},
		{"two ZooKeeper servers with one id", swap("zk_id=2", "zk_id=1"), `inventory:2: error: c2 and c1 \(inventory:1\) both have the ZooKeeper id 1`},
		{"an id that is none", swap("zk_id=2", "zk_id=256"), `inventory:2: error: zk_id of host c2 is "256"; it must be a number from 1 to 255`},
		{"a server without an address", swap("c2 ansible_host=10.0.0.2", "c2"), `inventory:2: error: server c2 has no address: set private_ipv4`},
		{"a server known by name only", swap("c2 ansible_host=10.0.0.2", "c2 ansible_host=c2.example.com"), `inventory:2: error: server c2 has no address`},
		{"a host in no datacenter", strings.Replace(good, "w1\ne1\n", "e1\n", 1), `no-match`},
		{"unknown hosts", strings.Replace(good, "[role=worker]\nw1", "[role=worker]\nw11", 1), `inventory:9: error: group "role=worker" names the unknown host "w11"`},
		{"a name of a datacenter with spaces or capitals", strings.ReplaceAll(good, "dc=dc1", "dc=DC1"), `"DC1" is no name of a datacenter`},
		{"a server and client at once", good + "[consul_servers]\nc[1:3]\n[consul_clients]\nc1\n", `inventory:19: error: host c1 is a Consul server and a Consul client`},
		{"two machines at one address", swap("10.0.0.4", "10.0.0.5"), `inventory:5: error: e1 and w1 \(inventory:4\) have the same address 10.0.0.5`},
		{"agents without masters", "w1 ansible_host=10.0.0.1\n[role=worker]\nw1\n[dc=dc1]\nw1\n", `datacenter dc1 has mesos-agent on w1 and no mesos-master`},
		{"IPv6 for ZooKeeper", swap("10.0.0.2", "fd00::2"), `the address of c2 is IPv6`},
		{"a version that lost its zero", good + "[all:vars]\nconsul_version=1.20\n", `consul_version of host c1 was read as the number 1.2; put quotes`},
		{"a version that is a command", good + "[all:vars]\nconsul_version=1;reboot\n", `consul_version of host c1 is "1;reboot", which is no version`},
		{"a download without a checksum", good + "[all:vars]\nmesos_url=https://example.com/mesos.deb\n", `set mesos_sha256`},
		{"an unknown source", good + "[all:vars]\nmesos_source=apt\n", `mesos_source of host c1 is "apt"`},
		{"a lookup where a value is needed", good + "[all:vars]\nansible_user={{ lookup('env','USER') }}\n", `inventory:17: error: ansible_user of host c1: {{ lookup\('env','USER'\) }} is more than the name of a variable`},
		{"another way to become root", good + "[all:vars]\nansible_become_method=doas\n", `ansible_become_method of host c1 is "doas"`},
		{"a command as proxy", good + "[all:vars]\nansible_ssh_common_args=-o ProxyCommand='nc %h %p'\n", `only ProxyCommand="ssh -W %h:%p HOST" is understood`},
		{"a host name that is an option", swap("ansible_host=10.0.0.4", "ansible_host=-oProxyCommand=x"), `"-oProxyCommand=x" of host w1 is no host name`},
		{"nothing", "# empty\n", `inventory:1: error: there are no hosts`},
	}
	for _, test := range tests {
		if test.want == "no-match" {
			test.text = strings.Replace(good, "[dc=dc1]\nc[1:3]\nw1\n", "[dc=dc1]\nc[1:3]\n", 1)
			test.want = `inventory:4: error: host w1 is in no datacenter`
		}
		t.Run(test.name, func(t *testing.T) {
			result := build(t, test.text, State{})
			if result.Cluster != nil {
				t.Fatal("it was accepted")
			}
			var all []string
			for _, f := range result.Refused() {
				all = append(all, f.String())
			}
			if text := strings.Join(all, "\n"); !regexp.MustCompile(test.want).MatchString(text) {
				t.Errorf("refused for\n%s\nwant\n%s", text, test.want)
			}
		})
	}
}

func TestZooKeeperIDsNeverChange(t *testing.T) {
	without := regexp.MustCompile(` zk_id=\d`).ReplaceAllString(good, "")
	first := build(t, without, State{})
	if first.Cluster == nil {
		t.Fatal(first.Refused())
	}
	if diff := cmp.Diff(map[string]map[string]int{"dc1": {"c1": 1, "c2": 2, "c3": 3}}, first.State.ZooKeeperIDs); diff != "" {
		t.Fatal(diff)
	}
	// A host that sorts first takes another's place: nobody is renumbered, and the
	// id of the one that went is not given again.
	changed := strings.ReplaceAll(strings.Replace(without, "c2 ansible_host=10.0.0.2", "b1 ansible_host=10.0.0.9", 1), "c[1:3]", "b1\nc1\nc3")
	second := build(t, changed, first.State)
	if second.Cluster == nil {
		t.Fatal(second.Refused())
	}
	if diff := cmp.Diff(map[string]map[string]int{"dc1": {"b1": 4, "c1": 1, "c2": 2, "c3": 3}}, second.State.ZooKeeperIDs); diff != "" {
		t.Error(diff)
	}
	if refused := build(t, strings.Replace(good, "zk_id=2", "zk_id=7", 1), first.State).Refused(); len(refused) != 1 || !strings.Contains(refused[0].Message, "is 2, and cannot become 7") {
		t.Errorf("an id that changes: %v", refused)
	}
}

func TestThePrimaryDatacenterStays(t *testing.T) {
	two := strings.ReplaceAll(good, "dc=dc1", "dc=dc2")
	result := build(t, two, State{PrimaryDatacenter: "dc1"})
	if result.Cluster != nil {
		t.Error("the primary datacenter vanished, and nobody minds")
	}
	if result = build(t, two, State{PrimaryDatacenter: "dc2"}); result.Cluster == nil || result.Cluster.Primary != "dc2" {
		t.Errorf("%v", result.Findings)
	}
}

func TestConnectionsAreThoseOfAnsible(t *testing.T) {
	result := build(t, strings.NewReplacer(
		"c1 ", "c1 ansible_port=2222 ansible_user=admin ansible_ssh_private_key_file=~/k ansible_become_password=pw ",
		"c2 ", "c2 ansible_ssh_user=root ansible_ssh_port=22 ansible_become=no ",
		"c3 ", `c3 ansible_ssh_common_args="-o ProxyCommand='ssh -W %h:%p -q -p 2200 ops@bastion' -o StrictHostKeyChecking=no" `,
		"w1 a", `w1 ansible_ssh_common_args="-J a@one:22,two -F cfg" host_key="ssh-ed25519 AAAA" a`,
		"e1 a", "e1 ansible_connection=local a",
	).Replace(good), State{})
	if result.Cluster == nil {
		t.Fatal(result.Refused())
	}
	got := map[string]string{}
	for _, n := range result.Cluster.Nodes() {
		c := n.Connection
		got[n.Name] = fmt.Sprintf("%v %s@%s:%d key=%s jumps=%v config=%s become=%s secret=%v hostkeys=%v", c.Local, c.User, c.Host, c.Port, c.KeyFile, c.Jumps, c.ConfigFile, c.Become, c.BecomePassword, c.HostKeys)
	}
	want := map[string]string{
		"c1": "false admin@10.0.0.1:2222 key=~/k jumps=[] config= become=auto secret=(hidden) hostkeys=[]",
		"c2": "false root@10.0.0.2:22 key= jumps=[] config= become=never secret= hostkeys=[]",
		"c3": "false @10.0.0.3:0 key= jumps=[ops@bastion:2200] config= become=auto secret= hostkeys=[]",
		"w1": "false @10.0.0.4:0 key= jumps=[a@one:22 two] config=cfg become=auto secret= hostkeys=[ssh-ed25519 AAAA]",
		"e1": "true @10.0.0.5:0 key= jumps=[] config= become=auto secret= hostkeys=[]",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestOneMachineCanBeEverything(t *testing.T) {
	result := build(t, "default ansible_connection=local\n[role=worker]\ndefault\n[role=control]\ndefault\n[dc=vagrant]\ndefault\n", State{})
	if result.Cluster == nil {
		t.Fatal(result.Refused())
	}
	if n := result.Cluster.Nodes()[0]; n.Address.IsValid() || !n.Has(MesosAgent) || !n.Has(ConsulServer) || n.Has(ConsulClient) {
		t.Errorf("%v at %v", n.Roles, n.Address)
	}
}

func TestMisspeltNamesAreOdd(t *testing.T) {
	result := build(t, good+"[consul_server]\nc1\n[all:vars]\nansible_usr=x\n", State{})
	var all []string
	for _, f := range result.Findings {
		all = append(all, f.String())
	}
	text := strings.Join(all, "\n")
	for _, want := range []string{`inventory:16: warning: group "consul_server" means nothing here; did you mean "consul_servers"?`, `inventory:19: warning: nothing reads the variable "ansible_usr"; did you mean "ansible_user"?`} {
		if !strings.Contains(text, want) {
			t.Errorf("found\n%s\nwant %s", text, want)
		}
	}
}
