package store

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/cache"
)

// BenchmarkHot reads small blocks and lists a folder of 1,000 files again and again, without the cache and
// with it.
func BenchmarkHot(b *testing.B) {
	for name, size := range map[string]int64{"without": 0, "with": cache.DefaultSize} {
		s, err := Open(b.Context(), Config{Dir: b.TempDir(), Cache: size})
		if err != nil {
			b.Fatal(err)
		}
		var blocks []grid.Block
		for i := range 1000 {
			blocks = append(blocks, grid.NewBlock(cid.Raw, fmt.Append(make([]byte, 4090), i)))
		}
		if err := s.Blocks().Put(b.Context(), blocks...); err != nil {
			b.Fatal(err)
		}
		if err := s.Blocks().Sync(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.Run("get-4KiB/"+name, func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				if _, err := s.Blocks().Get(b.Context(), blocks[i%len(blocks)].CID()); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("absent/"+name, func(b *testing.B) {
			absent := grid.NewBlock(cid.Raw, []byte("absent")).CID()
			for b.Loop() {
				if ok, err := s.Blocks().Has(b.Context(), absent); ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
		var entries []grid.FileInfo
		for i := range 1000 {
			c, n, err := s.Files().Add(b.Context(), strings.NewReader(fmt.Sprint(i)))
			if err != nil {
				b.Fatal(err)
			}
			entries = append(entries, grid.FileInfo{Name: fmt.Sprintf("%02d/%d", i%10, i), CID: grid.Link{Cid: c}, Kind: grid.KindFile, Size: n})
		}
		root, _, err := s.Files().AddTree(b.Context(), entries)
		if err != nil {
			b.Fatal(err)
		}
		b.Run("list/"+name, func(b *testing.B) {
			for b.Loop() {
				list, err := s.Files().List(b.Context(), root)
				if err != nil || len(list) != 10 {
					b.Fatal(len(list), err)
				}
				for _, e := range list {
					if _, err := s.Files().List(b.Context(), e.CID.Cid); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
