package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mi-lb/mi-lb/provision/apply"
	"github.com/mi-lb/mi-lb/provision/component/consul"
)

func bootstrapSecretsGossipCommand() *cobra.Command {
	var b bootstrap
	command := &cobra.Command{
		Use:   "rotate-gossip",
		Short: "Replace the key of Consul's gossip in all datacenters",
		Long: `Replaces the key that encrypts Consul's gossip, while Consul runs and without a
restart: all agents of all datacenters are given a new key, then use it, then it is
written to all machines, and then the old one is forgotten. Every agent of the
inventory must answer, as one that is away could not read what the others say when
it is back.

The last two steps are those of "bootstrap apply" for Consul: it shows what changes,
and asks. Interrupted anywhere, run it again: it goes on with the same key.`,
		Example: "  mi-lb bootstrap secrets rotate-gossip -i inventory/production",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if b.limit != nil || b.components != nil {
				return usageError{errors.New("the gossip key is that of all machines: --limit and --component make no sense here")}
			}
			s, err := b.open(command)
			if err != nil {
				return err
			}
			defer s.close()
			if err := s.rotateGossip(command.Context(), command.CommandPath()); err != nil {
				return s.logHint(err)
			}
			s.scope.Components = []string{consul.ServerName, consul.ClientName}
			_, err = s.apply(command, nil)
			return err
		},
	}
	b.add(command)
	b.addRun(command)
	return command
}

// rotateGossip has all agents use another key. The bundle has it before any agent, and
// has machines start with it when all agents use it.
func (s *session) rotateGossip(ctx context.Context, command string) error {
	if s.bundle.GossipKey().IsEmpty() {
		return fmt.Errorf("there is no gossip key in %s yet; generate it with mi-lb bootstrap secrets init", s.secretsFile)
	}
	if err := s.look(ctx); err != nil {
		return err
	}
	machines := s.machines()
	if len(machines) == 0 {
		return errors.New("no machine is reached")
	}
	owner, err := apply.NewOwner(command)
	if err != nil {
		return err
	}
	lock, working, err := apply.Acquire(ctx, machines, owner, "")
	if err != nil {
		return err
	}
	defer lock.Release()
	if s.bundle.NextGossipKey().IsEmpty() {
		fmt.Fprintln(s.stdout, "Giving all agents a new gossip key …")
	} else {
		fmt.Fprintln(s.stdout, "Going on with the change of the gossip key that was begun …")
	}
	if err := s.bundle.BeginGossip(); err != nil {
		return err
	}
	s.hide()
	if err := s.bundle.Save(s.secretsFile, s.lock); err != nil {
		return err
	}
	if err := consul.ShareGossipKey(working, s.survey.Platform(), s.fleet, s.bundle.NextGossipKey()); err != nil {
		return fmt.Errorf("change the gossip key: %w; agents may have it already, and the old one is still good: run this again", err)
	}
	s.bundle.EndGossip()
	if err := s.bundle.Save(s.secretsFile, s.lock); err != nil {
		return err
	}
	s.log.Info("all agents use the new gossip key")
	fmt.Fprintln(s.stdout, "All agents use the new key. What is left is to write it to all machines, and to forget the old one.")
	return nil
}
