// Package vfs is the file tree of one guest: read-only mounts, and in-memory folders that it may
// write to. The guest sees one root:
//
//	/         lists what is below; read-only
//	/in       where inputs are mounted; empty when none are
//	/out      writable, handed to the host afterwards
//	/tmp      writable, forgotten afterwards
//	/…        mounts: file systems that the host gives, read-only
//
// No path of the host is reachable: names are looked up in this tree alone, and below the folder
// that a look-up starts from. Neither .. nor a symbolic link leads out of that folder (EPERM), and
// paths and links that start with a slash are refused. Symbolic links inside a mount are the mount's
// own to follow.
//
// What the guest stores is counted in bytes and in names, and refused beyond a limit (ENOSPC).
// Nothing depends on the host: times come from the guest's clock, listings are sorted, and file
// numbers count up or are hashes of paths.
//
// Package vfs speaks in WASI's error numbers. It knows no descriptors, rights, modules or limits on
// time; and it has no owners or permissions.
package vfs

import (
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// The folders that are always there; the last two are writable.
const (
	InDir  = "in"
	OutDir = "out"
	TmpDir = "tmp"
)

// MaxPath is the longest path, and the longest target of a link, in bytes.
const MaxPath = 4096

// Bounds that do not depend on the guest's limits.
const (
	maxName   = 255     // bytes of one name in a path
	maxDepth  = 64      // folders in folders, below the root
	maxLinks  = 40      // symbolic links followed in one look-up
	maxNlink  = 1 << 16 // names of one file
	maxListed = 1 << 20 // entries that all open folders remember together
)

// Config says what a tree shows and how much it takes.
type Config struct {
	Mounts map[string]fs.FS // by absolute path
	Bytes  int64            // of content under the writable folders, at most
	Files  int              // names there, at most
	Now    func() int64     // the guest's clock, Unix nanoseconds; nil stands still at the epoch
}

// FS is the tree. The zero FS shows empty writable folders with no room in them. It costs nothing
// until the first look-up. It is for one guest, hence one goroutine, at a time.
type FS struct {
	cfg     Config
	root    *node // nil until something is looked up
	top     Dir   // handle on the root
	lastIno uint64
	bytes   int64
	files   int
	listed  int
	full    Full
	err     error
}

// Reset makes the tree new, with nothing of the guest before. Handles on what was there must have
// been closed.
func (f *FS) Reset(cfg Config) { *f = FS{cfg: cfg} }

// Full tells of what there was too little room, so that something was refused.
type Full struct{ Bytes, Files bool }

// Full tells what was refused so far.
func (f *FS) Full() Full { return f.full }

// Err is the first failure of a mount to give what it lists. The operation that met it has returned
// EIO; what a guest makes of that is no result of its own.
func (f *FS) Err() error { return f.err }

// Root is a handle on the root, from which everything can be reached. It need not be closed.
func (f *FS) Root() *Dir {
	f.top.fs = f
	return &f.top
}

// Kind tells files apart, by WASI's numbers.
type Kind uint8

// The kinds.
const (
	Unknown Kind = 0
	Folder  Kind = 3
	Regular Kind = 4
	Symlink Kind = 7
)

func kindOf(m fs.FileMode) Kind {
	switch m.Type() {
	case fs.ModeDir:
		return Folder
	case fs.ModeSymlink:
		return Symlink
	case 0:
		return Regular
	}
	return Unknown
}

// Stat describes a file. Times are in Unix nanoseconds.
type Stat struct {
	Ino                 uint64
	Kind                Kind
	Nlink               uint64
	Size                int64
	Atime, Mtime, Ctime int64
}

// Times is what to set: nil leaves a time as it is.
type Times struct{ Atime, Mtime *int64 }

// node is a file, folder or link in memory, or a place where a mount begins.
type node struct {
	kind                Kind
	ino                 uint64
	atime, mtime, ctime int64
	fixed               bool // made by the host: stays where it is
	writable            bool // a folder that the guest may change

	parent   *node // of folders; nil at the root
	children map[string]*node
	mount    *mount // what a folder shows besides its children
	sub      string // the path in mount that this folder stands for

	target string // of a link
	data   pages  // of a file
	names  int    // of a file or link: how many there are
	opens  int    // handles on it
	gone   bool   // without a name
}

func (n *node) isDir() bool { return n.kind == Folder }

func (f *FS) newNode(kind Kind) *node {
	f.lastIno++
	now := f.now()
	n := &node{kind: kind, ino: f.lastIno, atime: now, mtime: now, ctime: now}
	if kind == Folder {
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

// tree gives the root, made on first use.
func (f *FS) tree() *node {
	if f.root != nil {
		return f.root
	}
	f.root = f.newNode(Folder)
	f.root.fixed = true
	f.fixedDir(f.root, InDir)
	for _, name := range []string{OutDir, TmpDir} {
		f.fixedDir(f.root, name).writable = true
	}
	for i, at := range slices.Sorted(maps.Keys(f.cfg.Mounts)) {
		n := f.root
		for name := range strings.SplitSeq(strings.Trim(path.Clean("/"+at), "/"), "/") {
			if name != "" {
				n = f.fixedDir(n, name)
			}
		}
		n.mount, n.sub, n.writable = &mount{f.cfg.Mounts[at], i}, ".", false
	}
	return f.root
}

// fixedDir makes a folder on the way to a mount. Below another mount it goes on showing that one.
func (f *FS) fixedDir(parent *node, name string) *node {
	if n := parent.children[name]; n != nil {
		return n
	}
	n := f.newNode(Folder)
	n.fixed, n.parent = true, parent
	if parent.mount != nil {
		n.mount, n.sub = parent.mount, path.Join(parent.sub, name)
	}
	parent.children[name] = n
	return n
}

// create puts a new node at a free name.
func (f *FS) create(at place, kind Kind) (*node, Errno) {
	switch {
	case kind == Folder && depth(at.parent.node) >= maxDepth:
		return nil, ENAMETOOLONG
	case !f.roomForName():
		return nil, ENOSPC
	}
	n := f.newNode(kind)
	f.attach(n, at)
	return n, ESUCCESS
}

func (f *FS) roomForName() bool {
	if f.files >= f.cfg.Files {
		f.full.Files = true
		return false
	}
	return true
}

// attach gives a node a name.
func (f *FS) attach(n *node, at place) {
	dir := at.parent.node
	dir.children[at.name] = n
	dir.mtime = f.now()
	dir.ctime, n.ctime = dir.mtime, dir.mtime
	f.files++
	n.names++
	if n.isDir() {
		n.parent, n.writable = dir, true
	}
}

// detach takes a name away. The last name's charge stays until the node is let go of.
func (f *FS) detach(at place) {
	dir := at.parent.node
	delete(dir.children, at.name)
	dir.mtime = f.now()
	dir.ctime, at.node.ctime = dir.mtime, dir.mtime
	if at.node.names--; at.node.names > 0 {
		f.files--
	} else {
		at.node.gone = true
		f.free(at.node)
	}
}

// free forgets a node that has neither name nor handle.
func (f *FS) free(n *node) {
	if n.gone && n.opens == 0 {
		f.files--
		f.bytes -= n.data.size + int64(len(n.target))
		n.data = pages{}
	}
}

// resize changes a file's length.
func (f *FS) resize(n *node, size int64) Errno {
	more := size - n.data.size
	if more > f.cfg.Bytes-f.bytes {
		f.full.Bytes = true
		return ENOSPC
	}
	f.bytes += more
	n.data.resize(size)
	f.modified(n)
	return ESUCCESS
}

func (f *FS) modified(n *node) {
	n.mtime = f.now()
	n.ctime = n.mtime
}

func (f *FS) touch(n *node, t Times) {
	if t.Atime != nil {
		n.atime = *t.Atime
	}
	if t.Mtime != nil {
		n.mtime = *t.Mtime
	}
	n.ctime = f.now()
}

func (n *node) stat() Stat {
	st := Stat{Ino: n.ino, Kind: n.kind, Nlink: uint64(max(n.names, 1)), Atime: n.atime, Mtime: n.mtime, Ctime: n.ctime}
	switch {
	case n.gone:
		st.Nlink = 0
		st.Size = n.data.size
	case n.kind == Symlink:
		st.Size = int64(len(n.target))
	default:
		st.Size = n.data.size
	}
	return st
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
