package consul

import (
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"
	"golang.org/x/time/rate"
)

const (
	scanEvery  = time.Second
	sweepEvery = 30 * time.Second
	// sweepRate is in services per second.
	sweepRate = 500
	// compareMost is how often a service is read again because the checks that do
	// not pass are others than it was read with.
	compareMost = 6
)

// trigger finds out, with two long-polls for a whole datacenter, which services
// to read again:
//
//   - the names and tags of all services, which wake for every registration;
//   - the checks that do not pass, which wake for every check.
//
// A registration that shows in neither (an instance more of a service, with the
// same tags) is found by a scan of all checks, one a second at most; and what has
// no check, or only moved to another port, by a sweep over all services, paced,
// after registrations only.
type trigger struct {
	tags     map[string][]string
	index    uint64 // of the newest list of names
	bad      map[checkKey]badCheck
	badIn    map[scope]map[checkKey]bool
	badKnown bool

	scanned  map[checkKey]string
	scanning bool
	rescan   bool

	sweeping bool
	resweep  bool
	// tries counts reads after a disagreement, by service.
	tries map[string]int
}

type checkKey struct{ node, check string }

type badCheck struct{ service, status string }

// scopes that a check is about.
func (b badCheck) scope(k checkKey) scope {
	if b.service == "" {
		return scope{ofNode, k.node}
	}
	return scope{ofService, b.service}
}

func (s *session) followTriggers(f *following) {
	t := &trigger{tags: map[string][]string{}, tries: map[string]int{}}
	f.trigger = t
	scans, sweeps := rate.NewLimiter(rate.Every(scanEvery), 1), rate.NewLimiter(sweepRate, 16)
	s.pulseNames(f, func(v map[string][]string, about meta, why doubt) {
		before := t.tags
		t.tags = v
		s.list(f, ofService, nameSet(v), why, func(p *followed) { s.reread(f, p) })
		for name, tags := range v {
			if old, had := before[name]; had && !sameTags(old, tags) {
				s.rereadScope(f, scope{ofService, name})
			}
		}
		if about.index != t.index {
			t.index = about.index
			s.scan(f, scans, sweeps)
		}
		s.rechoose()
	})
	spec := pollSpec{wait: s.d.wait, pace: rate.NewLimiter(20, 4), fail: s.failed}
	if s.d.t.plain() {
		spec.wait = min(spec.wait, plainWait)
	}
	poll(s, f.ctx, spec, s.why, func(q *api.QueryOptions) (api.HealthChecks, error) {
		q.Filter = `Status != "passing"`
		v, _, err := s.d.t.api.Health().State(api.HealthAny, q)
		return v, err
	}, func(v api.HealthChecks, about meta, why doubt) {
		if about.reset {
			s.check()
		}
		for _, sc := range t.takeBad(v) {
			s.rereadScope(f, sc)
		}
	})
}

func sameTags(a, b []string) bool {
	if slices.Equal(a, b) {
		return true
	}
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// rereadScope reads a service, or all services with an instance on a node.
func (s *session) rereadScope(f *following, sc scope) {
	if sc.kind == ofService {
		if p := f.scopes[sc]; p != nil {
			s.reread(f, p)
		}
		return
	}
	services := map[string]bool{}
	for _, r := range s.d.catalog.in[sc] {
		services[r.service] = true
	}
	for name := range services {
		s.rereadScope(f, scope{ofService, name})
	}
}

// takeBad takes in the checks that do not pass and gives the scopes in which
// there are other ones than before.
func (t *trigger) takeBad(checks api.HealthChecks) []scope {
	bad := make(map[checkKey]badCheck, len(checks))
	in := map[scope]map[checkKey]bool{}
	for _, c := range checks {
		if c == nil {
			continue
		}
		k, b := checkKey{c.Node, c.CheckID}, badCheck{c.ServiceName, c.Status}
		bad[k] = b
		sc := b.scope(k)
		if in[sc] == nil {
			in[sc] = map[checkKey]bool{}
		}
		in[sc][k] = true
	}
	changed := map[scope]bool{}
	for k, b := range bad {
		if t.bad[k] != b {
			changed[b.scope(k)] = true
		}
	}
	for k, b := range t.bad {
		if bad[k] != b {
			changed[b.scope(k)] = true
		}
	}
	t.bad, t.badIn = bad, in
	if !t.badKnown {
		t.badKnown = true
		return nil // everything is being read anyway
	}
	clear(t.tries)
	return slices.Collect(maps.Keys(changed))
}

// agrees says whether a service was read with the same checks not passing as the
// long-poll has.
func (t *trigger) agrees(name string, answer []*api.ServiceEntry) bool {
	read := map[checkKey]string{}
	nodes := map[string]bool{}
	for _, e := range answer {
		if e == nil || e.Node == nil {
			continue
		}
		nodes[e.Node.Node] = true
		for _, c := range e.Checks {
			if c != nil && c.Status != api.HealthPassing {
				read[checkKey{c.Node, c.CheckID}] = c.Status
			}
		}
	}
	expected := 0
	count := func(sc scope) bool {
		for k := range t.badIn[sc] {
			expected++
			if read[k] != t.bad[k].status {
				return false
			}
		}
		return true
	}
	if !count(scope{ofService, name}) {
		return false
	}
	for node := range nodes {
		if !count(scope{ofNode, node}) {
			return false
		}
	}
	return expected == len(read)
}

// compare has a service read again if that was, as it seems, from an older state
// than the long-poll's: nothing else would.
func (t *trigger) compare(s *session, f *following, p *followed, answer []*api.ServiceEntry) {
	if !t.badKnown || t.agrees(p.scope.name, answer) {
		delete(t.tries, p.scope.name)
		return
	}
	t.tries[p.scope.name]++
	tries := t.tries[p.scope.name]
	if tries > compareMost {
		return
	}
	time.AfterFunc(20*time.Millisecond<<tries, func() {
		s.send(p.ctx, func() { s.reread(f, p) })
	})
}

// scan reads all checks there are and finds the services that have others than
// before; a sweep follows.
func (s *session) scan(f *following, scans, sweeps *rate.Limiter) {
	t := f.trigger
	if t.scanning {
		t.rescan = true
		return
	}
	t.scanning, t.rescan = true, false
	s.d.polls.Go(func() {
		if scans.Wait(f.ctx) != nil || !s.d.acquire(f.ctx) {
			return
		}
		checks, _, err := query(f.ctx, s.d.t, s.d.name, 0, time.Duration(0), func(q *api.QueryOptions) (api.HealthChecks, error) {
			v, _, err := s.d.t.api.Health().State(api.HealthAny, q)
			return v, err
		})
		s.d.release()
		s.send(f.ctx, func() {
			t.scanning = false
			if err != nil {
				s.failed(err)
				t.rescan = true
			} else {
				for _, name := range t.takeScan(checks) {
					s.rereadScope(f, scope{ofService, name})
				}
				s.sweep(f, sweeps)
			}
			if t.rescan {
				s.scan(f, scans, sweeps)
			}
		})
	})
}

// takeScan gives the services whose checks have come or gone.
func (t *trigger) takeScan(checks api.HealthChecks) []string {
	now := make(map[checkKey]string, len(checks))
	for _, c := range checks {
		if c != nil && c.ServiceName != "" {
			now[checkKey{c.Node, c.CheckID}] = c.ServiceName
		}
	}
	changed := map[string]bool{}
	for k, service := range now {
		if before, had := t.scanned[k]; !had || before != service {
			changed[service] = true
		}
	}
	for k, service := range t.scanned {
		if now[k] != service {
			changed[service] = true
		}
	}
	if t.scanned == nil {
		clear(changed) // everything is being read anyway
	}
	t.scanned = now
	return slices.Collect(maps.Keys(changed))
}

// sweep reads all services, one after the other.
func (s *session) sweep(f *following, pace *rate.Limiter) {
	t := f.trigger
	if t.sweeping {
		t.resweep = true
		return
	}
	t.sweeping, t.resweep = true, false
	names := slices.Collect(maps.Keys(f.scopes))
	s.d.polls.Go(func() {
		for _, sc := range names {
			if pace.Wait(f.ctx) != nil {
				return
			}
			s.send(f.ctx, func() { s.rereadScope(f, sc) })
		}
		if !pause(f.ctx, s.d.sweepEvery) {
			return
		}
		s.send(f.ctx, func() {
			t.sweeping = false
			if t.resweep {
				s.sweep(f, pace)
			}
		})
	})
}
