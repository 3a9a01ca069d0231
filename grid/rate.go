package grid

import "github.com/libp2p/go-libp2p/core/peer"

// Rate bounds what one peer may begin with a node by one protocol. The zero Rate bounds nothing.
type Rate struct {
	// PerSecond is how many calls or streams a peer may begin, on average; 0: any number.
	PerSecond float64
	// Burst is how many it may begin at once after a pause; at least 1 when PerSecond is not 0.
	Burst int
	// AtOnce is how many of its calls or streams may go on at the same time; 0: as many as the network allows of all
	// protocols together.
	AtOnce int
}

// Why a node refused something that a peer asked for. Others are the codes of errors that handlers answered with.
const (
	RefusedRate      = "rate"      // more than its [Rate] allows
	RefusedAtOnce    = "at once"   // too much goes on at the same time, for it or for all
	RefusedMalformed = "malformed" // the bytes are no message
	RefusedSlow      = "slow"      // the message did not come in time, or the reply was not taken
	RefusedConn      = "connection"
	RefusedMemory    = "memory" // no room for its messages
	RefusedReset     = "reset"  // it hung up in the middle
)

// Refusal counts what a node has refused a peer for one reason.
type Refusal struct {
	From     string   `json:"from"`     // the peer, the network address of one that is not known, or "" for all that are too many to tell apart
	Protocol Protocol `json:"protocol"` // "" for connections
	Reason   string   `json:"reason"`   // in words
	Count    uint64   `json:"count"`    // how often, since the node was started
}

// Blamer is a [Stream] of a network that counts what its peers do wrong.
type Blamer interface {
	Stream
	Blame(err error)
}

// Blame tells the network that what came on a stream was wrong, or was refused. It changes nothing about the stream.
func Blame(s Stream, err error) {
	if b, ok := s.(Blamer); ok && err != nil {
		b.Blame(err)
	}
}

// mostTied bounds whom Tied names: somebody else may be many who ask for work.
const mostTied = 64

// Tied lists peers with which this node has leases in common, first those whose tasks it runs or keeps, then those that
// were given some of its own jobs that run. Connections to them are worth keeping.
func (n *Node) Tied() []peer.ID {
	seen := map[peer.ID]struct{}{n.self: {}}
	var ids []peer.ID
	add := func(id peer.ID) {
		if _, ok := seen[id]; !ok && len(ids) < mostTied {
			seen[id] = struct{}{}
			ids = append(ids, id)
		}
	}
	for _, l := range append(n.busy.leases(), n.parking.leases()...) {
		add(l.Owner)
	}
	for _, job := range n.given.jobs(n.self) {
		if n.job(rootJob(job)) == nil {
			continue
		}
		to, _ := n.given.of(job, n.self)
		for _, id := range to {
			add(id)
		}
	}
	return ids
}

// jobs lists those of an owner's of which leases were given.
func (g *given) jobs(owner peer.ID) (ids []JobID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for k := range g.to {
		if k.owner == owner {
			ids = append(ids, k.job)
		}
	}
	return ids
}
