package store

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestReceiptsAreBounded: the database of a node that runs tasks for ever stays small on the disk.
func TestReceiptsAreBounded(t *testing.T) {
	s, err := Open(t.Context(), Config{Dir: t.TempDir(), Quota: 1}) // of which 4 MiB of receipts are the least
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	node := peer.ID("\x12\x20" + strings.Repeat("n", 32))
	most, n := uint64(0), uint32(0)
	for range 100 { // 40 MB
		var batch []grid.Receipt
		for range 1000 {
			n++
			r := grid.Receipt{Node: node, Stdout: grid.Output{Size: 100, Inline: make([]byte, 100)}, Seal: grid.Seal{Sig: make([]byte, 64)}}
			binary.BigEndian.PutUint32(r.Key[:], n*2654435761) // nothing in it is in order, as with hashes
			for i := range r.Stdout.Inline {
				r.Stdout.Inline[i] = byte(n*uint32(i+1)>>3) ^ r.Key[i%4]
			}
			batch = append(batch, r)
		}
		if err := s.Cache().Remember(t.Context(), batch...); err != nil {
			t.Fatal(err)
		}
		used, err := s.meta.DiskUsage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, used)
	}
	t.Logf("at most %d KiB", most>>10)
	for end := time.Now().Add(time.Minute); ; {
		used, err := s.meta.DiskUsage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if used < 24<<20 { // those, and the log
			t.Logf("in the end %d KiB", used>>10)
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d KiB on disk", used>>10)
		}
		<-time.After(10 * time.Millisecond)
	}
}
