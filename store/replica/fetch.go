package replica

import (
	"container/heap"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/dag"
)

const (
	doubtEvery = time.Minute
	paceBlocks = 32                // fetched at a time when the pace is limited
	paceBurst  = 2 * grid.MaxBlock // bytes; more than any block has
)

// fetcher brings what this node is to keep, the most endangered first.
func (m *Manager) fetcher() {
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-m.fetch:
		}
		for {
			m.mu.Lock()
			if len(m.queue) == 0 || m.ctx.Err() != nil {
				m.mu.Unlock()
				break
			}
			e := heap.Pop(&m.queue).(*entry)
			r := e.Record
			if len(m.queue) > 0 {
				poke(m.fetch) // for the others
			}
			m.mu.Unlock()
			place := r.place(m.self)
			var err error
			release := m.hold(&r)
			if place >= 0 && !r.Gone {
				err = m.obtain(m.ctx, &r, place)
			}
			m.obtained(e, &r, place, err)
			release()
		}
	}
}

// obtained books what came of a try.
func (m *Manager) obtained(e *entry, r *record, place int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e.queued = false
	if m.entries[r.Root.Cid] != e || m.ctx.Err() != nil {
		return
	}
	if err != nil {
		m.unmade.Add(1)
		m.log.Info("a copy could not be made yet", "root", r.Root, "err", err)
		m.retry(e, err.Error())
		return
	}
	if place >= 0 && e.Record.Manifest == r.Manifest {
		m.made.Add(1)
		e.note, e.tries, e.next = "", 0, time.Time{}
		if r.coded() {
			e.Shard = place + 1
		} else {
			e.Whole, e.Part = true, false
			m.spawn(func() { m.provide(r.Root.Cid) })
		}
		if err := m.save(m.ctx, e, true); err != nil {
			m.log.Error("pins", "err", err)
		}
		m.log.Info("a copy is durable", "root", r.Root, "shard", e.Shard)
	}
	poke(m.due) // the record may be another by now
}

// sources are the nodes that may have a pin's data.
func (m *Manager) sources(r *record) []peer.ID {
	return m.others(r.all())
}

// obtain makes this node's part of a pin durable here.
func (m *Manager) obtain(ctx context.Context, r *record, place int) error {
	if !r.coded() && m.free() < uint64(r.Size) {
		missing, _, err := dag.Missing(ctx, m.cfg.Blocks, r.Root.Cid, 1)
		if err == nil && len(missing) > 0 {
			return grid.Errorf(grid.NoSpace, "there is no room for its %d bytes", r.Size)
		}
	}
	if r.coded() {
		if err := m.obtainShard(ctx, r, place); err != nil {
			return err
		}
	} else if err := m.bring(ctx, r.Root.Cid, m.sources(r), len(r.Former) > 0); err != nil {
		return err
	}
	return m.cfg.Blocks.Sync(ctx)
}

// bring fetches a DAG; at the pace of repairs, if it is one.
func (m *Manager) bring(ctx context.Context, root cid.Cid, from []peer.ID, repair bool) error {
	if repair && m.pace != nil {
		if err := m.bringSlowly(ctx, root, from); err != nil {
			return err
		}
	}
	return m.cfg.Fetcher.Fetch(ctx, grid.Want{Roots: []cid.Cid{root}, From: from, Swarm: true})
}

// bringSlowly fetches some blocks at a time, and waits after them for as long as they should have taken.
func (m *Manager) bringSlowly(ctx context.Context, root cid.Cid, from []peer.ID) error {
	seen := map[cid.Cid]struct{}{}
	stack := []cid.Cid{root}
	var batch []cid.Cid
	below := func(c cid.Cid) (size int, err error) {
		data, err := m.cfg.Blocks.Get(ctx, c)
		if err != nil {
			return 0, err
		}
		links, err := dag.Links(c, data)
		for i := len(links) - 1; i >= 0; i-- {
			stack = append(stack, links[i])
		}
		return len(data), err
	}
	for len(stack) > 0 || len(batch) > 0 {
		if len(stack) > 0 && len(batch) < paceBlocks {
			c := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if _, ok := seen[c]; ok {
				continue
			}
			seen[c] = struct{}{}
			here, err := m.cfg.Blocks.Has(ctx, c)
			if err == nil && !here {
				batch = append(batch, c)
			} else if err == nil && c.Prefix().Codec != cid.Raw {
				_, err = below(c)
			}
			if err != nil {
				return err
			}
			continue
		}
		if err := m.cfg.Fetcher.Fetch(ctx, grid.Want{Roots: batch, From: from, Shallow: true, Swarm: true}); err != nil {
			return err
		}
		for _, c := range batch {
			size, err := below(c)
			if err != nil {
				return err
			}
			if err := m.pace.WaitN(ctx, size); err != nil {
				return err
			}
		}
		batch = batch[:0]
	}
	return nil
}

// Doubt has the manager look for every block of what it keeps, soon, and bring again what is missing. Whoever
// finds a block damaged that could not be had by its CID alone calls it.
func (m *Manager) Doubt() { poke(m.doubt) }

func (m *Manager) doubter() {
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-m.doubt:
		}
		m.mu.Lock()
		roots := slices.Collect(maps.Keys(m.entries))
		m.mu.Unlock()
		for _, root := range roots {
			m.recheck(m.ctx, root)
		}
		select { // a disk that breaks gives much reason for doubt
		case <-m.ctx.Done():
			return
		case <-time.After(doubtEvery):
		}
	}
}

// recheck looks for every block of what this node says it has.
func (m *Manager) recheck(ctx context.Context, root cid.Cid) {
	m.mu.Lock()
	e := m.entries[root]
	var k kept
	if e != nil {
		k = e.kept
	}
	m.mu.Unlock()
	if !k.Whole && k.Shard == 0 {
		return
	}
	var missing []cid.Cid
	var err error
	if k.Whole {
		missing, _, err = dag.Missing(ctx, m.cfg.Blocks, root, 1)
	}
	if err == nil && len(missing) == 0 && k.Shard > 0 {
		missing, err = m.missingOfShard(ctx, &k.Record, k.Shard-1)
	}
	if err != nil || len(missing) == 0 {
		return
	}
	if m.cfg.Forget != nil {
		m.cfg.Forget()
	}
	m.log.Warn("a copy has lost blocks and is fetched again", "root", root, "block", missing[0])
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.entries[root]; e != nil {
		e.Part = e.Part || e.Whole && e.Record.place(m.self) < 0 // a holder keeps it anyway
		e.Whole, e.Shard, e.note = false, 0, "block "+missing[0].String()+" is missing"
		if err := m.save(ctx, e, false); err != nil {
			m.log.Error("pins", "err", err)
		}
		poke(m.due)
	}
}

// provide announces that a root is here. Nothing depends on it: holders know one another.
func (m *Manager) provide(root cid.Cid) {
	ctx, cancel := context.WithTimeout(m.ctx, provideTimeout)
	defer cancel()
	if err := m.net.Provide(ctx, root); err != nil {
		m.log.Debug("root not announced", "root", root, "err", err)
	}
}

// announce tells the swarm, now and then, which roots are here.
func (m *Manager) announce() {
	for {
		m.mu.Lock()
		var roots []cid.Cid
		for c, e := range m.entries {
			if e.Whole && !e.Record.Gone {
				roots = append(roots, c)
			}
		}
		m.mu.Unlock()
		for _, c := range roots {
			m.provide(c)
		}
		select {
		case <-m.ctx.Done():
			return
		case <-time.After(announceFor):
		}
	}
}
