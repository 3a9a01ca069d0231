package wasmhost

import (
	"context"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// A guest that waits for tasks that it spawned gives back the room that it has on its node: it cannot grow meanwhile.
// Before it goes on it waits for room as any guest that begins. So whoever has room runs and waits for nobody, and
// however deep tasks wait for one another, and however little room there is, they do not wait in a ring. What
// waiting guests have in memory is bounded besides.

// leastParked is what waiting guests may have together on a node that gives its guests less than that.
const leastParked = 256 << 20

// room is a guest's share of the memory of its node.
type room struct {
	h     *Host
	bytes int64
	leave func() // gives it back
}

// idle waits while the guest does not run, and its clock stands still. size is what it has in memory.
func (s *sandbox) idle(ctx context.Context, clock *guestContext, size uint64, wait func() error) error {
	began := time.Now()
	defer func() {
		d := time.Since(began)
		s.waited += d
		clock.extend(d)
		s.meter.since = time.Now() // none of it was the guest's work
	}()
	r := s.room
	if r == nil || r.h.room == nil {
		return wait()
	}
	h := r.h
	most := max(int64(h.total), leastParked)
	defer h.parked.Add(-int64(size))
	if now := h.parked.Add(int64(size)); now > most {
		return grid.Errorf(grid.Busy, "guests that wait for others have %d bytes of memory on this node, at most %d are for them", now, most).
			Hint("have each task do more itself before it spawns others, or raise the node's memory")
	}
	r.leave()
	r.leave = func() {}
	if err := wait(); err != nil {
		return err
	}
	if err := h.room.Acquire(ctx, r.bytes); err != nil {
		return ended(ctx, "wait for memory")
	}
	r.leave = func() { h.room.Release(r.bytes) }
	return nil
}
