package grid

import (
	"context"
	"math"

	"github.com/libp2p/go-libp2p/core/peer"
)

// What is pinned is known by the node that has pinned it, so that is what a quota on stored bytes bounds: what a node
// has pinned for its users, each copy counted. It is kept by that very node, when a pin is made or made larger. What
// jobs need and come to counts, too, and is not refused: they are bounded otherwise.

// stored is how many bytes are pinned by a node, each copy counted, but for one pin.
func (n *Node) stored(ctx context.Context, by peer.ID, but Link) (total int64, err error) {
	list, err := n.Pins.Pins(ctx)
	if err != nil {
		return 0, err
	}
	for i := range list {
		if p := &list[i]; p.By == by && p.Root != but {
			total = sumOf(total, p.bytes())
		}
	}
	return total, nil
}

// bytes is how much room a pin takes on all nodes together.
func (p *Pin) bytes() int64 {
	size := max(p.Size, 0)
	if p.Code != (Coding{}) {
		return int64(min(float64(size)*float64(p.Code.Shards())/float64(max(p.Code.Data, 1)), math.MaxInt64/2))
	}
	return int64(mulOf(int64(max(p.Replicas, 1)), size))
}

// pin makes a promise, or makes one larger, unless that is more than a quota allows.
func (n *Node) pin(ctx context.Context, p Pin) (PinStatus, error) {
	bounds, err := n.storedBounds(ctx)
	if err != nil {
		return PinStatus{}, err
	}
	if len(bounds) > 0 {
		n.pinning.Lock() // else pins that are made at once would not count for each other
		defer n.pinning.Unlock()
		if err := n.mayStore(ctx, p, bounds); err != nil {
			return PinStatus{}, err
		}
	}
	st, err := n.Pins.Pin(ctx, p)
	if err == nil {
		n.unlinger(p.Root.Cid)
	}
	return st, err
}

// storedBounds are the quotas on what this node pins.
func (n *Node) storedBounds(ctx context.Context) (list []Allowance, err error) {
	if n.Bound {
		return nil, nil
	}
	b, err := n.quotas(ctx)
	if err != nil || len(b) == 0 {
		return nil, err
	}
	for _, a := range b.of(Submitter{Node: n.self}) {
		if a.Stored > 0 && a.Subject[0] == '@' {
			list = append(list, a)
		}
	}
	return list, nil
}

// mayStore refuses a pin that is more than a quota allows.
func (n *Node) mayStore(ctx context.Context, p Pin, bounds []Allowance) error {
	info, err := n.Files.Stat(ctx, p.Root.Cid)
	if err != nil {
		return err
	}
	p.Size = info.Size
	has, err := n.stored(ctx, n.self, p.Root)
	if err != nil {
		return err
	}
	for _, a := range bounds {
		if will := sumOf(has, p.bytes()); will > a.Stored {
			return Errorf(Limit, "node %s has %s pinned, copies counted; with %s, of %s, that would be more than its quota, %s (%s)",
				n.self, sizeText(uint64(has)), p.Root, sizeText(uint64(p.bytes())), sizeText(uint64(a.Stored)), a.Subject).
				Hint("unpin something (`grid pin ls`), ask for fewer copies, or have the quota raised with `grid quota set %s --stored`", a.Subject)
		}
	}
	return nil
}

// withStored adds what is pinned to how a quota stands that bounds it.
func (n *Node) withStored(ctx context.Context, q QuotaStatus) QuotaStatus {
	if q.Allowance.Stored == 0 {
		return q
	}
	if _, node, err := ParseSubject(q.For); err == nil && node != "" {
		if has, err := n.stored(ctx, node, Link{}); err == nil {
			if q.Pinned = has; has >= q.Allowance.Stored {
				q.Over = sizeText(uint64(q.Allowance.Stored)) + " stored"
			}
		}
	}
	return q
}
