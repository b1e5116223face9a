package marathon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"time"
)

// stream keeps one event stream open and leaves what it hears in an inbox.
type stream struct {
	api       *api
	inbox     *inbox
	log       *slog.Logger
	intervals Intervals
}

// mostEvent bounds a single event; plans of deployments have been seen with
// 7.5 MB.
const mostEvent = 64 << 20

// connectWithin is how long a member may take to begin the stream. During an
// election it holds requests back for 2.5 s.
const connectWithin = 8 * time.Second

func (s *stream) run(ctx context.Context) {
	failures, shift := 0, 0
	for ctx.Err() == nil {
		began := time.Now()
		connected, err := s.listen(ctx, shift)
		if ctx.Err() != nil {
			return
		}
		s.inbox.put(func(m *mail) { m.stream = &streamNews{err: err} })
		if connected || failures == 0 {
			s.log.Warn("no event stream; reading everything every few seconds instead", "every", s.intervals.Poll, "error", err)
		}
		shift++
		if connected && time.Since(began) > s.intervals.RetryMost {
			// It was fine for a while: most likely the leader changed.
			failures = 0
		} else {
			failures++
		}
		if failures > 0 && !wait(ctx, backoff(failures, s.intervals.Retry, s.intervals.RetryMost)) {
			return
		}
	}
}

// listen is one connection, to the first member that takes it.
func (s *stream) listen(ctx context.Context, shift int) (connected bool, err error) {
	var failures []error
	for _, i := range s.api.order(shift) {
		own, cancel := context.WithCancelCause(ctx)
		resp, err := s.connect(own, cancel, s.api.members[i])
		if err == nil {
			err = s.read(own, cancel, resp)
			cancel(nil)
			return true, err
		}
		cancel(nil)
		failures = append(failures, err)
		if ctx.Err() != nil {
			break
		}
	}
	return false, errors.Join(failures...)
}

func (s *stream) connect(ctx context.Context, cancel context.CancelCauseFunc, member *url.URL) (*http.Response, error) {
	late := time.AfterFunc(connectWithin, func() {
		cancel(fmt.Errorf("%s did not begin the event stream within %s", hostPort(member), connectWithin))
	})
	defer late.Stop()
	query := url.Values{"event_type": eventTypes, "plan-format": {"light"}}
	resp, err := s.api.open(ctx, member, call{method: http.MethodGet, path: "/v2/events", query: query, accept: "text/event-stream"})
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, fmt.Errorf("opening the event stream: %w", err)
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if kind != "text/event-stream" {
		resp.Body.Close()
		return nil, fmt.Errorf("opening the event stream: %s answered with %q instead of text/event-stream", hostPort(member), kind)
	}
	return resp, nil
}

func (s *stream) read(ctx context.Context, cancel context.CancelCauseFunc, resp *http.Response) error {
	defer resp.Body.Close()
	from := hostPort(resp.Request.URL)
	idle := time.AfterFunc(s.intervals.Idle, func() {
		cancel(fmt.Errorf("%s sent nothing for %s", from, s.intervals.Idle))
	})
	defer idle.Stop()
	s.log.Info("event stream connected", "member", from)
	s.inbox.put(func(m *mail) { m.stream, m.everything = &streamNews{up: true, member: from}, true })

	messages := newMessageReader(&pulse{resp.Body, func() {
		idle.Reset(s.intervals.Idle)
		s.inbox.heardAt(time.Now())
	}}, mostEvent)
	for {
		m, err := messages.next()
		switch {
		case errors.Is(err, errTooBig):
			s.log.Warn("an event was too big to read; everything is read again", "member", from)
			s.inbox.event(event{everything: true})
		case err != nil && context.Cause(ctx) != nil:
			return fmt.Errorf("event stream: %w", context.Cause(ctx))
		case errors.Is(err, io.EOF):
			return fmt.Errorf("event stream: %s closed it", from)
		case err != nil:
			return fmt.Errorf("event stream from %s: %w", from, err)
		default:
			s.inbox.event(decodeEvent(m))
		}
	}
}

// pulse calls back for every sign of life: a heartbeat is a bare line end, and
// part of a big event counts as well.
type pulse struct {
	r    io.Reader
	beat func()
}

func (p *pulse) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if n > 0 {
		p.beat()
	}
	return n, err
}

// backoff is how long to wait after that many failures in a row: from first,
// doubled each time, up to most, and less by up to a quarter so that many
// watchers do not come back at once.
func backoff(failures int, first, most time.Duration) time.Duration {
	d := first
	for i := 1; i < failures && d < most; i++ {
		d *= 2
	}
	d = min(d, most)
	return d - time.Duration(rand.Int64N(int64(d)/4+1))
}

// wait says whether the context lived through it.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
