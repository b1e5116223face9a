package main

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/test/bench/ask"
	"github.com/mi-lb/mi-lb/test/bench/load"
	"github.com/mi-lb/mi-lb/test/bench/report"
	"github.com/mi-lb/mi-lb/test/bench/subject"
	"github.com/mi-lb/mi-lb/test/bench/usage"
	"github.com/mi-lb/mi-lb/test/bench/world"
	"github.com/mi-lb/mi-lb/test/edge"
)

// churnResult is what a load sees while the catalog changes.
type churnResult struct {
	Subject string `json:"subject"`
	Size    size   `json:"size"`
	Failure string `json:"failure,omitempty"`
	// Rate of requests a second, over so many connections at most.
	Rate        int `json:"rate"`
	Connections int `json:"connections"`
	// Without and with changes, the same load.
	Rest  loadFigures `json:"rest"`
	Churn loadFigures `json:"churn"`
	// Changes of all kinds, and how long they took.
	Changes int            `json:"changes"`
	Kinds   map[string]int `json:"kinds"`
	Took    time.Duration  `json:"took"`
	Reloads int            `json:"reloads"`
	// Workers of HAProxy that there were at most at once.
	Workers int `json:"workers"`
	// CPU time of the changes, with the load's in HAProxy's.
	Control time.Duration `json:"control"`
	Consul  time.Duration `json:"consul"`
	HAProxy time.Duration `json:"haproxy"`
	// HAProxyRest is what HAProxy took for the load without changes, for as long.
	HAProxyRest time.Duration `json:"haproxyRest"`
	// Memory in bytes: before, and the most.
	Memory        int64 `json:"memory"`
	PeakMemory    int64 `json:"peakMemory"`
	HAProxyMemory int64 `json:"haproxyMemory"`
	HAProxyPeak   int64 `json:"haproxyPeak"`
}

// loadFigures are a load's.
type loadFigures struct {
	Requests int            `json:"requests"`
	Failed   map[string]int `json:"failed"`
	Repeated int            `json:"repeated"`
	P50      time.Duration  `json:"p50"`
	P99      time.Duration  `json:"p99"`
	P999     time.Duration  `json:"p999"`
	Max      time.Duration  `json:"max"`
	// BySecond is the p99 of each second.
	BySecond []time.Duration `json:"bySecond"`
}

func figuresOf(r load.Results) loadFigures {
	f := loadFigures{Requests: r.Requests(), Failed: r.Failed, Repeated: r.Repeated}
	if len(r.Latencies) == 0 {
		return f
	}
	f.P50, f.P99, f.P999, f.Max = report.Quantile(r.Latencies, 0.5), report.Quantile(r.Latencies, 0.99), report.Quantile(r.Latencies, 0.999), report.Quantile(r.Latencies, 1)
	seconds := map[int][]time.Duration{}
	last := 0
	for i, at := range r.At {
		second := int(at / time.Second)
		seconds[second] = append(seconds[second], r.Latencies[i])
		last = max(last, second)
	}
	for second := range last { // the last one is not whole
		p99 := time.Duration(0)
		if all := seconds[second]; len(all) > 0 {
			p99 = report.Quantile(all, 0.99)
		}
		f.BySecond = append(f.BySecond, p99)
	}
	return f
}

// hot are how many services the load asks for; each has two instances that stay.
const hot = 20

func (b *bench) churn() {
	s := newSize(1000, 4, 0)
	if len(b.options.sizes) == 1 {
		s = b.options.sizes[0]
	}
	var candidates []candidate
	for _, k := range b.kinds() {
		candidates = append(candidates, candidate{Kind: k, limits: !k.Peer})
	}
	if slices.ContainsFunc(candidates, func(c candidate) bool { return !c.Peer }) {
		candidates = append(candidates, candidate{Kind: subject.MiLB, limits: true, stopped: true})
	}
	var results []churnResult
	for _, c := range candidates {
		b.Scope(func() {
			servers := world.StartServers(b.Program)
			w := world.StartConsul(b.Program)
			catalog := world.NewCatalog(s.Services-hot, s.Each, s.Nodes, servers.Port)
			var permanent []world.Instance
			for i := range 2 * hot {
				permanent = append(permanent, catalog.New(fmt.Sprintf("hot-%02d", i/2)))
			}
			catalog.Instances = append(catalog.Instances, permanent...)
			w.Fill(catalog)
			m := &measuring{bench: b, size: s, candidate: c, world: w, catalog: catalog, permanent: permanent}
			results = append(results, m.churn())
		})
	}
	b.publish(churnPart(results))
}

func (m *measuring) churn() churnResult {
	rest, during, changes := 30*time.Second, 60*time.Second, 1000
	if m.options.quick {
		rest, during, changes = 6*time.Second, 9*time.Second, 150
	}
	r := churnResult{Subject: m.candidate.name(), Size: m.size, Rate: 1000, Connections: 64, Changes: changes, Kinds: map[string]int{}}
	begin := time.Now()
	m.subject = m.candidate.Start(m.Program, m.binaries, m.candidate.agent(m.world))
	m.client = &ask.Client{Address: m.subject.HTTPAddress()}
	m.Cleanup(m.client.Close)
	if err := m.ready(begin, 4*time.Minute); err != nil {
		m.Logf("%s: %v", m.candidate.name(), err)
		r.Failure = err.Error()
		return r
	}
	m.settle()
	o := load.Options{Address: m.subject.HTTPAddress(), Rate: r.Rate, Connections: r.Connections}
	for i := range hot {
		o.Hosts = append(o.Hosts, subject.Host(fmt.Sprintf("hot-%02d", i)))
	}
	warm := load.Start(m.Context(), o)
	time.Sleep(3 * time.Second)
	warm.Stop()

	before := subject.Used(m.subject, m.world.CPU)
	l := load.Start(m.Context(), o)
	time.Sleep(rest)
	r.Rest = figuresOf(l.Stop())
	used := subject.Used(m.subject, m.world.CPU).Since(before)
	r.HAProxyRest = time.Duration(float64(used.HAProxy) * during.Seconds() / rest.Seconds())
	r.Memory, r.HAProxyMemory = usage.Memory(m.subject.Control()), usage.Memory(m.subject.HAProxy()...)
	m.Logf("%s, no changes: p99 %s, %d failed", m.candidate.name(), report.Milliseconds(r.Rest.P99), r.Rest.failures())

	reloads := m.subject.Reloads()
	stop := m.watchHAProxy(&r)
	before = subject.Used(m.subject, m.world.CPU)
	if m.candidate.stopped {
		m.signal(syscall.SIGSTOP)
		m.Cleanup(func() { _ = syscall.Kill(m.subject.Control(), syscall.SIGCONT) }) // or it would not end
	}
	l = load.Start(m.Context(), o)
	r.Took = m.changeAll(&r, during)
	// What the last changes set off is a part of it.
	time.Sleep(2 * time.Second)
	r.Churn = figuresOf(l.Stop())
	if m.candidate.stopped {
		m.signal(syscall.SIGCONT)
	}
	used = subject.Used(m.subject, m.world.CPU).Since(before)
	r.Control, r.Consul, r.HAProxy = used.Control, used.Consul, used.HAProxy
	stop()
	r.Reloads = m.subject.Reloads() - reloads
	r.PeakMemory = usage.PeakMemory(m.subject.Control())
	m.Logf("%s, %d changes in %s: p99 %s, %d of %d requests failed (%s), %d reloads, %s of CPU", m.candidate.name(), r.Changes, r.Took.Round(time.Second),
		report.Milliseconds(r.Churn.P99), r.Churn.failures(), r.Churn.Requests, load.Results{Failed: r.Churn.Failed}.Reasons(), r.Reloads, report.Seconds(r.Control))
	m.said()
	return r
}

// signal tells the control plane to halt or to go on.
func (m *measuring) signal(s syscall.Signal) {
	m.Check(syscall.Kill(m.subject.Control(), s))
}

func (f loadFigures) failures() int { return load.Results{Failed: f.Failed}.Failures() }

// watchHAProxy notes the most workers and memory until it is stopped.
func (m *measuring) watchHAProxy(r *churnResult) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			pids := m.subject.HAProxy()
			r.Workers = max(r.Workers, len(pids)-1)
			r.HAProxyPeak = max(r.HAProxyPeak, usage.Memory(pids...))
			select {
			case <-quit:
				return
			case <-time.After(time.Second):
			}
		}
	}()
	return func() { close(quit); <-done }
}

// passing is how long the process of an instance lives on after it was taken out of
// Consul: what a scheduler gives a process to end.
const passing = 2 * time.Second

// changeAll makes the changes, evenly spread over the time.
func (m *measuring) changeAll(r *churnResult, during time.Duration) time.Duration {
	port := edge.FreePort(m)
	// Instances that come and go have processes that come and go.
	fresh := func(service string) (world.Instance, *world.Servers) {
		i := m.catalog.New(service)
		i.Address = netip.AddrPortFrom(i.Address.Addr(), uint16(port))
		return i, world.StartServer(m.Program, i.Address.String())
	}
	var one, two, alone world.Instance
	var oneServer, twoServer, aloneServer *world.Servers
	end := func(i world.Instance, s *world.Servers) {
		m.Check(m.world.Deregister(i))
		time.AfterFunc(passing, s.End)
	}
	steps := []struct {
		kind string
		do   func(cycle int)
	}{
		{"instance added", func(c int) {
			one, oneServer = fresh(m.permanent[2*(c%hot)].Service)
			m.Check(m.world.Register(one))
		}},
		{"weight", func(int) { one.Weight = 3; m.Check(m.world.Register(one)) }},
		{"new service", func(c int) {
			alone, aloneServer = fresh(fmt.Sprintf("new-%d", c))
			m.Check(m.world.Register(alone))
		}},
		{"critical", func(int) { m.Check(m.world.SetHealth(one, api.HealthCritical)) }},
		{"instance added", func(c int) {
			two, twoServer = fresh(m.permanent[2*((c+hot/2)%hot)].Service)
			m.Check(m.world.Register(two))
		}},
		{"passing", func(int) { m.Check(m.world.SetHealth(one, api.HealthPassing)) }},
		{"weight", func(c int) {
			p := m.permanent[2*(c%hot)]
			p.Weight = 2 + c%3
			m.Check(m.world.Register(p))
		}},
		{"instance removed", func(int) { end(one, oneServer) }},
		{"instance removed", func(int) { end(two, twoServer) }},
		{"service removed", func(int) { end(alone, aloneServer) }},
	}
	begin := time.Now()
	for i := range r.Changes {
		time.Sleep(time.Until(begin.Add(during * time.Duration(i) / time.Duration(r.Changes))))
		step := steps[i%len(steps)]
		step.do(i / len(steps))
		r.Kinds[step.kind]++
	}
	return time.Since(begin)
}

func churnPart(results []churnResult) report.Part {
	latency := report.Table{
		Title: "Requests",
		Head:  []string{"", "changes", "requests", "failed", "sent twice", "p50", "p99", "p99.9", "max", "p99, ratio"},
		Note:  "Sent twice: a kept connection was closed without an answer, and the client repeated its GET over a new one, as all clients do (RFC 9112, 9.3.1). “mi-lb halted” is mi-lb's HAProxy while the same changes are made and nobody follows them: what the machine, Consul and those who make the changes do to the load.",
	}
	cost := report.Table{
		Title: "What the changes cost",
		Head:  []string{"", "reloads", "workers at once", "CPU, control plane", "CPU, Consul", "CPU, HAProxy", "of it for the load", "memory", "at most", "HAProxy's", "at most"},
	}
	intro := ""
	for _, r := range results {
		if r.Failure != "" {
			latency.Rows = append(latency.Rows, []string{r.Subject, r.Failure, "", "", "", "", "", "", "", ""})
			continue
		}
		intro = fmt.Sprintf("%s services; %s requests a second over at most %d connections, in an open loop (latency counts from when a request was to be sent) to %d of the services; %s changes in %s: %s.",
			r.Size, grouped(r.Rate), r.Connections, hot, grouped(r.Changes), r.Took.Round(time.Second), kindsOf(r.Kinds))
		for _, f := range []struct {
			name string
			loadFigures
		}{{"none", r.Rest}, {grouped(r.Changes), r.Churn}} {
			ratio := ""
			if f.name != "none" && r.Rest.P99 > 0 {
				ratio = fmt.Sprintf("%.2f", float64(f.P99)/float64(r.Rest.P99))
			}
			failed := fmt.Sprint(f.failures())
			if f.failures() > 0 {
				failed += " (" + load.Results{Failed: f.Failed}.Reasons() + ")"
			}
			latency.Rows = append(latency.Rows, []string{
				r.Subject, f.name, grouped(f.Requests), failed, grouped(f.Repeated),
				report.Milliseconds(f.P50), report.Milliseconds(f.P99), report.Milliseconds(f.P999), report.Milliseconds(f.Max), ratio,
			})
		}
		cost.Rows = append(cost.Rows, []string{
			r.Subject, fmt.Sprint(r.Reloads), fmt.Sprint(r.Workers), report.Seconds(r.Control), report.Seconds(r.Consul), report.Seconds(r.HAProxy), report.Seconds(r.HAProxyRest),
			report.Megabytes(r.Memory), report.Megabytes(r.PeakMemory), report.Megabytes(r.HAProxyMemory), report.Megabytes(r.HAProxyPeak),
		})
	}
	return report.Part{Name: "churn", Title: "Changes under load", Intro: intro, Tables: []report.Table{latency, cost}, Charts: churnCharts(results), Raw: results}
}

// kindsOf changes in one line.
func kindsOf(kinds map[string]int) string {
	var all []string
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		all = append(all, fmt.Sprintf("%d × %s", kinds[kind], kind))
	}
	return strings.Join(all, ", ")
}
