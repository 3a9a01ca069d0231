//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/toolchain"
	"github.com/wasmgrid/wasmgrid/wasmhost"
)

// BenchmarkGuests is how many tasks a second one node does, from submission to the recorded result, whose programs say one word and are as
// large as compilers make them of C, Rust and Go; beside the host of guests alone, on all processors.
func BenchmarkGuests(b *testing.B) {
	for _, g := range []struct {
		name  string
		build func(testing.TB) []byte
	}{
		{"c", func(tb testing.TB) []byte { return toolchain.C(tb, "../wasmhost/testdata/c/hello.c") }},
		{"rust", func(tb testing.TB) []byte { return toolchain.Rust(tb, "../wasmhost/testdata/rust/hello.rs") }},
		{"go", func(tb testing.TB) []byte {
			binary, err := gridtest.BuildGuest([]byte("package main\n\nfunc main() { println(\"hello\") }\n"))
			if err != nil {
				tb.Fatal(err)
			}
			return binary
		}},
	} {
		b.Run(g.name, func(b *testing.B) {
			const tasks = 5000
			binary := g.build(b)
			w := NewWorld(b)
			file := filepath.Join(w.dir, "hello.wasm")
			if err := os.WriteFile(file, binary, 0o644); err != nil {
				b.Fatal(err)
			}
			w.Must("run", "--home", filepath.Join(w.dir, "bench"), file) // compiles, for the node, too
			n := w.Up("bench")
			module := addFile(b, n, binary)
			runJob(b, n, noopJob(module, 500))
			h := compiledHost(b, binary)
			defer h.Close()
			if err := hostAlone(h, binary, 500); err != nil {
				b.Fatal(err)
			}
			var whole, alone time.Duration
			for b.Loop() {
				began := time.Now()
				runJob(b, n, noopJob(module, tasks))
				whole += time.Since(began)
				began = time.Now()
				if err := hostAlone(h, binary, tasks); err != nil {
					b.Fatal(err)
				}
				alone += time.Since(began)
			}
			all := float64(tasks * b.N)
			b.ReportMetric(all/whole.Seconds(), "tasks/s")
			b.ReportMetric(all/alone.Seconds(), "host-tasks/s")
		})
	}
}

// compiledHost is a host that has a module's machine code, and need not interpret it while it compiles.
func compiledHost(b *testing.B, binary []byte) *wasmhost.Host {
	b.Helper()
	cfg := wasmhost.Config{CacheDir: b.TempDir(), Finish: patience, Load: func(context.Context, cid.Cid) ([]byte, error) { return binary, nil }}
	h, err := wasmhost.Open(cfg)
	if err != nil {
		b.Fatal(err)
	}
	if err := errors.Join(hostAlone(h, binary, 1), h.Close()); err != nil {
		b.Fatal(err)
	}
	if h, err = wasmhost.Open(cfg); err != nil {
		b.Fatal(err)
	}
	return h
}

// hostAlone runs a guest so many times on all processors.
func hostAlone(h *wasmhost.Host, binary []byte, tasks int) error {
	id := grid.NewBlock(cid.Raw, binary).CID()
	var left atomic.Int64
	left.Store(int64(tasks))
	failed := make([]error, runtime.GOMAXPROCS(0))
	var all sync.WaitGroup
	for i := range failed {
		all.Go(func() {
			for left.Add(-1) >= 0 && failed[i] == nil {
				out, err := h.Run(context.Background(), &grid.Guest{Module: id, Args: []string{"hello"}, Stdout: io.Discard, Stderr: io.Discard})
				if err == nil && (out.Fault != nil || out.Exit != 0) {
					err = fmt.Errorf("%+v", out)
				}
				failed[i] = err
			}
		})
	}
	all.Wait()
	return errors.Join(failed...)
}

// BenchmarkIdle is what a node takes that has nothing to do, alone and as one of a realm of three voters.
func BenchmarkIdle(b *testing.B) {
	for name, size := range map[string]int{"alone": 1, "of-three": 3} {
		b.Run(name, func(b *testing.B) {
			w := NewWorld(b)
			var nodes []*Node
			for i := range size {
				nodes = append(nodes, w.Up("n"+strconv.Itoa(i)))
			}
			realmOf(b, size, nodes...)
			<-time.After(2 * time.Second) // what begins with a node has ended
			var spent, took time.Duration
			for b.Loop() {
				before, began := used(b, nodes...), time.Now()
				<-time.After(5 * time.Second)
				spent += used(b, nodes...) - before
				took += time.Since(began)
			}
			memory := int64(0)
			for _, n := range nodes {
				f, err := n.footprint(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				memory += f.memory
			}
			b.ReportMetric(float64(memory)/float64(size), "bytes/node")
			b.ReportMetric(100*spent.Seconds()/took.Seconds()/float64(size), "%core/node")
		})
	}
}

// trio is three nodes of one slot and one realm, one of which is killed at a time. They have run tasks of the module, which sleep.
type trio struct {
	b      *testing.B
	nodes  []*Node
	module grid.Link
}

func newTrio(b *testing.B) *trio {
	b.Helper()
	nodes, module := cluster(b, 3, nap, func(m grid.Link) grid.Request { return naps(m, spread(40, 20)...) })
	return &trio{b, nodes, module}
}

// ready waits until all are voters, and tells who leads and who the other two are.
func (t *trio) ready() (leader, one, other *Node) {
	t.b.Helper()
	id := realmOf(t.b, 3, t.nodes...)
	i := slices.IndexFunc(t.nodes, func(n *Node) bool { return n.ID == id })
	if i < 0 {
		t.b.Fatalf("%q leads, which is none of these", id)
	}
	return t.nodes[i], t.nodes[(i+1)%3], t.nodes[(i+2)%3]
}

// again starts a node that was killed.
func (t *trio) again(dead *Node) {
	t.b.Helper()
	t.nodes[slices.Index(t.nodes, dead)] = dead.w.Up(filepath.Base(dead.Home), "--workers", "1")
}

// report reports the median of times.
func (t *trio) report(times []float64) { t.b.ReportMetric(median(times)*1000, "ms") }

// BenchmarkFailover is what the death of a process costs, by kill -9, in a realm of three: of the ledger's leader, until somebody else has committed
// something; of a job's owner, until a task is finished for the next owner; of a node that runs a task, until that task has begun anew on another.
func BenchmarkFailover(b *testing.B) {
	b.Run("leader", func(b *testing.B) {
		t := newTrio(b)
		var times []float64
		for b.Loop() {
			b.StopTimer()
			leader, one, _ := t.ready()
			b.StartTimer()
			began := time.Now()
			leader.Kill()
			Eventually(b, "a transaction after the leader's death", func(ctx context.Context) error {
				_, err := one.KVTxn(ctx, api.TxnDoc{Put: []api.KV{{Key: "bench", Value: []byte("x")}}})
				return err
			})
			times = append(times, time.Since(began).Seconds())
			b.StopTimer()
			t.again(leader)
			b.StartTimer()
		}
		t.report(times)
	})
	b.Run("owner", func(b *testing.B) {
		t := newTrio(b)
		var times []float64
		for b.Loop() {
			b.StopTimer()
			_, owner, other := t.ready()
			id, err := owner.Submit(b.Context(), naps(t.module, spread(300, 20)...))
			if err != nil {
				b.Fatal(err)
			}
			var before, after grid.JobStatus
			Eventually(b, "the job is under way", func(ctx context.Context) (err error) {
				if before, err = other.Job(ctx, id); err == nil && (booked(before) < 20 || before.Owner != owner.ID) {
					err = fmt.Errorf("%d tasks are done, it belongs to %s", booked(before), before.Owner)
				}
				return err
			})
			b.StartTimer()
			began := time.Now()
			owner.Kill()
			Eventually(b, "a task is done for the next owner", func(ctx context.Context) (err error) {
				if after, err = other.Job(ctx, id); err == nil && (after.Epoch == before.Epoch || booked(after) <= booked(before)) {
					err = fmt.Errorf("epoch %d, %d tasks done", after.Epoch, booked(after))
				}
				return err
			})
			times = append(times, time.Since(began).Seconds())
			b.StopTimer()
			t.ends(other, id)
			t.again(owner)
			b.StartTimer()
		}
		t.report(times)
	})
	b.Run("worker", func(b *testing.B) {
		t := newTrio(b)
		var times []float64
		const long = 300 // ms; nobody is idle for longer than that before the task could begin anew
		for b.Loop() {
			b.StopTimer()
			_, owner, worker := t.ready()
			id, err := owner.Submit(b.Context(), naps(t.module, spread(3, long)...))
			if err != nil {
				b.Fatal(err)
			}
			Eventually(b, "all have a task", func(ctx context.Context) error {
				for _, n := range t.nodes {
					if st, err := n.Node(ctx); err != nil || st.Load.Running == 0 {
						return errors.Join(err, errors.New(n.Home+" has none"))
					}
				}
				return nil
			})
			b.StartTimer()
			began := time.Now()
			worker.Kill()
			t.ends(owner, id)
			times = append(times, time.Since(began).Seconds()-long/1000.)
			b.StopTimer()
			t.again(worker)
			b.StartTimer()
		}
		t.report(times)
	})
}

// ends waits until a job is done, as a node tells.
func (t *trio) ends(n *Node, id grid.JobID) {
	t.b.Helper()
	Eventually(t.b, string(id)+" is done", func(ctx context.Context) error {
		st, err := n.Job(ctx, id)
		if err == nil && st.State != grid.Done {
			err = fmt.Errorf("it is %s: %s", st.State, st.Error)
		}
		return err
	})
}

// BenchmarkSort sorts 400,000 records of 100 bytes by the job of docs/examples: tasks make them, sample them, part them, sort the parts and prove that nothing is
// lost; beside a plain Go program that makes and sorts as many on all processors, and has them all in memory.
func BenchmarkSort(b *testing.B) {
	const tasks, records = 8, 50_000
	n := NewWorld(b).Up("bench")
	job := filepath.Join(repo(b), "docs", "examples", "sort.yaml")
	sortJob := func(records int) {
		n.Must("submit", job, "--no-cache", "--set", "tasks="+strconv.Itoa(tasks), "--set", "parts="+strconv.Itoa(tasks), "--set", "records="+strconv.Itoa(records))
	}
	sortJob(100) // compiles
	b.SetBytes(tasks * records * 100)
	var sorting, plain time.Duration
	for b.Loop() {
		b.StopTimer()
		began := time.Now()
		plainSort(b, tasks*records)
		plain += time.Since(began)
		b.StartTimer()
		began = time.Now()
		sortJob(records)
		sorting += time.Since(began)
	}
	b.ReportMetric(sorting.Seconds()/float64(b.N), "sort-s")
	b.ReportMetric(plain.Seconds()/float64(b.N), "plain-s")
}

// plainSort makes so many records and sorts them by their first ten bytes: a share for each processor, and then all together.
func plainSort(b *testing.B, records int) {
	b.Helper()
	const size, key = 100, 10
	shares := make([][][]byte, runtime.GOMAXPROCS(0))
	byKey := func(x, y []byte) int { return bytes.Compare(x[:key], y[:key]) }
	var all sync.WaitGroup
	for i := range shares {
		all.Go(func() {
			n := records*(i+1)/len(shares) - records*i/len(shares)
			data := make([]byte, n*size)
			_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(data)
			for rec := range slices.Chunk(data, size) {
				shares[i] = append(shares[i], rec)
			}
			slices.SortFunc(shares[i], byKey)
		})
	}
	all.Wait()
	sorted := make([]byte, 0, records*size)
	for len(sorted) < records*size {
		least := -1
		for i, s := range shares {
			if len(s) > 0 && (least < 0 || byKey(s[0], shares[least][0]) < 0) {
				least = i
			}
		}
		sorted = append(sorted, shares[least][0]...)
		shares[least] = shares[least][1:]
	}
	for i := size; i < len(sorted); i += size {
		if byKey(sorted[i-size:], sorted[i:]) > 0 {
			b.Fatal("plain Go has not sorted")
		}
	}
}
