package grid

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// maxLikely bounds the DAGs of which it is remembered who is likely to have them.
	maxLikely = 1 << 14
	// likelyTime bounds the search for those who keep a job's result, likelyMost how many of them are asked.
	likelyTime = time.Second
	likelyMost = 8
)

// likely remembers who is likely to have what the tasks of other nodes' jobs have left: nobody announces that, as
// it lies below a job's result.
type likely struct {
	mu   sync.Mutex
	of   map[cid.Cid]holders
	ring []cid.Cid // the keys of the map, of which next is the oldest once they are maxLikely
	next int
}

// holders are those who may have a DAG: who made it, and who keeps the result that it is of.
type holders struct {
	maker  peer.ID
	keeper []peer.ID // shared
}

func (l *likely) note(c cid.Cid, h holders) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = make(map[cid.Cid]holders)
	}
	if _, again := l.of[c]; !again {
		if len(l.ring) < maxLikely {
			l.ring = append(l.ring, c)
		} else {
			delete(l.of, l.ring[l.next])
			l.ring[l.next] = c
			l.next = (l.next + 1) % maxLikely
		}
	}
	l.of[c] = h
}

// nodes lists who is likely to have some DAGs.
func (l *likely) nodes(roots []cid.Cid) (out []peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.of) == 0 {
		return nil
	}
	for _, c := range roots {
		h, ok := l.of[c]
		if !ok {
			continue
		}
		for _, id := range append(h.keeper[:len(h.keeper):len(h.keeper)], h.maker) {
			if len(out) < maxSources && id != "" && !slices.Contains(out, id) {
				out = append(out, id)
			}
		}
	}
	return out
}

// also adds to some peers those who are likely to have DAGs, as far as they are connected.
func (n *Node) also(from []peer.ID, roots ...cid.Cid) []peer.ID {
	more := n.likely.nodes(roots)
	if len(more) == 0 {
		return from
	}
	return append(from[:len(from):len(from)], n.live(more...)...)
}

// keepers lists connected nodes that keep the result of a job: its owner or, when that is gone, those who announce
// it.
func (n *Node) keepers(ctx context.Context, rec *Record, root Link) []peer.ID {
	if from := n.live(rec.Owner); len(from) > 0 || rec.Owner == n.self || len(n.Network.Peers()) == 0 {
		return from
	}
	ctx, cancel := context.WithTimeout(ctx, likelyTime)
	defer cancel()
	all, err := n.Network.Providers(ctx, root.Cid, likelyMost)
	if err != nil {
		n.log.Debug("no providers", "root", root, "err", err)
	}
	return n.live(all...)
}
