package grid

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
)

// Work goes where its data is: a node tells its victims which DAGs it holds, tells its own scheduler what tasks read,
// and brings what it is going to read before a slot waits for it.

const (
	// hintOver is how many bytes an input must have for its place to matter.
	hintOver = 64 << 10
	// hintBatch is how many tasks one Hints event is about, at most.
	hintBatch = 1024
	// maxHeld bounds the DAGs that are remembered to be here.
	maxHeld = 8192
	// summaryAge is how old a summary may be that others are given.
	summaryAge = time.Second

	// Bounds of what is brought ahead of need: leases that wait for it, those for which it is done at a time, bytes for
	// each, and inputs of one request. What does not fit comes when it is needed.
	prefetchQueue = 32
	prefetchSlots = 2
	prefetchBytes = 32 << 20
	prefetchBatch = 16
	prefetchTime  = time.Minute
)

// heldRoots remembers some large DAGs that are whole here, or were when they were last used, by their RootHash: of two
// generations, those used of late are in the younger one.
type heldRoots struct {
	mu         sync.Mutex
	young, old map[uint64]struct{}
	changed    bool // since summary was made
	made       time.Time
	summary    Summary
}

// add notes a DAG of which so many bytes are here.
func (h *heldRoots) add(root cid.Cid, size int64) {
	if size < hintOver || !root.Defined() {
		return
	}
	hash := RootHash(root)
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, known := h.young[hash]; known {
		return
	}
	if _, known := h.old[hash]; !known {
		h.changed = true
	}
	if h.young == nil || len(h.young) >= maxHeld/2 {
		h.old, h.young = h.young, make(map[uint64]struct{})
		h.changed = true
	}
	h.young[hash] = struct{}{}
}

func (h *heldRoots) has(root cid.Cid) bool {
	hash := RootHash(root)
	h.mu.Lock()
	defer h.mu.Unlock()
	_, young := h.young[hash]
	_, old := h.old[hash]
	return young || old
}

// sum is a summary of the DAGs, made anew at most once in summaryAge. It is not to be written.
func (h *heldRoots) sum(now time.Time) Summary {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.changed || now.Sub(h.made) < summaryAge {
		return h.summary
	}
	s := NewSummary(len(h.young) + len(h.old))
	for _, roots := range []map[uint64]struct{}{h.young, h.old} {
		for root := range roots {
			s.Add(root)
		}
	}
	h.summary, h.made, h.changed = s, now, false
	return s
}

// addInputs notes the inputs of a task that has read them: those that were brought whole, and larger ones if all of
// them has come meanwhile.
func (n *Node) addInputs(ctx context.Context, inputs []Input) {
	for _, in := range inputs {
		if in.Size <= lazyOver || n.held.has(in.CID.Cid) {
			n.held.add(in.CID.Cid, in.Size)
		} else if whole, err := n.Files.Whole(ctx, in.CID.Cid); err == nil && whole {
			n.held.add(in.CID.Cid, in.Size)
		}
	}
}

// noteOutputs notes what a receipt names, all of which is here.
func (n *Node) noteOutputs(r *Receipt) {
	n.held.add(r.Stdout.CID.Cid, r.Stdout.Size)
	n.held.add(r.Stderr.CID.Cid, r.Stderr.Size)
	n.held.add(r.Out.Cid, r.OutSize)
}

// brought counts what a worker has waited for.
type brought struct {
	bytes atomic.Uint64
	time  atomic.Int64 // nanoseconds
}

func (b *brought) add(bytes int64, took time.Duration) {
	b.bytes.Add(uint64(bytes))
	b.time.Add(int64(took))
}

// take returns the counts and begins anew.
func (b *brought) take() (bytes uint64, took time.Duration) {
	return b.bytes.Swap(0), time.Duration(b.time.Swap(0))
}

// came counts what was brought from these sources, where the worker finds it that they are for.
func (s *sources) came(bytes int64, took time.Duration) {
	for s.above != nil {
		s = s.above
	}
	s.brought.add(bytes, took)
}

// reads reports whether the tasks of a plan have inputs.
func (p *plan) reads() bool { return p.rows != nil || p.told != nil }

// hint tells the scheduler what tasks of a plan read most of. What is here of an owner's own is noted on the way.
func (n *Node) hint(p *plan, spans ...Span) {
	if !p.reads() {
		return
	}
	for _, s := range spans {
		h := hinter{n: n, work: p.lease.Work(), lo: s.Lo}
		for i := s.Lo; i < s.Hi; i++ {
			row, err := p.row(n.ctx, i)
			if err != nil {
				n.log.Debug("no hints", "job", p.lease.Job, "stage", p.lease.Stage, "task", i, "err", err)
				break
			}
			if !h.add(row) {
				return
			}
		}
		h.flush()
	}
}

// hinter gathers hints of tasks one behind the other.
type hinter struct {
	n    *Node
	work Work
	lo   uint32
	list []Hint
	some bool // some of them are large
}

// add takes in the next task's inputs. It is false when the node is closing.
func (h *hinter) add(inputs []Input) bool {
	var most *Input
	for i := range inputs {
		if in := &inputs[i]; in.Size >= hintOver && in.CID.Defined() && (most == nil || in.Size > most.Size) {
			most = in
		}
	}
	if most == nil {
		h.list = append(h.list, Hint{})
	} else {
		h.list = append(h.list, Hint{Root: RootHash(most.CID.Cid), Size: uint64(most.Size)})
		h.some = true
		if here, err := h.n.Blocks.Has(h.n.ctx, most.CID.Cid); err == nil && here {
			h.n.held.add(most.CID.Cid, most.Size)
		}
	}
	return len(h.list) < hintBatch || h.flush()
}

func (h *hinter) flush() (open bool) {
	open = true
	if h.some {
		open = h.n.post(Hints{Work: h.work, Lo: h.lo, Inputs: h.list})
	}
	h.lo += uint32(len(h.list))
	h.list, h.some = nil, false
	return open
}

// prefetches is what is brought ahead of need.
type prefetches struct {
	mu      sync.Mutex
	queue   []Lease // the oldest first
	running []*prefetching
	spare   []*plan // of those that had nothing more to do: the next lease is usually of the same stage
}

type prefetching struct {
	job    JobID // whose inputs it brings at the moment
	cancel context.CancelFunc
	plan   *plan // of the last lease
}

// prefetch has the inputs of tasks brought, by and by. When there is too much to bring, what was asked for first is
// left to those who need it.
func (n *Node) prefetch(l Lease) {
	f := &n.prefetches
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.queue) == prefetchQueue {
		f.queue = slices.Delete(f.queue, 0, 1)
	}
	f.queue = append(f.queue, l)
	if len(f.running) < prefetchSlots {
		p := new(prefetching)
		if k := len(f.spare) - 1; k >= 0 {
			p.plan, f.spare = f.spare[k], f.spare[:k]
		}
		f.running = append(f.running, p)
		n.spawn(func() { n.prefetcher(p) })
	}
}

// stop ends what is brought for a job.
func (f *prefetches) stop(id JobID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queue = slices.DeleteFunc(f.queue, func(l Lease) bool { return l.Job == id })
	for _, p := range f.running {
		if p.job == id {
			p.cancel()
		}
	}
}

// next takes the next lease for p, which is done when there is none.
func (f *prefetches) next(ctx context.Context, p *prefetching) (context.Context, Lease, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.cancel != nil {
		p.cancel()
	}
	if len(f.queue) == 0 || ctx.Err() != nil {
		f.running = slices.DeleteFunc(f.running, func(o *prefetching) bool { return o == p })
		if p.plan != nil {
			f.spare = append(f.spare, p.plan)
		}
		return nil, Lease{}, false
	}
	l := f.queue[0]
	f.queue = slices.Delete(f.queue, 0, 1)
	ctx, p.cancel = context.WithTimeout(ctx, prefetchTime)
	p.job = l.Job
	return ctx, l, true
}

// prefetcher brings inputs as long as there is something to bring. What fails is left to those who need it.
func (n *Node) prefetcher(p *prefetching) {
	for {
		ctx, l, ok := n.prefetches.next(n.ctx, p)
		if !ok {
			return
		}
		if !p.plan.serves(l) {
			var err error
			if p.plan, err = n.planFor(ctx, l); err != nil {
				n.log.Debug("prefetch", "lease", l, "err", err)
				p.plan = nil
				continue
			}
		}
		if err := n.bringAhead(ctx, p.plan, l); err != nil {
			n.log.Debug("prefetch", "lease", l, "err", err)
		}
	}
}

// bringAhead brings the inputs of a lease's tasks that are not here, except for those that are read where they lie.
// If the lease is another node's, the scheduler is told of them, too, as they are being looked at.
func (n *Node) bringAhead(ctx context.Context, p *plan, l Lease) error {
	if !p.reads() {
		return nil
	}
	p.expect(l.Span)
	h := hinter{n: n, work: l.Work(), lo: l.Lo}
	var roots []Input
	var size int64
	fetch := func() error {
		defer func() { roots = nil }()
		want := make([]cid.Cid, len(roots))
		for i, in := range roots {
			want[i] = in.CID.Cid
		}
		defer n.Hold(want...)()
		if err := n.bring(ctx, want, nil, p.from); err != nil {
			return err
		}
		for _, in := range roots {
			n.held.add(in.CID.Cid, in.Size)
		}
		return nil
	}
	for i := l.Lo; i < l.Hi; i++ {
		t, err := p.task(ctx, i)
		if err != nil {
			return err
		}
		if l.Owner != n.self && !h.add(t.Inputs) {
			return errClosing
		}
		for _, in := range t.Inputs {
			if in.Size < 0 || in.Size > lazyOver || size+in.Size > prefetchBytes {
				continue
			}
			if here, err := n.Blocks.Has(ctx, in.CID.Cid); err != nil || here {
				continue
			}
			size += in.Size
			if roots = append(roots, in); len(roots) >= prefetchBatch {
				if err := fetch(); err != nil {
					return err
				}
			}
		}
	}
	h.flush()
	return fetch()
}
