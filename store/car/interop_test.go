package car

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	carv2 "github.com/ipld/go-car/v2"
	"github.com/ipld/go-car/v2/storage"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/dag"
)

// sample stores a folder with all kinds of nodes, sharded ones among them.
func sample(t testing.TB, blocks grid.Blocks) cid.Cid {
	t.Helper()
	ctx := context.Background()
	f := dag.New(blocks)
	add := func(name, text string) grid.FileInfo {
		c, size, err := f.Add(ctx, strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return grid.FileInfo{Name: name, Kind: grid.KindFile, CID: grid.Link{Cid: c}, Size: size}
	}
	entries := []grid.FileInfo{
		add("hello", "hello world"), add("none", ""), add("d/zeros", strings.Repeat("\x00", 3<<20)),
		add("d/large", strings.Repeat("some text that is long, ", 100_000)),
		{Name: "link", Kind: grid.KindSymlink, Target: "d/large"}, {Name: "bare", Kind: grid.KindDir},
	}
	for i := range 3000 {
		e := add("", "in a large folder")
		e.Name = "wide/" + strings.Repeat("x", 80) + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676))
		entries = append(entries, e)
	}
	c, _, err := f.AddTree(ctx, entries)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func export(t testing.TB, blocks grid.Blocks, roots ...cid.Cid) []byte {
	t.Helper()
	var parts []grid.Selection
	for _, c := range roots {
		parts = append(parts, grid.Selection{Root: c})
	}
	var b bytes.Buffer
	if err := New(blocks).Export(context.Background(), &b, parts...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestFixtures: CIDs and a file that are published facts.
func TestFixtures(t *testing.T) {
	ctx := t.Context()
	blocks := newBlocks()
	f := dag.New(blocks)
	hello, _, err := f.Add(ctx, strings.NewReader("hello world"))
	if err != nil {
		t.Fatal(err)
	}
	none, _, err := f.Add(ctx, strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	bare, _, err := f.AddTree(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]cid.Cid{
		"bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e": hello,
		"bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku": none,
		"bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354": bare,
	} {
		if c.String() != want {
			t.Errorf("got %s, want %s", c, want)
		}
		to := newBlocks()
		in, err := New(to).Import(ctx, bytes.NewReader(export(t, blocks, c)), false)
		if err != nil || in.Blocks != 1 || in.Roots[0].CID.Cid != c || to.dirty != 0 {
			t.Errorf("%s: %+v, %v, %d blocks are not durable", want, in, err, to.dirty)
		}
	}

	// The example of the CARv1 specification: two roots, three codecs, CIDs of both versions.
	file, err := os.ReadFile("testdata/carv1-basic.car")
	if err != nil {
		t.Fatal(err)
	}
	to := newBlocks()
	in, err := New(to).Import(ctx, bytes.NewReader(file), false)
	if err != nil || in.Blocks != 8 || len(in.Roots) != 2 ||
		in.Roots[0].CID.String() != "bafyreihyrpefhacm6kkp4ql6j6udakdit7g3dmkzfriqfykhjw6cad5lrm" ||
		in.Roots[1].CID.String() != "bafyreidj5idub6mapiupjwjsyyxhyhedxycv4vihfsicm2vt46o7morwlm" {
		t.Fatalf("%+v, %v", in, err)
	}
	again := export(t, to, in.Roots[0].CID.Cid, in.Roots[1].CID.Cid)
	if len(again) != len(file) || !bytes.Equal(again[:100], file[:100]) { // the order of the blocks is ours
		t.Errorf("written again it has %d bytes, want %d", len(again), len(file))
	}
}

// TestOursReadByGoCar: the common library reads what we write, and writes the same.
func TestOursReadByGoCar(t *testing.T) {
	blocks := newBlocks()
	root := sample(t, blocks)
	file := export(t, blocks, root)
	r, err := carv2.NewBlockReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	if r.Version != 1 || len(r.Roots) != 1 || r.Roots[0] != root {
		t.Errorf("version %d, roots %v", r.Version, r.Roots)
	}
	var theirs bytes.Buffer
	w, err := storage.NewWritable(&theirs, r.Roots, carv2.WriteAsCarV1(true))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for {
		b, err := r.Next() // it checks the hash
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Put(t.Context(), b.Cid().KeyString(), b.RawData()); err != nil {
			t.Fatal(err)
		}
		n++
	}
	if err := w.Finalize(); err != nil {
		t.Fatal(err)
	}
	if n != len(blocks.data) {
		t.Errorf("%d blocks, want %d", n, len(blocks.data))
	}
	if !bytes.Equal(theirs.Bytes(), file) {
		t.Error("the same blocks written by the common library give another file")
	}
}

// TestGoCarReadByOurs: files of both versions, with an index and without.
func TestGoCarReadByOurs(t *testing.T) {
	blocks := newBlocks()
	root := sample(t, blocks)
	v1 := export(t, blocks, root)
	dir := t.TempDir()
	plain, wrapped := filepath.Join(dir, "1.car"), filepath.Join(dir, "2.car")
	if err := os.WriteFile(plain, v1, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := carv2.WrapV1File(plain, wrapped); err != nil {
		t.Fatal(err)
	}
	made := filepath.Join(dir, "3.car")
	f, err := os.Create(made)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := storage.NewReadableWritable(f, []cid.Cid{root}, carv2.UseDataPadding(77), carv2.UseIndexPadding(33))
	if err != nil {
		t.Fatal(err)
	}
	for hash, data := range blocks.data { // in any order
		codec := uint64(cid.Raw)
		if _, err := dag.Links(cid.NewCidV1(cid.DagProtobuf, []byte(hash)), data); err == nil && len(data) > 0 && len(data) != 1<<20 {
			codec = cid.DagProtobuf
		}
		if err := w.Put(t.Context(), cid.NewCidV1(codec, []byte(hash)).KeyString(), data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Finalize(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{plain, wrapped, made} {
		file, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		to := newBlocks()
		in, err := New(to).Import(t.Context(), bytes.NewReader(file), false)
		if err != nil || in.Blocks != int64(len(blocks.data)) || len(in.Roots) != 1 || in.Roots[0].CID.Cid != root {
			t.Errorf("%s: %+v, %v", filepath.Base(name), in, err)
			continue
		}
		if !bytes.Equal(export(t, to, root), v1) {
			t.Errorf("%s: what was imported differs", filepath.Base(name))
		}
	}
}
