package marathon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/mi-lb/mi-lb/watch"
)

func TestWhatEventsMean(t *testing.T) {
	for _, c := range []struct {
		kind, data string
		refresh    []string
		everything bool
		change     taskChange
	}{
		{"status_update_event", `{"taskId":"a.1","taskStatus":"TASK_KILLING","appId":"/a","host":"h","ports":[1]}`, []string{"/a"}, false, taskChange{app: "/a", task: "a.1", effect: ends, state: "TASK_KILLING"}},
		{"status_update_event", `{"taskId":"a.1","taskStatus":"TASK_KILLED","appId":"/a"}`, []string{"/a"}, false, taskChange{app: "/a", task: "a.1", effect: ended, state: "TASK_KILLED"}},
		{"status_update_event", `{"taskId":"a.1","taskStatus":"TASK_FAILED","appId":"/a"}`, []string{"/a"}, false, taskChange{app: "/a", task: "a.1", effect: ended, state: "TASK_FAILED"}},
		{"status_update_event", `{"taskId":"a.1","taskStatus":"TASK_LOST","appId":"/a"}`, []string{"/a"}, false, taskChange{app: "/a", task: "a.1", effect: lostSight, state: "TASK_LOST"}},
		{"status_update_event", `{"taskId":"a.1","taskStatus":"TASK_RUNNING","appId":"/a"}`, []string{"/a"}, false, taskChange{}},
		{"status_update_event", `{"taskId":"a.1","taskStatus":"TASK_STAGING","appId":"/a"}`, []string{"/a"}, false, taskChange{}},
		{"status_update_event", `{"taskId":7,"taskStatus":null,"appId":"/a"}`, []string{"/a"}, false, taskChange{}},
		{"health_status_changed_event", `{"appId":"/a","taskId":"a.1","alive":false}`, []string{"/a"}, false, taskChange{app: "/a", task: "a.1", effect: failsCheck}},
		{"health_status_changed_event", `{"appId":"/a","instanceId":"a.1","alive":true}`, []string{"/a"}, false, taskChange{}},
		{"instance_health_changed_event", `{"runSpecId":"/a","instanceId":"a.1","healthy":false}`, []string{"/a"}, false, taskChange{app: "/a", task: "a.1", effect: failsCheck}},
		{"instance_health_changed_event", `{"runSpecId":"/a","instanceId":"a.1","healthy":null}`, []string{"/a"}, false, taskChange{}},
		{"instance_changed_event", `{"runSpecId":"/a","instanceId":"a.1","condition":"Running"}`, []string{"/a"}, false, taskChange{}},
		{"unhealthy_instance_kill_event", `{"appId":"/a","taskId":"a.1","instanceId":"a"}`, []string{"/a"}, false, taskChange{app: "/a", task: "a", effect: ends, state: "TASK_KILLING", reason: reasonUnhealthy}},
		{"app_terminated_event", `{"appId":"/a"}`, []string{"/a"}, false, taskChange{}},
		{"api_post_event", `{"clientIp":"1.2.3.4","uri":"/v2/apps","appDefinition":{"id":"/a"}}`, []string{"/a"}, false, taskChange{}},
		{"api_post_event", `{"uri":"/v2/apps//a/b"}`, nil, true, taskChange{}},
		{"api_post_event", `{"uri":"/v2/apps/a/b"}`, []string{"/a/b"}, false, taskChange{}},
		{"api_post_event", `{"uri":"/v2/groups"}`, nil, true, taskChange{}},
		{"deployment_info", `{"plan":{"id":"x","steps":[{"actions":[{"action":"ScaleApplication","app":"/a"}]},{"actions":[{"app":"/b"},{"pod":"/p"}]}]},"currentStep":{"actions":[{"app":"/c"}]}}`, []string{"/a", "/b", "/c"}, false, taskChange{}},
		{"deployment_step_success", `{"plan":{"steps":[[{"action":"x","app":"/a"}]]}}`, []string{"/a"}, false, taskChange{}},
		{"deployment_success", `{"id":"x","plan":{"steps":[{"action":"x","app":{"id":"/a"}}]}}`, []string{"/a"}, false, taskChange{}},
		{"deployment_success", `{"id":"x"}`, nil, true, taskChange{}},
		{"group_change_success", `{"groupId":"/"}`, nil, true, taskChange{}},
		{"", `{"eventType":"app_terminated_event","appId":"/a"}`, []string{"/a"}, false, taskChange{}},
		{"status_update_event", `{"taskId":"a.1","taskStatus":"TASK_KILLED","appId":"/../leader"}`, nil, true, taskChange{app: "/../leader", task: "a.1", effect: ended, state: "TASK_KILLED"}},
		{"status_update_event", `{"taskId":"a.1","trunc`, nil, true, taskChange{}},
		{"event_stream_attached", `{"remoteAddress":"x"}`, nil, false, taskChange{}},
		{"framework_message_event", `{"appId":"/a"}`, nil, false, taskChange{}},
	} {
		got := decodeEvent(message{c.kind, []byte(c.data)})
		if !slices.Equal(got.refresh, c.refresh) || got.everything != c.everything || got.change != c.change {
			t.Errorf("%s %s\ngot  %+v", c.kind, c.data, got)
		}
	}
}

func TestChangeAppliesToTheTasksOfItsInstance(t *testing.T) {
	app := &watch.App{ID: "/a", HealthChecks: []watch.HealthCheck{{}}, Tasks: []watch.Task{
		{ID: "a.instance-1._app.1", State: "TASK_RUNNING", Health: watch.HealthPassing},
		{ID: "a.instance-11._app.1", State: "TASK_RUNNING", Health: watch.HealthCritical, Reason: reasonAwaited},
	}}
	after := taskChange{app: "/a", task: "a.instance-1", effect: ends, state: "TASK_KILLING"}.apply(app, newMemory(nil, forLong), noon)
	if got := after.Tasks[0]; got.Health != watch.HealthMaintenance || got.State != "TASK_KILLING" {
		t.Errorf("%+v", got)
	}
	if got := after.Tasks[1]; got.Health != watch.HealthUnknown {
		t.Errorf("the last healthy task ends, and the fresh one still gets nothing: %+v", got)
	}
	if app.Tasks[0].Health != watch.HealthPassing {
		t.Error("the published app was changed")
	}
	if again := (taskChange{app: "/a", task: "a.instance-1", effect: ends, state: "TASK_KILLING"}).apply(after, newMemory(nil, forLong), noon); again != after {
		t.Error("a repeated event makes another app")
	}
	if after := (taskChange{app: "/a", task: "a.instance-1._app.1", effect: ended}).apply(app, newMemory(nil, forLong), noon); len(after.Tasks) != 1 {
		t.Error("still there")
	}
}

func messages(t *testing.T, r io.Reader, most int) (all []string) {
	t.Helper()
	s := newMessageReader(r, most)
	for {
		m, err := s.next()
		switch {
		case errors.Is(err, errTooBig):
			all = append(all, "too big")
		case err != nil:
			return all
		default:
			all = append(all, m.event+" "+string(m.data))
		}
	}
}

func TestMessagesOfAnEventStream(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want []string
	}{
		"Marathon's CRLF":           {"event: a\r\ndata: {\"x\":1}\r\n\r\n", []string{`a {"x":1}`}},
		"LF":                        {"event: a\ndata: 1\n\nevent: b\ndata: 2\n\n", []string{"a 1", "b 2"}},
		"CR":                        {"event: a\rdata: 1\r\r", []string{"a 1"}},
		"heartbeats between":        {"\r\n\r\nevent: a\r\ndata: 1\r\n\r\n\r\n\r\n\r\nevent: b\r\ndata: 2\r\n\r\n", []string{"a 1", "b 2"}},
		"several data lines":        {"data: 1\ndata\ndata:2\n\n", []string{" 1\n\n2"}},
		"comments, ids, no data":    {": hi\nid: 7\nretry: 5\nevent: a\n\ndata: 1\n\n", []string{" 1"}},
		"byte order mark":           {"\ufeffdata: 1\n\n", []string{" 1"}},
		"unfinished at the end":     {"data: 1\n\nevent: a\ndata: 2\n", []string{" 1"}},
		"too big, then fine":        {"event: a\ndata: " + strings.Repeat("x", 2000) + "\n\ndata: 1\n\n", []string{"too big", " 1"}},
		"too big in lines":          {strings.Repeat("data: "+strings.Repeat("x", 100)+"\n", 20) + "\ndata: 1\n\n", []string{"too big", " 1"}},
		"as big as may be":          {"data: " + strings.Repeat("x", 1000) + "\n\n", []string{" " + strings.Repeat("x", 1000)}},
		"colons and spaces in data": {"data:  a: b \n\n", []string{"  a: b "}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := messages(t, strings.NewReader(c.in), 1000); !slices.Equal(got, c.want) {
				t.Errorf("got %q", got)
			}
			if got := messages(t, iotest.OneByteReader(strings.NewReader(c.in)), 1000); !slices.Equal(got, c.want) {
				t.Errorf("byte by byte: got %q", got)
			}
		})
	}
}

func TestExampleEventsDecode(t *testing.T) {
	s := newMessageReader(bytes.NewReader(fixture(t, "events.txt")), mostEvent)
	var got []string
	for {
		m, err := s.next()
		if err != nil {
			break
		}
		e := decodeEvent(m)
		got = append(got, fmt.Sprint(m.event, e.refresh, e.change.task, e.change.effect))
	}
	want := []string{
		"event_stream_attached[]0",
		"status_update_event[/foo]foo.0664256e-6771-11e5-94e1-be5b2935a9874",
		"status_update_event[/test-app]0",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestIDsThatMayBecomePaths(t *testing.T) {
	for id, want := range map[string]bool{
		"/a": true, "/shop/web-1.x_Y": true, "": false, "/": false, "a": false, "/a/": false, "//a": false,
		"/../leader": false, "/a/./b": false, "/a?force=true": false, "/a/*": false, "/a b": false, "/ä": false, "/a%2f": false,
	} {
		if readable(id) != want {
			t.Errorf("%q: %t", id, !want)
		}
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(fixture(f, "events.txt"))
	f.Add([]byte("\ufeffdata: 1\r\rdata\n\n: x\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		whole := messages(t, bytes.NewReader(in), 500)
		bytewise := messages(t, iotest.OneByteReader(bytes.NewReader(in)), 500)
		if !slices.Equal(whole, bytewise) {
			t.Fatalf("%q and %q", whole, bytewise)
		}
	})
}

func FuzzDecodeEvent(f *testing.F) {
	for _, kind := range eventTypes {
		f.Add(kind, []byte(`{"appId":"/a","taskId":"a.1","taskStatus":"TASK_KILLED","alive":false,"plan":{"steps":[[{"app":"/a"}]]}}`))
	}
	f.Fuzz(func(t *testing.T, kind string, data []byte) {
		e := decodeEvent(message{kind, data})
		for _, id := range e.refresh {
			if !readable(id) {
				t.Fatalf("%q would become a path", id)
			}
		}
		app := &watch.App{ID: e.change.app, Tasks: []watch.Task{{ID: "a.1", Health: watch.HealthPassing}}}
		if e.change.effect != noEffect {
			e.change.apply(app, newMemory(nil, forLong), noon)
		}
	})
}
