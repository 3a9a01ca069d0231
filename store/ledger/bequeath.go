package ledger

import (
	"context"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// A node that ends keeps its copy and its vote, and a realm whose nodes all end is there again when a majority of its voters is. There is one
// exception: the only voter leaves its vote to another node, if one says that it stays. Who has said so and is ended, too, waits
// until it has the vote: else the realm would need both of them to come back. Where nobody has a copy yet, as nodes have joined only
// now, one gets it first.

// heirLag is how many log entries an heir may lack when it is chosen; before it votes, it has them.
const heirLag = 256

// bequeathTimeout bounds how long a node that ends tries to leave its vote to another one, and how long that one waits for it.
const bequeathTimeout = 4 * time.Second

// heirTimeout bounds how long it looks for one that is able to take it.
const heirTimeout = 2 * time.Second

// copyTimeout bounds how long a node that ends, and has the only copy, has another one begun.
const copyTimeout = 5 * time.Second

// Close ends it and waits for all of it. The only voter leaves its vote to a node that stays, if there is one.
func (r *Realm) Close() error {
	r.mu.Lock()
	r.ending = true
	pledged := r.pledged
	r.mu.Unlock()
	r.inherit(pledged)
	r.copyFirst()
	r.stop()
	r.wg.Wait()
	r.bequeath()
	r.remember()
	return r.Ledger.Close()
}

// pledge has this node wait for the only vote of one that ends, should it be ended itself.
func (r *Realm) pledge(from peer.ID) error {
	votes := slices.Contains(r.servers(), server{from, true})
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !r.keeps(from):
		return grid.Errorf(grid.Denied, "ledger: %s may not keep the ledger", from)
	case !votes:
		return grid.Errorf(grid.Busy, "ledger: %s has no vote to leave, as far as this node knows by now", from)
	case r.ending || r.leaving:
		return grid.Errorf(grid.Unavailable, "ledger: this node is about to end")
	case !r.st.Replica || r.waiting:
		return grid.Errorf(grid.Busy, "ledger: this node is not ready to vote")
	}
	r.pledged = time.Now()
	return nil
}

// inherit waits, not for long, until this node is the only voter, as it has said a moment ago that it would be.
func (r *Realm) inherit(pledged time.Time) {
	ctx, cancel := context.WithDeadline(context.Background(), pledged.Add(bequeathTimeout))
	defer cancel()
	self := r.cfg.Network.Self()
	_ = r.await(ctx, func() bool {
		servers := r.servers()
		return slices.Contains(servers, server{self, true}) && !slices.ContainsFunc(servers, func(s server) bool { return s.ID != self && s.Voter })
	})
}

// copyFirst waits, not for long, until another node is about to have a copy, if this one has the only copy and there is one in the realm that may.
func (r *Realm) copyFirst() {
	ctx, cancel := context.WithTimeout(r.ctx, copyTimeout)
	defer cancel()
	_ = r.await(ctx, func() bool {
		if !r.isLeader() || len(r.servers()) > 1 {
			return true
		}
		later := time.Now().Add(r.cfg.Tick) // one that is busy is asked again by then
		r.mu.Lock()
		defer r.mu.Unlock()
		return !slices.ContainsFunc(r.cfg.Network.Peers(), func(p grid.PeerInfo) bool {
			m, ok := r.members[p.ID]
			return ok && !m.Removed && r.keeps(p.ID) && !r.shunned[p.ID].After(later)
		})
	})
}

// bequeath leaves the only vote to a learner that stays, so that the ledger goes on without this node.
func (r *Realm) bequeath() {
	if !r.isLeader() {
		return
	}
	self := r.cfg.Network.Self()
	servers := r.servers()
	if len(servers) < 2 || slices.ContainsFunc(servers, func(s server) bool { return s.ID != self && s.Voter }) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), bequeathTimeout)
	defer cancel()
	heir := r.heir(ctx, servers)
	if heir == "" {
		r.log.Info("no other node stays to leave the ledger to: it waits for this one")
		return
	}
	// From one vote to two, back to one. What is never allowed is that this node gives its vote up itself: should the heir
	// be gone by then, each of the two would take the other for the voter. The heir takes it, as no realm rests at two.
	err := r.promote(ctx, heir)
	if err == nil {
		last := r.lastIndex()
		err = r.await(ctx, func() bool { return r.progress()[heir].Applied >= last })
	}
	if err == nil {
		err = r.transfer(ctx, "")
	}
	if err == nil {
		err = r.await(ctx, func() bool {
			return slices.ContainsFunc(r.servers(), func(s server) bool { return s.ID == self && !s.Voter })
		})
	}
	if err != nil {
		r.log.Warn("the ledger was not left to another node; it may wait for this one", "heir", heir, "err", err)
		return
	}
	r.log.Info("the ledger is left to another node", "heir", heir)
}

// heir finds a learner that has nearly everything, and says that it stays.
func (r *Realm) heir(ctx context.Context, servers []server) (heir peer.ID) {
	ctx, cancel := context.WithTimeout(ctx, heirTimeout)
	defer cancel()
	self := r.cfg.Network.Self()
	ends := map[peer.ID]bool{}
	_ = r.await(ctx, func() bool { // it may be on its way to have everything
		prog, last := r.progress(), r.lastIndex()
		for _, s := range servers {
			p, ok := prog[s.ID]
			if !ok || s.ID == self || ends[s.ID] || last-min(p.Applied, last) > heirLag || p.Heard >= silence*r.cfg.Tick || !r.keeps(s.ID) {
				continue
			}
			g := r.greeting(s.ID)
			g.Do = doInherit
			if _, err := r.call(ctx, s.ID, g, heirTimeout/4); err != nil {
				r.log.Debug("it does not take the ledger", "peer", s.ID, "err", err)
				if grid.CodeOf(err) != grid.Busy { // else it may soon
					ends[s.ID] = true
				}
				continue
			}
			heir = s.ID
			return true
		}
		return len(ends) >= len(servers)-1
	})
	return heir
}
