package sched

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// job is the owner's book of one job.
type job struct {
	lease     grid.Lease // job, owner, epoch, spec
	stages    []grid.StagePlan
	keepGoing bool
	current   uint32 // the stage that was asked for last
	stage     *stage // its book; nil when there is none
}

// stage is the owner's book of the open stage of a job. Each of its tasks is in exactly one place:
// not ready yet (number >= ready), settled, in work.queue, or under an entry of holds.
type stage struct {
	work    *work
	tasks   uint32
	ready   uint32
	settled bitmap // succeeded, or failed for good
	left    uint32 // tasks that are not settled
	holds   holds
	lost    bitmap         // tasks that were queued again as their lease ran out; nil while there are none
	tries   map[uint32]int // host failures, of the few tasks that had any
	failed  []failure
}

type failure struct {
	index    uint32
	attempts int
}

func (c *Core) jobOpened(ev grid.JobOpened) {
	if j := c.jobs[ev.Lease.Job]; j != nil {
		if j.lease.Epoch >= ev.Lease.Epoch {
			return
		}
		c.forget(j)
	}
	l := ev.Lease
	l.Owner, l.Stage, l.Table, l.Span = c.cfg.Self, 0, grid.Link{}, grid.Span{}
	j := &job{lease: l, stages: ev.Stages, keepGoing: ev.KeepGoing}
	c.jobs[l.Job] = j
	c.order = append(c.order, j)
	c.openStage(j, 0)
}

// openStage opens the first stage from n on that has tasks.
func (c *Core) openStage(j *job, n uint32) {
	for int(n) < len(j.stages) && (j.stages[n].Tasks == 0 || j.stages[n].Tasks > grid.MaxTasks) {
		n++
	}
	if int(n) >= len(j.stages) {
		c.forget(j)
		c.do(grid.CloseJob{Job: j.lease.Job})
		return
	}
	l, tasks := j.lease, j.stages[n].Tasks
	l.Stage, l.Class = n, j.stages[n].Class
	j.current = n
	j.stage = &stage{
		work:    &work{lease: l, job: j, ramp: 1, gone: never},
		tasks:   tasks,
		left:    tasks,
		settled: newBitmap(tasks),
	}
	c.do(grid.Prepare{Work: l.Work(), Spans: []grid.Span{{Lo: 0, Hi: tasks}}})
}

func (c *Core) prepared(ev grid.Prepared) {
	j := c.jobs[ev.Job]
	if j == nil || j.current != ev.Stage {
		return
	}
	s := j.stage
	s.work.lease.Table = ev.Table
	c.cuts = c.cuts[:0]
	for _, done := range ev.Done {
		c.settle(s, grid.Span{Lo: done.Lo, Hi: min(done.Hi, s.tasks)})
	}
	c.cutSettled(s)
	for _, ready := range ev.Ready {
		if hi := min(ready.Hi, s.tasks); hi > s.ready {
			for run := range s.settled.clearRuns(grid.Span{Lo: s.ready, Hi: hi}) {
				c.push(s.work, run, false)
			}
			s.ready = hi
		}
	}
	c.advance(j)
}

func (c *Core) reported(ev grid.Reported) {
	if j := c.open(ev.Work, ev.Epoch); j != nil {
		c.report(j, ev.From, ev.Results)
	}
}

// open finds the job whose open stage is w in the given epoch.
func (c *Core) open(w grid.Work, e grid.Epoch) *job {
	if j := c.jobs[w.Job]; j != nil && j.lease.Epoch == e && j.stage != nil && j.current == w.Stage {
		return j
	}
	return nil
}

// report books results. They may be late, repeated or made up: what counts is that a task is ready
// and not settled. A success then counts whoever brings it; a host failure only from the node that
// holds the task, so that none is counted twice.
func (c *Core) report(j *job, from peer.ID, results []grid.TaskResult) {
	s := j.stage
	c.cuts = c.cuts[:0]
	var run grid.Span // of successes, settled together
	for _, r := range results {
		if r.Index >= s.ready {
			continue
		}
		if r.Outcome == grid.Succeeded && r.Index == run.Hi && run.Len() > 0 && !s.settled.has(r.Index) {
			run.Hi++
			continue
		}
		c.settle(s, run)
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
	c.settle(s, run)
	c.cutSettled(s)
	c.advance(j)
}

// settle marks the tasks of span and forgets who holds them. Those that are queued are noted in c.cuts
// for cutSettled, so that one pass over the queue does for a whole event.
func (c *Core) settle(s *stage, span grid.Span) {
	for run := range s.settled.clearRuns(span) {
		s.settled.set(run)
		s.left -= run.Len()
		if s.holds.clear(run) < run.Len() && run.Lo < s.ready {
			c.cuts = append(c.cuts, run)
		}
	}
}

func (c *Core) cutSettled(s *stage) {
	if len(c.cuts) > 0 {
		c.cut(s.work, normal(c.cuts))
	}
}

func (c *Core) fail(s *stage, i uint32, attempts int) {
	s.failed = append(s.failed, failure{index: i, attempts: attempts})
	delete(s.tries, i)
	c.settle(s, grid.Span{Lo: i, Hi: i + 1})
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

// advance moves j on if it can: it is given up when a task failed, or the next stage opens.
func (c *Core) advance(j *job) {
	s := j.stage
	switch {
	case len(s.failed) > 0 && (s.left == 0 || !j.keepGoing):
		failed := make([]grid.FailedTask, len(s.failed))
		for i, f := range s.failed {
			failed[i] = grid.FailedTask{Work: s.work.lease.Work(), Index: f.index, Attempts: f.attempts}
		}
		c.forget(j)
		c.do(grid.CloseJob{Job: j.lease.Job, Bad: true, Failed: failed})
	case s.left == 0:
		c.closeStage(j)
		c.openStage(j, j.current+1)
	}
}

// closeStage clears away what is left of the open stage: what is queued, what runs here though it is
// settled, and what other nodes hold.
func (c *Core) closeStage(j *job) {
	s := j.stage
	if s == nil {
		return
	}
	j.stage = nil
	c.unqueue(s.work)
	s.work.closed = true
	if s.work.running > 0 {
		c.do(grid.StopJob{Job: j.lease.Job})
	}
	told := map[peer.ID]bool{}
	for _, e := range s.holds.list {
		if e.kind == lent && !told[e.node] {
			told[e.node] = true
			c.do(grid.TellDropped{To: e.node, Job: j.lease.Job, Epoch: j.lease.Epoch})
		}
	}
}

// forget ends j here and with everybody who holds leases on it.
func (c *Core) forget(j *job) {
	c.closeStage(j)
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
	if ev.From == c.cfg.Self || c.barred(ev.From) || c.open(ev.Work, ev.Epoch) == nil {
		return
	}
	s := j.stage
	until := c.now.add(c.cfg.TTL)
	c.cuts = c.cuts[:0]
	for _, span := range c.bounded(ev.Spans) {
		for run := range s.settled.clearRuns(grid.Span{Lo: span.Lo, Hi: min(span.Hi, s.ready)}) {
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
	c.ended = append(c.ended[:0], s.holds.over(run)...)
	queued := run
	for _, e := range c.ended {
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
	for _, j := range c.order {
		s := j.stage
		if s == nil {
			continue
		}
		ended, next := s.holds.expire(c.now, c.ended[:0])
		c.due = min(c.due, next)
		for _, e := range ended {
			if e.kind == lent {
				if s.lost == nil {
					s.lost = newBitmap(s.tasks)
				}
				s.lost.set(e.Span)
				c.ranOut(j, e)
			}
			// What failed here goes where thieves look first, anything else to our own workers.
			c.push(s.work, e.Span, e.kind == waiting && e.node == c.cfg.Self)
		}
		c.ended = ended
	}
}

// shorten lets the leases of a node that went away end soon.
func (c *Core) shorten(p peer.ID) {
	until := c.now.add(c.cfg.Grace)
	for _, j := range c.order {
		if j.stage == nil {
			continue
		}
		for i := range j.stage.holds.list {
			if e := &j.stage.holds.list[i]; e.kind == lent && e.node == p && e.until > until {
				e.until = until
				c.due = min(c.due, until)
			}
		}
	}
}
