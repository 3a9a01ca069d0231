package p2p

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/wasmgrid/wasmgrid/grid"
)

// relayedAddr waits until a host has an address through a relay.
func relayedAddr(t testing.TB, h *Host) (addr string) {
	t.Helper()
	eventually(t, "it has a relay", func() bool {
		for _, a := range h.Addrs() {
			if strings.Contains(a, "/p2p-circuit/") {
				addr = a
			}
		}
		return addr != ""
	})
	return addr
}

func openWith(t testing.TB, change func(*Config)) *Host {
	t.Helper()
	cfg := Config{Identity: gateKey(t), Swarm: "relayed", Listen: []string{"/ip4/127.0.0.1/tcp/0"}}
	if testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	change(&cfg)
	h, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	h.Serve("echo/1", func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) { return req, nil })
	return h
}

func viaRelay(h *Host, id peer.ID, relay peer.ID) bool {
	return slices.ContainsFunc(h.Peers(), func(p grid.PeerInfo) bool {
		return p.ID == id && p.Transport == "relay" && p.Relay == relay.String()
	})
}

// Two nodes that listen nowhere meet through a third, and call each other.
func TestRelay(t *testing.T) {
	t.Parallel()
	r := openWith(t, func(c *Config) { c.Relay = RelayOn })
	a, b := openWith(t, func(*Config) {}), openWith(t, func(*Config) {})
	for _, h := range []*Host{a, b} {
		h.Hide()
		if err := h.Connect(t.Context(), r.Addrs()[0]); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Connect(t.Context(), relayedAddr(t, a)); err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte("wasmgrid"), 128<<10)
	for _, x := range []struct{ from, to *Host }{{a, b}, {b, a}} {
		eventually(t, "they see each other", func() bool { return viaRelay(x.from, x.to.id, r.id) })
		if got, err := x.from.Call(t.Context(), x.to.id, "echo/1", big); err != nil || !bytes.Equal(got, big) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	x, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if info, err := parsePeerAddr(r.Addrs()[0]); err != nil {
		t.Error(err)
	} else if _, err := circuit.Reserve(t.Context(), x, info); err == nil {
		t.Error("who is no node of the swarm has a place at the relay")
	}
	if on, n := r.outlook.relay.on(); !on || n == 0 {
		t.Errorf("the relay is on: %v, with %d circuits", on, n)
	}
	if reach := a.Reach(); len(reach.Relays) == 0 || reach.Relayed != 1 || reach.Relaying {
		t.Errorf("%+v", reach)
	}
	if c := a.Contacts(4); !strings.Contains(c[0], "/p2p-circuit/") {
		t.Errorf("it names itself by %v", c)
	}
	// Without the relay they lose each other.
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	eventually(t, "they lose each other", func() bool { return len(a.Peers())+len(b.Peers()) == 0 })
	if addrs := a.Reach().Relays; len(addrs) > 0 {
		eventually(t, "it announces the relay no longer", func() bool { return len(a.Reach().Relays) == 0 })
	}
}

// A stranger gets no place at a private swarm's relay. Through it he reaches a member that has no other address, to join and for
// nothing else, and cannot carry much.
func TestRelayStranger(t *testing.T) {
	t.Parallel()
	r, lr := openGatedWith(t, "sesame", func(c *Config) { c.Relay = RelayOn })
	a, la := openGated(t, "sesame")
	a.Hide()
	if err := a.Connect(t.Context(), r.Addrs()[0]); err != nil {
		t.Fatal(err)
	}
	addr := relayedAddr(t, a)
	info, err := parsePeerAddr(r.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	stranger := func() bare {
		x, err := libp2p.New(append(transports(nil, Slow{}), libp2p.Identity(gateKey(t)), libp2p.NoListenAddrs, libp2p.DisableMetrics(), libp2p.DisableRelay())...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = x.Close() })
		return bare{x}
	}
	x := stranger()
	var wg sync.WaitGroup // what is refused takes as long as others are given to become members
	wg.Go(func() {
		if _, err := circuit.Reserve(t.Context(), x, info); err == nil {
			t.Error("a stranger has a place at the relay")
		}
	})
	wg.Go(func() {
		if _, err := Ask(t.Context(), gateKey(t), nil, "gated", addr, "echo/1", []byte("hi")); err == nil {
			t.Error("a stranger is answered")
		}
	})
	if _, err := Ask(t.Context(), gateKey(t), nil, "gated", addr, JoinProtocol, []byte("?")); !errors.Is(err, grid.Denied) {
		t.Errorf("asked through the relay: %v", err)
	}
	key := gateKey(t)
	if _, err := Ask(t.Context(), key, nil, "gated", addr, JoinProtocol, []byte("sesame")); err != nil {
		t.Errorf("to join through the relay: %v", err)
	}
	id, _ := peer.IDFromPrivateKey(key)
	if !la.Admits(id) || lr.Admits(id) {
		t.Error("who was to let it in")
	}
	wg.Wait()
	// Who is no member is not reached through the relay either, and nobody has many circuits.
	y := stranger()
	for _, to := range []peer.ID{x.ID(), "nobody"} {
		if r.outlook.relay.AllowConnect(y.ID(), nil, to) {
			t.Errorf("a circuit to %s", to)
		}
	}
	y.Peerstore().AddAddrs(info.ID, info.Addrs, time.Hour)
	open := 0
	for range strangerCircuits + 3 {
		s, err := y.NewStream(t.Context(), info.ID, hopProtocol)
		if err != nil {
			continue
		}
		defer s.Reset()
		_ = s.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		var timeout interface{ Timeout() bool }
		if _, err := s.Read(make([]byte, 1)); errors.As(err, &timeout) && timeout.Timeout() {
			open++
		}
	}
	if open > strangerCircuits {
		t.Errorf("%d circuits of one stranger", open)
	}
	// A newcomer that is a member by then is one like any.
	b, _ := openGated(t, "sesame")
	b.Hide()
	if err := b.Connect(t.Context(), addr); err != nil {
		t.Fatal(err)
	}
	eventually(t, "they meet", func() bool { return viaRelay(a, b.id, r.id) && viaRelay(b, a.id, r.id) })
	if got, err := a.Call(t.Context(), b.id, "echo/1", []byte("hi")); err != nil || string(got) != "hi" {
		t.Errorf("%q, %v", got, err)
	}
}

// What a stranger's circuit carries ends where joining does; a member's goes on.
func TestRelayedBytes(t *testing.T) {
	r := openWith(t, func(c *Config) { c.Relay = RelayOn })
	strange := true
	carry := func(read, write int) (err error) {
		c := r.outlook.relay.shape(&fakeStream{left: read})
		c.stranger = func() bool { return strange }
		buf := make([]byte, relayBuffer)
		for n := 0; err == nil && n < read; {
			var k int
			k, err = c.Read(buf)
			n += k
		}
		for n := 0; err == nil && n < write; n += len(buf) {
			_, err = c.Write(buf)
		}
		return err
	}
	if err := carry(strangerSends, strangerGets); err != nil {
		t.Errorf("what it takes to join: %v", err)
	}
	if carry(strangerSends+1, 0) == nil || carry(0, strangerGets+1) == nil {
		t.Error("a stranger may carry more")
	}
	strange = false
	if err := carry(strangerSends+1, strangerGets+1); err != nil {
		t.Errorf("a member: %v", err)
	}
}

// fakeStream gives and takes bytes.
type fakeStream struct {
	network.Stream
	left int
}

func (f *fakeStream) Read(p []byte) (int, error) {
	n := min(len(p), f.left)
	f.left -= n
	return n, nil
}
func (f *fakeStream) Write(p []byte) (int, error) { return len(p), nil }

// Directly first, whatever is beside it: a relay costs its owner.
func TestRankRelayed(t *testing.T) {
	relayed := "/ip4/192.0.2.1/udp/4747/quic-v1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN/p2p-circuit"
	for _, near := range []string{"", "/ip4/10.0.0.7/tcp/4747", "/ip4/192.0.2.7/tcp/4747"} {
		var addrs []ma.Multiaddr
		for _, s := range []string{relayed, near} {
			if s != "" {
				addrs = append(addrs, ma.StringCast(s))
			}
		}
		ranked := rankDials(addrs)
		last := ranked[len(ranked)-1]
		if len(ranked) != len(addrs) || !isCircuit(last.Addr) || (last.Delay > 0) != (near != "") {
			t.Errorf("beside %q: %v", near, ranked)
		}
	}
	if got := through(ma.StringCast(relayed)); got.String() != "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN" {
		t.Errorf("through %q", got)
	}
	if got := through(ma.StringCast("/ip4/10.0.0.7/tcp/4747")); got != "" {
		t.Errorf("through %q", got)
	}
}

// An address through a relay is forgotten after a day, and with it who has no other.
func TestRelayedIsForgotten(t *testing.T) {
	now := time.Now()
	relayed := ma.StringCast("/ip4/192.0.2.1/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN/p2p-circuit")
	plain := ma.StringCast("/ip4/192.0.0.71/tcp/1")
	all := func(seen time.Time, addrs ...ma.Multiaddr) remembered {
		return remembered{peer.AddrInfo{ID: "x", Addrs: addrs}, seen}
	}
	got := fresh([]remembered{all(now, relayed), all(now.Add(-2*relayedFor), relayed, plain), all(now.Add(-2*relayedFor), relayed)}, now)
	if len(got) != 2 || len(got[0].Addrs) != 1 || len(got[1].Addrs) != 1 || !got[1].Addrs[0].Equal(plain) {
		t.Errorf("%v", got)
	}
	// Of whom it has joined through, the way there is not the first for ever.
	k := newKeeper()
	k.fix(peer.AddrInfo{ID: "x", Addrs: []ma.Multiaddr{relayed, plain}})
	other := ma.StringCast("/ip4/192.0.2.9/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN/p2p-circuit")
	k.remember(peer.AddrInfo{ID: "x", Addrs: []ma.Multiaddr{other}}, now)
	if addrs := k.list()[0].Addrs; len(addrs) != 2 || !addrs[0].Equal(plain) || !addrs[1].Equal(other) {
		t.Errorf("%v", addrs)
	}
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		tries string
		want  string
	}{{"", "unknown"}, {"n", "unknown"}, {"y", "reachable"}, {"nn", "unreachable"}, {"ynn", "reachable"}, {"ynnn", "unreachable"}, {"nny", "reachable"}} {
		v := &verdict{}
		for _, r := range c.tries {
			v.add(r == 'y', time.Now())
		}
		if got := v.state(); got != c.want {
			t.Errorf("%q: %s, want %s", c.tries, got, c.want)
		}
	}
	if got := (*verdict)(nil).state(); got != "unknown" {
		t.Error(got)
	}
}

// What a node is seen as from outside tells what is between.
func TestNAT(t *testing.T) {
	h := openWith(t, func(c *Config) {
		c.Announce = []string{"/ip4/192.0.0.70/tcp/4747", "/ip4/192.0.0.70/udp/4747/quic-v1/p2p/" + mustID(t, c).String()}
	})
	o := h.outlook
	if addrs := h.Addrs(); len(addrs) != 3 || o.nat() != "" || o.reachability() != "unknown" {
		t.Errorf("%v, %q, %q", addrs, o.nat(), o.reachability())
	}
	see := func(by, addr string) { // as one that was dialled
		o.mu.Lock()
		defer o.mu.Unlock()
		o.seen[by] = sighting{by: peer.ID(by), addr: ma.StringCast(addr), out: true}
	}
	see("1", "/ip4/192.0.0.70/udp/4747/quic-v1")
	if o.nat() != "some" {
		t.Error(o.nat())
	}
	see("2", "/ip4/192.0.0.70/udp/4747/quic-v1")
	if o.nat() != "endpoint-independent" {
		t.Error(o.nat())
	}
	see("2", "/ip4/192.0.0.70/udp/33333/quic-v1")
	if o.nat() != "symmetric" {
		t.Error(o.nat())
	}
	judge := func(addr string, reached ...bool) {
		o.mu.Lock()
		defer o.mu.Unlock()
		v := &verdict{}
		for _, r := range reached {
			v.add(r, time.Now())
		}
		o.verdicts[string(ma.StringCast(addr).Bytes())] = v
	}
	judge("/ip4/192.0.0.70/tcp/4747", false, false)
	judge("/ip4/192.0.0.70/udp/4747/quic-v1", false, false)
	if o.reachability() != "private" {
		t.Error(o.reachability())
	}
	judge("/ip4/192.0.0.70/tcp/4747", false, true)
	if o.reachability() != "public" {
		t.Error(o.reachability())
	}
	eventually(t, "it relays, as others reach it", func() bool { return h.Reach().Relaying })
	for _, bad := range []string{"x", "/ip4/0.0.0.0/tcp/1", "/ip4/192.0.0.70", "/ip4/192.0.0.70/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"} {
		if _, err := Open(t.Context(), Config{Identity: gateKey(t), Announce: []string{bad}}); !errors.Is(err, grid.Invalid) || grid.AdviceOf(err) == "" {
			t.Errorf("announced %q: %v", bad, err)
		}
	}
}

func mustID(t *testing.T, c *Config) peer.ID {
	id, err := peer.IDFromPrivateKey(c.Identity)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Who was reached by a relay, and turns out to be near, is reached directly from then on.
func TestOffTheRelay(t *testing.T) {
	t.Parallel()
	r := openWith(t, func(c *Config) { c.Relay = RelayOn })
	a, b := openWith(t, func(*Config) {}), openWith(t, func(*Config) {})
	if err := a.Connect(t.Context(), r.Addrs()[0]); err != nil {
		t.Fatal(err)
	}
	near := a.Addrs()[0]
	if err := b.Connect(t.Context(), relayedAddr(t, a)); err != nil {
		t.Fatal(err)
	}
	info, err := parsePeerAddr(near)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "they are connected directly", func() bool {
		b.keeper.offer(info)
		return a.directly(b.id) && b.directly(a.id)
	})
	for _, p := range b.Peers() {
		if p.ID == a.id && (p.Transport != "tcp" || p.Relay != "") {
			t.Errorf("%+v", p)
		}
	}
}
