package e2e

import (
	"bufio"
	"os"
	"os/exec"
	"testing"
	"time"
)

// Background is a command that goes on, such as `grid dash`.
type Background struct {
	cmd   *exec.Cmd
	lines chan string
	log   *syncBuffer
	done  chan struct{}
	t     testing.TB
}

// Begin starts a command for this node; it is ended with the test.
func (n *Node) Begin(args ...string) *Background {
	n.w.t.Helper()
	return n.w.Begin(append(args[:1:1], append([]string{"--home", n.Home}, args[1:]...)...)...)
}

// Begin starts a command; it is ended with the test.
func (w *World) Begin(args ...string) *Background {
	w.t.Helper()
	b := &Background{cmd: exec.Command(binary(w.t), args...), lines: make(chan string, 1000), log: &syncBuffer{}, done: make(chan struct{}), t: w.t}
	b.cmd.Env, b.cmd.Dir, b.cmd.Stderr = w.env, w.dir, b.log
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := b.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		defer close(b.done)
		for s := bufio.NewScanner(out); s.Scan(); {
			select {
			case b.lines <- s.Text():
			default: // nobody reads so much
			}
		}
		_ = b.cmd.Wait()
	}()
	w.t.Cleanup(b.End)
	return b
}

// Line waits for the next line of its output.
func (b *Background) Line() string {
	b.t.Helper()
	select {
	case l := <-b.lines:
		return l
	case <-b.done:
		b.t.Fatalf("%v has ended:\n%s", b.cmd.Args, b.log)
	case <-time.After(patience):
		b.t.Fatalf("%v prints no line:\n%s", b.cmd.Args, b.log)
	}
	return ""
}

// Log is what it has written to standard error.
func (b *Background) Log() string { return b.log.String() }

// End interrupts it, and waits until it has ended.
func (b *Background) End() {
	_ = b.cmd.Process.Signal(os.Interrupt)
	select {
	case <-b.done:
	case <-time.After(20 * time.Second):
		_ = b.cmd.Process.Kill()
		<-b.done
		b.t.Errorf("%v did not end when asked to", b.cmd.Args)
	}
}

// Clean removes what was built for all tests of a package; its TestMain calls it at the end.
func Clean() {
	if build.dir != "" {
		os.RemoveAll(build.dir)
	}
}
