package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p"
	"github.com/wasmgrid/wasmgrid/store/exchange"
)

// fill stores a root over n random blocks and returns its CID.
func (m *mover) fill(b *testing.B, n, size int) cid.Cid {
	b.Helper()
	r := rand.NewChaCha8([32]byte{byte(n)})
	var links []grid.Link
	for i := range n {
		data := make([]byte, size)
		_, _ = r.Read(data)
		binary.LittleEndian.PutUint32(data, uint32(i))
		blk := grid.NewBlock(cid.Raw, data)
		if err := m.blocks.Put(b.Context(), blk); err != nil {
			b.Fatal(err)
		}
		links = append(links, grid.Link{Cid: blk.CID()})
	}
	root, err := grid.EncodeBlock(links)
	if err == nil {
		err = m.blocks.Put(b.Context(), root)
	}
	if err == nil {
		err = m.blocks.Sync(b.Context())
	}
	if err != nil {
		b.Fatal(err)
	}
	return root.CID()
}

// hook lets a benchmark change what an exchange stores to.
type hook struct{ grid.Blocks }

// BenchmarkTransfer fetches a DAG from disk to disk, from one node and from two, and from memory to nowhere
// with one hash on the way, which shows what the exchange itself takes; each beside pouring as many bytes
// through one stream in the same run. Both ends share this machine's cores.
func BenchmarkTransfer(b *testing.B) {
	for _, tt := range []struct {
		name    string
		n, size int
		from    int
		disk    bool
	}{
		{"big/disk", 256, 1 << 20, 1, true},
		{"big/disk-of-two", 256, 1 << 20, 2, true},
		{"big/memory", 256, 1 << 20, 1, false},
		{"small/disk", 10_000, 10_000, 1, true},
		{"small/disk-of-two", 10_000, 10_000, 2, true},
		{"small/memory", 10_000, 10_000, 1, false},
	} {
		b.Run(tt.name, func(b *testing.B) {
			dst := openMover(b)
			w := grid.Want{}
			for range tt.from {
				src := openMover(b)
				if tt.disk {
					defer src.store(b)()
				} else {
					src.blocks = &inMemory{data: map[cid.Cid][]byte{}}
				}
				src.x = exchange.New(exchange.Config{Blocks: src.blocks, Network: src.host})
				defer src.x.Close()
				w.Roots, w.From = []cid.Cid{src.fill(b, tt.n, tt.size)}, append(w.From, src.host.Self())
				src.host.Handle("source/1", func(_ context.Context, _ peer.ID, s grid.Stream) {
					data := make([]byte, 1<<20)
					for left := tt.n * tt.size; left > 0; left -= len(data) {
						if _, err := s.Write(data[:min(left, len(data))]); err != nil {
							return
						}
					}
				})
				if err := dst.host.Connect(b.Context(), src.host.Addrs()[0]); err != nil {
					b.Fatal(err)
				}
			}
			h := &hook{}
			dst.x = exchange.New(exchange.Config{Blocks: h, Network: dst.host})
			defer dst.x.Close()
			b.SetBytes(int64(tt.n * tt.size))
			hashed := make([]byte, tt.n*tt.size)
			var raw, hash, ours time.Duration
			for b.Loop() {
				b.StopTimer()
				raw += pour(b, dst.host, w.From[0])
				start := time.Now()
				sha256.Sum256(hashed)
				hash += time.Since(start)
				done := func() {}
				if tt.disk {
					done = dst.store(b)
				} else {
					dst.blocks = &inMemory{data: map[cid.Cid][]byte{}, void: true}
				}
				h.Blocks = dst.blocks
				dst.x.Forget()
				b.StartTimer()
				start = time.Now()
				if err := dst.x.Fetch(b.Context(), w); err != nil {
					b.Fatal(err)
				}
				ours += time.Since(start)
				b.StopTimer()
				done()
				b.StartTimer()
			}
			b.ReportMetric(raw.Seconds()/ours.Seconds(), "of-raw")
			// The stream alone keeps both ends' cores busy, which are the same ones here.
			hash /= time.Duration(runtime.GOMAXPROCS(0))
			b.ReportMetric((raw+hash).Seconds()/ours.Seconds(), "of-raw+sha256")
		})
	}
}

// pour takes all that a node's source gives, and tells how long that took.
func pour(b *testing.B, h *p2p.Host, from peer.ID) time.Duration {
	b.Helper()
	start := time.Now()
	s, err := h.Open(b.Context(), from, "source/1")
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Write(nil); err != nil {
		b.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 256<<10)
	for err == nil {
		_, err = s.Read(buf)
	}
	if err != io.EOF {
		b.Fatal(err)
	}
	return time.Since(start)
}

// BenchmarkFirstByte fetches one small block from a node that is known to have it.
func BenchmarkFirstByte(b *testing.B) {
	src, dst := openMover(b), openMover(b)
	defer src.store(b)()
	defer dst.store(b)()
	src.x = exchange.New(exchange.Config{Blocks: src.blocks, Network: src.host})
	defer src.x.Close()
	dst.x = exchange.New(exchange.Config{Blocks: dst.blocks, Network: dst.host})
	defer dst.x.Close()
	if err := dst.host.Connect(b.Context(), src.host.Addrs()[0]); err != nil {
		b.Fatal(err)
	}
	blk := grid.NewBlock(cid.Raw, make([]byte, 4096))
	if err := src.blocks.Put(b.Context(), blk); err != nil {
		b.Fatal(err)
	}
	w := grid.Want{Roots: []cid.Cid{blk.CID()}, From: []peer.ID{src.host.Self()}}
	for b.Loop() {
		if err := dst.x.Fetch(b.Context(), w); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := dst.blocks.Delete(b.Context(), blk.CID()); err != nil {
			b.Fatal(err)
		}
		dst.x.Forget()
		b.StartTimer()
	}
}
