// Package e2e tests the grid as its users meet it: the real binary, real sockets on loopback, homes in
// temporary folders, and processes that are killed. A World is one swarm of its own.
package e2e

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/cmd/grid/daemon"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

// patience is how long anything may take before a test gives up on it.
const patience = 2 * time.Minute

// World is a swarm and the commands that use it. Its nodes find one another by the rendezvous folder
// of this world, so that worlds do not meet.
type World struct {
	t     testing.TB
	dir   string
	swarm string // "": nodes are told none
	env   []string
	// within are network namespaces, by the names of the nodes that are in them and listen everywhere there. far: these do not find one another
	// by a folder.
	within map[string]string
	far    bool
	// program is the command that nodes run; "": the one that was built.
	program string
	// launch starts the process of a node; nil: as any.
	launch func(*exec.Cmd) error
}

// NewWorld prepares an empty world, which ends with the test.
func NewWorld(t testing.TB) *World {
	t.Helper()
	dir, err := os.MkdirTemp("", "ge2e") // t.TempDir's names are too long for unix sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Cleanup(func() {
		reports, _ := filepath.Glob(filepath.Join(dir, "race.*"))
		for _, r := range reports {
			text, err := os.ReadFile(r)
			t.Errorf("a race in a command: %s%v", text, err)
		}
	})
	binary(t)
	return &World{
		t:     t,
		dir:   dir,
		swarm: fmt.Sprintf("e2e-%d-%d", os.Getpid(), time.Now().UnixNano()%1e9),
		env: append(os.Environ(),
			"HOME="+dir, "XDG_DATA_HOME=", "XDG_CONFIG_HOME=", "XDG_CACHE_HOME="+sharedCache(),
			"XDG_RUNTIME_DIR="+filepath.Join(dir, "run"), "GRID_HOME="+filepath.Join(dir, "alone"),
			"GOPATH="+goEnv("GOPATH"), "GOCACHE="+goEnv("GOCACHE"), "GOENV="+goEnv("GOENV"), "NO_COLOR=1",
			"GORACE=log_path="+filepath.Join(dir, "race")), // processes that are killed have told of it, too
	}
}

// Result is what a command came to.
type Result struct {
	Stdout, Stderr string
	Exit           int
}

// Grid runs a command to its end, with no node unless flags or environment name one.
func (w *World) Grid(args ...string) Result {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary(w.t), args...)
	cmd.Env, cmd.Dir = w.env, w.dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatalf("grid %s: %v", strings.Join(args, " "), err)
	}
	return Result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// Must is Grid for commands that have to succeed; it returns what they print.
func (w *World) Must(args ...string) string {
	w.t.Helper()
	r := w.Grid(args...)
	if r.Exit != 0 {
		w.t.Fatalf("grid %s: exit code %d\n%s%s", strings.Join(args, " "), r.Exit, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// Node is one `grid up`.
type Node struct {
	w    *World
	Home string
	ID   string
	cmd  *exec.Cmd
	log  *syncBuffer
	done chan struct{} // closed when the process has ended
	*api.Client
}

// Up starts a node and waits until it answers. It is ended with the test.
func (w *World) Up(name string, flags ...string) *Node {
	w.t.Helper()
	n := w.launchUp(name, flags...)
	n.answers(name)
	return n
}

// launchUp starts a node. It is ended with the test.
func (w *World) launchUp(name string, flags ...string) *Node {
	w.t.Helper()
	n := &Node{w: w, Home: filepath.Join(w.dir, name), log: &syncBuffer{}, done: make(chan struct{})}
	args := []string{cmp.Or(w.program, binary(w.t)), "up", "--home", n.Home, "--no-mdns", "--no-upnp"}
	if w.far {
		args = append(args, "--no-nearby")
	}
	if ns := w.within[name]; ns != "" {
		args = append([]string{"ip", "netns", "exec", ns}, args...)
	} else if !slices.Contains(flags, "--listen") {
		args = append(args, "--listen", "/ip4/127.0.0.1/tcp/0")
	}
	if w.swarm != "" {
		args = append(args, "--swarm", w.swarm)
	}
	args = append(args, flags...)
	n.cmd = exec.Command(args[0], args[1:]...)
	n.cmd.Env, n.cmd.Dir = w.env, w.dir
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	launch := w.launch
	if launch == nil {
		launch = (*exec.Cmd).Start
	}
	if err := launch(n.cmd); err != nil {
		w.t.Fatal(err)
	}
	go func() { _ = n.cmd.Wait(); close(n.done) }()
	w.t.Cleanup(func() {
		_ = n.cmd.Process.Signal(os.Interrupt)
		select {
		case <-n.done:
		case <-time.After(20 * time.Second):
			w.t.Errorf("node %s did not stop when asked to", name)
			_ = n.cmd.Process.Kill()
			<-n.done
		}
		if w.t.Failed() {
			w.t.Logf("log of node %s:\n%s", name, n.log)
		}
	})
	n.Client = api.Dial(daemon.Socket(n.Home))
	return n
}

// answers waits until the node answers.
func (n *Node) answers(name string) {
	n.w.t.Helper()
	Eventually(n.w.t, name+" answers", func(ctx context.Context) error {
		select {
		case <-n.done:
			n.w.t.Fatalf("node %s ended:\n%s", name, n.log)
		default:
		}
		st, err := n.Node(ctx)
		n.ID = st.ID
		return err
	})
}

// Kill ends the node's process without warning, as kill -9 does.
func (n *Node) Kill() {
	n.w.t.Helper()
	if err := n.cmd.Process.Kill(); err != nil {
		n.w.t.Fatal(err)
	}
	<-n.done
}

// Grid runs a command against this node.
func (n *Node) Grid(args ...string) Result {
	n.w.t.Helper()
	return n.w.Grid(append(args[:1:1], append([]string{"--home", n.Home}, args[1:]...)...)...)
}

// Must is Grid for commands that have to succeed.
func (n *Node) Must(args ...string) string {
	n.w.t.Helper()
	return n.w.Must(append(args[:1:1], append([]string{"--home", n.Home}, args[1:]...)...)...)
}

// Meet waits until every node sees every other.
func (w *World) Meet(nodes ...*Node) {
	w.t.Helper()
	w.Strangers(nodes...)
	names := make(map[string]string)
	for _, n := range nodes {
		st, err := n.Node(context.Background())
		if err != nil || st.Ledger == nil {
			w.t.Fatalf("%s: %v", n.Home, err)
		}
		names[n.ID] = st.Ledger.Realm
	}
	for _, n := range nodes {
		Eventually(w.t, n.Home+" shares a realm with those of its name", func(ctx context.Context) error {
			peers, err := n.Peers(ctx)
			for _, p := range peers {
				if names[p.ID.String()] == names[n.ID] && p.Realm != "ours" {
					err = fmt.Errorf("not with %s", p.ID)
				}
			}
			return err
		})
	}
}

// Strangers is Meet for nodes of different realms.
func (w *World) Strangers(nodes ...*Node) {
	w.t.Helper()
	for _, n := range nodes {
		Eventually(w.t, n.Home+" sees the others", func(ctx context.Context) error {
			peers, err := n.Peers(ctx)
			if err == nil && len(peers) < len(nodes)-1 {
				err = fmt.Errorf("%d peers", len(peers))
			}
			return err
		})
	}
}

// Eventually tries f until it gives no error.
func Eventually(t testing.TB, what string, f func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		err := f(ctx)
		if err == nil {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("waited %v: %s: %v", patience, what, err)
		}
	}
}

// Status reads a job's state through `grid job --json`, as a script would.
func (n *Node) Status(job string) grid.JobStatus {
	n.w.t.Helper()
	var st grid.JobStatus
	out := n.Must("job", job, "--json")
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		n.w.t.Fatalf("grid job --json printed %q: %v", out, err)
	}
	return st
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

var build struct {
	sync.Once
	dir, path string
	err       error
}

// binary builds the grid command once for all tests.
func binary(t testing.TB) string {
	t.Helper()
	build.Do(func() {
		if build.dir, build.err = os.MkdirTemp("", "grid-e2e-"); build.err != nil {
			return
		}
		build.path = filepath.Join(build.dir, "grid")
		build.err = buildGrid(build.path)
	})
	if build.err != nil {
		t.Fatal(build.err)
	}
	return build.path
}

// raceEnabled is whether the tests run with the race detector, as all commands do then.
var raceEnabled = func() bool {
	info, _ := debug.ReadBuildInfo()
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}()

// buildGrid builds the grid command.
func buildGrid(path string, flags ...string) error {
	args := append([]string{"build", "-o", path}, flags...)
	if raceEnabled {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "github.com/wasmgrid/wasmgrid/cmd/grid")...).CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %v\n%s", err, out)
	}
	return nil
}

var guests sync.Map // names to func() error

// guest builds the guest in a folder of testdata, once for all tests, and returns its module.
func guest(t testing.TB, name string) string {
	t.Helper()
	binary(t) // its folder takes the module, too
	module := filepath.Join(build.dir, "guests", name+".wasm")
	once, _ := guests.LoadOrStore(name, sync.OnceValue(func() error {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-w", "-o", module, "./testdata/"+name)
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %v\n%s", err, out)
		}
		return nil
	}))
	if err := once.(func() error)(); err != nil {
		t.Fatal(err)
	}
	return module
}

// sharedCache lets all worlds share built modules.
func sharedCache() string { return filepath.Join(build.dir, "cache") }

var goEnvs sync.Map

func goEnv(name string) string {
	if v, ok := goEnvs.Load(name); ok {
		return v.(string)
	}
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		return ""
	}
	v := strings.TrimSpace(string(out))
	goEnvs.Store(name, v)
	return v
}

// repo is the root of the source tree.
func repo(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// tree lists the files below dir with their hashes, for comparing two of them.
func tree(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		fmt.Fprintf(&b, "%s %x\n", rel, sha256.Sum256(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
