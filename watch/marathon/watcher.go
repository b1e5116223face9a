package marathon

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/mi-lb/mi-lb/watch"
	"github.com/mi-lb/mi-lb/watch/resolve"
)

// Watcher keeps the part of one Marathon cluster fresh.
type Watcher struct {
	config   Config
	source   watch.Source
	api      *api
	client   *Client
	resolver *resolve.Resolver
	log      *slog.Logger
}

var _ watch.Watcher = (*Watcher)(nil)

// New checks the configuration; it does not talk to the cluster.
func New(c Config) (*Watcher, error) {
	members, err := c.members()
	if err != nil {
		return nil, err
	}
	c.Intervals = c.Intervals.withDefaults()
	source := watch.Source{Kind: watch.Marathon, Name: c.name(members)}
	api, err := newAPI(c, members)
	if err != nil {
		return nil, fmt.Errorf("marathon %s: %w", source.Name, err)
	}
	return &Watcher{
		config: c, source: source, api: api, client: &Client{api: api},
		resolver: resolve.New(c.lookup, c.Intervals.Resolve),
		log:      c.logger().With("source", source.String()),
	}, nil
}

// Source is the one whose part is published.
func (w *Watcher) Source() watch.Source { return w.source }

// Client shares the watcher's connections. It must not be closed.
func (w *Watcher) Client() *Client { return w.client }

// Run implements [watch.Watcher]. It may be called once at a time.
func (w *Watcher) Run(ctx context.Context, sink watch.Sink) {
	inbox := newInbox()
	var streaming sync.WaitGroup
	streaming.Add(1)
	go func() {
		defer streaming.Done()
		(&stream{api: w.api, inbox: inbox, log: w.log, intervals: w.config.Intervals}).run(ctx)
	}()
	newLoop(w, inbox, sink).run(ctx)
	streaming.Wait()
	w.api.close()
}
