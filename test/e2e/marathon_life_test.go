package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"testing"

	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/test/edge"
	"github.com/mi-lb/mi-lb/test/marathon"
)

// wellBehaved is an app as it should be: asked to end, it serves what still comes and
// ends when it has been idle for half a second. Requests that come until its patience
// is over are told in a file, as nobody took it out of the traffic.
const wellBehaved = `
import http.server, os, signal, socketserver, threading, time
last = time.monotonic()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        global last
        if self.path != "/health":
            last = time.monotonic()
        body = b"app"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    request_queue_size = 128
    daemon_threads = True
def end():
    until = time.monotonic() + 20
    while time.monotonic() - last < 0.5:
        if time.monotonic() > until:
            open(os.environ["TROUBLE"] + "/" + os.environ["MESOS_TASK_ID"], "w").close()
            break
        time.sleep(0.02)
    os._exit(0)
signal.signal(signal.SIGTERM, lambda *arguments: threading.Thread(target=end).start())
Server(("127.0.0.1", int(os.environ["PORT0"])), Handler).serve_forever()
`

// call uses Marathon's API, and waits until what it was asked for is deployed.
func call(t *testing.T, cluster *marathon.Cluster, method, path string, document []byte) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, cluster.URL()+path, bytes.NewReader(document))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || response.StatusCode >= 300 {
		t.Fatalf("%s %s: %s %s %v", method, path, response.Status, body, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*edge.Patience)
	defer cancel()
	if err := cluster.WaitDeployments(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestARealAppIsScaledAndRestartedUnderLoad(t *testing.T) {
	t.Parallel()
	cluster := startMarathon(t, marathon.Options{})
	trouble := t.TempDir()
	port := edge.FreePort(t)
	app := document(t, "/web", port, map[string]any{
		"cmd": `exec python3 -c "$PROGRAM"`, "env": map[string]any{"PROGRAM": wellBehaved, "TROUBLE": trouble},
		"instances": 3, "taskKillGracePeriodSeconds": 40, "healthChecks": []any{map[string]any{
			"protocol": "HTTP", "path": "/health", "portIndex": 0, "intervalSeconds": 1, "gracePeriodSeconds": 60, "timeoutSeconds": 10,
		}},
	})
	call(t, cluster, http.MethodPost, "/v2/apps", app)
	e := startEdge(t, edge.Options{Marathon: [][]string{cluster.URLs()}})
	waitServers(t, e, "web", 3)
	byPort := edge.StartLoad(t, edge.LoadOptions{Address: fmt.Sprintf("127.0.0.1:%d", port), Host: "port", Clients: 4})
	byName := edge.StartLoad(t, edge.LoadOptions{Address: e.HTTPAddress, Host: "web.test", Clients: 4})
	for _, step := range []struct {
		name, method, path, document string
		tasks                        int
	}{
		{"scaled down", http.MethodPut, "/v2/apps/web", `{"instances": 1}`, 1},
		{"restarted", http.MethodPost, "/v2/apps/web/restart", ``, 1},
		{"scaled up", http.MethodPut, "/v2/apps/web", `{"instances": 3}`, 3},
		{"redefined", http.MethodPut, "/v2/apps/web", `{"labels": {"mi-lb.host": "web.example.com"}}`, 3},
	} {
		before := cluster.Tasks("/web")
		call(t, cluster, step.method, step.path, []byte(step.document))
		waitServers(t, e, "web", step.tasks)
		// Whoever was asked to end does so, in its own time.
		ctx, cancel := context.WithTimeout(t.Context(), 2*edge.Patience)
		if _, err := cluster.WaitTasks(ctx, "/web", func(tasks []marathon.Task) bool { return len(tasks) == step.tasks }); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		cancel()
		if step.tasks == 1 || step.name == "redefined" {
			after := cluster.Tasks("/web")
			if slices.EqualFunc(before, after, func(a, b marathon.Task) bool { return a.ID == b.ID }) {
				t.Errorf("%s: the tasks are the same as before", step.name)
			}
		}
		byPort.WaitMore(100)
		byName.WaitMore(100)
		byPort.Check()
		byName.Check()
	}
	e.WaitHTTP("web.example.com", "app")
	byPort.Stop()
	byName.Stop()
	if never, err := os.ReadDir(trouble); err != nil || len(never) > 0 {
		t.Errorf("tasks got requests as long as they waited for their end: %v %v", never, err)
	}
}

// waitServers waits until the backend has so many servers that get new traffic.
func waitServers(t *testing.T, e *edge.Edge, backend string, n int) {
	t.Helper()
	edge.Wait(t, fmt.Sprintf("%d servers of %s", n, backend), func() error {
		count := 0
		for _, b := range e.Routes().Backends {
			for _, s := range b.Servers {
				if b.ID == backend && s.State == routing.Ready {
					count++
				}
			}
		}
		if count != n {
			return fmt.Errorf("%d are ready", count)
		}
		return nil
	})
}

func TestAppsComeAndGoWithoutTroubleForOthers(t *testing.T) {
	t.Parallel()
	cluster := startMarathon(t, marathon.Options{Fake: true})
	old, passing, next := edge.FreePort(t), edge.FreePort(t), edge.FreePort(t)
	putApp(t, cluster, document(t, "/old", old, nil), edge.StartBackend(t, "old"))
	putApp(t, cluster, document(t, "/passing", passing, nil), edge.StartBackend(t, "passing"))
	e := startEdge(t, edge.Options{Marathon: [][]string{cluster.URLs()}})
	e.WaitPort(passing, "passing")
	byPort, byName := loadPort(t, old), e.Load("old.test")

	putApp(t, cluster, document(t, "/next", next, nil), edge.StartBackend(t, "next"))
	e.WaitPort(next, "next")
	e.WaitHTTP("next.test", "next")
	waitReloads(t, e, 1)

	if err := cluster.RemoveApp("/passing"); err != nil {
		t.Fatal(err)
	}
	edge.Wait(t, "nobody answers for the app that is gone", func() error {
		if a, err := e.HTTP("passing.test", "/"); err != nil || a.Status != http.StatusServiceUnavailable {
			return fmt.Errorf("by name: %d %q %v", a.Status, a.Body, err)
		}
		if a, err := e.Port(passing); err == nil {
			return fmt.Errorf("by port: %d %q", a.Status, a.Body)
		}
		return nil
	})
	edge.Wait(t, "nor is its port told", func() error {
		if slices.ContainsFunc(e.Routes().Ports, func(p routing.Port) bool { return p.Number == passing }) {
			return fmt.Errorf("ports %+v", e.Routes().Ports)
		}
		return nil
	})
	for _, event := range e.Events() {
		if event.Error != "" {
			t.Errorf("HAProxy refused something: %+v", event)
		}
	}
	// The port is free for somebody else with the next reload, which the app's own
	// successor causes.
	putApp(t, cluster, document(t, "/successor", passing, nil), edge.StartBackend(t, "successor"))
	e.WaitPort(passing, "successor")
	e.WaitHTTP("successor.test", "successor")
	waitReloads(t, e, 2)
	byPort.Stop()
	byName.Stop()
}

// waitReloads waits until HAProxy has been reloaded so often, and fails if it was more
// often: traffic follows a reload before mi-lb has noticed that it is over.
func waitReloads(t *testing.T, e *edge.Edge, n int) {
	t.Helper()
	edge.Wait(t, fmt.Sprintf("%d reloads", n), func() error {
		if got := e.Reloads(); got != n || e.Status().HAProxy.Pending != "" {
			return fmt.Errorf("%d so far; %+v", got, e.Events())
		}
		return nil
	})
}

func TestTwoMarathonClusters(t *testing.T) {
	t.Parallel()
	one, two := startMarathon(t, marathon.Options{Fake: true}), startMarathon(t, marathon.Options{Fake: true})
	onlyOne, onlyTwo, both := edge.FreePort(t), edge.FreePort(t), edge.FreePort(t)
	putApp(t, one, document(t, "/one", onlyOne, nil), edge.StartBackend(t, "one"))
	putApp(t, two, document(t, "/two", onlyTwo, nil), edge.StartBackend(t, "two"))
	shared := document(t, "/shared", both, labels("mi-lb.mode", "http"))
	putApp(t, one, shared, edge.StartBackend(t, "shared in one"))
	inTwo := edge.StartBackend(t, "shared in two")
	putApp(t, two, shared, inTwo)
	e := startEdge(t, edge.Options{Marathon: [][]string{one.URLs(), two.URLs()}})
	e.WaitPort(onlyOne, "one")
	e.WaitPort(onlyTwo, "two")
	byPort, byName := loadPort(t, both), e.Load("shared.test")
	byPort.WaitServedBy("shared in one", "shared in two")
	byName.WaitServedBy("shared in one", "shared in two")
	// What happens to one of them does not keep the other one's changes.
	one.StopMember(0)
	setTasks(t, two, "/shared", inTwo, edge.StartBackend(t, "also in two"))
	byPort.WaitServedBy("also in two", "shared in one", "shared in two")
	byName.WaitServedBy("also in two", "shared in one", "shared in two")
	e.WaitPort(onlyOne, "one")
	if source := e.WaitSource(marathonName(one), "stale"); source.LastError == "" {
		t.Errorf("no reason: %+v", source)
	}
	if err := one.StartMember(0); err != nil {
		t.Fatal(err)
	}
	e.WaitSource(marathonName(one), "current")
	byPort.Stop()
	byName.Stop()
	if err := noFindings(e); err != nil {
		t.Error(err)
	}
}
