package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/inventory"
	"github.com/mi-lb/mi-lb/provision/platform"
)

// inventoryFlags name an inventory, for every command that reads one.
type inventoryFlags struct {
	sources        []string
	extra          []string
	vaultPasswords []string
}

func (f *inventoryFlags) add(command *cobra.Command) {
	flags := command.Flags()
	flags.StringArrayVarP(&f.sources, "inventory", "i", nil, "inventory: a file, a directory, a program, or hosts separated by commas; may be given again")
	flags.StringArrayVarP(&f.extra, "extra-vars", "e", nil, "variables that override all others: name=value, @file, or YAML; may be given again")
	flags.StringArrayVar(&f.vaultPasswords, "vault-password-file", nil, "file with a password of Ansible Vault, or program that prints it; may be given again (default $ANSIBLE_VAULT_PASSWORD_FILE)")
	_ = command.MarkFlagFilename("inventory") // it fails for flags that do not exist
}

// load reads the inventory.
func (f *inventoryFlags) load(ctx context.Context) (*inventory.Inventory, error) {
	if len(f.sources) == 0 {
		return nil, usageError{errors.New("no inventory was named; name one with -i FILE")}
	}
	passwords := f.vaultPasswords
	if file := os.Getenv("ANSIBLE_VAULT_PASSWORD_FILE"); len(passwords) == 0 && file != "" {
		passwords = []string{file}
	}
	keyring, err := inventory.ReadKeyring(ctx, passwords...)
	if err != nil {
		return nil, err
	}
	return inventory.Load(ctx, inventory.Options{Sources: f.sources, Extra: f.extra, Keyring: keyring})
}

func inventoryCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "inventory",
		Short: "Look at an inventory, and check it",
		Long: `Look at an inventory, and check it. Inventories are Ansible's: INI, YAML or JSON
files, directories of them, or programs, with group_vars and host_vars beside.`,
		Example: `  mi-lb inventory lint -i inventory/production
  mi-lb inventory graph -i inventory/production
  mi-lb inventory show -i inventory/production --output json`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(inventoryLintCommand(), inventoryGraphCommand(), inventoryShowCommand())
	for _, below := range command.Commands() {
		if arguments := below.Args; arguments != nil {
			below.Args = func(command *cobra.Command, given []string) error {
				if err := arguments(command, given); err != nil {
					return usageError{fmt.Errorf("%w; see %s --help", err, command.CommandPath())}
				}
				return nil
			}
		}
	}
	return command
}

// lintReport is what lint finds.
type lintReport struct {
	Hosts       int                 `json:"hosts"`
	Datacenters []string            `json:"datacenters"`
	Findings    []inventory.Finding `json:"findings"`
}

func inventoryLintCommand() *cobra.Command {
	var from inventoryFlags
	var output outputFlag
	command := &cobra.Command{
		Use:   "lint",
		Short: "Say what is wrong with an inventory, with file and line",
		Long: `Say what is wrong with an inventory, with file and line: what cannot be read, what
no platform can be built from (error), and what is odd (warning). It exits 1 if
there is an error.`,
		Example: "  mi-lb inventory lint -i inventory/production",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			inv, err := from.load(command.Context())
			var broken *inventory.Error
			if errors.As(err, &broken) {
				report := lintReport{Datacenters: []string{}, Findings: []inventory.Finding{{
					Severity: inventory.Refused, Code: "unreadable", At: broken.At, Message: broken.Message,
				}}}
				if err := output.print(command.OutOrStdout(), report, report.text); err != nil {
					return err
				}
				return errors.New("the inventory cannot be read")
			}
			if err != nil {
				return err
			}
			result := cluster.Build(inv, cluster.State{}, platform.Variables()...)
			report := lintReport{Hosts: len(inv.Hosts()), Datacenters: []string{}, Findings: result.Findings}
			if report.Findings == nil {
				report.Findings = []inventory.Finding{}
			}
			if result.Cluster != nil {
				for _, d := range result.Cluster.Datacenters {
					report.Datacenters = append(report.Datacenters, d.Name)
				}
			}
			if err := output.print(command.OutOrStdout(), report, report.text); err != nil {
				return err
			}
			if n := len(result.Refused()); n > 0 {
				return fmt.Errorf("the inventory has %d errors", n)
			}
			return nil
		},
	}
	from.add(command)
	output.add(command)
	return command
}

func (r lintReport) text() string {
	var b strings.Builder
	for _, f := range r.Findings {
		b.WriteString(f.String() + "\n")
	}
	if len(r.Datacenters) > 0 {
		fmt.Fprintf(&b, "%d hosts in %s, %d warnings\n", r.Hosts, strings.Join(r.Datacenters, ", "), len(r.Findings))
	}
	return b.String()
}

func inventoryGraphCommand() *cobra.Command {
	var from inventoryFlags
	var output outputFlag
	command := &cobra.Command{
		Use:   "graph [GROUP]",
		Short: "Draw groups and hosts as a tree",
		Example: `  mi-lb inventory graph -i inventory/production
  mi-lb inventory graph -i inventory/production role=control`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(command *cobra.Command, arguments []string) error {
			inv, err := from.load(command.Context())
			if err != nil {
				return err
			}
			group := "all"
			if len(arguments) == 1 {
				group = arguments[0]
			}
			text, err := inv.Graph(group)
			if err != nil {
				return err
			}
			return output.print(command.OutOrStdout(), inv.Listing(inventory.IsSecretName).Groups, func() string { return text })
		},
	}
	from.add(command)
	output.add(command)
	return command
}

func inventoryShowCommand() *cobra.Command {
	var from inventoryFlags
	var output outputFlag
	command := &cobra.Command{
		Use:   "show [HOST]...",
		Short: "Show what an inventory says of its hosts",
		Long: `Show what an inventory says of its hosts: the datacenter, roles and address of
each; of named hosts also every variable, and where it was set. As JSON it is what
ansible-inventory --list prints. Secrets are hidden.`,
		Example: `  mi-lb inventory show -i inventory/production
  mi-lb inventory show -i inventory/production host-01
  mi-lb inventory show -i inventory/production --output json | jq ._meta.hostvars`,
		RunE: func(command *cobra.Command, names []string) error {
			inv, err := from.load(command.Context())
			if err != nil {
				return err
			}
			for _, name := range names {
				if _, ok := inv.Host(name); !ok {
					return fmt.Errorf("there is no host %q", name)
				}
			}
			listing := inv.Listing(inventory.IsSecretName)
			return output.print(command.OutOrStdout(), listing, func() string {
				if len(names) == 0 {
					return hostsText(inv)
				}
				var b strings.Builder
				for _, name := range names {
					host, _ := inv.Host(name)
					b.WriteString(hostText(host, listing.Hostvars[name]))
				}
				return b.String()
			})
		},
	}
	from.add(command)
	output.add(command)
	return command
}

// hostsText lists the hosts of a platform; of an inventory that is none, their groups.
func hostsText(inv *inventory.Inventory) string {
	result := cluster.Build(inv, cluster.State{}, platform.Variables()...)
	var rows [][]string
	for _, h := range inv.Hosts() {
		row := []string{h.Name(), "", strings.Join(h.Groups(), ","), ""}
		if result.Cluster != nil {
			if n, ok := result.Cluster.Node(h.Name()); ok {
				var roles []string
				for _, r := range n.Roles {
					roles = append(roles, string(r))
				}
				address := "(found on the host)"
				if n.Address.IsValid() {
					address = n.Address.String()
				}
				row = []string{n.Name, n.Datacenter, strings.Join(roles, ","), address}
			}
		}
		rows = append(rows, row)
	}
	header := []string{"HOST", "DATACENTER", "ROLES", "ADDRESS"}
	if result.Cluster == nil {
		header = []string{"HOST", "", "GROUPS", ""}
		return columns(header, rows) + "It describes no platform; mi-lb inventory lint says why.\n"
	}
	return columns(header, rows)
}

// hostText is one host with its variables.
func hostText(h *inventory.Host, values map[string]any) string {
	var rows [][]string
	vars := h.Vars()
	names := make([]string, 0, len(vars))
	for name := range vars {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		rows = append(rows, []string{name, oneLine(values[name]), vars[name].At.String()})
	}
	return fmt.Sprintf("%s (%s): %s\n", h.Name(), h.At(), strings.Join(h.Groups(), ", ")) + columns([]string{"VARIABLE", "VALUE", "SET AT"}, rows)
}

func oneLine(value any) string {
	text := fmt.Sprint(value)
	if value == nil {
		text = ""
	}
	return strings.NewReplacer("\n", " ", "\t", " ").Replace(text)
}
