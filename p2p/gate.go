package p2p

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/autonatv2"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"

	"github.com/wasmgrid/wasmgrid/grid"
)

// JoinProtocol is the one protocol of a closed swarm that strangers reach. Members, too, show by it who they are.
const JoinProtocol grid.Protocol = "join/1"

// Gate decides who takes part in a closed swarm. Admits and Allows must not block.
type Gate interface {
	// Admits reports whether a peer is known as a member.
	Admits(id peer.ID) bool
	// Allows refuses a conversation that a peer, member or not, may not begin here.
	Allows(from peer.ID, p grid.Protocol) error
	// Greet makes this node and a peer that it has connected to known to each other; call sends a request of JoinProtocol
	// to that one. The error says why they do not take each other for members.
	Greet(ctx context.Context, to peer.ID, call func(context.Context, []byte) ([]byte, error)) error
}

// What a stranger is given: a connection, on which it may speak JoinProtocol, for as long as it takes to join; and to open other
// streams, which wait to see whether it is admitted.
const (
	strangerStreams = 16 // of one stranger, at once
	strangerTime    = 15 * time.Second
	admitTimeout    = 5 * time.Second // what a stream waits, either way
	maxJoinRequest  = 128 << 10       // bytes that a stranger may send
	negotiateIn     = 10 * time.Second
	maxFailed       = 256
	againAfter      = 5 * time.Second // until a peer that was refused, or refused us, is dialled again
)

// failure is how a greeting ended, and when.
type failure struct {
	err error
	at  time.Time
}

// gatekeeper holds connections and streams back until their peers are known as members, whatever protocol they speak, that of libp2p
// itself included.
type gatekeeper struct {
	gate Gate
	h    *Host

	hushed atomic.Uint64 // what strangers were not told

	mu        sync.Mutex
	waiting   map[peer.ID]*waiters
	failed    map[peer.ID]failure // why who was dialled was not admitted
	streams   map[peer.ID]int     // of strangers
	strangers strangers
}

// waiters wait for something new about a peer.
type waiters struct {
	news chan struct{} // closed when there is
	n    int
}

func newGatekeeper(gate Gate, h *Host) *gatekeeper {
	return &gatekeeper{
		gate: gate, h: h, waiting: make(map[peer.ID]*waiters), failed: make(map[peer.ID]failure),
		streams: make(map[peer.ID]int), strangers: newStrangers(),
	}
}

// InterceptPeerDial is told at connmgr.ConnectionGater, as are those below.
func (g *gatekeeper) InterceptPeerDial(id peer.ID) bool            { return g.recent(id) == nil }
func (g *gatekeeper) InterceptAddrDial(peer.ID, ma.Multiaddr) bool { return true }

func (g *gatekeeper) InterceptAccept(network.ConnMultiaddrs) bool { return true }

// InterceptSecured is where the peer's ID is proven.
func (g *gatekeeper) InterceptSecured(d network.Direction, id peer.ID, c network.ConnMultiaddrs) bool {
	if d == network.DirOutbound || g.gate.Admits(id) {
		return true
	}
	g.mu.Lock()
	ok := g.strangers.room(neighbourhood(c.RemoteMultiaddr()))
	g.mu.Unlock()
	if !ok {
		g.refusedAt(c.RemoteMultiaddr())
	}
	return ok
}

// InterceptUpgraded is where a connection is ready to be used. A stranger gets a place and its time, if there is one.
func (g *gatekeeper) InterceptUpgraded(c network.Conn) (bool, control.DisconnectReason) {
	if c.Stat().Direction == network.DirOutbound || g.gate.Admits(c.RemotePeer()) {
		return true, 0
	}
	at, now := neighbourhood(c.RemoteMultiaddr()), time.Now()
	g.mu.Lock()
	evict, ok := g.strangers.place(at, now)
	if evict != nil {
		g.strangers.drop(evict)
	}
	if ok {
		g.strangers.add(c, stranger{at, now, time.AfterFunc(strangerTime, func() { g.expire(c) })})
	}
	g.mu.Unlock()
	if evict != nil {
		g.refusedAt(evict.RemoteMultiaddr())
		g.h.background(func() { _ = evict.Close() })
	}
	if !ok {
		g.refusedAt(c.RemoteMultiaddr())
	}
	return ok, 0
}

// refusedAt counts a connection of a stranger that was not taken, or not kept.
func (g *gatekeeper) refusedAt(at ma.Multiaddr) { g.h.table.RefusedAddress(ipOf(at), grid.RefusedConn) }

// guard takes over the connections and streams of a host.
func (g *gatekeeper) guard(on host.Host) {
	on.Network().Notify(&network.NotifyBundle{ConnectedF: g.connected, DisconnectedF: g.disconnected})
	on.Network().SetStreamHandler(func(s network.Stream) { g.incoming(on, s) })
}

// connected has this node greet whom it has dialled. It must not block.
func (g *gatekeeper) connected(_ network.Network, c network.Conn) {
	if c.Stat().Direction == network.DirOutbound {
		g.mu.Lock()
		delete(g.failed, c.RemotePeer())
		g.mu.Unlock()
		g.h.background(func() { g.greet(c) })
		return
	}
	g.mu.Lock()
	_, counted := g.strangers.conns[c]
	g.mu.Unlock()
	if !counted && !g.gate.Admits(c.RemotePeer()) { // it was a member until a moment ago, when nobody saw the connection
		g.h.background(func() { _ = c.Close() })
	}
}

func (g *gatekeeper) disconnected(n network.Network, c network.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.strangers.drop(c)
	if id := c.RemotePeer(); len(n.ConnsToPeer(id)) == 0 {
		g.wake(id)
	}
}

// expire hangs up on who is a stranger still.
func (g *gatekeeper) expire(c network.Conn) {
	g.mu.Lock()
	g.strangers.drop(c)
	g.mu.Unlock()
	if !g.gate.Admits(c.RemotePeer()) {
		g.h.table.RefusedAddress(ipOf(c.RemoteMultiaddr()), grid.RefusedSlow)
		_ = c.Close()
	}
}

// greet shows this node to a peer that it has dialled, and hangs up if they are not both members.
func (g *gatekeeper) greet(c network.Conn) {
	id := c.RemotePeer()
	ctx, cancel := context.WithTimeout(g.h.ctx, admitTimeout)
	defer cancel()
	call := func(ctx context.Context, req []byte) ([]byte, error) {
		return g.h.Call(network.WithNoDial(ctx, "only if connected"), id, JoinProtocol, req)
	}
	err := g.gate.Greet(ctx, id, call)
	if grid.CodeOf(err) == grid.Unavailable && g.h.connected(id) {
		err = g.gate.Greet(ctx, id, call) // of two connections one has gone
	}
	code := grid.CodeOf(err)
	if err == nil || g.gate.Admits(id) && code != grid.Denied && code != grid.Invalid && code != grid.Unsupported {
		g.reconsider(id)
		return
	}
	if code == grid.Unsupported {
		err = grid.Errorf(grid.Invalid, "p2p: %s does not speak %s of the swarm %q: it is in another, or runs another version of this program", id, JoinProtocol, g.h.swarm()).
			Hint("start both nodes in the same swarm, with the same version; `grid version` prints it")
	}
	g.mu.Lock()
	if len(g.failed) >= maxFailed {
		clear(g.failed)
	}
	g.failed[id] = failure{err, time.Now()}
	g.wake(id)
	g.mu.Unlock()
	if g.h.ctx.Err() == nil {
		g.h.log.Info("a peer that was dialled and this node are not members of one swarm", "peer", id, "err", err, "hint", grid.AdviceOf(err))
	}
	_ = c.Close()
}

// reconsider lets those go on who wait for a peer, or cuts it off if it is no member.
func (g *gatekeeper) reconsider(id peer.ID) {
	if !g.gate.Admits(id) {
		g.mu.Lock()
		g.wake(id)
		g.mu.Unlock()
		_ = g.h.host.Network().ClosePeer(id)
		return
	}
	g.admit(id)
	if protocols, err := g.h.host.Peerstore().GetProtocols(id); err == nil && g.h.connected(id) {
		g.h.members.identified(id, protocols)
	}
}

// admit lets those go on who wait for a peer.
func (g *gatekeeper) admit(id peer.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.failed, id)
	for c := range g.strangers.conns {
		if c.RemotePeer() == id {
			g.strangers.drop(c)
		}
	}
	g.wake(id)
}

// wake is called with the lock held.
func (g *gatekeeper) wake(id peer.ID) {
	if w := g.waiting[id]; w != nil {
		close(w.news)
		delete(g.waiting, id)
	}
}

// recent is why a peer was not admitted a moment ago: it is not dialled again at once, whoever wants to.
func (g *gatekeeper) recent(id peer.ID) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f := g.failed[id]; f.err != nil && time.Since(f.at) < againAfter {
		return f.err
	}
	return nil
}

// await waits until a connected peer is admitted.
func (g *gatekeeper) await(ctx context.Context, id peer.ID) error {
	if g.gate.Admits(id) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, admitTimeout)
	defer cancel()
	for {
		g.mu.Lock()
		w, err := g.waiting[id], g.failed[id].err
		if w == nil {
			w = &waiters{news: make(chan struct{})}
			g.waiting[id] = w
		}
		w.n++
		g.mu.Unlock()
		switch {
		case g.gate.Admits(id):
			err = nil
		case err != nil:
		case !g.h.connected(id):
			err = grid.Errorf(grid.Unavailable, "p2p: the connection to %s is gone", id)
		default:
			select {
			case <-w.news:
				continue
			case <-g.h.ctx.Done():
				err = grid.Errorf(grid.Unavailable, "the network is closed")
			case <-ctx.Done():
				err = grid.Errorf(grid.Denied, "p2p: %s has not shown that it is a member of this swarm", id)
			}
		}
		g.mu.Lock()
		if w.n--; w.n == 0 && g.waiting[id] == w {
			delete(g.waiting, id) // so that of strangers nothing stays
		}
		g.mu.Unlock()
		return err
	}
}

// forStrangers are those protocols of libp2p that strangers speak with a member: by one they ask for a circuit, to join through it, of
// which they get little (see relayService); by the other comes what a member has ordered, who has an address of this node
// tried from a host without a name. Its handler reads a number, and says nothing.
func forStrangers(p protocol.ID) bool { return p == hopProtocol || p == autonatv2.DialBackProtocol }

// incoming does what libp2p's host does with a stream that a peer opens, but for the wait before it is handled.
func (g *gatekeeper) incoming(on host.Host, s network.Stream) {
	id := s.Conn().RemotePeer()
	stranger := !g.gate.Admits(id)
	if stranger {
		g.mu.Lock()
		full := g.streams[id] >= strangerStreams
		if !full {
			g.streams[id]++
		}
		g.mu.Unlock()
		if full {
			g.h.table.Refused(id, "", grid.RefusedAtOnce)
			_ = s.Reset()
			return
		}
		defer func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			if g.streams[id]--; g.streams[id] == 0 {
				delete(g.streams, id)
			}
		}()
	}
	_ = s.SetDeadline(time.Now().Add(negotiateIn))
	said := &hearing{ReadWriteCloser: s}
	p, handle, err := on.Mux().Negotiate(said)
	if err == nil {
		err = s.SetProtocol(p)
	}
	if err == nil && p != g.h.protocolID(JoinProtocol) && !forStrangers(p) {
		err = g.await(g.h.ctx, id)
	}
	if err != nil {
		switch {
		case !stranger || g.gate.Admits(id):
		case p == "" && said.otherVersion(g.h.protocolID(JoinProtocol)) != "":
			g.h.table.Refused(id, JoinProtocol, grid.Unsupported.Error())
		default:
			g.h.table.Refused(id, grid.Protocol(strings.TrimPrefix(string(p), g.h.prefix)), grid.Denied.Error())
		}
		g.h.log.Debug("refused a stream", "peer", id, "protocol", p, "err", err)
		_ = s.Reset()
		return
	}
	_ = s.SetDeadline(time.Time{})
	_ = handle(p, s)
}

// gated is a host that opens no stream to strangers of a closed swarm, for those parts of libp2p that open their own. They may use
// relayed connections.
type gated struct {
	host.Host
	g *gatekeeper // nil in an open swarm
}

// NewStream is told at host.Host.
func (h gated) NewStream(ctx context.Context, to peer.ID, protocols ...protocol.ID) (network.Stream, error) {
	if h.g != nil {
		if err := h.g.reach(ctx, to); err != nil {
			return nil, err
		}
	}
	return h.Host.NewStream(allowRelayed(ctx), to, protocols...)
}

// Connect is told at host.Host. Who has come through a relay and is a stranger is not called back.
func (h gated) Connect(ctx context.Context, info peer.AddrInfo) error {
	if direct, _ := network.GetForceDirectDial(ctx); direct && h.g != nil && !h.g.gate.Admits(info.ID) {
		return grid.Errorf(grid.Denied, "p2p: %s is no member of this swarm", info.ID)
	}
	return h.Host.Connect(ctx, info)
}

// allowRelayed allows the use of connections through a relay.
func allowRelayed(ctx context.Context) context.Context {
	return network.WithAllowLimitedConn(ctx, "grid")
}

// reach connects to a peer if need be, and waits until it is admitted.
func (g *gatekeeper) reach(ctx context.Context, to peer.ID) error {
	if !g.h.connected(to) {
		if noDial, _ := network.GetNoDial(ctx); noDial {
			return network.ErrNoConn
		}
		if err := g.recent(to); err != nil {
			return err
		}
		if err := g.h.host.Connect(allowRelayed(ctx), peer.AddrInfo{ID: to}); err != nil {
			return err
		}
	}
	return g.await(ctx, to)
}

// Reconsider says that there is something new about whether a peer is a member: it is let in, or cut off. Without a gate it
// does nothing.
func (h *Host) Reconsider(id peer.ID) {
	if h.gatekeeper != nil {
		h.gatekeeper.reconsider(id)
	}
}

// background runs f unless the host is closing, which waits for it.
func (h *Host) background(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ctx.Err() == nil {
		h.wg.Go(f)
	}
}

// Ask sends one request to a node of a swarm, at a multiaddr with /p2p/ID, from a node that is not a part of it and does not
// become one; psk is the swarm's pre-shared key, nil if it has none. The error is that of the node, or Unavailable when it cannot be reached.
func Ask(ctx context.Context, key crypto.PrivKey, psk pnet.PSK, swarmName, addr string, p grid.Protocol, req []byte) (answer []byte, err error) {
	info, err := parsePeerAddr(addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	on, err := libp2p.New(append(transports(psk, Slow{}),
		libp2p.Identity(key), libp2p.UserAgent("grid"), libp2p.NoListenAddrs, libp2p.DisableRelay(), libp2p.DisableMetrics(),
		libp2p.ForceReachabilityPublic(), libp2p.SwarmOpts(swarm.WithDialRanker(rankDials)), libp2p.ResourceManager(&network.NullResourceManager{}),
		circuits(func(h host.Host) host.Host { return bare{h} }),
	)...)
	if err != nil {
		return nil, grid.Errorf(grid.Internal, "p2p: start libp2p: %w", err)
	}
	defer on.Close()
	on.Peerstore().AddAddrs(info.ID, info.Addrs, addrTTL)
	c, err := on.Network().DialPeer(ctx, info.ID)
	if err != nil {
		return nil, grid.Errorf(grid.Unavailable, "p2p: connect to %s: %w", addr, err).Hint("%s", unreached(err, psk))
	}
	s, err := bareStream(ctx, c, protocol.ID("/grid/"+swarmName+"/"+string(p)))
	if unsupported(err) {
		return nil, grid.Errorf(grid.Denied, "p2p: %s does not speak %s of this swarm: it does not belong to it any more, or runs another version of this program", info.ID, p).
			Hint("compare `grid version` on both machines; if it is the same, ask for a new token")
	}
	if err != nil {
		return nil, grid.Errorf(grid.Unavailable, "p2p: ask %s: %w", info.ID, err)
	}
	defer s.Reset()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	answer, remote, err := exchange(s, req)
	if err != nil {
		if ctx.Err() != nil {
			err = errors.Join(err, ctx.Err())
		}
		return nil, grid.Errorf(grid.Unavailable, "p2p: ask %s: %w", info.ID, err)
	}
	return answer, remote
}

// bareStream opens a stream without the wait for what the peer says of itself by libp2p's identify protocol, which it says to
// members only.
func bareStream(ctx context.Context, c network.Conn, p protocol.ID) (network.Stream, error) {
	s, err := c.NewStream(allowRelayed(ctx))
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	_ = s.SetDeadline(time.Now().Add(negotiateIn))
	if err = multistream.SelectProtoOrFail(p, s); err == nil {
		err = s.SetProtocol(p)
	}
	if err != nil {
		_ = s.Reset()
		return nil, err
	}
	_ = s.SetDeadline(time.Time{})
	return s, nil
}

// joinLimit keeps strangers from sending much.
func (h *Host) joinLimit(from peer.ID, p grid.Protocol, reserve func(int) error) func(int) error {
	if h.gatekeeper == nil || p != JoinProtocol || h.gatekeeper.gate.Admits(from) {
		return reserve
	}
	return func(n int) error {
		if n > maxJoinRequest {
			return grid.Errorf(grid.Limit, "p2p: a stranger's request of %d bytes, at most %d are allowed", n, maxJoinRequest)
		}
		return reserve(n)
	}
}
