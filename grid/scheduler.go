package grid

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Scheduler decides who runs what. It is a pure state machine: it does no I/O, reads no clock and
// starts no goroutine. Step is given the time and one event and returns the effects to carry out, in
// order. It is not safe for concurrent use. Package sched implements it and tells how it decides.
//
// As owner of a job it tracks which tasks are done and who holds a lease on the others; as worker it
// keeps a deque of leases and hands grains of them to idle worker slots; as thief it asks other nodes
// when it runs dry; as victim it answers.
type Scheduler interface {
	Step(now time.Time, ev Event) []Effect
	// NextTick is when a Tick is due next; zero when nothing is waiting for time to pass.
	NextTick() time.Time
	// Load is a picture of the queues, for status pages.
	Load() Load
}

// Load is what a node has to do.
type Load struct {
	Queued  uint64 `json:"queued"`           // tasks in its deque
	Running int    `json:"running"`          // busy worker slots
	Parked  int    `json:"parked,omitempty"` // grains whose tasks wait for others, without a slot
	Slots   int    `json:"slots"`            // worker slots that there are
}

// Event is what happened.
type Event interface{ event() }

// Effect is what to do about it.
type Effect interface{ effect() }

// StagePlan is the shape of a stage.
type StagePlan struct {
	Tasks    uint32
	Class    Class
	Needs    []Need // of earlier stages
	Attempts int    // how often a task may fail for nodes' reasons before it is given up; 0: the scheduler's default
}

// Need is what tasks of a stage wait for: task i needs tasks i*Fan to (i+1)*Fan-1 of an earlier stage, as far as
// there are any; with Fan 0 all of them.
type Need struct {
	Stage uint32
	Fan   uint32
}

// Hint is what a task reads most of, for running it near its data. Root is the [RootHash] of that input, 0 for none.
type Hint struct {
	Root uint64
	Size uint64 // bytes
}

// Events.
type (
	// JobOpened: this node now owns a job. Its Lease names job, owner, epoch and spec. A task may run once it is
	// Prepared, which is asked for when those that it needs have ended.
	JobOpened struct {
		Lease     Lease
		Stages    []StagePlan
		KeepGoing bool   // after a task failed, more than are allowed: the job fails once all that can run has ended
		Allow     uint32 // how many tasks may fail without the job failing
		Parallel  uint32 // how many of its tasks may be handed out at a time; 0: any number
		Paused    bool   // it begins so; see Paused
		// Deadline is when the job fails if it has not ended, Start when it fails if none of its tasks has begun
		// to run; from now, 0 for never.
		Deadline, Start time.Duration
	}
	// Prepared answers a Prepare effect, at once or in several pieces: of the stage, whose rows are in this table,
	// the tasks in Ready may be handed out, except for those in Done and Failed, which need not run: the former have
	// succeeded before, the latter failed, and would again.
	Prepared struct {
		Work
		Table  Link
		Ready  []Span
		Done   []Span
		Failed []uint32
		Votes  []Vote // results of tasks in Ready that are known and do not settle them
	}
	// Hints tell of prepared tasks, from Lo on, what they read. They may come before or after Prepared, or not at
	// all, and also of other owners' work that is queued here.
	Hints struct {
		Work
		Lo     uint32
		Inputs []Hint
	}
	// Scored: how well a node suits the tasks of a stage. It is given rather those works for which it has a higher score,
	// and none for which it has one below 0. Until then it is 0.
	Scored struct {
		Work
		Peer  peer.ID
		Score float64
	}
	// JobEnded: somebody cancelled it, or it cannot go on.
	JobEnded struct{ Job JobID }
	// GrainDone: a worker slot has finished or given up the lease that Run gave it. Took is the time
	// for the tasks that were really run, Ran how many those were. Results say how they went when
	// this node owns the job; for other owners' leases they are nil, as the receipts travel there.
	// Fetched is how many bytes were brought from other nodes for it, and Fetching how long that took.
	GrainDone struct {
		Slot     int
		Took     time.Duration
		Ran      int
		Fetched  uint64
		Fetching time.Duration
		Results  []TaskResult
	}
	// Parked: the task that a slot runs waits for others, and needs no slot. The slot is free; nothing else is said
	// of that grain until it is back in a slot. Ticket is the caller's name for it.
	Parked struct {
		Slot   int
		Ticket uint64
	}
	// Unparked: what a parked task waited for is there. A GiveSlot follows, before anything else is run. Gone: it
	// needs no slot any more; its grain counts as given up. If it was given one meanwhile, that ends by GrainDone.
	Unparked struct {
		Ticket uint64
		Gone   bool
	}
	// Reported: another node's results for a job owned here have arrived and their outputs are here.
	Reported struct {
		From peer.ID
		Work
		Epoch   Epoch
		Results []TaskResult
	}
	// Doubted: another node says how tasks of a job owned here have ended, and is believed only if it holds them.
	// Answer it with an AnswerDoubted for the same Call, before anything is booked and Reported.
	Doubted struct {
		From peer.ID
		Call uint64
		Work
		Epoch Epoch
		Tasks []uint32
	}
	// StealAsked: a thief wants work; answer it with an AnswerSteal for the same Call. What it says of itself is
	// not believed further than that it is given work by it.
	StealAsked struct {
		From    peer.ID
		Call    uint64
		Slots   int      // its idle worker slots
		Can     Capacity // what it can run
		Outside bool     // it is of another realm
		Realm   peer.ID  // of which, if that is known: its nodes are not given what one of them has run for a job that is Checked
		Holds   Summary  // of the inputs that it has
		Here    Summary  // of those that this node has
	}
	// StealAnswered: what came of an AskSteal, and how long that took. No leases: the victim has none to give, or
	// Failed. Try are peers that it thinks have some.
	StealAnswered struct {
		From   peer.ID
		Leases []Lease
		Try    []peer.ID
		Took   time.Duration
		Failed bool
	}
	// Claimed: a node says what it holds of a job owned here, which renews its leases.
	Claimed struct {
		From peer.ID
		Work
		Epoch Epoch
		Spans []Span
		Back  []Span // that it gives back
	}
	// Woken: a peer that had no work before has some now.
	Woken struct{ From peer.ID }
	// Dropped: the owner of a job says that it is over. It counts only for leases whose owner is From.
	Dropped struct {
		From  peer.ID
		Job   JobID
		Epoch Epoch
	}
	// Revoked: the owner of a job says that these tasks need not run any more, or, with Queued, not now, unless they
	// run already.
	Revoked struct {
		From peer.ID
		Work
		Epoch  Epoch
		Spans  []Span
		Queued bool
	}
	// Paused: of a job owned here no task is to be handed out that does not run yet, until it is said, by On false,
	// that it may go on.
	Paused struct {
		Job JobID
		On  bool
	}
	// PeerChanged: a peer came or went.
	// One that is of another realm is Outside; that may change while it is Up.
	PeerChanged struct {
		PeerEvent
		Outside bool
	}
	// Accused: a peer did what no honest node does, such as to report tasks that it was not asked for.
	Accused struct {
		Peer peer.ID
		Job  JobID // "" when it was about none
		Why  string
	}
	// Tick: the time that NextTick told has come.
	Tick struct{}
)

// TaskResult is how one task went, as far as scheduling cares.
type TaskResult struct {
	Index   uint32
	Outcome TaskOutcome
}

// TaskOutcome is what to make of an attempt.
type TaskOutcome uint8

// The outcomes.
const (
	Succeeded   TaskOutcome = iota
	GuestFailed             // the guest's own doing: trying again gives the same
	HostFailed              // the node's doing: try again, elsewhere if possible
	// Unproven: there is a result, and another node is to run the task as well.
	Unproven
	// Withheld: there is a result, and nothing is to be done until the task is reported anew: as ended, or Unproven.
	Withheld
)

// Vote tells that nodes have run a task, and that others are to do so, too, unless it is Withheld.
type Vote struct {
	Index    uint32
	Nodes    []peer.ID
	Withheld bool
}

// Effects.
type (
	// Run: worker slot Slot is to run the lease; GrainDone follows.
	Run struct {
		Slot  int
		Lease Lease
	}
	// GiveSlot: the parked task goes on in this slot; GrainDone follows.
	GiveSlot struct {
		Slot   int
		Ticket uint64
	}
	// Prefetch: bring the inputs of these tasks, which are likely to run here soon. Nothing follows.
	Prefetch struct{ Lease Lease }
	// Prepare: what these tasks of a job owned here need is there. Lay out their rows, look up what is known of
	// them, and answer with Prepared. Of one stage there may be many, for different tasks.
	Prepare struct {
		Work
		Spans []Span
	}
	// CloseJob: every task has ended as it should, or the job is given up because of the tasks in Failed, or for
	// the reason Why. Nothing of it is queued here any more; slots still running it get a StopJob. Failed also lists
	// tasks that the job was allowed to fail; Bad tells whether there were more.
	CloseJob struct {
		Job    JobID
		Bad    bool
		Failed []FailedTask
		// Failures is how many tasks failed for good, of which Failed lists no more than the first thousand.
		Failures uint32
		Why      error // of its own code; nil unless it is for something else than tasks
	}
	// StopJob: end what runs of the job on this node, without receipts. GrainDone still follows.
	StopJob struct{ Job JobID }
	// StopGrain: end what the slot runs, without a receipt for its current task. GrainDone still follows.
	StopGrain struct{ Slot int }
	// TellDropped: tell a node that holds leases on a job of ours that the job is over.
	TellDropped struct {
		To    peer.ID
		Job   JobID
		Epoch Epoch
	}
	// Revoke: tell a node that these tasks, which it was given, need not run any more, or, with Queued, not now, unless
	// they run already.
	Revoke struct {
		To peer.ID
		Work
		Epoch  Epoch
		Spans  []Span
		Queued bool
	}
	// AskSteal: ask a victim for work; StealAnswered follows.
	AskSteal struct {
		Victim  peer.ID
		Slots   int
		Outside bool // it is of another realm: for what is lent
	}
	// AnswerSteal: the reply to StealAsked.
	AnswerSteal struct {
		Call   uint64
		Leases []Lease
		Try    []peer.ID
	}
	// AnswerDoubted: the reply to Doubted. Those of the tasks in Refused have not ended, and are not with the node
	// that tells of them.
	AnswerDoubted struct {
		Call    uint64
		Refused []uint32
	}
	// SendClaim: tell an owner what this node holds of its job, and what it gives back.
	SendClaim struct {
		To peer.ID
		Work
		Epoch Epoch
		Spans []Span
		Back  []Span
	}
	// Wake: tell a waiting thief that there is work here.
	Wake struct{ To peer.ID }
	// AskWithheld: nothing is left of a stage, or under way of its job, but tasks that are Withheld. Report some of them anew.
	AskWithheld struct{ Work }
	// Note: something happened to a job owned here that its user may want to know.
	Note struct {
		Job   JobID
		Event JobEvent // but for its time
	}
)

// FailedTask is a task that ended for good without success.
type FailedTask struct {
	Work
	Index    uint32
	Attempts int // host failures before it was given up; 0 for the guest's own failure
}

func (JobOpened) event()     {}
func (Prepared) event()      {}
func (Hints) event()         {}
func (Scored) event()        {}
func (JobEnded) event()      {}
func (GrainDone) event()     {}
func (Parked) event()        {}
func (Unparked) event()      {}
func (Reported) event()      {}
func (Doubted) event()       {}
func (StealAsked) event()    {}
func (StealAnswered) event() {}
func (Claimed) event()       {}
func (Woken) event()         {}
func (Dropped) event()       {}
func (Revoked) event()       {}
func (Paused) event()        {}
func (PeerChanged) event()   {}
func (Accused) event()       {}
func (Tick) event()          {}

func (Run) effect()           {}
func (GiveSlot) effect()      {}
func (Prefetch) effect()      {}
func (Prepare) effect()       {}
func (CloseJob) effect()      {}
func (StopJob) effect()       {}
func (StopGrain) effect()     {}
func (TellDropped) effect()   {}
func (Revoke) effect()        {}
func (AskSteal) effect()      {}
func (AnswerSteal) effect()   {}
func (AnswerDoubted) effect() {}
func (SendClaim) effect()     {}
func (Wake) effect()          {}
func (AskWithheld) effect()   {}
func (Note) effect()          {}
