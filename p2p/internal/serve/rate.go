package serve

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"github.com/wasmgrid/wasmgrid/grid"
)

// maxBuckets bounds how many peers and protocols are told apart. It is far more than there are connections and
// protocols; the newest of still more share one bucket for each protocol.
const maxBuckets = 1 << 14

// rates are the buckets of tokens of peers. A bucket that is full says nothing that a new one would not, so those go
// when room is needed.
type rates struct {
	of map[grid.Protocol]grid.Rate // never changed

	mu      sync.Mutex
	buckets map[bucketKey]*rate.Limiter
	swept   time.Time // when full buckets were last looked for
	running map[bucketKey]int
}

// bucketKey names a bucket. Without a peer it is that of all who have none of their own.
type bucketKey struct {
	from peer.ID
	p    grid.Protocol
}

func newRates(of map[grid.Protocol]grid.Rate) rates {
	return rates{of: of, buckets: make(map[bucketKey]*rate.Limiter), running: make(map[bucketKey]int)}
}

// allow takes a token.
func (r *rates) allow(from peer.ID, p grid.Protocol, now time.Time) bool {
	of, ok := r.of[p]
	if !ok || of.PerSecond == 0 {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	k := bucketKey{from, p}
	b := r.buckets[k]
	if b == nil {
		if len(r.buckets) >= maxBuckets {
			r.sweep(now)
		}
		if len(r.buckets) >= maxBuckets {
			if k.from = ""; r.buckets[k] != nil {
				return r.buckets[k].AllowN(now, 1)
			}
		}
		b = rate.NewLimiter(rate.Limit(of.PerSecond), max(of.Burst, 1))
		r.buckets[k] = b
	}
	return b.AllowN(now, 1)
}

// sweep drops full buckets, at most once a second as it looks at all.
func (r *rates) sweep(now time.Time) {
	if now.Sub(r.swept) < time.Second {
		return
	}
	r.swept = now
	for k, b := range r.buckets {
		if b.TokensAt(now) >= float64(b.Burst()) {
			delete(r.buckets, k)
		}
	}
}

// begin counts one of what goes on at the same time; if it is true, end must follow.
func (r *rates) begin(from peer.ID, p grid.Protocol) bool {
	most := r.of[p].AtOnce
	if most == 0 {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	k := bucketKey{from, p}
	if r.running[k] >= most {
		return false
	}
	r.running[k]++
	return true
}

func (r *rates) end(from peer.ID, p grid.Protocol) {
	if r.of[p].AtOnce == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	k := bucketKey{from, p}
	if r.running[k]--; r.running[k] == 0 {
		delete(r.running, k)
	}
}
