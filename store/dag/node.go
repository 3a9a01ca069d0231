package dag

import (
	"context"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/spaolacci/murmur3"

	"github.com/wasmgrid/wasmgrid/grid"
)

const (
	maxDepth   = 32      // of the tree of one file
	maxEntries = 1 << 20 // of one folder
	maxVisited = 1 << 20 // nodes below a folder whose size is asked for
	maxContent = 1 << 60 // bytes of one file
)

// node is a loaded block as UnixFS.
type node struct {
	cid   cid.Cid
	raw   bool
	bytes []byte // of the block
	pbNode
	unixfs
	ends []int64 // of a file: where each link's part ends, worked out when first needed
}

// load reads and checks a node.
func (f *Files) load(ctx context.Context, c cid.Cid) (*node, error) {
	return f.loadAhead(ctx, c, nil)
}

// loadAhead is load by one who will probably load next.
func (f *Files) loadAhead(ctx context.Context, c cid.Cid, next []cid.Cid) (n *node, err error) {
	var data []byte
	if f.ahead != nil && len(next) > 0 {
		data, err = f.ahead.GetAhead(ctx, c, next)
	} else {
		data, err = f.blocks.Get(ctx, c)
	}
	if err != nil {
		return nil, err
	}
	return parse(c, data)
}

// Bounds on what is asked for ahead of need.
const (
	aheadBlocks = 64
	aheadBytes  = 8 << 20
)

// coming are the blocks of the first links for which keep holds, as far as it is worth asking for them ahead of
// need.
func (f *Files) coming(links []pbLink, keep func(pbLink) bool) (next []cid.Cid) {
	if f.ahead == nil {
		return nil
	}
	bytes := uint64(0)
	for _, l := range links[:min(len(links), 16*aheadBlocks)] {
		if !keep(l) {
			continue
		}
		if bytes += min(l.Size, grid.MaxBlock); bytes > aheadBytes || len(next) == aheadBlocks {
			break
		}
		next = append(next, l.CID)
	}
	return next
}

func anyLink(pbLink) bool   { return true }
func hasKind(l pbLink) bool { return l.CID.Prefix().Codec != cid.Raw } // that its block tells
func isShard(l pbLink) bool { return len(l.Name) == shardPrefix }

// gait tells steady reading from jumping about: the further it has gone on steadily, the more is asked for
// ahead of need.
type gait struct {
	next  int64 // where steady reading would go on
	steps int   // that it may look ahead
}

// step reads from one position to another, and returns how many steps of that kind to look ahead.
func (g *gait) step(from, to int64, most int) int {
	if from == g.next {
		g.steps = min(2*g.steps+1, most)
	} else {
		g.steps = 0
	}
	g.next = to
	return g.steps
}

func parse(c cid.Cid, data []byte) (*node, error) {
	n := &node{cid: c, bytes: data}
	bad := func(what string) error {
		return grid.Errorf(grid.Invalid, "%s is not a proper UnixFS node: %s", c, what)
	}
	switch c.Prefix().Codec {
	case cid.Raw:
		n.raw = true
		n.unixfs = unixfs{typ: typeFile, data: data, size: uint64(len(data))}
		return n, nil
	case cid.DagProtobuf:
	default:
		return nil, grid.Errorf(grid.Unsupported, "%s is neither a file nor a folder: its codec is 0x%x", c, c.Prefix().Codec)
	}
	var err error
	if n.pbNode, err = decodePB(data); err == nil {
		n.unixfs, err = decodeUnixFS(n.pbNode.data)
	}
	if err != nil {
		return nil, bad(err.Error())
	}
	switch n.typ {
	case typeRaw, typeFile:
		n.typ = typeFile
		if len(n.sizes) != len(n.links) {
			return nil, bad("it does not tell the size of each part")
		}
		sum := uint64(len(n.unixfs.data))
		for _, s := range n.sizes {
			if sum += s; s > maxContent || sum > maxContent {
				return nil, bad("it claims an absurd size")
			}
		}
		if n.size != sum && !(n.size == 0 && len(n.links) == 0) { // some writers leave the size of a leaf out
			return nil, bad("its parts do not add up to its size")
		}
		n.size = sum
	case typeDirectory:
	case typeShard:
		if n.fanout != shardWidth || n.hash != shardHash {
			return nil, grid.Errorf(grid.Unsupported, "%s is a sharded folder of width %d, only %d is supported", c, n.fanout, shardWidth)
		}
	case typeSymlink:
		n.size = 0
		if t := n.unixfs.data; len(t) == 0 || len(t) > maxPath || slices.Contains(t, 0) {
			return nil, bad("a symlink without a usable target")
		}
	default:
		return nil, bad("unknown type")
	}
	return n, nil
}

func (n *node) kind() grid.FileKind {
	switch n.typ {
	case typeFile:
		return grid.KindFile
	case typeSymlink:
		return grid.KindSymlink
	}
	return grid.KindDir
}

// executable reports whether n is a file that says so.
func (n *node) executable() bool { return n.typ == typeFile && n.mode&0o111 != 0 }

// total is the claimed size of all blocks, as a link to n tells it.
func (n *node) total() uint64 {
	sum := uint64(len(n.bytes))
	for _, l := range n.links {
		if sum += l.Size; l.Size > maxContent || sum > maxContent {
			return maxContent
		}
	}
	return sum
}

// entries lists a folder, sorted by name.
func (f *Files) entries(ctx context.Context, n *node) ([]pbLink, error) {
	if n.kind() != grid.KindDir {
		return nil, grid.Errorf(grid.Invalid, "%s is a %s, not a folder", n.cid, n.kind())
	}
	links := n.links
	if n.typ == typeShard {
		var err error
		if links, err = f.shardEntries(ctx, nil, n, 0); err != nil {
			return nil, err
		}
	}
	byName := func(a, b pbLink) int { return strings.Compare(a.Name, b.Name) }
	if !slices.IsSortedFunc(links, byName) {
		links = slices.Clone(links)
		slices.SortFunc(links, byName)
	}
	for i, l := range links {
		if !goodName(l.Name) || i > 0 && links[i-1].Name == l.Name {
			return nil, grid.Errorf(grid.Invalid, "folder %s: the entry name %q is not usable or not unique", n.cid, l.Name)
		}
	}
	return links, nil
}

func goodName(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= maxPath && !strings.ContainsAny(s, "/\x00")
}

func (f *Files) shardEntries(ctx context.Context, to []pbLink, n *node, level int) ([]pbLink, error) {
	if level == shardDepth {
		return nil, grid.Errorf(grid.Invalid, "folder %s is sharded too deeply", n.cid)
	}
	for i, l := range n.links {
		switch {
		case len(l.Name) < shardPrefix:
			return nil, grid.Errorf(grid.Invalid, "folder %s: the link name %q is malformed", n.cid, l.Name)
		case len(l.Name) > shardPrefix:
			l.Name = l.Name[shardPrefix:]
			to = append(to, l)
		default:
			sub, err := f.loadShard(ctx, l.CID, f.coming(n.links[i+1:], isShard))
			if err != nil {
				return nil, err
			}
			before := len(to)
			if to, err = f.shardEntries(ctx, to, sub, level+1); err != nil {
				return nil, err
			}
			if len(to) == before { // the bound on entries is to bound the work, too
				return nil, grid.Errorf(grid.Invalid, "folder %s: its part %s is empty", n.cid, sub.cid)
			}
		}
		if len(to) > maxEntries {
			return nil, grid.Errorf(grid.Limit, "folder %s has more than %d entries", n.cid, maxEntries)
		}
	}
	return to, nil
}

func (f *Files) loadShard(ctx context.Context, c cid.Cid, next []cid.Cid) (*node, error) {
	n, err := f.loadAhead(ctx, c, next)
	if err == nil && n.typ != typeShard {
		err = grid.Errorf(grid.Invalid, "%s is not a part of a sharded folder", c)
	}
	return n, err
}

// child finds one entry of a folder without reading all of it; ok is false when there is none.
func (f *Files) child(ctx context.Context, n *node, name string) (l pbLink, ok bool, err error) {
	if n.kind() != grid.KindDir {
		return l, false, grid.Errorf(grid.Invalid, "%s is a %s, not a folder", n.cid, n.kind())
	}
	if !goodName(name) {
		return l, false, nil
	}
	if n.typ == typeDirectory {
		i := slices.IndexFunc(n.links, func(l pbLink) bool { return l.Name == name })
		if i < 0 {
			return l, false, nil
		}
		return n.links[i], true, nil
	}
	const hex = "0123456789ABCDEF"
	hash := murmur3.Sum64([]byte(name))
	for level := range shardDepth {
		at := byte(hash >> (8 * (7 - level)))
		prefix := string([]byte{hex[at>>4], hex[at&15]})
		i := slices.IndexFunc(n.links, func(l pbLink) bool { return l.Name == prefix || l.Name == prefix+name })
		if i < 0 {
			return l, false, nil
		}
		if l = n.links[i]; l.Name != prefix {
			l.Name = name
			return l, true, nil
		}
		if n, err = f.loadShard(ctx, l.CID, nil); err != nil {
			return l, false, err
		}
	}
	return l, false, nil
}

// sizer adds up the content below folders. It remembers nodes, so that a small DAG that is a huge tree
// costs little.
type sizer struct {
	f     *Files
	known map[cid.Cid]int64
}

func (f *Files) newSizer() *sizer { return &sizer{f, map[cid.Cid]int64{}} }

// of is the size of what n is the root of.
func (s *sizer) of(ctx context.Context, n *node, depth int) (int64, error) {
	if n.kind() != grid.KindDir {
		return int64(n.size), nil
	}
	if size, ok := s.known[n.cid]; ok {
		return size, nil
	}
	if len(s.known) >= maxVisited || depth > maxPath/2 {
		return 0, grid.Errorf(grid.Limit, "the folder below %s is too large to be measured", n.cid)
	}
	links, err := s.f.entries(ctx, n)
	if err != nil {
		return 0, err
	}
	total := int64(0)
	for i, l := range links {
		info, err := s.describe(ctx, l, links[i+1:], depth+1)
		if err != nil {
			return 0, err
		}
		if total += info.Size; total > maxContent {
			total = maxContent // no overflow, however often small things are repeated
		}
	}
	s.known[n.cid] = total
	return total, nil
}

// describe tells about an entry, before those that follow it are told about. A raw leaf is not read: its size is
// what the folder claims.
func (s *sizer) describe(ctx context.Context, l pbLink, next []pbLink, depth int) (grid.FileInfo, error) {
	info := grid.FileInfo{Name: l.Name, CID: grid.Link{Cid: l.CID}, Kind: grid.KindFile}
	if l.CID.Prefix().Codec == cid.Raw {
		info.Size = int64(min(l.Size, grid.MaxBlock))
		return info, nil
	}
	n, err := s.f.loadAhead(ctx, l.CID, s.f.coming(next, hasKind))
	if err != nil {
		return info, grid.Errorf(codeOr(err), "entry %q: %w", l.Name, err)
	}
	info.Kind, info.Exec = n.kind(), n.executable()
	if info.Kind == grid.KindSymlink {
		info.Target = string(n.unixfs.data)
	}
	info.Size, err = s.of(ctx, n, depth)
	return info, err
}

func codeOr(err error) grid.Code {
	if c := grid.CodeOf(err); c != grid.Unknown {
		return c
	}
	return grid.Internal
}

// Stat describes the node that c names.
func (f *Files) Stat(ctx context.Context, c cid.Cid) (grid.FileInfo, error) {
	n, err := f.load(ctx, c)
	if err != nil {
		return grid.FileInfo{}, wrap(err, "stat %s", c)
	}
	info, err := f.newSizer().describe(ctx, pbLink{CID: c, Size: uint64(len(n.bytes))}, nil, 0)
	if err != nil {
		return grid.FileInfo{}, wrap(err, "stat %s", c)
	}
	return info, nil
}

// List describes the entries of a folder.
func (f *Files) List(ctx context.Context, c cid.Cid) ([]grid.FileInfo, error) {
	n, err := f.load(ctx, c)
	if err != nil {
		return nil, wrap(err, "list %s", c)
	}
	links, err := f.entries(ctx, n)
	if err != nil {
		return nil, wrap(err, "list %s", c)
	}
	s := f.newSizer()
	infos := make([]grid.FileInfo, len(links))
	for i, l := range links {
		if infos[i], err = s.describe(ctx, l, links[i+1:], 1); err != nil {
			return nil, wrap(err, "list %s", c)
		}
	}
	return infos, nil
}

// Resolve follows a path below c.
func (f *Files) Resolve(ctx context.Context, c cid.Cid, path string) (cid.Cid, error) {
	at := c
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." {
			continue
		}
		n, err := f.load(ctx, at)
		if err != nil {
			return cid.Undef, wrap(err, "resolve %s/%s", c, path)
		}
		l, ok, err := f.child(ctx, n, name)
		if err != nil {
			return cid.Undef, wrap(err, "resolve %s/%s", c, path)
		}
		if !ok {
			return cid.Undef, grid.Errorf(grid.NotFound, "store: resolve %s/%s: there is no %q in %s", c, path, name, at).Hint("`grid ls %s` lists what is there", at)
		}
		at = l.CID
	}
	if err := grid.CheckCID(at); err != nil {
		return cid.Undef, wrap(err, "resolve %s/%s", c, path)
	}
	return at, nil
}

// Look describes the node that c names by its own block.
func (f *Files) Look(ctx context.Context, c cid.Cid) (grid.FileInfo, error) {
	n, err := f.load(ctx, c)
	if err != nil {
		return grid.FileInfo{}, wrap(err, "look at %s", c)
	}
	info := grid.FileInfo{CID: grid.Link{Cid: c}, Kind: n.kind(), Exec: n.executable()}
	switch info.Kind {
	case grid.KindFile:
		info.Size = int64(n.size)
	case grid.KindDir:
		info.Size = int64(n.total())
	case grid.KindSymlink:
		info.Target = string(n.unixfs.data)
	}
	return info, nil
}

// Whole reports whether all blocks below c are here.
func (f *Files) Whole(ctx context.Context, c cid.Cid) (bool, error) {
	seen := map[cid.Cid]struct{}{}
	for stack := []cid.Cid{c}; len(stack) > 0; {
		c := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if _, ok := seen[c]; ok {
			continue
		}
		if seen[c] = struct{}{}; len(seen) > maxVisited || len(stack) > maxVisited {
			return false, grid.Errorf(grid.Limit, "store: look for all of %s: more than %d blocks", c, maxVisited)
		}
		if err := grid.CheckCID(c); err != nil {
			return false, wrap(err, "look for all of %s", c)
		}
		if c.Prefix().Codec == cid.Raw {
			if ok, err := f.blocks.Has(ctx, c); !ok || err != nil {
				return false, err
			}
			continue
		}
		data, err := f.blocks.Get(ctx, c)
		switch code := grid.CodeOf(err); {
		case code == grid.NotFound || code == grid.Corrupt:
			return false, nil
		case err != nil:
			return false, err
		}
		links, err := Links(c, data)
		if err != nil {
			return false, wrap(err, "look for all of %s", c)
		}
		stack = append(stack, links...)
	}
	return true, nil
}
