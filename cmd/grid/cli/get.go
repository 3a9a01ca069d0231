package cli

import (
	"context"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/remote"
)

func (e *env) getCommand() *cobra.Command {
	var out string
	var how placing
	var show output
	var open openFlags
	cmd := &cobra.Command{
		Use:   "get CID[/PATH] | JOB",
		Short: "Copy files out of the grid, or a job's outputs",
		Long: `Copy a file or folder out of the grid, or what the tasks of a job's last stage left in /out.

A file or folder is written as -o, else under its own name in the folder you are in. A job's outputs are
written to the folder of -o, else to one named by the job: straight into it if there is one task, else
into a folder for each task.

What is there already is not replaced without --force, and nothing appears half written.

With --decrypt a file or folder is written as it was before ` + "`grid add --encrypt`" + `, which is done by this command alone.

-o may be s3://BUCKET/KEY or, for a folder or several files, s3://BUCKET/PREFIX/; a single file may also go to
an HTTP server, by PUT to an https:// URL such as a presigned one.`,
		Example: `  grid get bafy.../report.pdf
  grid get bafy... -o models
  grid get jk3q -o results
  grid get jk3q -o s3://bucket/results/
  grid get --decrypt bafy... -o letters`,
		Args:              wantArgs(1, 1, "CID or JOB"),
		ValidArgsFunction: e.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return e.with(ctx, anyNode, func(s *session) error {
				var wrote []string
				var err error
				job := looksLikeJob(args[0]) && !open.wanted()
				if job {
					wrote, err = e.getJob(ctx, s, args[0], out, how)
					if code := grid.CodeOf(err); code == grid.NotFound || code == grid.Invalid { // a ref may look like a job, too
						_, rerr := s.Ref(ctx, args[0])
						job = rerr != nil
					}
				}
				switch {
				case open.wanted():
					wrote, err = e.getEncrypted(ctx, s, args[0], out, how, &open)
				case !job:
					wrote, err = e.getPath(ctx, s, args[0], out, how)
				}
				if err != nil {
					return err
				}
				if len(wrote) == 1 && !open.wanted() {
					defer e.tellEncrypted(wrote[0])
				}
				if show.formatted() {
					return show.print(map[string][]string{"wrote": wrote})
				}
				for _, w := range wrote {
					e.note("wrote %s", printable(w))
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "`WHERE` to write it")
	cmd.Flags().BoolVarP(&how.force, "force", "f", false, "replace files that are there")
	cmd.Flags().BoolVar(&how.unsafeLinks, "unsafe-links", false, "keep symlinks that lead out of the folder")
	show.prints(e, cmd, "{{range .wrote}}{{line .}}{{end}}")
	open.define(cmd)
	return cmd
}

// getPath writes one file or folder.
func (e *env) getPath(ctx context.Context, s *session, ref, out string, how placing) ([]string, error) {
	root, p, err := resolve(ctx, s, ref)
	if err != nil {
		return nil, err
	}
	info, err := s.Stat(ctx, root.Cid, p)
	if err != nil {
		return nil, err
	}
	name := root.String()
	if p != "" {
		name = path.Base(p)
	}
	if remote.Is(out) {
		return e.publish(ctx, s, root, p, info, name, out, how)
	}
	target := out
	switch st, err := os.Stat(out); {
	case out == "":
		target = name
	case info.Kind == grid.KindFile && err == nil && st.IsDir():
		target = filepath.Join(out, name)
	}
	switch info.Kind {
	case grid.KindDir:
		err = fetchDir(ctx, s, root.Cid, p, target, how)
	case grid.KindFile:
		err = e.getFile(ctx, s, root, p, &info, target, how)
	default:
		err = grid.Errorf(grid.Unsupported, "%s is a symlink to %q", ref, info.Target).Hint("get what it leads to, or the folder that holds it")
	}
	return []string{target}, err
}

func (e *env) getFile(ctx context.Context, s *session, root grid.Link, p string, info *grid.FileInfo, target string, how placing) error {
	r, err := s.Cat(ctx, root.Cid, p)
	if err != nil {
		return err
	}
	defer r.Close()
	m := e.startMeter(progress{what: "getting " + target, total: uint64(max(info.Size, 0))})
	defer m.stop()
	mode := fs.FileMode(0o644)
	if info.Exec {
		mode = 0o755
	}
	return saveFile(&countingReader{r, m.add}, target, mode, how)
}

// countingReader tells of the bytes that pass.
type countingReader struct {
	r     io.Reader
	count func(int)
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.count(n)
	return n, err
}

// getJob writes a job's outputs.
func (e *env) getJob(ctx context.Context, s *session, prefix, out string, how placing) ([]string, error) {
	id, err := findJob(ctx, s, prefix)
	if err != nil {
		return nil, err
	}
	if out == "" {
		out = string(id)
	}
	job, err := s.Job(ctx, id)
	if err != nil {
		return nil, err
	}
	if !job.State.Final() {
		return nil, grid.Errorf(grid.Conflict, "job %s is still running", id).Hint("`grid wait %s` waits for its end", id)
	}
	f := &follower{e: e, s: s, id: id}
	if job, err = f.run(ctx); err != nil {
		return nil, err
	}
	wrote, err := e.placeOutputs(ctx, s, f.tasks, severalTasks(&job), out, how)
	if err == nil && len(wrote) == 0 {
		e.note("the tasks of job %s wrote nothing below %s", id, grid.GuestOut)
	}
	return wrote, err
}
