package swarm

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/sched"
)

// start is the zero of virtual time.
var start = time.Unix(1<<30, 0)

// world is one run.
type world struct {
	cfg       Config
	events    int
	stand     int // events without time going on
	rand      *rand.Rand
	now       time.Duration
	queue     queue
	seq       int
	nodes     []*node
	byID      map[peer.ID]*node
	jobs      []*job
	byJob     map[grid.JobID]*job
	calls     map[uint64]*call
	call      uint64
	ticket    uint64
	waiting   map[uint64]*waiting // by ticket
	open      int                 // jobs that have not ended
	still     bool                // nothing is lost any more, and nobody lies
	roots     map[uint64][]*node  // who has an input
	dishonest int                 // nodes
	framed    []string            // nodes that a jury found to lie, and did not
	waited    []time.Duration     // from asking to getting work
	watch     watcher
	report    Report
	err       error
}

type node struct {
	Machine
	id        peer.ID
	n         int
	core      *sched.Core
	sched     grid.Scheduler
	life      int   // counts restarts: what belongs to an earlier one is void
	gone      int   // crashes that are not over
	side      int   // of a partition; those of one side reach one another
	away      []int // the sides of the partitions that are not over
	vice      Misdeed
	dishonest bool                      // it gives wrong results
	accused   map[peer.ID]time.Duration // when it accused others last
	standing  standing                  // of others, as it has learned
	owns      bool                      // a job, at some time
	tick      time.Duration             // when the next Tick is queued for; 0: none is
	slots     []*grain                  // nil when idle
	messages  int                       // sent and received
	first     time.Duration             // when it began its first task; 0: it has not
	peers     []*node                   // whom it is connected to: those of the beginning, and then those that it has spoken to since
	lasting   int                       // how many of them are those of the beginning
	with      map[*node]bool            // the same
	x, y      float64

	has     map[uint64]bool          // inputs
	summary grid.Summary             // of them; nil: not made
	coming  map[uint64]time.Duration // and when others will be here
	up      time.Duration            // until when its link is busy sending
	down    time.Duration            // and receiving
}

// job is one that runs.
type job struct {
	*Job
	id     grid.JobID
	key    uint64 // draws its tasks' times
	depth  int    // above it are so many tasks that wait
	parent uint64 // the ticket of the task that made it; 0: none did
	owner  *node
	epoch  grid.Epoch
	opened bool
	over   bool
	paused bool
	stages []stage
	report *JobReport
	verify grid.Verify
	jury   *grid.Jury // of its owner; nil: none
}

// stage is what is known to have happened to its tasks, by number.
type stage struct {
	prepared []bool
	begun    []bool
	ok       []bool // a success has reached the owner
	failed   []bool // a failure has
	tries    []uint32
}

type call struct {
	thief, victim *node
	life          int
	at            time.Duration
}

func newWorld(cfg Config) *world {
	w := &world{
		cfg:     cfg,
		rand:    rand.New(rand.NewPCG(cfg.Seed, 1)),
		byID:    map[peer.ID]*node{},
		byJob:   map[grid.JobID]*job{},
		calls:   map[uint64]*call{},
		roots:   map[uint64][]*node{},
		waiting: map[uint64]*waiting{},
	}
	w.populate()
	for i := range cfg.Jobs {
		w.submit(i)
	}
	for i, f := range cfg.Faults {
		for n := f.Node; n < f.Node+f.Group; n++ {
			w.plan(w.nodes[n], f, i+1)
		}
	}
	for _, v := range cfg.Vices {
		w.corrupt(v)
	}
	if cfg.Stay > 0 {
		r := rand.New(rand.NewPCG(cfg.Seed, 3))
		for _, n := range w.nodes {
			if !n.owns {
				w.churn(n, r)
			}
		}
	}
	w.sample(10 * time.Millisecond)
	return w
}

// play goes on until all jobs have ended.
func (w *world) play() {
	for w.err == nil && w.open > 0 && len(w.queue) > 0 {
		e := w.queue.pop()
		if e.at > w.cfg.Limit {
			w.err = fmt.Errorf("%s not ended after %v", w.unfinished(), w.cfg.Limit)
			break
		}
		w.advance(e)
	}
	if w.err == nil && w.open > 0 {
		w.err = fmt.Errorf("nothing happens any more, and %s not ended", w.unfinished())
	}
	w.finish()
}

// advance has an event happen. It is a fault that so much happens that time does not go on, or no end is in sight.
func (w *world) advance(e event) {
	w.events++
	if w.stand++; e.at > w.now {
		w.stand = 0
	}
	w.now = e.at
	switch {
	case w.stand > 100_000+1000*len(w.nodes):
		w.fail("%d events, and time stands still", w.stand)
	case w.cfg.Events > 0 && w.events > w.cfg.Events:
		w.fail("more than %d events; %s not ended", w.cfg.Events, w.unfinished())
	default:
		e.do()
	}
}

func (w *world) populate() {
	type place struct{ x, y float64 }
	sites := make([]place, max(w.cfg.Sites, 1))
	for i := range sites {
		sites[i] = place{w.rand.Float64(), w.rand.Float64()}
	}
	for i := range w.cfg.Nodes {
		n := &node{id: peer.ID("n" + strconv.Itoa(i)), n: i, has: map[uint64]bool{}, with: map[*node]bool{}, coming: map[uint64]time.Duration{}}
		if len(w.cfg.Machines) > 0 {
			n.Machine = w.cfg.Machines[i%len(w.cfg.Machines)]
		}
		def(&n.Slots, w.cfg.Slots)
		if n.Speed <= 0 {
			n.Speed = 1
		}
		def(&n.Rate, w.cfg.Rate)
		n.x, n.y = sites[i%len(sites)].x, sites[i%len(sites)].y
		w.nodes = append(w.nodes, n)
		w.byID[n.id] = n
	}
	link := func(a, b *node) {
		if a != b && !a.with[b] {
			a.link(b)
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
		n.lasting = len(n.peers)
		w.boot(n)
	}
}

func (n *node) link(p *node) {
	n.peers, p.peers = append(n.peers, p), append(p.peers, n)
	n.with[p], p.with[n] = true, true
}

// connect makes two nodes peers that are none and speak to each other: there has to be a connection for that, and it stays.
func (w *world) connect(a, b *node) {
	if a == b || a.with[b] || !reach(a, b) {
		return
	}
	a.link(b)
	w.on(a, 0, w.peerChanged(a, b, true))
	w.on(b, 0, w.peerChanged(b, a, true))
}

// part undoes what connect has done for one that has crashed: it does not look for all of them again.
func (w *world) part(n *node) {
	for _, p := range n.peers[n.lasting:] {
		i := p.lasting + slices.Index(p.peers[p.lasting:], n)
		p.peers = slices.Delete(p.peers, i, i+1)
		delete(n.with, p)
		delete(p.with, n)
	}
	n.peers = n.peers[:n.lasting]
}

// boot gives a node a fresh core and tells it of its peers.
func (w *world) boot(n *node) {
	n.core = sched.New(w.setUp(n))
	n.sched = n.core
	if w.cfg.Wrap != nil {
		n.sched = w.cfg.Wrap(n.n, n.core)
	}
	n.life++
	n.tick = 0
	n.slots = make([]*grain, n.Slots)
	for _, p := range n.peers {
		if reach(n, p) {
			w.on(n, 0, w.peerChanged(n, p, true))
		}
	}
}

// setUp is the configuration of a node's core.
func (w *world) setUp(n *node) sched.Config {
	cfg := w.cfg.Sched
	cfg.Capacity = n.capacity()
	cfg.Self, cfg.Slots, cfg.Rand = n.id, n.Slots, rand.New(rand.NewPCG(w.cfg.Seed, uint64(n.n+2)))
	return cfg
}

// peerChanged is what n is told of p.
func (w *world) peerChanged(n, p *node, up bool) grid.Event {
	return grid.PeerChanged{PeerEvent: grid.PeerEvent{Peer: p.id, Up: up}, Outside: up && w.strangers(n, p)}
}

// realm is the ID of the one that a node is of.
func (w *world) realm(n *node) peer.ID { return peer.ID(fmt.Sprintf("realm %d", n.n%w.cfg.Realms)) }

// strangers tells whether two nodes are of different realms.
func (w *world) strangers(a, b *node) bool {
	return w.cfg.Realms > 1 && a.n%w.cfg.Realms != b.n%w.cfg.Realms
}

// lends keeps of leases that a stranger gives what its thief takes, as such.
func (w *world) lends(thief, victim *node, leases []grid.Lease) (kept []grid.Lease) {
	if !w.strangers(thief, victim) {
		return leases
	}
	for _, l := range leases {
		if l.Owner == victim.id {
			l.Outside, l.Class.Pinned = true, true
			kept = append(kept, l)
		}
	}
	return kept
}

// reach tells whether two nodes can.
func reach(a, b *node) bool { return a.gone == 0 && b.gone == 0 && a.side == b.side }

// plan takes n away as f says; mark tells its partition from others.
func (w *world) plan(n *node, f Fault, mark int) {
	change := func(do func()) {
		had := make([]bool, len(n.peers))
		for i, p := range n.peers {
			had[i] = reach(n, p)
		}
		life := n.life
		do()
		for i, p := range n.peers {
			if has := reach(n, p); has != had[i] {
				w.on(p, w.delay(n, p), w.peerChanged(p, n, has))
				if n.life == life && n.gone == 0 { // boot has told a new life
					w.on(n, w.delay(n, p), w.peerChanged(n, p, has))
				}
			}
		}
	}
	w.at(f.At, func() {
		change(func() {
			if f.Deaf {
				n.away = append(n.away, mark)
				n.side = mark
			} else if n.gone++; n.gone == 1 {
				w.crash(n)
			}
		})
		if !f.Deaf {
			w.part(n)
		}
		w.at(w.now+w.cfg.Takeover, func() { w.takeOver(n) })
	})
	if f.For > 0 {
		w.at(f.At+f.For, func() {
			change(func() {
				if f.Deaf {
					n.away = slices.DeleteFunc(n.away, func(m int) bool { return m == mark })
					if n.side = 0; len(n.away) > 0 {
						n.side = n.away[len(n.away)-1]
					}
				} else if n.gone--; n.gone == 0 {
					w.boot(n)
				}
			})
			w.at(w.now+w.cfg.Takeover/4, func() { w.learn(n) })
		})
	}
}

// churn has n go some time, and come back, again and again.
func (w *world) churn(n *node, r *rand.Rand) {
	f := Fault{At: w.now + time.Duration(r.ExpFloat64()*float64(w.cfg.Stay)), For: 1 + time.Duration(r.ExpFloat64()*float64(w.cfg.Away))}
	w.plan(n, f, len(w.cfg.Faults)+1)
	w.at(f.At, func() { w.report.Left++ })
	w.at(f.At+f.For, func() { w.churn(n, r) })
}

// crash ends what n does.
func (w *world) crash(n *node) {
	n.life++
	for slot, g := range n.slots {
		if g != nil {
			w.idle(n, slot)
		}
	}
	w.abandon(n, func(*grain) bool { return true }, true)
	clear(n.coming)
}

// submit opens a job when its time has come.
func (w *world) submit(i int) {
	cfg := &w.cfg.Jobs[i]
	j := &job{Job: cfg, id: grid.JobID("j" + strconv.Itoa(i)), key: uint64(i), owner: w.nodes[cfg.Node], epoch: 1, report: &JobReport{}}
	j.owner.owns = true
	var err error
	if j.verify, err = grid.ParseVerify(cfg.Verify); err != nil {
		w.err = err
	}
	j.books()
	w.jobs = append(w.jobs, j)
	w.byJob[j.id] = j
	w.open++
	w.place(j)
	w.at(j.At, func() {
		j.opened = true
		w.watch.opened(w, j)
		w.openJob(j)
	})
	if j.Pause > 0 {
		for _, on := range []bool{true, false} {
			at := j.At + j.Pause
			if !on {
				at += j.Rest
			}
			w.at(at, func() {
				if j.paused = on; !j.over && j.owner.gone == 0 {
					w.step(j.owner, grid.Paused{Job: j.id, On: on})
				}
			})
		}
	}
	if j.Cancel > 0 {
		w.at(j.At+j.Cancel, func() {
			if !j.over {
				w.ended(j, grid.CloseJob{})
				w.step(j.owner, grid.JobEnded{Job: j.id})
			}
		})
	}
}

// books lays out what is noted of a job's tasks.
func (j *job) books() {
	j.report.Ran = map[grid.Work][]int{}
	j.stages = make([]stage, len(j.Stages))
	for s, n := range j.Stages {
		j.report.Ran[grid.Work{Job: j.id, Stage: uint32(s)}] = make([]int, n)
		j.stages[s] = stage{prepared: make([]bool, n), begun: make([]bool, n), ok: make([]bool, n), failed: make([]bool, n), tries: make([]uint32, n)}
	}
}

func (w *world) openJob(j *job) {
	if j.owner.gone > 0 { // somebody will take it over
		return
	}
	w.impanel(j)
	class := grid.Class{
		User: j.User, Priority: j.Priority, Require: j.Require, Prefer: j.Prefer, Cores: j.Cores, Memory: j.Memory,
		Pure: j.Pure, Depth: uint32(j.depth), Checked: j.verify.On(), Offload: w.cfg.Realms > 1,
	}
	plans := make([]grid.StagePlan, len(j.Stages))
	for s, n := range j.Stages {
		plans[s] = grid.StagePlan{Tasks: uint32(n), Class: class, Needs: j.Needs[s], Attempts: j.Attempts}
	}
	w.step(j.owner, grid.JobOpened{
		Lease:  grid.Lease{Job: j.id, Owner: j.owner.id, Epoch: j.epoch},
		Stages: plans, KeepGoing: j.Keep, Allow: j.Allow, Parallel: j.Parallel, Deadline: j.Deadline, Paused: j.paused,
	})
}

// takeOver gives the jobs of a node that is gone to others of the side where most are.
func (w *world) takeOver(n *node) {
	if n.gone == 0 && n.side == 0 {
		return
	}
	for _, j := range w.jobs {
		if j.owner != n || j.over || !j.opened {
			continue
		}
		for k := range w.nodes {
			next := w.nodes[(n.n+1+k)%len(w.nodes)]
			if next.gone == 0 && next.side == 0 && next.vice == "" {
				j.owner, j.epoch = next, j.epoch+1
				next.owns = true
				w.openJob(j)
				break
			}
		}
	}
}

// learn has a node that was away find out which of its jobs are not its own any more, or have them opened there
// again if nobody took them over.
func (w *world) learn(n *node) {
	if n.gone > 0 || n.side != 0 {
		return
	}
	for _, j := range w.jobs {
		switch {
		case j.owner != n:
			w.step(n, grid.JobEnded{Job: j.id})
		case !j.over && j.opened && n.life > 1:
			j.epoch++
			w.openJob(j)
		}
	}
}

func (w *world) at(t time.Duration, do func()) {
	w.seq++
	w.queue.push(event{at: t, seq: w.seq, do: do})
}

// after does something at a node after some time, unless it dies before.
func (w *world) after(n *node, d time.Duration, do func()) {
	life := n.life
	w.at(w.now+d, func() {
		if n.life == life {
			do()
		}
	})
}

// on has an event happen at a node after some time, unless it dies before.
func (w *world) on(n *node, d time.Duration, ev grid.Event) {
	w.after(n, d, func() { w.step(n, ev) })
}

func (w *world) step(n *node, ev grid.Event) {
	if w.err != nil || n.gone > 0 {
		return
	}
	w.report.Steps++
	var began time.Time
	if w.cfg.Measure {
		began = time.Now()
	}
	effects := n.sched.Step(start.Add(w.now), ev)
	if w.cfg.Measure {
		w.report.Cost += time.Since(began)
	}
	if w.cfg.Trace != nil {
		w.trace(n, ev, effects)
	}
	if w.cfg.After != nil {
		if err := w.cfg.After(n.core); err != nil {
			w.fail("%s after %s: %w", n.name(), describe(ev), err)
			return
		}
	}
	for _, e := range effects {
		w.effect(n, e)
	}
	if t := n.sched.NextTick(); !t.IsZero() {
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

// fail ends the run.
func (w *world) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
	}
}

func (w *world) effect(n *node, e grid.Effect) {
	switch e := e.(type) {
	case grid.Run:
		w.run(n, e)
	case grid.Prepare:
		w.prepare(n, e)
	case grid.Prefetch:
		w.prefetch(n, e.Lease)
	case grid.CloseJob:
		w.closed(n, e)
	case grid.StopJob:
		for slot, g := range n.slots {
			if g != nil && g.lease.Job == e.Job {
				w.stop(n, slot)
			}
		}
		w.abandon(n, func(g *grain) bool { return g.lease.Job == e.Job }, false)
	case grid.GiveSlot:
		w.resume(n, e)
	case grid.StopGrain:
		if e.Slot >= 0 && e.Slot < len(n.slots) && n.slots[e.Slot] != nil {
			w.stop(n, e.Slot)
		}
	case grid.TellDropped:
		w.send(n, e.To, grid.Dropped{From: n.id, Job: e.Job, Epoch: e.Epoch})
	case grid.Revoke:
		w.send(n, e.To, grid.Revoked{From: n.id, Work: e.Work, Epoch: e.Epoch, Spans: e.Spans, Queued: e.Queued})
	case grid.AskSteal:
		w.ask(n, e)
	case grid.AnswerSteal:
		w.answer(n, e)
	case grid.SendClaim:
		w.send(n, e.To, grid.Claimed{From: n.id, Work: e.Work, Epoch: e.Epoch, Spans: e.Spans, Back: e.Back})
	case grid.Wake:
		w.send(n, e.To, grid.Woken{From: n.id})
	case grid.AskWithheld:
		w.rest(n, e.Work)
	case grid.Note:
		w.report.Notes++
	}
}

// ended books the end of a job.
func (w *world) ended(j *job, e grid.CloseJob) {
	r := j.report
	r.Ended, r.At, r.Failed, r.Bad = true, w.now, e.Failed, e.Bad
	if e.Why != nil {
		r.Why = e.Why.Error()
	}
	j.over = true
	w.open--
	w.watch.ended(w, j)
}

// finish fills in what can be told at the end.
func (w *world) finish() {
	r := &w.report
	first, longest := w.cfg.Limit, time.Duration(0)
	var all time.Duration
	var speed float64
	fastest := 0.0
	for _, n := range w.nodes {
		speed += n.Speed * float64(n.Slots)
		fastest = max(fastest, n.Speed)
	}
	for _, j := range w.jobs {
		r.Jobs = append(r.Jobs, *j.report)
		first = min(first, j.At)
		r.Makespan = max(r.Makespan, j.report.At)
		sum, chain, tasks := j.bounds(w.cfg.Seed)
		all += sum
		longest = max(longest, chain)
		r.Tasks += tasks
	}
	r.Makespan -= first
	var begun []time.Duration
	for _, n := range w.nodes {
		r.Busiest = max(r.Busiest, n.messages)
		if n.first > 0 {
			begun = append(begun, n.first-first)
		}
	}
	r.Reached = quantile(begun, 0.99)
	r.Waited = [2]time.Duration{quantile(w.waited, 0.5), quantile(w.waited, 0.99)}
	r.Ideal = max(time.Duration(float64(all)/speed), time.Duration(float64(longest)/fastest))
	slots := 0
	for _, n := range w.nodes {
		slots += n.Slots
		for _, g := range n.slots {
			if g != nil {
				r.Busy += w.now - g.since
			}
		}
	}
	if r.Makespan > 0 {
		whole := float64(r.Makespan) * float64(slots)
		r.Idle = 1 - float64(r.Busy)/whole
		r.Starved = float64(w.watch.starved) / whole
	}
}

// quantile is what so much of all is at most; it puts all in order.
func quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[int(q*float64(len(all)-1))]
}

// bounds are the work of a job, the longest chain of tasks that need one another, and how many tasks there are.
func (j *job) bounds(seed uint64) (sum, chain time.Duration, tasks int) {
	ends := make([][]time.Duration, len(j.Stages)) // when each task can have ended at the earliest
	most := make([]time.Duration, len(j.Stages))
	for s, n := range j.Stages {
		tasks += n
		ends[s] = make([]time.Duration, n)
		var all time.Duration
		for _, need := range j.Needs[s] {
			if need.Fan == 0 {
				all = max(all, most[need.Stage])
			}
		}
		for t := range n {
			begin := all
			for _, need := range j.Needs[s] {
				if need.Fan > 0 {
					before := ends[need.Stage]
					lo := min(t*int(need.Fan), len(before))
					for _, e := range before[lo:min(lo+int(need.Fan), len(before))] {
						begin = max(begin, e)
					}
				}
			}
			took := j.took(seed, s, uint32(t))
			sum += took
			if j.spawns(uint32(t)) {
				more, longest, n := j.child(s, uint32(t)).bounds(seed)
				sum, took, tasks = sum+more, took+longest, tasks+n
			}
			ends[s][t] = begin + took
			most[s] = max(most[s], ends[s][t])
		}
		chain = max(chain, most[s])
	}
	return sum, chain, tasks
}

// name is n's identity as people read it, which is no encoded one.
func (n *node) name() string { return string(n.id) }
