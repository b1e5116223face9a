// Command mi-lb is the edge of a Mesos, Marathon and Consul platform, and what
// builds such a platform.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/mi-lb/mi-lb/cmd/mi-lb/config"
)

// Exit codes: Terraform's for changes, the usual ones otherwise.
const (
	exitFine    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitChanges = 2 // only with --detailed-exitcode
)

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) }

// run is the whole program; tests call it.
func run(ctx context.Context, arguments []string, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(arguments)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitFine
	case errors.Is(err, errChanges):
		return exitChanges
	}
	fmt.Fprintln(stderr, "mi-lb:", err)
	var usage interface{ ExitCode() int }
	var mistake *config.Error
	switch {
	case errors.As(err, &usage):
		return usage.ExitCode()
	case errors.As(err, &mistake):
		return exitUsage
	}
	return exitFailed
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func (usageError) ExitCode() int { return exitUsage }

// errChanges is no failure: changes are pending, and --detailed-exitcode asks for it.
var errChanges = errors.New("changes are pending")

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "mi-lb",
		Short: "The edge of a Mesos, Marathon and Consul platform",
		Long: `mi-lb serve watches the Consul catalogs of all datacenters and the apps of
Marathon, and makes HAProxy route to them: by service name, by host and path,
and by service port.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	root.SetFlagErrorFunc(func(command *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see %s --help", err, command.CommandPath())}
	})
	root.AddCommand(
		serveCommand(), renderCommand(), validateCommand(),
		routesCommand(), servicesCommand(), findingsCommand(), explainCommand(), statusCommand(),
		registratorCommand(), inventoryCommand(), bootstrapCommand(), versionCommand(),
	)
	for _, command := range append(root.Commands(), root) {
		if arguments := command.Args; arguments != nil {
			command.Args = func(command *cobra.Command, given []string) error {
				if err := arguments(command, given); err != nil {
					return usageError{fmt.Errorf("%w; see %s --help", err, command.CommandPath())}
				}
				return nil
			}
		}
	}
	return root
}
