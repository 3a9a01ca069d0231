package swarm

import (
	"fmt"
	"strings"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// watcher looks for what must not be, and takes the time of what is to be measured.
type watcher struct {
	starved time.Duration
	period  time.Duration
	samples int
	hungry  map[*node]time.Duration // since when a node could have had work

	users   map[string]*user
	settled bool // the time of all users together is over
}

// user is what the jobs of one user have got.
type user struct {
	open int
	busy time.Duration
	from time.Duration // when its first job was opened
}

func (x *watcher) preparing(w *world, n *node, j *job, s int, span grid.Span) {
	if j.owner != n || j.over {
		return // it does not know yet
	}
	for _, need := range j.Needs[s] {
		before := &j.stages[need.Stage]
		for t := span.Lo; t < span.Hi; t++ {
			lo, hi := 0, len(before.ok)
			if need.Fan > 0 {
				lo = min(int(t)*int(need.Fan), hi)
				hi = min(lo+int(need.Fan), hi)
			}
			for i := lo; i < hi; i++ {
				if !before.ok[i] && !before.failed[i] {
					w.fail("%s prepares %s/%d[%d], which needs task %d of stage %d, which has not ended", n.name(), j.id, s, t, i, need.Stage)
					return
				}
			}
			if need.Fan == 0 {
				break // they are alike
			}
		}
	}
}

// leased looks at a lease that is given away.
func (x *watcher) leased(w *world, n *node, l grid.Lease) {
	j := w.byJob[l.Job]
	if j == nil || int(l.Stage) >= len(j.stages) || l.Lo >= l.Hi || int(l.Hi) > len(j.stages[l.Stage].ok) {
		w.fail("%s gives %s away, which does not exist", n.name(), l)
	}
}

func (x *watcher) runs(w *world, n *node, e grid.Run) {
	x.leased(w, n, e.Lease)
	if w.err != nil {
		return
	}
	if e.Slot < 0 || e.Slot >= len(n.slots) || n.slots[e.Slot] != nil {
		w.fail("%s runs %s in slot %d, which is busy or does not exist", n.name(), e.Lease, e.Slot)
		return
	}
	j := w.byJob[e.Lease.Job]
	if j.over && j.owner == n && e.Lease.Owner == n.id {
		w.fail("%s runs %s, the job of which has ended", n.name(), e.Lease)
	}
	st := &j.stages[e.Lease.Stage]
	for i := e.Lease.Lo; i < e.Lease.Hi; i++ {
		if w.cfg.Once && st.begun[i] {
			w.fail("%s runs %s, of which task %d was run before", n.name(), e.Lease, i)
			return
		}
		st.begun[i] = true
		if !st.prepared[i] {
			w.fail("%s runs %s, of which task %d is not prepared", n.name(), e.Lease, i)
			return
		}
	}
}

// closed looks at the end of a job.
func (w *world) closed(n *node, e grid.CloseJob) {
	j := w.byJob[e.Job]
	if j == nil {
		w.fail("%s closes %s, which does not exist", n.name(), e.Job)
		return
	}
	if j.owner != n {
		return // what it does is not written down any more
	}
	if j.parent != 0 && j.over {
		return // nobody waits for it any more
	}
	if j.report.Closed++; j.over {
		if j.report.Closed > 1 {
			w.fail("%s is closed again", j.id)
		}
		return // it was cancelled
	}
	given := map[grid.Work]map[uint32]bool{}
	for _, f := range e.Failed {
		if given[f.Work] == nil {
			given[f.Work] = map[uint32]bool{}
		}
		st := &j.stages[f.Stage]
		switch {
		case given[f.Work][f.Index]:
			w.fail("%s is closed with task %d of stage %d failed twice", j.id, f.Index, f.Stage)
		case !st.failed[f.Index] && f.Attempts == 0:
			w.fail("%s is closed as task %d of stage %d failed, which it did not", j.id, f.Index, f.Stage)
		case st.ok[f.Index] && !st.failed[f.Index]:
			w.fail("%s is closed as task %d of stage %d failed, which succeeded", j.id, f.Index, f.Stage)
		}
		given[f.Work][f.Index] = true
	}
	switch {
	case int(e.Failures) < len(e.Failed):
		w.fail("%s is closed with %d failures, of %d in all", j.id, len(e.Failed), e.Failures)
	case e.Bad && len(e.Failed) == 0 && e.Why == nil:
		w.fail("%s failed for no reason", j.id)
	case !e.Bad && e.Failures > j.Allow:
		w.fail("%s is done with %d failures, %d are allowed", j.id, len(e.Failed), j.Allow)
	}
	for s := range j.stages {
		for i, ok := range j.stages[s].ok {
			if !ok && !e.Bad && int(e.Failures) == len(e.Failed) && !given[grid.Work{Job: j.id, Stage: uint32(s)}][uint32(i)] {
				w.fail("%s is done, but task %d of stage %d is not", j.id, i, s)
				return
			}
		}
	}
	if j.parent != 0 {
		w.grownUp(j)
		return
	}
	w.ended(j, e)
}

// unfinished names the jobs that have not ended, and says how far they have come.
func (w *world) unfinished() string {
	var list []string
	for _, j := range w.jobs {
		if j.over {
			continue
		}
		var stages []string
		for s := range j.stages {
			st := &j.stages[s]
			done := 0
			for i := range st.ok {
				if st.ok[i] || st.failed[i] {
					done++
				}
			}
			stages = append(stages, fmt.Sprintf("%d of %d", done, len(st.ok)))
		}
		if list = append(list, fmt.Sprintf("%s (%s)", j.id, strings.Join(stages, ", "))); len(list) == 5 {
			list = append(list, "...")
			break
		}
	}
	return fmt.Sprintf("%d jobs, %s, have", w.open, strings.Join(list, ", "))
}

// sample looks at all nodes now and then: who is idle, and what is queued.
func (w *world) sample(period time.Duration) {
	x := &w.watch
	x.period = period
	if x.hungry == nil {
		x.hungry = map[*node]time.Duration{}
	}
	w.at(w.now+period, func() {
		if len(w.queue) == 0 || w.open == 0 {
			return
		}
		idle, queued := 0, uint64(0)
		for _, n := range w.nodes {
			if n.gone > 0 || n.side != 0 {
				continue
			}
			l := n.sched.Load()
			idle += l.Slots - l.Running
			queued += l.Queued
		}
		x.starved += time.Duration(min(uint64(idle), queued)) * x.period
		if w.cfg.Patience > 0 {
			x.starving(w)
		}
		if x.samples++; x.samples%1000 == 0 && w.cfg.Patience == 0 {
			period *= 2
		}
		w.sample(period)
	})
}

// starving finds a node that has waited too long beside one with plenty.
func (x *watcher) starving(w *world) {
	for _, j := range w.jobs {
		if j.Require != "" || j.Prefer != "" || j.Cores > 1 || j.Memory > 0 || j.Parallel > 0 || j.Input > 0 {
			return
		}
	}
	for _, n := range w.nodes {
		plenty := false
		if l := n.sched.Load(); l.Running < l.Slots && n.vice == "" && n.gone == 0 {
			for _, p := range n.peers {
				if p.vice == "" && reach(n, p) {
					q := p.sched.Load()
					plenty = plenty || q.Queued >= uint64(4*q.Slots)
				}
			}
		}
		since, ok := x.hungry[n]
		switch {
		case !plenty:
			delete(x.hungry, n)
		case !ok:
			x.hungry[n] = w.now
		case w.now-since > w.cfg.Patience:
			w.fail("%s has had an idle slot for %v while a peer has plenty queued", n.name(), w.now-since)
			return
		}
	}
}

// settleDown goes on for a while after the end, and finds what is still held then.
func (w *world) settleDown() {
	w.still = true
	until := w.now + w.cfg.Quiet
	for w.err == nil && len(w.queue) > 0 && w.queue[0].at <= until {
		e := w.queue.pop()
		w.advance(e)
	}
	for _, n := range w.nodes {
		if n.gone > 0 || n.vice != "" {
			continue
		}
		if l := n.sched.Load(); l.Queued > 0 || l.Running > 0 {
			w.fail("%s still has %d tasks queued and %d slots busy, %v after the last job has ended", n.name(), l.Queued, l.Running, w.cfg.Quiet)
		}
	}
}

func (x *watcher) opened(w *world, j *job) {
	if x.users == nil {
		x.users = map[string]*user{}
		for _, j := range w.jobs {
			if x.users[j.User] == nil {
				x.users[j.User] = &user{}
			}
			x.users[j.User].open++
		}
	}
	x.users[j.User].from = w.now
}

func (x *watcher) busy(w *world, g *grain) {
	if !x.settled && x.users != nil {
		x.users[w.byJob[g.lease.Job].User].busy += w.now - g.since
	}
}

// ended stops the time once a user has nothing more to do: from then on the others have it all.
func (x *watcher) ended(w *world, j *job) {
	if few := w.dishonest < 2; few && len(w.framed) > 0 { // they cannot agree
		w.fail("%v were found to lie, and did not", w.framed)
	} else if (few || int(j.verify.N) > w.dishonest) && j.verify.Mode == grid.VerifyQuorum && j.report.Wrong > 0 {
		w.fail("%s: %d wrong results are believed, with %d nodes that lie", j.id, j.report.Wrong, w.dishonest)
	}
	u := x.users[j.User]
	if u == nil {
		return
	}
	if u.open--; u.open > 0 || x.settled {
		return
	}
	for _, n := range w.nodes {
		for _, g := range n.slots {
			if g != nil {
				x.busy(w, g)
			}
		}
	}
	x.settled = true
	w.report.Users = map[string]time.Duration{}
	for name, u := range x.users {
		w.report.Users[name] = u.busy
	}
}
