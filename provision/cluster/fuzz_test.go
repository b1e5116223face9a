package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/provision/inventory"
)

// Whatever an inventory says, nothing that is an option, a line or a command of
// its own gets into a cluster.
func FuzzBuild(f *testing.F) {
	f.Add(good)
	f.Add(strings.Replace(good, "c1 ", `c1 ansible_ssh_common_args="-J a@b:1,c -o ProxyCommand='ssh -W %h:%p x' -F f" ansible_user=x host_key=['a','b'] `, 1))
	f.Add(good + "[all:vars]\nconsul_url=https://example.com/x\nconsul_sha256=00\ndomain=a.b\nconsul_primary_datacenter=dc1\n")
	directory := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		file := filepath.Join(directory, "inventory.ini")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		inv, err := inventory.Load(t.Context(), inventory.Options{Sources: []string{file}})
		if err != nil || len(inv.Hosts()) > 200 {
			return
		}
		result := Build(inv, State{})
		if (result.Cluster == nil) != (len(result.Refused()) > 0) {
			t.Errorf("there is a cluster although something is refused, or none although nothing is")
		}
		if result.Cluster == nil {
			return
		}
		for _, n := range result.Cluster.Nodes() {
			c := n.Connection
			for _, s := range append([]string{n.Name, n.Datacenter, c.Host, c.User, n.Artefacts[ComponentConsul].Version, n.Artefacts[ComponentConsul].Package}, c.Jumps...) {
				if strings.HasPrefix(s, "-") || strings.ContainsAny(s, " \n\t'\"`;|&<>(){}") {
					t.Errorf("%q got into the cluster", s)
				}
			}
			if n.Has(ZooKeeper) && (n.ZooKeeperID < 1 || n.ZooKeeperID > 255) {
				t.Errorf("%s has the id %d", n.Name, n.ZooKeeperID)
			}
		}
		again := Build(inv, result.State)
		if again.Cluster == nil || again.Cluster.Primary != result.Cluster.Primary {
			t.Errorf("with the state it stored, the same inventory is another cluster: %v", again.Refused())
		}
	})
}
