package image

import (
	"bytes"
	"slices"
	"sync"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Image is a sealed snapshot of linear memory and globals. It is safe for concurrent use.
type Image struct {
	store   *Store
	memory  bool     // there is one
	size    uint64   // that instances see
	stored  uint64   // of which so many bytes are kept; all behind are zero
	data    []byte   // these, not to be written to
	fd      int      // their file, or -1
	bytes   uint64   // that they take up
	globals []Global // with values

	mu     sync.Mutex
	closed bool
	refs   int // memories, and one until Close
}

// New makes an image of mem, which is copied, and globals. Its length is a multiple of 64 KiB below 4 GiB; nil is for
// modules without a memory. Pages that are zero are not stored. The error is Limit when images would
// take more than the store may. Close the image when no new memory will be made of it.
func (s *Store) New(mem []byte, globals ...Global) (*Image, error) {
	if len(mem)%wasmPage != 0 || uint64(len(mem)) >= maxMemory {
		return nil, grid.Errorf(grid.Invalid, "image: a memory of %d bytes, want a multiple of %d below %d", len(mem), wasmPage, uint64(maxMemory))
	}
	i := &Image{store: s, memory: mem != nil, size: uint64(len(mem)), fd: -1, globals: slices.Clone(globals), refs: 1}
	i.stored, i.bytes = s.measure(mem)
	if err := s.admit(i.bytes); err != nil {
		return nil, err
	}
	mem = mem[:i.stored]
	if s.way == Copy {
		i.data = bytes.Clone(mem)
		return i, nil
	}
	var err error
	if i.data, i.fd, err = seal(mem, s.page); err != nil {
		s.release(i.bytes)
		return nil, grid.Errorf(grid.NoSpace, "image: store a snapshot of %d bytes: %w", i.bytes, err).
			Hint("give the process more memory and open files, or keep fewer modules warm")
	}
	return i, nil
}

// Snapshot makes an image of an instance as it is now. No call may be running in it. The layout is that
// of its module. No instance is changed.
func (s *Store) Snapshot(mod api.Module, l *Layout) (*Image, error) {
	if mod.IsClosed() {
		return nil, grid.Errorf(grid.Conflict, "image: the instance to make a snapshot of is closed")
	}
	globals := slices.Clone(l.Globals)
	for i := range globals {
		g, err := lookup(mod, globals[i])
		if err != nil {
			return nil, err
		}
		globals[i].Value = g.Get()
	}
	if !l.Memory {
		return s.New(nil, globals...)
	}
	// Growing by nothing gives the size in pages; that in bytes would be 0 for 4 GiB as well.
	if pages, _ := mod.Memory().Grow(0); uint64(pages)*wasmPage >= maxMemory {
		return nil, grid.Errorf(grid.Limit, "image: a memory of %d pages is too large for a snapshot", pages)
	}
	mem, _ := mod.Memory().Read(0, mod.Memory().Size())
	if mem == nil {
		mem = []byte{}
	}
	return s.New(mem, globals...)
}

// lookup finds a mutable global of an instance.
func lookup(mod api.Module, want Global) (api.MutableGlobal, error) {
	g, ok := mod.ExportedGlobal(want.Name).(api.MutableGlobal)
	if !ok || g.Type() != want.Type {
		return nil, grid.Errorf(grid.Invalid, "image: the instance exports no mutable global %q of type %s", want.Name, api.ValueTypeName(want.Type)).
			Hint("examine the very binary that was compiled")
	}
	return g, nil
}

// measure finds how many bytes of mem there are to the last page that is not zero, and how many in pages
// that are not zero.
func (s *Store) measure(mem []byte) (stored, taken uint64) {
	for at := 0; at < len(mem); at += s.page {
		if !isZero(mem[at:min(at+s.page, len(mem))]) {
			stored = uint64(at + s.page)
			taken += uint64(s.page)
		}
	}
	if s.way == Copy {
		taken = stored
	}
	return min(stored, uint64(len(mem))), taken
}

var zeros [64 << 10]byte // as long as pages of a system are, at most; never written to

func isZero(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }

// Size is the length of the linear memory, in bytes.
func (i *Image) Size() uint64 { return i.size }

// Bytes is how much memory the image itself takes up. Linux may come to use more, up to Size, when tasks
// read pages that are zero.
func (i *Image) Bytes() uint64 { return i.bytes }

// Globals gives a copy of the globals.
func (i *Image) Globals() []Global { return slices.Clone(i.globals) }

// Close ends the making of memories. The bytes are freed when the last memory is closed. It may be
// called twice.
func (i *Image) Close() error {
	i.mu.Lock()
	closed := i.closed
	i.closed = true
	i.mu.Unlock()
	if !closed {
		i.release()
	}
	return nil
}

func (i *Image) retain() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return grid.Errorf(grid.Unavailable, "image: the image is closed")
	}
	i.refs++
	return nil
}

func (i *Image) release() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.refs--; i.refs > 0 {
		return
	}
	unseal(i.data, i.fd)
	i.data, i.fd = nil, -1
	i.store.release(i.bytes)
}
