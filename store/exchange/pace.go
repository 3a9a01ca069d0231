package exchange

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"github.com/wasmgrid/wasmgrid/grid"
)

// MinPerPeer is the least that Config.PerPeer may be: with less, streams of one peer that share it would wait for longer
// than clients do.
const MinPerPeer = 16 << 20

// maxPaces bounds how many peers are told apart. Those that wait for nothing go first.
const maxPaces = 1024

// paces are how fast peers are served. They are nil when there is no bound.
type paces struct {
	perPeer int // bytes/s, and at once

	mu sync.Mutex
	of map[peer.ID]*rate.Limiter // that of "" is for peers that are too many
}

func newPaces(perPeer int64) *paces {
	if perPeer <= 0 {
		return nil
	}
	return &paces{perPeer: int(max(perPeer, MinPerPeer)), of: make(map[peer.ID]*rate.Limiter)}
}

// limiter is a peer's.
func (p *paces) limiter(from peer.ID, now time.Time) *rate.Limiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of[from] == nil && len(p.of) >= maxPaces {
		for id, l := range p.of {
			if l.TokensAt(now) >= float64(p.perPeer) {
				delete(p.of, id)
			}
		}
		if len(p.of) >= maxPaces {
			from = ""
		}
	}
	if p.of[from] == nil {
		p.of[from] = rate.NewLimiter(rate.Limit(p.perPeer), p.perPeer)
	}
	return p.of[from]
}

// wait waits until a peer may be sent n bytes more. before is called if that is not at once.
func (p *paces) wait(ctx context.Context, from peer.ID, n int, before func() error) error {
	if p == nil {
		return nil
	}
	now := time.Now()
	l := p.limiter(from, now)
	if l.AllowN(now, n) {
		return nil
	}
	if err := before(); err != nil {
		return err
	}
	if err := l.WaitN(ctx, n); err != nil {
		return grid.Errorf(grid.Busy, "there is too much to be sent: %w", err)
	}
	return nil
}
