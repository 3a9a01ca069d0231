package exchange

import (
	"context"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// collected loses a block, as by a collection, when it is asked for another one.
type collected struct {
	grid.Blocks
	at   cid.Cid
	lose func()
}

func (c *collected) Has(ctx context.Context, at cid.Cid) (bool, error) {
	if at == c.at && c.lose != nil {
		c.lose()
		c.lose = nil
	}
	return c.Blocks.Has(ctx, at)
}

// TestForgetDuring deletes a block that a transfer has seen already, as a collection does that has not seen what links to it: it is brought
// again, and that the DAG was whole is not remembered.
func TestForgetDuring(t *testing.T) {
	s := newSwarm(t)
	a, b := s.exchange(t, "a"), s.exchange(t, "b")
	dag := list(t, "x", 5)
	put(t, a, dag...)
	put(t, b, dag...)
	b.Exchange.blocks = &collected{Blocks: b.blocks, at: dag[5].CID(), lose: func() {
		if err := b.blocks.Delete(t.Context(), dag[1].CID()); err != nil {
			t.Error(err)
		}
		b.Forget()
	}}
	want := grid.Want{Roots: []cid.Cid{dag[0].CID()}, From: []peer.ID{"a"}}
	if err := b.Fetch(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if ok, err := b.blocks.Has(t.Context(), dag[1].CID()); !ok || err != nil {
		t.Errorf("what was deleted is taken to be here: %v", err)
	}
}
