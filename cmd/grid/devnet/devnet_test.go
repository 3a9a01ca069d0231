package devnet

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/cmd/grid/daemon"
	"github.com/wasmgrid/wasmgrid/grid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// runtimeDir is a short folder for sockets.
func runtimeDir(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "gdn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv("XDG_RUNTIME_DIR", dir)
}

// TestControl: a devnet is found by its name, and ended; one that was killed is not, and what it left is removed.
func TestControl(t *testing.T) {
	runtimeDir(t)
	c, err := listen("one", func() State { return State{Name: "one", PID: 7, Nodes: []NodeState{}} })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listen("one", nil); grid.CodeOf(err) != grid.Conflict || !strings.Contains(grid.AdviceOf(err), "grid devnet down one") {
		t.Errorf("a second one: %v", err)
	}
	dead := filepath.Join(daemon.Devnets(), "dead"+suffix)
	if err := os.WriteFile(dead, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if all, err := List(t.Context()); err != nil || len(all) != 1 || all[0].PID != 7 {
		t.Errorf("%+v %v", all, err)
	}
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("what was left is there: %v", err)
	}
	closed := make(chan error, 1)
	go func() {
		<-c.asked
		closed <- c.close()
	}()
	if err := Down(t.Context(), "one"); err != nil {
		t.Error(err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := Down(t.Context(), "one"); grid.CodeOf(err) != grid.NotFound {
		t.Errorf("a second time: %v", err)
	}
	for _, bad := range []string{"", "../x", "A", strings.Repeat("a", 33)} {
		if _, err := Ask(t.Context(), bad); grid.CodeOf(err) != grid.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestStartConfig(t *testing.T) {
	runtimeDir(t)
	for _, c := range []Config{{Name: "x"}, {Name: "x", Nodes: MaxNodes + 1}, {Name: "x", Nodes: 1, Kill: 1}, {Name: "X", Nodes: 1}} {
		if n, err := Start(t.Context(), c); grid.CodeOf(err) != grid.Invalid {
			t.Errorf("%+v: %v %v", c, n, err)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "devnet.json"), []byte(`{"swarm": "devnet-x", "private": true}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Config{Name: "x", Nodes: 1, Dir: dir}); grid.CodeOf(err) != grid.Conflict {
		t.Errorf("another kind of swarm: %v", err)
	}
}
