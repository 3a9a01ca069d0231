package replica

import (
	"container/heap"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/erasure"
)

// Config wires a Manager. Network, Blocks, Fetcher and State are required.
type Config struct {
	Network grid.Network
	Blocks  grid.Blocks
	Fetcher grid.Fetcher
	State   datastore.Batching // what is remembered, under "/pin"; stays the caller's to close
	Keeper  grid.Keeper        // holds what is being fetched; nil: nothing is ever collected
	Forget  func()             // called when blocks that were here turn out to be gone; may be nil
	Free    func() uint64      // bytes that may still be stored here; nil: any number
	Zone    string             // nodes of one zone may fail together
	Default int                // replicas of a pin that does not say; 0 means 1
	Grace   time.Duration      // how long a holder may be away before it is replaced; 0 means 5 minutes
	Rate    int64              // bytes/s at which data is fetched to restore copies; 0: as fast as it comes
	Logger  *slog.Logger       // nil: none
}

const (
	defaultGrace = 5 * time.Minute
	syncEvery    = time.Minute
	roomEvery    = 5 * time.Minute
	announceFor  = 12 * time.Hour // then what is kept here is announced again
	memory       = 7 * 24 * time.Hour
	maxPins      = 1 << 20

	provideTimeout = 30 * time.Second
	fetchers       = 2
	greeters       = 8
	firstRetry     = time.Second
	lastRetry      = 15 * time.Second
)

// Manager keeps the pins of one node. It is safe for concurrent use.
type Manager struct {
	cfg   Config
	net   grid.Network
	log   *slog.Logger
	self  peer.ID
	pace  *rate.Limiter // of repairs; nil: none
	ctx   context.Context
	stop  context.CancelFunc
	wg    sync.WaitGroup
	due   chan struct{} // the pins are to be gone through
	fetch chan struct{} // something waits to be fetched
	doubt chan struct{} // what is here is to be looked at again
	greet chan struct{} // tickets to speak to a peer

	made, unmade atomic.Uint64

	mu        sync.Mutex
	closed    bool
	entries   map[cid.Cid]*entry
	peers     map[peer.ID]*node
	common    map[peer.ID]common // with each node that a record here concerns
	queue     urgent
	draining  bool
	manifests map[cid.Cid]*erasure.Manifest // some that were read lately
}

var (
	_ grid.Pins    = (*Manager)(nil)
	_ grid.Fetcher = (*Manager)(nil)
)

// entry is one pin as this node sees it.
type entry struct {
	kept
	note   string // why the last try to fetch it failed
	tries  int
	next   time.Time // no try before
	queued bool      // waits for a fetcher, or has one
	urgent int       // holders that were up when it was queued
	asking bool      // the others are being asked whether it can be let go
	// chosen are holders that this node has chosen, and when, until they speak.
	chosen map[peer.ID]time.Time
}

// node is a peer as a place for data.
type node struct {
	info
	up    bool      // there is a connection to it
	known bool      // info has been heard
	since time.Time // it came or went
	heard time.Time // when it last spoke to this node, or answered; zero: not since it went
	tried time.Time // when it was last spoken to
	mute  bool      // and did not answer
	spoke time.Time // when it last spoke to this node, or answered, ever
}

// Open takes up the pins that are remembered, and serves other nodes until Close.
func Open(ctx context.Context, cfg Config) (*Manager, error) {
	if cfg.Keeper == nil {
		cfg.Keeper = grid.NoKeeper{}
	}
	m := &Manager{
		cfg: cfg, net: cfg.Network, log: cfg.Logger, self: cfg.Network.Self(),
		due: make(chan struct{}, 1), fetch: make(chan struct{}, 1), doubt: make(chan struct{}, 1), greet: make(chan struct{}, greeters),
		entries: map[cid.Cid]*entry{}, peers: map[peer.ID]*node{}, common: map[peer.ID]common{}, manifests: map[cid.Cid]*erasure.Manifest{},
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if m.cfg.Grace <= 0 {
		m.cfg.Grace = defaultGrace
	}
	if m.cfg.Default <= 0 {
		m.cfg.Default = 1
	}
	if cfg.Rate > 0 {
		m.pace = rate.NewLimiter(rate.Limit(cfg.Rate), int(max(cfg.Rate, paceBurst)))
	}
	if err := m.load(ctx); err != nil {
		return nil, grid.Errorf(codeOf(err), "store: open the pins: %w", err)
	}
	m.ctx, m.stop = context.WithCancel(context.Background())
	m.net.Serve(Protocol, m.serve)
	unsubscribe := m.net.Subscribe(m.peerEvent)
	m.wg.Go(func() { <-m.ctx.Done(); unsubscribe() })
	m.wg.Go(m.loop)
	m.wg.Go(m.announce)
	m.wg.Go(m.doubter)
	for range fetchers {
		m.wg.Go(m.fetcher)
	}
	return m, nil
}

// Close ends all work and waits for it. Calls that come later are refused.
func (m *Manager) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.stop()
	m.wg.Wait()
	return nil
}

// spawn runs f on a goroutine that Close waits for, unless it is closing. The caller holds mu.
func (m *Manager) spawn(f func()) {
	if !m.closed {
		m.wg.Go(f)
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// What is remembered, in the datastore.
const (
	pinRoot  = "/pin"
	drainKey = "/pin-drain"
)

func pinKey(c cid.Cid) datastore.Key { return datastore.RawKey(pinRoot + "/" + c.String()) }

func (m *Manager) load(ctx context.Context) error {
	switch _, err := m.cfg.State.Get(ctx, datastore.RawKey(drainKey)); {
	case err == nil:
		m.draining = true
	case !errors.Is(err, datastore.ErrNotFound):
		return err
	}
	for r, err := range datastore.QueryIter(ctx, m.cfg.State, query.Query{Prefix: pinRoot}) {
		if err != nil {
			return err
		}
		var k kept
		err := grid.Unmarshal(r.Value, &k)
		if err == nil {
			err = k.Record.check()
		}
		if err != nil {
			return grid.Errorf(grid.Corrupt, "entry %s: %w", r.Key, err).
				Hint("the disk has changed it: check the disk, and restore the data folder")
		}
		m.entries[k.Record.Root.Cid] = &entry{kept: k}
		m.tally(&k.Record, 1)
		for _, id := range k.Record.all() {
			if id != m.self && m.peers[id] == nil {
				m.peers[id] = &node{since: time.Now()}
			}
		}
	}
	return ctx.Err()
}

// save remembers an entry. It is durable when sync is set. The caller holds mu, which keeps the order of
// states that of changes.
func (m *Manager) save(ctx context.Context, e *entry, sync bool) error {
	data, err := grid.Marshal(e.kept)
	if err != nil {
		return grid.Errorf(grid.Internal, "encode: %w", err)
	}
	key := pinKey(e.Record.Root.Cid)
	if err := m.cfg.State.Put(ctx, key, data); err != nil {
		return err
	}
	if sync {
		return m.cfg.State.Sync(ctx, key)
	}
	return nil
}

// forget removes an entry. The caller holds mu.
func (m *Manager) forget(e *entry) {
	delete(m.entries, e.Record.Root.Cid)
	m.tally(&e.Record, -1)
	if err := m.cfg.State.Delete(m.ctx, pinKey(e.Record.Root.Cid)); err != nil {
		m.log.Warn("a pin that is over was not removed", "root", e.Record.Root, "err", err)
	}
}

func (m *Manager) info() info {
	free := m.free()
	m.mu.Lock()
	defer m.mu.Unlock()
	return info{Zone: m.cfg.Zone, Free: free, Draining: m.draining}
}

// hold keeps what is here of a DAG, and what comes, until release is called: a pin that has just been made is
// not among the Roots of a collection that is under way.
func (m *Manager) hold(r *record) (release func()) {
	roots := []cid.Cid{r.Root.Cid}
	if r.Manifest.Defined() {
		roots = append(roots, r.Manifest.Cid)
	}
	return m.cfg.Keeper.Hold(roots...)
}

// free is how many bytes may still be stored here. It is asked for without mu, since it may take locks of
// others.
func (m *Manager) free() uint64 {
	if m.cfg.Free == nil {
		return 1 << 50
	}
	return m.cfg.Free()
}

// heard takes note of what a peer says about itself.
func (m *Manager) heard(from peer.ID, i info) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.peers[from]
	if n == nil { // speaks before its event has come
		n = &node{since: time.Now()}
		m.peers[from] = n
	}
	if !n.known || n.Draining != i.Draining || n.Zone != i.Zone {
		poke(m.due)
	}
	n.info, n.known, n.heard, n.mute = i, true, time.Now(), false
	n.spoke = n.heard
}

// missed takes note that a peer does not answer.
func (m *Manager) missed(id peer.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.peers[id]; n != nil {
		n.mute = true
		if n.heard.After(n.since) {
			n.since = n.heard
		}
		n.heard = time.Time{}
		poke(m.due)
	}
}

// peerEvent follows who is there.
func (m *Manager) peerEvent(ev grid.PeerEvent) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.peers[ev.Peer]
	if n == nil {
		n = &node{}
		m.peers[ev.Peer] = n
	}
	now := time.Now()
	again := ev.Up && now.Sub(n.heard) < m.every() // it was spoken to, and so came to be connected
	if n.up, n.since = ev.Up, now; !ev.Up {
		n.heard = time.Time{}
	}
	if ev.Up && !again {
		n.tried = now
		m.spawn(func() { m.meet(ev.Peer) })
	}
	poke(m.due)
}

// every is how often this node speaks to those that it keeps something with: a few times before one that is silent counts as lost.
func (m *Manager) every() time.Duration { return min(syncEvery, m.cfg.Grace/4) }

// lost reports whether a node has been away for too long, and does not answer either: that there is no connection to it says little in a
// swarm in which nobody is connected to all others. One that was never met is away since it was first looked for. The caller holds mu.
func (m *Manager) lost(id peer.ID, now time.Time) bool {
	if id == m.self {
		return false
	}
	n := m.peers[id]
	if n == nil {
		n = &node{since: now}
		m.peers[id] = n
	}
	return n.mute && !n.there(now) && now.Sub(n.since) > m.cfg.Grace
}

// comeBy is for how long a holder that was chosen may be silent before another is chosen in its place. What it has had nothing of is not there
// again when it comes back, so there is nothing to wait for: most such nodes were dead when they were chosen, and nobody had noticed.
const comeBy = 15 * time.Second

// chose notes whom this node has chosen as holders, who were not before. The caller holds mu.
func (e *entry) chose(before []peer.ID, now time.Time) {
	for _, id := range e.Record.Holders {
		if !slices.Contains(before, id) {
			if e.chosen == nil {
				e.chosen = map[peer.ID]time.Time{}
			}
			e.chosen[id] = now
		}
	}
}

// awaited speaks to holders that were chosen and have not spoken since, when they have gone. The caller holds mu.
func (m *Manager) awaited(e *entry, now time.Time) {
	for id, at := range e.chosen {
		switch n := m.peers[id]; {
		case id == m.self, n != nil && n.spoke.After(at), e.Record.place(id) < 0:
			delete(e.chosen, id)
		case n != nil && !n.there(now) && !n.mute && now.Sub(n.tried) >= comeBy/4:
			n.tried = now
			m.spawn(func() { m.meet(id) })
		}
	}
	if len(e.chosen) == 0 {
		e.chosen = nil // there are as many as pins
	}
}

// neverCame reports whether a holder of a pin was chosen some time ago, and is gone without a word since. The caller holds mu.
func (m *Manager) neverCame(r *record, id peer.ID, now time.Time) bool {
	n := m.peers[id]
	if n == nil || !n.mute || n.there(now) {
		return false // as nearly always
	}
	e := m.entries[r.Root.Cid]
	if e == nil {
		return false
	}
	at, ok := e.chosen[id]
	return ok && !n.spoke.After(at) && now.Sub(at) > min(comeBy, m.cfg.Grace)
}

// there reports whether a node is connected, or has been heard of since it last was.
func (n *node) there(now time.Time) bool {
	return n.up || !n.mute && !n.heard.IsZero() && now.Sub(n.heard) < 2*syncEvery
}

// up reports whether a node is there. The caller holds mu.
func (m *Manager) up(id peer.ID) bool {
	n := m.peers[id]
	return id == m.self || n != nil && n.there(time.Now())
}

// leads reports whether this node acts for a record. The caller holds mu.
func (m *Manager) leads(r *record) bool {
	for _, id := range r.Holders {
		if m.up(id) {
			return id == m.self
		}
	}
	return r.By == m.self || !m.up(r.By) // what is known here can be told to others only from here
}

// loop goes through the pins whenever something has happened, and now and then.
func (m *Manager) loop() {
	tick := time.NewTicker(min(m.cfg.Grace/4+time.Millisecond, 5*time.Second))
	defer tick.Stop()
	synced := time.Now()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-m.due:
		case <-tick.C:
		}
		now := time.Now()
		m.review(now)
		if now.Sub(synced) >= m.every() {
			synced = now
			m.meetSome(false)
		}
	}
}

// review decides what is to be done about each pin.
func (m *Manager) review(now time.Time) {
	tell := map[peer.ID][]record{}
	free := m.free()
	m.mu.Lock()
	v := m.view(now, free)
	for _, e := range m.entries {
		r := &e.Record
		if r.Gone {
			m.over(e, now)
			continue
		}
		m.awaited(e, now)
		if m.leads(r) && !v.settled(r) {
			if holders := v.holders(r); !slices.Equal(holders, r.Holders) {
				before := r.Holders
				m.replace(e, r.with(holders, m.self, now))
				e.chose(before, now)
				m.log.Info("a pin has other holders", "root", r.Root, "holders", holders)
				if err := m.save(m.ctx, e, false); err != nil {
					m.log.Error("pins", "err", err)
				}
				for _, id := range e.Record.all() {
					if id != m.self && m.up(id) {
						tell[id] = append(tell[id], e.Record)
					}
				}
			}
		}
		m.own(e, now)
	}
	m.mu.Unlock()
	for id, records := range tell {
		m.mu.Lock()
		m.spawn(func() { m.tell(id, records) })
		m.mu.Unlock()
	}
}

// over lets go of a pin that was taken back, and forgets it when everybody must have heard. The caller
// holds mu.
func (m *Manager) over(e *entry, now time.Time) {
	if e.some() {
		e.Whole, e.Shard, e.Part = false, 0, false
		if err := m.save(m.ctx, e, false); err != nil {
			m.log.Error("pins", "err", err)
		}
	}
	if now.Sub(time.Unix(e.Record.Changed, 0)) > memory {
		m.forget(e)
	}
}

// own sees to this node's own part of a pin. The caller holds mu.
func (m *Manager) own(e *entry, now time.Time) {
	place := e.Record.place(m.self)
	switch {
	case now.Before(e.next):
	case place >= 0 && (!e.has(place) || e.Record.coded() && e.Shard != place+1): // of a code, before all of it is let go
		if !e.queued {
			e.queued, e.urgent = true, 0
			for _, id := range e.Record.Holders {
				if id != m.self && m.up(id) {
					e.urgent++
				}
			}
			heap.Push(&m.queue, e)
			poke(m.fetch)
		}
	case place >= 0 && !(e.beyondShard() && e.Record.coded()), place < 0 && !e.some():
		if !e.Record.concerns(m.self) && now.Sub(time.Unix(e.Record.Changed, 0)) > memory {
			m.forget(e)
		}
	case !e.asking: // surplus
		e.asking = true
		r := e.Record
		m.spawn(func() { m.letGo(r) })
	}
}

// urgent is a heap of pins, those first that fewest others have.
type urgent []*entry

func (u urgent) Len() int           { return len(u) }
func (u urgent) Less(i, j int) bool { return u[i].urgent < u[j].urgent }
func (u urgent) Swap(i, j int)      { u[i], u[j] = u[j], u[i] }

// Push is heap.Interface's.
func (u *urgent) Push(x any) { *u = append(*u, x.(*entry)) }

// Pop is heap.Interface's.
func (u *urgent) Pop() any {
	last := len(*u) - 1
	e := (*u)[last]
	(*u)[last] = nil
	*u = (*u)[:last]
	return e
}

// retry puts off the next try after a failure. The caller holds mu.
func (m *Manager) retry(e *entry, note string) {
	e.note = clip(note)
	e.tries++
	e.next = time.Now().Add(min(firstRetry<<min(e.tries-1, 10), lastRetry))
}

func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxNote)], "") }

func codeOf(err error) grid.Code {
	if c := grid.CodeOf(err); c != grid.Unknown {
		return c
	}
	return grid.Internal
}
