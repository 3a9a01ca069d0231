package histories

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/wasmgrid/wasmgrid/grid"
)

// searchTime bounds the search for an order in each part of a history, which is not faulted when it takes longer.
const searchTime = 20 * time.Second

// Linearizable checks that there is an order of all calls, each at some moment between its beginning and its
// end, in which each gets the answer that it got.
func (h *History) Linearizable(t testing.TB) {
	t.Helper()
	for _, bad := range h.linearizable(t) {
		t.Error(bad)
	}
}

func (h *History) linearizable(t testing.TB) (bad []string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	w, bad := h.index()
	if len(bad) > 0 {
		return bad
	}
	undecided := 0
	for _, p := range h.parts() {
		switch p.check(w, never, h.search) {
		case porcupine.Unknown:
			undecided++
		case porcupine.Illegal:
			bad = append(bad, p.explain(w, h.search))
		}
	}
	if undecided > 0 {
		t.Logf("%d parts of the history were too long to find an order within %v", undecided, h.search)
	}
	return bad
}

// part is the calls about some keys, that no other call has to do with.
type part struct {
	keys []string // sorted
	ops  []*op
	no   map[*op]uint32 // places in ops, from 1
}

// parts takes the history apart. Two keys belong together when one call is about both.
func (h *History) parts() []*part {
	parent := make(map[string]string)
	var find func(k string) string
	find = func(k string) string {
		p, ok := parent[k]
		if !ok || p == k {
			parent[k] = k
			return k
		}
		root := find(p)
		parent[k] = root
		return root
	}
	for _, o := range h.ops { // all keys, before prefixes
		for _, k := range o.names() {
			find(k)
		}
	}
	keys := make([]string, 0, len(parent))
	for k := range parent {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	under := func(prefix string) []string {
		lo, _ := slices.BinarySearch(keys, prefix)
		hi := lo
		for hi < len(keys) && strings.HasPrefix(keys[hi], prefix) {
			hi++
		}
		return keys[lo:hi]
	}
	about := func(o *op) (ks []string) {
		ks = o.names()
		if o.read != nil && !o.get {
			ks = append(ks, under(o.read.Prefix)...)
		}
		for _, c := range o.txn.If {
			if c.Prefix {
				ks = append(ks, under(c.Key)...)
			}
		}
		return ks
	}
	for _, o := range h.ops {
		ks := about(o)
		for _, k := range ks {
			parent[find(k)] = find(ks[0])
		}
	}
	parts := make(map[string]*part)
	for _, k := range keys {
		p := parts[find(k)]
		if p == nil {
			p = &part{no: make(map[*op]uint32)}
			parts[find(k)] = p
		}
		p.keys = append(p.keys, k)
	}
	for _, o := range h.ops {
		if ks := about(o); len(ks) > 0 {
			p := parts[find(ks[0])]
			p.ops = append(p.ops, o)
			p.no[o] = uint32(len(p.ops))
		}
	}
	all := make([]*part, 0, len(parts))
	for _, k := range keys {
		if p := parts[find(k)]; p.keys[0] == k {
			all = append(all, p)
		}
	}
	return all
}

// names lists the keys that an op names.
func (o *op) names() (ks []string) {
	if o.read != nil && o.get {
		ks = append(ks, o.read.Prefix)
	}
	for _, e := range o.entries {
		ks = append(ks, e.Key)
	}
	for _, c := range o.txn.If {
		if !c.Prefix {
			ks = append(ks, c.Key)
		}
	}
	for _, e := range o.txn.Put {
		ks = append(ks, e.Key)
	}
	return append(ks, o.txn.Delete...)
}

// A state of a part is who wrote each of its keys: four bytes for each, the number of a call in the part, from
// 1; 0: there is no such entry.
const slot = 4

// move is a call in terms of states.
type move struct {
	op    *op
	open  bool   // whether it happens, is not known
	see   []cell // of a read: exactly these
	all   bool   // all conditions can hold at all
	if_   []cell
	group []group
	set   []cell
}

type cell struct {
	key int
	who uint32
}

// group is a condition on a prefix. An entry whose version nobody ever saw is newer than any condition: the
// read that the condition comes from would have seen it, had it been older.
type group struct {
	lo, hi  int // keys
	count   uint64
	version uint64
}

func (p *part) key(k string) int {
	i, _ := slices.BinarySearch(p.keys, k)
	return i
}

func (p *part) under(prefix string) (lo, hi int) {
	lo, _ = slices.BinarySearch(p.keys, prefix)
	for hi = lo; hi < len(p.keys) && strings.HasPrefix(p.keys[hi], prefix); hi++ {
	}
	return lo, hi
}

func (p *part) move(w writes, o *op) *move {
	m := &move{op: o, all: true}
	if o.read != nil {
		seen := make(map[int]uint32)
		lo, hi := p.under(o.read.Prefix)
		if o.get {
			lo = p.key(o.read.Prefix)
			hi = lo + 1
		}
		for _, e := range o.entries {
			seen[p.key(e.Key)] = p.no[w.byEntry[[2]string{e.Key, string(e.Value)}]]
		}
		for k := lo; k < hi; k++ {
			m.see = append(m.see, cell{k, seen[k]})
		}
		return m
	}
	for _, c := range o.txn.If {
		if c.Prefix {
			lo, hi := p.under(c.Key)
			m.group = append(m.group, group{lo, hi, c.Count, c.Version})
			continue
		}
		who := uint32(0)
		if c.Version != 0 {
			writer := w.byVersion[c.Version]
			if writer == nil {
				m.all = false
				continue
			}
			if who = p.no[writer]; who == 0 {
				m.all = false // it wrote other keys
				continue
			}
		}
		m.if_ = append(m.if_, cell{p.key(c.Key), who})
	}
	me := p.no[o]
	for _, e := range o.txn.Put {
		m.set = append(m.set, cell{p.key(e.Key), me})
	}
	for _, k := range o.txn.Delete {
		m.set = append(m.set, cell{p.key(k), 0})
	}
	return m
}

func who(state string, key int) uint32 {
	return binary.BigEndian.Uint32([]byte(state[slot*key : slot*key+slot]))
}

// model is the plain map that the ledger claims to be.
func (p *part) model(w writes) porcupine.Model {
	seed := maphash.MakeSeed()
	holds := func(state string, m *move) bool {
		if !m.all {
			return false
		}
		for _, c := range m.if_ {
			if who(state, c.key) != c.who {
				return false
			}
		}
		for _, g := range m.group {
			count := uint64(0)
			for k := g.lo; k < g.hi; k++ {
				if n := who(state, k); n != 0 {
					count++
					if v := w.version[p.ops[n-1]]; v == 0 || v > g.version {
						return false
					}
				}
			}
			if count != g.count {
				return false
			}
		}
		return true
	}
	return porcupine.Model{
		Init: func() any { return strings.Repeat("\x00", slot*len(p.keys)) },
		Step: func(state, input, _ any) (bool, any) {
			s, m := state.(string), input.(*move)
			if m.op.read != nil {
				for _, c := range m.see {
					if who(s, c.key) != c.who {
						return false, state
					}
				}
				return true, state
			}
			ok := holds(s, m)
			switch {
			case m.open:
			case m.op.outcome == refused:
				return !ok || grid.CodeOf(m.op.err) != grid.Conflict, state
			case !ok:
				return false, state
			}
			if !ok || len(m.set) == 0 {
				return true, state
			}
			next := []byte(s)
			for _, c := range m.set {
				binary.BigEndian.PutUint32(next[slot*c.key:], c.who)
			}
			return true, string(next)
		},
		Hash: func(state any) uint64 { return maphash.String(seed, state.(string)) },
	}
}

// check searches an order of the calls as they were at a moment: those that had not begun are left out, and
// those that had not ended are open.
func (p *part) check(w writes, until int64, patience time.Duration) porcupine.CheckResult {
	var ops []porcupine.Operation
	for _, o := range p.ops {
		m := p.move(w, o)
		if m.open = o.outcome == pending || o.ret > until; m.open && o.read != nil || o.call > until {
			continue
		}
		ret := o.ret
		if m.open {
			ret = never
		}
		ops = append(ops, porcupine.Operation{ClientId: o.client, Input: m, Call: o.call, Return: ret})
	}
	return porcupine.CheckOperationsTimeout(p.model(w), ops, patience)
}

// around is how many calls are shown before the one that fits nowhere.
const around = 30

// explain shows the first answer for which there is no order any more.
func (p *part) explain(w writes, patience time.Duration) string {
	ends := slices.DeleteFunc(slices.Clone(p.ops), func(o *op) bool { return o.ret == never })
	slices.SortFunc(ends, func(a, b *op) int { return cmp.Compare(a.ret, b.ret) })
	stuck := sort.Search(len(ends)-1, func(i int) bool { return p.check(w, ends[i].ret, patience) == porcupine.Illegal })
	var b strings.Builder
	fmt.Fprintf(&b, "not linearizable: no order of the calls about %q explains the answer\n\t%v\nBefore it, in the order of their ends:\n", p.keys, ends[stuck])
	for _, o := range ends[max(0, stuck-around):stuck] {
		fmt.Fprintf(&b, "\t%v\n", o)
	}
	for _, o := range p.ops {
		if o.ret > ends[stuck].ret && o.call < ends[stuck].ret {
			fmt.Fprintf(&b, "\tmeanwhile %v\n", o)
		}
	}
	return b.String()
}
