package wasmhost_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/toolchain"
	"github.com/wasmgrid/wasmgrid/wasmhost"
)

// A program of the SDK finds what it was granted, as a library and as a command.
func TestTyped(t *testing.T) {
	const want = `last=tally other=x runs=2 0 <nil> kv: put "denied": no grant allows "denied" kv: commit: another transaction came before this one
s3cret <nil>
secret "other": the job was not granted it; --allow-secret other does
data <nil> more
`
	const log = "count no name: \"no name\" is not a name for a metric\nlevel=WARN msg=\"all is told\" args=[x] number=7\n"
	for _, mode := range []string{"c-shared", "exe"} {
		f := &fixed{binary: toolchain.Go(t, "./testdata/typed", "-buildmode="+mode)}
		h := open(t, wasmhost.Config{Load: f.load})
		run := func(name, stdin string, m *typedMap) (grid.Outcome, string, string, []uint64) {
			var stdout, stderr bytes.Buffer
			var progress []uint64
			out, err := h.Run(t.Context(), &grid.Guest{
				Module: f.cid(), Func: name, Args: []string{"plugin", "x"}, Env: []string{"GRID_ABI=2", "GRID_FUNC=" + name, "GRID_TASK=7", "MORE=more"},
				Stdin: strings.NewReader(stdin), Stdout: &stdout, Stderr: &stderr, KV: m,
				Mounts:   map[string]fs.FS{"/secrets": fstest.MapFS{"token": {Data: []byte("s3cret")}}, "/cid": fstest.MapFS{"bafy/a/b.txt": {Data: []byte("data")}}},
				Progress: func(done, total uint64) { progress = append(progress, done, total) },
			})
			if err != nil {
				t.Fatal(err)
			}
			return out, stdout.String(), stderr.String(), progress
		}
		m := &typedMap{entries: map[string]grid.Entry{"other": {Key: "other", Value: []byte("x"), Version: 1}, "old": {Key: "old", Version: 2}}, revision: 2}
		if out, _, _, _ := run("tally", "", m); out.Exit != 0 || out.Fault != nil {
			t.Fatalf("%s: %+v", mode, out)
		}
		m.disturb = true // another one writes between reading and committing
		out, stdout, stderr, progress := run("tally", "", m)
		if out.Exit != 0 || stdout != want || stderr != log {
			t.Errorf("%s: %+v\n%s\nwant\n%s\n%s\nwant\n%s", mode, out, stdout, want, stderr, log)
		}
		if fmt.Sprint(progress) != "[1 2 2 2]" || len(out.Metrics) != 2 || out.Metrics[0].Name != "size" || out.Metrics[0].Sum != 1.5 || out.Metrics[1].Count != 5 {
			t.Errorf("%s: progress %v, metrics %+v", mode, progress, out.Metrics)
		}
		out, _, stderr, _ = run("boom", "[1,2]", nil)
		if out.Exit != 1 || out.Fault != nil || !strings.HasPrefix(stderr, "boom: panic: runtime error: index out of range [2] with length 2\n    main.boom (main.go:") || strings.Count(stderr, "\n") != 2 {
			t.Errorf("%s: %+v\n%s", mode, out, stderr)
		}
		if _, stdout, stderr, _ = run("grid.describe", "", nil); !strings.Contains(stdout, `{"name":"boom","kind":"func","input":{"type":["array","null"],"items":{"type":"integer"}},"output":{"type":"integer"}}`) {
			t.Errorf("%s: %s\n%s", mode, stdout, stderr)
		}
		if out, _, stderr, _ = run("none", "", nil); out.Exit != 1 || !strings.Contains(stderr, `no function "none", only: add, bytes, double`) {
			t.Errorf("%s: %+v\n%s", mode, out, stderr)
		}
	}
}

// typedMap is a map of keys; with disturb, the first commit that has a condition finds that somebody else was there.
type typedMap struct {
	entries  map[string]grid.Entry
	revision uint64
	disturb  bool
}

func (m *typedMap) Get(_ context.Context, key string) (grid.Entry, error) {
	if e, ok := m.entries[key]; ok {
		return e, nil
	}
	return grid.Entry{}, grid.Errorf(grid.NotFound, "there is no key %q", key)
}

func (m *typedMap) List(_ context.Context, prefix, after string, _ int) (entries []grid.Entry, more bool, err error) {
	for _, key := range slices.Sorted(maps.Keys(m.entries)) { // one on each page
		if strings.HasPrefix(key, prefix) && key > after {
			if len(entries) == 1 {
				return entries, true, nil
			}
			entries = append(entries, m.entries[key])
		}
	}
	return entries, false, nil
}

func (m *typedMap) Commit(_ context.Context, t grid.Txn) (uint64, error) {
	if m.disturb && len(t.If) > 0 {
		m.disturb = false
		m.revision++
		e := m.entries["runs"]
		e.Version = m.revision
		m.entries["runs"] = e
	}
	for _, c := range t.If {
		if m.entries[c.Key].Version != c.Version {
			return 0, grid.Errorf(grid.Conflict, "%q has another version", c.Key)
		}
	}
	for _, e := range t.Put {
		if e.Key == "denied" {
			return 0, grid.Errorf(grid.Denied, "no grant allows %q", e.Key)
		}
	}
	m.revision++
	for _, e := range t.Put {
		m.entries[e.Key] = grid.Entry{Key: e.Key, Value: e.Value, Version: m.revision}
	}
	for _, key := range t.Delete {
		delete(m.entries, key)
	}
	return m.revision, nil
}

// BenchmarkTyped measures whole calls of a plugin's small functions, each from the snapshot, beside those of a library
// whose function is entered directly and does nothing. The difference is what the SDK costs.
func BenchmarkTyped(b *testing.B) {
	library, plugin := goLibrary(b), toolchain.Go(b, "./testdata/typed", "-buildmode=c-shared")
	const small = `{"a":1,"b":2,"name":"grid"}`
	for _, test := range []struct {
		name, function string
		binary         []byte
		stdin, want    string
	}{
		{"raw", "nothing", library, "", ""},
		{"task", "nothing", plugin, "", ""},
		{"bytes", "bytes", plugin, small, small},
		{"func", "add", plugin, small, `{"sum":3,"name":"grid"}`},
	} {
		b.Run(test.name, func(b *testing.B) {
			call := caller(b, test.binary, test.function, []byte(test.stdin), test.want)
			for b.Loop() {
				if err := call(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkTypedBytes measures what goes through a plugin's input and output, as it is and as lines of JSON.
func BenchmarkTypedBytes(b *testing.B) {
	plugin := toolchain.Go(b, "./testdata/typed", "-buildmode=c-shared")
	lines := bytes.Repeat([]byte(`{"a":1,"b":2,"name":"grid"}`+"\n"), 1<<15)
	for _, name := range []string{"copy", "bytes", "lines", "double"} {
		b.Run(name, func(b *testing.B) {
			call := caller(b, plugin, name, lines, "")
			b.SetBytes(int64(len(lines)))
			for b.Loop() {
				if err := call(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*(1<<15)/b.Elapsed().Seconds(), "lines/s")
		})
	}
}

// caller compiles a module, and gives what calls one of its functions with an input. The first call is checked for what
// it prints, unless that is "".
func caller(b *testing.B, binary []byte, function string, stdin []byte, want string) func(context.Context) error {
	b.Helper()
	f := &fixed{binary: binary}
	id := f.cid()
	h := open(b, wasmhost.Config{Load: f.load})
	if _, err := h.Inspect(b.Context(), id, true); err != nil {
		b.Fatal(err)
	}
	run := func(ctx context.Context, stdout io.Writer) error {
		var stderr bytes.Buffer
		out, err := h.Run(ctx, &grid.Guest{
			Module: id, Func: function, Args: []string{"plugin"}, Env: []string{"GRID_ABI=2", "GRID_FUNC=" + function},
			Stdin: bytes.NewReader(stdin), Stdout: stdout, Stderr: &stderr,
		})
		if err == nil && (out.Fault != nil || out.Exit != 0) {
			err = fmt.Errorf("%+v: %s", out, stderr.String())
		}
		return err
	}
	var stdout bytes.Buffer
	if err := run(b.Context(), &stdout); err != nil || want != "" && stdout.String() != want {
		b.Fatalf("%v, %.100q", err, stdout.String())
	}
	return func(ctx context.Context) error { return run(ctx, io.Discard) }
}
