package p2p

import (
	"bytes"
	"context"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/tcpreuse"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Slow makes the connections that a node dials worse than they are, both ways, to try a swarm out as if its nodes were far apart. It
// needs nothing of the operating system. Where all nodes of a swarm are slow, each connection is once, by whoever dialled it. There
// is no QUIC then.
type Slow struct {
	Latency time.Duration // added to the way of each byte, so that a round trip takes twice as long
	Jitter  time.Duration // by up to so much more or less; bytes stay in order
	// Loss is the part of packets that get lost, below 1. As with TCP they arrive all the same, after another try, and what is behind
	// them waits.
	Loss float64
}

// Bounds on how slow a connection can be: with more, whatever waits for an answer would give up.
const (
	MaxLatency = 5 * time.Second
	MaxLoss    = 0.5
)

// Bytes are on their way in pieces, of which there are at most so many.
const (
	slowPiece  = 16 << 10
	slowPieces = 1024
	slowPacket = 1460                   // bytes
	slowRetry  = 200 * time.Millisecond // what TCP waits at least until it sends again
)

func (s *Slow) check(listen []ma.Multiaddr) error {
	switch {
	case s.on() && slices.ContainsFunc(listen, isQUIC):
		return grid.Errorf(grid.Invalid, "p2p: a node that is slow on purpose has no QUIC, and is to listen for it").Hint("leave out the addresses with /quic-v1, or the latency")
	case s.Latency < 0 || s.Latency > MaxLatency:
		return grid.Errorf(grid.Invalid, "p2p: latency %v: want 0 to %v", s.Latency, MaxLatency)
	case s.Jitter < 0 || s.Jitter > s.Latency:
		return grid.Errorf(grid.Invalid, "p2p: jitter %v: want 0 to the latency, %v", s.Jitter, s.Latency)
	case !(s.Loss >= 0 && s.Loss <= MaxLoss):
		return grid.Errorf(grid.Invalid, "p2p: loss %v: want 0 to %v", s.Loss, MaxLoss)
	}
	return nil
}

func (s *Slow) on() bool { return *s != Slow{} }

// tcp is the transport of TCP.
func (s Slow) tcp() libp2p.Option {
	// Sharing a port between processes would let a second node listen where the first does and take half of its
	// connections. It is meant for punching holes with TCP, for which QUIC alone is good enough.
	alone := tcp.DisableReuseport()
	if !s.on() {
		return libp2p.Transport(tcp.NewTCPTransport, alone)
	}
	return libp2p.Transport(func(u transport.Upgrader, limits network.ResourceManager, shared *tcpreuse.ConnMgr) (*tcp.TcpTransport, error) {
		return tcp.NewTCPTransport(slowUpgrader{u, s}, limits, shared, alone)
	})
}

// slowUpgrader makes connections slow before they are secured.
type slowUpgrader struct {
	transport.Upgrader
	slow Slow
}

// Upgrade is told at transport.Upgrader.
func (u slowUpgrader) Upgrade(ctx context.Context, t transport.Transport, c manet.Conn, dir network.Direction, p peer.ID, scope network.ConnManagementScope) (transport.CapableConn, error) {
	if dir == network.DirOutbound {
		select { // there and back: the kernel has connected in no time
		case <-time.After(u.slow.delay(1) + u.slow.delay(1)):
		case <-ctx.Done():
			_ = c.Close()
			return nil, ctx.Err()
		}
		c = u.slow.conn(c)
	}
	return u.Upgrader.Upgrade(ctx, t, c, dir, p, scope)
}

// delay is how long a piece of so many bytes takes.
func (s *Slow) delay(size int) time.Duration {
	d := s.Latency
	if s.Jitter > 0 {
		d += time.Duration(rand.Int64N(2*int64(s.Jitter)+1)) - s.Jitter
	}
	if s.Loss > 0 {
		packets := float64((size + slowPacket - 1) / slowPacket)
		if rand.Float64() >= math.Pow(1-s.Loss, packets) {
			d += max(slowRetry, 3*s.Latency)
		}
	}
	return d
}

// slowConn is one end of a pipe, whose other end is carried to and from a connection in its own time.
type slowConn struct {
	net.Conn
	far manet.Conn
}

func (c slowConn) LocalAddr() net.Addr           { return c.far.LocalAddr() }
func (c slowConn) RemoteAddr() net.Addr          { return c.far.RemoteAddr() }
func (c slowConn) LocalMultiaddr() ma.Multiaddr  { return c.far.LocalMultiaddr() }
func (c slowConn) RemoteMultiaddr() ma.Multiaddr { return c.far.RemoteMultiaddr() }

// conn makes a connection slow. Its goroutines end soon after either end has closed.
func (s *Slow) conn(far manet.Conn) manet.Conn {
	near, end := net.Pipe()
	go s.carry(far, end)
	go s.carry(end, far)
	return slowConn{near, far}
}

// piece is bytes on their way.
type piece struct {
	data []byte
	due  time.Time
}

// carry moves bytes from one connection to another until one of them ends, and then ends the other, once what was under way is there.
func (s *Slow) carry(to, from net.Conn) {
	way := make(chan piece, slowPieces)
	go func() {
		defer close(way)
		buf, last := make([]byte, slowPiece), time.Time{}
		for {
			n, err := from.Read(buf)
			if n > 0 {
				if due := time.Now().Add(s.delay(n)); due.After(last) {
					last = due
				}
				way <- piece{bytes.Clone(buf[:n]), last}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range way {
		if wait := time.Until(p.due); wait > 0 {
			time.Sleep(wait)
		}
		if _, err := to.Write(p.data); err != nil {
			_ = from.Close() // so that its reader ends
		}
	}
	_ = to.Close()
	_ = from.Close()
}
