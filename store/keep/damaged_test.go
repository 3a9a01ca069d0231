package keep

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p/memnet"
	"github.com/wasmgrid/wasmgrid/store/exchange"
	"github.com/wasmgrid/wasmgrid/store/replica"
)

// The node of a pinned DAG is damaged, and nobody else has it. "Nothing is collected or evicted until it is healed, for
// nobody can tell what it led to." Wired as cmd/grid/daemon/keep.go does it.
func TestDamagedNodeStays(t *testing.T) {
	var pins *replica.Manager
	var x *exchange.Exchange
	w := open(t, 1<<30, Duties{
		Roots: func(ctx context.Context, yield func(cid.Cid)) error { return pins.Roots(ctx, yield) },
		Fetch: func(ctx context.Context, c cid.Cid) error {
			err := pins.Fetch(ctx, grid.Want{Roots: []cid.Cid{c}, Shallow: true, Swarm: true})
			if err != nil {
				pins.Doubt()
			}
			return err
		},
		Forget: func() { x.Forget() },
	})
	net := memnet.New(memnet.Config{Seed: 1}).Join(peer.ID("\x00\x06node00"))
	defer net.Close()
	x = exchange.New(exchange.Config{Blocks: w.Keeper, Network: net})
	defer x.Close()
	var err error
	pins, err = replica.Open(t.Context(), replica.Config{Network: net, Blocks: w.Keeper, Fetcher: x, Keeper: w.Keeper, Forget: x.Forget,
		State: dssync.MutexWrap(datastore.NewMapDatastore())})
	if err != nil {
		t.Fatal(err)
	}
	defer pins.Close()
	defer w.stop()

	leaves := []grid.Block{leaf("one of the leaves"), leaf("another leaf"), leaf("a third leaf")}
	root := node(t, "the node that is hit", leaves...)
	w.put(append(leaves, root)...)
	if _, err := pins.Pin(t.Context(), grid.Pin{Root: grid.Link{Cid: root.CID()}, Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	w.flip("the node that is hit")

	_, err = w.Collect(t.Context(), Plan{})
	if !errors.Is(err, grid.Corrupt) {
		t.Errorf("first collection: %v", err)
	}
	for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C { // the doubt has been looked into
		if st, err := pins.Status(t.Context(), root.CID(), false); err != nil || st.Copies[0].State != grid.CopyDurable {
			break
		}
	}
	if _, err := w.Collect(t.Context(), Plan{}); !errors.Is(err, grid.Corrupt) {
		t.Errorf("second collection: %v", err)
	}
	w.check(true, leaves...)
	if u, err := w.Use(t.Context()); err != nil || len(u.Damaged) == 0 {
		t.Errorf("said to be damaged: %v, %v", u.Damaged, err)
	}

	w.put(root) // the advice: add the data again
	w.check(true, append(leaves, root)...)
}
