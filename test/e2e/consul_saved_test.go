package e2e

import (
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/test/edge"
	"github.com/mi-lb/mi-lb/test/marathon"
)

func TestTheSavedSnapshotServesWhileNobodyCanBeAsked(t *testing.T) {
	t.Parallel()
	agent := startConsul(t, consul.Options{})
	cluster := startMarathon(t, marathon.Options{Fake: true})
	web, gone, shop := edge.StartBackend(t, "web"), edge.StartBackend(t, "gone"), edge.StartBackend(t, "shop")
	register(t, agent, "web", web)
	register(t, agent, "web", gone)
	setHealth(t, agent, gone, api.HealthCritical)
	port := edge.FreePort(t)
	putApp(t, cluster, document(t, "/shop", port, nil), shop)
	e := startEdge(t, edge.Options{Consul: consulURL(agent), Marathon: [][]string{{cluster.URL()}}})
	e.WaitHTTP("web.test", "web")
	e.WaitHTTP("shop.test", "shop")
	e.WaitPort(port, "shop")

	// Everything is restarted: HAProxy too.
	e.Stop()
	agent.Kill()
	cluster.Close()
	e.Start()
	e.WaitReady()
	byName := e.Load("web.test")
	byPort := loadPort(t, port)
	byName.WaitServedBy("web") // and not by the one that was critical
	byPort.WaitServedBy("shop")
	e.WaitHTTP("shop.test", "shop")
	for _, source := range []string{"consul/dc1", marathonName(cluster)} {
		if s := e.Source(source); s.Status == "current" || s.LastError == "" {
			t.Errorf("%s: %+v", source, s)
		}
		if e.Metric("mi_lb_source_current", "source", source) != 0 {
			t.Errorf("metrics say that %s is current", source)
		}
	}

	if err := agent.Restart(testContext(t), false); err != nil {
		t.Fatal(err)
	}
	waitCurrent(t, e, "consul/dc1")
	setHealth(t, agent, gone, api.HealthPassing)
	byName.WaitServedBy("gone", "web")
	byName.Stop()
	byPort.Stop()
}

func TestAnEdgeThatStartsBeforeItsConsulServesOnceThatIsThere(t *testing.T) {
	t.Parallel()
	agent := startConsul(t, consul.Options{})
	register(t, agent, "web", edge.StartBackend(t, "web"))
	agent.Kill()
	e := edge.New(t, edge.Options{Binary: binary, Consul: consulURL(agent)})
	e.Start()
	edge.Wait(t, "the edge says that Consul is missing", func() error {
		if !strings.Contains(e.Log(), "refused") {
			return errors.New("it says nothing")
		}
		return nil
	})
	if err := agent.Restart(testContext(t), false); err != nil {
		t.Fatal(err)
	}
	e.WaitReady()
	e.WaitHTTP("web.test", "web")
}
