package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/mi-lb/mi-lb/test/bench/usage"
)

// sample is what the edge holds at a moment.
type sample struct {
	at                                                  time.Time
	memory, haproxyMemory                               int64
	goroutines, descriptors, oldWorkers, leftovers, pid int
	// processes of HAProxy, as the kernel says.
	processes int
	servers   int
}

func (s *soak) sample() {
	pids := s.edge.Left()
	now := sample{
		at: time.Now(), pid: s.edge.PID(), memory: usage.Memory(s.edge.PID()), haproxyMemory: usage.Memory(pids...), processes: len(pids),
		goroutines: int(s.edge.Metric("go_goroutines")), descriptors: usage.Descriptors(s.edge.PID()),
		oldWorkers: int(s.edge.Metric("mi_lb_haproxy_old_workers")), leftovers: int(s.edge.Metric("mi_lb_haproxy_leftovers")),
	}
	// HAProxy may be on its way up.
	if servers, err := s.edge.Runtime().Servers(s.ctx); err == nil {
		now.servers = len(servers)
	}
	s.samples = append(s.samples, now)
}

// last sample in words.
func (s *soak) last() string {
	if len(s.samples) == 0 {
		return "nothing yet"
	}
	n := s.samples[len(s.samples)-1]
	return fmt.Sprintf("mi-lb %d MB, %d goroutines, %d descriptors; HAProxy %d MB, %d processes, %d servers, %d leftovers; %d requests, %d failed",
		n.memory>>20, n.goroutines, n.descriptors, n.haproxyMemory>>20, n.processes, n.servers, n.leftovers, s.load.Requests(), failures(s.load.Failed()))
}

func failures(byReason map[string]int) int {
	n := 0
	for _, count := range byReason {
		n += count
	}
	return n
}

// Bounds that hold at any time.
const (
	// mostWorkers is from where reloads wait for replaced workers to end, with the one
	// that serves and what is between two looks.
	mostWorkers = 8 + 4
	// mostLeftovers are servers and backends that wait for a reload.
	mostLeftovers = 2000
)

// bounds fails the soak if something has grown: if it is larger in the last third than
// in the second by more than what comes and goes.
func (s *soak) bounds() {
	n := len(s.samples)
	if n < 6 {
		s.t.Errorf("only %d samples: the soak is too short to see whether anything grows", n)
		return
	}
	second, last := s.samples[n/3:2*n/3], s.samples[2*n/3:]
	for _, b := range []struct {
		name   string
		value  func(sample) int
		factor float64
		slack  int
	}{
		{"memory of mi-lb in MB", func(s sample) int { return int(s.memory >> 20) }, 1.3, 30},
		{"goroutines of mi-lb", func(s sample) int { return s.goroutines }, 1.3, 60},
		{"descriptors of mi-lb", func(s sample) int { return s.descriptors }, 1.3, 60},
		{"memory of HAProxy in MB", func(s sample) int { return int(s.haproxyMemory >> 20) }, 1.5, 150},
		{"processes of HAProxy", func(s sample) int { return s.processes }, 1, mostWorkers},
		{"leftovers", func(s sample) int { return s.leftovers }, 1, mostLeftovers / 2},
	} {
		values := func(of []sample) []int {
			var all []int
			for _, s := range of {
				all = append(all, b.value(s))
			}
			slices.Sort(all)
			return all
		}
		before, after, all := values(second), values(last), values(s.samples)
		s.t.Logf("%s: median %d, then %d; at most %d", b.name, before[len(before)/2], after[len(after)/2], all[len(all)-1])
		if limit := int(b.factor*float64(before[len(before)/2])) + b.slack; after[len(after)/2] > limit {
			s.t.Errorf("%s have grown: %d in the median of the second third, %d in that of the last (at most %d are fine)", b.name, before[len(before)/2], after[len(after)/2], limit)
		}
	}
	for _, now := range s.samples {
		if now.oldWorkers > mostWorkers {
			s.t.Errorf("%d replaced workers at %s, more than %d", now.oldWorkers, now.at.Format(time.TimeOnly), mostWorkers)
		}
		if now.leftovers > mostLeftovers {
			s.t.Errorf("%d leftovers at %s, more than %d", now.leftovers, now.at.Format(time.TimeOnly), mostLeftovers)
		}
	}
}
