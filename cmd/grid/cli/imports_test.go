package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestAddAgain: what has not changed is not sent again, and whatever has is.
func TestAddAgain(t *testing.T) {
	dir := files(t, map[string]string{"d/a": "aaaa", "d/b": "bbbb", "d/sub/c": "cccc"})
	home := t.TempDir()
	f := newFake(t)
	ahead := time.Minute // of the clock, so that files are old enough
	f.now = func() time.Time { return time.Now().Add(ahead) }
	// add adds d as remembered, checks that this gives what reading all gives, and tells how much was sent.
	add := func(t *testing.T) int {
		t.Helper()
		f.received = 0
		r := f.grid("add", "-q", "--home", home, "d")
		sent := f.received
		all := newFake(t).grid("add", "-q", "--home", t.TempDir(), "d")
		if r.exit != 0 || r.out != all.out {
			t.Errorf("%+v, want what reading all gives, %s", r, all.out)
		}
		return sent
	}
	want := func(t *testing.T, bytes int) {
		t.Helper()
		if sent := add(t); sent != bytes {
			t.Errorf("%d bytes were sent, want %d", sent, bytes)
		}
	}
	write := func(t *testing.T, name, data string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want(t, 12)
	// named wants the whole folder to be named or not.
	named := func(t *testing.T, yes bool) {
		t.Helper()
		f.whole = 0
		if add(t); (f.whole == 1) != yes {
			t.Errorf("the folder was named %d times", f.whole)
		}
	}
	named(t, true)
	want(t, 0)
	if r := f.grid("add", "--home", home, "d"); !strings.Contains(r.err, "3 files as before") {
		t.Errorf("%+v", r)
	}

	t.Run("changed with the same size", func(t *testing.T) {
		write(t, "d/a", "AAAA")
		want(t, 4)
		want(t, 0)
	})
	t.Run("changed with the same size and time", func(t *testing.T) {
		info, err := os.Stat("d/a")
		if err != nil {
			t.Fatal(err)
		}
		if ctime, _, _ := changeOf(info); ctime == 0 {
			t.Skip("this platform does not tell")
		}
		write(t, "d/a", "aaaa")
		if err := os.Chtimes("d/a", info.ModTime(), info.ModTime()); err != nil {
			t.Fatal(err)
		}
		want(t, 4)
	})
	t.Run("touched", func(t *testing.T) {
		when := time.Now().Add(-time.Hour)
		if err := os.Chtimes("d/b", when, when); err != nil {
			t.Fatal(err)
		}
		want(t, 4)
		want(t, 0)
	})
	t.Run("made executable", func(t *testing.T) {
		if err := os.Chmod("d/b", 0o777); err != nil {
			t.Fatal(err)
		}
		want(t, 4)
	})
	t.Run("renamed", func(t *testing.T) {
		if err := os.Rename("d/a", "d/z"); err != nil {
			t.Fatal(err)
		}
		want(t, 4)
		if err := os.Rename("d/b", "d/a"); err != nil {
			t.Fatal(err)
		}
		want(t, 4)
	})
	t.Run("other entries", func(t *testing.T) {
		change := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			named(t, false)
			named(t, true)
		}
		change(os.Symlink("b", "d/link"))
		change(os.Remove("d/link"))
		change(os.Symlink("c", "d/link"))
		change(errors.Join(os.Remove("d/link"), os.Mkdir("d/link", 0o777)))
		change(os.Remove("d/link"))
		change(errors.Join(os.Rename("d/z", "d/y"), os.Symlink("y", "d/z")))
		change(errors.Join(os.Remove("d/z"), os.Rename("d/y", "d/z")))
	})
	t.Run("gone from the node", func(t *testing.T) {
		delete(f.blobs, grid.NewBlock(cid.Raw, []byte("cccc")).CID().String())
		want(t, 4)
	})
	t.Run("gone while it is added", func(t *testing.T) {
		delete(f.blobs, grid.NewBlock(cid.Raw, []byte("cccc")).CID().String())
		f.forgetful = true
		if sent := add(t); sent < 12 {
			t.Errorf("%d bytes were sent", sent)
		}
		f.forgetful = false
	})
	t.Run("removed", func(t *testing.T) {
		if err := os.Remove("d/z"); err != nil {
			t.Fatal(err)
		}
		want(t, 0)
	})
	t.Run("everything", func(t *testing.T) {
		f.received = 0
		if r := f.grid("add", "-q", "--home", home, "--no-index", "d"); r.exit != 0 || f.received != 8 {
			t.Errorf("%+v, %d bytes sent", r, f.received)
		}
		want(t, 0)
	})
	t.Run("by another path", func(t *testing.T) {
		f.received = 0
		if err := os.Symlink("d", "link"); err != nil {
			t.Skip(err)
		}
		if r := f.grid("add", "-q", "--home", home, "link"); r.exit != 0 || f.received != 0 {
			t.Errorf("%+v, %d bytes sent", r, f.received)
		}
	})
	t.Run("a file", func(t *testing.T) {
		for _, want := range []int{4, 0} {
			f.received = 0
			if r := f.grid("add", "-q", "--home", home, "d/a"); r.exit != 0 || f.received != want || !strings.HasPrefix(r.out, "bafkrei") {
				t.Errorf("%+v, %d bytes sent, want %d", r, f.received, want)
			}
		}
	})
	t.Run("damaged", func(t *testing.T) {
		name := openImports(home, "d", time.Now).file
		for _, damage := range []func([]byte) []byte{
			func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
			func(b []byte) []byte { return b[:len(b)-1] },
			func([]byte) []byte { return nil },
			func(b []byte) []byte { b[len(importsMagic)-1]++; return b },
		} {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, damage(data), 0o600); err != nil {
				t.Fatal(err)
			}
			want(t, 8)
			want(t, 0)
		}
	})
	t.Run("just changed", func(t *testing.T) {
		ahead = 0
		write(t, "d/a", "1234")
		want(t, 4)
		want(t, 4)
		ahead = time.Minute
		want(t, 4)
		want(t, 0)
	})
	t.Run("at once", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if r := newFake(t).grid("add", "-q", "--home", home, "d"); r.exit != 0 {
					t.Errorf("%+v", r)
				}
			})
		}
		wg.Wait()
		add(t)
		if left, _ := filepath.Glob(filepath.Join(home, importsDir, ".tmp*")); left != nil {
			t.Errorf("left behind: %v", left)
		}
	})
}

// TestImportsBounded: only so many are kept.
func TestImportsBounded(t *testing.T) {
	home := t.TempDir()
	for i := range maxImports + 10 {
		x := openImports(home, filepath.Join(home, fmt.Sprint(i)), time.Now)
		x.save(grid.FileInfo{})
	}
	list, err := os.ReadDir(filepath.Join(home, importsDir))
	if err != nil || len(list) != maxImports {
		t.Errorf("%d files are kept, %v; want %d", len(list), err, maxImports)
	}
	if x := openImports(filepath.Join(home, "none"), home, time.Now); x != nil {
		t.Error("a home that is not there is used")
	}
	var none *imports // does nothing
	none.again(true)
	none.save(grid.FileInfo{})
	none.stored(grid.FileInfo{})
}

func FuzzParseImports(f *testing.F) {
	c := grid.Link{Cid: grid.NewBlock(cid.Raw, []byte("x")).CID()}
	data, err := formatImports(importRecord{Path: "/x", Files: []imported{{Name: "a", CID: c, Size: 1, Mtime: 2, Ctime: 3, Inode: 4, Device: 5, Exec: true}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(importsMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		rec, err := parseImports(data)
		if err != nil {
			return
		}
		again, err := formatImports(rec)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseImports(again); err != nil {
			t.Error(err)
		}
	})
}
