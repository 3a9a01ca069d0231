package memfs

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/tetratelabs/wazero/experimental/sys"
)

func newFS(cfg Config) *FS {
	f := new(FS)
	f.Reset(cfg)
	return f
}

var roomy = Config{Bytes: 1 << 20, Files: 100}

const rw = sys.O_RDWR | sys.O_CREAT

// write makes a file with the given content.
func write(f *FS, name, content string) sys.Errno {
	h, errno := f.OpenFile(name, rw|sys.O_TRUNC, 0)
	if errno != 0 {
		return errno
	}
	defer h.Close()
	_, errno = h.Write([]byte(content))
	return errno
}

func read(f *FS, name string) (string, sys.Errno) {
	h, errno := f.OpenFile(name, sys.O_RDONLY, 0)
	if errno != 0 {
		return "", errno
	}
	defer h.Close()
	var out []byte
	buf := make([]byte, 7)
	for {
		n, errno := h.Read(buf)
		if n == 0 || errno != 0 {
			return string(out), errno
		}
		out = append(out, buf[:n]...)
	}
}

func list(t *testing.T, f *FS, name string) []string {
	t.Helper()
	d, errno := f.OpenFile(name, sys.O_DIRECTORY, 0)
	if errno != 0 {
		t.Fatalf("open %s: %v", name, errno)
	}
	defer d.Close()
	var names []string
	for {
		entries, errno := d.Readdir(2)
		if errno != 0 {
			t.Fatalf("read %s: %v", name, errno)
		}
		for _, e := range entries {
			names = append(names, e.Name)
		}
		if len(entries) < 2 {
			return names
		}
	}
}

// The table of what paths lead where: it is what keeps guests in.
func TestLookup(t *testing.T) {
	cfg := roomy
	cfg.Mounts = map[string]fs.FS{
		"/in":       fstest.MapFS{"a": {Data: []byte("in a")}, "d/b": {Data: []byte("in d/b")}},
		"/in/d/sub": fstest.MapFS{"c": {Data: []byte("in sub")}},
		"/one":      fileFS("single"),
	}
	f := newFS(cfg)
	for _, dir := range []string{"out/d", "out/d/e"} {
		if errno := f.Mkdir(dir, 0); errno != 0 {
			t.Fatal(errno)
		}
	}
	write(f, "out/d/f", "f")
	for name, target := range map[string]string{
		"out/rel": "d/f", "out/abs": "/out/d/f", "out/up": "../in/a", "out/far": "../../../../in/a", "out/loop": "loop",
		"out/dir": "d", "out/dangling": "nowhere", "out/escape": "/etc/passwd", "out/intoin": "/in/d/../a", "out/through": "/in/d/../../out/d/f",
	} {
		if errno := f.Symlink(target, name); errno != 0 {
			t.Fatal(name, errno)
		}
	}
	for _, test := range []struct {
		path, content string
		errno         sys.Errno
	}{
		{"out/d/f", "f", 0}, {"/out//d/./f", "f", 0}, {"out/rel", "f", 0}, {"out/abs", "f", 0}, {"out/dir/f", "f", 0},
		{"out/up", "in a", 0}, {"out/far", "in a", 0}, {"out/intoin", "in a", 0}, {"out/through", "f", 0},
		{"in/a", "in a", 0}, {"in/d/b", "in d/b", 0}, {"in/d/sub/c", "in sub", 0}, {"one", "single", 0},
		{"in/../../../in/a", "in a", 0}, {"in/d/../../out/d/f", "f", 0},
		{"out/loop", "", sys.ELOOP}, {"out/dangling", "", sys.ENOENT}, {"out/escape", "", sys.ENOENT},
		{"etc/passwd", "", sys.ENOENT}, {"../etc/passwd", "", sys.ENOENT}, {"nothing", "", sys.ENOENT},
		{"out/d/f/x", "", sys.ENOTDIR}, {"out/d/f/", "", sys.ENOTDIR}, {"in/a/", "", sys.ENOTDIR},
		{strings.Repeat("x", 300), "", sys.ENAMETOOLONG}, {strings.Repeat("x/", 3000), "", sys.ENAMETOOLONG},
	} {
		if got, errno := read(f, test.path); got != test.content || errno != test.errno {
			t.Errorf("read %.40q: %q, %v; want %q, %v", test.path, got, errno, test.content, test.errno)
		}
	}
	for dir, want := range map[string][]string{
		"/": {"in", "one", "out", "tmp"}, "in": {"a", "d"}, "in/d": {"b", "sub"}, "in/d/sub": {"c"}, "out/d": {"e", "f"}, ".": {"in", "one", "out", "tmp"},
	} {
		if got := list(t, f, dir); !slices.Equal(got, want) {
			t.Errorf("list %s: %v, want %v", dir, got, want)
		}
	}
	if f.Err() != nil {
		t.Errorf("a failure of the host: %v", f.Err())
	}
}

// fileFS is a file system whose root is a file.
type fileFS string

func (f fileFS) Open(name string) (fs.File, error) {
	if name != "." {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return fstest.MapFS{"x": {Data: []byte(f)}}.Open("x")
}

func TestErrors(t *testing.T) {
	cfg := roomy
	cfg.Mounts = map[string]fs.FS{"/in": fstest.MapFS{"a": {}, "d/b": {}}}
	f := newFS(cfg)
	f.Mkdir("out/d", 0)
	f.Mkdir("out/d/e", 0)
	write(f, "out/f", "f")
	open := func(name string, flag sys.Oflag) sys.Errno {
		h, errno := f.OpenFile(name, flag, 0)
		if errno == 0 {
			h.Close()
		}
		return errno
	}
	for _, test := range []struct {
		what      string
		got, want sys.Errno
	}{
		{"create in /", write(f, "x", ""), sys.EROFS},
		{"create in a mount", write(f, "in/x", ""), sys.EROFS},
		{"write to a mount", open("in/a", sys.O_RDWR), sys.EROFS},
		{"truncate in a mount", open("in/a", sys.O_TRUNC), sys.EROFS},
		{"exclusive in a mount", open("in/a", rw|sys.O_EXCL), sys.EEXIST},
		{"folder of a mount for writing", open("in/d", sys.O_RDWR), sys.EISDIR},
		{"folder of a mount as a folder", open("in/d", sys.O_RDWR|sys.O_DIRECTORY), 0},
		{"mkdir in a mount", f.Mkdir("in/x", 0), sys.EROFS},
		{"mkdir over a mounted file", f.Mkdir("in/a", 0), sys.EEXIST},
		{"unlink in a mount", f.Unlink("in/a"), sys.EROFS},
		{"unlink nothing in a mount", f.Unlink("in/x"), sys.ENOENT},
		{"rename from a mount", f.Rename("in/a", "out/a"), sys.EROFS},
		{"rename into a mount", f.Rename("out/f", "in/f"), sys.EROFS},
		{"link", f.Link("out/f", "out/g"), sys.ENOTSUP},
		{"mkdir twice", f.Mkdir("out/d", 0), sys.EEXIST},
		{"mkdir /", f.Mkdir("/", 0), sys.EEXIST},
		{"mkdir without parent", f.Mkdir("out/x/y", 0), sys.ENOENT},
		{"rmdir a file", f.Rmdir("out/f"), sys.ENOTDIR},
		{"rmdir a full folder", f.Rmdir("out/d"), sys.ENOTEMPTY},
		{"rmdir /out", f.Rmdir("out"), sys.EPERM},
		{"rmdir by ..", f.Rmdir("out/d/e/.."), sys.EINVAL},
		{"unlink a folder", f.Unlink("out/d"), sys.EISDIR},
		{"rename /tmp", f.Rename("tmp", "out/tmp"), sys.EPERM},
		{"rename onto /tmp", f.Rename("out/d", "tmp"), sys.EPERM},
		{"rename into itself", f.Rename("out/d", "out/d/e/x"), sys.EINVAL},
		{"rename a folder onto a file", f.Rename("out/d", "out/f"), sys.ENOTDIR},
		{"rename a file onto a folder", f.Rename("out/f", "out/d"), sys.EISDIR},
		{"rename onto a full folder", f.Rename("out/d/e", "out/d"), sys.ENOTEMPTY},
		{"rename onto itself", f.Rename("out/f", "out/f"), 0},
		{"open a folder for writing", open("out/d", sys.O_RDWR), sys.EISDIR},
		{"open a file as a folder", open("out/f", sys.O_DIRECTORY), sys.ENOTDIR},
		{"create exclusively what is there", open("out/f", rw|sys.O_EXCL), sys.EEXIST},
		{"readlink a file", func() sys.Errno { _, errno := f.Readlink("out/f"); return errno }(), sys.EINVAL},
		{"utimens of the root", f.Utimens("/", 1, 1), sys.EROFS},
	} {
		if test.got != test.want {
			t.Errorf("%s: %v, want %v", test.what, test.got, test.want)
		}
	}
}

// Room is given back with the last handle on what was removed, and folders cannot get too deep.
func TestRoom(t *testing.T) {
	f := newFS(Config{Bytes: 10, Files: 3})
	h, errno := f.OpenFile("tmp/a", rw, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	if n, errno := h.Write(make([]byte, 10)); n != 10 || errno != 0 {
		t.Fatal(n, errno)
	}
	if n, errno := h.Write([]byte{1}); n != 0 || errno != errFull || !f.Full() {
		t.Errorf("the eleventh byte: %d, %v", n, errno)
	}
	if errno := h.Truncate(1 << 62); errno != errFull {
		t.Errorf("truncate to a huge size: %v", errno)
	}
	if n, errno := h.Pwrite([]byte{1}, 1<<61); n != 0 || errno != errFull {
		t.Errorf("write far out: %d, %v", n, errno)
	}
	if errno := f.Symlink("x", "tmp/l"); errno != errFull {
		t.Errorf("a link beyond the limit: %v", errno)
	}
	f.Unlink("tmp/a")
	if errno := write(f, "tmp/b", "x"); errno != errFull {
		t.Errorf("write while a removed file is open: %v", errno)
	}
	if n, errno := h.Pread(make([]byte, 20), 0); n != 10 || errno != 0 {
		t.Errorf("read a removed file: %d, %v", n, errno)
	}
	h.Close()
	h.Close()
	if errno := write(f, "tmp/b", "0123456789"); errno != 0 {
		t.Errorf("write after it is closed: %v", errno)
	}
	f.Mkdir("tmp/c", 0)
	f.Mkdir("tmp/d", 0)
	if errno := f.Mkdir("tmp/e", 0); errno != errFull {
		t.Errorf("the fourth file: %v", errno)
	}
	if f.bytes != 10 || f.files != 3 || f.open != 0 {
		t.Errorf("%d bytes, %d files, %d open", f.bytes, f.files, f.open)
	}

	f = newFS(Config{Files: 1000})
	deep := "tmp"
	for range maxDepth - 1 {
		deep += "/d"
		if errno := f.Mkdir(deep, 0); errno != 0 {
			t.Fatal(errno)
		}
	}
	if errno := f.Mkdir(deep+"/d", 0); errno != sys.ENAMETOOLONG {
		t.Errorf("one folder too deep: %v", errno)
	}
	f.Mkdir("out/x", 0)
	if errno := f.Rename("tmp/d", "out/x/d"); errno != sys.ENAMETOOLONG {
		t.Errorf("moved too deep: %v", errno)
	}
	var open []sys.File
	for {
		h, errno := f.OpenFile("out/x", sys.O_DIRECTORY, 0)
		if errno != 0 {
			break
		}
		if open = append(open, h); len(open) > maxOpen {
			t.Fatal("no end to open files")
		}
	}
}

// failing gives errors that are not about paths.
type failing struct{ fs.FS }

func (f failing) Open(name string) (fs.File, error) {
	if name == "broken" {
		return nil, io.ErrUnexpectedEOF
	}
	return f.FS.Open(name)
}

func TestErr(t *testing.T) {
	f := newFS(Config{Mounts: map[string]fs.FS{"/in": failing{fstest.MapFS{"a": {}}}}})
	if read(f, "in/missing"); f.Err() != nil {
		t.Errorf("a missing file is the host's failure: %v", f.Err())
	}
	if _, errno := read(f, "in/broken"); errno != sys.EIO || f.Err() != io.ErrUnexpectedEOF {
		t.Errorf("%v, %v", errno, f.Err())
	}
	if f.Reset(Config{}); f.Err() != nil {
		t.Error("Reset keeps the failure")
	}
}

func TestOut(t *testing.T) {
	f := newFS(roomy)
	if f.Out() != nil {
		t.Error("an untouched tree has an /out")
	}
	write(f, "tmp/secret", "x")
	if f.Out() != nil {
		t.Error("an empty /out")
	}
	f = newFS(roomy)
	f.Mkdir("out/d", 0)
	write(f, "out/d/a", strings.Repeat("a", 100))
	write(f, "tmp/secret", "x")
	for name, target := range map[string]string{"out/in": "d/a", "out/d/up": "../d/a", "out/secret": "/tmp/secret", "out/root": "/"} {
		f.Symlink(target, name)
	}
	out := f.Out()
	f.Reset(Config{})
	for name, want := range map[string]bool{"d/a": true, "in": true, "d/up": true, "secret": false, "root": false, "../tmp": false, "": false} {
		if data, err := fs.ReadFile(out, name); (err == nil) != want || want && len(data) != 100 {
			t.Errorf("%q: %d bytes, %v", name, len(data), err)
		}
	}
	var walked []string
	fs.WalkDir(out, ".", func(p string, d fs.DirEntry, err error) error {
		walked = append(walked, p)
		return err
	})
	if want := []string{".", "d", "d/a", "d/up", "in", "root", "secret"}; !slices.Equal(walked, want) {
		t.Errorf("walked %v, want %v", walked, want)
	}
}

// TestUntouchedIsFree: tasks that use no files must not pay for them.
func TestUntouchedIsFree(t *testing.T) {
	f := new(FS)
	if n := testing.AllocsPerRun(100, func() {
		f.Reset(roomy)
		if f.Out() != nil {
			t.Fatal("an /out")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// model is a file system made of two maps, slow and plain.
type model struct {
	files map[string]*[]byte
	dirs  map[string]bool
}

func (m *model) has(p string) bool { return m.files[p] != nil || m.dirs[p] }

func (m *model) children(p string) []string {
	var names []string
	for q := range m.files {
		if path.Dir(q) == p {
			names = append(names, path.Base(q))
		}
	}
	for q := range m.dirs {
		if path.Dir(q) == p && q != p {
			names = append(names, path.Base(q))
		}
	}
	slices.Sort(names)
	return names
}

func (m *model) bytes() (n int64) {
	for _, f := range m.files {
		n += int64(len(*f))
	}
	return n
}

// step does one random operation on both and compares how it went.
func (m *model) step(f *FS, r *rand.Rand) error {
	name := func() string {
		p := []string{"out", "tmp"}[r.IntN(2)]
		for range 1 + r.IntN(3) {
			p += "/" + string(rune('a'+r.IntN(3)))
		}
		return p
	}
	p, q := name(), name()
	parent := m.dirs[path.Dir(p)]
	var ok, want bool
	var op string
	switch r.IntN(8) {
	case 0:
		op = "mkdir " + p
		ok, want = f.Mkdir(p, 0) == 0, parent && !m.has(p)
		if want {
			m.dirs[p] = true
		}
	case 1:
		op = "rmdir " + p
		ok, want = f.Rmdir(p) == 0, m.dirs[p] && len(m.children(p)) == 0
		if want {
			delete(m.dirs, p)
		}
	case 2:
		op = "unlink " + p
		ok, want = f.Unlink(p) == 0, m.files[p] != nil
		if want {
			delete(m.files, p)
		}
	case 3:
		op = "rename " + p + " " + q
		ok = f.Rename(p, q) == 0
		if want = m.rename(p, q); want {
			break
		}
	case 4, 5:
		data := bytes.Repeat([]byte{byte('A' + r.IntN(26))}, r.IntN(3*pageSize/2))
		off := r.IntN(3 * pageSize)
		op = fmt.Sprintf("write %s %d+%d", p, off, len(data))
		h, errno := f.OpenFile(p, rw, 0)
		if ok, want = errno == 0, parent && !m.dirs[p]; ok && want {
			if m.files[p] == nil {
				m.files[p] = new([]byte)
			}
			b := m.files[p]
			grow := max(0, off+len(data)-len(*b))
			if len(data) == 0 {
				grow = 0
			}
			room := int64(grow) <= f.cfg.Bytes-m.bytes()
			n, errno := h.Pwrite(data, int64(off))
			if (errno == 0) != room || room && n != len(data) {
				return fmt.Errorf("%s: %d, %v; room %v", op, n, errno, room)
			}
			if room && len(data) > 0 {
				*b = append(*b, make([]byte, grow)...)
				copy((*b)[off:], data)
			}
		}
		if errno == 0 {
			h.Close()
		}
	case 6:
		size := r.IntN(3 * pageSize)
		op = fmt.Sprintf("truncate %s %d", p, size)
		h, errno := f.OpenFile(p, sys.O_RDWR, 0)
		if ok, want = errno == 0, m.files[p] != nil; ok && want {
			b := m.files[p]
			room := int64(size-len(*b)) <= f.cfg.Bytes-m.bytes()
			if (h.Truncate(int64(size)) == 0) != room {
				return fmt.Errorf("%s: room %v", op, room)
			}
			if room {
				*b = append((*b)[:min(len(*b), size)], make([]byte, max(0, size-len(*b)))...)
			}
		}
		if errno == 0 {
			h.Close()
		}
	case 7:
		op = "read " + p
		got, errno := read(f, p)
		if ok, want = errno == 0, m.files[p] != nil; ok && want && got != string(*m.files[p]) {
			return fmt.Errorf("%s: %d bytes differ from %d", op, len(got), len(*m.files[p]))
		}
	}
	if ok != want {
		return fmt.Errorf("%s: succeeded %v, want %v", op, ok, want)
	}
	if f.bytes != m.bytes() || f.files != len(m.files)+len(m.dirs)-2 {
		return fmt.Errorf("%s: %d bytes, want %d; %d files, want %d", op, f.bytes, m.bytes(), f.files, len(m.files)+len(m.dirs)-2)
	}
	return nil
}

func (m *model) rename(p, q string) bool {
	if !m.has(p) || !m.dirs[path.Dir(q)] || strings.HasPrefix(q, p+"/") {
		return false
	}
	if p == q {
		return true
	}
	if m.has(q) && (m.dirs[p] != m.dirs[q] || m.dirs[q] && len(m.children(q)) > 0) {
		return false
	}
	delete(m.dirs, q)
	delete(m.files, q)
	for old, b := range m.files {
		if old == p || strings.HasPrefix(old, p+"/") {
			delete(m.files, old)
			m.files[q+old[len(p):]] = b
		}
	}
	for old := range m.dirs {
		if old == p || strings.HasPrefix(old, p+"/") {
			delete(m.dirs, old)
			m.dirs[q+old[len(p):]] = true
		}
	}
	return true
}

// FuzzModel does random operations on a tree and on the model, which must agree.
func FuzzModel(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 0))
		tree := newFS(Config{Bytes: 1 << 20, Files: 1000})
		m := &model{files: map[string]*[]byte{}, dirs: map[string]bool{"out": true, "tmp": true}}
		for i := range 300 {
			if err := m.step(tree, r); err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
		}
		for dir := range m.dirs {
			if got, want := list(t, tree, dir), m.children(dir); !slices.Equal(got, want) {
				t.Errorf("list %s: %v, want %v", dir, got, want)
			}
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	block := make([]byte, 4096)
	f := new(FS)
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	for b.Loop() {
		f.Reset(Config{Bytes: 1 << 20, Files: 1})
		h, _ := f.OpenFile("out/f", rw, 0)
		for range 1 << 20 / len(block) {
			h.Write(block)
		}
		h.Close()
	}
}
