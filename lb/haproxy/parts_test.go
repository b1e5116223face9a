package haproxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mi-lb/mi-lb/lb/haproxy/plan"
	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/watch"
)

func TestBlameFindsExactlyTheCulprits(t *testing.T) {
	var all []string
	for i := range 200 {
		all = append(all, fmt.Sprintf("s%03d", i))
	}
	for _, culprits := range [][]string{{}, {"s000"}, {"s199"}, {"s000", "s100", "s199"}, {"s041", "s042", "s043"}, all} {
		trials := 0
		got, err := blame(all, func(services []string) (bool, error) {
			trials++
			return !slices.ContainsFunc(services, func(s string) bool { return slices.Contains(culprits, s) }), nil
		})
		if err != nil || !slices.Equal(got, culprits) {
			t.Errorf("culprits %v: got %v, %v", culprits, got, err)
		}
		if most := 2*8*len(culprits) + 2; trials > most && len(culprits) < 10 {
			t.Errorf("%d culprits took %d trials", len(culprits), trials)
		}
	}
	broken := errors.New("disk")
	if _, err := blame(all, func([]string) (bool, error) { return false, broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestBlameFindsServicesThatOnlyFailTogether(t *testing.T) {
	got, err := blame([]string{"a", "b", "c"}, func(services []string) (bool, error) {
		return !(slices.Contains(services, "a") && slices.Contains(services, "c")), nil
	})
	if err != nil || len(got) != 1 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestWhatIsLeftOutIsGoneFromTableAndSnapshot(t *testing.T) {
	snapshot := &watch.Snapshot{Datacenter: "dc1", Parts: []*watch.Part{{
		Source: watch.Source{Kind: watch.Consul, Name: "dc1"}, Datacenter: "dc1",
		Services: map[string]*watch.Service{"Web": {Name: "Web"}, "api": {Name: "api"}},
		Apps:     map[string]*watch.App{"/shop": {ID: "/shop", Ports: []watch.AppPort{{ServicePort: 9000}}}, "/x": {ID: "/x", Ports: []watch.AppPort{{ServicePort: 9001}}}},
	}}}
	w := Wanted{Table: routing.Compile(snapshot, routing.Policy{Domain: "d"}, nil), Snapshot: snapshot}
	out := w.without(map[string]bool{"web": true, "shop": true}, map[int]bool{9001: true})
	if len(out.Table.Ports) != 0 || len(out.Snapshot.Parts[0].Services) != 1 || len(out.Snapshot.Parts[0].Apps) != 1 {
		t.Errorf("table %s, parts %+v", out.Table, out.Snapshot.Parts[0])
	}
	for _, r := range out.Table.Routes {
		if r.Service == "web" || r.Service == "shop" {
			t.Errorf("route %+v", r)
		}
	}
	if len(w.Table.Ports) != 2 || len(snapshot.Parts[0].Services) != 2 {
		t.Error("what was wanted changed")
	}
	again := w.fingerprint("web")
	if w.fingerprint("web") == w.fingerprint("api") || w.fingerprint("web") != again {
		t.Error("fingerprints")
	}
}

func FuzzDecodeState(f *testing.F) {
	good, err := json.Marshal(saved{Generation: "3", Table: &routing.Table{Backends: []*routing.Backend{{ID: "a"}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"table":{"backends":[null]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeState("f", data)
		if (s.Table == nil) == (err == nil) {
			t.Errorf("%v, %v", s, err)
		}
	})
}

func TestTheStateIsSavedWholeThoughOnlyWhatChangedIsEncoded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	states := newStates(path)
	a := &routing.Backend{ID: "a", Service: `"backends":[]`, Servers: []routing.Server{{Name: "x"}}}
	b := &routing.Backend{ID: "b"}
	changed := *a
	changed.Sticky = true
	long := &routing.Backend{ID: "l", Service: strings.Repeat("long", 1<<16)}
	for _, backends := range [][]*routing.Backend{
		nil, {a, b}, {a, b}, {&changed, b}, {b}, {}, {a}, {a, long, b}, {a, long, b}, {b, a, long}, {long, b}, {long, b},
	} {
		want := saved{
			Generation: "7", Spares: []plan.Spare{{Name: "s", ID: "a"}}, Blocked: []int{1},
			Table: &routing.Table{Revision: 3, Backends: backends, Services: []*routing.Service{{Name: `"backends":[]`}}},
		}
		if err := states.save(want); err != nil {
			t.Fatal(err)
		}
		got, err := loadState(path)
		if err != nil {
			t.Fatal(err)
		}
		x, _ := json.Marshal(want)
		y, _ := json.Marshal(got)
		if diff := cmp.Diff(strings.Replace(string(x), `"backends":null`, `"backends":[]`, 1), string(y)); diff != "" {
			t.Errorf("saved (-), loaded (+):\n%s", diff)
		}
	}
}

func TestWhatAKilledCheckLeftIsRemoved(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{checkPrefix + "1", "current"} {
		if err := os.MkdirAll(filepath.Join(dir, name, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeChecks(dir); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || left[0].Name() != "current" {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestGenerationsCount(t *testing.T) {
	for in, want := range map[string]string{"": "1", "1": "2", "nonsense": "1", strings.Repeat("9", 30): "1"} {
		if got := nextGeneration(in); got != want {
			t.Errorf("%q -> %q", in, got)
		}
	}
}
