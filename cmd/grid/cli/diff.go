package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) diffCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:   "diff CID[/PATH] CID[/PATH]",
		Short: "Tell what differs between two folders in the grid",
		Long: `Compare two folders in the grid, and print each path that is only in the second one (+), only in the first one
(-), or not the same in both (~). They are compared by CID: folders that are equal are not looked into, so it
takes little time to find what has changed in a large one. A folder that was added or removed is one line.

The exit code is 0 when they are equal, 1 when they differ, and more when that could not be found out.`,
		Example: `  grid diff bafy... bafy...
  grid diff bafy.../src bafy.../src --json`,
		Args: wantArgs(2, 2, "CID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var roots [2]grid.Link
			var paths [2]string
			type change struct {
				How string `json:"change"`
				grid.Change
			}
			list, differ := []change{}, false
			err := e.with(cmd.Context(), anyNode, func(s *session) error {
				for i, ref := range args {
					var err error
					if roots[i], paths[i], err = resolve(cmd.Context(), s, ref); err != nil {
						return err
					}
				}
				return s.Diff(cmd.Context(), roots[0].Cid, paths[0], roots[1].Cid, paths[1], func(c grid.Change) error {
					differ = true
					if show.formatted() {
						list = append(list, change{c.String(), c})
						return nil
					}
					_, err := fmt.Fprintln(e.out, changeText(c))
					return err
				})
			})
			if err == nil && show.formatted() {
				err = show.print(list)
			}
			switch {
			case err != nil && exitCode(err) == exitFailure:
				return &exitError{exitOf(grid.Internal), err} // 1 would mean that they differ
			case err == nil && differ:
				return &exitError{exit: exitFailure}
			}
			return err
		},
	}
	show.lists(e, cmd, "{{.path}}")
	return cmd
}

// changeText is a line such as "~ d/file" or "+ folder/".
func changeText(c grid.Change) string {
	name := func(k grid.FileKind) string {
		p := printable(c.Path)
		if p == "" {
			p = "."
		}
		if k == grid.KindDir {
			p += "/"
		}
		return p
	}
	switch c.String() {
	case "added":
		return "+ " + name(c.IsKind)
	case "removed":
		return "- " + name(c.WasKind)
	}
	if c.WasKind != c.IsKind {
		return fmt.Sprintf("~ %s (%s, now %s)", name(""), kindText(c.WasKind), kindText(c.IsKind))
	}
	return "~ " + name(c.IsKind)
}
