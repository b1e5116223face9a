package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/mi-lb/mi-lb/cmd/mi-lb/config"
	"github.com/mi-lb/mi-lb/lb/haproxy/process"
	"github.com/mi-lb/mi-lb/lb/haproxy/render"
	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/templates"
	"github.com/mi-lb/mi-lb/watch"
	"github.com/mi-lb/mi-lb/watch/file"
)

func validateCommand() *cobra.Command {
	var flags configFlags
	command := &cobra.Command{
		Use:   "validate",
		Short: "Check the configuration, the static services and the templates",
		Long: `Check the configuration, the file of static services and the templates, without
connecting to anything and without touching anything that runs. The templates are
rendered with the services of the saved snapshot, if there is one, and what comes of
them is given to haproxy -c.`,
		Example: "  mi-lb validate --config /etc/mi-lb/mi-lb.yaml",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			c, p, err := flags.load()
			if err != nil {
				return err
			}
			return validate(command.Context(), c, p, command.OutOrStdout())
		},
	}
	flags.add(command)
	return command
}

func validate(ctx context.Context, c config.Config, p paths, out io.Writer) error {
	if c.File != "" {
		if err := file.Check(c.File); err != nil {
			return &config.Error{Where: "file", Message: err.Error()}
		}
	}
	engine, err := newEngine(c, slog.New(slog.DiscardHandler))
	if err != nil {
		return &config.Error{Where: "haproxy.templates", Message: err.Error()}
	}
	snapshot := &watch.Snapshot{Datacenter: c.Datacenter}
	if saved, _, err := watch.Load(p.snapshot); err == nil && saved != nil {
		snapshot = saved
	}
	s, err := settings(c, p)
	if err != nil {
		return err
	}
	directory, err := os.MkdirTemp("", "mi-lb-validate-")
	if err != nil {
		return fmt.Errorf("make a directory to validate in: %w", err)
	}
	defer os.RemoveAll(directory)
	s.Dir = directory
	table := routing.Compile(snapshot, policy(c), nil)
	files, err := render.New(engine).Render(ctx, table, s, snapshot)
	var missing *templates.MissingError
	if errors.As(err, &missing) {
		fmt.Fprintf(out, "configuration is right; the templates cannot be rendered without Consul: %v\n", err)
		return nil
	}
	if err != nil {
		return &config.Error{Where: "templates", Message: err.Error()}
	}
	staged, err := render.Stage(directory, files)
	if err != nil {
		return err
	}
	check, err := staged.CheckFile()
	if err != nil {
		return err
	}
	v, err := process.Validate(ctx, c.HAProxy.Path, check)
	if err != nil {
		return err
	}
	if err := v.Err(); err != nil {
		message := strings.ReplaceAll(err.Error(), check, render.ConfigFile)
		return &config.Error{Where: "templates", Message: message + "; mi-lb render writes the file, to look at the line"}
	}
	sections, err := render.Lint(files[render.ConfigFile])
	if err != nil {
		return err
	}
	servers := 0
	for _, section := range sections {
		if !render.Internal(section.Name) { // by which HAProxy reaches itself
			servers += len(section.Servers)
		}
		for _, line := range section.Unknown {
			fmt.Fprintf(out, "%s:%d: %q is not known to HAProxy 2.9's grammar; haproxy -c accepts it\n", render.ConfigFile, line.Number, line.Text)
		}
	}
	fmt.Fprintf(out, "configuration is right: %d services, %d routes, %d findings; HAProxy accepts %d sections with %d servers\n",
		len(table.Services), len(table.Routes), len(table.Findings), len(sections), servers)
	return nil
}

func writeFile(path string, content []byte) error {
	if err := renameio.WriteFile(path, content, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
