package e2e

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

// burned is what testdata/burn prints for tasks 0..n-1, computed here.
func burned(n, rounds int) string {
	var b strings.Builder
	for i := range n {
		sum := sha256.Sum256([]byte(strconv.Itoa(i)))
		for range rounds {
			sum = sha256.Sum256(sum[:])
		}
		fmt.Fprintf(&b, "%d %x\n", i, sum[:8])
	}
	return b.String()
}

// output is what the tasks of a job wrote to stdout, in order of their numbers.
func output(t *testing.T, n *Node, job string) string {
	t.Helper()
	var ends []grid.TaskEnd
	if err := n.Tasks(t.Context(), grid.JobID(job), false, func(e grid.TaskEnd) error {
		ends = append(ends, e)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	sort.Slice(ends, func(i, j int) bool { return ends[i].Index < ends[j].Index })
	var b strings.Builder
	for _, e := range ends {
		b.Write(e.Stdout.Data)
	}
	return b.String()
}

// progress waits until a job has at least so many tasks done.
func progress(t *testing.T, n *Node, job string, tasks uint32) {
	t.Helper()
	Eventually(t, fmt.Sprintf("%d tasks of %s done", tasks, job), func(ctx context.Context) error {
		st, err := n.Job(ctx, grid.JobID(job))
		if err != nil {
			return err
		}
		if st.State.Final() {
			t.Fatalf("job %s has ended before it was to: %s %s", job, st.State, st.Error)
		}
		if len(st.Stages) == 0 {
			return errors.New("its owner does not know yet")
		}
		if st.Stages[0].Done < tasks {
			return fmt.Errorf("%d done", st.Stages[0].Done)
		}
		return nil
	})
}

// TestThreeNodes: nodes that were told nothing of one another find each other, and a job submitted to
// one is run by all three; every block crosses to a node once.
func TestThreeNodes(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	a, b, c := w.Up("a", "--workers", "1"), w.Up("b", "--workers", "1"), w.Up("c", "--workers", "1")
	w.Meet(a, b, c)

	const tasks, rounds = 120, 20_000
	job := strings.TrimSpace(a.Must("run", burn(t), "--count", strconv.Itoa(tasks), "--detach", "--", strconv.Itoa(rounds)))
	a.Must("wait", job)
	st := a.Status(job)
	if st.State != grid.Done || st.Stages[0].Done != tasks {
		t.Fatalf("job ended as %+v", st)
	}
	for _, n := range []*Node{a, b, c} {
		if st.Stages[0].Nodes[n.ID] == 0 {
			t.Errorf("node %s ran nothing: %v", n.ID, st.Stages[0].Nodes)
		}
	}
	if got := output(t, a, job); got != burned(tasks, rounds) {
		t.Errorf("wrong results:\n%s", got)
	}
	for _, n := range []*Node{b, c} {
		ns, err := n.Node(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// A task and the copying of what its job needs may ask for the same few blocks at one moment.
		if ns.Store.BlocksIn == 0 || ns.Store.Wasted > ns.Store.BlocksIn/2 {
			t.Errorf("node %s fetched %d blocks, %d of them twice", n.ID, ns.Store.BlocksIn, ns.Store.Wasted)
		}
	}
	if ps := a.Must("ps", "-a"); !strings.Contains(ps, job[:8]) {
		t.Errorf("grid ps -a does not list %s:\n%s", job, ps)
	}
}

// TestWorkerKilled: a node that holds leases is killed in the middle of a job; the job completes, and
// its results are exact.
func TestWorkerKilled(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	a, b, c := w.Up("a", "--workers", "1"), w.Up("b", "--workers", "1", "--realm", "other", "--share", "cpu=100%"), w.Up("c", "--workers", "1")
	w.Meet(a, b, c)

	const tasks, rounds = 150, 20_000
	job := strings.TrimSpace(a.Must("run", burn(t), "--offload", "--verify", "none", "--count", strconv.Itoa(tasks), "--detach", "--", strconv.Itoa(rounds)))
	progress(t, a, job, 20)
	b.Kill()
	a.Must("wait", job)
	if got := output(t, a, job); got != burned(tasks, rounds) {
		t.Errorf("wrong results:\n%s", got)
	}
}

// TestOwnerRestarted: the node that owns a job is killed and started again; it takes the job up where
// it was, from the receipts it has.
func TestOwnerRestarted(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	a := w.Up("a", "--workers", "1")
	const tasks, rounds = 100, 20_000
	job := strings.TrimSpace(a.Must("run", burn(t), "--count", strconv.Itoa(tasks), "--detach", "--", strconv.Itoa(rounds)))
	progress(t, a, job, 20)
	a.Kill()
	a = w.Up("a", "--workers", "1")
	a.Must("wait", job)
	if got := output(t, a, job); got != burned(tasks, rounds) {
		t.Errorf("wrong results:\n%s", got)
	}
	if st := a.Status(job); st.Stages[0].Cached == 0 {
		t.Errorf("nothing that was done before the kill was used: %+v", st.Stages[0])
	}
}

// TestDataAcrossNodes: what is added on one node is read on another, which then serves it too.
func TestDataAcrossNodes(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	a, b := w.Up("a"), w.Up("b")
	w.Meet(a, b)
	src := filepath.Join(repo(t), "grid")
	root := strings.TrimSpace(a.Must("add", "-q", src))
	b.Must("get", root, "-o", filepath.Join(w.dir, "copy"))
	if x, y := tree(t, src), tree(t, filepath.Join(w.dir, "copy")); x != y {
		t.Errorf("the copy differs:\n%s\nfrom\n%s", y, x)
	}
	a.Kill()
	if got := b.Must("cat", root+"/doc.go"); !strings.Contains(got, "package grid") {
		t.Errorf("grid cat printed %q", got)
	}
}

// burn is the folder of the guest that works for a while.
func burn(t *testing.T) string { return filepath.Join(repo(t), "e2e", "testdata", "burn") }
