package swarm

import (
	"slices"
	"strconv"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// waiting is a grain whose task waits for a job that it has made.
type waiting struct {
	grain *grain
	node  *node
	life  int
	rest  time.Duration // of the task
	ends  grid.TaskResult
	child *job
	gone  bool // it needs no slot any more
}

// spawns tells whether a task makes a job of its own.
func (j *job) spawns(task uint32) bool {
	return j.Spawn.Tasks > 0 && j.Spawn.Depth > j.depth && int(task)%max(j.Spawn.Every, 1) == 0
}

// child is the job that a task makes.
func (j *job) child(stage int, task uint32) *job {
	cfg := &Job{
		Stages: []int{j.Spawn.Tasks}, Pieces: 1, Time: j.Time, User: j.User, Priority: j.Priority, Keep: true,
		Pure: j.Pure, Spawn: j.Spawn,
	}
	cfg.needs()
	return &job{Job: cfg, key: hash(j.key, uint64(stage), uint64(task)), depth: j.depth + 1, epoch: 1, report: &JobReport{}}
}

// park has a task that has run for half of its time make a job, and wait for it without a slot.
func (w *world) park(n *node, slot int, g *grain, rest time.Duration, ends grid.TaskResult) {
	w.ticket++
	ticket := w.ticket
	c := w.byJob[g.lease.Job].child(int(g.lease.Stage), ends.Index)
	c.id = grid.JobID("c" + strconv.FormatUint(ticket, 10))
	c.owner, c.parent, c.opened = n, ticket, true
	c.books()
	w.byJob[c.id] = c
	w.waiting[ticket] = &waiting{grain: g, node: n, life: n.life, rest: rest, ends: ends, child: c}
	w.report.Spawned++
	w.idle(n, slot)
	w.step(n, grid.Parked{Slot: slot, Ticket: ticket})
	w.openJob(c)
}

// resume goes on with a task that was given a slot again.
func (w *world) resume(n *node, e grid.GiveSlot) {
	p := w.waiting[e.Ticket]
	if p == nil || p.node != n || !p.child.over && !p.gone {
		w.fail("%s gives a slot to ticket %d, which does not want one", n.name(), e.Ticket)
		return
	}
	if e.Slot < 0 || e.Slot >= len(n.slots) || n.slots[e.Slot] != nil {
		w.fail("%s gives slot %d away again, which is busy or does not exist", n.name(), e.Slot)
		return
	}
	delete(w.waiting, e.Ticket)
	g := p.grain
	n.slots[e.Slot], g.since = g, w.now
	if p.gone {
		w.stop(n, e.Slot)
		return
	}
	w.after(n, p.rest, func() {
		if n.slots[e.Slot] == g {
			w.finished(n, e.Slot, g, p.rest, []grid.TaskResult{p.ends})
		}
	})
}

// grownUp ends a job that a task has made.
func (w *world) grownUp(c *job) {
	c.over = true
	if p := w.waiting[c.parent]; p != nil {
		w.on(p.node, 0, grid.Unparked{Ticket: c.parent})
	}
}

// abandon gives up the tasks that wait, of a job, or all of a node that has died.
func (w *world) abandon(n *node, of func(*grain) bool, dead bool) {
	var list []uint64
	for ticket := range w.waiting {
		list = append(list, ticket)
	}
	slices.Sort(list)
	for _, ticket := range list {
		p := w.waiting[ticket]
		if p == nil || p.gone && !dead || p.node != n || !of(p.grain) {
			continue
		}
		if dead {
			delete(w.waiting, ticket)
			p.child.over = true
			continue
		}
		p.gone = true
		w.after(n, 0, func() {
			delete(w.waiting, ticket)
			p.child.over = true
			w.step(n, grid.JobEnded{Job: p.child.id})
			w.step(n, grid.Unparked{Ticket: ticket, Gone: true})
		})
	}
}
