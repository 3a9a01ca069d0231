package vfs

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
)

func newFS(cfg Config) *FS {
	f := new(FS)
	f.Reset(cfg)
	return f
}

var roomy = Config{Bytes: 1 << 20, Files: 100}

const rw = Follow | Write | Create

// open opens a file at its path from the root.
func open(f *FS, name string, how How) (File, Errno) {
	h, d, errno := f.Root().Open(name, how)
	if d != nil {
		d.Close()
		return nil, EISDIR
	}
	return h, errno
}

// write makes a file with the given content.
func write(f *FS, name, content string) Errno {
	h, errno := open(f, name, rw|Truncate)
	if errno != 0 {
		return errno
	}
	defer h.Close()
	_, errno = h.WriteAt([]byte(content), 0)
	return errno
}

func read(f *FS, name string) (string, Errno) {
	h, errno := open(f, name, Follow)
	if errno != 0 {
		return "", errno
	}
	defer h.Close()
	buf := make([]byte, h.Size()+1)
	n, errno := h.ReadAt(buf, 0)
	return string(buf[:n]), errno
}

// list gives the names in a folder.
func list(t *testing.T, f *FS, name string) []string {
	t.Helper()
	_, d, errno := f.Root().Open(name, Directory|Follow)
	if errno != 0 {
		t.Fatalf("open %s: %v", name, errno)
	}
	defer d.Close()
	entries, errno := d.List(0)
	if errno != 0 || entries[0].Name != "." || entries[1].Name != ".." {
		t.Fatalf("list %s: %v, %v", name, entries, errno)
	}
	names := []string{}
	for _, e := range entries[2:] {
		names = append(names, e.Name)
	}
	return names
}

// linked is a mount with symbolic links.
var linked = fstest.MapFS{
	"f": {Data: []byte("in f")}, "d/g": {Data: []byte("in d/g")},
	"link": {Mode: fs.ModeSymlink, Data: []byte("d/g")}, "dlink": {Mode: fs.ModeSymlink, Data: []byte("d")},
}

// The table of what paths lead where: it is what keeps guests in.
func TestLookup(t *testing.T) {
	cfg := roomy
	cfg.Mounts = map[string]fs.FS{
		"/in":       fstest.MapFS{"a": {Data: []byte("in a")}, "d/b": {Data: []byte("in d/b")}},
		"/in/d/sub": fstest.MapFS{"c": {Data: []byte("in sub")}},
		"/one":      fileFS("single"),
		"/linked":   linked,
	}
	f := newFS(cfg)
	root := f.Root()
	for _, dir := range []string{"out/d", "out/d/e"} {
		if errno := root.Mkdir(dir); errno != 0 {
			t.Fatal(errno)
		}
	}
	write(f, "out/d/f", "f")
	for name, target := range map[string]string{
		"out/rel": "d/f", "out/up": "../in/a", "out/far": "../../../../in/a", "out/loop": "loop",
		"out/dir": "d", "out/dangling": "nowhere", "out/through": "../in/d/../../out/d/f", "out/chain": "rel",
	} {
		if errno := root.Symlink(target, name); errno != 0 {
			t.Fatal(name, errno)
		}
	}
	for _, test := range []struct {
		path, content string
		errno         Errno
	}{
		{"out/d/f", "f", 0}, {"out//d/./f", "f", 0}, {"out/rel", "f", 0}, {"out/dir/f", "f", 0}, {"out/chain", "f", 0},
		{"out/up", "in a", 0}, {"out/through", "f", 0},
		{"in/a", "in a", 0}, {"in/d/b", "in d/b", 0}, {"in/d/sub/c", "in sub", 0}, {"one", "single", 0},
		{"in/../in/a", "in a", 0}, {"in/d/../../out/d/f", "f", 0}, {"in/d/../a", "in a", 0},
		{"linked/link", "in d/g", 0}, {"linked/dlink/g", "in d/g", 0}, {"linked/dlink/../f", "in f", 0}, {"linked/d/../link", "in d/g", 0},
		{"in/../../../in/a", "", EPERM}, {"out/far", "", EPERM}, {"../etc/passwd", "", EPERM}, {"..", "", EPERM}, {"/in/a", "", EPERM},
		{"out/loop", "", ELOOP}, {"out/dangling", "", ENOENT}, {"in/a/../a", "", ENOTDIR}, {"in/none/../a", "", ENOENT},
		{"etc/passwd", "", ENOENT}, {"nothing", "", ENOENT}, {"in/none/x", "", ENOENT}, {"in/a/x", "", ENOTDIR}, {"linked/f/../f", "", ENOTDIR},
		{"out/d/f/x", "", ENOTDIR}, {"out/d/f/", "", ENOTDIR}, {"in/a/", "", ENOTDIR}, {"in/a/.", "", ENOTDIR}, {"one/", "", ENOTDIR},
		{strings.Repeat("x", 300), "", ENAMETOOLONG}, {"in/" + strings.Repeat("x", 300), "", ENAMETOOLONG}, {strings.Repeat("x/", 3000), "", ENAMETOOLONG},
		{"", "", ENOENT}, {"a\x00b", "", EINVAL}, {"a\xff", "", EILSEQ},
	} {
		if got, errno := read(f, test.path); got != test.content || errno != test.errno {
			t.Errorf("read %.40q: %q, %v; want %q, %v", test.path, got, errno, test.content, test.errno)
		}
	}
	for dir, want := range map[string][]string{
		".": {"in", "linked", "one", "out", "tmp"}, "in": {"a", "d"}, "in/d": {"b", "sub"}, "in/d/sub": {"c"}, "out/d": {"e", "f"}, "out/dir": {"e", "f"},
		"linked/dlink": {"g"}, "tmp": {},
	} {
		if got := list(t, f, dir); !slices.Equal(got, want) {
			t.Errorf("list %s: %v, want %v", dir, got, want)
		}
	}
	if target, errno := root.Readlink("linked/link"); target != "d/g" || errno != 0 {
		t.Errorf("readlink in a mount: %q, %v", target, errno)
	}
	if st, errno := root.Stat("linked/link", false); st.Kind != Symlink || errno != 0 {
		t.Errorf("lstat in a mount: %+v, %v", st, errno)
	}
	if _, errno := open(f, "linked/link", 0); errno != ELOOP {
		t.Errorf("open a link in a mount, not following: %v", errno)
	}
	if f.Err() != nil {
		t.Errorf("a failure of the host: %v", f.Err())
	}
}

// Look-ups from a folder stay below it.
func TestBeneath(t *testing.T) {
	f := newFS(roomy)
	root := f.Root()
	root.Mkdir("out/d")
	root.Mkdir("out/d/e")
	write(f, "out/f", "f")
	root.Symlink("../f", "out/d/up")
	root.Symlink("e/../../f", "out/d/round")
	_, d, errno := root.Open("out/d", Directory)
	if errno != 0 {
		t.Fatal(errno)
	}
	defer d.Close()
	for _, p := range []string{"..", "../f", "e/../..", "up", "round", "./../d"} {
		if _, errno := d.Stat(p, true); errno != EPERM {
			t.Errorf("%s: %v, want EPERM", p, errno)
		}
	}
	for _, p := range []string{"out/d/up", "out/d/round", "out/d/../f"} {
		if got, errno := read(f, p); got != "f" || errno != 0 {
			t.Errorf("%s from the root: %q, %v", p, got, errno)
		}
	}
	root.Rename("out/d", root, "tmp/d") // the handle goes along
	if errno := d.Mkdir("new"); errno != 0 {
		t.Error(errno)
	}
	if _, errno := root.Stat("tmp/d/new", false); errno != 0 {
		t.Error(errno)
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
	root := f.Root()
	root.Mkdir("out/d")
	root.Mkdir("out/d/e")
	write(f, "out/f", "f")
	try := func(name string, how How) Errno {
		h, d, errno := root.Open(name, how)
		if h != nil {
			h.Close()
		}
		if d != nil {
			d.Close()
		}
		return errno
	}
	for _, test := range []struct {
		what      string
		got, want Errno
	}{
		{"create in /", write(f, "x", ""), EROFS},
		{"create in a mount", write(f, "in/x", ""), EROFS},
		{"write to a mount", try("in/a", Write), EROFS},
		{"truncate in a mount", try("in/a", Truncate), EROFS},
		{"exclusive in a mount", try("in/a", rw|Exclusive), EEXIST},
		{"folder of a mount for writing", try("in/d", Write), EISDIR},
		{"folder of a mount as a folder", try("in/d", Directory), 0},
		{"mkdir in a mount", root.Mkdir("in/x"), EROFS},
		{"mkdir over a mounted file", root.Mkdir("in/a"), EEXIST},
		{"unlink in a mount", root.Unlink("in/a"), EROFS},
		{"unlink nothing in a mount", root.Unlink("in/x"), ENOENT},
		{"rename from a mount", root.Rename("in/a", root, "out/a"), EROFS},
		{"rename into a mount", root.Rename("out/f", root, "in/f"), EROFS},
		{"link into a mount", root.Link("out/f", false, root, "in/f"), EROFS},
		{"mkdir twice", root.Mkdir("out/d"), EEXIST},
		{"mkdir .", root.Mkdir("."), EEXIST},
		{"mkdir without parent", root.Mkdir("out/x/y"), ENOENT},
		{"rmdir a file", root.Rmdir("out/f"), ENOTDIR},
		{"rmdir a full folder", root.Rmdir("out/d"), ENOTEMPTY},
		{"rmdir /out", root.Rmdir("out"), EPERM},
		{"rmdir by ..", root.Rmdir("out/d/e/.."), EINVAL},
		{"unlink a folder", root.Unlink("out/d"), EISDIR},
		{"rename /tmp", root.Rename("tmp", root, "out/tmp"), EPERM},
		{"rename onto /tmp", root.Rename("out/d", root, "tmp"), EPERM},
		{"rename into itself", root.Rename("out/d", root, "out/d/e/x"), EINVAL},
		{"rename a folder onto a file", root.Rename("out/d", root, "out/f"), ENOTDIR},
		{"rename a file onto a folder", root.Rename("out/f", root, "out/d"), EISDIR},
		{"rename onto a full folder", root.Rename("out/d/e", root, "out/d"), ENOTEMPTY},
		{"rename onto itself", root.Rename("out/f", root, "out/f"), 0},
		{"open a folder for writing", try("out/d", Write), EISDIR},
		{"open a file as a folder", try("out/f", Directory), ENOTDIR},
		{"create exclusively what is there", try("out/f", rw|Exclusive), EEXIST},
		{"times of the root", root.Touch(".", true, Times{}), EROFS},
		{"times of a mount", root.Touch("in", true, Times{}), EROFS},
	} {
		if test.got != test.want {
			t.Errorf("%s: %v, want %v", test.what, test.got, test.want)
		}
	}
}

// Room is given back with the last handle on what was removed, and folders cannot get too deep.
func TestRoom(t *testing.T) {
	f := newFS(Config{Bytes: 10, Files: 3})
	root := f.Root()
	h, errno := open(f, "tmp/a", rw)
	if errno != 0 {
		t.Fatal(errno)
	}
	if n, errno := h.WriteAt(make([]byte, 10), 0); n != 10 || errno != 0 {
		t.Fatal(n, errno)
	}
	if n, errno := h.WriteAt([]byte{1}, 10); n != 0 || errno != ENOSPC || f.Full() != (Full{Bytes: true}) {
		t.Errorf("the eleventh byte: %d, %v", n, errno)
	}
	if errno := h.Truncate(1 << 62); errno != ENOSPC {
		t.Errorf("truncate to a huge size: %v", errno)
	}
	if n, errno := h.WriteAt([]byte{1}, 1<<61); n != 0 || errno != ENOSPC {
		t.Errorf("write far out: %d, %v", n, errno)
	}
	if errno := root.Symlink("x", "tmp/l"); errno != ENOSPC {
		t.Errorf("a link beyond the limit: %v", errno)
	}
	if errno := root.Link("tmp/a", false, root, "tmp/a2"); errno != 0 {
		t.Errorf("a second name: %v", errno)
	}
	root.Unlink("tmp/a")
	if f.bytes != 10 || f.files != 1 {
		t.Errorf("with one name of two: %d bytes, %d names", f.bytes, f.files)
	}
	root.Unlink("tmp/a2")
	if errno := write(f, "tmp/b", "x"); errno != ENOSPC {
		t.Errorf("write while a removed file is open: %v", errno)
	}
	if n, errno := h.ReadAt(make([]byte, 20), 0); n != 10 || errno != 0 {
		t.Errorf("read a removed file: %d, %v", n, errno)
	}
	h.Close()
	h.Close()
	if errno := write(f, "tmp/b", "0123456789"); errno != 0 {
		t.Errorf("write after it is closed: %v", errno)
	}
	root.Mkdir("tmp/c")
	root.Mkdir("tmp/d")
	if errno := root.Mkdir("tmp/e"); errno != ENOSPC {
		t.Errorf("the fourth name: %v", errno)
	}
	if errno := root.Link("tmp/b", false, root, "tmp/e"); errno != ENOSPC {
		t.Errorf("the fourth name, of a file that is there: %v", errno)
	}
	if f.bytes != 10 || f.files != 3 {
		t.Errorf("%d bytes, %d names", f.bytes, f.files)
	}

	f = newFS(Config{Files: 1000})
	root = f.Root()
	deep := "tmp"
	for range maxDepth - 1 {
		deep += "/d"
		if errno := root.Mkdir(deep); errno != 0 {
			t.Fatal(errno)
		}
	}
	if errno := root.Mkdir(deep + "/d"); errno != ENAMETOOLONG {
		t.Errorf("one folder too deep: %v", errno)
	}
	root.Mkdir("out/x")
	if errno := root.Rename("tmp/d", root, "out/x/d"); errno != ENAMETOOLONG {
		t.Errorf("moved too deep: %v", errno)
	}
}

// What open folders remember is bounded.
func TestListed(t *testing.T) {
	const n = 2000
	f := newFS(Config{Files: n})
	for i := range n {
		write(f, fmt.Sprint("tmp/", i), "")
	}
	var open []*Dir
	var errno Errno
	for errno == 0 {
		var d *Dir
		if _, d, errno = f.Root().Open("tmp", Directory); errno != 0 {
			t.Fatal(errno)
		}
		_, errno = d.List(0)
		if open = append(open, d); len(open) > maxListed/n+1 {
			t.Fatal("no end to lists")
		}
	}
	if errno != ENOMEM {
		t.Error(errno)
	}
	for _, d := range open {
		d.Close()
	}
	if f.listed != 0 {
		t.Errorf("%d entries remembered after all", f.listed)
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
	if _, errno := read(f, "in/broken"); errno != EIO || f.Err() != io.ErrUnexpectedEOF {
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
	root := f.Root()
	root.Mkdir("out/d")
	write(f, "out/d/a", strings.Repeat("a", 100))
	write(f, "tmp/secret", "x")
	root.Link("out/d/a", false, root, "out/hard")
	for name, target := range map[string]string{"out/in": "d/a", "out/d/up": "../d/a", "out/secret": "../tmp/secret", "out/root": ".."} {
		if errno := root.Symlink(target, name); errno != 0 {
			t.Fatal(errno)
		}
	}
	out := f.Out()
	f.Reset(Config{})
	for name, want := range map[string]bool{"d/a": true, "in": true, "hard": true, "d/up": true, "secret": false, "root": false, "../tmp": false, "": false} {
		if data, err := fs.ReadFile(out, name); (err == nil) != want || want && len(data) != 100 {
			t.Errorf("%q: %d bytes, %v", name, len(data), err)
		}
	}
	var walked []string
	fs.WalkDir(out, ".", func(p string, d fs.DirEntry, err error) error {
		walked = append(walked, p)
		return err
	})
	if want := []string{".", "d", "d/a", "d/up", "hard", "in", "root", "secret"}; !slices.Equal(walked, want) {
		t.Errorf("walked %v, want %v", walked, want)
	}
}

// TestUntouchedIsFree: tasks that use no files must not pay for them.
func TestUntouchedIsFree(t *testing.T) {
	f := new(FS)
	if n := testing.AllocsPerRun(100, func() {
		f.Reset(roomy)
		if f.Root(); f.Out() != nil {
			t.Fatal("an /out")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// model is a file system made of two maps, slow and plain. Files with several names share content.
type model struct {
	files map[string]*[]byte
	dirs  map[string]bool
}

func (m *model) has(p string) bool { return m.files[p] != nil || m.dirs[p] }

func (m *model) children(p string) []string {
	names := []string{}
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
	seen := map[*[]byte]bool{}
	for _, b := range m.files {
		if !seen[b] {
			n += int64(len(*b))
		}
		seen[b] = true
	}
	return n
}

// step does one random operation on both, which must agree.
func (m *model) step(f *FS, r *rand.Rand) error {
	name := func() string {
		p := []string{"out", "tmp"}[r.IntN(2)]
		for range 1 + r.IntN(3) {
			p += "/" + string(rune('a'+r.IntN(3)))
		}
		return p
	}
	p, q := name(), name()
	root := f.Root()
	parent := m.dirs[path.Dir(p)]
	var ok, want bool
	var op string
	switch r.IntN(9) {
	case 0:
		op = "mkdir " + p
		ok, want = root.Mkdir(p) == 0, parent && !m.has(p)
		if want {
			m.dirs[p] = true
		}
	case 1:
		op = "rmdir " + p
		ok, want = root.Rmdir(p) == 0, m.dirs[p] && len(m.children(p)) == 0
		if want {
			delete(m.dirs, p)
		}
	case 2:
		op = "unlink " + p
		ok, want = root.Unlink(p) == 0, m.files[p] != nil
		if want {
			delete(m.files, p)
		}
	case 3:
		op = "rename " + p + " " + q
		ok = root.Rename(p, root, q) == 0
		want = m.rename(p, q)
	case 4, 5:
		data := bytes.Repeat([]byte{byte('A' + r.IntN(26))}, r.IntN(3*pageSize/2))
		off := r.IntN(3 * pageSize)
		op = fmt.Sprintf("write %s %d+%d", p, off, len(data))
		h, errno := open(f, p, rw)
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
			n, errno := h.WriteAt(data, int64(off))
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
		h, errno := open(f, p, Write)
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
	case 8:
		op = "link " + p + " " + q
		ok, want = root.Link(p, false, root, q) == 0, m.files[p] != nil && m.dirs[path.Dir(q)] && !m.has(q)
		if want {
			m.files[q] = m.files[p]
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
	if p == q || m.files[p] != nil && m.files[p] == m.files[q] {
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

// FuzzWalk looks up any path, which must lead nowhere but into the tree.
func FuzzWalk(f *testing.F) {
	for _, p := range []string{"out/l/../../../x", "in/d/../../..", "in/link/../x", "../a", "tmp/./l/l/l", "in/a/..", "out/\x00", "/", "in//d/"} {
		f.Add(p, "../in")
	}
	f.Fuzz(func(t *testing.T, p, target string) {
		cfg := roomy
		cfg.Mounts = map[string]fs.FS{"/in": strict{t, linked}}
		tree := newFS(cfg)
		root := tree.Root()
		root.Mkdir("out/d")
		root.Symlink(target, "out/l")
		root.Symlink(target, "tmp/l")
		_, d, errno := root.Open("out/d", Directory)
		if errno != 0 {
			t.Fatal(errno)
		}
		defer d.Close()
		for _, from := range []*Dir{root, d} {
			for _, how := range []How{0, Follow, rw, rw | Exclusive | Truncate} {
				if h, sub, _ := from.Open(p, how); h != nil {
					h.Close()
				} else if sub != nil {
					sub.Close()
				}
			}
			from.Stat(p, true)
			from.Readlink(p)
			from.Rename(p, d, "x")
			from.Link(p, true, d, target)
			from.Unlink(p)
			from.Mkdir(p)
			from.Rmdir(p)
		}
		if tree.Err() != nil {
			t.Errorf("%q, %q: %v", p, target, tree.Err())
		}
	})
}

// strict is a mount that refuses to be asked for what is no path of its own.
type strict struct {
	t *testing.T
	fstest.MapFS
}

func (s strict) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		s.t.Errorf("a mount is asked for %q", name)
	}
	return s.MapFS.Open(name)
}

func BenchmarkWrite(b *testing.B) {
	block := make([]byte, 4096)
	f := new(FS)
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	for b.Loop() {
		f.Reset(Config{Bytes: 1 << 20, Files: 1})
		h, _ := open(f, "out/f", rw)
		for i := range 1 << 20 / len(block) {
			h.WriteAt(block, int64(i*len(block)))
		}
		h.Close()
	}
}
