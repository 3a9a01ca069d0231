package grid

import (
	"math"
	"sync/atomic"
	"time"
)

// timingBounds are the greatest times that each bucket of a [Timing] counts: from a C task in its sandbox to a job of an hour.
var timingBounds = [...]time.Duration{
	10 * time.Microsecond, 30 * time.Microsecond, 100 * time.Microsecond, 300 * time.Microsecond,
	time.Millisecond, 3 * time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond,
	time.Second, 3 * time.Second, 10 * time.Second, 30 * time.Second, 100 * time.Second, 300 * time.Second, 1000 * time.Second, 3600 * time.Second,
}

// Timing is a histogram of how long something took. Its zero value is empty. Observe takes some nanoseconds and allocates
// nothing; all methods may be called at the same time.
type Timing struct {
	buckets [len(timingBounds) + 1]atomic.Uint64 // the last one is of what took longer
	sum     atomic.Int64
}

// Observe counts one that took d.
func (t *Timing) Observe(d time.Duration) {
	i := 0
	for i < len(timingBounds) && d > timingBounds[i] {
		i++
	}
	t.buckets[i].Add(1)
	t.sum.Add(int64(d))
}

// Read tells how many were counted, how many seconds they took in all, and how many took no longer than each bound, in seconds.
func (t *Timing) Read() (count uint64, sum float64, below map[float64]uint64) {
	below = make(map[float64]uint64, len(timingBounds))
	for i := range t.buckets {
		count += t.buckets[i].Load()
		if i < len(timingBounds) {
			below[timingBounds[i].Seconds()] = count
		}
	}
	return count, time.Duration(t.sum.Load()).Seconds(), below
}

// ByCode counts something by the code of its error. Its zero value is empty; it may be used by several goroutines.
type ByCode [len(codeNames)]atomic.Uint64

// Add counts one. An error without a code, or with one that is not known, counts as Unknown.
func (b *ByCode) Add(c Code) {
	if int(c) >= len(b) {
		c = Unknown
	}
	b[c].Add(1)
}

// Each calls f for the codes that were counted.
func (b *ByCode) Each(f func(c Code, n uint64)) {
	for c := range b {
		if n := b[c].Load(); n > 0 {
			f(Code(c), n)
		}
	}
}

// Measures counts what a node has done since it started. The node alone writes it.
type Measures struct {
	Tasks  Timing                  // attempts whose guests came to an end, from the first input to the last output
	Phases [len(PhaseNames)]Timing // of these attempts, those that had the phase
	Faults ByCode                  // guests that ended otherwise than by exiting
	Exits  atomic.Uint64           // guests that exited with a code other than 0
	Lost   ByCode                  // attempts that came to no end, for reasons of this node
	Known  atomic.Uint64           // tasks of others for which a receipt was here
	Fuel   atomic.Uint64
	Steals [len(StealNames)]atomic.Uint64 // questions to other nodes for work, by the answer
	Taken  atomic.Uint64                  // tasks that came in these answers
	Given  atomic.Uint64                  // tasks that other nodes were given
	waited atomic.Uint64                  // bits of a float64: see Waited
	Leases [len(LeaseNames)]atomic.Uint64 // by what became of them
	Jobs   Timing                         // that this node has ended, from being submitted on
	Ended  [len(endNames)]atomic.Uint64   // the same, by state
}

// PhaseNames are the names of the phases of an attempt.
var PhaseNames = [...]string{"fetch", "compile", "queue", "start", "run", "store", "parked"}

// StealNames are the answers that a node may get when it asks another one for work.
var StealNames = [...]string{"work", "none", "failed"}

// LeaseNames are what becomes of leases, on this node: it runs one, in pieces of which each counts; was given one by another node; gave one; or one
// that it gave ran out.
var LeaseNames = [...]string{"run", "taken", "given", "lost"}

// The places in LeaseNames.
const (
	leaseRun = iota
	leaseTaken
	leaseGiven
	leaseLost
)

// The places in StealNames.
const (
	stealWork = iota
	stealNone
	stealFailed
)

var endNames = [...]State{Done, Failed, Cancelled}

// Measures is what the node has counted, to be read.
func (n *Node) Measures() *Measures { return &n.measures }

// Audited counts the acts that this node has written to the audit log.
func (n *Node) Audited() uint64 { return n.audited.Load() }

// EachEnd calls f with how many jobs have ended in each state.
func (m *Measures) EachEnd(f func(s State, n uint64)) {
	for i, s := range endNames {
		f(s, m.Ended[i].Load())
	}
}

// ran counts an attempt with its receipt.
func (m *Measures) ran(r *Receipt, took time.Duration) {
	m.Tasks.Observe(took)
	p := &r.Phases
	for i, d := range [len(PhaseNames)]time.Duration{p.Fetch, p.Compile, p.Queue, p.Start, p.Run, p.Store, p.Parked} {
		if d > 0 {
			m.Phases[i].Observe(d)
		}
	}
	m.Fuel.Add(r.Fuel)
	if r.Fault != nil {
		m.Faults.Add(r.Fault.Code)
	} else if r.Exit != 0 {
		m.Exits.Add(1)
	}
}

// asked counts a question for work.
func (m *Measures) asked(leases []Lease, err error) {
	answer := stealWork
	switch {
	case err != nil:
		answer = stealFailed
	case len(leases) == 0:
		answer = stealNone
	}
	m.Steals[answer].Add(1)
	m.Taken.Add(tasksIn(leases))
	m.Leases[leaseTaken].Add(uint64(len(leases)))
}

// Waited is for how many seconds tasks have waited in this node's queue, summed over the tasks.
func (m *Measures) Waited() float64 { return math.Float64frombits(m.waited.Load()) }

// queue counts the time that a queue of so many tasks has lasted. The loop alone calls it.
func (m *Measures) queue(tasks uint64, lasted time.Duration) {
	if tasks > 0 && lasted > 0 {
		m.waited.Store(math.Float64bits(m.Waited() + float64(tasks)*lasted.Seconds()))
	}
}

func tasksIn(leases []Lease) (n uint64) {
	for i := range leases {
		n += uint64(leases[i].Len())
	}
	return n
}

// ended counts a job that has ended.
func (m *Measures) ended(s State, took time.Duration) {
	m.Jobs.Observe(took)
	for i := range endNames {
		if endNames[i] == s {
			m.Ended[i].Add(1)
		}
	}
}
