package grid

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// A task that waits for its children needs no slot. Its worker says so with Parked, and another one serves the slot
// from then on. When the wait is over it asks for a slot with Unparked, is given one, and goes on there.

// maxParked bounds the tasks of one node that wait for others. Each keeps its memory and a goroutine.
const maxParked = 1 << 14

// noSlot is where a parked worker is.
const noSlot = -1

// parking is the tasks of a node that are parked.
type parking struct {
	mu   sync.Mutex
	last uint64
	list map[uint64]*parked
	// down are peers that went away and have not come back. The loop owns it.
	down map[peer.ID]struct{}
}

// parked is one of them. Who takes it, with taken, says what becomes of it: the loop gives it a slot, or its worker
// gives it up.
type parked struct {
	occupant // the loop's
	of       Lease
	slot     chan int
	taken    atomic.Bool
}

// add makes a ticket.
func (p *parking) add(l Lease) (uint64, *parked, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.list) >= maxParked {
		return 0, nil, Errorf(Busy, "%d tasks on this node wait for others that they spawned, as many as may", maxParked).
			Hint("have each task do more itself before it spawns others")
	}
	if p.list == nil {
		p.list = make(map[uint64]*parked)
	}
	p.last++
	t := &parked{of: l, slot: make(chan int, 1)}
	p.list[p.last] = t
	return p.last, t, nil
}

// leases lists what is parked.
func (p *parking) leases() []Lease {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]Lease, 0, len(p.list))
	for _, t := range p.list {
		list = append(list, t.of)
	}
	return list
}

func (p *parking) get(ticket uint64) *parked {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.list[ticket]
}

// remove forgets a ticket.
func (p *parking) remove(ticket uint64) {
	p.mu.Lock()
	t := p.list[ticket]
	delete(p.list, ticket)
	p.mu.Unlock()
	if t != nil && t.cancel != nil {
		t.cancel()
	}
}

// end is called when nothing more of the slot's grain runs.
func (o *occupant) end() {
	if o.cancel != nil {
		o.cancel()
	}
	*o = occupant{}
}

// vacate makes the slot's grain the ticket's. It is for the loop.
func (n *Node) vacate(e Parked) {
	s := n.slots[e.Slot]
	if t := n.parking.get(e.Ticket); t != nil {
		t.occupant, s.occupant = s.occupant, occupant{}
		n.busy.clear(e.Slot)
	}
}

// occupy lets a parked grain go on in a slot, unless it was given up meanwhile. It is for the loop.
func (n *Node) occupy(e GiveSlot) {
	t := n.parking.get(e.Ticket)
	if t == nil || !t.taken.CompareAndSwap(false, true) {
		n.spawn(func() { n.post(GrainDone{Slot: e.Slot}) })
		return
	}
	n.slots[e.Slot].occupant = t.occupant
	n.busy.set(e.Slot, t.of)
	t.occupant = occupant{}
	n.parking.remove(e.Ticket)
	t.slot <- e.Slot
}

// occupants lists what runs or is parked. It is for the loop.
func (n *Node) occupants() []occupant {
	var list []occupant
	for _, s := range n.slots {
		if s.cancel != nil {
			list = append(list, s.occupant)
		}
	}
	n.parking.mu.Lock()
	defer n.parking.mu.Unlock()
	for _, t := range n.parking.list {
		if t.cancel != nil {
			list = append(list, t.occupant)
		}
	}
	return list
}

// maxDown bounds the peers that are remembered to be away.
const maxDown = 1 << 12

// orphaned reports whether a lease is on children of a task that ran on a node which is gone, and the task with it.
// Nobody waits for them. It is for the loop.
func (p *parking) orphaned(l Lease) bool {
	_, down := p.down[l.Owner]
	return down && l.Class.Depth > 0
}

// dropOrphans ends what runs here of the children of a peer that has gone. Its own jobs get another owner, but the
// task that spawned these is run anew. It is for the loop.
func (n *Node) dropOrphans(e PeerEvent) {
	p := &n.parking
	if e.Up {
		delete(p.down, e.Peer)
		return
	}
	if p.down == nil {
		p.down = make(map[peer.ID]struct{})
	}
	if len(p.down) < maxDown {
		p.down[e.Peer] = struct{}{}
	}
	told := map[JobID]bool{}
	for _, o := range n.occupants() {
		if l := o.lease; l.Owner == e.Peer && l.Class.Depth > 0 {
			o.cancel()
			if !told[l.Job] {
				told[l.Job] = true
				n.step(Dropped{From: l.Owner, Job: l.Job, Epoch: l.Epoch})
			}
		}
	}
}

// idle lets the slot of the worker's grain go while it waits.
func (w *worker) idle(ctx context.Context, wait func(context.Context) error) error {
	ticket, t, err := w.n.parking.add(w.grain.lease)
	if err != nil {
		return err
	}
	if !w.results.empty() { // nobody should wait for them meanwhile
		w.flush(w.grain, &w.results)
	}
	if slot := w.slot; !w.away {
		w.away = true
		w.n.spawn(func() { w.n.worker(slot) })
	}
	index := w.stay.index
	w.leaveSlot(&w.grain.lease, nil, nil, false)
	w.n.post(Parked{Slot: w.slot, Ticket: ticket})
	w.slot = noSlot
	err = wait(ctx)
	gone := w.grain.ctx.Done() // ctx may end earlier, and the grain go on with its next task
	if w.grain.ctx.Err() == nil && w.n.post(Unparked{Ticket: ticket}) {
		select {
		case w.slot = <-t.slot:
			w.settle(index, time.Now())
			return err
		case <-gone:
		}
	}
	if t.taken.CompareAndSwap(false, true) {
		w.n.post(Unparked{Ticket: ticket, Gone: true})
		return context.Cause(w.grain.ctx)
	}
	w.slot = <-t.slot
	return context.Cause(w.grain.ctx)
}
