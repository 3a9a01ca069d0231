package block

import (
	"bytes"
	"context"
	"errors"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"

	"github.com/wasmgrid/wasmgrid/grid"
)

// blocks is grid.Blocks over a datastore.
type blocks struct{ d datastore.Batching }

// New is the grid.Blocks contract over d, whose keys become multihashes in base32. d must be safe for
// concurrent use, must not keep the values it is given, as datastores on disk do not, and stays the
// caller's to close.
func New(d datastore.Batching) grid.Blocks { return blocks{d} }

func (s blocks) Put(ctx context.Context, bs ...grid.Block) error {
	if segments, ok := s.d.(*Segments); ok {
		_, err := segments.Add(ctx, bs...)
		return err
	}
	for _, b := range bs {
		if !b.CID().Defined() {
			return grid.Errorf(grid.Invalid, "store: put: an empty Block")
		}
	}
	for _, b := range bs {
		if err := s.clear(ctx, b); err != nil {
			return err
		}
	}
	switch len(bs) {
	case 0:
		return nil
	case 1:
		if err := s.d.Put(ctx, encodeKey(bs[0].CID().Hash()), bs[0].Data()); err != nil {
			return fail("put", bs[0].CID(), err)
		}
		return nil
	}
	batch, err := s.d.Batch(ctx)
	if err != nil {
		return fail("put", bs[0].CID(), err)
	}
	for _, b := range bs {
		if err := batch.Put(ctx, encodeKey(b.CID().Hash()), b.Data()); err != nil {
			return fail("put", b.CID(), err)
		}
	}
	if err := batch.Commit(ctx); err != nil {
		return fail("put", bs[0].CID(), err)
	}
	return nil
}

// clear makes way for a block where the disk has changed what is kept of it, so that putting it heals it.
func (s blocks) clear(ctx context.Context, b grid.Block) error {
	key := encodeKey(b.CID().Hash())
	if has, err := s.d.Has(ctx, key); err != nil || !has {
		return err
	}
	if data, err := s.d.Get(ctx, key); err == nil && bytes.Equal(data, b.Data()) {
		return nil
	}
	if err := s.d.Delete(ctx, key); err != nil {
		return fail("put", b.CID(), err)
	}
	return nil
}

func (s blocks) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	if err := grid.CheckCID(c); err != nil {
		return nil, fail("get", c, err)
	}
	data, err := s.d.Get(ctx, encodeKey(c.Hash()))
	if err != nil {
		return nil, fail("get", c, err)
	}
	if _, err := grid.VerifyBlock(c, data); err != nil {
		return nil, damaged("get", c, err)
	}
	return data, nil
}

func (s blocks) Has(ctx context.Context, c cid.Cid) (bool, error) {
	if err := grid.CheckCID(c); err != nil {
		return false, fail("look for", c, err)
	}
	ok, err := s.d.Has(ctx, encodeKey(c.Hash()))
	if err != nil {
		return false, fail("look for", c, err)
	}
	return ok, nil
}

// Size tells how many bytes a block has, without reading it.
func (s blocks) Size(ctx context.Context, c cid.Cid) (int, error) {
	if err := grid.CheckCID(c); err != nil {
		return 0, fail("look for", c, err)
	}
	n, err := s.d.GetSize(ctx, encodeKey(c.Hash()))
	if err != nil {
		return 0, fail("look for", c, err)
	}
	return n, nil
}

func (s blocks) Delete(ctx context.Context, c cid.Cid) error {
	if err := grid.CheckCID(c); err != nil {
		return fail("delete", c, err)
	}
	if err := s.d.Delete(ctx, encodeKey(c.Hash())); err != nil {
		return fail("delete", c, err)
	}
	return nil
}

func (s blocks) Sync(ctx context.Context) error {
	if err := s.d.Sync(ctx, datastore.NewKey("/")); err != nil {
		return grid.Errorf(codeOr(err, grid.Internal), "store: sync: %w", err)
	}
	return nil
}

func fail(doing string, c cid.Cid, err error) error {
	if errors.Is(err, datastore.ErrNotFound) {
		return grid.Errorf(grid.NotFound, "store: %s %s: the block is not here", doing, c)
	}
	if grid.CodeOf(err) == grid.Corrupt {
		return damaged(doing, c, err)
	}
	return grid.Errorf(codeOr(err, grid.Internal), "store: %s %s: %w", doing, c, err)
}

func damaged(doing string, c cid.Cid, err error) error {
	return grid.Errorf(grid.Corrupt, "store: %s %s: %w", doing, c, err).
		Hint("the disk has changed it: check the disk, and fetch or add the data again")
}

func codeOr(err error, other grid.Code) grid.Code {
	if c := grid.CodeOf(err); c != grid.Unknown {
		return c
	}
	return other
}
