package survey

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
	"github.com/mi-lb/mi-lb/provision/fleet"
	"github.com/mi-lb/mi-lb/provision/plan"
	"github.com/mi-lb/mi-lb/provision/secrets"
)

// Options are what a survey needs.
type Options struct {
	// Components are all components, in the order of waves.
	Components []component.Component
	Cluster    *cluster.Cluster
	Fleet      *fleet.Fleet
	// Secrets gives the bundle that has all that the cluster needs. It is called when
	// the addresses of all machines are known, which certificates are for.
	Secrets func(*cluster.Cluster) (*secrets.Bundle, error)
	// Program is the mi-lb that is installed on nodes, a file on this machine.
	Program string
	// Forks is how many machines are asked at once; 0 is 20.
	Forks int
	// Stamps is the directory of stamps on machines; empty is [facts.StampsDirectory].
	Stamps string
}

// DefaultForks is how many machines are worked on at once.
const DefaultForks = 20

// Survey is what is known. Its methods may be called concurrently.
type Survey struct {
	options Options
	files   *files

	mu          sync.Mutex
	cluster     *cluster.Cluster
	bundle      *secrets.Bundle
	facts       map[string]*facts.Facts
	asks        map[string]facts.Ask
	unreachable map[string]error
	parts       map[string][]*desired.Part
	problems    map[string][]component.Problem
}

// Look finds out all that is known. Machines that cannot be reached are no error.
func Look(ctx context.Context, o Options) (*Survey, error) {
	if o.Forks < 1 {
		o.Forks = DefaultForks
	}
	s := &Survey{
		options: o, files: &files{}, cluster: o.Cluster, facts: map[string]*facts.Facts{}, asks: map[string]facts.Ask{},
		parts: map[string][]*desired.Part{}, problems: map[string][]component.Problem{}, unreachable: map[string]error{},
	}
	guess, err := newGuess(o)
	if err != nil {
		return nil, err
	}
	var g errgroup.Group
	g.SetLimit(o.Forks)
	for _, n := range o.Cluster.Nodes() {
		g.Go(func() error {
			ask := guess.ask(n)
			f, err := s.gather(ctx, n.Name, ask)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.asks[n.Name] = ask
			if err != nil {
				s.unreachable[n.Name] = err
			} else {
				s.facts[n.Name] = f
			}
			return nil
		})
	}
	_ = g.Wait() // none of them fails
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	s.cluster = s.located()
	if s.bundle, err = o.Secrets(s.cluster); err != nil {
		return nil, err
	}
	var again errgroup.Group
	again.SetLimit(o.Forks)
	for _, n := range s.cluster.Nodes() {
		again.Go(func() error { return s.complete(ctx, n) })
	}
	return s, again.Wait()
}

func (s *Survey) gather(ctx context.Context, node string, ask facts.Ask) (*facts.Facts, error) {
	m, err := s.options.Fleet.Machine(node)
	if err != nil {
		return nil, err
	}
	f, err := facts.Gather(ctx, m, ask)
	if err != nil {
		return nil, err
	}
	f.Node = node
	return f, nil
}

// located is the cluster with the addresses that were found on machines, where the
// inventory leaves that open.
func (s *Survey) located() *cluster.Cluster {
	c := *s.cluster
	p := component.Platform{Cluster: s.cluster, Facts: s.facts}
	c.Datacenters = nil
	for _, d := range s.cluster.Datacenters {
		copied := *d
		copied.Nodes = nil
		for _, n := range d.Nodes {
			if !n.Address.IsValid() {
				found := *n
				if found.Interface == "" && s.facts[n.Name] != nil {
					// Of several, the one that leads out.
					if _, err := p.Address(&found); err != nil {
						found.Interface = s.facts[n.Name].Outward
					}
				}
				if a, err := p.Address(&found); err == nil {
					found.Address = a
					if !found.WANAddress.IsValid() {
						found.WANAddress = a
					}
				}
				n = &found
			}
			copied.Nodes = append(copied.Nodes, n)
		}
		c.Datacenters = append(c.Datacenters, &copied)
	}
	return &c
}

// mostRounds is how often a machine is asked at most.
const mostRounds = 4

// complete says what a machine should be, and asks it again if that takes more than
// is known.
func (s *Survey) complete(ctx context.Context, n *cluster.Node) error {
	for range mostRounds {
		s.mu.Lock()
		f, ask := s.facts[n.Name], s.asks[n.Name]
		s.mu.Unlock()
		parts, problems := s.desired(n)
		s.mu.Lock()
		s.parts[n.Name], s.problems[n.Name] = parts, problems
		s.mu.Unlock()
		if f == nil {
			return nil
		}
		wanted := plan.AskLeft(f)
		for _, p := range parts {
			wanted.Add(plan.Ask(p))
		}
		if ask.Covers(wanted) {
			return nil
		}
		ask.Add(wanted)
		f, err := s.gather(ctx, n.Name, ask)
		s.mu.Lock()
		s.asks[n.Name] = ask
		if err != nil {
			s.unreachable[n.Name] = err
			delete(s.facts, n.Name)
		} else {
			s.facts[n.Name] = f
		}
		s.mu.Unlock()
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
	}
	return fmt.Errorf("%s: what components want of it is another each time it is asked", n.Name)
}

// Again looks at a machine again, after something was changed there.
func (s *Survey) Again(ctx context.Context, node string) error {
	n, ok := s.cluster.Node(node)
	if !ok {
		return fmt.Errorf("there is no node %s", node)
	}
	s.mu.Lock()
	ask := s.asks[node]
	s.mu.Unlock()
	f, err := s.gather(ctx, node, ask)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.facts[node] = f
	delete(s.unreachable, node)
	s.mu.Unlock()
	if err := s.complete(ctx, n); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unreachable[node]
}

// desired are the parts that components want of a node.
func (s *Survey) desired(n *cluster.Node) ([]*desired.Part, []component.Problem) {
	p := s.Platform()
	var parts []*desired.Part
	var problems []component.Problem
	if p.Facts[n.Name] == nil {
		return nil, nil // that it is not reached is said once, not by every component
	}
	for _, c := range s.options.Components {
		if !c.On(n) {
			continue
		}
		part, found := c.Desired(p, n)
		problems = append(problems, found...)
		if checker, ok := c.(component.Checker); ok {
			problems = append(problems, checker.Check(p, n)...)
		}
		if part == nil {
			continue
		}
		part.Component = c.Name()
		problems = append(problems, s.files.resolve(n.Name, part)...)
		parts = append(parts, part)
	}
	for _, left := range plan.Left(p.Facts[n.Name], parts) {
		if slices.ContainsFunc(s.options.Components, func(c component.Component) bool { return c.Name() == left && c.On(n) }) {
			continue // it could not be told what is wanted of it
		}
		problems = append(problems, component.Problem{
			Code: "left-over", Node: n.Name, Component: left, Message: "an earlier run has put it there, and the inventory does not want it on this machine any more",
			Advice: "if it is to go: mi-lb bootstrap reset --component " + left + " --limit " + n.Name,
		})
	}
	return parts, problems
}

// Platform is what components are asked with.
func (s *Survey) Platform() component.Platform {
	s.mu.Lock()
	defer s.mu.Unlock()
	return component.Platform{Cluster: s.cluster, Secrets: s.bundle, Facts: maps.Clone(s.facts), Program: s.options.Program}
}

// Parts are what components want of a node, in the order of waves.
func (s *Survey) Parts(node string) []*desired.Part {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parts[node]
}

// Facts are what was found on a node; nil if it is not reached.
func (s *Survey) Facts(node string) *facts.Facts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.facts[node]
}

// Unreachable are the nodes that could not be looked at, and why.
func (s *Survey) Unreachable() map[string]error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.unreachable)
}

// Problems are what components found wrong, by node.
func (s *Survey) Problems(node string) []component.Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.problems[node]
}

// Component is the component of that name.
func (s *Survey) Component(name string) (component.Component, bool) {
	for _, c := range s.options.Components {
		if c.Name() == name {
			return c, true
		}
	}
	return nil, false
}

// Scope is what a plan is about: some nodes, some components, or all.
type Scope struct {
	// Nodes and Components are nil for all.
	Nodes, Components []string
}

// Has says whether a component on a node is in it.
func (s Scope) Has(node, component string) bool {
	return (s.Nodes == nil || slices.Contains(s.Nodes, node)) && (s.Components == nil || slices.Contains(s.Components, component))
}

// Plan is what has to be done. It asks components that have state of their own what
// is missing there, which changes nothing.
func (s *Survey) Plan(ctx context.Context, scope Scope, mask func(string) string) (*plan.Plan, error) {
	p := s.Platform()
	made := &plan.Plan{Made: time.Now().UTC().Truncate(time.Second), Platform: p.Cluster.Domain, Facts: map[string]map[string]string{}, Waves: []plan.Wave{}}
	changes := map[string]map[string]*plan.Host{}
	for _, n := range p.Cluster.Nodes() {
		if scope.Nodes != nil && !slices.Contains(scope.Nodes, n.Name) {
			continue
		}
		if err := s.Unreachable()[n.Name]; err != nil {
			made.Unreachable = append(made.Unreachable, plan.Unreachable{Node: n.Name, Datacenter: n.Datacenter, Why: mask(err.Error())})
			continue
		}
		f := p.Facts[n.Name]
		made.Facts[n.Name] = plan.Fingerprint(f)
		made.Problems = append(made.Problems, s.Problems(n.Name)...)
		changes[n.Name] = plan.Diff(s.Parts(n.Name), f, mask)
	}
	for _, c := range s.options.Components {
		w := plan.Wave{Component: c.Name()}
		for _, n := range p.Cluster.Nodes() {
			if h := changes[n.Name][c.Name()]; h != nil && scope.Has(n.Name, c.Name()) {
				h.Datacenter = n.Datacenter
				w.Hosts = append(w.Hosts, *h)
			}
		}
		if scope.Components == nil || slices.Contains(scope.Components, c.Name()) {
			actions, problems := s.actions(ctx, c, p, scope)
			w.Actions = actions
			made.Problems = append(made.Problems, problems...)
		}
		w.Order = s.order(ctx, c, p, w.Hosts)
		w.Lost = s.lost(ctx, c, p, w.Order)
		if len(w.Hosts) > 0 || len(w.Actions) > 0 {
			made.Waves = append(made.Waves, w)
		}
	}
	slices.SortStableFunc(made.Problems, func(a, b component.Problem) int {
		return cmp.Or(rank(b.Fatal)-rank(a.Fatal), cmp.Compare(a.Node, b.Node))
	})
	made.Problems = slices.Compact(made.Problems)
	return made, context.Cause(ctx)
}

func rank(fatal bool) int {
	if fatal {
		return 1
	}
	return 0
}

// Datacenters are all datacenters, the primary first: others depend on it.
func Datacenters(c *cluster.Cluster) []*cluster.Datacenter {
	all := slices.Clone(c.Datacenters)
	slices.SortStableFunc(all, func(a, b *cluster.Datacenter) int { return rank(b.Name == c.Primary) - rank(a.Name == c.Primary) })
	return all
}

// actions are what is missing in a component's own state.
func (s *Survey) actions(ctx context.Context, c component.Component, p component.Platform, scope Scope) ([]component.Action, []component.Problem) {
	configurer, ok := c.(component.Configurer)
	if !ok {
		return nil, nil
	}
	var all []component.Action
	var problems []component.Problem
	for _, d := range Datacenters(p.Cluster) {
		// Only a datacenter that has it, with a machine that the plan is about.
		if !slices.ContainsFunc(d.Nodes, func(n *cluster.Node) bool { return c.On(n) && scope.Has(n.Name, c.Name()) }) {
			continue
		}
		if !slices.ContainsFunc(d.Nodes, func(n *cluster.Node) bool { return c.On(n) && p.Facts[n.Name] != nil }) {
			continue
		}
		actions, err := configurer.Pending(ctx, p, d, s.options.Fleet)
		switch {
		case errors.Is(err, component.ErrNotRunning):
			actions = configurer.Expected(p, d)
		case err != nil:
			problems = append(problems, component.Problem{
				Code: "state-unknown", Component: c.Name(), Message: fmt.Sprintf("it cannot be told what its state in %s lacks: %v", d.Name, err),
				Advice: "it is asked again when it was applied; mi-lb bootstrap status says more",
			})
		}
		all = append(all, actions...)
	}
	return all, problems
}

// order is in which order members are going to be restarted.
func (s *Survey) order(ctx context.Context, c component.Component, p component.Platform, hosts []plan.Host) map[string][]string {
	all := map[string][]string{}
	byDatacenter := map[string][]*cluster.Node{}
	for _, h := range hosts {
		if len(h.Restarts()) == 0 || !Guarded(c, h.Part) {
			continue
		}
		if n, ok := p.Cluster.Node(h.Node); ok {
			byDatacenter[h.Datacenter] = append(byDatacenter[h.Datacenter], n)
		}
	}
	for datacenter, nodes := range byDatacenter {
		if roller, ok := c.(component.Roller); ok && len(nodes) > 1 {
			// Who leads now may not when it comes to it; then it is asked again.
			if sorted, err := roller.Order(ctx, p, nodes, s.options.Fleet); err == nil {
				nodes = sorted
			}
		}
		for _, n := range nodes {
			all[datacenter] = append(all[datacenter], n.Name)
		}
	}
	return all
}

// lost is why there is no quorum to protect, by datacenter, where members restart.
func (s *Survey) lost(ctx context.Context, c component.Component, p component.Platform, order map[string][]string) map[string]string {
	quorate, ok := c.(component.Quorate)
	if !ok {
		return nil
	}
	all := map[string]string{}
	for name := range order {
		d, ok := p.Cluster.Datacenter(name)
		if !ok || len(order[name]) < 2 {
			continue
		}
		// Where it cannot be told, it is protected.
		if q, err := quorate.Quorum(ctx, p, d, s.options.Fleet); err == nil && q.Lost != "" {
			all[name] = q.Lost
		}
	}
	return all
}

// Guarded says whether only one member of a component may be restarted at a time
// in a datacenter.
func Guarded(c component.Component, part *desired.Part) bool {
	if _, ok := c.(component.Roller); ok {
		return true
	}
	return part != nil && slices.ContainsFunc(part.Units, func(u desired.Unit) bool { return u.Quorum })
}
