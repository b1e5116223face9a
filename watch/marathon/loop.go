package marathon

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/mi-lb/mi-lb/watch"
	"golang.org/x/time/rate"
)

// loop is the one goroutine that owns the view: it takes in events and answers,
// starts reads when they are due, publishes and reports. It never waits for the
// network.
type loop struct {
	w     *Watcher
	inbox *inbox
	sink  watch.Sink
	view  *view

	results chan reading
	reading sync.WaitGroup
	number  uint64

	// dueAll is when to read everything, zero for no plan; allStarted is when the
	// read under way began, zero for none. Both are set where another read must
	// follow the one under way.
	dueAll     time.Time
	allStarted time.Time
	allFailed  int
	lastAll    time.Time
	listTook   time.Duration
	// due are the apps to read one by one, and when. An app that is being read
	// has an entry in started.
	due       map[string]time.Time
	started   map[string]time.Time
	appFailed map[string]int
	lastRead  map[string]time.Time
	limit     *rate.Limiter

	// suspect says that there was trouble since the newest list that was
	// believed; confirming that the newest list was held back.
	suspect    bool
	confirming bool
	leader     string

	streamUp  bool
	streamErr error
	member    string
	about     Info

	published time.Time
	// sweepAt is when the next task that has ended goes; zero for none.
	sweepAt  time.Time
	state    watch.State
	reported watch.State
	answered bool
}

const (
	// betweenParts bounds the work of a burst: the first change is published at
	// once, the next ones together.
	betweenParts = 5 * time.Millisecond
	// betweenReads is the least time between two reads of one app, and
	// betweenLists between two of everything.
	betweenReads = 100 * time.Millisecond
	betweenLists = time.Second
	// shareOfLists is for how many times as long as reading everything takes it is left
	// alone, where that is more than the usual time.
	shareOfLists = 50
	// mostReads is how many apps are read at once, and mostDue how many may
	// wait until reading everything is cheaper.
	mostReads = 4
	mostDue   = 32
	// readsPerSecond bounds the load on Marathon.
	readsPerSecond = 50
)

func newLoop(w *Watcher, inbox *inbox, sink watch.Sink) *loop {
	now := time.Now()
	l := &loop{
		w: w, inbox: inbox, sink: sink,
		view:    newView(w.source, w.config.Datacenter, w.config.Saved, w.config.Intervals.Linger),
		results: make(chan reading),
		due:     map[string]time.Time{}, started: map[string]time.Time{},
		appFailed: map[string]int{}, lastRead: map[string]time.Time{},
		limit:   rate.NewLimiter(readsPerSecond, readsPerSecond),
		suspect: true,
		dueAll:  now,
	}
	l.state = watch.State{Source: w.source, Status: watch.Connecting, Since: now, Detail: "no event stream yet"}
	return l
}

func (l *loop) run(ctx context.Context) {
	defer l.reading.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := time.Now()
		l.startReads(ctx, now)
		l.sweepAt = l.view.sweep(now)
		l.publish(now)
		l.report(now)
		timer.Reset(max(0, l.next(now).Sub(now)))
		select {
		case <-ctx.Done():
			return
		case <-l.inbox.wake:
		case r := <-l.results:
			l.take(r, time.Now())
		case <-timer.C:
		}
		l.open(ctx, l.inbox.takeOut(), time.Now())
	}
}

// next is when something is due although nothing happens.
func (l *loop) next(now time.Time) time.Time {
	next := now.Add(10 * time.Second)
	sooner := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	if !l.dueAll.IsZero() && l.allStarted.IsZero() {
		sooner(l.dueAll)
	}
	for id, at := range l.due {
		if _, running := l.started[id]; !running && len(l.started) < mostReads {
			sooner(at)
		}
	}
	if l.view.changed {
		sooner(l.published.Add(betweenParts))
	}
	if !l.sweepAt.IsZero() {
		sooner(l.sweepAt)
	}
	for _, at := range l.slowAt() {
		if at.After(now) {
			sooner(at)
		}
	}
	return next
}

// slowAt is when each running read begins to count as slow.
func (l *loop) slowAt() []time.Time {
	var all []time.Time
	if !l.allStarted.IsZero() {
		all = append(all, l.allStarted.Add(l.slowList()))
	}
	for _, at := range l.started {
		all = append(all, at.Add(l.w.config.Intervals.Slow))
	}
	return all
}

// slowList is how long a list may take before it counts as slow: longer where a
// list of that cluster is known to take its time, so that asking a second time
// does not add to the load of a Marathon that is merely big.
func (l *loop) slowList() time.Duration {
	return max(l.w.config.Intervals.Slow, 2*l.listTook)
}

// open takes in what the event stream left.
func (l *loop) open(ctx context.Context, m mail, now time.Time) {
	if m.stream != nil {
		l.streamChanged(ctx, *m.stream, now)
	}
	if m.about != nil {
		l.about = *m.about
		l.leaderIs(m.about.Leader)
	}
	if !m.heard.IsZero() && l.state.Status == watch.Current {
		l.state.LastSuccess = m.heard
	}
	for _, change := range m.changes {
		l.view.hear(change, now)
	}
	if m.everything {
		l.readAll(now)
	}
	for id := range m.refresh {
		l.readOne(id, now)
	}
	if l.waiting(now) > mostDue {
		l.readAll(now)
	}
}

// waiting counts the apps whose read is due.
func (l *loop) waiting(now time.Time) int {
	n := 0
	for _, at := range l.due {
		if at.Sub(now) < betweenReads {
			n++
		}
	}
	return n
}

func (l *loop) streamChanged(ctx context.Context, s streamNews, now time.Time) {
	if s.up || l.streamUp {
		// What was lost, or who leads now, only the next list can tell.
		l.trouble()
	}
	if l.streamUp && !s.up {
		l.readAll(now)
	}
	if s.up && !l.dueAll.IsZero() {
		// It answers: no reason to wait for a retry any longer.
		l.dueAll = now
	}
	l.streamUp, l.streamErr, l.member = s.up, s.err, s.member
	if s.err != nil {
		l.failed(s.err, now)
		if l.dueAll.After(now.Add(l.w.config.Intervals.Poll)) {
			l.dueAll = now.Add(l.w.config.Intervals.Poll)
		}
		return
	}
	l.reading.Add(1)
	go func() {
		defer l.reading.Done()
		info, err := l.w.client.Info(ctx)
		if err != nil {
			l.w.log.Debug("version and leader not known", "error", err)
			return
		}
		l.w.log.Info("connected to Marathon", "version", info.Version, "leader", info.Leader, "member", s.member)
		l.inbox.put(func(m *mail) { m.about = &info })
	}()
}

// trouble makes the next list one that is not believed if it is much smaller.
func (l *loop) trouble() { l.suspect, l.confirming = true, false }

func (l *loop) leaderIs(leader string) {
	if leader == "" || leader == l.leader {
		return
	}
	if l.leader != "" {
		l.w.log.Info("Marathon has another leader", "leader", leader, "before", l.leader)
		l.trouble()
	}
	l.leader = leader
}

// readAll asks for a read of everything as soon as that may be. One that is
// under way may have missed what is asked for, so another one follows.
func (l *loop) readAll(now time.Time) {
	at := now
	if soonest := l.lastAll.Add(betweenLists); at.Before(soonest) {
		at = soonest
	}
	if l.allFailed > 0 && !l.dueAll.IsZero() {
		return // its retry is already due
	}
	if l.dueAll.IsZero() || at.Before(l.dueAll) {
		l.dueAll = at
	}
}

func (l *loop) readOne(id string, now time.Time) {
	at := now
	if soonest := l.lastRead[id].Add(betweenReads); at.Before(soonest) {
		at = soonest
	}
	if l.appFailed[id] > 0 {
		return // its retry is already due
	}
	if was, ok := l.due[id]; !ok || at.Before(was) {
		l.due[id] = at
	}
}

func (l *loop) startReads(ctx context.Context, now time.Time) {
	if l.allStarted.IsZero() && !l.dueAll.IsZero() && !now.Before(l.dueAll) {
		l.allStarted, l.lastAll, l.dueAll = now, now, time.Time{}
		// Whatever was due for single apps is part of it.
		clear(l.due)
		clear(l.appFailed)
		clear(l.lastRead)
		l.start(ctx, "")
	}
	for id, at := range l.due {
		if len(l.started) >= mostReads {
			return
		}
		if _, running := l.started[id]; running || now.Before(at) {
			continue
		}
		if !l.limit.AllowN(now, 1) {
			l.due[id] = now.Add(time.Second / readsPerSecond)
			continue
		}
		delete(l.due, id)
		l.started[id], l.lastRead[id] = now, now
		l.start(ctx, id)
	}
}

func (l *loop) start(ctx context.Context, app string) {
	l.number++
	r := reading{number: l.number, app: app, slow: l.w.config.Intervals.Slow}
	if app == "" {
		r.slow = l.slowList()
	}
	l.reading.Add(1)
	go func() {
		defer l.reading.Done()
		r := l.w.read(ctx, r)
		select {
		case l.results <- r:
		case <-ctx.Done():
		}
	}()
}

// take takes in what a read brought.
func (l *loop) take(r reading, now time.Time) {
	l.leaderIs(r.leader)
	if r.app != "" {
		delete(l.started, r.app)
		l.takeOne(r, now)
		return
	}
	took := now.Sub(l.allStarted)
	l.allStarted = time.Time{}
	if r.err != nil {
		l.allFailed++
		l.failed(fmt.Errorf("reading the apps: %w", r.err), now)
		l.trouble()
		l.dueAll = now.Add(backoff(l.allFailed, l.w.config.Intervals.Retry, l.w.config.Intervals.RetryMost))
		return
	}
	l.allFailed, l.listTook = 0, took
	l.succeeded(now)
	hold := l.suspect && !l.confirming && l.view.shrunk(r.list)
	again := l.view.all(r.list, hold, now)
	l.scheduleAll(now)
	if hold {
		l.confirming = true
		l.dueAll = now.Add(l.w.config.Intervals.Confirm)
		l.w.log.Warn("the list of apps shrank right after trouble; held back until a second read says the same", "tasks", l.view.heldTasks())
	} else {
		l.suspect, l.confirming = false, false
	}
	for id, at := range again {
		if was, ok := l.due[id]; !ok || at.Before(was) {
			l.due[id] = at
		}
	}
}

// scheduleAll plans the next read of everything, unless one is due already.
func (l *loop) scheduleAll(now time.Time) {
	if !l.dueAll.IsZero() {
		return
	}
	every := l.w.config.Intervals.Poll
	if l.streamUp {
		every = max(l.w.config.Intervals.Resync, shareOfLists*l.listTook)
		every += time.Duration((rand.Float64() - 0.5) * 0.4 * float64(every))
	}
	l.dueAll = now.Add(every)
}

func (l *loop) takeOne(r reading, now time.Time) {
	id := r.app
	switch {
	case noSuchApp(r.err) && l.suspect:
		// Right after trouble the list must say so as well.
		delete(l.appFailed, id)
		if l.view.apps[id] != nil && !l.confirming {
			l.readAll(now)
		}
	case noSuchApp(r.err):
		l.succeeded(now)
		delete(l.appFailed, id)
		l.view.none(r.number, id)
	case r.err != nil:
		l.failed(fmt.Errorf("reading %s: %w", id, r.err), now)
		l.suspect = true
		l.appFailed[id]++
		if l.appFailed[id] > 1 {
			// Marathon may have trouble with this app only; the list has it too.
			delete(l.appFailed, id)
			l.readAll(now)
			return
		}
		l.due[id] = now.Add(backoff(l.appFailed[id], l.w.config.Intervals.Retry, l.w.config.Intervals.RetryMost))
	case r.doc.app.ID != id:
		delete(l.appFailed, id)
		l.readAll(now)
	case l.suspect && l.empties(r.doc):
		delete(l.appFailed, id)
		if !l.confirming {
			l.readAll(now)
		}
	default:
		l.succeeded(now)
		delete(l.appFailed, id)
		if at := l.view.one(r.number, r.doc, r.agents, now); !at.IsZero() {
			if was, ok := l.due[id]; !ok || at.Before(was) {
				l.due[id] = at
			}
		}
	}
}

// empties says whether the document takes all of an app's tasks away.
func (l *loop) empties(d *document) bool {
	app := l.view.apps[d.app.ID]
	if app == nil || !d.tasksKnown {
		return false
	}
	tasks := notEnded(app)
	return len(tasks) > 0 && !slices.ContainsFunc(tasks, func(t watch.Task) bool { return d.lists(t.ID) })
}

func (l *loop) failed(err error, now time.Time) {
	l.state.LastError, l.state.LastErrorAt = watch.Printable(err.Error()), now
	l.w.log.Debug("trouble with Marathon", "error", err)
}

func (l *loop) succeeded(now time.Time) {
	l.state.LastSuccess = now
}
