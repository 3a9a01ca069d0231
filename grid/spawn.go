package grid

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/ipfs/go-cid"
)

// A running task may spawn others, its children. The node that runs the task owns them: those that are spawned
// together become a batch, which the scheduler takes for one more job, of one stage. It is in no ledger, and ends
// with the task. Its name is that of the job at the top with a dot and what makes it this node's. Other nodes steal
// parts of it, read what it is in its spec block, and report to this one, as they do with any job.
// That name also tells the stage of the job at the top whose task, or whose children's child, has spawned it.

// Bounds on what tasks spawn.
const (
	MaxSpawned      = 1 << 20   // children of one task
	MaxUnawaited    = 1 << 16   // of these, that were not awaited yet
	MaxChildStdin   = 16 << 20  // bytes that one child is given
	MaxFamilyStdin  = 256 << 20 // that all children of a task are which were not awaited yet
	MaxSpawnedAlive = 1 << 18   // tasks below one job whose parents run on one node, and that were not awaited yet
)

// ChildInput is the name of a child's one input, which is its stdin, too.
const ChildInput = "stdin"

// How long children wait for others that are spawned with them, and how many there may be by then.
const (
	batchPause = time.Millisecond
	batchMost  = 1 << 12
	batchBytes = 4 << 20 // of their stdins
)

// Others in tests.
var maxAlive, maxUnawaited = MaxSpawnedAlive, MaxUnawaited

// brood is what the tasks that run on a node have spawned.
type brood struct {
	mu      sync.Mutex
	batches map[JobID]*job
	alive   map[JobID]int // children by the job at the top
	made    uint64        // batches
	mark    string        // of this run of this node
}

// batchOf is what makes a job a batch of children.
type batchOf struct {
	root    JobID
	awaited uint32 // children; the family's
	why     error  // those have ended that have no result, if not for what happened to them
	alone   bool   // this node answers for their results, so it believes no others
}

func (b *brood) job(id JobID) *job {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.batches[id]
}

func (b *brood) running() []*job {
	b.mu.Lock()
	defer b.mu.Unlock()
	jobs := make([]*job, 0, len(b.batches))
	for _, j := range b.batches {
		jobs = append(jobs, j)
	}
	return jobs
}

// count adds n children to those below a job, if there may be as many.
func (b *brood) count(root JobID, n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.alive == nil {
		b.alive = make(map[JobID]int)
	}
	switch now := b.alive[root] + n; {
	case n > 0 && now > maxAlive:
		return false
	case now == 0:
		delete(b.alive, root)
	default:
		b.alive[root] = now
	}
	return true
}

// name makes a name for a batch.
func (b *brood) name(root JobID, stage uint32) (JobID, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mark == "" {
		id, err := NewJobID(rand.Reader)
		if err != nil {
			return "", err
		}
		b.mark = string(id[1:9])
	}
	b.made++
	return root + JobID("."+strconv.FormatUint(uint64(stage), 10)+"-"+b.mark+"-"+strconv.FormatUint(b.made, 36)), nil
}

// rootJob is the job at the top of a batch; a job is its own.
func rootJob(id JobID) JobID {
	root, _, _ := strings.Cut(string(id), ".")
	return JobID(root)
}

// rootStage is the stage of the job at the top that tasks are of: their own, or the one whose task has spawned them.
func rootStage(id JobID, stage uint32) (of uint32, spawned bool) {
	_, batch, spawned := strings.Cut(string(id), ".")
	if !spawned {
		return stage, false
	}
	number, _, _ := strings.Cut(batch, "-")
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil || n >= MaxStages { // what other nodes name so is theirs to answer for
		return 0, true
	}
	return uint32(n), true
}

// family is the children of one attempt at a task. It implements [Tasks].
type family struct {
	w       *worker
	ctx     context.Context // of the parent's grain
	plan    *plan           // of the parent
	lease   Lease           // of the parent
	spawned uint64
	took    time.Duration // those that were awaited, with what these spawned
	fuel    uint64        // likewise
	deep    bool          // it would have spawned more if it were not as deep as may be

	mu       sync.Mutex
	children []child
	fresh    []Call // the last children, that are in no batch yet
	bytes    int    // of their stdins
	waiting  int    // children that were not awaited
	given    int    // bytes of their stdins
	timer    *time.Timer
	err      error // why children are in no batch
	closed   bool
	batches  map[*job]struct{}
}

// child is where one child is to be found.
type child struct {
	batch   *job // nil: in none
	index   uint32
	size    uint32 // of its stdin
	awaited bool
}

// Spawn implements [Tasks].
func (f *family) Spawn(ctx context.Context, c Call) (uint32, error) {
	if err := checkCall(&c); err != nil {
		return 0, err
	}
	if f.lease.Class.Depth >= MaxDepth {
		f.deep = true
		return 0, Errorf(Limit, "spawned a task that %d others wait for, each for the next: at most %d may", f.lease.Class.Depth+1, MaxDepth).
			Hint("have tasks do small problems themselves")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.err != nil:
		return 0, f.err
	case len(f.children) >= MaxSpawned:
		return 0, Errorf(Limit, "spawned more than %d tasks, its limit", MaxSpawned)
	case f.waiting >= maxUnawaited:
		return 0, Errorf(Limit, "spawned more than %d tasks without awaiting them, its limit", maxUnawaited)
	case f.given+len(c.Stdin) > MaxFamilyStdin:
		return 0, Errorf(Limit, "spawned tasks with more than %d bytes of input in all without awaiting them, its limit", MaxFamilyStdin)
	}
	root := rootJob(f.lease.Job)
	if !f.w.n.brood.count(root, 1) {
		return 0, Errorf(Busy, "%d tasks that job %s has spawned on this node were not awaited, as many as there may be", maxAlive, root).
			Hint("have each task do more itself before it spawns others")
	}
	n := uint32(len(f.children))
	f.children = append(f.children, child{size: uint32(len(c.Stdin))})
	f.fresh = append(f.fresh, c)
	f.bytes += len(c.Stdin)
	f.given += len(c.Stdin)
	f.waiting++
	f.spawned++
	switch {
	case len(f.fresh) >= batchMost || f.bytes >= batchBytes:
		f.handOver(ctx)
	case len(f.fresh) == 1:
		f.timer = time.AfterFunc(batchPause, f.ring)
	}
	return n, f.err
}

func checkCall(c *Call) error {
	if len(c.Func) > MaxName || !utf8.ValidString(c.Func) {
		return Errorf(Invalid, "the function's name %.40q: want at most %d bytes of UTF-8", c.Func, MaxName)
	}
	if len(c.Stdin) > MaxChildStdin {
		return Errorf(Invalid, "%d bytes of input, at most %d are allowed", len(c.Stdin), MaxChildStdin).Hint("leave the data in a file that both see, and give its name")
	}
	if err := checkWords("argument", c.Args); err != nil {
		return Errorf(Invalid, "%w", err)
	}
	return nil
}

// ring hands over what has waited for long enough.
func (f *family) ring() {
	if !f.w.n.enter() {
		return
	}
	defer f.w.n.wg.Done()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.handOver(f.ctx)
}

// handOver makes batches of the children that are in none, one for each run of equal functions and arguments. f.mu is
// held.
func (f *family) handOver(ctx context.Context) {
	calls, first := f.fresh, len(f.children)-len(f.fresh)
	f.fresh, f.bytes = nil, 0
	if f.timer != nil {
		f.timer.Stop()
		f.timer = nil
	}
	if f.closed {
		return
	}
	for len(calls) > 0 && f.err == nil {
		n := 1
		for n < len(calls) && calls[n].Func == calls[0].Func && slices.Equal(calls[n].Args, calls[0].Args) {
			n++
		}
		j, err := f.batch(ctx, calls[:n])
		if err != nil {
			f.err = Errorf(CodeOf(err), "spawn tasks: %w", err)
			return
		}
		for i := range n {
			c := &f.children[first+i]
			c.batch, c.index = j, uint32(i)
		}
		calls, first = calls[n:], first+n
	}
}

// batch makes one of calls of one function, and hands it to the scheduler.
func (f *family) batch(ctx context.Context, calls []Call) (*job, error) {
	n := f.w.n
	defer n.HoldUsed()()
	spec := f.spec(&calls[0], uint32(len(calls)))
	rows := NewTable[Row](n.Blocks)
	for _, c := range calls {
		link, err := n.keepChildInput(ctx, c.Stdin)
		if err != nil {
			return nil, err
		}
		if err := rows.Add(ctx, Row{{Name: ChildInput, CID: link, Size: int64(len(c.Stdin))}}); err != nil {
			return nil, err
		}
	}
	var err error
	if spec.Stages[0].Inputs, err = rows.Close(ctx); err != nil {
		return nil, err
	}
	if err := spec.Normalize(); err != nil {
		return nil, err
	}
	block, err := EncodeBlock(spec)
	if err != nil {
		return nil, err
	}
	if err := n.Blocks.Put(ctx, block); err != nil {
		return nil, err
	}
	root := rootJob(f.lease.Job)
	stage, _ := rootStage(f.lease.Job, f.lease.Stage)
	id, err := n.brood.name(root, stage)
	if err != nil {
		return nil, err
	}
	j := n.newBatch(f, spec, Record{ID: id, Spec: Link{block.CID()}, Owner: n.self, Epoch: 1, State: Running, Fresh: f.lease.Fresh})
	n.brood.mu.Lock()
	if n.brood.batches == nil {
		n.brood.batches = make(map[JobID]*job)
	}
	n.brood.batches[id] = j
	n.brood.mu.Unlock()
	if f.batches == nil {
		f.batches = make(map[*job]struct{})
	}
	f.batches[j] = struct{}{}
	class := f.lease.Class
	class.Depth++
	class.Pinned = class.Pinned || class.Checked // this node answers for what they come to
	class.Offload = false
	lease := j.lease()
	lease.Outside = f.lease.Outside
	tasks := uint32(len(calls))
	n.post(JobOpened{Lease: lease, KeepGoing: true, Allow: tasks,
		Stages: []StagePlan{{Tasks: tasks, Class: class, Attempts: int(spec.Stages[0].Attempts)}}})
	// Laid out here, and not when the scheduler asks for it, they are queued before their parent is parked.
	return j, n.layOut(j, Work{Job: id}, []Span{{0, tasks}})
}

// spec is what children of one function are: as their parent, but for what they are given.
func (f *family) spec(c *Call, tasks uint32) Spec {
	p := &f.plan.stage
	return Spec{Version: SpecVersion, Salt: f.plan.salt, KeepGoing: true, Allow: tasks, Stages: []Stage{{
		Module: p.Module, Func: c.Func, Args: c.Args, Env: p.Env, Mounts: p.Mounts, Feed: true, Tasks: tasks,
		Limits: p.Limits, Impure: p.Impure, Grants: p.Grants, Require: p.Require, Prefer: p.Prefer, Reserve: p.Reserve, Attempts: p.Attempts,
	}}}
}

// keepChildInput stores what a child is given.
func (n *Node) keepChildInput(ctx context.Context, data []byte) (Link, error) {
	if len(data) > MaxInline<<10 {
		c, _, err := n.Files.Add(ctx, bytes.NewReader(data))
		return Link{c}, err
	}
	b := NewBlock(cid.Raw, data)
	return Link{b.CID()}, n.Blocks.Put(ctx, b)
}

// newBatch makes the books of a batch.
func (n *Node) newBatch(f *family, spec Spec, rec Record) *job {
	j := &job{spec: spec, rec: rec, batch: &batchOf{root: rootJob(rec.ID), alone: f.lease.Class.Checked}, changed: make(chan struct{}), stages: make([]stage, 1)}
	j.ctx, j.cancel = context.WithCancel(f.ctx)
	st := &spec.Stages[0]
	j.stages[0].status = StageStatus{Name: st.Name, Tasks: st.Tasks, Nodes: map[string]uint32{}}
	j.stages[0].table = st.Inputs
	return j
}

// endBatch is called when the scheduler has nothing more to do for a batch: whoever has no result will have none.
func (j *job) endBatch(why error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if why != nil {
		j.batch.why = why
	}
	j.ending = true
	j.touch()
}

// drop forgets a batch; what still runs of it is ended everywhere. f.mu is held.
func (f *family) drop(j *job) {
	n := f.w.n
	delete(f.batches, j)
	j.mu.Lock()
	over := j.ending
	j.ending = true
	j.mu.Unlock()
	j.cancel()
	n.brood.mu.Lock()
	delete(n.brood.batches, j.rec.ID)
	n.brood.mu.Unlock()
	if !over {
		n.post(JobEnded{Job: j.rec.ID})
	}
}

// close ends the children that were not awaited: with the attempt, nobody waits for them any more.
func (f *family) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	if f.timer != nil {
		f.timer.Stop()
	}
	for j := range f.batches {
		f.drop(j)
	}
	if f.waiting > 0 {
		f.w.n.brood.count(rootJob(f.lease.Job), -f.waiting)
	}
}

// find gives a child that can be awaited, nil when there is none of that number. f.mu is held.
func (f *family) find(number uint32) *child {
	if uint64(number) >= uint64(len(f.children)) || f.children[number].awaited {
		return nil
	}
	return &f.children[number]
}

// Ended implements [Tasks].
func (f *family) Ended(number uint32) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.find(number)
	return c == nil || f.err != nil || c.batch != nil && c.batch.childEnded(c.index)
}

// childEnded reports whether a child of the batch has ended, or will not.
func (j *job) childEnded(i uint32) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ending || int(i) < len(j.stages[0].results) && j.stages[0].results[i] != nil
}

// awaitChild waits until that is so.
func (j *job) awaitChild(ctx context.Context, i uint32) error {
	for {
		j.mu.Lock()
		changed := j.changed
		j.mu.Unlock()
		if j.childEnded(i) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Await implements [Tasks].
func (f *family) Await(ctx context.Context, number uint32) (Ending, error) {
	f.mu.Lock()
	c := f.find(number)
	if c == nil {
		f.mu.Unlock()
		return Ending{}, Errorf(NotFound, "there is no task %d to await", number)
	}
	if c.batch == nil {
		f.handOver(ctx)
	}
	j, i, err := c.batch, c.index, f.err
	f.mu.Unlock()
	if err != nil {
		return Ending{}, err
	}
	if !j.childEnded(i) {
		if err := f.w.idle(ctx, func(ctx context.Context) error { return j.awaitChild(ctx, i) }); err != nil {
			return Ending{}, err
		}
	}
	if err := ctx.Err(); err != nil {
		return Ending{}, context.Cause(ctx)
	}
	e, err := f.ending(ctx, j, i)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.children[number].awaited = true
	f.waiting--
	f.given -= int(f.children[number].size)
	f.w.n.brood.count(j.batch.root, -1)
	if j.batch.awaited++; j.batch.awaited == j.spec.Stages[0].Tasks {
		f.drop(j)
	}
	return e, err
}

// ending tells how a child ended.
func (f *family) ending(ctx context.Context, j *job, i uint32) (Ending, error) {
	name := j.spec.Stages[0].Name
	j.mu.Lock()
	var data []byte
	if int(i) < len(j.stages[0].results) {
		data = j.stages[0].results[i]
	}
	trouble, why := j.troubles[taskRef{0, i}], j.batch.why
	j.mu.Unlock()
	if data == nil && why != nil {
		return Ending{Fault: &Fault{Fatal: true, Code: CodeOf(why), Message: fatal(name + ": " + why.Error())}}, nil
	}
	if data == nil {
		return Ending{Fault: &Fault{Fatal: true, Code: trouble.Code, Message: fatal(fmt.Sprintf("%s was given up after as many attempts as it may have: %s", name, trouble.Message))}}, nil
	}
	var c Completion
	if err := Unmarshal(data, &c); err != nil {
		return Ending{}, err
	}
	r := &c.Receipt
	f.spawned += r.Spawned
	if c.Cached {
		r = &Receipt{Exit: r.Exit, Fault: r.Fault, Stdout: r.Stdout, Stderr: r.Stderr} // it took nothing
	}
	f.took = time.Duration(sumOf(int64(f.took), sumOf(int64(max(r.Phases.Run-r.Phases.Parked, 0)), int64(max(r.SpawnedRun, 0)))))
	f.fuel += min(r.Fuel, math.MaxUint64-f.fuel)
	f.fuel += min(r.SpawnedFuel, math.MaxUint64-f.fuel)
	e := Ending{Exit: r.Exit, Fault: r.Fault, Stderr: r.Stderr.Inline}
	if r.Fault != nil {
		if r.Fault.Fatal || r.Fault.Code == Deadline { // what a node has time for is chance
			e.Fault = &Fault{Fatal: true, Code: r.Fault.Code, Message: fatal(name + ": " + r.Fault.Message)}
		}
		return e, nil
	}
	if !r.Stdout.CID.Defined() {
		e.Stdout = io.NopCloser(bytes.NewReader(r.Stdout.Inline))
		return e, nil
	}
	release := f.w.n.Hold(r.Stdout.CID.Cid)
	file, err := f.w.n.Files.Open(ctx, r.Stdout.CID.Cid)
	if err != nil {
		release()
		return Ending{}, err
	}
	e.Stdout = &heldFile{ReadCloser: file, release: release}
	return e, nil
}

// fatal says of what happened to a child that it is what ended its parent; once, however deep the child is.
func fatal(why string) string {
	const prefix = "a task that it spawned, "
	if i := strings.Index(why, prefix); i >= 0 {
		return why[i:]
	}
	return prefix + why
}

// heldFile is a file whose blocks are kept until it is closed.
type heldFile struct {
	io.ReadCloser
	release func()
	closed  atomic.Bool
}

func (f *heldFile) Close() error {
	if f.closed.CompareAndSwap(false, true) {
		f.release()
	}
	return f.ReadCloser.Close()
}
