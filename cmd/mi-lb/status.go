package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mi-lb/mi-lb/lb/admin"
)

func statusCommand() *cobra.Command {
	var ask adminFlag
	var output outputFlag
	command := &cobra.Command{
		Use:   "status",
		Short: "Say in short how the edge is",
		Long:  "Say in short how the edge is. It exits 1 if the edge is not ready or cannot be asked.",
		Example: `  mi-lb status
  mi-lb status --admin 10.0.0.7:9090 --output json`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			var s admin.Status
			if err := ask.get(command.Context(), "/v1/status", nil, &s); err != nil {
				return err
			}
			if err := output.print(command.OutOrStdout(), s, func() string { return statusText(s) }); err != nil {
				return err
			}
			if !s.Ready {
				return fmt.Errorf("the edge is not ready: %s", s.Waiting)
			}
			return nil
		},
	}
	ask.add(command)
	output.add(command)
	return command
}

func statusText(s admin.Status) string {
	var b strings.Builder
	ready := "ready"
	if !s.Ready {
		ready = "not ready: " + s.Waiting
	}
	fmt.Fprintf(&b, "mi-lb %s: %s\n", s.Version, ready)
	h := s.HAProxy
	switch {
	case h.Running:
		fmt.Fprintf(&b, "HAProxy %s: worker %d, %d old workers, %d leftovers, revision %d\n", h.Version, h.Worker, len(h.OldWorkers), h.Leftovers, h.Revision)
	default:
		fmt.Fprintln(&b, "HAProxy does not run")
	}
	if h.Pending != "" {
		fmt.Fprintln(&b, "pending:", h.Pending)
	}
	if len(h.Quarantined) > 0 {
		fmt.Fprintln(&b, "quarantined:", strings.Join(h.Quarantined, ", "))
	}
	if h.LastError != "" {
		fmt.Fprintf(&b, "last error, %s: %s\n", h.LastErrorAt.Format(time.RFC3339), h.LastError)
	}
	fmt.Fprintf(&b, "%d services, %d routes, %d service ports, %d servers, %d findings\n\n", s.Services, s.Routes, s.Ports, s.Servers, s.Findings)
	var rows [][]string
	for _, source := range s.Sources {
		answered := "never"
		if !source.LastSuccess.IsZero() {
			answered = fmt.Sprintf("%.1f s ago", source.AgeSeconds)
		}
		rows = append(rows, []string{source.Source.String(), string(source.Status), answered, fmt.Sprint(source.Held), source.Detail, source.LastError})
	}
	b.WriteString(columns([]string{"SOURCE", "STATUS", "ANSWERED", "HELD", "HOW", "LAST ERROR"}, rows))
	return b.String()
}
