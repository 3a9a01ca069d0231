package wasmhost

import (
	"context"
	"fmt"
	"runtime"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/wasmhost/image"
	"github.com/wasmgrid/wasmgrid/wasmhost/module"
	"github.com/wasmgrid/wasmgrid/wasmhost/rewrite"
)

// Instances of commands are reused: an image of each module is taken right after it was instantiated,
// before _start, and an instance whose guest has ended by itself is put back to it for the next one. So
// a guest finds what it finds in a fresh instance. Modules of which that cannot be said, and all of them
// where the system offers no copy-on-write, get a fresh instance for each guest.

// Bounds on idle instances and on images.
const (
	maxIdle      = 256 // instances; each has two mappings of the process
	maxIdleBytes = 256 << 20
	maxImage     = 64 << 20 // bytes of memory that a module begins with
	maxCells     = 1 << 18  // of its tables, globals and segments
	cell         = 8        // bytes
	fixed        = 16 << 10 // bytes that an instance takes up in any case, or somewhat less
)

// The ways of [Host.Way].
const (
	Reused = "reused" // instances serve guest after guest
	Fresh  = "fresh"  // each guest has an instance of its own
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
	if images.Way() == image.Copy && h.way != image.Copy { // no quicker than a fresh instance
		h.fresh = "this system offers no copy-on-write images (" + images.Why() + ")"
		return images.Close()
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

// Way tells whether a module's instances are [Reused] or [Fresh], and why; it compiles the module when
// need be, as Prepare does.
func (h *Host) Way(ctx context.Context, id cid.Cid) (way, why string, err error) {
	if err := h.enter(); err != nil {
		return "", "", err
	}
	defer h.running.Done()
	m, err := h.modules.acquire(ctx, id)
	if err != nil {
		return "", "", err
	}
	defer h.modules.release(m)
	return m.way(), m.why, nil
}

func (m *compiled) way() string {
	if m.image == nil {
		return Fresh
	}
	return Reused
}

// build compiles a rewritten module, and takes its image if its instances can be reused.
func (h *Host) build(ctx context.Context, m *compiled, binary []byte) (err error) {
	stripped, memory, layout, refused := h.examine(m, binary)
	if refused == nil {
		if m.code, err = h.runtime.CompileModule(ctx, stripped); err != nil {
			return err
		}
		if m.image, refused = h.snapshot(ctx, m, layout, memory); refused == nil {
			m.cells = layout.Cells
			m.why = fmt.Sprintf("put back by %v to an image of %d bytes", h.images.Way(), m.image.Bytes())
			return nil
		}
		m.code.Close(ctx)
	}
	m.why = strings.TrimPrefix(refused.Error(), "image: ")
	m.code, err = h.runtime.CompileModule(ctx, binary)
	return err
}

// examine prepares a module for reuse: without its data segments, but with what they make of its memory
// when memory is not nil. The error is why it cannot be.
func (h *Host) examine(m *compiled, binary []byte) (stripped, memory []byte, layout *image.Layout, err error) {
	if h.images == nil {
		return nil, nil, nil, fmt.Errorf("%s", h.fresh)
	}
	if m.info.MinMemory > maxImage {
		return nil, nil, nil, grid.Errorf(grid.Limit, "it begins with %d bytes of memory, images have at most %d", m.info.MinMemory, maxImage)
	}
	if binary, err = image.Expose(binary); err != nil {
		return nil, nil, nil, err
	}
	if stripped, memory, err = image.Strip(binary, maxImage); err != nil {
		return nil, nil, nil, err
	}
	if layout, err = image.Examine(stripped); err != nil {
		return nil, nil, nil, err
	}
	if layout.Cells > maxCells {
		return nil, nil, nil, grid.Errorf(grid.Limit, "its tables, globals and segments have %d entries, idle instances at most %d", layout.Cells, maxCells)
	}
	return stripped, memory, layout, nil
}

// snapshot takes the image of a compiled module: that of a new instance, with the content that was
// stripped from it.
func (h *Host) snapshot(ctx context.Context, m *compiled, layout *image.Layout, content []byte) (img *image.Image, err error) {
	mem := memory{pool: h.memory, limit: m.info.MinMemory}
	defer mem.release()
	defer func() {
		if r := recover(); r != nil { // as in run
			img, err = nil, grid.Errorf(grid.Internal, "instantiating it panicked: %v", r)
		}
	}()
	mod, err := h.runtime.InstantiateModule(experimental.WithMemoryAllocator(m.imports(ctx), &mem), m.code, h.instance)
	if err != nil {
		return nil, err
	}
	defer mod.Close(ctx)
	if len(content) > 0 && !mod.Memory().Write(0, content) {
		return nil, grid.Errorf(grid.Internal, "its memory is smaller than it says")
	}
	return h.images.Snapshot(mod, layout)
}

// warm is an instance that serves guest after guest. It implements image.Item.
type warm struct {
	*image.Instance
	fuel  api.Global
	cells int
}

// newWarm makes one more instance of a module that has an image.
func (h *Host) newWarm(ctx context.Context, m *compiled) (*warm, error) {
	mem, err := m.image.Memory(m.info.MaxMemory) // of which each guest is given as much as its limit
	if err != nil {
		return nil, err
	}
	mod, err := h.runtime.InstantiateModule(experimental.WithMemoryAllocator(m.imports(ctx), mem), m.code, h.instance)
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
	return &warm{Instance: inst, fuel: mod.ExportedGlobal(rewrite.ExportFuel), cells: m.cells}, nil
}

// Bytes implements image.Item.
func (w *warm) Bytes() uint64 { return w.Instance.Bytes() + uint64(w.cells)*cell + fixed }

// discard closes a module that nobody uses, and its idle instances.
func (h *Host) discard(m *compiled) {
	if m.image != nil {
		h.pool.Evict(m.image)
		m.image.Close()
	}
	ctx := context.Background()
	m.code.Close(ctx)
	if m.wasi != nil {
		m.wasi.Close(ctx)
	}
}

// ending is how a call of _start ended, and what it took.
type ending struct {
	err          error
	fuel, memory uint64
}

// callWarm runs a guest in an instance that may have served others. The error is the host's own.
func (s *sandbox) callWarm(ctx context.Context, h *Host, m *compiled) (end ending, err error) {
	w, ok := h.pool.Take(m.image)
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
	s.meter.left = w.fuel
	// A function looked up before would have the stack that the deepest guest needed, for good; and how
	// deep one may recurse depends on the sizes that its stack went through.
	_, end.err = w.Module().ExportedFunction("_start").Call(ctx)
	end.fuel, end.memory = s.meter.used(), w.Memory().Size()
	again = s.returned(end.err)
	return end, nil
}

// callFresh runs a guest in an instance of its own.
func (s *sandbox) callFresh(ctx context.Context, h *Host, m *compiled) (end ending) {
	mod, err := h.runtime.InstantiateModule(experimental.WithMemoryAllocator(m.imports(ctx), &s.memory), m.code, h.instance)
	if err == nil {
		defer mod.Close(context.WithoutCancel(ctx))
		_, err = mod.ExportedFunction("_start").Call(ctx)
	}
	return ending{err, s.meter.used(), s.memory.size}
}

// imports has what is instantiated get the module's own imports.
func (m *compiled) imports(ctx context.Context) context.Context {
	if m.wasi == nil {
		return ctx
	}
	return experimental.WithImportResolver(ctx, func(name string) api.Module {
		if name == module.Preview1 {
			return m.wasi
		}
		return nil // as usual, by name
	})
}
