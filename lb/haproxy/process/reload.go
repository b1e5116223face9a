package process

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mi-lb/mi-lb/lb/haproxy/runtime"
)

const (
	// attempts is how often a reload is asked for whose request was lost.
	attempts = 4
	// deafAfter is how long a master that lives may answer nobody. One of 2.6 that was
	// told to start itself anew while it was doing so can stop to listen for good;
	// starting itself anew once more cures it.
	deafAfter = 3 * time.Second
	// lostAfter is how long a master that answers may show no trace of a reload
	// before its request counts as lost.
	lostAfter = time.Second
)

// Request is what a reload is for.
type Request struct {
	// Reason is for the log.
	Reason string
	// Generation, unless empty, is what the new worker must give as its description
	// (`description` in the section global): proof that it read the files as they
	// are now, and not an earlier version for somebody else's reload.
	Generation string
}

// Reload makes HAProxy read its files anew. A new worker takes the listeners over;
// the old one finishes what it has. It returns when the new worker answers on the
// runtime socket. If the master refuses, the old worker serves on and the error is a
// [*FailedError] with HAProxy's alerts, as far as they can be known.
//
// It first waits for what the policy asks for, and for a reload that is under way,
// be it somebody else's: never are two. A request that the master lost is repeated.
//
// Whether the files are valid should be known before ([Validate]), and also whether
// every new port can be bound ([Bindable]): a master before 3.0 pauses the listeners
// it has while it tries, for seconds.
func (p *Process) Reload(ctx context.Context, req Request) (State, error) {
	if err := p.take(ctx); err != nil {
		return State{}, err
	}
	defer p.release()
	if err := p.allowed(ctx, req); err != nil {
		return State{}, fmt.Errorf("reload HAProxy for %s: %w", req.Reason, err)
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Policy.ReloadTimeout)
	defer cancel()
	begin := time.Now()
	p.mu.Lock()
	m := p.running
	p.reloadedAt = begin
	p.mu.Unlock()
	if m == nil {
		return State{}, fmt.Errorf("reload HAProxy for %s: %w", req.Reason, ErrNotRunning)
	}
	for attempt := 1; attempt <= attempts; attempt++ {
		state, err := p.reload(ctx, m, req)
		switch {
		case err == nil:
			p.keep(m, state)
			p.log.Info("reloaded HAProxy", "reason", req.Reason, "worker", state.Worker, "old_workers", len(state.Old), "attempts", attempt, "milliseconds", time.Since(begin).Milliseconds())
			p.tell(Event{Cause: Reloaded, State: state})
			return state, nil
		case !errors.Is(err, errLost):
			return State{}, fmt.Errorf("reload HAProxy for %s: %w", req.Reason, err)
		}
		p.log.Warn("HAProxy's master lost a reload: asking again", "reason", req.Reason, "attempt", attempt, "detail", err.Error())
	}
	return State{}, fmt.Errorf("reload HAProxy for %s: %w, %d times", req.Reason, errLost, attempts)
}

// allowed waits until the policy permits a reload.
func (p *Process) allowed(ctx context.Context, req Request) error {
	p.mu.Lock()
	pause := time.Until(p.reloadedAt.Add(p.cfg.Policy.MinInterval))
	p.mu.Unlock()
	if err := sleep(ctx, pause); err != nil {
		return err
	}
	limit := p.cfg.Policy.MaxOldWorkers
	if limit <= 0 {
		return nil
	}
	for deadline := time.Now().Add(p.cfg.Policy.OldWorkerWait); ; {
		state, err := p.State(ctx)
		if err != nil {
			return err
		}
		if len(state.Old) < limit {
			return nil
		}
		if !time.Now().Before(deadline) {
			p.log.Warn("reloading HAProxy although its old workers linger", "reason", req.Reason, "old_workers", len(state.Old), "limit", limit)
			return nil
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var (
	errLost    = errors.New("the master lost the request")
	errRefused = errors.New("HAProxy refused its new configuration; the old one serves on")
)

// reload asks once and finds out what became of it.
func (p *Process) reload(ctx context.Context, m *master, req Request) (State, error) {
	// Somebody's reload that is under way ends first: the master answers no question
	// before it has, and the worker not before it serves.
	cure := p.cure(m)
	if _, err := p.await(ctx, m, func(State) bool { return true }, cure); err != nil {
		return State{}, err
	}
	before, err := p.processes(ctx)
	if err != nil {
		return State{}, err
	}
	mark := p.output.Mark()
	// The answer, of those that give one, is waited for beside the signs of a reload: a
	// master before 2.7 may take the connection along and never close it.
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	replies := make(chan runtime.ReloadReply, 1)
	failures := make(chan error, 1)
	asked := time.Now()
	go func() {
		if reply, err := p.master.Reload(asking); err != nil {
			failures <- err
		} else {
			replies <- reply
		}
	}()
	var reply runtime.ReloadReply
	for {
		procs, err := p.processes(ctx)
		cure(err)
		switch {
		case err != nil:
			// It is in the middle of starting itself anew, or has ended.
		case procs.Reloads != before.Reloads && procs.Failed > before.Failed:
			// From 3.1 on only the first of several that fail is counted; the others are
			// known by the answer.
			return State{}, p.refused(ctx, mark, reply)
		case procs.Worker() != 0 && procs.Worker() != before.Worker():
			state, err := p.await(ctx, m, func(State) bool { return true }, cure)
			if err != nil {
				return State{}, err
			}
			if req.Generation != "" && state.Description != req.Generation {
				return State{}, fmt.Errorf("%w: the new worker %d runs generation %q, not %q", errLost, state.Worker, state.Description, req.Generation)
			}
			return state, nil
		case procs.Reloads == before.Reloads && time.Since(asked) > lostAfter:
			return State{}, errLost
		}
		select {
		case reply = <-replies:
			if reply.Answered && !reply.Success {
				return State{}, p.refused(ctx, mark, reply)
			}
		case err := <-failures:
			return State{}, err
		case <-m.gone:
			return State{}, errEnded
		case <-ctx.Done():
			return State{}, fmt.Errorf("what became of it is not known: %w", errors.Join(ctx.Err(), err))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// cure gives back what is to be told of every question to the master: it makes one
// that has been deaf for too long start itself anew.
func (p *Process) cure(m *master) func(error) {
	answered := time.Now()
	return func(err error) {
		if err == nil {
			answered = time.Now()
			return
		}
		if time.Since(answered) > deafAfter {
			p.log.Warn("HAProxy's master answers nobody: telling it to start itself anew", "master", m.pid, "error", err)
			_ = m.signal(unix.SIGUSR2)
			answered = time.Now()
		}
	}
}

// refused finds HAProxy's reason: in the master's answer, in what it printed, or by
// asking for a validation.
func (p *Process) refused(ctx context.Context, mark int, reply runtime.ReloadReply) error {
	found := alerts(messages(reply.Log))
	if len(found) == 0 {
		found = alerts(p.output.Since(ctx, mark))
	}
	if len(found) == 0 && len(p.cfg.Files) > 0 {
		if v, err := Validate(ctx, p.cfg.Path, p.cfg.Files...); err == nil && !v.Valid {
			found = alerts(v.Messages)
		}
	}
	if len(found) == 0 {
		return fmt.Errorf("%w; see HAProxy's own log for the reason", errRefused)
	}
	return &FailedError{Err: errRefused, Alerts: found}
}
