package local

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
)

func open(t testing.TB, d datastore.Batching) *Ledger {
	t.Helper()
	l, err := Open(t.Context(), d, Config{})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func memory() datastore.Batching { return dssync.MutexWrap(datastore.NewMapDatastore()) }

func TestContract(t *testing.T) {
	gridtest.TestLedger(t, func(t *testing.T) grid.Ledger { return open(t, memory()) })
}

func TestReopen(t *testing.T) {
	ctx, d := t.Context(), memory()
	l := open(t, d)
	for range 3 {
		if _, err := l.Commit(ctx, grid.Txn{Put: []grid.Entry{{Key: "k", Value: []byte("v")}}}); err != nil {
			t.Fatal(err)
		}
	}
	l = open(t, d)
	if e, err := l.Get(ctx, "k"); err != nil || string(e.Value) != "v" || e.Version != 3 {
		t.Errorf("Get = %+v, %v", e, err)
	}
	if rev, err := l.Commit(ctx, grid.Txn{Delete: []string{"k"}}); rev != 4 || err != nil {
		t.Errorf("Commit = %d, %v; want revision 4", rev, err)
	}
}

func TestCorrupt(t *testing.T) {
	ctx, d := t.Context(), memory()
	l := open(t, d)
	if _, err := l.Commit(ctx, grid.Txn{Put: []grid.Entry{{Key: "k", Value: []byte("v")}}}); err != nil {
		t.Fatal(err)
	}
	good, err := d.Get(ctx, storeKey("k"))
	if err != nil {
		t.Fatal(err)
	}
	refuses := func(what string) {
		t.Helper()
		l := open(t, d)
		_, get := l.Get(ctx, "k")
		_, rang := l.Range(ctx, grid.Query{})
		_, commit := l.Commit(ctx, grid.Txn{If: []grid.Cond{{Key: "k", Version: 1}}})
		_, status := l.Status(ctx)
		for name, err := range map[string]error{"Get": get, "Range": rang, "Commit": commit, "Status": status} {
			if !errors.Is(err, grid.Corrupt) {
				t.Fatalf("%s: %s: %v", what, name, err)
			}
		}
	}
	for bit := range 8 * len(good) {
		bad := append([]byte(nil), good...)
		bad[bit/8] ^= 1 << (bit % 8)
		d.Put(ctx, storeKey("k"), bad)
		refuses(fmt.Sprintf("bit %d flipped", bit))
	}
	d.Put(ctx, storeKey("k"), good)
	d.Put(ctx, storeKey("other"), good)
	refuses("an entry under another's key")
	d.Delete(ctx, storeKey("other"))
	d.Put(ctx, datastore.NewKey("/ledger2/xyz"), good)
	refuses("a key that is none")
	d.Put(ctx, revisionKey, []byte("?"))
	if _, err := Open(ctx, d, Config{}); !errors.Is(err, grid.Corrupt) {
		t.Errorf("Open with a bad revision: %v", err)
	}
}

// TestSessionsEndWithTheProcess opens the ledger again, as after a crash.
func TestSessionsEndWithTheProcess(t *testing.T) {
	ctx, d := t.Context(), memory()
	l := open(t, d)
	s, err := l.OpenSession(ctx, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	rev, err := l.Commit(ctx, grid.Txn{Put: []grid.Entry{{Key: "a"}, {Key: "b", Session: s.ID()}}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		l = open(t, d)
		p, err := l.Range(ctx, grid.Query{})
		if err != nil || len(p.Entries) != 1 || p.Entries[0].Key != "a" || p.Revision != rev+1 {
			t.Errorf("Range = %+v, %v; want a at revision %d", p, err, rev+1)
		}
	}
	if err := l.Watch(ctx, "", rev, func(grid.Changes) error { return nil }); !errors.Is(err, grid.OutOfDate) {
		t.Errorf("Watch from before the restart: %v", err)
	}
}

// faulty is a datastore whose batches fail as told.
type faulty struct {
	datastore.Batching
	fail, late bool // late: after it was applied
}

var errDisk = errors.New("the disk is on fire")

func (f *faulty) Batch(ctx context.Context) (datastore.Batch, error) {
	b, err := f.Batching.Batch(ctx)
	return faultyBatch{b, f}, err
}

type faultyBatch struct {
	datastore.Batch
	f *faulty
}

func (b faultyBatch) Commit(ctx context.Context) error {
	if b.f.fail && !b.f.late {
		return errDisk
	}
	return b.Batch.Commit(ctx)
}

func (f *faulty) Sync(ctx context.Context, k datastore.Key) error {
	if f.fail && f.late {
		return errDisk
	}
	return f.Batching.Sync(ctx, k)
}

// TestFailedWrite looks at what is left when a disk fails: what is on it, and no revision twice.
func TestFailedWrite(t *testing.T) {
	for _, late := range []bool{false, true} {
		ctx := t.Context()
		d := &faulty{Batching: memory(), late: late}
		l := open(t, d)
		put := func(v string) (uint64, error) {
			return l.Commit(ctx, grid.Txn{Put: []grid.Entry{{Key: "k", Value: []byte(v)}}})
		}
		first, err := put("1")
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.OpenSession(ctx, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		watched := make(chan error, 1)
		started := make(chan struct{})
		go func() {
			watched <- l.Watch(ctx, "", first-1, func(c grid.Changes) error {
				if c.Revision != first {
					return fmt.Errorf("told of %+v", c)
				}
				close(started)
				return nil
			})
		}()
		<-started
		d.fail = true
		if _, err := put("2"); !errors.Is(err, errDisk) || !strings.Contains(err.Error(), "not known") {
			t.Errorf("Commit on a failing disk: %v", err)
		}
		d.fail = false
		if err := <-watched; !errors.Is(err, grid.OutOfDate) {
			t.Errorf("the watch ends with %v", err)
		}
		<-s.Done()
		if err := s.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
		want := "1"
		if late {
			want = "2"
		}
		if e, err := l.Get(ctx, "k"); err != nil || string(e.Value) != want {
			t.Errorf("Get = %q, %v; want %q", e.Value, err, want)
		}
		if rev, err := put("3"); err != nil || rev <= first+1 {
			t.Errorf("Commit = %d, %v; %d was used", rev, err, first+1)
		}
	}
}

func TestUnder(t *testing.T) {
	ctx := t.Context()
	realm := open(t, memory())
	commit := func(l *Ledger, keys ...string) {
		t.Helper()
		for _, k := range keys {
			if _, err := l.Commit(ctx, grid.Txn{Put: []grid.Entry{{Key: k, Value: []byte("realm")}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	commit(realm, "job/1", "job/3", "job/5", "job/6", "job/7", "own")
	opened, fails := 0, true
	d := memory()
	if _, err := open(t, d).Commit(ctx, grid.Txn{Put: []grid.Entry{{Key: "own", Value: []byte("own")}, {Key: "job/2"}, {Key: "job/4"}}}); err != nil {
		t.Fatal(err)
	}
	l, err := Open(ctx, d, Config{Under: func(ctx context.Context) (Reader, error) {
		if opened++; fails {
			return nil, grid.Errorf(grid.Corrupt, "a bad snapshot")
		}
		if _, err := realm.Get(ctx, "own"); err != nil { // loads it
			return nil, err
		}
		return realm.now.m, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if e, err := l.Get(ctx, "own"); err != nil || string(e.Value) != "own" || opened != 0 {
		t.Errorf("Get of an own entry = %+v, %v; the realm was asked for %d times", e, err, opened)
	}
	if _, err := l.Get(ctx, "job/1"); !errors.Is(err, grid.Corrupt) {
		t.Errorf("Get when the realm's state is damaged: %v", err)
	}
	fails = false
	if e, err := l.Get(ctx, "job/1"); err != nil || string(e.Value) != "realm" {
		t.Errorf("Get of the realm's entry = %+v, %v", e, err)
	}
	if _, err := l.Get(ctx, "job/8"); !errors.Is(err, grid.NotFound) {
		t.Errorf("Get of nothing: %v", err)
	}
	want := []string{"job/1", "job/2", "job/3", "job/4", "job/5", "job/6", "job/7", "own"}
	for limit := range len(want) + 2 {
		var got []string
		for q := (grid.Query{Limit: limit}); ; {
			p, err := l.Range(ctx, q)
			if err != nil || len(p.Entries) == 0 || limit > 0 && len(p.Entries) > limit {
				t.Fatalf("Range(%+v) = %+v, %v", q, p, err)
			}
			for _, e := range p.Entries {
				got = append(got, e.Key)
				if e.Key == "own" && string(e.Value) != "own" {
					t.Errorf("own is %q", e.Value)
				}
			}
			if !p.More {
				break
			}
			q.After, q.At = got[len(got)-1], p.Revision
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d: %q, want %q", limit, got, want)
		}
	}
	for name, txn := range map[string]grid.Txn{
		"put":    {Put: []grid.Entry{{Key: "job/1"}}},
		"delete": {Delete: []string{"job/1"}},
		"if":     {If: []grid.Cond{{Key: "job/1"}}, Put: []grid.Entry{{Key: "x"}}},
		"prefix": {If: []grid.Cond{{Key: "job/", Prefix: true, Count: 2, Version: 1}}},
	} {
		if _, err := l.Commit(ctx, txn); !errors.Is(err, grid.Unavailable) || grid.AdviceOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := l.Commit(ctx, grid.Txn{
		If:     []grid.Cond{{Key: "new"}, {Key: "own", Version: 1}, {Key: "kv/", Prefix: true}},
		Put:    []grid.Entry{{Key: "new"}, {Key: "own"}},
		Delete: []string{"job/2"},
	}); err != nil {
		t.Errorf("Commit of own entries: %v", err)
	}
	if opened != 2 {
		t.Errorf("the realm was asked for %d times, want 2", opened)
	}
}

// TestUnderEmpty is a home that belongs to no realm.
func TestUnderEmpty(t *testing.T) {
	gridtest.TestLedger(t, func(t *testing.T) grid.Ledger {
		l, err := Open(t.Context(), memory(), Config{Under: func(context.Context) (Reader, error) { return nil, nil }})
		if err != nil {
			t.Fatal(err)
		}
		return l
	})
}

func FuzzDecode(f *testing.F) {
	f.Add("k", encode(grid.Entry{Key: "k", Version: 7, Value: []byte("v")}))
	f.Add("k", encode(grid.Entry{Key: "k", Version: 7, Session: "s"}))
	f.Add("", []byte{})
	f.Fuzz(func(t *testing.T, key string, b []byte) {
		if e, gone, err := decode(key, b); err == nil {
			if gone {
				e.Session = "s"
			}
			if string(encode(e)) != string(b) {
				t.Errorf("%x decodes to %+v, which encodes otherwise", b, e)
			}
		}
		if key == "" { // which no entry has
			return
		}
		if got, err := ledgerKey(storeKey(key).String()); err != nil || got != key {
			t.Errorf("key %q comes back as %q, %v", key, got, err)
		}
	})
}
