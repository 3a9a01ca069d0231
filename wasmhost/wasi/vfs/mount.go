package vfs

import (
	"errors"
	"io"
	"io/fs"
	"path"
	"syscall"
)

// mount is a file system of the host's. Its number keeps equal paths in two mounts apart.
type mount struct {
	fs fs.FS
	id int
}

// ino numbers a file by its path, apart from the numbers of nodes.
func (m *mount) ino(sub string) uint64 { return hashed(m.hash(sub)) }

// entryIno is the number of an entry of the folder sub, whose hash is given.
func entryIno(folder uint64, sub, name string) uint64 {
	if sub != "." {
		folder = fnv1a(folder, "/")
	}
	return hashed(fnv1a(folder, name))
}

// hash is FNV-1a over the mount's number and a path, the root counting as nothing.
func (m *mount) hash(sub string) uint64 {
	h := (14695981039346656037 ^ uint64(m.id)) * 1099511628211
	if sub != "." {
		h = fnv1a(h, sub)
	}
	return h
}

func fnv1a(h uint64, s string) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

func hashed(h uint64) uint64 { return h | 1<<63 }

// statMounted describes what a mount shows at a place.
func (f *FS) statMounted(at place, follow bool) (Stat, Errno) {
	look := fs.Lstat
	if follow || at.slash {
		look = fs.Stat
	}
	info, err := look(at.mount.fs, at.sub)
	switch {
	case err != nil && at.node != nil && len(at.node.children) > 0 && errors.Is(err, fs.ErrNotExist):
		return at.node.stat(), ESUCCESS // a folder on the way to another mount
	case err != nil:
		return Stat{}, f.mountErrno(at.step, err)
	}
	st := mountedStat(at.step, info)
	if at.slash && st.Kind != Folder {
		return Stat{}, ENOTDIR
	}
	return st, ESUCCESS
}

func mountedStat(at step, info fs.FileInfo) Stat {
	st := Stat{Kind: kindOf(info.Mode()), Nlink: 1}
	if st.Kind != Folder {
		st.Size = info.Size()
	}
	st.Ino = at.ino()
	return st
}

// openMounted opens what a mount shows at a place. A mount may also be a single file: its root then
// opens as one.
func (f *FS) openMounted(at place, how How) (File, *Dir, Errno) {
	if how&(Write|Create|Truncate) != 0 || how&Follow == 0 {
		st, errno := f.statMounted(at, how&Follow != 0)
		switch {
		case errno == ENOENT && how&Create == 0:
			return nil, nil, ENOENT
		case errno == ENOENT:
			return nil, nil, EROFS
		case errno != ESUCCESS:
			return nil, nil, errno
		case how&(Create|Exclusive) == Create|Exclusive:
			return nil, nil, EEXIST
		case st.Kind == Symlink:
			return nil, nil, ELOOP
		case st.Kind == Folder && how&(Write|Create|Truncate) != 0:
			return nil, nil, EISDIR
		case how&(Write|Truncate) != 0:
			return nil, nil, EROFS
		}
	}
	in, err := at.mount.fs.Open(at.sub)
	if err != nil {
		return nil, nil, f.mountErrno(at.step, err)
	}
	info, err := in.Stat()
	if err != nil {
		in.Close()
		return nil, nil, f.errno(err)
	}
	if info.IsDir() {
		d := f.openDir(at.step)
		d.in = in
		return nil, d, ESUCCESS
	}
	if at.slash || how&Directory != 0 {
		in.Close()
		return nil, nil, ENOTDIR
	}
	m := &mountedFile{fs: f, in: in, stat: mountedStat(at.step, info)}
	m.at, _ = in.(io.ReaderAt)
	m.seeker, _ = in.(io.Seeker)
	return m, nil, ESUCCESS
}

// mountErrno is errno for a look-up: what is missing because a file stands where a folder should is
// told from what is just missing.
func (f *FS) mountErrno(at step, err error) Errno {
	errno := f.errno(err)
	if errno != ENOENT {
		return errno
	}
	for i := range len(at.sub) {
		if at.sub[i] != '/' {
			continue
		}
		info, err := fs.Stat(at.mount.fs, at.sub[:i])
		if err != nil {
			break
		}
		if !info.IsDir() {
			return ENOTDIR
		}
	}
	return ENOENT
}

// errno tells a guest what a mount's error means to it. What is not about the path is the host's
// failure, and kept.
func (f *FS) errno(err error) Errno {
	switch {
	case err == nil || err == io.EOF:
		return ESUCCESS
	case errors.Is(err, fs.ErrNotExist):
		return ENOENT
	case errors.Is(err, syscall.ENOTDIR):
		return ENOTDIR
	case errors.Is(err, syscall.ELOOP):
		return ELOOP
	case errors.Is(err, fs.ErrInvalid):
		return EINVAL
	case errors.Is(err, fs.ErrPermission):
		return EACCES
	}
	if f.err == nil {
		f.err = err
	}
	return EIO
}

// mountedFile is an open file of a mount.
type mountedFile struct {
	fs     *FS
	in     fs.File
	at     io.ReaderAt // nil when the file has none
	seeker io.Seeker   // likewise
	stat   Stat
	pos    int64 // of in, when it has no ReadAt
	closed bool
}

func (m *mountedFile) Stat() Stat                         { return m.stat }
func (m *mountedFile) Size() int64                        { return m.stat.Size }
func (m *mountedFile) WriteAt([]byte, int64) (int, Errno) { return 0, EROFS }
func (m *mountedFile) Truncate(int64) Errno               { return EROFS }
func (m *mountedFile) Touch(Times) Errno                  { return EROFS }

func (m *mountedFile) ReadAt(b []byte, off int64) (int, Errno) {
	if m.at != nil {
		n, err := m.at.ReadAt(b, off)
		return n, m.fs.errno(err)
	}
	if off != m.pos {
		if off >= m.stat.Size {
			return 0, ESUCCESS
		}
		if m.seeker == nil {
			return 0, ENOTSUP
		}
		if _, err := m.seeker.Seek(off, io.SeekStart); err != nil {
			return 0, m.fs.errno(err)
		}
		m.pos = off
	}
	n := 0
	for idle := 0; n < len(b); {
		k, err := m.in.Read(b[n:])
		n += k
		m.pos += int64(k)
		if err != nil {
			return n, m.fs.errno(err)
		}
		if k > 0 {
			idle = 0
		} else if idle++; idle > 100 {
			return n, m.fs.errno(io.ErrNoProgress)
		}
	}
	return n, ESUCCESS
}

func (m *mountedFile) Close() {
	if !m.closed {
		m.closed = true
		m.in.Close()
	}
}

// joinSub is the path of what p, which has no .., leads to from the folder sub.
func joinSub(sub, p string) string {
	p = path.Clean(p)
	switch {
	case sub == ".":
		return p
	case p == ".":
		return sub
	}
	return sub + "/" + p
}
