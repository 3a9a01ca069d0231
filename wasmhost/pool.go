package wasmhost

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/sdk/abi"
	"github.com/wasmgrid/wasmgrid/wasmhost/extism"
	"github.com/wasmgrid/wasmgrid/wasmhost/image"
	"github.com/wasmgrid/wasmgrid/wasmhost/module"
	"github.com/wasmgrid/wasmgrid/wasmhost/rewrite"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi"
)

// Instances are reused: an image of each module is taken right after it was instantiated, before a command's
// _start but after a reactor's _initialize, and an instance whose guest has ended by itself is put back to it for
// the next one. So a guest finds what it finds in a fresh instance. Modules of which that cannot be said, and
// commands where the system offers no copy-on-write, get a fresh instance for each guest.

// Bounds on idle instances and on images.
const (
	maxIdle      = 256 // instances; each has two mappings of the process
	maxIdleBytes = 256 << 20
	maxImage     = 64 << 20 // bytes of memory that a module begins with
	maxCells     = 1 << 18  // of its tables, globals and segments
	cell         = 8        // bytes
	fixed        = 16 << 10 // bytes that an instance takes up in any case, or somewhat less
)

// The ways of [Host.Inspect].
const (
	Reused      = "reused"      // instances serve guest after guest
	Snapshot    = "snapshot"    // the same, each time as a reactor was when it had been initialised
	Fresh       = "fresh"       // each guest has an instance of its own
	Interpreted = "interpreted" // the same, and without machine code
)

// openPool makes the store of images and the pool of instances. On error nothing is to be closed.
func (h *Host) openPool() error {
	if h.way > image.Copy {
		h.fresh = "the host was told so"
		return nil
	}
	images, err := image.Open(image.Config{Way: h.way})
	if err != nil {
		return err
	}
	if images.Way() == image.Copy && h.way != image.Copy {
		h.slow = "this system offers no copy-on-write images (" + images.Why() + ")"
	}
	bytes := uint64(maxIdleBytes)
	if h.total > 0 {
		bytes = min(bytes, h.total)
	}
	h.images = images
	h.pool = image.NewPool[*warm](image.Bounds{Count: maxIdle, Each: 2 * runtime.GOMAXPROCS(0), Bytes: bytes})
	return nil
}

func (h *Host) closePool() error {
	if h.images == nil {
		return nil
	}
	h.pool.Close()
	return h.images.Close()
}

// Inspect implements [grid.Engine].
func (h *Host) Inspect(ctx context.Context, id cid.Cid, settled bool) (grid.Module, error) {
	if err := h.enter(); err != nil {
		return grid.Module{}, err
	}
	defer h.running.Done()
	m, err := h.modules.acquire(ctx, id, !settled)
	if err != nil {
		return grid.Module{}, err
	}
	defer h.modules.release(m)
	out := grid.Module{
		Kind: m.info.Kind, Functions: m.info.Functions, Any: m.info.Any, Imports: m.info.Imports, Size: m.info.Size,
		MinMemory: m.info.MinMemory, MaxMemory: m.info.MaxMemory, Names: m.info.Names, Extism: m.info.Extism,
		Manifest: m.info.Manifest, Signers: m.info.Signers,
		Way: Interpreted, Why: "its machine code is still being made",
	}
	select {
	case <-m.ready:
		out.Way, out.Why, out.MinMemory = m.way, m.why, max(out.MinMemory, m.least)
		if m.image != nil {
			out.Image = m.image.Bytes()
		}
	default:
	}
	return out, nil
}

// unfit is an error in a module itself, as it comes out when the module begins.
type unfit struct{ err error }

func (e *unfit) Error() string { return e.err.Error() }
func (e *unfit) Unwrap() error { return e.err }

// build compiles a rewritten module, and takes its image if its instances can be reused. A reactor is
// initialised in any case, to see that it can be.
func (h *Host) build(ctx context.Context, n *native, p *prepared) (err error) {
	info := &p.info
	n.least = info.MinMemory
	refused := p.fresh
	if refused == nil {
		if n.code, err = h.cache.compile(ctx, n.tier.runtime, p.code); err != nil {
			return err
		}
		refused = h.begin(ctx, n, info, p.memory, p.layout)
		if bad := (*unfit)(nil); errors.As(refused, &bad) {
			n.code.Close(ctx)
			return refused
		}
		if refused == nil {
			n.cells = p.layout.Cells
			n.way, n.why = Reused, fmt.Sprintf("put back by %v to an image of %d bytes", h.images.Way(), n.image.Bytes())
			if info.Kind == grid.Reactor {
				n.way = Snapshot
			}
			return nil
		}
		n.code.Close(ctx)
	}
	n.way, n.why = Fresh, strings.TrimPrefix(refused.Error(), "image: ")
	if n.code, err = h.cache.compile(ctx, n.tier.runtime, p.whole); err != nil || info.Kind == grid.Command {
		return err
	}
	if err = h.begin(ctx, n, info, nil, nil); err == errTouched {
		n.inline, err = true, nil
	}
	if err != nil {
		n.code.Close(ctx)
	}
	return err
}

// examine prepares a module for reuse, or says why it cannot be.
func (h *Host) examine(p *prepared) {
	if h.images == nil {
		p.fresh = errors.New(h.fresh)
		return
	}
	if h.slow != "" && len(p.info.Initialize) == 0 { // copying all of memory is no quicker than a fresh instance
		p.fresh = errors.New(h.slow)
		return
	}
	if p.info.MinMemory > maxImage {
		p.fresh = grid.Errorf(grid.Limit, "it begins with %d bytes of memory, images have at most %d", p.info.MinMemory, maxImage)
		return
	}
	code, memory, layout, err := image.Prepare(p.whole, maxImage)
	if err == nil && layout.Cells > maxCells {
		err = grid.Errorf(grid.Limit, "its tables, globals and segments have %d entries, idle instances at most %d", layout.Cells, maxCells)
	}
	if p.fresh = err; err == nil {
		p.code, p.memory, p.layout = code, memory, layout
	}
}

// begin makes a first instance of a compiled module, with the content that was stripped from it, and has a
// reactor initialise itself. With a layout it takes the image of what there is then.
func (h *Host) begin(ctx context.Context, n *native, info *module.Info, content []byte, layout *image.Layout) (err error) {
	s := newSandbox(h.memory)
	s.memory.limit = min(info.MaxMemory, grid.DefaultLimits.Memory)
	defer s.reset()
	defer func() {
		if r := recover(); r != nil { // as in run
			err = grid.Errorf(grid.Internal, "instantiating it panicked: %v", r)
		}
	}()
	nobody, call := newNobody(ctx, info)
	defer nobody.meter.clock.close()
	mod, err := n.tier.runtime.InstantiateModule(experimental.WithMemoryAllocator(n.resolve(call), &s.memory), n.code, h.instance)
	switch {
	case nobody.touched():
		return errTouched
	case err != nil && info.Kind == grid.Reactor: // a start function, or a segment that does not fit
		return s.failed(ctx, h, nobody, "beginning", err)
	case err != nil:
		return err
	}
	defer mod.Close(ctx)
	if len(content) > 0 && !mod.Memory().Write(0, content) {
		return grid.Errorf(grid.Internal, "its memory is smaller than it says")
	}
	if len(info.Initialize) > 0 {
		if n.elapsed, err = s.initialize(ctx, h, info, mod); err != nil {
			return err
		}
		n.least = max(n.least, s.memory.size)
	}
	if layout == nil {
		return nil
	}
	if n.least > maxImage {
		return grid.Errorf(grid.Limit, "it has %d bytes of memory after %s, images have at most %d", n.least, module.Initialize, maxImage)
	}
	n.image, err = h.images.Snapshot(mod, layout)
	return err
}

// Bounds on what a reactor does to initialise itself.
const (
	initFuel = 50_000_000_000
	initTime = time.Minute
)

// errTouched says that a plug-in for Extism asks for what is its guest's while it is initialised. Then it is initialised
// by each guest, as part of its call.
var errTouched = errors.New("it uses Extism's functions while it is initialised")

// initialize calls a reactor's _initialize, and gives how far its clock has got. A reactor begins in the same
// way for all its guests, so there it sees nothing of any: no arguments, inputs or files, and a seed of zeros;
// what it writes is lost, but for what it says on stderr before it fails. The instance's fuel is as if it had done nothing.
func (s *sandbox) initialize(ctx context.Context, h *Host, info *module.Info, mod api.Module) (elapsed int64, err error) {
	nobody, call := newNobody(ctx, info)
	defer nobody.meter.clock.close()
	if g, ok := mod.ExportedGlobal(rewrite.ExportFuel).(api.MutableGlobal); ok {
		defer g.Set(g.Get()) // what a start function has left of the guest's
		g.Set(0)
	}
	err = begins(call, info, mod)
	switch {
	case nobody.touched():
		return 0, errTouched
	case err != nil:
		return 0, s.failed(ctx, h, nobody, module.Initialize, err)
	}
	return nobody.wasi.Elapsed(), nil
}

// failed says why a reactor could not begin, which ran in the sandbox of nobody and has the memory of s.
func (s *sandbox) failed(ctx context.Context, h *Host, nobody *sandbox, what string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	message := "it is stopped after " + initTime.String()
	if nobody.meter.why == fuelSpent {
		message = sprintf("it needs more than %d fuel", uint64(initFuel))
	} else if exit, fault := h.judge(err); fault != nil {
		message = fault.Message
	} else if nobody.meter.why == running {
		message = sprintf("it exited with code %d", exit)
	}
	if refused := s.memory.refused; refused > 0 {
		message += sprintf(", after it asked for %d bytes of memory, where %d are allowed", refused, s.memory.limit)
	}
	if said, ok := nobody.stderr.to.(*lastWords); ok && strings.TrimSpace(string(*said)) != "" {
		message += sprintf("; it said: %s", strings.TrimSpace(strings.ToValidUTF8(string(*said), "")))
	}
	return &unfit{grid.Errorf(grid.Invalid, "the reactor's %s failed: %s", what, message).
		Hint("it runs before there are arguments, inputs or files; leave what needs those to the functions")}
}

// maxLastWords is how much of what a reactor says as it fails to begin is told.
const maxLastWords = 1 << 10

// lastWords keep the beginning of what a reactor says: a panic comes before its stack.
type lastWords []byte

func (l *lastWords) Write(b []byte) (int, error) {
	*l = append(*l, b[:min(len(b), maxLastWords-len(*l))]...)
	return len(b), nil
}

// newNobody is the sandbox of a reactor that begins, and the context of calls into that. Close its meter's clock.
func newNobody(ctx context.Context, info *module.Info) (*sandbox, context.Context) {
	s := newSandbox(nil)
	s.meter = newMeter(initFuel)
	s.stderr = output{to: new(lastWords), room: math.MaxUint64}
	s.wasi.Reset(wasi.Config{Env: []string{abi.EnvABI + "=" + strconv.Itoa(abi.Version)}, Stderr: &s.stderr})
	s.meter.clock = &guestContext{Context: ctx, sandbox: s, end: time.Now().Add(initTime)}
	call := s.wasi.Context(s.meter.clock)
	if info.Extism {
		s.extism = new(extism.State)
		s.extism.Reset(extism.Config{Early: true})
		call = s.extism.Context(call)
	}
	return s, call
}

// touched tells whether what begins is a plug-in that must be begun by its guests.
func (s *sandbox) touched() bool { return s.extism != nil && s.extism.Touched() }

// begins calls the functions by which a reactor is initialised.
func begins(ctx context.Context, info *module.Info, mod api.Module) error {
	for _, name := range info.Initialize {
		f := mod.ExportedFunction(name)
		if _, err := f.Call(ctx, make([]uint64, len(f.Definition().ParamTypes()))...); err != nil {
			return err
		}
	}
	return nil
}

// warm is an instance that serves guest after guest. It implements image.Item.
type warm struct {
	*image.Instance
	fuel  api.MutableGlobal
	cells int
	entry api.Function // looked up for the last guest, by that name; nil when it is to be looked up again
	name  string
}

// shallow is how much fuel a guest has used of whom the stack is worth keeping. A function keeps its stack, which
// takes a third of the time of a short guest to make; that of one who did more may have got large, and would
// be held for good. A call costs fuel, so that this bounds the stack to some hundred KiB.
const shallow = 5000

// newWarm makes one more instance of a module that has an image.
func (h *Host) newWarm(ctx context.Context, m *compiled) (*warm, error) {
	mem, err := m.image.Memory(m.info.MaxMemory) // of which each guest is given as much as its limit
	if err != nil {
		return nil, err
	}
	mod, err := m.tier.runtime.InstantiateModule(experimental.WithMemoryAllocator(m.resolve(ctx), mem), m.code, h.instance)
	if err != nil {
		mem.Close()
		return nil, err
	}
	inst, err := image.Bind(mod, mem)
	if err != nil {
		mod.Close(ctx)
		mem.Close()
		return nil, err
	}
	return &warm{Instance: inst, fuel: mod.ExportedGlobal(rewrite.ExportFuel).(api.MutableGlobal), cells: m.cells}, nil
}

// Bytes implements image.Item.
func (w *warm) Bytes() uint64 { return w.Instance.Bytes() + uint64(w.cells)*cell + fixed }

// discard closes a module that nobody uses, and its idle instances.
func (h *Host) discard(n *native) {
	if n.image != nil {
		h.pool.Evict(n.image)
		n.image.Close()
	}
	n.close()
}

// ending is how a call into a guest ended, and what it took.
type ending struct {
	exit         uint32 // that the call gave
	err          error
	fuel, memory uint64
	refused      uint64 // bytes of memory
}

// callWarm runs a guest in an instance that may have served others. The error is the host's own.
func (s *sandbox) callWarm(ctx context.Context, h *Host, m *compiled, entry string) (end ending, err error) {
	var w *warm
	profiled, ok := s.meter.profile != nil, false // for its instance has other imports
	if !profiled {
		w, ok = h.pool.Take(m.image)
	}
	if !ok {
		if w, err = h.newWarm(context.WithoutCancel(ctx), m); err != nil {
			return end, err
		}
	}
	again := false
	defer func() { // also when the call panics
		if again {
			h.pool.Give(m.image, w)
		} else {
			w.Close()
		}
	}()
	w.Memory().SetLimit(s.memory.limit)
	s.linear = w.Memory().SetLimit
	s.meter.left = w.fuel
	if w.entry == nil || w.name != entry {
		w.entry, w.name = w.Module().ExportedFunction(entry), entry
	}
	end.call(ctx, w.entry)
	end.fuel, end.memory, end.refused = s.meter.used(), w.Memory().Size(), w.Memory().Refused()
	again = !profiled && s.returned(end.err)
	if end.fuel > shallow {
		w.entry = nil
	}
	return end, nil
}

// callFresh runs a guest in an instance of its own. The error is the host's own.
func (s *sandbox) callFresh(ctx context.Context, h *Host, m *compiled, p *program, entry string, cfg wasi.Config) (end ending, err error) {
	s.wasi.Reset(cfg)
	call := s.context(ctx, m)
	s.linear = func(limit uint64) { s.memory.limit = limit }
	mod, err := p.tier.runtime.InstantiateModule(experimental.WithMemoryAllocator(p.resolve(call), &s.memory), p.code, h.instance)
	if err != nil { // a start function, or a segment that does not fit
		return ending{err: err, fuel: s.meter.used(), memory: s.memory.size, refused: s.memory.refused}, nil
	}
	defer mod.Close(context.WithoutCancel(ctx))
	if len(m.info.Initialize) > 0 && !p.inline {
		if cfg.Elapsed, err = s.initialize(ctx, h, &m.info, mod); err != nil {
			return end, err
		}
		s.wasi.Reset(cfg)
	}
	if p.inline {
		end.err = begins(call, &m.info, mod)
	}
	if end.err == nil {
		end.call(call, mod.ExportedFunction(entry))
	}
	end.fuel, end.memory, end.refused = s.meter.used(), s.memory.size, s.memory.refused
	return end, nil
}

// call calls a function that takes nothing, and gives nothing or an exit code.
func (e *ending) call(ctx context.Context, f api.Function) {
	var result [1]uint64
	if e.err = f.CallWithStack(ctx, result[:]); e.err == nil {
		e.exit = uint32(result[0])
	}
}
