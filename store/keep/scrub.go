package keep

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/block"
)

const (
	scrubTime  = 7 * 24 * time.Hour // for reading everything once
	scrubFast  = 8 << 20            // bytes/s
	scrubSlow  = 64 << 10           // bytes/s
	scrubSave  = 10 * time.Second   // between writes of how far it has come
	scrubPause = 10 * time.Minute   // after one that failed
	maxNamed   = 10_000             // damaged blocks that are named
)

var scrubKey = datastore.NewKey("/scrub")

// Verify reads all blocks and names those that are damaged. With repair each is fetched again from other
// nodes; those that nobody has stay.
func (k *Keeper) Verify(ctx context.Context, repair bool) (grid.Verified, error) {
	d, ctx, cancel, err := k.onDuty(ctx)
	if err != nil {
		return grid.Verified{}, err
	}
	defer cancel()
	began := time.Now()
	v := grid.Verified{Damaged: []grid.DamagedBlock{}}
	keys := map[string]cid.Cid{}
	done, err := k.segments.Scrub(ctx, block.Scrub{Damaged: func(e block.Entry) {
		k.setDamaged(e.Key, true)
		if len(keys) < maxNamed {
			keys[e.Key] = rawCID(e.Key)
		}
	}})
	v.Blocks, v.Bytes = uint64(done.Blocks), uint64(done.Bytes)
	if err == nil && len(keys) > 0 {
		err = k.name(ctx, d, keys)
	}
	for _, c := range keys {
		b := grid.DamagedBlock{CID: grid.Link{Cid: c}}
		if repair && err == nil {
			if herr := k.heal(ctx, d, c); herr != nil {
				b.Error = herr.Error()
			} else {
				b.Repaired = true
			}
		}
		v.Damaged = append(v.Damaged, b)
	}
	slices.SortFunc(v.Damaged, func(a, b grid.DamagedBlock) int { return cmp.Compare(a.CID.KeyString(), b.CID.KeyString()) })
	v.Took = time.Since(began)
	return v, err
}

// name finds the CIDs under which roots lead to blocks.
func (k *Keeper) name(ctx context.Context, d *Duties, keys map[string]cid.Cid) error {
	roots, err := k.rootsOf(ctx, d)
	if err != nil {
		return err
	}
	m := newMarks()
	m.each = func(c cid.Cid) {
		if _, ok := keys[string(c.Hash())]; ok {
			keys[string(c.Hash())] = c
		}
	}
	return k.mark(ctx, m, roots, nil)
}

// scrubForever reads everything again and again, each time about a week after the last.
func (k *Keeper) scrubForever(ctx context.Context, d *Duties) {
	for {
		from, began := k.scrubbed(ctx)
		wait := scrubPause
		if err := k.scrub(ctx, d, from, began); err == nil {
			k.saveScrubbed(ctx, block.Position{}, began.Add(scrubTime)) // of the next one
			wait = time.Until(began.Add(scrubTime))
		} else if ctx.Err() == nil {
			k.log.Warn("scrub", "err", err)
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// scrub is one pass from a position to the end, and heals what it finds.
func (k *Keeper) scrub(ctx context.Context, d *Duties, from block.Position, began time.Time) error {
	if wait := time.Until(began); wait > 0 { // the last one ended early in its week
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	most := d.ScrubRate
	if most == 0 {
		most = scrubFast
	}
	rate := min(max(k.used()/int64(scrubTime/time.Second), scrubSlow), most)
	saved := time.Now()
	var found []string
	done, err := k.segments.Scrub(ctx, block.Scrub{
		From: from, Rate: rate,
		Damaged: func(e block.Entry) {
			k.setDamaged(e.Key, true)
			found = append(found, e.Key)
		},
		Passed: func(p block.Position) error {
			for _, key := range found {
				if err := k.heal(ctx, d, rawCID(key)); err != nil && ctx.Err() == nil {
					k.log.Error("a block is damaged, and could not be had from other nodes", "cid", rawCID(key), "err", err)
				}
			}
			found = nil
			if now := time.Now(); now.Sub(saved) >= scrubSave {
				saved = now
				k.saveScrubbed(ctx, p, began)
			}
			return ctx.Err()
		},
	})
	if err == nil {
		k.log.Info("scrubbed", "blocks", done.Blocks, "bytes", done.Bytes, "damaged", done.Damaged)
	}
	return err
}

// scrubbed tells how far the current pass has come, and when it began.
func (k *Keeper) scrubbed(ctx context.Context) (block.Position, time.Time) {
	b, err := k.meta.Get(ctx, scrubKey)
	if err != nil || len(b) != 20 {
		return block.Position{}, time.Now()
	}
	began := time.Unix(int64(binary.BigEndian.Uint64(b[12:])), 0)
	if until := time.Until(began); until > scrubTime { // the clock was set back
		began = time.Now()
	}
	return block.Position{Segment: binary.BigEndian.Uint32(b), Offset: int64(binary.BigEndian.Uint64(b[4:]))}, began
}

// saveScrubbed need not succeed: reading something twice is harmless.
func (k *Keeper) saveScrubbed(ctx context.Context, p block.Position, began time.Time) {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 20), p.Segment)
	b = binary.BigEndian.AppendUint64(b, uint64(p.Offset))
	b = binary.BigEndian.AppendUint64(b, uint64(began.Unix()))
	if err := k.meta.Put(ctx, scrubKey, b); err != nil && ctx.Err() == nil {
		k.log.Warn("scrub", "err", err)
	}
}
