package bootstrap

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mi-lb/mi-lb/test/hosts"
)

// datacenters are those of the platform, each with these machines.
var datacenters = []string{"dc1", "dc2"}

var roles = []string{"control-1", "control-2", "control-3", "worker-1", "worker-2", "edge-1"}

// TestPlatform builds a platform of two datacenters on fresh machines, and then does
// to it what happens to platforms. Its parts depend on those before them.
func TestPlatform(t *testing.T) {
	var names []string
	for _, d := range datacenters {
		for _, role := range roles {
			names = append(names, d+"-"+role)
		}
	}
	h := hosts.Start(t, hosts.Spec{Names: names, Packages: packages})
	p := &platform{operator: newOperator(t, h, twoDatacenters(h))}
	for i, part := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"fresh machines become a platform, though the run is killed twice and another one comes", p.build},
		{"a second run finds nothing to do and restarts nothing", p.again},
		{"leaders, quorums, WAN, ACLs, TLS and a container that both edges reach", p.works},
		{"one changed setting restarts what it must, one member at a time, and nobody notices", p.changes},
		{"programs that no member can run are replaced, though no quorum is left", p.lost},
		{"the gossip key is replaced, and nothing restarts", p.gossip},
		{"a held package lock is waited for and named", p.heldLock},
		{"a host that is off stops its own datacenter's steps and nothing else", p.hostOff},
		{"a datacenter without power comes back by itself", p.power},
	} {
		if !t.Run(part.name, func(t *testing.T) {
			defer func(before testing.TB) { p.t = before }(p.t)
			p.t = t
			part.run(t)
		}) && i == 0 {
			return // there is no platform
		}
	}
}

// platform is the one under test, and who operates it.
type platform struct {
	*operator
}

func twoDatacenters(h *hosts.Hosts) string {
	var b strings.Builder
	for _, d := range datacenters {
		fmt.Fprintf(&b, "[dc=%s]\n", d)
		for _, role := range roles {
			fmt.Fprintln(&b, host(h, d+"-"+role))
		}
	}
	for _, role := range []string{"control", "worker", "edge"} {
		fmt.Fprintf(&b, "[role=%s]\n", role)
		for _, m := range h.Machines {
			if strings.Contains(m.Name, role) {
				fmt.Fprintln(&b, m.Name)
			}
		}
	}
	return b.String() + vars(h)
}

// build builds it from nothing. The runs are killed while the first servers and
// while the last programs are installed.
func (p *platform) build(t *testing.T) {
	begun := time.Now()
	p.start("--yes").killAt(`zookeeper +dc.-control-. +working`)
	p.start("--yes").killAt(`consul-server +dc. +working: make the policy`)
	last := p.start("--yes")
	last.until("working")
	p.refused([]string{"--yes"}, "somebody else")
	r := last.wait()
	if r.code != 0 || !strings.Contains(r.stdout, "The platform works.") {
		t.Fatalf("the third run: %s\n%s", r, p.lastLog())
	}
	if !strings.Contains(r.stderr, "was cut off") {
		t.Errorf("it does not say that the last run was cut off: %s", r.stderr)
	}
	t.Logf("built in %s", time.Since(begun).Round(time.Second))
}

func (p *platform) again(t *testing.T) {
	before := p.units(t)
	r := p.must("plan", "--detailed-exitcode")
	if !strings.Contains(r.stdout, "Nothing to do") {
		t.Errorf("the plan says: %s", r)
	}
	t.Logf("planned in %s", r.took.Round(100*time.Millisecond))
	r = p.must("apply", "--yes")
	t.Logf("applied in %s", r.took.Round(100*time.Millisecond))
	if diff := cmp.Diff(before, p.units(t)); diff != "" {
		t.Errorf("units were restarted:\n%s", diff)
	}
}

// unitNames are all units that bootstrap runs.
var unitNames = []string{
	"chrony", "docker", "zookeeper", "consul", "mi-lb-dns", "mesos-master", "mesos-agent", "marathon", "registrator", "mi-lb",
}

// units are the units of all machines that run, by "machine unit": since when, as
// systemd counts.
func (p *platform) units(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, m := range p.hosts.Machines {
		text, err := m.Run(context.Background(), "systemctl show -p Id,ActiveState,InvocationID,NRestarts "+strings.Join(suffixed(unitNames), " "))
		if err != nil {
			t.Fatal(err)
		}
		for block := range strings.SplitSeq(text, "\n\n") {
			values := map[string]string{}
			for line := range strings.SplitSeq(block, "\n") {
				name, value, _ := strings.Cut(line, "=")
				values[name] = value
			}
			if values["ActiveState"] == "active" {
				all[m.Name+" "+values["Id"]] = values["InvocationID"] + " restarts=" + values["NRestarts"]
			}
		}
	}
	return all
}

func suffixed(names []string) []string {
	var all []string
	for _, name := range names {
		all = append(all, name+".service")
	}
	return all
}

// plan is what "bootstrap plan --output json" prints, as far as it matters here.
type plan struct {
	Waves []struct {
		Component string
		Hosts     []struct {
			Node    string
			Changes []struct{ Kind, Name, Why string }
		}
	}
}

// restarts are the units that a plan restarts, by "machine unit", and the components
// that it is about.
func (p *platform) restarts(t *testing.T) (units, components []string) {
	t.Helper()
	r := p.must("plan", "--output", "json")
	var made plan
	if err := json.Unmarshal([]byte(r.stdout), &made); err != nil {
		t.Fatalf("the plan: %v: %s", err, r)
	}
	for _, wave := range made.Waves {
		components = append(components, wave.Component)
		for _, host := range wave.Hosts {
			for _, change := range host.Changes {
				if change.Kind == "restart" {
					units = append(units, host.Node+" "+change.Name)
				}
			}
		}
	}
	slices.Sort(units)
	return units, components
}

// changes changes one setting of each component.
func (p *platform) changes(t *testing.T) {
	probe := p.startProbe(t)
	defer probe.stop()
	for _, c := range []struct {
		component, setting string
		// unit restarts, on machines whose names have the word; empty is none
		unit, on string
	}{
		{"base", "base_journal_size=900M", "", ""},
		{"docker", "docker_log_size=17m", "docker.service", ""},
		{"zookeeper", "zookeeper_sync_limit=6", "zookeeper.service", "control"},
		{"consul-server", `{"consul_config": {"log_json": true}}`, "consul.service", ""},
		{"consul-server", "consul_log_level=debug", "", ""},
		{"dns", fmt.Sprintf(`{"dns_upstream": [%q, "127.0.0.254"]}`, p.hosts.Gateway), "mi-lb-dns.service", ""},
		{"mesos-master", "mesos_cluster=changed", "mesos-master.service", "control"},
		{"marathon", "marathon_framework_name=changed", "marathon.service", "control"},
		{"mesos-agent", `{"mesos_agent_options": {"gc_delay": "3days"}}`, "mesos-agent.service", "worker"},
		{"registrator", "registrator_resync=50", "registrator.service", "worker"},
		{"edge", "edge_maxconn=3000", "mi-lb.service", "edge"},
	} {
		t.Run(c.component, func(t *testing.T) {
			defer func(before testing.TB) { p.t = before }(p.t)
			p.t = t
			p.extra = append(p.extra, "-e", c.setting)
			planned, components := p.restarts(t)
			t.Logf("%s: the plan is about %v and restarts %v", c.setting, components, planned)
			if len(components) == 0 || components[0] != c.component {
				t.Errorf("the plan is about %v; want %s", components, c.component)
			}
			for _, unit := range planned {
				if c.unit == "" || !strings.HasSuffix(unit, " "+c.unit) || !strings.Contains(unit, c.on) {
					t.Errorf("the plan restarts %s", unit)
				}
			}
			before, written := p.units(t), p.journalSize(t)
			probe.reset()
			r := p.must("--yes")
			probe.report(t)
			p.oneAtATime(t, written)
			var restarted []string
			after := p.units(t)
			for unit, since := range after {
				if before[unit] != since {
					restarted = append(restarted, unit)
				}
			}
			slices.Sort(restarted)
			if diff := cmp.Diff(planned, restarted); diff != "" {
				t.Errorf("restarted were others than planned (-planned +restarted):\n%s", diff)
			}
			p.apart(t, restarted)
			t.Logf("applied in %s", r.took.Round(100*time.Millisecond))
		})
	}
	t.Run("nothing is left to do", func(t *testing.T) {
		p.t = t
		p.must("plan", "--detailed-exitcode")
	})
	p.t = t
}

// lost breaks what all members of three quorums run with: ZooKeeper's do not start any
// more, the others run and do not find each other.
func (p *platform) lost(t *testing.T) {
	ctx := context.Background()
	for _, role := range roles[:3] {
		_, err := p.hosts.Machine("dc1-"+role).Run(ctx, `echo nonsense >/etc/mi-lb/zookeeper/zoo.cfg
			sed -i 's/"bind_addr": .*/"bind_addr": "127.0.0.1",/' /etc/mi-lb/consul/consul.json
			sed -i 's/^MESOS_QUORUM=.*/MESOS_QUORUM=5/' /etc/mi-lb/mesos-master/environment
			systemctl --no-block restart zookeeper consul mesos-master`)
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, why := range []string{"no ZooKeeper leads", "Consul has no leader", "0 Mesos masters work"} {
		eventually(t, "the plan says that no quorum is left: "+why, func(context.Context) error {
			r := p.try("plan")
			if !strings.Contains(r.stdout, "all at once: dc1-control-1, dc1-control-2, dc1-control-3, as there is no quorum to protect: "+why) {
				return fmt.Errorf("%s", r)
			}
			return nil
		})
	}
	r := p.must("--yes")
	// ZooKeeper's servers come back by themselves as soon as their file is right.
	for _, said := range []string{
		"there is no state to save: Consul has no leader", "so all members change at once: Consul has no leader",
		// As many as happen to run: without a quorum each ends after a while, and starts again.
		"so all members change at once: [0-3] Mesos masters work, and the quorum is 5", "The platform works[.]",
	} {
		if !regexp.MustCompile(said).MatchString(r.stdout) {
			t.Errorf("it does not say %q: %s", said, r)
		}
	}
	t.Logf("applied in %s", r.took.Round(100*time.Millisecond))
	p.must("plan", "--detailed-exitcode")
}

// gossip changes Consul's gossip key.
func (p *platform) gossip(t *testing.T) {
	before, old := p.units(t), p.secret("consul/gossip-key")
	r := p.must("secrets", "rotate-gossip", "--yes")
	t.Logf("changed in %s", r.took.Round(100*time.Millisecond))
	if diff := cmp.Diff(before, p.units(t)); diff != "" {
		t.Errorf("units were restarted:\n%s", diff)
	}
	now := p.secret("consul/gossip-key")
	var rings []struct {
		Datacenter        string
		WAN               bool
		NumNodes          int
		Keys, PrimaryKeys map[string]int
	}
	client := p.dial(t, p.hosts.Machine("dc2-control-1")).HTTPClient("tcp", "127.0.0.1:8500")
	eventually(t, "all nodes have answered about their keys", func(ctx context.Context) error {
		answer, err := consulAnswer(ctx, client, p.secret("consul/token/management/secret"), http.MethodGet, "/v1/operator/keyring", nil)
		if err == nil {
			decode(t, answer, &rings)
		}
		return err
	})
	for _, ring := range rings {
		if len(ring.Keys) != 1 || ring.Keys[now] != 6 || ring.PrimaryKeys[now] != 6 || ring.NumNodes != 6 {
			t.Errorf("in %s (WAN: %v) keys are %v", ring.Datacenter, ring.WAN, ring.Keys)
		}
	}
	if len(rings) != 3 || now == old {
		t.Errorf("%d rings; the key is another: %v", len(rings), now != old)
	}
	p.must("verify")
	p.must("plan", "--detailed-exitcode")
}

// heldLock has another program hold the package manager's lock.
func (p *platform) heldLock(t *testing.T) {
	m := p.hosts.Machine("dc1-edge-1")
	ctx := context.Background()
	release, err := m.HoldPackageLock(ctx)
	if err != nil {
		t.Fatal(err)
	}
	released := false
	defer func() {
		if !released {
			_ = release(ctx)
		}
	}()
	p.extra = append(p.extra, "-e", `{"base_packages": ["ncal"]}`)
	run := p.start("--yes", "--limit", "dc1-edge-1")
	run.until("lock is held by")
	run.until("perl")
	if err := release(ctx); err != nil {
		t.Fatal(err)
	}
	released = true
	if r := run.wait(); r.code != 0 {
		t.Fatalf("with the lock free again: %s\n%s", r, p.lastLog())
	}
	if _, err := m.Run(ctx, "dpkg -s ncal"); err != nil {
		t.Error(err)
	}
	p.must("--yes")
}

// hostOff runs with a worker of one datacenter off.
func (p *platform) hostOff(t *testing.T) {
	ctx := context.Background()
	off := p.hosts.Machine("dc1-worker-2")
	if err := off.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
	p.extra = append(p.extra, "-e", "edge_maxconn=3500", "-e", "registrator_resync=40")
	r := p.try("--yes")
	if r.code != 1 || !strings.Contains(r.says(), off.Name) || !strings.Contains(r.says(), "not reached") {
		t.Errorf("with %s off: %s", off.Name, r)
	}
	for _, name := range []string{"dc2-edge-1", "dc2-worker-1", "dc2-worker-2"} {
		if _, err := p.hosts.Machine(name).Run(ctx, "grep -rq -e 3500 -e 40 /etc/mi-lb/"); err != nil {
			t.Errorf("%s was not changed: %v", name, err)
		}
	}
	if err := off.PowerOn(ctx); err != nil {
		t.Fatal(err)
	}
	// A run refuses to go on when units come up by themselves between its plan and its
	// beginning.
	if _, err := off.Run(ctx, "systemctl is-system-running --wait >/dev/null; systemctl is-active mesos-agent registrator"); err != nil {
		t.Fatal(err)
	}
	p.must("--yes")
	p.must("plan", "--detailed-exitcode")
}

// power takes the power of a datacenter away and gives it back.
func (p *platform) power(t *testing.T) {
	ctx := context.Background()
	var all []*hosts.Machine
	for _, m := range p.hosts.Machines {
		if strings.HasPrefix(m.Name, "dc1-") {
			all = append(all, m)
		}
	}
	each := func(what func(*hosts.Machine) error) {
		t.Helper()
		failed := make(chan error, len(all))
		for _, m := range all {
			go func() { failed <- what(m) }()
		}
		for range all {
			if err := <-failed; err != nil {
				t.Fatal(err)
			}
		}
	}
	each(func(m *hosts.Machine) error { return m.PowerOff(ctx) })
	// The other one goes on meanwhile.
	eventually(t, "dc2's edge serves what runs in dc2", func(ctx context.Context) error { return p.ask(ctx, "dc2-edge-1", "there.apps.test", "there\n") })
	each(func(m *hosts.Machine) error { return m.PowerOn(ctx) })
	took := eventually(t, "the platform works again", func(context.Context) error {
		if r := p.try("verify"); r.code != 0 {
			return fmt.Errorf("%s", r)
		}
		return nil
	})
	t.Logf("verify is green %s after the power is back", took.Round(time.Second))
	for _, d := range datacenters {
		eventually(t, "the container is reached again", func(ctx context.Context) error { return p.ask(ctx, d+"-edge-1", "here.apps.test", "here\n") })
	}
	p.must("plan", "--detailed-exitcode")
}
