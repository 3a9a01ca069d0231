package member

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/wasmgrid/wasmgrid/grid"
)

// A member that signs for others as it likes gets in no more than the invitation says, raises nobody, and is out as soon as the
// ledger says who was let in.
func TestSponsors(t *testing.T) {
	authority, founder, traitor := newWho(t), newWho(t), newWho(t)
	admins := invite(t, authority, func(r *grid.InviteRequest) { r.Role, r.Uses = grid.RoleAdmin, 2 })
	b := NewBook(authority.id, func() time.Time { return start.Add(30 * time.Minute) })
	learn := func(from source, raw []byte) error {
		_, _, err := b.learn(raw, from)
		return err
	}
	is := func(x who, role grid.MemberRole) bool {
		m, ok := b.Member(x.id)
		return ok && m.Role == role
	}
	if err := errors.Join(learn(shown, founding(t, authority, founder)), learn(recorded, membership(t, admins, traitor, founder))); err != nil {
		t.Fatal(err)
	}
	serial := func(n uint64) func(*Membership) { return func(m *Membership) { m.Serial = n } }

	// Itself: it was made a voter, and would be an admin again.
	down := sealed(t, &Membership{Swarm: authority.id, Peer: traitor.id, Role: grid.RoleVoter, Issued: start.Unix() + 60, Serial: 2}, authority)
	if err := learn(shown, down); err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{
		"by itself":              membership(t, admins, traitor, traitor, serial(3)),
		"by a friend":            membership(t, admins, traitor, founder, serial(3)),
		"by another invitation":  membership(t, invite(t, authority, func(r *grid.InviteRequest) { r.Role = grid.RoleAdmin }), traitor, founder, serial(3)),
		"with a serial too high": membership(t, admins, traitor, founder, serial(maxSerial+1)),
		"with the greatest":      membership(t, admins, traitor, founder, serial(math.MaxUint64)),
	} {
		if err := learn(shown, raw); err == nil || !is(traitor, grid.RoleVoter) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The authority may, whatever serial there is.
	if _, err := follow(maxSerial, traitor.id); !errors.Is(err, grid.Limit) {
		t.Errorf("%v", err)
	}

	// Friends: one place is left in the invitation.
	friends := []who{newWho(t), newWho(t), newWho(t)}
	for i, x := range friends {
		if err := learn(shown, membership(t, admins, x, traitor)); (err == nil) != (i == 0) {
			t.Errorf("friend %d: %v", i, err)
		}
	}
	if !is(friends[0], grid.RoleAdmin) {
		t.Error("the first is not in")
	}
	honest := newWho(t)
	record := membership(t, admins, honest, founder)
	if err := learn(shown, record); !errors.Is(err, grid.Denied) {
		t.Errorf("before the ledger says so: %v", err)
	}
	if err := learn(recorded, record); err != nil || !is(honest, grid.RoleAdmin) {
		t.Errorf("what the ledger has counted is not believed: %v", err)
	}
	if is(friends[0], grid.RoleAdmin) {
		t.Error("who was not counted is in still")
	}

	// What was shown first, and is in the ledger then, stays.
	two := invite(t, authority, func(r *grid.InviteRequest) { r.Uses = 2 })
	one, other, third := newWho(t), newWho(t), newWho(t)
	first := membership(t, two, one, founder)
	for _, err := range []error{learn(shown, first), learn(recorded, first), learn(shown, membership(t, two, third, founder)), learn(recorded, membership(t, two, other, founder))} {
		if err != nil {
			t.Error(err)
		}
	}
	if !is(one, grid.RoleSubmitter) || !is(other, grid.RoleSubmitter) || is(third, grid.RoleSubmitter) {
		t.Error("the wrong ones had to go")
	}
}

// A sponsor that names thousands of addresses does not crowd out those of the token.
func TestAddressesOfToken(t *testing.T) {
	authority, founder, joiner := newWho(t), newWho(t), newWho(t)
	token := invite(t, authority)
	for _, at := range []string{"/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1"} {
		token.Addrs = append(token.Addrs, ma.StringCast(at+"/p2p/"+founder.id.String()))
	}
	a := reply{Chain: [][]byte{membership(t, token, joiner, founder), founding(t, authority, founder)}, Addrs: []string{"nonsense"}}
	for i := range maxAtOnce - 1 {
		a.Addrs = append(a.Addrs, fmt.Sprintf("/ip4/198.51.100.%d/tcp/%d/p2p/%s", i%256, 1000+i, joiner.id))
	}
	j := &Joiner{Dir: t.TempDir(), Key: joiner.key, Token: token, Now: func() time.Time { return start }}
	h, err := j.accept(joiner.id, a)
	if err != nil {
		t.Fatal(err)
	}
	if want := addrTexts(token.Addrs); len(h.Peers) > maxTokenAddrs || !slices.Equal(h.Peers[:len(want)], want) {
		t.Errorf("the home remembers %v", h.Peers)
	}
}
