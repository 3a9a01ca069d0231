package image

import (
	"bytes"

	"github.com/tetratelabs/wazero/experimental"

	"github.com/wasmgrid/wasmgrid/grid"
)

const (
	// budget is how many bytes of pages of its own a memory may keep when it is reset. To write to a page
	// and copy it back takes 0.2 µs; to write to it and give it back takes ten times that and more, most
	// of it the fault, and has other threads flush their address caches (BenchmarkReset). So as many are
	// copied as are worth the memory. But a page that was written once is copied at every reset from then
	// on: the budget also bounds that, to 0.1 ms.
	budget = 2 << 20
	// sweepEvery is after how many resets pages are compared with the image before they are copied. One
	// that is equal was not written since the last time, and is given back: so a task that wrote much
	// slows down the next few, not all. The price, spread over the resets, is too small to measure.
	sweepEvery = 64
	// maxRuns is how many runs of pages are asked for at a time.
	maxRuns = 64
)

// run is a run of pages: from lo to hi, in bytes from the beginning of a memory.
type run struct{ lo, hi uint64 }

// Memory is the linear memory of one instance at a time: a view of an image that can be written to. It
// implements both of wazero's interfaces, so that it is given to experimental.WithMemoryAllocator as it
// is, for one instantiation of the module that the image is of. It is for one goroutine at a time.
type Memory struct {
	image *Image
	limit uint64
	most  uint64 // that limit may be

	region []byte // address space for limit bytes; nil where there is none, then heap is used
	heap   []byte

	size    uint64 // that the instance sees
	high    uint64 // the furthest that was reached since the last reset
	kept    uint64 // bytes in pages of its own after the last reset
	refused uint64 // the most that was asked for beyond the limit since then
	reset   uint32 // how often

	bound   bool // wazero has it, or had it
	freed   bool // and gave it back
	shrink  bool // the next Reallocate is to give the image's size
	spoiled bool
	closed  bool

	find *finder // nil without a region
}

// Memory makes a memory that shows the image and grows to limit bytes at most, which are not fewer than
// the image's size, nor than the module's minimum. Only addresses are taken up until it is written to.
// Close it after the instance.
func (i *Image) Memory(limit uint64) (*Memory, error) {
	if limit < i.size {
		return nil, grid.Errorf(grid.Limit, "image: a memory limited to %d bytes cannot hold an image of %d", limit, i.size).
			Hint("raise the memory limit to %d bytes", i.size)
	}
	if err := i.retain(); err != nil {
		return nil, err
	}
	limit = min(limit, maxMemory)
	m := &Memory{image: i, limit: limit, most: limit}
	if i.memory && i.store.way != Copy {
		m.region = view(i.store.roundUp(m.limit), i.fd, i.stored)
		if m.region != nil {
			m.find = newFinder(i.store.way)
		}
	}
	i.store.countMemory(1)
	return m, nil
}

// Allocate implements [experimental.MemoryAllocator].
func (m *Memory) Allocate(_, most uint64) experimental.LinearMemory {
	if m.bound || m.closed {
		// A caller's mistake, which must not have two instances share bytes.
		m.spoiled = true
		return &loose{limit: min(most, m.limit)}
	}
	m.bound, m.freed = true, false
	return m
}

// loose is a memory of nothing but the heap.
type loose struct {
	limit uint64
	b     []byte
}

func (l *loose) Reallocate(size uint64) []byte {
	if size > l.limit {
		return nil
	}
	l.b = append(l.b, make([]byte, size-uint64(len(l.b)))...)
	return l.b[:size:size]
}

func (l *loose) Free() { l.b = nil }

// Reallocate implements [experimental.LinearMemory]. The first call gives the image, even if less is
// asked for. Memory does not move when it grows, unless it is in Go's heap; growing beyond the limit is
// refused, and fails in the guest.
func (m *Memory) Reallocate(size uint64) []byte {
	switch {
	case m.shrink:
		size = m.image.size
	case m.size == 0 && m.high == 0:
		size = max(size, m.image.size)
	}
	if size > m.limit || m.closed {
		m.refused = max(m.refused, size)
		return nil
	}
	m.size, m.high = size, max(m.high, size)
	if m.region != nil {
		return m.region[:size:size]
	}
	if size > uint64(len(m.heap)) {
		grown := make([]byte, size)
		if m.heap == nil {
			copy(grown, m.image.data)
		}
		copy(grown, m.heap)
		m.heap = grown
	}
	return m.heap[:size:size]
}

// Free implements [experimental.LinearMemory]. wazero calls it when the instance is closed, which may be
// in the midst of a call; so the bytes stay until Close.
func (m *Memory) Free() { m.freed = true }

// SetLimit changes how far the memory may grow from now on, to limit bytes, but never to more than what
// it was made with nor to less than its image.
func (m *Memory) SetLimit(limit uint64) { m.limit = min(max(limit, m.image.size), m.most) }

// Image is what the memory shows.
func (m *Memory) Image() *Image { return m.image }

// Way is how this memory is put back. It is Copy, whatever that of its store, when the system granted no
// addresses.
func (m *Memory) Way() Way {
	if m.region == nil && m.image.memory {
		return Copy
	}
	return m.image.store.way
}

// Size is how many bytes the instance sees.
func (m *Memory) Size() uint64 { return m.size }

// Refused is the most bytes that were asked for and not granted since the last reset; 0 when none were.
func (m *Memory) Refused() uint64 { return m.refused }

// Bytes is how much memory it takes up besides the image, as far as known: as of the last reset.
func (m *Memory) Bytes() uint64 {
	if m.region == nil {
		return uint64(len(m.heap))
	}
	return m.kept
}

// Spoil forbids all further resets: for an instance that was stopped, or that is not to be trusted.
func (m *Memory) Spoil() { m.spoiled = true }

// Reset puts every byte back to the image. An instance that has grown since sees more than the image
// yet, so its memory is reset by [Instance.Reset]. When the instance is closed already, the memory is
// ready for another one. On error, which is Conflict or Limit, it is not to be used any more but closed.
func (m *Memory) Reset() error {
	switch {
	case m.closed || m.spoiled:
		return grid.Errorf(grid.Conflict, "image: the memory is closed or was given up").Hint("close it, and make a new one")
	case m.high > m.image.size+min(m.image.store.growth, maxMemory):
		return grid.Errorf(grid.Limit, "image: the memory grew from %d to %d bytes, more than it is worth to reset", m.image.size, m.high).
			Hint("close it, and make a new one; or raise Config.Growth")
	case m.freed:
		m.bound, m.size = false, 0
	case m.size > m.image.size:
		return grid.Errorf(grid.Conflict, "image: the memory grew from %d to %d bytes, and its instance has not shrunk", m.image.size, m.size).
			Hint("reset the instance, not only its memory")
	}
	if err := m.rewind(m.high); err != nil {
		m.spoiled = true
		return err
	}
	m.high, m.refused = m.size, 0
	return nil
}

// Close gives the memory back to the system. The instance must be closed, or never be used again. It may
// be called twice.
func (m *Memory) Close() error {
	if m.closed {
		return nil
	}
	m.closed = true
	if m.region != nil {
		unreserve(m.region)
	}
	m.region, m.heap = nil, nil
	m.image.store.countMemory(-1)
	m.image.release()
	return nil
}

// rewind restores the first high bytes, which hold all that may have been written.
func (m *Memory) rewind(high uint64) error {
	if m.region == nil {
		copy(m.heap, m.image.data)
		clear(m.heap[min(m.image.stored, uint64(len(m.heap))):])
		return nil
	}
	high = m.image.store.roundUp(high)
	m.reset++
	m.kept = 0
	if m.image.store.way == Discard {
		return m.discard(0, int(high))
	}
	sweep := m.reset%sweepEvery == 0
	for at := uint64(0); at < high; {
		runs, next, err := m.dirty(at, high)
		if err != nil {
			return m.discard(0, int(high)) // without knowing more, everything
		}
		for _, r := range runs {
			edge := min(max(r.lo, m.image.stored), r.hi)
			if err := m.restore(r.lo, edge, sweep); err != nil {
				return err
			}
			if err := m.restore(edge, r.hi, sweep); err != nil {
				return err
			}
		}
		at = next
	}
	return nil
}

// restore restores a run that is either within what the image stores or behind it.
func (m *Memory) restore(lo, hi uint64, sweep bool) error {
	switch {
	case lo == hi:
		return nil
	case m.kept+hi-lo > budget:
		return m.discard(int(lo), int(hi))
	case sweep:
		return m.sweep(lo, hi)
	case lo < m.image.stored:
		copy(m.region[lo:hi], m.image.data[lo:hi])
	default:
		clear(m.region[lo:hi])
	}
	m.kept += hi - lo
	return nil
}

// sweep restores a run, and gives back the pages that need not be restored.
func (m *Memory) sweep(lo, hi uint64) error {
	page := uint64(m.image.store.page)
	idle := lo // from here on everything is equal
	for at := lo; ; at += page {
		if at < hi && m.unchanged(at, at+page) {
			continue
		}
		if idle < at {
			if err := m.discard(int(idle), int(at)); err != nil {
				return err
			}
		}
		if at >= hi {
			return nil
		}
		if err := m.restore(at, at+page, false); err != nil {
			return err
		}
		idle = at + page
	}
}

func (m *Memory) unchanged(lo, hi uint64) bool {
	if lo < m.image.stored {
		return bytes.Equal(m.region[lo:hi], m.image.data[lo:hi])
	}
	return isZero(m.region[lo:hi])
}

// discard gives pages back, after which they are the image's again; or writes them over where the
// system does not let it, as for memory that is locked.
func (m *Memory) discard(lo, hi int) error {
	b := m.region[lo:hi]
	if len(b) == 0 || giveBack(b) == nil {
		return nil
	}
	n := 0
	if uint64(lo) < m.image.stored {
		n = copy(b, m.image.data[lo:])
	}
	clear(b[n:])
	m.kept += uint64(len(b))
	return nil
}
