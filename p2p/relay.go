package p2p

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/time/rate"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Relaying says whether a node carries the connections of others that cannot reach each other.
type Relaying int

// The node relays when it has found out that nodes outside reach it; always; never.
const (
	RelayAuto Relaying = iota
	RelayOn
	RelayOff
)

// ParseRelaying reads auto, on or off.
func ParseRelaying(s string) (Relaying, error) {
	switch s {
	case "auto":
		return RelayAuto, nil
	case "on":
		return RelayOn, nil
	case "off":
		return RelayOff, nil
	}
	return 0, grid.Errorf(grid.Invalid, "p2p: relay %.20q: want auto, on or off", s)
}

// relayLimits bound what a node does for others. libp2p's own end a circuit after 2 minutes or 128 KiB: enough to punch a
// hole by, not to work over where that fails.
type relayLimits struct {
	reservations int // of nodes that are reached through this one
	perAddress   int // of these behind one IP address
	circuits     int // that begin or end at one node
	all          int // circuits
	lasts        time.Duration
	bytes        int64 // of one circuit, each way
	rate, total  int   // bytes/s of one circuit, each way, and of all
}

// Members of a private swarm are trusted, and a circuit that ends interrupts work. In an open swarm the users may be anybody.
var (
	memberRelay = relayLimits{
		reservations: 256, perAddress: 64, circuits: 64, all: 512,
		lasts: 12 * time.Hour, bytes: 64 << 30, rate: 8 << 20, total: 64 << 20,
	}
	openRelay = relayLimits{
		reservations: 128, perAddress: 16, circuits: 16, all: 256,
		lasts: time.Hour, bytes: 1 << 30, rate: 1 << 20, total: 8 << 20,
	}
)

// What a stranger's circuit may carry, so that it can join a private swarm through a member that has no other address: a
// request, and the answer to it. Its connection ends it after strangerTime.
const (
	strangerCircuits    = 2 // of one stranger
	maxStrangerCircuits = 16
	strangerSends       = 256 << 10
	strangerGets        = 4 << 20
	relayBuffer         = 32 << 10
	reservationTTL      = time.Hour
)

// relayService carries circuits between other nodes while it is on.
type relayService struct {
	h      *Host
	limits relayLimits
	total  *rate.Limiter

	mu        sync.Mutex
	service   *relay.Relay // nil while it is off
	closed    bool
	circuits  int // streams that ask for a circuit or a reservation, or are one
	strangers map[peer.ID]int
	strange   int
}

func newRelayService(h *Host) *relayService {
	limits := openRelay
	if h.gatekeeper != nil {
		limits = memberRelay
	}
	return &relayService{h: h, limits: limits, total: pace(limits.total), strangers: make(map[peer.ID]int)}
}

// pace is so many bytes a second, and a quarter of that at once.
func pace(n int) *rate.Limiter { return rate.NewLimiter(rate.Limit(n), max(n/4, relayBuffer)) }

// set turns the relay on or off. Circuits that there are go on.
func (r *relayService) set(on bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if on == (r.service != nil) || on && r.closed {
		return nil
	}
	if !on {
		err := r.service.Close()
		r.service = nil
		return err
	}
	l := r.limits
	service, err := relay.New(relayHost{r.h.host, r}, append(r.h.metrics.relaying(), relay.WithACL(r), relay.WithReservationAddressFilter(func(ma.Multiaddr) bool { return true }),
		relay.WithResources(relay.Resources{
			Limit: &relay.RelayLimit{Duration: l.lasts, Data: l.bytes}, ReservationTTL: reservationTTL,
			MaxReservations: l.reservations, MaxCircuits: l.circuits, BufferSize: relayBuffer,
			MaxReservationsPerPeer: 1, MaxReservationsPerIP: l.perAddress, MaxReservationsPerASN: l.reservations,
		}))...)
	if err != nil {
		return grid.Errorf(grid.Internal, "p2p: start the relay: %w", err)
	}
	r.service = service
	return nil
}

// close turns the relay off for good.
func (r *relayService) close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	return r.set(false)
}

// on reports whether the relay is, and how many circuits it carries.
func (r *relayService) on() (on bool, circuits int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.service != nil, r.circuits
}

// AllowReserve is told at relay.ACLFilter: only members are reached through this node. One that has just connected may be known as such in a
// moment.
func (r *relayService) AllowReserve(id peer.ID, _ ma.Multiaddr) bool {
	if g := r.h.gatekeeper; g != nil {
		return g.await(r.h.ctx, id) == nil
	}
	return r.h.roster.Has(id)
}

// AllowConnect is told at relay.ACLFilter. A stranger may, if little: to join.
func (r *relayService) AllowConnect(_ peer.ID, _ ma.Multiaddr, to peer.ID) bool {
	return !r.isStranger(to)
}

// isStranger reports whether a peer is no member of a private swarm.
func (r *relayService) isStranger(id peer.ID) bool {
	return r.h.gatekeeper != nil && !r.h.gatekeeper.gate.Admits(id)
}

// relayHost is a host whose streams are as slow and as few as the relay's limits say.
type relayHost struct {
	host.Host
	r *relayService
}

// SetStreamHandler is told at host.Host.
func (h relayHost) SetStreamHandler(p protocol.ID, f network.StreamHandler) {
	h.Host.SetStreamHandler(p, func(s network.Stream) {
		c, err := h.r.begin(s)
		if err != nil {
			h.r.h.table.Refused(s.Conn().RemotePeer(), "relay", grid.RefusedAtOnce)
			_ = s.Reset()
			return
		}
		f(c)
	})
}

// NewStream is told at host.Host.
func (h relayHost) NewStream(ctx context.Context, to peer.ID, protocols ...protocol.ID) (network.Stream, error) {
	s, err := h.Host.NewStream(ctx, to, protocols...)
	if err != nil {
		return nil, err
	}
	return h.r.shape(s), nil
}

var errFull = grid.Errorf(grid.Busy, "p2p: there are too many circuits")

// begin counts a stream that a peer has opened for a circuit.
func (r *relayService) begin(s network.Stream) (*relayed, error) {
	from := s.Conn().RemotePeer()
	stranger := r.isStranger(from)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.circuits >= r.limits.all || stranger && (r.strangers[from] >= strangerCircuits || r.strange >= maxStrangerCircuits) {
		return nil, errFull
	}
	r.circuits++
	if stranger {
		r.strange++
		r.strangers[from]++
	}
	c := r.shape(s)
	c.end = sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.circuits--; !stranger {
			return
		}
		r.strange--
		if r.strangers[from]--; r.strangers[from] == 0 {
			delete(r.strangers, from)
		}
	})
	if stranger {
		c.stranger = func() bool { return r.isStranger(from) }
	}
	return c, nil
}

func (r *relayService) shape(s network.Stream) *relayed {
	return &relayed{Stream: s, r: r, pace: pace(r.limits.rate), end: func() {}}
}

// relayed is one half of a circuit, for one reader and one writer. What is read waits until the pace allows it on.
type relayed struct {
	network.Stream
	r         *relayService
	pace      *rate.Limiter
	end       func()
	stranger  func() bool // nil: it was a member from the beginning
	got, sent int64
}

// Read is told at io.Reader.
func (c *relayed) Read(p []byte) (int, error) {
	n, err := c.Stream.Read(p[:min(len(p), relayBuffer)])
	if n == 0 {
		return n, err
	}
	if c.got += int64(n); c.got > strangerSends && c.stranger != nil && c.stranger() {
		return 0, io.ErrShortBuffer
	}
	for _, l := range []*rate.Limiter{c.pace, c.r.total} {
		if e := l.WaitN(c.r.h.ctx, n); e != nil {
			return 0, e
		}
	}
	return n, err
}

// Write is told at io.Writer.
func (c *relayed) Write(p []byte) (int, error) {
	if c.sent += int64(len(p)); c.sent > strangerGets && c.stranger != nil && c.stranger() {
		return 0, io.ErrShortWrite
	}
	return c.Stream.Write(p)
}

// Close and Reset are told at network.Stream.
func (c *relayed) Close() error {
	c.end()
	return c.Stream.Close()
}

// Reset is told at Close.
func (c *relayed) Reset() error {
	c.end()
	return c.Stream.Reset()
}

// through is the relay that a multiaddr leads through, "" for a direct one.
func through(a ma.Multiaddr) peer.ID {
	before, after := ma.SplitFunc(a, func(c ma.Component) bool { return c.Protocol().Code == ma.P_CIRCUIT })
	if len(after) == 0 {
		return ""
	}
	id, _ := peer.IDFromP2PAddr(before)
	if id == "" {
		return "?"
	}
	return id
}

func isCircuit(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_CIRCUIT)
	return err == nil
}

// direct are the addresses that lead through nobody.
func direct(addrs []ma.Multiaddr) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, a := range addrs {
		if !isCircuit(a) {
			out = append(out, a)
		}
	}
	return out
}

// hopProtocol is how a relay is asked for a reservation or a circuit.
const hopProtocol = proto.ProtoIDv2Hop

// bare is a host for strangers: it connects and opens streams without the wait for what the peer says of itself, which it
// says to members only.
type bare struct{ host.Host }

// Connect is told at host.Host.
func (h bare) Connect(ctx context.Context, info peer.AddrInfo) error {
	h.Peerstore().AddAddrs(info.ID, info.Addrs, addrTTL)
	_, err := h.Network().DialPeer(ctx, info.ID)
	return err
}

// NewStream is told at host.Host. It takes the first protocol.
func (h bare) NewStream(ctx context.Context, to peer.ID, protocols ...protocol.ID) (network.Stream, error) {
	c, err := h.Network().DialPeer(ctx, to)
	if err != nil {
		return nil, err
	}
	return bareStream(ctx, c, protocols[0])
}
