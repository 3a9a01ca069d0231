package wasmhost_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/toolchain"
	"github.com/wasmgrid/wasmgrid/wasmhost"
)

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
