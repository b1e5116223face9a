package routing

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"golang.org/x/tools/txtar"

	"github.com/mi-lb/mi-lb/watch"
)

var update = flag.Bool("update", false, "write what is into the golden files")

// scenario is what a text archive in testdata holds: the policy, the world, who
// has what from before, and what must come of it.
type scenario struct {
	policy   Policy
	snapshot *watch.Snapshot
	held     Claims
}

func readScenario(t testing.TB, archive *txtar.Archive) scenario {
	t.Helper()
	s := scenario{policy: Policy{
		Domain: "example.com", ConsulDomain: "consul", Reserved: map[int]string{80: "listen.http"},
	}}
	for _, file := range archive.Files {
		switch file.Name {
		case "world.yaml":
			s.snapshot = readSnapshot(t, file.Data)
		case "policy.yaml":
			readYAML(t, file.Data, &s.policy)
		case "held.yaml":
			readYAML(t, file.Data, &s.held)
		}
	}
	return s
}

// readSnapshot reads parts by source; services are lists of instances by name, and
// what they leave out is made up.
func readSnapshot(t testing.TB, data []byte) *watch.Snapshot {
	t.Helper()
	var world struct {
		Parts map[string]watch.Part `json:"parts"`
	}
	readYAML(t, data, &world)
	snapshot := &watch.Snapshot{Revision: 1, Datacenter: "dc1"}
	for name, part := range world.Parts {
		kind, rest, _ := strings.Cut(name, "/")
		part.Source = watch.Source{Kind: watch.Kind(kind), Name: rest}
		if part.Datacenter == "" {
			part.Datacenter = "dc1"
			if part.Source.Kind == watch.Consul {
				part.Datacenter = rest
			}
		}
		for serviceName, service := range part.Services {
			service.Name = serviceName
			for i := range service.Instances {
				instance := &service.Instances[i]
				if instance.Node == "" {
					instance.Node = "n1"
				}
				if instance.ID == "" {
					instance.ID = fmt.Sprintf("%s-%d", serviceName, i+1)
				}
				if instance.Weights == (watch.Weights{}) {
					instance.Weights = watch.Weights{Passing: 1, Warning: 1}
				}
				if instance.Health == watch.HealthUnknown {
					instance.Health = watch.HealthPassing
				}
			}
		}
		for id, app := range part.Apps {
			app.ID = id
			for i := range app.Tasks {
				task := &app.Tasks[i]
				if task.ID == "" {
					task.ID = fmt.Sprintf("%s.%d", dashed(id), i+1)
				}
				if task.Node == "" {
					task.Node = "n1"
				}
				if task.State == "" {
					task.State = "TASK_RUNNING"
				}
			}
		}
		snapshot = snapshot.With(&part, snapshot.At)
	}
	return snapshot
}

func readYAML(t testing.TB, data []byte, into any) {
	t.Helper()
	var value any
	if err := yaml.Unmarshal(data, &value); err != nil {
		t.Fatalf("yaml: %v", err)
	}
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatalf("json: %v", err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("json: %v", err)
	}
}

// UnmarshalJSON lets archives name a policy's ports and groups plainly.
func (p *Policy) UnmarshalJSON(data []byte) error {
	var plain struct {
		Domain      *string
		Exposure    Exposure
		Locality    Locality
		Passthrough bool
		Groups      map[string][]string
	}
	if err := json.Unmarshal(data, &plain); err != nil {
		return err
	}
	if plain.Domain != nil {
		p.Domain = *plain.Domain
	}
	p.Exposure, p.Locality, p.Passthrough = plain.Exposure, plain.Locality, plain.Passthrough
	p.Groups = map[watch.Source][]string{}
	for name, groups := range plain.Groups {
		kind, rest, _ := strings.Cut(name, "/")
		p.Groups[watch.Source{Kind: watch.Kind(kind), Name: rest}] = groups
	}
	return nil
}

func TestCompile(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := readScenario(t, archive)
			table := Compile(s.snapshot, s.policy, s.held)
			checkConsistent(t, table)
			for i, f := range archive.Files {
				var got string
				switch {
				case f.Name == "table":
					got = table.String()
				case strings.HasPrefix(f.Name, "explain "):
					got = strings.Join(Explain(table, readRequest(t, f.Name)).Steps, "\n") + "\n"
				default:
					continue
				}
				if *update {
					archive.Files[i].Data = []byte(got)
				} else if diff := cmp.Diff(string(f.Data), got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", f.Name, diff)
				}
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// readRequest reads "explain host/path", "explain :9000" or "explain app /id".
func readRequest(t *testing.T, name string) Request {
	t.Helper()
	what := strings.TrimPrefix(name, "explain ")
	if port, ok := strings.CutPrefix(what, ":"); ok {
		n, err := parsePort(port)
		if err != nil {
			t.Fatal(err)
		}
		return Request{Port: n}
	}
	if id, ok := strings.CutPrefix(what, "app "); ok {
		return Request{AppID: id}
	}
	host, path, found := strings.Cut(what, "/")
	if found {
		path = "/" + path
	}
	return Request{Host: host, Path: path}
}

// checkConsistent holds for every table: what a route or port leads to exists, and
// no two of them claim the same.
func checkConsistent(t testing.TB, table *Table) {
	t.Helper()
	backends := map[string]*Backend{}
	for _, b := range table.Backends {
		if backends[b.ID] != nil {
			t.Errorf("two backends %q", b.ID)
		}
		backends[b.ID] = b
		names := map[string]bool{}
		for _, s := range b.Servers {
			if names[s.Name] {
				t.Errorf("backend %q has two servers %q", b.ID, s.Name)
			}
			names[s.Name] = true
			if s.Weight < 0 || s.Weight > maxWeight || !s.Address.IsValid() {
				t.Errorf("backend %q has server %+v", b.ID, s)
			}
		}
	}
	claimed := map[string]bool{}
	for _, r := range table.Routes {
		b := backends[r.Backend]
		if b == nil {
			t.Errorf("route %+v leads nowhere", r)
		} else if (r.Kind == BySNI) != (b.Protocol == TCP) {
			t.Errorf("route %+v leads to a backend that speaks %s", r, b.Protocol)
		}
		if key := claimRoute(r.key()); claimed[key] {
			t.Errorf("route %s claimed twice", key)
		} else {
			claimed[key] = true
		}
	}
	for _, p := range table.Ports {
		if b := backends[p.Backend]; b == nil || b.Protocol != p.Protocol {
			t.Errorf("port %+v leads to backend %+v", p, b)
		}
		if key := claimPort(p.Number); claimed[key] {
			t.Errorf("%s claimed twice", key)
		} else {
			claimed[key] = true
		}
	}
}

// TestOrderDoesNotMatter shuffles whatever has an order in the input.
func TestOrderDoesNotMatter(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s := readScenario(t, archive)
		want := Compile(s.snapshot, s.policy, s.held).String()
		for seed := range uint64(20) {
			random := rand.New(rand.NewPCG(seed, 0))
			shuffled := *s.snapshot
			shuffled.Parts = slices.Clone(s.snapshot.Parts)
			for i, part := range shuffled.Parts {
				p := *part
				p.Services = map[string]*watch.Service{}
				for name, service := range part.Services {
					instances := slices.Clone(service.Instances)
					random.Shuffle(len(instances), func(a, b int) { instances[a], instances[b] = instances[b], instances[a] })
					p.Services[name] = &watch.Service{Name: name, Instances: instances}
				}
				shuffled.Parts[i] = &p
			}
			random.Shuffle(len(shuffled.Parts), func(a, b int) {
				shuffled.Parts[a], shuffled.Parts[b] = shuffled.Parts[b], shuffled.Parts[a]
			})
			if diff := cmp.Diff(want, Compile(&shuffled, s.policy, s.held).String()); diff != "" {
				t.Fatalf("%s, seed %d (-want +got):\n%s", file, seed, diff)
			}
		}
	}
}

// TestClaimsAreKept: compiling again with the claims of the table changes nothing,
// whoever else would have won.
func TestClaimsAreKept(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s := readScenario(t, archive)
		first := Compile(s.snapshot, s.policy, s.held)
		second := Compile(s.snapshot, s.policy, first.Claims())
		if diff := cmp.Diff(first.String(), second.String()); diff != "" {
			t.Errorf("%s (-first +second):\n%s", file, diff)
		}
	}
}
