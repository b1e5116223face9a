package registrator

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"time"

	"github.com/moby/moby/api/types/events"
)

// change is something that was learned about the containers.
type change struct {
	// all replaces everything known, when it is not nil; of the containers in
	// unknown nothing could be learned.
	all     map[string]Observed
	unknown map[string]bool
	// id is the container concerned otherwise; without seen, it is gone.
	id   string
	seen *Observed
	// signal is what the container was sent, if that is the change.
	signal string
	// lost says that the engine is out of reach; nothing is known to have changed.
	lost error
	// at is when it happened, for measuring.
	at time.Time
}

// observer watches the engine and reports changes, one at a time.
type observer struct {
	engine *Engine
	tags   *TagTemplate
	// all also looks at containers that ended: their exit code matters.
	all bool
	// relist is how often everything is looked at again without being told to.
	relist time.Duration
	log    *slog.Logger
	report func(context.Context, change)
}

const (
	reconnectFirst = 100 * time.Millisecond
	reconnectMost  = 5 * time.Second
	inspectAtOnce  = 8
)

// run observes until the context ends. It reconnects by itself.
func (o *observer) run(ctx context.Context) {
	delay := reconnectFirst
	for ctx.Err() == nil {
		started := time.Now()
		err := o.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil || errors.Is(err, io.EOF) {
			err = errors.New("the event stream ended")
		}
		o.report(ctx, change{lost: err, at: time.Now()})
		if time.Since(started) > reconnectMost {
			delay = reconnectFirst
		}
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
		delay = min(2*delay, reconnectMost)
	}
}

// inspection is the outcome of looking at one container.
type inspection struct {
	id   string
	seen *Observed // nil if there is no such container
	err  error
	at   time.Time // of the event that led to it
}

// watching is the state of one session.
type watching struct {
	*observer
	session *session
	results chan inspection
	slots   chan struct{}
	// busy has the containers being inspected; the value says that something
	// happened to the container since, so that the result is out of date.
	busy map[string]*time.Time
	// current is what is known, unknown what could not be inspected.
	current map[string]Observed
	unknown map[string]bool
	// first has the containers of the first list that have not been looked at
	// yet. Until it is empty nothing is reported; then it is nil. Signals sent
	// meanwhile are kept in early.
	first map[string]bool
	early []change
}

// session observes until the connection is lost, and returns why.
func (o *observer) session(parent context.Context) error {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	s, err := o.engine.connect(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	w := &watching{
		observer: o, session: s, results: make(chan inspection), slots: make(chan struct{}, inspectAtOnce),
		busy: map[string]*time.Time{}, current: map[string]Observed{}, unknown: map[string]bool{}, first: map[string]bool{},
	}
	ids, err := s.list(ctx, o.all)
	if err != nil {
		return err
	}
	at := time.Now()
	for _, id := range ids {
		w.first[id] = true
		w.inspect(ctx, id, at)
	}
	w.complete(ctx, at)

	relist := time.NewTicker(o.relist)
	defer relist.Stop()
	for {
		select {
		case message := <-s.events.Messages:
			w.handle(ctx, message)
		case err := <-s.events.Err:
			return err
		case result := <-w.results:
			w.finish(ctx, result)
		case at := <-relist.C:
			ids, err := s.list(ctx, o.all)
			if err != nil {
				return err
			}
			w.compare(ctx, ids, at)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// handle turns an event into an inspection, or into a change where it says enough.
func (w *watching) handle(ctx context.Context, m events.Message) {
	at := time.Unix(0, m.TimeNano)
	id := m.Actor.ID
	if m.Type == events.NetworkEventType {
		// Only the addresses of a container that is known may have changed; those
		// that start or stop have events of their own.
		if id = m.Actor.Attributes["container"]; id != "" {
			if _, known := w.current[id]; known {
				w.inspect(ctx, id, at)
			}
		}
		return
	}
	switch m.Action {
	case events.ActionKill:
		sent := change{id: id, signal: m.Actor.Attributes["signal"], at: at}
		if w.first != nil {
			w.early = append(w.early, sent)
			return
		}
		w.report(ctx, sent)
	case events.ActionDie, events.ActionDestroy:
		if w.all && m.Action == events.ActionDie {
			w.inspect(ctx, id, at)
			return
		}
		if w.busy[id] != nil {
			*w.busy[id] = at
		}
		w.gone(ctx, id, at)
	default:
		w.inspect(ctx, id, at)
	}
}

// inspect looks at a container in the background; if that is being done already,
// once more afterwards.
func (w *watching) inspect(ctx context.Context, id string, at time.Time) {
	if w.busy[id] != nil {
		*w.busy[id] = at
		return
	}
	w.busy[id] = new(time.Time)
	go func() {
		result := inspection{id: id, at: at}
		select {
		case w.slots <- struct{}{}:
			result.seen, result.err = w.look(ctx, id)
			<-w.slots
		case <-ctx.Done():
			return
		}
		select {
		case w.results <- result:
		case <-ctx.Done():
		}
	}()
}

func (w *watching) look(ctx context.Context, id string) (*Observed, error) {
	c, err := w.session.inspect(ctx, id)
	if err != nil || c == nil {
		return nil, err
	}
	seen := &Observed{Container: c}
	if c.Serving() {
		seen.ForcedTags, seen.TagsError = w.tags.Tags(ctx, c)
	}
	return seen, nil
}

func (w *watching) finish(ctx context.Context, result inspection) {
	again := *w.busy[result.id]
	delete(w.busy, result.id)
	if !again.IsZero() {
		w.inspect(ctx, result.id, again)
		return
	}
	delete(w.first, result.id)
	switch {
	case result.err != nil:
		// It stays as it was last seen; the next look may succeed.
		w.log.Warn("container could not be inspected", "container", shortID(result.id), "error", result.err)
		if _, known := w.current[result.id]; !known {
			w.unknown[result.id] = true
		}
		w.complete(ctx, result.at)
	case result.seen == nil || !result.seen.Container.Serving() && !w.all:
		w.gone(ctx, result.id, result.at)
	default:
		w.current[result.id] = *result.seen
		delete(w.unknown, result.id)
		if !w.complete(ctx, result.at) {
			w.report(ctx, change{id: result.id, seen: result.seen, at: result.at})
		}
	}
}

func (w *watching) gone(ctx context.Context, id string, at time.Time) {
	delete(w.current, id)
	delete(w.unknown, id)
	if !w.complete(ctx, at) {
		w.report(ctx, change{id: id, at: at})
	}
}

// complete reports everything once the first list has been looked at, and says
// whether the report has been made or must still wait.
func (w *watching) complete(ctx context.Context, at time.Time) bool {
	if w.first == nil {
		return false
	}
	if len(w.first) > 0 {
		return true
	}
	w.first = nil
	w.report(ctx, change{all: maps.Clone(w.current), unknown: maps.Clone(w.unknown), at: at})
	for _, sent := range w.early {
		w.report(ctx, sent)
	}
	w.early = nil
	return true
}

// compare looks at all containers of a list again, and drops those that are not in it.
func (w *watching) compare(ctx context.Context, ids []string, at time.Time) {
	listed := make(map[string]bool, len(ids))
	for _, id := range ids {
		listed[id] = true
		w.inspect(ctx, id, at)
	}
	for id := range w.current {
		if !listed[id] && w.busy[id] == nil {
			w.gone(ctx, id, at)
		}
	}
}
