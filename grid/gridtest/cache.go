package gridtest

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestCache checks the contract of grid.Cache. open gives a new, empty cache.
func TestCache(t *testing.T, open func(t *testing.T) grid.Cache) {
	ctx := context.Background()
	node := peer.ID("\x12\x20" + strings.Repeat("n", 32)) // any multihash
	receipt := func(n int) grid.Receipt {
		return grid.Receipt{
			Key: grid.Key{byte(n), byte(n >> 8)}, Node: node, Exit: uint32(n),
			Stdout: grid.Output{Size: 2, Inline: []byte("ok")},
			Stderr: grid.Output{Size: 1 << 20, CID: grid.Link{Cid: grid.NewBlock(cid.Raw, fmt.Append(nil, n)).CID()}},
			Memory: 1 << 16, Started: 1, Phases: grid.Phases{Run: time.Millisecond}, Seal: grid.Seal{Sig: []byte{1, 2, 3}},
		}
	}
	want := func(t *testing.T, c grid.Cache, r grid.Receipt) {
		t.Helper()
		if got, ok, err := c.Lookup(ctx, r.Key); !ok || err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("Lookup = %+v, %v, %v; want %+v", got, ok, err, r)
		}
	}

	t.Run("remember", func(t *testing.T) {
		c := open(t)
		if _, ok, err := c.Lookup(ctx, grid.Key{9}); ok || err != nil {
			t.Errorf("Lookup of nothing = %v, %v", ok, err)
		}
		if err := c.Remember(ctx); err != nil {
			t.Errorf("Remember of nothing: %v", err)
		}
		var all []grid.Receipt
		for n := range 100 {
			all = append(all, receipt(n))
		}
		if err := c.Remember(ctx, all...); err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			want(t, c, r)
		}
	})

	t.Run("failure", func(t *testing.T) {
		c := open(t)
		r := receipt(1)
		r.Fault = &grid.Fault{Code: grid.Trap, Message: "unreachable", Stack: "main"}
		if err := c.Remember(ctx, r); err != nil {
			t.Fatal(err)
		}
		want(t, c, r)
		again := receipt(1)
		if err := c.Remember(ctx, again); err != nil {
			t.Fatal(err)
		}
		want(t, c, again)
	})

	t.Run("concurrent", func(t *testing.T) {
		c := open(t)
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for n := range 50 {
					r := receipt(100*w + n)
					if err := c.Remember(ctx, r, receipt(1000)); err != nil {
						t.Error(err)
					}
					want(t, c, r)
				}
			})
		}
		wg.Wait()
	})
}
