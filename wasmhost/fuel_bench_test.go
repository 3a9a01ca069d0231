package wasmhost_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/wasmhost"
	"github.com/wasmgrid/wasmgrid/wasmhost/rewrite"
)

// runner runs a guest to its end.
type runner func(args, env []string, stdin io.Reader) error

// ways are three ways to run a module in new instances: by this package, on wazero as it comes, which
// cannot stop a guest, and on wazero with the kill switch that it has.
func ways(b *testing.B, binary []byte) map[string]runner {
	f := &fixed{binary: binary}
	h := closing(b)(wasmhost.OpenFresh(wasmhost.Config{Load: f.load}))
	if err := h.Prepare(b.Context(), f.cid()); err != nil {
		b.Fatal(err)
	}
	plain := func(rc wazero.RuntimeConfig) runner {
		ctx := context.Background()
		rt := wazero.NewRuntimeWithConfig(ctx, rc)
		b.Cleanup(func() { rt.Close(ctx) })
		wasi_snapshot_preview1.MustInstantiate(ctx, rt)
		code, err := rt.CompileModule(ctx, binary)
		if err != nil {
			b.Fatal(err)
		}
		return func(args, env []string, stdin io.Reader) error {
			ctx, cancel := context.WithTimeout(ctx, time.Hour)
			defer cancel()
			config := wazero.NewModuleConfig().WithName("").WithArgs(args...).WithStdin(stdin)
			for _, e := range env {
				name, value, _ := strings.Cut(e, "=")
				config = config.WithEnv(name, value)
			}
			mod, err := rt.InstantiateModule(ctx, code, config)
			if mod != nil {
				mod.Close(ctx)
			}
			if exit, ok := err.(interface{ ExitCode() uint32 }); ok && exit.ExitCode() == 0 {
				return nil
			}
			return err
		}
	}
	return map[string]runner{
		"fuel": func(args, env []string, stdin io.Reader) error {
			var stderr bytes.Buffer
			out, err := h.Run(b.Context(), &grid.Guest{Module: f.cid(), Args: args, Env: env, Stdin: stdin, Stderr: &stderr})
			if err == nil && (out.Fault != nil || out.Exit != 0) {
				err = fmt.Errorf("%+v: %s", out, stderr.String())
			}
			return err
		},
		"plain":     plain(wazero.NewRuntimeConfig()),
		"interrupt": plain(wazero.NewRuntimeConfig().WithCloseOnContextDone(true)),
	}
}

// corpus is English-like text: words of a vocabulary of 10,000, the frequent ones often.
func corpus(size int) string {
	r := rand.New(rand.NewPCG(1, 2))
	words := make([]string, 10_000)
	for i := range words {
		w := make([]byte, 1+r.IntN(4)+r.IntN(7))
		for j := range w {
			w[j] = 'a' + byte(r.IntN(26))
		}
		words[i] = string(w)
	}
	zipf := rand.NewZipf(r, 1.1, 3, uint64(len(words)-1))
	var text strings.Builder
	for text.Len() < size {
		text.WriteString(words[zipf.Uint64()])
		text.WriteByte(" \n"[r.IntN(10)/9])
	}
	return text.String()
}

// BenchmarkKill measures how long a spinning guest goes on when it should not, beside others that spin
// on every core.
func BenchmarkKill(b *testing.B) {
	var l loader
	h := open(b, wasmhost.Config{Load: l.load})
	stop := spinners(b, h, &l, wasmbytes.Loop())
	defer stop()
	g := grid.Guest{Module: l.add(wasmbytes.Loop())}
	var late, worst time.Duration
	for b.Loop() {
		ctx, cancel := context.WithCancel(b.Context())
		ended := make(chan time.Time, 1)
		go func() {
			guest := g
			_, _ = h.Run(ctx, &guest)
			ended <- time.Now()
		}()
		<-time.After(5 * time.Millisecond) // it is in its loop by then
		cancelled := time.Now()
		cancel()
		took := (<-ended).Sub(cancelled)
		late += took
		worst = max(worst, took)
	}
	b.ReportMetric(float64(late.Microseconds())/float64(b.N), "µs/kill")
	b.ReportMetric(float64(worst.Microseconds()), "µs/worst")
}

// BenchmarkStall measures by how much timers are late while guests that never end run on every core.
func BenchmarkStall(b *testing.B) {
	binary, err := kernels()
	if err != nil {
		b.Fatal(err)
	}
	for name, guest := range map[string]struct {
		binary []byte
		args   []string
	}{"loop": {wasmbytes.Loop(), nil}, "go": {binary, []string{"kernels", "sha256", "1000000"}}, "copy": {binary, []string{"kernels", "copy", "1000000"}}} {
		b.Run(name, func(b *testing.B) {
			var l loader
			h := closing(b)(wasmhost.OpenCompiled(wasmhost.Config{Load: l.load})) // not while it compiles
			if err := h.Prepare(b.Context(), l.add(guest.binary)); err != nil {
				b.Fatal(err)
			}
			stop := spinners(b, h, &l, guest.binary, guest.args...)
			defer stop()
			worst := time.Duration(0)
			for b.Loop() {
				worst = max(worst, stall(time.Second))
			}
			b.ReportMetric(float64(worst.Microseconds())/1000, "ms/worst")
		})
	}
}

// BenchmarkInstrument rewrites a Go program.
func BenchmarkInstrument(b *testing.B) {
	binary, err := kernels()
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(binary)))
	b.ReportAllocs()
	for b.Loop() {
		out, info, err := rewrite.Instrument(binary, rewrite.Options{Fuel: true, NaN: true})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(out))/float64(len(binary)), "size")
		b.ReportMetric(float64(info.Points), "points")
		b.ReportMetric(float64(info.NaNs), "NaNs")
	}
}
