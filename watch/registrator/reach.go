package registrator

import (
	"context"
	"fmt"
	"time"
)

// What follows is how the agent is read, and how it is noticed that it restarted
// or is out of reach. All of it belongs to Run's goroutine.

const (
	rewatchSoon  = 200 * time.Millisecond
	rewatchLater = time.Minute
)

// watch begins to watch one of our services, if none is being watched.
func (r *Registrator) watch(ctx context.Context, now time.Time, watches chan<- error) {
	if r.watched != "" || r.reach != nil || r.actual == nil || now.Before(r.rewatch) {
		return
	}
	for id, s := range r.actual.Services {
		m, ok := parseMark(s.Meta[markKey])
		if ok && m.host == r.options.Policy.Host && (r.watched == "" || id < r.watched) {
			r.watched = id
		}
	}
	if id := r.watched; id != "" {
		go func() { watches <- r.options.Agent.Watch(ctx, id) }()
	}
}

// unwatched takes in that the watch ended: the service changed, which may have
// been us, or the agent does not answer, or it refuses.
func (r *Registrator) unwatched(err error) {
	r.watched = ""
	if err != nil && answered(err) {
		r.rewatch = time.Now().Add(rewatchLater)
		return
	}
	r.rewatch = time.Now().Add(rewatchSoon)
	r.nextRead = time.Now()
}

// read asks the agent what it has.
func (r *Registrator) read(ctx context.Context, reads chan<- readOutcome) {
	r.reading = true
	clear(r.written)
	for id := range r.inflight {
		r.written[id] = true
	}
	go func() {
		actual, err := r.options.Agent.Read(ctx)
		reads <- readOutcome{actual, err}
	}()
}

// received takes in what the agent has.
func (r *Registrator) received(in readOutcome) error {
	r.reading = false
	if in.err != nil {
		r.unreachable(in.err)
		if !r.everRead && r.options.RetryAttempts >= 0 && r.reads > r.options.RetryAttempts {
			return fmt.Errorf("the Consul agent at %s was not reached in %d attempts (-retry-attempts): %w", r.options.Agent, r.reads, in.err)
		}
		return nil
	}
	if r.reach != nil {
		r.log.Info("the Consul agent answers", "agent", r.options.Agent.String(), "services", len(in.actual.Services))
		r.settled() // how long the agent was away says nothing about registrator
	}
	r.reach, r.reads, r.everRead = nil, 0, true
	r.nextRead = time.Now().Add(r.options.Resync)
	r.metrics.consulUp.Set(1)
	if r.actual != nil {
		for id := range r.written {
			if was, had := r.actual.Services[id]; had {
				in.actual.Services[id] = was
			} else {
				delete(in.actual.Services, id)
			}
		}
	}
	r.actual = in.actual
	return nil
}

// unreachable notes that the agent does not answer, and plans the next try.
func (r *Registrator) unreachable(err error) {
	if r.reach == nil || !r.everRead && r.reads == 0 {
		message := "the Consul agent does not answer; what has to be done is done when it does"
		if answered(err) {
			message = "the Consul agent does not say what it has; what has to be done is done when it does"
		}
		r.log.Warn(message, "agent", r.options.Agent.String(), "error", err, "hint", hint(err))
	}
	r.reach = err
	r.metrics.consulUp.Set(0)
	delay := min(readRetryFirst<<min(r.reads, 8), readRetryMost)
	if !r.everRead && r.options.RetryAttempts >= 0 {
		delay = r.options.RetryInterval
	}
	r.reads++
	r.nextRead = time.Now().Add(delay)
}
