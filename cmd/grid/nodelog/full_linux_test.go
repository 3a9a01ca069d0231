package nodelog

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDeviceFull: on a disk that fills up the lines that are there are whole, and it goes on once there is room.
func TestDeviceFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("grid-log-test", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("no tmpfs can be mounted here: %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	name := filepath.Join(dir, "log")
	f, err := openFile(name, 40<<10) // a second one of that size does not fit
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l := open(t, Config{Out: f})
	line := strings.Repeat("x", 1000)
	for range 200 {
		l.Logger().Info(line)
	}
	for ctx := within(t); ; {
		if lost, why := l.Lost(); lost > 0 && strings.Contains(why, "no space left") {
			break
		}
		if ctx.Err() != nil {
			t.Fatal("a full disk is not noticed")
		}
	}
	if err := os.Remove(name + ".1"); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	l.Logger().Info("room again")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(name)
	if err != nil || !strings.HasSuffix(string(data), "\n") {
		t.Errorf("%v: the log has no whole last line", err)
	}
	for s := range strings.Lines(string(data)) {
		if !strings.HasPrefix(s, "time=") {
			t.Errorf("a line is broken: %.60q", s)
		}
	}
}
