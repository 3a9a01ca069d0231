package sched

import (
	"slices"

	"github.com/wasmgrid/wasmgrid/grid"
)

// spans is a double-ended queue of disjoint, non-empty spans of one stage. Own workers take from its
// new end, thieves from its old end, so that the two meet as late as possible.
type spans struct {
	buf   []grid.Span // buf[head:] from old to new
	head  int
	tasks uint32 // in all of them
}

func (q *spans) list() []grid.Span { return q.buf[q.head:] }

// pushNew adds s, which must not overlap anything queued, at the new end.
func (q *spans) pushNew(s grid.Span) {
	q.tasks += s.Len()
	if len(q.list()) > 0 {
		switch last := &q.buf[len(q.buf)-1]; {
		case last.Hi == s.Lo:
			last.Hi = s.Hi
			return
		case last.Lo == s.Hi:
			last.Lo = s.Lo
			return
		}
	}
	q.buf = append(q.buf, s)
}

// pushOld adds s, which must not overlap anything queued, at the old end.
func (q *spans) pushOld(s grid.Span) {
	q.tasks += s.Len()
	if len(q.list()) > 0 {
		switch first := &q.buf[q.head]; {
		case first.Hi == s.Lo:
			first.Hi = s.Hi
			return
		case first.Lo == s.Hi:
			first.Lo = s.Lo
			return
		}
	}
	if q.head == 0 { // room in front for as many again keeps the cost per push constant
		room := len(q.buf) + 4
		buf := make([]grid.Span, room+len(q.buf), room+2*len(q.buf))
		copy(buf[room:], q.buf)
		q.buf, q.head = buf, room
	}
	q.head--
	q.buf[q.head] = s
}

// takeNew removes at most n > 0 tasks from the newest span, lowest first. The queue must not be empty.
func (q *spans) takeNew(n uint32) grid.Span {
	last := &q.buf[len(q.buf)-1]
	s := grid.Span{Lo: last.Lo, Hi: last.Lo + min(n, last.Len())}
	last.Lo = s.Hi
	if last.Len() == 0 {
		q.buf = q.buf[:len(q.buf)-1]
	}
	q.took(s)
	return s
}

// takeOld removes at most n > 0 tasks from the oldest span, highest first. The queue must not be empty.
func (q *spans) takeOld(n uint32) grid.Span {
	first := &q.buf[q.head]
	s := grid.Span{Lo: first.Hi - min(n, first.Len()), Hi: first.Hi}
	first.Hi = s.Lo
	if first.Len() == 0 {
		q.head++
	}
	q.took(s)
	return s
}

func (q *spans) took(s grid.Span) {
	if q.tasks -= s.Len(); q.tasks == 0 {
		q.clear()
	}
}

func (q *spans) clear() { q.buf, q.head, q.tasks = q.buf[:0], 0, 0 }

// cut removes whatever of cuts, sorted and disjoint, is queued, and returns how many tasks that were.
// It takes one pass, however many cuts there are.
func (q *spans) cut(cuts []grid.Span) uint32 {
	before := q.tasks
	if len(cuts) == 0 || before == 0 {
		return 0
	}
	var kept []grid.Span // once set, what remains; a span that is split makes more than there were
	for i, s := range q.list() {
		k := firstAfter(cuts, s.Lo)
		if k == len(cuts) || cuts[k].Lo >= s.Hi {
			if kept != nil {
				kept = append(kept, s)
			}
			continue
		}
		if kept == nil {
			kept = append(make([]grid.Span, 0, len(q.list())+1), q.list()[:i]...)
		}
		q.tasks -= s.Len()
		for rest := range without(s, cuts[k:]) {
			kept = append(kept, rest)
			q.tasks += rest.Len()
		}
	}
	if kept != nil {
		q.buf, q.head = kept, 0
	}
	return before - q.tasks
}

// firstAfter is the index of the first of list, sorted and disjoint, that ends after task i.
func firstAfter(list []grid.Span, i uint32) int {
	k, _ := slices.BinarySearchFunc(list, i, func(s grid.Span, i uint32) int {
		if s.Hi <= i {
			return -1
		}
		return 1
	})
	return k
}

// without yields what is left of s when cuts, sorted and disjoint, are taken out of it.
func without(s grid.Span, cuts []grid.Span) func(yield func(grid.Span) bool) {
	return func(yield func(grid.Span) bool) {
		for _, c := range cuts {
			if c.Lo >= s.Hi {
				break
			}
			if c.Lo > s.Lo && !yield(grid.Span{Lo: s.Lo, Hi: c.Lo}) {
				return
			}
			s.Lo = max(s.Lo, c.Hi)
			if s.Lo >= s.Hi {
				return
			}
		}
		if s.Lo < s.Hi {
			yield(s)
		}
	}
}

// normal sorts list in place, drops empty spans, joins those that overlap or touch, and returns the
// rest of it.
func normal(list []grid.Span) []grid.Span {
	list = slices.DeleteFunc(list, func(s grid.Span) bool { return s.Lo >= s.Hi })
	slices.SortFunc(list, func(a, b grid.Span) int {
		switch {
		case a.Lo < b.Lo:
			return -1
		case a.Lo > b.Lo:
			return 1
		}
		return 0
	})
	out := list[:0]
	for _, s := range list {
		if n := len(out); n > 0 && out[n-1].Hi >= s.Lo {
			out[n-1].Hi = max(out[n-1].Hi, s.Hi)
		} else {
			out = append(out, s)
		}
	}
	return out
}

// work is one stage of one job as far as this node may run it: what is queued of it here, what of it
// runs here, and how long its tasks take. All works share the node's deque: the ring of those that have
// something queued, in no order; see party for the order in which they are run.
type work struct {
	lease   grid.Lease // over an empty span: everything but the numbers
	book    *stage     // nil when another node owns it
	queue   spans
	running int  // grains, in slots or parked
	closed  bool // over: what its slots still do is of no interest

	mean  float64 // nanoseconds per task, smoothed; 0 when nothing was measured
	ramp  uint32  // the most tasks in its next grain
	parks bool    // its tasks wait for others

	party                    *party  // whose share its slots' time comes from; nil before anything was queued
	came                     uint64  // when something was queued first
	cores                    int     // slots that a task needs
	fits                     bool    // it can run here
	told                     bool    // that no node can
	tellAt                   instant // when to tell that if nothing changes; 0: never
	ringAt, mineAt, theirsAt int     // from 1; 0 when nothing is queued, or cannot run here

	void     []grid.Span // of another owner's: what it has revoked, as far as that is remembered
	gone     instant     // since when the owner is away; never when it is not known to be
	incoming []grid.Span // scratch for accept
	ahead    grid.Span   // of whose inputs it was said that they will be needed
}

// push queues a span of w. Old puts it where thieves take first.
func (c *Core) push(w *work, s grid.Span, old bool) {
	if w.queue.tasks == 0 {
		c.enlist(w)
	}
	if old {
		w.queue.pushOld(s)
	} else {
		w.queue.pushNew(s)
	}
	c.queued += uint64(s.Len())
	c.grew = true
	c.watch(w)
}

// cut removes cuts, sorted and disjoint, from what is queued of w.
func (c *Core) cut(w *work, cuts []grid.Span) {
	n := w.queue.cut(cuts)
	if c.queued -= uint64(n); n > 0 && w.queue.tasks == 0 {
		w.queue.clear()
		c.delist(w)
	}
}

// unqueue forgets everything queued of w.
func (c *Core) unqueue(w *work) {
	if w.queue.tasks > 0 {
		c.queued -= uint64(w.queue.tasks)
		w.queue = spans{}
		c.delist(w)
	}
}
