package image

import (
	"context"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Instance is an instance of a module that can be put back to an image. It is for one goroutine at a time.
type Instance struct {
	mod     api.Module
	memory  *Memory
	globals []restorable
}

type restorable struct {
	global api.MutableGlobal
	value  uint64
}

// Bind makes an instance of mod, which was instantiated with m as its allocator, and puts it to the
// image. Mod must be an instance of the module that the image is of. The instance owns both from then on;
// on error the caller still does, and should close mod, then m.
func Bind(mod api.Module, m *Memory) (*Instance, error) {
	i := &Instance{mod: mod, memory: m, globals: make([]restorable, len(m.image.globals))}
	for n, g := range m.image.globals {
		global, err := lookup(mod, g)
		if err != nil {
			return nil, err
		}
		i.globals[n] = restorable{global, g.Value}
	}
	if m.image.memory && !m.serves(mod) {
		return nil, grid.Errorf(grid.Invalid, "image: the instance does not use the memory that it is bound to").
			Hint("instantiate it with the memory in experimental.WithMemoryAllocator, and only once")
	}
	if m.region != nil { // the data segments, just written: they are in the image, and not written again
		if err := m.discard(0, int(m.image.store.roundUp(m.high))); err != nil {
			return nil, err
		}
	}
	if err := i.Reset(); err != nil {
		return nil, err
	}
	return i, nil
}

// serves tells whether an instance's memory is m.
func (m *Memory) serves(mod api.Module) bool {
	if !m.bound || m.freed || m.spoiled || m.closed || mod.IsClosed() || uint64(mod.Memory().Size()) != m.size&0xffffffff {
		return false
	}
	b, ok := mod.Memory().Read(0, 1)
	if !ok {
		return m.size == 0
	}
	if m.region != nil {
		return &b[0] == &m.region[0]
	}
	return &b[0] == &m.heap[0]
}

// Module is the instance as wazero knows it. Do not close it.
func (i *Instance) Module() api.Module { return i.mod }

// Memory is the instance's memory.
func (i *Instance) Memory() *Memory { return i.memory }

// Bytes is how much linear memory the instance takes up besides the image.
func (i *Instance) Bytes() uint64 { return i.memory.Bytes() }

// Spoil forbids all further resets: call it when a call did not return by itself.
func (i *Instance) Spoil() { i.memory.Spoil() }

// Reset puts the instance back to its image. No call may be running in it. On error it is not to be used
// any more but closed: Conflict says that it was closed or spoiled, or cannot shrink; Limit that it has
// grown too much.
func (i *Instance) Reset() error {
	if i.mod.IsClosed() {
		return grid.Errorf(grid.Conflict, "image: the instance is closed").Hint("close it, and make a new one")
	}
	if m := i.memory; m.image.memory && m.size != m.image.size {
		// wazero takes what Reallocate gives for the memory, however long, and tells the compiled code.
		m.shrink = true
		_, ok := i.mod.Memory().Grow(1)
		m.shrink = false
		if size := i.mod.Memory().Size(); !ok || uint64(size) != m.image.size {
			m.spoiled = true
			return grid.Errorf(grid.Conflict, "image: the instance's memory cannot shrink from %d to %d bytes", size, m.image.size).
				Hint("close it, and make a new one")
		}
	}
	if err := i.memory.Reset(); err != nil {
		return err
	}
	for n := range i.globals {
		i.globals[n].global.Set(i.globals[n].value)
	}
	return nil
}

// Close closes the instance, then its memory. It may be called twice.
func (i *Instance) Close() error {
	err := i.mod.Close(context.Background())
	i.memory.Close()
	return err
}
