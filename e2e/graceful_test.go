//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

// end asks the node to end in good order, waits until it has, and tells how long that took.
func (n *Node) end() time.Duration {
	n.w.t.Helper()
	began := time.Now()
	if err := n.cmd.Process.Signal(os.Interrupt); err != nil {
		n.w.t.Fatal(err)
	}
	select {
	case <-n.done:
	case <-time.After(patience):
		n.w.t.Fatalf("%s has not ended after %v", n.Home, patience)
	}
	if !n.cmd.ProcessState.Success() {
		n.w.t.Errorf("%s, which was to end in good order, has ended with: %v\n%s", n.Home, n.cmd.ProcessState, n.log)
	}
	return time.Since(began)
}

// clerk writes to the ledger without a pause, each time by another node that is up, and remembers what was acknowledged.
type clerk struct {
	cancel context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex
	acked []string      // keys, whose values are their own names
	last  time.Time     // of the last one
	gap   time.Duration // the longest between two
}

// newClerk starts one that writes to keys that begin with prefix.
func newClerk(prefix string, up func(i int) *Node) *clerk {
	ctx, cancel := context.WithCancel(context.Background())
	c := &clerk{cancel: cancel, done: make(chan struct{}), last: time.Now()}
	go func() {
		defer close(c.done)
		for i := 0; ctx.Err() == nil; i++ {
			key := prefix + strconv.Itoa(i)
			one, stop := context.WithTimeout(ctx, 10*time.Second)
			_, err := up(i).KVPut(one, key, []byte(key), api.KVCond{})
			stop()
			if err != nil {
				continue // it may be there or not
			}
			c.mu.Lock()
			c.acked = append(c.acked, key)
			c.gap, c.last = max(c.gap, time.Since(c.last)), time.Now()
			c.mu.Unlock()
		}
	}()
	return c
}

// longest is the longest gap so far; it is counted anew from here on.
func (c *clerk) longest() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := max(c.gap, time.Since(c.last))
	c.gap = 0
	return d
}

// check ends it, and looks for everything that was acknowledged.
func (c *clerk) check(t *testing.T, n *Node) {
	t.Helper()
	c.cancel()
	<-c.done
	if len(c.acked) == 0 {
		t.Error("nothing was written to the ledger")
	}
	for _, key := range c.acked {
		if e, err := n.KVGet(t.Context(), key, false); err != nil || string(e.Value) != key {
			t.Fatalf("%s, which was acknowledged, is %q, %v", key, e.Value, err)
		}
	}
}

// TestGraceful ends nodes of a realm in good order while they are busy: the owner of a job, the leader of the ledger, and who merely works. The others
// go on with what it did at once, nobody waits for leases or sessions to run out, and nothing is lost.
func TestGraceful(t *testing.T) {
	t.Parallel()
	long(t)
	const size = 3
	c := newCrew(t, size, "--workers", "1")
	defer c.tell()
	for round, who := range []string{"owner", "leader", "worker"} {
		const tasks = 100
		work := 20_000 + round // new to the nodes, which remember results
		leader := c.leader()
		owner := (leader + 1) % size
		job := detach(t, c.node(owner), tasks, work)
		progress(t, c.node(owner), job, 10)
		victim := map[string]int{"owner": owner, "leader": leader, "worker": (leader + 2) % size}[who]
		left := c.node((victim + 1) % size)
		cl := newClerk(fmt.Sprintf("graceful/%d/", round), func(i int) *Node { return c.node((victim + 1 + i%(size-1)) % size) })
		before, err := left.Job(t.Context(), grid.JobID(job))
		if err != nil {
			t.Fatal(err)
		}
		took := c.node(victim).end()
		ended := time.Now()
		var after grid.JobStatus
		Eventually(t, "the job goes on", func(ctx context.Context) (err error) {
			after, err = left.Job(ctx, grid.JobID(job))
			if err == nil && (booked(after) <= booked(before) || who == "owner" && after.Epoch == before.Epoch) {
				err = fmt.Errorf("%s, epoch %d, %d done", after.State, after.Epoch, booked(after))
			}
			return err
		})
		next := time.Since(ended)
		Eventually(t, "the job ends", func(ctx context.Context) (err error) {
			if after, err = left.Job(ctx, grid.JobID(job)); err == nil && !after.State.Final() {
				err = fmt.Errorf("%s, %d done", after.State, booked(after))
			}
			return err
		})
		t.Logf("%s: ended in %v; the job went on %v later, and ended %v later with %d tasks that were left; the longest gap between writes was %v", who, took.Round(time.Millisecond),
			next.Round(time.Millisecond), time.Since(ended).Round(time.Millisecond), tasks-booked(before), cl.longest().Round(time.Millisecond))
		if after.State != grid.Done || output(t, left, job) != burned(tasks, work) {
			t.Errorf("job %s is %s: %s", job, after.State, after.Error)
		}
		if moved := after.Epoch != before.Epoch; moved != (who == "owner") {
			t.Errorf("the %s has left, and epoch %d has become %d", who, before.Epoch, after.Epoch)
		}
		cl.check(t, left)
		c.start(victim)
		realmOf(t, size, c.nodes...)
		c.caughtUp()
	}
}

// TestEndsOnce: whoever asks twice, or before the node is up, harms nothing: the home is as good as before.
func TestEndsOnce(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	n := w.Up("n", "--workers", "1")
	n.Must("kv", "put", "a", "b")
	job := detach(t, n, 50, 100_000)
	ran(t, n, 1)
	for range 2 { // the second one kills it, if it is not over by then
		_ = n.cmd.Process.Signal(syscall.SIGTERM)
	}
	<-n.done
	// While it starts: right away, and when it has written something.
	for _, wait := range []string{"", "store", "api.sock"} {
		cmd := exec.Command(binary(t), "up", "--home", n.Home, "--no-mdns", "--no-upnp", "--listen", "/ip4/127.0.0.1/tcp/0", "--swarm", w.swarm, "--workers", "1")
		cmd.Env, cmd.Dir = w.env, w.dir
		said := &syncBuffer{}
		cmd.Stdout, cmd.Stderr = said, said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		Eventually(t, wait+" is there", func(context.Context) error {
			_, err := os.Stat(filepath.Join(n.Home, wait))
			return err
		})
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		over := make(chan error, 1)
		go func() { over <- cmd.Wait() }()
		select {
		case err := <-over:
			if x := (*exec.ExitError)(nil); err != nil && !errors.As(err, &x) {
				t.Errorf("a node that was to end while it starts: %v: %s", err, said)
			}
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			t.Fatalf("a node that was to end while it starts goes on: %s", said)
		}
	}
	n = w.Up("n", "--workers", "2")
	if got := n.Must("kv", "get", "a"); got != "b" {
		t.Errorf("what was written before is %q", got)
	}
	n.Must("wait", job)
	if output(t, n, job) != burned(50, 100_000) {
		t.Error("the job has another answer")
	}
}

// TestDrainBusy: a node that is drained while it works and keeps the only copy of something, and then ended for good, is missed by nobody.
func TestDrainBusy(t *testing.T) {
	t.Parallel()
	long(t)
	w := NewWorld(t)
	a, b, c := w.Up("a", "--workers", "1"), w.Up("b", "--workers", "1"), w.Up("c", "--workers", "1")
	realmOf(t, 3, a, b, c)
	file := filepath.Join(w.dir, "file")
	if err := os.WriteFile(file, []byte(strings.Repeat("only one copy\n", 100_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	root := strings.Fields(a.Must("add", file))[0]
	job := detach(t, a, 100, 25_000)
	progress(t, a, job, 5)
	// What jobs need is kept by three nodes, and there is no fourth one to take this one's place. That is told instead of waited for.
	if r := a.Grid("node", "drain"); r.Exit == 0 || !strings.Contains(r.Stderr, "cannot be handed on") || !strings.Contains(r.Stderr, "grid pin ls") {
		t.Errorf("grid node drain: exit code %d: %s", r.Exit, r.Stderr)
	}
	a.end()
	b.Must("wait", job)
	if output(t, c, job) != burned(100, 25_000) {
		t.Error("the job has another answer")
	}
	if got := c.Must("cat", root); got != strings.Repeat("only one copy\n", 100_000) {
		t.Errorf("%d bytes of what the other node kept", len(got))
	}
}
