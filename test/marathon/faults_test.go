package marathon_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/test/marathon"
)

// emulate uses the emulator's own API.
func emulate(t *testing.T, cluster *marathon.Cluster, method, path string, body any) map[string]any {
	t.Helper()
	return must(t, method, cluster.URL()+"/_emulator/"+path, body)
}

func TestRequestsFailAsOftenAsAsked(t *testing.T) {
	cluster := fake(t)
	emulate(t, cluster, "POST", "faults", `{"kind":"status","status":503,"path":"/v2/apps","count":2}`)
	var got []int
	for range 3 {
		status, _ := call(t, "GET", cluster.URL()+"/v2/apps", nil)
		got = append(got, status)
	}
	if fmt.Sprint(got) != "[503 503 200]" {
		t.Errorf("statuses %v", got)
	}
	number, err := cluster.Inject(marathon.Fault{Kind: marathon.FaultStatus, Body: `{"message":"boom"}`})
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if status, text := call(t, "GET", cluster.URL()+"/v2/info", nil); status != 500 || text != `{"message":"boom"}` {
			t.Errorf("%d %s", status, text)
		}
	}
	if listed := emulate(t, cluster, "GET", "faults", nil); at(t, listed, "faults", 0, "id") != float64(number) {
		t.Errorf("faults %v", listed)
	}
	cluster.ClearFault(number)
	must(t, "GET", cluster.URL()+"/v2/info", nil)
	if _, err := cluster.Inject(marathon.Fault{Kind: "explosion"}); err == nil {
		t.Error("an unknown kind was accepted")
	}
}

func TestAnswersAreBroken(t *testing.T) {
	cluster := fake(t)
	if err := cluster.PutApp([]byte(tryOut), marathon.FakeTask{ID: "t1", Ports: []int{31000}}); err != nil {
		t.Fatal(err)
	}
	broken := func(kind marathon.FaultKind) string {
		if _, err := cluster.Inject(marathon.Fault{Kind: kind, Count: 1}); err != nil {
			t.Fatal(err)
		}
		status, text := call(t, "GET", cluster.URL()+"/v2/apps?embed=apps.tasks", nil)
		if status != 200 {
			t.Errorf("%s: status %d", kind, status)
		}
		return text
	}
	var document any
	if text := broken(marathon.FaultTruncate); json.Unmarshal([]byte(text), &document) == nil || !strings.HasPrefix(text, `{"apps":[{`) {
		t.Errorf("truncated: %s", text)
	}
	if text := broken(marathon.FaultEmpty); text != `{"apps":[]}` {
		t.Errorf("empty: %s", text)
	}
	nulls := decode(t, broken(marathon.FaultNulls))
	app := at(t, nulls, "apps", 0).(map[string]any)
	if app["id"] != "/webserver" || app["container"] != nil || at(t, app, "tasks", 0, "id") != "t1" || at(t, app, "tasks", 0, "ports") != nil || at(t, nulls, "apps", 1) != nil {
		t.Errorf("nulls: %v", nulls)
	}
}

func TestAnswersAreSlow(t *testing.T) {
	cluster := fake(t)
	if _, err := cluster.Inject(marathon.Fault{Kind: marathon.FaultDelay, Delay: 100 * patience, Path: "/v2/info"}); err != nil {
		t.Fatal(err)
	}
	client := http.Client{Timeout: 100 * time.Millisecond}
	if _, err := client.Get(cluster.URL() + "/v2/info"); err == nil {
		t.Error("the answer came")
	}
	cluster.ClearFaults()
	must(t, "GET", cluster.URL()+"/v2/info", nil)
}

func TestStreamsFallSilentLoseEventsAndClose(t *testing.T) {
	cluster := start(t, marathon.Options{Fake: true, HeartbeatInterval: 5 * time.Millisecond})
	stream := subscribe(t, cluster.URL()+"/v2/events?event_type=mine&event_type=deployment_info")
	emulate(t, cluster, "POST", "streams/silence", nil)
	cluster.Publish("mine", map[string]any{"n": 1})
	emulate(t, cluster, "POST", "streams/resume", nil)
	emulate(t, cluster, "POST", "events/drop", `{"count":1,"types":["mine"]}`)
	cluster.Publish("mine", map[string]any{"n": 2})
	emulate(t, cluster, "POST", "events", `{"type":"mine","payload":{"n":3}}`)
	if event := stream.next(); event.data["n"] != 3.0 {
		t.Errorf("got event %v", event)
	}
	emulate(t, cluster, "POST", "events/oversized", `{"bytes":7500000}`)
	if event := stream.next(); len(at(t, event.data, "plan", "padding").(string)) != 7500000 {
		t.Errorf("the oversized event has %d bytes", len(fmt.Sprint(event)))
	}
	emulate(t, cluster, "POST", "streams/close", nil)
	stream.end()
	subscribe(t, cluster.URL()+"/v2/events?event_type=mine")
}

func TestStandbysProxyAndRedirect(t *testing.T) {
	cluster := start(t, marathon.Options{Fake: true, Listen: []string{"127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"}})
	urls := cluster.URLs()
	must(t, "POST", urls[1]+"/v2/apps", `{"id":"a","cmd":"x"}`)
	response, err := http.Get(urls[2] + "/v2/apps/a")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if via := response.Header.Get("X-Marathon-Via"); via != "1.1 "+strings.TrimPrefix(urls[2], "http://") || response.Header.Get("X-Marathon-Leader") != urls[0] {
		t.Errorf("a standby's answer has headers %v", response.Header)
	}
	request, err := http.NewRequest("GET", urls[1]+"/v2/events?event_type=x", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "text/event-stream")
	response, err = http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != 302 || response.Header.Get("Location") != urls[0]+"/v2/events?event_type=x" {
		t.Errorf("a standby's event stream: %s to %s", response.Status, response.Header.Get("Location"))
	}
	old := start(t, marathon.Options{Fake: true, Version: "1.6.352", Listen: []string{"127.0.0.1:0", "127.0.0.1:0"}})
	stream := subscribe(t, old.URLs()[1]+"/v2/events?event_type=mine")
	eventually(t, "the stream is attached", func() bool { return old.Streams() == 1 })
	old.Publish("mine", nil)
	if event := stream.next(); event.kind != "mine" {
		t.Errorf("through an old standby came %v", event)
	}
}

func TestAnotherLeaderKnowsNoHealth(t *testing.T) {
	cluster := start(t, marathon.Options{
		Fake: true, Listen: []string{"127.0.0.1:0", "127.0.0.1:0"}, ElectionHold: 100 * time.Millisecond,
	})
	yes := true
	if err := cluster.PutApp([]byte(`{"id":"a","cmd":"x","healthChecks":[{"protocol":"HTTP"},{"protocol":"COMMAND","command":{"value":"true"}}]}`),
		marathon.FakeTask{ID: "t", Health: []*bool{&yes, &yes}}); err != nil {
		t.Fatal(err)
	}
	results := func(url string) int {
		return len(at(t, must(t, "GET", url+"/v2/apps/a", nil), "app", "tasks", 0, "healthCheckResults").([]any))
	}
	if got := results(cluster.URL()); got != 2 {
		t.Errorf("%d results before", got)
	}
	stream := subscribe(t, cluster.URL()+"/v2/events")
	cluster.Elect(1, 100*patience)
	stream.end()
	if status, text := call(t, "GET", cluster.URL()+"/v2/apps", nil); status != 502 || !strings.Contains(text, "Could not determine the current leader") {
		t.Errorf("without a leader: %d %s", status, text)
	}
	emulate(t, cluster, "POST", "leader", `{"member":1}`)
	if cluster.Leader() != 1 {
		t.Errorf("member %d leads", cluster.Leader())
	}
	if got := results(cluster.URL()); got != 1 {
		t.Errorf("%d results after, want only that of Mesos", got)
	}
	if err := cluster.SetHealth("t", &yes); err != nil {
		t.Fatal(err)
	}
	if got := results(cluster.URL()); got != 2 {
		t.Errorf("%d results once checked again", got)
	}
	if abdicated := must(t, "DELETE", cluster.URL()+"/v2/leader", nil); abdicated["message"] != "Leadership abdicated" {
		t.Errorf("abdication: %v", abdicated)
	}
	eventually(t, "the other member leads", func() bool { return cluster.Leader() == 0 })
}

func TestMembersGoAndComeBack(t *testing.T) {
	cluster := start(t, marathon.Options{Fake: true, Listen: []string{"127.0.0.1:0", "127.0.0.1:0"}, ElectionGap: time.Millisecond})
	urls := cluster.URLs()
	emulate(t, cluster, "POST", "members/0/stop", nil)
	eventually(t, "the first member is down", func() bool {
		_, _, err := try("GET", urls[0]+"/ping", nil)
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	eventually(t, "the second member leads", func() bool { return cluster.Leader() == 1 })
	must(t, "GET", urls[1]+"/v2/apps", nil)
	if err := cluster.StartMember(0); err != nil {
		t.Fatal(err)
	}
	must(t, "GET", urls[0]+"/v2/apps", nil)
}

func TestFakeTasksAreWhatTheCallerSays(t *testing.T) {
	cluster := fake(t)
	stream := subscribe(t, cluster.URL()+"/v2/events?event_type=status_update_event&event_type=health_status_changed_event")
	yes, no := true, false
	if err := cluster.PutApp([]byte(`{"id":"a","cmd":"x","healthChecks":[{"protocol":"TCP"}],"portDefinitions":[{"port":9000}]}`),
		marathon.FakeTask{ID: "one", Host: "agent-1", Ports: []int{31001}, Health: []*bool{&yes}},
		marathon.FakeTask{ID: "two", Host: "agent-2", Ports: []int{31002}}); err != nil {
		t.Fatal(err)
	}
	app := must(t, "GET", cluster.URL()+"/v2/apps/a", nil)["app"].(map[string]any)
	if app["tasksHealthy"] != 1.0 || at(t, app, "tasks", 0, "host") != "agent-1" || at(t, app, "tasks", 1, "ports", 0) != 31002.0 ||
		len(at(t, app, "tasks", 1, "healthCheckResults").([]any)) != 0 {
		t.Errorf("app %v", app)
	}
	if err := cluster.SetHealth("one", &no); err != nil {
		t.Fatal(err)
	}
	emulate(t, cluster, "POST", "tasks/two", `{"state":"TASK_UNREACHABLE"}`)
	stream.until("two is unreachable", func(e sent) bool {
		return e.data["taskId"] == "two" && e.data["taskStatus"] == "TASK_UNREACHABLE"
	})
	app = must(t, "GET", cluster.URL()+"/v2/apps/a", nil)["app"].(map[string]any)
	if app["tasksUnhealthy"] != 1.0 || len(at(t, app, "tasks", 1, "ports").([]any)) != 0 || at(t, app, "tasks", 1, "startedAt") != nil {
		t.Errorf("an unreachable task lists no ports and no start: %v", app)
	}
	if err := cluster.SetTasks("a", marathon.FakeTask{ID: "three", Ports: []int{31003}}); err != nil {
		t.Fatal(err)
	}
	if tasks := cluster.Tasks("a"); len(tasks) != 1 || tasks[0].ID != "three" {
		t.Errorf("tasks %v", tasks)
	}
	if err := cluster.RemoveApp("a"); err != nil {
		t.Fatal(err)
	}
	if status, _ := call(t, "GET", cluster.URL()+"/v2/apps/a", nil); status != 404 {
		t.Errorf("after removal: %d", status)
	}
	if err := cluster.SetTasks("a"); err == nil {
		t.Error("tasks of an app that is gone were accepted")
	}
}

func TestThousandsOfAppsAreCheap(t *testing.T) {
	cluster := fake(t)
	const apps, tasks = 3000, 5
	for i := range apps {
		var fakes []marathon.FakeTask
		for j := range tasks {
			fakes = append(fakes, marathon.FakeTask{Host: fmt.Sprintf("agent-%d", j), Ports: []int{31000 + i%1000}})
		}
		if err := cluster.PutApp(fmt.Appendf(nil, `{"id":"/g%d/app%d","cmd":"x","portDefinitions":[{"port":0}]}`, i%50, i), fakes...); err != nil {
			t.Fatal(err)
		}
	}
	listed := must(t, "GET", cluster.URL()+"/v2/apps?embed=apps.tasks", nil)["apps"].([]any)
	if len(listed) != apps || len(at(t, listed, apps-1, "tasks").([]any)) != tasks {
		t.Errorf("%d apps listed", len(listed))
	}
}
