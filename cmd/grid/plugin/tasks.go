package plugin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"github.com/wasmgrid/wasmgrid/grid"
)

// family is the children of one guest in a case. They run here, when they are awaited. It implements [grid.Tasks].
type family struct {
	r        *Runner
	parent   *grid.Guest
	env      []string // of the stage, which children have too
	depth    int
	known    map[[sha256.Size]byte]*childEnd // of all families of the case: equal children are run once
	dir      string                          // for the files of children
	children []grid.Call
	awaited  []bool
	fuel     *uint64 // of all children
}

// childEnd is how a child has ended.
type childEnd struct {
	out            grid.Outcome
	stdout, stderr []byte
}

// Spawn implements [grid.Tasks].
func (f *family) Spawn(_ context.Context, c grid.Call) (uint32, error) {
	switch {
	case f.depth >= grid.MaxDepth:
		return 0, grid.Errorf(grid.Limit, "spawned a task that %d others wait for, each for the next: at most %d may", f.depth+1, grid.MaxDepth)
	case len(f.children) >= grid.MaxSpawned:
		return 0, grid.Errorf(grid.Limit, "spawned more than %d tasks, its limit", grid.MaxSpawned)
	case len(c.Func) > grid.MaxName:
		return 0, grid.Errorf(grid.Invalid, "the function's name %.40q: want at most %d bytes", c.Func, grid.MaxName)
	case len(c.Stdin) > grid.MaxChildStdin:
		return 0, grid.Errorf(grid.Invalid, "%d bytes of input, at most %d are allowed", len(c.Stdin), grid.MaxChildStdin)
	}
	f.children = append(f.children, c)
	f.awaited = append(f.awaited, false)
	return uint32(len(f.children) - 1), nil
}

// Ended implements [grid.Tasks]: a child runs while it is waited for.
func (f *family) Ended(uint32) bool { return false }

// Await implements [grid.Tasks].
func (f *family) Await(ctx context.Context, n uint32) (grid.Ending, error) {
	if int(n) >= len(f.children) || f.awaited[n] {
		return grid.Ending{}, grid.Errorf(grid.NotFound, "there is no task %d to await", n)
	}
	f.awaited[n] = true
	c := f.children[n]
	f.children[n].Stdin = nil
	key := sha256.Sum256(fmt.Appendf(nil, "%q %q %q", c.Func, c.Args, c.Stdin))
	end := f.known[key]
	if end == nil || f.parent.Impure {
		var err error
		if end, err = f.run(ctx, c); err != nil {
			return grid.Ending{}, err
		}
		f.known[key] = end
	}
	e := grid.Ending{Exit: end.out.Exit, Fault: end.out.Fault, Stderr: end.stderr}
	switch {
	case e.Fault == nil:
		e.Stdout = io.NopCloser(bytes.NewReader(end.stdout))
	case e.Fault.Code == grid.Deadline: // what a node has time for is chance
		e.Fault = &grid.Fault{Fatal: true, Code: grid.Deadline, Message: "a task that it spawned: " + e.Fault.Message}
	}
	return e, nil
}

func (f *family) run(ctx context.Context, c grid.Call) (*childEnd, error) {
	dir, err := os.MkdirTemp(f.dir, "child-*")
	if err != nil {
		return nil, osError(err)
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, grid.ChildInput), c.Stdin, 0o600); err != nil {
		return nil, osError(err)
	}
	in, err := os.OpenRoot(dir)
	if err != nil {
		return nil, osError(err)
	}
	defer in.Close()
	g := *f.parent
	g.Func, g.Args = c.Func, append([]string{"main"}, c.Args...)
	g.Env = guestEnv(c.Func, f.env)
	g.Stdin = bytes.NewReader(c.Stdin)
	g.Mounts = maps.Clone(g.Mounts)
	if g.Mounts == nil {
		g.Mounts = map[string]fs.FS{}
	}
	g.Mounts[grid.GuestIn] = in.FS()
	g.Progress = nil
	own := *f
	own.depth, own.children, own.awaited, own.parent = f.depth+1, nil, nil, &g
	g.Tasks = &own
	var stdout, stderr bytes.Buffer
	g.Stdout, g.Stderr = &stdout, &stderr
	out, err := f.r.Sandbox.Run(ctx, &g)
	if err != nil {
		return nil, err
	}
	*f.fuel += out.Fuel
	return &childEnd{out, stdout.Bytes(), stderr.Bytes()}, nil
}
