package grid

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// JobEvent is something that happened to a job: a line of its story, for people.
type JobEvent struct {
	At    time.Time `cbor:"at" json:"at"`                           // by the clock of the owner
	Kind  EventKind `cbor:"kind" json:"kind"`                       // what kind of thing happened
	Node  peer.ID   `cbor:"node,omitempty" json:"node,omitempty"`   // it is about
	Stage uint32    `cbor:"stage,omitempty" json:"stage,omitempty"` // counted from 0; of kinds other than stage and spawned it says something only if there are tasks
	Tasks Span      `cbor:"tasks,omitzero" json:"tasks,omitzero"`   // empty when it is about none
	Text  string    `cbor:"text" json:"text"`                       // what happened, for people
	Epoch Epoch     `cbor:"epoch,omitempty" json:"epoch,omitempty"` // of the owner that tells it
}

// HasStage reports whether an event is about a stage, or tasks of one, rather than about the job as a whole.
func (ev *JobEvent) HasStage() bool {
	return ev.Kind == EventStage || ev.Kind == EventSpawned || ev.Tasks.Lo < ev.Tasks.Hi
}

// EventKind says what kind of thing happened.
type EventKind string

// The kinds.
const (
	EventStarted   EventKind = "started"   // the job has an owner
	EventStage     EventKind = "stage"     // a stage began, or ended
	EventRetry     EventKind = "retry"     // a task failed on a node and will be tried again
	EventFailed    EventKind = "failed"    // a task failed for good
	EventLost      EventKind = "lost"      // leases ran out
	EventCopy      EventKind = "copy"      // slow tasks were given to a second node
	EventAccused   EventKind = "accused"   // a node did what no honest one does
	EventUnplaced  EventKind = "unplaced"  // no node that is up can run some tasks
	EventSpawned   EventKind = "spawned"   // about tasks that tasks made
	EventPolicy    EventKind = "policy"    // what the realm's admission policy has made of the job
	EventPaused    EventKind = "paused"    // a quota of its submitter is used up
	EventResumed   EventKind = "resumed"   // it goes on
	EventEnded     EventKind = "ended"     // the job has ended, and why
	EventForgotten EventKind = "forgotten" // events before this one are not kept
)

// MaxJobEvents is how many events a job keeps: the last ones.
const MaxJobEvents = 256
