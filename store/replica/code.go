package replica

import (
	"context"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

var errCode = grid.Errorf(grid.Unsupported, "erasure codes are not known here yet")

func (m *Manager) encode(context.Context, *record) (grid.Link, error) { return grid.Link{}, errCode }
func (m *Manager) placeShards(*record, view) error                    { return errCode }
func (m *Manager) obtainShard(context.Context, *record, int) error    { return errCode }
func (m *Manager) missingOfShard(context.Context, *record, int) ([]cid.Cid, error) {
	return nil, errCode
}
func (m *Manager) shardRoots(context.Context, *kept, func(cid.Cid)) error { return nil }
