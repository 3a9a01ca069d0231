package sched

import (
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// job is the owner's book of one job.
type job struct {
	lease     grid.Lease // job, owner, epoch, spec
	stages    []*stage
	fresh     []*stage // those of which tasks have become preparable in this step
	open      int      // stages with tasks left
	out       uint64   // tasks that were asked for and have not ended
	withheld  uint64   // of these, with a result that is not believed yet
	keepGoing bool
	allow     uint32
	failures  uint32
	failed    []grid.FailedTask // the first of them

	limits            limits
	deadline, startBy instant
	begun             bool   // a task was run or lent
	paused            bool   // nothing of it is handed out
	given             uint32 // ready tasks that are neither settled nor kept, when there is a limit to them

	known  map[peer.ID]bool // other nodes that were given tasks, or accused of having not been
	noteAt instant          // when the second began that noted is of
	noted  int
	unsaid int
}

// limits are a job's, as it was opened with.
type limits struct {
	Parallel        uint32
	Deadline, Start time.Duration
}

// maxFailed bounds how many failed tasks a job lists; it counts all.
const maxFailed = 1000

func (c *Core) jobOpened(ev grid.JobOpened) {
	if j := c.jobs[ev.Lease.Job]; j != nil {
		if j.lease.Epoch >= ev.Lease.Epoch {
			return
		}
		c.forget(j)
	}
	if err := checkPlans(ev.Stages); err != nil {
		c.do(grid.CloseJob{Job: ev.Lease.Job, Bad: true, Why: err})
		return
	}
	l := ev.Lease
	l.Owner, l.Stage, l.Table, l.Span = c.cfg.Self, 0, grid.Link{}, grid.Span{}
	j := &job{lease: l, keepGoing: ev.KeepGoing, allow: ev.Allow, paused: ev.Paused, noteAt: c.now,
		limits: limits{ev.Parallel, ev.Deadline, ev.Start}, deadline: c.after(ev.Deadline), startBy: c.after(ev.Start)}
	c.jobs[l.Job] = j
	c.order = append(c.order, j)
	c.due = min(c.due, j.nextLimit())
	j.lay(ev.Stages)
	if slices.ContainsFunc(ev.Stages, func(p grid.StagePlan) bool { return p.Class.Pure }) {
		c.tailAt = min(c.tailAt, c.now.add(c.cfg.Slack))
	}
	c.advance(j)
}

func (c *Core) prepared(ev grid.Prepared) {
	s := c.book(ev.Job, ev.Stage)
	if s == nil {
		return
	}
	s.grow()
	s.work.lease.Table = ev.Table
	c.cuts = c.cuts[:0]
	for _, done := range ev.Done {
		c.settle(s, grid.Span{Lo: done.Lo, Hi: min(done.Hi, s.tasks)}, "", true)
	}
	for _, i := range ev.Failed {
		if i < s.tasks && s.asked.has(i) && !s.settled.has(i) {
			c.fail(s, c.cfg.Self, i, 0)
		}
	}
	c.cutSettled(s)
	c.revoke(s)
	for _, ready := range ev.Ready {
		for asked := range s.asked.setRuns(grid.Span{Lo: ready.Lo, Hi: min(ready.Hi, s.tasks)}) {
			for fresh := range s.ready.clearRuns(asked) {
				s.ready.set(fresh)
				for run := range s.settled.clearRuns(fresh) {
					c.handOut(s, run)
				}
			}
		}
	}
	if len(ev.Votes) > 0 {
		c.known(s, ev.Votes)
	}
	c.ended(s)
}

func (c *Core) reported(ev grid.Reported) {
	if s := c.find(ev.Work, ev.Epoch); s != nil {
		c.report(s, ev.From, ev.Results)
	}
}

// book finds the book of a stage that has tasks left.
func (c *Core) book(id grid.JobID, stage uint32) *stage {
	if j := c.jobs[id]; j != nil && int(stage) < len(j.stages) && j.stages[stage].left > 0 {
		return j.stages[stage]
	}
	return nil
}

// find is book for a given epoch, of a stage of which tasks may be somewhere.
func (c *Core) find(w grid.Work, e grid.Epoch) *stage {
	if s := c.book(w.Job, w.Stage); s != nil && s.ready != nil && s.job.lease.Epoch == e {
		return s
	}
	return nil
}

// report books results. They may be late, repeated or made up: what counts is that a task is ready
// and not settled. A success then counts whoever brings it; a host failure only from the node that
// holds the task, so that none is counted twice.
func (c *Core) report(s *stage, from peer.ID, results []grid.TaskResult) {
	c.cuts = c.cuts[:0]
	if from != c.cfg.Self {
		c.suspect(s, from, results)
	}
	var run grid.Span // of successes, settled together
	able := false
	for _, r := range results {
		if r.Index >= s.tasks || !s.ready.has(r.Index) {
			continue
		}
		if r.Outcome == grid.Succeeded && r.Index == run.Hi && run.Len() > 0 && !s.settled.has(r.Index) {
			run.Hi++
			continue
		}
		c.settle(s, run, from, true)
		run = grid.Span{}
		if s.settled.has(r.Index) {
			continue
		}
		one := grid.Span{Lo: r.Index, Hi: r.Index + 1}
		switch r.Outcome {
		case grid.Succeeded:
			run, able = one, true
		case grid.GuestFailed:
			able = true
			c.fail(s, from, r.Index, 0)
		case grid.HostFailed:
			c.hostFailed(s, from, r.Index)
		case grid.Unproven, grid.Withheld:
			able = true
			c.unproven(s, from, r.Index, r.Outcome == grid.Withheld)
		}
	}
	c.settle(s, run, from, true)
	if able {
		c.praise(from)
	}
	c.noteFailing(s, from)
	if c.strip != "" && c.strip != c.cfg.Self {
		for s := range c.books() {
			c.takeAll(s, c.strip)
		}
	}
	c.strip = ""
	c.cutSettled(s)
	c.redoAll(s)
	c.revoke(s)
	c.ended(s)
}

// settle marks the tasks of span and forgets who holds them. Those that are queued are noted in c.cuts
// for cutSettled, so that one pass over the queue does for a whole event. Unless they count, nothing
// that needs them will ever be prepared.
func (c *Core) settle(s *stage, span grid.Span, from peer.ID, counts bool) {
	for run := range s.settled.clearRuns(span) {
		if s.plan.Class.Pure {
			c.heard(s, run, from)
		}
		if len(s.copies.list) > 0 {
			c.supersede(s, run, from)
		}
		if s.job.limits.Parallel > 0 {
			s.back(run)
		}
		if len(s.voters) > 0 {
			s.unhold(run)
			for i := run.Lo; i < run.Hi; i++ {
				delete(s.voters, i)
			}
		}
		s.settled.set(run)
		s.left -= run.Len()
		for asked := range s.asked.setRuns(run) {
			s.job.out -= uint64(asked.Len())
		}
		if s.holds.clear(run) < run.Len() && s.ready.next(run.Lo, run.Hi, 0) < run.Hi {
			c.cuts = append(c.cuts, run)
		}
		if counts {
			s.feed(run)
		} else {
			s.barred = true
		}
	}
}

func (c *Core) cutSettled(s *stage) {
	if len(c.cuts) > 0 {
		cuts := normal(c.cuts)
		c.cut(s.work, cuts)
		if s.own != nil {
			c.cut(s.own, cuts)
		}
	}
}

// fail books a task that failed for good. While the job may have failed tasks, such a one has ended as
// well as any other; after that, what needs it cannot run.
func (c *Core) fail(s *stage, from peer.ID, i uint32, attempts int) {
	j := s.job
	one := grid.Span{Lo: i, Hi: i + 1}
	j.failures++
	why := "its program failed"
	if attempts > 0 {
		why = fmt.Sprintf("given up after %d tries", attempts)
	}
	c.note(s, grid.EventFailed, from, one, "%s", why)
	if len(j.failed) < maxFailed {
		j.failed = append(j.failed, grid.FailedTask{Work: s.work.lease.Work(), Index: i, Attempts: attempts})
	}
	delete(s.tries, i)
	c.settle(s, one, from, j.failures <= j.allow)
}

// suspect notes a node that reports tasks of a job that none of its tasks was ever given to, as far as is known:
// all of them are in other places than with thieves, from whom it may have stolen them.
func (c *Core) suspect(s *stage, from peer.ID, results []grid.TaskResult) {
	j := s.job
	if j.known[from] || len(j.known) >= maxKnown || len(results) == 0 || j.lease.Epoch > 1 { // whom earlier owners gave some is not known
		return
	}
	for _, r := range results {
		if e := s.holds.at(r.Index); e != nil && e.kind == lent || s.lost.has(r.Index) || s.settled.has(r.Index) {
			return
		}
	}
	j.know(from)
	c.note(s, grid.EventAccused, from, grid.Span{Lo: results[0].Index, Hi: results[0].Index + 1},
		"it reports tasks that it was not given")
}

// doubted tells what of a report does not count: the results of tasks that the node which brings them does not hold.
func (c *Core) doubted(ev grid.Doubted) {
	var refused []uint32
	var results []grid.TaskResult
	if s := c.book(ev.Job, ev.Stage); s != nil && s.job.lease.Epoch == ev.Epoch {
		for _, i := range ev.Tasks {
			if i < s.tasks && !s.settled.has(i) && !s.with(i, ev.From) {
				refused = append(refused, i)
				results = append(results, grid.TaskResult{Index: i, Outcome: grid.GuestFailed})
			}
		}
		if len(refused) > 0 {
			c.suspect(s, ev.From, results)
		}
	}
	c.do(grid.AnswerDoubted{Call: ev.Call, Refused: refused})
}

// with reports whether a node holds task i, or a second copy of it.
func (s *stage) with(i uint32, node peer.ID) bool {
	for _, h := range []*holds{&s.holds, &s.copies} {
		if e := h.at(i); e != nil && e.kind == lent && e.node == node {
			return true
		}
	}
	return false
}

// know remembers that a node may report tasks of j.
func (j *job) know(p peer.ID) {
	if j.known[p] {
		return
	}
	if j.known == nil {
		j.known = make(map[peer.ID]bool)
	}
	if len(j.known) < maxKnown {
		j.known[p] = true
	}
}

// hold books where tasks are from now on.
func (c *Core) hold(s *stage, e hold) {
	c.due = min(c.due, e.until)
	if e.since == 0 {
		e.since = c.now
	}
	if e.kind == lent {
		s.job.begun = true
		s.job.know(e.node)
	}
	s.holds.put(e)
	if e.kind == waiting {
		s.lost.unset(e.Span)
	}
}

// advance closes j if it has come to its end, and else asks for what can be prepared by now.
func (c *Core) advance(j *job) {
	bad := j.failures > j.allow
	switch {
	case bad && (j.out == 0 || !j.keepGoing):
		c.close(j, nil)
	case j.open == 0:
		c.close(j, nil)
	default:
		c.ask(j)
		c.gate(j)
	}
}

// close ends j well, or badly if more tasks failed than may or for another reason.
func (c *Core) close(j *job, why error) {
	c.forget(j)
	c.do(grid.CloseJob{Job: j.lease.Job, Bad: j.failures > j.allow || why != nil, Failed: j.failed, Failures: j.failures, Why: why})
}

// ended moves the job of s on after tasks of s may have ended.
func (c *Core) ended(s *stage) {
	if s.left == 0 {
		c.closeStage(s)
		s.lift()
		s.job.open--
		for i := range c.slots {
			if s.runs(c.slots[i].work) && s.job.open > 0 {
				c.do(grid.StopGrain{Slot: i})
			}
		}
	}
	c.advance(s.job)
	if s.job.withheld > 0 {
		c.askWithheld(s.job)
	}
}

// closeStage clears away what of a stage is queued or booked.
func (c *Core) closeStage(s *stage) {
	c.unqueue(s.work)
	s.work.closed = true
	if s.own != nil {
		c.unqueue(s.own)
		s.own.closed = true
	}
	s.asked, s.ready, s.settled, s.lost, s.wants, s.tries, s.voters = nil, nil, nil, nil, nil, nil, nil
	s.job.withheld -= uint64(s.withheld)
	s.withheld = 0
	s.holds, s.copies = holds{}, holds{}
}

// forget ends j here and with everybody who holds leases on it.
func (c *Core) forget(j *job) {
	if slices.ContainsFunc(j.stages, func(s *stage) bool { return s.work.running > 0 || s.own != nil && s.own.running > 0 }) {
		c.do(grid.StopJob{Job: j.lease.Job})
	}
	told := map[peer.ID]bool{}
	for _, s := range j.stages {
		for _, e := range slices.Concat(s.holds.list, s.copies.list) {
			if e.kind == lent && !told[e.node] {
				told[e.node] = true
				c.do(grid.TellDropped{To: e.node, Job: j.lease.Job, Epoch: j.lease.Epoch})
			}
		}
		c.closeStage(s)
	}
	delete(c.jobs, j.lease.Job)
	c.order = slices.DeleteFunc(c.order, func(o *job) bool { return o == j })
}

func (c *Core) jobEnded(id grid.JobID) {
	if j := c.jobs[id]; j != nil {
		c.forget(j)
	}
}

const maxVain = 64 // spans revoked in answer to one claim

// claimed renews the leases of a node, or tells it that they are of no use.
func (c *Core) claimed(ev grid.Claimed) {
	j := c.jobs[ev.Job]
	if j == nil || j.lease.Epoch > ev.Epoch {
		c.do(grid.TellDropped{To: ev.From, Job: ev.Job, Epoch: ev.Epoch})
		return
	}
	s := c.find(ev.Work, ev.Epoch)
	if ev.From == c.cfg.Self || c.barred(ev.From) || s == nil {
		return
	}
	if len(ev.Back) > 0 {
		c.returned(s, ev.From, ev.Back)
	}
	until := c.now.add(c.cfg.TTL)
	c.cuts = c.cuts[:0]
	var vain []grid.Span // what it holds and need not run
	for _, span := range c.bounded(ev.Spans) {
		span.Hi = min(span.Hi, s.tasks)
		for run := range s.settled.clearRuns(span) {
			for _, run := range c.renewCopies(s, run, ev.From, until) {
				if len(s.voters) == 0 {
					c.renewLent(s, run, ev.From, until)
					continue
				}
				realm := c.realmOf(ev.From)
				has := func(i uint32) bool { return s.ran(i, ev.From, realm) }
				for run := range alike(run, has) {
					if !has(run.Lo) {
						c.renewLent(s, run, ev.From, until)
					} else if len(vain) < maxVain {
						vain = append(vain, run)
					}
				}
			}
		}
		for run := range s.settled.setRuns(span) {
			if len(vain) == maxVain {
				break
			}
			vain = append(vain, run)
		}
	}
	c.cutSettled(s)
	if s.job.paused && len(ev.Spans) > 0 {
		c.callIn(s, ev.From, c.bounded(ev.Spans))
	}
	if len(vain) > 0 {
		c.do(grid.Revoke{To: ev.From, Work: ev.Work, Epoch: ev.Epoch, Spans: vain})
	}
	if c.resting(ev.From) {
		c.takeAll(s, ev.From) // it has stolen from thieves, who do not know that it fails
	}
}

// renewLent books a claim on a run of unsettled tasks. Messages overtake one another, so a claim says
// only what its node held a while ago. It moves a lease that is out, and takes back from the queue what
// was put there because a lease ran out. What came back to us in another way, by a report or by
// stealing it from its holder, stays ours: the claim is older than that. What others are to confirm stays with who was
// chosen to: nobody can have it from them.
//
// One pass does for the whole run, as who claims singly what lies together, and then all of it, would have a busy owner
// do as many as there are entries.
func (c *Core) renewLent(s *stage, run grid.Span, from peer.ID, until instant) {
	h := &s.holds
	i := h.search(run.Lo)
	j, had, queued := i, false, run.Lo
	out := h.scratch[:0]
	lend := func(e hold) {
		had = true
		switch last := len(out) - 1; {
		case last >= 0 && out[last].Hi == e.Lo && out[last].same(e):
			out[last].Hi = e.Hi
		case last < 0 && i > 0 && h.list[i-1].Hi == e.Lo && h.list[i-1].same(e):
			i--
			out = append(out, h.list[i].with(h.list[i].Lo, e.Hi))
		default:
			out = append(out, e)
		}
	}
	// What is queued here is taken back from there, if it is lost.
	retrieve := func(queued grid.Span) {
		if s.lost == nil {
			return
		}
		for lost := range s.lost.setRuns(queued) {
			lend(hold{Span: lost, kind: lent, node: from, until: until, since: c.now})
			c.cuts = append(c.cuts, lost)
		}
	}
	for ; j < len(h.list) && h.list[j].Lo < run.Hi; j++ {
		e := h.list[j]
		retrieve(grid.Span{Lo: queued, Hi: e.Lo})
		queued = e.Hi
		if e.kind != lent {
			out = append(out, e)
			continue
		}
		if e.Lo < run.Lo {
			out = append(out, e.with(e.Lo, run.Lo))
		}
		part := e.with(max(e.Lo, run.Lo), min(e.Hi, run.Hi))
		moved := part
		moved.until, moved.called = until, false
		if part.node != from {
			moved.node, moved.since = from, c.now
		}
		if part.node == from || len(s.voters) == 0 {
			lend(moved)
		} else {
			for run := range alike(part.Span, s.voted) {
				if s.voted(run.Lo) { // its lease is pinned
					out = append(out, part.with(run.Lo, run.Hi))
				} else {
					lend(moved.with(run.Lo, run.Hi))
				}
			}
		}
		if e.Hi > run.Hi {
			out = append(out, e.with(run.Hi, e.Hi))
		}
	}
	retrieve(grid.Span{Lo: queued, Hi: run.Hi})
	h.list = slices.Replace(h.list, i, j, out...)
	h.scratch = out
	if had {
		c.due = min(c.due, until)
		s.job.begun = true
		s.job.know(from)
	}
}

// bounded is as much of a list from outside as is taken seriously, copied, sorted and disjoint.
func (c *Core) bounded(list []grid.Span) []grid.Span {
	return normal(slices.Clone(list[:min(len(list), c.cfg.MaxHeld+len(c.slots))]))
}

// expire queues again what nobody renewed and what has waited long enough.
func (c *Core) expire() {
	c.due = never
	c.overdue()
	if h := c.sick[c.cfg.Self]; h != nil && h.until > c.now {
		c.due = min(c.due, h.until)
	}
	for s := range c.books() {
		var next [2]instant
		c.over, next[0] = s.copies.expire(c.now, c.over[:0])
		c.over, next[1] = s.holds.expire(c.now, c.over[:0])
		c.due = min(c.due, next[0], next[1])
		over := c.over
		for _, e := range over {
			switch e.kind {
			case lent:
				c.lose(s, e)
				if !e.called {
					c.ranOut(s.job, e)
				}
			case waiting:
				c.retry(s, e)
			case onOffer:
				c.lapse(s, e)
			}
		}
		c.loss(s, over)
	}
}

// lose queues tasks again whose lease has run out.
func (c *Core) lose(s *stage, e hold) {
	for _, run := range s.promote(e.Span) {
		if s.lost == nil {
			s.lost = newBitmap(s.tasks)
		}
		s.lost.set(run)
		c.queue(s, run, false)
	}
}

// loss notes the leases that have run out, by node.
func (c *Core) loss(s *stage, over []hold) {
	for i, e := range over {
		if e.kind != lent || e.called {
			continue
		}
		n := uint32(0)
		for k := range over[i:] {
			if o := &over[i+k]; o.kind == lent && !o.called && o.node == e.node {
				n += o.Len()
				o.kind = 0
			}
		}
		c.note(s, grid.EventLost, e.node, e.Span, "the lease on %s ran out", tasks(n))
	}
}

// books yields the stages of which tasks are under a hold.
func (c *Core) books() func(yield func(*stage) bool) {
	return func(yield func(*stage) bool) {
		for _, j := range c.order {
			for _, s := range j.stages {
				if len(s.holds.list) > 0 && !yield(s) {
					return
				}
			}
		}
	}
}

// shorten lets the leases of a node that went away end soon.
func (c *Core) shorten(p peer.ID) {
	until := c.now.add(c.cfg.Grace)
	for s := range c.books() {
		for _, h := range []*holds{&s.holds, &s.copies} {
			for i := range h.list {
				if e := &h.list[i]; e.kind == lent && e.node == p && e.until > until {
					e.until = until
					c.due = min(c.due, until)
				}
			}
		}
	}
}
