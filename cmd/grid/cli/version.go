package cli

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) versionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Long:    "Print the version of this command, of what guests see (the ABI), and of the Go it was built with.",
		Example: `  grid version --json`,
		Args:    wantArgs(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return e.printJSON(struct {
					Version string `json:"version"`
					ABI     int    `json:"abi"`
					Go      string `json:"go"`
					OS      string `json:"os"`
					Arch    string `json:"arch"`
				}{grid.Version, grid.ABIVersion, runtime.Version(), runtime.GOOS, runtime.GOARCH})
			}
			_, err := fmt.Fprintln(e.out, versionLine())
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON document")
	return cmd
}

func versionLine() string {
	return fmt.Sprintf("grid %s (ABI %d, %s, %s/%s)", grid.Version, grid.ABIVersion, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
