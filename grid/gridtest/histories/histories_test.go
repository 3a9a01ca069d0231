package histories

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// try runs everything on a ledger for each client, and returns what was found wrong.
func try(t *testing.T, seed uint64, many int, ledgers ...grid.Ledger) []string {
	t.Helper()
	h := New()
	h.search = 2 * time.Second
	f := &Findings{TB: t}
	ctx := t.Context()
	a, err := NewAll(ctx, h.Client(ledgers[0]), "kv/x/")
	if err != nil {
		t.Fatal(err)
	}
	stop := Watch(f, ledgers[0], a.Prefix, 0)
	clients := make([]grid.Ledger, len(ledgers))
	for i, l := range ledgers {
		clients[i] = h.Client(l)
	}
	Run(f, seed, clients, a.Steps(), many, 20*time.Microsecond, 500*time.Millisecond, nil)
	wait, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	log := a.End(wait, f, h.Client(ledgers[0]), stop)
	h.Replay(f, log)
	h.Linearizable(f)
	known, unknown := h.Calls()
	t.Logf("%d calls, and %d whose answers were lost", known, unknown)
	return f.List()
}

func TestMemory(t *testing.T) {
	l := &fake.Ledger{}
	for _, found := range try(t, 1, 1500, l, l, l, l) {
		t.Error(found)
	}
}

func TestLostAnswers(t *testing.T) {
	l := &fake.Ledger{}
	lossy := func(n uint64) grid.Ledger { return Lossy(n, l, 0.03) }
	for _, found := range try(t, 2, 1000, l, lossy(1), lossy(2), lossy(3)) {
		t.Error(found)
	}
}

// broken is a ledger that breaks one promise.
type broken struct {
	*fake.Ledger
	read   func(l *broken, key string) (grid.Entry, bool) // ok: this is the answer
	commit func(l *broken, ctx context.Context, t grid.Txn) (uint64, error)
	watch  func(c grid.Changes) []grid.Changes

	mu    sync.Mutex
	calls int
	old   map[string]grid.Entry
}

func (b *broken) each(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	return b.calls%n == 0
}

func (b *broken) Get(ctx context.Context, key string) (grid.Entry, error) {
	if b.read != nil {
		if e, ok := b.read(b, key); ok {
			return e, nil
		}
	}
	e, err := b.Ledger.Get(ctx, key)
	if err == nil {
		b.mu.Lock()
		if b.old == nil {
			b.old = make(map[string]grid.Entry)
		}
		if _, ok := b.old[key]; !ok {
			b.old[key] = e
		}
		b.mu.Unlock()
	}
	return e, err
}

func (b *broken) Commit(ctx context.Context, t grid.Txn) (uint64, error) {
	if b.commit != nil {
		return b.commit(b, ctx, t)
	}
	return b.Ledger.Commit(ctx, t)
}

func (b *broken) Watch(ctx context.Context, prefix string, after uint64, f func(grid.Changes) error) error {
	return b.Ledger.Watch(ctx, prefix, after, func(c grid.Changes) error {
		if b.watch == nil {
			return f(c)
		}
		for _, c := range b.watch(c) {
			if err := f(c); err != nil {
				return err
			}
		}
		return nil
	})
}

// TestBroken shows that each check finds what it is there for.
func TestBroken(t *testing.T) {
	anew := func(t grid.Txn) grid.Txn { t.ID = grid.NewRequestID(); return t }
	for name, b := range map[string]*broken{
		"stale reads passed off as fresh": {read: func(b *broken, key string) (grid.Entry, bool) {
			if !b.each(50) {
				return grid.Entry{}, false
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			e, ok := b.old[key]
			return e, ok
		}},
		"applied twice": {commit: func(b *broken, ctx context.Context, t grid.Txn) (uint64, error) {
			rev, err := b.Ledger.Commit(ctx, t)
			if err == nil && b.each(3) {
				_, _ = b.Ledger.Commit(ctx, anew(t)) // as after a lost answer
			}
			return rev, err
		}},
		"a retry that is applied again, or refused for what it did itself": {commit: func(b *broken, ctx context.Context, t grid.Txn) (uint64, error) {
			rev, err := b.Ledger.Commit(ctx, t)
			if err == nil && b.each(20) {
				return b.Ledger.Commit(ctx, anew(t))
			}
			return rev, err
		}},
		"acknowledged and lost": {commit: func(b *broken, ctx context.Context, t grid.Txn) (uint64, error) {
			if b.each(40) {
				st, _ := b.Status(ctx)
				return st.Revision + 1, nil
			}
			return b.Ledger.Commit(ctx, t)
		}},
		"conditions that are not looked at": {commit: func(b *broken, ctx context.Context, t grid.Txn) (uint64, error) {
			if b.each(2) {
				t.If = nil
			}
			return b.Ledger.Commit(ctx, t)
		}},
		"only conditions on what is written are looked at": {commit: func(b *broken, ctx context.Context, t grid.Txn) (uint64, error) {
			<-time.After(100 * time.Microsecond) // for others to come between
			t.If = slices.DeleteFunc(slices.Clone(t.If), func(c grid.Cond) bool {
				return c.Prefix || !slices.ContainsFunc(t.Put, func(e grid.Entry) bool { return e.Key == c.Key })
			})
			return b.Ledger.Commit(ctx, t)
		}},
		"half a transaction": {commit: func(b *broken, ctx context.Context, t grid.Txn) (uint64, error) {
			if len(t.Put) == 2 && b.each(10) {
				t.Put = t.Put[:1]
			}
			return b.Ledger.Commit(ctx, t)
		}},
		"refused and done": {commit: func(b *broken, ctx context.Context, t grid.Txn) (uint64, error) {
			rev, err := b.Ledger.Commit(ctx, t)
			if err == nil && b.each(50) {
				return 0, grid.Errorf(grid.Conflict, "no")
			}
			return rev, err
		}},
		"a watch with a gap": {watch: func(c grid.Changes) []grid.Changes {
			if c.Revision%100 == 7 {
				return nil
			}
			return []grid.Changes{c}
		}},
		"a watch that tells twice": {watch: func(c grid.Changes) []grid.Changes {
			if c.Revision%100 == 7 {
				return []grid.Changes{c, c}
			}
			return []grid.Changes{c}
		}},
		"a watch that tells a half": {watch: func(c grid.Changes) []grid.Changes {
			if len(c.Put) > 1 {
				c.Put = c.Put[1:]
			}
			return []grid.Changes{c}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b.Ledger = &fake.Ledger{}
			found := try(t, 3, 1000, b, b, b)
			if len(found) == 0 {
				t.Fatal("nothing was found")
			}
			t.Logf("%d, such as:\n%s", len(found), found[0])
		})
	}
}

// TestSearch shows that the order is searched from the answers alone: a stale read is found without versions
// to tell, and the report names it.
func TestSearch(t *testing.T) {
	l := &fake.Ledger{}
	h := New()
	a, b := h.Client(l), h.Client(&broken{Ledger: l, read: func(*broken, string) (grid.Entry, bool) {
		return grid.Entry{Key: "k", Value: []byte("1#1"), Version: 1}, true
	}})
	ctx := t.Context()
	for n := range 2 {
		if _, err := a.Commit(ctx, grid.Txn{Put: []grid.Entry{entry("k", n+1, fmt.Sprint(n+1))}}); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = a.Get(ctx, "k")
	_, _ = b.Get(ctx, "k")
	bad := h.linearizable(t)
	if len(bad) != 1 || !strings.Contains(bad[0], "explains the answer\n\tclient 2      7..8     get \"k\" -> k=1#1@1") {
		t.Errorf("%q", bad)
	}
}

// TestPending: a call without an answer explains what was seen of it later, and nothing when it was not seen.
func TestPending(t *testing.T) {
	l := &fake.Ledger{}
	h := New()
	sent, unsent := h.Client(Lossy(1, l, 1)), h.Client(&broken{Ledger: l, commit: func(*broken, context.Context, grid.Txn) (uint64, error) {
		return 0, grid.Errorf(grid.Unavailable, "no")
	}})
	c := h.Client(l)
	ctx := t.Context()
	for n := range 20 {
		_, _ = sent.Commit(ctx, grid.Txn{Put: []grid.Entry{entry("k", n, "sent")}})
		_, _ = unsent.Commit(ctx, grid.Txn{Put: []grid.Entry{entry("k", n, "unsent")}})
		_, _ = c.Get(ctx, "k")
	}
	if _, unknown := h.Calls(); unknown != 40 {
		t.Errorf("%d calls are open", unknown)
	}
	h.Linearizable(t)
	stop := Watch(t, l, "", 0)
	st, _ := l.Status(ctx)
	h.Replay(t, stop(ctx, st.Revision))
}
