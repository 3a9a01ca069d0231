package extism

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wasmgrid/wasmgrid/grid/gridtest/toolchain"
)

// To a plug-in that keeps to the rules, the kernel is like Extism's own, but for where blocks are.
func TestLikeExtismsKernel(t *testing.T) {
	dir := toolchain.NestedDir(t, "../testdata/extism/oracle", "github.com/extism/go-sdk")
	binary, err := os.ReadFile(filepath.Join(dir, "extism-runtime.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer rt.Close(ctx)
	kernel, err := rt.Instantiate(ctx, binary)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range functions() { // those of the kernel are of the same types
		k := kernel.ExportedFunction(f.name)
		if k == nil {
			continue
		}
		types := func(list []api.ValueType) (s string) {
			for _, v := range list {
				s += map[api.ValueType]string{api.ValueTypeI32: "i", api.ValueTypeI64: "I"}[v]
			}
			return s
		}
		if d := k.Definition(); types(d.ParamTypes()) != f.params || types(d.ResultTypes()) != f.result {
			t.Errorf("%s takes %q and gives %q", f.name, types(d.ParamTypes()), types(d.ResultTypes()))
		}
	}
	theirs := func(name string, args ...uint64) uint64 {
		r, err := kernel.ExportedFunction(name).Call(ctx, args...)
		if err != nil {
			t.Fatal(err)
		}
		if len(r) == 0 {
			return 0
		}
		return r[0]
	}

	rng := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		input := strings.Repeat("an input of some length ", rng.IntN(10))
		p := newPlugin(t, strings.NewReader(input))
		theirs("reset")
		if n := uint64(len(input)); n > 0 {
			in := theirs("alloc", n)
			if !kernel.Memory().WriteString(uint32(in), input) {
				t.Fatal("the input does not fit")
			}
			theirs("input_set", in, n)
		}
		type pair struct{ ours, theirs, n uint64 }
		var blocks []pair
		same := func(name string, ours, theirs uint64) {
			t.Helper()
			if ours != theirs {
				t.Fatalf("%s gives %#x, by Extism's kernel %#x", name, ours, theirs)
			}
		}
		both := func(name string, args ...uint64) {
			t.Helper()
			same(name, p.call(t, name, args...), theirs(name, args...))
		}
		both("input_length")
		same("length of the input", p.call(t, "length", p.call(t, "input_offset")), theirs("length", theirs("input_offset")))
		for range 500 {
			k := rng.IntN(len(blocks) + 1)
			switch op := rng.IntN(10); {
			case op < 3 || k == len(blocks):
				n := uint64(rng.IntN(300))
				b := pair{p.call(t, "alloc", n), theirs("alloc", n), n}
				if (b.ours == 0) != (b.theirs == 0) {
					t.Fatalf("%d bytes are at %d, or %d", n, b.ours, b.theirs)
				}
				if n > 0 {
					for i := range n { // what was there before is not the same
						p.call(t, "store_u8", b.ours+i, i)
						theirs("store_u8", b.theirs+i, i)
					}
					blocks = append(blocks, b)
				}
			case op == 3:
				p.call(t, "free", blocks[k].ours)
				theirs("free", blocks[k].theirs)
				same("length of what is free", p.call(t, "length", blocks[k].ours), theirs("length", blocks[k].theirs))
				blocks = append(blocks[:k], blocks[k+1:]...)
			default:
				b := blocks[k]
				same("length", p.call(t, "length", b.ours), theirs("length", b.theirs))
				same("length_unsafe", p.call(t, "length_unsafe", b.ours), theirs("length_unsafe", b.theirs))
				at, v := uint64(rng.IntN(int(b.n))), rng.Uint64()
				p.call(t, "store_u8", b.ours+at, v&0xff)
				theirs("store_u8", b.theirs+at, v&0xff)
				if b.n >= 8 {
					at = uint64(rng.IntN(int(b.n) - 7))
					p.call(t, "store_u64", b.ours+at, v)
					theirs("store_u64", b.theirs+at, v)
					same("load_u64", p.call(t, "load_u64", b.ours+at/2), theirs("load_u64", b.theirs+at/2))
				}
				same("load_u8", p.call(t, "load_u8", b.ours+at), theirs("load_u8", b.theirs+at))
				if at := uint64(rng.IntN(len(input) + 20)); len(input) > 0 {
					both("input_load_u8", at)
					if at+8 <= uint64(len(input)) {
						both("input_load_u64", at)
					}
				}
			}
		}
	}
}
