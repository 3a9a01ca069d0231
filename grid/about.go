package grid

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// protoAbout is how a node tells what it is, and what time it has: nothing, aboutMsg. Any node of the swarm may ask.
const protoAbout Protocol = "about/1"

type aboutMsg struct {
	Time    time.Time `cbor:"time"`
	Version string    `cbor:"version"`
	ABI     int       `cbor:"abi"`
	Go      string    `cbor:"go"`
	OS      string    `cbor:"os"`
	Arch    string    `cbor:"arch"`
}

func (n *Node) serveAbout() {
	serveCall(n, protoAbout, func(context.Context, peer.ID, struct{}) (aboutMsg, error) {
		return aboutMsg{time.Now().UTC(), Version, ABIVersion, runtime.Version(), runtime.GOOS, runtime.GOARCH}, nil
	})
}

// PeerAbout is what another node has answered when it was asked about itself.
type PeerAbout struct {
	PeerInfo
	Version string        `json:"version,omitempty"` // of grid
	ABI     int           `json:"abi,omitempty"`     // the newest version of the ABI for guests that it knows
	Go      string        `json:"go,omitempty"`      // the version of Go that it was built with
	OS      string        `json:"os,omitempty"`      // as Go names it
	Arch    string        `json:"arch,omitempty"`    // as Go names it
	Ahead   time.Duration `json:"clock_ahead_ns"`    // its clock is of this one's, less than half of Trip wrong
	Trip    time.Duration `json:"round_trip_ns"`     // of the question
	Error   string        `json:"error,omitempty"`   // why there is no answer; the rest is absent then
}

// Bounds on asking peers about themselves.
const (
	aboutPeers  = 64 // that are asked
	aboutAtOnce = 16
)

// AboutPeers asks the connected nodes about themselves, at most 64 of them.
func (n *Node) AboutPeers(ctx context.Context) []PeerAbout {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	peers := n.Network.Peers()
	out := make([]PeerAbout, min(len(peers), aboutPeers))
	var wg sync.WaitGroup
	room := make(chan struct{}, aboutAtOnce)
	for i := range out {
		out[i].PeerInfo = peers[i]
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			n.about(ctx, &out[i])
		})
	}
	wg.Wait()
	return out
}

func (n *Node) about(ctx context.Context, p *PeerAbout) {
	began := time.Now()
	m, err := call[aboutMsg](ctx, n, p.ID, protoAbout, struct{}{})
	if p.Trip = time.Since(began); err != nil {
		p.Error = clean(err.Error(), maxMessage)
		return
	}
	p.Ahead = m.Time.Sub(began.Add(p.Trip / 2))
	p.Version, p.ABI, p.Go = clean(m.Version, MaxName), m.ABI, clean(m.Go, MaxName)
	p.OS, p.Arch = clean(m.OS, MaxName), clean(m.Arch, MaxName)
}

// Reach tells how others can reach a node, as far as it was found out.
type Reach struct {
	// Reachability is "public", "private" behind a NAT or firewall, or "unknown".
	Reachability string   `json:"reachability"`
	Addrs        []string `json:"addrs"`            // that the node tells others
	Relays       []string `json:"relays,omitempty"` // of these, those that lead through another node
	// NAT is what is between the node and the outside: "none", "endpoint-independent", through which holes can be punched, "symmetric", through
	// which mostly not, "some" of which more is not known, or "".
	NAT      string      `json:"nat,omitempty"`
	Outside  []AddrReach `json:"outside,omitempty"` // its public addresses, and whether somebody got through to them
	Seen     []string    `json:"seen,omitempty"`    // from where others see its QUIC packets come
	PortMap  bool        `json:"port_map"`          // it asks the router to forward a port (UPnP, NAT-PMP)
	Relaying bool        `json:"relaying"`          // it carries connections between others
	Circuits int         `json:"circuits"`          // so many
	Relayed  int         `json:"relayed_peers"`     // peers to which it has no direct connection
	MDNS     bool        `json:"mdns"`              // it looks for nodes on the local network
	Nearby   bool        `json:"nearby"`            // and on this machine
	Fixed    int         `json:"bootstrap_peers"`   // nodes that it was told to join
}

// AddrReach is whether nodes outside got through to an address: "reachable", "unreachable" or "unknown".
type AddrReach struct {
	Addr  string `json:"addr"`  // a multiaddr of this node
	State string `json:"state"` // "reachable", "unreachable" or "unknown"
}

// Relayed are those of some multiaddrs that lead through another node.
func Relayed(addrs []string) []string {
	return slices.DeleteFunc(slices.Clone(addrs), func(a string) bool { return !strings.Contains(a, "/p2p-circuit") })
}

// Checkup is what a running node knows that tells whether all is well with it.
type Checkup struct {
	Peers []PeerAbout `json:"peers"`           // the nodes that are connected
	Reach *Reach      `json:"reach,omitempty"` // nil for a node without a network
}
