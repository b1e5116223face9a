package marathon

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/mi-lb/mi-lb/watch"
)

var noon = time.Date(2020, 1, 1, 12, 0, 0, 0, time.UTC)

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// built is the app that comes of a document seen for the first time.
func built(t *testing.T, doc string, before *watch.App) (*watch.App, []watch.Finding) {
	t.Helper()
	d, err := decodeApp("marathon/test", json.RawMessage(doc))
	if err != nil {
		t.Fatal(err)
	}
	agents := map[string]agentAddress{
		"agent1": {addr: netip.MustParseAddr("10.0.0.1")},
		"agent2": {addr: netip.MustParseAddr("10.0.0.2")},
	}
	app, findings, _ := build(d, before, taskView{source: "marathon/test", memory: newMemory(nil, forLong), agents: agents, now: noon})
	return app, append(d.findings, findings...)
}

func addresses(app *watch.App) []string {
	var all []string
	for _, task := range app.Tasks {
		for _, a := range task.Addresses {
			if a.IsValid() {
				all = append(all, a.String())
			} else {
				all = append(all, "-")
			}
		}
	}
	return all
}

func servicePorts(app *watch.App) []int {
	var all []int
	for _, p := range app.Ports {
		all = append(all, p.ServicePort)
	}
	return all
}

const running = `"state":"TASK_RUNNING","startedAt":"2020-01-01T00:00:00.000Z"`

func TestNetworkingOfEveryVersionLeadsToAddresses(t *testing.T) {
	for name, c := range map[string]struct {
		doc   string
		ports []int
		want  []string
	}{
		"0.8: ports on the agent, tasks without a state": {
			`{"id":"/a","ports":[10001,10002],"container":null,"tasks":[{"id":"t","host":"agent1","ports":[31001,31002],"startedAt":"2020-01-01T00:00:00.000Z","servicePorts":[10001,10002]}]}`,
			[]int{10001, 10002}, []string{"10.0.0.1:31001", "10.0.0.1:31002"}},
		"staged, not placed yet": {
			`{"id":"/a","ports":[10001],"tasks":[{"id":"t","host":"","ports":[],"state":"TASK_STAGING"}]}`,
			[]int{10001}, nil},
		"starting, its own address not known yet": {
			`{"id":"/a","networks":[{"name":"n"}],"container":{"portMappings":[{"containerPort":80,"servicePort":10001}]},"tasks":[{"id":"t","host":"agent1","ports":[],"state":"TASK_STARTING"}]}`,
			[]int{10001}, nil},
		"0.8: a task without startedAt is staging": {
			`{"id":"/a","ports":[10001],"tasks":[{"id":"t","host":"agent1","ports":[31001],"startedAt":null}]}`,
			[]int{10001}, []string{"10.0.0.1:31001"}},
		"0.8: docker bridge": {
			`{"id":"/a","ports":[9000],"container":{"type":"DOCKER","docker":{"image":"python","network":"BRIDGE","portMappings":[{"containerPort":8080,"hostPort":0,"servicePort":9000,"protocol":"tcp"}]}},"tasks":[{"id":"t","host":"agent1","ports":[31005],"startedAt":"2020-01-01T00:00:00.000Z"}]}`,
			[]int{9000}, []string{"10.0.0.1:31005"}},
		"0.9: docker host": {
			`{"id":"/a","ports":[9000],"container":{"docker":{"network":"HOST","portMappings":null}},"tasks":[{"id":"t","host":"agent1","ports":[31005],"startedAt":"2020-01-01T00:00:00.000Z"}]}`,
			[]int{9000}, []string{"10.0.0.1:31005"}},
		"0.9: bridge whose mappings are null": {
			`{"id":"/a","ports":[9000],"container":{"docker":{"network":"BRIDGE","portMappings":null}},"tasks":[{"id":"t","host":"agent1","ports":[31005],"startedAt":"2020-01-01T00:00:00.000Z"}]}`,
			[]int{9000}, []string{"10.0.0.1:31005"}},
		"0.14: address per task, discovery ports": {
			`{"id":"/a","ports":[],"ipAddress":{"groups":[],"discovery":{"ports":[{"number":80,"name":"http","protocol":"tcp"},{"number":443,"name":"https","protocol":"tcp"}]}},"tasks":[{"id":"t","host":"agent1","ports":[],"ipAddresses":[{"ipAddress":"192.0.2.7","protocol":"IPv4"}],` + running + `}]}`,
			[]int{0, 0}, []string{"192.0.2.7:80", "192.0.2.7:443"}},
		"1.4: host with port definitions beside ports": {
			`{"id":"/a","ports":[10013],"portDefinitions":[{"port":10013,"protocol":"tcp","name":"http","labels":{"VIP":"x"}}],"tasks":[{"id":"t","host":"agent2","ports":[31008],"ipAddresses":[{"ipAddress":"10.9.9.9","protocol":"IPv4"}],` + running + `}]}`,
			[]int{10013}, []string{"10.0.0.2:31008"}},
		"1.4: bridge ignores docker's internal address": {
			`{"id":"/a","container":{"docker":{"network":"BRIDGE","portMappings":[{"containerPort":80,"hostPort":0,"servicePort":10001}]}},"tasks":[{"id":"t","host":"agent1","ports":[31005],"ipAddresses":[{"ipAddress":"172.17.0.2","protocol":"IPv4"}],` + running + `}]}`,
			[]int{10001}, []string{"10.0.0.1:31005"}},
		"1.4: USER network, unmapped": {
			`{"id":"/a","container":{"docker":{"network":"USER","portMappings":[{"containerPort":80,"servicePort":10001},{"containerPort":81,"hostPort":null,"servicePort":10002}]}},"ipAddress":{"networkName":"dcos"},"tasks":[{"id":"t","host":"agent1","ports":[],"ipAddresses":[{"ipAddress":"9.0.1.3","protocol":"IPv4"}],` + running + `}]}`,
			[]int{10001, 10002}, []string{"9.0.1.3:80", "9.0.1.3:81"}},
		"1.4: USER network, the second port mapped": {
			`{"id":"/a","container":{"docker":{"network":"USER","portMappings":[{"containerPort":80,"servicePort":10001},{"containerPort":81,"hostPort":0,"servicePort":10002}]}},"ipAddress":{"networkName":"dcos"},"tasks":[{"id":"t","host":"agent1","ports":[31333],"ipAddresses":[{"ipAddress":"9.0.1.3","protocol":"IPv4"}],` + running + `}]}`,
			[]int{10001, 10002}, []string{"9.0.1.3:80", "10.0.0.1:31333"}},
		"1.5: host": {
			`{"id":"/a","networks":[{"mode":"host"}],"portDefinitions":[{"port":10013,"protocol":"udp,tcp"}],"tasks":[{"id":"t","host":"agent1","ports":[31008],` + running + `}]}`,
			[]int{10013}, []string{"10.0.0.1:31008"}},
		"1.5: no networks means host": {
			`{"id":"/a","container":{"type":"MESOS","docker":{"image":"x"}},"portDefinitions":[{"port":10013}],"tasks":[{"id":"t","host":"agent1","ports":[31008],` + running + `}]}`,
			[]int{10013}, []string{"10.0.0.1:31008"}},
		"1.5: bridge": {
			`{"id":"/a","networks":[{"mode":"container/bridge"}],"container":{"portMappings":[{"containerPort":80,"hostPort":0,"servicePort":10001},{"containerPort":81,"hostPort":0,"servicePort":10002}]},"tasks":[{"id":"t","host":"agent1","ports":[31001,31002],` + running + `}]}`,
			[]int{10001, 10002}, []string{"10.0.0.1:31001", "10.0.0.1:31002"}},
		"1.5: bridge, containerPort 0 is the host port": {
			`{"id":"/a","networks":[{"mode":"container/bridge"}],"container":{"portMappings":[{"containerPort":0,"hostPort":0,"servicePort":10001}]},"tasks":[{"id":"t","host":"agent1","ports":[31001],` + running + `}]}`,
			[]int{10001}, []string{"10.0.0.1:31001"}},
		"1.5: container, mapped and containerPort 0": {
			`{"id":"/a","networks":[{"mode":"container","name":"dcos"}],"container":{"portMappings":[{"containerPort":0,"hostPort":0,"servicePort":10001}]},"tasks":[{"id":"t","host":"agent1","ports":[31001],"ipAddresses":[{"ipAddress":"9.0.1.3"}],` + running + `}]}`,
			[]int{10001}, []string{"10.0.0.1:31001"}},
		"1.5: container, unmapped containerPort 0 is unreachable": {
			`{"id":"/a","networks":[{"mode":"container","name":"dcos"}],"container":{"portMappings":[{"containerPort":0,"servicePort":10001}]},"tasks":[{"id":"t","host":"agent1","ports":[],"ipAddresses":[{"ipAddress":"9.0.1.3"}],` + running + `}]}`,
			[]int{10001}, []string{"-"}},
		"1.5: the mode of a network defaults to container": {
			`{"id":"/a","networks":[{"name":"dcos"}],"container":{"portMappings":[{"containerPort":80,"servicePort":10001}]},"tasks":[{"id":"t","host":"agent1","ports":[],"ipAddresses":[{"ipAddress":"fd01::3"},{"ipAddress":"9.0.1.3"}],` + running + `}]}`,
			[]int{10001}, []string{"9.0.1.3:80"}},
		"1.5: IPv6 only": {
			`{"id":"/a","networks":[{"mode":"container","name":"v6"}],"container":{"portMappings":[{"containerPort":80,"servicePort":10001}]},"tasks":[{"id":"t","host":"agent1","ipAddresses":[{"ipAddress":"fd01::3","protocol":"IPv6"}],` + running + `}]}`,
			[]int{10001}, []string{"[fd01::3]:80"}},
		"1.5: several networks, by name": {
			`{"id":"/a","networks":[{"mode":"container","name":"first"},{"mode":"container","name":"second"}],"container":{"portMappings":[{"containerPort":80,"servicePort":10001,"networkNames":["second"]},{"containerPort":81,"servicePort":10002,"networkNames":["first"]},{"containerPort":82,"servicePort":10003},{"containerPort":83,"hostPort":0,"servicePort":10004,"networkNames":["first"]},{"containerPort":84,"servicePort":10005,"networkNames":["nowhere"]}]},"tasks":[{"id":"t","host":"agent1","ports":[31009],"ipAddresses":[{"ipAddress":"9.1.0.1"},{"ipAddress":"9.2.0.1"}],` + running + `}]}`,
			[]int{10001, 10002, 10003, 10004, 10005}, []string{"9.2.0.1:80", "9.1.0.1:81", "9.1.0.1:82", "10.0.0.1:31009", "-"}},
		"1.5: several networks, two address families": {
			`{"id":"/a","networks":[{"name":"first"},{"name":"second"}],"container":{"portMappings":[{"containerPort":80,"networkNames":["second"]}]},"tasks":[{"id":"t","host":"agent1","ipAddresses":[{"ipAddress":"9.1.0.1"},{"ipAddress":"fd01::1"},{"ipAddress":"9.2.0.1"},{"ipAddress":"fd02::1"}],` + running + `}]}`,
			[]int{0}, []string{"9.2.0.1:80"}},
		"1.5: several networks, an address missing": {
			`{"id":"/a","networks":[{"name":"first"},{"name":"second"}],"container":{"portMappings":[{"containerPort":80,"networkNames":["second"]}]},"tasks":[{"id":"t","host":"agent1","ipAddresses":[{"ipAddress":"9.1.0.1"}],` + running + `}]}`,
			[]int{0}, []string{"-"}},
		"1.11: unreachable, ports gone, fixed host port": {
			`{"id":"/a","networks":[{"mode":"container/bridge"}],"container":{"portMappings":[{"containerPort":80,"hostPort":8080,"servicePort":10001}]},"tasks":[{"id":"t","host":"agent1","ports":[],"state":"TASK_UNREACHABLE"}]}`,
			[]int{10001}, []string{"10.0.0.1:8080"}},
		"1.11: unreachable, ports gone": {
			`{"id":"/a","networks":[{"mode":"container/bridge"}],"container":{"portMappings":[{"containerPort":80,"hostPort":0,"servicePort":10001}]},"tasks":[{"id":"t","host":"agent1","ports":[],"state":"TASK_UNREACHABLE"}]}`,
			[]int{10001}, []string{"-"}},
		"the agent does not resolve": {
			`{"id":"/a","portDefinitions":[{"port":10013}],"tasks":[{"id":"t","host":"nowhere","ports":[31008],` + running + `}]}`,
			[]int{10013}, []string{"-"}},
		"no ports at all": {
			`{"id":"/a","tasks":[{"id":"t","host":"agent1","ports":[],` + running + `}]}`, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			app, _ := built(t, c.doc, nil)
			if got := servicePorts(app); !slices.Equal(got, c.ports) {
				t.Errorf("service ports %v, want %v", got, c.ports)
			}
			if got := addresses(app); !slices.Equal(got, c.want) {
				t.Errorf("addresses %v, want %v", got, c.want)
			}
		})
	}
}

func TestTaskKeepsTheAddressItHadWhereMarathonNoLongerSays(t *testing.T) {
	doc := func(task string) string {
		return `{"id":"/a","networks":[{"mode":"container/bridge"}],"container":{"portMappings":[{"containerPort":80,"hostPort":0,"servicePort":10001}]},"tasks":[` + task + `]}`
	}
	before, _ := built(t, doc(`{"id":"t","host":"agent1","ports":[31001],`+running+`}`), nil)
	for _, state := range []string{"TASK_UNREACHABLE", "TASK_LOST", "TASK_RUNNING"} {
		app, _ := built(t, doc(`{"id":"t","host":"agent1","ports":[],"state":"`+state+`"}`), before)
		if got := addresses(app); !slices.Equal(got, []string{"10.0.0.1:31001"}) {
			t.Errorf("%s: %v", state, got)
		}
	}
	app, _ := built(t, doc(`{"id":"t","host":"gone.example.com","ports":[31001],`+running+`}`), before)
	if got := addresses(app); !slices.Equal(got, []string{"10.0.0.1:31001"}) {
		t.Errorf("host does not resolve: %v", got)
	}
}

func TestTaskOfAnOlderDefinitionKeepsItsContainerPort(t *testing.T) {
	doc := func(port int, version string) string {
		return fmt.Sprintf(`{"id":"/a","version":%q,"networks":[{"name":"n"}],"container":{"portMappings":[{"containerPort":%d}]},"tasks":[{"id":"t","host":"agent1","version":"v1","ipAddresses":[{"ipAddress":"9.0.0.1"}],%s}]}`, version, port, running)
	}
	before, _ := built(t, doc(80, "v1"), nil)
	app, _ := built(t, doc(90, "v2"), before)
	if got := addresses(app); !slices.Equal(got, []string{"9.0.0.1:80"}) {
		t.Error(got)
	}
}

func TestExamplesOfMarathonDecode(t *testing.T) {
	d, err := decodeApp("marathon/test", fixture(t, "app.json"))
	if err != nil {
		t.Fatal(err)
	}
	want := watch.App{
		ID: "/foo", Image: "mesosphere:marathon/latest", KillGrace: 30 * time.Second,
		Labels: map[string]string{"owner": "zeus", "note": "Away from olympus"},
		Ports:  []watch.AppPort{{Name: "http", ServicePort: 10019, ContainerPort: 80, Protocol: "tcp", Labels: map[string]string{"vip": "192.168.0.1:80"}}},
		HealthChecks: []watch.HealthCheck{{
			Protocol: "HTTP", Path: "/", Interval: 20 * time.Second, Timeout: 20 * time.Second, MaxConsecutiveFailures: 3,
		}},
	}
	if diff := cmp.Diff(want, d.app); diff != "" {
		t.Error(diff)
	}
	if len(d.findings) != 0 {
		t.Error(d.findings)
	}
	for _, name := range []string{"app_list.json", "app_list-1.4.json"} {
		docs, nameless, findings, err := decodeApps("marathon/test", fixture(t, name))
		if err != nil || nameless != 0 || len(findings) != 0 || len(docs) != 1 {
			t.Fatal(name, err, nameless, findings)
		}
		d := docs[0]
		ports := []watch.AppPort{{ServicePort: 10013, Protocol: "tcp"}, {ServicePort: 10015, Protocol: "tcp"}}
		if diff := cmp.Diff(watch.App{ID: "/myapp", Version: "2015-09-25T15:13:48.343Z", Ports: ports}, d.app, cmpopts.EquateEmpty()); diff != "" {
			t.Error(name, diff)
		}
	}
	// Documents of other kinds are no lists of apps, and no emptiness either.
	for _, name := range []string{"pod.json", "group.json", "info.json", "deployments.json", "tasks.json", "app_task.json"} {
		if docs, _, _, err := decodeApps("marathon/test", fixture(t, name)); err == nil && name != "group.json" {
			t.Errorf("%s: taken for %d apps", name, len(docs))
		}
	}
}

func TestCasesOfMarathonLBLeadToItsServers(t *testing.T) {
	var cases []struct {
		Name     string            `json:"name"`
		Apps     []json.RawMessage `json:"apps"`
		Expected string            `json:"expected_cfg_after_head"`
	}
	if err := json.Unmarshal(fixture(t, "marathon-lb-cases.json"), &cases); err != nil {
		t.Fatal(err)
	}
	server := regexp.MustCompile(`(?m)^  server \S+ (\S+)`)
	if len(cases) != 30 {
		t.Fatalf("%d cases", len(cases))
	}
	for _, c := range cases {
		got := map[string]bool{}
		for _, raw := range c.Apps {
			app, findings := built(t, string(raw), nil)
			if len(findings) > 0 {
				t.Errorf("%s: %v", c.Name, findings)
			}
			for _, a := range addresses(app) {
				got[a] = true
			}
		}
		// marathon-lb leaves out what its groups exclude; every server that it
		// renders must be known.
		for _, m := range server.FindAllStringSubmatch(c.Expected, -1) {
			if !got[m[1]] {
				t.Errorf("%s: %s missing from %v", c.Name, m[1], got)
			}
		}
		if len(c.Apps) > 0 && len(got) == 0 {
			t.Errorf("%s: no addresses", c.Name)
		}
	}
}

func TestOddDocumentsHurtOnlyThemselves(t *testing.T) {
	body := `{"apps":[
		null, 7, "x", {}, {"id":null}, {"id":5}, {"id":"/"},
		{"id":"/ok","ports":[9000],"tasks":[{"id":"t","host":"agent1","ports":[31000],` + running + `}]},
		{"id":"/ok"},
		{"id":"/odd","labels":{"a":1,"b":"x","c":null},"env":{"SERVICE_NAME":"web","SERVICE_80_NAME":{"secret":"s"},"PASSWORD":"hunter2","SERVICE_TAGS":7,"N":null},
		 "container":[],"ports":["9001",9002.5,-1,70000,null,{}],"healthChecks":[null,{"portIndex":"x"},{"port":8080,"protocol":"TCP"},{"protocol":"COMMAND"}],
		 "tasks":[null,5,{"id":"a","host":null,"ports":"x","state":5,"startedAt":"yesterday","healthCheckResults":{},"ipAddresses":[{"ipAddress":"::x"}]},{"id":"b"},{"id":"b"},{"host":"agent1"}],
		 "version":9,"networks":"host","ipAddress":false,"deployments":{},"readinessChecks":0,"taskKillGracePeriodSeconds":-5},
		{"id":"rel","tasks":null}
	]}`
	docs, nameless, findings, err := decodeApps("marathon/test", []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	if nameless != 7 || len(findings) != 8 {
		t.Errorf("nameless %d, findings %v", nameless, findings)
	}
	var ids []string
	for _, d := range docs {
		ids = append(ids, d.app.ID)
	}
	if !slices.Equal(ids, []string{"/ok", "/odd", "/rel"}) {
		t.Fatal(ids)
	}
	odd := docs[1]
	if diff := cmp.Diff(map[string]string{"SERVICE_NAME": "web"}, odd.app.Env); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"b": "x"}, odd.app.Labels); diff != "" {
		t.Error(diff)
	}
	if got := servicePorts(&odd.app); !slices.Equal(got, []int{9001, 0, 0, 0, 0, 0}) {
		t.Error(got)
	}
	if len(odd.findings) == 0 || len(odd.findings) > mostFindings+1 {
		t.Errorf("%d findings", len(odd.findings))
	}
	for _, f := range odd.findings {
		if strings.Contains(f.String(), "hunter2") {
			t.Errorf("secret in %s", f)
		}
	}
	if docs[2].tasksKnown {
		t.Error("null tasks taken for none")
	}
	for _, body := range []string{``, `null`, `[]`, `{}`, `{"apps":null}`, `{"apps":{}}`, `{"apps":[{"id":"/a"}`, `<html>`, `{"message":"x"}`} {
		if _, _, _, err := decodeApps("marathon/test", []byte(body)); err == nil {
			t.Errorf("%q is no list of apps", body)
		}
		if _, err := decodeSingle("marathon/test", []byte(body)); err == nil {
			t.Errorf("%q is no app", body)
		}
	}
}

func TestMissingListOfTasksKeepsTheTasks(t *testing.T) {
	before, _ := built(t, `{"id":"/a","ports":[9000],"tasks":[{"id":"t","host":"agent1","ports":[31000],`+running+`}]}`, nil)
	for _, tasks := range []string{"null", `"x"`, "{}"} {
		app, findings := built(t, `{"id":"/a","ports":[9000],"tasks":`+tasks+`}`, before)
		if app != before || len(findings) == 0 {
			t.Errorf("tasks %s: %+v, %v", tasks, app, findings)
		}
	}
	if app, _ := built(t, `{"id":"/a","ports":[9000],"tasks":[]}`, before); len(notEnded(app)) != 0 {
		t.Error("an empty list is an empty list")
	}
}

func TestNullsInThePlaceOfEverythingChangeNothing(t *testing.T) {
	const whole = `{"id":"/a","version":"v1","ports":[9000],"labels":{"mi-lb.host":"a.test"},"tasks":[{"id":"t","host":"agent1","ports":[31000],` + running + `},{"id":"u","host":"agent1","ports":[31001],` + running + `}]}`
	before, _ := built(t, whole, nil)
	for _, document := range []string{
		`{"id":"/a","version":null,"ports":null,"labels":null,"tasks":[{"id":"t","host":null,"ports":null,"state":null,"startedAt":null},null]}`,
		`{"id":"/a"}`,
		`{"id":"/a","version":"v1","ports":[9000],"labels":{"mi-lb.host":"a.test"},"tasks":[{"id":"t","host":null,"ports":null,"state":null},{"id":"u","host":"agent1","ports":[31001],` + running + `}]}`,
	} {
		app, findings := built(t, document, before)
		if app != before || len(findings) == 0 {
			t.Errorf("%s: %+v, %v", document, app, findings)
		}
	}
	if app, _ := built(t, `{"id":"/a","version":"v2","ports":[9001],"tasks":[]}`, before); len(notEnded(app)) != 0 || app.Ports[0].ServicePort != 9001 {
		t.Errorf("a whole document changes the app: %+v", app)
	}
}

func FuzzDecodeApps(f *testing.F) {
	for _, name := range []string{"app_list.json", "app_list-1.4.json", "group.json"} {
		f.Add(fixture(f, name))
	}
	var cases []struct {
		Apps json.RawMessage `json:"apps"`
	}
	if err := json.Unmarshal(fixture(f, "marathon-lb-cases.json"), &cases); err != nil {
		f.Fatal(err)
	}
	for _, c := range cases {
		f.Add([]byte(`{"apps":` + string(c.Apps) + `}`))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		docs, _, _, err := decodeApps("marathon/test", body)
		if err != nil {
			return
		}
		m := newMemory(nil, forLong)
		for _, d := range docs {
			v := taskView{memory: m, agents: map[string]agentAddress{}, now: noon}
			for _, h := range d.hosts() {
				v.agents[h] = agentAddress{addr: netip.MustParseAddr("10.0.0.1")}
			}
			app, _, _ := build(d, nil, v)
			for _, task := range app.Tasks {
				if len(task.Addresses) != len(app.Ports) {
					t.Fatalf("%d addresses for %d ports", len(task.Addresses), len(app.Ports))
				}
			}
			for name := range app.Env {
				if !strings.HasPrefix(name, "SERVICE_") {
					t.Fatalf("%q kept", name)
				}
			}
			again, _, _ := build(d, app, v)
			if again != app {
				t.Fatal("an unchanged document makes another app")
			}
		}
	})
}
