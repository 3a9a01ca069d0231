package ipfs

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

const (
	announceTime  = 15 * time.Second
	announceAgain = 12 * time.Hour // records last 48 hours
	maxRoots      = 1 << 14        // that are announced, the newest
	retryMin      = time.Second    // after a failure, then twice as long…
	retryMax      = time.Minute    // …up to this
)

// queue holds the roots to announce. It is safe for concurrent use.
type queue struct {
	news chan struct{} // holds one token

	mu      sync.Mutex
	roots   map[cid.Cid]bool // whether it has been announced
	order   []cid.Cid        // oldest first
	pending []cid.Cid        // not announced yet, the next one last
}

func newQueue() *queue {
	return &queue{news: make(chan struct{}, 1), roots: map[cid.Cid]bool{}}
}

// add notes roots that are to be announced, the next one last.
func (q *queue) add(roots ...cid.Cid) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range roots {
		announced, known := q.roots[c]
		if known && !announced {
			continue
		}
		if !known {
			if len(q.order) == maxRoots {
				delete(q.roots, q.order[0])
				q.order = q.order[1:]
			}
			q.order = append(q.order, c)
		}
		q.roots[c] = false
		q.pending = append(q.pending, c)
	}
	select {
	case q.news <- struct{}{}:
	default:
	}
}

// again lists all roots that have been added.
func (q *queue) again() []cid.Cid {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.order)
}

// next takes out the root to announce next: the newest, as somebody may be waiting for that.
func (q *queue) next() (cid.Cid, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.pending) > 0 {
		c := q.pending[len(q.pending)-1]
		q.pending = q.pending[:len(q.pending)-1]
		if announced, known := q.roots[c]; known && !announced {
			return c, true
		}
	}
	return cid.Undef, false
}

// done notes what became of what next gave.
func (q *queue) done(c cid.Cid, announced bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, known := q.roots[c]; !known {
		return
	}
	if q.roots[c] = announced; !announced {
		q.pending = append(q.pending, c)
	}
}

func (q *queue) count() (announced, all int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, yes := range q.roots {
		if yes {
			announced++
		}
	}
	return announced, len(q.roots)
}

// Announce tells the IPFS nodes of the local network that the DAG of root is here, now and again as long as
// the bridge runs. It returns at once; what cannot be announced now is tried later. The newest 16,384 roots are
// announced. The error is Invalid or Unsupported, for a CID that IPFS could not be given.
func (b *Bridge) Announce(root cid.Cid) error {
	if err := grid.CheckCID(root); err != nil {
		return err
	}
	b.note(root)
	return nil
}

// note takes in roots to announce. Our own part of the table, which whoever connects to us asks, knows them
// at once.
func (b *Bridge) note(roots ...cid.Cid) {
	for _, c := range roots {
		_ = b.dht.Provide(b.ctx, c, false) // fails only when the bridge is closing
	}
	b.queue.add(roots...)
}

// announce announces until the bridge closes.
func (b *Bridge) announce() {
	again := time.NewTicker(announceAgain)
	defer again.Stop()
	listed := b.list()
	for {
		wait := retryMin
		for c, ok := b.queue.next(); ok; c, ok = b.queue.next() {
			err := b.provide(c)
			b.queue.done(c, err == nil)
			if err == nil {
				wait = retryMin
				continue
			}
			b.log.Debug("root not announced to IPFS, trying again", "cid", c, "err", err)
			if !b.settle(wait) {
				return
			}
			wait = min(2*wait, retryMax)
		}
		var retry <-chan time.Time
		if !listed {
			retry = time.After(retryMax)
		}
		select {
		case <-b.ctx.Done():
			return
		case <-b.queue.news:
		case <-again.C:
			b.note(b.queue.again()...)
			listed = b.list()
		case <-retry:
			listed = b.list()
		}
	}
}

// list takes in the roots that the node keeps, and reports whether that went well.
func (b *Bridge) list() bool {
	if b.roots == nil {
		return true
	}
	roots, err := b.roots(b.ctx)
	if err != nil {
		if b.ctx.Err() == nil {
			b.log.Warn("the roots to announce to IPFS cannot be listed, trying again", "err", err)
		}
		return false
	}
	roots = slices.DeleteFunc(roots, func(c cid.Cid) bool { return grid.CheckCID(c) != nil })
	b.note(roots[max(0, len(roots)-maxRoots):]...)
	return true
}

func (b *Bridge) provide(c cid.Cid) error {
	ctx, cancel := context.WithTimeout(b.ctx, announceTime)
	defer cancel()
	return b.dht.Provide(ctx, c, true)
}

// settle waits before the next try: for a while, or until somebody is in the table if nobody was. It reports
// whether the bridge still runs.
func (b *Bridge) settle(wait time.Duration) bool {
	alone := b.dht.RoutingTable().Size() == 0
	for end := time.Now().Add(wait); time.Now().Before(end); {
		if !pause(b.ctx, min(wait, retryMin)) {
			return false
		}
		if alone && b.dht.RoutingTable().Size() > 0 {
			break
		}
	}
	return true
}
