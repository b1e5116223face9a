package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mi-lb/mi-lb/provision/apply"
	"github.com/mi-lb/mi-lb/provision/platform"
)

func bootstrapVerifyCommand() *cobra.Command {
	var b bootstrap
	var output outputFlag
	var patience time.Duration
	command := &cobra.Command{
		Use:   "verify",
		Short: "Prove that the platform works",
		Long: `Asks every component on every machine whether it works as a member of what it is
part of: a leader is elected, the quorum is complete, agents are registered, ACLs
and credentials are in place. It changes nothing, and exits 1 if anything is
missing.`,
		Example: "  mi-lb bootstrap verify -i inventory/production",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			s, err := b.open(command)
			if err != nil {
				return err
			}
			defer s.close()
			if err := s.look(command.Context()); err != nil {
				return err
			}
			report, err := s.verify(command.Context(), patience)
			if err != nil {
				return err
			}
			if err := output.print(s.stdout, report, report.text); err != nil {
				return err
			}
			return s.logHint(report.err())
		},
	}
	b.add(command)
	output.add(command)
	command.Flags().DurationVar(&patience, "patience", 30*time.Second, "how long to wait for a component to become healthy")
	return command
}

// verifyReport is what verify finds.
type verifyReport struct {
	OK     bool          `json:"ok"`
	Checks []apply.Check `json:"checks"`
}

// verify asks all components whether they work. Machines must have been looked at.
func (s *session) verify(ctx context.Context, patience time.Duration) (verifyReport, error) {
	report := verifyReport{OK: true, Checks: apply.Verify(ctx, s.survey, s.fleet, platform.Components(), s.scope, s.forks, patience)}
	for i, c := range report.Checks {
		report.OK = report.OK && c.OK
		report.Checks[i].Message = s.mask.Mask(c.Message)
		s.log.Info("check", "component", c.Component, "datacenter", c.Datacenter, "node", c.Node, "ok", c.OK, "message", c.Message)
	}
	return report, context.Cause(ctx)
}

func (r verifyReport) err() error {
	n := 0
	for _, c := range r.Checks {
		if !c.OK {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d checks failed", n, len(r.Checks))
}

// text is a line per component and datacenter, and one per failure.
func (r verifyReport) text() string {
	type key struct{ component, datacenter string }
	var order []key
	good, all := map[key]int{}, map[key]int{}
	var failures []string
	for _, c := range r.Checks {
		k := key{c.Component, c.Datacenter}
		if all[k] == 0 {
			order = append(order, k)
		}
		all[k]++
		if c.OK {
			good[k]++
			continue
		}
		where := c.Node
		if where == "" {
			where = c.Datacenter
		}
		failures = append(failures, fmt.Sprintf("! %s, %s: %s\n", where, c.Component, strings.ReplaceAll(c.Message, "\n", "\n  ")))
	}
	var rows [][]string
	for _, k := range order {
		state := "ok"
		if good[k] != all[k] {
			state = "FAILED"
		}
		rows = append(rows, []string{k.component, k.datacenter, fmt.Sprintf("%d/%d", good[k], all[k]), state})
	}
	text := columns([]string{"COMPONENT", "DATACENTER", "CHECKS", ""}, rows) + strings.Join(failures, "")
	if len(failures) == 0 {
		text += "The platform works.\n"
	}
	return text
}
