package sched

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// A job may have its tasks run on several nodes, to compare what comes of it. Whether a task must be run once more
// is for the node to say, by reporting it as Unproven; here it is seen to that another node does it. Such a task is
// offered, as one that failed is, but never to who has run it, nor, if that was a node of another realm, to others of
// that realm: they count once. When nobody has taken it for Config.Patience, and it
// may run here, some of it is put into a queue that no thief gets anything of: so it has its turn also on a busy node.
//
// Those who are given such tasks do not pass them on, as only the owner knows who may run them: their leases are
// Pinned.
//
// A task that is Withheld was run, and nothing is to be done until the node says more of it: that it has ended, or
// that it is Unproven. When nothing else is left of a stage, or nothing
// else of its job is under way, the node is asked for that.

const (
	// maxVoters is how many nodes and realms are remembered to have run a task.
	maxVoters = 128
	// maxLook is how many tasks on offer are looked at for one node.
	maxLook = 1 << 14
	// ages is how many times Config.Patience it takes until what nobody has taken is offered loudly again.
	ages = 10
	// aged is since when such an offer stands: not known, so that offers join.
	aged instant = 1
)

// voted reports whether a task was run by a node and must be run by others.
func (s *stage) voted(i uint32) bool { return len(s.voters[i]) > 0 }

// queue hands out tasks that nobody has: to all, or what others must run to those.
func (c *Core) queue(s *stage, span grid.Span, old bool) {
	if s.job.paused {
		c.keep(s, span)
		return
	}
	if len(s.voters) == 0 {
		c.push(s.work, span, old)
		return
	}
	for run := range alike(span, s.voted) {
		if s.voted(run.Lo) {
			c.offerAgain(s, run, c.now)
		} else {
			c.push(s.work, run, old)
		}
	}
}

// offerAgain offers tasks of which there are results to those nodes that they are not of.
func (c *Core) offerAgain(s *stage, span grid.Span, since instant) {
	wait := c.cfg.Patience
	if since == aged {
		wait *= ages
	}
	c.hold(s, hold{Span: span, kind: onOffer, until: c.now.add(wait), since: since})
	if !slices.Contains(c.offering, s) {
		c.offering = append(c.offering, s)
	}
	if c.offered == 0 {
		c.triedBy = s.voters[span.Lo]
	}
	c.offered += int(span.Len())
}

// lapseAgain ends an offer of such tasks. Those who failed on them may try again.
func (c *Core) lapseAgain(s *stage, span grid.Span) {
	c.attach(s.work)
	mine := func(i uint32) bool {
		return s.work.fits && !c.benched() && !slices.Contains(s.voters[i], c.cfg.Self)
	}
	room := uint32(c.ration(s, len(c.slots))) // that much is taken from the others, who may come yet
	if s.own != nil {
		room -= min(room, s.own.queue.tasks)
	}
	for run := range alike(span, mine) {
		for i := run.Lo; i < run.Hi; i++ {
			if t := s.tries[i]; t != nil {
				t.nodes = nil
			}
		}
		if !mine(run.Lo) {
			c.offerAgain(s, run, aged)
			continue
		}
		mid := run.Lo + min(run.Len(), room)
		if room -= mid - run.Lo; mid > run.Lo {
			c.pushOwn(s, grid.Span{Lo: run.Lo, Hi: mid})
		}
		if mid < run.Hi {
			c.offerAgain(s, grid.Span{Lo: mid, Hi: run.Hi}, c.now)
		}
	}
}

// pushOwn queues tasks for our own slots only.
func (c *Core) pushOwn(s *stage, span grid.Span) {
	if s.own == nil {
		l := s.work.lease
		l.Class.Pinned = true
		s.own = &work{lease: l, book: s, ramp: 1, gone: never, mean: s.work.mean}
	}
	c.push(s.own, span, false)
}

// runs reports whether tasks of s are queued in w, or run as such.
func (s *stage) runs(w *work) bool { return w != nil && (w == s.work || w == s.own) }

// queued is how many tasks of s are.
func (s *stage) queued() uint32 {
	if s.own == nil {
		return s.work.queue.tasks
	}
	return s.work.queue.tasks + s.own.queue.tasks
}

// again is a lease on tasks that may have results.
func (s *stage) again(span grid.Span) grid.Lease {
	l := s.work.lease.With(span)
	l.Class.Pinned = l.Class.Pinned || len(s.voters) > 0
	return l
}

// barredFrom reports whether a node of a realm is not to be given a task, as it has run it, or failed on it, or others of that
// realm have run it.
func (s *stage) barredFrom(i uint32, node, realm peer.ID) bool {
	if t := s.tries[i]; t != nil && slices.Contains(t.nodes, node) {
		return true
	}
	return s.ran(i, node, realm)
}

// ran reports whether a node has run a task, or others of its realm have, if that is another than this node's; "" stands for this
// one's.
func (s *stage) ran(i uint32, node, realm peer.ID) bool {
	return len(s.voters) > 0 && isAmong(s.voters[i], node, realm)
}

func isAmong(voters []peer.ID, node, realm peer.ID) bool {
	return slices.Contains(voters, node) || realm != "" && slices.Contains(voters, realm)
}

// realmOf is the other realm that a peer is of, if that is known.
func (c *Core) realmOf(p peer.ID) peer.ID {
	if n := c.peers[p]; n != nil && n.outside {
		return n.realm
	}
	return ""
}

// portion is how many of the tasks of s on offer a node with so many idle slots is given: as it cannot pass them on, a
// fraction of its even share, but what its slots run at a time. One without an idle slot, which thinks ahead, gets
// nothing when there is not plenty.
func (c *Core) portion(s *stage, node peer.ID, slots int) int {
	least := c.ration(s, slots)
	if node == c.cfg.Self {
		return least
	}
	all := 0
	for i := range s.holds.list {
		if e := &s.holds.list[i]; e.kind == onOffer {
			all += int(e.Len())
		}
	}
	share := all / (4 * (len(c.around) + 1))
	if slots <= 0 && share < least {
		return 0
	}
	return min(max(least, share), int(c.cfg.MaxGive), max(int(c.trust(node)), 1))
}

// ration is how many tasks of s so many slots run at a time.
func (c *Core) ration(s *stage, slots int) int {
	n := 1.0
	if mean := s.work.mean; mean > 0 {
		n = max(n, min(float64(c.cfg.Grain)/mean, float64(c.cfg.MaxGrain)))
	}
	return int(n) * min(max(slots, 1), int(c.cfg.MaxGrain))
}

// unproven books that a node has run task i, and that others are to run it as well, or, with wait,
// that it is withheld. What is to be queued is noted in c.redo, what is no longer to be in c.cuts.
func (c *Core) unproven(s *stage, from peer.ID, i uint32, wait bool) {
	one := grid.Span{Lo: i, Hi: i + 1}
	e := s.holds.at(i)
	if e != nil && e.kind == withheld { // it is the node that says so, whose result it is is known
		if !wait {
			c.runAgain(s, one)
		}
		return
	}
	if s.plan.Class.Pure {
		c.heard(s, one, from)
	}
	if voters := s.voters[i]; !slices.Contains(voters, from) && len(voters) < maxVoters {
		if s.voters == nil {
			s.voters = make(map[uint32][]peer.ID)
		}
		voters = append(voters, from)
		if realm := c.realmOf(from); realm != "" && !slices.Contains(voters, realm) {
			voters = append(voters, realm)
		}
		s.voters[i] = voters
		if n := c.peers[from]; n != nil {
			n.strikes = 0
			n.age(c.now, c.cfg.TTL)
			n.did++
		}
	}
	if wait {
		c.supersede(s, one, from)
		if s.job.limits.Parallel > 0 && (e == nil || e.kind != kept) {
			s.job.given--
		}
		if e == nil {
			c.cuts = append(c.cuts, one)
		}
		s.holds.clear(one)
		c.hold(s, hold{Span: one, kind: withheld, until: never, since: aged})
		s.withheld++
		s.job.withheld++
		s.askedAll = false
		return
	}
	if copy := s.copies.at(i); copy != nil && copy.node == from {
		s.copies.clear(one)
		return
	}
	switch {
	case e == nil:
		c.cuts = append(c.cuts, one)
		c.redo = append(c.redo, one)
	case (e.kind == running || e.kind == lent) && e.node == from && len(s.promote(one)) > 0:
		s.holds.clear(one)
		c.redo = append(c.redo, one)
	}
}

// runAgain has a task run again that was withheld, when there is room.
func (c *Core) runAgain(s *stage, one grid.Span) {
	s.unhold(one)
	s.holds.clear(one)
	if s.job.limits.Parallel > 0 {
		s.keeps = true
		c.hold(s, hold{Span: one, kind: kept, until: never})
		return
	}
	c.redo = append(c.redo, one)
}

// unhold books that the withheld of span are so no longer.
func (s *stage) unhold(span grid.Span) {
	if s.withheld == 0 {
		return
	}
	for _, e := range s.holds.over(span) {
		if e.kind == withheld {
			n := min(e.Hi, span.Hi) - max(e.Lo, span.Lo)
			s.withheld -= n
			s.job.withheld -= uint64(n)
			s.askedAll = false
		}
	}
}

// redoAll queues what has been noted.
func (c *Core) redoAll(s *stage) {
	if len(c.redo) == 0 {
		return
	}
	list := normal(c.redo)
	c.redo = nil
	if s.left > 0 {
		for _, run := range list {
			c.queue(s, run, false)
		}
	}
}

// askWithheld asks for more when nothing else is left of a stage of j than what is withheld, or nothing else of j is
// under way.
func (c *Core) askWithheld(j *job) {
	for _, s := range j.stages {
		if s.withheld > 0 && (s.withheld == s.left || j.withheld == j.out) && !s.askedAll {
			s.askedAll = true
			c.do(grid.AskWithheld{Work: s.work.lease.Work()})
		}
	}
}

// known books the results that there were of tasks before they were handed out.
func (c *Core) known(s *stage, votes []grid.Vote) {
	c.cuts = c.cuts[:0]
	for _, v := range votes {
		if v.Index >= s.tasks || !s.ready.has(v.Index) || s.settled.has(v.Index) {
			continue
		}
		for _, node := range v.Nodes {
			c.unproven(s, node, v.Index, v.Withheld)
		}
	}
	c.cutSettled(s)
	c.redoAll(s)
}
