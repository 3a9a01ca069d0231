package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) addCommand() *cobra.Command {
	var asJSON, skipSpecial, noIndex bool
	cmd := &cobra.Command{
		Use:   "add PATH...",
		Short: "Put files and folders into the grid",
		Long: `Put files and folders into the grid, and print the CID of each. A CID names content: equal content has an
equal CID, everywhere.

A folder is added whole, hidden files included; symlinks in it stay symlinks. Of a file its content is kept, and
whether it may be executed. Pipes, sockets and devices are refused, or left out with --skip-special.

What is added again is read only where it has changed since, going by size, times and inode. --no-index reads all
of it.`,
		Example: `  grid add data.csv
  cid=$(grid add -q models)`,
		Args: wantArgs(1, -1, "PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				added := []grid.FileInfo{}
				for _, p := range args {
					info, err := e.addPath(cmd.Context(), s, p, skipSpecial, noIndex)
					if err != nil {
						return err
					}
					added = append(added, info)
					switch {
					case asJSON:
					case e.quiet:
						fmt.Fprintln(e.out, info.CID)
					default:
						fmt.Fprintf(e.out, "%s  %s\n", info.CID, printable(p))
					}
				}
				if asJSON {
					return e.printJSON(added)
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVarP(&e.quiet, "quiet", "q", false, "print nothing but CIDs")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	cmd.Flags().BoolVar(&skipSpecial, "skip-special", false, "leave out pipes, sockets and devices")
	cmd.Flags().BoolVar(&noIndex, "no-index", false, "read everything, whatever is remembered of earlier times")
	return cmd
}

// addPath adds one file or folder. Its info is named by the path.
func (e *env) addPath(ctx context.Context, s *session, p string, skipSpecial, noIndex bool) (grid.FileInfo, error) {
	info, err := os.Stat(p)
	if err != nil {
		return grid.FileInfo{}, grid.Errorf(codeOfOS(err), "add %s: %w", p, reason(err))
	}
	it, total := item{path: p}, uint64(0)
	if !info.IsDir() {
		it.name, total = "file", uint64(max(info.Size(), 0))
	} else if e.width() > 0 && !e.quiet {
		total = folderSize(ctx, p)
	}
	how := uploading{what: "adding " + p, total: total, skipSpecial: skipSpecial}
	if home, err := e.homeDir(); err == nil {
		how.imports = openImports(home, p, e.now)
	}
	if noIndex {
		how.imports.again(true)
	}
	var file grid.FileInfo
	out, err := e.uploadAgain(ctx, s, how, it, func(info grid.FileInfo) { file = info })
	if err != nil {
		return out, err
	}
	if x := how.imports; x != nil && x.used > 0 {
		e.note("%s as before, not read again", plural(x.used, "file"))
	}
	if it.name != "" {
		if !file.CID.Defined() {
			return out, grid.Errorf(grid.Internal, "add %s: the node did not say what became of it", p)
		}
		out = file
	}
	out.Name = p
	return out, nil
}

// folderSize sums up what a folder holds, for the progress bar; 0 when that cannot be told.
func folderSize(ctx context.Context, dir string) (sum uint64) {
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil || !d.Type().IsRegular() {
			return err
		}
		if info, err := d.Info(); err == nil {
			sum += uint64(info.Size())
		}
		return nil
	})
	if err != nil {
		return 0
	}
	return sum
}
