package zookeeper_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/componenttest"
	"github.com/mi-lb/mi-lb/provision/component/zookeeper"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
	"github.com/mi-lb/mi-lb/provision/secrets"
)

// ensemble is a real one on this machine, each server at an address of its own.
type ensemble struct {
	platform  component.Platform
	hosts     componenttest.Hosts
	root      string
	component component.Component
	processes map[string]*componenttest.Process
}

func newEnsemble(t *testing.T, n int, variables string) *ensemble {
	t.Helper()
	if _, err := os.Stat("/usr/share/java/zookeeper.jar"); err != nil {
		t.Fatalf("%v; on Debian: apt-get install --no-install-recommends zookeeper", err)
	}
	root := t.TempDir()
	var addresses []string
	for i := range n {
		addresses = append(addresses, fmt.Sprintf("127.0.7.%d", i+1))
	}
	ports := componenttest.Ports(t, 3, addresses...)
	var b strings.Builder
	b.WriteString("[dc=dc1]\n")
	for i, a := range addresses {
		fmt.Fprintf(&b, "zk%d private_ipv4=%s zookeeper_listen=%s zk_id=%d zookeeper_data_dir=%s/zk%d/data zookeeper_config_dir=%s/zk%d/etc\n",
			i+1, a, a, 10*(i+1), root, i+1, root, i+1)
	}
	fmt.Fprintf(&b, "[zookeeper_servers]\nzk[1:%d]\n[consul_servers]\nzk[1:%d]\n[all:vars]\n", n, n)
	fmt.Fprintf(&b, "zookeeper_client_port=%d\nzookeeper_peer_port=%d\nzookeeper_election_port=%d\n", ports[0], ports[1], ports[2])
	b.WriteString("zookeeper_tick_time=200\nzookeeper_heap=64m\nzookeeper_init_limit=100\nzookeeper_sync_limit=50\n" + variables)
	e := &ensemble{platform: componenttest.Platform(t, b.String()), root: root, component: zookeeper.New(), processes: map[string]*componenttest.Process{}}
	e.hosts = componenttest.Here(t, e.platform)
	return e
}

func (e *ensemble) node(t *testing.T, name string) *cluster.Node {
	t.Helper()
	return componenttest.Node(t, e.platform, name)
}

func (e *ensemble) part(t *testing.T, name string) *desired.Part {
	t.Helper()
	part, problems := e.component.Desired(e.platform, e.node(t, name))
	if len(problems) > 0 {
		t.Fatalf("problems: %+v", problems)
	}
	return part
}

// start installs a server and runs it.
func (e *ensemble) start(t *testing.T, name string) {
	t.Helper()
	part := e.part(t, name)
	componenttest.Install(t, part, e.root)
	e.processes[name] = componenttest.Start(t, part.Units[0])
}

func (e *ensemble) startAll(t *testing.T) {
	t.Helper()
	for _, n := range e.platform.Cluster.Nodes() {
		e.start(t, n.Name)
	}
	e.wait(t)
}

// wait waits until all servers are healthy.
func (e *ensemble) wait(t *testing.T) {
	t.Helper()
	for _, n := range e.platform.Cluster.Nodes() {
		componenttest.Eventually(t, time.Minute, n.Name+" is healthy", func(ctx context.Context) error {
			return e.component.Healthy(ctx, e.platform, n, e.hosts)
		})
	}
}

func (e *ensemble) quorum(t *testing.T) component.Quorum {
	t.Helper()
	q, err := e.component.(component.Quorate).Quorum(t.Context(), e.platform, e.platform.Cluster.Datacenters[0], e.hosts)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func (e *ensemble) pending(t *testing.T) []component.Action {
	t.Helper()
	actions, err := e.component.(component.Configurer).Pending(t.Context(), e.platform, e.platform.Cluster.Datacenters[0], e.hosts)
	if err != nil {
		t.Fatal(err)
	}
	return actions
}

func (e *ensemble) client(t *testing.T, user string) *zk.Conn {
	t.Helper()
	session, _, err := zk.Connect(strings.Split(zookeeper.Servers(e.platform.Cluster.Datacenters[0]), ","), 5*time.Second, zk.WithLogInfo(false), zk.WithLogger(nobody{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(session.Close)
	if user != "" {
		if err := session.AddAuth("digest", []byte(e.platform.Secrets.ZooKeeper("dc1", user).Pair().Reveal())); err != nil {
			t.Fatal(err)
		}
	}
	return session
}

type nobody struct{}

func (nobody) Printf(string, ...any) {}

func ids(actions []component.Action) []string {
	var all []string
	for _, a := range actions {
		all = append(all, a.ID)
	}
	return all
}

func TestAnEnsembleElectsIsConfiguredAndIsLeftAloneThen(t *testing.T) {
	e := newEnsemble(t, 3, "")
	configurer := e.component.(component.Configurer)
	d := e.platform.Cluster.Datacenters[0]
	if _, err := configurer.Pending(t.Context(), e.platform, d, e.hosts); !errors.Is(err, component.ErrNotRunning) {
		t.Errorf("before it runs: %v", err)
	}
	e.start(t, "zk1")
	componenttest.Eventually(t, time.Minute, "one of three has no quorum", func(ctx context.Context) error {
		err := e.component.Healthy(ctx, e.platform, e.node(t, "zk1"), e.hosts)
		if err == nil || !strings.Contains(err.Error(), "no quorum") {
			return fmt.Errorf("%v", err)
		}
		return nil
	})
	if _, err := configurer.Pending(t.Context(), e.platform, d, e.hosts); !errors.Is(err, component.ErrNotRunning) {
		t.Errorf("without quorum: %v", err)
	}
	if q := e.quorum(t); len(q.Serving) != 0 || !strings.Contains(q.Lost, "zk1: it runs and has no quorum") || !strings.Contains(q.Lost, "zk2: ") {
		t.Errorf("one of three: %+v", q)
	}
	e.start(t, "zk2")
	componenttest.Eventually(t, time.Minute, "two of three are a quorum that is not complete", func(ctx context.Context) error {
		err := e.component.Healthy(ctx, e.platform, e.node(t, "zk2"), e.hosts)
		if err == nil || !strings.Contains(err.Error(), "has 1 followers, and should have 2") {
			return fmt.Errorf("%v", err)
		}
		return nil
	})
	if q := e.quorum(t); !slices.Equal(q.Serving, []string{"zk1", "zk2"}) || q.Lost != "" {
		t.Errorf("two of three: %+v", q)
	}
	e.start(t, "zk3")
	e.wait(t)

	actions := e.pending(t)
	want := []string{"znode/mesos", "znode/marathon", "acl/root"}
	if got := ids(actions); !slices.Equal(got, want) {
		t.Errorf("pending: %v", got)
	}
	if got := ids(configurer.Expected(e.platform, d)); !slices.Equal(got, want) {
		t.Errorf("expected: %v", got)
	}
	for _, a := range actions {
		for range 2 { // doing it again is safe
			if err := a.Do(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := ids(e.pending(t)); len(got) != 0 {
		t.Errorf("pending after it was done: %v", got)
	}

	everybody := zk.WorldACL(zk.PermAll)
	mesos, marathon, anonymous := e.client(t, secrets.ZooKeeperMesos), e.client(t, secrets.ZooKeeperMarathon), e.client(t, "")
	for _, c := range []struct {
		what string
		try  func() error
		want error
	}{
		{"mesos makes below /mesos", func() error { _, err := mesos.Create("/mesos/x", nil, 0, everybody); return err }, nil},
		{"marathon makes below /marathon", func() error { _, err := marathon.Create("/marathon/x", nil, 0, everybody); return err }, nil},
		{"marathon makes below /mesos", func() error { _, err := marathon.Create("/mesos/y", nil, 0, everybody); return err }, zk.ErrNoAuth},
		{"mesos makes below /marathon", func() error { _, err := mesos.Create("/marathon/y", nil, 0, everybody); return err }, zk.ErrNoAuth},
		{"anonymous makes below /", func() error { _, err := anonymous.Create("/evil", nil, 0, everybody); return err }, zk.ErrNoAuth},
		{"anonymous lists /mesos", func() error { _, _, err := anonymous.Children("/mesos"); return err }, nil},
		{"anonymous lists /marathon", func() error { _, _, err := anonymous.Children("/marathon"); return err }, zk.ErrNoAuth},
		{"anonymous deletes /marathon", func() error { return anonymous.Delete("/marathon", -1) }, zk.ErrNoAuth},
		{"mesos opens /mesos for everybody", func() error { _, err := mesos.SetACL("/mesos", everybody, -1); return err }, nil},
		{"mesos opens the root for everybody ", func() error { _, err := mesos.SetACL("/", everybody, -1); return err }, zk.ErrNoAuth},
	} {
		if err := c.try(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
	if got := ids(e.pending(t)); !slices.Equal(got, []string{"znode/mesos"}) {
		t.Errorf("pending after it was opened: %v", got)
	}

	for _, n := range e.platform.Cluster.Nodes() {
		part := e.part(t, n.Name)
		if changed := componenttest.Install(t, part, e.root); len(changed) != 0 {
			t.Errorf("%s: installed again, %v changes", n.Name, changed)
		}
	}
}

func TestServersAreRestartedLeaderLastAndNeverBelowTheQuorum(t *testing.T) {
	e := newEnsemble(t, 3, "")
	e.startAll(t)
	roller := e.component.(component.Roller)
	nodes := e.platform.Cluster.Nodes()
	order, err := roller.Order(t.Context(), e.platform, nodes, e.hosts)
	if err != nil || len(order) != 3 {
		t.Fatalf("%v, %v", order, err)
	}
	session := e.client(t, "")
	writer := e.client(t, secrets.ZooKeeperSuper)
	for i, n := range order {
		if err := roller.BeforeRestart(t.Context(), e.platform, n, e.hosts); err != nil {
			t.Fatalf("restart number %d: %v", i+1, err)
		}
		e.processes[n.Name].Stop()
		if i == 0 {
			// One is down: no other may go.
			for _, other := range order[1:] {
				componenttest.Eventually(t, time.Minute, "no restart without a quorum", func(ctx context.Context) error {
					if err := roller.BeforeRestart(ctx, e.platform, other, e.hosts); err == nil || !strings.Contains(err.Error(), "2 are needed") {
						return fmt.Errorf("%s: %v", other.Name, err)
					}
					return nil
				})
			}
			if err := roller.BeforeRestart(t.Context(), e.platform, n, e.hosts); err != nil {
				t.Errorf("what is down may be restarted: %v", err)
			}
			again, err := roller.Order(t.Context(), e.platform, nodes, e.hosts)
			if err != nil || again[0] != n || again[2] != order[2] {
				t.Errorf("order while %s is down: %v, %v", n.Name, names(again), err)
			}
		}
		e.start(t, n.Name)
		e.wait(t)
		componenttest.Eventually(t, time.Minute, "it can be written to", func(context.Context) error {
			_, err := writer.Create(fmt.Sprintf("/probe%d", i), nil, 0, zk.WorldACL(zk.PermAll))
			if errors.Is(err, zk.ErrNodeExists) {
				return nil
			}
			return err
		})
	}
	componenttest.Eventually(t, time.Minute, "nothing is lost", func(context.Context) error {
		children, _, err := session.Children("/")
		if err == nil && len(children) < 4 {
			err = fmt.Errorf("%v", children)
		}
		return err
	})
	if last, _ := roller.Order(t.Context(), e.platform, nodes, e.hosts); last[2] == order[2] {
		t.Errorf("%s was the leader, was restarted last, and still leads", last[2].Name)
	}
}

func names(nodes []*cluster.Node) []string {
	var all []string
	for _, n := range nodes {
		all = append(all, n.Name)
	}
	return all
}

func TestAServerThatLostItsDataTakesItFromTheOthers(t *testing.T) {
	e := newEnsemble(t, 3, "")
	e.startAll(t)
	super := e.client(t, secrets.ZooKeeperSuper)
	if _, err := super.Create("/kept", nil, 0, zk.WorldACL(zk.PermAll)); err != nil {
		t.Fatal(err)
	}
	e.processes["zk1"].Kill()
	if err := os.RemoveAll(e.root + "/zk1/data"); err != nil {
		t.Fatal(err)
	}
	// What is found then: two machines with data, one without.
	for _, name := range []string{"zk2", "zk3"} {
		e.platform.Facts[name].Files[e.root+"/"+name+"/data/version-2"] = facts.File{Directory: true}
	}
	for _, f := range e.part(t, "zk1").Files {
		if strings.HasSuffix(f.Path, "/initialize") {
			t.Error("it is told to begin with nothing")
		}
	}
	e.start(t, "zk1")
	e.wait(t)
	own, _, err := zk.Connect(strings.Split(zookeeper.Servers(e.platform.Cluster.Datacenters[0]), ",")[:1], 5*time.Second, zk.WithLogInfo(false), zk.WithLogger(nobody{}))
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if ok, _, err := own.Exists("/kept"); !ok || err != nil {
		t.Errorf("what was there: %v, %v", ok, err)
	}
}

func TestASingleServerWorks(t *testing.T) {
	e := newEnsemble(t, 1, "zookeeper_enforce_auth=yes\nzookeeper_txn_dir=/nowhere\n")
	if p := e.part(t, "zk1"); !slices.ContainsFunc(p.Files, func(f desired.File) bool { return f.Path == "/nowhere/initialize" }) {
		t.Error("the file for the first start is not beside the log")
	}
	e = newEnsemble(t, 1, "zookeeper_enforce_auth=yes\n")
	e.startAll(t)
	for _, a := range e.pending(t) {
		if err := a.Do(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := ids(e.pending(t)); len(got) != 0 {
		t.Errorf("pending: %v", got)
	}
	if err := e.component.(component.Roller).BeforeRestart(t.Context(), e.platform, e.node(t, "zk1"), e.hosts); err != nil {
		t.Errorf("it may be restarted: %v", err)
	}
}
