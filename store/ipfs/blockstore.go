package ipfs

import (
	"context"
	"errors"
	"log/slog"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"

	"github.com/wasmgrid/wasmgrid/grid"
)

// blockstore shows grid.Blocks to bitswap. What cannot be read, for whatever reason, is not here for IPFS.
type blockstore struct {
	blocks grid.Blocks
	log    *slog.Logger
}

// sizer is what some block stores can do besides.
type sizer interface {
	Size(ctx context.Context, c cid.Cid) (int, error)
}

// absent is the error that bitswap knows.
func (s blockstore) absent(c cid.Cid, err error) error {
	if code := grid.CodeOf(err); code == grid.Corrupt || code == grid.Internal {
		s.log.Warn("a block cannot be given to IPFS", "cid", c, "err", err)
	}
	return ipld.ErrNotFound{Cid: c}
}

func (s blockstore) Has(ctx context.Context, c cid.Cid) (bool, error) {
	if grid.CheckCID(c) != nil {
		return false, nil
	}
	return s.blocks.Has(ctx, c)
}

func (s blockstore) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	data, err := s.blocks.Get(ctx, c)
	if err != nil {
		return nil, s.absent(c, err)
	}
	return blocks.NewBlockWithCid(data, c) // without hashing it once more
}

// GetSize never says 0, which bitswap takes for a block that is not here, although there is an empty one.
func (s blockstore) GetSize(ctx context.Context, c cid.Cid) (n int, err error) {
	if err := grid.CheckCID(c); err != nil {
		return 0, s.absent(c, err)
	}
	if with, ok := s.blocks.(sizer); ok {
		n, err = with.Size(ctx, c)
	} else {
		var data []byte
		data, err = s.blocks.Get(ctx, c)
		n = len(data)
	}
	if err != nil {
		return 0, s.absent(c, err)
	}
	return max(n, 1), nil
}

func (s blockstore) Put(ctx context.Context, b blocks.Block) error {
	verified, err := grid.VerifyBlock(b.Cid(), b.RawData())
	if err != nil {
		return err
	}
	return s.blocks.Put(ctx, verified)
}

func (s blockstore) PutMany(ctx context.Context, bs []blocks.Block) error {
	for _, b := range bs {
		if err := s.Put(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

func (s blockstore) DeleteBlock(context.Context, cid.Cid) error {
	return errors.New("ipfs: bitswap does not delete")
}

func (s blockstore) AllKeysChan(context.Context) (<-chan cid.Cid, error) {
	return nil, errors.New("ipfs: the store is not listed")
}
