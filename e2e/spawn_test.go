//go:build unix

package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// idle waits until nothing runs or is queued on any of the nodes.
func idle(t *testing.T, nodes ...*Node) {
	t.Helper()
	for _, n := range nodes {
		Eventually(t, n.Home+" is idle", func(ctx context.Context) error {
			st, err := n.Node(ctx)
			if err == nil && (st.Load.Running > 0 || st.Load.Queued > 0 || st.Jobs > 0) {
				err = fmt.Errorf("%+v, %d jobs", st.Load, st.Jobs)
			}
			return err
		})
	}
}

// TestSpawn: a command alone runs tasks that spawn tasks, and knows their results the next time.
func TestSpawn(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	plugin := filepath.Join(repo(t), "plugins", "nqueens")
	for _, args := range []string{"-n 7 -cut 0", "-n 7 -cut 2", "-n 7 -cut 6"} {
		if out := w.Must(append([]string{"run", plugin, "--func", "queens", "--"}, strings.Fields(args)...)...); out != "40\n" {
			t.Errorf("%s: %q", args, out)
		}
	}
	if r := w.Grid("run", plugin, "--func", "queens", "--memory", "4MiB", "--", "-n", "99"); r.Exit == 0 || !strings.Contains(r.Stderr, "want a board") {
		t.Errorf("exit code %d, %s", r.Exit, r.Stderr)
	}
}

// TestSpawnOnThree: what one task spawns runs on all nodes, although one of them is killed; and ends on all of them
// when the job is cancelled.
func TestSpawnOnThree(t *testing.T) {
	t.Parallel()
	long(t)
	w := NewWorld(t)
	a, b, c := w.Up("a", "--workers", "1"), w.Up("b", "--workers", "1"), w.Up("c", "--workers", "1")
	realmOf(t, 3, a, b, c) // so that it goes on without b
	plugin := filepath.Join(repo(t), "plugins", "nqueens")
	out := a.Must("run", plugin, "--func", "queens", "--", "-n", "12", "-cut", "3")
	if out != "14200\n" {
		t.Errorf("%q", out)
	}

	// Sixteen queens are some minutes' work.
	job := strings.TrimSpace(a.Must("run", plugin, "--func", "queens", "--no-cache", "--detach", "--", "-n", "16", "-cut", "3"))
	before := map[*Node]uint64{}
	for _, n := range []*Node{a, b, c} {
		st, err := n.Node(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		before[n] = st.Ran
	}
	for _, n := range []*Node{b, c} {
		ran(t, n, before[n]+1)
	}
	b.Kill()
	ran(t, c, before[c]+3)
	a.Must("cancel", job)
	began := time.Now()
	idle(t, a, c)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the nodes were idle only %v after the job was cancelled", took)
	}
	if st := a.Status(job); st.State != grid.Cancelled {
		t.Errorf("the job is %s", st.State)
	}
}
