package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// patience is how long somebody may keep us waiting: for each piece, and in all, which grows with what he has moved. Time in
// which nobody waits for him does not count.
type patience struct {
	piece  time.Duration // for each piece, and to begin with
	waited time.Duration
	bytes  int64
}

// next is how long the next piece may take.
func (p *patience) next() time.Duration {
	return min(p.piece, p.piece+time.Duration(p.bytes)*time.Second/readerRate-p.waited)
}

func (p *patience) took(d time.Duration, n int) {
	p.waited += d
	p.bytes += int64(n)
}

// remoteWriter gives up a reader that is too slow.
type remoteWriter struct {
	statusWriter
	control *http.ResponseController
	p       patience
	slow    bool
}

// begin takes away the deadline of the request before, which would end one that has nothing to say for a while.
func (w *remoteWriter) begin() { _ = w.control.SetWriteDeadline(time.Time{}) }

// end bounds what is left when the handler is done: of the answer to send, and of a body that nobody wanted.
func (w *remoteWriter) end() {
	now := time.Now()
	_ = w.control.SetReadDeadline(now.Add(w.p.piece)) // HTTP/1.1 reads it before it sends
	_ = w.control.SetWriteDeadline(now.Add(2 * w.p.piece))
}

func (w *remoteWriter) send(f func() (int, error)) (int, error) {
	start := time.Now()
	_ = w.control.SetWriteDeadline(start.Add(w.p.next()))
	n, err := f()
	w.p.took(time.Since(start), n)
	if err == nil {
		_ = w.control.SetWriteDeadline(time.Time{})
	} else if errors.Is(err, os.ErrDeadlineExceeded) || w.p.next() <= 0 {
		w.slow = true
	}
	return n, err
}

func (w *remoteWriter) Write(b []byte) (int, error) {
	return w.send(func() (int, error) { return w.statusWriter.Write(b) })
}

func (w *remoteWriter) Flush() { _ = w.FlushError() }

// FlushError is for http.ResponseController.
func (w *remoteWriter) FlushError() error {
	_, err := w.send(func() (int, error) { return 0, w.control.Flush() })
	return err
}

// remoteBody gives up a sender that is too slow.
type remoteBody struct {
	body    io.ReadCloser
	control *http.ResponseController
	ctx     context.Context
	p       patience
	slow    atomic.Bool

	mu   sync.Mutex
	over bool // the request is answered: nothing may be done to its connection any more
}

func (b *remoteBody) Read(p []byte) (int, error) {
	start, may := time.Now(), b.p.next()
	_ = b.control.SetReadDeadline(start.Add(may))
	if b.ctx.Err() != nil {
		b.giveUp()
	}
	n, err := b.body.Read(p)
	took := time.Since(start)
	b.p.took(took, n)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && took >= may:
		b.slow.Store(true)
		return n, b.tooSlow()
	case b.ctx.Err() != nil:
		return n, context.Cause(b.ctx)
	}
	_ = b.control.SetReadDeadline(time.Time{}) // one that is left behind would end the request while it is being answered
	return n, err
}

func (b *remoteBody) tooSlow() error {
	return grid.Errorf(grid.Deadline, "the request comes too slowly: a piece may take %v, and all of it must come with %d KiB/s", b.p.piece, readerRate>>10)
}

func (b *remoteBody) Close() error { return b.body.Close() }

// giveUp has whoever reads wait no longer.
func (b *remoteBody) giveUp() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.over {
		_ = b.control.SetReadDeadline(time.Now())
	}
}

func (b *remoteBody) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
}

// heldBody is a body whose bytes are held in memory until the request is answered.
type heldBody struct {
	io.ReadCloser
	all *atomic.Int64 // of all requests
	own int64
}

func (b *heldBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.own += int64(n)
	if b.all.Add(int64(n)) > remoteMemory {
		return n, &statusError{http.StatusTooManyRequests, grid.Errorf(grid.Busy, "requests of more than %d MiB are being answered, which is as much as there may be at once", remoteMemory>>20).Hint("try again later")}
	}
	return n, err
}

func (b *heldBody) free() { b.all.Add(-b.own) }
