package member

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p"
)

// Parts of the ledger's keys.
const (
	infoPart      = "info"      // the swarm's ID: this ledger is the swarm's
	authorityPart = "authority" // a list of sealed Successions
	memberPart    = "member/"   // by peer ID: a sealed Membership
	revokedPart   = "revoked/"  // by peer ID: a sealed Revocation
	invitePart    = "invite/"   // by the ID of an invitation's key: used; below that by peer ID: who has joined by it, with no value
	waitingPart   = "waiting/"  // by peer ID: waiting
)

// maxWaits is how many more than an invitation is for may wait for approval by it, so that one that is known to many does not fill the
// ledger.
const maxWaits = 32

// used says how many have joined by an invitation. Who they are is in entries of their own, as all members are sent what changes.
type used struct {
	Uses  uint32 `cbor:"uses,omitempty"`
	Waits uint32 `cbor:"waits,omitempty"` // how many were put to wait for approval, ever
}

// waiting is a peer that waits for an admin's approval.
type waiting struct {
	Name     string          `cbor:"name,omitempty"`
	Role     grid.MemberRole `cbor:"role"`
	Since    int64           `cbor:"since"`
	Invite   peer.ID         `cbor:"invite"`
	Approval []byte          `cbor:"approval,omitempty"` // a sealed Approval, once there is one
}

// admit makes a peer a member that proves that it was invited.
func (s *Service) admit(ctx context.Context, from peer.ID, q *request) (a reply, err error) {
	if err := s.May(s.self, grid.RoleVoter); err != nil {
		return a, grid.Errorf(grid.Unavailable, "swarm: this member lets nobody in: %w", err).Hint("join through a voter or an admin")
	}
	inv, signer, err := openInvitation(q.Invite, s.swarm)
	if line := s.book.lineage(); err == nil {
		err = line.check("the invitation", signer)
	}
	if err == nil {
		err = inv.expired(s.cfg.Now())
	}
	if err == nil {
		err = inv.checkProof(from, q.Proof)
	}
	if err == nil {
		err = grid.CheckMemberName(q.Name)
	}
	if err != nil {
		return a, err
	}
	s.mu.Lock()
	l, w := s.ledger, s.wire
	s.mu.Unlock()
	if l == nil {
		return a, grid.Errorf(grid.Unavailable, "swarm: this member has only just started: try again")
	}
	var raw []byte
	_, err = grid.Update(ctx, l, func(tx *grid.Tx) (err error) {
		line, err := s.lineage(tx)
		if err == nil {
			err = line.check("the invitation", signer)
		}
		if err == nil {
			raw, err = s.enter(tx, from, &inv, q)
		}
		return err
	})
	if err != nil {
		return a, err
	}
	if raw == nil {
		s.log.Info("swarm: a peer waits for approval", "peer", from, "name", q.Name, "role", inv.Role)
		return reply{Waiting: true}, nil
	}
	if _, _, err := s.book.learn(raw, recorded); err != nil {
		return a, err
	}
	s.log.Info("swarm: a member has joined", "peer", from, "name", q.Name, "role", inv.Role)
	s.changed(from)
	s.tell(nil, [][]byte{raw}, from)
	return reply{
		Chain: s.book.Chain(from), Records: s.book.records(maxAtOnce), Revocations: s.book.revocations(maxAtOnce),
		Successions: s.book.successions(), Time: s.cfg.Now().Unix(),
		Addrs: w.Contacts(), Name: s.cfg.Home.Name, Realm: s.cfg.Realm,
	}, nil
}

// enter books one use of an invitation, and the membership that comes of it: nil if it has to wait.
func (s *Service) enter(tx *grid.Tx, from peer.ID, inv *Invitation, q *request) (raw []byte, err error) {
	if e, ok, err := tx.Get(s.keys + infoPart); err != nil {
		return nil, err
	} else if !ok || string(e.Value) != string(s.swarm) {
		return nil, grid.Errorf(grid.Unavailable, "swarm: this member does not share the ledger of the swarm, and so cannot let anybody in").
			Hint("join through another member, or try again in a moment")
	}
	var uses used
	inviteKey := s.keys + invitePart + inv.Key.String()
	if _, err := get(tx, inviteKey, &uses); err != nil {
		return nil, err
	}
	prev, revokedTo, err := s.standing(tx, from)
	if err != nil {
		return nil, err
	}
	useKey := inviteKey + "/" + from.String()
	if _, again, err := tx.Get(useKey); err != nil {
		return nil, err
	} else if again {
		if prev.Serial > revokedTo && prev.Peer == from {
			e, _, err := tx.Get(s.keys + memberPart + from.String())
			return e.Value, err // its answer was lost
		}
		return nil, grid.Errorf(grid.Denied, "swarm: the token was used by this node before, and its membership has ended since").Hint("ask for a new token")
	}
	if uses.Uses >= inv.Uses {
		return nil, grid.Errorf(grid.Denied, "swarm: the token is used up: %d of %d", uses.Uses, inv.Uses).Hint("ask for a new token: `grid swarm invite` makes one")
	}
	var approval []byte
	if inv.Approve {
		key := s.keys + waitingPart + from.String()
		var wait waiting
		ok, err := get(tx, key, &wait)
		switch {
		case err != nil:
			return nil, err
		case !ok || wait.Invite != inv.Key:
			if uses.Waits++; uses.Waits > inv.Uses+maxWaits {
				return nil, grid.Errorf(grid.Limit, "swarm: %d nodes have asked to be let in by this token", uses.Waits-1).Hint("ask for a new token: many have got hold of this one")
			}
			if err := put(tx, inviteKey, uses); err != nil {
				return nil, err
			}
			return nil, put(tx, key, waiting{Name: q.Name, Role: inv.Role, Since: s.cfg.Now().Unix(), Invite: inv.Key})
		case !s.approved(&wait, inv, from):
			return nil, nil
		}
		approval = wait.Approval
		tx.Delete(key)
	}
	serial, err := follow(max(prev.Serial, revokedTo), from)
	if err != nil {
		return nil, err
	}
	m := Membership{
		Swarm: s.swarm, Peer: from, Role: inv.Role, Name: q.Name, Issued: s.cfg.Now().Unix(),
		Serial: serial, Invite: q.Invite, Proof: q.Proof, Approval: approval,
	}
	m.Issued = min(m.Issued, inv.Expires)
	if inv.Lasts > 0 {
		m.Expires = m.Issued + inv.Lasts
	}
	if raw, err = seal(&m, s.cfg.Key); err != nil {
		return nil, err
	}
	if err := s.audit(tx, grid.ActAdmit, from, fmt.Sprintf("%q, as %s, by invitation %s", q.Name, inv.Role, inv.Key)); err != nil {
		return nil, err
	}
	uses.Uses++
	tx.Put(useKey, nil)
	tx.Put(s.keys+memberPart+from.String(), raw)
	return raw, put(tx, inviteKey, uses)
}

// standing is what the ledger has of a peer: its membership, the zero one if there is none, and up to which serial it is revoked.
func (s *Service) standing(tx *grid.Tx, id peer.ID) (m Membership, revokedTo uint64, err error) {
	e, ok, err := tx.Get(s.keys + memberPart + id.String())
	if err == nil && ok {
		if _, err := unseal(e.Value, &m); err != nil || m.Peer != id || m.Swarm != s.swarm {
			m = Membership{}
		}
	}
	if err != nil {
		return m, 0, err
	}
	if e, ok, err = tx.Get(s.keys + revokedPart + id.String()); err == nil && ok {
		var r Revocation
		if _, err := unseal(e.Value, &r); err == nil && r.Peer == id && r.Swarm == s.swarm {
			revokedTo = r.Serial
		}
	}
	return m, revokedTo, err
}

func get(tx *grid.Tx, key string, v any) (ok bool, err error) {
	e, ok, err := tx.Get(key)
	if err == nil && ok {
		err = grid.Unmarshal(e.Value, v)
	}
	return ok, err
}

func put(tx *grid.Tx, key string, v any) error {
	data, err := grid.Marshal(v)
	if err == nil {
		tx.Put(key, data)
	}
	return err
}

// shared is the ledger, once the service has it.
func (s *Service) shared() (grid.Ledger, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ledger == nil {
		return nil, grid.Errorf(grid.Unavailable, "swarm: the node has only just started: try again")
	}
	return s.ledger, nil
}

func (s *Service) needAuthority(what string) error {
	if s.signer() == nil {
		if s.cfg.Home.hasKey() {
			return grid.Errorf(grid.Denied, "swarm: to %s needs the authority's key, and the one in this home is it no more: it was replaced", what).
				Hint("do it on the node where `grid swarm rotate-key` was run, or copy its file %s to this home", authorityFile)
		}
		return grid.Errorf(grid.Denied, "swarm: to %s needs the authority's key, which this home has not", what).
			Hint("do it on the node where `grid swarm init` was run, or copy its file %s to this home", authorityFile)
	}
	return nil
}

// Invite makes a token.
func (s *Service) Invite(ctx context.Context, req grid.InviteRequest) (grid.Invite, error) {
	l, err := s.shared()
	if err == nil {
		err = s.needAuthority("invite")
	}
	if err != nil {
		return grid.Invite{}, err
	}
	s.mu.Lock()
	contacts := s.wire.Contacts()
	s.mu.Unlock()
	var addrs []ma.Multiaddr
	for _, text := range contacts {
		if a, err := ma.NewMultiaddr(text); err == nil && len(a.Bytes()) <= maxAddr && s.letsIn(a) {
			addrs = append(addrs, a)
		}
	}
	t, err := NewToken(s.swarm, s.signer(), req, addrs, s.cfg.Now())
	if err != nil {
		return grid.Invite{}, err
	}
	_, err = grid.Update(ctx, l, func(tx *grid.Tx) error {
		return s.audit(tx, grid.ActInvite, t.Invitation.Key, fmt.Sprintf("as %s, %d times, until %s", req.Role, req.Uses, when(t.Invitation.Expires)))
	})
	if err != nil {
		return grid.Invite{}, grid.Errorf(grid.CodeOf(err), "swarm: the invitation is not in the audit log: %w", err)
	}
	t.PSK = s.psk
	s.log.Info("swarm: an invitation was made", "key", t.Invitation.Key, "role", req.Role, "uses", req.Uses)
	return grid.Invite{Token: t.String(), Expires: time.Unix(t.Invitation.Expires, 0).UTC()}, nil
}

// letsIn reports whether the node of an address is known to let others in.
func (s *Service) letsIn(a ma.Multiaddr) bool {
	_, id := peer.SplitAddr(a)
	return s.May(id, grid.RoleVoter) == nil
}

// Info describes the swarm.
func (s *Service) Info() grid.SwarmInfo {
	m, _ := s.book.Member(s.self)
	line := s.book.lineage()
	key, _ := line.authority()
	info := grid.SwarmInfo{
		ID: s.swarm.String(), Name: s.cfg.Home.Name, Role: m.Role, Authority: s.signer() != nil,
		Succession: line.number(), PSK: s.psk != nil, Twin: s.twin(),
	}
	if key != "" {
		info.Key = key.String()
	}
	for _, k := range line.rivals() {
		info.Disputed = append(info.Disputed, k.String())
	}
	if m.Expires != 0 {
		info.Expires = time.Unix(m.Expires, 0).UTC()
		info.Ending = m.ending(s.cfg.Now())
	}
	if err := s.book.Refusal(s.self); err != nil {
		info.Ended, info.Advice = strings.TrimPrefix(err.Error(), "swarm: "), grid.AdviceOf(err)
	}
	info.Members = s.book.count()
	return info
}

// Members lists who is and was a member, and who waits to become one, in order of IDs.
func (s *Service) Members(ctx context.Context) ([]grid.SwarmMember, error) {
	l, err := s.shared()
	if err != nil {
		return nil, err
	}
	list := s.book.list()
	up := map[string]bool{s.self.String(): true}
	for _, p := range s.wire.Network.Peers() {
		up[p.ID.String()] = true
	}
	for i := range list {
		list[i].Up = up[list[i].ID]
	}
	_, err = grid.RangeAll(ctx, l, s.keys+waitingPart, false, func(e grid.Entry) error {
		var w waiting
		if err := grid.Unmarshal(e.Value, &w); err == nil && len(w.Approval) == 0 {
			list = append(list, grid.SwarmMember{
				ID: strings.TrimPrefix(e.Key, s.keys+waitingPart), Name: w.Name, Role: w.Role, Issued: time.Unix(w.Since, 0).UTC(), State: "waiting",
			})
		}
		return nil
	})
	slices.SortStableFunc(list, func(x, y grid.SwarmMember) int { return cmp.Compare(x.ID, y.ID) })
	return list, err
}

// Approve lets a peer in that waits.
func (s *Service) Approve(ctx context.Context, id peer.ID) error {
	l, err := s.shared()
	if err == nil {
		err = s.mayAdminister()
	}
	if err != nil {
		return err
	}
	_, err = grid.Update(ctx, l, func(tx *grid.Tx) (err error) {
		var w waiting
		key := s.keys + waitingPart + id.String()
		if ok, err := get(tx, key, &w); err != nil {
			return err
		} else if !ok {
			return grid.Errorf(grid.NotFound, "swarm: %s does not wait for approval", id).Hint("`grid member ls` lists who does")
		}
		if w.Approval, err = s.sealApproval(&w, id); err == nil {
			err = s.audit(tx, grid.ActApprove, id, fmt.Sprintf("%q, as %s, by invitation %s", w.Name, w.Role, w.Invite))
		}
		return errors.Join(err, put(tx, key, w))
	})
	return err
}

func (s *Service) mayAdminister() error {
	if s.signer() != nil {
		return nil
	}
	return s.May(s.self, grid.RoleAdmin)
}

// Revoke ends the membership of a peer: of this node itself, when it leaves. It tells all that are connected.
func (s *Service) Revoke(ctx context.Context, id peer.ID) error {
	l, err := s.shared()
	if err != nil {
		return err
	}
	if id == s.self {
		return s.leave(ctx, l)
	}
	if err := s.mayAdminister(); err != nil {
		return err
	}
	key := s.cfg.Key
	if a := s.signer(); a != nil {
		key = a
	}
	var raw []byte
	_, err = grid.Update(ctx, l, func(tx *grid.Tx) error {
		m, revokedTo, err := s.standing(tx, id)
		if err != nil {
			return err
		}
		known, _ := s.book.Member(id)
		serial := max(m.Serial, known.Serial)
		if serial == 0 || serial <= revokedTo {
			var w waiting
			if ok, err := get(tx, s.keys+waitingPart+id.String(), &w); err != nil || ok {
				tx.Delete(s.keys + waitingPart + id.String())
				return errors.Join(err, s.audit(tx, grid.ActRevoke, id, "turned away while it waited for approval"))
			}
			return grid.Errorf(grid.NotFound, "swarm: %s is not a member", id).Hint("`grid member ls` lists them")
		}
		if raw, err = seal(&Revocation{Swarm: s.swarm, Peer: id, Serial: serial, Issued: s.cfg.Now().Unix()}, key); err != nil {
			return err
		}
		tx.Put(s.keys+revokedPart+id.String(), raw)
		tx.Delete(s.keys + waitingPart + id.String())
		return s.audit(tx, grid.ActRevoke, id, fmt.Sprintf("memberships up to %d", serial))
	})
	if err != nil || raw == nil {
		return err
	}
	s.tell([][]byte{raw}, nil, id) // before the connections to it are cut, for the list of peers to be whole
	s.revokeAll([][]byte{raw})
	return nil
}

// leave revokes the membership of this node itself. A member that hears of it puts it into the ledger, for this node will not be
// let. If there is none, the ledger is this node's alone.
func (s *Service) leave(ctx context.Context, l grid.Ledger) error {
	m, ok := s.book.Member(s.self)
	if !ok {
		return nil // it was revoked already
	}
	// The next serial, too, which it may not have heard of: it may just have been signed anew.
	raw, err := seal(&Revocation{Swarm: s.swarm, Peer: s.self, Serial: m.Serial + 1, Issued: s.cfg.Now().Unix()}, s.cfg.Key)
	if err != nil {
		return err
	}
	data, err := grid.Marshal(request{Do: doTell, Swarm: s.swarm, Revocations: [][]byte{raw}})
	if err != nil {
		return err
	}
	peers := s.wire.Network.Peers()
	if len(peers) == 0 {
		_, err = grid.Update(ctx, l, func(tx *grid.Tx) error {
			tx.Put(s.keys+revokedPart+s.self.String(), raw)
			return s.audit(tx, grid.ActLeave, s.self, "")
		})
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	heard := 0
	for _, p := range peers { // the first passes it on, so that the others may have hung up by the time they are asked
		if _, e := s.wire.Network.Call(ctx, p.ID, protocol, data); e == nil {
			heard++
		} else if err == nil {
			err = e
		}
	}
	if heard > 0 {
		return nil
	}
	return grid.Errorf(grid.CodeOf(err), "swarm: no member was told that this node leaves: %w", err).Hint("try again while another member is up")
}

// SetRole gives a member another role.
func (s *Service) SetRole(ctx context.Context, id peer.ID, role grid.MemberRole) error {
	l, err := s.shared()
	if err == nil {
		err = role.Check()
	}
	if err == nil {
		err = s.needAuthority("change roles")
	}
	if err != nil {
		return err
	}
	return s.amend(ctx, l, id, grid.ActSetRole, func(m *Membership) (string, error) {
		note := fmt.Sprintf("from %s to %s", m.Role, role)
		m.Role = role
		return note, nil
	})
}

// Init makes a private swarm in a home: its recovery key, whose ID is the swarm's, and its authority's key, if they are not there
// yet, and the membership of the home's node, whose key is given, as admin; with psk, a pre-shared key, too.
func Init(dir string, node crypto.PrivKey, name, member string, psk bool, now time.Time) (*Home, error) {
	if err := errors.Join(grid.CheckMemberName(name), grid.CheckMemberName(member)); err != nil {
		return nil, err
	}
	if h, err := LoadHome(dir); err != nil || h != nil {
		if err == nil {
			err = grid.Errorf(grid.Conflict, "the node of %s belongs to the private swarm %s already", dir, h.Swarm).
				Hint("`grid swarm show` describes it; use another --home, or leave with `grid swarm leave`")
		}
		return nil, err
	}
	recovery, err := p2p.LoadIdentity(filepath.Join(dir, recoveryFile))
	if err != nil {
		return nil, err
	}
	authority, err := p2p.LoadIdentity(filepath.Join(dir, authorityFile))
	if err != nil {
		return nil, err
	}
	h := &Home{Name: name, Founder: true, dir: dir}
	if h.Swarm, err = peer.IDFromPrivateKey(recovery); err != nil {
		return nil, grid.Errorf(grid.Internal, "swarm: the recovery key: %w", err)
	}
	begin := Succession{Swarm: h.Swarm, Number: uint64(now.Unix()), Issued: now.Unix()}
	if begin.Key, err = peer.IDFromPrivateKey(authority); err != nil {
		return nil, grid.Errorf(grid.Internal, "swarm: the authority's key: %w", err)
	}
	first, err := seal(&begin, recovery)
	if err != nil {
		return nil, err
	}
	m := Membership{Swarm: h.Swarm, Role: grid.RoleAdmin, Name: member, Issued: now.Unix(), Serial: uint64(now.Unix())}
	if m.Peer, err = peer.IDFromPrivateKey(node); err != nil {
		return nil, grid.Errorf(grid.Internal, "identity: %w", err)
	}
	raw, err := seal(&m, authority)
	if err != nil {
		return nil, err
	}
	h.Records, h.Successions = [][]byte{raw}, [][]byte{first}
	var shared pnet.PSK
	if psk {
		shared = p2p.NewPSK()
	}
	if err := h.share(shared); err != nil {
		return nil, err
	}
	return h, h.save()
}

// approvalEvery is how often who waits for approval asks again.
const approvalEvery = 2 * time.Second

// Joiner is how a node joins.
type Joiner struct {
	Dir   string // its home
	Key   crypto.PrivKey
	Name  string // what the member is to be called
	Token *Token
	// Ask calls the node at an address.
	Ask func(ctx context.Context, addr string, req []byte) ([]byte, error)
	Now func() time.Time
	// Waiting is told once that an admin has to approve; nil: nobody is.
	Waiting func()
}

// Join proves a token to the members that it names, one after the other until one lets the node in, and writes what they say
// into the home.
func (j *Joiner) Join(ctx context.Context) (*Home, error) {
	self, err := peer.IDFromPrivateKey(j.Key)
	if err != nil {
		return nil, grid.Errorf(grid.Internal, "identity: %w", err)
	}
	if err := j.Token.Invitation.expired(j.Now()); err != nil {
		return nil, err
	}
	proof, err := j.Token.prove(self)
	if err != nil {
		return nil, grid.Errorf(grid.Internal, "swarm: %w", err)
	}
	q := request{Do: doJoin, Swarm: j.Token.Invitation.Swarm, Invite: j.Token.sealed, Proof: proof, Name: j.Name}
	data, err := grid.Marshal(q)
	if err != nil {
		return nil, err
	}
	told := false
	for {
		a, err := j.askAll(ctx, data)
		if err != nil {
			return nil, grid.Errorf(grid.CodeOf(err), "join the swarm %s: %w", q.Swarm, err)
		}
		if !a.Waiting {
			return j.accept(self, a)
		}
		if !told && j.Waiting != nil {
			j.Waiting()
		}
		told = true
		select {
		case <-ctx.Done():
			return nil, grid.Errorf(grid.CodeOf(ctx.Err()), "join the swarm %s: nobody has approved yet", q.Swarm).
				Hint("an admin does, with `grid member approve %s`; then start the node again with the same token", self)
		case <-time.After(approvalEvery):
		}
	}
}

// askAll asks one member after the other. What one of them refuses for good is not asked of the next.
func (j *Joiner) askAll(ctx context.Context, data []byte) (a reply, err error) {
	err = grid.Errorf(grid.Unavailable, "the token names no member").Hint("make a new token on a node that is up")
	for i, addr := range j.Token.Addrs {
		answer, e := j.Ask(ctx, addr.String(), data)
		if e == nil {
			return decodeMessage[reply](answer)
		}
		switch grid.CodeOf(e) {
		case grid.Denied, grid.Canceled:
			return a, e
		}
		if i == 0 || grid.CodeOf(err) == grid.Unavailable {
			err = e
		}
		if ctx.Err() != nil {
			break
		}
	}
	return a, err
}

// accept checks what a member has answered: it proves itself by what it says.
func (j *Joiner) accept(self peer.ID, a reply) (*Home, error) {
	swarm := j.Token.Invitation.Swarm
	book := NewBook(swarm, j.Now)
	if len(a.Records) > maxAtOnce || len(a.Revocations) > maxAtOnce || len(a.Addrs) > maxAtOnce ||
		grid.CheckMemberName(a.Name) != nil || grid.CheckMemberName(a.Realm) != nil {
		return nil, grid.Errorf(grid.Invalid, "join the swarm %s: the answer is out of bounds", swarm)
	}
	if len(a.Successions) <= maxLineage {
		_, _ = book.Succeed(a.Successions)
	}
	if subject, _, err := book.Learn(a.Chain); err != nil || subject != self {
		if e := clocks(a.Time, j.Now()); e != nil {
			return nil, grid.Errorf(grid.Denied, "join the swarm %s: %w", swarm, e)
		}
		return nil, grid.Errorf(grid.Denied, "join the swarm %s: the node that answered is not a member, or does not say that we are one: %v", swarm, err).
			Hint("the token may have been changed, or somebody else listens at the addresses in it")
	}
	_, _ = book.learnAll(a.Records, handed)
	for _, raw := range inOrder(a.Revocations) {
		_, _, _ = book.Revoke(raw)
	}
	if err := book.Refusal(self); err != nil {
		return nil, grid.Errorf(grid.Denied, "join the swarm %s: %w", swarm, err)
	}
	h := &Home{Swarm: swarm, Name: a.Name, Realm: a.Realm, Successions: book.successions(), dir: j.Dir}
	h.Records = book.records(maxMembers)
	h.Revocations = book.revocations(maxRevoked)
	for _, text := range slices.Concat(addrTexts(j.Token.Addrs), a.Addrs) {
		if len(text) <= maxAddr && len(h.Peers) < maxTokenAddrs && !slices.Contains(h.Peers, text) {
			if _, err := ma.NewMultiaddr(text); err == nil {
				h.Peers = append(h.Peers, text)
			}
		}
	}
	if err := h.share(j.Token.PSK); err != nil {
		return nil, err
	}
	return h, h.save()
}

func addrTexts(addrs []ma.Multiaddr) (out []string) {
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}
