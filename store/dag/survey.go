package dag

import (
	"context"
	"errors"
	"path"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

var _ grid.Surveyor = (*Files)(nil)

// Survey measures what is here of a DAG.
func (f *Files) Survey(ctx context.Context, c cid.Cid) (grid.Extent, error) {
	x := grid.Extent{CID: grid.Link{Cid: c}, Size: -1}
	if _, err := f.blocks.Get(ctx, c); err != nil {
		return x, wrap(err, "survey %s", c)
	}
	err := NewWalker(f.blocks).walk(ctx, c, func(l pbLink, _ bool) ([]byte, error) {
		data, size, here, err := measure(ctx, f.blocks, l)
		switch {
		case err != nil:
		case here:
			x.Blocks++
			x.Bytes += size
		default:
			x.Missing++
		}
		return data, err
	})
	if err != nil {
		return x, wrap(err, "survey %s", c)
	}
	x.Local = x.Missing == 0
	info, err := f.Stat(ctx, c)
	switch {
	case err == nil:
		x.Kind, x.Size, x.Target = info.Kind, info.Size, info.Target
	case errors.Is(err, grid.NotFound): // of a folder below
		x.Kind = grid.KindDir
	case !errors.Is(err, grid.Unsupported) && !errors.Is(err, grid.Invalid):
		return x, err
	}
	return x, nil
}

// measure reports whether a block is here, and its size. A leaf whose size was told is not read; of others the
// data is given.
func measure(ctx context.Context, blocks grid.Blocks, l pbLink) (data []byte, size int64, here bool, err error) {
	if size = int64(l.Size); l.CID.Prefix().Codec == cid.Raw && size > 0 && size <= grid.MaxBlock {
		here, err = blocks.Has(ctx, l.CID)
		return nil, size, here, err
	}
	data, err = blocks.Get(ctx, l.CID)
	if errors.Is(err, grid.NotFound) {
		return nil, 0, false, nil
	}
	return data, int64(len(data)), err == nil, err
}

// errEnough ends a walk that has found what it looked for.
var errEnough = errors.New("enough")

// Missing looks for everything below root and lists what is not here, at most most of it, damaged blocks
// among it; bytes is what the blocks that it came by have. Leaves are not read: the size of one is what the
// block that links to it says.
func Missing(ctx context.Context, blocks grid.Blocks, root cid.Cid, most int) (missing []cid.Cid, bytes int64, err error) {
	err = NewWalker(blocks).walk(ctx, root, func(l pbLink, _ bool) ([]byte, error) {
		data, size, here, err := measure(ctx, blocks, l)
		if errors.Is(err, grid.Corrupt) {
			err = nil
		}
		if err == nil && !here {
			if missing = append(missing, l.CID); len(missing) == most {
				return nil, errEnough
			}
		}
		bytes += size
		return data, err
	})
	if err == errEnough {
		err = nil
	}
	return missing, bytes, err
}

// maxCompared bounds how many folders a comparison reads: a small DAG can be a huge tree.
const maxCompared = 1 << 20

// Diff compares two DAGs.
func (f *Files) Diff(ctx context.Context, was, is cid.Cid, each func(grid.Change) error) error {
	d := &differ{f: f, each: each}
	if err := d.compare(ctx, "", was, is, 0); err != nil {
		if d.failed {
			return err // of each
		}
		return wrap(err, "compare %s with %s", was, is)
	}
	return nil
}

type differ struct {
	f       *Files
	each    func(grid.Change) error
	folders int
	failed  bool
}

func (d *differ) tell(c grid.Change) error {
	err := d.each(c)
	d.failed = err != nil
	return err
}

// look is what a CID names; nil for what is no UnixFS node.
func (d *differ) look(ctx context.Context, c cid.Cid) (*node, error) {
	if p := c.Prefix().Codec; p != cid.Raw && p != cid.DagProtobuf {
		return nil, nil
	}
	if c.Prefix().Codec == cid.Raw { // a file, whatever is in it
		return &node{cid: c, raw: true, unixfs: unixfs{typ: typeFile}}, nil
	}
	n, err := d.f.load(ctx, c)
	if errors.Is(err, grid.Invalid) || errors.Is(err, grid.Unsupported) {
		return nil, nil
	}
	return n, err
}

func kindOf(n *node) grid.FileKind {
	if n == nil {
		return ""
	}
	return n.kind()
}

// compare tells how the nodes at a path differ.
func (d *differ) compare(ctx context.Context, at string, was, is cid.Cid, depth int) error {
	if was.Equals(is) {
		return nil
	}
	a, err := d.look(ctx, was)
	if err != nil {
		return err
	}
	b, err := d.look(ctx, is)
	if err != nil {
		return err
	}
	if kindOf(a) != grid.KindDir || kindOf(b) != grid.KindDir {
		return d.tell(grid.Change{
			Path: at, Was: grid.Link{Cid: was}, WasKind: kindOf(a), Is: grid.Link{Cid: is}, IsKind: kindOf(b),
		})
	}
	if d.folders++; d.folders > maxCompared || depth > maxPath/2 {
		return grid.Errorf(grid.Limit, "the folders are too large to be compared, at %q", at)
	}
	before, err := d.f.entries(ctx, a)
	if err != nil {
		return err
	}
	after, err := d.f.entries(ctx, b)
	if err != nil {
		return err
	}
	for len(before) > 0 || len(after) > 0 {
		order := 0
		switch {
		case len(before) == 0:
			order = 1
		case len(after) == 0:
			order = -1
		default:
			order = strings.Compare(before[0].Name, after[0].Name)
		}
		switch {
		case order < 0:
			n, err := d.look(ctx, before[0].CID)
			if err == nil {
				err = d.tell(grid.Change{Path: path.Join(at, before[0].Name), Was: grid.Link{Cid: before[0].CID}, WasKind: kindOf(n)})
			}
			if err != nil {
				return err
			}
			before = before[1:]
		case order > 0:
			n, err := d.look(ctx, after[0].CID)
			if err == nil {
				err = d.tell(grid.Change{Path: path.Join(at, after[0].Name), Is: grid.Link{Cid: after[0].CID}, IsKind: kindOf(n)})
			}
			if err != nil {
				return err
			}
			after = after[1:]
		default:
			if err := d.compare(ctx, path.Join(at, before[0].Name), before[0].CID, after[0].CID, depth+1); err != nil {
				return err
			}
			before, after = before[1:], after[1:]
		}
	}
	return nil
}
