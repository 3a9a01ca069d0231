package sched

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// A node may lend some of what it has to nodes of other realms, strangers: Config.Share. Their work has turns of its own, which
// come when nothing else can run, and never takes more than the share. Strangers are asked only by a node with an idle slot
// to lend, after all of its realm that it would ask. When work of the realm waits here, strangers' that waits, too, is given back.
//
// Of work that is owned here strangers get what is to be offloaded.

// loan is what strangers' tasks use at the moment.
type loan struct {
	slots           int
	memory, scratch uint64
}

// turnsOf is the top of the shares that w has a part in.
func (c *Core) turnsOf(w *work) *party {
	if w.lease.Outside {
		return c.outer
	}
	return c.top
}

// lendable reports whether a task of a stranger's fits into what is left of the share. One that others wait for has room if none
// runs: else those, which are parked, could keep it out for ever.
func (c *Core) lendable(w *work) bool {
	cl, s := &w.lease.Class, &c.cfg.Share
	room := c.loan.memory+cl.Memory <= s.Memory && c.loan.scratch+cl.Scratch <= s.Scratch
	return c.loan.slots+w.cores <= s.Slots && (room || c.loan.slots == 0 && cl.Depth > 0) && c.roomy(w)
}

// lends reports whether a stranger may be asked for work: a slot of the share is idle, and nothing else is to be done.
func (c *Core) lends() bool {
	return len(c.idle) > 0 && c.loan.slots < c.cfg.Share.Slots && !c.keeping && len(c.top.turns.list) == 0 && len(c.outer.stock) == 0
}

// stranger reports whether a peer is of another realm.
func (c *Core) stranger(p peer.ID) bool {
	n := c.peers[p]
	return n != nil && n.outside
}

// mayAsk reports whether a peer may be asked for work now.
func (c *Core) mayAsk(p peer.ID) bool { return !c.stranger(p) || c.lends() }

// goBeyond begins the part of a round in which strangers are asked, and reports whether there is one.
func (c *Core) goBeyond() bool {
	if c.beyond || c.asleep || !c.lends() || !slices.ContainsFunc(c.around, func(n *neighbour) bool { return n.outside }) {
		return false
	}
	c.beyond, c.next, c.tried = true, 0, 0
	return true
}

// related takes in of which realm a peer is that was there before.
func (c *Core) related(n *neighbour, outside bool) {
	if n.outside == outside {
		return
	}
	n.outside = outside
	n.round = 0
	// It may have asked as what it is before this node heard of it: then it waits for work all the same.
	from, to := &c.thieves, &c.strangers
	if !outside {
		from, to = to, from
	}
	if i := slices.Index(*from, n.id); i >= 0 {
		if *from = slices.Delete(*from, i, i+1); len(*to) < c.cfg.MaxWaiting && !slices.Contains(*to, n.id) {
			*to = append(*to, n.id)
		}
	}
	c.sleep = c.cfg.MinSleep // it may not have heard of this node yet
	if c.asleep {
		c.newRound()
	}
}

// yield gives back what waits here of strangers' work when work of the realm does.
func (c *Core) yield() {
	if len(c.outer.stock) == 0 || len(c.top.turns.list) == 0 {
		return
	}
	for _, w := range c.held {
		if !w.lease.Outside || w.queue.tasks == 0 {
			continue
		}
		back := slices.Clone(w.queue.list())
		c.unqueue(w)
		c.do(grid.SendClaim{To: w.lease.Owner, Work: w.lease.Work(), Epoch: w.lease.Epoch, Spans: c.holding(w), Back: normal(back)})
	}
}

// returned queues what a node gives back of its leases.
func (c *Core) returned(s *stage, from peer.ID, spans []grid.Span) {
	for _, span := range c.bounded(spans) {
		span.Hi = min(span.Hi, s.tasks)
		if span.Lo >= span.Hi {
			continue
		}
		for _, e := range s.holds.take(span, func(e *hold) bool { return e.kind == lent && e.node == from }) {
			for _, run := range s.promote(e.Span) {
				c.queue(s, run, false)
			}
		}
	}
}

// wakeStrangers tells strangers that got nothing, no more than there are tasks and none of those nodes and realms, that there is
// something for them.
func (c *Core) wakeStrangers(tasks uint64, but []peer.ID) {
	c.strangers = slices.DeleteFunc(c.strangers, func(p peer.ID) bool {
		if tasks == 0 || isAmong(but, p, c.realmOf(p)) {
			return false
		}
		tasks--
		c.do(grid.Wake{To: p})
		return true
	})
}

// offloaded counts what is queued for strangers, too.
func (c *Core) offloaded() (tasks uint64) {
	for _, w := range c.ring {
		if w.lease.Class.Offload && !w.lease.Class.Pinned {
			tasks += uint64(w.queue.tasks)
		}
	}
	return tasks
}

// offersBeyond counts the tasks on offer that strangers may take, too.
func (c *Core) offersBeyond() (n int) {
	if len(c.strangers) == 0 {
		return 0
	}
	for _, s := range c.offering {
		if !s.work.lease.Class.Offload {
			continue
		}
		for i := range s.holds.list {
			if e := &s.holds.list[i]; e.kind == onOffer {
				n += int(e.Len())
			}
		}
	}
	return n
}
