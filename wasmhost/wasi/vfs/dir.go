package vfs

import (
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Dir is an open folder. Paths are relative to it and lead nowhere but below it. It is for one
// goroutine.
type Dir struct {
	fs     *FS
	at     step    // empty for the root before it is needed
	in     fs.File // of a mount's folder: what the first list is read from; nil after that
	list   []Entry
	closed bool
}

// Entry is one line of a folder's list.
type Entry struct {
	Name string
	Ino  uint64
	Kind Kind
}

// How says how to open.
type How uint8

// The ways to open a path; they combine.
const (
	Follow    How = 1 << iota // a symbolic link at the end of the path
	Create                    // a file when there is none
	Exclusive                 // with Create: only when there is none
	Truncate                  // to size 0
	Directory                 // only a folder will do
	Write                     // the file is to be written to
)

func (f *FS) openDir(at step) *Dir {
	if at.node != nil {
		at.node.opens++
	}
	return &Dir{fs: f, at: at}
}

// here is the folder itself, which for the root is made on first use.
func (d *Dir) here() step {
	if d.at.node == nil && d.at.mount == nil {
		d.at = d.fs.tree().step()
	}
	return d.at
}

// Close lets go of the folder; it may be called twice.
func (d *Dir) Close() {
	if d.closed || d == &d.fs.top {
		return
	}
	d.closed = true
	d.fs.listed -= len(d.list)
	d.list = nil
	if d.in != nil {
		d.in.Close()
	}
	if n := d.at.node; n != nil {
		n.opens--
		d.fs.free(n)
	}
}

// Self describes the folder.
func (d *Dir) Self() (Stat, Errno) { return d.fs.stat(place{step: d.here()}, true) }

// TouchSelf sets the folder's times.
func (d *Dir) TouchSelf(t Times) Errno { return d.fs.touchAt(place{step: d.here()}, t) }

// Open opens a path: as a File, or as a Dir when it leads to a folder.
func (d *Dir) Open(p string, how How) (File, *Dir, Errno) {
	f := d.fs
	exclusive := how&(Create|Exclusive) == Create|Exclusive
	if exclusive {
		how &^= Follow
	}
	at, errno := f.walk(d.here(), p, how&Follow != 0)
	if errno != ESUCCESS {
		return nil, nil, errno
	}
	n := at.node
	switch {
	case n == nil && at.mount != nil:
		return f.openMounted(at, how)
	case at.free() && how&Create == 0:
		return nil, nil, ENOENT
	case at.free() && at.slash:
		return nil, nil, EISDIR
	case at.free():
		if errno = vacant(at); errno != ESUCCESS {
			return nil, nil, errno
		}
		if n, errno = f.create(at, Regular); errno != ESUCCESS {
			return nil, nil, errno
		}
	case exclusive:
		return nil, nil, EEXIST
	case n.kind == Symlink:
		return nil, nil, ELOOP
	case n.mount != nil: // whose root may turn out to be a file
		return f.openMounted(at, how|Follow)
	case n.isDir() && how&(Write|Create|Truncate) != 0:
		return nil, nil, EISDIR
	case n.isDir():
		return nil, f.openDir(at.step), ESUCCESS
	case how&Directory != 0:
		return nil, nil, ENOTDIR
	case how&Truncate != 0:
		if errno = f.resize(n, 0); errno != ESUCCESS {
			return nil, nil, errno
		}
	}
	n.opens++
	return &memFile{fs: f, node: n}, nil, ESUCCESS
}

// Stat describes what a path leads to.
func (d *Dir) Stat(p string, follow bool) (Stat, Errno) {
	at, errno := d.fs.walk(d.here(), p, follow)
	if errno != ESUCCESS {
		return Stat{}, errno
	}
	return d.fs.stat(at, follow)
}

func (f *FS) stat(at place, follow bool) (Stat, Errno) {
	switch {
	case at.mount != nil:
		return f.statMounted(at, follow || at.node != nil)
	case at.node == nil:
		return Stat{}, ENOENT
	}
	return at.node.stat(), ESUCCESS
}

// Touch sets times.
func (d *Dir) Touch(p string, follow bool, t Times) Errno {
	at, errno := d.fs.walk(d.here(), p, follow)
	if errno != ESUCCESS {
		return errno
	}
	return d.fs.touchAt(at, t)
}

func (f *FS) touchAt(at place, t Times) Errno {
	switch {
	case at.mount != nil:
		return f.refuse(at)
	case at.node == nil:
		return ENOENT
	case at.node.fixed && !at.node.writable:
		return EROFS
	}
	f.touch(at.node, t)
	return ESUCCESS
}

// refuse is the answer to a change of what a mount shows.
func (f *FS) refuse(at place) Errno {
	if _, errno := f.statMounted(at, false); errno != ESUCCESS {
		return errno
	}
	return EROFS
}

// vacant tells whether something may be put at a name that no node has.
func vacant(at place) Errno {
	switch dir := at.parent.node; {
	case dir == nil || dir.gone:
		return ENOENT
	case !dir.writable:
		return EROFS
	}
	return ESUCCESS
}

// vacancy looks up a name that is to be made: it must be free, and in a folder that may be changed.
func (d *Dir) vacancy(p string) (place, Errno) {
	at, errno := d.fs.walk(d.here(), p, false)
	switch {
	case errno != ESUCCESS:
		return at, errno
	case at.node != nil:
		return at, EEXIST
	case at.mount != nil:
		switch _, errno := d.fs.statMounted(at, false); errno {
		case ESUCCESS, ENOTDIR:
			return at, EEXIST
		case ENOENT:
			return at, EROFS
		default:
			return at, errno
		}
	}
	return at, vacant(at)
}

// removable looks up a name that is to be taken away.
func (d *Dir) removable(p string) (place, Errno) {
	at, errno := d.fs.walk(d.here(), p, false)
	switch {
	case errno != ESUCCESS:
		return at, errno
	case at.node != nil && at.node.fixed:
		return at, EPERM
	case at.mount != nil:
		return at, d.fs.refuse(at)
	case at.node == nil:
		return at, ENOENT
	case at.name == "": // reached through . or ..
		return at, EINVAL
	}
	return at, ESUCCESS
}

// Mkdir makes a folder.
func (d *Dir) Mkdir(p string) Errno {
	at, errno := d.vacancy(p)
	if errno == ESUCCESS {
		_, errno = d.fs.create(at, Folder)
	}
	return errno
}

// Symlink makes a symbolic link at p. Targets that start with a slash are refused, for a link says
// where to go from where it is.
func (d *Dir) Symlink(target, p string) Errno {
	if errno := CheckPath(target); errno != ESUCCESS {
		return errno
	}
	f := d.fs
	at, errno := d.vacancy(p)
	switch {
	case errno != ESUCCESS:
		return errno
	case at.slash:
		return ENOENT
	case int64(len(target)) > f.cfg.Bytes-f.bytes:
		f.full.Bytes = true
		return ENOSPC
	}
	n, errno := f.create(at, Symlink)
	if errno == ESUCCESS {
		n.target = target
		f.bytes += int64(len(target))
	}
	return errno
}

// Readlink is the target of a link.
func (d *Dir) Readlink(p string) (string, Errno) {
	at, errno := d.fs.walk(d.here(), p, false)
	switch {
	case errno != ESUCCESS:
		return "", errno
	case at.mount != nil:
		st, errno := d.fs.statMounted(at, at.node != nil)
		if errno != ESUCCESS {
			return "", errno
		}
		if st.Kind != Symlink {
			return "", EINVAL
		}
		target, err := fs.ReadLink(at.mount.fs, at.sub)
		return target, d.fs.errno(err)
	case at.node == nil:
		return "", ENOENT
	case at.node.kind != Symlink:
		return "", EINVAL
	}
	return at.node.target, ESUCCESS
}

// Unlink takes a file's or link's name away.
func (d *Dir) Unlink(p string) Errno {
	at, errno := d.removable(p)
	switch {
	case errno == EINVAL && at.node != nil && at.node.isDir():
		return EISDIR
	case errno != ESUCCESS:
		return errno
	case at.node.isDir():
		return EISDIR
	}
	d.fs.detach(at)
	return ESUCCESS
}

// Rmdir removes an empty folder.
func (d *Dir) Rmdir(p string) Errno {
	at, errno := d.removable(p)
	switch {
	case errno != ESUCCESS:
		return errno
	case !at.node.isDir():
		return ENOTDIR
	case len(at.node.children) > 0:
		return ENOTEMPTY
	}
	d.fs.detach(at)
	return ESUCCESS
}

// Link gives a file or link another name. Folders have one name only.
func (d *Dir) Link(from string, follow bool, to *Dir, p string) Errno {
	f := d.fs
	src, errno := f.walk(d.here(), from, follow)
	switch {
	case errno != ESUCCESS:
		return errno
	case src.free():
		return ENOENT
	case src.node != nil && src.node.isDir():
		return EPERM
	}
	dst, errno := to.vacancy(p)
	switch {
	case errno != ESUCCESS:
		return errno
	case src.node == nil:
		return f.refuse(src)
	case dst.slash:
		return ENOENT
	case src.node.names >= maxNlink:
		return EMLINK
	case !f.roomForName():
		return ENOSPC
	}
	f.attach(src.node, dst)
	return ESUCCESS
}

// Rename moves what from names, in d, to p, in to; a file or an empty folder there is replaced by its
// like.
func (d *Dir) Rename(from string, to *Dir, p string) Errno {
	f := d.fs
	src, errno := d.removable(from)
	if errno != ESUCCESS {
		return errno
	}
	dst, errno := f.walk(to.here(), p, false)
	switch {
	case errno != ESUCCESS:
		return errno
	case dst.mount != nil && dst.node == nil:
		return EROFS
	case dst.node == src.node:
		return ESUCCESS
	case dst.node != nil && dst.node.fixed:
		return EPERM
	case dst.name == "":
		return EINVAL
	}
	if errno := vacant(dst); errno != ESUCCESS {
		return errno
	}
	if src.node.isDir() {
		for n := dst.parent.node; n != nil; n = n.parent {
			if n == src.node {
				return EINVAL // into itself
			}
		}
		if depth(dst.parent.node)+1+height(src.node) > maxDepth {
			return ENAMETOOLONG
		}
	} else if dst.slash && dst.node == nil {
		return ENOTDIR
	}
	if old := dst.node; old != nil {
		switch {
		case src.node.isDir() && !old.isDir():
			return ENOTDIR
		case !src.node.isDir() && old.isDir():
			return EISDIR
		case len(old.children) > 0:
			return ENOTEMPTY
		}
		f.detach(dst)
	}
	delete(src.parent.node.children, src.name)
	f.modified(src.parent.node)
	src.node.names--
	f.files--
	f.attach(src.node, dst)
	return ESUCCESS
}

// List gives the folder's entries from the given one on: first . and .., then the others sorted by
// name. Asking for the first takes a new list, which stays as it is until then. The slice is the
// folder's own. All lists together are bounded: beyond that the answer is ENOMEM.
func (d *Dir) List(from uint64) ([]Entry, Errno) {
	if from == 0 || d.list == nil {
		if errno := d.read(); errno != ESUCCESS {
			return nil, errno
		}
	}
	if from >= uint64(len(d.list)) {
		return nil, ESUCCESS
	}
	return d.list[from:], ESUCCESS
}

func (d *Dir) read() Errno {
	f, at := d.fs, d.here()
	f.listed -= len(d.list)
	d.list = nil
	list := []Entry{{".", at.ino(), Folder}, {"..", d.parentIno(), Folder}}
	if at.mount != nil {
		entries, err := d.readMount()
		if errno := f.errno(err); errno != ESUCCESS && !(errno == ENOENT && at.node != nil) {
			return errno
		}
		list = slices.Grow(list, len(entries))
		hash := at.mount.hash(at.sub)
		for _, e := range entries {
			if at.node == nil || at.node.children[e.Name()] == nil {
				list = append(list, Entry{e.Name(), entryIno(hash, at.sub, e.Name()), kindOf(e.Type())})
			}
		}
	}
	if at.node != nil {
		list = slices.Grow(list, len(at.node.children))
		for name, c := range at.node.children {
			list = append(list, Entry{name, c.ino, c.kind})
		}
	}
	if f.listed+len(list) > maxListed && f.listed > 0 {
		return ENOMEM
	}
	f.listed += len(list)
	slices.SortFunc(list[2:], func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	d.list = list
	return ESUCCESS
}

// readMount lists what a mount shows here.
func (d *Dir) readMount() ([]fs.DirEntry, error) {
	in, ok := d.in.(fs.ReadDirFile)
	if !ok {
		return fs.ReadDir(d.at.mount.fs, d.at.sub)
	}
	d.in = nil
	defer in.Close()
	return in.ReadDir(-1)
}

// parentIno is the number of what .. stands for; 0 when it is not known.
func (d *Dir) parentIno() uint64 {
	switch n := d.at.node; {
	case n != nil && n.parent != nil:
		return n.parent.ino
	case n != nil:
		return n.ino
	case path.Dir(d.at.sub) != ".":
		return d.at.mount.ino(path.Dir(d.at.sub))
	}
	return 0
}
