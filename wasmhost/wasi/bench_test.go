package wasi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
)

// call is a call of function i with constants.
func call(i byte, params ...int32) (code []byte) {
	for _, p := range params {
		code = append(code, wasmbytes.Const(p)...)
	}
	return append(code, 0x10, i)
}

func drop(code []byte) []byte { return append(code, 0x1a) }

func i64(v byte) []byte { return []byte{0x42, v} }

// repeat runs code n times.
func repeat(n int32, code []byte) []byte {
	return slices.Concat(
		[]byte{0x03, 0x40}, code, // loop
		[]byte{0x20, 0}, wasmbytes.Const(1), []byte{0x6a, 0x22, 0}, // local 0, add 1, tee
		wasmbytes.Const(n), []byte{0x48, 0x0d, 0, 0x0b}) // less: again
}

func imported(name string, params string) wasmbytes.Import {
	m := wasmbytes.Import{Module: moduleName, Name: name, Results: []byte{wasmbytes.I32}}
	for _, p := range params {
		m.Params = append(m.Params, map[rune]byte{'i': wasmbytes.I32, 'I': wasmbytes.I64}[p])
	}
	return m
}

const calls = 10_000 // in a guest's loop

// The guests: memory begins with one vector (address 4096, length as asked) and holds a path at 64.
func vectorData(length int) string {
	b := make([]byte, 64)
	le.PutUint32(b, 4096)
	le.PutUint32(b[4:], uint32(length))
	return string(b) + "in/f"
}

var benchmarks = []struct {
	name   string
	calls  int // 0: the figure is for the whole run
	module wasmbytes.Module
}{
	{"fd_write/1B", calls, wasmbytes.Module{
		Imports: []wasmbytes.Import{imported("fd_write", "iiii")}, Data: vectorData(1),
		Code: repeat(calls, drop(call(0, 1, 0, 1, 32))), Locals: 1,
	}},
	{"fd_write/4KiB", calls, wasmbytes.Module{
		Imports: []wasmbytes.Import{imported("fd_write", "iiii")}, Data: vectorData(4096),
		Code: repeat(calls, drop(call(0, 1, 0, 1, 32))), Locals: 1,
	}},
	{"args_environ", calls, wasmbytes.Module{
		Imports: []wasmbytes.Import{imported("args_sizes_get", "ii"), imported("args_get", "ii"), imported("environ_sizes_get", "ii"), imported("environ_get", "ii")},
		Code:    repeat(calls, slices.Concat(drop(call(0, 0, 4)), drop(call(1, 4096, 8192)), drop(call(2, 0, 4)), drop(call(3, 4096, 8192)))), Locals: 1,
	}},
	{"open_read_close", calls, wasmbytes.Module{
		Imports: []wasmbytes.Import{imported("path_open", "iiiiiIIii"), imported("fd_read", "iiii"), imported("fd_close", "i")}, Data: vectorData(1024),
		Code: repeat(calls, slices.Concat(
			wasmbytes.Const(3), wasmbytes.Const(1), wasmbytes.Const(64), wasmbytes.Const(4), wasmbytes.Const(0), i64(2), i64(0), wasmbytes.Const(0), wasmbytes.Const(40), drop([]byte{0x10, 0}),
			drop(call(1, 4, 0, 1, 32)), drop(call(2, 4)))), Locals: 1,
	}},
	{"readdir_1000", 0, wasmbytes.Module{
		Imports: []wasmbytes.Import{imported("path_open", "iiiiiIIii"), imported("fd_readdir", "iiiIi"), imported("fd_close", "i")}, Data: vectorData(0)[:64] + "in/d",
		Code: slices.Concat(
			wasmbytes.Const(3), wasmbytes.Const(1), wasmbytes.Const(64), wasmbytes.Const(4), wasmbytes.Const(2), []byte{0x42, 0x80, 0x80, 1}, i64(0), wasmbytes.Const(0), wasmbytes.Const(40), drop([]byte{0x10, 0}),
			wasmbytes.Const(4), wasmbytes.Const(4096), wasmbytes.Const(60_000), i64(0), wasmbytes.Const(32), drop([]byte{0x10, 1}),
			drop(call(2, 4))),
	}},
	{"start", 0, wasmbytes.Module{Imports: []wasmbytes.Import{imported("fd_write", "iiii")}}},
}

// BenchmarkCalls compares the functions with wazero's own, called by the same guests.
func BenchmarkCalls(b *testing.B) {
	tree := fstest.MapFS{"f": {Data: make([]byte, 1000)}}
	for i := range 1000 {
		tree[fmt.Sprintf("d/%04d", i)] = &fstest.MapFile{}
	}
	args, env := []string{"program", "argument", "another"}, []string{"GRID_ABI=1", "KEY=value"}
	for _, bench := range benchmarks {
		bench.module.MinPages = 2
		binary := bench.module.Bytes()
		measure := func(b *testing.B, export func(wazero.HostModuleBuilder), task func(wazero.Runtime, wazero.CompiledModule) error) {
			ctx := b.Context()
			r := wazero.NewRuntime(ctx)
			defer r.Close(ctx)
			host := r.NewHostModuleBuilder(moduleName)
			export(host)
			if _, err := host.Instantiate(ctx); err != nil {
				b.Fatal(err)
			}
			code, err := r.CompileModule(ctx, binary)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := task(r, code); err != nil {
					b.Fatal(err)
				}
			}
			if bench.calls > 0 {
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*bench.calls), "ns/round")
			}
		}
		b.Run(bench.name+"/ours", func(b *testing.B) {
			s := new(State)
			cfg := Config{Args: args, Env: env, Stdout: io.Discard, Mounts: map[string]fs.FS{"/in": tree}, Bytes: 1 << 20, Files: 10}
			config := wazero.NewModuleConfig().WithName("").WithStartFunctions().WithRandSource(zeros{})
			measure(b, Export, func(r wazero.Runtime, code wazero.CompiledModule) error {
				s.Reset(cfg)
				ctx := s.Context(context.Background())
				mod, err := r.InstantiateModule(ctx, code, config)
				if err != nil {
					return err
				}
				defer mod.Close(ctx)
				_, err = mod.ExportedFunction("_start").Call(ctx)
				return ignoreExit(err)
			})
		})
		b.Run(bench.name+"/wazero", func(b *testing.B) {
			config := wazero.NewModuleConfig().WithName("").WithStartFunctions().WithArgs(args...).WithEnv("GRID_ABI", "1").WithEnv("KEY", "value").
				WithStdout(io.Discard).WithRandSource(zeros{}).WithFSConfig(wazero.NewFSConfig().WithFSMount(fs.FS(inFS{tree}), "/"))
			export := func(b wazero.HostModuleBuilder) { wasi_snapshot_preview1.NewFunctionExporter().ExportFunctions(b) }
			measure(b, export, func(r wazero.Runtime, code wazero.CompiledModule) error {
				ctx := context.Background()
				mod, err := r.InstantiateModule(ctx, code, config)
				if err != nil {
					return err
				}
				defer mod.Close(ctx)
				_, err = mod.ExportedFunction("_start").Call(ctx)
				return ignoreExit(err)
			})
		})
	}
}

func ignoreExit(err error) error {
	var exit *sys.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// inFS shows a tree below in.
type inFS struct{ tree fs.FS }

func (f inFS) Open(name string) (fs.File, error) {
	if len(name) > 3 && name[:3] == "in/" {
		return f.tree.Open(name[3:])
	}
	return f.tree.Open(name)
}

// The price of finding the state, and of what every call begins with.
func BenchmarkOverhead(b *testing.B) {
	g := newGuest(b, Config{})
	stack := []uint64{0}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	type key struct{}
	for name, ctx := range map[string]context.Context{
		"direct": g.state.Context(ctx), "wrapped": context.WithValue(g.state.Context(ctx), key{}, 1),
	} {
		b.Run(name, func(b *testing.B) {
			h := g.calls["sched_yield"]
			for b.Loop() {
				h.Call(ctx, g.mod, stack)
			}
		})
	}
}

var _ api.GoModuleFunction = handler(nil)
