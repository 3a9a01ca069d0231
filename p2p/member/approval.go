package member

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Approval lets a peer use an invitation whose uses have to be approved of. It is signed by the authority, or by an admin, who shows
// by what membership it is one.
type Approval struct {
	Swarm  peer.ID `cbor:"swarm"`
	Peer   peer.ID `cbor:"peer"`   // that waits
	Invite peer.ID `cbor:"invite"` // the key of the invitation
	Issued int64   `cbor:"issued"`
	By     []byte  `cbor:"by,omitempty"` // a sealed Membership; absent in what the authority signs
}

// Domain is told at record.Record.
func (*Approval) Domain() string { return "wasmgrid-swarm-approval" }

// Codec is told at record.Record.
func (*Approval) Codec() []byte { return []byte("/wasmgrid/swarm/approval/1") }

// MarshalRecord is told at record.Record.
func (a *Approval) MarshalRecord() ([]byte, error) { return grid.Marshal(a) }

// UnmarshalRecord is told at record.Record.
func (a *Approval) UnmarshalRecord(data []byte) error { return grid.UnmarshalMessage(data, a) }

// openApproval reads the approval of a peer's use of an invitation, and tells who approves, and on which key of the authority that
// rests: the approver's own, if it shows no membership. By is checked like any membership but for
// its sponsor: it is the authority's invitation that makes an admin. Records in records end where the size of the outermost does.
func openApproval(data []byte, inv *Invitation, joiner peer.ID, now time.Time) (approver, under peer.ID, err error) {
	var a Approval
	signer, err := unseal(data, &a)
	switch {
	case err != nil:
		return "", "", err
	case a.Swarm != inv.Swarm || a.Peer != joiner || a.Invite != inv.Key:
		return "", "", grid.Errorf(grid.Denied, "swarm: the approval is of another peer or invitation")
	case now.Add(skew).Unix() < a.Issued:
		return "", "", grid.Errorf(grid.Denied, "swarm: the approval of %s was made at %s, which is yet to come: it is %s by this clock", joiner, when(a.Issued), when(now.Unix())).
			Hint("check the clocks of both machines")
	case len(a.By) == 0:
		return signer, signer, nil
	}
	m, by, err := openMembership(a.By, inv.Swarm, now)
	if err != nil {
		return "", "", err
	}
	if m.Peer != signer || !m.Role.Includes(grid.RoleAdmin) || m.Expires != 0 && a.Issued > m.Expires {
		return "", "", notAdmin(signer)
	}
	return signer, by.under, nil
}

func notAdmin(id peer.ID) error {
	return grid.Errorf(grid.Denied, "swarm: %s is no admin, and so approves of nobody", id).Hint("have an admin do it: `grid member approve` on one's node")
}

// approves refuses an approval by who is no admin now, and one that rests on a key that is not the authority's.
func (b *Book) approves(id, under peer.ID) error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if err := b.line.check("the approval of "+id.String(), under); err != nil {
		return err
	}
	if _, known := b.members[id]; !known && id != under {
		return notAdmin(id)
	}
	return b.ceased(id)
}

// ceased refuses an approval by who is known to be no admin any more. Who is not known shows with the approval that it is one. The lock
// is held.
func (b *Book) ceased(id peer.ID) error {
	k, known := b.members[id]
	if r, gone := b.revoked[id]; known && !k.m.Role.Includes(grid.RoleAdmin) || gone && (!known || r.r.Serial >= k.m.Serial) {
		return notAdmin(id)
	}
	return nil
}

// approved tells whether what waits has been approved of, by somebody who may. What is no approval is as if it were not there.
func (s *Service) approved(w *waiting, inv *Invitation, joiner peer.ID) bool {
	if len(w.Approval) == 0 {
		return false
	}
	by, under, err := openApproval(w.Approval, inv, joiner, s.cfg.Now())
	if err == nil {
		err = s.book.approves(by, under)
	}
	if err != nil {
		s.log.Warn("swarm: an approval is not believed", "peer", joiner, "err", err)
	}
	return err == nil
}

// sealApproval approves of what waits.
func (s *Service) sealApproval(w *waiting, joiner peer.ID) ([]byte, error) {
	a := Approval{Swarm: s.swarm, Peer: joiner, Invite: w.Invite, Issued: s.cfg.Now().Unix()}
	if key := s.signer(); key != nil {
		return seal(&a, key)
	}
	chain := s.book.Chain(s.self)
	if len(chain) == 0 {
		return nil, s.book.Refusal(s.self)
	}
	a.By = chain[0]
	return seal(&a, s.cfg.Key)
}

// audit tells in a transaction what it does to a member.
func (s *Service) audit(tx *grid.Tx, act grid.AuditAct, subject peer.ID, note string) error {
	e, err := grid.AuditEntry(s.cfg.Key, grid.AuditFact{Act: act, Subject: subject.String(), User: tx.User(), Note: note})
	if err == nil {
		tx.Put(e.Key, e.Value)
	}
	return err
}
