package e2e

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/lb/haproxy/runtime"
	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/test/edge"
	"github.com/mi-lb/mi-lb/test/host"
)

// untilEnd is a grace that nobody waits for: see host.Container.End.
const untilEnd = time.Hour

func TestContainersTakeTrafficWhenTheyRunAndAreDrainedWhenTheyAreStopped(t *testing.T) {
	h := host.Start(t, binary)
	e := startEdge(t, edge.Options{Consul: consulURL(h.Agent)})
	for _, network := range []host.Network{host.Published, host.Shared} {
		t.Run(string(network), func(t *testing.T) {
			service := "web-" + string(network)
			run := func(name string) *host.Container {
				return h.Run(network, host.Checked, service, name+"-"+string(network), untilEnd)
			}
			old := []*host.Container{run("one"), run("two"), run("three")}
			e.WaitHTTP(service+".test", answers(old)...)
			// Not even a request that must not be sent twice fails.
			gets, posts := e.Load(service+".test"), loadOf(t, e, http.MethodPost, service)
			gets.WaitServedBy(answers(old)...)

			serving := append(slices.Clone(old), run("four"))
			gets.WaitServedBy(answers(serving)...)
			posts.WaitServedBy(answers(serving)...)
			for _, c := range old {
				stopped := c.Stop()
				waitDrained(t, e, service, c)
				serving = slices.Delete(serving, 0, 1)
				gets.WaitServedBy(answers(serving)...)
				posts.WaitServedBy(answers(serving)...)
				if !c.Running() {
					t.Errorf("container %s ended before it was drained", c.Name)
				}
				c.End()
				stopped()
				waitGone(t, e, service, c)
			}
			gets.Stop()
			posts.Stop()
		})
	}
	if n := e.Metric("mi_lb_reloads_total", "reason", "operation-failed"); n != 0 {
		t.Errorf("%v reloads because operations failed: %+v", n, e.Events())
	}
}

func TestAContainerThatEndsAtOnceWhenItIsStoppedCostsNoGET(t *testing.T) {
	h := host.Start(t, binary)
	e := startEdge(t, edge.Options{Consul: consulURL(h.Agent)})
	for _, network := range []host.Network{host.Published, host.Shared} {
		t.Run(string(network), func(t *testing.T) {
			service := "web-" + string(network)
			var all []*host.Container
			for i := range 4 {
				all = append(all, h.Run(network, host.Plain, service, fmt.Sprint(service, "-", i), 0))
			}
			e.WaitHTTP(service+".test", answers(all)...)
			load := e.Load(service + ".test")
			load.WaitServedBy(answers(all)...)
			for _, c := range all[:3] {
				c.Stop()()
				waitGone(t, e, service, c)
			}
			load.WaitServedBy(all[3].Answer())
			load.Stop()
		})
	}
}

func TestAKilledContainerCostsTheRequestsInItThatMustNotBeSentTwice(t *testing.T) {
	h := host.Start(t, binary)
	e := startEdge(t, edge.Options{Consul: consulURL(h.Agent)})
	for _, network := range []host.Network{host.Published, host.Shared} {
		t.Run(string(network), func(t *testing.T) {
			service := "web-" + string(network)
			var all []*host.Container
			for i := range 3 {
				all = append(all, h.Run(network, host.Plain, service, fmt.Sprint(service, "-", i), 0))
			}
			e.WaitHTTP(service+".test", answers(all)...)
			load := e.Load(service + ".test")
			load.WaitServedBy(answers(all)...)

			// As many of either kind wait for their answers.
			const each = 12
			type outcome struct {
				method, body string
				err          error
			}
			outcomes := make(chan outcome, 2*each)
			for range each {
				for _, method := range []string{http.MethodGet, http.MethodPost} {
					go func() {
						body, err := host.Ask(method, e.HTTPAddress, service+".test", "/hold")
						outcomes <- outcome{method, body, err}
					}()
				}
			}
			waitHolding(t, all, map[string]int{http.MethodGet: each, http.MethodPost: each})
			victim, others := all[0], all[1:]
			inFlight, err := victim.Holding()
			if err != nil {
				t.Fatal(err)
			}
			if inFlight[http.MethodGet] == 0 || inFlight[http.MethodPost] == 0 {
				t.Fatalf("in flight in the one that is killed: %v", inFlight)
			}
			victim.Kill()
			// Its GETs are in the others now.
			waitHolding(t, others, map[string]int{http.MethodGet: each, http.MethodPost: each - inFlight[http.MethodPost]})
			for _, c := range others {
				c.Release()
			}
			failed := map[string]int{}
			for range 2 * each {
				if o := <-outcomes; o.err != nil {
					failed[o.method]++
				} else if !slices.Contains(answers(others), o.body) {
					t.Errorf("a %s was answered by %q", o.method, o.body)
				}
			}
			if want := map[string]int{http.MethodPost: inFlight[http.MethodPost]}; !maps.Equal(failed, want) {
				t.Errorf("failed %v, in flight were %v", failed, inFlight)
			}
			waitGone(t, e, service, victim)
			load.WaitServedBy(answers(others)...)
			load.Stop()
		})
	}
}

// answers of the containers, in their order.
func answers(all []*host.Container) []string {
	var bodies []string
	for _, c := range all {
		bodies = append(bodies, c.Answer())
	}
	return bodies
}

// loadOf is [edge.Edge.Load] with another method.
func loadOf(t *testing.T, e *edge.Edge, method, service string) *edge.Load {
	return edge.StartLoad(t, edge.LoadOptions{Address: e.HTTPAddress, Host: service + ".test", Method: method})
}

// waitDrained returns when mi-lb and HAProxy both have the container's server in
// drain.
func waitDrained(t *testing.T, e *edge.Edge, service string, c *host.Container) {
	t.Helper()
	edge.Wait(t, c.Name+" drained", func() error {
		server := e.Server(service, c.Address)
		if server == nil || server.State != routing.Drain {
			return fmt.Errorf("mi-lb has it as %+v", server)
		}
		servers, err := e.Runtime().Servers(testContext(t))
		if err != nil {
			return err
		}
		for _, s := range servers {
			if s.Address.String() == c.Address && s.State == runtime.Drain {
				return nil
			}
		}
		return errors.New("HAProxy does not have it so")
	})
}

// waitGone returns when mi-lb does not know the container any more.
func waitGone(t *testing.T, e *edge.Edge, service string, c *host.Container) {
	t.Helper()
	edge.Wait(t, c.Name+" gone", func() error {
		if server := e.Server(service, c.Address); server != nil {
			return fmt.Errorf("mi-lb has it as %+v", *server)
		}
		return nil
	})
}

// waitHolding returns when the containers together hold so many requests, by method.
func waitHolding(t *testing.T, all []*host.Container, want map[string]int) {
	t.Helper()
	edge.Wait(t, fmt.Sprintf("%v waiting for answers", want), func() error {
		sum := map[string]int{}
		for _, c := range all {
			holding, err := c.Holding()
			if err != nil {
				return err
			}
			for method, n := range holding {
				sum[method] += n
			}
		}
		if !maps.Equal(sum, want) {
			return fmt.Errorf("%v", sum)
		}
		return nil
	})
}
