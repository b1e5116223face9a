package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/plan"
)

// turns are the members of a quorum that change, by what their restart means.
type turns struct {
	// idle take no part in the quorum: they have died, or run and do not serve.
	idle []*cluster.Node
	// serving take part in it; added never ran; calm are not restarted.
	serving, added, calm []*cluster.Node
}

// roll goes through members so that the quorum, if there is one, stays: those that
// take no part in it first, as the others need them; then new ones, which others may
// need when they know of them; then those that do take part, one at a time, the leader
// last. Where there is no quorum to lose, all change at once.
func (w *waveRun) roll(ctx context.Context, nodes []*cluster.Node) {
	t := w.turns(nodes)
	quorum := w.standing(ctx, t.serving)
	if err := w.save(ctx, nodes, quorum); err != nil {
		w.failIn(w.d, w.c.Name(), err)
		w.stop(w.d, w.c.Name()+" failed there")
		w.leave(w.c, w.d, nodes, "nothing is restarted, as the state of "+w.c.Name()+" could not be saved")
		return
	}
	if quorum.Lost != "" {
		w.say(Working, "there is no quorum to protect, so all members change at once: %s", quorum.Lost)
		w.together(ctx, nodes, w.gate)
		w.say(Done, "")
		return
	}
	t.serving = slices.DeleteFunc(t.serving, func(n *cluster.Node) bool {
		idle := quorum.Serving != nil && !slices.Contains(quorum.Serving, n.Name)
		if idle {
			t.idle = append(t.idle, n)
		}
		return idle
	})
	w.each(ctx, t.calm, func(ctx context.Context, n *cluster.Node) {
		if err := w.activateOn(ctx, n); err != nil {
			w.fail(n, w.c.Name(), err)
		}
	})
	if !w.cure(ctx, t) || !w.begin(ctx, t) {
		return
	}
	if err := w.sort(ctx, t.serving); err != nil {
		for _, n := range t.serving {
			w.fail(n, w.c.Name(), fmt.Errorf("it cannot be told who leads, so nobody is restarted: %w", err))
		}
		return
	}
	for i, n := range t.serving {
		w.event(n, Waiting, "its turn (%d of %d)", i+1, len(t.serving))
	}
	for i, n := range t.serving {
		if w.isStopping() {
			w.stopAt(t.serving[i:])
			return
		}
		if err := w.turn(ctx, n, w.proof(t)); err != nil {
			w.fail(n, w.c.Name(), err)
			if i+1 < len(t.serving) {
				w.leave(w.c, w.d, t.serving[i+1:], "no other is restarted after "+n.Name+" failed")
			}
			return
		}
	}
	if len(t.added) > 0 {
		w.gates(ctx, slices.Concat(t.idle, t.serving, t.added))
	}
	w.gates(ctx, t.calm)
}

// save has the component write down its own state, if any member is to be started or
// restarted and somebody leads.
func (w *waveRun) save(ctx context.Context, nodes []*cluster.Node, quorum component.Quorum) error {
	saver, ok := w.c.(component.Saver)
	if !ok || w.Keep == nil || !slices.ContainsFunc(nodes, func(n *cluster.Node) bool {
		return slices.ContainsFunc(w.host(n).Changes, func(c plan.Change) bool { return c.Kind == plan.Start || c.Kind == plan.Restart })
	}) {
		return nil
	}
	if quorum.Lost != "" {
		w.say(Done, "there is no state to save: %s", quorum.Lost)
		return nil
	}
	w.say(Working, "saves its state")
	var where string
	until := time.Now().Add(min(election, w.Patience))
	for {
		var err error
		where, err = w.Keep(w.c.Name(), w.d.Name, func(to io.Writer) error {
			return saver.Save(ctx, w.Survey.Platform(), w.d, w.Fleet, to)
		})
		if err == nil {
			break
		}
		if over := time.Now().After(until) || ctx.Err() != nil; over && errors.Is(err, component.ErrNotRunning) {
			w.say(Done, "there is no state to save: %v", err)
			return nil
		} else if over {
			return fmt.Errorf("its state could not be saved before it is changed: %w", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(mostPause):
		}
	}
	w.mu.Lock()
	w.outcome.Kept = append(w.outcome.Kept, where)
	w.mu.Unlock()
	w.say(Done, "its state is in %s", where)
	return nil
}

// say reports what is about the datacenter rather than a machine.
func (w *waveRun) say(state State, format string, arguments ...any) {
	w.report(Event{Component: w.c.Name(), Datacenter: w.d.Name, State: state, Step: fmt.Sprintf(format, arguments...)})
}

// cure starts and restarts those that take no part, all at once, and returns whether
// they do now.
func (w *waveRun) cure(ctx context.Context, t turns) bool {
	if len(t.idle) == 0 {
		return true
	}
	rest := slices.Concat(t.serving, t.added)
	if w.isStopping() {
		w.stopAt(slices.Concat(t.idle, rest))
		return false
	}
	var names []string
	for _, n := range t.idle {
		names = append(names, n.Name)
	}
	w.say(Working, "not in the quorum, and changed before those that are: %s", strings.Join(names, ", "))
	w.together(ctx, t.idle, w.proof(t))
	w.say(Done, "")
	return w.fine(t.idle, rest)
}

// begin starts new members, all at once, and returns whether they were started: they
// are whole when the others know of them.
func (w *waveRun) begin(ctx context.Context, t turns) bool {
	if len(t.added) == 0 {
		return true
	}
	if w.isStopping() {
		w.stopAt(slices.Concat(t.added, t.serving))
		return false
	}
	w.each(ctx, t.added, func(ctx context.Context, n *cluster.Node) {
		if err := w.activateOn(ctx, n); err != nil {
			w.fail(n, w.c.Name(), err)
		}
	})
	return w.fine(t.added, t.serving)
}

// fine says whether none of those members failed; if one did, the rest are left alone.
func (w *waveRun) fine(members, rest []*cluster.Node) bool {
	for _, n := range members {
		if w.whyFailed(n.Name) != "" {
			if len(rest) > 0 {
				w.leave(w.c, w.d, rest, "no other is restarted after "+n.Name+" failed")
			}
			return false
		}
	}
	return true
}

// stopAt notes that the run was told to stop before these.
func (w *waveRun) stopAt(nodes []*cluster.Node) {
	w.mu.Lock()
	w.outcome.Stopped = true
	w.mu.Unlock()
	w.leave(w.c, w.d, nodes, whyTold)
}

// together changes members all at once, and waits for all.
func (w *waveRun) together(ctx context.Context, nodes []*cluster.Node, gate func(context.Context, *cluster.Node) error) {
	w.each(ctx, nodes, func(ctx context.Context, n *cluster.Node) {
		if err := w.activateOn(ctx, n); err != nil {
			w.fail(n, w.c.Name(), err)
		}
	})
	w.prove(ctx, nodes, gate)
}

// turns sorts members by what changes; those that run are taken to serve.
func (w *waveRun) turns(nodes []*cluster.Node) turns {
	var t turns
	for _, n := range nodes {
		kinds := map[plan.Kind]bool{}
		for _, c := range w.host(n).Changes {
			kinds[c.Kind] = true
		}
		switch {
		case kinds[plan.Start] && w.hasRun(n):
			t.idle = append(t.idle, n)
		case kinds[plan.Start]:
			t.added = append(t.added, n)
		case kinds[plan.Restart]:
			t.serving = append(t.serving, n)
		default:
			t.calm = append(t.calm, n)
		}
	}
	return t
}

// hasRun says whether an earlier run has started it once.
func (w *waveRun) hasRun(n *cluster.Node) bool {
	found := w.Survey.Facts(n.Name)
	return slices.ContainsFunc(w.host(n).Part.Units, func(u desired.Unit) bool { return found.Stamps[plan.RestartStamp(u.Name)] != "" })
}

// election is how long a quorum that is looked at may take to elect a leader: what
// is seen for that long is no election.
const election = 30 * time.Second

// standing watches the quorum until all of those members serve, or an election would
// be over. A member serves that was seen to once, and a quorum is lost that was never
// seen. Serving is nil where it cannot be told: then all that run are protected.
func (w *waveRun) standing(ctx context.Context, running []*cluster.Node) component.Quorum {
	quorate, ok := w.c.(component.Quorate)
	if !ok || len(w.members) == 1 {
		return component.Quorum{}
	}
	until := time.Now().Add(min(election, w.Patience))
	serving, kept, said := map[string]bool{}, false, ""
	defer func() {
		if said != "" {
			w.say(Done, "")
		}
	}()
	for {
		q, err := w.look(ctx, quorate)
		for _, name := range q.Serving {
			serving[name] = true
		}
		kept = kept || err != nil || q.Lost == ""
		absent := slices.DeleteFunc(slices.Clone(running), func(n *cluster.Node) bool { return serving[n.Name] })
		over := time.Now().After(until) || ctx.Err() != nil
		switch {
		case !kept && over:
			return q
		case err != nil && over:
			return component.Quorum{}
		case kept && err == nil && (over || len(absent) == 0):
			return component.Quorum{Serving: slices.AppendSeq([]string{}, maps.Keys(serving))}
		}
		why := q.Lost
		if err != nil {
			why = err.Error()
		}
		for _, n := range absent {
			why = cmp.Or(why, n.Name+" takes no part in it")
		}
		if why != said {
			w.say(Waiting, "for the quorum: %s", why)
			said = why
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// look asks once how the quorum stands.
func (w *waveRun) look(ctx context.Context, quorate component.Quorate) (component.Quorum, error) {
	ctx, cancel := context.WithTimeout(ctx, onceHealthy)
	defer cancel()
	return quorate.Quorum(ctx, w.Survey.Platform(), w.d, w.Fleet)
}

// sort puts members in the order in which they restart.
func (w *waveRun) sort(ctx context.Context, nodes []*cluster.Node) error {
	roller, ok := w.c.(component.Roller)
	if !ok || len(nodes) < 2 {
		return nil
	}
	return w.persist(ctx, func() error {
		sorted, err := roller.Order(ctx, w.Survey.Platform(), nodes, w.Fleet)
		if err == nil {
			copy(nodes, sorted)
		}
		return err
	})
}

// turn restarts one member and waits until it is as well as it can be.
func (w *waveRun) turn(ctx context.Context, n *cluster.Node, gate func(context.Context, *cluster.Node) error) error {
	roller, rolls := w.c.(component.Roller)
	if rolls {
		w.event(n, Working, "asks whether it may restart")
		ctx, cancel := context.WithTimeout(ctx, w.Patience)
		err := w.poll(ctx, n, "may be restarted", func(ctx context.Context) error {
			return roller.BeforeRestart(ctx, w.Survey.Platform(), n, w.Fleet)
		})
		cancel()
		if err != nil {
			return fmt.Errorf("it is not restarted: %w", err)
		}
	}
	if err := w.activateOn(ctx, n); err != nil {
		return err
	}
	if err := gate(ctx, n); err != nil {
		return err
	}
	if rolls {
		if err := w.persist(ctx, func() error { return roller.AfterRestart(ctx, w.Survey.Platform(), n, w.Fleet) }); err != nil {
			return err
		}
	}
	w.event(n, Done, "")
	return nil
}

// proof is what each turn must prove: health, unless there are new members, without
// whom nobody is whole and who are not before all others know of them.
func (w *waveRun) proof(t turns) func(context.Context, *cluster.Node) error {
	if len(t.added) > 0 {
		return w.serves
	}
	return w.gate
}

// serves waits until a member takes part in the quorum, whole or not.
func (w *waveRun) serves(ctx context.Context, n *cluster.Node) error {
	quorate, ok := w.c.(component.Quorate)
	if !ok {
		return w.gate(ctx, n)
	}
	return w.waits(ctx, n, "a part of the quorum", func(ctx context.Context) error {
		q, err := quorate.Quorum(ctx, w.Survey.Platform(), w.d, w.Fleet)
		switch {
		case err != nil:
			return err
		case q.Lost != "":
			return errors.New(q.Lost)
		case !slices.Contains(q.Serving, n.Name):
			return errors.New("it takes no part in the quorum")
		}
		return nil
	})
}
