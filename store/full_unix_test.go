//go:build unix

package store

import (
	"context"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
)

func init() { onFull = openFull }

// openFull opens a store where nothing can be written any more: files may have no bytes in this process.
func openFull(dir string) {
	signal.Ignore(syscall.SIGXFSZ)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{}); err != nil {
		panic(err)
	}
	if _, err := Open(context.Background(), Config{Dir: dir}); err != nil {
		panic(err)
	}
}

// TestCannotGoOn: when the database cannot be written the process ends with what a person can do, and without a trace.
func TestCannotGoOn(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "STORE_TEST_FULL="+t.TempDir())
	out, err := cmd.CombinedOutput()
	said := string(out)
	if err == nil || strings.Contains(said, "goroutine") || !strings.HasPrefix(said, "grid: ") || !strings.Contains(said, "\n  hint: ") {
		t.Errorf("%v: %s", err, said)
	}
}
