package grid

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.opentelemetry.io/otel/trace"
)

const (
	// flushAfter is how long results wait for the rest of their grain.
	flushAfter = 100 * time.Millisecond
	// reportsInFlight bounds the reports of one worker that its owner has not acknowledged yet.
	reportsInFlight = 4
	// reportTries is how often a report is sent before it is given up; the lease runs out then.
	reportTries = 4
)

// worker runs the grains of one slot, until one of them is parked. Then another worker serves that slot, and this one
// ends with its grain, in whatever slot it is then given.
type worker struct {
	n       *Node
	slot    int   // noSlot while it is parked
	away    bool  // another one serves the slot that it began with
	grain   grain // being run
	results batch // of it, not handed over yet
	plan    *plan // of the last grain; the next one is usually of the same stage
	reports chan struct{}
	held    holds // until the grain's results are recorded, or held by their report
	stay    stay  // in its slot, of the attempt that goes on
}

func (n *Node) worker(slot int) {
	w := &worker{n: n, slot: slot, reports: make(chan struct{}, reportsInFlight), held: holds{n: n}}
	for {
		select {
		case g := <-n.slots[slot].work:
			end := w.run(g)
			if end.Slot = w.slot; w.slot != noSlot {
				n.post(end)
			}
			if w.away {
				return
			}
		case <-n.ctx.Done():
			return
		}
	}
}

// batch is results on their way to the owner.
type batch struct {
	done   []Completion
	failed []hostFailure
}

func (b *batch) empty() bool { return len(b.done) == 0 && len(b.failed) == 0 }

// run runs a grain to its end, or until its context ends. A panic ends the grain, not the worker.
func (w *worker) run(g grain) (end GrainDone) {
	w.grain, w.results = g, batch{}
	defer func() {
		if p := recover(); p != nil {
			w.n.log.Error("panic in worker", "lease", g.lease, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	defer w.held.end()
	if w.plan != nil {
		w.plan.ensured = false // what it needs was not held since the last grain
	}
	b := &w.results
	flushed := time.Now()
	for i := g.lease.Lo; i < g.lease.Hi; i++ {
		start := time.Now()
		c, err := w.task(g.ctx, g.lease, i)
		switch {
		case g.ctx.Err() != nil:
			return end // stopped: the results are of no use to anybody
		case errors.Is(err, errOver):
			w.finish(g, b) // what was run was run
			w.n.post(Dropped{From: g.lease.Owner, Job: g.lease.Job, Epoch: g.lease.Epoch})
			return end
		case err != nil:
			w.n.measures.Lost.Add(CodeOf(err))
			w.n.log.Warn("task failed on this node", "job", g.lease.Job, "stage", g.lease.Stage, "task", i, "err", err)
			b.failed = append(b.failed, hostFailure{Index: i, Code: CodeOf(err), Message: clean(err.Error(), maxMessage)})
		default:
			b.done = append(b.done, c)
		}
		now := time.Now()
		w.n.traces.attempt(g.lease, i, w.slot, start, now, &c, err)
		if err != nil || !c.Cached {
			end.Ran++
			end.Took += now.Sub(start)
		}
		if now.Sub(flushed) > flushAfter && i+1 < g.lease.Hi {
			w.flush(g, b)
			flushed = now
		}
	}
	if w.plan != nil {
		end.Fetched, end.Fetching = w.plan.from.brought.take()
	}
	end.Results = w.finish(g, b)
	return end
}

// sign signs what was run of a batch. What cannot be signed is of no use.
func (w *worker) sign(b *batch) {
	fresh := make([]*Receipt, 0, len(b.done))
	for i := range b.done {
		if r := &b.done[i].Receipt; len(r.Sig) == 0 {
			fresh = append(fresh, r)
		}
	}
	err := Sign(w.n.Key, fresh...)
	if err == nil {
		return
	}
	done := b.done
	b.done = nil
	for _, c := range done {
		if len(c.Receipt.Sig) > 0 {
			b.done = append(b.done, c)
		} else {
			b.failed = append(b.failed, hostFailure{Index: c.Index, Code: CodeOf(err), Message: clean(err.Error(), maxMessage)})
		}
	}
}

// flush hands over the results so far of a grain that goes on.
func (w *worker) flush(g grain, b *batch) {
	w.sign(b)
	if g.lease.Owner == w.n.self {
		results := w.n.record(g.lease.Work(), g.lease.Epoch, b)
		w.n.post(Reported{From: w.n.self, Work: g.lease.Work(), Epoch: g.lease.Epoch, Results: results})
	} else {
		w.report(g, b)
	}
	*b = batch{}
}

// finish hands over the last results of a grain.
func (w *worker) finish(g grain, b *batch) []TaskResult {
	w.sign(b)
	if g.lease.Owner == w.n.self {
		return w.n.record(g.lease.Work(), g.lease.Epoch, b)
	}
	w.report(g, b)
	return nil
}

// report sends results to their owner while the worker goes on, unless too many are on their way.
func (w *worker) report(g grain, b *batch) {
	if b.empty() {
		return
	}
	msg := reportMsg{Job: g.lease.Job, Stage: g.lease.Stage, Epoch: g.lease.Epoch, Done: b.done, Failed: b.failed}
	n, owner := w.n, g.lease.Owner
	n.stolen.Add(uint64(len(b.done)))
	n.remember(b.done) // for the next owner, should this one die
	select {
	case w.reports <- struct{}{}:
	case <-g.ctx.Done(): // nobody waits for it any more
		return
	}
	release := n.Hold(outputs(msg.Done)...)
	hide := func() {}
	if g.lease.Outside {
		hide = n.showOutputs(owner, msg.Done)
	}
	n.spawn(func() {
		defer func() { <-w.reports }()
		defer release()
		defer hide()
		n.deliver(owner, msg, !g.lease.Outside)
	})
}

// deliver sends a report until the owner of its job has acknowledged it, splitting what is too big to send. When
// the job has got another owner meanwhile, that one gets it at once, if it is one of the realm's: what was run was run, and the
// worker may be waiting for its reports.
func (n *Node) deliver(owner peer.ID, msg reportMsg, ours bool) {
	ctx, done := n.errands.run(n.ctx, msg.Job)
	defer done()
	data, err := Marshal(msg)
	if err == nil && len(data) > MaxMessage-1024 && len(msg.Done) > 1 {
		half := msg
		msg.Done, half.Done, half.Failed = msg.Done[:len(msg.Done)/2], msg.Done[len(msg.Done)/2:], nil
		n.deliver(owner, msg, ours)
		n.deliver(owner, half, ours)
		return
	}
	pause := 100 * time.Millisecond
	start := time.Now()
	for try, moves := 1, 0; ; try++ {
		var heard peer.ID // of the job's owner
		if n.realm != nil {
			heard = n.realm.owner(msg.Job)
		}
		if ours && heard != owner {
			if next, epoch, ok := n.successor(msg.Job, msg.Epoch); ok {
				owner, msg.Epoch = next, epoch
			}
		}
		reply, err := n.reportTo(ctx, owner, msg)
		if ours && (err != nil || reply.Over) && moves < reportTries {
			if next, epoch, ok := n.successor(msg.Job, msg.Epoch); ok {
				owner, msg.Epoch, try, moves = next, epoch, 0, moves+1
				continue
			}
		}
		switch {
		case err == nil && reply.Over:
			n.post(Dropped{From: owner, Job: msg.Job, Epoch: msg.Epoch})
			return
		case err == nil && ours:
			n.traces.move(msg.Job, msg.Stage, "report", trace.SpanKindClient, start, owner, len(msg.Done)+len(msg.Failed), nil)
			return
		case err == nil || ctx.Err() != nil:
			return
		case try == reportTries || !transient(CodeOf(err)):
			n.log.Warn("results not delivered; the owner will have the tasks run again",
				"job", msg.Job, "owner", owner, "tasks", len(msg.Done), "err", err)
			return
		}
		if n.realm != nil {
			n.realm.await(ctx, msg.Job, heard, pause)
		} else {
			pauseFor(ctx, pause)
		}
		if ctx.Err() != nil {
			return
		}
		pause *= 4
	}
}

// reportTo sends a report once. The owner may be this node by now.
func (n *Node) reportTo(ctx context.Context, owner peer.ID, msg reportMsg) (reportReply, error) {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	if owner != n.self {
		return call[reportReply](ctx, n, owner, protoReport, msg)
	}
	msg.Done = slices.Clone(msg.Done) // as if they had travelled
	return n.onReport(ctx, n.self, msg)
}

// task runs task i of a lease, or finds the receipt of an earlier run. The error is the host's; so is a
// panic, which must cost no more than this one attempt.
func (w *worker) task(ctx context.Context, l Lease, i uint32) (c Completion, err error) {
	defer func() {
		if p := recover(); p != nil {
			w.n.log.Error("panic in task", "lease", l, "task", i, "panic", p, "stack", string(debug.Stack()))
			err = Errorf(Internal, "panic while running task %d of %s: %v", i, l.Job, p)
		}
	}()
	ctx, stop := w.n.lentFor(ctx, l)
	defer stop()
	defer func() {
		if err != nil && context.Cause(ctx) == errLong {
			w.n.lent.refused.Add(1)
			err = errLong
		}
	}()
	if !w.plan.serves(l) {
		p, err := w.n.planFor(ctx, l)
		if err != nil {
			return Completion{}, err
		}
		w.plan = p
		if l.Owner != w.n.self {
			w.n.scoreLater(l.Work(), &p.stage)
		}
	}
	if l.Owner == w.n.self {
		if j := w.n.job(l.Job); j != nil && j.result(l.Stage, i) != nil { // it has become known since it was handed out
			return j.ended(l.Stage, i)
		}
	}
	w.plan.expect(l.Span)
	t, err := w.plan.task(ctx, i)
	if err != nil {
		return Completion{}, err
	}
	key, err := t.Key()
	if err != nil {
		return Completion{}, err
	}
	if !l.Fresh && !l.Outside && l.Owner != w.n.self { // an owner looked before it handed the task out
		if r, ok := w.n.known(ctx, key, &w.held); ok && (!l.Class.Checked || r.Node == w.n.self) {
			w.n.measures.Known.Add(1)
			return completion(&t, r, true), nil
		}
	}
	if err := w.n.mayRun(ctx, &w.plan.stage); err != nil {
		return Completion{}, err
	}
	start := time.Now()
	w.settle(i, start)
	var r Receipt
	defer func() {
		if err == nil && r.Node == "" {
			err = Errorf(Internal, "panic") // which the one above makes an error of
		}
		w.leaveSlot(&l, &r, err, ctx.Err() != nil)
	}()
	if !w.plan.ensured {
		w.held.add(w.plan.stage.roots()...)
	}
	if err := w.n.ensure(ctx, w.plan); err != nil {
		return Completion{}, err
	}
	f := &family{w: w, ctx: ctx, plan: w.plan, lease: l}
	defer f.close()
	if r, err = w.n.attempt(ctx, &t, key, w.plan, start, f, &w.held); err != nil {
		return Completion{}, err
	}
	w.n.addInputs(ctx, t.Inputs)
	w.n.noteOutputs(&r)
	w.n.ran.Add(1)
	if l.Outside {
		w.n.lent.ran.Add(1)
	}
	if !r.OK() {
		w.n.failed.Add(1)
	}
	w.n.measures.ran(&r, time.Since(start))
	w.n.tallied(ctx, t.Module.Cid, r.Metrics)
	return completion(&t, r, false), nil // to be signed with others
}

func completion(t *Task, r Receipt, cached bool) Completion {
	c := Completion{Index: t.Index, Inputs: len(t.Inputs), Cached: cached, Receipt: r}
	if len(t.Inputs) > 0 {
		c.Input = t.Inputs[0].Name
	}
	for i := range t.Inputs {
		c.Read = sumOf(c.Read, max(t.Inputs[i].Size, 0))
	}
	return c
}

// knownTimeout bounds how long other nodes are asked for what is missing of earlier outputs.
const knownTimeout = 10 * time.Second

// known finds the receipt of an earlier run, which answers for this one, whose outputs are all here, and holds these. Of what
// was evicted in part, the rest is fetched; an output that has gone as a whole is made again.
func (n *Node) known(ctx context.Context, key Key, held *holds) (Receipt, bool) {
	r, ok, err := n.Cache.Lookup(ctx, key)
	if err != nil {
		n.log.Warn("receipt cache", "err", err)
	}
	if !ok || err != nil || !r.Lasting() || r.Key != key {
		return Receipt{}, false
	}
	roots := cids(r.Links())
	if len(roots) == 0 {
		return r, true
	}
	held.add(roots...)
	for _, c := range roots {
		if has, err := n.Blocks.Has(ctx, c); err != nil || !has {
			return Receipt{}, false
		}
	}
	ctx, cancel := context.WithTimeout(ctx, knownTimeout)
	defer cancel()
	if err := n.Fetcher.Fetch(ctx, Want{Roots: roots, From: []peer.ID{r.Node}}); err != nil {
		n.log.Debug("earlier outputs are not whole", "key", key, "err", err)
		return Receipt{}, false
	}
	return r, true
}

// errTotal ends an attempt that takes longer than its limit in all.
var errTotal = errors.New("total time limit")

// phases times one phase behind the other.
type phases struct{ began time.Time }

// lap ends a phase and tells how long it took.
func (p *phases) lap() time.Duration {
	last := p.began
	p.began = time.Now()
	return p.began.Sub(last)
}

// attempt runs a task once and stores what it leaves behind, which is held. Its first phase began at start.
func (n *Node) attempt(ctx context.Context, t *Task, key Key, p *plan, start time.Time, f *family, held *holds) (Receipt, error) {
	r := Receipt{Key: key, Node: n.self, Started: start.UnixNano(), Impure: t.Impure()}
	clock := phases{start}
	bounded := ctx
	if t.Limits.Total > 0 {
		var cancel context.CancelFunc
		bounded, cancel = context.WithDeadlineCause(ctx, start.Add(t.Limits.Total), errTotal)
		defer cancel()
	}
	run, ended := n.attempts.begin(t, start, f.w == nil || f.lease.Outside)
	defer ended()
	g := Guest{Stdout: &run.out, Stderr: &run.err, Profile: p.stage.Profile, Progress: run.progress}
	if f.w != nil { // else it may spawn nothing
		g.Tasks = f
	}
	out, err := n.try(bounded, t, &r, &clock, g, p.from)
	if err != nil && context.Cause(bounded) == errTotal {
		out = Outcome{Fault: &Fault{Code: Deadline, Message: fmt.Sprintf("took more than %v in all, its limit", t.Limits.Total)}}
		err = nil
	}
	if err != nil {
		return r, err
	}
	used := n.HoldUsed() // not while the guest runs, which may be for hours
	defer used()
	if r.Out, r.OutSize, err = n.parts(ctx, t, &out, &run.out); err != nil {
		return r, err
	}
	r.Exit, r.Memory, r.Fuel, r.Calls, r.Spawned = out.Exit, out.Memory, out.Fuel, out.Calls, f.spawned
	r.SpawnedRun, r.SpawnedFuel = f.took, f.fuel
	r.Metrics = AddMetrics(nil, out.Metrics)
	if err := checkMetrics(r.Metrics); err != nil {
		return r, Errorf(Internal, "what the guest counted: %w", err)
	}
	if e := out.Fault; e != nil {
		r.Fault = &Fault{Code: e.Code, Message: clean(e.Message, maxMessage), Stack: clean(e.Stack, maxStack), Fatal: e.Fatal || f.deep}
	}
	if r.Stdout, err = n.keep(ctx, run.out.whole()); err != nil {
		return r, err
	}
	if r.Stderr, err = n.keep(ctx, run.err.whole()); err != nil {
		return r, err
	}
	if out.Out != nil {
		c, size, err := n.keepTree(ctx, out.Out)
		if err != nil {
			return r, err
		}
		r.Out, r.OutSize = Link{c}, size
	}
	if len(out.Profile) > 0 {
		c, _, err := n.Files.Add(ctx, bytes.NewReader(out.Profile))
		if err != nil {
			return r, err
		}
		r.Profile = Link{c}
	}
	held.add(cids(r.Links())...)
	r.Phases.Store = clock.lap()
	return r, nil
}

// try brings what a task needs, and runs its guest, of which the streams are given. A guest that reads what
// cannot be had has not failed, the attempt has: it is ended, whatever the guest makes of it.
func (n *Node) try(ctx context.Context, t *Task, r *Receipt, clock *phases, g Guest, from *sources) (out Outcome, err error) {
	if len(t.Inputs) > 0 {
		roots := make([]cid.Cid, len(t.Inputs))
		for i, in := range t.Inputs {
			roots[i] = in.CID.Cid
		}
		defer n.Hold(roots...)()
	}
	from = &sources{above: from} // and those of this task's inputs
	pulled := from.above.pulledFor()
	if pulled != nil {
		pulled = pulled.task()
		err = pulled.bring(ctx, t.inputRoots()...)
	} else {
		err = n.bringInputs(ctx, t, from)
	}
	if err != nil {
		return out, err
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	var lost atomic.Pointer[error]
	read := &reading{Blocks: n.Blocks, n: n, from: from, lost: func(err error) {
		lost.CompareAndSwap(nil, &err)
		end(err)
	}}
	defer func() {
		if gone := lost.Load(); gone != nil {
			out, err = Outcome{}, Errorf(CodeOf(*gone), "read what the task was given: %w", *gone)
		}
	}()
	files := n.Files
	if n.FilesOver != nil {
		files = n.FilesOver(read)
		if pulled != nil {
			files = n.FilesOver(pulledBlocks{n.Blocks, pulled})
		}
	}
	keys, err := n.keysFor(ctx, t.Decrypt)
	if err == nil {
		files, err = n.unlocked(files, keys, read.lost)
	}
	if err != nil {
		return out, err
	}
	r.Phases.Fetch = clock.lap()
	if err := n.Engine.Prepare(ctx, t.Module.Cid); err != nil {
		return out, err
	}
	r.Phases.Compile = clock.lap()
	if g.Mounts, err = mounts(ctx, files, t); err != nil {
		return out, err
	}
	data, err := n.grant(ctx, t, &g, from, keys, read.lost)
	if err != nil {
		return out, err
	}
	defer data.close()
	var wrong atomic.Pointer[error]
	stdin, err := stdin(ctx, files, t, func(err error) {
		wrong.CompareAndSwap(nil, &err)
		end(err)
	})
	if err != nil {
		return out, err
	}
	defer stdin.Close()
	g.Module, g.Func = t.Module.Cid, t.Func
	g.Args, g.Env, g.Stdin = append([]string{"main"}, t.Args...), t.Env, stdin
	g.Limits, g.Seed, g.Impure, g.Net = t.Limits, r.Key, r.Impure, t.Net
	out, err = n.Engine.Run(ctx, &g)
	if bad := wrong.Load(); bad != nil {
		return Outcome{Fault: &Fault{Code: CodeOf(*bad), Message: (*bad).Error()}}, nil
	}
	if err != nil {
		return out, err
	}
	waited := time.Duration(read.waited.Load()) + data.waitedFor()
	if f := out.Fault; f != nil && f.Code == Deadline && waited > 0 && out.Run-waited < t.Limits.Wall {
		return Outcome{}, Errorf(Unavailable, "it took more than %v, %v of which went by waiting for its data", t.Limits.Wall, waited.Round(time.Millisecond)).
			Hint("give it more time, or have a node near the data run it")
	}
	wait := max(out.Wait, 0)
	r.Phases.Compile += wait
	r.Phases.Queue, r.Phases.Run, r.Phases.Parked = max(out.Queue, 0), max(out.Run, 0), max(out.Parked, 0)
	r.Phases.Start = max(clock.lap()-wait-r.Phases.Queue-r.Phases.Run-r.Phases.Parked, 0)
	return out, nil
}

// bringInputs brings a task's inputs. One task gathers all of a stage's outputs to read them, so those come whole.
func (n *Node) bringInputs(ctx context.Context, t *Task, from *sources) error {
	if len(t.Inputs) == 0 {
		return nil
	}
	var whole, large []cid.Cid
	var missing int64 // bytes
	for _, in := range t.Inputs {
		if in.Size <= lazyOver || isWholeTree(t.Inputs) {
			whole = append(whole, in.CID.Cid)
			if here, err := n.Blocks.Has(ctx, in.CID.Cid); err == nil && !here {
				missing += max(in.Size, 0)
			}
		} else {
			large = append(large, in.CID.Cid)
		}
	}
	start := time.Now()
	if err := n.bring(ctx, whole, large, from); err != nil || missing == 0 {
		return err
	}
	from.came(missing, time.Since(start))
	return nil
}

// keep stores an output: inline when it is short.
func (n *Node) keep(ctx context.Context, data []byte) (Output, error) {
	o := Output{Size: int64(len(data))}
	if len(data) <= MaxInline {
		o.Inline = data
		return o, nil
	}
	c, _, err := n.Files.Add(ctx, bytes.NewReader(data))
	o.CID = Link{c}
	return o, err
}

// keepTree stores the folder that a guest left behind.
func (n *Node) keepTree(ctx context.Context, tree fs.FS) (cid.Cid, int64, error) {
	var entries []FileInfo
	err := fs.WalkDir(tree, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		e := FileInfo{Name: path}
		switch {
		case path == ".":
			return nil
		case d.IsDir():
			e.Kind = KindDir
		case d.Type()&fs.ModeSymlink != 0:
			e.Kind = KindSymlink
			if e.Target, err = fs.ReadLink(tree, path); err != nil {
				return err
			}
		default:
			e.Kind = KindFile
			f, err := tree.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			c, size, err := n.Files.Add(ctx, f)
			if err != nil {
				return err
			}
			e.CID, e.Size = Link{c}, size
		}
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		return cid.Undef, 0, fmt.Errorf("store the guest's %s: %w", GuestOut, err)
	}
	return n.Files.AddTree(ctx, entries)
}

// stdin is what the guest reads from its standard input. wrong is told if the guest's inputs make none.
func stdin(ctx context.Context, files Files, t *Task, wrong func(error)) (io.ReadCloser, error) {
	switch {
	case t.Feed:
		return &inputReader{ctx: ctx, files: files, of: named(t.Inputs)}, nil
	case t.Merge:
		of, err := streams(ctx, files, t.Inputs)
		return newMerger(ctx, files, of, wrong), err
	case t.Stdin.Defined():
		return files.Open(ctx, t.Stdin.Cid)
	}
	return io.NopCloser(bytes.NewReader(nil)), nil
}

// inputReader reads inputs one behind the other, each opened when its turn comes.
type inputReader struct {
	ctx   context.Context
	files Files
	of    []stream
	open  io.ReadCloser
}

func (r *inputReader) Read(p []byte) (int, error) {
	for {
		if r.open == nil {
			if len(r.of) == 0 {
				return 0, io.EOF
			}
			f, err := r.files.Open(r.ctx, r.of[0].cid)
			if err != nil {
				info, lerr := r.files.Look(r.ctx, r.of[0].cid)
				if lerr != nil || info.Kind != KindDir {
					return 0, fmt.Errorf("input %s: %w", r.of[0].name, err)
				}
				below, err := printed(r.ctx, r.files, r.of[0])
				if err != nil {
					return 0, err
				}
				r.of = append(below, r.of[1:]...)
				continue
			}
			r.open, r.of = f, r.of[1:]
		}
		n, err := r.open.Read(p)
		if err == io.EOF {
			r.Close()
			if n == 0 {
				continue
			}
			err = nil
		}
		return n, err
	}
}

func (r *inputReader) Close() error {
	if r.open == nil {
		return nil
	}
	err := r.open.Close()
	r.open = nil
	return err
}

// transient reports whether a failed call is worth repeating. A node that has just come up does not
// serve all protocols yet, hence Unsupported.
func transient(c Code) bool {
	return c == Unavailable || c == Busy || c == Deadline || c == Unsupported || c == Limit // a Rate
}
