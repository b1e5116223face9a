package marathon_test

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mi-lb/mi-lb/test/marathon"
)

func TestEventsHaveMarathonsKeys(t *testing.T) {
	cluster := fake(t)
	stream := subscribe(t, cluster.URL()+"/v2/events")
	attached := stream.next()
	if attached.kind != "event_stream_attached" || attached.data["remoteAddress"] != "127.0.0.1" {
		t.Errorf("the first event is %v", attached)
	}
	must(t, "POST", cluster.URL()+"/v2/apps", `{"id":"a","cmd":"x","healthChecks":[{"protocol":"TCP"}]}`)
	read := append([]sent{attached}, stream.untilKind("deployment_success")...)
	if err := cluster.SetHealth(cluster.Tasks("a")[0].ID, new(bool)); err != nil {
		t.Fatal(err)
	}
	must(t, "DELETE", cluster.URL()+"/v2/apps/a", nil)
	read = append(read, stream.untilKind("app_terminated_event")...)
	want := map[string][]string{
		"event_stream_attached":         {"remoteAddress"},
		"api_post_event":                {"appDefinition", "clientIp", "uri"},
		"group_change_success":          {"groupId", "version"},
		"deployment_info":               {"currentStep", "plan"},
		"deployment_step_success":       {"currentStep", "plan"},
		"deployment_success":            {"id", "plan"},
		"add_health_check_event":        {"appId", "healthCheck", "version"},
		"status_update_event":           {"appId", "host", "ipAddresses", "message", "ports", "slaveId", "taskId", "taskStatus", "version"},
		"instance_changed_event":        {"agentId", "condition", "host", "instanceId", "runSpecId", "runSpecVersion"},
		"health_status_changed_event":   {"alive", "appId", "instanceId", "version"},
		"instance_health_changed_event": {"healthy", "instanceId", "runSpecId", "runSpecVersion"},
		"app_terminated_event":          {"appId"},
	}
	got := map[string][]string{}
	for _, event := range read {
		if event.data["eventType"] != event.kind || event.data["timestamp"] == nil {
			t.Errorf("%s has eventType %v and timestamp %v", event.kind, event.data["eventType"], event.data["timestamp"])
		}
		delete(event.data, "eventType")
		delete(event.data, "timestamp")
		got[event.kind] = keys(event.data)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
}

func TestATasksStatesFollowEachOther(t *testing.T) {
	for _, test := range []struct {
		name    string
		options marathon.Options
		want    []string
	}{
		{"with task_killing", marathon.Options{}, []string{"TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", "TASK_KILLED"}},
		{"without", marathon.Options{DisableTaskKilling: true}, []string{"TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLED"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.options.Fake = true
			cluster := start(t, test.options)
			stream := subscribe(t, cluster.URL()+"/v2/events?event_type=status_update_event")
			must(t, "POST", cluster.URL()+"/v2/apps", `{"id":"a","cmd":"x"}`)
			deployed(t, cluster)
			must(t, "DELETE", cluster.URL()+"/v2/apps/a", nil)
			var got []string
			for _, event := range stream.until("the end", func(e sent) bool { return e.data["taskStatus"] == "TASK_KILLED" }) {
				got = append(got, event.data["taskStatus"].(string))
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("states %v, want %v", got, test.want)
			}
		})
	}
}

func TestStreamsGetTheEventsTheyAskFor(t *testing.T) {
	cluster := fake(t)
	stream := subscribe(t, cluster.URL()+"/v2/events?event_type=one&event_type=two")
	for _, kind := range []string{"three", "two", "four", "one"} {
		cluster.Publish(kind, map[string]any{"n": 1})
	}
	if first, second := stream.next(), stream.next(); first.kind != "two" || second.kind != "one" {
		t.Errorf("got %s and %s", first.kind, second.kind)
	}
}

func TestPlansAreLightUnlessAskedOrOld(t *testing.T) {
	for _, test := range []struct {
		version, query string
		want           []string
	}{
		{"1.11.24", "", []string{"id", "steps", "version"}},
		{"1.11.24", "&plan-format=full", []string{"id", "original", "steps", "target", "version"}},
		{"1.6.352", "", []string{"id", "original", "steps", "target", "version"}},
		{"1.6.352", "&plan-format=light", []string{"id", "steps", "version"}},
	} {
		cluster := start(t, marathon.Options{Fake: true, Version: test.version})
		stream := subscribe(t, cluster.URL()+"/v2/events?event_type=deployment_info"+test.query)
		must(t, "POST", cluster.URL()+"/v2/apps", `{"id":"g/a","cmd":"x"}`)
		plan := stream.next().data["plan"].(map[string]any)
		if got := keys(plan); !slices.Equal(got, test.want) {
			t.Errorf("%s %s: plan has %v, want %v", test.version, test.query, got, test.want)
		}
		if target := plan["target"]; target != nil && at(t, target, "groups", 0, "apps", 0, "id") != "/g/a" {
			t.Errorf("target %v", target)
		}
	}
}

func TestStreamIsWrittenAsJettyDoes(t *testing.T) {
	cluster := start(t, marathon.Options{Fake: true, HeartbeatInterval: 10 * time.Millisecond})
	request, err := http.NewRequest("GET", cluster.URL()+"/v2/events?event_type=mine", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "text/event-stream")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if contentType := response.Header.Get("Content-Type"); !strings.HasPrefix(contentType, "text/event-stream") {
		t.Errorf("content type %q", contentType)
	}
	heartbeats := make([]byte, 4)
	if _, err := io.ReadFull(response.Body, heartbeats); err != nil || string(heartbeats) != "\r\n\r\n" {
		t.Fatalf("heartbeats %q, %v", heartbeats, err)
	}
	cluster.Publish("mine", map[string]any{"a": "<b>"})
	want := "event: mine\r\ndata: {\"a\":\"<b>\",\"eventType\":\"mine\",\"timestamp\":\""
	var got strings.Builder
	buffer := make([]byte, 1)
	for got.Len() < len(want) {
		if _, err := response.Body.Read(buffer); err != nil {
			t.Fatal(err)
		}
		if got.Len() > 0 || buffer[0] == 'e' {
			got.Write(buffer)
		}
	}
	if got.String() != want {
		t.Errorf("got %q, want %q", got.String(), want)
	}
}

func TestStreamWithoutAcceptIsRefused(t *testing.T) {
	cluster := fake(t)
	if status, text := call(t, "GET", cluster.URL()+"/v2/events", nil); status != 405 || !strings.HasPrefix(text, "<html>") {
		t.Errorf("%d %s", status, text)
	}
}

func TestAClientThatFallsBehindIsCutOff(t *testing.T) {
	cluster := start(t, marathon.Options{Fake: true, EventBuffer: 4})
	stream := subscribe(t, cluster.URL()+"/v2/events")
	stream.next()
	// A client that reads cannot be outrun by small events alone; a large one
	// fills the connection while the stream's reader is held up by decoding.
	eventually(t, "the stream is closed", func() bool {
		for range 100 {
			cluster.Publish("burst", map[string]any{"padding": strings.Repeat("x", 1000)})
		}
		return cluster.Streams() == 0
	})
	stream.end()
}

func TestUnhealthyTasksAreToldByTheirRelease(t *testing.T) {
	for version, want := range map[string][]string{
		"1.3.13":  {"alive", "appId", "eventType", "taskId", "timestamp", "version"},
		"1.11.24": {"alive", "appId", "eventType", "instanceId", "timestamp", "version"},
	} {
		cluster := start(t, marathon.Options{Fake: true, Version: version})
		stream := subscribe(t, cluster.URL()+"/v2/events?event_type=health_status_changed_event")
		must(t, "POST", cluster.URL()+"/v2/apps", `{"id":"a","cmd":"x","healthChecks":[{"protocol":"TCP"}]}`)
		if got := keys(stream.next().data); !slices.Equal(got, want) {
			t.Errorf("%s: keys %v, want %v", version, got, want)
		}
	}
}
