package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
	"github.com/wasmgrid/wasmgrid/store/block"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func disk(t testing.TB) grid.Blocks {
	s, err := block.Open(t.Context(), block.Config{Dir: t.TempDir(), Index: dssync.MutexWrap(datastore.NewMapDatastore())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return block.New(s)
}

func open(t testing.TB, below grid.Blocks, size int64) *Blocks {
	t.Helper()
	b, err := New(below, size)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestContract(t *testing.T) {
	for _, size := range []int64{1, 1000, DefaultSize} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			gridtest.TestBlocks(t, func(t *testing.T) grid.Blocks { return open(t, disk(t), size) })
		})
	}
}

// counted counts what is read from below.
type counted struct {
	grid.Blocks
	gets   atomic.Int64
	before func() // called between a read and its return
}

func (c *counted) Get(ctx context.Context, id cid.Cid) ([]byte, error) {
	c.gets.Add(1)
	data, err := c.Blocks.Get(ctx, id)
	if c.before != nil {
		c.before()
	}
	return data, err
}

func TestHot(t *testing.T) {
	below := &counted{Blocks: disk(t)}
	b := open(t, below, DefaultSize)
	small, large := grid.NewBlock(cid.Raw, make([]byte, MaxBlock)), grid.NewBlock(cid.Raw, make([]byte, MaxBlock+1))
	if err := b.Put(t.Context(), small, large); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		for _, blk := range []grid.Block{small, large} {
			if data, err := b.Get(t.Context(), blk.CID()); err != nil || len(data) != len(blk.Data()) {
				t.Fatalf("Get: %d bytes, %v", len(data), err)
			}
		}
	}
	if n := below.gets.Load(); n != 1+3 {
		t.Errorf("%d reads below, want 1 of the small block and 3 of the large one", n)
	}
	if hits, misses := b.Reads(); hits != 2 || misses != 4 {
		t.Errorf("%d hits and %d misses were counted, want 2 and 4", hits, misses)
	}
	b.Clear()
	if _, err := b.Get(t.Context(), small.CID()); err != nil || below.gets.Load() != 5 {
		t.Errorf("Get after Clear: %v, %d reads below", err, below.gets.Load())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Get(ctx, small.CID()); grid.CodeOf(err) != grid.Canceled {
		t.Errorf("Get of a hot block with a cancelled context: %v", err)
	}
}

func TestBound(t *testing.T) {
	const size = 1 << 20
	b := open(t, disk(t), size)
	for i := range 1000 {
		blk := grid.NewBlock(cid.Raw, fmt.Append(make([]byte, 10_000), i))
		if err := b.Put(t.Context(), blk); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := b.Get(t.Context(), blk.CID()); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.hot.CleanUp()
	if n := b.hot.WeightedSize(); n > size || n < size/2 {
		t.Errorf("%d bytes are kept, the bound is %d", n, size)
	}
}

// TestDeleteWhileReading deletes a block between the reading of it and the keeping.
func TestDeleteWhileReading(t *testing.T) {
	below := &counted{Blocks: disk(t)}
	b := open(t, below, DefaultSize)
	blk := grid.NewBlock(cid.Raw, []byte("x"))
	if err := b.Put(t.Context(), blk); err != nil {
		t.Fatal(err)
	}
	below.before = func() {
		below.before = nil
		if err := b.Delete(t.Context(), blk.CID()); err != nil {
			t.Error(err)
		}
	}
	if _, err := b.Get(t.Context(), blk.CID()); err != nil {
		t.Errorf("the read that came first: %v", err)
	}
	if _, err := b.Get(t.Context(), blk.CID()); !errors.Is(err, grid.NotFound) {
		t.Errorf("the read that came after the delete: %v, want NotFound", err)
	}
}

func TestConcurrent(t *testing.T) {
	b := open(t, disk(t), 64<<10)
	blocks := make([]grid.Block, 64)
	for i := range blocks {
		blocks[i] = grid.NewBlock(cid.Raw, fmt.Append(make([]byte, 4000), i))
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 400 {
				blk := blocks[(i*7+w)%len(blocks)]
				if i%3 == 0 {
					if err := b.Put(t.Context(), blk); err != nil {
						t.Error(err)
					}
				}
				if data, err := b.Get(t.Context(), blk.CID()); err == nil && string(data) != string(blk.Data()) {
					t.Error("another block's data")
				} else if err != nil && !errors.Is(err, grid.NotFound) {
					t.Error(err)
				}
				if i%11 == 0 {
					if err := b.Delete(t.Context(), blk.CID()); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		open(b, nil, DefaultSize)
	}
}
