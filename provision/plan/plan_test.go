package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
	"github.com/mi-lb/mi-lb/provision/redact"
)

// machine is a model of a machine: what apply would make of it.
type machine struct {
	found *facts.Facts
	// runs is what each unit was started with: the hash of all that restarts it.
	runs, uses map[string]string
	parts      []*desired.Part
}

func fresh() *machine {
	return &machine{
		found: &facts.Facts{
			Node: "a", System: facts.System{Family: facts.Debian}, Root: true,
			Packages: map[string]string{}, Users: map[string]facts.User{}, Files: map[string]facts.File{}, Units: map[string]facts.Unit{}, Stamps: map[string]string{},
		},
		runs: map[string]string{}, uses: map[string]string{},
	}
}

func plainMask(s string) string { return s }

// state is a hash of what a unit would read if it were started now.
func (m *machine) state(unit string, reload bool) string {
	var lines []string
	for _, p := range m.parts {
		for _, x := range p.Packages {
			if !reload && slices.Contains(x.Restarts, unit) {
				lines = append(lines, x.Name+m.found.Packages[x.Name])
			}
		}
		for _, x := range p.Programs {
			if !reload && slices.Contains(x.Restarts, unit) {
				lines = append(lines, x.Path+m.found.Files[x.Path].SHA256)
			}
		}
		for _, f := range p.Files {
			if !reload && slices.Contains(f.Restarts, unit) || reload && slices.Contains(f.Reloads, unit) {
				lines = append(lines, f.Path+m.found.Files[f.Path].SHA256)
			}
		}
		for _, u := range p.Units {
			for _, f := range unitFiles(u) {
				if u.Name == unit && !reload {
					lines = append(lines, f.Path+m.found.Files[f.Path].SHA256)
				}
			}
		}
	}
	return hash(lines)
}

func (m *machine) write(f desired.File) {
	sum := sha256.Sum256([]byte(f.Bytes()))
	m.found.Files[f.Path] = facts.File{Mode: f.Mode, Owner: fullOwner(f.Owner), Size: int64(len(f.Bytes())), SHA256: hex.EncodeToString(sum[:]), Content: f.Bytes()}
}

// apply does the steps of a plan in the order in which package apply does them, and
// stops after so many; it returns how many there were.
func (m *machine) apply(parts []*desired.Part, most int) int {
	m.parts = parts
	n := 0
	step := func(do func()) {
		if n++; n <= most {
			do()
		}
	}
	for _, p := range parts {
		h := Diff(parts, m.found, plainMask)[p.Component]
		if h == nil {
			continue
		}
		step(func() {
			for _, name := range h.Spoils {
				delete(m.found.Stamps, name)
			}
			m.found.Stamps[ManifestStamp(p.Component)] = h.Manifest
		})
		for _, c := range h.Changes {
			if !c.Kind.Activates() {
				step(func() { m.change(c) })
			}
		}
		step(func() {
			for name, text := range h.Stamps {
				m.found.Stamps[name] = text
			}
		})
		for _, c := range h.Changes {
			if !c.Kind.Activates() {
				continue
			}
			step(func() { m.activate(c) })
			step(func() {
				for name, text := range h.Units[c.Name] {
					if c.Kind != Enable {
						m.found.Stamps[name] = text
					}
				}
			})
		}
	}
	return n
}

func (m *machine) change(c Change) {
	switch {
	case c.Kind == Mask:
		m.found.Units[c.Name] = facts.Unit{Load: "masked", Enabled: "masked", Active: "inactive"}
	case c.Kind == Package:
		version := c.Package.Version
		if version == "" {
			version = "1"
		} else {
			m.found.Held = append(m.found.Held, c.Name)
		}
		m.found.Packages[c.Name] = version
	case c.Kind == User:
		m.found.Users[c.Name] = facts.User{Groups: append([]string{c.Name}, c.User.Groups...)}
	case c.Kind == Directory:
		m.found.Files[c.Name] = facts.File{Directory: true, Empty: true, Mode: c.Dir.Mode, Owner: fullOwner(c.Dir.Owner)}
	case c.Kind == Program:
		m.found.Files[c.Name] = facts.File{Mode: c.Program.Mode, Size: 7, Modified: int64(len(m.found.Stamps)), SHA256: c.Program.Identity()}
		m.found.Stamps[ProgramStampName(*c.Program)] = ProgramStamp(*c.Program, m.found.Files[c.Name])
	case c.Sign == Remove:
		delete(m.found.Files, c.Name)
		if c.Kind == UnitFile {
			delete(m.found.Units, filepath.Base(c.Name))
		}
	case c.Kind == Then:
	case c.File != nil:
		m.write(*c.File)
	}
}

func (m *machine) activate(c Change) {
	u := m.found.Units[c.Name]
	u.Load = "loaded"
	switch c.Kind {
	case Enable:
		u.Enabled = "enabled"
	case Stop:
		u.Enabled, u.Active = "disabled", "inactive"
	case Start, Restart:
		u.Active = "active"
		m.runs[c.Name], m.uses[c.Name] = m.state(c.Name, false), m.state(c.Name, true)
	case Reload:
		m.uses[c.Name] = m.state(c.Name, true)
	}
	m.found.Units[c.Name] = u
}

func server(content string, more ...func(*desired.Part)) []*desired.Part {
	p := &desired.Part{
		Component:   "server",
		Packages:    []desired.Package{{Name: "server", Masked: []string{"other.service"}, Restarts: []string{"server.service"}}},
		Users:       []desired.User{{Name: "server", Groups: []string{"tls"}}},
		Directories: []desired.Directory{{Path: "/var/lib/server", Mode: 0o750, Owner: "server:server"}},
		Files: []desired.File{
			{Path: "/etc/server.conf", Mode: 0o644, Owner: "root:root", Content: content, Restarts: []string{"server.service"}},
			{Path: "/etc/server.list", Mode: 0o644, Owner: "root:root", Content: content, Reloads: []string{"server.service"}},
			{Path: "/etc/server.key", Mode: 0o600, Owner: "server:server", Secret: redact.New("key of " + content), Restarts: []string{"server.service"}},
			{Path: "/etc/sysctl.conf", Mode: 0o644, Owner: "root:root", Content: "a = 1\n", Then: "sysctl -p"},
			{Path: "/var/lib/server/initialize", Mode: 0o644, Owner: "root:root", Once: true, OnlyWith: "/var/lib/server"},
		},
		Units: []desired.Unit{{Name: "server.service", Content: "[Service]\n", DropIns: map[string]string{"a.conf": "x\n"}, State: desired.Running}},
	}
	for _, change := range more {
		change(p)
	}
	return []*desired.Part{p}
}

// lines are the changes of the one part.
func lines(m *machine, parts []*desired.Part) []string {
	var all []string
	for _, p := range parts {
		if h := Diff(parts, m.found, plainMask)[p.Component]; h != nil {
			all = append(all, hostLines(*h, TextOptions{})...)
		}
	}
	return all
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

const all = 1 << 30

func TestAFreshMachineGetsEverythingInOrder(t *testing.T) {
	expect(t, lines(fresh(), server("1\n")),
		"+ mask other.service (the package server brings it, and it must not run)",
		"+ package server",
		"+ user server, in tls",
		"+ directory /var/lib/server, server:server 0750",
		"+ file /etc/server.conf, 1 line",
		"+ file /etc/server.list, 1 line",
		"+ file /etc/server.key, (hidden)",
		"+ file /etc/sysctl.conf, 1 line",
		"+ file /var/lib/server/initialize, 0 lines",
		"+ unit file /etc/systemd/system/server.service, 1 line",
		"+ drop-in /etc/systemd/system/server.service.d/a.conf, 1 line",
		"+ enable server.service",
		"+ start server.service",
	)
}

func TestNothingIsDoneTwice(t *testing.T) {
	m := fresh()
	m.apply(server("1\n"), all)
	expect(t, lines(m, server("1\n")))
}

func TestWhatChangedDecidesBetweenRestartAndReload(t *testing.T) {
	change := func(f func(*desired.Part)) []*desired.Part { return server("1\n", f) }
	for name, test := range map[string]struct {
		parts []*desired.Part
		want  []string
	}{
		"a file that restarts": {change(func(p *desired.Part) { p.Files[0].Content = "2\n" }), []string{
			"~ file /etc/server.conf", "    @@ -1,1 +1,1 @@", "    -1", "    +2", "~ restart server.service (file /etc/server.conf)",
		}},
		"a file that reloads": {change(func(p *desired.Part) { p.Files[1].Content = "2\n" }), []string{
			"~ file /etc/server.list", "    @@ -1,1 +1,1 @@", "    -1", "    +2", "~ reload server.service (file /etc/server.list)",
		}},
		"a secret": {change(func(p *desired.Part) { p.Files[2].Secret = redact.New("another") }), []string{
			"~ file /etc/server.key, the content (hidden)", "~ restart server.service (file /etc/server.key)",
		}},
		"a mode": {change(func(p *desired.Part) { p.Files[0].Mode = 0o600 }), []string{"~ file /etc/server.conf, 0644 -> 0600"}},
		"a file with a command": {change(func(p *desired.Part) { p.Files[3].Content = "a = 2\n" }), []string{
			"~ file /etc/sysctl.conf", "    @@ -1,1 +1,1 @@", "    -a = 1", "    +a = 2",
		}},
		"the unit": {change(func(p *desired.Part) { p.Units[0].Content = "[Service]\nX=1\n" }), []string{
			"~ unit file /etc/systemd/system/server.service", "    @@ -1,1 +1,2 @@", "     [Service]", "    +X=1", "~ restart server.service (unit file /etc/systemd/system/server.service)",
		}},
		"a drop-in that goes": {change(func(p *desired.Part) { p.Units[0].DropIns = nil }), []string{
			"- drop-in /etc/systemd/system/server.service.d/a.conf (nothing wants it any more)", "~ restart server.service (removed /etc/systemd/system/server.service.d/a.conf)",
		}},
		"a version": {change(func(p *desired.Part) { p.Packages[0].Version = "2" }), []string{
			"~ package server, 1 -> 2", "~ restart server.service (package server)",
		}},
		"what is written once":         {change(func(p *desired.Part) { p.Files[4].Content = "other" }), nil},
		"a unit that is to be stopped": {change(func(p *desired.Part) { p.Units[0].State = desired.Stopped }), []string{"- stop server.service"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := fresh()
			m.apply(server("1\n"), all)
			expect(t, lines(m, test.parts), test.want...)
			m.apply(test.parts, all)
			expect(t, lines(m, test.parts))
		})
	}
}

func TestWhatSomebodyChangedOnTheMachineIsPutRight(t *testing.T) {
	for name, test := range map[string]struct {
		harm func(*machine)
		want []string
	}{
		"a file": {func(m *machine) {
			m.write(desired.File{Path: "/etc/server.conf", Mode: 0o644, Owner: "root:root", Content: "x\n"})
		}, []string{
			"~ file /etc/server.conf", "    @@ -1,1 +1,1 @@", "    -x", "    +1", "~ restart server.service (file /etc/server.conf)",
		}},
		"a unit that has died": {func(m *machine) {
			m.found.Units["server.service"] = facts.Unit{Load: "loaded", Active: "failed", Enabled: "enabled"}
		}, []string{"+ start server.service (it has failed)"}},
		"a unit that was disabled": {func(m *machine) {
			m.found.Units["server.service"] = facts.Unit{Load: "loaded", Active: "active", Enabled: "disabled"}
		}, []string{"+ enable server.service"}},
		"a stamp that is gone": {func(m *machine) { delete(m.found.Stamps, RestartStamp("server.service")) }, []string{
			"~ restart server.service (it may run what was there before an earlier run changed it)",
		}},
		"a command that did not run": {func(m *machine) {
			delete(m.found.Stamps, ThenStamp(desired.File{Path: "/etc/sysctl.conf"}))
		}, []string{"~ command sysctl -p, of /etc/sysctl.conf"}},
		"a group": {func(m *machine) { m.found.Users["server"] = facts.User{Groups: []string{"server"}} }, []string{"~ user server, also in tls"}},
		"what was written once": {func(m *machine) {
			delete(m.found.Files, "/var/lib/server/initialize")
			m.found.Files["/var/lib/server"] = facts.File{Directory: true, Mode: 0o750, Owner: "server:server"}
		}, nil},
		"a directory for a file": {func(m *machine) { m.found.Files["/etc/server.conf"] = facts.File{Directory: true} }, []string{
			"~ file /etc/server.conf, there is a directory of that name", "~ restart server.service (file /etc/server.conf)",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			m := fresh()
			m.apply(server("1\n"), all)
			test.harm(m)
			expect(t, lines(m, server("1\n")), test.want...)
		})
	}
}

func TestFilesThatTheirProgramRewritesAreComparedByMeaning(t *testing.T) {
	same := server("1\n", func(p *desired.Part) {
		p.Files[0].Same = func(a, b string) bool { return strings.TrimSpace(a) == strings.TrimSpace(b) }
	})
	m := fresh()
	m.apply(same, all)
	m.write(desired.File{Path: "/etc/server.conf", Mode: 0o644, Owner: "root:root", Content: " 1 "})
	expect(t, lines(m, same))
}

func TestProgramsAreKnownByTheirArtefact(t *testing.T) {
	with := func(sum string) []*desired.Part {
		return server("1\n", func(p *desired.Part) {
			p.Programs = []desired.Program{{Path: "/usr/bin/server", Mode: 0o755, Artefact: cluster.Artefact{File: "server", SHA256: strings.Repeat(sum, 64)}, Restarts: []string{"server.service"}}}
		})
	}
	m := fresh()
	m.apply(with("1"), all)
	expect(t, lines(m, with("1")))
	expect(t, lines(m, with("2")), "~ program /usr/bin/server, from server (sha256 222222222222…)", "~ restart server.service (program /usr/bin/server)")
	f := m.found.Files["/usr/bin/server"]
	f.Modified++
	m.found.Files["/usr/bin/server"] = f
	expect(t, lines(m, with("1")), "~ program /usr/bin/server, from server (sha256 111111111111…) (it is not as it was installed)", "~ restart server.service (program /usr/bin/server)")
}

// TestARunThatIsCutOffAnywhereIsCompleted cuts runs off after each of their steps,
// several times, and has the next one complete them: every unit runs what is
// wanted then, and nothing is left to do.
func TestARunThatIsCutOffAnywhereIsCompleted(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	version := func(i int) []*desired.Part {
		other := &desired.Part{
			Component: "other",
			Files: []desired.File{
				{Path: "/etc/other", Mode: 0o644, Owner: "root:root", Content: fmt.Sprint(i % 3), Restarts: []string{"other2.service"}, Reloads: []string{"server.service"}, Then: "x"},
			},
			Units: []desired.Unit{{Name: "other2.service", Content: fmt.Sprint("unit ", i%2), State: desired.Running}},
		}
		if i%4 == 0 {
			other.Units = append(other.Units, desired.Unit{Name: "third.service", Content: "x", State: desired.Running})
		}
		parts := server(fmt.Sprintln(i), func(p *desired.Part) {
			if i%2 == 0 {
				p.Files = p.Files[:4]
			}
			p.Packages[0].Version = []string{"", "1", "2"}[i%3]
			p.Programs = []desired.Program{{Path: "/bin/x", Mode: 0o755, Artefact: cluster.Artefact{File: "x", SHA256: fmt.Sprint(i % 5)}, Restarts: []string{"server.service"}}}
		})
		return append([]*desired.Part{other}, parts...)
	}
	for range 3000 {
		m := fresh()
		for range 4 {
			if parts := version(random.IntN(12)); random.IntN(3) == 0 {
				m.apply(parts, all)
			} else {
				m.apply(parts, random.IntN(25))
			}
		}
		wanted := version(random.IntN(12))
		m.apply(wanted, all)
		expect(t, lines(m, wanted))
		for _, p := range wanted {
			for _, u := range p.Units {
				if m.runs[u.Name] != m.state(u.Name, false) || m.uses[u.Name] != m.state(u.Name, true) {
					t.Fatalf("%s does not run what is there", u.Name)
				}
			}
		}
		if _, exists := m.found.Files["/etc/systemd/system/third.service"]; exists != slices.ContainsFunc(wanted[0].Units, func(u desired.Unit) bool { return u.Name == "third.service" }) {
			t.Fatal("a unit that nobody wants is left")
		}
	}
}

func TestUnitsOfTheSystemAreRestartedWhereTheyRun(t *testing.T) {
	parts := server("1\n", func(p *desired.Part) { p.Files[0].Restarts = append(p.Files[0].Restarts, "rsyslog.service") })
	m := fresh()
	if got := strings.Join(lines(m, parts), "\n"); strings.Contains(got, "rsyslog") {
		t.Errorf("a unit that is not there: %s", got)
	}
	m.found.Units["rsyslog.service"] = facts.Unit{Load: "loaded", Active: "active", Enabled: "enabled"}
	if got := lines(m, parts); got[len(got)-1] != "~ restart rsyslog.service (file /etc/server.conf)" {
		t.Errorf("%q", got)
	}
	m.apply(parts, all)
	expect(t, lines(m, parts))
}

func TestSavedPlansSayWhatHasDrifted(t *testing.T) {
	m := fresh()
	m.apply(server("1\n"), all)
	make := func(parts []*desired.Part) *Plan {
		p := &Plan{Facts: map[string]map[string]string{"a": Fingerprint(m.found)}, Platform: "example.com"}
		if h := Diff(parts, m.found, plainMask)["server"]; h != nil {
			p.Waves = []Wave{{Component: "server", Hosts: []Host{*h}}}
		}
		return p
	}
	saved := make(server("2\n"))
	file := filepath.Join(t.TempDir(), "plan")
	if err := saved.Save(file); err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, loaded.Drift(make(server("2\n"))))
	if drift := loaded.Drift(make(server("3\n"))); len(drift) == 0 || !strings.HasPrefix(drift[0], "no longer needed: a: ~ file /etc/server.conf") {
		t.Errorf("another wish: %q", drift)
	}
	m.write(desired.File{Path: "/etc/server.conf", Mode: 0o644, Owner: "root:root", Content: "x\n"})
	expect(t, loaded.Drift(make(server("2\n"))), "a: file /etc/server.conf has changed")
	m.found.Units["server.service"] = facts.Unit{Load: "loaded", Active: "failed"}
	delete(m.found.Files, "/etc/server.conf")
	expect(t, loaded.Drift(make(server("2\n"))), "a: file /etc/server.conf is gone", "a: unit server.service has changed")
}

func TestPlansShowNoSecrets(t *testing.T) {
	m := fresh()
	m.apply(server("password: hunter22\n"), all)
	mask := &redact.Mask{}
	mask.Add(redact.New("hunter22"), redact.New("key of 2\n"))
	p := &Plan{}
	parts := server("2\n")
	p.Waves = []Wave{{Component: "server", Hosts: []Host{*Diff(parts, m.found, mask.Mask)["server"]}}}
	file := filepath.Join(t.TempDir(), "plan")
	if err := p.Save(file); err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{p.Text(TextOptions{Contents: true}), loaded.Text(TextOptions{})} {
		if strings.Contains(text, "hunter22") || strings.Contains(text, "key of") || !strings.Contains(text, redact.Hidden) {
			t.Error(text)
		}
	}
}

func TestTextGathersMachinesThatChangeAlike(t *testing.T) {
	p := &Plan{Platform: "example.com", Waves: []Wave{{Component: "server", Order: map[string][]string{"dc1": {"n3", "n1"}}, Actions: []component.Action{{ID: "x", Title: "make a policy", Datacenter: "dc1"}}}}}
	for i := range 9 {
		c := Change{Sign: Modify, Kind: Restart, Name: "server.service"}
		if i == 4 {
			c = Change{Sign: Add, Kind: Start, Name: "server.service"}
		}
		p.Waves[0].Hosts = append(p.Waves[0].Hosts, Host{Node: fmt.Sprintf("n%d", i), Changes: []Change{c}})
	}
	want := `1. server
   n0, n1, n2, n3, n5 and 3 more (8 machines):
     ~ restart server.service
   n4:
     + start server.service
   in dc1:
     ~ make a policy
   in dc1 one at a time: n3, then n1

On 9 machines: 0 to add, 0 to change, 0 to remove, 1 start, 8 restarts, 1 action.
`
	if got := p.Text(TextOptions{}); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if got := (&Plan{}).Text(TextOptions{}); got != "Nothing to do: the platform is what the inventory says.\n" {
		t.Error(got)
	}
}

func TestWhatIsAskedCoversWhatIsCompared(t *testing.T) {
	ask := Ask(server("1\n")[0])
	for _, want := range []struct {
		in   []string
		what string
	}{{ask.Contents, "/etc/server.conf"}, {ask.Files, "/etc/server.key"}, {ask.Looks, "/var/lib/server"}, {ask.Units, "server.service"}, {ask.Units, "other.service"}, {ask.Packages, "server"}, {ask.Users, "server"}} {
		if !slices.Contains(want.in, want.what) {
			t.Errorf("%s is not asked for", want.what)
		}
	}
	if slices.Contains(ask.Contents, "/etc/server.key") {
		t.Error("what is in a secret file leaves the machine")
	}
}

func TestResetTakesAwayWhatWasNotedAndNothingElse(t *testing.T) {
	m := fresh()
	parts := append(server("1\n"), &desired.Part{Component: "neighbour", Files: []desired.File{{Path: "/etc/server.list", Content: "shared"}}})
	m.apply(parts[:1], all)
	r := RemovalOf("server", parts[0], parts, m.found, false)
	if slices.Contains(r.Files, "/etc/server.list") || !slices.Contains(r.Files, "/etc/server.conf") || !slices.Contains(r.Units, "server.service") || len(r.Directories) != 0 {
		t.Errorf("%+v", r)
	}
	if r := RemovalOf("server", parts[0], parts, m.found, true); !slices.Equal(r.Directories, []string{"/var/lib/server"}) {
		t.Errorf("%+v", r)
	}
	if r := RemovalOf("neighbour", parts[1], parts, m.found, true); !r.IsEmpty() {
		t.Errorf("what was never there: %+v", r)
	}
}
