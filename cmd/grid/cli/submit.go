package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/cmd/grid/jobfile"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/remote"
)

func (e *env) submitCommand() *cobra.Command {
	var src jobSource
	var dryRun, noCache bool
	f := &runFlags{}
	cmd := &cobra.Command{
		Use:   "submit FILE",
		Short: "Run a job of many stages, from a file",
		Long: `Run the job that a file describes, in YAML or JSON, and show what comes of it. FILE may be -, for standard input.

A job file names stages: a module each, and where its tasks come from: files, parts of files, parameters, or the output
of other stages. Paths in it are relative to the file's folder. docs/jobs.md explains it all.

What the last stage's tasks print comes out here, as with ` + "`grid run`" + `. Stages are in the order in which they are
written, but each behind those that it takes from; --dry-run shows it.

With --dry-run nothing is sent: the stages come out in their order, with their tasks and what would be uploaded.

What flags say, such as --priority and --salt, goes before what the file says.

The exit code is the guest's if it failed; see ` + "`grid help exit-codes`" + `.`,
		Example: `  grid submit wordcount.yaml -o counts
  grid submit sweep.yaml --set epochs=10 --set data=/data/mnist
  grid submit sweep.yaml --dry-run
  generate-job | grid submit - --detach`,
		Args: wantArgs(1, 1, "FILE, a job file,"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case f.detach && f.out != "":
				return usageError(cmd, "--detach does not wait for outputs; fetch them later with `grid get JOB -o %s`", f.out)
			case f.detach && dryRun:
				return usageError(cmd, "--dry-run runs nothing that --detach could leave alone")
			}
			if err := f.policy.check(cmd); err != nil {
				return err
			}
			if remote.Is(f.out) {
				if _, err := outputFolder(f.out); err != nil {
					return err
				}
			}
			ctx := cmd.Context()
			file, problems, base, err := src.load(ctx, e, cmd, args[0])
			if err != nil {
				return err
			}
			if err := e.tell(args[0], problems); err != nil {
				return err
			}
			file.NoCache = file.NoCache || noCache
			p, job, err := e.planJob(ctx, file, base, dryRun)
			if err != nil {
				return err
			}
			defer p.close()
			p.req.Name, p.req.KeepGoing = cmp.Or(f.name, p.req.Name), p.req.KeepGoing || f.keepGoing
			if err := f.policy.override(cmd, &p.req); err != nil {
				return err
			}
			if dryRun {
				return e.showPlan(p, job, &f.show)
			}
			return e.submit(ctx, f, p, args[0])
		},
	}
	e.traceFlag(cmd)
	src.flags(e, cmd)
	fl := cmd.Flags()
	fl.BoolVar(&dryRun, "dry-run", false, "print what would be run and uploaded, and send nothing")
	fl.BoolVarP(&f.detach, "detach", "d", false, "print the job's ID and do not wait for it")
	fl.StringVarP(&f.out, "output", "o", "", "copy what the last stage's tasks write below /out to this `FOLDER`")
	fl.BoolVar(&noCache, "no-cache", false, "run tasks even if their results are known")
	fl.StringVar(&f.name, "name", "", "a `NAME` for the job")
	fl.BoolVar(&f.keepGoing, "keep-going", false, "go on with other tasks after one has failed")
	f.policy.addJob(cmd)
	f.show.prints(e, cmd, "{{or .id .job.id}}")
	groupFlags(cmd, runGroups)
	e.maxDownloadFlag(cmd)
	return cmd
}

// jobFiles answers a job file's questions about files.
type jobFiles struct {
	ctx   context.Context
	e     *env
	base  string
	infos map[string]fs.FileInfo // of files that were opened
	dry   bool                   // nothing is to be run
}

// Find is that of [jobfile.Files].
func (j *jobFiles) Find(patterns []string) ([]jobfile.Input, error) {
	found, err := j.e.findInputs(j.ctx, finding{j.base, "each"}, patterns)
	if err != nil {
		return nil, err
	}
	out := make([]jobfile.Input, len(found))
	for i, in := range found {
		if r, err := remote.Parse(in.path); err == nil && !r.S3() {
			in.size = -1
		}
		out[i] = jobfile.Input{Name: in.name, Path: in.path, Size: in.size}
	}
	return out, nil
}

// Open is that of [jobfile.Files].
func (j *jobFiles) Open(in jobfile.Input) (io.ReaderAt, io.Closer, error) {
	if remote.Is(in.Path) {
		return nil, nil, grid.Errorf(grid.Unsupported, "only files on this machine can be cut").Hint("fetch it first, or deal out whole files with group")
	}
	f, err := os.Open(in.Path)
	if err != nil {
		return nil, nil, grid.Errorf(codeOfOS(err), "%w", reason(err))
	}
	info, err := f.Stat()
	if err == nil && info.Size() != in.Size {
		err = changed(in.Path, "changed")
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	j.infos[in.Path] = info
	return readerAt{f}, f, nil
}

// readerAt names the causes of errors without the path, which is named around them.
type readerAt struct{ f *os.File }

func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.f.ReadAt(p, off)
	if err != nil && err != io.EOF {
		err = grid.Errorf(codeOfOS(err), "%w", reason(err))
	}
	return n, err
}

// planJob finds all that a job file names on this machine.
func (e *env) planJob(ctx context.Context, file *jobfile.File, base string, dry bool) (_ *plan, _ *jobfile.Plan, err error) {
	files := &jobFiles{ctx: ctx, e: e, base: base, infos: map[string]fs.FileInfo{}, dry: dry}
	job, err := file.Plan(files)
	if err != nil {
		return nil, nil, err
	}
	p := &plan{f: &runFlags{}, base: base, parts: map[string]part{}, req: job.Request}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	p.req.Name = cmp.Or(p.req.Name, "job")
	p.req.User = cmp.Or(p.req.User, userName())

	// One text names one thing, however many stages have it.
	var modules, mounts, stdins named
	for i, st := range job.Stages {
		stage := func() *grid.Stage { return &p.req.Stages[i] }
		where := file.Where(st)
		if stage().Env, err = e.guestEnv(where+": env", stage().Env); err != nil {
			return nil, nil, err
		}
		if stage().Plugin != "" { // it is a reference still
			ref := stage().Plugin
			stage().Plugin = ""
			if err := p.planPlugin(where, ref, stage); err != nil {
				return nil, nil, err
			}
		} else {
			modules.add(st.Module, where, func(l grid.Link) { stage().Module = l })
		}
		for k, m := range st.Mounts {
			stage().Mounts = append(stage().Mounts, grid.Mount{Path: m.Path})
			mounts.add(m.From, where, func(l grid.Link) { stage().Mounts[k].CID = l })
		}
		if st.Stdin == "-" && file.Path == "-" {
			return nil, nil, grid.Errorf(grid.Invalid, "%s: stdin is -, but the job file comes from there", where).Hint("give the job file by its name")
		}
		if st.Stdin != "" {
			stdins.add(st.Stdin, where, func(l grid.Link) { stage().Stdin = l })
		}
	}
	for k, m := range modules {
		if err := e.planModule(ctx, p, fmt.Sprintf("modules/%d.wasm", k), m.text, m.set); err != nil {
			return nil, nil, m.wrap(err)
		}
		m.wrapMissing(p)
	}
	for k, m := range mounts {
		if err := e.planMount(ctx, p, mountItem(k), "mount", m.text, m.set); err != nil {
			return nil, nil, m.wrap(err)
		}
		m.wrapMissing(p)
	}
	for k, m := range stdins {
		if err := e.planStdin(ctx, p, fmt.Sprintf("stdins/%d", k), "stdin", m.text, m.set); err != nil {
			return nil, nil, m.wrap(err)
		}
		m.wrapMissing(p)
	}
	p.planRows(job, files)
	return p, job, nil
}

// named is what job files name by text, each once.
type named []*namedThing

type namedThing struct {
	text, where string
	sets        []func(grid.Link)
}

func (n *named) add(text, where string, set func(grid.Link)) {
	for _, t := range *n {
		if t.text == text {
			t.sets = append(t.sets, set)
			return
		}
	}
	*n = append(*n, &namedThing{text, where, []func(grid.Link){set}})
}

func (t *namedThing) set(l grid.Link) {
	for _, set := range t.sets {
		set(l)
	}
}

// wrap keeps an exit code that an error may have.
func (t *namedThing) wrap(err error) error {
	if x, ok := err.(*exitError); ok {
		return &exitError{x.exit, t.wrap(x.err)}
	}
	return grid.Errorf(grid.CodeOf(err), "%s: %w", t.where, err)
}

// wrapMissing does so with what turns out only at the node.
func (t *namedThing) wrapMissing(p *plan) {
	if k := len(p.names) - 1; k >= 0 && p.names[k].text == t.text {
		p.names[k].missing = t.wrap(p.names[k].missing)
	}
}

// pieceKey tells pieces of files apart.
type pieceKey struct {
	path         string
	cut          bool
	offset, size int64
}

func keyOf(in *jobfile.Piece) pieceKey { return pieceKey{in.Path, in.Cut, in.Offset, in.Size} }

// planRows plans to upload the stages' inputs, each once, and to make rows of them.
func (p *plan) planRows(job *jobfile.Plan, files *jobFiles) {
	items := map[pieceKey]string{}
	known := true
	for _, rows := range job.Rows {
		for _, row := range rows {
			for k := range row {
				in := &row[k]
				key := keyOf(in)
				if _, ok := items[key]; ok {
					continue
				}
				name := inputItem(len(items))
				items[key] = name
				p.items = append(p.items, item{name, in.Path})
				if in.Cut {
					p.parts[name] = part{in.Offset, in.Size, files.infos[in.Path]}
				}
				p.total += uint64(max(in.Size, 0))
				known = known && !remote.Is(in.Path)
			}
		}
	}
	for _, it := range p.items {
		known = known && !remote.Is(it.path)
	}
	if p.count = len(items); !known {
		p.total = 0
	}
	p.rows = func(get func(string) (grid.FileInfo, error)) error {
		p.req.Rows = make([][]grid.Row, len(job.Rows))
		for i, rows := range job.Rows {
			for _, row := range rows {
				r := make(grid.Row, len(row))
				for k := range row {
					info, err := get(items[keyOf(&row[k])])
					if err != nil {
						return err
					}
					r[k] = grid.Input{Name: row[k].Name, CID: info.CID, Size: info.Size}
				}
				p.req.Rows[i] = append(p.req.Rows[i], r)
			}
		}
		return nil
	}
}

// planned is what --dry-run --json prints.
type planned struct {
	Name   string         `json:"name"`
	Stages []plannedStage `json:"stages"`
	Upload []plannedItem  `json:"upload"`
	Bytes  uint64         `json:"bytes"` // as far as it is known
	Policy grid.Policy    `json:"policy"`
}

type plannedStage struct {
	Name   string   `json:"name"`
	Line   int      `json:"line"`
	Module string   `json:"module"`
	Func   string   `json:"func,omitempty"`
	Tasks  uint32   `json:"tasks"`
	From   []string `json:"from,omitempty"` // where its tasks and their inputs come from, in words
	Inputs int      `json:"inputs,omitempty"`
	Bytes  int64    `json:"bytes,omitempty"`
	Parts  uint32   `json:"partitions,omitempty"`
}

type plannedItem struct {
	What  string `json:"what"`
	Path  string `json:"path,omitempty"`
	Files int    `json:"files"`
	Bytes int64  `json:"bytes"` // -1: not known
}

// showPlan prints a job that is not sent.
func (e *env) showPlan(p *plan, job *jobfile.Plan, show *output) error {
	out := planned{Name: p.req.Name, Policy: p.req.Policy, Upload: p.uploads()}
	for i := range job.Stages {
		out.Stages = append(out.Stages, plannedStageOf(job, i))
	}
	files := 0
	for _, u := range out.Upload {
		files += u.Files
		out.Bytes += uint64(max(u.Bytes, 0))
	}
	if show.formatted() {
		return show.print(out)
	}
	rows := [][]string{{"STAGE", "TASKS", "MODULE", "FROM"}}
	for _, st := range out.Stages {
		from := strings.Join(st.From, "; ")
		if st.Inputs > 0 {
			from += ", " + formatSize(st.Bytes)
		}
		if st.Parts > 0 {
			from += fmt.Sprintf(" -> %d parts", st.Parts)
		}
		rows = append(rows, []string{st.Name, fmt.Sprint(st.Tasks), printable(strings.TrimSpace(st.Module + " " + st.Func)), printable(from)})
	}
	if err := e.table(rows); err != nil {
		return err
	}
	if len(out.Upload) == 0 {
		return nil
	}
	fmt.Fprintln(e.out)
	rows = [][]string{{"UPLOAD", "FILES", "SIZE", "PATH"}}
	for _, u := range out.Upload {
		size := "not known"
		if u.Bytes >= 0 {
			size = formatSize(u.Bytes)
		}
		rows = append(rows, []string{u.What, fmt.Sprint(u.Files), size, printable(u.Path)})
	}
	if err := e.table(rows); err != nil {
		return err
	}
	e.note("nothing was sent: job %s would have %s", printable(out.Name), plural(len(out.Stages), "stage"))
	return nil
}

// plannedStageOf tells of one stage.
func plannedStageOf(job *jobfile.Plan, i int) plannedStage {
	st, of := &job.Request.Stages[i], job.Stages[i]
	out := plannedStage{Name: st.Name, Line: of.Line, Module: cmp.Or(of.Module, of.Plugin), Func: st.Func, Tasks: st.Tasks, Parts: st.Partitions}
	chunks := false
	for _, row := range job.Rows[i] {
		for _, in := range row {
			out.Inputs++
			out.Bytes += max(in.Size, 0)
			chunks = in.Cut
		}
	}
	switch {
	case chunks:
		out.From = append(out.From, plural(out.Inputs, "chunk"))
	case out.Inputs > 0:
		out.From = append(out.From, plural(out.Inputs, "file"))
	case len(st.Sweep) > 0:
		var names []string
		for _, a := range st.Sweep {
			names = append(names, fmt.Sprintf("%s (%d)", strings.Join(a.Names, "+"), len(a.Values)))
		}
		out.From = append(out.From, "sweep of "+strings.Join(names, ", "))
	}
	for _, src := range st.From {
		name := job.Request.Stages[src.Stage].Name
		how := "all of " + name
		switch {
		case src.Part:
			how = "a part of all of " + name
		case src.Fan == 1:
			how = "each of " + name
		case src.Fan > 1:
			how = fmt.Sprintf("each %d of %s", src.Fan, name)
		}
		if st.Merge {
			how += ", merged by key"
		}
		out.From = append(out.From, how)
	}
	return out
}

// uploads lists what would be uploaded: inputs as one, all else one by one.
func (p *plan) uploads() []plannedItem {
	out := []plannedItem{}
	inputs := plannedItem{What: "inputs"}
	seen := map[string]int{} // folders outside, by name of their item
	for _, it := range p.items {
		what, rest, _ := strings.Cut(it.name, "/")
		if what == itemInputs {
			inputs.Files++
			continue
		}
		u := plannedItem{What: strings.TrimSuffix(what, "s"), Path: it.path, Files: 1, Bytes: -1}
		if it.path == p.spool && p.spool != "" {
			u.Path = "-"
		}
		if number, _, below := strings.Cut(rest, "/"); below && remote.Is(it.path) {
			if k, ok := seen[number]; ok {
				out[k].Files++
				continue
			}
			seen[number] = len(out)
		}
		if !remote.Is(it.path) {
			u.Files, u.Bytes = sizeBelow(it.path)
		}
		out = append(out, u)
	}
	if inputs.Files > 0 {
		inputs.Bytes = p.inputBytes()
		out = append(out, inputs)
	}
	return out
}

// inputBytes is what inputs to upload come to, or -1.
func (p *plan) inputBytes() int64 {
	sum := int64(0)
	for _, it := range p.items {
		if !strings.HasPrefix(it.name, itemInputs+"/") {
			continue
		}
		if part, ok := p.parts[it.name]; ok {
			sum += part.size
		} else if info, err := os.Stat(it.path); err == nil {
			sum += info.Size()
		} else {
			return -1
		}
	}
	return sum
}

// sizeBelow counts the files of a folder and their bytes, or those of one file.
func sizeBelow(p string) (files int, bytes int64) {
	err := filepath.WalkDir(p, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			bytes += info.Size()
		}
		files++
		return nil
	})
	if err != nil {
		return files, -1
	}
	return files, bytes
}
