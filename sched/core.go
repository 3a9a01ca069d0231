package sched

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// DefaultGrain is the Grain of a Config that has none.
const DefaultGrain = 20 * time.Millisecond

// Config sets up a [Core]. Only Self is needed; zero means the default.
type Config struct {
	Self peer.ID // this node: the owner of its jobs' leases

	// Slots is how many grains run here at once, usually one for each processor. A node with none
	// owns jobs and gives work away, but never asks for any.
	Slots int
	// Capacity is what this node has besides slots, which are Slots: labels, and memory and scratch for all
	// that runs at a time. Tasks that ask for more are left to nodes that have it. Default: no labels and no bounds.
	Capacity grid.Capacity
	// Weights are shares of users: one of weight 2 gets twice the slots of one of weight 1, which is everyone's
	// who is not listed. It is kept, not copied.
	Weights map[string]float64
	// MaxPerUser is how many slots one user may use here at a time. Default 0, no limit: what nobody else wants
	// is better used.
	MaxPerUser int

	// Share is what this node lends to other realms; see package grid. Default nothing. Only its amounts count here.
	Share grid.Share

	// Rand picks victims and jitters retries. Default: seeded from Self, so that no two nodes draw
	// the same and every run of one node draws alike. The core takes it over.
	Rand *rand.Rand

	// TTL is how long a lease lasts without a claim that renews it; holders claim three times in it,
	// so that two lost claims are survived. Default 6 s: shorter re-runs more for nothing on bad
	// networks, longer waits more for what a dead node held.
	TTL time.Duration
	// Grace is how long the leases of a node that went away last. Default 500 ms: enough to come
	// back from a broken connection, with time for one claim.
	Grace time.Duration

	// Grain is how much running time one Run effect aims at. Default 20 ms: long against the price of
	// a Step and of starting a guest, short against what a person, or the end of a stage, waits for.
	Grain time.Duration
	// MaxGrain is the most tasks in one. Default 1,024: bounds one batch of receipts.
	MaxGrain uint32

	// Attempts is how often a task may fail for the node's reasons before it is given up. Default 3:
	// with one bad node among several, the chance that all went to it is small.
	Attempts int
	// Backoff is the wait after the first such failure; it doubles with each. Default 100 ms.
	Backoff time.Duration

	// Patience is how long a task that failed on a node is kept for others. Default 1 s: enough for one to end
	// what it runs, unless that is long.
	Patience time.Duration
	// Row is after how many failures in a row, without a success, a node is left alone for a while. Default 5.
	Row int
	// Slack is how long, besides twice its measured time, nothing may be heard of a task near the end of a stage
	// before it is run a second time. Default 500 ms: longer than results are held back, to travel together.
	Slack time.Duration

	// MaxGive and MaxLeases bound what one thief gets in one answer: tasks and leases, by default
	// 65,536 and 64, and the latter also what is accepted of one. It keeps an answer in a few
	// kilobytes, and one thief from sitting on half of a huge stage.
	MaxGive   uint32
	MaxLeases int
	// MaxTrust is how many tasks of jobs owned here a thief may hold that has not reported anything lately; others
	// may hold some times what they have. Default 4,096: enough to begin with, and bounds what one takes hostage.
	MaxTrust uint32
	// MaxHeld is how many separate ranges of other owners' work may be queued. Default 4,096: bounds
	// memory and claims.
	MaxHeld int
	// MaxWaiting is how many thieves that got nothing are remembered. Default 64: each remembers
	// others in turn, so news of work still reaches thousands of nodes in a few steps.
	MaxWaiting int

	// Tries is how many peers, the nearer ones rather, a thief asks in vain before it sleeps, and how many it asks
	// besides because others named them. Default 8: each remembers it, and two already make it unlikely to be
	// forgotten.
	Tries int
	// MinSleep and MaxSleep bound the sleep, which doubles each time. Waking is by message; this is
	// the safety net for lost ones. Defaults 100 ms and 5 s.
	MinSleep, MaxSleep time.Duration
}

func (c *Config) fill() {
	def(&c.TTL, 6*time.Second)
	def(&c.Grace, 500*time.Millisecond)
	def(&c.Grain, DefaultGrain)
	def(&c.MaxGrain, 1024)
	def(&c.Attempts, 3)
	def(&c.Backoff, 100*time.Millisecond)
	def(&c.Patience, time.Second)
	def(&c.Row, 5)
	def(&c.Slack, 500*time.Millisecond)
	def(&c.MaxGive, 1<<16)
	def(&c.MaxLeases, 64)
	def(&c.MaxTrust, 4096)
	def(&c.MaxHeld, 4096)
	c.MaxHeld = max(c.MaxHeld, 2*c.MaxLeases) // who is given more than it can hold seems to lose it
	def(&c.MaxWaiting, 64)
	def(&c.Tries, 8)
	def(&c.MinSleep, 100*time.Millisecond)
	def(&c.MaxSleep, 5*time.Second)
	c.Slots = max(c.Slots, 0)
	c.Capacity.Slots = c.Slots
	if c.Rand == nil {
		h := fnv.New64a()
		h.Write([]byte(c.Self))
		c.Rand = rand.New(rand.NewPCG(h.Sum64(), 0))
	}
}

func def[T ~int | ~uint32 | ~int64](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// instant is a time on the core's clock: nanoseconds since its first step.
type instant int64

const never instant = math.MaxInt64

func (t instant) add(d time.Duration) instant { return t + instant(d) }

// Core is the scheduler of one node. It implements [grid.Scheduler]; see the package comment for how
// it decides. It is not safe for concurrent use.
type Core struct {
	cfg   Config
	start time.Time // of the first step
	now   instant
	out   []grid.Effect // of this step

	// As worker.
	slots  []slot
	idle   []int              // slots, the next to be used last
	ring   []*work            // those that have something queued
	queued uint64             // tasks in ring
	grew   bool               // something was queued in this step
	parked map[uint64]*parked // grains without a slot, by ticket
	back   []uint64           // tickets of those that want a slot again, the first to get one first

	top             *party // of all shares
	outer           *party // of strangers', who get what the others leave
	loan            loan
	came            uint64  // counts who comes to have something to run
	meterAt         instant // no later than when a slot must be charged for again
	full            int     // users who may use no more slots
	keeping         bool    // idle slots are kept for what is next and needs more
	memory, scratch uint64  // reserved
	selectors       map[string]parsed
	tellAt          instant // when to look for work that no node can run
	scores          map[grid.Work]scores
	nScores         int     // in all
	offers          uint64  // counts them
	seen            []*work // scratch for offer

	// As owner.
	jobs  map[grid.JobID]*job
	order []*job  // in the order they were opened
	due   instant // no later than the first end of a hold, or of a job's time
	cuts  []grid.Span
	over  []hold
	moot  []hold      // of tasks that ended elsewhere in this step
	redo  []grid.Span // to be run by other nodes as well

	offering []*stage  // that may have tasks on offer
	offered  int       // tasks, since this step began
	triedBy  []peer.ID // some of those
	strip    peer.ID   // a node that is left alone since this step began
	failing  failing
	sick     map[peer.ID]*health
	ables    map[peer.ID]instant // when other nodes had their last success
	ableAt   instant             // and this one
	able     bool                // if ever
	tails    []*stage            // that had slow tasks at the last look
	tailAt   instant             // when to look again; never when there is no pure job

	// As holder of other owners' leases.
	foreign map[grid.Lease]*work // by lease over an empty span
	held    []*work              // the same, in the order they came
	claimAt instant              // when to renew them all; never when there are none

	thief
	victim
}

// New makes a core without jobs, peers or work.
func New(cfg Config) *Core {
	cfg.fill()
	c := &Core{
		cfg:     cfg,
		slots:   make([]slot, cfg.Slots),
		jobs:    make(map[grid.JobID]*job),
		foreign: make(map[grid.Lease]*work),
		due:     never,
		tellAt:  never,
		meterAt: never,
		top:     newParty(nil, "", 1),
		outer:   newParty(nil, "", 1),
		claimAt: never,
		tailAt:  never,
	}
	for i := range c.slots {
		c.idle = append(c.idle, len(c.slots)-1-i)
	}
	c.peers = make(map[peer.ID]*neighbour)
	c.hints = make(map[grid.Work]*hints)
	c.askBy, c.retryAt = never, never
	c.round, c.hops, c.sleep = 1, cfg.Tries, cfg.MinSleep
	return c
}

// Step takes the time and one event and returns what to do about it, in order. Time that runs
// backwards is taken to stand still. Events that make no sense, or no longer, are ignored. The caller
// owns the returned slice.
func (c *Core) Step(now time.Time, ev grid.Event) []grid.Effect {
	if c.start.IsZero() {
		c.start = now
	}
	c.now = max(c.now, instant(now.Sub(c.start)))
	c.grew = false
	if c.now >= c.meterAt {
		c.meter()
	}

	switch ev := ev.(type) {
	case grid.GrainDone:
		c.fetched(ev)
		c.grainDone(ev)
	case grid.Parked:
		c.parkGrain(ev)
	case grid.Unparked:
		c.unpark(ev)
	case grid.Reported:
		c.worked(ev)
	case grid.Doubted:
		c.doubted(ev)
	case grid.Claimed:
		c.claimed(ev)
	case grid.StealAsked:
		c.stealAsked(ev)
	case grid.StealAnswered:
		c.stealAnswered(ev)
	case grid.Woken:
		c.woken(ev.From)
	case grid.Hints:
		c.hint(ev)
	case grid.Scored:
		c.scored(ev)
	case grid.Accused:
		c.accused(ev)
	case grid.Tick:
		c.tick()
	case grid.JobOpened:
		c.jobOpened(ev)
	case grid.Prepared:
		c.prepared(ev)
	case grid.JobEnded:
		c.jobEnded(ev.Job)
	case grid.Dropped:
		c.dropped(ev)
	case grid.Revoked:
		c.revoked(ev)
	case grid.Paused:
		c.pause(ev)
	case grid.PeerChanged:
		if ev.Up {
			c.peerUp(ev.Peer, ev.Outside)
		} else {
			c.peerDown(ev.Peer)
		}
	}

	c.dispatch()
	c.fill()
	c.callOthers()
	c.ahead()
	c.wake()
	c.yield()
	c.hunt()
	out := c.out
	c.out = nil // the caller's now
	return out
}

func (c *Core) do(e grid.Effect) { c.out = append(c.out, e) }

// NextTick is when a Tick is due next; zero when nothing is waiting for time to pass. A Tick that
// comes early or late does no harm.
func (c *Core) NextTick() time.Time {
	t := min(c.due, c.tailAt, c.claimAt, c.askBy, c.tellAt)
	if c.asleep && c.keen && len(c.around) > 0 {
		t = min(t, c.retryAt)
	}
	if t == never {
		return time.Time{}
	}
	return c.start.Add(time.Duration(t))
}

func (c *Core) tick() {
	if c.now >= c.due {
		c.expire()
	}
	if c.now >= c.tailAt {
		c.findTails()
	}
	if c.now >= c.claimAt {
		c.renew()
	}
	if c.now >= c.tellAt {
		c.tell()
	}
	if c.now >= c.askBy {
		c.noAnswer(c.asking)
	}
	if c.asleep && c.now >= c.retryAt {
		c.newRound()
	}
}

// Load is a picture of the queues.
func (c *Core) Load() grid.Load {
	return grid.Load{Queued: c.queued, Running: len(c.slots) - len(c.idle), Parked: len(c.parked), Slots: len(c.slots)}
}
