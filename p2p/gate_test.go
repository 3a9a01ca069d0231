package p2p

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// list is a gate that knows its members by name, and takes those for members who say a password.
type list struct {
	password string

	mu      sync.Mutex
	members []peer.ID
	banned  peer.ID
}

func (l *list) set(id peer.ID, in bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.members = slices.DeleteFunc(l.members, func(x peer.ID) bool { return x == id })
	if in && id != l.banned {
		l.members = append(l.members, id)
	}
}

func (l *list) Admits(id peer.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.members, id)
}

func (l *list) Allows(from peer.ID, p grid.Protocol) error {
	if p == JoinProtocol || l.Admits(from) && p != "never/1" {
		return nil
	}
	return grid.Errorf(grid.Denied, "no member")
}

func (l *list) Greet(ctx context.Context, to peer.ID, call func(context.Context, []byte) ([]byte, error)) error {
	answer, err := call(ctx, []byte(l.password))
	if err == nil && string(answer) != l.password {
		err = grid.Errorf(grid.Denied, "not our password")
	}
	if err == nil {
		l.set(to, true)
	}
	return err
}

func gateKey(t testing.TB) crypto.PrivKey {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// openGated starts a node of a closed swarm, which learns of members by their password.
func openGated(t *testing.T, password string) (*Host, *list) {
	t.Helper()
	return openGatedWith(t, password, func(*Config) {})
}

func openGatedWith(t *testing.T, password string, change func(*Config)) (*Host, *list) {
	t.Helper()
	l := &list{password: password}
	cfg := Config{Identity: gateKey(t), Swarm: "gated", Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Gate: l, Logger: slog.New(slog.DiscardHandler)}
	if testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	change(&cfg)
	h, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	l.set(h.id, true)
	h.Serve(JoinProtocol, func(_ context.Context, from peer.ID, req []byte) ([]byte, error) {
		if string(req) != password {
			return nil, grid.Errorf(grid.Denied, "wrong password")
		}
		if l.set(from, true); !l.Admits(from) {
			return nil, grid.Errorf(grid.Denied, "banned")
		}
		h.Reconsider(from)
		return req, nil
	})
	h.Serve("echo/1", func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) { return req, nil })
	h.Serve("never/1", func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) { return req, nil })
	return h, l
}

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for !f() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Members who do not know each other meet by showing who they are, use all protocols, and are cut when they are members no more.
func TestGate(t *testing.T) {
	a, la := openGated(t, "sesame")
	b, _ := openGated(t, "sesame")
	if err := b.Connect(t.Context(), a.Addrs()[0]); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ from, to *Host }{{a, b}, {b, a}} {
		eventually(t, "they see each other", func() bool { return x.from.roster.Has(x.to.id) })
		if got, err := x.from.Call(t.Context(), x.to.id, "echo/1", []byte("hi")); err != nil || string(got) != "hi" {
			t.Errorf("%q, %v", got, err)
		}
		if _, err := x.from.Call(t.Context(), x.to.id, "never/1", nil); !errors.Is(err, grid.Denied) {
			t.Errorf("a member was allowed everything: %v", err)
		}
	}
	eventually(t, "they share a table", func() bool { return len(a.directory.Neighbours()) == 1 && len(b.directory.Neighbours()) == 1 })
	la.mu.Lock()
	la.banned = b.id
	la.mu.Unlock()
	la.set(b.id, false)
	a.Reconsider(b.id)
	eventually(t, "the connection is cut", func() bool { return !a.roster.Has(b.id) })
	if _, err := a.Call(t.Context(), b.id, "echo/1", nil); err == nil {
		t.Error("called who is no member")
	}
}

// Who has not the password is told so, and the two go apart.
func TestGateRefuses(t *testing.T) {
	a, la := openGated(t, "sesame")
	b, lb := openGated(t, "open")
	if err := b.Connect(t.Context(), a.Addrs()[0]); !errors.Is(err, grid.Denied) {
		t.Fatalf("%v", err)
	}
	if la.Admits(b.id) || lb.Admits(a.id) || len(a.Peers())+len(b.Peers()) > 0 {
		t.Error("they take each other for members")
	}
	eventually(t, "they hang up", func() bool { return !a.connected(b.id) })
	// One side's word is not enough.
	la.set(b.id, true)
	if _, err := b.Call(t.Context(), a.id, "echo/1", nil); err == nil {
		t.Error("b called a, which is no member to it")
	}
}

// A node that has no gate, and says that it speaks the swarm's protocols, is no peer of one that has.
func TestGateAndOpen(t *testing.T) {
	a, _ := openGated(t, "sesame")
	x, err := Open(t.Context(), Config{Identity: gateKey(t), Swarm: "gated", Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	x.Serve("echo/1", func(context.Context, peer.ID, []byte) ([]byte, error) {
		t.Error("a stranger was called")
		return nil, nil
	})
	if err := a.Connect(t.Context(), x.Addrs()[0]); err == nil {
		t.Error("a connects to it")
	}
	if _, err := a.Call(t.Context(), x.id, "echo/1", nil); err == nil {
		t.Error("a calls it")
	}
	if err := x.Connect(t.Context(), a.Addrs()[0]); err == nil {
		t.Error("it connects to a")
	}
	if len(a.Peers()) > 0 || len(a.directory.Neighbours()) > 0 {
		t.Errorf("peers %v, neighbours %v", a.Peers(), a.directory.Neighbours())
	}
}

// A stranger that speaks libp2p like anybody opens every protocol there is, and gets no byte of any but one.
func TestStranger(t *testing.T) {
	a, _ := openGated(t, "sesame")
	x, err := libp2p.New(libp2p.Identity(gateKey(t)), libp2p.NoListenAddrs, libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	addr, err := parsePeerAddr(a.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	x.Peerstore().AddAddrs(addr.ID, addr.Addrs, time.Hour)
	c, err := x.Network().DialPeer(t.Context(), addr.ID)
	if err != nil {
		t.Fatal(err)
	}
	protocols := a.host.Mux().Protocols()
	if len(protocols) < 6 {
		t.Fatalf("only %v", protocols)
	}
	var wg sync.WaitGroup
	for _, p := range protocols {
		if p == a.protocolID(JoinProtocol) {
			continue
		}
		wg.Go(func() {
			s, err := bareStream(t.Context(), c, p)
			if err != nil {
				return
			}
			_, _ = s.Write([]byte("\x04ping\x08\x01abcdefghijklmnopqrstuvwxyz012345"))
			if data, err := io.ReadAll(s); len(data) > 0 || err == nil {
				t.Errorf("%s said %q, %v", p, data, err)
			}
		})
	}
	wg.Wait()
	if n := len(x.Peerstore().Addrs(addr.ID)); n != len(addr.Addrs) {
		t.Errorf("it has learnt %d addresses", n)
	}
	if known, err := x.Peerstore().GetProtocols(addr.ID); err != nil || len(known) > 0 {
		t.Errorf("it has learnt of %v, %v", known, err)
	}
	ask := func(req []byte) error {
		_, err := Ask(t.Context(), gateKey(t), "gated", a.Addrs()[0], JoinProtocol, req)
		return err
	}
	if err := ask([]byte("?")); !errors.Is(err, grid.Denied) {
		t.Errorf("%v", err)
	}
	if err := ask(make([]byte, maxJoinRequest+1)); err == nil {
		t.Error("a stranger may send as much as it likes")
	}
	if err := ask([]byte("sesame")); err != nil {
		t.Error(err)
	}
	if _, err := Ask(t.Context(), gateKey(t), "other", a.Addrs()[0], JoinProtocol, nil); !errors.Is(err, grid.Denied) {
		t.Errorf("another swarm: %v", err)
	}
	if len(a.Peers()) > 0 {
		t.Errorf("strangers among the peers: %v", a.Peers())
	}
}

// A stranger cannot have more streams than it is given, nor can all of them have more connections.
func TestStrangersAreFew(t *testing.T) {
	a, _ := openGated(t, "sesame")
	info, err := parsePeerAddr(a.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	var conns []network.Conn
	for range maxStrangers + 4 {
		x, err := libp2p.New(libp2p.Identity(gateKey(t)), libp2p.NoListenAddrs, libp2p.DisableMetrics(), libp2p.ResourceManager(&network.NullResourceManager{}))
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		x.Peerstore().AddAddrs(info.ID, info.Addrs, time.Hour)
		if c, err := x.Network().DialPeer(t.Context(), info.ID); err == nil {
			conns = append(conns, c)
		}
	}
	a.gatekeeper.mu.Lock()
	n := len(a.gatekeeper.conns)
	a.gatekeeper.mu.Unlock()
	if n > maxStrangers {
		t.Errorf("%d strangers at once", n)
	}
	for range 3 * strangerStreams {
		s, err := conns[0].NewStream(t.Context())
		if err != nil {
			break
		}
		defer s.Reset()
		_, _ = s.Write([]byte{0x13})
	}
	a.gatekeeper.mu.Lock()
	n = a.gatekeeper.streams[conns[0].LocalPeer()]
	a.gatekeeper.mu.Unlock()
	if n > strangerStreams {
		t.Errorf("%d streams of one stranger", n)
	}
}
