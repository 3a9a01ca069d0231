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
	Queued  uint64 `json:"queued"`  // tasks in its deque
	Running int    `json:"running"` // busy worker slots
	Slots   int    `json:"slots"`
}

// Event is what happened.
type Event interface{ event() }

// Effect is what to do about it.
type Effect interface{ effect() }

// Events.
type (
	// JobOpened: this node now owns a job. Its Lease names job, owner, epoch and spec; stages run in
	// order, each opened when the one before is complete.
	JobOpened struct {
		Lease     Lease
		Stages    int
		KeepGoing bool
	}
	// StageOpened answers an OpenStage effect: the stage has this many tasks, rows in this table, and
	// the tasks in Done need not run. May come in pieces: Ready is how many tasks, from 0, may be
	// handed out by now; the last piece has Ready == Tasks.
	StageOpened struct {
		Work
		Table Link
		Tasks uint32
		Ready uint32
		Done  []Span
	}
	// JobEnded: somebody cancelled it, or it cannot go on.
	JobEnded struct{ Job JobID }
	// GrainDone: a worker slot has finished or given up the lease that Run gave it. Took is the time
	// for the tasks that were really run, Ran how many those were. Results say how they went when
	// this node owns the job; for other owners' leases they are nil, as the receipts travel there.
	GrainDone struct {
		Slot    int
		Took    time.Duration
		Ran     int
		Results []TaskResult
	}
	// Reported: another node's results for a job owned here have arrived and their outputs are here.
	Reported struct {
		From peer.ID
		Work
		Epoch   Epoch
		Results []TaskResult
	}
	// StealAsked: a thief wants work; answer it with an AnswerSteal for the same Call.
	StealAsked struct {
		From  peer.ID
		Call  uint64
		Slots int // its idle worker slots
	}
	// StealAnswered: what came of an AskSteal. No leases: the victim has none to give, or Failed.
	StealAnswered struct {
		From   peer.ID
		Leases []Lease
		Failed bool
	}
	// Claimed: a node says what it holds of a job owned here, which renews its leases.
	Claimed struct {
		From peer.ID
		Work
		Epoch Epoch
		Spans []Span
	}
	// Woken: a peer that had no work before has some now.
	Woken struct{ From peer.ID }
	// Dropped: the owner of a job says that it is over. It counts only for leases whose owner is From.
	Dropped struct {
		From  peer.ID
		Job   JobID
		Epoch Epoch
	}
	// PeerChanged: a peer came or went.
	PeerChanged struct{ PeerEvent }
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
)

// Effects.
type (
	// Run: worker slot Slot is to run the lease; GrainDone follows.
	Run struct {
		Slot  int
		Lease Lease
	}
	// OpenStage: prepare the stage and answer with StageOpened.
	OpenStage struct{ Work }
	// CloseJob: every task is done (Failed is empty), or the job is given up because of the tasks in
	// Failed. Nothing of it is queued here any more; slots still running it get a StopJob.
	CloseJob struct {
		Job    JobID
		Failed []FailedTask
	}
	// StopJob: end what runs of the job on this node, without receipts. GrainDone still follows.
	StopJob struct{ Job JobID }
	// TellDropped: tell a node that holds leases on a job of ours that the job is over.
	TellDropped struct {
		To    peer.ID
		Job   JobID
		Epoch Epoch
	}
	// AskSteal: ask a victim for work; StealAnswered follows.
	AskSteal struct {
		Victim peer.ID
		Slots  int
	}
	// AnswerSteal: the reply to StealAsked.
	AnswerSteal struct {
		Call   uint64
		Leases []Lease
	}
	// SendClaim: tell an owner what this node holds of its job.
	SendClaim struct {
		To peer.ID
		Work
		Epoch Epoch
		Spans []Span
	}
	// Wake: tell a waiting thief that there is work here.
	Wake struct{ To peer.ID }
)

// FailedTask is a task that ended for good without success.
type FailedTask struct {
	Work
	Index    uint32
	Attempts int // host failures before it was given up; 0 for the guest's own failure
}

func (JobOpened) event()     {}
func (StageOpened) event()   {}
func (JobEnded) event()      {}
func (GrainDone) event()     {}
func (Reported) event()      {}
func (StealAsked) event()    {}
func (StealAnswered) event() {}
func (Claimed) event()       {}
func (Woken) event()         {}
func (Dropped) event()       {}
func (PeerChanged) event()   {}
func (Tick) event()          {}

func (Run) effect()         {}
func (OpenStage) effect()   {}
func (CloseJob) effect()    {}
func (StopJob) effect()     {}
func (TellDropped) effect() {}
func (AskSteal) effect()    {}
func (AnswerSteal) effect() {}
func (SendClaim) effect()   {}
func (Wake) effect()        {}
