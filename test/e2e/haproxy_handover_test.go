package e2e

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/test/edge"
)

func TestHAProxyServesOnWithoutMiLBAndIsAdoptedWithoutAReload(t *testing.T) {
	t.Parallel()
	for _, way := range []struct {
		name string
		end  func(*edge.Edge)
	}{
		{"killed", (*edge.Edge).Kill},
		{"handed over", (*edge.Edge).HandOver},
	} {
		t.Run(way.name, func(t *testing.T) {
			agent := startConsul(t, consul.Options{})
			e, one, _, load := webUnderLoad(t, agent, consulURL(agent))
			before := e.Processes()
			// The last changes that it saw are in HAProxy, and in the files or not yet.
			three := edge.StartBackend(t, "three")
			register(t, agent, "web", three)
			setHealth(t, agent, one, api.HealthWarning)
			load.WaitServedBy("one", "three", "two")

			way.end(e)
			load.WaitMore(300)
			setHealth(t, agent, one, api.HealthCritical)
			four := edge.StartBackend(t, "four")
			register(t, agent, "web", four)
			load.WaitMore(300)
			load.Check()

			e.Start()
			e.WaitReady()
			load.WaitServedBy("four", "three", "two")
			load.Stop()
			if after := e.Processes(); after.Worker() != before.Worker() || after.Master != before.Master || after.Reloads != before.Reloads {
				t.Errorf("HAProxy was %+v and is %+v", before, after)
			}
			if n := e.Reloads(); n != 0 {
				t.Errorf("%d reloads: %+v", n, e.Events())
			}
			if n := e.Metric("mi_lb_drift_repaired_total"); n != 0 {
				t.Errorf("%v differences were repaired that were changes", n)
			}
		})
	}
}

func TestATermFinishesWhatIsUnderWayAndTakesNothingNew(t *testing.T) {
	t.Parallel()
	agent := startConsul(t, consul.Options{})
	slow := edge.StartBackend(t, "slow")
	register(t, agent, "slow", slow)
	e := startEdge(t, edge.Options{Consul: consulURL(agent), Config: map[string]any{"haproxy.drain": "2m"}})
	e.WaitHTTP("slow.test", "slow")

	release := slow.Hold()
	type outcome struct {
		answer edge.Answer
		err    error
	}
	answered := make(chan outcome, 1)
	go func() {
		answer, err := e.HTTP("slow.test", "/")
		answered <- outcome{answer, err}
	}()
	edge.Wait(t, "the request under way", func() error {
		if slow.Holding() == 0 {
			return errors.New("not received")
		}
		return nil
	})
	e.Signal(syscall.SIGTERM)
	waitNobodyListens(t, e.HTTPAddress)
	release()
	if o := <-answered; o.err != nil || o.answer.Status != 200 || o.answer.Body != "slow" {
		t.Errorf("the request that was under way: %+v", o)
	}
	if err := e.WaitEnd(); err != nil {
		t.Errorf("mi-lb ended with %v", err)
	}
	if left := e.Left(); len(left) > 0 {
		t.Errorf("HAProxy's processes %v are left", left)
	}
}

func waitNobodyListens(t *testing.T, address string) {
	t.Helper()
	edge.Wait(t, "nobody listens", func() error {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return errors.New("still accepting")
		}
		return nil
	})
}
