package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/test/bench/report"
	"github.com/mi-lb/mi-lb/test/bench/subject"
)

// propagationResult is how fast traffic follows one kind of change.
type propagationResult struct {
	Subject string `json:"subject"`
	Size    size   `json:"size"`
	Change  string `json:"change"`
	// Times from sending the change to Consul until traffic follows, in nanoseconds.
	Times []time.Duration `json:"times"`
	// Lost changes had not been followed after LostAfter; they count as having taken
	// that long.
	Lost int `json:"lost"`
	// Stuck says why the measurement of this subject ended early, if it did.
	Stuck string `json:"stuck,omitempty"`
	// Failed requests to services that had somebody to serve all the time.
	Failed int `json:"failed"`
	// Reloads of HAProxy in all kinds of changes together.
	Reloads int `json:"reloads"`
}

// lostAfter is when a change is given up, and stuckAfter how much later the subject is.
const lostAfter, stuckAfter = 15 * time.Second, 45 * time.Second

// The changes that are of whole services.
const newService, serviceRemoved = "new service", "service removed"

// spacing between two requests of the one client that looks whether traffic follows.
const spacing = 500 * time.Microsecond

// change is one that is measured: what it does, and which answer shows it.
type change struct {
	name string
	do   func() error
	host string
	// by is the address of the instance whose answers count; with gone, their end. For
	// a whole service, gone is an answer that is not 200.
	by      string
	gone    bool
	service bool
}

func (m *measuring) propagation() []propagationResult {
	most, budget := 60, 45*time.Second
	if m.candidate.Peer {
		most, budget = 25, 60*time.Second
	}
	if m.options.quick {
		most, budget = 6, 15*time.Second
	}
	begin := time.Now()
	reloads := m.subject.Reloads()
	var order []string
	results := map[string]*propagationResult{}
	stuck := ""
rounds:
	for round := 0; round < most && time.Since(begin) < budget; round++ {
		for _, c := range m.changes(round) {
			r := results[c.name]
			if r == nil {
				order = append(order, c.name)
				r = &propagationResult{Subject: m.candidate.name(), Size: m.size, Change: c.name}
				results[c.name] = r
			}
			// Not in step with anything that is periodic.
			time.Sleep(leastPause + rand.N(leastPause))
			took, failed, ok := m.follow(c)
			r.Times = append(r.Times, took)
			r.Failed += failed
			if ok {
				continue
			}
			r.Lost++
			m.Logf("%s at %s: %s was not followed in %s", m.candidate.name(), m.size, c.name, lostAfter)
			// What comes next is only worth measuring if this one is followed at last.
			if !m.caughtUp(c) {
				stuck = fmt.Sprintf("after %s that was not followed in %s", c.name, lostAfter+stuckAfter)
				break rounds
			}
		}
	}
	var all []propagationResult
	for _, name := range order {
		r := *results[name]
		r.Stuck = stuck
		r.Reloads = m.subject.Reloads() - reloads
		m.Logf("%s at %s: %s: %s in the median of %d", r.Subject, r.Size, r.Change, report.Milliseconds(report.Quantile(r.Times, 0.5)), len(r.Times))
		all = append(all, r)
	}
	return all
}

// caughtUp returns when the change is followed after all; false if it is not.
func (m *measuring) caughtUp(c change) bool {
	others := 0
	for begin := time.Now(); time.Since(begin) < stuckAfter; time.Sleep(10 * time.Millisecond) {
		answer, err := m.client.Get(c.host, "/")
		serves := err == nil && answer.Status == 200 && string(answer.Body) == c.by
		if others++; serves {
			others = 0
		}
		if serves != c.gone && (serves || others >= still) {
			return true
		}
	}
	m.Logf("%s at %s: nor in %s more", m.candidate.name(), m.size, stuckAfter)
	return false
}

// changes of one round. They leave the catalog as they found it.
func (m *measuring) changes(round int) []change {
	permanent := m.permanent[round%len(m.permanent)]
	added := m.catalog.New(permanent.Service)
	host, by := subject.Host(permanent.Service), added.Address.String()
	alone := m.catalog.New(fmt.Sprintf("new-%d", round))
	return []change{
		{name: "instance added", do: func() error { return m.world.Register(added) }, host: host, by: by},
		{name: "turns critical", do: func() error { return m.world.SetHealth(added, api.HealthCritical) }, host: host, by: by, gone: true},
		{name: "turns passing", do: func() error { return m.world.SetHealth(added, api.HealthPassing) }, host: host, by: by},
		{name: "instance removed", do: func() error { return m.world.Deregister(added) }, host: host, by: by, gone: true},
		{name: newService, do: func() error { return m.world.Register(alone) }, host: subject.Host(alone.Service), by: alone.Address.String(), service: true},
		{name: serviceRemoved, do: func() error { return m.world.Deregister(alone) }, host: subject.Host(alone.Service), by: alone.Address.String(), gone: true, service: true},
	}
}

// leastPause is between two changes; at most, it is twice as long.
const leastPause = 100 * time.Millisecond

// still is how many answers in a row by others say that an instance has no more
// traffic: the two of a service take turns.
const still = 30

// follow makes a change and asks until traffic follows. It took until the first answer
// that shows it; where something is to end, until the last answer of the old kind was
// there.
func (m *measuring) follow(c change) (took time.Duration, failed int, ok bool) {
	done := make(chan error, 1)
	begin := time.Now()
	go func() { done <- c.do() }()
	last, others := begin, 0
	for next := begin; ; {
		answer, err := m.client.Get(c.host, "/")
		now := time.Now()
		serves := err == nil && answer.Status == 200
		if !serves && !c.service {
			failed++
		}
		if serves && string(answer.Body) == c.by {
			if !c.gone {
				m.Check(<-done)
				return now.Sub(begin), failed, true
			}
			last, others = now, 0
		} else {
			others++
		}
		if c.gone && others >= still && len(done) > 0 {
			m.Check(<-done)
			return last.Sub(begin), failed, true
		}
		if now.Sub(begin) > lostAfter {
			m.Check(<-done)
			return lostAfter, failed, false
		}
		if next = next.Add(spacing); now.After(next) {
			next = now
		}
		time.Sleep(time.Until(next))
	}
}

func propagationPart(results []propagationResult) report.Part {
	table := report.Table{
		Title: "Each kind of change",
		Head:  []string{"services", "change", "", "p50", "p99", "max", "measured", "lost", "failed requests"},
		Note:  fmt.Sprintf("From sending the change to Consul to the first HTTP request that shows it. Lost changes were not followed in %s, and count as that.", lostAfter),
	}
	for _, r := range results {
		lost := fmt.Sprint(r.Lost)
		if r.Stuck != "" {
			lost += ", stuck " + r.Stuck
		}
		table.Rows = append(table.Rows, []string{
			r.Size.String(), r.Change, r.Subject,
			report.Milliseconds(report.Quantile(r.Times, 0.5)), report.Milliseconds(report.Quantile(r.Times, 0.99)), report.Milliseconds(report.Quantile(r.Times, 1)),
			fmt.Sprint(len(r.Times)), lost, fmt.Sprint(r.Failed),
		})
	}
	intro := fmt.Sprintf("One client asks for one service every %s over a kept connection while one thing changes in Consul. Changes are %d ms to %d ms apart, and the next waits until traffic has followed the last.",
		spacing, leastPause.Milliseconds(), 2*leastPause.Milliseconds())
	return report.Part{
		Name: "propagation", Title: "From a change in Consul to traffic", Intro: intro,
		Tables: []report.Table{ratios(results), table}, Charts: propagationCharts(results), Raw: results,
	}
}
