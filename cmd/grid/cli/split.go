package cli

import (
	"bytes"
	"context"
	"io/fs"
	"os"

	"github.com/wasmgrid/wasmgrid/cmd/grid/jobfile"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/remote"
)

// split has a plugin's function say which pieces of files are to be tasks' inputs: a job of one task, with the files as its
// inputs. infos tell of the files, by path, as they were.
func (e *env) split(ctx context.Context, where, ref string, files []jobfile.Input, infos map[string]fs.FileInfo) (pieces []jobfile.Piece, err error) {
	r, err := grid.ParsePluginRef(ref)
	if err != nil {
		return nil, grid.Errorf(grid.CodeOf(err), "%s: %w", where, err)
	}
	if len(files) > grid.MaxTaskInputs {
		return nil, grid.Errorf(grid.Limit, "%s %s: %d files, one splitter gets at most %d", where, ref, len(files), grid.MaxTaskInputs).Hint("narrow the pattern, and run several jobs")
	}
	p := &plan{f: &runFlags{}, count: len(files)}
	row := make(grid.Row, len(files))
	for i := range files {
		in := &files[i]
		if remote.Is(in.Path) {
			return nil, grid.Errorf(grid.Unsupported, "%s %s: only files on this machine can be split, and %s is not", where, ref, in.Path).Hint("fetch it first")
		}
		info, err := os.Stat(in.Path)
		if err != nil {
			return nil, grid.Errorf(codeOfOS(err), "%s: %w", in.Path, reason(err))
		}
		in.Size, infos[in.Path] = info.Size(), info
		p.items = append(p.items, item{inputItem(i), in.Path})
		p.total += uint64(in.Size)
	}
	p.rows = func(get func(string) (grid.FileInfo, error)) error {
		for i, in := range files {
			info, err := get(inputItem(i))
			if err != nil {
				return err
			}
			if info.Size != in.Size {
				return changed(in.Path, "changed")
			}
			row[i] = grid.Input{Name: in.Name, CID: info.CID, Size: info.Size}
		}
		p.req.Rows = [][]grid.Row{{row}}
		return nil
	}
	err = e.with(ctx, anyNode, func(s *session) error {
		info, err := s.Plugin(ctx, r.String(), true)
		if err != nil {
			return err
		}
		function, err := splitterOf(&info.Plugin, info.Function)
		if err != nil {
			return err
		}
		p.req = grid.Request{Spec: grid.Spec{Name: "split by " + r.Name, Stages: []grid.Stage{{Module: info.CID, Plugin: info.String(), Func: function, Tasks: 1}}}}
		p.req.User = userName()
		req, err := p.upload(ctx, e, s)
		if err != nil {
			return err
		}
		pieces, err = e.runSplitter(ctx, s, req, files)
		return err
	})
	if err != nil {
		return nil, grid.Errorf(grid.CodeOf(err), "%s %s: %w", where, ref, err)
	}
	return pieces, nil
}

// splitterOf finds which function of a plugin splits.
func splitterOf(p *grid.Plugin, name string) (string, error) {
	found := ""
	for _, f := range p.Functions {
		switch {
		case f.Name == name && f.Kind != grid.SplitterFunc:
			return "", grid.Errorf(grid.Invalid, "%s.%s is a function of the kind %s, not %s", p.Name, name, f.Kind, grid.SplitterFunc)
		case f.Name == name:
			return name, nil
		case name == "" && f.Kind == grid.SplitterFunc && found != "":
			return "", grid.Errorf(grid.Invalid, "%s has several splitters", p).Hint("name one, as in %s.%s", p.Name, found)
		case name == "" && f.Kind == grid.SplitterFunc:
			found = f.Name
		}
	}
	if found == "" {
		return "", grid.Errorf(grid.Invalid, "plugin %s has no splitter of that name", p).Hint("`grid plugin show %s` lists its functions", p)
	}
	return found, nil
}

// runSplitter runs a splitter's job, and reads what it prints.
func (e *env) runSplitter(ctx context.Context, s *session, req *grid.Request, files []jobfile.Input) ([]jobfile.Piece, error) {
	id, err := s.Submit(ctx, *req)
	if err != nil {
		return nil, err
	}
	var end *grid.TaskEnd
	if err := s.Tasks(ctx, id, true, func(t grid.TaskEnd) error { end = &t; return nil }); err != nil {
		return nil, err
	}
	job, err := s.Job(ctx, id)
	switch {
	case err != nil:
		return nil, err
	case end == nil || !end.OK():
		return nil, grid.Errorf(job.Code, "job %s: %s", id, job.Error).Hint("`grid logs %s` shows what it said", id)
	}
	var out bytes.Buffer // no more than a task may print
	if err := (&follower{e: e, s: s, id: id}).copyOutput(ctx, &out, &end.Stdout); err != nil {
		return nil, err
	}
	pieces, err := jobfile.ParsePieces(&out, files)
	if err == nil {
		e.note("split into %s", plural(len(pieces), "piece"))
	}
	return pieces, err
}

// splitInputs replaces files by what a splitter makes of them.
func (e *env) splitInputs(ctx context.Context, p *plan) error {
	files := make([]jobfile.Input, len(p.inputs))
	for i, in := range p.inputs {
		files[i] = jobfile.Input{Name: in.name, Path: in.path, Size: in.size}
	}
	infos := map[string]fs.FileInfo{}
	pieces, err := e.split(ctx, "--split", p.f.split, files, infos)
	if err != nil {
		return err
	}
	p.inputs, p.parts = nil, make(map[string]part, len(pieces))
	for i := range pieces {
		in := &pieces[i]
		p.inputs = append(p.inputs, input{in.Name, in.Path, in.Size})
		p.parts[inputItem(i)] = part{in.Offset, in.Size, infos[in.Path]}
	}
	return nil
}

// Split is that of [jobfile.Files].
func (j *jobFiles) Split(ref string, files []jobfile.Input) ([]jobfile.Piece, error) {
	if j.dry {
		return nil, grid.Errorf(grid.Unsupported, "--dry-run runs nothing, and so not the splitter %s, which says what tasks there are", ref).Hint("leave out one of the two")
	}
	return j.e.split(j.ctx, "split:", ref, files, j.infos)
}
