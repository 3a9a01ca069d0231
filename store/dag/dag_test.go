package dag

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fxamacker/cbor/v2"
	chunk "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/ipld/merkledag"
	boxofs "github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	format "github.com/ipfs/go-ipld-format"
	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// blockMap is grid.Blocks in memory.
type blockMap struct{ m sync.Map }

func (b *blockMap) Put(ctx context.Context, bs ...grid.Block) error {
	for _, x := range bs {
		b.m.Store(string(x.CID().Hash()), bytes.Clone(x.Data()))
	}
	return ctx.Err()
}

func (b *blockMap) Get(_ context.Context, c cid.Cid) ([]byte, error) {
	if err := grid.CheckCID(c); err != nil {
		return nil, err
	}
	data, ok := b.m.Load(string(c.Hash()))
	if !ok {
		return nil, grid.Errorf(grid.NotFound, "block %s is not here", c)
	}
	return data.([]byte), nil
}

func (b *blockMap) Has(_ context.Context, c cid.Cid) (bool, error) {
	_, ok := b.m.Load(string(c.Hash()))
	return ok, nil
}

func (b *blockMap) Delete(_ context.Context, c cid.Cid) error {
	b.m.Delete(string(c.Hash()))
	return nil
}

func (b *blockMap) Sync(context.Context) error { return nil }

func TestContract(t *testing.T) {
	gridtest.TestFiles(t, func(*testing.T) grid.Files { return New(&blockMap{}) })
}

// reference is boxo's DAG service over blocks.
type reference struct {
	format.DAGService
	blocks grid.Blocks
}

func (r reference) Add(ctx context.Context, n format.Node) error {
	b, err := grid.VerifyBlock(n.Cid(), n.RawData())
	if err != nil {
		return err
	}
	return r.blocks.Put(ctx, b)
}

func (r reference) Get(ctx context.Context, c cid.Cid) (format.Node, error) {
	data, err := r.blocks.Get(ctx, c)
	if err != nil {
		return nil, err
	}
	if c.Prefix().Codec == cid.Raw {
		return merkledag.NewRawNodeWPrefix(data, c.Prefix())
	}
	return merkledag.DecodeProtobuf(data)
}

var profile = uio.UnixFS_v1_2025

func referenceFile(t *testing.T, data []byte, chunkSize int64, width int) cid.Cid {
	t.Helper()
	return referenceMode(t, data, chunkSize, width, 0)
}

// referenceMode is a file with a mode, whose leaves are raw unless it is a single one.
func referenceMode(t *testing.T, data []byte, chunkSize int64, width int, mode os.FileMode) cid.Cid {
	t.Helper()
	params := helpers.DagBuilderParams{
		Maxlinks: width, RawLeaves: mode == 0 || int64(len(data)) > chunkSize, FileMode: mode,
		CidBuilder: profile.CidBuilder(), Dagserv: reference{blocks: &blockMap{}},
	}
	db, err := params.New(chunk.NewSizeSplitter(bytes.NewReader(data), chunkSize))
	if err != nil {
		t.Fatal(err)
	}
	n, err := balanced.Layout(db)
	if err != nil {
		t.Fatal(err)
	}
	return n.Cid()
}

// TestFileCIDs holds our files against the reference.
func TestFileCIDs(t *testing.T) {
	ctx := t.Context()
	for _, size := range []int{0, 1, 1000, chunkSize - 1, chunkSize, chunkSize + 1, 2 * chunkSize, 3*chunkSize + 7} {
		data := bytes.Repeat([]byte("0123456789abcdefg"), size/17+1)[:size]
		c, _, err := New(&blockMap{}).Add(ctx, bytes.NewReader(data))
		if want := referenceFile(t, data, profile.ChunkSize, profile.FileDAGWidth); err != nil || c != want {
			t.Errorf("%d bytes: %s, %v; want %s", size, c, err, want)
		}
	}
	for leaves := 1; leaves < 100; leaves++ { // the shape of trees, with tiny leaves
		data := make([]byte, leaves)
		var parts []*part
		for i := range data {
			data[i] = byte(i)
			parts = append(parts, &part{grid.NewBlock(cid.Raw, data[i:i+1]).CID(), 1, 1})
		}
		p, err := New(&blockMap{}).layout(ctx, parts, 3)
		if want := referenceFile(t, data, 1, 3); err != nil || p.cid != want {
			t.Fatalf("%d leaves: %s, %v; want %s", leaves, p.cid, err, want)
		}
	}
}

// TestExecutableCIDs holds executable files against the reference.
func TestExecutableCIDs(t *testing.T) {
	ctx := t.Context()
	f := New(&blockMap{})
	for _, size := range []int{0, 1, 1000, chunkSize, chunkSize + 1, 3*chunkSize + 7} {
		data := bytes.Repeat([]byte("0123456789abcdefg"), size/17+1)[:size]
		cids, err := f.AddMany(ctx, []grid.Content{{Data: data, Exec: true}})
		if err != nil {
			t.Fatal(err)
		}
		if want := referenceMode(t, data, profile.ChunkSize, profile.FileDAGWidth, 0o755); cids[0] != want {
			t.Errorf("%d bytes: %s, want %s", size, cids[0], want)
		}
	}
	// A leaf that with a mode would be too large for a block is linked to.
	big := grid.NewBlock(cid.Raw, make([]byte, grid.MaxBlock))
	if err := f.blocks.Put(ctx, big); err != nil {
		t.Fatal(err)
	}
	c, err := f.Executable(ctx, big.CID())
	if err != nil {
		t.Fatal(err)
	}
	if info, err := f.Stat(ctx, c); err != nil || !info.Exec || info.Size != grid.MaxBlock {
		t.Errorf("Stat = %+v, %v", info, err)
	}
	if ok, err := f.Whole(ctx, c); !ok || err != nil {
		t.Errorf("Whole = %v, %v", ok, err)
	}
	if err := f.blocks.Delete(ctx, big.CID()); err != nil {
		t.Fatal(err)
	}
	if ok, err := f.Whole(ctx, c); ok || err != nil {
		t.Errorf("Whole without its leaf = %v, %v", ok, err)
	}
}

// TestFolderCIDs holds our folders against the reference, below and above where they become HAMTs, and
// has each read the other's.
func TestFolderCIDs(t *testing.T) {
	ctx := t.Context()
	for _, n := range []int{0, 1, 100, 2805, 2811, 2812, 2813, 2820, 8000} {
		blocks := &blockMap{}
		ref := reference{blocks: blocks}
		f := New(blocks)
		dir, err := uio.NewDirectory(ref, uio.WithCidBuilder(profile.CidBuilder()), uio.WithSizeEstimationMode(profile.HAMTSizeEstimation))
		if err != nil {
			t.Fatal(err)
		}
		var entries []grid.FileInfo
		large := n > 3000 // the reference is quadratic: have it begin as a HAMT
		if large {
			h, err := uio.NewHAMTDirectory(ref, 0, uio.WithCidBuilder(profile.CidBuilder()))
			if err != nil {
				t.Fatal(err)
			}
			dir = h
		}
		for i := range n {
			name := fmt.Sprintf("file-%d-%s", i, strings.Repeat("é", i%40))
			data := fmt.Appendf(nil, "%d", i)
			node, err := merkledag.NewRawNodeWPrefix(data, cid.NewPrefixV1(cid.Raw, 0x12))
			if err != nil {
				t.Fatal(err)
			}
			if err := dir.AddChild(ctx, name, node); err != nil {
				t.Fatal(err)
			}
			if err := blocks.Put(ctx, grid.NewBlock(cid.Raw, data)); err != nil {
				t.Fatal(err)
			}
			entries = append(entries, grid.FileInfo{Name: name, Kind: grid.KindFile, CID: grid.Link{Cid: node.Cid()}, Size: int64(len(data))})
		}
		node, err := dir.GetNode()
		if err != nil {
			t.Fatal(err)
		}
		c, _, err := f.AddTree(ctx, entries)
		if err != nil || c != node.Cid() {
			t.Errorf("%d entries: %s, %v; want %s", n, c, err, node.Cid())
			continue
		}
		list, err := f.List(ctx, c)
		if err != nil || len(list) != n {
			t.Errorf("%d entries: List gives %d, %v", n, len(list), err)
		}
	}

	// A tree of files, folders and symlinks.
	blocks := &blockMap{}
	ref := reference{blocks: blocks}
	f := New(blocks)
	big, size, err := f.Add(ctx, strings.NewReader(strings.Repeat("x", 3<<20)))
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := f.AddTree(ctx, []grid.FileInfo{
		{Name: "sub/big", Kind: grid.KindFile, CID: grid.Link{Cid: big}, Size: size},
		{Name: "sub/link", Kind: grid.KindSymlink, Target: "big"},
	})
	if err != nil {
		t.Fatal(err)
	}
	newDir := func() uio.Directory {
		d, err := uio.NewDirectory(ref, uio.WithCidBuilder(profile.CidBuilder()))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	sub, top := newDir(), newDir()
	bigNode, err := ref.Get(ctx, big)
	if err != nil {
		t.Fatal(err)
	}
	bigNode.(*merkledag.ProtoNode).SetCidBuilder(profile.CidBuilder())
	target, err := boxofs.SymlinkData("big")
	if err != nil {
		t.Fatal(err)
	}
	link := merkledag.NodeWithData(target)
	link.SetCidBuilder(profile.CidBuilder())
	if err := errors.Join(sub.AddChild(ctx, "big", bigNode), sub.AddChild(ctx, "link", link)); err != nil {
		t.Fatal(err)
	}
	subNode, _ := sub.GetNode()
	if err := top.AddChild(ctx, "sub", subNode); err != nil {
		t.Fatal(err)
	}
	if topNode, _ := top.GetNode(); topNode.Cid() != c {
		t.Errorf("tree %s, want %s", c, topNode.Cid())
	}
}

// TestKnownCIDs pins what everybody knows.
func TestKnownCIDs(t *testing.T) {
	f := New(&blockMap{})
	c, _, err := f.AddTree(t.Context(), nil)
	if want := "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"; err != nil || c.String() != want {
		t.Errorf("empty folder: %s, %v; want %s", c, err, want)
	}
	c, _, err = f.Add(t.Context(), strings.NewReader(""))
	if want := "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"; err != nil || c.String() != want {
		t.Errorf("empty file: %s, %v; want %s", c, err, want)
	}
}

func pbBlock(n pbNode) grid.Block { return grid.NewBlock(cid.DagProtobuf, appendPB(nil, n)) }

// TestHostile opens DAGs that lie.
func TestHostile(t *testing.T) {
	ctx := t.Context()
	blocks := &blockMap{}
	f := New(blocks)
	leaf := grid.NewBlock(cid.Raw, []byte("leaf"))
	put := func(b grid.Block) cid.Cid {
		if err := blocks.Put(ctx, b); err != nil {
			t.Fatal(err)
		}
		return b.CID()
	}
	put(leaf)
	file := func(size uint64, child cid.Cid, sizes ...uint64) cid.Cid {
		n := pbNode{data: appendUnixFS(nil, unixfs{typ: typeFile, size: size, sizes: sizes})}
		for range sizes {
			n.links = append(n.links, pbLink{CID: child})
		}
		return put(pbBlock(n))
	}
	read := func(c cid.Cid) error {
		r, err := f.Open(ctx, c)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, r)
		return err
	}
	deep := leaf.CID()
	for range 40 {
		deep = file(4, deep, 4)
	}
	dir := func(links ...pbLink) cid.Cid {
		return put(pbBlock(pbNode{data: appendUnixFS(nil, unixfs{typ: typeDirectory}), links: links}))
	}
	shard := func(fanout uint64, links ...pbLink) cid.Cid {
		return put(pbBlock(pbNode{data: appendUnixFS(nil, unixfs{typ: typeShard, data: []byte{1}, hash: shardHash, fanout: fanout}), links: links}))
	}
	deepShard := shard(256)
	for range 20 {
		deepShard = shard(256, pbLink{Name: "00", CID: deepShard})
	}

	for _, tt := range []struct {
		name string
		c    cid.Cid
		want grid.Code
	}{
		{"size of a part", file(5, leaf.CID(), 5), grid.Invalid},
		{"size of the whole", file(5, leaf.CID(), 4), grid.Invalid},
		{"overflow", file(3, leaf.CID(), 1<<63+4, 1<<63-1), grid.Invalid},
		{"absurd size", file(1<<61, leaf.CID(), 1<<61), grid.Invalid},
		{"depth", deep, grid.Invalid},
		{"a folder as a part", file(4, dir(), 4), grid.Invalid},
		{"garbage", put(grid.NewBlock(cid.DagProtobuf, []byte{0xff, 0xff})), grid.Invalid},
		{"no UnixFS", put(pbBlock(pbNode{})), grid.Invalid},
		{"other codec", put(grid.NewBlock(cid.DagCBOR, []byte{0xa0})), grid.Unsupported},
	} {
		if err := read(tt.c); !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.want)
		}
	}
	for _, tt := range []struct {
		name string
		c    cid.Cid
		want grid.Code
	}{
		{"slash", dir(pbLink{Name: "a/b", CID: leaf.CID()}), grid.Invalid},
		{"dots", dir(pbLink{Name: "..", CID: leaf.CID()}), grid.Invalid},
		{"twice", dir(pbLink{Name: "a", CID: leaf.CID()}, pbLink{Name: "a", CID: leaf.CID()}), grid.Invalid},
		{"no name", dir(pbLink{CID: leaf.CID()}), grid.Invalid},
		{"deep shards", deepShard, grid.Invalid},
		{"wide shards", shard(1<<40, pbLink{Name: "00a", CID: leaf.CID()}), grid.Unsupported},
		{"short link", shard(256, pbLink{Name: "0", CID: leaf.CID()}), grid.Invalid},
		{"no shard", shard(256, pbLink{Name: "00", CID: leaf.CID()}), grid.Invalid},
	} {
		if _, err := f.List(ctx, tt.c); !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.want)
		}
	}

	// A file of 4 EiB and a folder of 2^60 entries are no trouble until somebody reads them whole.
	c := leaf.CID()
	for size := uint64(4); size < 1<<50; size *= 1024 {
		c = file(1024*size, c, slices.Repeat([]uint64{size}, 1024)...)
	}
	r, err := f.Open(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Seek(-6, io.SeekEnd); err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(r); string(data) != "afleaf" || err != nil {
		t.Errorf("end of a huge file: %q, %v", data, err)
	}
	d := dir(pbLink{Name: "a", CID: c})
	for range 60 {
		d = dir(pbLink{Name: "a", CID: d}, pbLink{Name: "b", CID: d})
	}
	if info, err := f.Stat(ctx, d); err != nil || info.Size != maxContent {
		t.Errorf("Stat of a huge folder = %+v, %v", info, err)
	}
}

func TestLinks(t *testing.T) {
	a, b := grid.NewBlock(cid.Raw, []byte("a")).CID(), grid.NewBlock(cid.Raw, []byte("b")).CID()
	record, err := grid.EncodeBlock(map[string]any{
		"x": grid.Link{Cid: a}, "y": []any{1, "s", -5, 1.5, true, nil, []byte{42}, grid.Link{Cid: b}, map[string]any{"z": grid.Link{Cid: a}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	node := pbBlock(pbNode{links: []pbLink{{"n", 3, b}, {"m", 4, a}}, data: []byte("d")})
	for _, tt := range []struct {
		c    cid.Cid
		data []byte
		want []cid.Cid
	}{
		{a, []byte("a"), nil},
		{record.CID(), record.Data(), []cid.Cid{a, b, a}},
		{node.CID(), node.Data(), []cid.Cid{b, a}},
	} {
		if got, err := Links(tt.c, tt.data); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("Links of %x = %v, %v; want %v", tt.data, got, err, tt.want)
		}
	}
	for _, bad := range [][]byte{
		{}, {0x9f}, {0x82, 1}, {0xd8, 42, 0x41, 0}, {0xd8, 42, 0x42, 0, 1}, {0xd8, 42, 1}, {1, 1}, {0x5b, 255, 255, 255, 255, 255, 255, 255, 255},
		{0x9b, 255, 255, 255, 255, 255, 255, 255, 255}, {0xbb, 128, 0, 0, 0, 0, 0, 0, 1}, bytes.Repeat([]byte{0x81}, 100), {0x1c},
	} {
		if links, err := Links(grid.NewBlock(cid.DagCBOR, bad).CID(), bad); !errors.Is(err, grid.Invalid) {
			t.Errorf("Links of %x = %v, %v; want Invalid", bad, links, err)
		}
	}
	if _, err := Links(cid.NewCidV1(cid.GitRaw, a.Hash()), nil); !errors.Is(err, grid.Unsupported) {
		t.Errorf("unknown codec: %v", err)
	}
}

func TestWalk(t *testing.T) {
	blocks := &blockMap{}
	a, b := grid.NewBlock(cid.Raw, []byte("a")), grid.NewBlock(cid.Raw, []byte("b"))
	sub := pbBlock(pbNode{links: []pbLink{{"b", 1, b.CID()}, {"a", 1, a.CID()}}})
	root := pbBlock(pbNode{links: []pbLink{{"s", 1, sub.CID()}, {"a", 1, a.CID()}, {"s2", 1, sub.CID()}}})
	if err := blocks.Put(t.Context(), a, b, sub, root); err != nil {
		t.Fatal(err)
	}
	var got []cid.Cid
	err := Walk(t.Context(), blocks, root.CID(), func(c cid.Cid, _ []byte) error { got = append(got, c); return nil })
	if want := []cid.Cid{root.CID(), sub.CID(), b.CID(), a.CID()}; err != nil || !slices.Equal(got, want) {
		t.Errorf("Walk visits %v, %v; want %v", got, err, want)
	}
}

// FuzzLinks compares with the reference decoders: what they accept, Links reads in the same way.
func FuzzLinks(f *testing.F) {
	a := grid.NewBlock(cid.Raw, []byte("a")).CID()
	f.Add(pbBlock(pbNode{links: []pbLink{{"n", 3, a}}, data: []byte("d")}).Data())
	f.Add(pbBlock(pbNode{data: appendUnixFS(nil, unixfs{typ: typeFile, size: 4, sizes: []uint64{4}})}).Data())
	rec, _ := grid.EncodeBlock([]any{grid.Link{Cid: a}, map[string]any{"x": 1.5}})
	f.Add(rec.Data())
	f.Add([]byte("\x12+\n'\x010\x12 00000000000000000000000000000000000\x180\n\x010")) // a CID, and three bytes more
	f.Fuzz(func(t *testing.T, data []byte) {
		pb := grid.NewBlock(cid.DagProtobuf, data).CID()
		links, err := Links(pb, data)
		if n, rerr := merkledag.DecodeProtobuf(data); rerr == nil {
			var want []cid.Cid
			for _, l := range n.Links() {
				want = append(want, l.Cid)
			}
			// The reference takes a CID whose hash is cut short, which names nothing that could be fetched.
			odd := slices.ContainsFunc(want, func(c cid.Cid) bool { return grid.CheckCID(c) != nil })
			// Nor does it mind what lies behind one.
			if again, _ := n.EncodeProtobuf(true); len(again) < len(data) && err != nil && strings.Contains(err.Error(), "not a CID") {
				odd = true
			}
			if !odd && (err != nil || !slices.Equal(links, want)) {
				t.Errorf("dag-pb: %v, %v; want %v", links, err, want)
			}
		}
		if n, err := parse(pb, data); err == nil {
			if n.kind() == grid.KindFile && len(n.sizes) != len(n.links) {
				t.Error("sizes do not match links")
			}
		}
		_, err = Links(grid.NewBlock(cid.DagCBOR, data).CID(), data)
		if mode, _ := (cbor.DecOptions{IndefLength: cbor.IndefLengthForbidden, MaxNestedLevels: 32}).DecMode(); mode.Wellformed(data) == nil {
			if err != nil && !strings.Contains(err.Error(), "tag 42") && !strings.Contains(err.Error(), "CID") {
				t.Errorf("well-formed CBOR %x is refused: %v", data, err)
			}
		}
	})
}

func BenchmarkAdd(b *testing.B) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 64<<20/16)
	b.Run("64MiB", func(b *testing.B) {
		b.SetBytes(int64(len(big)))
		for b.Loop() {
			if _, _, err := New(&blockMap{}).Add(b.Context(), bytes.NewReader(big)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("64MiB/sha256", func(b *testing.B) {
		b.SetBytes(int64(len(big)))
		for b.Loop() {
			sha256.Sum256(big)
		}
	})
	small := make([]byte, 10<<10)
	b.Run("10KiB", func(b *testing.B) {
		f := New(&blockMap{})
		b.ReportAllocs()
		b.SetBytes(int64(len(small)))
		for i := 0; b.Loop(); i++ {
			small[0], small[1], small[2] = byte(i), byte(i>>8), byte(i>>16)&3
			if _, _, err := f.Add(b.Context(), bytes.NewReader(small)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	f := New(&blockMap{})
	c, n, err := f.Add(b.Context(), bytes.NewReader(bytes.Repeat([]byte("0123456789abcdef"), 64<<20/16)))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(n)
	for b.Loop() {
		r, err := f.Open(b.Context(), c)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			b.Fatal(err)
		}
	}
}

// TestHugeFolder: a folder of 200,000 entries is listed whole and in order, and any one is found by reading few
// blocks.
func TestHugeFolder(t *testing.T) {
	n := 200_000
	if testing.Short() {
		n = 20_000
	}
	ctx := t.Context()
	blocks := &countedBlocks{}
	f := New(blocks)
	leaf, size, err := f.Add(ctx, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	entries := make([]grid.FileInfo, n)
	for i := range entries {
		entries[i] = grid.FileInfo{Name: fmt.Sprintf("file-%06d", (i*7919)%n), Kind: grid.KindFile, CID: grid.Link{Cid: leaf}, Size: size}
	}
	root, total, err := f.AddTree(ctx, entries)
	if err != nil || total != int64(n) {
		t.Fatalf("AddTree = %d, %v", total, err)
	}
	list, err := f.List(ctx, root)
	if err != nil || len(list) != n {
		t.Fatalf("%d entries, %v", len(list), err)
	}
	for i, e := range list {
		if want := fmt.Sprintf("file-%06d", i); e.Name != want || e.Size != 1 {
			t.Fatalf("entry %d is %+v, want %s", i, e, want)
		}
	}
	for _, i := range []int{0, 1, n / 2, n - 1} {
		before := blocks.gets.Load()
		c, err := f.Resolve(ctx, root, fmt.Sprintf("file-%06d", i))
		if err != nil || c != leaf {
			t.Errorf("entry %d: %s, %v", i, c, err)
		}
		if n := blocks.gets.Load() - before; n > shardDepth {
			t.Errorf("%d blocks were read to find one of the entries", n)
		}
	}
	if _, err := f.Resolve(ctx, root, "file-none"); !errors.Is(err, grid.NotFound) {
		t.Errorf("what is not there: %v", err)
	}
}

// countedBlocks counts reads.
type countedBlocks struct {
	blockMap
	gets atomic.Int64
}

func (b *countedBlocks) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	b.gets.Add(1)
	return b.blockMap.Get(ctx, c)
}

func TestSurveyor(t *testing.T) {
	gridtest.TestSurveyor(t, func(t *testing.T) gridtest.SurveyNode {
		blocks := &blockMap{}
		f := New(blocks)
		return gridtest.SurveyNode{Blocks: blocks, Files: f, Surveyor: f}
	})
}

// TestEmptyShards: sixteen blocks that claim to be 256^16 parts of a folder, and hold nothing.
func TestEmptyShards(t *testing.T) {
	blocks := &blockMap{}
	var below cid.Cid
	for level := range shardDepth {
		n := pbNode{data: appendUnixFS(nil, unixfs{typ: typeShard, hash: shardHash, fanout: shardWidth})}
		for i := range shardWidth {
			if level > 0 {
				n.links = append(n.links, pbLink{Name: fmt.Sprintf("%02X", i), CID: below})
			}
		}
		b := grid.NewBlock(cid.DagProtobuf, appendPB(nil, n))
		if err := blocks.Put(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		below = b.CID()
	}
	if _, err := New(blocks).List(t.Context(), below); !errors.Is(err, grid.Invalid) {
		t.Errorf("List: %v", err)
	}
	n := 0
	count := func(cid.Cid, []byte) error { n++; return nil }
	if err := NewWalker(blocks).Entity(t.Context(), below, nil, count); err != nil || n != shardDepth {
		t.Errorf("Entity: %d blocks, %v", n, err)
	}
}

// TestHostileFiles: a file whose parts are not what it says has no parts to be picked.
func TestHostileFiles(t *testing.T) {
	blocks := &blockMap{}
	leaf := grid.NewBlock(cid.Raw, []byte("0123456789"))
	file := func(size uint64, parts ...cid.Cid) cid.Cid {
		u := unixfs{typ: typeFile, size: size * uint64(len(parts))}
		n := pbNode{}
		for _, c := range parts {
			u.sizes = append(u.sizes, size)
			n.links = append(n.links, pbLink{Size: size, CID: c})
		}
		n.data = appendUnixFS(nil, u)
		b := grid.NewBlock(cid.DagProtobuf, appendPB(nil, n))
		if err := blocks.Put(t.Context(), b, leaf); err != nil {
			t.Fatal(err)
		}
		return b.CID()
	}
	dir := file(0) // an empty file, and as such no folder
	visit := func(cid.Cid, []byte) error { return nil }
	few := &grid.ByteRange{From: 1, To: 2}
	for name, c := range map[string]cid.Cid{
		"a part that is smaller": file(1000, leaf.CID(), leaf.CID()),
		"a part that is empty":   file(10, dir, leaf.CID()),
	} {
		if err := NewWalker(blocks).Entity(t.Context(), c, few, visit); !errors.Is(err, grid.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	deep := leaf.CID()
	for range maxDepth + 5 { // a chain of nodes with one link, none of which is inside of the range
		deep = file(10, deep)
	}
	two := file(10, deep, leaf.CID())
	n := 0
	if err := NewWalker(blocks).Entity(t.Context(), two, few, func(cid.Cid, []byte) error { n++; return nil }); !errors.Is(err, grid.Invalid) {
		t.Errorf("a chain: %d blocks, %v", n, err)
	}
	// A huge file of few blocks: only its edges are gone into.
	huge, size := leaf.CID(), uint64(10)
	for range 12 {
		parts := make([]cid.Cid, 16)
		for i := range parts {
			parts[i] = huge
		}
		huge, size = file(size, parts...), size*16
	}
	n = 0
	part := &grid.ByteRange{From: 5, To: -5}
	if err := NewWalker(blocks).Entity(t.Context(), huge, part, func(cid.Cid, []byte) error { n++; return nil }); err != nil || n != 13 {
		t.Errorf("a huge file: %d blocks, %v", n, err)
	}
	x, err := New(blocks).Survey(t.Context(), huge)
	if err != nil || x.Blocks != 13 || x.Size != int64(size) {
		t.Errorf("%+v, %v", x, err)
	}
}
