package ledger

import (
	"encoding/binary"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/ledger/machine"
)

// The protocols by which nodes use the ledger; docs/ledger-protocol.md describes them.
const (
	callProtocol  grid.Protocol = "ledger/1"
	watchProtocol grid.Protocol = "ledger-watch/1"
)

// kind of a request.
type kind uint8

const (
	askGet    kind = 1 + iota // one entry
	askRange                  // a page
	askCommit                 // apply one command: a transaction, or the begin or end of a session
	askRenew                  // a session lives
	askStatus                 // of the replicas
)

// request is one call of ledger/1. Keys and names are bytes: they need not be UTF-8.
type request struct {
	Realm  string  `cbor:"realm"` // its ID
	Kind   kind    `cbor:"kind"`
	Conf   uint64  `cbor:"conf,omitempty"`   // of the sender's list of replicas
	Wait   uint64  `cbor:"wait,omitempty"`   // for so many milliseconds somebody waits for the answer
	Hops   uint8   `cbor:"hops,omitempty"`   // how often it may be passed on to the leader
	Origin peer.ID `cbor:"origin,omitempty"` // whom it is from, when it was passed on

	Key []byte `cbor:"key,omitempty"` // get

	Prefix []byte `cbor:"prefix,omitempty"` // range
	After  []byte `cbor:"after,omitempty"`
	Limit  int    `cbor:"limit,omitempty"`
	At     uint64 `cbor:"at,omitempty"`
	Stale  bool   `cbor:"stale,omitempty"`

	Batch []byte `cbor:"batch,omitempty"` // commit: a batch of one command
	Term  uint64 `cbor:"term,omitempty"`  // in which it may be applied
	Try   uint32 `cbor:"try,omitempty"`   // how often it was sent before

	Session []byte `cbor:"session,omitempty"` // renew

	cmd *machine.Command // that Batch encodes
}

const (
	maxHops    = 1
	maxBatch   = grid.MaxLedgerBytes + 64*grid.MaxLedgerTxn + 4<<10 // bytes of an encoded command
	maxWait    = 30 * time.Second                                   // that a call is worked on
	maxServers = 64
	maxMembers = 64
)

// reply answers a request. Whoever answers says what it knows of the replicas, so that clients keep up.
type reply struct {
	Code    grid.Code `cbor:"code,omitempty"`
	Message string    `cbor:"message,omitempty"`
	Advice  string    `cbor:"advice,omitempty"`
	Unsure  bool      `cbor:"unsure,omitempty"` // in spite of Code it may have been applied
	Retry   bool      `cbor:"retry,omitempty"`  // refused for its Base alone
	Other   bool      `cbor:"other,omitempty"`  // nothing was done: ask Leader, with Term

	Leader  peer.ID      `cbor:"leader,omitempty"`
	Term    uint64       `cbor:"term,omitempty"` // of Leader, if this is the leader's answer
	Conf    uint64       `cbor:"conf,omitempty"`
	Servers []wireServer `cbor:"servers,omitempty"` // when Conf differs from the request's

	Revision uint64      `cbor:"revision,omitempty"`
	Entries  []wireEntry `cbor:"entries,omitempty"`
	More     bool        `cbor:"more,omitempty"`

	Members  []wireMember `cbor:"members,omitempty"` // status
	Held     uint64       `cbor:"held,omitempty"`    // entries
	Bytes    uint64       `cbor:"bytes,omitempty"`
	Sessions int          `cbor:"sessions,omitempty"`
}

type wireServer struct {
	ID    peer.ID `cbor:"id"`
	Voter bool    `cbor:"voter,omitempty"`
}

type wireEntry struct {
	Key     []byte `cbor:"k"`
	Value   []byte `cbor:"v,omitempty"`
	Version uint64 `cbor:"n"`
	Session []byte `cbor:"s,omitempty"`
}

type wireMember struct {
	ID      peer.ID   `cbor:"id"`
	Role    grid.Role `cbor:"role"`
	Up      bool      `cbor:"up,omitempty"`
	Applied uint64    `cbor:"applied,omitempty"`
	Lag     uint64    `cbor:"lag,omitempty"`
	Heard   uint64    `cbor:"heard,omitempty"` // nanoseconds ago
}

func toWire(es []grid.Entry) []wireEntry {
	out := make([]wireEntry, len(es))
	for i, e := range es {
		out[i] = wireEntry{Key: []byte(e.Key), Value: e.Value, Version: e.Version, Session: []byte(e.Session)}
	}
	return out
}

func fromWire(es []wireEntry) []grid.Entry {
	if len(es) == 0 {
		return nil
	}
	out := make([]grid.Entry, len(es))
	for i, e := range es {
		out[i] = grid.Entry{Key: string(e.Key), Value: e.Value, Version: e.Version, Session: grid.SessionID(e.Session)}
	}
	return out
}

// err is the reply's error, nil if it has none.
func (p *reply) err() error {
	if p.Code == 0 {
		return nil
	}
	return &grid.Error{Code: p.Code, Message: p.Message, Advice: p.Advice}
}

// failed is a reply that says err.
func failed(err error) *reply {
	code := grid.CodeOf(err)
	if code == grid.Unknown {
		code = grid.Internal
	}
	_, unsure := err.(errUnsure)
	return &reply{Code: code, Message: clip(err.Error()), Advice: clip(grid.AdviceOf(err)), Unsure: unsure}
}

// decodeRequest reads a request and checks what can be checked without a ledger.
func decodeRequest(data []byte) (*request, error) {
	req := new(request)
	if err := grid.UnmarshalMessage(data, req); err != nil {
		return nil, grid.Errorf(grid.Invalid, "ledger: a request: %w", err)
	}
	if len(req.Key) > grid.MaxLedgerKey || len(req.Prefix) > grid.MaxLedgerKey || len(req.After) > grid.MaxLedgerKey ||
		len(req.Session) > grid.MaxName || len(req.Batch) > maxBatch || req.Hops > maxHops {
		return nil, grid.Errorf(grid.Limit, "ledger: a field of a request is too long")
	}
	if err := checkPeers(req.Origin); err != nil {
		return nil, err
	}
	if req.Kind == askCommit {
		cmds, err := machine.DecodeBatch(req.Batch)
		if err != nil {
			return nil, grid.Errorf(grid.CodeOf(err), "ledger: a request: %w", err)
		}
		if len(cmds) != 1 {
			return nil, grid.Errorf(grid.Invalid, "ledger: a request with %d commands, want 1", len(cmds))
		}
		if t := cmds[0].Txn; t != nil {
			if err := grid.CheckTxn(t); err != nil {
				return nil, err
			}
		}
		req.cmd = &cmds[0]
	}
	return req, nil
}

func decodeReply(data []byte) (*reply, error) {
	p := new(reply)
	if err := grid.UnmarshalMessage(data, p); err != nil {
		return nil, grid.Errorf(grid.Invalid, "ledger: an answer: %w", err)
	}
	if len(p.Servers) > maxServers || len(p.Members) > maxMembers {
		return nil, grid.Errorf(grid.Limit, "ledger: an answer with %d replicas", max(len(p.Servers), len(p.Members)))
	}
	peers := []peer.ID{p.Leader}
	for _, s := range p.Servers {
		peers = append(peers, s.ID)
	}
	for _, m := range p.Members {
		peers = append(peers, m.ID)
	}
	return p, checkPeers(peers...)
}

// checkPeers refuses what is no peer ID; "" is none. The codec takes any text for one.
func checkPeers(ids ...peer.ID) error {
	for _, id := range ids {
		if id == "" {
			continue
		}
		if _, err := peer.IDFromBytes([]byte(id)); err != nil {
			return grid.Errorf(grid.Invalid, "ledger: %q is no peer ID: %v", string(id), err)
		}
	}
	return nil
}

// watchRequest opens a stream of ledger-watch/1.
type watchRequest struct {
	Realm  string `cbor:"realm"`
	Prefix []byte `cbor:"prefix,omitempty"`
	After  uint64 `cbor:"after,omitempty"`
}

// news is what comes back on it: changes, a heartbeat, or, with a Code, the end.
type news struct {
	Code     grid.Code   `cbor:"code,omitempty"`
	Message  string      `cbor:"message,omitempty"`
	Advice   string      `cbor:"advice,omitempty"`
	After    uint64      `cbor:"after,omitempty"`    // everything up to this revision has been told
	Revision uint64      `cbor:"revision,omitempty"` // of the changes; 0: a heartbeat
	Put      []wireEntry `cbor:"put,omitempty"`
	Delete   [][]byte    `cbor:"delete,omitempty"`
}

const maxNewsItems = 1 << 14 // entries in one news; the decoder allows no more

// writeNews writes news with its length in four bytes before it.
func writeNews(w io.Writer, n *news) error {
	data, err := grid.Marshal(n)
	if err != nil {
		return err
	}
	if len(data) > grid.MaxMessage {
		return errTooLarge
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(data)), uint32(len(data))), data...))
	return err
}

func readNews(r io.Reader) (*news, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > grid.MaxMessage {
		return nil, grid.Errorf(grid.Limit, "ledger: news of %d bytes, at most %d are allowed", n, grid.MaxMessage)
	}
	data, err := io.ReadAll(io.LimitReader(r, int64(n))) // grows as bytes arrive
	if err != nil {
		return nil, err
	}
	if len(data) < int(n) {
		return nil, io.ErrUnexpectedEOF
	}
	out := new(news)
	return out, grid.UnmarshalMessage(data, out)
}

var errTooLarge = grid.Errorf(grid.OutOfDate, "ledger: one transaction has changed too much for a message").
	Hint("read the range and watch from there")
