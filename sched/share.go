package sched

import (
	"slices"
	"strings"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Slots are shared by the time they are used, not by turns, so tasks of ten seconds get no more of them than
// tasks of a millisecond. This is start-time fair queuing, a level for users and one for the jobs of each:
// who has used least, over its weight, is next. What a grain will take is charged when it begins, and put
// right as it turns out, since with several slots the next choice comes before the grain has ended.
//
// See P. Goyal, X. Guo and H. M. Vin, A Hierarchical CPU Scheduler for Multimedia Operating Systems (1996).

// party has a share: a job, of its user's; a user, of the node's. The node itself is the one on top.
type party struct {
	up     *party // nil on top
	key    string
	weight float64
	pass   float64 // its virtual time: nanoseconds of slots that it used, over its weight
	came   uint64  // when it came to have something to run: decides between equals
	at     int     // in up.turns
	grains int     // running or parked
	busy   int     // slots
	full   bool    // a user who may use no more slots, and is in no turns therefore
	gone   bool    // forgotten by up

	below   map[string]*party
	turns   heap[*party] // those below that have something to run here, who is next first
	weights float64      // theirs together
	clock   float64      // the virtual time among them
	room    int          // how many there may be below before idle ones are forgotten

	stock   []*party // those below that have something queued, whoever can run it
	stockAt int      // in up.stock, from 1
	thief   int      // whose turn it is in stock

	// Of a job, what is queued: that which can run here, in our own order, and all of it, in thieves' order.
	mine, theirs heap[*work]
	least        uint32 // depth of what was offered last
	offer        uint64 // by number
}

const (
	// priorityBase is how many times the share one step up in Class.Priority has.
	priorityBase = 2
	// leastShare bounds what weights can do: nobody gets less than this part of an equal share, so that
	// whatever is queued runs within a time that depends on how many others there are, but not on who.
	leastShare = 1.0 / 256
	// leastUse is charged for the shortest grain, so that turns go round whatever the clock says.
	leastUse = time.Microsecond
	// maxParties is how many parties with nothing to do are remembered for what they have used.
	maxParties = 256
)

func newParty(up *party, key string, weight float64) *party {
	p := &party{up: up, key: key, weight: weight, room: maxParties}
	p.turns = heap[*party]{
		less: func(a, b *party) bool { return a.pass < b.pass || a.pass == b.pass && a.came < b.came },
		at:   func(p *party) *int { return &p.at },
	}
	p.mine = heap[*work]{less: (*work).before, at: func(w *work) *int { return &w.mineAt }}
	p.theirs = heap[*work]{less: (*work).older, at: func(w *work) *int { return &w.theirsAt }}
	return p
}

// before is the order in which our own slots take the works of one job: what others wait for first, so
// that little is begun and not finished. Deeper tasks go before those that spawned them, later stages before
// earlier ones, and what came last first.
func (w *work) before(o *work) bool {
	a, b := &w.lease, &o.lease
	switch {
	case a.Class.Depth != b.Class.Depth:
		return a.Class.Depth > b.Class.Depth
	case a.Stage != b.Stage:
		return a.Stage > b.Stage
	}
	return w.came > o.came
}

// older is the order in which thieves get them: the least depth first, as most hangs on it, and what came first.
func (w *work) older(o *work) bool {
	if a, b := w.lease.Class.Depth, o.lease.Class.Depth; a != b {
		return a < b
	}
	return w.came < o.came
}

// enlist lets the parties of w know that something of it is queued now.
func (c *Core) enlist(w *work) {
	c.attach(w)
	c.ring = append(c.ring, w)
	w.ringAt = len(c.ring)
	j := w.party
	j.theirs.push(w)
	for p := j; p.up != nil && p.stockAt == 0; p = p.up {
		p.up.stock = append(p.up.stock, p)
		p.stockAt = len(p.up.stock)
	}
	if w.fits {
		j.mine.push(w)
		c.join(j)
		c.reconsider(j.up)
	}
}

// delist is the opposite of enlist, when nothing of w is queued any more.
func (c *Core) delist(w *work) {
	last := len(c.ring) - 1
	moved := c.ring[last]
	c.ring[last] = nil
	c.ring[w.ringAt-1], moved.ringAt = moved, w.ringAt
	c.ring, w.ringAt, w.tellAt = c.ring[:last], 0, 0

	j := w.party
	j.theirs.remove(w)
	for p := j; p.up != nil && len(p.stock) == 0 && len(p.theirs.list) == 0; p = p.up {
		stock := p.up.stock
		moved := stock[len(stock)-1]
		stock[len(stock)-1] = nil
		stock[p.stockAt-1], moved.stockAt = moved, p.stockAt
		p.up.stock, p.stockAt = stock[:len(stock)-1], 0
	}
	if w.mineAt > 0 {
		j.mine.remove(w)
		if len(j.mine.list) == 0 {
			leave(j)
		}
		c.reconsider(j.up)
	}
}

// attach finds out for whom w runs, and whether it can here.
func (c *Core) attach(w *work) {
	if w.party != nil && !w.party.gone {
		return
	}
	cl := &w.lease.Class
	if w.came == 0 {
		c.came++
		w.came = c.came
		w.cores = int(max(cl.Cores, 1))
		w.fits = c.suits(w)
	}
	weight := 1.0
	if w := c.cfg.Weights[cl.User]; w > 0 {
		weight = w
	}
	// All that a job's tasks spawn, as jobs of their own, is on its account: they are named JOB.N.
	job, _, _ := strings.Cut(string(w.lease.Job), ".")
	w.party = c.turnsOf(w).child(cl.User, weight).child(job, priorityWeight(cl.Priority))
}

func priorityWeight(priority int) float64 {
	w := 1.0
	for range min(max(priority, -priority), grid.MaxPriority) {
		w *= priorityBase
	}
	if priority < 0 {
		return 1 / w
	}
	return w
}

// child finds or makes the party below p of that name.
func (p *party) child(key string, weight float64) *party {
	if q := p.below[key]; q != nil {
		if q.at > 0 {
			p.weights += weight - q.weight
		}
		q.weight = weight
		return q
	}
	if len(p.below) >= p.room {
		all := len(p.below) > 2*maxParties // not as they become fewer: that would depend on whose turn it is in the map
		for key, q := range p.below {
			if q.idle() && (all || q.pass <= p.now()) {
				q.gone = true
				delete(p.below, key)
			}
		}
		p.room = max(maxParties, 2*len(p.below))
	}
	if p.below == nil {
		p.below = make(map[string]*party)
	}
	q := newParty(p, strings.Clone(key), weight)
	p.below[q.key] = q
	return q
}

func (p *party) idle() bool { return p.at == 0 && p.stockAt == 0 && p.grains == 0 }

// now is the virtual time among those below: where newcomers begin. They get nothing for the time that they
// were away, and the one that is next stays so. As time passes with what newcomers use, even if they go at
// once, no stream of them keeps others from coming next.
func (p *party) now() float64 {
	if len(p.turns.list) > 0 {
		return max(p.clock, p.turns.list[0].pass)
	}
	return p.clock
}

// join puts p, which has something to run, into the turns of those above.
func (c *Core) join(p *party) {
	for ; p.up != nil && p.at == 0 && !p.full; p = p.up {
		p.pass = max(p.pass, p.up.now())
		c.came++
		p.came = c.came
		p.up.weights += p.weight
		p.up.turns.push(p)
	}
}

func leave(p *party) {
	for ; p.up != nil && p.at > 0; p = p.up {
		p.up.turns.remove(p)
		p.up.weights -= p.weight
		if len(p.up.turns.list) > 0 {
			return
		}
		p.up.weights = 0 // exactly
	}
}

// reconsider lets a user whose turn was passed over, as it uses all the slots that it may, try again.
func (c *Core) reconsider(user *party) {
	if user.full {
		user.full = false
		c.full--
		if len(user.turns.list) > 0 {
			c.join(user)
		}
	}
}

// choose names the work whose turn it is to run here, nil when there is none: of strangers', if there is no other.
func (c *Core) choose() *work {
	w := c.chooseOf(c.top)
	if w == nil && len(c.top.turns.list) == 0 {
		if w = c.chooseOf(c.outer); w != nil && !c.lendable(w) {
			return nil
		}
	}
	return w
}

func (c *Core) chooseOf(top *party) *work {
	for len(top.turns.list) > 0 {
		p := top
		for len(p.turns.list) > 0 {
			q := p.turns.list[0]
			p.clock = max(p.clock, q.pass)
			p = q
		}
		w, user := p.mine.list[0], p.up
		if c.may(w) {
			return w
		}
		leave(user)
		user.full = true
		c.full++
	}
	return nil
}

// may reports whether the user of w may use as many slots more as a task of it needs.
func (c *Core) may(w *work) bool {
	return c.cfg.MaxPerUser == 0 || w.party.up.busy+w.cores <= c.cfg.MaxPerUser
}

// price is what a nanosecond of a slot costs p, and by how much it moves the clock of its group, in which all
// that have something to run get their part of it.
func (p *party) price() price {
	n, weights := max(len(p.up.turns.list), 1), p.up.weights
	if p.at == 0 {
		weights += p.weight
	}
	return price{pass: 1 / max(p.weight, leastShare*weights/float64(n)), clock: 1 / weights}
}

type price struct{ pass, clock float64 }

// charge has the parties of what a slot runs pay for d of it; less than 0 gives back what was paid last.
func (s *slot) charge(d time.Duration) {
	cost := float64(d) * float64(s.work.cores)
	p := s.work.party
	for i := range s.prices {
		if d > 0 {
			s.prices[i] = p.price()
		}
		p.pass += cost * s.prices[i].pass
		up := p.up
		if p.at > 0 {
			up.turns.fix(p)
		}
		switch {
		case d <= 0:
			up.clock += cost * s.prices[i].clock
		case len(up.turns.list) == 0:
			up.clock = max(up.clock, p.pass) // it was at nobody's expense
		default:
			up.clock = max(up.clock, min(up.clock+cost*s.prices[i].clock, p.pass))
		}
		p = up
	}
}

// late is when a grain counts as taking longer than expected: a little matters to nobody.
func (c *Core) late(s *slot) instant { return s.paid.add(c.cfg.Grain / 4) }

// meter charges for grains that take longer than they were charged for. It comes before anything else in a
// step, so that what was used while nobody waited is not held against those who used it.
func (c *Core) meter() {
	c.meterAt = never
	for i := range c.slots {
		s := &c.slots[i]
		if s.work == nil {
			continue
		}
		if c.late(s) <= c.now {
			until := c.now.add(c.cfg.Grain)
			s.charge(time.Duration(until - s.paid))
			s.paid = until
		}
		c.meterAt = min(c.meterAt, c.late(s))
	}
}

// offer lists works that a thief can run, at most so many: one of each user in turn, of its jobs in turn.
// Of one job there is only what is of least depth, the oldest first.
func (c *Core) offer(ask *grid.StealAsked, most int) (list []*work) {
	c.offers++
	seen := c.seen[:0]
	for visits := 0; visits < 4*most && len(list) < most && len(seen) < len(c.ring) && len(c.top.stock) > 0; visits++ {
		j := c.top.forThief().forThief()
		if len(j.theirs.list) == 0 {
			continue
		}
		w := j.theirs.list[0]
		if depth := w.lease.Class.Depth; j.offer != c.offers {
			j.offer, j.least = c.offers, depth
		} else if depth > j.least {
			continue
		}
		j.theirs.remove(w) // for a moment
		seen = append(seen, w)
		if !w.lease.Class.Pinned && c.mayGive(w, ask) {
			list = append(list, w)
		}
	}
	for i, w := range seen {
		w.party.theirs.push(w)
		seen[i] = nil
	}
	c.seen = seen
	return list
}

// forThief takes turns between those below that have something queued, of which there must be one.
func (p *party) forThief() *party {
	if p.thief >= len(p.stock) {
		p.thief = 0
	}
	p.thief++
	return p.stock[p.thief-1]
}

// shares divides want tasks between works: as evenly as half of each allows.
func shares(works []*work, want uint32) []uint32 {
	list := make([]uint32, len(works))
	for spare := true; spare && want > 0; { // at least one of them is filled each time
		spare = false
		even := max(want/uint32(max(len(works), 1)), 1)
		for i, w := range works {
			half := (w.queue.tasks + 1) / 2
			n := min(even, want, half-list[i])
			list[i] += n
			want -= n
			spare = spare || list[i] < half
		}
	}
	return list
}

// hoards reports whether work of others is queued here that must wait, as its user may use no more slots.
func (c *Core) hoards() bool {
	return c.full > 0 && slices.ContainsFunc(c.ring, func(w *work) bool {
		return w.book == nil && w.fits && w.party.up.full
	})
}
