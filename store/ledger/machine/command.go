package machine

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// MaxBatch is how many commands one log entry may hold, and how many sessions one command may end.
const MaxBatch = 1 << 14

// Command is one thing to apply: exactly one of Txn, Open and End is set.
type Command struct {
	Txn  *grid.Txn
	Base uint64 // of Txn, if it has an ID: the revision that its sender knew before it first sent it
	Open *OpenSession
	End  []grid.SessionID // those that are unknown have ended before
}

// OpenSession begins a session. To do so again is the same as once.
type OpenSession struct {
	ID    grid.SessionID
	TTL   time.Duration
	Owner peer.ID
}

// Session is one that has not ended.
type Session = OpenSession

// Result is what became of a command. Code is 0 when it was applied.
type Result struct {
	Revision uint64    `cbor:"revision,omitempty"` // as [grid.Ledger.Commit] returns it
	Code     grid.Code `cbor:"code,omitempty"`
	Message  string    `cbor:"message,omitempty"`
	Advice   string    `cbor:"advice,omitempty"`
	// Retry says that it was refused only because its Base lies too far back to tell whether it was applied before.
	Retry bool `cbor:"retry,omitempty"`
}

// Err is the result as an error; nil when the command was applied.
func (r Result) Err() error {
	if r.Code == 0 {
		return nil
	}
	return &grid.Error{Code: r.Code, Message: r.Message, Advice: r.Advice}
}

func refused(err error) Result {
	return Result{Code: grid.CodeOf(err), Message: err.Error(), Advice: grid.AdviceOf(err)}
}

const (
	batchVersion = 1

	kindTxn  = 1
	kindOpen = 2
	kindEnd  = 3
)

// AppendBatch appends a log entry with the commands to dst. It refuses those that no machine could apply.
func AppendBatch(dst []byte, cmds []Command) ([]byte, error) {
	if len(cmds) > MaxBatch {
		return nil, grid.Errorf(grid.Limit, "a batch of %d commands, at most %d are allowed", len(cmds), MaxBatch)
	}
	dst = binary.AppendUvarint(append(dst, batchVersion), uint64(len(cmds)))
	for i := range cmds {
		c := &cmds[i]
		if err := c.check(); err != nil {
			return nil, err
		}
		dst = c.append(dst)
	}
	return dst, nil
}

func (c *Command) check() error {
	switch {
	case c.Txn != nil && c.Open == nil && c.End == nil:
		return grid.CheckTxn(c.Txn)
	case c.Open != nil && c.Txn == nil && c.End == nil:
		return c.Open.check()
	case c.End != nil && c.Txn == nil && c.Open == nil:
		if len(c.End) > MaxBatch {
			return grid.Errorf(grid.Limit, "%d sessions to end, at most %d are allowed", len(c.End), MaxBatch)
		}
		for _, id := range c.End {
			if len(id) > grid.MaxName {
				return grid.Errorf(grid.Invalid, "a session has a name of %d bytes", len(id))
			}
		}
		return nil
	}
	return grid.Errorf(grid.Invalid, "a command is one of a transaction, the begin of a session, and the end of some")
}

func (s *OpenSession) check() error {
	if s.ID == "" || len(s.ID) > grid.MaxName || len(s.Owner) > grid.MaxName {
		return grid.Errorf(grid.Invalid, "a session with a name of %d bytes and an owner of %d, want 1 to %d and 0 to %d",
			len(s.ID), len(s.Owner), grid.MaxName, grid.MaxName)
	}
	if s.TTL < grid.MinSession || s.TTL > grid.MaxSession {
		return grid.Errorf(grid.Invalid, "a session that lives for %v, want %v to %v", s.TTL, grid.MinSession, grid.MaxSession)
	}
	return nil
}

func (c *Command) append(b []byte) []byte {
	switch {
	case c.Txn != nil:
		return appendTxn(b, c.Base, c.Txn)
	case c.Open != nil:
		return c.Open.append(append(b, kindOpen))
	}
	b = binary.AppendUvarint(append(b, kindEnd), uint64(len(c.End)))
	for _, id := range c.End {
		b = appendText(b, id)
	}
	return b
}

func (s *OpenSession) append(b []byte) []byte {
	return appendText(binary.AppendUvarint(appendText(b, s.ID), uint64(s.TTL)), s.Owner)
}

func appendTxn(b []byte, base uint64, t *grid.Txn) []byte {
	b = appendText(binary.AppendUvarint(append(b, kindTxn), base), t.ID)
	b = binary.AppendUvarint(b, uint64(len(t.If)))
	for i := range t.If {
		if c := &t.If[i]; c.Prefix {
			b = binary.AppendUvarint(appendText(append(b, 1), c.Key), c.Version)
			b = binary.AppendUvarint(b, c.Count)
		} else {
			b = binary.AppendUvarint(appendText(append(b, 0), c.Key), c.Version)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(t.Put)))
	for i := range t.Put {
		e := &t.Put[i]
		b = appendText(appendText(appendText(b, e.Key), e.Value), e.Session)
	}
	b = binary.AppendUvarint(b, uint64(len(t.Delete)))
	for _, key := range t.Delete {
		b = appendText(b, key)
	}
	return b
}

// DecodeBatch reads a log entry. Values are parts of data. The error is Unsupported when a newer version
// has written it, else Corrupt.
func DecodeBatch(data []byte) ([]Command, error) {
	r := &reader{b: data}
	if v := r.byte(); v > batchVersion {
		return nil, grid.Errorf(grid.Unsupported, "a ledger entry of format %d, this version reads up to %d", v, batchVersion).
			Hint("run the same version of grid on all nodes of the realm")
	} else if v == 0 {
		r.fail("no ledger entry begins so")
	}
	cmds := make([]Command, r.count(MaxBatch, 2))
	for i := range cmds {
		cmds[i].read(r)
	}
	if len(r.b) > 0 {
		r.fail("something follows the last command")
	}
	if r.err != nil {
		return nil, grid.Errorf(grid.Corrupt, "a malformed ledger entry of %d bytes: %w", len(data), r.err)
	}
	return cmds, nil
}

func (c *Command) read(r *reader) {
	switch r.byte() {
	case kindTxn:
		c.Txn = new(grid.Txn)
		c.Base = r.number()
		readTxn(r, c.Txn)
	case kindOpen:
		c.Open = new(OpenSession)
		c.Open.read(r)
	case kindEnd:
		c.End = make([]grid.SessionID, r.count(MaxBatch, 1))
		for i := range c.End {
			c.End[i] = grid.SessionID(r.text(grid.MaxName))
		}
	default:
		r.fail("a command of an unknown kind")
	}
}

func (s *OpenSession) read(r *reader) {
	s.ID = grid.SessionID(r.text(grid.MaxName))
	ttl := r.number()
	if ttl > math.MaxInt64 {
		r.fail("a time-to-live that is too long")
	}
	s.TTL = time.Duration(ttl)
	s.Owner = peer.ID(r.text(grid.MaxName))
}

func readTxn(r *reader, t *grid.Txn) {
	t.ID = grid.RequestID(r.text(16))
	if n := r.count(grid.MaxLedgerTxn, 3); n > 0 {
		t.If = make([]grid.Cond, n)
		for i := range t.If {
			readCond(r, &t.If[i])
		}
	}
	if n := r.count(grid.MaxLedgerTxn, 3); n > 0 {
		t.Put = make([]grid.Entry, n)
		for i := range t.Put {
			e := &t.Put[i]
			e.Key = string(r.text(grid.MaxLedgerKey))
			e.Value = r.text(grid.MaxLedgerValue)
			e.Session = grid.SessionID(r.text(grid.MaxName))
		}
	}
	if n := r.count(grid.MaxLedgerTxn, 1); n > 0 {
		t.Delete = make([]string, n)
		for i := range t.Delete {
			t.Delete[i] = string(r.text(grid.MaxLedgerKey))
		}
	}
}

func readCond(r *reader, c *grid.Cond) {
	kind := r.byte()
	if kind > 1 {
		r.fail("a condition of an unknown kind")
	}
	c.Prefix = kind == 1
	c.Key = string(r.text(grid.MaxLedgerKey))
	c.Version = r.number()
	if c.Prefix {
		c.Count = r.number()
	}
}

var errEarlier = errors.New("this log entry, or a later one, was applied before")
