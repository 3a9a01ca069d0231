package guestkv

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/sdk/abi"
)

// MaxKey is how many bytes a guest's key may have, which the ledger keeps behind [grid.UserKeys].
const MaxKey = grid.MaxLedgerKey - len(grid.UserKeys)

// MaxRequest is how many bytes a request may have: those of the largest transaction.
const MaxRequest = grid.MaxLedgerBytes + 16*grid.MaxLedgerTxn + 16

// Request is what a guest asks of the map.
type Request struct {
	Op            byte   // abi.KVGet, abi.KVList or abi.KVCommit
	Key           string // of a get
	Prefix, After string // of a list
	Limit         int    // from 1 to grid.MaxLedgerPage
	Txn           grid.Txn
}

// Decode reads a request, in the form of docs/abi.md: all of b. Nothing of b is kept. Errors are Invalid for what is
// malformed, Limit for what is larger than allowed.
func Decode(b []byte) (Request, error) {
	if len(b) > MaxRequest {
		return Request{}, grid.Errorf(grid.Limit, "a request of %d bytes, at most %d are allowed", len(b), MaxRequest)
	}
	if len(b) == 0 {
		return Request{}, grid.Errorf(grid.Invalid, "the request is empty")
	}
	d := decoder{b: b[1:]}
	r := Request{Op: b[0]}
	switch r.Op {
	case abi.KVGet:
		r.Key = d.key("the key")
	case abi.KVList:
		limit := d.u32("the limit")
		r.Prefix, r.After = d.text("the prefix"), d.text("the key after which to begin")
		if r.Limit = grid.MaxLedgerPage; limit > 0 && limit < grid.MaxLedgerPage {
			r.Limit = int(limit)
		}
	case abi.KVCommit:
		d.txn(&r.Txn)
	default:
		return Request{}, grid.Errorf(grid.Invalid, "operation %d of the map is not known here", r.Op)
	}
	if d.err == nil && len(d.b) > 0 {
		d.err = grid.Errorf(grid.Invalid, "malformed request: %d bytes are left over", len(d.b))
	}
	if d.err != nil {
		return Request{}, d.err
	}
	return r, nil
}

// decoder takes a request apart, up to the first error.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) txn(t *grid.Txn) {
	total, ops := 0, 0
	// count reads how many of something there are, which have at least so many bytes each.
	count := func(what string, least int) int {
		n := d.u32("the number of " + what)
		if d.err != nil {
			return 0
		}
		if ops += int(min(n, grid.MaxLedgerTxn+1)); ops > grid.MaxLedgerTxn {
			d.err = grid.Errorf(grid.Limit, "more than %d conditions, keys to put and keys to delete, which is what a transaction may have", grid.MaxLedgerTxn)
			return 0
		}
		if int(n)*least > len(d.b) {
			d.cut("the list of " + what)
			return 0
		}
		return int(n)
	}
	key := func(what string) string {
		k := d.key(what)
		total += len(k)
		return k
	}
	if n := count("conditions", 12); n > 0 {
		t.If = make([]grid.Cond, n)
	}
	for i := range t.If {
		t.If[i] = grid.Cond{Key: key("the key of a condition"), Version: d.u64("the version of a condition")}
	}
	if n := count("keys to put", 8); n > 0 {
		t.Put = make([]grid.Entry, n)
	}
	for i := range t.Put {
		t.Put[i] = grid.Entry{Key: key("a key to put"), Value: append([]byte{}, d.word("a value", grid.MaxLedgerValue)...)}
		total += len(t.Put[i].Value)
	}
	if n := count("keys to delete", 4); n > 0 {
		t.Delete = make([]string, n)
	}
	for i := range t.Delete {
		t.Delete[i] = key("a key to delete")
	}
	if d.err == nil && total > grid.MaxLedgerBytes {
		d.err = grid.Errorf(grid.Limit, "%d bytes of keys and values, a transaction has at most %d", total, grid.MaxLedgerBytes)
	}
}

func (d *decoder) cut(what string) {
	if d.err == nil {
		d.err = grid.Errorf(grid.Invalid, "malformed request: %s is cut off", what)
	}
}

func (d *decoder) take(what string, n int) []byte {
	if d.err != nil || n > len(d.b) {
		d.cut(what)
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) u32(what string) uint32 {
	if b := d.take(what, 4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) u64(what string) uint64 {
	if b := d.take(what, 8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// word reads a length and as many bytes, which are those of the request.
func (d *decoder) word(what string, most int) []byte {
	n := d.u32(what)
	if d.err == nil && uint64(n) > uint64(most) {
		d.err = grid.Errorf(grid.Limit, "%s of %d bytes, at most %d are allowed", what, n, most)
	}
	if d.err != nil {
		return nil
	}
	return d.take(what, int(n))
}

// text reads a key, or something like one.
func (d *decoder) text(what string) string {
	b := d.word(what, MaxKey)
	if d.err == nil && !utf8.Valid(b) {
		d.err = grid.Errorf(grid.Invalid, "%s is not UTF-8", what)
	}
	return string(b)
}

func (d *decoder) key(what string) string {
	k := d.text(what)
	if d.err == nil && k == "" {
		d.err = grid.Errorf(grid.Invalid, "%s is empty", what)
	}
	return k
}

// EncodeEntry encodes the response to a get: version and value.
func EncodeEntry(e grid.Entry) []byte {
	b := make([]byte, 0, 8+len(e.Value))
	return append(binary.LittleEndian.AppendUint64(b, e.Version), e.Value...)
}

// EncodeList encodes the response to a list: whether there is more, then key, version and value of each entry.
func EncodeList(entries []grid.Entry, more bool) []byte {
	size := 1
	for _, e := range entries {
		size += 16 + len(e.Key) + len(e.Value)
	}
	b := append(make([]byte, 0, size), 0)
	if more {
		b[0] = 1
	}
	for _, e := range entries {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(e.Key))), e.Key...)
		b = binary.LittleEndian.AppendUint64(b, e.Version)
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(e.Value))), e.Value...)
	}
	return b
}

// EncodeRevision encodes the response to a commit.
func EncodeRevision(revision uint64) []byte { return binary.LittleEndian.AppendUint64(nil, revision) }
