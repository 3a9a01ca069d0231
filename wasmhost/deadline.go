package wasmhost

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wasmgrid/wasmgrid/wasmhost/guestkv"
	"github.com/wasmgrid/wasmgrid/wasmhost/guestnet"
	"github.com/wasmgrid/wasmgrid/wasmhost/guestreport"
	"github.com/wasmgrid/wasmgrid/wasmhost/guesttask"
)

// guestContext is the context of a guest's call: it tells whose it is, with all that host functions look for, and it is over when the guest's time is.
// Unlike one of context.WithDeadline it takes no timer, which would cost a short guest a tenth of its time, but
// has to be told the time; it gets a timer once somebody waits for it.
type guestContext struct {
	context.Context // the caller's
	sandbox         *sandbox
	end             time.Time
	over            atomic.Bool

	mu     sync.Mutex
	timer  context.Context // nil until somebody waits
	cancel context.CancelFunc
}

type sandboxKey struct{}

// Value implements [context.Context].
func (c *guestContext) Value(key any) any {
	switch key.(type) {
	case sandboxKey:
		return c.sandbox
	case guestnet.Key:
		return &c.sandbox.net
	case guesttask.Key:
		return &c.sandbox.tasks
	case guestkv.Key:
		return &c.sandbox.kv
	case guestreport.Key:
		return &c.sandbox.report
	}
	return c.Context.Value(key)
}

// Deadline implements [context.Context].
func (c *guestContext) Deadline() (time.Time, bool) {
	if t, ok := c.Context.Deadline(); ok && t.Before(c.end) {
		return t, true
	}
	return c.end, true
}

// Err implements [context.Context].
func (c *guestContext) Err() error {
	if err := c.Context.Err(); err != nil {
		return err
	}
	if c.over.Load() {
		return context.DeadlineExceeded
	}
	// Whoever saw Done closed must find an error here, before the timer's function has run and after
	// release.
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		return c.timer.Err()
	}
	return nil
}

// Done implements [context.Context].
func (c *guestContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer == nil {
		ctx, cancel := context.WithDeadline(c.Context, c.end)
		stop := context.AfterFunc(ctx, func() {
			if ctx.Err() == context.DeadlineExceeded {
				c.over.Store(true)
			}
		})
		c.timer, c.cancel = ctx, func() { stop(); cancel() }
	}
	return c.timer.Done()
}

// tell says what time it is.
func (c *guestContext) tell(now time.Time) {
	if now.After(c.end) {
		c.over.Store(true)
	}
}

// extend gives the guest more time: what it did not run for. Nothing may wait for Done meanwhile.
func (c *guestContext) extend(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancel != nil { // of an earlier wait
		c.cancel()
		c.timer, c.cancel = nil, nil
	}
	c.end = c.end.Add(d)
	c.over.Store(time.Now().After(c.end))
}

// close frees the timer. Whoever waits is told that it is over.
func (c *guestContext) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancel != nil {
		c.cancel()
	}
}
