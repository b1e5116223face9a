package marathon

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/watch"
)

// Whatever lists and events come in whatever order: what has ended is neither at
// the address of a task that has not, nor there for longer than it may be.
func TestAccountOfEndedTasksIsNeverOff(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		v := newView(watch.Source{Kind: watch.Marathon, Name: "m"}, "dc1", nil, time.Minute)
		now := noon
		since := map[string]time.Time{}
		states := []string{"TASK_STAGING", "TASK_RUNNING", "TASK_RUNNING", "TASK_KILLING", "TASK_KILLED", "TASK_UNREACHABLE", "TASK_UNKNOWN"}
		doc := func(app int) *document {
			var tasks []string
			for i := range r.IntN(5) {
				tasks = append(tasks, fmt.Sprintf(`{"id":"%d.%d","host":"h","ports":[%d],"state":%q,"startedAt":%q}`,
					app, i, 31000+r.IntN(6), states[r.IntN(len(states))], now.Format(time.RFC3339Nano)))
			}
			d, err := decodeApp("m", json.RawMessage(fmt.Sprintf(`{"id":"/%d","ports":[9000],"healthChecks":[{}],"tasks":[%s]}`, app, strings.Join(tasks, ","))))
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		agents := map[string]agentAddress{"h": {addr: netip.MustParseAddr("10.0.0.1")}}
		for step := range uint64(200) {
			now = now.Add(time.Duration(r.IntN(20)) * time.Second)
			switch app := r.IntN(3); r.IntN(4) {
			case 0:
				l := &listing{number: step + 1, agents: agents}
				for i := range 3 {
					if r.IntN(4) > 0 {
						l.docs = append(l.docs, doc(i))
					}
				}
				v.all(l, r.IntN(3) == 0, now)
			case 1:
				v.one(step+1, doc(app), agents, now)
			case 2:
				what := effect(r.IntN(5))
				v.hear(taskChange{
					app: fmt.Sprintf("/%d", app), task: fmt.Sprintf("%d.%d", app, r.IntN(5)),
					effect: what, state: map[effect]string{lostSight: "TASK_UNREACHABLE", ends: "TASK_KILLING", ended: "TASK_FAILED"}[what], at: now,
				}, now)
			case 3:
				v.none(step+1, fmt.Sprintf("/%d", app))
			}
			next := v.sweep(now)
			occupied, known := map[netip.AddrPort]int{}, map[endedTask]bool{}
			for id, app := range v.apps {
				if !slices.IsSortedFunc(app.Tasks, func(a, b watch.Task) int { return strings.Compare(a.ID, b.ID) }) {
					t.Fatalf("seed %d, step %d: tasks out of order", seed, step)
				}
				for _, task := range app.Tasks {
					if hasEnded(task.State) {
						known[endedTask{id, task.ID}] = true
						if task.Health != watch.HealthCritical || task.Reason == "" {
							t.Fatalf("seed %d, step %d: %+v", seed, step, task)
						}
						continue
					}
					occupied[task.Addresses[0]]++
				}
			}
			if fmt.Sprint(occupied) != fmt.Sprint(v.occupied) || fmt.Sprint(known) != fmt.Sprint(v.ended) {
				t.Fatalf("seed %d, step %d: %v %v, accounted %v %v", seed, step, occupied, known, v.occupied, v.ended)
			}
			for key := range since {
				if app, task, _ := strings.Cut(key, " "); !known[endedTask{app, task}] {
					delete(since, key)
				}
			}
			for key := range known {
				if task := findTask(v.apps[key.app], key.task); occupied[task.Addresses[0]] > 0 {
					t.Fatalf("seed %d, step %d: %v is at the address of another task", seed, step, key)
				}
				name := key.app + " " + key.task
				if since[name].IsZero() {
					since[name] = now
				}
				if now.Sub(since[name]) >= time.Minute || next.IsZero() || !next.After(now) {
					t.Fatalf("seed %d, step %d: %v since %s, next at %s, now %s", seed, step, key, since[name], next, now)
				}
			}
		}
	}
}
