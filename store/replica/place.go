package replica

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/placement"
)

// view is the nodes as they stand at a moment.
type view struct {
	self  placement.Node
	peers map[peer.ID]*node // the manager's
	now   time.Time
	zones map[string]struct{} // of those that are there
	lost  func(*record, peer.ID) bool
}

// view takes a look around. The caller holds mu for as long as it is used.
func (m *Manager) view(now time.Time, free uint64) view {
	v := view{
		self:  placement.Node{ID: m.self, Zone: m.cfg.Zone, Free: free, Draining: m.draining},
		peers: m.peers, now: now, zones: map[string]struct{}{m.cfg.Zone: {}}, lost: func(r *record, id peer.ID) bool {
			return m.lost(id, now) || m.neverCame(r, id, now)
		},
	}
	for _, n := range m.peers {
		if n.known && n.Zone != m.cfg.Zone && n.there(now) {
			v.zones[n.Zone] = struct{}{}
		}
	}
	return v
}

// node is one that is there and has said what it is.
func (v view) node(id peer.ID) (placement.Node, bool) {
	if id == v.self.ID {
		return v.self, true
	}
	if n := v.peers[id]; n != nil && n.known && n.there(v.now) {
		return placement.Node{ID: id, Zone: n.Zone, Free: n.Free, Draining: n.Draining}, true
	}
	return placement.Node{}, false
}

// settled reports, without a look at all the nodes, that holders would say what is: nothing speaks against any holder, and they are spread
// over zones as well as can be.
func (v view) settled(r *record) bool {
	if len(r.Holders) != r.wanted() {
		return false
	}
	var in [grid.MaxCopies]string // the holders' zones
	for i, id := range r.Holders {
		n, known := v.node(id)
		if v.lost(r, id) || known && n.Draining {
			return false
		}
		in[i] = n.Zone
	}
	zones := in[:len(r.Holders)]
	slices.Sort(zones)
	least, most, seen := len(zones), 0, 0
	for i := 0; i < len(zones); {
		of := i
		for i < len(zones) && zones[i] == zones[of] {
			i++
		}
		least, most = min(least, i-of), max(most, i-of)
		if _, ok := v.zones[zones[of]]; ok {
			seen++
		}
	}
	if seen < len(v.zones) {
		least = 0 // in some other zone
	}
	return most <= least+1
}

// holders says who is to hold a pin: those who do, unless they are lost or draining and somebody can take
// their place. A place that nobody can take stays with who has it.
func (v view) holders(r *record) []peer.ID {
	var stay []peer.ID // whom nothing speaks against
	for _, id := range r.Holders {
		if n, known := v.node(id); !v.lost(r, id) && !(known && n.Draining) {
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
		n, known := v.node(id)
		if !known { // away, but not for long
			n = placement.Node{ID: id}
		}
		n.Free = max(n.Free, room+1) // it has room: it has the data
		nodes = append(nodes, n)
	}
	may := func(id peer.ID) {
		if n, known := v.node(id); known && !slices.Contains(stay, id) && !n.Draining && n.Free > room {
			nodes = append(nodes, n)
		}
	}
	may(v.self.ID)
	for id := range v.peers {
		may(id)
	}
	return placement.Choose(r.Root.Hash(), nodes, r.wanted(), stay)
}
