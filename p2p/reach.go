package p2p

import (
	"strings"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Reach tells how others can reach this node: what libp2p has found out by asking them (AutoNAT), and the addresses that it
// tells them.
func (h *Host) Reach() grid.Reach {
	r := grid.Reach{Reachability: "unknown", Addrs: h.Addrs(), MDNS: h.multicast != nil}
	r.Relays = grid.Relayed(r.Addrs)
	sub, err := h.host.EventBus().Subscribe(new(event.EvtLocalReachabilityChanged), eventbus.Name("grid/reach"))
	if err != nil {
		return r
	}
	defer sub.Close()
	select {
	case e := <-sub.Out(): // the last one is kept for those who come later
		if c, ok := e.(event.EvtLocalReachabilityChanged); ok {
			r.Reachability = strings.ToLower(c.Reachability.String())
		}
	default:
	}
	return r
}
