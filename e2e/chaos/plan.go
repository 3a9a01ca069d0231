// Package chaos draws the faults that fall on a swarm. They are a pure function of a seed: whoever has it can have the same faults again, in the
// same order, on the same nodes. It does none of them; the tests of e2e do.
package chaos

import (
	"cmp"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Kind is a kind of fault.
type Kind string

// The kinds. While one lasts its nodes are away or worse than they should be, and then they are well again.
const (
	Kill    Kind = "kill"    // without warning, and started again
	End     Kind = "end"     // in good order, and started again
	Pause   Kind = "pause"   // the process stands still
	Cut     Kind = "cut"     // no packet goes between these nodes and the others
	Deaf    Kind = "deaf"    // what others send does not arrive
	Slow    Kind = "slow"    // packets get lost, Amount percent of them, and there is a bound on how many go out
	Full    Kind = "full"    // the disk
	Rot     Kind = "rot"     // killed, and bytes of its blocks are changed before it is started again
	Clock   Kind = "clock"   // its clock jumps by Amount seconds, and later back
	All     Kind = "all"     // nodes are killed at once, and started in this order
	Upgrade Kind = "upgrade" // all nodes are given another version, one after the other in this order
)

// Kinds lists all of them.
func Kinds() []Kind { return []Kind{Kill, End, Pause, Cut, Deaf, Slow, Full, Rot, Clock, All, Upgrade} }

// Most is how many nodes are not well at a time, but for All. A realm of five or more survives the loss of two.
const Most = 2

// Fault is one of them.
type Fault struct {
	Kind   Kind
	Nodes  []int
	After  time.Duration // its round has begun
	For    time.Duration
	Amount int // its meaning is that of the kind
}

func (f Fault) String() string {
	var b strings.Builder
	fmt.Fprint(&b, f.Kind)
	for _, n := range f.Nodes {
		fmt.Fprintf(&b, " n%d", n)
	}
	if f.Amount != 0 {
		fmt.Fprintf(&b, " by %d", f.Amount)
	}
	fmt.Fprintf(&b, " at %v", f.After)
	if f.For > 0 {
		fmt.Fprintf(&b, " for %v", f.For)
	}
	return b.String()
}

// Round is faults that may overlap. They are over before the next round begins, so that what comes of one that takes longer than usual is the same.
type Round struct {
	Faults []Fault
	Calm   time.Duration // behind them
}

func (r Round) String() string {
	var fs []string
	for _, f := range r.Faults {
		fs = append(fs, f.String())
	}
	return strings.Join(fs, ", ") + fmt.Sprintf("; calm for %v", r.Calm)
}

// Length is how long a round takes if nothing takes time but waiting.
func (r Round) Length() (d time.Duration) {
	for _, f := range r.Faults {
		d = max(d, f.After+f.For)
	}
	return d + r.Calm
}

// Size is how many nodes a swarm has with this seed.
func Size(seed uint64) int { return 5 + rand.New(rand.NewPCG(seed, 1)).IntN(5) }

// Rounds draws faults of some kinds for a swarm, the first nodes of which are spared from them. There is no last one.
func Rounds(seed uint64, size, spared int, kinds ...Kind) iter.Seq[Round] {
	return func(yield func(Round) bool) {
		d := &deck{r: rand.New(rand.NewPCG(seed, 0)), kinds: kinds, size: size, spared: spared}
		for yield(d.round()) {
		}
	}
}

// deck is the kinds in a random order, each of which comes once before any comes again.
type deck struct {
	r            *rand.Rand
	kinds, left  []Kind
	size, spared int
}

// alone are the kinds beside which there is no other fault: those of all nodes, and one that needs the copies that others have.
var alone = []Kind{All, Upgrade, Rot}

func (d *deck) next() Kind {
	if len(d.left) == 0 {
		d.left = slices.Clone(d.kinds)
		slices.Sort(d.left) // so that it does not matter how they were told
		d.r.Shuffle(len(d.left), func(i, j int) { d.left[i], d.left[j] = d.left[j], d.left[i] })
	}
	return d.left[0]
}

func (d *deck) round() (r Round) {
	r.Calm = d.between(time.Second, 5*time.Second)
	nodes := d.r.Perm(d.size - d.spared)
	for i := range nodes {
		nodes[i] += d.spared
	}
	first := d.next()
	d.left = d.left[1:]
	switch {
	case first == All || first == Upgrade:
		r.Faults = []Fault{d.fault(first, nodes)}
	case slices.Contains(alone, first):
		r.Faults = []Fault{d.fault(first, nodes[:1])}
	case d.r.IntN(4) == 0:
		r.Faults = []Fault{d.fault(first, nodes[:Most])}
	default:
		r.Faults = []Fault{d.fault(first, nodes[:1])}
		if second := d.next(); d.r.IntN(2) == 0 && !slices.Contains(alone, second) {
			d.left = d.left[1:]
			f := d.fault(second, nodes[1:Most])
			f.After = d.between(0, cmp.Or(r.Faults[0].For, time.Second))
			r.Faults = append(r.Faults, f)
		}
	}
	return r
}

func (d *deck) fault(k Kind, nodes []int) Fault {
	f := Fault{Kind: k, Nodes: nodes}
	switch k {
	case Kill, End, All:
		f.For = d.between(200*time.Millisecond, 4*time.Second)
		if k != All && d.r.IntN(12) == 0 {
			f.For = 35 * time.Second // long enough for others to take its place
		}
	case Pause:
		f.For = d.between(500*time.Millisecond, 10*time.Second)
	case Cut, Deaf:
		f.For = d.between(time.Second, 15*time.Second)
	case Slow:
		f.For, f.Amount = d.between(3*time.Second, 15*time.Second), 1+d.r.IntN(20)
	case Full:
		f.For = d.between(2*time.Second, 10*time.Second)
	case Clock:
		// From moments to nearly a week, either way: by more, what is kept for a time would be old.
		f.For, f.Amount = d.between(time.Second, 10*time.Second), []int{1, 15, 90, 3600, 100_000, 600_000}[d.r.IntN(6)]
		if d.r.IntN(2) == 0 {
			f.Amount = -f.Amount
		}
	}
	return f
}

// between draws a time, in tenths of a second.
func (d *deck) between(lo, hi time.Duration) time.Duration {
	return (lo + time.Duration(d.r.Int64N(int64(hi-lo)+1))).Round(100 * time.Millisecond)
}
