package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) carCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "car",
		Short: "Exchange data with IPFS tools by CAR files",
		Long: `Write files and folders of the grid, or anything else that a CID names, into a CAR file, or read one in. IPFS
tools read and write such files; what they hold keeps its CIDs.`,
		Example: `  grid car export bafy... -o data.car
  grid car import data.car`,
		Args: noSubcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(e.carExportCommand(), e.carImportCommand())
	return cmd
}

func (e *env) carExportCommand() *cobra.Command {
	var out string
	var how placing
	cmd := &cobra.Command{
		Use:   "export CID[/PATH]",
		Short: "Write a CAR file",
		Long: `Write what a CID names, with everything below it, into a CAR file of version 1. Its root is what the path leads
to; equal data gives an equal file. A file of any size takes little memory.

The file is written as -o, else under the name of the CID, or of the last part of the path, with .car behind
it; - is standard output. What is there already is not replaced without --force, and nothing appears half
written.`,
		Example: `  grid car export bafy...
  grid car export bafy.../models -o models.car
  grid car export bafy... -o - | ipfs dag import`,
		Args: wantArgs(1, 1, "CID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return e.with(ctx, anyNode, func(s *session) error {
				root, p, err := resolve(ctx, s, args[0])
				if err != nil {
					return err
				}
				target := out
				switch st, err := os.Stat(out); {
				case out == "" || out != "-" && err == nil && st.IsDir():
					if target = root.String() + ".car"; p != "" {
						target = path.Base(p) + ".car"
					}
					target = path.Join(out, target)
				}
				r, err := s.ExportCAR(ctx, root.Cid, p)
				if err != nil {
					return err
				}
				defer r.Close()
				if out == "-" {
					_, err := io.Copy(e.out, r)
					return err
				}
				m := e.startMeter(progress{what: "writing " + target})
				err = saveFile(&countingReader{r, m.add}, target, 0o644, how)
				m.stop()
				if err == nil {
					e.note("wrote %s", printable(target))
				}
				return err
			})
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "`WHERE` to write it; - is standard output")
	cmd.Flags().BoolVarP(&how.force, "force", "f", false, "replace a file that is there")
	return cmd
}

func (e *env) carImportCommand() *cobra.Command {
	var partial, noPin bool
	var show output
	var pins pinFlags
	cmd := &cobra.Command{
		Use:   "import FILE...",
		Short: "Read CAR files",
		Long: `Store the blocks of CAR files, of version 1 or 2, and print the root of each. Every block is checked against its
CID; a file with one that does not match, or that is cut short, is refused with the place of the fault.
- is standard input.

A root that is not whole afterwards, with what the node had before, is an error. With --partial it is not: the
root is printed all the same, with a note of what it lacks. Roots that are whole are pinned: they stay until
` + "`grid rm`" + `.`,
		Example: `  grid car import data.car
  curl -sL 'https://ipfs.io/ipfs/bafy...?format=car' | grid car import -`,
		Args: wantArgs(1, -1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				type imported struct {
					File string `json:"file"`
					grid.Imported
				}
				all := []imported{}
				for _, name := range args {
					in, err := e.importFile(cmd.Context(), s, name, partial)
					if err != nil {
						return grid.Errorf(grid.CodeOf(err), "%s: %w", name, err)
					}
					all = append(all, imported{name, in})
					for _, root := range in.Roots {
						if !root.Whole {
							e.note("%s is not whole: %s", root.CID, printable(root.Why))
						} else if !noPin {
							if _, err := e.keep(cmd.Context(), s, root.CID, name, &pins); err != nil {
								return err
							}
						}
						if !show.formatted() {
							fmt.Fprintf(e.out, "%s  %s\n", root.CID, printable(name))
						}
					}
					e.note("%s: %s, %s", printable(name), plural(in.Blocks, "block"), formatSize(in.Bytes))
				}
				if show.formatted() {
					return show.print(all)
				}
				return nil
			})
		},
	}
	pins.define(cmd.Flags())
	cmd.Flags().BoolVar(&noPin, "no-pin", false, "let them go when their room is needed")
	cmd.Flags().BoolVar(&partial, "partial", false, "accept files whose roots are not whole")
	show.lists(e, cmd, "{{range .roots}}{{line .cid}}{{end}}")
	return cmd
}

// importFile reads one file, and shows how far that is.
func (e *env) importFile(ctx context.Context, s *session, name string, partial bool) (grid.Imported, error) {
	in, total := io.Reader(e.stdin), uint64(0)
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return grid.Imported{}, grid.Errorf(codeOfOS(err), "%w", reason(err))
		}
		defer f.Close()
		if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
			total = uint64(st.Size())
		} else if err == nil && st.IsDir() {
			return grid.Imported{}, grid.Errorf(grid.Invalid, "it is a folder").Hint("`grid add` stores a folder")
		}
		in = f
	}
	what := "reading " + name
	if name == "-" {
		what = "reading"
	}
	m := e.startMeter(progress{what: what, total: total})
	defer m.stop()
	// Standard input, or a named pipe, may hang: the client leaves this pipe then, and not that read.
	pr, pw := io.Pipe()
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{pw}, &countingReader{in, m.add}, make([]byte, pieceSize))
		pw.CloseWithError(err) // nil: io.EOF
	}()
	got, err := s.ImportCAR(ctx, pr, partial)
	pr.CloseWithError(errNodeStopped)
	return got, err
}
