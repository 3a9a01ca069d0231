package erasure

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"github.com/wasmgrid/wasmgrid/grid"
)

// What is asked of fetch at a time, at most: enough to hide a round trip, even of small blocks.
const (
	batchBlocks = 1 << 10
	batchBytes  = 16 << 20
)

// Rebuild brings the wanted blocks of a coded DAG into blocks: parts of the manifest are written anew, what
// can be fetched is fetched, index blocks always, and the rest is calculated from K other blocks of its
// group. Those that are here are used first, and of others no more are fetched than are needed. What is
// here already, and in order, is left alone; a damaged block that would be of use is deleted, and counts as
// missing.
//
// have reports whether a block can be fetched, as far as the caller knows. fetch brings as many as it can of up to
// 1,024 blocks into blocks, whatever its error; a block that is not there afterwards is not asked for again, and
// others are used instead. Both may be called concurrently; fetch may be nil when everything needed is here. What
// was fetched stays: it is the caller's to delete.
//
// When some blocks cannot be had the others still are. The error is Unavailable when too few blocks of a
// group are left, and tells which are missing; Corrupt when the manifest is wrong about a group; Invalid when
// a block is wanted that the manifest does not list. On every error what is stored is right.
func Rebuild(ctx context.Context, m *Manifest, have func(cid.Cid) bool, fetch func(context.Context, []cid.Cid) error, blocks grid.Blocks, want []cid.Cid) error {
	if have == nil || fetch == nil {
		have = func(cid.Cid) bool { return false }
	}
	rs, err := m.params.coder()
	if err == nil {
		r := &rebuilder{m: m, rs: rs, have: have, fetch: fetch, blocks: blocks}
		err = r.run(ctx, want)
	}
	if err != nil {
		return grid.Errorf(codeOf(err), "store: rebuild %s: %w", m.root, err)
	}
	return nil
}

type rebuilder struct {
	m      *Manifest
	rs     *coder
	have   func(cid.Cid) bool
	fetch  func(context.Context, []cid.Cid) error
	blocks grid.Blocks

	mu     sync.Mutex
	failed error // the first block or group that could not be had
	more   int   // others
}

// job is a group and those of its blocks that are wanted.
type job struct {
	group int
	want  []int
}

func (r *rebuilder) run(ctx context.Context, want []cid.Cid) error {
	need := make(map[digest]cid.Cid, len(want))
	for _, c := range want {
		if err := grid.CheckCID(c); err != nil {
			return err
		}
		if _, dup := need[digestOf(c)]; dup {
			continue
		}
		ok, err := r.good(ctx, c)
		if err != nil {
			return err
		}
		if !ok {
			need[digestOf(c)] = c
		}
	}
	wanted := func(d digest) bool { // each is found once
		_, ok := need[d]
		delete(need, d)
		return ok
	}

	records := false
	var copies []entry
	for _, e := range r.m.records {
		records = wanted(digestOf(e.cid)) || records
	}
	for _, e := range r.m.index {
		if wanted(digestOf(e.cid)) {
			copies = append(copies, e)
		}
	}
	coded := len(need)
	jobs := r.jobs(wanted)
	for _, c := range need {
		return grid.Errorf(grid.Invalid, "block %s is not in its manifest %s", c, r.m.CID())
	}

	if records {
		if err := r.m.write(ctx, r.blocks); err != nil {
			return err
		}
	}
	// Fetching a block itself is the least work, where it can be had.
	for _, j := range jobs {
		for _, i := range j.want {
			if e, _ := r.m.block(j.group, i); r.have(e.cid) {
				copies = append(copies, e)
			}
		}
	}
	if err := r.copy(ctx, copies); err != nil {
		return err
	}
	if coded > 0 {
		if err := r.decodeAll(ctx, jobs); err != nil {
			return err
		}
	}
	if r.more > 0 {
		return grid.Errorf(codeOf(r.failed), "%w, and %d more groups or blocks cannot be had either", r.failed, r.more)
	}
	return r.failed
}

// write stores the blocks of a manifest again.
func (m *Manifest) write(ctx context.Context, blocks grid.Blocks) error {
	again := *m
	return again.encode(func(b grid.Block) error { return blocks.Put(ctx, b) })
}

// jobs finds the blocks of groups that are wanted.
func (r *rebuilder) jobs(wanted func(digest) bool) (jobs []job) {
	p := r.m.params
	for g := range r.m.Groups() {
		var want []int
		for i, e := range r.m.group(g) {
			if wanted(digestOf(e.cid)) {
				want = append(want, i)
			}
		}
		for i, d := range r.m.parity[g*p.M : (g+1)*p.M] {
			if wanted(d) {
				want = append(want, p.K+i)
			}
		}
		if want != nil {
			jobs = append(jobs, job{g, want})
		}
	}
	return jobs
}

// good reports whether a block is here and in order. One that is damaged is deleted.
func (r *rebuilder) good(ctx context.Context, c cid.Cid) (bool, error) {
	data, err := r.get(ctx, c)
	return data != nil, err
}

// get is a block's data, nil when it is not here or was damaged, in which case it is deleted.
func (r *rebuilder) get(ctx context.Context, c cid.Cid) ([]byte, error) {
	data, err := r.blocks.Get(ctx, c)
	switch {
	case err == nil && data == nil:
		return []byte{}, nil
	case err == nil:
		return data, nil
	case errors.Is(err, grid.NotFound):
		return nil, ctx.Err()
	case errors.Is(err, grid.Corrupt):
		return nil, r.blocks.Delete(ctx, c)
	}
	return nil, err
}

// fail notes that something could not be had.
func (r *rebuilder) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		r.failed = err
	} else {
		r.more++
	}
}

// bring fetches blocks. Its error is why some may not have come; only the end of ctx ends everything.
func (r *rebuilder) bring(ctx context.Context, cs []cid.Cid) (why, err error) {
	if len(cs) == 0 {
		return nil, nil
	}
	why = r.fetch(ctx, cs)
	return why, ctx.Err()
}

// copy fetches blocks themselves. It fails for those of the index only: others can be calculated.
func (r *rebuilder) copy(ctx context.Context, es []entry) error {
	index := make(map[cid.Cid]bool, len(r.m.index))
	for _, e := range r.m.index {
		index[e.cid] = true
	}
	for len(es) > 0 {
		n, size := 0, 0
		var ask []cid.Cid
		for n < len(es) && n < batchBlocks && size < batchBytes {
			if r.have(es[n].cid) {
				ask = append(ask, es[n].cid)
			}
			size += int(es[n].size)
			n++
		}
		why, err := r.bring(ctx, ask)
		if err != nil {
			return err
		}
		for _, e := range es[:n] {
			if !index[e.cid] {
				continue
			}
			if ok, err := r.good(ctx, e.cid); err != nil {
				return err
			} else if !ok {
				r.fail(unavailable(why, "index block %s has no copy left", e.cid).
					Hint("bring back a node that keeps a column of it"))
			}
		}
		es = es[n:]
	}
	return nil
}

func unavailable(why error, format string, args ...any) *grid.Error {
	if why != nil {
		return grid.Errorf(grid.Unavailable, format+": %w", append(args, why)...)
	}
	return grid.Errorf(grid.Unavailable, format, args...)
}

// decodeAll works on the jobs, batch by batch, on all cores.
func (r *rebuilder) decodeAll(ctx context.Context, jobs []job) error {
	var batches [][]job
	p := r.m.params
	for rest := jobs; len(rest) > 0; {
		end, size := 0, 0
		for end < len(rest) && (end+1)*p.K <= batchBlocks && size < batchBytes {
			size += p.K * int(r.m.longest[rest[end].group])
			end++
		}
		batches = append(batches, rest[:end])
		rest = rest[end:]
	}
	var next atomic.Int64
	work, ctx := errgroup.WithContext(ctx)
	for range min(workers(p.M+1), len(batches)) {
		work.Go(func() error {
			var bufs [MaxColumns][]byte
			for i := int(next.Add(1)) - 1; i < len(batches); i = int(next.Add(1)) - 1 {
				if err := r.batch(ctx, batches[i], &bufs); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return work.Wait()
}

// state is where a block of a group can be had.
type state uint8

const (
	gone   state = iota // nowhere
	remote              // by fetching
	here
)

// attempt is a job being done.
type attempt struct {
	job
	size  int               // of its longest block
	state [MaxColumns]state // of its blocks
	asked [MaxColumns]bool  // blocks that have been fetched, or should have been
	why   error             // why fetching failed last
}

// batch does some jobs, fetching for all of them at once first.
func (r *rebuilder) batch(ctx context.Context, jobs []job, bufs *[MaxColumns][]byte) error {
	var todo []*attempt
	var ask []cid.Cid
	for _, j := range jobs {
		a, err := r.look(ctx, j)
		if err != nil {
			return err
		}
		if a == nil {
			continue
		}
		todo = append(todo, a)
		from, err := r.plan(a)
		if err != nil {
			continue // it is told below
		}
		ask = append(ask, r.toFetch(a, from)...)
	}
	why, err := r.bring(ctx, ask)
	if err != nil {
		return err
	}
	for _, a := range todo {
		a.why = why
		if err := r.arrived(ctx, a); err != nil {
			return err
		}
		for done := false; !done; {
			from, err := r.plan(a)
			if err != nil {
				r.fail(err)
				break
			}
			// Most often nothing is left to fetch.
			if ask := r.toFetch(a, from); len(ask) > 0 {
				if a.why, err = r.bring(ctx, ask); err == nil {
					err = r.arrived(ctx, a)
				}
			} else {
				done, err = r.decode(ctx, a, from, bufs)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// look finds out where the blocks of a group are; it is nil when those wanted have come by now.
func (r *rebuilder) look(ctx context.Context, j job) (*attempt, error) {
	a := &attempt{size: int(r.m.longest[j.group])}
	a.group = j.group
	for _, i := range j.want {
		e, _ := r.m.block(j.group, i)
		if ok, err := r.good(ctx, e.cid); err != nil {
			return nil, err
		} else if !ok {
			a.want = append(a.want, i)
		}
	}
	if a.want == nil {
		return nil, nil
	}
	for i := range r.m.params.Columns() {
		e, ok := r.m.block(j.group, i)
		if !ok || slices.Contains(a.want, i) {
			continue
		}
		ok, err := r.blocks.Has(ctx, e.cid)
		if err != nil {
			return nil, err
		}
		switch {
		case ok:
			a.state[i] = here
		case r.have(e.cid):
			a.state[i] = remote
		}
	}
	return a, nil
}

// plan picks the blocks to calculate from, those that are here first.
func (r *rebuilder) plan(a *attempt) (from []int, err error) {
	need := len(r.m.group(a.group))
	for _, s := range []state{here, remote} {
		for i := range r.m.params.Columns() {
			if a.state[i] == s && len(from) < need {
				from = append(from, i)
			}
		}
	}
	if len(from) == need {
		return from, nil
	}
	var missing []string
	for i := range r.m.params.Columns() {
		if s, ok := r.m.shard(a.group, i); ok && a.state[i] == gone {
			missing = append(missing, fmt.Sprintf("%s %s of column %d", s.Kind, s.CID, s.Column))
		}
	}
	return nil, unavailable(a.why, "group %d needs %d of its blocks and has %d; missing are %s",
		a.group, need, len(from), strings.Join(missing, ", ")).
		Hint("bring back nodes that keep these columns, or add the data again")
}

// toFetch lists those to calculate from that are not here, and notes that they are asked for.
func (r *rebuilder) toFetch(a *attempt, from []int) (ask []cid.Cid) {
	for _, i := range from {
		if a.state[i] == remote {
			a.asked[i] = true
			e, _ := r.m.block(a.group, i)
			ask = append(ask, e.cid)
		}
	}
	return ask
}

// arrived looks what has come of that which was asked for.
func (r *rebuilder) arrived(ctx context.Context, a *attempt) error {
	for i := range a.state {
		if a.state[i] != remote || !a.asked[i] {
			continue
		}
		e, _ := r.m.block(a.group, i)
		ok, err := r.blocks.Has(ctx, e.cid)
		if err != nil {
			return err
		}
		a.state[i] = gone
		if ok {
			a.state[i] = here
		}
	}
	return nil
}

// decode calculates what is wanted, verifies and stores it. It is not done when a block turned out to be
// damaged or gone; that is noted.
func (r *rebuilder) decode(ctx context.Context, a *attempt, from []int, bufs *[MaxColumns][]byte) (done bool, err error) {
	p := r.m.params
	mask := make([]bool, p.Columns())
	for i := len(r.m.group(a.group)); i < p.K; i++ {
		mask[i] = true // an incomplete group: zeros, which are kept nowhere
	}
	for _, i := range from {
		mask[i] = true
	}
	sums := make([][]byte, p.Columns())
	for n, i := range a.want {
		if cap(bufs[n]) < a.size {
			bufs[n] = make([]byte, a.size)
		}
		sums[i] = bufs[n][:a.size]
		clear(sums[i])
	}
	for _, i := range from {
		e, _ := r.m.block(a.group, i)
		data, err := r.get(ctx, e.cid)
		if err != nil {
			return false, err
		}
		if data == nil {
			a.state[i] = gone
			if !a.asked[i] && r.have(e.cid) {
				a.state[i] = remote
			}
			return false, nil
		}
		if len(data) != int(e.size) {
			r.fail(grid.Errorf(grid.Corrupt, "manifest %s is wrong: block %s of group %d has %d bytes, not %d",
				r.m.CID(), e.cid, a.group, len(data), e.size))
			return true, nil
		}
		if err := r.rs.decode(data, i, mask, sums); err != nil {
			return false, grid.Errorf(grid.Internal, "group %d: %w", a.group, err)
		}
	}
	put := make([]grid.Block, 0, len(a.want))
	for _, i := range a.want {
		e, _ := r.m.block(a.group, i)
		b, err := grid.VerifyBlock(e.cid, sums[i][:e.size])
		if err != nil {
			r.fail(grid.Errorf(grid.Corrupt, "manifest %s is wrong: what its group %d gives is not %s",
				r.m.CID(), a.group, e.cid).Hint("code the DAG again where all of it is"))
			continue
		}
		put = append(put, b)
	}
	return true, r.blocks.Put(ctx, put...)
}
