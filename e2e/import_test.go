package e2e

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAddAgain: a folder that has not changed is not read a second time, and one whose blocks are gone is.
func TestAddAgain(t *testing.T) {
	t.Parallel()
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

// TestReadFromAfar: of a big file on another node a task has little more moved than what it reads, and so has
// `grid cat` of it all no more than once.
func TestReadFromAfar(t *testing.T) {
	t.Parallel()
	const size, off, part = 64 << 20, 41_000_000, 100_000
	w := NewWorld(t)
	one := w.Up("one")
	two := w.Up("two")
	w.Meet(one, two)
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{4}).Read(data)
	link := addFile(t, one, data)
	moved := func() uint64 {
		st, err := two.Node(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st.Store.BytesIn
	}
	out := two.Must("run", "--mount", link.String()+":/data/big", guest(t, "probe"), "part", "/data/big", "41000000", "100000")
	if out != string(data[off:off+part]) {
		t.Errorf("the task read %d bytes, not those that are there", len(out))
	}
	if n := moved(); n > 8<<20 {
		t.Errorf("%d bytes were moved to read %d", n, part)
	}
	if out := two.Must("cat", link.String()); !bytes.Equal([]byte(out), data) {
		t.Errorf("cat printed %d bytes, not those that are there", len(out))
	}
	if n := moved(); n < size || n > size+8<<20 {
		t.Errorf("%d bytes were moved in all", n)
	}
}
