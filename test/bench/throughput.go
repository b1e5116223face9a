package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"strconv"
	"time"

	"github.com/mi-lb/mi-lb/test/bench/ask"
	"github.com/mi-lb/mi-lb/test/bench/load"
	"github.com/mi-lb/mi-lb/test/bench/report"
	"github.com/mi-lb/mi-lb/test/bench/subject"
	"github.com/mi-lb/mi-lb/test/bench/usage"
	"github.com/mi-lb/mi-lb/test/bench/world"
	"github.com/mi-lb/mi-lb/test/edge"
)

// throughputResult is what one HAProxy carries.
type throughputResult struct {
	Subject string `json:"subject"`
	// Full are rounds in which clients ask as fast as they get answers.
	Full []wrkFigures `json:"full"`
	// Steady are rounds at a constant rate, which HAProxy has no trouble with.
	Steady []loadFigures `json:"steady"`
}

// wrkFigures are a run of wrk's.
type wrkFigures struct {
	Requests int `json:"requests"`
	// Rate of requests a second.
	Rate float64 `json:"rate"`
	// CPU time of HAProxy for a request.
	CPU time.Duration `json:"cpu"`
	P50 time.Duration `json:"p50"`
	P99 time.Duration `json:"p99"`
}

const (
	wrkConnections    = 64
	steadyRate        = 2000
	steadyConnections = 64

	byHand = "by hand"
)

// throughput is measured on processes that were started several times: how one lies in
// memory makes more difference than many a line of its configuration.
func (b *bench) throughput() {
	starts, rounds, each := 4, 2, 5*time.Second
	if b.options.quick {
		starts, rounds, each = 2, 1, 2*time.Second
	}
	results := []*throughputResult{{Subject: "mi-lb"}, {Subject: byHand}, {Subject: "by hand, alike"}, {Subject: "least"}}
	for start := range starts {
		b.Scope(func() { b.throughputOnce(results, rounds, each) })
		b.Logf("throughput: start %d of %d", start+1, starts)
	}
	b.publish(throughputPart(results, starts))
}

// throughputOnce adds rounds to the results of all that are compared, of processes that
// it starts.
func (b *bench) throughputOnce(results []*throughputResult, rounds int, each time.Duration) {
	const sites, servers = 20, 4
	var all []subject.Site
	var addresses []string
	byName := map[string][]netip.AddrPort{}
	for i := range sites {
		s := subject.Site{Name: fmt.Sprintf("site-%02d", i)}
		for range servers {
			at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(edge.FreePort(b)))
			s.Servers = append(s.Servers, at.String())
			byName[s.Name] = append(byName[s.Name], at)
		}
		addresses = append(addresses, s.Servers...)
		all = append(all, s)
	}
	subject.StartAnswering(b.Program, b.binaries, addresses)
	w := world.StartConsul(b.Program)
	w.Fill(world.NewSites(byName))
	m := subject.MiLB.Start(b.Program, b.binaries, w.Default)
	hand, handPID := subject.StartByHand(b.Program, b.binaries, all)
	alike, alikePID := subject.StartByHandAlike(b.Program, b.binaries, all)
	least, leastPID := subject.StartLeast(b.Program, b.binaries, all[0])
	at := []string{m.HTTPAddress(), hand, alike, least}
	host := subject.Host(all[0].Name)
	for i, r := range results {
		b.await(r.Subject, at[i], host)
	}
	pids := [][]int{m.HAProxy(), {handPID}, {alikePID}, {leastPID}}
	for round := range rounds {
		for i := range results {
			i = (i + round) % len(results) // nobody is always the first
			before := usage.CPU(pids[i]...)
			full := b.wrk(at[i], host, each)
			full.CPU = (usage.CPU(pids[i]...) - before) / time.Duration(max(1, full.Requests))
			results[i].Full = append(results[i].Full, full)
			l := load.Start(b.Context(), load.Options{Address: at[i], Hosts: []string{host}, Rate: steadyRate, Connections: steadyConnections})
			time.Sleep(each / 2)
			results[i].Steady = append(results[i].Steady, figuresOf(l.Stop()))
		}
	}
}

// await returns when the address answers.
func (b *bench) await(name, address, host string) {
	client := ask.Client{Address: address}
	defer client.Close()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		answer, err := client.Get(host, "/")
		if err == nil && answer.Status == 200 {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s does not answer: %d %v", name, answer.Status, err)
		}
	}
}

var (
	wrkCount   = regexp.MustCompile(`(\d+) requests in`)
	wrkRate    = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)
	wrkP50     = regexp.MustCompile(`(?m)^\s+50%\s+(\S+)`)
	wrkP99     = regexp.MustCompile(`(?m)^\s+99%\s+(\S+)`)
	wrkTrouble = regexp.MustCompile(`Socket errors:.*|Non-2xx.*`)
)

func (b *bench) wrk(address, host string, during time.Duration) wrkFigures {
	command := exec.CommandContext(b.Context(), "wrk", "--threads", "1", "--connections", fmt.Sprint(wrkConnections), "--latency",
		"--duration", fmt.Sprintf("%ds", max(1, int(during.Seconds()))), "--header", "Host: "+host, "http://"+address+"/")
	out, err := command.CombinedOutput()
	if err != nil {
		b.Fatalf("run wrk: %v\n%s", err, out)
	}
	if trouble := wrkTrouble.Find(out); trouble != nil {
		b.Fatalf("requests have failed: %s", bytes.TrimSpace(trouble))
	}
	group := func(pattern *regexp.Regexp) string {
		found := pattern.FindSubmatch(out)
		if found == nil {
			b.Fatalf("wrk says nothing of %s:\n%s", pattern, out)
		}
		return string(found[1])
	}
	duration := func(text string) time.Duration {
		d, err := time.ParseDuration(text)
		b.Check(err)
		return d
	}
	rate, err := strconv.ParseFloat(group(wrkRate), 64)
	b.Check(err)
	requests, err := strconv.Atoi(group(wrkCount))
	b.Check(err)
	return wrkFigures{Requests: requests, Rate: rate, P50: duration(group(wrkP50)), P99: duration(group(wrkP99))}
}

// median of the values that a function takes from rounds.
func median[R any, V ~int64](rounds []R, value func(R) V) V {
	var all []time.Duration
	for _, r := range rounds {
		all = append(all, time.Duration(value(r)))
	}
	return V(report.Quantile(all, 0.5))
}

func throughputPart(results []*throughputResult, starts int) report.Part {
	table := report.Table{
		Head: []string{"", "requests a second", "of by hand", "CPU of HAProxy for a request", "p50", "p99", "at " + grouped(steadyRate) + " a second: p50", "p99", "failed"},
		Note: "Medians of the rounds, which alternate. “By hand, alike” also replaces and withholds the headers that mi-lb does, and sends a request that is safe to repeat to another server when one dies. “Least” has one backend, no routing by host and no headers.",
	}
	rate := func(r *throughputResult) int64 {
		return median(r.Full, func(f wrkFigures) int64 { return int64(f.Rate) })
	}
	var reference int64
	for _, r := range results {
		if r.Subject == byHand {
			reference = rate(r)
		}
	}
	for _, r := range results {
		failed := 0
		for _, f := range r.Steady {
			failed += f.failures()
		}
		table.Rows = append(table.Rows, []string{
			r.Subject, grouped(int(rate(r))), fmt.Sprintf("%.1f %%", 100*float64(rate(r))/float64(reference)),
			fmt.Sprintf("%.1f µs", float64(median(r.Full, func(f wrkFigures) time.Duration { return f.CPU }).Nanoseconds())/1000),
			report.Fine(median(r.Full, func(f wrkFigures) time.Duration { return f.P50 })), report.Fine(median(r.Full, func(f wrkFigures) time.Duration { return f.P99 })),
			report.Fine(median(r.Steady, func(f loadFigures) time.Duration { return f.P50 })), report.Fine(median(r.Steady, func(f loadFigures) time.Duration { return f.P99 })),
			fmt.Sprint(failed),
		})
	}
	intro := fmt.Sprintf("20 sites of 4 servers, which answer at once. wrk with %d connections asks one of them as fast as it gets answers, for %d rounds of every configuration, with %d starts of each; then the same at a constant rate. Everything shares the machine.",
		wrkConnections, len(results[0].Full), starts)
	return report.Part{Name: "throughput", Title: "Throughput and latency beside a configuration by hand", Intro: intro, Tables: []report.Table{table}, Raw: results}
}
