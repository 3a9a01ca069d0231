package p2p

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"

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
		_, err := Ask(t.Context(), gateKey(t), nil, "gated", a.Addrs()[0], JoinProtocol, req)
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
	if _, err := Ask(t.Context(), gateKey(t), nil, "other", a.Addrs()[0], JoinProtocol, nil); !errors.Is(err, grid.Denied) {
		t.Errorf("another swarm: %v", err)
	}
	if len(a.Peers()) > 0 {
		t.Errorf("strangers among the peers: %v", a.Peers())
	}
}

// from is an option for a host that dials from another address of this machine.
func from(ip string) libp2p.Option {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	return libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport(), tcp.WithDialerForAddr(func(ma.Multiaddr) (tcp.ContextDialer, error) { return dialer, nil }))
}

// TestStrangerIsToldNothing: a stranger who waits on its connection does not hear of what a node speaks from then on, as members do.
func TestStrangerIsToldNothing(t *testing.T) {
	a, la := openGated(t, "sesame")
	info, err := parsePeerAddr(a.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	visitor := func(f func(network.Stream)) host.Host {
		key := gateKey(t)
		x, err := libp2p.New(libp2p.Identity(key), libp2p.NoListenAddrs, libp2p.DisableMetrics())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = x.Close() })
		x.SetStreamHandler(identify.IDPush, f)
		return x
	}
	told := make(chan struct{}, 1)
	member := visitor(func(s network.Stream) {
		_ = s.Reset()
		select {
		case told <- struct{}{}:
		default:
		}
	})
	stranger := visitor(func(s network.Stream) {
		_ = s.Reset()
		t.Error("a stranger is told something")
	})
	la.set(member.ID(), true)
	for _, x := range []host.Host{member, stranger} {
		x.Peerstore().AddAddrs(info.ID, info.Addrs, time.Hour)
		if _, err := x.Network().DialPeer(t.Context(), info.ID); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the node knows what it speaks", func() bool {
			known, err := a.host.Peerstore().GetProtocols(x.ID())
			return err == nil && slices.Contains(known, protocol.ID(identify.IDPush))
		})
	}
	a.Serve("later/1", func(context.Context, peer.ID, []byte) ([]byte, error) { return nil, nil })
	eventually(t, "it was to be told", func() bool { return a.gatekeeper.hushed.Load() > 0 })
	select {
	case <-told:
	case <-t.Context().Done():
		t.Error("a member is not told")
	}
}

// A stranger cannot have more streams than it is given, nor those of one address more connections; others get in meanwhile.
func TestStrangersAreFew(t *testing.T) {
	a, _ := openGated(t, "sesame")
	info, err := parsePeerAddr(a.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	var first network.Conn
	for range strangersPerAddress + 8 {
		x, err := libp2p.New(libp2p.Identity(gateKey(t)), libp2p.NoListenAddrs, libp2p.DisableMetrics(), from("127.0.0.9"), libp2p.ResourceManager(&network.NullResourceManager{}))
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		x.Peerstore().AddAddrs(info.ID, info.Addrs, time.Hour)
		if c, err := x.Network().DialPeer(t.Context(), info.ID); err == nil && first == nil {
			first = c
		}
	}
	a.gatekeeper.mu.Lock()
	n := len(a.gatekeeper.strangers.conns)
	a.gatekeeper.mu.Unlock()
	if n > strangersPerAddress {
		t.Errorf("%d strangers at once", n)
	}
	eventually(t, "it is told", func() bool {
		return slices.ContainsFunc(a.Refusals(), func(r grid.Refusal) bool { return r.From == "127.0.0.9" && r.Reason == grid.RefusedConn })
	})
	if _, err := Ask(t.Context(), gateKey(t), nil, "gated", a.Addrs()[0], JoinProtocol, []byte("sesame")); err != nil {
		t.Errorf("one at another address: %v", err)
	}
	for range 3 * strangerStreams {
		s, err := first.NewStream(t.Context())
		if err != nil {
			break
		}
		defer s.Reset()
		_, _ = s.Write([]byte{0x13})
	}
	a.gatekeeper.mu.Lock()
	n = a.gatekeeper.streams[first.LocalPeer()]
	a.gatekeeper.mu.Unlock()
	if n > strangerStreams {
		t.Errorf("%d streams of one stranger", n)
	}
}

// fakeConn is a connection that is told apart and nothing else.
type fakeConn struct {
	network.Conn
	n int
}

// When all places are taken, the address with most of them loses its oldest, once it has had its time.
func TestStrangersMakeRoom(t *testing.T) {
	s, now := newStrangers(), time.Unix(1000, 0)
	at := func(i int) netip.Prefix {
		return neighbourhood(ma.StringCast(fmt.Sprintf("/ip4/10.0.%d.%d/tcp/1", i/256, i%256)))
	}
	var greedy []network.Conn
	for i := range maxStrangers {
		from, c := at(1000+i), network.Conn(&fakeConn{n: i})
		if i%16 == 3 {
			from, greedy = at(1), append(greedy, c)
		}
		if evict, ok := s.place(from, now); !ok || evict != nil {
			t.Fatalf("%d: no room", i)
		}
		s.add(c, stranger{at: from, since: now.Add(time.Duration(i) * time.Millisecond)})
	}
	if _, ok := s.place(at(2), now.Add(strangerGrace-1)); ok {
		t.Error("one that has not had its time had to go")
	}
	if evict, ok := s.place(at(2), now.Add(2*strangerGrace)); !ok || evict != greedy[0] {
		t.Errorf("%v had to go, %v", evict, ok)
	}
	for c := range s.conns {
		s.drop(c)
		s.drop(c)
	}
	if len(s.conns)+len(s.at) > 0 {
		t.Errorf("%d and %d are left", len(s.conns), len(s.at))
	}
	for range strangersPerAddress {
		s.add(&fakeConn{}, stranger{at: at(7)})
	}
	if _, ok := s.place(at(7), now); ok || !s.room(at(8)) {
		t.Error("one address has more than its part")
	}
}

func TestNeighbourhood(t *testing.T) {
	for addr, want := range map[string]string{
		"/ip4/192.0.2.7/tcp/1":                    "192.0.2.7/32",
		"/ip4/192.0.2.7/udp/9/quic-v1":            "192.0.2.7/32",
		"/ip6/::ffff:192.0.2.7/tcp/1":             "192.0.2.7/32",
		"/ip6/2001:db8:1:2ff:3::4/tcp/1":          "2001:db8:1:200::/56",
		"/ip6zone/eth0/ip6/fe80:0:0:123::1/tcp/1": "fe80:0:0:100::/56",
		"/dns4/example.com/tcp/1":                 "invalid Prefix",
	} {
		if got := neighbourhood(ma.StringCast(addr)); got.String() != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
}

// Nodes of other versions are named, on both sides; other names, and other swarms, are not.
func TestVersions(t *testing.T) {
	ours := []protocol.ID{"/grid/x/steal/1", "/grid/x/ping/1", "/ipfs/id/1.0.0", "/grid/x/kad/1.0.0"}
	theirs := []protocol.ID{"/grid/x/steal/0", "/grid/x/ping/1", "/grid/x/new/1", "/grid/y/steal/2", "/ipfs/id/2.0.0", "/grid/x/kad/2.0.0", "none"}
	if got := otherVersions("/grid/x/", ours, theirs); !slices.Equal(got, []string{"kad/2.0.0", "steal/0"}) {
		t.Errorf("%v", got)
	}
	for text, want := range map[string]string{
		"\x13/multistream/1.0.0\n\x0f/grid/x/join/2\n": "/grid/x/join/2",
		"\x13/multistream/1.0.0\n\x0f/grid/x/join/1\n": "",
		"\x13/multistream/1.0.0\n\x0f/grid/x/join/2":   "",
		"/grid/x/join/<script>\n":                      "",
		"/grid/x/join/\n":                              "",
		"":                                             "",
	} {
		h := &hearing{ReadWriteCloser: struct {
			io.Reader
			io.WriteCloser
		}{strings.NewReader(text + strings.Repeat("x", 1000)), nil}}
		if _, err := io.ReadAll(h); err != nil || len(h.first) != maxHeard {
			t.Fatal(err, len(h.first))
		}
		if got := h.otherVersion("/grid/x/join/1"); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}

	a, _ := openGated(t, "sesame")
	_, err := Ask(t.Context(), gateKey(t), nil, "gated", a.Addrs()[0], "join/2", nil)
	if !errors.Is(err, grid.Denied) || !strings.Contains(err.Error(), "another version") || !strings.Contains(grid.AdviceOf(err), "grid version") {
		t.Errorf("%v", err)
	}
	eventually(t, "the other side says so", func() bool {
		return slices.ContainsFunc(a.Refusals(), func(r grid.Refusal) bool { return r.Protocol == JoinProtocol && r.Reason == "unsupported" })
	})
}

// A member of an older version and this one both say so.
func TestOlderMember(t *testing.T) {
	var logs [2]lockedBuffer
	var hosts [2]*Host
	for i := range hosts {
		h, err := Open(t.Context(), Config{
			Identity: gateKey(t), Swarm: "versions", Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Logger: slog.New(slog.NewTextHandler(&logs[i], nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.Close() })
		h.Serve(grid.Protocol(fmt.Sprintf("steal/%d", i)), func(context.Context, peer.ID, []byte) ([]byte, error) { return nil, nil })
		hosts[i] = h
	}
	if err := hosts[0].Connect(t.Context(), hosts[1].Addrs()[0]); err != nil {
		t.Fatal(err)
	}
	for i := range hosts {
		eventually(t, "it is logged", func() bool {
			return strings.Contains(logs[i].String(), fmt.Sprintf("theirs=[steal/%d]", 1-i))
		})
		if _, err := hosts[i].Call(t.Context(), hosts[1-i].id, grid.Protocol(fmt.Sprintf("steal/%d", i)), nil); !errors.Is(err, grid.Unsupported) || !strings.Contains(grid.AdviceOf(err), "same version") {
			t.Errorf("%v", err)
		}
	}
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// brief is a gate by which a peer is a member until its connection is there.
type brief struct {
	*list
	id peer.ID

	mu    sync.Mutex
	asked int
}

func (b *brief) Admits(id peer.ID) bool {
	if id != b.id {
		return b.list.Admits(id)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked++
	return b.asked <= 2 // when its key is proven, and when the connection is ready
}

// Who is revoked while it connects does not keep the connection.
func TestRevokedMidway(t *testing.T) {
	key := gateKey(t)
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := openGatedWith(t, "sesame", func(c *Config) { c.Gate = &brief{list: c.Gate.(*list), id: id} })
	info, err := parsePeerAddr(a.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	x, err := libp2p.New(libp2p.Identity(key), libp2p.NoListenAddrs, libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	x.Peerstore().AddAddrs(info.ID, info.Addrs, time.Hour)
	c, err := x.Network().DialPeer(t.Context(), info.ID)
	if err != nil {
		return // it was hung up on already
	}
	eventually(t, "it is hung up on", c.IsClosed)
}
