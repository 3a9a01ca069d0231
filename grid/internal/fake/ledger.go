package fake

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Ledger is a grid.Ledger in memory. Several nodes may share one, and are a realm then.
type Ledger struct {
	mu       sync.Mutex
	m        map[string]grid.Entry
	rev      uint64
	history  []grid.Changes
	changed  chan struct{} // closed and replaced at every change
	done     map[grid.RequestID]uint64
	sessions map[grid.SessionID]*session
	opened   int
	down     error
}

// Fail makes every call fail with err, until it is called with nil.
func (l *Ledger) Fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = err
}

func (l *Ledger) check(ctx context.Context) error {
	if l.down != nil {
		return l.down
	}
	return ctx.Err()
}

// Get implements grid.Ledger.
func (l *Ledger) Get(ctx context.Context, key string) (grid.Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.check(ctx); err != nil {
		return grid.Entry{}, err
	}
	if e, ok := l.m[key]; ok {
		e.Value = slices.Clone(e.Value)
		return e, nil
	}
	return grid.Entry{}, grid.Errorf(grid.NotFound, "no entry %q", key)
}

// Range implements grid.Ledger.
func (l *Ledger) Range(ctx context.Context, q grid.Query) (grid.Page, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.check(ctx); err != nil {
		return grid.Page{}, err
	}
	if q.At > l.rev {
		return grid.Page{}, grid.Errorf(grid.Unavailable, "revision %d has not come yet", q.At)
	}
	p := grid.Page{Revision: l.rev}
	if q.At != 0 {
		p.Revision = q.At
	}
	for k, e := range l.past(p.Revision) {
		if strings.HasPrefix(k, q.Prefix) && k > q.After {
			e.Value = slices.Clone(e.Value)
			p.Entries = append(p.Entries, e)
		}
	}
	slices.SortFunc(p.Entries, func(a, b grid.Entry) int { return strings.Compare(a.Key, b.Key) })
	n, bytes := 0, 0
	for n < len(p.Entries) && n < grid.MaxLedgerPage && (q.Limit <= 0 || n < q.Limit) {
		if bytes += len(p.Entries[n].Key) + len(p.Entries[n].Value); n > 0 && bytes > grid.MaxLedgerBytes {
			break
		}
		n++
	}
	p.Entries, p.More = p.Entries[:n], n < len(p.Entries)
	return p, nil
}

// past is the map as it was at a revision.
func (l *Ledger) past(revision uint64) map[string]grid.Entry {
	if revision == l.rev {
		return l.m
	}
	m := make(map[string]grid.Entry)
	for _, c := range l.history {
		if c.Revision > revision {
			break
		}
		for _, e := range c.Put {
			m[e.Key] = e
		}
		for _, k := range c.Delete {
			delete(m, k)
		}
	}
	return m
}

func (l *Ledger) holds(c grid.Cond) bool {
	if !c.Prefix {
		return l.m[c.Key].Version == c.Version
	}
	count := uint64(0)
	for k, e := range l.m {
		if strings.HasPrefix(k, c.Key) {
			count++
			if e.Version > c.Version {
				return false
			}
		}
	}
	return count == c.Count
}

// Commit implements grid.Ledger.
func (l *Ledger) Commit(ctx context.Context, t grid.Txn) (uint64, error) {
	if err := grid.CheckTxn(&t); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.check(ctx); err != nil {
		return 0, err
	}
	if rev, again := l.done[t.ID]; again && t.ID != "" {
		return rev, nil
	}
	for _, c := range t.If {
		if !l.holds(c) {
			return 0, grid.Errorf(grid.Conflict, "entry %q has another version", c.Key)
		}
	}
	for _, e := range t.Put {
		if e.Session != "" && l.sessions[e.Session] == nil {
			return 0, grid.Errorf(grid.Conflict, "the session of %q has ended", e.Key)
		}
	}
	if len(t.Put)+len(t.Delete) > 0 {
		l.apply(t.Put, t.Delete)
	}
	if l.done == nil {
		l.done = make(map[grid.RequestID]uint64)
	}
	l.done[t.ID] = l.rev
	return l.rev, nil
}

func (l *Ledger) apply(put []grid.Entry, del []string) {
	if l.m == nil {
		l.m = make(map[string]grid.Entry)
	}
	l.rev++
	c := grid.Changes{Revision: l.rev}
	for _, e := range put {
		e.Version = l.rev
		e.Value = slices.Clone(e.Value)
		l.m[e.Key] = e
		c.Put = append(c.Put, e)
	}
	for _, k := range del {
		if _, ok := l.m[k]; ok {
			delete(l.m, k)
			c.Delete = append(c.Delete, k)
		}
	}
	l.history = append(l.history, c)
	if l.changed != nil {
		close(l.changed)
	}
	l.changed = make(chan struct{})
}

// Watch implements grid.Ledger.
func (l *Ledger) Watch(ctx context.Context, prefix string, after uint64, f func(grid.Changes) error) error {
	for next := 0; ; {
		l.mu.Lock()
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		fresh, changed := l.history[next:], l.changed
		l.mu.Unlock()
		next += len(fresh)
		for _, c := range fresh {
			if c.Revision <= after {
				continue
			}
			out := grid.Changes{Revision: c.Revision}
			for _, e := range c.Put {
				if strings.HasPrefix(e.Key, prefix) {
					e.Value = slices.Clone(e.Value)
					out.Put = append(out.Put, e)
				}
			}
			for _, k := range c.Delete {
				if strings.HasPrefix(k, prefix) {
					out.Delete = append(out.Delete, k)
				}
			}
			if len(out.Put)+len(out.Delete) > 0 {
				if err := f(out); err != nil {
					return err
				}
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// OpenSession implements grid.Ledger. The session lasts until it is closed or expired.
func (l *Ledger) OpenSession(ctx context.Context, ttl time.Duration) (grid.Session, error) {
	if ttl < grid.MinSession || ttl > grid.MaxSession {
		return nil, grid.Errorf(grid.Invalid, "a session that lives for %v", ttl)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.check(ctx); err != nil {
		return nil, err
	}
	l.opened++
	s := &session{l: l, id: grid.SessionID("s" + strconv.Itoa(l.opened)), done: make(chan struct{})}
	if l.sessions == nil {
		l.sessions = make(map[grid.SessionID]*session)
	}
	l.sessions[s.id] = s
	return s, nil
}

// Expire ends the session that an entry was put under, as if its owner had been silent for too long; it is
// false when there is none.
func (l *Ledger) Expire(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sessions[l.m[key].Session]
	if s == nil {
		return false
	}
	s.end()
	return true
}

// Status implements grid.Ledger.
func (l *Ledger) Status(context.Context) (grid.LedgerStatus, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := grid.LedgerStatus{Realm: "fake", Role: grid.Leader, Revision: l.rev, Entries: uint64(len(l.m)), Sessions: len(l.sessions)}
	for k, e := range l.m {
		s.Bytes += uint64(len(k) + len(e.Value))
	}
	return s, nil
}

type session struct {
	l    *Ledger
	id   grid.SessionID
	done chan struct{}
}

func (s *session) ID() grid.SessionID    { return s.id }
func (s *session) Done() <-chan struct{} { return s.done }

func (s *session) Close(context.Context) error {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	s.end()
	return nil
}

// end is called with the ledger's lock held.
func (s *session) end() {
	if s.l.sessions[s.id] == nil {
		return
	}
	delete(s.l.sessions, s.id)
	close(s.done)
	var keys []string
	for k, e := range s.l.m {
		if e.Session == s.id {
			keys = append(keys, k)
		}
	}
	if len(keys) > 0 {
		slices.Sort(keys)
		s.l.apply(nil, keys)
	}
}
