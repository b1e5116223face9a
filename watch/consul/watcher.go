package consul

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/watch"
)

// Config of a [Watcher].
type Config struct {
	// Address of the agent: http://host:port, https://host:port or unix:///path;
	// plain HTTP where there is no scheme.
	Address string
	// TokenFile holds the ACL token; it is read again when it changes. Without it
	// CONSUL_HTTP_TOKEN and CONSUL_HTTP_TOKEN_FILE mean what they always do.
	TokenFile string
	TLS       TLS
	// Datacenters to watch; all that the catalog knows, as they come and go, where
	// there are none.
	Datacenters []string
	// Datacenter is the local one: instances of the others are reached at their
	// WAN addresses. The agent's own where it is empty.
	Datacenter string
	// Known are the parts that were good when mi-lb last ran; those of other
	// sources are ignored. What the first answers lack of them is held.
	Known   []*watch.Part
	Confirm Confirmation
	// Wait is how long a blocking query waits; ten minutes where it is 0. It bounds
	// how long a changed ACL policy goes unnoticed.
	Wait time.Duration
	// Polls is how many long-polls there may be at a time. Where it is 0: 4000 over
	// https, and 120 over plain HTTP and unix sockets, since an agent allows 200
	// connections per address by default, and takes all clients of its socket for
	// one address.
	Polls int
	// Lookup resolves host names that instances are registered with; the system's
	// resolver where it is nil.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Logger is slog's default where it is nil.
	Logger *slog.Logger

	// These intervals are shorter in tests.
	datacentersEvery time.Duration
	tick             time.Duration
	sweepEvery       time.Duration
}

// Watcher watches all datacenters through one agent.
type Watcher struct {
	config Config
	t      *transport
	lines  *lines
	reads  chan struct{}
	log    *slog.Logger
}

var _ watch.Watcher = (*Watcher)(nil)

const (
	plainPolls, sharedPolls = 120, 4000
	plainReads, sharedReads = 16, 64
	datacentersRetry        = time.Second
)

// New checks the configuration and reads the files it names; it does not
// contact the agent.
func New(config Config) (*Watcher, error) {
	if config.Address == "" {
		return nil, errors.New("address of Consul: it is empty")
	}
	token, err := readToken(config.TokenFile)
	if err != nil {
		return nil, err
	}
	t, err := newTransport(config.Address, config.TLS, token, plainReads)
	if err != nil {
		return nil, err
	}
	polls, reads := plainPolls, plainReads
	if !t.plain() {
		polls, reads = sharedPolls, sharedReads
		t.http.MaxIdleConnsPerHost = sharedReads
	}
	if config.Polls > 0 {
		polls = config.Polls
	}
	if config.Wait == 0 {
		config.Wait = 10 * time.Minute
	}
	if config.Lookup == nil {
		config.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	config.datacentersEvery = orElse(config.datacentersEvery, 30*time.Second)
	config.tick = orElse(config.tick, time.Second)
	config.sweepEvery = orElse(config.sweepEvery, sweepEvery)
	available := newLines(polls, time.Now)
	available.fixed = config.Polls > 0
	return &Watcher{
		config: config,
		t:      t,
		lines:  available,
		reads:  make(chan struct{}, reads),
		log:    config.Logger.With("source", "consul"),
	}, nil
}

func orElse(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// LocalDatacenter is the configured one, else the one that the agent is in.
func (w *Watcher) LocalDatacenter(ctx context.Context) (string, error) {
	if w.config.Datacenter != "" {
		return w.config.Datacenter, nil
	}
	// Any of these answers it; each takes other permissions.
	self, err := w.self(ctx)
	if err == nil {
		return self, nil
	}
	var status api.StatusError
	if !errors.As(err, &status) || status.Code != http.StatusForbidden {
		return "", fmt.Errorf("ask for the local datacenter: %s", w.t.explain(err, ""))
	}
	nodes, _, err := query(ctx, w.t, "", 0, 0, func(q *api.QueryOptions) ([]*api.Node, error) {
		v, _, err := w.t.api.Catalog().Nodes(q)
		return v, err
	})
	if err != nil {
		return "", fmt.Errorf("ask for the local datacenter: %s", w.t.explain(err, ""))
	}
	for _, n := range nodes {
		if n != nil && n.Datacenter != "" {
			return n.Datacenter, nil
		}
	}
	return "", errors.New("ask for the local datacenter: the Consul token permits neither agent:read nor node:read; " +
		"permit one of them, or configure the datacenter's name")
}

func (w *Watcher) self(ctx context.Context) (string, error) {
	// The client's Self takes no context and no token of ours; Host does not say it.
	self, _, err := query(ctx, w.t, "", 0, 0, func(q *api.QueryOptions) (map[string]map[string]any, error) {
		var out map[string]map[string]any
		_, err := w.t.api.Raw().Query("/v1/agent/self", &out, q)
		return out, err
	})
	if err != nil {
		return "", err
	}
	name, _ := self["Config"]["Datacenter"].(string)
	if name == "" {
		return "", errors.New("the agent does not say its datacenter")
	}
	return name, nil
}

// Run implements [watch.Watcher].
func (w *Watcher) Run(ctx context.Context, sink watch.Sink) {
	ctx, cancel := context.WithCancel(ctx)
	r := &run{
		Watcher: w,
		sink:    sink,
		known:   map[string]*watch.Part{},
		watched: map[string]*watched{},
		state:   watch.State{Source: watch.Source{Kind: watch.Consul}, Status: watch.Connecting, Since: time.Now()},
	}
	defer w.t.http.CloseIdleConnections()
	defer r.running.Wait()
	defer cancel()
	for _, p := range w.config.Known {
		switch {
		case p == nil || p.Source.Kind != watch.Consul:
		case p.Source.Name == "":
			r.part = p
		default:
			r.known[p.Source.Name] = p
		}
	}
	r.running.Go(func() { w.t.token.follow(ctx, w.log) })
	r.run(ctx)
}

// run is one run of a watcher: which datacenters there are.
type run struct {
	*Watcher
	sink    watch.Sink
	known   map[string]*watch.Part
	running sync.WaitGroup
	local   string
	watched map[string]*watched
	part    *watch.Part
	state   watch.State
}

type watched struct {
	datacenter *datacenter
	cancel     context.CancelFunc
	done       chan struct{}
	// unlisted is since when the catalog no longer names it.
	unlisted time.Time
}

func (r *run) run(ctx context.Context) {
	if !r.learnLocal(ctx) {
		return
	}
	first := r.config.Datacenters
	if len(first) == 0 {
		first = []string{r.local}
		for name := range r.known {
			first = append(first, name)
		}
	}
	for _, name := range first {
		r.watch(ctx, name)
	}
	r.sink.Report(r.state)
	for fails := 0; ; {
		wait := jitter(r.config.datacentersEvery)
		if err := r.refresh(ctx); ctx.Err() != nil {
			return
		} else if err != nil {
			fails++
			r.fail(err)
			wait = backoff(fails, err)
		} else {
			fails = 0
			r.state.LastSuccess = time.Now()
			r.status(watch.Current, fmt.Sprintf("%d datacenters", len(r.watched)))
		}
		_, changed := r.t.token.get()
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// learnLocal is false if the context ends before it is known which datacenter is
// the local one: that decides about addresses, so nothing is watched before.
func (r *run) learnLocal(ctx context.Context) bool {
	r.sink.Report(r.state)
	for fails := 1; ; fails++ {
		name, err := r.LocalDatacenter(ctx)
		if err == nil {
			r.local = name
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		r.fail(err)
		for name := range r.known {
			state := r.state
			state.Source.Name = name
			r.sink.Report(state)
		}
		if !pause(ctx, backoff(fails, err)) {
			return false
		}
	}
}

func (r *run) fail(err error) {
	r.state.LastError, r.state.LastErrorAt = r.t.explain(err, ""), time.Now()
	status := watch.Stale
	if r.state.Status == watch.Connecting {
		status = watch.Connecting
	}
	r.status(status, r.state.Detail)
}

func (r *run) status(status watch.Status, detail string) {
	if status != r.state.Status {
		r.state.Status, r.state.Since = status, time.Now()
	}
	r.state.Detail = detail
	r.sink.Report(r.state)
}

func (r *run) watch(ctx context.Context, name string) {
	if r.watched[name] != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	d := &datacenter{
		name: name, remote: name != r.local, t: r.t, lines: r.lines, reads: r.reads, sink: r.sink, log: r.log, now: time.Now,
		wait: min(r.config.Wait, 10*time.Minute), tick: r.config.tick, sweepEvery: r.config.sweepEvery,
	}
	w := &watched{datacenter: d, cancel: cancel, done: make(chan struct{})}
	r.watched[name] = w
	known := r.known[name]
	delete(r.known, name)
	r.running.Go(func() {
		defer close(w.done)
		d.run(ctx, known, r.config.Confirm, r.config.Lookup)
	})
}

// refresh reads which datacenters there are and how far away they are.
func (r *run) refresh(ctx context.Context) error {
	names, _, err := query(ctx, r.t, "", 0, 0, func(q *api.QueryOptions) ([]string, error) {
		var out []string
		_, err := r.t.api.Raw().Query("/v1/catalog/datacenters", &out, q)
		return out, err
	})
	if err != nil {
		return fmt.Errorf("read the datacenters: %w", err)
	}
	if len(names) == 0 {
		return errors.New("read the datacenters: there are none")
	}
	maps, _, err := query(ctx, r.t, "", 0, 0, func(q *api.QueryOptions) ([]*api.CoordinateDatacenterMap, error) {
		var out []*api.CoordinateDatacenterMap
		_, err := r.t.api.Raw().Query("/v1/coordinate/datacenters", &out, q)
		return out, err
	})
	if err != nil {
		// Without round-trip times there is still the order.
		r.log.Debug("no coordinates", "error", err)
	}
	if len(r.config.Datacenters) > 0 {
		names = slices.DeleteFunc(names, func(name string) bool { return !slices.Contains(r.config.Datacenters, name) })
	} else {
		r.follow(ctx, names)
	}
	datacenters := distances(names, r.local, maps)
	if r.part == nil || !sameDistances(r.part.Datacenters, datacenters) {
		r.part = &watch.Part{Source: watch.Source{Kind: watch.Consul}, Datacenters: datacenters}
		r.sink.Publish(r.part)
	}
	return nil
}

// follow watches datacenters that are new in the catalog and lets go of those
// that have left it: not in the list for as long as it takes to believe that
// most of a datacenter is gone, and out of contact. An agent that has just
// started lists only its own.
func (r *run) follow(ctx context.Context, names []string) {
	for _, name := range names {
		r.watch(ctx, name)
	}
	now := time.Now()
	for name, w := range r.watched {
		switch {
		case slices.Contains(names, name) || name == r.local || w.datacenter.reachable():
			w.unlisted = time.Time{}
		case w.unlisted.IsZero():
			w.unlisted = now
		case now.Sub(w.unlisted) >= r.config.Confirm.withDefaults().Most:
			w.cancel()
			<-w.done
			delete(r.watched, name)
			r.sink.Withdraw(watch.Source{Kind: watch.Consul, Name: name})
			r.log.Info("the datacenter has left the catalog", "datacenter", name)
		}
	}
}
