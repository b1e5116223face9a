package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mi-lb/mi-lb/lb/admin"
	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/watch"
)

func routesCommand() *cobra.Command {
	var ask adminFlag
	var output outputFlag
	command := &cobra.Command{
		Use:   "routes",
		Short: "List what leads where, and why",
		Example: `  mi-lb routes
  mi-lb routes --output json | jq '.ports[].number'`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			var all admin.Routes
			if err := ask.get(command.Context(), "/v1/routes", nil, &all); err != nil {
				return err
			}
			return output.print(command.OutOrStdout(), all, func() string { return routesText(all) })
		},
	}
	ask.add(command)
	output.add(command)
	return command
}

func routesText(all admin.Routes) string {
	serving := map[string]string{}
	for _, b := range all.Backends {
		n, backup := 0, 0
		for _, s := range b.Servers {
			switch {
			case s.State != routing.Ready || s.Weight == 0:
			case s.Backup:
				backup++
			default:
				n++
			}
		}
		serving[b.ID] = strconv.Itoa(n)
		if backup > 0 {
			serving[b.ID] += fmt.Sprintf("+%d", backup)
		}
	}
	var rows [][]string
	for _, p := range all.Ports {
		rows = append(rows, []string{"port", fmt.Sprintf(":%d (%s)", p.Number, p.Protocol), p.Service, serving[p.Backend], p.Via})
	}
	for _, r := range all.Routes {
		path := r.Path
		if r.PathPrefix {
			path += "*"
		}
		rows = append(rows, []string{string(r.Kind), r.Host + path, r.Service, serving[r.Backend], r.Via})
	}
	return columns([]string{"KIND", "REQUEST", "SERVICE", "SERVING", "BECAUSE OF"}, rows)
}

func servicesCommand() *cobra.Command {
	var ask adminFlag
	var output outputFlag
	command := &cobra.Command{
		Use:     "services",
		Short:   "List all services, published or not, and why not",
		Example: "  mi-lb services",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			var all []routing.Service
			if err := ask.get(command.Context(), "/v1/services", nil, &all); err != nil {
				return err
			}
			return output.print(command.OutOrStdout(), all, func() string {
				var rows [][]string
				for _, s := range all {
					published := "yes"
					if !s.Published {
						published = "no: " + s.Reason
					}
					rows = append(rows, []string{
						s.Name, strings.Join(s.Aliases, ","), fmt.Sprintf("%d/%d", s.Serving, s.Instances), strings.Join(s.Sources, ","), published,
					})
				}
				return columns([]string{"SERVICE", "ALIASES", "SERVING", "SOURCES", "PUBLISHED"}, rows)
			})
		},
	}
	ask.add(command)
	output.add(command)
	return command
}

func findingsCommand() *cobra.Command {
	var ask adminFlag
	var output outputFlag
	command := &cobra.Command{
		Use:     "findings",
		Short:   "List input that could not be honoured, and what was done instead",
		Example: "  mi-lb findings",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			var all []watch.Finding
			if err := ask.get(command.Context(), "/v1/findings", nil, &all); err != nil {
				return err
			}
			return output.print(command.OutOrStdout(), all, func() string {
				var b strings.Builder
				for _, f := range all {
					b.WriteString(f.String() + "\n")
				}
				return b.String()
			})
		},
	}
	ask.add(command)
	output.add(command)
	return command
}
