package wasmhost_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/toolchain"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/wasmhost"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi"
)

// BenchmarkCalls compares what goes over the border between guest and host with wazero, by the rules of BenchmarkVersus:
//
//	go test ./wasmhost -run '^$' -bench Calls -benchtime 11x
func BenchmarkCalls(b *testing.B) {
	b.Run("function", callsFunction) // one call of a host function; less is better
	b.Run("kv", callsKV)             // a get, with reading and closing what it gives; less is better
	b.Run("streams", callsStreams)   // from stdin to stdout; more is better
	b.Run("spawn", callsSpawn)       // spawning and awaiting a task that has ended, beside calling an exported function; less is better
	b.Run("guest", callsGuest)       // a guest that does nothing, beside calling an exported function; less is better
	b.Run("typed", callsTyped)       // a call of a function of the SDK, beside one in an instance that is kept as it is; less is better
	b.Run("cold", callsCold)         // the first such call of a module that nobody has seen; less is better
}

// loop is a module that does something n times.
func loop(n int64, imports []wasmbytes.Import, data []byte, body ...[]byte) []byte {
	again := slices.Concat(wasmbytes.Op(0x20, 0), wasmbytes.Const64(1), []byte{0x7c, 0x22, 0}, wasmbytes.Const64(n), []byte{0x53, 0x0d, 0, 0x0b}) // i64.add, local.tee, i64.lt_s, br_if
	code := slices.Concat([]byte{0x03, 0x40}, slices.Concat(body...), again)
	return wasmbytes.Program{Imports: imports, MinPages: 1, Data: data, Funcs: []wasmbytes.Func{{Locals: 1, Code: code}}}.Bytes()
}

func dropped(imports *[]wasmbytes.Import, calls ...do) (code []byte) {
	for _, d := range calls {
		code = append(append(code, invoke(imports, d)...), wasmbytes.Drop()...)
	}
	return code
}

// plainly gives a way to run a module in wazero, whose functions of the grid do nothing but what they are told to.
func plainly(b *testing.B, binary []byte, does func(name string, mem api.Memory, p []uint64)) func() error {
	ctx := context.Background()
	rt := wazero.NewRuntime(ctx)
	b.Cleanup(func() { rt.Close(ctx) })
	host, system := rt.NewHostModuleBuilder("grid"), rt.NewHostModuleBuilder("wasi_snapshot_preview1")
	for _, f := range gridImports() {
		host.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, mod api.Module, p []uint64) {
			does(f.Name, mod.Memory(), p)
			p[0] = 0
		}), f.Params, f.Results).Export(f.Name)
	}
	wasi.Export(system) // they are not called
	for _, m := range []wazero.HostModuleBuilder{host, system} {
		if _, err := m.Instantiate(ctx); err != nil {
			b.Fatal(err)
		}
	}
	mod, err := rt.InstantiateWithConfig(ctx, binary, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		b.Fatal(err)
	}
	f := mod.ExportedFunction("_start")
	return func() error {
		_, err := f.Call(ctx)
		return err
	}
}

// hosted gives a way to run a module in a host.
func hosted(b *testing.B, binary []byte, g func() *grid.Guest) func() error {
	f := &fixed{binary: binary}
	h := closing(b)(wasmhost.OpenCompiled(wasmhost.Config{Load: f.load}))
	id := f.cid()
	return func() error {
		guest := g()
		guest.Module = id
		out, err := h.Run(context.Background(), guest)
		if err == nil && (out.Fault != nil || out.Exit != 0) {
			err = fmt.Errorf("%+v", out)
		}
		return err
	}
}

func callsFunction(b *testing.B) {
	const n = 10_000
	data := showing()
	copy(data[req:], "\x01\x01\x00\x00\x00lines_read")
	for _, d := range []do{
		call(0, "progress", int64(1), int64(2)), call(0, "count", req+5, 10, int64(1)), call(0, "observe", req+5, 10, 1.0),
		call(0, "last_error", buf, bufLen, out), call(0, "kv", req, 1, out), call(0, "spawn", req, 1, out), call(0, "await", 0, out, out2), call(0, "http_open", req, 1, out),
	} {
		b.Run(d.name, func(b *testing.B) { // those that need more than numbers are refused
			imports := gridImports()
			binary := loop(n, imports, data, dropped(&imports, d))
			w := new(abiWorld)
			host := hosted(b, binary, func() *grid.Guest { return &grid.Guest{KV: w, Tasks: w, Progress: func(uint64, uint64) {}} })
			plain := plainly(b, binary, func(string, api.Memory, []uint64) {})
			ways := []way{{name: "host", run: host}, {name: "wazero", run: plain}}
			best := inTurns(b, ways...)
			report(b, "ns", ways, func(i int) float64 { return float64(best[i]) / n })
		})
	}
}

// mapOf has one value under every key.
type mapOf struct {
	grid.KV
	value []byte
}

func (m mapOf) Get(context.Context, string) (grid.Entry, error) {
	return grid.Entry{Key: "a", Value: m.value, Version: 1}, nil
}

func callsKV(b *testing.B) {
	const n = 1000
	for _, size := range []int{100, 8000} {
		b.Run(fmt.Sprintf("get/%dB", size), func(b *testing.B) {
			m := mapOf{value: bytes.Repeat([]byte("v"), size)}
			imports := gridImports()
			host := hosted(b, loop(n, imports, showing(), dropped(&imports, call(0, "kv", req, 6, out), read(4), shut)), func() *grid.Guest { return &grid.Guest{KV: m} })
			imports = gridImports()
			plain := plainly(b, loop(n, imports, showing(), dropped(&imports, call(0, "kv", req, 6, out))), func(_ string, mem api.Memory, p []uint64) {
				key, _ := mem.Read(uint32(p[0]), uint32(p[1]))
				e, _ := m.Get(context.Background(), string(key))
				mem.Write(buf, e.Value)
			})
			ways := []way{{name: "host", run: host}, {name: "wazero", run: plain}}
			best := inTurns(b, ways...)
			report(b, "ns", ways, func(i int) float64 { return float64(best[i]) / n })
		})
	}
}

func callsStreams(b *testing.B) {
	const size = 64 << 20
	data := bytes.Repeat([]byte("0123456789abcde\n"), size/16)
	for _, piece := range []int{4 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("%dKiB", piece>>10), func(b *testing.B) {
			// A vector at 0: address and length; how much there was is its next length.
			var imports []wasmbytes.Import
			load, store := wasmbytes.Op(0x28, 2, 0), wasmbytes.Op(0x36, 2, 0)
			code := slices.Concat([]byte{0x03, 0x40}, wasmbytes.Const(4), wasmbytes.Const(int32(piece)), store,
				dropped(&imports, call(0, "fd_read", 0, 0, 1, 8)), wasmbytes.Const(4), wasmbytes.Const(8), load, store,
				dropped(&imports, call(0, "fd_write", 1, 0, 1, 12)), wasmbytes.Const(8), load, []byte{0x0d, 0, 0x0b})
			binary := wasmbytes.Program{Imports: imports, MinPages: 2, Data: []byte(u32(4096) + u32(0)), Funcs: []wasmbytes.Func{{Code: code}}}.Bytes()
			host := hosted(b, binary, func() *grid.Guest { return &grid.Guest{Stdin: bytes.NewReader(data), Stdout: io.Discard} })
			m := newBare(b, binary)
			plain := func() error {
				return m.whole(wazero.NewModuleConfig().WithName("").WithStdin(bytes.NewReader(data)).WithStdout(io.Discard))
			}
			reportRates(b, "MB/s", size/1e6, way{name: "host", run: host}, way{name: "wazero", run: plain})
		})
	}
}

// readyTasks have ended as soon as they are spawned.
type readyTasks struct{ n uint32 }

func (t *readyTasks) Spawn(context.Context, grid.Call) (uint32, error) { t.n++; return t.n - 1, nil }
func (t *readyTasks) Ended(uint32) bool                                { return true }
func (t *readyTasks) Await(context.Context, uint32) (grid.Ending, error) {
	return grid.Ending{Stdout: io.NopCloser(strings.NewReader("42"))}, nil
}

func callsSpawn(b *testing.B) {
	const n = 1000
	data := showing()
	request := spawnRequest("f", "21")
	copy(data[req:], request)
	imports := gridImports()
	binary := loop(n, imports, data, dropped(&imports, call(0, "spawn", req, len(request), out), call(0, "await", 0, out, out2), read(4), shut))
	host := hosted(b, binary, func() *grid.Guest { return &grid.Guest{Tasks: new(readyTasks)} })
	plain := plainly(b, wasmbytes.Noop(), nil)
	ways := []way{{name: "host", run: host}, {name: "wazero", run: func() error {
		for range n {
			if err := plain(); err != nil {
				return err
			}
		}
		return nil
	}}}
	best := inTurns(b, ways...)
	ratio := report(b, "ns", ways, func(i int) float64 { return float64(best[i]) / n })
	b.ReportMetric(n/best[0].Seconds(), "tasks/s")
	b.ReportMetric(ratio, times)
}

// bareLibrary has an instance of a Go library in wazero alone: no fuel, no limits, and whatever calls leave behind is still
// there. Only its WASI is this package's, since wazero's closes an instance that exits.
type bareLibrary struct {
	rt    wazero.Runtime
	state wasi.State
	call  api.Function
}

func openLibrary(binary []byte) (*bareLibrary, error) {
	ctx := context.Background()
	l := &bareLibrary{rt: wazero.NewRuntime(ctx)}
	system, host := l.rt.NewHostModuleBuilder("wasi_snapshot_preview1"), l.rt.NewHostModuleBuilder("grid")
	wasi.Export(system)
	for _, f := range gridImports() {
		host.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(context.Context, api.Module, []uint64) {}), f.Params, f.Results).Export(f.Name)
	}
	for _, m := range []wazero.HostModuleBuilder{system, host} {
		if _, err := m.Instantiate(ctx); err != nil {
			return l, err
		}
	}
	l.state.Reset(wasi.Config{Env: []string{"GRID_ABI=2"}})
	mod, err := l.rt.InstantiateWithConfig(l.state.Context(ctx), binary, wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize"))
	if err == nil {
		l.call = mod.ExportedFunction("grid_call")
	}
	return l, err
}

func (l *bareLibrary) close() { l.rt.Close(context.Background()) }

func (l *bareLibrary) run(c typedCall) error {
	var stdout bytes.Buffer
	l.state.Reset(wasi.Config{Args: []string{"f"}, Env: c.env(), Stdin: strings.NewReader(c.in), Stdout: &stdout})
	_, err := l.call.Call(l.state.Context(context.Background()))
	if exit := (*sys.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 0 {
		err = nil
	}
	return c.check(stdout.String(), err)
}

// typedCall is a call of a function of testdata/calls, and what it gives.
type typedCall struct{ name, in, out string }

var typedCalls = []typedCall{{"add", `{"A":20,"B":22}`, `{"sum":42}`}, {"echo", "hello", "hello"}}

func (c typedCall) env() []string { return []string{"GRID_ABI=2", "GRID_FUNC=" + c.name} }

func (c typedCall) check(stdout string, err error) error {
	if err == nil && stdout != c.out {
		err = fmt.Errorf("it gave %q", stdout)
	}
	return err
}

func (c typedCall) host(h *wasmhost.Host, id cid.Cid) error {
	var stdout bytes.Buffer
	_, err := h.Run(context.Background(), &grid.Guest{Module: id, Func: c.name, Args: []string{"f"}, Env: c.env(), Stdin: strings.NewReader(c.in), Stdout: &stdout})
	return c.check(stdout.String(), err)
}

func callsTyped(b *testing.B) {
	f := &fixed{binary: toolchain.Go(b, "./testdata/calls", "-buildmode=c-shared")}
	h := closing(b)(wasmhost.OpenCompiled(wasmhost.Config{Load: f.load}))
	id := f.cid()
	l, err := openLibrary(f.binary)
	defer l.close()
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range typedCalls {
		b.Run(c.name, func(b *testing.B) {
			reportTimes(b, way{name: "host", run: func() error { return c.host(h, id) }}, way{name: "wazero", run: func() error { return l.run(c) }})
		})
	}
}

// callsCold loads, checks, compiles or interprets, initialises and calls; once with machine code on disk, too.
func callsCold(b *testing.B) {
	f := &fixed{binary: toolchain.Go(b, "./testdata/calls", "-buildmode=c-shared")}
	id, c := f.cid(), typedCalls[0]
	first := func(name, cache string) way {
		var h *wasmhost.Host
		return way{name: name, run: func() (err error) {
			if h, err = wasmhost.Open(wasmhost.Config{Load: f.load, CacheDir: cache, Finish: time.Minute}); err == nil {
				err = c.host(h, id)
			}
			return err
		}, before: func() error { // also lets go of the one before, which goes on compiling
			if h == nil {
				return nil
			}
			return h.Close()
		}}
	}
	host, cached := first("host", ""), first("cached", b.TempDir())
	defer host.before()
	defer cached.before()
	reportTimes(b, host, way{name: "wazero", run: func() error {
		l, err := openLibrary(f.binary)
		defer l.close()
		if err == nil {
			err = l.run(c)
		}
		return err
	}}, cached)
}

func callsGuest(b *testing.B) {
	imports := gridImports()
	for name, binary := range map[string][]byte{"bare": wasmbytes.Noop(), "with-functions": loop(1, imports, showing(), dropped(&imports, call(0, "count", req+5, 1, int64(1))))} {
		b.Run(name, func(b *testing.B) {
			host := hosted(b, binary, func() *grid.Guest { return &grid.Guest{Args: []string{"f"}, Env: []string{"GRID_ABI=2"}} })
			plain := plainly(b, binary, func(string, api.Memory, []uint64) {})
			reportTimes(b, way{name: "host", run: host}, way{name: "wazero", run: plain})
		})
	}
}
