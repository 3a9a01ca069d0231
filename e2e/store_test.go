//go:build unix

package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
)

// importFile adds one file through the API.
func importFile(ctx context.Context, n *Node, data []byte) (grid.FileInfo, error) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
		return grid.FileInfo{}, err
	}
	if _, err := w.Write(data); err != nil {
		return grid.FileInfo{}, err
	}
	if err := w.Close(); err != nil {
		return grid.FileInfo{}, err
	}
	var file grid.FileInfo
	_, err := n.Add(ctx, &archive, func(i grid.FileInfo) { file = i })
	return file, err
}

// TestStoreKilled kills a node again and again while it imports, collects and compacts. All that it acknowledged
// a job for stays whole, and what is on its disk is not damaged.
func TestStoreKilled(t *testing.T) {
	t.Parallel()
	long(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w := NewWorld(t)
	var mu sync.Mutex
	kept := map[grid.Link][32]byte{}
	var deleted, collections uint64
	end := time.Now().Add(20 * time.Second)
	rounds := 0
	for ; rounds < 8 && time.Now().Before(end); rounds++ {
		n := w.Up("a", "--workers", "1", "--no-nearby", "--store-quota", "256MiB")
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { // errors are of the kill
			src := rand.NewChaCha8(sha256.Sum256(fmt.Append(nil, seed, rounds)))
			r := rand.New(src)
			module, err := importFile(ctx, n, wasmbytes.Noop())
			for err == nil {
				data := make([]byte, r.IntN(3<<20))
				src.Read(data)
				var file grid.FileInfo
				if file, err = importFile(ctx, n, data); err != nil || r.IntN(3) == 0 {
					continue
				}
				_, err = n.Submit(ctx, grid.Request{Spec: grid.Spec{Stages: []grid.Stage{{
					Module: module.CID, Tasks: 1, Mounts: []grid.Mount{{Path: "/data", CID: file.CID}},
				}}}})
				if err == nil {
					mu.Lock()
					kept[file.CID] = sha256.Sum256(data)
					mu.Unlock()
				}
			}
		})
		wg.Go(func() {
			for {
				c, err := n.Collect(ctx, false)
				if err != nil {
					return
				}
				collections++
				deleted += c.Deleted
			}
		})
		r := rand.New(rand.NewPCG(seed, uint64(rounds)))
		select { // at some moment or other
		case <-time.After(time.Duration(200+r.IntN(1200)) * time.Millisecond):
		case <-ctx.Done():
		}
		n.Kill()
		cancel()
		wg.Wait()
	}
	t.Logf("%d rounds, %d collections deleted %d blocks, %d files are kept", rounds, collections, deleted, len(kept))
	n := w.Up("a", "--no-nearby")
	n.Must("store", "gc")
	n.Must("store", "verify")
	for c, sum := range kept {
		f, err := n.Cat(t.Context(), c.Cid, "")
		if err != nil {
			t.Errorf("%s: %v", c, err)
			continue
		}
		data, err := io.ReadAll(f)
		f.Close()
		if err != nil || sha256.Sum256(data) != sum {
			t.Errorf("%s: %d bytes, %v", c, len(data), err)
		}
	}
}

// TestStoreRepairs: a block that one node's disk has changed comes back from another node.
func TestStoreRepairs(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	a, b := w.Up("a"), w.Up("b")
	w.Meet(a, b)
	file := filepath.Join(w.dir, "file")
	if err := os.WriteFile(file, []byte("many nodes have these words\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := strings.TrimSpace(a.Must("add", "-q", file))
	b.Must("add", "-q", file)
	segment := filepath.Join(a.Home, "store", "blocks", "00000001.seg")
	data, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(data, []byte("many nodes"))
	if i < 0 {
		t.Fatal("the file is not in its segment")
	}
	f, err := os.OpenFile(segment, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("Z"), int64(i)); err != nil {
		t.Fatal(err)
	}
	if r := a.Grid("store", "verify"); r.Exit != 1 || !strings.Contains(r.Stdout, c) {
		t.Errorf("exit code %d\n%s%s", r.Exit, r.Stdout, r.Stderr)
	}
	if r := a.Grid("store", "verify", "--repair"); r.Exit != 0 || !strings.Contains(r.Stdout, "repaired") {
		t.Errorf("exit code %d\n%s%s", r.Exit, r.Stdout, r.Stderr)
	}
	if got := a.Must("cat", c); got != "many nodes have these words\n" {
		t.Errorf("it reads %q", got)
	}
	a.Must("store", "verify")
}

// TestQuota: a node that has more than it may evicts what is only cached, and says so when the rest is pinned.
func TestQuota(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	home := filepath.Join(w.dir, "a")
	write := func(name string, size int) (string, []byte) {
		data := make([]byte, size)
		src := rand.NewChaCha8(sha256.Sum256([]byte(name)))
		src.Read(data)
		path := filepath.Join(w.dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path, data
	}
	pinned, data := write("pinned", 6<<20)
	noop := filepath.Join(w.dir, "noop.wasm")
	if err := os.WriteFile(noop, wasmbytes.Noop(), 0o600); err != nil {
		t.Fatal(err)
	}
	w.Must("run", "--home", home, noop, "--mount", pinned+":/data")
	c := strings.TrimSpace(w.Must("add", "-q", "--home", home, pinned))
	for i := range 3 {
		loose, _ := write(fmt.Sprint("loose", i), 5<<20)
		w.Must("add", "-q", "--no-pin", "--home", home, loose)
	}
	a := w.Up("a", "--store-quota", "20MiB")
	Eventually(t, "the node has evicted", func(ctx context.Context) error {
		u, err := a.StoreUse(ctx)
		if err == nil && u.Disk > 16<<20 {
			err = fmt.Errorf("%+v", u)
		}
		return err
	})
	big, _ := write("big", 30<<20)
	r := a.Grid("add", "--no-pin", big)
	if r.Exit != 71 || !strings.Contains(r.Stderr, "quota of 20.0 MiB is full") || !strings.Contains(r.Stderr, "--store-quota") {
		t.Errorf("exit code %d\n%s%s", r.Exit, r.Stdout, r.Stderr)
	}
	if got := a.Must("cat", c); !bytes.Equal([]byte(got), data) {
		t.Error("what a job needs is no longer the same")
	}
	a.Must("store", "verify")
	small, data := write("small", 5<<20) // what is left of the big one makes way
	Eventually(t, "there is room again", func(context.Context) error {
		r := a.Grid("add", "-q", "--no-pin", small)
		if r.Exit != 0 {
			return fmt.Errorf("exit code %d: %s", r.Exit, r.Stderr)
		}
		c = strings.TrimSpace(r.Stdout)
		return nil
	})
	if got := a.Must("cat", c); !bytes.Equal([]byte(got), data) {
		t.Error("what was added is not the same")
	}
}
