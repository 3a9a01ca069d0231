package replica

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// meetAll speaks to everybody that meetSome would speak to in the end.
func (m *Manager) meetAll() { m.meetSome(true) }

// meetSome speaks to those whom this node keeps something with, connected or not: to those who are silent less and less often. To others
// that are connected it does so now and then, as it must know of their room, or if it is to be all. Whom it has nothing to do with it forgets.
func (m *Manager) meetSome(all bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for id := range m.common {
		if m.peers[id] == nil {
			m.peers[id] = &node{since: now}
		}
	}
	for id, n := range m.peers {
		_, partner := m.common[id]
		switch {
		case n.up && (all || partner || !n.known || now.Sub(n.tried) >= roomEvery), partner && (!n.mute || now.Sub(n.tried) >= now.Sub(n.since)/8):
			n.tried = now
			m.spawn(func() { m.meet(id) })
		case !partner && !n.up:
			delete(m.peers, id)
		}
	}
}

// meet finds out whether this node and a peer have the same records that concern both, and exchanges them if not.
func (m *Manager) meet(id peer.ID) {
	select {
	case m.greet <- struct{}{}:
		defer func() { <-m.greet }()
	case <-m.ctx.Done():
		return
	}
	same := m.commonWith(id)
	p, err := m.call(m.ctx, id, request{Common: &same})
	if err != nil {
		m.log.Debug("not met", "peer", id, "err", err)
		m.missed(id)
		return
	}
	if !p.Differ {
		return
	}
	var have []item
	m.mu.Lock()
	for _, e := range m.entries {
		if e.Record.concerns(id) {
			have = append(have, item{e.Record.Root, e.Record.Version})
		}
	}
	m.mu.Unlock()
	for len(have) > 0 {
		page := have[:min(len(have), maxItems)]
		have = have[len(page):]
		p, err := m.call(m.ctx, id, request{Have: page})
		if err != nil {
			m.log.Debug("pins not compared", "peer", id, "err", err)
			return
		}
		if err := m.merge(m.ctx, p.Newer); err != nil {
			m.log.Error("pins", "err", err)
			return
		}
		if len(p.Want) == 0 {
			continue
		}
		var put []record
		m.mu.Lock()
		for _, l := range p.Want {
			if e := m.entries[l.Cid]; e != nil {
				put = append(put, e.Record)
			}
		}
		m.mu.Unlock()
		m.tell(id, put)
	}
}

// tell sends records to a peer. What does not get there is told when the two meet next.
func (m *Manager) tell(id peer.ID, records []record) {
	for page := range slices.Chunk(records, maxItems) {
		if _, err := m.call(m.ctx, id, request{Put: page}); err != nil {
			m.log.Debug("pins not told", "peer", id, "err", err)
			return
		}
	}
}

// compare finds what another node has older and newer than this one.
func (m *Manager) compare(from peer.ID, have []item) (newer []record, want []grid.Link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, it := range have {
		switch e := m.entries[it.Root.Cid]; {
		case e == nil || e.Record.Version.before(it.Version):
			want = append(want, it.Root)
		case it.Version.before(e.Record.Version):
			newer = append(newer, e.Record)
		}
	}
	return newer, want
}

// merge takes in records that are newer than those here, as far as they are of concern.
func (m *Manager) merge(ctx context.Context, records []record) error {
	if len(records) == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range records {
		e := m.entries[r.Root.Cid]
		switch {
		case e == nil && !r.concerns(m.self):
			continue
		case e == nil && len(m.entries) >= maxPins:
			return grid.Errorf(grid.Limit, "this node keeps as many pins as it can, %d", maxPins)
		case e == nil:
			e = &entry{}
			m.entries[r.Root.Cid] = e
		case !e.Record.Version.before(r.Version):
			continue
		}
		if e.Record.Manifest != r.Manifest {
			e.Shard = 0
		}
		m.replace(e, r)
		e.tries, e.next = 0, time.Time{}
		if err := m.save(ctx, e, false); err != nil {
			return err
		}
	}
	poke(m.due)
	return nil
}

// state tells what this node has of a pin; deep, after looking for every block.
func (m *Manager) state(ctx context.Context, root cid.Cid, deep bool) state {
	if deep {
		m.recheck(ctx, root)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[root]
	if e == nil {
		return state{}
	}
	return state{Known: true, Record: e.Record, Whole: e.Whole, Shard: e.Shard, Note: e.note}
}

// questions are the roots that each of some nodes is to be asked about.
type questions map[peer.ID][]grid.Link

// answers are what nodes said, by root. Who did not answer is missing.
type answers map[cid.Cid]map[peer.ID]state

// ask collects what nodes have of pins.
func (m *Manager) ask(ctx context.Context, q questions, deep bool) answers {
	var mu sync.Mutex
	all := answers{}
	var wg sync.WaitGroup
	for id, roots := range q {
		wg.Go(func() {
			for page := range slices.Chunk(roots, maxItems) {
				p, err := m.call(ctx, id, request{Ask: page, Deep: deep})
				if err != nil {
					m.log.Debug("no word about pins", "peer", id, "err", err)
					return
				}
				mu.Lock()
				for i, l := range page {
					all.add(l.Cid, id, p.States[i])
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return all
}

func (a answers) add(root cid.Cid, id peer.ID, s state) {
	if a[root] == nil {
		a[root] = map[peer.ID]state{}
	}
	a[root][id] = s
}

// about asks some nodes about one root.
func about(root cid.Cid, of []peer.ID) questions {
	q := questions{}
	for _, id := range of {
		q[id] = []grid.Link{{Cid: root}}
	}
	return q
}

// others lists which of some nodes may answer, without this one: those that are there, and those of which it is not known.
func (m *Manager) others(ids []peer.ID) []peer.ID {
	m.mu.Lock()
	defer m.mu.Unlock()
	some := map[peer.ID]struct{}{}
	for _, id := range ids {
		if n := m.peers[id]; id != m.self && (n == nil || n.up || !n.mute) {
			some[id] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(some))
}

// letGo gives up what this node need not keep, if those who are to keep it say that they have it.
func (m *Manager) letGo(r record) {
	states := m.ask(m.ctx, about(r.Root.Cid, m.others(r.Holders)), false)[r.Root.Cid]
	have := 0
	for i, id := range r.Holders {
		s := states[id]
		if id == m.self { // its shard was made before; see own
			have++
			continue
		}
		if s.Known && s.Record.Version == r.Version && s.kept().has(i) {
			have++
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[r.Root.Cid]
	if e == nil {
		return
	}
	e.asking = false
	if e.Record.Version != r.Version {
		poke(m.due)
		return
	}
	if have < r.wanted() {
		m.retry(e, "")
		return
	}
	e.Whole, e.Part, e.tries, e.next = false, false, 0, time.Time{}
	if place := r.place(m.self); r.coded() && place >= 0 {
		e.Shard = place + 1
	} else {
		e.Shard = 0
	}
	if err := m.save(m.ctx, e, false); err != nil {
		m.log.Error("pins", "err", err)
	}
	m.log.Info("a copy was let go, the others have theirs", "root", r.Root)
}
