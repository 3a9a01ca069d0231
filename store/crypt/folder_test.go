package crypt

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/wasmgrid/wasmgrid/grid"
)

// item is an entry with its content.
type item struct {
	grid.FileInfo
	data string
}

func fileItem(name, data string) item {
	return item{grid.FileInfo{Name: name, Kind: grid.KindFile, Size: int64(len(data))}, data}
}

// tree is a folder with one of everything.
func tree() []item {
	run := fileItem("run", "#!")
	run.Exec = true
	return []item{
		fileItem("a.txt", "the first"),
		{FileInfo: grid.FileInfo{Name: "empty", Kind: grid.KindDir}},
		{FileInfo: grid.FileInfo{Name: "link", Kind: grid.KindSymlink, Target: "sub/deep/b.bin"}},
		fileItem("none", ""),
		{FileInfo: grid.FileInfo{Name: "out", Kind: grid.KindSymlink, Target: "../../etc/passwd"}},
		run,
		fileItem("sub/deep/b.bin", strings.Repeat("0123456789", 20_000)),
		fileItem("sub/ümlaut", "u"),
	}
}

func infos(items []item) (out []grid.FileInfo) {
	for _, it := range items {
		out = append(out, it.FileInfo)
	}
	return out
}

func zipped(t testing.TB, items []item) []byte {
	t.Helper()
	var out bytes.Buffer
	p := NewPacker(&out)
	for _, it := range items {
		w, err := p.Add(it.FileInfo)
		if err == nil && it.data != "" {
			_, err = io.WriteString(w, it.data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func folderOf(t testing.TB, data []byte) *Folder {
	t.Helper()
	id, to := newKey(t)
	d, err := open(t, seal(t, data, to), id).Folder()
	if err != nil {
		t.Fatal(err)
	}
	if d == nil {
		t.Fatal("it is no folder")
	}
	return d
}

func TestFolder(t *testing.T) {
	items := tree()
	data := zipped(t, items)
	if n, err := FolderSize(infos(items)); err != nil || n != int64(len(data)) {
		t.Fatalf("foretold were %d bytes of %d: %v", n, len(data), err)
	}
	d := folderOf(t, data)
	list, err := d.Entries()
	if err != nil || fmt.Sprint(list) != fmt.Sprint(infos(items)) {
		t.Fatalf("%v\n%v\n%v", list, infos(items), err)
	}
	for _, it := range items {
		if it.Kind != grid.KindFile {
			continue
		}
		if got, err := fs.ReadFile(d, it.Name); err != nil || string(got) != it.data {
			t.Errorf("%s: %d bytes, %v", it.Name, len(got), err)
		}
	}
	if got, err := fs.ReadFile(d, "link"); err != nil || len(got) != 200_000 {
		t.Errorf("through a link: %d bytes, %v", len(got), err)
	}
	if _, err := fs.ReadFile(d, "out"); !errors.Is(err, grid.Denied) {
		t.Errorf("a link that leads outside: %v", err)
	}
	f, err := d.Open("sub/deep/b.bin")
	if err != nil {
		t.Fatal(err)
	}
	part := make([]byte, 4)
	if _, err := f.(io.ReaderAt).ReadAt(part, 123_456); err != nil || string(part) != "6789" {
		t.Errorf("%q, %v", part, err)
	}
	// The links would be followed by fstest, which does not expect one that leads outside.
	var inside []item
	for _, it := range items {
		if it.Name != "out" {
			inside = append(inside, it)
		}
	}
	if err := fstest.TestFS(folderOf(t, zipped(t, inside)), "a.txt", "empty", "none", "run", "sub/deep/b.bin", "sub/ümlaut"); err != nil {
		t.Error(err)
	}
	if list, err := d.List("sub"); err != nil || len(list) != 2 || list[0].Name != "deep" || list[0].Kind != grid.KindDir {
		t.Errorf("%v, %v", list, err)
	}
	if d := folderOf(t, zipped(t, nil)); len(d.order) != 0 {
		t.Errorf("an empty folder has %q", d.order)
	}
}

// An archive is somebody's file unless it has our mark, and is not believed if it has it.
func TestHostileFolder(t *testing.T) {
	write := func(comment string, headers ...*zip.FileHeader) []byte {
		var out bytes.Buffer
		z := zip.NewWriter(&out)
		for _, h := range headers {
			w, err := z.CreateHeader(h)
			if err == nil && !strings.HasSuffix(h.Name, "/") {
				_, err = io.WriteString(w, "content")
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := z.SetComment(comment); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	id, to := newKey(t)
	try := func(data []byte) (*Folder, error) { return open(t, seal(t, data, to), id).Folder() }
	name := func(s string) *zip.FileHeader { return &zip.FileHeader{Name: s} }
	if d, err := try(write("", name("a"))); d != nil || err != nil {
		t.Errorf("a file that is an archive: %v, %v", d, err)
	}
	loop := name("loop")
	loop.SetMode(fs.ModeSymlink)
	for what, data := range map[string][]byte{
		"leads out":    write(Mark, name("../a")),
		"absolute":     write(Mark, name("/a")),
		"twice":        write(Mark, name("a"), name("a")),
		"below a file": write(Mark, name("a"), name("a/b")),
		"packed":       write(Mark, &zip.FileHeader{Name: "a", Method: zip.Deflate}),
		"no name":      write(Mark, name("/")),
	} {
		if _, err := try(data); !errors.Is(err, grid.Corrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
	good := write(Mark, name("a"), name("b"))
	for at := range good { // any byte of the list, say of an offset
		if at < 60 {
			continue
		}
		bad := bytes.Clone(good)
		bad[at] ^= 0xff
		d, err := try(bad)
		if err != nil || d == nil {
			continue
		}
		for _, n := range d.order {
			_, _ = fs.ReadFile(d, n)
		}
	}
	many := bytes.Clone(good)
	copy(many[len(many)-len(Mark)-endLen+8:], []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
	if _, err := try(many); !errors.Is(err, grid.Limit) {
		t.Errorf("a list that is too long: %v", err)
	}
	var deep []*zip.FileHeader
	for i := range maxNodes/maxNested + 1 {
		deep = append(deep, name(strconv.Itoa(i)+strings.Repeat("/a", maxNested)))
	}
	if _, err := try(write(Mark, deep...)); !errors.Is(err, grid.Limit) {
		t.Errorf("few names that imply many folders: %v", err)
	}
	p := NewPacker(io.Discard)
	for _, bad := range []string{"", ".", "../a", "a\\b", "a\x00", "a\xff", strings.Repeat("a/", maxNested+1) + "b"} {
		if _, err := p.Add(grid.FileInfo{Name: bad, Kind: grid.KindFile}); !errors.Is(err, grid.Invalid) {
			t.Errorf("the name %.20q: %v", bad, err)
		}
	}
}

// FuzzFolder reads what claims to be a folder.
func FuzzFolder(f *testing.F) {
	f.Add(zipped(f, tree()[:5]))
	f.Add([]byte("PK\x05\x06" + strings.Repeat("\x00", 16) + "\x0d\x00" + Mark))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := (&File{plain: bytes.NewReader(data), size: int64(len(data))}).Folder()
		if err != nil {
			if grid.CodeOf(err) == grid.Unknown {
				t.Fatalf("an error without a code: %v", err)
			}
			return
		}
		if d == nil {
			return
		}
		_ = fs.WalkDir(d, ".", func(name string, _ fs.DirEntry, err error) error {
			if err == nil {
				_, _ = fs.ReadFile(d, name)
			}
			return nil
		})
	})
}
