package gridtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestLedger checks the contract of grid.Ledger. open gives a new ledger, without entries but those under
// grid.MemberKeys and grid.NodeKeys. It may be a slow one: nothing here depends on time, and nothing is large but what is
// left out in short mode.
func TestLedger(t *testing.T, open func(t *testing.T) grid.Ledger) {
	for _, test := range []struct {
		name string
		f    func(t *testing.T, l ledger)
	}{
		{"versions", testVersions},
		{"conflicts", testConflicts},
		{"prefix conditions", testPrefixConditions},
		{"range", testRange},
		{"pages", testPages},
		{"a past moment", testPast},
		{"once", testOnce},
		{"watch", testWatch},
		{"watch from long ago", testWatchOld},
		{"sessions", testSessions},
		{"update", testUpdate},
		{"anomalies", testAnomalies},
		{"bank", testBank},
		{"torn transactions", testTorn},
		{"limits", testLimits},
		{"hostile", testHostile},
		{"ownership", testOwnership},
		{"contexts", testContexts},
		{"status", testLedgerStatus},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			t.Cleanup(cancel)
			test.f(t, ledger{open(t), t, ctx})
		})
	}
}

// ledger is a ledger under test.
type ledger struct {
	grid.Ledger
	t   *testing.T
	ctx context.Context
}

func (l ledger) commit(txn grid.Txn) uint64 {
	l.t.Helper()
	rev, err := l.Commit(l.ctx, txn)
	if err != nil {
		l.t.Fatal(err)
	}
	return rev
}

func (l ledger) put(pairs ...string) uint64 {
	l.t.Helper()
	return l.commit(grid.Txn{Put: entries(pairs...)})
}

// refuses wants a code for a transaction.
func (l ledger) refuses(code grid.Code, txn grid.Txn) {
	l.t.Helper()
	if rev, err := l.Commit(l.ctx, txn); !errors.Is(err, code) {
		l.t.Errorf("Commit(%.200s) = %d, %v; want the code %q", fmt.Sprintf("%+v", txn), rev, err, code)
	}
}

// value is that of an entry, or "" if there is none.
func (l ledger) value(key string) string {
	l.t.Helper()
	e, err := l.Get(l.ctx, key)
	if err != nil && !errors.Is(err, grid.NotFound) {
		l.t.Fatal(err)
	}
	return string(e.Value)
}

func (l ledger) page(q grid.Query) grid.Page {
	l.t.Helper()
	p, err := l.Range(l.ctx, q)
	if err != nil {
		l.t.Fatal(err)
	}
	return p
}

// all reads what a test has written.
func (l ledger) all(prefix string) (es []grid.Entry) {
	l.t.Helper()
	_, err := grid.RangeAll(l.ctx, l, prefix, false, func(e grid.Entry) error {
		if !strings.HasPrefix(e.Key, grid.MemberKeys) && !strings.HasPrefix(e.Key, grid.NodeKeys) {
			es = append(es, e)
		}
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return es
}

func entries(pairs ...string) (es []grid.Entry) {
	for i := 0; i < len(pairs); i += 2 {
		es = append(es, grid.Entry{Key: pairs[i], Value: []byte(pairs[i+1])})
	}
	return es
}

func keysOf(es []grid.Entry) (keys []string) {
	for _, e := range es {
		keys = append(keys, e.Key)
	}
	return keys
}

func testVersions(t *testing.T, l ledger) {
	if _, err := l.Get(l.ctx, "a"); !errors.Is(err, grid.NotFound) {
		t.Errorf("Get of nothing: %v", err)
	}
	rev := l.put("a", "1", "b", "")
	if rev == 0 {
		t.Error("revision 0")
	}
	if e, err := l.Get(l.ctx, "a"); err != nil || e.Key != "a" || string(e.Value) != "1" || e.Version != rev || e.Session != "" {
		t.Errorf("Get = %+v, %v; want version %d", e, err, rev)
	}
	if e, err := l.Get(l.ctx, "b"); err != nil || len(e.Value) != 0 || e.Version != rev {
		t.Errorf("Get = %+v, %v", e, err)
	}
	next := l.commit(grid.Txn{If: []grid.Cond{{Key: "a", Version: rev}, {Key: "c"}}, Put: entries("a", "2"), Delete: []string{"b", "c"}})
	if next <= rev {
		t.Errorf("revision %d follows %d", next, rev)
	}
	if e, err := l.Get(l.ctx, "a"); err != nil || string(e.Value) != "2" || e.Version != next {
		t.Errorf("Get = %+v, %v", e, err)
	}
	if _, err := l.Get(l.ctx, "b"); !errors.Is(err, grid.NotFound) {
		t.Errorf("Get of a deleted entry: %v", err)
	}
	if again := l.put("a", "2"); again <= next {
		t.Errorf("revision %d follows %d", again, next)
	}
}

func testConflicts(t *testing.T, l ledger) {
	rev := l.put("a", "1")
	for _, conds := range [][]grid.Cond{
		{{Key: "a"}}, {{Key: "a", Version: rev + 1}}, {{Key: "b", Version: rev}}, {{Key: "a", Version: rev}, {Key: "b", Version: 1}},
	} {
		l.refuses(grid.Conflict, grid.Txn{If: conds, Put: entries("x", "1"), Delete: []string{"a"}})
	}
	if es := l.all(""); len(es) != 1 || es[0].Version != rev {
		t.Errorf("after conflicts the ledger holds %+v", es)
	}
	if got := l.commit(grid.Txn{If: []grid.Cond{{Key: "a", Version: rev}}}); got < rev { // checks only
		t.Errorf("conditions held at revision %d, before the entry's %d", got, rev)
	}
}

func testPrefixConditions(t *testing.T, l ledger) {
	l.put("p", "below no slash", "q/1", "another")
	cond := func(count, version uint64) grid.Txn {
		return grid.Txn{If: []grid.Cond{{Key: "p/", Prefix: true, Count: count, Version: version}}}
	}
	l.commit(cond(0, 0))
	l.refuses(grid.Conflict, cond(1, 0))
	one := l.put("p/1", "")
	l.refuses(grid.Conflict, cond(0, 0))
	l.refuses(grid.Conflict, cond(1, one-1))
	l.commit(cond(1, one))
	two := l.put("p/2", "")
	l.refuses(grid.Conflict, cond(1, one))
	l.refuses(grid.Conflict, cond(1, two))
	l.commit(cond(2, two))
	l.put("q/1", "changed") // not among them
	l.commit(cond(2, two))
	three := l.put("p/1", "changed")
	l.refuses(grid.Conflict, cond(2, two))
	l.commit(cond(2, three))
	l.commit(grid.Txn{Delete: []string{"p/2"}})
	l.refuses(grid.Conflict, cond(2, three))
	l.commit(cond(1, three))
	l.refuses(grid.Limit, cond(grid.MaxLedgerPage+1, math.MaxUint64))
	l.refuses(grid.Limit, cond(math.MaxUint64, math.MaxUint64))
	all := l.all("")
	own := l.page(grid.Query{})
	if n := len(all); len(own.Entries) == n { // a condition on everything there is
		l.commit(grid.Txn{If: []grid.Cond{{Prefix: true, Count: uint64(n), Version: own.Revision}}})
	}
}

func testRange(t *testing.T, l ledger) {
	keys := []string{"a", "a/b", "a//b", "a/b/..", "ab", "a\x00", "a\xff", "\xff\xff", "\xff", "b", "/", "job/1", "job/2", "ключ"}
	for _, k := range keys {
		l.put(k, "v"+k)
	}
	slices.Sort(keys)
	if got := keysOf(l.all("")); !slices.Equal(got, keys) {
		t.Errorf("all keys are %q, want %q", got, keys)
	}
	for _, prefix := range []string{"a", "a/", "job/", "job/1", "\xff", "nothing", "/", strings.Repeat("k", grid.MaxLedgerKey)} {
		var want []string
		for _, k := range keys {
			if strings.HasPrefix(k, prefix) {
				want = append(want, k)
			}
		}
		for limit := range len(want) + 2 {
			for skip := 0; skip <= len(want); skip++ {
				q := grid.Query{Prefix: prefix, Limit: limit}
				if skip > 0 {
					q.After = want[skip-1]
				}
				p := l.page(q)
				rest := want[skip:]
				if limit > 0 {
					rest = rest[:min(limit, len(rest))]
				}
				if got := keysOf(p.Entries); !slices.Equal(got, rest) || p.More != (skip+len(rest) < len(want)) || p.Revision == 0 {
					t.Errorf("Range(%+v) = %q, more %v, revision %d; want %q of %q", q, got, p.More, p.Revision, rest, want)
				}
				for _, e := range p.Entries {
					if string(e.Value) != "v"+e.Key || e.Version == 0 || e.Version > p.Revision {
						t.Errorf("at revision %d, entry %+v", p.Revision, e)
					}
				}
			}
		}
	}
	for after, want := range map[string]string{"": "job/1", "a": "job/1", "job/": "job/1", "job/1": "job/2", "job/11": "job/2", "job/2": "", "z": ""} {
		p := l.page(grid.Query{Prefix: "job/", After: after, Limit: 1})
		if got := strings.Join(keysOf(p.Entries), " "); got != want {
			t.Errorf("the first job after %q is %q, want %q", after, got, want)
		}
	}
	if p := l.page(grid.Query{Prefix: "job/", Stale: true}); p.More { // it may know less
		t.Errorf("a stale page has more")
	}
}

func testPages(t *testing.T, l ledger) {
	var want []string
	for i := range 6 { // more than one page holds
		key := fmt.Sprint("large/", i)
		l.commit(grid.Txn{Put: []grid.Entry{{Key: key, Value: bytes.Repeat([]byte{byte(i)}, grid.MaxLedgerValue)}}})
		want = append(want, key)
	}
	p := l.page(grid.Query{Prefix: "large/"})
	if len(p.Entries) == 0 || len(p.Entries) > 4 || !p.More {
		t.Errorf("the first page has %d entries, more %v; want 1 to 4, and more", len(p.Entries), p.More)
	}
	if got := keysOf(l.all("large/")); !slices.Equal(got, want) {
		t.Errorf("all pages have %q, want %q", got, want)
	}
	errEnough := errors.New("enough")
	if _, err := grid.RangeAll(l.ctx, l, "large/", true, func(grid.Entry) error { return errEnough }); !errors.Is(err, errEnough) {
		t.Errorf("RangeAll ended by its function: %v", err)
	}
}

func testPast(t *testing.T, l ledger) {
	for i := range 10 {
		l.put(fmt.Sprint("p/", i), "old")
	}
	first := l.page(grid.Query{Prefix: "p/", Limit: 3})
	l.put("p/00", "new", "p/35", "new", "p/9a", "new", "p/5", "new", "q", "new")
	l.commit(grid.Txn{Delete: []string{"p/4", "p/9", "p/2"}})
	l.put("p/4", "again")
	got := slices.Clone(first.Entries)
	for p := first; p.More; {
		p = l.page(grid.Query{Prefix: "p/", Limit: 3, After: got[len(got)-1].Key, At: first.Revision})
		if p.Revision != first.Revision || len(p.Entries) == 0 {
			t.Fatalf("the next page is %+v, of revision %d", p, first.Revision)
		}
		got = append(got, p.Entries...)
	}
	for i, e := range got {
		if e.Key != fmt.Sprint("p/", i) || string(e.Value) != "old" || e.Version > first.Revision {
			t.Errorf("entry %d at revision %d is %+v", i, first.Revision, e)
		}
	}
	if len(got) != 10 {
		t.Errorf("%d entries, want 10", len(got))
	}
	now := l.page(grid.Query{Prefix: "p/"})
	at := l.page(grid.Query{Prefix: "p/", At: now.Revision})
	if !slices.Equal(keysOf(now.Entries), keysOf(at.Entries)) || len(now.Entries) != 11 {
		t.Errorf("now there are %q, or at this revision %q", keysOf(now.Entries), keysOf(at.Entries))
	}
	ctx, cancel := context.WithTimeout(l.ctx, 200*time.Millisecond)
	defer cancel()
	if p, err := l.Range(ctx, grid.Query{At: math.MaxUint64}); err == nil {
		t.Errorf("Range in the future = %+v", p)
	}
}

func testOnce(t *testing.T, l ledger) {
	before := l.put("n", "0")
	txn := grid.Txn{ID: grid.NewRequestID(), If: []grid.Cond{{Key: "n", Version: before}}, Put: entries("n", "1")}
	rev := l.commit(txn)
	if again := l.commit(txn); again != rev {
		t.Errorf("sent twice, it has revisions %d and %d", rev, again)
	}
	l.put("n", "2")
	if again := l.commit(txn); again != rev || l.value("n") != "2" {
		t.Errorf("sent late, it has revisions %d and %d, and n is %q", rev, again, l.value("n"))
	}
	failed := grid.Txn{ID: grid.NewRequestID(), If: []grid.Cond{{Key: "m", Version: before}}, Put: entries("n", "wrong")}
	l.refuses(grid.Conflict, failed)
	l.refuses(grid.Conflict, failed)

	txn = grid.Txn{ID: grid.NewRequestID(), If: []grid.Cond{{Key: "once"}}, Put: entries("once", "1")}
	var wg sync.WaitGroup
	revs := make([]uint64, 8)
	for i := range revs {
		wg.Go(func() {
			var err error
			if revs[i], err = l.Commit(l.ctx, txn); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if e, err := l.Get(l.ctx, "once"); err != nil || slices.ContainsFunc(revs, func(r uint64) bool { return r != e.Version }) {
		t.Errorf("sent at the same time, it has revisions %v; the entry is %+v, %v", revs, e, err)
	}
}

// watch collects changes until done says that it has enough.
func (l ledger) watch(prefix string, after uint64, done func(grid.Changes) bool) (list []grid.Changes, err error) {
	errDone := errors.New("done")
	err = l.Watch(l.ctx, prefix, after, func(c grid.Changes) error {
		list = append(list, c)
		if done(c) {
			return errDone
		}
		return nil
	})
	if errors.Is(err, errDone) {
		return list, nil
	}
	return list, err
}

func testWatch(t *testing.T, l ledger) {
	start := l.put("w/before", "", "x", "")
	const n = 40
	revs := make([]uint64, 0, n)
	var later []grid.Changes
	var wg sync.WaitGroup
	wg.Go(func() { // while it is written
		var err error
		later, err = l.watch("w/", start, func(c grid.Changes) bool { return slices.Contains(keysOf(c.Put), "w/last") })
		if err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
	for i := range n {
		revs = append(revs, l.put("w/a", fmt.Sprint(i), "w/b", fmt.Sprint(i), "x", "not watched"))
		l.put("x", "not watched")
	}
	gone := l.commit(grid.Txn{Put: entries("w/last", ""), Delete: []string{"w/a", "w/none", "x"}})
	wg.Wait()
	again, err := l.watch("w/", start, func(c grid.Changes) bool { return c.Revision >= gone }) // after it was written
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range [][]grid.Changes{later, again} {
		if len(list) != n+1 {
			t.Fatalf("%d changes, want %d", len(list), n+1)
		}
		for i, c := range list[:n] {
			if c.Revision != revs[i] || !slices.Equal(keysOf(c.Put), []string{"w/a", "w/b"}) || len(c.Delete) != 0 ||
				string(c.Put[0].Value) != fmt.Sprint(i) || c.Put[1].Version != revs[i] {
				t.Errorf("change %d is %+v, of revision %d", i, c, revs[i])
			}
		}
		if c := list[n]; c.Revision != gone || !slices.Equal(keysOf(c.Put), []string{"w/last"}) || !slices.Equal(c.Delete, []string{"w/a"}) {
			t.Errorf("the last change is %+v, of revision %d", c, gone)
		}
	}
	middle, err := l.watch("w/a", revs[n/2], func(c grid.Changes) bool { return len(c.Delete) > 0 })
	if err != nil || len(middle) != n-n/2 || middle[0].Revision != revs[n/2+1] {
		t.Errorf("from the middle: %+v, %v", middle, err)
	}

	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	if err := l.Watch(ctx, "w/", start, func(grid.Changes) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("Watch whose context ends: %v", err)
	}
	if err := l.Watch(ctx, "nothing/", 0, func(grid.Changes) error { return nil }); grid.CodeOf(err) != grid.Canceled {
		t.Errorf("Watch whose context has ended: %v", err)
	}
}

// testWatchOld changes so much that no ledger need remember it all: a watch from the beginning tells everything or
// that it cannot.
func testWatchOld(t *testing.T, l ledger) {
	if testing.Short() {
		t.Skip("long")
	}
	start := l.put("old/begin", "")
	big := make([]byte, grid.MaxLedgerValue-100)
	const rounds = 14
	for i := range rounds {
		var es []grid.Entry
		for j := range 4 {
			es = append(es, grid.Entry{Key: fmt.Sprint("old/", j), Value: big})
		}
		es[0].Value = fmt.Append(nil, i)
		l.commit(grid.Txn{Put: es})
	}
	end := l.put("old/end", "")
	next := 0
	_, err := l.watch("old/", start, func(c grid.Changes) bool {
		if next < rounds && (len(c.Put) != 4 || string(c.Put[0].Value) != fmt.Sprint(next)) {
			t.Errorf("change %d has %d entries, the first one is %.20q", next, len(c.Put), c.Put[0].Value)
		}
		next++
		return c.Revision == end
	})
	if err != nil && !errors.Is(err, grid.OutOfDate) || err == nil && next != rounds+1 {
		t.Errorf("Watch from long ago: %d changes, %v", next, err)
	}
	if p, err := l.Range(l.ctx, grid.Query{Prefix: "old/", At: start}); err != nil && !errors.Is(err, grid.OutOfDate) || err == nil && len(p.Entries) != 1 {
		t.Errorf("Range long ago: %d entries, %v", len(p.Entries), err)
	}
}

func testSessions(t *testing.T, l ledger) {
	for _, ttl := range []time.Duration{-1, 0, grid.MinSession - 1, grid.MaxSession + 1} {
		if _, err := l.OpenSession(l.ctx, ttl); !errors.Is(err, grid.Invalid) {
			t.Errorf("OpenSession(%v): %v", ttl, err)
		}
	}
	open := func() grid.Session {
		s, err := l.OpenSession(l.ctx, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s, other := open(), open()
	if s.ID() == "" || s.ID() == other.ID() {
		t.Errorf("sessions %q and %q", s.ID(), other.ID())
	}
	in := func(s grid.Session, key string) grid.Entry {
		return grid.Entry{Key: key, Value: []byte("v"), Session: s.ID()}
	}
	rev := l.commit(grid.Txn{Put: []grid.Entry{
		in(s, "s/2"), in(s, "s/1"), in(other, "s/other"), in(s, "s/moved"), in(s, "s/freed"), in(s, "s/deleted"), in(other, "s/taken"), {Key: "s/none"},
	}})
	if e, err := l.Get(l.ctx, "s/1"); err != nil || e.Session != s.ID() {
		t.Errorf("Get = %+v, %v; want session %q", e, err, s.ID())
	}
	rev = max(rev, l.commit(grid.Txn{Put: []grid.Entry{in(other, "s/moved"), {Key: "s/freed"}, in(s, "s/taken")}, Delete: []string{"s/deleted"}}))
	select {
	case <-s.Done():
		t.Error("the session has ended")
	default:
	}
	for range 2 {
		if err := s.Close(l.ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	select {
	case <-s.Done():
	case <-l.ctx.Done():
		t.Error("a closed session is not done")
	}
	list, err := l.watch("s/", rev, func(grid.Changes) bool { return true })
	if want := []string{"s/1", "s/2", "s/taken"}; err != nil || len(list[0].Put) != 0 || !slices.Equal(slices.Sorted(slices.Values(list[0].Delete)), want) {
		t.Errorf("the end of the session is %+v, %v; want %q to vanish", list, err, want)
	}
	if got, want := keysOf(l.all("s/")), []string{"s/freed", "s/moved", "s/none", "s/other"}; !slices.Equal(got, want) {
		t.Errorf("entries %q are left, want %q", got, want)
	}
	l.refuses(grid.Conflict, grid.Txn{Put: []grid.Entry{in(s, "s/late"), {Key: "s/with it"}}})
	l.refuses(grid.Conflict, grid.Txn{Put: []grid.Entry{{Key: "s/unknown", Session: "no such session"}}})
	if third := open(); third.ID() == s.ID() {
		t.Errorf("the session ID %q is used again", s.ID())
	}
	if l.value("s/other") != "v" || l.value("s/late") != "" {
		t.Error("a session has ended with another, or something is under one that has ended")
	}
}

func testUpdate(t *testing.T, l ledger) {
	const workers, rounds = 4, 12
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range rounds {
				if err := update(l, func(tx *grid.Tx) error {
					e, _, err := tx.Get("counter")
					n := 0
					fmt.Sscan(string(e.Value), &n)
					tx.Put("counter", fmt.Append(nil, n+1))
					return err
				}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got := l.value("counter"); got != fmt.Sprint(workers*rounds) {
		t.Errorf("counter is %q, want %d", got, workers*rounds)
	}
	errMine := errors.New("mine")
	if _, err := grid.Update(l.ctx, l, func(tx *grid.Tx) error { tx.Put("counter", nil); return errMine }); !errors.Is(err, errMine) {
		t.Errorf("Update = %v, want its function's error", err)
	}
	if _, err := grid.Update(l.ctx, l, func(tx *grid.Tx) error {
		tx.Put("a", []byte("1"))
		e, ok, err := tx.Get("a")
		if err != nil || !ok || string(e.Value) != "1" {
			t.Errorf("a transaction reads its own write as %+v, %v, %v", e, ok, err)
		}
		tx.Delete("a")
		if _, ok, err := tx.Get("a"); ok || err != nil {
			t.Errorf("a transaction sees what it has deleted: %v", err)
		}
		tx.Put("b", []byte("2"))
		return nil
	}); err != nil || l.value("a") != "" || l.value("b") != "2" {
		t.Errorf("Update: %v; a is %q and b is %q", err, l.value("a"), l.value("b"))
	}
}

// update is grid.Update however busy it is.
func update(l ledger, f func(tx *grid.Tx) error) error {
	for {
		if _, err := grid.Update(l.ctx, l, f); !errors.Is(err, grid.Busy) {
			return err
		}
	}
}

// testAnomalies lets another transaction commit between the reads and the writes of one.
func testAnomalies(t *testing.T, l ledger) {
	get := func(tx *grid.Tx, key string) string {
		e, _, err := tx.Get(key)
		if err != nil {
			t.Error(err)
		}
		return string(e.Value)
	}
	count := func(tx *grid.Tx, prefix string) int {
		es, err := tx.Range(prefix)
		if err != nil {
			t.Error(err)
		}
		return len(es)
	}
	for _, c := range []struct {
		name  string
		one   func(tx *grid.Tx)
		other func(tx *grid.Tx)
		want  map[string]string
	}{
		{"lost update",
			func(tx *grid.Tx) { tx.Put("n", []byte(get(tx, "n")+"1")) },
			func(tx *grid.Tx) { tx.Put("n", []byte(get(tx, "n")+"2")) },
			map[string]string{"n": "21"}},
		{"write skew", // one of two must stay on call
			func(tx *grid.Tx) {
				if get(tx, "x") == "on" && get(tx, "y") == "on" {
					tx.Put("x", []byte("off"))
				}
			},
			func(tx *grid.Tx) {
				if get(tx, "x") == "on" && get(tx, "y") == "on" {
					tx.Put("y", []byte("off"))
				}
			},
			map[string]string{"x": "on", "y": "off"}},
		{"phantom", // there may be three
			func(tx *grid.Tx) {
				if count(tx, "set/") < 3 {
					tx.Put("set/one", []byte("here"))
				}
			},
			func(tx *grid.Tx) {
				if count(tx, "set/") < 3 {
					tx.Put("set/other", []byte("here"))
				}
			},
			map[string]string{"set/one": "", "set/other": "here"}},
		{"phantom that left",
			func(tx *grid.Tx) { tx.Put("size", fmt.Append(nil, count(tx, "set/"))) },
			func(tx *grid.Tx) { tx.Delete("set/1") },
			map[string]string{"size": "1"}},
		{"absence",
			func(tx *grid.Tx) {
				if get(tx, "new") == "" {
					tx.Put("new", []byte("one"))
				}
			},
			func(tx *grid.Tx) { tx.Put("new", []byte("other")) },
			map[string]string{"new": "other"}},
		{"read skew", // both are read at one moment, or it starts again
			func(tx *grid.Tx) { tx.Put("sum", []byte(get(tx, "x")+get(tx, "y"))) },
			func(tx *grid.Tx) { tx.Put("x", []byte("a")); tx.Put("y", []byte("b")) },
			map[string]string{"sum": "ab"}},
	} {
		l.commit(grid.Txn{Put: entries("n", "", "x", "on", "y", "on", "set/1", "", "set/2", ""), Delete: []string{"new", "set/one", "set/other", "sum", "size"}})
		tries := 0
		err := update(l, func(tx *grid.Tx) error {
			c.one(tx)
			if tries++; tries > 1 {
				return nil
			}
			return update(l, func(tx *grid.Tx) error { c.other(tx); return nil })
		})
		if err != nil || tries < 2 {
			t.Errorf("%s: %v after %d tries", c.name, err, tries)
		}
		for key, want := range c.want {
			if got := l.value(key); got != want {
				t.Errorf("%s: %q is %q, want %q", c.name, key, got, want)
			}
		}
	}
}

func testBank(t *testing.T, l ledger) {
	const accounts, start, workers, rounds = 4, 100, 3, 10
	account := func(i int) string { return fmt.Sprint("bank/", i) }
	var txn grid.Txn
	for i := range accounts {
		txn.Put = append(txn.Put, entries(account(i), fmt.Sprint(start))...)
	}
	l.commit(txn)
	check := func() {
		sum := 0
		p, err := l.Range(l.ctx, grid.Query{Prefix: "bank/"})
		for _, e := range p.Entries {
			n := 0
			fmt.Sscan(string(e.Value), &n)
			sum += n
		}
		if err != nil || sum != accounts*start {
			t.Errorf("the bank has %d, %v; want %d", sum, err, accounts*start)
		}
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for r := range rounds {
				from, to := account((w+r)%accounts), account((w+3*r+1+r%2)%accounts)
				if from == to {
					continue
				}
				if err := update(l, func(tx *grid.Tx) error {
					a, _, err := tx.Get(from)
					if err != nil {
						return err
					}
					b, _, err := tx.Get(to)
					x, y := 0, 0
					fmt.Sscan(string(a.Value), &x)
					fmt.Sscan(string(b.Value), &y)
					tx.Put(from, fmt.Append(nil, x-r))
					tx.Put(to, fmt.Append(nil, y+r))
					return err
				}); err != nil {
					t.Error(err)
					return
				}
				check()
			}
		})
	}
	wg.Wait()
	check()
}

// testTorn writes two entries that always agree.
func testTorn(t *testing.T, l ledger) {
	const workers, rounds = 3, 15
	l.put("twin/1", "", "twin/2", "")
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				v := fmt.Sprint(w, i)
				if _, err := l.Commit(l.ctx, grid.Txn{Put: entries("twin/1", v, "twin/2", v)}); err != nil {
					t.Error(err)
					return
				}
				p, err := l.Range(l.ctx, grid.Query{Prefix: "twin/"})
				if err != nil {
					t.Error(err)
					return
				}
				if es := p.Entries; len(es) != 2 || !bytes.Equal(es[0].Value, es[1].Value) || es[0].Version != es[1].Version {
					t.Errorf("torn transaction: %+v", es)
				}
			}
		})
	}
	wg.Wait()
}

func testLimits(t *testing.T, l ledger) {
	long := strings.Repeat("k", grid.MaxLedgerKey)
	value := bytes.Repeat([]byte("v"), grid.MaxLedgerValue)
	l.commit(grid.Txn{Put: []grid.Entry{{Key: long, Value: value}}})
	if e, err := l.Get(l.ctx, long); err != nil || !bytes.Equal(e.Value, value) {
		t.Errorf("the largest entry: %d bytes, %v", len(e.Value), err)
	}
	many := func(n int) (keys []string) {
		for i := range n {
			keys = append(keys, fmt.Sprint(i))
		}
		return keys
	}
	l.commit(grid.Txn{Delete: many(grid.MaxLedgerTxn)})
	big := func(n int) (es []grid.Entry) {
		for i := range n {
			es = append(es, grid.Entry{Key: fmt.Sprint("big/", i), Value: value})
		}
		return es
	}
	for name, txn := range map[string]grid.Txn{
		"long key":       {Put: entries(long+"k", "")},
		"long value":     {Put: []grid.Entry{{Key: "a", Value: append(value, 0)}}},
		"empty key":      {Put: entries("", "")},
		"empty del":      {Delete: []string{""}},
		"empty cond":     {If: []grid.Cond{{}}},
		"long prefix":    {If: []grid.Cond{{Key: long + "k", Prefix: true}}},
		"count of a key": {If: []grid.Cond{{Key: "a", Count: 1}}},
		"put twice":      {Put: entries("a", "1", "a", "2")},
		"put and del":    {Put: entries("a", "1"), Delete: []string{"a"}},
		"delete twice":   {Delete: []string{"a", "a"}},
		"too many":       {Delete: many(grid.MaxLedgerTxn + 1)},
		"too many conds": {If: make([]grid.Cond, grid.MaxLedgerTxn+1)},
		"too large":      {Put: big(grid.MaxLedgerBytes/grid.MaxLedgerValue + 1)},
		"short ID":       {ID: "x", Put: entries("a", "1")},
		"long ID":        {ID: grid.NewRequestID() + "x", Put: entries("a", "1")},
		"long session":   {Put: []grid.Entry{{Key: "a", Session: grid.SessionID(long)}}},
	} {
		if _, err := l.Commit(l.ctx, txn); !errors.Is(err, grid.Invalid) && !errors.Is(err, grid.Limit) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if es := l.all(""); len(es) != 1 {
		t.Errorf("%d entries, want 1", len(es))
	}
}

func testHostile(t *testing.T, l ledger) {
	l.put("a", "1", "b", "2")
	if _, err := l.Get(l.ctx, ""); err == nil {
		t.Error("Get of the empty key succeeded")
	}
	long := strings.Repeat("k", 1<<20)
	if _, err := l.Get(l.ctx, long); err == nil {
		t.Error("Get of an endless key succeeded")
	}
	if p, err := l.Range(l.ctx, grid.Query{Prefix: long}); err == nil && len(p.Entries) > 0 {
		t.Errorf("Range of an endless prefix = %+v", p)
	}
	if p, err := l.Range(l.ctx, grid.Query{After: strings.Repeat("\xff", 1<<20)}); err == nil && len(p.Entries) > 0 {
		t.Errorf("Range behind an endless key = %+v", p)
	}
	for _, limit := range []int{math.MinInt, -1, math.MaxInt} {
		if p, err := l.Range(l.ctx, grid.Query{Prefix: "a", Limit: limit}); err == nil && (len(p.Entries) != 1 || p.More) {
			t.Errorf("Range with limit %d = %+v", limit, p)
		}
	}
	ctx, cancel := context.WithTimeout(l.ctx, 200*time.Millisecond)
	defer cancel()
	for _, after := range []uint64{math.MaxUint64, math.MaxUint64 - 1, 1 << 63} {
		if err := l.Watch(ctx, "", after, func(c grid.Changes) error { return fmt.Errorf("it changed: %+v", c) }); grid.CodeOf(err) == grid.Unknown {
			t.Errorf("Watch behind revision %d: %v", after, err)
		}
	}
	if l.value("a") != "1" || l.value("b") != "2" {
		t.Error("entries have changed")
	}
}

// testOwnership changes everything that was given and returned.
func testOwnership(t *testing.T, l ledger) {
	given := []byte("value")
	rev := l.commit(grid.Txn{Put: []grid.Entry{{Key: "o/a", Value: given}, {Key: "o/b", Value: given}}})
	spoil := func(b []byte) {
		for i := range b {
			b[i] = '!'
		}
		_ = append(b, "!!!!!!!!"...)
	}
	spoil(given)
	for range 2 {
		e, err := l.Get(l.ctx, "o/a")
		if err != nil || string(e.Value) != "value" {
			t.Errorf("Get = %q, %v", e.Value, err)
		}
		spoil(e.Value)
		p := l.page(grid.Query{Prefix: "o/"})
		for _, e := range p.Entries {
			if string(e.Value) != "value" {
				t.Errorf("%q is %q", e.Key, e.Value)
			}
			spoil(e.Value)
		}
		list, err := l.watch("o/", rev-1, func(grid.Changes) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list[0].Put {
			if string(e.Value) != "value" {
				t.Errorf("%q was written as %q", e.Key, e.Value)
			}
			spoil(e.Value)
		}
	}
}

func testContexts(t *testing.T, l ledger) {
	l.put("a", "1")
	ctx, cancel := context.WithCancel(l.ctx)
	cancel()
	_, get := l.Get(ctx, "a")
	_, rang := l.Range(ctx, grid.Query{})
	_, commit := l.Commit(ctx, grid.Txn{Put: entries("a", "2")})
	_, session := l.OpenSession(ctx, time.Minute)
	for name, err := range map[string]error{"Get": get, "Range": rang, "Commit": commit, "OpenSession": session} {
		if grid.CodeOf(err) != grid.Canceled {
			t.Errorf("%s with a context that has ended: %v", name, err)
		}
	}
	if l.value("a") != "1" {
		t.Error("a transaction was applied whose context had ended before")
	}
}

func testLedgerStatus(t *testing.T, l ledger) {
	rev := l.put("a", "1", "b", "22")
	s, err := l.OpenSession(l.ctx, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(l.ctx)
	st, err := l.Status(l.ctx)
	if err != nil || st.Role == "" || st.Revision < rev || st.Entries < 2 || st.Bytes < 5 || st.Sessions < 1 {
		t.Errorf("Status = %+v, %v; the last revision is %d", st, err, rev)
	}
}
