package histories

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Watch follows a prefix from behind the revision after. What it returns waits until a change of at least the
// revision until has come, ends the watch, and returns all changes.
func Watch(t testing.TB, l grid.Ledger, prefix string, after uint64) (stop func(ctx context.Context, until uint64) []grid.Changes) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	t.Cleanup(func() { cancel(nil) })
	var mu sync.Mutex
	var log []grid.Changes
	more := make(chan struct{}, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- l.Watch(ctx, prefix, after, func(c grid.Changes) error {
			mu.Lock()
			log = append(log, c)
			mu.Unlock()
			select {
			case more <- struct{}{}:
			default:
			}
			return nil
		})
	}()
	return func(wait context.Context, until uint64) []grid.Changes {
		t.Helper()
		for {
			mu.Lock()
			n := len(log)
			there := n > 0 && log[n-1].Revision >= until
			mu.Unlock()
			if there {
				break
			}
			select {
			case <-more:
			case err := <-ended:
				t.Errorf("the watch of %q ended after %d changes: %v", prefix, n, err)
				return log
			case <-wait.Done():
				t.Errorf("the watch of %q has not come to revision %d, after %d changes", prefix, until, n)
				cancel(nil)
				<-ended
				return log
			}
		}
		end := errors.New("enough was seen")
		cancel(end)
		if err := <-ended; !errors.Is(err, end) && !errors.Is(err, context.Canceled) {
			t.Errorf("the watch of %q ended with %v", prefix, err)
		}
		return log
	}
}

// Replay checks a history against the changes that a watch told of from the beginning, for all keys that the
// history is about: that they are all transactions of the history, each once, in an order that agrees with the
// times of the calls, with their conditions held; that none is missing; and that every read and every refusal
// is what the map was at one moment between the beginning and the end of the call.
func (h *History) Replay(t testing.TB, log []grid.Changes) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, bad := range h.replay(log) {
		t.Error(bad)
	}
}

// past is a key's entries through time; Version 0 stands for none.
type past struct {
	revision []uint64
	entry    []grid.Entry
}

func (p *past) at(revision uint64) (e grid.Entry) {
	if p == nil {
		return e
	}
	i := sort.Search(len(p.revision), func(i int) bool { return p.revision[i] > revision })
	if i == 0 {
		return e
	}
	return p.entry[i-1]
}

func (p *past) add(revision uint64, e grid.Entry) {
	p.revision, p.entry = append(p.revision, revision), append(p.entry, e)
}

type replay struct {
	keys      map[string]*past
	sorted    []string // keys
	revisions []uint64 // of the log
	bad       []string
}

func (r *replay) fault(format string, args ...any) {
	r.bad = append(r.bad, fmt.Sprintf(format, args...))
}

func (r *replay) under(prefix string) []string {
	lo, _ := slices.BinarySearch(r.sorted, prefix)
	hi := lo
	for hi < len(r.sorted) && strings.HasPrefix(r.sorted[hi], prefix) {
		hi++
	}
	return r.sorted[lo:hi]
}

// holds reports whether a transaction's conditions hold at a revision.
func (r *replay) holds(t *grid.Txn, revision uint64) bool {
	for _, c := range t.If {
		if !c.Prefix {
			if r.keys[c.Key].at(revision).Version != c.Version {
				return false
			}
			continue
		}
		count := uint64(0)
		for _, k := range r.under(c.Key) {
			if e := r.keys[k].at(revision); e.Version != 0 {
				count++
				if e.Version > c.Version {
					return false
				}
			}
		}
		if count != c.Count {
			return false
		}
	}
	return true
}

func (h *History) replay(log []grid.Changes) []string {
	w, bad := h.index()
	r := &replay{keys: make(map[string]*past), bad: bad}
	if len(bad) > 0 {
		return bad
	}
	now := make(map[string]grid.Entry)
	done := make(map[*op]uint64)
	answeredAt := make(map[uint64]*op)
	for _, o := range h.ops {
		if o.read == nil && o.outcome == answered && len(o.txn.Put)+len(o.txn.Delete) > 0 {
			if other := answeredAt[o.revision]; other == nil || len(other.txn.Put) == 0 {
				answeredAt[o.revision] = o
			}
		}
	}
	last := uint64(0)
	for _, c := range log { // what was done
		if c.Revision <= last {
			r.fault("the watch told of revision %d behind %d", c.Revision, last)
			return r.bad
		}
		last = c.Revision
		r.revisions = append(r.revisions, last)
		o := answeredAt[c.Revision]
		if len(c.Put) > 0 {
			o = w.byEntry[[2]string{c.Put[0].Key, string(c.Put[0].Value)}]
		}
		if o == nil && len(c.Put) == 0 {
			o = h.deleter(c.Delete, done, now)
		}
		switch {
		case o == nil && len(c.Put) == 0 && vanish(c.Delete, now): // a session's end
		case o == nil:
			r.fault("the watch told of what nobody did: %+v", c)
		case done[o] != 0:
			r.fault("done twice, at %d and %d: %v", done[o], c.Revision, o)
		default:
			done[o] = c.Revision
			r.same(o, c, now)
		}
		for _, e := range c.Put {
			now[e.Key] = e
			r.past(e.Key).add(c.Revision, e)
		}
		for _, k := range c.Delete {
			if now[k].Version == 0 {
				r.fault("the watch told at %d that %s is gone, which was not there", c.Revision, k)
			}
			delete(now, k)
			r.past(k).add(c.Revision, grid.Entry{})
		}
	}
	r.sorted = slices.Sorted(maps.Keys(r.keys))

	// What was answered: when it can have been, by what was known before it began and what began after its end.
	byRet := slices.Clone(h.ops)
	slices.SortFunc(byRet, func(a, b *op) int { return cmp.Compare(a.ret, b.ret) })
	var rets []int64
	var known []uint64 // the greatest revision known at each
	top := uint64(0)
	for _, o := range byRet {
		if o.ret == never {
			break
		}
		top = max(top, o.least())
		rets, known = append(rets, o.ret), append(known, top)
	}
	byCall := slices.Clone(h.ops)
	slices.SortFunc(byCall, func(a, b *op) int { return cmp.Compare(a.call, b.call) })
	calls := make([]int64, len(byCall))
	coming := make([]uint64, len(byCall)+1) // the least revision of what began at each or later
	coming[len(byCall)] = never
	for i := len(byCall) - 1; i >= 0; i-- {
		calls[i], coming[i] = byCall[i].call, coming[i+1]
		if rev := done[byCall[i]]; rev != 0 {
			coming[i] = min(coming[i], rev)
		}
	}
	for _, o := range h.ops {
		lo := uint64(0)
		if i := sort.Search(len(rets), func(i int) bool { return rets[i] >= o.call }); i > 0 {
			lo = known[i-1]
		}
		hi := coming[sort.Search(len(calls), func(i int) bool { return calls[i] > o.ret })] - 1
		r.answer(o, done[o], lo, max(lo, hi))
	}
	return r.bad
}

func (r *replay) past(key string) *past {
	p := r.keys[key]
	if p == nil {
		p = &past{}
		r.keys[key] = p
	}
	return p
}

// least is a revision that the ledger has come to when it answers.
func (o *op) least() uint64 {
	least := uint64(0)
	if o.outcome == answered {
		least = o.revision
	}
	for _, e := range o.entries {
		least = max(least, e.Version)
	}
	return least
}

// deleter finds the earliest transaction that may have deleted just these keys, and whose answer was lost.
func (h *History) deleter(keys []string, done map[*op]uint64, now map[string]grid.Entry) *op {
	for _, o := range h.ops {
		if o.read == nil && o.outcome == pending && done[o] == 0 && len(o.txn.Put) == 0 && slices.Equal(effective(&o.txn, now), slices.Sorted(slices.Values(keys))) {
			return o
		}
	}
	return nil
}

// effective lists the keys that a transaction deletes, sorted.
func effective(t *grid.Txn, now map[string]grid.Entry) (keys []string) {
	for _, k := range t.Delete {
		if now[k].Version != 0 {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

func vanish(keys []string, now map[string]grid.Entry) bool {
	for _, k := range keys {
		if now[k].Session == "" || now[k].Session != now[keys[0]].Session {
			return false
		}
	}
	return true
}

// same checks that a change is the whole of a transaction. The map is as it was before.
func (r *replay) same(o *op, c grid.Changes, now map[string]grid.Entry) {
	put := func(es []grid.Entry) []string {
		var out []string
		for _, e := range es {
			out = append(out, e.Key+"="+string(e.Value))
		}
		slices.Sort(out)
		return out
	}
	if !slices.Equal(put(o.txn.Put), put(c.Put)) || !slices.Equal(effective(&o.txn, now), slices.Sorted(slices.Values(c.Delete))) {
		r.fault("done in part, or with others:\n\t%v\nthe watch told %+v", o, c)
	}
	for _, e := range c.Put {
		if e.Version != c.Revision {
			r.fault("the watch told of %s with version %d at revision %d", e.Key, e.Version, c.Revision)
		}
	}
	if o.outcome == refused {
		r.fault("refused, and yet done at %d:\n\t%v", c.Revision, o)
	} else if o.outcome == answered && o.revision != c.Revision {
		r.fault("done at %d:\n\t%v", c.Revision, o)
	}
}

// answer checks one call, whose moment was at a revision from lo to hi.
func (r *replay) answer(o *op, done, lo, hi uint64) {
	if o.read == nil && done != 0 {
		if !r.holds(&o.txn, done-1) {
			r.fault("done at %d though its conditions did not hold:\n\t%v", done, o)
		}
		if done <= lo || done > hi {
			r.fault("done at %d, where only %d to %d agree with the time:\n\t%v", done, lo+1, hi, o)
		}
		return
	}
	switch {
	case o.outcome == pending:
		return
	case o.read == nil && o.outcome == answered && r.effect(o):
		r.fault("answered as done at %d, and the watch did not tell of it:\n\t%v", o.revision, o)
		return
	case o.revision != 0 && o.outcome == answered && o.read != nil:
		if o.revision < lo || o.revision > hi {
			r.fault("read at revision %d, where only %d to %d agree with the time:\n\t%v", o.revision, lo, hi, o)
		}
		lo, hi = o.revision, o.revision
	}
	// Every revision in between will do; the map changes only at those of the log.
	i := sort.Search(len(r.revisions), func(i int) bool { return r.revisions[i] > lo })
	for at := lo; ; i++ {
		if r.explains(o, at) {
			return
		}
		if i == len(r.revisions) || r.revisions[i] > hi {
			break
		}
		at = r.revisions[i]
	}
	r.fault("at no revision from %d to %d was this the answer:\n\t%v", lo, hi, o)
}

// effect reports whether a transaction that was answered changed something.
func (r *replay) effect(o *op) bool {
	if len(o.txn.Put) > 0 {
		return true
	}
	for _, k := range o.txn.Delete {
		if r.keys[k].at(o.revision-1).Version != 0 {
			return true
		}
	}
	return false
}

// explains reports whether a read, a refusal or a mere check is right at a revision.
func (r *replay) explains(o *op, at uint64) bool {
	if o.read == nil {
		return r.holds(&o.txn, at) == (o.outcome == answered) || o.outcome == refused && grid.CodeOf(o.err) != grid.Conflict
	}
	names := []string{o.read.Prefix}
	if !o.get {
		names = r.under(o.read.Prefix)
	}
	n := 0
	for _, k := range names {
		e := r.keys[k].at(at)
		if e.Version == 0 {
			continue
		}
		if n == len(o.entries) || o.entries[n].Key != k || o.entries[n].Version != e.Version || !bytes.Equal(o.entries[n].Value, e.Value) {
			return false
		}
		n++
	}
	return n == len(o.entries)
}
