package cli

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

const jobYAML = `
params: {n: 2, conf: ""}
policy: {user: ada, priority: 3, deadline: 1h, failures: continue}
publish: words
stages:
  sum:
    module: mods/b.wasm
    from: count
    reduce: by-key
    args: ["${conf}"]
  count:
    module: mods/a.wasm
    each: {files: "*.txt", lines: "${n}"}
    env: {HOME: null, N: "${n}"}
    mounts: {/data: data, /more: data, /ref: ref:folder}
    shuffle: {partitions: 3}
    stdin: data/x
  again:
    module: mods/a.wasm
    each: "*.txt"
    args: ["{}"]
`

func jobFolder(t *testing.T) string {
	return files(t, map[string]string{
		"jobs/job.yaml": jobYAML, "jobs/mods/a.wasm": "A", "jobs/mods/b.wasm": "B", "jobs/data/x": "X",
		"jobs/t.txt": "1\n2\n3", "jobs/u.txt": "4\n", "conf": "configured",
	})
}

func TestSubmit(t *testing.T) {
	jobFolder(t)
	f := newFake(t)
	folder := f.tree(map[string]string{"f": "F"})
	f.refs = map[string]grid.Link{"folder": folder}
	r := f.grid("submit", "jobs/job.yaml", "--set-file", "conf=conf", "--no-cache")
	if r.exit != 0 {
		t.Fatalf("exit %d: %s", r.exit, r.err)
	}
	req := f.request()
	if req.Name != "job" || req.User != "ada" || req.Priority != 3 || req.Deadline != time.Hour || !req.KeepGoing || !req.NoCache || !slices.Equal(req.Publish, []string{"words"}) {
		t.Errorf("%+v", req)
	}
	count, sum, again := req.Stages[0], req.Stages[1], req.Stages[2]
	if count.Name != "count" || f.content(count.Module) != "A" || count.Module != again.Module || f.content(sum.Module) != "B" {
		t.Errorf("modules: %+v", req.Stages)
	}
	if !slices.Equal(count.Env, []string{"HOME=value of HOME", "N=2"}) || f.content(count.Stdin) != "X" || count.Feed || count.Tasks != 3 {
		t.Errorf("count: %+v", count)
	}
	if m := count.Mounts; len(m) != 3 || m[0].CID != m[1].CID || len(f.trees[m[0].CID.String()]) != 1 || m[2].CID != folder {
		t.Errorf("mounts: %+v", m)
	}
	if !slices.Equal(sum.From, []grid.Source{{Stage: 0, Part: true}}) || !sum.Merge || sum.Tasks != 3 || !slices.Equal(sum.Args, []string{"configured"}) {
		t.Errorf("sum: %+v", sum)
	}
	want := []string{"t.txt.0000000=1\n2\n", "t.txt.0000001=3", "u.txt.0000000=4\n", "t.txt=1\n2\n3", "u.txt=4\n"}
	if got := f.rows(); !slices.Equal(got, want) || req.Rows[1] != nil {
		t.Errorf("rows: %q", got)
	}
	if f.received != 18 {
		t.Errorf("%d bytes were sent", f.received)
	}
}

func TestSubmitFromStdin(t *testing.T) {
	files(t, map[string]string{"m.wasm": "M"})
	f := newFake(t)
	r := f.gridIn(t.Context(), `{"stages": {"s": {"module": "m.wasm", "sweep": {"grid": {"a": [1, 2]}}, "args": ["{a}"]}}}`, "submit", "-", "-d")
	if r.exit != 0 || r.out != string(testJob)+"\n" {
		t.Fatalf("exit %d: %s%s", r.exit, r.out, r.err)
	}
	if st := f.request().Stages[0]; st.Tasks != 2 || len(st.Sweep) != 1 || f.request().Name != "job" {
		t.Errorf("%+v", st)
	}
}

func TestSubmitDryRun(t *testing.T) {
	jobFolder(t)
	f := newFake(t)
	f.refs = map[string]grid.Link{}
	r := f.grid("submit", "jobs/job.yaml", "--dry-run")
	if r.exit != 0 || len(f.submitted) > 0 || f.received > 0 {
		t.Fatalf("exit %d: %s", r.exit, r.err)
	}
	wantIn(t, "stdout", r.out, "count", "3 chunks, 7 B -> 3 parts", "a part of all of count, merged by key", "inputs  5", "mods/b.wasm")
	r = f.grid("submit", "jobs/job.yaml", "--dry-run", "--json")
	var got planned
	if err := json.Unmarshal([]byte(r.out), &got); err != nil {
		t.Fatalf("%v: %s", err, r.out)
	}
	if got.Bytes != uint64(18) || len(got.Stages) != 3 || got.Stages[1].Name != "sum" || len(got.Upload) != 5 {
		t.Errorf("%+v", got)
	}
}

func TestSubmitRefuses(t *testing.T) {
	for _, tt := range []struct {
		args, file string
		exit       int
		wants      []string
	}{
		{"submit none.yaml", "", 66, []string{"none.yaml: no such file"}},
		{"submit job.yaml", "stages: {a: {module: m.wasm, cout: 1}}\n", exitUsage, []string{`job.yaml:1:30: a stage has no key "cout"`, "did you mean count?", "job.yaml is no job"}},
		{"submit job.yaml --set x", "", exitUsage, []string{"want NAME=VALUE"}},
		{"submit job.yaml --set x=1 --set x=2", "", exitUsage, []string{"set twice"}},
		{"submit job.yaml", "stages: {a: {module: gone.wasm}}", 66, []string{"job.yaml:1: stage a: module gone.wasm: no such file"}},
		{"submit job.yaml", "stages: {a: {module: m.wasm, each: no*}}", 66, []string{`stage a: each "no*" matches nothing`}},
		{"submit job.yaml", "stages: {a: {module: m.wasm, mounts: {/x: no}}}", 66, []string{"stage a: mount no: no such file"}},
		{"submit job.yaml", "stages: {a: {module: m.wasm, env: {UNSET: }}}", 66, []string{"stage a: env UNSET: it is not set"}},
		{"submit job.yaml", "stages: {a: {module: m.wasm, each: {files: m.wasm, bytes: 3, record: 3}}}", 67, []string{"1 bytes are left over"}},
		{"submit job.yaml -d -o x", "", exitUsage, []string{"--detach does not wait"}},
		{"job validate job.yaml", "stages: {}", exitUsage, []string{"there are no stages"}},
		{"job validate job.yaml", "params: {a: 1}\nstages: {a: {module: nowhere}}", 0, []string{"job.yaml:1:10: warning: the param a is not used", "job.yaml is good"}},
	} {
		t.Run(tt.args, func(t *testing.T) {
			files(t, map[string]string{"m.wasm": "code", "job.yaml": tt.file})
			f := newFake(t)
			r := f.grid(strings.Fields(tt.args)...)
			if r.exit != tt.exit || len(f.submitted) > 0 {
				t.Errorf("exit %d, want %d", r.exit, tt.exit)
			}
			wantIn(t, "stderr", r.err, tt.wants...)
		})
	}
}

func TestJobValidateJSON(t *testing.T) {
	files(t, map[string]string{"job.yaml": "stages: {a: {module: m, count: x}}", "good.yaml": "stages: {a: {module: m}}"})
	f := newFake(t)
	var got struct {
		Valid    bool
		Problems []struct{ Line, Column int }
	}
	r := f.grid("job", "validate", "job.yaml", "--json")
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || r.exit != exitUsage || got.Valid || len(got.Problems) != 1 || got.Problems[0].Line != 1 || r.err != "" {
		t.Errorf("exit %d, %+v, %v, %s", r.exit, got, err, r.err)
	}
	r = f.grid("job", "validate", "good.yaml", "--json")
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || r.exit != 0 || !got.Valid || got.Problems == nil || len(got.Problems) != 0 {
		t.Errorf("exit %d, %+v, %v", r.exit, got, err)
	}
	if r := f.grid("job", "schema"); r.exit != 0 || !json.Valid([]byte(r.out)) {
		t.Errorf("schema: exit %d", r.exit)
	}
}

func TestSubmitCompletes(t *testing.T) {
	files(t, map[string]string{"job.yaml": jobYAML})
	f := newFake(t)
	if r := f.grid("__complete", "submit", "job.yaml", "--set", ""); !strings.HasPrefix(r.out, "conf=\nn=\n") {
		t.Errorf("%q", r.out)
	}
	if r := f.grid("__complete", "submit", ""); !strings.HasPrefix(r.out, "yaml\nyml\njson\n") {
		t.Errorf("%q", r.out)
	}
}

// TestPartChanged has a file change between the choice of its parts and their upload.
func TestPartChanged(t *testing.T) {
	files(t, map[string]string{"f": "1\n2\n"})
	info, err := os.Stat("f")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("f", []byte("1\n2\n3\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	a := newArchiver(&strings.Builder{})
	a.how.parts = map[string]part{"x": {0, 2, info}}
	if err := a.write(t.Context(), []item{{"x", "f"}}); err == nil || !strings.Contains(err.Error(), "f changed while it was read") {
		t.Errorf("%v", err)
	}
}

// TestAllowedFailures has tasks fail of a job that is done without them.
func TestAllowedFailures(t *testing.T) {
	files(t, map[string]string{"job.yaml": "policy: {failures: {allow: 1}}\nstages: {a: {module: m.wasm, count: 2}}", "m.wasm": "code"})
	f := newFake(t)
	f.ends = []grid.TaskEnd{end(0, "zero\n"), {Index: 1, Exit: 3}}
	r := f.grid("submit", "job.yaml")
	if r.exit != 0 || r.out != "zero\n" || f.request().Allow != 1 {
		t.Errorf("exit %d, %q", r.exit, r.out)
	}
	wantIn(t, "stderr", r.err, "task 1 exited with code 3", "is done all the same")
}
