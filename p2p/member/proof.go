package member

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Proof is what proves this node's membership to who is no member: a chain that ends with what the authority has signed, and the
// successions that say which key is the authority's.
func (s *Service) Proof() (chain, successions [][]byte) {
	return s.book.Chain(s.self), s.book.successions()
}

// CheckProof refuses a chain that does not prove the membership of a peer in a swarm, to who knows nothing of that. Whether it was revoked
// only members know.
func CheckProof(swarm, id peer.ID, chain, successions [][]byte, now func() time.Time) error {
	if err := swarm.Validate(); err != nil {
		return grid.Errorf(grid.Invalid, "swarm: no swarm has such an ID: %w", err)
	}
	b := NewBook(swarm, now)
	if _, _, err := b.Meet(id, chain, successions); err != nil {
		return err
	}
	return b.Refusal(id)
}
