package ledger

import (
	"context"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/wasmgrid/wasmgrid/grid"
)

// current waits until this node is sure that, at some moment since it was called, it was the one leader, and has
// applied all that was committed then. What it reads afterwards is linearizable.
func (r *replica) current(ctx context.Context, o *office) error {
	select {
	case <-o.ready:
	case <-o.lost:
		return errLost()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	index := r.raft.CommitIndex()
	if err := r.confirm.wait(ctx); err != nil {
		return err
	}
	if r.office.Load() != o {
		return errLost()
	}
	return r.fsm.reach(ctx, index, o.lost)
}

// verify asks a majority whether this node still leads.
func (r *replica) verify() error {
	o := r.office.Load()
	if o == nil {
		return errLost()
	}
	since := r.trans.acks.tick()
	if ok, _ := r.trans.acks.majority(r.id, r.configuration().Servers, o.term, since); ok {
		return r.stillLeads(o) // alone
	}
	// Makes raft ask now; see transport for why its answer is not enough. When it is no, raft steps down, and we hear that.
	_ = r.raft.VerifyLeader()
	for {
		changed := r.l.changed() // who has been removed will not answer
		ok, more := r.trans.acks.majority(r.id, r.configuration().Servers, o.term, since)
		if ok {
			return r.stillLeads(o)
		}
		select {
		case <-more:
		case <-changed:
		case <-o.lost:
			return errLost()
		case <-r.stop:
			return errClosed()
		}
	}
}

func (r *replica) stillLeads(o *office) error {
	if r.office.Load() != o || r.raft.State() != raft.Leader {
		return errLost()
	}
	return nil
}

// confirmer runs one verification at a time, for all who have come before it began.
type confirmer struct {
	verify func() error

	mu      sync.Mutex
	next    *round
	running bool
	closed  bool
	wg      sync.WaitGroup
}

type round struct {
	done chan struct{}
	err  error
}

// wait returns the result of a verification that begins after the call.
func (c *confirmer) wait(ctx context.Context) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return errClosed()
	}
	if c.next == nil {
		c.next = &round{done: make(chan struct{})}
	}
	mine := c.next
	if !c.running {
		c.running = true
		c.wg.Go(c.run)
	}
	c.mu.Unlock()
	select {
	case <-mine.done:
		return mine.err
	case <-ctx.Done():
		return grid.Errorf(grid.Deadline, "ledger: no majority has confirmed that this node leads: %w", context.Cause(ctx))
	}
}

func (c *confirmer) run() {
	for {
		c.mu.Lock()
		mine := c.next
		c.next = nil
		if mine == nil {
			c.running = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		mine.err = c.verify()
		close(mine.done)
	}
}

// close lets nobody in any more and waits for the verification under way.
func (c *confirmer) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.wg.Wait()
}
