package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"github.com/mi-lb/mi-lb/test/bench/ask"
	"github.com/mi-lb/mi-lb/test/bench/load"
	"github.com/mi-lb/mi-lb/test/bench/report"
	"github.com/mi-lb/mi-lb/test/bench/subject"
	"github.com/mi-lb/mi-lb/test/bench/world"
	"github.com/mi-lb/mi-lb/test/edge"
	"github.com/mi-lb/mi-lb/test/marathon"
)

// recoveryResult is how soon the next change is followed after something went wrong.
type recoveryResult struct {
	Subject string `json:"subject"`
	What    string `json:"what"`
	// From says since when the times count.
	From  string          `json:"from"`
	Times []time.Duration `json:"times"`
	// Lost is how often it was not within lostRecovery, and counts as that.
	Lost int `json:"lost"`
	// Failed requests, of so many, to services that had somebody to serve all the time.
	Failed   int `json:"failed"`
	Requests int `json:"requests"`
}

// lostRecovery is when the wait for a recovery is given up.
const lostRecovery = 2 * time.Minute

func (b *bench) recovery() {
	var results []*recoveryResult
	rounds := 3
	if b.options.quick {
		rounds = 1
	}
	for _, k := range b.kinds() {
		if k.Peer && k.Name != subject.ConsulTemplate(0).Name {
			continue // how long it waits before it renders makes no difference here
		}
		n := rounds
		if k.Peer {
			n = 1 // it takes minutes
		}
		if k.Peer && b.options.quick {
			continue
		}
		for _, s := range scenarios {
			r := &recoveryResult{Subject: k.Name, What: s.what, From: s.from}
			results = append(results, r)
			for range n {
				b.Scope(func() { b.consulRecovery(k, s, r) })
			}
			b.Logf("%s: %s: %s in the median", r.Subject, r.What, report.Milliseconds(report.Quantile(r.Times, 0.5)))
		}
	}
	if len(b.options.subjects) == 0 || b.kinds()[0].Name == subject.MiLB.Name {
		for _, s := range marathonScenarios {
			r := &recoveryResult{Subject: subject.MiLB.Name, What: s.what, From: s.from}
			results = append(results, r)
			for range rounds {
				b.Scope(func() { b.marathonRecovery(s, r) })
			}
			b.Logf("%s: %s: %s in the median", r.Subject, r.What, report.Milliseconds(report.Quantile(r.Times, 0.5)))
		}
	}
	b.publish(recoveryPart(results))
}

// scenario is something that goes wrong with Consul, and is over when it returns.
type scenario struct {
	what, from string
	happen     func(b *bench, w *world.Consul, catalog *world.Catalog)
}

var scenarios = []scenario{
	{"Consul: a snapshot restored, indexes go backwards", "the next change", func(b *bench, w *world.Consul, catalog *world.Catalog) {
		saved := w.Save()
		// Far enough that the indexes are not reached again by what follows.
		for range 200 {
			i := catalog.New("passing-by")
			b.Check(w.Register(i))
			b.Check(w.Deregister(i))
		}
		time.Sleep(time.Second)
		w.Restore(saved)
	}},
	{"Consul: restarted empty, and registered anew", "the next change", func(b *bench, w *world.Consul, catalog *world.Catalog) {
		b.Check(w.Server.Restart(b.Context(), true))
		b.Check(w.Server.WaitLeader(b.Context()))
		w.Fill(catalog)
	}},
}

// consulRecovery is one round. The subject asks the server itself: no agent between
// them hides what happens.
func (b *bench) consulRecovery(k subject.Kind, s scenario, r *recoveryResult) {
	servers := world.StartServers(b.Program)
	w := world.StartConsul(b.Program)
	size := newSize(100, 3, 0)
	catalog := world.NewCatalog(size.Services-1, size.Each, size.Nodes, servers.Port)
	permanent := catalog.New("measured-0")
	catalog.Instances = append(catalog.Instances, permanent)
	w.Fill(catalog)
	m := &measuring{bench: b, size: size, candidate: candidate{Kind: k, limits: true}, world: w, catalog: catalog, permanent: []world.Instance{permanent}}
	begin := time.Now()
	m.subject = k.Start(b.Program, b.binaries, m.candidate.agent(w))
	m.client = &ask.Client{Address: m.subject.HTTPAddress()}
	b.Cleanup(m.client.Close)
	b.Check(m.ready(begin, time.Minute))
	time.Sleep(2 * time.Second)

	l := load.Start(b.Context(), load.Options{Address: m.subject.HTTPAddress(), Hosts: []string{subject.Host(permanent.Service), subject.Host(world.ServiceName(7))}, Rate: 200, Connections: 16})
	s.happen(b, w, catalog)
	added := catalog.New(permanent.Service)
	from := time.Now()
	b.register(w, added)
	r.note(m.await(subject.Host(added.Service), added.Address.String(), from))
	requests := l.Stop()
	r.Failed += requests.Failures()
	r.Requests += requests.Requests()
	if requests.Failures() > 0 {
		b.Logf("%s: %s: %s", k.Name, s.what, requests.Reasons())
	}
	m.said()
}

// register tries until Consul accepts it: it has no leader for a moment.
func (b *bench) register(w *world.Consul, i world.Instance) {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := w.Register(i)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.Fatal(err)
		}
	}
}

// await is how long it takes from then until the host is answered by that body; ok
// is false if that is too long.
func (m *measuring) await(host, body string, from time.Time) (took time.Duration, ok bool) {
	for time.Since(from) < lostRecovery {
		answer, err := m.client.Get(host, "/")
		if err == nil && answer.Status == 200 && string(answer.Body) == body {
			return time.Since(from), true
		}
		time.Sleep(2 * time.Millisecond)
	}
	return lostRecovery, false
}

func (r *recoveryResult) note(took time.Duration, ok bool) {
	r.Times = append(r.Times, took)
	if !ok {
		r.Lost++
	}
}

// marathonScenario is something that goes wrong with Marathon while an app changes.
type marathonScenario struct {
	what, from string
	// change happens in the middle of it; it returns from when the time counts.
	happen func(b *bench, cluster *marathon.Cluster, change func()) time.Time
}

var marathonScenarios = []marathonScenario{
	{"Marathon: reads fail for 5 s while a task comes", "the end of the failure", func(b *bench, cluster *marathon.Cluster, change func()) time.Time {
		number, err := cluster.Inject(marathon.Fault{Kind: marathon.FaultStatus, Status: 503})
		b.Check(err)
		change()
		time.Sleep(5 * time.Second)
		cluster.ClearFault(number)
		return time.Now()
	}},
	{"Marathon: the event stream is silent while a task comes", "the change", func(b *bench, cluster *marathon.Cluster, change func()) time.Time {
		cluster.SilenceStreams(true)
		b.Cleanup(func() { cluster.SilenceStreams(false) })
		from := time.Now()
		change()
		return from
	}},
	{"Marathon: the stream breaks off, and the event of a task is lost", "the change", func(b *bench, cluster *marathon.Cluster, change func()) time.Time {
		cluster.DropEvents(-1)
		from := time.Now()
		change()
		cluster.CloseStreams()
		return from
	}},
}

func (b *bench) marathonRecovery(s marathonScenario, r *recoveryResult) {
	cluster, err := marathon.Start(marathon.Options{Fake: true})
	b.Check(err)
	b.Cleanup(cluster.Close)
	one := world.StartServer(b.Program, fmt.Sprintf("127.0.0.1:%d", edge.FreePort(b)))
	two := world.StartServer(b.Program, fmt.Sprintf("127.0.0.1:%d", edge.FreePort(b)))
	document, err := json.Marshal(map[string]any{
		"id": "/shop", "cmd": "true", "cpus": 0.1, "mem": 16, "instances": 1,
		"networks":        []any{map[string]any{"mode": "host"}},
		"portDefinitions": []any{map[string]any{"port": 10000, "protocol": "tcp"}},
	})
	b.Check(err)
	task := func(s *world.Servers) marathon.FakeTask {
		return marathon.FakeTask{ID: fmt.Sprintf("shop.%d", s.Port), Ports: []int{s.Port}}
	}
	b.Check(cluster.PutApp(document, task(one)))

	config := subject.Defaults()
	config["haproxy.path"] = b.binaries.HAProxy
	e := edge.Start(b, edge.Options{Binary: b.binaries.MiLB, Marathon: [][]string{cluster.URLs()}, Config: config})
	m := &measuring{bench: b, client: &ask.Client{Address: e.HTTPAddress}}
	b.Cleanup(m.client.Close)
	host := subject.Host("shop")
	at := func(s *world.Servers) string {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(s.Port)).String()
	}
	if _, ok := m.await(host, at(one), time.Now()); !ok {
		b.Fatalf("the app is not served; mi-lb said:\n%s", e.Log())
	}
	for deadline := time.Now().Add(30 * time.Second); cluster.Streams() == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatal("mi-lb attaches to no event stream")
		}
	}
	time.Sleep(2 * time.Second)
	l := load.Start(b.Context(), load.Options{Address: e.HTTPAddress, Hosts: []string{host}, Rate: 100, Connections: 8})
	from := s.happen(b, cluster, func() { b.Check(cluster.SetTasks("/shop", task(one), task(two))) })
	r.note(m.await(host, at(two), from))
	requests := l.Stop()
	r.Failed += requests.Failures()
	r.Requests += requests.Requests()
}

func recoveryPart(results []*recoveryResult) report.Part {
	table := report.Table{
		Head: []string{"what goes wrong", "", "from", "median", "max", "measured", "lost", "failed requests"},
		Note: fmt.Sprintf("Until the first request that an instance serves that came meanwhile or afterwards. Lost: not within %s. The requests are to services whose instances were there all the time.", lostRecovery),
	}
	for _, r := range results {
		table.Rows = append(table.Rows, []string{
			r.What, r.Subject, r.From, report.Milliseconds(report.Quantile(r.Times, 0.5)), report.Milliseconds(report.Quantile(r.Times, 1)),
			fmt.Sprint(len(r.Times)), fmt.Sprint(r.Lost), fmt.Sprintf("%s of %s", grouped(r.Failed), grouped(r.Requests)),
		})
	}
	return report.Part{Name: "recovery", Title: "After something went wrong", Intro: "100 services of 3 instances in Consul, one server that the edge asks itself; one app in Marathon (emulated).", Tables: []report.Table{table}, Raw: results}
}
