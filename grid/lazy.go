package grid

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// lazyOver is how many bytes a mount or an input may have and still be fetched whole before a task runs.
	// Larger ones are read where they lie: a block comes when it is read, or shortly before.
	lazyOver = 8 << 20
	// wholeMost bounds what comes of one that says that it has no more than that, with all that it takes to say what is where.
	wholeMost = lazyOver + 32<<20
	// aheadMost bounds the blocks that one reader has on their way ahead of need.
	aheadMost = 64
	// aheadFlights bounds the requests ahead of need of a node. What does not fit is fetched when needed.
	aheadFlights = 16
	// flightTime bounds one request for blocks, besides the bounds of the Fetcher.
	flightTime = 2 * time.Minute
	// sourceTime bounds the search for those who have announced a DAG, sourcePatience the wait for it.
	sourceTime     = 20 * time.Second
	sourcePatience = 2 * time.Second
	// maxSources bounds the peers that are asked for a DAG.
	maxSources = 16
)

// AheadBlocks is Blocks of which getting one may take a while.
type AheadBlocks interface {
	Blocks
	// GetAhead is Get of a block by a reader that will probably read others after it, in the order given.
	GetAhead(ctx context.Context, c cid.Cid, next []cid.Cid) ([]byte, error)
}

// flights are the blocks of a node that are on their way because somebody reads them.
type flights struct {
	mu     sync.Mutex
	coming map[cid.Cid]*flight
	ahead  int // flights that nobody waited for when they began
}

// flight is one request for blocks.
type flight struct {
	done chan struct{}
	err  error // once done
}

// fly asks for those blocks that are neither here nor on their way. It returns the flight that brings the
// first one; nil if there is none.
func (n *Node) fly(ctx context.Context, blocks []cid.Cid, from *sources, ahead bool) (*flight, error) {
	fl := &n.flights
	if !n.enter() {
		return nil, errClosing
	}
	fl.mu.Lock()
	defer fl.mu.Unlock()
	var todo []cid.Cid
	for _, c := range blocks {
		if f := fl.coming[c]; f != nil {
			if !ahead {
				n.wg.Done()
				return f, nil
			}
		} else if here, err := n.Blocks.Has(ctx, c); err != nil || !here {
			todo = append(todo, c)
		}
	}
	if len(todo) == 0 || ahead && fl.ahead >= aheadFlights {
		n.wg.Done()
		return nil, nil
	}
	f := &flight{done: make(chan struct{})}
	if fl.coming == nil {
		fl.coming = make(map[cid.Cid]*flight)
	}
	for _, c := range todo {
		fl.coming[c] = f
	}
	if ahead {
		fl.ahead++
	}
	go func() { // ends with the node, which waits for it
		defer n.wg.Done()
		ctx, cancel := context.WithTimeout(n.ctx, flightTime)
		defer cancel()
		f.err = n.Fetcher.Fetch(ctx, Want{Roots: todo, From: from.peers(), Below: from.below(), Shallow: true})
		fl.mu.Lock()
		defer fl.mu.Unlock()
		for _, c := range todo {
			delete(fl.coming, c)
		}
		if ahead {
			fl.ahead--
		}
		close(f.done)
	}()
	return f, nil
}

// sources are the peers that are likely to have what a reader reads: those it was told of, and those who have
// announced the roots of it. They announce no other block of a DAG, so these are worth finding, but only once
// something is missing.
type sources struct {
	above *sources // whose peers are as likely; nil: none

	mu     sync.Mutex
	from   []peer.ID
	roots  []cid.Cid
	sought int // roots whose providers were looked for

	pulled *pulled // of a stranger's stage: nothing else is to be read; nil: it is none

	brought brought
}

// pulledFor is that of a stage; nil if it is none of a stranger's.
func (s *sources) pulledFor() *pulled {
	if s == nil {
		return nil
	}
	return s.pulled
}

// add takes in peers.
func (s *sources) add(peers ...peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range peers {
		if len(s.from) < maxSources && !slices.Contains(s.from, p) {
			s.from = append(s.from, p)
		}
	}
}

// of takes in a root.
func (s *sources) of(root cid.Cid) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.roots) < maxSources && !slices.Contains(s.roots, root) {
		s.roots = append(s.roots, root)
	}
}

// below lists the roots.
func (s *sources) below() []cid.Cid {
	s.mu.Lock()
	roots := s.roots[:len(s.roots):len(s.roots)]
	s.mu.Unlock()
	if s.above != nil {
		roots = append(roots, s.above.below()...)
	}
	return roots
}

// peers lists them.
func (s *sources) peers() []peer.ID {
	s.mu.Lock()
	from := s.from[:len(s.from):len(s.from)]
	s.mu.Unlock()
	if s.above != nil {
		from = append(from, s.above.peers()...)
	}
	return from
}

// seek begins to look for those who have announced the roots. If nobody but the node itself is known, it waits a
// little for what that gives.
func (s *sources) seek(ctx context.Context, n *Node) {
	if s.above != nil {
		s.above.seek(ctx, n)
	}
	s.mu.Lock()
	roots := s.roots[s.sought:]
	s.sought = len(s.roots)
	s.mu.Unlock()
	if len(roots) == 0 || !n.enter() {
		return
	}
	found := make(chan struct{})
	go func() {
		defer n.wg.Done()
		defer close(found)
		ctx, cancel := context.WithTimeout(n.ctx, sourceTime)
		defer cancel()
		for _, root := range roots {
			peers, err := n.Network.Providers(ctx, root, maxSources)
			if err != nil {
				n.log.Debug("no providers", "root", root, "err", err)
			}
			s.add(peers...)
		}
	}()
	if slices.ContainsFunc(s.peers(), func(p peer.ID) bool { return p != n.self }) {
		return
	}
	patience := time.NewTimer(sourcePatience)
	defer patience.Stop()
	select {
	case <-found:
	case <-patience.C:
	case <-ctx.Done():
	}
}

// reading is the node's blocks for one reader: those that are not here are fetched when they are read.
type reading struct {
	Blocks
	n      *Node
	from   *sources
	lost   func(error)  // told of every block that could not be had; nil: nobody
	waited atomic.Int64 // nanoseconds, for blocks to come
	missed atomic.Bool  // some block was not here: only then others are asked for ahead of need

	mu      sync.Mutex
	settled map[cid.Cid]struct{} // blocks known to be here or to have been asked for
}

var _ AheadBlocks = (*reading)(nil)

// Get implements Blocks.
func (r *reading) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	return r.GetAhead(ctx, c, nil)
}

// GetAhead implements AheadBlocks.
func (r *reading) GetAhead(ctx context.Context, c cid.Cid, next []cid.Cid) ([]byte, error) {
	data, err := r.Blocks.Get(ctx, c)
	if err == nil {
		if r.missed.Load() {
			r.ahead(ctx, next)
		}
		return data, nil
	}
	if CodeOf(err) != NotFound {
		return nil, r.lose(ctx, err)
	}
	start := time.Now()
	defer func() { r.waited.Add(int64(time.Since(start))) }()
	if !r.missed.Swap(true) {
		r.from.seek(ctx, r.n)
	}
	for range 2 { // the first flight may be one that others began, for other blocks too
		f, ferr := r.n.fly(ctx, []cid.Cid{c}, r.from, false)
		if ferr != nil {
			return nil, r.lose(ctx, ferr)
		}
		r.ahead(ctx, next)
		if f != nil {
			select {
			case <-f.done:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		if data, err = r.Blocks.Get(ctx, c); err == nil {
			return data, nil
		}
		if f != nil && f.err != nil {
			err = f.err
		}
	}
	return nil, r.lose(ctx, err)
}

// ahead asks for what will be read next, unless the nearer half of it is here or on its way already: requests
// for a block each would be slow.
func (r *reading) ahead(ctx context.Context, next []cid.Cid) {
	next = next[:min(len(next), aheadMost)]
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.settled == nil || len(r.settled) > 64*aheadMost {
		r.settled = make(map[cid.Cid]struct{})
	}
	for _, c := range next[:(len(next)+1)/2] {
		if _, ok := r.settled[c]; ok {
			continue
		}
		if here, err := r.Blocks.Has(ctx, c); err == nil && !here {
			_, _ = r.n.fly(ctx, next, r.from, true) // whoever needs it will see
			for _, c := range next {
				r.settled[c] = struct{}{}
			}
			return
		}
		r.settled[c] = struct{}{}
	}
}

// lose tells of a block that could not be had, unless that is because the reader is ending.
func (r *reading) lose(ctx context.Context, err error) error {
	if ctx.Err() == nil && r.lost != nil {
		r.lost(err)
	}
	return err
}

// Reading is Files that fetch what they read below root and is not here, from the given peers or whoever has
// it. Without FilesOver the whole DAG is fetched at once.
func (n *Node) Reading(ctx context.Context, root cid.Cid, from ...peer.ID) (Files, error) {
	if n.FilesOver == nil {
		return n.Files, n.Ensure(ctx, []cid.Cid{root}, from...)
	}
	return n.FilesOver(n.ReadingBlocks(root, from...)), nil
}

// ReadingBlocks is Blocks that fetch those of the DAG of root that are not here when they are got, from the given
// peers or whoever has them.
func (n *Node) ReadingBlocks(root cid.Cid, from ...peer.ID) Blocks {
	r := &reading{Blocks: n.Blocks, n: n, from: new(sources)}
	r.from.add(n.also(from, root)...)
	r.from.of(root)
	return r
}

// bring fetches the DAGs that a task needs: small ones whole, of large ones the root. What of the latter is
// read later is asked of those in s, too.
func (n *Node) bring(ctx context.Context, whole, maybe []cid.Cid, s *sources) error {
	from := s.peers()
	if n.FilesOver == nil {
		return n.Ensure(ctx, slices.Concat(whole, maybe), from...)
	}
	var small, roots []cid.Cid
	for _, c := range maybe {
		if c.Prefix().Codec == cid.Raw {
			small = append(small, c)
		} else {
			roots = append(roots, c)
		}
	}
	if len(roots) > 0 {
		if err := n.Fetcher.Fetch(ctx, Want{Roots: roots, From: from, Shallow: true}); err != nil {
			return err
		}
	}
	for _, c := range roots {
		info, err := n.Files.Look(ctx, c)
		if err != nil {
			return err
		}
		if info.Size <= lazyOver {
			small = append(small, c)
		} else {
			s.of(c)
		}
	}
	if err := n.Ensure(ctx, whole, from...); err != nil || len(small) == 0 {
		return err
	}
	return n.Fetcher.Fetch(ctx, Want{Roots: small, From: n.also(from, small...), Limit: int64(len(small)) * wholeMost})
}
