//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/wasmgrid/wasmgrid/cmd/grid/devnet"
	"github.com/wasmgrid/wasmgrid/grid"
)

// startDevnet starts one and waits until its nodes are one realm.
func startDevnet(t *testing.T, w *World, args ...string) (st devnet.State, cmd *exec.Cmd, said *syncBuffer, ended chan struct{}) {
	t.Helper()
	var out syncBuffer
	said, ended = &syncBuffer{}, make(chan struct{})
	cmd = exec.Command(binary(t), append([]string{"devnet", "--json"}, args...)...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = append(w.env, "TMPDIR="+w.dir), w.dir, &out, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // its nodes end by themselves
		<-ended
		if t.Failed() {
			t.Logf("grid devnet: %s", said)
		}
	})
	Eventually(t, "the devnet is ready", func(context.Context) error {
		select {
		case <-ended:
			t.Fatalf("it ended: %s", said)
		default:
		}
		return json.Unmarshal([]byte(out.String()), &st)
	})
	return st, cmd, said, ended
}

// gone waits until no process of a devnet is left.
func gone(t *testing.T, nodes []devnet.NodeState) {
	t.Helper()
	for _, n := range nodes {
		Eventually(t, n.Name+" has ended", func(context.Context) error {
			err := syscall.Kill(n.PID, 0)
			if errors.Is(err, syscall.ESRCH) {
				return nil
			}
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", n.PID))
			if len(line) > 0 && !bytes.Contains(line, []byte(n.Home)) {
				return nil // its number was given to another, or it waits for its parent
			}
			if stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.PID)); bytes.Contains(stat, []byte(") Z ")) {
				return nil
			}
			return fmt.Errorf("process %d is there: %v", n.PID, err)
		})
	}
}

// TestDevnet runs a job on a slow swarm of three, one of which is killed meanwhile, and leaves nothing behind.
func TestDevnet(t *testing.T) {
	w := NewWorld(t)
	module := guest(t, "probe")
	st, cmd, said, ended := startDevnet(t, w, "3", "--latency", "3ms±1ms", "--kill", "2s", "--seed", "7", "--set", "up.label=of=devnet")
	if len(st.Nodes) != 3 || !st.Ready || st.Nodes[2].PID == 0 {
		t.Fatalf("%+v", st)
	}
	if out := w.Must("devnet", "ls"); !strings.Contains(out, "ready") {
		t.Error(out)
	}
	if r := w.Grid("devnet", "1"); r.Exit != 68 || !strings.Contains(r.Stderr, "grid devnet down") {
		t.Errorf("a second one of that name: exit %d: %s", r.Exit, r.Stderr)
	}
	home := st.Nodes[0].Home
	r := w.Grid("run", "--home", home, "--quiet", "--count", "30", module, "args", "hello")
	if r.Exit != 0 || strings.Count(r.Stdout, "hello") != 30 {
		t.Errorf("exit %d: %s%s", r.Exit, r.Stdout, r.Stderr)
	}
	if out := w.Must("status", "--home", home); !strings.Contains(out, "of=devnet") {
		t.Error(out)
	}
	Eventually(t, "a node is killed and comes back", func(context.Context) error {
		if !strings.Contains(said.String(), "killed a node") || !strings.Contains(said.String(), "is up again") {
			return errors.New(said.String())
		}
		return nil
	})
	all := st.Nodes
	var now []devnet.State
	if err := json.Unmarshal([]byte(w.Must("devnet", "ls", "--json")), &now); err != nil || len(now) != 1 {
		t.Fatalf("%v %v", now, err)
	}
	for _, n := range now[0].Nodes {
		if n.PID != 0 {
			all = append(all, n)
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	<-ended
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit %d: %s", code, said)
	}
	gone(t, all)
	if _, err := os.Stat(st.Dir); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", st.Dir, err)
	}
}

// TestDevnetKept: a private swarm in a folder is there again the next time, with one node more; and when the devnet is killed, no node
// stays.
func TestDevnetKept(t *testing.T) {
	w := NewWorld(t)
	dir := filepath.Join(w.dir, "kept")
	w.Must("devnet", "2", "-d", "--private", "--dir", dir, "--name", "kept")
	home, data := filepath.Join(dir, "node-1"), filepath.Join(w.dir, "data")
	if err := os.WriteFile(data, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	id := strings.Fields(w.Must("add", "--home", home, "--quiet", data))[0]
	w.Must("devnet", "down", "kept")
	st, cmd, _, ended := startDevnet(t, w, "3", "--private", "--dir", dir, "--name", "kept")
	w.Must("stat", "--home", st.Nodes[0].Home, id)
	// Whoever is on the machine sees command lines: no token is on that of a node in the background.
	token, late := strings.TrimSpace(w.Must("swarm", "invite", "--home", home)), filepath.Join(w.dir, "late")
	w.Must("up", "-d", "--home", late, "--join", token, "--listen", "/ip4/127.0.0.1/tcp/0", "--no-mdns", "--no-upnp")
	var node grid.NodeStatus
	if err := json.Unmarshal([]byte(w.Must("status", "--home", late, "--json")), &node); err != nil || node.Private == nil {
		t.Fatalf("%+v %v", node, err)
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", node.PID))
	if err != nil || !bytes.Contains(line, []byte(late)) || bytes.Contains(line, []byte("grid-join-")) {
		t.Errorf("its command line is %q, %v", line, err)
	}
	w.Must("down", "--home", late)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
	gone(t, st.Nodes)
	if out := w.Must("devnet", "ls", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("what runs: %s", out)
	}
}

// TestDevnetFails: what a node that does not start has to say is told, and the others are ended.
func TestDevnetFails(t *testing.T) {
	w := NewWorld(t)
	r := w.Grid("devnet", "2", "--set", "up.listen=/ip4/192.0.2.1/tcp/1")
	if r.Exit == 0 || !strings.Contains(r.Stderr, "has ended: exit status") || !strings.Contains(r.Stderr, "192.0.2.1") {
		t.Errorf("exit %d: %s", r.Exit, r.Stderr)
	}
	if r := w.Grid("devnet", "2", "--set", "up.workrs=1"); r.Exit != 66 || !strings.Contains(r.Stderr, "up.workers") {
		t.Errorf("exit %d: %s", r.Exit, r.Stderr)
	}
}
