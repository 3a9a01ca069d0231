package dag

import (
	"bytes"
	"testing"

	"github.com/ipfs/go-cid"
)

func TestSizes(t *testing.T) {
	blocks := &blockMap{}
	f := New(blocks)
	c, _, err := f.Add(t.Context(), bytes.NewReader(make([]byte, chunkSize*2+5)))
	if err != nil {
		t.Fatal(err)
	}
	data, err := blocks.Get(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	links, err := Links(c, data)
	if err != nil {
		t.Fatal(err)
	}
	sizes := Sizes(c, data)
	if len(sizes) != len(links) {
		t.Fatalf("%d sizes of %d links", len(sizes), len(links))
	}
	for i, l := range links {
		if leaf, err := blocks.Get(t.Context(), l); err != nil || uint64(len(leaf)) != sizes[i] {
			t.Errorf("leaf %d: size %d, has %d bytes, %v", i, sizes[i], len(leaf), err)
		}
	}
	if got := Sizes(c, data[:len(data)-1]); got != nil {
		t.Errorf("of a malformed block: %v", got)
	}
	for _, codec := range []uint64{cid.Raw, cid.DagCBOR} {
		if got := Sizes(cid.NewCidV1(codec, c.Hash()), data); got != nil {
			t.Errorf("codec 0x%x: %v", codec, got)
		}
	}
}
