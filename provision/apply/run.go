package apply

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/facts"
	"github.com/mi-lb/mi-lb/provision/fleet"
	"github.com/mi-lb/mi-lb/provision/plan"
	"github.com/mi-lb/mi-lb/provision/survey"
)

// Options are what a run needs.
type Options struct {
	Survey     *survey.Survey
	Fleet      *fleet.Fleet
	Components []component.Component
	Scope      survey.Scope
	// Forks is how many machines are worked on at once; 0 is [survey.DefaultForks].
	Forks int
	// Patience is how long a gate waits for health; 0 is five minutes.
	Patience time.Duration
	// Cache is a directory for what is downloaded to be sent to machines.
	Cache string
	// Stamps is the directory of stamps on machines; empty is [facts.StampsDirectory].
	Stamps string
	// Stop ends the run after the steps that are being done; nil is never.
	Stop <-chan struct{}
	// Report gets what happens, from several goroutines.
	Report func(Event)
	Log    *slog.Logger
	// Keep stores what a component writes down of its own state, before members of its
	// quorum are changed, and says where; nil keeps nothing.
	Keep func(component, datacenter string, write func(io.Writer) error) (where string, err error)
	// Mask hides secrets in what is reported.
	Mask func(string) string
}

// Failure is something that did not work.
type Failure struct {
	Node       string `json:"node,omitempty"`
	Datacenter string `json:"datacenter"`
	Component  string `json:"component"`
	Message    string `json:"message"`
}

// String is the failure on one line.
func (f Failure) String() string {
	where := f.Node
	if where == "" {
		where = f.Datacenter
	}
	return fmt.Sprintf("%s, %s: %s", where, f.Component, f.Message)
}

// Outcome is what a run came to.
type Outcome struct {
	Failures []Failure `json:"failures"`
	// Left is what was not done because of failures or because the run was stopped:
	// "mesos-agent in dc1 (worker-01, worker-02)".
	Left []string `json:"left"`
	// Stopped says that the run was told to stop.
	Stopped bool `json:"stopped"`
	// Kept says where state that was written down before changes is.
	Kept []string `json:"kept,omitempty"`
	// Changes is how many changes were made, Restarts how many units were restarted.
	Changes  int `json:"changes"`
	Restarts int `json:"restarts"`
}

// DefaultPatience is how long a gate waits for health.
const DefaultPatience = 5 * time.Minute

type runner struct {
	Options
	forks     *semaphore.Weighted
	downloads sync.Mutex

	mu      sync.Mutex
	outcome Outcome
	failed  map[string]string // why, by node
	stopped map[string]string // why, by datacenter
	dirty   map[string]bool   // nodes that have changed since they were looked at
}

// Run makes the machines what the survey wants of them. The error is about the run
// as a whole; what failed on machines is in the outcome.
func Run(ctx context.Context, o Options) (*Outcome, error) {
	if o.Forks < 1 {
		o.Forks = survey.DefaultForks
	}
	if o.Patience <= 0 {
		o.Patience = DefaultPatience
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Mask == nil {
		o.Mask = func(s string) string { return s }
	}
	if o.Stamps == "" {
		o.Stamps = facts.StampsDirectory
	}
	r := &runner{
		Options: o, forks: semaphore.NewWeighted(int64(o.Forks)),
		failed: map[string]string{}, stopped: map[string]string{}, dirty: map[string]bool{},
	}
	for node, err := range o.Survey.Unreachable() {
		r.failed[node] = "it is not reached: " + o.Mask(err.Error())
		if n, ok := r.cluster().Node(node); ok && r.inScope(n) {
			r.fail(n, "connection", err)
		}
	}
	for _, c := range o.Components {
		if err := context.Cause(ctx); err != nil {
			return &r.outcome, err
		}
		r.wave(ctx, c)
	}
	slices.SortFunc(r.outcome.Failures, func(a, b Failure) int { return strings.Compare(a.String(), b.String()) })
	return &r.outcome, context.Cause(ctx)
}

func (r *runner) cluster() *cluster.Cluster { return r.Survey.Platform().Cluster }

func (r *runner) inScope(n *cluster.Node) bool {
	return slices.ContainsFunc(r.Components, func(c component.Component) bool { return c.On(n) && r.Scope.Has(n.Name, c.Name()) })
}

func (r *runner) isStopping() bool {
	select {
	case <-r.Stop:
		return true
	default:
		return false
	}
}

func (r *runner) report(e Event) {
	e.At = time.Now()
	e.Step, e.Error = r.Mask(e.Step), r.Mask(e.Error)
	if r.Report != nil {
		r.Report(e)
	}
}

func (r *runner) fail(n *cluster.Node, component string, err error) {
	message := r.Mask(err.Error())
	r.mu.Lock()
	r.failed[n.Name] = message
	r.outcome.Failures = append(r.outcome.Failures, Failure{Node: n.Name, Datacenter: n.Datacenter, Component: component, Message: message})
	r.mu.Unlock()
	r.report(Event{Component: component, Datacenter: n.Datacenter, Node: n.Name, State: Failed, Error: message})
}

// failIn notes what failed in a datacenter rather than on a machine.
func (r *runner) failIn(d *cluster.Datacenter, component string, err error) {
	message := r.Mask(err.Error())
	r.mu.Lock()
	r.outcome.Failures = append(r.outcome.Failures, Failure{Datacenter: d.Name, Component: component, Message: message})
	r.mu.Unlock()
	r.report(Event{Component: component, Datacenter: d.Name, State: Failed, Error: message})
}

// stop keeps a datacenter from going on.
func (r *runner) stop(d *cluster.Datacenter, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped[d.Name] == "" {
		r.stopped[d.Name] = why
	}
}

func (r *runner) whyFailed(node string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed[node]
}

func (r *runner) whyStopped(datacenter string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stopped[datacenter]
}

// leave notes what is not done.
func (r *runner) leave(c component.Component, d *cluster.Datacenter, nodes []*cluster.Node, why string) {
	var names []string
	for _, n := range nodes {
		names = append(names, n.Name)
		r.report(Event{Component: c.Name(), Datacenter: d.Name, Node: n.Name, State: Skipped, Step: why})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outcome.Left = append(r.outcome.Left, fmt.Sprintf("%s in %s (%s): %s", c.Name(), d.Name, strings.Join(names, ", "), why))
}

const whyTold = "the run was stopped"

// wave brings up one component in all datacenters.
func (r *runner) wave(ctx context.Context, c component.Component) {
	var all sync.WaitGroup
	for _, d := range r.cluster().Datacenters {
		all.Go(func() { r.waveIn(ctx, c, d) })
	}
	all.Wait()
	if configurer, ok := c.(component.Configurer); ok && context.Cause(ctx) == nil {
		r.configure(ctx, c, configurer)
	}
}

// waveIn brings up one component in one datacenter.
func (r *runner) waveIn(ctx context.Context, c component.Component, d *cluster.Datacenter) {
	var members, nodes []*cluster.Node
	for _, n := range d.Nodes {
		if c.On(n) {
			members = append(members, n)
			if r.Scope.Has(n.Name, c.Name()) {
				nodes = append(nodes, n)
			}
		}
	}
	if len(nodes) == 0 {
		return
	}
	if why := r.whyStopped(d.Name); why != "" {
		r.leave(c, d, nodes, why)
		return
	}
	if r.isStopping() {
		r.mu.Lock()
		r.outcome.Stopped = true
		r.mu.Unlock()
		r.leave(c, d, nodes, whyTold)
		return
	}
	guarded := slices.ContainsFunc(members, func(n *cluster.Node) bool { return survey.Guarded(c, r.part(n, c)) })
	if guarded {
		// With a member missing, another restart could cost the quorum, and what comes
		// next would meet a component that is not whole.
		for _, n := range members {
			if why := r.whyFailed(n.Name); why != "" && n.IsServer() {
				why = fmt.Sprintf("%s needs %s, which failed", c.Name(), n.Name)
				r.stop(d, why)
				r.leave(c, d, nodes, why)
				return
			}
		}
	}
	nodes = slices.DeleteFunc(nodes, func(n *cluster.Node) bool {
		if r.whyFailed(n.Name) == "" {
			return false
		}
		r.leave(c, d, []*cluster.Node{n}, n.Name+" failed before")
		return true
	})
	w := &waveRun{runner: r, c: c, d: d, members: members, guarded: guarded, hosts: map[string]*plan.Host{}}
	w.prepare(ctx, nodes)
	if context.Cause(ctx) == nil {
		w.activate(ctx, nodes)
	}
	if guarded && slices.ContainsFunc(members, func(n *cluster.Node) bool { return r.whyFailed(n.Name) != "" && n.IsServer() }) {
		r.stop(d, c.Name()+" failed there")
	}
}

// part is what a component wants of a node; nil if nothing, or it cannot be told.
func (r *runner) part(n *cluster.Node, c component.Component) *desiredPart {
	for _, p := range r.Survey.Parts(n.Name) {
		if p.Component == c.Name() {
			return p
		}
	}
	return nil
}

// each does something on machines, so many at once as the run may.
func (r *runner) each(ctx context.Context, nodes []*cluster.Node, do func(context.Context, *cluster.Node)) {
	var all errgroup.Group
	for _, n := range nodes {
		all.Go(func() error {
			if r.forks.Acquire(ctx, 1) == nil {
				defer r.forks.Release(1)
				do(ctx, n)
			}
			return nil
		})
	}
	_ = all.Wait() // failures are noted by those who fail
}

// refresh looks at a machine again if it has changed.
func (r *runner) refresh(ctx context.Context, n *cluster.Node) error {
	r.mu.Lock()
	dirty := r.dirty[n.Name]
	delete(r.dirty, n.Name)
	r.mu.Unlock()
	if !dirty {
		return nil
	}
	return r.Survey.Again(ctx, n.Name)
}

func (r *runner) changed(n *cluster.Node, changes, restarts int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dirty[n.Name] = true
	r.outcome.Changes += changes
	r.outcome.Restarts += restarts
}

// configure takes the actions that are missing in a component's own state: the
// primary datacenter's first, as the others' may depend on them.
func (r *runner) configure(ctx context.Context, c component.Component, configurer component.Configurer) {
	for _, d := range survey.Datacenters(r.cluster()) {
		if r.whyStopped(d.Name) != "" || !slices.ContainsFunc(d.Nodes, func(n *cluster.Node) bool {
			return c.On(n) && r.Scope.Has(n.Name, c.Name()) && r.whyFailed(n.Name) == ""
		}) {
			continue
		}
		if r.isStopping() {
			r.mu.Lock()
			r.outcome.Stopped = true
			r.outcome.Left = append(r.outcome.Left, fmt.Sprintf("what %s keeps itself in %s: %s", c.Name(), d.Name, whyTold))
			r.mu.Unlock()
			continue
		}
		if err := r.configureIn(ctx, c, configurer, d); err != nil {
			r.failIn(d, c.Name(), err)
			r.stop(d, c.Name()+" could not be configured")
		}
	}
}

// mostPasses is how often is asked what is pending: some actions show only when
// others are done.
const mostPasses = 5

func (r *runner) configureIn(ctx context.Context, c component.Component, configurer component.Configurer, d *cluster.Datacenter) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.Patience, fmt.Errorf("it took longer than %s", r.Patience))
	defer cancel()
	done := map[string]bool{}
	for range mostPasses {
		actions, err := r.pending(ctx, configurer, d, done)
		if err != nil || len(actions) == 0 {
			return err
		}
		for _, a := range actions {
			r.report(Event{Component: c.Name(), Datacenter: d.Name, State: Working, Step: a.Title})
			if err := r.persist(ctx, func() error { return a.Do(ctx) }); err != nil {
				return fmt.Errorf("%s: %w", a.Title, err)
			}
			done[a.ID] = true
			r.mu.Lock()
			r.outcome.Changes++
			r.mu.Unlock()
		}
		r.report(Event{Component: c.Name(), Datacenter: d.Name, State: Done, Step: fmt.Sprintf("%d actions", len(actions))})
	}
	return fmt.Errorf("there is always something left to do after %d passes", mostPasses)
}

// pending asks what is pending until it can be told. Where all of it was done, it is
// asked again, too: a member that answers next may be behind, and what had arrived may
// be doubted again while leaders change.
func (r *runner) pending(ctx context.Context, configurer component.Configurer, d *cluster.Datacenter, done map[string]bool) (actions []component.Action, err error) {
	err = r.persist(ctx, func() error {
		actions, err = configurer.Pending(ctx, r.Survey.Platform(), d, r.Fleet)
		if err == nil && len(actions) > 0 && !slices.ContainsFunc(actions, func(a component.Action) bool { return !done[a.ID] }) {
			err = fmt.Errorf("%s: it was done, and is still to do", actions[0].Title)
		}
		return err
	})
	return actions, err
}

// Pauses between two attempts.
const (
	firstPause = 200 * time.Millisecond
	mostPause  = 3 * time.Second
	// actionPatience is how long an action is tried again.
	actionPatience = time.Minute
)

// persist tries again what fails, as it may while leaders change.
func (r *runner) persist(ctx context.Context, do func() error) error {
	until := time.Now().Add(min(actionPatience, r.Patience))
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		err := do()
		if err == nil || time.Now().After(until) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}
