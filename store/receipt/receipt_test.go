package receipt

import (
	"testing"

	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
)

func memory() datastore.Batching { return dssync.MutexWrap(datastore.NewMapDatastore()) }

func TestContract(t *testing.T) {
	gridtest.TestCache(t, func(t *testing.T) grid.Cache { return New(memory()) })
}

func TestDamaged(t *testing.T) {
	ctx, d := t.Context(), memory()
	c := New(d)
	r := grid.Receipt{Key: grid.Key{1}, Stdout: grid.Output{Size: 5, Inline: []byte("hello")}}
	if err := c.Remember(ctx, r); err != nil {
		t.Fatal(err)
	}
	good, err := d.Get(ctx, storeKey(r.Key))
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
		d.Put(ctx, storeKey(r.Key), bad)
		absent(r.Key, "flipped bit")
	}
	d.Put(ctx, storeKey(r.Key), nil)
	absent(r.Key, "empty")
	d.Put(ctx, storeKey(grid.Key{2}), good)
	absent(grid.Key{2}, "another's receipt")
}

func FuzzDecode(f *testing.F) {
	b, _ := encode(&grid.Receipt{Key: grid.Key{1}})
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) { decode(b, grid.Key{1}) })
}
