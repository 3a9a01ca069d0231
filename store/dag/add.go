package dag

import (
	"bytes"
	"context"
	"io"
	"runtime"
	"sync"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"github.com/wasmgrid/wasmgrid/grid"
)

// The profile.
const (
	chunkSize   = 1 << 20
	fileWidth   = 1024      // links of a file node
	folderLimit = 256 << 10 // bytes; a larger folder is a HAMT
)

// Files is grid.Files over blocks.
type Files struct {
	blocks  grid.Blocks
	ahead   grid.AheadBlocks // blocks, if that can use knowing what is read next; else nil
	buffers sync.Pool        // of *[]byte, chunkSize+1 long; Put of blocks does not keep them
}

var _ grid.Files = (*Files)(nil)

// New shows the given blocks as files.
func New(blocks grid.Blocks) *Files {
	f := &Files{blocks: blocks}
	f.ahead, _ = blocks.(grid.AheadBlocks)
	f.buffers.New = func() any { b := make([]byte, chunkSize+1); return &b }
	return f
}

func wrap(err error, format string, args ...any) error {
	code := grid.CodeOf(err)
	if code == grid.Unknown {
		code = grid.Internal
	}
	return grid.Errorf(code, "store: "+format+": %w", append(args, err)...)
}

// Add stores what r gives as a file. An error of r is returned as it is, wrapped.
func (f *Files) Add(ctx context.Context, r io.Reader) (cid.Cid, int64, error) {
	buf := f.buffers.Get().(*[]byte)
	defer f.buffers.Put(buf)
	n, err := io.ReadFull(r, *buf)
	if err == io.EOF || err == io.ErrUnexpectedEOF { // it is one leaf
		b := grid.NewBlock(cid.Raw, (*buf)[:n])
		if err := f.blocks.Put(ctx, b); err != nil {
			return cid.Undef, 0, wrap(err, "add a file")
		}
		return b.CID(), int64(n), nil
	}
	if err != nil {
		return cid.Undef, 0, wrap(err, "add a file")
	}
	c, size, err := f.addLarge(ctx, io.MultiReader(bytes.NewReader(*buf), r))
	if err != nil {
		return cid.Undef, 0, wrap(err, "add a file")
	}
	return c, size, nil
}

// AddMany stores files that are in memory, the small ones among them all at once.
func (f *Files) AddMany(ctx context.Context, files []grid.Content) ([]cid.Cid, error) {
	cids := make([]cid.Cid, len(files))
	batch := make([]grid.Block, 0, len(files))
	for i, file := range files {
		switch {
		case len(file.Data) > chunkSize:
			c, _, err := f.Add(ctx, bytes.NewReader(file.Data))
			if err == nil && file.Exec {
				c, err = f.Executable(ctx, c)
			}
			if err != nil {
				return nil, err
			}
			cids[i] = c
			continue
		case file.Exec:
			batch = append(batch, executableLeaf(file.Data))
		default:
			batch = append(batch, grid.NewBlock(cid.Raw, file.Data))
		}
		cids[i] = batch[len(batch)-1].CID()
	}
	if err := f.blocks.Put(ctx, batch...); err != nil {
		return nil, wrap(err, "add %d files", len(files))
	}
	return cids, nil
}

// execMode is what an executable file tells as its mode.
const execMode = 0o755

// executableLeaf is a small executable file: only a DAG-PB node can tell of a mode.
func executableLeaf(data []byte) grid.Block {
	u := unixfs{typ: typeFile, size: uint64(len(data)), mode: execMode}
	if len(data) > 0 {
		u.data = data
	}
	return grid.NewBlock(cid.DagProtobuf, appendPB(nil, pbNode{data: appendUnixFS(nil, u)}))
}

// Executable stores the file c as an executable one. Only its root is new.
func (f *Files) Executable(ctx context.Context, c cid.Cid) (cid.Cid, error) {
	n, err := f.load(ctx, c)
	switch {
	case err != nil:
	case n.kind() != grid.KindFile:
		err = grid.Errorf(grid.Invalid, "it is a %s", n.kind())
	case n.executable():
		return c, nil
	}
	if err != nil {
		return cid.Undef, wrap(err, "make %s executable", c)
	}
	var b grid.Block
	switch {
	case n.raw && len(n.bytes) <= chunkSize:
		b = executableLeaf(n.bytes)
	case n.raw:
		u := unixfs{typ: typeFile, size: n.size, sizes: []uint64{n.size}, mode: execMode}
		b = grid.NewBlock(cid.DagProtobuf, appendPB(nil, pbNode{links: []pbLink{{Size: n.size, CID: c}}, data: appendUnixFS(nil, u)}))
	default:
		u := n.unixfs
		u.mode = execMode
		b = grid.NewBlock(cid.DagProtobuf, appendPB(nil, pbNode{links: n.links, data: appendUnixFS(nil, u)}))
	}
	if err := f.blocks.Put(ctx, b); err != nil {
		return cid.Undef, wrap(err, "make %s executable", c)
	}
	return b.CID(), nil
}

// part is a node of a file's tree as its parent sees it.
type part struct {
	cid     cid.Cid
	content uint64 // bytes of the file below it
	total   uint64 // bytes of blocks below it
}

// addLarge stores leaves as they are read, hashing on several cores, then the nodes above them.
func (f *Files) addLarge(ctx context.Context, r io.Reader) (cid.Cid, int64, error) {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(min(runtime.GOMAXPROCS(0), 8) + 2) // some wait for the disk; as many chunks are in memory, and one
	var leaves []*part
	for {
		buf := f.buffers.Get().(*[]byte)
		n, err := io.ReadFull(r, (*buf)[:chunkSize])
		if n > 0 {
			leaf := &part{content: uint64(n), total: uint64(n)}
			leaves = append(leaves, leaf)
			g.Go(func() error {
				defer f.buffers.Put(buf)
				b := grid.NewBlock(cid.Raw, (*buf)[:n])
				leaf.cid = b.CID()
				return f.blocks.Put(gctx, b)
			})
		} else {
			f.buffers.Put(buf)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err == nil {
			err = gctx.Err()
		}
		if err != nil {
			if werr := g.Wait(); werr != nil {
				err = werr
			}
			return cid.Undef, 0, err
		}
	}
	if err := g.Wait(); err != nil {
		return cid.Undef, 0, err
	}
	root, err := f.layout(ctx, leaves, fileWidth)
	return root.cid, int64(root.content), err
}

// layout stores the balanced tree above the leaves: as many nodes as needed on each level, all but the
// last one with width links.
func (f *Files) layout(ctx context.Context, leaves []*part, width int) (*part, error) {
	level := leaves
	for len(level) > 1 {
		var above []*part
		var nodes []grid.Block
		for len(level) > 0 {
			n := min(len(level), width)
			p, b := fileNode(level[:n])
			above, nodes, level = append(above, p), append(nodes, b), level[n:]
		}
		if err := f.blocks.Put(ctx, nodes...); err != nil {
			return &part{}, err
		}
		level = above
	}
	return level[0], nil
}

func fileNode(parts []*part) (*part, grid.Block) {
	u := unixfs{typ: typeFile, sizes: make([]uint64, len(parts))}
	n := pbNode{links: make([]pbLink, len(parts))}
	total := uint64(0)
	for i, p := range parts {
		u.sizes[i] = p.content
		u.size += p.content
		total += p.total
		n.links[i] = pbLink{Size: p.total, CID: p.cid}
	}
	n.data = appendUnixFS(nil, u)
	b := grid.NewBlock(cid.DagProtobuf, appendPB(nil, n))
	return &part{cid: b.CID(), content: u.size, total: total + uint64(len(b.Data()))}, b
}
