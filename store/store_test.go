package store

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
	"github.com/wasmgrid/wasmgrid/store/keep"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("STORE_TEST_CRASH"); dir != "" {
		writeForever(dir)
	}
	if dir := os.Getenv("STORE_TEST_FULL"); dir != "" && onFull != nil {
		onFull(dir)
	}
	goleak.VerifyTestMain(m)
}

var onFull func(dir string) // where a process can be kept from writing files

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestContracts(t *testing.T) {
	t.Run("blocks", func(t *testing.T) {
		gridtest.TestBlocks(t, func(t *testing.T) grid.Blocks { return open(t, t.TempDir()).Blocks() })
	})
	t.Run("cached blocks", func(t *testing.T) {
		gridtest.TestBlocks(t, func(t *testing.T) grid.Blocks {
			s, err := Open(t.Context(), Config{Dir: t.TempDir(), Cache: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			return s.Blocks()
		})
	})
	t.Run("files", func(t *testing.T) {
		gridtest.TestFiles(t, func(t *testing.T) grid.Files { return open(t, t.TempDir()).Files() })
	})
	t.Run("ledger", func(t *testing.T) {
		gridtest.TestLedger(t, func(t *testing.T) grid.Ledger { return open(t, t.TempDir()).Ledger() })
	})
	t.Run("cache", func(t *testing.T) {
		gridtest.TestCache(t, func(t *testing.T) grid.Cache { return open(t, t.TempDir()).Cache() })
	})
}

func TestReopen(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	s := open(t, dir)
	b := grid.NewBlock(cid.Raw, []byte("hello"))
	if err := s.Blocks().Put(ctx, b); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Ledger().Commit(ctx, grid.Txn{Put: []grid.Entry{{Key: "k", Value: []byte("v")}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, Config{Dir: dir}); !errors.Is(err, grid.Busy) || grid.AdviceOf(err) == "" || !strings.Contains(err.Error(), dir) {
		t.Errorf("second Open: %v, want Busy with advice", err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, dir)
	if data, err := s.Blocks().Get(ctx, b.CID()); err != nil || string(data) != "hello" {
		t.Errorf("Get = %q, %v", data, err)
	}
	if e, err := s.Ledger().Get(ctx, "k"); err != nil || string(e.Value) != "v" {
		t.Errorf("Get = %+v, %v", e, err)
	}
	if st, err := s.Stat(ctx); err != nil || st.BlockBytes == 0 || st.MetaBytes == 0 {
		t.Errorf("Stat = %+v, %v", st, err)
	}
}

// TestLostIndex takes the database away: blocks come back from their segments.
func TestLostIndex(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	s := open(t, dir)
	var all []grid.Block
	for i := range 500 {
		all = append(all, grid.NewBlock(cid.Raw, fmt.Append(nil, i)))
	}
	if err := s.Blocks().Put(ctx, all...); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "meta")); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	for _, b := range all {
		if _, err := s.Blocks().Get(ctx, b.CID()); err != nil {
			t.Fatal(err)
		}
	}
}

// crashBlock is the i-th block of the crash test: of varied size, from 1 byte to 300 KB.
func crashBlock(i int) grid.Block {
	size := 1 + (i*i*7919)%(1<<(i%19))
	return grid.NewBlock(cid.Raw, fmt.Append(bytes.Repeat([]byte{byte(i)}, size), i))
}

// writeForever is the child: it stores blocks and ledger entries, and says what is durable.
func writeForever(dir string) {

	s, err := Open(context.Background(), Config{Dir: dir})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	next := 0
	fmt.Sscan(os.Getenv("STORE_TEST_NEXT"), &next)
	for i := next; ; i++ {
		if err = s.Blocks().Put(context.Background(), crashBlock(i)); err == nil && i%5 == 4 {
			err = s.Blocks().Sync(context.Background())
		}
		if err == nil && i%5 == 4 {
			_, err = s.Ledger().Commit(context.Background(), grid.Txn{Put: []grid.Entry{{Key: fmt.Sprintf("%08d", i), Value: []byte("v")}}})
		}
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		if i%5 == 4 {
			fmt.Println("durable", i)
		}
	}
}

// TestCrash kills a process that writes, again and again, and looks for all that it called durable.
func TestCrash(t *testing.T) {
	dir := t.TempDir()
	durable := -1
	for round := range 6 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "STORE_TEST_CRASH="+dir, fmt.Sprint("STORE_TEST_NEXT=", durable+1))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		told := 5 + rand.IntN(100)
		for n := 0; lines.Scan(); n++ {
			var i int
			if _, err := fmt.Sscanf(lines.Text(), "durable %d", &i); err != nil {
				t.Fatalf("round %d: child says %q", round, lines.Text())
			}
			durable = i
			if n == told { // somewhere in the middle of what it does next
				time.AfterFunc(time.Duration(rand.IntN(3000))*time.Microsecond, func() { cmd.Process.Kill() })
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the child ended by itself")
		}
		s, err := Open(t.Context(), Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		for i := range durable + 1 {
			b := crashBlock(i)
			if data, err := s.Blocks().Get(t.Context(), b.CID()); err != nil || !bytes.Equal(data, b.Data()) {
				t.Errorf("round %d: block %d: %v", round, i, err)
			}
			if i%5 == 4 {
				if _, err := s.Ledger().Get(t.Context(), fmt.Sprintf("%08d", i)); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d blocks in 6 rounds", durable+1)
}

func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	s := open(b, dir)
	for i := range 10000 {
		if err := s.Blocks().Put(b.Context(), grid.NewBlock(cid.Raw, fmt.Append(nil, i))); err != nil {
			b.Fatal(err)
		}
	}
	s.Close()
	for b.Loop() {
		s, err := Open(b.Context(), Config{Dir: dir})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkImport10000 adds 10,000 files of 10 KB and the folder of them, durably.
func BenchmarkImport10000(b *testing.B) {
	data := make([]byte, 10<<10)
	for b.Loop() {
		s := open(b, b.TempDir())
		var entries []grid.FileInfo
		for i := range 10000 {
			data[0], data[1] = byte(i), byte(i>>8)
			c, n, err := s.Files().Add(b.Context(), bytes.NewReader(data))
			if err != nil {
				b.Fatal(err)
			}
			entries = append(entries, grid.FileInfo{Name: fmt.Sprintf("d/%d", i), Kind: grid.KindFile, CID: grid.Link{Cid: c}, Size: n})
		}
		if _, _, err := s.Files().AddTree(b.Context(), entries); err != nil {
			b.Fatal(err)
		}
		if err := s.Blocks().Sync(b.Context()); err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
	b.ReportMetric(float64(b.N)*10000/b.Elapsed().Seconds(), "files/s")
}

// BenchmarkImportLarge adds a file of 512 MiB durably, beside hashing the same bytes and beside writing them to
// the same disk.
func BenchmarkImportLarge(b *testing.B) {
	const size = 512 << 20
	data := make([]byte, size)
	src := rand.NewChaCha8([32]byte{})
	b.SetBytes(size)
	var adding, hashing, writing time.Duration
	for b.Loop() {
		b.StopTimer()
		src.Read(data)
		start := time.Now()
		sha256.Sum256(data)
		hashing += time.Since(start)
		start = time.Now()
		f, err := os.Create(filepath.Join(b.TempDir(), "raw"))
		if err != nil {
			b.Fatal(err)
		}
		_, err = f.Write(data)
		if err := errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name())); err != nil {
			b.Fatal(err)
		}
		writing += time.Since(start)
		dir := b.TempDir()
		s := open(b, dir)
		b.StartTimer()
		start = time.Now()
		if _, _, err := s.Files().Add(b.Context(), bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
		if err := s.Blocks().Sync(b.Context()); err != nil {
			b.Fatal(err)
		}
		adding += time.Since(start)
		b.StopTimer()
		s.Close()
		if err := os.RemoveAll(dir); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(hashing.Seconds()/adding.Seconds(), "of-sha256")
	b.ReportMetric(writing.Seconds()/adding.Seconds(), "of-disk")
}

// BenchmarkCollect collects every second one of 100,000 blocks of 1 KiB.
func BenchmarkCollect(b *testing.B) {
	const n, width = 100_000, 1000
	s := open(b, b.TempDir())
	blocks := make([]grid.Block, n)
	for i := range blocks {
		blocks[i] = grid.NewBlock(cid.Raw, fmt.Appendf(make([]byte, 1024), "block %d", i))
	}
	var roots []cid.Cid
	for i := 0; i < n; i += 2 * width {
		var links []grid.Link
		for k := i; k < i+2*width; k += 2 {
			links = append(links, grid.Link{Cid: blocks[k].CID()})
		}
		root, err := grid.EncodeBlock(links)
		if err == nil {
			err = s.Blocks().Put(b.Context(), root)
		}
		if err != nil {
			b.Fatal(err)
		}
		roots = append(roots, root.CID())
	}
	defer s.Keeper().Start(keep.Duties{Roots: func(_ context.Context, yield func(cid.Cid)) error {
		for _, c := range roots {
			yield(c)
		}
		return nil
	}})()
	for b.Loop() {
		b.StopTimer()
		for i := 0; i < n; i += 100 {
			if err := s.Blocks().Put(b.Context(), blocks[i:i+100]...); err != nil {
				b.Fatal(err)
			}
		}
		if err := s.Blocks().Sync(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if did, err := s.Keeper().Collect(b.Context(), keep.Plan{}); err != nil || did.Deleted != n/2 {
			b.Fatalf("%+v, %v", did, err)
		}
	}
}

// BenchmarkAddAgain adds a large file that is here.
func BenchmarkAddAgain(b *testing.B) {
	const size = 256 << 20
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(data)
	s := open(b, b.TempDir())
	add := func() time.Duration {
		start := time.Now()
		if _, _, err := s.Files().Add(b.Context(), bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
		if err := s.Blocks().Sync(b.Context()); err != nil {
			b.Fatal(err)
		}
		return time.Since(start)
	}
	first, again := add(), time.Duration(0)
	b.SetBytes(size)
	for b.Loop() {
		again += add()
	}
	b.ReportMetric(first.Seconds()*float64(b.N)/again.Seconds(), "of-adding")
}

// BenchmarkLedgerFirstUse opens a store, as each command does, and reads all of its ledger.
func BenchmarkLedgerFirstUse(b *testing.B) {
	for _, n := range []int{0, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir := b.TempDir()
			s := open(b, dir)
			for i := 0; i < n; i += 1000 {
				var txn grid.Txn
				for j := range 1000 {
					txn.Put = append(txn.Put, grid.Entry{Key: fmt.Sprintf("job/%026d", i+j), Value: make([]byte, 400)})
				}
				if _, err := s.Ledger().Commit(b.Context(), txn); err != nil {
					b.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			used := time.Duration(0)
			for b.Loop() {
				s := open(b, dir)
				begin := time.Now()
				if _, err := s.Ledger().Range(b.Context(), grid.Query{Prefix: "job/"}); err != nil {
					b.Fatal(err)
				}
				used += time.Since(begin)
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(used.Microseconds())/1e3/float64(b.N), "ms/first-use")
		})
	}
}

func BenchmarkCommit(b *testing.B) {
	s := open(b, b.TempDir())
	for b.Loop() {
		if _, err := s.Ledger().Commit(b.Context(), grid.Txn{Put: []grid.Entry{{Key: "job/1", Value: make([]byte, 300)}}}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCache(b *testing.B) {
	s := open(b, b.TempDir())
	rs := make([]grid.Receipt, 100)
	for i := range rs {
		rs[i] = grid.Receipt{Key: grid.Key{byte(i)}, Stdout: grid.Output{Size: 100, Inline: make([]byte, 100)}, Seal: grid.Seal{Sig: make([]byte, 64)}, Node: "\x12\x2012345678901234567890123456789012"}
	}
	b.Run("remember100", func(b *testing.B) {
		for b.Loop() {
			if err := s.Cache().Remember(b.Context(), rs...); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("lookup", func(b *testing.B) {
		for b.Loop() {
			if _, ok, err := s.Cache().Lookup(b.Context(), rs[7].Key); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	// Each task of a new job is looked up, and is not there.
	key := func(n int) grid.Key { return grid.Key(sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(n)))) }
	const many = 200_000
	for n := 0; n < many; {
		for i := range rs {
			rs[i].Key = key(n)
			n++
		}
		if err := s.Cache().Remember(b.Context(), rs...); err != nil {
			b.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		first int
	}{{"known", 0}, {"unknown", many}} {
		b.Run(fmt.Sprintf("%s among %d", c.name, many), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				if _, ok, err := s.Cache().Lookup(b.Context(), key(c.first+i*7919%many)); ok != (c.first == 0) || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
	}
}

// TestOtherProcess opens a folder that another process has open.
func TestOtherProcess(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "STORE_TEST_CRASH="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	bufio.NewScanner(out).Scan() // it is open
	if _, err := Open(t.Context(), Config{Dir: dir}); !errors.Is(err, grid.Busy) {
		t.Errorf("Open: %v, want Busy", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
}
