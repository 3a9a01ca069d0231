package car

import (
	"bytes"
	"context"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
	"github.com/wasmgrid/wasmgrid/store/dag"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// blockMap is grid.Blocks in memory. It counts what is durable.
type blockMap struct {
	mu    sync.Mutex
	data  map[string][]byte
	dirty int // blocks put since the last Sync
}

func newBlocks() *blockMap { return &blockMap{data: map[string][]byte{}} }

func (b *blockMap) Put(ctx context.Context, bs ...grid.Block) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, x := range bs {
		b.data[string(x.CID().Hash())] = bytes.Clone(x.Data())
		b.dirty++
	}
	return ctx.Err()
}

func (b *blockMap) Get(_ context.Context, c cid.Cid) ([]byte, error) {
	if err := grid.CheckCID(c); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if data, ok := b.data[string(c.Hash())]; ok {
		return data, nil
	}
	return nil, grid.Errorf(grid.NotFound, "block %s is not here", c)
}

func (b *blockMap) Has(_ context.Context, c cid.Cid) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.data[string(c.Hash())]
	return ok, nil
}

func (b *blockMap) Delete(_ context.Context, c cid.Cid) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.data, string(c.Hash()))
	return nil
}

func (b *blockMap) Sync(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dirty = 0
	return nil
}

func TestArchive(t *testing.T) {
	gridtest.TestArchive(t, func(t *testing.T) gridtest.ArchiveNode {
		blocks := newBlocks()
		return gridtest.ArchiveNode{Blocks: blocks, Files: dag.New(blocks), Archive: New(blocks)}
	})
}
