package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// errMachines is a run in which something failed, after what failed was printed.
var errMachines = errors.New("not everything was done")

func bootstrapCommand() *cobra.Command {
	var b bootstrap
	command := &cobra.Command{
		Use:   "bootstrap",
		Short: "Build the platform that an inventory describes, or bring it up to date",
		Long: `Builds the platform that an inventory describes, or brings it up to date: looks at
all machines, says what has to change, asks, changes it wave by wave, and verifies
that everything works. A run that was cut off is completed by the next; where there
is nothing to do, nothing is done.

Secrets, the host keys that are trusted, the journal and logs are kept beside the
inventory, in .mi-lb/NAME; see --state-dir.`,
		Example: `  mi-lb bootstrap keyscan -i inventory/production
  mi-lb bootstrap -i inventory/production
  mi-lb bootstrap --local`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error { return b.bootstrap(command) },
	}
	b.add(command)
	b.addRun(command)
	command.AddCommand(
		bootstrapPlanCommand(), bootstrapApplyCommand(), bootstrapVerifyCommand(), bootstrapStatusCommand(),
		bootstrapKeyscanCommand(), bootstrapSecretsCommand(), bootstrapResetCommand(),
	)
	for _, below := range command.Commands() {
		strictArguments(below)
		for _, deeper := range below.Commands() {
			strictArguments(deeper)
		}
	}
	return command
}

// strictArguments makes a wrong number of arguments a usage error.
func strictArguments(command *cobra.Command) {
	arguments := command.Args
	if arguments == nil {
		return
	}
	command.Args = func(command *cobra.Command, given []string) error {
		if err := arguments(command, given); err != nil {
			return usageError{fmt.Errorf("%w; see %s --help", err, command.CommandPath())}
		}
		return nil
	}
}
