package ledger

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/ledger/machine"
)

// leases is the leader's timers of the sessions. They are of its monotonic clock and of its time in office alone: a new
// leader grants every session its whole time-to-live anew.
type leases struct {
	r    *replica
	o    *office
	wake chan struct{}

	mu    sync.Mutex
	began bool
	all   map[grid.SessionID]*lease
}

type lease struct {
	owner  peer.ID
	ttl    time.Duration
	until  time.Time
	short  time.Time // when the owner's connection broke: the end unless it is heard of; else zero
	ending bool      // its end is proposed: it cannot be renewed any more
}

// end is when the lease ends.
func (s *lease) end() time.Time {
	if !s.short.IsZero() && s.short.Before(s.until) {
		return s.short
	}
	return s.until
}

func newLeases(r *replica, o *office) *leases {
	return &leases{r: r, o: o, wake: make(chan struct{}, 1), all: make(map[grid.SessionID]*lease)}
}

const (
	expireEvery = 5 * time.Millisecond // at least between two looks at the leases
	expireAgain = 100 * time.Millisecond
	expireMost  = 1 << 10 // sessions ended at once
)

// run grants leases to all sessions, calls ready, and ends those that are not renewed, until the office is lost.
func (l *leases) run(ready func()) {
	l.mu.Lock()
	for _, s := range l.r.machine.Sessions() {
		l.grant(s)
		// Whoever went away before the office began is not granted all of it: often it went with the last leader.
		if l.r.l.isAway(s.Owner) {
			l.all[s.ID].short = time.Now().Add(2 * l.r.l.cfg.Timing.Grace)
		}
	}
	l.began = true
	l.mu.Unlock()
	ready()
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-l.wake:
		case <-l.o.lost:
			return
		case <-l.r.stop:
			return
		}
		ids, next := l.due(time.Now())
		if len(ids) > 0 && !l.finish(ids) {
			next = expireAgain
		}
		t.Reset(max(next, expireEvery))
	}
}

// grant begins a lease; l.mu is held.
func (l *leases) grant(s machine.Session) {
	if l.all[s.ID] == nil {
		l.all[s.ID] = &lease{owner: s.Owner, ttl: s.TTL, until: time.Now().Add(s.TTL)}
	}
}

// due lists what has ended, and says when to look again.
func (l *leases) due(now time.Time) (ids []grid.SessionID, next time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next = grid.MaxSession
	for id, s := range l.all {
		if left := s.end().Sub(now); left > 0 && !s.ending {
			next = min(next, left)
		} else if len(ids) < expireMost {
			s.ending = true
			ids = append(ids, id)
		} else {
			next = 0
		}
	}
	return ids, next
}

// finish ends sessions in the ledger.
func (l *leases) finish(ids []grid.SessionID) bool {
	slices.Sort(ids)
	ctx, cancel := context.WithTimeout(l.r.ctx, l.r.l.cfg.Timing.Call)
	defer cancel()
	if _, err := l.r.batch.do(ctx, machine.Command{End: ids}, 0); err != nil {
		return false
	}
	l.r.log.Info("sessions of the ledger have ended in silence", "realm", l.r.realm.Name, "sessions", len(ids))
	l.ended(ids)
	return true
}

func (l *leases) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// opened begins the lease of a session that is in the ledger now.
func (l *leases) opened(s machine.OpenSession) {
	l.mu.Lock()
	l.grant(s)
	l.mu.Unlock()
	l.poke()
}

func (l *leases) ended(ids []grid.SessionID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		delete(l.all, id)
	}
}

// owners are those whose sessions they are; some may be listed more than once.
func (l *leases) owners() (ids []peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.all {
		ids = append(ids, s.owner)
	}
	return ids
}

// others tells whose one of some sessions is that is not a node's own; "" if there is none.
func (l *leases) others(node peer.ID, ids []grid.SessionID) peer.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		if s := l.all[id]; s != nil && s.owner != node {
			return s.owner
		}
	}
	return ""
}

// renew makes a lease as long as it was at first; false when there is none any more.
func (l *leases) renew(id grid.SessionID, owner peer.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.all[id]
	if s == nil || s.ending || s.owner != owner {
		return false
	}
	s.until, s.short = time.Now().Add(s.ttl), time.Time{}
	return true
}

// peer is told that a node came or went.
func (l *leases) peer(ev grid.PeerEvent) {
	l.mu.Lock()
	grace := time.Now().Add(l.r.l.cfg.Timing.Grace)
	found := false
	for _, s := range l.all {
		if s.owner == ev.Peer {
			found = true
			if s.short = (time.Time{}); !ev.Up {
				s.short = grace
			}
		}
	}
	l.mu.Unlock()
	if found {
		l.poke()
	}
}

// peerEvent tells the leases, if this node leads, who comes and goes; and the sessions, when the leader goes.
func (l *Ledger) peerEvent(ev grid.PeerEvent) {
	if lead, ok := l.leader(); ok && lead == ev.Peer && !ev.Up {
		l.renewNow()
	}
	l.mu.Lock()
	if ev.Up {
		delete(l.away, ev.Peer)
	} else if len(l.away) < maxAway {
		l.away[ev.Peer] = struct{}{}
	}
	l.mu.Unlock()
	if r := l.replica(); r != nil {
		if o := r.office.Load(); o != nil {
			o.lease.peer(ev)
		}
	}
}

// maxAway bounds the nodes that are remembered to have gone.
const maxAway = 1 << 12

// isAway reports whether a node was connected to this one once, and is not any more.
func (l *Ledger) isAway(id peer.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, away := l.away[id]
	return away
}

// renew answers that a session lives. The new lease counts only if this node was still the leader after it had begun:
// else another leader could have granted a lease that ends before.
func (r *replica) renew(ctx context.Context, o *office, from peer.ID, id grid.SessionID) *reply {
	select {
	case <-o.ready:
	case <-o.lost:
		return failed(errLost())
	case <-ctx.Done():
		return failed(context.Cause(ctx))
	}
	if !o.lease.renew(id, from) {
		return failed(grid.Errorf(grid.NotFound, "the session has ended").Hint("open another one"))
	}
	if err := r.confirm.wait(ctx); err != nil {
		return failed(err)
	}
	if r.office.Load() != o {
		return failed(errLost())
	}
	return &reply{Revision: r.machine.Revision()}
}
