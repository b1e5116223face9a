package watch

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func clock() func() time.Time {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return func() time.Time {
		now = now.Add(time.Second)
		return now
	}
}

func part(kind Kind, name string, services ...string) *Part {
	p := &Part{Source: Source{kind, name}, Datacenter: name, Services: map[string]*Service{}}
	for _, s := range services {
		p.Services[s] = &Service{Name: s, Instances: []Instance{{
			ID: s, Node: "n1", Address: netip.MustParseAddrPort("10.0.0.1:80"), Health: HealthWarning, Weights: Weights{1, 1},
		}}}
	}
	return p
}

func TestWorldKeepsEverySourcesLastPart(t *testing.T) {
	w := NewWorld(nil, "dc1", clock())
	dc1, dc2 := part(Consul, "dc1", "web"), part(Consul, "dc2", "db")
	w.Publish(dc2)
	w.Publish(dc1)
	first, changed := w.Snapshot()
	if len(first.Parts) != 2 || first.Parts[0] != dc1 || first.Parts[1] != dc2 || first.Revision != 2 {
		t.Fatalf("snapshot %+v", first)
	}
	newer := part(Consul, "dc1", "web", "api")
	w.Publish(newer)
	select {
	case <-changed:
	default:
		t.Error("the change was not signalled")
	}
	second, _ := w.Snapshot()
	if second.Part(Source{Consul, "dc1"}) != newer || second.Part(Source{Consul, "dc2"}) != dc2 {
		t.Errorf("snapshot %+v", second)
	}
	if first.Part(Source{Consul, "dc1"}) != dc1 {
		t.Error("a snapshot that was handed out changed")
	}
	if !second.At.After(first.At) {
		t.Error("the snapshot does not say when its newest part came")
	}
	w.Withdraw(Source{Consul, "dc2"})
	if third, _ := w.Snapshot(); len(third.Parts) != 1 {
		t.Errorf("withdrawn source is still there: %+v", third)
	}
}

func TestWorldIsSettledWhenEverySourceHasAnsweredOrFailed(t *testing.T) {
	w := NewWorld(nil, "dc1", clock())
	a, b := Source{Consul, "dc1"}, Source{Marathon, "m"}
	w.Report(State{Source: a, Status: Connecting})
	w.Report(State{Source: b, Status: Connecting})
	if w.Settled() {
		t.Error("settled before anyone answered")
	}
	w.Report(State{Source: a, Status: Current})
	if w.Settled() {
		t.Error("settled before Marathon answered")
	}
	began := time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)
	w.Report(State{Source: b, Status: Connecting, Since: began, LastError: "too many connections", LastSuccess: began})
	if w.Settled() {
		t.Error("settled although Marathon answers and has not said everything")
	}
	w.Report(State{Source: b, Status: Connecting, Since: began.Add(-time.Hour), LastError: "too many connections", LastSuccess: began})
	if !w.Settled() {
		t.Error("a source that does not get to its end holds up the others for ever")
	}
	w.Report(State{Source: b, Status: Connecting, LastError: "connection refused"})
	if !w.Settled() {
		t.Error("a source that cannot be reached holds up the others")
	}
	if states := w.States(); len(states) != 2 || states[0].Source != a {
		t.Errorf("states %+v", states)
	}
}

func TestDatacentersAreOrderedByDistance(t *testing.T) {
	s := &Snapshot{Datacenter: "home"}
	s = s.With(&Part{Source: Source{Consul, ""}, Datacenters: []Datacenter{
		{"far", 80 * time.Millisecond}, {"unknown", 0}, {"near", 5 * time.Millisecond}, {"home", 0},
	}}, time.Time{})
	s = s.With(part(Consul, "another"), time.Time{})
	var names []string
	for _, dc := range s.Datacenters() {
		names = append(names, dc.Name)
	}
	if diff := cmp.Diff([]string{"home", "near", "far", "another", "unknown"}, names); diff != "" {
		t.Error(diff)
	}
}

func TestSavedSnapshotIsTheSame(t *testing.T) {
	path := filepath.Join(t.TempDir(), "snapshot.json")
	if s, _, err := Load(path); s != nil || err != nil {
		t.Fatalf("without a file: %v, %v", s, err)
	}
	w := NewWorld(nil, "dc1", clock())
	w.Publish(part(Consul, "dc1", "web", "api", `"odd\name`))
	w.Publish(&Part{Source: Source{File, "f"}})
	w.Publish(&Part{Source: Source{Marathon, "m"}, Apps: map[string]*App{"/a": {ID: "/a", Tasks: []Task{{
		ID: "a.1", Addresses: []netip.AddrPort{{}, netip.MustParseAddrPort("10.0.0.1:31000")}, Health: HealthCritical,
	}}}}})
	want, _ := w.Snapshot()
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	saver := NewSaver(path)
	if err := saver.Save(want, now.Add(-time.Minute)); err != nil {
		t.Fatal(err)
	}
	w.Publish(part(Consul, "dc1", "another", "api", `"odd\name`))
	want, _ = w.Snapshot()
	if err := saver.Save(want, now); err != nil {
		t.Fatal(err)
	}
	got, at, err := Load(path)
	if err != nil || !at.Equal(now) {
		t.Fatalf("load: %v, %v", at, err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{}), cmpopts.IgnoreUnexported(Part{})); diff != "" {
		t.Errorf("-saved +loaded:\n%s", diff)
	}
	if resumed, _ := NewWorld(got, "dc1", clock()).Snapshot(); len(resumed.Parts) != 3 || resumed.Revision != want.Revision {
		t.Errorf("resumed %+v", resumed)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestSavedSnapshotThatMakesNoSenseIsAnError(t *testing.T) {
	for name, data := range map[string]string{
		"empty": "", "truncated": `{"format":1,"snapshot":{"par`, "another format": `{"format":99,"snapshot":{}}`, "none": `{"format":1}`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "snapshot.json")
			if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
				t.Fatal(err)
			}
			if s, _, err := Load(path); err == nil || s != nil {
				t.Errorf("got %v, %v", s, err)
			}
		})
	}
}

func FuzzDecodeSaved(f *testing.F) {
	f.Add([]byte(`{"format":1,"snapshot":{"parts":[null,{"source":{"kind":"consul"},"services":{"a":null,"b":{"instances":[{"address":"x"}]}}}]}}`))
	f.Add([]byte(`{"format":1,"snapshot":{"parts":[{"apps":{"/a":{"tasks":[{"addresses":["","1.2.3.4:5"],"health":"new"}]}}}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, _, err := decodeSaved("f", data)
		if (s == nil) == (err == nil) {
			t.Errorf("%v, %v", s, err)
		}
		if s != nil {
			s.Datacenters()
		}
	})
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "new\nline\x1b[0m": "new?line?[0m", "\xff": "?", "é": "é",
	} {
		if got := Printable(in); got != want {
			t.Errorf("%q -> %q, want %q", in, got, want)
		}
	}
	if got := Printable(string(make([]byte, 10_000))); len([]rune(got)) != 121 {
		t.Errorf("10 kB become %d runes", len([]rune(got)))
	}
}
