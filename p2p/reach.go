package p2p

import (
	"cmp"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Reach tells how others can reach this node: what it has found out by asking members (AutoNAT) and seeing who comes, and
// the addresses that it tells them.
func (h *Host) Reach() grid.Reach {
	r := grid.Reach{Reachability: "unknown", Addrs: h.Addrs(), MDNS: h.multicast != nil}
	r.Relays = grid.Relayed(r.Addrs)
	if h.outlook != nil {
		h.outlook.reach(&r)
	}
	return r
}

// byUse sorts addresses by how likely it is that somebody far away can use them: public ones, those by relays, those of the local
// network, and those of this machine.
func byUse(addrs []ma.Multiaddr) []ma.Multiaddr {
	rank := func(a ma.Multiaddr) int {
		switch {
		case isCircuit(a):
			return 1
		case manet.IsPublicAddr(a):
			return 0
		case manet.IsIPLoopback(a):
			return 3
		}
		return 2
	}
	addrs = slices.Clone(addrs)
	slices.SortStableFunc(addrs, func(a, b ma.Multiaddr) int { return cmp.Compare(rank(a), rank(b)) })
	return addrs
}

// Contacts are the addresses of this node, and of up to most other nodes that it knows, with /p2p/ID: those first that serve
// somebody far away.
func (h *Host) Contacts(most int) []string {
	var out []string
	add := func(id peer.ID, addrs []ma.Multiaddr, n int) {
		for _, a := range byUse(addrs)[:min(len(addrs), n)] {
			if len(out) < most {
				out = append(out, a.String()+"/p2p/"+id.String())
			}
		}
	}
	add(h.id, h.host.Addrs(), max(most/2, 1))
	for _, r := range h.keeper.list() {
		add(r.ID, r.Addrs, 2)
	}
	return out
}
