package p2p

import (
	"maps"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/libp2p/go-libp2p/x/rate"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p/internal/serve"
)

// Connections beyond high are trimmed down to low, the least useful first, once they are older than
// the grace period. Members of the swarm count as more useful than strangers.
const (
	lowConns  = 128
	highConns = 192
	connGrace = 20 * time.Second
)

func newConnManager() (*connmgr.BasicConnMgr, error) {
	return connmgr.NewConnManager(lowConns, highConns, connmgr.WithGracePeriod(connGrace))
}

// newResourceManager starts from libp2p's limits, which scale with the machine's memory, and raises what
// our traffic runs into: a stream for each request, and many nodes behind one address, be that one
// machine or a NAT. Memory limits stay, as they are what protects the node: large messages are
// reserved against them before they are read.
//
// The table of Kademlia is not ours, so what one peer may do there is bounded here.
func newResourceManager(kad protocol.ID) (network.ResourceManager, error) {
	scaled := rcmgr.DefaultLimits.AutoScale()
	conns := connsFor(scaled.ToPartialLimitConfig().System.Memory)
	in := conns / 4 * 3
	limits := rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{
			Conns: conns, ConnsInbound: in, ConnsOutbound: in,
			Streams: 32768, StreamsInbound: 16384, StreamsOutbound: 16384,
		},
		// Connections and streams that are still being negotiated.
		Transient: rcmgr.ResourceLimits{
			Conns: 768, ConnsInbound: 512, ConnsOutbound: 256, // one address must not take all of them
			Streams: 4096, StreamsInbound: 2048, StreamsOutbound: 2048,
		},
		ProtocolDefault: rcmgr.ResourceLimits{
			Streams: 16384, StreamsInbound: 8192, StreamsOutbound: 8192, Memory: 1 << 30,
		},
		ProtocolPeerDefault: rcmgr.ResourceLimits{
			Streams: 2048, StreamsInbound: 1024, StreamsOutbound: 1024, Memory: 256 << 20,
		},
		PeerDefault: rcmgr.ResourceLimits{
			Conns: 16, ConnsInbound: 8, ConnsOutbound: 8,
			Streams: 8192, StreamsInbound: 4096, StreamsOutbound: 4096, Memory: 256 << 20,
		},
		ProtocolPeer: map[protocol.ID]rcmgr.ResourceLimits{
			kad: {Streams: 128, StreamsInbound: 64, StreamsOutbound: 64, Memory: 32 << 20},
		},
	}
	const (
		perAddress = 256 // connections, also how many may come at once
		perSecond  = 8   // new connections that one address may go on to make
	)
	forever := rate.Limit{}
	perAddressRate := rate.Limit{RPS: perSecond, Burst: perAddress}
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits.Build(scaled)),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: perAddress}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: perAddress}, {PrefixLength: 48, ConnCount: 2 * perAddress}},
		),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			NetworkPrefixLimits: []rate.PrefixLimit{
				{Prefix: netip.MustParsePrefix("127.0.0.0/8"), Limit: forever},
				{Prefix: netip.MustParsePrefix("::1/128"), Limit: forever},
			},
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: perAddressRate}},
				IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: perAddressRate}},
				GracePeriod:      time.Minute,
			},
		}))
}

// connsFor is how many connections there may be with so many bytes for all of libp2p, of which one takes about 100 kB. The leader of a
// realm is connected to all of its nodes, and the owner of a job to all that run it.
func connsFor(memory rcmgr.LimitVal64) rcmgr.LimitVal {
	const each, least, most = 128 << 10, 1 << 10, 1 << 14
	return rcmgr.LimitVal(min(max(int64(memory)/each, least), most))
}

// withOwnRates adds the bounds of the protocols that are this package's own: a ping is opened once for each connection,
// and when it was lost.
func withOwnRates(rates map[grid.Protocol]grid.Rate) map[grid.Protocol]grid.Rate {
	all := map[grid.Protocol]grid.Rate{pingProtocol: {PerSecond: 10, Burst: 40, AtOnce: 16}}
	maps.Copy(all, rates)
	return all
}

// counting is a resource manager whose refusals are counted.
type counting struct {
	network.ResourceManager
	table *serve.Table
	gate  *gatekeeper // nil in an open swarm
}

// OpenConnection is told at network.ResourceManager.
func (c counting) OpenConnection(dir network.Direction, usefd bool, at ma.Multiaddr) (network.ConnManagementScope, error) {
	scope, err := c.ResourceManager.OpenConnection(dir, usefd, at)
	if err != nil && dir == network.DirInbound {
		c.table.RefusedAddress(ipOf(at), grid.RefusedConn)
	}
	return scope, err
}

// ipOf is the address in a multiaddr, for people.
func ipOf(at ma.Multiaddr) string {
	ip, err := manet.ToIP(at)
	if err != nil {
		return "unknown"
	}
	return ip.String()
}

// OpenStream is told at network.ResourceManager.
func (c counting) OpenStream(p peer.ID, dir network.Direction) (network.StreamManagementScope, error) {
	scope, err := c.ResourceManager.OpenStream(p, dir)
	if err != nil && dir == network.DirInbound {
		c.table.Refused(p, "", grid.RefusedAtOnce)
	}
	if err == nil && dir == network.DirOutbound && c.gate != nil && !c.gate.gate.Admits(p) {
		return discreet{scope, c.gate}, nil
	}
	return scope, err
}

// discreet is the scope of a stream to a stranger. libp2p tells whom it is connected to when this node speaks a new protocol or has
// a new address, on streams that it opens past the host; what those are for is first said here.
type discreet struct {
	network.StreamManagementScope
	g *gatekeeper
}

// SetProtocol is told at network.StreamManagementScope.
func (d discreet) SetProtocol(p protocol.ID) error {
	if p == identify.IDPush {
		d.g.hushed.Add(1)
		return grid.Errorf(grid.Denied, "p2p: strangers are told nothing")
	}
	return d.StreamManagementScope.SetProtocol(p)
}
