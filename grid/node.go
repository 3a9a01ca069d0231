package grid

import (
	"context"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.opentelemetry.io/otel/trace"
)

// NodeConfig is what a node is made of. All fields up to Slots but Keeper are required.
type NodeConfig struct {
	Key       crypto.PrivKey // signs receipts; the private key of Network.Self
	Network   Network
	Blocks    Blocks
	Keeper    Keeper // of Blocks; nil: nothing is ever collected
	Files     Files
	Fetcher   Fetcher
	Ledger    Ledger
	Cache     Cache
	Engine    Engine
	Scheduler Scheduler
	Pins      Pins
	Slots     int // worker slots: the Scheduler's
	// Capacity is what the node has for tasks: the Scheduler's, too. Slots, and labels that it gives itself, are filled in.
	Capacity Capacity
	Bound    bool // jobs end with this node instead of being resumed by the next one on the same ledger
	Logger   *slog.Logger
	// Copies is on how many nodes of the realm what a job needs, and what it comes to, is kept, if there are as
	// many; 0: 3. SessionTTL is how long this node may be silent before others take its jobs over; 0: 5 s.
	Copies     int
	SessionTTL time.Duration
	Retention  Retention // of jobs that have ended
	Quota      Quota     // of each user
	Trust      Trust     // in receipts
	// May tells whether a member of a private swarm has a role; nil: everybody may everything. An error with the code Denied says
	// that it has not, any other that it is not known yet. It must not block, and [Node.MembersChanged] must be called when it changes.
	May   func(peer.ID, MemberRole) error
	Share Share // of what this node has: for other realms
	// RealmOf names the realm that another node has proved to be of, "" if none; nil: nobody's is known.
	RealmOf func(peer.ID) peer.ID
	// Tracer makes the spans of jobs; see [SpanIDs]. nil: nothing is traced.
	Tracer trace.Tracer
	// Puller and Links, which tells the links of a block, are for tasks of other realms, and those that go there; nil: there are none.
	Puller Puller
	Links  func(c cid.Cid, data []byte) ([]cid.Cid, error)

	// FilesOver is Files over other blocks than the node's, so that large inputs can be fetched while they are
	// read. nil: everything is fetched before.
	FilesOver func(Blocks) Files
	// Unlock is Files that shows what was encrypted to one of some keys as it was; lost is told of what cannot be shown.
	// nil: tasks that want that are refused.
	Unlock func(files Files, keys [][]byte, lost func(error)) (Files, error)
	// Vitals fills in what of a Pulse is known outside of the node: its name, zone, disk and traffic, and whether it leads the
	// ledger. It is called a few times a second at most, while somebody looks on. nil: nothing of that is told.
	Vitals func(context.Context, *Pulse)
	// Past are events that this node told when it was running before, the oldest first. Told is called for each that it tells now; it must not
	// block. nil: they are forgotten when the node ends.
	Past []RealmEvent
	Told func(RealmEvent)
}

// Node is one member of the grid: it owns jobs, runs tasks, and steals and gives work. Its methods are
// safe for concurrent use. It does not close what its config holds.
//
// One goroutine owns the scheduler and carries out its effects; it never blocks. A worker goroutine
// for each slot runs grains. Everything that waits, for a peer or for the disk, has a goroutine of its
// own, which ends with the node.
type Node struct {
	NodeConfig
	log  *slog.Logger
	self peer.ID

	ctx    context.Context // ends when the node closes
	stop   context.CancelFunc
	wg     sync.WaitGroup
	events chan Event
	slots  []*slot
	realm  *realm // nil for a node that is Bound

	started time.Time

	mu        sync.Mutex
	closed    bool
	jobs      map[JobID]*job              // owned here and not final
	claims    map[JobID]struct{}          // about to be
	asked     map[uint64]chan AnswerSteal // thieves waiting for an answer
	calls     uint64
	lingering map[cid.Cid]lingering

	following map[peer.ID]int // streams to other nodes that follow jobs
	followers int             // in all

	roll       roll   // who is of the realm
	rules      rules  // of the realm, for modules
	likely     likely // to have what jobs came to
	admissions admissions
	allowances allowances
	pinning    sync.Mutex // one pin at a time, where they are bounded
	busy       occupied   // slots
	accused    accusations
	given      given
	ends       ends
	dropRoom   chan struct{} // for one call each that tells of a job's end
	errands    errands
	flights    flights // of blocks that are being read
	held       heldRoots
	prefetches prefetches
	parking    parking // tasks that wait for others
	brood      brood   // what tasks that run here have spawned
	doubts     doubts
	secrets    secretsSeen
	attempts   attempts
	tally      tally
	standing   standings     // of nodes whose results were compared
	roots      roots         // jobs of others
	members    chan struct{} // have changed
	extensions extensions
	scoring    scoring
	tells      tells // on their way

	load   atomic.Pointer[Load]
	ran    atomic.Uint64
	failed atomic.Uint64
	stolen atomic.Uint64

	measures Measures
	traces   *traces // nil: nothing is traced

	lent     lending
	admitted admitted // stages of strangers
	outlets  outlets
	kin      kin

	audited atomic.Uint64 // acts

	// For those who look on.
	history    runs
	loot       loot
	happenings happenings
	census     census
	sights     sights
	stretches  *gazette[Stretch]
	bulletin   *gazette[RealmEvent]
}

// slot is one worker's. The loop owns what runs in it; work is its hand-over to the worker.
type slot struct {
	work chan grain
	occupant
}

// occupant is what runs in a slot, or is parked.
type occupant struct {
	lease  Lease
	cancel context.CancelFunc // nil: nothing
}

// grain is a lease on its way to a worker.
type grain struct {
	ctx   context.Context
	lease Lease
}

// eventQueue bounds the events waiting for the scheduler; who has more to say waits.
const eventQueue = 1024

// OpenNode starts a node and takes up the jobs that its ledger says it owns and were not finished. Unless it is
// Bound, it also takes over those of other nodes of its realm that are gone. Close it before closing what the
// config holds.
func OpenNode(ctx context.Context, c NodeConfig) (*Node, error) {
	if c.Keeper == nil {
		c.Keeper = NoKeeper{}
	}
	n := &Node{
		NodeConfig: c,
		log:        c.Logger,
		self:       c.Network.Self(),
		events:     make(chan Event, eventQueue),
		slots:      make([]*slot, c.Slots),
		started:    time.Now().UTC(),
		jobs:       make(map[JobID]*job),
		claims:     make(map[JobID]struct{}),
		asked:      make(map[uint64]chan AnswerSteal),
		lingering:  make(map[cid.Cid]lingering),
		following:  make(map[peer.ID]int),
		dropRoom:   make(chan struct{}, dropAtOnce),
		standing:   standings{now: make(chan struct{}, 1)},
		members:    make(chan struct{}, 1),
	}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	n.scoring = scoring{asks: make(chan scoreAsk, maxScoreAsks), poke: make(chan struct{}, 1), turn: make(chan struct{}, 1)}
	n.extensions.room, n.extensions.telling = make(chan struct{}, extendAtOnce), make(chan struct{}, extendAtOnce)
	n.allowances.poke = make(chan struct{}, 1)
	n.secrets.poke = make(chan struct{}, 1)
	if c.Tracer != nil {
		n.traces = &traces{tracer: c.Tracer, self: n.self, jobs: make(map[JobID]*jobTrace)}
	}
	n.Capacity = n.Capacity.of(n.self, c.Slots)
	n.load.Store(&Load{Slots: c.Slots})
	n.sights.nodes = make(map[peer.ID]*sight)
	n.sights.asking = rounds{n: n, begin: func() {}, ask: n.see}
	n.stretches = newGazette(n, protoStretches, maxStretches, n.ownStretches, takeStretch)
	n.reopen(c.Past)
	n.bulletin = newGazette(n, protoRealmEvents, MaxRealmEvents, n.ownEvents, takeEvent)
	if !n.Bound {
		n.realm = newRealm()
	}
	n.ctx, n.stop = context.WithCancel(context.Background())
	for i := range n.slots {
		n.slots[i] = &slot{work: make(chan grain, 1)}
		n.spawn(func() { n.worker(i) })
	}
	n.spawn(n.loop)
	if n.Bound {
		if err := n.resume(ctx); err != nil {
			n.Close()
			return nil, err
		}
	} else {
		n.joinRealm(ctx)
	}
	n.serve()
	unsubscribe := c.Network.Subscribe(n.peerChanged)
	n.spawn(func() { <-n.ctx.Done(); unsubscribe() })
	n.spawn(n.sweeper)
	n.spawn(n.keepStandings)
	n.spawn(n.keepScores)
	n.spawn(n.heedMembers)
	if n.traces != nil {
		n.spawn(n.keepTraces)
	}
	return n, nil
}

// Close ends running tasks and waits for every goroutine of the node. Jobs that are not finished stay
// in the ledger for another node of the realm, or the next run of this one, unless the node is Bound: then they
// are cancelled first.
func (n *Node) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		n.wg.Wait()
		return nil
	}
	n.closed = true
	n.mu.Unlock()
	if n.Bound {
		n.endBound()
		n.sweepBound()
		n.sealBound()
		n.foldBound()
	}
	n.lastNotices()
	n.stop()
	n.wg.Wait()
	n.traces.idle(time.Now().Add(time.Second))
	return nil
}

// spawn runs f on a goroutine that Close waits for. A panic in it is a fault of ours; it must not take
// the other jobs of the process with it.
func (n *Node) spawn(f func()) {
	n.wg.Add(1)
	go func() {
		defer n.wg.Done()
		defer func() {
			if p := recover(); p != nil {
				n.log.Error("panic in node", "panic", p, "stack", string(debug.Stack()))
			}
		}()
		f()
	}()
}

// post hands an event to the scheduler. It is false when the node is closing.
func (n *Node) post(ev Event) bool {
	select {
	case n.events <- ev:
		return true
	case <-n.ctx.Done():
		return false
	}
}

// loop owns the scheduler.
func (n *Node) loop() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	last := time.Now()
	for {
		var tick <-chan time.Time
		if at := n.Scheduler.NextTick(); !at.IsZero() {
			timer.Reset(time.Until(at))
			tick = timer.C
		}
		select {
		case ev := <-n.events:
			n.step(ev)
			for range len(n.events) { // those behind it, before looking at the clock again
				n.step(<-n.events)
			}
		case <-tick:
			n.step(Tick{})
		case <-n.ctx.Done():
			return
		}
		now := time.Now()
		n.measures.queue(n.Load().Queued, now.Sub(last))
		last = now
		load := n.Scheduler.Load()
		n.load.Store(&load)
	}
}

func (n *Node) step(ev Event) {
	switch ev := ev.(type) {
	case GrainDone:
		n.slots[ev.Slot].end()
		n.busy.clear(ev.Slot)
	case Parked:
		n.vacate(ev)
	case Unparked:
		if ev.Gone {
			n.parking.remove(ev.Ticket)
		}
	case PeerChanged:
		defer n.dropOrphans(ev.PeerEvent)
	case Dropped:
		n.prefetches.stop(ev.Job)
	case JobEnded:
		n.endEverywhere(ev.Job)
	}
	for _, e := range n.Scheduler.Step(time.Now(), ev) {
		n.carryOut(e)
	}
}

// carryOut does what the scheduler decided, without blocking.
func (n *Node) carryOut(e Effect) {
	switch e := e.(type) {
	case Run:
		ctx, cancel := context.WithCancel(n.ctx)
		s := n.slots[e.Slot]
		s.occupant = occupant{e.Lease, cancel}
		if n.parking.orphaned(e.Lease) {
			cancel()
		}
		n.busy.set(e.Slot, e.Lease)
		n.measures.Leases[leaseRun].Add(1)
		s.work <- grain{ctx, e.Lease} // has room: the slot was idle
	case Prefetch:
		n.prefetch(e.Lease)
	case GiveSlot:
		n.occupy(e)
	case StopJob:
		n.prefetches.stop(e.Job)
		for _, o := range n.occupants() {
			if o.lease.Job == e.Job {
				o.cancel()
			}
		}
	case StopGrain:
		if o := n.slots[e.Slot].occupant; o.cancel != nil { // else what was parked has given up
			o.cancel()
		}
	case Prepare:
		n.spawn(func() { n.prepare(e) })
	case CloseJob:
		n.prefetches.stop(e.Job)
		n.endEverywhere(e.Job)
		n.spawn(func() { n.closeJob(e) })
	case AnswerSteal:
		n.answer(e)
	case AnswerDoubted:
		n.doubts.answer(e)
	case AskSteal:
		n.spawn(func() { n.askSteal(e) })
	case SendClaim:
		n.spawn(func() { n.sendClaim(e) })
	case TellDropped:
		n.spawnTo(e.To, func() { n.tellDropped(e) })
	case Revoke:
		n.spawnTo(e.To, func() { n.revoke(e) })
	case AskWithheld:
		n.spawn(func() { n.rest(e.Work) })
	case Note:
		n.note(e)
	case Wake:
		n.spawnTo(e.To, func() { n.tell(e.To, protoWake, wakeMsg{}) })
	}
}

// job finds a job that is owned here and not final, or a batch of children of a task that runs here.
func (n *Node) job(id JobID) *job {
	n.mu.Lock()
	defer n.mu.Unlock()
	if j := n.jobs[id]; j != nil {
		return j
	}
	return n.brood.job(id)
}

// own is job without batches, of which nobody is told but those who run them: they are no jobs of the ledger's, and
// end with the task that spawned them.
func (n *Node) own(id JobID) *job {
	if j := n.job(id); j != nil && j.batch == nil {
		return j
	}
	return nil
}

// running lists the jobs that are owned here and not final.
func (n *Node) running() []*job {
	n.mu.Lock()
	defer n.mu.Unlock()
	jobs := make([]*job, 0, len(n.jobs))
	for _, j := range n.jobs {
		jobs = append(jobs, j)
	}
	return jobs
}

// Ensure brings whole DAGs into the local store, from the given peers or whoever has them.
func (n *Node) Ensure(ctx context.Context, roots []cid.Cid, from ...peer.ID) error {
	if len(roots) == 0 {
		return nil
	}
	return n.Fetcher.Fetch(ctx, Want{Roots: roots, From: n.also(from, roots...)})
}

// block reads one block, fetching it when it is not here.
func (n *Node) block(ctx context.Context, c cid.Cid, from ...peer.ID) ([]byte, error) {
	data, err := n.Blocks.Get(ctx, c)
	if CodeOf(err) != NotFound {
		return data, err
	}
	defer n.Hold(c)()
	if err := n.Fetcher.Fetch(ctx, Want{Roots: []cid.Cid{c}, From: from, Shallow: true}); err != nil {
		return nil, err
	}
	return n.Blocks.Get(ctx, c)
}

// Load is what the node has to do at the moment.
func (n *Node) Load() Load { return *n.load.Load() }

// TasksRan counts the tasks that this node has run since it started, and how many of them were taken
// from other nodes.
func (n *Node) TasksRan() (all, stolen uint64) { return n.ran.Load(), n.stolen.Load() }

// TasksFailed counts those of them that did not end well.
func (n *Node) TasksFailed() uint64 { return n.failed.Load() }

// JobsRunning counts the jobs that this node owns and that have not ended.
func (n *Node) JobsRunning() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.jobs)
}
