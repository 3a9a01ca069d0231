package sched

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// after is the time so long from now: never for 0, at once for less.
func (c *Core) after(d time.Duration) instant {
	if d == 0 || d > time.Duration(never-c.now) {
		return never
	}
	return c.now.add(max(d, 0))
}

// overdue closes the jobs whose time is up, and has the others looked at in time.
func (c *Core) overdue() {
	for _, j := range slices.Clone(c.order) {
		switch next := j.nextLimit(); {
		case c.now < next:
			c.due = min(c.due, next)
		case c.now >= j.deadline:
			c.close(j, grid.Errorf(grid.Deadline, "the job has not ended by its deadline, %v after this node took it on: %s",
				max(j.limits.Deadline, 0).Round(time.Millisecond), j.picture()).Hint("give it more time, or more nodes"))
		default:
			c.close(j, grid.Errorf(grid.Deadline, "none of the job's tasks began to run within %v: %s",
				max(j.limits.Start, 0).Round(time.Millisecond), j.picture()).Hint("`grid job --why` tells what each node lacks"))
		}
	}
}

// nextLimit is when the job is to be closed unless it ends or, if it has not, begins.
func (j *job) nextLimit() instant {
	if j.begun {
		return j.deadline
	}
	return min(j.deadline, j.startBy)
}

// picture says in words where the tasks of a job are.
func (j *job) picture() string {
	var all, done, ready, queued uint64
	var at [withheld + 1]uint64
	var again uint64 // of those on offer
	nodes := map[peer.ID]bool{}
	for _, s := range j.stages {
		all += uint64(s.tasks)
		done += uint64(s.tasks - s.left)
		queued += uint64(s.queued())
		for _, e := range s.holds.list {
			at[e.kind] += uint64(e.Len())
			ready += uint64(e.Len())
			if e.kind == onOffer && e.node == "" {
				again += uint64(e.Len())
			}
			if e.kind == lent {
				nodes[e.node] = true
			}
		}
	}
	text := []string{fmt.Sprintf("%d of %d tasks are done", done, all)}
	for _, p := range []struct {
		n    uint64
		what string
	}{
		{at[running], "run on its owner"},
		{at[lent], fmt.Sprintf("are leased to %d other nodes", len(nodes))},
		{queued, "are queued, and no node has had a slot free for them"},
		{again, "have a result that other nodes must confirm, and none has taken them"},
		{at[withheld], "have a result that is not confirmed yet"},
		{at[waiting] + at[onOffer] - again, "have failed on a node and wait to be tried again"},
		{at[kept], keptWhy(j)},
		{all - done - ready - queued, "wait for others to end or to be prepared"},
	} {
		if p.n > 0 {
			text = append(text, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	return strings.Join(text, ", ")
}

func keptWhy(j *job) string {
	if j.paused {
		return "are held back, as the job is paused"
	}
	return "are held back, as only so many may be handed out at a time"
}

// handOut queues tasks that are new, as far as the job's limit allows; the rest is kept until there is room.
func (c *Core) handOut(s *stage, span grid.Span) {
	if s.job.limits.Parallel == 0 && !s.job.paused {
		c.push(s.work, span, false)
		return
	}
	s.keeps = true
	c.hold(s, hold{Span: span, kind: kept, until: never})
}

// gate queues what was kept while there is room: later stages first, so that what was begun comes to its end.
func (c *Core) gate(j *job) {
	if j.limits.Parallel == 0 || j.paused {
		return
	}
	for i := len(j.stages) - 1; i >= 0 && j.given < j.limits.Parallel; i-- {
		s := j.stages[i]
		for s.keeps && j.given < j.limits.Parallel {
			k := slices.IndexFunc(s.holds.list, func(e hold) bool { return e.kind == kept })
			if s.keeps = k >= 0; !s.keeps {
				break
			}
			e := s.holds.list[k]
			run := grid.Span{Lo: e.Lo, Hi: e.Lo + min(e.Len(), j.limits.Parallel-j.given)}
			j.given += run.Len()
			s.holds.clear(run)
			c.queue(s, run, false)
		}
	}
}

// back books that tasks of run, which are about to be settled, are handed out no more.
func (s *stage) back(run grid.Span) {
	for ready := range s.ready.setRuns(run) {
		s.job.given -= ready.Len()
		for _, e := range s.holds.over(ready) {
			if e.kind == kept || e.kind == withheld {
				s.job.given += min(e.Hi, ready.Hi) - max(e.Lo, ready.Lo)
			}
		}
	}
}
