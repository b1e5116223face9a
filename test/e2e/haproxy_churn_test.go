package e2e

import (
	"bytes"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/test/edge"
)

// wrk is a run of wrk, the load generator, and what it printed.
type wrk struct {
	command *exec.Cmd
	output  bytes.Buffer
}

func startWrk(t *testing.T, e *edge.Edge, host string, seconds int) *wrk {
	t.Helper()
	w := &wrk{}
	w.command = exec.CommandContext(t.Context(), "wrk", "--threads", "1", "--connections", "16", "--duration", fmt.Sprintf("%ds", seconds),
		"--header", "Host: "+host, "http://"+e.HTTPAddress+"/")
	w.command.Stdout, w.command.Stderr = &w.output, &w.output
	if err := w.command.Start(); err != nil {
		t.Fatalf("start wrk: %v; install it with the system's package manager", err)
	}
	t.Cleanup(func() {
		if w.command.ProcessState == nil {
			_ = w.command.Process.Kill()
			_ = w.command.Wait()
		}
	})
	return w
}

var wrkRequests = regexp.MustCompile(`(\d+) requests in`)

// wait returns how many requests were made, and fails the test if any failed: wrk says
// nothing of errors if there were none.
func (w *wrk) wait(t *testing.T) int {
	t.Helper()
	if err := w.command.Wait(); err != nil {
		t.Fatalf("wrk: %v\n%s", err, w.output.String())
	}
	out := w.output.String()
	for _, trouble := range []string{"Socket errors", "Non-2xx"} {
		if bytes.Contains(w.output.Bytes(), []byte(trouble)) {
			t.Errorf("requests have failed:\n%s", out)
		}
	}
	match := wrkRequests.FindStringSubmatch(out)
	if match == nil {
		t.Fatalf("wrk does not say how many requests it made:\n%s", out)
	}
	n, err := strconv.Atoi(match[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTwoHundredChangesInTenSecondsUnderLoad(t *testing.T) {
	const changes, every = 200, 50 * time.Millisecond
	agent := startConsul(t, consul.Options{})
	var backends []*edge.Backend
	for i := range 6 {
		b := edge.StartBackend(t, fmt.Sprintf("b%d", i))
		register(t, agent, "web", b)
		backends = append(backends, b)
	}
	e := startEdge(t, edge.Options{Consul: consulURL(agent)})
	e.WaitHTTP("web.test")
	worker := e.Processes().Worker()
	applied := e.Metric("mi_lb_apply_seconds")
	load := startWrk(t, e, "web.test", 13)

	// Two in turn never change, so that there is always somebody to serve.
	weighted := func(passing int) func(*api.AgentServiceRegistration) {
		return func(r *api.AgentServiceRegistration) {
			r.Weights = &api.AgentWeights{Passing: passing, Warning: 1}
		}
	}
	pace := time.NewTicker(every)
	defer pace.Stop()
	begin := time.Now()
	for i := range changes {
		b := backends[2+(i/8)%4]
		switch i % 8 {
		case 0:
			setHealth(t, agent, b, api.HealthCritical)
		case 1:
			setHealth(t, agent, b, api.HealthPassing)
		case 2:
			register(t, agent, "web", b, weighted(2+i%7))
		case 3:
			deregister(t, agent, b)
		case 4:
			register(t, agent, "web", b)
		case 5:
			setHealth(t, agent, b, api.HealthWarning)
		case 6:
			if err := agent.Client().Agent().EnableServiceMaintenance(b.Name, ""); err != nil {
				t.Fatal(err)
			}
		case 7:
			// Two at once: out of maintenance and well again.
			if err := agent.Client().Agent().DisableServiceMaintenance(b.Name); err != nil {
				t.Fatal(err)
			}
			setHealth(t, agent, b, api.HealthPassing)
		}
		<-pace.C
	}
	took := time.Since(begin)
	requests := load.wait(t)

	// Whatever was gathered on the way, the end is what Consul says.
	clients := e.Load("web.test")
	clients.WaitServedBy("b0", "b1", "b2", "b3", "b4", "b5")
	clients.Stop()
	if n := e.Reloads(); n != 0 {
		t.Errorf("%d reloads: %+v", n, e.Events())
	}
	if p := e.Processes(); p.Worker() != worker || p.Reloads != 0 {
		t.Errorf("HAProxy is %+v, its worker was %d", p, worker)
	}
	if n := e.Metric("mi_lb_drift_repaired_total"); n != 0 {
		t.Errorf("%v differences were repaired that were changes", n)
	}
	t.Logf("%d changes in %s, applied in %v steps, under %d requests", changes, took.Round(time.Millisecond),
		e.Metric("mi_lb_apply_seconds")-applied, requests)
}
