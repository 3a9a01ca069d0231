package keep

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/block"
	"github.com/wasmgrid/wasmgrid/store/dag"
)

const (
	sweepBatch = 128 // blocks deleted in one step, while nobody can hold others
	sweepSync  = 128 // steps between waits for the disk
	sparse     = 70  // percent of a segment that is live, below which it is compacted
	dense      = 95  // percent from which on it never is
)

// Plan says what to collect.
type Plan struct {
	// Goal is how many bytes of segments may be left: no more is deleted than that takes, least recently used
	// first. 0: all that nothing keeps is deleted, and the segments in which little is left are compacted.
	Goal   int64
	Spare  block.Position // what lies here or behind stays, too; zero: no matter
	DryRun bool           // only count
}

// marks is what is to be kept.
type marks struct {
	blocks map[uint64]struct{}
	nodes  map[cid.Cid]struct{} // of these, the ones whose links were followed
	each   func(cid.Cid)        // when not nil, is shown every CID that is met
}

func newMarks() *marks {
	return &marks{blocks: map[uint64]struct{}{}, nodes: map[cid.Cid]struct{}{}}
}

func (m *marks) has(h uint64) bool {
	_, ok := m.blocks[h]
	return ok
}

// mark marks what is here below some roots. heal is called for a node that is damaged, and its error ends the
// walk; where it is nil, what lies below damaged ones is passed over.
func (k *Keeper) mark(ctx context.Context, m *marks, roots []cid.Cid, heal func(cid.Cid) error) error {
	var stack []cid.Cid
	meet := func(c cid.Cid) {
		if grid.CheckCID(c) != nil {
			return // it cannot be here
		}
		if m.each != nil {
			m.each(c)
		}
		m.blocks[hash(c.Hash())] = struct{}{}
		if _, ok := m.nodes[c]; !ok && c.Prefix().Codec != cid.Raw {
			stack = append(stack, c)
		}
	}
	for _, root := range roots {
		for meet(root); len(stack) > 0; {
			c := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if _, ok := m.nodes[c]; ok {
				continue
			}
			data, err := k.blocks.Get(ctx, c)
			damaged := isCode(err, grid.Corrupt) && ctx.Err() == nil
			if damaged && heal != nil {
				if err := heal(c); err != nil {
					return err
				}
				data, err = k.blocks.Get(ctx, c)
			}
			switch {
			case isCode(err, grid.NotFound), damaged && heal == nil:
				continue
			case err != nil:
				return err
			}
			m.nodes[c] = struct{}{}
			links, err := dag.Links(c, data)
			if err != nil {
				continue // it is kept as it is; nobody can follow it anywhere
			}
			for _, l := range links {
				meet(l)
			}
		}
	}
	return ctx.Err()
}

// rootsOf lists the roots of duties and of holds.
func (k *Keeper) rootsOf(ctx context.Context, d *Duties) (roots []cid.Cid, err error) {
	k.mu.RLock()
	for _, held := range k.roots {
		roots = append(roots, held...)
	}
	k.mu.RUnlock()
	if err := d.Roots(ctx, func(c cid.Cid) { roots = append(roots, c) }); err != nil {
		return nil, grid.Errorf(codeOf(err), "store: what is to be kept: %w", err)
	}
	return roots, nil
}

func codeOf(err error) grid.Code {
	if c := grid.CodeOf(err); c != grid.Unknown {
		return c
	}
	return grid.Internal
}

// sweep is one collection.
type sweep struct {
	k     *Keeper
	d     *Duties
	plan  Plan
	marks *marks
	limit block.Position // records here or behind are younger than the oldest hold, or than this collection
	done  grid.Collected
}

// Collect deletes blocks that nothing keeps; see the package's documentation. One call is carried out at a
// time. What was done before an error is told along with it.
func (k *Keeper) Collect(ctx context.Context, p Plan) (grid.Collected, error) {
	select {
	case k.one <- struct{}{}:
		defer func() { <-k.one }()
	case <-ctx.Done():
		return grid.Collected{}, context.Cause(ctx)
	}
	d, ctx, cancel, err := k.onDuty(ctx)
	if err != nil {
		return grid.Collected{}, err
	}
	defer cancel()
	began, disk := time.Now(), k.used()
	s := &sweep{k: k, d: d, plan: p, marks: newMarks(), done: grid.Collected{DryRun: p.DryRun}}

	k.mu.Lock()
	if k.holds.Len() == 0 {
		k.notes, k.older = nil, nil
	}
	k.collecting, k.unmarked = true, map[cid.Cid]struct{}{}
	own := k.begin()
	s.limit = k.holds.Front().Value.(*hold).from
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.collecting, k.unmarked = false, nil
		k.end(own)
	}()

	err = s.run(ctx)
	s.done.Took, s.done.Reclaimed = time.Since(began), disk-k.used()
	return s.done, err
}

func (s *sweep) run(ctx context.Context) error {
	roots, err := s.k.rootsOf(ctx, s.d)
	if err != nil {
		return err
	}
	if err := s.mark(ctx, roots); err != nil {
		return err
	}
	quota, err := s.share(ctx)
	if err != nil || s.plan.DryRun {
		return err
	}
	if err := s.sweep(ctx, quota); err != nil {
		return err
	}
	return s.compact(ctx)
}

func (s *sweep) mark(ctx context.Context, roots []cid.Cid) error {
	return s.k.mark(ctx, s.marks, roots, func(c cid.Cid) error {
		if err := s.k.heal(ctx, s.d, c); err != nil {
			return grid.Errorf(grid.Corrupt, "store: %s, which leads to data that must stay, is damaged and cannot be had from elsewhere: %w", c, err).
				Hint("connect to a node that has it, or add the data again; `grid store verify` lists all that is damaged")
		}
		return nil
	})
}

// kept reports whether a block must stay. The caller holds mu.
func (s *sweep) kept(e block.Entry, h uint64) bool {
	return s.marks.has(h) || !e.At.Before(s.limit) || s.plan.Spare != (block.Position{}) && !e.At.Before(s.plan.Spare) || s.k.needed(h)
}

// share is how many bytes are to be deleted from a segment: of blocks not used lately, and of others.
type share struct{ cold, warm int64 }

// share counts what there is and divides among the segments what is to be deleted.
func (s *sweep) share(ctx context.Context) (map[uint32]*share, error) {
	garbage := map[uint32]*share{}
	usage, err := s.k.segments.Usage(ctx, func(e block.Entry) error {
		h := hash(e.Key)
		s.k.mu.RLock()
		kept := s.kept(e, h)
		s.k.mu.RUnlock()
		if kept {
			s.done.Kept++
			s.done.KeptBytes += uint64(e.Size())
			return nil
		}
		g := garbage[e.At.Segment]
		if g == nil {
			g = new(share)
			garbage[e.At.Segment] = g
		}
		if s.k.recent.has(h) {
			g.warm += e.Size()
		} else {
			g.cold += e.Size()
		}
		if s.plan.DryRun && s.plan.Goal == 0 {
			s.done.Deleted++
			s.done.DeletedBytes += uint64(e.Size())
		}
		return nil
	})
	s.k.pinned.Store(int64(s.done.KeptBytes))
	if err != nil || s.plan.Goal == 0 {
		return garbage, err
	}
	excess := int64(0) // what must go, so that not every hole has to be compacted away
	for _, u := range usage {
		excess += u.Live
	}
	excess -= s.plan.Goal / 16 * 15
	for _, of := range []func(*share) *int64{
		func(g *share) *int64 { return &g.cold },
		func(g *share) *int64 { return &g.warm },
	} {
		for _, u := range usage { // oldest first
			if g := garbage[u.Segment]; g != nil {
				n := of(g)
				*n = min(*n, max(excess, 0))
				excess -= *n
			}
		}
	}
	return garbage, nil
}

// sweep deletes what is not kept, as far as the shares allow.
func (s *sweep) sweep(ctx context.Context, shares map[uint32]*share) error {
	var batch []block.Entry
	steps := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := s.delete(ctx, batch)
		batch = batch[:0]
		if steps++; err == nil && steps%sweepSync == 0 {
			err = s.k.blocks.Sync(ctx)
		}
		return err
	}
	err := s.k.segments.Scan(ctx, func(e block.Entry) error {
		g, h := shares[e.At.Segment], hash(e.Key)
		if g == nil || s.marks.has(h) {
			return nil
		}
		left := &g.cold
		if s.k.recent.has(h) {
			left = &g.warm
		}
		if s.plan.Goal > 0 {
			if *left <= 0 {
				return nil
			}
			*left -= e.Size()
		}
		if batch = append(batch, e); len(batch) < sweepBatch {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

// delete deletes those of a batch that nothing keeps. Roots of holds that began meanwhile are marked first.
func (s *sweep) delete(ctx context.Context, batch []block.Entry) error {
	k := s.k
	k.mu.Lock()
	for len(k.unmarked) > 0 {
		roots := slices.Collect(maps.Keys(k.unmarked))
		clear(k.unmarked)
		k.mu.Unlock()
		err := s.mark(ctx, roots)
		k.mu.Lock()
		if err != nil {
			k.mu.Unlock()
			return err
		}
	}
	defer k.mu.Unlock()
	batch = slices.DeleteFunc(batch, func(e block.Entry) bool { return s.kept(e, hash(e.Key)) })
	deleted, err := k.segments.DeleteAt(ctx, batch)
	k.clear()
	for _, e := range deleted {
		s.done.Deleted++
		s.done.DeletedBytes += uint64(e.Size())
	}
	if len(deleted) > 0 && s.d.Forget != nil {
		s.d.Forget()
	}
	return err
}

// compact gets space back from segments.
func (s *sweep) compact(ctx context.Context) error {
	usage, err := s.k.segments.Usage(ctx, nil)
	if err != nil {
		return err
	}
	dead := func(u block.Usage) float64 { return 1 - float64(u.Live)/float64(max(u.Size, 1)) }
	slices.SortStableFunc(usage, func(a, b block.Usage) int { return cmp.Compare(dead(b), dead(a)) })
	disk := int64(0)
	for _, u := range usage {
		disk += u.Size
	}
	var chosen []uint32
	for _, u := range usage {
		most := int64(sparse)
		if s.plan.Goal > 0 {
			most = dense
		}
		if disk <= s.plan.Goal || u.Live*100 >= u.Size*most {
			break // so are the ones behind it
		}
		chosen = append(chosen, u.Segment)
		disk -= u.Size - u.Live
	}
	if len(chosen) == 0 {
		return nil
	}
	var lost []string
	_, err = s.k.segments.Compact(ctx, chosen, func(key string) { lost = append(lost, key) })
	for _, key := range lost {
		if s.k.heal(ctx, s.d, rawCID(key)) == nil {
			continue
		}
		s.k.setDamaged(key, false) // it is not here any more
		s.done.Lost = append(s.done.Lost, grid.Link{Cid: rawCID(key)})
	}
	return err
}

// Use tells what the store holds.
func (k *Keeper) Use(ctx context.Context) (grid.StoreUse, error) {
	d, ctx, cancel, err := k.onDuty(ctx)
	if err != nil {
		return grid.StoreUse{}, err
	}
	defer cancel()
	roots, err := k.rootsOf(ctx, d)
	if err != nil {
		return grid.StoreUse{}, err
	}
	m := newMarks()
	if err := k.mark(ctx, m, roots, nil); err != nil {
		return grid.StoreUse{}, err
	}
	u := grid.StoreUse{Disk: uint64(k.used()), Quota: uint64(k.quota), Damaged: []grid.Link{}}
	k.mu.RLock()
	young, held := block.Position{}, false
	if e := k.holds.Front(); e != nil {
		young, held = e.Value.(*hold).from, true
	}
	k.mu.RUnlock()
	_, err = k.segments.Usage(ctx, func(e block.Entry) error {
		u.Blocks++
		u.Live += uint64(e.Size())
		if m.has(hash(e.Key)) || held && !e.At.Before(young) {
			u.PinnedBlocks++
			u.Pinned += uint64(e.Size())
		}
		return nil
	})
	u.Cached = u.Live - u.Pinned
	k.broken.Lock()
	defer k.broken.Unlock()
	for key := range k.damaged {
		u.Damaged = append(u.Damaged, grid.Link{Cid: rawCID(key)})
	}
	slices.SortFunc(u.Damaged, func(a, b grid.Link) int { return cmp.Compare(a.KeyString(), b.KeyString()) })
	return u, err
}
