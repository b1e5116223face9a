package consul

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/hashicorp/consul/api"
	"golang.org/x/time/rate"
)

const (
	// gather is how long changes are collected before they are published: Consul
	// wakes the polls that one change concerns within this time. The first change after
	// some quiet is published at once.
	gather = 2 * time.Millisecond
	quiet  = 20 * time.Millisecond
	// firstLimit is how long the first part waits for answers that do not come.
	firstLimit = 15 * time.Second
	pulseWait  = time.Minute
	// plainWait bounds queries that are not streamed over plain HTTP, because an agent counts
	// one that was given up until its end.
	plainWait  = 2 * time.Minute
	countEvery = 10 * time.Second

	probeEvery = 5 * time.Second
	probeAgain = time.Second
)

// session is unbroken contact with a datacenter, from reading the names of what
// it has to the first sign that something was missed. All its methods run in the
// goroutine of run; polls hand it functions.
type session struct {
	d      *datacenter
	ctx    context.Context
	cancel context.CancelFunc
	events chan func()
	err    error // why the session is over

	// why is the doubt about the first answers.
	why      doubt
	mode     mode
	checking bool
	// listed are the names that the pulse has: of services, by node of nodes.
	listed map[string]bool
	// size is how many services and nodes there are, as far as known. The pulse
	// has the one or the other; recount says that the other is due to be counted,
	// nextCount from when on.
	size      size
	recount   bool
	nextCount time.Time
	// nodesIndex is the newest that a list of nodes came with.
	nodesIndex uint64

	follow   *following
	leader   bool
	filtered bool // ACLs hide a part of the names
	settled  bool // everything has answered once
	started  time.Time
	flushAt  <-chan time.Time
	flushed  time.Time
	// failing are the polls and the reads besides them whose newest try failed, each
	// with how long it matters.
	failing map[any]context.Context
}

// following is what runs for one mode.
type following struct {
	ctx     context.Context
	cancel  context.CancelFunc
	scopes  map[scope]*followed
	waiting map[scope]bool // not answered yet
	trigger *trigger
}

// followed is a scope that is being followed.
type followed struct {
	scope  scope
	ctx    context.Context
	cancel context.CancelFunc
	index  uint64 // of the newest answer that was taken in
	reread bool   // a read besides the long-poll is under way
	again  bool   // and another is wanted after it
	fails  int

	// Of a node:
	node    *nodeView
	reader  *nodeReader
	awaited bool // the half that is wanted has a little time to come
	read    lacking
}

var (
	errTokenChanged = errors.New("the token changed")
	errIndexReset   = errors.New("the catalog's index went backwards: a snapshot was restored, or the servers lost their state")
)

// run follows the datacenter until contact breaks, and says why it did.
func (s *session) run(ctx context.Context) error {
	s.ctx, s.cancel = context.WithCancel(ctx)
	defer s.d.polls.Wait()
	defer s.cancel()
	s.events = make(chan func())
	s.failing = map[any]context.Context{}
	s.leader = true
	s.started = time.Now()
	_, tokenChanged := s.d.t.token.get()

	s.d.catalog.interrupt()
	if err := s.open(); err != nil {
		return err
	}
	s.probe()
	tick := time.NewTicker(s.d.tick)
	defer tick.Stop()
	for s.err == nil {
		select {
		case <-s.ctx.Done():
			return s.ctx.Err()
		case <-tokenChanged:
			return errTokenChanged
		case f := <-s.events:
			f()
		case host := <-s.d.resolvedHosts:
			s.d.catalog.resolved(host)
		case <-s.flushAt:
			s.flushAt = nil
			s.flush()
		case <-tick.C:
			s.tick()
		}
		if s.flushAt == nil && s.d.catalog.changed() && s.complete() {
			if time.Since(s.flushed) > quiet {
				s.flush()
			} else {
				s.flushAt = time.After(gather)
			}
		}
	}
	return s.err
}

// open reads the names of services and nodes, decides about the mode and starts
// it.
func (s *session) open() error {
	services, about, err := query(s.ctx, s.d.t, s.d.name, 0, 0, func(q *api.QueryOptions) (map[string][]string, error) {
		v, _, err := s.d.t.api.Catalog().Services(q)
		return v, err
	})
	if err != nil {
		return fmt.Errorf("read the services of datacenter %s: %w", s.d.name, err)
	}
	nodes, aboutNodes, err := s.d.nodes(s.ctx)
	if err != nil {
		return fmt.Errorf("read the nodes of datacenter %s: %w", s.d.name, err)
	}
	s.nodesIndex = aboutNodes.index
	s.d.reached()
	s.leader = !about.noLeader
	if s.d.t.plain() {
		s.d.lines.atMost(plainPolls)
	}
	if s.d.t.plain() {
		if err := s.d.learnStreaming(s.ctx); err != nil {
			return fmt.Errorf("read a service of datacenter %s: %w", s.d.name, err)
		}
	}
	s.filtered = about.filtered
	s.size = size{len(services), len(nodes)}
	s.begin(s.d.lines.choose(s.d.name, s.size, s.mode))
	return nil
}

// begin starts a mode, ending the one before. What is known stays; what the new
// mode's first answers lack is gone only if there is no doubt about them.
func (s *session) begin(m mode) {
	if s.follow != nil {
		s.follow.cancel()
		if s.settled {
			s.why = noDoubt
		}
	}
	if s.mode != m {
		s.d.log.Info("following the catalog", "datacenter", s.d.name, "mode", m.String(), "before", s.mode.String())
	}
	s.mode = m
	f := &following{scopes: map[scope]*followed{}, waiting: map[scope]bool{{kind: pulseScope}: true}}
	f.ctx, f.cancel = context.WithCancel(s.ctx)
	s.follow = f
	s.listed = nil
	switch m {
	case byService:
		s.followNames(f)
	case byNode:
		s.followNodes(f)
	default:
		s.followTriggers(f)
	}
	s.report()
}

// pulseScope stands for the list of names among the scopes that are waited for.
const pulseScope scopeKind = -1

// answered notes the first answer, or the first failure, of a scope.
func (s *session) answered(f *following, sc scope) {
	delete(f.waiting, sc)
	s.settle()
}

// settle notes when everything that was listed has answered, or has had its time.
func (s *session) settle() {
	if !s.settled && (len(s.follow.waiting) == 0 || time.Since(s.started) > firstLimit) {
		s.settled = true
		// What is reported as current must have been published.
		s.flush()
	}
}

// complete says whether a part made now is whole; one that takes the place of an
// older part is.
func (s *session) complete() bool { return s.settled || s.d.catalog.part != nil }

// list takes in the names of all services, or of all nodes: new ones are
// followed; those that are gone are asked for once more, and speak for
// themselves.
func (s *session) list(f *following, kind scopeKind, names map[string]bool, why doubt, follow func(*followed)) {
	if len(names) == 0 {
		// Every datacenter has at least its servers.
		why = filtered
	}
	now := s.d.now()
	s.listed = names
	for name := range names {
		sc := scope{kind, name}
		if f.scopes[sc] != nil || !askable(name) {
			continue
		}
		p := &followed{scope: sc}
		p.ctx, p.cancel = context.WithCancel(f.ctx)
		f.scopes[sc] = p
		f.waiting[sc] = true
		follow(p)
	}
	for sc, p := range f.scopes {
		if sc.kind == kind && !names[sc.name] {
			s.reread(f, p)
		}
	}
	for _, name := range s.d.catalog.names(kind) {
		if sc := (scope{kind, name}); !names[name] && f.scopes[sc] == nil {
			s.d.catalog.absent(sc, why, now)
		}
	}
	s.answered(f, scope{kind: pulseScope})
}

// take applies an answer and stops following a scope that nothing is left of.
func (s *session) take(f *following, p *followed, entries []entry, why doubt) {
	s.d.catalog.apply(p.scope, entries, why, s.d.now())
	s.answered(f, p.scope)
	if len(entries) == 0 && !s.listed[p.scope.name] {
		p.cancel()
		delete(f.scopes, p.scope)
	}
}

// reread reads a scope besides its long-poll.
func (s *session) reread(f *following, p *followed) {
	if p.reread {
		p.again = true
		return
	}
	p.reread, p.again = true, false
	if p.node != nil {
		p.read = p.node.lacks()
	}
	s.d.polls.Go(func() {
		if !s.d.acquire(p.ctx) {
			return
		}
		finish := s.readOnce(f, p)
		s.d.release()
		s.send(p.ctx, func() {
			p.reread = false
			finish()
			if p.again && p.ctx.Err() == nil {
				s.reread(f, p)
			}
		})
	})
}

// readOnce reads a scope without blocking; what it returns is to be run in the
// session.
func (s *session) readOnce(f *following, p *followed) func() {
	if p.scope.kind == ofNode {
		return s.readNode(f, p)
	}
	return s.readService(f, p)
}

// retry reads a scope again after a read besides its long-poll has failed.
func (s *session) retry(f *following, p *followed, err error) {
	s.failing[p] = p.ctx
	s.failed(err)
	p.fails++
	time.AfterFunc(backoff(p.fails, err), func() {
		s.send(p.ctx, func() { s.reread(f, p) })
	})
}

// failed notes an error that ends nothing by itself; if it is about contact, it
// is found out at once whether the datacenter still answers.
func (s *session) failed(err error) {
	s.d.failed(err)
	if refusal(err) {
		s.d.lines.refused()
		s.rechoose()
	}
	if broken(err) {
		s.check()
	}
	s.report()
}

// check ends the session if the datacenter does not answer, or answers from an
// older state than before.
func (s *session) check() {
	if s.checking {
		return
	}
	s.checking = true
	s.d.polls.Go(func() {
		_, about, err := s.d.nodes(s.ctx)
		s.send(s.ctx, func() {
			s.checking = false
			switch {
			case err != nil:
				s.err = err
			case about.index < s.nodesIndex:
				s.err = errIndexReset
			default:
				s.nodesIndex = about.index
			}
		})
	})
}

// send hands a function to the session, unless the context ends first.
func (s *session) send(ctx context.Context, f func()) {
	select {
	case s.events <- func() {
		if ctx.Err() == nil {
			f()
		}
	}:
	case <-ctx.Done():
	case <-s.ctx.Done():
	}
}

func (s *session) tick() {
	if s.leader {
		s.d.catalog.confirmed(s.d.now())
	} else {
		s.d.catalog.interrupt()
	}
	s.count()
	s.rechoose()
	s.d.resolver.keep(func(host string) bool { return s.d.catalog.atHost[host] != nil })
	s.settle()
	s.report()
}

// count finds out what the pulse does not say about the catalog's size.
func (s *session) count() {
	if !s.recount || !s.settled || s.d.now().Before(s.nextCount) {
		return
	}
	s.recount, s.nextCount = false, s.d.now().Add(countEvery)
	if s.mode == byNode {
		s.size.services = s.countServices()
		return
	}
	s.d.polls.Go(func() {
		nodes, about, err := s.d.nodes(s.ctx)
		s.send(s.ctx, func() {
			if err != nil {
				s.recount = true
				s.failed(err)
				return
			}
			s.size.nodes = len(nodes)
			s.nodesIndex = max(s.nodesIndex, about.index)
			s.rechoose()
		})
	})
}

// rechoose changes the mode if another has become the right one.
func (s *session) rechoose() {
	if s.listed == nil {
		return
	}
	if s.mode == byNode {
		s.size.nodes = len(s.listed)
	} else {
		s.size.services = len(s.listed)
		s.size.nodes = max(s.size.nodes, s.d.catalog.count(ofNode))
	}
	if m := s.d.lines.choose(s.d.name, s.size, s.mode); m != s.mode {
		s.begin(m)
	}
}

func (s *session) flush() {
	if part := s.d.catalog.flush(); part != nil {
		s.flushed = time.Now()
		s.d.sink.Publish(part)
	}
	s.report()
}

// unread is how many of the answers that make up the part cannot be had: the newest
// try failed.
func (s *session) unread() int {
	maps.DeleteFunc(s.failing, func(_ any, ctx context.Context) bool { return ctx.Err() != nil })
	return len(s.failing)
}

// probe asks every few seconds whether the datacenter has a leader: blocking
// queries, and streams most of all, may wait for ever on servers that are gone.
func (s *session) probe() {
	s.d.polls.Go(func() {
		fails, every := 0, probeEvery
		for pause(s.ctx, jitter(every)) {
			ctx, cancel := context.WithTimeout(s.ctx, probeTimeout)
			token, _ := s.d.t.token.get()
			leader, err := s.d.t.api.Status().LeaderWithQueryOptions(
				(&api.QueryOptions{Datacenter: s.d.name, Token: token}).WithContext(ctx))
			cancel()
			every = probeEvery
			if err != nil || leader == "" {
				every = probeAgain
			}
			if err != nil {
				fails++
			} else {
				fails = 0
			}
			// One that is lost is an accident; an answer that says no is not.
			over := fails > 1 || err != nil && errors.As(err, new(api.StatusError)) && broken(err)
			s.send(s.ctx, func() {
				switch {
				case over:
					s.err = fmt.Errorf("ask for the leader of datacenter %s: %w", s.d.name, err)
				case err != nil:
					s.d.failed(err)
				default:
					if leader == "" && s.leader {
						s.d.failed(fmt.Errorf("the Consul servers of datacenter %s have no leader", s.d.name))
					}
					s.leader = leader != ""
					if s.leader {
						s.d.reached()
					}
				}
				s.report()
			})
		}
	})
}

func (s *session) report() { s.d.report(s) }

// pollSpec is one long-poll.
type pollSpec struct {
	wait time.Duration
	pace *rate.Limiter
	// streamed says that the agent answers from a stream, and so notices when a
	// query is given up.
	streamed bool
	// fail is run in the session for an error.
	fail func(error)
}

// poll runs a long-poll until its context ends. Each answer is handed to the
// session with the doubt about what it lacks; after an error or an index that
// went backwards it begins anew.
func poll[T any](s *session, ctx context.Context, spec pollSpec, first doubt,
	read func(*api.QueryOptions) (T, error), take func(T, meta, doubt)) {
	s.d.polls.Go(func() {
		// last is the index of the newest answer, ask the one to wait for a change of.
		var last, ask uint64
		fails, why := 0, first
		for spec.pace.Wait(ctx) == nil {
			began := s.d.now()
			value, about, err := query(ctx, s.d.t, s.d.name, ask, spec.wait, read)
			if ctx.Err() != nil {
				if ask > 0 && !spec.streamed && s.d.t.plain() {
					s.d.lines.linger(began.Add(spec.wait * 17 / 16))
				}
				return
			}
			if err != nil {
				fails++
				last, ask, why = 0, 0, afterError
				s.send(ctx, func() {
					s.failing[&spec] = ctx
					spec.fail(err)
				})
				if !pause(ctx, backoff(fails, err)) {
					return
				}
				continue
			}
			fails = 0
			believe := why
			if believe == noDoubt {
				believe = about.doubt()
			}
			why = noDoubt
			switch {
			case about.index < last:
				// What this answer was computed from may be as odd as its index: ask
				// anew, and doubt that answer too.
				about.reset, believe, why = true, afterReset, afterReset
				last, ask = 0, 0
			case about.index == last && ask > 0:
				// Woken, or timed out, without news. Consul answers so, with the old
				// index, when its state has just been replaced by a snapshot; what the
				// index is now, only a query that does not wait will say.
				ask = 0
			default:
				last = max(1, about.index)
				ask = last
			}
			s.send(ctx, func() {
				delete(s.failing, &spec)
				take(value, about, believe)
			})
		}
	})
}

// perScope lets a scope's long-poll answer at once, and often, but not
// endlessly: what goes on changing faster is published this many times a second.
func perScope() *rate.Limiter { return rate.NewLimiter(40, 20) }
