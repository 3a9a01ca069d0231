package replica

import (
	"context"
	"errors"
	"math"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/dag"
	"github.com/wasmgrid/wasmgrid/store/erasure"
	"github.com/wasmgrid/wasmgrid/store/placement"
)

const (
	shardBatch   = 512 // blocks asked for at a time
	maxManifests = 16  // remembered
)

// encode makes what a code adds to a DAG that is here, and returns its manifest. The caller holds what is used.
func (m *Manager) encode(ctx context.Context, r *record) (grid.Link, error) {
	man, err := erasure.Encode(ctx, m.cfg.Blocks, r.Root.Cid, erasure.Params{K: r.Code.Data, M: r.Code.Parity})
	if err != nil {
		return grid.Link{}, err
	}
	coded := uint64(0)
	for _, c := range man.Stat().Columns {
		coded += c.Bytes
	}
	if copies := uint64(r.Code.Parity+1) * man.Bytes(); coded > copies && copies > 0 {
		return grid.Link{}, grid.Errorf(grid.Invalid, "coded %s it would take %d bytes, and %d copies, which survive as much, take %d", r.Code, coded, r.Code.Parity+1, copies).
			Hint("files this small are better replicated: --replicas %d", r.Code.Parity+1)
	}
	return grid.Link{Cid: man.CID()}, m.cfg.Blocks.Sync(ctx)
}

// placeShards chooses who is to hold the shards of a pin that is made.
func (m *Manager) placeShards(r *record, v view) error {
	want := r.wanted()
	current := r.Holders
	if current == nil {
		current = []peer.ID{m.self}
	}
	chosen := v.choose(r, current)
	if len(chosen) < want {
		return grid.Errorf(grid.Unavailable, "the code %s needs %d nodes with room for its parts, and there are %d", r.Code, want, len(chosen)).
			Hint("start more nodes, or choose a smaller code")
	}
	*r = r.held(placement.Seat(want, current, chosen))
	return nil
}

// manifest reads the manifest of a coded pin, bringing it here from the given nodes if there are any.
func (m *Manager) manifest(ctx context.Context, r *record, from []peer.ID) (*erasure.Manifest, error) {
	c := r.Manifest.Cid
	m.mu.Lock()
	man := m.manifests[c]
	m.mu.Unlock()
	if man != nil {
		return man, nil
	}
	if from != nil {
		if err := m.cfg.Fetcher.Fetch(ctx, grid.Want{Roots: []cid.Cid{c}, From: from, Swarm: true}); err != nil {
			return nil, err
		}
	}
	man, err := erasure.Load(ctx, m.cfg.Blocks.Get, c)
	if err != nil {
		return nil, err
	}
	if !man.Root().Equals(r.Root.Cid) || man.Params() != (erasure.Params{K: r.Code.Data, M: r.Code.Parity}) {
		return nil, grid.Errorf(grid.Invalid, "the manifest %s is not that of %s coded %s", c, r.Root, r.Code)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.manifests) >= maxManifests {
		clear(m.manifests)
	}
	m.manifests[c] = man
	return man, nil
}

// obtainShard brings the shard of a place here, by fetching or by calculating what nobody has any more.
func (m *Manager) obtainShard(ctx context.Context, r *record, place int) error {
	defer m.cfg.Keeper.HoldUsed()() // shards are below no root while they are made
	from := m.sources(r)
	man, err := m.manifest(ctx, r, from)
	if err != nil {
		return err
	}
	missing, err := m.lacking(ctx, man, place)
	if err != nil {
		return err
	}
	if err := m.rebuild(ctx, r, man, from, missing); err != nil {
		return err
	}
	if missing, err = m.lacking(ctx, man, place); err == nil && len(missing) > 0 {
		err = grid.Errorf(grid.Unavailable, "%d blocks are still missing, the first %s", len(missing), missing[0])
	}
	return err
}

// lacking lists what of a shard is not here.
func (m *Manager) lacking(ctx context.Context, man *erasure.Manifest, place int) (missing []cid.Cid, err error) {
	for s := range man.Shards(place) {
		here, err := m.cfg.Blocks.Has(ctx, s.CID)
		if err != nil {
			return nil, err
		}
		if !here {
			missing = append(missing, s.CID)
		}
	}
	return missing, nil
}

// rebuild brings blocks of a coded DAG here.
func (m *Manager) rebuild(ctx context.Context, r *record, man *erasure.Manifest, from []peer.ID, want []cid.Cid) error {
	if len(want) == 0 {
		return nil
	}
	have := m.available(ctx, r, man, from)
	fetch := func(ctx context.Context, cids []cid.Cid) error {
		for batch := range slices.Chunk(cids, shardBatch) {
			err := m.cfg.Fetcher.Fetch(ctx, grid.Want{Roots: batch, From: from, Shallow: true, Swarm: true})
			if err != nil && !absent(err) {
				return err
			}
			if m.pace != nil && len(r.Former) > 0 {
				for _, c := range batch {
					data, err := m.cfg.Blocks.Get(ctx, c)
					if err != nil {
						continue // not had
					}
					if err := m.pace.WaitN(ctx, len(data)); err != nil {
						return err
					}
				}
			}
		}
		return nil
	}
	return erasure.Rebuild(ctx, man, have, fetch, m.cfg.Blocks, want)
}

// absent reports whether an error means no more than that nobody who was asked has it, as it should be.
func absent(err error) bool {
	return errors.Is(err, grid.NotFound) || errors.Is(err, grid.Unavailable) || errors.Is(err, grid.Corrupt)
}

// available tells which blocks of a coded DAG the nodes that answer should have.
func (m *Manager) available(ctx context.Context, r *record, man *erasure.Manifest, from []peer.ID) func(cid.Cid) bool {
	there := map[cid.Cid]struct{}{}
	for _, s := range m.ask(ctx, about(r.Root.Cid, from), false)[r.Root.Cid] {
		switch {
		case s.Whole:
			return func(cid.Cid) bool { return true }
		case s.Shard > 0 && s.Shard <= r.wanted() && s.Record.Manifest == r.Manifest:
			for b := range man.Shards(s.Shard - 1) {
				there[b.CID] = struct{}{}
			}
		}
	}
	return func(c cid.Cid) bool { _, ok := there[c]; return ok }
}

// missingOfShard lists what of a shard that should be here is not.
func (m *Manager) missingOfShard(ctx context.Context, r *record, place int) ([]cid.Cid, error) {
	man, err := m.manifest(ctx, r, nil)
	if absent(err) {
		return []cid.Cid{r.Manifest.Cid}, nil
	}
	if err != nil {
		return nil, err
	}
	return m.lacking(ctx, man, place)
}

// shardRoots calls yield for the blocks of this node's shard, as if they were leaves: what they link to is
// kept by others.
func (m *Manager) shardRoots(ctx context.Context, k *kept, yield func(cid.Cid)) error {
	leaf := func(c cid.Cid) { yield(cid.NewCidV1(cid.Raw, c.Hash())) }
	yield(k.Record.Manifest.Cid)
	man, err := m.manifest(ctx, &k.Record, nil)
	if absent(err) || errors.Is(err, grid.Invalid) {
		return nil // it has yet to be fetched, or is none, and says nothing of what should stay
	}
	if err != nil {
		return err
	}
	for _, place := range []int{k.Record.place(m.self), k.Shard - 1} {
		if place >= 0 {
			for s := range man.Shards(place) {
				leaf(s.CID)
			}
		}
	}
	return nil
}

// Fetch is grid.Fetcher's, with what the pins know: who keeps a DAG, and how one that is coded can be put
// together when nodes are lost.
func (m *Manager) Fetch(ctx context.Context, w grid.Want) error {
	err := m.cfg.Fetcher.Fetch(ctx, w)
	if err == nil || !absent(err) {
		return err
	}
	if w.Shallow {
		return m.fetchBelow(ctx, w, err)
	}
	for _, root := range w.Roots {
		r, rerr := m.find(ctx, root)
		if rerr != nil {
			continue // nobody knows of a pin
		}
		from := m.sources(&r)
		if !r.coded() {
			_ = m.cfg.Fetcher.Fetch(ctx, grid.Want{Roots: []cid.Cid{root}, From: from, Limit: w.Limit}) // told below
			continue
		}
		if w.Limit > 0 && r.Size > w.Limit {
			return grid.Errorf(grid.Limit, "store: fetch %s: it has more than the %d bytes that are allowed", root, w.Limit)
		}
		if rerr := m.assemble(ctx, &r, from); rerr != nil {
			return grid.Errorf(codeOf(rerr), "store: fetch %s, which is coded %s: %w", root, r.Code, rerr)
		}
	}
	return m.cfg.Fetcher.Fetch(ctx, w)
}

// fetchBelow brings single blocks, of DAGs that may be coded.
func (m *Manager) fetchBelow(ctx context.Context, w grid.Want, err error) error {
	for _, root := range w.Below {
		r, rerr := m.find(ctx, root)
		if rerr != nil {
			continue
		}
		from := m.sources(&r)
		if r.coded() {
			man, rerr := m.manifest(ctx, &r, from)
			if rerr != nil {
				return grid.Errorf(codeOf(rerr), "store: fetch blocks of %s, which is coded %s: %w", root, r.Code, rerr)
			}
			switch rerr := m.rebuild(ctx, &r, man, from, w.Roots); {
			case errors.Is(rerr, grid.Invalid): // they are of another DAG
				continue
			case rerr != nil:
				return grid.Errorf(codeOf(rerr), "store: fetch blocks of %s, which is coded %s: %w", root, r.Code, rerr)
			}
		}
		w.From = append(slices.Clone(w.From), from...)
		if err = m.cfg.Fetcher.Fetch(ctx, w); err == nil {
			return nil
		}
	}
	return err
}

// assemble puts a coded DAG together: its index first, which tells what else is missing.
func (m *Manager) assemble(ctx context.Context, r *record, from []peer.ID) error {
	defer m.cfg.Keeper.HoldUsed()() // shards are below no root while they are made
	man, err := m.manifest(ctx, r, from)
	if err != nil {
		return err
	}
	for before := -1; ; {
		missing, _, err := dag.Missing(ctx, m.cfg.Blocks, r.Root.Cid, math.MaxInt)
		if err != nil || len(missing) == 0 {
			return err
		}
		if len(missing) == before {
			return grid.Errorf(grid.Unavailable, "%d blocks cannot be had, the first is %s", len(missing), missing[0])
		}
		before = len(missing)
		if err := m.rebuild(ctx, r, man, from, missing); err != nil {
			return err
		}
	}
}
