package subject

import (
	"context"
	"time"

	"github.com/mi-lb/mi-lb/test/bench/program"
	"github.com/mi-lb/mi-lb/test/bench/usage"
	"github.com/mi-lb/mi-lb/test/consul"
)

// Threads of HAProxy in all subjects.
const Threads = 2

// Domain under which services are published: "web" is "web.test".
const Domain = "test"

// Subject is a control plane with its HAProxy, running.
type Subject interface {
	// HTTPAddress is where HAProxy listens.
	HTTPAddress() string
	// Control is the control plane's process id.
	Control() int
	// HAProxy are the ids of its processes, old workers included.
	HAProxy() []int
	// Reloads of HAProxy so far, but for the first start.
	Reloads() int
	// Agent of Consul that it asks.
	Agent() *consul.Agent
	// Log is what the control plane has said.
	Log() string
	// Ended says why the control plane is no more, or "".
	Ended() string
}

// Kind of subject.
type Kind struct {
	// Name in tables.
	Name string
	// Peer is one that is not mi-lb.
	Peer bool
	// Start runs it until the scope ends; it does not wait for readiness.
	Start func(p *program.Program, b Binaries, agent *consul.Agent) Subject
}

// Binaries to run.
type Binaries struct{ MiLB, ConsulTemplate, HAProxy string }

// Usage of a subject at a moment.
type Usage struct {
	At                       time.Time
	Control, HAProxy, Consul time.Duration
}

// Used is what the subject and its Consul have used so far.
func Used(s Subject, consul func(*consul.Agent) time.Duration) Usage {
	return Usage{At: time.Now(), Control: usage.CPU(s.Control()), HAProxy: usage.CPU(s.HAProxy()...), Consul: consul(s.Agent())}
}

// Since an earlier moment.
func (u Usage) Since(before Usage) Usage {
	return Usage{Control: u.Control - before.Control, HAProxy: u.HAProxy - before.HAProxy, Consul: u.Consul - before.Consul}
}

// Host that a service is published under.
func Host(service string) string { return service + "." + Domain }

// wait asks every few milliseconds whether it holds.
func wait(ctx context.Context, holds func() bool) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}
