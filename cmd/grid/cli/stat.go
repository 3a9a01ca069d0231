package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) statCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:   "stat CID[/PATH]",
		Short: "Tell what a CID names, and how much of it is here",
		Long: `Tell what a CID names: its kind, the size of its content, how many blocks of it the node has, the bytes that
these take, each block counted once, and whether any are missing.

No data is fetched for that, but for the one block that says what it is; only to follow a path, everything is.`,
		Example: `  grid stat bafy...
  grid stat bafy.../models --json`,
		Args: wantArgs(1, 1, "CID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				root, p, err := resolve(cmd.Context(), s, args[0])
				if err != nil {
					return err
				}
				x, err := s.Survey(cmd.Context(), root.Cid, p)
				if err != nil {
					return err
				}
				if show.formatted() {
					return show.print(x)
				}
				return e.table(extentRows(x))
			})
		},
	}
	show.prints(e, cmd, "{{.cid}}")
	return cmd
}

func extentRows(x grid.Extent) [][]string {
	size, here := "not known, as parts of it are not here", "all of it"
	switch {
	case x.Kind == "":
		size = "none: it is no file"
	case x.Size >= 0:
		size = bytesText(x.Size)
	}
	if !x.Local {
		here = fmt.Sprintf("%s missing, and what they link to", plural(x.Missing, "block"))
	}
	rows := [][]string{
		{"cid", linkText(x.CID)},
		{"kind", kindText(x.Kind)},
		{"size", size},
		{"blocks", fmt.Sprint(x.Blocks)},
		{"stored", bytesText(x.Bytes)},
		{"here", here},
	}
	if x.Target != "" {
		rows = append(rows, []string{"target", printable(x.Target)})
	}
	return rows
}

// bytesText is a size to the byte, and for people when it is large.
func bytesText(n int64) string {
	if n < 1024 {
		return plural(n, "byte")
	}
	return fmt.Sprintf("%s (%s)", plural(n, "byte"), formatSize(n))
}

func kindText(k grid.FileKind) string {
	if k == "" {
		return "data"
	}
	return string(k)
}
