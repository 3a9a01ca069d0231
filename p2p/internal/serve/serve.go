// Package serve does what every network does once a request is here: find the handler, bound how often and how many
// of them run for one peer and in all, count what is refused, contain panics, and wait for handlers at the end. It
// moves no bytes.
package serve

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p/internal/frame"
)

// Bounds on what goes on at the same time. A call over them is answered Busy, a stream is reset. A peer may besides
// have no more than an eighth of what is still free, so that it takes dozens that hoard, not a few, to leave nothing to
// others.
const (
	CallsPerPeer   = 64
	CallsInAll     = 1024
	StreamsPerPeer = 256
	// Most streams wait for news, as those of a thousand nodes that follow what nodes do, eight each, and cost a goroutine and its stack.
	StreamsInAll = 1 << 14
	// Messages of calls that come and replies that leave, whose pace is the peer's: they hold no handler's place.
	MessagesPerPeer = 128
	MessagesInAll   = 4096

	freeShare = 8
)

// Kind of what goes on.
type Kind uint8

// The kinds.
const (
	Call Kind = iota
	Stream
	Message
	kinds
)

var (
	perPeer = [kinds]int{CallsPerPeer, StreamsPerPeer, MessagesPerPeer}
	inAll   = [kinds]int{CallsInAll, StreamsInAll, MessagesInAll}
)

// CallFunc answers a call.
type CallFunc = func(ctx context.Context, from peer.ID, req []byte) ([]byte, error)

// StreamFunc serves a stream.
type StreamFunc = func(ctx context.Context, from peer.ID, s grid.Stream)

// Table is a node's handlers. It is safe for concurrent use.
type Table struct {
	log  *slog.Logger
	self peer.ID
	ctx  context.Context // of all handlers; ends when the table stops
	stop context.CancelFunc

	mu      sync.Mutex
	guard   func(from peer.ID, p grid.Protocol) error // nil: everybody may do everything
	calls   map[grid.Protocol]CallFunc
	streams map[grid.Protocol]StreamFunc
	running map[peer.ID]*[kinds]int
	total   [kinds]int
	stopped bool
	wg      sync.WaitGroup

	rates rates
	count *grid.Refusals
}

// New makes an empty table for the node self, which bounds what others do by the rates of its protocols. It must be
// stopped.
func New(log *slog.Logger, self peer.ID, of map[grid.Protocol]grid.Rate) *Table {
	t := &Table{
		log:     log,
		self:    self,
		rates:   newRates(of),
		count:   grid.NewRefusals(log, "refused what a peer asked for"),
		calls:   make(map[grid.Protocol]CallFunc),
		streams: make(map[grid.Protocol]StreamFunc),
		running: make(map[peer.ID]*[kinds]int),
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

// Admit counts one more call or stream of a protocol against the rate of a peer. The error is Limit beyond it.
func (t *Table) Admit(from peer.ID, p grid.Protocol) error {
	if from == t.self || t.rates.allow(from, p, time.Now()) {
		return nil
	}
	t.Refused(from, p, grid.RefusedRate)
	r := t.rates.of[p]
	return grid.Errorf(grid.Limit, "p2p: too many requests by %s: a node answers %v a second of one peer, %d at once", p, r.PerSecond, r.Burst).
		Hint("ask less often")
}

// Enter makes room for one more of a kind for a peer; Leave must follow. The error is Busy over the
// bounds, Unavailable when the table has stopped.
func (t *Table) Enter(from peer.ID, p grid.Protocol, k Kind) error {
	err := t.enter(from, k)
	if err == nil && k != Message && !t.rates.begin(from, p) {
		t.leave(from, k)
		err = grid.Errorf(grid.Busy, "p2p: too many requests by %s at once: %d of yours run", p, t.rates.of[p].AtOnce).
			Hint("try again in a moment")
	}
	if grid.CodeOf(err) == grid.Busy {
		t.Refused(from, p, grid.RefusedAtOnce)
	}
	return err
}

func (t *Table) enter(from peer.ID, k Kind) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return grid.Errorf(grid.Unavailable, "p2p: this node is shutting down")
	}
	var has int
	r := t.running[from]
	if r != nil {
		has = r[k]
	}
	free := inAll[k] - t.total[k]
	if free <= 0 || has >= perPeer[k] || has > 0 && has >= free/freeShare {
		return grid.Errorf(grid.Busy, "p2p: too many requests at once: %d of yours run, %d in all", has, t.total[k]).
			Hint("try again in a moment")
	}
	if r == nil {
		r = new([kinds]int)
		t.running[from] = r
	}
	r[k]++
	t.total[k]++
	t.wg.Add(1)
	return nil
}

// Leave ends what Enter began.
func (t *Table) Leave(from peer.ID, p grid.Protocol, k Kind) {
	if k != Message {
		t.rates.end(from, p)
	}
	t.leave(from, k)
}

func (t *Table) leave(from peer.ID, k Kind) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.running[from]
	r[k]--
	t.total[k]--
	if *r == [kinds]int{} {
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
		t.blame(from, p, err)
		return nil, err
	}
	defer func() {
		if v := recover(); v != nil {
			t.log.Error("a handler panicked", "protocol", p, "peer", from, "panic", v, "stack", string(debug.Stack()))
			reply, err = nil, grid.Errorf(grid.Internal, "p2p: the handler of %s failed: its node's log says how", p)
		}
		t.blame(from, p, err)
	}()
	return f(ctx, from, req)
}

// Local answers a call that came through no socket: within the bounds, with the request copied, the
// error as another node would see it, and without waiting for a handler that ignores its context.
func (t *Table) Local(ctx context.Context, from peer.ID, p grid.Protocol, req []byte) ([]byte, error) {
	if len(req) > grid.MaxMessage {
		return nil, frame.TooLong("request", len(req))
	}
	if err := t.Admit(from, p); err != nil {
		return nil, err
	}
	if err := t.Enter(from, p, Call); err != nil {
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
		defer t.Leave(from, p, Call)
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
	err := t.Admit(from, p)
	if err == nil {
		err = t.Enter(from, p, Stream)
	}
	if err != nil {
		_ = s.Reset()
		return
	}
	defer t.Leave(from, p, Stream)
	t.mu.Lock()
	f := t.streams[p]
	t.mu.Unlock()
	if f == nil {
		_ = s.Reset()
		return
	}
	if err := t.allowed(from, p); err != nil {
		t.blame(from, p, err)
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
	f(t.ctx, from, &blamed{s, t, from, p})
}

// blamed is a stream of which a handler can say that something is wrong.
type blamed struct {
	grid.Stream
	t    *Table
	from peer.ID
	p    grid.Protocol
}

// Blame is told at grid.Blamer.
func (b *blamed) Blame(err error) { b.t.blameStream(b.from, b.p, err) }

// Protocols lists what has a handler, sorted.
func (t *Table) Protocols() []grid.Protocol {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := slices.Concat(slices.Collect(maps.Keys(t.calls)), slices.Collect(maps.Keys(t.streams)))
	slices.Sort(all)
	return all
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
