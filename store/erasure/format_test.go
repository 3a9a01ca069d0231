package erasure

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

// mul is the product in the field of docs/erasure.md, as it stands there.
func mul(a, b byte) (p byte) {
	for ; b > 0; b >>= 1 {
		if b&1 == 1 {
			p ^= a
		}
		if a >= 128 {
			a = a<<1 ^ 0x1d
		} else {
			a <<= 1
		}
	}
	return p
}

func inverse(a byte) byte {
	for b := range 256 {
		if mul(a, byte(b)) == 1 {
			return byte(b)
		}
	}
	panic("0 has no inverse")
}

// The arithmetic is what docs/erasure.md says, for every number of columns, whatever the library is made of.
func TestArithmetic(t *testing.T) {
	for k := 1; k < MaxColumns; k++ {
		for m := 1; k+m <= MaxColumns; m++ {
			p := Params{k, m}
			rs, err := p.coder()
			if err != nil {
				t.Fatal(err)
			}
			size := 1 + (k*7+m*31)%150
			got, want := make([][]byte, m), make([][]byte, m)
			for j := range m {
				got[j], want[j] = make([]byte, size), make([]byte, size)
			}
			for i := range k {
				data := random(uint64(i), size-i*size/k)
				if err := rs.encode(data, i, got); err != nil {
					t.Fatal(err)
				}
				for j := range m {
					c := inverse(byte(k+j) ^ byte(i))
					for x, b := range data {
						want[j][x] ^= mul(c, b)
					}
				}
			}
			for j := range m {
				if !bytes.Equal(got[j], want[j]) {
					t.Fatalf("%s: parity %d differs", p, j)
				}
			}
		}
	}
}

// A manifest as docs/erasure.md describes it, put together by hand.
func TestGolden(t *testing.T) {
	s := newMemory()
	hello := leaf(t, s, []byte("hello"))
	m, err := Encode(t.Context(), s, hello, Params{2, 1})
	if err != nil {
		t.Fatal(err)
	}
	var parity []byte
	for _, b := range []byte("hello") {
		parity = append(parity, mul(inverse(2), b))
	}
	h := func(s string) string {
		b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	sum := grid.NewBlock(cid.Raw, parity).CID().Hash()
	groups := h("81 82 81 82 5824") + string(hello.Bytes()) + h("05 5820") + string(sum[2:])
	part := grid.NewBlock(cid.DagCBOR, []byte(groups))
	root := h("a7 616b 02 616d 01 6176 01 64 726f6f74 5824") + string(hello.Bytes()) +
		h("65 6279746573 05 65 696e646578 80 66 67726f757073 81 d82a 5825 00") + string(part.CID().Bytes())
	b := grid.NewBlock(cid.DagCBOR, []byte(root))
	if got := s.data[digestOf(m.CID())]; string(got) != root {
		t.Errorf("the root is\n%x, want\n%x", got, root)
	}
	if m.CID() != b.CID() || !s.has(part.CID()) || len(m.Records()) != 2 {
		t.Errorf("the manifest is %s, want %s of %s", m.CID(), b.CID(), part.CID())
	}
	const golden = "bafyreiecqmqvdjxczrdsqncgyzcf2xuaouwrd33b5cs6l4xeyooabbywfq"
	if m.CID().String() != golden {
		t.Errorf("the manifest is %s", m.CID())
	}
}

// A manifest of several parts is read as it was written.
func TestParts(t *testing.T) {
	m := &Manifest{params: Params{2, 1}}
	fake := func(i int) entry {
		return entry{grid.NewBlock(cid.Raw, []byte{byte(i), byte(i >> 8), byte(i >> 16)}).CID(), uint32(i)}
	}
	groups := m.params.groupsPerPart() + 1
	for i := range perPart + 1 {
		m.index = append(m.index, fake(i))
	}
	for i := range groups*2 - 1 {
		m.data = append(m.data, fake(1<<20+i))
	}
	for g := range groups {
		m.parity = append(m.parity, digest{byte(g)})
		data := m.group(g)
		m.longest = append(m.longest, data[len(data)-1].size)
	}
	for _, e := range append(m.index[:len(m.index):len(m.index)], m.data...) {
		m.bytes += uint64(e.size)
	}
	m.root = m.index[0].cid
	s := newMemory()
	if err := m.encode(func(b grid.Block) error { return s.Put(t.Context(), b) }); err != nil {
		t.Fatal(err)
	}
	if len(m.records) != 1+2+2 {
		t.Errorf("the manifest has %d blocks", len(m.records))
	}
	got, err := Load(t.Context(), s.Get, m.CID())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, m) {
		t.Error("what was read is not what was written")
	}

	// Without its last part it is no manifest; nor is one whose parts are not full.
	s.Delete(t.Context(), m.records[4].cid)
	if _, err := Load(t.Context(), s.Get, m.CID()); !errors.Is(err, grid.NotFound) {
		t.Errorf("a part is missing: %v", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	c1, c2 := grid.NewBlock(cid.Raw, []byte("1")).CID(), grid.NewBlock(cid.Raw, []byte("2")).CID()
	sha512, _ := cid.V1Builder{Codec: cid.Raw, MhType: 0x13}.Sum(nil)
	type parts struct {
		root   map[string]any
		index  []any
		groups []any
	}
	e := func(c cid.Cid, size any) []any { return []any{c.Bytes(), size} }
	d := func(n int) []byte { return make([]byte, n) }
	group := func(parity []byte, data ...any) []any { return []any{data, parity} }
	full := []any{group(d(64), e(c1, 1), e(c2, 2))}
	for _, tt := range []struct {
		name string
		parts
		want grid.Code
	}{
		{name: "fine", parts: parts{groups: full}},
		{"later version", parts{root: map[string]any{"v": 2, "new": true}, groups: full}, grid.Unsupported},
		{"version 0", parts{root: map[string]any{"v": 0}, groups: full}, grid.Invalid},
		{"unknown field", parts{root: map[string]any{"x": 1}, groups: full}, grid.Invalid},
		{"k of 0", parts{root: map[string]any{"k": 0}, groups: full}, grid.Invalid},
		{"m of 0", parts{root: map[string]any{"m": 0}, groups: full}, grid.Invalid},
		{"too many columns", parts{root: map[string]any{"k": 31}, groups: full}, grid.Invalid},
		{"k overflows", parts{root: map[string]any{"k": uint64(1<<64 - 1)}, groups: full}, grid.Invalid},
		{"negative k", parts{root: map[string]any{"k": -2}, groups: full}, grid.Invalid},
		{"root is no CID", parts{root: map[string]any{"root": []byte{1}}, groups: full}, grid.Invalid},
		{"root is a link", parts{root: map[string]any{"root": grid.Link{Cid: c1}}, groups: full}, grid.Invalid},
		{"root has another hash", parts{root: map[string]any{"root": sha512.Bytes()}, groups: full}, grid.Unsupported},
		{"root is not listed", parts{root: map[string]any{"root": rawCID(digest{}).Bytes()}, groups: full}, grid.Invalid},
		{"wrong sum", parts{root: map[string]any{"bytes": 4}, groups: full}, grid.Invalid},
		{"no groups", parts{}, grid.Invalid},
		{"no list of groups", parts{root: map[string]any{"groups": nil}}, grid.Invalid},
		{"too many parts", parts{root: map[string]any{"groups": slicesOf(grid.Link{Cid: c1}, maxParts+1)}}, grid.Limit},
		{"far too many parts", parts{root: map[string]any{"groups": slicesOf(grid.Link{Cid: c1}, perPart+1)}}, grid.Invalid},
		{"a part is raw", parts{root: map[string]any{"groups": slicesOf(grid.Link{Cid: c1}, 1)}}, grid.Invalid},
		{"an empty part", parts{groups: []any{}}, grid.Invalid},
		{"an empty part of the index", parts{index: []any{}, groups: full}, grid.Invalid},
		{"an empty group", parts{groups: []any{group(d(64))}}, grid.Invalid},
		{"too large a group", parts{groups: []any{group(d(64), e(c1, 1), e(c2, 2), e(rawCID(digest{}), 0))}}, grid.Invalid},
		{"an incomplete group that is not the last", parts{groups: []any{group(d(64), e(c1, 1)), group(d(64), e(c2, 2))}}, grid.Invalid},
		{"too little parity", parts{groups: []any{group(d(63), e(c1, 1), e(c2, 2))}}, grid.Invalid},
		{"too much parity", parts{groups: []any{group(d(96), e(c1, 1), e(c2, 2))}}, grid.Invalid},
		{"a block twice", parts{root: map[string]any{"bytes": 2}, groups: []any{group(d(64), e(c1, 1), e(c1, 1))}}, grid.Invalid},
		{"a block twice, under two codecs", parts{root: map[string]any{"bytes": 2},
			groups: []any{group(d(64), e(c1, 1), e(cid.NewCidV1(cid.DagCBOR, c1.Hash()), 1))}}, grid.Invalid},
		{"a block in the index and a group", parts{root: map[string]any{"bytes": 4}, index: []any{e(c1, 1)}, groups: full}, grid.Invalid},
		{"a block that is too long", parts{root: map[string]any{"bytes": grid.MaxBlock + 2}, groups: []any{group(d(64), e(c1, 1), e(c2, grid.MaxBlock+1))}}, grid.Invalid},
		{"a block of another hash", parts{groups: []any{group(d(64), e(c1, 1), e(sha512, 2))}}, grid.Unsupported},
		{"a length that wraps", parts{groups: []any{group(d(64), e(c1, 1), e(c2, uint64(1<<32+2)))}}, grid.Invalid},
		{"an entry that is too long", parts{groups: []any{group(d(64), e(c1, 1), append(e(c2, 2), 3))}}, grid.Invalid},
	} {
		s := newMemory()
		block := func(v any) grid.Link {
			b, err := grid.EncodeBlock(v)
			if err != nil {
				t.Fatal(err)
			}
			put(t, s, b)
			return grid.Link{Cid: b.CID()}
		}
		root := map[string]any{"v": 1, "k": 2, "m": 2, "root": c1.Bytes(), "bytes": 3, "index": []grid.Link{}, "groups": []grid.Link{}}
		if tt.index != nil {
			root["index"] = []grid.Link{block(tt.index)}
		}
		if tt.groups != nil {
			root["groups"] = []grid.Link{block(tt.groups)}
		}
		for k, v := range tt.root {
			root[k] = v
		}
		c := block(root).Cid
		m, err := Load(t.Context(), s.Get, c)
		if grid.CodeOf(err) != tt.want || err == nil && tt.want != 0 {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if err != nil && (m != nil || !strings.Contains(err.Error(), c.String())) {
			t.Errorf("%s: %v does not name the manifest", tt.name, err)
		}
	}
}

func slicesOf[T any](v T, n int) (s []T) {
	for range n {
		s = append(s, v)
	}
	return s
}

func TestLoadVerifies(t *testing.T) {
	s := newMemory()
	m, err := Encode(t.Context(), s, leaves(5, 100)(t, s), Params{2, 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range m.Records() {
		get := func(ctx context.Context, want cid.Cid) ([]byte, error) {
			data, err := s.Get(ctx, want)
			if want == c {
				data = append([]byte{0}, data...)
			}
			return data, err
		}
		if _, err := Load(t.Context(), get, m.CID()); !errors.Is(err, grid.Corrupt) {
			t.Errorf("a changed block: %v", err)
		}
	}
	if _, err := Load(t.Context(), s.Get, cid.Undef); !errors.Is(err, grid.Invalid) {
		t.Errorf("no CID: %v", err)
	}
	if _, err := Load(t.Context(), s.Get, m.Root()); !errors.Is(err, grid.Invalid) {
		t.Errorf("not a manifest: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Load(ctx, s.Get, m.CID()); !errors.Is(err, grid.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// Whatever is accepted can be written again and is then the same; its methods do not fail on it.
func FuzzManifest(f *testing.F) {
	for _, shape := range shapes[:5] {
		s := newMemory()
		m, err := Encode(f.Context(), s, shape.make(f, s), Params{2, 1})
		if err != nil {
			f.Fatal(err)
		}
		last := s.data[digestOf(m.records[len(m.records)-1].cid)]
		if len(m.records) == 2 {
			f.Add(s.data[digestOf(m.CID())], []byte(nil), last)
		} else {
			f.Add(s.data[digestOf(m.CID())], s.data[digestOf(m.records[1].cid)], last)
		}
	}
	f.Fuzz(func(t *testing.T, root, index, groups []byte) {
		m := &Manifest{}
		rec, err := m.decodeRoot(root)
		if err == nil && len(rec.Index) > 0 {
			err = m.decodeIndex(index, true)
		}
		if err == nil {
			err = m.decodeGroups(groups, true)
		}
		if err == nil {
			err = m.check()
		}
		if err != nil {
			return
		}
		s := newMemory()
		if err := m.encode(func(b grid.Block) error { return s.Put(t.Context(), b) }); err != nil {
			t.Fatal(err)
		}
		again, err := Load(t.Context(), s.Get, m.CID())
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(again, m) {
			t.Fatalf("%+v, and again %+v", m, again)
		}
		m.Stat()
		if h := m.Health(func(s Shard) bool { return true }); h.Spare != m.params.M || h.Lost != 0 {
			t.Fatalf("%+v", h)
		}
	})
}
