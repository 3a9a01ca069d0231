package grid

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// NodeInfo is what a node says of itself in its realm's ledger, under "node/" and its peer ID, for as long as it
// is up.
type NodeInfo struct {
	Version string    `cbor:"version" json:"version"`
	Slots   int       `cbor:"slots" json:"slots"`
	Started time.Time `cbor:"started" json:"started"`
	// Has is what it has for tasks.
	Has Capacity `cbor:"has,omitzero" json:"has,omitzero"`
}

func nodeKey(id peer.ID) string { return NodeKeys + id.String() }

func openKey(id JobID) string { return OpenKeys + string(id) }

const (
	// defaultSession is how long a node may be silent before its jobs are taken over. The ledger cuts it
	// short when the node's connection breaks.
	defaultSession = 5 * time.Second
	// ledgerTimeout bounds one call of the ledger that nobody waits for.
	ledgerTimeout = 10 * time.Second
	// closeTimeout bounds the good-bye of a node that closes.
	closeTimeout = time.Second
	// firstPause and lastPause bound the wait between two tries to reach the ledger.
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
)

// realm is what a node knows, by watching the ledger, of the nodes of its realm and of the jobs that are open
// there. A node that is Bound watches nothing.
type realm struct {
	poke chan struct{} // some job may have lost its owner

	mu    sync.Mutex
	nodes map[peer.ID]struct{} // that are up
	has   map[peer.ID]Capacity // of those that say so
	open  map[JobID]*openJob
	told  map[string]bool // prefixes that have been read once
	known chan struct{}   // closed when all have been
	moved chan struct{}   // closed when an open job has got another owner; nil when nobody waits
}

// openJob is a job that has not ended.
type openJob struct {
	owner   peer.ID
	version uint64    // of its entry among the open jobs
	before  []peer.ID // its owners before this one, that are known

	// While nobody drives it:
	at      time.Time // when this node tries to take it over; zero: not decided yet
	taking  bool
	pause   time.Duration // after the last try that failed
	failing time.Time     // since when all have
}

func newRealm() *realm {
	return &realm{
		poke:  make(chan struct{}, 1),
		nodes: map[peer.ID]struct{}{},
		has:   map[peer.ID]Capacity{},
		open:  map[JobID]*openJob{},
		told:  map[string]bool{},
		known: make(chan struct{}),
	}
}

func (r *realm) stir() {
	select {
	case r.poke <- struct{}{}:
	default:
	}
}

// learned notes that a prefix has been read. r.mu is held.
func (r *realm) learned(prefix string) {
	if r.told[prefix] {
		return
	}
	r.told[prefix] = true
	if r.told[NodeKeys] && r.told[OpenKeys] {
		close(r.known)
	}
}

// up lists the nodes of the realm that are up.
func (r *realm) up() []peer.ID {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := make([]peer.ID, 0, len(r.nodes))
	for id := range r.nodes {
		ids = append(ids, id)
	}
	return ids
}

// owner is the node that drives an open job; "" when there is no such job.
func (r *realm) owner(id JobID) peer.ID {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.open[id]; o != nil {
		return o.owner
	}
	return ""
}

// await waits until an open job has another owner than it had, or for a time at most.
func (r *realm) await(ctx context.Context, id JobID, had peer.ID, most time.Duration) {
	t := time.NewTimer(most)
	defer t.Stop()
	for {
		r.mu.Lock()
		if o := r.open[id]; o != nil && o.owner != had {
			r.mu.Unlock()
			return
		}
		if r.moved == nil {
			r.moved = make(chan struct{})
		}
		moved := r.moved
		r.mu.Unlock()
		select {
		case <-moved:
		case <-t.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// joinRealm starts what makes a node one of its realm, and takes up its own jobs. A ledger that does not answer
// does not hold it up for long.
func (n *Node) joinRealm(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, resumeTimeout)
	defer cancel()
	s, err := n.openSession(ctx)
	if err != nil {
		n.log.Warn("no session with the ledger yet", "err", err)
	} else if err := n.resume(ctx); err != nil {
		n.log.Warn("the ledger does not answer yet; jobs of this node are taken up when it does", "err", err)
	}
	n.spawn(func() { n.stayAlive(s) })
	n.spawn(func() {
		n.follow(NodeKeys, func(all []Entry) { n.nodesRead(all); n.relate() }, func(c Changes) { n.nodesChanged(c); n.relate() })
	})
	n.spawn(func() { n.follow(OpenKeys, n.openRead, n.openChanged) })
	n.spawn(func() { n.follow(MemberKeys, n.memberRead, n.memberChanged) })
	n.spawn(n.takeOvers)
	n.spawn(func() { n.follow(SecretKeys, n.secretsRead, n.secretsChanged) })
	n.spawn(n.shareSecrets)
	n.spawn(n.followExtensions)
	n.spawn(func() { n.follow(StandingKeys, n.standingsRead, n.standingsChanged) })
	n.spawn(n.keepAudit)
	n.spawn(func() { n.follow(QuotaKeys, n.quotasRead, n.quotasChanged) })
	n.spawn(n.keepQuotas)
	n.spawn(n.keepUsage)
}

// stayAlive keeps the node's entry in the ledger under a session, and opens another when that is lost. The first
// may be open already.
func (n *Node) stayAlive(s Session) {
	pause := firstPause
	for {
		if s == nil {
			ctx, cancel := context.WithTimeout(n.ctx, ledgerTimeout)
			var err error
			s, err = n.openSession(ctx)
			cancel()
			if err != nil {
				n.log.Debug("no session with the ledger", "err", err)
				if !n.sleep(pause) {
					return
				}
				pause = min(2*pause, lastPause)
				continue
			}
		}
		pause = firstPause
		select {
		case <-s.Done():
			n.log.Info("the session with the ledger has ended, and another is opened; jobs of this node may have another owner now")
			s = nil
		case <-n.ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(n.ctx), closeTimeout)
			defer cancel()
			if err := s.Close(ctx); err != nil {
				n.log.Debug("session not closed", "err", err)
			}
			return
		}
	}
}

func (n *Node) openSession(ctx context.Context) (Session, error) {
	value, err := Marshal(NodeInfo{Version: Version, Slots: n.Slots, Started: n.started, Has: n.Capacity})
	if err != nil {
		return nil, err
	}
	ttl := n.SessionTTL
	if ttl == 0 {
		ttl = defaultSession
	}
	s, err := n.Ledger.OpenSession(ctx, ttl)
	if err != nil {
		return nil, err
	}
	_, err = n.Ledger.Commit(ctx, Txn{Put: []Entry{{Key: nodeKey(n.self), Value: value, Session: s.ID()}}})
	if err != nil {
		_ = s.Close(ctx) // or it ends by itself
		return nil, err
	}
	return s, nil
}

// sleep waits, and is false when the node closes meanwhile.
func (n *Node) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-n.ctx.Done():
		return false
	}
}

// follow tells read of all entries under a prefix, and changed of every later change to them, one call at a
// time, until the node closes. When changes have been missed, it begins again.
func (n *Node) follow(prefix string, read func([]Entry), changed func(Changes)) {
	pause := firstPause
	for n.ctx.Err() == nil {
		var all []Entry
		ctx, cancel := context.WithTimeout(n.ctx, ledgerTimeout)
		revision, err := RangeAll(ctx, n.Ledger, prefix, false, func(e Entry) error { all = append(all, e); return nil })
		cancel()
		if err == nil {
			pause = firstPause
			read(all)
			all = nil
			err = n.Ledger.Watch(n.ctx, prefix, revision, func(c Changes) error { changed(c); return nil })
		}
		if n.ctx.Err() != nil {
			return
		}
		n.log.Debug("the ledger is not followed", "prefix", prefix, "err", err)
		if !n.sleep(pause) {
			return
		}
		pause = min(2*pause, lastPause)
	}
}

func (n *Node) nodesRead(all []Entry) {
	r := n.realm
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.nodes)
	clear(r.has)
	for _, e := range all {
		n.nodePut(e)
	}
	n.counted()
	r.learned(NodeKeys)
	r.stir()
	n.secrets.stir()
	n.scoring.stir()
}

func (n *Node) nodesChanged(c Changes) {
	r := n.realm
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range c.Put {
		n.nodePut(e)
	}
	if len(c.Put) > 0 {
		r.stir() // this node itself may be up now, and take what it had to leave
		n.scoring.stir()
		n.secrets.stir()
	}
	for _, key := range c.Delete {
		if id, err := peer.Decode(strings.TrimPrefix(key, NodeKeys)); err == nil {
			delete(r.nodes, id)
			delete(r.has, id)
			r.stir()
		}
	}
	n.counted()
}

// nodePut notes a node that is up. n.realm.mu is held.
func (n *Node) nodePut(e Entry) {
	id, err := peer.Decode(strings.TrimPrefix(e.Key, NodeKeys))
	if err != nil {
		n.log.Warn("no node has such a name", "key", e.Key, "err", err)
		return
	}
	n.realm.nodes[id] = struct{}{}
	if has, ok := capacityIn(e); ok {
		n.realm.has[id] = has
	} else {
		delete(n.realm.has, id)
	}
}
