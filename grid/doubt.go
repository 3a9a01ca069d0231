package grid

import (
	"context"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
)

// A success is worth the same whichever node of the realm brings it. But a failure ends its task for good, and often
// the job, so it counts only from the node that holds the task; and of a stranger, or for a job that verifies, all that is said does. Else one liar
// could end any job of which it has seen a lease. Who holds what is for the scheduler to say, and it is asked before
// anything is booked: what is in the books stays there.

// doubts are reports of which the scheduler is being asked.
type doubts struct {
	mu    sync.Mutex
	calls uint64
	asked map[uint64]chan []uint32
}

func (d *doubts) ask() (call uint64, answer <-chan []uint32, done func()) {
	ch := make(chan []uint32, 1)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls++
	call = d.calls
	if d.asked == nil {
		d.asked = make(map[uint64]chan []uint32)
	}
	d.asked[call] = ch
	return call, ch, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.asked, call)
	}
}

// answer tells who asks. It does not block, as only the first answer counts.
func (d *doubts) answer(e AnswerDoubted) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ch := d.asked[e.Call]; ch != nil {
		ch <- e.Refused
		delete(d.asked, e.Call)
	}
}

// doubt leaves out of a report what its sender may only say of tasks that it holds, and does not. The error is then
// Busy: a node that has stolen a task from a thief may not have been heard of yet, and tells again.
func (n *Node) doubt(ctx context.Context, j *job, w Work, epoch Epoch, from peer.ID, done []Completion) ([]Completion, error) {
	vouched := n.vouched(ctx, from)
	// Who held tasks of the job's last owner is not known to this one.
	if from == n.self || vouched && j.inherited {
		return done, nil
	}
	if j.Jury != nil {
		vouched = false // who counts is for the owner to choose
	}
	var doubtful []uint32
	for i := range done {
		if !vouched || !done[i].Receipt.OK() {
			doubtful = append(doubtful, done[i].Index)
		}
	}
	if len(doubtful) == 0 {
		return done, nil
	}
	call, answer, end := n.doubts.ask()
	defer end()
	var refused []uint32
	if !n.post(Doubted{From: from, Call: call, Work: w, Epoch: epoch, Tasks: doubtful}) {
		return nil, errClosing
	}
	select {
	case refused = <-answer:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-n.ctx.Done():
		return nil, errClosing
	}
	if len(refused) == 0 {
		return done, nil
	}
	no := make(map[uint32]bool, len(refused))
	for _, i := range refused {
		no[i] = true
	}
	believed := make([]Completion, 0, len(done))
	for _, c := range done {
		if vouched && c.Receipt.OK() || !no[c.Index] {
			believed = append(believed, c)
		}
	}
	return believed, Errorf(Busy, "job %s: node %s tells of %s of stage %d that it does not hold", w.Job, from, plural(len(refused), "task"), w.Stage)
}

// vouched reports whether a node's word counts here: it is of the realm, or it is trusted.
func (n *Node) vouched(ctx context.Context, id peer.ID) bool {
	return n.Trust.node(id) || n.checkRealm(ctx, id) == nil
}
