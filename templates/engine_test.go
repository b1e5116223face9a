package templates

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/templates/consultest"
	"github.com/mi-lb/mi-lb/watch"
)

func TestMain(m *testing.M) {
	log.SetOutput(LogFilter(io.Discard))
	os.Exit(m.Run())
}

// world is dc1 and dc2, each with a web, and a dc3 that has never answered.
func world() *watch.Snapshot {
	instance := func(id, node, address string, health watch.Health, tags ...string) watch.Instance {
		return watch.Instance{
			ID: id, Node: node, Address: netip.MustParseAddrPort(address), Health: health, Tags: tags,
			Weights: watch.Weights{Passing: 3, Warning: 1}, Meta: map[string]string{"zone": "z1"},
		}
	}
	part := func(dc string, services ...*watch.Service) *watch.Part {
		p := &watch.Part{Source: watch.Source{Kind: watch.Consul, Name: dc}, Datacenter: dc, Services: map[string]*watch.Service{}}
		for _, s := range services {
			p.Services[s.Name] = s
		}
		return p
	}
	dc1 := part("dc1",
		&watch.Service{Name: "web", Instances: []watch.Instance{
			instance("web-1", "node-1", "10.0.0.1:80", watch.HealthPassing, "blue", "Prod"),
			instance("web-2", "node-2", "10.0.0.2:80", watch.HealthWarning, "green"),
			instance("web-3", "node-3", "10.0.0.3:80", watch.HealthCritical, "green"),
			instance("web-4", "node-4", "10.0.0.4:80", watch.HealthMaintenance),
			instance("web-0", "node-4", "10.0.0.5:81", watch.HealthUnknown, "blue"),
		}},
		&watch.Service{Name: "db", Instances: []watch.Instance{instance("db-1", "node-1", "10.0.0.1:5432", watch.HealthPassing)}},
	)
	dc1.Datacenters = []watch.Datacenter{{Name: "dc1"}, {Name: "dc2"}, {Name: "dc3"}}
	dc2 := part("dc2", &watch.Service{Name: "web", Instances: []watch.Instance{instance("web-1", "node-9", "[fd00::9]:80", watch.HealthPassing)}})
	return &watch.Snapshot{Revision: 1, Datacenter: "dc1", Parts: []*watch.Part{dc1, dc2}}
}

func TestCatalogFunctionsAreAnsweredFromTheSnapshot(t *testing.T) {
	for text, want := range map[string]string{
		`{{ range services }}{{ .Name }}[{{ .Tags | join "," }}] {{ end }}`:                                                    "db[] web[Prod,blue,green] ",
		`{{ range services "@dc2" }}{{ .Name }} {{ end }}`:                                                                     "web ",
		`{{ range services "@dc3" }}{{ .Name }}{{ else }}none{{ end }}`:                                                        "none",
		`{{ range datacenters }}{{ . }} {{ end }}`:                                                                             "dc1 dc2 dc3 ",
		`{{ range service "web" }}{{ .ID }} {{ end }}`:                                                                         "web-1 web-0 ",
		`{{ range service "web@dc2" }}{{ .Node }} {{ .Address }}:{{ .Port }} {{ .Status }} {{ .Weights.Passing }}{{ end }}`:    "node-9 fd00::9:80 passing 3",
		`{{ range service "web@dc3" }}{{ .ID }}{{ end }}`:                                                                      "",
		`{{ range service "nothing" }}{{ .ID }}{{ else }}none{{ end }}`:                                                        "none",
		`{{ range service "web|passing,warning" }}{{ .ID }} {{ end }}`:                                                         "web-1 web-2 web-0 ",
		`{{ range service "web" "any" }}{{ .ID }}={{ .Status }} {{ end }}`:                                                     "web-1=passing web-2=warning web-3=critical web-0=passing web-4=maintenance ",
		`{{ range service "prod.web" }}{{ .ID }} {{ end }}`:                                                                    "web-1 ",
		`{{ range service "green.web|any" }}{{ .ID }} {{ end }}`:                                                               "web-2 web-3 ",
		`{{ range $tag, $s := service "web|any" | byTag }}{{ $tag }}:{{ len $s }} {{ end }}`:                                   "Prod:1 blue:2 green:2 ",
		`{{ range $m, $s := service "web" | byMeta "zone" }}{{ $m }}:{{ len $s }} {{ end }}`:                                   "z1:2 ",
		`{{ range datacenters }}{{ $dc := . }}{{ range service (print "web@" .) }}{{ .ID }}@{{ $dc }} {{ end }}{{ end }}`:      "web-1@dc1 web-0@dc1 web-1@dc2 ",
		`{{ range services }}{{ .Name }}:{{ range service .Name }}{{ .ServiceMeta.zone }} {{ end }}{{ end }}`:                  "db:z1 web:z1 z1 ",
		`{{ range $i := loop 1 4 }}{{ $i }}{{ end }} {{ env "ENGINE_TEST" }} {{ "a,b" | split "," | join "-" }} {{ add 1 2 }}`: "123 set a-b 3",
		`{{ scratch.Set "a" 1 }}{{ scratch.Get "a" }} {{ sprig_upper "x" }} {{ "eyJhIjoxfQ==" | base64Decode }}`:               `1 X {"a":1}`,
	} {
		t.Setenv("ENGINE_TEST", "set")
		e := running(t, Options{}, map[string]string{"x.cfg": text})
		got, err := e.Execute("x.cfg", nil, world())
		if err != nil || string(got) != want {
			t.Errorf("%s\ngives %q, %v\nwant  %q", text, got, err, want)
		}
	}
}

func TestANewSnapshotGivesNewAnswers(t *testing.T) {
	e := running(t, Options{}, map[string]string{
		"x.cfg": `{{ range services }}{{ .Name }}:{{ range service .Name }}{{ .ID }} {{ end }}{{ end }}`,
	})
	first := world()
	got, err := e.Execute("x.cfg", nil, first)
	if err != nil || string(got) != "db:db-1 web:web-1 web-0 " {
		t.Fatalf("%q, %v", got, err)
	}
	part := *first.Parts[0]
	part.Services = map[string]*watch.Service{
		"web": {Name: "web", Instances: part.Services["web"].Instances[:1]},
		"new": {Name: "new", Instances: part.Services["db"].Instances},
	}
	second := first.With(&part, time.Now())
	if got, err = e.Execute("x.cfg", nil, second); err != nil || string(got) != "new:db-1 web:web-1 " {
		t.Errorf("%q, %v", got, err)
	}
	if got, err = e.Execute("x.cfg", nil, nil); err != nil || string(got) != "new:db-1 web:web-1 " {
		t.Errorf("without a snapshot: %q, %v", got, err)
	}
}

func TestWhatIsMissingIsNamed(t *testing.T) {
	empty := &watch.Snapshot{Datacenter: "dc1"}
	for text, c := range map[string]struct {
		world *watch.Snapshot
		want  string
	}{
		`{{ key "service/haproxy/maxconn" }}`: {world(), "key(service/haproxy/maxconn) needs Consul, and none is configured"},
		`{{ service "web@dc9" }}`:             {world(), "service(web@dc9|passing) asks for datacenter dc9, and Consul knows dc1, dc2, dc3"},
		`{{ services }}`:                      {empty, "services waits for Consul's catalog"},
		`{{ datacenters }}`:                   {empty, "datacenters waits for Consul's catalog"},
		`{{ with secret "a/b" }}{{ end }}`:    {world(), "secret(a/b) needs Vault, and none is configured for templates"},
		`{{ nomadServices }}`:                 {world(), "needs Nomad, which is not supported here"},
		`{{ file "/nonexistent" }}`:           {world(), "file(/nonexistent) is not there yet"},
	} {
		e := running(t, Options{}, map[string]string{"x.cfg": text})
		_, err := e.Execute("x.cfg", nil, c.world)
		var missing *MissingError
		if !errors.As(err, &missing) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "x.cfg: ") {
			t.Errorf("%s: got %v, want %q", text, err, c.want)
		}
	}
}

func TestMistakesNameFileAndLine(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		file  string
		line  int
		want  string
	}{
		"syntax":                    {map[string]string{"x.cfg": "a\n{{ if }}\n"}, "x.cfg", 2, "missing value for if"},
		"not closed":                {map[string]string{"x.cfg": "a\n{{ if true }}\n{{ template \"f\" }}", "f": "f"}, "x.cfg", 3, "unexpected EOF"},
		"syntax of a fragment":      {map[string]string{"x.cfg": `{{ template "f" }}`, "f": "a\nb\n{{ end }}"}, "f", 3, "unexpected {{end}}"},
		"unknown function":          {map[string]string{"x.cfg": "a\n\n{{ nofunc }}"}, "x.cfg", 3, `function "nofunc" not defined`},
		"unknown in a fragment":     {map[string]string{"x.cfg": "a\n{{ template \"f\" }}\n", "e": "1\n2\n", "f": "\n{{ nofunc }}"}, "f", 2, `function "nofunc" not defined`},
		"while executing":           {map[string]string{"x.cfg": "a\n{{ fail \"boom\" }}"}, "x.cfg", 2, "boom"},
		"while a fragment executes": {map[string]string{"x.cfg": "{{ template \"e\" }}", "e": "{{ template \"f\" }}", "f": "a\n\n{{ fail \"boom\" }}\n"}, "f", 3, "boom"},
		"no such fragment":          {map[string]string{"x.cfg": "\n{{ template \"nothing\" }}"}, "x.cfg", 2, "nothing"},
		"bad query":                 {map[string]string{"x.cfg": "\n{{ service \"a b\" }}"}, "x.cfg", 2, "invalid format"},
		"define in a fragment":      {map[string]string{"f": `{{ define "g" }}{{ end }}`}, "f", 0, "file of its own"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeAll(t, dir, c.files)
			e, err := New(Options{Dir: dir})
			if err == nil {
				_, err = e.Execute("x.cfg", template.FuncMap{"fail": func(s string) (string, error) { return "", errors.New(s) }}, world())
			}
			var mistake *Error
			if !errors.As(err, &mistake) || mistake.File != filepath.Join(dir, c.file) || mistake.Line != c.line || !strings.Contains(mistake.Message, c.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestFunctionsThatRunOrWriteMustBeAllowed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "written")
	files := map[string]string{
		"x.cfg": fmt.Sprintf(`{{ writeToFile %q "" "" "0600" "x" }}`, path),
		"y.cfg": `{{ plugin "true" }}`,
	}
	e := running(t, Options{}, files)
	for name := range files {
		if _, err := e.Execute(name, nil, world()); err == nil || !strings.Contains(err.Error(), "disabled") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the file was written")
	}
	e = running(t, Options{Allow: []string{"plugin"}}, files)
	if _, err := e.Execute("y.cfg", nil, world()); err != nil {
		t.Errorf("allowed: %v", err)
	}
	if _, err := e.Execute("x.cfg", nil, world()); err == nil {
		t.Error("allowing one function allows the other")
	}
	if _, err := New(Options{Allow: []string{"env"}}); err == nil {
		t.Error("a function that need not be allowed is accepted")
	}
}

func TestReloadKeepsTheFormerTemplatesAfterAMistake(t *testing.T) {
	e := running(t, Options{}, map[string]string{"x.cfg": "1"})
	for _, c := range []struct {
		text, want string
		fails      bool
	}{{"2", "2", false}, {"{{", "2", true}, {"3", "3", false}} {
		writeAll(t, e.dir, map[string]string{"x.cfg": c.text})
		if err := e.Reload(); (err != nil) != c.fails {
			t.Errorf("%q: %v", c.text, err)
		}
		if got, err := e.Execute("x.cfg", nil, nil); err != nil || string(got) != c.want {
			t.Errorf("%q renders %q, %v", c.text, got, err)
		}
	}
}

func TestNamesOfTemplates(t *testing.T) {
	e := running(t, Options{}, map[string]string{"x.cfg.tmpl": "1", "y.map.ctmpl": "2", "frag.tmpl": "3", "old.cfg~": "4", ".hidden": "5"})
	files := strings.Join(e.Files(), " ")
	if !strings.Contains(files, " x.cfg y.map") || strings.Contains(files, "frag") || strings.Contains(files, "~") || strings.Contains(files, "hidden") {
		t.Errorf("files are %s", files)
	}
	if e.BuiltIn("x.cfg") || !e.BuiltIn("haproxy.cfg") {
		t.Error("x.cfg is built in, or haproxy.cfg is not")
	}
	dir := t.TempDir()
	writeAll(t, dir, map[string]string{"x.cfg.tmpl": "1", "x.cfg": "2"})
	if _, err := New(Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "x.cfg.tmpl") {
		t.Errorf("two files for one template: %v", err)
	}
	if _, err := New(Options{Dir: "/nonexistent"}); err == nil {
		t.Error("a directory that is not there is accepted")
	}
}

func TestLogFilterDropsTheValuesOfKeys(t *testing.T) {
	var out bytes.Buffer
	l := log.New(LogFilter(&out), "", 0)
	l.Printf("[TRACE] kv.get(a): returned %q", "secret")
	l.Printf("[DEBUG] x")
	l.Printf("[WARN] kept")
	if got := out.String(); got != "[WARN] kept\n" {
		t.Errorf("logged %q", got)
	}
}

func TestWhatNoSnapshotHasIsFetchedAndKeptFresh(t *testing.T) {
	consul := consultest.Start(t)
	include := filepath.Join(t.TempDir(), "include")
	if err := os.WriteFile(include, []byte("included"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := consul.Client.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: "web-1", Name: "web", Port: 80, Address: "10.9.9.9"}); err != nil {
		t.Fatal(err)
	}
	e := running(t, Options{Consul: &Consul{Address: "http://" + consul.Address}}, map[string]string{
		"key.cfg":   `{{ key "service/haproxy/maxconn" }} {{ keyOrDefault "service/haproxy/other" "default" }}`,
		"ls.cfg":    `{{ range ls "dir" }}{{ .Key }}={{ .Value }} {{ end }}`,
		"tree.cfg":  `{{ range tree "dir" }}{{ .Key }}={{ .Value }} {{ end }}`,
		"node.cfg":  `{{ range nodes }}{{ .Node }} {{ .Address }}{{ end }} {{ with node "node-1" }}{{ len .Services }}{{ end }}`,
		"file.cfg":  fmt.Sprintf(`{{ file %q }}`, include),
		"exist.cfg": `{{ keyExists "service/haproxy/maxconn" }}`,
		"near.cfg":  `{{ range service "web~_agent" }}{{ .Address }}{{ end }}`,
		"ro.cfg":    `{{ range connect "web" }}x{{ else }}none{{ end }} {{ caRoots | len }}`,
	})
	render := func(name string) (string, error) {
		got, err := e.Execute(name, nil, world())
		return string(got), err
	}
	follows := func(name, want string) {
		t.Helper()
		consultest.Until(t, name+" is "+want, func() error {
			if got, err := render(name); err != nil || got != want {
				return fmt.Errorf("%q, %v", got, err)
			}
			return nil
		})
	}
	_, err := render("key.cfg")
	if err == nil || !strings.Contains(err.Error(), "key(service/haproxy/maxconn) is not there yet") {
		t.Errorf("a key that is not there: %v", err)
	}
	follows("exist.cfg", "false")
	// Await renders as soon as the key is there.
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	awaited := make(chan error, 1)
	go func() { awaited <- e.Await(ctx, func() error { _, err := render("key.cfg"); return err }) }()
	consul.Put("service/haproxy/maxconn", "1000")
	if err := <-awaited; err != nil {
		t.Error(err)
	}
	follows("key.cfg", "1000 default")
	follows("exist.cfg", "true")
	follows("ls.cfg", "")
	consul.Put("dir/a", "1")
	consul.Put("dir/sub/b", "2")
	follows("ls.cfg", "a=1 ")
	follows("tree.cfg", "a=1 sub/b=2 ")
	follows("node.cfg", "node-1 127.0.0.1 2")
	follows("file.cfg", "included")
	follows("near.cfg", "10.9.9.9")
	follows("ro.cfg", "none 1")

	consul.Put("service/haproxy/other", "set")
	follows("key.cfg", "1000 set")
	// A key that goes keeps its last value where it is required.
	if _, err := consul.Client.KV().Delete("service/haproxy/maxconn", nil); err != nil {
		t.Fatal(err)
	}
	follows("exist.cfg", "false")
	follows("key.cfg", "1000 set")

	// Without Consul the last values stand; afterwards they are followed again.
	consul.Stop()
	follows("ls.cfg", "a=1 ")
	consul.Run()
	consul.Put("dir/c", "3")
	follows("ls.cfg", "a=1 c=3 ")
}

func TestServicesComeFromConsulWhereATemplateReadsMoreThanASnapshotHas(t *testing.T) {
	consul := consultest.Start(t)
	if err := consul.Client.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: "web-1", Name: "web", Port: 80, Address: "10.9.9.9"}); err != nil {
		t.Fatal(err)
	}
	e := running(t, Options{Consul: &Consul{Address: consul.Address}}, map[string]string{
		"x.cfg": `{{ range service "web" }}{{ .Address }} {{ .NodeAddress }}{{ end }}`,
	})
	consultest.Until(t, "the node's address", func() error {
		got, err := e.Execute("x.cfg", nil, world())
		if err != nil || string(got) != "10.9.9.9 127.0.0.1" {
			return fmt.Errorf("%q, %v", got, err)
		}
		return nil
	})
}

func TestQueriesThatNobodyNeedsEnd(t *testing.T) {
	consul := consultest.Start(t)
	consul.Put("a", "1")
	consul.Put("b", "2")
	e := running(t, Options{Consul: &Consul{Address: consul.Address}}, map[string]string{"x.cfg": `{{ key "a" }}`})
	is := func(want string) {
		t.Helper()
		consultest.Until(t, want, func() error {
			if got, err := e.Execute("x.cfg", nil, nil); err != nil || string(got) != want {
				return fmt.Errorf("%q, %v", got, err)
			}
			return nil
		})
	}
	is("1")
	writeAll(t, e.dir, map[string]string{"x.cfg": `{{ key "b" }}`})
	if err := e.Reload(); err != nil {
		t.Fatal(err)
	}
	is("2")
	e.fetcher.mu.Lock()
	defer e.fetcher.mu.Unlock()
	if len(e.fetcher.watched) != 1 {
		t.Errorf("%d queries run, want 1", len(e.fetcher.watched))
	}
}

// HAProxy's configuration waits for a key while its maps do not.
func TestACompleteRenderingDoesNotEndTheQueriesOfOneThatWaits(t *testing.T) {
	consul := consultest.Start(t)
	consul.Put("a", "1")
	e := running(t, Options{Consul: &Consul{Address: consul.Address}}, map[string]string{
		"waits.cfg": `{{ range services }}{{ end }}{{ key "a" }}`, "complete.cfg": `{{ range services }}{{ .Name }} {{ end }}`,
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := e.Await(ctx, func() error {
		_, err := e.Execute("waits.cfg", nil, world())
		if _, other := e.Execute("complete.cfg", nil, world()); other != nil {
			return other
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

func FuzzSources(f *testing.F) {
	f.Add(`{{ range services }}{{ .Name }}{{ end }}`, `{{ .X }}`)
	f.Add(`{{ define "a" }}{{ end }}{{ template "f" . }}`, "{{/*\n*/}}")
	f.Add("{{ if", "}}{{")
	f.Fuzz(func(t *testing.T, main, fragment string) {
		all := sources{}
		for name, text := range map[string]string{"x.cfg": main, "f": fragment} {
			s := &source{name: name, path: name, text: text}
			if err := s.parse(); err != nil {
				var mistake *Error
				if !errors.As(err, &mistake) || mistake.File != name || mistake.Line < 0 || mistake.Line > strings.Count(text, "\n")+1 {
					t.Errorf("%s: %v", name, err)
				}
				return
			}
			all[name] = s
		}
		c := all.with(all["x.cfg"])
		for i := range c.parts {
			if file, line := c.origin(c.first[i]); file != c.parts[i].path || line != 1 {
				t.Errorf("line %d is %s:%d", c.first[i], file, line)
			}
		}
	})
}
