package wasmhost

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sync/semaphore"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/wasmhost/guestnet"
	"github.com/wasmgrid/wasmgrid/wasmhost/image"
	"github.com/wasmgrid/wasmgrid/wasmhost/module"
	"github.com/wasmgrid/wasmgrid/wasmhost/rewrite"
)

// Config says how to run guests. Load is required.
type Config struct {
	// Load gives a module's bytes, which the host does not change. It may be called from several
	// goroutines, once for each module that is not compiled yet.
	Load func(ctx context.Context, module cid.Cid) ([]byte, error)
	// CacheDir keeps compiled code between runs of the process; about four times a module's size
	// each. It is created, and closed to other users; one that others may write to is refused. Any
	// number of processes may share it. "" keeps nothing.
	CacheDir string
	// CacheTotal is how many bytes CacheDir may take, less what is being compiled; what was used
	// longest ago is removed. 0 means 1 GiB.
	CacheTotal uint64
	// MemoryTotal is how many bytes of linear memory all running guests may have together, counted
	// as the most that each may grow to. A guest that does not fit now waits. 0 means no bound.
	// Idle instances, which wait for the next guest of their module, are not counted; those have as much
	// again at most, and never more than 256 MiB.
	MemoryTotal uint64
	// Finish is how long Close waits for the machine code of modules that were interpreted meanwhile, when it will
	// be kept in CacheDir. A short-lived process should wait some seconds, or its programs are never compiled.
	Finish time.Duration
	// Logger gets what an operator should know; nil discards it.
	Logger *slog.Logger

	// Net lets guests send the requests that they were granted, under its policy. nil: none may.
	Net *guestnet.Net

	way       image.Way // to wish for; beyond the last one instances are always fresh
	interpret tiering
}

// tiering is whether modules are interpreted.
type tiering byte

const (
	whileCompiling tiering = iota
	never
	always // in place of compiling
)

// Host is a [grid.Engine].
type Host struct {
	log    *slog.Logger
	cache  *cache // nil without CacheDir, or when that cannot be written to
	native *tier
	net    *guestnet.Net
	quick  *tier               // to interpret modules while they compile; nil: they are not
	trials *semaphore.Weighted // guests that are interpreted
	// instance is how guests are instantiated: without a name, so that they do not clash, and without
	// anything of wazero's own WASI. A random source is given only because making one takes time.
	instance wazero.ModuleConfig
	modules  *modules
	memory   *memoryPool
	total    uint64
	room     *semaphore.Weighted // of total; nil without a bound
	parked   atomic.Int64        // bytes of guests that wait for others and have given back their room
	idle     sync.Pool           // of *sandbox

	way    image.Way
	images *image.Store // nil when no instance is reused
	fresh  string       // why
	slow   string       // why only reactors are, for whom it saves their initialisation; "" for all
	pool   *image.Pool[*warm]

	stats stats

	mu      sync.RWMutex // of closed, and so that none is added to running after that
	closed  bool
	running sync.WaitGroup
	end     sync.Once
}

// Open makes a host.
func Open(cfg Config) (*Host, error) {
	if cfg.Load == nil {
		return nil, grid.Errorf(grid.Invalid, "wasmhost: Config.Load is missing")
	}
	h := &Host{log: cfg.Logger, memory: newMemoryPool(2 * runtime.GOMAXPROCS(0)), total: cfg.MemoryTotal, way: cfg.way, net: cfg.Net}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if h.total > 0 {
		h.room = semaphore.NewWeighted(int64(min(h.total, 1<<62)))
	}
	h.instance = wazero.NewModuleConfig().WithName("").WithStartFunctions().WithRandSource(strings.NewReader(""))
	if err := h.open(cfg); err != nil {
		h.shut()
		return nil, grid.Errorf(grid.CodeOf(err), "wasmhost: %w", err)
	}
	m := maker{prepare: h.prepare(cfg.Load), compile: h.compile, discard: h.discard}
	if h.quick != nil {
		m.interpret = h.interpret
	}
	if h.cache != nil {
		m.finish = cfg.Finish
	}
	h.modules = newModules(m)
	h.idle.New = func() any { return newSandbox(h.memory) }
	return h, nil
}

// open makes what closing takes down again.
func (h *Host) open(cfg Config) (err error) {
	ctx := context.Background()
	rc := wazero.NewRuntimeConfig().WithDebugInfoEnabled(false)
	interpreter := wazero.NewRuntimeConfigInterpreter().WithDebugInfoEnabled(false)
	if cfg.interpret == always || !compiles {
		rc = interpreter
	} else if cfg.interpret == whileCompiling {
		// One core is left to the compiler.
		h.trials = semaphore.NewWeighted(int64(max(1, runtime.GOMAXPROCS(0)-1)))
		if h.quick, err = openTier(ctx, interpreter); err != nil {
			return err
		}
	}
	if cfg.CacheDir != "" {
		if h.cache, err = openCache(cfg.CacheDir, cfg.CacheTotal, rc, h.log); err != nil {
			return err
		}
		if h.cache != nil {
			rc = rc.WithCompilationCache(h.cache.code)
		}
	}
	if h.native, err = openTier(ctx, rc); err != nil {
		return err
	}
	return h.openPool()
}

// Prepare implements [grid.Engine].
func (h *Host) Prepare(ctx context.Context, id cid.Cid) error {
	if err := h.enter(); err != nil {
		return err
	}
	defer h.running.Done()
	m, err := h.modules.acquire(ctx, id, true)
	if err != nil {
		return err
	}
	h.modules.release(m)
	return nil
}

// Run implements [grid.Engine]. Limits that are zero get their defaults, where there are any.
func (h *Host) Run(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
	if err := h.enter(); err != nil {
		return grid.Outcome{}, err
	}
	defer h.running.Done()
	m, err := h.modules.acquire(ctx, g.Module, true)
	if err != nil {
		return grid.Outcome{}, err
	}
	defer h.modules.release(m)

	limits := withDefaults(g.Limits)
	if m.info.MinMemory > limits.Memory {
		return tooSmall(m.info.MinMemory, limits.Memory), nil
	}
	if !m.info.Extism { // which has memory besides its own
		limits.Memory = min(limits.Memory, m.info.MaxMemory)
	}
	began := time.Now()
	leave, err := h.admit(ctx, limits)
	if err == errQueue {
		return grid.Outcome{Queue: time.Since(began), Fault: &grid.Fault{Code: grid.Deadline, Message: sprintf(
			"waited more than %v for %d bytes of memory on this node, its limit", limits.Queue, limits.Memory)}}, nil
	}
	if err != nil {
		return grid.Outcome{}, err
	}
	room := &room{h: h, bytes: int64(limits.Memory), leave: leave}
	defer func() { room.leave() }()
	queued := time.Since(began)
	h.stats.running.Add(1)
	defer h.stats.running.Add(-1)
	s := h.idle.Get().(*sandbox)
	s.room = room
	out, err := h.run(ctx, s, m, g, limits)
	s.reset()
	h.idle.Put(s)
	out.Queue = queued
	return out, err
}

// run runs a guest by the best way that there is, or will be.
func (h *Host) run(ctx context.Context, s *sandbox, m *compiled, g *grid.Guest, limits grid.Limits) (grid.Outcome, error) {
	began := time.Now()
	if p := h.modules.try(m); p != nil {
		again, out, err := h.trial(ctx, s, m, p, g, limits)
		m.trials.Done()
		if again == nil {
			return out, err
		}
		g = again
		s.reset()
	}
	if err := m.await(ctx, m.ready); err != nil {
		return grid.Outcome{}, err
	}
	if m.err != nil {
		return grid.Outcome{}, m.err
	}
	if m.least > limits.Memory {
		return tooSmall(m.least, limits.Memory), nil
	}
	wait := time.Since(began)
	out, err := s.run(ctx, h, m, &m.program, g, limits)
	out.Wait = wait
	return out, err
}

// tooSmall is the outcome of a guest that cannot even start.
func tooSmall(need, limit uint64) grid.Outcome {
	return grid.Outcome{Fault: &grid.Fault{Code: grid.Limit, Message: sprintf("needs %d bytes of memory to start, its limit is %d", need, limit)}}
}

// errQueue says that a guest has waited as long as it may.
var errQueue = errors.New("queue time limit")

// admit waits for room for a guest's memory, and gives what makes the room free again.
func (h *Host) admit(ctx context.Context, l grid.Limits) (leave func(), err error) {
	if h.room == nil {
		return func() {}, nil
	}
	bytes := int64(l.Memory)
	if l.Memory > h.total {
		return nil, grid.Errorf(grid.Limit, "wasmhost: a guest may grow to %d bytes, this node gives all guests together %d", l.Memory, h.total).
			Hint("lower the job's memory limit, or raise the node's")
	}
	leave = func() { h.room.Release(bytes) }
	if h.room.TryAcquire(bytes) {
		return leave, nil
	}
	bounded := ctx
	if l.Queue > 0 {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, l.Queue)
		defer cancel()
	}
	switch err := h.room.Acquire(bounded, bytes); {
	case err == nil:
		return leave, nil
	case ctx.Err() == nil:
		return nil, errQueue
	}
	return nil, ended(ctx, "wait for memory")
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
	if l.Open == 0 {
		l.Open = d.Open
	}
	if l.Output == 0 {
		l.Output = d.Output
	}
	return l
}

// Hurry has Close not wait for what Config.Finish tells of, as somebody waits for the end of the process.
func (h *Host) Hurry() { h.modules.hurry() }

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
	for _, t := range []*tier{h.native, h.quick} {
		if t == nil {
			continue
		}
		if e := t.runtime.Close(ctx); err == nil {
			err = e
		}
	}
	if h.cache != nil {
		if e := h.cache.close(ctx); err == nil {
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

// prepare loads a module, checks and rewrites it.
func (h *Host) prepare(load func(context.Context, cid.Cid) ([]byte, error)) func(context.Context, cid.Cid) (*prepared, error) {
	return func(ctx context.Context, id cid.Cid) (*prepared, error) {
		binary, err := load(ctx, id)
		if err != nil {
			return nil, grid.Errorf(grid.CodeOf(err), "wasmhost: load module %s: %w", id, err)
		}
		info, err := module.Check(binary, h.native.provides)
		if err != nil {
			return nil, grid.Errorf(grid.CodeOf(err), "wasmhost: module %s: %w", id, err)
		}
		binary, _, err = rewrite.Instrument(info.Binary, rewrite.Options{Fuel: true, NaN: true})
		if err != nil {
			return nil, grid.Errorf(grid.CodeOf(err), "wasmhost: module %s: %w", id, err)
		}
		info.Binary = nil
		p := &prepared{info: info, whole: binary, code: binary}
		if h.quick != nil && len(binary) >= interpretFrom {
			p.large = true
		}
		h.examine(p)
		p.known = p.large && h.cache.has(p.code)
		return p, nil
	}
}

// compile makes machine code of a rewritten module.
func (h *Host) compile(ctx context.Context, id cid.Cid, p *prepared) (n native, err error) {
	began := time.Now()
	defer func() {
		if err == nil {
			h.stats.compiled.Observe(time.Since(began))
		} else if ctx.Err() == nil {
			h.stats.unfit.Add(1)
		}
	}()
	n = native{program: program{tier: h.native}}
	if err := n.imports(ctx, &p.info); err != nil {
		return n, grid.Errorf(grid.Internal, "wasmhost: module %s: %w", id, err)
	}
	// With two workers or more, compiling obeys its context.
	if err := h.build(experimental.WithCompilationWorkers(ctx, max(2, runtime.GOMAXPROCS(0))), &n, p); err != nil {
		if n.wasi != nil {
			n.wasi.Close(context.Background())
		}
		if bad := (*unfit)(nil); errors.As(err, &bad) {
			return n, grid.Errorf(grid.CodeOf(err), "wasmhost: module %s: %w", id, err)
		}
		return n, grid.Errorf(grid.Invalid, "wasmhost: module %s does not compile: %w", id, err).
			Hint("rebuild it for Wasm 2.0 without experimental features")
	}
	h.log.Debug("compiled a module", "module", id, "bytes", len(p.whole), "took", time.Since(began), "instances", n.way, "why", n.why)
	return n, nil
}
