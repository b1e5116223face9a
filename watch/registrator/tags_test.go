package registrator

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTagTemplates(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"Additional":{"Country":"United States","N":[1,2]}}`)
	}))
	t.Cleanup(server.Close)
	c := &Container{
		ID: "e20f9c1a76565d62ae24a3bb877b17b862b6eab94f4e95a0e07ccf25087aaf4f",
		Config: Config{
			Env: []string{"ENVIRONMENT=test", "SERVICE_8105_NAME=foo", "HOME=/home/foobar", "SERVICE_9404_NAME=bar"},
			Labels: map[string]string{
				"com.amazonaws.ecs.task-arn": "arn:aws:ecs:region:xxxxxxxxxxxx:task/368f4403-0ee4-4f4c-b7a5-be50c57db5cf",
			},
		},
		NetworkSettings: NetworkSettings{Networks: map[string]Network{"own": {IPAddress: "10.9.0.2"}}},
	}
	tests := []struct {
		template string
		want     []string
	}{
		{``, nil},
		{`dc1,rack\,2`, []string{"dc1", "rack,2"}},
		{`dc1,{{strSlice .ID 0 12}}`, []string{"dc1", "e20f9c1a7656"}},
		{`{{strSlice "abc" 2}},{{strSlice "abc" 9}},{{strSlice "abc" 2 1}}`, []string{"c", "abc", "c"}},
		{`{{sIndex 0 .Config.Env}},{{sIndex -1 .Config.Env}},{{sIndex 99 .Config.Env}},{{sIndex -99 .Config.Env}}`,
			[]string{"ENVIRONMENT=test", "SERVICE_9404_NAME=bar", "SERVICE_9404_NAME=bar", "ENVIRONMENT=test"}},
		{`{{mIndex "com.amazonaws.ecs.task-arn" .Config.Labels | splitIndex -1 "/"}}`, []string{"368f4403-0ee4-4f4c-b7a5-be50c57db5cf"}},
		{`{{toUpper "foo"}},{{toLower "FoO"}},{{replace -1 "=" "" "=foo="}}`, []string{"FOO", "foo", "foo"}},
		{`{{join "," .Config.Env}}`, []string{"ENVIRONMENT=test", "SERVICE_8105_NAME=foo", "HOME=/home/foobar", "SERVICE_9404_NAME=bar"}},
		{`{{range split "," "/proc/bus,/proc/fs"}}{{.}},{{end}}`, []string{"/proc/bus", "/proc/fs"}},
		{`{{matchFirstElement "^SERVICE_" .Config.Env}}`, []string{"SERVICE_8105_NAME=foo"}},
		{`{{matchAllElements "^SERVICE_" .Config.Env}}`, []string{"[SERVICE_8105_NAME=foo SERVICE_9404_NAME=bar]"}},
		{`{{jsonParse (httpGet "` + server.URL + `") "Additional::Country"}}`, []string{"United States"}},
		{`{{index .Config.Labels "com.amazonaws.ecs.task-arn"}}`, []string{"arn:aws:ecs:region:xxxxxxxxxxxx:task/368f4403-0ee4-4f4c-b7a5-be50c57db5cf"}},
		{`{{.NetworkSettings.Networks.own.IPAddress}}`, []string{"10.9.0.2"}},
	}
	for _, test := range tests {
		t.Run(test.template, func(t *testing.T) {
			parsed, err := ParseTagTemplate(test.template)
			if err != nil {
				t.Fatal(err)
			}
			tags, err := parsed.Tags(t.Context(), c)
			if diff := cmp.Diff(test.want, tags); diff != "" || err != nil {
				t.Errorf("%v %s", err, diff)
			}
		})
	}
	if _, err := ParseTagTemplate("{{nothing}}"); err == nil {
		t.Error("a template with an unknown function was accepted")
	}
	for _, bad := range []string{`{{sIndex 0 .Args}}`, `{{matchFirstElement "(" .Args}}`, `{{httpGet "http://127.0.0.1:1/"}}`, `{{.Nothing}}`, `{{jsonParse (httpGet "` + server.URL + `") "No::Such"}}`} {
		parsed, err := ParseTagTemplate(bad)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parsed.Tags(t.Context(), c); err == nil {
			t.Errorf("%s gave no error", bad)
		}
	}
}

func TestForcedTagsComeAfterTheContainersAndTheirFailureIsSaid(t *testing.T) {
	c := dockerRun(t, `-p 53:53/udp -e SERVICE_TAGS=a,dc1 dns`)
	d := Describe(examplePolicy, Observed{Container: c, ForcedTags: []string{"dc1", "b"}}, nobody)
	if diff := cmp.Diff([]string{"hostname:c:53:udp is dns at 192.168.1.102:53 tags a|dc1|b|udp"}, sentences(d.Services)); diff != "" {
		t.Error(diff)
	}
	d = Describe(examplePolicy, Observed{Container: c, TagsError: fmt.Errorf("no")}, nobody)
	if len(d.Services) != 1 || len(d.Findings) != 1 || d.Findings[0].Code != "tags-failed" {
		t.Errorf("%v, %v", sentences(d.Services), d.Findings)
	}
}
