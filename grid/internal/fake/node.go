package fake

import (
	"context"
	"crypto/sha256"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Key makes the same private key for the same seed.
func Key(seed string) crypto.PrivKey {
	sum := sha256.Sum256([]byte(seed))
	k, _, err := crypto.GenerateEd25519Key(fixed(sum[:]))
	if err != nil {
		panic(err)
	}
	return k
}

type fixed []byte

func (f fixed) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = f[i%len(f)]
	}
	return len(p), nil
}

// Engine runs a Go function in place of every guest.
type Engine struct {
	// Guest is called for each run, on several goroutines. Nil succeeds without output.
	Guest func(ctx context.Context, g *grid.Guest) (grid.Outcome, error)
	// Refuse, when not nil, is what Prepare returns.
	Refuse error
	// About, when not nil, tells what Inspect says of a module.
	About func(cid.Cid) grid.Module
}

// Prepare implements grid.Engine.
func (e *Engine) Prepare(context.Context, cid.Cid) error { return e.Refuse }

// Inspect implements grid.Engine: every module is a command that takes any function, unless About knows better.
func (e *Engine) Inspect(_ context.Context, c cid.Cid, _ bool) (grid.Module, error) {
	if e.About != nil && e.Refuse == nil {
		return e.About(c), nil
	}
	return grid.Module{Kind: grid.Command, Any: true}, e.Refuse
}

// Run implements grid.Engine.
func (e *Engine) Run(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
	if e.Guest == nil {
		return grid.Outcome{}, nil
	}
	return e.Guest(ctx, g)
}

// Close implements grid.Engine.
func (e *Engine) Close() error { return nil }

// Hub joins fake networks in one process.
type Hub struct {
	mu   sync.Mutex
	nets map[peer.ID]*Network
}

// Join adds a node.
func (h *Hub) Join(id peer.ID) *Network {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.nets == nil {
		h.nets = make(map[peer.ID]*Network)
	}
	n := &Network{hub: h, self: id, calls: make(map[grid.Protocol]handler)}
	h.nets[id] = n
	return n
}

type handler = func(context.Context, peer.ID, []byte) ([]byte, error)

// Network is one node's side of a Hub. It has calls, but no streams and no peer events: a node on its
// own is offline.
type Network struct {
	hub   *Hub
	self  peer.ID
	mu    sync.Mutex
	calls map[grid.Protocol]handler
}

// Self implements grid.Network.
func (n *Network) Self() peer.ID { return n.self }

// Peers implements grid.Network.
func (n *Network) Peers() []grid.PeerInfo { return nil }

// Subscribe implements grid.Network.
func (n *Network) Subscribe(func(grid.PeerEvent)) (stop func()) { return func() {} }

// Call implements grid.Network. It may be used to speak as this node would.
func (n *Network) Call(ctx context.Context, to peer.ID, p grid.Protocol, req []byte) ([]byte, error) {
	n.hub.mu.Lock()
	other := n.hub.nets[to]
	n.hub.mu.Unlock()
	if other == nil {
		return nil, grid.Errorf(grid.Unavailable, "no node %s", to)
	}
	other.mu.Lock()
	f := other.calls[p]
	other.mu.Unlock()
	if f == nil {
		return nil, grid.Errorf(grid.Unsupported, "node %s does not speak %s", to, p)
	}
	reply, err := f(ctx, n.self, req)
	if err != nil {
		return nil, grid.Errorf(grid.CodeOf(err), "%s", err) // as much as crosses a wire
	}
	return reply, nil
}

// Serve implements grid.Network. Unlike a real one it lets a later node take a name over.
func (n *Network) Serve(p grid.Protocol, f func(context.Context, peer.ID, []byte) ([]byte, error)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls[p] = f
}

// Open implements grid.Network.
func (n *Network) Open(context.Context, peer.ID, grid.Protocol) (grid.Stream, error) {
	return nil, grid.Errorf(grid.Unsupported, "no streams here")
}

// Handle implements grid.Network.
func (n *Network) Handle(grid.Protocol, func(context.Context, peer.ID, grid.Stream)) {}

// Provide implements grid.Network.
func (n *Network) Provide(context.Context, cid.Cid) error { return nil }

// Providers implements grid.Network.
func (n *Network) Providers(context.Context, cid.Cid, int) ([]peer.ID, error) { return nil, nil }

// Scheduler runs every task of every job on this node, one a grain, the deepest first and else first come first served, and tries
// tasks that failed for the node's reasons Tries times.
type Scheduler struct {
	Tries int // 0: 3
	// Give makes it give all it has queued to whoever asks, and run nothing itself.
	Give bool
	// Share makes it wake the others when it has work, give part of it to whoever asks, and take back what was
	// given to a node that went, or has not come back in time.
	Share bool
	// Outside makes it take whoever it asks for a node of another realm.
	Outside bool
	// Seen, when not nil, is told of every event, on the node's loop.
	Seen func(grid.Event)

	parked  map[uint64]grid.Lease
	waiting []uint64 // parked ones that want a slot

	slots []bool // busy
	peers map[peer.ID]bool
	lent  []lent
	now   time.Time
	run   []grid.Lease
	queue []grid.Lease
	jobs  map[grid.JobID]*fakeJob
	out   []grid.Effect
}

// lent is a task that another node is to run.
type lent struct {
	grid.Lease
	to    peer.ID
	until time.Time
}

// lentFor is how long a task may be away.
const lentFor = 5 * time.Second

type fakeJob struct {
	opened grid.JobOpened
	paused bool
	stages []*fakeStage
	failed []grid.FailedTask
}

// fakeStage is asked for as what its tasks need ends.
type fakeStage struct {
	grid.StagePlan
	asked []bool
	wait  uint32 // tasks that are not asked for
	ended map[uint32]bool
	tries map[uint32]int
	ready map[uint32]bool
}

func (st *fakeStage) done() bool { return uint32(len(st.ended)) == st.Tasks }

// stage finds a stage that was asked for and has not ended.
func (s *Scheduler) stage(w grid.Work) (*fakeJob, *fakeStage) {
	j := s.jobs[w.Job]
	if j == nil || int(w.Stage) >= len(j.stages) || j.stages[w.Stage].wait == j.stages[w.Stage].Tasks || j.stages[w.Stage].done() {
		return nil, nil
	}
	return j, j.stages[w.Stage]
}

// NewScheduler makes one for a number of slots.
func NewScheduler(slots int) *Scheduler {
	return &Scheduler{slots: make([]bool, slots), run: make([]grid.Lease, slots), jobs: make(map[grid.JobID]*fakeJob)}
}

// NextTick implements grid.Scheduler.
func (s *Scheduler) NextTick() (next time.Time) {
	for _, l := range s.lent {
		if next.IsZero() || l.until.Before(next) {
			next = l.until
		}
	}
	return next
}

// takeBack queues again what was lent, where that is of no use any more.
func (s *Scheduler) takeBack(useless func(lent) bool) {
	s.lent = slices.DeleteFunc(s.lent, func(l lent) bool {
		j, st := s.stage(l.Work())
		if j == nil || j.opened.Lease.Epoch != l.Epoch || st.ended[l.Lo] {
			return true
		}
		if useless(l) {
			s.queue = append(s.queue, l.Lease)
			return true
		}
		return false
	})
}

// Load implements grid.Scheduler.
func (s *Scheduler) Load() grid.Load {
	return grid.Load{Queued: uint64(len(s.queue)), Slots: len(s.slots)}
}

// Step implements grid.Scheduler.
func (s *Scheduler) Step(now time.Time, ev grid.Event) []grid.Effect {
	s.now = now
	if s.Seen != nil {
		s.Seen(ev)
	}
	s.out = nil
	switch ev := ev.(type) {
	case grid.JobOpened:
		j := &fakeJob{opened: ev, paused: ev.Paused}
		for _, plan := range ev.Stages {
			j.stages = append(j.stages, &fakeStage{StagePlan: plan, wait: plan.Tasks, asked: make([]bool, plan.Tasks), ended: map[uint32]bool{}, tries: map[uint32]int{}, ready: map[uint32]bool{}})
		}
		s.jobs[ev.Lease.Job] = j
		s.advance(j)
	case grid.Prepared:
		s.prepared(ev)
	case grid.Paused:
		if j := s.jobs[ev.Job]; j != nil {
			j.paused = ev.On
		}
	case grid.JobEnded:
		s.end(ev.Job)
	case grid.GrainDone:
		l := s.run[ev.Slot]
		s.slots[ev.Slot] = false
		s.results(l.Work(), ev.Results)
		if s.Share && s.jobs[l.Job] == nil && len(s.queue) == 0 {
			s.do(grid.AskSteal{Victim: l.Owner, Slots: len(s.slots)})
		}
	case grid.Parked:
		if s.parked == nil {
			s.parked = make(map[uint64]grid.Lease)
		}
		s.parked[ev.Ticket] = s.run[ev.Slot]
		s.slots[ev.Slot] = false
	case grid.Unparked:
		s.waiting = slices.DeleteFunc(s.waiting, func(t uint64) bool { return t == ev.Ticket })
		if _, ok := s.parked[ev.Ticket]; ok && !ev.Gone {
			s.waiting = append(s.waiting, ev.Ticket)
		} else {
			delete(s.parked, ev.Ticket)
		}
	case grid.Reported:
		if j := s.jobs[ev.Job]; j != nil && j.opened.Lease.Epoch == ev.Epoch {
			s.results(ev.Work, slices.DeleteFunc(slices.Clone(ev.Results), func(r grid.TaskResult) bool {
				holds := func(l lent) bool { return l.Work() == ev.Work && l.Lo == r.Index && l.to == ev.From }
				return s.Share && r.Outcome == grid.HostFailed && !slices.ContainsFunc(s.lent, holds)
			}))
		}
	case grid.Doubted:
		a := grid.AnswerDoubted{Call: ev.Call}
		for _, i := range ev.Tasks {
			holds := func(l lent) bool { return l.Work() == ev.Work && l.Lo <= i && i < l.Hi && l.to == ev.From }
			if !s.Give && !slices.ContainsFunc(s.lent, holds) {
				a.Refused = append(a.Refused, i)
			}
		}
		s.do(a)
	case grid.StealAsked:
		a := grid.AnswerSteal{Call: ev.Call}
		if s.Give {
			a.Leases, s.queue = s.queue, nil
		}
		for s.Share && len(s.queue) > 1 && len(a.Leases) < ev.Slots {
			l := s.queue[len(s.queue)-1]
			if s.jobs[l.Job] == nil || s.jobs[l.Job].paused {
				break
			}
			s.queue = s.queue[:len(s.queue)-1]
			s.lent = append(s.lent, lent{l, ev.From, now.Add(lentFor)})
			a.Leases = append(a.Leases, l)
		}
		s.do(a)
	case grid.StealAnswered:
		s.queue = append(s.queue, ev.Leases...)
	case grid.Woken:
		s.do(grid.AskSteal{Victim: ev.From, Slots: len(s.slots), Outside: s.Outside})
	case grid.Dropped:
		over := func(l grid.Lease) bool { return l.Job == ev.Job && l.Owner == ev.From && l.Epoch <= ev.Epoch }
		for i, l := range s.run {
			if s.slots[i] && over(l) {
				s.do(grid.StopGrain{Slot: i})
			}
		}
		s.queue = slices.DeleteFunc(s.queue, over)
	case grid.PeerChanged:
		if s.peers == nil {
			s.peers = make(map[peer.ID]bool)
		}
		s.peers[ev.Peer] = ev.Up
		if !ev.Up {
			s.takeBack(func(l lent) bool { return l.to == ev.Peer })
		}
	case grid.Tick:
		s.takeBack(func(l lent) bool { return !now.Before(l.until) })
	}
	s.dispatch()
	return s.out
}

func (s *Scheduler) do(e grid.Effect) { s.out = append(s.out, e) }

func (s *Scheduler) prepared(ev grid.Prepared) {
	j, st := s.stage(ev.Work)
	if j == nil {
		return
	}
	for _, d := range ev.Done {
		for i := d.Lo; i < d.Hi; i++ {
			st.ended[i] = true
		}
	}
	for _, i := range ev.Failed {
		if !st.ended[i] {
			st.ended[i] = true
			j.failed = append(j.failed, grid.FailedTask{Work: ev.Work, Index: i})
		}
	}
	l := j.opened.Lease
	l.Stage, l.Table, l.Class = ev.Stage, ev.Table, st.Class
	for _, r := range ev.Ready {
		for i := r.Lo; i < r.Hi; i++ {
			if !st.ended[i] && !st.ready[i] {
				s.queue = append(s.queue, l.With(grid.Span{Lo: i, Hi: i + 1}))
			}
			st.ready[i] = true
		}
	}
	if s.Share {
		for p, up := range s.peers {
			if up {
				s.do(grid.Wake{To: p})
			}
		}
	}
	s.advance(j)
}

func (s *Scheduler) results(w grid.Work, results []grid.TaskResult) {
	j, st := s.stage(w)
	if j == nil {
		return
	}
	most := s.Tries
	if st.Attempts > 0 {
		most = st.Attempts
	}
	if most == 0 {
		most = 3
	}
	for _, r := range results {
		if st.ended[r.Index] || !st.ready[r.Index] {
			continue
		}
		switch r.Outcome {
		case grid.GuestFailed:
			j.failed = append(j.failed, grid.FailedTask{Work: w, Index: r.Index})
		case grid.HostFailed:
			if st.tries[r.Index]++; st.tries[r.Index] < most {
				l := j.opened.Lease
				l.Stage, l.Class = w.Stage, st.Class
				for _, q := range s.run { // it has the table
					if q.Work() == w {
						l.Table = q.Table
					}
				}
				s.queue = append(s.queue, l.With(grid.Span{Lo: r.Index, Hi: r.Index + 1}))
				continue
			}
			j.failed = append(j.failed, grid.FailedTask{Work: w, Index: r.Index, Attempts: st.tries[r.Index]})
		}
		st.ended[r.Index] = true
	}
	s.advance(j)
}

func (s *Scheduler) advance(j *fakeJob) {
	id := j.opened.Lease.Job
	bad := uint32(len(j.failed)) > j.opened.Allow
	whole, busy := true, false
	for i, st := range j.stages {
		whole = whole && st.done()
		if !bad {
			if spans := j.met(st); len(spans) > 0 {
				s.do(grid.Prepare{Work: grid.Work{Job: id, Stage: uint32(i)}, Spans: spans})
			}
		}
		busy = busy || uint32(len(st.ended))+st.wait < st.Tasks
	}
	if whole || bad && !(j.opened.KeepGoing && busy) {
		s.end(id)
		s.do(grid.CloseJob{Job: id, Bad: bad, Failed: j.failed, Failures: uint32(len(j.failed))})
	}
}

// met lists the tasks of a stage that are not asked for and all of whose needs have ended, and counts them as asked for.
func (j *fakeJob) met(st *fakeStage) (spans []grid.Span) {
	if st.wait == 0 {
		return nil
	}
	for _, n := range st.Needs {
		if n.Fan == 0 && !j.stages[n.Stage].done() {
			return nil
		}
	}
tasks:
	for i := range st.Tasks {
		for _, n := range st.Needs {
			for k := i * n.Fan; k < min((i+1)*n.Fan, j.stages[n.Stage].Tasks); k++ {
				if !j.stages[n.Stage].ended[k] {
					continue tasks
				}
			}
		}
		if st.asked[i] || st.ended[i] {
			continue
		}
		st.asked[i] = true
		st.wait--
		if last := len(spans) - 1; last >= 0 && spans[last].Hi == i {
			spans[last].Hi++
		} else {
			spans = append(spans, grid.Span{Lo: i, Hi: i + 1})
		}
	}
	return spans
}

func (s *Scheduler) end(id grid.JobID) {
	delete(s.jobs, id)
	var keep []grid.Lease
	for _, l := range s.queue {
		if l.Job != id {
			keep = append(keep, l)
		}
	}
	s.queue = keep
	s.do(grid.StopJob{Job: id})
	for _, l := range s.lent {
		if l.Job == id {
			s.do(grid.TellDropped{To: l.to, Job: id, Epoch: l.Epoch})
		}
	}
}

func (s *Scheduler) dispatch() {
	for i := range s.slots {
		if !s.slots[i] && len(s.waiting) > 0 {
			t := s.waiting[0]
			s.waiting = s.waiting[1:]
			s.slots[i], s.run[i] = true, s.parked[t]
			delete(s.parked, t)
			s.do(grid.GiveSlot{Slot: i, Ticket: t})
		}
	}
	if s.Give {
		return
	}
	for i := range s.slots {
		if !s.slots[i] && len(s.queue) > 0 {
			next := -1 // of the deepest the first
			for k, l := range s.queue {
				if j := s.jobs[l.Job]; j != nil && j.paused {
					continue
				}
				if next < 0 || l.Class.Depth > s.queue[next].Class.Depth {
					next = k
				}
			}
			if next < 0 {
				break
			}
			s.slots[i], s.run[i] = true, s.queue[next]
			s.queue = slices.Delete(s.queue, next, next+1)
			s.do(grid.Run{Slot: i, Lease: s.run[i]})
		}
	}
}

// World is the lasting parts of one node, and the node made of them.
type World struct {
	Key       crypto.PrivKey
	ID        peer.ID
	Net       *Network
	Blocks    *Blocks
	Files     Files
	Fetcher   *Fetcher
	Ledger    *Ledger
	Cache     *Cache
	Engine    *Engine
	Pins      *Pins
	Scheduler *Scheduler // made anew by Config unless set before
	Module    grid.Link  // a stored block to name as module
}

// NewWorld makes the parts of a node named by a seed, on a hub.
func NewWorld(hub *Hub, seed string) *World {
	w := &World{Key: Key(seed), Blocks: NewBlocks(), Ledger: new(Ledger), Cache: new(Cache), Engine: new(Engine), Pins: new(Pins)}
	id, err := peer.IDFromPrivateKey(w.Key)
	if err != nil {
		panic(err)
	}
	w.ID, w.Net = id, hub.Join(id)
	w.Files, w.Fetcher = Files{w.Blocks}, &Fetcher{Blocks: w.Blocks}
	w.Pins.Self, w.Pins.Blocks = id, w.Blocks
	m := grid.NewBlock(cid.Raw, []byte("\x00asm\x01\x00\x00\x00"))
	_ = w.Blocks.Put(context.Background(), m)
	w.Module = grid.Link{Cid: m.CID()}
	return w
}

// Config is the node's configuration, with two worker slots.
func (w *World) Config() grid.NodeConfig {
	s := w.Scheduler
	if s == nil {
		s = NewScheduler(2)
	}
	return grid.NodeConfig{
		Key: w.Key, Network: w.Net, Blocks: w.Blocks, Files: w.Files, Fetcher: w.Fetcher, Ledger: w.Ledger,
		Cache: w.Cache, Engine: w.Engine, Scheduler: s, Pins: w.Pins, Slots: 2, Puller: w.Fetcher, Links: Links,
	}
}

// Text is a guest that writes text to its standard output.
func Text(text string) func(context.Context, *grid.Guest) (grid.Outcome, error) {
	return func(_ context.Context, g *grid.Guest) (grid.Outcome, error) {
		_, err := io.WriteString(g.Stdout, text)
		return grid.Outcome{Run: time.Millisecond}, err
	}
}

type pinSet interface{ grid.Pins }

// Pins is a pin set that copies what is pinned to the stores of other nodes at once, as far as these are up.
type Pins struct {
	pinSet // of which only what a Node calls is here

	Self   peer.ID
	Blocks *Blocks
	Others []*Blocks

	mu   sync.Mutex
	pins []grid.Pin
	now  map[cid.Cid]grid.PinStatus
}

// Pin makes the copies, one here and the others in order of Others.
func (p *Pins) Pin(ctx context.Context, pin grid.Pin) (grid.PinStatus, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pins = append(p.pins, pin)
	st := grid.PinStatus{Pin: pin, Copies: []grid.Copy{{Node: "here", State: grid.CopyDurable}}}
	st.By = p.Self
	if p.Blocks != nil {
		if err := p.Blocks.walk(ctx, pin.Root.Cid, func(b grid.Block) error { st.Size += int64(len(b.Data())); return nil }); err != nil {
			return grid.PinStatus{}, err
		}
	}
	for _, b := range p.Others {
		if len(st.Copies) >= max(pin.Replicas, 1) {
			break
		}
		if b.Down() || p.Blocks.walk(ctx, pin.Root.Cid, func(x grid.Block) error { return b.Put(ctx, x) }) != nil {
			continue
		}
		st.Copies = append(st.Copies, grid.Copy{Node: "there", State: grid.CopyDurable})
	}
	if p.now == nil {
		p.now = make(map[cid.Cid]grid.PinStatus)
	}
	p.now[pin.Root.Cid] = st
	return st, nil
}

// Unpin forgets a pin; the copies stay.
func (p *Pins) Unpin(_ context.Context, root cid.Cid) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.now[root]; !ok {
		return grid.Errorf(grid.NotFound, "no pin %s", root)
	}
	delete(p.now, root)
	return nil
}

// Status tells how a pin stood when it was made.
func (p *Pins) Status(_ context.Context, root cid.Cid, _ bool) (grid.PinStatus, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	st, ok := p.now[root]
	if !ok {
		return st, grid.Errorf(grid.NotFound, "no pin %s", root)
	}
	return st, nil
}

// Draining says that it is not.
func (p *Pins) Draining(context.Context) (grid.DrainStatus, error) { return grid.DrainStatus{}, nil }

// Pins lists what was pinned and not unpinned.
func (p *Pins) Pins(context.Context) (list []grid.PinStatus, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, st := range p.now {
		list = append(list, st)
	}
	return list, nil
}

// Held lists the names of the pins there are, sorted.
func (p *Pins) Held() (names []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, st := range p.now {
		names = append(names, st.Name)
	}
	slices.Sort(names)
	return names
}

// Pinned is every pin so far.
func (p *Pins) Pinned() []grid.Pin {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]grid.Pin(nil), p.pins...)
}
