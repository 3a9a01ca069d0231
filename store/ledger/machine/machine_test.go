package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// apply applies commands as the next log entry.
func apply(t testing.TB, m *Machine, cmds ...Command) []Result {
	t.Helper()
	b, err := AppendBatch(nil, cmds)
	if err != nil {
		t.Fatal(err)
	}
	results, err := m.Apply(m.Applied()+1, b)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// one applies one command and wants a code.
func one(t testing.TB, m *Machine, code grid.Code, c Command) Result {
	t.Helper()
	r := apply(t, m, c)[0]
	if r.Code != code || code != 0 && (r.Message == "" || r.Advice == "") {
		t.Fatalf("result %+v, want the code %q", r, code)
	}
	return r
}

func put(pairs ...string) Command {
	c := Command{Txn: new(grid.Txn)}
	for i := 0; i < len(pairs); i += 2 {
		c.Txn.Put = append(c.Txn.Put, grid.Entry{Key: pairs[i], Value: []byte(pairs[i+1])})
	}
	return c
}

func del(keys ...string) Command { return Command{Txn: &grid.Txn{Delete: keys}} }

func openSession(id grid.SessionID) Command {
	return Command{Open: &OpenSession{ID: id, TTL: time.Second, Owner: "owner"}}
}

func putIn(id grid.SessionID, keys ...string) Command {
	c := Command{Txn: new(grid.Txn)}
	for _, k := range keys {
		c.Txn.Put = append(c.Txn.Put, grid.Entry{Key: k, Session: id})
	}
	return c
}

func identified(c Command, base uint64) Command {
	c.Txn.ID, c.Base = grid.NewRequestID(), base
	return c
}

// TestOnce sends again what was answered already, to a machine and to one restored from its snapshot.
func TestOnce(t *testing.T) {
	cfg := Config{Requests: 3}
	m := New(cfg)
	first := identified(put("n", "1"), 0)
	rev := one(t, m, 0, first).Revision
	for range 2 {
		for i := range 2 {
			if got := one(t, m, 0, first).Revision; got != rev {
				t.Errorf("sent again, it has revision %d, want %d", got, rev)
			}
			one(t, m, 0, put("other", fmt.Sprint(i)))
		}
		m = restored(t, m, Config{}) // which remembers as many as before
	}
	failed := identified(put("n", "2"), m.Revision())
	failed.Txn.If = []grid.Cond{{Key: "n", Version: 99}}
	one(t, m, grid.Conflict, failed)
	base := m.Revision()
	var later []Command
	for i := range 3 {
		later = append(later, identified(put("n", fmt.Sprint("later", i)), base))
		one(t, m, 0, later[i])
	}
	if r := one(t, m, grid.OutOfDate, first); !r.Retry {
		t.Errorf("sent after it was forgotten: %+v", r)
	}
	m = restored(t, m, cfg)
	if r := one(t, m, grid.OutOfDate, first); !r.Retry {
		t.Errorf("sent after it was forgotten, to another machine: %+v", r)
	}
	for i, c := range later {
		if got := one(t, m, 0, c).Revision; got != base+uint64(i)+1 {
			t.Errorf("a remembered one has revision %d", got)
		}
	}
	if r := one(t, m, 0, identified(put("n", "new"), base)); r.Revision != m.Revision() {
		t.Errorf("a new one is %+v", r)
	}
	check := identified(Command{Txn: &grid.Txn{If: []grid.Cond{{Key: "none"}}}}, 0)
	one(t, m, 0, check) // writes nothing, and so it does not matter
	if e, _ := m.Get("n"); string(e.Value) != "new" {
		t.Errorf("n is %q", e.Value)
	}
}

func TestFull(t *testing.T) {
	m := New(Config{MaxBytes: 3 * (entryOverhead + 10)})
	one(t, m, 0, put("a", "123456789", "b", "123456789"))
	one(t, m, grid.Limit, put("c", strings.Repeat("x", 10)))
	one(t, m, 0, put("c", "123456789"))
	one(t, m, grid.Limit, put("d", ""))
	one(t, m, grid.Limit, put("a", "1234567890"))
	one(t, m, 0, put("a", "9876543210"[:9])) // no larger than before
	swap := del("a", "b")                    // smaller together
	swap.Txn.Put = put("d", "1234567").Txn.Put
	one(t, m, 0, swap)
	one(t, m, 0, put("e", "12345678901")) // that made room
	m = restored(t, m, Config{})          // the limit is the state's
	one(t, m, grid.Limit, put("f", ""))
	one(t, m, 0, del("c", "d", "e"))
	if s := m.Stats(); s.Entries != 0 || s.Bytes != 0 {
		t.Errorf("%+v, want nothing", s)
	}
}

// TestFullOfUsers: what users and guests keep leaves room for what the realm itself writes.
func TestFullOfUsers(t *testing.T) {
	m := New(Config{MaxBytes: 8 * (entryOverhead + 10)})
	for i := range 6 {
		one(t, m, 0, put(fmt.Sprint(grid.UserKeys, i), "123456"))
	}
	one(t, m, grid.Limit, put(grid.UserKeys+"6", ""))
	one(t, m, grid.Limit, put("job/1", "12345", grid.UserKeys+"6", ""))
	one(t, m, 0, put(grid.UserKeys+"0", "654321")) // no larger than before
	one(t, m, 0, put("job/1", "12345"))
	one(t, m, 0, put("job/2", "12345"))
	one(t, m, grid.Limit, put("job/3", ""))
	one(t, m, 0, del(grid.UserKeys+"0", grid.UserKeys+"1", "job/1"))
	one(t, m, 0, put(grid.UserKeys+"0", "123456"))
}

func TestSessions(t *testing.T) {
	m := New(Config{})
	one(t, m, grid.Conflict, putIn("s", "a"))
	one(t, m, 0, openSession("s"))
	one(t, m, 0, openSession("s")) // the answer was lost
	other := openSession("s")
	other.Open.Owner = "somebody else"
	if r := apply(t, m, other)[0]; r.Code != grid.Conflict {
		t.Errorf("a session of another owner with the same ID: %+v", r)
	}
	one(t, m, 0, openSession("t"))
	one(t, m, 0, putIn("s", "b", "a", "d"))
	one(t, m, 0, putIn("t", "c", "d"))
	if got := m.Sessions(); !slices.Equal(got, []Session{{"s", time.Second, "owner"}, {"t", time.Second, "owner"}}) {
		t.Errorf("Sessions = %+v", got)
	}
	m = restored(t, m, Config{})
	before := m.Revision()
	if r := one(t, m, 0, Command{End: []grid.SessionID{"s", "none", "s", "t"}}); r.Revision != before+2 {
		t.Errorf("the end of two sessions is %+v", r)
	}
	w, err := m.Watch("", before)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range [][]string{{"a", "b"}, {"c", "d"}} {
		c, err := w.Next(t.Context())
		if err != nil || !slices.Equal(c.Delete, want) || len(c.Put) > 0 || c.Revision != before+uint64(i)+1 {
			t.Errorf("change %d is %+v, %v; want %q to vanish", i, c, err, want)
		}
	}
	one(t, m, grid.Conflict, putIn("t", "a"))
	one(t, m, 0, openSession("empty"))
	if r := one(t, m, 0, Command{End: []grid.SessionID{"empty"}}); r.Revision != before+2 {
		t.Errorf("the end of a session without entries is %+v", r)
	}

	one(t, m, 0, openSession("big"))
	n := 0
	key := func() string { n++; return fmt.Sprintf("%0*d", grid.MaxLedgerKey, n) }
	for range maxOwned/grid.MaxLedgerKey - 1 {
		one(t, m, 0, putIn("big", key()))
	}
	one(t, m, grid.Limit, putIn("big", key(), key()))
	one(t, m, 0, putIn("big", key()))
	one(t, m, grid.Limit, putIn("big", key()))
	one(t, m, 0, putIn("big", fmt.Sprintf("%0*d", grid.MaxLedgerKey, 1))) // one that it has

	for i := range maxSessions - 1 {
		c := openSession(grid.SessionID(fmt.Sprint(i)))
		c.Open.Owner = peer.ID(fmt.Sprint("owner", i/maxSessionsOf))
		one(t, m, 0, c)
		if i == maxSessionsOf-1 {
			c = openSession("one more of its")
			c.Open.Owner = "owner0"
			one(t, m, grid.Limit, c)
		}
	}
	one(t, m, grid.Limit, openSession("one more"))
	one(t, m, 0, openSession("big"))
	restored(t, m, Config{})
}

// TestRefusals applies what AppendBatch would not write.
func TestRefusals(t *testing.T) {
	for name, c := range map[string]Command{
		"nothing":          {},
		"two things":       {Txn: new(grid.Txn), Open: &OpenSession{ID: "s", TTL: time.Second}},
		"all three":        {Txn: new(grid.Txn), Open: &OpenSession{ID: "s", TTL: time.Second}, End: []grid.SessionID{"s"}},
		"no name":          {Open: &OpenSession{TTL: time.Second}},
		"a long name":      {Open: &OpenSession{ID: grid.SessionID(strings.Repeat("s", grid.MaxName+1)), TTL: time.Second}},
		"no life":          {Open: &OpenSession{ID: "s"}},
		"eternal life":     {Open: &OpenSession{ID: "s", TTL: grid.MaxSession + 1}},
		"many to end":      {End: make([]grid.SessionID, MaxBatch+1)},
		"a long end":       {End: []grid.SessionID{grid.SessionID(strings.Repeat("s", grid.MaxName+1))}},
		"an empty key":     put("", ""),
		"written twice":    put("a", "", "a", ""),
		"put and deleted":  {Txn: &grid.Txn{Put: []grid.Entry{{Key: "a"}}, Delete: []string{"a"}}},
		"endless counting": {Txn: &grid.Txn{If: []grid.Cond{{Prefix: true, Count: 1 << 60}}}},
	} {
		if _, err := AppendBatch(nil, []Command{c}); !errors.Is(err, grid.Invalid) && !errors.Is(err, grid.Limit) {
			t.Errorf("%s: AppendBatch: %v", name, err)
		}
		if c.Txn == nil && c.Open == nil || c.Open != nil && c.Txn != nil {
			continue
		}
		m := New(Config{})
		entry := c.append([]byte{batchVersion, 1})
		results, err := m.Apply(1, entry)
		if err == nil && results[0].Code != grid.Invalid && results[0].Code != grid.Limit || err != nil && !errors.Is(err, grid.Corrupt) {
			t.Errorf("%s: Apply = %+v, %v", name, results, err)
		}
		if s := m.Stats(); s.Revision != 0 || s.Entries != 0 || s.Sessions != 0 {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if _, err := AppendBatch(nil, make([]Command, MaxBatch+1)); !errors.Is(err, grid.Limit) {
		t.Errorf("a batch that is too large: %v", err)
	}

	m := New(Config{})
	good, err := AppendBatch(nil, []Command{put("a", "1")})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		index uint64
		entry []byte
		want  grid.Code
	}{
		"empty":           {1, nil, grid.Corrupt},
		"no version":      {1, append([]byte{0}, good[1:]...), grid.Corrupt},
		"newer":           {1, append([]byte{batchVersion + 1}, good[1:]...), grid.Unsupported},
		"cut":             {1, good[:len(good)-1], grid.Corrupt},
		"long":            {1, append(slices.Clone(good), 0), grid.Corrupt},
		"before the last": {0, good, grid.Invalid},
	} {
		if _, err := m.Apply(c.index, c.entry); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want the code %q", name, err, c.want)
		}
	}
	if m.Applied() != 0 {
		t.Errorf("Applied = %d after refusals", m.Applied())
	}
}

// TestHistory looks how far back it goes, by number and by size.
func TestHistory(t *testing.T) {
	m := New(Config{History: 10})
	for i := range 25 {
		one(t, m, 0, put("k", fmt.Sprint(i)))
	}
	if s := m.Stats(); s.Oldest != 15 {
		t.Errorf("the oldest is %d, want 15", s.Oldest)
	}
	for at := uint64(1); at <= 25; at++ {
		p, err := m.Range(grid.Query{At: at})
		if at < 15 {
			if !errors.Is(err, grid.OutOfDate) {
				t.Errorf("Range at %d: %v", at, err)
			}
		} else if err != nil || string(p.Entries[0].Value) != fmt.Sprint(at-1) || p.Entries[0].Version != at || p.Revision != at {
			t.Errorf("Range at %d = %+v, %v", at, p, err)
		}
	}
	if _, err := m.Range(grid.Query{At: 26}); !errors.Is(err, grid.Unavailable) {
		t.Errorf("Range in the future: %v", err)
	}
	if _, err := m.Watch("", 14); !errors.Is(err, grid.OutOfDate) {
		t.Errorf("Watch from 14: %v", err)
	}
	w, err := m.Watch("k", 15)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := w.Next(t.Context()); err != nil || c.Revision != 16 {
		t.Errorf("Next = %+v, %v", c, err)
	}
	for range 11 {
		one(t, m, 0, put("other", ""))
	}
	if _, err := w.Next(t.Context()); !errors.Is(err, grid.OutOfDate) {
		t.Errorf("Next of a slow watcher: %v", err)
	}

	m = New(Config{HistoryBytes: 10000})
	for i := range 20 {
		one(t, m, 0, put(fmt.Sprint(i), strings.Repeat("x", 900)))
	}
	if s := m.Stats(); s.Oldest < 10 || s.Oldest > 13 {
		t.Errorf("10000 bytes of history go back to %d of 20", s.Oldest)
	}
	one(t, m, 0, put("big", strings.Repeat("x", 20000)))
	if s := m.Stats(); s.Oldest != 20 {
		t.Errorf("after one large change, the oldest is %d, want 20", s.Oldest)
	}
}

// TestWatchSurvives goes on with a watch on a restored machine.
func TestWatchSurvives(t *testing.T) {
	m := New(Config{})
	for i := range tailRecords + 10 {
		one(t, m, 0, put("k", fmt.Sprint(i)))
	}
	one(t, m, 0, del("absent")) // a revision without changes
	m = restored(t, m, Config{})
	if s := m.Stats(); s.Oldest != 11 {
		t.Errorf("the oldest is %d, want 11", s.Oldest)
	}
	one(t, m, 0, put("k", "last"))
	w, err := m.Watch("", 11)
	if err != nil {
		t.Fatal(err)
	}
	for rev := uint64(12); rev <= tailRecords+10; rev++ {
		c, err := w.Next(t.Context())
		if err != nil || c.Revision != rev || string(c.Put[0].Value) != fmt.Sprint(rev-1) {
			t.Fatalf("Next = %+v, %v; want revision %d", c, err, rev)
		}
	}
	if c, err := w.Next(t.Context()); err != nil || c.Revision != tailRecords+12 || string(c.Put[0].Value) != "last" {
		t.Errorf("Next = %+v, %v", c, err)
	}
	if p, err := m.Range(grid.Query{At: 100}); err != nil || string(p.Entries[0].Value) != "99" {
		t.Errorf("Range of before the snapshot = %+v, %v", p, err)
	}
}

func TestWatchers(t *testing.T) {
	m := New(Config{Watchers: 2})
	a, err := m.Watch("a", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Watch("b", 5); err != nil { // from the future
		t.Fatal(err)
	}
	if _, err := m.Watch("c", 0); !errors.Is(err, grid.Limit) {
		t.Errorf("a third watcher: %v", err)
	}
	a.Close()
	a.Close()
	if s := m.Stats(); s.Watchers != 1 {
		t.Errorf("%d watchers, want 1", s.Watchers)
	}
	if _, err := m.Watch(strings.Repeat("x", grid.MaxLedgerKey+1), 0); !errors.Is(err, grid.Invalid) {
		t.Errorf("a long prefix: %v", err)
	}
	c, err := m.Watch("c", 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Next: %v", err)
	}
	if _, ok, err := c.Poll(); ok || err != nil {
		t.Errorf("Poll of nothing: %v, %v", ok, err)
	}
	for range 3 * scanned {
		one(t, m, 0, put("a", ""))
	}
	if _, ok, err := c.Poll(); ok || err != nil || c.After() != m.Revision() {
		t.Errorf("Poll of nothing: %v, %v; it is at %d of %d", ok, err, c.After(), m.Revision())
	}
}

// TestConcurrent reads, watches and takes snapshots while commands are applied.
func TestConcurrent(t *testing.T) {
	m := New(Config{})
	const rounds = 300
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	done := make(chan struct{})
	consistent := func(es []grid.Entry) bool { // all were written together
		return len(es) == 0 || len(es) == 50 && es[0].Version == es[49].Version && bytes.Equal(es[0].Value, es[49].Value)
	}
	until := func(f func() error) {
		wg.Go(func() {
			for {
				if err := f(); err != nil {
					t.Error(err)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	until(func() error {
		p, err := m.Range(grid.Query{Prefix: "k/"})
		if err != nil || !consistent(p.Entries) {
			return fmt.Errorf("Range = %+v, %w", p, err)
		}
		back := p.Revision - min(p.Revision, 20)
		if back == 0 {
			return nil
		}
		if p, err = m.Range(grid.Query{Prefix: "k/", At: back}); err != nil || !consistent(p.Entries) || p.Entries[0].Version != back {
			return fmt.Errorf("Range at %d = %+v, %w", back, p, err)
		}
		return nil
	})
	until(func() error {
		s := m.Snapshot()
		sum := s.Sum()
		var b bytes.Buffer
		if _, err := s.WriteTo(&b); err != nil {
			return err
		}
		other := New(Config{})
		if err := other.Restore(&b); err != nil {
			return err
		}
		if other.Snapshot().Sum() != sum || s.Sum() != sum {
			return errors.New("a snapshot has changed")
		}
		return nil
	})
	for range 3 {
		w, err := m.Watch("k/", 0)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer w.Close()
			for rev := uint64(1); rev <= rounds; rev++ {
				c, err := w.Next(ctx)
				if err != nil || c.Revision != rev || !consistent(c.Put) {
					t.Errorf("Next = %+v, %v; want revision %d", c, err, rev)
					return
				}
			}
		})
	}
	for i := range rounds {
		c := put()
		for j := range 50 {
			c.Txn.Put = append(c.Txn.Put, grid.Entry{Key: fmt.Sprintf("k/%02d", j), Value: fmt.Append(nil, i)})
		}
		one(t, m, 0, c)
	}
	close(done)
	wg.Wait()
}

// TestOwnership changes what was given and returned.
func TestOwnership(t *testing.T) {
	m := New(Config{})
	batch, err := AppendBatch(nil, []Command{put("a", "value", "b", "value")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Apply(1, batch); err != nil {
		t.Fatal(err)
	}
	clear(batch)
	for range 2 {
		e, _ := m.Get("a")
		p, _ := m.Range(grid.Query{})
		w, _ := m.Watch("", 0)
		c, _ := w.Next(t.Context())
		for _, e := range append(append(p.Entries, c.Put...), e) {
			if string(e.Value) != "value" {
				t.Errorf("%q is %q", e.Key, e.Value)
			}
			clear(e.Value)
			_ = append(e.Value, "!!!!!"...)
		}
	}
}

// TestAudiences: who watches is woken by changes of what is watched, and of others only as often as is needed to keep up with them.
func TestAudiences(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Config{History: 64})
		w, err := m.Watch("watched/", 0)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		got := make(chan grid.Changes, 1)
		go func() {
			c, err := w.Next(t.Context())
			if err != nil {
				t.Error(err)
			}
			got <- c
		}()
		woken, last := 0, w.After()
		for range 1000 {
			one(t, m, 0, put("other/k", "v"))
			synctest.Wait()
			if after := w.After(); after != last {
				woken, last = woken+1, after
			}
		}
		if woken < 1000/64 || woken > 1000/16+1 {
			t.Errorf("a watcher of something else was woken %d times by 1,000 changes, with a history of 64", woken)
		}
		one(t, m, 0, put("watched/k", "v"))
		if c := <-got; c.Revision != m.Stats().Revision || len(c.Put) != 1 || c.Put[0].Key != "watched/k" {
			t.Errorf("got %+v", c)
		}
	})
}
