package consul

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
	"golang.org/x/time/rate"
)

// notPassing are the checks that say something about health: all others pass, whichever
// they are. A node may have hundreds of those, and answers about them would take Consul
// and mi-lb longer than everything else that a change of one check causes.
const notPassing = `Status != "passing" or CheckID matches "^(_node_maintenance$|_service_maintenance:)"`

// nodeView is one node's services, and those of its checks that do not pass, which come
// in answers of their own. Consul changes both in one step (an instance comes with its
// checks and goes with them), so where one answer shows what may be such a step the
// other half is read, unless its poll brings it, before anything is concluded: an
// instance whose checks are not known yet must not pass for healthy, nor must one that
// is gone because its check is.
type nodeView struct {
	services, checks half
	list             []*nodeService
	ids              map[string]bool
	common           []check            // of the node itself
	own              map[string][]check // by service id
	// unsure are services that may be gone.
	unsure unsure
}

// half is the state of one of the two answers.
type half struct {
	known bool
	index uint64
	why   doubt
	// wanted says that a newer one is needed before the view is applied.
	wanted bool
}

// unsure are the services that have lost all checks that did not pass: they pass now, or
// are gone with them. All of them are where it was the node that lost such checks.
type unsure struct {
	all bool
	ids map[string]bool
}

// ask is the filter for those services and no others; "" where all are to be read.
func (u unsure) ask() string {
	// Above that, all are as quick.
	const most = 16
	if u.all || len(u.ids) == 0 || len(u.ids) > most {
		return ""
	}
	var terms []string
	for id := range u.ids {
		if !quotable(id) {
			return ""
		}
		terms = append(terms, `ID == "`+id+`"`)
	}
	return strings.Join(terms, " or ")
}

// quotable says whether the text means itself in one of Consul's filters.
func quotable(id string) bool {
	const most = 256
	return len(id) <= most && !strings.ContainsFunc(id, func(c rune) bool {
		return c < ' ' || c > '~' || c == '"' || c == '\\' || c == '`'
	})
}

// without are those that are left when some have been read.
func (u unsure) without(read unsure) unsure {
	if read.all || read.ask() == "" {
		return unsure{}
	}
	left := unsure{all: u.all}
	for id := range u.ids {
		if !read.ids[id] {
			left.add(id)
		}
	}
	return left
}

func (u *unsure) add(id string) {
	ids := map[string]bool{id: true}
	maps.Copy(ids, u.ids)
	u.ids = ids
}

func (u unsure) any() bool { return u.all || len(u.ids) > 0 }

// lacking says what is to be read of a node.
type lacking struct {
	services, checks bool
	// filter is for a part of the services.
	filter string
	unsure unsure
}

// lacks is the half that is wanted, and both where none is in particular.
func (v *nodeView) lacks() lacking {
	if v.unsure.any() == v.checks.wanted {
		return lacking{services: true, checks: true, unsure: unsure{all: true}}
	}
	return lacking{services: v.unsure.any(), checks: v.checks.wanted, filter: v.unsure.ask(), unsure: v.unsure}
}

// nodeService is a service of a node, as an answer has it.
type nodeService struct {
	id, name string
	// entry lacks its health. It is none for what is no service (see convert).
	entry   entry
	typical bool
}

func (v *nodeView) ready() bool {
	return v.services.known && v.checks.known && !v.unsure.any() && !v.checks.wanted
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
	if about.index >= v.checks.index {
		v.unsure = unsure{}
	}
	v.services = half{known: true, index: about.index, why: why}
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

// setSome takes in an answer about some of the services; which is not to say anything
// about the others.
func (v *nodeView) setSome(ids map[string]bool, some []*nodeService) {
	list := slices.DeleteFunc(slices.Clone(v.list), func(s *nodeService) bool { return ids[s.id] })
	v.setServices(append(list, some...))
}

// takeChecks has services wanted that have lost all checks which did not pass, if they
// are older.
func (v *nodeView) takeChecks(checks []*check, about meta, why doubt) {
	common, own, first := v.common, v.own, !v.checks.known
	v.setChecks(checks)
	v.checks = half{known: true, index: about.index, why: why, wanted: v.checks.wanted && about.index < v.services.index}
	if first || v.services.index >= about.index {
		return
	}
	if len(common) > 0 && len(v.common) == 0 {
		v.unsure.all = true
	}
	for id := range own {
		if len(v.own[id]) == 0 && v.ids[id] {
			v.unsure.add(id)
		}
	}
}

func (v *nodeView) setChecks(checks []*check) {
	v.common, v.own = nil, map[string][]check{}
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
	metas    metas
}

func (r *nodeReader) readServices(q *api.QueryOptions) ([]*nodeService, error) {
	return r.servicesWith(&r.services, q)
}

// readSome reads the services that a filter lets through; all where it is none.
func (r *nodeReader) readSome(filter string) func(*api.QueryOptions) ([]*nodeService, error) {
	if filter == "" {
		return r.readServices
	}
	return func(q *api.QueryOptions) ([]*nodeService, error) {
		q.Filter = filter
		// Whether they are gone is not to be asked of a server that may not know yet.
		q.AllowStale = false
		return r.servicesWith(&memo[nodeService]{}, q)
	}
}

func (r *nodeReader) servicesWith(known *memo[nodeService], q *api.QueryOptions) (all []*nodeService, err error) {
	err = readText(q, func(q *api.QueryOptions) error {
		_, _, err := r.t.api.Catalog().NodeServiceList(r.node, q)
		return err
	}, func(text []byte) error {
		all, err = r.decodeServices(known, text)
		return err
	})
	return all, err
}

func (r *nodeReader) decodeServices(known *memo[nodeService], answer []byte) ([]*nodeService, error) {
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
	return known.all(list, about, func(element []byte) (nodeService, error) {
		service, err := decode[api.AgentService](element, "a service of the node")
		if err != nil {
			return nodeService{}, err
		}
		service.Meta = r.metas.same(service.Meta)
		s := nodeService{id: service.ID, name: service.Service}
		s.entry, s.typical = convert(node, &service, r.remote)
		return s, nil
	})
}

func (r *nodeReader) readChecks(q *api.QueryOptions) (all []*check, err error) {
	err = readText(q, func(q *api.QueryOptions) error {
		q.Filter = notPassing
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

// otherHalf is how long the poll for a node's services may be behind the one for its
// checks when one change has woken both: its answer is the larger one by far.
const otherHalf = 20 * time.Millisecond

// awaitHalf reads the half that is wanted, unless it is a large one that its poll may
// bring just as soon.
func (s *session) awaitHalf(f *following, p *followed) {
	if p.reread {
		return // what it brings is looked at in the same way
	}
	if p.node.unsure.any() && p.node.unsure.ask() == "" {
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
		return
	}
	s.reread(f, p)
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
		list, services, err = query(p.ctx, s.d.t, s.d.name, 0, time.Duration(0), p.reader.readSome(p.read.filter))
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
			switch {
			case v.services.known && services.index < v.services.index:
			case p.read.filter == "":
				v.setServices(list)
				v.services = half{known: true, index: services.index, why: firstDoubt(v.services, services, s.why)}
			default:
				// The index stays: that answer to the poll which is on its way says
				// more than this one does.
				v.setSome(p.read.unsure.ids, list)
				v.services.why = firstDoubt(v.services, services, s.why)
			}
			v.unsure = v.unsure.without(p.read.unsure)
		}
		if p.read.checks {
			if !v.checks.known || checks.index >= v.checks.index {
				v.takeChecks(health, checks, firstDoubt(v.checks, checks, s.why))
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
