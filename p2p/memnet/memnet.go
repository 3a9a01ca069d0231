// Package memnet is the network in memory: worlds of nodes that live in one process, for tests and
// simulations. It keeps the contract and the error codes of package p2p, opens no socket and waits
// only on timers and channels, so that a world made inside a testing/synctest bubble runs in virtual
// time. It models latency, cut links and dead nodes; bandwidth and loss it does not.
package memnet

import (
	"context"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p/internal/pipe"
	"github.com/wasmgrid/wasmgrid/p2p/internal/serve"
)

// DefaultTimeout bounds a call whose context has no deadline, as in package p2p.
const DefaultTimeout = 10 * time.Second

// Config describes a world. The zero Config is one without latency.
type Config struct {
	// Seed of the randomness given to Latency.
	Seed uint64
	// Latency is how long a message from one node to another is under way; nil: no time. It is
	// called for each message, never by two goroutines at once.
	Latency func(r *rand.Rand, from, to peer.ID) time.Duration
	// Silence is how long it takes two nodes to notice that the link between them is cut; 0: they
	// notice at once. A killed node is always noticed at once, as its connections break.
	Silence time.Duration
	// Degree is how many others, by chance, a node connects to as it joins, and again when one of them is gone; whom
	// else it speaks to it connects to at that moment, as in package p2p. Cut is then for links that are there. 0: all others.
	Degree int
	// Most is how many links a node has at most, if Degree is set: of more, those are broken that were used the longest ago. 0: any number.
	Most int
	// Sent is told of everything that goes from one node to another: of a request and of its reply, or of what is written to a stream at
	// once. It is called by many goroutines, and must not block. nil: nobody is.
	Sent func(from, to peer.ID, p grid.Protocol, bytes int)
	// Rates bound what one node may begin with another, by protocol; see package p2p. They count in real time, or in
	// that of a bubble. What is not listed has no bound.
	Rates map[grid.Protocol]grid.Rate
	// Logger hears of panics in handlers; nil: nobody does.
	Logger *slog.Logger
}

// World is a set of nodes, each connected to each other. It is safe for concurrent use.
type World struct {
	cfg Config

	randMu sync.Mutex
	rand   *rand.Rand

	mu        sync.Mutex
	nodes     map[peer.ID]*Node
	order     []peer.ID // of nodes, if Degree is set: to draw from
	uses      uint64    // of links
	links     map[pair]*link
	providers map[cid.Cid][]peer.ID // in the order of their announcements
}

// pair is two nodes, the lesser first.
type pair struct{ a, b peer.ID }

func pairOf(a, b peer.ID) pair {
	if b < a {
		a, b = b, a
	}
	return pair{a, b}
}

// link is the connection between two nodes. Its fields are guarded by World.mu.
type link struct {
	down    chan struct{}         // closed when the nodes notice that it is broken; a healed link is a new one
	healed  [2]chan struct{}      // from the lesser node to the greater, and back: closed when it is not cut (any more)
	silence *time.Timer           // until a cut is noticed
	streams map[*pipe.End]peer.ID // whose end it is
	used    uint64                // when it last was, by World.uses
}

// way is the direction from one of the link's nodes to the other.
func (l *link) way(from, to peer.ID) *chan struct{} {
	if from < to {
		return &l.healed[0]
	}
	return &l.healed[1]
}

func (l *link) cut() bool { return !isClosed(l.healed[0]) || !isClosed(l.healed[1]) }

// hold stops one direction, or lets it go on. World.mu is held.
func (l *link) hold(from, to peer.ID, held bool) {
	w := l.way(from, to)
	switch {
	case held != isClosed(*w):
		return
	case held:
		*w = make(chan struct{})
	default:
		close(*w)
	}
	for s, at := range l.streams {
		if at == to {
			s.HoldIn(held)
		} else {
			s.HoldOut(held)
		}
	}
}

// New makes an empty world.
func New(cfg Config) *World {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &World{
		cfg:       cfg,
		rand:      rand.New(rand.NewPCG(cfg.Seed, 0)),
		nodes:     make(map[peer.ID]*Node),
		links:     make(map[pair]*link),
		providers: make(map[cid.Cid][]peer.ID),
	}
}

// Join adds a node and connects it to all others. It panics when a node of that name is there; one
// that was killed or closed may join again, as a new node.
func (w *World) Join(id peer.ID) *Node {
	n := &Node{world: w, id: id, table: serve.New(w.cfg.Logger, id, w.cfg.Rates)}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.nodes[id] != nil {
		panic("memnet: node " + id.String() + " is there already")
	}
	w.nodes[id] = n
	if w.cfg.Degree > 0 {
		w.order = append(w.order, id)
		w.mingle(n)
		return n
	}
	for other := range w.nodes {
		if other != id {
			w.connect(id, other)
		}
	}
	for other := range w.nodes {
		w.announce(id, other, true)
	}
	return n
}

// mingle connects a node to others until it has as many as Degree. The lock is held.
func (w *World) mingle(n *Node) {
	for tries := 0; n.roster.Len() < min(w.cfg.Degree, len(w.order)-1) && tries < 64*w.cfg.Degree; tries++ {
		if other := w.order[w.draw(len(w.order))]; other != n.id && w.links[pairOf(n.id, other)] == nil {
			w.meet(n.id, other)
		}
	}
}

func (w *World) draw(n int) int {
	w.randMu.Lock()
	defer w.randMu.Unlock()
	return w.rand.IntN(n)
}

// meet connects two nodes, and breaks what is too much for them. The lock is held.
func (w *World) meet(a, b peer.ID) *link {
	w.connect(a, b)
	w.announce(a, b, true)
	l := w.links[pairOf(a, b)]
	l.use(w)
	for _, id := range []peer.ID{a, b} {
		n := w.nodes[id]
		for w.cfg.Most > 0 && n.roster.Len() > w.cfg.Most {
			var stalest peer.ID
			least := uint64(math.MaxUint64)
			for _, e := range n.roster.List() {
				if o := w.links[pairOf(id, e.ID)]; o != nil && o != l && o.used < least {
					stalest, least = e.ID, o.used
				}
			}
			w.breakLink(id, stalest)
		}
	}
	return l
}

func (l *link) use(w *World) {
	w.uses++
	l.used = w.uses
}

// Cut breaks the link between two nodes without a word: what is sent is held back, until after
// Config.Silence both notice and everything between them fails.
func (w *World) Cut(a, b peer.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut(a, b, true)
}

// CutWay is Cut for what one node sends to another; what comes back still arrives.
func (w *World) CutWay(from, to peer.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut(from, to, false)
}

// cut is called with the lock held.
func (w *World) cut(from, to peer.ID, both bool) {
	l := w.links[pairOf(from, to)]
	if l == nil {
		return
	}
	again := l.cut()
	l.hold(from, to, true)
	if both {
		l.hold(to, from, true)
	}
	if again {
		return
	}
	if w.cfg.Silence <= 0 {
		w.breakLink(from, to)
		return
	}
	l.silence = time.AfterFunc(w.cfg.Silence, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.links[pairOf(from, to)] == l && l.cut() {
			w.breakLink(from, to)
		}
	})
}

// Heal mends what Cut or CutWay broke: what was held back goes on, or, when the cut was noticed, the nodes
// connect anew.
func (w *World) Heal(a, b peer.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.nodes[a] == nil || w.nodes[b] == nil || a == b {
		return
	}
	l := w.links[pairOf(a, b)]
	if l == nil {
		w.connect(a, b)
		w.announce(a, b, true)
		return
	}
	if !l.cut() {
		return
	}
	l.silence.Stop()
	l.hold(a, b, false)
	l.hold(b, a, false)
}

// Kill ends a node as a crash does: its connections break, and its handlers' contexts end. It does not
// wait for them; the node's Close does.
func (w *World) Kill(id peer.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.nodes[id]
	if n == nil {
		return
	}
	delete(w.nodes, id)
	if w.cfg.Degree > 0 {
		w.order = slices.DeleteFunc(w.order, func(o peer.ID) bool { return o == id })
		had := n.roster.List()
		for _, e := range had {
			w.breakLink(id, e.ID)
		}
		for _, e := range had {
			if o := w.nodes[e.ID]; o != nil {
				w.mingle(o)
			}
		}
	} else {
		for other := range w.nodes {
			w.breakLink(id, other)
		}
	}
	n.table.Stop()
	for c, list := range w.providers {
		w.providers[c] = slices.DeleteFunc(list, func(p peer.ID) bool { return p == id })
	}
}

// connect makes a link. The lock is held.
func (w *World) connect(a, b peer.ID) {
	l := &link{down: make(chan struct{}), streams: make(map[*pipe.End]peer.ID)}
	for i := range l.healed {
		l.healed[i] = make(chan struct{})
		close(l.healed[i])
	}
	w.links[pairOf(a, b)] = l
}

// breakLink ends a link and everything on it. The lock is held.
func (w *World) breakLink(a, b peer.ID) {
	l := w.links[pairOf(a, b)]
	if l == nil {
		return
	}
	delete(w.links, pairOf(a, b))
	if l.silence != nil {
		l.silence.Stop()
	}
	close(l.down)
	for s := range l.streams {
		_ = s.Reset()
	}
	w.announce(a, b, false)
}

// announce tells two nodes about each other. The lock is held.
func (w *World) announce(a, b peer.ID, up bool) {
	if a == b {
		return
	}
	for _, d := range [...]struct{ to, about peer.ID }{{a, b}, {b, a}} {
		n := w.nodes[d.to]
		switch {
		case n == nil:
		case up:
			n.roster.Up(d.about)
		default:
			n.roster.Down(d.about)
		}
	}
}

func (w *World) latency(from, to peer.ID) time.Duration {
	if w.cfg.Latency == nil {
		return 0
	}
	w.randMu.Lock()
	defer w.randMu.Unlock()
	return w.cfg.Latency(w.rand, from, to)
}

func (w *World) delay(from, to peer.ID) pipe.Delay {
	if w.cfg.Latency == nil {
		return nil
	}
	return func() time.Duration { return w.latency(from, to) }
}

// between finds the far node and the link to it; the node is nil when there is no way.
func (w *World) between(from *Node, to peer.ID) (*Node, *link) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.links[pairOf(from.id, to)]
	switch {
	case w.nodes[from.id] != from:
		return nil, nil
	case l == nil && w.cfg.Degree > 0 && w.nodes[to] != nil:
		l = w.meet(from.id, to)
	case l == nil:
		return nil, nil
	}
	l.use(w)
	return w.nodes[to], l
}

// sent tells of a message.
func (w *World) sent(from, to peer.ID, p grid.Protocol, bytes int) {
	if w.cfg.Sent != nil {
		w.cfg.Sent(from, to, p, bytes)
	}
}

// metered is an end of a stream that tells what is written to it.
type metered struct {
	*pipe.End
	sent func(bytes int)
}

func (m metered) Write(p []byte) (int, error) {
	n, err := m.End.Write(p)
	m.sent(n)
	return n, err
}

// meter is an end of a stream as it is handed out.
func (w *World) meter(e *pipe.End, from, to peer.ID, p grid.Protocol) grid.Stream {
	if w.cfg.Sent == nil || from == to {
		return e
	}
	return metered{e, func(bytes int) { w.cfg.Sent(from, to, p, bytes) }}
}

// cross waits until a message sent now arrives; false when ctx or the link ends first.
func (w *World) cross(ctx context.Context, l *link, from, to peer.ID) bool {
	if d := w.latency(from, to); d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-l.down:
			return false
		case <-ctx.Done():
			return false
		}
	}
	w.mu.Lock()
	healed := *l.way(from, to)
	w.mu.Unlock()
	select {
	case <-healed:
		return !isClosed(l.down)
	case <-l.down:
	case <-ctx.Done():
	}
	return false
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
