package daemon

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"bytes"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/toolchain"
)

// spawner is a node on its own and the module of plugins/nqueens.
func spawner(tb testing.TB) (*Daemon, grid.Link) {
	tb.Helper()
	d, err := Open(tb.Context(), Config{Home: filepath.Join(tb.TempDir(), "home"), Embedded: true})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := d.Close(); err != nil {
			tb.Error(err)
		}
	})
	binary := toolchain.Go(tb, "github.com/wasmgrid/wasmgrid/plugins/nqueens", "-buildmode=c-shared")
	c, _, err := d.node.Files.Add(tb.Context(), bytes.NewReader(binary))
	if err != nil {
		tb.Fatal(err)
	}
	return d, grid.Link{Cid: c}
}

// queens has the nodes count the ways to put n queens on a board.
func queens(tb testing.TB, d *Daemon, module grid.Link, n, cut int) (grid.JobStatus, string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	id, err := d.node.Submit(ctx, grid.Request{NoCache: true, Spec: grid.Spec{Stages: []grid.Stage{{
		Module: module, Func: "queens", Tasks: 1, Args: []string{"-n", strconv.Itoa(n), "-cut", strconv.Itoa(cut)}, Limits: grid.Limits{Memory: 64 << 20},
	}}}})
	if err != nil {
		tb.Fatal(err)
	}
	var last grid.JobStatus
	if err := d.node.Watch(ctx, id, func(st grid.JobStatus) error { last = st; return nil }); err != nil {
		tb.Fatal(err)
	}
	var out string
	if err := d.node.Tasks(ctx, id, false, func(e grid.TaskEnd) error { out += string(e.Stdout.Data); return nil }); err != nil {
		tb.Fatal(err)
	}
	return last, out
}

// TestSpawn runs tasks that spawn tasks on all that a node is made of.
func TestSpawn(t *testing.T) {
	d, module := spawner(t)
	for cut, spawned := range []uint64{0, 8, 50, 190} {
		st, out := queens(t, d, module, 8, cut)
		if st.State != grid.Done || out != "92\n" || st.Stages[0].Spawned != spawned {
			t.Errorf("cut off at %d: %+v, %q, want %d spawned", cut, st, out, spawned)
		}
	}
}

// BenchmarkSpawn counts on boards that have their first rows' queens; with small boards it is the price of a task that
// is spawned and awaited.
func BenchmarkSpawn(b *testing.B) {
	d, module := spawner(b)
	for _, size := range []struct{ n, cut int }{{8, 4}, {12, 0}, {12, 2}, {12, 3}} {
		b.Run(fmt.Sprintf("n=%d/cut=%d", size.n, size.cut), func(b *testing.B) {
			var tasks uint64
			for b.Loop() {
				st, _ := queens(b, d, module, size.n, size.cut)
				if st.State != grid.Done {
					b.Fatal(st.Error)
				}
				tasks += st.Stages[0].Spawned + 1
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(tasks), "us/task")
		})
	}
}
