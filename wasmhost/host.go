package wasmhost

import (
	"context"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sync/semaphore"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/wasmhost/image"
	"github.com/wasmgrid/wasmgrid/wasmhost/module"
	"github.com/wasmgrid/wasmgrid/wasmhost/rewrite"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi/vfs"
)

// Config says how to run guests. Load is required.
type Config struct {
	// Load gives a module's bytes, which the host does not change. It may be called from several
	// goroutines, once for each module that is not compiled yet.
	Load func(ctx context.Context, module cid.Cid) ([]byte, error)
	// CacheDir keeps compiled code between runs of the process; about four times a module's size
	// each. It is created, and closed to other users. "" keeps nothing.
	CacheDir string
	// MemoryTotal is how many bytes of linear memory all running guests may have together, counted
	// as the most that each may grow to. A guest that does not fit now waits. 0 means no bound.
	// Idle instances, which wait for the next guest of their module, are not counted; those have as much
	// again at most, and never more than 256 MiB.
	MemoryTotal uint64
	// Logger gets what an operator should know; nil discards it.
	Logger *slog.Logger

	way image.Way // to wish for; beyond the last one instances are always fresh
}

// Host is a [grid.Engine].
type Host struct {
	log     *slog.Logger
	cache   wazero.CompilationCache // nil without CacheDir
	runtime wazero.Runtime
	wasi    api.Module
	// instance is how guests are instantiated: without a name, so that they do not clash, and without
	// anything of wazero's own WASI. A random source is given only because making one takes time.
	instance wazero.ModuleConfig
	modules  *modules
	memory   *memoryPool
	total    uint64
	room     *semaphore.Weighted // of total; nil without a bound
	idle     sync.Pool           // of *sandbox

	way    image.Way
	images *image.Store // nil when no instance is reused
	fresh  string       // why
	pool   *image.Pool[*warm]

	mu      sync.RWMutex // of closed, and so that none is added to running after that
	closed  bool
	running sync.WaitGroup
	end     sync.Once
}

// Open makes a host.
func Open(cfg Config) (*Host, error) { return open(cfg, wazero.NewRuntimeConfig()) }

func open(cfg Config, rc wazero.RuntimeConfig) (*Host, error) {
	if cfg.Load == nil {
		return nil, grid.Errorf(grid.Invalid, "wasmhost: Config.Load is missing")
	}
	h := &Host{log: cfg.Logger, memory: newMemoryPool(2 * runtime.GOMAXPROCS(0)), total: cfg.MemoryTotal, way: cfg.way}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if h.total > 0 {
		h.room = semaphore.NewWeighted(int64(min(h.total, 1<<62)))
	}
	h.instance = wazero.NewModuleConfig().WithName("").WithStartFunctions().WithRandSource(strings.NewReader(""))
	rc = rc.WithDebugInfoEnabled(false)
	if cfg.CacheDir != "" {
		var err error
		if h.cache, err = openCache(cfg.CacheDir); err != nil {
			return nil, grid.Errorf(grid.Internal, "wasmhost: open the compilation cache: %w", err).
				Hint("give a folder that this user may write to, or none")
		}
		rc = rc.WithCompilationCache(h.cache)
	}
	ctx := context.Background()
	h.runtime = wazero.NewRuntimeWithConfig(ctx, rc)
	err := h.openPool()
	if err == nil {
		err = instantiateFuel(ctx, h.runtime)
	}
	if err == nil {
		h.wasi, err = h.instantiateWASI(ctx, nil)
	}
	if err != nil {
		h.shut()
		return nil, grid.Errorf(grid.Internal, "wasmhost: %w", err)
	}
	h.modules = newModules(h.compile(cfg.Load), h.discard)
	h.idle.New = func() any { return newSandbox(h.memory) }
	return h, nil
}

// openCache makes the folder private before anything is read from it.
func openCache(dir string) (wazero.CompilationCache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, err
	}
	return wazero.NewCompilationCacheWithDir(dir)
}

// Prepare implements [grid.Engine].
func (h *Host) Prepare(ctx context.Context, id cid.Cid) error {
	if err := h.enter(); err != nil {
		return err
	}
	defer h.running.Done()
	m, err := h.modules.acquire(ctx, id)
	if err != nil {
		return err
	}
	h.modules.release(m)
	return nil
}

// Run implements [grid.Engine]. Limits that are zero get their defaults.
func (h *Host) Run(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
	if err := h.enter(); err != nil {
		return grid.Outcome{}, err
	}
	defer h.running.Done()
	m, err := h.modules.acquire(ctx, g.Module)
	if err != nil {
		return grid.Outcome{}, err
	}
	defer h.modules.release(m)

	limits := withDefaults(g.Limits)
	if m.info.MinMemory > limits.Memory {
		return grid.Outcome{Fault: &grid.Fault{Code: grid.Limit, Message: sprintf(
			"needs %d bytes of memory to start, its limit is %d", m.info.MinMemory, limits.Memory)}}, nil
	}
	limits.Memory = min(limits.Memory, m.info.MaxMemory)
	if h.room != nil {
		if limits.Memory > h.total {
			return grid.Outcome{}, grid.Errorf(grid.Limit, "wasmhost: a guest may grow to %d bytes, this node gives all guests together %d", limits.Memory, h.total).
				Hint("lower the job's memory limit, or raise the node's")
		}
		if err := h.room.Acquire(ctx, int64(limits.Memory)); err != nil {
			return grid.Outcome{}, ended(ctx, "wait for memory")
		}
		defer h.room.Release(int64(limits.Memory))
	}
	s := h.idle.Get().(*sandbox)
	out, err := s.run(ctx, h, m, g, limits)
	s.reset()
	h.idle.Put(s)
	return out, err
}

func withDefaults(l grid.Limits) grid.Limits {
	d := grid.DefaultLimits
	if l.Wall == 0 {
		l.Wall = d.Wall
	}
	if l.Memory == 0 {
		l.Memory = d.Memory
	}
	if l.Scratch == 0 {
		l.Scratch = d.Scratch
	}
	if l.Files == 0 {
		l.Files = d.Files
	}
	return l
}

// Close implements [grid.Engine]. It may be called twice. Compilations that nobody waits for any more
// are given up; afterwards Prepare and Run are refused.
func (h *Host) Close() error {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.running.Wait()
	var err error
	h.end.Do(func() {
		h.modules.close()
		err = h.shut()
	})
	return err
}

func (h *Host) shut() error {
	ctx := context.Background()
	err := h.closePool()
	if e := h.runtime.Close(ctx); err == nil {
		err = e
	}
	if h.cache != nil {
		if e := h.cache.Close(ctx); err == nil {
			err = e
		}
	}
	h.memory.close()
	return err
}

func (h *Host) enter() error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.closed {
		return grid.Errorf(grid.Unavailable, "wasmhost: the engine is closed")
	}
	h.running.Add(1)
	return nil
}

// ended is the error for a context that is over.
func ended(ctx context.Context, doing string) error {
	err := context.Cause(ctx)
	code := grid.CodeOf(err)
	if code == grid.Unknown {
		code = grid.Canceled
	}
	return grid.Errorf(code, "wasmhost: %s: %w", doing, err)
}

// compile is what it takes to make a module ready.
func (h *Host) compile(load func(context.Context, cid.Cid) ([]byte, error)) compileFunc {
	return func(ctx context.Context, id cid.Cid) (*compiled, error) {
		binary, err := load(ctx, id)
		if err != nil {
			return nil, grid.Errorf(grid.CodeOf(err), "wasmhost: load module %s: %w", id, err)
		}
		info, err := module.Check(binary, h.provides)
		if err != nil {
			return nil, grid.Errorf(grid.CodeOf(err), "wasmhost: module %s: %w", id, err)
		}
		began := time.Now()
		binary, _, err = rewrite.Instrument(info.Binary, rewrite.Options{Fuel: true})
		if err != nil {
			return nil, grid.Errorf(grid.CodeOf(err), "wasmhost: module %s: %w", id, err)
		}
		// With two workers or more, compiling obeys its context.
		ctx = experimental.WithCompilationWorkers(ctx, max(2, runtime.GOMAXPROCS(0)))
		m := &compiled{id: id, info: info, size: len(binary)}
		m.info.Binary = nil
		if len(info.Stubs) > 0 {
			if m.wasi, err = h.instantiateWASI(ctx, info.Stubs); err != nil {
				return nil, grid.Errorf(grid.Internal, "wasmhost: module %s: %w", id, err)
			}
		}
		if err := h.build(ctx, m, binary); err != nil {
			if m.wasi != nil {
				m.wasi.Close(context.Background())
			}
			if ctx.Err() != nil {
				return nil, ended(ctx, sprintf("compile module %s", id))
			}
			return nil, grid.Errorf(grid.Invalid, "wasmhost: module %s does not compile: %w", id, err).
				Hint("rebuild it for Wasm 2.0 without experimental features")
		}
		h.log.Debug("compiled a module", "module", id, "bytes", len(binary), "took", time.Since(began), "instances", m.way(), "why", m.why)
		return m, nil
	}
}

// provides tells module.Check what guests may import.
func (h *Host) provides(mod, name string) (params, results []byte, ok bool) {
	if mod != module.Preview1 {
		return nil, nil, false
	}
	def, ok := h.wasi.ExportedFunctionDefinitions()[name]
	if !ok {
		return nil, nil, false
	}
	return def.ParamTypes(), def.ResultTypes(), true
}

// instantiateWASI makes the functions that guests import, and stubs for socket functions, which say
// that there are none. With stubs the module has no name, and is given to guests by an import resolver.
func (h *Host) instantiateWASI(ctx context.Context, stubs []module.Func) (api.Module, error) {
	b := h.runtime.NewHostModuleBuilder(module.Preview1)
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
	return h.runtime.InstantiateModule(ctx, code, wazero.NewModuleConfig().WithName(name))
}
