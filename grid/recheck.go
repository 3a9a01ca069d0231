package grid

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Recheck says what of a job is to be run again.
type Recheck struct {
	Stage  *uint32 // nil: all stages
	Task   *uint32 // nil: all tasks
	Sample int     // so many of these, drawn at random; 0: all
}

// Verdict is what running a task again says of its receipt.
type Verdict string

// The verdicts.
const (
	Proved  Verdict = "proved"  // it came to the same
	Refuted Verdict = "refuted" // it did not
	Unsure  Verdict = "unsure"  // it cannot be told
)

// Rechecked is a task that was run again.
type Rechecked struct {
	Stage   uint32  `json:"stage"`         // counted from 0
	Name    string  `json:"name"`          // of the stage
	Index   uint32  `json:"index"`         // of the task in its stage, counted from 0
	Verdict Verdict `json:"verdict"`       // what came of it
	Why     string  `json:"why,omitempty"` // unless it is proved
	Node    peer.ID `json:"node"`          // that signed the receipt
	// Again is how it ended now; nil when it was not run.
	Again *TaskEnd `json:"again,omitempty"`
}

// keepRechecked is how long what a task leaves is kept that was run again.
const keepRechecked = time.Hour

// Recheck runs tasks of a job that has ended again, on this node, with the very inputs that they had, and compares
// what they come to with the receipts that count. f is called for each, one at a time; its error ends it.
func (n *Node) Recheck(ctx context.Context, id JobID, what Recheck, f func(Rechecked) error) error {
	if !n.enter() {
		return errClosing
	}
	defer n.wg.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(n.ctx, func() { cancel(errClosing) })()
	defer n.HoldUsed()() // folders that tasks are given are made again, and nothing names them
	j, rec, err := n.find(ctx, id)
	if err != nil {
		return err
	}
	if j != nil { // for a moment after its end has been recorded, too
		if rec, _, err = n.readRecord(ctx, j.rec.ID); err != nil {
			return err
		}
	}
	if !rec.State.Final() {
		return Errorf(Conflict, "job %s has not ended: what it comes to is not known yet", rec.ID).Hint("`grid wait %s` waits for it", rec.ID)
	}
	spec, err := n.readSpec(ctx, &rec)
	if err != nil {
		return Errorf(CodeOf(err), "job %s: %w", rec.ID, err)
	}
	past, err := n.past(ctx, spec, &rec)
	if err != nil {
		return err
	}
	defer past.cancel()
	refs, err := past.choose(what)
	if err != nil {
		return err
	}
	if err := n.bringSources(ctx, past, refs); err != nil {
		return err
	}
	work := make(chan taskRef)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range max(min(n.Slots, len(refs)), 1) {
		wg.Go(func() {
			w := rechecker{n: n, j: past}
			for ref := range work {
				r := w.recheck(ctx, ref)
				if ctx.Err() != nil {
					return
				}
				mu.Lock()
				err := f(r)
				mu.Unlock()
				if err != nil {
					cancel(err)
					return
				}
			}
		})
	}
send:
	for _, ref := range refs {
		select {
		case work <- ref:
		case <-ctx.Done():
			break send
		}
	}
	close(work)
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// past makes the books of a job that has ended, as its owner had them.
func (n *Node) past(ctx context.Context, spec *Spec, rec *Record) (*job, error) {
	j := &job{spec: *spec, rec: *rec, changed: make(chan struct{}), stages: make([]stage, len(spec.Stages))}
	for i := range j.stages {
		st := &spec.Stages[i]
		j.stages[i].table = st.Inputs
		j.stages[i].results = make([][]byte, st.Tasks)
	}
	err := n.storedTasks(ctx, rec, taskPick{}, func(stage uint32, c *Completion) error {
		if int(stage) >= len(j.stages) || int(c.Index) >= len(j.stages[stage].results) {
			return Errorf(Corrupt, "job %s has a result of task %d of stage %d, which it does not have", rec.ID, c.Index, stage)
		}
		data, err := Marshal(c)
		j.stages[stage].results[c.Index] = data
		return err
	})
	if err != nil {
		return nil, err
	}
	j.ctx, j.cancel = context.WithCancel(ctx)
	return j, nil
}

// choose lists the tasks that are meant.
func (j *job) choose(what Recheck) (refs []taskRef, err error) {
	for s := range j.stages {
		if what.Stage != nil && *what.Stage != uint32(s) {
			continue
		}
		for i, data := range j.stages[s].results {
			if data != nil && (what.Task == nil || *what.Task == uint32(i)) {
				refs = append(refs, taskRef{uint32(s), uint32(i)})
			}
		}
	}
	switch {
	case what.Stage != nil && int(*what.Stage) >= len(j.stages):
		return nil, Errorf(NotFound, "job %s has no stage %d", j.rec.ID, *what.Stage)
	case what.Task != nil && len(refs) == 0:
		return nil, Errorf(NotFound, "job %s has no result of task %d", j.rec.ID, *what.Task)
	case what.Task != nil && len(refs) > 1:
		return nil, Errorf(Invalid, "several stages of job %s have a task %d", j.rec.ID, *what.Task).Hint("name the stage, too")
	}
	if what.Sample > 0 && what.Sample < len(refs) {
		rand.Shuffle(len(refs), func(a, b int) { refs[a], refs[b] = refs[b], refs[a] })
		refs = refs[:what.Sample]
		slices.SortFunc(refs, func(a, b taskRef) int {
			return cmp.Or(cmp.Compare(a.stage, b.stage), cmp.Compare(a.index, b.index))
		})
	}
	return refs, nil
}

// bringSources brings the outputs of the stages that the tasks take from.
func (n *Node) bringSources(ctx context.Context, j *job, refs []taskRef) error {
	seen := make(map[uint32]bool)
	held := holds{n: n}
	defer held.end() // until all rows could be made; Recheck holds all that is new
	for _, ref := range refs {
		for _, src := range j.spec.Stages[ref.stage].From {
			if seen[src.Stage] {
				continue
			}
			seen[src.Stage] = true
			var all []Completion
			for i := range j.stages[src.Stage].results {
				c, err := j.ended(src.Stage, uint32(i))
				if err != nil {
					continue
				}
				all = append(all, c)
			}
			if got := n.whole(ctx, all, nil, &held); len(got) < len(all) {
				return Errorf(Unavailable, "%d of %d outputs of stage %s are nowhere to be had any more, which later ones were given",
					len(all)-len(got), len(all), j.spec.Stages[src.Stage].Name)
			}
		}
	}
	return nil
}

// rechecker runs tasks of one job again, one after the other.
type rechecker struct {
	n    *Node
	j    *job
	plan *plan
}

func (w *rechecker) recheck(ctx context.Context, ref taskRef) Rechecked {
	st := &w.j.spec.Stages[ref.stage]
	out := Rechecked{Stage: ref.stage, Name: st.Name, Index: ref.index, Verdict: Unsure}
	c, err := w.j.ended(ref.stage, ref.index)
	if err != nil {
		out.Why = err.Error()
		return out
	}
	was := &c.Receipt
	out.Node = was.Node
	if err := was.Verify(); err != nil {
		out.Verdict, out.Why = Refuted, "its signature is not that of its node: "+err.Error()
		return out
	}
	switch {
	case st.Impure:
		out.Why = "it is impure: what it comes to is no function of what it was given"
	case was.Key == Key{}:
		out.Why = "no node could run it"
	case !was.Lasting():
		out.Why = "it ended for its node's reasons: " + was.Err().Error()
	case was.Spawned > 0 && w.spawns(ctx, st):
		out.Why = "it spawned tasks, which are not kept"
	}
	if out.Why != "" {
		return out
	}
	key, again, end, err := w.again(ctx, ref)
	switch {
	case err != nil:
		out.Why = "it could not be run here: " + err.Error()
	case key != was.Key:
		out.Verdict, out.Why = Refuted, "its receipt is of another invocation"
	case !again.Lasting():
		out.Again, out.Why = end, "it ended here for this node's reasons: "+again.Err().Error()
	case again.Same(was):
		out.Again, out.Verdict = end, Proved
	default:
		out.Again, out.Verdict, out.Why = end, Refuted, "it says "+was.Differs(again)
	}
	return out
}

// spawns reports whether guests of a stage's module can spawn tasks, as far as is known: a receipt may say so to be let alone.
func (w *rechecker) spawns(ctx context.Context, st *Stage) bool {
	m, err := w.n.Inspect(ctx, st.Module.Cid, false)
	return err != nil || slices.Contains(m.Imports, spawnImport)
}

// spawnImport is what a module imports that spawns tasks.
const spawnImport = "grid.spawn"

// again runs a task once more.
func (w *rechecker) again(ctx context.Context, ref taskRef) (key Key, r *Receipt, end *TaskEnd, err error) {
	l := w.j.lease()
	l.Stage, l.Table, l.Span = ref.stage, w.j.spec.Stages[ref.stage].Inputs, Span{ref.index, ref.index + 1}
	if !w.plan.serves(l) {
		if w.plan, err = w.n.planFor(ctx, l); err != nil {
			return key, nil, nil, err
		}
		if w.plan.told != nil {
			w.plan.told.past = w.j
		}
	}
	t, err := w.plan.task(ctx, ref.index)
	if err != nil {
		return key, nil, nil, err
	}
	if key, err = t.Key(); err != nil {
		return key, nil, nil, err
	}
	if err := w.n.mayRun(ctx, &w.plan.stage); err != nil {
		return key, nil, nil, err
	}
	if err := w.n.ensure(ctx, w.plan); err != nil {
		return key, nil, nil, err
	}
	held := holds{n: w.n}
	defer held.end()
	got, err := w.n.attempt(ctx, &t, key, w.plan, time.Now(), &family{}, &held)
	if err != nil {
		return key, nil, nil, err
	}
	for _, link := range got.Links() {
		w.n.Linger(keepRechecked, link.Cid)
	}
	done := completion(&t, got, false)
	e := taskEnd(ref.stage, &done)
	return key, &got, &e, nil
}
