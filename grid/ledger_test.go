package grid_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

func TestFakeLedger(t *testing.T) {
	gridtest.TestLedger(t, func(*testing.T) grid.Ledger { return new(fake.Ledger) })
}

// spy is a ledger that shows its transactions, and fails as it is told.
type spy struct {
	fake.Ledger
	txns []grid.Txn
	fail func(try int) error
}

func (s *spy) Commit(ctx context.Context, t grid.Txn) (uint64, error) {
	s.txns = append(s.txns, t)
	if s.fail != nil {
		if err := s.fail(len(s.txns)); err != nil {
			return 0, err
		}
	}
	return s.Ledger.Commit(ctx, t)
}

func (s *spy) put(t *testing.T, keys ...string) uint64 {
	t.Helper()
	var txn grid.Txn
	for _, k := range keys {
		txn.Put = append(txn.Put, grid.Entry{Key: k, Value: []byte("v")})
	}
	rev, err := s.Ledger.Commit(t.Context(), txn)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

// TestTx looks at the transaction that an Update makes of what it reads and writes.
func TestTx(t *testing.T) {
	l := new(spy)
	rev := l.put(t, "a", "p/1", "p/2")
	_, err := grid.Update(t.Context(), l, func(tx *grid.Tx) error {
		for _, key := range []string{"a", "a", "none"} {
			if _, ok, err := tx.Get(key); err != nil || ok != (key == "a") {
				t.Errorf("Get(%q) = %v, %v", key, ok, err)
			}
		}
		if es, err := tx.Range("p/"); err != nil || len(es) != 2 {
			t.Errorf("Range = %+v, %v", es, err)
		}
		tx.Put("x", []byte("1"))
		tx.Delete("y")
		tx.Put("z", []byte("1"))
		tx.Delete("z")
		tx.Put("y", []byte("2"))
		if es, err := tx.Range("x"); err != nil || len(es) != 0 {
			t.Errorf("a range among its own writes is %+v, %v", es, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got := l.txns[0]
	for _, want := range []grid.Cond{
		{Key: "a", Version: rev}, {Key: "none"}, {Key: "p/", Prefix: true, Count: 2, Version: rev}, {Key: "x", Prefix: true},
	} {
		if !slices.Contains(got.If, want) {
			t.Errorf("conditions %+v lack %+v", got.If, want)
		}
	}
	if len(got.If) != 4 || len(got.ID) != 16 || len(got.Put) != 2 || got.Put[0].Key != "x" || got.Put[1].Key != "y" ||
		string(got.Put[1].Value) != "2" || !slices.Equal(got.Delete, []string{"z"}) {
		t.Errorf("the transaction is %+v", got)
	}
}

func TestUpdateEnds(t *testing.T) {
	conflict := func(int) error { return grid.Errorf(grid.Conflict, "always") }
	nothing := func(tx *grid.Tx) error { return nil }
	t.Run("when it succeeds", func(t *testing.T) {
		l := &spy{fail: func(try int) error {
			if try < 4 {
				return conflict(try)
			}
			return nil
		}}
		if _, err := grid.Update(t.Context(), l, nothing); err != nil || len(l.txns) != 4 {
			t.Errorf("after %d tries: %v", len(l.txns), err)
		}
		if l.txns[0].ID == l.txns[1].ID {
			t.Error("two tries have one request ID")
		}
	})
	t.Run("by an error", func(t *testing.T) {
		l := &spy{fail: func(int) error { return grid.Errorf(grid.Unavailable, "no majority") }}
		if _, err := grid.Update(t.Context(), l, nothing); !errors.Is(err, grid.Unavailable) || len(l.txns) != 1 {
			t.Errorf("after %d tries: %v", len(l.txns), err)
		}
	})
	t.Run("by its context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l := &spy{fail: func(try int) error { cancel(); return conflict(try) }}
		if _, err := grid.Update(ctx, l, nothing); !errors.Is(err, context.Canceled) || len(l.txns) != 1 {
			t.Errorf("after %d tries: %v", len(l.txns), err)
		}
	})
	t.Run("by a conflict of its own", func(t *testing.T) { // it may say so itself, and is asked again
		l, tries := new(spy), 0
		_, err := grid.Update(t.Context(), l, func(*grid.Tx) error {
			if tries++; tries < 3 {
				return grid.Errorf(grid.Conflict, "not yet")
			}
			return nil
		})
		if err != nil || tries != 3 || len(l.txns) != 1 {
			t.Errorf("after %d tries and %d transactions: %v", tries, len(l.txns), err)
		}
	})
	t.Run("by a change while it reads", func(t *testing.T) {
		l, tries := new(spy), 0
		l.put(t, "a")
		if _, err := grid.Update(t.Context(), l, func(tx *grid.Tx) error {
			tries++
			if _, _, err := tx.Get("a"); err != nil {
				return err
			}
			if tries == 1 {
				l.put(t, "a")
			}
			_, _, err := tx.Get("a")
			if tries == 1 && !errors.Is(err, grid.Conflict) {
				t.Errorf("the second look at what has changed: %v", err)
			}
			return err
		}); err != nil || tries != 2 {
			t.Errorf("after %d tries: %v", tries, err)
		}
	})
	t.Run("of a large range", func(t *testing.T) {
		l := new(spy)
		for i := 0; i <= grid.MaxLedgerPage; i += grid.MaxLedgerTxn {
			keys := make([]string, grid.MaxLedgerTxn)
			for j := range keys {
				keys[j] = fmt.Sprintf("%08d", i+j)
			}
			l.put(t, keys...)
		}
		_, err := grid.Update(t.Context(), l, func(tx *grid.Tx) error { _, err := tx.Range(""); return err })
		if !errors.Is(err, grid.Limit) {
			t.Errorf("Range of more than a page: %v", err)
		}
	})
}

func TestRangeAll(t *testing.T) {
	l := new(spy)
	for i := 0; i < 2*grid.MaxLedgerPage+5; i += 1000 {
		keys := make([]string, 1000)
		for j := range keys {
			keys[j] = fmt.Sprintf("r/%08d", i+j)
		}
		l.put(t, keys...)
	}
	n, last := 0, ""
	rev, err := grid.RangeAll(t.Context(), l, "r/", false, func(e grid.Entry) error {
		if e.Key <= last {
			t.Errorf("%q follows %q", e.Key, last)
		}
		if last = e.Key; n == 0 {
			l.put(t, "r/a", "r/00000001x") // the later pages are of the first one's moment
		}
		n++
		return nil
	})
	if err != nil || n != 33000 || rev != 33 {
		t.Errorf("RangeAll: %d entries at revision %d, %v", n, rev, err)
	}
}

func TestCheckTxn(t *testing.T) {
	long := strings.Repeat("k", grid.MaxLedgerKey+1)
	entry := func(key string, size int) grid.Entry { return grid.Entry{Key: key, Value: make([]byte, size)} }
	full := make([]grid.Entry, 4)
	for i := range full {
		full[i] = entry(fmt.Sprint(i), grid.MaxLedgerValue-1)
	}
	for _, c := range []struct {
		name string
		txn  grid.Txn
		want grid.Code
	}{
		{"nothing", grid.Txn{}, 0},
		{"a key and a prefix of it", grid.Txn{If: []grid.Cond{{Key: "a"}, {Key: "a", Prefix: true}, {Prefix: true}}}, 0},
		{"a condition twice", grid.Txn{If: []grid.Cond{{Key: "a"}, {Key: "a", Version: 1}}}, 0},
		{"as much as is allowed", grid.Txn{ID: grid.NewRequestID(), Put: full}, 0},
		{"too much", grid.Txn{Put: full, Delete: []string{"12345"}}, grid.Limit},
		{"too much to compare", grid.Txn{If: []grid.Cond{{Key: "12345"}}, Put: full}, grid.Limit},
		{"a long prefix", grid.Txn{If: []grid.Cond{{Key: long, Prefix: true}}}, grid.Invalid},
		{"a long key to compare", grid.Txn{If: []grid.Cond{{Key: long}}}, grid.Invalid},
		{"a long key to delete", grid.Txn{Delete: []string{long}}, grid.Invalid},
		{"deleted twice", grid.Txn{Delete: []string{"a", "b", "a"}}, grid.Invalid},
		{"as many as may be counted", grid.Txn{If: []grid.Cond{{Prefix: true, Count: grid.MaxLedgerPage - 1}, {Prefix: true, Count: 1}}}, 0},
		{"too many to count", grid.Txn{If: []grid.Cond{{Prefix: true, Count: grid.MaxLedgerPage}, {Prefix: true, Count: 1}}}, grid.Limit},
		{"no end of counting", grid.Txn{If: []grid.Cond{{Prefix: true, Count: math.MaxUint64}, {Prefix: true, Count: math.MaxUint64}}}, grid.Limit},
	} {
		err := grid.CheckTxn(&c.txn)
		if c.want == 0 && err != nil || c.want != 0 && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
