// Package swarm runs many scheduler cores against one another in virtual time: one thread, one queue
// of events, everything from one seed, so that a run of a thousand nodes takes seconds and a failure
// replays.
//
// It models links with delays between sites, bandwidth, loss, repetition and reordering; workers as the
// time their tasks take on machines of different speeds; inputs that have to be fetched unless they are
// there; jobs of many shapes; nodes that crash, come back, or cannot be reached; owners that die and are
// replaced; and nodes that misbehave. What a guest computes, how results are stored and how the ledger
// agrees are not its business.
//
// Besides, it is an auditor: [Run] ends with an error when a job ends without all of its tasks, or twice,
// or never; when something runs that must not; or when something is held after everything has ended.
// A [Config] is plain data, but for a few hooks, so that [Shrink] can make a failing one small.
package swarm

import (
	"fmt"
	"io"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/sched"
)

// Config describes a run. Only Nodes, Slots and Jobs are needed.
type Config struct {
	Nodes    int
	Slots    int       // of each node whose machine does not say
	Machines []Machine // node i is the i-th, beginning anew when there are fewer; none: all are alike
	Seed     uint64
	Degree   int           // peers of each node, when there are more nodes than that; default 64
	Delay    time.Duration // of a message, one way; each takes between half and one and a half of it
	Sites    int           // places in a square; node i is at the i-th, beginning anew. 0: all are at one
	Far      time.Duration // what a side of the square adds to the delay
	Rate     int64         // bytes a second that a node sends and receives; 0: any number
	Loss     float64       // the chance that a message is lost
	Twice    float64       // the chance that one that is not part of a call arrives twice
	Late     float64       // the chance that one takes ten times as long
	Per      time.Duration // what a grain costs besides its tasks
	Jobs     []Job
	Faults   []Fault
	// Stay is how long a node is there on average before it crashes, and Away how long until it comes back, empty: both exponentially
	// distributed, by the seed. Those whom jobs are given to stay. 0: nobody comes or goes besides Faults; Away is then a tenth of Stay.
	Stay, Away time.Duration
	Vices      []Vice
	// Realms is how many there are: node i is of realm i modulo Realms, and all jobs are to be offloaded. 0: one.
	Realms   int
	Takeover time.Duration `shrink:"no"` // until another node takes over the jobs of one that is gone; default 2 s
	Sched    sched.Config  // for all nodes; Self, Slots, Rand and what the machine says are set for each

	// After, if not nil, sees every node after each of its steps; its error ends the run.
	After func(*sched.Core) error
	// Wrap, if not nil, puts something in the place of a node's scheduler.
	Wrap func(node int, s grid.Scheduler) grid.Scheduler
	// Limit is the virtual time after which the run is given up. Default one hour.
	Limit time.Duration `shrink:"no"`
	// Events is how many events there may be; 0: any number.
	Events int `shrink:"no"`
	// Quiet is how long after the last job has ended nodes may still hold something; 0: for ever. Nothing is lost
	// in that time.
	Quiet time.Duration `shrink:"no"`
	// Patience is how long an honest node that can be reached may have an idle slot while one of its peers has
	// plenty queued; 0: for ever. It says nothing where jobs choose their nodes.
	Patience time.Duration `shrink:"no"`
	// Once makes it a fault that a task is run twice, which it may be where something goes wrong.
	Once bool `shrink:"no"`
	// Measure takes the time that the cores take, for Report.Cost.
	Measure bool
	// Trace, if not nil, is told every event and its effects.
	Trace io.Writer
}

// Machine is what a node is made of. Zero means as good as any.
type Machine struct {
	Slots   int
	Speed   float64 // of which 1 takes as long as the task says, 2 half of it
	Rate    int64   // bytes a second
	Memory  uint64
	Scratch uint64
	Labels  grid.Labels
}

// Job is one job of the run.
type Job struct {
	Node   int           // its owner
	At     time.Duration // when it is submitted
	Stages []int         // tasks of each
	Needs  [][]grid.Need // of each; none at all: each stage needs all of the one before
	Pieces int           // in how many pieces spans are prepared; default 1
	Time   Times         // that its tasks take

	User     string
	Priority int
	Keep     bool   // go on after failures
	Allow    uint32 // failures
	Parallel uint32
	Attempts int
	Pure     bool          // tasks may be tried on two nodes at once
	Cancel   time.Duration // when somebody cancels it, after At; 0: never
	Deadline time.Duration // after At; 0: never
	Pause    time.Duration // when it is paused, after At; 0: never
	Rest     time.Duration // for how long

	Require, Prefer string
	Cores           uint32
	Memory          uint64

	Input  int64 // bytes that each task reads
	Roots  int   // different inputs of each stage; neighbouring tasks share one. Default: as many as tasks
	Copies int   // each is on so many nodes, at random; 0: on the job's node
	Output int64 // bytes that the owner fetches for each task before it counts

	Spawn Spawn // jobs that tasks make, and wait for

	Verify string // how results are verified, as grid.ParseVerify reads it

	Bad   int     // each so many-th task fails by its own fault; 0: none does
	Flaky float64 // the chance that a try at a task fails by its node's fault

	// Took, if not nil, tells how long a task takes, in place of Time.
	Took func(stage int, task uint32) time.Duration
	// Outcome, if not nil, tells how a try at a task ends, in place of Bad and Flaky.
	Outcome func(node, stage int, task uint32) grid.TaskOutcome
}

// Spawn says which tasks make jobs, each when it has run for half of its time.
type Spawn struct {
	Every int // one in so many does
	Tasks int // of the job that it makes; 0: none is made
	Depth int // so deep they go: tasks of such jobs make jobs like theirs
}

// Times is a distribution of how long tasks take.
type Times struct {
	Kind  Kind
	Mean  time.Duration // default 10 ms
	Long  time.Duration // of Mixed
	Every int           // of Mixed: one in so many tasks takes Long, the others Mean
}

// Kind is the shape of a distribution.
type Kind string

// The kinds.
const (
	Constant    Kind = "" // all alike
	Exponential Kind = "exp"
	Pareto      Kind = "pareto" // of exponent 1.5, at most a thousand times the mean
	Mixed       Kind = "mixed"
)

// Fault takes nodes away for a while.
type Fault struct {
	Node  int
	Group int // so many from Node on go together; default 1
	At    time.Duration
	For   time.Duration // until they come back, empty; 0: they stay away
	// Deaf keeps them running but unreachable for the others: a partition.
	Deaf bool
}

// Vice makes a node misbehave.
type Vice struct {
	Node int
	Kind Misdeed
	At   time.Duration // from then on
}

// Misdeed is a way to misbehave. A node that owns a job is only ever Broken or Slow.
type Misdeed string

// The misdeeds.
const (
	Broken   Misdeed = "broken"   // every task fails at once, by the node's fault
	Slow     Misdeed = "slow"     // tasks take twenty times as long
	Mute     Misdeed = "mute"     // it steals, and tells nobody anything: no answers, claims or results
	Greedy   Misdeed = "greedy"   // it asks as if it had a thousand idle slots
	Liar     Misdeed = "liar"     // it reports failures of tasks that it was not given, and claims them
	Hoarder  Misdeed = "hoarder"  // it claims what it has stolen, and never runs it
	Wrong    Misdeed = "wrong"    // its results are wrong, each in its own way
	Colluder Misdeed = "colluder" // its results are wrong, and the same as those of others of its kind
)

// Report tells how a run went.
type Report struct {
	Makespan time.Duration    `json:"makespan_ns"` // until the last job ended
	Ideal    time.Duration    `json:"ideal_ns"`    // a lower bound of that: perfect sharing, free messages and data
	Busy     time.Duration    `json:"busy_ns"`     // slots' time in grains
	Idle     float64          `json:"idle"`        // the share of all slots' time until Makespan that was not
	Starved  float64          `json:"starved"`     // the share in which a slot was idle while something was queued elsewhere; sampled
	Tasks    int              `json:"tasks"`       // that had to run
	Ran      int              `json:"ran"`         // tries at tasks that came to their end
	Asks     int              `json:"asks"`        // steals asked for
	Steals   int              `json:"steals"`      // that gave something
	Messages int              `json:"messages"`    // of all kinds; a call counts for two
	Wire     int64            `json:"wire"`        // bytes of these, by what every so many-th has in CBOR; without receipts
	Busiest  int              `json:"busiest"`     // messages that one node has sent or got, at most
	Left     int              `json:"left"`        // times that a node went
	Reached  time.Duration    `json:"reached_ns"`  // until 99 of 100 nodes had begun their first task, of those that did
	Waited   [2]time.Duration `json:"waited_ns"`   // from asking to getting work: the median, and what 99 of 100 are below
	Bytes    int64            `json:"bytes"`       // of inputs and outputs that went from node to node
	Fetches  int              `json:"fetches"`     // of inputs
	Steps    int              `json:"steps"`       // of all cores
	Spawned  int              `json:"spawned"`     // jobs that tasks made
	Notes    int              `json:"notes"`       // that owners made for people
	Cost     time.Duration    `json:"cost_ns"`     // real time of all steps, if Measure

	Jobs  []JobReport              `json:"jobs"`
	Users map[string]time.Duration `json:"users_ns"` // slots' time of each while all had something to do
}

// JobReport tells how a job ended.
type JobReport struct {
	Ended  bool                `json:"ended"`
	At     time.Duration       `json:"at_ns"`
	Closed int                 `json:"closed"` // CloseJob effects of its owner
	Bad    bool                `json:"bad"`
	Why    string              `json:"why,omitempty"`
	Failed []grid.FailedTask   `json:"failed,omitempty"`
	Ran    map[grid.Work][]int `json:"-"` // tries at each task that came to their end

	Wrong   int            `json:"wrong,omitempty"` // results that were believed, and are wrong
	Extra   int            `json:"extra,omitempty"` // runs that verification took besides those that count
	Decided int            `json:"-"`               // tasks that were verified
	Split   int            `json:"split,omitempty"` // tasks that failed as no answer was to be believed
	Late    int            `json:"late,omitempty"`  // of Extra, those of the second half of its tasks
	Liars   map[string]int `json:"liars,omitempty"` // whose results were refuted, and how many
}

func (r *Report) String() string {
	s := fmt.Sprintf("makespan %v, ideal %v (x%.3f), idle %.1f%%, starved %.1f%%, tasks %d (ran %d), steals %d of %d asked, messages %d, steps %d",
		r.Makespan.Round(time.Millisecond), r.Ideal.Round(time.Millisecond), r.Stretch(),
		100*r.Idle, 100*r.Starved, r.Tasks, r.Ran, r.Steals, r.Asks, r.Messages, r.Steps)
	if r.Bytes > 0 {
		s += fmt.Sprintf(", fetches %d, moved %.1f MB", r.Fetches, float64(r.Bytes)/1e6)
	}
	return s
}

// Stretch is the makespan as a multiple of the ideal.
func (r *Report) Stretch() float64 { return float64(r.Makespan) / float64(max(r.Ideal, 1)) }

// PerTask is the cores' time for each task, if it was measured.
func (r *Report) PerTask() time.Duration { return r.Cost / time.Duration(max(r.Tasks, 1)) }

// Run plays cfg to the end of its last job.
func Run(cfg Config) (*Report, error) {
	w := newWorld(cfg.sane())
	w.play()
	if w.err == nil && w.cfg.Quiet > 0 {
		w.settleDown()
	}
	if w.err != nil {
		w.err = fmt.Errorf("swarm: seed %d: at %v: %w", cfg.Seed, w.now, w.err)
	}
	return &w.report, w.err
}

// sane is a copy of cfg that can be played, with defaults filled in: what names a node names one.
func (cfg Config) sane() Config {
	cfg = cfg.clone()
	cfg.Nodes, cfg.Slots = max(cfg.Nodes, 1), max(cfg.Slots, 1)
	def(&cfg.Degree, 64)
	def(&cfg.Limit, time.Hour)
	def(&cfg.Takeover, 2*time.Second)
	if cfg.Stay > 0 {
		def(&cfg.Away, cfg.Stay/10)
	}
	cfg.Delay, cfg.Far = max(cfg.Delay, 0), max(cfg.Far, 0)
	node := func(n *int) { *n = ((*n % cfg.Nodes) + cfg.Nodes) % cfg.Nodes }
	for i := range cfg.Jobs {
		j := &cfg.Jobs[i]
		node(&j.Node)
		def(&j.Pieces, 1)
		def(&j.Time.Mean, 10*time.Millisecond)
		j.At = max(j.At, 0)
		for s := range j.Stages {
			j.Stages[s] = min(max(j.Stages[s], 0), grid.MaxTasks)
		}
		j.needs()
	}
	for i := range cfg.Faults {
		f := &cfg.Faults[i]
		node(&f.Node)
		f.Group = max(min(f.Group, cfg.Nodes-f.Node), 1)
	}
	for i := range cfg.Vices {
		node(&cfg.Vices[i].Node)
	}
	return cfg
}

// needs completes Needs, and drops those of stages that do not come before.
func (j *Job) needs() {
	chain := len(j.Needs) == 0
	needs := make([][]grid.Need, len(j.Stages))
	for s := range j.Stages {
		switch {
		case chain && s > 0:
			needs[s] = []grid.Need{{Stage: uint32(s - 1)}}
		case !chain && s < len(j.Needs):
			for _, n := range j.Needs[s] {
				if int(n.Stage) < s {
					needs[s] = append(needs[s], n)
				}
			}
		}
	}
	j.Needs = needs
}

func def[T ~int | ~int64](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}
