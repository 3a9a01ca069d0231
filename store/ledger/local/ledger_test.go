package local

import (
	"errors"
	"testing"

	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
)

func open(t testing.TB, d datastore.Batching) *Ledger {
	t.Helper()
	l, err := Open(t.Context(), d)
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
	for bit := range 8 * len(good) {
		bad := append([]byte(nil), good...)
		bad[bit/8] ^= 1 << (bit % 8)
		d.Put(ctx, storeKey("k"), bad)
		if _, err := l.Get(ctx, "k"); !errors.Is(err, grid.Corrupt) {
			t.Fatalf("bit %d flipped: Get: %v", bit, err)
		}
		if _, err := l.Range(ctx, grid.Query{}); !errors.Is(err, grid.Corrupt) {
			t.Fatalf("bit %d flipped: Range: %v", bit, err)
		}
		if _, err := l.Commit(ctx, grid.Txn{If: []grid.Cond{{Key: "k", Version: 1}}}); !errors.Is(err, grid.Corrupt) {
			t.Fatalf("bit %d flipped: Commit: %v", bit, err)
		}
	}
	d.Put(ctx, storeKey("other"), good)
	if _, err := l.Get(ctx, "other"); !errors.Is(err, grid.Corrupt) {
		t.Errorf("an entry under another's key: %v", err)
	}
	d.Put(ctx, revisionKey, []byte("?"))
	if _, err := Open(ctx, d); !errors.Is(err, grid.Corrupt) {
		t.Errorf("Open with a bad revision: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("k", encode("k", 7, []byte("v")))
	f.Add("", []byte{})
	f.Fuzz(func(t *testing.T, key string, b []byte) {
		if e, err := decode(key, b); err == nil && string(encode(key, e.Version, e.Value)) != string(b) {
			t.Errorf("%x decodes to %+v, which encodes otherwise", b, e)
		}
		if got, err := ledgerKey(storeKey(key).String()); err != nil || got != key {
			t.Errorf("key %q comes back as %q, %v", key, got, err)
		}
	})
}
