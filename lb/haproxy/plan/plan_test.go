package plan

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/mi-lb/mi-lb/lb/haproxy/runtime"
	"github.com/mi-lb/mi-lb/lb/routing"
)

var update = flag.Bool("update", false, "write what is got into the test data")

// TestPlans runs the archives in testdata: tables 1, 2, 3 … one after the other, each
// followed by the plan that leads to it from what runs then. "reload" as a name
// means that HAProxy was reloaded with the table before, "cut" that the drained
// servers' grace is over, "commands" shows the commands of the plan before.
func TestPlans(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no test data", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			encoding, caps := testEncoding(), able
			var ahead []string
			var running *Running
			var table *routing.Table
			var plan Plan
			for i, f := range archive.Files {
				var got string
				switch name, _, _ := strings.Cut(f.Name, " "); name {
				case "haproxy":
					for word := range strings.FieldsSeq(string(f.Data)) {
						switch word {
						case "static":
							caps.AddServer = false
						case "deletes":
							caps.DelServer = true
						default:
							ahead = append(ahead, word)
						}
					}
					encoding.Spares = spares(ahead...)
					continue
				case "table":
					table = parseTable(t, string(f.Data))
					if running == nil {
						if running, err = New(table, encoding); err != nil {
							t.Fatal(err)
						}
					}
					continue
				case "plan":
					plan = Diff(running, table, caps)
					running = running.After(plan)
					got = plan.text()
				case "reload":
					if running, err = New(table, encoding); err != nil {
						t.Fatal(err)
					}
					plan = Diff(running, table, caps)
					running = running.After(plan)
					got = plan.text()
				case "cut":
					plan.Ops = running.Cut(table, plan.Leaving)
					running = running.Apply(plan.Ops)
					collected := running.Collect(table, caps)
					running = running.Apply(collected)
					plan = Plan{Ops: slices.Concat(plan.Ops, collected)}
					got = plan.text()
				case "commands":
					got = strings.Join(NewScript(plan.Ops).Commands, "\n") + "\n"
				default:
					t.Fatalf("no such step: %q", f.Name)
				}
				if *update {
					archive.Files[i].Data = []byte(got)
				} else if diff := cmp.Diff(string(f.Data), got); diff != "" {
					t.Errorf("%s, step %d (-want +got):\n%s", f.Name, i, diff)
				}
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(archive), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestTheOutcomeOfAScriptIsThatOfItsOperations(t *testing.T) {
	ref := Ref{"web", "web", "a"}
	ops := []Op{
		AddServer{Ref: ref, Server: routing.Server{Name: "a", State: routing.Ready}, Args: "10.0.0.1:80 check"},
		SetServerWeight{ref, 1000},
		ClaimSpare{ID: "x", Backend: "spare"},
		SetServerWeight{ref, 10},
		DelMap{"/m", "k"},
	}
	s := NewScript(ops)
	if len(s.Commands) != 5 {
		t.Fatalf("commands %q", s.Commands)
	}
	good := runtime.Reply{Severity: runtime.Plain}
	bad := runtime.Reply{Severity: runtime.Error, Text: "no"}
	done, failed := s.Outcome([]runtime.Reply{good, bad, good, good, good})
	if len(done) != 3 || done[0].Kind() != "claim-spare" || len(failed) != 2 || failed[0].Op.Kind() != "add-server" || !errors.Is(failed[1].Err, runtime.ErrInvalidCommand) {
		t.Errorf("done %v, failed %v", done, failed)
	}
	done, failed = s.Outcome([]runtime.Reply{good, good, good})
	if len(done) != 2 || len(failed) != 1 {
		t.Errorf("of an answer cut short: done %v, failed %v", done, failed)
	}
}

func TestDriftIsFoundCountedAndRepaired(t *testing.T) {
	table := parseTable(t, `
backend api http roundrobin
  a 10.0.0.1:80 ready
  b 10.0.0.2:80 ready weight=5
  c 10.0.0.3:80 maint
  d 10.0.0.4:80 ready
backend none http roundrobin
route api.example.com/ api
route x.example.com/ api
route y.example.com/ api
port 10001 tcp api
`)
	running, err := New(table, testEncoding())
	if err != nil {
		t.Fatal(err)
	}
	servers := actual(running)
	servers = append(servers, runtime.Server{Backend: "operators", Name: "own", State: runtime.Ready})
	rowsOf := actualRows(running)
	if d := Drift(running, servers, rowsOf, able); d.Total() != 0 || len(d.Ops) != 0 || d.Observed != running {
		t.Fatalf("nothing drifted, and found was %+v", d)
	}
	for i := range servers {
		switch servers[i].Name {
		case "a":
			servers[i].State, servers[i].Address = runtime.Maint, table.Backends[0].Servers[1].Address
		case "b":
			servers[i].Weight = 9
		case "d":
			servers[i].Name = "stranger"
		}
	}
	rowsOf["/hosts.map"] = []runtime.MapEntry{{Key: "api.example.com/", Value: "none"}, {Key: "y.example.com/", Value: "api"}, {Key: "y.example.com/", Value: "none"}, {Key: "z", Value: "api"}}
	delete(rowsOf, "/ports.map")
	d := Drift(running, servers, rowsOf, able)
	want := map[string]int{ServerState: 1, ServerAddress: 1, ServerWeight: 1, ServerUnknown: 1, ServerMissing: 1, RowMissing: 1, RowUnknown: 2, RowValue: 1}
	if diff := cmp.Diff(want, d.Counts); diff != "" {
		t.Error(diff)
	}
	var got strings.Builder
	for _, op := range d.Ops {
		fmt.Fprintln(&got, op)
	}
	if diff := cmp.Diff(`set address api/a 10.0.0.1:80
set state api/a ready
set weight api/b 5
set state api/stranger drain
add server api/d 10.0.0.4:80 weight 100 check ready
set map /hosts.map api.example.com/ api
add map /hosts.map x.example.com/ api
del map /hosts.map y.example.com/
add map /hosts.map y.example.com/ api
del map /hosts.map z
`, got.String()); diff != "" {
		t.Error(diff)
	}
	repaired := d.Observed.Apply(d.Ops)
	if left := Drift(repaired, actual(repaired), actualRows(repaired), able); left.Total() != 0 {
		t.Errorf("left: %+v", left)
	}
	if p := Diff(repaired, table, able); !p.Empty() {
		t.Errorf("after the repair: %s", p.text())
	}
	if got := repaired.Leftovers(table); got != 1 || len(d.Leaving) != 1 {
		t.Errorf("%d left over, leaving %v", got, d.Leaving)
	}
}

// actual is what a HAProxy that does what the model says would answer.
func actual(r *Running) []runtime.Server {
	var all []runtime.Server
	for _, b := range r.Backends() {
		for _, s := range b.Servers {
			all = append(all, runtime.Server{Backend: b.Name, Name: s.Name, Address: s.Address, Weight: s.Weight, State: string(s.State)})
		}
	}
	return all
}

func actualRows(r *Running) map[string][]runtime.MapEntry {
	all := map[string][]runtime.MapEntry{}
	for _, file := range r.Maps() {
		for _, row := range r.Rows(file) {
			all[file] = append(all[file], runtime.MapEntry{Key: row.Key, Value: row.Value})
		}
	}
	return all
}
