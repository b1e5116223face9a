package registratoredge

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/test/edge"
	"github.com/mi-lb/mi-lb/test/host"
)

var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	if flag.Lookup("test.bench").Value.String() == "" {
		return m.Run() // there are no tests
	}
	dir, err := os.MkdirTemp("", "mi-lb-bench-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if binary, err = edge.Build(context.Background(), dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

const (
	service = "web"
	// grace is how long a container serves after its stop signal.
	grace = 2 * time.Second
)

func BenchmarkContainerRunsAndStops(b *testing.B) {
	for _, network := range []host.Network{host.Published, host.Shared} {
		b.Run(string(network), func(b *testing.B) {
			h := host.Start(b, binary)
			e := edge.Start(b, edge.Options{Binary: binary, Consul: "http://" + h.Agent.HTTPAddress(), Config: map[string]any{"log.level": "info"}})
			one, two := h.Run(network, host.Plain, service, "one", grace), h.Run(network, host.Plain, service, "two", grace)
			e.WaitHTTP(service+".test", one.Answer(), two.Answer())
			load := e.Load(service + ".test")
			var fromRun, fromStart, fromStop, fromSignal []time.Duration
			worst := 0
			for i := 0; b.Loop(); i++ {
				run := time.Now()
				c := h.Run(network, host.Plain, service, fmt.Sprint("change", i), grace)
				started := c.Started()
				edge.Wait(b, c.Name+" serving", func() error {
					if load.Answers()[c.Answer()] < 20 {
						return errors.New("it does not")
					}
					return nil
				})
				stop := time.Now()
				c.Stop()()
				f := c.Farewell()
				fromRun, fromStart = append(fromRun, f.First.Sub(run)), append(fromStart, f.First.Sub(started))
				if f.Since == 0 {
					f.Last = f.Told // nothing came any more
				}
				fromStop, fromSignal = append(fromStop, f.Last.Sub(stop)), append(fromSignal, f.Last.Sub(f.Told))
				worst = max(worst, f.Since)
			}
			load.Stop()
			report(b, "run", fromRun)
			report(b, "start", fromStart)
			report(b, "stop", fromStop)
			report(b, "signal", fromSignal)
			b.ReportMetric(float64(worst), "worst-requests-after-signal")
			b.ReportMetric(float64(load.Total()), "requests")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkContainerIsKilled counts what is lost of requests that must not be sent
// twice: those in the container, and, where Docker's proxy goes on taking
// connections for it, those that come until the edge has heard of its end.
func BenchmarkContainerIsKilled(b *testing.B) {
	for _, network := range []host.Network{host.Published, host.Shared} {
		b.Run(string(network), func(b *testing.B) {
			h := host.Start(b, binary)
			e := edge.Start(b, edge.Options{Binary: binary, Consul: "http://" + h.Agent.HTTPAddress(), Config: map[string]any{"log.level": "info"}})
			one, two := h.Run(network, host.Plain, service, "one", grace), h.Run(network, host.Plain, service, "two", grace)
			e.WaitHTTP(service+".test", one.Answer(), two.Answer())
			gets := e.Load(service + ".test")
			kills, lost, most := 0, 0, 0
			for i := 0; b.Loop(); i++ {
				c := h.Run(network, host.Plain, service, fmt.Sprint("change", i), grace)
				gets.WaitServedBy(one.Answer(), two.Answer(), c.Answer())
				posts := edge.StartLoad(b, edge.LoadOptions{Address: e.HTTPAddress, Host: service + ".test", Method: http.MethodPost})
				posts.WaitServedBy(one.Answer(), two.Answer(), c.Answer())
				before := total(posts.Failed())
				c.Kill()
				gets.WaitServedBy(one.Answer(), two.Answer())
				posts.WaitServedBy(one.Answer(), two.Answer())
				n := total(posts.Failed()) - before
				kills, lost, most = kills+1, lost+n, max(most, n)
				if before > 0 {
					b.Errorf("failed before the kill: %v", posts.Failed())
				}
				posts.End()
			}
			gets.Stop()
			b.ReportMetric(float64(lost)/float64(kills), "POSTs-lost/kill")
			b.ReportMetric(float64(most), "POSTs-lost-worst")
			b.ReportMetric(float64(gets.Total()), "GETs")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func total(counts map[string]int) int {
	n := 0
	for _, c := range counts {
		n += c
	}
	return n
}

// report gives the median and the worst, in milliseconds, of the times from
// something to the request that ends them.
func report(b *testing.B, from string, all []time.Duration) {
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, from+"-median-ms")
	b.ReportMetric(float64(all[len(all)-1].Microseconds())/1000, from+"-worst-ms")
}
