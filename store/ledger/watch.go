package ledger

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Of watches.
const (
	watchesPerPeer = 64
	watchesServed  = 1 << 13          // a thousand nodes that follow what nodes do
	silentBeats    = 4                // that may be missed
	newsBy         = 10 * time.Second // for one piece of news to get to a watcher
	maxWatchPause  = time.Second
)

// Watch is told at grid.Ledger. A node with a copy watches that one, as long as it keeps up; others listen to the nearest
// that has one, and go on at the next when it falls silent. It ends when the node joins another realm, which counts
// revisions of its own.
func (l *Ledger) Watch(ctx context.Context, prefix string, after uint64, f func(grid.Changes) error) error {
	if len(prefix) > grid.MaxLedgerKey {
		return grid.Errorf(grid.Invalid, "ledger: a prefix of %d bytes, at most %d are allowed", len(prefix), grid.MaxLedgerKey)
	}
	if !l.enter() {
		return errClosed()
	}
	defer l.wg.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(l.ctx, func() { cancel(errClosed()) })()
	w := &watch{l: l, realm: l.ofRealm(), prefix: prefix, after: after, f: f}
	pause := minPause
	for {
		at := w.after
		err := w.listen(ctx)
		switch {
		case w.err != nil: // f's
			return w.err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !again(err):
			return err
		}
		l.log.Debug("a watch of the ledger goes on elsewhere", "prefix", prefix, "after", w.after, "err", err)
		if w.after != at {
			pause = minPause
		}
		t := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
		pause = min(2*pause, maxWatchPause)
	}
}

// again reports whether a watch that ended with err can go on elsewhere.
func again(err error) bool {
	switch grid.CodeOf(err) {
	case grid.OutOfDate, grid.Limit, grid.Denied, grid.Invalid:
		return false
	}
	return true
}

// watch is one Watch.
type watch struct {
	l      *Ledger
	realm  string // whose revisions are meant
	prefix string
	after  uint64 // everything up to it has been told
	f      func(grid.Changes) error
	err    error // f's
	tries  int
}

// listen watches in one place until that ends.
func (w *watch) listen(ctx context.Context) error {
	r := w.l.replica()
	if now := w.l.ofRealm(); now != w.realm || r != nil && r.realm.ID != w.realm {
		return grid.Errorf(grid.OutOfDate, "ledger: this node has joined another realm: what is behind revision %d of the last one is not known there", w.after)
	}
	if r != nil && (r.fresh() || len(r.servers()) < 2) {
		return w.here(ctx, r)
	}
	to := w.l.nearest(w.l.servers())
	if len(to) == 0 {
		return w.l.nobody()
	}
	w.tries++
	return w.there(ctx, to[(w.tries-1)%len(to)])
}

// ofRealm is the ID of the realm whose ledger this is just now.
func (l *Ledger) ofRealm() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.realm.ID
}

func (w *watch) tell(c grid.Changes) bool {
	w.l.heard(c.Revision)
	if w.err = w.f(c); w.err != nil {
		return false
	}
	w.after = c.Revision
	return true
}

// here watches this node's own copy, as long as that hears of the leader.
func (w *watch) here(ctx context.Context, r *replica) error {
	return r.follow(ctx, w.prefix, w.after, func(c grid.Changes, after uint64) error {
		if c.Revision != 0 && !w.tell(c) {
			return w.err
		}
		w.after = max(w.after, after)
		return nil
	})
}

// there listens to another node.
func (w *watch) there(ctx context.Context, to peer.ID) error {
	open, cancel := context.WithTimeout(ctx, w.l.cfg.Timing.Try)
	s, err := w.l.net.Open(open, to, watchProtocol)
	cancel()
	if err != nil {
		return err
	}
	defer s.Reset()
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	silence := silentBeats * w.l.cfg.Timing.Beat
	_ = s.SetDeadline(time.Now().Add(max(silence, w.l.cfg.Timing.Try)))
	if err := writeSmall(s, watchRequest{Realm: w.realm, Prefix: []byte(w.prefix), After: w.after}); err != nil {
		return err
	}
	for {
		n, err := readNews(s)
		if err != nil {
			return err
		}
		if n.Code != 0 {
			return &grid.Error{Code: n.Code, Message: n.Message, Advice: n.Advice}
		}
		if n.Revision != 0 {
			c := grid.Changes{Revision: n.Revision, Put: fromWire(n.Put)}
			for _, key := range n.Delete {
				c.Delete = append(c.Delete, string(key))
			}
			if n.Revision <= w.after {
				return grid.Errorf(grid.Internal, "ledger: %s tells of revision %d again", to, n.Revision)
			}
			if !w.tell(c) {
				return w.err
			}
		}
		w.after = max(w.after, n.After)
		w.l.heard(n.After)
		_ = s.SetDeadline(time.Now().Add(silence))
	}
}

// fresh reports whether this replica has heard of the leader lately, or is it.
func (r *replica) fresh() bool {
	return r.office.Load() != nil || time.Since(r.raft.LastContact()) < upWithin(r.l.cfg.Timing)
}

// follow calls f with all changes behind after, and now and then with none. With either comes the revision up to which
// everything has been told. It ends when the replica does or loses touch.
func (r *replica) follow(ctx context.Context, prefix string, after uint64, f func(c grid.Changes, after uint64) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)()
	w, err := r.machine.Watch(prefix, after)
	if err != nil {
		return err
	}
	defer w.Close()
	for {
		beat, stop := context.WithTimeout(ctx, r.l.cfg.Timing.Beat)
		c, err := w.Next(beat)
		stop()
		switch {
		case err == nil:
			err = f(c, c.Revision)
		case ctx.Err() != nil:
			return errClosed()
		case !errors.Is(err, context.DeadlineExceeded):
			return err
		case !r.fresh() && len(r.servers()) > 1:
			return grid.Errorf(grid.Unavailable, "ledger: this copy has lost touch with the leader")
		default:
			err = f(grid.Changes{}, w.After())
		}
		if err != nil {
			return err
		}
	}
}

// handleWatch serves a stream of ledger-watch/1.
func (l *Ledger) handleWatch(ctx context.Context, from peer.ID, s grid.Stream) {
	if !l.enter() {
		return
	}
	defer l.wg.Done()
	defer context.AfterFunc(l.ctx, func() { _ = s.Reset() })()
	_ = s.SetDeadline(time.Now().Add(helloBy))
	var req watchRequest
	if err := readSmall(s, &req); err != nil {
		grid.Blame(s, err)
		return
	}
	err := l.serveWatch(ctx, from, &req, s)
	grid.Blame(s, err)
	_ = s.SetDeadline(time.Now().Add(newsBy))
	end := failed(err)
	_ = writeNews(s, &news{Code: end.Code, Message: end.Message, Advice: end.Advice})
}

// serveWatch tells a node what it watches, until it goes.
func (l *Ledger) serveWatch(ctx context.Context, from peer.ID, req *watchRequest, s grid.Stream) error {
	r, err := l.admit(req.Realm, from)
	switch {
	case err != nil:
		return err
	case r == nil:
		return grid.Errorf(grid.Unavailable, "this node keeps no copy")
	case len(req.Prefix) > grid.MaxLedgerKey:
		return grid.Errorf(grid.Invalid, "a prefix of %d bytes, at most %d are allowed", len(req.Prefix), grid.MaxLedgerKey)
	}
	if err := l.enterWatch(from); err != nil {
		return err
	}
	defer l.leaveWatch(from)
	return r.follow(ctx, string(req.Prefix), req.After, func(c grid.Changes, after uint64) error {
		n := &news{After: after, Revision: c.Revision, Put: toWire(c.Put)}
		for _, key := range c.Delete {
			n.Delete = append(n.Delete, []byte(key))
		}
		if len(n.Put) > maxNewsItems || len(n.Delete) > maxNewsItems {
			return errTooLarge
		}
		_ = s.SetDeadline(time.Now().Add(newsBy))
		return writeNews(s, n)
	})
}

// Clients lists the nodes that watch this one's copy, and if it leads those that have sessions: if the connection to one of them breaks, it
// has to make another at once.
func (l *Ledger) Clients() []peer.ID {
	l.mu.Lock()
	ids := slices.Collect(maps.Keys(l.watches))
	l.mu.Unlock()
	if r := l.replica(); r != nil {
		if o := r.office.Load(); o != nil {
			ids = append(ids, o.lease.owners()...)
		}
	}
	slices.Sort(ids)
	return slices.DeleteFunc(slices.Compact(ids), func(id peer.ID) bool { return id == l.net.Self() })
}

func (l *Ledger) enterWatch(from peer.ID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := 0
	for _, n := range l.watches {
		all += n
	}
	switch {
	case l.watches[from] >= watchesPerPeer:
		return grid.Errorf(grid.Limit, "this node serves %d watches of yours, more are not allowed", l.watches[from]).Hint("end some, or watch a longer prefix with one")
	case all >= watchesServed:
		return grid.Errorf(grid.Busy, "this node serves %d watches, more are not allowed", all).Hint("another that keeps a copy of the ledger may have room")
	}
	l.watches[from]++
	return nil
}

func (l *Ledger) leaveWatch(from peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watches[from]--; l.watches[from] <= 0 {
		delete(l.watches, from)
	}
}
