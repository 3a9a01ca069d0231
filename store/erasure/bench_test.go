package erasure

import (
	"context"
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/klauspost/reedsolomon"

	"github.com/wasmgrid/wasmgrid/grid"
)

// sink takes blocks and forgets them, so that what is measured is coding; it reads from another store.
type sink struct{ *memory }

func (s sink) Put(context.Context, ...grid.Block) error { return nil }

var benchShapes = []struct {
	name string
	make func(testing.TB, grid.Blocks) cid.Cid
}{
	{"64 MiB file", func(t testing.TB, s grid.Blocks) cid.Cid { return file(t, s, random(1, 64<<20)).CID.Cid }},
	{"2000 files of 10 KB", func(t testing.TB, s grid.Blocks) cid.Cid { return leaves(2000, 10_000)(t, s) }},
	{"5000 small files", smallFiles(5000)},
}

// BenchmarkEncode has its ceilings beside it: Reed-Solomon alone, and the hashing that reading data and
// naming parity takes. It tells what is kept besides the data, in per cent of it.
func BenchmarkEncode(b *testing.B) {
	p := Params{4, 2}
	for _, shape := range benchShapes {
		s := newMemory()
		root := shape.make(b, s)
		b.Run(shape.name, func(b *testing.B) {
			var m *Manifest
			for b.Loop() {
				var err error
				if m, err = Encode(b.Context(), sink{s}, root, p); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(int64(m.Bytes()))
			st := m.Stat()
			percent := func(n uint64) float64 { return 100 * float64(n) / float64(m.Bytes()) }
			b.ReportMetric(percent(st.Parity.Bytes), "%parity")
			b.ReportMetric(percent(uint64(p.M)*st.Index.Bytes), "%index")
			b.ReportMetric(percent(uint64(p.Columns())*st.Records.Bytes), "%manifest")
		})
	}
	b.Run("reedsolomon alone", func(b *testing.B) {
		rs, err := reedsolomon.New(4, 2, reedsolomon.WithCauchyMatrix())
		if err != nil {
			b.Fatal(err)
		}
		var shards [][]byte
		for i := range 6 {
			shards = append(shards, random(uint64(i), 1<<20))
		}
		b.SetBytes(4 << 20)
		b.RunParallel(func(pb *testing.PB) {
			mine := append(shards[:4:4], make([]byte, 1<<20), make([]byte, 1<<20))
			for pb.Next() {
				if err := rs.Encode(mine); err != nil {
					b.Error(err)
				}
			}
		})
	})
	b.Run("sha256 alone, data and parity", func(b *testing.B) {
		data := random(1, 1<<20)
		b.SetBytes(1 << 20)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				sha256.Sum256(data)
				sha256.Sum256(data[:1<<19])
			}
		})
	})
}

// BenchmarkRebuild brings back what two of six columns have lost, from what is here. Bytes are those that
// are rebuilt.
func BenchmarkRebuild(b *testing.B) {
	for _, shape := range benchShapes[:2] {
		for _, lost := range [][]int{{0}, {0, 3}} {
			s := newMemory()
			n := spread(b, s, shape.make(b, s), Params{4, 2})
			var want []cid.Cid
			size := 0
			for _, c := range lost {
				for sh := range n.m.Shards(c) {
					if sh.Group >= 0 {
						want = append(want, sh.CID)
						size += sh.Size
						s.Delete(b.Context(), sh.CID)
					}
				}
			}
			b.Run(fmt.Sprintf("%s/%d lost", shape.name, len(lost)), func(b *testing.B) {
				for b.Loop() {
					if err := Rebuild(b.Context(), n.m, nil, nil, sink{s}, want); err != nil {
						b.Fatal(err)
					}
				}
				b.SetBytes(int64(size))
			})
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	s := newMemory()
	m, err := Encode(b.Context(), s, leaves(20_000, 10)(b, s), Params{4, 2})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Load(b.Context(), s.Get, m.CID()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(m.data)), "ns/block")
}
