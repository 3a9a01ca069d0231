package member

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

func revocation(t testing.TB, swarm, id peer.ID, serial uint64, issued time.Time, by who) []byte {
	t.Helper()
	return sealed(t, &Revocation{Swarm: swarm, Peer: id, Serial: serial, Issued: issued.Unix()}, by)
}

// Keys cost nothing: those that leave without ever having been members, and members that leave again and again, take no room from
// revocations, and are not passed on.
func TestLeavesAreFew(t *testing.T) {
	authority, founder, joiner := newWho(t), newWho(t), newWho(t)
	b := NewBook(authority.id, func() time.Time { return start })
	token := invite(t, authority, func(r *grid.InviteRequest) { r.Uses = 2 })
	if _, err := b.learnAll([][]byte{founding(t, authority, founder), membership(t, token, joiner, founder)}, shown); err != nil {
		t.Fatal(err)
	}
	leave := func(x who, serial uint64) (bool, error) {
		_, changed, err := b.Revoke(revocation(t, authority.id, x.id, serial, start, x))
		return changed, err
	}
	for range 3 {
		if changed, err := leave(newWho(t), 1); changed || !errors.Is(err, grid.NotFound) {
			t.Errorf("nobody leaves: %v, %v", changed, err)
		}
	}
	for serial := uint64(1); serial < 5; serial++ {
		if changed, err := leave(joiner, serial); changed != (serial == 1) || err != nil {
			t.Errorf("a member leaves with %d: %v, %v", serial, changed, err)
		}
	}
	if n := len(b.revocations(maxRevoked)); n != 1 {
		t.Errorf("%d revocations are kept", n)
	}
	back := invite(t, authority)
	if _, _, err := b.learn(membership(t, back, joiner, founder, func(m *Membership) { m.Serial = 6 }), shown); err != nil {
		t.Fatal(err)
	}
	if changed, err := leave(joiner, 7); !changed || err != nil {
		t.Errorf("it leaves, having come back: %v, %v", changed, err)
	}
}

// Who lets a node in cannot have it believe what the authority, or others, have not signed, nor in more members than were invited.
func TestHandedOver(t *testing.T) {
	authority, founder, honest, traitor, joiner := newWho(t), newWho(t), newWho(t), newWho(t), newWho(t)
	voters := invite(t, authority, func(r *grid.InviteRequest) { r.Role, r.Uses = grid.RoleVoter, 2 })
	token := invite(t, authority, func(r *grid.InviteRequest) { r.Uses = 3 })
	a := reply{Chain: [][]byte{membership(t, token, joiner, traitor), membership(t, voters, traitor, founder), founding(t, authority, founder)}}
	a.Records = [][]byte{membership(t, voters, honest, founder)}
	for range 10 {
		a.Records = append(a.Records, membership(t, token, newWho(t), traitor))
	}
	gone := newWho(t)
	a.Records = append(a.Records, membership(t, invite(t, authority), gone, founder))
	a.Revocations = [][]byte{
		revocation(t, authority.id, founder.id, 1, start, traitor),
		revocation(t, authority.id, honest.id, 1, start, newWho(t)),
		revocation(t, authority.id, gone.id, 1, start, founder),
		[]byte("nothing"),
	}
	dir := t.TempDir()
	j := &Joiner{Dir: dir, Key: joiner.key, Token: token, Now: func() time.Time { return start }}
	h, err := j.accept(joiner.id, a)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Key: joiner.key, Home: h, Now: j.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for name, x := range map[string]who{"the founder": founder, "a member": honest, "its sponsor": traitor} {
		if err := s.book.Refusal(x.id); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s.Admits(gone.id) {
		t.Error("who was revoked is believed")
	}
	if n := s.Info().Members; n != 6 { // with two more by the token
		t.Errorf("%d members are believed", n)
	}
}

// What an admin has revoked stays so when that one is revoked itself, whoever learns of it, and in whatever order.
func TestRevokedAdmin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		admins, workers := w.token(hour(grid.RoleAdmin, 1)), w.token(hour(grid.RoleWorker, 20))
		admin := newWho(t)
		home, err := w.join(admin, admins)
		if err != nil {
			t.Fatal(err)
		}
		a := w.start(admin, home, w.ledger)
		var gone []peer.ID
		for range 8 { // of those some come before the admin in the ledger, and some after it
			x := newWho(t)
			if _, err := w.join(x, workers); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if err := a.Revoke(t.Context(), x.id); err != nil {
				t.Fatal(err)
			}
			gone = append(gone, x.id)
		}
		w.founder.mu.Lock()
		key := w.founder.authority
		w.founder.authority = nil // its home is elsewhere for now
		w.founder.mu.Unlock()
		if err := w.founder.Revoke(t.Context(), admin.id); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		late := newWho(t)
		if home, err = w.join(late, workers); err != nil {
			t.Fatal(err)
		}
		home.Revocations = nil // it has the ledger only
		l := w.start(late, home, w.ledger)
		check := func(when string) {
			t.Helper()
			time.Sleep(time.Minute)
			for _, id := range append(gone, admin.id) {
				if l.Admits(id) || w.founder.Admits(id) {
					t.Errorf("%s: %s is believed: %v, %v", when, id, l.Admits(id), w.founder.Admits(id))
				}
			}
		}
		check("from the ledger")

		w.founder.mu.Lock()
		w.founder.authority = key
		w.founder.mu.Unlock()
		if _, err := w.join(newWho(t), workers); err != nil { // something changes
			t.Fatal(err)
		}
		check("signed anew")
		for _, id := range gone {
			e, err := w.ledger.Get(t.Context(), l.keys+revokedPart+id.String())
			if err != nil {
				t.Fatal(err)
			}
			var r Revocation
			if signer, err := unseal(e.Value, &r); err != nil || signer == admin.id {
				t.Errorf("the revocation of %s rests on one who was revoked: %v", id, err)
			}
		}
	})
}

// A node whose clock starts long ago, as that of a machine without a battery, believes what it has written down.
func TestClockGoesBack(t *testing.T) {
	now, x := start, newWho(t)
	dir := t.TempDir()
	home, err := Init(dir, x.key, "", "", false, now)
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(-20 * 365 * 24 * time.Hour)
	s, err := New(Config{Key: x.key, Home: home, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if home, err = LoadHome(dir); err != nil || len(home.Successions) != 1 || len(home.Records) != 1 {
		t.Errorf("the home has forgotten: %+v, %v", home, err)
	}
}

// A proof is one after the authority's key was replaced, too, and none without what makes that the authority's.
func TestProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		synctest.Wait()
		for range 2 {
			chain, line := w.founder.Proof()
			if err := CheckProof(w.founder.swarm, w.founder.id, chain, line, time.Now); err != nil {
				t.Error(err)
			}
			for name, err := range map[string]error{
				"without successions": CheckProof(w.founder.swarm, w.founder.id, chain, nil, time.Now),
				"of another":          CheckProof(w.founder.swarm, newWho(t).id, chain, line, time.Now),
				"of too many":         CheckProof(w.founder.swarm, w.founder.id, chain, make([][]byte, maxLineage+1), time.Now),
			} {
				if err == nil {
					t.Errorf("%s: believed", name)
				}
			}
			if _, err := w.founder.RotateKey(t.Context(), false); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Addresses that a peer tells of are addresses: people are shown them.
func TestTwinAddresses(t *testing.T) {
	w := newBookService(t)
	w.answered(newWho(t).id, &reply{Twin: []string{"\x1b[2Jowned", "/ip4/192.0.2.9/tcp/1", unknown}})
	if got := w.Info().Twin; len(got) != 2 || got[0] != "/ip4/192.0.2.9/tcp/1" || got[1] != unknown {
		t.Errorf("%q", got)
	}
}

// However many an invitation is for, what the ledger has of it stays small: all members are sent what changes.
func TestManyUses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		token := w.token(hour(grid.RoleWorker, maxUses))
		x := newWho(t)
		for i := range 12 {
			if _, err := w.join(x, token); err != nil {
				t.Fatal(err)
			}
			if i%2 == 1 { // each twice, as if the answer was lost
				x = newWho(t)
			}
		}
		key := w.founder.keys + invitePart + token.Invitation.Key.String()
		var u used
		w.ledger.mu.Lock()
		defer w.ledger.mu.Unlock()
		if err := grid.Unmarshal(w.ledger.entries[key].Value, &u); err != nil || u.Uses != 6 {
			t.Errorf("%d uses, %v", u.Uses, err)
		}
		uses := 0
		for k, e := range w.ledger.entries {
			if strings.HasPrefix(k, key) {
				uses++
				if len(e.Value) > 32 {
					t.Errorf("%s has %d bytes", k, len(e.Value))
				}
			}
		}
		if uses != 7 {
			t.Errorf("%d entries", uses)
		}
	})
}

// A succession that is told together with nonsense is acted on like any other.
func TestSuccessionAmongNonsense(t *testing.T) {
	w := newBookService(t)
	key, err := w.cfg.Home.recovery()
	if err != nil {
		t.Fatal(err)
	}
	line := w.book.lineage()
	next := succession(t, w.swarm, line.number()+1, newWho(t).id, who{key: key})
	if w.signer() == nil {
		t.Fatal("the founder has not the authority's key")
	}
	w.heard(newWho(t).id, &request{Successions: [][]byte{next, []byte("nonsense")}})
	if w.signer() != nil || w.Info().Succession != line.number()+1 {
		t.Error("it goes on to sign with the old key")
	}
}
