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
		Roots: func(ctx context.Context, yield func(cid.Cid)) error {
			// These first: what a job hands over to a pin is never in neither.
			if err := d.node.Roots(ctx, yield); err != nil {
				return err
			}
			return d.pins.Roots(ctx, yield)
		},
		Fetch: func(ctx context.Context, c cid.Cid) error {
			err := d.pins.Fetch(ctx, grid.Want{Roots: []cid.Cid{c}, Shallow: true, Swarm: true})
			if err != nil {
				d.pins.Doubt() // it may be of a coded DAG, and can be calculated
			}
			return err
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
