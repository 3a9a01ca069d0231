//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
)

// TestPrivateSwarmOfMany: twenty processes join a private swarm over links that take 50 ms each way, share one ledger, do a job
// together, and throw one out.
func TestPrivateSwarmOfMany(t *testing.T) {
	long(t)
	manyJoin(t, 20, 50*time.Millisecond)
}

// TestPrivateSwarmOfFew is the same for a moment's work.
func TestPrivateSwarmOfFew(t *testing.T) { manyJoin(t, 4, 5*time.Millisecond) }

func manyJoin(t *testing.T, nodes int, delay time.Duration) {
	w := NewWorld(t)
	w.swarm = ""
	w.env = append(w.env, "GOGC=50")
	lanes, err := newLanes(t, nodes, delay)
	if err != nil {
		t.Logf("NO DELAYS: this machine allows no networks of their own for processes: %v", err)
	}
	module := filepath.Join(w.dir, "env.wasm")
	if err := os.WriteFile(module, wasmbytes.Env(5_000_000), 0o600); err != nil {
		t.Fatal(err)
	}
	up := func(i int, flags ...string) *Node {
		at := *w
		if lanes != nil {
			at.launch = lanes[i].start
			flags = append(flags, "--listen", fmt.Sprintf("/ip4/%s/tcp/%d", lanes[i].addr, lanePort))
		}
		flags = append(flags, "--no-nearby", "--workers", "1", "--task-memory", "1GiB", "--store-quota", "256MiB")
		return at.Up(fmt.Sprint("n", i), flags...)
	}
	w.Must("swarm", "init", "--name", "many", "--home", filepath.Join(w.dir, "n0"))
	all := make([]*Node, nodes)
	all[0] = up(0)
	first := all[0]
	voters := min(4, nodes-2)
	tokens := []string{
		strings.TrimSpace(first.Must("swarm", "invite", "--uses", strconv.Itoa(voters))),
		strings.TrimSpace(first.Must("swarm", "invite", "--role", "worker", "--uses", strconv.Itoa(nodes-1-voters))),
	}
	first.Must("kv", "put", "k", "v")
	reads := func(ctx context.Context, n *Node) error {
		e, err := n.KVGet(ctx, "k", false)
		if err == nil && string(e.Value) != "v" {
			err = fmt.Errorf("it reads %q", e.Value)
		}
		return err
	}
	began := time.Now()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var took []time.Duration
	slots := make(chan struct{}, 2*runtime.NumCPU()) // processes that begin at once
	for i := 1; i < nodes; i++ {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			start := time.Now()
			all[i] = up(i, "--join", tokens[min(1, (i-1)/voters)])
			Eventually(t, "it reads the ledger", func(ctx context.Context) error { return reads(ctx, all[i]) })
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(start))
		})
	}
	wg.Wait()
	t.Cleanup(func() { // to leave one after the other in good order would take longer than all the rest
		for _, n := range all {
			if n != nil {
				n.Kill()
			}
		}
	})
	if t.Failed() {
		return
	}
	t.Logf("%d nodes joined and read the ledger within %v, each in %v to %v", nodes-1, time.Since(began), slices.Min(took), slices.Max(took))
	w.Meet(all...)
	t.Logf("after %v: all see all", time.Since(began))

	by := exactly(t, first, module, 20*nodes)
	if len(by) < nodes/4 {
		t.Errorf("the job was done by %d nodes only", len(by))
	}
	t.Logf("after %v: %d tasks were done by %d nodes", time.Since(began), 20*nodes, len(by))
	throwOut(t, all, all[nodes-1], module, reads)
	t.Logf("after %v: one has lost all that it had", time.Since(began))
	t.Logf("memory of a node: %d MiB", resident(t, all[1])>>20)
}

// exactly runs a job of tasks that write their environment, looks that each was done once, and tells by which nodes.
func exactly(t *testing.T, n *Node, module string, tasks int) map[string]uint32 {
	t.Helper()
	job := strings.TrimSpace(n.Must("run", module, "--count", strconv.Itoa(tasks), "--no-cache", "--detach"))
	n.Must("wait", job)
	st := n.Status(job)
	seen := map[string]bool{}
	if err := n.Tasks(t.Context(), grid.JobID(job), false, func(e grid.TaskEnd) error {
		for _, v := range strings.Split(string(e.Stdout.Data), "\x00") {
			if i, ok := strings.CutPrefix(v, "GRID_TASK="); ok && i == fmt.Sprint(e.Index) && !seen[i] {
				seen[i] = true
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if st.State != grid.Done || len(seen) != tasks || int(st.Stages[0].Done) != tasks {
		t.Errorf("of %d tasks %d are right: %+v", tasks, len(seen), st)
	}
	return st.Stages[0].Nodes
}

// throwOut revokes one of the nodes, and looks that it has lost the others, the ledger, blocks and work.
func throwOut(t *testing.T, all []*Node, out *Node, module string, reads func(context.Context, *Node) error) {
	t.Helper()
	first := all[0]
	data := bytes.Repeat([]byte("for members only\n"), 1000)
	file := filepath.Join(first.Home, "data")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	block := strings.Fields(first.Must("add", file))[0]
	began := time.Now()
	first.Must("member", "revoke", out.ID)
	for _, n := range all {
		Eventually(t, n.Home+" and the one that was revoked have parted", func(ctx context.Context) error {
			peers, err := n.Peers(ctx)
			if err != nil {
				return err
			}
			for _, p := range peers {
				if n == out || p.ID.String() == out.ID {
					return fmt.Errorf("%s is a peer", p.ID)
				}
			}
			return nil
		})
	}
	t.Logf("a revoked node was cut off by all %d within %v of the command's beginning", len(all)-1, time.Since(began))
	brief := func(f func(ctx context.Context) error) error {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		return f(ctx)
	}
	if err := brief(func(ctx context.Context) error { return reads(ctx, out) }); err == nil {
		t.Error("it reads the ledger still")
	}
	if r := out.Grid("cat", "--timeout", "2s", block); r.Exit == 0 || strings.Contains(r.Stdout, "members") {
		t.Errorf("it reads blocks still: %+v", r)
	}
	if by := exactly(t, first, module, 40); by[out.ID] > 0 {
		t.Errorf("it has work still: %v", by)
	}
	if err := brief(func(ctx context.Context) error { return reads(ctx, all[1]) }); err != nil && !errors.Is(err, grid.Deadline) {
		t.Errorf("who was not revoked has lost the ledger: %v", err)
	}
}

// resident is how much memory a node's process has.
func resident(t *testing.T, n *Node) int64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", n.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(data))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
