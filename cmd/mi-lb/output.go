package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// outputFlag is --output, wherever something is listed.
type outputFlag string

func (o *outputFlag) add(command *cobra.Command) {
	*o = "text"
	command.Flags().VarP(o, "output", "o", "text or json")
	_ = command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// String, Set and Type implement pflag.Value.
func (o *outputFlag) String() string { return string(*o) }

// Set accepts text and json.
func (o *outputFlag) Set(s string) error {
	if s != "text" && s != "json" {
		return fmt.Errorf("%q is neither text nor json", s)
	}
	*o = outputFlag(s)
	return nil
}

// Type names the kind of value in --help.
func (o *outputFlag) Type() string { return "format" }

func (o *outputFlag) print(w io.Writer, value any, text func() string) error {
	if *o == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(value)
	}
	_, err := io.WriteString(w, text())
	return err
}

// columns aligns rows of cells.
func columns(header []string, rows [][]string) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	_ = w.Flush() // a strings.Builder does not fail
	lines := strings.Split(b.String(), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}
