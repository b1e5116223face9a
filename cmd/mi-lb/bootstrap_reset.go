package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mi-lb/mi-lb/provision/apply"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
	"github.com/mi-lb/mi-lb/provision/plan"
)

func bootstrapResetCommand() *cobra.Command {
	var b bootstrap
	var purge bool
	var confirm string
	command := &cobra.Command{
		Use:   "reset",
		Short: "Take the platform, or a part of it, off machines",
		Long: `Stops what earlier runs have put on machines, and removes its files: of all
components and machines, or those of --component and --limit. Packages, users and
data stay; --purge removes the data, too.

It shows what goes, and asks for the platform's domain as a confirmation.`,
		Example: `  mi-lb bootstrap reset -i inventory/production --component marathon --limit control-03
  mi-lb bootstrap reset -i inventory/staging --purge --confirm staging.example.com`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			s, err := b.open(command)
			if err != nil {
				return err
			}
			defer s.close()
			return s.logHint(s.reset(command.Context(), command.CommandPath(), purge, confirm))
		},
	}
	b.add(command)
	command.Flags().BoolVar(&purge, "purge", false, "remove data, too")
	command.Flags().StringVar(&confirm, "confirm", "", "the platform's domain, instead of being asked for it")
	return command
}

func (s *session) reset(ctx context.Context, command string, purge bool, confirm string) error {
	if err := s.look(ctx); err != nil {
		return err
	}
	removals := s.removals(purge)
	if len(removals) == 0 {
		fmt.Fprintln(s.stdout, "Nothing to remove: no earlier run has put anything there.")
		return s.notReached()
	}
	for _, r := range removals {
		fmt.Fprintf(s.stdout, "%s, %s:\n", r.Node, r.Component)
		for _, u := range r.Units {
			fmt.Fprintf(s.stdout, "  - stop %s\n", u)
		}
		for _, list := range [][]string{r.Files, r.Programs, r.Directories} {
			for _, path := range list {
				fmt.Fprintf(s.stdout, "  - %s\n", path)
			}
		}
	}
	if purge {
		fmt.Fprintln(s.stdout, "Data is removed and cannot be brought back.")
	}
	if confirm == "" {
		if !s.isTerminal() {
			return usageError{errors.New("nobody can be asked here; give the platform's domain with --confirm")}
		}
		answer, err := s.ask(fmt.Sprintf("Type the platform's domain (%s) to remove this: ", s.cluster.Domain))
		if err != nil {
			return err
		}
		confirm = answer
	}
	if confirm != s.cluster.Domain {
		return fmt.Errorf("%q is not the domain of this platform; nothing was changed", confirm)
	}
	owner, err := apply.NewOwner(command)
	if err != nil {
		return err
	}
	lock, working, err := apply.Acquire(ctx, s.machines(), owner, "")
	if err != nil {
		return err
	}
	defer lock.Release()
	failed := 0
	for _, r := range removals {
		machine, err := s.fleet.Machine(r.Node)
		if err == nil {
			err = apply.Reset(working, machine, r, facts.StampsDirectory, func(step string) {
				s.log.Info("step", "node", r.Node, "component", r.Component, "step", step)
			})
		}
		if err != nil {
			failed++
			fmt.Fprintf(s.stderr, "! %s, %s: %s\n", r.Node, r.Component, s.mask.Mask(err.Error()))
			continue
		}
		fmt.Fprintf(s.stdout, "%s, %s: removed\n", r.Node, r.Component)
	}
	if failed > 0 {
		return errMachines
	}
	return s.notReached()
}

// notReached is the error that machines of the scope are not reached.
func (s *session) notReached() error {
	var nodes []string
	for node := range s.survey.Unreachable() {
		if s.scope.Nodes == nil || slices.Contains(s.scope.Nodes, node) {
			nodes = append(nodes, node)
		}
	}
	if len(nodes) == 0 {
		return nil
	}
	slices.Sort(nodes)
	return fmt.Errorf("not reached: %s", strings.Join(nodes, ", "))
}

// removals are what is to go, components in the opposite order of waves.
func (s *session) removals(purge bool) []plan.Removal {
	var all []plan.Removal
	known := componentNames()
	slices.Reverse(known)
	for _, n := range s.cluster.Nodes() {
		f := s.survey.Facts(n.Name)
		if f == nil {
			continue
		}
		parts := s.survey.Parts(n.Name)
		names := slices.Clone(known)
		for _, left := range plan.Left(f, nil) {
			if !slices.Contains(names, left) {
				names = append(names, left)
			}
		}
		for _, name := range names {
			if !s.scope.Has(n.Name, name) {
				continue
			}
			var part *desired.Part
			// What is removed as well needs nothing any more.
			others := slices.DeleteFunc(slices.Clone(parts), func(p *desired.Part) bool {
				if p.Component == name {
					part = p
				}
				return s.scope.Has(n.Name, p.Component)
			})
			if r := plan.RemovalOf(name, part, others, f, purge); !r.IsEmpty() {
				all = append(all, r)
			}
		}
	}
	return all
}
