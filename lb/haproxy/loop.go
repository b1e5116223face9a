package haproxy

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/mi-lb/mi-lb/lb/haproxy/plan"
	"github.com/mi-lb/mi-lb/lb/haproxy/process"
	"github.com/mi-lb/mi-lb/lb/haproxy/render"
	"github.com/mi-lb/mi-lb/lb/haproxy/runtime"
	"github.com/mi-lb/mi-lb/lb/routing"
)

const (
	// retryAfter is the pause before something that failed is tried again.
	retryAfter = 5 * time.Second
	// gather is how long a reload waits for more changes to go with it.
	gather = 20 * time.Millisecond
	// shareOfFiles is how many times as long as writing the files took is waited
	// before they are written again.
	shareOfFiles = 200
)

// loop is the one goroutine that changes HAProxy. What takes long, rendering and
// validating, is done beside it by one job at a time.
type loop struct {
	*Driver
	ctx      context.Context
	encoding *plan.Encoding
	// model says that the built-in structure of the files is in use, whose every
	// part is known; else the files are compared as text.
	model bool

	// up: a HAProxy runs and is ours.
	up   bool
	caps runtime.Capabilities
	// running is what it runs (model), rendered what the files in force say, files
	// those themselves.
	running    *plan.Running
	rendered   Wanted
	files      render.Files
	generation string
	// want is what is wanted, less what is quarantined or blocked.
	want Wanted

	quarantine map[string]quarantined
	blocked    map[int]blockedPort
	// leaving are servers that are cut when their time comes.
	leaving map[plan.Ref]time.Time

	// lost: HAProxy has ended, and its supervisor is bringing it back.
	lost bool
	// reasons for a reload that is due; reloadAt is when. extra are those among them
	// that a comparison with the model does not show.
	reasons  []plan.Reason
	extra    []plan.Reason
	reloadAt time.Time
	reloaded time.Time
	// dirty: the files are behind; filesAt is when they are written.
	dirty   bool
	filesAt time.Time
	// external: what templates ask for beside the table has changed.
	external bool
	orders   []order

	job      chan jobResult
	drift    chan driftResult
	driftAt  time.Time
	retryAt  time.Time
	reported map[string]bool
	// readFor is why HAProxy has just read its files, until that is logged.
	readFor string
	// observed is the newest revision whose latency has been measured.
	observed uint64
}

type quarantined struct {
	fingerprint [sha256.Size]byte
	err         error
}

type blockedPort struct {
	service string
	err     error
}

type jobResult struct {
	prepared prepared
	// reload says what the job was for.
	reload     bool
	reasons    []plan.Reason
	orders     []order
	generation string
	err        error
	// wanted is what the job was given, external whether it was to look for changes
	// that no table shows.
	wanted   Wanted
	external bool
	differs  string
	// committed: the files are in force and remembered.
	committed bool
}

func newLoop(d *Driver) *loop {
	l := &loop{
		Driver: d, quarantine: map[string]quarantined{}, blocked: map[int]blockedPort{}, leaving: map[plan.Ref]time.Time{},
		reported: map[string]bool{}, generation: d.saved.Generation,
		model: d.o.Engine.BuiltIn(render.ConfigFile),
	}
	l.encoding = newEncoding(d)
	return l
}

// newEncoding is how the built-in templates write a table down.
func newEncoding(d *Driver) *plan.Encoding {
	settings := d.o.Settings
	path := func(file string) string { return render.Current(settings.Dir) + "/" + file }
	return &plan.Encoding{
		// Whatever the balance, the built-in templates write one that takes servers.
		Static: func(*routing.Backend) bool { return false },
		Servers: func(b *routing.Backend, servers []routing.Server) ([]string, error) {
			return d.renderer.ServerArgs(b, servers, settings)
		},
		Route: func(r routing.Route) (plan.Row, error) {
			if !settings.Listens(r.Kind) {
				return plan.Row{}, nil
			}
			file, row, err := render.MapRow(r)
			return plan.Row{Map: path(file), Key: row.Key}, err
		},
		Port: func(p routing.Port) (plan.Row, error) {
			if !settings.InRange(p) {
				return plan.Row{}, nil
			}
			file, row := render.PortRow(p)
			return plan.Row{Map: path(file), Key: row.Key}, nil
		},
		Spares: func(t *routing.Table) []plan.Spare {
			var spares []plan.Spare
			for _, s := range settings.Spares(t) {
				spares = append(spares, plan.Spare{Name: s.Name, Shape: s.Shape})
			}
			return spares
		},
		Shape: render.Shape,
		Grow: func(shape string, spares int) (name, from string) {
			if from = render.ShapeName(shape); from == "" || !d.renderer.Grows() {
				return "", ""
			}
			return render.SpareName(spares), from
		},
		Claim: func(spare string, b *routing.Backend) ([]plan.Row, error) {
			file, rows, err := settings.ClaimRows(spare, b)
			if err != nil {
				return nil, err
			}
			var all []plan.Row
			for _, row := range rows {
				all = append(all, plan.Row{Map: path(file), Key: row.Key, Value: row.Value})
			}
			return all, nil
		},
	}
}

func (l *loop) run(ctx context.Context) error {
	l.ctx = ctx
	if err := l.begin(); err != nil {
		return err
	}
	engine := make(chan struct{})
	go func() {
		defer close(engine)
		l.o.Engine.Run(ctx)
	}()
	defer func() { <-engine }()
	var supervisor chan error
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if l.up && supervisor == nil {
			supervisor = make(chan error, 1)
			go func() { supervisor <- l.process.Supervise(ctx) }()
		}
		timer.Reset(l.untilNext())
		select {
		case <-ctx.Done():
			l.end(supervisor)
			return nil
		case <-l.wake:
			l.changed()
		case e := <-l.process.Events():
			l.processEvent(e)
		case result := <-l.job:
			l.job = nil
			l.finish(result)
		case result := <-l.drift:
			l.drift = nil
			l.repair(result)
		case o := <-l.Driver.orders:
			l.orders = append(l.orders, o)
		case <-l.o.Engine.Changed():
			l.rerender()
		case <-l.templates:
			l.rerender()
		case <-timer.C:
		}
		l.due()
		l.publish()
	}
}

// rerender writes the files anew because of something that no table shows.
func (l *loop) rerender() {
	l.external, l.dirty = true, true
	l.model = l.o.Engine.BuiltIn(render.ConfigFile)
	l.filesAt = time.Now().Add(l.o.Settle)
	// Whether a service fits is another question now.
	clear(l.quarantine)
	l.changed()
}

// end leaves HAProxy running, with files that say what it runs.
func (l *loop) end(supervisor chan error) {
	if l.job != nil {
		if r := <-l.job; r.committed {
			l.take(r.prepared)
		} else {
			l.cancelled(r)
		}
	}
	if l.drift != nil {
		<-l.drift
	}
	if supervisor != nil {
		<-supervisor
	}
	for _, o := range l.orders {
		o.done <- context.Canceled
	}
	if l.up && l.dirty && len(l.reasons) == 0 {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), 10*time.Second)
		defer cancel()
		p, err := l.prepare(ctx, l.want, l.accepted(false), l.generation, l.trusted())
		if err == nil {
			err = l.put(p, l.generation, l.spares())
		}
		if err != nil {
			l.log.Warn("HAProxy's files are behind what it runs", "error", err)
		}
	}
}

func (l *loop) cancelled(result jobResult) {
	if result.prepared.staged != nil {
		_ = result.prepared.staged.Discard()
	}
	for _, o := range result.orders {
		o.done <- context.Canceled
	}
}

// untilNext is how long until something is due by time.
func (l *loop) untilNext() time.Duration {
	next := time.Now().Add(time.Hour)
	sooner := func(t time.Time, when bool) {
		if when && t.Before(next) {
			next = t
		}
	}
	sooner(l.filesAt, l.dirty && l.job == nil)
	sooner(l.reloadAt, l.up && !l.lost && len(l.reasons) > 0 && l.job == nil)
	sooner(l.driftAt, l.up && !l.lost && l.looksForDrift())
	sooner(l.retryAt, !l.retryAt.IsZero())
	for _, at := range l.leaving {
		sooner(at, l.up && !l.lost)
	}
	return max(0, time.Until(next))
}

// due does what its time has come for.
func (l *loop) due() {
	now := time.Now()
	if !l.retryAt.IsZero() && !now.Before(l.retryAt) {
		l.retryAt = time.Time{}
		l.retry()
	}
	if l.up && !l.lost {
		l.cut(now)
		if l.looksForDrift() && !now.Before(l.driftAt) {
			l.lookForDrift()
		}
	}
	if l.job != nil || l.want.Table == nil {
		return
	}
	switch {
	case !l.up, l.lost:
		// Files first: a managed HAProxy is started from them, one that is attached
		// needs them to start at all.
		if l.dirty && !now.Before(l.filesAt) {
			l.startJob(false)
		}
	case len(l.orders) > 0:
		l.startJob(true)
	case len(l.reasons) > 0 && !now.Before(l.reloadAt):
		if l.crowded() {
			l.reloadAt = now.Add(time.Second)
			return
		}
		l.startJob(true)
	case l.dirty && len(l.reasons) == 0 && !now.Before(l.filesAt):
		l.startJob(false)
	}
}

// looksForDrift says whether what runs is known well enough to be compared, and is not
// being read back already.
func (l *loop) looksForDrift() bool {
	return l.o.DriftEvery > 0 && l.model && l.running != nil && l.drift == nil
}

// crowded says whether so many old workers linger that the reload had better wait;
// for at most a minute.
func (l *loop) crowded() bool {
	return len(l.process.Last().Old) >= l.o.MostOldWorkers && time.Since(l.reloaded) < time.Minute
}

// changed takes over what is wanted now.
func (l *loop) changed() {
	l.mu.Lock()
	wanted := l.Driver.wanted
	l.mu.Unlock()
	if wanted.Table == nil {
		return
	}
	for service, q := range l.quarantine {
		if wanted.fingerprint(service) != q.fingerprint {
			l.log.Info("trying a quarantined service again: it has changed", "service", service)
			delete(l.quarantine, service)
		}
	}
	l.want = l.blocking(wanted.without(l.leftOut()))
	if !l.up {
		l.dirty = true
		return
	}
	l.apply()
}

func (l *loop) leftOut() (services map[string]bool, ports map[int]bool) {
	services, ports = map[string]bool{}, map[int]bool{}
	for s := range l.quarantine {
		services[s] = true
	}
	for p := range l.blocked {
		ports[p] = true
	}
	return services, ports
}

// apply makes HAProxy do what is wanted, as far as that is possible at run time, and
// notes what is left for a reload or the files.
func (l *loop) apply() {
	if !l.model || l.lost {
		l.soil()
		return
	}
	if l.running == nil {
		l.demand("adopted-unknown", "what it was told before is not known")
		return
	}
	p := plan.Diff(l.running, l.want.Table, l.caps)
	for _, err := range p.Refused {
		l.complain("refused", err)
	}
	p.Reload = append(p.Reload, l.structure()...)
	l.block(&p)
	l.reasons = slices.Concat(p.Reload, l.extra)
	l.schedule()
	l.leave(p.Leaving)
	if len(p.Ops) > 0 || len(p.Reload) > 0 {
		l.soil()
	}
	done, ok := l.execute(p.Ops)
	if ok {
		l.running = l.running.After(p)
	} else {
		l.running = l.running.Apply(done)
	}
	if len(l.reasons) == 0 || !p.Urgent() {
		l.served(len(p.Ops))
	}
	l.collect()
}

// demand asks for a reload for a reason that stays until there was one.
func (l *loop) demand(word, detail string) { l.demandReason(plan.Reason{Word: word, Detail: detail}) }

func (l *loop) demandReason(r plan.Reason) {
	if !slices.ContainsFunc(l.extra, func(e plan.Reason) bool { return e.Word == r.Word }) {
		l.extra = append(l.extra, r)
		l.reasons = append(l.reasons, r)
	}
	l.schedule()
}

// soil notes that the files are behind.
func (l *loop) soil() {
	if !l.dirty {
		l.dirty = true
		settle := gather
		if l.model {
			settle = l.o.Settle
		}
		if earliest := time.Now().Add(settle); l.filesAt.Before(earliest) {
			l.filesAt = earliest
		}
	}
}

// structure are reasons for a reload that no backend or port shows: what the listeners
// are like depends on the table too.
func (l *loop) structure() []plan.Reason {
	if l.rendered.Table == nil {
		return nil
	}
	runs, wanted := l.rendered.settings(l.o.Settings).Structure(l.rendered.Table), l.want.settings(l.o.Settings).Structure(l.want.Table)
	if runs == wanted {
		return nil
	}
	return []plan.Reason{{Word: "listeners-changed", Detail: fmt.Sprintf("from %q to %q", runs, wanted)}}
}

// later sees to another try.
func (l *loop) later() {
	if l.retryAt.IsZero() {
		l.retryAt = time.Now().Add(retryAfter)
	}
}

// retry tries again what failed.
func (l *loop) retry() {
	for number, b := range l.blocked {
		address, err := netip.ParseAddr(l.o.Settings.ServicePortAddress)
		if err != nil {
			continue
		}
		if process.Bindable(l.ctx, netip.AddrPortFrom(address, uint16(number))) == nil {
			l.log.Info("trying a service port again", "port", number, "service", b.service)
			delete(l.blocked, number)
		}
	}
	if len(l.blocked) > 0 {
		l.later()
	}
	if l.up {
		l.changed()
	} else {
		l.dirty = l.want.Table != nil
		if !l.o.Managed {
			l.attach()
		}
	}
}

// schedule says when the reload is due that there are reasons for.
func (l *loop) schedule() {
	if len(l.reasons) == 0 {
		l.reloadAt = time.Time{}
		return
	}
	now := time.Now()
	at := now.Add(gather)
	if !slices.ContainsFunc(l.reasons, func(r plan.Reason) bool { return !r.Deferred }) {
		at = now.Add(l.o.Patience)
	}
	if earliest := l.reloaded.Add(l.o.ReloadEvery); at.Before(earliest) {
		at = earliest
	}
	if l.reloadAt.IsZero() || at.Before(l.reloadAt) {
		l.reloadAt = at
	}
}

// startJob prepares files in the background.
func (l *loop) startJob(reload bool) {
	result := jobResult{
		reload: reload, reasons: l.reasons, orders: l.orders, wanted: l.want, external: l.external, generation: l.generation,
	}
	if reload || !l.up {
		result.generation = nextGeneration(l.generation)
	}
	l.orders, l.dirty = nil, false
	if !reload {
		l.external = false
	}
	base, files, generation := l.rendered, l.files, l.generation
	if !l.model {
		base = Wanted{} // the new files are compared with the old ones anyway
	}
	trusted, accepted := l.trusted(), l.accepted(reload)
	// What runs is right already: the files have only to catch up, beside everything else.
	follows := l.model && !reload && l.up && l.rendered.Table != nil
	spares := l.spares()
	done := make(chan jobResult, 1)
	l.job = done
	go func() {
		result.prepared, result.err = l.prepare(l.ctx, result.wanted, accepted, result.generation, trusted)
		if result.err == nil && result.external && !result.reload && base.Table != nil {
			result.differs, result.err = l.differs(base, files, generation)
		}
		if result.err == nil && follows {
			result.err = l.put(result.prepared, result.generation, spares)
			result.committed = result.err == nil
		}
		done <- result
	}()
}

// accepted is the table whose every backend HAProxy is known to accept; nil before a
// reload, and where the files are not of a structure that is known: then they are
// looked at as a whole.
func (l *loop) accepted(reload bool) *routing.Table {
	if reload || !l.model || l.external {
		return nil
	}
	return l.rendered.Table
}

// trusted says which of the services are as they are in the files in force.
func (l *loop) trusted() func(service string) bool {
	rendered, want := l.rendered, l.want
	if rendered.Table == nil {
		return func(string) bool { return false }
	}
	return func(service string) bool {
		has := slices.ContainsFunc(rendered.Table.Services, func(s *routing.Service) bool { return s.Name == service })
		return has && rendered.fingerprint(service) == want.fingerprint(service)
	}
}

// differs says in what the templates, settings and keys of now would write what HAProxy
// runs down otherwise than the files do that it has read; "" if in nothing.
func (l *loop) differs(base Wanted, files render.Files, generation string) (string, error) {
	settings := base.settings(l.o.Settings)
	settings.Generation = generation
	now, err := l.renderer.Render(l.ctx, base.Table, settings, base.Snapshot)
	if err != nil {
		return "", err
	}
	return render.Compare(files, now).Reload, nil
}

// nextGeneration numbers the files that HAProxy reads.
func nextGeneration(generation string) string {
	n, err := strconv.ParseUint(generation, 10, 63)
	if err != nil {
		n = 0
	}
	return strconv.FormatUint(n+1, 10)
}

// served notes that traffic follows what is wanted.
func (l *loop) served(operations int) {
	table, reason := l.want.Table, l.readFor
	l.readFor = ""
	e := Event{Kind: "applied", Revision: table.Revision, Operations: operations, Reason: reason}
	if table.Revision > l.observed && !table.At.IsZero() {
		l.observed = table.Revision
		latency := time.Since(table.At)
		e.Seconds = latency.Seconds()
		l.o.Observer.Applied(latency)
	}
	if operations == 0 && reason == "" {
		return
	}
	l.record(e)
	l.log.Info("applied", "revision", table.Revision, "operations", operations, "reload", reason, "milliseconds", int(e.Seconds*1000))
}

// complain reports an error once, until it is gone.
func (l *loop) complain(kind string, err error) {
	text := err.Error()
	if l.reported[text] {
		return
	}
	if len(l.reported) > 1000 {
		clear(l.reported)
	}
	l.reported[text] = true
	l.log.Error("HAProxy's configuration", "kind", kind, "error", err)
	l.record(Event{Kind: kind, Error: text})
}

func logReasons(reasons []plan.Reason) []string {
	texts := make([]string, len(reasons))
	for i, r := range reasons {
		texts[i] = r.String()
	}
	return texts
}
