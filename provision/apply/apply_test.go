package apply

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/fleet"
	"github.com/mi-lb/mi-lb/provision/inventory"
	"github.com/mi-lb/mi-lb/provision/preflight"
	"github.com/mi-lb/mi-lb/provision/secrets"
	"github.com/mi-lb/mi-lb/provision/ssh"
	"github.com/mi-lb/mi-lb/provision/survey"
	"github.com/mi-lb/mi-lb/test/hosts"
)

// thing is a component with members of which one at a time may restart. A machine
// is healthy when the unit runs with what the file has now.
type thing struct {
	name   string
	change func(n *cluster.Node, p *desired.Part)
	broken map[string]string // why a node is not healthy
	absent []string          // nodes that do not have it

	mu       sync.Mutex
	restarts []string
	overlaps []string
}

func (c *thing) Name() string                   { return c.name }
func (*thing) Variables() []cluster.VariableDoc { return nil }
func (c *thing) On(n *cluster.Node) bool {
	return n.Has(cluster.ConsulServer) && !slices.Contains(c.absent, n.Name)
}

func (c *thing) path(file string) string { return "/etc/" + c.name + "/" + file }
func (c *thing) unit() string            { return c.name + ".service" }

func (c *thing) Desired(_ component.Platform, n *cluster.Node) (*desired.Part, []component.Problem) {
	p := &desired.Part{
		Component:   c.name,
		Directories: []desired.Directory{{Path: "/etc/" + c.name, Mode: 0o755, Owner: "root:root"}},
		Files:       []desired.File{{Path: c.path("conf"), Mode: 0o644, Owner: "root:root", Content: "1\n", Restarts: []string{c.unit()}}},
		Units: []desired.Unit{{
			Name: c.unit(), State: desired.Running, Quorum: true,
			Content: fmt.Sprintf("[Service]\nExecStartPre=/bin/sh -c 'cp %s /run/%s'\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n", c.path("conf"), c.name),
		}},
	}
	if c.change != nil {
		c.change(n, p)
	}
	return p, nil
}

func (c *thing) Healthy(ctx context.Context, _ component.Platform, n *cluster.Node, a component.Access) error {
	if why := c.broken[n.Name]; why != "" {
		return errors.New(why)
	}
	host, err := a.Host(n.Name)
	if err != nil {
		return err
	}
	_, err = host.Run(ctx, ssh.Command{Line: fmt.Sprintf("systemctl is-active --quiet %s && cmp %s /run/%s", c.unit(), c.path("conf"), c.name)})
	return err
}

// rolling is a thing whose last member leads.
type rolling struct{ *thing }

func (c rolling) Order(_ context.Context, _ component.Platform, nodes []*cluster.Node, _ component.Access) ([]*cluster.Node, error) {
	sorted := slices.Clone(nodes)
	slices.Reverse(sorted)
	return sorted, nil
}

func (c rolling) BeforeRestart(ctx context.Context, p component.Platform, n *cluster.Node, a component.Access) error {
	c.mu.Lock()
	c.restarts = append(c.restarts, n.Name)
	c.mu.Unlock()
	d, _ := p.Cluster.Datacenter(n.Datacenter)
	for _, other := range d.Nodes {
		host, err := a.Host(other.Name)
		if err != nil {
			return err
		}
		if _, err := host.Run(ctx, ssh.Command{Line: "systemctl is-active --quiet " + c.unit()}); err != nil {
			c.mu.Lock()
			c.overlaps = append(c.overlaps, other.Name+" is down before "+n.Name+" restarts")
			c.mu.Unlock()
		}
	}
	return nil
}

func (rolling) AfterRestart(context.Context, component.Platform, *cluster.Node, component.Access) error {
	return nil
}

// site is machines, and what it takes to change them.
type site struct {
	t     *testing.T
	hosts *hosts.Hosts
	extra string // of the inventory

	mu     sync.Mutex
	events []Event
}

func (s *site) survey(components ...component.Component) (*survey.Survey, *fleet.Fleet) {
	s.t.Helper()
	var b strings.Builder
	for _, m := range s.hosts.Machines {
		fmt.Fprintf(&b, "%s ansible_host=%s ansible_user=%s ansible_ssh_private_key_file=%s\n", m.Name, m.Address, hosts.Admin, s.hosts.KeyFile)
	}
	b.WriteString("[consul_servers]\na1\na2\na3\nb1\n[dc1]\na1\na2\na3\n[dc2]\nb1\n" + s.extra)
	file := filepath.Join(s.t.TempDir(), "inventory")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		s.t.Fatal(err)
	}
	inv, err := inventory.Load(s.t.Context(), inventory.Options{Sources: []string{file}})
	if err != nil {
		s.t.Fatal(err)
	}
	built := cluster.Build(inv, cluster.State{})
	if built.Cluster == nil {
		s.t.Fatal(built.Refused())
	}
	dialer := ssh.NewDialer(ssh.Options{KnownHosts: s.hosts.KnownHosts, ConfigFile: "none", AgentSocket: "none", DialTimeout: 5 * time.Second})
	s.t.Cleanup(func() { dialer.Close() })
	f := fleet.New(dialer, built.Cluster.Nodes())
	f.Connect(s.t.Context(), 10)
	bundle := secrets.New()
	found, err := survey.Look(s.t.Context(), survey.Options{
		Components: components, Cluster: built.Cluster, Fleet: f,
		Secrets: func(c *cluster.Cluster) (*secrets.Bundle, error) {
			_, err := bundle.Ensure(c, time.Now())
			return bundle, err
		},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return found, f
}

// run applies components and returns what came of it.
func (s *site) run(change func(*Options), components ...component.Component) *Outcome {
	s.t.Helper()
	found, f := s.survey(components...)
	s.events = nil
	o := Options{Survey: found, Fleet: f, Components: components, Patience: 30 * time.Second, Cache: s.t.TempDir(), Report: func(e Event) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = append(s.events, e)
	}}
	if change != nil {
		change(&o)
	}
	outcome, err := Run(s.t.Context(), o)
	if err != nil {
		s.t.Fatal(err)
	}
	return outcome
}

// must applies components, which must succeed and leave nothing to do.
func (s *site) must(components ...component.Component) *Outcome {
	s.t.Helper()
	outcome := s.run(nil, components...)
	if len(outcome.Failures)+len(outcome.Left) > 0 {
		s.t.Fatalf("%+v", outcome)
	}
	found, _ := s.survey(components...)
	p, err := found.Plan(s.t.Context(), survey.Scope{}, func(s string) string { return s })
	if err != nil || !p.IsEmpty() {
		s.t.Fatalf("something is left to do: %v\n%+v", err, p.Waves)
	}
	return outcome
}

func (s *site) on(machine, line string) string {
	s.t.Helper()
	out, err := s.hosts.Machine(machine).Run(s.t.Context(), line)
	if err != nil {
		s.t.Fatalf("%s: %s: %v", machine, line, err)
	}
	return out
}

func (s *site) failure(o *Outcome, node string) string {
	s.t.Helper()
	for _, f := range o.Failures {
		if f.Node == node {
			return f.Message
		}
	}
	s.t.Fatalf("%s did not fail: %+v", node, o)
	return ""
}

func contains(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q does not have %q", text, w)
		}
	}
}

func content(text string) func(*cluster.Node, *desired.Part) {
	return func(_ *cluster.Node, p *desired.Part) { p.Files[0].Content = text }
}

func TestApply(t *testing.T) {
	s := &site{hosts: hosts.Start(t, hosts.Spec{Names: []string{"a1", "a2", "a3", "b1"}})}
	for _, test := range []struct {
		name string
		run  func(*testing.T, *site)
	}{
		{"everything is made, and then nothing", freshThenNothing},
		{"members restart one at a time, the leader last", oneAtATime},
		{"a member that died is started before others restart", deadFirst},
		{"no other restarts when one does not come back", noneAfterFailure},
		{"where no quorum is left, all change at once", lostQuorum},
		{"nothing restarts whose state cannot be saved", unsaved},
		{"members that do not take part are changed before those that do", idleFirst},
		{"new members join those that run", growth},
		{"a file that is not good does not take its place", badFile},
		{"a unit that does not start says why", badUnit},
		{"a stop is for after the step", stopAfterStep},
		{"programs come from files, archives and URLs", programs},
		{"packages wait for the lock and say who has it", packageLock},
		{"a full disk leaves what was there", fullDisk},
		{"the lock is one's own", oneLock},
		{"ports are tried both ways", reach},
		{"a machine that is gone stops its own datacenter only", unreachable},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.t = t
			test.run(t, s)
		})
	}
}

func freshThenNothing(t *testing.T, s *site) {
	c := rolling{&thing{name: "thing"}}
	o := s.must(c)
	if o.Restarts != 0 || len(c.restarts) != 0 {
		t.Errorf("something was restarted: %+v %v", o, c.restarts)
	}
	since := s.on("a1", "systemctl show -p ActiveEnterTimestampMonotonic thing.service")
	if o := s.must(c); o.Changes != 0 {
		t.Errorf("again: %+v", o)
	}
	if again := s.on("a1", "systemctl show -p ActiveEnterTimestampMonotonic thing.service"); again != since {
		t.Errorf("it was restarted: %s, %s", since, again)
	}
}

func oneAtATime(t *testing.T, s *site) {
	c := rolling{&thing{name: "thing", change: content("2\n")}}
	o := s.must(c)
	inFirst := slices.DeleteFunc(slices.Clone(c.restarts), func(n string) bool { return n == "b1" })
	if o.Restarts != 4 || !slices.Equal(inFirst, []string{"a3", "a2", "a1"}) || len(c.overlaps) > 0 {
		t.Errorf("%+v %v %v", o, c.restarts, c.overlaps)
	}
}

func deadFirst(t *testing.T, s *site) {
	s.on("a1", "systemctl kill -s KILL thing.service; systemctl stop thing.service")
	c := rolling{&thing{name: "thing", change: content("3\n")}}
	s.must(c)
	if len(c.overlaps) > 0 || slices.Contains(c.restarts, "a1") {
		t.Errorf("%v %v", c.restarts, c.overlaps)
	}
}

func noneAfterFailure(t *testing.T, s *site) {
	c := rolling{&thing{name: "thing", change: content("4\n"), broken: map[string]string{"a3": "it lost its mind"}}}
	o := s.run(func(o *Options) { o.Patience = 3 * time.Second }, c)
	contains(t, s.failure(o, "a3"), "it lost its mind", "within 3s")
	if slices.Contains(c.restarts, "a2") || slices.Contains(c.restarts, "a1") || !slices.Contains(c.restarts, "b1") {
		t.Errorf("restarted: %v", c.restarts)
	}
	if len(o.Left) != 1 || !strings.Contains(o.Left[0], "a2, a1") {
		t.Errorf("left: %q", o.Left)
	}
	// The next run completes it: those that did not restart, although the file is
	// written already.
	c = rolling{&thing{name: "thing", change: content("4\n")}}
	if o := s.must(c); o.Restarts != 2 {
		t.Errorf("%+v", o)
	}
}

func badFile(t *testing.T, s *site) {
	c := &thing{name: "thing", change: func(_ *cluster.Node, p *desired.Part) {
		p.Files[0].Content, p.Files[0].Check = "bad\n", "! grep bad %s >&2"
	}}
	o := s.run(nil, c)
	contains(t, s.failure(o, "b1"), "/etc/thing/conf is not replaced", "bad")
	if got := s.on("b1", "cat /etc/thing/conf; ls -A /etc/thing"); got != "4\nconf" {
		t.Errorf("%q", got)
	}
	s.must(&thing{name: "thing", change: content("4\n")})
}

func badUnit(t *testing.T, s *site) {
	c := &thing{name: "grumpy", change: func(_ *cluster.Node, p *desired.Part) {
		p.Units[0].Content = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c 'echo I will not >&2; exit 3'\n[Install]\nWantedBy=multi-user.target\n"
	}}
	contains(t, s.failure(s.run(nil, c), "a1"), "systemctl restart", "ended with 1", "journal", "I will not")
	s.must(&thing{name: "grumpy"})
}

func stopAfterStep(t *testing.T, s *site) {
	c := rolling{&thing{name: "thing", change: content("5\n")}}
	stop := make(chan struct{})
	o := s.run(func(o *Options) {
		o.Scope = survey.Scope{Nodes: []string{"a1", "a2", "a3"}}
		o.Stop = stop
		report, once := o.Report, sync.Once{}
		o.Report = func(e Event) {
			report(e)
			if strings.HasPrefix(e.Step, "restarts") {
				once.Do(func() { close(stop) })
			}
		}
	}, c)
	if !o.Stopped || len(o.Failures) != 0 || len(o.Left) == 0 || !slices.Equal(c.restarts, []string{"a3"}) {
		t.Errorf("%+v %v", o, c.restarts)
	}
	if err := c.Healthy(t.Context(), component.Platform{}, &cluster.Node{Name: "a3"}, func() *fleet.Fleet { _, f := s.survey(c); return f }()); err != nil {
		t.Errorf("the step was not finished: %v", err)
	}
	s.must(rolling{&thing{name: "thing", change: content("5\n")}})
}

func sum(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

func programs(t *testing.T, s *site) {
	directory := t.TempDir()
	write := func(name string, data []byte) string {
		file := filepath.Join(directory, name)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	var zipped bytes.Buffer
	z := zip.NewWriter(&zipped)
	for name, text := range map[string]string{"dist/LICENSE": "free", "dist/bin/tool": "#!/bin/sh\necho tool\n"} {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(w, text)
	}
	z.Close()
	var tarred bytes.Buffer
	compressed := gzip.NewWriter(&tarred)
	tw := tar.NewWriter(compressed)
	for _, f := range []struct {
		name, text, link string
		mode             int64
	}{{"top/", "", "", 0o755}, {"top/run.sh", "#!/bin/sh\necho run\n", "", 0o755}, {"top/lib/", "", "", 0o755}, {"top/lib/it's", "x", "", 0o644}, {"top/go", "", "run.sh", 0o777}} {
		h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.text)), Typeflag: tar.TypeReg, Linkname: f.link, Uid: 1234}
		if strings.HasSuffix(f.name, "/") {
			h.Typeflag = tar.TypeDir
		} else if f.link != "" {
			h.Typeflag = tar.TypeSymlink
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(tw, f.text)
	}
	tw.Close()
	compressed.Close()
	plain := []byte("#!/bin/sh\necho plain\n")
	l, err := net.Listen("tcp", net.JoinHostPort(s.hosts.Gateway.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.FileServer(http.Dir(directory)), ReadHeaderTimeout: time.Minute}
	go server.Serve(l) // until Close
	defer server.Close()
	write("plain", plain)
	write("tree.tar.gz", tarred.Bytes())
	url := "http://" + l.Addr().String() + "/"
	with := func(programs ...desired.Program) *thing {
		return &thing{name: "thing", change: func(_ *cluster.Node, p *desired.Part) {
			p.Files[0].Content = "5\n"
			for _, x := range programs {
				x.Mode = 0o755
				p.Programs = append(p.Programs, x)
			}
		}}
	}
	c := with(
		desired.Program{Path: "/opt/test/bin/file", Artefact: cluster.Artefact{File: write("file", []byte("#!/bin/sh\necho file\n"))}},
		desired.Program{Path: "/opt/test/bin/member", Member: "tool", Artefact: cluster.Artefact{File: write("x.zip", zipped.Bytes())}},
		desired.Program{Path: "/opt/test/bin/url", Artefact: cluster.Artefact{URL: url + "plain", SHA256: sum(plain)}},
		desired.Program{Path: "/opt/test/tree", Tree: true, Artefact: cluster.Artefact{URL: url + "tree.tar.gz", SHA256: sum(tarred.Bytes())}},
	)
	s.must(c)
	if got := s.on("a2", "cd /opt/test; bin/file; bin/member; bin/url; tree/go; stat -c '%U %a' bin/url tree/run.sh; cat \"tree/lib/it's\""); got != "file\ntool\nplain\nrun\nroot 755\nroot 755\nx" {
		t.Errorf("%q", got)
	}
	// Somebody puts another in its place.
	s.on("a2", "echo other >/opt/test/bin/file")
	if o := s.must(c); o.Changes != 1 {
		t.Errorf("%+v", o)
	}
	bad := with(desired.Program{Path: "/opt/test/bin/url", Artefact: cluster.Artefact{URL: url + "plain", SHA256: sum([]byte("x"))}})
	contains(t, s.failure(s.run(nil, bad), "a1"), "checksum", sum(plain))
	missing := with(desired.Program{Path: "/opt/test/bin/url", Artefact: cluster.Artefact{URL: url + "missing", SHA256: sum([]byte("y"))}})
	contains(t, s.failure(s.run(nil, missing), "a1"), "404", url+"missing")
	if got := s.on("a1", "/opt/test/bin/url; ls -A /opt/test/bin"); got != "plain\nfile\nmember\nurl" {
		t.Errorf("%q", got)
	}
}

func packageLock(t *testing.T, s *site) {
	c := &thing{name: "thing", change: func(_ *cluster.Node, p *desired.Part) {
		p.Files[0].Content = "5\n"
		p.Packages = []desired.Package{{Name: "sl"}}
	}}
	m := s.hosts.Machine("b1")
	release, err := m.HoldPackageLock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer release(context.WithoutCancel(t.Context()))
	o := s.run(func(o *Options) { o.Patience = 3 * time.Second; o.Scope.Nodes = []string{"b1"} }, c)
	contains(t, s.failure(o, "b1"), "lock", "held by", "pid", "3s")
	if err := release(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.must(c)
	if got := s.on("b1", "cat /usr/sbin/policy-rc.d 2>&1 || true"); strings.Contains(got, "by mi-lb") {
		t.Errorf("policy-rc.d is left behind: %s", got)
	}
	// A package that does not exist.
	c = &thing{name: "thing", change: func(_ *cluster.Node, p *desired.Part) {
		p.Files[0].Content = "5\n"
		p.Packages = []desired.Package{{Name: "no-such-package"}}
	}}
	contains(t, s.failure(s.run(nil, c), "a1"), "no-such-package", "Unable to locate")
}

func fullDisk(t *testing.T, s *site) {
	m := s.hosts.Machine("b1")
	if err := m.FillDisk(t.Context(), "/etc/thing", 64<<10); err != nil {
		t.Fatal(err)
	}
	defer m.FreeDisk(context.WithoutCancel(t.Context()), "/etc/thing")
	c := &thing{name: "thing", change: content(strings.Repeat("much\n", 100_000))}
	o := s.run(func(o *Options) { o.Scope.Nodes = []string{"b1"} }, c)
	contains(t, s.failure(o, "b1"), "/etc/thing/conf", "No space left")
	if got := s.on("b1", "cat /etc/thing/conf; ls -A /etc/thing | grep mi-lb || true"); got != "5" {
		t.Errorf("%q", got)
	}
	if err := m.FreeDisk(t.Context(), "/etc/thing"); err != nil {
		t.Fatal(err)
	}
	s.must(&thing{name: "thing", change: content("5\n")})
}

func oneLock(t *testing.T, s *site) {
	_, f := s.survey(&thing{name: "thing"})
	var machines []fleet.Machine
	for _, m := range s.hosts.Machines {
		machine, err := f.Machine(m.Name)
		if err != nil {
			t.Fatal(err)
		}
		machines = append(machines, machine)
	}
	owner := func(who string) Owner { return Owner{ID: who, Who: who, Since: time.Now(), Command: "test"} }
	first, working, err := Acquire(t.Context(), machines, owner("first"), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Acquire(t.Context(), machines, owner("second"), ""); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "held by first") {
		t.Errorf("the second: %v", err)
	}
	if err := working.Err(); err != nil {
		t.Errorf("the first lost it: %v", err)
	}
	first.Release()
	// An owner that gave no sign of life for long.
	s.on("a1", "touch -d '-10 minutes' "+LockFile+"; echo '{\"who\":\"ghost\"}' >"+LockFile+"; touch -d '-10 minutes' "+LockFile)
	third, working, err := Acquire(t.Context(), machines, owner("third"), "")
	if err != nil {
		t.Fatal(err)
	}
	// Another has taken it: the run ends.
	s.on("a2", "echo '{\"who\":\"thief\"}' >"+LockFile)
	select {
	case <-working.Done():
		if !errors.Is(context.Cause(working), ErrLockLost) || !strings.Contains(context.Cause(working).Error(), "thief") {
			t.Error(context.Cause(working))
		}
	case <-time.After(time.Minute):
		t.Error("nobody noticed that the lock was taken over")
	}
	third.Release()
	s.on("a2", "rm "+LockFile)
	for _, m := range s.hosts.Machines {
		if got := s.on(m.Name, "ls "+LockFile+" 2>&1 || true"); !strings.Contains(got, "No such file") {
			t.Errorf("%s still has the lock: %s", m.Name, got)
		}
	}
}

func reach(t *testing.T, s *site) {
	found, f := s.survey(&thing{name: "thing"})
	if problems := preflight.Reach(t.Context(), found.Platform(), f); len(problems) > 0 {
		t.Errorf("%v", problems)
	}
	s.on("a1", "apt-get install -y -q iptables >/dev/null 2>&1; iptables -I INPUT -p tcp --dport 8300 -s "+s.hosts.Machine("b1").Address.String()+" -j REJECT")
	defer s.on("a1", "iptables -F INPUT")
	problems := preflight.Reach(t.Context(), found.Platform(), f)
	if len(problems) != 1 || problems[0].Node != "b1" || !problems[0].Fatal || problems[0].Code != "port-unreachable" {
		t.Fatalf("%+v", problems)
	}
	contains(t, problems[0].Message, "a1", ":8300", "refused")
	if got := s.on("a2", "ps ax | grep -c '[s]ystemd-socket-activate' || true"); got != "0" {
		t.Errorf("%s listeners are left", got)
	}
}

func unreachable(t *testing.T, s *site) {
	if err := s.hosts.Machine("a2").CutOff(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.hosts.Machine("a2").Reconnect(context.WithoutCancel(t.Context()))
	c := rolling{&thing{name: "thing", change: content("6\n")}}
	o := s.run(nil, c)
	contains(t, s.failure(o, "a2"), "10.")
	if !slices.Equal(c.restarts, []string{"b1"}) || len(o.Failures) != 1 || len(o.Left) != 1 {
		t.Errorf("%v %+v", c.restarts, o)
	}
	if got := s.on("a1", "cat /etc/thing/conf"); got != "5" {
		t.Errorf("a machine of the same datacenter was changed: %q", got)
	}
	if err := s.hosts.Machine("a2").Reconnect(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.must(rolling{&thing{name: "thing", change: content("6\n")}})
}
