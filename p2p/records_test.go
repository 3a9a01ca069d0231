package p2p

import (
	"context"
	"fmt"
	"testing"

	ds "github.com/ipfs/go-datastore"
	dsq "github.com/ipfs/go-datastore/query"
)

func recordKey(what, who any) ds.Key { return ds.NewKey(fmt.Sprintf("/providers/%v/%v", what, who)) }

func (r *records) named(t *testing.T, prefix string) int {
	t.Helper()
	res, err := r.Query(context.Background(), dsq.Query{Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	all, err := res.Rest()
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestRecords(t *testing.T) {
	ctx := t.Context()
	r := newRecords()
	put := func(what, who any) {
		t.Helper()
		if err := r.Put(ctx, recordKey(what, who), []byte("v")); err != nil {
			t.Fatal(err)
		}
	}
	put("A", "x")
	put("A", "y")
	put("AB", "x")
	put("A", "x") // again
	if v, err := r.Get(ctx, recordKey("A", "x")); err != nil || string(v) != "v" {
		t.Errorf("%q, %v", v, err)
	}
	for prefix, want := range map[string]int{"/providers/A": 2, "/providers/AB": 1, "/providers": 3, "/providers/": 3, "/providers/C": 0} {
		if got := r.named(t, prefix); got != want {
			t.Errorf("%s: %d records, want %d", prefix, got, want)
		}
	}
	if err := r.Delete(ctx, recordKey("A", "x")); err != nil {
		t.Fatal(err)
	}
	_ = r.Delete(ctx, recordKey("A", "x"))
	if _, err := r.Get(ctx, recordKey("A", "x")); err != ds.ErrNotFound || r.count != 2 {
		t.Errorf("deleted: %v, %d are left", err, r.count)
	}
	if ok, _ := r.Has(ctx, recordKey("A", "y")); !ok {
		t.Error("another is gone, too")
	}
}

// Whoever announces without end loses its own records, and the honest keep theirs.
func TestRecordsBounded(t *testing.T) {
	ctx := t.Context()
	r := newRecords()
	for i := range 100 {
		_ = r.Put(ctx, recordKey(fmt.Sprint("good", i), "honest"), nil)
	}
	for i := range 2 * maxRecordsPerPeer {
		_ = r.Put(ctx, recordKey(i, "evil"), nil)
	}
	if n := len(r.by["evil"]); n != maxRecordsPerPeer {
		t.Errorf("one peer has %d records", n)
	}
	for who := range 2 * maxRecordsPerKey {
		_ = r.Put(ctx, recordKey("one", who), nil)
	}
	if n := r.named(t, "/providers/one"); n != maxRecordsPerKey {
		t.Errorf("one key has %d records", n)
	}
	for who := range 20 {
		for i := range maxRecordsPerPeer {
			_ = r.Put(ctx, recordKey(fmt.Sprint(who, ".", i), fmt.Sprint("evil", who)), nil)
		}
	}
	sum := 0
	for _, of := range r.of {
		sum += len(of)
	}
	if r.count > maxRecords || sum != r.count {
		t.Errorf("%d records, %d counted", sum, r.count)
	}
	if n := len(r.by["honest"]); n != 100 {
		t.Errorf("the honest peer has %d of its 100 records left", n)
	}
}
