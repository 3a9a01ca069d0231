package grid_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

// keeper counts holds.
type keeper struct {
	mu    sync.Mutex
	lasts int
	held  map[cid.Cid]int // how often each root was held
}

func (k *keeper) Hold(roots ...cid.Cid) func() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lasts++
	for _, c := range roots {
		k.held[c]++
	}
	return sync.OnceFunc(func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.lasts--
	})
}

func (k *keeper) HoldUsed() func() { return k.Hold() }

func roots(t *testing.T, n *grid.Node) (out []cid.Cid) {
	t.Helper()
	if err := n.Roots(within(t), func(c cid.Cid) { out = append(out, c) }); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRoots: what a job has come to is a root while it runs, and its spec and result are afterwards.
func TestRoots(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	started, goOn := make(chan struct{}), make(chan struct{})
	text := strings.Repeat("0123456789", 1000)
	w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
		if slices.Contains(g.Env, grid.EnvTask+"=1") {
			close(started)
			<-goOn
			return grid.Outcome{}, nil
		}
		return fake.Text(text)(ctx, g)
	}
	k := &keeper{held: map[cid.Cid]int{}}
	c := w.Config()
	c.Keeper = k
	n := open(t, c)
	if got := roots(t, n); len(got) != 0 {
		t.Errorf("roots %v of no job", got)
	}
	input := grid.NewBlock(cid.Raw, []byte("input"))
	if err := w.Blocks.Put(within(t), input); err != nil {
		t.Fatal(err)
	}
	r := request(w, 2)
	r.Stages[0].Mounts = []grid.Mount{{Path: "/data", CID: grid.Link{Cid: input.CID()}}}
	id := submit(t, n, r)
	<-started
	output := grid.NewBlock(cid.Raw, []byte(text)).CID()
	st, err := n.Job(within(t), id)
	if err != nil {
		t.Fatal(err)
	}
	ctx := within(t)
	for got := []cid.Cid(nil); !slices.Contains(got, output) || !slices.Contains(got, st.Spec.Cid); got = roots(t, n) {
		if ctx.Err() != nil {
			t.Fatalf("roots %v, want the output %s and the spec %s", got, output, st.Spec)
		}
	}
	close(goOn)
	st = end(t, n, id)
	if got := roots(t, n); !slices.Contains(got, st.Spec.Cid) || !slices.Contains(got, st.Result.Cid) {
		t.Errorf("roots %v, want the spec %s and the result %s", got, st.Spec, st.Result)
	}
	n.Close()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lasts != 0 || k.held[input.CID()] == 0 || k.held[w.Module.Cid] == 0 {
		t.Errorf("%d holds last; held: %v", k.lasts, k.held)
	}
}

func TestRootsUnreadable(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	n := open(t, w.Config())
	if _, err := w.Ledger.Commit(within(t), grid.Txn{Put: []grid.Entry{{Key: "job/jbroken", Value: []byte{1}}}}); err != nil {
		t.Fatal(err)
	}
	if err := n.Roots(within(t), func(cid.Cid) {}); err == nil {
		t.Error("a record that cannot be read names no roots, and nobody is told")
	}
}

func TestLinger(t *testing.T) {
	n := open(t, fake.NewWorld(new(fake.Hub), "a").Config())
	stays, goes := grid.NewBlock(cid.Raw, []byte("stays")).CID(), grid.NewBlock(cid.Raw, []byte("goes")).CID()
	n.Linger(time.Hour, stays)
	n.Linger(-time.Second, goes)
	if got := roots(t, n); !slices.Equal(got, []cid.Cid{stays}) {
		t.Errorf("roots %v, want %s", got, stays)
	}
}

// TestLingerUntilUnpinned: who adds data, pins it and takes the pin back gets the room back at once.
func TestLingerUntilUnpinned(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	n := open(t, w.Config())
	for _, pinned := range []bool{true, false} {
		b := grid.NewBlock(cid.Raw, fmt.Append(nil, "pinned: ", pinned))
		root := b.CID()
		if err := w.Blocks.Put(within(t), b); err != nil {
			t.Fatal(err)
		}
		n.Linger(time.Hour, grid.NewBlock(cid.Raw, []byte("folder of it")).CID(), root)
		if !pinned { // by this node just now
			if _, err := w.Pins.Pin(within(t), grid.Pin{Root: grid.Link{Cid: root}, Replicas: 1}); err != nil {
				t.Fatal(err)
			}
		} else if _, err := n.Pin(within(t), grid.Pin{Root: grid.Link{Cid: root}, Replicas: 1}); err != nil {
			t.Fatal(err)
		}
		if err := n.Unpin(within(t), root); err != nil {
			t.Fatal(err)
		}
		if got := roots(t, n); len(got) != 0 {
			t.Errorf("roots %v after the pin was taken back", got)
		}
	}
}

// TestPartlyEvicted: an output of which only the root is here is no answer, wherever the rest went.
func TestPartlyEvicted(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	var runs atomic.Int32
	child := grid.NewBlock(cid.Raw, []byte("in a folder"))
	w.Engine.Guest = func(context.Context, *grid.Guest) (grid.Outcome, error) {
		runs.Add(1)
		if err := w.Blocks.Put(context.Background(), child); err != nil {
			return grid.Outcome{}, err
		}
		tree, _, err := w.Files.AddTree(context.Background(), []grid.FileInfo{{Name: "f", Kind: grid.KindFile, CID: grid.Link{Cid: child.CID()}}})
		if err != nil {
			return grid.Outcome{}, err
		}
		out, err := w.Files.FS(context.Background(), tree)
		return grid.Outcome{Out: out}, err
	}
	n := open(t, w.Config())
	run(t, n, request(w, 1))
	if st, _ := run(t, n, request(w, 1)); st.Stages[0].Cached != 1 || runs.Load() != 1 {
		t.Fatalf("%+v after %d runs", st.Stages[0], runs.Load())
	}
	if err := w.Blocks.Delete(within(t), child.CID()); err != nil {
		t.Fatal(err)
	}
	if st, _ := run(t, n, request(w, 1)); st.State != grid.Done || st.Stages[0].Cached != 0 || runs.Load() != 2 {
		t.Errorf("%s, %+v after %d runs", st.State, st.Stages[0], runs.Load())
	}
}
