package p2p

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Within a local network TCP with TLS moves bytes several times faster than QUIC, and nothing needs
// punching; libp2p's own ranker prefers QUIC everywhere.
const (
	nextAddrDelay = 30 * time.Millisecond  // from one TCP address to the next
	localUDPDelay = 250 * time.Millisecond // from the last TCP address to the first other
)

// rankDials orders the addresses of one peer and says when to try each, counted from the first: on the
// local machine and network TCP first; elsewhere as libp2p does, and through
// relays only after half a second. An attempt that fails brings the next
// forward, and the first success ends the others.
func rankDials(addrs []ma.Multiaddr) []network.AddrDelay {
	var local, public, relayed []ma.Multiaddr
	for _, a := range addrs {
		if isCircuit(a) {
			relayed = append(relayed, a)
		} else if manet.IsPrivateAddr(a) || manet.IsIPLoopback(a) {
			local = append(local, a)
		} else {
			public = append(public, a)
		}
	}
	slices.SortStableFunc(local, func(a, b ma.Multiaddr) int { return cmp.Compare(localRank(a), localRank(b)) })
	ranked := make([]network.AddrDelay, 0, len(addrs))
	var at time.Duration
	for i, a := range local {
		switch {
		case i == 0:
		case isTCP(a):
			at += nextAddrDelay
		case isTCP(local[i-1]):
			at += localUDPDelay
		default:
			at += nextAddrDelay
		}
		ranked = append(ranked, network.AddrDelay{Addr: a, Delay: at})
	}
	ranked = append(ranked, swarm.DefaultDialRanker(public)...)
	wait := time.Duration(0)
	if len(ranked) > 0 {
		wait = swarm.RelayDelay
	}
	for _, r := range swarm.DefaultDialRanker(relayed) {
		ranked = append(ranked, network.AddrDelay{Addr: r.Addr, Delay: r.Delay + wait})
	}
	return ranked
}

// localRank puts TCP before the rest, and within each the loopback before the network: on this machine
// it works, and on another it fails at once.
func localRank(a ma.Multiaddr) int {
	rank := 0
	if !isTCP(a) {
		rank = 2
	}
	if !manet.IsIPLoopback(a) {
		rank++
	}
	return rank
}

func isTCP(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_TCP)
	return err == nil
}
