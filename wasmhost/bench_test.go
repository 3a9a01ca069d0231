package wasmhost_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/toolchain"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/wasmhost"
)

var goHello = sync.OnceValues(func() ([]byte, error) {
	return gridtest.BuildGuest([]byte("package main\n\nfunc main() { println(\"hello\") }\n"))
})

// inParallel runs one task before the clock starts, then b.N of them on as many goroutines as there
// are cores.
func inParallel(b *testing.B, task func(context.Context) error) {
	if err := task(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	began := time.Now()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := task(b.Context()); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "tasks/s")
}

// cLike is a guest as C makes them: two pages with data, a stack pointer, a few writes, an exit code.
func cLike() []byte {
	op, code, i32 := wasmbytes.Op, wasmbytes.Code, wasmbytes.Const
	store := func(at int32) []byte { return code(i32(at), wasmbytes.Const64(int64(at)), op(0x37, 3, 0)) }
	return wasmbytes.Program{
		Imports: []wasmbytes.Import{wasmbytes.System("proc_exit")}, MinPages: 2, Globals: 2, Data: []byte("data"),
		Funcs: []wasmbytes.Func{{Locals: 1, Code: code(wasmbytes.Const64(5), op(0x24, 0), store(8), store(16384), store(65536), i32(0), wasmbytes.Call(0))}},
	}.Bytes()
}

// BenchmarkReuse is whole guests in reused and in fresh instances, on one core and on all, for profiles and
// counts of allocations; BenchmarkVersus compares them with wazero.
func BenchmarkReuse(b *testing.B) {
	just := func(binary []byte) func(testing.TB) []byte { return func(testing.TB) []byte { return binary } }
	count := func(tb testing.TB) []byte { return toolchain.Go(tb, "github.com/wasmgrid/wasmgrid/plugins/wordcount") }
	type guest struct {
		name   string
		binary func(testing.TB) []byte
		env    []string
		stdin  string
	}
	guests := []guest{
		{"tiny", just(wasmbytes.Noop()), nil, ""}, {"exit", just(cLike()), nil, ""},
		{"wordcount", count, []string{"GRID_ABI=1", "GRID_FUNC=map"}, "some words"},
		{"wordcount1M", count, []string{"GRID_ABI=1", "GRID_FUNC=map"}, corpus(1 << 20)},
	}
	for _, l := range languages {
		guests = append(guests, guest{l.name, l.hello, nil, ""})
	}
	for _, guest := range guests {
		for _, way := range []struct {
			name string
			open func(wasmhost.Config) (*wasmhost.Host, error)
		}{{"fresh", wasmhost.OpenFresh}, {"reused", wasmhost.OpenCompiled}} {
			b.Run(guest.name+"/"+way.name, func(b *testing.B) {
				f := &fixed{binary: guest.binary(b)}
				h := closing(b)(way.open(wasmhost.Config{Load: f.load}))
				id := f.cid()
				run := func(ctx context.Context) error {
					out, err := h.Run(ctx, &grid.Guest{
						Module: id, Args: []string{"prog"}, Env: guest.env, Stdin: strings.NewReader(guest.stdin), Stdout: io.Discard, Stderr: io.Discard,
					})
					if err == nil && (out.Fault != nil || out.Exit != 0) {
						err = fmt.Errorf("%+v", out)
					}
					return err
				}
				b.Run("one", func(b *testing.B) {
					if err := run(b.Context()); err != nil {
						b.Fatal(err)
					}
					b.ReportAllocs()
					for b.Loop() {
						if err := run(b.Context()); err != nil {
							b.Fatal(err)
						}
					}
				})
				b.Run("all", func(b *testing.B) {
					inParallel(b, run)
					if idle := wasmhost.Idle(h); idle.Count > 0 {
						b.ReportMetric(float64(idle.Bytes)/float64(idle.Count)/1024, "KiB/idle")
					}
				})
			})
		}
	}
}

// BenchmarkFirstAnswer measures how long a guest of a module that was never seen takes: as hosts do it, by
// interpretation while the module compiles, and after compiling it.
func BenchmarkFirstAnswer(b *testing.B) {
	hello, err := goHello()
	if err != nil {
		b.Fatal(err)
	}
	for _, way := range []struct {
		name string
		open func(wasmhost.Config) (*wasmhost.Host, error)
	}{{"tiered", wasmhost.Open}, {"compiled", wasmhost.OpenCompiled}} {
		b.Run(way.name, func(b *testing.B) {
			f := &fixed{binary: hello}
			for b.Loop() {
				b.StopTimer()
				h, err := way.open(wasmhost.Config{Load: f.load})
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if _, err := h.Run(context.Background(), &grid.Guest{Module: f.cid(), Args: []string{"hello"}}); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				h.Close()
				b.StartTimer()
			}
		})
	}
}
