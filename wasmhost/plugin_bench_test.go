package wasmhost_test

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/wasmhost"
	"github.com/wasmgrid/wasmgrid/wasmhost/extism"
)

// BenchmarkPlugin is whole calls of plug-ins for Extism, each a task of its own: of a function that does nothing, beside a
// plain wazero's call of the same in an instance that is there and in a new one; and of a mebibyte that comes in and goes
// out again, by a plug-in of a few instructions and by one of the Go PDK.
func BenchmarkPlugin(b *testing.B) {
	f := &fixed{binary: wasmbytes.Plugin()}
	h := open(b, wasmhost.Config{Load: f.load})
	if _, err := h.Inspect(b.Context(), f.cid(), true); err != nil {
		b.Fatal(err)
	}
	run := func(b *testing.B, h *wasmhost.Host, f *fixed, function string, input []byte) {
		b.ReportAllocs()
		b.SetBytes(int64(len(input)))
		id := f.cid()
		for b.Loop() {
			g := grid.Guest{Module: id, Func: function, Stdin: bytes.NewReader(input), Stdout: io.Discard}
			if out, err := h.Run(b.Context(), &g); err != nil || out.Fault != nil || out.Exit != 0 {
				b.Fatal(out, err)
			}
		}
	}
	b.Run("rest/grid", func(b *testing.B) { run(b, h, f, "rest", nil) })
	ctx := context.Background()
	rt := wazero.NewRuntime(ctx)
	defer rt.Close(ctx)
	builder := rt.NewHostModuleBuilder("extism:host/env")
	extism.Export(builder)
	if _, err := builder.Instantiate(ctx); err != nil {
		b.Fatal(err)
	}
	code, err := rt.CompileModule(ctx, f.binary)
	if err != nil {
		b.Fatal(err)
	}
	config := wazero.NewModuleConfig().WithName("").WithRandSource(bytes.NewReader(nil))
	b.Run("rest/wazero", func(b *testing.B) {
		mod, err := rt.InstantiateModule(ctx, code, config)
		if err != nil {
			b.Fatal(err)
		}
		defer mod.Close(ctx)
		rest := mod.ExportedFunction("rest")
		for b.Loop() {
			if _, err := rest.Call(ctx); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("rest/wazero, new instance", func(b *testing.B) {
		for b.Loop() {
			mod, err := rt.InstantiateModule(ctx, code, config)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := mod.ExportedFunction("rest").Call(ctx); err != nil {
				b.Fatal(err)
			}
			mod.Close(ctx)
		}
	})
	mebibyte := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	b.Run("echo/small", func(b *testing.B) { run(b, h, f, "echo", mebibyte) })
	built := &fixed{binary: goPlugin(b)}
	large := open(b, wasmhost.Config{Load: built.load})
	if _, err := large.Inspect(b.Context(), built.cid(), true); err != nil {
		b.Fatal(err)
	}
	b.Run("rest/Go", func(b *testing.B) { run(b, large, built, "small", nil) })
	b.Run("echo/Go", func(b *testing.B) { run(b, large, built, "echo", mebibyte) })
}
