// Package local is grid.Ledger for a node that is alone, such as that of one command: a state machine in memory
// (store/ledger/machine) whose transactions are durable in a go-datastore before anybody sees them. The realm of several
// nodes has package ledger, behind the same contract.
//
// Everything is read at the first use. Sessions, request IDs and history live as long as the process: entries that
// a session left behind are removed when the next process reads them.
//
// # Format
//
// An entry's datastore key is "/ledger2/" and the ledger key in hexadecimal digits, which keeps the order of keys. The
// value is
//
//	0   4  CRC-32C of the ledger key and of everything after this field
//	4   8  version, big-endian
//	12  1  1 if the entry vanishes with its session, else 0
//	13  …  the entry's value
//
// "/ledger2-revision" holds the revision of the last transaction, in the same form: its ledger key and its
// value are empty.
package local

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/ledger/machine"
)

// Config is how a ledger is opened.
type Config struct {
	// Under opens what a realm knew last, for a home that belongs to one whose node is not running; nil, or a nil Reader, if
	// there is none. It is called at the first use that needs it. Reads see those entries too, behind the
	// ledger's own; they cannot be written.
	Under func(context.Context) (Reader, error)
}

// Reader is a state that no longer changes: a machine.Machine, for one.
type Reader interface {
	Get(key string) (grid.Entry, bool)
	Range(grid.Query) (grid.Page, error)
}

// Ledger is a grid.Ledger on one node.
type Ledger struct {
	d   datastore.Batching
	cfg Config

	// Held for writing by a commit until it is durable, so that nobody reads what may be lost.
	mu       sync.RWMutex
	revision uint64  // the last one that was used, be it in vain
	now      *loaded // nil before the first use, and after a failed write

	underMu sync.Mutex
	under   Reader
	looked  bool // for under
}

// loaded is what lives in memory only.
type loaded struct {
	m        *machine.Machine
	tail     *machine.Watcher // behind what is durable
	index    uint64           // of commands
	sessions map[grid.SessionID]*session
	life     context.Context // ends when this is given up
	end      context.CancelCauseFunc
}

var _ grid.Ledger = (*Ledger)(nil)

// Open begins with what is in d, whose batches must be atomic. d stays the caller's to close.
func Open(ctx context.Context, d datastore.Batching, c Config) (*Ledger, error) {
	l := &Ledger{d: d, cfg: c}
	b, err := d.Get(ctx, revisionKey)
	if errors.Is(err, datastore.ErrNotFound) {
		return l, nil
	}
	if err != nil {
		return nil, grid.Errorf(codeOf(err), "store: open the ledger: %w", err)
	}
	e, _, err := decode("", b)
	if err != nil {
		return nil, grid.Errorf(grid.Corrupt, "store: open the ledger: its revision: %w", err).
			Hint("the disk has changed it: check the disk, and restore the data folder")
	}
	l.revision = e.Version
	return l, nil
}

var (
	root        = "/ledger2"
	revisionKey = datastore.RawKey("/ledger2-revision")
	castagnoli  = crc32.MakeTable(crc32.Castagnoli)
)

const header = 13

func encode(e grid.Entry) []byte {
	b := make([]byte, header, header+len(e.Value))
	binary.BigEndian.PutUint64(b[4:], e.Version)
	if e.Session != "" {
		b[12] = 1
	}
	b = append(b, e.Value...)
	binary.BigEndian.PutUint32(b, checksum(e.Key, b))
	return b
}

func checksum(key string, b []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(key), castagnoli), castagnoli, b[4:])
}

// decode reads an entry; gone says that it was to vanish with a session.
func decode(key string, b []byte) (e grid.Entry, gone bool, err error) {
	if len(b) < header || binary.BigEndian.Uint32(b) != checksum(key, b) || b[12] > 1 {
		return grid.Entry{}, false, grid.Errorf(grid.Corrupt, "entry %q does not match its checksum", key).
			Hint("the disk has changed it: check the disk, and restore the data folder")
	}
	return grid.Entry{Key: key, Version: binary.BigEndian.Uint64(b[4:]), Value: b[header:]}, b[12] == 1, nil
}

func storeKey(key string) datastore.Key {
	b := make([]byte, 0, len(root)+1+2*len(key))
	b = append(append(b, root...), '/')
	return datastore.RawKey(string(hex.AppendEncode(b, []byte(key))))
}

func ledgerKey(k string) (string, error) {
	b, err := hex.DecodeString(strings.TrimPrefix(k, root+"/"))
	if err != nil || len(b) == 0 {
		return "", grid.Errorf(grid.Corrupt, "datastore key %q is none of a ledger's", k)
	}
	return string(b), nil
}

func codeOf(err error) grid.Code {
	if c := grid.CodeOf(err); c != grid.Unknown {
		return c
	}
	return grid.Internal
}

func fail(err error, format string, args ...any) error {
	return grid.Errorf(codeOf(err), "store: ledger: "+format+": %w", append(args, err)...)
}

// read calls f with everything loaded, while nobody writes.
func (l *Ledger) read(ctx context.Context, f func(*loaded) error) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	for {
		l.mu.RLock()
		if l.now != nil {
			defer l.mu.RUnlock()
			return f(l.now)
		}
		l.mu.RUnlock()
		if err := l.write(ctx, func(*loaded) error { return nil }); err != nil {
			return err
		}
	}
}

// write calls f with everything loaded, while nobody else reads or writes.
func (l *Ledger) write(ctx context.Context, f func(*loaded) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if l.now == nil {
		if err := l.load(ctx); err != nil {
			return grid.Errorf(codeOf(err), "read the entries: %w", err)
		}
	}
	return f(l.now)
}

func (l *Ledger) load(ctx context.Context) error {
	var entries []grid.Entry
	var gone []string
	q := query.Query{Prefix: root, Orders: []query.Order{query.OrderByKey{}}}
	for r, err := range datastore.QueryIter(ctx, l.d, q) {
		if err != nil {
			return err
		}
		key, err := ledgerKey(r.Key)
		if err != nil {
			return err
		}
		e, vanishes, err := decode(key, r.Value)
		if err != nil {
			return err
		}
		l.revision = max(l.revision, e.Version)
		if vanishes {
			gone = append(gone, key)
		} else {
			entries = append(entries, e)
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if len(gone) > 0 {
		l.revision++
		if err := l.save(ctx, grid.Changes{Revision: l.revision, Delete: gone}); err != nil {
			return err
		}
	}
	m := machine.Load(machine.Config{}, l.revision, entries)
	tail, err := m.Watch("", l.revision)
	if err != nil {
		return err
	}
	life, end := context.WithCancelCause(context.Background())
	l.now = &loaded{m: m, tail: tail, sessions: make(map[grid.SessionID]*session), life: life, end: end}
	return nil
}

// save makes changes durable.
func (l *Ledger) save(ctx context.Context, c grid.Changes) error {
	b, err := l.d.Batch(ctx)
	if err != nil {
		return err
	}
	for _, e := range c.Put {
		if err := b.Put(ctx, storeKey(e.Key), encode(e)); err != nil {
			return err
		}
	}
	for _, key := range c.Delete {
		if err := b.Delete(ctx, storeKey(key)); err != nil {
			return err
		}
	}
	if err := b.Put(ctx, revisionKey, encode(grid.Entry{Version: c.Revision})); err != nil {
		return err
	}
	if err := b.Commit(ctx); err != nil {
		return err
	}
	return l.d.Sync(ctx, datastore.NewKey("/"))
}

// apply applies a command and makes durable what it changed, in l.write. It runs to its end whatever becomes of ctx.
func (l *Ledger) apply(ctx context.Context, s *loaded, c machine.Command) (uint64, error) {
	b, err := machine.AppendBatch(nil, []machine.Command{c})
	if err != nil {
		return 0, err
	}
	s.index++
	results, err := s.m.Apply(s.index, b)
	if err != nil {
		return 0, err
	}
	if err := results[0].Err(); err != nil {
		return 0, err
	}
	revision := s.m.Revision()
	if revision == s.tail.After() { // nothing has changed
		return results[0].Revision, nil
	}
	l.revision = revision
	changes, ok, err := s.tail.Poll()
	if !ok {
		changes = grid.Changes{Revision: revision} // it deleted what was not there
	}
	if err == nil {
		err = l.save(context.WithoutCancel(ctx), changes)
	}
	if err != nil {
		err = grid.Errorf(codeOf(err), "it is not known whether it took place: %w", err)
		l.giveUp(err)
		return 0, err
	}
	return results[0].Revision, nil
}

// giveUp forgets what is in memory, since it may not be what is on disk. What is used next is read again.
func (l *Ledger) giveUp(err error) {
	l.now.end(grid.Errorf(grid.OutOfDate, "the ledger was read anew after a write that failed: %w", err).
		Hint("read the range and watch from there"))
	for _, s := range l.now.sessions {
		close(s.done)
	}
	l.now = nil
}

func checkKey(key string) error {
	if key == "" || len(key) > grid.MaxLedgerKey {
		return grid.Errorf(grid.Invalid, "a key of %d bytes, want 1 to %d", len(key), grid.MaxLedgerKey)
	}
	return nil
}

// Get reads one entry.
func (l *Ledger) Get(ctx context.Context, key string) (e grid.Entry, err error) {
	if err := checkKey(key); err != nil {
		return grid.Entry{}, fail(err, "get")
	}
	ok := false
	err = l.read(ctx, func(s *loaded) error {
		e, ok = s.m.Get(key)
		return nil
	})
	if err == nil && !ok {
		var u Reader
		if u, err = l.realm(ctx); u != nil {
			e, ok = u.Get(key)
		}
	}
	if err != nil {
		return grid.Entry{}, fail(err, "get %q", key)
	}
	if !ok {
		return grid.Entry{}, grid.Errorf(grid.NotFound, "store: ledger: get %q: no such entry", key)
	}
	return e, nil
}

// Range reads entries by prefix.
func (l *Ledger) Range(ctx context.Context, q grid.Query) (p grid.Page, err error) {
	err = l.read(ctx, func(s *loaded) error {
		p, err = s.m.Range(q)
		return err
	})
	if err == nil {
		var u Reader
		if u, err = l.realm(ctx); u != nil {
			q.At = 0
			var below grid.Page
			if below, err = u.Range(q); err == nil {
				p = union(p, below, q.Limit)
			}
		}
	}
	if err != nil {
		return grid.Page{}, fail(err, "range %.200q", q.Prefix)
	}
	return p, nil
}

// Watch tells changes of the ledger's own entries, while they last.
func (l *Ledger) Watch(ctx context.Context, prefix string, after uint64, f func(grid.Changes) error) error {
	var w *machine.Watcher
	var life context.Context
	if err := l.read(ctx, func(s *loaded) (err error) {
		life = s.life
		w, err = s.m.Watch(prefix, after)
		return err
	}); err != nil {
		return fail(err, "watch %.200q", prefix)
	}
	defer w.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(life, func() { cancel(context.Cause(life)) })()
	for {
		c, err := w.Next(ctx)
		if err != nil {
			return fail(err, "watch %.200q", prefix)
		}
		l.mu.RLock() // until it is durable
		err = context.Cause(life)
		l.mu.RUnlock()
		if err != nil {
			return fail(err, "watch %.200q", prefix)
		}
		if err := f(c); err != nil {
			return err
		}
	}
}

// Commit applies a transaction.
func (l *Ledger) Commit(ctx context.Context, t grid.Txn) (revision uint64, err error) {
	if err := grid.CheckTxn(&t); err != nil {
		return 0, fail(err, "commit")
	}
	u, err := l.realm(ctx)
	if err != nil {
		return 0, fail(err, "commit")
	}
	err = l.write(ctx, func(s *loaded) (err error) {
		if u != nil {
			if err := outside(s.m, u, &t); err != nil {
				return err
			}
		}
		// Who sends the same ID again is in this process, and does not take so long as to be forgotten.
		revision, err = l.apply(ctx, s, machine.Command{Txn: &t, Base: s.m.Revision()})
		return err
	})
	if err != nil {
		return 0, fail(err, "commit")
	}
	return revision, nil
}

// OpenSession begins a session that lasts until it is closed, or as long as the process.
func (l *Ledger) OpenSession(ctx context.Context, ttl time.Duration) (grid.Session, error) {
	s := &session{l: l, id: grid.SessionID(rand.Text()), done: make(chan struct{})}
	err := l.write(ctx, func(in *loaded) error {
		if _, err := l.apply(ctx, in, machine.Command{Open: &machine.OpenSession{ID: s.id, TTL: ttl}}); err != nil {
			return err
		}
		in.sessions[s.id] = s
		return nil
	})
	if err != nil {
		return nil, fail(err, "open a session")
	}
	return s, nil
}

type session struct {
	l    *Ledger
	id   grid.SessionID
	done chan struct{} // closed by whoever removes the session from loaded.sessions
}

func (s *session) ID() grid.SessionID    { return s.id }
func (s *session) Done() <-chan struct{} { return s.done }

func (s *session) Close(ctx context.Context) error {
	err := s.l.write(ctx, func(in *loaded) error {
		if in.sessions[s.id] == nil {
			return nil
		}
		if _, err := s.l.apply(ctx, in, machine.Command{End: []grid.SessionID{s.id}}); err != nil {
			return err
		}
		delete(in.sessions, s.id)
		close(s.done)
		return nil
	})
	if err != nil {
		return fail(err, "close a session")
	}
	return nil
}

// Status describes the ledger.
func (l *Ledger) Status(ctx context.Context) (st grid.LedgerStatus, err error) {
	err = l.read(ctx, func(s *loaded) error {
		n := s.m.Stats()
		st = grid.LedgerStatus{Realm: "local", Role: grid.Leader, Revision: n.Revision, Entries: n.Entries, Bytes: n.Bytes, Sessions: n.Sessions}
		return nil
	})
	if err != nil {
		return grid.LedgerStatus{}, fail(err, "status")
	}
	return st, nil
}
