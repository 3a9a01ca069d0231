package fake

import (
	"context"
	"sync"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Seat is a Ledger as one node reaches it: the way there can be cut.
type Seat struct {
	*Ledger

	mu   sync.Mutex
	cut  chan struct{} // closed when it is cut
	down bool
	lose int
}

// NewSeat makes one.
func NewSeat(l *Ledger) *Seat { return &Seat{Ledger: l, cut: make(chan struct{})} }

var errCut = grid.Errorf(grid.Unavailable, "no majority can be reached")

// Cut makes every call fail, and those that wait, until Heal.
func (s *Seat) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.down {
		s.down = true
		close(s.cut)
	}
}

// Heal ends that.
func (s *Seat) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		s.down, s.cut = false, make(chan struct{})
	}
}

// LoseAnswers has the next n commits carried out without their senders hearing of it.
func (s *Seat) LoseAnswers(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose = n
}

// reach is nil when the ledger can be reached.
func (s *Seat) reach() (chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, errCut
	}
	return s.cut, nil
}

// Get implements grid.Ledger.
func (s *Seat) Get(ctx context.Context, key string) (grid.Entry, error) {
	if _, err := s.reach(); err != nil {
		return grid.Entry{}, err
	}
	return s.Ledger.Get(ctx, key)
}

// Range implements grid.Ledger.
func (s *Seat) Range(ctx context.Context, q grid.Query) (grid.Page, error) {
	if _, err := s.reach(); err != nil {
		return grid.Page{}, err
	}
	return s.Ledger.Range(ctx, q)
}

// Commit implements grid.Ledger.
func (s *Seat) Commit(ctx context.Context, t grid.Txn) (uint64, error) {
	if _, err := s.reach(); err != nil {
		return 0, err
	}
	rev, err := s.Ledger.Commit(ctx, t)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.lose > 0 {
		s.lose--
		return 0, grid.Errorf(grid.Deadline, "no answer")
	}
	return rev, err
}

// Watch implements grid.Ledger.
func (s *Seat) Watch(ctx context.Context, prefix string, after uint64, f func(grid.Changes) error) error {
	cut, err := s.reach()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-cut:
			cancel(errCut)
		case <-stop:
		}
	}()
	return s.Ledger.Watch(ctx, prefix, after, func(c grid.Changes) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return f(c)
	})
}

// OpenSession implements grid.Ledger.
func (s *Seat) OpenSession(ctx context.Context, ttl time.Duration) (grid.Session, error) {
	if _, err := s.reach(); err != nil {
		return nil, err
	}
	session, err := s.Ledger.OpenSession(ctx, ttl)
	if err != nil {
		return nil, err
	}
	return seatSession{session, s}, nil
}

type seatSession struct {
	grid.Session
	s *Seat
}

// Close implements grid.Session.
func (x seatSession) Close(ctx context.Context) error {
	if _, err := x.s.reach(); err != nil {
		return err
	}
	return x.Session.Close(ctx)
}
