package grid_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

func TestNormalizeSources(t *testing.T) {
	stage := func(tasks uint32, from ...grid.Source) grid.Stage {
		return grid.Stage{Module: link("m"), Tasks: tasks, From: from}
	}
	parts := func(tasks, parts uint32) grid.Stage {
		return grid.Stage{Module: link("m"), Tasks: tasks, Partitions: parts}
	}
	table := func(tasks uint32, from ...grid.Source) grid.Stage {
		st := stage(tasks, from...)
		st.Inputs = link("table")
		return st
	}
	edit := func(st grid.Stage, f func(*grid.Stage)) grid.Stage { f(&st); return st }
	long := strings.Repeat("x", grid.MaxName+1)
	tests := []struct {
		name   string
		stages []grid.Stage
		tasks  uint32 // of the last stage; 0: refused
		code   grid.Code
		word   string
	}{
		{"whole", []grid.Stage{stage(5), stage(0, grid.Source{})}, 1, 0, ""},
		{"whole, several tasks", []grid.Stage{stage(5), stage(9, grid.Source{})}, 9, 0, ""},
		{"fan", []grid.Stage{stage(7), stage(0, grid.Source{Fan: 3})}, 3, 0, ""},
		{"fan of all", []grid.Stage{stage(7), stage(0, grid.Source{Fan: 4000000000})}, 1, 0, ""},
		{"fan that agrees", []grid.Stage{stage(7), stage(3, grid.Source{Fan: 3})}, 3, 0, ""},
		{"fan that does not", []grid.Stage{stage(7), stage(4, grid.Source{Fan: 3})}, 0, grid.Invalid, "its number of tasks makes 4 tasks, but each 3 tasks of stage 0 (main) 3"},
		{"fan and table", []grid.Stage{stage(7), table(4, grid.Source{Fan: 3, As: "a"})}, 0, grid.Invalid, "its table makes 4 tasks, but each 3 tasks of stage 0 (main) 3"},
		{"table and whole", []grid.Stage{stage(7), table(4, grid.Source{As: "a"})}, 4, 0, ""},
		{"table without a name", []grid.Stage{stage(7), table(4, grid.Source{})}, 0, grid.Invalid, "needs a name"},
		{"part", []grid.Stage{parts(7, 5), stage(0, grid.Source{Part: true})}, 5, 0, ""},
		{"part of none", []grid.Stage{stage(7), stage(0, grid.Source{Part: true})}, 0, grid.Invalid, "that leaves none"},
		{"part and fan", []grid.Stage{parts(7, 5), stage(0, grid.Source{Part: true, Fan: 1})}, 0, grid.Invalid, "either by parts or by fan"},
		{"join", []grid.Stage{parts(7, 5), parts(1, 5), stage(0, grid.Source{Part: true, As: "a"}, grid.Source{Stage: 1, Part: true, As: "b"})}, 5, 0, ""},
		{"join that does not agree", []grid.Stage{parts(7, 5), stage(4), stage(0, grid.Source{Part: true, As: "a"}, grid.Source{Stage: 1, Fan: 1, As: "b"})}, 0,
			grid.Invalid, "each part of stage 0 (main) makes 5 tasks, but each 1 tasks of stage 1 (stage1) 4"},
		{"no names", []grid.Stage{stage(1), stage(1), stage(0, grid.Source{}, grid.Source{Stage: 1, As: "b"})}, 0, grid.Invalid, "needs a name"},
		{"one name", []grid.Stage{stage(1), stage(1), stage(0, grid.Source{As: "b"}, grid.Source{Stage: 1, As: "b"})}, 0, grid.Invalid, `named "b"`},
		{"itself", []grid.Stage{stage(1), stage(0, grid.Source{Stage: 1})}, 0, grid.Invalid, "takes from stage 1, which does not come before"},
		{"a later one", []grid.Stage{stage(1, grid.Source{Stage: 1}), stage(1)}, 0, grid.Invalid, "stage 0 (main): it takes from stage 1"},
		{"none such", []grid.Stage{stage(1), stage(0, grid.Source{Stage: 4000000000})}, 0, grid.Invalid, "stage 4000000000"},
		{"too many inputs", []grid.Stage{stage(grid.MaxTasks), stage(0, grid.Source{Fan: grid.MaxTaskInputs/2 + 1})}, 0, grid.Limit, "up to 16386 inputs"},
		{"as many as may be", []grid.Stage{stage(grid.MaxTasks), stage(0, grid.Source{Fan: grid.MaxTaskInputs / 2})}, 128, 0, ""},
		{"too many parts each", []grid.Stage{parts(grid.MaxTaskInputs+1, 2), stage(0, grid.Source{Part: true})}, 0, grid.Limit, "inputs"},
		{"too many sources", []grid.Stage{stage(1), stage(1, make([]grid.Source, grid.MaxStages+1)...)}, 0, grid.Limit, "65 stages"},
		{"partitions", []grid.Stage{parts(1, grid.MaxPartitions+1)}, 0, grid.Limit, "16385 partitions"},
		{"pieces", []grid.Stage{parts(1<<10, 1<<12+1)}, 0, grid.Limit, "pieces"},
		{"split", []grid.Stage{edit(parts(1, 2), func(st *grid.Stage) { st.Split = "bytes" })}, 0, grid.Invalid, `split "bytes"`},
		{"split into none", []grid.Stage{edit(parts(1, 0), func(st *grid.Stage) { st.Split = grid.SplitLines })}, 0, grid.Invalid, "how many partitions"},
		{"split into some", []grid.Stage{edit(parts(3, 2), func(st *grid.Stage) { st.Split = grid.SplitLines })}, 3, 0, ""},
		{"merge", []grid.Stage{stage(2), edit(stage(0, grid.Source{}), func(st *grid.Stage) { st.Merge = true })}, 1, 0, ""},
		{"merge nothing", []grid.Stage{edit(stage(2), func(st *grid.Stage) { st.Merge = true })}, 0, grid.Invalid, "has none"},
		{"merge and feed", []grid.Stage{stage(2), edit(stage(0, grid.Source{}), func(st *grid.Stage) { st.Merge, st.Feed = true, true })}, 0, grid.Invalid, "stdin"},
		{"merge and stdin", []grid.Stage{stage(2), edit(stage(0, grid.Source{}), func(st *grid.Stage) { st.Merge, st.Stdin = true, link("x") })}, 0, grid.Invalid, "stdin"},
	}
	for _, as := range []string{"a/b", ".", "..", "/a", "a\x00", "\xff", long} {
		tests = append(tests, tests[0])
		tt := &tests[len(tests)-1]
		tt.name, tt.stages, tt.tasks, tt.code, tt.word = "as "+as, []grid.Stage{stage(1), stage(0, grid.Source{As: as})}, 0, grid.Invalid, "one element of a path"
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := grid.Spec{Stages: tt.stages}
			err := s.Normalize()
			if tt.tasks == 0 {
				wantCode(t, err, tt.code, tt.word)
			} else if last := s.Stages[len(s.Stages)-1].Tasks; err != nil || last != tt.tasks {
				t.Errorf("%d tasks, %v; want %d", last, err, tt.tasks)
			}
		})
	}
}

// toolGuest is a guest of several small tools, named by its first argument.
func toolGuest(_ context.Context, g *grid.Guest) (grid.Outcome, error) {
	var out grid.Outcome
	read := bufio.NewScanner(g.Stdin)
	switch g.Args[1] {
	case "number": // prints its number
		fmt.Fprintln(g.Stdout, task(g))
	case "words": // prints each word with a 1
		for read.Scan() {
			for _, w := range strings.Fields(read.Text()) {
				fmt.Fprintf(g.Stdout, "%s\t1\n", w)
			}
		}
	case "split": // leaves the words in parts by their lengths
		m := fstest.MapFS{}
		for read.Scan() {
			for _, w := range strings.Fields(read.Text()) {
				name := grid.GatheredName(uint32(len(w) % 3))
				if m[name] == nil {
					m[name] = &fstest.MapFile{}
				}
				m[name].Data = fmt.Appendf(m[name].Data, "%s\n", w)
			}
		}
		out.Out = m
	case "count": // adds up the counts of equal words that follow one another
		last, n := "", 0
		for read.Scan() {
			word, count, _ := strings.Cut(read.Text(), "\t")
			if word != last && n > 0 {
				fmt.Fprintf(g.Stdout, "%s\t%d\n", last, n)
				n = 0
			}
			k, _ := strconv.Atoi(count)
			last, n = word, n+k
		}
		if n > 0 {
			fmt.Fprintf(g.Stdout, "%s\t%d\n", last, n)
		}
	case "sum": // adds up the numbers of all lines
		sum := 0
		for read.Scan() {
			k, _ := strconv.Atoi(read.Text())
			sum += k
		}
		fmt.Fprintln(g.Stdout, sum)
	case "cat":
		io.Copy(g.Stdout, g.Stdin)
	case "ls": // lists its inputs and what they are
		in := g.Mounts[grid.GuestIn]
		if in == nil {
			break
		}
		return out, fs.WalkDir(in, ".", func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := fs.ReadFile(in, p)
			fmt.Fprintf(g.Stdout, "%s=%s\n", p, strings.TrimSuffix(string(data), "\n"))
			return err
		})
	default:
		return out, fmt.Errorf("no tool %q", g.Args[1])
	}
	return out, nil
}

// task is the number that a guest finds in its environment, or -1.
func task(g *grid.Guest) int {
	for _, e := range g.Env {
		if text, ok := strings.CutPrefix(e, grid.EnvTask+"="); ok {
			i, _ := strconv.Atoi(text)
			return i
		}
	}
	return -1
}

// texts are rows of one file each.
func texts(t testing.TB, w *fake.World, all ...string) (rows []grid.Row) {
	for _, in := range files(t, w, all...) {
		rows = append(rows, grid.Row{in})
	}
	return rows
}

// printed lists what the tasks of a stage have printed.
func printed(t testing.TB, w *fake.World, ends []grid.TaskEnd, stage uint32) (out []string) {
	t.Helper()
	for _, e := range ends {
		if e.Stage != stage {
			continue
		}
		data := e.Stdout.Data
		if e.Stdout.CID.Defined() {
			var err error
			if data, err = w.Blocks.Get(within(t), e.Stdout.CID.Cid); err != nil {
				t.Fatal(err)
			}
		}
		out = append(out, string(data))
	}
	return out
}

// poem makes random words, and counts them.
func poem(r *rand.Rand, files int) (texts []string, counts map[string]int) {
	counts = map[string]int{}
	for range files {
		var text strings.Builder
		for range r.IntN(100) {
			w := strings.Repeat(string(rune('a'+r.IntN(26))), 1+r.IntN(3))
			counts[w]++
			text.WriteString(w + " ")
		}
		texts = append(texts, text.String())
	}
	return texts, counts
}

// wordCount counts words by a shuffle into parts.
func wordCount(w *fake.World, rows []grid.Row, parts uint32) grid.Request {
	return grid.Request{Spec: grid.Spec{Stages: []grid.Stage{
		{Module: w.Module, Args: []string{"words"}, Feed: true, Partitions: parts, Split: grid.SplitLines},
		{Module: w.Module, Args: []string{"count"}, From: []grid.Source{{Part: true}}, Merge: true},
		{Module: w.Module, Args: []string{"cat"}, From: []grid.Source{{Stage: 1}}, Merge: true},
	}}, Rows: [][]grid.Row{rows}}
}

func countsOf(text string) map[string]int {
	counts := map[string]int{}
	for line := range strings.Lines(text) {
		word, n, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		counts[word], _ = strconv.Atoi(n)
	}
	return counts
}

func TestShuffle(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	w.Engine.Guest = toolGuest
	n := open(t, w.Config())
	r := rand.New(rand.NewPCG(5, 6))
	for _, parts := range []uint32{1, 7, 300} {
		all, counts := poem(r, 20)
		st, ends := run(t, n, wordCount(w, texts(t, w, all...), parts))
		if st.State != grid.Done {
			t.Fatalf("status %+v", st)
		}
		out := printed(t, w, ends, 2)[0]
		if got := countsOf(out); !maps.Equal(got, counts) {
			t.Errorf("%d parts: counted %v, want %v", parts, got, counts)
		}
		if lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n"); !slices.IsSorted(lines) {
			t.Errorf("%d parts: not in order: %q", parts, lines)
		}
		for _, out := range printed(t, w, ends, 0) {
			if out != "" {
				t.Errorf("what was divided is kept besides: %q", out)
			}
		}
		for _, s := range st.Stages {
			if s.Blocked != 0 || s.Done != s.Tasks {
				t.Errorf("%d parts: %+v", parts, s)
			}
		}
	}
	// The same again is known.
	all, _ := poem(rand.New(rand.NewPCG(5, 6)), 20)
	st, _ := run(t, n, wordCount(w, texts(t, w, all...), 1))
	if s := st.Stages; s[0].Cached != 20 || s[1].Cached != 1 || s[2].Cached != 1 {
		t.Errorf("stages %+v", s)
	}
}

// TestOwnParts: tasks that leave parts themselves, and what others find of them.
func TestOwnParts(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	w.Engine.Guest = toolGuest
	n := open(t, w.Config())
	r := grid.Request{Spec: grid.Spec{Stages: []grid.Stage{
		{Module: w.Module, Args: []string{"split"}, Feed: true, Partitions: 3},
		{Module: w.Module, Args: []string{"ls"}, From: []grid.Source{{Part: true, As: "words"}}},
		{Module: w.Module, Args: []string{"cat"}, From: []grid.Source{{Part: true}}, Feed: true},
	}}, Rows: [][]grid.Row{texts(t, w, "a bb", "dddd aaaaa")}}
	_, ends := run(t, n, r)
	if got := printed(t, w, ends, 1); !slices.Equal(got, []string{"", "words/0000000=a\nwords/0000001=dddd\n", "words/0000000=bb\nwords/0000001=aaaaa\n"}) {
		t.Errorf("listed %q", got)
	}
	if got := printed(t, w, ends, 2); !slices.Equal(got, []string{"", "a\ndddd\n", "bb\naaaaa\n"}) {
		t.Errorf("read %q", got)
	}
	r.Stages[0].Partitions = 2
	st, _ := run(t, n, r)
	if st.State != grid.Failed || st.Code != grid.Invalid || !strings.Contains(st.Error, `/out/"0000002", which is none of its 2 parts`) {
		t.Errorf("status %+v", st)
	}
	r.Stages[0].Split = grid.SplitLines
	if st, _ = run(t, n, r); st.State != grid.Failed || !strings.Contains(st.Error, "what it prints") {
		t.Errorf("status %+v", st)
	}
}

// TestMergeOfDisorder: a task whose inputs are not in order fails by itself, and says which.
func TestMergeOfDisorder(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	w.Engine.Guest = toolGuest
	n := open(t, w.Config())
	var runs atomic.Int32
	w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
		runs.Add(1)
		return toolGuest(ctx, g)
	}
	r := grid.Request{Spec: grid.Spec{Stages: []grid.Stage{{Module: w.Module, Args: []string{"cat"}, Merge: true}}},
		Rows: [][]grid.Row{texts(t, w, "a\nb\n\n")}}
	st, _ := run(t, n, r)
	if st.State != grid.Failed || st.Code != grid.Invalid || !strings.Contains(st.Error, "input f0, line 3") || runs.Load() != 1 {
		t.Errorf("status %+v after %d runs", st, runs.Load())
	}
}

// TestJoin: a stage that takes from several, in every way, besides a table.
func TestJoin(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	w.Engine.Guest = toolGuest
	n := open(t, w.Config())
	r := grid.Request{Spec: grid.Spec{Stages: []grid.Stage{
		{Module: w.Module, Args: []string{"number"}, Tasks: 4},
		{Module: w.Module, Args: []string{"cat"}, Feed: true},
		{Module: w.Module, Args: []string{"ls"}, From: []grid.Source{{Fan: 2, As: "some"}, {Stage: 1, As: "all"}, {Stage: 1, Fan: 1, As: "each"}}},
		{Module: w.Module, Args: []string{"cat", "{}"}, Feed: true, From: []grid.Source{{Fan: 2, As: "x"}, {Stage: 1, As: "y"}}},
	}}, Rows: [][]grid.Row{nil, texts(t, w, "p", "q"), texts(t, w, "own 0", "own 1")}}
	st, ends := run(t, n, r)
	if st.State != grid.Done {
		t.Fatalf("status %+v", st)
	}
	want := []string{
		"all/0000000=p\nall/0000001=q\neach/0000000=p\nf0=own 0\nsome/0000000=0\nsome/0000001=1\n",
		"all/0000000=p\nall/0000001=q\neach/0000001=q\nf1=own 1\nsome/0000002=2\nsome/0000003=3\n",
	}
	if got := printed(t, w, ends, 2); !slices.Equal(got, want) {
		t.Errorf("listed\n%q, want\n%q", got, want)
	}
	if got := printed(t, w, ends, 3); !slices.Equal(got, []string{"0\n1\npq", "2\n3\npq"}) {
		t.Errorf("read %q", got)
	}
}

// TestFanChain: a task runs as soon as what it needs has ended, not when the stage has.
func TestFanChain(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	late := make(chan struct{})
	var once sync.Once
	w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
		switch {
		case g.Args[1] == "number" && task(g) == 0:
			select {
			case <-late:
			case <-ctx.Done():
				return grid.Outcome{}, ctx.Err()
			}
		case len(g.Args) > 2: // the last stage
			once.Do(func() { close(late) })
		}
		return toolGuest(ctx, g)
	}
	n := open(t, w.Config())
	st, ends := run(t, n, grid.Request{Spec: grid.Spec{Stages: []grid.Stage{
		{Module: w.Module, Args: []string{"number"}, Tasks: 9},
		{Module: w.Module, Args: []string{"cat"}, From: []grid.Source{{Fan: 1}}, Feed: true},
		{Module: w.Module, Args: []string{"cat", "last"}, From: []grid.Source{{Stage: 1, Fan: 1}}, Feed: true},
	}}})
	if got := printed(t, w, ends, 2); st.State != grid.Done || !slices.Equal(got, []string{"0\n", "1\n", "2\n", "3\n", "4\n", "5\n", "6\n", "7\n", "8\n"}) {
		t.Errorf("status %+v, printed %q", st, got)
	}
}

// tree adds up numbers, three at a time.
func tree(w *fake.World, tasks uint32, levels int) grid.Request {
	stages := []grid.Stage{{Module: w.Module, Args: []string{"number"}, Tasks: tasks}}
	for i := range uint32(levels) {
		stages = append(stages, grid.Stage{Module: w.Module, Args: []string{"sum"}, From: []grid.Source{{Stage: i, Fan: 3}}, Feed: true})
	}
	return grid.Request{Spec: grid.Spec{Stages: stages}}
}

func TestTree(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	w.Engine.Guest = toolGuest
	n := open(t, w.Config())
	for _, tasks := range []uint32{27, 20, 1} {
		st, ends := run(t, n, tree(w, tasks, 3))
		if got := printed(t, w, ends, 3); st.State != grid.Done || !slices.Equal(got, []string{fmt.Sprintln(tasks * (tasks - 1) / 2)}) {
			t.Errorf("%d tasks: status %+v, printed %q", tasks, st, got)
		}
	}
}

// TestAllowed: what needs tasks that failed does without them, and is not run if nothing is left.
func TestAllowed(t *testing.T) {
	for _, host := range []bool{false, true} {
		t.Run(fmt.Sprint("host ", host), func(t *testing.T) {
			w := fake.NewWorld(new(fake.Hub), "a")
			w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
				if g.Args[1] == "number" && task(g)%4 > 1 {
					if host {
						return grid.Outcome{}, errors.New("out of order")
					}
					return grid.Outcome{Exit: 3}, nil
				}
				return toolGuest(ctx, g)
			}
			n := open(t, w.Config())
			r := grid.Request{Spec: grid.Spec{Allow: 10, Stages: []grid.Stage{
				{Module: w.Module, Args: []string{"number"}, Tasks: 8},
				{Module: w.Module, Args: []string{"cat"}, From: []grid.Source{{Fan: 2}}, Feed: true},
				{Module: w.Module, Args: []string{"ls"}, From: []grid.Source{{Fan: 3, As: "x"}, {Stage: 1, As: "y"}}, Tasks: 3},
			}}}
			st, ends := run(t, n, r)
			if st.State != grid.Done || st.Stages[0].Failed != 4 || st.Stages[1].Failed != 2 || st.Stages[2].Failed != 0 || len(ends) != 15 {
				t.Fatalf("status %+v", st)
			}
			if got := printed(t, w, ends, 1); !slices.Equal(got, []string{"0\n1\n", "", "4\n5\n", ""}) {
				t.Errorf("read %q", got)
			}
			y := "y/0000000=0\n1\ny/0000002=4\n5\n"
			if got := printed(t, w, ends, 2); !slices.Equal(got, []string{"x/0000000=0\nx/0000001=1\n" + y, "x/0000004=4\nx/0000005=5\n" + y, y}) {
				t.Errorf("listed %q", got)
			}
			for _, e := range ends {
				word := "not run, as what it needs has failed: main task "
				if e.Stage == 0 && host {
					word = "given up: out of order"
				}
				if !e.OK() && (e.Stage == 1 || host) && (e.Fault == nil || !strings.Contains(e.Fault.Message, word)) {
					t.Errorf("task %d of stage %d: %+v", e.Index, e.Stage, e.Fault)
				}
			}
			r.Allow = 5 // one less than there are
			if st, _ = run(t, n, r); st.State != grid.Failed || st.Error == "" {
				t.Errorf("status %+v", st)
			}
		})
	}
}

// TestStolenRows: a node that has stolen tasks asks their owner for what they are given.
func TestStolenRows(t *testing.T) {
	bubble(t, 3, func(r *realm) {
		a := r.all[0]
		var mu sync.Mutex
		at := map[string]int{}
		for _, m := range r.all {
			m.w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
				select {
				case <-time.After(20 * time.Millisecond):
				case <-ctx.Done():
					return grid.Outcome{}, ctx.Err()
				}
				if g.Args[1] == "sum" {
					mu.Lock()
					at[m.w.ID.String()]++
					mu.Unlock()
				}
				return toolGuest(ctx, g)
			}
		}
		id := r.submit(a, tree(a.w, 300, 6))
		r.done(id)
		r.last(r.all[2], id, 6, "44850\n")
		if len(at) != 3 {
			t.Errorf("sums were made at %v", at)
		}
	})
}

// last checks what the tasks of the last stage have printed, of a job that has ended.
func (r *realm) last(m *member, id grid.JobID, stage uint32, want string) {
	r.t.Helper()
	ctx, got := context.Background(), ""
	err := m.n.Tasks(ctx, id, false, func(e grid.TaskEnd) error {
		data := e.Stdout.Data
		if e.Stdout.CID.Defined() && e.Stage == stage {
			if err := m.n.Ensure(ctx, []cid.Cid{e.Stdout.CID.Cid}); err != nil {
				return err
			}
			var err error
			if data, err = m.w.Blocks.Get(ctx, e.Stdout.CID.Cid); err != nil {
				return err
			}
		}
		if !e.OK() {
			r.t.Errorf("stage %d task %d: %+v", e.Stage, e.Index, e)
		}
		if e.Stage == stage {
			got += string(data)
		}
		return nil
	})
	if err != nil || !strings.HasPrefix(got, want) {
		r.t.Errorf("the last stage says %q, %v; want %q", got, err, want)
	}
}

// diamond is a job of stages that are open at the same time: numbers, sums of three and the parts of these, then all
// of it together. It prints long lines, so that they become blocks.
func diamond(w *fake.World, tasks uint32) (grid.Request, string) {
	r := grid.Request{Spec: grid.Spec{Stages: []grid.Stage{
		{Module: w.Module, Args: []string{"number"}, Tasks: tasks},
		{Module: w.Module, Args: []string{"words"}, Feed: true, From: []grid.Source{{Fan: 3}}, Partitions: 4, Split: grid.SplitLines},
		{Module: w.Module, Args: []string{"sum"}, Feed: true, From: []grid.Source{{Fan: 2}}},
		{Module: w.Module, Args: []string{"count"}, Merge: true, From: []grid.Source{{Stage: 1, Part: true}}},
		{Module: w.Module, Args: []string{"sum"}, Feed: true, From: []grid.Source{{Stage: 2}}},
		{Module: w.Module, Args: []string{"cat"}, Merge: true, From: []grid.Source{{Stage: 3, As: "words"}, {Stage: 4, As: "sum"}}},
	}}}
	lines := []string{fmt.Sprintln(tasks * (tasks - 1) / 2)}
	for i := range tasks {
		lines = append(lines, fmt.Sprintf("%d\t1\n", i))
	}
	slices.SortStableFunc(lines, func(a, b string) int {
		return strings.Compare(key(strings.TrimSuffix(a, "\n")), key(strings.TrimSuffix(b, "\n")))
	})
	return r, strings.Join(lines, "")
}

func TestDiamond(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	w.Engine.Guest = toolGuest
	n := open(t, w.Config())
	r, want := diamond(w, 100)
	st, ends := run(t, n, r)
	if got := printed(t, w, ends, 5); st.State != grid.Done || got[0] != want {
		t.Errorf("status %+v, printed %q, want %q", st, got, want)
	}
}

// slow makes the tasks of all members take some time, and counts how often each was begun.
func (r *realm) slow() {
	for _, m := range r.all {
		m.w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
			r.mu.Lock()
			r.runs[g.Args[1]]++
			r.mu.Unlock()
			took := time.Duration(20+int(g.Seed[0])%60) * time.Millisecond
			select {
			case <-time.After(took):
			case <-ctx.Done():
				return grid.Outcome{}, ctx.Err()
			}
			out, err := toolGuest(ctx, g)
			out.Run = took
			return out, err
		}
	}
}

// TestTakeOverOfStages: an owner dies while several stages are under way; what is saved of each of them is
// not done again.
func TestTakeOverOfStages(t *testing.T) {
	bubble(t, 4, func(r *realm) {
		r.slow()
		a := r.all[0]
		const tasks = 300
		req, want := diamond(a.w, tasks)
		id := r.submit(a, req)
		r.wait(id, "no checkpoint", func(rec grid.Record) bool { return rec.Checkpoint.Defined() })
		st, err := a.n.Job(context.Background(), id)
		if err != nil || st.Stages[0].Done == tasks || st.Stages[1].Done == 0 || st.Stages[2].Done == 0 || st.Stages[5].Blocked != 1 {
			t.Fatalf("not several stages at once: %+v, %v", st.Stages, err)
		}
		saved := r.saved(a, r.record(id).Checkpoint)
		r.kill(a)
		rec := r.done(id)
		r.pass(time.Second)
		r.last(r.alive(2), id, 5, want)
		r.mu.Lock()
		defer r.mu.Unlock()
		for stage, name := range []string{"number", "words"} {
			if all := int(rec.Stages[stage].Tasks); saved[uint32(stage)] == 0 || r.runs[name] > 2*all-saved[uint32(stage)] {
				t.Errorf("%d runs of %s for %d tasks, of which %d had been saved", r.runs[name], name, all, saved[uint32(stage)])
			}
		}
		if rec.Epoch != 2 || rec.Stages[1].Done != tasks/3 || rec.Stages[1].Blocked != 0 {
			t.Errorf("record %+v", rec)
		}
	})
}

// TestStagesKilledAtRandom: as TestKilledAtRandom, of a job with many stages.
func TestStagesKilledAtRandom(t *testing.T) {
	for seed := range seeds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, 5, func(r *realm) {
				r.slow()
				rnd := rand.New(rand.NewPCG(uint64(seed), 7))
				m := r.all[rnd.IntN(2)]
				req, want := diamond(m.w, 120)
				req.Publish = []string{"sums"}
				id := r.submit(m, req)
				for range 2 {
					r.pass(time.Duration(rnd.IntN(2000)) * time.Millisecond)
					victim := r.all[rnd.IntN(len(r.all))]
					if rec := r.record(id); rnd.IntN(2) == 0 {
						for _, m := range r.all {
							if m.w.ID == rec.Owner {
								victim = m
							}
						}
					}
					r.kill(victim)
				}
				r.done(id)
				r.pass(5 * time.Second)
				r.last(r.alive(rnd.IntN(5)), id, 5, want)
				if ref := r.ref("sums"); ref.Count != 1 {
					t.Errorf("it counts as %+v", ref)
				}
			})
		})
	}
}

// TestRowsRefuses: an owner tells of rows only what there is, and a job that is not its own is over.
func TestRowsRefuses(t *testing.T) {
	hub := new(fake.Hub)
	w, other := fake.NewWorld(hub, "a"), fake.NewWorld(hub, "b")
	started := make(chan struct{}, 1)
	block := blocked(started)
	w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
		if task(g) == 3 {
			return block(ctx, g)
		}
		return toolGuest(ctx, g)
	}
	n := open(t, w.Config())
	enter(t, w, n, other.ID)
	id := submit(t, n, tree(w, 9, 2))
	<-started
	if err := n.Watch(within(t), id, func(st grid.JobStatus) error { // one slot is left for all others
		if st.Stages[0].Done == 8 {
			return io.EOF
		}
		return nil
	}); err != io.EOF {
		t.Fatal(err)
	}
	ask := func(m grid.RowsMsg) (reply grid.RowsReply, err error) {
		data, err := grid.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if data, err = other.Net.Call(within(t), w.ID, grid.ProtoRows, data); err == nil {
			err = grid.UnmarshalMessage(data, &reply)
		}
		return reply, err
	}
	msg := grid.RowsMsg{Job: id, Stage: 1, Epoch: 1, Span: grid.Span{Lo: 0, Hi: 3}}
	reply, err := ask(msg)
	if err != nil || reply.Over || len(reply.Rows) != 1 || len(reply.Rows[0]) != 3 || reply.Rows[0][2].Name != "0000002" {
		t.Errorf("%+v, %v", reply, err)
	}
	for _, tt := range []struct {
		edit func(m *grid.RowsMsg)
		code grid.Code
	}{
		{func(m *grid.RowsMsg) { m.Span.Lo = 1 }, grid.Busy},
		{func(m *grid.RowsMsg) { m.Span.Lo = 3 }, grid.Invalid},
		{func(m *grid.RowsMsg) { m.Span.Hi = 4 }, grid.Invalid},
		{func(m *grid.RowsMsg) { m.Stage = 0 }, grid.Invalid},
		{func(m *grid.RowsMsg) { m.Stage = 9 }, grid.Invalid},
	} {
		bad := msg
		tt.edit(&bad)
		_, err := ask(bad)
		wantCode(t, err, tt.code)
	}
	for _, edit := range []func(m *grid.RowsMsg){
		func(m *grid.RowsMsg) { m.Epoch = 2 },
		func(m *grid.RowsMsg) { m.Job = "jaaaaaaaaaaaaaaaaaaaaaaaaa" },
	} {
		bad := msg
		edit(&bad)
		if reply, err := ask(bad); err != nil || !reply.Over {
			t.Errorf("%+v gave %+v, %v", bad, reply, err)
		}
	}
}

// TestRootsOfSources: what tasks are given of earlier outputs is kept while the job runs.
func TestRootsOfSources(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	started := make(chan struct{}, 1)
	block := blocked(started)
	w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
		if len(g.Args) > 2 {
			return block(ctx, g)
		}
		return toolGuest(ctx, g)
	}
	c := w.Config()
	c.Keeper = &keeper{held: map[cid.Cid]int{}}
	n := open(t, c)
	submit(t, n, grid.Request{Spec: grid.Spec{Stages: []grid.Stage{
		{Module: w.Module, Args: []string{"number"}, Tasks: 2},
		{Module: w.Module, Args: []string{"cat"}, From: []grid.Source{{Fan: 1}}, Feed: true},
		{Module: w.Module, Args: []string{"cat", "wait"}, From: []grid.Source{{Stage: 1}}, Feed: true},
	}}})
	<-started
	got := map[cid.Cid]bool{}
	for _, c := range roots(t, n) {
		got[c] = true
		ok, err := w.Files.Whole(within(t), c)
		if err == nil && !ok {
			t.Errorf("root %s is not whole", c)
		}
	}
	file := grid.NewBlock(cid.Raw, []byte("1\n")).CID()
	folder, _, err := w.Files.AddTree(within(t), []grid.FileInfo{
		{Name: "0000000", Kind: grid.KindFile, CID: grid.Link{Cid: grid.NewBlock(cid.Raw, []byte("0\n")).CID()}, Size: 2},
		{Name: "0000001", Kind: grid.KindFile, CID: grid.Link{Cid: file}, Size: 2},
	})
	if err != nil || !got[file] || !got[folder] {
		t.Errorf("roots %v, want %s and %s, %v", got, file, folder, err)
	}
}

func FuzzRows(f *testing.F) {
	seed(f, grid.RowsMsg{Job: "jx", Stage: 1, Epoch: 2, Span: grid.Span{Lo: 3, Hi: 4}},
		grid.RowsReply{Rows: []grid.Row{{{Name: "0000001", CID: link("x"), Size: 3}}, {}}}, grid.RowsReply{Over: true})
	f.Fuzz(func(t *testing.T, data []byte) {
		decodes[grid.RowsMsg](t, data)
		if r, ok := decodes[grid.RowsReply](t, data); ok {
			for _, row := range r.Rows {
				_ = grid.CheckRow(row)
			}
		}
	})
}
