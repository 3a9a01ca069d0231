package dag

import (
	"context"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/spaolacci/murmur3"

	"github.com/wasmgrid/wasmgrid/grid"
)

// maxPath bounds the paths of AddTree, as POSIX does.
const maxPath = 4096

// folder is one that is being put together: its entries by name are either leaves or folders again.
type folder struct {
	path    string
	leaves  map[string]*part
	folders map[string]*folder
}

func newFolder(path string) *folder {
	return &folder{path, map[string]*part{}, map[string]*folder{}}
}

// AddTree stores the folder made of entries; see grid.Files. A file or folder entry must be here as a
// block; a folder entry that has a CID is put there whole.
func (f *Files) AddTree(ctx context.Context, entries []grid.FileInfo) (cid.Cid, int64, error) {
	root := newFolder("")
	for i := range entries {
		if err := f.place(ctx, root, &entries[i]); err != nil {
			return cid.Undef, 0, wrap(err, "add a folder")
		}
	}
	w := &treeWriter{blocks: f.blocks}
	p, err := w.folder(ctx, root)
	if err == nil {
		err = w.flush(ctx)
	}
	if err != nil {
		return cid.Undef, 0, wrap(err, "add a folder")
	}
	return p.cid, int64(p.content), nil
}

// place puts an entry where its path says.
func (f *Files) place(ctx context.Context, at *folder, e *grid.FileInfo) error {
	if !fs.ValidPath(e.Name) || e.Name == "." || len(e.Name) > maxPath || strings.ContainsRune(e.Name, 0) {
		return grid.Errorf(grid.Invalid, "entry %q: want a clean relative path of at most %d bytes", e.Name, maxPath)
	}
	rest := e.Name
	for {
		name, below, more := strings.Cut(rest, "/")
		if !more {
			return f.placeAt(ctx, at, name, e)
		}
		if at.leaves[name] != nil {
			return grid.Errorf(grid.Invalid, "entry %q: %q is not a folder that it could lie in",
				e.Name, e.Name[:len(e.Name)-len(below)-1])
		}
		next := at.folders[name]
		if next == nil {
			next = newFolder(e.Name[:len(e.Name)-len(below)-1])
			at.folders[name] = next
		}
		at, rest = next, below
	}
}

func (f *Files) placeAt(ctx context.Context, at *folder, name string, e *grid.FileInfo) error {
	emptyFolder := e.Kind == grid.KindDir && !e.CID.Defined()
	if at.leaves[name] != nil || at.folders[name] != nil && !emptyFolder {
		return grid.Errorf(grid.Invalid, "entry %q (%s): another entry has or implies %q already", e.Name, e.Kind, e.Name)
	}
	switch {
	case emptyFolder:
		if at.folders[name] == nil {
			at.folders[name] = newFolder(e.Name)
		}
		return nil
	case e.Kind == grid.KindSymlink:
		if e.Target == "" || len(e.Target) > maxPath || strings.ContainsRune(e.Target, 0) {
			return grid.Errorf(grid.Invalid, "symlink %q: its target %q is not usable", e.Name, e.Target)
		}
		block := appendPB(nil, pbNode{data: appendUnixFS(nil, unixfs{typ: typeSymlink, data: []byte(e.Target)})})
		b := grid.NewBlock(cid.DagProtobuf, block)
		at.leaves[name] = &part{cid: b.CID(), total: uint64(len(block))}
		return f.blocks.Put(ctx, b)
	case e.Kind != grid.KindFile && e.Kind != grid.KindDir:
		return grid.Errorf(grid.Invalid, "entry %q: kind %q, want file, dir or symlink", e.Name, e.Kind)
	}
	p, err := f.part(ctx, e)
	if err != nil {
		return grid.Errorf(grid.CodeOf(err), "entry %q: %w", e.Name, err)
	}
	at.leaves[name] = p
	return nil
}

// part describes what an entry's CID names. The size of a raw leaf is taken from the entry, which saves
// reading it; everything else is read from the node itself.
func (f *Files) part(ctx context.Context, e *grid.FileInfo) (*part, error) {
	c := e.CID.Cid
	if err := grid.CheckCID(c); err != nil {
		return nil, err
	}
	if c.Prefix().Codec == cid.Raw && e.Kind == grid.KindFile {
		if e.Size < 0 || e.Size > grid.MaxBlock {
			return nil, grid.Errorf(grid.Invalid, "a raw block cannot have %d bytes", e.Size)
		}
		if ok, err := f.blocks.Has(ctx, c); err != nil {
			return nil, err
		} else if !ok {
			return nil, grid.Errorf(grid.NotFound, "block %s is not here", c)
		}
		return &part{c, uint64(e.Size), uint64(e.Size)}, nil
	}
	n, err := f.load(ctx, c)
	if err != nil {
		return nil, err
	}
	if n.kind() != e.Kind {
		return nil, grid.Errorf(grid.Invalid, "%s is a %s, not a %s", c, n.kind(), e.Kind)
	}
	size, err := f.newSizer().of(ctx, n, 0)
	if err != nil {
		return nil, err
	}
	return &part{c, uint64(size), n.total()}, nil
}

// treeWriter stores folders from the bottom up, a batch of blocks at a time.
type treeWriter struct {
	blocks grid.Blocks
	batch  []grid.Block
	size   int
}

func (w *treeWriter) put(ctx context.Context, block []byte) (cid.Cid, error) {
	b := grid.NewBlock(cid.DagProtobuf, block)
	w.batch = append(w.batch, b)
	if w.size += len(block); w.size < chunkSize && len(w.batch) < 1024 {
		return b.CID(), nil
	}
	return b.CID(), w.flush(ctx)
}

func (w *treeWriter) flush(ctx context.Context) error {
	err := w.blocks.Put(ctx, w.batch...)
	w.batch, w.size = nil, 0
	return err
}

func (w *treeWriter) folder(ctx context.Context, d *folder) (*part, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for name, sub := range d.folders {
		p, err := w.folder(ctx, sub)
		if err != nil {
			return nil, err
		}
		d.leaves[name] = p
	}
	d.folders = nil
	all := &part{}
	n := pbNode{data: appendUnixFS(nil, unixfs{typ: typeDirectory}), links: make([]pbLink, 0, len(d.leaves))}
	for _, name := range slices.Sorted(maps.Keys(d.leaves)) {
		p := d.leaves[name]
		n.links = append(n.links, pbLink{name, p.total, p.cid})
		all.content += p.content
		all.total += p.total
	}
	block := appendPB(nil, n)
	if len(block) <= folderLimit {
		c, err := w.put(ctx, block)
		all.cid, all.total = c, all.total+uint64(len(block))
		return all, err
	}
	l, err := w.shard(ctx, hashed(n.links), 0)
	all.cid, all.total = l.CID, l.Size
	return all, err
}

// The HAMT: a node of level i has a child for each value that byte i of the hash of a name takes in it. A
// link's name is that byte in two hexadecimal digits, then the entry's name; of a child node, nothing.
const (
	shardWidth  = 256
	shardHash   = 0x22 // multicodec murmur3-x64-64
	shardPrefix = 2
	shardDepth  = 8 // bytes of the hash
)

type hashedLink struct {
	hash uint64
	pbLink
}

func hashed(links []pbLink) []hashedLink {
	hs := make([]hashedLink, len(links))
	for i, l := range links {
		hs[i] = hashedLink{murmur3.Sum64([]byte(l.Name)), l}
	}
	slices.SortFunc(hs, func(a, b hashedLink) int {
		switch {
		case a.hash < b.hash:
			return -1
		case a.hash > b.hash:
			return 1
		}
		return 0
	})
	return hs
}

// shard stores the node of a level that holds links, which are in order of their hashes and agree in the
// bytes before that level.
func (w *treeWriter) shard(ctx context.Context, links []hashedLink, level int) (pbLink, error) {
	if level == shardDepth {
		return pbLink{}, grid.Errorf(grid.Unsupported, "entries %q and %q have equal hashes", links[0].Name, links[1].Name)
	}
	const hex = "0123456789ABCDEF"
	var n pbNode
	var bits [shardWidth / 8]byte // big-endian
	for len(links) > 0 {
		at := byte(links[0].hash >> (8 * (7 - level)))
		end := 1
		for end < len(links) && byte(links[end].hash>>(8*(7-level))) == at {
			end++
		}
		prefix := string([]byte{hex[at>>4], hex[at&15]})
		l := links[0].pbLink
		l.Name = prefix + l.Name
		if end > 1 {
			var err error
			if l, err = w.shard(ctx, links[:end], level+1); err != nil {
				return l, err
			}
			l.Name = prefix
		}
		n.links = append(n.links, l)
		bits[len(bits)-1-int(at/8)] |= 1 << (at % 8)
		links = links[end:]
	}
	field := bits[:]
	for field[0] == 0 {
		field = field[1:]
	}
	n.data = appendUnixFS(nil, unixfs{typ: typeShard, data: field, hash: shardHash, fanout: shardWidth})
	// Nodes list their links by name, which here may differ from the order of the hash only where an
	// entry's name follows the two digits; those digits are distinct, so the order is the same.
	block := appendPB(nil, n)
	c, err := w.put(ctx, block)
	total := uint64(len(block))
	for _, l := range n.links {
		total += l.Size
	}
	return pbLink{Size: total, CID: c}, err
}
