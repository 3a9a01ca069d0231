package wasmhost_test

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/toolchain"
	"github.com/wasmgrid/wasmgrid/wasmhost"
	"github.com/wasmgrid/wasmgrid/wasmhost/image"
)

func goLibrary(tb testing.TB) []byte {
	return toolchain.Go(tb, "./testdata/library/go", "-buildmode=c-shared")
}

// A function of a library finds everything as it was after _initialize, by every way there is.
func TestGoLibrary(t *testing.T) {
	var l loader
	id := l.add(goLibrary(t))
	want := map[string]string{
		"nothing": "exit 0 ", "json": "exit 0 ", "state": "1001 1 true true", "busy": "10485760", "fail": "panic: on purpose",
	}
	told := map[string]string{}
	ways := map[string]func(wasmhost.Config) (*wasmhost.Host, error){
		wasmhost.Snapshot: wasmhost.OpenCompiled, wasmhost.Fresh: wasmhost.OpenFresh, "tiered": wasmhost.Open, "interpreted": wasmhost.OpenInterpreter,
		"copied": func(c wasmhost.Config) (*wasmhost.Host, error) { return wasmhost.OpenWay(c, image.Copy) },
	}
	if testing.Short() {
		ways = map[string]func(wasmhost.Config) (*wasmhost.Host, error){wasmhost.Snapshot: wasmhost.OpenCompiled, "tiered": wasmhost.Open}
	}
	for way, open := range ways {
		cfg := wasmhost.Config{Load: l.load}
		if way != "tiered" { // what is kept is not interpreted
			cfg.CacheDir = machineCode
		}
		h := closing(t)(open(cfg))
		if m, err := h.Inspect(t.Context(), id, true); err != nil || m.Kind != grid.Reactor || strings.Join(m.Functions, " ") != "busy fail json nothing state" {
			t.Fatalf("%s: %+v, %v", way, m, err)
		} else if way == wasmhost.Snapshot && m.Way != way && m.Image > 0 || way == wasmhost.Fresh && m.Way != way {
			t.Errorf("%s: it is %s, since %s", way, m.Way, m.Why)
		}
		for range 3 {
			for name, text := range want {
				got, err := account(t.Context(), h, grid.Guest{Module: id, Func: name})
				if err != nil || !strings.Contains(got, text) {
					t.Fatalf("%s, %s: %s, %v; want %q", way, name, got, err, text)
				}
				if before, ok := told[name]; ok && got != before {
					t.Errorf("%s, %s:\n%s\nelsewhere\n%s", way, name, got, before)
				}
				told[name] = got
			}
		}
	}
}

// Libraries in C and Rust are as good as one in Go.
func TestOtherLibraries(t *testing.T) {
	for _, test := range []struct {
		name, count string
		build       func(testing.TB) []byte
	}{
		{"C", "made at the start 1\n", func(t testing.TB) []byte { return toolchain.C(t, "testdata/library/library.c", "-mexec-model=reactor") }},
		{"Rust", "1\n", func(t testing.TB) []byte {
			return toolchain.Rust(t, "testdata/library/library.rs", "--crate-type=cdylib")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := &fixed{binary: test.build(t)}
			h := open(t, wasmhost.Config{Load: f.load})
			m, err := h.Inspect(t.Context(), f.cid(), true)
			if err != nil || m.Kind != grid.Reactor || strings.Join(m.Functions, " ") != "count lines" {
				t.Fatalf("%+v, %v", m, err)
			}
			for range 3 {
				for _, call := range []struct {
					name, stdin, stdout string
					exit                uint32
				}{{"count", "", test.count, 0}, {"lines", "a\nb\n", "2\n", 0}, {"lines", "", "0\n", 3}} {
					var stdout strings.Builder
					out, err := h.Run(t.Context(), &grid.Guest{Module: f.cid(), Func: call.name, Stdin: strings.NewReader(call.stdin), Stdout: &stdout})
					if err != nil || out.Fault != nil || out.Exit != call.exit || stdout.String() != call.stdout {
						t.Errorf("%s: %+v, %v, stdout %q; want exit code %d, %q", call.name, out, err, stdout.String(), call.exit, call.stdout)
					}
				}
			}
		})
	}
}

// BenchmarkLibrary measures whole tasks of a Go library, each from the snapshot.
func BenchmarkLibrary(b *testing.B) {
	f := &fixed{binary: goLibrary(b)}
	h := open(b, wasmhost.Config{Load: f.load})
	if _, err := h.Inspect(b.Context(), f.cid(), true); err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"nothing", "json", "state"} {
		g := grid.Guest{Module: f.cid(), Func: name, Args: []string{"lib"}, Env: []string{"GRID_ABI=1"}, Stdout: io.Discard, Stderr: io.Discard}
		run := func(ctx context.Context) error {
			guest := g
			_, err := h.Run(ctx, &guest)
			return err
		}
		b.Run(name+"/one", func(b *testing.B) {
			for b.Loop() {
				if err := run(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/all", func(b *testing.B) {
			inParallel(b, run)
			idle := wasmhost.Idle(h)
			b.ReportMetric(float64(idle.Bytes)/float64(max(idle.Count, 1))/1024, "KiB/idle")
		})
	}
}

// A library that fails as it begins is refused with what it said then, as far as a message goes.
func TestBrokenLibrary(t *testing.T) {
	f := &fixed{binary: toolchain.Go(t, "./testdata/broken", "-buildmode=c-shared")}
	_, err := open(t, wasmhost.Config{Load: f.load}).Run(t.Context(), &grid.Guest{Module: f.cid(), Func: "size"})
	const want = "_initialize failed: unreachable; it said: panic: no table xxx"
	if grid.CodeOf(err) != grid.Invalid || !strings.Contains(err.Error(), want) || len(err.Error()) > 2000 {
		t.Errorf("got %v\nwant %q in it", err, want)
	}
}
