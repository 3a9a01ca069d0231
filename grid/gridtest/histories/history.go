package histories

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// History is what the clients of one ledger did. It is safe for concurrent use, and to be checked when all
// calls have returned.
type History struct {
	mu      sync.Mutex
	now     int64
	clients int
	ops     []*op
	sent    map[grid.RequestID]*op
	search  time.Duration
}

// outcome is what is known of a call.
type outcome int

const (
	pending  outcome = iota // it may have happened, or may yet
	answered                // it happened
	refused                 // its conditions did not hold
)

// never is when a call returns that has no answer.
const never = math.MaxInt64

type op struct {
	client    int
	call, ret int64
	read      *grid.Query // nil: a transaction
	get       bool        // the query is of the one key in its Prefix
	txn       grid.Txn
	outcome   outcome
	entries   []grid.Entry // read
	revision  uint64       // of a commit, or of the page; 0: not known
	err       error
}

// New starts a history.
func New() *History { return &History{sent: make(map[grid.RequestID]*op), search: searchTime} }

// Client makes a client whose calls to l are recorded; it is one line of the history, and for one goroutine.
// Transactions that it commits under the same request ID are one call. Reads of a part of a page, of the past
// and stale ones are passed on unrecorded.
func (h *History) Client(l grid.Ledger) grid.Ledger {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clients++
	return &client{Ledger: l, h: h, id: h.clients}
}

// Calls counts the calls so far: those that have an answer, and those that may have happened.
func (h *History) Calls() (known, unknown int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range h.ops {
		if o.outcome == pending {
			unknown++
		} else {
			known++
		}
	}
	return known, unknown
}

type client struct {
	grid.Ledger
	h  *History
	id int
}

func (c *client) begin(o *op) *op {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	if o.read == nil {
		if old := c.h.sent[o.txn.ID]; old != nil {
			return old
		}
		c.h.sent[o.txn.ID] = o
		c.h.ops = append(c.h.ops, o)
	}
	c.h.now++
	o.client, o.call, o.ret = c.id, c.h.now, never
	return o
}

// end records an answer, unless there was one before.
func (c *client) end(o *op, what outcome, f func()) {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	if o.outcome != pending {
		return
	}
	f()
	if what == pending {
		return
	}
	c.h.now++
	o.ret, o.outcome = c.h.now, what
	if o.read != nil {
		c.h.ops = append(c.h.ops, o)
	}
}

// Get implements grid.Ledger.
func (c *client) Get(ctx context.Context, key string) (grid.Entry, error) {
	o := c.begin(&op{read: &grid.Query{Prefix: key}, get: true})
	e, err := c.Ledger.Get(ctx, key)
	switch {
	case err == nil:
		c.end(o, answered, func() { o.entries = []grid.Entry{e} })
	case grid.CodeOf(err) == grid.NotFound:
		c.end(o, answered, func() {})
	}
	return e, err
}

// Range implements grid.Ledger.
func (c *client) Range(ctx context.Context, q grid.Query) (grid.Page, error) {
	if q.Stale || q.At != 0 || q.After != "" || q.Limit != 0 {
		return c.Ledger.Range(ctx, q)
	}
	o := c.begin(&op{read: &q})
	p, err := c.Ledger.Range(ctx, q)
	if err == nil && !p.More {
		c.end(o, answered, func() { o.entries, o.revision = slices.Clone(p.Entries), p.Revision })
	}
	return p, err
}

// Commit implements grid.Ledger.
func (c *client) Commit(ctx context.Context, t grid.Txn) (uint64, error) {
	if t.ID == "" {
		t.ID = grid.NewRequestID()
	}
	o := c.begin(&op{txn: t})
	rev, err := c.Ledger.Commit(ctx, t)
	what := pending
	switch code := grid.CodeOf(err); {
	case err == nil:
		what = answered
	case code == grid.Conflict, code == grid.Invalid, code == grid.Limit:
		what = refused
	}
	c.end(o, what, func() { o.revision, o.err = rev, err })
	return rev, err
}

func (o *op) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "client %-2d %5d..", o.client, o.call)
	if o.ret == never {
		b.WriteString("?     ")
	} else {
		fmt.Fprintf(&b, "%-6d", o.ret)
	}
	if o.read != nil {
		name := "range"
		if o.get {
			name = "get"
		}
		fmt.Fprintf(&b, "%s %q ->", name, o.read.Prefix)
		for _, e := range o.entries {
			fmt.Fprintf(&b, " %s=%s@%d", e.Key, e.Value, e.Version)
		}
		if len(o.entries) == 0 {
			b.WriteString(" nothing")
		}
	} else {
		b.WriteString("commit")
		for _, c := range o.txn.If {
			if c.Prefix {
				fmt.Fprintf(&b, " if %s* is %d@%d", c.Key, c.Count, c.Version)
			} else {
				fmt.Fprintf(&b, " if %s@%d", c.Key, c.Version)
			}
		}
		for _, e := range o.txn.Put {
			fmt.Fprintf(&b, " %s=%s", e.Key, e.Value)
		}
		for _, k := range o.txn.Delete {
			fmt.Fprintf(&b, " delete %s", k)
		}
		switch o.outcome {
		case answered:
			b.WriteString(" -> done")
		case refused:
			b.WriteString(" -> refused")
		default:
			fmt.Fprintf(&b, " -> unknown (%v)", o.err)
		}
	}
	if o.revision != 0 {
		fmt.Fprintf(&b, ", revision %d", o.revision)
	}
	return b.String()
}

// writes tells which transaction wrote what: an entry by its key and value, a version by its number.
type writes struct {
	byEntry   map[[2]string]*op
	byVersion map[uint64]*op
	version   map[*op]uint64
}

// index finds out who wrote what, and what cannot be.
func (h *History) index() (w writes, bad []string) {
	w = writes{make(map[[2]string]*op), make(map[uint64]*op), make(map[*op]uint64)}
	for _, o := range h.ops {
		for _, e := range o.txn.Put {
			at := [2]string{e.Key, string(e.Value)}
			if other := w.byEntry[at]; other != nil {
				bad = append(bad, fmt.Sprintf("a fault of the test: %q is written twice:\n\t%v\n\t%v", at, other, o))
			}
			w.byEntry[at] = o
		}
	}
	saw := func(o *op, version uint64, by *op) {
		if old := w.version[o]; old != 0 && old != version {
			bad = append(bad, fmt.Sprintf("applied at %d and at %d:\n\t%v\nas seen by\n\t%v", old, version, o, by))
		} else if other := w.byVersion[version]; other != nil && other != o {
			bad = append(bad, fmt.Sprintf("revision %d is two transactions:\n\t%v\n\t%v\nas seen by\n\t%v", version, other, o, by))
		} else {
			w.version[o], w.byVersion[version] = version, o
		}
	}
	for _, o := range h.ops {
		if o.read == nil && o.outcome == answered && len(o.txn.Put) > 0 {
			saw(o, o.revision, o)
		}
		for _, e := range o.entries {
			writer := w.byEntry[[2]string{e.Key, string(e.Value)}]
			switch {
			case writer == nil:
				bad = append(bad, fmt.Sprintf("nobody wrote %s=%q, seen by\n\t%v", e.Key, e.Value, o))
			case writer.outcome == refused:
				bad = append(bad, fmt.Sprintf("refused, and yet done:\n\t%v\nas seen by\n\t%v", writer, o))
			default:
				saw(writer, e.Version, o)
			}
		}
	}
	return w, bad
}

// Findings is a test that collects its errors instead of failing: for those that show that a check finds what it
// is for.
type Findings struct {
	testing.TB
	mu   sync.Mutex
	list []string
}

// Error and Errorf collect.
func (f *Findings) Error(args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, fmt.Sprint(args...))
}

// Errorf is told at Error.
func (f *Findings) Errorf(format string, args ...any) { f.Error(fmt.Sprintf(format, args...)) }

// List is what was found.
func (f *Findings) List() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.list)
}
