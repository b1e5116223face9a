package marathon_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/test/marathon"
)

// Whatever is posted is refused with an error or becomes an app whose document
// is accepted again.
func FuzzAppDocument(f *testing.F) {
	f.Add([]byte(tryOut))
	f.Add([]byte(`{"id":"a","cmd":"x","ipAddress":{"discovery":{"ports":[{"number":80}]}},"env":{"S":{"secret":"s"}}}`))
	f.Add([]byte(`{"id":"a","args":["x"],"networks":[{"name":"n"},{"name":"m"}],"healthChecks":[{"protocol":"COMMAND","command":{"value":"x"}}]}`))
	examples, err := filepath.Glob("testdata/app*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, example := range examples {
		content, err := os.ReadFile(example)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	clusters := map[string]*marathon.Cluster{}
	for _, version := range []string{"1.4.11", "1.11.24"} {
		cluster, err := marathon.Start(marathon.Options{Fake: true, Version: version})
		if err != nil {
			f.Fatal(err)
		}
		f.Cleanup(cluster.Close)
		clusters[version] = cluster
	}
	f.Fuzz(func(t *testing.T, document []byte) {
		for version, cluster := range clusters {
			if cluster.PutApp(document, marathon.FakeTask{}) != nil {
				continue
			}
			status, text := call(t, "GET", cluster.URL()+"/v2/apps?embed=apps.tasks", nil)
			var list struct{ Apps []json.RawMessage }
			if err := json.Unmarshal([]byte(text), &list); status != http.StatusOK || err != nil || len(list.Apps) != 1 {
				t.Fatalf("%s: %d %v %s", version, status, err, text)
			}
			if err := cluster.PutApp(list.Apps[0]); err != nil {
				t.Errorf("%s: the document %s is not accepted again: %v", version, list.Apps[0], err)
			}
			var app struct{ ID string }
			if err := json.Unmarshal(list.Apps[0], &app); err != nil {
				t.Fatal(err)
			}
			if err := cluster.RemoveApp(app.ID); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Whatever is asked for is answered in JSON, or refused in Marathon's words.
func FuzzLabelSelector(f *testing.F) {
	for _, seed := range []string{"", "a", "a==b", "a!=b", "a in (b, c)", "a notin (b)", "a,b==c", "a in (", ")(", ",,"} {
		f.Add(seed)
	}
	cluster, err := marathon.Start(marathon.Options{Fake: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(cluster.Close)
	if err := cluster.PutApp([]byte(`{"id":"a","cmd":"x","labels":{"a":"b"}}`)); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, selector string) {
		status, text := call(t, "GET", cluster.URL()+"/v2/apps?label="+url.QueryEscape(selector), nil)
		decode(t, text)
		if status != http.StatusOK && (status != http.StatusUnprocessableEntity || !strings.Contains(text, "Can not parse label selector")) {
			t.Errorf("%d %s", status, text)
		}
	})
}
