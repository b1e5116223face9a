package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/test/edge"
	"github.com/mi-lb/mi-lb/test/marathon"
	"github.com/mi-lb/mi-lb/watch"
)

func TestMarathonsWrongAnswersTakeNothingAway(t *testing.T) {
	t.Parallel()
	cluster := startMarathon(t, marathon.Options{Fake: true})
	source := marathonName(cluster)
	port := edge.FreePort(t)
	all := []*edge.Backend{edge.StartBackend(t, "first")}
	names := []string{"first"}
	putApp(t, cluster, document(t, "/shop/web", port, labels("mi-lb.mode", "http")), all...)
	e := startEdge(t, edge.Options{Marathon: [][]string{cluster.URLs()}})
	byPort, byName := loadPort(t, port), e.Load("shop-web.test")
	failed := func(since time.Time) error {
		if s := e.Source(source); s.LastErrorAt.Before(since) {
			return fmt.Errorf("the last error %q was before", s.LastError)
		}
		return nil
	}
	for _, c := range []struct {
		name  string
		fault marathon.Fault
		// met is nil once mi-lb shows that it has met the fault.
		met func(since time.Time) error
		// harmless: the change arrives in spite of it.
		harmless bool
	}{
		{name: "500", fault: marathon.Fault{Kind: marathon.FaultStatus}, met: failed},
		{name: "500 with JSON", fault: marathon.Fault{Kind: marathon.FaultStatus, Body: `{"message":"java.lang.NullPointerException"}`}, met: failed},
		{name: "200 with a message", fault: marathon.Fault{Kind: marathon.FaultStatus, Status: 200, Body: `{"message":"x"}`}, met: failed},
		{name: "404 of a proxy", fault: marathon.Fault{Kind: marathon.FaultStatus, Status: 404}, met: failed},
		{name: "truncated JSON", fault: marathon.Fault{Kind: marathon.FaultTruncate}, met: failed},
		{name: "JSON full of nulls", fault: marathon.Fault{Kind: marathon.FaultNulls}, met: func(time.Time) error {
			return hasFinding(e, "invalid-document", "/shop/web")
		}},
		{name: "slow answers", fault: marathon.Fault{Kind: marathon.FaultDelay, Delay: 6 * time.Second}, harmless: true, met: func(time.Time) error {
			if s := e.Source(source); s.Status != watch.Stale {
				return fmt.Errorf("the source is %s", s.Status)
			}
			return nil
		}},
	} {
		since := time.Now()
		c.fault.Path = "/v2/apps"
		if _, err := cluster.Inject(c.fault); err != nil {
			t.Fatal(err)
		}
		before := slices.Sorted(slices.Values(names))
		all, names = append(all, edge.StartBackend(t, c.name)), append(names, c.name)
		setTasks(t, cluster, "/shop/web", all...)
		edge.Wait(t, c.name+": mi-lb meets the fault", func() error { return c.met(since) })
		if !c.harmless {
			if got := ready(e, "shop-web", all...); !slices.Equal(got, before) {
				t.Errorf("%s: served by %v, want what was known before, %v", c.name, got, before)
			}
			byName.WaitServedBy(before...)
			cluster.ClearFaults()
		}
		byName.WaitServedBy(names...)
		byPort.WaitServedBy(names...)
		cluster.ClearFaults()
		e.WaitSource(source, watch.Current)
	}
	edge.Wait(t, "findings go with their cause", func() error { return noFindings(e) })
	byPort.Stop()
	byName.Stop()
}

func TestMarathonsSilentStreamIsNoticedAndWhatChangedMeanwhile(t *testing.T) {
	t.Parallel()
	cluster := startMarathon(t, marathon.Options{Fake: true})
	port := edge.FreePort(t)
	first, second := edge.StartBackend(t, "first"), edge.StartBackend(t, "second")
	putApp(t, cluster, document(t, "/web", port, labels("mi-lb.mode", "http")), first)
	e := startEdge(t, edge.Options{Marathon: [][]string{cluster.URLs()}})
	load := loadPort(t, port)
	edge.Wait(t, "the stream is attached", func() error { return attached(cluster) })
	cluster.SilenceStreams(true)
	// What was under way when the stream fell silent may still bring a change; the next
	// one can only be noticed because of the silence.
	told := func() bool { return strings.Contains(e.Source(marathonName(cluster)).LastError, "sent nothing") }
	for serving := second; !told(); {
		setTasks(t, cluster, "/web", serving)
		load.WaitServedBy(serving.Name)
		if serving == second {
			serving = first
		} else {
			serving = second
		}
	}
	load.Stop()
}

func TestMarathonsStandbysRedirectWithBasicAuth(t *testing.T) {
	t.Parallel()
	const password = "correct horse battery"
	cluster := startMarathon(t, marathon.Options{
		Fake: true, Listen: []string{"127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"}, Username: "edge", Password: password,
	})
	passwordFile := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(passwordFile, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	port := edge.FreePort(t)
	all, names := []*edge.Backend{edge.StartBackend(t, "first")}, []string{"first"}
	putApp(t, cluster, document(t, "/web", port, labels("mi-lb.mode", "http")), all...)
	// Only a standby is known: it sends those who want events to the leader.
	e := startEdge(t, edge.Options{Config: map[string]any{"marathon": []any{map[string]any{
		"url": cluster.URLs()[1:2], "name": "main", "username": "edge", "password_file": passwordFile,
	}}}})
	load := loadPort(t, port)
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"redirected", func() {}},
		{"redirected to another leader", func() { cluster.Elect(2, 300*time.Millisecond) }},
		{"itself the leader", func() { cluster.Elect(1, 0) }},
	} {
		step.do()
		edge.Wait(t, step.name+": the stream is attached", func() error { return attached(cluster) })
		all, names = append(all, edge.StartBackend(t, step.name)), append(names, step.name)
		setTasks(t, cluster, "/web", all...)
		load.WaitServedBy(names...)
		e.WaitSource("marathon/main", watch.Current)
	}
	load.Stop()
	for what, text := range map[string]string{"log": e.Log(), "status": string(e.Ask("/v1/status")), "page": string(e.Ask("/"))} {
		if strings.Contains(text, password) {
			t.Errorf("the password is in the %s", what)
		}
	}
}

func TestAllOfMarathonIsDownAndBack(t *testing.T) {
	t.Parallel()
	cluster := startMarathon(t, marathon.Options{Fake: true, Listen: []string{"127.0.0.1:0", "127.0.0.1:0"}})
	port := edge.FreePort(t)
	first, second := edge.StartBackend(t, "first"), edge.StartBackend(t, "second")
	putApp(t, cluster, document(t, "/web", port, labels("mi-lb.mode", "http")), first)
	e := startEdge(t, edge.Options{Marathon: [][]string{cluster.URLs()}})
	load := loadPort(t, port)
	for member := range 2 {
		cluster.StopMember(member)
	}
	if s := e.WaitSource(marathonName(cluster), watch.Stale); s.LastError == "" || s.LastSuccess.IsZero() {
		t.Errorf("why and since when is not told: %+v", s)
	}
	setTasks(t, cluster, "/web", second)
	load.WaitServedBy("first")
	for member := range 2 {
		if err := cluster.StartMember(member); err != nil {
			t.Fatal(err)
		}
	}
	e.WaitSource(marathonName(cluster), watch.Current)
	load.WaitServedBy("second")
	load.Stop()
}

func TestHealthLostWithMarathonsLeaderKeepsItsLastVerdict(t *testing.T) {
	t.Parallel()
	cluster := startMarathon(t, marathon.Options{Fake: true, Listen: []string{"127.0.0.1:0", "127.0.0.1:0"}})
	port, newsPort := edge.FreePort(t), edge.FreePort(t)
	good, bad := edge.StartBackend(t, "good"), edge.StartBackend(t, "bad")
	checks := map[string]any{"healthChecks": []any{map[string]any{"protocol": "HTTP", "path": "/", "portIndex": 0}}}
	alive, dead := true, false
	tasks := tasksOn(good, bad)
	tasks[0].Health, tasks[1].Health = []*bool{&alive}, []*bool{&dead}
	if err := cluster.PutApp(document(t, "/web", port, checks), tasks...); err != nil {
		t.Fatal(err)
	}
	e := startEdge(t, edge.Options{Marathon: [][]string{cluster.URLs()}})
	load := loadPort(t, port)
	load.WaitServedBy("good")

	cluster.Elect(1, 300*time.Millisecond)
	edge.Wait(t, "another leader", func() error {
		if leader := cluster.Leader(); leader != 1 {
			return fmt.Errorf("member %d leads", leader)
		}
		return nil
	})
	// Something new, to see that what the new leader says has been read.
	putApp(t, cluster, document(t, "/news", newsPort, nil), edge.StartBackend(t, "news"))
	e.WaitPort(newsPort, "news")
	load.WaitServedBy("good")
	for b, want := range map[*edge.Backend]watch.Health{good: watch.HealthPassing, bad: watch.HealthCritical} {
		if s := e.Server("web", b.Address()); s == nil || s.Health != want {
			t.Errorf("%s is %+v, want %s", b.Name, s, want)
		}
	}
	// A verdict of the new leader counts at once.
	if err := cluster.SetHealth(tasks[1].ID, &alive); err != nil {
		t.Fatal(err)
	}
	load.WaitServedBy("good", "bad")
	load.Stop()
}

func TestMarathonsSuddenlyEmptyListIsHeldBackUntilItIsConfirmed(t *testing.T) {
	t.Parallel()
	cluster := startMarathon(t, marathon.Options{Fake: true})
	port := edge.FreePort(t)
	putApp(t, cluster, document(t, "/web", port, nil), edge.StartBackend(t, "first"))
	e := startEdge(t, edge.Options{Marathon: [][]string{cluster.URLs()}})
	load := loadPort(t, port)
	edge.Wait(t, "the stream is attached", func() error { return attached(cluster) })
	// An error, and then one list without anything.
	for _, fault := range []marathon.Fault{
		{Kind: marathon.FaultStatus, Path: "/v2/apps", Count: 1},
		{Kind: marathon.FaultEmpty, Path: "/v2/apps", Count: 1},
	} {
		if _, err := cluster.Inject(fault); err != nil {
			t.Fatal(err)
		}
	}
	cluster.CloseStreams()
	edge.Wait(t, "the empty list is held back", func() error {
		if s := e.Source(marathonName(cluster)); s.Held != 1 {
			return fmt.Errorf("the source is %+v", s)
		}
		return nil
	})
	load.WaitServedBy("first")
	edge.Wait(t, "the next list is whole again", func() error {
		if s := e.Source(marathonName(cluster)); s.Held != 0 || s.Status != watch.Current {
			return fmt.Errorf("the source is %+v", s)
		}
		return nil
	})
	load.WaitServedBy("first")
	load.Stop()

	// What is said twice is so.
	if _, err := cluster.Inject(marathon.Fault{Kind: marathon.FaultEmpty, Path: "/v2/apps"}); err != nil {
		t.Fatal(err)
	}
	cluster.CloseStreams()
	edge.Wait(t, "the app is gone", func() error {
		if slices.ContainsFunc(e.Routes().Routes, func(r routing.Route) bool { return r.Service == "web" }) {
			return errors.New("it has a route")
		}
		return nil
	})
}
