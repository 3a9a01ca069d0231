package daemon

import (
	"context"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// What an admin does to a private swarm is told by the node that was asked to, and so by one alone.

func (s swarmAPI) told(err error, kind string, about peer.ID, text string) error {
	if err == nil {
		s.tell(grid.RoomSwarm, kind, about, text)
	}
	return err
}

// Approve lets a node in that waits for it.
func (s swarmAPI) Approve(ctx context.Context, id peer.ID) error {
	return s.told(s.Service.Approve(ctx, id), grid.KindApproved, id, "an admin has let it in")
}

// SetRole gives a member another role.
func (s swarmAPI) SetRole(ctx context.Context, id peer.ID, role grid.MemberRole) error {
	return s.told(s.Service.SetRole(ctx, id, role), grid.KindRole, id, fmt.Sprintf("is %s from now on", role))
}

// Renew has a membership last from now on.
func (s swarmAPI) Renew(ctx context.Context, id peer.ID, lasts time.Duration) error {
	return s.told(s.Service.Renew(ctx, id, lasts), grid.KindRenewed, id, "its membership was renewed")
}

// RotateKey replaces the authority's key.
func (s swarmAPI) RotateKey(ctx context.Context, recover bool) (grid.KeyRotation, error) {
	out, err := s.Service.RotateKey(ctx, recover)
	return out, s.told(err, grid.KindRotated, "", "the key of the swarm's authority was replaced")
}
