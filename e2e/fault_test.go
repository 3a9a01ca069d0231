//go:build unix

package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// ran waits until a node has run at least so many tasks.
func ran(t *testing.T, n *Node, tasks uint64) {
	t.Helper()
	Eventually(t, fmt.Sprintf("%s has run %d tasks", n.Home, tasks), func(ctx context.Context) error {
		st, err := n.Node(ctx)
		if err == nil && st.Ran < tasks {
			err = fmt.Errorf("%d so far", st.Ran)
		}
		return err
	})
}

// address is where a node is joined.
func address(t *testing.T, n *Node) string {
	t.Helper()
	st, err := n.Node(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(st.Addrs) == 0 {
		t.Fatalf("node %s has no address", n.Home)
	}
	return st.Addrs[0]
}

// TestFollowerWhenWorkerDies: the command that waits for a job prints every result once and in order,
// although a worker is killed.
func TestFollowerWhenWorkerDies(t *testing.T) {
	t.Parallel()
	long(t)
	w := NewWorld(t)
	a, b := w.Up("a", "--workers", "1"), w.Up("b", "--workers", "1", "--realm", "other", "--share", "cpu=100%")
	w.Meet(a, b)
	const tasks, rounds = 100, 30_000
	module := guest(t, "burn")
	end := make(chan Result, 1)
	go func() {
		end <- a.Grid("run", module, "--offload", "--verify", "none", "--count", strconv.Itoa(tasks), "--", strconv.Itoa(rounds))
	}()
	ran(t, b, 3)
	b.Kill()
	r := <-end
	if r.Exit != 0 || r.Stdout != burned(tasks, rounds) {
		t.Errorf("exit code %d, and printed:\n%s%s", r.Exit, r.Stdout, r.Stderr)
	}
	if !strings.Contains(r.Stderr, fmt.Sprintf("%d tasks in ", tasks)) {
		t.Errorf("no summary:\n%s", r.Stderr)
	}
}

// TestCancelEverywhere: cancelling a job stops its work on all nodes soon, and leaves none behind.
func TestCancelEverywhere(t *testing.T) {
	t.Parallel()
	long(t)
	w := NewWorld(t)
	nodes := []*Node{w.Up("a", "--workers", "1"), w.Up("b", "--workers", "1"), w.Up("c", "--workers", "1")}
	w.Meet(nodes...)
	a := nodes[0]
	job := detach(t, a, 100_000, 30_000)
	for _, n := range nodes {
		ran(t, n, 2)
	}
	a.Must("cancel", job)
	cancelled := time.Now()
	total := func() (sum uint64) {
		for _, n := range nodes {
			Eventually(t, n.Home+" is idle", func(ctx context.Context) error {
				st, err := n.Node(ctx)
				if err == nil && (st.Load.Running > 0 || st.Load.Queued > 0 || st.Jobs > 0) {
					err = fmt.Errorf("%+v, %d jobs", st.Load, st.Jobs)
				}
				if err == nil {
					sum += st.Ran
				}
				return err
			})
		}
		return sum
	}
	before := total()
	if took := time.Since(cancelled); took > 5*time.Second {
		t.Errorf("the nodes were idle only %v after the job was cancelled", took)
	}
	// Had they anything left of it, it would be run before or along with this.
	const tasks = 10
	a.Must("wait", detach(t, a, tasks, 1))
	if more := total() - before; more < tasks || more > 2*tasks {
		t.Errorf("%d tasks were run after the end of one job, for another one of %d", more, tasks)
	}
	if st := a.Status(job); st.State != grid.Cancelled {
		t.Errorf("the job is %s", st.State)
	}
}

// TestJoinsAndLeaves: a node that comes in the middle of a job gets some of it, and one that leaves in
// good order takes nothing with it.
func TestJoinsAndLeaves(t *testing.T) {
	t.Parallel()
	long(t)
	w := NewWorld(t)
	a := w.Up("a", "--workers", "1")
	const tasks, rounds = 250, 30_000
	job := detach(t, a, tasks, rounds)
	progress(t, a, job, 5)
	b := w.Up("b", "--workers", "1")
	ran(t, b, 5)
	progress(t, a, job, 10)
	Eventually(t, "a copy of the ledger is on the node that stays", func(ctx context.Context) error { // it may have joined the other one's realm
		st, err := a.Node(ctx)
		if err == nil && (st.Ledger.Role == grid.Client || len(st.Ledger.Members) < 2) {
			err = fmt.Errorf("%+v", st.Ledger)
		}
		return err
	})
	b.Must("down")
	a.Must("wait", job)
	if got := output(t, a, job); got != burned(tasks, rounds) {
		t.Errorf("wrong results:\n%s", got)
	}
	if st := a.Status(job); st.Stages[0].Nodes[b.ID] == 0 {
		t.Errorf("nothing is counted for the node that came and went: %v", st.Stages[0].Nodes)
	}
}

// TestWorkerSilent: a worker that says nothing any more, without its connections breaking, costs a job
// some time and nothing else.
func TestWorkerSilent(t *testing.T) {
	t.Parallel()
	long(t)
	w := NewWorld(t)
	a, b := w.Up("a", "--workers", "1"), w.Up("b", "--workers", "1", "--realm", "other", "--share", "cpu=100%")
	w.Meet(a, b)
	const tasks, rounds = 100, 30_000
	job := detach(t, a, tasks, rounds, "--offload", "--verify", "none")
	ran(t, b, 3)
	if err := b.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.cmd.Process.Signal(syscall.SIGCONT) })
	a.Must("wait", job)
	if got := output(t, a, job); got != burned(tasks, rounds) {
		t.Errorf("wrong results:\n%s", got)
	}
}

// TestChain: nodes that know only the address of the one before end up all connected.
func TestChain(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	a := w.Up("a", "--no-nearby")
	b := w.Up("b", "--no-nearby", "--join", address(t, a))
	w.Meet(a, b)
	c := w.Up("c", "--no-nearby", "--join", address(t, b))
	w.Meet(a, b, c)
}

// TestSwarmsApart: nodes of two swarms on one machine do not meet, not even when told to.
func TestSwarmsApart(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	a1, a2 := w.Up("a1"), w.Up("a2")
	other := w.swarm + "x"
	b1 := w.Up("b1", "--swarm", other)
	b2 := w.Up("b2", "--swarm", other, "--join", address(t, a1))
	w.Meet(a1, a2)
	w.Meet(b1, b2)
	Eventually(t, "b2 says why it cannot join", func(context.Context) error {
		if !strings.Contains(b2.log.String(), "is not in the swarm") {
			return fmt.Errorf("its log: %s", b2.log)
		}
		return nil
	})
	for _, n := range []*Node{a1, a2, b1, b2} {
		peers, err := n.Peers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(peers) != 1 {
			t.Errorf("%s has %d peers, want the one of its swarm", n.Home, len(peers))
		}
	}
}

// TestRestart: a node that was ended and started again has its data, jobs and identity.
func TestRestart(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	a := w.Up("a")
	file := filepath.Join(w.dir, "file")
	if err := os.WriteFile(file, []byte("kept\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := strings.TrimSpace(a.Must("add", "-q", file))
	const tasks, rounds = 5, 10
	job := detach(t, a, tasks, rounds)
	a.Must("wait", job)
	a.Must("down")
	again := w.Up("a")
	if again.ID != a.ID {
		t.Errorf("the node was %s and is %s", a.ID, again.ID)
	}
	if got := again.Must("cat", c); got != "kept\n" {
		t.Errorf("grid cat printed %q", got)
	}
	if got := again.Must("logs", job); got != burned(tasks, rounds) {
		t.Errorf("grid logs printed %q", got)
	}
	if st := again.Status(job); st.State != grid.Done || st.Stages[0].Done != tasks {
		t.Errorf("the job is %+v", st)
	}
}

// TestFullDisk: a full disk fails what does not fit, with the reason, and harms nothing else.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	w := NewWorld(t)
	home := filepath.Join(w.dir, "small")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", home).CombinedOutput(); err != nil {
		t.Skipf("no small disk can be mounted here: %v: %s", err, out)
	}
	t.Cleanup(func() { // behind the node's own, which ends it
		if out, err := exec.Command("umount", home).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	a := w.Up("small")
	write := func(name string, size int) (string, []byte) {
		data := make([]byte, size)
		_, _ = rand.Read(data)
		path := filepath.Join(w.dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path, data
	}
	fits, data := write("fits", 5<<20)
	c := strings.TrimSpace(a.Must("add", "-q", fits))
	tooBig, _ := write("too-big", 100<<20)
	r := a.Grid("add", tooBig)
	if r.Exit != 71 || r.Stdout != "" {
		t.Errorf("exit code %d, want 71, and printed %q", r.Exit, r.Stdout)
	}
	for _, want := range []string{"no space", home, "hint: "} {
		if !strings.Contains(r.Stderr, want) {
			t.Errorf("the error does not tell of %q:\n%s", want, r.Stderr)
		}
	}
	if got := a.Must("cat", c); !bytes.Equal([]byte(got), data) {
		t.Error("what was added before is no longer the same")
	}
	if r := a.Grid("run", guest(t, "burn"), "--", "1"); r.Exit != 71 && r.Exit != 0 {
		t.Errorf("a job on a full disk: exit code %d\n%s", r.Exit, r.Stderr)
	}
	a.Must("status")

	// What the failed add has left makes room for something else.
	a.Must("store", "gc")
	other, data := write("other", 20<<20)
	c = strings.TrimSpace(a.Must("add", "-q", other))
	if got := a.Must("cat", c); !bytes.Equal([]byte(got), data) {
		t.Error("what was added after the collection is not the same")
	}
	a.Must("store", "verify")
}
