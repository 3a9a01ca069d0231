package dag

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

// aheadMap notes what is asked for ahead of need.
type aheadMap struct {
	blockMap
	asked []cid.Cid
}

func (b *aheadMap) GetAhead(ctx context.Context, c cid.Cid, next []cid.Cid) ([]byte, error) {
	b.asked = next
	return b.Get(ctx, c)
}

// TestAhead: the more of a file was read in order, the more is asked for ahead, and nothing while a reader jumps
// about.
func TestAhead(t *testing.T) {
	ctx := t.Context()
	blocks := &aheadMap{}
	f := New(blocks)
	data := make([]byte, 40*chunkSize)
	for i := range 40 {
		data[i*chunkSize] = byte(i)
	}
	c, _, err := f.Add(ctx, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	root, err := f.load(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Open(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	read := func(leaf, want int) {
		t.Helper()
		blocks.asked = nil
		if _, err := r.Seek(int64(leaf)*chunkSize, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		var next []cid.Cid
		for _, l := range root.links[leaf+1:][:want] {
			next = append(next, l.CID)
		}
		if !slices.Equal(blocks.asked, next) {
			t.Errorf("leaf %d: asked for %d blocks ahead, want the next %d", leaf, len(blocks.asked), want)
		}
	}
	for i, want := range []int{1, 3, 7, 8, 8} {
		read(i, want)
	}
	read(20, 0)
	read(10, 0)
	read(11, 1)
	read(12, 3)
	read(39, 0)
	read(38, 0)
	read(39, 0) // nothing is left
}

// TestAheadFolder: one who goes through a folder in order has its neighbours asked for, whether it looks at
// entries before it opens them or not.
func TestAheadFolder(t *testing.T) {
	ctx := t.Context()
	blocks := &aheadMap{}
	f := New(blocks)
	var entries []grid.FileInfo
	for i := range 100 {
		c, size, err := f.Add(ctx, bytes.NewReader([]byte{byte(i)}))
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, grid.FileInfo{Name: fmt.Sprintf("%02d", i), Kind: grid.KindFile, CID: grid.Link{Cid: c}, Size: size})
	}
	root, _, err := f.AddTree(ctx, entries)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := f.FS(ctx, root)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{1, 3, 7, 15, 31, 63, 64, 64} {
		blocks.asked = nil
		if _, err := tree.(*fileSystem).Stat(entries[i].Name); err != nil {
			t.Fatal(err)
		}
		if len(blocks.asked) != want || blocks.asked[0] != entries[i+1].CID.Cid {
			t.Errorf("entry %d: asked for %d ahead, want %d", i, len(blocks.asked), want)
		}
		blocks.asked = nil
		if file, err := tree.Open(entries[i].Name); err != nil || len(blocks.asked) > 0 {
			t.Errorf("entry %d: opened with %d ahead, %v", i, len(blocks.asked), err)
		} else {
			file.Close()
		}
	}
	if _, err := tree.Open("50"); err != nil || len(blocks.asked) > 0 {
		t.Errorf("a jump: %d ahead, %v", len(blocks.asked), err)
	}
}
