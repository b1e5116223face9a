package marathon_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/test/marathon"
)

// paths lists every key of a document with the kind of its value: "apps[].id
// string". Nulls have no kind of their own.
func paths(value any, prefix string, into map[string]string) {
	switch value := value.(type) {
	case map[string]any:
		for key, field := range value {
			into[prefix+"."+key] = fmt.Sprintf("%T", field)
			paths(field, prefix+"."+key, into)
		}
	case []any:
		for _, element := range value {
			paths(element, prefix+"[]", into)
		}
	}
}

// missing lists what a sample has and a document has not, or in another kind.
func missing(t *testing.T, sample, document []byte, but ...string) []string {
	t.Helper()
	var wanted, got any
	if err := json.Unmarshal(sample, &wanted); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(document, &got); err != nil {
		t.Fatalf("%v: %s", err, document)
	}
	wantedPaths, gotPaths := map[string]string{}, map[string]string{}
	paths(wanted, "", wantedPaths)
	paths(got, "", gotPaths)
	var lacks []string
	for path, kind := range wantedPaths {
		has, found := gotPaths[path]
		if slices.ContainsFunc(but, func(prefix string) bool { return strings.HasPrefix(path, prefix) }) {
			continue
		}
		if !found || kind != has && kind != "<nil>" && has != "<nil>" {
			lacks = append(lacks, fmt.Sprintf("%s: %s, got %q", path, kind, has))
		}
	}
	slices.Sort(lacks)
	return lacks
}

func TestDocumentsHaveTheKeysOfMarathonsExamples(t *testing.T) {
	const app = `{"id":"myapp","cmd":"env && sleep 60","instances":1,"env":{"LD_LIBRARY_PATH":"/usr/local/lib/myLib"},
		"constraints":[["hostname","LIKE",".*"]],"uris":["https://example.com/README.md"],"ports":[10013,10015],
		"readinessChecks":[{"name":"myReadyCheck","portName":"http"}],"portDefinitions":[{"name":"http","port":10019}]}`
	for _, test := range []struct {
		sample, version, path string
		delayed               bool
		but                   []string
	}{
		{sample: "tasks.json", path: "/v2/tasks"},
		{sample: "app_tasks.json", path: "/v2/apps/myapp/tasks"},
		{sample: "info.json", path: "/v2/info"},
		// 1.5 no longer writes these; the examples were never brought up to date.
		{sample: "app_list.json", path: "/v2/apps", delayed: true, but: []string{
			".apps[].uris", ".apps[].ports", ".apps[].args", ".apps[].user", ".apps[].container",
			".apps[].healthChecks", ".apps[].dependencies", ".apps[].acceptedResourceRoles",
		}},
		{sample: "app_list-1.4.json", version: "1.4.11", path: "/v2/apps", delayed: true},
		{sample: "deployments.json", path: "/v2/deployments", delayed: true, but: []string{
			"[].steps[].actions[].pod", "[].currentActions[].readinessCheckResults",
		}},
		// Mesos's offers are not emulated.
		{sample: "queue.json", path: "/v2/queue", but: []string{
			".queue[].app", ".queue[].lastUnusedOffers", ".queue[].processedOffersSummary.last",
			".queue[].processedOffersSummary.rejectSummaryLa",
		}},
	} {
		t.Run(test.sample, func(t *testing.T) {
			options := marathon.Options{Fake: true, Version: test.version}
			if test.delayed {
				options.FakeDelay = 100 * patience
			}
			cluster := start(t, options)
			must(t, "POST", cluster.URL()+"/v2/apps", app)
			if test.sample == "queue.json" {
				must(t, "POST", cluster.URL()+"/v2/apps", `{"id":"waits","cmd":"x","constraints":[["hostname","LIKE","nowhere"]]}`)
			}
			status, document := call(t, "GET", cluster.URL()+test.path, nil)
			if status != 200 {
				t.Fatalf("%d %s", status, document)
			}
			for _, lack := range missing(t, sample(t, test.sample), []byte(document), test.but...) {
				t.Error(lack)
			}
		})
	}
}

func TestEventsHaveTheKeysOfMarathonsExamples(t *testing.T) {
	cluster := fake(t)
	stream := subscribe(t, cluster.URL()+"/v2/events")
	must(t, "POST", cluster.URL()+"/v2/apps", `{"id":"foo","cmd":"x"}`)
	got := map[string]map[string]any{}
	for _, event := range stream.untilKind("deployment_success") {
		got[event.kind] = event.data
	}
	kind := ""
	examples := 0
	for line := range strings.Lines(string(sample(t, "events.txt"))) {
		line = strings.TrimSpace(line)
		if name, found := strings.CutPrefix(line, "event: "); found {
			kind = name
		}
		data, found := strings.CutPrefix(line, "data: ")
		if !found {
			continue
		}
		document, err := json.Marshal(got[kind])
		if err != nil {
			t.Fatal(err)
		}
		examples++
		for _, lack := range missing(t, []byte(data), document) {
			t.Errorf("%s: %s", kind, lack)
		}
	}
	if examples < 3 {
		t.Errorf("compared %d examples", examples)
	}
}

func TestOldReleasesHaveTheirShapes(t *testing.T) {
	cluster := start(t, marathon.Options{Fake: true, Version: "1.4.11"})
	must(t, "POST", cluster.URL()+"/v2/apps", tryOut)
	must(t, "POST", cluster.URL()+"/v2/apps", `{"id":"ip","cmd":"x","ipAddress":{"networkName":"blue","discovery":{"ports":[{"number":80,"name":"http","protocol":"tcp"}]}},"healthChecks":[{"protocol":"TCP"}]}`)
	deployed(t, cluster)
	web := must(t, "GET", cluster.URL()+"/v2/apps/webserver", nil)["app"].(map[string]any)
	if at(t, web, "container", "docker", "network") != "BRIDGE" || at(t, web, "ports", 0) != 9000.0 ||
		at(t, web, "container", "docker", "portMappings", 0, "servicePort") != 9000.0 || web["networks"] != nil {
		t.Errorf("bridge: %v", web)
	}
	ip := must(t, "GET", cluster.URL()+"/v2/apps/ip", nil)["app"].(map[string]any)
	if at(t, ip, "ipAddress", "discovery", "ports", 0, "number") != 80.0 || at(t, ip, "ipAddress", "networkName") != "blue" {
		t.Errorf("address per task: %v", ip)
	}
	if result := at(t, ip, "tasks", 0, "healthCheckResults", 0).(map[string]any); result["instanceId"] == nil {
		t.Errorf("health of 1.4: %v", result)
	}
	old := start(t, marathon.Options{Fake: true, Version: "1.1.1"})
	must(t, "POST", old.URL()+"/v2/apps", `{"id":"a","cmd":"x","healthChecks":[{"protocol":"TCP"}],"constraints":[["hostname","LIKE","nowhere"]]}`)
	_, text := call(t, "GET", old.URL()+"/v2/deployments", nil)
	if !strings.Contains(text, `"steps":[[{`) {
		t.Errorf("steps of 1.1 are not nested: %s", text)
	}
}
