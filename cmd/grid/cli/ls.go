package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) lsCommand() *cobra.Command {
	var show output
	var open openFlags
	cmd := &cobra.Command{
		Use:   "ls CID[/PATH]",
		Short: "List a folder in the grid",
		Long: `List the entries of a folder in the grid: size, CID and name. A name is followed by / when it is a folder's, by *
when the file may be executed, and by -> and where it leads when it is a symlink's. With --decrypt it is a folder that was
encrypted that is listed, in which nothing has a CID of its own.`,
		Example: `  grid ls bafy...
  grid ls bafy.../src --json`,
		Args: wantArgs(1, 1, "CID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				list, err := e.folderOf(cmd.Context(), s, args[0], &open)
				if err != nil {
					return err
				}
				if show.formatted() {
					return show.print(list)
				}
				rows := make([][]string, 0, len(list))
				for _, i := range list {
					name := printable(i.Name)
					switch i.Kind {
					case grid.KindDir:
						name += "/"
					case grid.KindSymlink:
						name += " -> " + printable(i.Target)
					}
					if i.Exec {
						name += "*"
					}
					rows = append(rows, []string{fmt.Sprint(i.Size), linkText(i.CID), name})
				}
				return e.table(rows)
			})
		},
	}
	show.lists(e, cmd, "{{.name}}")
	open.define(cmd)
	return cmd
}

// folderOf lists the folder that ref names.
func (e *env) folderOf(ctx context.Context, s *session, ref string, open *openFlags) ([]grid.FileInfo, error) {
	if open.wanted() {
		return e.listEncrypted(ctx, s, ref, open)
	}
	root, p, err := resolve(ctx, s, ref)
	if err != nil {
		return nil, err
	}
	return s.List(ctx, root.Cid, p)
}
