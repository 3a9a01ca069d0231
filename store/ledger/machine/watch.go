package machine

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/wasmgrid/wasmgrid/grid"
)

// notify wakes everybody who waits.
type notify struct {
	mu sync.Mutex
	ch chan struct{} // nil when nobody waits
}

func (n *notify) wait() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch == nil {
		n.ch = make(chan struct{})
	}
	return n.ch
}

func (n *notify) all() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch != nil {
		close(n.ch)
		n.ch = nil
	}
}

// audience is those who watch a prefix.
type audience struct {
	notify
	size int
}

// maxMatched bounds the changes that are compared with prefixes after one log entry; beyond, all who watch are woken.
const maxMatched = 1 << 16

// wake wakes those who watch what has changed behind a revision. Others look at it when they have to look for their own; so that they do not
// fall behind the history, they are woken, too, when a quarter of it is new to them. m.mu is held.
func (m *Machine) wake(before uint64) {
	h := &m.history
	if before+1 < h.first || m.revision-m.woken >= uint64(h.limit/4) || h.added-m.wokenBytes >= h.maxBytes/4 ||
		(m.revision-before)*uint64(len(m.audiences)) > maxMatched {
		m.wakeAll()
		return
	}
	for prefix, a := range m.audiences {
		if m.touched(prefix, before) {
			a.all()
		}
	}
}

// touched reports whether anything that begins with a prefix has changed behind a revision.
func (m *Machine) touched(prefix string, before uint64) bool {
	for r := before + 1; r <= m.revision; r++ {
		for _, c := range m.history.at(r) {
			if strings.HasPrefix(c.key(), prefix) {
				return true
			}
		}
	}
	return false
}

// wakeAll wakes all who watch; m.mu is held.
func (m *Machine) wakeAll() {
	m.woken, m.wokenBytes = m.revision, m.history.added
	for _, a := range m.audiences {
		a.all()
	}
}

// Watcher is a place in the history. It keeps nothing itself: who is slow finds itself out of date in the end.
// It is for one goroutine.
type Watcher struct {
	m      *Machine
	prefix string
	of     *audience
	after  atomic.Uint64 // what is delivered
	closed sync.Once
}

// Watch begins behind a revision, which may lie in the future. The error is OutOfDate when later changes are not
// known any more, and Limit when there are too many watchers. Whoever asked for it closes it.
func (m *Machine) Watch(prefix string, after uint64) (*Watcher, error) {
	if len(prefix) > grid.MaxLedgerKey {
		return nil, grid.Errorf(grid.Invalid, "ledger: watch: a prefix of %d bytes, at most %d are allowed", len(prefix), grid.MaxLedgerKey)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.watchers >= m.cfg.Watchers {
		return nil, grid.Errorf(grid.Limit, "ledger: watch %q: %d others watch already, and more are not allowed", prefix, m.watchers).
			Hint("end some, or ask another node")
	}
	if err := m.follows(after); err != nil {
		return nil, grid.Errorf(grid.CodeOf(err), "ledger: watch %q: %w", prefix, err)
	}
	m.watchers++
	a := m.audiences[prefix]
	if a == nil {
		a = &audience{}
		m.audiences[prefix] = a
	}
	a.size++
	w := &Watcher{m: m, prefix: prefix, of: a}
	w.after.Store(after)
	return w, nil
}

// follows reports whether all that was behind a revision is known; m.mu is held.
func (m *Machine) follows(after uint64) error {
	if after+1 < m.history.first {
		return grid.Errorf(grid.OutOfDate, "changes behind revision %d are no longer known; those behind %d are", after, m.history.first-1).
			Hint("read the range and watch from there")
	}
	return nil
}

// scanned is how many revisions are looked at before others may apply.
const scanned = 1 << 12

// Next waits for the next transaction that changed keys beginning with the prefix. The error is OutOfDate when
// the watcher has fallen behind the history, or ctx's.
func (w *Watcher) Next(ctx context.Context) (grid.Changes, error) {
	for {
		if err := context.Cause(ctx); err != nil {
			return grid.Changes{}, err
		}
		found, revision, wait, err := w.look()
		if err != nil {
			return grid.Changes{}, grid.Errorf(grid.CodeOf(err), "ledger: watch %q: %w", w.prefix, err)
		}
		if revision != 0 {
			return tell(revision, found), nil
		}
		if wait == nil {
			continue
		}
		select {
		case <-wait:
		case <-ctx.Done():
		}
	}
}

// Poll is Next without waiting; ok is false when there is nothing.
func (w *Watcher) Poll() (c grid.Changes, ok bool, err error) {
	for {
		found, revision, wait, err := w.look()
		switch {
		case err != nil:
			return grid.Changes{}, false, grid.Errorf(grid.CodeOf(err), "ledger: watch %q: %w", w.prefix, err)
		case revision != 0:
			return tell(revision, found), true, nil
		case wait != nil:
			return grid.Changes{}, false, nil
		}
	}
}

// look goes through some of the history. It returns either the next changes with their revision, or what to wait
// for when it has come to the end, or nothing yet.
func (w *Watcher) look() (found record, revision uint64, wait <-chan struct{}, err error) {
	m := w.m
	m.mu.RLock()
	defer m.mu.RUnlock()
	after := w.after.Load()
	if err := m.follows(after); err != nil {
		return nil, 0, nil, err
	}
	for range scanned {
		if after >= m.revision {
			return nil, 0, w.of.wait(), nil
		}
		after++
		w.after.Store(after)
		for _, c := range m.history.at(after) {
			if strings.HasPrefix(c.key(), w.prefix) {
				found = append(found, c)
			}
		}
		if found != nil {
			return found, after, nil, nil
		}
	}
	return nil, 0, nil, nil
}

func tell(revision uint64, changes record) grid.Changes {
	out := grid.Changes{Revision: revision}
	size := int64(0)
	for _, c := range changes {
		if c.new != nil {
			size += int64(len(c.new.value))
		}
	}
	values := make([]byte, 0, size)
	for _, c := range changes {
		if c.new == nil {
			out.Delete = append(out.Delete, c.old.key)
			continue
		}
		var e grid.Entry
		e, values = c.new.copy(values)
		out.Put = append(out.Put, e)
	}
	return out
}

// After is the revision up to which everything has been delivered: a later watch can go on from there. It may be
// called beside Next.
func (w *Watcher) After() uint64 { return w.after.Load() }

// Close gives the watcher's place to others. It may be called twice.
func (w *Watcher) Close() {
	w.closed.Do(func() {
		w.m.mu.Lock()
		w.m.watchers--
		if w.of.size--; w.of.size == 0 {
			delete(w.m.audiences, w.prefix)
		}
		w.m.mu.Unlock()
	})
}
