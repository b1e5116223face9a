package preflight

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/componenttest"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
)

const three = `c1 ansible_host=10.0.0.1
c2 ansible_host=10.0.0.2
c3 ansible_host=10.0.0.3
w1 ansible_host=10.0.0.4
[role=control]
c[1:3]
[role=worker]
w1
[role=edge]
w1
[dc=dc1]
c[1:3]
w1
`

// usual is a platform whose machines have nothing wrong with them.
func usual(t *testing.T) component.Platform {
	p := componenttest.Platform(t, three)
	for _, f := range p.Facts {
		f.Disks = map[string]facts.Disk{"/var/lib": {Free: 40 << 30, Total: 50 << 30, Inodes: 1 << 20}}
	}
	return p
}

func TestMachinesWithNothingWrongHaveNoProblems(t *testing.T) {
	if problems := Check(usual(t), nil); len(problems) > 0 {
		t.Errorf("%+v", problems)
	}
}

func TestEachProblemSaysWhatAndWhereAndWhatToDo(t *testing.T) {
	at := netip.MustParseAddrPort
	for name, test := range map[string]struct {
		harm  func(map[string]*facts.Facts)
		node  string
		code  string
		fatal bool
		says  string
	}{
		"no root":       {func(f map[string]*facts.Facts) { f["c1"].Root, f["c1"].RootError = false, "sudo says no" }, "c1", "no-root", true, "sudo says no"},
		"no systemd":    {func(f map[string]*facts.Facts) { f["c1"].System.Systemd = 0 }, "c1", "no-systemd", true, "systemd"},
		"an old system": {func(f map[string]*facts.Facts) { f["c1"].System.Version, f["c1"].System.Name = "9", "Debian 9" }, "c1", "system", true, "Debian 9 is too old"},
		"a full disk": {func(f map[string]*facts.Facts) {
			f["c1"].Disks["/var/lib"] = facts.Disk{Free: 8 << 20, Total: 9 << 30, Inodes: 99999}
		}, "c1", "disk-full", true, "/var/lib has 8 MiB left"},
		"a small disk": {func(f map[string]*facts.Facts) {
			f["c1"].Disks["/var/lib"] = facts.Disk{Free: 1 << 30, Total: 9 << 30, Inodes: 99999}
		}, "c1", "disk-small", false, "/var/lib has 1.0 GiB left"},
		"no inodes": {func(f map[string]*facts.Facts) {
			f["c1"].Disks["/var/lib"] = facts.Disk{Free: 9 << 30, Total: 9 << 30, Inodes: 12}
		}, "c1", "disk-full", true, "room for 12 more files"},
		"little memory":         {func(f map[string]*facts.Facts) { f["c1"].Memory = 1 << 30 }, "c1", "memory", false, "1.0 GiB"},
		"a clock that is odd":   {func(f map[string]*facts.Facts) { f["c2"].Offset = -2 * time.Second }, "c2", "clock-skewed", false, "2s behind"},
		"a clock that is wrong": {func(f map[string]*facts.Facts) { f["c2"].Offset = time.Hour }, "c2", "clock-skewed", true, "1h0m0s ahead"},
		"our clock": {func(f map[string]*facts.Facts) {
			for _, x := range f {
				x.Offset = time.Minute
			}
		}, "", "clock-skewed", true, "this machine's clock is 1m0s behind"},
		"a held lock": {func(f map[string]*facts.Facts) { f["w1"].PackageLock = "apt-get (pid 7)" }, "w1", "package-lock", false, "apt-get (pid 7)"},
		"a taken port": {func(f map[string]*facts.Facts) {
			f["c1"].Listeners = []facts.Listener{{Network: "tcp", Address: at("0.0.0.0:2181"), Process: "nginx", PID: 12, Unit: "nginx.service"}}
		}, "c1", "port-taken", true, "port 2181 (tcp), which zookeeper needs, is taken by nginx (process 12) of nginx.service"},
		"a taken port that nobody can see": {func(f map[string]*facts.Facts) {
			f["w1"].Listeners = []facts.Listener{{Network: "tcp", Address: at("[::]:80")}}
		}, "w1", "port-taken", true, "a process that cannot be seen"},
		"another address": {func(f map[string]*facts.Facts) {
			f["c1"].Addresses["eth0"] = []netip.Prefix{netip.MustParsePrefix("192.168.0.7/24")}
		}, "c1", "address-missing", true, "10.0.0.1, and the machine does not have that; it has 192.168.0.7"},
		"one name for two": {func(f map[string]*facts.Facts) { f["c2"].Hostname = "C1" }, "c2", "same-hostname", false, "that of c1"},
		"one machine twice": {func(f map[string]*facts.Facts) {
			f["c2"].Hostname = "c1"
			f["c2"].Addresses["eth0"] = append(f["c2"].Addresses["eth0"], f["c1"].Addresses["eth0"]...)
		}, "c2", "same-machine", true, "the same machine as c1"},
	} {
		t.Run(name, func(t *testing.T) {
			p := usual(t)
			test.harm(p.Facts)
			problems := Check(p, nil)
			if len(problems) != 1 {
				t.Fatalf("%+v", problems)
			}
			got := problems[0]
			if got.Node != test.node || got.Code != test.code || got.Fatal != test.fatal || !strings.Contains(got.Message, test.says) || got.Advice == "" {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestPortsOfOnesOwnAreNotTaken(t *testing.T) {
	for name, l := range map[string]facts.Listener{
		"our unit's":              {Network: "tcp", Address: netip.MustParseAddrPort("0.0.0.0:2181"), Unit: "zookeeper.service"},
		"on another address":      {Network: "tcp", Address: netip.MustParseAddrPort("127.0.0.1:2181"), Unit: "other.service"},
		"of another protocol":     {Network: "udp", Address: netip.MustParseAddrPort("0.0.0.0:2181"), Unit: "other.service"},
		"of what is not here":     {Network: "tcp", Address: netip.MustParseAddrPort("0.0.0.0:5051"), Unit: "other.service"},
		"beside one for programs": {Network: "tcp", Address: netip.MustParseAddrPort("10.0.0.1:8500"), Unit: "other.service"},
	} {
		t.Run(name, func(t *testing.T) {
			p := usual(t)
			p.Facts["c1"].Listeners = []facts.Listener{l}
			parts := map[string][]*desired.Part{"c1": {{Component: "zookeeper", Units: []desired.Unit{{Name: "zookeeper.service", State: desired.Running}}}}}
			if problems := Check(p, parts); len(problems) > 0 {
				t.Errorf("%+v", problems)
			}
		})
	}
}

func TestPortsAreReachedWithinADatacenterAndServersAcross(t *testing.T) {
	p := componenttest.Platform(t, "d1 ansible_host=10.1.0.1\n"+three+"[role=control]\nd1\n[dc=dc2]\nd1\n")
	from := func(node string, port int) (from, wan []string) {
		n := componenttest.Node(t, p, node)
		for _, x := range Ports(p, n) {
			if x.Network == "tcp" && x.Number == port {
				for _, list := range []struct {
					nodes []*cluster.Node
					to    *[]string
				}{{x.From, &from}, {x.WAN, &wan}} {
					for _, f := range list.nodes {
						*list.to = append(*list.to, f.Name)
					}
				}
			}
		}
		return from, wan
	}
	for _, test := range []struct {
		node      string
		port      int
		from, wan string
	}{
		{"c1", 2181, "c2 c3 w1", ""}, {"c1", 2888, "c2 c3", ""}, {"c1", 8300, "c2 c3 w1", "d1"}, {"c1", 8302, "c2 c3", "d1"}, {"d1", 8302, "", "c1 c2 c3"},
		{"w1", 5051, "c1 c2 c3", ""}, {"c1", 8500, "", ""}, {"w1", 2181, "", ""},
	} {
		if f, w := from(test.node, test.port); strings.Join(f, " ") != test.from || strings.Join(w, " ") != test.wan {
			t.Errorf("port %d of %s is reached from %v and %v", test.port, test.node, f, w)
		}
	}
}

func TestTheSameProblemOfSeveralComponentsIsSaidOnce(t *testing.T) {
	a := component.Problem{Fatal: true, Code: "system", Node: "c1", Component: "base"}
	b, c := a, component.Problem{Code: "memory", Node: "c1", Message: "x"}
	b.Component = "docker"
	if got := Once([]component.Problem{c, a, b, c}); len(got) != 2 || got[0] != a || got[1] != c {
		t.Errorf("%+v", got)
	}
}
