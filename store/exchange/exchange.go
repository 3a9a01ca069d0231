package exchange

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

const (
	maxVisited   = 1 << 20 // CIDs gone through in one transfer or for one request
	maxProviders = 32      // nodes asked in one transfer; node.denied has a bit for each
	maxHints     = 64      // nodes that callers of one transfer may name
	maxComplete  = 1 << 14 // roots remembered as complete
	maxLooks     = 8       // at what a transfer brought, while blocks are being deleted
)

// Config wires an Exchange. Blocks and Network are required.
type Config struct {
	Blocks  grid.Blocks
	Network grid.Network
	Logger  *slog.Logger // nil: none
	// Holders names nodes that should have the DAG of a root, from what this node knows of replicas; nil: it
	// knows of none. They are asked after those that a caller names, and before the swarm is asked who has it.
	Holders func(ctx context.Context, root cid.Cid) []peer.ID
	// May tells which blocks a peer may read; the others it is told to be missing. nil: all.
	May func(ctx context.Context, peer peer.ID, c cid.Cid) bool
	// PerPeer is how many bytes/s one peer is sent at most, at least MinPerPeer; 0: as fast as they go.
	PerPeer int64
}

// Exchange fetches blocks from other nodes and serves them ours. It is safe for concurrent use.
type Exchange struct {
	blocks grid.Blocks
	net    grid.Network
	log    *slog.Logger
	now    func() time.Time
	ask    func(context.Context, cid.Cid) []peer.ID // Config.Holders
	may    func(context.Context, peer.ID, cid.Cid) bool

	ctx    context.Context // of all transfers and of what is served; ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	stats  counters
	pace   *paces

	mu       sync.Mutex
	closed   bool
	flights  map[cid.Cid]*flight
	complete map[cid.Cid]struct{} // roots whose DAGs have been seen whole
	forgets  uint64               // how often that was dropped
	streams  map[peer.ID]int      // being served
	serving  int
	asking   map[peer.ID]int // streams of ours
	peers    map[peer.ID]*record
	holders  map[cid.Cid][]peer.ID // who sent blocks below a root
}

var _ grid.Fetcher = (*Exchange)(nil)

type counters struct {
	fetches, requests, blocksIn, bytesIn, wasted, blocksOut, bytesOut, bad atomic.Uint64
}

// Stats counts since New.
type Stats struct {
	Transfers uint64 // fetches that were not satisfied at once; those that share one count once
	Requests  uint64 // streams opened to other nodes
	BlocksIn  uint64 // verified and stored
	BytesIn   uint64 // of data in them
	Wasted    uint64 // blocks that came although they were here
	BlocksOut uint64
	BytesOut  uint64
	BadPeers  uint64      // times that a node was dropped for sending what is wrong or not asked for, or too slowly
	Speeds    []PeerSpeed // the fastest nodes first, at most 32
}

// New starts an exchange, which serves the network's streams until Close.
func New(cfg Config) *Exchange {
	x := &Exchange{
		blocks: cfg.Blocks, net: cfg.Network, log: cfg.Logger, now: time.Now,
		flights: map[cid.Cid]*flight{}, complete: map[cid.Cid]struct{}{}, streams: map[peer.ID]int{},
		asking: map[peer.ID]int{}, peers: map[peer.ID]*record{}, holders: map[cid.Cid][]peer.ID{}, ask: cfg.Holders, may: cfg.May,
		pace: newPaces(cfg.PerPeer),
	}
	if x.log == nil {
		x.log = slog.New(slog.DiscardHandler)
	}
	x.ctx, x.cancel = context.WithCancel(context.Background())
	x.net.Handle(Protocol, x.handle)
	return x
}

// Stats tells what has been moved.
func (x *Exchange) Stats() Stats {
	s := &x.stats
	return Stats{s.fetches.Load(), s.requests.Load(), s.blocksIn.Load(), s.bytesIn.Load(), s.wasted.Load(), s.blocksOut.Load(), s.bytesOut.Load(), s.bad.Load(), x.speeds()}
}

// Close ends all transfers, whose callers get Canceled, and all that is being served, and waits for
// them. Streams that come later are refused. It may be called twice.
func (x *Exchange) Close() error {
	x.mu.Lock()
	x.closed = true
	x.mu.Unlock()
	x.cancel()
	x.wg.Wait()
	return nil
}

// Forget drops the memory of which DAGs are complete. Whoever deletes blocks calls it afterwards.
func (x *Exchange) Forget() {
	x.mu.Lock()
	defer x.mu.Unlock()
	clear(x.complete)
	x.forgets++
}

// flight is a transfer of some roots that one or more callers wait for.
type flight struct {
	mode   mode
	roots  []cid.Cid
	done   chan struct{}
	failed map[cid.Cid]error // by root, once done
	cancel context.CancelFunc

	// Guarded by Exchange.mu.
	waiting int       // callers, each once for each root
	from    []peer.ID // hints, of all callers
	limit   int64     // bytes that may come, 0: any number
}

// Fetch brings what is wanted; see grid.Fetcher. That a DAG is complete is remembered, up to a bound, and
// only its root is looked at then: see Forget. Callers that share a transfer may end independently; shallow
// ones do not share.
func (x *Exchange) Fetch(ctx context.Context, w grid.Want) error {
	m := modeDAG
	if w.Shallow {
		m = modeBlocks
	}
	var todo []cid.Cid
	seen := make(map[cid.Cid]struct{}, len(w.Roots))
	for _, c := range w.Roots {
		if err := grid.CheckCID(c); err != nil {
			return grid.Errorf(grid.CodeOf(err), "store: fetch: %w", err)
		}
		if _, dup := seen[c]; dup {
			continue
		}
		seen[c] = struct{}{}
		if here, err := x.here(ctx, m, c); err != nil {
			return grid.Errorf(codeOf(err), "store: fetch %s: %w", c, err)
		} else if !here {
			todo = append(todo, c)
		}
	}
	if err := ctx.Err(); err != nil { // a transfer might be over before anybody looked at the context
		return grid.Errorf(grid.CodeOf(err), "store: fetch: %w", err)
	}
	if len(todo) == 0 {
		return nil
	}

	joined, err := x.join(m, todo, w)
	if err != nil {
		return err
	}
	defer func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		for _, f := range joined {
			if f.waiting--; f.waiting == 0 {
				x.land(f)
			}
		}
	}()
	for _, c := range todo {
		f := joined[c]
		select {
		case <-f.done:
			if err := f.failed[c]; err != nil {
				return err
			}
		case <-ctx.Done():
			return grid.Errorf(grid.CodeOf(ctx.Err()), "store: fetch %s: %w", c, ctx.Err())
		}
	}
	return nil
}

// here reports whether nothing needs to be fetched, as far as that can be told at once.
func (x *Exchange) here(ctx context.Context, m mode, c cid.Cid) (bool, error) {
	x.mu.Lock()
	_, ok := x.complete[c]
	x.mu.Unlock()
	if !ok && m == modeDAG && c.Prefix().Codec != cid.Raw {
		return false, nil
	}
	return x.blocks.Has(ctx, c)
}

// join finds or starts the flights that bring the given roots.
func (x *Exchange) join(m mode, roots []cid.Cid, w grid.Want) (map[cid.Cid]*flight, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return nil, grid.Errorf(grid.Canceled, "store: fetch %s: the exchange is closed", roots[0])
	}
	joined := make(map[cid.Cid]*flight, len(roots))
	var own []cid.Cid
	for _, c := range roots {
		if f := x.flights[c]; f != nil && m == modeDAG {
			f.waiting++
			f.from = append(f.from, w.From[:min(len(w.From), max(0, maxHints-len(f.from)))]...)
			if w.Limit == 0 || f.limit == 0 {
				f.limit = 0
			} else {
				f.limit = max(f.limit, w.Limit)
			}
			joined[c] = f
		} else {
			own = append(own, c)
		}
	}
	if len(own) == 0 {
		return joined, nil
	}
	f := &flight{mode: m, roots: own, done: make(chan struct{}), waiting: len(own), from: slices.Clone(w.From[:min(len(w.From), maxHints)]), limit: w.Limit}
	var ctx context.Context
	ctx, f.cancel = context.WithCancel(x.ctx)
	for _, c := range own {
		joined[c] = f
		if m == modeDAG {
			x.flights[c] = f
		}
	}
	x.stats.fetches.Add(1)
	forgets := x.forgets
	x.wg.Go(func() {
		failed := x.transfer(ctx, f)
		x.mu.Lock()
		defer x.mu.Unlock()
		// What came before the blocks that link to it were stored was below no root then, and a collection may have deleted it.
		for looks := 0; m == modeDAG && forgets != x.forgets && len(failed) == 0 && looks < maxLooks; looks++ {
			forgets = x.forgets
			x.mu.Unlock()
			failed = x.transfer(ctx, f)
			x.mu.Lock()
		}
		f.failed = failed
		x.land(f)
		for _, c := range f.roots {
			if failed[c] == nil && m == modeDAG && forgets == x.forgets { // else what it saw may be gone
				if len(x.complete) >= maxComplete {
					clear(x.complete)
				}
				x.complete[c] = struct{}{}
			}
		}
		close(f.done)
	})
	return joined, nil
}

// land takes a flight off the board: it is over, or nobody waits for it any more. The caller holds mu.
func (x *Exchange) land(f *flight) {
	f.cancel()
	for _, c := range f.roots {
		if x.flights[c] == f {
			delete(x.flights, c)
		}
	}
}

// hints returns the peers that callers have named so far.
func (x *Exchange) hints(f *flight) []peer.ID {
	x.mu.Lock()
	defer x.mu.Unlock()
	return f.from[:len(f.from):len(f.from)]
}

// allowed is how many bytes may come in a flight, 0 for any number.
func (x *Exchange) allowed(f *flight) int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return f.limit
}

func codeOf(err error) grid.Code {
	if c := grid.CodeOf(err); c != grid.Unknown {
		return c
	}
	return grid.Internal
}
