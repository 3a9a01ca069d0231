package keep

import (
	"container/list"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/store/block"
)

// turnEvery is how often another filter is begun at most, unless the one that is used is full: its MiB must be cleared.
const turnEvery = time.Second

// hold is one of what is used, which lasts.
type hold struct {
	seq  uint64
	from block.Position // the end of the log when it began
}

// Hold is grid.Keeper: see there.
func (k *Keeper) Hold(roots ...cid.Cid) (release func()) {
	if len(roots) == 0 {
		return func() {}
	}
	k.mu.Lock()
	k.seq++
	seq := k.seq
	k.roots[seq] = slices.Clone(roots)
	if k.collecting {
		for _, c := range roots {
			k.unmarked[c] = struct{}{}
		}
	}
	k.mu.Unlock()
	return sync.OnceFunc(func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.roots, seq)
		k.ends.Add(1)
	})
}

// HoldUsed is grid.Keeper: see there.
func (k *Keeper) HoldUsed() (release func()) {
	k.mu.Lock()
	e := k.begin()
	k.mu.Unlock()
	return sync.OnceFunc(func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.end(e)
		k.ends.Add(1)
	})
}

// begin begins a hold of what is used. The caller holds mu.
func (k *Keeper) begin() *list.Element {
	k.seq++
	k.holding.Add(1) // from here on, uses are noted
	e := k.holds.PushBack(&hold{k.seq, k.segments.End()})
	if k.notes == nil {
		k.notes = new(filter)
	}
	k.age()
	return e
}

// end ends a hold. The caller holds mu.
func (k *Keeper) end(e *list.Element) {
	k.holds.Remove(e)
	k.holding.Add(-1)
	k.age()
}

// age forgets notes that no hold needs any more. The caller holds mu.
//
// notes are in two filters: of uses since the hold numbered noted began, and from before that. The older one
// is needed by older holds. When these have ended, another one can take over: where there is always some hold,
// that is what makes garbage of what was used before.
func (k *Keeper) age() {
	oldest := k.seq + 1
	if e := k.holds.Front(); e != nil {
		oldest = e.Value.(*hold).seq
	}
	if oldest <= k.noted {
		return
	}
	if k.older != nil {
		k.spare, k.older = k.older, nil
	}
	if k.holds.Len() == 0 || k.notes.added.Load() == 0 {
		return
	}
	if now := time.Now(); k.notes.full() || now.Sub(k.turned) >= turnEvery {
		next := k.spare
		if next == nil {
			next = new(filter)
		}
		next.clear()
		k.older, k.notes, k.spare, k.noted, k.turned = k.notes, next, nil, k.seq, now
	}
}

// use notes that a block is being used. It is called before the block is looked up.
func (k *Keeper) use(h uint64) {
	k.recent.add(h)
	if k.holding.Load() > 0 {
		k.note(h)
	}
}

func (k *Keeper) note(h uint64) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.notes != nil {
		k.notes.add(h)
	}
}

// needed reports whether a use was noted that holds rely on. The caller holds mu.
func (k *Keeper) needed(h uint64) bool { return k.notes.has(h) || k.older.has(h) }
