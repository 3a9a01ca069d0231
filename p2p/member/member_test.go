package member

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p/memnet"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/ipfs/go-log/v2/writer.(*MirrorWriter).logRoutine"),
		goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"),
	)
}

// who is a key with its ID.
type who struct {
	key crypto.PrivKey
	id  peer.ID
}

func newWho(t testing.TB) who {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return who{key, id}
}

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func invite(t testing.TB, authority who, change ...func(*grid.InviteRequest)) *Token {
	t.Helper()
	req := grid.InviteRequest{Role: grid.RoleSubmitter, Expires: time.Hour, Uses: 1}
	for _, f := range change {
		f(&req)
	}
	token, err := NewToken(authority.id, authority.key, req, nil, start)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// membership is what a sponsor signs for a peer with a token.
func membership(t testing.TB, token *Token, joiner, sponsor who, change ...func(*Membership)) []byte {
	t.Helper()
	m := Membership{Swarm: token.Invitation.Swarm, Peer: joiner.id, Role: token.Invitation.Role, Issued: start.Unix(), Serial: 1, Invite: token.sealed}
	var err error
	if m.Proof, err = token.prove(joiner.id); err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(&m)
	}
	return sealed(t, &m, sponsor)
}

func sealed(t testing.TB, r interface {
	Domain() string
	Codec() []byte
	MarshalRecord() ([]byte, error)
	UnmarshalRecord([]byte) error
}, by who) []byte {
	t.Helper()
	raw, err := seal(r, by.key)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func founding(t testing.TB, authority, founder who) []byte {
	return sealed(t, &Membership{Swarm: authority.id, Peer: founder.id, Role: grid.RoleAdmin, Issued: start.Unix(), Serial: 1}, authority)
}

func TestToken(t *testing.T) {
	authority := newWho(t)
	addr := ma.StringCast("/ip4/192.0.2.1/tcp/4747/p2p/" + authority.id.String())
	made, err := NewToken(authority.id, authority.key, grid.InviteRequest{Role: grid.RoleWorker, Expires: time.Hour, Uses: 3, Lasts: time.Minute, Approve: true}, []ma.Multiaddr{addr}, start)
	if err != nil {
		t.Fatal(err)
	}
	text := made.String()
	got, err := ParseToken(" " + text + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if got.Invitation != made.Invitation || len(got.Addrs) != 1 || !got.Addrs[0].Equal(addr) || got.Invitation.Swarm != authority.id {
		t.Errorf("%+v became %+v", made, got)
	}
	for name, bad := range map[string]string{
		"cut":           text[:len(text)-9],
		"cut a lot":     text[:20],
		"changed":       strings.Replace(text, text[60:61], string('A'+(text[60]-'A'+1)%26), 1),
		"other version": TokenFamily + "2-" + text[len(TokenPrefix):],
		"no token":      "hello",
		"empty":         "",
		"long":          text + strings.Repeat("A", maxToken),
	} {
		_, err := ParseToken(bad)
		if err == nil || grid.AdviceOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, req := range []grid.InviteRequest{
		{Role: "king", Expires: time.Hour, Uses: 1}, {Role: grid.RoleWorker, Uses: 1}, {Role: grid.RoleWorker, Expires: time.Hour},
		{Role: grid.RoleWorker, Expires: 1000 * 24 * time.Hour, Uses: 1}, {Role: grid.RoleWorker, Expires: time.Hour, Uses: maxUses + 1},
	} {
		if _, err := NewToken(authority.id, authority.key, req, nil, start); !errors.Is(err, grid.Invalid) {
			t.Errorf("%+v: %v", req, err)
		}
	}
}

// What is not signed by those who may, or says more than they may, is not believed.
func TestBook(t *testing.T) {
	authority, founder, joiner, other := newWho(t), newWho(t), newWho(t), newWho(t)
	token := invite(t, authority)
	root := founding(t, authority, founder)
	stranger := newWho(t)
	for name, tt := range map[string]struct {
		raw []byte
		ok  bool
	}{
		"as it should be":         {membership(t, token, joiner, founder), true},
		"signed by itself":        {membership(t, token, joiner, joiner), false},
		"signed by a stranger":    {membership(t, token, joiner, stranger), false},
		"signed by the key":       {membership(t, token, joiner, who{token.key, token.Invitation.Key}), false},
		"without a proof":         {membership(t, token, joiner, founder, func(m *Membership) { m.Proof = nil }), false},
		"somebody else's proof":   {membership(t, token, other, founder, func(m *Membership) { m.Peer = joiner.id }), false},
		"without an invitation":   {membership(t, token, joiner, founder, func(m *Membership) { m.Invite = nil }), false},
		"another role":            {membership(t, token, joiner, founder, func(m *Membership) { m.Role = grid.RoleAdmin }), false},
		"no role":                 {membership(t, token, joiner, founder, func(m *Membership) { m.Role = "king" }), false},
		"of another swarm":        {membership(t, token, joiner, founder, func(m *Membership) { m.Swarm = other.id }), false},
		"a false invitation":      {membership(t, invite(t, other), joiner, founder, func(m *Membership) { m.Swarm = authority.id }), false},
		"after the invitation":    {membership(t, token, joiner, founder, func(m *Membership) { m.Issued += 7200 }), false},
		"shorter than invited":    {membership(t, token, joiner, founder, func(m *Membership) { m.Expires = m.Issued + 60 }), false},
		"a name that is none":     {membership(t, token, joiner, founder, func(m *Membership) { m.Name = "a\x1b[31m" }), false},
		"serial 0":                {membership(t, token, joiner, founder, func(m *Membership) { m.Serial = 0 }), false},
		"another kind of record":  {sealed(t, &Revocation{Swarm: authority.id, Peer: joiner.id, Serial: 1}, authority), false},
		"an invitation":           {token.sealed, false},
		"nothing":                 {nil, false},
		"too much":                {make([]byte, maxRecord+1), false},
		"by the authority itself": {sealed(t, &Membership{Swarm: authority.id, Peer: joiner.id, Role: grid.RoleVoter, Issued: start.Unix(), Serial: 9}, authority), true},
	} {
		b := NewBook(authority.id, func() time.Time { return start.Add(2 * time.Hour) })
		if _, _, err := b.Learn([][]byte{root}); err != nil {
			t.Fatal(err)
		}
		subject, changed, err := b.Learn([][]byte{tt.raw})
		if _, in := b.Member(joiner.id); in != tt.ok || changed != tt.ok || (err == nil) != tt.ok || tt.ok && subject != joiner.id {
			t.Errorf("%s: a member: %v, %v", name, in, err)
		}
		// The same in one chain, to a book that knows nothing.
		b = NewBook(authority.id, func() time.Time { return start.Add(2 * time.Hour) })
		if _, _, err := b.Learn([][]byte{tt.raw, root}); (err == nil) != tt.ok {
			t.Errorf("%s: as a chain: %v", name, err)
		}
		if tt.ok {
			chain := b.Chain(joiner.id)
			if _, _, err := NewBook(authority.id, b.now).Learn(chain); err != nil {
				t.Errorf("%s: its own chain is not believed: %v", name, err)
			}
		}
	}
}

func TestRevocations(t *testing.T) {
	authority, founder, joiner, other := newWho(t), newWho(t), newWho(t), newWho(t)
	token := invite(t, authority, func(r *grid.InviteRequest) { r.Uses = 2 })
	now := start
	b := NewBook(authority.id, func() time.Time { return now })
	if _, err := b.learnAll([][]byte{membership(t, token, joiner, founder), founding(t, authority, founder)}, recorded); err != nil {
		t.Fatal(err)
	}
	revoke := func(by who, id peer.ID, serial uint64) (bool, error) {
		_, changed, err := b.Revoke(sealed(t, &Revocation{Swarm: authority.id, Peer: id, Serial: serial, Issued: start.Unix()}, by))
		return changed, err
	}
	if _, err := revoke(joiner, founder.id, 1); !errors.Is(err, grid.Denied) {
		t.Errorf("a submitter revokes: %v", err)
	}
	if _, err := revoke(other, joiner.id, 1); !errors.Is(err, grid.Denied) {
		t.Errorf("a stranger revokes: %v", err)
	}
	if changed, err := revoke(founder, joiner.id, 1); err != nil || !changed {
		t.Errorf("an admin does not revoke: %v", err)
	}
	if changed, err := revoke(authority, joiner.id, 1); err != nil || changed {
		t.Errorf("the same again: %v, %v", changed, err)
	}
	if _, ok := b.Member(joiner.id); ok || !errors.Is(b.Refusal(joiner.id), grid.Denied) {
		t.Error("it is a member still")
	}
	// Replayed, and made out anew by a member that was revoked.
	if _, _, err := b.Learn([][]byte{membership(t, token, joiner, founder)}); err != nil {
		t.Error(err)
	}
	if _, ok := b.Member(joiner.id); ok {
		t.Error("a replay makes it a member again")
	}
	if _, _, err := b.Learn([][]byte{membership(t, token, other, joiner)}); !errors.Is(err, grid.Denied) {
		t.Errorf("who was revoked lets others in: %v", err)
	}
	if _, _, err := b.learn(membership(t, token, other, joiner), recorded); err != nil {
		t.Errorf("the ledger took it in time: %v", err)
	}
	if _, _, err := b.Learn([][]byte{membership(t, token, joiner, founder, func(m *Membership) { m.Serial = 2 })}); err != nil {
		t.Error(err)
	}
	if _, ok := b.Member(joiner.id); !ok {
		t.Error("it cannot be a member again")
	}
	if _, err := revoke(other, other.id, 1); err != nil || !strings.Contains(b.Refusal(other.id).Error(), "left") {
		t.Errorf("a member does not leave: %v", err)
	}
	// Of a membership that ends by itself.
	lasting := invite(t, authority, func(r *grid.InviteRequest) { r.Lasts = time.Hour })
	last := newWho(t)
	if _, _, err := b.Learn([][]byte{membership(t, lasting, last, founder, func(m *Membership) { m.Expires = m.Issued + 3600 })}); err != nil {
		t.Fatal(err)
	}
	_, before := b.Member(last.id)
	now = start.Add(2 * time.Hour)
	if _, after := b.Member(last.id); !before || after {
		t.Errorf("a member before: %v, after: %v", before, after)
	}
	now = start.Add(-time.Hour)
	if _, _, err := b.Learn([][]byte{membership(t, token, newWho(t), founder)}); err == nil || !strings.Contains(err.Error(), "clock") {
		t.Errorf("a clock that is off: %v", err)
	}
}

// mapLedger is a ledger in memory.
type mapLedger struct {
	grid.Ledger
	mu       sync.Mutex
	entries  map[string]grid.Entry
	revision uint64
	log      []grid.Changes
	news     chan struct{} // closed at the next change
}

func newLedger() *mapLedger {
	return &mapLedger{entries: map[string]grid.Entry{}, news: make(chan struct{})}
}

func (l *mapLedger) Get(_ context.Context, key string) (grid.Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.entries[key]
	if !ok {
		return e, grid.NotFound
	}
	return e, nil
}

func (l *mapLedger) Range(_ context.Context, q grid.Query) (p grid.Page, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, e := range l.entries {
		if strings.HasPrefix(key, q.Prefix) {
			p.Entries = append(p.Entries, e)
		}
	}
	slices.SortFunc(p.Entries, func(a, b grid.Entry) int { return strings.Compare(a.Key, b.Key) })
	p.Revision = l.revision
	return p, nil
}

func (l *mapLedger) Commit(_ context.Context, t grid.Txn) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range t.If {
		if l.entries[c.Key].Version != c.Version {
			return 0, grid.Conflict
		}
	}
	l.revision++
	for _, e := range t.Put {
		e.Version = l.revision
		l.entries[e.Key] = e
	}
	for _, k := range t.Delete {
		delete(l.entries, k)
	}
	l.log = append(l.log, grid.Changes{Revision: l.revision, Put: t.Put, Delete: t.Delete})
	close(l.news)
	l.news = make(chan struct{})
	return l.revision, nil
}

func (l *mapLedger) Watch(ctx context.Context, _ string, after uint64, f func(grid.Changes) error) error {
	for {
		l.mu.Lock()
		log, news := l.log, l.news
		l.mu.Unlock()
		for _, c := range log {
			if c.Revision > after {
				after = c.Revision
				if err := f(c); err != nil {
					return err
				}
			}
		}
		select {
		case <-news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// world is a swarm on a network in memory, in virtual time.
type world struct {
	t         *testing.T
	net       *memnet.World
	ledger    *mapLedger
	authority *Home
	founder   *node
}

type node struct {
	who
	*Service
	net *memnet.Node
	dir string
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, net: memnet.New(memnet.Config{}), ledger: newLedger()}
	founder, dir := newWho(t), t.TempDir()
	home, err := Init(dir, founder.key, "lab", "first", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	w.authority = home
	w.founder = w.start(founder, home, w.ledger)
	return w
}

// start starts the node of a member. Without a ledger it has but its book.
func (w *world) start(x who, home *Home, l grid.Ledger) *node {
	w.t.Helper()
	s, err := New(Config{Key: x.key, Home: home, Realm: "default"})
	if err != nil {
		w.t.Fatal(err)
	}
	n := &node{who: x, Service: s, net: w.net.Join(x.id), dir: home.dir}
	n.net.Guard(s.Allows)
	n.net.Serve("echo/1", func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) { return req, nil })
	s.Attach(Wire{Network: n.net, Reconsider: func(peer.ID) {}, Contacts: func() []string { return []string{"/ip4/192.0.2.1/tcp/1/p2p/" + x.id.String()} }})
	if l != nil {
		s.Follow(l)
	}
	w.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			w.t.Error(err)
		}
		_ = n.net.Close()
	})
	return n
}

func (w *world) token(req grid.InviteRequest) *Token {
	w.t.Helper()
	synctest.Wait()
	inv, err := w.founder.Invite(w.t.Context(), req)
	if err != nil {
		w.t.Fatal(err)
	}
	token, err := ParseToken(inv.Token)
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

// join has somebody join through whoever is named in the token.
func (w *world) join(x who, token *Token) (*Home, error) {
	at := w.net.Join(x.id)
	defer at.Close()
	j := &Joiner{Dir: w.t.TempDir(), Key: x.key, Name: "joiner", Token: token, Now: time.Now, Ask: func(ctx context.Context, addr string, req []byte) ([]byte, error) {
		info, err := peer.AddrInfoFromString(addr)
		if err != nil {
			return nil, err
		}
		return at.Call(ctx, info.ID, protocol, req)
	}}
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	return j.Join(ctx)
}

func hour(role grid.MemberRole, uses uint32) grid.InviteRequest {
	return grid.InviteRequest{Role: role, Expires: time.Hour, Uses: uses}
}

// A node joins, is known to all, one that has no ledger included, and is revoked by all.
func TestService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		x, y := newWho(t), newWho(t)
		homeX, err := w.join(x, w.token(hour(grid.RoleVoter, 1)))
		if err != nil {
			t.Fatal(err)
		}
		a := w.start(x, homeX, w.ledger)
		token := w.token(hour(grid.RoleWorker, 1))
		// The second joins through the first, and is known to the founder by the ledger, or by being told.
		homeY, err := w.join(y, &Token{Invitation: token.Invitation, sealed: token.sealed, key: token.key, Addrs: []ma.Multiaddr{ma.StringCast("/ip4/192.0.2.1/tcp/1/p2p/" + x.id.String())}})
		if err != nil {
			t.Fatal(err)
		}
		b := w.start(y, homeY, nil)
		synctest.Wait()
		for _, pair := range [][2]*node{{w.founder, a}, {w.founder, b}, {a, b}} {
			for i := range 2 {
				from, to := pair[i], pair[1-i]
				if _, err := from.net.Call(t.Context(), to.id, "echo/1", nil); err != nil {
					t.Errorf("%v", err)
				}
			}
		}
		if err := w.founder.Allows(b.id, "raft/1"); !errors.Is(err, grid.Denied) {
			t.Errorf("a worker keeps the ledger: %v", err)
		}
		if homeX.Name != "lab" || homeX.Realm != "default" || len(homeX.Peers) == 0 {
			t.Errorf("%+v", homeX)
		}
		if err := a.Revoke(t.Context(), b.id); !errors.Is(err, grid.Denied) {
			t.Errorf("a voter revokes: %v", err)
		}
		if err := w.founder.SetRole(t.Context(), a.id, grid.RoleAdmin); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := b.May(a.id, grid.RoleAdmin); err != nil {
			t.Errorf("b has not heard of a's new role: %v", err)
		}
		if err := a.Revoke(t.Context(), b.id); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for _, n := range []*node{w.founder, a} {
			if n.Admits(b.id) {
				t.Error("it is a member still")
			}
			if _, err := b.net.Call(t.Context(), n.id, "echo/1", nil); !errors.Is(err, grid.Denied) || !strings.Contains(err.Error(), "revoked") {
				t.Errorf("%v", err)
			}
			if err := n.Greet(t.Context(), b.id, func(ctx context.Context, q []byte) ([]byte, error) { return n.net.Call(ctx, b.id, protocol, q) }); err == nil {
				t.Error("it is greeted as before")
			}
		}
		if _, err := w.join(newWho(t), token); !errors.Is(err, grid.Denied) || !strings.Contains(err.Error(), "used up") {
			t.Errorf("%v", err)
		}
		list, err := w.founder.Members(t.Context())
		if err != nil || len(list) != 3 {
			t.Errorf("%v, %v", list, err)
		}
	})
}

// A node leaves by telling any member, which puts it into the ledger.
func TestLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		x := newWho(t)
		home, err := w.join(x, w.token(hour(grid.RoleWorker, 1)))
		if err != nil {
			t.Fatal(err)
		}
		a := w.start(x, home, w.ledger)
		if err := a.Revoke(t.Context(), a.id); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if w.founder.Admits(a.id) || !strings.Contains(w.founder.May(a.id, grid.RoleWorker).Error(), "left") {
			t.Error("it is a member still")
		}
		if _, err := w.ledger.Get(t.Context(), a.keys+revokedPart+a.id.String()); err != nil {
			t.Errorf("the ledger does not know: %v", err)
		}
	})
}

// Members that have never heard of each other, and have no ledger, know each other by their chains; strangers do not.
func TestGreet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		token := w.token(hour(grid.RoleWorker, 2))
		x, y := newWho(t), newWho(t)
		homeX, err := w.join(x, token)
		if err != nil {
			t.Fatal(err)
		}
		homeY, err := w.join(y, token)
		if err != nil {
			t.Fatal(err)
		}
		homeX.Records = homeX.Records[:2] // the founder's, and its own
		a := w.start(x, homeX, nil)
		if a.Admits(y.id) {
			t.Fatal("it knows b already")
		}
		b := w.start(y, homeY, nil) // which may greet by itself, too
		greet := func(from *node, to peer.ID) error {
			return from.Greet(t.Context(), to, func(ctx context.Context, q []byte) ([]byte, error) { return from.net.Call(ctx, to, protocol, q) })
		}
		if err := greet(b, a.id); err != nil {
			t.Fatal(err)
		}
		if _, err := b.net.Call(t.Context(), a.id, "echo/1", nil); err != nil {
			t.Errorf("%v", err)
		}
		// One of another swarm shows its own chain, or that of a member.
		s := newWho(t)
		foreign, err := Init(t.TempDir(), s.key, "", "", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		c := w.start(s, foreign, nil)
		if err := greet(c, a.id); !errors.Is(err, grid.Denied) {
			t.Errorf("%v", err)
		}
		data, err := grid.Marshal(request{Do: doHello, Swarm: a.swarm, Chain: b.book.Chain(b.id)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.net.Call(t.Context(), a.id, protocol, data); !errors.Is(err, grid.Denied) {
			t.Errorf("somebody else's chain: %v", err)
		}
		raw := sealed(t, &Revocation{Swarm: a.swarm, Peer: b.id, Serial: 9}, s)
		if data, err = grid.Marshal(request{Do: doTell, Swarm: a.swarm, Revocations: [][]byte{raw}}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.net.Call(t.Context(), a.id, protocol, data); !errors.Is(err, grid.Denied) || !a.Admits(b.id) {
			t.Errorf("a stranger revokes: %v", err)
		}
	})
}

func TestBadTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		token := w.token(grid.InviteRequest{Role: grid.RoleVoter, Expires: time.Minute, Uses: 1})
		other := newWho(t)
		foreign, err := NewToken(other.id, other.key, hour(grid.RoleVoter, 1), token.Addrs, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.join(newWho(t), foreign); !errors.Is(err, grid.Denied) || !strings.Contains(err.Error(), "not "+foreign.Invitation.Swarm.String()) {
			t.Errorf("of another swarm: %v", err)
		}
		// Who joins by it twice, as when an answer is lost, uses it once.
		x := newWho(t)
		for range 2 {
			if _, err := w.join(x, token); err != nil {
				t.Error(err)
			}
		}
		if err := w.founder.Revoke(t.Context(), x.id); err != nil {
			t.Fatal(err)
		}
		if _, err := w.join(x, token); !errors.Is(err, grid.Denied) {
			t.Errorf("after its revocation: %v", err)
		}
		fresh := w.token(hour(grid.RoleVoter, 1))
		if home, err := w.join(x, fresh); err != nil {
			t.Errorf("with a new token: %v", err)
		} else {
			w.start(x, home, w.ledger)
		}
		time.Sleep(2 * time.Minute)
		if _, err := w.join(newWho(t), token); !errors.Is(err, grid.Denied) || !strings.Contains(err.Error(), "expired") {
			t.Errorf("expired: %v", err)
		}
		// A member that is not in the swarm's realm cannot count uses.
		y := newWho(t)
		home, err := w.join(y, w.token(hour(grid.RoleVoter, 1)))
		if err != nil {
			t.Fatal(err)
		}
		apart := w.start(y, home, newLedger())
		more := w.token(hour(grid.RoleVoter, 1))
		more.Addrs = []ma.Multiaddr{ma.StringCast("/ip4/192.0.2.1/tcp/1/p2p/" + apart.id.String())}
		if _, err := w.join(newWho(t), more); !errors.Is(err, grid.Unavailable) {
			t.Errorf("through a member of another realm: %v", err)
		}
	})
}

// Many who use one token at the same time are as many as it says.
func TestUses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		token := w.token(hour(grid.RoleWorker, 3))
		var mu sync.Mutex
		var wg sync.WaitGroup
		in := 0
		for range 8 {
			x := newWho(t)
			wg.Go(func() {
				if _, err := w.join(x, token); err == nil {
					mu.Lock()
					in++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if in != 3 {
			t.Errorf("%d joined by a token for 3", in)
		}
	})
}

func TestApprove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		req := hour(grid.RoleWorker, 1)
		req.Approve = true
		token, x := w.token(req), newWho(t)
		done := make(chan error, 1)
		go func() {
			_, err := w.join(x, token)
			done <- err
		}()
		time.Sleep(5 * time.Second)
		list, err := w.founder.Members(t.Context())
		if err != nil || len(list) != 2 || !slices.ContainsFunc(list, func(m grid.SwarmMember) bool { return m.State == "waiting" && m.ID == x.id.String() }) {
			t.Fatalf("%+v, %v", list, err)
		}
		if err := w.founder.Approve(t.Context(), newWho(t).id); !errors.Is(err, grid.NotFound) {
			t.Errorf("%v", err)
		}
		if err := w.founder.Approve(t.Context(), x.id); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if _, err := w.join(newWho(t), w.token(req)); !errors.Is(err, grid.Deadline) {
			t.Errorf("nobody approves: %v", err)
		}
	})
}

// What a home remembers lets a node start that knows its peers.
func TestHome(t *testing.T) {
	dir, x := t.TempDir(), newWho(t)
	if h, err := LoadHome(dir); h != nil || err != nil {
		t.Fatal(h, err)
	}
	if _, err := Init(dir, x.key, "lab", "", time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(dir, x.key, "lab", "", time.Now()); !errors.Is(err, grid.Conflict) {
		t.Errorf("twice: %v", err)
	}
	h, err := LoadHome(dir)
	if err != nil || h.Name != "lab" || !h.Founder {
		t.Fatal(h, err)
	}
	if key, err := h.Authority(); err != nil || key == nil {
		t.Error(err)
	}
	if _, err := New(Config{Key: x.key, Home: h}); err != nil {
		t.Error(err)
	}
	if _, err := New(Config{Key: newWho(t).key, Home: h}); !errors.Is(err, grid.Denied) {
		t.Errorf("with another identity: %v", err)
	}
	if err := Forget(dir); err != nil {
		t.Fatal(err)
	}
	if h, err := LoadHome(dir); h != nil || err != nil {
		t.Error(h, err)
	}
	again, err := Init(dir, x.key, "lab", "", time.Now())
	if err != nil || again.Swarm != h.Swarm {
		t.Errorf("the authority's key was not kept: %v", err)
	}
}

func TestRoles(t *testing.T) {
	for i, r := range []grid.MemberRole{grid.RoleWorker, grid.RoleSubmitter, grid.RoleVoter, grid.RoleAdmin} {
		for j, need := range []grid.MemberRole{grid.RoleWorker, grid.RoleSubmitter, grid.RoleVoter, grid.RoleAdmin} {
			if r.Includes(need) != (i >= j) {
				t.Errorf("%s includes %s: %v", r, need, r.Includes(need))
			}
		}
		if r.Includes("king") || grid.MemberRole("").Includes(r) {
			t.Errorf("%s and no role", r)
		}
	}
}

func TestNetworkName(t *testing.T) {
	id, err := peer.Decode("12D3KooWNq6FP4LrgWoPHrXQv3KZhP8rmBUWEC4tGdtY5cn7rw1p")
	if err != nil {
		t.Fatal(err)
	}
	if got := NetworkName(id); got != "p-ybkwipcxxbqbe2mwaqf2" {
		t.Errorf("%s", got)
	}
}

func FuzzToken(f *testing.F) {
	authority := newWho(f)
	f.Add(invite(f, authority).String())
	f.Add(TokenPrefix)
	f.Fuzz(func(t *testing.T, text string) {
		if token, err := ParseToken(text); err == nil {
			if again, err := ParseToken(token.String()); err != nil || again.Invitation != token.Invitation {
				t.Errorf("%v", err)
			}
		}
	})
}

func FuzzRecords(f *testing.F) {
	authority, founder := newWho(f), newWho(f)
	f.Add(founding(f, authority, founder))
	f.Add(membership(f, invite(f, authority), newWho(f), founder))
	f.Add(sealed(f, &Revocation{Swarm: authority.id, Peer: founder.id, Serial: 1}, authority))
	asks, x := invite(f, authority, func(r *grid.InviteRequest) { r.Approve = true }), newWho(f)
	f.Add(membership(f, asks, x, founder, func(m *Membership) { m.Approval = approval(f, asks, x, founder, founding(f, authority, founder)) }))
	known := [][]byte{founding(f, authority, founder)}
	f.Fuzz(func(t *testing.T, raw []byte) {
		b := NewBook(authority.id, func() time.Time { return start })
		if _, _, err := b.Learn(known); err != nil {
			t.Fatal(err)
		}
		_, _, _ = b.Learn([][]byte{raw})
		_, _, _ = b.Revoke(raw)
		if q, err := decodeMessage[request](raw); err == nil {
			_ = q.check(authority.id)
		}
	})
}

func BenchmarkLearnChain(b *testing.B) {
	authority, founder, joiner := newWho(b), newWho(b), newWho(b)
	chain := [][]byte{membership(b, invite(b, authority), joiner, founder), founding(b, authority, founder)}
	for b.Loop() {
		if _, _, err := NewBook(authority.id, func() time.Time { return start }).Learn(chain); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAllows(b *testing.B) {
	authority, founder := newWho(b), newWho(b)
	s := &Service{self: authority.id, book: NewBook(authority.id, func() time.Time { return start })}
	if _, _, err := s.book.Learn([][]byte{founding(b, authority, founder)}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := s.Allows(founder.id, "steal/1"); err != nil {
			b.Fatal(err)
		}
	}
}
