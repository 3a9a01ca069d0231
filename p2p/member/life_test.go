package member

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Revocations reach members of other realms, and those that were cut off, within seconds after they can be reached again.
func TestReconcile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		const victims = 40
		token := w.token(hour(grid.RoleWorker, victims+3))
		var far []*node // of other realms: they hear of one another only
		for range 3 {
			x := newWho(t)
			home, err := w.join(x, token)
			if err != nil {
				t.Fatal(err)
			}
			far = append(far, w.start(x, home, nil))
		}
		var gone []peer.ID
		for range victims {
			x := newWho(t)
			if _, err := w.join(x, token); err != nil {
				t.Fatal(err)
			}
			gone = append(gone, x.id)
		}
		time.Sleep(10 * time.Second)
		all := func(n *node) (out int) {
			for _, id := range gone {
				if !n.Admits(id) {
					out++
				}
			}
			return out
		}
		// The last is cut off from all while they are revoked, then meets one of another realm only.
		for _, n := range []*node{w.founder, far[0], far[1]} {
			w.net.Cut(n.id, far[2].id)
		}
		began := time.Now()
		for _, id := range gone {
			if err := w.founder.Revoke(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		for all(far[0]) < victims || all(far[1]) < victims {
			time.Sleep(100 * time.Millisecond)
		}
		t.Logf("told after %v", time.Since(began))
		if n := all(far[2]); n != 0 {
			t.Errorf("who is cut off knows of %d", n)
		}
		w.net.Heal(far[1].id, far[2].id)
		began = time.Now()
		for all(far[2]) < victims {
			if time.Since(began) > time.Minute {
				t.Fatalf("only %d of %d are known", all(far[2]), victims)
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Logf("known after %v", time.Since(began))
		for _, n := range far[:2] {
			if string(n.book.digest()) != string(far[2].book.digest()) {
				t.Error("the digests differ")
			}
		}
		// What is compared is not for strangers.
		s := newWho(t)
		at := w.net.Join(s.id)
		defer at.Close()
		data, err := grid.Marshal(request{Do: doSync, Swarm: w.founder.swarm})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := at.Call(t.Context(), far[0].id, protocol, data); !errors.Is(err, grid.Denied) {
			t.Errorf("a stranger compares: %v", err)
		}
	})
}

// A digest differs where books do, and tells which records to send.
func TestDigest(t *testing.T) {
	root, founder := newWho(t), newWho(t)
	book := func() *Book { return NewBook(root.id, func() time.Time { return start }) }
	a, b := book(), book()
	var raws [][]byte
	for range 100 {
		x := newWho(t)
		raws = append(raws, sealed(t, &Revocation{Swarm: root.id, Peer: x.id, Serial: 3}, root))
	}
	for i := range raws {
		for _, r := range []struct {
			b   *Book
			raw []byte
		}{{a, raws[i]}, {b, raws[len(raws)-1-i]}} {
			if _, _, err := r.b.Revoke(r.raw); err != nil {
				t.Fatal(err)
			}
		}
	}
	if string(a.digest()) != string(b.digest()) || len(a.digest()) != digestSize {
		t.Fatal("the order matters")
	}
	for i := range raws[:10] { // of a peer the greatest serial counts
		var r Revocation
		if _, err := unseal(raws[i], &r); err != nil {
			t.Fatal(err)
		}
		r.Serial = 7
		for _, x := range []*Book{a, b} {
			if _, _, err := x.Revoke(sealed(t, &r, root)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if list, lines := a.apart(a.digest(), b.digest(), maxAtOnce); len(list) > 0 || lines {
		t.Errorf("%d apart, %v", len(list), lines)
	}
	if _, _, err := b.Revoke(sealed(t, &Revocation{Swarm: root.id, Peer: founder.id, Serial: 1}, root)); err != nil {
		t.Fatal(err)
	}
	if list, lines := b.apart(b.digest(), a.digest(), maxAtOnce); len(list) == 0 || len(list) > 30 || lines {
		t.Errorf("%d apart, %v", len(list), lines)
	}
	if list, lines := a.apart(a.digest(), nil, 7); len(list) != 7 || !lines {
		t.Errorf("%d apart, %v", len(list), lines)
	}
	if _, err := b.Succeed([][]byte{succession(t, root.id, 1, founder.id, root)}); err != nil {
		t.Fatal(err)
	}
	if _, lines := b.apart(b.digest(), a.digest(), 0); !lines {
		t.Error("the successions do not count")
	}
}

// A membership that ends is said to end soon, is refused when it has ended, and is valid again when it was renewed, for the node
// itself, too, and when it was down.
func TestRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		req := hour(grid.RoleWorker, 2)
		req.Lasts = 4 * time.Hour
		token, x, y := w.token(req), newWho(t), newWho(t)
		home, err := w.join(x, token)
		if err != nil {
			t.Fatal(err)
		}
		a := w.start(x, home, nil)
		down, err := w.join(y, token)
		if err != nil {
			t.Fatal(err)
		}
		if a.Info().Ending || a.Info().Expires.IsZero() {
			t.Errorf("%+v", a.Info())
		}
		time.Sleep(3*time.Hour + 10*time.Minute)
		if !a.Info().Ending || !w.founder.Admits(a.id) {
			t.Errorf("%+v", a.Info())
		}
		if err := a.Renew(t.Context(), a.id, 0); err == nil {
			t.Error("it renews itself")
		}
		for _, id := range []peer.ID{a.id, y.id} {
			if err := w.founder.Renew(t.Context(), id, 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.founder.Renew(t.Context(), w.founder.id, 0); !errors.Is(err, grid.Invalid) || grid.AdviceOf(err) == "" {
			t.Errorf("one without end: %v", err)
		}
		if err := w.founder.Renew(t.Context(), newWho(t).id, 0); !errors.Is(err, grid.NotFound) {
			t.Errorf("nobody: %v", err)
		}
		time.Sleep(time.Hour)
		if info := a.Info(); info.Ending || !w.founder.Admits(a.id) || time.Until(info.Expires) < 2*time.Hour {
			t.Errorf("renewed: %+v", info)
		}
		// The one that was down believes that its own has ended.
		cfg := Config{Key: y.key, Home: down}
		if _, err := New(cfg); !errors.Is(err, grid.Denied) || !strings.Contains(err.Error(), "expired") || !strings.Contains(grid.AdviceOf(err), "grid member renew "+y.id.String()) {
			t.Errorf("%v, %s", err, grid.AdviceOf(err))
		}
		at := w.net.Join(y.id)
		defer at.Close()
		ask := func(ctx context.Context, addr string, req []byte) ([]byte, error) {
			info, err := peer.AddrInfoFromString(addr)
			if err != nil {
				return nil, err
			}
			return at.Call(ctx, info.ID, protocol, req)
		}
		if ok, err := down.Catch(t.Context(), y.id, time.Now, ask); err != nil || !ok {
			t.Errorf("it does not learn that it was renewed: %v", err)
		}
		s, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		// Nobody has renewed it since.
		time.Sleep(5 * time.Hour)
		if w.founder.Admits(a.id) || w.founder.Admits(y.id) {
			t.Error("a member still")
		}
		if ok, err := down.Catch(t.Context(), y.id, time.Now, ask); err != nil || ok {
			t.Errorf("%v, %v", ok, err)
		}
		if err := w.founder.Renew(t.Context(), a.id, -1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if info := a.Info(); !w.founder.Admits(a.id) || !info.Expires.IsZero() {
			t.Errorf("without end: %+v", info)
		}
	})
}

// Two processes with one key: who meets both tells each of the other.
func TestTwins(t *testing.T) {
	w := newBookService(t)
	from := newWho(t).id
	ask := func(life string, addrs ...string) []string {
		return w.lived(from, &request{Life: []byte(life), Addrs: addrs})
	}
	for _, life := range []string{"a", "a", "b"} {
		if got := ask(life, "/ip4/192.0.2.1/tcp/1"); got != nil {
			t.Errorf("a node that was started again counts as two: %v", got)
		}
	}
	if got := ask("b"); got != nil {
		t.Errorf("%v", got)
	}
	if got := ask("a", "/ip4/192.0.2.1/tcp/1"); len(got) != 1 || got[0] != "unknown" {
		t.Errorf("%v", got)
	}
	if got := ask("b", "/ip4/192.0.2.2/tcp/1", strings.Repeat("x", maxAddr+1)); fmt.Sprint(got) != "[/ip4/192.0.2.1/tcp/1]" {
		t.Errorf("%v", got)
	}
	if got := ask("a"); fmt.Sprint(got) != "[/ip4/192.0.2.2/tcp/1]" {
		t.Errorf("%v", got)
	}
	w.answered(from, &reply{Twin: []string{"/ip4/192.0.2.9/tcp/1"}})
	if got := w.Info().Twin; fmt.Sprint(got) != "[/ip4/192.0.2.9/tcp/1]" {
		t.Errorf("%v", got)
	}
	w.moveOn(2 * twinFor)
	if ask("b") != nil || w.Info().Twin != nil {
		t.Error("it is long ago")
	}
}

// bookService is a service with a clock of its own, on no network.
type bookService struct {
	*Service
	now *time.Time
}

func (b bookService) moveOn(d time.Duration) { *b.now = b.now.Add(d) }

func newBookService(t *testing.T) bookService {
	now, x := start, newWho(t)
	home, err := Init(t.TempDir(), x.key, "", "", false, now)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Key: x.key, Home: home, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return bookService{s, &now}
}

// Clocks that are off by hours are named, with both times, whoever's it is.
func TestClocks(t *testing.T) {
	for _, off := range []time.Duration{-3 * time.Hour, 3 * time.Hour} {
		s := newBookService(t)
		token, err := NewToken(s.swarm, s.signer(), grid.InviteRequest{Role: grid.RoleWorker, Expires: 24 * time.Hour, Uses: 1}, []ma.Multiaddr{ma.StringCast("/ip4/192.0.2.1/tcp/1")}, start)
		if err != nil {
			t.Fatal(err)
		}
		// The clock of who joins: behind, so that the token is yet to come, or so far ahead that it has expired.
		x := newWho(t)
		theirs := start.Add(off)
		if off > 0 {
			theirs = start.Add(25 * time.Hour)
		}
		j := &Joiner{Dir: t.TempDir(), Key: x.key, Token: token, Now: func() time.Time { return theirs }}
		_, err = j.Join(t.Context())
		checkClock(t, err, theirs)
		// The clock of the member that lets it in is ahead: what it signs is yet to come.
		raw := membership(t, token, x, who{s.cfg.Key, s.self}, func(m *Membership) { m.Issued = start.Add(3 * time.Hour).Unix() })
		j.Now = func() time.Time { return start }
		j.Ask = func(context.Context, string, []byte) ([]byte, error) {
			return grid.Marshal(reply{Chain: [][]byte{raw, s.book.Chain(s.self)[0]}, Successions: s.book.successions(), Time: start.Add(3 * time.Hour).Unix()})
		}
		_, err = j.Join(t.Context())
		checkClock(t, err, start)
		if !strings.Contains(err.Error(), when(start.Add(3*time.Hour).Unix())) {
			t.Errorf("the other clock is not named: %v", err)
		}
	}
	// Of two members.
	s := newBookService(t)
	late := membership(t, invite(t, who{s.signer(), s.self}, func(*grid.InviteRequest) {}), newWho(t), who{s.cfg.Key, s.self})
	data, err := grid.Marshal(request{Do: doHello, Swarm: s.swarm, Chain: [][]byte{late}, Time: start.Add(-5 * time.Hour).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.answer(t.Context(), newWho(t).id, data)
	checkClock(t, err, start)
	if !strings.Contains(err.Error(), when(start.Add(-5*time.Hour).Unix())) {
		t.Errorf("the other clock is not named: %v", err)
	}
}

func checkClock(t *testing.T, err error, now time.Time) {
	t.Helper()
	if !errors.Is(err, grid.Denied) || !strings.Contains(err.Error(), when(now.Unix())) || !strings.Contains(grid.AdviceOf(err), "check the clock") {
		t.Errorf("%v\nhint: %s", err, grid.AdviceOf(err))
	}
}

func BenchmarkDigest(b *testing.B) {
	book := NewBook(newWho(b).id, func() time.Time { return start })
	for i := range maxRevoked {
		book.revoked[peer.ID(fmt.Sprint(i))] = revoked{}
	}
	for b.Loop() {
		book.digest()
	}
}
