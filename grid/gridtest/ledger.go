package gridtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestLedger checks the contract of grid.Ledger. open gives a new, empty ledger.
func TestLedger(t *testing.T, open func(t *testing.T) grid.Ledger) {
	ctx := context.Background()
	commit := func(t *testing.T, l grid.Ledger, txn grid.Txn) uint64 {
		t.Helper()
		rev, err := l.Commit(ctx, txn)
		if err != nil {
			t.Fatal(err)
		}
		return rev
	}
	put := func(pairs ...string) (es []grid.Entry) {
		for i := 0; i < len(pairs); i += 2 {
			es = append(es, grid.Entry{Key: pairs[i], Value: []byte(pairs[i+1])})
		}
		return es
	}

	t.Run("versions", func(t *testing.T) {
		l := open(t)
		if _, err := l.Get(ctx, "a"); !errors.Is(err, grid.NotFound) {
			t.Errorf("Get of nothing: %v", err)
		}
		rev := commit(t, l, grid.Txn{Put: put("a", "1", "b", "")})
		if rev == 0 {
			t.Error("revision 0")
		}
		if e, err := l.Get(ctx, "a"); err != nil || e.Key != "a" || string(e.Value) != "1" || e.Version != rev {
			t.Errorf("Get = %+v, %v; want version %d", e, err, rev)
		}
		if e, err := l.Get(ctx, "b"); err != nil || len(e.Value) != 0 || e.Version != rev {
			t.Errorf("Get = %+v, %v", e, err)
		}
		next := commit(t, l, grid.Txn{If: []grid.Cond{{Key: "a", Version: rev}, {Key: "c"}}, Put: put("a", "2"), Delete: []string{"b", "c"}})
		if next <= rev {
			t.Errorf("revision %d follows %d", next, rev)
		}
		if e, err := l.Get(ctx, "a"); err != nil || string(e.Value) != "2" || e.Version != next {
			t.Errorf("Get = %+v, %v", e, err)
		}
		if _, err := l.Get(ctx, "b"); !errors.Is(err, grid.NotFound) {
			t.Errorf("Get of a deleted entry: %v", err)
		}
	})

	t.Run("conflicts", func(t *testing.T) {
		l := open(t)
		rev := commit(t, l, grid.Txn{Put: put("a", "1")})
		for _, conds := range [][]grid.Cond{
			{{Key: "a"}}, {{Key: "a", Version: rev + 1}}, {{Key: "b", Version: rev}}, {{Key: "a", Version: rev}, {Key: "b", Version: 1}},
		} {
			if _, err := l.Commit(ctx, grid.Txn{If: conds, Put: put("x", "1"), Delete: []string{"a"}}); !errors.Is(err, grid.Conflict) {
				t.Errorf("Commit if %+v: %v, want Conflict", conds, err)
			}
		}
		if es, err := all(l, ""); err != nil || len(es) != 1 || es[0].Version != rev {
			t.Errorf("after conflicts the ledger holds %+v, %v", es, err)
		}
		commit(t, l, grid.Txn{If: []grid.Cond{{Key: "a", Version: rev}}}) // checks only
	})

	t.Run("range", func(t *testing.T) {
		l := open(t)
		keys := []string{"a", "a/b", "a//b", "a/b/..", "ab", "a\x00", "a\xff", "\xff\xff", "\xff", "b", "/", "job/1", "job/2", "ключ"}
		for _, k := range keys {
			commit(t, l, grid.Txn{Put: put(k, "v"+k)})
		}
		slices.Sort(keys)
		for _, prefix := range []string{"", "a", "a/", "job/", "job/1", "\xff", "nothing", "/"} {
			var want []string
			for _, k := range keys {
				if strings.HasPrefix(k, prefix) {
					want = append(want, k)
				}
			}
			for limit := range len(want) + 2 {
				got, err := some(l, prefix, limit)
				if err != nil {
					t.Fatal(err)
				}
				var names []string
				for _, e := range got {
					names = append(names, e.Key)
					if string(e.Value) != "v"+e.Key || e.Version == 0 {
						t.Errorf("entry %+v", e)
					}
				}
				if first := want[:min(len(want), limit)]; limit == 0 && !slices.Equal(names, want) || limit > 0 && !slices.Equal(names, first) {
					t.Errorf("Range(%q, %d) = %q; all are %q", prefix, limit, names, want)
				}
			}
		}
	})

	t.Run("limits", func(t *testing.T) {
		l := open(t)
		long := strings.Repeat("k", grid.MaxLedgerKey)
		value := bytes.Repeat([]byte("v"), grid.MaxLedgerValue)
		commit(t, l, grid.Txn{Put: []grid.Entry{{Key: long, Value: value}}})
		if e, err := l.Get(ctx, long); err != nil || !bytes.Equal(e.Value, value) {
			t.Errorf("the largest entry: %d bytes, %v", len(e.Value), err)
		}
		many := func(n int) (keys []string) {
			for i := range n {
				keys = append(keys, fmt.Sprint(i))
			}
			return keys
		}
		commit(t, l, grid.Txn{Delete: many(grid.MaxLedgerTxn)})
		for name, txn := range map[string]grid.Txn{
			"long key":    {Put: put(long+"k", "")},
			"long value":  {Put: []grid.Entry{{Key: "a", Value: append(value, 0)}}},
			"empty key":   {Put: put("", "")},
			"empty del":   {Delete: []string{""}},
			"empty cond":  {If: []grid.Cond{{}}},
			"put twice":   {Put: put("a", "1", "a", "2")},
			"put and del": {Put: put("a", "1"), Delete: []string{"a"}},
			"too many":    {Delete: many(grid.MaxLedgerTxn + 1)},
		} {
			if _, err := l.Commit(ctx, txn); !errors.Is(err, grid.Invalid) && !errors.Is(err, grid.Limit) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := l.Get(ctx, ""); err == nil {
			t.Error("Get of the empty key succeeded")
		}
		if es, err := all(l, ""); err != nil || len(es) != 1 {
			t.Errorf("%d entries, %v; want 1", len(es), err)
		}
	})

	t.Run("concurrent", func(t *testing.T) { // a counter, and two entries that always agree
		l := open(t)
		const workers, rounds = 4, 25
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for done := 0; done < rounds; {
					e, err := l.Get(ctx, "counter")
					if err != nil && !errors.Is(err, grid.NotFound) {
						t.Error(err)
						return
					}
					n := 0
					fmt.Sscan(string(e.Value), &n)
					next := fmt.Sprint(n + 1)
					_, err = l.Commit(ctx, grid.Txn{If: []grid.Cond{{Key: "counter", Version: e.Version}}, Put: put("counter", next, "counter2", next)})
					if err == nil {
						done++
					} else if !errors.Is(err, grid.Conflict) {
						t.Error(err)
						return
					}
					if es, err := all(l, "counter"); err != nil || len(es) != 2 || !bytes.Equal(es[0].Value, es[1].Value) {
						t.Errorf("torn transaction: %+v, %v", es, err)
					}
				}
			})
		}
		wg.Wait()
		if e, err := l.Get(ctx, "counter"); err != nil || string(e.Value) != fmt.Sprint(workers*rounds) {
			t.Errorf("counter is %q, %v; want %d", e.Value, err, workers*rounds)
		}
	})
}

func all(l grid.Ledger, prefix string) ([]grid.Entry, error) { return some(l, prefix, 0) }

func some(l grid.Ledger, prefix string, limit int) ([]grid.Entry, error) {
	p, err := l.Range(context.Background(), grid.Query{Prefix: prefix, Limit: limit})
	return p.Entries, err
}
