package guestkv

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/sdk/abi"
)

func word(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
}

// encode is the other way round from Decode.
func encode(r Request) []byte {
	le := binary.LittleEndian
	b := []byte{r.Op}
	switch r.Op {
	case abi.KVGet:
		return word(b, r.Key)
	case abi.KVList:
		return word(word(le.AppendUint32(b, uint32(r.Limit)), r.Prefix), r.After)
	}
	b = le.AppendUint32(b, uint32(len(r.Txn.If)))
	for _, c := range r.Txn.If {
		b = le.AppendUint64(word(b, c.Key), c.Version)
	}
	b = le.AppendUint32(b, uint32(len(r.Txn.Put)))
	for _, e := range r.Txn.Put {
		b = word(word(b, e.Key), string(e.Value))
	}
	b = le.AppendUint32(b, uint32(len(r.Txn.Delete)))
	for _, k := range r.Txn.Delete {
		b = word(b, k)
	}
	return b
}

// The frames, byte by byte. docs/abi.md shows them.
func TestFrames(t *testing.T) {
	for text, want := range map[string]Request{
		"\x01\x03\x00\x00\x00key":                                               {Op: abi.KVGet, Key: "key"},
		"\x02\x0a\x00\x00\x00\x01\x00\x00\x00p\x02\x00\x00\x00pa":               {Op: abi.KVList, Limit: 10, Prefix: "p", After: "pa"},
		"\x03\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00d": {Op: abi.KVCommit, Txn: grid.Txn{Delete: []string{"d"}}},
		"\x03\x01\x00\x00\x00\x01\x00\x00\x00c\x07\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00p\x01\x00\x00\x00v\x00\x00\x00\x00": {
			Op: abi.KVCommit, Txn: grid.Txn{If: []grid.Cond{{Key: "c", Version: 7}}, Put: []grid.Entry{{Key: "p", Value: []byte("v")}}}},
	} {
		got, err := Decode([]byte(text))
		if err != nil || !reflect.DeepEqual(got, want) || string(encode(want)) != text {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	}
	entries := []grid.Entry{{Key: "a", Value: []byte("xy"), Version: 258}, {Key: "b"}}
	for got, want := range map[string]string{
		string(EncodeEntry(entries[0])):      "\x02\x01\x00\x00\x00\x00\x00\x00xy",
		string(EncodeList(nil, false)):       "\x00",
		string(EncodeList(entries, true)):    "\x01\x01\x00\x00\x00a\x02\x01\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00xy\x01\x00\x00\x00b\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		string(EncodeRevision(1<<63 | 0xff)): "\xff\x00\x00\x00\x00\x00\x00\x80",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// The largest transactions are taken, and are what a ledger takes.
func TestLargest(t *testing.T) {
	many := grid.Txn{}
	for i := range grid.MaxLedgerTxn {
		key := strings.Repeat("k", MaxKey-4) + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676))
		many.If = append(many.If, grid.Cond{Key: key})
	}
	large := grid.Txn{}
	for i := range grid.MaxLedgerBytes/grid.MaxLedgerValue - 1 {
		large.Put = append(large.Put, grid.Entry{Key: string(rune('a' + i)), Value: make([]byte, grid.MaxLedgerValue)})
	}
	large.Put = append(large.Put, grid.Entry{Key: "z", Value: make([]byte, grid.MaxLedgerValue-4)})
	for _, txn := range []grid.Txn{many, large} {
		b := encode(Request{Op: abi.KVCommit, Txn: txn})
		r, err := Decode(b)
		if err != nil || !reflect.DeepEqual(r.Txn, txn) {
			t.Errorf("%d bytes: %v", len(b), err)
		}
		if err := grid.CheckTxn(&r.Txn); err != nil {
			t.Error(err)
		}
	}
	large.Delete = []string{"y"}
	b := encode(Request{Op: abi.KVCommit, Txn: large})
	if _, err := Decode(b); grid.CodeOf(err) != grid.Limit {
		t.Error(err)
	}
	if _, err := Decode(make([]byte, MaxRequest+1)); grid.CodeOf(err) != grid.Limit {
		t.Error(err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, r := range []Request{
		{Op: abi.KVGet, Key: "a"}, {Op: abi.KVList, Limit: 3, Prefix: "p/", After: "p/x"}, {Op: abi.KVCommit},
		{Op: abi.KVCommit, Txn: grid.Txn{If: []grid.Cond{{Key: "a", Version: 1}}, Put: []grid.Entry{{Key: "b", Value: []byte("v")}}, Delete: []string{"c", "d"}}},
	} {
		f.Add(encode(r))
	}
	f.Add([]byte("\x03\xff\xff\xff\xff"))
	f.Add([]byte("\x03\x00\x00\x00\x00\x00\x04\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b)
		if err != nil {
			if c := grid.CodeOf(err); c != grid.Invalid && c != grid.Limit {
				t.Fatal(err)
			}
			return
		}
		again := encode(r)
		if r.Op == abi.KVList { // what is too much is cut to what there may be
			if r.Limit < 1 || r.Limit > grid.MaxLedgerPage {
				t.Fatalf("limit %d", r.Limit)
			}
			copy(again[1:5], b[1:5])
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("%q is read as %+v, which is %q", b, r, again)
		}
	})
}

// FuzzEncode reads what guests are given as they are told to.
func FuzzEncode(f *testing.F) {
	f.Add("key", []byte("value"), uint64(7), "other", []byte{}, true)
	f.Add("", []byte(nil), uint64(1<<64-1), "\xff", []byte("x"), false)
	f.Fuzz(func(t *testing.T, k1 string, v1 []byte, version uint64, k2 string, v2 []byte, more bool) {
		le := binary.LittleEndian
		want := []grid.Entry{{Key: k1, Value: v1, Version: version}, {Key: k2, Value: v2, Version: ^version}}
		if b := EncodeEntry(want[0]); le.Uint64(b) != version || !bytes.Equal(b[8:], v1) {
			t.Fatalf("%q", b)
		}
		b := EncodeList(want, more)
		if (b[0] == 1) != more || b[0] > 1 {
			t.Fatalf("more is %d", b[0])
		}
		b = b[1:]
		next := func() []byte {
			n := le.Uint32(b)
			w := b[4 : 4+n]
			b = b[4+n:]
			return w
		}
		for _, e := range want {
			key := next()
			got := le.Uint64(b)
			b = b[8:]
			if value := next(); string(key) != e.Key || got != e.Version || !bytes.Equal(value, e.Value) {
				t.Fatalf("%q, %d, %q, want %+v", key, got, value, e)
			}
		}
		if len(b) > 0 {
			t.Fatalf("%d bytes are left over", len(b))
		}
	})
}
