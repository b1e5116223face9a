package consul

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// resolver knows the addresses of the host names that instances are registered
// with, and looks them up again from time to time.
type resolver struct {
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// changed is told, from a goroutine of the resolver's, that a name has another
	// outcome than before.
	changed func(host string)
	wake    chan struct{}

	mu    sync.Mutex
	hosts map[string]*resolution
}

// resolution is what is known about a name. An address, once known, outlives
// later failures: that a name cannot be looked up does not move what it names.
type resolution struct {
	address netip.Addr
	err     error
	due     time.Time
	asked   bool // somebody is on it
}

const (
	resolveEvery = 30 * time.Second
	resolveRetry = 2 * time.Second
	resolveLimit = 5 * time.Second
	resolveWidth = 8
)

func newResolver(lookup func(context.Context, string) ([]netip.Addr, error), changed func(string)) *resolver {
	return &resolver{lookup: lookup, changed: changed, wake: make(chan struct{}, 1), hosts: map[string]*resolution{}}
}

// get is the name's address; invalid with a nil error while it is not known yet.
func (r *resolver) get(host string) (netip.Addr, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.hosts[host]
	if known == nil {
		r.hosts[host] = &resolution{}
		select {
		case r.wake <- struct{}{}:
		default:
		}
		return netip.Addr{}, nil
	}
	return known.address, known.err
}

// keep forgets all names that are not in use.
func (r *resolver) keep(used func(host string) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for host := range r.hosts {
		if !used(host) {
			delete(r.hosts, host)
		}
	}
}

// run looks names up until the context ends.
func (r *resolver) run(ctx context.Context) {
	var lookups sync.WaitGroup
	defer lookups.Wait()
	width := make(chan struct{}, resolveWidth)
	for {
		host, wait := r.next(time.Now())
		if host != "" {
			select {
			case width <- struct{}{}:
			case <-ctx.Done():
				return
			}
			lookups.Go(func() {
				r.resolve(ctx, host)
				<-width
			})
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-r.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// next is a name that is due, or how long there will be none.
func (r *resolver) next(now time.Time) (string, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	wait := resolveEvery
	for host, known := range r.hosts {
		if known.asked {
			continue
		}
		if !known.due.After(now) {
			known.asked = true
			return host, 0
		}
		wait = min(wait, known.due.Sub(now))
	}
	return "", wait
}

func (r *resolver) resolve(ctx context.Context, host string) {
	lookup, cancel := context.WithTimeout(ctx, resolveLimit)
	addresses, err := r.lookup(lookup, host)
	cancel()
	if ctx.Err() != nil {
		return
	}
	addresses = slices.DeleteFunc(addresses, func(a netip.Addr) bool { return !usable(a) })
	if err == nil && len(addresses) == 0 {
		err = errors.New("no usable address")
	}
	r.mu.Lock()
	known := r.hosts[host]
	if known == nil {
		r.mu.Unlock()
		return
	}
	before := *known
	known.asked = false
	known.err = err
	known.due = time.Now().Add(resolveEvery)
	if err != nil {
		known.due = time.Now().Add(resolveRetry)
	} else {
		known.address = pick(addresses, known.address)
	}
	now := *known
	r.mu.Unlock()
	// The loop may be asleep for longer than this name can wait.
	select {
	case r.wake <- struct{}{}:
	default:
	}
	if now.address != before.address || (now.err == nil) != (before.err == nil) {
		r.changed(host)
	}
}

// pick stays with the address that is in use while the name still has it; else
// it is the first, IPv4 before IPv6.
func pick(addresses []netip.Addr, current netip.Addr) netip.Addr {
	for i, a := range addresses {
		addresses[i] = a.Unmap()
	}
	if slices.Contains(addresses, current) {
		return current
	}
	return slices.MinFunc(addresses, netip.Addr.Compare)
}
