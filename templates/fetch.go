package templates

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	dep "github.com/hashicorp/consul-template/dependency"
	ct "github.com/hashicorp/consul-template/template"
)

const (
	// wait bounds one blocking query. It is also how long one that nobody needs any
	// more can linger: consul-template's clients cannot be interrupted.
	wait = time.Minute
	// pace is the least time between two answers of one query, as in consul-template.
	pace = 100 * time.Millisecond
	// maxStale is how old an answer of a server that is not the leader may be.
	maxStale = 10 * time.Second
	// slowest is the longest pause after an error.
	slowest = 30 * time.Second
)

// fetcher keeps dependencies fresh with consul-template's clients, and the brain
// told. The last value stays when a query fails.
type fetcher struct {
	clients clients
	brain   *ct.Brain
	logger  *slog.Logger
	changed chan struct{}
	// asked receives after a new dependency.
	asked chan struct{}

	mu      sync.Mutex
	watched map[string]*watched
}

// watched is one dependency that is kept fresh.
type watched struct {
	dependency dep.Dependency
	started    bool
	// stopped is closed when nobody needs it any more.
	stopped chan struct{}
	known   bool
	value   any
	// reason says why it is not known.
	reason string
}

func newFetcher(c clients, brain *ct.Brain, logger *slog.Logger) *fetcher {
	return &fetcher{
		clients: c,
		brain:   brain,
		logger:  logger,
		changed: make(chan struct{}, 1),
		asked:   make(chan struct{}, 1),
		watched: map[string]*watched{},
	}
}

// want has the dependency fetched from now on, and says why it is not there. It
// is answered if it has been in the meantime.
func (f *fetcher) want(d dep.Dependency) (reason string, answered bool) {
	if reason := f.clients.lack(d); reason != "" {
		return reason, false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	w, ok := f.watched[d.String()]
	if !ok {
		w = &watched{dependency: d, stopped: make(chan struct{}), reason: "is not there yet"}
		f.watched[d.String()] = w
		signal(f.asked)
	}
	if !w.known {
		return w.reason, false
	}
	if _, told := f.brain.Recall(d); told {
		return "is empty", false // safeLs and safeTree take an empty answer for a missing one
	}
	f.brain.Remember(d, w.value)
	return "", true
}

// retain ends the queries for all but the live.
func (f *fetcher) retain(live map[string]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, w := range f.watched {
		if !live[name] {
			close(w.stopped)
			f.brain.Forget(w.dependency)
			delete(f.watched, name)
		}
	}
}

// run fetches what is wanted until the context ends.
func (f *fetcher) run(ctx context.Context) {
	var queries sync.WaitGroup
	defer queries.Wait()
	for {
		f.mu.Lock()
		for name, w := range f.watched {
			if w.started {
				continue
			}
			w.started = true
			queries.Go(func() { f.keep(ctx, name, w) })
		}
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-f.asked:
		}
	}
}

// fetched is the outcome of one query.
type fetched struct {
	value any
	meta  *dep.ResponseMetadata
	err   error
}

// keep queries one dependency until the context ends or nobody needs it.
func (f *fetcher) keep(ctx context.Context, name string, w *watched) {
	defer w.dependency.Stop()
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 250*time.Millisecond, slowest
	var index uint64
	stale := true
	for {
		began := time.Now()
		outcome := make(chan fetched, 1)
		go func() {
			value, meta, err := w.dependency.Fetch(f.clients.set, &dep.QueryOptions{
				AllowStale: stale, WaitIndex: index, WaitTime: wait,
			})
			outcome <- fetched{value, meta, err}
		}()
		var got fetched
		select {
		case <-ctx.Done():
			return
		case <-w.stopped:
			return
		case got = <-outcome:
		}
		rest := time.Duration(0)
		switch {
		case errors.Is(got.err, dep.ErrStopped):
			return
		case got.err != nil:
			f.failed(name, w, got.err)
			index, rest = 0, pause.NextBackOff()
		case stale && got.meta.LastContact > maxStale:
			stale = false
			continue
		default:
			pause.Reset()
			stale = true
			if got.meta.LastIndex < index {
				index = 0 // Consul's index went backwards: what it said before means nothing
			} else {
				index = got.meta.LastIndex
			}
			f.received(w, got)
			rest = pace - time.Since(began) + rand.N(pace/5)
		}
		select {
		case <-ctx.Done():
			return
		case <-w.stopped:
			return
		case <-time.After(rest):
		}
	}
}

func (f *fetcher) received(w *watched, got fetched) {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-w.stopped:
		return
	default:
	}
	if got.value == nil && got.meta.BlockOnNil {
		// A key that was there and is gone keeps its last value, as in consul-template.
		w.reason = "is not there yet"
		return
	}
	if w.known && reflect.DeepEqual(w.value, got.value) {
		return
	}
	w.known, w.value = true, got.value
	f.brain.Remember(w.dependency, got.value)
	signal(f.changed)
}

func (f *fetcher) failed(name string, w *watched, err error) {
	f.mu.Lock()
	known := w.known
	w.reason = fmt.Sprintf("cannot be read: %v", err)
	f.mu.Unlock()
	if !known {
		signal(f.changed) // whoever waits for it learns the reason
	}
	f.logger.Warn("template data cannot be read", "dependency", name, "keptLast", known, "error", err)
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
