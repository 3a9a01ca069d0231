package hostile

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

type m = map[string]any

// served says what is valid for each protocol that a node serves: the body of a call, or the first bytes of a stream.
type served struct {
	call   any                 // of ours, with one body
	stream func(m any) []byte  // frames a message that begins a stream
	begin  any                 // that message
	bytes  func(*known) []byte // begins a stream that has no such message
	other  bool                // of libraries, which look after themselves: garbage is all it gets
	seldom bool                // not spoken everywhere
}

// known is what a stranger may know of the victim.
type known struct {
	self, victim peer.ID
	job          grid.JobID
	realm        string
	root         cid.Cid
}

// nobodys is a job that there is not.
const nobodys = grid.JobID("jaaaaaaaaaaaaaaaaaaaaaaaaaa")

func link(c cid.Cid) grid.Link { return grid.Link{Cid: c} }

func marshal(v any) []byte {
	data, err := grid.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

// protocols lists everything that a node speaks.
func protocolTable(k *known) map[string]served {
	span := m{"lo": 0, "hi": 10}
	receipt := grid.Receipt{Node: k.victim, Stdout: grid.Output{Size: 4, Inline: []byte("evil")}, Fuel: 7, Started: 1}
	prefixed := func(v any) []byte { return framed(marshal(v)) }
	short := func(v any) []byte { return small(marshal(v)) }
	follow := served{stream: prefixed, begin: m{"job": k.job, "epoch": 1, "from": 0, "follow": true}}
	call := func(v any) served { return served{call: v} }
	return map[string]served{
		"steal/1": call(m{"slots": 4, "can": m{"slots": 4, "memory": 1 << 30}}),
		"wake/1":  call(m{}),
		"claim/1": call(m{"job": k.job, "stage": 0, "epoch": 1, "spans": []any{span}}),
		"report/1": call(m{"job": k.job, "stage": 0, "epoch": 1,
			"done":   []grid.Completion{{Index: 3, Receipt: receipt}},
			"failed": []any{m{"index": 4, "code": 12, "message": "no"}}}),
		"drop/1":         call(m{"job": k.job, "epoch": 1}),
		"recall/1":       call(m{"keys": []grid.Key{{1}, {2}}}),
		"rows/1":         call(m{"job": k.job, "stage": 0, "epoch": 1, "span": span}),
		"revoke/1":       call(m{"job": k.job, "stage": 0, "epoch": 1, "spans": []any{span}}),
		"job/1":          call(m{"jobs": []grid.JobID{k.job}}),
		"job-cancel/1":   call(m{"job": nobodys, "epoch": 1}), // one of the realm may cancel
		"job-why/1":      call(m{"job": k.job}),
		"load/1":         call(m{"job": k.job}),
		"about/1":        call(m{}),
		"speed/1":        call(m{"bytes": 1000}),
		"pulse/1":        call(m{}),
		"stretches/1":    call(m{"since": 1, "until": 2, "job": k.job, "resolution": 1000, "limit": 10}),
		"realm-events/1": call(m{"run": 1, "from": 1, "to": 2, "since": 1, "job": k.job}),
		"pins/1": call(m{"info": m{"free": 1 << 30}, "ask": []grid.Link{link(k.root)}, "put": []any{m{
			"root": link(k.root), "replicas": 2, "size": 100, "created": 1, "changed": 1, "by": k.self,
			"version": m{"e": 1, "a": 1, "n": k.self}, "holders": []peer.ID{k.self}}}}),
		"ledger/1": call(m{"realm": k.realm, "kind": 2, "prefix": []byte("j"), "after": []byte{}, "limit": 10, "wait": 100, "hops": 1}),
		"realm/1": call(m{"name": "evil", "realm": "0123456789abcdef0123456789abcdef", "incarnation": 1, "start": 2, "members": 1, "copy": true,
			"servers": []any{m{"id": k.self, "voter": true}}}),
		"job-watch/1":    follow,
		"job-tasks/1":    follow,
		"job-events/1":   follow,
		"task-log/1":     {stream: prefixed, begin: m{"job": k.job, "stage": 0, "task": 0, "follow": true}},
		"ledger-watch/1": {stream: short, begin: m{"realm": k.realm, "prefix": []byte("j"), "after": 0}},
		"raft/1":         {stream: short, begin: m{"realm": k.realm, "incarnation": 1}},
		"blocks/2": {bytes: func(k *known) []byte {
			return slices.Concat([]byte{1, 1, byte(k.root.ByteLen())}, k.root.Bytes())
		}},
		"ping/1":              {bytes: func(*known) []byte { return []byte("12345678") }},
		"kad/1.0.0":           {other: true},
		"/ipfs/id/1.0.0":      {other: true},
		"/ipfs/id/push/1.0.0": {other: true},
		"/ipfs/ping/1.0.0":    {other: true},

		"/libp2p/circuit/relay/0.2.0/hop":  {other: true},
		"/libp2p/circuit/relay/0.2.0/stop": {other: true},
		"/libp2p/autonat/2/dial-request":   {other: true},
		"/libp2p/autonat/2/dial-back":      {other: true},
		"/libp2p/dcutr":                    {other: true, seldom: true}, // by nodes that are seen from outside
	}
}

// encode frames a message of the protocol.
func (s *served) encode(v any) []byte {
	if s.stream != nil {
		return s.stream(v)
	}
	return marshal(v)
}

func (s *served) message() any {
	if s.stream != nil {
		return s.begin
	}
	return s.call
}

// absurd are what a mutator puts in the place of each value.
var absurd = []any{
	nil, 0, -1, 1, math.MaxInt32, math.MaxUint32, int64(math.MaxInt64), int64(math.MinInt64), uint64(math.MaxUint64),
	math.Inf(1), math.NaN(), true, "", "\xff\xfe", "../../../etc/passwd", string(bytes.Repeat([]byte("a"), 70_000)),
	[]byte{}, bytes.Repeat([]byte{0xff}, 70_000), []any{}, m{}, nested(40), many(20_000),
}

// nested is a list in a list in a list.
func nested(depth int) any {
	v := any([]any{})
	for range depth {
		v = []any{v}
	}
	return v
}

func many(n int) any {
	list := make([]any, n)
	for i := range list {
		list[i] = i
	}
	return list
}

// mutants calls f with the message with each of its values replaced by each absurd one, left out, and each list
// repeated.
func mutants(t *testing.T, valid any, f func(any)) {
	t.Helper()
	var plain any // as it is on the wire
	if err := grid.Unmarshal(marshal(valid), &plain); err != nil {
		t.Fatal(err)
	}
	var walk func(v any, put func(any))
	walk = func(v any, put func(any)) {
		for _, x := range absurd {
			put(x)
		}
		switch v := v.(type) {
		case map[any]any:
			for k, old := range v {
				walk(old, func(x any) {
					v[k] = x
					put(v)
				})
				delete(v, k)
				put(v)
				v[k] = old
			}
		case map[string]any:
			for k, old := range v {
				walk(old, func(x any) {
					v[k] = x
					put(v)
				})
				delete(v, k)
				put(v)
				v[k] = old
			}
		case []any:
			for i, old := range v {
				walk(old, func(x any) {
					v[i] = x
					put(v)
				})
				v[i] = old
				put(slices.Repeat(v, 3000/len(v)))
			}
		}
		put(v)
	}
	walk(plain, f)
}

// garbage are bytes that are no message of anything, or the beginning of one.
func garbage(r *rand.Rand, valid []byte) [][]byte {
	noise := make([]byte, 20_000)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	list := [][]byte{
		{}, {0}, {0x80}, noise, noise[:7], noise[:300],
		bytes.Repeat([]byte{0xff}, 16),                                // lengths without end
		{0xff, 0xff, 0xff, 0x03},                                      // 8 MiB less 1 that never come
		{0x80, 0x80, 0x80, 0x04},                                      // 8 MiB
		{0x81, 0x80, 0x80, 0x04},                                      // one more
		{0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01},                    // far more
		{0x81, 0x00, 0x01},                                            // not the shortest form
		framed(bytes.Repeat([]byte{0x9b}, 1000)),                      // lists in lists of CBOR
		framed([]byte{0xbb, 255, 255, 255, 255, 255, 255, 255, 255}),  // a map of 2^64 entries
		framed([]byte{0x5b, 0x7f, 255, 255, 255, 255, 255, 255, 255}), // a string as long
		framed(bytes.Repeat([]byte{0x81}, 100_000)),                   // a list in a list in …
		framed(bytes.Repeat([]byte{0xa0}, 200_000)),
		[]byte("GET / HTTP/1.1\r\nHost: victim\r\n\r\n"),
		slices.Concat(framed(valid), noise),
	}
	for range 20 {
		if len(valid) == 0 {
			break
		}
		cut := framed(valid)
		list = append(list, cut[:r.IntN(len(cut))])
		flipped := slices.Clone(cut)
		flipped[r.IntN(len(cut))] ^= byte(1 + r.IntN(255))
		list = append(list, flipped)
	}
	return list
}
