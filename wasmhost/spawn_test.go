package wasmhost_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/toolchain"
	"github.com/wasmgrid/wasmgrid/wasmhost"
)

// children runs what a guest spawns, at once and by the same host.
type children struct {
	h      *wasmhost.Host
	module cid.Cid
	limits grid.Limits
	most   int
	ctx    context.Context

	list []*childRun
	wait sync.WaitGroup
}

type childRun struct {
	done chan struct{}
	end  grid.Ending
	err  error
}

func (c *children) Spawn(_ context.Context, call grid.Call) (uint32, error) {
	if len(c.list) >= c.most {
		return 0, grid.Errorf(grid.Limit, "spawned more than %d tasks, its limit", c.most)
	}
	r := &childRun{done: make(chan struct{})}
	c.list = append(c.list, r)
	c.wait.Go(func() {
		defer close(r.done)
		out, stdout, stderr, err := spawnRun(c.ctx, c.h, c.module, call.Func, c.limits, c.most, string(call.Stdin), call.Args...)
		r.err = err
		if f := out.Fault; f != nil {
			f.Fatal = f.Code == grid.Deadline
		}
		r.end = grid.Ending{Exit: out.Exit, Fault: out.Fault, Stdout: io.NopCloser(strings.NewReader(stdout)), Stderr: []byte(stderr)}
	})
	return uint32(len(c.list) - 1), nil
}

func (c *children) Ended(i uint32) bool {
	if int(i) >= len(c.list) || c.list[i] == nil {
		return true
	}
	select {
	case <-c.list[i].done:
		return true
	default:
		return false
	}
}

func (c *children) Await(ctx context.Context, i uint32) (grid.Ending, error) {
	if int(i) >= len(c.list) || c.list[i] == nil {
		return grid.Ending{}, grid.Errorf(grid.NotFound, "no task %d", i)
	}
	r := c.list[i]
	select {
	case <-r.done:
		c.list[i] = nil
		return r.end, r.err
	case <-ctx.Done():
		return grid.Ending{}, context.Cause(ctx)
	}
}

// spawnRun runs a function, and ends what it has spawned and not awaited.
func spawnRun(ctx context.Context, h *wasmhost.Host, module cid.Cid, f string, l grid.Limits, most int, stdin string, args ...string) (out grid.Outcome, stdout, stderr string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	c := &children{h: h, module: module, limits: l, most: most, ctx: ctx}
	defer c.wait.Wait()
	defer cancel()
	var o, e bytes.Buffer
	out, err = h.Run(ctx, &grid.Guest{Module: module, Func: f, Args: append([]string{"main"}, args...), Env: []string{"GRID_ABI=1", "GRID_FUNC=" + f},
		Stdin: strings.NewReader(stdin), Stdout: &o, Stderr: &e, Limits: l, Tasks: c})
	return out, o.String(), e.String(), err
}

func TestSpawn(t *testing.T) {
	var l loader
	id := l.add(toolchain.Go(t, "./testdata/spawn", "-buildmode=c-shared"))
	const limit = 16 << 20
	// Room for one guest at a time: whoever waits must make room for those that it waits for.
	h := closing(t)(wasmhost.OpenCompiled(wasmhost.Config{Load: l.load, CacheDir: machineCode, MemoryTotal: limit}))
	run := func(t *testing.T, f, stdin string, l grid.Limits, args ...string) (grid.Outcome, string, string, error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		l.Memory = limit
		return spawnRun(ctx, h, id, f, l, 100, stdin, args...)
	}
	t.Run("fib", func(t *testing.T) {
		var fuel uint64
		for range 3 {
			out, got, text, err := run(t, "fib", "8", grid.Limits{})
			if err != nil || out.Fault != nil || out.Exit != 0 || got != "21" {
				t.Fatalf("%+v, %q, %s, %v", out, got, text, err)
			}
			if fuel != 0 && out.Fuel != fuel {
				t.Errorf("%d fuel, before %d", out.Fuel, fuel)
			}
			fuel = out.Fuel
			if out.Parked == 0 {
				t.Error("it never waited")
			}
		}
	})
	t.Run("deep", func(t *testing.T) {
		if out, got, text, err := run(t, "deep", "50", grid.Limits{}); err != nil || out.Fault != nil || got != "50" {
			t.Errorf("%+v, %q, %s, %v", out, got, text, err)
		}
	})
	t.Run("failures", func(t *testing.T) {
		out, got, text, err := run(t, "watch", "", grid.Limits{}, "echo=a", "fail", "trap", "none", "echo=b")
		want := `echo=b: "[x ] b" <nil>
none: "" task none: exit code 1: this program has no function "none", only: fib, deep, fail, trap, spin, echo, watch, bomb
trap: "" task trap: exit code 1: panic: runtime error: invalid memory address or nil pointer dereference
`
		if err != nil || out.Fault != nil || !strings.HasPrefix(got, want) || !strings.HasSuffix(got, `fail: "" task fail: exit code 1: on purpose
echo=a: "[x ] a" <nil>
`) || text != "" {
			t.Errorf("%+v, %v, %s\n%s", out, err, text, got)
		}
	})
	t.Run("bomb", func(t *testing.T) {
		out, _, _, err := run(t, "bomb", "", grid.Limits{})
		if err != nil || out.Fault == nil || out.Fault.Code != grid.Limit || !strings.Contains(out.Fault.Message, "more than 100 tasks") {
			t.Errorf("%+v, %v", out, err)
		}
	})
	t.Run("time", func(t *testing.T) { // a child that runs for too long ends its parent, whose own time has not run
		out, got, _, err := run(t, "watch", "", grid.Limits{Wall: 300 * time.Millisecond}, "spin")
		if err != nil || out.Fault == nil || out.Fault.Code != grid.Deadline || !out.Fault.Fatal || got != "" {
			t.Errorf("%+v, %v, %q", out.Fault, err, got)
		}
		if out.Run > out.Parked {
			t.Errorf("it ran for %v and waited for %v", out.Run, out.Parked)
		}
	})
	t.Run("cancel", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, _, _, err := spawnRun(ctx, h, id, "watch", grid.Limits{Memory: limit}, 100, "", "spin"); grid.CodeOf(err) != grid.Deadline {
			t.Error(err)
		}
	})
	t.Run("nobody runs tasks", func(t *testing.T) {
		var stdout bytes.Buffer
		out, err := h.Run(t.Context(), &grid.Guest{Module: id, Func: "watch", Args: []string{"main", "echo"}, Env: []string{"GRID_ABI=1", "GRID_FUNC=watch"},
			Limits: grid.Limits{Memory: limit}, Stdout: &stdout})
		if want := "echo: \"\" spawn echo: tasks cannot be spawned here\n"; err != nil || out.Exit != 0 || stdout.String() != want {
			t.Errorf("%+v, %v, %q", out, err, stdout.String())
		}
	})
	if h.Parked() != 0 {
		t.Errorf("%d bytes are parked", h.Parked())
	}
}

// BenchmarkSpawn spawns and awaits a task that does next to nothing.
func BenchmarkSpawn(b *testing.B) {
	var l loader
	id := l.add(toolchain.Go(b, "./testdata/spawn", "-buildmode=c-shared"))
	h := closing(b)(wasmhost.OpenCompiled(wasmhost.Config{Load: l.load}))
	for b.Loop() {
		out, got, _, err := spawnRun(b.Context(), h, id, "deep", grid.Limits{}, 100, "60")
		if err != nil || out.Fault != nil || got != "50" {
			b.Fatal(fmt.Sprint(out.Fault, got, err))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/60, "us/task")
}
