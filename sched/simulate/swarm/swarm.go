// Package swarm runs many scheduler cores against one another in virtual time: one thread, one queue
// of events, everything from one seed, so that a run of a thousand nodes takes seconds and a failure
// replays. It models the network as a delay and a chance of loss, workers as the time their tasks
// take, and nodes that crash and come back. What travels, how results get to their owner, and what a
// guest computes are not its business.
package swarm

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/sched"
)

// Config describes a run. Only Nodes, Slots and Jobs are needed.
type Config struct {
	Nodes  int
	Slots  int // of each node
	Seed   uint64
	Degree int           // peers of each node, when there are more nodes than that; default 64
	Delay  time.Duration // of a message, one way; each takes between half and one and a half of it
	Loss   float64       // the chance that a message is lost
	Per    time.Duration // what a grain costs besides its tasks
	Jobs   []Job
	Faults []Fault
	Sched  sched.Config // for all nodes; Self, Slots and Rand are set for each

	// After, if not nil, sees every node after each of its steps; its error ends the run.
	After func(*sched.Core) error
	// Limit is the virtual time after which the run is given up. Default one hour.
	Limit time.Duration
}

// Job is one job of the run.
type Job struct {
	Node   int           // its owner
	At     time.Duration // when it is submitted
	Stages []int         // tasks of each
	Pieces int           // in how many pieces a stage opens; default 1
	Keep   bool          // go on after failures
	// Took tells how long a task takes; default 10 ms.
	Took func(stage int, task uint32) time.Duration
	// Outcome tells how a try at a task ends; default success.
	Outcome func(node, stage int, task uint32) grid.TaskOutcome
	Cancel  time.Duration // when somebody cancels it, after At; 0: never
}

// Fault takes a node away for a while.
type Fault struct {
	Node int
	At   time.Duration
	For  time.Duration // until it comes back, empty; 0: it stays away
	// Deaf keeps the node running but unreachable: a partition of one.
	Deaf bool
}

// Report tells how a run went.
type Report struct {
	Makespan time.Duration // until the last job ended
	Ideal    time.Duration // a lower bound of that: perfect sharing, free messages
	Busy     time.Duration // slots' time in grains
	Idle     float64       // the share of all slots' time until Makespan that was not
	Tasks    int           // that had to run
	Ran      int           // tries at tasks that came to their end
	Asks     int           // steals asked for
	Steals   int           // that gave something
	Messages int           // of all kinds; a call counts for two
	Steps    int           // of all cores
	Jobs     []JobReport
}

// JobReport tells how a job ended.
type JobReport struct {
	Ended  bool
	At     time.Duration
	Closed int // CloseJob effects; more than 1 is a fault of the scheduler
	Failed []grid.FailedTask
	Ran    map[grid.Work][]int // tries at each task that came to their end
}

func (r *Report) String() string {
	return fmt.Sprintf("makespan %v, ideal %v (x%.3f), idle %.1f%%, tasks %d (ran %d), steals %d of %d asked, messages %d, steps %d",
		r.Makespan.Round(time.Millisecond), r.Ideal.Round(time.Millisecond), float64(r.Makespan)/float64(r.Ideal),
		100*r.Idle, r.Tasks, r.Ran, r.Steals, r.Asks, r.Messages, r.Steps)
}

type world struct {
	cfg    Config
	rand   *rand.Rand
	now    time.Duration
	queue  queue
	seq    int
	nodes  []*node
	byID   map[peer.ID]*node
	byJob  map[grid.JobID]int
	calls  map[uint64]*call
	call   uint64
	open   int // jobs that have not ended
	report Report
	err    error
}

type node struct {
	id    peer.ID
	n     int
	core  *sched.Core
	life  int // counts restarts: what belongs to an earlier one is void
	up    bool
	deaf  bool
	tick  time.Duration // when the next Tick is queued for; 0: none is
	slots []int         // the number of the grain in each, 0 when idle
	runs  []grid.Lease
	since []time.Duration
	peers []*node
}

type call struct{ thief, victim *node }

// start is the zero of virtual time.
var start = time.Unix(1<<30, 0)

// Run plays cfg to the end of its last job.
func Run(cfg Config) (*Report, error) {
	def(&cfg.Degree, 64)
	def(&cfg.Limit, time.Hour)
	w := &world{
		cfg:   cfg,
		rand:  rand.New(rand.NewPCG(cfg.Seed, 1)),
		byID:  map[peer.ID]*node{},
		byJob: map[grid.JobID]int{},
		calls: map[uint64]*call{},
	}
	w.populate()
	for i := range cfg.Jobs {
		w.submit(i)
	}
	for _, f := range cfg.Faults {
		w.plan(f)
	}
	for w.err == nil && w.open > 0 && len(w.queue) > 0 {
		e := heap.Pop(&w.queue).(*event)
		if w.now = e.at; w.now > cfg.Limit {
			w.err = fmt.Errorf("swarm: seed %d: %d jobs have not ended after %v", cfg.Seed, w.open, cfg.Limit)
			break
		}
		e.do()
	}
	if w.err == nil && w.open > 0 {
		w.err = fmt.Errorf("swarm: seed %d: nothing happens any more, and %d jobs have not ended", cfg.Seed, w.open)
	}
	w.finish()
	return &w.report, w.err
}

func def[T ~int | ~int64](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

func (w *world) populate() {
	for i := range w.cfg.Nodes {
		n := &node{id: peer.ID("n" + strconv.Itoa(i)), n: i, up: true}
		w.nodes = append(w.nodes, n)
		w.byID[n.id] = n
	}
	link := func(a, b *node) {
		if a != b && !slices.Contains(a.peers, b) {
			a.peers, b.peers = append(a.peers, b), append(b.peers, a)
		}
	}
	for i, a := range w.nodes {
		if len(w.nodes) <= w.cfg.Degree+1 {
			for _, b := range w.nodes[i+1:] {
				link(a, b)
			}
			continue
		}
		link(a, w.nodes[(i+1)%len(w.nodes)]) // a ring, so that it hangs together
		for len(a.peers) < w.cfg.Degree/2 {
			link(a, w.nodes[w.rand.IntN(len(w.nodes))])
		}
	}
	for _, n := range w.nodes {
		w.boot(n)
	}
}

// boot gives a node a fresh core and tells it of its peers.
func (w *world) boot(n *node) {
	cfg := w.cfg.Sched
	cfg.Self, cfg.Slots, cfg.Rand = n.id, w.cfg.Slots, rand.New(rand.NewPCG(w.cfg.Seed, uint64(n.n+2)))
	n.core = sched.New(cfg)
	n.life++
	n.tick = 0
	n.slots = make([]int, w.cfg.Slots)
	n.runs = make([]grid.Lease, w.cfg.Slots)
	n.since = make([]time.Duration, w.cfg.Slots)
	for _, p := range n.peers {
		if p.up && !p.deaf {
			w.on(n, 0, peerChanged(p, true))
		}
	}
}

func peerChanged(p *node, up bool) grid.Event {
	return grid.PeerChanged{PeerEvent: grid.PeerEvent{Peer: p.id, Up: up}}
}

func (w *world) submit(i int) {
	j := &w.cfg.Jobs[i]
	def(&j.Pieces, 1)
	if j.Took == nil {
		j.Took = func(int, uint32) time.Duration { return 10 * time.Millisecond }
	}
	if j.Outcome == nil {
		j.Outcome = func(int, int, uint32) grid.TaskOutcome { return grid.Succeeded }
	}
	id := grid.JobID("j" + strconv.Itoa(i))
	w.byJob[id] = i
	w.open++
	ran := map[grid.Work][]int{}
	plans := make([]grid.StagePlan, len(j.Stages))
	for s, n := range j.Stages {
		ran[grid.Work{Job: id, Stage: uint32(s)}] = make([]int, n)
		plans[s].Tasks = uint32(n)
		if s > 0 {
			plans[s].Needs = []grid.Need{{Stage: uint32(s - 1)}}
		}
	}
	w.report.Jobs = append(w.report.Jobs, JobReport{Ran: ran})
	owner := w.nodes[j.Node]
	w.on(owner, j.At, grid.JobOpened{
		Lease: grid.Lease{Job: id, Owner: owner.id, Epoch: 1}, Stages: plans, KeepGoing: j.Keep,
	})
	if j.Cancel > 0 {
		w.at(j.At+j.Cancel, func() {
			if r := &w.report.Jobs[i]; !r.Ended {
				w.step(owner, grid.JobEnded{Job: id})
				w.ended(i, nil)
			}
		})
	}
}

func (w *world) plan(f Fault) {
	n := w.nodes[f.Node]
	tell := func(up bool) {
		for _, p := range n.peers {
			if p.up && !p.deaf {
				w.on(p, w.delay(), peerChanged(n, up))
				if f.Deaf {
					w.on(n, w.delay(), peerChanged(p, up))
				}
			}
		}
	}
	w.at(f.At, func() {
		if f.Deaf {
			n.deaf = true
		} else {
			n.up = false
			n.life++
		}
		tell(false)
	})
	if f.For > 0 {
		w.at(f.At+f.For, func() {
			if f.Deaf {
				n.deaf = false
			} else {
				n.up = true
				w.boot(n)
			}
			tell(true)
		})
	}
}

func (w *world) delay() time.Duration {
	return w.cfg.Delay/2 + time.Duration(w.rand.Int64N(int64(w.cfg.Delay)+1))
}

// on has an event happen at a node after some time, unless it dies before.
func (w *world) on(n *node, after time.Duration, ev grid.Event) {
	life := n.life
	w.at(w.now+after, func() {
		if n.life == life {
			w.step(n, ev)
		}
	})
}

// send carries an event to another node, and reports false when it will not arrive.
func (w *world) send(from *node, to peer.ID, ev grid.Event) bool {
	n := w.byID[to]
	w.report.Messages++
	if n == nil || !n.up || n.deaf || from.deaf || w.rand.Float64() < w.cfg.Loss {
		return false
	}
	w.on(n, w.delay(), ev)
	return true
}

func (w *world) step(n *node, ev grid.Event) {
	if w.err != nil || !n.up {
		return
	}
	w.report.Steps++
	effects := n.core.Step(start.Add(w.now), ev)
	if w.cfg.After != nil {
		if err := w.cfg.After(n.core); err != nil {
			w.err = fmt.Errorf("swarm: seed %d: %s at %v after %T%+v: %w", w.cfg.Seed, n.id, w.now, ev, ev, err)
			return
		}
	}
	for _, e := range effects {
		w.effect(n, e)
	}
	if t := n.core.NextTick(); !t.IsZero() {
		at := max(t.Sub(start), w.now)
		if n.tick == 0 || at < n.tick {
			n.tick = at
			life := n.life
			w.at(at, func() {
				if n.life == life && n.tick == at {
					n.tick = 0
					w.step(n, grid.Tick{})
				}
			})
		}
	}
}

func (w *world) effect(n *node, e grid.Effect) {
	switch e := e.(type) {
	case grid.Run:
		w.run(n, e)
	case grid.Prepare:
		w.prepare(n, e)
	case grid.CloseJob:
		w.ended(w.byJob[e.Job], e.Failed)
		w.report.Jobs[w.byJob[e.Job]].Closed++
	case grid.StopJob:
		for slot, run := range n.runs {
			if n.slots[slot] != 0 && run.Job == e.Job {
				w.idle(n, slot)
				w.on(n, 0, grid.GrainDone{Slot: slot})
			}
		}
	case grid.StopGrain:
		if n.slots[e.Slot] != 0 {
			w.idle(n, e.Slot)
			w.on(n, 0, grid.GrainDone{Slot: e.Slot})
		}
	case grid.TellDropped:
		w.send(n, e.To, grid.Dropped{From: n.id, Job: e.Job, Epoch: e.Epoch})
	case grid.AskSteal:
		w.ask(n, e)
	case grid.AnswerSteal:
		w.answer(n, e)
	case grid.SendClaim:
		w.send(n, e.To, grid.Claimed{From: n.id, Work: e.Work, Epoch: e.Epoch, Spans: e.Spans})
	case grid.Wake:
		w.send(n, e.To, grid.Woken{From: n.id})
	}
}

// prepare answers for each span in as many pieces as the job says.
func (w *world) prepare(n *node, e grid.Prepare) {
	pieces := w.cfg.Jobs[w.byJob[e.Job]].Pieces
	for _, s := range e.Spans {
		cut := func(p int) uint32 { return s.Lo + uint32(uint64(s.Len())*uint64(p)/uint64(pieces)) }
		for p := range pieces {
			w.on(n, time.Duration(p)*time.Millisecond, grid.Prepared{Work: e.Work, Ready: []grid.Span{{Lo: cut(p), Hi: cut(p + 1)}}})
		}
	}
}

func (w *world) ended(i int, failed []grid.FailedTask) {
	if r := &w.report.Jobs[i]; !r.Ended {
		r.Ended, r.At, r.Failed = true, w.now, failed
		w.open--
	}
}

func (w *world) run(n *node, e grid.Run) {
	j := &w.cfg.Jobs[w.byJob[e.Lease.Job]]
	if n.slots[e.Slot] != 0 {
		w.err = fmt.Errorf("swarm: seed %d: %s runs %s in slot %d, which is busy", w.cfg.Seed, n.id, e.Lease, e.Slot)
		return
	}
	took := w.cfg.Per
	for i := e.Lease.Lo; i < e.Lease.Hi; i++ {
		took += j.Took(int(e.Lease.Stage), i)
	}
	w.seq++
	grain := w.seq
	n.slots[e.Slot], n.runs[e.Slot], n.since[e.Slot] = grain, e.Lease, w.now
	life := n.life
	w.at(w.now+took, func() {
		if n.life == life && n.slots[e.Slot] == grain {
			w.ran(n, e, j, took)
		}
	})
}

func (w *world) idle(n *node, slot int) {
	n.slots[slot] = 0
	w.report.Busy += w.now - n.since[slot]
}

func (w *world) ran(n *node, e grid.Run, j *Job, took time.Duration) {
	w.idle(n, e.Slot)
	results := make([]grid.TaskResult, 0, e.Lease.Len())
	for i := e.Lease.Lo; i < e.Lease.Hi; i++ {
		w.report.Jobs[w.byJob[e.Lease.Job]].Ran[e.Lease.Work()][i]++
		w.report.Ran++
		results = append(results, grid.TaskResult{Index: i, Outcome: j.Outcome(n.n, int(e.Lease.Stage), i)})
	}
	done := grid.GrainDone{Slot: e.Slot, Took: took, Ran: len(results)}
	if e.Lease.Owner == n.id {
		done.Results = results
	} else {
		w.deliver(n, e.Lease.Owner, grid.Reported{From: n.id, Work: e.Lease.Work(), Epoch: e.Lease.Epoch, Results: results})
	}
	w.step(n, done)
}

// deliver sends a report again until it arrives or its node dies, as a node does with receipts.
func (w *world) deliver(from *node, to peer.ID, ev grid.Event) {
	if w.send(from, to, ev) {
		return
	}
	life := from.life
	w.at(w.now+500*time.Millisecond, func() {
		if from.life == life {
			w.deliver(from, to, ev)
		}
	})
}

func (w *world) ask(n *node, e grid.AskSteal) {
	w.report.Asks++
	w.call++
	id := w.call
	w.calls[id] = &call{thief: n, victim: w.byID[e.Victim]}
	life := n.life
	timeout := 8*w.cfg.Delay + 100*time.Millisecond
	if !w.send(n, e.Victim, grid.StealAsked{From: n.id, Call: id, Slots: e.Slots}) {
		timeout = w.delay()
	}
	w.at(w.now+timeout, func() {
		if w.calls[id] != nil {
			delete(w.calls, id)
			if n.life == life {
				w.step(n, grid.StealAnswered{From: e.Victim, Failed: true})
			}
		}
	})
}

func (w *world) answer(n *node, e grid.AnswerSteal) {
	c := w.calls[e.Call]
	if c == nil || c.victim != n {
		return
	}
	if w.send(n, c.thief.id, grid.StealAnswered{From: n.id, Leases: e.Leases}) {
		delete(w.calls, e.Call)
		if len(e.Leases) > 0 {
			w.report.Steals++
		}
	}
}

func (w *world) finish() {
	r := &w.report
	first, longest := w.cfg.Limit, time.Duration(0)
	var all time.Duration
	for i, j := range w.cfg.Jobs {
		first = min(first, j.At)
		r.Makespan = max(r.Makespan, r.Jobs[i].At)
		var chain time.Duration
		for s, n := range j.Stages {
			var most time.Duration
			for t := range n {
				took := j.Took(s, uint32(t))
				all += took
				most = max(most, took)
			}
			chain += most
			r.Tasks += n
		}
		longest = max(longest, chain)
	}
	r.Makespan -= first
	slots := time.Duration(w.cfg.Nodes * w.cfg.Slots)
	r.Ideal = max(all/slots, longest)
	for _, n := range w.nodes {
		for slot, grain := range n.slots {
			if grain != 0 {
				r.Busy += w.now - n.since[slot]
			}
		}
	}
	if r.Makespan > 0 {
		r.Idle = 1 - float64(r.Busy)/float64(r.Makespan*slots)
	}
}

type event struct {
	at  time.Duration
	seq int
	do  func()
}

func (w *world) at(t time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, &event{at: t, seq: w.seq, do: do})
}

// queue is a heap of events by time; those of one time stay in order.
type queue []*event

func (q queue) Len() int      { return len(q) }
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q *queue) Push(x any) { *q = append(*q, x.(*event)) }
func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}
