package grid

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// maxRuns is how many attempts a node remembers: the last ones.
	maxRuns   = 1 << 15
	runsChunk = 1 << 10
	// maxStretches is how many stretches one answer of a node has at most.
	maxStretches = 1 << 13
)

// Bounds on how many stretches are asked for.
const (
	DefaultStretches = 5000
	MaxStretches     = 50000
)

// ran is an attempt that has ended in a slot, or a part of one that has let its slot go while it waits for others.
type ran struct {
	from, to int64 // since 1970, in ns
	job      JobID
	stage    uint32
	index    uint32
	slot     int32
	code     Code
	part     bool
	failed   bool
	stolen   bool
	phases   Phases
}

// runs are the last attempts of a node. There is room for as many as there were: a node that runs nothing has none. Noting
// one takes some ten nanoseconds, and allocates nothing but once in runsChunk times while the ring is not full.
type runs struct {
	mu     sync.Mutex
	chunks [maxRuns / runsChunk]*[runsChunk]ran
	next   uint64 // number of the next one

	// The time of all slots together in attempts is spent, and that of those going on, which began at began in sum.
	spent, going, began int64
}

// begin notes that a slot is taken.
func (r *runs) begin(at time.Time) {
	r.mu.Lock()
	r.going++
	r.began += at.UnixNano()
	r.mu.Unlock()
}

// end notes what ran in a slot from then on.
func (r *runs) end(a *ran) {
	r.mu.Lock()
	r.going--
	r.began -= a.from
	r.spent += a.to - a.from
	i := r.next % maxRuns
	c := r.chunks[i/runsChunk]
	if c == nil {
		c = new([runsChunk]ran)
		r.chunks[i/runsChunk] = c
	}
	c[i%runsChunk] = *a
	r.next++
	r.mu.Unlock()
}

// busy is the time that all slots together have spent in attempts.
func (r *runs) busy(now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Duration(max(r.spent+r.going*now.UnixNano()-r.began, 0))
}

// count is the number of the next attempt.
func (r *runs) count() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next
}

// each calls f for the attempts with numbers from lo to hi that are kept, by number, until it is false. Workers wait for no more than
// a chunk of them.
func (r *runs) each(lo, hi uint64, f func(*ran) bool) {
	var some [runsChunk / 8]ran
	for lo < hi {
		r.mu.Lock()
		hi = min(hi, r.next)
		if r.next > maxRuns {
			lo = max(lo, r.next-maxRuns)
		}
		k := 0
		for ; k < len(some) && lo < hi; k++ {
			i := lo % maxRuns
			some[k] = r.chunks[i/runsChunk][i%runsChunk]
			lo++
		}
		r.mu.Unlock()
		for i := range some[:k] {
			if !f(&some[i]) {
				return
			}
		}
		if k == 0 {
			return
		}
	}
}

// How long attempts take is told of the last recentRuns of the last recentTime.
const (
	recentRuns = 1 << 10
	recentTime = time.Minute
)

// recent tells how long half of the last attempts and 99 of 100 took at most.
func (r *runs) recent(now time.Time) (p50, p99 time.Duration) {
	next := r.count()
	after := now.Add(-recentTime).UnixNano()
	var took []int64
	r.each(next-min(next, recentRuns), next, func(a *ran) bool {
		if !a.part && a.to >= after {
			took = append(took, a.to-a.from)
		}
		return true
	})
	if len(took) == 0 {
		return 0, 0
	}
	slices.Sort(took)
	return time.Duration(took[(len(took)-1)/2]), time.Duration(took[(len(took)*99-1)/100])
}

// stay is a worker's time in a slot with one attempt.
type stay struct {
	since time.Time // zero: it has no slot
	index uint32
}

// settle notes that an attempt at a task begins in the worker's slot.
func (w *worker) settle(index uint32, at time.Time) {
	w.stay = stay{at, index}
	w.n.history.begin(at)
}

// leaveSlot notes what has run in the slot since; of a task that has not ended, a part.
func (w *worker) leaveSlot(l *Lease, r *Receipt, err error, stopped bool) {
	if w.stay.since.IsZero() {
		return
	}
	a := ran{from: w.stay.since.UnixNano(), job: l.Job, stage: l.Stage, index: w.stay.index, slot: int32(w.slot), stolen: l.Owner != w.n.self}
	a.to = max(time.Now().UnixNano(), a.from)
	switch {
	case r == nil:
		a.part = true
	case stopped:
		a.code = Canceled
	case err != nil:
		a.code, a.failed = CodeOf(err), true
	case r.Fault != nil:
		a.code, a.failed = r.Fault.Code, true
	default:
		a.failed = r.Exit != 0
	}
	if r != nil {
		a.phases = r.Phases
	}
	w.n.history.end(&a)
	w.stay.since = time.Time{}
}

// StretchQuery says which stretches are wanted. Its zero value stands for all that are known.
type StretchQuery struct {
	Since, Until time.Time // which lie between these, at least in part; zero: any
	Node         peer.ID   // what ran on it; "": on any
	Job          JobID     // for this job; "": for any
	// Resolution is how long a gap is that can be seen: what is shorter may be left out. Limit is how many stretches may come, for which
	// it is made coarser; 0: DefaultStretches.
	Resolution time.Duration
	Limit      int
	Follow     bool // and then what ends, until the caller goes
}

// Check refuses what is no query, and fills in the default.
func (q *StretchQuery) Check() error {
	switch {
	case q.Limit == 0:
		q.Limit = DefaultStretches
	case q.Limit < 0 || q.Limit > MaxStretches:
		return Errorf(Invalid, "limit=%d: want a number from 1 to %d", q.Limit, MaxStretches)
	}
	if q.Resolution < 0 || q.Resolution > 24*time.Hour {
		return Errorf(Invalid, "a resolution of %v: want none to a day", q.Resolution)
	}
	if q.Job != "" {
		if _, err := ParseJobID(string(q.Job)); err != nil {
			return err
		}
	}
	return nil
}

// Stretches calls f for what worker slots ran, by time; with Follow it goes on with what ends, about once a second. Nodes that do not
// answer are left out, but for one that was asked for. An error of f ends it.
func (n *Node) Stretches(ctx context.Context, q StretchQuery, f func(Stretch) error) error {
	if err := q.Check(); err != nil {
		return err
	}
	m := lookMsg{Since: nanos(q.Since), Until: nanos(q.Until), Job: q.Job, Resolution: int64(q.Resolution), Limit: q.Limit}
	return n.stretches.read(ctx, m, q.Node, q.Follow, func(list []Stretch) error {
		list = slices.DeleteFunc(list, func(s Stretch) bool { return !q.wants(&s) })
		for _, s := range mergeStretches(list, q.Resolution, q.Limit) {
			if err := f(s); err != nil {
				return err
			}
		}
		return nil
	})
}

func (q *StretchQuery) wants(s *Stretch) bool {
	return (q.Node == "" || s.Node == q.Node.String()) && (q.Job == "" || s.Job == q.Job) &&
		(q.Since.IsZero() || s.To.After(q.Since)) && (q.Until.IsZero() || s.From.Before(q.Until))
}

// ownStretches answers what this node ran.
func (n *Node) ownStretches(m *lookMsg) lookReply[Stretch] {
	lo, hi, reply := lookSpan[Stretch](n, m, n.history.count())
	var list []Stretch
	self := n.self.String()
	n.history.each(lo, hi, func(a *ran) bool {
		if job := rootJob(a.job); m.wants(a.from, a.to) && (m.Job == "" || m.Job == job) {
			if list == nil {
				list = make([]Stretch, 0, min(hi-lo, maxRuns))
			}
			stage, spawned := rootStage(a.job, a.stage)
			s := Stretch{Node: self, Slot: int(a.slot), Job: job, Stage: stage, Spawned: spawned, Lo: a.index, Hi: a.index + 1, Tasks: 1,
				From: time.Unix(0, a.from).UTC(), To: time.Unix(0, a.to).UTC(), Phases: a.phases, Stolen: a.stolen, Code: a.code}
			if a.failed {
				s.Failed = 1
			}
			if a.part {
				s.Tasks = 0
			}
			list = append(list, s)
		}
		return true
	})
	limit := maxStretches
	if m.Limit > 0 {
		limit = min(limit, m.Limit)
	}
	reply.Items = mergeStretches(list, time.Duration(m.Resolution), limit)
	return reply
}

// mergeStretches puts stretches into the order of time, and merges those with gaps between them that the resolution does not show, until
// there are no more than so many. If that does not do, the oldest are left out. It uses the list up.
func mergeStretches(list []Stretch, resolution time.Duration, limit int) []Stretch {
	if len(list) == 0 {
		return nil
	}
	list = inOrder(list)
	end := list[0].To
	for i := range list {
		if list[i].To.After(end) {
			end = list[i].To
		}
	}
	all := end.Sub(list[0].From)
	if resolution > 0 || len(list) > limit {
		w := newWeaver(list)
		resolution = max(resolution, 1)
		w.weave(resolution)
		for len(w.list) > limit && resolution < all {
			resolution = max(2*resolution, all/time.Duration(64*limit))
			w.weave(resolution)
		}
		list = w.list
	}
	if len(list) > limit {
		list = list[len(list)-limit:]
	}
	return list
}

// inOrder puts stretches into the order of time. They are long: what is sorted is where they are.
func inOrder(list []Stretch) []Stretch {
	at := make([]*Stretch, len(list))
	for i := range list {
		at[i] = &list[i]
	}
	slices.SortStableFunc(at, func(a, b *Stretch) int { return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.Slot, b.Slot)) })
	sorted := make([]Stretch, len(list))
	for i := range at {
		sorted[i] = *at[i]
	}
	return sorted
}

// weaver merges what follows closely in one slot. Each stretch has the number of its strand: of what can be one.
type weaver struct {
	list    []Stretch
	strands []int
	last    []int // of each strand; its place in the list
}

func newWeaver(list []Stretch) *weaver {
	type strand struct {
		node            string
		slot            int
		job             JobID
		stage           uint32
		spawned, stolen bool
	}
	numbers := make(map[strand]int)
	w := &weaver{list: list, strands: make([]int, len(list))}
	for i := range list {
		s := &list[i]
		key := strand{s.Node, s.Slot, s.Job, s.Stage, s.Spawned, s.Stolen}
		k, ok := numbers[key]
		if !ok {
			k = len(numbers)
			numbers[key] = k
		}
		w.strands[i] = k
	}
	w.last = make([]int, len(numbers))
	return w
}

// weave merges what is too short to be seen by itself with what it follows. The list is in order.
func (w *weaver) weave(resolution time.Duration) {
	for k := range w.last {
		w.last[k] = -1
	}
	n := 0
	for i := range w.list {
		s, k := &w.list[i], w.strands[i]
		if at := w.last[k]; at >= 0 {
			o := &w.list[at]
			if s.From.Sub(o.To) <= resolution && (s.To.Sub(s.From) < resolution || o.To.Sub(o.From) < resolution) {
				o.join(s)
				continue
			}
		}
		w.list[n], w.strands[n], w.last[k] = *s, k, n
		n++
	}
	w.list, w.strands = w.list[:n], w.strands[:n]
}

func (s *Stretch) join(o *Stretch) {
	s.Lo, s.Hi = min(s.Lo, o.Lo), max(s.Hi, o.Hi)
	s.Tasks += o.Tasks
	s.Failed += o.Failed
	if o.To.After(s.To) {
		s.To = o.To
	}
	mine, other := s.Phases.all(), o.Phases.all()
	for i := range mine {
		*mine[i] = time.Duration(sumOf(int64(*mine[i]), int64(*other[i])))
	}
	if o.Code != 0 {
		s.Code = o.Code
	}
}

// all are the phases in the order of PhaseNames.
func (p *Phases) all() [len(PhaseNames)]*time.Duration {
	return [...]*time.Duration{&p.Fetch, &p.Compile, &p.Queue, &p.Start, &p.Run, &p.Store, &p.Parked}
}

// oldestRun is how long ago what another node tells of may have begun.
const oldestRun = 30 * 24 * time.Hour

// takeStretch makes what a peer tells of itself fit to be shown. It is false for what cannot be.
func takeStretch(s *Stretch, from peer.ID, c clockOf) bool {
	s.Node = from.String()
	if _, err := ParseJobID(string(s.Job)); err != nil || s.Lo >= s.Hi || s.Hi > MaxTasks || s.Stage >= MaxStages ||
		s.Slot < 0 || s.Slot >= maxThiefSlots || s.Tasks > maxRuns || s.Failed > s.Tasks {
		return false
	}
	s.From, s.To = c.local(s.From), c.local(s.To)
	if s.To.Before(s.From) || s.To.After(c.now.Add(clockSlack)) || s.From.Before(c.now.Add(-oldestRun)) {
		return false
	}
	for _, p := range s.Phases.all() {
		*p = min(max(*p, 0), oldestRun)
	}
	if int(s.Code) >= len(codeNames) {
		s.Code = Unknown
	}
	return true
}
