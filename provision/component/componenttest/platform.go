package componenttest

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/facts"
	"github.com/mi-lb/mi-lb/provision/inventory"
	"github.com/mi-lb/mi-lb/provision/secrets"
	"github.com/mi-lb/mi-lb/provision/ssh"
)

// Platform is the platform that an inventory in YAML or INI describes, with secrets
// of its own and every machine a [Debian] one. Certificates are valid now.
func Platform(t testing.TB, text string) component.Platform {
	t.Helper()
	name := "hosts"
	if strings.HasPrefix(strings.TrimSpace(text), "all:") {
		name = "hosts.yml"
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	inv, err := inventory.Load(t.Context(), inventory.Options{Sources: []string{filepath.Join(dir, name)}})
	if err != nil {
		t.Fatal(err)
	}
	built := cluster.Build(inv, cluster.State{})
	if built.Cluster == nil {
		t.Fatalf("the inventory is refused: %v", built.Refused())
	}
	bundle := secrets.New()
	if _, err := bundle.Ensure(built.Cluster, time.Now()); err != nil {
		t.Fatal(err)
	}
	p := component.Platform{Cluster: built.Cluster, Secrets: bundle, Facts: map[string]*facts.Facts{}, Program: "/usr/bin/mi-lb"}
	for _, n := range built.Cluster.Nodes() {
		p.Facts[n.Name] = Debian(n)
	}
	return p
}

// With is the platform with other facts of all machines.
func With(p component.Platform, of func(*cluster.Node) *facts.Facts) component.Platform {
	p.Facts = map[string]*facts.Facts{}
	for _, n := range p.Cluster.Nodes() {
		p.Facts[n.Name] = of(n)
	}
	return p
}

// Node is a node that must exist.
func Node(t testing.TB, p component.Platform, name string) *cluster.Node {
	t.Helper()
	n, ok := p.Cluster.Node(name)
	if !ok {
		t.Fatalf("there is no node %s", name)
	}
	return n
}

// Debian are the facts of a fresh machine with Debian 12.
func Debian(n *cluster.Node) *facts.Facts {
	return fresh(n, facts.System{
		Family: facts.Debian, ID: "debian", Version: "12", Code: "bookworm", Name: "Debian GNU/Linux 12 (bookworm)",
		Kernel: "6.1.0-25-amd64", Arch: "amd64", Systemd: 252,
	})
}

// RedHat are the facts of a fresh machine with Rocky Linux 9.
func RedHat(n *cluster.Node) *facts.Facts {
	return fresh(n, facts.System{
		Family: facts.RedHat, ID: "rocky", Version: "9.4", Code: "", Name: "Rocky Linux 9.4 (Blue Onyx)",
		Kernel: "5.14.0-427.el9.x86_64", Arch: "amd64", Systemd: 252,
	})
}

func fresh(n *cluster.Node, system facts.System) *facts.Facts {
	synchronized := true
	f := &facts.Facts{
		Node: n.Name, At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Hostname: n.Name, System: system,
		Synchronized: &synchronized, CPUs: 4, Memory: 8 << 30, Root: true, Cgroup: 2,
		Addresses: map[string][]netip.Prefix{"lo": {netip.MustParsePrefix("127.0.0.1/8")}},
		Disks:     map[string]facts.Disk{"/": {Free: 40 << 30, Total: 50 << 30, Inodes: 1 << 20}},
		Resolver:  facts.Resolver{ResolvConf: "nameserver 192.0.2.53\n"},
		Packages:  map[string]string{}, Users: map[string]facts.User{}, Files: map[string]facts.File{}, Units: map[string]facts.Unit{},
		Stamps: map[string]string{},
	}
	if n.Address.IsValid() {
		f.Addresses["eth0"] = []netip.Prefix{netip.PrefixFrom(n.Address, 24)}
	}
	return f
}

// Hosts are machines that are reached, by node.
type Hosts map[string]component.Host

// Host implements [component.Access].
func (h Hosts) Host(node string) (component.Host, error) {
	if host, ok := h[node]; ok {
		return host, nil
	}
	return nil, fmt.Errorf("%s is not reached", node)
}

// Without is all machines but some.
func (h Hosts) Without(nodes ...string) Hosts {
	rest := maps.Clone(h)
	maps.DeleteFunc(rest, func(node string, _ component.Host) bool { return slices.Contains(nodes, node) })
	return rest
}

// Here is this machine as every machine of a platform, reached as mi-lb reaches the
// one that it runs on.
func Here(t testing.TB, p component.Platform) Hosts {
	t.Helper()
	dialer := ssh.NewDialer(ssh.Options{ConfigFile: "none", AgentSocket: "none"})
	t.Cleanup(func() { _ = dialer.Close() })
	all := Hosts{}
	for _, n := range p.Cluster.Nodes() {
		host, err := dialer.Connect(context.Background(), ssh.Target{
			Name: n.Name, Connection: cluster.Connection{Local: true, Become: cluster.BecomeNever},
		})
		if err != nil {
			t.Fatal(err)
		}
		all[n.Name] = host
	}
	return all
}
