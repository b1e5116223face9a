package marathon_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mi-lb/mi-lb/test/marathon"
)

func TestAppsAreCreatedReadChangedAndDeleted(t *testing.T) {
	cluster := fake(t)
	apps := cluster.URL() + "/v2/apps"
	status, text := call(t, "POST", apps, `{"id":"shop/web","cmd":"serve","instances":2,"labels":{"a":"b"},"env":{"X":"1","S":{"secret":"s"}}}`)
	if status != http.StatusCreated {
		t.Fatalf("%d %s", status, text)
	}
	created := decode(t, text)
	if created["id"] != "/shop/web" || len(created["deployments"].([]any)) != 1 {
		t.Errorf("created %v", created)
	}
	deployed(t, cluster)
	app := must(t, "GET", apps+"//shop/web", nil)["app"].(map[string]any)
	if app["tasksRunning"] != 2.0 || len(app["tasks"].([]any)) != 2 || len(app["deployments"].([]any)) != 0 {
		t.Errorf("deployed %v", app)
	}
	if want := map[string]any{"X": "1", "S": map[string]any{"secret": "s"}}; !reflect.DeepEqual(app["env"], want) {
		t.Errorf("env %v, want %v", app["env"], want)
	}
	must(t, "PUT", apps+"/shop/web", `{"instances":3}`)
	deployed(t, cluster)
	scaled := must(t, "GET", apps+"/shop/web", nil)["app"].(map[string]any)
	if scaled["cmd"] != "serve" || scaled["tasksRunning"] != 3.0 {
		t.Errorf("scaled %v", scaled)
	}
	if info := scaled["versionInfo"].(map[string]any); info["lastScalingAt"] != scaled["version"] || info["lastConfigChangeAt"] != app["version"] {
		t.Errorf("versions after scaling: %v, the first was %v", info, app["version"])
	}
	must(t, "PATCH", apps+"/shop/web", `{"labels":{"c":"d"}}`)
	deployed(t, cluster)
	patched := must(t, "GET", apps+"/shop/web", nil)["app"].(map[string]any)
	if want := map[string]any{"c": "d"}; !reflect.DeepEqual(patched["labels"], want) {
		t.Errorf("labels %v, want %v", patched["labels"], want)
	}
	if versions := must(t, "GET", apps+"/shop/web/versions", nil)["versions"].([]any); len(versions) != 3 {
		t.Errorf("versions %v", versions)
	}
	first := must(t, "GET", apps+"/shop/web/versions/"+app["version"].(string), nil)
	if first["instances"] != 2.0 {
		t.Errorf("first version %v", first)
	}
	must(t, "PUT", apps+"/shop/web", map[string]any{"version": app["version"]})
	deployed(t, cluster)
	if back := must(t, "GET", apps+"/shop/web", nil)["app"].(map[string]any); back["instances"] != 2.0 || at(t, back, "labels", "a") != "b" {
		t.Errorf("rolled back to %v", back)
	}
	before := cluster.Tasks("shop/web")
	must(t, "POST", apps+"/shop/web/restart", nil)
	deployed(t, cluster)
	for _, task := range cluster.Tasks("shop/web") {
		if slices.ContainsFunc(before, func(old marathon.Task) bool { return old.ID == task.ID }) {
			t.Errorf("task %s survived the restart", task.ID)
		}
	}
	must(t, "DELETE", apps+"/shop/web", nil)
	deployed(t, cluster)
	if status, text := call(t, "GET", apps+"/shop/web", nil); status != 404 || text != `{"message":"App '/shop/web' does not exist"}` {
		t.Errorf("after deletion: %d %s", status, text)
	}
	if tasks := must(t, "GET", cluster.URL()+"/v2/tasks", nil)["tasks"].([]any); len(tasks) != 0 {
		t.Errorf("tasks after deletion: %v", tasks)
	}
}

func TestDeploymentsLockTheirApps(t *testing.T) {
	cluster := start(t, marathon.Options{Fake: true, FakeDelay: 200 * patience})
	apps := cluster.URL() + "/v2/apps"
	must(t, "POST", apps, `{"id":"a","cmd":"x"}`)
	status, text := call(t, "PUT", apps+"/a", `{"instances":2}`)
	if status != 409 || !strings.HasPrefix(text, `{"message":"App is locked by one or more deployments. Override with the option '?force=true'. View details at '/v2/deployments/<DEPLOYMENT_ID>'.","deployments":[{"id":"`) {
		t.Errorf("%d %s", status, text)
	}
	if status, text := call(t, "POST", apps, `{"id":"a","cmd":"x"}`); status != 409 || text != `{"message":"An app with id [/a] already exists."}` {
		t.Errorf("%d %s", status, text)
	}
	must(t, "PUT", apps+"/a?force=true", `{"instances":2}`)
	var deployments []map[string]any
	_, text = call(t, "GET", cluster.URL()+"/v2/deployments", nil)
	if err := json.Unmarshal([]byte(text), &deployments); err != nil || len(deployments) != 1 {
		t.Fatalf("%v, %s", err, text)
	}
	id := deployments[0]["id"].(string)
	if status, _ := call(t, "DELETE", cluster.URL()+"/v2/deployments/"+id+"?force=true", nil); status != http.StatusAccepted {
		t.Errorf("cancelling gives %d", status)
	}
	deployed(t, cluster)
	if status, text := call(t, "DELETE", cluster.URL()+"/v2/deployments/"+id, nil); status != 404 || !strings.Contains(text, "does not exist") {
		t.Errorf("%d %s", status, text)
	}
}

func TestADeploymentIsRolledBack(t *testing.T) {
	cluster := start(t, marathon.Options{Fake: true})
	must(t, "POST", cluster.URL()+"/v2/apps", `{"id":"a","cmd":"x","constraints":[["hostname","LIKE","127.0.0.1"]]}`)
	deployed(t, cluster)
	change := must(t, "PUT", cluster.URL()+"/v2/apps/a", `{"cmd":"y","constraints":[["hostname","LIKE","nowhere"]]}`)
	queue := must(t, "GET", cluster.URL()+"/v2/queue", nil)
	if at(t, queue, "queue", 0, "app", "id") != "/a" || at(t, queue, "queue", 0, "count") != 1.0 {
		t.Errorf("queue %v", queue)
	}
	must(t, "DELETE", cluster.URL()+"/v2/deployments/"+change["deploymentId"].(string), nil)
	deployed(t, cluster)
	if app := must(t, "GET", cluster.URL()+"/v2/apps/a", nil); at(t, app, "app", "cmd") != "x" || at(t, app, "app", "tasksRunning") != 1.0 {
		t.Errorf("rolled back to %v", app)
	}
}

func TestDocumentsOfEveryReleaseAreUnderstood(t *testing.T) {
	type want struct {
		Networks        []marathon.Network        `json:"networks"`
		PortDefinitions []marathon.PortDefinition `json:"portDefinitions"`
		Container       *struct {
			PortMappings []marathon.PortMapping `json:"portMappings"`
		} `json:"container"`
	}
	zero := 0
	none := map[string]string{}
	mappings := func(mappings ...marathon.PortMapping) (c *struct {
		PortMappings []marathon.PortMapping `json:"portMappings"`
	}) {
		c = new(struct {
			PortMappings []marathon.PortMapping `json:"portMappings"`
		})
		c.PortMappings = mappings
		return c
	}
	for _, test := range []struct {
		name, document string
		want           want
	}{
		{"nothing said", `{"cmd":"x"}`, want{
			Networks:        []marathon.Network{{Mode: "host"}},
			PortDefinitions: []marathon.PortDefinition{{Name: "default", Port: 10000, Protocol: "tcp", Labels: none}},
		}},
		{"ports of 0.8", `{"cmd":"x","ports":[0,9001]}`, want{
			Networks:        []marathon.Network{{Mode: "host"}},
			PortDefinitions: []marathon.PortDefinition{{Port: 10000, Protocol: "tcp", Labels: none}, {Port: 9001, Protocol: "tcp", Labels: none}},
		}},
		{"no ports", `{"cmd":"x","portDefinitions":[]}`, want{
			Networks: []marathon.Network{{Mode: "host"}}, PortDefinitions: []marathon.PortDefinition{},
		}},
		{"docker host", `{"container":{"type":"DOCKER","docker":{"image":"i","network":"HOST"}},"ports":[9000]}`, want{
			Networks:        []marathon.Network{{Mode: "host"}},
			PortDefinitions: []marathon.PortDefinition{{Port: 9000, Protocol: "tcp", Labels: none}},
			Container:       mappings(),
		}},
		{"docker bridge of 1.4", tryOut, want{
			Networks:  []marathon.Network{{Mode: "container/bridge"}},
			Container: mappings(marathon.PortMapping{ContainerPort: 8080, HostPort: &zero, ServicePort: 9000, Protocol: "tcp", Labels: none}),
		}},
		{"docker user of 1.4", `{"container":{"docker":{"image":"i","network":"USER","portMappings":[{"containerPort":80,"servicePort":9000}]}},"ipAddress":{"networkName":"blue"}}`, want{
			Networks:  []marathon.Network{{Mode: "container", Name: "blue"}},
			Container: mappings(marathon.PortMapping{ContainerPort: 80, ServicePort: 9000, Protocol: "tcp", Labels: none}),
		}},
		{"address per task of 1.4", `{"cmd":"x","ipAddress":{"networkName":"blue","discovery":{"ports":[{"number":80,"name":"http","protocol":"tcp"}]}}}`, want{
			Networks:  []marathon.Network{{Mode: "container", Name: "blue"}},
			Container: mappings(marathon.PortMapping{ContainerPort: 80, Name: "http", ServicePort: 10000, Protocol: "tcp", Labels: none}),
		}},
		{"bridge of 1.5", `{"networks":[{"mode":"container/bridge"}],"container":{"docker":{"image":"i"},"portMappings":[{"containerPort":80}]}}`, want{
			Networks:  []marathon.Network{{Mode: "container/bridge"}},
			Container: mappings(marathon.PortMapping{ContainerPort: 80, HostPort: &zero, ServicePort: 10000, Protocol: "tcp", Labels: none}),
		}},
		{"two container networks of 1.5", `{"cmd":"x","networks":[{"name":"blue"},{"mode":"container","name":"red"}],"container":{"type":"MESOS","portMappings":[{"containerPort":80,"networkNames":["red"]}]}}`, want{
			Networks:  []marathon.Network{{Mode: "container", Name: "blue"}, {Mode: "container", Name: "red"}},
			Container: mappings(marathon.PortMapping{ContainerPort: 80, ServicePort: 10000, Protocol: "tcp", Labels: none, NetworkNames: []string{"red"}}),
		}},
		{"bridge without port mappings", `{"cmd":"x","networks":[{"mode":"container/bridge"}]}`, want{
			Networks:  []marathon.Network{{Mode: "container/bridge"}},
			Container: mappings(marathon.PortMapping{Name: "default", HostPort: &zero, ServicePort: 10000, Protocol: "tcp", Labels: none}),
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			cluster := fake(t)
			status, text := call(t, "PUT", cluster.URL()+"/v2/apps/app", test.document)
			if status != http.StatusCreated {
				t.Fatalf("%d %s", status, text)
			}
			deployed(t, cluster)
			_, text = call(t, "GET", cluster.URL()+"/v2/apps/app", nil)
			var got struct{ App want }
			if err := json.Unmarshal([]byte(text), &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got.App); diff != "" {
				t.Errorf("networking (-want +got):\n%s", diff)
			}
			if document := decode(t, text)["app"].(map[string]any); document["ports"] != nil || document["ipAddress"] != nil || document["uris"] != nil {
				t.Error("fields that 1.5 no longer writes are written")
			}
			// What it wrote, it reads.
			again := must(t, "PUT", cluster.URL()+"/v2/apps/app", decode(t, text)["app"])
			if again["deploymentId"] == nil {
				t.Errorf("writing it back gives %v", again)
			}
		})
	}
}

func TestWhatMarathonRefuses(t *testing.T) {
	cluster := fake(t)
	must(t, "POST", cluster.URL()+"/v2/apps", tryOut)
	deployed(t, cluster)
	invalid := func(path, problem string) string {
		return fmt.Sprintf(`{"message":"Object is not valid","details":[{"path":"%s","errors":["%s"]}]}`, path, problem)
	}
	for _, test := range []struct {
		name, method, path, body string
		status                   int
		want                     string
	}{
		{"unknown app", "GET", "/v2/apps/x", "", 404, `{"message":"App '/x' does not exist"}`},
		{"unknown app's tasks", "GET", "/v2/apps/x/tasks", "", 404, `{"message":"App '/x' does not exist"}`},
		{"patching an unknown app", "PATCH", "/v2/apps/x", `{"instances":1}`, 404, `{"message":"App '/x' does not exist"}`},
		{"unknown group", "GET", "/v2/groups/x", "", 404, `{"message":"Group '/x' does not exist"}`},
		{"unknown version", "GET", "/v2/apps/webserver/versions/2015-01-01T00:00:00.000Z", "", 404, `{"message":"App '/webserver' does not exist in version 2015-01-01T00:00:00.000Z"}`},
		{"unknown path", "GET", "/v2/nothing", "", 404, `{"message":"URI not found: /v2/nothing"}`},
		{"unknown method", "DELETE", "/v2/info", "", 405, `{"message":"HTTP 405 Method Not Allowed"}`},
		{"no JSON", "POST", "/v2/apps", `{"id":`, 400, `{"message":"Invalid JSON","details":"unexpected end of JSON input"}`},
		{"wrong type", "POST", "/v2/apps", `{"id":"x","cmd":"x","instances":"one"}`, 422, `{"message":"Invalid JSON","details":[{"path":"/instances","errors":["error.expected.jsnumber"]}]}`},
		{"no id", "POST", "/v2/apps", `{"cmd":"x"}`, 422, invalid("/id", "undefined")},
		{"reserved id", "POST", "/v2/apps", `{"id":"a/tasks","cmd":"x"}`, 422, invalid("/id", "must not end with any of the following reserved keywords: restart, tasks, versions, .")},
		{"nothing to run", "POST", "/v2/apps", `{"id":"x"}`, 422, invalid("/", "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'.")},
		{"negative instances", "POST", "/v2/apps", `{"id":"x","cmd":"x","instances":-1}`, 422, invalid("/instances", "got -1, expected 0 or more")},
		{"port out of range", "POST", "/v2/apps", `{"id":"x","cmd":"x","portDefinitions":[{"port":70000}]}`, 422, invalid("/portDefinitions(0)/servicePort", "got 70000, expected between 0 and 65535")},
		{"mixed networks", "POST", "/v2/apps", `{"id":"x","cmd":"x","networks":[{"mode":"host"},{"mode":"container/bridge"}]}`, 422, invalid("/networks", "may not mix networking modes")},
		{"health check of a port that is not there", "POST", "/v2/apps", `{"id":"x","cmd":"x","healthChecks":[{"portIndex":1}]}`, 422, invalid("/healthChecks(0)/portIndex", "Health check port indices must address an element of the ports array or container port mappings.")},
		{"taken service port", "POST", "/v2/apps", strings.Replace(tryOut, `"webserver"`, `"other"`, 1), 422, invalid("/", "Requested service port 9000 conflicts with a service port in app /webserver")},
		{"label selector", "GET", "/v2/apps?label=a+b", "", 422, `{"message":"Can not parse label selector a b"}`},
		{"text", "GET", "/v2/tasks", "text/plain", 406, `{"message":"HTTP 406 Not Acceptable"}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			request, err := http.NewRequest(test.method, cluster.URL()+test.path, strings.NewReader(test.body))
			if err != nil {
				t.Fatal(err)
			}
			if test.body == "text/plain" {
				request.Header.Set("Accept", test.body)
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			var got json.RawMessage
			if err := json.NewDecoder(response.Body).Decode(&got); err != nil {
				t.Fatal(err)
			}
			if response.StatusCode != test.status || string(got) != test.want {
				t.Errorf("%d %s\nwant %d %s", response.StatusCode, got, test.status, test.want)
			}
		})
	}
}

func TestServicePortsAreAssignedAndKept(t *testing.T) {
	cluster := start(t, marathon.Options{Fake: true, LocalPortMin: 10000, LocalPortMax: 10003})
	apps := cluster.URL() + "/v2/apps"
	port := func(app string) any {
		return at(t, must(t, "GET", apps+"/"+app, nil), "app", "portDefinitions", 0, "port")
	}
	for i, app := range []string{"a", "b", "c"} {
		must(t, "POST", apps, map[string]any{"id": app, "cmd": "x"})
		if got := port(app); got != float64(10000+i) {
			t.Errorf("%s has service port %v", app, got)
		}
	}
	deployed(t, cluster)
	must(t, "PUT", apps+"/b", `{"cmd":"y","ports":[0]}`)
	if got := port("b"); got != 10001.0 {
		t.Errorf("after a change b has service port %v", got)
	}
	status, text := call(t, "POST", apps, `{"id":"d","cmd":"x"}`)
	if status != 422 || !strings.Contains(text, "All ports in the range [10000-10003) are already in use") {
		t.Errorf("%d %s", status, text)
	}
	deployed(t, cluster)
	must(t, "DELETE", apps+"/a", nil)
	deployed(t, cluster)
	must(t, "POST", apps, `{"id":"d","cmd":"x"}`)
	if got := port("d"); got != 10000.0 {
		t.Errorf("d has service port %v", got)
	}
}

func TestServicePortConflictsCanBeAllowed(t *testing.T) {
	cluster := start(t, marathon.Options{Fake: true, AllowServicePortConflicts: true})
	must(t, "POST", cluster.URL()+"/v2/apps", tryOut)
	must(t, "POST", cluster.URL()+"/v2/apps", strings.Replace(tryOut, `"webserver"`, `"other"`, 1))
}

func TestAppsAreSelected(t *testing.T) {
	cluster := fake(t)
	for id, labels := range map[string]string{
		"/a": `{"tier":"web","HAPROXY_GROUP":"external"}`, "/b": `{"tier":"db"}`, "/g/c": `{}`,
	} {
		if err := cluster.PutApp([]byte(`{"id":"` + id + `","cmd":"run ` + id + `","labels":` + labels + `}`)); err != nil {
			t.Fatal(err)
		}
	}
	for query, want := range map[string][]string{
		"":                                    {"/a", "/b", "/g/c"},
		"?label=tier":                         {"/a", "/b"},
		"?label=tier==web":                    {"/a"},
		"?label=tier!=web":                    {"/b"},
		"?label=tier+in+(web,+db)":            {"/a", "/b"},
		"?label=tier+notin+(web,x)":           {"/b"},
		"?label=tier,HAPROXY_GROUP==external": {"/a"},
		"?id=C":                               {"/g/c"},
		"?cmd=run+/b":                         {"/b"},
	} {
		got := []string{}
		for _, app := range must(t, "GET", cluster.URL()+"/v2/apps"+query, nil)["apps"].([]any) {
			got = append(got, app.(map[string]any)["id"].(string))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q selects %v, want %v", query, got, want)
		}
	}
	if group := must(t, "GET", cluster.URL()+"/v2/apps/g/*", nil); at(t, group, "*", 0, "id") != "/g/c" {
		t.Errorf("apps of a group: %v", group)
	}
}

func TestTasksAreListedAndKilled(t *testing.T) {
	cluster := fake(t)
	base := cluster.URL() + "/v2"
	must(t, "POST", base+"/apps", `{"id":"a","cmd":"x","instances":4,"portDefinitions":[{"port":9000}]}`)
	deployed(t, cluster)
	all := must(t, "GET", base+"/tasks?status=running", nil)["tasks"].([]any)
	if len(all) != 4 || !reflect.DeepEqual(at(t, all, 0, "servicePorts"), []any{9000.0}) {
		t.Fatalf("tasks %v", all)
	}
	if staging := must(t, "GET", base+"/tasks?status=staging", nil)["tasks"].([]any); len(staging) != 0 {
		t.Errorf("staging: %v", staging)
	}
	embedded := must(t, "GET", base+"/apps?embed=apps.tasks", nil)
	if ports := at(t, embedded, "apps", 0, "tasks", 0, "servicePorts"); len(ports.([]any)) != 0 {
		t.Errorf("embedded tasks have service ports %v; Marathon fills them in /v2/tasks only", ports)
	}
	id := at(t, all, 0, "id").(string)
	if killed := must(t, "DELETE", base+"/apps/a/tasks/"+id, nil); at(t, killed, "task", "id") != id {
		t.Errorf("killed %v", killed)
	}
	deployed(t, cluster)
	if tasks := waitTasks(t, cluster, "a", "a replacement", running(4)); slices.ContainsFunc(tasks, func(task marathon.Task) bool { return task.ID == id }) {
		t.Error("the killed task still runs")
	}
	victims := []string{cluster.Tasks("a")[0].ID, cluster.Tasks("a")[2].ID}
	scaled := must(t, "POST", base+"/tasks/delete?scale=true", map[string]any{"ids": victims})
	if scaled["deploymentId"] == nil {
		t.Errorf("scaling down gives %v", scaled)
	}
	deployed(t, cluster)
	left := cluster.Tasks("a")
	if len(left) != 2 || slices.ContainsFunc(left, func(task marathon.Task) bool { return slices.Contains(victims, task.ID) }) {
		t.Errorf("left %v", left)
	}
	if killed := must(t, "DELETE", base+"/apps/a/tasks?host=127.0.0.1", nil)["tasks"].([]any); len(killed) != 2 {
		t.Errorf("killed %v", killed)
	}
}

func TestGroupsNest(t *testing.T) {
	cluster := fake(t)
	groups := cluster.URL() + "/v2/groups"
	status, text := call(t, "POST", groups, `{"id":"/shop","groups":[{"id":"db","apps":[{"id":"pg","cmd":"x"}]},
		{"id":"front","dependencies":["/shop/db"],"apps":[{"id":"web","cmd":"x","dependencies":["/shop/db/pg"]}]}]}`)
	if status != http.StatusCreated {
		t.Fatalf("%d %s", status, text)
	}
	deployed(t, cluster)
	shop := must(t, "GET", groups+"/shop", nil)
	if at(t, shop, "groups", 0, "apps", 0, "id") != "/shop/db/pg" || at(t, shop, "groups", 1, "dependencies", 0) != "/shop/db" {
		t.Errorf("group %v", shop)
	}
	if status, text := call(t, "POST", groups, `{"id":"/shop"}`); status != 409 {
		t.Errorf("%d %s", status, text)
	}
	must(t, "PUT", groups+"/shop", `{"scaleBy":2}`)
	deployed(t, cluster)
	if tasks := cluster.Tasks("/shop/front/web"); len(tasks) != 2 {
		t.Errorf("after scaling: %v", tasks)
	}
	must(t, "PUT", groups+"/shop/front", `{"apps":[{"id":"api","cmd":"y"}]}`)
	deployed(t, cluster)
	front := must(t, "GET", groups+"/shop/front", nil)
	if apps := front["apps"].([]any); len(apps) != 1 || at(t, apps, 0, "id") != "/shop/front/api" {
		t.Errorf("replaced apps: %v", apps)
	}
	must(t, "DELETE", groups+"/shop", nil)
	deployed(t, cluster)
	if root := must(t, "GET", groups, nil); len(root["groups"].([]any)) != 0 {
		t.Errorf("root after deletion: %v", root)
	}
}

func TestMarathonsOwnExampleGroupIsAccepted(t *testing.T) {
	// Its apps want a host of their own for each task.
	agents := make([]marathon.Agent, 5)
	for i := range agents {
		agents[i].Hostname = fmt.Sprintf("srv%d.example.com", i)
	}
	cluster := start(t, marathon.Options{Fake: true, Agents: agents})
	must(t, "PUT", cluster.URL()+"/v2/groups", sample(t, "group.json"))
	deployed(t, cluster)
	for app, want := range map[string]int{"/tools/oauth-server": 2, "/tools/datadog-agent": 5, "/tools/docker/registry": 1} {
		hosts := map[string]bool{}
		for _, task := range cluster.Tasks(app) {
			hosts[task.Agent.Hostname] = true
		}
		if len(hosts) != want {
			t.Errorf("%s runs on %d hosts, want %d", app, len(hosts), want)
		}
	}
}

func TestDependenciesAreDeployedFirst(t *testing.T) {
	cluster := fake(t)
	stream := subscribe(t, cluster.URL()+"/v2/events?event_type=status_update_event")
	must(t, "PUT", cluster.URL()+"/v2/groups", `{"apps":[{"id":"a","cmd":"x","dependencies":["b"]},{"id":"b","cmd":"x"}]}`)
	var order []any
	for _, event := range stream.until("a runs", func(e sent) bool { return e.data["appId"] == "/a" && e.data["taskStatus"] == "TASK_RUNNING" }) {
		if event.data["taskStatus"] == "TASK_RUNNING" {
			order = append(order, event.data["appId"])
		}
	}
	if want := []any{"/b", "/a"}; !reflect.DeepEqual(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
}

func TestPasswordIsAskedFor(t *testing.T) {
	cluster := start(t, marathon.Options{Fake: true, Username: "u", Password: "p:w"})
	if status, text := call(t, "GET", cluster.URL()+"/v2/info", nil); status != 401 || !strings.HasPrefix(text, "<html>") {
		t.Errorf("without: %d %s", status, text)
	}
	must(t, "GET", strings.Replace(cluster.URL(), "http://", "http://u:p%3Aw@", 1)+"/v2/info", nil)
	if status, _ := call(t, "GET", strings.Replace(cluster.URL(), "http://", "http://u:wrong@", 1)+"/v2/info", nil); status != 401 {
		t.Errorf("with a wrong one: %d", status)
	}
	if status, text := call(t, "GET", cluster.URL()+"/ping", nil); status != 200 || text != "pong" {
		t.Errorf("ping: %d %q", status, text)
	}
}

func TestSmallResources(t *testing.T) {
	cluster := fake(t)
	address := strings.TrimPrefix(cluster.URL(), "http://")
	if leader := must(t, "GET", cluster.URL()+"/v2/leader", nil); leader["leader"] != address {
		t.Errorf("leader %v, want %s", leader, address)
	}
	if info := must(t, "GET", cluster.URL()+"/v2/info", nil); info["version"] != "1.11.24" || info["elected"] != true || at(t, info, "marathon_config", "local_port_min") != 10000.0 {
		t.Errorf("info %v", info)
	}
	if metrics := must(t, "GET", cluster.URL()+"/metrics", nil); metrics["gauges"] == nil {
		t.Errorf("metrics %v", metrics)
	}
	if status, text := call(t, "GET", cluster.URL()+"/v2/pods/::status", nil); status != 200 || text != "[]" {
		t.Errorf("pods: %d %s", status, text)
	}
}
