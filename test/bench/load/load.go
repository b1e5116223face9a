package load

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mi-lb/mi-lb/test/bench/ask"
)

// Options of a load.
type Options struct {
	Address string
	// Hosts are asked in turn.
	Hosts []string
	// Rate in requests a second.
	Rate int
	// Connections that there are at most, kept as long as HAProxy keeps them. They bound
	// the requests on their way at once.
	Connections int
	// Within is when a client gives an answer up; 10 s where it is 0.
	Within time.Duration
}

// Load is running.
type Load struct {
	o      Options
	begin  time.Time
	next   atomic.Int64
	cancel context.CancelFunc
	all    sync.WaitGroup

	mu      sync.Mutex
	results Results
}

// Results of a load.
type Results struct {
	// Latencies of requests that were answered with 200, from when they were to be
	// sent, and when that was, from the beginning of the load.
	Latencies, At []time.Duration
	// Failed requests by reason, and when each was noticed.
	Failed   map[string]int
	FailedAt []time.Time
	// Repeated requests: see [ask.Answer].
	Repeated int
}

// Requests that were made.
func (r Results) Requests() int { return len(r.Latencies) + r.Failures() }

// Failures are how many requests failed.
func (r Results) Failures() int {
	n := 0
	for _, count := range r.Failed {
		n += count
	}
	return n
}

// Reasons of failures in one line.
func (r Results) Reasons() string {
	var all []string
	for _, reason := range slices.Sorted(maps.Keys(r.Failed)) {
		all = append(all, fmt.Sprintf("%d × %s", r.Failed[reason], reason))
	}
	return strings.Join(all, ", ")
}

// Start asks until Stop.
func Start(ctx context.Context, o Options) *Load {
	ctx, cancel := context.WithCancel(ctx)
	l := &Load{o: o, begin: time.Now(), cancel: cancel, results: Results{Failed: map[string]int{}}}
	for range o.Connections {
		l.all.Go(func() { l.ask(ctx) })
	}
	return l
}

// Stop ends it and returns what it saw.
func (l *Load) Stop() Results {
	l.cancel()
	l.all.Wait()
	return l.results
}

// Failed so far, by reason.
func (l *Load) Failed() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.results.Failed)
}

// Requests so far.
func (l *Load) Requests() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.results.Requests()
}

func (l *Load) ask(ctx context.Context) {
	client := ask.Client{Address: l.o.Address, Within: l.o.Within}
	defer client.Close()
	gap := time.Second / time.Duration(l.o.Rate)
	for {
		n := l.next.Add(1) - 1
		at := time.Duration(n) * gap
		if early := at - time.Since(l.begin); early > 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(early):
			}
		} else if ctx.Err() != nil {
			return
		}
		answer, err := client.Get(l.o.Hosts[int(n)%len(l.o.Hosts)], "/")
		took := time.Since(l.begin) - at
		l.mu.Lock()
		switch {
		case err != nil:
			l.results.Failed[err.Error()]++
			l.results.FailedAt = append(l.results.FailedAt, time.Now())
		case answer.Status != 200:
			l.results.Failed[fmt.Sprintf("status %d", answer.Status)]++
			l.results.FailedAt = append(l.results.FailedAt, time.Now())
		default:
			l.results.Latencies = append(l.results.Latencies, took)
			l.results.At = append(l.results.At, at)
		}
		if answer.Repeated {
			l.results.Repeated++
		}
		l.mu.Unlock()
	}
}
