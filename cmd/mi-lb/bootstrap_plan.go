package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/plan"
	"github.com/mi-lb/mi-lb/provision/preflight"
)

type (
	preflightProblem = component.Problem
	desiredPart      = desired.Part
)

func bootstrapPlanCommand() *cobra.Command {
	var b bootstrap
	var output outputFlag
	var detailed bool
	var out string
	command := &cobra.Command{
		Use:   "plan",
		Short: "Say what bootstrap would change, and change nothing",
		Long: `Looks at all machines and says what would change there, in which order, and which
units would restart. It writes nothing on any machine.

With --out the plan is stored for "bootstrap apply FILE", which does exactly that
or, if something has changed meanwhile, nothing. The secrets that it needs are
stored then, too.

It exits 1 if there are errors or machines that are not reached, and with
--detailed-exitcode 2 if there is something to do.`,
		Example: `  mi-lb bootstrap plan -i inventory/production
  mi-lb bootstrap plan -i inventory/production --out tonight.plan
  mi-lb bootstrap plan -i inventory/production --output json | jq .waves[].component`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			s, err := b.open(command)
			if err != nil {
				return err
			}
			defer s.close()
			p, err := s.plan(command.Context())
			if err != nil {
				return err
			}
			if out != "" {
				if err := s.store(); err != nil {
					return err
				}
				if err := p.Save(out); err != nil {
					return err
				}
			}
			if err := output.print(s.stdout, p, func() string { return s.planText(p) }); err != nil {
				return err
			}
			if len(s.added) > 0 && output != "json" {
				fmt.Fprintf(s.stderr, "%d secrets do not exist yet; apply, or bootstrap secrets init, generates them.\n", len(s.added))
			}
			switch {
			case len(p.Fatal()) > 0:
				return fmt.Errorf("the plan has %d errors and cannot be applied", len(p.Fatal()))
			case len(p.Unreachable) > 0:
				return fmt.Errorf("%d machines are not reached", len(p.Unreachable))
			case detailed && !p.IsEmpty():
				return errChanges
			}
			return nil
		},
	}
	b.add(command)
	output.add(command)
	command.Flags().BoolVar(&detailed, "detailed-exitcode", false, "exit 2 if there is something to do")
	command.Flags().StringVar(&out, "out", "", "file to store the plan in")
	return command
}

// plan looks at all machines and says what has to be done.
func (s *session) plan(ctx context.Context) (*plan.Plan, error) {
	if err := s.look(ctx); err != nil {
		return nil, err
	}
	return s.planAgain(ctx)
}

// planAgain makes the plan from what is known.
func (s *session) planAgain(ctx context.Context) (*plan.Plan, error) {
	begun := time.Now()
	p, err := s.survey.Plan(ctx, s.scope, s.mask.Mask)
	if err != nil {
		return nil, err
	}
	p.By = buildVersion()
	p.Problems = slices.DeleteFunc(preflight.Once(append(p.Problems, s.checks()...)), func(x component.Problem) bool {
		return s.scope.Components != nil && x.Component != "" && !slices.Contains(s.scope.Components, x.Component)
	})
	for i := range p.Problems {
		p.Problems[i].Message = s.mask.Mask(p.Problems[i].Message)
	}
	s.log.Info("planned", "summary", p.Summary(), "problems", len(p.Problems), "duration", time.Since(begun))
	return p, nil
}

func (s *session) planText(p *plan.Plan) string {
	return p.Text(plan.TextOptions{Contents: s.verbose, Color: s.isColored(), Mask: s.mask.Mask})
}

// isColored says whether what is printed may have colours.
func (s *session) isColored() bool { return os.Getenv("NO_COLOR") == "" && isTerminal(s.stdout) }

// refuse is the error of a plan that has errors.
func refuse(p *plan.Plan) error {
	if n := len(p.Fatal()); n > 0 {
		return fmt.Errorf("nothing is changed because of %d errors", n)
	}
	return nil
}

var errNotAsked = errors.New("nobody can be asked here; look at the plan and add --yes")
