package consul

import (
	"slices"
	"sync"
	"time"
)

// mode is how a datacenter's catalog is followed.
type mode int

const (
	byService mode = iota + 1
	byNode
	byTrigger
)

func (m mode) String() string {
	switch m {
	case byService:
		return "by service"
	case byNode:
		return "by node"
	case byTrigger:
		return "by trigger"
	default:
		return "not yet"
	}
}

// size is what decides about the mode.
type size struct{ services, nodes int }

// polls are how many long-polls the mode takes, the pulse included.
func (s size) polls(m mode) int {
	switch m {
	case byService:
		return 1 + s.services
	case byNode:
		return 1 + 2*s.nodes
	default:
		return 2
	}
}

// choose is the mode with the fewest long-polls that fits into those available,
// and by trigger where none does. The current mode is kept while it fits and is
// not much dearer, so that a catalog at the border does not change modes with
// every registration.
func choose(s size, available int, current mode) mode {
	best, other := byService, byNode
	if s.polls(byNode) < s.polls(byService) {
		best, other = byNode, byService
	}
	if current == other && s.polls(other) <= available && s.polls(other) <= s.polls(best)*3/2+8 {
		return other
	}
	if current == byTrigger && s.polls(best) > available*9/10 {
		return byTrigger
	}
	if s.polls(best) <= available {
		return best
	}
	return byTrigger
}

// lines are the connections that long-polls may use, shared by all
// datacenters.
type lines struct {
	now func() time.Time

	mu    sync.Mutex
	limit int
	// fixed: the limit is the operator's.
	fixed bool
	// fewer is the limit after the agent has refused a connection, until then, and for
	// how long that was.
	fewer      int
	fewerUntil time.Time
	fewerFor   time.Duration
	refusedAt  time.Time
	used       map[string]int
	// lingering are the times until which given-up queries count at the agent.
	lingering []time.Time
}

func newLines(limit int, now func() time.Time) *lines {
	return &lines{now: now, limit: limit, used: map[string]int{}}
}

// choose reserves what the datacenter's mode needs and returns the mode.
func (l *lines) choose(datacenter string, s size, current mode) mode {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	l.lingering = slices.DeleteFunc(l.lingering, func(t time.Time) bool { return t.Before(now) })
	available := l.limit
	if now.Before(l.fewerUntil) {
		available = l.fewer
	}
	available -= len(l.lingering)
	for name, n := range l.used {
		if name != datacenter {
			available -= n
		}
	}
	m := choose(s, available, current)
	l.used[datacenter] = s.polls(m)
	return m
}

// release gives back what the datacenter had reserved.
func (l *lines) release(datacenter string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.used, datacenter)
}

// linger notes a query that was given up but counts at the agent until then.
func (l *lines) linger(until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lingering = append(l.lingering, until)
}

// forget is for when the agent has ended, and its connections with it.
func (l *lines) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lingering = nil
}

// atMost lowers the limit, unless somebody has set it who knows better.
func (l *lines) atMost(limit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.fixed {
		l.limit = min(l.limit, limit)
	}
}

// refused notes that the agent allows fewer connections than was thought: others at
// this address use it too, or a mi-lb that has just ended did, or its limit is lower than
// the default. The first time that is believed for as long as the connections of one that
// has ended can count, and for longer each time that follows.
func (l *lines) refused() {
	l.mu.Lock()
	defer l.mu.Unlock()
	const least, first, most = 4, plainWait*17/16 + 5*time.Second, 10 * time.Minute
	now := l.now()
	if now.Sub(l.refusedAt) < 10*time.Second {
		return // part of the same refusal
	}
	limit := l.limit
	if now.Before(l.fewerUntil) {
		limit = l.fewer
	}
	if now.Sub(l.fewerUntil) > most {
		l.fewerFor = 0
	}
	l.fewerFor = min(max(first, 2*l.fewerFor), most)
	l.fewer, l.fewerUntil, l.refusedAt = max(least, limit/2), now.Add(l.fewerFor), now
}
