package grid

import (
	"context"
	"crypto/rand"
	"errors"
	mathrand "math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Ledger is the realm's transactional map: jobs, refs, members, and what users keep in it. Reads and
// transactions are linearizable unless a read asks for less. A ledger that cannot reach a majority of its
// voters answers Unavailable, or Deadline when ctx ends first, and never what may be out of date. It is safe
// for concurrent use.
type Ledger interface {
	// Get reads one entry; the error is NotFound when there is none.
	Get(ctx context.Context, key string) (Entry, error)
	// Range reads the entries whose keys begin with a prefix, in order of keys, all of one moment.
	Range(ctx context.Context, q Query) (Page, error)
	// Commit applies a transaction: all of it when every condition holds, else nothing and Conflict.
	// It is durable when Commit returns. The revision is that of the entries it wrote; of a transaction
	// that writes nothing, the one at which its conditions held. Commit tries again by itself when an answer
	// is lost, and applies once however often it tries.
	Commit(ctx context.Context, t Txn) (revision uint64, err error)
	// Watch calls f, one call at a time, with every later transaction that changed keys beginning with prefix:
	// in order, without gaps, each as a whole, beginning behind the revision after. It ends with f's error or
	// ctx's. OutOfDate says that changes behind after are no longer known: read the range and watch from there.
	// It goes on by itself when the node that it listens to is lost.
	Watch(ctx context.Context, prefix string, after uint64, f func(Changes) error) error
	// OpenSession begins a session, which is kept alive until it is closed or the ledger is. Who cannot
	// reach the ledger for as long as ttl, has lost it.
	OpenSession(ctx context.Context, ttl time.Duration) (Session, error)
	// Status describes the ledger as this node sees it, whether or not there is a majority.
	Status(ctx context.Context) (LedgerStatus, error)
}

// Session is proof of life: entries put under it vanish, in one transaction, when it ends.
type Session interface {
	ID() SessionID
	// Done is closed when the session has ended, or may have: nothing can be said for it any longer.
	Done() <-chan struct{}
	// Close ends the session at once. Without it the session ends when its time-to-live has passed.
	Close(ctx context.Context) error
}

// SessionID names a session in a ledger; it is never used again. "" is none.
type SessionID string

// RequestID names a transaction, however often it is sent; 16 random bytes. "" is none.
type RequestID string

// NewRequestID draws one.
func NewRequestID() RequestID {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return RequestID(b[:])
}

// Limits of the ledger's map.
const (
	MaxLedgerKey   = 1 << 10
	MaxLedgerValue = 1 << 20
	MaxLedgerTxn   = 1 << 10 // conditions and operations together
	MaxLedgerBytes = 4 << 20 // keys and values of one transaction, or of one page, together
	MaxLedgerPage  = 1 << 14 // entries of one page

	MinSession = 100 * time.Millisecond // bounds on a session's time-to-live
	MaxSession = time.Hour
)

// Entry is one key with its value. Version is the revision of the transaction that wrote it, never 0.
type Entry struct {
	Key     string    `cbor:"key" json:"key"`
	Value   []byte    `cbor:"value" json:"value"`
	Version uint64    `cbor:"version,omitempty" json:"version"`
	Session SessionID `cbor:"session,omitempty" json:"session,omitempty"` // that it vanishes with
}

// Query says what to read of a ledger.
type Query struct {
	Prefix string `cbor:"prefix"`
	After  string `cbor:"after,omitempty"` // only keys greater than this one: the last of the page before
	Limit  int    `cbor:"limit,omitempty"` // entries at most; 0: as many as one page holds
	// At is the revision to read at, so that all pages are of one moment; 0: now. One that is too long ago is
	// OutOfDate.
	At uint64 `cbor:"at,omitempty"`
	// Stale reads what this node knows, or the nearest that knows anything, without asking the others.
	Stale bool `cbor:"stale,omitempty"`
}

// Page is entries of one moment. More says that there are others behind them.
type Page struct {
	Entries  []Entry `cbor:"entries" json:"entries"`
	Revision uint64  `cbor:"revision" json:"revision"` // of that moment
	More     bool    `cbor:"more,omitempty" json:"more,omitempty"`
}

// Txn is conditions and writes that commit together or not at all. A key may be written once.
type Txn struct {
	ID     RequestID `cbor:"id,omitempty"` // "": the ledger draws one
	If     []Cond    `cbor:"if,omitempty"`
	Put    []Entry   `cbor:"put,omitempty"` // Version is ignored; the Session of each must be alive, if it has one
	Delete []string  `cbor:"delete,omitempty"`
}

// Cond holds when the key's entry has exactly this version; 0 means that there is no such entry. With Prefix
// it is about all entries whose keys begin with Key: they are Count in number, and none is newer than Version.
// As revisions only grow, that holds exactly while nothing has been put or deleted among them.
type Cond struct {
	Key     string `cbor:"key"`
	Version uint64 `cbor:"version,omitempty"`
	Prefix  bool   `cbor:"prefix,omitempty"`
	Count   uint64 `cbor:"count,omitempty"`
}

// Changes is what one transaction did to the keys that somebody watches.
type Changes struct {
	Revision uint64   `cbor:"revision" json:"revision"`
	Put      []Entry  `cbor:"put,omitempty" json:"put,omitempty"`
	Delete   []string `cbor:"delete,omitempty" json:"delete,omitempty"`
}

// Role is what a node does for its realm's ledger.
type Role string

// The roles.
const (
	Leader  Role = "leader"  // the voter that the others follow
	Voter   Role = "voter"   // keeps a copy, and counts for the majority
	Learner Role = "learner" // keeps a copy, and does not count
	Client  Role = "client"  // asks those that keep copies
)

// LedgerStatus describes a ledger as one node sees it.
type LedgerStatus struct {
	Realm    string         `json:"realm"`            // its name
	RealmID  string         `json:"realm_id"`         // drawn when it was founded
	Role     Role           `json:"role"`             // of this node
	Leader   string         `json:"leader,omitempty"` // the node that the others follow; "": none that is known
	Term     uint64         `json:"term"`             // of Raft: how often leaders were voted for
	Revision uint64         `json:"revision"`         // of the last transaction applied here
	Entries  uint64         `json:"entries"`          // keys that there are
	Bytes    uint64         `json:"bytes"`            // keys and values
	Sessions int            `json:"sessions"`         // of nodes that are up
	Members  []LedgerMember `json:"members"`          // as far as this node knows them
	Note     string         `json:"note,omitempty"`   // what stands in the way, and what to do about it
}

// LedgerMember is a node of the realm.
type LedgerMember struct {
	ID      peer.ID       `json:"id"`                        // of the node
	Role    Role          `json:"role"`                      // what it does for the ledger
	Up      bool          `json:"up"`                        // it was heard of lately
	Applied uint64        `json:"applied,omitempty"`         // last log index that it is known to have
	Lag     uint64        `json:"lag,omitempty"`             // log entries that it is behind the leader
	Heard   time.Duration `json:"last_contact_ns,omitempty"` // since it was heard of
}

// RangeAll reads a whole prefix page by page, all of one moment, and calls f for each entry. stale is
// [Query.Stale]. It ends with f's error, or with OutOfDate when so much has been written meanwhile that its moment
// is no longer known.
func RangeAll(ctx context.Context, l Ledger, prefix string, stale bool, f func(Entry) error) (revision uint64, err error) {
	q := Query{Prefix: prefix, Stale: stale}
	for {
		p, err := l.Range(ctx, q)
		if err != nil {
			return 0, err
		}
		for _, e := range p.Entries {
			if err := f(e); err != nil {
				return 0, err
			}
		}
		if !p.More || len(p.Entries) == 0 {
			return p.Revision, nil
		}
		q.After, q.At = p.Entries[len(p.Entries)-1].Key, p.Revision
	}
}

// Tx is one try at an [Update]: what it reads becomes the transaction's conditions, what it writes its
// operations. It is for one goroutine.
type Tx struct {
	l      Ledger
	ctx    context.Context
	reads  map[string]Cond
	ranges []Cond
	writes map[string]*Entry // nil: deleted
	order  []string          // of writes, as first written
}

// Get reads an entry; ok is false when there is none. A Tx reads its own writes, with Version 0.
func (x *Tx) Get(key string) (e Entry, ok bool, err error) {
	if w, written := x.writes[key]; written {
		if w == nil {
			return Entry{}, false, nil
		}
		return *w, true, nil
	}
	e, err = x.l.Get(x.ctx, key)
	if err != nil && CodeOf(err) != NotFound {
		return Entry{}, false, err
	}
	if old, again := x.reads[key]; again && old.Version != e.Version {
		return Entry{}, false, Errorf(Conflict, "%q changed while it was being read", key)
	}
	x.reads[key] = Cond{Key: key, Version: e.Version}
	return e, err == nil, nil
}

// Range reads all entries whose keys begin with prefix, as they were before this Tx's own writes. Any change
// among them makes the transaction start again. It is for small ranges: one page at most.
func (x *Tx) Range(prefix string) ([]Entry, error) {
	p, err := x.l.Range(x.ctx, Query{Prefix: prefix})
	if err != nil {
		return nil, err
	}
	if p.More {
		return nil, Errorf(Limit, "more than %d entries begin with %q, too many for a transaction", len(p.Entries), prefix)
	}
	c := Cond{Key: prefix, Prefix: true, Count: uint64(len(p.Entries))}
	for _, e := range p.Entries {
		c.Version = max(c.Version, e.Version)
	}
	x.ranges = append(x.ranges, c)
	return p.Entries, nil
}

// Put writes an entry.
func (x *Tx) Put(key string, value []byte) { x.PutIn("", key, value) }

// PutIn writes an entry that vanishes with a session.
func (x *Tx) PutIn(s SessionID, key string, value []byte) {
	x.write(key, &Entry{Key: key, Value: value, Session: s})
}

// Delete removes an entry, if there is one.
func (x *Tx) Delete(key string) { x.write(key, nil) }

func (x *Tx) write(key string, e *Entry) {
	if _, again := x.writes[key]; !again {
		x.order = append(x.order, key)
	}
	x.writes[key] = e
}

func (x *Tx) txn() Txn {
	t := Txn{ID: NewRequestID(), If: x.ranges}
	for _, c := range x.reads {
		t.If = append(t.If, c)
	}
	for _, key := range x.order {
		if e := x.writes[key]; e != nil {
			t.Put = append(t.Put, *e)
		} else {
			t.Delete = append(t.Delete, key)
		}
	}
	return t
}

// Tries and pauses of an Update.
const (
	updateTries    = 32
	updateMinPause = 2 * time.Millisecond
	updateMaxPause = 250 * time.Millisecond
)

// Update reads and writes optimistically: f may be called several times, until what it has read is still so
// when its writes commit. An error of f ends it, except Conflict. After many tries in vain the error is Busy.
func Update(ctx context.Context, l Ledger, f func(tx *Tx) error) (revision uint64, err error) {
	pause := updateMinPause
	for range updateTries {
		tx := &Tx{l: l, ctx: ctx, reads: make(map[string]Cond), writes: make(map[string]*Entry)}
		if err = f(tx); err == nil {
			if revision, err = l.Commit(ctx, tx.txn()); err == nil {
				return revision, nil
			}
		}
		if !errors.Is(err, Conflict) {
			return 0, err
		}
		select {
		case <-time.After(pause/2 + mathrand.N(pause)):
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		pause = min(2*pause, updateMaxPause)
	}
	return 0, Errorf(Busy, "given up after %d tries: %w", updateTries, err).Hint("many write the same entries: try again later")
}

// CheckTxn refuses transactions that no ledger could apply.
func CheckTxn(t *Txn) error {
	if n := len(t.If) + len(t.Put) + len(t.Delete); n > MaxLedgerTxn {
		return Errorf(Limit, "%d conditions and operations, at most %d are allowed", n, MaxLedgerTxn).Hint("split the transaction")
	}
	if t.ID != "" && len(t.ID) != 16 {
		return Errorf(Invalid, "a request ID of %d bytes, want 16", len(t.ID))
	}
	total, counted := 0, uint64(0)
	for _, c := range t.If {
		if c.Prefix {
			if len(c.Key) > MaxLedgerKey {
				return checkLedgerKey(c.Key)
			}
			if counted += min(c.Count, MaxLedgerPage+1); counted > MaxLedgerPage {
				return Errorf(Limit, "conditions on more than %d entries together", MaxLedgerPage).Hint("split the transaction")
			}
		} else if err := checkLedgerKey(c.Key); err != nil {
			return err
		} else if c.Count != 0 {
			return Errorf(Invalid, "a condition on the one key %q has a count", c.Key)
		}
		total += len(c.Key)
	}
	for _, e := range t.Put {
		if err := checkLedgerKey(e.Key); err != nil {
			return err
		}
		if len(e.Value) > MaxLedgerValue {
			return Errorf(Limit, "the value of %q has %d bytes, at most %d are allowed", e.Key, len(e.Value), MaxLedgerValue).
				Hint("store it as a file, and put its CID")
		}
		if len(e.Session) > MaxName {
			return Errorf(Invalid, "the session of %q has a name of %d bytes", e.Key, len(e.Session))
		}
		total += len(e.Key) + len(e.Value)
	}
	for _, key := range t.Delete {
		if err := checkLedgerKey(key); err != nil {
			return err
		}
		total += len(key)
	}
	if key, dup := writtenTwice(t); dup {
		return Errorf(Invalid, "key %q is written twice", key)
	}
	if total > MaxLedgerBytes {
		return Errorf(Limit, "%d bytes of keys and values, at most %d are allowed", total, MaxLedgerBytes).Hint("split the transaction")
	}
	return nil
}

func writtenTwice(t *Txn) (key string, dup bool) {
	n := len(t.Put) + len(t.Delete)
	if n <= 1 {
		return "", false
	}
	seen := make(map[string]struct{}, n)
	for _, e := range t.Put {
		if _, dup := seen[e.Key]; dup {
			return e.Key, true
		}
		seen[e.Key] = struct{}{}
	}
	for _, key := range t.Delete {
		if _, dup := seen[key]; dup {
			return key, true
		}
		seen[key] = struct{}{}
	}
	return "", false
}

func checkLedgerKey(key string) error {
	if key == "" || len(key) > MaxLedgerKey {
		return Errorf(Invalid, "a key of %d bytes, want 1 to %d", len(key), MaxLedgerKey)
	}
	return nil
}

// Where things are in a ledger.
const (
	JobKeys    = "job/"    // by ID: a [Record]
	OpenKeys   = "open/"   // by job ID: the owner's peer ID, of jobs that have not ended
	GrantKeys  = "grant/"  // by job ID: what the tasks of an open job may write, if anything
	NodeKeys   = "node/"   // by peer ID: nodes that are up; vanish with their sessions
	MemberKeys = "member/" // by peer ID: nodes of the realm; the ledger's own
	RefKeys    = "ref/"    // by name: a [Ref]
	UserKeys   = "kv/"     // by key: whatever users keep
	SecretKeys = "secret/" // by name: secrets, encrypted to the realm's nodes
	// StandingKeys are by peer ID: the [Standing] of nodes.
	StandingKeys = "standing/"
)

// UserKey is where a user's key is in the ledger.
func UserKey(key string) string { return UserKeys + key }
