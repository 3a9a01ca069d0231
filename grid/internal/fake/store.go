// Package fake holds small in-memory stand-ins for everything that a [grid.Node] asks of its rooms, for
// the tests of package grid and grid/api. They are simple rather than fast, and honest rather than
// complete: what a test needs to go wrong, it scripts.
package fake

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"testing/fstest"

	"github.com/fxamacker/cbor/v2"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Blocks is a grid.Blocks in memory. Blocks of any size are taken.
type Blocks struct {
	mu   sync.Mutex
	data map[string][]byte // by multihash
	fail map[cid.Cid]error
	gets int
	down bool
}

// SetDown says whether other nodes can reach this store.
func (b *Blocks) SetDown(down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = down
}

// Down reports whether other nodes cannot.
func (b *Blocks) Down() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.down
}

// walk calls f with every block of a DAG.
func (b *Blocks) walk(ctx context.Context, c cid.Cid, f func(grid.Block) error) error {
	data, err := b.Get(ctx, c)
	if err != nil {
		return err
	}
	if err := f(grid.NewBlock(c.Prefix().Codec, data)); err != nil {
		return err
	}
	for _, l := range links(c, data) {
		if err := b.walk(ctx, l, f); err != nil {
			return err
		}
	}
	return nil
}

// links lists what a block links to.
func links(c cid.Cid, data []byte) (out []cid.Cid) {
	if c.Prefix().Codec != cid.DagCBOR {
		return nil
	}
	var v any
	if err := grid.Unmarshal(data, &v); err != nil {
		return nil
	}
	var find func(any)
	find = func(v any) {
		switch v := v.(type) {
		case cbor.Tag:
			if raw, ok := v.Content.([]byte); ok && v.Number == 42 && len(raw) > 1 {
				if c, err := cid.Cast(raw[1:]); err == nil {
					out = append(out, c)
				}
			}
		case []any:
			for _, x := range v {
				find(x)
			}
		case map[string]any:
			for _, x := range v {
				find(x)
			}
		}
	}
	find(v)
	return out
}

// NewBlocks makes an empty store.
func NewBlocks() *Blocks { return &Blocks{data: make(map[string][]byte)} }

// Gets counts the reads so far.
func (b *Blocks) Gets() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.gets
}

// Fail makes every later Put of a block fail, or of all with [cid.Undef]; nil ends that.
func (b *Blocks) Fail(c cid.Cid, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail == nil {
		b.fail = make(map[cid.Cid]error)
	}
	b.fail[c] = err
}

// Put implements grid.Blocks.
func (b *Blocks) Put(_ context.Context, blocks ...grid.Block) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, x := range blocks {
		if err := cmp.Or(b.fail[x.CID()], b.fail[cid.Undef]); err != nil {
			return err
		}
		b.data[string(x.CID().Hash())] = bytes.Clone(x.Data())
	}
	return nil
}

// Get implements grid.Blocks.
func (b *Blocks) Get(_ context.Context, c cid.Cid) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gets++
	if data, ok := b.data[string(c.Hash())]; ok {
		return data, nil
	}
	return nil, grid.Errorf(grid.NotFound, "block %s is not here", c)
}

// Has implements grid.Blocks.
func (b *Blocks) Has(_ context.Context, c cid.Cid) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.data[string(c.Hash())]
	return ok, nil
}

// Delete implements grid.Blocks.
func (b *Blocks) Delete(_ context.Context, c cid.Cid) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.data, string(c.Hash()))
	return nil
}

// Sync implements grid.Blocks.
func (b *Blocks) Sync(context.Context) error { return nil }

// Files is a grid.Files over Blocks: a file is one raw block, or a CBOR record when it is executable; a
// folder or symlink is one CBOR record.
type Files struct{ Blocks *Blocks }

// tree is a folder, a symlink or an executable file as a block.
type tree struct {
	Kind    grid.FileKind   `cbor:"kind"`
	Target  string          `cbor:"target,omitempty"`
	Entries []grid.FileInfo `cbor:"entries,omitempty"`
	Data    []byte          `cbor:"data,omitempty"`
}

// Add implements grid.Files.
func (f Files) Add(ctx context.Context, r io.Reader) (cid.Cid, int64, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return cid.Undef, 0, err
	}
	b := grid.NewBlock(cid.Raw, data)
	return b.CID(), int64(len(data)), f.Blocks.Put(ctx, b)
}

// AddMany implements grid.Files.
func (f Files) AddMany(ctx context.Context, files []grid.Content) ([]cid.Cid, error) {
	cids := make([]cid.Cid, len(files))
	for i, file := range files {
		c, _, err := f.Add(ctx, bytes.NewReader(file.Data))
		if err == nil && file.Exec {
			c, err = f.Executable(ctx, c)
		}
		if err != nil {
			return nil, err
		}
		cids[i] = c
	}
	return cids, nil
}

// Executable implements grid.Files.
func (f Files) Executable(ctx context.Context, c cid.Cid) (cid.Cid, error) {
	t, data, err := f.load(ctx, c)
	if err != nil {
		return cid.Undef, err
	}
	if t.Kind != grid.KindFile {
		return cid.Undef, grid.Errorf(grid.Invalid, "%s is a %s, not a file", c, t.Kind)
	}
	b, err := grid.EncodeBlock(tree{Kind: grid.KindFile, Data: data})
	if err != nil {
		return cid.Undef, err
	}
	return b.CID(), f.Blocks.Put(ctx, b)
}

// AddTree implements grid.Files.
func (f Files) AddTree(ctx context.Context, entries []grid.FileInfo) (cid.Cid, int64, error) {
	below := map[string][]grid.FileInfo{} // by first element of the path
	var names []string
	for _, e := range entries {
		if !fs.ValidPath(e.Name) || e.Name == "." {
			return cid.Undef, 0, grid.Errorf(grid.Invalid, "entry name %q: want a clean relative path", e.Name)
		}
		head, rest, _ := strings.Cut(e.Name, "/")
		if below[head] == nil {
			names = append(names, head)
		}
		e.Name = rest
		below[head] = append(below[head], e)
	}
	slices.Sort(names)
	t := tree{Kind: grid.KindDir}
	var total int64
	for _, name := range names {
		list := below[name]
		e := list[0]
		isDir := slices.ContainsFunc(list, func(e grid.FileInfo) bool { return e.Name != "" })
		switch {
		case isDir:
			list = slices.DeleteFunc(list, func(e grid.FileInfo) bool { return e.Name == "" && e.Kind == grid.KindDir })
			c, size, err := f.AddTree(ctx, list)
			if err != nil {
				return cid.Undef, 0, err
			}
			e = grid.FileInfo{Kind: grid.KindDir, CID: grid.Link{Cid: c}, Size: size}
		case len(list) > 1 && e.Kind != grid.KindDir:
			return cid.Undef, 0, grid.Errorf(grid.Invalid, "two entries are named %q", name)
		case e.CID.Defined():
			if ok, _ := f.Blocks.Has(ctx, e.CID.Cid); !ok {
				return cid.Undef, 0, grid.Errorf(grid.NotFound, "entry %q: block %s is not here", name, e.CID)
			}
		default:
			b, err := grid.EncodeBlock(tree{Kind: e.Kind, Target: e.Target})
			if err != nil {
				return cid.Undef, 0, err
			}
			if err := f.Blocks.Put(ctx, b); err != nil {
				return cid.Undef, 0, err
			}
			e.CID = grid.Link{Cid: b.CID()}
		}
		e.Name = name
		total += e.Size
		t.Entries = append(t.Entries, e)
	}
	b, err := grid.EncodeBlock(t)
	if err != nil {
		return cid.Undef, 0, err
	}
	return b.CID(), total, f.Blocks.Put(ctx, b)
}

func (f Files) load(ctx context.Context, c cid.Cid) (t tree, data []byte, err error) {
	if data, err = f.Blocks.Get(ctx, c); err != nil {
		return t, nil, err
	}
	if c.Prefix().Codec == cid.Raw {
		return tree{Kind: grid.KindFile}, data, nil
	}
	err = grid.Unmarshal(data, &t)
	return t, t.Data, err
}

// Stat implements grid.Files.
func (f Files) Stat(ctx context.Context, c cid.Cid) (grid.FileInfo, error) {
	t, data, err := f.load(ctx, c)
	info := grid.FileInfo{
		CID: grid.Link{Cid: c}, Kind: t.Kind, Target: t.Target, Size: int64(len(data)),
		Exec: t.Kind == grid.KindFile && c.Prefix().Codec != cid.Raw,
	}
	for _, e := range t.Entries {
		info.Size += e.Size
	}
	return info, err
}

// Look implements grid.Files.
func (f Files) Look(ctx context.Context, c cid.Cid) (grid.FileInfo, error) { return f.Stat(ctx, c) }

// Whole implements grid.Files.
func (f Files) Whole(ctx context.Context, c cid.Cid) (bool, error) {
	t, _, err := f.load(ctx, c)
	for _, e := range t.Entries {
		if err != nil {
			break
		}
		var ok bool
		if ok, err = f.Whole(ctx, e.CID.Cid); !ok && err == nil {
			return false, nil
		}
	}
	if grid.CodeOf(err) == grid.NotFound {
		return false, nil
	}
	return err == nil, err
}

// List implements grid.Files.
func (f Files) List(ctx context.Context, c cid.Cid) ([]grid.FileInfo, error) {
	t, _, err := f.load(ctx, c)
	if err == nil && t.Kind != grid.KindDir {
		err = grid.Errorf(grid.Invalid, "%s is a %s, not a folder", c, t.Kind)
	}
	return t.Entries, err
}

// Resolve implements grid.Files.
func (f Files) Resolve(ctx context.Context, c cid.Cid, p string) (cid.Cid, error) {
	for name := range strings.SplitSeq(p, "/") {
		list, err := f.List(ctx, c)
		if err != nil {
			return cid.Undef, err
		}
		i := slices.IndexFunc(list, func(e grid.FileInfo) bool { return e.Name == name })
		if i < 0 {
			return cid.Undef, grid.Errorf(grid.NotFound, "%s has no entry %q", c, name)
		}
		c = list[i].CID.Cid
	}
	return c, nil
}

// Open implements grid.Files.
func (f Files) Open(ctx context.Context, c cid.Cid) (io.ReadSeekCloser, error) {
	t, data, err := f.load(ctx, c)
	if err != nil {
		return nil, err
	}
	if t.Kind != grid.KindFile {
		return nil, grid.Errorf(grid.Invalid, "%s is a %s, not a file", c, t.Kind)
	}
	return struct {
		io.ReadSeeker
		io.Closer
	}{bytes.NewReader(data), io.NopCloser(nil)}, nil
}

// FS implements grid.Files; the tree is read at once.
func (f Files) FS(ctx context.Context, c cid.Cid) (fs.FS, error) {
	m := fstest.MapFS{}
	return m, f.fill(ctx, m, c, "")
}

func (f Files) fill(ctx context.Context, m fstest.MapFS, c cid.Cid, base string) error {
	list, err := f.List(ctx, c)
	if err != nil {
		return err
	}
	for _, e := range list {
		name := path.Join(base, e.Name)
		t, data, err := f.load(ctx, e.CID.Cid)
		if err != nil {
			return err
		}
		switch t.Kind {
		case grid.KindDir:
			m[name] = &fstest.MapFile{Mode: fs.ModeDir | 0o555}
			err = f.fill(ctx, m, e.CID.Cid, name)
		case grid.KindSymlink:
			m[name] = &fstest.MapFile{Mode: fs.ModeSymlink | 0o777, Data: []byte(t.Target)}
		default:
			m[name] = &fstest.MapFile{Mode: 0o444, Data: data}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Fetcher copies blocks from the stores of other nodes, whatever peer it is told to ask.
type Fetcher struct {
	Blocks *Blocks
	From   []*Blocks
}

// Fetch implements grid.Fetcher. It knows no limit.
func (f *Fetcher) Fetch(ctx context.Context, w grid.Want) error {
	if err := f.copy(ctx, w.Roots); err != nil || w.Shallow {
		return err
	}
	for _, c := range w.Roots {
		data, err := f.Blocks.Get(ctx, c)
		if err != nil {
			return err
		}
		if err := f.Fetch(ctx, grid.Want{Roots: links(c, data)}); err != nil {
			return err
		}
	}
	return nil
}

func (f *Fetcher) copy(ctx context.Context, blocks []cid.Cid) error {
next:
	for _, c := range blocks {
		if ok, _ := f.Blocks.Has(ctx, c); ok {
			continue
		}
		for _, b := range f.From {
			if b.Down() {
				continue
			}
			if data, err := b.Get(ctx, c); err == nil {
				block, err := grid.VerifyBlock(c, data)
				if err != nil {
					return err
				}
				if err := f.Blocks.Put(ctx, block); err != nil {
					return err
				}
				continue next
			}
		}
		return grid.Errorf(grid.Unavailable, "block %s: no node has it", c)
	}
	return nil
}

// Cache is a grid.Cache in memory.
type Cache struct {
	mu sync.Mutex
	m  map[grid.Key]grid.Receipt
}

// Lookup implements grid.Cache.
func (c *Cache) Lookup(_ context.Context, k grid.Key) (grid.Receipt, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.m[k]
	return r, ok, nil
}

// Remember implements grid.Cache.
func (c *Cache) Remember(_ context.Context, receipts ...grid.Receipt) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = make(map[grid.Key]grid.Receipt)
	}
	for _, r := range receipts {
		c.m[r.Key] = r
	}
	return nil
}

// Len is how many receipts are kept.
func (c *Cache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.m)
}

// Forget forgets all receipts.
func (c *Cache) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.m = nil
}

// Pull implements grid.Puller. It knows neither limits nor peers, only From, of which one must have each root.
func (f *Fetcher) Pull(ctx context.Context, _ peer.ID, roots []cid.Cid, _ int64, shallow bool) (map[cid.Cid]struct{}, error) {
	got := map[cid.Cid]struct{}{}
	for _, c := range roots {
		if !slices.ContainsFunc(f.From, func(b *Blocks) bool { has, _ := b.Has(ctx, c); return has }) {
			return nil, grid.Errorf(grid.NotFound, "it does not have %s, or does not give it", c)
		}
	}
	if err := f.Fetch(ctx, grid.Want{Roots: roots, Shallow: shallow}); err != nil {
		return nil, err
	}
	for _, c := range roots {
		if got[c] = struct{}{}; shallow {
			continue
		}
		if err := f.Blocks.walk(ctx, c, func(b grid.Block) error { got[b.CID()] = struct{}{}; return nil }); err != nil {
			return nil, err
		}
	}
	return got, nil
}

// Links are those of a block, as a node is told them.
func Links(c cid.Cid, data []byte) ([]cid.Cid, error) { return links(c, data), nil }
