package grid

import (
	"context"
)

// Ledger is the realm's transactional map: jobs, and later refs, plugins, members and pins. It is
// safe for concurrent use.
type Ledger interface {
	// Get reads one entry; the error is NotFound when there is none.
	Get(ctx context.Context, key string) (Entry, error)
	// Range reads up to limit entries (0: all) whose keys begin with prefix, in order of keys.
	Range(ctx context.Context, prefix string, limit int) ([]Entry, error)
	// Commit applies a transaction: all of it when every condition holds, else nothing and Conflict.
	// It is durable when Commit returns. The revision is that of the entries it wrote.
	Commit(ctx context.Context, t Txn) (revision uint64, err error)
}

// Limits of the ledger's map.
const (
	MaxLedgerKey   = 1 << 10
	MaxLedgerValue = 1 << 20
	MaxLedgerTxn   = 1 << 10 // conditions and operations together
)

// Entry is one key with its value. Version is the revision of the transaction that wrote it, never 0.
type Entry struct {
	Key     string
	Value   []byte
	Version uint64
}

// Txn is conditions and writes that commit together or not at all. A key may be written once.
type Txn struct {
	If     []Cond
	Put    []Entry // Version is ignored
	Delete []string
}

// Cond holds when the key's entry has exactly this version; 0 means that there is no such entry.
type Cond struct {
	Key     string
	Version uint64
}
