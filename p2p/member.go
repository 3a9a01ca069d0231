package p2p

import (
	"context"
	"encoding/binary"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"

	"github.com/wasmgrid/wasmgrid/grid"
)

// pingProtocol makes a node recognisable as one of the swarm, and keeps watch over its connection.
const pingProtocol grid.Protocol = "ping/1"

// A silent link is given up after pingEvery + pingMisses*pingTimeout, 14 s: long enough for a busy
// machine or a full link, short enough for leases to move on.
const (
	pingEvery   = 4 * time.Second
	pingTimeout = 5 * time.Second
	pingMisses  = 2
	pingIdle    = 30 * time.Second // then the answering side takes the stream for dead
	pingSize    = 8
)

// members tells who of the connected peers is a node of the swarm. What it believes is derived anew
// from libp2p's state at each event, so the order of events across peers does not matter.
type members struct {
	h    *Host
	sub  event.Subscription
	done chan struct{} // closed when run has ended

	mu      sync.Mutex
	spoken  map[peer.ID]bool // identified as one of ours on a connection that may still be there
	differs map[peer.ID]bool // those that were said to speak other versions
	pings   map[peer.ID]context.CancelFunc
	wg      sync.WaitGroup // pings
}

func newMembers(h *Host) (*members, error) {
	sub, err := h.host.EventBus().Subscribe([]any{
		new(event.EvtPeerConnectednessChanged),
		new(event.EvtPeerIdentificationCompleted),
		new(event.EvtPeerProtocolsUpdated),
	}, eventbus.BufSize(1024))
	if err != nil {
		return nil, err
	}
	return &members{
		h:       h,
		sub:     sub,
		done:    make(chan struct{}),
		spoken:  make(map[peer.ID]bool),
		differs: make(map[peer.ID]bool),
		pings:   make(map[peer.ID]context.CancelFunc),
	}, nil
}

// run follows libp2p's events until the subscription is closed.
func (m *members) run() {
	defer close(m.done)
	for ev := range m.sub.Out() {
		switch ev := ev.(type) {
		case event.EvtPeerConnectednessChanged:
			if ev.Connectedness == network.NotConnected {
				m.gone(ev.Peer)
			}
		case event.EvtPeerIdentificationCompleted:
			m.identified(ev.Peer, ev.Protocols)
		case event.EvtPeerProtocolsUpdated:
			protocols, err := m.h.host.Peerstore().GetProtocols(ev.Peer)
			if err == nil {
				m.identified(ev.Peer, protocols)
			}
		}
	}
}

// close ends run and the pings.
func (m *members) close() {
	_ = m.sub.Close()
	<-m.done
	m.mu.Lock()
	for _, cancel := range m.pings {
		cancel()
	}
	m.pings = nil // from here on nobody comes up
	m.mu.Unlock()
	m.wg.Wait()
}

// identified says what a connected peer speaks. What it once spoke it goes on to speak, even if an
// older message that says otherwise comes late.
func (m *members) identified(id peer.ID, protocols []protocol.ID) {
	ours := false
	for _, p := range protocols {
		if s, ok := strings.CutPrefix(string(p), m.h.prefix); ok && !strings.HasPrefix(s, "kad/") {
			ours = true
			break
		}
	}
	if g := m.h.gatekeeper; g != nil && !g.gate.Admits(id) {
		ours = false // whatever it speaks; it is looked at again when it is admitted
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pings == nil {
		return
	}
	switch connected := m.h.connected(id); {
	case connected && ours && !m.spoken[id]:
		m.spoken[id] = true
		m.h.host.ConnManager().TagPeer(id, "grid", 10)
		ctx, cancel := context.WithCancel(m.h.ctx)
		m.pings[id] = cancel
		m.wg.Go(func() { m.h.watch(ctx, id) })
		m.h.roster.Up(id)
		m.h.keeper.remember(m.h.addrInfo(id), time.Now())
	case !connected && m.spoken[id]:
		m.down(id)
	}
	if !m.spoken[id] || m.differs[id] {
		return
	}
	if others := otherVersions(m.h.prefix, m.h.host.Mux().Protocols(), protocols); len(others) > 0 {
		m.differs[id] = true
		m.h.log.Warn("a node speaks other versions of protocols than this one, so they cannot do all things together",
			"peer", id, "theirs", others, "hint", "run the same version on all nodes; `grid version` prints it")
	}
}

// gone says that a peer had no connection a moment ago. If it is back already, that is an Up again.
func (m *members) gone(id peer.ID) {
	m.mu.Lock()
	if m.spoken[id] {
		m.down(id)
	}
	m.mu.Unlock()
	if m.h.connected(id) {
		if protocols, err := m.h.host.Peerstore().GetProtocols(id); err == nil {
			m.identified(id, protocols)
		}
	}
}

// down is called with the lock held.
func (m *members) down(id peer.ID) {
	delete(m.spoken, id)
	delete(m.differs, id)
	if cancel := m.pings[id]; cancel != nil {
		cancel()
		delete(m.pings, id)
	}
	m.h.host.ConnManager().UntagPeer(id, "grid")
	m.h.roster.Down(id)
	m.h.keeper.lost(id, time.Now())
}

// watch pings a member until ctx ends, and hangs up when it stays silent.
func (h *Host) watch(ctx context.Context, id peer.ID) {
	var s grid.Stream
	defer func() {
		if s != nil {
			_ = s.Reset()
		}
	}()
	stop := func() bool { return true }
	defer func() { stop() }()
	for misses := 0; ; {
		var err error
		if s == nil {
			var ns grid.Stream
			if ns, err = h.openConnected(ctx, id, pingProtocol, pingTimeout); err == nil {
				s = ns
				stop = context.AfterFunc(ctx, func() { _ = ns.Reset() })
			}
		}
		var rtt time.Duration
		if err == nil {
			rtt, err = ping(s)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			misses = 0
			h.host.Peerstore().RecordLatency(id, rtt)
		default:
			if s != nil {
				stop()
				_ = s.Reset()
				s = nil
			}
			if misses++; misses == pingMisses {
				h.log.Info("a peer has fallen silent", "peer", id, "err", err)
				_ = h.host.Network().ClosePeer(id)
				return
			}
			// A timeout has taken its time; anything else must not become a busy loop.
			if grid.CodeOf(err) == grid.Deadline {
				continue
			}
		}
		if !pause(ctx, jitter(pingEvery)) {
			return
		}
	}
}

// ping sends a few bytes and reads them back. The RTT of the first ping on a stream includes the
// protocol's negotiation.
func ping(s grid.Stream) (time.Duration, error) {
	start := time.Now()
	_ = s.SetDeadline(start.Add(pingTimeout))
	var sent, got [pingSize]byte
	binary.BigEndian.PutUint64(sent[:], uint64(start.UnixNano()))
	if _, err := s.Write(sent[:]); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(s, got[:]); err != nil {
		return 0, err
	}
	if got != sent {
		return 0, grid.Errorf(grid.Invalid, "p2p: a ping came back changed")
	}
	return time.Since(start), nil
}

// pong is the other end of ping.
func pong(_ context.Context, _ peer.ID, s grid.Stream) {
	var buf [pingSize]byte
	for {
		_ = s.SetDeadline(time.Now().Add(pingIdle))
		if _, err := io.ReadFull(s, buf[:]); err != nil {
			return
		}
		if _, err := s.Write(buf[:]); err != nil {
			return
		}
	}
}
