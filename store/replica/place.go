package replica

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/store/placement"
)

// view is the nodes as they stand at a moment.
type view struct {
	nodes map[peer.ID]placement.Node // that are up and have said what they are
	lost  func(peer.ID) bool
}

// view takes a look around. The caller holds mu for as long as it is used.
func (m *Manager) view(now time.Time, free uint64) view {
	v := view{nodes: map[peer.ID]placement.Node{}, lost: func(id peer.ID) bool { return m.lost(id, now) }}
	for id, n := range m.peers {
		if n.up && n.known {
			v.nodes[id] = placement.Node{ID: id, Zone: n.Zone, Free: n.Free, Draining: n.Draining}
		}
	}
	v.nodes[m.self] = placement.Node{ID: m.self, Zone: m.cfg.Zone, Free: free, Draining: m.draining}
	return v
}

// holders says who is to hold a pin: those who do, unless they are lost or draining and somebody can take
// their place. A place that nobody can take stays with who has it.
func (v view) holders(r *record) []peer.ID {
	var stay []peer.ID // whom nothing speaks against
	for _, id := range r.Holders {
		if n, known := v.nodes[id]; !v.lost(id) && !(known && n.Draining) {
			stay = append(stay, id)
		}
	}
	chosen := v.choose(r, stay)
	want := r.wanted()
	fresh := slices.DeleteFunc(slices.Clone(chosen), func(id peer.ID) bool { return slices.Contains(r.Holders, id) })
	if r.coded() { // a holder's place is its shard
		next := slices.Clone(r.Holders)
		for i, id := range next {
			if len(fresh) > 0 && !slices.Contains(stay, id) {
				next[i], fresh = fresh[0], fresh[1:]
			}
		}
		return next
	}
	next := make([]peer.ID, 0, want)
	for _, id := range r.Holders {
		if slices.Contains(chosen, id) {
			next = append(next, id)
		}
	}
	next = append(next, fresh...)
	for _, id := range r.Holders {
		if len(next) < want && !slices.Contains(next, id) {
			next = append(next, id)
		}
	}
	return next
}

// choose picks nodes for a pin, of which some are to stay.
func (v view) choose(r *record, stay []peer.ID) []peer.ID {
	room := uint64(r.Size)
	if r.coded() {
		room /= uint64(r.Code.Data)
	}
	var nodes []placement.Node
	for _, id := range stay {
		n, known := v.nodes[id]
		if !known { // away, but not for long
			n = placement.Node{ID: id}
		}
		n.Free = max(n.Free, room+1) // it has room: it has the data
		nodes = append(nodes, n)
	}
	for id, n := range v.nodes {
		if !slices.Contains(stay, id) && !n.Draining && n.Free > room {
			nodes = append(nodes, n)
		}
	}
	return placement.Choose(r.Root.Hash(), nodes, r.wanted(), stay)
}
