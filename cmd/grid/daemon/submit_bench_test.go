package daemon

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

// BenchmarkSubmit is how fast one node takes jobs, each a transaction of the realm's ledger on a disk: one caller, and eight.
func BenchmarkSubmit(b *testing.B) {
	for _, callers := range []int{1, 8} {
		b.Run(map[int]string{1: "one", 8: "eight"}[callers], func(b *testing.B) {
			d, err := Open(b.Context(), Config{Home: b.TempDir(), NoMDNS: true, NoNearby: true, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			tiny := []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x07\x0a\x01\x06_start\x00\x00\x0a\x04\x01\x02\x00\x0b")
			block := grid.NewBlock(0x55, tiny)
			if err := d.node.Blocks.Put(b.Context(), block); err != nil {
				b.Fatal(err)
			}
			r := grid.Request{Spec: grid.Spec{Stages: []grid.Stage{{Module: grid.Link{Cid: block.CID()}, Tasks: 1}}}}
			if _, err := d.node.Submit(b.Context(), r); err != nil {
				b.Fatal(err)
			}
			var left atomic.Int64
			left.Store(int64(b.N))
			done := make(chan error, callers)
			b.ResetTimer()
			for range callers {
				go func() {
					for left.Add(-1) >= 0 {
						r := r
						r.User = "bench"
						if _, err := d.node.Submit(context.Background(), r); err != nil {
							done <- err
							return
						}
					}
					done <- nil
				}()
			}
			for range callers {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
