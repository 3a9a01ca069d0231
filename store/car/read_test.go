package car

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/wasmgrid/wasmgrid/grid"
)

// v1 writes a CARv1 as it is told, right or wrong.
func v1(t testing.TB, roots []cid.Cid, sections ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := newWriter(&b, roots)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.flush(); err != nil {
		t.Fatal(err)
	}
	for _, s := range sections {
		b.Write(s)
	}
	return b.Bytes()
}

func sectionOf(c cid.Cid, data []byte) []byte {
	out := binary.AppendUvarint(nil, uint64(c.ByteLen()+len(data)))
	return append(append(out, c.Bytes()...), data...)
}

// v2 wraps a CARv1.
func v2(payload []byte, offset, size, index uint64, pad int, tail string) []byte {
	out := append([]byte{10, 0xa1, 0x67}, "version\x02"...)
	out = append(out, make([]byte, 16)...)
	for _, n := range []uint64{offset, size, index} {
		out = binary.LittleEndian.AppendUint64(out, n)
	}
	out = append(out, make([]byte, pad)...)
	return append(append(out, payload...), tail...)
}

func hashed(t testing.TB, codec, hash uint64, data string) cid.Cid {
	t.Helper()
	sum, err := mh.Sum([]byte(data), hash, -1)
	if err != nil {
		t.Fatal(err)
	}
	return cid.NewCidV1(codec, sum)
}

func TestHostile(t *testing.T) {
	a := grid.NewBlock(cid.Raw, []byte("aa"))
	b := grid.NewBlock(cid.Raw, []byte("bb"))
	roots := []cid.Cid{a.CID()}
	good := v1(t, roots, sectionOf(a.CID(), a.Data()))
	head := len(v1(t, roots))
	second := head + len(sectionOf(a.CID(), a.Data()))
	uvarint := func(n uint64) []byte { return binary.AppendUvarint(nil, n) }
	n := uint64(len(good))
	blake, err := mh.Encode(make([]byte, 32), mh.BLAKE2B_MIN+31)
	if err != nil {
		t.Fatal(err)
	}
	short, err := mh.Sum([]byte("aa"), mh.SHA2_256, 20)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		file []byte
		want grid.Code
		word string
	}{
		{"nothing", nil, grid.Invalid, "no header"},
		{"a header of 100 MB", uvarint(100 << 20), grid.Limit, "at byte 0: a header of 104857600 bytes"},
		{"an endless header", uvarint(1 << 62), grid.Limit, "at byte 0"},
		{"text", []byte("hello, this is no archive at all, whatever its name may say; and it goes on and on and on and on and on and on"), grid.Invalid, "at byte 0: this is no header"},
		{"a header that is no map", append(uvarint(1), 0x80), grid.Invalid, "no header"},
		{"version 3", append(uvarint(10), "\xa1\x67version\x03"...), grid.Unsupported, "version 3"},
		{"version 0", append(uvarint(8), "\xa1\x65roots\x80"...), grid.Unsupported, "version 0"},
		{"no roots", v1(t, nil, sectionOf(a.CID(), a.Data())), grid.Invalid, "no root"},
		{"a root of another hash", v1(t, []cid.Cid{cid.NewCidV1(cid.Raw, blake)}), grid.Unsupported, "root 0"},
		{"a root that is absent", v1(t, []cid.Cid{a.CID(), b.CID()}, sectionOf(a.CID(), a.Data())), grid.Invalid, b.CID().String()},
		{"a wrong CID", v1(t, roots, sectionOf(a.CID(), a.Data()), sectionOf(b.CID(), []byte("cc"))), grid.Corrupt, fmt.Sprintf("at byte %d: block %s", second, b.CID())},
		{"the first of several", v1(t, roots, sectionOf(b.CID(), []byte("cc")), sectionOf(b.CID(), []byte("dd")), []byte{0}), grid.Corrupt, fmt.Sprintf("at byte %d: block %s", head, b.CID())},
		{"another hash", v1(t, roots, sectionOf(cid.NewCidV1(cid.Raw, blake), []byte("x"))), grid.Unsupported, fmt.Sprintf("at byte %d", head)},
		{"a short hash", v1(t, roots, sectionOf(cid.NewCidV1(cid.Raw, short), []byte("aa"))), grid.Unsupported, "not sha2-256"},
		{"a lie in a CID of its own data", v1(t, roots, sectionOf(hashed(t, cid.Raw, mh.IDENTITY, "in it"), []byte("not"))), grid.Corrupt, fmt.Sprintf("at byte %d", head)},
		{"no CID", v1(t, roots, append(uvarint(5), "hello"...)), grid.Invalid, "does not begin with a CID"},
		{"a section that is only half a CID", v1(t, roots, append(uvarint(10), a.CID().Bytes()[:10]...)), grid.Invalid, "does not begin with a CID"},
		{"an endless section", v1(t, roots, uvarint(1<<62)), grid.Limit, fmt.Sprintf("at byte %d: a section of", head)},
		{"a block that is too large", v1(t, roots, sectionOf(a.CID(), make([]byte, grid.MaxBlock+1))), grid.Limit, a.CID().String()},
		{"a section too large", v1(t, roots, uvarint(maxSection+1)), grid.Limit, "a section of"},
		{"a length that lies", v1(t, roots, append(uvarint(1<<20), a.CID().Bytes()...)), grid.Invalid, "cut short"},
		{"a length that is not the shortest", v1(t, roots, append([]byte{0xa6, 0}, a.CID().Bytes()...)), grid.Invalid, "malformed length"},
		{"a length of ten bytes", v1(t, roots, bytes.Repeat([]byte{0xff}, 10)), grid.Invalid, "malformed length"},
		{"half a length", v1(t, roots, []byte{0x80}), grid.Invalid, "cut short"},
		{"zeros behind", append(bytes.Clone(good), make([]byte, 100)...), grid.Invalid, fmt.Sprintf("at byte %d: an empty section", second)},
		{"v2 that is cut", v2(nil, 51, n, 0, 0, "")[:30], grid.Invalid, "cut short"},
		{"v2 without its data", v2(nil, 51, n, 0, 0, ""), grid.Invalid, "at byte 51: the file is cut short"},
		{"v2 that begins in its own header", v2(good, 10, n, 0, 0, ""), grid.Invalid, "at byte 11"},
		{"v2 of absurd size", v2(good, 51, 1<<63, 0, 0, ""), grid.Invalid, "at byte 11"},
		{"v2 of absurd offset", v2(good, 1<<63, n, 0, 0, ""), grid.Invalid, "at byte 11"},
		{"v2 far away", v2(good, 1<<40, n, 0, 0, ""), grid.Invalid, "cut short"},
		{"v2 with more behind", v2(good, 51, n, 0, 0, "x"), grid.Invalid, fmt.Sprintf("at byte %d: the data has ended", 51+n)},
		{"v2 that says less", v2(good, 51, n-1, 0, 0, ""), grid.Invalid, "runs past the end"},
		{"v2 that says much less", v2(good, 51, 3, 0, 0, ""), grid.Invalid, "runs past the end"},
		{"v2 that says more", v2(good, 51, n+1, 0, 0, ""), grid.Invalid, "cut short"},
		{"v2 with an index in its data", v2(good, 51, n, 60, 0, ""), grid.Invalid, "index"},
		{"v2 in v2", v2(v2(good, 51, n, 0, 0, ""), 51, n+51, 0, 0, ""), grid.Invalid, "version 2, want 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			blocks := newBlocks()
			_, err := New(blocks).Import(t.Context(), bytes.NewReader(tt.file), false)
			if err == nil || grid.CodeOf(err) != tt.want || !strings.Contains(err.Error(), tt.word) {
				t.Errorf("error %v (%v), want %v and %q", err, grid.CodeOf(err), tt.want, tt.word)
			}
			verifyAll(t, blocks)
		})
	}
	for name, file := range map[string][]byte{
		"v1":             good,
		"v2":             v2(good, 51, n, 0, 0, ""),
		"v2 with gaps":   v2(good, 60, n, 60+n+2, 9, "..an index"),
		"identity":       v1(t, roots, sectionOf(hashed(t, cid.Raw, mh.IDENTITY, "in it"), []byte("in it")), sectionOf(a.CID(), a.Data())),
		"identity root":  v1(t, []cid.Cid{hashed(t, cid.Raw, mh.IDENTITY, "")}),
		"repeated":       v1(t, append(roots, roots...), sectionOf(a.CID(), a.Data()), sectionOf(a.CID(), a.Data())),
		"what is larger": v1(t, roots, sectionOf(grid.NewBlock(cid.Raw, make([]byte, grid.MaxBlock)).CID(), make([]byte, grid.MaxBlock)), sectionOf(a.CID(), a.Data())),
	} {
		blocks := newBlocks()
		if _, err := New(blocks).Import(t.Context(), bytes.NewReader(file), false); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		verifyAll(t, blocks)
	}
	if in, err := New(newBlocks()).Import(t.Context(), bytes.NewReader(v1(t, nil, sectionOf(a.CID(), a.Data()))), true); err != nil || in.Blocks != 1 {
		t.Errorf("no roots, partial: %+v, %v", in, err)
	}
}

// verifyAll checks that nothing wrong was stored.
func verifyAll(t testing.TB, b *blockMap) {
	t.Helper()
	for hash, data := range b.data {
		if _, err := grid.VerifyBlock(cid.NewCidV1(cid.Raw, mh.Multihash(hash)), data); err != nil {
			t.Error(err)
		}
	}
}

// TestHostileDAG: a small archive that is a huge tree costs what its blocks do.
func TestHostileDAG(t *testing.T) {
	blocks := newBlocks()
	root := grid.NewBlock(cid.Raw, []byte("leaf"))
	if err := blocks.Put(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		l := grid.Link{Cid: root.CID()}
		var err error
		if root, err = grid.EncodeBlock([]grid.Link{l, l, l, l}); err != nil {
			t.Fatal(err)
		}
		if err := blocks.Put(t.Context(), root); err != nil {
			t.Fatal(err)
		}
	}
	file := export(t, blocks, root.CID())
	in, err := New(newBlocks()).Import(t.Context(), bytes.NewReader(file), false)
	if err != nil || in.Blocks != 101 {
		t.Errorf("%+v, %v", in, err)
	}
}

// TestRandomDAGs: what is exported and imported is what there was, in any order of sections.
func TestRandomDAGs(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		from := newBlocks()
		var all []grid.Block
		for i := range 1 + rnd.IntN(60) {
			b := grid.NewBlock(cid.Raw, fmt.Appendf(nil, "%d %d %s", seed, i, strings.Repeat("x", rnd.IntN(3000))))
			if len(all) > 0 && rnd.IntN(2) == 0 {
				var links []grid.Link
				for range rnd.IntN(6) {
					links = append(links, grid.Link{Cid: all[rnd.IntN(len(all))].CID()})
				}
				var err error
				if b, err = grid.EncodeBlock(map[string]any{"n": i, "links": links}); err != nil {
					t.Fatal(err)
				}
			}
			all = append(all, b)
		}
		if err := from.Put(t.Context(), all...); err != nil {
			t.Fatal(err)
		}
		root := all[len(all)-1].CID()
		file := export(t, from, root)
		to := newBlocks()
		in, err := New(to).Import(t.Context(), bytes.NewReader(file), false)
		if err != nil || in.Blocks != int64(len(to.data)) {
			t.Fatalf("seed %d: %+v, %v", seed, in, err)
		}
		if !bytes.Equal(export(t, to, root), file) {
			t.Fatalf("seed %d: not the same again", seed)
		}
		var sections [][]byte
		for _, i := range rnd.Perm(len(all)) {
			sections = append(sections, sectionOf(all[i].CID(), all[i].Data()))
		}
		shuffled := newBlocks()
		if _, err := New(shuffled).Import(t.Context(), bytes.NewReader(v1(t, []cid.Cid{root}, sections...)), false); err != nil {
			t.Fatalf("seed %d, shuffled: %v", seed, err)
		}
		if !bytes.Equal(export(t, shuffled, root), file) {
			t.Fatalf("seed %d: not the same from another order", seed)
		}
	}
}

func FuzzImport(f *testing.F) {
	a := grid.NewBlock(cid.Raw, []byte("aa"))
	node, err := grid.EncodeBlock([]grid.Link{{Cid: a.CID()}})
	if err != nil {
		f.Fatal(err)
	}
	good := v1(f, []cid.Cid{node.CID()}, sectionOf(node.CID(), node.Data()), sectionOf(a.CID(), a.Data()))
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(append(bytes.Clone(good), 0, 0))
	f.Add(v2(good, 51, uint64(len(good)), 0, 0, ""))
	f.Add(v2(good, 53, uint64(len(good)), uint64(53+len(good)), 2, "index"))
	f.Add(v1(f, []cid.Cid{hashed(f, cid.DagCBOR, mh.IDENTITY, "\x80")}, sectionOf(hashed(f, cid.Raw, mh.IDENTITY, "x"), []byte("x"))))
	f.Fuzz(func(t *testing.T, file []byte) {
		blocks := newBlocks()
		a := New(blocks)
		in, err := a.Import(context.Background(), bytes.NewReader(file), true)
		verifyAll(t, blocks)
		if err != nil {
			if c := grid.CodeOf(err); c == grid.Internal || c == grid.Unknown {
				t.Errorf("error without a reason: %v", err)
			}
			return
		}
		for _, r := range in.Roots {
			err := a.Export(context.Background(), io.Discard, grid.Selection{Root: r.CID.Cid})
			if r.Whole != (err == nil) {
				t.Errorf("root %s: whole is %v (%s), export: %v", r.CID, r.Whole, r.Why, err)
			}
		}
	})
}

// full is a disk without room.
type full struct{ *blockMap }

func (full) Put(context.Context, ...grid.Block) error {
	return grid.Errorf(grid.NoSpace, "the disk is full")
}

func TestFullDisk(t *testing.T) {
	a := grid.NewBlock(cid.Raw, []byte("aa"))
	_, err := New(full{newBlocks()}).Import(t.Context(), bytes.NewReader(v1(t, []cid.Cid{a.CID()}, sectionOf(a.CID(), a.Data()))), true)
	if grid.CodeOf(err) != grid.NoSpace {
		t.Errorf("%v", err)
	}
}

// void takes blocks, and has none.
type void struct {
	*blockMap
	most atomic.Uint64 // bytes on the heap
}

func (v *void) Put(context.Context, ...grid.Block) error {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	for most := v.most.Load(); m.HeapAlloc > most && !v.most.CompareAndSwap(most, m.HeapAlloc); most = v.most.Load() {
	}
	return nil
}

// TestMemory: an archive of 512 MiB passes through a fraction of that.
func TestMemory(t *testing.T) {
	data := make([]byte, 1<<20)
	section := sectionOf(grid.NewBlock(cid.Raw, data).CID(), data)
	parts := []io.Reader{bytes.NewReader(v1(t, nil))}
	for range 512 {
		parts = append(parts, bytes.NewReader(section))
	}
	v := &void{blockMap: newBlocks()}
	in, err := New(v).Import(t.Context(), io.MultiReader(parts...), true)
	if err != nil || in.Bytes != 512<<20 {
		t.Fatalf("%+v, %v", in, err)
	}
	if most := v.most.Load(); most > 192<<20 {
		t.Errorf("%d MiB on the heap", most>>20)
	}
}
