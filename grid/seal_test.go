package grid_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

// sealed makes receipts and signs them together.
func sealed(t testing.TB, n int) []*grid.Receipt {
	t.Helper()
	batch := make([]*grid.Receipt, n)
	for i := range batch {
		batch[i] = &grid.Receipt{Key: grid.Key{byte(i), byte(i >> 8)}, Node: nodeID("a"), Exit: uint32(i)}
	}
	if err := grid.Sign(fake.Key("a"), batch...); err != nil {
		t.Fatal(err)
	}
	return batch
}

// TestSeals: receipts that were signed together verify one by one, and no part of a seal can be another.
func TestSeals(t *testing.T) {
	for n := range 36 {
		for i, r := range sealed(t, n) {
			if err := r.Verify(); err != nil {
				t.Fatalf("%d of %d: %v", i, n, err)
			}
		}
	}
	a, b := sealed(t, 13), sealed(t, 14)
	for i, r := range a {
		for what, spoil := range map[string]func(r *grid.Receipt){
			"another key":      func(r *grid.Receipt) { r.Key[5]++ },
			"another number":   func(r *grid.Receipt) { r.Leaf ^= 1 },
			"no such number":   func(r *grid.Receipt) { r.Leaf += 16 },
			"a shorter path":   func(r *grid.Receipt) { r.Path = r.Path[32:] },
			"a longer path":    func(r *grid.Receipt) { r.Path = append(bytes.Clone(r.Path), make([]byte, 32)...) },
			"a cut path":       func(r *grid.Receipt) { r.Path = r.Path[:len(r.Path)-1] },
			"no path":          func(r *grid.Receipt) { r.Path = nil },
			"another path":     func(r *grid.Receipt) { r.Path = bytes.Clone(r.Path); r.Path[40]++ },
			"no signature":     func(r *grid.Receipt) { r.Sig = nil },
			"another batch's":  func(r *grid.Receipt) { r.Sig = b[i].Sig },
			"a neighbour's":    func(r *grid.Receipt) { r.Seal = a[(i+1)%len(a)].Seal },
			"another node":     func(r *grid.Receipt) { r.Node = nodeID("b") },
			"an endless path":  func(r *grid.Receipt) { r.Path = make([]byte, 32<<10) },
			"a huge number":    func(r *grid.Receipt) { r.Leaf = ^uint32(0) },
			"a different exit": func(r *grid.Receipt) { r.Exit++ },
		} {
			spoilt := *r
			spoil(&spoilt)
			if err := spoilt.Verify(); err == nil {
				t.Errorf("receipt %d with %s still verifies", i, what)
			}
		}
	}
}

// BenchmarkSign is what it costs to sign receipts, alone and with others.
func BenchmarkSign(b *testing.B) {
	for _, n := range []int{1, 4, 16} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			batch, key := sealed(b, n), fake.Key("a")
			b.ReportAllocs()
			for b.Loop() {
				if err := grid.Sign(key, batch...); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/receipt")
		})
	}
}
