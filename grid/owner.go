package grid

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.opentelemetry.io/otel/trace"
)

// job is the owner's books on one job: what came of each task. The scheduler keeps the other half, who
// is to run what.
type job struct {
	spec Spec

	ctx       context.Context // ends when the job is this node's no longer, or the node closes
	cancel    context.CancelFunc
	saves     saves
	inherited bool      // an earlier owner may have had tasks run
	load      sync.Once // of saved, which is what earlier owners have saved of each stage
	saved     [][]Link
	restoring bool        // although it is ending, what is saved is booked; see restore
	suspected atomic.Bool // the ledger is being asked whose it is
	batch     *batchOf    // of a running task's children, which is what it is then; nil for a job of its own

	writing chan struct{} // holds something while the record is being written

	mu       sync.Mutex
	rec      Record
	version  uint64 // of rec in the ledger
	ending   bool   // somebody is writing its end, or it is lost
	lost     bool   // it is another node's by now, or was ended by one: only the ledger knows how it stands
	stages   []stage
	order    []taskRef     // tasks in order of completion
	changed  chan struct{} // closed and replaced at every change
	kept     []cid.Cid     // what has been made of outputs for later stages
	story    story         // for people
	meter    meter
	paused   *excess         // why nothing of it is handed out; nil: it is
	obstacle string          // what keeps it from its end; "": nothing
	begun    bool            // the scheduler has been told of it
	noticed  func(*JobEvent) // tells notifiers; called with mu held
	notices  uint64          // how many they were told
	scores   map[stageNode]float64
	unscored bool // somebody was told that there are none

	trouble  hostFailure             // the last one, of whatever task
	troubles map[taskRef]hostFailure // the last one of each of some tasks

	judging // before anything is booked

	demands  []demand      // of the stages
	unplaced func() string // which of them no node can meet
}

type taskRef struct{ stage, index uint32 }

// stage is one stage's results.
type stage struct {
	table   Link
	results [][]byte // encoded Completions by index; nil: not ended. nil as a whole: not open yet
	status  StageStatus
	prep    preparing
	last    peer.ID // whose result was booked last
	name    string  // its name as text

	began, ended time.Time // for its span

	open sync.Once // makes room for results
	made made

	checkMu sync.Mutex
	check   *plan // to tell what a reported receipt must be of; guarded by checkMu
}

func (n *Node) newJob(spec Spec, rec Record, version uint64) *job {
	j := &job{spec: spec, rec: rec, version: version, changed: make(chan struct{}), writing: make(chan struct{}, 1), stages: make([]stage, len(spec.Stages))}
	j.demands = demandsOf(&spec, &rec.Policy)
	j.unplaced = func() string { return n.unplaced(j) }
	n.judges(j)
	j.meter.submitted, j.meter.slots, j.meter.passed = rec.Submitted, n.slotsOf, n.allowances.stir
	j.noticed = func(ev *JobEvent) { n.noticed(j, ev) }
	j.ctx, j.cancel = context.WithCancel(n.ctx)
	if !n.Bound {
		j.saves.begin(func() { n.checkpoint(j) }, time.Now())
		j.saves.loaded = !rec.Checkpoint.Defined()
	}
	for i := range j.stages {
		s := &spec.Stages[i]
		j.stages[i].status = StageStatus{Name: s.Name, Plugin: s.Plugin, Tasks: s.Tasks, Nodes: map[string]uint32{}}
		j.stages[i].table = s.Inputs
		if len(s.From) > 0 {
			j.stages[i].status.Blocked = s.Tasks
		}
	}
	return j
}

// lease is a lease over nothing yet, for the scheduler to cut spans from.
func (j *job) lease() Lease {
	return Lease{Job: j.rec.ID, Owner: j.rec.Owner, Epoch: j.rec.Epoch, Spec: j.rec.Spec, Fresh: j.rec.Fresh}
}

// touch tells watchers that something changed. j.mu is held.
func (j *job) touch() {
	close(j.changed)
	j.changed = make(chan struct{})
}

// status is a picture of the job, and a channel that closes when it is out of date.
func (j *job) status() (JobStatus, <-chan struct{}) {
	note := j.unplaced()
	j.mu.Lock()
	defer j.mu.Unlock()
	st := statusOf(&j.rec, j.spec.Name, j.summary())
	if !st.State.Final() {
		st.Note = j.noteOr(note)
	}
	return st, j.changed
}

// noteOr says what stands in the job's way: that it is paused, or cannot end, or else what is given. j.mu is held.
func (j *job) noteOr(note string) string {
	switch {
	case j.paused != nil:
		return j.pausedText()
	case j.obstacle != "":
		return j.obstacle
	}
	return note
}

// waits says what keeps a job whose tasks have ended from its end; "": nothing does.
func (j *job) waits(what string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.obstacle != what {
		j.obstacle = what
		j.touch()
	}
}

// summary copies the counts of each stage. j.mu is held.
func (j *job) summary() []StageStatus {
	out := make([]StageStatus, len(j.stages))
	for i := range j.stages {
		out[i] = j.stages[i].status
		out[i].Nodes = make(map[string]uint32, len(j.stages[i].status.Nodes))
		for k, v := range j.stages[i].status.Nodes {
			out[i].Nodes[k] = v
		}
		out[i].Metrics = cloneMetrics(out[i].Metrics)
		out[i].Check = out[i].Check.clone()
	}
	fitMetrics(out)
	return out
}

func statusOf(rec *Record, name string, stages []StageStatus) JobStatus {
	return JobStatus{
		ID: rec.ID, Name: name, State: rec.State, Code: rec.Code, Error: rec.Error, Owner: rec.Owner.String(), Spec: rec.Spec,
		Epoch: rec.Epoch, Copies: max(rec.Durable, 1),
		Policy: rec.Policy,
		Result: rec.Result, Trace: TraceOf(rec.ID).String(), Submitted: rec.Submitted, Ended: rec.Ended, Stages: stages,
	}
}

// add books completions that are not booked yet, and returns them. Nothing is booked for a job that is
// ending, or by another epoch.
//
// The results tell the scheduler of all of them, by what is booked: of two that differ, the first counts.
func (j *job) add(w Work, epoch Epoch, done []Completion) (fresh []Completion, results []TaskResult, err error) {
	return j.book(w, epoch, done, false, false)
}

// book is add; what is saved need not be in the next checkpoint, and what is sure no jury need hear of.
func (j *job) book(w Work, epoch Epoch, done []Completion, saved, sure bool) (fresh []Completion, results []TaskResult, err error) {
	encoded := make([][]byte, len(done))
	for i := range done {
		if !saved {
			done[i].Earlier = j.earlier(&done[i])
		}
		if encoded[i], err = Marshal(&done[i]); err != nil {
			return nil, nil, err
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ending && !(saved && j.restoring) || epoch != j.rec.Epoch || int(w.Stage) >= len(j.stages) {
		return nil, nil, nil
	}
	st := &j.stages[w.Stage]
	for i, c := range done {
		if int(c.Index) >= len(st.results) {
			continue
		}
		if data := st.results[c.Index]; data != nil {
			var booked Completion
			if err := Unmarshal(data, &booked); err != nil {
				return fresh, results, err
			}
			results = append(results, TaskResult{Index: c.Index, Outcome: outcomeOf(&booked.Receipt)})
			continue
		}
		data := encoded[i]
		if j.Jury != nil {
			outcome := Succeeded
			if sure {
				j.Forget(w.Stage, c.Index)
			} else if c, data, outcome, err = j.judge(w.Stage, c, data); err != nil {
				return fresh, results, err
			}
			if outcome == Unproven || outcome == Withheld {
				results = append(results, TaskResult{Index: c.Index, Outcome: outcome})
				continue
			}
		}
		results = append(results, TaskResult{Index: c.Index, Outcome: outcomeOf(&c.Receipt)})
		j.enter(w.Stage, &c, data, saved)
		fresh = append(fresh, c)
	}
	if len(fresh) > 0 {
		j.touch()
	}
	return fresh, results, nil
}

// enter writes a result into the books, unless there is one. j.mu is held.
func (j *job) enter(stage uint32, c *Completion, data []byte, saved bool) bool {
	st := &j.stages[stage]
	if int(c.Index) >= len(st.results) || st.results[c.Index] != nil {
		return false
	}
	st.results[c.Index] = data
	j.order = append(j.order, taskRef{stage, c.Index})
	used := j.meter.count(&j.spec.Stages[stage], c, saved)
	if !saved {
		used.Add(j.spent)
		j.spent = Usage{}
		j.saves.add(taskRef{stage, c.Index}, used)
	}
	if c.Receipt.OK() {
		st.status.Done++
	} else {
		st.status.Failed++
	}
	if c.Cached {
		st.status.Cached++
	} else {
		st.status.Ran += c.Receipt.Phases.Run
		if st.last != c.Receipt.Node || st.name == "" {
			st.last, st.name = c.Receipt.Node, c.Receipt.Node.String()
		}
		st.status.Nodes[st.name]++
	}
	st.status.Spawned += c.Receipt.Spawned
	st.status.Metrics, _ = addMetrics(st.status.Metrics, c.Receipt.Metrics, MaxStageMetrics)
	if s := &st.status; s.Done+s.Failed == s.Tasks {
		j.stageEnded(stage)
	}
	return true
}

// open makes room for a stage's results, unless the job is ending: its results are being read then.
func (j *job) open(stage uint32) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ending && !j.restoring {
		return
	}
	st := &j.stages[stage]
	st.results = make([][]byte, st.status.Tasks)
	if !j.ending {
		j.stageBegan(stage)
	}
}

// opened reports whether a stage has room for results.
func (j *job) opened(stage uint32) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.stages[stage].results != nil
}

// completion decodes one booked result.
func (j *job) completion(ref taskRef) (Completion, error) {
	j.mu.Lock()
	data := j.stages[ref.stage].results[ref.index]
	j.mu.Unlock()
	var c Completion
	return c, Unmarshal(data, &c)
}

// over reports whether reports for an epoch of the job are no longer wanted.
func (j *job) over(epoch Epoch) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ending || epoch != j.rec.Epoch
}

// record books a worker's results for a job of this node and tells what the scheduler needs to know.
func (n *Node) record(w Work, epoch Epoch, b *batch) []TaskResult {
	j := n.job(w.Job)
	if j == nil || b.empty() {
		return nil
	}
	fresh, results, err := j.add(w, epoch, b.done)
	if err != nil {
		n.log.Error("results not booked", "job", w.Job, "err", err)
		return nil
	}
	n.remember(fresh)
	if j.Jury != nil {
		n.accuseLiars(j)
	}
	for _, f := range b.failed {
		results = append(results, TaskResult{Index: f.Index, Outcome: HostFailed})
		j.troubled(w.Stage, f)
	}
	return results
}

func outcomeOf(r *Receipt) TaskOutcome {
	if r.OK() {
		return Succeeded
	}
	return GuestFailed
}

// remember keeps the receipts of new runs for later jobs. Those of a stranger count for the job that it worked for: what
// this node remembers, its realm believes.
func (n *Node) remember(done []Completion) {
	keep := make([]Receipt, 0, len(done))
	vouched := make(map[peer.ID]bool) // mostly it is one node's work
	for i := range done {
		c := &done[i]
		if c.Cached || !c.Receipt.Lasting() {
			continue
		}
		by := c.Receipt.Node
		if _, known := vouched[by]; !known {
			vouched[by] = n.vouched(n.ctx, by)
		}
		if vouched[by] {
			keep = append(keep, c.Receipt)
		}
	}
	if len(keep) == 0 {
		return
	}
	if err := n.Cache.Remember(n.ctx, keep...); err != nil {
		n.log.Warn("receipt cache", "err", err)
	}
}

// onReport takes in results from a node that runs part of a job owned here. Its receipts are believed
// only if they are signed, are of the very invocations asked for, and their outputs can be fetched.
func (n *Node) onReport(ctx context.Context, from peer.ID, m reportMsg) (reportReply, error) {
	start := time.Now()
	j := n.job(m.Job)
	if j == nil || j.over(m.Epoch) {
		if j != nil && m.Epoch > j.rec.Epoch {
			n.suspect(j)
		}
		return reportReply{Over: true}, nil
	}
	if int(m.Stage) >= len(j.stages) {
		return reportReply{}, Errorf(Invalid, "job %s has no stage %d", m.Job, m.Stage)
	}
	if err := n.checkInside(ctx, from, j, m.Stage); err != nil {
		return reportReply{}, Errorf(CodeOf(err), "job %s: %w", m.Job, err)
	}
	if j.inherited { // the report may be of a lease of the last owner, and the stage not open yet
		n.openStage(j, m.Stage)
	}
	if !j.opened(m.Stage) {
		return reportReply{}, Errorf(Busy, "stage %d of job %s is not open yet", m.Stage, m.Job)
	}
	defer n.Hold(outputs(m.Done)...)()
	var b batch
	for _, i := range m.indices() {
		if err := n.checkGiven(ctx, from, Work{m.Job, m.Stage}, Span{i, i + 1}); err != nil {
			return reportReply{}, err
		}
	}
	for _, f := range m.Failed {
		if f.Index >= j.spec.Stages[m.Stage].Tasks {
			return reportReply{}, Errorf(Invalid, "job %s: stage %d has no task %d", m.Job, m.Stage, f.Index)
		}
		b.failed = append(b.failed, hostFailure{f.Index, f.Code, clean(f.Message, maxMessage)})
	}
	var v verifier
	for i := range m.Done {
		c := &m.Done[i]
		if err := n.checkReported(ctx, j, m.Stage, from, c, &v); err != nil {
			if code := CodeOf(err); (code == Denied || code == Invalid) && !j.inherited { // what went before may have had other outputs at an earlier owner
				n.accuse(from, m.Job, err.Error())
			}
			return reportReply{}, err
		}
		if err := n.fetchOutputs(ctx, from, &c.Receipt, j.spec.Stages[m.Stage].Limits); err != nil {
			b.failed = append(b.failed, hostFailure{c.Index, CodeOf(err), clean(err.Error(), maxMessage)})
			continue
		}
		n.noteOutputs(&c.Receipt)
		b.done = append(b.done, *c)
	}
	w := Work{m.Job, m.Stage}
	done, doubtful := n.doubt(ctx, j, w, m.Epoch, from, b.done)
	b.done = done
	n.post(Reported{From: from, Work: w, Epoch: m.Epoch, Results: n.record(w, m.Epoch, &b)})
	n.traces.move(m.Job, m.Stage, "record", trace.SpanKindServer, start, from, len(b.done)+len(b.failed), doubtful)
	return reportReply{}, doubtful
}

// checkReported refuses a completion that is not what the job asked for.
func (n *Node) checkReported(ctx context.Context, j *job, stage uint32, from peer.ID, c *Completion, v *verifier) error {
	st := &j.stages[stage]
	j.mu.Lock()
	l, tasks := j.lease(), len(st.results)
	l.Stage, l.Table = stage, st.table
	j.mu.Unlock()
	if int(c.Index) >= tasks {
		return Errorf(Invalid, "job %s: stage %d has %d tasks, no task %d", l.Job, stage, tasks, c.Index)
	}
	st.checkMu.Lock()
	defer st.checkMu.Unlock()
	if !st.check.serves(l) {
		p, err := n.planFor(ctx, l)
		if err != nil {
			return err
		}
		st.check = p
	}
	t, err := st.check.task(ctx, c.Index)
	if err != nil {
		return err
	}
	key, err := t.Key()
	if err != nil {
		return err
	}
	if c.Receipt.Key != key {
		return Errorf(Denied, "job %s: the receipt for task %d is of another invocation", l.Job, c.Index)
	}
	if !c.Cached && c.Receipt.Node != from {
		return Errorf(Denied, "job %s: the receipt for task %d is by %s, not by its sender", l.Job, c.Index, c.Receipt.Node)
	}
	if err := c.Receipt.check(t.Limits); err != nil {
		return Errorf(CodeOf(err), "job %s: the receipt for task %d: %w", l.Job, c.Index, err)
	}
	if c.Cached && j.Jury != nil && c.Receipt.Node != from {
		return Errorf(Invalid, "job %s: the receipt for task %d is not of its sender, who was to run it to confirm it", l.Job, c.Index)
	}
	if c.Cached && !c.Receipt.Lasting() {
		return Errorf(Invalid, "job %s: the receipt for task %d is of an earlier failure that may not happen again", l.Job, c.Index)
	}
	*c = completion(&t, c.Receipt, c.Cached)
	return v.verify(&c.Receipt)
}

// fetchOutputs brings what a reported receipt names, which is no more than the task was allowed to write.
func (n *Node) fetchOutputs(ctx context.Context, from peer.ID, r *Receipt, most Limits) error {
	links := r.Links()
	if len(links) == 0 {
		return nil
	}
	for _, l := range links {
		if err := CheckCID(l.Cid); err != nil {
			return err
		}
	}
	const nodes = 4 << 20 // of the DAGs of large files, and a folder's entries besides
	limit := 2*most.Output + most.Scratch + 1024*uint64(most.Files) + nodes
	if !n.inRealm(from) && n.Puller != nil { // else a stranger could name what it has not, and be given it as the input of a later task
		_, err := n.Puller.Pull(ctx, from, cids(links), int64(limit), false)
		return err
	}
	return n.Fetcher.Fetch(ctx, Want{Roots: cids(links), From: []peer.ID{from}, Limit: int64(limit), Swarm: true})
}

// booked is what came of a span of tasks before any of them was handed out.
type booked struct {
	done   []Span   // that succeeded
	failed []uint32 // for good
}

// bookKnown books the tasks of some spans whose results are known, here or to others. It tells of these and of those that have been booked before.
func (n *Node) bookKnown(j *job, prep *preparing, spans []Span) (all booked, err error) {
	p := prep.plan
	stage := p.lease.Stage
	var found []Completion
	held := holds{n: n}
	defer held.end()
	known := make([][][]byte, len(spans))
	// Children are many and small: asking for them costs more than they do. And where results are to be confirmed, it is the
	// owner who chooses by whom: it takes none from those who offer them, but those of nodes that its last owner may have chosen.
	if prep.others == nil && j.batch == nil && (j.Jury == nil || j.inherited) {
		p := recallBefore
		if j.inherited {
			p = recallAfter
		}
		if prep.others = n.recaller(p); prep.others != nil {
			prep.others.firsthand = j.Jury != nil
		}
	}
	ask := prep.others.any()
	missing := map[Key]*Task{}
	for k, s := range spans {
		known[k] = j.results(stage, s)
		for i := s.Lo; i < s.Hi && !j.rec.Fresh; i++ {
			if known[k][i-s.Lo] != nil {
				continue
			}
			t, err := p.task(n.ctx, i)
			if err != nil {
				return booked{}, err
			}
			key, err := t.Key()
			if err != nil {
				return booked{}, err
			}
			alone := j.Jury != nil || j.batch != nil && j.batch.alone
			if r, ok := n.known(n.ctx, key, &held); ok && (!alone || r.Node == n.self) {
				found = append(found, completion(&t, r, true))
			} else if ask {
				missing[key] = new(t)
			}
		}
	}
	if len(missing) > 0 {
		found = append(found, n.recall(j, prep.others, missing, &held)...)
	}
	_, results, err := j.add(p.lease.Work(), p.lease.Epoch, found)
	if err != nil {
		return booked{}, err
	}
	outcome := make(map[uint32]TaskOutcome, len(results))
	for _, r := range results {
		outcome[r.Index] = r.Outcome
	}
	for k, s := range spans {
		if err := all.add(s, known[k], outcome); err != nil {
			return booked{}, err
		}
	}
	return all, nil
}

// recall finds what other nodes know of tasks, and remembers it. Of equal invocations one is answered; the others
// find it in the cache of whoever runs them.
func (n *Node) recall(j *job, others *recaller, tasks map[Key]*Task, held *holds) []Completion {
	receipts, from := others.ask(j.ctx, tasks)
	done := make([]Completion, 0, len(receipts))
	keep := make([]Receipt, 0, len(receipts))
	for key, r := range receipts {
		done = append(done, completion(tasks[key], r, true))
	}
	done = n.whole(j.ctx, done, from, held)
	for i := range done {
		keep = append(keep, done[i].Receipt)
	}
	if len(keep) > 0 {
		if err := n.Cache.Remember(n.ctx, keep...); err != nil {
			n.log.Warn("receipt cache", "err", err)
		}
	}
	return done
}

// results lists the encoded completions of a span of an open stage; nil stands for what has not ended.
func (j *job) results(stage uint32, s Span) [][]byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	if r := j.stages[stage].results; int(s.Hi) <= len(r) {
		return slices.Clone(r[s.Lo:s.Hi])
	}
	return make([][]byte, s.Len()) // it is ending
}

// add tells what is booked of a span: what was known before, encoded, and what has just been added.
func (b *booked) add(s Span, known [][]byte, added map[uint32]TaskOutcome) error {
	for k, data := range known {
		i := s.Lo + uint32(k)
		outcome, ended := added[i]
		if data != nil {
			var c Completion
			if err := Unmarshal(data, &c); err != nil {
				return err
			}
			outcome, ended = outcomeOf(&c.Receipt), true
		}
		if last := len(b.done) - 1; !ended || outcome == Unproven || outcome == Withheld {
			continue
		} else if outcome != Succeeded {
			b.failed = append(b.failed, i)
		} else if last >= 0 && b.done[last].Hi == i {
			b.done[last].Hi++
		} else {
			b.done = append(b.done, Span{i, i + 1})
		}
	}
	return nil
}

// closeJob ends a job that the scheduler has brought to its end.
func (n *Node) closeJob(e CloseJob) {
	j := n.job(e.Job)
	if j == nil {
		return
	}
	if j.batch != nil {
		j.endBatch(e.Why)
		return
	}
	if err := n.bookRest(j, e); err != nil {
		n.log.Error("not all tasks that were given up are in the result", "job", e.Job, "err", err)
	}
	switch {
	case e.Why != nil:
		n.end(j, Failed, n.late(j, e.Why))
	case e.Bad:
		n.end(j, Failed, j.explain(e.Failed, e.Failures))
	default:
		n.end(j, Done, nil)
	}
}

// late says of a job whose time is up that there was no node for it, if that is why. The scheduler does not know it.
func (n *Node) late(j *job, why error) error {
	text := n.misfit(j)
	if text == "" || CodeOf(why) != Deadline {
		return why
	}
	what, _, _ := strings.Cut(why.Error(), ": ")
	return Errorf(Deadline, "%s: %s", what, text).Hint("start such a node, or ask for less; `grid job --why` tells what each lacks while the job waits")
}

// explain says why a job failed, by its first failed task.
func (j *job) explain(failed []FailedTask, all uint32) error {
	if len(failed) == 0 {
		return Errorf(Internal, "the job failed, but none of its tasks did")
	}
	f := failed[0]
	name := j.spec.Stages[f.Stage].Name
	more := ""
	if all > 1 {
		more = fmt.Sprintf("; and %d more tasks failed", all-1)
	}
	c, err := j.ended(f.Stage, f.Index)
	if err != nil {
		return err
	}
	why := c.Receipt.Err()
	if f.Attempts > 0 {
		j.mu.Lock()
		if last, ok := j.troubles[taskRef{f.Stage, f.Index}]; ok {
			why = Errorf(last.Code, "%s", last.Message)
		}
		j.mu.Unlock()
		return Errorf(CodeOf(why), "%s task %d was given up after %d attempts: %v%s", name, f.Index, f.Attempts, why, more)
	}
	of := ""
	switch {
	case c.Inputs > 1:
		of = fmt.Sprintf(" (%s and %d more)", c.Input, c.Inputs-1)
	case c.Inputs == 1 && c.Input != ".":
		of = fmt.Sprintf(" (%s)", c.Input)
	}
	return Errorf(CodeOf(why), "%s task %d%s: %v%s", name, f.Index, of, why, more)
}
