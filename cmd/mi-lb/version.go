package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker for a release.
var version = ""

// buildVersion is the release, else what Go knows of the source it was built from.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			return "devel-" + setting.Value
		}
	}
	return "devel"
}

func versionCommand() *cobra.Command {
	var output outputFlag
	command := &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  mi-lb version --output json",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			v := struct {
				Version  string `json:"version"`
				Go       string `json:"go"`
				Platform string `json:"platform"`
			}{buildVersion(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			return output.print(command.OutOrStdout(), v, func() string {
				return fmt.Sprintf("mi-lb %s (%s, %s)\n", v.Version, v.Go, v.Platform)
			})
		},
	}
	output.add(command)
	return command
}
