package ledger

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/ledger/machine"
)

// Config is what a ledger needs. Network must be given; Dir, too, on nodes that are to keep a copy.
type Config struct {
	Network grid.Network
	// Dir is the folder of the replica: its log, its vote and its snapshots.
	Dir string
	// Timing of elections and calls; zero fields take their defaults.
	Timing Timing
	// Machine bounds what the ledger holds. All replicas of a realm need the same.
	Machine machine.Config
	// OpenDisk opens the folder; nil: with files.
	OpenDisk func(dir string) (Disk, error)
	// Logger hears of elections, members that come and go, and faults; nil: nobody does.
	Logger *slog.Logger

	batch     int // commands in one log entry; 0: batchCommands
	doublings int // of Timing.Election at most, see tempo; 0: mostDoublings, less: none
}

// Timing is how patient nodes are with one another.
type Timing struct {
	// Election is for how long a voter hears nothing of the leader before it asks for votes; it asks after once to
	// three times that. Where leaders do not last it becomes up to eight times as long, by itself; see tempo. 250 ms suits a LAN
	// of machines that are not busy, 1 to 2 s a WAN. Default 500 ms: machines whose cores are all taken by tasks seldom need more.
	Election time.Duration
	// Stall is for how long one message between replicas may be under way. Default 5 s, at least 4 elections.
	Stall time.Duration
	// Call bounds calls whose context has no deadline. Default 10 s.
	Call time.Duration
	// Try is for how long one node is asked before another one is. Default 2 s, at least 4 elections.
	Try time.Duration
	// Beat is how often a watch that has nothing to tell says that it is alive. Default 500 ms.
	Beat time.Duration
	// Grace is for how long a session lives on when the connection to its owner breaks, unless the owner makes itself
	// heard. Default 500 ms.
	Grace time.Duration
}

func (t Timing) withDefaults() Timing {
	t.Election = cmp.Or(t.Election, 500*time.Millisecond)
	t.Stall = cmp.Or(t.Stall, max(5*time.Second, 4*t.Election))
	t.Call = cmp.Or(t.Call, 10*time.Second)
	t.Try = cmp.Or(t.Try, max(2*time.Second, 4*t.Election))
	t.Beat = cmp.Or(t.Beat, 500*time.Millisecond)
	t.Grace = cmp.Or(t.Grace, 500*time.Millisecond)
	return t
}

// Ledger is the ledger of a realm, as one of its nodes sees it. The node either keeps a copy, as a voter or a
// learner, or it is a client of nodes that do.
type Ledger struct {
	cfg   Config
	net   grid.Network
	log   *slog.Logger
	hooks hooks // set before the ledger is told what to be

	mode  sync.Mutex      // held while what this node is for the ledger changes
	ctx   context.Context // ends when the ledger is closed
	stop  context.CancelFunc
	slots chan struct{} // held while another node is asked
	wg    sync.WaitGroup

	revision atomic.Uint64 // newest that this node has heard of
	commits  Commits

	mu       sync.Mutex
	closed   bool
	realm    identity
	rep      *replica // nil on a client
	broken   error    // why there is no replica any more
	known    view     // what others have told
	change   chan struct{}
	sessions map[*session]struct{}
	watches  map[peer.ID]int      // streams served
	away     map[peer.ID]struct{} // that were connected to this node once
	unsub    func()
}

var _ grid.Ledger = (*Ledger)(nil)

// view is what a node knows of its realm's replicas.
type view struct {
	servers []server
	conf    uint64
	leader  peer.ID
	term    uint64 // of the leader
}

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
	// voteFrom is the index that the replica's log must have reached before it votes; see state.VoteFrom.
	voteFrom func() uint64
	// admit decides whether a replica may speak raft/1 with this node. Its realm has been checked. The error goes to the replica.
	admit func(from peer.ID, h hello) error
	// serve decides whether a node may use the ledger through this node. Its realm has been checked. The error goes to the node.
	serve func(from peer.ID) error
	// write decides whether a node may make a transaction. held reads this replica. The error goes to the node.
	write func(from peer.ID, t *grid.Txn, held grid.Held) error
	// forward decides whether a replica may pass on what others ask for.
	forward func(from peer.ID) bool
}

// server is a replica, by the newest configuration that this node knows.
type server struct {
	ID    peer.ID
	Voter bool
}

// progress is what a leader knows of a replica.
type progress struct {
	Applied uint64        // last log index that it is known to have
	Heard   time.Duration // since it last answered; of this node itself 0, of one that has not answered yet never
}

// callsAtOnce is how many calls to other nodes a node makes at a time; networks refuse many more.
const callsAtOnce = 32

// Open opens a ledger that is a client without replicas: somebody must tell it what to be.
func Open(_ context.Context, cfg Config) (*Ledger, error) {
	if cfg.Network == nil {
		return nil, grid.Errorf(grid.Invalid, "ledger: it needs a network")
	}
	cfg.Timing = cfg.Timing.withDefaults()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.batch = cmp.Or(cfg.batch, batchCommands)
	cfg.doublings = max(0, cmp.Or(cfg.doublings, mostDoublings))
	if cfg.OpenDisk == nil {
		cfg.OpenDisk = openFiles
	}
	l := &Ledger{
		cfg: cfg, net: cfg.Network, log: cfg.Logger,
		slots: make(chan struct{}, callsAtOnce), change: make(chan struct{}),
		sessions: make(map[*session]struct{}), watches: make(map[peer.ID]int), away: make(map[peer.ID]struct{}),
	}
	l.ctx, l.stop = context.WithCancel(context.Background())
	l.net.Handle(raftProtocol, l.handleRaft)
	l.net.Handle(watchProtocol, l.handleWatch)
	l.net.Serve(callProtocol, l.handleCall)
	l.unsub = l.net.Subscribe(l.peerEvent)
	return l, nil
}

// Close ends the ledger and waits for all of it: first its sessions, so that others need not wait for them, then the
// watches and calls, then the replica. A leader hands its office over before. It may be called twice.
func (l *Ledger) Close() error {
	l.mu.Lock()
	again := l.closed
	l.closed = true
	l.mu.Unlock()
	if again {
		l.wg.Wait()
		return nil
	}
	l.unsub()
	l.endSessions()
	l.stop()
	l.mode.Lock()
	defer l.mode.Unlock()
	err := l.setReplica(nil, nil)
	l.wg.Wait()
	l.bump()
	return err
}

// enter begins something that Close waits for with wg; false when it is too late.
func (l *Ledger) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.wg.Add(1)
	return true
}

// replica is this node's copy, nil when it has none.
func (l *Ledger) replica() *replica {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rep
}

// setReplica puts another replica, or none, in the place of this node's, and ends the old one. l.mode is held.
func (l *Ledger) setReplica(r *replica, broken error) error {
	l.mu.Lock()
	old := l.rep
	l.mu.Unlock()
	var err error
	if old != nil {
		l.keepServers(old)
		err = old.close()
	}
	l.mu.Lock()
	l.rep, l.broken = r, broken
	l.mu.Unlock()
	l.bump()
	return err
}

// keepServers remembers whom to ask when this node's replica is gone.
func (l *Ledger) keepServers(r *replica) {
	v := r.view()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known = v
}

// dropReplica ends a replica whose disk has failed.
func (l *Ledger) dropReplica(r *replica, why error) {
	l.mode.Lock()
	defer l.mode.Unlock()
	if l.replica() == r {
		_ = l.setReplica(nil, why)
	}
}

// full reports whether this node's replica has stopped because its disk was full.
func (l *Ledger) full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rep == nil && grid.CodeOf(l.broken) == grid.NoSpace
}

func (l *Ledger) startReplica(realm identity, found bool) (*replica, error) {
	if realm.ID == "" || len(realm.ID) > 64 {
		return nil, grid.Errorf(grid.Invalid, "ledger: a realm's ID of %d bytes", len(realm.ID))
	}
	l.mu.Lock()
	busy, closed := l.rep != nil, l.closed
	l.mu.Unlock()
	switch {
	case closed:
		return nil, errClosed()
	case busy:
		return nil, grid.Errorf(grid.Conflict, "ledger: this node keeps a copy already")
	}
	r, err := openReplica(l, realm, found)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.realm = realm
	l.mu.Unlock()
	return r, l.setReplica(r, nil)
}

// found begins a realm: this node is its only replica. Dir must hold none. It returns when the node leads.
func (l *Ledger) found(ctx context.Context, realm identity) error {
	l.mode.Lock()
	defer l.mode.Unlock()
	r, err := l.startReplica(realm, true)
	if err != nil {
		return err
	}
	for {
		changed := l.changed()
		if o := r.office.Load(); o != nil && o.isReady() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-r.ctx.Done():
			return errClosed()
		}
	}
}

// replicate makes this node a replica of a realm, with what Dir holds; if that is nothing, it waits for a leader
// that adds it. It returns when the replica runs, before anybody leads.
func (l *Ledger) replicate(_ context.Context, realm identity) error {
	l.mode.Lock()
	defer l.mode.Unlock()
	_, err := l.startReplica(realm, false)
	return err
}

// follow makes this node a client of a realm's replicas, of which it must know at least one. What Dir holds stays there.
func (l *Ledger) follow(_ context.Context, realm identity, replicas []peer.ID) error {
	if len(replicas) == 0 || len(replicas) > maxServers {
		return grid.Errorf(grid.Invalid, "ledger: %d replicas to follow, want 1 to %d", len(replicas), maxServers)
	}
	l.mode.Lock()
	defer l.mode.Unlock()
	err := l.setReplica(nil, nil)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errClosed()
	}
	if realm.ID != l.realm.ID {
		l.known = view{}
		l.revision.Store(0)
	}
	l.realm = realm
	l.known.conf, l.known.servers = 0, nil
	for _, id := range replicas {
		l.known.servers = append(l.known.servers, server{ID: id, Voter: true})
	}
	return err
}

// view is what this node knows of its realm's replicas.
func (l *Ledger) view() view {
	if r := l.replica(); r != nil {
		return r.view()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known
}

// servers lists the realm's replicas, as far as this node knows; a client knows what it was told last.
func (l *Ledger) servers() []server { return slices.Clone(l.view().servers) }

// leading is this node's replica if it leads.
func (l *Ledger) leading() (*replica, error) {
	if r := l.replica(); r != nil && r.office.Load() != nil {
		return r, nil
	}
	return nil, errLost()
}

// addLearner adds a replica that does not count, on the leader. It is no error that it is one already.
func (l *Ledger) addLearner(ctx context.Context, id peer.ID) error {
	return l.reconfigure(ctx, "add", id, (*replica).addLearner)
}

// promote makes a learner a voter, on the leader.
func (l *Ledger) promote(ctx context.Context, id peer.ID) error {
	return l.reconfigure(ctx, "promote", id, (*replica).promote)
}

// demote makes a voter a learner, on the leader. It is how the leader steps down for good, too.
func (l *Ledger) demote(ctx context.Context, id peer.ID) error {
	return l.reconfigure(ctx, "demote", id, (*replica).demote)
}

// remove removes a replica, on the leader.
func (l *Ledger) remove(ctx context.Context, id peer.ID) error {
	return l.reconfigure(ctx, "remove", id, (*replica).remove)
}

// progress tells how far the replicas are, on the leader; elsewhere it is nil.
func (l *Ledger) progress() map[peer.ID]progress {
	if r := l.replica(); r != nil {
		return r.progress()
	}
	return nil
}

// lastIndex is the last index of this replica's log.
func (l *Ledger) lastIndex() uint64 {
	if r := l.replica(); r != nil {
		return r.raft.LastIndex()
	}
	return 0
}

// commitIndex is up to where this node knows the log to be committed; 0 if it keeps no copy.
func (l *Ledger) commitIndex() uint64 {
	if r := l.replica(); r != nil {
		return r.raft.CommitIndex()
	}
	return 0
}

// leader is the leader as far as this node knows.
func (l *Ledger) leader() (id peer.ID, known bool) {
	v := l.view()
	return v.leader, v.leader != ""
}

// Leads reports whether this node leads the ledger. It asks nobody.
func (l *Ledger) Leads() bool { return l.isLeader() }

// isLeader reports whether this node is the leader and has applied all that was committed before it became so.
func (l *Ledger) isLeader() bool {
	r := l.replica()
	if r == nil {
		return false
	}
	o := r.office.Load()
	return o != nil && o.isReady()
}

// transfer hands the office of leader to another voter.
func (l *Ledger) transfer(_ context.Context, to peer.ID) error {
	r, err := l.leading()
	if err != nil {
		return err
	}
	return r.transfer(to)
}

// changed is closed at the next change of mode, leader or servers.
func (l *Ledger) changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.change
}

// bump closes it.
func (l *Ledger) bump() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.change)
	l.change = make(chan struct{})
}

// heard remembers a revision that exists.
func (l *Ledger) heard(revision uint64) {
	for {
		old := l.revision.Load()
		if revision <= old || l.revision.CompareAndSwap(old, revision) {
			return
		}
	}
}

// Get is told at grid.Ledger.
func (l *Ledger) Get(ctx context.Context, key string) (grid.Entry, error) {
	if key == "" || len(key) > grid.MaxLedgerKey {
		return grid.Entry{}, grid.Errorf(grid.Invalid, "ledger: a key of %d bytes, want 1 to %d", len(key), grid.MaxLedgerKey)
	}
	p, err := l.ask(ctx, "get", &request{Kind: askGet, Key: []byte(key)})
	if err != nil {
		return grid.Entry{}, err
	}
	if len(p.Entries) != 1 {
		return grid.Entry{}, grid.Errorf(grid.NotFound, "ledger: no entry %q", key)
	}
	return fromWire(p.Entries)[0], nil
}

// Range is told at grid.Ledger.
func (l *Ledger) Range(ctx context.Context, q grid.Query) (grid.Page, error) {
	if len(q.Prefix) > grid.MaxLedgerKey || len(q.After) > grid.MaxLedgerKey {
		return grid.Page{}, grid.Errorf(grid.Invalid, "ledger: a prefix of %d bytes, at most %d are allowed", max(len(q.Prefix), len(q.After)), grid.MaxLedgerKey)
	}
	req := &request{Kind: askRange, Prefix: []byte(q.Prefix), After: []byte(q.After), Limit: q.Limit, At: q.At, Stale: q.Stale}
	p, err := l.ask(ctx, "range", req)
	if err != nil {
		return grid.Page{}, err
	}
	return grid.Page{Entries: fromWire(p.Entries), Revision: p.Revision, More: p.More}, nil
}

// Commit is told at grid.Ledger.
func (l *Ledger) Commit(ctx context.Context, t grid.Txn) (uint64, error) {
	if err := grid.CheckTxn(&t); err != nil {
		return 0, grid.Errorf(grid.CodeOf(err), "ledger: commit: %w", err)
	}
	if t.ID == "" {
		t.ID = grid.NewRequestID()
	}
	began := time.Now()
	p, err := l.apply(ctx, "commit", &machine.Command{Txn: &t, Base: l.base()})
	if err != nil {
		l.commits.Failed.Add(grid.CodeOf(err))
		return 0, err
	}
	l.commits.Took.Observe(time.Since(began))
	return p.Revision, nil
}

// Commits counts what this node has written to the ledger, by whoever leads, since it was opened. The ledger alone writes it.
type Commits struct {
	Took   grid.Timing // those that succeeded
	Failed grid.ByCode // Conflict among them, after which most are tried again
}

// Commits is what was counted, to be read.
func (l *Ledger) Commits() *Commits { return &l.commits }

// base is a revision that this node knows.
func (l *Ledger) base() uint64 {
	if r := l.replica(); r != nil {
		l.heard(r.machine.Revision())
	}
	return l.revision.Load()
}

// apply has a command applied, by whoever leads.
func (l *Ledger) apply(ctx context.Context, what string, cmd *machine.Command) (*reply, error) {
	return l.ask(ctx, what, &request{Kind: askCommit, cmd: cmd})
}
