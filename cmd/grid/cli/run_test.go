package cli

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// files makes a folder and enters it.
func files(t *testing.T, content map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range content {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(data), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	return dir
}

func TestRunRequest(t *testing.T) {
	tests := []struct {
		name  string
		args  string
		check func(t *testing.T, f *fakeNode, r *grid.Request)
	}{
		{"plain", "m.wasm -- a --b", func(t *testing.T, f *fakeNode, r *grid.Request) {
			st := r.Stages[0]
			if f.content(st.Module) != "code" || !slices.Equal(st.Args, []string{"a", "--b"}) || st.Tasks != 1 || st.Feed || len(r.Stages) != 1 {
				t.Errorf("%+v", st)
			}
		}},
		{"limits", "m.wasm --timeout 90s --fuel 5000 --memory 64MiB --output-limit 1k --scratch 2m --name n --keep-going --no-cache", func(t *testing.T, f *fakeNode, r *grid.Request) {
			want := grid.Limits{Wall: 90 * time.Second, Memory: 64 << 20, Output: 1 << 10, Scratch: 2 << 20, Fuel: 5000}
			if r.Stages[0].Limits != want || r.Name != "n" || !r.KeepGoing || !r.NoCache {
				t.Errorf("%+v", r)
			}
		}},
		{"each feeds", "m.wasm --each in/*.txt", func(t *testing.T, f *fakeNode, r *grid.Request) {
			if got := f.rows(); !slices.Equal(got, []string{"a.txt=A", "b.txt=BB"}) || !r.Stages[0].Feed || r.Stages[0].Tasks != 2 {
				t.Errorf("%q %+v", got, r.Stages[0])
			}
		}},
		{"each by placeholder", "m.wasm --each in/** --group 2 -- -n {}", func(t *testing.T, f *fakeNode, r *grid.Request) {
			if got := f.rows(); !slices.Equal(got, []string{"a.txt=A b.txt=BB", "deep/c.txt=CCC"}) || r.Stages[0].Feed {
				t.Errorf("%q %+v", got, r.Stages[0])
			}
		}},
		{"group by bytes", "m.wasm --each in/** --group 3b", func(t *testing.T, f *fakeNode, r *grid.Request) {
			if got := f.rows(); !slices.Equal(got, []string{"a.txt=A b.txt=BB", "deep/c.txt=CCC"}) {
				t.Errorf("%q", got)
			}
		}},
		{"reduce", "m.wasm --each in/** --reduce", func(t *testing.T, f *fakeNode, r *grid.Request) {
			if len(r.Stages) != 2 || r.Stages[0].Func != "map" || r.Stages[0].Feed || r.Stages[0].Tasks != 1 ||
				r.Stages[1].Func != "reduce" || len(r.Stages[1].From) != 1 || r.Stages[1].From[0] != (grid.Source{}) || r.Stages[1].Module != r.Stages[0].Module {
				t.Errorf("%+v", r.Stages)
			}
		}},
		{"reduce with names", "m.wasm --reduce=sum --func words", func(t *testing.T, f *fakeNode, r *grid.Request) {
			if r.Stages[0].Func != "words" || r.Stages[1].Func != "sum" {
				t.Errorf("%+v", r.Stages)
			}
		}},
		{"count", "m.wasm --count 7", func(t *testing.T, f *fakeNode, r *grid.Request) {
			if r.Stages[0].Tasks != 7 || r.Rows != nil {
				t.Errorf("%+v", r)
			}
		}},
		{"env", "m.wasm --env A=b=c -e PATHY", func(t *testing.T, f *fakeNode, r *grid.Request) {
			if got := r.Stages[0].Env; !slices.Equal(got, []string{"A=b=c", "PATHY=value of PATHY"}) {
				t.Errorf("%q", got)
			}
		}},
		{"mounts", "m.wasm --mount in/a.txt:/a --mount in:/all", func(t *testing.T, f *fakeNode, r *grid.Request) {
			m := r.Stages[0].Mounts
			if len(m) != 2 || m[0].Path != "/a" || f.content(m[0].CID) != "A" || len(f.trees[m[1].CID.String()]) != 3 {
				t.Errorf("%+v", m)
			}
		}},
		{"stdin file", "m.wasm --stdin in/b.txt --each in/a.txt", func(t *testing.T, f *fakeNode, r *grid.Request) {
			if st := r.Stages[0]; f.content(st.Stdin) != "BB" || st.Feed {
				t.Errorf("%+v", st)
			}
		}},
		{"stdin pipe", "m.wasm -i", func(t *testing.T, f *fakeNode, r *grid.Request) {
			if got := f.content(r.Stages[0].Stdin); got != "piped" {
				t.Errorf("%q", got)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files(t, map[string]string{"m.wasm": "code", "in/a.txt": "A", "in/b.txt": "BB", "in/deep/c.txt": "CCC"})
			f := newFake(t)
			r := f.gridIn(t.Context(), "piped", append([]string{"run"}, strings.Fields(tt.args)...)...)
			if r.exit != 0 {
				t.Fatalf("exit %d: %s", r.exit, r.err)
			}
			tt.check(t, f, f.request())
		})
	}
}

func TestRunRefuses(t *testing.T) {
	tests := []struct {
		args string
		exit int
		want string
	}{
		{"", exitUsage, "MODULE"},
		{"no.wasm", 66, "module no.wasm: no such file"},
		{"m.wasm --each x --count 2", exitUsage, "exclude each other"},
		{"m.wasm --group 2", exitUsage, "no --each"},
		{"m.wasm --count 0", exitUsage, "at least one"},
		{"m.wasm --each nothing/*.x", 66, `"nothing/*.x" matches nothing in `},
		{"m.wasm --each d*", 66, "only folders"},
		{"m.wasm --each m.wasm --group 0", 67, "--group"},
		{"m.wasm --env UNSET", 66, "not set"},
		{"m.wasm --mount m.wasm:rel", 67, "GUESTPATH"},
		{"m.wasm --mount nope:/x", 66, "nope"},
		{"m.wasm --memory lots", exitUsage, "want a size such as"},
		{"m.wasm -- {}", 67, "no --each"},
		{"m.wasm --ecah x", exitUsage, "did you mean --each?"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			files(t, map[string]string{"m.wasm": "code", "dir/f": ""})
			f := newFake(t)
			r := f.grid(append([]string{"run"}, strings.Fields(tt.args)...)...)
			if r.exit != tt.exit || !strings.HasPrefix(r.err, "grid: ") || r.out != "" {
				t.Errorf("exit %d, want %d; out %q", r.exit, tt.exit, r.out)
			}
			wantIn(t, "stderr", r.err, tt.want)
			if len(f.submitted) > 0 {
				t.Error("it was submitted")
			}
		})
	}
}

func TestRunOutputInOrder(t *testing.T) {
	files(t, map[string]string{"m.wasm": "code"})
	f := newFake(t)
	big := strings.Repeat("two\n", 1000)
	f.jobs[0].Stages = []grid.StageStatus{{Name: "main", Tasks: 4, Done: 4, Cached: 1, Nodes: map[string]uint32{"12D3KooWaaaaaa": 1, "12D3KooWbbbbbb": 2}}}
	f.ends = []grid.TaskEnd{end(3, "three\n"), end(0, "zero\n"), {Index: 2, Stdout: grid.TaskOutput{Size: int64(len(big)), CID: f.blob(big)}}, end(1, "one\n"), end(1, "again\n")}
	f.ends[0].Stderr = grid.TaskOutput{Size: 9, Data: []byte("warn\nhalf")}
	r := f.grid("run", "m.wasm", "--count", "4")
	if want := "zero\none\n" + big + "three\n"; r.exit != 0 || r.out != want {
		t.Errorf("exit %d, out %q", r.exit, r.out)
	}
	wantIn(t, "stderr", r.err, "3 | warn\n3 | half\n", "1 of 4 tasks was known from earlier runs", "4 tasks in ", "on 2 nodes (…bbbbbb 2, …aaaaaa 1)")
}

func TestRunFailures(t *testing.T) {
	tests := []struct {
		name  string
		end   grid.TaskEnd
		exit  int
		wants []string
	}{
		{"exit code", grid.TaskEnd{Index: 5, Input: "a/b.csv", Inputs: 1, Exit: 3}, 3, []string{"task 5 (a/b.csv) exited with code 3\n", "grid logs " + string(testJob)}},
		{"exit code too big", grid.TaskEnd{Exit: 255}, 1, []string{"code 255"}},
		{"several inputs", grid.TaskEnd{Input: "a", Inputs: 4, Exit: 1}, 1, []string{"task 0 (a and 3 more)"}},
		{"trap", grid.TaskEnd{Fault: &grid.Fault{Code: grid.Trap, Message: "unreachable\x1b[2J", Stack: "main.f\n\tmain.g"}}, exitTrap, []string{`unreachable\x1b[2J`, "\n    main.f\n    main.g\n"}},
		{"limit", grid.TaskEnd{Fault: &grid.Fault{Code: grid.Limit, Message: "out of memory"}}, exitLimit, []string{"out of memory"}},
		{"time", grid.TaskEnd{Fault: &grid.Fault{Code: grid.Deadline, Message: "slow"}}, exitDeadline, []string{"slow"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files(t, map[string]string{"m.wasm": "code"})
			f := newFake(t)
			f.jobs[0].State = grid.Failed
			tt.end.Stdout = grid.TaskOutput{Data: []byte("before"), Size: 6}
			f.ends = []grid.TaskEnd{tt.end}
			r := f.grid("run", "m.wasm")
			if r.exit != tt.exit || r.out != "before" {
				t.Errorf("exit %d, want %d; out %q", r.exit, tt.exit, r.out)
			}
			wantIn(t, "stderr", r.err, tt.wants...)
			if w := f.grid("wait", "jabcd"); w.exit != tt.exit || w.out != "" {
				t.Errorf("wait: exit %d, out %q", w.exit, w.out)
			}
		})
	}
}

func TestRunJSON(t *testing.T) {
	files(t, map[string]string{"m.wasm": "code"})
	f := newFake(t)
	f.jobs[0].State = grid.Failed
	f.ends = []grid.TaskEnd{{Index: 1, Exit: 4}, end(0, "zero")}
	r := f.grid("run", "m.wasm", "--json", "-q")
	var got runResult
	if err := json.Unmarshal([]byte(r.out), &got); err != nil {
		t.Fatalf("%v: %s", err, r.out)
	}
	if r.exit != 4 || got.Exit != 4 || got.Job.ID != testJob || len(got.Tasks) != 2 || string(got.Tasks[0].Stdout.Data) != "zero" {
		t.Errorf("exit %d: %+v", r.exit, got)
	}
}

func TestRunOutputFolder(t *testing.T) {
	dir := files(t, map[string]string{"m.wasm": "code", "one/old": "kept", "one/a": "replaced"})
	f := newFake(t)
	out := f.tree(map[string]string{"a": "A", "sub/b": "B", "l": "->sub/b"})
	f.ends = []grid.TaskEnd{{Out: out}}
	if r := f.grid("run", "m.wasm", "-o", "one"); r.exit != 0 {
		t.Fatal(r.err)
	}
	for name, want := range map[string]string{"one/a": "A", "one/sub/b": "B", "one/l": "B", "one/old": "kept"} {
		if got, _ := os.ReadFile(filepath.Join(dir, name)); string(got) != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	f.jobs[0].Stages[0].Tasks = 2
	f.ends = []grid.TaskEnd{{Index: 0, Input: "x/1", Inputs: 1, Out: out}, {Index: 1, Input: "x/2", Inputs: 1, Out: out}}
	if r := f.grid("run", "m.wasm", "-o", "many"); r.exit != 0 {
		t.Fatal(r.err)
	}
	if r := f.grid("get", "jabcd", "-o", "got"); r.exit != 0 {
		t.Fatal(r.err)
	}
	for _, name := range []string{"many/x/1/a", "many/x/2/sub/b", "got/x/1/a"} {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
	f.ends[1].Input = "../../evil"
	if r := f.grid("run", "m.wasm", "-o", "evil"); r.exit != 0 {
		t.Fatal(r.err)
	}
	if _, err := os.Stat("evil/1/a"); err != nil {
		t.Error("a bad name was not replaced by the number:", err)
	}
	if left, _ := filepath.Glob(".grid-*"); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

func TestRunInterrupted(t *testing.T) {
	files(t, map[string]string{"m.wasm": "code"})
	f := newFake(t)
	f.jobs[0].State, f.running = grid.Running, true
	ctx, interrupt := context.WithCancel(t.Context())
	go func() { <-f.watched; interrupt() }()
	r := f.gridIn(ctx, "", "run", "m.wasm")
	if r.exit != exitInterrupted || len(f.cancelled) != 1 {
		t.Errorf("exit %d, cancelled %v", r.exit, f.cancelled)
	}
	wantIn(t, "stderr", r.err, "is cancelled")
}
