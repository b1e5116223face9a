package file

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/mi-lb/mi-lb/watch"
)

const example = `
datacenter: dc1
services:
  - name: legacy
    tags: [canary]
    meta:
      mi-lb.host: shop.example.com
    instances:
      - address: 10.0.0.5:8080
      - address: db.example.com:8080
        weight: 10
        health: maintenance
        node: rack7
        id: legacy-2
        tags: [blue]
        meta: {mi-lb.weight: "5"}
  - name: reports
    datacenter: dc2
    instances: []
`

func TestEveryMistakeIsNamedWithItsLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                                      "services.yaml: the file is empty",
		"# nothing\n":                           "services.yaml: no content",
		"datacenter: dc1\n":                     "services.yaml:1: no key \"services\"",
		"services:\n":                           "services.yaml:1: services must be a list",
		"services: []\nservces: []\n":           "services.yaml:2: unknown key \"servces\"",
		"services: []\nservices: []\n":          "services.yaml:2: key \"services\" twice",
		"services: []\n---\nx: y\n":             "a second document",
		"services:\n- name: [\n":                "services.yaml:",
		"a: b\n\tc: d\n":                        "services.yaml:2:",
		"services:\n- web\n":                    "services.yaml:2: a service must be a mapping",
		"services:\n- instances: []\n":          "services.yaml:2: a service needs a name",
		"services:\n- name: web\n":              "services.yaml:2: service \"web\" has no key \"instances\"",
		"services:\n- name: null\n":             "services.yaml:2: name must be a single value",
		"services:\n- {name: '', tags: [[]]}\n": "services.yaml:2: name must not be empty",
		"services:\n- {name: a, instances: []}\n- {name: a, instances: []}\n":                  "services.yaml:3: service \"a\" is already on line 2",
		"services:\n- name: a\n  instances:\n  - {}\n":                                         "services.yaml:4: an instance needs an address",
		"services:\n- name: a\n  instances:\n  - address: 10.0.0.1\n":                          "services.yaml:4: address \"10.0.0.1\" must be like",
		"services:\n- name: a\n  instances:\n  - address: 10.0.0.1:0\n":                        "services.yaml:4: address",
		"services:\n- name: a\n  instances:\n  - address: 10.0.0.1:70000\n":                    "services.yaml:4: address",
		"services:\n- name: a\n  instances:\n  - address: \"a b:80\"\n":                        "services.yaml:4: address",
		"services:\n- name: a\n  instances:\n  - address: fe80::1%eth0:80\n":                   "services.yaml:4: address",
		"services:\n- name: a\n  instances:\n  - {address: \"h:1\"}\n  - {address: \"h:1\"}\n": "services.yaml:5: the same instance is already on line 4",
		"services:\n- name: a\n  instances:\n  - address: h:1\n    weight: -1\n":               "services.yaml:5: weight",
		"services:\n- name: a\n  instances:\n  - address: h:1\n    health: fine\n":             "services.yaml:5: health must be passing",
		"services:\n- name: a\n  instances:\n  - address: h:1\n    wieght: 1\n":                "services.yaml:5: unknown key \"wieght\"",
		"services:\n- name: a\n  meta: {a: [b]}\n  instances: []\n":                            "services.yaml:3: meta must hold single values",
		"services:\n- name: a\n  meta: {a: b, a: c}\n  instances: []\n":                        "services.yaml:3: key \"a\" twice",
		"services:\n- name: a\n  instances: &x [*x]\n":                                         "services.yaml:3",
		"services: []\nmerge: &m {a: b}\n<<: *m\n":                                             "services.yaml:3: unknown key \"<<\"",
	} {
		_, err := parse("services.yaml", []byte(in))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q\ngot  %v\nwant %s", in, err, want)
		}
	}
	_, err := parse("f", []byte("a: 1\nb: 2\nservices:\n- {name: x, y: z}\n"))
	if got := strings.Count(err.Error(), "\n") + 1; got != 4 {
		t.Errorf("all four mistakes at once, found %d: %v", got, err)
	}
}

// sink remembers the newest part and state of every source.
type sink struct {
	mu        sync.Mutex
	parts     map[watch.Source]*watch.Part
	states    map[watch.Source]watch.State
	published int
}

func (s *sink) Publish(p *watch.Part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts[p.Source] = p
	s.published++
}

// now is a copy of what the sink holds.
func (s *sink) now() (map[watch.Source]*watch.Part, map[watch.Source]watch.State, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.parts), maps.Clone(s.states), s.published
}

func (s *sink) Withdraw(src watch.Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.parts, src)
	delete(s.states, src)
}
func (s *sink) Report(st watch.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.states[st.Source] = st
}

// watching runs the test beside a watcher of path, on a clock of its own.
func watching(t *testing.T, path string, lookup func(context.Context, string) ([]netip.Addr, error), test func(t *testing.T, s *sink)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w, err := New(Config{Path: path, Datacenter: "home", lookup: lookup})
		if err != nil {
			t.Fatal(err)
		}
		s := &sink{parts: map[watch.Source]*watch.Part{}, states: map[watch.Source]watch.State{}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); w.Run(ctx, s) }()
		defer func() { cancel(); <-ended }()
		test(t, s)
	})
}

func after(d time.Duration) { time.Sleep(d); synctest.Wait() }

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func found(context.Context, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("10.0.0.6")}, nil
}

func TestExampleBecomesParts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "services.yaml")
	write(t, path, example)
	watching(t, path, found, func(t *testing.T, s *sink) {
		after(time.Second)
		one := watch.Weights{Passing: 1, Warning: 1}
		home, away := watch.Source{Kind: watch.File, Name: path}, watch.Source{Kind: watch.File, Name: path + "#dc2"}
		want := map[watch.Source]*watch.Part{
			home: {Source: home, Datacenter: "dc1", Services: map[string]*watch.Service{"legacy": {Name: "legacy", Instances: []watch.Instance{
				{ID: "legacy:10.0.0.5:8080", Node: "10.0.0.5", Address: netip.MustParseAddrPort("10.0.0.5:8080"), Weights: one, Tags: []string{"canary"}, Meta: map[string]string{"mi-lb.host": "shop.example.com"}},
				{ID: "legacy-2", Node: "rack7", Address: netip.MustParseAddrPort("10.0.0.6:8080"), Weights: watch.Weights{Passing: 10, Warning: 10}, Health: watch.HealthMaintenance, Reason: "written in " + path, Tags: []string{"canary", "blue"}, Meta: map[string]string{"mi-lb.host": "shop.example.com", "mi-lb.weight": "5"}},
			}}}},
			away: {Source: away, Datacenter: "dc2", Services: map[string]*watch.Service{"reports": {Name: "reports"}}},
		}
		parts, states, n := s.now()
		if diff := cmp.Diff(want, parts, cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(watch.Part{}), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Error(diff)
		}
		for source := range want {
			if states[source].Status != watch.Current {
				t.Errorf("%+v", states[source])
			}
		}
		legacy := parts[home].Services["legacy"]
		after(10 * time.Minute)
		if _, _, now := s.now(); now != n {
			t.Error("published without a change")
		}
		write(t, path, strings.Replace(example, "  - name: reports\n    datacenter: dc2", "  - name: more", 1))
		after(time.Second)
		parts, _, _ = s.now()
		if parts[home].Services["legacy"] != legacy || parts[home].Services["more"] == nil || parts[away] != nil {
			t.Errorf("%+v", parts)
		}
	})
}

func TestBrokenOrMissingFileKeepsTheLastGoodPart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "services.yaml")
	source := watch.Source{Kind: watch.File, Name: path}
	watching(t, path, found, func(t *testing.T, s *sink) {
		check := func(when string, status watch.Status, services int, message string) {
			t.Helper()
			after(2 * time.Second)
			parts, states, _ := s.now()
			got := -1
			if p := parts[source]; p != nil {
				got = len(p.Services)
			}
			if st := states[source]; st.Status != status || got != services || !strings.Contains(st.LastError, message) {
				t.Errorf("%s: %d services, %+v", when, got, st)
			}
		}
		check("missing from the start", watch.Connecting, -1, "no such file")
		write(t, path, "services:\n- nme: x\n")
		check("broken from the start", watch.Connecting, -1, path+":2: unknown key \"nme\"")
		write(t, path, example)
		check("good", watch.Current, 1, "")
		write(t, path, "services:\n- nme: y\n")
		check("broken", watch.Stale, 1, path+":2: unknown key \"nme\"")
		write(t, path, "")
		check("empty", watch.Stale, 1, "the file is empty")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		check("removed", watch.Stale, 1, "no such file")
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		check("a directory", watch.Stale, 1, "is not a file")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		write(t, path, example)
		check("good again", watch.Current, 1, "")
		write(t, path, "services: []\n")
		check("none, and said so", watch.Current, 0, "")
	})
}

func TestFileMayBeReplacedInAnyWay(t *testing.T) {
	with := func(name string) string {
		return fmt.Sprintf("services:\n- name: %s\n  instances: [{address: \"10.0.0.1:80\"}]\n", name)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "services.yaml")
	link := func(target, at string) {
		t.Helper()
		if err := os.Symlink(target, at+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(at+".new", at); err != nil {
			t.Fatal(err)
		}
	}
	// As a mounted ConfigMap: services.yaml -> ..data/services.yaml, ..data -> ..1
	for _, n := range []string{"1", "2"} {
		if err := os.Mkdir(filepath.Join(dir, ".."+n), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, ".."+n, "services.yaml"), with("map"+n))
	}
	link("..1", filepath.Join(dir, "..data"))
	link(filepath.Join("..data", "services.yaml"), path)
	watching(t, path, nil, func(t *testing.T, s *sink) {
		has := func(when, name string) {
			t.Helper()
			after(time.Second)
			parts, _, _ := s.now()
			if p := parts[watch.Source{Kind: watch.File, Name: path}]; p == nil || p.Services[name] == nil || len(p.Services) != 1 {
				t.Errorf("%s: %+v", when, p)
			}
		}
		has("at first", "map1")
		link("..2", filepath.Join(dir, "..data"))
		has("the link moved", "map2")
		write(t, path+".tmp", with("renamed"))
		if err := os.Rename(path+".tmp", path); err != nil {
			t.Fatal(err)
		}
		has("renamed over", "renamed")
		write(t, path, with("inplace"))
		has("in place", "inplace")
		// A writer that takes its time: what is there in between is good YAML.
		write(t, path, "services: []\n")
		after(30 * time.Millisecond)
		_, _, n := s.now()
		write(t, path, with("inplace"))
		has("half written in between", "inplace")
		if _, _, now := s.now(); now != n {
			t.Error("half a file was believed")
		}
	})
}

func TestHostNamesAreResolvedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "services.yaml")
	source := watch.Source{Kind: watch.File, Name: path}
	write(t, path, "services:\n- name: web\n  instances: [{address: \"web.example.com:80\"}, {address: \"10.0.0.1:80\"}]\n")
	var mu sync.Mutex
	addr, fail := "", errors.New("no such host")
	lookup := func(context.Context, string) ([]netip.Addr, error) {
		mu.Lock()
		defer mu.Unlock()
		if fail != nil {
			return nil, fail
		}
		return []netip.Addr{netip.MustParseAddr(addr)}, nil
	}
	set := func(a string, err error) { mu.Lock(); defer mu.Unlock(); addr, fail = a, err }
	watching(t, path, lookup, func(t *testing.T, s *sink) {
		is := func(when string, findings int, want ...string) {
			t.Helper()
			after(2 * time.Minute)
			parts, _, _ := s.now()
			p := parts[source]
			var got []string
			for _, i := range p.Services["web"].Instances {
				got = append(got, i.Address.String())
			}
			if diff := cmp.Diff(want, got); diff != "" || len(p.Findings) != findings {
				t.Errorf("%s: %s %v", when, diff, p.Findings)
			}
		}
		is("never resolved", 1, "10.0.0.1:80")
		set("10.0.0.7", nil)
		is("resolved", 0, "10.0.0.1:80", "10.0.0.7:80")
		set("", errors.New("server misbehaving"))
		is("last known", 1, "10.0.0.1:80", "10.0.0.7:80")
		set("10.0.0.8", nil)
		is("moved", 0, "10.0.0.1:80", "10.0.0.8:80")
	})
}

func TestCheckReadsTheFileOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "services.yaml")
	if err := Check(path); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	write(t, path, example)
	if err := Check(path); err != nil {
		t.Error(err)
	}
	if _, err := New(Config{}); err == nil {
		t.Error("no path, no error")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte("services:\n- &a {name: x, instances: [&i {address: \"h:1\"}]}\n- *a\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := parse("f", in)
		if (c == nil) != (err != nil) {
			t.Fatal("neither or both")
		}
		if err != nil {
			return
		}
		for _, s := range c.services {
			for _, i := range s.instances {
				if s.name == "" || i.ID == "" || i.Node == "" || i.port == 0 || !isHost(i.host) {
					t.Fatalf("%+v", s)
				}
			}
		}
	})
}
