package sched

import (
	"fmt"
	"maps"
	"slices"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Check verifies the invariants of the package comment, by their numbers.
func (c *Core) Check() error {
	for _, f := range []func() error{c.checkSlots, c.checkDeque, c.checkBooks, c.checkForeign, c.checkThief, c.checkNear} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Core) checkSlots() error {
	runs := map[*work]int{}
	var memory, scratch uint64
	for g := range c.grains() {
		runs[g.work]++
		memory += g.work.lease.Class.Memory
		scratch += g.work.lease.Class.Scratch
		if g.span.Lo >= g.span.Hi {
			return fmt.Errorf("a grain %s", g.span)
		}
	}
	if memory != c.memory || scratch != c.scratch {
		return fmt.Errorf("%d bytes of memory and %d of scratch are reserved, booked as %d and %d", memory, scratch, c.memory, c.scratch)
	}
	for w, n := range runs {
		if w.running != n {
			return fmt.Errorf("%v has %d grains, booked as %d", w.lease, n, w.running)
		}
	}
	cores := map[int]int{} // by slot
	for i, s := range c.slots {
		if idle := slices.Contains(c.idle, i); idle == (s.work != nil || s.keeper > 0) || s.work != nil && s.keeper > 0 {
			return fmt.Errorf("slot %d: idle %v, work %v, keeper %d", i, idle, s.work, s.keeper)
		}
		if s.work != nil {
			cores[i]++
		} else if s.keeper > 0 {
			cores[s.keeper-1]++
		}
	}
	for i, n := range cores {
		if w := c.slots[i].work; w == nil || w.cores != n {
			return fmt.Errorf("slot %d has %d cores", i, n)
		}
	}
	var next *parked // the first that is back and may go on
	for _, ticket := range c.back {
		p := c.parked[ticket]
		if p == nil || !p.back {
			return fmt.Errorf("12: ticket %d is not back", ticket)
		}
		if next == nil && c.may(p.work) && (!p.work.lease.Outside || c.loan.slots+p.work.cores <= c.cfg.Share.Slots) {
			next = p
		}
	}
	for ticket, p := range c.parked {
		if p.back != slices.Contains(c.back, ticket) {
			return fmt.Errorf("12: parked %s, back %v of %v", p.span, p.back, c.back)
		}
	}
	if next != nil && len(c.idle) >= next.work.cores {
		return fmt.Errorf("12: %s is back and waits, %d slots idle", next.span, len(c.idle))
	}
	if !c.benched() && c.keeping != (next != nil || len(c.idle) > 0 && len(c.top.turns.list) > 0) {
		return fmt.Errorf("1: idle slots are kept %v: %d are idle, %d users' turns", c.keeping, len(c.idle), len(c.top.turns.list))
	}
	if c.loan.slots > c.cfg.Share.Slots || len(c.parked) == 0 && (c.loan.memory > c.cfg.Share.Memory || c.loan.scratch > c.cfg.Share.Scratch) {
		return fmt.Errorf("17: strangers' tasks use %+v of %+v", c.loan, c.cfg.Share)
	}
	if len(c.top.turns.list) > 0 && slices.ContainsFunc(c.held, func(w *work) bool { return w.lease.Outside && w.queue.tasks > 0 }) {
		return fmt.Errorf("17: strangers' tasks are queued beside the realm's")
	}
	if len(c.idle) == 0 || next != nil || c.benched() {
		return nil
	}
	for _, w := range c.ring {
		if w.lease.Outside && !c.lendable(w) {
			continue
		}
		if w.fits && !w.party.up.full && (!c.keeping || len(c.idle) == len(c.slots)) {
			return fmt.Errorf("1: %d slots idle with %d tasks queued of %v", len(c.idle), w.queue.tasks, w.lease)
		}
	}
	return nil
}

func (c *Core) checkDeque() error {
	var sum uint64
	for i, w := range c.ring {
		sum += uint64(w.queue.tasks)
		if w.queue.tasks == 0 || w.closed || slices.Index(c.ring, w) != i {
			return fmt.Errorf("2: %v is in the ring: %d tasks, closed %v", w.lease, w.queue.tasks, w.closed)
		}
		if err := checkSpans(w); err != nil {
			return err
		}
	}
	if sum != c.queued {
		return fmt.Errorf("2: %d tasks queued, booked as %d", sum, c.queued)
	}
	return c.checkShares()
}

// checkShares compares the books of shares with what is queued and what runs.
func (c *Core) checkShares() error {
	type sum struct{ works, mine, grains, busy int }
	sums := map[*party]sum{}
	add := func(j *party, s sum) {
		for p := j; p != nil; p = p.up {
			t := sums[p]
			sums[p] = sum{t.works + s.works, t.mine + s.mine, t.grains + s.grains, t.busy + s.busy}
		}
	}
	for i, w := range c.ring {
		if w.ringAt != i+1 || w.party.theirs.list[w.theirsAt-1] != w || (w.mineAt > 0) != w.fits ||
			w.fits && w.party.mine.list[w.mineAt-1] != w {
			return fmt.Errorf("2: %v is not where it says it is", w.lease)
		}
		s := sum{works: 1}
		if w.fits {
			s.mine = 1
		}
		add(w.party, s)
	}
	for g := range c.grains() {
		add(g.work.party, sum{grains: 1})
	}
	for _, s := range c.slots {
		if s.work != nil {
			add(s.work.party, sum{busy: s.work.cores})
		}
	}
	full := 0
	for _, user := range c.top.below {
		if user.full {
			full++
		}
		if limit := c.cfg.MaxPerUser; limit > 0 && user.busy > limit {
			return fmt.Errorf("1: %q uses %d slots, %d are allowed", user.key, user.busy, limit)
		}
		for _, p := range append([]*party{user}, slices.Collect(maps.Values(user.below))...) {
			s := sums[p]
			if got := p.grains; got != s.grains {
				return fmt.Errorf("2: %q has %d grains, booked as %d", p.key, s.grains, got)
			}
			if p == user && p.busy != s.busy {
				return fmt.Errorf("2: %q uses %d slots, booked as %d", p.key, s.busy, p.busy)
			}
			if (p.stockAt > 0) != (s.works > 0) || p.stockAt > 0 && p.up.stock[p.stockAt-1] != p {
				return fmt.Errorf("2: %q has %d works queued, listed as %d", p.key, s.works, p.stockAt)
			}
			if (p.at > 0) != (s.mine > 0 && !p.full) || p.at > 0 && p.up.turns.list[p.at-1] != p {
				return fmt.Errorf("2: %q has %d works to run, full %v, in turn %d", p.key, s.mine, p.full, p.at)
			}
			if p.at > 0 && p.up.turns.list[0].pass > p.pass {
				return fmt.Errorf("2: %q has used less than who is next", p.key)
			}
		}
	}
	if full != c.full {
		return fmt.Errorf("%d users are full, booked as %d", full, c.full)
	}
	return nil
}

func checkSpans(w *work) error {
	var tasks uint32
	list := slices.Clone(w.queue.list())
	for _, s := range list {
		if s.Lo >= s.Hi || s.Hi > grid.MaxTasks {
			return fmt.Errorf("2: %v queues %s", w.lease, s)
		}
		tasks += s.Len()
	}
	var distinct uint32
	for _, s := range normal(list) {
		distinct += s.Len()
	}
	if tasks != w.queue.tasks || distinct != tasks {
		return fmt.Errorf("2: %v queues %d tasks, %d distinct, booked as %d", w.lease, tasks, distinct, w.queue.tasks)
	}
	return nil
}

func (c *Core) checkBooks() error {
	if len(c.jobs) != len(c.order) {
		return fmt.Errorf("%d jobs, %d in order", len(c.jobs), len(c.order))
	}
	for _, j := range c.order {
		if c.jobs[j.lease.Job] != j {
			return fmt.Errorf("job %s is not the one in order", j.lease.Job)
		}
		if err := c.checkJob(j); err != nil {
			return fmt.Errorf("%s: %w", j.lease.Job, err)
		}
	}
	return nil
}

func (c *Core) checkJob(j *job) error {
	open := 0
	var out, held uint64
	for _, s := range j.stages {
		held += uint64(s.withheld)
	}
	if held != j.withheld {
		return fmt.Errorf("16: %d tasks are withheld, booked as %d", held, j.withheld)
	}
	for i, s := range j.stages {
		if s.job != j || s.work.book != s || s.work.lease.Stage != uint32(i) || len(s.fresh) > 0 {
			return fmt.Errorf("the book of stage %d is wrong: %+v", i, s)
		}
		if s.left == 0 {
			if !s.work.closed || s.own != nil && !s.own.closed || s.settled != nil || s.voters != nil || len(s.holds.list) > 0 || s.queued() > 0 {
				return fmt.Errorf("6: stage %d has ended and is not cleared away", i)
			}
			continue
		}
		open++
		if err := c.checkStage(s); err != nil {
			return fmt.Errorf("stage %d: %w", i, err)
		}
		for t := range s.tasks {
			asked := s.asked.has(t)
			if asked && !s.settled.has(t) {
				out++
			}
			if may := s.preparable(t); may != asked && !s.settled.has(t) {
				return fmt.Errorf("11: task %d of stage %d can be prepared: %v, asked for: %v", t, i, may, asked)
			}
		}
	}
	if open != j.open || out != j.out || open == 0 || len(j.fresh) > 0 {
		return fmt.Errorf("6: %d stages open, booked as %d; %d tasks out, booked as %d", open, j.open, out, j.out)
	}
	if most := j.limits.Parallel; most > 0 {
		given, keeps := uint32(0), false
		for _, s := range j.stages {
			given += s.queued()
			for _, e := range s.holds.list {
				if e.kind == kept {
					keeps = true
				} else if e.kind != withheld {
					given += e.Len()
				}
			}
		}
		if given != j.given || given > most || keeps && given < most && !j.paused {
			return fmt.Errorf("13: %d tasks handed out, booked as %d, at most %d; more are kept: %v", given, j.given, most, keeps)
		}
	}
	for _, s := range j.stages {
		for _, e := range s.holds.list {
			switch {
			case j.paused && (e.kind == onOffer || s.queued() > 0):
				return fmt.Errorf("13: it is paused, and %s can be had, %d are queued", e.Span, s.queued())
			case e.kind == kept && !j.paused && j.limits.Parallel == 0:
				return fmt.Errorf("13: %s is kept for no reason", e.Span)
			}
		}
	}
	if next := j.nextLimit(); next < c.due {
		return fmt.Errorf("4: its time is up at %d, nothing is due before %d", next, c.due)
	}
	if j.failures > j.allow && (out == 0 || !j.keepGoing) {
		return fmt.Errorf("6: %d tasks failed, and the job goes on", j.failures)
	}
	return nil
}

// preparable reports, from scratch, whether all that a task needs has ended.
func (s *stage) preparable(t uint32) bool {
	for _, n := range s.plan.Needs {
		needed := s.job.stages[n.Stage]
		lo, hi := uint64(0), uint64(needed.tasks)
		if n.Fan > 0 {
			lo, hi = min(uint64(t)*uint64(n.Fan), hi), min(uint64(t+1)*uint64(n.Fan), hi)
		} else if needed.left > 0 {
			return false
		}
		for i := lo; i < hi && needed.left > 0; i++ {
			if !needed.settled.has(uint32(i)) {
				return false
			}
		}
		for k, f := range s.job.failed {
			if uint32(k) >= s.job.allow && f.Stage == n.Stage && lo <= uint64(f.Index) && uint64(f.Index) < hi {
				return false
			}
		}
	}
	return true
}

func (c *Core) checkStage(s *stage) error {
	if len(s.settled) == 0 {
		if s.queued() > 0 || len(s.holds.list) > 0 || s.left != s.tasks {
			return fmt.Errorf("3: nothing was asked for, and something is here")
		}
		return nil
	}
	place := make([]string, s.tasks)
	put := func(span grid.Span, what string) error {
		if span.Lo >= span.Hi || span.Hi > s.tasks || s.ready.next(span.Lo, span.Hi, ^uint64(0)) < span.Hi {
			return fmt.Errorf("3: %s %s is not all ready", what, span)
		}
		for i := span.Lo; i < span.Hi; i++ {
			if place[i] != "" {
				return fmt.Errorf("3: task %d is %s and %s", i, place[i], what)
			}
			place[i] = what
		}
		return nil
	}
	for _, q := range s.work.queue.list() {
		if err := put(q, "queued"); err != nil {
			return err
		}
	}
	if s.own != nil {
		if !s.own.lease.Class.Pinned || s.own.book != s {
			return fmt.Errorf("16: what only our own slots may run can be stolen")
		}
		for _, q := range s.own.queue.list() {
			if err := put(q, "queued here"); err != nil {
				return err
			}
		}
	}
	if err := c.checkVotes(s); err != nil {
		return err
	}
	for k, e := range s.holds.list {
		if err := put(e.Span, [...]string{"", "running", "lent", "waiting", "offered", "kept", "withheld"}[e.kind]); err != nil {
			return err
		}
		if k > 0 && s.holds.list[k-1].Hi > e.Lo {
			return fmt.Errorf("3: holds out of order: %v", s.holds.list)
		}
		if e.until < c.due {
			return fmt.Errorf("4: a hold ends at %d, nothing is due before %d", e.until, c.due)
		}
		if (e.kind == running || e.kind == kept || e.kind == withheld) != (e.until == never) {
			return fmt.Errorf("4: hold %v without an end", e)
		}
		if e.kind == running && !c.hasGrain(s, e.Span) {
			return fmt.Errorf("5: no grain has %s", e.Span)
		}
	}
	if err := c.checkCopies(s); err != nil {
		return err
	}
	left := uint32(0)
	for i := range s.tasks {
		settled := s.settled.has(i)
		switch {
		case settled && place[i] != "":
			return fmt.Errorf("3: task %d is settled and %s", i, place[i])
		case !settled && s.ready.has(i) && place[i] == "":
			return fmt.Errorf("3: task %d is nowhere", i)
		}
		if s.ready.has(i) && !s.asked.has(i) {
			return fmt.Errorf("11: task %d is ready and was not asked for", i)
		}
		if !settled {
			left++
		}
	}
	if left != s.left || left == 0 {
		return fmt.Errorf("6: %d tasks left, booked as %d", left, s.left)
	}
	return nil
}

// checkVotes looks at tasks that nodes have run and others must run: no thief can get at them unseen.
func (c *Core) checkVotes(s *stage) error {
	for i, voters := range s.voters {
		if len(voters) == 0 || i >= s.tasks || s.settled.has(i) {
			return fmt.Errorf("16: task %d has %d voters, settled: %v", i, len(voters), s.settled.has(i))
		}
	}
	for _, q := range s.work.queue.list() {
		for i := q.Lo; i < q.Hi; i++ {
			if s.voted(i) {
				return fmt.Errorf("16: task %d is queued for all, and %v have run it", i, s.voters[i])
			}
		}
	}
	var held uint32
	for _, e := range s.holds.list {
		if e.kind == withheld {
			held += e.Len()
		}
	}
	if held != s.withheld {
		return fmt.Errorf("16: %d tasks are withheld, booked as %d", held, s.withheld)
	}
	if held > 0 && (held == s.left || s.job.withheld == s.job.out) && !s.askedAll {
		return fmt.Errorf("16: only withheld tasks are left, and nobody asks for more")
	}
	return nil
}

func (c *Core) checkCopies(s *stage) error {
	for _, e := range s.copies.list {
		if e.until < c.due || (e.kind == running) != (e.until == never) || e.kind != running && e.kind != lent {
			return fmt.Errorf("4: copy %+v, next due %d", e, c.due)
		}
		for i := e.Lo; i < e.Hi; i++ {
			h := s.holds.at(i)
			if h == nil || h.kind != running && h.kind != lent || h.node == e.node {
				return fmt.Errorf("3: task %d has copy %+v and hold %+v", i, e, h)
			}
		}
		if e.kind == running && !c.hasGrain(s, e.Span) {
			return fmt.Errorf("5: no slot runs copy %s", e.Span)
		}
	}
	for _, e := range s.holds.list {
		if e.kind == onOffer && !slices.Contains(c.offering, s) {
			return fmt.Errorf("12: %s is offered, and nobody will be given it", e.Span)
		}
	}
	return nil
}

func (c *Core) hasGrain(st *stage, s grid.Span) bool {
	for g := range c.grains() {
		if st.runs(g.work) && g.span.Lo <= s.Lo && s.Hi <= g.span.Hi {
			return true
		}
	}
	return false
}

// grains yields all that run or are parked.
func (c *Core) grains() func(yield func(grain) bool) {
	return func(yield func(grain) bool) {
		for _, s := range c.slots {
			if s.work != nil && !yield(s.grain) {
				return
			}
		}
		for _, p := range c.parked {
			if !yield(p.grain) {
				return
			}
		}
	}
}

func (c *Core) checkForeign() error {
	ranges := 0
	for _, w := range c.held {
		if c.foreign[w.lease] != w || w.closed || w.book != nil || w.lease.Owner == c.cfg.Self {
			return fmt.Errorf("7: foreign work %v is booked wrongly", w.lease)
		}
		if !w.bare() && c.claimAt == never {
			return fmt.Errorf("8: %v is held and will not be claimed", w.lease)
		}
		var sum uint32
		for _, s := range c.holding(w) {
			sum += s.Len()
		}
		want := w.queue.tasks
		for g := range c.grains() {
			if g.work == w {
				want += g.span.Len()
			}
		}
		if sum != want {
			return fmt.Errorf("7: %v: a task is held twice: %d of %d", w.lease, sum, want)
		}
		ranges += len(w.queue.list())
	}
	if len(c.foreign) != len(c.held) || ranges > c.cfg.MaxHeld {
		return fmt.Errorf("9: %d foreign works, %d listed, %d ranges", len(c.foreign), len(c.held), ranges)
	}
	return nil
}

func (c *Core) checkThief() error {
	if (c.asking == "") != (c.askBy == never) {
		return fmt.Errorf("10: asking %q until %d", c.asking, c.askBy)
	}
	if c.keen && c.asking == "" && !c.asleep {
		return fmt.Errorf("10: hungry, yet neither asking nor asleep")
	}
	if len(c.thieves) > c.cfg.MaxWaiting || len(c.peers) != len(c.around) {
		return fmt.Errorf("9: %d thieves wait; %d peers, %d around", len(c.thieves), len(c.peers), len(c.around))
	}
	return nil
}
