package sched

import (
	"slices"

	"github.com/wasmgrid/wasmgrid/grid"
)

// parked is a grain without a slot: its task waits for others. Its tasks stay booked as running here, and
// leases on them are renewed.
type parked struct {
	grain
	back bool // it wants a slot again, and is in Core.back
}

// parkGrain takes the grain of a slot out of it. The slot is free for others at once, so tasks that wait for
// tasks cannot fill the node and stop it. From then on the work gets grains of one task: what is behind a
// parked task in its grain waits with it.
func (c *Core) parkGrain(ev grid.Parked) {
	if !c.busy(ev.Slot) || c.parked[ev.Ticket] != nil {
		return
	}
	g := c.vacate(ev.Slot, 0)
	g.parked = true
	g.work.parks = true
	if c.parked == nil {
		c.parked = make(map[uint64]*parked)
	}
	c.parked[ev.Ticket] = &parked{grain: g}
}

// unpark has a parked grain wait for a slot, or gives it up. A grain that was given its slot already is
// not parked any more, and ends by GrainDone.
func (c *Core) unpark(ev grid.Unparked) {
	p := c.parked[ev.Ticket]
	switch {
	case p == nil:
	case ev.Gone:
		delete(c.parked, ev.Ticket)
		if p.back {
			c.back = slices.DeleteFunc(c.back, func(t uint64) bool { return t == ev.Ticket })
		}
		w := p.work
		c.end(w)
		if w.book != nil && !w.closed {
			c.giveBack(w, p.span, false)
		}
	case !p.back:
		p.back = true
		c.back = append(c.back, ev.Ticket)
	}
}

// resume gives idle slots to the parked grains that want one, first come first served, and reports whether
// all have got theirs whose users may use another.
func (c *Core) resume() bool {
	for i := 0; i < len(c.back); {
		p := c.parked[c.back[i]]
		if !c.may(p.work) || p.work.lease.Outside && c.loan.slots+p.work.cores > c.cfg.Share.Slots {
			i++
			continue
		}
		if len(c.idle) < p.work.cores {
			return false
		}
		ticket := c.back[i]
		c.back = slices.Delete(c.back, i, i+1)
		delete(c.parked, ticket)
		slot := c.occupy(p.grain, 0, c.cfg.Grain)
		c.do(grid.GiveSlot{Slot: slot, Ticket: ticket})
		if p.work.closed {
			c.do(grid.StopGrain{Slot: slot}) // its job may go on without it
		}
	}
	return true
}
