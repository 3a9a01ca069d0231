package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) versionCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Long: `Print the version of this command, of what guests see (the ABI), and of the Go it was built with. With --json also what it was
built of: the commit, the flags that tell how, and each module with its version and checksum, as go.sum has it.`,
		Example: `  grid version --json`,
		Args:    wantArgs(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			if show.formatted() {
				return show.print(struct {
					Version string `json:"version"`
					ABI     int    `json:"abi"`
					Go      string `json:"go"`
					OS      string `json:"os"`
					Arch    string `json:"arch"`
					made
				}{grid.Version, grid.ABIVersion, runtime.Version(), runtime.GOOS, runtime.GOARCH, madeOf()})
			}
			_, err := fmt.Fprintln(e.out, versionLine())
			return err
		},
	}
	show.prints(e, cmd, "{{.version}}")
	return cmd
}

// made is what the command was built of, as far as it was told when it was.
type made struct {
	Commit   string            `json:"commit,omitempty"`
	Modified bool              `json:"modified,omitempty"` // what was built is not just the commit
	Settings map[string]string `json:"settings"`
	Modules  []builtModule     `json:"modules"`
}

// builtModule is a module of which something is in the command.
type builtModule struct {
	Path    string `json:"path"`
	Version string `json:"version"`
	Sum     string `json:"sum,omitempty"` // "" of what was replaced by a folder
}

func madeOf() made {
	m := made{Settings: map[string]string{}, Modules: []builtModule{}}
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return m
	}
	for _, s := range b.Settings {
		switch s.Key {
		case "vcs.revision":
			m.Commit = s.Value
		case "vcs.modified":
			m.Modified = s.Value == "true"
		default:
			m.Settings[s.Key] = s.Value
		}
	}
	for _, d := range b.Deps {
		if d.Replace != nil {
			d = d.Replace
		}
		m.Modules = append(m.Modules, builtModule{d.Path, d.Version, d.Sum})
	}
	return m
}

func versionLine() string {
	return fmt.Sprintf("grid %s (ABI %d, %s, %s/%s)", grid.Version, grid.ABIVersion, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
