package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"

	"github.com/wasmgrid/wasmgrid/grid"
)

// crashIndex is an index that a crash sets back to what it was when it was last synced.
type crashIndex struct {
	datastore.Batching
	synced map[datastore.Key][]byte
}

func newCrashIndex() *crashIndex { return &crashIndex{memory(), map[datastore.Key][]byte{}} }

func (x *crashIndex) all(ctx context.Context) map[datastore.Key][]byte {
	res, err := x.Batching.Query(ctx, query.Query{})
	if err != nil {
		panic(err)
	}
	now := map[datastore.Key][]byte{}
	for r := range res.Next() {
		now[datastore.RawKey(r.Key)] = r.Value
	}
	return now
}

func (x *crashIndex) Sync(ctx context.Context, _ datastore.Key) error {
	x.synced = x.all(ctx)
	return nil
}

func (x *crashIndex) crash(ctx context.Context) {
	for k := range x.all(ctx) {
		x.Delete(ctx, k)
	}
	for k, v := range x.synced {
		x.Put(ctx, k, v)
	}
}

func entryOf(t *testing.T, s *Segments, b grid.Block) Entry {
	t.Helper()
	l, err := s.locate(t.Context(), string(b.CID().Hash()))
	if err != nil {
		t.Fatal(err)
	}
	return Entry{string(b.CID().Hash()), Position{l.segment, int64(l.offset)}, int(l.length)}
}

func compactAll(t testing.TB, s *Segments, lost func(string)) error {
	t.Helper()
	usage, err := s.Usage(t.Context(), nil)
	if err != nil {
		return err
	}
	var ns []uint32
	for _, u := range usage {
		ns = append(ns, u.Segment)
	}
	_, err = s.Compact(t.Context(), ns, lost)
	return err
}

func TestCompact(t *testing.T) {
	for _, size := range []int64{0, 500} {
		dir, index := t.TempDir(), memory()
		s := openTest(t, Config{Dir: dir, Index: index, size: size})
		b := New(s)
		put(t, b, numbered(0, 100)...)
		var gone []Entry
		for i, blk := range numbered(0, 100) {
			if i%3 != 0 {
				gone = append(gone, entryOf(t, s, blk))
			}
		}
		deleted, err := s.DeleteAt(t.Context(), gone)
		if err != nil || len(deleted) != len(gone) {
			t.Fatalf("deleted %d of %d: %v", len(deleted), len(gone), err)
		}
		if again, err := s.DeleteAt(t.Context(), gone); err != nil || len(again) != 0 {
			t.Errorf("deleted %d a second time: %v", len(again), err)
		}
		for range 2 {
			if err := compactAll(t, s, nil); err != nil {
				t.Fatal(err)
			}
		}
		var want int64
		for i, blk := range numbered(0, 100) {
			check(t, b, i%3 == 0, blk)
			if i%3 == 0 {
				want += entryOf(t, s, blk).Size()
			}
		}
		var on int64
		names, _ := filepath.Glob(filepath.Join(dir, "*.seg"))
		for _, n := range names {
			info, err := os.Stat(n)
			if err != nil {
				t.Fatal(err)
			}
			on += info.Size()
		}
		if used, _ := s.DiskUsage(t.Context()); int64(used) != on || on > want+int64(len(names))*8 {
			t.Errorf("%d bytes are said to be used, %d are, %d live", used, on, want)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openTest(t, Config{Dir: dir, Index: index, size: size})
		for i, blk := range numbered(0, 100) {
			check(t, New(s), i%3 == 0, blk)
		}
		// The log alone is enough, too.
		s.Close()
		s = openTest(t, Config{Dir: dir, Index: memory(), size: size})
		for i, blk := range numbered(0, 100) {
			if i%3 == 0 {
				check(t, New(s), true, blk)
			}
		}
	}
}

// TestCompactCrash stops compaction at each of its steps, with the index as of its last sync or as it is, and
// goes on with what is on disk.
func TestCompactCrash(t *testing.T) {
	errStop := errors.New("stop")
	for _, rollback := range []bool{false, true} {
		for stop, ended := 0, false; !ended; stop++ {
			dir, index := t.TempDir(), newCrashIndex()
			cfg := Config{Dir: dir, Index: index, size: 700}
			n, at := 0, ""
			cfg.step = func(name string) error {
				if at = name; n == stop {
					return errStop
				}
				n++
				return nil
			}
			s := openTest(t, cfg)
			put(t, New(s), numbered(0, 40)...)
			var gone []Entry
			for i, blk := range numbered(0, 40) {
				if i%2 == 1 {
					gone = append(gone, entryOf(t, s, blk))
				}
			}
			if err := s.Sync(t.Context(), datastore.NewKey("/")); err != nil {
				t.Fatal(err)
			}
			if _, err := s.DeleteAt(t.Context(), gone); err != nil {
				t.Fatal(err)
			}
			err := compactAll(t, s, nil)
			if ended = err == nil; err != nil && !errors.Is(err, errStop) {
				t.Fatal(err)
			}
			s.closeFiles() // the crash: no Close
			if rollback {
				index.crash(t.Context())
			}
			cfg.step = nil
			s = openTest(t, cfg)
			for i, blk := range numbered(0, 40) {
				if i%2 == 0 {
					check(t, New(s), true, blk)
				}
			}
			if err := compactAll(t, s, func(string) { t.Errorf("stopped at %q (%d): something is lost", at, stop) }); err != nil {
				t.Errorf("stopped at %q (%d): %v", at, stop, err)
			}
			put(t, New(s), numbered(40, 50)...)
			for i, blk := range numbered(0, 50) {
				if i%2 == 0 || i >= 40 {
					check(t, New(s), true, blk)
				}
			}
			if res, err := s.Scrub(t.Context(), Scrub{Damaged: func(e Entry) { t.Errorf("damaged: %+v", e) }}); err != nil || res.Blocks < 30 {
				t.Errorf("scrub: %+v, %v", res, err)
			}
			s.Close()
		}
	}
}

// TestCompactBeside compacts while others read, put and delete.
func TestCompactBeside(t *testing.T) {
	s := openTest(t, Config{Dir: t.TempDir(), Index: memory(), size: 4000})
	b := New(s)
	put(t, b, numbered(0, 200)...)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(w)))
			for ctx.Err() == nil {
				blk := raw("block %d", r.IntN(200))
				if data, err := b.Get(t.Context(), blk.CID()); err != nil || !bytes.Equal(data, blk.Data()) {
					t.Errorf("block %q: %v", blk.Data(), err)
					return
				}
			}
		})
	}
	passing := make(chan int, 100) // no more in a round, or they would have ever more segments compacted where a disk is slow
	wg.Go(func() {
		for i := range passing {
			blk := raw("passing %d", i%50)
			if err := b.Put(t.Context(), blk); err != nil {
				t.Error(err)
				return
			}
			if err := b.Delete(t.Context(), blk.CID()); err != nil {
				t.Error(err)
				return
			}
			if ok, err := b.Has(t.Context(), blk.CID()); ok || err != nil {
				t.Errorf("deleted, and here again: %v", err)
				return
			}
		}
	})
	for range 12 {
		for i := range cap(passing) - len(passing) {
			passing <- i
		}
		if err := compactAll(t, s, func(string) { t.Error("something is lost") }); err != nil {
			t.Error(err)
			break
		}
	}
	cancel()
	close(passing)
	wg.Wait()
	check(t, b, true, numbered(0, 200)...)
}

func flip(t *testing.T, name, text string, by int) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(data, []byte(text))
	if i < 0 {
		t.Fatalf("%s does not hold %q", name, text)
	}
	data[i+by] ^= 0x40
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCompactDamaged(t *testing.T) {
	s := openTest(t, Config{Dir: t.TempDir(), Index: memory()})
	put(t, New(s), raw("the value is hit"), raw("the header is hit"), raw("this stays"))
	flip(t, s.path(1), "the value is hit", 3)
	flip(t, s.path(1), string(raw("the header is hit").CID().Hash()), -3) // its length
	var lost []string
	if err := compactAll(t, s, func(key string) { lost = append(lost, key) }); err != nil {
		t.Fatal(err)
	}
	if len(lost) != 1 || lost[0] != string(raw("the value is hit").CID().Hash()) {
		t.Errorf("lost %d: %x", len(lost), lost)
	}
	check(t, New(s), true, raw("this stays"), raw("the header is hit"))
	check(t, New(s), false, raw("the value is hit"))
}

// TestCompactFullDisk: what cannot be moved stays where it is, and all goes on once there is room.
func TestCompactFullDisk(t *testing.T) {
	disk := &fullDisk{space: 1 << 20}
	s := openTest(t, Config{Dir: t.TempDir(), Index: memory(), size: 700, open: func(name string) (file, error) {
		f, err := openDisk(name)
		return brokenFile{f, disk}, err
	}})
	put(t, New(s), numbered(0, 40)...)
	for space := range 20 {
		disk.space = space * 21
		if err := compactAll(t, s, nil); !errors.Is(err, grid.NoSpace) {
			t.Fatalf("with %d bytes: %v", disk.space, err)
		}
		check(t, New(s), true, numbered(0, 40)...)
	}
	disk.space = 1 << 20
	if err := compactAll(t, s, nil); err != nil {
		t.Fatal(err)
	}
	check(t, New(s), true, numbered(0, 40)...)
}

// TestCompactFailedSync: a segment whose values did not reach the disk elsewhere is not removed.
func TestCompactFailedSync(t *testing.T) {
	disk := &fullDisk{space: 1 << 20}
	s := openBroken(t, disk)
	put(t, New(s), numbered(0, 40)...)
	if err := s.Sync(t.Context(), datastore.NewKey("/")); err != nil {
		t.Fatal(err)
	}
	s.step = func(name string) error {
		if name == "moved" {
			disk.sync = syscall.EIO
		}
		return nil
	}
	if err := compactAll(t, s, nil); !errors.Is(err, syscall.EIO) {
		t.Errorf("Compact = %v, want EIO", err)
	}
	if _, err := os.Stat(s.path(1)); err != nil {
		t.Error(err)
	}
	check(t, New(s), true, numbered(0, 40)...)
}

func TestScrub(t *testing.T) {
	s := openTest(t, Config{Dir: t.TempDir(), Index: memory(), size: 2000})
	put(t, New(s), numbered(0, 300)...)
	for _, i := range []int{120, 250} {
		e := entryOf(t, s, raw("block %d", i))
		flip(t, s.path(e.At.Segment), fmt.Sprintf("block %d", i), 2)
	}
	if err := os.Truncate(s.path(entryOf(t, s, raw("block 0")).At.Segment), 20); err != nil {
		t.Fatal(err)
	}
	cut := entryOf(t, s, raw("block 0")).At.Segment
	want := map[string]bool{string(raw("block 120").CID().Hash()): true, string(raw("block 250").CID().Hash()): true}
	for i := range 300 {
		if e := entryOf(t, s, raw("block %d", i)); e.At.Segment == cut {
			want[e.Key] = true
		}
	}
	// In pieces: each goes on where the one before was stopped.
	errStop := errors.New("stop")
	from, blocks, pieces := Position{}, 0, 0
	found := map[string]bool{}
	for {
		n := 0
		res, err := s.Scrub(t.Context(), Scrub{From: from, Damaged: func(e Entry) { found[e.Key] = true }, Passed: func(p Position) error {
			from = p
			if n++; n == 70 {
				return errStop
			}
			return nil
		}})
		pieces++
		blocks += res.Blocks
		if err == nil {
			break
		}
		if !errors.Is(err, errStop) {
			t.Fatal(err)
		}
	}
	if !maps.Equal(found, want) || blocks != 300 || pieces != 5 {
		t.Errorf("%d damaged, want %d; %d blocks in %d pieces", len(found), len(want), blocks, pieces)
	}
	put(t, New(s), numbered(0, 300)...) // heals
	if res, err := s.Scrub(t.Context(), Scrub{Damaged: func(e Entry) { t.Errorf("damaged: %+v", e) }}); err != nil || res.Blocks != 300 {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestScrubRate(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(t.Context(), Config{Dir: dir, Index: memory()})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		put(t, New(s), randomBlocks(64, 16<<10)...)
		began := time.Now()
		res, err := s.Scrub(t.Context(), Scrub{Rate: 64 << 10, Damaged: func(Entry) {}})
		if took := time.Since(began); err != nil || res.Bytes != 1<<20 || took < 15*time.Second || took > 17*time.Second {
			t.Errorf("%+v in %v, %v", res, took, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Scrub(ctx, Scrub{Rate: 1000, Damaged: func(Entry) {}}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
}

func TestAdd(t *testing.T) {
	s := openTest(t, Config{Dir: t.TempDir(), Index: memory()})
	if here, err := s.Add(t.Context(), numbered(0, 10)...); err != nil || len(here) != 0 {
		t.Errorf("here %v, %v", here, err)
	}
	flip(t, s.path(1), "block 5", 0)
	here, err := s.Add(t.Context(), numbered(3, 12)...)
	if want := []int{0, 1, 3, 4, 5, 6}; err != nil || !slices.Equal(here, want) {
		t.Errorf("here %v, want %v, %v", here, want, err)
	}
	check(t, New(s), true, numbered(0, 12)...)
	if _, err := s.Add(t.Context(), grid.Block{}); err == nil {
		t.Error("an empty block was added")
	}
}

func TestGroups(t *testing.T) {
	got := groups([]Usage{{Segment: 1, Blocks: groupMax - 1}, {Segment: 2, Blocks: 1}, {Segment: 3, Blocks: 2 * groupMax}, {Segment: 4}, {Segment: 5, Blocks: 1}})
	var b strings.Builder
	for _, g := range got {
		for _, u := range g {
			fmt.Fprint(&b, u.Segment)
		}
		b.WriteByte(' ')
	}
	if b.String() != "12 3 45 " && b.String() != "12 34 5 " {
		t.Errorf("groups %q", b.String())
	}
}

// BenchmarkAddAgain is putting blocks that are here.
func BenchmarkAddAgain(b *testing.B) {
	for _, size := range []int{10 << 10, 1 << 20} {
		bs := randomBlocks(128<<20/size, size)
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			s := openTest(b, Config{Dir: b.TempDir(), Index: memory()})
			b.SetBytes(128 << 20)
			if err := New(s).Put(b.Context(), bs...); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				for i := 0; i < len(bs); i += 8 {
					if err := New(s).Put(b.Context(), bs[i:min(i+8, len(bs))]...); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkCompact moves half of what there is.
func BenchmarkCompact(b *testing.B) {
	for _, size := range []int{10 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			bs := randomBlocks(128<<20/size, size)
			b.SetBytes(64 << 20) // moved
			for b.Loop() {
				b.StopTimer()
				s := openTest(b, Config{Dir: b.TempDir(), Index: memory()})
				if err := New(s).Put(b.Context(), bs...); err != nil {
					b.Fatal(err)
				}
				for i := 0; i < len(bs); i += 2 {
					if err := New(s).Delete(b.Context(), bs[i].CID()); err != nil {
						b.Fatal(err)
					}
				}
				if err := New(s).Sync(b.Context()); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if err := compactAll(b, s, nil); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				s.Close()
				os.RemoveAll(s.dir)
				b.StartTimer()
			}
		})
	}
}
