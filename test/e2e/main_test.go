package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/test/edge"
)

// binary is the mi-lb under test, built once.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	dir, err := os.MkdirTemp("", "mi-lb-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if binary, err = edge.Build(context.Background(), dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// newEdge prepares an edge of the mi-lb under test; startEdge returns when it is
// ready.
func newEdge(t *testing.T, o edge.Options) *edge.Edge {
	t.Helper()
	o.Binary = binary
	return edge.New(t, o)
}

func startEdge(t *testing.T, o edge.Options) *edge.Edge {
	t.Helper()
	o.Binary = binary
	return edge.Start(t, o)
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), edge.Patience)
	t.Cleanup(cancel)
	return ctx
}

// startConsul runs a Consul agent with a leader until the test ends.
func startConsul(t *testing.T, o consul.Options) *consul.Agent {
	t.Helper()
	ctx := testContext(t)
	a, err := consul.Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Stop)
	if err := a.WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	return a
}

// register puts a backend into Consul as an instance of the service, with a check
// that setHealth sets.
func register(t *testing.T, a *consul.Agent, service string, b *edge.Backend, change ...func(*api.AgentServiceRegistration)) {
	t.Helper()
	r := &api.AgentServiceRegistration{
		ID: b.Name, Name: service, Address: "127.0.0.1", Port: b.Port,
		Check: &api.AgentServiceCheck{CheckID: b.Name, TTL: "1h", Status: api.HealthPassing},
	}
	for _, c := range change {
		c(r)
	}
	if err := a.RegisterService(testContext(t), r); err != nil {
		t.Fatal(err)
	}
	if r.Check != nil && r.Check.TTL != "" {
		// As the service's own heartbeat would: what an agent was never told it takes
		// for critical when it is restarted.
		setHealth(t, a, b, r.Check.Status)
	}
}

func deregister(t *testing.T, a *consul.Agent, b *edge.Backend) {
	t.Helper()
	if err := a.DeregisterService(testContext(t), b.Name); err != nil {
		t.Fatal(err)
	}
}

// setHealth of a backend that is registered: api.HealthPassing and so on.
func setHealth(t *testing.T, a *consul.Agent, b *edge.Backend, status string) {
	t.Helper()
	if err := a.SetCheck(testContext(t), b.Name, status); err != nil {
		t.Fatal(err)
	}
}
