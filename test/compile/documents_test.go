package compile

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mi-lb/mi-lb/watch"
	"github.com/mi-lb/mi-lb/watch/marathon"
)

// appsIn finds the app definitions in a document of any kind: one alone, in lists,
// in groups of groups, in a queue. Tasks that come without their app make one.
func appsIn(t *testing.T, raw json.RawMessage) []json.RawMessage {
	t.Helper()
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) == nil {
		var all []json.RawMessage
		for _, r := range list {
			all = append(all, appsIn(t, r)...)
		}
		return all
	}
	var o struct {
		ID        string            `json:"id"`
		AppID     string            `json:"appId"`
		Ports     []int             `json:"servicePorts"`
		Instances *int              `json:"instances"`
		App       json.RawMessage   `json:"app"`
		Task      json.RawMessage   `json:"task"`
		Apps      []json.RawMessage `json:"apps"`
		Groups    []json.RawMessage `json:"groups"`
		Queue     []json.RawMessage `json:"queue"`
		Tasks     []json.RawMessage `json:"tasks"`
	}
	if err := json.Unmarshal(raw, &o); err != nil {
		t.Fatal(err)
	}
	if o.ID != "" && o.Instances != nil {
		return []json.RawMessage{raw}
	}
	if o.AppID != "" {
		app, err := json.Marshal(map[string]any{"id": o.AppID, "ports": o.Ports, "tasks": []json.RawMessage{raw}})
		if err != nil {
			t.Fatal(err)
		}
		return []json.RawMessage{app}
	}
	var all []json.RawMessage
	for _, nested := range append(slices.Concat(o.Apps, o.Groups, o.Queue, o.Tasks), o.App, o.Task) {
		if nested != nil {
			all = append(all, appsIn(t, nested)...)
		}
	}
	return all
}

func TestExamplesOfMarathonCompile(t *testing.T) {
	for name, want := range map[string][]string{
		"app.json":          {"10019 http -> foo []"},
		"app_list.json":     {"10013 tcp -> myapp []", "10015 tcp -> myapp-1 []"},
		"app_list-1.4.json": {"10013 tcp -> myapp []", "10015 tcp -> myapp-1 []"},
		"app_task.json":     nil, // its task comes without service ports
		"app_tasks.json":    nil, // the same
		"group.json":        {"1980 http -> tools-oauth-server []", "5000 tcp -> tools-docker-registry []", "10018 tcp -> tools-datadog-agent []"},
		"queue.json":        {"10010 tcp -> foo []", "10018 tcp -> tools-datadog-agent []"},
		"tasks.json":        {"5000 tcp -> tools-docker-registry [10.1.0.2:31721 ready]", "10019 tcp -> frontend-foosball [10.1.0.4:31292 ready]"},
	} {
		t.Run(name, func(t *testing.T) {
			part := decoded(t, listOf(t, appsIn(t, fixture(t, name))))
			table := compiled(t, policy, part)
			var got []string
			for _, p := range table.Ports {
				servers := []string{}
				for _, s := range backends(table)[p.Backend].Servers {
					servers = append(servers, fmt.Sprint(s.Address, " ", s.State))
				}
				got = append(got, fmt.Sprintf("%d %s -> %s %s", p.Number, p.Protocol, p.Service, servers))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if len(table.Findings) > 0 {
				t.Error(table.Findings)
			}
		})
	}
}

// What is no list of apps must not be taken for an empty one.
func TestDocumentsOfOtherKindsAreNoApps(t *testing.T) {
	for _, name := range []string{"app.json", "app_task.json", "app_tasks.json", "deployments.json", "info.json", "pod.json", "queue.json", "tasks.json", "events.txt"} {
		if part, err := marathon.Decode(source, "dc1", fixture(t, name), agents, noon); err == nil {
			t.Errorf("%s: taken for %d apps", name, len(part.Apps))
		}
	}
}

// A registration that comes before its task, or outlives it, is that app's: it
// gets no traffic, and its name in Consul does not surface as another service.
func TestRegistrationIsKnownForItsAppWhateverStateTheTaskIsIn(t *testing.T) {
	for state, want := range map[string]string{
		"TASK_CREATED":          "maint",
		"TASK_STAGING":          "maint",
		"TASK_STARTING":         "maint",
		"TASK_RUNNING":          "ready",
		"TASK_UNREACHABLE":      "ready",
		"TASK_LOST":             "ready",
		"TASK_KILLING":          "drain",
		"TASK_FINISHED":         "maint",
		"TASK_FAILED":           "maint",
		"TASK_KILLED":           "maint",
		"TASK_ERROR":            "maint",
		"TASK_DROPPED":          "maint",
		"TASK_GONE":             "maint",
		"TASK_GONE_BY_OPERATOR": "maint",
		"TASK_UNKNOWN":          "maint",
		"TASK_NEVER_HEARD_OF":   "maint",
	} {
		t.Run(state, func(t *testing.T) {
			apps := decoded(t, fmt.Appendf(nil, `{"apps":[{"id":"/webserver","container":{"type":"DOCKER","docker":{"image":"python","network":"BRIDGE",
				"portMappings":[{"containerPort":8080,"hostPort":0,"servicePort":9000}]}},
				"tasks":[{"id":"webserver.1","host":"agent1","ports":[31000],"state":%q,"startedAt":"2020-01-01T00:00:00Z"}]}]}`, state))
			registered := &watch.Part{
				Source: watch.Source{Kind: watch.Consul, Name: "dc1"}, Datacenter: "dc1",
				Services: map[string]*watch.Service{"python": {Name: "python", Instances: []watch.Instance{{
					ID: "agent1:mesos-1:8080", Node: "agent1", Address: apps.Apps["/webserver"].Tasks[0].Addresses[0],
					Health: watch.HealthPassing, Weights: watch.Weights{Passing: 1, Warning: 1},
				}}}},
			}
			table := compiled(t, policy, apps, registered)
			if len(table.Services) != 1 || table.Services[0].Name != "webserver" || !slices.Contains(table.Services[0].Aliases, "python") {
				t.Fatalf("%+v", table.Services)
			}
			for _, b := range table.Backends {
				if len(b.Servers) != 1 || string(b.Servers[0].State) != want {
					t.Errorf("%s: %+v", b.ID, b.Servers)
				}
			}
			if len(table.Ports) != 1 || table.Ports[0].Number != 9000 {
				t.Errorf("%+v", table.Ports)
			}
		})
	}
}
