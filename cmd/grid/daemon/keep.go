package daemon

import (
	"context"
	"io"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/keep"
)

// startKeeper tells the keeper of the blocks what the node needs. Its closer ends that.
func (d *Daemon) startKeeper() io.Closer {
	stop := d.store.Keeper().Start(keep.Duties{
		Roots: d.node.Roots,
		Fetch: func(ctx context.Context, c cid.Cid) error {
			return d.exchange.Fetch(ctx, grid.Want{Roots: []cid.Cid{c}, Shallow: true})
		},
		Forget:     d.exchange.Forget,
		Background: !d.cfg.Embedded,
		ScrubRate:  d.cfg.Scrub,
	})
	return closerFunc(func() error { stop(); return nil })
}

// blockStore is the keeper as the API asks for it.
type blockStore struct{ *keep.Keeper }

func (s blockStore) Collect(ctx context.Context, dryRun bool) (grid.Collected, error) {
	return s.Keeper.Collect(ctx, keep.Plan{DryRun: dryRun})
}
