// Package cache keeps small blocks that are read often in memory: the nodes of folders and files, and small
// files. What is in it was verified when it was read from the store below, and is not verified again.
//
// It holds only what has been read, so that importing much does not push out what is hot, and admits by how
// often a block is asked for (W-TinyLFU). Large blocks are left to the system's page cache, whether a block
// is here to the store's index: to keep either in memory was not measurably faster.
package cache

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/ipfs/go-cid"
	"github.com/maypok86/otter/v2"

	"github.com/wasmgrid/wasmgrid/grid"
)

const (
	// MaxBlock is the largest block that is kept, in bytes.
	MaxBlock = 64 << 10
	// DefaultSize is a good size for a node that stays, in bytes.
	DefaultSize = 64 << 20

	overhead = 200 // bytes that an entry takes besides its block, about
)

// Blocks is grid.Blocks with a memory. Whoever deletes blocks from the store below without it calls Clear
// afterwards.
type Blocks struct {
	grid.Blocks
	hot *otter.Cache[string, []byte] // by multihash

	hits, misses atomic.Uint64

	mu    sync.Mutex // between a delete and what was read before it
	epoch uint64     // changes with each delete
}

// New puts a cache of at most so many bytes before a store. It has no goroutines and need not be closed.
func New(blocks grid.Blocks, size int64) (*Blocks, error) {
	hot, err := otter.New(&otter.Options[string, []byte]{
		MaximumWeight: uint64(max(size, 0)),
		Weigher:       func(_ string, data []byte) uint32 { return uint32(len(data) + overhead) },
		Executor:      func(f func()) { f() },
		Logger:        &otter.NoopLogger{},
	})
	if err != nil {
		return nil, grid.Errorf(grid.Invalid, "store: a cache of %d bytes: %w", size, err)
	}
	return &Blocks{Blocks: blocks, hot: hot}, nil
}

// Get reads a block, from memory if it is there.
func (b *Blocks) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return b.Blocks.Get(ctx, c) // has its own way to say so
	}
	key := ""
	if grid.CheckCID(c) == nil {
		key = string(c.Hash())
		if data, ok := b.hot.GetIfPresent(key); ok {
			b.hits.Add(1)
			return data, nil
		}
	}
	b.misses.Add(1)
	b.mu.Lock()
	epoch := b.epoch
	b.mu.Unlock()
	data, err := b.Blocks.Get(ctx, c)
	if err != nil || len(data) > MaxBlock {
		return data, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.epoch == epoch { // else it may have been deleted since
		b.hot.Set(key, data)
	}
	return data, nil
}

// Reads counts the blocks that were found in memory, and those that had to be read from below.
func (b *Blocks) Reads() (hits, misses uint64) { return b.hits.Load(), b.misses.Load() }

// Delete deletes a block, here and below.
func (b *Blocks) Delete(ctx context.Context, c cid.Cid) error {
	err := b.Blocks.Delete(ctx, c)
	b.forget(func() { b.hot.Invalidate(string(c.Hash())) }, c.Defined())
	return err
}

// Clear forgets everything that is in memory.
func (b *Blocks) Clear() { b.forget(b.hot.InvalidateAll, true) }

func (b *Blocks) forget(drop func(), ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.epoch++
	if ok {
		drop()
	}
}
