package wasmhost

import (
	"context"
	"runtime"
	"slices"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wasmgrid/wasmgrid/sdk/abi"
	"github.com/wasmgrid/wasmgrid/wasmhost/extism"
	"github.com/wasmgrid/wasmgrid/wasmhost/guestkv"
	"github.com/wasmgrid/wasmgrid/wasmhost/guestnet"
	"github.com/wasmgrid/wasmgrid/wasmhost/guestreport"
	"github.com/wasmgrid/wasmgrid/wasmhost/guesttask"
	"github.com/wasmgrid/wasmgrid/wasmhost/module"
	"github.com/wasmgrid/wasmgrid/wasmhost/rewrite"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi/vfs"
)

// tier is one way to execute modules, by machine code or by interpretation, with the functions that
// guests import.
type tier struct {
	runtime wazero.Runtime
	wasi    api.Module
	grid    api.Module // what the grid offers besides
	extism  api.Module // what plug-ins for Extism import
	sampler api.Module // what profiled guests get their fuel from
}

// functions are what the grid offers to guests besides WASI.
func functions() []wasi.Function {
	return slices.Concat(guestnet.Functions(), guesttask.Functions(), guestkv.Functions(), guestreport.Functions(),
		[]wasi.Function{wasi.LastError()})
}

// compiles is whether wazero makes machine code for this processor. For others it interprets.
const compiles = runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64"

// openTier makes a runtime. Close it; nothing is left open on error.
func openTier(ctx context.Context, rc wazero.RuntimeConfig) (*tier, error) {
	t := &tier{runtime: wazero.NewRuntimeWithConfig(ctx, rc)}
	err := instantiateFuel(ctx, t.runtime)
	if err == nil {
		t.sampler, err = instantiateSampler(ctx, t.runtime)
	}
	if err == nil {
		t.wasi, err = t.instantiateWASI(ctx, nil)
	}
	if err == nil {
		b := t.runtime.NewHostModuleBuilder(abi.Module)
		wasi.ExportFunctions(b, functions())
		t.grid, err = b.Instantiate(ctx)
	}
	if err == nil {
		b := t.runtime.NewHostModuleBuilder(module.Extism)
		extism.Export(b)
		t.extism, err = b.Instantiate(ctx)
	}
	if err != nil {
		t.runtime.Close(ctx)
		return nil, err
	}
	return t, nil
}

// provides tells module.Check what guests may import.
func (t *tier) provides(mod, name string) (params, results []byte, ok bool) {
	from := t.wasi
	switch mod {
	case module.Preview1:
	case abi.Module:
		from = t.grid
	case module.Extism:
		from = t.extism
	default:
		return nil, nil, false
	}
	def, ok := from.ExportedFunctionDefinitions()[name]
	if !ok {
		return nil, nil, false
	}
	return def.ParamTypes(), def.ResultTypes(), true
}

// instantiateWASI makes the functions that guests import, and stubs for socket functions, which say
// that there are none. With stubs the module has no name, and is given to guests by an import resolver.
func (t *tier) instantiateWASI(ctx context.Context, stubs []module.Func) (api.Module, error) {
	b := t.runtime.NewHostModuleBuilder(module.Preview1)
	wasi.Export(b)
	for _, s := range stubs {
		b.NewFunctionBuilder().
			WithGoFunction(api.GoFunc(func(_ context.Context, stack []uint64) { stack[0] = uint64(vfs.ENOSYS) }), s.Params, s.Results).
			Export(s.Name)
	}
	code, err := b.Compile(ctx)
	if err != nil {
		return nil, err
	}
	name := module.Preview1
	if stubs != nil {
		name = ""
	}
	return t.runtime.InstantiateModule(ctx, code, wazero.NewModuleConfig().WithName(name))
}

// imports makes what only this module imports.
func (p *program) imports(ctx context.Context, info *module.Info) (err error) {
	if len(info.Stubs) > 0 {
		p.wasi, err = p.tier.instantiateWASI(ctx, info.Stubs)
	}
	return err
}

// resolve has what is instantiated get the module's own imports, and the sampler's if it is profiled.
func (p *program) resolve(ctx context.Context) context.Context {
	sampler := samplerOf(ctx)
	if p.wasi == nil && sampler == nil {
		return ctx
	}
	return experimental.WithImportResolver(ctx, func(name string) api.Module {
		switch {
		case name == module.Preview1 && p.wasi != nil:
			return p.wasi
		case name == rewrite.ImportModule && sampler != nil:
			return sampler
		}
		return nil // as usual, by name
	})
}
