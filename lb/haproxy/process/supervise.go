package process

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sys/unix"
)

// lookEvery is how often the master is asked which worker it has. Its end is noticed
// at once, without asking.
const lookEvery = time.Second

// steady is how long HAProxy must have served for its next end to count as the first.
const steady = 10 * time.Second

// Supervise keeps HAProxy running until the context ends; it then leaves it running.
// It needs [Process.Start] or [Process.Adopt] to have succeeded. A managed HAProxy
// that has ended, or has lost its worker, is started again, at once and then with
// growing pauses; for one that is attached it waits until it is there again. Each is
// told by an [Event], and so is a reload by somebody else.
func (p *Process) Supervise(ctx context.Context) error {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval = 50 * time.Millisecond
	pauses.MaxInterval = p.cfg.Policy.RestartMax
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	up := time.Now()
	for {
		p.mu.Lock()
		m, state := p.running, p.state
		p.mu.Unlock()
		if m == nil {
			return fmt.Errorf("supervise HAProxy: %w", ErrNotRunning)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
			p.look(ctx, m)
		case <-m.gone:
			p.mu.Lock()
			stopped := p.stopped
			p.mu.Unlock()
			if stopped {
				return nil
			}
			p.log.Error("HAProxy has ended", "master", state.Master, "worker", state.Worker, "managed", p.cfg.Managed)
			p.tell(Event{Cause: Lost, State: state})
			if time.Since(up) > steady {
				pauses.Reset()
			}
			if !p.again(ctx, pauses) {
				return nil
			}
			up = time.Now()
		}
	}
}

// again brings HAProxy back, and is false if the context ended or it was stopped
// meanwhile.
func (p *Process) again(ctx context.Context, pauses *backoff.ExponentialBackOff) bool {
	for {
		state, err := p.bringBack(ctx)
		switch {
		case errors.Is(err, errStopped):
			return false
		case err == nil:
			cause := Restarted
			if !p.cfg.Managed {
				cause = Foreign
			}
			p.log.Info("HAProxy serves again", "cause", string(cause), "master", state.Master, "worker", state.Worker)
			p.tell(Event{Cause: cause, State: state})
			return true
		case ctx.Err() != nil:
			return false
		}
		pause := 100 * time.Millisecond
		if p.cfg.Managed {
			pause = pauses.NextBackOff()
			p.log.Error("HAProxy does not start", "error", err, "again_in", pause)
			p.tell(Event{Cause: Lost, State: p.Last(), Err: err})
		}
		if sleep(ctx, pause) != nil {
			return false
		}
	}
}

var errStopped = errors.New("HAProxy was stopped")

func (p *Process) bringBack(ctx context.Context) (State, error) {
	if err := p.take(ctx); err != nil {
		return State{}, err
	}
	defer p.release()
	p.mu.Lock()
	stopped := p.stopped
	p.mu.Unlock()
	if stopped {
		return State{}, errStopped
	}
	if p.cfg.Managed {
		return p.start(ctx)
	}
	return p.adopt(ctx)
}

// look finds out whether somebody else reloaded HAProxy, or its worker is gone with
// the master still there.
func (p *Process) look(ctx context.Context, m *master) {
	select {
	case p.turn <- struct{}{}:
		defer p.release()
	default:
		return // it is being changed right now, by us
	}
	ctx, cancel := context.WithTimeout(ctx, lookEvery)
	defer cancel()
	state, err := p.State(ctx)
	if err != nil {
		return // its end shows otherwise, and a master that is busy answers later
	}
	last := p.Last()
	switch {
	case state.Worker == 0 && p.cfg.Managed && len(state.Old) == 0:
		// A master told to stay although its worker failed; without one it is of no
		// use. Its end leads to a new start.
		p.log.Error("HAProxy's master has no worker: ending it", "master", state.Master)
		_ = m.signal(unix.SIGTERM)
	case state.Worker != 0 && state.Worker != last.Worker:
		serving, err := p.serving(ctx, m, func(s State) bool { return s.Worker == state.Worker })
		if err != nil {
			return
		}
		p.keep(m, serving)
		p.log.Warn("somebody else reloaded HAProxy", "worker", serving.Worker)
		p.tell(Event{Cause: Foreign, State: serving})
	default:
		state.Description = last.Description
		state.MaxConn, state.Descriptors, state.MostSockets = last.MaxConn, last.Descriptors, last.MostSockets
		p.keep(m, state)
	}
}
