package consul

import (
	"time"

	"github.com/hashicorp/consul/api"
	"golang.org/x/time/rate"
)

// followNames follows the names of the datacenter's services, and each service.
func (s *session) followNames(f *following) {
	s.pulseNames(f, func(v map[string][]string, about meta, why doubt) {
		s.list(f, ofService, nameSet(v), why, func(p *followed) { s.followService(f, p) })
		s.rechoose()
	})
}

// pulseNames is the pulse of the modes that go by names of services.
func (s *session) pulseNames(f *following, take func(map[string][]string, meta, doubt)) {
	read := func(q *api.QueryOptions) (map[string][]string, error) {
		v, _, err := s.d.t.api.Catalog().Services(q)
		return v, err
	}
	s.pulse(f, func(spec pollSpec) {
		poll(s, f.ctx, spec, s.why, read, func(v map[string][]string, about meta, why doubt) {
			if s.beat(about) {
				s.recount = true
				take(v, about, why)
			}
		})
	})
}

func nameSet(services map[string][]string) map[string]bool {
	names := make(map[string]bool, len(services))
	for name := range services {
		names[name] = true
	}
	return names
}

// pulse runs the poll whose failure is the session's.
func (s *session) pulse(f *following, run func(pollSpec)) {
	run(pollSpec{
		wait: pulseWait,
		pace: rate.NewLimiter(10, 10),
		fail: func(err error) {
			if broken(err) || refusal(err) {
				s.err = err
				return
			}
			// An answer that cannot be read says nothing about the rest.
			s.failed(err)
		},
	})
}

// beat notes an answer of the pulse. It is false, and the session over, if the
// index went backwards.
func (s *session) beat(about meta) bool {
	if about.reset {
		s.err = errIndexReset
		return false
	}
	if !about.noLeader {
		s.d.reached()
	}
	s.filtered = about.filtered
	return true
}

func (s *session) followService(f *following, p *followed) {
	remote := s.d.remote
	read := func(q *api.QueryOptions) ([]entry, error) {
		v, _, err := s.d.t.api.Health().Service(p.scope.name, "", false, q)
		return convertService(v, remote), err
	}
	wait := s.d.wait
	if s.d.t.plain() && !s.d.streaming {
		wait = min(wait, plainWait)
	}
	poll(s, p.ctx, pollSpec{wait: wait, pace: perScope(), streamed: s.d.streaming, fail: func(err error) {
		s.answered(f, p.scope)
		s.failed(err)
	}}, s.why, read, func(entries []entry, about meta, why doubt) {
		if about.reset {
			s.check()
		}
		// A read besides the poll may have been newer, unless the index has been
		// reset.
		if why == noDoubt && about.index < p.index {
			return
		}
		p.index = about.index
		s.take(f, p, entries, why)
	})
}

// readService reads a service once.
func (s *session) readService(f *following, p *followed) func() {
	v, about, err := query(p.ctx, s.d.t, s.d.name, 0, time.Duration(0), func(q *api.QueryOptions) ([]*api.ServiceEntry, error) {
		v, _, err := s.d.t.api.Health().Service(p.scope.name, "", false, q)
		return v, err
	})
	entries := convertService(v, s.d.remote)
	return func() {
		if err != nil {
			s.retry(f, p, err)
			return
		}
		p.fails = 0
		delete(s.failing, p)
		if about.index < p.index {
			return
		}
		p.index = about.index
		why := about.doubt()
		if why == noDoubt && f.waiting[p.scope] {
			why = s.why
		}
		s.take(f, p, entries, why)
		if f.trigger != nil {
			f.trigger.compare(s, f, p, v)
		}
	}
}
