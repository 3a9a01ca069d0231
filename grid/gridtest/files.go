package gridtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestFiles checks the contract of grid.Files. open gives files over new, empty blocks.
func TestFiles(t *testing.T, open func(t *testing.T) grid.Files) {
	ctx := context.Background()
	add := func(t *testing.T, f grid.Files, data string) grid.FileInfo {
		t.Helper()
		c, n, err := f.Add(ctx, strings.NewReader(data))
		if err != nil || n != int64(len(data)) {
			t.Fatalf("Add of %d bytes = %d, %v", len(data), n, err)
		}
		return grid.FileInfo{CID: grid.Link{Cid: c}, Kind: grid.KindFile, Size: n}
	}
	named := func(name string, info grid.FileInfo) grid.FileInfo { info.Name = name; return info }
	tree := func(t *testing.T, f grid.Files, entries ...grid.FileInfo) cid.Cid {
		t.Helper()
		c, _, err := f.AddTree(ctx, entries)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	code := func(t *testing.T, err error, want grid.Code) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("error %v, want %v", err, want)
		}
	}

	t.Run("read", func(t *testing.T) {
		f := open(t)
		for _, size := range []int{0, 1, 1<<20 - 1, 1 << 20, 1<<20 + 1, 5<<20 + 3} {
			data := make([]byte, size)
			for i := range data {
				data[i] = byte(i>>16 ^ i>>8 ^ i)
			}
			info := add(t, f, string(data))
			if got, err := f.Stat(ctx, info.CID.Cid); err != nil || got != info {
				t.Errorf("Stat = %+v, %v; want %+v", got, err, info)
			}
			r, err := f.Open(ctx, info.CID.Cid)
			if err != nil {
				t.Fatal(err)
			}
			if err := iotest.TestReader(struct{ io.ReadSeeker }{r}, data); size < 10 && err != nil {
				t.Error(err)
			}
			if _, err := r.Seek(0, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(struct{ io.Reader }{r}); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes: read %d, %v", size, len(got), err)
			}
			if end, err := r.Seek(-int64(size/3), io.SeekEnd); err != nil || end != int64(size-size/3) {
				t.Errorf("Seek = %d, %v", end, err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data[size-size/3:]) {
				t.Errorf("%d bytes: read %d from two thirds on, %v", size, len(got), err)
			}
			if _, err := r.Seek(-1, io.SeekStart); err == nil {
				t.Error("Seek before the start succeeded")
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
	})

	t.Run("a reader that fails", func(t *testing.T) {
		f := open(t)
		broken := errors.New("broken")
		for _, n := range []int{0, 100, 3 << 20} {
			r := io.MultiReader(bytes.NewReader(make([]byte, n)), iotest.ErrReader(broken))
			if _, _, err := f.Add(ctx, r); !errors.Is(err, broken) {
				t.Errorf("after %d bytes: error %v, want that of the reader", n, err)
			}
		}
		if info := add(t, f, "abc"); info.CID != add(t, f, "abc").CID {
			t.Error("equal files have different CIDs")
		}
		c, _, err := f.Add(ctx, iotest.OneByteReader(strings.NewReader("abc")))
		if err != nil || c != add(t, f, "abc").CID.Cid {
			t.Errorf("a slow reader gives %s, %v", c, err)
		}
	})

	t.Run("many", func(t *testing.T) {
		f := open(t)
		files := []grid.Content{{Data: []byte("a")}, {}, {Data: []byte("a"), Exec: true}, {Exec: true}, {Data: make([]byte, 3<<20)}, {Data: make([]byte, 3<<20), Exec: true}}
		cids, err := f.AddMany(ctx, files)
		if err != nil || len(cids) != len(files) {
			t.Fatalf("AddMany = %d, %v", len(cids), err)
		}
		for i, file := range files {
			plain := add(t, f, string(file.Data)).CID.Cid
			want := plain
			if file.Exec {
				if want, err = f.Executable(ctx, plain); err != nil || want == plain {
					t.Errorf("Executable(%s) = %s, %v", plain, want, err)
				}
				if again, err := f.Executable(ctx, want); err != nil || again != want {
					t.Errorf("Executable of an executable = %s, %v; want %s", again, err, want)
				}
			}
			if cids[i] != want {
				t.Errorf("file %d is %s, want %s", i, cids[i], want)
			}
			info := grid.FileInfo{CID: grid.Link{Cid: want}, Kind: grid.KindFile, Size: int64(len(file.Data)), Exec: file.Exec}
			if got, err := f.Stat(ctx, want); err != nil || got != info {
				t.Errorf("Stat = %+v, %v; want %+v", got, err, info)
			}
			if got, err := f.Look(ctx, want); err != nil || got != info {
				t.Errorf("Look = %+v, %v; want %+v", got, err, info)
			}
			r, err := f.Open(ctx, want)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, file.Data) {
				t.Errorf("read %d bytes, %v; want %d", len(got), err, len(file.Data))
			}
		}
		root := tree(t, f, grid.FileInfo{Name: "x", Kind: grid.KindFile, CID: grid.Link{Cid: cids[2]}}, grid.FileInfo{Name: "y", Kind: grid.KindFile, CID: grid.Link{Cid: cids[0]}, Size: 1})
		if list, err := f.List(ctx, root); err != nil || len(list) != 2 || !list[0].Exec || list[1].Exec {
			t.Errorf("List = %+v, %v", list, err)
		}
		fsys, err := f.FS(ctx, root)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]fs.FileMode{"x": 0o555, "y": 0o444} {
			if info, err := fs.Stat(fsys, name); err != nil || info.Mode() != want {
				t.Errorf("Stat %s: %v, %v; want %v", name, info, err, want)
			}
		}
		_, err = f.Executable(ctx, root)
		code(t, err, grid.Invalid)
	})

	t.Run("whole", func(t *testing.T) {
		f := open(t)
		root := tree(t, f, named("a/b", add(t, f, "b")), named("c", add(t, f, strings.Repeat("c", 3<<20))))
		if ok, err := f.Whole(ctx, root); !ok || err != nil {
			t.Errorf("Whole = %v, %v", ok, err)
		}
		if ok, err := f.Whole(ctx, grid.NewBlock(cid.Raw, []byte("not here")).CID()); ok || err != nil {
			t.Errorf("Whole of what is not here = %v, %v", ok, err)
		}
		_, err := f.Whole(ctx, cid.Undef)
		code(t, err, grid.Invalid)
		if info, err := f.Look(ctx, root); err != nil || info.Kind != grid.KindDir || info.Size < 3<<20 {
			t.Errorf("Look = %+v, %v", info, err)
		}
	})

	t.Run("tree", func(t *testing.T) {
		f := open(t)
		a, b, big := add(t, f, "aa"), add(t, f, "bbb"), add(t, f, strings.Repeat("x", 3<<20))
		entries := []grid.FileInfo{
			named("z", a), named("d/e/b", b), named("d/a", a), named("big", big),
			{Name: "empty", Kind: grid.KindDir}, {Name: "d", Kind: grid.KindDir},
			{Name: "d/link", Kind: grid.KindSymlink, Target: "../z"},
		}
		root, size, err := f.AddTree(ctx, entries)
		if err != nil || size != 3<<20+7 {
			t.Fatalf("AddTree = %d, %v", size, err)
		}
		entries[0], entries[3] = entries[3], entries[0]
		if c := tree(t, f, entries...); c != root {
			t.Error("the order of entries changes the CID")
		}
		if info, err := f.Stat(ctx, root); err != nil || info.Kind != grid.KindDir || info.Size != size || info.Name != "" {
			t.Errorf("Stat = %+v, %v", info, err)
		}
		list, err := f.List(ctx, root)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range list {
			got = append(got, fmt.Sprint(e.Name, " ", e.Kind, " ", e.Size))
		}
		if want := []string{"big file 3145728", "d dir 5", "empty dir 0", "z file 2"}; !reflect.DeepEqual(got, want) {
			t.Errorf("List = %q, want %q", got, want)
		}
		d, err := f.Resolve(ctx, root, "d")
		if err != nil {
			t.Fatal(err)
		}
		list, err = f.List(ctx, d)
		if err != nil || len(list) != 3 || list[2].Kind != grid.KindSymlink || list[2].Target != "../z" {
			t.Errorf("List = %+v, %v", list, err)
		}
		for path, want := range map[string]cid.Cid{
			"": root, ".": root, "z": a.CID.Cid, "d/e/b": b.CID.Cid, "/d//e/b/": b.CID.Cid, "d": d,
		} {
			if c, err := f.Resolve(ctx, root, path); err != nil || c != want {
				t.Errorf("Resolve %q = %s, %v; want %s", path, c, err, want)
			}
		}
		for _, path := range []string{"nothing", "d/nothing", "d/../z"} {
			_, err := f.Resolve(ctx, root, path)
			code(t, err, grid.NotFound)
		}
		_, err = f.Resolve(ctx, root, "z/below")
		code(t, err, grid.Invalid)
		if c := tree(t, f, grid.FileInfo{Name: "sub", Kind: grid.KindDir, CID: grid.Link{Cid: d}}); c != tree(t, f,
			named("sub/e/b", b), named("sub/a", a), grid.FileInfo{Name: "sub/link", Kind: grid.KindSymlink, Target: "../z"}) {
			t.Error("a folder put in whole differs from one put in by its files")
		}
	})

	t.Run("bad trees", func(t *testing.T) {
		f := open(t)
		a := add(t, f, "aa")
		dir := grid.FileInfo{Kind: grid.KindDir}
		for _, tt := range []struct {
			entries []grid.FileInfo
			want    grid.Code
		}{
			{[]grid.FileInfo{named("", a)}, grid.Invalid},
			{[]grid.FileInfo{named(".", a)}, grid.Invalid},
			{[]grid.FileInfo{named("../a", a)}, grid.Invalid},
			{[]grid.FileInfo{named("/a", a)}, grid.Invalid},
			{[]grid.FileInfo{named("a//b", a)}, grid.Invalid},
			{[]grid.FileInfo{named("a\x00", a)}, grid.Invalid},
			{[]grid.FileInfo{named(strings.Repeat("a/", 4096)+"a", a)}, grid.Invalid},
			{[]grid.FileInfo{named("a", a), named("a", a)}, grid.Invalid},
			{[]grid.FileInfo{named("a", a), named("a/b", a)}, grid.Invalid},
			{[]grid.FileInfo{named("a/b", a), named("a", a)}, grid.Invalid},
			{[]grid.FileInfo{named("a", a), named("a", dir)}, grid.Invalid},
			{[]grid.FileInfo{{Name: "a", Kind: "pipe", CID: a.CID}}, grid.Invalid},
			{[]grid.FileInfo{{Name: "a", Kind: grid.KindFile}}, grid.Invalid},
			{[]grid.FileInfo{{Name: "a", Kind: grid.KindSymlink}}, grid.Invalid},
			{[]grid.FileInfo{{Name: "a", Kind: grid.KindDir, CID: a.CID}}, grid.Invalid},
			{[]grid.FileInfo{{Name: "a", Kind: grid.KindFile, CID: grid.Link{Cid: tree(t, f)}}}, grid.Invalid},
			{[]grid.FileInfo{{Name: "a", Kind: grid.KindFile, CID: a.CID, Size: -1}}, grid.Invalid},
			{[]grid.FileInfo{{Name: "a", Kind: grid.KindFile, CID: grid.Link{Cid: grid.NewBlock(cid.Raw, []byte("not here")).CID()}}}, grid.NotFound},
		} {
			_, _, err := f.AddTree(ctx, tt.entries)
			code(t, err, tt.want)
			if err != nil && len(tt.entries) > 0 && !strings.Contains(err.Error(), fmt.Sprintf("%q", tt.entries[len(tt.entries)-1].Name)) {
				t.Errorf("error %v does not name the entry", err)
			}
		}
	})

	t.Run("wrong kind", func(t *testing.T) {
		f := open(t)
		a, dir := add(t, f, "aa").CID.Cid, tree(t, f)
		_, err := f.List(ctx, a)
		code(t, err, grid.Invalid)
		_, err = f.FS(ctx, a)
		code(t, err, grid.Invalid)
		_, err = f.Open(ctx, dir)
		code(t, err, grid.Invalid)
		nowhere := grid.NewBlock(cid.Raw, []byte("nowhere")).CID()
		_, err = f.Stat(ctx, nowhere)
		code(t, err, grid.NotFound)
		_, err = f.Open(ctx, nowhere)
		code(t, err, grid.NotFound)
		_, err = f.FS(ctx, nowhere)
		code(t, err, grid.NotFound)
		_, err = f.Resolve(ctx, nowhere, "x")
		code(t, err, grid.NotFound)
		_, err = f.Stat(ctx, cid.Undef)
		code(t, err, grid.Invalid)
	})

	t.Run("fs", func(t *testing.T) {
		f := open(t)
		a := add(t, f, "aa")
		link := func(name, target string) grid.FileInfo {
			return grid.FileInfo{Name: name, Kind: grid.KindSymlink, Target: target}
		}
		root := tree(t, f, named("z", a), named("d/e/b", add(t, f, "bbb")), grid.FileInfo{Name: "empty", Kind: grid.KindDir},
			named("big", add(t, f, strings.Repeat("x", 2<<20+5))), link("d/link", "../z"), link("dirlink", "d/e"))
		fsys, err := f.FS(ctx, root)
		if err != nil {
			t.Fatal(err)
		}
		if err := fstest.TestFS(fsys, "z", "d/e/b", "empty", "big", "d/link", "dirlink"); err != nil {
			t.Error(err)
		}
		for name, want := range map[string]string{"d/link": "aa", "dirlink/b": "bbb", "z": "aa"} {
			if data, err := fs.ReadFile(fsys, name); err != nil || string(data) != want {
				t.Errorf("%s = %q, %v; want %q", name, data, err, want)
			}
		}
		for _, name := range []string{"big", "z"} {
			file, err := fsys.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := file.(io.Seeker); !ok {
				t.Errorf("%s is no io.Seeker", name)
			}
			if _, ok := file.(io.ReaderAt); !ok {
				t.Errorf("%s is no io.ReaderAt", name)
			}
			file.Close()
		}
		if _, err := fsys.Open("no"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Open of what is not there: %v", err)
		}
		if _, err := fsys.Open("z/no"); err == nil {
			t.Error("Open below a file succeeded")
		}

		bad, err := f.FS(ctx, tree(t, f, link("abs", "/etc/passwd"), link("up", "../z"), link("d/up", "../../z"),
			link("loop", "loop2"), link("loop2", "loop"), link("gone", "nothing"), named("z", a)))
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]error{"abs": grid.Denied, "up": grid.Denied, "d/up": grid.Denied, "loop": grid.Limit, "gone": fs.ErrNotExist} {
			if _, err := fs.ReadFile(bad, name); !errors.Is(err, want) {
				t.Errorf("%s: error %v, want %v", name, err, want)
			}
		}
	})

	t.Run("large folder", func(t *testing.T) {
		f := open(t)
		a := add(t, f, "aa")
		const n = 6000
		var entries []grid.FileInfo
		for i := range n {
			entries = append(entries, named(fmt.Sprintf("d/file-%05d-%s", (i*7919)%n, "a-name-of-some-length"), a))
		}
		root := tree(t, f, entries...)
		if info, err := f.Stat(ctx, root); err != nil || info.Size != 2*n {
			t.Errorf("Stat = %+v, %v", info, err)
		}
		fsys, err := f.FS(ctx, root)
		if err != nil {
			t.Fatal(err)
		}
		list, err := fs.ReadDir(fsys, "d")
		if err != nil || len(list) != n {
			t.Fatalf("%d entries, %v", len(list), err)
		}
		for i, e := range list {
			if want := fmt.Sprintf("file-%05d-a-name-of-some-length", i); e.Name() != want {
				t.Fatalf("entry %d is %q, want %q", i, e.Name(), want)
			}
			if i%500 == 0 {
				if c, err := f.Resolve(ctx, root, "d/"+e.Name()); err != nil || c != a.CID.Cid {
					t.Errorf("Resolve %s = %s, %v", e.Name(), c, err)
				}
			}
		}
		_, err = f.Resolve(ctx, root, "d/nothing")
		code(t, err, grid.NotFound)
	})
}
