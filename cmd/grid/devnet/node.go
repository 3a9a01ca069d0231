package devnet

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/wasmgrid/wasmgrid/cmd/grid/config"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

// maxTail is how much of a node's log is shown.
const maxTail = 4 << 10

// node is one process.
type node struct {
	net    *Net
	name   string
	home   string
	client *api.Client

	mu     sync.Mutex
	id     string
	cmd    *exec.Cmd     // of the last start
	stdin  io.Closer     // ends it
	done   chan struct{} // closed when it has ended
	ended  string        // how; "": it runs
	code   int           // its exit code; -1: a signal
	asked  bool          // that it ends was our doing
	starts int
}

func (x *node) log() string { return filepath.Join(x.home, "grid.log") }

func (x *node) state() NodeState {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := NodeState{Name: x.name, Home: x.home, ID: x.id, Starts: x.starts, Ended: x.ended}
	if x.cmd != nil && x.cmd.Process != nil && x.ended == "" {
		s.PID = x.cmd.Process.Pid
	}
	return s
}

// start writes the node's settings, starts its process and waits until it answers.
func (x *node) start(ctx context.Context) error {
	if err := x.configure(); err != nil {
		return err
	}
	if err := x.launch(); err != nil {
		return grid.Errorf(grid.Internal, "devnet: start %s: %w", x.name, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, grid.Errorf(grid.Deadline, "devnet: %s did not answer within %v", x.name, startTimeout).Hint("see %s", x.log()))
	defer cancel()
	for {
		st, err := x.client.Node(ctx)
		if pid := x.state().PID; err == nil && st.PID == pid {
			x.mu.Lock()
			x.id = st.ID
			x.mu.Unlock()
			return nil
		}
		select {
		case <-x.done:
			return x.failure()
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(poll):
		}
	}
}

// configure writes the file that makes it a node of the devnet, however it is started.
func (x *node) configure() error {
	text := []byte("# Written by `grid devnet` at each start.\n")
	all := x.net.settings()
	for i := range x.net.cfg.Table {
		s := &x.net.cfg.Table[i]
		values, ok := all[s.Key()]
		if !ok {
			continue
		}
		var err error
		if text, err = config.Set(text, s, values); err != nil {
			return err
		}
	}
	return config.Write(filepath.Join(x.home, config.FileName), text)
}

// launch starts the process, with its output in its log and a standard input that ends with us.
func (x *node) launch() error {
	log, err := os.OpenFile(x.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(x.net.cfg.Program, "up", "--home", x.home, "--end-with-stdin")
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = x.net.environ(), x.home, log, log
	cmd.SysProcAttr = apart()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	x.mu.Lock()
	x.cmd, x.stdin, x.done, x.ended, x.asked = cmd, stdin, done, "", false
	x.starts++
	x.mu.Unlock()
	go func() { // ends with the process, which stop and kill see to
		_ = cmd.Wait()
		x.mu.Lock()
		x.ended, x.code = cmd.ProcessState.String(), cmd.ProcessState.ExitCode()
		asked := x.asked
		x.mu.Unlock()
		close(done)
		if !asked {
			select {
			case x.net.ended <- x:
			default: // nobody listens any more
			}
		}
	}()
	return nil
}

// environ is what is in a node's environment: nothing of ours that would make it another node.
func (n *Net) environ() (env []string) {
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, "GRID_") && name != "XDG_CONFIG_HOME" && name != "NOTIFY_SOCKET" {
			env = append(env, v)
		}
	}
	return append(env, "XDG_CONFIG_HOME="+filepath.Join(n.dir, "config")) // where there is nothing
}

// stop ends the process in good order, or, if that takes too long, at once.
func (x *node) stop() {
	x.mu.Lock()
	x.asked = true
	stdin, done := x.stdin, x.done
	x.mu.Unlock()
	if done == nil {
		return // it never began
	}
	_ = stdin.Close()
	late := time.NewTimer(stopTimeout)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
		x.kill()
	}
}

// kill ends the process without warning.
func (x *node) kill() {
	x.mu.Lock()
	x.asked = true
	cmd, done := x.cmd, x.done
	x.mu.Unlock()
	if done == nil {
		return
	}
	_ = cmd.Process.Kill() // an error: it has ended
	<-done
}

// failed reports whether the process ended by itself, with an error. That somebody ended or killed it is none.
func (x *node) failed() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.ended != "" && !x.asked && x.code > 0
}

// failure says how a process ended that was not to end, in its own words.
func (x *node) failure() error {
	return grid.Errorf(grid.Unavailable, "devnet: %s has ended: %s\n%s", x.name, x.state().Ended, tail(x.log(), maxTail)).Hint("all of its log is %s", x.log())
}
