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
	grain           // of no work when it is idle, or kept
	keeper int      // the slot, from 1, whose grain has this one as one of its cores
	since  instant  // when the grain began, or went on
	soon   instant  // it was expected to be idle well before; 0 when nothing was expected
	paid   instant  // until when it is charged for
	prices [2]price // at which its job, and its user, paid last
}

// busy reports whether a slot, from outside, runs something.
func (c *Core) busy(i int) bool { return i >= 0 && i < len(c.slots) && c.slots[i].work != nil }

// occupy puts g in an idle slot, with as many others as its tasks need cores, and charges for it. There must
// be so many.
func (c *Core) occupy(g grain, soon instant, expected time.Duration) int {
	w := g.work
	main := 0
	for k := range w.cores {
		last := len(c.idle) - 1
		i := c.idle[last]
		c.idle = c.idle[:last]
		if k == 0 {
			main = i
			c.slots[i] = slot{grain: g, since: c.now, soon: soon, paid: c.now.add(expected)}
			continue
		}
		c.slots[i] = slot{keeper: main + 1, soon: soon}
	}
	w.party.up.busy += w.cores
	if w.lease.Outside {
		c.loan.slots += w.cores
	}
	c.slots[main].charge(expected)
	c.meterAt = min(c.meterAt, c.late(&c.slots[main]))
	return main
}

// vacate makes a busy slot idle, with those that it has as cores, and returns what it ran.
func (c *Core) vacate(i int, took time.Duration) grain {
	s := &c.slots[i]
	g := s.grain
	used := max(time.Duration(c.now-s.since), took, leastUse)
	s.charge(used - time.Duration(s.paid-s.since))
	g.used += used
	user := g.work.party.up
	user.busy -= g.work.cores
	if g.work.lease.Outside {
		c.loan.slots -= g.work.cores
	}
	c.reconsider(user)
	for k := range c.slots {
		if g.work.cores > 1 && c.slots[k].keeper == i+1 {
			c.slots[k] = slot{}
			c.idle = append(c.idle, k)
		}
	}
	c.slots[i] = slot{}
	c.idle = append(c.idle, i)
	return g
}

// begin and end book that a grain of w exists, in a slot or parked.
func (c *Core) begin(w *work) {
	w.running++
	w.party.grains++
	w.party.up.grains++
	c.reserve(w)
}

func (c *Core) end(w *work) {
	w.running--
	w.party.grains--
	w.party.up.grains--
	c.release(w)
}

// dispatch gives idle slots grains of the works whose turn it is. When the next needs more than is idle, all
// of that is kept for it, or it would wait for ever behind those that need less.
func (c *Core) dispatch() {
	if c.keeping = !c.resume(); c.keeping || len(c.idle) == 0 || c.benched() {
		return
	}
	for len(c.idle) > 0 {
		w := c.choose()
		if w == nil {
			return
		}
		if c.keeping = !c.roomy(w); c.keeping {
			return
		}
		s := w.queue.takeNew(c.grain(w))
		c.queued -= uint64(s.Len())
		i := c.run(w, s)
		if w.queue.tasks == 0 {
			c.delist(w)
		}
		if w.book != nil {
			c.hold(w.book, hold{Span: s, kind: running, node: c.cfg.Self, until: never})
			w.book.job.begun = true
		}
		c.do(grid.Run{Slot: i, Lease: w.lease.With(s)})
	}
}

// run puts a span of w, for which there is room, in a slot.
func (c *Core) run(w *work, s grid.Span) int {
	c.begin(w)
	return c.occupy(grain{work: w, span: s}, c.soon(w, s.Len()), c.expected(w, s.Len()))
}

// expected is how long n tasks of w will take, as far as is known.
func (c *Core) expected(w *work, n uint32) time.Duration {
	if w.mean == 0 {
		return c.cfg.Grain
	}
	return time.Duration(min(w.mean*float64(n), float64(maxExpected)))
}

const maxExpected = time.Hour

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
	n := min(w.ramp, c.cfg.MaxGrain, w.queue.tasks/uint32(2*max(1, len(c.slots)/w.cores)))
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
	took := ev.Took
	if c.slots[ev.Slot].parked {
		took = 0 // it may count the time that the task waited for others
	}
	g := c.vacate(ev.Slot, took)
	if g.parked {
		took = g.used
	}
	w := g.work
	c.end(w)
	if w.closed {
		return
	}
	w.measure(g.span.Len(), took, ev.Ran)
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
	if len(st.copies.list) > 0 {
		for _, e := range slices.Clone(st.copies.over(s)) {
			if e.kind == running {
				st.copies.clear(e.Span)
			}
		}
	}
	for _, e := range c.over {
		for _, run := range st.promote(e.Span) {
			if some {
				st.holds.clear(run)
				c.queue(st, run, false)
				continue
			}
			c.hold(st, hold{Span: run, kind: waiting, node: c.cfg.Self, until: c.now.add(c.cfg.Backoff)})
		}
	}
}
