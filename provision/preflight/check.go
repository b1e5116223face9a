package preflight

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
)

const (
	// oddSkew of clocks is worth a warning; with wrongSkew certificates, sessions and
	// leases cannot be relied on.
	oddSkew   = time.Second
	wrongSkew = 5 * time.Second

	mebi, gibi = 1 << 20, 1 << 30
)

// least is how much must be free on the file systems that a run writes to, and how
// much it takes to run for a while; in bytes.
var least = map[string]struct{ run, live int64 }{
	"/": {64 * mebi, 256 * mebi}, "/etc": {4 * mebi, 16 * mebi}, "/tmp": {1 * mebi, 16 * mebi},
	"/usr": {256 * mebi, gibi}, "/var/cache": {256 * mebi, 512 * mebi}, "/var/lib": {256 * mebi, 4 * gibi}, "/var/log": {32 * mebi, gibi},
}

// fewestInodes that must be free.
const fewestInodes = 5000

// Check finds problems of the machines. parts are what components want of each.
func Check(p component.Platform, parts map[string][]*desired.Part) []component.Problem {
	c := &checker{platform: p}
	for _, n := range p.Cluster.Nodes() {
		f := p.Facts[n.Name]
		if f == nil {
			continue // that it is not reached is said elsewhere
		}
		c.node, c.facts, c.parts = n, f, parts[n.Name]
		c.system()
		c.resources()
		c.address()
		c.ports()
	}
	c.clocks()
	c.collisions()
	return c.problems
}

type checker struct {
	platform component.Platform
	problems []component.Problem

	node  *cluster.Node
	facts *facts.Facts
	parts []*desired.Part
}

func (c *checker) add(fatal bool, code, advice, format string, arguments ...any) {
	node := ""
	if c.node != nil {
		node = c.node.Name
	}
	c.problems = append(c.problems, component.Problem{Fatal: fatal, Code: code, Node: node, Message: fmt.Sprintf(format, arguments...), Advice: advice})
}

// oldest versions that mi-lb is made for, by os-release's ID.
var oldest = map[string]float64{"debian": 11, "ubuntu": 20.04, "rhel": 8, "centos": 8, "rocky": 8, "almalinux": 8, "ol": 8}

func (c *checker) system() {
	f := c.facts
	if !f.Root {
		c.add(true, "no-root", "log in as root, or let the login use sudo (ansible_user, ansible_become_password)", "root's rights are not to be had: %s", f.RootError)
	}
	if f.System.Systemd == 0 {
		c.add(true, "no-systemd", "use a system that runs systemd", "there is no systemd, which runs the platform's programs")
	}
	version, err := strconv.ParseFloat(f.System.Version, 64)
	if least, ok := oldest[f.System.ID]; ok && err == nil && version < least {
		c.add(true, "system", fmt.Sprintf("upgrade it to version %v or later", least), "%s is too old", f.System.Name)
	} else if !ok && (f.System.Family == facts.Debian || f.System.Family == facts.RedHat) {
		c.add(false, "system", "if something is missing, say so", "%s is treated like others of its family, and nobody has tried", f.System.Name)
	}
	if f.PackageLock != "" {
		c.add(false, "package-lock", "wait until it is done; a run waits for it, for up to five minutes", "the package manager's lock is held by %s", f.PackageLock)
	}
	for _, part := range c.parts {
		for _, x := range part.Programs {
			if x.Artefact.File != "" && x.Artefact.File == c.platform.Program && f.System.Arch != runtime.GOARCH {
				c.add(true, "architecture", "give the mi-lb for "+f.System.Arch+" with --program", "the machine is %s, and the mi-lb that is installed on it is for %s", f.System.Arch, runtime.GOARCH)
				return
			}
		}
	}
}

func (c *checker) resources() {
	said := map[facts.Disk]bool{}
	for _, path := range slices.Sorted(maps.Keys(least)) {
		disk, ok := c.facts.Disks[path]
		if !ok || disk.Total == 0 || said[disk] {
			continue
		}
		switch limits := least[path]; {
		case disk.Free < limits.run:
			c.add(true, "disk-full", "make room there", "%s has %s left, and %s are needed", path, bytesText(disk.Free), bytesText(limits.run))
		case disk.Inodes < fewestInodes && disk.Inodes > 0:
			c.add(true, "disk-full", "remove files there", "%s has room for %d more files only", path, disk.Inodes)
		case disk.Free < limits.live:
			c.add(false, "disk-small", "give it more room before it is used", "%s has %s left, which does not last long", path, bytesText(disk.Free))
		default:
			continue
		}
		said[disk] = true
	}
	switch memory := c.facts.Memory; {
	case memory == 0:
	case c.node.IsServer() && memory < 1900*mebi:
		c.add(false, "memory", "give it 2 GiB or more", "it has %s of memory, which is little for ZooKeeper, Consul, Mesos and Marathon", bytesText(memory))
	case memory < 480*mebi:
		c.add(false, "memory", "give it 512 MiB or more", "it has %s of memory", bytesText(memory))
	}
}

func bytesText(n int64) string {
	switch {
	case n >= 10*gibi:
		return fmt.Sprintf("%d GiB", n/gibi)
	case n >= gibi:
		return fmt.Sprintf("%.1f GiB", float64(n)/gibi)
	}
	return fmt.Sprintf("%d MiB", n/mebi)
}

// address checks that the machine has the address that others are told.
func (c *checker) address() {
	n := c.node
	if !n.Address.IsValid() {
		if _, err := c.platform.Address(n); err != nil {
			c.add(true, "no-address", "set private_ipv4 or private_interface", "%v", err)
		}
		return
	}
	var has []string
	for _, name := range slices.Sorted(maps.Keys(c.facts.Addresses)) {
		for _, p := range c.facts.Addresses[name] {
			if p.Addr().Unmap() == n.Address {
				return
			}
			if !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast() {
				has = append(has, p.Addr().String())
			}
		}
	}
	if len(has) > 0 {
		c.add(true, "address-missing", "set private_ipv4 to the address that the machine itself has, and public_ipv4 to the one that others translate", "its address is to be %s, and the machine does not have that; it has %s", n.Address, strings.Join(has, ", "))
	}
}

// ports finds ports of the platform that something else has.
func (c *checker) ports() {
	for _, port := range Ports(c.platform, c.node) {
		for _, l := range c.facts.Listeners {
			if l.Network != port.Network || int(l.Address.Port()) != port.Number || c.isOurs(l) || !port.meets(l.Address.Addr(), c.node.Address) {
				continue
			}
			who := l.Process
			if who == "" {
				who = "a process that cannot be seen"
			} else {
				who = fmt.Sprintf("%s (process %d)", who, l.PID)
			}
			if l.Unit != "" {
				who += " of " + l.Unit
			}
			advice := "stop it"
			if port.Variable != "" {
				advice += ", or give " + port.Component + " another port with " + port.Variable
			}
			c.add(true, "port-taken", advice, "port %d (%s), which %s needs, is taken by %s", port.Number, port.Network, port.Component, who)
			c.problems[len(c.problems)-1].Component = port.Component
			break
		}
	}
}

// isOurs says whether a listener is one of the platform's own units.
func (c *checker) isOurs(l facts.Listener) bool {
	for _, part := range c.parts {
		for _, u := range part.Units {
			if u.Name == l.Unit && u.State == desired.Running {
				return true
			}
		}
	}
	return false
}

// clocks compares the clocks of all machines with each other and with ours.
func (c *checker) clocks() {
	c.node = nil
	var offsets []time.Duration
	for _, f := range c.platform.Facts {
		offsets = append(offsets, f.Offset)
	}
	if len(offsets) == 0 {
		return
	}
	slices.Sort(offsets)
	middle := offsets[(len(offsets)-1)/2]
	const advice = "set the clock right, and have something keep it so (chrony, systemd-timesyncd)"
	for _, n := range c.platform.Cluster.Nodes() {
		f := c.platform.Facts[n.Name]
		if f == nil {
			continue
		}
		c.node = n
		from, than := f.Offset-middle, "those of most machines"
		if len(offsets) < 3 {
			from, than = f.Offset, "the one of this machine"
		}
		if d := from.Abs(); d > oddSkew {
			c.add(d > wrongSkew, "clock-skewed", advice, "its clock is %s %s of %s", d.Round(100*time.Millisecond), ahead(from), than)
		}
	}
	c.node = nil
	if d := middle.Abs(); len(offsets) >= 3 && d > oddSkew {
		c.add(d > wrongSkew, "clock-skewed", "set the clock of this machine right, or those of the others", "this machine's clock is %s %s of those of most machines", d.Round(100*time.Millisecond), ahead(-middle))
	}
}

func ahead(d time.Duration) string {
	if d < 0 {
		return "behind"
	}
	return "ahead"
}

// collisions finds machines that are one, or that have one name.
func (c *checker) collisions() {
	type seen struct {
		node *cluster.Node
		f    *facts.Facts
	}
	byName := map[string][]seen{}
	for _, n := range c.platform.Cluster.Nodes() {
		f := c.platform.Facts[n.Name]
		if f == nil || f.Hostname == "" {
			continue
		}
		c.node = n
		name := strings.ToLower(f.Hostname)
		for _, other := range byName[name] {
			if a, ok := shared(f, other.f); ok {
				c.add(true, "same-machine", "correct ansible_host of one of them", "it is the same machine as %s: both have the name %s and the address %s", other.node.Name, f.Hostname, a)
			} else if n.Datacenter == other.node.Datacenter {
				c.add(false, "same-hostname", "give one of them another name with hostnamectl", "its host name is %s, as that of %s", f.Hostname, other.node.Name)
			}
		}
		byName[name] = append(byName[name], seen{n, f})
	}
}

// shared is an address that two machines both have, other than those that many have.
func shared(a, b *facts.Facts) (netip.Addr, bool) {
	all := map[netip.Addr]bool{}
	for name, list := range a.Addresses {
		if isVirtual(name) {
			continue
		}
		for _, p := range list {
			if !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast() {
				all[p.Addr()] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.Addresses)) {
		for _, p := range b.Addresses[name] {
			if all[p.Addr()] && !isVirtual(name) {
				return p.Addr(), true
			}
		}
	}
	return netip.Addr{}, false
}

func isVirtual(name string) bool {
	return slices.ContainsFunc([]string{"lo", "docker", "br-", "veth", "virbr", "cni"}, func(p string) bool { return strings.HasPrefix(name, p) })
}

// Once leaves one of problems that are the same for a machine, whichever component
// found them.
func Once(problems []component.Problem) []component.Problem {
	var kept []component.Problem
	for _, p := range problems {
		again := func(o component.Problem) bool {
			same := p.Code == "system" || p.Code == "no-facts" || p.Code == "secrets"
			return o.Node == p.Node && o.Code == p.Code && (same || o.Message == p.Message)
		}
		if !slices.ContainsFunc(kept, again) {
			kept = append(kept, p)
		}
	}
	slices.SortStableFunc(kept, func(a, b component.Problem) int {
		switch {
		case a.Fatal == b.Fatal:
			return cmp.Compare(a.Node, b.Node)
		case a.Fatal:
			return -1
		}
		return 1
	})
	return kept
}
