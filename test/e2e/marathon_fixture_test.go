package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/test/edge"
	"github.com/mi-lb/mi-lb/test/marathon"
)

// startMarathon emulates a cluster until the end of the test.
func startMarathon(t *testing.T, options marathon.Options) *marathon.Cluster {
	t.Helper()
	cluster, err := marathon.Start(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster
}

// document is an app in host networking with one service port, as POST /v2/apps takes
// it; the keys given win.
func document(t *testing.T, id string, servicePort int, keys map[string]any) []byte {
	t.Helper()
	whole := map[string]any{
		"id": id, "cmd": "true", "cpus": 0.1, "mem": 16, "instances": 1,
		"networks":        []any{map[string]any{"mode": "host"}},
		"portDefinitions": []any{map[string]any{"port": servicePort, "protocol": "tcp"}},
	}
	maps.Copy(whole, keys)
	text, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// labels are the key of a document.
func labels(pairs ...string) map[string]any {
	all := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		all[pairs[i]] = pairs[i+1]
	}
	return map[string]any{"labels": all}
}

// putApp puts an app whose tasks are the backends, one each.
func putApp(t *testing.T, cluster *marathon.Cluster, document []byte, backends ...*edge.Backend) {
	t.Helper()
	if err := cluster.PutApp(document, tasksOn(backends...)...); err != nil {
		t.Fatal(err)
	}
}

// setTasks makes the backends the app's tasks, one each.
func setTasks(t *testing.T, cluster *marathon.Cluster, app string, backends ...*edge.Backend) {
	t.Helper()
	if err := cluster.SetTasks(app, tasksOn(backends...)...); err != nil {
		t.Fatal(err)
	}
}

func tasksOn(backends ...*edge.Backend) []marathon.FakeTask {
	var tasks []marathon.FakeTask
	for _, b := range backends {
		tasks = append(tasks, marathon.FakeTask{ID: fmt.Sprintf("task.%d", b.Port), Ports: []int{b.Port}})
	}
	return tasks
}

// marathonName is the source's of a cluster.
func marathonName(cluster *marathon.Cluster) string {
	return "marathon/" + strings.TrimPrefix(cluster.URL(), "http://")
}

// loadPort lets clients ask a service port.
func loadPort(t *testing.T, port int) *edge.Load {
	t.Helper()
	address := fmt.Sprintf("127.0.0.1:%d", port)
	return edge.StartLoad(t, edge.LoadOptions{Address: address, Host: address})
}

// ready are the names of the backends that get new traffic of the backend by the
// running table, sorted.
func ready(e *edge.Edge, backend string, all ...*edge.Backend) []string {
	var names []string
	for _, b := range all {
		if s := e.Server(backend, b.Address()); s != nil && s.State == routing.Ready {
			names = append(names, b.Name)
		}
	}
	slices.Sort(names)
	return names
}

// hasFinding says whether there is one of the code about the service.
func hasFinding(e *edge.Edge, code, service string) error {
	findings := e.Findings()
	for _, f := range findings {
		if f.Code == code && f.Service == service {
			return nil
		}
	}
	return fmt.Errorf("no %s about %s in %v", code, service, findings)
}

// noFindings says whether there is none at all.
func noFindings(e *edge.Edge) error {
	if findings := e.Findings(); len(findings) > 0 {
		return fmt.Errorf("%v", findings)
	}
	return nil
}

func attached(cluster *marathon.Cluster) error {
	if cluster.Streams() == 0 {
		return errors.New("no event stream")
	}
	return nil
}
