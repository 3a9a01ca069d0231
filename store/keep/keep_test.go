package keep

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
	"github.com/wasmgrid/wasmgrid/store/block"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a keeper whose roots a test sets.
type world struct {
	*Keeper
	t     testing.TB
	dir   string
	mu    sync.Mutex
	roots map[cid.Cid]int
	duty  Duties
	stop  func()
}

func open(t testing.TB, quota int64, duty Duties) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), roots: map[cid.Cid]int{}, duty: duty}
	index := dssync.MutexWrap(datastore.NewMapDatastore())
	s, err := block.Open(t.Context(), block.Config{Dir: w.dir, Index: index})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if w.Keeper, err = New(Config{Segments: s, Meta: index, Quota: quota}); err != nil {
		t.Fatal(err)
	}
	if w.duty.Roots == nil {
		w.duty.Roots = func(_ context.Context, yield func(cid.Cid)) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			for c := range w.roots {
				yield(c)
			}
			return nil
		}
	}
	w.stop = w.Start(w.duty)
	t.Cleanup(w.stop)
	return w
}

func (w *world) pin(c cid.Cid) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.roots[c]++
}

func (w *world) unpin(c cid.Cid) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.roots[c]--; w.roots[c] == 0 {
		delete(w.roots, c)
	}
}

func leaf(format string, args ...any) grid.Block {
	return grid.NewBlock(cid.Raw, fmt.Appendf(nil, format, args...))
}

// node links to others.
func node(t testing.TB, name string, to ...grid.Block) grid.Block {
	t.Helper()
	var links []grid.Link
	for _, b := range to {
		links = append(links, grid.Link{Cid: b.CID()})
	}
	b, err := grid.EncodeBlock(struct {
		Name  string      `cbor:"name"`
		Links []grid.Link `cbor:"links"`
	}{name, links})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (w *world) put(bs ...grid.Block) {
	w.t.Helper()
	if err := w.Put(w.t.Context(), bs...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) collect(p Plan) grid.Collected {
	w.t.Helper()
	did, err := w.Collect(w.t.Context(), p)
	if err != nil {
		w.t.Fatal(err)
	}
	return did
}

// check looks for blocks without the keeper noticing.
func (w *world) check(want bool, bs ...grid.Block) {
	w.t.Helper()
	for _, b := range bs {
		data, err := w.blocks.Get(w.t.Context(), b.CID())
		switch {
		case want && (err != nil || !bytes.Equal(data, b.Data())):
			w.t.Errorf("block %s (%.30q): %v", b.CID(), b.Data(), err)
		case !want && !errors.Is(err, grid.NotFound):
			w.t.Errorf("block %s (%.30q) is here: %v", b.CID(), b.Data(), err)
		}
	}
}

func TestContract(t *testing.T) {
	gridtest.TestBlocks(t, func(t *testing.T) grid.Blocks { return open(t, 0, Duties{}) })
	t.Run("held", func(t *testing.T) {
		gridtest.TestBlocks(t, func(t *testing.T) grid.Blocks {
			w := open(t, 0, Duties{})
			t.Cleanup(w.HoldUsed())
			return w
		})
	})
}

func TestKeeperContract(t *testing.T) {
	gridtest.TestKeeper(t, func(t *testing.T) gridtest.Kept {
		w := open(t, 0, Duties{})
		return gridtest.Kept{Blocks: w, Keeper: w, Collect: func() error {
			_, err := w.Collect(t.Context(), Plan{})
			return err
		}}
	})
}

func TestCollect(t *testing.T) {
	w := open(t, 0, Duties{})
	a, b, c, d := leaf("a"), leaf("b"), leaf("c"), leaf("d")
	ab, loose := node(t, "ab", a, b), node(t, "loose", c)
	root := node(t, "root", ab, d, leaf("never here"))
	w.put(a, b, c, d, ab, root, loose)
	w.pin(root.CID())
	before := w.used()
	if dry := w.collect(Plan{DryRun: true}); dry.Deleted != 2 || dry.Kept != 5 || dry.Reclaimed != 0 || !dry.DryRun {
		t.Errorf("dry run: %+v", dry)
	}
	w.check(true, a, b, c, d, ab, root, loose)
	did := w.collect(Plan{})
	w.check(true, a, b, d, ab, root)
	w.check(false, c, loose)
	if did.Deleted != 2 || did.Kept != 5 || did.DeletedBytes == 0 || did.KeptBytes == 0 {
		t.Errorf("%+v", did)
	}
	w.unpin(root.CID())
	did = w.collect(Plan{})
	w.check(false, a, b, d, ab, root)
	if did.Deleted != 5 || did.Reclaimed <= 0 || w.used() >= before {
		t.Errorf("%+v; %d bytes left of %d", did, w.used(), before)
	}
	if u, err := w.Use(t.Context()); err != nil || u.Blocks != 0 || u.Live != 0 {
		t.Errorf("%+v, %v", u, err)
	}
}

// TestCodecs: one block may be reached as raw bytes and as a node with links.
func TestCodecs(t *testing.T) {
	w := open(t, 0, Duties{})
	a := leaf("a")
	n := node(t, "n", a)
	asRaw, err := grid.VerifyBlock(cid.NewCidV1(cid.Raw, n.CID().Hash()), n.Data())
	if err != nil {
		t.Fatal(err)
	}
	w.put(a, n)
	w.pin(asRaw.CID())
	w.collect(Plan{})
	w.check(true, n)
	w.check(false, a)
	w.put(a)
	w.pin(node(t, "both", asRaw, n).CID())
	w.put(node(t, "both", asRaw, n))
	w.collect(Plan{})
	w.check(true, n, a)
}

func TestHold(t *testing.T) {
	w := open(t, 0, Duties{})
	old, used, read, seen, again := leaf("old"), leaf("used"), leaf("read"), leaf("seen"), leaf("again")
	below := leaf("below")
	root := node(t, "root", below)
	w.put(old, used, read, seen, again, below, root)
	release := w.Hold(root.CID())
	outer, inner := w.HoldUsed(), w.HoldUsed()
	young := leaf("young")
	w.put(young, again)
	if _, err := w.Get(t.Context(), read.CID()); err != nil {
		t.Fatal(err)
	}
	if ok, err := w.Has(t.Context(), seen.CID()); !ok || err != nil {
		t.Fatal(err)
	}
	for range 2 {
		inner()
		w.collect(Plan{})
		w.check(true, root, below, young, again, read, seen)
		w.check(false, old, used)
	}
	outer()
	w.collect(Plan{})
	w.check(true, root, below)
	w.check(false, young, again, read, seen)
	other := w.Hold(root.CID())
	release()
	release()
	w.collect(Plan{})
	w.check(true, root, below)
	other()
	w.collect(Plan{})
	w.check(false, root, below)
}

// TestHoldDuring adds a hold in the middle of a collection.
func TestHoldDuring(t *testing.T) {
	var w *world
	below := leaf("below")
	root := node(t, "root", below)
	loose := leaf("loose")
	late := leaf("late")
	var release func()
	w = open(t, 0, Duties{Roots: func(ctx context.Context, yield func(cid.Cid)) error {
		if release == nil { // the collection has begun, and marks nothing
			release = w.Hold(root.CID())
			release2 := w.HoldUsed()
			if err := w.Put(ctx, late); err != nil {
				return err
			}
			release2() // as somebody does who has recorded it by now
		}
		return nil
	}})
	w.put(below, root, loose)
	w.collect(Plan{})
	w.check(true, root, below, late)
	w.check(false, loose)
	release()
	w.collect(Plan{})
	w.check(false, root, below, late)
}

func TestRootsFail(t *testing.T) {
	w := open(t, 0, Duties{Roots: func(context.Context, func(cid.Cid)) error { return errors.New("unreadable") }})
	w.put(leaf("a"))
	if did, err := w.Collect(t.Context(), Plan{}); err == nil || did.Deleted != 0 {
		t.Errorf("%+v, %v", did, err)
	}
	w.check(true, leaf("a"))
	w.stop()
	if _, err := w.Collect(t.Context(), Plan{}); !errors.Is(err, grid.Unavailable) {
		t.Errorf("error %v, want Unavailable", err)
	}
}

func big(i int) grid.Block {
	data := make([]byte, 64<<10)
	copy(data, fmt.Sprint("big ", i))
	return grid.NewBlock(cid.Raw, data)
}

// TestQuota fills the store again and again: what is pinned stays, what was used lately rather than the rest.
func TestQuota(t *testing.T) {
	const quota = 8 << 20
	w := open(t, quota, Duties{})
	var pinned []grid.Block
	for i := range 10 {
		b := big(1_000_000 + i)
		pinned = append(pinned, b)
		w.put(b)
		w.pin(b.CID())
	}
	hot := big(2_000_000)
	w.put(hot)
	for i := range 600 {
		w.put(big(i))
		if _, err := w.Get(t.Context(), hot.CID()); err != nil {
			t.Fatalf("after %d: %v", i, err)
		}
		if used := w.used(); used > quota {
			t.Fatalf("after %d: %d bytes", i, used)
		}
		w.check(true, big(i))
	}
	w.check(true, pinned...)
	w.check(false, big(0))

	for i := range 200 { // and now everything is pinned
		w.pin(big(3_000_000 + i).CID())
	}
	var err error
	for i := 0; err == nil && i < 200; i++ {
		err = w.Put(t.Context(), big(3_000_000+i))
	}
	if !errors.Is(err, grid.NoSpace) || grid.AdviceOf(err) == "" || !bytes.Contains([]byte(err.Error()), []byte("quota of 8.0 MiB")) {
		t.Errorf("error %v, advice %q", err, grid.AdviceOf(err))
	}
	w.check(true, pinned...)
	w.put(pinned...) // takes nothing
}

func TestEvictInBackground(t *testing.T) {
	const quota = 4 << 20
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) { // its pauses pass at once
		index := dssync.MutexWrap(datastore.NewMapDatastore())
		s, err := block.Open(t.Context(), block.Config{Dir: dir, Index: index})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for i := range 50 {
			if _, err := s.Add(t.Context(), big(i)); err != nil {
				t.Fatal(err)
			}
		}
		k, err := New(Config{Segments: s, Meta: index, Quota: quota})
		if err != nil {
			t.Fatal(err)
		}
		defer k.Start(Duties{Roots: func(context.Context, func(cid.Cid)) error { return nil }, Background: true})()
		for i := range 9 { // up to above 90%, and below 100%
			if err := k.Put(t.Context(), big(100+i)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if k.used() > quota/100*lowWater {
			t.Errorf("%d bytes are used of %d", k.used(), quota)
		}
		for i := range 9 {
			if ok, err := k.Has(t.Context(), big(100+i).CID()); !ok || err != nil {
				t.Errorf("a block of this process was evicted: %v", err)
			}
		}
	})
}

// TestNeverIdle: where a hold always begins before the last one ends, what was put and used long ago makes way all the same.
func TestNeverIdle(t *testing.T) {
	const quota = 4 << 20
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		index := dssync.MutexWrap(datastore.NewMapDatastore())
		s, err := block.Open(t.Context(), block.Config{Dir: dir, Index: index})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		k, err := New(Config{Segments: s, Meta: index, Quota: quota})
		if err != nil {
			t.Fatal(err)
		}
		defer k.Start(Duties{Roots: func(context.Context, func(cid.Cid)) error { return nil }})()
		last := k.HoldUsed()
		for i := range 200 { // three times the quota
			next := k.HoldUsed()
			if _, err := k.Has(t.Context(), big(i).CID()); err != nil {
				t.Fatal(err)
			}
			if err := k.Put(t.Context(), big(i)); err != nil {
				t.Fatalf("block %d: %v", i, err)
			}
			for old := max(0, i-4); old <= i; old++ {
				if _, err := k.Get(t.Context(), big(old).CID()); err != nil {
					t.Fatalf("block %d, used a moment ago, when block %d was put: %v", old, i, err)
				}
			}
			time.Sleep(300 * time.Millisecond)
			last()
			last = next
		}
		last()
	})
}

func (w *world) flip(text string) {
	w.t.Helper()
	names, err := filepath.Glob(filepath.Join(w.dir, "*.seg"))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			w.t.Fatal(err)
		}
		if i := bytes.Index(data, []byte(text)); i >= 0 {
			data[i] ^= 0x20
			if err := os.WriteFile(name, data, 0o600); err != nil {
				w.t.Fatal(err)
			}
			return
		}
	}
	w.t.Fatalf("nothing holds %q", text)
}

// others is nodes that have some blocks.
type others struct {
	w     *world
	have  map[string]grid.Block
	calls atomic.Int32
}

func (o *others) fetch(ctx context.Context, c cid.Cid) error {
	o.calls.Add(1)
	if has, err := o.w.Has(ctx, c); has || err != nil {
		return err // as exchange does
	}
	b, ok := o.have[string(c.Hash())]
	if !ok {
		return grid.Errorf(grid.NotFound, "nobody has %s", c)
	}
	return o.w.Put(ctx, b)
}

func TestVerify(t *testing.T) {
	o := &others{have: map[string]grid.Block{}}
	w := open(t, 0, Duties{Fetch: o.fetch})
	o.w = w
	good, found, lost := leaf("this is good"), leaf("this is found"), leaf("this is lost")
	root := node(t, "the root", good, found, lost)
	w.put(good, found, lost, root)
	w.pin(root.CID())
	o.have[string(found.CID().Hash())] = found
	o.have[string(root.CID().Hash())] = root
	if v, err := w.Verify(t.Context(), true); err != nil || v.Blocks != 4 || len(v.Damaged) != 0 || o.calls.Load() != 0 {
		t.Errorf("%+v, %v", v, err)
	}
	w.flip("this is found")
	w.flip("this is lost")
	for range 2 {
		if v, err := w.Verify(t.Context(), false); err != nil || len(v.Damaged) != 2 || o.calls.Load() != 0 {
			t.Errorf("%+v, %v", v, err)
		}
	}
	if ok, err := w.Has(t.Context(), lost.CID()); ok || err != nil {
		t.Errorf("Has = %v, %v of a damaged block", ok, err)
	}
	if u, err := w.Use(t.Context()); err != nil || len(u.Damaged) != 2 || u.PinnedBlocks != 4 {
		t.Errorf("%+v, %v", u, err)
	}
	w.flip("the root")
	v, err := w.Verify(t.Context(), true)
	if err != nil || len(v.Damaged) != 3 {
		t.Fatalf("%+v, %v", v, err)
	}
	for _, d := range v.Damaged {
		if isLost := d.CID.Cid == lost.CID(); d.Repaired == isLost || (d.Error != "") != isLost {
			t.Errorf("%+v", d)
		}
	}
	w.check(true, good, found, root)
	if v, err = w.Verify(t.Context(), false); err != nil || len(v.Damaged) != 1 || v.Damaged[0].CID.Cid != lost.CID() {
		t.Errorf("%+v, %v", v, err)
	}
	w.put(lost) // adding it again heals it
	if u, err := w.Use(t.Context()); err != nil || len(u.Damaged) != 0 {
		t.Errorf("%+v, %v", u, err)
	}
}

// TestDamagedNode: while it is unknown what lies below a root, nothing goes.
func TestDamagedNode(t *testing.T) {
	o := &others{have: map[string]grid.Block{}}
	w := open(t, 0, Duties{Fetch: o.fetch})
	o.w = w
	below, loose := leaf("below"), leaf("loose")
	root := node(t, "the root", below)
	w.put(below, loose, root)
	w.pin(root.CID())
	w.flip("the root")
	_, err := w.Collect(t.Context(), Plan{})
	if !errors.Is(err, grid.Corrupt) || grid.AdviceOf(err) == "" {
		t.Errorf("error %v", err)
	}
	w.check(true, below, loose)
	o.have[string(root.CID().Hash())] = root
	w.collect(Plan{})
	w.check(true, below, root)
	w.check(false, loose)
}

// TestScrub: the background finds and heals damage, and goes on where it was when it ends.
func TestScrub(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		index := dssync.MutexWrap(datastore.NewMapDatastore())
		s, err := block.Open(t.Context(), block.Config{Dir: dir, Index: index})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		k, err := New(Config{Segments: s, Meta: index, Quota: 1 << 30})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			if err := k.Put(t.Context(), big(i)); err != nil {
				t.Fatal(err)
			}
		}
		w := &world{t: t, dir: dir, Keeper: k}
		o := &others{w: w, have: map[string]grid.Block{string(big(90).CID().Hash()): big(90)}}
		d := Duties{Roots: func(context.Context, func(cid.Cid)) error { return nil }, Fetch: o.fetch, Background: true}
		w.flip("big 90")
		w.flip("big 95")
		stop := k.Start(d)
		time.Sleep(50 * time.Second) // at 64 KiB/s
		stop()
		if p, _ := k.scrubbed(t.Context()); p.Segment != 1 || p.Offset < 35*64<<10 || p.Offset > 55*64<<10 {
			t.Errorf("it has come to %+v", p)
		}
		stop = k.Start(d)
		time.Sleep(70 * time.Second)
		synctest.Wait()
		if n := o.calls.Load(); n != 2 {
			t.Errorf("%d fetches, want one for each damaged block", n)
		}
		w.check(true, big(90))
		if ok, err := k.Has(t.Context(), big(95).CID()); ok || err != nil {
			t.Errorf("Has = %v, %v", ok, err)
		}
		time.Sleep(6 * 24 * time.Hour)
		synctest.Wait()
		if n := o.calls.Load(); n != 2 {
			t.Errorf("%d fetches within the week", n)
		}
		time.Sleep(2 * 24 * time.Hour)
		synctest.Wait()
		if n := o.calls.Load(); n != 3 { // the lost one is looked for once more
			t.Errorf("%d fetches in the second week", n)
		}
		stop()
	})
}

func TestFilter(t *testing.T) {
	f := new(filter)
	r := rand.New(rand.NewPCG(1, 2))
	for range filterFull / 4 {
		h := r.Uint64()
		if f.add(h); !f.has(h) {
			t.Fatal("an added hash is missing")
		}
	}
	wrong := 0
	for range 10_000 {
		if f.has(r.Uint64()) {
			wrong++
		}
	}
	if wrong > 100 || f.full() {
		t.Errorf("%d of 10000 others; full: %v", wrong, f.full())
	}
	if (*filter)(nil).has(1) {
		t.Error("no filter has something")
	}
	rec := newRecent()
	for i := range uint64(filterFull * 2) {
		rec.add(i<<32 | i)
	}
	if rec.before.Load() == nil || !rec.has(1<<32|1) && !rec.has(filterFull<<32|filterFull) {
		t.Error("the epoch did not change")
	}
}

// TestNotesAge: notes go when the holds that need them are over, whatever others begin meanwhile.
func TestNotesAge(t *testing.T) {
	w := open(t, 0, Duties{})
	fill := func() {
		for i := range filterFull + filterFull/4 {
			w.note(rand.Uint64() | uint64(i)&1)
		}
	}
	first := w.HoldUsed()
	w.use(42)
	fill()
	second := w.HoldUsed() // ages
	if w.older == nil || !w.needed(42) {
		t.Error("a note of a hold that lasts is lost")
	}
	fill()
	third := w.HoldUsed()
	if !w.needed(42) {
		t.Error("a note of a hold that lasts is lost")
	}
	first()
	second()
	if !w.older.has(42) == (w.older == nil) {
		t.Log("aged twice")
	}
	third()
	if w.older != nil {
		t.Error("notes are kept although nothing is held")
	}
	w.collect(Plan{})
	w.HoldUsed()()
	if w.needed(42) {
		t.Error("a note outlived all holds and a collection")
	}
}

// TestModel does random things at once, and checks that nothing pinned or held ever goes, and that in the end
// all else does.
func TestModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w := open(t, 0, Duties{})
	// DAGs share leaves and each other's roots, so that they come and go in parts.
	var dags [][]grid.Block // root last
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range 40 {
		var all, direct []grid.Block
		seen := map[cid.Cid]bool{}
		add := func(b grid.Block) {
			if !seen[b.CID()] {
				seen[b.CID()] = true
				all = append(all, b)
			}
		}
		for range 1 + r.IntN(6) {
			if i > 0 && r.IntN(3) == 0 {
				other := dags[r.IntN(i)]
				for _, b := range other {
					add(b)
				}
				direct = append(direct, other[len(other)-1])
				continue
			}
			b := leaf("leaf %d %s", r.IntN(60), bytes.Repeat([]byte("."), r.IntN(2000)*(i%2)))
			add(b)
			direct = append(direct, b)
		}
		add(node(t, fmt.Sprint("root ", i), direct...))
		dags = append(dags, all)
	}
	whole := func(ctx context.Context, dag []grid.Block, doing string) {
		for _, b := range dag {
			if data, err := w.Get(ctx, b.CID()); err != nil || !bytes.Equal(data, b.Data()) {
				t.Errorf("%s: block %s (%.20q): %v", doing, b.CID(), b.Data(), err)
				return
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg, collecting sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(g+1)))
			var mine []int // pinned
			for range 150 {
				i := r.IntN(len(dags))
				dag := dags[i]
				root := dag[len(dag)-1].CID()
				switch r.IntN(5) {
				case 0, 1: // import, pin, let go
					release := w.HoldUsed()
					for _, b := range dag {
						if r.IntN(3) == 0 { // as a fetch finds it here
							if ok, err := w.Has(ctx, b.CID()); err != nil {
								t.Error(err)
							} else if ok {
								continue
							}
						}
						if err := w.Put(ctx, b); err != nil {
							t.Error(err)
						}
					}
					whole(ctx, dag, "imported")
					w.pin(root)
					release()
					mine = append(mine, i)
				case 2: // garbage
					if err := w.Put(ctx, dag[:1+r.IntN(len(dag))]...); err != nil {
						t.Error(err)
					}
				case 3: // use what may be here
					release := w.Hold(root)
					here := 0
					for ; here < len(dag); here++ {
						if ok, err := w.Has(ctx, dag[here].CID()); err != nil || !ok {
							break
						}
					}
					whole(ctx, dag[:here], "held")
					if here == len(dag) {
						whole(ctx, dag, "held whole")
					}
					release()
				case 4:
					if len(mine) > 3 {
						k := mine[r.IntN(len(mine))]
						whole(ctx, dags[k], "pinned")
						k = mine[0]
						mine = mine[1:]
						w.unpin(dags[k][len(dags[k])-1].CID())
					}
				}
			}
			for _, k := range mine {
				whole(ctx, dags[k], "pinned at the end")
			}
		})
	}
	collections := 0
	collecting.Go(func() {
		for ctx.Err() == nil {
			p := Plan{}
			if collections%3 == 2 {
				p.Goal = max(1, w.used()*3/4)
			}
			if _, err := w.Collect(ctx, p); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
			collections++
		}
	})
	wg.Wait()
	cancel()
	collecting.Wait()
	w.collect(Plan{})
	want := map[string]bool{}
	for c := range w.roots {
		for _, dag := range dags {
			if dag[len(dag)-1].CID() == c {
				for _, b := range dag {
					want[string(b.CID().Hash())] = true
				}
			}
		}
	}
	got := map[string]bool{}
	if err := w.segments.Scan(t.Context(), func(e block.Entry) error { got[e.Key] = true; return nil }); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, want) {
		t.Errorf("%d blocks are here, want %d", len(got), len(want))
	}
	t.Logf("%d collections, %d blocks left", collections, len(got))
}

func BenchmarkPut(b *testing.B) {
	for _, held := range []bool{false, true} {
		b.Run(fmt.Sprintf("held=%v", held), func(b *testing.B) {
			w := open(b, 1<<40, Duties{})
			if held {
				defer w.HoldUsed()()
			}
			data := make([]byte, 1024)
			b.SetBytes(int64(len(data)))
			for i := 0; b.Loop(); i++ {
				copy(data, fmt.Sprint(i))
				if err := w.Put(b.Context(), grid.NewBlock(cid.Raw, data)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	for _, held := range []bool{false, true} {
		b.Run(fmt.Sprintf("held=%v", held), func(b *testing.B) {
			w := open(b, 1<<40, Duties{})
			if held {
				defer w.HoldUsed()()
			}
			var cids []cid.Cid
			for i := range 100 {
				blk := leaf("block %d", i)
				w.put(blk)
				cids = append(cids, blk.CID())
			}
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if _, err := w.Get(b.Context(), cids[i%100]); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

func BenchmarkHold(b *testing.B) {
	w := open(b, 1<<40, Duties{})
	root := leaf("root").CID()
	for b.Loop() {
		w.Hold(root)()
	}
}
