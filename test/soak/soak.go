package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/test/bench/load"
	"github.com/mi-lb/mi-lb/test/bench/world"
	"github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/test/edge"
	"github.com/mi-lb/mi-lb/test/marathon"
)

// options of a soak.
type options struct {
	during   time.Duration
	seed     uint64
	services int
	rate     int
	haproxy  string
}

// soak is one, with what it is about. It is for one goroutine, which does everything in
// turn; only the load and the sessions are beside it.
type soak struct {
	t       testing.TB
	ctx     context.Context
	o       options
	random  *rand.Rand
	end     time.Time
	agent   *consul.Agent
	cluster *marathon.Cluster
	servers *world.Servers
	edge    *edge.Edge
	// binary is mi-lb, built from this checkout.
	binary string

	load     *load.Load
	sessions *sessions
	samples  []sample
	// windows are the times at which requests may fail.
	windows []window
	// done counts what has happened, by name.
	done map[string]int
	// reloads of those mi-lb that have ended.
	reloads int

	catalog
	apps
	// undo are ends of faults that are still going on.
	undo []undo
}

// window of time, inclusive.
type window struct{ from, to time.Time }

// undo ends a fault at a time.
type undo struct {
	at time.Time
	do func()
}

// run is a whole soak.
func run(ctx context.Context, t testing.TB, o options) {
	t.Logf("seed %d, for %s", o.seed, o.during)
	s := &soak{t: t, ctx: ctx, o: o, random: rand.New(rand.NewPCG(o.seed, 1)), done: map[string]int{}}
	s.start()
	begin := time.Now()
	s.end = begin.Add(o.during)
	// Faults in the last part would leave no time to see what comes of them.
	lastFault := begin.Add(o.during - min(o.during/5, 30*time.Second))
	pace := o.during / 60
	nextFault, nextSample := begin.Add(min(pace, 5*time.Second)), begin
	nextReport := begin.Add(time.Minute)
	for now := begin; now.Sub(begin) < o.during && ctx.Err() == nil && !t.Failed(); now = time.Now() {
		s.undone(now)
		if now.After(nextSample) {
			s.sample()
			nextSample = now.Add(2 * time.Second)
		}
		if now.After(nextFault) && now.Before(lastFault) {
			s.fault()
			nextFault = time.Now().Add(min(max(pace, 3*time.Second), 10*time.Second))
		}
		if now.After(nextReport) {
			t.Logf("%s: %s", now.Sub(begin).Round(time.Second), s.last())
			nextReport = now.Add(time.Minute)
		}
		s.change()
		time.Sleep(time.Duration(20+s.random.IntN(100)) * time.Millisecond)
	}
	s.undone(time.Now().Add(time.Hour))
	s.finish()
	if ctx.Err() == nil {
		s.summary()
	}
}

// start brings everything up.
func (s *soak) start() {
	// Not t.TempDir, which a test keeps if it fails.
	dir, err := os.MkdirTemp("", "soak-")
	s.check(err)
	s.t.Cleanup(func() { os.RemoveAll(dir) })
	s.binary, err = edge.Build(s.ctx, dir) // which takes as long as it takes
	s.check(err)
	ctx, cancel := context.WithTimeout(s.ctx, 2*time.Minute)
	defer cancel()
	s.agent, err = consul.Start(ctx, consul.Options{})
	s.check(err)
	s.t.Cleanup(s.agent.Stop)
	s.check(s.agent.WaitLeader(ctx))
	s.cluster, err = marathon.Start(marathon.Options{
		Fake: true, Listen: []string{"127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"}, HeartbeatInterval: 2 * time.Second,
	})
	s.check(err)
	s.t.Cleanup(s.cluster.Close)
	s.servers = world.StartServers(s.t)
	s.fill()
	s.deploy()
	s.edge = edge.Start(s.t, s.edgeOptions(s.binary, "127.0.0.1"))
	var hosts []string
	for i := range s.o.services {
		hosts = append(hosts, permanentName(i)+"."+edge.Domain)
		s.edge.WaitHTTP(hosts[i])
	}
	s.edge.WaitHTTP("ws." + edge.Domain)
	s.waitEcho()
	s.load = load.Start(s.ctx, load.Options{Address: s.edge.HTTPAddress, Hosts: hosts, Rate: s.o.rate, Connections: 32, Within: edge.Patience})
	s.sessions = startSessions(s.ctx, s.edge.HTTPAddress, fmt.Sprintf("127.0.0.1:%d", s.tcpPort), s.o)
	s.t.Cleanup(func() { s.load.Stop(); s.sessions.end() })
}

// edgeOptions are the same for the edge and for the fresh one that it is compared with,
// but for where service ports are.
func (s *soak) edgeOptions(binary, servicePortAddress string) edge.Options {
	return edge.Options{
		Binary: binary, Consul: "http://" + s.agent.HTTPAddress(), Marathon: [][]string{s.cluster.URLs()},
		Config: map[string]any{"log.level": "info", "haproxy.path": s.o.haproxy, "listen.service_port_address": servicePortAddress},
	}
}

// waitEcho returns when the TCP service port serves.
func (s *soak) waitEcho() {
	s.t.Helper()
	edge.Wait(s.t, "an echo through the service port", func() error {
		return talk(s.ctx, fmt.Sprintf("127.0.0.1:%d", s.tcpPort), "", time.Millisecond)
	})
}

func (s *soak) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// write to Consul until it takes it: it has no leader now and then.
func (s *soak) write(do func(context.Context) error) {
	s.t.Helper()
	for deadline := time.Now().Add(edge.Patience); ; time.Sleep(50 * time.Millisecond) {
		err := do(s.ctx)
		if err == nil {
			return
		}
		if time.Now().After(deadline) || s.ctx.Err() != nil {
			s.t.Fatal(err)
		}
	}
}

// undone ends the faults whose time has come.
func (s *soak) undone(now time.Time) {
	s.undo = slices.DeleteFunc(s.undo, func(u undo) bool {
		if now.Before(u.at) {
			return false
		}
		u.do()
		return true
	})
}

// finish compares, checks the bounds, and ends the load.
func (s *soak) finish() {
	if s.t.Failed() || s.ctx.Err() != nil {
		return
	}
	s.compare()
	s.sample()
	results := s.load.Stop()
	s.sessions.end()
	allowed, unexpected := 0, 0
	for _, at := range results.FailedAt {
		if s.mayFail(at) {
			allowed++
		} else {
			unexpected++
		}
	}
	s.t.Logf("%d requests; %d failed while HAProxy was killed, %d at other times: %s; %d sent twice", results.Requests(), allowed, unexpected, results.Reasons(), results.Repeated)
	if unexpected > 0 || results.Requests() == 0 {
		s.t.Errorf("of %d requests %d failed with nothing killed: %s", results.Requests(), unexpected, results.Reasons())
	}
	broken, first, unexpectedly := 0, map[string]time.Time{}, map[string]int{}
	for _, b := range s.sessions.broken {
		if s.mayFail(b.at) {
			broken++
			continue
		}
		what := fmt.Sprintf("%s: %v", b.kind, b.err)
		if unexpectedly[what]++; unexpectedly[what] == 1 {
			first[what] = b.at
		}
	}
	for what, n := range unexpectedly {
		s.t.Errorf("%d broke with nothing killed, the first at %s: %s", n, first[what].Format(time.TimeOnly), what)
	}
	s.t.Logf("lasting connections: %d of %v; %d broke while HAProxy was killed", s.sessions.total(), s.sessions.opened, broken)
	s.bounds()
}

// mayFail: HAProxy was killed.
func (s *soak) mayFail(at time.Time) bool {
	return slices.ContainsFunc(s.windows, func(w window) bool { return !at.Before(w.from) && !at.After(w.to) })
}

func (s *soak) summary() {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(s.done)) {
		all = append(all, fmt.Sprintf("%d × %s", s.done[name], name))
	}
	s.t.Logf("happened: %s", strings.Join(all, ", "))
	s.t.Logf("%d reloads; %v differences repaired since mi-lb was last started", s.reloads+s.edge.Reloads(), s.edge.Metric("mi_lb_drift_repaired_total"))
	verdict := "passed"
	if s.t.Failed() {
		verdict = "FAILED"
	}
	s.t.Logf("%s: seed %d, %s", verdict, s.o.seed, s.o.during)
}

var critical, passing = api.HealthCritical, api.HealthPassing
