package p2p

import (
	"time"

	"github.com/libp2p/go-libp2p/p2p/net/swarm"
)

// Hurry has a host wait for requests no longer than d.
func (h *Host) Hurry(d time.Duration) { h.requestBy = d }

// Hide has a host listen nowhere any more, as if a NAT were before it: others reach it through relays only.
func (h *Host) Hide() {
	s := h.host.Network().(*swarm.Swarm)
	s.ListenClose(direct(s.ListenAddresses())...)
}
