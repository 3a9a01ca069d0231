package machine

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// model is the ledger written as plainly as can be: maps, which are copied at every revision.
type model struct {
	revision uint64
	past     []map[string]grid.Entry // by revision
	changes  []grid.Changes          // by revision
	sessions map[grid.SessionID]bool
	done     []grid.RequestID // that are remembered
	revs     map[grid.RequestID]uint64
	forgot   uint64
	remember int
}

func newModel(remember int) *model {
	return &model{
		past: []map[string]grid.Entry{{}}, changes: []grid.Changes{{}}, remember: remember,
		sessions: map[grid.SessionID]bool{}, revs: map[grid.RequestID]uint64{},
	}
}

func (m *model) now() map[string]grid.Entry { return m.past[m.revision] }

func (m *model) write(put []grid.Entry, del []string) {
	next := maps.Clone(m.now())
	m.revision++
	c := grid.Changes{Revision: m.revision}
	for _, e := range put {
		e.Version = m.revision
		next[e.Key] = e
		c.Put = append(c.Put, e)
	}
	for _, k := range del {
		if _, ok := next[k]; ok {
			delete(next, k)
			c.Delete = append(c.Delete, k)
		}
	}
	m.past = append(m.past, next)
	m.changes = append(m.changes, c)
}

func (m *model) holds(c grid.Cond) bool {
	if !c.Prefix {
		return m.now()[c.Key].Version == c.Version
	}
	n := uint64(0)
	for k, e := range m.now() {
		if strings.HasPrefix(k, c.Key) {
			if n++; e.Version > c.Version {
				return false
			}
		}
	}
	return n == c.Count
}

// apply returns what matters of a result.
func (m *model) apply(c Command) (uint64, grid.Code) {
	switch {
	case c.Open != nil:
		m.sessions[c.Open.ID] = true
		return m.revision, 0
	case c.End != nil:
		for _, id := range c.End {
			var keys []string
			for k, e := range m.now() {
				if e.Session == id {
					keys = append(keys, k)
				}
			}
			slices.Sort(keys)
			if len(keys) > 0 {
				m.write(nil, keys)
			}
			delete(m.sessions, id)
		}
		return m.revision, 0
	}
	t := c.Txn
	writes := len(t.Put)+len(t.Delete) > 0
	if writes && t.ID != "" {
		if slices.Contains(m.done, t.ID) {
			return m.revs[t.ID], 0
		}
		if c.Base < m.forgot {
			return 0, grid.OutOfDate
		}
	}
	for _, c := range t.If {
		if !m.holds(c) {
			return 0, grid.Conflict
		}
	}
	for _, e := range t.Put {
		if e.Session != "" && !m.sessions[e.Session] {
			return 0, grid.Conflict
		}
	}
	if !writes {
		return m.revision, 0
	}
	m.write(t.Put, t.Delete)
	if t.ID != "" {
		m.done = append(m.done, t.ID)
		m.revs[t.ID] = m.revision
		if len(m.done) > m.remember {
			m.forgot = m.revs[m.done[0]]
			m.done = m.done[1:]
		}
	}
	return m.revision, 0
}

// page is what a query must answer.
func (m *model) page(q grid.Query) grid.Page {
	p := grid.Page{Revision: m.revision}
	if q.At != 0 {
		p.Revision = q.At
	}
	state := m.past[p.Revision]
	for _, k := range slices.Sorted(maps.Keys(state)) {
		if !strings.HasPrefix(k, q.Prefix) || k <= q.After {
			continue
		}
		if q.Limit > 0 && len(p.Entries) == q.Limit {
			p.More = true
			break
		}
		p.Entries = append(p.Entries, state[k])
	}
	return p
}

// generator draws commands that often concern what there is.
type generator struct {
	*rand.Rand
	m    *model
	sent []Command // with an ID
}

func (g *generator) key() string {
	return []string{"", "a/", "a/b/", "b/", "\xff"}[g.IntN(5)] + string(rune('a'+g.IntN(6)))
}

func (g *generator) session() grid.SessionID { return grid.SessionID(fmt.Sprint("s", g.IntN(6))) }

func (g *generator) cond() grid.Cond {
	c := grid.Cond{Key: g.key()}
	if g.IntN(3) > 0 {
		c.Version = g.m.now()[c.Key].Version
	} else {
		c.Version = g.Uint64N(g.m.revision + 2)
	}
	if g.IntN(3) == 0 {
		c = grid.Cond{Key: []string{"", "a", "a/", "b/", "none"}[g.IntN(5)], Prefix: true}
		for k, e := range g.m.now() {
			if strings.HasPrefix(k, c.Key) {
				c.Count++
				c.Version = max(c.Version, e.Version)
			}
		}
		switch g.IntN(6) {
		case 0:
			c.Count += uint64(g.IntN(2))
		case 1:
			c.Version -= min(c.Version, 1)
		}
	}
	return c
}

func (g *generator) command() Command {
	switch n := g.IntN(20); {
	case n == 0:
		return Command{Open: &OpenSession{ID: g.session(), TTL: time.Second, Owner: "me"}}
	case n == 1:
		return Command{End: []grid.SessionID{g.session(), g.session()}[:1+g.IntN(2)]}
	case n < 5 && len(g.sent) > 0:
		return g.sent[len(g.sent)-1-g.IntN(min(len(g.sent), 40))]
	}
	t := &grid.Txn{}
	for range g.IntN(3) {
		t.If = append(t.If, g.cond())
	}
	written := map[string]bool{}
	for range g.IntN(4) {
		key := g.key()
		if written[key] {
			continue
		}
		written[key] = true
		if g.IntN(3) == 0 {
			t.Delete = append(t.Delete, key)
			continue
		}
		e := grid.Entry{Key: key, Value: fmt.Append(nil, g.Uint32())}
		if g.IntN(4) == 0 {
			e.Session = g.session()
		}
		t.Put = append(t.Put, e)
	}
	c := Command{Txn: t}
	if g.IntN(2) == 0 {
		var id [16]byte
		for i := range id {
			id[i] = byte(g.Uint32())
		}
		t.ID = grid.RequestID(id[:])
		c.Base = g.m.revision - min(g.m.revision, g.Uint64N(30))
		g.sent = append(g.sent, c)
	}
	return c
}

func samePage(a, b grid.Page) bool {
	return a.Revision == b.Revision && a.More == b.More && slices.EqualFunc(a.Entries, b.Entries, sameEntry)
}

func sameEntry(a, b grid.Entry) bool {
	return a.Key == b.Key && bytes.Equal(a.Value, b.Value) && a.Version == b.Version && a.Session == b.Session
}

// restored is a new machine with a snapshot of m.
func restored(t *testing.T, m *Machine, c Config) *Machine {
	t.Helper()
	s := m.Snapshot()
	var b bytes.Buffer
	if n, err := s.WriteTo(&b); err != nil || n != int64(b.Len()) {
		t.Fatalf("WriteTo: %d, %v; it has written %d", n, err, b.Len())
	}
	next := New(c)
	if err := next.Restore(&b); err != nil {
		t.Fatal(err)
	}
	if next.Snapshot().Sum() != s.Sum() || next.Applied() != s.Applied() || next.Revision() != s.Revision() {
		t.Fatalf("a restored machine differs: %+v, and was %+v", next.Stats(), m.Stats())
	}
	return next
}

// TestModel applies random commands to a machine, to one that is restored from its own snapshots now and then, and to the
// model; all have to agree about everything.
func TestModel(t *testing.T) {
	for seed := range uint64(60) {
		c := Config{Requests: 20, History: 50, HistoryBytes: 12 << 10}
		if seed%3 == 0 {
			c.Requests = 1
		}
		model, a, b := newModel(c.Requests), New(c), New(c)
		g := &generator{Rand: rand.New(rand.NewPCG(seed, 1)), m: model}
		watched, err := a.Watch("a/", 0)
		if err != nil {
			t.Fatal(err)
		}
		delivered, index := uint64(0), uint64(0)
		for range 250 {
			var cmds []Command
			type result struct {
				rev  uint64
				code grid.Code
			}
			var want []result
			for range 1 + g.IntN(4) {
				c := g.command()
				cmds = append(cmds, c)
				rev, code := model.apply(c)
				want = append(want, result{rev, code})
			}
			batch, err := AppendBatch(nil, cmds)
			if err != nil {
				t.Fatal(err)
			}
			index += 1 + g.Uint64N(2)
			ra, err := a.Apply(index, batch)
			if err != nil {
				t.Fatal(err)
			}
			rb, err := b.Apply(index, batch)
			if err != nil || !slices.Equal(ra, rb) {
				t.Fatalf("seed %d: two machines give %+v and %+v, %v", seed, ra, rb, err)
			}
			for i, r := range ra {
				if r.Revision != want[i].rev || r.Code != want[i].code || r.Retry != (r.Code == grid.OutOfDate) || (r.Err() == nil) != (r.Code == 0) {
					t.Fatalf("seed %d: %+v gives %+v, want %+v", seed, cmds[i], r, want[i])
				}
			}
			for _, m := range []*Machine{a, b} {
				q := grid.Query{Prefix: []string{"", "a/", "a/b/", "none"}[g.IntN(4)], Limit: g.IntN(6)}
				if g.IntN(2) == 0 {
					q.After = g.key()
				}
				if old := m.Stats().Oldest; g.IntN(2) == 0 && model.revision > 0 {
					q.At = max(1, old+g.Uint64N(model.revision-old+1))
				}
				p, err := m.Range(q)
				if err != nil || !samePage(p, model.page(q)) {
					t.Fatalf("seed %d: Range(%+v) = %+v, %v; want %+v", seed, q, p, err, model.page(q))
				}
				key := g.key()
				if e, ok := m.Get(key); ok != (model.now()[key].Version != 0) || !sameEntry(e, model.now()[key]) && ok {
					t.Fatalf("seed %d: Get(%q) = %+v, %v; want %+v", seed, key, e, ok, model.now()[key])
				}
			}
			bytes := uint64(0)
			for k, e := range model.now() {
				bytes += uint64(len(k) + len(e.Value))
			}
			if s := a.Stats(); s.Revision != model.revision || s.Entries != uint64(len(model.now())) || s.Bytes != bytes ||
				s.Sessions != len(model.sessions) || s.Requests != len(model.done) || s.Applied != index {
				t.Fatalf("seed %d: %+v; want revision %d, %d entries with %d bytes, %d sessions, %d requests", seed, s,
					model.revision, len(model.now()), bytes, len(model.sessions), len(model.done))
			}
			for g.IntN(3) > 0 { // the watcher comes along, not always at once
				c, ok, err := watched.Poll()
				if err != nil {
					t.Fatalf("seed %d: watch: %v", seed, err)
				}
				if !ok {
					break
				}
				for delivered++; len(only(model.changes[delivered], "a/").Put)+len(only(model.changes[delivered], "a/").Delete) == 0; {
					delivered++
				}
				if want := only(model.changes[delivered], "a/"); !sameChanges(c, want) {
					t.Fatalf("seed %d: watched %+v, want %+v", seed, c, want)
				}
			}
			if delivered = watched.After(); model.revision-delivered > 20 { // before it is too late
				watched.Close()
				if watched, err = a.Watch("a/", model.revision); err != nil {
					t.Fatal(err)
				}
				delivered = model.revision
			}
			if g.IntN(8) == 0 {
				b = restored(t, b, c)
			}
		}
		if a.Snapshot().Sum() != b.Snapshot().Sum() {
			t.Fatalf("seed %d: two machines differ after the same log", seed)
		}
	}
}

// only is the part of changes that concerns a prefix.
func only(c grid.Changes, prefix string) grid.Changes {
	out := grid.Changes{Revision: c.Revision}
	for _, e := range c.Put {
		if strings.HasPrefix(e.Key, prefix) {
			out.Put = append(out.Put, e)
		}
	}
	for _, k := range c.Delete {
		if strings.HasPrefix(k, prefix) {
			out.Delete = append(out.Delete, k)
		}
	}
	return out
}

func sameChanges(a, b grid.Changes) bool {
	return a.Revision == b.Revision && slices.EqualFunc(a.Put, b.Put, sameEntry) && slices.Equal(a.Delete, b.Delete)
}
