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
	"github.com/wasmgrid/wasmgrid/store/remote"
)

func (e *env) addCommand() *cobra.Command {
	var skipSpecial, noIndex, noPin bool
	var show output
	var f pinFlags
	var seal sealFlags
	cmd := &cobra.Command{
		Use:   "add PATH|URL...",
		Short: "Put files and folders into the grid",
		Long: `Put files and folders into the grid, and print the CID of each. A CID names content: equal content has an
equal CID, everywhere.

A folder is added whole, hidden files included; symlinks in it stay symlinks. Of a file its content is kept, and
whether it may be executed. Pipes, sockets and devices are refused, or left out with --skip-special.

What is added again is read only where it has changed since, going by size, times and inode. --no-index reads all
of it.

A URL, https://HOST/FILE or s3://BUCKET/KEY, is fetched by this command and put in as it comes;
s3://BUCKET/PREFIX/ is a folder. #sha256=HEX or #cid=CID behind it says what the file must be, or nothing is added.

With --encrypt it is encrypted by this command, and nodes have nothing but what comes of it; - is standard input then. Size and
CID are all that can be seen of a folder. It is encrypted to your own key, or to whom --to names. Equal content then has another
CID each time, so that nothing is stored only once. ` + "`grid get --decrypt`" + ` and the like give it back.

What is added is pinned: it stays until ` + "`grid rm`" + `. With --replicas other nodes keep copies, with --ec they keep
parts of it, from which it can be put together when some of them are lost. Without --wait the command does not
wait for them.`,
		Example: `  grid add data.csv
  grid add --replicas 3 --wait results
  grid add --ec 4+2 archive.tar
  grid add https://example.org/data.csv#sha256=9f86d081...
  grid add s3://bucket/data/
  cid=$(grid add -q models)
  grid add --encrypt private
  tar c mail | grid add --encrypt --to age1... -`,
		Args: wantArgs(1, -1, "PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			to, err := seal.recipients(e, cmd)
			if err != nil {
				return err
			}
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				added := []grid.FileInfo{}
				for _, p := range args {
					add := func() (grid.FileInfo, error) { return e.addPath(cmd.Context(), s, p, skipSpecial, noIndex) }
					if seal.encrypt {
						add = func() (grid.FileInfo, error) { return e.addEncrypted(cmd.Context(), s, p, skipSpecial, to) }
					}
					info, err := add()
					if err != nil {
						return err
					}
					pinned := info.Name
					if seal.encrypt {
						pinned = "" // names are not told
					}
					if !noPin {
						_, err := e.keep(cmd.Context(), s, info.CID, pinned, &f)
						if errors.Is(err, grid.NotFound) && !seal.encrypt { // what need not be sent again has turned out to be damaged
							if _, err = add(); err == nil {
								_, err = e.keep(cmd.Context(), s, info.CID, pinned, &f)
							}
						}
						if err != nil {
							return err
						}
					}
					added = append(added, info)
					if !show.formatted() {
						fmt.Fprintf(e.out, "%s  %s\n", info.CID, printable(info.Name))
					}
				}
				if show.formatted() {
					return show.print(added)
				}
				return nil
			})
		},
	}
	show.lists(e, cmd, "{{.cid}}")
	f.define(cmd.Flags())
	seal.define(cmd)
	cmd.Flags().BoolVar(&noPin, "no-pin", false, "let it go when its room is needed")
	e.maxDownloadFlag(cmd)
	cmd.Flags().BoolVar(&skipSpecial, "skip-special", false, "leave out pipes, sockets and devices")
	cmd.Flags().BoolVar(&noIndex, "no-index", false, "read everything, whatever is remembered of earlier times")
	return cmd
}

// addPath adds one file or folder. Its info is named by the path.
func (e *env) addPath(ctx context.Context, s *session, p string, skipSpecial, noIndex bool) (grid.FileInfo, error) {
	if remote.Is(p) {
		return e.addURL(ctx, s, p)
	}
	info, err := os.Stat(p)
	if err != nil {
		return grid.FileInfo{}, grid.Errorf(codeOfOS(err), "add %s: %w", p, reason(err))
	}
	it, total := item{path: p}, uint64(0)
	if !info.IsDir() {
		it.name, total = itemFile, uint64(max(info.Size(), 0))
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
	out, err := e.addAgain(ctx, s, p, how, it)
	if err != nil {
		return out, err
	}
	if x := how.imports; x != nil && x.used > 0 {
		e.note("%s as before, not read again", plural(x.used, "file"))
	}
	return out, nil
}

// addItems adds a file that is the only item, or else the folder of all items. The info is named p.
func (e *env) addItems(ctx context.Context, s *session, p string, how uploading, items []item, isFile bool) (grid.FileInfo, error) {
	var file grid.FileInfo
	out, err := e.upload(ctx, s, how, items, func(info grid.FileInfo) { file = info })
	if err != nil {
		return out, err
	}
	if isFile {
		if !file.CID.Defined() {
			return out, grid.Errorf(grid.Internal, "add %s: the node did not say what became of it", p)
		}
		out = file
	}
	out.Name = p
	return out, nil
}

// itemFile is the name in the archive of a file that is added alone.
const itemFile = "file"

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
