package sched

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// thief is what a core knows of where to get work.
type thief struct {
	peers  map[peer.ID]*neighbour
	around []*neighbour // all of peers; those before next were picked in this round

	keen    bool    // it could use more work
	asking  peer.ID // whom, "" for nobody
	askedAt instant
	askBy   instant // when to stop waiting for the answer

	waker  peer.ID // who said last that it has work
	giver  peer.ID // who gave last
	tips   []peer.ID
	hops   int // tips that may still be asked in this round
	next   int
	beyond bool   // strangers are asked in this round by now
	tried  int    // others asked in this round
	round  uint64 // its number

	trip  float64 // nanoseconds until a victim answers, smoothed; 0 when nothing was measured
	fetch float64 // nanoseconds that slots wait for what a grain of others' work reads, likewise
	rate  float64 // bytes that come from others in a nanosecond, likewise

	asleep  bool // after a round in vain: it waits to be woken
	retryAt instant
	sleep   time.Duration // the next time
}

// neighbour is a peer that is present, or one that was and misbehaved.
type neighbour struct {
	id      peer.ID
	outside bool    // of another realm
	realm   peer.ID // of which, as far as is known
	fails   int
	until   instant // it is not asked so long, as that failed
	round   uint64  // in which it was asked last
	trip    float64 // nanoseconds until it answers, smoothed; 0 when not measured
	record
}

// victim is what a core knows of who wants work.
type victim struct {
	thieves   []peer.ID // that got nothing and were not woken since, first come first served
	strangers []peer.ID // the same, of other realms
	rich      []rumour  // about who else may have work, the newest last
	hints     map[grid.Work]*hints
	hinted    int          // pages in all of them
	bad       []*neighbour // that misbehaved and are away, the newest last
	moved     instant      // when all that was given away and is here will have been fetched from here
}

// The wait after a peer could not be asked doubles between these.
const (
	minShun = time.Second
	maxShun = 30 * time.Second
)

func (c *Core) peerUp(p peer.ID, outside bool) {
	if n := c.peers[p]; n != nil {
		c.related(n, outside)
		return
	}
	if p == c.cfg.Self || p == "" {
		return
	}
	n := c.recall(p)
	n.outside = outside
	c.peers[p] = n
	c.around = append(c.around, n)
	if c.asleep && len(c.around) <= c.cfg.Tries {
		c.newRound() // in a small swarm a newcomer may well be the one with work
	}
	if c.queued > uint64(len(c.slots)) && c.now >= n.barred && !outside {
		c.do(grid.Wake{To: p})
	}
	for _, w := range c.held {
		if w.lease.Owner == p && w.gone != never {
			w.gone = never
			c.claim(w) // its owner has shortened the lease
		}
	}
}

func (c *Core) peerDown(p peer.ID) {
	for _, w := range c.held {
		if w.lease.Owner == p && w.gone == never {
			w.gone = c.now
		}
	}
	n := c.peers[p]
	if n == nil { // an owner that was never heard of: what it lent came from a thief
		return
	}
	delete(c.peers, p)
	i := slices.Index(c.around, n)
	c.around = slices.Delete(c.around, i, i+1)
	if i < c.next {
		c.next--
	}
	c.noThief(p)
	c.disbelieve(p)
	c.keepRecord(n)
	if c.waker == p {
		c.waker = ""
	}
	if c.giver == p {
		c.giver = ""
	}
	if c.asking == p {
		c.asking, c.askBy = "", never
	}
	c.shorten(p)
}

// hungry reports whether more work would be of use: a slot is idle, or all of them are expected to be
// before more could be here, with less queued than fills that time. Slots that are long busy do not count:
// what they hoarded, others could run.
func (c *Core) hungry() bool {
	if c.benched() {
		return false
	}
	if len(c.idle) > 0 {
		return !c.keeping && !c.hoards() // and nothing that may run is queued, see dispatch
	}
	for i := range c.slots {
		if c.now >= c.slots[i].soon {
			return false
		}
	}
	return len(c.slots) > 0 && !c.stocked(1, true)
}

// stocked reports whether each slot has queued so many times what it runs while more is brought. Whether what
// was not measured is plenty is the caller's guess: a node that might ask does so when it has really run dry, see
// hungry, and one that is asked keeps it, else two that know nothing would pass it to and fro.
func (c *Core) stocked(times int, guess bool) bool {
	enough := c.lead() * float64(times*len(c.slots))
	for _, w := range c.ring {
		if !w.fits || w.lease.Outside {
			continue
		}
		if enough -= w.mean * float64(w.queue.tasks); enough <= 0 || guess && w.mean == 0 {
			return true
		}
	}
	return enough <= 0
}

// hunt asks the next victim, if that is of use and nobody is being asked.
func (c *Core) hunt() {
	if c.grew {
		c.newRound()
		c.sleep = c.cfg.MinSleep
	}
	if c.keen = c.hungry(); !c.keen || c.asking != "" {
		return
	}
	v := c.pick()
	if v == "" {
		if !c.asleep {
			// Between half and the whole of it, so that those who fell asleep together do not stay so.
			c.asleep = true
			c.retryAt = c.now.add(c.sleep/2 + time.Duration(c.cfg.Rand.Int64N(int64(c.sleep/2)+1)))
			c.sleep = min(2*c.sleep, c.cfg.MaxSleep)
		}
		return
	}
	c.asking, c.askedAt, c.askBy = v, c.now, c.now.add(c.cfg.TTL)
	if n := c.peers[v]; n != nil {
		n.round = c.round
	}
	ask := grid.AskSteal{Victim: v, Slots: len(c.idle), Outside: c.stranger(v)}
	if ask.Outside {
		ask.Slots = min(ask.Slots, c.cfg.Share.Slots-c.loan.slots)
	}
	c.do(ask)
}

// pick names the next victim of this round, "" when it is over: who woke us, who gave last, whom those
// named that had nothing, then some of all, see nearest.
func (c *Core) pick() (v peer.ID) {
	if v, c.waker = c.waker, ""; v != "" && c.mayAsk(v) {
		return v
	}
	if v = c.giver; v != "" && (!c.stranger(v) || c.beyond && c.lends()) {
		if c.giver = ""; !c.asleep {
			return v
		}
	}
	if v = c.tip(); v != "" || c.asleep {
		return v
	}
	if v = c.nearest(); v == "" && c.goBeyond() {
		return c.pick()
	}
	return v
}

// newRound makes every peer a possible victim again.
func (c *Core) newRound() {
	c.round++
	c.asleep, c.beyond, c.next, c.tried, c.hops, c.tips = false, false, 0, 0, c.cfg.Tries, c.tips[:0]
}

func (c *Core) woken(p peer.ID) {
	if p == c.cfg.Self || c.barred(p) || c.stranger(p) && c.cfg.Share.Slots == 0 {
		return
	}
	c.waker = p
	c.believe(p, c.cfg.TTL/6)
	if c.asleep { // what others said before is old news
		c.round++
		c.hops = min(c.cfg.Tries, maxTry)
	}
}

func (c *Core) noAnswer(p peer.ID) {
	if c.asking == p {
		c.asking, c.askBy = "", never
	}
	c.disbelieve(p)
	if n := c.peers[p]; n != nil {
		n.until = c.now.add(min(minShun<<min(n.fails, 10), maxShun))
		n.fails++
	}
}

func (c *Core) stealAnswered(ev grid.StealAnswered) {
	if ev.Failed {
		c.noAnswer(ev.From)
		return
	}
	if c.asking == ev.From {
		c.timed(ev.From, ev.Took)
		c.asking, c.askBy = "", never
	}
	if n := c.peers[ev.From]; n != nil {
		n.fails = 0
	}
	if c.accept(ev.Leases) {
		if !c.barred(ev.From) {
			c.giver = ev.From
		}
		c.believe(ev.From, c.lasts(c.worth(ev.Leases), 1)) // it kept as much
		return
	}
	c.disbelieve(ev.From)
	c.told(ev.Try)
}

// accept queues what of leases is sound and new here, and reports whether there was any. Each owner
// is told at once that its leases have moved.
func (c *Core) accept(leases []grid.Lease) (some bool) {
	c.forgetBare()
	ranges := 0
	for _, w := range c.held {
		ranges += len(w.queue.list())
	}
	var moved []*work
	for _, l := range leases[:min(len(leases), c.cfg.MaxLeases)] {
		if !sound(l) {
			continue
		}
		if l.Owner == c.cfg.Self {
			some = c.takeBack(l) || some
			continue
		}
		if w := c.foreignWork(l); w != nil {
			if len(w.incoming) == 0 {
				moved = append(moved, w)
			}
			w.incoming = append(w.incoming, l.Span)
		}
	}
	for _, w := range moved {
		had := c.holding(w)
		before := w.queue.tasks
		for _, s := range normal(w.incoming) {
			for fresh := range without(s, had[firstAfter(had, s.Lo):]) {
				if ranges < c.cfg.MaxHeld {
					ranges++
					c.push(w, fresh, false)
					w.restore(fresh)
				}
			}
		}
		w.incoming = w.incoming[:0]
		if w.queue.tasks > before {
			some = true
			c.claim(w)
		}
	}
	if some && len(c.held) > 0 {
		c.claimAt = min(c.claimAt, c.now.add(c.cfg.TTL/3))
	}
	return some
}

// sound reports whether a lease from outside is one that an owner could have made.
func sound(l grid.Lease) bool {
	return l.Lo < l.Hi && l.Hi <= grid.MaxTasks && l.Stage < grid.MaxStages &&
		l.Job != "" && len(l.Job) <= maxName && l.Owner != "" && len(l.Owner) <= maxName &&
		l.Spec.ByteLen() <= maxName && l.Table.ByteLen() <= maxName && l.Class.Check() == nil
}

const maxName = 128 // bytes; what a lease names by, real ones being shorter

// takeBack queues again what of a lease of our own is still lent: a thief's thief is its owner.
func (c *Core) takeBack(l grid.Lease) (some bool) {
	s := c.find(l.Work(), l.Epoch)
	if s == nil {
		return false
	}
	back := grid.Span{Lo: l.Lo, Hi: min(l.Hi, s.tasks)}
	taken := s.holds.take(back, func(e *hold) bool { return e.kind == lent })
	for _, e := range taken {
		for _, run := range s.promote(e.Span) {
			s.lost.unset(run)
			c.queue(s, run, false)
		}
	}
	return len(taken) > 0
}

// foreignWork finds or makes the work that a lease of another owner belongs to; nil when there are
// too many.
func (c *Core) foreignWork(l grid.Lease) *work {
	l = l.With(grid.Span{})
	w := c.foreign[l]
	if w == nil && !c.fits(&l.Class, &c.cfg.Capacity) || len(c.scores) > 0 && c.scores[l.Work()][c.cfg.Self] < 0 {
		return nil // the lease runs out
	}
	if w == nil && len(c.held) < c.cfg.MaxHeld {
		w = &work{lease: l, ramp: 1, gone: never}
		c.foreign[l] = w
		c.held = append(c.held, w)
	}
	return w
}

// maxBare is how many works of other owners are remembered when nothing of them is here, for how
// long their tasks take: a thief often comes back for more of the same.
const maxBare = 64

// forgetBare forgets the oldest of the works that are only remembered, when there are too many.
func (c *Core) forgetBare() {
	excess := -min(maxBare, c.cfg.MaxHeld/2) // they must leave room for new ones
	for _, w := range c.held {
		if w.bare() {
			excess++
		}
	}
	if excess <= 0 {
		return
	}
	c.held = slices.DeleteFunc(c.held, func(w *work) bool {
		if excess <= 0 || !w.bare() {
			return false
		}
		excess--
		delete(c.foreign, w.lease)
		return true
	})
}

// bare reports whether nothing of w is here.
func (w *work) bare() bool { return w.queue.tasks == 0 && w.running == 0 }

// holding is what this node has of w, queued, running or parked: sorted and disjoint, in a slice of its own.
func (c *Core) holding(w *work) []grid.Span {
	list := slices.Clone(w.queue.list())
	if w.running > 0 {
		for i := range c.slots {
			if c.slots[i].work == w {
				list = append(list, c.slots[i].span)
			}
		}
		for _, p := range c.parked {
			if p.work == w {
				list = append(list, p.span)
			}
		}
	}
	return normal(list)
}

func (c *Core) claim(w *work) {
	if spans := c.holding(w); len(spans) > 0 {
		c.do(grid.SendClaim{To: w.lease.Owner, Work: w.lease.Work(), Epoch: w.lease.Epoch, Spans: spans})
	}
}

// renew claims everything held of other owners. What belongs to one that has been away for a whole
// lease is given up, but for what runs.
func (c *Core) renew() {
	c.claimAt = never
	for _, w := range c.held {
		if w.gone != never && c.now >= w.gone.add(c.cfg.TTL) {
			c.unqueue(w)
		}
		if w.bare() {
			continue
		}
		c.claimAt = c.now.add(c.cfg.TTL / 3)
		if w.gone == never {
			c.claim(w)
		}
	}
}

// dropped forgets the leases of a job whose owner says that it is over, or has a newer epoch.
func (c *Core) dropped(ev grid.Dropped) {
	waits := false
	c.held = slices.DeleteFunc(c.held, func(w *work) bool {
		if w.lease.Job != ev.Job || w.lease.Owner != ev.From || w.lease.Epoch > ev.Epoch {
			return false
		}
		c.unqueue(w)
		w.closed = true
		running := w.running
		for i := range c.slots {
			if c.slots[i].work == w {
				c.do(grid.StopGrain{Slot: i})
				running--
			}
		}
		waits = waits || running > 0
		delete(c.foreign, w.lease)
		return true
	})
	if waits { // parked tasks have no slot by which to name them
		c.do(grid.StopJob{Job: ev.Job})
	}
}

// stealAsked gives a thief half of what is queued, the oldest first. One that has no idle slot, and only
// thinks ahead, gets nothing unless both have enough afterwards, or it has what the tasks read: else two
// nodes that are nearly done would pass the last tasks to and fro. Who gets nothing is told who may have some.
func (c *Core) stealAsked(ev grid.StealAsked) {
	if ev.From == c.cfg.Self || c.barred(ev.From) || c.resting(ev.From) {
		c.do(grid.AnswerSteal{Call: ev.Call})
		return
	}
	if n := c.peers[ev.From]; n != nil && ev.Outside {
		n.realm = ev.Realm
	}
	if ev.Slots > 0 {
		c.disbelieve(ev.From)
	}
	if ev.Can.Slots <= 0 { // it does not say
		ev.Can.Slots = 1
	}
	if leases := c.spare(ev); len(leases) > 0 {
		c.do(grid.AnswerSteal{Call: ev.Call, Leases: leases})
		c.noThief(ev.From)
		return
	}
	want := (c.queued + 1) / 2
	if ev.Slots <= 0 {
		want = c.queued / 2 // a single task stays: else two that have one would pass it to and fro
	}
	g := gift{to: ev, want: uint32(min(want, uint64(c.cfg.MaxGive))), near: ev.Slots <= 0 && !c.stocked(4, false)}
	c.give(&g)
	if len(g.leases) > 0 {
		c.do(grid.AnswerSteal{Call: ev.Call, Leases: g.leases})
		c.noThief(ev.From)
		c.believe(ev.From, c.lasts(g.worth, ev.Slots))
		return
	}
	waiting := &c.thieves
	a := grid.AnswerSteal{Call: ev.Call}
	if ev.Outside {
		waiting = &c.strangers
	} else {
		a.Try = c.try(ev.From)
	}
	c.do(a)
	if len(*waiting) < c.cfg.MaxWaiting && !slices.Contains(*waiting, ev.From) {
		*waiting = append(*waiting, ev.From)
	}
}

// gift is what one thief is given.
type gift struct {
	to     grid.StealAsked
	want   uint32 // tasks, at most
	near   bool   // only such whose inputs the thief has, and we have not
	leases []grid.Lease
	worth  float64 // nanoseconds for one slot; 0 when not known
}

// give leases tasks out, of many users and jobs, no more than half of any work, and of those first that prefer
// the thief most. The thief claims at once what it gets, so a lease of ours starts short: if the answer is lost,
// not much time is.
func (c *Core) give(g *gift) {
	until := c.now.add(c.cfg.TTL / 4)
	trust := c.trust(g.to.From)
	works := c.offer(&g.to, c.cfg.MaxLeases)
	for len(works) > 0 {
		alike := c.mostPreferred(works, &g.to)
		for i, share := range shares(alike, g.want) {
			w := alike[i]
			if w.book != nil {
				share = min(share, trust)
			}
			before := len(g.leases)
			if h := c.hints[w.lease.Work()]; h != nil {
				c.weigh(g, w, h, share)
			} else if !g.near {
				for share > 0 && len(g.leases) < c.cfg.MaxLeases {
					s := w.queue.takeOld(share)
					share -= s.Len()
					g.leases = append(g.leases, w.lease.With(s))
				}
			}
			for _, l := range g.leases[before:] {
				n := l.Len()
				g.want -= n
				g.worth += w.mean * float64(n)
				c.queued -= uint64(n)
				if w.book != nil {
					trust -= n
					c.owe(g.to.From, n)
					c.hold(w.book, hold{Span: l.Span, kind: lent, node: g.to.From, until: until})
				}
			}
			if w.queue.tasks == 0 {
				c.delist(w)
			}
			if len(g.leases) > before {
				w.told = false
			}
			c.watch(w)
		}
		works = works[len(alike):]
	}
}

func (c *Core) noThief(p peer.ID) {
	is := func(t peer.ID) bool { return t == p }
	c.thieves, c.strangers = slices.DeleteFunc(c.thieves, is), slices.DeleteFunc(c.strangers, is)
}

// wake tells waiting thieves, no more than there are tasks, when something new was queued that our
// own slots did not take at once. Each is told once, then it has to ask again.
func (c *Core) wake() {
	if !c.grew || c.queued == 0 {
		return
	}
	n := int(min(uint64(len(c.thieves)), c.queued))
	for _, t := range c.thieves[:n] {
		c.do(grid.Wake{To: t})
	}
	c.thieves = slices.Delete(c.thieves, 0, n)
	if len(c.strangers) > 0 {
		c.wakeStrangers(c.offloaded(), nil)
	}
}
