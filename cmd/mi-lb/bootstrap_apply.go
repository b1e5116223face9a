package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/mi-lb/mi-lb/provision/apply"
	"github.com/mi-lb/mi-lb/provision/backup"
	"github.com/mi-lb/mi-lb/provision/fleet"
	"github.com/mi-lb/mi-lb/provision/plan"
	"github.com/mi-lb/mi-lb/provision/platform"
	"github.com/mi-lb/mi-lb/provision/preflight"
)

func bootstrapApplyCommand() *cobra.Command {
	var b bootstrap
	command := &cobra.Command{
		Use:   "apply [PLAN]",
		Short: "Change what the plan says",
		Long: `Makes a plan, shows it, asks, and does it. With a file of "bootstrap plan --out" it
does what that says without asking, or refuses if machines, inventory or secrets
have changed since, and says what.

Interrupted once (Ctrl-C) it finishes the steps that it is at and says what is left;
interrupted twice it stops at once. Either way, and also after a kill, the next run
goes on from there.`,
		Example: `  mi-lb bootstrap apply -i inventory/production
  mi-lb bootstrap apply -i inventory/production tonight.plan
  mi-lb bootstrap apply -i inventory/production --limit worker-03 --yes`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(command *cobra.Command, arguments []string) error {
			s, err := b.open(command)
			if err != nil {
				return err
			}
			defer s.close()
			var stored *plan.Plan
			if len(arguments) == 1 {
				if stored, err = plan.Load(arguments[0]); err != nil {
					return err
				}
			}
			_, err = s.apply(command, stored)
			return err
		},
	}
	b.add(command)
	b.addRun(command)
	return command
}

// bootstrap plans, asks, applies and verifies.
func (b *bootstrap) bootstrap(command *cobra.Command) error {
	s, err := b.open(command)
	if err != nil {
		return err
	}
	defer s.close()
	goOn, err := s.apply(command, nil)
	if err != nil || !goOn {
		return err
	}
	if s.changed {
		if err := s.look(command.Context()); err != nil {
			return err
		}
	}
	report, err := s.verify(command.Context(), b.patience)
	if err != nil {
		return err
	}
	fmt.Fprint(s.stdout, report.text())
	return s.logHint(report.err())
}

// logHint prints where the log is, if there is an error.
func (s *session) logHint(err error) error {
	if err != nil {
		fmt.Fprintf(s.stderr, "The log of this run: %s\n", s.logFile)
	}
	return err
}

// apply makes a plan and does it; stored is one that was reviewed, or nil. It
// returns whether the platform is what it should be now: false without an error is
// an operator who said no.
func (s *session) apply(command *cobra.Command, stored *plan.Plan) (done bool, err error) {
	defer func() { err = s.logHint(err) }()
	ctx := command.Context()
	if cut, err := apply.LastCutOff(s.journalFile()); err != nil {
		s.log.Warn("the journal cannot be read", "error", err)
	} else if cut != nil {
		fmt.Fprintf(s.stderr, "The last run, by %s, was cut off at %s. This one goes on from there.\n", cut.Owner.Who, cut.At.Local().Format("2006-01-02 15:04:05"))
		for _, doing := range cut.Doing {
			fmt.Fprintf(s.stderr, "  it was at: %s\n", s.mask.Mask(doing))
		}
	}
	p, err := s.plan(ctx)
	if err != nil {
		return false, err
	}
	if stored != nil {
		if drift := stored.Drift(p); len(drift) > 0 {
			for _, line := range drift {
				fmt.Fprintln(s.stderr, "  "+s.mask.Mask(line))
			}
			return false, fmt.Errorf("%w: %d things have changed since it was made; make a new one with bootstrap plan", plan.ErrDrifted, len(drift))
		}
	}
	fmt.Fprint(s.stdout, s.planText(p))
	if err := refuse(p); err != nil {
		return false, err
	}
	if p.IsEmpty() {
		if len(p.Unreachable) > 0 {
			return false, fmt.Errorf("%d machines are not reached", len(p.Unreachable))
		}
		return true, s.store()
	}
	if stored == nil && !s.yes {
		if !s.isTerminal() {
			return false, usageError{errNotAsked}
		}
		answer, err := s.ask(fmt.Sprintf("\nChange %s as described? Only \"yes\" is a yes: ", p.Platform))
		if err != nil {
			return false, err
		}
		if answer != "yes" {
			fmt.Fprintln(s.stdout, "Nothing was changed.")
			return false, nil
		}
	}
	return true, s.run(ctx, command.CommandPath(), p)
}

// run does what a plan says, under the lock.
func (s *session) run(ctx context.Context, command string, p *plan.Plan) (err error) {
	owner, err := apply.NewOwner(command)
	if err != nil {
		return err
	}
	machines := s.machines()
	if len(machines) == 0 {
		return errors.New("no machine is reached")
	}
	lock, working, err := apply.Acquire(ctx, machines, owner, "")
	if err != nil {
		return err
	}
	defer lock.Release()
	// While the operator thought about it, somebody else may have changed something.
	if err := s.look(working); err != nil {
		return err
	}
	now, err := s.planAgain(working)
	if err != nil {
		return err
	}
	if drift := p.FactsDrift(now); len(drift) > 0 && !p.Same(now) {
		for _, line := range drift {
			fmt.Fprintln(s.stderr, "  "+s.mask.Mask(line))
		}
		return fmt.Errorf("%w: somebody has changed something meanwhile; look at the new plan", plan.ErrDrifted)
	}
	if err := s.store(); err != nil {
		return err
	}
	if err := s.reach(working, p); err != nil {
		return err
	}
	journal, err := apply.OpenJournal(s.journalFile())
	if err != nil {
		return err
	}
	if err := journal.Begin(owner); err != nil {
		return err
	}
	backups := backup.Store{Dir: filepath.Join(s.stateDir, "snapshots"), Lock: s.lock}
	show := newProgress(s, p)
	stop, release := stopper(show.say)
	defer release()
	s.changed = true
	outcome, err := apply.Run(working, apply.Options{
		Survey: s.survey, Fleet: s.fleet, Components: platform.Components(), Scope: s.scope, Forks: s.forks, Patience: s.patience,
		Cache: filepath.Join(s.stateDir, "cache"), Stop: stop, Log: s.log, Mask: s.mask.Mask,
		Keep: func(component, datacenter string, write func(io.Writer) error) (string, error) {
			return backups.Put(component+"-"+datacenter, time.Now(), write)
		},
		Report: func(e apply.Event) {
			s.log.Info("step", "component", e.Component, "datacenter", e.Datacenter, "node", e.Node, "state", e.State, "step", e.Step, "error", e.Error)
			if err := journal.Event(e); err != nil {
				s.log.Error("the journal cannot be written", "error", err)
			}
			show.event(e)
		},
	})
	show.end()
	if err != nil && errors.Is(context.Cause(working), context.Canceled) {
		return errors.New("stopped at once; the next run completes what was begun")
	}
	s.outcome(outcome)
	failed := err != nil || len(outcome.Failures) > 0 || len(outcome.Left) > 0
	if ended := journal.End(!failed); ended != nil {
		s.log.Error("the journal cannot be written", "error", ended)
	}
	switch {
	case err != nil:
		return err
	case outcome.Stopped:
		return errors.New("stopped; run it again to go on")
	case failed:
		return errMachines
	}
	return nil
}

// machines are all that are reached and that the run is about.
func (s *session) machines() []fleet.Machine {
	var all []fleet.Machine
	for _, n := range s.cluster.Nodes() {
		if s.scope.Nodes != nil && !slices.Contains(s.scope.Nodes, n.Name) || s.survey.Unreachable()[n.Name] != nil {
			continue
		}
		if m, err := s.fleet.Machine(n.Name); err == nil {
			all = append(all, m)
		}
	}
	return all
}

// reach tries whether machines reach each other, if any unit is to be started: one
// that runs says itself what it misses.
func (s *session) reach(ctx context.Context, p *plan.Plan) error {
	starts := slices.ContainsFunc(p.Waves, func(w plan.Wave) bool {
		return slices.ContainsFunc(w.Hosts, func(h plan.Host) bool {
			return slices.ContainsFunc(h.Changes, func(c plan.Change) bool { return c.Kind == plan.Start })
		})
	})
	if s.noReach || !starts || len(s.cluster.Nodes()) < 2 {
		return nil
	}
	fmt.Fprintln(s.stdout, "Trying whether the machines reach each other …")
	fatal := 0
	for _, problem := range preflight.Reach(ctx, s.survey.Platform(), s.fleet) {
		fmt.Fprintln(s.stdout, plan.ProblemText(problem))
		if problem.Fatal {
			fatal++
		}
	}
	if fatal > 0 {
		return fmt.Errorf("nothing is changed, as machines do not reach each other (%d problems; --no-port-check goes on regardless)", fatal)
	}
	return context.Cause(ctx)
}

// stopper is closed by the first interrupt; the second one ends the program, as it
// would have without us.
func stopper(say func(string)) (stop <-chan struct{}, release func()) {
	told := make(chan struct{})
	signals := make(chan os.Signal, 1)
	done := make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-signals:
			signal.Stop(signals)
			say("Stopping after the steps that are being done. Interrupt again to stop at once.")
			close(told)
		case <-done:
		}
	}()
	return told, func() {
		signal.Stop(signals)
		close(done)
	}
}

// outcome prints what a run came to.
func (s *session) outcome(o *apply.Outcome) {
	for _, f := range o.Failures {
		fmt.Fprintln(s.stderr, "! "+strings.ReplaceAll(f.String(), "\n", "\n  "))
	}
	if len(o.Left) > 0 {
		fmt.Fprintln(s.stderr, "Left to do:")
		for _, left := range o.Left {
			fmt.Fprintln(s.stderr, "  "+left)
		}
	}
	for _, kept := range o.Kept {
		fmt.Fprintln(s.stdout, "State from before the changes: "+kept)
	}
	fmt.Fprintf(s.stdout, "%d changes made, %d units restarted, %d failures.\n", o.Changes, o.Restarts, len(o.Failures))
}
