package erasure

import "iter"

// Loss is shards that are missing from one group, or the missing copies of one index or manifest block.
type Loss struct {
	Missing []Shard
	// Spare is how many more columns can be lost without losing data. What is below 0 cannot be rebuilt;
	// of a group so many blocks must come back first.
	Spare int
}

// Losses lists what is missing. has reports whether the node of a shard's column has the shard: for a view
// of which nodes are alive it looks at the column only, for a closer one also at what that node is known to
// have lost.
func (m *Manifest) Losses(has func(Shard) bool) iter.Seq[Loss] {
	return func(yield func(Loss) bool) {
		for l := range m.all(has) {
			if len(l.Missing) > 0 && !yield(l) {
				return
			}
		}
	}
}

// all is Losses with those that have lost nothing.
func (m *Manifest) all(has func(Shard) bool) iter.Seq[Loss] {
	p := m.params
	copies := func(e entry, kind Kind, first, n int) (l Loss) {
		l.Spare = n - 1
		for c := range n {
			if s := (Shard{e.cid, int(e.size), kind, p.Column(first, c), -1}); !has(s) {
				l.Missing = append(l.Missing, s)
				l.Spare--
			}
		}
		return l
	}
	return func(yield func(Loss) bool) {
		for _, e := range m.records {
			if !yield(copies(e, Record, 0, p.Columns())) {
				return
			}
		}
		for i, e := range m.index {
			if !yield(copies(e, Index, i, p.M+1)) {
				return
			}
		}
		for g := range m.longest {
			l := Loss{Spare: p.M}
			for i := range p.Columns() {
				if s, ok := m.shard(g, i); ok && !has(s) {
					l.Missing = append(l.Missing, s)
					l.Spare--
				}
			}
			if !yield(l) {
				return
			}
		}
	}
}

// Health is the state of a coded DAG.
type Health struct {
	// Spare is how many more nodes can be lost, whichever they are, without losing data: M when nothing is
	// missing. Below 0 some of the data is lost, unless missing blocks come back.
	Spare   int
	Missing Count // shards
	Lost    int   // groups, index and manifest blocks that cannot be rebuilt
}

// Health sums up Losses.
func (m *Manifest) Health(has func(Shard) bool) Health {
	h := Health{Spare: m.params.M}
	for l := range m.all(has) {
		h.Spare = min(h.Spare, l.Spare)
		for _, s := range l.Missing {
			h.Missing.add(s.Size)
		}
		if l.Spare < 0 {
			h.Lost++
		}
	}
	return h
}
