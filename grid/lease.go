package grid

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Span is the task numbers Lo <= i < Hi of one stage.
type Span struct {
	Lo uint32 `cbor:"lo" json:"lo"` // the first
	Hi uint32 `cbor:"hi" json:"hi"` // one more than the last
}

// Len is how many tasks the span has.
func (s Span) Len() uint32 { return s.Hi - s.Lo }

func (s Span) String() string { return fmt.Sprintf("[%d,%d)", s.Lo, s.Hi) }

// Lease is the right to run a span of a stage's tasks. It holds what another node needs to know to do
// so. It ends when its owner's time-to-live has passed without a claim that renews it.
type Lease struct {
	Job   JobID   `cbor:"job"`
	Owner peer.ID `cbor:"owner"`
	Epoch Epoch   `cbor:"epoch"`
	Spec  Link    `cbor:"spec"`
	Stage uint32  `cbor:"stage"`
	Table Link    `cbor:"table,omitzero"`  // of Rows; none for stages without inputs
	Fresh bool    `cbor:"fresh,omitempty"` // run tasks even if their results are known
	Class Class   `cbor:"class,omitzero"`
	// Outside says that another realm's node gave it to this one, which lends itself for it. It does not travel.
	Outside bool `cbor:"-"`
	Span
}

// Work names the stage that the lease is part of.
func (l Lease) Work() Work { return Work{Job: l.Job, Stage: l.Stage} }

// With is the same lease over another span.
func (l Lease) With(s Span) Lease { l.Span = s; return l }

func (l Lease) String() string { return fmt.Sprintf("%s/%d%s", l.Job, l.Stage, l.Span) }

// Work is one stage of one job.
type Work struct {
	Job   JobID
	Stage uint32
}
