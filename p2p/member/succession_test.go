package member

import (
	"errors"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p"
)

func succession(t testing.TB, swarm peer.ID, number uint64, key peer.ID, by who) []byte {
	return sealed(t, &Succession{Swarm: swarm, Number: number, Key: key, Issued: start.Unix()}, by)
}

// Who counts as the authority is the same in whatever order successions are learned, as long as all are learned in the end.
func TestLineage(t *testing.T) {
	root, a, b, c, thief, late := newWho(t), newWho(t), newWho(t), newWho(t), newWho(t), newWho(t)
	begin := succession(t, root.id, 5, a.id, root)
	second := succession(t, root.id, 6, b.id, a)
	third := succession(t, root.id, 7, c.id, b)
	stolen := succession(t, root.id, 6, thief.id, a)
	more := succession(t, root.id, 7, late.id, thief)
	rescue := succession(t, root.id, 9, c.id, root)
	for name, tt := range map[string]struct {
		list     [][]byte
		key      peer.ID
		number   uint64
		disputed bool
	}{
		"none":                       {nil, root.id, 0, false},
		"the first":                  {[][]byte{begin}, a.id, 5, false},
		"a chain":                    {[][]byte{begin, second, third}, c.id, 7, false},
		"the same twice":             {[][]byte{begin, second, second, begin}, b.id, 6, false},
		"the same key, signed again": {[][]byte{begin, sealed(t, &Succession{Swarm: root.id, Number: 5, Key: a.id, Issued: start.Unix() + 1}, root)}, a.id, 5, false},
		"by a stranger":              {[][]byte{begin, succession(t, root.id, 6, thief.id, thief)}, a.id, 5, false},
		"by a key that was replaced": {[][]byte{begin, second, succession(t, root.id, 7, thief.id, a)}, b.id, 6, false},
		"a number left out":          {[][]byte{begin, succession(t, root.id, 7, b.id, a)}, a.id, 5, false},
		"two of one number":          {[][]byte{begin, second, third, stolen, more}, "", 6, true},
		"the first key ends it":      {[][]byte{begin, second, third, stolen, more, rescue}, c.id, 9, false},
		"and goes on":                {[][]byte{begin, stolen, more, rescue, succession(t, root.id, 10, b.id, c)}, b.id, 10, false},
		"two of the first key":       {[][]byte{begin, second, succession(t, root.id, 5, thief.id, root)}, "", 5, true},
	} {
		for round := range 20 {
			l := lineage{swarm: root.id}
			list := tt.list
			if round > 0 {
				list = append([][]byte(nil), list...)
				mathrand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
			}
			for range len(list) + 1 { // each is told again and again
				for _, raw := range list {
					if _, err := l.add(raw, start); err != nil {
						t.Fatalf("%s: %v", name, err)
					}
				}
			}
			if key, disputed := l.authority(); key != tt.key || disputed != tt.disputed || l.number() != tt.number || disputed != (len(l.rivals()) == 2) {
				t.Errorf("%s: %s at %d, in dispute: %v", name, key, l.number(), disputed)
			}
			again := lineage{swarm: root.id}
			for _, raw := range l.raws() {
				_, _ = again.add(raw, start)
			}
			if x, y := l.rivals(), again.rivals(); len(x) != len(y) || again.number() != l.number() {
				t.Errorf("%s: what it passes on says something else", name)
			}
		}
	}
	l := lineage{swarm: root.id}
	for name, raw := range map[string][]byte{
		"of another swarm": succession(t, a.id, 1, b.id, a),
		"number 0":         succession(t, root.id, 0, b.id, root),
		"a great number":   succession(t, root.id, maxNumber+1, b.id, root),
		"no key":           succession(t, root.id, 1, "", root),
		"another record":   sealed(t, &Revocation{Swarm: root.id, Peer: a.id, Serial: 1}, root),
		"from the future":  sealed(t, &Succession{Swarm: root.id, Number: 1, Key: a.id, Issued: start.Add(3 * time.Hour).Unix()}, root),
		"nothing":          nil,
	} {
		if _, err := l.add(raw, start); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	by, key := root, a
	for n := range uint64(maxSuccessions + 1) {
		key = newWho(t)
		if _, err := l.add(succession(t, root.id, n+1, key.id, by), start); err != nil {
			t.Fatal(n, err)
		}
		by = key
	}
	if _, err := l.add(succession(t, root.id, maxSuccessions+2, a.id, by), start); !errors.Is(err, grid.Limit) {
		t.Errorf("one too many: %v", err)
	}
}

// Of what a stranger says of the authority's key nothing counts but what makes it a member.
func TestMeet(t *testing.T) {
	root, op, next, founder, joiner, thief := newWho(t), newWho(t), newWho(t), newWho(t), newWho(t), newWho(t)
	begin, second := succession(t, root.id, 1, op.id, root), succession(t, root.id, 2, next.id, op)
	rival := succession(t, root.id, 2, thief.id, op)
	book := func(list ...[]byte) *Book {
		b := NewBook(root.id, func() time.Time { return start })
		if _, err := b.Succeed(list); err != nil {
			t.Fatal(err)
		}
		return b
	}
	by := func(key, id who, serial uint64) []byte {
		return sealed(t, &Membership{Swarm: root.id, Peer: id.id, Role: grid.RoleAdmin, Issued: start.Unix(), Serial: serial}, key)
	}
	// A node that was away meets one that it does not know, and that has joined since.
	b := book(begin)
	if _, err := b.learnAll([][]byte{by(op, founder, 1)}, recorded); err != nil {
		t.Fatal(err)
	}
	if _, succeeded, err := b.Meet(joiner.id, [][]byte{by(next, joiner, 1)}, [][]byte{begin, second}); err != nil || !succeeded {
		t.Errorf("%v, %v", succeeded, err)
	}
	if _, ok := b.Member(founder.id); !ok {
		t.Error("whom it believed it believes no more")
	}
	if _, _, err := b.Learn([][]byte{by(op, thief, 1)}); !errors.Is(err, grid.Denied) || !strings.Contains(err.Error(), next.id.String()) {
		t.Errorf("the old key lets somebody in: %v", err)
	}
	// Who has the old key begins no dispute from outside, nor with a record of somebody else.
	for _, chain := range [][][]byte{{by(thief, thief, 1)}, {by(next, joiner, 1)}, nil} {
		if _, succeeded, err := b.Meet(thief.id, chain, [][]byte{begin, rival}); err == nil || succeeded {
			t.Errorf("%v, %v", succeeded, err)
		}
	}
	if key, disputed := b.line.authority(); key != next.id || disputed {
		t.Errorf("%s, in dispute: %v", key, disputed)
	}
	// From a member it is heard: then nobody's word counts.
	if _, succeeded, err := b.Meet(founder.id, [][]byte{by(op, founder, 1)}, [][]byte{begin, rival}); err != nil || !succeeded {
		t.Errorf("%v, %v", succeeded, err)
	}
	for _, key := range []who{op, next, thief} {
		if _, _, err := b.Learn([][]byte{by(key, newWho(t), 1)}); !errors.Is(err, grid.Denied) || !strings.Contains(err.Error(), "stolen") {
			t.Errorf("in dispute: %v", err)
		}
	}
	if _, ok := b.Member(joiner.id); !ok {
		t.Error("whom it believed it believes no more")
	}
	// Revocations of an old key are not believed any more, but those that were are.
	b = book(begin)
	_, _ = b.learnAll([][]byte{by(op, founder, 1), by(op, joiner, 1)}, recorded)
	gone := sealed(t, &Revocation{Swarm: root.id, Peer: joiner.id, Serial: 1, Issued: 1}, op)
	if _, changed, err := b.Revoke(gone); err != nil || !changed {
		t.Fatal(err)
	}
	if _, err := b.Succeed([][]byte{second}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Revoke(sealed(t, &Revocation{Swarm: root.id, Peer: founder.id, Serial: 1}, op)); !errors.Is(err, grid.Denied) {
		t.Errorf("an old key revokes: %v", err)
	}
	if _, ok := b.Member(joiner.id); ok {
		t.Error("who was revoked is a member")
	}
	members, revocations := b.stale()
	if len(members) != 1 || members[0].Peer != founder.id || len(revocations) != 1 || revocations[0].Peer != joiner.id {
		t.Errorf("to be signed anew: %v, %v", members, revocations)
	}
	if _, changed, err := b.Revoke(sealed(t, &revocations[0], next)); err != nil || changed {
		t.Errorf("%v, %v", changed, err)
	}
	if _, revocations = b.stale(); len(revocations) != 0 {
		t.Errorf("still: %v", revocations)
	}
}

// The authority's key is replaced: members stay, tokens are void, and those who were away learn of it, be they in the realm or not.
func TestRotateKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		token := w.token(hour(grid.RoleWorker, 4))
		x, y, away := newWho(t), newWho(t), newWho(t)
		var homes []*Home
		for _, id := range []who{x, y, away} {
			home, err := w.join(id, token)
			if err != nil {
				t.Fatal(err)
			}
			homes = append(homes, home)
		}
		a := w.start(x, homes[0], w.ledger)
		b := w.start(y, homes[1], nil) // of another realm
		gone := newWho(t)
		if _, err := w.join(gone, token); err != nil {
			t.Fatal(err)
		}
		if err := w.founder.Revoke(t.Context(), gone.id); err != nil {
			t.Fatal(err)
		}
		old := w.token(hour(grid.RoleVoter, 1))
		if _, err := a.RotateKey(t.Context(), false); !errors.Is(err, grid.Denied) {
			t.Errorf("without the key: %v", err)
		}
		got, err := w.founder.RotateKey(t.Context(), false)
		if err != nil || got.Members != 4 || got.Revocations != 1 {
			t.Fatalf("%+v, %v", got, err)
		}
		time.Sleep(10 * time.Second)
		for _, n := range []*node{w.founder, a, b} {
			if info := n.Info(); info.Key != got.Key || info.ID != w.founder.swarm.String() || info.Authority != (n == w.founder) || info.Members != 4 {
				t.Errorf("%+v", info)
			}
			if members, revocations := n.book.stale(); len(members)+len(revocations) > 0 {
				t.Errorf("not signed anew: %v, %v", members, revocations)
			}
		}
		if _, err := w.join(newWho(t), old); !errors.Is(err, grid.Denied) || !strings.Contains(err.Error(), "replaced") && !strings.Contains(grid.AdviceOf(err), "replaced") {
			t.Errorf("a token of the old key: %v, %s", err, grid.AdviceOf(err))
		}
		home, err := w.join(newWho(t), w.token(hour(grid.RoleVoter, 1)))
		if err != nil {
			t.Fatal(err)
		}
		if len(home.Records) != 5 {
			t.Errorf("who joins knows %d members", len(home.Records))
		}
		// Who was away knows only what it was told when it joined. One of another realm tells it.
		c := w.start(away, homes[2], nil)
		time.Sleep(20 * time.Second)
		if info := c.Info(); info.Key != got.Key || c.serial() < 2 || c.Admits(gone.id) {
			t.Errorf("who was away: %+v, serial %d", info, c.serial())
		}
		// The home has it all.
		h, err := LoadHome(w.founder.dir)
		if err != nil {
			t.Fatal(err)
		}
		if key, err := h.Authority(); err != nil || key == nil || !key.Equals(w.founder.signer()) {
			t.Errorf("%v", err)
		}
		if _, err := os.Stat(filepath.Join(w.founder.dir, nextKeyFile)); err == nil {
			t.Error("the next key is there still")
		}
		again, err := w.founder.RotateKey(t.Context(), false)
		if err != nil || again.Succession != got.Succession+1 || again.Key == got.Key {
			t.Errorf("%+v, %v", again, err)
		}
	})
}

// Wherever it is interrupted, the authority's key is there afterwards.
func TestRotateKeyInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		synctest.Wait()
		s := w.founder
		// The new key is made, and nobody is told.
		next, err := p2p.LoadIdentity(filepath.Join(s.dir, nextKeyFile))
		if err != nil {
			t.Fatal(err)
		}
		id, _ := peer.IDFromPrivateKey(next)
		h, err := LoadHome(s.dir)
		if err != nil {
			t.Fatal(err)
		}
		if key, err := h.Authority(); err != nil || !key.Equals(s.signer()) {
			t.Errorf("before it is told of: %v", err)
		}
		// The ledger has it, and the home does not.
		line := s.book.lineage()
		raw, err := seal(&Succession{Swarm: s.swarm, Number: line.number() + 1, Key: id, Issued: time.Now().Unix()}, s.signer())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := line.add(raw, time.Now()); err != nil {
			t.Fatal(err)
		}
		if _, err := grid.Update(t.Context(), w.ledger, func(tx *grid.Tx) error { return put(tx, s.keys+authorityPart, line.raws()) }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if key := s.signer(); key == nil || !key.Equals(next) {
			t.Error("the new key is not in use")
		}
		// The home knows it, and the key has not been moved.
		dir := t.TempDir()
		h.dir, h.Successions = dir, line.raws()
		if made, err := p2p.LoadIdentity(filepath.Join(dir, authorityFile)); err != nil || made == nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(s.dir, authorityFile))
		if err != nil {
			t.Fatal(err)
		}
		if err := p2p.ReplaceFile(filepath.Join(dir, nextKeyFile), data); err != nil {
			t.Fatal(err)
		}
		if key, err := h.Authority(); err != nil || key == nil || !key.Equals(next) {
			t.Errorf("%v", err)
		}
		if key, err := p2p.LoadIdentity(filepath.Join(dir, authorityFile)); err != nil || !key.Equals(next) {
			t.Errorf("it was not moved: %v", err)
		}
	})
}

// A thief of the authority's key replaces it. All who hear of both sides believe neither; the recovery key ends it.
func TestStolenKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		x := newWho(t)
		home, err := w.join(x, w.token(hour(grid.RoleAdmin, 1)))
		if err != nil {
			t.Fatal(err)
		}
		a := w.start(x, home, nil)
		synctest.Wait()
		s, thief := w.founder, newWho(t)
		line := s.book.lineage()
		raw, err := seal(&Succession{Swarm: s.swarm, Number: line.number() + 1, Key: thief.id, Issued: time.Now().Unix()}, s.signer())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.RotateKey(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		if _, err := a.book.Succeed([][]byte{raw}); err != nil { // it is in league with the thief
			t.Fatal(err)
		}
		a.succeeded("")
		time.Sleep(10 * time.Second)
		for _, n := range []*node{s, a} {
			if info := n.Info(); len(info.Disputed) != 2 || info.Key != "" || info.Authority || info.Members != 2 {
				t.Errorf("%+v", info)
			}
		}
		if _, err := s.Invite(t.Context(), hour(grid.RoleWorker, 1)); !errors.Is(err, grid.Denied) {
			t.Errorf("somebody is invited: %v", err)
		}
		if _, err := s.RotateKey(t.Context(), false); !errors.Is(err, grid.Denied) || !strings.Contains(grid.AdviceOf(err), "--recover") {
			t.Errorf("without the recovery key: %v", err)
		}
		if _, err := a.RotateKey(t.Context(), true); !errors.Is(err, grid.NotFound) {
			t.Errorf("the recovery key is not there: %v", err)
		}
		got, err := s.RotateKey(t.Context(), true)
		if err != nil || got.Members != 2 {
			t.Fatalf("%+v, %v", got, err)
		}
		time.Sleep(10 * time.Second)
		for _, n := range []*node{s, a} {
			if info := n.Info(); len(info.Disputed) != 0 || info.Key != got.Key || info.Members != 2 {
				t.Errorf("%+v", info)
			}
		}
		if _, err := w.join(newWho(t), w.token(hour(grid.RoleWorker, 1))); err != nil {
			t.Error(err)
		}
	})
}

func FuzzSuccessions(f *testing.F) {
	root, a, b := newWho(f), newWho(f), newWho(f)
	begin := succession(f, root.id, 1, a.id, root)
	f.Add(begin)
	f.Add(succession(f, root.id, 2, b.id, a))
	f.Add(succession(f, root.id, 1, b.id, root))
	f.Fuzz(func(t *testing.T, raw []byte) {
		l := lineage{swarm: root.id}
		_, _ = l.add(raw, start)
		_, _ = l.add(begin, start)
		_, _ = l.add(raw, start)
		if len(l.raws()) > maxLineage {
			t.Error("too many")
		}
		if a, err := decodeMessage[reply](raw); err == nil {
			_ = clocks(a.Time, start)
		}
	})
}
