package grid

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
)

const (
	// defaultCopies survive the loss of two nodes at once.
	defaultCopies = 3
	// copiesTimeout bounds how long copies are waited for that are being made, idleTimeout how long for nodes
	// that do not answer.
	copiesTimeout = 30 * time.Second
	idleTimeout   = time.Second
	// firstLook and lastLook bound the pauses between looks at copies.
	firstLook = 2 * time.Millisecond
	lastLook  = 250 * time.Millisecond
	// knownWait bounds how long a node that has just started waits to hear of the others.
	knownWait = time.Second
)

// copies is on how many nodes something of a job is to be kept, and on how many of them it can be now. asked is
// how many its record says.
func (n *Node) copies(asked int) (want, now int) {
	if n.realm == nil {
		return 1, 1
	}
	want = cmp.Or(asked, n.Copies, defaultCopies)
	up := n.realm.up()
	now = len(up)
	if !slices.Contains(up, n.self) {
		now++
	}
	return want, min(want, now)
}

// secure has what a job needs copied to other nodes, and returns how many have all of it.
func (n *Node) secure(ctx context.Context, rec *Record) int {
	if n.realm == nil {
		return 0
	}
	t := time.NewTimer(knownWait)
	defer t.Stop()
	select {
	case <-n.realm.known:
	case <-t.C:
	case <-ctx.Done():
		return 0
	}
	want, now := n.copies(rec.Copies)
	if now <= 1 {
		return 0
	}
	p := Pin{Root: rec.Spec, Name: "job " + string(rec.ID), Replicas: want}
	durable, err := n.spread(ctx, p, now)
	if CodeOf(err) == NotFound { // not all of it is here: the rest is for others to keep
		held := holds{n: n}
		defer held.end()
		if rec.Kit, err = n.kit(ctx, rec, &held); err == nil {
			p.Root = rec.Kit
			durable, err = n.spread(ctx, p, now)
		}
	}
	if err != nil {
		n.log.Warn("what a job needs is not copied to other nodes", "job", rec.ID, "err", err)
		return 1
	}
	if durable < now {
		n.log.Warn("fewer nodes than wanted have what a job needs", "job", rec.ID, "nodes", durable, "want", want)
	}
	return durable
}

// kit lists in a table what is here of what a spec leads to, so that a pin of the table keeps all of it: the blocks
// of the spec and of its tables, as raw ones, which lead nowhere, and modules, mounts and inputs that are whole. The job's ID is in it, too: the pin goes with the job,
// and must not be another one's of the same spec. The table is held.
func (n *Node) kit(ctx context.Context, rec *Record, held *holds) (kit Link, err error) {
	defer n.HoldUsed()()
	data, err := n.Blocks.Get(ctx, rec.Spec.Cid)
	if err != nil {
		return Link{}, err
	}
	var spec Spec
	if err := Unmarshal(data, &spec); err != nil {
		return Link{}, err
	}
	t, seen := NewTable[Link](n.Blocks), map[cid.Cid]bool{}
	raw := func(c cid.Cid) error { return t.Add(ctx, Link{cid.NewCidV1(cid.Raw, c.Hash())}) }
	whole := func(c cid.Cid) error {
		if seen[c] {
			return nil
		}
		seen[c] = true
		if all, err := n.Files.Whole(ctx, c); err != nil || !all {
			return nil
		}
		return t.Add(ctx, Link{c})
	}
	own := NewBlock(cid.Raw, []byte(rec.ID))
	if err = n.Blocks.Put(ctx, own); err == nil {
		err = t.Add(ctx, Link{own.CID()})
	}
	err = errors.Join(err, raw(rec.Spec.Cid))
	for i := range spec.Stages {
		st := &spec.Stages[i]
		for _, c := range st.roots() {
			err = errors.Join(err, whole(c))
		}
		if err == nil && st.Inputs.Defined() {
			err = n.kitTable(ctx, st.Inputs, raw, whole)
		}
		if err != nil {
			return Link{}, err
		}
	}
	if kit, err = t.Close(ctx); err == nil {
		held.add(kit.Cid)
	}
	return kit, err
}

// kitTable calls raw for the blocks of a table of rows, and whole for their inputs.
func (n *Node) kitTable(ctx context.Context, table Link, raw, whole func(cid.Cid) error) error {
	rows, err := OpenTable[Row](ctx, func(ctx context.Context, c cid.Cid) ([]byte, error) { return n.block(ctx, c) }, table)
	if err != nil {
		return err
	}
	if err := raw(table.Cid); err != nil {
		return err
	}
	for _, part := range rows.index.Parts {
		if err := raw(part.CID.Cid); err != nil {
			return err
		}
	}
	for i := range rows.Len() {
		row, err := rows.Row(ctx, i)
		if err != nil {
			return err
		}
		for _, in := range row {
			if err := whole(in.CID.Cid); err != nil {
				return err
			}
		}
	}
	return nil
}

// spread pins something and waits until so many nodes have it durably, or it is no use to wait any longer. It
// returns how many have.
func (n *Node) spread(ctx context.Context, p Pin, least int) (durable int, err error) {
	st, err := n.Pins.Pin(ctx, p)
	if err != nil {
		return 0, err
	}
	return n.spreading(ctx, st, least)
}

// spreading is the waiting of spread.
func (n *Node) spreading(ctx context.Context, st PinStatus, least int) (durable int, err error) {
	began := time.Now()
	moved := began // when a copy was last being made
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		durable = max(st.Durable(), 1) // here it is
		now := time.Now()
		if slices.ContainsFunc(st.Copies, func(c Copy) bool { return c.State == CopyFetching }) {
			moved = now
		}
		if durable >= least || now.Sub(began) > copiesTimeout || now.Sub(moved) > idleTimeout {
			return durable, nil
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return durable, context.Cause(ctx)
		}
		if next, err := n.Pins.Status(ctx, st.Root.Cid, false); err == nil {
			st = next
		}
	}
}

// unpin takes back a pin of this node's making, if there is one.
func (n *Node) unpin(root Link) {
	if !root.Defined() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(n.ctx), callTimeout)
	defer cancel()
	if err := n.Pins.Unpin(ctx, root.Cid); err != nil && CodeOf(err) != NotFound {
		n.log.Warn("pin not taken back", "root", root, "err", err)
	}
}
