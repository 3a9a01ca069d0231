package grid

import (
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// MaxInline is the most bytes of an output that ride inside a receipt; more becomes blocks.
const MaxInline = 1 << 10

// Receipt is the record of one attempt, signed by the node that made it.
type Receipt struct {
	Key     Key     `cbor:"key"`
	Node    peer.ID `cbor:"node"`
	Exit    uint32  `cbor:"exit"`
	Fault   *Fault  `cbor:"fault,omitempty"` // why it ended, when not by exiting
	Stdout  Output  `cbor:"stdout"`
	Stderr  Output  `cbor:"stderr"`
	Out     Link    `cbor:"out,omitzero"` // the folder /out, when anything is in it
	OutSize int64   `cbor:"outsize,omitempty"`
	Memory  uint64  `cbor:"memory"`            // linear memory at the end, bytes; it never shrinks
	Fuel    uint64  `cbor:"fuel"`              // work, counted the same on every node
	Calls   uint64  `cbor:"calls"`             // of host functions
	Spawned uint64  `cbor:"spawned,omitempty"` // tasks that it spawned, with what those spawned that it awaited
	// SpawnedRun and SpawnedFuel are what those took that it awaited, with what these spawned.
	SpawnedRun  time.Duration `cbor:"spawnedrun,omitempty"`
	SpawnedFuel uint64        `cbor:"spawnedfuel,omitempty"`
	Metrics     []Metric      `cbor:"metrics,omitempty"` // what it counted and measured
	Impure      bool          `cbor:"impure,omitempty"`  // its guest saw more than the invocation
	Profile     Link          `cbor:"profile,omitzero"`  // where its fuel went, in pprof's format, when that was asked for
	Started     int64         `cbor:"started"`           // Unix time, ns
	Phases      Phases        `cbor:"phases"`
	Seal
}

// Phases tells where the time of an attempt went, one phase after the other.
type Phases struct {
	Fetch   time.Duration `cbor:"fetch" json:"fetch_ns"`                       // bringing module, mounts and inputs to the node
	Compile time.Duration `cbor:"compile" json:"compile_ns"`                   // making the module ready, which the first attempt does
	Queue   time.Duration `cbor:"queue" json:"queue_ns"`                       // waiting for room on the node
	Start   time.Duration `cbor:"start" json:"start_ns"`                       // preparing the sandbox
	Run     time.Duration `cbor:"run" json:"run_ns"`                           // from the guest's first instruction to its last
	Store   time.Duration `cbor:"store" json:"store_ns"`                       // keeping what it wrote
	Parked  time.Duration `cbor:"parked,omitempty" json:"parked_ns,omitempty"` // waiting for tasks that it spawned, in the middle of Run
}

// Fault says how a guest came to an end other than exiting.
type Fault struct {
	Code    Code   `cbor:"code" json:"code"`                       // Trap, Limit, Deadline, …
	Message string `cbor:"message" json:"message"`                 // what happened, for people
	Stack   string `cbor:"stack,omitempty" json:"stack,omitempty"` // of the guest
	// Fatal says that it is no function of the invocation: it came from a task that the guest awaited, or from how
	// many others wait for this one.
	Fatal bool `cbor:"fatal,omitempty" json:"fatal,omitempty"`
}

// Output is what a guest wrote to stdout or stderr: inline when short, else a file in blocks.
type Output struct {
	Size   int64  `cbor:"size"`
	Inline []byte `cbor:"inline,omitempty"`
	CID    Link   `cbor:"cid,omitzero"`
}

// Bounds on what a receipt says in words, in bytes: it stays in its owner's memory until the job ends.
const (
	maxMessage = 4 << 10
	maxStack   = 16 << 10
)

// clean makes text from a guest or a peer fit for a record: valid UTF-8, and not longer than most bytes.
func clean(s string, most int) string {
	return strings.ToValidUTF8(s[:min(len(s), most)], "?")
}

// check refuses a receipt that no honest node makes of a task under these limits. It does not verify
// the signature.
func (r *Receipt) check(l Limits) error {
	if err := r.Stdout.check("stdout", l.Output); err != nil {
		return err
	}
	if err := r.Stderr.check("stderr", l.Output); err != nil {
		return err
	}
	if f := r.Fault; f != nil && (len(f.Message) > maxMessage || len(f.Stack) > maxStack) {
		return Errorf(Limit, "its fault is told in %d and %d bytes, at most %d and %d are allowed",
			len(f.Message), len(f.Stack), maxMessage, maxStack)
	}
	p := &r.Phases
	for _, d := range []time.Duration{p.Fetch, p.Compile, p.Queue, p.Start, p.Run, p.Store, p.Parked} {
		if d < 0 || d > 2*MaxLimits.Wall {
			return Errorf(Invalid, "a phase of %v is out of bounds", d)
		}
	}
	if err := checkMetrics(r.Metrics); err != nil {
		return err
	}
	if r.OutSize < 0 {
		return Errorf(Invalid, "its output has %d bytes", r.OutSize)
	}
	if r.SpawnedRun < 0 {
		return Errorf(Invalid, "what it spawned took %v", r.SpawnedRun)
	}
	return nil
}

func (o *Output) check(what string, limit uint64) error {
	switch {
	case o.Size < 0 || uint64(o.Size) > limit:
		return Errorf(Limit, "%s has %d bytes, its limit is %d", what, o.Size, limit)
	case o.CID.Defined() && len(o.Inline) > 0 || !o.CID.Defined() && int64(len(o.Inline)) != o.Size:
		return Errorf(Invalid, "%s has %d bytes, but %d of them inline", what, o.Size, len(o.Inline))
	case len(o.Inline) > MaxInline:
		return Errorf(Limit, "%s has %d bytes inline, at most %d are allowed", what, len(o.Inline), MaxInline)
	}
	return nil
}

// OK reports whether the attempt succeeded.
func (r *Receipt) OK() bool { return r.Fault == nil && r.Exit == 0 }

// Lasting reports whether every attempt at the invocation ends in the same way, so that this one answers for later
// ones, too. Success is, and so is what the guest brings upon itself: an exit code, a trap, a limit that does not
// depend on the node. Whoever ran out of time may have been on a slow node.
func (r *Receipt) Lasting() bool {
	if r.Impure {
		return r.OK() // it answers for the one task it is of, and for no other
	}
	if r.Fault == nil {
		return true
	}
	if r.Fault.Fatal { // whatever its code: that is of a node's reasons, too
		return false
	}
	switch r.Fault.Code {
	case Trap, Limit, NoSpace, Invalid:
		return true
	}
	return false
}

// Err is the guest's failure as an error, nil when there was none.
func (r *Receipt) Err() error {
	switch {
	case r.Fault != nil:
		return Errorf(r.Fault.Code, "%s", r.Fault.Message)
	case r.Exit != 0:
		return Errorf(Exit, "exit code %d", r.Exit)
	}
	return nil
}

// Links lists the DAGs that the receipt names.
func (r *Receipt) Links() []Link {
	var links []Link
	for _, l := range []Link{r.Stdout.CID, r.Stderr.CID, r.Out, r.Profile} {
		if l.Defined() {
			links = append(links, l)
		}
	}
	return links
}

// Completion is a task's entry in its owner's results.
type Completion struct {
	Index   uint32  `cbor:"index"`
	Input   string  `cbor:"input,omitempty"`   // name of the first of its inputs, for people
	Inputs  int     `cbor:"inputs,omitempty"`  // how many it has
	Cached  bool    `cbor:"cached,omitempty"`  // the receipt is of an earlier attempt at the same invocation
	Earlier bool    `cbor:"earlier,omitempty"` // Cached, but made for this very job, under an earlier owner
	Read    int64   `cbor:"read,omitempty"`    // bytes of its inputs, as their table says
	Receipt Receipt `cbor:"receipt"`
}

func cids(links []Link) []cid.Cid {
	out := make([]cid.Cid, len(links))
	for i, l := range links {
		out[i] = l.Cid
	}
	return out
}
