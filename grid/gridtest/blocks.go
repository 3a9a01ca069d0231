package gridtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestBlocks checks the contract of grid.Blocks. open gives a new, empty store and arranges for it to be
// closed.
func TestBlocks(t *testing.T, open func(t *testing.T) grid.Blocks) {
	ctx := context.Background()
	code := func(t *testing.T, err error, want grid.Code) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("error %v, want %v", err, want)
		}
	}
	get := func(t *testing.T, s grid.Blocks, b grid.Block) {
		t.Helper()
		if data, err := s.Get(ctx, b.CID()); err != nil || !bytes.Equal(data, b.Data()) {
			t.Errorf("Get(%s) = %d bytes, %v; want %d bytes", b.CID(), len(data), err, len(b.Data()))
		}
		if ok, err := s.Has(ctx, b.CID()); !ok || err != nil {
			t.Errorf("Has(%s) = %v, %v; want true", b.CID(), ok, err)
		}
	}

	t.Run("sizes", func(t *testing.T) {
		s := open(t)
		var all []grid.Block
		for _, n := range []int{0, 1, 31, 4096, 64<<10 - 1, 64 << 10, 64<<10 + 1, 256 << 10, 1 << 20, grid.MaxBlock} {
			all = append(all, grid.NewBlock(cid.Raw, bytes.Repeat([]byte{byte(n), byte(n >> 8)}, n/2+1)[:n]))
		}
		if err := s.Put(ctx, all[0]); err != nil {
			t.Fatal(err)
		}
		if err := s.Put(ctx, all[1:]...); err != nil {
			t.Fatal(err)
		}
		for _, b := range all {
			get(t, s, b)
		}
		if err := s.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		for _, b := range all {
			get(t, s, b)
		}
	})

	t.Run("memory is the caller's again", func(t *testing.T) {
		s := open(t)
		data := make([]byte, 300<<10)
		var all []grid.Block
		for _, n := range []int{100, 300 << 10} {
			for i := range 3 {
				data[0] = byte(i)
				b := grid.NewBlock(cid.Raw, data[:n])
				all = append(all, grid.NewBlock(cid.Raw, bytes.Clone(data[:n])))
				put := []grid.Block{b}
				if i == 2 {
					put = append(put, b)
				}
				if err := s.Put(ctx, put...); err != nil {
					t.Fatal(err)
				}
			}
		}
		clear(data)
		for _, b := range all {
			get(t, s, b)
		}
	})

	t.Run("absent", func(t *testing.T) {
		s := open(t)
		b := grid.NewBlock(cid.Raw, []byte("nowhere"))
		_, err := s.Get(ctx, b.CID())
		code(t, err, grid.NotFound)
		if ok, err := s.Has(ctx, b.CID()); ok || err != nil {
			t.Errorf("Has = %v, %v; want false", ok, err)
		}
		if err := s.Delete(ctx, b.CID()); err != nil {
			t.Errorf("Delete of what is not here: %v", err)
		}
		if err := s.Put(ctx); err != nil {
			t.Errorf("Put of nothing: %v", err)
		}
	})

	t.Run("bad CIDs", func(t *testing.T) {
		s := open(t)
		sum, err := mh.Sum([]byte("x"), mh.IDENTITY, -1)
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			c    cid.Cid
			want grid.Code
		}{{cid.Undef, grid.Invalid}, {cid.NewCidV1(cid.Raw, sum), grid.Unsupported}} {
			_, err := s.Get(ctx, tt.c)
			code(t, err, tt.want)
			_, err = s.Has(ctx, tt.c)
			code(t, err, tt.want)
			code(t, s.Delete(ctx, tt.c), tt.want)
		}
		if err := s.Put(ctx, grid.Block{}); err == nil {
			t.Error("Put of the zero Block succeeded")
		}
	})

	t.Run("delete", func(t *testing.T) {
		s := open(t)
		a, b := grid.NewBlock(cid.Raw, []byte("a")), grid.NewBlock(cid.Raw, []byte("b"))
		for range 3 { // again and again, with and without a Sync in between
			if err := s.Put(ctx, a, b, a); err != nil {
				t.Fatal(err)
			}
			get(t, s, a)
			if err := s.Delete(ctx, a.CID()); err != nil {
				t.Fatal(err)
			}
			_, err := s.Get(ctx, a.CID())
			code(t, err, grid.NotFound)
			get(t, s, b)
			if err := s.Sync(ctx); err != nil {
				t.Fatal(err)
			}
			if ok, _ := s.Has(ctx, a.CID()); ok {
				t.Error("a deleted block is here after Sync")
			}
		}
	})

	t.Run("one hash, many codecs", func(t *testing.T) {
		s := open(t)
		b := grid.NewBlock(cid.DagCBOR, []byte{0xa0})
		if err := s.Put(ctx, b); err != nil {
			t.Fatal(err)
		}
		for _, c := range []cid.Cid{cid.NewCidV1(cid.Raw, b.CID().Hash()), cid.NewCidV0(b.CID().Hash())} {
			if data, err := s.Get(ctx, c); err != nil || !bytes.Equal(data, b.Data()) {
				t.Errorf("Get(%s) = %x, %v", c, data, err)
			}
		}
	})

	t.Run("cancelled", func(t *testing.T) {
		s := open(t)
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		if err := s.Put(ctx, grid.NewBlock(cid.Raw, []byte("a"))); grid.CodeOf(err) != grid.Canceled {
			t.Errorf("Put with a cancelled context: %v", err)
		}
	})

	t.Run("concurrent", func(t *testing.T) {
		s := open(t)
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				for i := range 64 {
					own := grid.NewBlock(cid.Raw, fmt.Appendf(nil, "%d/%d", w, i))
					shared := grid.NewBlock(cid.Raw, fmt.Appendf(nil, "%d", i))
					if err := s.Put(ctx, own, shared); err != nil {
						t.Error(err)
						return
					}
					get(t, s, own)
					get(t, s, shared)
					if i%16 == w {
						if err := s.Sync(ctx); err != nil {
							t.Error(err)
						}
					}
					if err := s.Delete(ctx, own.CID()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		for i := range 64 {
			get(t, s, grid.NewBlock(cid.Raw, fmt.Appendf(nil, "%d", i)))
		}
	})
}
