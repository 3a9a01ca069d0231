// Package memfs is the file tree of one guest: read-only mounts, and in-memory folders that it may
// write to. The guest sees one root:
//
//	/         lists what is below; read-only
//	/in       where inputs are mounted; empty when none are
//	/out      writable, handed to the host afterwards
//	/tmp      writable, forgotten afterwards
//	/…        mounts: file systems that the host gives, read-only
//
// No path of the host is reachable: names are looked up in this tree alone, symbolic links are
// followed in it, and .. at the root stays there. What the guest stores is counted in bytes and in
// files, and refused beyond a limit. Nothing depends on the host: times come from the guest's clock,
// listings are sorted, and file numbers count up or are hashes of paths.
//
// Package memfs implements wazero's file system interface. It knows no guests, modules or limits on
// time; and it has no hard links, owners or permissions.
package memfs

import (
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero/experimental/sys"
	wsys "github.com/tetratelabs/wazero/sys"
)

// The folders that are always there; the last two are writable.
const (
	InDir  = "in"
	OutDir = "out"
	TmpDir = "tmp"
)

// Bounds that do not depend on the guest's limits.
const (
	maxPath  = 4096 // bytes of a path that a guest names
	maxName  = 255  // bytes of one name in it
	maxDepth = 64   // folders in folders, below the root
	maxLinks = 40   // symbolic links followed in one look-up
	maxOpen  = 4096 // files open at a time
)

// errFull stands for ENOSPC, for which wazero's WASI has no number: guests see an I/O error.
const errFull = sys.EIO

// Config says what a tree shows and how much it takes.
type Config struct {
	Mounts map[string]fs.FS // by absolute path
	Bytes  int64            // of content under the writable folders, at most
	Files  int              // files, folders and links there, at most
	Now    func() int64     // the guest's clock, Unix nanoseconds; nil stands still at the epoch
}

// FS is the tree. The zero FS shows empty writable folders with no room in them. It costs nothing
// until the first look-up. It is for one guest, hence one goroutine, at a time.
type FS struct {
	sys.UnimplementedFS
	cfg     Config
	root    *node // nil until something is looked up
	lastIno uint64
	bytes   int64
	files   int
	open    int
	full    bool
	err     error
}

// Reset makes the tree new, with nothing of the guest before.
func (f *FS) Reset(cfg Config) { *f = FS{cfg: cfg} }

// Full reports whether something was refused for lack of room.
func (f *FS) Full() bool { return f.full }

// Err is the first failure of a mount to give what it lists. The guest has seen an I/O error; what it
// made of that is no result of its own.
func (f *FS) Err() error { return f.err }

// node is a file, folder or link in memory, or a place where a mount begins.
type node struct {
	kind         fs.FileMode // fs.ModeDir, fs.ModeSymlink, or 0 for a file
	ino          uint64
	atime, mtime int64
	fixed        bool // made by the host: stays where it is
	writable     bool // a folder that the guest may change

	parent   *node // of folders; nil at the root
	children map[string]*node
	mount    fs.FS  // what a folder shows besides its children
	sub      string // the path in mount that this folder stands for

	target string // of a link
	data   pages  // of a file
	opens  int    // handles on a file
	gone   bool   // a file without a name
}

func (n *node) isDir() bool { return n.kind == fs.ModeDir }

func (f *FS) newNode(kind fs.FileMode) *node {
	f.lastIno++
	now := f.now()
	n := &node{kind: kind, ino: f.lastIno, atime: now, mtime: now}
	if kind == fs.ModeDir {
		n.children = map[string]*node{}
	}
	return n
}

func (f *FS) now() int64 {
	if f.cfg.Now == nil {
		return 0
	}
	return f.cfg.Now()
}

// top gives the root, made on first use.
func (f *FS) top() *node {
	if f.root != nil {
		return f.root
	}
	f.root = f.newNode(fs.ModeDir)
	f.root.fixed = true
	f.fixedDir(f.root, InDir)
	for _, name := range []string{OutDir, TmpDir} {
		f.fixedDir(f.root, name).writable = true
	}
	for _, at := range slices.Sorted(mapKeys(f.cfg.Mounts)) {
		n := f.root
		for name := range strings.SplitSeq(strings.Trim(path.Clean("/"+at), "/"), "/") {
			if name != "" {
				n = f.fixedDir(n, name)
			}
		}
		n.mount, n.sub, n.writable = f.cfg.Mounts[at], ".", false
	}
	return f.root
}

// fixedDir makes a folder on the way to a mount. Below another mount it goes on showing that one.
func (f *FS) fixedDir(parent *node, name string) *node {
	if n := parent.children[name]; n != nil {
		return n
	}
	n := f.newNode(fs.ModeDir)
	n.fixed, n.parent = true, parent
	if parent.mount != nil {
		n.mount, n.sub = parent.mount, path.Join(parent.sub, name)
	}
	parent.children[name] = n
	return n
}

// place is where a path leads: to a node; or to sub inside mount; or, node and mount being nil, to a
// free name in a folder.
type place struct {
	node   *node
	parent *node // with name, where the node is or would be; nil for the root
	name   string
	mount  fs.FS
	sub    string
	slash  bool // the path ends in a slash: only a folder will do
}

// walk looks a path up from the root. A link at its very end is followed only when follow is set.
func walk(root *node, p string, follow bool) (place, sys.Errno) {
	if len(p) > maxPath {
		return place{}, sys.ENAMETOOLONG
	}
	at := place{node: root}
	links := 0
	for rest := strings.TrimLeft(p, "/"); rest != ""; {
		name, tail, slash := strings.Cut(rest, "/")
		tail = strings.TrimLeft(tail, "/")
		dir := at.node
		switch {
		case !dir.isDir():
			return place{}, sys.ENOTDIR
		case name == ".":
			rest = tail
			continue
		case name == "..":
			if dir.parent != nil {
				dir = dir.parent
			}
			at, rest = place{node: dir, parent: dir.parent}, tail
			continue
		case len(name) > maxName:
			return place{}, sys.ENAMETOOLONG
		}
		child := dir.children[name]
		switch {
		case child == nil && dir.mount != nil:
			in := path.Clean(rest)
			if in == ".." || strings.HasPrefix(in, "../") {
				rest = in
				continue
			}
			if in == "." {
				return at, 0
			}
			return place{mount: dir.mount, sub: path.Join(dir.sub, in), slash: strings.HasSuffix(rest, "/")}, 0
		case child == nil && tail == "":
			return place{parent: dir, name: name, slash: slash}, 0
		case child == nil:
			return place{}, sys.ENOENT
		case child.kind == fs.ModeSymlink && (follow || tail != "" || slash):
			if links++; links > maxLinks {
				return place{}, sys.ELOOP
			}
			if strings.HasPrefix(child.target, "/") {
				at = place{node: root}
			}
			if rest = child.target; slash {
				rest += "/" + tail
			}
			if len(rest) > 2*maxPath {
				return place{}, sys.ENAMETOOLONG
			}
			rest = strings.TrimLeft(rest, "/")
			continue
		}
		at, rest = place{node: child, parent: dir, name: name, slash: slash}, tail
	}
	if at.slash && !at.node.isDir() {
		return place{}, sys.ENOTDIR
	}
	return at, 0
}

// OpenFile implements sys.FS.
func (f *FS) OpenFile(p string, flag sys.Oflag, _ fs.FileMode) (sys.File, sys.Errno) {
	if f.open >= maxOpen {
		return nil, sys.EIO
	}
	exclusive := flag&(sys.O_CREAT|sys.O_EXCL) == sys.O_CREAT|sys.O_EXCL
	at, errno := walk(f.top(), p, flag&sys.O_NOFOLLOW == 0 && !exclusive)
	if errno != 0 {
		return nil, errno
	}
	write := flag&(sys.O_RDWR|sys.O_WRONLY|sys.O_TRUNC|sys.O_APPEND) != 0
	n := at.node
	switch {
	case at.mount != nil:
		return f.openMounted(at, flag, write)
	case n == nil && flag&sys.O_CREAT == 0:
		return nil, sys.ENOENT
	case n == nil && (at.slash || flag&sys.O_DIRECTORY != 0):
		return nil, sys.EISDIR
	case n == nil:
		if n, errno = f.create(at, 0); errno != 0 {
			return nil, errno
		}
	case exclusive:
		return nil, sys.EEXIST
	case n.kind == fs.ModeSymlink:
		return nil, sys.ELOOP
	case n.isDir():
		if write && flag&sys.O_DIRECTORY == 0 {
			return nil, sys.EISDIR
		}
		if n.mount != nil { // whose root may turn out to be a file
			return f.openMounted(place{node: n, mount: n.mount, sub: n.sub}, flag, write)
		}
		f.open++
		return &dir{fs: f, node: n}, 0
	case flag&sys.O_DIRECTORY != 0:
		return nil, sys.ENOTDIR
	case flag&sys.O_TRUNC != 0:
		f.resize(n, 0)
	}
	f.open++
	n.opens++
	return &file{
		fs: f, node: n,
		read:     flag&sys.O_WRONLY == 0,
		write:    flag&(sys.O_RDWR|sys.O_WRONLY) != 0,
		appendTo: flag&sys.O_APPEND != 0,
	}, 0
}

// create puts a new node at a free name.
func (f *FS) create(at place, kind fs.FileMode) (*node, sys.Errno) {
	switch {
	case !at.parent.writable:
		return nil, sys.EROFS
	case kind == fs.ModeDir && depth(at.parent) >= maxDepth:
		return nil, sys.ENAMETOOLONG
	case f.files >= f.cfg.Files:
		f.full = true
		return nil, errFull
	}
	f.files++
	n := f.newNode(kind)
	f.attach(n, at)
	return n, 0
}

// attach names a node. Strings that wazero passes may lie in the guest's memory: what is kept is
// copied.
func (f *FS) attach(n *node, at place) {
	at.parent.children[strings.Clone(at.name)] = n
	at.parent.mtime = f.now()
	if n.isDir() {
		n.parent, n.writable = at.parent, true
	}
}

// drop takes a name away, and the node with it once no handle is left.
func (f *FS) drop(at place) {
	delete(at.parent.children, at.name)
	at.parent.mtime = f.now()
	at.node.gone = true
	f.free(at.node)
}

func (f *FS) free(n *node) {
	if n.gone && n.opens == 0 {
		f.files--
		f.bytes -= n.data.size + int64(len(n.target))
		n.data = pages{}
	}
}

// resize changes a file's length, and reports whether there is room for it.
func (f *FS) resize(n *node, size int64) bool {
	if more := size - n.data.size; more > f.cfg.Bytes-f.bytes {
		f.full = true
		return false
	} else {
		f.bytes += more
	}
	n.data.resize(size)
	n.mtime = f.now()
	return true
}

func depth(n *node) int {
	d := 0
	for ; n.parent != nil; n = n.parent {
		d++
	}
	return d
}

// height is how deep the folders below n go.
func height(n *node) int {
	h := 0
	for _, c := range n.children {
		if c.isDir() {
			h = max(h, 1+height(c))
		}
	}
	return h
}

// existing looks up a node that the guest wants to change or remove.
func (f *FS) existing(p string, follow bool) (place, sys.Errno) {
	at, errno := walk(f.top(), p, follow)
	switch {
	case errno != 0:
		return at, errno
	case at.mount != nil:
		if _, err := fs.Stat(at.mount, at.sub); err != nil {
			return at, f.errno(err)
		}
		return at, sys.EROFS
	case at.node == nil:
		return at, sys.ENOENT
	}
	return at, 0
}

func (f *FS) removable(p string) (place, sys.Errno) {
	at, errno := f.existing(p, false)
	switch {
	case errno != 0:
		return at, errno
	case at.node.fixed:
		return at, sys.EPERM
	case at.parent == nil || at.name == "": // reached through ..
		return at, sys.EINVAL
	}
	return at, 0
}

// Mkdir implements sys.FS.
func (f *FS) Mkdir(p string, _ fs.FileMode) sys.Errno {
	at, errno := f.vacant(p)
	if errno == 0 {
		_, errno = f.create(at, fs.ModeDir)
	}
	return errno
}

// vacant looks up a name that must not be taken.
func (f *FS) vacant(p string) (place, sys.Errno) {
	at, errno := walk(f.top(), p, false)
	switch {
	case errno != 0:
		return at, errno
	case at.node != nil:
		return at, sys.EEXIST
	case at.mount != nil:
		if _, err := fs.Lstat(at.mount, at.sub); err == nil {
			return at, sys.EEXIST
		}
		return at, sys.EROFS
	}
	return at, 0
}

// Symlink implements sys.FS.
func (f *FS) Symlink(target, p string) sys.Errno {
	if target == "" || len(target) > maxPath {
		return sys.EINVAL
	}
	at, errno := f.vacant(p)
	if errno != 0 {
		return errno
	}
	if at.slash {
		return sys.ENOENT
	}
	if int64(len(target)) > f.cfg.Bytes-f.bytes {
		f.full = true
		return errFull
	}
	n, errno := f.create(at, fs.ModeSymlink)
	if errno == 0 {
		n.target = strings.Clone(target)
		f.bytes += int64(len(target))
	}
	return errno
}

// Readlink implements sys.FS.
func (f *FS) Readlink(p string) (string, sys.Errno) {
	at, errno := walk(f.top(), p, false)
	switch {
	case errno != 0:
		return "", errno
	case at.mount != nil:
		target, err := fs.ReadLink(at.mount, at.sub)
		return target, f.errno(err)
	case at.node == nil:
		return "", sys.ENOENT
	case at.node.kind != fs.ModeSymlink:
		return "", sys.EINVAL
	}
	return at.node.target, 0
}

// Unlink implements sys.FS.
func (f *FS) Unlink(p string) sys.Errno {
	at, errno := f.removable(p)
	if errno == 0 && at.node.isDir() {
		errno = sys.EISDIR
	}
	if errno == 0 {
		f.drop(at)
	}
	return errno
}

// Rmdir implements sys.FS.
func (f *FS) Rmdir(p string) sys.Errno {
	at, errno := f.removable(p)
	switch {
	case errno != 0:
		return errno
	case !at.node.isDir():
		return sys.ENOTDIR
	case len(at.node.children) > 0:
		return sys.ENOTEMPTY
	}
	f.drop(at)
	return 0
}

// Rename implements sys.FS.
func (f *FS) Rename(from, to string) sys.Errno {
	src, errno := f.removable(from)
	if errno != 0 {
		return errno
	}
	dst, errno := walk(f.top(), to, false)
	switch {
	case errno != 0:
		return errno
	case dst.mount != nil:
		return sys.EROFS
	case dst.node == src.node:
		return 0
	case dst.node != nil && dst.node.fixed:
		return sys.EPERM
	case dst.parent == nil || dst.name == "":
		return sys.EINVAL
	case !dst.parent.writable:
		return sys.EROFS
	}
	if src.node.isDir() {
		for n := dst.parent; n != nil; n = n.parent {
			if n == src.node {
				return sys.EINVAL // into itself
			}
		}
		if depth(dst.parent)+1+height(src.node) > maxDepth {
			return sys.ENAMETOOLONG
		}
	} else if dst.slash {
		return sys.ENOTDIR
	}
	if old := dst.node; old != nil {
		switch {
		case src.node.isDir() && !old.isDir():
			return sys.ENOTDIR
		case !src.node.isDir() && old.isDir():
			return sys.EISDIR
		case len(old.children) > 0:
			return sys.ENOTEMPTY
		}
		f.drop(dst)
	}
	delete(src.parent.children, src.name)
	src.parent.mtime = f.now()
	f.attach(src.node, dst)
	return 0
}

// Link implements sys.FS: there are no hard links.
func (f *FS) Link(string, string) sys.Errno { return sys.ENOTSUP }

// Chmod implements sys.FS: there are no permissions, so any will do.
func (f *FS) Chmod(p string, _ fs.FileMode) sys.Errno {
	_, errno := f.changeable(p)
	return errno
}

// Utimens implements sys.FS.
func (f *FS) Utimens(p string, atime, mtime int64) sys.Errno {
	n, errno := f.changeable(p)
	if errno == 0 {
		n.touch(atime, mtime)
	}
	return errno
}

func (f *FS) changeable(p string) (*node, sys.Errno) {
	at, errno := f.existing(p, true)
	if errno == 0 && at.node.fixed && !at.node.writable {
		errno = sys.EROFS
	}
	return at.node, errno
}

func (n *node) touch(atime, mtime int64) {
	if atime != sys.UTIME_OMIT {
		n.atime = atime
	}
	if mtime != sys.UTIME_OMIT {
		n.mtime = mtime
	}
}

// Stat implements sys.FS.
func (f *FS) Stat(p string) (wsys.Stat_t, sys.Errno) { return f.stat(p, true) }

// Lstat implements sys.FS.
func (f *FS) Lstat(p string) (wsys.Stat_t, sys.Errno) { return f.stat(p, false) }

func (f *FS) stat(p string, follow bool) (wsys.Stat_t, sys.Errno) {
	at, errno := walk(f.top(), p, follow)
	switch {
	case errno != 0:
		return wsys.Stat_t{}, errno
	case at.mount != nil:
		return f.statMounted(at, follow)
	case at.node == nil:
		return wsys.Stat_t{}, sys.ENOENT
	case at.node.mount != nil:
		return f.statMounted(place{node: at.node, mount: at.node.mount, sub: at.node.sub}, follow)
	}
	return at.node.stat(), 0
}

func (n *node) stat() wsys.Stat_t {
	st := wsys.Stat_t{Ino: n.ino, Mode: n.kind | 0o644, Nlink: 1, Atim: n.atime, Mtim: n.mtime, Ctim: n.mtime}
	switch n.kind {
	case fs.ModeDir:
		st.Mode |= 0o111
		if !n.writable {
			st.Mode &^= 0o222
		}
	case fs.ModeSymlink:
		st.Mode |= 0o777
		st.Size = int64(len(n.target))
	default:
		st.Size = n.data.size
	}
	return st
}
