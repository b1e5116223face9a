package main

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mi-lb/mi-lb/lb/routing"
)

func explainCommand() *cobra.Command {
	var ask adminFlag
	var output outputFlag
	command := &cobra.Command{
		Use:   "explain <host[/path] | URL | :port | app:/id | sni:name>",
		Short: "Say why a request goes where it goes",
		Example: `  mi-lb explain webserver.mi-lb.example.com
  mi-lb explain shop.example.com/api/cart
  mi-lb explain :9000`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, arguments []string) error {
			query, err := explainQuery(arguments[0])
			if err != nil {
				return usageError{err}
			}
			var e routing.Explanation
			if err := ask.get(command.Context(), "/v1/explain", query, &e); err != nil {
				return err
			}
			return output.print(command.OutOrStdout(), e, func() string {
				var b strings.Builder
				for _, step := range e.Steps {
					fmt.Fprintln(&b, step)
				}
				for _, f := range e.Findings {
					fmt.Fprintln(&b, "finding:", f)
				}
				return b.String()
			})
		},
	}
	ask.add(command)
	output.add(command)
	return command
}

func explainQuery(what string) (url.Values, error) {
	if id, ok := strings.CutPrefix(what, "app:"); ok {
		return url.Values{"app": {id}}, nil
	}
	if name, ok := strings.CutPrefix(what, "sni:"); ok {
		return url.Values{"sni": {name}}, nil
	}
	if port, ok := strings.CutPrefix(what, ":"); ok {
		return url.Values{"port": {port}}, nil
	}
	if strings.Contains(what, "://") {
		u, err := url.Parse(what)
		if err != nil {
			return nil, fmt.Errorf("%q is no URL: %w", what, err)
		}
		return url.Values{"host": {u.Host}, "path": {u.Path}}, nil
	}
	host, path, found := strings.Cut(what, "/")
	if found {
		path = "/" + path
	}
	if host == "" {
		return nil, fmt.Errorf("%q has no host; ask for a host, host/path, URL, :port, app:/id or sni:name", what)
	}
	return url.Values{"host": {host}, "path": {path}}, nil
}
