package registrator

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func desiredOf(t *testing.T, lines ...string) *Desired {
	t.Helper()
	all := map[string]Description{}
	for _, line := range lines {
		c := dockerRun(t, line)
		all[c.ShortID()] = Describe(examplePolicy, Observed{Container: c}, nobody)
	}
	return Merge(all)
}

// registered is an agent that has exactly what is desired.
func registered(d *Desired) *Actual {
	a := &Actual{Services: map[string]ActualService{}}
	for id, s := range d.Services {
		a.apply(Operation{Kind: Register, ID: id, Service: s})
	}
	return a
}

func describeOperations(operations map[string][]Operation) []string {
	var lines []string
	for _, id := range slices.Sorted(maps.Keys(operations)) {
		for _, op := range operations[id] {
			lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s %s%s", op.Kind, id, op.Reason, op.Health.Status)))
		}
	}
	return lines
}

func TestDiffDoesTheLeast(t *testing.T) {
	web := `--id a1 --name web -p 80:80 web`
	const id = "hostname:web:80"
	operator, ourReason := "disk is full", "mi-lb registrator: container a1a1a1a1a1a1 is paused"
	cleanup := examplePolicy
	cleanup.Cleanup = true
	edit := func(a *Actual, change func(*ActualService)) *Actual {
		s := a.Services[id]
		s.Meta = maps.Clone(s.Meta)
		change(&s)
		a.Services[id] = s
		return a
	}
	tests := []struct {
		name    string
		policy  Policy
		desired *Desired
		actual  *Actual
		want    []string
		finding string
	}{
		{"nothing to do", examplePolicy, desiredOf(t, web), registered(desiredOf(t, web)), nil, ""},
		{"a new container", examplePolicy, desiredOf(t, web), registered(desiredOf(t)), []string{"register " + id}, ""},
		{"a container gone", examplePolicy, desiredOf(t), registered(desiredOf(t, web)), []string{"deregister " + id}, ""},
		{"the container was made anew with other tags", examplePolicy, desiredOf(t, `--id b2 --name web -p 80:80 -e SERVICE_TAGS=x web`), registered(desiredOf(t, web)),
			[]string{"register " + id}, ""},
		{"somebody changed the port", examplePolicy, desiredOf(t, web), edit(registered(desiredOf(t, web)), func(s *ActualService) { s.Port = 1 }), []string{"register " + id}, ""},
		{"somebody removed the check", examplePolicy, desiredOf(t, `--id a1 --name web -p 80:80 -e SERVICE_CHECK_TCP=true web`), nil, nil, ""},
		{"other people's services", examplePolicy, desiredOf(t), &Actual{Services: map[string]ActualService{
			"consul": {Name: "consul"}, "elsewhere:web:80": {Name: "web"}, "hostname:web:80": {Name: "web"},
			"x": {Name: "x", Meta: map[string]string{markKey: "elsewhere 0123 4567"}}, "y": {Name: "y", Meta: map[string]string{markKey: "nonsense"}},
		}}, nil, ""},
		{"-cleanup removes what the old registrator left of this host", cleanup, desiredOf(t), &Actual{Services: map[string]ActualService{
			"consul": {Name: "consul"}, "elsewhere:web:80": {Name: "web"}, "hostname:web:80": {Name: "web"}, "hostname:dns:53:udp": {Name: "dns"},
		}}, []string{"deregister hostname:dns:53:udp", "deregister hostname:web:80"}, ""},
		{"what the old registrator registered is taken over", examplePolicy, desiredOf(t, web), &Actual{Services: map[string]ActualService{
			id: {Name: "old", Address: "1.2.3.4", Port: 1},
		}}, []string{"register " + id}, ""},
		{"its own id too, if it is the same service", examplePolicy, desiredOf(t, `--name web -p 80:80 -e SERVICE_ID=mine web`), &Actual{Services: map[string]ActualService{
			"mine": {Name: "web", Address: "192.168.1.102", Port: 80},
		}}, []string{"register mine"}, ""},
		{"an id that somebody else has", examplePolicy, desiredOf(t, `--name web -p 80:80 -e SERVICE_ID=vault web`), &Actual{Services: map[string]ActualService{
			"vault": {Name: "vault", Address: "10.0.0.1", Port: 8200},
		}}, nil, "id-taken"},
		{"an id of another host's registrator", examplePolicy, desiredOf(t, `--name web -p 80:80 -e SERVICE_ID=mine web`), &Actual{Services: map[string]ActualService{
			"mine": {Name: "web", Address: "192.168.1.102", Port: 80, Meta: map[string]string{markKey: "elsewhere 0123 4567"}},
		}}, nil, "id-taken"},
		{"an operator's maintenance is left alone", examplePolicy, desiredOf(t, web), edit(registered(desiredOf(t, web)), func(s *ActualService) { s.Maintenance = &operator }), nil, ""},
		{"and survives a new registration", examplePolicy, desiredOf(t, web), edit(registered(desiredOf(t, web)), func(s *ActualService) { s.Maintenance, s.Port = &operator, 1 }),
			[]string{"register " + id, "enter-maintenance " + id + " disk is full"}, ""},
		{"our own ends when its reason has", examplePolicy, desiredOf(t, web), edit(registered(desiredOf(t, web)), func(s *ActualService) { s.Maintenance = &ourReason }),
			[]string{"leave-maintenance " + id}, ""},
	}
	tests[5].actual = edit(registered(tests[5].desired), func(s *ActualService) { s.Checks = nil })
	tests[5].want = []string{"register " + id}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			operations, findings := Diff(test.policy, test.desired, test.actual)
			if diff := cmp.Diff(test.want, describeOperations(operations)); diff != "" {
				t.Error(diff)
			}
			var codes string
			for _, f := range findings {
				codes += f.Code
			}
			if codes != test.finding {
				t.Errorf("findings %v, want %q", findings, test.finding)
			}
			for _, steps := range operations {
				for _, op := range steps {
					test.actual.apply(op)
				}
			}
			if rest, _ := Diff(test.policy, test.desired, test.actual); len(rest) > 0 {
				t.Errorf("after its operations there is still %v", describeOperations(rest))
			}
		})
	}
}

func TestStoppingOnlyDrains(t *testing.T) {
	c := dockerRun(t, `--name web -p 80:80 web`)
	running := Merge(map[string]Description{"a": Describe(examplePolicy, Observed{Container: c}, nobody)})
	stopping := Merge(map[string]Description{"a": Describe(examplePolicy, Observed{Container: c, Stopping: true}, nobody)})
	reason := stopping.Services["hostname:web:80"].Maintenance

	a := registered(running)
	operations, _ := Diff(examplePolicy, stopping, a)
	if diff := cmp.Diff([]string{"enter-maintenance hostname:web:80 " + reason}, describeOperations(operations)); diff != "" {
		t.Error(diff)
	}
	a.apply(operations["hostname:web:80"][0])
	if operations, _ := Diff(examplePolicy, stopping, a); len(operations) > 0 {
		t.Errorf("drained already, but %v", describeOperations(operations))
	}
	if operations, _ := Diff(examplePolicy, stopping, registered(desiredOf(t))); len(operations) > 0 {
		t.Errorf("never registered, but %v", describeOperations(operations))
	}
}

func TestHealthIsWrittenWhenItChanges(t *testing.T) {
	at := func(status string) *Desired {
		c := dockerRun(t, `--name web -p 80:80 web`)
		c.State.Health = &Health{Status: status}
		return Merge(map[string]Description{"a": Describe(examplePolicy, Observed{Container: c}, nobody)})
	}
	a := registered(at("starting"))
	operations, _ := Diff(examplePolicy, at("healthy"), a)
	if diff := cmp.Diff([]string{"set-health hostname:web:80 passing"}, describeOperations(operations)); diff != "" {
		t.Error(diff)
	}
	a.apply(operations["hostname:web:80"][0])
	operations, _ = Diff(examplePolicy, at("unhealthy"), a)
	if diff := cmp.Diff([]string{"set-health hostname:web:80 critical"}, describeOperations(operations)); diff != "" {
		t.Error(diff)
	}
	if operations, _ := Diff(examplePolicy, at("healthy"), a); len(operations) > 0 {
		t.Errorf("nothing changed, but %v", describeOperations(operations))
	}
}

func TestOnSuccessKeepsWhatFailed(t *testing.T) {
	a := registered(desiredOf(t, `--id a1 --name web -p 80:80 web`, `--id b2 --name db -p 81:81 db`))
	d := desiredOf(t)
	d.Keep["a1a1a1a1a1a1"] = true
	operations, _ := Diff(examplePolicy, d, a)
	if diff := cmp.Diff([]string{"deregister hostname:db:81"}, describeOperations(operations)); diff != "" {
		t.Error(diff)
	}
}

func TestAnIDBelongsToWhoeverWasFirst(t *testing.T) {
	first := `--id f1 --created 2026-01-01T00:00:00Z --name first -p 80:80 -e SERVICE_ID=mine web`
	second := `--id a2 --created 2026-01-02T00:00:00Z --name second -p 81:80 -e SERVICE_ID=mine web`
	for range 20 { // a map's order must not matter
		d := desiredOf(t, second, first)
		if got := sentence(d.Services["mine"]); got != "mine is web at 192.168.1.102:80" {
			t.Fatalf("got %s", got)
		}
		if len(d.Findings) != 1 || d.Findings[0].Code != "id-taken" || d.Findings[0].Source != "docker/a2a2a2a2a2a2" {
			t.Fatalf("findings %v", d.Findings)
		}
	}
	if got := sentence(desiredOf(t, second).Services["mine"]); got != "mine is web at 192.168.1.102:81" {
		t.Errorf("when the first is gone: %s", got)
	}
	two := desiredOf(t, `--name web -p 80:80 -p 443:443 -e SERVICE_ID=mine web`)
	if got := sentence(two.Services["mine"]); got != "mine is web-80 at 192.168.1.102:80" || len(two.Findings) != 1 {
		t.Errorf("one id for two ports: %s, %v", got, two.Findings)
	}
}
