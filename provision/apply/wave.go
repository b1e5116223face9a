package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/plan"
)

type desiredPart = desired.Part

// waveRun is one component in one datacenter.
type waveRun struct {
	*runner
	c       component.Component
	d       *cluster.Datacenter
	members []*cluster.Node // all that have it, whatever the run is about
	guarded bool

	hostsMu sync.Mutex
	hosts   map[string]*plan.Host // what changes, by node
}

func (w *waveRun) host(n *cluster.Node) *plan.Host {
	w.hostsMu.Lock()
	defer w.hostsMu.Unlock()
	return w.hosts[n.Name]
}

func (w *waveRun) event(n *cluster.Node, state State, format string, arguments ...any) {
	w.report(Event{Component: w.c.Name(), Datacenter: w.d.Name, Node: n.Name, State: state, Step: fmt.Sprintf(format, arguments...)})
}

// prepare puts everything in place but runs none of it.
func (w *waveRun) prepare(ctx context.Context, nodes []*cluster.Node) {
	w.each(ctx, nodes, func(ctx context.Context, n *cluster.Node) {
		if w.isStopping() {
			w.mu.Lock()
			w.outcome.Stopped = true
			w.mu.Unlock()
			w.leave(w.c, w.d, []*cluster.Node{n}, whyTold)
			return
		}
		if err := w.prepareOn(ctx, n); err != nil {
			w.fail(n, w.c.Name(), err)
		}
	})
}

func (w *waveRun) prepareOn(ctx context.Context, n *cluster.Node) error {
	if err := w.refresh(ctx, n); err != nil {
		return err
	}
	// What a component found wrong may only show when an earlier wave was done.
	for _, p := range w.Survey.Problems(n.Name) {
		if p.Fatal && p.Component == w.c.Name() {
			return fmt.Errorf("%s: %s", p.Message, p.Advice)
		}
	}
	h := plan.Diff(w.Survey.Parts(n.Name), w.Survey.Facts(n.Name), w.Mask)[w.c.Name()]
	if h == nil {
		w.event(n, Unchanged, "")
		return nil
	}
	machine, err := w.Fleet.Machine(n.Name)
	if err != nil {
		return err
	}
	s := &steps{
		wave: w, node: n, machine: machine, facts: w.Survey.Facts(n.Name), plan: h,
		say: func(format string, arguments ...any) { w.event(n, Working, format, arguments...) },
	}
	made, err := s.prepare(ctx)
	w.changed(n, made, 0)
	if err != nil {
		return err
	}
	w.hostsMu.Lock()
	w.hosts[n.Name] = h
	w.hostsMu.Unlock()
	if !slices.ContainsFunc(h.Changes, func(c plan.Change) bool { return c.Kind.Activates() }) {
		w.event(n, Done, "")
	}
	return nil
}

// activate makes units run what is in place, in an order that costs no quorum.
func (w *waveRun) activate(ctx context.Context, nodes []*cluster.Node) {
	if w.guarded {
		// What comes next needs those that did not change, too; an earlier run may have
		// been cut off before they were whole.
		defer w.gates(ctx, slices.DeleteFunc(slices.Clone(nodes), func(n *cluster.Node) bool { return w.host(n) != nil }))
	}
	nodes = slices.DeleteFunc(slices.Clone(nodes), func(n *cluster.Node) bool { return w.host(n) == nil || w.whyFailed(n.Name) != "" })
	if len(nodes) == 0 {
		return
	}
	if !w.guarded || !slices.ContainsFunc(w.members, w.runs) {
		// Nobody has a quorum that could be lost.
		w.together(ctx, nodes, w.gate)
		return
	}
	w.roll(ctx, nodes)
}

// runs says whether a member's own unit runs.
func (w *waveRun) runs(n *cluster.Node) bool {
	part, found := w.part(n, w.c), w.Survey.Facts(n.Name)
	if part == nil || found == nil {
		return false
	}
	for _, u := range part.Units {
		if u.State == desired.Running && u.Content != "" && slices.Contains([]string{"active", "activating", "reloading"}, found.Units[u.Name].Active) {
			return true
		}
	}
	return false
}

// activateOn starts, restarts, reloads and stops what the plan says on one machine.
func (w *waveRun) activateOn(ctx context.Context, n *cluster.Node) error {
	h := w.host(n)
	if !slices.ContainsFunc(h.Changes, func(c plan.Change) bool { return c.Kind.Activates() }) {
		return nil
	}
	machine, err := w.Fleet.Machine(n.Name)
	if err != nil {
		return err
	}
	s := &steps{
		wave: w, node: n, machine: machine, facts: w.Survey.Facts(n.Name), plan: h,
		say: func(format string, arguments ...any) { w.event(n, Working, format, arguments...) },
	}
	made, restarts, err := s.activate(ctx)
	w.changed(n, made, restarts)
	return err
}

// gates wait until members are healthy, all at once.
func (w *waveRun) gates(ctx context.Context, nodes []*cluster.Node) { w.prove(ctx, nodes, w.gate) }

// prove waits for members, all at once.
func (w *waveRun) prove(ctx context.Context, nodes []*cluster.Node, gate func(context.Context, *cluster.Node) error) {
	var all sync.WaitGroup
	for _, n := range nodes {
		if w.whyFailed(n.Name) != "" {
			continue
		}
		all.Go(func() {
			if err := gate(ctx, n); err != nil {
				w.fail(n, w.c.Name(), err)
				return
			}
			w.event(n, Done, "")
		})
	}
	all.Wait()
}

// gate waits until a member is healthy.
func (w *waveRun) gate(ctx context.Context, n *cluster.Node) error {
	return w.waits(ctx, n, "healthy", func(ctx context.Context) error {
		return w.c.Healthy(ctx, w.Survey.Platform(), n, w.Fleet)
	})
}

// waits until a member is what it should be.
func (w *waveRun) waits(ctx context.Context, n *cluster.Node, what string, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, w.Patience)
	defer cancel()
	if err := w.poll(ctx, n, what, ask); err != nil {
		return fmt.Errorf("it did not become %s within %s: %w%s", what, w.Patience, err, w.lastWords(n))
	}
	return nil
}

// onceHealthy is how long one look at health may take.
const onceHealthy = 30 * time.Second

// poll asks again and again until there is no error, and says what is missing.
func (w *waveRun) poll(ctx context.Context, n *cluster.Node, what string, ask func(context.Context) error) error {
	said := ""
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		try, cancel := context.WithTimeout(ctx, onceHealthy)
		err := ask(try)
		cancel()
		if err == nil {
			return nil
		}
		if text := strings.TrimPrefix(err.Error(), n.Name+": "); text != said && ctx.Err() == nil {
			said = text
			w.event(n, Waiting, "%s: %s", what, text)
		}
		select {
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, context.DeadlineExceeded) {
				return errors.Join(err, cause)
			}
			return err
		case <-time.After(pause):
		}
	}
}

// lastWords are the last lines that the component's units wrote to the journal.
func (w *waveRun) lastWords(n *cluster.Node) string {
	part := w.part(n, w.c)
	machine, err := w.Fleet.Machine(n.Name)
	if part == nil || err != nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	var all strings.Builder
	for _, u := range part.Units {
		if u.State == desired.Running {
			all.WriteString(journal(ctx, machine, u.Name))
		}
	}
	return all.String()
}
