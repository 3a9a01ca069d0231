package swarm

import (
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// corrupt makes a node misbehave from some time on.
func (w *world) corrupt(v Vice) {
	n := w.nodes[v.Node]
	w.at(v.At, func() {
		if n.vice != "" || n.owns && v.Kind != Broken && v.Kind != Slow {
			return
		}
		n.vice = v.Kind
		if n.dishonest = v.Kind == Wrong || v.Kind == Colluder; n.dishonest {
			w.dishonest++
		}
		if v.Kind == Liar {
			w.lie(n)
		}
	})
}

// lie reports failures of tasks that nobody gave to n, now and again.
func (w *world) lie(n *node) {
	if w.still {
		return
	}
	for _, j := range w.jobs {
		if j.over || !j.opened || n.gone > 0 {
			continue
		}
		for s, tasks := range j.Stages {
			if tasks == 0 {
				continue
			}
			i := uint32(w.rand.IntN(tasks))
			work := grid.Work{Job: j.id, Stage: uint32(s)}
			for _, outcome := range []grid.TaskOutcome{grid.HostFailed, grid.GuestFailed} {
				w.tell(n, j.owner, grid.Reported{From: n.id, Work: work, Epoch: j.epoch, Results: []grid.TaskResult{{Index: i, Outcome: outcome}}})
			}
			w.tell(n, j.owner, grid.Claimed{From: n.id, Work: work, Epoch: j.epoch, Spans: []grid.Span{{Lo: 0, Hi: uint32(tasks)}}})
		}
	}
	w.at(w.now+200*time.Millisecond, func() { w.lie(n) })
}

// tell carries a made-up event, of which nothing is booked.
func (w *world) tell(from, to *node, ev grid.Event) {
	w.report.Messages++
	if reach(from, to) {
		w.after(to, w.delay(from, to), func() { w.step(to, ev) })
	}
}
