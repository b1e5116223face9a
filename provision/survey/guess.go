package survey

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/facts"
	"github.com/mi-lb/mi-lb/provision/plan"
	"github.com/mi-lb/mi-lb/provision/secrets"
)

// guess is the platform as it would be if its machines were usual ones, to find out
// what components will want to know of them.
type guess struct {
	components []component.Component
	platforms  []component.Platform
	stamps     string
}

// somewhere stands for an address that is not known yet.
var somewhere = netip.AddrFrom4([4]byte{192, 0, 2, 1})

func newGuess(o Options) (guess, error) {
	c := *o.Cluster
	c.Datacenters = nil
	for _, d := range o.Cluster.Datacenters {
		copied := *d
		copied.Nodes = nil
		for _, n := range d.Nodes {
			node := *n
			if !node.Address.IsValid() {
				node.Address, node.WANAddress = somewhere, somewhere
			}
			copied.Nodes = append(copied.Nodes, &node)
		}
		c.Datacenters = append(c.Datacenters, &copied)
	}
	// Secrets that nobody ever sees: files are named, and their content is not
	// looked at.
	bundle := secrets.New()
	if _, err := bundle.Ensure(&c, time.Now()); err != nil {
		return guess{}, fmt.Errorf("find out what to ask machines: %w", err)
	}
	g := guess{components: o.Components, stamps: o.Stamps}
	for _, usual := range usualMachines() {
		p := component.Platform{Cluster: &c, Secrets: bundle, Program: o.Program, Facts: map[string]*facts.Facts{}}
		for _, n := range c.Nodes() {
			f := usual
			f.Node, f.Hostname = n.Name, n.Name
			f.Addresses = map[string][]netip.Prefix{"eth0": {netip.PrefixFrom(n.Address, n.Address.BitLen())}}
			if n.Interface != "" {
				f.Addresses[n.Interface] = f.Addresses["eth0"]
			}
			p.Facts[n.Name] = &f
		}
		g.platforms = append(g.platforms, p)
	}
	return g, nil
}

func usualMachines() []facts.Facts {
	empty := facts.Facts{
		CPUs: 4, Memory: 8 << 30, Root: true, Disks: map[string]facts.Disk{"/": {Free: 1 << 40, Total: 1 << 40, Inodes: 1 << 30}},
		Packages: map[string]string{}, Users: map[string]facts.User{}, Files: map[string]facts.File{}, Units: map[string]facts.Unit{}, Stamps: map[string]string{},
	}
	debian, redhat := empty, empty
	debian.System = facts.System{Family: facts.Debian, ID: "debian", Version: "12", Code: "bookworm", Name: "Debian GNU/Linux 12 (bookworm)", Kernel: "6.1.0", Arch: "amd64", Systemd: 252}
	debian.Cgroup, debian.Synchronized = 2, new(true)
	redhat.System = facts.System{Family: facts.RedHat, ID: "rocky", Version: "9.4", Name: "Rocky Linux 9.4", Kernel: "5.14.0", Arch: "amd64", Systemd: 252}
	redhat.Cgroup, redhat.Synchronized = 2, new(true)
	// The same with another cgroup mode, a newer engine, and a clock that nothing
	// keeps right.
	odd := debian
	odd.Cgroup, odd.Synchronized = 1, new(false)
	odd.Docker = &facts.Docker{Version: "28.5.2", API: "1.51", MinAPI: "1.24"}
	odd.Resolver = facts.Resolver{Resolved: true, Link: "../run/systemd/resolve/stub-resolv.conf"}
	return []facts.Facts{debian, redhat, odd}
}

// disks are the file systems that the platform writes to.
var disks = []string{"/", "/etc", "/run", "/tmp", "/usr", "/var/cache", "/var/lib", "/var/lib/docker", "/var/log"}

// ask is what to ask of a node.
func (g guess) ask(n *cluster.Node) facts.Ask {
	all := facts.Ask{Stamps: g.stamps}
	all.Add(facts.Ask{Disks: disks})
	for _, p := range g.platforms {
		node, _ := p.Cluster.Node(n.Name)
		for _, c := range g.components {
			if !c.On(node) {
				continue
			}
			if part, _ := c.Desired(p, node); part != nil {
				all.Add(plan.Ask(part))
			}
		}
	}
	return all
}
