package grid

import (
	"context"
	"io"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Protocol names one conversation between nodes, for example "steal/1". The network adds the swarm's
// prefix, so that nodes of two swarms never understand each other by accident.
type Protocol string

// MaxMessage is the largest request or reply of a [Network.Call], in bytes.
const MaxMessage = 8 << 20

// Network is the swarm as one node sees it. It is safe for concurrent use.
type Network interface {
	// Self is this node's identity.
	Self() peer.ID
	// Peers lists the nodes of the swarm that are connected now and speak the grid's protocols,
	// sorted by ID.
	Peers() []PeerInfo
	// Subscribe calls f for each peer that comes or goes, in order, one call at a time, beginning
	// with an Up for each peer present. f must not block. The returned function ends it.
	Subscribe(f func(PeerEvent)) (stop func())

	// Call sends one request and waits for the one reply. An error of the remote handler comes back
	// with its code and message; a peer that cannot be reached gives Unavailable. Without a
	// deadline in ctx the network sets one of its own.
	Call(ctx context.Context, to peer.ID, p Protocol, req []byte) ([]byte, error)
	// Serve answers calls with f, each on its own goroutine, at most a bounded number per peer.
	// It panics when p is taken.
	Serve(p Protocol, f func(ctx context.Context, from peer.ID, req []byte) ([]byte, error))

	// Open starts a byte stream for bulk data.
	Open(ctx context.Context, to peer.ID, p Protocol) (Stream, error)
	// Handle serves streams with f, each on its own goroutine; the stream is closed when f returns.
	// ctx ends when the network closes.
	Handle(p Protocol, f func(ctx context.Context, from peer.ID, s Stream))

	// Provide announces that this node holds the DAG of root. Providers finds who announced one, at
	// most n of them, best known first.
	Provide(ctx context.Context, root cid.Cid) error
	Providers(ctx context.Context, root cid.Cid, n int) ([]peer.ID, error)
}

// Stream is one conversation in bytes with one peer.
type Stream interface {
	io.Reader
	io.Writer
	// CloseWrite says that nothing more will be written; reading goes on.
	CloseWrite() error
	// Close ends both directions in good order; Reset tells the peer that something went wrong.
	Close() error
	Reset() error
	SetDeadline(time.Time) error
}

// PeerInfo describes a connected node.
type PeerInfo struct {
	ID        peer.ID       `json:"id"`              // its peer ID
	Addrs     []string      `json:"addrs"`           // multiaddrs of the open connections
	Transport string        `json:"transport"`       // "tcp", "quic-v1", "relay", "memory"
	Relay     string        `json:"relay,omitempty"` // the node through which it is reached; "" when directly
	RTT       time.Duration `json:"rtt_ns"`          // smoothed; 0 when not measured yet
	Since     time.Time     `json:"since"`           // when the first of the open connections was made
	// Realm says whose realm it is of: "ours", or the ID of another that it has proved to be of. "": not known.
	Realm string `json:"realm,omitempty"`
	// Standing is how its results have done where they were compared with others'; nil where none were.
	Standing *Standing `json:"standing,omitempty"`
}

// PeerEvent says that a peer came (Up) or went.
type PeerEvent struct {
	Peer peer.ID
	Up   bool
}
