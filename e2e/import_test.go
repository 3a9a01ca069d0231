package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAddAgain: a folder that has not changed is not read a second time, and one whose blocks are gone is.
func TestAddAgain(t *testing.T) {
	src := filepath.Join(goEnv("GOROOT"), "src", "archive") // has been left alone for a while
	w := NewWorld(t)
	first := w.Grid("add", src)
	again := w.Grid("add", src)
	if first.Exit != 0 || again.Exit != 0 || first.Stdout != again.Stdout {
		t.Fatalf("%+v, then %+v", first, again)
	}
	if strings.Contains(first.Stderr, "as before") || !strings.Contains(again.Stderr, "as before") {
		t.Errorf("said %q, then %q", first.Stderr, again.Stderr)
	}
	home := filepath.Join(w.dir, "alone")
	if err := os.RemoveAll(filepath.Join(home, "store")); err != nil {
		t.Fatal(err)
	}
	after := w.Grid("add", src)
	if after.Stdout != first.Stdout || strings.Contains(after.Stderr, "as before") {
		t.Errorf("without blocks: %+v", after)
	}
	out := filepath.Join(w.dir, "out")
	w.Must("get", strings.Fields(first.Stdout)[0], "-o", out)
	if diff, err := exec.Command("diff", "-r", src, out).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}
