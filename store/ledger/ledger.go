package ledger

import (
	"context"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Config is what a ledger needs. Network and Dir must be given.
type Config struct {
	Network grid.Network
	// Dir is the folder of the replica: its log, its vote and its snapshots.
	Dir string
	// Timing of elections and calls; zero fields take their defaults.
	Timing Timing
	// Logger hears of elections, members that come and go, and faults; nil: nobody does.
	Logger *slog.Logger
}

// Timing is how patient a ledger's replicas are with one another. All replicas of a realm need the same.
type Timing struct {
	// Election is for how long a voter hears nothing of the leader before it asks for votes; it asks after once
	// to twice that. 250 ms suits a LAN, 1 to 2 s a WAN. Default 250 ms.
	Election time.Duration
}

// Ledger is the ledger of a realm, as one of its nodes sees it.
type Ledger struct {
	cfg   Config
	hooks hooks
}

var _ grid.Ledger = (*Ledger)(nil)

// identity is the realm that a ledger is of.
type identity struct {
	Name string
	ID   string // drawn when it was founded, 1 to 64 bytes
}

// hello is how a node introduces itself on a stream of raft/1.
type hello struct {
	Realm       string `cbor:"realm"`       // its ID
	Incarnation uint64 `cbor:"incarnation"` // of the sender's replica: grows whenever it begins with an empty folder
}

// hooks are what the ledger asks of those who know the realm's members. All of them may be called by many
// goroutines at once and must not block; nil ones allow everything.
type hooks struct {
	// incarnation is what this node says of itself in a hello.
	incarnation func() uint64
	// admit decides whether a replica may speak raft/1 with this node. Its realm has been checked. The error goes to the replica.
	admit func(from peer.ID, h hello) error
	// serve decides whether a node may use the ledger through this node. Its realm has been checked. The error goes to the node.
	serve func(from peer.ID) error
}

// server is a replica, by the newest configuration that this node knows.
type server struct {
	ID    peer.ID
	Voter bool
}

// progress is what a leader knows of a replica.
type progress struct {
	Applied uint64        // last log index that it is known to have
	Heard   time.Duration // since it last answered; of this node itself 0
}

// Open opens a ledger that is a client without replicas: somebody must tell it what to be.
func Open(ctx context.Context, cfg Config) (*Ledger, error) { return &Ledger{cfg: cfg}, nil }

// Close ends it and waits for all of it. A leader hands its office over before.
func (l *Ledger) Close() error { return nil }

// found begins a realm: this node is its only replica. Dir must hold none.
func (l *Ledger) found(ctx context.Context, realm identity) error { return errSoon }

// replicate makes this node a replica of a realm, with what Dir holds; if that is nothing, it waits for a leader
// that adds it.
func (l *Ledger) replicate(ctx context.Context, realm identity) error { return errSoon }

// follow makes this node a client of a realm's replicas, of which it must know at least one. What Dir holds stays there.
func (l *Ledger) follow(ctx context.Context, realm identity, replicas []peer.ID) error { return errSoon }

// wipe deletes the replica in Dir. This node must be a client.
func (l *Ledger) wipe() error { return errSoon }

// holds reports whether Dir holds a replica: a log, a vote or a snapshot.
func (l *Ledger) holds() (bool, error) { return false, errSoon }

// servers lists the realm's replicas, as far as this node knows; a client knows what it was told last.
func (l *Ledger) servers() []server { return nil }

// addLearner adds a replica that does not count, on the leader. It is no error that it is one already.
func (l *Ledger) addLearner(ctx context.Context, id peer.ID) error { return errSoon }

// promote makes a learner a voter, on the leader.
func (l *Ledger) promote(ctx context.Context, id peer.ID) error { return errSoon }

// demote makes a voter a learner, on the leader. It is how the leader steps down for good, too.
func (l *Ledger) demote(ctx context.Context, id peer.ID) error { return errSoon }

// remove removes a replica, on the leader.
func (l *Ledger) remove(ctx context.Context, id peer.ID) error { return errSoon }

// progress tells how far the replicas are, on the leader; elsewhere it is nil.
func (l *Ledger) progress() map[peer.ID]progress { return nil }

// lastIndex is the last index of this replica's log.
func (l *Ledger) lastIndex() uint64 { return 0 }

// leader is the leader as far as this node knows.
func (l *Ledger) leader() (id peer.ID, known bool) { return "", false }

// isLeader reports whether this node is the leader and has applied all that was committed before it became so.
func (l *Ledger) isLeader() bool { return false }

// transfer hands the office of leader to another voter.
func (l *Ledger) transfer(ctx context.Context) error { return errSoon }

// changed is closed at the next change of mode, leader or servers.
func (l *Ledger) changed() <-chan struct{} { return nil }

var errSoon = grid.Errorf(grid.Unsupported, "ledger: not yet")

// Get is told at grid.Ledger.
func (l *Ledger) Get(ctx context.Context, key string) (grid.Entry, error) {
	return grid.Entry{}, errSoon
}

// Range is told at grid.Ledger.
func (l *Ledger) Range(ctx context.Context, q grid.Query) (grid.Page, error) {
	return grid.Page{}, errSoon
}

// Commit is told at grid.Ledger.
func (l *Ledger) Commit(ctx context.Context, t grid.Txn) (uint64, error) { return 0, errSoon }

// Watch is told at grid.Ledger.
func (l *Ledger) Watch(ctx context.Context, prefix string, after uint64, f func(grid.Changes) error) error {
	return errSoon
}

// OpenSession is told at grid.Ledger.
func (l *Ledger) OpenSession(ctx context.Context, ttl time.Duration) (grid.Session, error) {
	return nil, errSoon
}

// Status is told at grid.Ledger.
func (l *Ledger) Status(ctx context.Context) (grid.LedgerStatus, error) {
	return grid.LedgerStatus{}, errSoon
}
