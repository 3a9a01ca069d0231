package member

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"

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
	m Membership
	backing
	raw []byte
}

// founded reports whether the authority itself has signed it.
func (k *known) founded() bool { return k.signer == k.under }

type revoked struct {
	r      Revocation
	signer peer.ID
	raw    []byte
}

// source is where a record comes from.
type source int

const (
	shown      source = iota // by a peer
	handed                   // by who lets this node in, as what its ledger has: which cannot be seen yet
	recorded                 // in the ledger, which took it when its sponsor was a member, whatever became of that one since
	remembered               // in the home, where it was written down when it was believed
)

// Book is what a node knows of its swarm's members. It believes only what is signed by those who may. It is safe for
// concurrent use.
type Book struct {
	swarm peer.ID
	now   func() time.Time

	mu      sync.RWMutex
	line    lineage
	members map[peer.ID]known // revoked ones, too, for those whose sponsors they were
	revoked map[peer.ID]revoked
	uses    uses
	sums    [buckets]uint64 // of revoked: see digest
}

// NewBook makes an empty book of a swarm.
func NewBook(swarm peer.ID, now func() time.Time) *Book {
	return &Book{swarm: swarm, now: now, line: lineage{swarm: swarm}, members: make(map[peer.ID]known), revoked: make(map[peer.ID]revoked), uses: make(uses)}
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
			Hint("an admin who has the authority's key makes it last longer: `grid member renew %s`; or join again with a new token; or check the clock", id)
	case "left":
		return grid.Errorf(grid.Denied, "swarm: %s has left the swarm", id).Hint("join again with a new token")
	}
	return grid.Errorf(grid.Denied, "swarm: the membership of %s was revoked at %s", id, when(b.revoked[id].r.Issued)).
		Hint("ask an admin of the swarm; with a new token it can join again, and `grid swarm leave --force` has its home forget the swarm")
}

// Succeed takes successions of the authority's key from a member, the ledger or the home, and reports whether they say something new.
// What the book believes it goes on to believe; what is new has to rest on the key that is the authority's then.
func (b *Book) Succeed(list [][]byte) (changed bool, err error) { return b.succeed(list, b.now()) }

// recall is Succeed of what the home remembers: the clock was right when it was written down.
func (b *Book) recall(list [][]byte) error {
	_, err := b.succeed(list, farAway)
	return err
}

func (b *Book) succeed(list [][]byte, now time.Time) (changed bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, raw := range list {
		c, e := b.line.add(raw, now)
		changed = changed || c
		if e != nil {
			err = e
		}
	}
	return changed, err
}

// Learn takes a chain: the membership of a peer first, each followed by its sponsor's. It reports whether that changed who is a member.
// The error says why the first of them is not believed.
func (b *Book) Learn(chain [][]byte) (subject peer.ID, changed bool, err error) {
	line := b.lineage()
	read, err := b.open(&line, chain)
	if err != nil {
		return "", false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.learnChain(&b.line, read)
}

// Meet is Learn of what a peer shows that may be a stranger, with the successions that it knows. Those of a stranger count only if
// they make it a member: who has stolen an old key cannot begin a dispute from outside.
func (b *Book) Meet(id peer.ID, chain, successions [][]byte) (changed, succeeded bool, err error) {
	if len(successions) > maxLineage {
		return false, false, grid.Errorf(grid.Limit, "swarm: %d successions of the authority", len(successions))
	}
	line := b.lineage()
	var odd error
	var fresh [][]byte
	for _, raw := range successions { // in order: after one that does not count nothing does
		if line.has(raw) {
			continue
		}
		c, e := line.add(raw, b.now())
		if odd = e; !c {
			break
		}
		fresh = append(fresh, raw)
	}
	read, unread := b.open(&line, chain) // without it, the successions are looked at all the same
	b.mu.Lock()
	defer b.mu.Unlock()
	k, had := b.members[id]
	had = had && b.why(k) == ""
	line = b.line.clone()
	for _, raw := range fresh {
		c, _ := line.add(raw, b.now())
		succeeded = succeeded || c
	}
	if _, disputed := line.authority(); disputed && !had {
		line, succeeded = b.line.clone(), false
	}
	subject, changed, err := b.learnChain(&line, read)
	if unread != nil {
		err = unread
	}
	if err == nil && subject != id {
		err = grid.Errorf(grid.Denied, "swarm: %s shows the membership of somebody else", id)
	}
	if err != nil && odd != nil {
		err = odd
	}
	if key, _ := line.authority(); !succeeded || !had && (err != nil || b.members[id].under != key) {
		return changed, false, err
	}
	b.line = line
	return changed, true, err
}

// opened is a membership that was read, and whose signatures are good.
type opened struct {
	m   Membership
	by  backing
	raw []byte
}

// open reads a chain, as far as it rests on the authority of a lineage: more of it costs a stranger nothing, but us. It takes its time,
// and so is done without the lock, which Admits needs.
func (b *Book) open(l *lineage, chain [][]byte) (read []opened, err error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return nil, grid.Errorf(grid.Invalid, "swarm: a chain of %d records, want 1 to %d", len(chain), maxChain)
	}
	for _, raw := range slices.Backward(chain) {
		o, again, err := b.openOne(raw, shown)
		if err == nil && !again {
			err = l.supports(&o)
		}
		if err != nil {
			return nil, err
		}
		read = append(read, o)
	}
	return read, nil
}

// openOne reads a record. What proved a membership before is not checked again.
func (b *Book) openOne(raw []byte, from source) (o opened, again bool, err error) {
	if k, ok := b.again(raw); ok {
		return opened{k.m, k.backing, raw}, true, nil
	}
	now := b.now()
	if from == remembered {
		now = farAway // the clock was right when it was written down
	}
	m, by, err := openMembership(raw, b.swarm, now)
	return opened{m, by, raw}, false, err
}

// again finds the membership that a record proved before.
func (b *Book) again(raw []byte) (k known, ok bool) {
	var m Membership
	if len(raw) > maxRecord {
		return k, false
	}
	if e, err := record.UnmarshalEnvelope(raw); err != nil || m.UnmarshalRecord(e.RawPayload) != nil {
		return k, false
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	k, ok = b.members[m.Peer]
	return k, ok && bytes.Equal(k.raw, raw)
}

func (b *Book) learnChain(l *lineage, chain []opened) (subject peer.ID, changed bool, err error) {
	for _, o := range chain { // the sponsor of each comes before it
		var c bool
		if subject, c, err = b.take(l, o, shown); err != nil {
			return "", changed, err
		}
		changed = changed || c
	}
	return subject, changed, nil
}

// learn takes one record, whose sponsor must be in the book.
func (b *Book) learn(raw []byte, from source) (subject peer.ID, changed bool, err error) {
	o, _, err := b.openOne(raw, from)
	if err != nil {
		return "", false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.take(&b.line, o, from)
}

// take is learn by a lineage. The lock is held.
func (b *Book) take(l *lineage, o opened, from source) (subject peer.ID, changed bool, err error) {
	m, by, raw := o.m, o.by, o.raw
	old, had := b.members[m.Peer]
	if had && old.m.Serial >= m.Serial {
		if from == recorded && bytes.Equal(old.raw, raw) && by.signer != by.under {
			b.used(&m, from)
		}
		return m.Peer, false, nil // known, or replaced since
	}
	if from != remembered {
		if err := l.supports(&o); err != nil {
			return "", false, err
		}
	}
	if signer := by.signer; signer != by.under {
		s, ok := b.members[signer]
		if !ok {
			return "", false, grid.Errorf(grid.Denied, "swarm: the membership of %s is signed by %s, which is not known as a member", m.Peer, signer)
		}
		if _, gone := b.revoked[signer]; gone && from == shown {
			return "", false, grid.Errorf(grid.Denied, "swarm: the membership of %s is signed by %s, whose own was revoked", m.Peer, signer).
				Hint("connect it to a node that shares the swarm's ledger, or join again with a new token")
		}
		if !s.m.Role.Includes(grid.RoleVoter) && from == shown {
			return "", false, grid.Errorf(grid.Denied, "swarm: the membership of %s is signed by %s, a %s, who lets nobody in", m.Peer, signer, s.m.Role).
				Hint("join through a voter or an admin")
		}
		if s.m.Expires != 0 && m.Issued > s.m.Expires {
			return "", false, grid.Errorf(grid.Denied, "swarm: the membership of %s is signed by %s, whose own had expired", m.Peer, signer)
		}
	}
	if by.approver != "" && from == shown {
		if err := b.ceased(by.approver); err != nil {
			return "", false, err
		}
	}
	if by.signer != by.under {
		var before *known
		if had && b.why(old) == "" {
			before = &old
		}
		i := invitationOf(&m)
		if err := b.uses.check(&m, &i, by.signer, before, from); err != nil {
			return "", false, err
		}
	}
	if !had && len(b.members) >= maxMembers {
		return "", false, grid.Errorf(grid.Limit, "swarm: more than %d members", maxMembers)
	}
	b.members[m.Peer] = known{m, by, slices.Clone(raw)}
	if by.signer != by.under {
		b.used(&m, from)
	}
	return m.Peer, true, nil
}

// used notes the use of an invitation. Who has to go for it is cut off when memberships are looked at next. The lock is held.
func (b *Book) used(m *Membership, from source) {
	i := invitationOf(m)
	for _, id := range b.uses.note(m, &i, from) {
		if k, ok := b.members[id]; ok && !k.founded() && invitationOf(&k.m).Key == i.Key {
			delete(b.members, id)
		}
	}
}

// Revoke takes a revocation. changed is whether it says something new.
func (b *Book) Revoke(raw []byte) (subject peer.ID, changed bool, err error) {
	return b.revoke(raw, shown)
}

func (b *Book) revoke(raw []byte, from source) (subject peer.ID, changed bool, err error) {
	var r Revocation
	signer, err := unseal(raw, &r)
	if err != nil {
		return "", false, err
	}
	if r.Swarm != b.swarm || r.Serial == 0 || r.Serial > maxSerial || !isID(r.Peer) {
		return "", false, grid.Errorf(grid.Denied, "swarm: a revocation of another swarm, or of nobody")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	old, had := b.revoked[r.Peer]
	key, _ := b.line.authority()
	// One that says the same with the authority's word takes the place of one that others do not believe any more.
	better := had && old.r.Serial == r.Serial && signer == key && old.signer != key && b.mayRevoke(old.signer, &old.r) != nil
	if had && old.r.Serial >= r.Serial && !better {
		return r.Peer, false, nil
	}
	if err := b.mayRevoke(signer, &r); err != nil && from != remembered && !(from == recorded && b.mightRevoke(signer, &r)) {
		return "", false, err
	}
	if key != signer && signer == r.Peer && from != remembered { // keys cost nothing, and there is room for so many revocations
		if k, known := b.members[r.Peer]; !known {
			return "", false, grid.Errorf(grid.NotFound, "swarm: %s leaves, and is not known as a member", r.Peer)
		} else if had && old.r.Serial >= k.m.Serial {
			return r.Peer, false, nil // it has left, or was revoked
		}
	}
	if !had && len(b.revoked) >= maxRevoked {
		return "", false, grid.Errorf(grid.Limit, "swarm: more than %d revocations", maxRevoked)
	}
	if at := &b.sums[bucket(r.Peer)]; had {
		*at += weigh(string(r.Peer), r.Serial) - weigh(string(r.Peer), old.r.Serial)
	} else {
		*at += weigh(string(r.Peer), r.Serial)
	}
	b.revoked[r.Peer] = revoked{r, signer, slices.Clone(raw)}
	return r.Peer, !better, nil
}

// inOrder are revocations, the oldest first, and of those of one second those last whose peers have signed others: who was revoked may
// have revoked others before. What is none is left out.
func inOrder(list [][]byte) [][]byte {
	type dated struct {
		raw []byte
		r   Revocation
	}
	var all []dated
	signers := make(map[peer.ID]int)
	for _, raw := range list {
		if len(raw) > maxRecord {
			continue
		}
		e, err := record.UnmarshalEnvelope(raw)
		if err != nil || e.PublicKey == nil {
			continue
		}
		d := dated{raw: raw}
		if id, err := peer.IDFromPublicKey(e.PublicKey); err == nil && d.r.UnmarshalRecord(e.RawPayload) == nil {
			all = append(all, d)
			signers[id] = 1
		}
	}
	slices.SortStableFunc(all, func(x, y dated) int {
		return cmp.Or(cmp.Compare(x.r.Issued, y.r.Issued), cmp.Compare(signers[x.r.Peer], signers[y.r.Peer]))
	})
	out := make([][]byte, 0, len(all))
	for _, d := range all {
		out = append(out, d.raw)
	}
	return out
}

// mayRevoke asks whether somebody may revoke what is told. The lock is held.
func (b *Book) mayRevoke(signer peer.ID, r *Revocation) error {
	if key, _ := b.line.authority(); signer == key || signer == r.Peer {
		return nil
	}
	if s, ok := b.members[signer]; !ok || !s.m.Role.Includes(grid.RoleAdmin) || b.why(s) != "" {
		return grid.Errorf(grid.Denied, "swarm: %s may not revoke members", signer)
	}
	return nil
}

// mightRevoke asks whether somebody who may revoke no more might have when it did, as the ledger has it. The lock is held.
func (b *Book) mightRevoke(signer peer.ID, r *Revocation) bool {
	s, ok := b.members[signer]
	if !ok || !s.m.Role.Includes(grid.RoleAdmin) || s.m.Expires != 0 && r.Issued > s.m.Expires {
		return false
	}
	gone, ok := b.revoked[signer]
	return !ok || gone.r.Serial < s.m.Serial || r.Issued <= gone.r.Issued
}

// stale are memberships and revocations that the book believes, but one that knows nothing would not, as the authority's key was
// replaced, or who has revoked is an admin no more. The authority is to sign them anew.
func (b *Book) stale() (members []Membership, revocations []Revocation) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	key, disputed := b.line.authority()
	if disputed {
		return nil, nil
	}
	for _, k := range b.members {
		if k.under != key && b.why(k) == "" {
			members = append(members, k.m)
		}
	}
	for _, r := range b.revoked {
		if b.mayRevoke(r.signer, &r.r) != nil {
			revocations = append(revocations, r.r)
		}
	}
	slices.SortFunc(members, func(x, y Membership) int { return cmp.Compare(x.Peer, y.Peer) })
	slices.SortFunc(revocations, func(x, y Revocation) int { return cmp.Compare(x.Peer, y.Peer) })
	return members, revocations
}

// successions are what proves the authority's key.
func (b *Book) successions() [][]byte {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.line.raws()
}

// lineage is a copy of what the book knows of the authority's key.
func (b *Book) lineage() lineage {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.line.clone()
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
		if k.founded() {
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
func (b *Book) learnAll(list [][]byte, from source) (changed []peer.ID, err error) {
	for progress := true; progress && len(list) > 0; {
		var rest [][]byte
		progress, err = false, nil
		for _, raw := range list {
			id, c, e := b.learn(raw, from)
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

// count is how many are members now.
func (b *Book) count() (n int) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, k := range b.members {
		if b.why(k) == "" {
			n++
		}
	}
	return n
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
