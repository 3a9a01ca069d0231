package sched

import (
	"slices"

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
	keepGoing bool
	allow     uint32
	failures  uint32
	failed    []grid.FailedTask // the first of them
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
	j := &job{lease: l, keepGoing: ev.KeepGoing, allow: ev.Allow}
	c.jobs[l.Job] = j
	c.order = append(c.order, j)
	j.lay(ev.Stages)
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
		c.settle(s, grid.Span{Lo: done.Lo, Hi: min(done.Hi, s.tasks)}, true)
	}
	c.cutSettled(s)
	for _, ready := range ev.Ready {
		for asked := range s.asked.setRuns(grid.Span{Lo: ready.Lo, Hi: min(ready.Hi, s.tasks)}) {
			for fresh := range s.ready.clearRuns(asked) {
				s.ready.set(fresh)
				for run := range s.settled.clearRuns(fresh) {
					c.push(s.work, run, false)
				}
			}
		}
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
	var run grid.Span // of successes, settled together
	for _, r := range results {
		if r.Index >= s.tasks || !s.ready.has(r.Index) {
			continue
		}
		if r.Outcome == grid.Succeeded && r.Index == run.Hi && run.Len() > 0 && !s.settled.has(r.Index) {
			run.Hi++
			continue
		}
		c.settle(s, run, true)
		run = grid.Span{}
		if s.settled.has(r.Index) {
			continue
		}
		one := grid.Span{Lo: r.Index, Hi: r.Index + 1}
		switch r.Outcome {
		case grid.Succeeded:
			run = one
		case grid.GuestFailed:
			c.fail(s, r.Index, 0)
		case grid.HostFailed:
			c.hostFailed(s, from, r.Index)
		}
	}
	c.settle(s, run, true)
	c.cutSettled(s)
	c.ended(s)
}

// settle marks the tasks of span and forgets who holds them. Those that are queued are noted in c.cuts
// for cutSettled, so that one pass over the queue does for a whole event. Unless they count, nothing
// that needs them will ever be prepared.
func (c *Core) settle(s *stage, span grid.Span, counts bool) {
	for run := range s.settled.clearRuns(span) {
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
		c.cut(s.work, normal(c.cuts))
	}
}

// fail books a task that failed for good. While the job may have failed tasks, such a one has ended as
// well as any other; after that, what needs it cannot run.
func (c *Core) fail(s *stage, i uint32, attempts int) {
	j := s.job
	j.failures++
	if len(j.failed) < maxFailed {
		j.failed = append(j.failed, grid.FailedTask{Work: s.work.lease.Work(), Index: i, Attempts: attempts})
	}
	delete(s.tries, i)
	c.settle(s, grid.Span{Lo: i, Hi: i + 1}, j.failures <= j.allow)
}

func (c *Core) hostFailed(s *stage, from peer.ID, i uint32) {
	if e := s.holds.at(i); e == nil || e.kind == waiting || e.node != from {
		return
	}
	n := s.tries[i] + 1
	if n >= c.cfg.Attempts {
		c.fail(s, i, n)
		return
	}
	if s.tries == nil {
		s.tries = make(map[uint32]int)
	}
	s.tries[i] = n
	pause := c.cfg.Backoff << min(n-1, 20)
	c.hold(s, hold{Span: grid.Span{Lo: i, Hi: i + 1}, kind: waiting, node: from, until: c.now.add(pause)})
}

func (c *Core) hold(s *stage, e hold) {
	c.due = min(c.due, e.until)
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
			if c.slots[i].work == s.work && s.job.open > 0 {
				c.do(grid.StopGrain{Slot: i})
			}
		}
	}
	c.advance(s.job)
}

// closeStage clears away what of a stage is queued or booked.
func (c *Core) closeStage(s *stage) {
	c.unqueue(s.work)
	s.work.closed = true
	s.asked, s.ready, s.settled, s.lost, s.wants, s.holds = nil, nil, nil, nil, nil, holds{}
}

// forget ends j here and with everybody who holds leases on it.
func (c *Core) forget(j *job) {
	if slices.ContainsFunc(j.stages, func(s *stage) bool { return s.work.running > 0 }) {
		c.do(grid.StopJob{Job: j.lease.Job})
	}
	told := map[peer.ID]bool{}
	for _, s := range j.stages {
		for _, e := range s.holds.list {
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

// claimed renews the leases of a node, or tells it that they are of no use.
func (c *Core) claimed(ev grid.Claimed) {
	j := c.jobs[ev.Job]
	if j == nil || j.lease.Epoch > ev.Epoch {
		c.do(grid.TellDropped{To: ev.From, Job: ev.Job, Epoch: ev.Epoch})
		return
	}
	s := c.find(ev.Work, ev.Epoch)
	if ev.From == c.cfg.Self || s == nil {
		return
	}
	until := c.now.add(c.cfg.TTL)
	c.cuts = c.cuts[:0]
	for _, span := range c.bounded(ev.Spans) {
		for run := range s.settled.clearRuns(grid.Span{Lo: span.Lo, Hi: min(span.Hi, s.tasks)}) {
			c.renewLent(s, run, ev.From, until)
		}
	}
	c.cutSettled(s)
}

// renewLent books a claim on a run of unsettled tasks. Messages overtake one another, so a claim says
// only what its node held a while ago. It moves a lease that is out, and takes back from the queue what
// was put there because a lease ran out. What came back to us in another way, by a report or by
// stealing it from its holder, stays ours: the claim is older than that.
func (c *Core) renewLent(s *stage, run grid.Span, from peer.ID, until instant) {
	c.over = append(c.over[:0], s.holds.over(run)...)
	queued := run
	for _, e := range c.over {
		c.retrieve(s, grid.Span{Lo: queued.Lo, Hi: e.Lo}, from, until)
		if e.kind == lent {
			c.hold(s, hold{Span: grid.Span{Lo: max(e.Lo, run.Lo), Hi: min(e.Hi, run.Hi)}, kind: lent, node: from, until: until})
		}
		queued.Lo = e.Hi
	}
	c.retrieve(s, queued, from, until)
}

// retrieve books a claim on tasks that are queued here, those of them that are lost.
func (c *Core) retrieve(s *stage, queued grid.Span, from peer.ID, until instant) {
	if s.lost == nil {
		return
	}
	for run := range s.lost.setRuns(queued) {
		c.hold(s, hold{Span: run, kind: lent, node: from, until: until})
		c.cuts = append(c.cuts, run)
	}
}

// bounded is as much of a list from outside as is taken seriously, copied, sorted and disjoint.
func (c *Core) bounded(list []grid.Span) []grid.Span {
	return normal(slices.Clone(list[:min(len(list), c.cfg.MaxHeld+len(c.slots))]))
}

// expire queues again what nobody renewed and what has waited long enough.
func (c *Core) expire() {
	c.due = never
	for s := range c.books() {
		over, next := s.holds.expire(c.now, c.over[:0])
		c.due = min(c.due, next)
		for _, e := range over {
			if e.kind == lent {
				if s.lost == nil {
					s.lost = newBitmap(s.tasks)
				}
				s.lost.set(e.Span)
			}
			// What failed here goes where thieves look first, anything else to our own workers.
			c.push(s.work, e.Span, e.kind == waiting && e.node == c.cfg.Self)
		}
		c.over = over
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
		for i := range s.holds.list {
			if e := &s.holds.list[i]; e.kind == lent && e.node == p && e.until > until {
				e.until = until
				c.due = min(c.due, until)
			}
		}
	}
}
