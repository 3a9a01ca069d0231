package ledger

import (
	"context"
	"slices"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// listTimeout bounds how long a node that leaves waits for the ledger to answer.
const listTimeout = 8 * time.Second

// Leave has this node belong to its realm no longer: it hands its vote over, if it has one, is taken off the list of nodes, and
// begins a realm of its own. It returns when that is so, and does nothing in a realm of one. The error is Unavailable when the ledger has no majority, and
// Conflict when this node keeps the only copy of it and no other could take that.
func (r *Realm) Leave(ctx context.Context) (err error) {
	leaving := func(so bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.leaving = so
	}
	leaving(true) // else the last of the others, alone by then, might follow
	defer func() {
		if err != nil {
			leaving(false)
		}
	}()
	id, self := r.realmID(), r.cfg.Network.Self()
	servers, prog := r.servers(), r.progress()
	votes := slices.ContainsFunc(servers, func(s server) bool { return s.ID == self && s.Voter })
	heir := slices.ContainsFunc(servers, func(s server) bool {
		p, heard := prog[s.ID]
		return s.ID != self && r.keeps(s.ID) && (s.Voter || heard && p.Heard < silence*r.cfg.Tick)
	})
	soon, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	others, err := r.listed(soon)
	if c := grid.CodeOf(err); c == grid.Unavailable || c == grid.Deadline {
		return grid.Errorf(grid.Unavailable, "ledger: it has no majority of its voters, by which this node would be taken off the list: %w", err).
			Hint("start some of the voters that are down: `grid ledger status` names them")
	}
	if err != nil {
		return err
	}
	switch {
	case others == 0:
		return nil
	case votes && !heir:
		return grid.Errorf(grid.Conflict, "ledger: this node keeps the only copy of the realm's ledger, and no other is ready to take it").
			Hint("wait until another node that may be a voter is up and has caught up: `grid ledger status` tells")
	}
	if err := r.Remove(ctx, self); err != nil && grid.CodeOf(err) != grid.NotFound { // it was before
		return err
	}
	if err := r.await(ctx, func() bool { return r.realmID() != id }); err != nil {
		return grid.Errorf(grid.CodeOf(err), "ledger: this node is off the realm's list, but still keeps the ledger: %w", err).
			Hint("it goes on handing it over: try again in a moment")
	}
	return nil
}

// listed counts the other nodes that are in the realm.
func (r *Realm) listed(ctx context.Context) (others int, err error) {
	self := r.cfg.Network.Self()
	_, err = grid.RangeAll(ctx, r, grid.MemberKeys, false, func(e grid.Entry) error {
		var rec record
		if err := decodeRecord(e, &rec); err != nil {
			return err
		}
		if !rec.Removed && e.Key != memberKey(self) {
			others++
		}
		return nil
	})
	return others, err
}

// noMajority tells what to do when the ledger does not answer.
func noMajority(err error) error {
	if c := grid.CodeOf(err); c == grid.Unavailable || c == grid.Deadline {
		return grid.Errorf(c, "%w", err).Hint("nodes are removed by a majority of the voters: start some of those that are down")
	}
	return err
}
