package haproxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/lb/haproxy/plan"
	"github.com/mi-lb/mi-lb/lb/haproxy/process"
	"github.com/mi-lb/mi-lb/lb/haproxy/render"
	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/watch"
)

// begin takes over the HAProxy that runs, if one does.
func (l *loop) begin() error {
	state, err := l.process.Adopt(l.ctx)
	switch {
	case err == nil:
		l.adopted(state)
		return nil
	case errors.Is(err, process.ErrNotRunning):
	case errors.Is(err, process.ErrNotOurs) || !l.o.Managed:
		if l.o.Managed {
			return fmt.Errorf("%w; another mi-lb or HAProxy uses the same sockets", err)
		}
		l.complain("process", err)
	default:
		return err
	}
	if !l.o.Managed {
		l.later()
	}
	return nil
}

// adopted makes a model of a HAProxy that somebody else started: what the files
// said, corrected by what can be read back.
func (l *loop) adopted(state process.State) {
	l.up, l.lost = true, false
	l.probe()
	l.record(Event{Kind: "process", Detail: fmt.Sprintf("took over HAProxy %s, worker %d", state.Version, state.Worker)})
	files, err := render.Read(l.o.Settings.Dir)
	if err != nil || l.saved.Table == nil || l.saved.Reloading || (l.model && state.Description != l.saved.Generation) {
		l.demand("adopted-unknown", "what it was told before is not known")
		return
	}
	l.files, l.rendered, l.generation = files, l.saved.wanted(), l.saved.Generation
	for _, number := range l.saved.Blocked {
		l.blocked[number] = blockedPort{err: errors.New("another program has it")}
		l.later()
	}
	// Other templates, settings or another mi-lb would write the same down otherwise.
	l.external, l.dirty = l.model, true
	if l.model {
		l.takeOver()
	}
}

// takeOver makes a model of what the files said and what can be read back.
func (l *loop) takeOver() {
	running, err := plan.Adopt(l.saved.Table, l.encoding, l.saved.Spares)
	if err != nil {
		l.demand("adopted-unknown", err.Error())
		return
	}
	l.running = running
	l.correct()
}

// correct makes the model say what can be read back. Nothing is repaired: what is
// wanted now decides.
func (l *loop) correct() {
	if l.running == nil {
		return
	}
	ctx, cancel := context.WithTimeout(l.ctx, execTimeout)
	defer cancel()
	servers, rows, err := readBack(ctx, l.process.Runtime(), l.running.Maps())
	if err != nil {
		l.running = nil
		l.demand("adopted-unknown", err.Error())
		return
	}
	d := plan.Drift(l.running, servers, rows, l.caps)
	l.running = d.Observed
	l.leave(d.Leaving)
}

func (l *loop) probe() {
	ctx, cancel := context.WithTimeout(l.ctx, execTimeout)
	defer cancel()
	caps, err := l.process.Runtime().Capabilities(ctx)
	if err != nil {
		// Without any: everything is done by reloads until it is known.
		l.complain("capabilities", err)
		l.later()
	}
	l.caps = caps
}

// attach looks for the HAProxy that somebody else is to start.
func (l *loop) attach() {
	state, err := l.process.Adopt(l.ctx)
	if err != nil {
		l.complain("process", err)
		l.later()
		return
	}
	if l.rendered.Table == nil {
		l.adopted(state)
	} else {
		l.restarted(process.Event{Cause: process.Adopted, State: state})
	}
	l.changed()
}

// processEvent follows what becomes of HAProxy.
func (l *loop) processEvent(e process.Event) {
	switch e.Cause {
	case process.Lost:
		if !l.lost {
			l.record(Event{Kind: "process", Detail: "HAProxy has ended"})
		}
		l.lost = true
		if e.Err != nil {
			l.complain("process", e.Err)
			l.blockRefused(e.Err)
		}
	case process.Restarted, process.Foreign:
		l.restarted(e)
		l.changed()
	}
}

// restarted is a HAProxy that has read the files as they are.
func (l *loop) restarted(e process.Event) {
	l.up, l.lost = true, false
	l.probe()
	l.record(Event{Kind: "process", Detail: fmt.Sprintf("HAProxy %s: worker %d", e.Cause, e.State.Worker)})
	l.modelOf(l.rendered.Table)
	// What was sent since it began, before anybody knew of it, is in it too.
	l.correct()
}

// modelOf is the model of a HAProxy that has just read files that say the table.
func (l *loop) modelOf(table *routing.Table) {
	clear(l.leaving)
	l.running = nil
	if !l.model || table == nil {
		return
	}
	running, err := plan.New(table, l.encoding)
	if err != nil {
		l.complain("model", err)
		return
	}
	l.running = running
	l.driftAt = time.Now().Add(l.o.DriftEvery)
}

// finish puts what a job prepared in force.
func (l *loop) finish(r jobResult) {
	err := r.err
	if err == nil {
		l.quarantined(r)
		if r.reload || !l.up || (l.lost && l.rendered.Table == nil) {
			if r, err = l.catchUp(r); err == nil {
				err = l.activate(r)
			}
		} else {
			err = l.follow(r)
		}
	}
	for _, o := range r.orders {
		o.done <- err
	}
	if err == nil {
		clear(l.reported)
		return
	}
	if l.ctx.Err() != nil {
		return
	}
	if errors.Is(err, errBusy) {
		// The same again without them.
		_ = r.prepared.staged.Discard()
		l.external = l.external || r.external
		l.soil()
		l.changed()
		return
	}
	l.complain(kindOf(r), err)
	if r.prepared.staged != nil {
		_ = r.prepared.staged.Discard()
	}
	if !l.up {
		l.startFormer()
	}
	// The running configuration stays; another try comes with the next change, or
	// after a while.
	l.soil()
	l.filesAt = time.Now().Add(retryAfter)
	l.external = l.external || r.external
	if len(l.reasons) > 0 {
		l.reloadAt = time.Now().Add(max(retryAfter, l.o.ReloadEvery))
	}
}

// startFormer starts a managed HAProxy from the files that an earlier driver left:
// better what was right then than nothing.
func (l *loop) startFormer() {
	files, err := render.Read(l.o.Settings.Dir)
	if err != nil || !l.o.Managed || l.saved.Table == nil {
		return
	}
	state, err := l.process.Start(l.ctx)
	if err != nil {
		l.complain("process", err)
		return
	}
	l.log.Warn("HAProxy runs the files that were accepted last", "generation", l.saved.Generation)
	l.files, l.rendered, l.generation = files, l.saved.wanted(), l.saved.Generation
	l.restarted(process.Event{Cause: process.Started, State: state})
	l.external = true
}

func kindOf(r jobResult) string {
	if r.reload {
		return "reload-failed"
	}
	return "files"
}

// quarantined leaves out the services that HAProxy does not accept.
func (l *loop) quarantined(r jobResult) {
	if len(r.prepared.culprits) == 0 {
		return
	}
	l.quarantineOf(r)
	l.changed()
}

func (l *loop) quarantineOf(r jobResult) {
	for _, service := range slices.Sorted(maps.Keys(r.prepared.culprits)) {
		err := r.prepared.culprits[service]
		l.log.Error("HAProxy does not accept its configuration with a service: left out", "service", service, "error", err)
		l.record(Event{Kind: "quarantined", Detail: watch.Printable(service), Error: err.Error()})
		l.quarantine[service] = quarantined{fingerprint: r.wanted.fingerprint(service), err: err}
	}
}

// catchUp prepares the files of a reload anew if HAProxy has been told more at run time
// since they were begun. As they are, the new worker would begin with what was right
// before: instances that are gone again, and without those that came. Nothing else is
// done meanwhile, so that it is the last time; what was accepted is not validated again.
func (l *loop) catchUp(r jobResult) (jobResult, error) {
	if !l.model || !l.up || l.lost || l.want.Table == r.wanted.Table {
		return r, nil
	}
	p, err := l.prepare(l.ctx, l.want, r.prepared.want.Table, r.generation, l.trusted())
	if err != nil {
		return r, err
	}
	former := r.prepared.staged
	r.wanted, r.prepared = l.want, p
	if len(l.reasons) > 0 {
		r.reasons = l.reasons
	}
	l.quarantineOf(r)
	return r, former.Discard()
}

// commit puts prepared files in force and remembers what they say.
func (l *loop) commit(p prepared, spares []plan.Spare) error {
	if err := p.staged.Commit(); err != nil {
		return err
	}
	l.take(p)
	return l.remember(false, spares)
}

// put is what commit does on the disk.
func (d *Driver) put(p prepared, generation string, spares []plan.Spare) error {
	if err := p.staged.Commit(); err != nil {
		return err
	}
	return d.states.save(saved{Generation: generation, Table: p.want.Table, Spares: spares, Blocked: p.want.blocked})
}

// take notes that prepared files are in force.
func (l *loop) take(p prepared) {
	l.files, l.rendered = p.files, p.want
	pause := gather // what is rendered from text is applied only when it is rendered
	if l.model {
		pause = max(l.o.Settle, min(shareOfFiles*p.took, l.o.FilesWithin))
	}
	l.filesAt = time.Now().Add(pause)
}

// spares that the running HAProxy has.
func (l *loop) spares() []plan.Spare {
	if l.running == nil {
		return nil
	}
	return l.running.Spares()
}

// remember saves what the next driver needs. Reloading says that the files in force
// are not known to have been read.
func (l *loop) remember(reloading bool, spares []plan.Spare) error {
	return l.states.save(saved{
		Generation: l.generation, Reloading: reloading, Table: l.rendered.Table, Spares: spares, Blocked: l.rendered.blocked,
	})
}

// follow puts files in force that say what runs already, or what the runtime API can
// make run.
func (l *loop) follow(r jobResult) error {
	if l.model {
		if r.differs != "" {
			l.demand("templates-changed", r.differs)
		}
		l.take(r.prepared)
		return nil
	}
	return l.followText(r)
}

// activate puts files in force and makes HAProxy read them.
func (l *loop) activate(r jobResult) error {
	if l.up && !l.lost {
		if err := l.free(r.prepared.files); err != nil {
			return err
		}
	}
	former, formerWant, formerGeneration := l.files, l.rendered, l.generation
	l.generation = r.generation
	l.rendered = r.prepared.want
	// Once it has read the files, none of its spares is anything yet.
	spares := l.encoding.Spares(l.rendered.Table)
	if err := l.remember(true, spares); err != nil {
		l.generation, l.rendered = formerGeneration, formerWant
		return err
	}
	if err := l.commit(r.prepared, spares); err != nil {
		l.generation, l.rendered = formerGeneration, formerWant
		return err
	}
	if !l.up && !l.o.Managed {
		l.attach()
		return nil
	}
	reason := reasonOf(r)
	begin := time.Now()
	state, err := l.read(r, reason)
	if l.up {
		l.reloaded = time.Now()
		l.o.Observer.Reloaded(reason, err == nil)
	}
	if err != nil {
		return errors.Join(err, l.restore(former, formerWant, formerGeneration, err))
	}
	l.record(Event{
		Kind: "reloaded", Reason: reason, Revision: r.prepared.want.Table.Revision, Seconds: time.Since(begin).Seconds(),
		Detail: strings.Join(logReasons(r.reasons), ", "),
	})
	l.log.Info("HAProxy reads its files", "reason", reason, "details", logReasons(r.reasons), "worker", state.Worker)
	if r.external {
		l.external = false
	}
	l.up, l.lost = true, false
	l.reasons, l.extra, l.reloadAt = nil, nil, time.Time{}
	l.probe()
	l.modelOf(r.prepared.want.Table)
	l.readFor = reason
	l.changed()
	return nil
}

// read starts HAProxy, or has it reloaded.
func (l *loop) read(r jobResult, reason string) (process.State, error) {
	if !l.up {
		return l.process.Start(l.ctx)
	}
	if !l.lost {
		l.handOver()
	}
	request := process.Request{Reason: reason}
	if l.model {
		request.Generation = r.generation
	}
	return l.process.Reload(l.ctx, request)
}

// handOver lets the worker that is about to be replaced pass on what it is asked after
// that. It matters only once there is a next worker; one that knows nothing of that (of an
// operator's own templates) serves what it is asked by what it knows.
func (l *loop) handOver() {
	ctx, cancel := context.WithTimeout(l.ctx, execTimeout)
	defer cancel()
	var commands []string
	for _, server := range render.NextWorkerServers() {
		commands = append(commands, "set server "+render.NextWorker+"/"+server+" state ready")
	}
	if _, err := l.process.Runtime().Exec(ctx, commands); err != nil {
		l.log.Warn("what HAProxy's old worker is asked will not be passed on", "error", err)
	}
}

// reasonOf is the word under which a reload is counted.
func reasonOf(r jobResult) string {
	for _, reason := range r.reasons {
		if !reason.Deferred {
			return reason.Word
		}
	}
	if len(r.orders) > 0 {
		return r.orders[0].reason
	}
	if len(r.reasons) > 0 {
		return r.reasons[0].Word
	}
	return "start"
}

// restore puts the former files in force again after HAProxy refused the new ones,
// and blocks the ports that it could not have.
func (l *loop) restore(former render.Files, want Wanted, generation string, reason error) error {
	l.generation = generation
	l.blockRefused(reason)
	if former == nil {
		l.rendered = Wanted{}
		l.soil()
		return nil
	}
	if err := render.Write(l.o.Settings.Dir, former); err != nil {
		return fmt.Errorf("put the former files in force again: %w", err)
	}
	l.files, l.rendered = former, want
	if want.Table == nil {
		return nil
	}
	return l.remember(false, l.spares())
}

// refusedPort is where HAProxy's alerts name what could not be bound.
var refusedPort = regexp.MustCompile(`cannot bind.*[\[ ][^\]\s]*:(\d+)\]?`)

// blockRefused blocks the service ports that HAProxy could not bind.
func (l *loop) blockRefused(reason error) {
	var failed *process.FailedError
	if !errors.As(reason, &failed) {
		return
	}
	for _, alert := range failed.Alerts {
		match := refusedPort.FindStringSubmatch(alert.Text)
		if match == nil {
			continue
		}
		number, err := strconv.Atoi(match[1])
		if err != nil || l.want.Table == nil {
			continue
		}
		if service, ours := l.servicePort(number); ours {
			l.blockPort(number, service, errors.New(alert.Text))
			l.soil()
			l.filesAt = time.Now()
		}
	}
}

func countsText(counts map[string]int) string {
	var all []string
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		all = append(all, fmt.Sprintf("%d %s", counts[kind], kind))
	}
	return strings.Join(all, ", ")
}
