package exchange

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestPaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPaces(1) // as slow as may be
		start, waits := time.Now(), 0
		send := func(ctx context.Context, from peer.ID) error {
			return p.wait(ctx, from, grid.MaxBlock, func() error { waits++; return nil })
		}
		for range 4 * MinPerPeer / grid.MaxBlock {
			if err := send(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took < 2900*time.Millisecond || took > 3100*time.Millisecond || waits == 0 {
			t.Errorf("four seconds' bytes with one at once took %v, after %d waits", took, waits)
		}
		start = time.Now()
		if err := send(t.Context(), "b"); err != nil || time.Since(start) != 0 {
			t.Errorf("another peer waited %v: %v", time.Since(start), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := send(ctx, "a"); grid.CodeOf(err) != grid.Busy {
			t.Errorf("who cannot wait: %v", err)
		}
		for i := range 2 * maxPaces {
			_ = send(t.Context(), peer.ID(fmt.Sprint(i)))
		}
		if n := len(p.of); n > maxPaces+1 {
			t.Errorf("%d peers are remembered", n)
		}
		if err := (*paces)(nil).wait(t.Context(), "a", 1<<40, nil); err != nil {
			t.Error(err)
		}
	})
}

// A peer gets all that it asks for, as fast as it may.
func TestPerPeer(t *testing.T) {
	world(t, 1, func(t *testing.T, s *swarm, dst *testNode, nodes []*testNode) {
		nodes[0].pace = newPaces(MinPerPeer)
		dag := large(t, "paced", 40, MinPerPeer/16)
		put(t, nodes[0], dag...)
		if took := fetch(t, dst, dag, nodes[0]); took < 1400*time.Millisecond { // of the bubble's
			t.Errorf("two and a half seconds' bytes with one at once took %v", took)
		}
	})
}
