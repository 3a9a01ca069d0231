// Package local is grid.Ledger for a realm of one node, over a go-datastore: optimistic transactions,
// applied one at a time and made durable before Commit returns. A realm of several nodes needs a ledger
// that is replicated by Raft; it will stand behind the same contract, gridtest.TestLedger.
//
// # Format
//
// An entry's datastore key is "/ledger" and then, for each byte of the ledger key, a slash and the byte in
// two hexadecimal digits: datastores search by whole path components, and so every prefix of a ledger key
// is one, and the order of keys is kept. The value is
//
//	0   4  CRC-32C of the ledger key and of everything after this field
//	4   8  version, big-endian
//	12  …  the entry's value
//
// "/ledger-revision" holds the revision of the last transaction, in the same form: its ledger key and its
// value are empty.
package local

import (
	"context"
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
)

// Ledger is a grid.Ledger on one node.
type Ledger struct {
	d datastore.Batching

	mu       sync.RWMutex // held for writing by a commit until it is durable, so that nobody reads what may be lost
	revision uint64
}

var _ grid.Ledger = (*Ledger)(nil)

// Open reads the ledger's state in d, whose batches must be atomic. d stays the caller's to close.
func Open(ctx context.Context, d datastore.Batching) (*Ledger, error) {
	l := &Ledger{d: d}
	b, err := d.Get(ctx, revisionKey)
	if errors.Is(err, datastore.ErrNotFound) {
		return l, nil
	}
	if err != nil {
		return nil, grid.Errorf(codeOf(err), "store: open the ledger: %w", err)
	}
	e, err := decode("", b)
	if err != nil {
		return nil, grid.Errorf(grid.Corrupt, "store: open the ledger: its revision: %w", err).
			Hint("the disk has changed it: check the disk, and restore the data folder")
	}
	l.revision = e.Version
	return l, nil
}

var (
	root        = "/ledger"
	revisionKey = datastore.RawKey("/ledger-revision")
	castagnoli  = crc32.MakeTable(crc32.Castagnoli)
)

const header = 12

func encode(key string, version uint64, value []byte) []byte {
	b := make([]byte, header, header+len(value))
	binary.BigEndian.PutUint64(b[4:], version)
	b = append(b, value...)
	binary.BigEndian.PutUint32(b, checksum(key, b))
	return b
}

func checksum(key string, b []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(key), castagnoli), castagnoli, b[4:])
}

func decode(key string, b []byte) (grid.Entry, error) {
	if len(b) < header || binary.BigEndian.Uint32(b) != checksum(key, b) {
		return grid.Entry{}, grid.Errorf(grid.Corrupt, "entry %q does not match its checksum", key)
	}
	return grid.Entry{Key: key, Version: binary.BigEndian.Uint64(b[4:]), Value: b[header:]}, nil
}

const digits = "0123456789abcdef"

func storeKey(key string) datastore.Key {
	b := make([]byte, 0, len(root)+3*len(key))
	b = append(b, root...)
	for i := range len(key) {
		b = append(b, '/', digits[key[i]>>4], digits[key[i]&15])
	}
	return datastore.RawKey(string(b))
}

func ledgerKey(k string) (string, error) {
	b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimPrefix(k, root), "/", ""))
	if err != nil {
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

func checkKey(key string) error {
	if key == "" || len(key) > grid.MaxLedgerKey {
		return grid.Errorf(grid.Invalid, "a key of %d bytes, want 1 to %d", len(key), grid.MaxLedgerKey)
	}
	return nil
}

// Get reads one entry.
func (l *Ledger) Get(ctx context.Context, key string) (grid.Entry, error) {
	if err := checkKey(key); err != nil {
		return grid.Entry{}, grid.Errorf(grid.Invalid, "store: ledger: get: %w", err)
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	e, err := l.get(ctx, key)
	if errors.Is(err, datastore.ErrNotFound) {
		return grid.Entry{}, grid.Errorf(grid.NotFound, "store: ledger: get %q: no such entry", key)
	}
	if err != nil {
		return grid.Entry{}, grid.Errorf(codeOf(err), "store: ledger: get %q: %w", key, err)
	}
	return e, nil
}

func (l *Ledger) get(ctx context.Context, key string) (grid.Entry, error) {
	if err := ctx.Err(); err != nil {
		return grid.Entry{}, err
	}
	b, err := l.d.Get(ctx, storeKey(key))
	if err != nil {
		return grid.Entry{}, err
	}
	return decode(key, b)
}

// Range reads entries by prefix; the present only.
func (l *Ledger) Range(ctx context.Context, q grid.Query) (grid.Page, error) {
	if len(q.Prefix) > grid.MaxLedgerKey {
		return grid.Page{}, nil
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	entries, err := l.scan(ctx, q.Prefix, max(q.Limit, 0))
	if err != nil {
		return grid.Page{}, grid.Errorf(codeOf(err), "store: ledger: range %q: %w", q.Prefix, err)
	}
	return grid.Page{Entries: entries, Revision: l.revision}, nil
}

// Watch is not there yet.
func (l *Ledger) Watch(context.Context, string, uint64, func(grid.Changes) error) error {
	return grid.Errorf(grid.Unsupported, "store: ledger: watch")
}

// OpenSession is not there yet.
func (l *Ledger) OpenSession(context.Context, time.Duration) (grid.Session, error) {
	return nil, grid.Errorf(grid.Unsupported, "store: ledger: open session")
}

// Status describes the ledger.
func (l *Ledger) Status(context.Context) (grid.LedgerStatus, error) {
	return grid.LedgerStatus{Role: grid.Leader}, nil
}

func (l *Ledger) scan(ctx context.Context, prefix string, limit int) (entries []grid.Entry, err error) {
	if prefix != "" { // a query finds what lies below a key only
		e, err := l.get(ctx, prefix)
		if err == nil {
			entries = append(entries, e)
		} else if !errors.Is(err, datastore.ErrNotFound) {
			return nil, err
		}
	}
	if limit > 0 && len(entries) == limit {
		return entries, nil
	}
	q := query.Query{Prefix: storeKey(prefix).String(), Orders: []query.Order{query.OrderByKey{}}}
	if limit > 0 {
		q.Limit = limit - len(entries)
	}
	for r, err := range datastore.QueryIter(ctx, l.d, q) {
		if err != nil {
			return nil, err
		}
		key, err := ledgerKey(r.Key)
		if err != nil {
			return nil, err
		}
		e, err := decode(key, r.Value)
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, ctx.Err()
}

// Commit applies a transaction. One that writes nothing only checks its conditions, and its revision is
// that of the last one that did write.
func (l *Ledger) Commit(ctx context.Context, t grid.Txn) (uint64, error) {
	if err := grid.CheckTxn(&t); err != nil {
		return 0, grid.Errorf(grid.CodeOf(err), "store: ledger: commit: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range t.If {
		e, err := l.get(ctx, c.Key)
		if err != nil && !errors.Is(err, datastore.ErrNotFound) {
			return 0, grid.Errorf(codeOf(err), "store: ledger: commit: %w", err)
		}
		if e.Version != c.Version {
			return 0, grid.Errorf(grid.Conflict, "store: ledger: commit: %q has version %d, not %d", c.Key, e.Version, c.Version).
				Hint("somebody else has changed it: read it again and retry")
		}
	}
	if len(t.Put)+len(t.Delete) == 0 {
		return l.revision, ctx.Err()
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	// From here on it runs to its end whatever becomes of ctx. A revision is never used again, even when
	// it is not known what a failed write has left.
	l.revision++
	if err := l.apply(context.WithoutCancel(ctx), t, l.revision); err != nil {
		return 0, grid.Errorf(codeOf(err), "store: ledger: commit: it is not known whether it took place: %w", err)
	}
	return l.revision, nil
}

func (l *Ledger) apply(ctx context.Context, t grid.Txn, revision uint64) error {
	b, err := l.d.Batch(ctx)
	if err != nil {
		return err
	}
	for _, e := range t.Put {
		if err := b.Put(ctx, storeKey(e.Key), encode(e.Key, revision, e.Value)); err != nil {
			return err
		}
	}
	for _, key := range t.Delete {
		if err := b.Delete(ctx, storeKey(key)); err != nil {
			return err
		}
	}
	if err := b.Put(ctx, revisionKey, encode("", revision, nil)); err != nil {
		return err
	}
	if err := b.Commit(ctx); err != nil {
		return err
	}
	return l.d.Sync(ctx, datastore.NewKey("/"))
}
