package swarm

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// flushAfter is how long a grain runs before it reports what it has done so far, as a node does.
const flushAfter = 100 * time.Millisecond

// grain is what a slot runs.
type grain struct {
	lease   grid.Lease
	next    uint32        // the task to be begun next
	since   time.Duration // when the grain began
	flushed time.Duration // when it reported last
	took    time.Duration // by the tasks so far
	ran     int
	results []grid.TaskResult // that are not reported

	fetched  int64
	fetching time.Duration
}

// took is how long a task takes at speed 1.
func (j *job) took(seed uint64, stage int, task uint32) time.Duration {
	if j.Took != nil {
		return j.Took(stage, task)
	}
	return j.Time.draw(task, seed, j.key, uint64(stage), uint64(task))
}

// tookOn is how long a task takes on a node, and what becomes of it.
func (w *world) tookOn(n *node, j *job, stage int, task uint32) (time.Duration, grid.TaskOutcome) {
	try := j.stages[stage].tries[task]
	j.stages[stage].tries[task]++
	took := time.Duration(float64(j.took(w.cfg.Seed, stage, task)) / n.Speed)
	switch {
	case n.vice == Broken:
		return time.Millisecond, grid.HostFailed
	case n.vice == Slow:
		took *= 20
	}
	switch {
	case j.Outcome != nil:
		return took, j.Outcome(n.n, stage, task)
	case j.Bad > 0 && int(task)%j.Bad == j.Bad-1:
		return took, grid.GuestFailed
	case j.Flaky > 0 && chance(w.cfg.Seed, j.key, uint64(stage), uint64(task), uint64(try), 1) < j.Flaky:
		return took, grid.HostFailed
	}
	return took, grid.Succeeded
}

// prepare answers for each span in as many pieces as the job says.
func (w *world) prepare(n *node, e grid.Prepare) {
	j := w.byJob[e.Job]
	if j == nil || int(e.Stage) >= len(j.stages) {
		w.fail("%s prepares %v, which does not exist", n.name(), e.Work)
		return
	}
	st := &j.stages[e.Stage]
	for _, s := range e.Spans {
		if s.Lo >= s.Hi || int(s.Hi) > len(st.ok) {
			w.fail("%s prepares %v%s, there are %d tasks", n.name(), e.Work, s, len(st.ok))
			return
		}
		w.watch.preparing(w, n, j, int(e.Stage), s)
		cut := func(p int) uint32 { return s.Lo + uint32(uint64(s.Len())*uint64(p)/uint64(j.Pieces)) }
		for p := range j.Pieces {
			piece := grid.Span{Lo: cut(p), Hi: cut(p + 1)}
			w.after(n, time.Duration(p)*time.Millisecond, func() {
				for i := piece.Lo; i < piece.Hi; i++ {
					st.prepared[i] = true
				}
				w.step(n, grid.Prepared{Work: e.Work, Ready: []grid.Span{piece}, Done: runs(st.ok, piece)})
				w.hint(n, e.Work, piece, 0)
			})
		}
	}
}

// runs lists the longest runs that are set in s.
func runs(set []bool, s grid.Span) (list []grid.Span) {
	for i := s.Lo; i < s.Hi; i++ {
		if !set[i] {
			continue
		}
		if k := len(list) - 1; k >= 0 && list[k].Hi == i {
			list[k].Hi++
		} else {
			list = append(list, grid.Span{Lo: i, Hi: i + 1})
		}
	}
	return list
}

func (w *world) run(n *node, e grid.Run) {
	if w.watch.runs(w, n, e); w.err != nil {
		return
	}
	g := &grain{lease: e.Lease, next: e.Lease.Lo, since: w.now, flushed: w.now}
	n.slots[e.Slot] = g
	if n.first == 0 {
		n.first = max(w.now, 1)
	}
	if n.vice == Hoarder && e.Lease.Owner != n.id {
		return
	}
	w.later(n, e.Slot, g, w.cfg.Per)
}

// later goes on with a grain after some time, unless it was stopped.
func (w *world) later(n *node, slot int, g *grain, d time.Duration) {
	w.after(n, d, func() {
		if n.slots[slot] == g {
			w.proceed(n, slot, g)
		}
	})
}

// proceed runs the tasks of a grain until one has to wait for its input, or it is time to report.
func (w *world) proceed(n *node, slot int, g *grain) {
	j := w.byJob[g.lease.Job]
	stage := int(g.lease.Stage)
	var ran time.Duration
	var results []grid.TaskResult
	for g.next < g.lease.Hi && ran < flushAfter {
		if there, size := w.input(n, j, stage, g.next); there > w.now {
			if len(results) > 0 {
				break // come back when it is this task's turn
			}
			g.fetched += size
			g.fetching += there - w.now
			w.later(n, slot, g, there-w.now)
			return
		}
		took, outcome := w.tookOn(n, j, stage, g.next)
		if !w.readable(n, j, stage, g.next) {
			took, outcome = time.Second, grid.HostFailed
		}
		if outcome == grid.Succeeded && j.spawns(g.next) {
			r := grid.TaskResult{Index: g.next, Outcome: outcome}
			g.next++
			w.after(n, ran+took/2, func() {
				if n.slots[slot] == g {
					w.count(g, ran+took/2, results)
					w.park(n, slot, g, took-took/2, r)
				}
			})
			return
		}
		ran += took
		results = append(results, grid.TaskResult{Index: g.next, Outcome: outcome})
		g.next++
	}
	w.after(n, ran, func() {
		if n.slots[slot] == g {
			w.finished(n, slot, g, ran, results)
		}
	})
}

// count books tasks of a grain that have come to their end.
func (w *world) count(g *grain, took time.Duration, results []grid.TaskResult) {
	g.took += took
	g.ran += len(results)
	g.results = append(g.results, results...)
	j := w.byJob[g.lease.Job]
	for _, r := range results {
		j.report.Ran[g.lease.Work()][r.Index]++
		w.report.Ran++
	}
}

// finished goes on after some tasks of a grain, or ends it.
func (w *world) finished(n *node, slot int, g *grain, took time.Duration, results []grid.TaskResult) {
	w.count(g, took, results)
	switch {
	case g.next == g.lease.Hi:
		w.done(n, slot, g)
		return
	case w.now-g.flushed >= flushAfter && len(g.results) > 0:
		g.flushed = w.now
		w.deliver(n, grid.Reported{From: n.id, Work: g.lease.Work(), Epoch: g.lease.Epoch, Results: g.results})
		g.results = nil
	}
	if n.slots[slot] == g {
		w.proceed(n, slot, g)
	}
}

// done ends a grain.
func (w *world) done(n *node, slot int, g *grain) {
	w.idle(n, slot)
	end := grid.GrainDone{Slot: slot, Took: g.took, Ran: g.ran, Fetched: uint64(g.fetched), Fetching: g.fetching}
	if g.lease.Owner == n.id {
		end.Results = g.results
		end.Results = w.book(n, g.lease.Work(), g.lease.Epoch, n.id, g.results)
	} else if len(g.results) > 0 {
		w.deliver(n, grid.Reported{From: n.id, Work: g.lease.Work(), Epoch: g.lease.Epoch, Results: g.results})
	}
	w.step(n, end)
}

// stop ends a grain early: what it has not reported is lost.
func (w *world) stop(n *node, slot int) {
	g := n.slots[slot]
	w.idle(n, slot)
	w.on(n, 0, grid.GrainDone{Slot: slot, Took: g.took, Ran: g.ran, Fetched: uint64(g.fetched), Fetching: g.fetching})
}

func (w *world) idle(n *node, slot int) {
	g := n.slots[slot]
	n.slots[slot] = nil
	w.report.Busy += w.now - g.since
	w.watch.busy(w, g)
}

// book notes results that reach the owner of a job, and returns what its scheduler is to be told of them.
func (w *world) book(n *node, work grid.Work, epoch grid.Epoch, from peer.ID, results []grid.TaskResult) []grid.TaskResult {
	j := w.byJob[work.Job]
	if j == nil || j.owner != n || j.epoch != epoch || j.over {
		return results
	}
	st := &j.stages[work.Stage]
	if j.jury != nil {
		results = w.judge(n, j, work, from, results)
	}
	for _, r := range results {
		if int(r.Index) >= len(st.ok) {
			continue
		}
		switch r.Outcome {
		case grid.Unproven, grid.Withheld:
		case grid.Succeeded:
			st.ok[r.Index] = true
		default:
			st.failed[r.Index] = true
		}
	}
	return results
}
