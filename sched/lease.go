package sched

import (
	"math/bits"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// hold says where the tasks of a span are that are ready and neither queued here nor settled.
type hold struct {
	grid.Span
	kind  holdKind
	node  peer.ID // who has them; when they wait or are offered, on whom they failed last
	until instant // when they are queued again unless something happens before
	since instant // when they were given, or something was heard of them
	// called: it was asked to drop them, unless it runs them.
	called bool
}

type holdKind uint8

const (
	running  holdKind = iota + 1 // in a slot here; until never, for a GrainDone always follows
	lent                         // leased to another node
	waiting                      // for the back-off after a host failure to pass
	onOffer                      // to nodes on which they did not fail
	kept                         // until more may be handed out; never by itself
	withheld                     // with a result that is not believed yet; never by itself
)

// holds maps the tasks of one stage to their holds: disjoint entries in order, found by bisection. It
// has an entry for each grain and each claim, not for each task.
type holds struct {
	list    []hold
	scratch []hold
}

// search is the index of the first entry that ends after task i.
func (h *holds) search(i uint32) int {
	lo, hi := 0, len(h.list)
	for lo < hi {
		if k := (lo + hi) / 2; h.list[k].Hi <= i {
			lo = k + 1
		} else {
			hi = k
		}
	}
	return lo
}

// at is the entry that covers task i, nil when there is none.
func (h *holds) at(i uint32) *hold {
	if k := h.search(i); k < len(h.list) && h.list[k].Lo <= i {
		return &h.list[k]
	}
	return nil
}

// over lists the entries that overlap s. They are the map's own: valid until it changes.
func (h *holds) over(s grid.Span) []hold {
	i := h.search(s.Lo)
	j := i
	for j < len(h.list) && h.list[j].Lo < s.Hi {
		j++
	}
	return h.list[i:j]
}

// put makes e the entry of its span, except for tasks that run here: those stay as they are.
func (h *holds) put(e hold) { h.splice(e) }

// clear removes the entries of s and returns how many tasks of it had one.
func (h *holds) clear(s grid.Span) (had uint32) { return h.splice(hold{Span: s}) }

func (h *holds) splice(e hold) (had uint32) {
	i := h.search(e.Lo)
	if e.kind == 0 && i < len(h.list) && h.list[i].Span == e.Span { // as nearly always
		h.list = slices.Delete(h.list, i, i+1)
		return e.Len()
	}
	j := i
	lo := e.Lo // of the part of e that is not written yet
	out := h.scratch[:0]
	var tail hold
	for ; j < len(h.list) && h.list[j].Lo < e.Hi; j++ {
		o := h.list[j]
		had += min(o.Hi, e.Hi) - max(o.Lo, e.Lo)
		if o.kind == running && e.kind != 0 && e.kind != waiting {
			if lo < o.Lo {
				out = append(out, e.with(lo, o.Lo))
			}
			out = append(out, o)
			lo = o.Hi
			continue
		}
		if o.Lo < e.Lo {
			out = append(out, o.with(o.Lo, e.Lo))
		}
		if o.Hi > e.Hi {
			tail = o.with(e.Hi, o.Hi)
		}
	}
	if e.kind != 0 && lo < e.Hi {
		part := e.with(lo, e.Hi)
		// Failures of one grain come one by one: grow the entry of the one before. Grains stay apart.
		if e.kind != running && lo == e.Lo && i > 0 && len(out) == 0 && h.list[i-1].Hi == lo && h.list[i-1].same(e) {
			i--
			part.Lo = h.list[i].Lo
		}
		out = append(out, part)
	}
	if tail.kind != 0 {
		out = append(out, tail)
	}
	h.list = slices.Replace(h.list, i, j, out...)
	h.scratch = out
	return had
}

// take removes what of s is under entries that match, in one pass, and returns that.
func (h *holds) take(s grid.Span, match func(*hold) bool) (taken []hold) {
	i := h.search(s.Lo)
	j := i
	out := h.scratch[:0]
	for ; j < len(h.list) && h.list[j].Lo < s.Hi; j++ {
		e := h.list[j]
		if !match(&e) {
			out = append(out, e)
			continue
		}
		lo, hi := max(e.Lo, s.Lo), min(e.Hi, s.Hi)
		if e.Lo < lo {
			out = append(out, e.with(e.Lo, lo))
		}
		taken = append(taken, e.with(lo, hi))
		if hi < e.Hi {
			out = append(out, e.with(hi, e.Hi))
		}
	}
	h.list = slices.Replace(h.list, i, j, out...)
	h.scratch = out
	return taken
}

func (e hold) with(lo, hi uint32) hold { e.Span = grid.Span{Lo: lo, Hi: hi}; return e }

func (e hold) same(o hold) bool {
	return e.kind == o.kind && e.until == o.until && e.since == o.since && e.node == o.node && e.called == o.called
}

// expire removes the entries that are over by now, appends them to out, and returns that and when
// the next of the others is.
func (h *holds) expire(now instant, out []hold) ([]hold, instant) {
	next := never
	kept := h.list[:0]
	for _, e := range h.list {
		if e.until <= now {
			out = append(out, e)
			continue
		}
		next = min(next, e.until)
		kept = append(kept, e)
	}
	clear(h.list[len(kept):])
	h.list = kept
	return out, next
}

// bitmap has one bit for each task of a stage.
type bitmap []uint64

func newBitmap(n uint32) bitmap { return make(bitmap, (uint64(n)+63)/64) }

// has reports the bit of i; those beyond the end are clear.
func (b bitmap) has(i uint32) bool { return int(i/64) < len(b) && b[i/64]>>(i%64)&1 != 0 }

// set sets the bits of s.
func (b bitmap) set(s grid.Span) {
	for i, mask := range words(s) {
		b[i] |= mask
	}
}

// unset clears the bits of s. A nil bitmap has none set.
func (b bitmap) unset(s grid.Span) {
	if b == nil {
		return
	}
	for i, mask := range words(s) {
		b[i] &^= mask
	}
}

// words yields the words that s is part of, each with its bits.
func words(s grid.Span) func(yield func(uint32, uint64) bool) {
	return func(yield func(uint32, uint64) bool) {
		for lo := s.Lo; lo < s.Hi; {
			n := min(64-lo%64, s.Hi-lo)
			if !yield(lo/64, ^uint64(0)>>(64-n)<<(lo%64)) {
				return
			}
			lo += n
		}
	}
}

// clearRuns and setRuns yield the longest runs of clear, or set, bits in s, in order. Bits of a run
// that was yielded may be changed meanwhile.
func (b bitmap) clearRuns(s grid.Span) func(yield func(grid.Span) bool) { return b.runs(s, ^uint64(0)) }
func (b bitmap) setRuns(s grid.Span) func(yield func(grid.Span) bool)   { return b.runs(s, 0) }

func (b bitmap) runs(s grid.Span, flip uint64) func(yield func(grid.Span) bool) {
	return func(yield func(grid.Span) bool) {
		for lo := s.Lo; lo < s.Hi; {
			if lo = b.next(lo, s.Hi, flip); lo == s.Hi {
				return
			}
			hi := b.next(lo, s.Hi, ^flip)
			if !yield(grid.Span{Lo: lo, Hi: hi}) {
				return
			}
			lo = hi
		}
	}
}

// next finds the first bit in [i, end) that is set after flipping with flip, else end.
func (b bitmap) next(i, end uint32, flip uint64) uint32 {
	for i < end {
		if w := (b[i/64] ^ flip) >> (i % 64); w != 0 {
			return min(i+uint32(bits.TrailingZeros64(w)), end)
		}
		i += 64 - i%64
	}
	return end
}
