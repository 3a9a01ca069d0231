//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
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

// TestGraceful ends nodes of a realm in good order, one after the other and each for another reason: the others go on with what it did at once, and
// nothing is lost.
func TestGraceful(t *testing.T) {
	t.Parallel()
	long(t)
	c := newCrew(t, 3, "--workers", "1")
	defer c.tell()
	var mu sync.Mutex
	gone := -1
	up := func(i int) *Node {
		mu.Lock()
		defer mu.Unlock()
		if i%3 == gone {
			i++
		}
		return c.node(i % 3)
	}
	for round, who := range []string{"owner", "leader", "worker"} {
		const tasks = 400
		work := 20_000 + round
		leader := c.leader()
		submitter := (leader + 1) % 3
		job := detach(t, c.node(submitter), tasks, work)
		progress(t, c.node(submitter), job, 30)
		victim := map[string]int{"owner": submitter, "leader": leader, "worker": (leader + 2) % 3}[who]
		mu.Lock()
		gone = victim
		mu.Unlock()
		cl := newClerk(fmt.Sprintf("graceful/%d/", round), up)
		left := c.node((victim + 1) % 3)
		before, err := left.Job(t.Context(), grid.JobID(job))
		if err != nil {
			t.Fatal(err)
		}
		asked := time.Now()
		ended := make(chan time.Duration, 1)
		go func() { ended <- c.node(victim).end() }()
		var next time.Duration
		var after grid.JobStatus
		Eventually(t, "the job goes on", func(ctx context.Context) (err error) {
			after, err = left.Job(ctx, grid.JobID(job))
			if err == nil && (booked(after) <= booked(before) || who == "owner" && after.Epoch == before.Epoch) {
				err = fmt.Errorf("epoch %d, %d done, %s", after.Epoch, booked(after), after.State)
			}
			return err
		})
		next = time.Since(asked)
		took := <-ended
		Eventually(t, "the job ends", func(ctx context.Context) (err error) {
			after, err = left.Job(ctx, grid.JobID(job))
			if err == nil && !after.State.Final() {
				err = errors.New("not yet")
			}
			return err
		})
		all := time.Since(asked)
		t.Logf("%s: ended in %v, job went on after %v, ended after %v (%d to do), longest gap of writes %v", who, took, next, all, tasks-booked(before), cl.longest())
		if after.State != grid.Done || output(t, left, job) != burned(tasks, work) {
			t.Errorf("job %s is %s: %s", job, after.State, after.Error)
		}
		cl.check(t, left)
		c.start(victim)
		realmOf(t, 3, c.nodes...)
		mu.Lock()
		gone = -1
		mu.Unlock()
	}
}
