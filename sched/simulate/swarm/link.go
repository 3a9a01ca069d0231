package swarm

import (
	"math"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// distance is how long a message takes from a to b on average.
func (w *world) distance(a, b *node) time.Duration {
	if w.cfg.Far == 0 || w.cfg.Sites < 2 {
		return w.cfg.Delay
	}
	return w.cfg.Delay + time.Duration(float64(w.cfg.Far)*math.Hypot(a.x-b.x, a.y-b.y))
}

// delay is how long one message takes.
func (w *world) delay(a, b *node) time.Duration {
	d := w.distance(a, b)
	d = d/2 + time.Duration(w.rand.Int64N(int64(d)+1))
	if w.cfg.Late > 0 && w.rand.Float64() < w.cfg.Late {
		d *= 10
	}
	return d
}

func (w *world) lost() bool {
	return w.cfg.Loss > 0 && !w.still && w.rand.Float64() < w.cfg.Loss
}

// send carries an event to another node, and reports false when it will not arrive.
func (w *world) send(from *node, to peer.ID, ev grid.Event) bool {
	n := w.byID[to]
	w.weigh(from, n, ev)
	if n == nil || from.vice == Mute || !reach(from, n) || w.lost() {
		return false
	}
	w.connect(from, n)
	w.arrive(from, n, ev)
	if w.cfg.Twice > 0 && w.rand.Float64() < w.cfg.Twice {
		w.arrive(from, n, ev)
	}
	return true
}

// weighed is that of so many messages the bytes of one are counted, for all of them.
const weighed = 32

// weigh counts a message.
func (w *world) weigh(from, to *node, what any) {
	if w.report.Messages++; w.report.Messages%weighed == 0 {
		if data, err := grid.Marshal(what); err == nil {
			w.report.Wire += weighed * int64(len(data))
		}
	}
	from.messages++
	if to != nil {
		to.messages++
	}
}

func (w *world) arrive(from, to *node, ev grid.Event) {
	w.after(to, w.delay(from, to), func() {
		if reach(from, to) || from.gone > 0 && from.side == to.side {
			w.receive(to, ev)
		}
	})
}

// receive has a message happen at a node, and answers what the node answers without its scheduler.
func (w *world) receive(n *node, ev grid.Event) {
	if r, ok := ev.(grid.Reported); ok {
		j := w.byJob[r.Job]
		if j == nil || j.over || j.owner != n || j.epoch != r.Epoch {
			if r.From != n.id {
				w.send(n, r.From, grid.Dropped{From: n.id, Job: r.Job, Epoch: r.Epoch})
			}
			return
		}
		if j.Output > 0 {
			if from := w.byID[r.From]; from != nil {
				at := w.transfer(from, n, j.Output*int64(len(r.Results)))
				w.after(n, at-w.now, func() { w.reported(n, r) })
				return
			}
		}
		w.reported(n, r)
		return
	}
	w.step(n, ev)
}

func (w *world) reported(n *node, r grid.Reported) {
	r.Results = w.book(n, r.Work, r.Epoch, r.From, r.Results)
	w.step(n, r)
}

// deliver sends a report again until it arrives, its node dies, or its job is over, as a node does with receipts.
// When the job has another owner by then, that one gets it.
func (w *world) deliver(from *node, r grid.Reported) {
	j := w.byJob[r.Job]
	if from.vice == Mute || j == nil || j.over {
		return
	}
	r.Epoch = j.epoch
	if j.owner == from {
		w.reported(from, r)
		return
	}
	if w.send(from, j.owner.id, r) {
		return
	}
	w.after(from, 500*time.Millisecond, func() { w.deliver(from, r) })
}

// ask carries a request for work, and fails it when no answer comes.
func (w *world) ask(n *node, e grid.AskSteal) {
	w.report.Asks++
	w.call++
	id := w.call
	victim := w.byID[e.Victim]
	if victim == nil {
		w.on(n, 0, grid.StealAnswered{From: e.Victim, Failed: true})
		return
	}
	w.calls[id] = &call{thief: n, victim: victim, life: n.life, at: w.now}
	timeout := 8*w.distance(n, victim) + 100*time.Millisecond
	asked := grid.StealAsked{From: n.id, Call: id, Slots: e.Slots, Can: n.capacity(), Holds: n.holds()} // which nobody changes
	w.weigh(n, victim, asked)
	if !reach(n, victim) || w.lost() {
		timeout = w.delay(n, victim)
	} else {
		w.connect(n, victim)
		if asked.Outside = w.strangers(n, victim); asked.Outside {
			asked.Realm = w.realm(n)
		}
		if n.vice == Greedy {
			asked.Slots = 1000
		}
		w.after(victim, w.delay(n, victim), func() {
			asked.Here = victim.holds()
			w.step(victim, asked)
		})
	}
	w.at(w.now+timeout, func() {
		if c := w.calls[id]; c != nil {
			delete(w.calls, id)
			if n.life == c.life {
				w.step(n, grid.StealAnswered{From: e.Victim, Failed: true, Took: w.now - c.at})
			}
		}
	})
}

func (n *node) capacity() grid.Capacity {
	return grid.Capacity{Labels: n.Labels, Slots: n.Slots, Memory: n.Memory, Scratch: n.Scratch}
}

// answer carries the answer to a call.
func (w *world) answer(n *node, e grid.AnswerSteal) {
	c := w.calls[e.Call]
	if c == nil || c.victim != n {
		return
	}
	w.weigh(n, c.thief, e)
	for _, l := range e.Leases {
		w.watch.leased(w, n, l)
	}
	if n.vice == Mute || !reach(n, c.thief) || c.thief.life != c.life || w.lost() {
		return // the thief's timeout ends it
	}
	w.after(c.thief, w.delay(n, c.thief), func() {
		if w.calls[e.Call] != c {
			return
		}
		delete(w.calls, e.Call)
		if len(e.Leases) > 0 {
			w.report.Steals++
			w.waited = append(w.waited, w.now-c.at)
		}
		w.step(c.thief, grid.StealAnswered{From: n.id, Leases: w.lends(c.thief, n, e.Leases), Try: e.Try, Took: w.now - c.at})
		for _, l := range e.Leases {
			w.hint(c.thief, l.Work(), l.Span, 2*w.distance(c.thief, w.nodes[w.byJob[l.Job].owner.n]))
		}
	})
}
