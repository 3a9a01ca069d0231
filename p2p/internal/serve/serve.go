// Package serve does what every network does once a request is here: find the handler, bound how many
// run for one peer and in all, contain their panics, and wait for them at the end. It moves no bytes.
package serve

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p/internal/frame"
)

// Bounds on handlers that run at the same time. A call over them is answered Busy, a stream is reset.
const (
	CallsPerPeer   = 64
	CallsInAll     = 1024
	StreamsPerPeer = 256
	StreamsInAll   = 2048
)

// Kind of a handler.
type Kind uint8

// The kinds.
const (
	Call Kind = iota
	Stream
)

var (
	perPeer = [...]int{CallsPerPeer, StreamsPerPeer}
	inAll   = [...]int{CallsInAll, StreamsInAll}
)

// CallFunc answers a call.
type CallFunc = func(ctx context.Context, from peer.ID, req []byte) ([]byte, error)

// StreamFunc serves a stream.
type StreamFunc = func(ctx context.Context, from peer.ID, s grid.Stream)

// Table is a node's handlers. It is safe for concurrent use.
type Table struct {
	log  *slog.Logger
	ctx  context.Context // of all handlers; ends when the table stops
	stop context.CancelFunc

	mu      sync.Mutex
	guard   func(from peer.ID, p grid.Protocol) error // nil: everybody may do everything
	calls   map[grid.Protocol]CallFunc
	streams map[grid.Protocol]StreamFunc
	running map[peer.ID]*[2]int
	total   [2]int
	stopped bool
	wg      sync.WaitGroup
}

// New makes an empty table. It must be stopped.
func New(log *slog.Logger) *Table {
	t := &Table{
		log:     log,
		calls:   make(map[grid.Protocol]CallFunc),
		streams: make(map[grid.Protocol]StreamFunc),
		running: make(map[peer.ID]*[2]int),
	}
	t.ctx, t.stop = context.WithCancel(context.Background())
	return t
}

// Serve makes f the answer to calls of p. It panics when p is taken: that is a fault in the wiring.
func (t *Table) Serve(p grid.Protocol, f CallFunc) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mustBeFree(p)
	t.calls[p] = f
}

// Handle makes f the handler of streams of p. It panics when p is taken.
func (t *Table) Handle(p grid.Protocol, f StreamFunc) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mustBeFree(p)
	t.streams[p] = f
}

func (t *Table) mustBeFree(p grid.Protocol) {
	if t.calls[p] != nil || t.streams[p] != nil {
		panic(fmt.Sprintf("p2p: protocol %q has a handler already", p))
	}
}

// Guard has every call and stream asked of f first, which must not block.
func (t *Table) Guard(f func(from peer.ID, p grid.Protocol) error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.guard = f
}

// allowed asks the guard.
func (t *Table) allowed(from peer.ID, p grid.Protocol) error {
	t.mu.Lock()
	f := t.guard
	t.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(from, p)
}

// Context ends when the table stops.
func (t *Table) Context() context.Context { return t.ctx }

// Enter makes room for one more handler for a peer; Leave must follow. The error is Busy over the
// bounds, Unavailable when the table has stopped.
func (t *Table) Enter(from peer.ID, k Kind) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return grid.Errorf(grid.Unavailable, "p2p: this node is shutting down")
	}
	r := t.running[from]
	if r == nil {
		r = new([2]int)
		t.running[from] = r
	}
	if r[k] >= perPeer[k] || t.total[k] >= inAll[k] {
		return grid.Errorf(grid.Busy, "p2p: too many requests at once: %d of yours run, %d in all", r[k], t.total[k]).
			Hint("try again in a moment")
	}
	r[k]++
	t.total[k]++
	t.wg.Add(1)
	return nil
}

// Leave ends what Enter began.
func (t *Table) Leave(from peer.ID, k Kind) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.running[from]
	r[k]--
	t.total[k]--
	if *r == [2]int{} {
		delete(t.running, from)
	}
	t.wg.Done()
}

// Answer runs the handler of p in place; the caller has entered. A panic comes back as Internal.
func (t *Table) Answer(ctx context.Context, from peer.ID, p grid.Protocol, req []byte) (reply []byte, err error) {
	t.mu.Lock()
	f := t.calls[p]
	t.mu.Unlock()
	if f == nil {
		return nil, Unsupported(p)
	}
	if err := t.allowed(from, p); err != nil {
		return nil, err
	}
	defer func() {
		if v := recover(); v != nil {
			t.log.Error("a handler panicked", "protocol", p, "peer", from, "panic", v, "stack", string(debug.Stack()))
			reply, err = nil, grid.Errorf(grid.Internal, "p2p: the handler of %s failed: its node's log says how", p)
		}
	}()
	return f(ctx, from, req)
}

// Local answers a call that came through no socket: within the bounds, with the request copied, the
// error as another node would see it, and without waiting for a handler that ignores its context.
func (t *Table) Local(ctx context.Context, from peer.ID, p grid.Protocol, req []byte) ([]byte, error) {
	if len(req) > grid.MaxMessage {
		return nil, frame.TooLong("request", len(req))
	}
	if err := t.Enter(from, Call); err != nil {
		return nil, err
	}
	type answer struct {
		reply []byte
		err   error
	}
	done := make(chan answer, 1)
	own := append([]byte(nil), req...)
	handler, cancel := context.WithCancel(t.ctx)
	unhook := context.AfterFunc(ctx, cancel)
	go func() {
		defer t.Leave(from, Call)
		defer cancel()
		defer unhook()
		reply, err := t.Answer(handler, from, p, own)
		if err == nil && len(reply) > grid.MaxMessage {
			err = frame.TooLong("reply", len(reply))
		}
		if err != nil {
			done <- answer{err: frame.Fault(err)}
			return
		}
		done <- answer{reply: append([]byte(nil), reply...)}
	}()
	select {
	case a := <-done:
		return a.reply, a.err
	case <-ctx.Done():
		return nil, Ended(ctx, p, from)
	}
}

// Stream runs the stream handler of p in place, within the bounds, and then closes the stream; over the
// bounds, without a handler, or after a panic it is reset.
func (t *Table) Stream(from peer.ID, p grid.Protocol, s grid.Stream) {
	if err := t.Enter(from, Stream); err != nil {
		t.log.Debug("refused a stream", "protocol", p, "peer", from, "err", err)
		_ = s.Reset()
		return
	}
	defer t.Leave(from, Stream)
	t.mu.Lock()
	f := t.streams[p]
	t.mu.Unlock()
	if f == nil {
		_ = s.Reset()
		return
	}
	if err := t.allowed(from, p); err != nil {
		t.log.Debug("refused a stream", "protocol", p, "peer", from, "err", err)
		_ = s.Reset()
		return
	}
	defer func() {
		if v := recover(); v != nil {
			t.log.Error("a handler panicked", "protocol", p, "peer", from, "panic", v, "stack", string(debug.Stack()))
			_ = s.Reset()
			return
		}
		_ = s.Close()
	}()
	f(t.ctx, from, s)
}

// Calls and Streams report whether p has a handler of that kind.
func (t *Table) Calls(p grid.Protocol) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.calls[p] != nil
}

// Streams is told at Calls.
func (t *Table) Streams(p grid.Protocol) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.streams[p] != nil
}

// Stop lets nobody in any more and ends the handlers' contexts. Wait then waits for the handlers; what
// they may be blocked on, their streams, is the caller's to end in between.
func (t *Table) Stop() {
	t.mu.Lock()
	t.stopped = true
	t.mu.Unlock()
	t.stop()
}

// Wait waits for the handlers that run.
func (t *Table) Wait() { t.wg.Wait() }

// Unsupported is the error for a protocol that has no handler.
func Unsupported(p grid.Protocol) error {
	return grid.Errorf(grid.Unsupported, "p2p: the peer does not speak %s", p).
		Hint("run the same version on all nodes")
}

// Ended is the error for a call that was given up because its context ended.
func Ended(ctx context.Context, p grid.Protocol, to peer.ID) error {
	code := grid.Canceled
	if grid.CodeOf(ctx.Err()) == grid.Deadline {
		code = grid.Deadline
	}
	return grid.Errorf(code, "p2p: call %s of %s: %w", p, to, ctx.Err())
}
