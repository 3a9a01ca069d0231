package extism

import (
	"io"
	"math"
	"math/bits"
	"sort"
)

const (
	page      = 64 << 10 // bytes by which memory grows, at least
	base      = 64       // the first offset: 0 is none
	blockCost = 32       // bytes that a block takes up besides, or somewhat less
	mostStep  = 16 << 20 // bytes by which memory grows at most for what has an unknown length
	keep      = 1 << 10  // of blocks and free ones: room that is kept for the next plug-in
)

// heap is the kernel's memory. Blocks lie in it in the order in which they were made, and are never moved, joined or
// divided, so that they are in order of their offsets, too.
type heap struct {
	// more gives all of the memory, of size bytes, with room for that many blocks; nil when it is refused. It does not
	// change what is there, and what is new is zero.
	more func(size uint64, blocks int) []byte

	mem    []byte
	top    uint64 // where the next block will be
	blocks []block
	room   int               // for so many blocks there is memory; a slice may be longer from before
	free   [classes][]uint32 // blocks of each class that may be given out again
	recent int               // the block that was looked up last
}

type block struct {
	off, used uint32
	size      uint32 // there is room for so many bytes
	live      bool
}

func (h *heap) reset(more func(size uint64, blocks int) []byte) {
	h.more, h.mem, h.top, h.room, h.recent = more, nil, base, 0, 0
	if len(h.blocks) == 0 {
		return // none was freed, either
	}
	h.blocks = empty(h.blocks)
	for i := range h.free {
		h.free[i] = empty(h.free[i])
	}
}

func empty[T any](s []T) []T {
	if cap(s) > keep {
		return nil
	}
	return s[:0]
}

// Blocks are of some sizes only: the multiples of 16 up to 128, and above that eight to each power of two.
const classes = 8 + (32-7)*8

// classOf gives the least class of blocks that have room for n bytes, and how much they have. n is from 1 to 2^32.
func classOf(n uint64) (class int, size uint64) {
	if n <= 128 {
		class = int(n+15)/16 - 1
		return class, uint64(class+1) * 16
	}
	k := bits.Len64(n-1) - 1 // n is above 2^k and at most 2^(k+1)
	step := uint64(1) << (k - 3)
	q := (n - 1<<k + step - 1) / step
	return 8*(k-7) + 8 + int(q) - 1, 1<<k + q*step
}

// alloc makes a block, and gives its offset, or 0 when there is no memory for it.
func (h *heap) alloc(n uint64) uint64 {
	if n == 0 || n > math.MaxUint32 {
		return 0
	}
	class, size := classOf(n)
	if list := h.free[class]; len(list) > 0 {
		b := &h.blocks[list[len(list)-1]]
		h.free[class] = list[:len(list)-1]
		b.used, b.live = uint32(n), true
		return uint64(b.off)
	}
	if !h.grow(h.top + size) {
		return 0
	}
	return h.add(n, size)
}

// add makes a block at the top, where there is memory for it.
func (h *heap) add(n, size uint64) uint64 {
	off := h.top
	h.blocks = append(h.blocks, block{off: uint32(off), used: uint32(n), size: uint32(size), live: true})
	h.top += size
	return off
}

// grow has memory for one more block that ends there.
func (h *heap) grow(end uint64) bool {
	if end > math.MaxUint32 {
		return false
	}
	size := max((end+page-1)/page*page, uint64(len(h.mem)))
	room := h.room
	if len(h.blocks) == room {
		room = max(64, room+room/2)
	}
	if size == uint64(len(h.mem)) && room == h.room {
		return true
	}
	mem := h.more(size, room)
	if mem == nil {
		return false
	}
	h.mem, h.room = mem, room
	if room > cap(h.blocks) {
		grown := make([]block, len(h.blocks), room)
		copy(grown, h.blocks)
		h.blocks = grown
	}
	return true
}

// fill makes a block of all that can be read. read fills the slice unless its end comes before, when it gives io.EOF.
// ok is false when there is no memory. Nothing is made of no bytes, nor on error.
func (h *heap) fill(read func([]byte) (int, error)) (off, n uint64, ok bool, err error) {
	for step := uint64(1); ; step = min(max(2*step, page), mostStep) {
		if !h.grow(h.top+n+step) && !h.grow(h.top+n+1) {
			return 0, 0, false, nil
		}
		k, err := read(h.mem[h.top+n:])
		n += uint64(k)
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, 0, true, err
		}
	}
	if n == 0 {
		return 0, 0, true, nil
	}
	// Its room is a little less than that of its class, perhaps; when it is freed it counts as one below.
	return h.add(n, (n+15)/16*16), n, true, nil
}

// find gives the block of a handle, nil when there is none.
func (h *heap) find(off uint64) *block {
	if off < base || off >= h.top {
		return nil
	}
	i := h.recent
	if i >= len(h.blocks) || uint64(h.blocks[i].off) != off {
		i = sort.Search(len(h.blocks), func(i int) bool { return uint64(h.blocks[i].off) >= off })
		if i == len(h.blocks) || uint64(h.blocks[i].off) != off {
			return nil
		}
		h.recent = i
	}
	if b := &h.blocks[i]; b.live {
		return b
	}
	return nil
}

// release frees a block that find gave.
func (h *heap) release(b *block) {
	b.live = false
	class, size := classOf(uint64(b.size))
	if size > uint64(b.size) {
		class-- // there is one, since sizes are multiples of 16
	}
	h.free[class] = append(h.free[class], uint32(h.recent))
}

// bytes is the content of a block.
func (h *heap) bytes(b *block) []byte { return h.mem[b.off : b.off+b.used] }

// within tells whether n bytes from off on lie in what was given out.
func (h *heap) within(off, n uint64) bool { return off >= base && off <= h.top && n <= h.top-off }
