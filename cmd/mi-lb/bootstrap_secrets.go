package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/mi-lb/mi-lb/provision/secrets"
)

func bootstrapSecretsCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "secrets",
		Short: "Generate, show and replace the platform's secrets",
		Long: `The platform's secrets are generated once and kept in one file on this machine:
encrypted with --age-identity or --passphrase-file, else readable by you only.`,
		Example: `  mi-lb bootstrap secrets init -i inventory/production --passphrase-file ~/.mi-lb-passphrase
  mi-lb bootstrap secrets show -i inventory/production
  mi-lb bootstrap secrets rotate-ca -i inventory/production
  mi-lb bootstrap secrets rotate-gossip -i inventory/production`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(bootstrapSecretsInitCommand(), bootstrapSecretsShowCommand(), bootstrapSecretsRotateCommand(), bootstrapSecretsGossipCommand())
	return command
}

func bootstrapSecretsInitCommand() *cobra.Command {
	var b bootstrap
	command := &cobra.Command{
		Use:   "init",
		Short: "Generate the secrets that are missing",
		Long: `Generates the secrets that the inventory's platform needs and that do not exist yet.
Apply does it, too; this is for doing it beforehand, or for choosing how they are
encrypted. Nothing that exists is replaced, but for certificates that end soon.`,
		Example: "  mi-lb bootstrap secrets init -i inventory/production --age-identity key.txt",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			s, err := b.open(command)
			if err != nil {
				return err
			}
			defer s.close()
			for _, n := range s.cluster.Nodes() {
				if !n.Address.IsValid() {
					// Its certificate is for an address that only the machine knows.
					if err := s.look(command.Context()); err != nil {
						return err
					}
					break
				}
			}
			if _, err := s.ensure(s.cluster); err != nil {
				return err
			}
			n := len(s.added)
			if err := s.store(); err != nil {
				return err
			}
			fmt.Fprintf(s.stdout, "%d secrets generated, %d in %s\n", n, len(s.bundle.Names()), s.secretsFile)
			return nil
		},
	}
	b.add(command)
	return command
}

func bootstrapSecretsShowCommand() *cobra.Command {
	var b bootstrap
	var output outputFlag
	var reveal bool
	command := &cobra.Command{
		Use:   "show [NAME]",
		Short: "List the secrets by name, or print one",
		Example: `  mi-lb bootstrap secrets show -i inventory/production
  mi-lb bootstrap secrets show -i inventory/production consul/token/management/secret --reveal`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(command *cobra.Command, arguments []string) error {
			s, err := b.open(command)
			if err != nil {
				return err
			}
			defer s.close()
			if _, err := os.Stat(s.secretsFile); errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("there are no secrets in %s yet; generate them with mi-lb bootstrap secrets init", s.secretsFile)
			}
			if len(arguments) == 0 {
				names := s.bundle.Names()
				return output.print(s.stdout, names, func() string {
					text := ""
					for _, name := range names {
						text += name + "\n"
					}
					return text
				})
			}
			value := s.bundle.Get(arguments[0])
			switch {
			case value.IsEmpty():
				return fmt.Errorf("there is no secret %q", arguments[0])
			case !reveal:
				fmt.Fprintf(s.stdout, "%s: %s; --reveal prints it\n", arguments[0], value)
			default:
				fmt.Fprintln(s.stdout, value.Reveal())
			}
			return nil
		},
	}
	b.add(command)
	output.add(command)
	command.Flags().BoolVar(&reveal, "reveal", false, "print the secret itself")
	return command
}

func bootstrapSecretsRotateCommand() *cobra.Command {
	var b bootstrap
	command := &cobra.Command{
		Use:   "rotate-ca",
		Short: "Take the next of three steps to another certificate authority",
		Long: `Takes the next of three steps to another certificate authority: trust a new one
beside the old, sign with the new one, forget the old one. Run "bootstrap apply"
after each, so that no machine meets a certificate that it does not trust.`,
		Example: `  mi-lb bootstrap secrets rotate-ca -i inventory/production
  mi-lb bootstrap apply -i inventory/production`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			s, err := b.open(command)
			if err != nil {
				return err
			}
			defer s.close()
			if len(s.bundle.Names()) == 0 {
				return fmt.Errorf("there are no secrets in %s yet; generate them with mi-lb bootstrap secrets init", s.secretsFile)
			}
			now, err := s.bundle.AdvanceRotation(time.Now())
			if err != nil {
				return err
			}
			if err := s.bundle.Save(s.secretsFile, s.lock); err != nil {
				return err
			}
			fmt.Fprintln(s.stdout, map[secrets.Rotation]string{
				secrets.RotationTrusting: "Step 1 of 3: a new authority is trusted beside the old one. Apply, then run this again.",
				secrets.RotationSigning:  "Step 2 of 3: the new authority signs; apply renews all certificates. Apply, then run this again.",
				secrets.NoRotation:       "Step 3 of 3: the old authority is forgotten. Apply, and it is done.",
			}[now])
			return nil
		},
	}
	b.add(command)
	return command
}
