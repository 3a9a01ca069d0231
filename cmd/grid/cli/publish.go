package cli

import (
	"context"
	"io"
	"maps"
	"path"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/remote"
)

// putsAtOnce is how many files of a folder are published at a time.
const putsAtOnce = 4

// publish writes the file or folder that root and p name to a URL.
func (e *env) publish(ctx context.Context, s *session, root grid.Link, p string, info grid.FileInfo, name, url string, how placing) ([]string, error) {
	to, err := remote.Parse(url)
	if err != nil {
		return nil, err
	}
	switch info.Kind {
	case grid.KindDir:
		if to, err = outputFolder(url); err != nil {
			return nil, err
		}
		if err := e.publishDir(ctx, s, root, p, to, how); err != nil {
			return nil, err
		}
	case grid.KindFile:
		if to.Folder() {
			to = to.Below(name)
		}
		m := e.startMeter(progress{what: "publishing " + to.String(), total: uint64(max(info.Size, 0))})
		defer m.stop()
		if err := e.remote().Put(ctx, to, content(s, root, p, info, m), how.force); err != nil {
			return nil, err
		}
	default:
		return nil, grid.Errorf(grid.Unsupported, "%s is a symlink to %q", name, info.Target).Hint("get what it leads to")
	}
	return []string{to.String()}, nil
}

// outputFolder reads the URL of a folder to write to; a missing slash at its end does not matter.
func outputFolder(url string) (remote.Ref, error) {
	to, err := remote.Parse(url)
	switch {
	case err != nil:
		return to, err
	case !to.S3():
		return to, grid.Errorf(grid.Unsupported, "%s: a folder cannot be written to an HTTP server", to).Hint("s3://BUCKET/PREFIX/ can take one, or a folder of yours")
	case to.Pinned():
		return to, grid.Errorf(grid.Invalid, "%s: a checksum is for what is read", to)
	}
	return to.AsFolder(), nil
}

// content is a file of the grid as it is put outside.
func content(s *session, root grid.Link, p string, info grid.FileInfo, m *meter) remote.Content {
	return remote.Content{Size: info.Size, CID: info.CID.Cid, Open: func(ctx context.Context) (io.ReadCloser, error) {
		r, err := s.Cat(ctx, root.Cid, p)
		if err != nil {
			return nil, err
		}
		return struct {
			io.Reader
			io.Closer
		}{&countingReader{r, m.add}, r}, nil
	}}
}

// publishDir writes each file below a folder as an object. All are looked at before the first is written.
func (e *env) publishDir(ctx context.Context, s *session, root grid.Link, p string, to remote.Ref, how placing) error {
	files := map[string]grid.FileInfo{} // by path below the folder
	if err := e.walk(ctx, s, root, p, "", 0, files); err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(files))
	total := uint64(0)
	for _, f := range files {
		total += uint64(max(f.Size, 0))
	}
	m := e.startMeter(progress{what: "publishing " + to.String(), total: total})
	defer m.stop()
	what := func(name string) remote.Content { return content(s, files[name].CID, "", files[name], m) }
	client := e.remote()
	if !how.force {
		err := client.List(ctx, to, func(o remote.Object) error {
			if _, ours := files[o.Name]; !ours {
				return nil
			}
			return client.Free(ctx, o.Ref, what(o.Name))
		})
		// Who may write need not be allowed to look, and what others have put there need not suit us. Put looks again.
		if code := grid.CodeOf(err); err != nil && code != grid.Denied && code != grid.Unsupported {
			return err
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(putsAtOnce)
	for _, name := range names {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error { return client.Put(gctx, to.Below(name), what(name), how.force) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// maxWalk is how deep folders may be in one another.
const maxWalk = 1000

// walk finds the files below a folder. Objects have no links, nor folders that hold nothing.
func (e *env) walk(ctx context.Context, s *session, root grid.Link, p, base string, depth int, files map[string]grid.FileInfo) error {
	if depth > maxWalk {
		return grid.Errorf(grid.Limit, "folders are nested more than %d deep", maxWalk)
	}
	list, err := s.List(ctx, root.Cid, p)
	if err != nil {
		return err
	}
	if len(list) == 0 && base != "" {
		e.note("left out %s, which is empty", printable(base))
	}
	for _, f := range list {
		name := path.Join(base, f.Name)
		switch f.Kind {
		case grid.KindDir:
			err = e.walk(ctx, s, f.CID, "", name, depth+1, files)
		case grid.KindFile:
			if len(files) == maxListed {
				return grid.Errorf(grid.Limit, "the folder has more than %d files", maxListed)
			}
			files[name] = f
		default:
			err = grid.Errorf(grid.Unsupported, "%s is a symlink to %q, which no object can be", name, f.Target).Hint("get the folder to this machine, or publish its parts")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// placeOutputs is saveOutputs, to a folder here or outside.
func (e *env) placeOutputs(ctx context.Context, s *session, tasks []grid.TaskEnd, several bool, dir string, how placing) ([]string, error) {
	if !remote.Is(dir) {
		return saveOutputs(ctx, s, tasks, several, dir, how)
	}
	folder, err := outputFolder(dir)
	if err != nil {
		return nil, err
	}
	var wrote []string
	names := outputNames(tasks, several)
	for i := range tasks {
		t := &tasks[i]
		if !t.Out.Defined() {
			continue
		}
		to := folder
		if names[i] != "" {
			to = folder.Below(names[i]).AsFolder()
		}
		if err := e.publishDir(ctx, s, t.Out, "", to, how); err != nil {
			out := grid.Errorf(grid.CodeOf(err), "outputs of task %s: %w", taskLabel(t), err)
			if out.Advice = grid.AdviceOf(err); out.Advice == "" {
				out.Hint("they are kept in the grid: `grid get JOB -o %s` goes on", folder)
			}
			return wrote, out
		}
		wrote = append(wrote, to.String())
	}
	return wrote, nil
}
