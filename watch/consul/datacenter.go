package consul

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/watch"
)

// datacenter is one that is watched: what outlives its sessions.
type datacenter struct {
	name   string
	remote bool
	t      *transport
	lines  *lines
	// reads limits the queries that do not block, over all datacenters.
	reads chan struct{}
	sink  watch.Sink
	log   *slog.Logger
	now   func() time.Time

	wait       time.Duration // of blocking queries
	tick       time.Duration
	sweepEvery time.Duration
	streaming  bool // as far as it matters: over plain HTTP

	catalog       *catalog
	resolver      *resolver
	resolvedHosts chan string
	polls         sync.WaitGroup
	state         watch.State
	reported      watch.State

	mu      sync.Mutex
	contact bool // there is a session
}

func (d *datacenter) run(ctx context.Context, known *watch.Part, confirm Confirmation, lookup func(context.Context, string) ([]netip.Addr, error)) {
	d.resolvedHosts = make(chan string)
	d.resolver = newResolver(lookup, func(host string) {
		select {
		case d.resolvedHosts <- host:
		case <-ctx.Done():
		}
	})
	d.catalog = newCatalog(d.name, known, confirm, d.resolver.get)
	d.state = watch.State{Source: watch.Source{Kind: watch.Consul, Name: d.name}, Status: watch.Connecting, Since: d.now()}
	var resolving sync.WaitGroup
	defer resolving.Wait()
	resolving.Go(func() { d.resolver.run(ctx) })
	defer d.lines.release(d.name)

	why := noDoubt
	if known != nil {
		why = afterStart
	}
	d.report(nil)
	for fails := 0; ; {
		s := &session{d: d, why: why}
		err := s.run(ctx)
		if ctx.Err() != nil {
			return
		}
		d.setContact(false)
		d.lines.release(d.name)
		if s.settled {
			fails = 0
		}
		switch err {
		case errTokenChanged:
			why = afterNewToken
			continue
		case errIndexReset:
			why = afterReset
		default:
			why = afterError
			if refusal(err) {
				d.lines.refused()
			}
			if errors.Is(err, syscall.ECONNREFUSED) {
				d.lines.forget()
			}
		}
		fails++
		d.failed(err)
		d.log.Warn("lost contact", "datacenter", d.name, "error", d.state.LastError)
		d.report(nil)
		if !pause(ctx, backoff(fails, err)) {
			return
		}
	}
}

// acquire waits for its turn to read; it is false if the context ends first.
func (d *datacenter) acquire(ctx context.Context) bool {
	select {
	case d.reads <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (d *datacenter) release() { <-d.reads }

func (d *datacenter) readNodes(q *api.QueryOptions) ([]*api.Node, error) {
	v, _, err := d.t.api.Catalog().Nodes(q)
	return v, err
}

func (d *datacenter) nodes(ctx context.Context) ([]*api.Node, meta, error) {
	return query(ctx, d.t, d.name, 0, 0, d.readNodes)
}

// learnStreaming finds out whether the agent answers health/service from a
// stream, as it does unless that is turned off.
func (d *datacenter) learnStreaming(ctx context.Context) error {
	_, about, err := query(ctx, d.t, d.name, 1, time.Millisecond, func(q *api.QueryOptions) ([]*api.ServiceEntry, error) {
		v, _, err := d.t.api.Health().Service("consul", "", false, q)
		return v, err
	})
	d.streaming = about.streaming
	return err
}

// reached notes that the datacenter has just answered.
func (d *datacenter) reached() {
	d.state.LastSuccess = d.now()
	d.setContact(true)
}

// failed notes an error.
func (d *datacenter) failed(err error) {
	d.state.LastError, d.state.LastErrorAt = d.t.explain(err, d.name), d.now()
}

func (d *datacenter) setContact(there bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.contact = there
}

// reachable says whether there is contact; it may be called from anywhere.
func (d *datacenter) reachable() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.contact
}

// report tells the sink how the datacenter is, if that is news; s is nil while
// there is no session.
func (d *datacenter) report(s *session) {
	now := d.now()
	d.state.Held = len(d.catalog.held)
	status, detail := watch.Stale, ""
	switch {
	case s == nil || s.follow == nil:
		if d.state.Status == watch.Connecting {
			status = watch.Connecting
		}
	case !s.settled && d.state.Status == watch.Connecting:
		status = watch.Connecting
	case s.settled && s.leader && d.state.Held == 0 && s.unread() == 0:
		status = watch.Current
	}
	if s != nil && s.follow != nil {
		polls := size{services: len(s.follow.scopes), nodes: len(s.follow.scopes)}.polls(s.mode)
		detail = fmt.Sprintf("%s, %d long-polls", s.mode, polls)
		if s.filtered {
			detail += "; ACLs hide a part of the catalog"
		}
		if !s.leader {
			detail += "; its servers have no leader"
		}
		if n := s.unread(); n > 0 {
			detail += fmt.Sprintf("; %d of its answers cannot be had or read", n)
		}
	}
	if d.state.Held > 0 {
		detail = held(detail, d.catalog)
	}
	if status != d.state.Status {
		d.state.Status, d.state.Since = status, now
	}
	d.state.Detail = detail
	// That it answered again and again is worth a report from time to time only.
	const fresh = 10 * time.Second
	before, after := d.reported, d.state
	if after.LastSuccess.Sub(before.LastSuccess) < fresh {
		before.LastSuccess = after.LastSuccess
	}
	if before.LastError == after.LastError && after.LastErrorAt.Sub(before.LastErrorAt) < fresh {
		before.LastErrorAt = after.LastErrorAt
	}
	if before == after {
		return
	}
	d.reported = after
	d.sink.Report(after)
}

func held(detail string, c *catalog) string {
	var why doubt
	for _, r := range c.held {
		why = max(why, r.missing)
	}
	window := c.confirm.Some
	if len(c.held)*2 > len(c.records) {
		window = c.confirm.Most
	}
	if detail != "" {
		detail += "; "
	}
	return detail + fmt.Sprintf("%d of %d instances are missing and held until they come back or have been missing for %s (%s)",
		len(c.held), len(c.records), window, why)
}
