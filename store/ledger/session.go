package ledger

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/ledger/machine"
)

// session is one of this node.
type session struct {
	l    *Ledger
	id   grid.SessionID
	ttl  time.Duration
	done chan struct{} // closed by keep
	stop context.CancelFunc
	ctx  context.Context
	poke chan struct{} // to renew now
}

// Of renewals.
const (
	renewals   = 3 // in one time-to-live
	endSession = time.Second
)

// OpenSession is told at grid.Ledger.
func (l *Ledger) OpenSession(ctx context.Context, ttl time.Duration) (grid.Session, error) {
	if ttl < grid.MinSession || ttl > grid.MaxSession {
		return nil, grid.Errorf(grid.Invalid, "ledger: a session that lives for %v, want %v to %v", ttl, grid.MinSession, grid.MaxSession)
	}
	var b [16]byte
	rand.Read(b[:])
	s := &session{l: l, id: grid.SessionID(hex.EncodeToString(b[:])), ttl: ttl, done: make(chan struct{}), poke: make(chan struct{}, 1)}
	began := time.Now()
	if _, err := l.apply(ctx, "open a session", &machine.Command{Open: &machine.OpenSession{ID: s.id, TTL: ttl, Owner: l.net.Self()}}); err != nil {
		return nil, err
	}
	s.ctx, s.stop = context.WithCancel(l.ctx)
	l.mu.Lock()
	closed := l.closed
	if !closed {
		l.sessions[s] = struct{}{}
		l.wg.Add(1)
	}
	l.mu.Unlock()
	if closed {
		s.stop()
		return nil, errClosed()
	}
	go s.keep(began)
	return s, nil
}

// ID is told at grid.Session.
func (s *session) ID() grid.SessionID { return s.id }

// Done is told at grid.Session.
func (s *session) Done() <-chan struct{} { return s.done }

// Close is told at grid.Session.
func (s *session) Close(ctx context.Context) error {
	s.stop()
	select {
	case <-s.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	_, err := s.l.apply(ctx, "end a session", &machine.Command{End: []grid.SessionID{s.id}})
	return err
}

// keep renews the session until it is stopped or lost. Time counts from before the last renewal that succeeded was
// sent: then it cannot have ended earlier than we say.
func (s *session) keep(sent time.Time) {
	defer s.l.wg.Done()
	defer func() {
		s.stop()
		s.l.mu.Lock()
		delete(s.l.sessions, s)
		s.l.mu.Unlock()
		close(s.done)
	}()
	t := time.NewTimer(s.ttl / renewals)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-s.poke:
		case <-s.ctx.Done():
			return
		}
		left := time.Until(sent.Add(s.ttl))
		if left <= 0 {
			s.l.log.Warn("a session of this node is lost: the ledger could not be reached", "session", s.id, "ttl", s.ttl)
			return
		}
		now := time.Now()
		ctx, cancel := context.WithTimeout(s.ctx, left)
		_, err := s.l.ask(ctx, "renew a session", &request{Kind: askRenew, Session: []byte(s.id)})
		cancel()
		switch {
		case err == nil:
			sent = now
		case errors.Is(err, grid.NotFound):
			s.l.log.Warn("a session of this node has been ended", "session", s.id)
			return
		}
		t.Reset(max(0, min(s.ttl/renewals-time.Since(now), time.Until(sent.Add(s.ttl)))))
	}
}

// endSessions ends all sessions of this node in the ledger, if that is quick.
func (l *Ledger) endSessions() {
	l.mu.Lock()
	var ids []grid.SessionID
	for s := range l.sessions {
		s.stop()
		ids = append(ids, s.id)
	}
	l.mu.Unlock()
	if len(ids) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(l.ctx, endSession)
	defer cancel()
	for len(ids) > 0 {
		n := min(len(ids), machine.MaxBatch)
		if _, err := l.askOpen(ctx, "end sessions", &request{Kind: askCommit, cmd: &machine.Command{End: ids[:n]}}); err != nil {
			l.log.Info("sessions of this node will end in silence", "err", err)
			return
		}
		ids = ids[n:]
	}
}

// renewNow renews all sessions of this node: the leader may have lost its connection to it, and give them little time.
func (l *Ledger) renewNow() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.sessions {
		select {
		case s.poke <- struct{}{}:
		default:
		}
	}
}
