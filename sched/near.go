package sched

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// What of this node's doings depends on where things are: which victim is near, who else may have work, what
// it costs to move the bytes that tasks read, and whom not to deal with.

const (
	// nearChoices is among how many peers a thief picks the nearest. Every fourth it picks without looking at that,
	// so that work gets everywhere.
	nearChoices = 2
	// maxTry is how many peers a victim names, maxRich how many it remembers to have work.
	maxTry  = 3
	maxRich = 8
	// minHint is the least size of an input, in bytes, that is worth a thought about where it lies.
	minHint = 64 << 10
	// usualRate is how fast bytes are taken to come from another node, in bytes per nanosecond, until that is
	// measured: 100 MB/s, about what a wire of a gigabit carries.
	usualRate = 0.1
	// maxScan is how many tasks one gift looks at for what they read.
	maxScan = 4096
	// maxMoved is how many different inputs of one gift are known to be on the way already when others read them, too.
	maxMoved = 256
	// maxAhead is of how many tasks the inputs are asked for ahead, at most.
	maxAhead = 256
)

// smooth moves an average by a quarter of the way to what was measured; 0 stands for no average yet.
func smooth(average *float64, measured float64) {
	if *average == 0 {
		*average = measured
	}
	*average += (measured - *average) / 4
}

// timed learns how far a victim is from its answer.
func (c *Core) timed(p peer.ID, took time.Duration) {
	if took <= 0 {
		took = time.Duration(c.now - c.askedAt)
	}
	trip := float64(min(took, c.cfg.TTL))
	smooth(&c.trip, trip)
	if n := c.peers[p]; n != nil {
		smooth(&n.trip, trip)
	}
}

// fetched learns from a grain that has ended how long it takes to bring what tasks read.
func (c *Core) fetched(ev grid.GrainDone) {
	if !c.busy(ev.Slot) {
		return
	}
	if c.slots[ev.Slot].work.book == nil && ev.Ran > 0 && ev.Fetching >= 0 {
		smooth(&c.fetch, float64(ev.Fetching))
	}
	if ev.Fetched >= minHint && ev.Fetching > 0 {
		smooth(&c.rate, float64(ev.Fetched)/float64(ev.Fetching))
	}
}

// lead is for how long, in nanoseconds, a slot should have work: until more is here and what it reads, too. It
// is no less than a grain, as nothing is decided in between.
func (c *Core) lead() float64 {
	return min(max(float64(c.cfg.Grain), c.trip+c.fetch), float64(c.cfg.TTL))
}

// nearest picks among a few random peers that were not asked in this round the nearest one. Those that it does
// not know the distance of come first, to learn it.
func (c *Core) nearest() peer.ID {
	if c.tried >= c.cfg.Tries {
		return ""
	}
	choices := nearChoices
	if c.tried%4 == 3 {
		choices = 1
	}
	k := 0 // around[next:next+k] are the choices
	for k < choices && c.next+k < len(c.around) {
		i := c.next + k + c.cfg.Rand.IntN(len(c.around)-c.next-k)
		n := c.around[i]
		c.around[i], c.around[c.next+k] = c.around[c.next+k], n
		if n.round != c.round && n.until <= c.now && n.barred <= c.now && n.outside == c.beyond {
			k++
			continue
		}
		c.around[c.next+k], c.around[c.next] = c.around[c.next], n
		c.next++
	}
	if k == 0 {
		return ""
	}
	best := c.next
	for i := c.next + 1; i < c.next+k; i++ {
		if c.around[i].trip < c.around[best].trip {
			best = i
		}
	}
	n := c.around[best]
	c.around[best], c.around[c.next] = c.around[c.next], n
	c.next++
	c.tried++
	return n.id
}

// told takes in whom a victim without work named. Only who is present and was not asked in this round counts.
func (c *Core) told(names []peer.ID) {
	for _, p := range names[:min(len(names), maxTry)] {
		if c.worthAsking(p) && len(c.tips) < maxTry && !slices.Contains(c.tips, p) {
			c.tips = append(c.tips, p)
		}
	}
}

func (c *Core) worthAsking(p peer.ID) bool {
	n := c.peers[p]
	return n != nil && n.round != c.round && n.until <= c.now && n.barred <= c.now && (!n.outside || c.beyond && c.lends())
}

// tip is the next peer that others named, "" when there is none. There is an end to following tips: each peer
// is asked once in a round, and only so many.
func (c *Core) tip() (p peer.ID) {
	for len(c.tips) > 0 && c.hops > 0 {
		p = c.tips[0]
		c.tips = slices.Delete(c.tips, 0, 1)
		if c.worthAsking(p) {
			c.hops--
			return p
		}
	}
	return ""
}

// rumour says that a peer has more work than it runs at the moment.
type rumour struct {
	id    peer.ID
	until instant // it is no news any more
}

func (c *Core) believe(p peer.ID, lasts time.Duration) {
	c.disbelieve(p)
	if c.peers[p] == nil || lasts <= 0 || c.barred(p) {
		return
	}
	if len(c.rich) == maxRich {
		c.rich = slices.Delete(c.rich, 0, 1)
	}
	c.rich = append(c.rich, rumour{id: p, until: c.now.add(lasts)})
}

func (c *Core) disbelieve(p peer.ID) {
	c.rich = slices.DeleteFunc(c.rich, func(r rumour) bool { return r.id == p })
}

// try names peers that may have work to one that asked in vain, those of the latest news first.
func (c *Core) try(thief peer.ID) (names []peer.ID) {
	for i := len(c.rich) - 1; i >= 0 && len(names) < maxTry; i-- {
		if r := c.rich[i]; r.until > c.now && r.id != thief && !c.barred(r.id) {
			names = append(names, r.id)
		}
	}
	return names
}

// lasts is how long a node with so many slots is believed to have queued some of these tasks: for half of the
// time that they take.
func (c *Core) lasts(worth float64, slots int) time.Duration {
	if worth == 0 { // it is not known
		return c.cfg.TTL / 6
	}
	return time.Duration(min(worth/float64(2*max(slots, 1)), float64(c.cfg.TTL)))
}

// worth is for how long tasks of others that were accepted would keep one slot busy.
func (c *Core) worth(leases []grid.Lease) (sum float64) {
	for _, l := range leases[:min(len(leases), c.cfg.MaxLeases)] {
		if w := c.foreign[l.With(grid.Span{})]; w != nil && l.Lo < l.Hi {
			sum += w.mean * float64(l.Len())
		}
	}
	return sum
}

// hints is what the tasks of one stage read most of, as far as that is large: pages of so many tasks each, by
// their numbers, none where nothing is large.
type hints struct {
	pages map[uint32][]grid.Hint
	last  uint32 // the page that was looked at last, plus 1
	page  []grid.Hint
}

const (
	hintPage = 256
	maxPages = 1 << 14 // of all stages together: 64 MiB
)

func (h *hints) at(i uint32) grid.Hint {
	if p := i / hintPage; h.last != p+1 {
		h.last, h.page = p+1, h.pages[p]
	}
	if h.page == nil {
		return grid.Hint{}
	}
	return h.page[i%hintPage]
}

func (h *hints) any(s grid.Span) bool {
	for i := s.Lo; i < s.Hi; i++ {
		if h.at(i).Root != 0 {
			return true
		}
	}
	return false
}

// hint takes in what tasks read, of works that are known here.
func (c *Core) hint(ev grid.Hints) {
	h := c.hints[ev.Work]
	for k, in := range ev.Inputs {
		i := uint64(ev.Lo) + uint64(k)
		if i >= grid.MaxTasks {
			return
		}
		if in.Root == 0 || in.Size < minHint {
			continue
		}
		if h == nil {
			if h = c.hintsOf(ev.Work); h == nil {
				return
			}
		}
		p := uint32(i / hintPage)
		page := h.pages[p]
		if page == nil {
			if c.hinted >= maxPages {
				return
			}
			c.hinted++
			page = make([]grid.Hint, hintPage)
			h.pages[p], h.last = page, 0
		}
		page[i%hintPage] = in
	}
}

// hintsOf makes room for the hints of a work, nil when it is not known here. It forgets those of works that
// have gone.
func (c *Core) hintsOf(of grid.Work) *hints {
	held := make(map[grid.Work]bool, len(c.held))
	for _, w := range c.held {
		held[w.lease.Work()] = true
	}
	for w, h := range c.hints {
		if c.jobs[w.Job] == nil && !held[w] {
			delete(c.hints, w)
			c.hinted -= len(h.pages)
		}
	}
	if c.jobs[of.Job] == nil && !held[of] || of.Stage >= grid.MaxStages {
		return nil
	}
	h := &hints{pages: make(map[uint32][]grid.Hint)}
	c.hints[of] = h
	return h
}

// The kinds of tasks by what it means to give them away, the best to give first.
const (
	nearThief  = iota // it has what the task reads
	weightless        // nothing large is read
	nearNobody        // neither has it
	nearUs            // it is here, and must be moved
	kinds
)

// offered is a run of tasks of one kind. As many are queued that our slots take before its last one.
type offered struct {
	grid.Span
	before uint32
}

// weigh adds up to share tasks of w to a gift: those for which the thief has most, and no others than those that
// it can begin sooner than a slot here, counting how long what they read is on the way. Only the oldest tasks are
// looked at, so many that a gift takes no long time.
func (c *Core) weigh(g *gift, w *work, h *hints, share uint32) {
	var found [kinds][]offered
	var looked []grid.Span
	var missing float64 // nanoseconds to bring what of it is not here
	tasks, last := 0.0, uint64(0)
	for budget := max(maxScan/uint32(len(c.ring)), 64); budget > 0 && w.queue.tasks > 0; {
		s := w.queue.takeOld(budget)
		budget -= s.Len()
		looked = append(looked, s)
		tasks += float64(s.Len())
		for i := s.Hi; i > s.Lo; i-- {
			in := h.at(i - 1)
			kind := weightless
			if in.Root != 0 {
				here := g.to.Here.Has(in.Root)
				if !here && in.Root != last { // tasks that read the same are often neighbours
					missing += c.moves(in)
				}
				last = in.Root
				switch {
				case g.to.Holds.Has(in.Root):
					kind = nearThief
				case here:
					kind = nearUs
				default:
					kind = nearNobody
				}
				if g.near && (kind != nearThief || here) {
					continue
				}
			} else if g.near {
				continue
			}
			if n := len(found[kind]); n > 0 && found[kind][n-1].Lo == i {
				found[kind][n-1].Lo--
			} else {
				found[kind] = append(found[kind], offered{grid.Span{Lo: i - 1, Hi: i}, w.queue.tasks + s.Len() - 1 - (s.Hi - i)})
			}
		}
	}
	turn := w.mean*float64(len(c.ring))/float64(max(len(c.slots), 1)) + missing/tasks
	first := len(g.leases)
	var busy, coming float64    // the thief's slots with what it is given, and its link
	blind := max(g.to.Slots, 1) // tasks that are moved though it is not known how long they take
	var moved map[uint64]bool   // what comes to the thief for others of these tasks
	for kind, list := range found {
		for _, o := range list {
			for i := o.Hi; i > o.Lo && share > 0; i-- {
				begin, move, in := busy, 0.0, h.at(i-1)
				if (kind == nearNobody || kind == nearUs) && !moved[in.Root] {
					move = c.moves(in)
					begin = max(busy, coming+move)
				}
				if kind == nearUs && move > 0 {
					begin = max(begin, float64(c.moved-c.now)+move)
				}
				switch wait := (float64(o.before-(o.Hi-i)) + 0.5) * turn; {
				case len(c.slots) == 0: // nothing begins here
				case w.mean == 0 && move > 0:
					if blind == 0 {
						continue
					}
					blind--
				case w.mean > 0 && begin > wait:
					continue
				}
				if last := len(g.leases) - 1; last >= first && g.leases[last].Lo == i {
					g.leases[last].Lo--
				} else if len(g.leases) < c.cfg.MaxLeases {
					g.leases = append(g.leases, w.lease.With(grid.Span{Lo: i - 1, Hi: i}))
				} else {
					share = 0
					break
				}
				share--
				busy += w.mean / float64(g.to.Can.Slots)
				if move == 0 {
					continue
				}
				coming += move
				if moved == nil {
					moved = make(map[uint64]bool)
				}
				if len(moved) < maxMoved {
					moved[in.Root] = true
				}
				if kind == nearUs && w.book != nil { // what others say of sizes must not stand in our way
					c.moved = min(max(c.moved, c.now).add(time.Duration(move)), c.now.add(maxExpected))
				}
			}
		}
	}
	given := make([]grid.Span, 0, len(g.leases)-first)
	for _, l := range g.leases[first:] {
		given = append(given, l.Span)
	}
	given = normal(given)
	for i := len(looked) - 1; i >= 0; i-- {
		for rest := range without(looked[i], given[firstAfter(given, looked[i].Lo):]) {
			w.queue.pushOld(rest)
		}
	}
}

// moves is how long an input is on its way between nodes, in nanoseconds.
func (c *Core) moves(in grid.Hint) float64 {
	rate := c.rate
	if rate == 0 {
		rate = usualRate
	}
	return min(float64(in.Size)/rate, float64(maxExpected))
}

// mostPreferred puts those works first for which a thief has the highest score, and of these that prefer a node with its
// labels most, and returns them.
func (c *Core) mostPreferred(works []*work, to *grid.StealAsked) []*work {
	if len(c.scores) == 0 && !slices.ContainsFunc(works, func(w *work) bool { return w.lease.Class.Prefer != "" }) {
		return works
	}
	compare := func(a, b *work) int {
		return cmp.Or(cmp.Compare(c.score(b, to.From), c.score(a, to.From)),
			c.prefers(&b.lease.Class, to.Can.Labels)-c.prefers(&a.lease.Class, to.Can.Labels))
	}
	slices.SortStableFunc(works, compare)
	n := 1
	for n < len(works) && compare(works[0], works[n]) == 0 {
		n++
	}
	return works[:n]
}

// ahead asks for the inputs of what the slots are likely to run next, so that they need not wait for them: of
// works whose inputs are known to be large, and of other nodes' works, of which it is not known what they read.
func (c *Core) ahead() {
	for w := range c.likely() {
		h := c.hints[w.lease.Work()]
		if h == nil && (w.book != nil || !w.lease.Spec.Defined()) {
			continue
		}
		s := w.queue.list()[len(w.queue.list())-1] // takeNew takes from its beginning
		s.Hi = s.Lo + min(s.Len(), uint32(len(c.slots))*c.grain(w), maxAhead)
		ask := s
		if w.ahead.Lo <= s.Lo && s.Lo < w.ahead.Hi {
			if 2*(w.ahead.Hi-s.Lo) >= s.Len() {
				continue // there is enough on its way
			}
			ask.Lo = w.ahead.Hi
		}
		w.ahead = s
		if w.book == nil || h.any(ask) {
			c.do(grid.Prefetch{Lease: w.lease.With(ask)})
		}
	}
}

// likely yields works that slots will soon run: of two users that are next the two jobs that are.
func (c *Core) likely() func(yield func(*work) bool) {
	return func(yield func(*work) bool) {
		users := c.top.turns.list
		for _, user := range users[:min(len(users), 2)] {
			jobs := user.turns.list
			for _, j := range jobs[:min(len(jobs), 2)] {
				if !yield(j.mine.list[0]) {
					return
				}
			}
		}
	}
}

// record is what a neighbour has done.
type record struct {
	did     uint64  // tasks of ours that it reported; halved in every time-to-live
	didAt   instant // as of when
	owes    uint32  // tasks of ours that it holds, at most, besides those that it got from others
	strikes int     // how often leases of ours ran out on it since it last reported
	struck  instant // the last time
	charges int     // how often it was barred of late
	barred  instant // it is left alone so long
}

// A peer that misbehaves is left alone for a time that doubles between these, and is as new when it has behaved for
// the longest.
const (
	minBar     = time.Second
	maxBar     = 5 * time.Minute
	maxStrikes = 3
	maxBad     = 256 // peers that misbehaved and are away
)

// barred reports whether a peer is to be left alone now, also one that is away.
func (c *Core) barred(p peer.ID) bool {
	n := c.peers[p]
	if n == nil {
		i := slices.IndexFunc(c.bad, func(n *neighbour) bool { return n.id == p })
		if i < 0 {
			return false
		}
		n = c.bad[i]
	}
	return c.now < n.barred
}

// bar leaves a peer alone for a while and says how long. It gets nothing, is not asked, and loses what it holds.
func (c *Core) bar(n *neighbour) time.Duration {
	if n.charges > 0 && c.now >= n.barred.add(maxBar) {
		n.charges = 0
	}
	d := min(minBar<<min(n.charges, 20), maxBar)
	n.charges++
	n.barred = max(n.barred, c.now.add(d))
	c.noThief(n.id)
	c.disbelieve(n.id)
	c.tips = slices.DeleteFunc(c.tips, func(p peer.ID) bool { return p == n.id })
	if c.waker == n.id {
		c.waker = ""
	}
	if c.giver == n.id {
		c.giver = ""
	}
	c.shorten(n.id)
	return time.Duration(n.barred - c.now)
}

// accused leaves alone a peer that did what no honest one does.
func (c *Core) accused(ev grid.Accused) {
	if ev.Peer == c.cfg.Self || ev.Peer == "" {
		return
	}
	n := c.peers[ev.Peer]
	away := n == nil
	if away {
		n = c.recall(ev.Peer)
	}
	d := c.bar(n)
	if away {
		c.keepRecord(n)
	}
	if c.jobs[ev.Job] != nil {
		c.noteAccused(ev.Job, n, fmt.Sprintf("%.200s; it is left alone for %v", ev.Why, d.Round(time.Second)))
	}
}

// ranOut counts leases that nobody renewed though their holder is present. After some times it gets none for a
// while.
func (c *Core) ranOut(j *job, e hold) {
	n := c.peers[e.node]
	if n == nil || n.strikes > 0 && n.struck == c.now || c.now < n.barred {
		return
	}
	n.struck = c.now
	if n.strikes++; n.strikes < maxStrikes {
		return
	}
	n.strikes = maxStrikes - 1 // the next one is one too many again
	d := c.bar(n)
	c.noteAccused(j.lease.Job, n, fmt.Sprintf("it took tasks and did not say that it runs them, %d times or more; it is given none for %v", maxStrikes, d.Round(time.Second)))
}

func (c *Core) noteAccused(id grid.JobID, n *neighbour, text string) {
	c.do(grid.Note{Job: id, Event: grid.JobEvent{Kind: grid.EventAccused, Node: n.id, Text: text}})
}

// keepRecord remembers a peer that goes away for what it has done wrong, recall finds it again.
func (c *Core) keepRecord(n *neighbour) {
	if n.strikes == 0 && n.charges == 0 {
		return
	}
	if len(c.bad) == maxBad {
		c.bad = slices.Delete(c.bad, 0, 1)
	}
	c.bad = append(c.bad, n)
}

func (c *Core) recall(p peer.ID) *neighbour {
	n := &neighbour{id: p}
	if i := slices.IndexFunc(c.bad, func(n *neighbour) bool { return n.id == p }); i >= 0 {
		n.record = c.bad[i].record
		c.bad = slices.Delete(c.bad, i, i+1)
	}
	return n
}

// worked books results of other nodes, and what those that are new say of who brings them.
func (c *Core) worked(ev grid.Reported) {
	before := c.unsettled(ev.Work, ev.Epoch)
	c.reported(ev)
	n := c.peers[ev.From]
	if fresh := before - c.unsettled(ev.Work, ev.Epoch); n != nil && fresh > 0 {
		n.strikes = 0
		n.age(c.now, c.cfg.TTL)
		n.did += uint64(fresh)
	}
}

// unsettled is how many tasks of a work that is open here are left.
func (c *Core) unsettled(w grid.Work, e grid.Epoch) uint32 {
	if s := c.find(w, e); s != nil {
		return s.left
	}
	return 0
}

func (r *record) age(now instant, half time.Duration) {
	if times := uint64(now-r.didAt) / uint64(half); times > 0 {
		r.did >>= min(times, 63)
		r.didAt += instant(times * uint64(half))
	}
}

// trust is how many more tasks of jobs owned here a thief may have: of what it holds and does not report there is
// no more than four times what it has done of late, or Config.MaxTrust if that is more. Each time that leases ran
// out on it makes that a sixteenth.
func (c *Core) trust(p peer.ID) uint32 {
	n := c.peers[p]
	if n == nil {
		return c.cfg.MaxTrust
	}
	n.age(c.now, c.cfg.TTL)
	limit := uint32(max(uint64(c.cfg.MaxTrust), min(4*n.did, grid.MaxTasks)))
	limit = max(limit>>(4*min(n.strikes, 7)), 1)
	if n.owes > limit/2 {
		n.owes = c.owed(p)
	}
	return limit - min(n.owes, limit)
}

// owed counts the tasks that are lent to a peer.
func (c *Core) owed(p peer.ID) (n uint32) {
	for s := range c.books() {
		for _, e := range s.holds.list {
			if e.kind == lent && e.node == p {
				n += e.Len()
			}
		}
	}
	return n
}

func (c *Core) owe(p peer.ID, n uint32) {
	if r := c.peers[p]; r != nil {
		r.owes += n
	}
}
