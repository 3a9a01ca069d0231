// Package roster keeps who is present and tells subscribers, in order, who comes and goes.
package roster

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Roster is the peers that are present. The zero Roster is empty. It is safe for concurrent use.
type Roster struct {
	mu     sync.Mutex
	since  map[peer.ID]time.Time
	subs   map[*subscriber]struct{}
	closed bool
	wg     sync.WaitGroup // one goroutine per subscriber
}

// Entry is one peer that is present.
type Entry struct {
	ID    peer.ID
	Since time.Time
}

// Up says that p is here, and reports whether that is news.
func (r *Roster) Up(p peer.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.since[p]; ok || r.closed {
		return false
	}
	if r.since == nil {
		r.since = make(map[peer.ID]time.Time)
	}
	r.since[p] = time.Now()
	r.tell(grid.PeerEvent{Peer: p, Up: true})
	return true
}

// Down says that p is gone, and reports whether that is news.
func (r *Roster) Down(p peer.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.since[p]; !ok || r.closed {
		return false
	}
	delete(r.since, p)
	r.tell(grid.PeerEvent{Peer: p})
	return true
}

// Has reports whether p is here.
func (r *Roster) Has(p peer.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.since[p]
	return ok
}

// Len is how many are here.
func (r *Roster) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.since)
}

// List is who is here, sorted by ID.
func (r *Roster) List() []Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.list()
}

func (r *Roster) list() []Entry {
	list := make([]Entry, 0, len(r.since))
	for p, t := range r.since {
		list = append(list, Entry{ID: p, Since: t})
	}
	slices.SortFunc(list, func(a, b Entry) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// Subscribe calls f with an Up for each peer present and then with each event, in order, one call at
// a time, on a goroutine of its own. After stop no further call begins; one under way may still be
// ending, so that f itself may call stop. Peers that come and go faster than f takes the news are
// left out, so what waits for f is at most two events for each peer.
func (r *Roster) Subscribe(f func(grid.PeerEvent)) (stop func()) {
	s := &subscriber{news: make(chan struct{}, 1), done: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return func() {}
	}
	for _, e := range r.list() {
		s.add(grid.PeerEvent{Peer: e.ID, Up: true})
	}
	if r.subs == nil {
		r.subs = make(map[*subscriber]struct{})
	}
	r.subs[s] = struct{}{}
	r.wg.Go(func() { s.run(f) })
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.subs, s)
		s.stop()
	}
}

// Close ends all subscriptions and waits for their calls. It must not be called from within one.
func (r *Roster) Close() {
	r.mu.Lock()
	r.closed = true
	for s := range r.subs {
		s.stop()
	}
	clear(r.subs)
	r.mu.Unlock()
	r.wg.Wait()
}

func (r *Roster) tell(ev grid.PeerEvent) {
	for s := range r.subs {
		s.add(ev)
	}
}

type subscriber struct {
	news chan struct{} // holds one token while pending may have something new
	done chan struct{}
	once sync.Once

	mu      sync.Mutex
	pending []grid.PeerEvent
}

func (s *subscriber) stop() { s.once.Do(func() { close(s.done) }) }

func (s *subscriber) add(ev grid.PeerEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.cancelsOut(ev) {
		s.pending = append(s.pending, ev)
	}
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// cancelsOut removes the Up that a Down follows before anybody heard of it. A Down that an Up follows
// stays: that the peer was away is news even when it is back.
func (s *subscriber) cancelsOut(ev grid.PeerEvent) bool {
	if ev.Up {
		return false
	}
	for i := len(s.pending) - 1; i >= 0; i-- {
		if s.pending[i].Peer == ev.Peer {
			if s.pending[i].Up {
				s.pending = slices.Delete(s.pending, i, i+1)
				return true
			}
			return false
		}
	}
	return false
}

func (s *subscriber) run(f func(grid.PeerEvent)) {
	for {
		select {
		case <-s.done:
			return
		case <-s.news:
		}
		for {
			ev, ok := s.next()
			if !ok {
				break
			}
			f(ev)
		}
	}
}

func (s *subscriber) next() (ev grid.PeerEvent, ok bool) {
	select {
	case <-s.done:
		return ev, false
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) == 0 {
		return ev, false
	}
	ev = s.pending[0]
	s.pending = s.pending[1:]
	return ev, true
}
