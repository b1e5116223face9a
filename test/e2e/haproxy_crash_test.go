package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	haproxyruntime "github.com/mi-lb/mi-lb/lb/haproxy/runtime"
	"github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/test/edge"
)

// outageAtMost is what the loss of HAProxy may cost.
const outageAtMost = 2 * time.Second

func TestHAProxyIsBackAfterOneOfItsProcessesIsKilled(t *testing.T) {
	agent := startConsul(t, consul.Options{})
	one, draining, down := edge.StartBackend(t, "one"), edge.StartBackend(t, "draining"), edge.StartBackend(t, "down")
	for _, b := range []*edge.Backend{one, draining, down} {
		register(t, agent, "web", b)
	}
	e := startEdge(t, edge.Options{Consul: consulURL(agent)})
	e.WaitHTTP("web.test")
	for _, victim := range []struct {
		name string
		pid  func(haproxyruntime.Processes) int
	}{
		{"worker", haproxyruntime.Processes.Worker},
		{"master", func(p haproxyruntime.Processes) int { return p.Master }},
	} {
		t.Run(victim.name, func(t *testing.T) {
			// All of this is in HAProxy and not yet in the files when it ends.
			if err := agent.Client().Agent().EnableServiceMaintenance("draining", ""); err != nil {
				t.Fatal(err)
			}
			setHealth(t, agent, down, api.HealthCritical)
			added := edge.StartBackend(t, "added-"+victim.name)
			register(t, agent, "web", added)
			want := map[string]string{
				one.Address(): haproxyruntime.Ready, draining.Address(): haproxyruntime.Drain,
				down.Address(): haproxyruntime.Maint, added.Address(): haproxyruntime.Ready,
			}
			edge.Wait(t, "the states in HAProxy", func() error { return runs(e, "web", want) })
			before := e.Processes()

			begin := time.Now()
			e.KillHAProxy(victim.pid(before))
			edge.Wait(t, "HAProxy serves again", func() error {
				answer, err := e.HTTP("web.test", "/")
				if err == nil && answer.Status != 200 {
					err = fmt.Errorf("status %d", answer.Status)
				}
				if now := e.Status(); err == nil && (now.HAProxy.Worker == before.Worker() || !now.HAProxy.Running) {
					err = fmt.Errorf("it still says %+v", now.HAProxy)
				}
				return err
			})
			outage := time.Since(begin)
			t.Logf("served again %s after its %s was killed", outage.Round(time.Millisecond), victim.name)
			if outage > outageAtMost {
				t.Errorf("served again only %s after the %s was killed", outage, victim.name)
			}
			edge.Wait(t, "the states in the new HAProxy", func() error { return runs(e, "web", want) })
			e.WaitReady()
			load := e.Load("web.test")
			load.WaitServedBy(added.Name, "one")
			load.Stop()

			setHealth(t, agent, down, api.HealthPassing)
			if err := agent.Client().Agent().DisableServiceMaintenance("draining"); err != nil {
				t.Fatal(err)
			}
			want[down.Address()], want[draining.Address()] = haproxyruntime.Ready, haproxyruntime.Ready
			edge.Wait(t, "all serve", func() error { return runs(e, "web", want) })
			deregister(t, agent, added)
		})
	}
}

// runs says whether HAProxy, asked without mi-lb, has those states in a backend, by
// the servers' addresses. Servers that are not named are not looked at.
func runs(e *edge.Edge, backend string, want map[string]string) error {
	ctx, cancel := context.WithTimeout(context.Background(), edge.Patience)
	defer cancel()
	servers, err := e.Runtime().Servers(ctx)
	if err != nil {
		return err
	}
	states := map[string]string{}
	for _, s := range servers {
		if s.Backend == backend {
			states[s.Address.String()] = s.State
		}
	}
	for address, state := range want {
		if states[address] != state {
			return fmt.Errorf("%s is %q, not %q: %v", address, states[address], state, states)
		}
	}
	return nil
}
