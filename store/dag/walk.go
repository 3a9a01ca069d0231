package dag

import (
	"context"
	"strings"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/wasmgrid/wasmgrid/grid"
)

// What a walk may hold in memory: of each block that it has visited some 40 to 80 bytes, so 80 MB for a
// file of 1 TiB, and the links that it has still to follow.
const (
	maxWalked  = 1 << 24 // blocks
	maxPending = 1 << 21 // links
)

// Walker visits the blocks of DAGs, each once, however often it is linked to. It remembers between its
// walks, and belongs to one goroutine. What a hostile DAG makes it do is bounded: an error of code Limit
// tells that a DAG has too many blocks.
//
// A link whose CID has the identity hash is followed, but is no block: the CID holds the data itself.
type Walker struct {
	// Repeats has blocks visited as often as they are linked to. Nothing is remembered then.
	Repeats bool

	blocks grid.Blocks
	seen   map[blockKey]bool // the value: everything below it, too
	count  int               // of visits
}

// NewWalker makes a walker over local blocks that has seen nothing.
func NewWalker(blocks grid.Blocks) *Walker {
	return &Walker{blocks: blocks, seen: map[blockKey]bool{}}
}

// blockKey is a CID in few bytes: what kind of CID it is, and the digest.
type blockKey [33]byte

func keyOf(c cid.Cid) (k blockKey, err error) {
	if err := grid.CheckCID(c); err != nil {
		return k, err
	}
	p, hash := c.Prefix(), c.Hash()
	switch {
	case p.Codec == cid.Raw:
	case p.Version == 0:
		k[0] = 1
	case p.Codec == cid.DagProtobuf:
		k[0] = 2
	case p.Codec == cid.DagCBOR:
		k[0] = 3
	default: // visited, but its links are not known
		k[0] = 4
	}
	copy(k[1:], hash[len(hash)-32:])
	return k, nil
}

// Identity is the data that a CID itself holds; ok is false for one that is a hash, as all of ours are.
func Identity(c cid.Cid) (data []byte, ok bool) {
	if !c.Defined() || c.Prefix().MhType != mh.IDENTITY {
		return nil, false
	}
	d, err := mh.Decode(c.Hash())
	if err != nil {
		return nil, false
	}
	return d.Digest, true
}

// Walk visits root and everything below it that it links to, each block once, depth first, links in
// their order: the order in which the exchange sends them. An error of visit, of a block that is not
// here, or of one that is malformed ends it. The data given to visit is read-only.
func Walk(ctx context.Context, blocks grid.Blocks, root cid.Cid, visit func(cid.Cid, []byte) error) error {
	return NewWalker(blocks).All(ctx, root, visit)
}

// All is Walk, but for what this walker has visited before.
func (w *Walker) All(ctx context.Context, root cid.Cid, visit func(cid.Cid, []byte) error) error {
	return w.walk(ctx, root, func(l pbLink, known bool) ([]byte, error) {
		if known && l.CID.Prefix().Codec == cid.Raw {
			return nil, nil
		}
		data, err := w.blocks.Get(ctx, l.CID)
		if err != nil || known {
			return data, err
		}
		return data, visit(l.CID, data)
	})
}

// Whole returns nil if everything below root is here. Leaves are looked for, but not read.
func (w *Walker) Whole(ctx context.Context, root cid.Cid) error {
	return w.walk(ctx, root, func(l pbLink, _ bool) ([]byte, error) {
		if l.CID.Prefix().Codec != cid.Raw {
			return w.blocks.Get(ctx, l.CID)
		}
		here, err := w.blocks.Has(ctx, l.CID)
		if err == nil && !here {
			err = grid.Errorf(grid.NotFound, "block %s is not here", l.CID)
		}
		return nil, err
	})
}

// walk goes depth first from root. read gives the data of a block, nil for one that is not to be gone
// into; known tells that it was visited before, though not with what is below it.
func (w *Walker) walk(ctx context.Context, root cid.Cid, read func(l pbLink, known bool) ([]byte, error)) error {
	stack := []pbLink{{CID: root}}
	for len(stack) > 0 {
		l := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		data, ok := Identity(l.CID)
		if !ok {
			k, err := keyOf(l.CID)
			if err != nil {
				return err
			}
			below, known := w.seen[k]
			if below {
				continue
			}
			if err := w.see(k, true); err != nil {
				return err
			}
			if data, err = read(l, known); err != nil {
				return err
			}
			if data == nil {
				continue
			}
		}
		links, err := sizedLinks(l.CID, data)
		if err != nil {
			return err
		}
		if len(stack)+len(links) > maxPending {
			return grid.Errorf(grid.Limit, "the DAG below %s has more than %d links at once", root, maxPending)
		}
		for i := len(links) - 1; i >= 0; i-- {
			links[i].Name = ""
			stack = append(stack, links[i])
		}
	}
	return nil
}

func (w *Walker) see(k blockKey, below bool) error {
	if w.count++; w.count > maxWalked {
		return grid.Errorf(grid.Limit, "the DAG has more than %d blocks", maxWalked)
	}
	if !w.Repeats {
		w.seen[k] = below
	}
	return nil
}

// Block visits one block, without what is below it, unless it was visited before.
func (w *Walker) Block(ctx context.Context, c cid.Cid, visit func(cid.Cid, []byte) error) error {
	if _, ok := Identity(c); ok {
		return nil
	}
	k, err := keyOf(c)
	if err != nil {
		return err
	}
	if _, known := w.seen[k]; known {
		return nil
	}
	data, err := w.blocks.Get(ctx, c)
	if err != nil {
		return err
	}
	if err := w.see(k, false); err != nil {
		return err
	}
	return visit(c, data)
}

// Entity visits the blocks that it takes to read a file, or the given part of it, or to list a folder.
// Of what is neither it visits the one block.
func (w *Walker) Entity(ctx context.Context, c cid.Cid, part *grid.ByteRange, visit func(cid.Cid, []byte) error) error {
	f := New(w.blocks)
	n, err := f.load(ctx, c)
	switch {
	case grid.CodeOf(err) == grid.Unsupported || grid.CodeOf(err) == grid.Invalid || err == nil && n.kind() == grid.KindSymlink:
		return w.Block(ctx, c, visit)
	case err != nil:
		return err
	case n.typ == typeDirectory:
		return w.Block(ctx, c, visit)
	case n.typ == typeShard:
		return w.shards(ctx, f, n, 0, map[cid.Cid]struct{}{}, visit)
	case part == nil:
		return w.All(ctx, c, visit)
	}
	from, to, err := inFile(n, part)
	if err != nil {
		return err
	}
	if from >= to {
		return w.Block(ctx, c, visit)
	}
	return w.span(ctx, f, n, from, to, 0, visit)
}

// inFile is a range as offsets in a file, the last one excluded, cut to what there is. The error tells that
// all of it lies behind the file's end.
func inFile(n *node, part *grid.ByteRange) (from, to int64, err error) {
	size := int64(n.size)
	from, to = part.From, part.To
	if from < 0 {
		from = max(0, from+size)
	}
	if to < 0 {
		to += size
	}
	if from >= size && size > 0 {
		return 0, 0, grid.Errorf(grid.Invalid, "the range begins at byte %d of a file of %d", from, size)
	}
	return from, min(to, size-1) + 1, nil
}

// span visits the nodes of a file that hold some of its bytes. Only at the edges of the range is a node gone
// into by halves; what lies inside is visited whole.
func (w *Walker) span(ctx context.Context, f *Files, n *node, from, to int64, depth int, visit func(cid.Cid, []byte) error) error {
	if from <= 0 && to >= int64(n.size) {
		return w.All(ctx, n.cid, visit)
	}
	if depth == maxDepth {
		return grid.Errorf(grid.Invalid, "the file's tree is more than %d levels deep at %s", maxDepth, n.cid)
	}
	if err := w.Block(ctx, n.cid, visit); err != nil {
		return err
	}
	at := int64(len(n.unixfs.data))
	for i, l := range n.links {
		size := int64(n.sizes[i])
		if at+size > from && at < to {
			child, err := f.load(ctx, l.CID)
			if err != nil {
				return err
			}
			if child.kind() != grid.KindFile || child.size != n.sizes[i] {
				return grid.Errorf(grid.Invalid, "%s is not the %d bytes of file that %s says it is", l.CID, size, n.cid)
			}
			if err := w.span(ctx, f, child, from-at, to-at, depth+1, visit); err != nil {
				return err
			}
		}
		at += size
	}
	return nil
}

// shards visits the nodes of a sharded folder.
func (w *Walker) shards(ctx context.Context, f *Files, n *node, level int, done map[cid.Cid]struct{}, visit func(cid.Cid, []byte) error) error {
	if _, ok := done[n.cid]; ok && !w.Repeats {
		return nil
	}
	if done[n.cid] = struct{}{}; level == shardDepth || len(done) > maxEntries {
		return grid.Errorf(grid.Invalid, "the folder is sharded too deeply at %s", n.cid)
	}
	if err := w.Block(ctx, n.cid, visit); err != nil {
		return err
	}
	for _, l := range n.links {
		if len(l.Name) != shardPrefix {
			continue
		}
		sub, err := f.loadShard(ctx, l.CID, nil)
		if err != nil {
			return err
		}
		if err := w.shards(ctx, f, sub, level+1, done, visit); err != nil {
			return err
		}
	}
	return nil
}

// Find follows a selection's path. It returns what that leads to, which is here, and the blocks on the way
// there, in their order. A range that lies behind the end of its file is an error.
func Find(ctx context.Context, blocks grid.Blocks, s grid.Selection) (end cid.Cid, way []cid.Cid, err error) {
	t := &trail{Blocks: blocks}
	f := New(t)
	switch s.Scope {
	case "", grid.ScopeAll, grid.ScopeEntity, grid.ScopeBlock:
	default:
		return cid.Undef, nil, grid.Errorf(grid.Invalid, "scope %q: want all, entity or block", s.Scope)
	}
	data, ok := Identity(s.Root)
	if end = s.Root; !ok || strings.Trim(s.Path, "/") != "" {
		if end, err = f.Resolve(ctx, s.Root, s.Path); err != nil {
			return cid.Undef, nil, err
		}
		way = t.cids
		if data, err = blocks.Get(ctx, end); err != nil {
			return cid.Undef, nil, err
		}
	}
	if s.Bytes != nil {
		if n, err := parse(end, data); err == nil && n.kind() == grid.KindFile {
			if _, _, err := inFile(n, s.Bytes); err != nil {
				return cid.Undef, nil, err
			}
		}
	}
	return end, way, nil
}

// trail notes which blocks are read.
type trail struct {
	grid.Blocks
	cids []cid.Cid
}

func (t *trail) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	t.cids = append(t.cids, c)
	return t.Blocks.Get(ctx, c)
}
