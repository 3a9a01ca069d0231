package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Bounds on requests about the ledger.
const (
	maxTxnJSON    = 32 << 20         // of a transaction: its bytes as escaped text take six times as many at worst
	ledgerTimeout = 30 * time.Second // for a majority to be reached
	maxWatches    = 256              // of the user's keys, at once
)

// KV is an entry that a user keeps in the ledger, as JSON has it. Value is what it holds, in base64; Text is the same
// as text, when it is UTF-8. Either is enough in a request.
type KV struct {
	Key     string  `json:"key"`               // without the prefix that the ledger keeps it under
	Value   []byte  `json:"value,omitempty"`   // any bytes; absent when only names are asked for
	Text    *string `json:"text,omitempty"`    // the value as text; absent when it is not UTF-8
	Version uint64  `json:"version,omitempty"` // the revision at which it was set last; what is put must have none
}

// kv is a ledger's entry for users.
func kv(e grid.Entry, keysOnly bool) KV {
	k := KV{Key: strings.TrimPrefix(e.Key, grid.UserKeys), Version: e.Version}
	if !keysOnly {
		k.Value = e.Value
		if s := string(e.Value); utf8.ValidString(s) {
			k.Text = &s
		}
	}
	return k
}

// Bytes is the value of an entry that came as JSON.
func (k *KV) Bytes() ([]byte, error) {
	switch {
	case k.Text == nil:
		return k.Value, nil
	case len(k.Value) > 0 && string(k.Value) != *k.Text:
		return nil, grid.Errorf(grid.Invalid, "key %q: its text and its value differ", k.Key).Hint("give one of them: value is base64")
	}
	return []byte(*k.Text), nil
}

// KVPage is entries of one moment. More says that there are others behind them.
type KVPage struct {
	Entries  []KV   `json:"entries"`        // in order of their keys
	Revision uint64 `json:"revision"`       // of the ledger, at the moment that all pages are of
	More     bool   `json:"more,omitempty"` // there are others behind these
}

// KVQuery says what to read of the user's keys; see [grid.Query].
type KVQuery struct {
	Prefix, After string
	Limit         int
	At            uint64
	Stale         bool
	KeysOnly      bool
}

// KVChanges is what one transaction did to the keys that somebody watches. The first of a watch says behind which
// revision it begins, and changes nothing.
type KVChanges struct {
	Revision uint64   `json:"revision"`         // of the ledger, once it was applied
	Put      []KV     `json:"put,omitempty"`    // keys that were set, with what they hold now
	Delete   []string `json:"delete,omitempty"` // keys that were removed
}

// KVCond is what must hold for an entry to be changed. The zero KVCond always holds.
type KVCond struct {
	Absent  bool   // there is no such entry
	Version uint64 // it has this version
}

func (c KVCond) values(key string) url.Values {
	v := url.Values{"key": {key}}
	if c.Absent {
		v.Set("if_absent", "1")
	}
	if c.Version != 0 {
		v.Set("if_version", strconv.FormatUint(c.Version, 10))
	}
	return v
}

// revised is the answer to what changes the ledger.
type revised struct {
	Revision uint64 `json:"revision"` // of the ledger, once it was applied
}

// TxnDoc is a transaction on the user's keys as a JSON document: conditions, and what is done if all of them hold.
// Either all of it is done, or nothing.
type TxnDoc struct {
	// ID, 32 hexadecimal digits, makes it safe to send the document again when it is not known whether it was
	// applied: it is applied once.
	ID     string    `json:"id,omitempty"`
	If     []TxnCond `json:"if,omitempty"`     // all of these must hold; none: it is done in any case
	Put    []KV      `json:"put,omitempty"`    // keys to set
	Delete []string  `json:"delete,omitempty"` // keys to remove; one that is not there is no error
}

// TxnCond is one condition of a TxnDoc: on one key, that it has a version or is absent; or on all keys with a
// prefix, that there are so many and none is newer than a version.
type TxnCond struct {
	Key     *string `json:"key,omitempty"`     // that it is about; absent when it is about a prefix
	Prefix  *string `json:"prefix,omitempty"`  // of the keys that it is about; "" is all of them
	Version *uint64 `json:"version,omitempty"` // of the key; of a prefix, none of its keys is newer
	Absent  bool    `json:"absent,omitempty"`  // there is no such key
	Count   *uint64 `json:"count,omitempty"`   // so many keys begin with the prefix
}

// ParseTxn reads the document of a transaction, and checks it.
func ParseTxn(data []byte) (TxnDoc, error) {
	var d TxnDoc
	if err := readDocument(bytes.NewReader(data), "the transaction", &d); err != nil {
		return TxnDoc{}, grid.Errorf(grid.CodeOf(err), "%w", err).Hint("%s; `grid kv txn --help` shows one", cmp.Or(grid.AdviceOf(err), "it is a JSON document"))
	}
	_, err := d.txn()
	return d, err
}

// txn is the transaction on the ledger.
func (d *TxnDoc) txn() (grid.Txn, error) {
	var t grid.Txn
	if n := len(d.If) + len(d.Put) + len(d.Delete); n > grid.MaxLedgerTxn {
		return t, grid.Errorf(grid.Limit, "%d conditions and operations, at most %d are allowed", n, grid.MaxLedgerTxn).Hint("split the transaction")
	}
	if d.ID != "" {
		id, err := parseRequestID(d.ID)
		if err != nil {
			return t, err
		}
		t.ID = id
	}
	for i := range d.If {
		c, err := d.If[i].cond()
		if err != nil {
			return t, grid.Errorf(grid.CodeOf(err), "condition %d: %w", i+1, err)
		}
		t.If = append(t.If, c)
	}
	for i := range d.Put {
		p := &d.Put[i]
		if err := grid.CheckUserKey(p.Key); err != nil {
			return t, grid.Errorf(grid.CodeOf(err), "put %d: %w", i+1, err)
		}
		if p.Version != 0 {
			return t, grid.Errorf(grid.Invalid, "put %d: %q has a version: versions are given by the ledger", i+1, p.Key).
				Hint(`a condition says which version is expected: {"if": [{"key": …, "version": …}]}`)
		}
		value, err := p.Bytes()
		if err != nil {
			return t, grid.Errorf(grid.CodeOf(err), "put %d: %w", i+1, err)
		}
		t.Put = append(t.Put, grid.Entry{Key: grid.UserKey(p.Key), Value: value})
	}
	for i, key := range d.Delete {
		if err := grid.CheckUserKey(key); err != nil {
			return t, grid.Errorf(grid.CodeOf(err), "delete %d: %w", i+1, err)
		}
		t.Delete = append(t.Delete, grid.UserKey(key))
	}
	return t, grid.CheckTxn(&t)
}

func parseRequestID(s string) (grid.RequestID, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 16 {
		return "", grid.Errorf(grid.Invalid, "the transaction's id %.40q is not 32 hexadecimal digits", s)
	}
	return grid.RequestID(b), nil
}

func (c *TxnCond) cond() (grid.Cond, error) {
	bad := func(why string) (grid.Cond, error) {
		return grid.Cond{}, grid.Errorf(grid.Invalid, "%s", why).
			Hint(`want {"key": K, "version": N}, {"key": K, "absent": true} or {"prefix": P, "count": N, "version": N}`)
	}
	switch {
	case (c.Key == nil) == (c.Prefix == nil):
		return bad("it has to be about a key, or about a prefix")
	case c.Prefix != nil:
		if c.Count == nil || c.Absent {
			return bad("one about a prefix says how many keys begin with it")
		}
		if *c.Count > 0 && c.Version == nil {
			return bad("one about a prefix says which version none of its keys is newer than")
		}
		out := grid.Cond{Key: grid.UserKey(*c.Prefix), Prefix: true, Count: *c.Count}
		if c.Version != nil {
			out.Version = *c.Version
		}
		return out, grid.CheckUserPrefix(*c.Prefix)
	case c.Count != nil:
		return bad("one about a single key has no count")
	case c.Absent == (c.Version != nil):
		return bad("one about a key says that it is absent, or which version it has")
	}
	out := grid.Cond{Key: grid.UserKey(*c.Key)}
	if c.Version != nil {
		if out.Version = *c.Version; out.Version == 0 {
			return bad("no entry has version 0")
		}
	}
	return out, grid.CheckUserKey(*c.Key)
}

// ledgerRoutes are those of what users see of the ledger.
func (s *Server) ledgerRoutes(route func(pattern string, f func(http.ResponseWriter, *http.Request) error)) {
	timed := func(pattern string, f func(http.ResponseWriter, *http.Request) error) {
		route(pattern, func(w http.ResponseWriter, r *http.Request) error {
			ctx, cancel := context.WithTimeout(r.Context(), ledgerTimeout)
			defer cancel()
			return ledgerError(f(w, r.WithContext(ctx)), r)
		})
	}
	timed("GET /kv", s.kvRange)
	timed("GET /kv/entry", s.kvGet)
	timed("PUT /kv/entry", s.kvPut)
	timed("DELETE /kv/entry", s.kvDelete)
	timed("POST /kv/txn", s.kvTxn)
	route("GET /kv/watch", s.kvWatch)
	timed("GET /refs", func(w http.ResponseWriter, r *http.Request) error {
		q := r.URL.Query()
		refs, err := s.Node.Refs(r.Context(), q.Get("prefix"), q.Get("stale") != "")
		return paged(w, r, refs, func(ref *grid.Ref) string { return ref.Name }, err)
	})
	timed("GET /refs/{name...}", func(w http.ResponseWriter, r *http.Request) error {
		ref, err := s.Node.Ref(r.Context(), r.PathValue("name"))
		return reply(w, ref, err)
	})
	route("PUT /refs/{name...}", func(w http.ResponseWriter, r *http.Request) error { // which may have to fetch
		var in refRequest
		if err := readJSON(w, r, &in); err != nil {
			return err
		}
		ref, err := s.Node.SetRef(r.Context(), r.PathValue("name"), in.CID, in.If)
		return reply(w, ref, err)
	})
	timed("DELETE /refs/{name...}", func(w http.ResponseWriter, r *http.Request) error {
		var in refRequest
		if r.ContentLength != 0 {
			if err := readJSON(w, r, &in); err != nil {
				return err
			}
		}
		return reply(w, struct{}{}, s.Node.RemoveRef(r.Context(), r.PathValue("name"), in.If))
	})
	timed("GET /resolve", func(w http.ResponseWriter, r *http.Request) error {
		at, err := s.Node.Resolve(r.Context(), r.URL.Query().Get("name"))
		return reply(w, at, err)
	})
	timed("GET /ledger", func(w http.ResponseWriter, r *http.Request) error {
		st, err := s.Node.Ledger.Status(r.Context())
		st.Members = orEmpty(st.Members)
		return reply(w, st, err)
	})
	timed("DELETE /ledger/members/{id}", func(w http.ResponseWriter, r *http.Request) error {
		id, err := peer.Decode(r.PathValue("id"))
		if err != nil {
			return grid.Errorf(grid.Invalid, "%.80q is not the ID of a node", r.PathValue("id")).Hint("`grid ledger status` lists the nodes of the realm")
		}
		l, ok := s.Node.Ledger.(interface {
			Remove(ctx context.Context, id peer.ID) error
		})
		if !ok {
			return grid.Errorf(grid.Unsupported, "this node is alone with its ledger: there is nobody to remove").Hint("ask a node of the realm that is up")
		}
		return reply(w, struct{}{}, l.Remove(r.Context(), id))
	})
}

// ledgerError says what ran out of time.
func ledgerError(err error, r *http.Request) error {
	if grid.CodeOf(err) == grid.Deadline && r.Context().Err() == nil {
		return grid.Errorf(grid.Unavailable, "the ledger has not answered in %v: %w", ledgerTimeout, err).Hint("`grid ledger status` tells what stands in the way")
	}
	return err
}

// uintOf reads a number of a query; 0 when it is not there.
func uintOf(q url.Values, name string, bits int) (uint64, error) {
	text := q.Get(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, bits)
	if err != nil {
		return 0, grid.Errorf(grid.Invalid, "%s=%.40q is not a whole number", name, text)
	}
	return n, nil
}

func (s *Server) kvRange(w http.ResponseWriter, r *http.Request) error {
	v := r.URL.Query()
	limit, err := uintOf(v, "limit", 31)
	if err != nil {
		return err
	}
	at, err := uintOf(v, "at", 64)
	if err != nil {
		return err
	}
	prefix, after := v.Get("prefix"), v.Get("after")
	if err := errors.Join(grid.CheckUserPrefix(prefix), grid.CheckUserPrefix(after)); err != nil {
		return err
	}
	q := grid.Query{Prefix: grid.UserKey(prefix), Limit: int(limit), At: at, Stale: v.Get("stale") != ""}
	if after != "" {
		q.After = grid.UserKey(after)
	}
	p, err := s.Node.Ledger.Range(r.Context(), q)
	if err != nil {
		return err
	}
	out := KVPage{Entries: make([]KV, len(p.Entries)), Revision: p.Revision, More: p.More}
	for i, e := range p.Entries {
		out.Entries[i] = kv(e, v.Get("keys") != "")
	}
	return reply(w, out, nil)
}

func (s *Server) kvGet(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	key := q.Get("key")
	if err := grid.CheckUserKey(key); err != nil {
		return err
	}
	e, err := s.userEntry(r.Context(), key, q.Get("stale") != "")
	if err != nil {
		return err
	}
	if q.Get("raw") != "" {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("ETag", `"`+strconv.FormatUint(e.Version, 10)+`"`)
		_, err := w.Write(e.Value)
		return err
	}
	return reply(w, kv(e, false), nil)
}

func (s *Server) userEntry(ctx context.Context, key string, stale bool) (grid.Entry, error) {
	var e grid.Entry
	var err error
	if !stale {
		e, err = s.Node.Ledger.Get(ctx, grid.UserKey(key))
	} else { // of what begins with a key, it comes first itself
		var p grid.Page
		p, err = s.Node.Ledger.Range(ctx, grid.Query{Prefix: grid.UserKey(key), Limit: 1, Stale: true})
		if err == nil && (len(p.Entries) == 0 || p.Entries[0].Key != grid.UserKey(key)) {
			err = grid.NotFound
		} else if err == nil {
			e = p.Entries[0]
		}
	}
	switch code := grid.CodeOf(err); {
	case err == nil:
		return e, nil
	case code == grid.NotFound:
		return e, noKey(key)
	default:
		return e, grid.Errorf(code, "key %q: %w", key, err)
	}
}

func noKey(key string) error {
	return grid.Errorf(grid.NotFound, "there is no key %q", key).Hint("`grid kv ls` lists the keys")
}

// kvCond reads the condition of a request.
func kvCond(q url.Values) (c KVCond, err error) {
	c.Absent = q.Get("if_absent") != ""
	c.Version, err = uintOf(q, "if_version", 64)
	if err == nil && c.Absent && c.Version != 0 {
		err = grid.Errorf(grid.Invalid, "if_absent and if_version exclude each other")
	}
	if err == nil && q.Has("if_version") && c.Version == 0 {
		err = grid.Errorf(grid.Invalid, "no entry has version 0").Hint("--if-absent is for keys that are not there")
	}
	return c, err
}

func (s *Server) kvPut(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	key := q.Get("key")
	if err := grid.CheckUserKey(key); err != nil {
		return err
	}
	cond, err := kvCond(q)
	if err != nil {
		return err
	}
	value, err := io.ReadAll(http.MaxBytesReader(w, r.Body, grid.MaxLedgerValue))
	if err != nil {
		var big *http.MaxBytesError
		if errors.As(err, &big) {
			return grid.Errorf(grid.Limit, "the value of %q has more than %d bytes", key, big.Limit).Hint("`grid add` the file, and put its CID, or set a ref")
		}
		return grid.Errorf(grid.Invalid, "the value of %q: %w", key, err)
	}
	t := grid.Txn{Put: []grid.Entry{{Key: grid.UserKey(key), Value: value}}}
	switch {
	case cond.Absent:
		t.If = []grid.Cond{{Key: grid.UserKey(key)}}
	case cond.Version != 0:
		t.If = []grid.Cond{{Key: grid.UserKey(key), Version: cond.Version}}
	}
	revision, err := s.Node.Ledger.Commit(r.Context(), t)
	if err != nil {
		return changed(key, cond, err)
	}
	return reply(w, revised{revision}, nil)
}

// changed explains why an entry could not be changed.
func changed(key string, c KVCond, err error) error {
	switch {
	case grid.CodeOf(err) != grid.Conflict:
		return grid.Errorf(grid.CodeOf(err), "key %q: %w", key, err)
	case c.Absent:
		return grid.Errorf(grid.Conflict, "key %q is there already", key)
	}
	return grid.Errorf(grid.Conflict, "key %q does not have version %d", key, c.Version).Hint("somebody else has changed it: read it again, then retry")
}

func (s *Server) kvDelete(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	key := q.Get("key")
	if err := grid.CheckUserKey(key); err != nil {
		return err
	}
	cond, err := kvCond(q)
	if err == nil && cond.Absent {
		err = grid.Errorf(grid.Invalid, "what is absent cannot be deleted")
	}
	if err != nil {
		return err
	}
	other := false // version
	revision, err := grid.Update(r.Context(), s.Node.Ledger, func(tx *grid.Tx) error {
		e, ok, err := tx.Get(grid.UserKey(key))
		other = err == nil && ok && cond.Version != 0 && e.Version != cond.Version
		switch {
		case err != nil:
			return err
		case !ok:
			return noKey(key)
		case other:
			return grid.Errorf(grid.Canceled, "refused") // a Conflict would be tried again
		}
		tx.Delete(grid.UserKey(key))
		return nil
	})
	switch {
	case other:
		return changed(key, cond, grid.Conflict)
	case grid.CodeOf(err) == grid.NotFound:
		return err
	case err != nil:
		return changed(key, cond, err)
	}
	return reply(w, revised{revision}, nil)
}

func (s *Server) kvTxn(w http.ResponseWriter, r *http.Request) error {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxTxnJSON))
	if err != nil {
		var big *http.MaxBytesError
		if errors.As(err, &big) {
			return grid.Errorf(grid.Limit, "the transaction has more than %d bytes", big.Limit).Hint("split it")
		}
		return grid.Errorf(grid.Invalid, "transaction: %w", err)
	}
	d, err := ParseTxn(data)
	if err != nil {
		return err
	}
	t, err := d.txn()
	if err != nil {
		return err
	}
	revision, err := s.Node.Ledger.Commit(r.Context(), t)
	return reply(w, revised{revision}, err)
}

func (s *Server) kvWatch(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	prefix := q.Get("prefix")
	if err := grid.CheckUserPrefix(prefix); err != nil {
		return err
	}
	after, err := uintOf(q, "after", 64)
	if err != nil {
		return err
	}
	if s.watches.Add(1) > maxWatches {
		s.watches.Add(-1)
		return grid.Errorf(grid.Busy, "%d watches are open at this node, as many as there may be", maxWatches).Hint("end some, or ask another node")
	}
	defer s.watches.Add(-1)
	last := lastEvent(r)
	if last != "" {
		if after, err = uintOf(url.Values{headerLastEvent: {last}}, headerLastEvent, 64); err != nil {
			return err
		}
	}
	if !q.Has("after") && last == "" {
		ctx, cancel := context.WithTimeout(r.Context(), ledgerTimeout)
		p, err := s.Node.Ledger.Range(ctx, grid.Query{Prefix: grid.UserKey(prefix), Limit: 1})
		cancel()
		if err != nil {
			return ledgerError(err, r)
		}
		after = p.Revision
	}
	out := newStream(w, r)
	send := func(c KVChanges) error { return out.sendNow(c, strconv.FormatUint(c.Revision, 10)) }
	if err := send(KVChanges{Revision: after}); err != nil {
		return err
	}
	return out.end(s.Node.Ledger.Watch(r.Context(), grid.UserKey(prefix), after, func(c grid.Changes) error {
		n := KVChanges{Revision: c.Revision}
		for _, e := range c.Put {
			n.Put = append(n.Put, kv(e, false))
		}
		for _, key := range c.Delete {
			n.Delete = append(n.Delete, strings.TrimPrefix(key, grid.UserKeys))
		}
		return send(n)
	}))
}

// refRequest is the body of a request that changes a ref.
type refRequest struct {
	CID grid.Link    `json:"cid,omitzero"` // that it is to name; none to remove it
	If  grid.RefCond `json:"if,omitzero"`  // what must hold, or nothing is changed
}

// KVGet reads one of the user's entries; the error is NotFound when there is none. A stale answer may be out of date,
// and can be had without a majority.
func (c *Client) KVGet(ctx context.Context, key string, stale bool) (KV, error) {
	q := url.Values{"key": {key}}
	if stale {
		q.Set("stale", "1")
	}
	return get[KV](ctx, c, "/kv/entry?"+q.Encode())
}

// KVRange reads a page of the user's entries.
func (c *Client) KVRange(ctx context.Context, q KVQuery) (KVPage, error) {
	v := url.Values{"prefix": {q.Prefix}}
	if q.After != "" {
		v.Set("after", q.After)
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(min(q.Limit, math.MaxInt32)))
	}
	if q.At > 0 {
		v.Set("at", strconv.FormatUint(q.At, 10))
	}
	for name, on := range map[string]bool{"stale": q.Stale, "keys": q.KeysOnly} {
		if on {
			v.Set(name, "1")
		}
	}
	return get[KVPage](ctx, c, "/kv?"+v.Encode())
}

// KVPut writes one of the user's entries, if the condition holds; else the error is Conflict. The revision is its
// version from then on.
func (c *Client) KVPut(ctx context.Context, key string, value []byte, cond KVCond) (revision uint64, err error) {
	return c.revise(ctx, http.MethodPut, "/kv/entry?"+cond.values(key).Encode(), bytes.NewReader(value))
}

// KVDelete removes one of the user's entries, if it has the version of the condition. The error is NotFound when
// there is none.
func (c *Client) KVDelete(ctx context.Context, key string, cond KVCond) (revision uint64, err error) {
	return c.revise(ctx, http.MethodDelete, "/kv/entry?"+cond.values(key).Encode(), nil)
}

// KVTxn applies a transaction to the user's entries: all of it if every condition holds, else nothing and Conflict.
func (c *Client) KVTxn(ctx context.Context, d TxnDoc) (revision uint64, err error) {
	data, err := json.Marshal(d)
	if err != nil {
		return 0, grid.Errorf(grid.Internal, "encode a transaction: %w", err)
	}
	return c.revise(ctx, http.MethodPost, "/kv/txn", bytes.NewReader(data))
}

func (c *Client) revise(ctx context.Context, method, path string, body io.Reader) (uint64, error) {
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return 0, err
	}
	var out revised
	err = decode(resp, &out)
	return out.Revision, err
}

// KVWatch calls f for each transaction that changes the user's entries whose keys begin with prefix, in order: for
// those behind the revision after; nil: for those from now on. The first call says behind which it begins. It goes
// on until ctx ends, or f returns an error. OutOfDate says that changes behind after are no longer known.
func (c *Client) KVWatch(ctx context.Context, prefix string, after *uint64, f func(KVChanges) error) error {
	q := url.Values{"prefix": {prefix}}
	if after != nil {
		q.Set("after", strconv.FormatUint(*after, 10))
	}
	resp, err := c.do(ctx, http.MethodGet, "/kv/watch?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	if err := lines(resp, f); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return grid.Errorf(grid.Unavailable, "the node has ended the watch").Hint("if the node has ended, start it with `grid up`")
}

// Ref reads a ref.
func (c *Client) Ref(ctx context.Context, name string) (grid.Ref, error) {
	if err := grid.CheckRefName(name); err != nil {
		return grid.Ref{}, err
	}
	return get[grid.Ref](ctx, c, "/refs/"+name)
}

// Refs lists the refs whose names begin with prefix.
func (c *Client) Refs(ctx context.Context, prefix string, stale bool) ([]grid.Ref, error) {
	q := url.Values{"prefix": {prefix}}
	if stale {
		q.Set("stale", "1")
	}
	return get[[]grid.Ref](ctx, c, "/refs?"+q.Encode())
}

// SetRef has a ref name a DAG, if the condition holds.
func (c *Client) SetRef(ctx context.Context, name string, to grid.Link, cond grid.RefCond) (ref grid.Ref, err error) {
	return ref, c.changeRef(ctx, http.MethodPut, name, refRequest{to, cond}, &ref)
}

// RemoveRef removes a ref, if the condition holds.
func (c *Client) RemoveRef(ctx context.Context, name string, cond grid.RefCond) error {
	return c.changeRef(ctx, http.MethodDelete, name, refRequest{If: cond}, nil)
}

func (c *Client) changeRef(ctx context.Context, method, name string, in refRequest, out any) error {
	if err := grid.CheckRefName(name); err != nil { // it could be another route
		return err
	}
	data, err := json.Marshal(in)
	if err != nil {
		return grid.Errorf(grid.Internal, "encode %T: %w", in, err)
	}
	resp, err := c.do(ctx, method, "/refs/"+name, bytes.NewReader(data))
	if err != nil {
		return err
	}
	return decode(resp, out)
}

// Resolve finds what CID[/PATH] or NAME[/PATH] names, NAME being a ref. No node is asked about a CID.
func (c *Client) Resolve(ctx context.Context, text string) (grid.Named, error) {
	if at, err := grid.ParseNamed(text); err == nil {
		return at, nil
	}
	return get[grid.Named](ctx, c, "/resolve?"+url.Values{"name": {text}}.Encode())
}

// LedgerStatus describes the realm's ledger as the node sees it.
func (c *Client) LedgerStatus(ctx context.Context) (grid.LedgerStatus, error) {
	return get[grid.LedgerStatus](ctx, c, "/ledger")
}

// RemoveMember has a node belong to the realm no longer.
func (c *Client) RemoveMember(ctx context.Context, id peer.ID) error {
	resp, err := c.do(ctx, http.MethodDelete, "/ledger/members/"+id.String(), nil)
	if err != nil {
		return err
	}
	return decode(resp, nil)
}
