package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/mi-lb/mi-lb/provision/ssh"
)

func bootstrapKeyscanCommand() *cobra.Command {
	var b bootstrap
	var output outputFlag
	command := &cobra.Command{
		Use:   "keyscan",
		Short: "Show the host keys of all machines, and trust those that are new",
		Long: `Asks all machines for their host keys without logging in, shows the fingerprints,
and asks whether to trust those that are new. Compare them with what the machines'
consoles or your provider show: whoever is in between could show keys of their own.

A key that has changed is shown and never stored; remove the old one from
known_hosts in the state directory if the machine was installed anew.`,
		Example: `  mi-lb bootstrap keyscan -i inventory/production
  mi-lb bootstrap keyscan -i inventory/production --yes --limit worker-03`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			s, err := b.open(command)
			if err != nil {
				return err
			}
			defer s.close()
			return s.keyscan(command.Context(), output)
		},
	}
	b.add(command)
	output.add(command)
	command.Flags().BoolVarP(&b.yes, "yes", "y", false, "trust new keys without asking")
	return command
}

// scan is what keyscan finds.
type scan struct {
	Keys   []ssh.ScannedKey  `json:"keys"`
	Failed map[string]string `json:"failed"`
	Stored int               `json:"stored"`
}

func (s *session) keyscan(ctx context.Context, output outputFlag) error {
	result := scan{Keys: []ssh.ScannedKey{}, Failed: map[string]string{}}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(s.forks)
	for _, n := range s.cluster.Nodes() {
		if s.scope.Nodes != nil && !slices.Contains(s.scope.Nodes, n.Name) {
			continue
		}
		g.Go(func() error {
			keys, err := s.dialer.Keyscan(ctx, ssh.Target{Name: n.Name, Connection: n.Connection})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				result.Failed[n.Name] = s.mask.Mask(err.Error())
			}
			result.Keys = append(result.Keys, keys...)
			return nil
		})
	}
	_ = g.Wait() // none of them fails
	slices.SortStableFunc(result.Keys, func(a, b ssh.ScannedKey) int { return strings.Compare(a.Name, b.Name) })
	fresh, changed := 0, 0
	for _, k := range result.Keys {
		switch k.Status {
		case ssh.KeyNew:
			fresh++
		case ssh.KeyChanged:
			changed++
		}
	}
	if output != "json" {
		fmt.Fprint(s.stdout, result.text())
	}
	if fresh > 0 {
		trust := s.yes
		if !trust && s.isTerminal() {
			answer, err := s.ask(fmt.Sprintf("Trust the %d new keys? Only \"yes\" is a yes: ", fresh))
			if err != nil {
				return err
			}
			trust = answer == "yes"
		}
		if trust {
			stored, err := s.dialer.Trust(result.Keys)
			if err != nil {
				return err
			}
			result.Stored = stored
		}
	}
	if output == "json" {
		if err := output.print(s.stdout, result, result.text); err != nil {
			return err
		}
	} else if result.Stored > 0 {
		fmt.Fprintf(s.stdout, "%d keys are trusted now.\n", result.Stored)
	}
	switch {
	case changed > 0:
		return fmt.Errorf("%d keys have changed: somebody may be in between, or machines were installed anew", changed)
	case len(result.Failed) > 0:
		return fmt.Errorf("%d machines did not show their keys", len(result.Failed))
	case fresh > 0 && result.Stored == 0:
		return errors.New("the new keys are not trusted; compare them and add --yes")
	}
	return nil
}

func (r scan) text() string {
	var rows [][]string
	for _, k := range r.Keys {
		rows = append(rows, []string{k.Name, k.Address, k.Type, k.Fingerprint, string(k.Status)})
	}
	text := columns([]string{"MACHINE", "ADDRESS", "TYPE", "FINGERPRINT", "STATUS"}, rows)
	var failed []string
	for node := range r.Failed {
		failed = append(failed, node)
	}
	slices.Sort(failed)
	for _, node := range failed {
		text += fmt.Sprintf("! %s: %s\n", node, r.Failed[node])
	}
	return text
}
