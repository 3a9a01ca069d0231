package wasi

import (
	"context"
	"math"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasmgrid/wasmgrid/wasmhost/wasi/vfs"
)

// ClockID names a clock, by WASI's numbers.
type ClockID uint32

// The clocks. Those of processor time are not provided.
const (
	Realtime  ClockID = 0 // since 1970
	Monotonic ClockID = 1
)

// Clock is a guest's time, in nanoseconds.
type Clock interface {
	// Read is what a guest gets when it looks at a clock; Now is the same for the host's own use, as
	// for the times of files.
	Read(ClockID) int64
	Now(ClockID) int64
	Resolution() int64
	// Sleep returns after ns, or when ctx is over.
	Sleep(ctx context.Context, ns int64)
}

// virtualClock is a function of how often the guest looked and how long it slept.
type virtualClock struct{ ns int64 }

const (
	epoch = 1640995200 * int64(time.Second) // 2022-01-01 00:00 UTC
	tick  = int64(time.Millisecond)         // how far each look moves it
)

func (c *virtualClock) Now(id ClockID) int64 {
	if id == Realtime {
		return epoch + c.ns
	}
	return c.ns
}

func (c *virtualClock) Read(id ClockID) int64 {
	t := c.Now(id)
	c.pass(tick)
	return t
}

func (c *virtualClock) Resolution() int64 { return tick }

// Sleep moves the clock on, no further than three centuries hence where int64 ends.
func (c *virtualClock) Sleep(_ context.Context, ns int64) { c.pass(ns) }

func (c *virtualClock) pass(ns int64) {
	if ns > 0 {
		c.ns += min(ns, math.MaxInt64-epoch-c.ns)
	}
}

// realClock is the host's. Its monotonic clock goes on from where a virtual one was left.
type realClock struct {
	began   time.Time
	elapsed int64
}

// RealClock gives the time of the host to a guest whose clocks have run for elapsed nanoseconds before. The
// monotonic clock does not mind when the host's is set.
func RealClock(elapsed int64) Clock { return &realClock{time.Now(), elapsed} }

func (c *realClock) Now(id ClockID) int64 {
	if id == Realtime {
		return time.Now().UnixNano()
	}
	return c.elapsed + int64(time.Since(c.began))
}

func (c *realClock) Read(id ClockID) int64 { return c.Now(id) }

func (c *realClock) Resolution() int64 { return 1 }

func (c *realClock) Sleep(ctx context.Context, ns int64) {
	t := time.NewTimer(time.Duration(ns))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// clockErrno tells whether there is such a clock.
func clockErrno(id uint64) Errno {
	switch uint32(id) {
	case uint32(Realtime), uint32(Monotonic):
		return vfs.ESUCCESS
	case 2, 3: // processor time of the process, of the thread
		return vfs.ENOTSUP
	}
	return vfs.EINVAL
}

func clockResGet(_ context.Context, s *State, mem api.Memory, p []uint64) Errno {
	out := view(mem, p[1], 8)
	if errno := clockErrno(p[0]); errno != vfs.ESUCCESS {
		return errno
	}
	if out == nil {
		return vfs.EFAULT
	}
	le.PutUint64(out, uint64(s.clock.Resolution()))
	return vfs.ESUCCESS
}

func clockTimeGet(_ context.Context, s *State, mem api.Memory, p []uint64) Errno {
	out := view(mem, p[2], 8)
	if errno := clockErrno(p[0]); errno != vfs.ESUCCESS {
		return errno
	}
	if out == nil {
		return vfs.EFAULT
	}
	le.PutUint64(out, uint64(s.clock.Read(ClockID(p[0]))))
	return vfs.ESUCCESS
}

// The records of poll_oneoff, and what is in them.
const (
	subscriptionSize = 48
	eventSize        = 32
	eventClock       = 0
	eventRead        = 1
	eventWrite       = 2
	absolute         = 1 // flag of a clock subscription
	// maxSubscriptions bounds the work of one call.
	maxSubscriptions = 1 << 14
)

// pollOneoff waits for the first of what a guest subscribes to. Descriptors are always ready; without
// any it sleeps until the first clock is due.
func pollOneoff(ctx context.Context, s *State, mem api.Memory, p []uint64) Errno {
	n := uint64(uint32(p[2]))
	if n == 0 || n > maxSubscriptions {
		return vfs.EINVAL
	}
	subs, events, count := view(mem, p[0], n*subscriptionSize), view(mem, p[1], n*eventSize), view(mem, p[3], 4)
	if subs == nil || events == nil || count == nil {
		return vfs.EFAULT
	}
	s.charge(ctx, costEntry*n)
	now := [...]int64{Realtime: s.clock.Now(Realtime), Monotonic: s.clock.Now(Monotonic)}
	wait := int64(math.MaxInt64)
	for i := range n {
		sub := subs[i*subscriptionSize:][:subscriptionSize]
		switch sub[8] {
		case eventClock:
			if d, errno := due(sub, now); errno != vfs.ESUCCESS {
				wait = 0 // an event that tells
			} else {
				wait = min(wait, d)
			}
		case eventRead, eventWrite:
			wait = 0
		default:
			return vfs.EINVAL
		}
	}
	if wait > 0 {
		s.clock.Sleep(ctx, wait)
		s.proceed(ctx)
	}
	slept := max(wait, s.clock.Now(Monotonic)-now[Monotonic])
	total := uint32(0)
	for i := range n {
		sub := subs[i*subscriptionSize:][:subscriptionSize]
		var errno Errno
		var ready uint64
		kind := sub[8]
		switch kind {
		case eventClock:
			var d int64
			if d, errno = due(sub, now); errno == vfs.ESUCCESS && d > slept {
				continue
			}
		case eventRead:
			ready, errno = s.ready(sub, rightRead)
		case eventWrite:
			ready, errno = s.ready(sub, rightWrite)
		default:
			continue // the guest gave overlapping records, and its events overwrite its questions
		}
		event := events[uint64(total)*eventSize:][:eventSize]
		user := le.Uint64(sub)
		clear(event)
		le.PutUint64(event, user)
		le.PutUint16(event[8:], uint16(errno))
		event[10] = kind
		le.PutUint64(event[16:], ready)
		total++
	}
	le.PutUint32(count, total)
	return vfs.ESUCCESS
}

// due is how long a clock subscription has to wait, counted from now.
func due(sub []byte, now [2]int64) (int64, Errno) {
	id, flags := uint64(le.Uint32(sub[16:])), le.Uint16(sub[40:])
	if errno := clockErrno(id); errno != vfs.ESUCCESS {
		return 0, errno
	}
	if flags&^absolute != 0 {
		return 0, vfs.EINVAL
	}
	timeout := int64(min(le.Uint64(sub[24:]), math.MaxInt64))
	if flags&absolute != 0 {
		timeout -= now[id]
	}
	return max(timeout, 0), vfs.ESUCCESS
}

// ready is how many bytes a descriptor has or takes, as far as that is known.
func (s *State) ready(sub []byte, right rights) (uint64, Errno) {
	d := s.table.get(uint64(le.Uint32(sub[16:])))
	switch {
	case d == nil:
		return 0, vfs.EBADF
	case d.base&right == 0 || d.base&rightPoll == 0:
		return 0, vfs.ENOTCAPABLE
	case d.kind == file && right == rightRead:
		return uint64(max(d.file.Size()-d.off, 0)), vfs.ESUCCESS
	}
	return 1, vfs.ESUCCESS
}
