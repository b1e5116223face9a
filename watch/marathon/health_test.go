package marathon

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/watch"
)

// healthOf builds an app with health checks out of tasks and gives each task's
// id and health, and its state if it does not run.
func healthOf(t *testing.T, m *memory, now time.Time, extra string, tasks ...string) (string, time.Time) {
	t.Helper()
	doc := fmt.Sprintf(`{"id":"/a","ports":[9000],"healthChecks":[{"protocol":"HTTP","gracePeriodSeconds":300,"intervalSeconds":60,"timeoutSeconds":20}]%s,"tasks":[%s]}`, extra, strings.Join(tasks, ","))
	d, err := decodeApp("marathon/test", json.RawMessage(doc))
	if err != nil {
		t.Fatal(err)
	}
	app, _, again := build(d, nil, taskView{memory: m, agents: map[string]agentAddress{"h": {addr: netip.MustParseAddr("10.0.0.1")}}, now: now})
	var all []string
	for _, task := range app.Tasks {
		text := task.ID + " " + task.Health.String()
		if way, _ := routingOf(task.State); way == awaited || way == gone {
			text += " " + task.State
		}
		all = append(all, text)
	}
	return strings.Join(all, ", "), again
}

func task(id, state, startedAt, results string) string {
	return fmt.Sprintf(`{"id":%q,"host":"h","ports":[31000],"state":%q,"startedAt":%q%s}`, id, state, startedAt, results)
}

// forLong is for how long tasks that have ended stay.
const forLong = time.Hour

const (
	long   = "2020-01-01T00:00:00Z"
	justly = "2020-01-01T11:59:50Z"

	isAlive   = `,"healthCheckResults":[{"alive":true,"consecutiveFailures":0,"firstSuccess":"2020-01-01T00:01:00Z","lastSuccess":"2020-01-01T11:00:00Z","lastFailure":null}]`
	isNot     = `,"healthCheckResults":[{"alive":true},{"alive":false,"consecutiveFailures":1,"lastFailure":"2020-01-01T11:00:00Z"}]`
	untouched = `,"healthCheckResults":[{"alive":false,"consecutiveFailures":0,"firstSuccess":null,"lastFailure":null,"lastSuccess":null,"lastFailureCause":null,"instanceId":"x"}]`
	lost      = `,"healthCheckResults":[]`
)

func TestHealthOfTasks(t *testing.T) {
	for name, c := range map[string]struct {
		tasks []string
		want  string
	}{
		"alive, not alive":                  {[]string{task("a", "TASK_RUNNING", long, isAlive), task("b", "TASK_RUNNING", long, isNot)}, "a passing, b critical"},
		"fresh beside a healthy one":        {[]string{task("a", "TASK_RUNNING", long, isAlive), task("b", "TASK_RUNNING", justly, ""), task("c", "TASK_RUNNING", justly, untouched)}, "a passing, b critical, c critical"},
		"fresh, nobody healthy":             {[]string{task("a", "TASK_RUNNING", justly, ""), task("b", "TASK_RUNNING", long, isNot)}, "a unknown, b critical"},
		"fresh beside an unreachable one":   {[]string{task("a", "TASK_UNREACHABLE", long, isAlive), task("b", "TASK_RUNNING", justly, "")}, "a passing, b unknown"},
		"results lost, no memory":           {[]string{task("a", "TASK_RUNNING", long, lost), task("b", "TASK_RUNNING", long, untouched)}, "a unknown, b unknown"},
		"killing drains":                    {[]string{task("a", "TASK_KILLING", long, isAlive), task("b", "TASK_RUNNING", long, isAlive)}, "a maintenance, b passing"},
		"unreachable keeps its verdict":     {[]string{task("a", "TASK_UNREACHABLE", long, isAlive), task("b", "TASK_LOST", long, isNot)}, "a passing, b critical"},
		"not yet":                           {[]string{task("a", "TASK_STAGING", "", isAlive), task("b", "TASK_STARTING", long, ""), task("c", "TASK_CREATED", "", "")}, "a critical TASK_STAGING, b critical TASK_STARTING, c critical TASK_CREATED"},
		"fresh beside one that was healthy": {[]string{task("a", "TASK_KILLED", long, isAlive), task("b", "TASK_RUNNING", justly, "")}, "a critical TASK_KILLED, b unknown"},
		"no longer": {[]string{task("c", "TASK_FINISHED", long, isAlive), task("d", "TASK_FAILED", long, isAlive), task("e", "TASK_KILLED", long, isAlive), task("f", "TASK_ERROR", long, isAlive), task("g", "TASK_DROPPED", long, isAlive), task("h", "TASK_GONE", long, isAlive), task("i", "TASK_GONE_BY_OPERATOR", long, isAlive), task("j", "TASK_UNKNOWN", long, isAlive), task("k", "TASK_NEVER_HEARD_OF", long, isAlive)},
			"c critical TASK_FINISHED, d critical TASK_FAILED, e critical TASK_KILLED, f critical TASK_ERROR, g critical TASK_DROPPED, h critical TASK_GONE, i critical TASK_GONE_BY_OPERATOR, j critical TASK_GONE, k critical TASK_GONE"},
		"alive is not a boolean: no result then": {[]string{task("a", "TASK_RUNNING", long, `,"healthCheckResults":[{"alive":"yes"},null,5]`)}, "a unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, _ := healthOf(t, newMemory(nil, forLong), noon, "", c.tasks...); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestAwaitedResultsAreLookedAtAgainWhenTheirTimeIsOver(t *testing.T) {
	m := newMemory(nil, forLong)
	tasks := []string{task("a", "TASK_RUNNING", long, isAlive), task("b", "TASK_RUNNING", justly, "")}
	_, again := healthOf(t, m, noon, "", tasks...)
	if want := noon.Add(-10*time.Second + 380*time.Second); !again.Equal(want) {
		t.Fatalf("again at %s, want %s", again, want)
	}
	if got, _ := healthOf(t, m, again, "", tasks...); got != "a passing, b unknown" {
		t.Error(got)
	}
}

func TestVerdictsOutliveALeaderChangeAndARestart(t *testing.T) {
	m := newMemory(nil, forLong)
	healthOf(t, m, noon, "", task("a", "TASK_RUNNING", long, isAlive), task("b", "TASK_RUNNING", long, isNot))
	afterwards := []string{task("a", "TASK_RUNNING", long, lost), task("b", "TASK_RUNNING", long, untouched), task("c", "TASK_RUNNING", justly, lost)}
	const want = "a passing, b critical, c critical"
	if got, _ := healthOf(t, m, noon, "", afterwards...); got != want {
		t.Errorf("after a leader change: %s", got)
	}
	saved := map[string]*watch.App{"/a": {Tasks: []watch.Task{
		{ID: "a", Health: watch.HealthPassing},
		{ID: "b", Health: watch.HealthCritical, Reason: reasonFailing},
		{ID: "c", Health: watch.HealthCritical, Reason: reasonAwaited},
	}}}
	if got, _ := healthOf(t, newMemory(saved, forLong), noon, "", afterwards...); got != want {
		t.Errorf("after a restart: %s", got)
	}
}

func TestReadinessDuringADeployment(t *testing.T) {
	const checks = `,"readinessChecks":[{"name":"r","timeoutSeconds":10}]`
	for name, c := range map[string]struct{ extra, want string }{
		"no deployment":       {checks + `,"deployments":[]`, "a passing, b passing"},
		"no readiness checks": {`,"deployments":[{"id":"x"}]`, "a passing, b passing"},
		"no results":          {checks + `,"deployments":[{"id":"x"}]`, "a passing, b critical"},
		"ready":               {checks + `,"deployments":[{"id":"x"}],"readinessCheckResults":[{"taskId":"b","ready":true}]`, "a passing, b passing"},
		"not ready":           {checks + `,"deployments":[{"id":"x"}],"readinessCheckResults":[{"taskId":"a","ready":false},{"taskId":"b","ready":true}]`, "a critical, b passing"},
	} {
		t.Run(name, func(t *testing.T) {
			got, again := healthOf(t, newMemory(nil, forLong), noon, c.extra, task("a", "TASK_RUNNING", long, isAlive), task("b", "TASK_RUNNING", justly, isAlive))
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if name == "no results" && !again.Equal(noon.Add(5*time.Second)) {
				t.Errorf("again at %s", again)
			}
		})
	}
}

func TestTasksOfAppsWithoutChecksAreUnknown(t *testing.T) {
	app, _ := built(t, `{"id":"/a","ports":[9000],"tasks":[{"id":"t","host":"agent1","ports":[31000],`+running+`}]}`, nil)
	if got := app.Tasks[0]; got.Health != watch.HealthUnknown || got.Reason != "" {
		t.Errorf("%+v", got)
	}
}
