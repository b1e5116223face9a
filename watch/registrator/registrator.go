package registrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mi-lb/mi-lb/watch"
)

// Options of a Registrator.
type Options struct {
	Policy Policy
	Engine *Engine
	Agent  *Agent
	// Tags are those of -tags, nil for none.
	Tags *TagTemplate
	// Resync is how often the agent's services are compared with what is desired
	// without anything having happened; 0 is 30 s. Nothing is written that need
	// not be.
	Resync time.Duration
	// Relist is how often all containers are looked at again; 0 is 10 min.
	Relist time.Duration
	// DrainTimeout is how long a container that was told to stop and did not
	// stays in maintenance; 0 is one hour.
	DrainTimeout time.Duration
	// RetryAttempts is how often the first contact with the agent is tried again
	// before Run gives up, -1 for ever; RetryInterval is the time between, 0 is 2 s.
	RetryAttempts int
	RetryInterval time.Duration
	Log           *slog.Logger
	// Metrics is where metrics are registered, nil for nowhere.
	Metrics prometheus.Registerer
}

// Registrator keeps an agent's services equal to an engine's containers.
type Registrator struct {
	options Options
	log     *slog.Logger
	metrics *metrics
	status  statusBox

	// What follows belongs to Run's goroutine.

	world map[string]*seen // by the container's full id; nil before the first list
	// actual is what the agent has as of the last answer and the writes since;
	// nil before the first answer.
	actual *Actual
	// reading is set while the agent is being read; written has the ids of
	// services written since that began, whose answer would be out of date.
	reading bool
	written map[string]bool
	// nextRead is when the agent is read again; reach is nil while it answers.
	nextRead time.Time
	reach    error
	// watched is one service of ours that is being watched, to notice at once
	// when the agent restarts; empty while none is, until rewatch at least.
	watched  string
	rewatch  time.Time
	reads    int // failed in a row
	everRead bool
	// inflight has the services with an operation under way, refused those whose
	// last one the agent refused.
	inflight map[string]bool
	refused  map[string]refusal
	// stopping has the containers that have been sent their stop signal.
	stopping map[string]stopping
	findings map[string]bool
	docker   error // nil while connected
}

// seen is a container as last observed and what it asks for.
type seen struct {
	Observed
	description Description
	// changed is when what led to the last change happened; zero once it has
	// been carried out.
	changed time.Time
}

// stopping is one stop of one start of a container.
type stopping struct {
	startedAt string
	at        time.Time
	over      bool // it did not end in time, and counts as running again
}

// refusal is an operation that the agent refused.
type refusal struct {
	err   string
	until time.Time
	delay time.Duration
}

const (
	operationsAtOnce = 16
	refusalFirst     = time.Second
	refusalMost      = time.Minute
	readRetryFirst   = 250 * time.Millisecond
	readRetryMost    = 5 * time.Second
)

// New checks the options.
func New(o Options) (*Registrator, error) {
	if !plainWord(o.Policy.Host) {
		return nil, fmt.Errorf("host name %s: it must be a word, for it is part of service ids", quote(o.Policy.Host))
	}
	if o.Engine == nil || o.Agent == nil {
		return nil, errors.New("registrator needs an engine and an agent")
	}
	if o.Tags == nil {
		o.Tags = &TagTemplate{}
	}
	o.Resync = cmp.Or(o.Resync, 30*time.Second)
	o.Relist = cmp.Or(o.Relist, 10*time.Minute)
	o.DrainTimeout = cmp.Or(o.DrainTimeout, time.Hour)
	o.RetryInterval = cmp.Or(o.RetryInterval, 2*time.Second)
	o.Log = cmp.Or(o.Log, slog.Default())
	r := &Registrator{
		options: o, log: o.Log, metrics: newMetrics(o.Metrics),
		inflight: map[string]bool{}, refused: map[string]refusal{}, written: map[string]bool{},
		stopping: map[string]stopping{}, findings: map[string]bool{}, docker: errors.New("not connected yet"), reach: errors.New("not read yet"),
	}
	r.publish()
	return r, nil
}

// outcome is that of one service's operations.
type outcome struct {
	id   string
	done []Operation
	err  error
	took time.Duration
}

type readOutcome struct {
	actual *Actual
	err    error
}

// Run registers until the context ends, and returns nil then. Services stay
// registered, for their containers go on. Before that it returns only if the
// agent was not reached within the attempts that the options allow.
func (r *Registrator) Run(ctx context.Context) error {
	changes := make(chan change)
	outcomes := make(chan outcome, operationsAtOnce)
	reads := make(chan readOutcome, 1)
	watches := make(chan error, 1)
	observed := make(chan struct{})
	o := &observer{
		engine: r.options.Engine, tags: r.options.Tags, all: r.options.Policy.KeepFailed, relist: r.options.Relist, log: r.log,
		report: func(ctx context.Context, c change) {
			select {
			case changes <- c:
			case <-ctx.Done():
			}
		},
	}
	go func() {
		defer close(observed)
		o.run(ctx)
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			<-observed
			return nil
		case c := <-changes:
			r.learn(c)
			r.drainChanges(changes)
		case out := <-outcomes:
			r.settle(out)
		case in := <-reads:
			if err := r.received(in); err != nil {
				return err
			}
		case err := <-watches:
			r.unwatched(err)
		case <-timer.C:
		}
		now := time.Now()
		if !r.reading && !now.Before(r.nextRead) {
			r.read(ctx, reads)
		}
		r.reconcile(ctx, now, outcomes)
		r.watch(ctx, now, watches)
		timer.Reset(max(time.Until(r.due(now)), 0))
		r.publish()
	}
}

// drainChanges learns what is waiting already, so that many changes at once cost
// one comparison.
func (r *Registrator) drainChanges(changes <-chan change) {
	for {
		select {
		case c := <-changes:
			r.learn(c)
		default:
			return
		}
	}
}

// learn takes in what the observer reports.
func (r *Registrator) learn(c change) {
	switch {
	case c.lost != nil:
		if r.docker == nil || r.docker.Error() != c.lost.Error() {
			r.log.Warn("Docker is out of reach; services stay as they are until it is back", "error", c.lost)
		}
		r.docker = c.lost
		r.metrics.dockerLost.Inc()
	case c.all != nil:
		r.log.Info("connected to Docker", "containers", len(c.all))
		r.docker = nil
		before := r.world
		r.world = make(map[string]*seen, len(c.all))
		for id, o := range c.all {
			r.world[id] = &seen{Observed: o, changed: c.at}
		}
		for id := range c.unknown {
			if was := before[id]; was != nil {
				r.world[id] = was
				continue
			}
			r.world[id] = &seen{Observed: Observed{Container: &Container{ID: id}}, description: Description{Keep: true}}
		}
		for id := range r.stopping {
			if r.world[id] == nil {
				delete(r.stopping, id)
			}
		}
		for id := range r.world {
			r.describe(id)
		}
	case c.signal != "":
		is := r.world[c.id]
		if is == nil || !stops(is.Container, c.signal) {
			return
		}
		if was, known := r.stopping[c.id]; known && was.startedAt == is.Container.State.StartedAt && !was.over {
			return
		}
		r.stopping[c.id] = stopping{startedAt: is.Container.State.StartedAt, at: c.at}
		is.changed = c.at
		r.describe(c.id)
	case c.seen == nil:
		delete(r.world, c.id)
		delete(r.stopping, c.id)
	default:
		r.world[c.id] = &seen{Observed: *c.seen, changed: c.at}
		r.describe(c.id)
	}
}

// describe works out anew what the container asks for.
func (r *Registrator) describe(id string) {
	is := r.world[id]
	if is.Container.State.Status == "" && is.description.Keep {
		return // it could not be inspected
	}
	stop, stopping := r.stopping[id]
	is.Stopping = stopping && !stop.over && stop.startedAt == is.Container.State.StartedAt
	is.description = Describe(r.options.Policy, is.Observed, r.peer)
}

// peer finds a container that runs by its id or name.
func (r *Registrator) peer(idOrName string) *Container {
	if is := r.world[idOrName]; is != nil {
		return is.Container
	}
	for id, is := range r.world {
		if is.Container.PlainName() == idOrName || len(idOrName) >= shortIDLength && strings.HasPrefix(id, idOrName) {
			return is.Container
		}
	}
	return nil
}

// desired is what all containers ask for now.
func (r *Registrator) desired() *Desired {
	all := make(map[string]Description, len(r.world))
	for id, is := range r.world {
		if _, shared := is.Container.networkOf(); shared {
			r.describe(id) // it depends on another container
		}
		all[shortID(id)] = is.description
	}
	return Merge(all)
}

// reconcile starts what is missing between what is desired and what the agent has.
func (r *Registrator) reconcile(ctx context.Context, now time.Time, outcomes chan<- outcome) {
	if r.world == nil || r.actual == nil {
		return
	}
	r.expireDrains(now)
	desired := r.desired()
	if r.recoverDrains(desired, now) {
		desired = r.desired()
	}
	operations, findings := Diff(r.options.Policy, desired, r.actual)
	r.note(slices.Concat(desired.Findings, findings))
	for id := range r.refused {
		if _, still := operations[id]; !still {
			delete(r.refused, id)
		}
	}
	r.metrics.services.Set(float64(len(desired.Services)))
	r.metrics.containers.Set(float64(len(r.world)))
	r.metrics.pending.Set(float64(len(operations)))
	if len(operations) == 0 && r.reach == nil && r.docker == nil {
		r.metrics.reconciled.SetToCurrentTime()
		r.settled()
	}
	r.status.note(len(r.world), len(desired.Services), len(operations), r.refused)
	if r.reach != nil {
		return // it does not answer; everything is tried again when it does
	}
	for _, id := range inOrder(operations) {
		if len(r.inflight) >= operationsAtOnce {
			return
		}
		if r.inflight[id] || now.Before(r.refused[id].until) {
			continue
		}
		r.inflight[id], r.written[id] = true, true
		go r.apply(ctx, id, operations[id], outcomes)
	}
}

// inOrder gives first what takes traffic away.
func inOrder(operations map[string][]Operation) []string {
	rank := func(id string) int {
		switch operations[id][0].Kind {
		case EnterMaintenance:
			return 0
		case Deregister:
			return 1
		}
		return 2
	}
	return slices.SortedFunc(maps.Keys(operations), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
	})
}

// apply performs one service's operations in order, to the first that fails.
func (r *Registrator) apply(ctx context.Context, id string, operations []Operation, outcomes chan<- outcome) {
	started := time.Now()
	out := outcome{id: id}
	for _, op := range operations {
		if out.err = r.options.Agent.Apply(ctx, op); out.err != nil {
			r.metrics.operations.WithLabelValues(string(op.Kind), "failed").Inc()
			break
		}
		r.metrics.operations.WithLabelValues(string(op.Kind), "done").Inc()
		out.done = append(out.done, op)
	}
	out.took = time.Since(started)
	select {
	case outcomes <- out:
	case <-ctx.Done():
	}
}

// settle takes in the outcome of a service's operations.
func (r *Registrator) settle(out outcome) {
	delete(r.inflight, out.id)
	r.written[out.id] = true
	for _, op := range out.done {
		container := r.containerOf(op)
		r.actual.apply(op)
		r.log.Info("service "+past[op.Kind], "service_id", op.ID, "container", container, "why", op.Why, "milliseconds", out.took.Milliseconds())
		r.measure(op, container)
	}
	switch {
	case out.err == nil:
		delete(r.refused, out.id)
	case errors.Is(out.err, context.Canceled):
	case answered(out.err):
		was := r.refused[out.id]
		delay := min(max(2*was.delay, refusalFirst), refusalMost)
		if was.err != out.err.Error() {
			r.log.Error("the Consul agent refused an operation; it is tried again", "service_id", out.id, "error", out.err, "hint", hint(out.err))
		}
		r.refused[out.id] = refusal{err: out.err.Error(), until: time.Now().Add(delay), delay: delay}
		// The agent may no longer have what it is thought to have.
		r.nextRead = time.Now()
	default:
		r.unreachable(out.err)
	}
}

var past = map[Kind]string{
	Register: "registered", Deregister: "deregistered", SetHealth: "health set",
	EnterMaintenance: "put into maintenance", LeaveMaintenance: "taken out of maintenance",
}

// containerOf is the short id of the container that an operation is about, as far
// as it is known.
func (r *Registrator) containerOf(op Operation) string {
	if op.Service != nil {
		return op.Service.Container
	}
	m, _ := parseMark(r.actual.Services[op.ID].Meta[markKey])
	return m.container
}

// measure observes how long it took from what happened to its operation.
func (r *Registrator) measure(op Operation, container string) {
	for id, is := range r.world {
		if shortID(id) == container && !is.changed.IsZero() {
			if took := time.Since(is.changed); took > 0 && (op.Kind == Register || op.Kind == EnterMaintenance) {
				r.metrics.latency.WithLabelValues(string(op.Kind)).Observe(took.Seconds())
			}
			return
		}
	}
}

// settled ends the measuring of what has happened so far.
func (r *Registrator) settled() {
	for _, is := range r.world {
		is.changed = time.Time{}
	}
}

// expireDrains counts containers as running again that have been told to stop
// and have not stopped in time.
func (r *Registrator) expireDrains(now time.Time) {
	for id, stop := range r.stopping {
		if stop.over || now.Before(stop.at.Add(r.options.DrainTimeout)) {
			continue
		}
		stop.over = true
		r.stopping[id] = stop
		r.log.Warn("container was told to stop and runs on; it takes traffic again", "container", shortID(id), "after", r.options.DrainTimeout)
		r.describe(id)
	}
}

// recoverDrains recognizes containers that were being stopped when an earlier
// registrator ended, and says whether there are any.
func (r *Registrator) recoverDrains(desired *Desired, now time.Time) bool {
	recovered := false
	for _, s := range desired.Services {
		is, exists := r.actual.Services[s.ID()]
		if s.Maintenance != "" || !exists || is.Maintenance == nil || *is.Maintenance != s.drainReason {
			continue
		}
		for id, c := range r.world {
			if _, known := r.stopping[id]; shortID(id) != s.Container || known {
				continue
			}
			r.stopping[id] = stopping{startedAt: c.Container.State.StartedAt, at: now}
			r.describe(id)
			recovered = true
		}
	}
	return recovered
}

// note logs findings that are new and counts all.
func (r *Registrator) note(findings []watch.Finding) {
	counts := map[string]int{}
	now := make(map[string]bool, len(findings))
	for _, f := range findings {
		text := f.String()
		if !now[text] && !r.findings[text] {
			r.log.Warn("refused", "code", f.Code, "source", f.Source, "key", f.Key, "problem", f.Message, "instead", f.Instead)
		}
		now[text] = true
		counts[f.Code]++
	}
	r.findings = now
	r.metrics.setFindings(counts)
	r.status.setFindings(findings)
}

// due is when there is something to do without anything happening.
func (r *Registrator) due(now time.Time) time.Time {
	due := now.Add(time.Minute)
	earlier := func(t time.Time) {
		if t.Before(due) {
			due = t
		}
	}
	if !r.reading {
		earlier(r.nextRead)
	}
	if r.watched == "" && r.rewatch.After(now) {
		earlier(r.rewatch)
	}
	for _, refusal := range r.refused {
		if refusal.until.After(now) {
			earlier(refusal.until)
		}
	}
	for _, stop := range r.stopping {
		if !stop.over {
			earlier(stop.at.Add(r.options.DrainTimeout))
		}
	}
	return due
}

// publish makes the state readable for others.
func (r *Registrator) publish() {
	r.status.setReach(r.docker, r.reach, r.world != nil && r.actual != nil)
	r.metrics.setDocker(r.docker == nil)
}
