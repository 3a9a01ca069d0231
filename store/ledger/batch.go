package ledger

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/ledger/machine"
)

// Bounds of the leader's queue.
const (
	batchCommands = 256
	batchBytes    = 1 << 20
	batchesAtOnce = 1 // more make smaller ones, and are slower
	queueCommands = 1 << 13
	queueBytes    = 64 << 20
)

// batcher gathers commands into log entries: whatever has come while the last entry was under way goes into the
// next. It adds no delay and has no goroutine when there is nothing to do.
type batcher struct {
	propose func(entry []byte) ([]machine.Result, error)
	most    int // commands in one entry
	atOnce  int // entries under way

	mu     sync.Mutex
	queue  []*proposal
	bytes  int
	active int
	idle   sync.Cond // of active and queue both being 0
	closed bool
	tries  tries
}

// proposal is a command that waits for its result.
type proposal struct {
	ctx    context.Context
	cmd    machine.Command
	try    uint32
	size   int
	result machine.Result
	err    error
	done   chan struct{}
}

// size is about how much of a log entry a command takes.
func size(c *machine.Command) int {
	n := 64
	if t := c.Txn; t != nil {
		for i := range t.If {
			n += len(t.If[i].Key) + 16
		}
		for i := range t.Put {
			n += len(t.Put[i].Key) + len(t.Put[i].Value) + len(t.Put[i].Session) + 8
		}
		for _, key := range t.Delete {
			n += len(key) + 2
		}
	}
	for _, id := range c.End {
		n += len(id) + 2
	}
	return n
}

// do has a command applied. An error that is not errUnsure says that it was not, and will not be.
func (b *batcher) do(ctx context.Context, cmd machine.Command, try uint32) (machine.Result, error) {
	p := &proposal{ctx: ctx, cmd: cmd, try: try, size: size(&cmd), done: make(chan struct{})}
	b.mu.Lock()
	switch {
	case b.closed:
		b.mu.Unlock()
		return machine.Result{}, errClosed()
	case len(b.queue) >= queueCommands || b.bytes+p.size > queueBytes:
		n := len(b.queue)
		b.mu.Unlock()
		return machine.Result{}, grid.Errorf(grid.Busy, "ledger: %d transactions wait for the leader already", n).Hint("try again in a moment")
	}
	b.queue = append(b.queue, p)
	b.bytes += p.size
	if b.active < b.atOnce {
		b.active++
		go b.run()
	}
	b.mu.Unlock()
	select {
	case <-p.done:
		return p.result, p.err
	case <-ctx.Done():
		return machine.Result{}, errUnsure{context.Cause(ctx)}
	}
}

// run makes entries until there is nothing left to do.
func (b *batcher) run() {
	for {
		batch := b.gather()
		if batch == nil {
			return
		}
		cmds := make([]machine.Command, len(batch))
		total := 16
		for i, p := range batch {
			cmds[i] = p.cmd
			total += p.size
		}
		entry, err := machine.AppendBatch(make([]byte, 0, total), cmds)
		var results []machine.Result
		if err == nil {
			results, err = b.propose(entry)
			if err == nil && len(results) != len(batch) {
				err = errUnsure{grid.Errorf(grid.Internal, "ledger: %d results of %d commands", len(results), len(batch))}
			}
		}
		for i, p := range batch {
			if p.err = err; err == nil {
				p.result = results[i]
			}
			close(p.done)
		}
	}
}

// gather takes the next batch off the queue; nil ends the caller's run. Nobody waits any more for commands whose
// context has ended, or that were sent again: those are dropped.
func (b *batcher) gather() (batch []*proposal) {
	b.mu.Lock()
	defer b.mu.Unlock()
	total, i := 0, 0
	for ; i < len(b.queue) && len(batch) < b.most; i++ {
		p := b.queue[i]
		b.queue[i] = nil
		if err := b.tries.check(p); err != nil {
			b.bytes -= p.size
			p.err = err
			close(p.done)
			continue
		}
		if total += p.size; total > batchBytes && len(batch) > 0 {
			b.queue[i] = p
			break
		}
		b.bytes -= p.size
		batch = append(batch, p)
	}
	b.queue = b.queue[i:]
	if len(b.queue) == 0 {
		b.queue = nil
	}
	if len(batch) == 0 {
		b.active--
		b.idle.Broadcast()
	}
	return batch
}

// stopWait is how long what is under way may take before Raft is ended.
const stopWait = time.Second

// stop lets nothing in any more and gives what is under way a moment. Raft never answers for an entry that was handed to
// it just when it was ended: whoever waits for that waits for ever.
func (b *batcher) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	late := false
	defer time.AfterFunc(stopWait, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		late = true
		b.idle.Broadcast()
	}).Stop()
	for b.active > 0 && !late {
		b.idle.Wait()
	}
}

// close lets nothing in any more and waits for what is under way.
func (b *batcher) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for b.active > 0 {
		b.idle.Wait()
	}
}

// tries remembers how often transactions were sent, of those that were sent more than once. A try that comes in
// late, after the next one was answered, must not be applied: that could have said Conflict, truly, and the
// conditions could hold again by now. Tries of earlier terms are refused anyway.
type tries struct {
	newest map[grid.RequestID]uint32
	order  []grid.RequestID
}

const maxTries = 1 << 16

func (t *tries) check(p *proposal) error {
	if p.ctx.Err() != nil {
		return context.Cause(p.ctx)
	}
	if p.cmd.Txn == nil || p.cmd.Txn.ID == "" {
		return nil
	}
	id := p.cmd.Txn.ID
	newest, again := t.newest[id]
	if p.try < newest {
		return grid.Errorf(grid.Unavailable, "ledger: the transaction was sent again since")
	}
	if p.try == 0 {
		return nil
	}
	if !again {
		if t.newest == nil {
			t.newest = make(map[grid.RequestID]uint32)
		}
		if len(t.order) >= maxTries {
			delete(t.newest, t.order[0])
			t.order = t.order[1:]
		}
		t.order = append(t.order, id)
	}
	t.newest[id] = p.try
	return nil
}

// errUnsure wraps an error after which a command may have been applied, or may be yet.
type errUnsure struct{ error }

func (e errUnsure) Unwrap() error { return e.error }

// propose puts an entry in the log and waits until it was applied.
func (r *replica) propose(entry []byte) ([]machine.Result, error) {
	future := r.raft.Apply(entry, 0)
	switch err := future.Error(); {
	case err == nil:
		results, ok := future.Response().([]machine.Result)
		if !ok { // the machine could not read it
			return nil, errUnsure{grid.Errorf(grid.Internal, "ledger: the entry was not applied here")}
		}
		r.nudge(future.Index())
		return results, nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress), errors.Is(err, raft.ErrEnqueueTimeout):
		return nil, errLost()
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown):
		return nil, errUnsure{errLost()}
	default:
		return nil, errUnsure{grid.Errorf(grid.Unavailable, "ledger: write the log: %w", err).Hint("look at the disk of the leader's data folder")}
	}
}

func errLost() error {
	return grid.Errorf(grid.Unavailable, "ledger: this node leads no longer")
}
