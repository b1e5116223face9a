package resolve

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Lookup finds the addresses of a host name, as [net.Resolver.LookupNetIP] does.
type Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

// Answer is what is known about a host name.
type Answer struct {
	// Addr is the last known address; the zero Addr if there never was one.
	Addr netip.Addr
	// Err is why the newest lookup failed; nil if it did not.
	Err error
}

// Resolver remembers answers. It is safe for concurrent use.
type Resolver struct {
	lookup Lookup
	keep   time.Duration

	mu    sync.Mutex
	known map[string]entry
}

type entry struct {
	Answer
	until time.Time
}

const (
	lookupTimeout = 2 * time.Second
	// retryAfter is how long a failure is believed: short, but long enough for a
	// broken name not to slow down every read that mentions it.
	retryAfter = 5 * time.Second
	parallel   = 16
	// mostKnown bounds the memory; names come from outside.
	mostKnown = 100_000
)

// New makes a resolver that keeps an answer for that long. A nil lookup is the
// system's resolver.
func New(lookup Lookup, keep time.Duration) *Resolver {
	if lookup == nil {
		lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	return &Resolver{lookup: lookup, keep: keep, known: map[string]entry{}}
}

// Resolve answers for every host. It returns within about two seconds for a
// handful of names that nobody answers for; names are looked up side by side.
func (r *Resolver) Resolve(ctx context.Context, hosts []string) map[string]Answer {
	answers := make(map[string]Answer, len(hosts))
	var due []string
	now := time.Now()
	r.mu.Lock()
	for _, host := range hosts {
		if _, done := answers[host]; done {
			continue
		}
		if addr, err := netip.ParseAddr(host); err == nil {
			answers[host] = Answer{Addr: addr.Unmap().WithZone("")}
			continue
		}
		e := r.known[host]
		answers[host] = e.Answer
		if !now.Before(e.until) {
			due = append(due, host)
		}
	}
	r.mu.Unlock()

	var wg sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for _, host := range due {
		slots <- struct{}{}
		wg.Add(1)
		go func() {
			defer func() { <-slots; wg.Done() }()
			r.renew(ctx, host)
		}()
	}
	wg.Wait()

	r.mu.Lock()
	defer r.mu.Unlock()
	for _, host := range due {
		answers[host] = r.known[host].Answer
	}
	return answers
}

func (r *Resolver) renew(ctx context.Context, host string) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	found, err := r.lookup(ctx, host)
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("no address for host %q", host)
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.known[host]
	if err != nil {
		e.Err = err
		e.until = time.Now().Add(min(retryAfter, r.keep))
	} else {
		e = entry{Answer: Answer{Addr: pick(found, e.Addr)}, until: time.Now().Add(r.keep)}
	}
	if len(r.known) >= mostKnown {
		clear(r.known)
	}
	r.known[host] = e
}

// pick prefers the address in use, then IPv4, then the lowest: the order in
// which a name server lists addresses must not move traffic.
func pick(found []netip.Addr, current netip.Addr) netip.Addr {
	for i := range found {
		found[i] = found[i].Unmap().WithZone("")
	}
	if current.IsValid() && slices.Contains(found, current) {
		return current
	}
	return slices.MinFunc(found, func(a, b netip.Addr) int {
		return cmp.Or(cmp.Compare(a.BitLen(), b.BitLen()), a.Compare(b))
	})
}
