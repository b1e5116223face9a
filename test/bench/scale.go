package main

import (
	"fmt"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/test/bench/report"
	"github.com/mi-lb/mi-lb/test/bench/subject"
	"github.com/mi-lb/mi-lb/test/bench/usage"
)

// scaleResult is what a catalog of a size costs.
type scaleResult struct {
	Subject string `json:"subject"`
	Size    size   `json:"size"`
	// Failure says why there is no more.
	Failure string `json:"failure,omitempty"`
	// Ready is from the start of the control plane until routes serve, in nanoseconds,
	// as all durations.
	Ready time.Duration `json:"ready"`
	// Memory of the control plane at rest and at most, and of HAProxy, in bytes.
	Memory        int64 `json:"memory"`
	PeakMemory    int64 `json:"peakMemory"`
	HAProxyMemory int64 `json:"haproxyMemory"`
	// Idle is for how long nothing happened; the shares are of one core then.
	Idle        time.Duration `json:"idle"`
	IdleControl float64       `json:"idleControl"`
	IdleConsul  float64       `json:"idleConsul"`
	IdleHAProxy float64       `json:"idleHAProxy"`
	// Connections to Consul.
	Connections int `json:"connections"`
	// Changes of one instance each, with nobody asking, and the CPU time that one took
	// beyond what rest takes.
	Changes       int           `json:"changes"`
	ChangeControl time.Duration `json:"changeControl"`
	ChangeConsul  time.Duration `json:"changeConsul"`
	ChangeHAProxy time.Duration `json:"changeHAProxy"`
	Reloads       int           `json:"reloads"`
}

func (m *measuring) scale(r *scaleResult) {
	idle, changes := 30*time.Second, 24
	if m.candidate.Peer {
		changes = 12
	}
	if m.options.quick {
		idle, changes = 5*time.Second, 8
	}
	m.client.Close()
	r.Idle = idle
	before := subject.Used(m.subject, m.world.CPU)
	time.Sleep(idle)
	rest := subject.Used(m.subject, m.world.CPU).Since(before)
	share := func(d time.Duration) float64 { return d.Seconds() / idle.Seconds() }
	r.IdleControl, r.IdleConsul, r.IdleHAProxy = share(rest.Control), share(rest.Consul), share(rest.HAProxy)
	r.Memory, r.PeakMemory = usage.Memory(m.subject.Control()), usage.PeakMemory(m.subject.Control())
	r.HAProxyMemory = usage.Memory(m.subject.HAProxy()...)
	r.Connections = usage.Connections(m.subject.Control(), m.candidate.agent(m.world).Ports().HTTP)
	m.Logf("%s at %s: %s, idle %s, %d connections", m.candidate.name(), m.size, report.Megabytes(r.Memory), report.Percent(r.IdleControl), r.Connections)

	reloads := m.subject.Reloads()
	before = subject.Used(m.subject, m.world.CPU)
	added := m.catalog.New(m.permanent[0].Service)
	for i := range changes {
		switch i % 4 {
		case 0:
			m.Check(m.world.Register(added))
		case 1:
			m.Check(m.world.SetHealth(added, api.HealthCritical))
		case 2:
			m.Check(m.world.SetHealth(added, api.HealthPassing))
		case 3:
			m.Check(m.world.Deregister(added))
		}
		m.quiet()
	}
	now := subject.Used(m.subject, m.world.CPU)
	used := now.Since(before)
	took := now.At.Sub(before.At).Seconds()
	each := func(all time.Duration, idle float64) time.Duration {
		return max(0, all-time.Duration(took*idle*float64(time.Second))) / time.Duration(changes)
	}
	r.Changes, r.Reloads = changes, m.subject.Reloads()-reloads
	r.ChangeControl, r.ChangeConsul, r.ChangeHAProxy = each(used.Control, r.IdleControl), each(used.Consul, r.IdleConsul), each(used.HAProxy, r.IdleHAProxy)
	m.Logf("%s at %s: %s of CPU for a change, %s in Consul", m.candidate.name(), m.size, report.Seconds(r.ChangeControl), report.Seconds(r.ChangeConsul))
}

// quiet returns when what a change has set off is over.
func (m *measuring) quiet() {
	const least, window, enough, atMost = 700 * time.Millisecond, 300 * time.Millisecond, 30 * time.Millisecond, 20 * time.Second
	begin := time.Now()
	time.Sleep(least)
	for time.Since(begin) < atMost {
		before := subject.Used(m.subject, m.world.CPU)
		time.Sleep(window)
		if used := subject.Used(m.subject, m.world.CPU).Since(before); used.Control+used.HAProxy < enough {
			return
		}
	}
}

func scalePart(results []scaleResult) report.Part {
	table := report.Table{
		Head: []string{"services", "", "start", "memory", "at most", "HAProxy's", "connections to Consul", "idle", "idle, Consul", "CPU for a change", "in Consul", "in HAProxy", "reloads"},
		Note: "Memory is resident. Idle is a share of one core; a change is of one instance. – is less than what rest takes, and cannot be told from it.",
	}
	spent := func(d time.Duration) string {
		if d == 0 {
			return "–"
		}
		return report.Seconds(d)
	}
	for _, r := range results {
		if r.Failure != "" {
			table.Rows = append(table.Rows, []string{r.Size.String(), r.Subject, r.Failure, "", "", "", "", "", "", "", "", "", ""})
			continue
		}
		table.Rows = append(table.Rows, []string{
			r.Size.String(), r.Subject, report.Milliseconds(r.Ready),
			report.Megabytes(r.Memory), report.Megabytes(r.PeakMemory), report.Megabytes(r.HAProxyMemory), grouped(r.Connections),
			report.Percent(r.IdleControl), report.Percent(r.IdleConsul),
			spent(r.ChangeControl), spent(r.ChangeConsul), spent(r.ChangeHAProxy),
			fmt.Sprintf("%d for %d changes", r.Reloads, r.Changes),
		})
	}
	return report.Part{Name: "scale", Title: "What a catalog costs", Tables: []report.Table{table}, Charts: scaleCharts(results), Raw: results}
}
