//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// rounds says how many rounds of a test of faults to do, and the first seed. A longer proof, of one kind of test:
//
//	GRID_ROUNDS=50 GRID_SEED=1000 go test ./e2e -run TestFailover -timeout 4h -v
func rounds(t *testing.T, usual int) (n int, seed uint64) {
	t.Helper()
	n, seed = usual, 1
	for name, f := range map[string]func(s string) error{
		"GRID_ROUNDS": func(s string) (err error) { n, err = strconv.Atoi(s); return err },
		"GRID_SEED":   func(s string) (err error) { seed, err = strconv.ParseUint(s, 10, 64); return err },
	} {
		if s := os.Getenv(name); s != "" {
			if err := f(s); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	return n, seed
}

// crew is the nodes of a realm that are killed and started again.
type crew struct {
	t     *testing.T
	w     *World
	r     *rand.Rand
	flags []string // of each node

	mu    sync.Mutex // only for clients that go on while nodes are replaced
	nodes []*Node
}

func (c *crew) node(i int) *Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[i]
}

func newCrew(t *testing.T, size int, flags ...string) *crew {
	t.Helper()
	return crewIn(t, NewWorld(t), size, flags...)
}

// crewIn is newCrew in a world of somebody's.
func crewIn(t *testing.T, w *World, size int, flags ...string) *crew {
	t.Helper()
	c := &crew{t: t, w: w, flags: flags}
	for i := range size {
		c.nodes = append(c.nodes, c.w.Up("n"+strconv.Itoa(i), flags...))
	}
	realmOf(t, min((size-1)|1, 5), c.nodes...)
	return c
}

// tell logs how each node sees the ledger, when the test has failed.
func (c *crew) tell() {
	if !c.t.Failed() {
		return
	}
	for i, n := range c.nodes {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		if st, err := n.Node(ctx); err == nil && st.Ledger != nil {
			c.t.Logf("node %d, %s: %+v", i, n.ID, *st.Ledger)
		} else {
			c.t.Logf("node %d, %s: %v", i, n.ID, err)
		}
		cancel()
	}
}

// kill ends nodes at once, as kill -9 does.
func (c *crew) kill(which ...int) {
	var wg sync.WaitGroup
	for _, i := range which {
		wg.Go(c.nodes[i].Kill)
	}
	wg.Wait()
}

func (c *crew) start(which ...int) {
	c.t.Helper()
	for _, i := range which {
		n := c.w.Up("n"+strconv.Itoa(i), c.flags...)
		c.mu.Lock()
		c.nodes[i] = n
		c.mu.Unlock()
	}
}

// find is the number of the node with an ID, or -1.
func (c *crew) find(id string) int {
	return slices.IndexFunc(c.nodes, func(n *Node) bool { return n.ID == id })
}

// leader is the number of the node that leads the ledger, as others see it.
func (c *crew) leader() (leader int) {
	c.t.Helper()
	Eventually(c.t, "a leader", func(ctx context.Context) error {
		for _, n := range c.nodes {
			if st, err := n.Node(ctx); err == nil && st.Ledger != nil {
				if leader = c.find(st.Ledger.Leader); leader >= 0 {
					return nil
				}
			}
		}
		return errors.New("nobody knows one")
	})
	return leader
}

// but draws a node that is none of some.
func (c *crew) but(others ...int) int {
	for {
		if i := c.r.IntN(len(c.nodes)); !slices.Contains(others, i) {
			return i
		}
	}
}

// victims says who is killed in a round of a kind, given who submitted the job and who drives it.
var victims = []struct {
	what string
	who  func(c *crew, submitter, owner int) []int
}{
	{"the owner", func(c *crew, _, owner int) []int { return []int{owner} }},
	{"two at once", func(c *crew, _, owner int) []int {
		leader := c.leader()
		if leader == owner {
			leader = c.but(owner)
		}
		return []int{owner, leader}
	}},
	{"all", func(c *crew, _, _ int) []int { return c.r.Perm(len(c.nodes)) }},
	{"the submitter", func(_ *crew, submitter, _ int) []int { return []int{submitter} }},
	{"the ledger's leader", func(c *crew, _, _ int) []int { return []int{c.leader()} }},
	{"a worker", func(c *crew, _, owner int) []int { return []int{c.but(owner, c.leader())} }},
	{"any two", func(c *crew, _, _ int) []int { return c.r.Perm(len(c.nodes))[:2] }},
}

// booked is how many tasks of a job of one stage are known to be done.
func booked(st grid.JobStatus) uint32 {
	if len(st.Stages) == 0 {
		return 0
	}
	return st.Stages[0].Done
}

// TestFailover: whichever nodes die at whatever moment, a job that was acknowledged ends with the exact answer, as
// all nodes that are left tell, and what it publishes is published once.
func TestFailover(t *testing.T) {
	t.Parallel()
	long(t)
	many, seed := rounds(t, 2)
	c := newCrew(t, 5, "--workers", "1")
	defer c.tell()
	const tasks = 1000
	for round := range many {
		kind := victims[round%len(victims)]
		s := seed + uint64(round)
		c.r = rand.New(rand.NewPCG(s, 0))
		t.Logf("round %d, seed %d: kill %s", round, s, kind.what)
		submitter := c.r.IntN(len(c.nodes))
		work := 3000 + round // some seconds in all, and new to the nodes, which remember results
		want := burned(tasks, work)
		job := strings.TrimSpace(c.nodes[submitter].Must("run", guest(t, "burn"), "--count", strconv.Itoa(tasks), "--detach",
			"--publish", "latest", "--", strconv.Itoa(work)))
		// At a moment from the acknowledgement to near the end. Somebody else tells how far it is.
		until := uint32(c.r.IntN(tasks * 9 / 10))
		if round%4 == 3 {
			until = 0
		}
		var before grid.JobStatus
		Eventually(t, fmt.Sprintf("%d tasks of %s are done", until, job), func(ctx context.Context) (err error) {
			if before, err = c.nodes[submitter].Job(ctx, grid.JobID(job)); err == nil && booked(before) < until && !before.State.Final() {
				err = fmt.Errorf("%d done", booked(before))
			}
			return err
		})
		dead := kind.who(c, submitter, c.find(before.Owner))
		c.kill(dead...)
		killed := time.Now()
		if len(dead) == len(c.nodes) {
			c.start(dead...)
			dead = nil
		}
		left := c.but(dead...)
		taken := time.Duration(0)
		var after grid.JobStatus
		Eventually(t, fmt.Sprintf("job %s ends, after %v were killed at %d tasks", job, dead, booked(before)), func(ctx context.Context) (err error) {
			if after, err = c.nodes[left].Job(ctx, grid.JobID(job)); err != nil {
				return err
			}
			if taken == 0 && after.Epoch > before.Epoch && booked(after) > booked(before) {
				taken = time.Since(killed)
			}
			if !after.State.Final() {
				return fmt.Errorf("%s, epoch %d, %+v", after.State, after.Epoch, after.Stages)
			}
			return nil
		})
		t.Logf("killed %v after %d of %d tasks; epoch %d became %d; the next task after %v, the end after %v",
			dead, booked(before), tasks, before.Epoch, after.Epoch, taken.Round(time.Millisecond), time.Since(killed).Round(time.Millisecond))
		for i, n := range c.nodes {
			if slices.Contains(dead, i) {
				continue
			}
			st, err := n.Job(t.Context(), grid.JobID(job))
			if err != nil || st.State != grid.Done || booked(st) != tasks {
				t.Errorf("node %d tells of the job: %+v, %v", i, st, err)
			}
			ref, err := n.Ref(t.Context(), "latest")
			if err != nil || ref.Job != grid.JobID(job) || ref.Count != uint64(round+1) {
				t.Errorf("node %d tells of the ref %+v, %v; want one set %d times, by %s", i, ref, err, round+1, job)
			}
			if got := output(t, n, job); got != want {
				t.Errorf("node %d gives wrong results: %d lines, want %d", i, strings.Count(got, "\n"), tasks)
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d", s)
		}
		if round < many-1 {
			c.start(dead...)
			realmOf(t, len(c.nodes), c.nodes...)
		}
	}
}
