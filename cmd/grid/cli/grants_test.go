package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestGrantFlags(t *testing.T) {
	files(t, map[string]string{"m.wasm": "\x00asm"})
	f := newFake(t)
	r := f.grid("run", "m.wasm", "--reduce", "--allow-kv", "a/", "--allow-kv", "b:ro", "--allow-secret", "token", "--allow-data", "*", "--allow-decrypt", "key", "--allow-net", "example.org")
	if r.exit != 0 {
		t.Fatalf("%+v", r)
	}
	for _, st := range f.request().Stages {
		if g := st.Grants; strings.Join(g.KV, " ") != "a/ b:ro" || strings.Join(g.Secrets, " ") != "token" || strings.Join(g.Data, " ") != "*" || strings.Join(g.Decrypt, " ") != "key" || len(g.Net) != 1 {
			t.Errorf("stage %s was granted %+v", st.Name, g)
		}
	}
}

// What is wrong with a secret is said before any node is asked, and without its value.
func TestSecretUsage(t *testing.T) {
	files(t, map[string]string{"big": strings.Repeat("hunter2 ", grid.MaxSecret/8+1), "empty": ""})
	f := newFake(t)
	for _, tt := range []struct {
		args string
		exit int
		err  string
	}{
		{"secret frob", exitUsage, "no command"},
		{"secret set", exitUsage, "NAME"},
		{"secret set a b c", exitUsage, ""},
		{"secret set a/b big", 67, "not a name for a secret"},
		{"secret set .. big", 67, "not a name for a secret"},
		{"secret set a hunter2", 66, "a value is no argument"},
		{"secret set a big", 121, "more than 65536 bytes"},
		{"secret set a empty", 67, "is empty"},
		{"secret rm", exitUsage, "NAME"},
		{"secret rm ok a/b", 67, "not a name for a secret"},
		{"status --json --metrics", exitUsage, "exclude"},
	} {
		r := f.grid(strings.Fields(tt.args)...)
		if r.exit != tt.exit || !strings.Contains(r.err, tt.err) || r.out != "" || strings.Contains(r.err, "hunter2") {
			t.Errorf("%s: %+v", tt.args, r)
		}
	}
}

func TestShowsProgressAndMetrics(t *testing.T) {
	f := newFake(t)
	h := grid.Metric{Name: "sizes", Kind: grid.Histogram}
	h.Observe(1)
	h.Observe(3)
	counted := []grid.Metric{{Name: "lines", Kind: grid.Counter, Count: 7}, h}
	f.jobs[0].State, f.jobs[0].Stages[0].Metrics = grid.Running, counted
	f.ends = []grid.TaskEnd{{Metrics: counted}}
	f.why = grid.Explanation{Job: f.jobs[0], Stages: []grid.StageView{{Name: "main", State: grid.StageRunning, Text: "runs", Class: grid.Class{Realm: true}}}}
	for i := range 70 {
		f.why.Tasks = append(f.why.Tasks, grid.TaskProgress{Node: "12D3KooWx", Index: uint32(i), Running: 3 * time.Second, Said: i > 0, Done: 3, Total: uint64(10 * (i % 2))})
	}
	r := f.grid("job", string(testJob))
	if r.exit != 0 || strings.Count(r.out, "task ") != shownTasks {
		t.Errorf("exit %d: %s%s", r.exit, r.out, r.err)
	}
	wantIn(t, "the description", r.out, "task 0 of main", "3/10 (30%)", "lines    7", "sizes    2 values, 2 on average, half of them at most 1")
	wantIn(t, "the notes", r.err, "62 tasks more are running")
	r = f.grid("job", string(testJob), "--why")
	wantIn(t, "the explanation", r.out, "task 63 of main", "runs; stays in this realm, whose keys or secrets it uses")
	r = f.grid("job", string(testJob), "--task", "0")
	wantIn(t, "the task", r.out, "lines", "sizes", "2 values")
}
