package jobfile

import (
	"fmt"
	"io"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Input is a file that a pattern matches.
type Input struct {
	Name string // slash-separated, as the guest is to see it
	Path string // for Files
	Size int64  // -1: not known
}

// Files is what a plan asks about the world.
type Files interface {
	// Find expands patterns. Its result is in order of names, which are all different.
	Find(patterns []string) ([]Input, error)
	// Open opens a file that is to be cut.
	Open(in Input) (io.ReaderAt, io.Closer, error)
	// Split has the function of a plugin make pieces of files; see [ParsePieces].
	Split(ref string, files []Input) ([]Piece, error)
}

// Piece is a file, or a part of one, that becomes an input.
type Piece struct {
	Input
	Cut    bool  // it is Size bytes from Offset on; else the whole file
	Offset int64 // in the file of the Input
}

// Plan is a job whose tasks are known.
type Plan struct {
	// Request lacks links and rows.
	Request grid.Request
	// Stages[i] is what Request.Stages[i] came from. Several may come from one.
	Stages []*Stage
	// Rows[i] are the inputs of stage i, if it has some of its own.
	Rows [][][]Piece
}

// Plan finds out which tasks there are. Its errors tell the line.
func (f *File) Plan(files Files) (*Plan, error) {
	p := &Plan{Request: grid.Request{
		Spec:    grid.Spec{Name: f.Name, KeepGoing: f.KeepGoing, Allow: f.Allow, Salt: f.Salt},
		NoCache: f.NoCache, Replicas: f.Replicas, Copies: f.Copies, Publish: f.Publish, Policy: f.Policy,
	}}
	index, tasks := map[string]uint32{}, map[string]uint32{}
	for _, st := range f.Stages {
		if err := p.add(f, st, files, index, tasks); err != nil {
			return nil, grid.Errorf(grid.CodeOf(err), "%s: %w", f.Where(st), err)
		}
	}
	if n := len(p.Stages); n > grid.MaxStages {
		return nil, grid.Errorf(grid.Limit, "with the levels of trees the job has %d stages, at most %d are allowed", n, grid.MaxStages).
			Hint("a larger fan-in makes fewer levels")
	}
	return p, p.check()
}

// add adds a stage, behind all that it takes from.
func (p *Plan) add(f *File, st *Stage, files Files, index, tasks map[string]uint32) error {
	var rows [][]Piece
	if st.Each != nil {
		var err error
		if rows, err = st.Each.rows(files); err != nil {
			return err
		}
	}
	n, err := st.tasks(f, tasks, uint32(len(rows)))
	if err != nil {
		return err
	}
	stage := st.Stage
	stage.Tasks = n
	for _, t := range st.Takes {
		stage.From = append(stage.From, grid.Source{Stage: index[t.Stage], Fan: t.Fan, Part: t.Part, As: t.As})
	}
	if st.FanIn > 0 {
		left := tasks[st.Takes[0].Stage]
		stage.From[0].Fan = st.FanIn
		for level := 1; ; level++ {
			left = (left + st.FanIn - 1) / st.FanIn
			if left == 1 || len(p.Stages) > grid.MaxStages {
				break
			}
			below := stage
			below.Name, below.Tasks = fmt.Sprintf("%s.%d", st.Name, level), left
			below.Partitions, below.Split = 0, "" // the last level's
			below.From = slices.Clone(stage.From)
			p.append(st, below, nil)
			stage.From[0].Stage = uint32(len(p.Stages) - 1)
		}
	}
	if pieces := uint64(n) * uint64(st.Partitions); pieces > grid.MaxPieces {
		return grid.Errorf(grid.Limit, "%d tasks leave %d parts each, %d in all; at most %d are allowed", n, st.Partitions, pieces, grid.MaxPieces).
			Hint("make fewer, larger tasks or fewer partitions")
	}
	p.append(st, stage, rows)
	index[st.Name], tasks[st.Name] = uint32(len(p.Stages)-1), n
	return nil
}

func (p *Plan) append(st *Stage, stage grid.Stage, rows [][]Piece) {
	p.Request.Stages = append(p.Request.Stages, stage)
	p.Stages, p.Rows = append(p.Stages, st), append(p.Rows, rows)
}

// tasks counts the tasks of a stage, of which rows have inputs of its own; those of the stages before are known. 0:
// that cannot be said, as files were not looked for.
func (st *Stage) tasks(f *File, known map[string]uint32, rows uint32) (uint32, error) {
	switch {
	case st.FanIn > 0:
		return 1, nil
	case len(st.Sweep) > 0:
		n := uint64(1)
		for _, a := range st.Sweep {
			n *= uint64(len(a.Values))
		}
		return uint32(n), nil // which was checked
	case st.count > 0:
		return st.count, nil
	}
	n, by, unsure := rows, "its files", st.Each != nil && rows == 0
	for _, t := range st.Takes {
		var m uint32
		switch from := known[t.Stage]; {
		case t.Part:
			m = f.stagesByName[t.Stage].Partitions
		case t.Fan > 0 && from == 0:
			unsure = true
		case t.Fan > 0:
			m = uint32((uint64(from) + uint64(t.Fan) - 1) / uint64(t.Fan))
		}
		switch {
		case m == 0:
		case n == 0:
			n, by = m, "what it takes from "+t.Stage
		case n != m:
			return 0, grid.Errorf(grid.Invalid, "%s makes %d tasks, what it takes from %s makes %d", by, n, t.Stage, m).
				Hint("these have to agree; or take all of one of them")
		}
	}
	if n == 0 && !unsure { // it takes all
		n = 1
	}
	return n, nil
}

// rows finds a stage's files and deals them out to tasks.
func (e *Each) rows(files Files) ([][]Piece, error) {
	found, err := files.Find(e.Patterns)
	if err != nil {
		return nil, err
	}
	if e.Cut != nil {
		return e.chunks(files, found)
	}
	if e.Split != "" {
		pieces, err := files.Split(e.Split, found)
		return Deal(pieces, 1, 0, func(Piece) int64 { return 0 }), err
	}
	pieces := make([]Piece, len(found))
	for i, in := range found {
		if pieces[i].Input = in; in.Size < 0 && e.GroupBytes > 0 && e.GroupBytes < math.MaxInt64 {
			return nil, grid.Errorf(grid.Unsupported, "the size of %s is not known before it is fetched, so it cannot be grouped by size", in.Path).
				Hint("group by count, such as group: 10")
		}
	}
	var rows [][]Piece
	if e.PerFolder {
		slices.SortStableFunc(pieces, func(a, b Piece) int { return compareFolders(path.Dir(a.Name), path.Dir(b.Name)) })
		for from, i := 0, 1; i <= len(pieces); i++ {
			if i == len(pieces) || path.Dir(pieces[i].Name) != path.Dir(pieces[from].Name) {
				rows = append(rows, pieces[from:i:i])
				from = i
			}
		}
	} else {
		rows = Deal(pieces, max(e.GroupCount, 1), max(e.GroupBytes, 1), func(p Piece) int64 { return p.Size })
	}
	for _, row := range rows {
		if len(row) > grid.MaxTaskInputs {
			return nil, grid.Errorf(grid.Limit, "the folder %s has %d files, one task has at most %d inputs", path.Dir(row[0].Name), len(row), grid.MaxTaskInputs)
		}
	}
	return rows, tooMany(len(rows))
}

// compareFolders has the files of the topmost folder, which is called ".", come first.
func compareFolders(a, b string) int {
	return strings.Compare(strings.TrimPrefix(a, "."), strings.TrimPrefix(b, "."))
}

func tooMany(n int) error {
	if n > grid.MaxTasks {
		return grid.Errorf(grid.Limit, "its files make %d tasks, at most %d are allowed", n, grid.MaxTasks).Hint("give each task more, with group, lines or bytes")
	}
	return nil
}

// chunks cuts files. An empty file has no chunk.
func (e *Each) chunks(files Files, found []Input) ([][]Piece, error) {
	var rows [][]Piece
	for _, in := range found {
		if err := e.cut(files, in, &rows); err != nil {
			return nil, grid.Errorf(grid.CodeOf(err), "cut %s: %w", in.Name, err)
		}
	}
	if len(rows) == 0 {
		return nil, grid.Errorf(grid.Invalid, "all its files are empty, so there are no tasks")
	}
	return rows, nil
}

func (e *Each) cut(files Files, in Input, rows *[][]Piece) error {
	r, closer, err := files.Open(in)
	if err != nil {
		return err
	}
	defer closer.Close()
	n := 0
	return e.Cut.Chunks(r, in.Size, func(offset, length int64) error {
		p := Piece{Input: in, Cut: true, Offset: offset}
		p.Name, p.Size = fmt.Sprintf("%s.%07d", in.Name, n), length
		n++
		*rows = append(*rows, []Piece{p})
		return tooMany(len(*rows))
	})
}

// Deal gives items to tasks in order: so many, or as many as have so many bytes. A task has at least one, however big.
func Deal[T any](items []T, count int, bytes int64, size func(T) int64) [][]T {
	var rows [][]T
	first, sum := 0, int64(0)
	for i, it := range items {
		if n := i - first; n > 0 && (n >= count || size(it) > bytes-sum) {
			rows = append(rows, items[first:i:i])
			first, sum = i, 0
		}
		sum += min(size(it), math.MaxInt64-sum)
	}
	if first < len(items) {
		rows = append(rows, items[first:])
	}
	return rows
}

// check has the node's own rules look at the job, with links that stand for those to come.
func (p *Plan) check() error {
	spec := p.Request.Spec
	spec.Stages = slices.Clone(spec.Stages)
	for i := range spec.Stages {
		st := &spec.Stages[i]
		st.Module = stand
		if p.Rows[i] != nil {
			st.Inputs = stand
		}
		st.Mounts = nil
		for _, m := range p.Stages[i].Mounts {
			st.Mounts = append(st.Mounts, grid.Mount{Path: m.Path, CID: stand})
		}
		st.Env = slices.Clone(st.Env)
		for k, v := range st.Env {
			if !strings.Contains(v, "=") {
				st.Env[k] += "=" // yours
			}
		}
	}
	return spec.Normalize()
}
