//go:build unix

package p2p_test

import (
	"syscall"
	"testing"
	"time"
)

// A process that is stopped keeps its sockets, so nothing but silence tells.
func TestSilence(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 14 s")
	}
	t.Parallel()
	a := open(t)
	cmd, id := startChild(t, a)
	until(t, a, id, true, 5*time.Second)
	start := time.Now()
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	until(t, a, id, false, 20*time.Second)
	t.Logf("noticed after %v", time.Since(start))
}
