package block

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	dssync "github.com/ipfs/go-datastore/sync"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
)

func memory() datastore.Batching { return dssync.MutexWrap(datastore.NewMapDatastore()) }

func openTest(t testing.TB, cfg Config) *Segments {
	t.Helper()
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestContract(t *testing.T) {
	t.Run("segments", func(t *testing.T) {
		gridtest.TestBlocks(t, func(t *testing.T) grid.Blocks {
			return New(openTest(t, Config{Dir: t.TempDir(), Index: memory()}))
		})
	})
	t.Run("small segments", func(t *testing.T) {
		gridtest.TestBlocks(t, func(t *testing.T) grid.Blocks {
			return New(openTest(t, Config{Dir: t.TempDir(), Index: memory(), size: 1000}))
		})
	})
	t.Run("any datastore", func(t *testing.T) {
		gridtest.TestBlocks(t, func(t *testing.T) grid.Blocks { return New(ctxStore{memory()}) })
	})
}

// ctxStore makes a map heed its context and copy its values, as the contract asks.
type ctxStore struct{ datastore.Batching }

func (s ctxStore) Put(ctx context.Context, k datastore.Key, v []byte) error {
	return errors.Join(ctx.Err(), s.Batching.Put(ctx, k, bytes.Clone(v)))
}

func (s ctxStore) Batch(ctx context.Context) (datastore.Batch, error) {
	return datastore.NewBasicBatch(s), nil
}

func raw(format string, args ...any) grid.Block {
	return grid.NewBlock(cid.Raw, fmt.Appendf(nil, format, args...))
}

// check reports whether each block is here as want says.
func check(t *testing.T, s grid.Blocks, want bool, blocks ...grid.Block) {
	t.Helper()
	for _, b := range blocks {
		data, err := s.Get(t.Context(), b.CID())
		switch {
		case want && (err != nil || !bytes.Equal(data, b.Data())):
			t.Errorf("block %q: %v", b.Data(), err)
		case !want && !errors.Is(err, grid.NotFound):
			t.Errorf("block %q: error %v, want NotFound", b.Data(), err)
		}
	}
}

func numbered(from, to int) (bs []grid.Block) {
	for i := from; i < to; i++ {
		bs = append(bs, raw("block %d", i))
	}
	return bs
}

func put(t *testing.T, s grid.Blocks, bs ...grid.Block) {
	t.Helper()
	for _, b := range bs {
		if err := s.Put(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRecover opens segments after various harm, as a crash or a bad disk does it.
func TestRecover(t *testing.T) {
	last := func(t *testing.T, dir string) string {
		t.Helper()
		names, err := filepath.Glob(filepath.Join(dir, "*.seg"))
		if err != nil || len(names) == 0 {
			t.Fatal("no segments", err)
		}
		return names[len(names)-1]
	}
	change := func(t *testing.T, name string, f func([]byte) []byte) {
		t.Helper()
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, f(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	record := int64(len(appendHeader(nil, 1, string(raw("block 10").CID().Hash()), nil)) + len("block 10"))

	// 0 to 9 are synced, 10 to 19 only written, when the process dies.
	for _, tt := range []struct {
		name string
		size int64 // of segments
		harm func(t *testing.T, dir string, index datastore.Batching)
		lost []int
	}{
		{name: "nothing", harm: func(*testing.T, string, datastore.Batching) {}},
		{name: "nothing, small segments", size: 200, harm: func(*testing.T, string, datastore.Batching) {}},
		{name: "torn tail", lost: []int{19}, harm: func(t *testing.T, dir string, _ datastore.Batching) {
			change(t, last(t, dir), func(b []byte) []byte { return b[:len(b)-1] })
		}},
		{name: "torn header", lost: []int{19}, harm: func(t *testing.T, dir string, _ datastore.Batching) {
			change(t, last(t, dir), func(b []byte) []byte { return b[:int64(len(b))-record+3] })
		}},
		{name: "zeros at the end", harm: func(t *testing.T, dir string, _ datastore.Batching) {
			change(t, last(t, dir), func(b []byte) []byte { return append(b, make([]byte, 5000)...) })
		}},
		{name: "flipped bit in the middle", lost: []int{14}, harm: func(t *testing.T, dir string, _ datastore.Batching) {
			change(t, last(t, dir), func(b []byte) []byte { b[int64(len(b))-5*record-1] ^= 1; return b })
		}},
		{name: "flipped bit at the end", lost: []int{18, 19}, harm: func(t *testing.T, dir string, _ datastore.Batching) {
			change(t, last(t, dir), func(b []byte) []byte {
				b[int64(len(b))-record-1] ^= 1
				b[len(b)-1] ^= 1
				return b
			})
		}},
		{name: "index lost", harm: func(t *testing.T, dir string, index datastore.Batching) {
			all, err := index.Query(t.Context(), query.Query{KeysOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			for e := range all.Next() {
				index.Delete(t.Context(), datastore.RawKey(e.Key))
			}
		}},
		{name: "index entries lost", harm: func(t *testing.T, dir string, index datastore.Batching) {
			index.Delete(t.Context(), endKey)
			index.Delete(t.Context(), indexKey(string(raw("block 3").CID().Hash())))
		}},
		{name: "index cut short", harm: func(t *testing.T, dir string, index datastore.Batching) {
			index.Put(t.Context(), endKey, []byte{0, 0, 1})
		}},
		{name: "segment gone", lost: []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19},
			harm: func(t *testing.T, dir string, _ datastore.Batching) { os.Remove(last(t, dir)) }},
		{name: "segment emptied", lost: []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19},
			harm: func(t *testing.T, dir string, _ datastore.Batching) {
				change(t, last(t, dir), func([]byte) []byte { return nil })
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, index := t.TempDir(), memory()
			s := openTest(t, Config{Dir: dir, Index: index, size: tt.size})
			put(t, New(s), numbered(0, 10)...)
			put(t, New(s), raw("deleted"))
			if err := s.Sync(t.Context(), datastore.NewKey("/")); err != nil {
				t.Fatal(err)
			}
			put(t, New(s), numbered(10, 11)...)
			if err := New(s).Delete(t.Context(), raw("deleted").CID()); err != nil {
				t.Fatal(err)
			}
			put(t, New(s), numbered(11, 20)...)
			s.closeFiles() // the crash: no Close
			tt.harm(t, dir, index)

			for round := range 2 { // the second time after an orderly Close
				s = openTest(t, Config{Dir: dir, Index: index, size: tt.size})
				b := New(s)
				lost := map[int]bool{}
				for _, i := range tt.lost {
					lost[i] = true
				}
				for i, blk := range numbered(0, 20) {
					data, err := b.Get(t.Context(), blk.CID())
					if lost[i] {
						if round == 0 && err == nil {
							t.Errorf("block %d is here, should be lost", i)
						}
						if err := b.Delete(t.Context(), blk.CID()); err != nil { // heals
							t.Fatal(err)
						}
						put(t, b, blk)
					} else if err != nil || !bytes.Equal(data, blk.Data()) {
						t.Errorf("block %d: %v", i, err)
					}
				}
				if len(lost) < 20 { // else its tombstone is lost too
					check(t, b, false, raw("deleted"))
				}
				put(t, b, numbered(20, 30)...)
				check(t, b, true, numbered(0, 30)...)
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if len(tt.lost) == 20 {
					return
				}
				tt.lost = nil
			}
		})
	}
}

func TestCorruptValue(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, Config{Dir: dir, Index: memory()})
	b := New(s)
	put(t, b, numbered(0, 3)...)
	name := s.path(1)
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data[bytes.Index(data, []byte("block 1"))] ^= 0x80
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = b.Get(t.Context(), raw("block 1").CID())
	if !errors.Is(err, grid.Corrupt) || grid.AdviceOf(err) == "" {
		t.Errorf("error %v with advice %q, want Corrupt with some", err, grid.AdviceOf(err))
	}
	check(t, b, true, raw("block 0"), raw("block 2"))

	put(t, b, raw("block 1")) // the advice
	check(t, b, true, numbered(0, 3)...)
}

// brokenFile fails writes once its allowance is used up, as a full disk does: after a part of them.
type brokenFile struct {
	file
	disk *fullDisk
}

type fullDisk struct {
	mu      sync.Mutex
	space   int
	sync    error
	begin   error         // of start
	started []int64       // offsets and ends that start was told
	fsync   chan struct{} // when not nil, fsyncs wait for it
	waiting chan struct{} // told of each that waits
}

func (f brokenFile) WriteAt(p []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	n := min(len(p), f.disk.space)
	f.disk.space -= n
	if _, err := f.file.WriteAt(p[:n], off); err != nil {
		return 0, err
	}
	if n < len(p) {
		return n, &os.PathError{Op: "write", Path: "segment", Err: syscall.ENOSPC}
	}
	return n, nil
}

func (f brokenFile) start(offset, length int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.disk.started = append(f.disk.started, offset, offset+length)
	return errors.Join(f.disk.begin, f.file.start(offset, length))
}

func (f brokenFile) Sync() error {
	if f.disk.fsync != nil {
		f.disk.waiting <- struct{}{}
		<-f.disk.fsync
	}
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	return errors.Join(f.disk.sync, f.file.Sync())
}

func TestFullDisk(t *testing.T) {
	for _, size := range []int64{0, 300} {
		dir, index, disk := t.TempDir(), memory(), &fullDisk{space: 1 << 20}
		cfg := Config{Dir: dir, Index: index, size: size, open: func(name string) (file, error) {
			f, err := openDisk(name)
			return brokenFile{f, disk}, err
		}}
		s := openTest(t, cfg)
		b := New(s)
		put(t, b, numbered(0, 5)...)
		for space := range 359 { // what the 7 records take, without any header
			disk.space = space
			err := b.Put(t.Context(), numbered(5, 12)...)
			if err == nil {
				t.Fatalf("7 blocks fit %d bytes", space)
			}
			if !errors.Is(err, grid.NoSpace) || grid.AdviceOf(err) == "" || !bytes.Contains([]byte(err.Error()), []byte(dir)) {
				t.Fatalf("error %v, advice %q", err, grid.AdviceOf(err))
			}
			check(t, b, true, numbered(0, 5)...)
			check(t, b, false, numbered(5, 12)...)
		}
		disk.space = 1 << 20
		put(t, b, numbered(5, 12)...)
		s.closeFiles()
		s = openTest(t, cfg)
		check(t, New(s), true, numbered(0, 12)...)
		s.Close()
	}
}

func TestFailedSync(t *testing.T) {
	disk := &fullDisk{space: 1 << 20}
	b := New(openBroken(t, disk))
	put(t, b, numbered(0, 5)...)
	disk.sync = syscall.EIO
	if err := b.Sync(t.Context()); !errors.Is(err, syscall.EIO) {
		t.Errorf("Sync = %v, want EIO", err)
	}
	disk.sync = nil
	if err := b.Sync(t.Context()); err == nil {
		t.Error("Sync succeeded after one that failed")
	}
	if err := b.Put(t.Context(), raw("more")); err == nil {
		t.Error("Put succeeded after a failed Sync")
	}
	check(t, b, true, numbered(0, 5)...)
}

func openBroken(t testing.TB, disk *fullDisk) *Segments {
	return openTest(t, Config{Dir: t.TempDir(), Index: memory(), open: func(name string) (file, error) {
		f, err := openDisk(name)
		return brokenFile{f, disk}, err
	}})
}

// TestEarlyStart checks that the disk is told of all that is written, each byte once, long before an fsync.
func TestEarlyStart(t *testing.T) {
	disk := &fullDisk{space: 1 << 30}
	b := New(openBroken(t, disk))
	put(t, b, randomBlocks(20, 1<<20)...)
	at := int64(0)
	for i := 0; i < len(disk.started); i += 2 {
		if disk.started[i] != at || disk.started[i+1] < at+startEvery {
			t.Errorf("started %v: the ranges should follow each other, each at least %d long", disk.started, startEvery)
		}
		at = disk.started[i+1]
	}
	if at < 20<<20-startEvery {
		t.Errorf("%d of more than 20 MiB started", at)
	}
}

// TestFailedStart checks that a write that fails in the background is no less fatal than a failed fsync.
func TestFailedStart(t *testing.T) {
	disk := &fullDisk{space: 1 << 30, begin: syscall.EIO}
	b := New(openBroken(t, disk))
	var err error
	for _, blk := range randomBlocks(6, 1<<20) {
		if err = b.Put(t.Context(), blk); err != nil {
			break
		}
	}
	if !errors.Is(err, syscall.EIO) || grid.AdviceOf(err) == "" {
		t.Errorf("Put = %v, want EIO with advice", err)
	}
	disk.begin = nil
	if err := b.Sync(t.Context()); !errors.Is(err, syscall.EIO) {
		t.Errorf("Sync = %v, want EIO", err)
	}
	if err := b.Put(t.Context(), raw("more")); err == nil {
		t.Error("Put succeeded after a write that failed")
	}
}

// TestFailedSyncOfMany checks that a Sync that waits for another's fsync fails with it, though the next fsync
// would succeed.
func TestFailedSyncOfMany(t *testing.T) {
	disk := &fullDisk{space: 1 << 20, sync: syscall.EIO, fsync: make(chan struct{}), waiting: make(chan struct{}, 1)}
	s := openBroken(t, disk)
	b := New(s)
	put(t, b, numbered(0, 5)...)
	errs := make(chan error, 2)
	go func() { errs <- b.Sync(t.Context()) }()
	<-disk.waiting
	put(t, b, numbered(5, 10)...)
	s.mu.RLock()
	goal := s.end
	s.mu.RUnlock()
	go func() { // what Sync does once it has found the store usable
		s.syncing.Lock()
		defer s.syncing.Unlock()
		errs <- s.flush(context.Background(), goal)
	}()
	close(disk.fsync)
	for range 2 {
		if err := <-errs; !errors.Is(err, syscall.EIO) {
			t.Errorf("Sync = %v, want EIO", err)
		}
		disk.mu.Lock()
		disk.sync = nil
		disk.mu.Unlock()
	}
}

func TestStoredOnce(t *testing.T) {
	s := openTest(t, Config{Dir: t.TempDir(), Index: memory()})
	b := New(s)
	var first uint64
	for i := range 4 {
		put(t, b, numbered(0, 10)...)
		if err := b.Put(t.Context(), append(numbered(0, 10), numbered(0, 10)...)...); err != nil {
			t.Fatal(err)
		}
		n, err := s.DiskUsage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = n
		} else if n != first {
			t.Errorf("round %d: %d bytes, want %d", i, n, first)
		}
		if err := b.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestQuery(t *testing.T) {
	s := openTest(t, Config{Dir: t.TempDir(), Index: memory()})
	put(t, New(s), numbered(0, 10)...)
	if err := New(s).Delete(t.Context(), raw("block 4").CID()); err != nil {
		t.Fatal(err)
	}
	res, err := s.Query(t.Context(), query.Query{Orders: []query.Order{query.OrderByKey{}}, Limit: 8, Offset: 1})
	if err != nil {
		t.Fatal(err)
	}
	all, err := res.Rest()
	if err != nil || len(all) != 8 {
		t.Fatalf("%d entries, %v; want 8", len(all), err)
	}
	for _, e := range all {
		if e.Size != 7 || encodeKey(raw("%s", e.Value).CID().Hash()).String() != e.Key {
			t.Errorf("entry %q = %q, size %d", e.Key, e.Value, e.Size)
		}
	}
}

// TestFormat pins the format on disk, as package documentation tells it.
func TestFormat(t *testing.T) {
	s := openTest(t, Config{Dir: t.TempDir(), Index: memory()})
	b := raw("hello")
	put(t, New(s), b)
	if err := New(s).Delete(t.Context(), b.CID()); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(s.dir, "00000001.seg"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("hello"))
	key := append([]byte{0x12, 0x20}, sum[:]...)
	rec := func(kind byte, value string) []byte {
		body := binary.LittleEndian.AppendUint32(nil, uint32(len(value)))
		body = append(append(append(body, kind, 34), key...), value...)
		return append(binary.LittleEndian.AppendUint32(nil, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli))), body...)
	}
	want := append(append([]byte("gridseg\x01"), rec(1, "hello")...), rec(2, "")...)
	if !bytes.Equal(got, want) {
		t.Errorf("segment is\n%x, want\n%x", got, want)
	}
}

// FuzzRecover opens arbitrary bytes as a segment: whatever they are, the store works afterwards and
// gives no wrong block; or they are as a newer version would have written them, and are left alone.
func FuzzRecover(f *testing.F) {
	hello := raw("hello")
	good := append(appendHeader([]byte(fileHeader), kindValue, string(hello.CID().Hash()), hello.Data()), hello.Data()...)
	f.Add(good)
	f.Add(good[:len(good)-2])
	f.Add(appendHeader(good, kindTombstone, string(hello.CID().Hash()), nil))
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, 100))
	f.Add([]byte("gridseg00"))
	f.Fuzz(func(t *testing.T, segment []byte) {
		dir := t.TempDir()
		file := filepath.Join(dir, "00000001.seg")
		if err := os.WriteFile(file, segment, 0o600); err != nil {
			t.Fatal(err)
		}
		index := memory()
		for range 2 {
			s, err := Open(t.Context(), Config{Dir: dir, Index: index})
			if errors.Is(err, grid.Unsupported) && bytes.HasPrefix(segment, []byte(fileHeader[:len(fileHeader)-1])) {
				if now, err := os.ReadFile(file); err != nil || !bytes.Equal(now, segment) {
					t.Errorf("it is %x now, %v", now, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			b := New(s)
			if data, err := b.Get(t.Context(), hello.CID()); err == nil && string(data) != "hello" {
				t.Errorf("got %q", data)
			}
			put(t, b, raw("more"))
			check(t, b, true, raw("more"))
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func randomBlocks(n, size int) []grid.Block {
	r := rand.New(rand.NewPCG(1, uint64(size)))
	bs := make([]grid.Block, n)
	for i := range bs {
		data := make([]byte, size)
		for j := 0; j+8 <= size; j += 8 {
			binary.LittleEndian.PutUint64(data[j:], r.Uint64())
		}
		bs[i] = grid.NewBlock(cid.Raw, data)
	}
	return bs
}

func BenchmarkPut(b *testing.B) {
	for _, size := range []int{10 << 10, 256 << 10, 1 << 20} {
		bs := randomBlocks(128<<20/size, size)
		b.Run(fmt.Sprintf("%dKiB/segments", size>>10), func(b *testing.B) {
			b.SetBytes(128 << 20)
			for b.Loop() {
				b.StopTimer()
				s := openTest(b, Config{Dir: b.TempDir(), Index: memory()})
				b.StartTimer()
				for i := 0; i < len(bs); i += 8 {
					if err := New(s).Put(b.Context(), bs[i:min(i+8, len(bs))]...); err != nil {
						b.Fatal(err)
					}
				}
				if err := New(s).Sync(b.Context()); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				s.Close()
				os.RemoveAll(s.dir)
				b.StartTimer()
			}
		})
		b.Run(fmt.Sprintf("%dKiB/rawdisk", size>>10), func(b *testing.B) {
			b.SetBytes(128 << 20)
			for b.Loop() {
				f, err := os.Create(filepath.Join(b.TempDir(), "raw"))
				if err != nil {
					b.Fatal(err)
				}
				for _, blk := range bs {
					f.Write(blk.Data())
				}
				f.Sync()
				f.Close()
				os.Remove(f.Name())
			}
		})
		b.Run(fmt.Sprintf("%dKiB/sha256", size>>10), func(b *testing.B) {
			b.SetBytes(128 << 20)
			for b.Loop() {
				for _, blk := range bs {
					sha256.Sum256(blk.Data())
				}
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	for _, size := range []int{10 << 10, 1 << 20} {
		bs := randomBlocks(64<<20/size, size)
		s := openTest(b, Config{Dir: b.TempDir(), Index: memory()})
		if err := New(s).Put(b.Context(), bs...); err != nil {
			b.Fatal(err)
		}
		if err := New(s).Sync(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("%dKiB/verified", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			for i := 0; b.Loop(); i++ {
				if _, err := New(s).Get(b.Context(), bs[i%len(bs)].CID()); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("%dKiB/unverified", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			for i := 0; b.Loop(); i++ {
				if _, err := s.Get(b.Context(), encodeKey(bs[i%len(bs)].CID().Hash())); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
