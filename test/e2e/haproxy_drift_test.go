package e2e

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/lb/haproxy/plan"
	haproxyruntime "github.com/mi-lb/mi-lb/lb/haproxy/runtime"
	"github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/test/edge"
)

// somebody sends HAProxy commands behind mi-lb's back.
func somebody(t *testing.T, e *edge.Edge, commands ...string) {
	t.Helper()
	replies, err := e.Runtime().Exec(testContext(t), commands)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range replies {
		if err := r.Err(); err != nil {
			t.Fatalf("%s: %v", commands[i], err)
		}
	}
}

// nameOf is the name in HAProxy of the server of a backend at an address.
func nameOf(t *testing.T, e *edge.Edge, backend string, b *edge.Backend) string {
	t.Helper()
	servers, err := e.Runtime().Servers(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(servers, func(s haproxyruntime.Server) bool { return s.Backend == backend && s.Address.String() == b.Address() })
	if i < 0 {
		t.Fatalf("no server at %s in %s: %+v", b.Address(), backend, servers)
	}
	return servers[i].Name
}

func TestWhatSomebodyChangesInHAProxyIsRepairedAndCounted(t *testing.T) {
	t.Parallel()
	agent := startConsul(t, consul.Options{})
	one, two, stranger := edge.StartBackend(t, "one"), edge.StartBackend(t, "two"), edge.StartBackend(t, "stranger")
	register(t, agent, "web", one)
	register(t, agent, "web", two)
	register(t, agent, "other", stranger)
	e := startEdge(t, edge.Options{Consul: consulURL(agent)})
	load := e.Load("web.test")
	load.WaitServedBy("one", "two")
	e.WaitHTTP("other.test", "stranger")
	name := nameOf(t, e, "web", one)
	hosts := filepath.Join(e.StateDir, "haproxy", "current", "hosts.map")

	for _, c := range []struct {
		kind     string
		commands []string
		repaired func() error
	}{
		{plan.ServerWeight, []string{"set server web/" + name + " weight 7"}, func() error {
			for _, s := range serversOfHAProxy(t, e) {
				if s.Name == name && s.Backend == "web" && s.Weight != 1 {
					return fmt.Errorf("weight %d", s.Weight)
				}
			}
			return nil
		}},
		{plan.ServerState, []string{"set server web/" + name + " state maint"}, func() error {
			return runs(e, "web", map[string]string{one.Address(): haproxyruntime.Ready})
		}},
		{plan.ServerAddress, []string{fmt.Sprintf("set server web/%s addr 127.0.0.1 port %d", name, two.Port)}, func() error {
			return runs(e, "web", map[string]string{one.Address(): haproxyruntime.Ready, two.Address(): haproxyruntime.Ready})
		}},
		{plan.ServerUnknown, []string{
			fmt.Sprintf("add server web/stranger %s weight 100", stranger.Address()), "set server web/stranger state ready",
		}, func() error {
			return runs(e, "web", map[string]string{stranger.Address(): haproxyruntime.Drain})
		}},
		{plan.RowValue, []string{"set map " + hosts + " other.test/ web"}, func() error {
			return answersBy(e, "other.test", "stranger")
		}},
		{plan.RowMissing, []string{"del map " + hosts + " other.test/"}, func() error {
			return answersBy(e, "other.test", "stranger")
		}},
		{plan.RowUnknown, []string{"add map " + hosts + " stranger.example/ web"}, func() error {
			answer, err := e.HTTP("stranger.example", "/")
			if err == nil && answer.Status != 503 {
				err = fmt.Errorf("still answered by %s", answer.Body)
			}
			return err
		}},
	} {
		t.Run(c.kind, func(t *testing.T) {
			before := e.Metric("mi_lb_drift_repaired_total", "kind", c.kind)
			somebody(t, e, c.commands...)
			edge.Wait(t, "a repair that is counted", func() error {
				if e.Metric("mi_lb_drift_repaired_total", "kind", c.kind) <= before {
					return errors.New("none")
				}
				return nil
			})
			edge.Wait(t, "the repair", c.repaired)
			load.WaitServedBy("one", "two")
		})
	}
	load.Stop()
	if n := e.Reloads(); n != 0 {
		t.Errorf("%d reloads", n)
	}
	found := slices.ContainsFunc(strings.Split(e.Log(), "\n"), func(line string) bool {
		return strings.Contains(line, "level=WARN") && strings.Contains(line, "repairing")
	})
	if !found {
		t.Error("nothing of it is in the log")
	}
}

func serversOfHAProxy(t *testing.T, e *edge.Edge) []haproxyruntime.Server {
	t.Helper()
	servers, err := e.Runtime().Servers(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return servers
}

func answersBy(e *edge.Edge, host, by string) error {
	answer, err := e.HTTP(host, "/")
	if err == nil && (answer.Status != 200 || answer.Body != by) {
		err = fmt.Errorf("%d by %q", answer.Status, answer.Body)
	}
	return err
}

func TestAReloadBySomebodyElseLosesNeitherRequestsNorState(t *testing.T) {
	t.Parallel()
	agent := startConsul(t, consul.Options{})
	e, one, two, load := webUnderLoad(t, agent, consulURL(agent))
	for _, way := range []struct {
		name   string
		reload func(haproxyruntime.Processes)
	}{
		{"signal", func(p haproxyruntime.Processes) {
			if err := syscall.Kill(p.Master, syscall.SIGUSR2); err != nil {
				t.Fatal(err)
			}
		}},
		{"master socket", func(haproxyruntime.Processes) {
			if _, err := e.Master().Reload(testContext(t)); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			// Not in the files yet, maybe, when they are read.
			setHealth(t, agent, one, api.HealthCritical)
			added := edge.StartBackend(t, "added by "+way.name)
			register(t, agent, "web", added)
			want := map[string]string{one.Address(): haproxyruntime.Maint, two.Address(): haproxyruntime.Ready, added.Address(): haproxyruntime.Ready}
			edge.Wait(t, "the changes in HAProxy", func() error { return runs(e, "web", want) })
			before := e.Processes()
			way.reload(before)
			edge.Wait(t, "the new worker known", func() error {
				if s := e.Status().HAProxy; s.Worker == before.Worker() || s.Worker == 0 {
					return fmt.Errorf("%+v", s)
				}
				return nil
			})
			edge.Wait(t, "the changes in the new worker", func() error { return runs(e, "web", want) })
			load.WaitServedBy(added.Name, "two")
			setHealth(t, agent, one, api.HealthPassing)
			deregister(t, agent, added)
			load.WaitServedBy("one", "two")
			load.Check()
		})
	}
	load.Stop()
	if n := e.Reloads(); n != 0 {
		t.Errorf("%d reloads are counted as our own", n)
	}
}
