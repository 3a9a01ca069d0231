package receipt

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
)

func memory() datastore.Batching { return dssync.MutexWrap(datastore.NewMapDatastore()) }

var someNode = peer.ID("\x12\x20" + strings.Repeat("n", 32)) // any multihash

// open opens the receipts of d.
func open(t testing.TB, d datastore.Batching, most int64, now func() time.Time) *Cache {
	t.Helper()
	c, err := New(t.Context(), Config{Meta: d, Most: most, Now: now, Drop: func(ctx context.Context, below datastore.Key) error {
		for r, err := range datastore.QueryIter(ctx, d, query.Query{Prefix: below.String(), KeysOnly: true}) {
			if err == nil {
				err = d.Delete(ctx, datastore.RawKey(r.Key))
			}
			if err != nil {
				return err
			}
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestContract(t *testing.T) {
	for _, most := range []int64{0, 200_000} { // also while it turns
		gridtest.TestCache(t, func(t *testing.T) grid.Cache { return open(t, memory(), most, nil) })
	}
}

// count is how many receipts lie in d.
func count(t testing.TB, d datastore.Batching) (n int) {
	t.Helper()
	for _, err := range datastore.QueryIter(t.Context(), d, query.Query{Prefix: root.String(), KeysOnly: true}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// TestBounded: however many receipts come, and whoever opens them again meanwhile, there are no more than there may be, and those that are asked for stay.
func TestBounded(t *testing.T) {
	const most, all = 64 << 10, 3000
	d := memory()
	c := open(t, d, most, nil)
	receipt := func(i int) grid.Receipt {
		return grid.Receipt{Key: grid.Key{1, byte(i), byte(i >> 8)}, Node: someNode, Exit: uint32(i)}
	}
	have := func(i int) bool {
		t.Helper()
		r, ok, err := c.Lookup(t.Context(), receipt(i).Key)
		if err != nil || ok && r.Exit != uint32(i) {
			t.Fatalf("Lookup %d = %+v, %v", i, r, err)
		}
		return ok
	}
	for i := range all {
		if i%700 == 0 {
			c = open(t, d, most, nil)
		}
		if err := c.Remember(t.Context(), receipt(i)); err != nil {
			t.Fatal(err)
		}
		if !have(0) || !have(max(0, i-20)) {
			t.Fatalf("after %d, one that is used, or new, is not there", i)
		}
	}
	one, err := encode(&grid.Receipt{Node: someNode})
	if err != nil {
		t.Fatal(err)
	}
	if n := count(t, d); n < 50 || n*(len(one)+80) > most+most/8 {
		t.Errorf("%d receipts are kept", n)
	}
	if have(100) {
		t.Error("what nobody asked for is there still")
	}
}

// TestAge: what nobody asks for goes after three to six months, when something is remembered or the store opened.
func TestAge(t *testing.T) {
	d := memory()
	now := time.Unix(1e9, 0)
	clock := func() time.Time { return now }
	c := open(t, d, 0, clock)
	remember := func(i byte) {
		t.Helper()
		if err := c.Remember(t.Context(), grid.Receipt{Key: grid.Key{i}}); err != nil {
			t.Fatal(err)
		}
	}
	want := func(n int) {
		t.Helper()
		if got := count(t, d); got != n {
			t.Errorf("%d receipts, want %d", got, n)
		}
	}
	remember(1)
	now = now.Add(lasts)
	remember(2) // a new generation
	want(2)
	now = now.Add(lasts)
	remember(3)
	want(2)
	now = now.Add(lasts)
	c = open(t, d, 0, clock)
	want(1)
	remember(4)
	now = now.Add(3 * lasts)
	c = open(t, d, 0, clock)
	want(0)
	remember(5)
	now = now.Add(-time.Hour * 24 * 365) // somebody set the clock
	c = open(t, d, 0, clock)
	remember(6)
	want(2)
}

// TestNoState: without it, or if it was damaged, receipts begin anew.
func TestNoState(t *testing.T) {
	d := memory()
	c := open(t, d, 0, nil)
	if err := c.Remember(t.Context(), grid.Receipt{Key: grid.Key{1}}); err != nil {
		t.Fatal(err)
	}
	good, err := d.Get(t.Context(), nowKey)
	if err != nil {
		t.Fatal(err)
	}
	good[7] ^= 1
	if err := d.Put(t.Context(), nowKey, good); err != nil {
		t.Fatal(err)
	}
	open(t, d, 0, nil)
	if n := count(t, d); n != 0 {
		t.Errorf("%d receipts are there", n)
	}
}

func TestDamaged(t *testing.T) {
	ctx, d := t.Context(), memory()
	c := open(t, d, 0, nil)
	r := grid.Receipt{Key: grid.Key{1}, Stdout: grid.Output{Size: 5, Inline: []byte("hello")}}
	if err := c.Remember(ctx, r); err != nil {
		t.Fatal(err)
	}
	good, err := d.Get(ctx, storeKey(1, r.Key))
	if err != nil {
		t.Fatal(err)
	}
	absent := func(k grid.Key, what string) {
		t.Helper()
		if got, ok, err := c.Lookup(ctx, k); ok || err != nil {
			t.Errorf("%s: Lookup = %+v, %v, %v; want none", what, got, ok, err)
		}
	}
	for bit := range 8 * len(good) {
		bad := append([]byte(nil), good...)
		bad[bit/8] ^= 1 << (bit % 8)
		d.Put(ctx, storeKey(1, r.Key), bad)
		absent(r.Key, "flipped bit")
	}
	d.Put(ctx, storeKey(1, r.Key), nil)
	absent(r.Key, "empty")
	d.Put(ctx, storeKey(1, grid.Key{2}), good)
	absent(grid.Key{2}, "another's receipt")
}

func FuzzDecode(f *testing.F) {
	b, _ := encode(&grid.Receipt{Key: grid.Key{1}})
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) { decode(b, grid.Key{1}) })
}
