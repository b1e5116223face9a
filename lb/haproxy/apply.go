package haproxy

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/mi-lb/mi-lb/lb/haproxy/plan"
	"github.com/mi-lb/mi-lb/lb/haproxy/runtime"
)

const (
	// execTimeout bounds one batch of commands.
	execTimeout = 10 * time.Second
	// shareOfDrift is how many times as long as reading back took is waited before it
	// is done again.
	shareOfDrift = 500
	// driftWithin is how long that may take at most.
	driftWithin = time.Minute
	// showsAfter is how long it may take until what is read back shows what was done:
	// from HAProxy 3.0 on an address changes a moment after the answer.
	showsAfter = 20 * time.Millisecond
)

// execute carries out operations. It returns those that succeeded, and whether all
// did; what failed leads to a reload, or to reading back what became of it.
func (l *loop) execute(ops []plan.Op) (done []plan.Op, ok bool) {
	if len(ops) == 0 {
		return nil, true
	}
	ctx, cancel := context.WithTimeout(l.ctx, execTimeout)
	defer cancel()
	script := plan.NewScript(ops)
	replies, err := l.process.Runtime().Exec(ctx, script.Commands)
	done, failed := script.Outcome(replies)
	counts := map[string]int{}
	for _, op := range done {
		counts[op.Kind()]++
	}
	for kind, n := range counts {
		l.o.Observer.Operated(kind, n)
	}
	if soon := time.Now().Add(showsAfter); l.driftAt.Before(soon) {
		l.driftAt = soon
	}
	if err != nil && l.ctx.Err() == nil {
		// Nobody knows what became of the rest: read it back.
		l.complain("operations", err)
		l.driftAt = time.Now()
		l.later()
		return done, false
	}
	for _, f := range failed {
		if _, isDelete := f.Op.(plan.DelServer); isDelete {
			continue // it still has connections: another time
		}
		l.complain("operations", f.Err)
		l.demand("operation-failed", f.Op.String())
	}
	return done, len(failed) == 0 && err == nil
}

// leave notes when drained servers are cut.
func (l *loop) leave(refs []plan.Ref) {
	at := time.Now().Add(l.o.Drain)
	for _, ref := range refs {
		if _, known := l.leaving[ref]; !known {
			l.leaving[ref] = at
		}
	}
}

// cut ends what drained servers still have, when their time has come.
func (l *loop) cut(now time.Time) {
	var refs []plan.Ref
	for ref, at := range l.leaving {
		if !now.Before(at) {
			refs = append(refs, ref)
			delete(l.leaving, ref)
		}
	}
	if len(refs) == 0 {
		return
	}
	slices.SortFunc(refs, func(a, b plan.Ref) int { return compareRefs(a, b) })
	if !l.model {
		l.cutText(refs)
		return
	}
	if l.want.Table == nil || l.running == nil {
		return
	}
	done, _ := l.execute(l.running.Cut(l.want.Table, refs))
	l.running = l.running.Apply(done)
	l.collect()
}

func compareRefs(a, b plan.Ref) int {
	switch {
	case a.String() < b.String():
		return -1
	case a.String() > b.String():
		return 1
	}
	return 0
}

// collect deletes servers that are in maintenance for good, where HAProxy can.
func (l *loop) collect() {
	if ops := l.running.Collect(l.want.Table, l.caps); len(ops) > 0 {
		done, _ := l.execute(ops)
		l.running = l.running.Apply(done)
	}
}

// driftResult is what HAProxy runs, read back.
type driftResult struct {
	// of is the model at the time: if it has changed since, nothing can be said.
	of      *plan.Running
	servers []runtime.Server
	rows    map[string][]runtime.MapEntry
	err     error
	took    time.Duration
}

// lookForDrift reads back in the background.
func (l *loop) lookForDrift() {
	result := driftResult{of: l.running}
	done := make(chan driftResult, 1)
	l.drift = done
	client := l.process.Runtime()
	go func() {
		ctx, cancel := context.WithTimeout(l.ctx, execTimeout)
		defer cancel()
		begin := time.Now()
		defer func() {
			result.took = time.Since(begin)
			done <- result
		}()
		result.servers, result.rows, result.err = readBack(ctx, client, result.of.Maps())
	}()
}

func readBack(ctx context.Context, client *runtime.Client, maps []string) ([]runtime.Server, map[string][]runtime.MapEntry, error) {
	servers, err := client.Servers(ctx)
	if err != nil {
		return nil, nil, err
	}
	rows := map[string][]runtime.MapEntry{}
	for _, file := range maps {
		entries, err := client.MapEntries(ctx, file)
		if err != nil {
			return nil, nil, err
		}
		rows[file] = entries
	}
	return servers, rows, nil
}

// mostLeftovers are how many servers may wait for a reload that is for something else
// to go; more may if they are less than a quarter of all. One takes about 5 kB.
const mostLeftovers = 1000

// tidy has HAProxy reloaded, without haste, if too much that nobody wants has gathered.
func (l *loop) tidy() {
	if l.want.Table == nil {
		return
	}
	left := l.running.Leftovers(l.want.Table)
	if left <= mostLeftovers || left <= l.running.ServerCount()/4 {
		return
	}
	l.demandReason(plan.Reason{Word: "leftover-servers", Detail: strconv.Itoa(left), Deferred: true})
}

// repair mends what differs from the model.
func (l *loop) repair(result driftResult) {
	l.driftAt = time.Now().Add(max(l.o.DriftEvery, min(shareOfDrift*result.took, driftWithin)))
	if result.err != nil {
		if l.ctx.Err() == nil && l.up {
			l.complain("drift", result.err)
		}
		return
	}
	if result.of != l.running || !l.up || l.lost {
		// Something was applied meanwhile; look again, but not in a circle.
		l.driftAt = time.Now().Add(min(l.o.DriftEvery, time.Second))
		return
	}
	l.tidy()
	d := plan.Drift(l.running, result.servers, result.rows, l.caps)
	if d.Total() == 0 {
		return
	}
	for kind, n := range d.Counts {
		l.o.Observer.Repaired(kind, n)
	}
	l.log.Warn("HAProxy runs something else than it should: repairing", "differences", d.Total(), "kinds", d.Counts)
	l.record(Event{Kind: "repaired", Operations: len(d.Ops), Detail: countsText(d.Counts)})
	done, _ := l.execute(d.Ops)
	l.running = d.Observed.Apply(done)
	l.leave(d.Leaving)
	for _, r := range d.Reload {
		l.demand(r.Word, r.Detail)
	}
	if l.want.Table != nil {
		l.apply()
	}
}
