package sched

import (
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// A task that failed for a node's reasons waits for its back-off, and is then offered: to any node that has
// not failed on it, to this one when it has nothing else to do. If none takes it for Config.Patience, it is
// queued for all.

// tried is what is known of a task that failed on nodes.
type tried struct {
	times  int       // that count
	spared int       // that do not, as they were on a node on which it had failed before, or on a stranger
	nodes  []peer.ID // no more than times, and some strangers
}

const (
	maxSpared  = 8
	maxBackoff = 30 * time.Second
)

// attempts is how often a task of s may fail for nodes' reasons.
func (c *Core) attempts(s *stage) int {
	if s.plan.Attempts > 0 {
		return s.plan.Attempts
	}
	return c.cfg.Attempts
}

// hostFailed books a failure of the node that holds task i, and of no other. Of two copies, the other one goes on.
func (c *Core) hostFailed(s *stage, from peer.ID, i uint32) {
	one := grid.Span{Lo: i, Hi: i + 1}
	if e := s.copies.at(i); e != nil && e.node == from {
		s.copies.clear(one)
		c.blame(s, from)
		return
	}
	if e := s.holds.at(i); e == nil || e.kind != running && e.kind != lent || e.node != from {
		return
	}
	c.blame(s, from)
	t := s.tries[i]
	if t == nil {
		t = new(tried)
		if s.tries == nil {
			s.tries = make(map[uint32]*tried)
		}
		s.tries[i] = t
	}
	switch {
	case c.stranger(from): // whose word fails no job
		t.spared++
		if len(t.nodes) < maxVoters && !slices.Contains(t.nodes, from) {
			t.nodes = append(t.nodes, from)
		}
	case !slices.Contains(t.nodes, from):
		t.nodes = append(t.nodes, from)
		t.times++
	case t.spared < maxSpared && c.others(t): // it came there again in a roundabout way
		t.spared++
	default:
		t.times++
	}
	switch {
	case len(s.promote(one)) == 0:
	case t.times >= c.attempts(s):
		c.fail(s, from, i, t.times)
	default:
		pause := min(c.cfg.Backoff<<min(max(t.times, t.spared)-1, 20), max(c.cfg.Backoff, maxBackoff))
		c.hold(s, hold{Span: one, kind: waiting, node: from, until: c.now.add(pause)})
		c.failing.add(one, t.times, pause)
	}
}

// failing sums up what failed in one report and will be tried again, for one note.
type failing struct {
	tasks  uint32
	first  grid.Span
	worst  int // tries
	longer time.Duration
}

func (f *failing) add(one grid.Span, times int, pause time.Duration) {
	if f.tasks++; f.tasks == 1 || f.first.Hi == one.Lo {
		f.first = grid.Span{Lo: one.Hi - f.first.Len() - 1, Hi: one.Hi}
	}
	f.worst, f.longer = max(f.worst, times), max(f.longer, pause)
}

func (c *Core) noteFailing(s *stage, from peer.ID) {
	if f := &c.failing; f.tasks > 0 {
		c.note(s, grid.EventRetry, from, f.first, "%s failed there, try %d of %d at most; again in %v", tasks(f.tasks), f.worst, c.attempts(s), f.longer)
	}
	c.failing = failing{}
}

// retry hands out what has waited: to others than have failed on it, if there are any.
func (c *Core) retry(s *stage, e hold) {
	if s.job.paused {
		c.keep(s, e.Span)
		return
	}
	if len(s.voters) > 0 {
		for run := range alike(e.Span, s.voted) {
			if s.voted(run.Lo) {
				c.offerAgain(s, run, c.now)
			} else {
				c.retryAny(s, e.with(run.Lo, run.Hi))
			}
		}
		return
	}
	c.retryAny(s, e)
}

func (c *Core) retryAny(s *stage, e hold) {
	for run := range alike(e.Span, func(i uint32) bool { return c.others(s.tries[i]) }) {
		if c.others(s.tries[run.Lo]) {
			c.hold(s, hold{Span: run, kind: onOffer, node: e.node, until: c.now.add(c.cfg.Patience), since: e.since})
			if !slices.Contains(c.offering, s) {
				c.offering = append(c.offering, s)
			}
			if c.offered == 0 {
				c.triedBy = s.tries[run.Lo].nodes
			}
			c.offered += int(run.Len())
			continue
		}
		// What failed here goes where thieves look first, anything else to our own workers.
		c.push(s.work, run, e.node == c.cfg.Self)
	}
}

// alike yields the longest runs of s whose tasks f does not tell apart.
func alike(s grid.Span, f func(uint32) bool) func(yield func(grid.Span) bool) {
	return func(yield func(grid.Span) bool) {
		for lo := s.Lo; lo < s.Hi; {
			hi := lo + 1
			for is := f(lo); hi < s.Hi && f(hi) == is; {
				hi++
			}
			if !yield(grid.Span{Lo: lo, Hi: hi}) {
				return
			}
			lo = hi
		}
	}
}

// others reports whether a node is there that has not failed on a task, and works as far as is known.
func (c *Core) others(t *tried) bool {
	if t == nil {
		return false
	}
	fresh := func(p peer.ID) bool { return !slices.Contains(t.nodes, p) && !c.resting(p) }
	if len(c.slots) > 0 && fresh(c.cfg.Self) {
		return true
	}
	return slices.ContainsFunc(c.around, func(n *neighbour) bool { return fresh(n.id) })
}

// lapse ends an offer that nobody took. What failed on a node on which everything fails is offered longer.
func (c *Core) lapse(s *stage, e hold) {
	if len(s.voters) > 0 {
		for run := range alike(e.Span, s.voted) {
			if s.voted(run.Lo) {
				c.lapseAgain(s, run)
			} else {
				c.lapseAny(s, e.with(run.Lo, run.Hi))
			}
		}
		return
	}
	c.lapseAny(s, e)
}

func (c *Core) lapseAny(s *stage, e hold) {
	if h := c.sick[e.node]; h != nil && h.row >= c.cfg.Row && c.now < e.since.add(maxRest) && c.proven(e.node) {
		c.retryAny(s, e)
		return
	}
	c.push(s.work, e.Span, e.node == c.cfg.Self)
}

// takeOffers takes up to want tasks that are offered and that node has neither failed on nor run; of what it
// cannot pass on, as much as it has slots for. It looks at so many, and goes on there the next time.
func (c *Core) takeOffers(node peer.ID, slots, want int, fits func(*stage) bool, take func(*stage, grid.Span)) {
	look, realm := maxLook, c.realmOf(node)
	c.offering = slices.DeleteFunc(c.offering, func(s *stage) bool {
		left := false
		c.over = c.over[:0]
		most := want
		if len(s.voters) > 0 {
			most = c.portion(s, node, slots)
		}
		list := s.holds.list
		first := s.holds.search(s.looked)
		for k := range list {
			e := &list[(first+k)%len(list)]
			if e.kind != onOffer {
				continue
			}
			left = true
			if want <= 0 || look <= 0 || !fits(s) {
				break
			}
			i := e.Lo
			if k == 0 {
				i = max(i, s.looked)
			}
			for i < e.Hi && most > 0 && want > 0 && look > 0 {
				lo := i
				for i < e.Hi && i-lo < uint32(most) && look > 0 && !s.barredFrom(i, node, realm) {
					i++
					look--
				}
				if i > lo {
					n := int(i - lo)
					most -= n
					if want--; len(s.voters) == 0 {
						want -= n - 1
					}
					c.over = append(c.over, e.with(lo, i))
				}
				for i < e.Hi && look > 0 && s.barredFrom(i, node, realm) {
					i++
					look--
				}
			}
			s.looked = 0
			if look <= 0 {
				s.looked = i
			}
		}
		taken := c.over
		c.over = nil
		for _, e := range taken {
			take(s, e.Span)
		}
		c.over = taken[:0]
		return !left
	})
}

// spare gives a thief with idle slots what is not queued for everybody: tasks on which others have failed, and
// second copies of those that take long.
func (c *Core) spare(ask grid.StealAsked) (leases []grid.Lease) {
	if len(c.offering)+len(c.tails) == 0 || ask.Slots <= 0 && !slices.ContainsFunc(c.offering, func(s *stage) bool { return len(s.voters) > 0 }) {
		return nil
	}
	e := hold{kind: lent, node: ask.From, until: c.now.add(c.cfg.TTL / 4)}
	fits := func(s *stage) bool {
		return (ask.Slots > 0 || len(s.voters) > 0) && c.mayGive(s.work, &ask)
	}
	c.takeOffers(ask.From, ask.Slots, c.cfg.MaxLeases, fits, func(s *stage, span grid.Span) {
		leases = append(leases, s.again(span))
		c.hold(s, e.with(span.Lo, span.Hi))
	})
	c.takeSlow(ask.From, min(ask.Slots, c.cfg.MaxLeases-len(leases)), fits, func(s *stage, span grid.Span) {
		leases = append(leases, s.again(span))
		c.copy(s, e.with(span.Lo, span.Hi))
	})
	for _, l := range leases {
		c.owe(ask.From, l.Len())
	}
	return leases
}

// fill finds idle slots something to do, when nothing is queued for them.
func (c *Core) fill() {
	if len(c.idle) == 0 || len(c.offering)+len(c.tails) == 0 || c.keeping || c.benched() {
		return
	}
	mine := func(s *stage) bool {
		c.attach(s.work)
		return s.work.fits
	}
	c.takeOffers(c.cfg.Self, len(c.idle), len(c.idle), mine, func(s *stage, span grid.Span) {
		s.holds.clear(span)
		if len(s.voters) > 0 {
			c.pushOwn(s, span)
		} else {
			c.push(s.work, span, false)
		}
	})
	c.dispatch()
	if c.keeping {
		return
	}
	room := func(s *stage) bool {
		c.attach(s.work)
		return s.work.fits && c.may(s.work) && c.roomy(s.work) && (!s.work.lease.Outside || c.lendable(s.work))
	}
	c.takeSlow(c.cfg.Self, len(c.idle), room, func(s *stage, span grid.Span) {
		c.copy(s, hold{Span: span, kind: running, node: c.cfg.Self, until: never})
		c.do(grid.Run{Slot: c.run(s.work, span), Lease: s.work.lease.With(span)})
	})
}

// callOthers wakes nodes that may take what is offered since this step began.
func (c *Core) callOthers() {
	if c.offered > 0 {
		c.call(c.offered, c.triedBy)
		c.offered, c.triedBy = 0, nil
	}
}

// call wakes up to n waiting thieves that are none of those, or when there is none such, some peer.
func (c *Core) call(n int, but []peer.ID) {
	woken := false
	c.thieves = slices.DeleteFunc(c.thieves, func(p peer.ID) bool {
		if n == 0 || isAmong(but, p, c.realmOf(p)) || c.resting(p) {
			return false
		}
		n--
		woken = true
		c.do(grid.Wake{To: p})
		return true
	})
	c.wakeStrangers(uint64(min(c.offersBeyond(), n)), but)
	for range 2 * min(len(c.around), maxCalls) {
		if woken {
			return
		}
		if p := c.around[c.cfg.Rand.IntN(len(c.around))].id; !isAmong(but, p, c.realmOf(p)) && !c.resting(p) {
			woken = true
			c.do(grid.Wake{To: p})
		}
	}
}

const maxCalls = 4 // draws at a peer to wake

// health is of a node on which tasks failed for its own reasons, with no success since.
type health struct {
	row   int
	rest  time.Duration // how long it was left alone last
	until instant
}

// How long a node on which everything fails is left alone: twice as long each time.
const (
	minRest = time.Second
	maxRest = 30 * time.Second
	// maxKnown bounds how many nodes are remembered for failing, or for not failing.
	maxKnown = 4096
)

// blame counts a failure of a node. After Config.Row of them without a success it is given nothing for a
// while, or runs nothing if it is this one: else it would, as it is always idle, burn up all attempts.
func (c *Core) blame(s *stage, p peer.ID) {
	h := c.sick[p]
	if h == nil {
		if c.sick == nil || len(c.sick) >= maxKnown {
			c.sick = make(map[peer.ID]*health)
		}
		h = new(health)
		c.sick[p] = h
	}
	h.row++
	if h.row < c.cfg.Row || c.now < h.until {
		return
	}
	h.rest = max(minRest, min(2*h.rest, maxRest))
	h.until = c.now.add(h.rest)
	if c.resting(p) {
		c.strip = p
		c.note(s, grid.EventRetry, p, grid.Span{}, "%s in a row failed there: it is left alone for %v", tasks(uint32(h.row)), h.rest)
	}
	if p == c.cfg.Self {
		c.due = min(c.due, h.until)
	}
}

// takeAll queues again what a node holds that is left alone from now on, and revokes it.
func (c *Core) takeAll(s *stage, p peer.ID) {
	var back []grid.Span
	for _, e := range s.holds.take(grid.Span{Hi: s.tasks}, func(e *hold) bool { return e.kind == lent && e.node == p }) {
		back = append(back, e.Span)
		for _, run := range s.promote(e.Span) {
			c.queue(s, run, false)
		}
	}
	if len(back) > 0 {
		c.do(grid.Revoke{To: p, Work: s.work.lease.Work(), Epoch: s.job.lease.Epoch, Spans: normal(back)})
	}
}

// praise books a success.
func (c *Core) praise(p peer.ID) {
	if p == c.cfg.Self {
		c.ableAt, c.able = c.now, true
	} else {
		if c.ables == nil || len(c.ables) >= maxKnown {
			c.ables = make(map[peer.ID]instant)
		}
		c.ables[p] = c.now
	}
	if len(c.sick) > 0 {
		delete(c.sick, p)
	}
}

// resting reports whether a node is to be left alone. None is while no other is known to work.
func (c *Core) resting(p peer.ID) bool {
	if len(c.sick) == 0 {
		return false
	}
	h := c.sick[p]
	return h != nil && c.now < h.until && c.proven(p)
}

// benched reports whether this node is to run nothing.
func (c *Core) benched() bool { return c.resting(c.cfg.Self) }

// proven reports whether a node other than p had a success lately.
func (c *Core) proven(p peer.ID) bool {
	lately := c.now - instant(maxRest)
	if p != c.cfg.Self && c.able && c.ableAt >= lately {
		return true
	}
	for q, at := range c.ables {
		if q != p && at >= lately && c.peers[q] != nil {
			if h := c.sick[q]; h == nil || c.now >= h.until {
				return true
			}
		}
	}
	return false
}

// note tells the user of a job what happened, unless too much does.
func (c *Core) note(s *stage, kind grid.EventKind, node peer.ID, tasks grid.Span, format string, args ...any) {
	j := s.job
	if c.now >= j.noteAt.add(time.Second) {
		j.noteAt, j.noted = c.now, 0
	}
	if j.noted++; j.noted > maxNotes {
		j.unsaid++
		return
	}
	text := fmt.Sprintf(format, args...)
	if j.unsaid > 0 {
		text += fmt.Sprintf(" (%d events before this one are left out)", j.unsaid)
		j.unsaid = 0
	}
	c.do(grid.Note{Job: j.lease.Job, Event: grid.JobEvent{Kind: kind, Node: node, Stage: s.work.lease.Stage, Tasks: tasks, Text: text}})
}

func tasks(n uint32) string {
	if n == 1 {
		return "1 task"
	}
	return fmt.Sprintf("%d tasks", n)
}

const maxNotes = 24 // of one job in a second
