package sched

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Near its end a stage waits for a few tasks, and some of those may be on a node that is slow, or hangs. When
// nothing of a pure stage is queued any more, tasks of which nothing was heard for more than twice their
// measured time, and Config.Slack, are run a second time: on an idle slot, or by a thief. What comes first
// counts, and the other is told to stop. A copy is booked beside the hold of its task, and takes its place
// when that ends without a result.
//
// Strangers may take tasks never to give a result, and claim them for ever. So of what a stranger holds a copy is also run when nothing
// is measured, and not by another stranger if it can be here.

// hoarded is when a task is slow that a stranger holds, of a stage of which no task has ended.
const hoarded = time.Minute

// slow reports whether it is time for a second copy of what e holds.
func (c *Core) slow(s *stage, e *hold) bool {
	mean := s.work.mean
	if mean == 0 {
		mean = s.guess
	}
	if mean == 0 {
		return e.kind == lent && c.stranger(e.node) && c.now > e.since.add(hoarded)
	}
	return (e.kind == running || e.kind == lent) &&
		float64(c.now-e.since) > 2*mean+float64(c.cfg.Slack)
}

// tail reports whether all of s that is ready is in hands: nothing is queued, waits or is kept.
func (s *stage) tail() bool {
	return s.plan.Class.Pure && s.left > 0 && s.queued() == 0 && len(s.holds.list) > 0 &&
		!slices.ContainsFunc(s.holds.list, func(e hold) bool {
			return e.kind != running && e.kind != lent && e.kind != withheld && (e.kind != onOffer || len(s.voters) == 0)
		})
}

// findTails looks for slow tasks, and wakes thieves for them.
func (c *Core) findTails() {
	clear(c.tails)
	c.tailAt, c.tails = never, c.tails[:0]
	for _, j := range c.order {
		for _, s := range j.stages {
			if s.left == 0 || !s.plan.Class.Pure {
				continue
			}
			c.tailAt = c.now.add(c.cfg.Slack)
			if j.paused || !s.tail() {
				continue
			}
			var holders []peer.ID
			n := 0
			for i := range s.holds.list {
				if e := &s.holds.list[i]; c.slow(s, e) && len(s.copies.over(e.Span)) == 0 {
					n += int(e.Len())
					holders = append(holders, e.node)
				}
			}
			if n > 0 {
				c.tails = append(c.tails, s)
			}
			if n = min(n, c.mayCopy()) - len(c.idle); n > 0 || slices.Contains(holders, c.cfg.Self) {
				c.call(max(n, 1), holders)
			}
		}
	}
}

// mayCopy is how many more copies there may be: enough for one bad node, a fraction of what the swarm has.
func (c *Core) mayCopy() int {
	n := max(2, (len(c.slots)+len(c.around))/4)
	for _, j := range c.order {
		for _, s := range j.stages {
			for _, e := range s.copies.list {
				n -= int(e.Len())
			}
		}
	}
	return n
}

// mayCopy reports whether one more task of j may be handed out, or copy of one.
func (j *job) mayCopy() bool {
	if j.paused {
		return false
	}
	if j.limits.Parallel == 0 {
		return true
	}
	n := j.given
	for _, s := range j.stages {
		for _, e := range s.copies.list {
			n += e.Len()
		}
	}
	return n < j.limits.Parallel
}

// takeSlow takes up to want slow tasks that node does not hold and that have no copy, each of its own. Those
// that were lent last first: the holder has hardly begun them.
func (c *Core) takeSlow(node peer.ID, want int, fits func(*stage) bool, take func(*stage, grid.Span)) {
	if len(c.tails) == 0 {
		return
	}
	want = min(want, c.mayCopy())
	for _, s := range c.tails {
		if want <= 0 || s.left == 0 || !s.tail() {
			continue
		}
		list := slices.Clone(s.holds.list)
		for i := range list {
			e := &list[i]
			if e.node == node || !c.slow(s, e) || s.work.fits && c.stranger(e.node) && c.stranger(node) {
				continue
			}
			for t := e.Hi; t > e.Lo && want > 0 && s.job.mayCopy() && fits(s); t-- {
				one := grid.Span{Lo: t - 1, Hi: t}
				if len(s.copies.over(one)) > 0 || s.ran(t-1, node, c.realmOf(node)) {
					continue
				}
				want--
				c.note(s, grid.EventCopy, e.node, one, "nothing was heard of it for %v: it is run a second time", time.Duration(c.now-e.since).Round(time.Millisecond))
				take(s, one)
			}
		}
	}
}

// copy books a second copy of a task.
func (c *Core) copy(s *stage, e hold) {
	c.due = min(c.due, e.until)
	e.since = c.now
	if e.kind == lent {
		s.job.know(e.node)
	}
	s.copies.put(e)
}

// promote makes the copies of tasks of span their holds, and returns the tasks that have none.
func (s *stage) promote(span grid.Span) []grid.Span {
	if len(s.copies.list) == 0 {
		return []grid.Span{span}
	}
	var copies []grid.Span
	for _, e := range slices.Clone(s.copies.over(span)) {
		e = e.with(max(e.Lo, span.Lo), min(e.Hi, span.Hi))
		s.copies.clear(e.Span)
		s.holds.clear(e.Span)
		s.holds.put(e)
		copies = append(copies, e.Span)
	}
	return slices.Collect(without(span, copies))
}

// heard books that a node that holds tasks of run has ended them: the time they took, and that it gets on.
func (c *Core) heard(s *stage, run grid.Span, from peer.ID) {
	if s.work.mean == 0 {
		for _, e := range s.holds.over(run) {
			if e.kind == lent && e.node == from {
				one := float64(c.now-e.since) / float64(min(e.Hi, run.Hi)-max(e.Lo, run.Lo))
				if s.guess == 0 {
					s.guess = one
				}
				s.guess += (one - s.guess) / 4
			}
		}
	}
	for k := max(s.holds.search(run.Lo), 1) - 1; k < len(s.holds.list) && s.holds.list[k].Lo <= run.Hi; k++ {
		if e := &s.holds.list[k]; e.kind == lent && e.node == from {
			e.since = c.now
		}
	}
}

// supersede notes who runs tasks of run in vain, now that from has ended them.
func (c *Core) supersede(s *stage, run grid.Span, from peer.ID) {
	for _, h := range []*holds{&s.copies, &s.holds} {
		for _, e := range h.over(run) {
			if (e.kind == lent || e.kind == running) && e.node != from && len(s.copies.over(e.Span)) > 0 {
				c.moot = append(c.moot, e.with(max(e.Lo, run.Lo), min(e.Hi, run.Hi)))
			}
		}
	}
	s.copies.clear(run)
}

// revoke stops what runs in vain.
func (c *Core) revoke(s *stage) {
	for i, e := range c.moot {
		if e.node == "" {
			continue
		}
		if e.node == c.cfg.Self {
			for k := range c.slots {
				if sl := &c.slots[k]; s.runs(sl.work) && sl.span.Lo <= e.Lo && e.Hi <= sl.span.Hi &&
					s.settled.next(sl.span.Lo, sl.span.Hi, ^uint64(0)) == sl.span.Hi && s.left > 0 {
					c.do(grid.StopGrain{Slot: k})
				}
			}
			continue
		}
		var spans []grid.Span
		for k := range c.moot[i:] {
			if o := &c.moot[i+k]; o.node == e.node {
				spans = append(spans, o.Span)
				o.node = ""
			}
		}
		c.do(grid.Revoke{To: e.node, Work: s.work.lease.Work(), Epoch: s.job.lease.Epoch, Spans: normal(spans)})
	}
	c.moot = c.moot[:0]
}

// renewCopies renews what of a claim is of copies, and returns the rest. Who holds neither the task nor the copy
// has stolen the copy, most likely.
func (c *Core) renewCopies(s *stage, run grid.Span, from peer.ID, until instant) []grid.Span {
	var claimed []grid.Span
	for _, e := range slices.Clone(s.copies.over(run)) {
		for i := max(e.Lo, run.Lo); i < min(e.Hi, run.Hi); i++ {
			if h := s.holds.at(i); e.kind != lent || h.node == from {
				continue
			}
			one := grid.Span{Lo: i, Hi: i + 1}
			claimed = append(claimed, one)
			c.copy(s, hold{Span: one, kind: lent, node: from, until: until})
		}
	}
	return slices.Collect(without(run, claimed))
}

// revoked drops what is held of another owner's tasks that need not run any more. A grain goes on unless all
// of it is revoked, and not at all because of those that need not run now.
func (c *Core) revoked(ev grid.Revoked) {
	spans := c.bounded(ev.Spans)
	for _, w := range c.held {
		if w.lease.Work() != ev.Work || w.lease.Owner != ev.From || w.lease.Epoch != ev.Epoch || w.bare() {
			continue
		}
		c.cut(w, spans)
		c.shed(w)
		if ev.Queued {
			continue
		}
		before := w.void
		w.void = normal(append(slices.Clone(before), spans...))
		for i := range c.slots {
			if sl := &c.slots[i]; sl.work == w && covers(w.void, sl.span) && !covers(before, sl.span) {
				c.do(grid.StopGrain{Slot: i})
			}
		}
		if len(w.void) > c.cfg.MaxHeld {
			w.void = nil
		}
	}
}

// shed gives up the oldest ranges of w that are queued here, when cuts have made too many: their leases run out.
func (c *Core) shed(w *work) {
	ranges := 0
	for _, o := range c.held {
		ranges += len(o.queue.list())
	}
	if excess := min(ranges-c.cfg.MaxHeld, len(w.queue.list())); excess > 0 {
		c.cut(w, normal(slices.Clone(w.queue.list()[:excess])))
	}
}

// restore forgets that tasks were revoked: the node was given them anew.
func (w *work) restore(s grid.Span) {
	if len(w.void) == 0 {
		return
	}
	var left []grid.Span
	for _, v := range w.void {
		left = slices.AppendSeq(left, without(v, []grid.Span{s}))
	}
	w.void = left
}

// covers reports whether all of s is in list, sorted and disjoint.
func covers(list []grid.Span, s grid.Span) bool {
	k := firstAfter(list, s.Lo)
	return k < len(list) && list[k].Lo <= s.Lo && s.Hi <= list[k].Hi
}
