package exchange

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	maxPeers    = 512             // nodes remembered
	maxSpeeds   = 32              // of those, told of in Stats
	maxHolders  = 1 << 12         // roots whose last providers are remembered
	penaltyHalf = 5 * time.Minute // in which half of a penalty is forgiven
	badPenalty  = 1.0             // for a node that did what it must not
	downPenalty = 0.3             // for one that could not be reached, or was slower than others
	maxPenalty  = 8.0
	asksLast    = 0.25 // with so much penalty a node is asked after all others
	speedWeight = 0.3  // of a new measurement
)

// record is what is remembered of another node.
type record struct {
	rate    float64 // bytes/s, smoothed; 0: not measured
	penalty float64 // at the time of since
	since   time.Time
	used    time.Time
}

func (r *record) fault(now time.Time) float64 {
	return r.penalty * math.Exp2(-now.Sub(r.since).Seconds()/penaltyHalf.Seconds())
}

// PeerSpeed is how fast a node has sent.
type PeerSpeed struct {
	Peer peer.ID
	Rate float64 // bytes/s, smoothed; 0: not measured
	Last bool    // it has done wrong lately, and is asked last
}

// note changes what is remembered of a node. When there are too many the one longest unused is forgotten.
func (x *Exchange) note(id peer.ID, change func(*record, time.Time)) {
	now := x.now()
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.peers[id]
	if r == nil {
		if len(x.peers) >= maxPeers {
			var oldest peer.ID
			for id, r := range x.peers {
				if oldest == "" || r.used.Before(x.peers[oldest].used) {
					oldest = id
				}
			}
			delete(x.peers, oldest)
		}
		r = &record{}
		x.peers[id] = r
	}
	r.used = now
	change(r, now)
}

// measured takes in how fast a node has sent just now.
func (x *Exchange) measured(id peer.ID, rate float64) {
	x.note(id, func(r *record, _ time.Time) {
		if r.rate == 0 {
			r.rate = rate
		} else {
			r.rate += speedWeight * (rate - r.rate)
		}
	})
}

// blame gives a node a penalty.
func (x *Exchange) blame(id peer.ID, penalty float64) {
	x.note(id, func(r *record, now time.Time) {
		r.penalty, r.since = min(r.fault(now)+penalty, maxPenalty), now
	})
}

// rate is how fast a node has sent, 0 when nobody knows.
func (x *Exchange) rate(id peer.ID) float64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	if r := x.peers[id]; r != nil {
		return r.rate
	}
	return 0
}

// class orders nodes coarsely: lower ones are asked first. One that was never measured is given its chance.
func (x *Exchange) class(id peer.ID, now time.Time) int {
	r := x.peers[id]
	switch {
	case r == nil:
		return 0
	case r.fault(now) >= asksLast:
		return 100
	case r.rate == 0:
		return 0
	}
	return max(0, 20-int(math.Log2(r.rate)/2)) // from 1 TiB/s down, by factors of four
}

// penalised reports whether a node is to be asked last.
func (x *Exchange) penalised(id peer.ID) bool {
	now := x.now()
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.peers[id]
	return r != nil && r.fault(now) >= asksLast
}

// rank puts the faster nodes first and those with a penalty last, and otherwise keeps the order.
func (x *Exchange) rank(ids []peer.ID) []peer.ID {
	now := x.now()
	x.mu.Lock()
	defer x.mu.Unlock()
	slices.SortStableFunc(ids, func(a, b peer.ID) int { return cmp.Compare(x.class(a, now), x.class(b, now)) })
	return ids
}

// speeds lists the fastest nodes.
func (x *Exchange) speeds() (list []PeerSpeed) {
	now := x.now()
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, r := range x.peers {
		list = append(list, PeerSpeed{id, r.rate, r.fault(now) >= asksLast})
	}
	slices.SortFunc(list, func(a, b PeerSpeed) int {
		return cmp.Or(cmp.Compare(b.Rate, a.Rate), cmp.Compare(a.Peer, b.Peer))
	})
	return list[:min(len(list), maxSpeeds)]
}

// hadBy remembers who sent blocks of a DAG.
func (x *Exchange) hadBy(root cid.Cid, ids []peer.ID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.holders) >= maxHolders {
		clear(x.holders)
	}
	x.holders[root] = ids[:min(len(ids), maxStreams)]
}

// holding names who has a DAG, as far as this node can tell without asking anybody.
func (x *Exchange) holding(ctx context.Context, root cid.Cid) (ids []peer.ID) {
	if x.ask != nil {
		ids = slices.Clone(x.ask(ctx, root))
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return append(ids, x.holders[root]...)
}

// reserve counts a stream to a node, if that will serve one more.
func (x *Exchange) reserve(id peer.ID) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.asking[id] >= peerStreams {
		return false
	}
	x.asking[id]++
	return true
}

func (x *Exchange) unreserve(id peer.ID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.asking[id]--; x.asking[id] == 0 {
		delete(x.asking, id)
	}
}
