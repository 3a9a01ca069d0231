package replica

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/dag"
)

// Pin is told at grid.Pins.
func (m *Manager) Pin(ctx context.Context, p grid.Pin) (grid.PinStatus, error) {
	if p.Replicas == 0 && p.Code == (grid.Coding{}) {
		p.Replicas = m.cfg.Default
	}
	if err := p.Check(); err != nil {
		return grid.PinStatus{}, grid.Errorf(grid.CodeOf(err), "store: %w", err)
	}
	r, err := m.promise(ctx, p)
	if err != nil {
		return grid.PinStatus{}, grid.Errorf(codeOf(err), "store: pin %s: %w", p.Root, err)
	}
	m.mu.Lock()
	m.spawn(func() {
		for _, id := range m.others(r.all()) {
			m.tell(id, []record{r})
		}
		m.provide(r.Root.Cid)
	})
	m.mu.Unlock()
	poke(m.due)
	return m.Status(ctx, p.Root.Cid, false)
}

// promise records a pin of what is here.
func (m *Manager) promise(ctx context.Context, p grid.Pin) (record, error) {
	defer m.hold(&record{Root: p.Root})()
	missing, size, err := dag.Missing(ctx, m.cfg.Blocks, p.Root.Cid, 1)
	if err != nil {
		return record{}, err
	}
	if len(missing) > 0 {
		return record{}, grid.Errorf(grid.NotFound, "its block %s is not here", missing[0]).Hint("fetch or add the data first")
	}
	if err := m.cfg.Blocks.Sync(ctx); err != nil {
		return record{}, err
	}
	now := time.Now()
	r := record{
		Root: p.Root, Name: p.Name, Replicas: p.Replicas, Code: p.Code, Size: size,
		Created: now.Unix(), Changed: now.Unix(), By: m.self, Version: version{Edit: edit(now), Node: m.self},
	}
	free := m.free()
	if r.coded() {
		defer m.cfg.Keeper.HoldUsed()() // what is made is below no root until the pin is recorded
		m.mu.Lock()
		probe := r // before all the work
		err := m.placeShards(&probe, m.view(now, free))
		m.mu.Unlock()
		if err != nil {
			return record{}, err
		}
		if r.Manifest, err = m.encode(ctx, &r); err != nil {
			return record{}, err
		}
	}

	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[p.Root.Cid]
	switch {
	case e != nil:
		r.Version.Edit = max(r.Version.Edit, e.Record.Version.Edit+1)
		if !e.Record.Gone {
			r.Created, r.By = e.Record.Created, e.Record.By
			if r.Name == "" {
				r.Name = e.Record.Name
			}
		}
	case len(m.entries) >= maxPins:
		return record{}, grid.Errorf(grid.Limit, "this node keeps as many pins as it can, %d", maxPins)
	default:
		e = &entry{}
	}
	v := m.view(now, free)
	if r.coded() {
		if err := m.placeShards(&r, v); err != nil {
			return record{}, err
		}
	} else {
		r.Holders = []peer.ID{m.self}
		if e.Record.Version.Edit > 0 && !e.Record.Gone && !e.Record.coded() {
			r.Holders, r.Former = e.Record.Holders, e.Record.Former
		}
		r = r.held(v.holders(&r))
	}
	old := e.kept
	m.replace(e, r)
	e.Whole, e.Shard, e.Part = true, 0, false
	if err := m.save(ctx, e, true); err != nil {
		m.replace(e, old.Record)
		e.kept = old
		return record{}, err
	}
	e.note, e.tries, e.next = "", 0, time.Time{}
	e.chose(old.Record.Holders, now)
	m.entries[p.Root.Cid] = e
	return r, nil
}

// edit numbers what somebody says of a pin now. Another node may know of earlier words that this one does not, such as that
// the pin was taken back: so it is the time, in seconds, and one more than what is known.
func edit(now time.Time) uint64 { return uint64(max(now.Unix(), 1)) }

// Unpin is told at grid.Pins.
func (m *Manager) Unpin(ctx context.Context, root cid.Cid) error {
	r, err := m.find(ctx, root)
	if err != nil {
		return grid.Errorf(codeOf(err), "store: unpin %s: %w", root, err)
	}
	now := time.Now()
	r.Version.Edit = max(r.Version.Edit+1, edit(now))
	r.Version.Node = m.self
	r.Gone, r.Changed = true, now.Unix()
	if !r.concerns(m.self) { // whoever has not heard hears when it meets this node
		r.Former = append([]peer.ID{m.self}, r.Former[:min(len(r.Former), grid.MaxCopies-1)]...)
	}
	m.mu.Lock()
	e := m.entries[root]
	if e == nil {
		e = &entry{}
		m.entries[root] = e
	}
	m.replace(e, r)
	e.Whole, e.Shard, e.Part = false, 0, false
	err = m.save(ctx, e, true)
	m.spawn(func() {
		for _, id := range m.others(r.all()) {
			m.tell(id, []record{r})
		}
	})
	m.mu.Unlock()
	if err != nil {
		return grid.Errorf(codeOf(err), "store: unpin %s: %w", root, err)
	}
	return nil
}

// find looks for the record of a pin, here and with the nodes that are connected.
func (m *Manager) find(ctx context.Context, root cid.Cid) (record, error) {
	m.mu.Lock()
	e := m.entries[root]
	var r record
	if e != nil {
		r = e.Record
	}
	var peers []peer.ID
	for id, n := range m.peers {
		if n.up {
			peers = append(peers, id)
		}
	}
	m.mu.Unlock()
	if e == nil {
		for _, s := range m.ask(ctx, about(root, peers[:min(len(peers), maxAsked)]), false)[root] {
			if s.Known && (!r.Root.Defined() || r.Version.before(s.Record.Version)) {
				r = s.Record
			}
		}
	}
	if !r.Root.Defined() || r.Gone {
		return r, grid.Errorf(grid.NotFound, "there is no such pin here, nor on the %d nodes that are connected", len(peers)).
			Hint("`grid pin ls` lists the pins that this node knows")
	}
	return r, nil
}

// maxAsked bounds the nodes that are asked about a pin that is not known here.
const maxAsked = 64

// Holders names the nodes that are up and should have a part of a pin that this node knows.
func (m *Manager) Holders(root cid.Cid) []peer.ID {
	m.mu.Lock()
	e := m.entries[root]
	var r record
	if e != nil && !e.Record.Gone {
		r = e.Record
	}
	m.mu.Unlock()
	return m.others(r.Holders)
}

// Pins is told at grid.Pins.
func (m *Manager) Pins(ctx context.Context) ([]grid.PinStatus, error) {
	var records []record
	q := questions{}
	m.mu.Lock()
	for _, e := range m.entries {
		r := e.Record
		if r.Gone || r.By != m.self && r.place(m.self) < 0 && !e.some() {
			continue
		}
		records = append(records, r)
		for _, id := range r.Holders {
			if id != m.self && m.up(id) {
				q[id] = append(q[id], r.Root)
			}
		}
	}
	m.mu.Unlock()
	all := m.ask(ctx, q, false)
	slices.SortFunc(records, func(a, b record) int {
		return cmp.Or(cmp.Compare(a.Created, b.Created), cmp.Compare(a.Root.KeyString(), b.Root.KeyString()))
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]grid.PinStatus, len(records))
	for i := range records {
		list[i] = m.describe(&records[i], all[records[i].Root.Cid])
	}
	return list, nil
}

// Status is told at grid.Pins.
func (m *Manager) Status(ctx context.Context, root cid.Cid, deep bool) (grid.PinStatus, error) {
	r, err := m.find(ctx, root)
	if err != nil {
		return grid.PinStatus{}, grid.Errorf(codeOf(err), "store: pin %s: %w", root, err)
	}
	if deep {
		m.recheck(ctx, root)
	}
	all := answers{}
	asked := map[peer.ID]bool{}
	for { // until nobody knows of a newer record, whose holders would have to be asked
		of := slices.DeleteFunc(m.others(r.all()), func(id peer.ID) bool { return asked[id] })
		if len(of) == 0 {
			break
		}
		for id, s := range m.ask(ctx, about(root, of), deep)[root] {
			all.add(root, id, s)
			if s.Known && r.Version.before(s.Record.Version) {
				r = s.Record
			}
		}
		for _, id := range of {
			asked[id] = true
		}
	}
	if r.Gone {
		return grid.PinStatus{}, grid.Errorf(grid.NotFound, "store: pin %s: it was taken back", root)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.describe(&r, all[root]), nil
}

// describe tells how a pin stands, from what its nodes say. The caller holds mu.
func (m *Manager) describe(r *record, said map[peer.ID]state) grid.PinStatus {
	if e := m.entries[r.Root.Cid]; e != nil {
		said = maps.Clone(said)
		if said == nil {
			said = map[peer.ID]state{}
		}
		said[m.self] = state{true, e.Record, e.Whole, e.Shard, e.note}
	}
	st := grid.PinStatus{Pin: r.pin(), Copies: []grid.Copy{}}
	parts := map[int]bool{} // that somebody has
	whole := false          // somebody has all of it
	see := func(id peer.ID, s state) {
		whole = whole || s.Whole
		if s.Shard > 0 && s.Record.Manifest == r.Manifest {
			parts[s.Shard] = true
		}
	}
	for i, id := range r.Holders {
		s, heard := said[id]
		see(id, s)
		c := grid.Copy{Node: id, State: grid.CopyFetching, Note: s.Note}
		if r.coded() {
			c.Shard = i + 1
		}
		switch n := m.peers[id]; {
		case heard && s.Known && (s.Whole || s.Record.Manifest == r.Manifest) && s.kept().has(i):
			c.State, c.Note = grid.CopyDurable, ""
		case heard:
		case n != nil && !n.there(time.Now()):
			c.State, c.Note = grid.CopyUnreachable, fmt.Sprintf("gone for %v", time.Since(n.since).Round(time.Second))
		default:
			c.State, c.Note = grid.CopyUnreachable, "does not answer"
		}
		st.Copies = append(st.Copies, c)
	}
	for _, id := range slices.Sorted(maps.Keys(said)) {
		s := said[id]
		if r.place(id) < 0 && (s.Whole || s.Shard > 0) {
			see(id, s)
			st.Copies = append(st.Copies, grid.Copy{Node: id, Shard: s.Shard, State: grid.CopySurplus})
		}
	}
	switch {
	case st.Durable() >= r.wanted():
		st.Health = grid.Healthy
	case whole, r.coded() && len(parts) >= r.Code.Data:
		st.Health = grid.Degraded
	default:
		st.Health = grid.Lost
	}
	if missing := r.wanted() - len(r.Holders); missing > 0 {
		st.Note = fmt.Sprintf("no node is there for %d more, with %d bytes free", missing, r.Size)
	}
	return st
}

// Roots calls yield for the roots of everything that is to stay here, and for single blocks of shards.
func (m *Manager) Roots(ctx context.Context, yield func(cid.Cid)) error {
	m.mu.Lock()
	var roots []cid.Cid // yield is called without mu, since it may take locks of others
	var mine []kept
	for _, e := range m.entries {
		if e.Record.Gone {
			continue
		}
		if e.beyondShard() || !e.Record.coded() && e.Record.place(m.self) >= 0 {
			roots = append(roots, e.Record.Root.Cid)
		}
		if e.Record.coded() && (e.Shard > 0 || e.Record.place(m.self) >= 0) {
			mine = append(mine, e.kept)
		}
	}
	m.mu.Unlock()
	for _, c := range roots {
		yield(c)
	}
	for i := range mine {
		if err := m.shardRoots(ctx, &mine[i], yield); err != nil {
			return err
		}
	}
	return nil
}

// Stats is what this node knows of pins without asking anybody.
type Stats struct {
	Pins   int    // of which it keeps a part
	Short  int    // of these, with fewer holders that are up than were promised, or not all here yet
	Bytes  uint64 // of all
	Made   uint64 // parts that were brought or calculated here since the manager was opened
	Failed uint64 // tries of that which failed
}

// Stats tells it.
func (m *Manager) Stats() (s Stats) {
	s.Made, s.Failed = m.made.Load(), m.unmade.Load()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.entries {
		r := &e.Record
		place := r.place(m.self)
		if r.Gone || place < 0 {
			continue
		}
		s.Pins++
		s.Bytes += uint64(max(r.Size, 0))
		up := 0
		for _, id := range r.Holders {
			if m.up(id) {
				up++
			}
		}
		if up < r.wanted() || !e.has(place) {
			s.Short++
		}
	}
	return s
}

// Drain is told at grid.Pins.
func (m *Manager) Drain(ctx context.Context, on bool) error {
	key := datastore.RawKey(drainKey)
	var err error
	if on {
		err = m.cfg.State.Put(ctx, key, []byte{1})
	} else {
		err = m.cfg.State.Delete(ctx, key)
	}
	if err == nil {
		err = m.cfg.State.Sync(ctx, key)
	}
	if err != nil {
		return grid.Errorf(codeOf(err), "store: drain: %w", err)
	}
	m.mu.Lock()
	m.draining = on
	m.mu.Unlock()
	m.meetAll()
	poke(m.due)
	return nil
}

// Draining is told at grid.Pins.
func (m *Manager) Draining(context.Context) (grid.DrainStatus, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := grid.DrainStatus{Draining: m.draining}
	for _, e := range m.entries {
		if e.Record.Gone || !e.some() && e.Record.place(m.self) < 0 {
			continue
		}
		st.Left++
		st.Bytes += e.Record.Size
		if m.draining && e.Record.place(m.self) >= 0 {
			st.Note = "no other node can take " + e.Record.Root.String()
		}
	}
	return st, nil
}
