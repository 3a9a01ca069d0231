package wasmhost

import (
	"sync"

	"github.com/tetratelabs/wazero/experimental"
)

const (
	// reserved is the address space set aside for each linear memory: all that 32 bits can address,
	// so that growing never copies. It costs nothing until it is touched.
	reserved = 4 << 30
	// maxWarm is how much of a used memory is kept for the next guest, cleared. Clearing is an order
	// of magnitude cheaper than the page faults of fresh memory; above this, the memory goes back to
	// the system.
	maxWarm = 16 << 20
)

// memoryPool recycles linear memories. Every region in it is all zeros.
type memoryPool struct {
	most int

	mu     sync.Mutex
	free   [][]byte
	closed bool
}

// newMemoryPool makes a pool that keeps at most so many idle regions.
func newMemoryPool(most int) *memoryPool { return &memoryPool{most: most} }

// take gives a zeroed region of reserved bytes, or nil when the system refuses one.
func (p *memoryPool) take() []byte {
	p.mu.Lock()
	if n := len(p.free); n > 0 {
		region := p.free[n-1]
		p.free = p.free[:n-1]
		p.mu.Unlock()
		return region
	}
	p.mu.Unlock()
	return reserve()
}

// give takes back a region of which only the first used bytes may be other than zero.
func (p *memoryPool) give(region []byte, used uint64) {
	if used <= maxWarm {
		clear(region[:used])
		p.mu.Lock()
		if len(p.free) < p.most && !p.closed {
			p.free = append(p.free, region)
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
	}
	unreserve(region)
}

func (p *memoryPool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, region := range p.free {
		unreserve(region)
	}
	p.free = nil
}

// memory is the linear memory of one guest: wazero asks it for bytes, and it keeps to the limit. It
// stays usable until release, whatever wazero closes before.
type memory struct {
	pool    *memoryPool
	limit   uint64
	region  []byte // nil when the system gave none; then heap is used
	heap    []byte
	size    uint64
	refused uint64 // the most that was asked for beyond the limit
}

// Allocate implements experimental.MemoryAllocator. A guest has at most one memory.
func (m *memory) Allocate(uint64, uint64) experimental.LinearMemory {
	m.region = m.pool.take()
	return m
}

// Reallocate implements experimental.LinearMemory: memory.grow fails when it gives nil.
func (m *memory) Reallocate(size uint64) []byte {
	if size > m.limit {
		m.refused = max(m.refused, size)
		return nil
	}
	m.size = max(m.size, size)
	if m.region != nil {
		return m.region[:size:size]
	}
	if size > uint64(cap(m.heap)) {
		grown := make([]byte, size, min(m.limit, size+size/4))
		copy(grown, m.heap)
		m.heap = grown
	}
	m.heap = m.heap[:size]
	return m.heap[:size:size]
}

// Free implements experimental.LinearMemory. wazero calls it in the middle of a guest's exit, so
// nothing is done until release.
func (m *memory) Free() {}

func (m *memory) release() {
	if m.region != nil {
		m.pool.give(m.region, m.size)
	}
	m.region, m.heap, m.size, m.refused = nil, nil, 0, 0
}
