package member

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Proof is what proves this node's membership to who is no member: a chain that ends with what the authority has signed, and the
// successions by which that is the authority.
func (s *Service) Proof() (chain, successions [][]byte) {
	return s.book.Chain(s.self), s.book.successions()
}

// CheckProof refuses a chain that does not prove the membership of a peer in a swarm, to who knows nothing of that. Whether it was revoked,
// or the authority's key replaced since, only members know.
func CheckProof(swarm, id peer.ID, chain, successions [][]byte, now func() time.Time) error {
	if err := swarm.Validate(); err != nil {
		return grid.Errorf(grid.Invalid, "swarm: no swarm has such an ID: %w", err)
	}
	if len(successions) > maxLineage {
		return grid.Errorf(grid.Limit, "swarm: %d successions of the authority", len(successions))
	}
	b := NewBook(swarm, now)
	if _, err := b.Succeed(successions); err != nil {
		return err
	}
	subject, _, err := b.Learn(chain)
	if err != nil {
		return err
	}
	if subject != id {
		return grid.Errorf(grid.Denied, "swarm: %s shows the membership of somebody else", id)
	}
	return b.Refusal(id)
}
