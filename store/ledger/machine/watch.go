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

// Watcher is a place in the history. It keeps nothing itself: who is slow finds itself out of date in the end.
// It is for one goroutine.
type Watcher struct {
	m      *Machine
	prefix string
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
	w := &Watcher{m: m, prefix: prefix}
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
			return nil, 0, m.notify.wait(), nil
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
		w.m.mu.Unlock()
	})
}
