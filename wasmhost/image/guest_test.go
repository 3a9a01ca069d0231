package image_test

import (
	"context"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid/gridtest/toolchain"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/wasmhost/image"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ctx = context.Background()

// function is one of a hand-made module. It is exported under its name, if it has one.
type function struct {
	name            string
	params, results []byte
	code            []byte
}

// assembly is a module of sections that are given as they are, and of functions.
type assembly struct {
	functions []function
	imports   []byte // section bodies, nil for none
	tables    []byte
	memory    []byte
	globals   []byte
	exports   [][]byte // besides functions: name, kind, index
	start     []byte
	elements  []byte
	dataCount []byte
	data      []byte
}

func str(s string) []byte { return append(wasmbytes.U32(nil, uint32(len(s))), s...) }

func list(elements ...[]byte) []byte {
	return append(wasmbytes.U32(nil, uint32(len(elements))), wasmbytes.Code(elements...)...)
}

func export(name string, kind, index byte) []byte { return append(str(name), kind, index) }

func (a assembly) bytes() []byte {
	b := []byte("\x00asm\x01\x00\x00\x00")
	var types, declared, bodies [][]byte
	exports := a.exports
	for i, f := range a.functions {
		sig := append([]byte{0x60}, append(wasmbytes.U32(nil, uint32(len(f.params))), f.params...)...)
		types = append(types, append(sig, append(wasmbytes.U32(nil, uint32(len(f.results))), f.results...)...))
		declared = append(declared, []byte{byte(i)})
		body := append(append([]byte{0}, f.code...), 0x0b)
		bodies = append(bodies, append(wasmbytes.U32(nil, uint32(len(body))), body...))
		if f.name != "" {
			exports = append(exports[:len(exports):len(exports)], export(f.name, 0, byte(i)))
		}
	}
	section := func(id byte, body []byte) {
		if body != nil {
			b = wasmbytes.Section(b, id, body)
		}
	}
	if len(types) > 0 {
		section(1, list(types...))
	}
	section(2, a.imports)
	if len(types) > 0 {
		section(3, list(declared...))
	}
	section(4, a.tables)
	section(5, a.memory)
	section(6, a.globals)
	if len(exports) > 0 {
		section(7, list(exports...))
	}
	section(8, a.start)
	section(9, a.elements)
	section(12, a.dataCount)
	if len(bodies) > 0 {
		section(10, list(bodies...))
	}
	section(11, a.data)
	return b
}

const i32, i64 = wasmbytes.I32, wasmbytes.I64

var (
	get0 = []byte{0x20, 0}
	get1 = []byte{0x20, 1}
)

// pokes is a reactor whose state is read and written from outside: 2 pages of memory with data at 1000,
// a hidden counter that begins with 7, an exported one, and whatever _initialize does.
func pokes() assembly {
	return assembly{
		memory:  []byte{1, 1, 2, 200, 1}, // 2 to 200 pages
		globals: list([]byte{i32, 1, 0x41, 7, 0x0b}, []byte{i64, 1, 0x42, 9, 0x0b}, []byte{i32, 0, 0x41, 5, 0x0b}),
		exports: [][]byte{export("shown", 3, 1), export("constant", 3, 2), export("memory", 2, 0)},
		functions: []function{
			{"_initialize", nil, nil, wasmbytes.Code(
				wasmbytes.Const(70_000), wasmbytes.Const(1234), []byte{0x36, 2, 0}, // store
				[]byte{0x23, 0}, wasmbytes.Const(100), []byte{0x6a, 0x24, 0})}, // counter += 100
			{"poke", []byte{i32, i32}, nil, wasmbytes.Code(get0, get1, []byte{0x36, 2, 0})},
			{"peek", []byte{i32}, []byte{i32}, wasmbytes.Code(get0, []byte{0x28, 2, 0})},
			{"bump", nil, []byte{i32}, []byte{0x23, 0, 0x41, 1, 0x6a, 0x24, 0, 0x23, 0}},
			{"grow", []byte{i32}, []byte{i32}, wasmbytes.Code(get0, []byte{0x40, 0})},
			{"size", nil, []byte{i32}, []byte{0x3f, 0}},
			{"fill", []byte{i32, i32, i32}, nil, []byte{0x20, 0, 0x20, 1, 0x20, 2, 0xfc, 11, 0}},
			{"trap", nil, nil, []byte{0x00}},
		},
		data: list(wasmbytes.Code([]byte{0}, wasmbytes.Const(1000), []byte{0x0b}, str("hello"))),
	}
}

// lab is one module, its image, and what it takes to make instances.
type lab struct {
	rt     wazero.Runtime
	plain  wazero.CompiledModule
	code   wazero.CompiledModule // the same without data segments, or as it is
	store  *image.Store
	layout *image.Layout
	img    *image.Image
}

func openStore(t testing.TB, way image.Way) *image.Store {
	t.Helper()
	s, err := image.Open(image.Config{Way: way})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if way != image.Best && s.Way() != way {
		t.Skipf("no %v here: %s", way, s.Why())
	}
	return s
}

var config = wazero.NewModuleConfig().WithName("").WithStartFunctions().WithRandSource(zeroReader{})

type zeroReader struct{}

func (zeroReader) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// newLab compiles a module and makes an image of it once it has run _initialize and warm. The best ways
// go without data segments, so that both kinds of module are tested.
func newLab(t testing.TB, way image.Way, binary []byte, engine wazero.RuntimeConfig, warm func(api.Module)) *lab {
	t.Helper()
	l := &lab{store: openStore(t, way)}
	l.rt = wazero.NewRuntimeWithConfig(ctx, engine)
	t.Cleanup(func() { l.rt.Close(ctx) })
	wasi_snapshot_preview1.MustInstantiate(ctx, l.rt)
	binary, err := image.Expose(binary)
	if err != nil {
		t.Fatal(err)
	}
	if l.layout, err = image.Examine(binary); err != nil {
		t.Fatal(err)
	}
	if l.plain, err = l.rt.CompileModule(ctx, binary); err != nil {
		t.Fatal(err)
	}
	l.code = l.plain
	first := ctx
	if way <= image.Scan {
		stripped, mem, err := image.Strip(binary, 64<<20)
		if err != nil {
			t.Fatal(err)
		}
		if mem != nil {
			if l.code, err = l.rt.CompileModule(ctx, stripped); err != nil {
				t.Fatal(err)
			}
			img, err := l.store.New(mem)
			if err != nil {
				t.Fatal(err)
			}
			m, err := img.Memory(64 << 20)
			if err != nil {
				t.Fatal(err)
			}
			img.Close()
			defer m.Close()
			first = experimental.WithMemoryAllocator(ctx, m)
		}
	}
	mod := instantiate(t, first, l.rt, l.code)
	if warm != nil {
		warm(mod)
	}
	if l.img, err = l.store.Snapshot(mod, l.layout); err != nil {
		t.Fatal(err)
	}
	mod.Close(ctx)
	t.Cleanup(func() { l.img.Close() })
	return l
}

// fresh makes an instance the plain way.
func (l *lab) fresh(t testing.TB) api.Module { return instantiate(t, ctx, l.rt, l.plain) }

func instantiate(t testing.TB, ctx context.Context, rt wazero.Runtime, code wazero.CompiledModule) api.Module {
	t.Helper()
	mod, err := rt.InstantiateModule(ctx, code, config)
	if err != nil {
		t.Fatal(err)
	}
	if f := mod.ExportedFunction("_initialize"); f != nil {
		if _, err := f.Call(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return mod
}

// bind makes an instance of the image.
func (l *lab) bind(t testing.TB, limit uint64) *image.Instance {
	t.Helper()
	mem, err := l.img.Memory(limit)
	if err != nil {
		t.Fatal(err)
	}
	mod, err := l.rt.InstantiateModule(experimental.WithMemoryAllocator(ctx, mem), l.code, config)
	if err != nil {
		t.Fatal(err)
	}
	inst, err := image.Bind(mod, mem)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inst.Close() })
	return inst
}

func call(t testing.TB, mod api.Module, name string, args ...uint64) uint64 {
	t.Helper()
	res, err := mod.ExportedFunction(name).Call(ctx, args...)
	if err != nil {
		t.Fatalf("%s%v: %v", name, args, err)
	}
	if len(res) == 0 {
		return 0
	}
	return res[0]
}

var ways = []image.Way{image.Scan, image.Pagemap, image.Discard, image.Copy}

// reactor builds testdata/reactor.
func reactor(t testing.TB) []byte {
	t.Helper()
	if testing.Short() {
		t.Skip("builds a Go guest")
	}
	return toolchain.Go(t, "./testdata/reactor", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w")
}
