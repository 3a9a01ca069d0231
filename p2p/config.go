package p2p

import (
	"log/slog"
	"strconv"
	"strings"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wasmgrid/wasmgrid/grid"
)

// DefaultSwarm is the swarm of nodes that were told no other.
const DefaultSwarm = "default"

// DefaultPort is where a node listens, on TCP and on UDP, if the port is free.
const DefaultPort = 4747

// Config says how a node takes part in its swarm. Only Identity is required.
type Config struct {
	// Identity is the node's key; see LoadIdentity.
	Identity crypto.PrivKey
	// Swarm is the name of the swarm, "" for DefaultSwarm: 1 to 32 lower-case letters, digits and
	// dashes. It is part of every protocol's name, so nodes of two swarms do not understand each
	// other. It is no secret and keeps nobody out.
	Swarm string
	// Listen are the multiaddrs to listen on; any that cannot be had is an error. When there are
	// none, it is TCP and QUIC on all interfaces, at DefaultPort or, if that is taken, at any port.
	Listen []string
	// Bootstrap are multiaddrs with /p2p/ID of nodes to join through; they are dialled again
	// whenever they are lost. None are needed where MDNS or Nearby find somebody.
	Bootstrap []string
	// MDNS finds nodes on the local network by multicast. Where that is impossible, nothing happens.
	MDNS bool
	// Nearby is a folder where the nodes of one user on one machine find each other; "" for none.
	// It is made if it is not there, and must be the user's own and closed to others.
	Nearby string
	// PeerFile is where the addresses of peers are remembered between runs; "" for nowhere.
	PeerFile string
	// Announce are multiaddrs at which others reach this node though it does not listen there itself, as where a router
	// forwards a port to it.
	Announce []string
	// PortMap asks the router, by UPnP or NAT-PMP, to forward a port to this node.
	PortMap bool
	// Relay is whether this node carries connections between others.
	Relay Relaying
	// Gate decides who takes part, so that the swarm is closed; nil: whoever knows its name.
	Gate Gate
	// PSK is a pre-shared key, 32 bytes, without which nobody so much as speaks to this node; nil: none. It halves the
	// throughput and leaves no transport but TCP.
	PSK pnet.PSK
	// Guard refuses a conversation that a peer may not begin here, in a swarm that has no Gate; nil: none. It must not block.
	Guard func(from peer.ID, p grid.Protocol) error
	// JoinAs is the name of the private swarm under which JoinProtocol is spoken, if that is another one than Swarm.
	JoinAs string
	// Rates bound what one peer may begin with this node, by protocol. What is not listed has no bound but those
	// that hold for all protocols together.
	Rates map[grid.Protocol]grid.Rate
	// Slow makes connections worse than they are, to try things out; the zero value: not.
	Slow Slow
	// Metrics is where libp2p registers what it measures; nil: it does not.
	Metrics prometheus.Registerer
	// Logger is told what goes on; nil for nobody.
	Logger *slog.Logger
}

// Bounds on what we take from a configuration.
const (
	maxSwarm     = 32
	maxBootstrap = 256
	maxListen    = 32
	maxAnnounce  = 16
)

// settings is a Config that has been checked and parsed.
type settings struct {
	id        peer.ID
	swarm     string
	listen    []ma.Multiaddr // none: the default
	announce  []ma.Multiaddr
	bootstrap []peer.AddrInfo
}

func (c *Config) check() (s settings, err error) {
	if c.Identity == nil {
		return s, grid.Errorf(grid.Invalid, "p2p: no identity is configured").Hint("LoadIdentity makes one")
	}
	if s.id, err = peer.IDFromPrivateKey(c.Identity); err != nil {
		return s, grid.Errorf(grid.Invalid, "p2p: the identity: %w", err)
	}
	if s.swarm = c.Swarm; s.swarm == "" {
		s.swarm = DefaultSwarm
	}
	if err := checkSwarm(s.swarm); err != nil {
		return s, err
	}
	if len(c.Bootstrap) > maxBootstrap || len(c.Listen) > maxListen {
		return s, grid.Errorf(grid.Limit, "p2p: %d bootstrap and %d listen addresses, at most %d and %d are allowed",
			len(c.Bootstrap), len(c.Listen), maxBootstrap, maxListen)
	}
	if s.listen, err = parseListen(c.Listen); err != nil {
		return s, err
	}
	if err := checkPSK(c.PSK, s.listen); err != nil {
		return s, err
	}
	if err := c.Slow.check(s.listen); err != nil {
		return s, err
	}
	if s.announce, err = parseAnnounce(c.Announce, s.id); err != nil {
		return s, err
	}
	for _, a := range c.Bootstrap {
		info, err := parsePeerAddr(a)
		if err != nil {
			return s, err
		}
		if info.ID != s.id { // one list may serve all nodes
			s.bootstrap = append(s.bootstrap, info)
		}
	}
	return s, nil
}

func parseListen(addrs []string) (parsed []ma.Multiaddr, err error) {
	for _, a := range addrs {
		m, err := ma.NewMultiaddr(a)
		if err != nil {
			return nil, grid.Errorf(grid.Invalid, "p2p: listen address %q: %w", a, err).
				Hint("write it like /ip4/0.0.0.0/tcp/%d", DefaultPort)
		}
		parsed = append(parsed, m)
	}
	return parsed, nil
}

// parseAnnounce reads addresses of this node, which may end with its ID.
func parseAnnounce(addrs []string, self peer.ID) (parsed []ma.Multiaddr, err error) {
	if len(addrs) > maxAnnounce {
		return nil, grid.Errorf(grid.Limit, "p2p: %d addresses to announce, at most %d are allowed", len(addrs), maxAnnounce)
	}
	for _, text := range addrs {
		bad := func(why string) error {
			return grid.Errorf(grid.Invalid, "p2p: announced address %.200q: %s", text, why).Hint("write it like /ip4/203.0.113.7/tcp/%d or /ip4/203.0.113.7/udp/%d/quic-v1", DefaultPort, DefaultPort)
		}
		a, err := ma.NewMultiaddr(text)
		if err != nil {
			return nil, bad(err.Error())
		}
		a, id := peer.SplitAddr(a)
		switch {
		case id != "" && id != self:
			return nil, bad("it is another node's")
		case len(a) == 0 || isCircuit(a) || !isTCP(a) && !isQUIC(a):
			return nil, bad("it is neither of TCP nor of QUIC")
		case isIP(a) && manet.IsIPUnspecified(a):
			return nil, bad("nobody reaches that")
		}
		parsed = append(parsed, a)
	}
	return parsed, nil
}

func isIP(a ma.Multiaddr) bool {
	_, err := manet.ToIP(a)
	return err == nil
}

func checkSwarm(s string) error {
	ok := len(s) >= 1 && len(s) <= maxSwarm && s[0] != '-' && s[len(s)-1] != '-' &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
	if !ok {
		return grid.Errorf(grid.Invalid, "p2p: swarm name %q: want 1 to %d lower-case letters, digits and inner dashes", s, maxSwarm)
	}
	return nil
}

// parsePeerAddr reads a multiaddr that says where a peer is and who it is.
func parsePeerAddr(s string) (peer.AddrInfo, error) {
	const maxAddr = 1 << 10
	bad := func(err error) (peer.AddrInfo, error) {
		return peer.AddrInfo{}, grid.Errorf(grid.Invalid, "p2p: peer address %s: %w", strconv.Quote(s[:min(len(s), 200)]), err).
			Hint("write it like /ip4/192.0.2.1/tcp/%d/p2p/12D3Koo...; `grid status` on that node prints it", DefaultPort)
	}
	if len(s) > maxAddr {
		return bad(grid.Errorf(grid.Limit, "longer than %d bytes", maxAddr))
	}
	m, err := ma.NewMultiaddr(s)
	if err != nil {
		return bad(err)
	}
	info, err := peer.AddrInfoFromP2pAddr(m)
	if err != nil {
		return bad(err)
	}
	if len(info.Addrs) == 0 {
		return bad(grid.Errorf(grid.Invalid, "it names a peer but not where it is"))
	}
	return *info, nil
}
