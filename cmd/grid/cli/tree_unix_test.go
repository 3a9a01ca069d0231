//go:build unix

package cli

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/wasmgrid/wasmgrid/cmd/grid/daemon"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

// realNode is a fake whose commands speak to a node with a store.
func realNode(t *testing.T) *fakeNode {
	t.Helper()
	d, err := daemon.Open(t.Context(), daemon.Config{Home: t.TempDir(), Embedded: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	f := newFake(t)
	f.client = func() *api.Client { return d.Client() }
	return f
}

// describe tells all that is kept of a tree, by path.
func describe(t *testing.T, dir string) map[string]string {
	t.Helper()
	m := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			m[rel] = "folder"
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			m[rel] = "-> " + target
			return err
		default:
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			m[rel] = fmt.Sprintf("%d bytes %x %v", len(data), sha256.Sum256(data), info.Mode()&0o111 != 0)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func sameTree(t *testing.T, from, to string) {
	t.Helper()
	want, got := describe(t, from), describe(t, to)
	for p, w := range want {
		if got[p] != w {
			t.Errorf("%q came out as %q, want %q", p, got[p], w)
		}
	}
	for p, g := range got {
		if _, ok := want[p]; !ok {
			t.Errorf("%q came out of nothing, as %q", p, g)
		}
	}
}

// oddNames are what names are made of.
var oddNames = []string{
	"a", "b", "é", "e\u0301", "ﬁ", "fi", "Ω", "Ω", "\n", "\r\n", "\t", "\"", "'", "`", "\\", " ", "-", "--", "...", ".x", "~", "*", "?", "[", "]",
	"%2f", "%", "#", "&", ";", "|", "<", ">", "$HOME", "\x01", "\x7f", "\u202e", "日本", "🌍", "CON", "a:b", "0", "Ff", "=", "\u200b",
}

// wildTree is a tree of everything that a file system takes. Files are the same for a seed.
type wildTree struct {
	t     *testing.T
	rand  *rand.Rand
	paths []string // made so far, for links
}

func (w *wildTree) name() string {
	if w.rand.IntN(40) == 0 {
		return strings.Repeat("ü", 127) // 254 bytes
	}
	var b strings.Builder
	for range 1 + w.rand.IntN(3) {
		b.WriteString(oddNames[w.rand.IntN(len(oddNames))])
	}
	if s := b.String(); s != "." && s != ".." {
		return s
	}
	return "dots"
}

func (w *wildTree) fill(dir string, depth int) {
	for range w.rand.IntN(9) {
		p := filepath.Join(dir, w.name())
		if _, err := os.Lstat(p); err == nil {
			continue
		}
		var err error
		switch k := w.rand.IntN(12); {
		case k < 3 && depth < 6:
			err = os.Mkdir(p, 0o777)
			if w.rand.IntN(4) > 0 {
				w.fill(p, depth+1)
			}
		case k < 5:
			targets := append([]string{"nowhere", "..", ".", filepath.Base(p), "/etc/passwd", "../../../../..", "a\nb"}, w.paths...)
			err = os.Symlink(targets[w.rand.IntN(len(targets))], p)
		default:
			err = w.file(p)
		}
		if err != nil {
			w.t.Fatal(err)
		}
		if rel, err := filepath.Rel(dir, p); err == nil {
			w.paths = append(w.paths, rel)
		}
	}
}

func (w *wildTree) file(p string) error {
	sizes := []int{0, 0, 1, 100, 511, 512, 513, 10_000, 1<<20 - 1, 1 << 20, 1<<20 + 1}
	data := make([]byte, sizes[w.rand.IntN(len(sizes))])
	for i := range data[:min(len(data), 1000)] {
		data[i] = byte(w.rand.Uint32())
	}
	mode := fs.FileMode(0o644)
	if w.rand.IntN(4) == 0 {
		mode = 0o744
	}
	if err := os.WriteFile(p, data, mode); err != nil {
		return err
	}
	if w.rand.IntN(10) == 0 { // with a hole at its end
		return os.Truncate(p, int64(len(data))+3<<20)
	}
	return nil
}

// TestWildTrees: what is added comes out as it was, and equal trees have equal CIDs.
func TestWildTrees(t *testing.T) {
	f := realNode(t)
	seeds := uint64(24)
	if testing.Short() {
		seeds = 6
	}
	for seed := range seeds {
		dir := t.TempDir()
		in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
		if err := os.Mkdir(in, 0o777); err != nil {
			t.Fatal(err)
		}
		w := &wildTree{t: t, rand: rand.New(rand.NewPCG(seed, 4))}
		w.fill(in, 0)
		r := f.grid("add", "-q", in)
		root := strings.TrimSpace(r.out)
		if r.exit != 0 {
			t.Fatalf("seed %d: %+v", seed, r)
		}
		if r := f.grid("get", root, "-o", out, "--unsafe-links"); r.exit != 0 {
			t.Fatalf("seed %d: %+v", seed, r)
		}
		sameTree(t, in, out)
		if r := f.grid("add", "-q", out); strings.TrimSpace(r.out) != root {
			t.Errorf("seed %d: what came out is %+v, want %s", seed, r, root)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestHardTrees: each of these has broken some tool.
func TestHardTrees(t *testing.T) {
	f := realNode(t)
	dir := files(t, map[string]string{"in/keep": "x"})
	mk := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	deep := "in"
	for range 200 {
		deep += "/d"
	}
	mk(os.MkdirAll(deep, 0o777))
	mk(os.WriteFile(deep+"/end", []byte("deep"), 0o666))
	mk(os.MkdirAll("in/none/at/all", 0o777))
	mk(os.Symlink("loop2", "in/loop1"))
	mk(os.Symlink("loop1", "in/loop2"))
	mk(os.Symlink(".", "in/self"))
	mk(os.Symlink("../keep", "in/none/up"))
	mk(os.WriteFile("in/caf\u00e9", []byte("composed"), 0o666))
	mk(os.WriteFile("in/cafe\u0301", []byte("decomposed"), 0o666))
	sparse, err := os.Create("in/sparse")
	mk(err)
	_, err = sparse.WriteAt([]byte("end"), 40<<20)
	mk(err)
	mk(sparse.Close())
	// A folder that is a HAMT, with another in it.
	for i := range 6000 {
		mk(os.MkdirAll(fmt.Sprintf("in/many/%04d-%s", i, strings.Repeat("n", 40)), 0o777))
	}
	mk(syscall.Mkfifo("in/pipe", 0o600))

	if r := f.grid("add", "-q", "in"); r.exit != exitOf(grid.Unsupported) || !strings.Contains(r.err, "in/pipe") {
		t.Errorf("a pipe: %+v", r)
	}
	r := f.grid("add", "-q", "--skip-special", "in")
	root := strings.TrimSpace(r.out)
	if r.exit != 0 {
		t.Fatalf("%+v", r)
	}
	if r := f.grid("get", root, "-o", "out"); r.exit != 0 {
		t.Fatalf("%+v", r)
	}
	mk(os.Remove("in/pipe"))
	sameTree(t, filepath.Join(dir, "in"), filepath.Join(dir, "out"))
	for ref, want := range map[string]string{
		"/caf\u00e9": "composed", "/cafe\u0301": "decomposed", strings.TrimPrefix(deep, "in") + "/end": "deep",
	} {
		if r := f.grid("cat", root+ref); r.out != want {
			t.Errorf("%q: %+v, want %q", ref, r, want)
		}
	}
	if r := f.grid("cat", root+"/sparse"); len(r.out) != 40<<20+3 || !strings.HasSuffix(r.out, "\x00end") || !bytes.Equal([]byte(r.out[:1000]), make([]byte, 1000)) {
		t.Errorf("the sparse file has %d bytes", len(r.out))
	}
	if r := f.grid("ls", root+"/many"); strings.Count(r.out, "\n") != 6000 {
		t.Errorf("%d lines of the large folder", strings.Count(r.out, "\n"))
	}
	mk(os.WriteFile("in/bad\xff", nil, 0o666))
	if r := f.grid("add", "-q", "in"); r.exit != exitOf(grid.Invalid) || !strings.Contains(r.err, "not UTF-8") {
		t.Errorf("a name that is no text: %+v", r)
	}
}
