package e2e

import (
	"fmt"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/test/edge"
)

// startDatacenters are two that know each other.
func startDatacenters(t *testing.T) (dc1, dc2 *consul.Agent) {
	t.Helper()
	dc1 = startConsul(t, consul.Options{})
	dc2 = startConsul(t, consul.Options{Datacenter: "dc2", JoinWAN: []string{dc1.SerfWAN()}})
	if err := dc1.WaitDatacenters(testContext(t), "dc1", "dc2"); err != nil {
		t.Fatal(err)
	}
	return dc1, dc2
}

// probed lets Consul itself connect to the instance every second.
func probed(r *api.AgentServiceRegistration) {
	r.Check = &api.AgentServiceCheck{
		CheckID: r.ID, TCP: fmt.Sprintf("127.0.0.1:%d", r.Port), Interval: "1s", Timeout: "1s", Status: api.HealthPassing,
	}
}

func TestTheOtherDatacenterServesWhileTheLocalInstanceIsDead(t *testing.T) {
	t.Parallel()
	dc1, dc2 := startDatacenters(t)
	local, remote := edge.StartBackend(t, "local"), edge.StartBackend(t, "remote")
	register(t, dc1, "web", local, probed)
	register(t, dc2, "web", remote)
	e := startEdge(t, edge.Options{Consul: consulURL(dc1)})
	e.WaitSource("consul/dc2", "current")
	load := edge.StartLoad(t, edge.LoadOptions{Address: e.HTTPAddress, Host: "web.test", Repeat: true})
	load.WaitServedBy("local")

	health := func(state routing.ServerState) {
		t.Helper()
		edge.Wait(t, "the local instance "+string(state), func() error {
			if s := e.Server("web", local.Address()); s == nil || s.State != state {
				return fmt.Errorf("it is %+v", s)
			}
			return nil
		})
	}
	for range 2 {
		// HAProxy notices by itself, Consul later.
		local.Abort()
		load.WaitServedBy("remote")
		health(routing.Maint)
		load.WaitServedBy("remote")
		local.Restart()
		health(routing.Ready)
		load.WaitServedBy("local")
	}
	// Consul alone says so.
	if err := dc1.Client().Agent().EnableServiceMaintenance("local", "deploying"); err != nil {
		t.Fatal(err)
	}
	load.WaitServedBy("remote")
	if err := dc1.Client().Agent().DisableServiceMaintenance("local"); err != nil {
		t.Fatal(err)
	}
	load.WaitServedBy("local")
	load.Stop()
	t.Logf("%d of %d requests were closed without an answer and sent again", load.Repeated(), load.Total())
	// Only what was under way when the instance was killed, twice.
	if most := 2 * 8; load.Repeated() > most {
		t.Errorf("more than %d", most)
	}
	if n := e.Reloads(); n > 1 { // one if dc2 was slower than the first table
		t.Errorf("%d reloads: %+v", n, e.Events())
	}
}

func TestADatacenterThatIsGoneKeepsItsInstancesAndHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	dc1, dc2 := startDatacenters(t)
	local, remote, other := edge.StartBackend(t, "local"), edge.StartBackend(t, "remote"), edge.StartBackend(t, "other")
	register(t, dc1, "web", local)
	register(t, dc2, "web", remote)
	register(t, dc2, "far", other)
	e := startEdge(t, edge.Options{Consul: consulURL(dc1)})
	e.WaitHTTP("far.test", "other")
	far, web := e.Load("far.test"), e.Load("web.test")
	web.WaitServedBy("local")

	dc2.Kill()
	waitStale(t, e, "consul/dc2", "")
	far.WaitServedBy("other")
	// What happens at home is followed as ever, to where nobody can be asked.
	setHealth(t, dc1, local, api.HealthCritical)
	web.WaitServedBy("remote")
	waitCurrent(t, e, "consul/dc1")
	setHealth(t, dc1, local, api.HealthPassing)
	web.WaitServedBy("local")

	if err := dc2.Restart(testContext(t), false); err != nil {
		t.Fatal(err)
	}
	waitCurrent(t, e, "consul/dc2")
	two := edge.StartBackend(t, "two")
	register(t, dc2, "far", two)
	far.WaitServedBy("other", "two")
	far.Stop()
	web.Stop()
}
