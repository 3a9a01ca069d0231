// Package pipe makes streams that never leave the process: for what a node says to itself, and for
// the in-memory network. It needs no sockets, and only time's timers, so it works under
// testing/synctest.
package pipe

import (
	"io"
	"os"
	"sync"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Size is how many bytes that are not yet read each direction holds; then writes wait.
const Size = 256 << 10

// Delay says how long the next bytes are under way. It may be nil: no time at all.
type Delay func() time.Duration

// End is one end of a stream. It is a grid.Stream and safe for concurrent use.
type End struct{ in, out *half }

var _ grid.Stream = (*End)(nil)

// New makes a stream's two ends; there delays what a writes, back what b writes.
func New(there, back Delay) (a, b *End) {
	x, y := &half{delay: there}, &half{delay: back}
	return &End{in: y, out: x}, &End{in: x, out: y}
}

// Read waits for bytes, the end (io.EOF), a reset (Unavailable) or the deadline (Deadline).
func (e *End) Read(p []byte) (int, error) { return e.in.read(p) }

// Write returns when all of p is on its way. It keeps nothing of p.
func (e *End) Write(p []byte) (int, error) { return e.out.write(p) }

// CloseWrite lets the other end read what was written, and then io.EOF.
func (e *End) CloseWrite() error { e.out.update(func(h *half) { h.finish() }); return nil }

// Close is CloseWrite, and drops what comes in.
func (e *End) Close() error {
	e.out.update(func(h *half) { h.finish() })
	e.in.update(func(h *half) { h.deaf, h.chunks, h.size = true, nil, 0 })
	return nil
}

// Reset ends both directions at once; both ends see errors.
func (e *End) Reset() error {
	for _, h := range []*half{e.in, e.out} {
		h.update(func(h *half) { h.reset, h.chunks, h.size = true, nil, 0 })
	}
	return nil
}

// SetDeadline bounds this end's reads and writes, also those that wait now. Zero means no bound.
func (e *End) SetDeadline(t time.Time) error {
	e.in.update(func(h *half) { h.readBy = t })
	e.out.update(func(h *half) { h.writeBy = t })
	return nil
}

// Hold stops the flow in both directions, as a cut cable does, or lets it go on.
func (e *End) Hold(held bool) {
	e.HoldIn(held)
	e.HoldOut(held)
}

// HoldIn is Hold for what comes to this end.
func (e *End) HoldIn(held bool) { e.in.update(func(h *half) { h.held = held }) }

// HoldOut is Hold for what this end writes.
func (e *End) HoldOut(held bool) { e.out.update(func(h *half) { h.held = held }) }

// half is one direction.
type half struct {
	delay Delay

	mu      sync.Mutex
	chunks  []chunk
	size    int
	last    time.Time // when the newest chunk arrives: bytes do not overtake one another
	fin     bool      // nothing more will be written
	finAt   time.Time
	deaf    bool // nothing more will be read
	reset   bool
	held    bool
	readBy  time.Time
	writeBy time.Time
	wake    chan struct{} // closed at the next change; nil when nobody waits
}

type chunk struct {
	at   time.Time // when it arrives
	data []byte
}

// update changes the state and wakes who waits for that.
func (h *half) update(f func(*half)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(h)
	h.changed()
}

func (h *half) changed() {
	if h.wake != nil {
		close(h.wake)
		h.wake = nil
	}
}

// arrival is when something sent now arrives.
func (h *half) arrival() time.Time {
	if h.delay == nil {
		return time.Time{}
	}
	if at := time.Now().Add(h.delay()); at.After(h.last) {
		h.last = at
	}
	return h.last
}

func (h *half) finish() {
	if !h.fin {
		h.fin, h.finAt = true, h.arrival()
	}
}

// wait releases the lock until something changes or one of the times, if not zero, has come.
func (h *half) wait(times ...time.Time) {
	if h.wake == nil {
		h.wake = make(chan struct{})
	}
	wake := h.wake
	var first time.Time
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	h.mu.Unlock()
	defer h.mu.Lock()
	if first.IsZero() {
		<-wake
		return
	}
	timer := time.NewTimer(time.Until(first))
	defer timer.Stop()
	select {
	case <-wake:
	case <-timer.C:
	}
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		var next time.Time
		switch {
		case h.reset:
			return 0, errReset()
		case h.deaf:
			return 0, errClosed()
		case passed(h.readBy):
			return 0, errDeadline()
		case len(p) == 0:
			return 0, nil
		case h.held:
		case len(h.chunks) > 0:
			c := &h.chunks[0]
			if next = c.at; future(next) {
				break
			}
			n := copy(p, c.data)
			if c.data = c.data[n:]; len(c.data) == 0 {
				h.chunks[0] = chunk{}
				h.chunks = h.chunks[1:]
			}
			h.size -= n
			h.changed()
			return n, nil
		case h.fin:
			if next = h.finAt; !future(next) {
				return 0, io.EOF
			}
		}
		h.wait(h.readBy, next)
	}
}

func (h *half) write(p []byte) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch room := Size - h.size; {
		case h.reset:
			return n, errReset()
		case h.fin, h.deaf:
			return n, errClosed()
		case passed(h.writeBy):
			return n, errDeadline()
		case n == len(p):
			return n, nil
		case room > 0:
			part := append([]byte(nil), p[n:min(len(p), n+room)]...)
			h.chunks = append(h.chunks, chunk{at: h.arrival(), data: part})
			h.size += len(part)
			n += len(part)
			h.changed()
			if n == len(p) {
				return n, nil
			}
		default:
			h.wait(h.writeBy)
		}
	}
}

func future(t time.Time) bool { return !t.IsZero() && time.Now().Before(t) }
func passed(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

func errReset() error { return grid.Errorf(grid.Unavailable, "p2p: the stream was reset") }
func errClosed() error {
	return grid.Errorf(grid.Unavailable, "p2p: the stream is closed: %w", io.ErrClosedPipe)
}
func errDeadline() error {
	return grid.Errorf(grid.Deadline, "p2p: the stream's deadline has passed: %w", os.ErrDeadlineExceeded)
}
