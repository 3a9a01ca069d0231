package sched

import (
	"slices"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// grain is what a slot runs at a time.
type grain struct {
	work   *work // nil: none
	span   grid.Span
	used   time.Duration // of a slot, before it was parked or ended
	parked bool          // at least once
}

// slot is one worker of this node.
type slot struct {
	grain         // of no work when idle
	since instant // when it began, or went on
	soon  instant // it was expected to be idle well before; 0 when nothing was expected
}

// busy reports whether a slot, from outside, runs something.
func (c *Core) busy(i int) bool { return i >= 0 && i < len(c.slots) && c.slots[i].work != nil }

// occupy puts g in an idle slot, of which there must be one.
func (c *Core) occupy(g grain, soon instant) int {
	last := len(c.idle) - 1
	i := c.idle[last]
	c.idle = c.idle[:last]
	c.slots[i] = slot{grain: g, since: c.now, soon: soon}
	return i
}

// vacate makes a busy slot idle and returns what it ran.
func (c *Core) vacate(i int) grain {
	g := c.slots[i].grain
	g.used += time.Duration(c.now - c.slots[i].since)
	c.slots[i] = slot{}
	c.idle = append(c.idle, i)
	return g
}

// dispatch gives every idle slot a grain, taking turns between the works that have something queued:
// a job of ten tasks does not wait behind one of a million.
func (c *Core) dispatch() {
	if !c.resume() || c.benched() {
		return
	}
	for len(c.idle) > 0 && len(c.ring) > 0 {
		if c.turn >= len(c.ring) {
			c.turn = 0
		}
		w := c.ring[c.turn]
		s := w.queue.takeNew(c.grain(w))
		c.queued -= uint64(s.Len())
		c.turn++
		if w.queue.tasks == 0 {
			c.unring(w)
		}
		if w.book != nil {
			c.hold(w.book, hold{Span: s, kind: running, node: c.cfg.Self, until: never})
			w.book.job.begun = true
		}
		c.begin(w, s)
	}
}

// begin runs a span of w in an idle slot.
func (c *Core) begin(w *work, s grid.Span) {
	i := c.occupy(grain{work: w, span: s}, c.soon(w, s.Len()))
	w.running++
	c.do(grid.Run{Slot: i, Lease: w.lease.With(s)})
}

// soon is until when a slot that begins n tasks of w counts as one that will be idle in about the time that it
// takes to get more, 0 when it does not.
func (c *Core) soon(w *work, n uint32) instant {
	lead := c.lead()
	if w.mean == 0 || w.mean*float64(n) > 2*lead {
		return 0
	}
	return c.now.add(time.Duration(2 * lead))
}

// grain is how many tasks the next grain of w has: what is measured to take Config.Grain, reached by
// doubling from 1, and no more than half of each slot's share of the queue, so that the slots finish
// together.
func (c *Core) grain(w *work) uint32 {
	if w.parks {
		return 1
	}
	n := min(w.ramp, c.cfg.MaxGrain, w.queue.tasks/uint32(2*len(c.slots)))
	if w.mean > 0 {
		n = uint32(min(float64(n), float64(c.cfg.Grain)/w.mean))
	}
	return max(n, 1)
}

// measure learns from a grain of n tasks, of which ran were really run. A quarter of the newest is
// enough to follow a stage whose tasks grow, and not to jump at each that is odd.
func (w *work) measure(n uint32, took time.Duration, ran int) {
	if ran > 0 && took > 0 {
		one := float64(took) / float64(ran)
		if w.mean == 0 {
			w.mean = one
		}
		w.mean += (one - w.mean) / 4
	}
	w.ramp = max(w.ramp, 2*n)
}

func (c *Core) grainDone(ev grid.GrainDone) {
	if !c.busy(ev.Slot) {
		return
	}
	g := c.vacate(ev.Slot)
	w := g.work
	w.running--
	if w.closed {
		return
	}
	w.measure(g.span.Len(), g.took(ev), ev.Ran)
	if w.book == nil {
		return
	}
	c.report(w.book, c.cfg.Self, ev.Results)
	if !w.closed {
		c.giveBack(w, g.span, len(ev.Results) > 0)
	}
}

// giveBack queues what a worker of this node took and did not do. When it did nothing at all, that
// waits: else a worker that cannot work would spin.
func (c *Core) giveBack(w *work, s grid.Span, some bool) {
	st := w.book
	c.over = c.over[:0]
	for _, e := range st.holds.over(s) {
		if e.kind == running {
			c.over = append(c.over, e)
		}
	}
	for _, e := range slices.Clone(st.copies.over(s)) {
		if e.kind == running {
			st.copies.clear(e.Span)
		}
	}
	for _, e := range c.over {
		for _, run := range st.promote(e.Span) {
			if some {
				st.holds.clear(run)
				c.push(w, run, false)
				continue
			}
			c.hold(st, hold{Span: run, kind: waiting, node: c.cfg.Self, until: c.now.add(c.cfg.Backoff)})
		}
	}
}
