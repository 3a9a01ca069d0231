package member

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/wasmgrid/wasmgrid/grid"
)

func approval(t testing.TB, token *Token, joiner, by who, shows []byte, change ...func(*Approval)) []byte {
	t.Helper()
	a := Approval{Swarm: token.Invitation.Swarm, Peer: joiner.id, Invite: token.Invitation.Key, Issued: start.Unix(), By: shows}
	for _, f := range change {
		f(&a)
	}
	return sealed(t, &a, by)
}

// A membership by an invitation that asks for approval is believed only with one, of the authority or an admin, whoever is the sponsor.
func TestApprovals(t *testing.T) {
	authority, founder, joiner, second, voter, other := newWho(t), newWho(t), newWho(t), newWho(t), newWho(t), newWho(t)
	asks := func(r *grid.InviteRequest) { r.Approve = true }
	token, another := invite(t, authority, asks), invite(t, authority, asks)
	root := founding(t, authority, founder)
	admins := invite(t, authority, func(r *grid.InviteRequest) { r.Role = grid.RoleAdmin })
	secondIn := membership(t, admins, second, founder)
	voterIn := membership(t, invite(t, authority, func(r *grid.InviteRequest) { r.Role = grid.RoleVoter }), voter, founder)
	for name, tt := range map[string]struct {
		raw []byte
		ok  bool
	}{
		"by the authority":           {approval(t, token, joiner, authority, nil), true},
		"by an admin":                {approval(t, token, joiner, founder, root), true},
		"by an admin by invitation":  {approval(t, token, joiner, second, secondIn), true},
		"by nobody":                  {nil, false},
		"by a voter":                 {approval(t, token, joiner, voter, voterIn), false},
		"by itself":                  {approval(t, token, joiner, joiner, nil), false},
		"by a voter, as the founder": {approval(t, token, joiner, voter, root), false},
		"by who shows nothing":       {approval(t, token, joiner, founder, nil), false},
		"by a made-up admin":         {approval(t, token, joiner, other, sealed(t, &Membership{Swarm: authority.id, Peer: other.id, Role: grid.RoleAdmin, Issued: start.Unix(), Serial: 1}, other)), false},
		"of another peer":            {approval(t, token, other, founder, root), false},
		"of another invitation":      {approval(t, another, joiner, founder, root), false},
		"of another swarm":           {approval(t, token, joiner, founder, root, func(a *Approval) { a.Swarm = other.id }), false},
		"yet to come":                {approval(t, token, joiner, founder, root, func(a *Approval) { a.Issued += 7200 }), false},
		"another kind of record":     {root, false},
	} {
		raw := membership(t, token, joiner, founder, func(m *Membership) { m.Approval = tt.raw })
		for _, from := range []source{shown, recorded} {
			b := NewBook(authority.id, func() time.Time { return start.Add(time.Minute) })
			if _, err := b.learnAll([][]byte{root, voterIn}, recorded); err != nil {
				t.Fatal(err)
			}
			_, _, err := b.learn(raw, from)
			if _, in := b.Member(joiner.id); in != tt.ok || (err == nil) != tt.ok {
				t.Errorf("%s, from %v: a member: %v, %v", name, from, in, err)
			}
		}
	}

	// Who is no admin any more approves of nobody; what the ledger took in time stays.
	raw := membership(t, token, joiner, founder, func(m *Membership) { m.Approval = approval(t, token, joiner, second, secondIn) })
	for name, then := range map[string]func(*Book) error{
		"another role": func(b *Book) error {
			_, _, err := b.learn(sealed(t, &Membership{Swarm: authority.id, Peer: second.id, Role: grid.RoleVoter, Issued: start.Unix(), Serial: 2}, authority), shown)
			return err
		},
		"revoked": func(b *Book) error {
			_, _, err := b.Revoke(sealed(t, &Revocation{Swarm: authority.id, Peer: second.id, Serial: 1, Issued: start.Unix()}, authority))
			return err
		},
	} {
		b := NewBook(authority.id, func() time.Time { return start })
		if _, err := b.learnAll([][]byte{root, secondIn}, recorded); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(b.approves(approver{second.id, authority.id}), then(b)); err != nil {
			t.Fatal(err)
		}
		if err := b.approves(approver{second.id, authority.id}); !errors.Is(err, grid.Denied) {
			t.Errorf("%s: %v", name, err)
		}
		if _, _, err := b.learn(raw, shown); !errors.Is(err, grid.Denied) {
			t.Errorf("%s: %v", name, err)
		}
		if _, _, err := b.learn(raw, recorded); err != nil {
			t.Errorf("%s, but in time: %v", name, err)
		}
	}
}

// Who lets others in is a voter; the word of a worker counts for nothing.
func TestSponsorsVote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		x := newWho(t)
		home, err := w.join(x, w.token(hour(grid.RoleSubmitter, 1)))
		if err != nil {
			t.Fatal(err)
		}
		a := w.start(x, home, w.ledger)
		token := w.token(hour(grid.RoleAdmin, 1))
		through := *token
		through.Addrs = []ma.Multiaddr{ma.StringCast("/ip4/192.0.2.1/tcp/1/p2p/" + x.id.String())}
		y := newWho(t)
		if _, err := w.join(y, &through); !errors.Is(err, grid.Unavailable) {
			t.Errorf("through a submitter: %v", err)
		}
		through.Addrs = append(through.Addrs, token.Addrs...) // it goes on to the next
		if _, err := w.join(y, &through); err != nil {
			t.Error(err)
		}
		z := newWho(t)
		proof, err := token.prove(z.id)
		if err != nil {
			t.Fatal(err)
		}
		raw := sealed(t, &Membership{Swarm: a.swarm, Peer: z.id, Role: grid.RoleAdmin, Issued: time.Now().Unix(), Serial: 1, Invite: token.sealed, Proof: proof}, x)
		if _, _, err := w.founder.book.Learn([][]byte{raw}); !errors.Is(err, grid.Denied) {
			t.Errorf("a submitter's own record: %v", err)
		}
	})
}

// A member that is no admin writes its approval into the ledger, which is as if there were none.
func TestApprovalByVoter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		v := newWho(t)
		home, err := w.join(v, w.token(hour(grid.RoleVoter, 1)))
		if err != nil {
			t.Fatal(err)
		}
		voter := w.start(v, home, w.ledger)
		req := hour(grid.RoleWorker, 1)
		req.Approve = true
		token, x := w.token(req), newWho(t)
		done := make(chan error, 1)
		go func() {
			_, err := w.join(x, token)
			done <- err
		}()
		time.Sleep(3 * time.Second)
		if err := voter.Approve(t.Context(), x.id); !errors.Is(err, grid.Denied) {
			t.Errorf("a voter approves: %v", err)
		}
		key := voter.keys + waitingPart + x.id.String()
		_, err = grid.Update(t.Context(), w.ledger, func(tx *grid.Tx) error {
			var wait waiting
			if _, err := get(tx, key, &wait); err != nil {
				return err
			}
			raw, err := voter.sealApproval(&wait, x.id) // with a program of its own
			if err != nil {
				return err
			}
			wait.Approval = raw
			return put(tx, key, wait)
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, grid.Deadline) {
			t.Errorf("it joined: %v", err)
		}
		if w.founder.Admits(x.id) {
			t.Error("it is a member")
		}
	})
}

// Each act on members is in the audit log, by an entry of the same transaction.
func TestAuditOfMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		req := hour(grid.RoleWorker, 2)
		req.Approve = true
		token, x, y := w.token(req), newWho(t), newWho(t)
		joined := make(chan *Home, 1)
		go func() {
			home, err := w.join(x, token)
			if err != nil {
				t.Error(err)
			}
			joined <- home
		}()
		go func() { _, _ = w.join(y, token) }()
		time.Sleep(3 * time.Second)
		ctx := t.Context()
		if err := errors.Join(w.founder.Approve(ctx, x.id), w.founder.Revoke(ctx, y.id)); err != nil {
			t.Fatal(err)
		}
		a := w.start(x, <-joined, w.ledger)
		if err := errors.Join(w.founder.SetRole(ctx, x.id, grid.RoleVoter), w.founder.Revoke(ctx, x.id)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		z := newWho(t)
		home, err := w.join(z, w.token(hour(grid.RoleWorker, 1)))
		if err != nil {
			t.Fatal(err)
		}
		b := w.start(z, home, w.ledger)
		if err := b.Revoke(ctx, z.id); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute) // y has given up, too
		part := map[string]string{  // what is written with each
			"member.approve": waitingPart + x.id.String(), "member.admit": memberPart, "member.role": memberPart + x.id.String(),
			"member.leave": revokedPart + z.id.String(),
		}
		var acts []string
		w.ledger.mu.Lock()
		defer w.ledger.mu.Unlock()
		for _, c := range w.ledger.log {
			for _, e := range c.Put {
				if !strings.HasPrefix(e.Key, grid.AuditKeys) {
					continue
				}
				var signed struct {
					Fact []byte `cbor:"fact"`
					Sig  []byte `cbor:"sig"`
				}
				var f grid.AuditFact
				if err := errors.Join(grid.Unmarshal(e.Value, &signed), grid.Unmarshal(signed.Fact, &f)); err != nil {
					t.Fatal(err)
				}
				if f.Node != w.founder.id {
					t.Errorf("%+v is by another node", f)
				}
				acts = append(acts, string(f.Act))
				if p, ok := part[string(f.Act)]; ok && !slices.ContainsFunc(c.Put, func(e grid.Entry) bool { return strings.HasPrefix(e.Key, a.keys+p) }) {
					t.Errorf("%s is not in the transaction of its act: %v", f.Act, c)
				}
			}
		}
		want := []string{"member.invite", "member.approve", "member.revoke", "member.admit", "member.role", "member.revoke", "member.invite", "member.admit", "member.leave"}
		if !slices.Equal(acts, want) {
			t.Errorf("acts: %v, want %v", acts, want)
		}
	})
}
