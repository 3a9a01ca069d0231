package exchange

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/semaphore"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/dag"
)

const (
	batchBytes     = 2 << 20                // blocks are stored so many bytes, or
	batchBlocks    = 256                    // so many blocks at a time
	transferMemory = 16 << 20               // of blocks between the network and the disk
	maxWasted      = 256 << 10              // bytes that a node sends in vain before it is asked to stop, or
	maxWastedItems = 32                     // so many blocks
	mostWasted     = 32 << 20               // bytes: more is not under way when it hears that
	tick           = 100 * time.Millisecond // between looks at who is slow
)

// node is a CID as a transfer sees it. Those that are wanted stand in a list, in the order in which a server
// would send them.
type node struct {
	cid        cid.Cid
	here       bool
	denied     uint32  // who does not have it: bits of providers
	asked      [2]*job // that name it in modeBlocks and have not answered; the second one near the end only
	last       *job    // that sent it
	next, prev *node
}

// free reports whether nobody is asked for it by name.
func (n *node) free() bool { return n.asked[0] == nil && n.asked[1] == nil }

// transfer brings what is missing below some roots. It belongs to one goroutine; jobs and the disk have
// goroutines of their own, which tell it of what they did.
type transfer struct {
	x      *Exchange
	f      *flight
	ctx    context.Context // of the jobs
	mode   mode
	events chan event
	memory *semaphore.Weighted

	nodes map[cid.Cid]*node // everything reachable from the roots, as far as it is known
	known *node             // stands in nodes for all that was here before
	want  node              // head of the list of what is wanted, a ring
	left  int               // how many are
	free  int               // how many of those nobody is asked for by name
	got   int               // how many blocks have come
	bytes int64             // of those

	// See plan.go.
	providers []*provider
	jobs      []*job // that are under way
	walker    *job   // the one in modeDAG, if any
	news      int    // changes when there may be something to ask for again
	doubt     int    // changes when something may have become an orphan
	doubted   int    // doubt, when that was looked at last
	orphaned  bool   // and what was seen then
	sources   sources

	batch  []arrival // come, not yet given to the disk
	size   int       // of batch, bytes
	disk   chan []arrival
	stored sync.WaitGroup // the disk's goroutines
	broken chan error     // why the disk fails
	fault  error          // ours: no other node can help
}

func (x *Exchange) newTransfer(f *flight) *transfer {
	t := &transfer{x: x, f: f, mode: f.mode, nodes: map[cid.Cid]*node{}, known: &node{here: true}, doubt: 1}
	t.want.next, t.want.prev = &t.want, &t.want
	return t
}

// transfer carries out a flight and returns an error for each root that was not completed.
func (x *Exchange) transfer(ctx context.Context, f *flight) map[cid.Cid]error {
	t := x.newTransfer(f)
	t.survey(ctx, t.want.prev, f.roots...)
	if t.left > 0 && t.fault == nil {
		t.run(ctx)
	}
	if t.fault != nil && len(f.roots) > 1 && ctx.Err() == nil { // one bad root is not to spoil the others
		failed := map[cid.Cid]error{}
		for _, c := range f.roots {
			alone := x.transfer(ctx, &flight{mode: f.mode, roots: []cid.Cid{c}, from: x.hints(f), limit: x.allowed(f)})
			if err := alone[c]; err != nil {
				failed[c] = err
			}
		}
		return failed
	}
	return t.verdict(ctx)
}

// run asks nodes until everything has come or nobody is left.
func (t *transfer) run(ctx context.Context) {
	var cancel context.CancelFunc
	t.ctx, cancel = context.WithCancel(ctx)
	t.events = make(chan event, 4)
	t.memory = semaphore.NewWeighted(transferMemory)
	t.broken = make(chan error, 1)
	t.sources = sources{found: make(chan found, 2), seen: map[peer.ID]struct{}{t.x.net.Self(): {}}}
	timer := time.NewTicker(tick)
	for t.left > 0 && t.fault == nil && ctx.Err() == nil {
		t.plan()
		if len(t.jobs) == 0 && !t.waiting() {
			break
		}
		select {
		case e := <-t.events:
			t.heard(e)
		case f := <-t.sources.found:
			t.sources.take(f)
		case t.fault = <-t.broken:
		case <-timer.C:
			t.news++ // somebody may be slow now
		case <-ctx.Done():
		}
	}
	timer.Stop()
	cancel()
	for len(t.jobs) > 0 { // what is under way is told of, and the end
		if e := <-t.events; e.parcel == nil {
			t.ended(e.job, e.err)
		}
	}
	t.sources.wg.Wait()
	t.finish(ctx)
	t.remember()
}

// heard takes in what a job tells.
func (t *transfer) heard(e event) {
	if e.parcel == nil {
		t.ended(e.job, e.err)
		return
	}
	for i := range e.parcel.frames {
		a := &e.parcel.frames[i]
		if e.job.err == nil && t.fault == nil {
			if err := t.take(e.job, a); err != nil {
				e.job.err = err
				e.job.cancel()
			}
		}
		t.drop(a)
	}
}

// drop gives back the memory of what was not kept.
func (t *transfer) drop(a *arrival) {
	if a.held > 0 {
		t.memory.Release(a.held)
		freeBuffer(a.data)
		*a = arrival{}
	}
}

// take takes in one frame. The error is what is wrong with the node that sent it.
func (t *transfer) take(j *job, a *arrival) error {
	switch a.typ {
	case frameRefused:
		j.refused = true
		return a.err
	case frameEnd:
		return nil
	}
	n := t.nodes[a.cid]
	_, named := j.named[n]
	if n == nil || j.mode == modeBlocks && !named {
		if a.typ == frameMissing {
			return grid.Errorf(grid.Invalid, "it says that %s is missing, which was not asked for", a.cid)
		}
		return grid.Errorf(grid.Invalid, "it sent block %s, which was not asked for", a.cid)
	}
	_, told := j.told[a.cid]
	if a.typ == frameMissing {
		if told {
			return grid.Errorf(grid.Invalid, "it says that %s is missing, which was not asked for again", a.cid)
		}
		j.told[a.cid] = struct{}{}
		t.answered(j, n)
		if !n.here { // it may lack what is here
			n.denied |= j.p.bit
			j.p.denied++
			t.news++
			t.doubt++
		}
		return nil
	}
	if told || n.last == j {
		return grid.Errorf(grid.Invalid, "it sent block %s twice", a.cid)
	}
	if a.bad != nil {
		return grid.Errorf(grid.CodeOf(a.bad), "it sent a bad block: %w", a.bad)
	}
	t.answered(j, n)
	j.bytes += len(a.data)
	if n.here {
		j.told[a.cid] = struct{}{}
		j.wasted += len(a.data)
		j.vain++
		t.x.stats.wasted.Add(1)
		switch {
		case j.wasted > mostWasted:
			return grid.Errorf(grid.Invalid, "it goes on to send what is here already")
		case j.mode == modeDAG && !j.p.picks && (j.wasted > maxWasted || j.vain > maxWastedItems):
			j.p.picks = true
			t.stop(j)
		}
		return nil
	}
	t.arrived(j, n, a)
	return nil
}

// answered notes that a node needs to say no more of a block.
func (t *transfer) answered(j *job, n *node) {
	if _, ok := j.named[n]; !ok {
		return
	}
	delete(j.named, n)
	if j.mode == modeBlocks {
		t.unassign(n, j)
	}
}

// assign and unassign keep the account of who is asked for a block by name.
func (t *transfer) assign(n *node, j *job) {
	switch {
	case n.free():
		t.free--
		n.asked[0] = j
		if w := t.walker; w != nil && n.denied&w.p.bit == 0 {
			w.contested++
		}
	case n.asked[0] == nil:
		n.asked[0] = j
	default:
		n.asked[1] = j
	}
	j.open++
}

func (t *transfer) unassign(n *node, j *job) {
	for i := range n.asked {
		if n.asked[i] == j {
			n.asked[i] = nil
		}
	}
	if !n.here {
		j.open--
		if n.free() {
			t.free++
			t.news++
			t.doubt++
		}
	}
}

// arrived takes in a wanted block.
func (t *transfer) arrived(j *job, n *node, a *arrival) {
	if n.free() {
		t.free--
	}
	for _, other := range n.asked {
		if other == nil {
			continue
		}
		if other.open--; other.open == 0 { // what it was asked for has come from others
			other.overtaken = true
			other.cancel()
		}
	}
	n.here, n.last = true, j
	t.left--
	t.got++
	j.p.sent++
	t.bytes += int64(len(a.data))
	before := n.prev
	n.prev.next, n.next.prev = n.next, n.prev
	n.next, n.prev = nil, nil
	if limit := t.x.allowed(t.f); limit > 0 && t.bytes > limit {
		t.fault = grid.Errorf(grid.Limit, "it has more than the %d bytes that are allowed", limit)
		return
	}
	t.size += len(a.data)
	links, err := a.links, a.loose
	t.batch = append(t.batch, *a)
	*a = arrival{} // it is the batch's now
	if t.size >= batchBytes || len(t.batch) >= batchBlocks {
		t.flush()
	}
	if err != nil { // the DAG itself is at fault
		t.fault = err
	} else {
		t.survey(t.ctx, before, links...)
	}
}

// flush gives the disk's goroutines what has come. There are two, for a store makes one writer wait for an
// fsync now and then, while others go on.
func (t *transfer) flush() {
	if t.disk == nil {
		t.disk = make(chan []arrival)
		for range 2 {
			t.stored.Go(func() {
				for batch := range t.disk {
					if err := t.store(batch); err != nil {
						select {
						case t.broken <- err:
						default:
						}
					}
				}
			})
		}
	}
	t.disk <- t.batch
	t.batch, t.size = nil, 0
}

// store puts blocks. What has come is kept even if nobody waits for it any more.
func (t *transfer) store(batch []arrival) error {
	blocks := make([]grid.Block, len(batch))
	size := 0
	for i := range batch {
		blocks[i] = batch[i].block
		size += len(batch[i].data)
	}
	err := t.x.blocks.Put(context.WithoutCancel(t.ctx), blocks...)
	if err == nil {
		t.x.stats.blocksIn.Add(uint64(len(batch)))
		t.x.stats.bytesIn.Add(uint64(size))
	}
	for i := range batch {
		t.drop(&batch[i])
	}
	return err
}

// finish waits until everything that came is stored.
func (t *transfer) finish(ctx context.Context) {
	var err error
	if len(t.batch) > 0 && t.disk == nil {
		err = t.store(t.batch)
	} else if len(t.batch) > 0 {
		t.flush()
	}
	if t.disk != nil {
		close(t.disk)
		t.stored.Wait()
		select {
		case err = <-t.broken:
		default:
		}
	}
	if err != nil && t.fault == nil {
		t.fault = err
	}
}

// verdict finds for each root what is still missing below it.
func (t *transfer) verdict(ctx context.Context) map[cid.Cid]error {
	failed := map[cid.Cid]error{}
	if t.left == 0 && t.fault == nil {
		return failed
	}
	asked, absent := t.asked()
	for _, root := range t.f.roots {
		fail := func(code grid.Code, format string, args ...any) *grid.Error {
			err := grid.Errorf(code, "store: fetch %s: "+format, append([]any{root}, args...)...)
			failed[root] = err
			return err
		}
		if err := ctx.Err(); err != nil {
			fail(grid.CodeOf(err), "%w", err)
			continue
		}
		again := t.x.newTransfer(t.f)
		again.survey(ctx, again.want.prev, root)
		first := again.want.next.cid
		var rotten error // what is here of the block
		if again.left > 0 {
			_, rotten = t.x.blocks.Get(ctx, first)
		}
		switch {
		case again.left > 0 && t.fault != nil:
			fail(codeOf(t.fault), "%w", t.fault)
		case again.fault != nil:
			fail(codeOf(again.fault), "%w", again.fault)
		case again.left == 0:
		case errors.Is(rotten, grid.Corrupt):
			others := "no other node is connected that could be asked"
			if len(asked) > 0 {
				others = "asked " + strings.Join(asked, "; ")
			}
			fail(grid.Corrupt, "%w; %s", rotten, others).Hint("connect to a node that has it, or add the data again")
		case len(asked) == 0:
			fail(grid.Unavailable, "block %s is not here, and no other node is connected that could be asked", first).
				Hint("connect to a node that has it")
		case absent:
			fail(grid.NotFound, "block %s could not be had; asked %s", first, strings.Join(asked, "; ")).
				Hint("connect to a node that has it, or add the data again")
		default:
			fail(grid.Unavailable, "block %s could not be had; asked %s", first, strings.Join(asked, "; ")).
				Hint("try again later")
		}
	}
	return failed
}

// asked tells who was asked and what came of it, and whether nobody had anything worse to say than that
// it lacks something.
func (t *transfer) asked() (list []string, absent bool) {
	absent = true
	for _, p := range t.providers {
		if p.gone != nil {
			list = append(list, fmt.Sprintf("%s: %v", p.id, p.gone))
			absent = absent && errors.Is(p.gone, grid.NotFound)
		} else {
			list = append(list, fmt.Sprintf("%s: it does not have %d of the blocks", p.id, p.denied))
		}
	}
	return list, absent
}

// survey walks from the given CIDs through what is here and notes what is not, in the list behind after.
func (t *transfer) survey(ctx context.Context, after *node, cids ...cid.Cid) {
	var stack []cid.Cid
	push := func(cids []cid.Cid) {
		for i := len(cids) - 1; i >= 0; i-- {
			if t.nodes[cids[i]] == nil {
				stack = append(stack, cids[i])
			}
		}
	}
	for push(cids); len(stack) > 0 && t.fault == nil; {
		c := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if t.nodes[c] != nil {
			continue
		}
		if len(t.nodes) >= maxVisited || len(stack) > maxVisited {
			t.fault = grid.Errorf(grid.Limit, "more than %d blocks below the roots", maxVisited)
			return
		}
		links, here, err := t.look(ctx, c)
		switch {
		case err != nil:
			t.fault = err
		case here:
			t.nodes[c] = t.known
			push(links)
		default:
			n := &node{cid: c, prev: after, next: after.next}
			n.prev.next, n.next.prev = n, n
			after = n
			t.nodes[c] = n
			t.left++
			t.free++
			t.news++
			t.doubt++
		}
	}
}

// look reports whether a block is here, and its links.
func (t *transfer) look(ctx context.Context, c cid.Cid) (links []cid.Cid, here bool, err error) {
	return dag.Look(ctx, t.x.blocks, c, t.mode == modeBlocks, t.x.log)
}
