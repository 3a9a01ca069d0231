package grid

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// What the nodes of a realm tell those who look on: each a call with a lookMsg that is answered with a lookReply.
const (
	protoPulse       Protocol = "pulse/1"        // of one Pulse
	protoStretches   Protocol = "stretches/1"    // of Stretches
	protoRealmEvents Protocol = "realm-events/1" // of RealmEvents
)

type (
	// lookMsg asks for what a node keeps, in the order of its numbers. Numbers are those of one run of the node.
	lookMsg struct {
		Run  int64  `cbor:"run,omitempty"`  // that From and To are of: when it was started
		From uint64 `cbor:"from,omitempty"` // the first that is wanted
		To   uint64 `cbor:"to,omitempty"`   // the first that is not; 0: all
		None bool   `cbor:"none,omitempty"` // only Next is wanted

		Since      int64 `cbor:"since,omitempty"` // times since 1970, in ns
		Until      int64 `cbor:"until,omitempty"`
		Job        JobID `cbor:"job,omitempty"`
		Resolution int64 `cbor:"resolution,omitempty"`
		Limit      int   `cbor:"limit,omitempty"`
	}
	// lookReply answers it. The node that tells is the one that was asked, whatever is in the items.
	lookReply[T any] struct {
		Run   int64  `cbor:"run"`
		Next  uint64 `cbor:"next"` // the number behind the last that was looked at
		Now   int64  `cbor:"now"`  // by the node's clock
		Items []T    `cbor:"items"`
	}
)

// Bounds on looking on.
const (
	lookers      = 256  // who look on by one node at the same time
	lookAtOnce   = 64   // nodes that are being asked
	lookNodes    = 4096 // nodes that are looked at
	lookPace     = 5 * time.Millisecond
	lookPatience = time.Second     // until the first round is over for those who wait for it
	lookLinger   = 3 * time.Second // the asking goes on for the next one
	lookBackoff  = 15 * time.Second
	lookBatch    = 50 * time.Millisecond // in which what comes is told together
	looksAtOnce  = 4                     // questions about the past that are being answered
	answersMade  = 2                     // answers to other nodes that are being made: of megabytes, from tens of thousands of items
	answersOf    = 8                     // and of these, with those that wait, for one node
	// clockSlack is how much a node's clock may be wrong without being put right.
	clockSlack = time.Second
)

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// wants reports whether something that lasted from then to then is in the time that is asked for.
func (m *lookMsg) wants(from, to int64) bool {
	return (m.Since == 0 || to > m.Since) && (m.Until == 0 || from < m.Until)
}

// lookSpan is what of a row that ends before next is asked for, and the reply without it.
func lookSpan[T any](n *Node, m *lookMsg, next uint64) (lo, hi uint64, r lookReply[T]) {
	r = lookReply[T]{Run: n.started.UnixNano(), Next: next, Now: time.Now().UnixNano()}
	if m.None {
		return next, next, r
	}
	if m.Run == r.Run {
		lo = min(m.From, next)
		if m.To > 0 {
			r.Next = min(m.To, next)
		}
	}
	return lo, r.Next, r
}

// clockOf puts times of another node's clock right.
type clockOf struct {
	now time.Time
	off time.Duration // to add to its times
}

// clockOver compares clocks by a call that has just been answered. A difference that may come of the call itself is none.
func clockOver(began time.Time, theirs int64) clockOf {
	c := clockOf{now: time.Now()}
	trip := c.now.Sub(began)
	off := began.Add(trip / 2).Sub(time.Unix(0, theirs))
	if off.Abs() > clockSlack+trip {
		c.off = off
	}
	return c
}

// local is a time by this node's clock.
func (c clockOf) local(t time.Time) time.Time { return t.Add(c.off).UTC() }

// serveLooks answers those who look on.
func (n *Node) serveLooks() {
	serveLook(n, protoPulse, n.ownPulse)
	serveLook(n, protoStretches, n.ownStretches)
	serveLook(n, protoRealmEvents, n.ownEvents)
}

func serveLook[T any](n *Node, p Protocol, own func(*lookMsg) lookReply[T]) {
	room := answerRoom{made: make(chan struct{}, answersMade), of: make(map[peer.ID]int)}
	serveCall(n, p, func(ctx context.Context, from peer.ID, m lookMsg) (lookReply[T], error) {
		if err := n.checkRealm(ctx, from); err != nil {
			return lookReply[T]{}, err
		}
		leave, err := room.enter(ctx, from)
		if err != nil {
			return lookReply[T]{}, err
		}
		defer leave()
		return own(&m), nil
	})
}

// answerRoom bounds the answers that are being made. Who asks for many at once does not have others wait for all of them.
type answerRoom struct {
	made chan struct{}

	mu sync.Mutex
	of map[peer.ID]int // that are made for a node, or wait
}

func (r *answerRoom) enter(ctx context.Context, from peer.ID) (leave func(), err error) {
	if !r.count(from) {
		return nil, Errorf(Busy, "%d questions of node %s are being answered", answersOf, from).Hint("wait for some of the answers")
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout) // who asks waits no longer
	defer cancel()
	select {
	case r.made <- struct{}{}:
		return func() { <-r.made; r.uncount(from) }, nil
	case <-ctx.Done():
		r.uncount(from)
		return nil, context.Cause(ctx)
	}
}

func (r *answerRoom) count(from peer.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of[from] >= answersOf {
		return false
	}
	r.of[from]++
	return true
}

func (r *answerRoom) uncount(from peer.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of[from]--; r.of[from] == 0 {
		delete(r.of, from)
	}
}

// look asks one node, or this one itself. take makes each item of another node's fit to be shown, or is false.
func look[T any](ctx context.Context, n *Node, to peer.ID, p Protocol, m *lookMsg, most int, own func(*lookMsg) lookReply[T], take func(*T, peer.ID, clockOf) bool) (lookReply[T], error) {
	if to == n.self {
		return own(m), nil
	}
	if n.gone(to) {
		return lookReply[T]{}, Errorf(Unavailable, "node %s is down", to)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	began := time.Now()
	r, err := call[lookReply[T]](ctx, n, to, p, m)
	if err != nil {
		return r, err
	}
	if m.Limit > 0 {
		most = min(most, m.Limit)
	}
	if len(r.Items) > most {
		return lookReply[T]{}, Errorf(Invalid, "node %s answers a %s with %d items, of at most %d", to, p, len(r.Items), most)
	}
	clock := clockOver(began, r.Now)
	kept := r.Items[:0]
	for i := range r.Items {
		if take(&r.Items[i], to, clock) {
			kept = append(kept, r.Items[i])
		}
	}
	r.Items = kept
	return r, nil
}

// looked lists the nodes of the realm, up or not, this one first.
func (n *Node) looked(ctx context.Context) []peer.ID {
	all := map[peer.ID]struct{}{n.self: {}}
	if n.realm != nil {
		for _, id := range n.realm.up() {
			all[id] = struct{}{}
		}
		members, _ := n.rollCall(ctx) // or else those that are up
		for id := range members {
			all[id] = struct{}{}
		}
	}
	ids := make([]peer.ID, 0, len(all))
	for id := range all {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b peer.ID) int {
		if (a == n.self) != (b == n.self) {
			return map[bool]int{true: -1, false: 1}[a == n.self]
		}
		return cmp.Compare(a, b)
	})
	return ids[:min(len(ids), lookNodes)]
}

// rounds asks the nodes of the realm again and again, for all who look on together and only while somebody does. Each node is asked by
// one call at a time, however long it takes; all of them with no more than one call in lookPace, but for the first round.
type rounds struct {
	n     *Node
	begin func() // is called before the first round
	ask   func(ctx context.Context, id peer.ID, first bool) error

	mu      sync.Mutex
	want    map[*byte]time.Duration // how often each of those who look on wants it
	running bool
	poke    chan struct{} // somebody has come
	first   chan struct{} // closed when the first round is over
}

// join has the asking go on until leave is called, and waits for the first round.
func (r *rounds) join(ctx context.Context, every time.Duration) (leave func(), err error) {
	who := new(byte)
	r.mu.Lock()
	if len(r.want) >= lookers {
		r.mu.Unlock()
		return nil, Errorf(Busy, "%d look on by this node already, as many as may", lookers).Hint("close some, or ask another node of the realm")
	}
	if r.want == nil {
		r.want = make(map[*byte]time.Duration)
		r.poke = make(chan struct{}, 1)
	}
	r.want[who] = every
	if !r.running {
		r.running, r.first = true, make(chan struct{})
		r.n.spawn(r.run)
	}
	first := r.first
	r.mu.Unlock()
	select {
	case r.poke <- struct{}{}:
	default:
	}
	leave = func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.want, who)
	}
	select {
	case <-first:
		return leave, nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-r.n.ctx.Done():
		err = errClosing
	}
	leave()
	return nil, err
}

// every is how often it is to be asked; 0: nobody wants it.
func (r *rounds) every() (least time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.want {
		if least == 0 || d < least {
			least = d
		}
	}
	return least
}

// due is when a node is to be asked again.
type due struct {
	asking bool
	at     time.Time
	pause  time.Duration // of one that is silent
}

func (r *rounds) run() {
	n := r.n
	ctx, cancel := context.WithCancel(n.ctx)
	defer cancel()
	var mu sync.Mutex // guards known
	known := make(map[peer.ID]*due)
	room := make(chan struct{}, lookAtOnce)
	var left time.Time
	r.begin()
	for first := true; ; first = false {
		began := time.Now()
		var wg sync.WaitGroup
		ids := n.looked(ctx)
		for i, id := range ids {
			mu.Lock()
			d := known[id]
			if d == nil {
				d = new(due)
				known[id] = d
			}
			ask := !d.asking && !began.Before(d.at)
			if ask {
				d.asking = true
			}
			mu.Unlock()
			if !ask {
				continue
			}
			if !first && i >= lookAtOnce && !pauseFor(ctx, time.Until(began.Add(time.Duration(i)*lookPace))) {
				return
			}
			select {
			case room <- struct{}{}:
			case <-ctx.Done():
				return
			}
			wg.Add(1)
			n.spawn(func() {
				defer wg.Done()
				defer func() { <-room }()
				err := r.ask(ctx, id, first)
				mu.Lock()
				defer mu.Unlock()
				d.asking = false
				if err == nil {
					d.pause, d.at = 0, time.Time{}
					return
				}
				d.pause = min(max(2*d.pause, time.Second), lookBackoff)
				d.at = time.Now().Add(d.pause)
			})
		}
		if first {
			answered := make(chan struct{})
			n.spawn(func() { wg.Wait(); close(answered) })
			select {
			case <-answered:
			case <-time.After(lookPatience):
			case <-ctx.Done():
				return
			}
			close(r.first)
		}
		mu.Lock()
		for id, d := range known { // of those that are of the realm no longer
			if len(known) > lookNodes && !d.asking && !slices.Contains(ids, id) {
				delete(known, id)
			}
		}
		mu.Unlock()
		for {
			every := r.every()
			now := time.Now()
			switch {
			case every > 0:
				left = time.Time{}
			case left.IsZero():
				left = now
			}
			wait := lookLinger - now.Sub(left)
			if every > 0 {
				wait = every - now.Sub(began)
			}
			if wait > 0 {
				t := time.NewTimer(wait)
				select {
				case <-t.C:
				case <-r.poke:
				case <-ctx.Done():
				}
				t.Stop()
				if ctx.Err() != nil {
					return
				}
				continue
			}
			if every > 0 {
				break
			}
			r.mu.Lock()
			if len(r.want) == 0 {
				r.running = false
				r.mu.Unlock()
				return
			}
			r.mu.Unlock()
		}
	}
}

// gazette is what the nodes of the realm have to tell of one kind: what they keep, and then what is new, for all who want to know
// by the same calls.
type gazette[T any] struct {
	n      *Node
	proto  Protocol
	most   int // items of one answer
	own    func(*lookMsg) lookReply[T]
	take   func(*T, peer.ID, clockOf) bool
	asking rounds
	past   chan struct{} // room for questions about it

	mu      sync.Mutex
	began   time.Time // of the asking
	items   []heard[T]
	first   uint64 // number of items[0]
	changed chan struct{}
	marks   map[peer.ID]bookmark
}

type heard[T any] struct {
	from peer.ID
	item T
}

// bookmark is how far a node's row was read.
type bookmark struct {
	run  int64
	next uint64
}

// maxTold is how much that is new is kept for those who are slow to read it.
const maxTold = 1 << 14

func newGazette[T any](n *Node, p Protocol, most int, own func(*lookMsg) lookReply[T], take func(*T, peer.ID, clockOf) bool) *gazette[T] {
	g := &gazette[T]{n: n, proto: p, most: most, own: own, take: take, past: make(chan struct{}, looksAtOnce), changed: make(chan struct{})}
	g.asking = rounds{n: n, begin: g.begin, ask: g.news}
	return g
}

// begin forgets what was new when the nodes were asked the last time.
func (g *gazette[T]) begin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.began = time.Now()
	g.first += uint64(len(g.items))
	g.items, g.marks = nil, make(map[peer.ID]bookmark)
}

// news asks a node for what is new since it was asked last; in the first round, from when on things are new.
func (g *gazette[T]) news(ctx context.Context, id peer.ID, first bool) error {
	g.mu.Lock()
	at, known := g.marks[id]
	m := &lookMsg{Run: at.run, From: at.next, None: first && !known, Limit: g.most}
	if !known {
		m.Since = nanos(g.began)
	}
	g.mu.Unlock()
	r, err := look(ctx, g.n, id, g.proto, m, g.most, g.own, g.take)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.marks[id] = bookmark{r.Run, r.Next}
	if len(r.Items) == 0 || m.None {
		return nil
	}
	for _, v := range r.Items {
		g.items = append(g.items, heard[T]{id, v})
	}
	if extra := len(g.items) - maxTold; extra > 0 {
		g.items = slices.Clone(g.items[extra:])
		g.first += uint64(extra)
	}
	close(g.changed)
	g.changed = make(chan struct{})
	return nil
}

// read calls f with what the nodes keep that is asked for, or one of them does, and, to follow, then with what is new. An error of f
// ends it.
func (g *gazette[T]) read(ctx context.Context, m lookMsg, only peer.ID, follow bool, f func([]T) error) error {
	if !follow {
		list, err := g.kept(ctx, m, only, nil)
		if err != nil {
			return err
		}
		return f(list)
	}
	leave, err := g.asking.join(ctx, time.Second)
	if err != nil {
		return err
	}
	defer leave()
	g.mu.Lock()
	next := g.first + uint64(len(g.items))
	marks := make(map[peer.ID]bookmark, len(g.marks))
	for id, at := range g.marks {
		marks[id] = at
	}
	g.mu.Unlock()
	list, err := g.kept(ctx, m, only, marks)
	if err != nil {
		return err
	}
	for {
		if err := f(list); err != nil {
			return err
		}
		list = nil
		for len(list) == 0 {
			g.mu.Lock()
			next = max(next, g.first)
			for _, t := range g.items[next-g.first:] {
				if only == "" || t.from == only {
					list = append(list, t.item)
				}
			}
			next = g.first + uint64(len(g.items))
			changed := g.changed
			g.mu.Unlock()
			if len(list) > 0 {
				break
			}
			select {
			case <-changed:
				if !pauseFor(ctx, lookBatch) { // what others tell at the same time comes with it
					return context.Cause(ctx)
				}
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-g.n.ctx.Done():
				return errClosing
			}
		}
	}
}

// kept asks all nodes, or one, for what they keep, up to the marks where there are some. A node that does not answer is left out,
// unless it is the one that is asked for.
func (g *gazette[T]) kept(ctx context.Context, m lookMsg, only peer.ID, marks map[peer.ID]bookmark) ([]T, error) {
	select {
	case g.past <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-g.past }()
	ids := []peer.ID{only}
	if only == "" {
		ids = g.n.looked(ctx)
	} else if err := g.n.checkRealm(ctx, only); err != nil {
		return nil, Errorf(NotFound, "node %s is not of this realm", only).Hint("`grid top --once` lists its nodes")
	}
	if m.Limit > 0 {
		m.Limit = min(g.most, m.Limit, max(64, 4*m.Limit/len(ids)))
	}
	var mu sync.Mutex
	var list []T
	var failed error
	var wg sync.WaitGroup
	room := make(chan struct{}, lookAtOnce)
	for _, id := range ids {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			m := m
			if marks != nil {
				at := marks[id]
				if at.next == 0 {
					return // nothing, or it is silent, and all that it has to tell will be news
				}
				m.Run, m.To = at.run, at.next
			}
			r, err := look(ctx, g.n, id, g.proto, &m, g.most, g.own, g.take)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
				return
			}
			if marks != nil && r.Run != m.Run {
				return // it was started anew meanwhile, and all of it is news
			}
			list = append(list, r.Items...)
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if only != "" && failed != nil {
		return nil, failed
	}
	return list, nil
}
