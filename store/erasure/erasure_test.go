package erasure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
	"github.com/wasmgrid/wasmgrid/store/dag"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is blocks in memory, which a test can damage.
type memory struct {
	mu   sync.Mutex
	data map[digest][]byte
}

func newMemory() *memory { return &memory{data: map[digest][]byte{}} }

func (s *memory) Put(ctx context.Context, bs ...grid.Block) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range bs {
		if !b.CID().Defined() {
			return grid.Errorf(grid.Invalid, "an empty Block")
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		s.data[digestOf(b.CID())] = bytes.Clone(b.Data())
	}
	return nil
}

func (s *memory) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	if err := errors.Join(ctx.Err(), grid.CheckCID(c)); err != nil {
		return nil, grid.Errorf(grid.CodeOf(err), "get: %w", err)
	}
	s.mu.Lock()
	data, ok := s.data[digestOf(c)]
	s.mu.Unlock()
	if !ok {
		return nil, grid.Errorf(grid.NotFound, "block %s is not here", c)
	}
	_, err := grid.VerifyBlock(c, data)
	if err != nil {
		return nil, err
	}
	return data, nil
}

func (s *memory) Has(ctx context.Context, c cid.Cid) (bool, error) {
	if err := errors.Join(ctx.Err(), grid.CheckCID(c)); err != nil {
		return false, grid.Errorf(grid.CodeOf(err), "has: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.data[digestOf(c)]
	return ok, nil
}

func (s *memory) Delete(ctx context.Context, c cid.Cid) error {
	if err := errors.Join(ctx.Err(), grid.CheckCID(c)); err != nil {
		return grid.Errorf(grid.CodeOf(err), "delete: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.data, digestOf(c))
	return nil
}

func (s *memory) Sync(ctx context.Context) error { return ctx.Err() }

// damage changes a block that is here.
func (s *memory) damage(c cid.Cid) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data[digestOf(c)] = append([]byte("x"), s.data[digestOf(c)]...)
}

func (s *memory) has(c cid.Cid) bool {
	ok, err := s.Has(context.Background(), c)
	return ok && err == nil
}

func TestMemory(t *testing.T) {
	gridtest.TestBlocks(t, func(t *testing.T) grid.Blocks { return newMemory() })
}

// random is n bytes that depend on the seed alone.
func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), 7}).Read(b)
	return b
}

func put(t testing.TB, s grid.Blocks, bs ...grid.Block) {
	t.Helper()
	if err := s.Put(t.Context(), bs...); err != nil {
		t.Fatal(err)
	}
}

// cborNode stores a DAG-CBOR node with links.
func cborNode(t testing.TB, s grid.Blocks, name string, links ...cid.Cid) cid.Cid {
	t.Helper()
	ls := []grid.Link{}
	for _, c := range links {
		ls = append(ls, grid.Link{Cid: c})
	}
	b, err := grid.EncodeBlock(map[string]any{"name": name, "links": ls})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, b)
	return b.CID()
}

func leaf(t testing.TB, s grid.Blocks, data []byte) cid.Cid {
	t.Helper()
	b := grid.NewBlock(cid.Raw, data)
	put(t, s, b)
	return b.CID()
}

func file(t testing.TB, s grid.Blocks, data []byte) grid.FileInfo {
	t.Helper()
	c, size, err := dag.New(s).Add(t.Context(), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return grid.FileInfo{CID: grid.Link{Cid: c}, Size: size, Kind: grid.KindFile}
}

func tree(t testing.TB, s grid.Blocks, entries ...grid.FileInfo) cid.Cid {
	t.Helper()
	c, _, err := dag.New(s).AddTree(t.Context(), entries)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// leaves is a node above n leaves of one size.
func leaves(n, size int) func(testing.TB, grid.Blocks) cid.Cid {
	return func(t testing.TB, s grid.Blocks) cid.Cid {
		var cs []cid.Cid
		for i := range n {
			cs = append(cs, leaf(t, s, random(uint64(i), size)))
		}
		return cborNode(t, s, "leaves", cs...)
	}
}

func smallFiles(n int) func(testing.TB, grid.Blocks) cid.Cid {
	return func(t testing.TB, s grid.Blocks) cid.Cid {
		var es []grid.FileInfo
		for i := range n {
			f := file(t, s, random(uint64(i), 1+i*7%300))
			f.Name = fmt.Sprintf("dir%d/file%d", i%7, i)
			es = append(es, f)
		}
		return tree(t, s, es...)
	}
}

// shapes are DAGs that are odd in one way or another.
var shapes = []struct {
	name string
	make func(testing.TB, grid.Blocks) cid.Cid
}{
	{"one block", func(t testing.TB, s grid.Blocks) cid.Cid { return leaf(t, s, []byte("hello")) }},
	{"empty file", func(t testing.TB, s grid.Blocks) cid.Cid { return file(t, s, nil).CID.Cid }},
	{"empty folder", func(t testing.TB, s grid.Blocks) cid.Cid { return tree(t, s) }},
	{"two leaves", leaves(2, 100)},
	{"three leaves", leaves(3, 100)},
	{"four leaves", leaves(4, 100)},
	{"five leaves", leaves(5, 100)},
	{"file of three and a half chunks", func(t testing.TB, s grid.Blocks) cid.Cid {
		return file(t, s, random(1, 3<<20+500_000)).CID.Cid
	}},
	{"zeros", func(t testing.TB, s grid.Blocks) cid.Cid {
		return cborNode(t, s, "zeros", leaf(t, s, make([]byte, 100)), leaf(t, s, make([]byte, 99)), leaf(t, s, nil))
	}},
	{"mixed sizes", func(t testing.TB, s grid.Blocks) cid.Cid {
		var es []grid.FileInfo
		for i, n := range []int{0, 1, 63, 64, 65, 1 << 20, 1<<20 + 1, 300_000, 5, 2<<20 - 7} {
			f := file(t, s, random(uint64(i), n))
			f.Name = fmt.Sprint(i)
			es = append(es, f)
		}
		return tree(t, s, append(es, grid.FileInfo{Name: "link", Kind: grid.KindSymlink, Target: "5"})...)
	}},
	{"1,000 small files", smallFiles(1000)},
	{"duplicates", func(t testing.TB, s grid.Blocks) cid.Cid {
		same, other := leaf(t, s, random(1, 77)), leaf(t, s, random(2, 78))
		n1 := cborNode(t, s, "n", same, other, same)
		return cborNode(t, s, "top", n1, same, n1, other)
	}},
	{"one block as raw and as a node", func(t testing.TB, s grid.Blocks) cid.Cid {
		n := cborNode(t, s, "n", leaf(t, s, random(1, 77)))
		alone := cborNode(t, s, "no links")
		return cborNode(t, s, "top", cid.NewCidV1(cid.Raw, n.Hash()), n, cid.NewCidV1(cid.Raw, alone.Hash()), alone)
	}},
	{"DAG-CBOR", func(t testing.TB, s grid.Blocks) cid.Cid {
		c := cborNode(t, s, "bottom")
		for i := range 20 {
			c = cborNode(t, s, fmt.Sprint(i), c, leaf(t, s, random(uint64(i), 50*i)))
		}
		return c
	}},
}

// nodes is who keeps the columns of a coded DAG.
type nodes struct {
	m       *Manifest
	columns []*memory

	mu      sync.Mutex
	fetched []cid.Cid
}

// spread codes a DAG and gives each column what it keeps.
func spread(t testing.TB, s *memory, root cid.Cid, p Params) *nodes {
	t.Helper()
	m, err := Encode(t.Context(), s, root, p)
	if err != nil {
		t.Fatal(err)
	}
	n := &nodes{m: m}
	for c := range p.Columns() {
		column := newMemory()
		for sh := range m.Shards(c) {
			data, err := s.Get(t.Context(), sh.CID)
			if err != nil || len(data) != sh.Size || sh.Column != c {
				t.Fatalf("%v: %d bytes, %v", sh, len(data), err)
			}
			b, err := grid.VerifyBlock(sh.CID, data)
			if err != nil {
				t.Fatal(err)
			}
			put(t, column, b)
		}
		n.columns = append(n.columns, column)
	}
	return n
}

// lose empties columns, and returns what was in them.
func (n *nodes) lose(columns ...int) (lost []cid.Cid) {
	for _, c := range columns {
		n.columns[c] = newMemory()
		for s := range n.m.Shards(c) {
			lost = append(lost, s.CID)
		}
	}
	return lost
}

func (n *nodes) have(c cid.Cid) bool {
	return slices.ContainsFunc(n.columns, func(s *memory) bool { return s.has(c) })
}

// fetchTo is a fetch that brings blocks from the columns to s, without looking at them.
func (n *nodes) fetchTo(s *memory) func(context.Context, []cid.Cid) error {
	return func(ctx context.Context, cs []cid.Cid) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, c := range cs {
			n.fetched = append(n.fetched, c)
			for _, from := range n.columns {
				from.mu.Lock()
				data, ok := from.data[digestOf(c)]
				from.mu.Unlock()
				if ok {
					s.mu.Lock()
					s.data[digestOf(c)] = data
					s.mu.Unlock()
					break
				}
			}
		}
		return nil
	}
}

// combinations calls f with each choice of m out of 0..n-1.
func combinations(n, m int, f func([]int)) {
	var pick func(from int, chosen []int)
	pick = func(from int, chosen []int) {
		if len(chosen) == m {
			f(chosen)
			return
		}
		for i := from; i < n; i++ {
			pick(i+1, append(chosen, i))
		}
	}
	pick(0, nil)
}

// Whatever M columns are lost, everything is had again from the others, byte by byte.
func TestEveryLoss(t *testing.T) {
	for _, shape := range shapes {
		for _, p := range []Params{{1, 1}, {1, 2}, {2, 1}, {4, 2}, {3, 3}} {
			t.Run(fmt.Sprintf("%s/%s", shape.name, p), func(t *testing.T) {
				t.Parallel()
				s := newMemory()
				root := shape.make(t, s)
				var walked []cid.Cid
				if err := dag.Walk(t.Context(), s, root, func(c cid.Cid, _ []byte) error {
					walked = append(walked, c)
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				whole := spread(t, s, root, p)
				combinations(p.Columns(), p.M, func(lost []int) {
					n := &nodes{columns: slices.Clone(whole.columns)}
					back := newMemory() // of the node that rebuilds
					m, err := Load(t.Context(), func(ctx context.Context, c cid.Cid) ([]byte, error) {
						for i, column := range n.columns {
							if data, err := column.Get(ctx, c); err == nil && !slices.Contains(lost, i) {
								return data, nil
							}
						}
						return nil, grid.Errorf(grid.NotFound, "%s is lost", c)
					}, whole.m.CID())
					if err != nil {
						t.Fatal(err)
					}
					n.m = m
					want := n.lose(lost...)
					h := m.Health(func(s Shard) bool { return !slices.Contains(lost, s.Column) })
					if h.Lost > 0 || h.Spare < 0 || h.Missing.Blocks != len(want) {
						t.Errorf("without %v: %+v, %d shards are lost", lost, h, len(want))
					}
					if err := Rebuild(t.Context(), m, n.have, n.fetchTo(back), back, want); err != nil {
						t.Fatalf("without %v: %v", lost, err)
					}
					if most := len(m.index) + len(m.data); len(n.fetched) > most {
						t.Errorf("without %v: %d blocks were fetched, %d would do", lost, len(n.fetched), most)
					}
					for _, c := range want {
						n.columns = append(n.columns, back)
						if _, err := back.Get(t.Context(), c); err != nil {
							t.Fatalf("without %v: %v", lost, err)
						}
					}
					for _, c := range walked {
						if !n.have(c) {
							t.Fatalf("without %v: %s is in no column", lost, c)
						}
					}
				})
			})
		}
	}
}

// What is lost beyond M is named, and the rest comes back.
func TestTooMany(t *testing.T) {
	s := newMemory()
	n := spread(t, s, leaves(10, 1000)(t, s), Params{4, 2}) // groups of 4, 4 and 2
	want := n.lose(3, 4, 5)
	back := newMemory()
	err := Rebuild(t.Context(), n.m, n.have, n.fetchTo(back), back, want)
	if !errors.Is(err, grid.Unavailable) {
		t.Fatalf("Rebuild = %v, want Unavailable", err)
	}
	for c := 3; c < 6; c++ {
		first, _ := n.m.shard(0, n.m.params.slot(0, c))
		second, _ := n.m.shard(1, n.m.params.slot(1, c))
		if !strings.Contains(err.Error(), first.CID.String()) && !strings.Contains(err.Error(), second.CID.String()) {
			t.Errorf("the block of column %d is not named: %v", c, err)
		}
	}
	if !strings.Contains(err.Error(), "group ") || grid.AdviceOf(err) == "" {
		t.Errorf("%v (%s)", err, grid.AdviceOf(err))
	}
	for _, c := range n.m.Records() {
		if !back.has(c) {
			t.Errorf("manifest block %s did not come back", c)
		}
	}

	// When one is back, everything is.
	n.columns[4] = s
	if err := Rebuild(t.Context(), n.m, n.have, n.fetchTo(back), back, want); err != nil {
		t.Error(err)
	}
}

// Groups that can be had are, although another cannot.
func TestOthersComeBack(t *testing.T) {
	s := newMemory()
	root := leaves(12, 1000)(t, s)
	n := spread(t, s, root, Params{4, 2})
	local := newMemory()
	var want []cid.Cid
	for g := range 3 {
		for i := range 6 {
			sh, _ := n.m.shard(g, i)
			if lost := i < 2 || g == 1 && i == 2; lost {
				want = append(want, sh.CID)
				continue
			}
			data, err := s.Get(t.Context(), sh.CID)
			if err != nil {
				t.Fatal(err)
			}
			put(t, local, grid.NewBlock(cid.Raw, data))
		}
	}
	err := Rebuild(t.Context(), n.m, nil, nil, local, want)
	if !errors.Is(err, grid.Unavailable) || !strings.Contains(err.Error(), "group 1 ") {
		t.Fatalf("Rebuild = %v", err)
	}
	for i, c := range want {
		if g := []int{0, 0, 1, 1, 1, 2, 2}[i]; local.has(c) != (g != 1) {
			t.Errorf("block %s of group %d: here is %v", c, g, local.has(c))
		}
	}
}

// Damaged blocks count as missing: those here, those that are fetched, and those that are wanted.
func TestDamaged(t *testing.T) {
	s := newMemory()
	root := leaves(4, 1000)(t, s)
	shard := func(n *nodes, i int) cid.Cid { sh, _ := n.m.shard(0, i); return sh.CID }
	check := func(t *testing.T, s *memory, c cid.Cid, err error) {
		t.Helper()
		if err == nil {
			_, err = s.Get(t.Context(), c)
		}
		if err != nil {
			t.Error(err)
		}
	}
	t.Run("wanted", func(t *testing.T) {
		n := spread(t, s, root, Params{4, 2})
		n.lose(0)
		back := newMemory()
		back.data[digestOf(shard(n, 0))] = []byte("garbage")
		err := Rebuild(t.Context(), n.m, n.have, n.fetchTo(back), back, []cid.Cid{shard(n, 0)})
		check(t, back, shard(n, 0), err)
	})
	t.Run("fetched", func(t *testing.T) {
		n := spread(t, s, root, Params{4, 2})
		n.lose(0)
		n.columns[1].damage(shard(n, 1))
		back := newMemory()
		err := Rebuild(t.Context(), n.m, n.have, n.fetchTo(back), back, []cid.Cid{shard(n, 0)})
		check(t, back, shard(n, 0), err)
		if back.has(shard(n, 1)) {
			t.Error("a damaged block was kept")
		}
	})
	t.Run("fetched, and none to spare", func(t *testing.T) {
		n := spread(t, s, root, Params{4, 2})
		n.lose(0, 5)
		n.columns[1].damage(shard(n, 1))
		back := newMemory()
		err := Rebuild(t.Context(), n.m, n.have, n.fetchTo(back), back, []cid.Cid{shard(n, 0)})
		if !errors.Is(err, grid.Unavailable) || !strings.Contains(err.Error(), shard(n, 1).String()) || back.has(shard(n, 0)) {
			t.Errorf("Rebuild = %v", err)
		}
	})
	t.Run("here, and fetched again", func(t *testing.T) {
		n := spread(t, s, root, Params{4, 2})
		n.lose(0, 5)
		back := newMemory()
		for i := 1; i < 5; i++ {
			back.data[digestOf(shard(n, i))] = []byte("garbage")
		}
		err := Rebuild(t.Context(), n.m, n.have, n.fetchTo(back), back, []cid.Cid{shard(n, 0), shard(n, 5)})
		check(t, back, shard(n, 0), err)
		check(t, back, shard(n, 5), err)
	})
	t.Run("index", func(t *testing.T) {
		n := spread(t, s, root, Params{4, 2})
		for _, c := range n.columns {
			if c.has(root) {
				c.damage(root)
			}
		}
		back := newMemory()
		err := Rebuild(t.Context(), n.m, n.have, n.fetchTo(back), back, []cid.Cid{root})
		if !errors.Is(err, grid.Unavailable) || !strings.Contains(err.Error(), root.String()) {
			t.Errorf("Rebuild = %v", err)
		}
	})
}

// A manifest that lies about a group gives an error, and nothing wrong is stored.
func TestLyingManifest(t *testing.T) {
	s := newMemory()
	m, err := Encode(t.Context(), s, leaves(4, 1000)(t, s), Params{4, 2})
	if err != nil {
		t.Fatal(err)
	}
	other := grid.NewBlock(cid.Raw, random(99, 1000))
	put(t, s, other)
	for name, lie := range map[string]func(*Manifest){
		"parity is something else":      func(m *Manifest) { m.parity = []digest{digestOf(other.CID()), digestOf(other.CID())} },
		"parity is swapped":             func(m *Manifest) { m.parity[0], m.parity[1] = m.parity[1], m.parity[0] },
		"data are swapped":              func(m *Manifest) { m.data[2], m.data[3] = m.data[3], m.data[2] },
		"a source is shorter":           func(m *Manifest) { m.data[1].size--; m.bytes-- },
		"what is wanted is shorter":     func(m *Manifest) { m.data[0].size--; m.bytes-- },
		"something is longer than all":  func(m *Manifest) { m.data[1].size++; m.bytes++ },
		"what is wanted is another one": func(m *Manifest) { m.data[0].cid = grid.NewBlock(cid.Raw, []byte("other")).CID() },
	} {
		lying := &Manifest{params: m.params, root: m.root, bytes: m.bytes, index: m.index, data: slices.Clone(m.data), parity: slices.Clone(m.parity)}
		lie(lying)
		lying.longest = []uint32{0} // Load finds that out
		if err := lying.encode(func(b grid.Block) error { return s.Put(t.Context(), b) }); err != nil {
			t.Fatal(err)
		}
		lying, err := Load(t.Context(), s.Get, lying.CID())
		if err != nil {
			t.Fatal(err)
		}
		n, back, want := &nodes{m: lying, columns: []*memory{s}}, newMemory(), lying.data[0].cid
		err = Rebuild(t.Context(), lying, func(c cid.Cid) bool { return c != want }, n.fetchTo(back), back, []cid.Cid{want})
		if !errors.Is(err, grid.Corrupt) || !strings.Contains(err.Error(), "group 0") || back.has(want) {
			t.Errorf("%s: Rebuild = %v", name, err)
		}
	}
}

func TestRebuildRefuses(t *testing.T) {
	s := newMemory()
	n := spread(t, s, leaves(4, 1000)(t, s), Params{4, 2})
	stranger := grid.NewBlock(cid.Raw, []byte("stranger")).CID()
	if err := Rebuild(t.Context(), n.m, n.have, n.fetchTo(s), s, []cid.Cid{stranger}); !errors.Is(err, grid.Invalid) {
		t.Errorf("a block of another DAG: %v", err)
	}
	if err := Rebuild(t.Context(), n.m, n.have, n.fetchTo(s), s, []cid.Cid{cid.Undef}); !errors.Is(err, grid.Invalid) {
		t.Errorf("no CID: %v", err)
	}
	if err := Rebuild(t.Context(), n.m, nil, nil, s, n.lose(0, 1, 2, 3, 4, 5)); err != nil {
		t.Errorf("everything is here: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Rebuild(ctx, n.m, nil, nil, s, n.m.Index()); !errors.Is(err, grid.Canceled) {
		t.Errorf("canceled before: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	back := newMemory()
	if err := Rebuild(ctx, n.m, func(c cid.Cid) bool { return c != n.m.data[0].cid }, func(context.Context, []cid.Cid) error {
		cancel()
		return nil
	}, back, cids(n.m.data[:1])); !errors.Is(err, grid.Canceled) {
		t.Errorf("canceled while fetching: %v", err)
	}
	broken := errors.New("the network is down")
	err := Rebuild(t.Context(), n.m, func(c cid.Cid) bool { return c != n.m.data[0].cid }, func(context.Context, []cid.Cid) error {
		return broken
	}, back, cids(n.m.data[:1]))
	if !errors.Is(err, grid.Unavailable) || !errors.Is(err, broken) {
		t.Errorf("fetching fails: %v", err)
	}
}

func TestEncodeRefuses(t *testing.T) {
	s := newMemory()
	root := leaves(4, 1000)(t, s)
	gone := grid.NewBlock(cid.Raw, random(2, 1000)).CID()
	s.Delete(t.Context(), gone)
	for _, tt := range []struct {
		name string
		root cid.Cid
		p    Params
		want grid.Code
	}{
		{"a block is not here", root, Params{4, 2}, grid.NotFound},
		{"the root is not here", gone, Params{4, 2}, grid.NotFound},
		{"no parity", root, Params{4, 0}, grid.Invalid},
		{"no data", root, Params{0, 2}, grid.Invalid},
		{"too many", root, Params{30, 3}, grid.Invalid},
		{"overflow", root, Params{int(^uint(0) >> 1), 1}, grid.Invalid},
		{"no root", cid.Undef, Params{4, 2}, grid.Invalid},
		{"unknown codec", cid.NewCidV1(cid.GitRaw, root.Hash()), Params{4, 2}, grid.Unsupported},
	} {
		if _, err := Encode(t.Context(), s, tt.root, tt.p); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if _, err := Encode(t.Context(), s, root, Params{4, 2}); !strings.Contains(err.Error(), gone.String()) {
		t.Errorf("the missing block %s is not named: %v", gone, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Encode(ctx, s, root, Params{4, 2}); !errors.Is(err, grid.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// A DAG may claim wrong lengths of its leaves. That costs bytes, no more.
func TestFalseClaims(t *testing.T) {
	s := newMemory()
	var links []byte
	for i, claim := range []uint64{5, 0, 1000, 2 << 20, 1 << 50} {
		c := leaf(t, s, random(uint64(i), 100*(i+1)))
		l := append([]byte{0x0a, 36}, c.Bytes()...)
		l = append(l, 0x12, 1, 'a'+byte(i), 0x18)
		for ; claim > 127; claim >>= 7 {
			l = append(l, byte(claim)|128)
		}
		l = append(l, byte(claim))
		links = append(append(links, 0x12, byte(len(l))), l...)
	}
	node := grid.NewBlock(cid.DagProtobuf, append(links, 0x0a, 2, 8, 1))
	put(t, s, node)
	for _, p := range []Params{{2, 2}, {4, 1}} {
		n := spread(t, s, node.CID(), p)
		combinations(p.Columns(), p.M, func(lost []int) {
			n := &nodes{m: n.m, columns: slices.Clone(n.columns)}
			back, want := newMemory(), n.lose(lost...)
			if err := Rebuild(t.Context(), n.m, n.have, n.fetchTo(back), back, want); err != nil {
				t.Errorf("%s without %v: %v", p, lost, err)
			}
		})
		if st := n.m.Stat(); st.Parity.Bytes > uint64(p.M)*st.Data.Bytes || st.Data.Bytes != 1500 {
			t.Errorf("%s: %+v", p, st)
		}
	}
}

// Random DAGs, of which random blocks are lost or damaged wherever they are: whatever has enough left of its
// group comes back, and for the rest there is an error.
func TestRandom(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := newMemory()
		var all []cid.Cid
		for i := range 1 + r.IntN(60) {
			if r.IntN(3) > 0 || len(all) == 0 {
				all = append(all, leaf(t, s, random(r.Uint64N(50), r.IntN(3)*r.IntN(2000))))
				continue
			}
			var links []cid.Cid
			for range r.IntN(6) {
				links = append(links, all[r.IntN(len(all))])
			}
			all = append(all, cborNode(t, s, fmt.Sprint(i), links...))
		}
		p := Params{1 + r.IntN(6), 1 + r.IntN(4)}
		n := spread(t, s, cborNode(t, s, "root", all...), p)
		lost := map[digest]bool{}
		for c := range p.Columns() {
			for sh := range n.m.Shards(c) {
				if (sh.Kind == Data || sh.Kind == Parity) && r.IntN(p.Columns()) < p.M {
					lost[digestOf(sh.CID)] = true
				}
			}
		}
		var want []cid.Cid
		for c := range p.Columns() {
			for sh := range n.m.Shards(c) {
				switch {
				case !lost[digestOf(sh.CID)]:
				case r.IntN(2) == 0:
					n.columns[c].damage(sh.CID)
					want = append(want, sh.CID)
				default:
					n.columns[c].Delete(t.Context(), sh.CID)
					want = append(want, sh.CID)
				}
			}
		}
		back := newMemory()
		err := Rebuild(t.Context(), n.m, n.have, n.fetchTo(back), back, want)
		has := func(sh Shard) bool { return !lost[digestOf(sh.CID)] }
		failed := map[digest]bool{} // no group that has it can give it
		for l := range n.m.Losses(has) {
			for _, sh := range l.Missing {
				if l.Spare < 0 {
					failed[digestOf(sh.CID)] = true
				}
			}
		}
		if err != nil && len(failed) == 0 {
			t.Errorf("seed %d, %s: %v", seed, p, err)
		}
		for _, c := range want {
			if _, err := back.Get(t.Context(), c); err != nil && !failed[digestOf(c)] {
				t.Errorf("seed %d, %s: %v", seed, p, err)
			}
		}
		for d, data := range back.data {
			if b := grid.NewBlock(cid.Raw, data); digestOf(b.CID()) != d && !lost[d] {
				t.Errorf("seed %d: something wrong was stored", seed)
			}
		}
	}
}

// Many rebuild from one manifest into one store at once.
func TestConcurrent(t *testing.T) {
	s := newMemory()
	n := spread(t, s, leaves(3000, 20)(t, s), Params{4, 2}) // several batches of fetching
	var wg sync.WaitGroup
	back := newMemory()
	for i := range 6 {
		wg.Go(func() {
			lost := map[cid.Cid]bool{}
			var want []cid.Cid
			for sh := range n.m.Shards(i) {
				want = append(want, sh.CID)
				lost[sh.CID] = sh.Group >= 0
			}
			have := func(c cid.Cid) bool { return !lost[c] && n.have(c) }
			if err := Rebuild(t.Context(), n.m, have, n.fetchTo(back), back, want); err != nil {
				t.Error(err)
			}
			if _, err := Encode(t.Context(), s, n.m.Root(), Params{4, 2}); err != nil {
				t.Error(err)
			}
			n.m.Health(func(s Shard) bool { return s.Column != i })
		})
	}
	wg.Wait()
}

// Equal DAGs and parameters give equal manifests, however many cores there are.
func TestDeterministic(t *testing.T) {
	want := map[string]string{}
	for range 3 {
		for _, shape := range shapes {
			for _, p := range []Params{{4, 2}, {3, 3}} {
				s := newMemory()
				m, err := Encode(t.Context(), s, shape.make(t, s), p)
				if err != nil {
					t.Fatal(err)
				}
				k := shape.name + p.String()
				if w := want[k]; w != "" && w != m.CID().String() {
					t.Errorf("%s: manifest %s, and %s", k, w, m.CID())
				}
				want[k] = m.CID().String()
			}
		}
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0)%4 + 1)
	}
}

func TestShards(t *testing.T) {
	for _, shape := range shapes {
		for _, p := range []Params{{4, 2}, {1, 3}, {20, 12}} {
			s := newMemory()
			m, err := Encode(t.Context(), s, shape.make(t, s), p)
			if err != nil {
				t.Fatal(err)
			}
			columns := map[int]map[int]bool{} // of groups
			index := map[cid.Cid]int{}
			found := map[digest]bool{}
			var least, most uint64
			for c := range p.Columns() {
				sum := uint64(0)
				for sh := range m.Shards(c) {
					found[digestOf(sh.CID)] = true
					sum += uint64(sh.Size)
					switch {
					case sh.Kind == Index:
						index[sh.CID]++
					case sh.Group >= 0:
						if columns[sh.Group] == nil {
							columns[sh.Group] = map[int]bool{}
						}
						if columns[sh.Group][c] {
							t.Errorf("%s %s: column %d has two blocks of group %d", shape.name, p, c, sh.Group)
						}
						columns[sh.Group][c] = true
					}
				}
				if least = min(least, sum); c == 0 {
					least = sum
				}
				most = max(most, sum)
			}
			for c, n := range index {
				if n != p.M+1 {
					t.Errorf("%s %s: index block %s has %d copies", shape.name, p, c, n)
				}
			}
			for g := range m.Groups() {
				if want := len(m.group(g)) + p.M; len(columns[g]) != want {
					t.Errorf("%s %s: group %d is in %d columns, want %d", shape.name, p, g, len(columns[g]), want)
				}
			}
			for d := range s.data {
				if !found[d] {
					t.Errorf("%s %s: a block is in no column", shape.name, p)
				}
			}
			if m.Groups() > 100 && most > least*12/10 {
				t.Errorf("%s %s: columns keep between %d and %d bytes", shape.name, p, least, most)
			}

			// The overhead is what was promised: M/K, and no more than M blocks beyond.
			st := m.Stat()
			if limit := st.Data.Bytes*uint64(p.M)/uint64(p.K) + uint64(p.M)*uint64(m.longest[0]); st.Parity.Bytes > limit {
				t.Errorf("%s %s: %d bytes of parity for %d of data", shape.name, p, st.Parity.Bytes, st.Data.Bytes)
			}
			if st.Data.Bytes+st.Index.Bytes != m.Bytes() || len(m.Index()) != st.Index.Blocks {
				t.Errorf("%s %s: %+v of %d bytes", shape.name, p, st, m.Bytes())
			}
		}
	}
}

func TestHealth(t *testing.T) {
	s := newMemory()
	root := leaves(10, 1000)(t, s)
	m, err := Encode(t.Context(), s, root, Params{4, 2})
	if err != nil {
		t.Fatal(err)
	}
	alive := func(dead ...int) func(Shard) bool {
		return func(s Shard) bool { return !slices.Contains(dead, s.Column) }
	}
	for _, tt := range []struct {
		dead []int
		want int // spare
		lost int
	}{
		{nil, 2, 0}, {[]int{5}, 1, 0}, {[]int{1, 4}, 0, 0},
		{[]int{3, 4, 5}, -1, 2},                  // group 2 has blocks in columns 2, 3, 0 and 1, the index copies in 0, 1 and 2
		{[]int{0, 1, 2, 3, 4, 5}, -4, 3 + 1 + 3}, // groups, index and the manifest's blocks
	} {
		if h := m.Health(alive(tt.dead...)); h.Spare != tt.want || h.Lost != tt.lost {
			t.Errorf("without %v: %+v, want %d to spare and %d lost", tt.dead, h, tt.want, tt.lost)
		}
	}
	one := m.data[0].cid
	n := 0
	for l := range m.Losses(func(s Shard) bool { return s.CID != one }) {
		n++
		if len(l.Missing) != 1 || l.Missing[0].CID != one || l.Missing[0].Group != 0 || l.Spare != 1 {
			t.Errorf("one block lost: %+v", l)
		}
	}
	if n != 1 {
		t.Errorf("one block lost: %d losses", n)
	}
	for range m.Losses(alive(0)) {
		break
	}
}

func TestParams(t *testing.T) {
	for p, ok := range map[Params]bool{{1, 1}: true, {30, 2}: true, {1, 31}: true, {4, 0}: false, {0, 2}: false, {-1, 2}: false, {31, 2}: false} {
		if err := p.Check(); (err == nil) != ok || !ok && !errors.Is(err, grid.Invalid) {
			t.Errorf("%s: %v", p, err)
		}
	}
	p := Params{4, 2}
	for g := range 20 {
		for i := range 6 {
			if got := p.slot(g, p.Column(g, i)); got != i {
				t.Errorf("slot(%d, Column(%d, %d)) = %d", g, g, i, got)
			}
		}
	}
}
