package extism

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/wasmhost/guestnet"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi"
)

// plugin calls the functions as a plug-in does that has one page of memory.
type plugin struct {
	State
	wasi   wasi.State
	net    guestnet.State
	mod    api.Module
	ctx    context.Context
	memory moving
	stderr strings.Builder
	linear uint64 // the limit of its memory
	fuel   uint64
}

// moving is memory that moves whenever it grows.
type moving struct{ b []byte }

func (s *moving) Reallocate(size uint64) []byte {
	s.b = append(make([]byte, 0, size), s.b...)[:size]
	return s.b
}

// Charge implements wasi.Meter.
func (p *plugin) Charge(_ context.Context, units uint64) { p.fuel += units }

const limit = 4 << 20

// newPlugin makes a plug-in with that input; opts change what it is given.
func newPlugin(tb testing.TB, input io.Reader, opts ...func(*Config, *wasi.Config)) *plugin {
	tb.Helper()
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	tb.Cleanup(func() { rt.Close(ctx) })
	mod, err := rt.InstantiateWithConfig(ctx, wasmbytes.Noop(), wazero.NewModuleConfig().WithStartFunctions())
	if err != nil {
		tb.Fatal(err)
	}
	p := &plugin{mod: mod}
	w := wasi.Config{Stdin: input, Meter: p}
	cfg := Config{WASI: &p.wasi, Stderr: &p.stderr, Net: &p.net, Limit: limit, Memory: &p.memory, Linear: func(n uint64) { p.linear = n }}
	for _, opt := range opts {
		opt(&cfg, &w)
	}
	p.wasi.Reset(w)
	p.Reset(cfg)
	p.ctx = p.Context(p.wasi.Context(ctx))
	return p
}

// try calls a function; err is how it ended the plug-in.
func (p *plugin) try(name string, args ...uint64) (result uint64, err error) {
	for _, f := range functions() {
		if f.name != name {
			continue
		}
		if len(args) != len(f.params) {
			panic(fmt.Sprintf("%s takes %d parameters", name, len(f.params)))
		}
		defer func() {
			if r := recover(); r != nil {
				err = r.(error)
			}
		}()
		stack := [4]uint64{}
		copy(stack[:], args)
		f.Call(p.ctx, p.mod, stack[:])
		if f.result == "" {
			return 0, nil
		}
		return stack[0], nil
	}
	panic("no function " + name)
}

// call is try for what does not end the plug-in.
func (p *plugin) call(tb testing.TB, name string, args ...uint64) uint64 {
	tb.Helper()
	r, err := p.try(name, args...)
	if err != nil {
		tb.Fatalf("%s%d: %v", name, args, err)
	}
	return r
}

// traps calls what is to end the plug-in with a sentence that has text in it.
func (p *plugin) traps(tb testing.TB, text, name string, args ...uint64) {
	tb.Helper()
	r, err := p.try(name, args...)
	if _, exits := err.(*sys.ExitError); err == nil || exits || !strings.Contains(err.Error(), text) {
		tb.Errorf("%s%d gives %d, %v; want a trap with %q", name, args, r, err, text)
	}
}

// put makes a block of text.
func (p *plugin) put(tb testing.TB, text string) uint64 {
	tb.Helper()
	off := p.call(tb, "alloc", uint64(len(text)))
	for i := range len(text) {
		p.call(tb, "store_u8", off+uint64(i), uint64(text[i]))
	}
	return off
}

// get is the content of a block.
func (p *plugin) get(tb testing.TB, off uint64) string {
	tb.Helper()
	b := make([]byte, p.call(tb, "length", off))
	for i := range b {
		b[i] = byte(p.call(tb, "load_u8", off+uint64(i)))
	}
	return string(b)
}
