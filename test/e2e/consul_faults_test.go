package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/test/edge"
)

func TestTrafficGoesOnWhileTheConsulAgentCannotBeReached(t *testing.T) {
	t.Parallel()
	agent := startConsul(t, consul.Options{})
	e, one, _, load := webUnderLoad(t, agent, consulURL(agent))

	agent.Kill()
	waitStale(t, e, "consul/dc1", "refused")
	load.WaitServedBy("one", "two")
	if err := agent.Restart(testContext(t), false); err != nil {
		t.Fatal(err)
	}
	if err := agent.WaitLeader(testContext(t)); err != nil {
		t.Fatal(err)
	}
	waitCurrent(t, e, "consul/dc1")

	// One that hangs does not even refuse.
	if err := agent.Pause(); err != nil {
		t.Fatal(err)
	}
	waitStale(t, e, "consul/dc1", "")
	load.WaitServedBy("one", "two")
	if err := agent.Resume(); err != nil {
		t.Fatal(err)
	}
	waitCurrent(t, e, "consul/dc1")
	setHealth(t, agent, one, api.HealthCritical)
	load.WaitServedBy("two")
	load.Stop()
	if n := e.Reloads(); n != 0 {
		t.Errorf("%d reloads", n)
	}
}

func TestTrafficGoesOnWhileConsulHasNoLeader(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	pair := map[string]any{"bootstrap": false, "bootstrap_expect": 2}
	agent, err := consul.Start(ctx, consul.Options{Config: pair})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(agent.Stop)
	other, err := consul.Start(ctx, consul.Options{Config: pair, Node: "other", Join: []string{agent.SerfLAN()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Stop)
	if err := agent.WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	e, one, _, load := webUnderLoad(t, agent, consulURL(agent))

	other.Kill()
	waitStale(t, e, "consul/dc1", "no leader")
	setHealth(t, agent, one, api.HealthCritical) // Consul hears of it when it can
	load.WaitServedBy("one", "two")
	if err := other.Restart(testContext(t), false); err != nil {
		t.Fatal(err)
	}
	load.WaitServedBy("two")
	waitCurrent(t, e, "consul/dc1")
	load.Stop()
}

func TestTrafficGoesOnWhenConsulComesBackEmpty(t *testing.T) {
	t.Parallel()
	agent := startConsul(t, consul.Options{})
	e, one, two, load := webUnderLoad(t, agent, consulURL(agent))

	if err := agent.Restart(testContext(t), true); err != nil {
		t.Fatal(err)
	}
	if err := agent.WaitLeader(testContext(t)); err != nil {
		t.Fatal(err)
	}
	waitStale(t, e, "consul/dc1", "2 of 3 instances are missing")
	if held := e.Metric("mi_lb_source_held_instances", "source", "consul/dc1"); held != 2 {
		t.Errorf("%v instances are held", held)
	}
	load.WaitServedBy("one", "two")

	// A restart of mi-lb in such a moment believes the emptiness no sooner.
	e.HandOver()
	e.Start()
	e.WaitReady()
	waitStale(t, e, "consul/dc1", "2 of 3 instances are missing")
	load.WaitServedBy("one", "two")

	register(t, agent, "web", one)
	register(t, agent, "web", two)
	waitCurrent(t, e, "consul/dc1")
	// From here on an instance that leaves, leaves.
	deregister(t, agent, one)
	load.WaitServedBy("two")
	load.Stop()
}

func TestTrafficGoesOnWhenConsulIsRestoredToAnEarlierState(t *testing.T) {
	t.Parallel()
	agent := startConsul(t, consul.Options{})
	e, one, _, load := webUnderLoad(t, agent, consulURL(agent))
	snapshot, _, err := agent.Client().Snapshot().Save(nil)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(snapshot)
	snapshot.Close()
	if err != nil {
		t.Fatal(err)
	}
	// Straight into the catalog: no agent puts it there again.
	three := edge.StartBackend(t, "three")
	registerThree := func() {
		t.Helper()
		if err := agent.Register(testContext(t), &api.CatalogRegistration{
			Node: "elsewhere", Address: "127.0.0.1",
			Service: &api.AgentService{ID: "three", Service: "web", Port: three.Port},
		}); err != nil {
			t.Fatal(err)
		}
	}
	registerThree()
	load.WaitServedBy("one", "three", "two")

	if err := agent.Client().Snapshot().Restore(nil, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	waitStale(t, e, "consul/dc1", "index went backwards")
	load.WaitServedBy("one", "three", "two")
	registerThree()
	waitCurrent(t, e, "consul/dc1")
	setHealth(t, agent, one, api.HealthCritical)
	load.WaitServedBy("three", "two")
	load.Stop()
}

func TestTrafficGoesOnWhateverConsulAnswers(t *testing.T) {
	t.Parallel()
	agent := startConsul(t, consul.Options{})
	p := startProxy(t, agent)
	e, one, two, load := webUnderLoad(t, agent, p.URL)
	for _, bad := range []struct {
		name string
		fault
		says string
	}{
		{"403", refuse(403, "Permission denied: token lacks permission 'service:read'"), "denies access"},
		{"429", refuse(429, "Your IP is issuing too many concurrent connections, please rate limit your calls"), "429"},
		{"500", refuse(500, "rpc error making call: EOF"), "answered 500"},
		{"500 of one without a leader", refuse(500, "No cluster leader"), "no leader"},
		{"truncated", garble(func(string) string { return `[{"Node":{"Node":"n1"` }, ""), "unexpected EOF"},
		{"no JSON", garble(func(string) string { return "<html>" }, ""), "invalid character"},
		{"an index that goes backwards, and nothing", garble(empty, "2"), ""},
	} {
		t.Run(bad.name, func(t *testing.T) {
			p.set(bad.fault)
			p.CloseClientConnections()
			setHealth(t, agent, one, api.HealthCritical)
			wake(t, agent, two)
			waitStale(t, e, "consul/dc1", bad.says)
			load.WaitServedBy("one", "two")
			p.set(fault{})
			load.WaitServedBy("two")
			setHealth(t, agent, one, api.HealthPassing)
			load.WaitServedBy("one", "two")
			waitCurrent(t, e, "consul/dc1")
			load.Check()
		})
	}
	load.Stop()
	if n := e.Reloads(); n > 1 { // one for the service that wakes the agent
		t.Errorf("%d reloads: %+v", n, e.Events())
	}
}

func TestATokenThatSeesLessTakesNothingAway(t *testing.T) {
	t.Parallel()
	const management = "5b9b2ad4-6f0c-4c8e-9b11-0a5a4bb6a0c1"
	agent := startConsul(t, consul.Options{ManagementToken: management})
	policy, _, err := agent.Client().ACL().PolicyCreate(&api.ACLPolicy{
		Name: "mi-lb", Rules: `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := agent.Client().ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{ID: policy.ID}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token.SecretID), 0o600); err != nil {
		t.Fatal(err)
	}
	one, two, other := edge.StartBackend(t, "one"), edge.StartBackend(t, "two"), edge.StartBackend(t, "other")
	register(t, agent, "web", one)
	register(t, agent, "web", two)
	register(t, agent, "api", other)
	e := startEdge(t, edge.Options{Consul: consulURL(agent), Config: map[string]any{"consul.token_file": file}})
	load := e.Load("web.test")
	load.WaitServedBy("one", "two")

	policy.Rules = `service "api" { policy = "read" } node_prefix "" { policy = "read" }`
	if _, _, err := agent.Client().ACL().PolicyUpdate(policy, nil); err != nil {
		t.Fatal(err)
	}
	// A policy wakes no query, and one that waits keeps the permissions it began with:
	// the second change from here on is answered with less.
	tag := func(i int) func(*api.AgentServiceRegistration) {
		return func(r *api.AgentServiceRegistration) { r.Tags = []string{fmt.Sprint("change-", i)} }
	}
	for i := range 2 {
		register(t, agent, "api", other, tag(i))
		register(t, agent, "web", two, tag(i))
	}
	waitStale(t, e, "consul/dc1", "ACL")
	load.WaitServedBy("one", "two")

	if err := os.WriteFile(file, []byte(management), 0o600); err != nil {
		t.Fatal(err)
	}
	waitCurrent(t, e, "consul/dc1")
	setHealth(t, agent, one, api.HealthCritical)
	load.WaitServedBy("two")
	load.Stop()
}
