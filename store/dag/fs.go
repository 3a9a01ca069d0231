package dag

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

const (
	maxFollow = 40      // symlinks on one path, as Linux has it
	maxCached = 1 << 16 // entries of folders that a file system remembers
)

// FS shows the folder c as a file system. It implements fs.ReadDirFS, fs.StatFS, fs.ReadLinkFS and
// fs.ReadFileFS and is safe for concurrent use. A symlink that is absolute or leads above c cannot be
// followed. Permissions are 0444, and 0555 for folders and what is executable; there are no times.
func (f *Files) FS(ctx context.Context, c cid.Cid) (fs.FS, error) {
	n, err := f.load(ctx, c)
	if err != nil {
		return nil, wrap(err, "show %s as a folder", c)
	}
	if n.kind() != grid.KindDir {
		return nil, grid.Errorf(grid.Invalid, "store: show %s as a folder: it is a %s", c, n.kind()).
			Hint("give the CID of a folder")
	}
	return &fileSystem{f: f, ctx: ctx, root: n, folders: map[cid.Cid]*listing{}}, nil
}

type fileSystem struct {
	f    *Files
	ctx  context.Context // bounds all reads, as io/fs has none
	root *node

	mu      sync.Mutex
	folders map[cid.Cid]*listing
	cached  int
}

// listing is a folder's entries.
type listing struct {
	links []pbLink // sorted
	gait  gait     // in entries; guarded by the file system's mutex
}

var (
	_ fs.ReadDirFS  = (*fileSystem)(nil)
	_ fs.StatFS     = (*fileSystem)(nil)
	_ fs.ReadLinkFS = (*fileSystem)(nil)
	_ fs.ReadFileFS = (*fileSystem)(nil)
)

// list is the sorted entries of a folder, remembered.
func (s *fileSystem) list(n *node) (*listing, error) {
	s.mu.Lock()
	l, ok := s.folders[n.cid]
	s.mu.Unlock()
	if ok {
		return l, nil
	}
	links, err := s.f.entries(s.ctx, n)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cached += len(links) + 1; s.cached > maxCached {
		clear(s.folders)
		s.cached = len(links) + 1
	}
	l = &listing{links: links}
	s.folders[n.cid] = l
	return l, nil
}

// find walks to a name, following symlinks; the last one only if asked to.
func (s *fileSystem) find(op, name string, follow bool) (*node, error) {
	fail := func(err error) (*node, error) { return nil, &fs.PathError{Op: op, Path: name, Err: err} }
	if !fs.ValidPath(name) {
		return fail(fs.ErrInvalid)
	}
	var (
		at    = []*node{s.root} // from the root to where the walk is
		todo  = strings.Split(name, "/")
		links = 0
	)
	if name == "." {
		return s.root, nil
	}
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..": // only of a symlink's target
			if len(at) == 1 {
				return fail(grid.Errorf(grid.Denied, "a symlink leads outside of the folder"))
			}
			at = at[:len(at)-1]
			continue
		}
		dir := at[len(at)-1]
		if dir.kind() != grid.KindDir {
			return fail(fs.ErrNotExist)
		}
		list, err := s.list(dir)
		if err != nil {
			return fail(err)
		}
		entries := list.links
		i, ok := slices.BinarySearchFunc(entries, part, func(l pbLink, name string) int { return strings.Compare(l.Name, name) })
		if !ok {
			return fail(fs.ErrNotExist)
		}
		n, err := s.f.loadAhead(s.ctx, entries[i].CID, s.neighbours(list, i))
		if err != nil {
			return fail(err)
		}
		if n.kind() == grid.KindSymlink && (follow || len(todo) > 0) {
			target := string(n.unixfs.data)
			if links++; links > maxFollow {
				return fail(grid.Errorf(grid.Limit, "more than %d symlinks", maxFollow))
			}
			if path.IsAbs(target) {
				return fail(grid.Errorf(grid.Denied, "a symlink leads outside of the folder"))
			}
			todo = append(strings.Split(target, "/"), todo...)
			continue
		}
		at = append(at, n)
	}
	return at[len(at)-1], nil
}

// neighbours are the entries behind the i-th that will be opened next, if a guest goes through a folder in order.
func (s *fileSystem) neighbours(l *listing, i int) []cid.Cid {
	if s.f.ahead == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := int64(i)
	if at == l.gait.next-1 { // looked at, then opened
		return nil
	}
	steps := l.gait.step(at, at+1, aheadBlocks)
	return s.f.coming(l.links[i+1:][:min(steps, len(l.links)-i-1)], anyLink)
}

func (s *fileSystem) Open(name string) (fs.File, error) {
	n, err := s.find("open", name, true)
	if err != nil {
		return nil, err
	}
	info := statOf(path.Base(name), n)
	if n.kind() == grid.KindDir {
		return &openFolder{info: info, fs: s, node: n}, nil
	}
	return &openFile{reader: s.f.reader(s.ctx, n), info: info}, nil
}

func (s *fileSystem) ReadFile(name string) ([]byte, error) {
	n, err := s.find("read", name, true)
	if err != nil {
		return nil, err
	}
	if n.kind() == grid.KindDir {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("is a directory")}
	}
	if n.raw {
		return slices.Clone(n.bytes), nil // the caller may change it
	}
	return io.ReadAll(s.f.reader(s.ctx, n)) // not by the claimed size
}

func (s *fileSystem) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := s.find("readdir", name, true)
	if err != nil {
		return nil, err
	}
	return s.readDir(name, n)
}

func (s *fileSystem) readDir(name string, n *node) ([]fs.DirEntry, error) {
	if n.kind() != grid.KindDir {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errors.New("not a directory")}
	}
	list, err := s.list(n)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	links := list.links
	entries := make([]fs.DirEntry, len(links))
	for i, l := range links {
		kind := grid.KindFile
		if l.CID.Prefix().Codec != cid.Raw {
			n, err := s.f.loadAhead(s.ctx, l.CID, s.f.coming(links[i+1:], hasKind))
			if err != nil {
				return nil, &fs.PathError{Op: "readdir", Path: path.Join(name, l.Name), Err: err}
			}
			kind = n.kind()
		}
		entries[i] = entry{fs: s, link: l, kind: kind}
	}
	return entries, nil
}

func (s *fileSystem) Stat(name string) (fs.FileInfo, error) { return s.stat("stat", name, true) }

// Lstat is Stat of a symlink itself.
func (s *fileSystem) Lstat(name string) (fs.FileInfo, error) { return s.stat("lstat", name, false) }

func (s *fileSystem) stat(op, name string, follow bool) (fs.FileInfo, error) {
	n, err := s.find(op, name, follow)
	if err != nil {
		return nil, err
	}
	return statOf(path.Base(name), n), nil
}

func (s *fileSystem) ReadLink(name string) (string, error) {
	n, err := s.find("readlink", name, false)
	if err != nil {
		return "", err
	}
	if n.kind() != grid.KindSymlink {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return string(n.unixfs.data), nil
}

// stat is an fs.FileInfo.
type stat struct {
	name string
	kind grid.FileKind
	size int64
	exec bool
}

func statOf(name string, n *node) stat { return stat{name, n.kind(), int64(n.size), n.executable()} }

func (i stat) Name() string       { return i.name }
func (i stat) ModTime() time.Time { return time.Time{} }
func (i stat) IsDir() bool        { return i.kind == grid.KindDir }
func (i stat) Sys() any           { return nil }

func (i stat) Size() int64 {
	if i.kind != grid.KindFile {
		return 0
	}
	return i.size
}

func (i stat) Mode() fs.FileMode {
	switch i.kind {
	case grid.KindDir:
		return fs.ModeDir | 0o555
	case grid.KindSymlink:
		return fs.ModeSymlink | 0o777
	}
	if i.exec {
		return 0o555
	}
	return 0o444
}

// entry is an fs.DirEntry.
type entry struct {
	fs   *fileSystem
	link pbLink
	kind grid.FileKind
}

func (e entry) Name() string      { return e.link.Name }
func (e entry) IsDir() bool       { return e.kind == grid.KindDir }
func (e entry) Type() fs.FileMode { return stat{kind: e.kind}.Mode().Type() }
func (e entry) String() string    { return fs.FormatDirEntry(e) }
func (e entry) Info() (fs.FileInfo, error) {
	n, err := e.fs.f.load(e.fs.ctx, e.link.CID)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: e.link.Name, Err: err}
	}
	return statOf(e.link.Name, n), nil
}

type openFile struct {
	*reader
	info stat
}

var (
	_ io.Seeker   = (*openFile)(nil)
	_ io.ReaderAt = (*openFile)(nil)
)

func (o *openFile) Stat() (fs.FileInfo, error) { return o.info, nil }

type openFolder struct {
	info stat
	fs   *fileSystem
	node *node
	next int
	all  []fs.DirEntry
}

func (o *openFolder) Stat() (fs.FileInfo, error) { return o.info, nil }
func (o *openFolder) Close() error               { return nil }

func (o *openFolder) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: o.info.name, Err: errors.New("is a directory")}
}

func (o *openFolder) ReadDir(n int) ([]fs.DirEntry, error) {
	if o.all == nil {
		var err error
		if o.all, err = o.fs.readDir(o.info.name, o.node); err != nil {
			return nil, err
		}
	}
	rest := o.all[o.next:]
	if n > 0 {
		if len(rest) == 0 {
			return nil, io.EOF
		}
		rest = rest[:min(n, len(rest))]
	}
	o.next += len(rest)
	return slices.Clone(rest), nil
}
