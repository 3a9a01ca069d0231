package member

import (
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"

	"github.com/wasmgrid/wasmgrid/grid"
)

// maxSerial bounds serials, so that there is always a greater one for who has to say something newer.
const maxSerial = 1 << 53

// follow is the serial after another.
func follow(serial uint64, id peer.ID) (uint64, error) {
	if serial >= maxSerial {
		return 0, grid.Errorf(grid.Limit, "swarm: the membership of %s has the greatest serial that there is, which only a forger gives", id).
			Hint("revoke it, and give its node a new identity")
	}
	return serial + 1, nil
}

// use is the membership that a peer has by an invitation. Those in the ledger were counted when they were made; others a member may
// have signed by itself, for as many as it likes.
type use struct {
	serial  uint64
	counted bool
}

// uses are the memberships by each invitation, by its key and by peer. What was used once stays used.
type uses map[peer.ID]map[peer.ID]use

// invitationOf reads the invitation of a membership that was checked.
func invitationOf(m *Membership) (i Invitation) {
	if e, err := record.UnmarshalEnvelope(m.Invite); err == nil {
		_ = i.UnmarshalRecord(e.RawPayload)
	}
	return i
}

// check refuses a membership that a member may not sign, be it as sponsor as it may. had is what the peer has already, nil for
// nothing.
func (u uses) check(m *Membership, i *Invitation, signer peer.ID, had *known, from source) error {
	if signer == m.Peer {
		return grid.Errorf(grid.Denied, "swarm: the membership of %s is signed by itself", m.Peer)
	}
	if from == remembered {
		return nil
	}
	by := u[i.Key]
	was, again := by[m.Peer]
	switch {
	case again && was.serial != m.Serial && (from != recorded || was.counted):
		return grid.Errorf(grid.Denied, "swarm: the membership of %s is by an invitation that it has used before", m.Peer).Hint("ask for a new token")
	case from == recorded:
		return nil
	case !again && len(by) >= int(i.Uses):
		return grid.Errorf(grid.Denied, "swarm: the membership of %s is by an invitation that others have used up", m.Peer).Hint("ask for a new token")
	case had != nil && had.founded():
		return grid.Errorf(grid.Denied, "swarm: the membership of %s is signed by a member, but the authority has given it another", m.Peer)
	}
	return nil
}

// note remembers a membership. When the ledger has counted as many as may use the invitation, those go that it has not: they are
// returned.
func (u uses) note(m *Membership, i *Invitation, from source) (over []peer.ID) {
	by := u[i.Key]
	if by == nil {
		by = make(map[peer.ID]use)
		u[i.Key] = by
	}
	by[m.Peer] = use{m.Serial, from == recorded || by[m.Peer].counted}
	if from != recorded || len(by) <= int(i.Uses) {
		return nil
	}
	for id, x := range by {
		if !x.counted {
			delete(by, id)
			over = append(over, id)
		}
	}
	return over
}
