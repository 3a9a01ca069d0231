package sched

import (
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// stage is the owner's book of one stage of a job. What its tasks need decides when they are asked for:
// each once, in the step in which the last of what it needs has ended. Then each is in exactly one
// place: not ready yet, settled, in work.queue, or under an entry of holds.
type stage struct {
	job   *job
	work  *work
	own   *work // of tasks that only our own slots may run; nil while there were none
	tasks uint32
	left  uint32 // tasks that are not settled; with none, all below is cleared away

	// What it waits for, and who waits for it.
	users    []user
	plan     grid.StagePlan
	needs    []grid.Need // of plan, those with a fan, of stages that have tasks
	barriers int         // stages all of which it needs that have tasks left
	wants    []uint32    // how many tasks each task still needs by needs; nil before any of those has ended
	barred   bool        // a task failed that was not allowed to: who needs all of it, never runs

	// Bitmaps of its tasks, nil before the first was asked for.
	asked   bitmap // a Prepare was made
	ready   bitmap // it was Prepared
	settled bitmap // it succeeded, or failed for good

	fresh    []grid.Span // to be asked for at the end of this step
	holds    holds
	copies   holds                // second ones of tasks that are running or lent, on other nodes
	lost     bitmap               // tasks that were queued again as their lease ran out; nil while there are none
	tries    map[uint32]*tried    // of the few tasks that failed on nodes
	voters   map[uint32][]peer.ID // who has run tasks that others must run, too
	looked   uint32               // the first task on offer to be looked at for the next thief
	withheld uint32               // tasks
	askedAll bool                 // for more, as nothing else is left
	keeps    bool                 // some may be kept
	guess    float64              // nanoseconds from giving a task away to its result, smoothed; 0 when not known
}

// user is a stage that needs another one.
type user struct {
	stage *stage
	fan   uint32 // 0: it needs all of it
}

// checkPlans refuses a job that could not come to its end.
func checkPlans(plans []grid.StagePlan) error {
	if len(plans) > grid.MaxStages {
		return grid.Errorf(grid.Invalid, "a job of %d stages, at most %d are allowed", len(plans), grid.MaxStages)
	}
	for i := range plans {
		p := &plans[i]
		if p.Tasks > grid.MaxTasks {
			return grid.Errorf(grid.Invalid, "stage %d has %d tasks, at most %d are allowed", i, p.Tasks, grid.MaxTasks)
		}
		if err := p.Class.Check(); err != nil {
			return grid.Errorf(grid.Invalid, "stage %d: %w", i, err)
		}
		if len(p.Needs) > grid.MaxStages {
			return grid.Errorf(grid.Invalid, "stage %d has %d needs, at most %d are allowed", i, len(p.Needs), grid.MaxStages)
		}
		for _, n := range p.Needs {
			if int64(n.Stage) >= int64(i) {
				return grid.Errorf(grid.Invalid, "stage %d needs stage %d, which is not an earlier one", i, n.Stage).
					Hint("order the stages so that each needs only those before it")
			}
		}
	}
	return nil
}

// lay makes the books of checked plans, and asks for what needs nothing.
func (j *job) lay(plans []grid.StagePlan) {
	j.stages = make([]*stage, len(plans))
	for i := range plans {
		p := &plans[i]
		l := j.lease
		l.Stage, l.Class = uint32(i), p.Class
		s := &stage{job: j, plan: *p, tasks: p.Tasks, left: p.Tasks}
		s.work = &work{lease: l, book: s, ramp: 1, gone: never}
		j.stages[i] = s
		if p.Tasks == 0 {
			s.work.closed = true
			continue
		}
		j.open++
		for _, n := range p.Needs {
			needed := j.stages[n.Stage]
			if needed.tasks == 0 {
				continue
			}
			n.Fan = min(n.Fan, grid.MaxTasks)
			needed.users = append(needed.users, user{s, n.Fan})
			if n.Fan == 0 {
				s.barriers++
			} else {
				s.needs = append(s.needs, n)
			}
		}
		if s.barriers == 0 {
			s.start()
		}
	}
}

// grow makes the bitmaps.
func (s *stage) grow() {
	if s.settled == nil {
		s.asked, s.ready, s.settled = newBitmap(s.tasks), newBitmap(s.tasks), newBitmap(s.tasks)
	}
}

// start asks for the tasks that need no single ones, or whose have all ended: no barrier is left.
func (s *stage) start() {
	if s.wants == nil {
		from := uint32(0) // the first task that needs none
		for _, n := range s.needs {
			from = max(from, s.job.stages[n.Stage].groups(n.Fan))
		}
		s.want(grid.Span{Lo: min(from, s.tasks), Hi: s.tasks})
		return
	}
	for i, n := range s.wants {
		if n == 0 {
			s.want(grid.Span{Lo: uint32(i), Hi: uint32(i) + 1})
		}
	}
}

// groups is how many groups of fan tasks s has.
func (s *stage) groups(fan uint32) uint32 { return (s.tasks + fan - 1) / fan }

// want notes that the tasks of span can be prepared.
func (s *stage) want(span grid.Span) {
	if span.Len() == 0 || s.left == 0 {
		return
	}
	s.grow()
	s.asked.set(span)
	for run := range s.settled.clearRuns(span) {
		s.job.out += uint64(run.Len())
		if len(s.fresh) == 0 {
			s.job.fresh = append(s.job.fresh, s)
		}
		if last := len(s.fresh) - 1; last >= 0 && s.fresh[last].Hi == run.Lo {
			s.fresh[last].Hi = run.Hi
		} else {
			s.fresh = append(s.fresh, run)
		}
	}
}

// feed tells the stages that need single tasks of s that those of run have ended. It costs as much as
// run is long, so all of a job's tasks together cost their number.
func (s *stage) feed(run grid.Span) {
	for _, u := range s.users {
		if u.fan == 0 || u.stage.left == 0 {
			continue
		}
		wants := u.stage.count()
		for i := run.Lo / u.fan; int(i) < len(wants) && i*u.fan < run.Hi; i++ {
			wants[i] -= min((i+1)*u.fan, run.Hi) - max(i*u.fan, run.Lo)
			if wants[i] == 0 && u.stage.barriers == 0 {
				u.stage.want(grid.Span{Lo: i, Hi: i + 1})
			}
		}
	}
}

// count makes wants, before the first of them ends.
func (s *stage) count() []uint32 {
	if s.wants == nil {
		s.wants = make([]uint32, s.tasks)
		for _, n := range s.needs {
			tasks := s.job.stages[n.Stage].tasks
			for i := uint32(0); i < s.tasks && i*n.Fan < tasks; i++ {
				s.wants[i] += min(n.Fan, tasks-i*n.Fan)
			}
		}
	}
	return s.wants
}

// lift tells the stages that need all of s that it has ended.
func (s *stage) lift() {
	if s.barred {
		return
	}
	for _, u := range s.users {
		if u.fan > 0 || u.stage.left == 0 {
			continue
		}
		if u.stage.barriers--; u.stage.barriers == 0 {
			u.stage.start()
		}
	}
}

// ask has prepared what can be by now.
func (c *Core) ask(j *job) {
	for _, s := range j.fresh {
		if s.left > 0 {
			c.do(grid.Prepare{Work: s.work.lease.Work(), Spans: normal(s.fresh)})
		}
		s.fresh = nil
	}
	j.fresh = j.fresh[:0]
}
