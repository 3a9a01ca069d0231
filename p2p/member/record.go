package member

import (
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Bounds on records.
const (
	maxRecord = 4 << 10 // bytes of one, with its signature
	maxProof  = 128
	maxUses   = 10_000

	// MaxExpiry bounds how long an invitation can be used.
	MaxExpiry = 366 * 24 * time.Hour
	// skew is by how much clocks may differ without anybody noticing.
	skew = 5 * time.Minute
)

// Invitation lets those join who have its private key. It is signed by the authority.
type Invitation struct {
	Swarm   peer.ID         `cbor:"swarm"`
	Key     peer.ID         `cbor:"key"` // of the invitation's own key pair
	Role    grid.MemberRole `cbor:"role"`
	Issued  int64           `cbor:"issued"`  // Unix time in seconds, as all times here
	Expires int64           `cbor:"expires"` // nobody joins by it after
	Uses    uint32          `cbor:"uses"`
	Lasts   int64           `cbor:"lasts,omitempty"` // seconds that memberships last; 0: without end
	Approve bool            `cbor:"approve,omitempty"`
}

// Membership says that a peer belongs to a swarm.
type Membership struct {
	Swarm   peer.ID         `cbor:"swarm"`
	Peer    peer.ID         `cbor:"peer"`
	Role    grid.MemberRole `cbor:"role"`
	Name    string          `cbor:"name,omitempty"`
	Issued  int64           `cbor:"issued"`
	Expires int64           `cbor:"expires,omitempty"` // 0: never
	Serial  uint64          `cbor:"serial"`            // of the memberships of a peer the greatest counts
	// Invite is a sealed Invitation, Proof what its key signed for the peer. Both are absent in what the authority signs, and only there.
	Invite []byte `cbor:"invite,omitempty"`
	Proof  []byte `cbor:"proof,omitempty"`
	// Approval is a sealed Approval, if the invitation asks for one.
	Approval []byte `cbor:"approval,omitempty"`
}

// Revocation ends the memberships of a peer up to a serial. It is signed by the authority, an admin, or the peer itself,
// which leaves.
type Revocation struct {
	Swarm  peer.ID `cbor:"swarm"`
	Peer   peer.ID `cbor:"peer"`
	Serial uint64  `cbor:"serial"`
	Issued int64   `cbor:"issued"`
}

// The envelopes of libp2p keep one kind of record from passing for another: by a domain, and a type.

// Domain is told at record.Record.
func (*Invitation) Domain() string { return "wasmgrid-swarm-invitation" }

// Codec is told at record.Record.
func (*Invitation) Codec() []byte { return []byte("/wasmgrid/swarm/invitation/1") }

// MarshalRecord is told at record.Record.
func (i *Invitation) MarshalRecord() ([]byte, error) { return grid.Marshal(i) }

// UnmarshalRecord is told at record.Record.
func (i *Invitation) UnmarshalRecord(data []byte) error { return grid.UnmarshalMessage(data, i) }

// Domain is told at record.Record.
func (*Membership) Domain() string { return "wasmgrid-swarm-membership" }

// Codec is told at record.Record.
func (*Membership) Codec() []byte { return []byte("/wasmgrid/swarm/membership/1") }

// MarshalRecord is told at record.Record.
func (m *Membership) MarshalRecord() ([]byte, error) { return grid.Marshal(m) }

// UnmarshalRecord is told at record.Record.
func (m *Membership) UnmarshalRecord(data []byte) error { return grid.UnmarshalMessage(data, m) }

// Domain is told at record.Record.
func (*Revocation) Domain() string { return "wasmgrid-swarm-revocation" }

// Codec is told at record.Record.
func (*Revocation) Codec() []byte { return []byte("/wasmgrid/swarm/revocation/1") }

// MarshalRecord is told at record.Record.
func (r *Revocation) MarshalRecord() ([]byte, error) { return grid.Marshal(r) }

// UnmarshalRecord is told at record.Record.
func (r *Revocation) UnmarshalRecord(data []byte) error { return grid.UnmarshalMessage(data, r) }

// seal signs a record.
func seal(r record.Record, key crypto.PrivKey) ([]byte, error) {
	e, err := record.Seal(r, key)
	if err != nil {
		return nil, grid.Errorf(grid.Internal, "swarm: sign a record: %w", err)
	}
	data, err := e.Marshal()
	if err == nil && len(data) > maxRecord {
		err = grid.Errorf(grid.Limit, "swarm: a record of %d bytes, at most %d are allowed", len(data), maxRecord)
	}
	return data, err
}

// unseal reads a record and tells who has signed it. What it says is still to be checked.
func unseal(data []byte, r record.Record) (signer peer.ID, err error) {
	bad := func(err error) (peer.ID, error) {
		return "", grid.Errorf(grid.Invalid, "swarm: not a signed record: %w", err)
	}
	if len(data) > maxRecord {
		return "", grid.Errorf(grid.Limit, "swarm: a record of %d bytes, at most %d are allowed", len(data), maxRecord)
	}
	e, err := record.UnmarshalEnvelope(data)
	if err != nil {
		return bad(err)
	}
	if e.PublicKey == nil || e.PublicKey.Type() != crypto.Ed25519 || string(e.PayloadType) != string(r.Codec()) {
		return "", grid.Errorf(grid.Invalid, "swarm: a record of another type, or not signed with Ed25519")
	}
	if e, err = record.ConsumeTypedEnvelope(data, r); err != nil {
		return bad(err)
	}
	if signer, err = peer.IDFromPublicKey(e.PublicKey); err != nil {
		return bad(err)
	}
	return signer, nil
}

// openInvitation reads an invitation of a swarm. It asks neither whether it has expired, nor whether its signer is the authority.
func openInvitation(data []byte, swarm peer.ID) (i Invitation, signer peer.ID, err error) {
	signer, err = unseal(data, &i)
	switch {
	case err != nil:
		return i, "", err
	case i.Swarm != swarm:
		return i, "", grid.Errorf(grid.Denied, "swarm: the invitation is for another swarm, %s", i.Swarm).
			Hint("ask for a token of this swarm: `grid swarm invite` on a node of its founder makes one")
	case i.Uses == 0 || i.Uses > maxUses || i.Lasts < 0 || i.Expires <= i.Issued || i.Expires-i.Issued > int64(MaxExpiry/time.Second):
		return i, "", grid.Errorf(grid.Invalid, "swarm: the invitation is out of bounds")
	}
	return i, signer, i.Role.Check()
}

// expired says of an invitation that it cannot be used at a time.
func (i *Invitation) expired(now time.Time) error {
	if now.Unix() > i.Expires {
		return grid.Errorf(grid.Denied, "swarm: the invitation has expired at %s; it is %s by this clock", when(i.Expires), when(now.Unix())).
			Hint("ask for a new token, or check the clock")
	}
	if now.Add(skew).Unix() < i.Issued {
		return grid.Errorf(grid.Denied, "swarm: the invitation was made at %s, which is yet to come: it is %s by this clock", when(i.Issued), when(now.Unix())).
			Hint("check the clocks of both machines")
	}
	return nil
}

func when(unix int64) string { return time.Unix(unix, 0).UTC().Format(time.RFC3339) }

// proofOf is what an invitation's key signs for the peer that joins.
func proofOf(swarm, joiner peer.ID) []byte {
	return append([]byte("wasmgrid swarm proof 1\x00"), string(swarm)+string(joiner)...)
}

// checkProof reports whether the key of an invitation has signed for a peer.
func (i *Invitation) checkProof(joiner peer.ID, proof []byte) error {
	key, err := i.Key.ExtractPublicKey()
	if err != nil || len(proof) > maxProof {
		return grid.Errorf(grid.Invalid, "swarm: the invitation has no key, or its proof is too long")
	}
	if ok, err := key.Verify(proofOf(i.Swarm, joiner), proof); err != nil || !ok {
		return grid.Errorf(grid.Denied, "swarm: %s does not prove that it was invited", joiner)
	}
	return nil
}

// openMembership reads a membership of a swarm, and checks all but its sponsor, who is told with it, and the key of the authority
// on which it rests: that of the sponsor itself, if there is no invitation. It tells, too, who approves of it, if somebody has to.
func openMembership(data []byte, swarm peer.ID, now time.Time) (m Membership, signer, under peer.ID, by approver, err error) {
	if signer, err = unseal(data, &m); err != nil {
		return m, "", "", by, err
	}
	switch {
	case m.Swarm != swarm:
		return m, "", "", by, grid.Errorf(grid.Denied, "swarm: a membership of another swarm").Hint("`grid swarm show` tells to which one a node belongs")
	case m.Peer.Validate() != nil || m.Serial == 0 || m.Expires != 0 && m.Expires <= m.Issued:
		return m, "", "", by, grid.Errorf(grid.Invalid, "swarm: the membership of %s is out of bounds", m.Peer)
	case now.Add(skew).Unix() < m.Issued:
		return m, "", "", by, grid.Errorf(grid.Denied, "swarm: the membership of %s was made at %s, which is yet to come: it is %s by this clock", m.Peer, when(m.Issued), when(now.Unix())).
			Hint("check the clocks of both machines")
	}
	if err := m.Role.Check(); err != nil {
		return m, "", "", by, err
	}
	if err := grid.CheckMemberName(m.Name); err != nil {
		return m, "", "", by, err
	}
	if len(m.Invite) == 0 {
		return m, signer, signer, by, nil
	}
	inv, under, err := openInvitation(m.Invite, swarm)
	if err != nil {
		return m, "", "", by, err
	}
	if err := inv.checkProof(m.Peer, m.Proof); err != nil {
		return m, "", "", by, err
	}
	if m.Role != inv.Role || m.Issued > inv.Expires || inv.Lasts == 0 && m.Expires != 0 || inv.Lasts != 0 && (m.Expires == 0 || m.Expires-m.Issued > inv.Lasts) {
		return m, "", "", by, grid.Errorf(grid.Denied, "swarm: the membership of %s is not what its invitation allows", m.Peer)
	}
	if inv.Approve {
		if by, err = openApproval(m.Approval, &inv, m.Peer, now); err != nil {
			return m, "", "", by, grid.Errorf(grid.CodeOf(err), "swarm: the membership of %s needs an approval: %w", m.Peer, err)
		}
	}
	return m, signer, under, by, nil
}
