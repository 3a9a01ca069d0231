package daemon

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shortDir is a temporary folder whose name leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// up opens a node on loopback that joins the given addresses.
func up(t *testing.T, home string, join ...string) *Daemon {
	t.Helper()
	d, err := Open(t.Context(), Config{
		Home: home, Swarm: "daemon-test", Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Join: join,
		NoMDNS: true, NoNearby: true, Workers: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

func add(t *testing.T, c *api.Client, data []byte) (link grid.Link) {
	t.Helper()
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	_ = tw.WriteHeader(&tar.Header{Name: "m", Size: int64(len(data)), Mode: 0o644, Typeflag: tar.TypeReg})
	_, _ = tw.Write(data)
	_ = tw.Close()
	if _, err := c.Add(t.Context(), &archive, func(e grid.FileInfo) { link = e.CID }); err != nil {
		t.Fatal(err)
	}
	return link
}

func submit(t *testing.T, c *api.Client, tasks uint32, module grid.Link) grid.JobID {
	t.Helper()
	id, err := c.Submit(t.Context(), grid.Request{Spec: grid.Spec{Stages: []grid.Stage{{Module: module, Tasks: tasks}}}})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func wait(t *testing.T, c *api.Client, id grid.JobID) grid.JobStatus {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	st, err := c.Watch(ctx, id, func(grid.JobStatus) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// until watches a job until cond holds.
func until(t *testing.T, c *api.Client, id grid.JobID, cond func(grid.JobStatus) bool) {
	t.Helper()
	met := errors.New("met")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := c.Watch(ctx, id, func(st grid.JobStatus) error {
		if cond(st) {
			return met
		}
		return nil
	})
	if !errors.Is(err, met) {
		t.Fatalf("the job ended before: %v", err)
	}
}

// TestSwarm joins three whole nodes in one process, so that the race detector sees all rooms at work
// together. One goes away in the middle, and the job completes all the same.
func TestSwarm(t *testing.T) {
	dir := shortDir(t)
	a := up(t, filepath.Join(dir, "a"))
	b := up(t, filepath.Join(dir, "b"), a.Status().Addrs...)
	c := up(t, filepath.Join(dir, "c"), a.Status().Addrs...)

	client := api.Dial(Socket(a.cfg.Home))
	defer client.Close()
	for _, d := range []*Daemon{a, b, c} {
		await(t, func() bool { return oursOf(d.node.Peers()) == 2 })
	}
	const tasks = 400
	id := submit(t, client, tasks, add(t, client, wasmbytes.Spin(2_000_000))) // for long enough that all have a part
	ran := func(d *Daemon) func(grid.JobStatus) bool {
		return func(st grid.JobStatus) bool { return st.Stages[0].Nodes[d.Status().ID] > 0 }
	}
	until(t, client, id, ran(b))
	until(t, client, id, ran(c))
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	st := wait(t, client, id)
	if st.State != grid.Done || st.Stages[0].Done != tasks || st.Stages[0].Failed != 0 {
		t.Fatalf("ended as %+v", st)
	}
	var sum uint32
	for _, n := range st.Stages[0].Nodes {
		sum += n
	}
	if sum != tasks {
		t.Errorf("the nodes ran %d tasks, want %d counted: %v", sum, tasks, st.Stages[0].Nodes)
	}

	// What b ran it fetched once, the module and the spec, and not for each task. A block may come twice when the first that was asked
	// takes its time.
	moved, err := b.describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if moved.Stolen == 0 || moved.Store.Wasted > 20 {
		t.Errorf("b stole %d tasks and got %d blocks twice", moved.Stolen, moved.Store.Wasted)
	}
}

// TestCancel stops a job on all nodes: nothing of it runs any more soon after.
func TestCancel(t *testing.T) {
	dir := shortDir(t)
	a := up(t, filepath.Join(dir, "a"))
	b := up(t, filepath.Join(dir, "b"), a.Status().Addrs...)
	client := a.Client()
	id := submit(t, client, 10, add(t, client, wasmbytes.Loop()))
	idle := func(d *Daemon) bool { l := d.node.Load(); return l.Running == 0 && l.Queued == 0 }
	eventually(t, "both nodes run it", func() bool { return !idle(a) && !idle(b) })
	if err := client.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both nodes are idle", func() bool { return idle(a) && idle(b) })
	if st := wait(t, client, id); st.State != grid.Cancelled {
		t.Errorf("state %s", st.State)
	}
	if err := client.Cancel(t.Context(), id); grid.CodeOf(err) != grid.Conflict {
		t.Errorf("a second cancel: %v", err)
	}
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestHomeIsExclusive(t *testing.T) {
	home := filepath.Join(shortDir(t), "home")
	first := up(t, home)
	_, err := Open(t.Context(), Config{Home: home, Embedded: true})
	if grid.CodeOf(err) != grid.Busy || !strings.Contains(err.Error(), home) || grid.AdviceOf(err) == "" {
		t.Errorf("a second node on one home: %v (%s)", err, grid.AdviceOf(err))
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := Open(t.Context(), Config{Home: home, Embedded: true})
	if err != nil {
		t.Fatalf("after the first was closed: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if err := second.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

// A socket that a killed process left behind is replaced; a home with a long name has its socket elsewhere.
func TestSocket(t *testing.T) {
	home := filepath.Join(shortDir(t), "home")
	if err := os.MkdirAll(home, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(Socket(home), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	up(t, home)
	client := api.Dial(Socket(home))
	defer client.Close()
	st, err := client.Node(t.Context())
	if err != nil || st.Home != home {
		t.Fatalf("%+v, %v", st, err)
	}
	info, err := os.Stat(Socket(home))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket mode %v, %v", info.Mode(), err)
	}

	t.Setenv("XDG_RUNTIME_DIR", shortDir(t))
	long := filepath.Join(home, strings.Repeat("long", 30))
	if p := Socket(long); len(p) > maxSocket || strings.HasPrefix(p, home) {
		t.Errorf("Socket(%q) = %q", long, p)
	}
	if Socket(long) == Socket(long+"er") {
		t.Error("two homes share a socket")
	}
}

// Opening fails as a whole: what was opened before the failure is closed again.
func TestOpenFails(t *testing.T) {
	home := filepath.Join(shortDir(t), "home")
	for name, c := range map[string]Config{
		"swarm":  {Swarm: "No Swarm"},
		"listen": {Listen: []string{"nowhere"}},
		"join":   {Join: []string{"/ip4/127.0.0.1/tcp/1"}},
	} {
		c.Home = home
		if d, err := Open(t.Context(), c); err == nil {
			d.Close()
			t.Errorf("%s: opened", name)
		} else if grid.CodeOf(err) != grid.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	up(t, home)
	file := filepath.Join(home, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Config{Home: filepath.Join(file, "home"), Embedded: true}); err == nil {
		t.Error("opened below a file")
	}
}

// TestShutdown is what `grid down` does.
func TestShutdown(t *testing.T) {
	d := up(t, filepath.Join(shortDir(t), "home"))
	client := api.Dial(Socket(d.cfg.Home))
	defer client.Close()
	if err := client.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-d.Done()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Node(t.Context()); grid.CodeOf(err) != grid.Unavailable {
		t.Errorf("a node that is gone answered: %v", err)
	}
}

func ExampleSocket() {
	fmt.Println(Socket("/home/me/.local/share/grid"))
	// Output: /home/me/.local/share/grid/api.sock
}
