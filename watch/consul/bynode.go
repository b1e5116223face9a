package consul

import (
	"time"

	"github.com/hashicorp/consul/api"
	"golang.org/x/time/rate"
)

// nodeView is one node's services and checks, which come in answers of their
// own. Consul changes both in one step (an instance comes with its checks and
// goes with them), so where one answer shows such a step the other half is read
// before anything is concluded: an instance whose checks are not known yet must
// not pass for healthy.
type nodeView struct {
	services, checks half
	list             *api.CatalogNodeServiceList
	health           api.HealthChecks
}

// half is the state of one of the two answers.
type half struct {
	known bool
	index uint64
	why   doubt
	// wanted says that a newer one is needed before the view is applied.
	wanted bool
}

func (v *nodeView) ready() bool {
	return v.services.known && v.checks.known && !v.services.wanted && !v.checks.wanted
}

// doubt is the first of the two halves.
func (v *nodeView) doubt() doubt {
	if v.services.why != noDoubt {
		return v.services.why
	}
	return v.checks.why
}

// takeServices is true if the checks must be read again: there are services that
// were not there before.
func (v *nodeView) takeServices(list *api.CatalogNodeServiceList, about meta, why doubt) bool {
	before := ids(v.list)
	first := !v.services.known
	v.list = list
	v.services = half{known: true, index: about.index, why: why}
	if first {
		return false
	}
	for id := range ids(list) {
		if !before[id] {
			v.checks.wanted = true
			return true
		}
	}
	return false
}

// takeChecks is true if the services must be read again: one has lost all its
// checks.
func (v *nodeView) takeChecks(checks api.HealthChecks, about meta, why doubt) bool {
	before := checked(v.health)
	first := !v.checks.known
	v.health = checks
	v.checks = half{known: true, index: about.index, why: why}
	if first {
		return false
	}
	after, there := checked(checks), ids(v.list)
	for id := range before {
		if !after[id] && there[id] {
			v.services.wanted = true
			return true
		}
	}
	return false
}

func ids(list *api.CatalogNodeServiceList) map[string]bool {
	found := map[string]bool{}
	if list != nil {
		for _, s := range list.Services {
			if s != nil {
				found[s.ID] = true
			}
		}
	}
	return found
}

func checked(checks api.HealthChecks) map[string]bool {
	found := map[string]bool{}
	for _, c := range checks {
		if c != nil && c.ServiceID != "" {
			found[c.ServiceID] = true
		}
	}
	return found
}

// followNodes follows the names of the datacenter's nodes, and each node.
func (s *session) followNodes(f *following) {
	s.pulse(f, func(spec pollSpec) {
		poll(s, f.ctx, spec, s.why, s.d.readNodes, func(v []*api.Node, about meta, why doubt) {
			if !s.beat(about) {
				return
			}
			s.nodesIndex = about.index
			names := make(map[string]bool, len(v))
			for _, n := range v {
				if n != nil {
					names[n.Node] = true
				}
			}
			s.list(f, ofNode, names, why, func(p *followed) { s.followNode(f, p) })
			s.rechoose()
		})
	})
}

// perNode is perScope for answers that hold a whole node.
func perNode() *rate.Limiter { return rate.NewLimiter(20, 20) }

func (s *session) followNode(f *following, p *followed) {
	p.node = &nodeView{}
	wait := s.d.wait
	if s.d.t.plain() {
		wait = min(wait, plainWait)
	}
	fail := func(err error) {
		s.answered(f, p.scope)
		s.failed(err)
	}
	services := func(q *api.QueryOptions) (*api.CatalogNodeServiceList, error) {
		v, _, err := s.d.t.api.Catalog().NodeServiceList(p.scope.name, q)
		return v, err
	}
	poll(s, p.ctx, pollSpec{wait: wait, pace: perNode(), fail: fail}, s.why, services,
		func(v *api.CatalogNodeServiceList, about meta, why doubt) {
			if about.reset {
				s.check()
			} else if why == noDoubt && about.index < p.node.services.index {
				return
			}
			if p.node.takeServices(v, about, why) {
				s.reread(f, p)
			}
			s.applyNode(f, p)
		})
	checks := func(q *api.QueryOptions) (api.HealthChecks, error) {
		v, _, err := s.d.t.api.Health().Node(p.scope.name, q)
		return v, err
	}
	poll(s, p.ctx, pollSpec{wait: wait, pace: perNode(), fail: fail}, s.why, checks,
		func(v api.HealthChecks, about meta, why doubt) {
			if about.reset {
				s.check()
			} else if why == noDoubt && about.index < p.node.checks.index {
				return
			}
			if p.node.takeChecks(v, about, why) {
				s.reread(f, p)
			}
			s.applyNode(f, p)
		})
}

// applyNode takes in a node once both halves fit each other.
func (s *session) applyNode(f *following, p *followed) {
	if !p.node.ready() {
		return
	}
	why := p.node.doubt()
	p.node.services.why, p.node.checks.why = noDoubt, noDoubt
	s.recount = true
	s.take(f, p, convertNode(p.node.list, p.node.health, s.d.remote), why)
}

// countServices is how many names of services the nodes have, those included
// that are left out of the catalog.
func (s *session) countServices() int {
	names := map[string]bool{}
	for _, p := range s.follow.scopes {
		if p.node == nil || p.node.list == nil {
			continue
		}
		for _, service := range p.node.list.Services {
			if service != nil {
				names[service.Service] = true
			}
		}
	}
	return len(names)
}

// readNode reads both halves of a node once, the checks last: they are the ones
// that must not be older.
func (s *session) readNode(f *following, p *followed) func() {
	list, services, err := query(p.ctx, s.d.t, s.d.name, 0, time.Duration(0), func(q *api.QueryOptions) (*api.CatalogNodeServiceList, error) {
		v, _, err := s.d.t.api.Catalog().NodeServiceList(p.scope.name, q)
		return v, err
	})
	var health api.HealthChecks
	var checks meta
	if err == nil {
		health, checks, err = query(p.ctx, s.d.t, s.d.name, 0, time.Duration(0), func(q *api.QueryOptions) (api.HealthChecks, error) {
			v, _, err := s.d.t.api.Health().Node(p.scope.name, q)
			return v, err
		})
	}
	return func() {
		v := p.node
		if err != nil {
			s.retry(f, p, err)
			return
		}
		p.fails = 0
		delete(s.failing, p)
		if !v.services.known || services.index >= v.services.index {
			v.list, v.services = list, half{known: true, index: services.index, why: firstDoubt(v.services, services, s.why)}
		}
		if !v.checks.known || checks.index >= v.checks.index {
			v.health, v.checks = health, half{known: true, index: checks.index, why: firstDoubt(v.checks, checks, s.why)}
		}
		v.services.wanted, v.checks.wanted = false, false
		s.applyNode(f, p)
	}
}

// firstDoubt is the doubt about a half that was read besides its poll: that of
// the session if there was none before it, else one that was not applied yet, or
// its own.
func firstDoubt(before half, about meta, session doubt) doubt {
	switch {
	case !before.known && session != noDoubt:
		return session
	case before.why != noDoubt:
		return before.why
	default:
		return about.doubt()
	}
}
