package consul

import (
	"time"

	"github.com/hashicorp/consul/api"
	"golang.org/x/time/rate"
)

// nodeView is one node's services and checks, which come in answers of their
// own. Consul changes both in one step (an instance comes with its checks and
// goes with them), so where one answer shows such a step the other half is awaited,
// and read if it does not come, before anything is concluded: an instance whose checks
// are not known yet must not pass for healthy.
type nodeView struct {
	services, checks half
	list             []*nodeService
	ids              map[string]bool
	common           []check            // of the node itself
	own              map[string][]check // by service id
}

// half is the state of one of the two answers.
type half struct {
	known bool
	index uint64
	why   doubt
	// wanted says that a newer one is needed before the view is applied.
	wanted bool
}

// halves says which of the two are to be read.
type halves struct{ services, checks bool }

// lacks is the half that is wanted, and both where none is in particular.
func (v *nodeView) lacks() halves {
	if v.services.wanted == v.checks.wanted {
		return halves{true, true}
	}
	return halves{v.services.wanted, v.checks.wanted}
}

// nodeService is a service of a node, as an answer has it.
type nodeService struct {
	id, name string
	// entry lacks its health. It is none for what is no service (see convert).
	entry   entry
	typical bool
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

// takeServices has the checks wanted if there are services that were not there before
// and the checks are older.
func (v *nodeView) takeServices(list []*nodeService, about meta, why doubt) {
	before, first := v.ids, !v.services.known
	v.setServices(list)
	v.services = half{known: true, index: about.index, why: why, wanted: v.services.wanted && about.index < v.checks.index}
	if first || v.checks.index >= about.index {
		return
	}
	for id := range v.ids {
		if !before[id] {
			v.checks.wanted = true
			return
		}
	}
}

func (v *nodeView) setServices(list []*nodeService) {
	v.list, v.ids = list, make(map[string]bool, len(list))
	for _, s := range list {
		v.ids[s.id] = true
	}
}

// takeChecks has the services wanted if one has lost all its checks and they are older.
func (v *nodeView) takeChecks(checks []*check, about meta, why doubt) {
	before, first := v.own, !v.checks.known
	v.setChecks(checks)
	v.checks = half{known: true, index: about.index, why: why, wanted: v.checks.wanted && about.index < v.services.index}
	if first || v.services.index >= about.index {
		return
	}
	for id := range before {
		if len(v.own[id]) == 0 && v.ids[id] {
			v.services.wanted = true
			return
		}
	}
}

func (v *nodeView) setChecks(checks []*check) {
	v.common, v.own = nil, make(map[string][]check, len(checks))
	for _, c := range checks {
		if c.service == "" {
			v.common = append(v.common, *c)
		} else {
			v.own[c.service] = append(v.own[c.service], *c)
		}
	}
}

// entries are the services with their health.
func (v *nodeView) entries() []entry {
	entries := make([]entry, 0, len(v.list))
	for _, s := range v.list {
		if s.typical {
			e := s.entry
			e.instance.Health, e.instance.Reason = health(v.common, v.own[s.id])
			entries = append(entries, e)
		}
	}
	return unique(entries)
}

// nodeReader reads the two answers about one node.
type nodeReader struct {
	t        *transport
	node     string
	remote   bool
	services memo[nodeService]
	checks   memo[check]
}

func (r *nodeReader) readServices(q *api.QueryOptions) (all []*nodeService, err error) {
	err = readText(q, func(q *api.QueryOptions) error {
		_, _, err := r.t.api.Catalog().NodeServiceList(r.node, q)
		return err
	}, func(text []byte) error {
		all, err = r.decodeServices(text)
		return err
	})
	return all, err
}

func (r *nodeReader) decodeServices(answer []byte) ([]*nodeService, error) {
	var about, list []byte
	err := eachField(answer, func(name, value []byte) error {
		switch string(name) {
		case "Node":
			about = value
		case "Services":
			list = value
		}
		return nil
	})
	if err != nil || about == nil || list == nil {
		return nil, err
	}
	node, err := decode[*api.Node](about, "the node")
	if err != nil {
		return nil, err
	}
	return r.services.all(list, about, func(element []byte) (nodeService, error) {
		service, err := decode[api.AgentService](element, "a service of the node")
		if err != nil {
			return nodeService{}, err
		}
		s := nodeService{id: service.ID, name: service.Service}
		s.entry, s.typical = convert(node, &service, r.remote)
		return s, nil
	})
}

func (r *nodeReader) readChecks(q *api.QueryOptions) (all []*check, err error) {
	err = readText(q, func(q *api.QueryOptions) error {
		_, _, err := r.t.api.Health().Node(r.node, q)
		return err
	}, func(text []byte) error {
		all, err = r.checks.all(text, nil, func(element []byte) (check, error) {
			c, err := decode[api.HealthCheck](element, "a check of the node")
			return convertCheck(&c), err
		})
		return err
	})
	return all, err
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
	p.reader = &nodeReader{t: s.d.t, node: p.scope.name, remote: s.d.remote}
	wait := s.d.wait
	if s.d.t.plain() {
		wait = min(wait, plainWait)
	}
	fail := func(err error) {
		s.answered(f, p.scope)
		s.failed(err)
	}
	poll(s, p.ctx, pollSpec{wait: wait, pace: perNode(), fail: fail}, s.why, p.reader.readServices,
		func(v []*nodeService, about meta, why doubt) {
			if about.reset {
				s.check()
			} else if why == noDoubt && about.index < p.node.services.index {
				return
			}
			p.node.takeServices(v, about, why)
			s.applyNode(f, p)
		})
	poll(s, p.ctx, pollSpec{wait: wait, pace: perNode(), fail: fail}, s.why, p.reader.readChecks,
		func(v []*check, about meta, why doubt) {
			if about.reset {
				s.check()
			} else if why == noDoubt && about.index < p.node.checks.index {
				return
			}
			p.node.takeChecks(v, about, why)
			s.applyNode(f, p)
		})
}

// applyNode takes in a node once both halves fit each other.
func (s *session) applyNode(f *following, p *followed) {
	if !p.node.services.known || !p.node.checks.known {
		return
	}
	if !p.node.ready() {
		s.awaitHalf(f, p)
		return
	}
	why := p.node.doubt()
	p.node.services.why, p.node.checks.why = noDoubt, noDoubt
	s.recount = true
	s.take(f, p, p.node.entries(), why)
}

// otherHalf is how long the second of two polls that one change has woken may be behind
// the first.
const otherHalf = 5 * time.Millisecond

// awaitHalf reads the half that is wanted, unless its poll brings it meanwhile.
func (s *session) awaitHalf(f *following, p *followed) {
	if p.awaited {
		return
	}
	p.awaited = true
	time.AfterFunc(otherHalf, func() {
		s.send(p.ctx, func() {
			p.awaited = false
			if !p.node.ready() {
				s.reread(f, p)
			}
		})
	})
}

// countServices is how many names of services the nodes have, those included
// that are left out of the catalog.
func (s *session) countServices() int {
	names := map[string]bool{}
	for _, p := range s.follow.scopes {
		if p.node == nil {
			continue
		}
		for _, service := range p.node.list {
			names[service.name] = true
		}
	}
	return len(names)
}

// readNode reads a node once: the half that is wanted, or both, the checks last: they
// are the ones that must not be older.
func (s *session) readNode(f *following, p *followed) func() {
	var list []*nodeService
	var services, checks meta
	var health []*check
	var err error
	if p.read.services {
		list, services, err = query(p.ctx, s.d.t, s.d.name, 0, time.Duration(0), p.reader.readServices)
	}
	if err == nil && p.read.checks {
		health, checks, err = query(p.ctx, s.d.t, s.d.name, 0, time.Duration(0), p.reader.readChecks)
	}
	return func() {
		v := p.node
		if err != nil {
			s.retry(f, p, err)
			return
		}
		p.fails = 0
		delete(s.failing, p)
		if p.read.services {
			if !v.services.known || services.index >= v.services.index {
				v.setServices(list)
				v.services = half{known: true, index: services.index, why: firstDoubt(v.services, services, s.why)}
			}
			v.services.wanted = false
		}
		if p.read.checks {
			if !v.checks.known || checks.index >= v.checks.index {
				v.setChecks(health)
				v.checks = half{known: true, index: checks.index, why: firstDoubt(v.checks, checks, s.why)}
			}
			v.checks.wanted = false
		}
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
