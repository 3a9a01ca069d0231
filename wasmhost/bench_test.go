package wasmhost_test

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/wasmhost"
)

var goHello = sync.OnceValues(func() ([]byte, error) {
	return gridtest.BuildGuest([]byte("package main\n\nfunc main() { println(\"hello\") }\n"))
})

// BenchmarkRun measures whole guests, through this package and on wazero as it comes, which has no
// kill switch, no files and no limits.
func BenchmarkRun(b *testing.B) {
	hello, err := goHello()
	if err != nil {
		b.Fatal(err)
	}
	for _, module := range []struct {
		name   string
		binary []byte
	}{{"tiny", wasmbytes.Noop()}, {"go", hello}} {
		b.Run(module.name+"/host", func(b *testing.B) {
			f := &fixed{binary: module.binary}
			h := open(b, wasmhost.Config{Load: f.load})
			g := grid.Guest{Module: f.cid(), Args: []string{"prog"}, Env: []string{"GRID_ABI=1"}, Stdout: io.Discard, Stderr: io.Discard}
			inParallel(b, func(ctx context.Context) error {
				guest := g
				_, err := h.Run(ctx, &guest)
				return err
			})
		})
		b.Run(module.name+"/wazero", func(b *testing.B) {
			ctx := context.Background()
			rt := wazero.NewRuntime(ctx)
			defer rt.Close(ctx)
			wasi_snapshot_preview1.MustInstantiate(ctx, rt)
			code, err := rt.CompileModule(ctx, module.binary)
			if err != nil {
				b.Fatal(err)
			}
			config := wazero.NewModuleConfig().WithName("").WithArgs("prog").WithEnv("GRID_ABI", "1")
			inParallel(b, func(ctx context.Context) error {
				mod, err := rt.InstantiateModule(ctx, code, config)
				if err != nil {
					return nil // exit code 0 is an error there
				}
				return mod.Close(ctx)
			})
		})
	}
}

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
