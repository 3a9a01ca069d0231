package grid

import "github.com/libp2p/go-libp2p/core/peer"

// of fills in what a node knows of itself: its slots, and the labels that it gives itself.
func (c Capacity) of(self peer.ID, slots int) Capacity {
	c.Slots, c.Labels = slots, c.Labels.With(self)
	return c
}

// capacityIn is what a node's entry in the ledger says it has; ok is false when it does not say, or nonsense.
func capacityIn(e Entry) (c Capacity, ok bool) {
	var info NodeInfo
	if Unmarshal(e.Value, &info) != nil || info.Has.Check() != nil || info.Has.Slots == 0 && info.Has.Labels == nil {
		return Capacity{}, false
	}
	return info.Has, true
}

// capacity is what a node of the realm says in the ledger that it has.
func (r *realm) capacity(id peer.ID) (Capacity, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.has[id]
	return c, ok
}
