package exchange

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Who is asked for what. One node at a time, the walker, is asked for DAGs: it goes through them from the
// front, without further questions however deep they are. Others are asked for blocks by name, from the back
// of what is wanted, until they meet the walker. So each gives as much as it is fast. What a node lacks,
// it is not asked for again. What a slow one was asked for is in the end asked of a faster one as well.

const (
	maxStreams   = 4                      // nodes that send at once
	peerJobs     = 2                      // requests to one of them at once, so that none is idle between two
	stallTime    = 500 * time.Millisecond // without anything; then others are asked
	aheadTime    = 50 * time.Millisecond  // so much of what the walker will send is left to it
	batchTime    = 250 * time.Millisecond // for what is asked for by name at a time
	firstBatch   = 2 << 20                // bytes, of a node whose speed is not known
	leastBatch   = 1 << 20
	mostBatch    = 8 << 20
	guessedBlock = 16 << 10               // bytes, before some have come
	sharedFrom   = 4 << 20                // bytes that are worth a second node
	searchFrom   = 32 << 20               // bytes after which others are searched for in the swarm, too
	lookupTime   = 20 * time.Second       // for asking the swarm for providers
	holdersTime  = 2 * time.Second        // for asking this node for holders
	busyTime     = 50 * time.Millisecond  // before a node that is busy is asked again; doubled each time
	maxBusy      = 7                      // times that it is
	breakTime    = 500 * time.Millisecond // before a node is asked again whose stream broke off after it had sent something
	maxBreaks    = 3                      // times that it may
)

// provider is a node that is asked.
type provider struct {
	id     peer.ID
	bit    uint32    // of node.denied
	jobs   int       // under way
	latest *job      // begun last
	until  time.Time // when it may be asked again
	busy   int       // how many times in a row it was
	breaks int       // how often it broke off
	dry    int       // the transfer's news when there was nothing to ask it for
	sent   int       // blocks that were wanted
	denied int       // blocks it does not have
	picks  bool      // it is not to walk any more, for it meets much that is here
	gone   error     // why it is not asked any more
}

// plan begins what can be begun.
func (t *transfer) plan() {
	now := t.x.now()
	if w := t.walker; w != nil && !w.stopped && w.contested > 0 && t.free <= t.lead(now) {
		t.stop(w) // else it would go on to what others are asked for
	}
	for t.left > 0 && (t.employ(now) || t.recruit(now)) {
	}
}

// stop asks a node to send no more than what it has begun with.
func (t *transfer) stop(j *job) {
	j.stopped = true
	j.enough()
}

// waiting reports whether something may yet come although no request is under way.
func (t *transfer) waiting() bool {
	return t.sources.pending > 0 || slices.ContainsFunc(t.providers, func(p *provider) bool {
		return p.gone == nil && !p.until.IsZero() && p.dry != t.news
	})
}

// employ begins one request to a node that has not enough to do, if there is one.
func (t *transfer) employ(now time.Time) bool {
	for _, p := range t.providers {
		if p.gone != nil || p.dry == t.news || now.Before(p.until) || p.jobs >= peerJobs {
			continue
		}
		if j := p.latest; p.jobs > 0 && (j.mode == modeDAG || j.open > j.batch/2) {
			continue
		}
		m, nodes := t.choose(p, now)
		if len(nodes) == 0 {
			p.dry = t.news
			continue
		}
		if !t.x.reserve(p.id) {
			p.until = now.Add(busyTime)
			continue
		}
		p.latest = t.start(p, m, nodes)
		if m == modeDAG {
			t.walker = p.latest
		}
		return true
	}
	return false
}

// choose finds what to ask a node for.
func (t *transfer) choose(p *provider, now time.Time) (mode, []*node) {
	if t.mode == modeDAG && p.jobs == 0 && !p.picks && (t.walker == nil || t.stalled(t.walker, now)) {
		if nodes := t.front(p); nodes != nil {
			return modeDAG, nodes
		}
	}
	if nodes := t.back(p, now); nodes != nil || p.jobs > 0 {
		return modeBlocks, nodes
	}
	return modeBlocks, t.late(p, now)
}

// front is the first of what is wanted, unless there is nothing to walk through in it.
func (t *transfer) front(p *provider) (nodes []*node) {
	deep := false
	for n := t.want.next; n != &t.want && len(nodes) < maxRoots; n = n.next {
		if n.free() && n.denied&p.bit == 0 {
			nodes = append(nodes, n)
			deep = deep || n.cid.Prefix().Codec != cid.Raw
		}
	}
	if !deep {
		return nil
	}
	return nodes
}

// back is the last of what is wanted, as much as a node can send in a while, and less than would get into the
// walker's way.
func (t *transfer) back(p *provider, now time.Time) (nodes []*node) {
	most, spare := t.share(p), t.free-t.lead(now)
	for n := t.want.prev; n != &t.want && len(nodes) < most; n = n.prev {
		if !n.free() || n.denied&p.bit != 0 {
			continue
		}
		if w := t.walker; w != nil && n.denied&w.p.bit == 0 {
			if spare <= 0 {
				continue
			}
			spare--
		}
		nodes = append(nodes, n)
	}
	slices.Reverse(nodes)
	return nodes
}

// late is what slow nodes are asked for, and this one could send much sooner.
func (t *transfer) late(p *provider, now time.Time) (nodes []*node) {
	most := t.share(p)
	rate := t.rate(p)
	for _, j := range t.jobs {
		if j.mode != modeBlocks || j.p == p {
			continue
		}
		if !t.stalled(j, now) {
			theirs := t.rate(j.p)
			if theirs == 0 || rate < 4*theirs || float64(j.open*t.average())/theirs < batchTime.Seconds() {
				continue
			}
		}
		for n := range j.named {
			if len(nodes) < most && !n.here && n.denied&p.bit == 0 && (n.asked[0] == nil || n.asked[1] == nil) {
				nodes = append(nodes, n)
			}
		}
	}
	return nodes
}

// average is how large a block is, about.
func (t *transfer) average() int {
	if t.got < 4 {
		return guessedBlock
	}
	return max(1, int(t.bytes)/t.got)
}

// rate is how fast a node is, in bytes/s, or 0.
func (t *transfer) rate(p *provider) float64 {
	if j := p.latest; j != nil && j.bytes >= 4*parcelBytes {
		if r := j.rate(); r > 0 {
			return r
		}
	}
	return t.x.rate(p.id)
}

// rate is how fast what has come of a job came.
func (j *job) rate() float64 {
	if took := time.Unix(0, j.last.Load()).Sub(j.began); took > 0 {
		return float64(j.bytes) / took.Seconds()
	}
	return 0
}

// share is how many blocks to ask a node for by name at a time.
func (t *transfer) share(p *provider) int {
	bytes := float64(firstBatch)
	if r := t.rate(p); r > 0 {
		bytes = min(max(r*batchTime.Seconds(), leastBatch), mostBatch)
	}
	hits := 1.0 // how much of what it is asked for it has
	if n := p.sent + p.denied; n >= 16 {
		hits = max(float64(p.sent)/float64(n), 1./64)
	}
	n := min(max(1, int(bytes/hits)/t.average()), maxRoots)
	if hits > 0.5 && len(t.providers) > 1 { // so that all are done at about the same time
		n = min(n, max(1, (t.free+1)/2))
	}
	return n
}

// lead is how many blocks the walker should be left with.
func (t *transfer) lead(now time.Time) int {
	if t.walker == nil || t.stalled(t.walker, now) {
		return 0
	}
	return min(max(1, int(t.rate(t.walker.p)*aheadTime.Seconds())/t.average()), maxRoots)
}

// stalled reports whether a node has not sent anything for longer than a block takes.
func (t *transfer) stalled(j *job, now time.Time) bool {
	patience := stallTime
	if r := t.rate(j.p); r > 0 {
		patience = max(patience, time.Duration(3*float64(t.average())/r*float64(time.Second)))
	}
	return !j.paused.Load() && now.Sub(time.Unix(0, j.last.Load())) > patience
}

// recruit adds a node to those that are asked, if that is of use and there is one.
func (t *transfer) recruit(now time.Time) bool {
	if len(t.providers) >= maxProviders {
		return false
	}
	busy := map[*provider]bool{}
	for _, j := range t.jobs {
		if !t.stalled(j, now) {
			busy[j.p] = true
		}
	}
	stuck := len(busy) == 0 && t.free > 0 || t.orphans()
	shared := t.free > t.lead(now) && t.free*t.average() >= sharedFrom && !slices.ContainsFunc(t.providers, func(p *provider) bool {
		return p.gone == nil && p.jobs == 0 && p.dry != t.news // it has nothing to do
	})
	if !stuck && !shared || len(busy) >= maxStreams {
		return false
	}
	id, ok := t.candidate(stuck)
	if ok {
		t.providers = append(t.providers, &provider{id: id, bit: 1 << len(t.providers), dry: -1})
		t.doubt++
	}
	return ok
}

// orphans reports whether something is wanted that none of those that are asked has.
func (t *transfer) orphans() bool {
	if t.doubted == t.doubt {
		return t.orphaned
	}
	t.doubted = t.doubt
	var all uint32
	for _, p := range t.providers {
		if p.gone == nil {
			all |= p.bit
		}
	}
	t.orphaned = false
	for n := t.want.next; n != &t.want && !t.orphaned; n = n.next {
		t.orphaned = n.free() && n.denied&all == all
	}
	return t.orphaned
}

// ended draws the consequences of a job's end.
func (t *transfer) ended(j *job, err error) {
	p, now := j.p, t.x.now()
	t.jobs = slices.DeleteFunc(t.jobs, func(o *job) bool { return o == j })
	t.x.unreserve(p.id)
	p.jobs--
	t.news++
	t.doubt++
	if t.walker == j {
		t.walker = nil
	}
	if j.mode == modeBlocks {
		for n := range j.named {
			t.unassign(n, j)
		}
	}
	if j.bytes >= 64<<10 {
		t.x.measured(p.id, j.rate())
	}
	if j.err != nil {
		err = j.err
	}
	bad := false
	switch {
	case j.err == nil && (t.ctx.Err() != nil || j.overtaken):
		if t.stalled(j, now) {
			t.x.blame(p.id, downPenalty)
		}
		return
	case err == nil && !j.stopped && len(j.named) > 0:
		err, bad = grid.Errorf(grid.Unavailable, "it answered without sending or missing all that was asked for"), true
	case err == nil:
		p.busy, p.until = 0, time.Time{}
		return
	case j.refused && errors.Is(err, grid.Busy) && p.busy < maxBusy:
		p.until = now.Add(busyTime << p.busy)
		p.busy++
		return
	case !j.refused && j.bytes > j.wasted && !wrong(err) && p.breaks < maxBreaks:
		p.until = now.Add(breakTime << p.breaks)
		p.breaks++
		t.x.blame(p.id, downPenalty)
		t.x.log.Debug("a fetch broke off", "from", p.id, "error", err)
		return
	case !j.refused && j.reached:
		bad = wrong(err)
	}
	p.gone = err
	if bad {
		t.x.stats.bad.Add(1)
		t.x.blame(p.id, badPenalty)
		t.x.log.Warn("a node is not asked for blocks any more", "peer", p.id, "error", err)
	} else {
		if !j.refused {
			t.x.blame(p.id, downPenalty)
		}
		t.x.log.Debug("fetch", "from", p.id, "error", err)
	}
}

// wrong reports whether an error is for a node's doing, not for a connection that broke.
func wrong(err error) bool {
	code := grid.CodeOf(err)
	return timeout(err) || code == grid.Invalid || code == grid.Corrupt || code == grid.Limit
}

// remember notes who had what was wanted.
func (t *transfer) remember() {
	had := slices.DeleteFunc(slices.Clone(t.providers), func(p *provider) bool { return p.gone != nil || p.sent == 0 })
	if t.left > 0 || t.mode != modeDAG || len(had) == 0 {
		return
	}
	slices.SortStableFunc(had, func(a, b *provider) int { return cmp.Compare(b.sent, a.sent) })
	var ids []peer.ID
	for _, p := range had {
		ids = append(ids, p.id)
	}
	for _, c := range t.f.roots[:min(len(t.f.roots), 4)] {
		t.x.hadBy(c, ids)
	}
}

// sources are where nodes to ask come from, likely ones first. Looking for them goes on beside all else.
type sources struct {
	wg      sync.WaitGroup
	found   chan found
	pending int                  // lookups under way
	seen    map[peer.ID]struct{} // that were named already
	hinted  int                  // how many of the flight's hints were seen
	holders bool                 // they have been asked for
	swarm   bool                 // it has been asked
	likely  []peer.ID            // not asked yet: hints, then holders
	named   []peer.ID            // by the swarm
	last    []peer.ID            // those with a penalty
}

// found is what a lookup gives.
type found struct {
	ids   []peer.ID
	swarm bool
}

func (s *sources) take(f found) {
	s.pending--
	if f.swarm {
		s.named = append(s.named, f.ids...)
	} else {
		s.likely = append(s.likely, f.ids...)
	}
}

// candidate names a node that has not been asked. stuck says that any will do, not only those that are likely
// to have what is wanted.
func (t *transfer) candidate(stuck bool) (peer.ID, bool) {
	s := &t.sources
	if hints := t.x.hints(t.f); len(hints) > s.hinted {
		s.likely = append(t.x.rank(slices.Clone(hints[s.hinted:])), s.likely...)
		s.hinted = len(hints)
	}
	if id, ok := t.next(&s.likely); ok {
		return id, true
	}
	if !s.holders {
		s.holders = true
		t.askHolders()
		if id, ok := t.next(&s.likely); ok {
			return id, true
		}
	}
	if s.pending > 0 && !s.swarm || !stuck && t.bytes < searchFrom {
		return "", false // the holders are about to be known
	}
	if !s.swarm {
		s.swarm = true
		t.askSwarm()
	}
	if id, ok := t.next(&s.named); ok || !stuck {
		return id, ok
	}
	var connected []peer.ID
	for _, p := range t.x.net.Peers() {
		connected = append(connected, p.ID)
	}
	connected = t.x.rank(connected)
	if id, ok := t.next(&connected); ok {
		return id, true
	}
	if len(s.last) == 0 {
		return "", false
	}
	id := s.last[0]
	s.last = s.last[1:]
	return id, true
}

// next takes one from a list that was not named before. Those that are to be asked last are put aside.
func (t *transfer) next(list *[]peer.ID) (peer.ID, bool) {
	for len(*list) > 0 {
		id := (*list)[0]
		*list = (*list)[1:]
		if _, ok := t.sources.seen[id]; ok {
			continue
		}
		t.sources.seen[id] = struct{}{}
		if t.x.penalised(id) {
			t.sources.last = append(t.sources.last, id)
			continue
		}
		return id, true
	}
	return "", false
}

// some are the roots that others are asked about.
func (t *transfer) some() []cid.Cid { return t.f.roots[:min(len(t.f.roots), 4)] }

// askHolders asks this node who has the roots; beside, if that may take time.
func (t *transfer) askHolders() {
	if t.x.ask == nil {
		for _, c := range t.some() {
			t.sources.likely = append(t.sources.likely, t.x.holding(t.ctx, c)...)
		}
		return
	}
	t.lookup(holdersTime, false, func(ctx context.Context, c cid.Cid) ([]peer.ID, error) { return t.x.holding(ctx, c), nil })
}

// askSwarm asks the swarm, beside.
func (t *transfer) askSwarm() {
	t.lookup(lookupTime, true, func(ctx context.Context, c cid.Cid) ([]peer.ID, error) {
		return t.x.net.Providers(ctx, c, maxProviders/2)
	})
}

func (t *transfer) lookup(limit time.Duration, swarm bool, find func(context.Context, cid.Cid) ([]peer.ID, error)) {
	s := &t.sources
	s.pending++
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(t.ctx, limit)
		defer cancel()
		f := found{swarm: swarm}
		for _, c := range t.some() {
			ids, err := find(ctx, c)
			if err != nil {
				t.x.log.Debug("no providers", "root", c, "error", err)
			}
			f.ids = append(f.ids, ids...)
		}
		s.found <- f // has room for all lookups there are
	})
}
