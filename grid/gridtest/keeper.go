package gridtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Kept is a store and its keeper, with a way to have everything collected that is not held.
type Kept struct {
	Blocks  grid.Blocks
	Keeper  grid.Keeper
	Collect func() error
}

// TestKeeper checks the contract of grid.Keeper. open gives a new, empty store and arranges for it to be closed.
func TestKeeper(t *testing.T, open func(t *testing.T) Kept) {
	ctx := context.Background()
	raw := func(text string) grid.Block { return grid.NewBlock(cid.Raw, []byte(text)) }
	link := func(t *testing.T, to ...grid.Block) grid.Block {
		t.Helper()
		var links []grid.Link
		for _, b := range to {
			links = append(links, grid.Link{Cid: b.CID()})
		}
		b, err := grid.EncodeBlock(links)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	put := func(t *testing.T, k Kept, bs ...grid.Block) {
		t.Helper()
		if err := k.Blocks.Put(ctx, bs...); err != nil {
			t.Fatal(err)
		}
	}
	collect := func(t *testing.T, k Kept) {
		t.Helper()
		if err := k.Collect(); err != nil {
			t.Fatal(err)
		}
	}
	// stay reports what of some blocks a collection leaves. It looks only afterwards: a look is a use.
	stay := func(t *testing.T, k Kept, want bool, bs ...grid.Block) {
		t.Helper()
		for _, b := range bs {
			if _, err := k.Blocks.Get(ctx, b.CID()); want && err != nil || !want && !errors.Is(err, grid.NotFound) {
				t.Errorf("block %.20q: %v; should it be here: %v", b.Data(), err, want)
			}
		}
	}

	t.Run("nothing held", func(t *testing.T) {
		k := open(t)
		put(t, k, raw("a"), raw("b"))
		collect(t, k)
		stay(t, k, false, raw("a"), raw("b"))
	})

	t.Run("roots", func(t *testing.T) {
		k := open(t)
		mid := link(t, raw("below"), raw("not here"))
		top := link(t, mid)
		put(t, k, raw("below"), raw("beside"), mid, top)
		first, second := k.Keeper.Hold(top.CID()), k.Keeper.Hold(top.CID(), raw("not here").CID())
		first()
		first() // again: no harm to the other
		collect(t, k)
		stay(t, k, true, top, mid, raw("below"))
		stay(t, k, false, raw("beside"))
		second()
		collect(t, k)
		stay(t, k, false, top, mid, raw("below"))
	})

	// However long roots are held, what else is used makes room.
	t.Run("roots alone", func(t *testing.T) {
		k := open(t)
		put(t, k, raw("read"))
		release := k.Keeper.Hold(raw("other").CID())
		defer release()
		put(t, k, raw("new"), raw("other"))
		stay(t, k, true, raw("read"))
		if ok, err := k.Blocks.Has(ctx, raw("new").CID()); !ok || err != nil {
			t.Fatal(err)
		}
		collect(t, k)
		stay(t, k, true, raw("other"))
		stay(t, k, false, raw("new"), raw("read"))
	})

	t.Run("used since", func(t *testing.T) {
		k := open(t)
		put(t, k, raw("again"), raw("read"), raw("seen"), raw("old"))
		release := k.Keeper.HoldUsed()
		put(t, k, raw("new"), raw("again"))
		stay(t, k, true, raw("read"))
		if ok, err := k.Blocks.Has(ctx, raw("seen").CID()); !ok || err != nil {
			t.Fatal(err)
		}
		for range 2 {
			collect(t, k)
		}
		stay(t, k, true, raw("new"), raw("again"), raw("read"), raw("seen"))
		stay(t, k, false, raw("old"))
		release()
		collect(t, k)
		stay(t, k, false, raw("new"), raw("again"), raw("read"), raw("seen"))
	})

	t.Run("concurrent", func(t *testing.T) {
		k := open(t)
		var users, collector sync.WaitGroup
		done := make(chan struct{})
		collector.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					if err := k.Collect(); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
		for w := range 4 {
			users.Go(func() {
				for i := range 50 {
					release := k.Keeper.HoldUsed()
					own, shared := raw(fmt.Sprint(w, "/", i)), raw(fmt.Sprint(i%7))
					if err := k.Blocks.Put(ctx, own, shared); err != nil {
						t.Error(err)
					}
					for _, b := range []grid.Block{own, shared} {
						if _, err := k.Blocks.Get(ctx, b.CID()); err != nil {
							t.Errorf("held, and gone: %v", err)
						}
					}
					release()
				}
			})
		}
		users.Wait()
		close(done)
		collector.Wait()
	})
}
