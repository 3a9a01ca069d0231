// Package sdktest runs the functions of a program for the grid over files in memory, natively and
// without a grid, under `go test`.
package sdktest

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/sdk"
	"github.com/wasmgrid/wasmgrid/sdk/abi"
)

// Result is what one task came to.
type Result struct {
	Stdout, Stderr string
	Out            map[string]string // files left in /out, by path
}

// Run runs f as one task whose input files are given by name. It fails the test when f fails.
func Run(t testing.TB, f sdk.Func, inputs map[string]string, args ...string) Result {
	t.Helper()
	r, err := Try(f, inputs, args...)
	if err != nil {
		t.Fatalf("%v\nstderr: %s", err, r.Stderr)
	}
	return r
}

// Try is Run for functions that are meant to fail.
func Try(f sdk.Func, inputs map[string]string, args ...string) (Result, error) {
	var stdout, stderr bytes.Buffer
	out := map[string]*bytes.Buffer{}
	h := sdk.Host{
		Stdout: &stdout,
		Stderr: &stderr,
		Args:   args,
		Create: func(name string) (io.WriteCloser, error) {
			out[name] = new(bytes.Buffer)
			return closer{out[name]}, nil
		},
	}
	for _, name := range slices.Sorted(maps.Keys(inputs)) {
		h.Sources = append(h.Sources, sdk.Source{Name: name, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(inputs[name])), nil
		}})
	}
	err := f.Run(h)
	r := Result{Stdout: stdout.String(), Stderr: stderr.String(), Out: map[string]string{}}
	for name, b := range out {
		r.Out[name] = b.String()
	}
	return r, err
}

// MapReduce runs a map function once for each input, as if each were a task of its own, and the reduce
// function over what all of them emitted.
func MapReduce(t testing.TB, mapper, reducer sdk.Func, inputs map[string]string, args ...string) Result {
	t.Helper()
	gathered := map[string]string{}
	for i, name := range slices.Sorted(maps.Keys(inputs)) {
		r := Run(t, mapper, map[string]string{name: inputs[name]}, args...)
		if r.Stdout != "" {
			gathered[fmt.Sprintf("%0*d", abi.GatherDigits, i)] = r.Stdout
		}
	}
	return Run(t, reducer, gathered, args...)
}

type closer struct{ io.Writer }

func (closer) Close() error { return nil }
