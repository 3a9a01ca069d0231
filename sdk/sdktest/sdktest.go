// Package sdktest runs the functions of a plugin natively and without a grid, under `go test`: over values, lines or
// files in memory, with arguments, secrets, data and a map of keys as the test gives them, and tells what the function
// logged, counted and left behind.
//
//	func TestCount(t *testing.T) {
//		if got := sdktest.Call(t, count, "the quick fox"); got != 3 {
//			t.Error(got)
//		}
//	}
package sdktest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/wasmgrid/wasmgrid/sdk"
	"github.com/wasmgrid/wasmgrid/sdk/abi"
)

// Result is what one task came to, with those that it spawned.
type Result struct {
	Stdout     string
	Stderr     string               // its log
	Out        map[string]string    // files left in /out, by path
	Progress   []Progress           // as it was told
	Counters   map[string]uint64    // sums, by name
	Histograms map[string][]float64 // values observed, by name
}

// Progress is how much of a task's work was done, of how much.
type Progress struct{ Done, Total uint64 }

// Log are the lines that the task logged.
func (r Result) Log() []string {
	if r.Stderr == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(r.Stderr, "\n"), "\n")
}

// Option is something that a task finds around it.
type Option func(*world)

type world struct {
	host sdk.Host
	data fstest.MapFS
	into *Result
}

// Args are the task's arguments. Flags are not taken from them: a test sets the variables of flags itself.
func Args(args ...string) Option { return func(w *world) { w.host.Args = args } }

// Number is the number of a task that has no inputs.
func Number(n int) Option { return func(w *world) { w.host.Number = fmt.Sprint(n) } }

// Env is a variable of the stage.
func Env(name, value string) Option {
	return func(w *world) {
		before := w.host.Env
		w.host.Env = func(n string) string {
			if n == name {
				return value
			}
			return before(n)
		}
	}
}

// Secret grants a secret.
func Secret(name, value string) Option {
	return func(w *world) {
		before := w.host.Secret
		w.host.Secret = func(n string) ([]byte, error) {
			if n == name {
				return []byte(value), nil
			}
			return before(n)
		}
	}
}

// Data grants a file of a CID's data; its path is "" when the CID is the file's own.
func Data(cid, name, content string) Option {
	return func(w *world) { w.data[path.Join(cid, name)] = &fstest.MapFile{Data: []byte(content)} }
}

// KV makes kv the realm's map. Without it a test's tasks have an empty one each.
func KV(kv sdk.Store) Option { return func(w *world) { w.host.KV = kv } }

// Functions are the program's others, which the function may spawn. They run in this process, at once.
func Functions(funcs ...sdk.Function) Option {
	return func(w *world) { w.host.Functions = append(w.host.Functions, funcs...) }
}

// Into stores what the task came to besides the value that it gives.
func Into(r *Result) Option { return func(w *world) { w.into = r } }

// Run runs f as one task whose input files are given by name. It fails the test when f fails.
func Run(t testing.TB, f sdk.Function, inputs map[string]string, with ...Option) Result {
	t.Helper()
	r, err := Try(f, inputs, with...)
	if err != nil {
		t.Fatalf("%v\nstderr: %s", err, r.Stderr)
	}
	return r
}

// Try is Run for functions that are meant to fail.
func Try(f sdk.Function, inputs map[string]string, with ...Option) (Result, error) {
	var mu sync.Mutex
	r := Result{Out: map[string]string{}, Counters: map[string]uint64{}, Histograms: map[string][]float64{}}
	locked := func(f func()) error {
		mu.Lock()
		defer mu.Unlock()
		f()
		return nil
	}
	var stdout, stderr bytes.Buffer
	out := map[string]*bytes.Buffer{}
	w := world{data: fstest.MapFS{}}
	w.host = sdk.Host{
		Stdout: &stdout,
		Stderr: &stderr,
		Create: func(name string) (io.WriteCloser, error) {
			out[name] = new(bytes.Buffer)
			return closer{out[name]}, nil
		},
		Functions: []sdk.Function{f},
		Env:       func(string) string { return "" },
		Secret:    func(string) ([]byte, error) { return nil, errors.New("not granted: give sdktest.Secret") },
		Open: func(name string) (fs.File, error) {
			file, err := w.data.Open(name)
			if err != nil {
				err = fmt.Errorf("%w: give sdktest.Data", err)
			}
			return file, err
		},
		KV: new(sdk.Memory),
		Progress: func(done, total uint64) error {
			return locked(func() { r.Progress = append(r.Progress, Progress{done, total}) })
		},
		Count: func(name string, n uint64) error { return locked(func() { r.Counters[name] += n }) },
		Observe: func(name string, v float64) error {
			return locked(func() { r.Histograms[name] = append(r.Histograms[name], v) })
		},
	}
	for _, name := range slices.Sorted(maps.Keys(inputs)) {
		w.host.Inputs = append(w.host.Inputs, sdk.File{Name: name, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(inputs[name])), nil
		}})
	}
	for _, o := range with {
		o(&w)
	}
	err := f.Run(w.host)
	r.Stdout, r.Stderr = stdout.String(), stderr.String()
	for name, b := range out {
		r.Out[name] = b.String()
	}
	if w.into != nil {
		*w.into = r
	}
	return r, err
}

// Call calls a typed function as a task of its own, its value and what it gives travelling as they would on the grid. It
// fails the test when f fails. f may spawn itself, and what [Functions] names.
func Call[In, Out any](t testing.TB, f func(sdk.Context, In) (Out, error), in In, with ...Option) Out {
	t.Helper()
	out, err := TryCall(f, in, with...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TryCall is Call for functions that are meant to fail.
func TryCall[In, Out any](f func(sdk.Context, In) (Out, error), in In, with ...Option) (out Out, err error) {
	data, err := marshal(in)
	if err != nil {
		return out, err
	}
	r, err := Try(sdk.Func("call", f), map[string]string{"stdin": string(data)}, with...)
	if err != nil {
		return out, err
	}
	return out, unmarshal([]byte(r.Stdout), &out)
}

// Stream runs a function of streams over values, as lines, and gives those that come out. It fails the test when f fails.
func Stream[In, Out any](t testing.TB, f func(sdk.Context, iter.Seq2[In, error], func(Out) error) error, in []In, with ...Option) []Out {
	t.Helper()
	var lines []byte
	for _, v := range in {
		line, err := marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(append(lines, line...), '\n')
	}
	r := Run(t, sdk.Stream("stream", f), map[string]string{"stdin": string(lines)}, with...)
	var out []Out
	for line := range strings.Lines(r.Stdout) {
		var v Out
		if err := unmarshal([]byte(strings.TrimSuffix(line, "\n")), &v); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		out = append(out, v)
	}
	return out
}

// MapReduce runs a map function once for each input, as if each were a task of its own, and the reduce
// function over what all of them emitted.
func MapReduce(t testing.TB, mapper, reducer sdk.Function, inputs map[string]string, with ...Option) Result {
	t.Helper()
	gathered := map[string]string{}
	for i, name := range slices.Sorted(maps.Keys(inputs)) {
		r := Run(t, mapper, map[string]string{name: inputs[name]}, with...)
		if r.Stdout != "" {
			gathered[fmt.Sprintf("%0*d", abi.GatherDigits, i)] = r.Stdout
		}
	}
	return Run(t, reducer, gathered, with...)
}

// Golden compares a text with that of a file, such as testdata/top.txt. With the variable GRID_UPDATE set, as in
// `GRID_UPDATE=1 go test ./...`, it writes the file anew.
func Golden(t testing.TB, file, got string) {
	t.Helper()
	if os.Getenv("GRID_UPDATE") != "" {
		if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; GRID_UPDATE=1 go test writes it", err)
	}
	if got == string(want) {
		return
	}
	a, b := strings.SplitAfter(got, "\n"), strings.SplitAfter(string(want), "\n")
	line := 0
	for line < min(len(a), len(b))-1 && a[line] == b[line] {
		line++
	}
	t.Errorf("%s differs first in line %d: %.200q, want %.200q; GRID_UPDATE=1 go test writes it anew", file, line+1, a[line], b[line])
}

// Split runs a splitter over files and gives the pieces that it makes of them. It fails the test when f fails. Admission
// policies are functions like any other: [Call] calls them.
func Split(t testing.TB, f func(sdk.Context, []sdk.File, func(sdk.Piece) error) error, files map[string]string, with ...Option) (pieces []sdk.Piece) {
	t.Helper()
	r := Run(t, sdk.Splitter("split", f), files, with...)
	for line := range strings.Lines(r.Stdout) {
		var p sdk.Piece
		if err := unmarshal([]byte(line), &p); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		pieces = append(pieces, p)
	}
	return pieces
}

// Notify tells a notifier of an event, which travels as it would on the grid.
func Notify(f func(sdk.Context, sdk.JobEvent) error, ev sdk.JobEvent, with ...Option) (Result, error) {
	data, err := marshal(ev)
	if err != nil {
		return Result{}, err
	}
	return Try(sdk.Notifier("notify", f), map[string]string{"stdin": string(data)}, with...)
}

// Score asks a scorer for the score of a node. It fails the test when f fails.
func Score(t testing.TB, f func(sdk.Context, sdk.StageInfo, sdk.Candidate) (float64, error), stage sdk.StageInfo, node sdk.Candidate, with ...Option) float64 {
	t.Helper()
	data, err := marshal(map[string]any{"version": 1, "stage": stage, "nodes": []sdk.Candidate{node}})
	if err != nil {
		t.Fatal(err)
	}
	r := Run(t, sdk.Scorer("score", f), map[string]string{"stdin": string(data)}, with...)
	var out struct{ Scores []float64 }
	if err := unmarshal([]byte(r.Stdout), &out); err != nil || len(out.Scores) != 1 {
		t.Fatalf("it answers %q, %v", r.Stdout, err)
	}
	return out.Scores[0]
}

func marshal(v any) ([]byte, error) {
	switch v := v.(type) {
	case []byte:
		return v, nil
	case string:
		return []byte(v), nil
	}
	return json.Marshal(v)
}

func unmarshal(data []byte, v any) error {
	switch v := v.(type) {
	case *[]byte:
		*v = data
		return nil
	case *string:
		*v = string(data)
		return nil
	}
	return json.Unmarshal(data, v)
}

type closer struct{ io.Writer }

func (closer) Close() error { return nil }
