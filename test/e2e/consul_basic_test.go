package e2e

import (
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/test/edge"
)

func TestAServiceInConsulIsReachableByNameAndFollowsItsChanges(t *testing.T) {
	agent := startConsul(t, consul.Options{})
	one, two := edge.StartBackend(t, "one"), edge.StartBackend(t, "two")
	register(t, agent, "web", one)
	e := startEdge(t, edge.Options{Consul: "http://" + agent.HTTPAddress()})
	e.WaitHTTP("web.test", "one")
	load := e.Load("web.test")
	load.WaitServedBy("one")
	register(t, agent, "web", two)
	load.WaitServedBy("one", "two")
	setHealth(t, agent, one, api.HealthCritical)
	load.WaitServedBy("two")
	setHealth(t, agent, one, api.HealthPassing)
	load.WaitServedBy("one", "two")
	deregister(t, agent, two)
	load.WaitServedBy("one")
	load.Stop()
	if n := e.Reloads(); n != 0 {
		t.Errorf("%d reloads: %+v", n, e.Events())
	}
	if n := e.Metric("mi_lb_apply_seconds"); n < 4 {
		t.Errorf("%v applied changes are counted", n)
	}
}
