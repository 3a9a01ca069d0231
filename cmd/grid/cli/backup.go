package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) backupCommand() *cobra.Command {
	var o grid.BackupOptions
	var how placing
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write what the realm knows into a file",
		Long: `Write what the realm knows into a file: jobs, refs, values, plugins, quotas, secrets and the audit log, all of one moment, and
the pins that this node knows. - is standard output. With --data also the data that these name: then a new realm can be made of the
file alone.

Secrets are in it as the ledger has them, encrypted to the nodes of the realm; keep the file "identity" of a node's home with the
backup, or nobody can read them. All else is in the clear, so the file is made for you alone. Tokens for the API, members and invitations are
not in it.`,
		Example: `  grid backup realm.backup
  grid backup --data /mnt/backup/$(date +%F).backup
  grid backup - | ssh host 'cat >realm.backup'`,
		Args: wantArgs(1, 1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, target := cmd.Context(), args[0]
			return e.with(ctx, anyNode, func(s *session) error {
				r, err := s.Backup(ctx, o)
				if err != nil {
					return err
				}
				defer r.Close()
				if target == "-" {
					_, err := io.Copy(e.out, r)
					return err
				}
				m := e.startMeter(progress{what: "writing " + target})
				err = saveFile(&countingReader{r, m.add}, target, 0o600, how)
				m.stop()
				if err == nil {
					e.note("wrote %s", printable(target))
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&o.Data, "data", false, "with the data of pins, refs, plugins and jobs")
	cmd.Flags().BoolVar(&o.Partial, "partial", false, "leave data out that is not to be had")
	cmd.Flags().BoolVarP(&how.force, "force", "f", false, "replace a file that is there")
	return cmd
}

func (e *env) restoreCommand() *cobra.Command {
	var merge bool
	var show output
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put a backup into a new realm",
		Long: `Put what ` + "`grid backup`" + ` has written into this node's realm. - is standard input. The file is checked to its end before
the ledger is changed: one that is cut short or damaged changes nothing.

The realm must be one that nobody has used. With --merge it may be in use: what is there stays, and only what is not there is put in.
If a key, a ref, a secret, an alias or a plugin is there with another value, nothing is, and the error names it.

Do not restore while nodes of the old realm are up in the same swarm: this one would join them. Jobs that had not ended go on here.`,
		Example: `  grid --home ~/new restore realm.backup
  grid restore --merge realm.backup`,
		Args: wantArgs(1, 1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				done, err := e.restoreFile(cmd.Context(), s, args[0], merge)
				switch {
				case err != nil:
					return err
				case show.formatted():
					return show.print(done)
				}
				e.note("restored the realm %q of %s, as it was at %s", printable(done.Header.Realm), done.Header.Node, done.Header.Made.Local().Format(time.DateTime))
				e.note("%s: %d new, %d as they were, %d kept as they are here; %s kept", plural(done.Held.Entries, "key"), done.Put, done.Same, done.Kept, plural(done.Pinned, "pin"))
				if done.Held.Lacks > 0 {
					e.note("the backup was made without %s of data: %s", plural(done.Held.Lacks, "root"), printable(fmt.Sprint(done.Held.Missing)))
				}
				if done.Unpinned > 0 {
					e.note("%s not kept, as the data is not to be had: %s", plural(done.Unpinned, "pin"), printable(done.Why))
					e.hint("start a node that has it, and restore again with --merge; or make backups with --data")
				}
				if done.Sealed > 0 {
					e.note("%s cannot be read here, as nodes of the old realm alone can", plural(done.Sealed, "secret"))
					e.hint("begin the new home with the file identity of an old one, or set them again with `grid secret set`")
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&merge, "merge", false, "put it into a realm that is in use; what is there stays")
	show.prints(e, cmd, "")
	return cmd
}

// restoreFile sends one file, and shows how far that is.
func (e *env) restoreFile(ctx context.Context, s *session, name string, merge bool) (grid.Restored, error) {
	in, total := io.Reader(e.stdin), uint64(0)
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return grid.Restored{}, grid.Errorf(codeOfOS(err), "%s: %w", name, reason(err))
		}
		defer f.Close()
		if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
			total = uint64(st.Size())
		}
		in = f
	}
	m := e.startMeter(progress{what: "reading " + name, total: total})
	defer m.stop()
	// Standard input, or a named pipe, may hang: the client leaves this pipe then, and not that read.
	pr, pw := io.Pipe()
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{pw}, &countingReader{in, m.add}, make([]byte, pieceSize))
		pw.CloseWithError(err) // nil: io.EOF
	}()
	done, err := s.Restore(ctx, pr, merge)
	pr.CloseWithError(errNodeStopped)
	return done, err
}
