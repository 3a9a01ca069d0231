package member

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Bounds on what a book holds and a chain may have.
const (
	maxMembers  = 1 << 14
	maxRevoked  = 1 << 14
	maxChain    = 16
	maxAtOnce   = 1 << 10 // records in one message
	shownAtOnce = 256     // of revocations, the newest
)

// known is a membership with the record that proves it, or a revocation.
type known struct {
	m      Membership
	signer peer.ID
	raw    []byte
}

type revoked struct {
	r      Revocation
	signer peer.ID
	raw    []byte
}

// Book is what a node knows of its swarm's members. It believes only what is signed by those who may. It is safe for
// concurrent use.
type Book struct {
	swarm peer.ID
	now   func() time.Time

	mu      sync.RWMutex
	members map[peer.ID]known // revoked ones, too, for those whose sponsors they were
	revoked map[peer.ID]revoked
}

// NewBook makes an empty book of a swarm.
func NewBook(swarm peer.ID, now func() time.Time) *Book {
	return &Book{swarm: swarm, now: now, members: make(map[peer.ID]known), revoked: make(map[peer.ID]revoked)}
}

// Member tells the membership of a peer; ok is false when it has none that is valid now.
func (b *Book) Member(id peer.ID) (m Membership, ok bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	k, ok := b.members[id]
	return k.m, ok && b.why(k) == ""
}

// why says in a word why a membership does not count, "" when it does. The lock is held.
func (b *Book) why(k known) string {
	if r, ok := b.revoked[k.m.Peer]; ok && r.r.Serial >= k.m.Serial {
		if r.signer == k.m.Peer {
			return "left"
		}
		return "revoked"
	}
	if k.m.Expires != 0 && b.now().Unix() > k.m.Expires {
		return "expired"
	}
	return ""
}

// knows reports whether a peer is or was a member.
func (b *Book) knows(id peer.ID) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	_, ok := b.members[id]
	return ok
}

// Refusal is the error for a peer that is no member.
func (b *Book) Refusal(id peer.ID) error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	k, ok := b.members[id]
	if !ok {
		return grid.Errorf(grid.Denied, "swarm: %s is not a member of this swarm", id).Hint("join it with a token: `grid up --join TOKEN`")
	}
	switch b.why(k) {
	case "":
		return nil
	case "expired":
		return grid.Errorf(grid.Denied, "swarm: the membership of %s has expired at %s; it is %s by this clock", id, when(k.m.Expires), when(b.now().Unix())).
			Hint("join again with a new token, or set the clock right if it is wrong")
	case "left":
		return grid.Errorf(grid.Denied, "swarm: %s has left the swarm", id).Hint("join again with a new token")
	}
	return grid.Errorf(grid.Denied, "swarm: the membership of %s was revoked at %s", id, when(b.revoked[id].r.Issued)).
		Hint("ask an admin of the swarm; with a new token it can join again")
}

// Learn takes a chain: the membership of a peer first, each followed by its sponsor's. It reports whether that changed who is a member.
// The error says why the first of them is not believed.
func (b *Book) Learn(chain [][]byte) (subject peer.ID, changed bool, err error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return "", false, grid.Errorf(grid.Invalid, "swarm: a chain of %d records, want 1 to %d", len(chain), maxChain)
	}
	for _, raw := range slices.Backward(chain) {
		var c bool
		if subject, c, err = b.learn(raw, false); err != nil {
			return "", changed, err
		}
		changed = changed || c
	}
	return subject, changed, nil
}

// learn takes one record, whose sponsor must be in the book. recorded says that it comes from the ledger, which took it when
// its sponsor was a member, whatever became of that one since.
func (b *Book) learn(raw []byte, recorded bool) (subject peer.ID, changed bool, err error) {
	m, signer, approver, err := openMembership(raw, b.swarm, b.now())
	if err != nil {
		return "", false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	old, had := b.members[m.Peer]
	if had && old.m.Serial >= m.Serial {
		return m.Peer, false, nil // known, or replaced since
	}
	if signer != b.swarm {
		s, ok := b.members[signer]
		if !ok {
			return "", false, grid.Errorf(grid.Denied, "swarm: the membership of %s is signed by %s, which is not known as a member", m.Peer, signer)
		}
		if _, gone := b.revoked[signer]; gone && !recorded {
			return "", false, grid.Errorf(grid.Denied, "swarm: the membership of %s is signed by %s, whose own was revoked", m.Peer, signer).
				Hint("connect it to a node that shares the swarm's ledger, or join again with a new token")
		}
		if !s.m.Role.Includes(grid.RoleVoter) && !recorded {
			return "", false, grid.Errorf(grid.Denied, "swarm: the membership of %s is signed by %s, a %s, who lets nobody in", m.Peer, signer, s.m.Role).
				Hint("join through a voter or an admin")
		}
		if s.m.Expires != 0 && m.Issued > s.m.Expires {
			return "", false, grid.Errorf(grid.Denied, "swarm: the membership of %s is signed by %s, whose own had expired", m.Peer, signer)
		}
	}
	if approver != "" && !recorded {
		if err := b.ceased(approver); err != nil {
			return "", false, err
		}
	}
	if !had && len(b.members) >= maxMembers {
		return "", false, grid.Errorf(grid.Limit, "swarm: more than %d members", maxMembers)
	}
	b.members[m.Peer] = known{m, signer, slices.Clone(raw)}
	return m.Peer, true, nil
}

// Revoke takes a revocation. changed is whether it says something new.
func (b *Book) Revoke(raw []byte) (subject peer.ID, changed bool, err error) {
	var r Revocation
	signer, err := unseal(raw, &r)
	if err != nil {
		return "", false, err
	}
	if r.Swarm != b.swarm || r.Serial == 0 || r.Peer.Validate() != nil {
		return "", false, grid.Errorf(grid.Denied, "swarm: a revocation of another swarm, or of nobody")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	old, had := b.revoked[r.Peer]
	if had && old.r.Serial >= r.Serial {
		return r.Peer, false, nil
	}
	if signer != b.swarm && signer != r.Peer {
		if s, ok := b.members[signer]; !ok || !s.m.Role.Includes(grid.RoleAdmin) || b.why(s) != "" {
			return "", false, grid.Errorf(grid.Denied, "swarm: %s may not revoke members", signer)
		}
	}
	if !had && len(b.revoked) >= maxRevoked {
		return "", false, grid.Errorf(grid.Limit, "swarm: more than %d revocations", maxRevoked)
	}
	b.revoked[r.Peer] = revoked{r, signer, slices.Clone(raw)}
	return r.Peer, true, nil
}

// Chain is what proves the membership of a peer to who knows nothing of it: nil if it has none.
func (b *Book) Chain(id peer.ID) (chain [][]byte) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for len(chain) < maxChain {
		k, ok := b.members[id]
		if !ok {
			return nil
		}
		chain = append(chain, k.raw)
		if k.signer == b.swarm {
			return chain
		}
		id = k.signer
	}
	return chain // a book that knows the sponsor of the last takes it
}

// revocations are the newest, up to most.
func (b *Book) revocations(most int) [][]byte {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return raws(b.revoked, most, func(x, y revoked) int {
		return cmp.Or(cmp.Compare(y.r.Issued, x.r.Issued), cmp.Compare(x.r.Peer, y.r.Peer))
	}, func(r revoked) []byte { return r.raw })
}

// records are the memberships, sponsors before those whom they let in, up to most.
func (b *Book) records(most int) [][]byte {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return raws(b.members, most, func(x, y known) int {
		return cmp.Or(cmp.Compare(x.m.Issued, y.m.Issued), cmp.Compare(x.m.Peer, y.m.Peer))
	}, func(k known) []byte { return k.raw })
}

// raws are the first of some records in an order, as they were signed, up to most.
func raws[R any](of map[peer.ID]R, most int, order func(x, y R) int, raw func(R) []byte) (list [][]byte) {
	sorted := slices.SortedFunc(maps.Values(of), order)
	for _, r := range sorted[:min(len(sorted), most)] {
		list = append(list, raw(r))
	}
	return list
}

// learnAll takes records in whatever order, and reports those that changed, and why others were not taken.
func (b *Book) learnAll(list [][]byte, recorded bool) (changed []peer.ID, err error) {
	for progress := true; progress && len(list) > 0; {
		var rest [][]byte
		progress, err = false, nil
		for _, raw := range list {
			id, c, e := b.learn(raw, recorded)
			switch {
			case e != nil:
				err, rest = e, append(rest, raw)
			case c:
				changed, progress = append(changed, id), true
			}
		}
		list = rest
	}
	return changed, err
}

// list is all members for people, in order of their IDs.
func (b *Book) list() (out []grid.SwarmMember) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for id, k := range b.members {
		x := grid.SwarmMember{ID: id.String(), Name: k.m.Name, Role: k.m.Role, Issued: time.Unix(k.m.Issued, 0).UTC(), Serial: k.m.Serial, By: k.signer.String()}
		if k.m.Expires != 0 {
			x.Expires = time.Unix(k.m.Expires, 0).UTC()
		}
		x.State = cmp.Or(b.why(k), "member")
		out = append(out, x)
	}
	slices.SortFunc(out, func(x, y grid.SwarmMember) int { return cmp.Compare(x.ID, y.ID) })
	return out
}
