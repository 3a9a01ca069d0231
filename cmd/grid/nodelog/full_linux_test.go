package nodelog

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmgrid/wasmgrid/grid"
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
	f, err := OpenFile(name, 40<<10) // a second one of that size does not fit
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l := open(t, Config{Out: f})
	line := strings.Repeat("x", 1000)
	for range 200 {
		l.Logger().Info(line)
	}
	// It may have room again by now, where putting files aside has removed one: that it was full is in what is kept.
	for ctx := within(t); len(records(t, l, grid.RecordQuery{Grep: "cannot be written.*no space left"})) == 0; {
		if ctx.Err() != nil {
			t.Fatal("a full disk is not noticed")
		}
		runtime.Gosched()
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for ctx := within(t); ; { // what waited goes first, and may be too much at once
		for _, old := range []string{name + ".1", name + ".2"} {
			if err := os.Remove(old); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
		l.Logger().Info("room again")
		<-tick.C
		if data, err := os.ReadFile(name); err == nil && strings.Contains(string(data), "room again") {
			break
		}
		if ctx.Err() != nil {
			t.Fatal("it does not go on")
		}
	}
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
