package memfs

import (
	"errors"
	"hash/fnv"
	"io"
	"io/fs"
	"syscall"

	"github.com/tetratelabs/wazero/experimental/sys"
	wsys "github.com/tetratelabs/wazero/sys"
)

// openMounted opens what a mount shows at a place. A mount may also be a single file: its root then
// opens as one.
func (f *FS) openMounted(at place, flag sys.Oflag, write bool) (sys.File, sys.Errno) {
	if write || flag&sys.O_CREAT != 0 {
		st, errno := f.statMounted(at, true)
		switch {
		case flag&sys.O_DIRECTORY != 0 && errno == 0 && st.Mode.IsDir():
		case flag&(sys.O_CREAT|sys.O_EXCL) == sys.O_CREAT|sys.O_EXCL && errno == 0:
			return nil, sys.EEXIST
		case errno == sys.ENOENT && flag&sys.O_CREAT == 0:
			return nil, sys.ENOENT
		case errno == 0 && st.Mode.IsDir():
			return nil, sys.EISDIR
		default:
			return nil, sys.EROFS
		}
	}
	in, err := at.mount.Open(at.sub)
	if err != nil {
		return nil, f.errno(err)
	}
	st, err := in.Stat()
	if err != nil {
		in.Close()
		return nil, f.errno(err)
	}
	if st.IsDir() {
		in.Close()
		f.open++
		return &dir{fs: f, node: at.node, mount: at.mount, sub: at.sub}, 0
	}
	if at.slash || flag&sys.O_DIRECTORY != 0 {
		in.Close()
		return nil, sys.ENOTDIR
	}
	m := &mounted{fs: f, in: in, stat: mountedStat(at, st)}
	m.at, _ = in.(io.ReaderAt)
	m.seeker, _ = in.(io.Seeker)
	f.open++
	return m, 0
}

func (f *FS) statMounted(at place, follow bool) (wsys.Stat_t, sys.Errno) {
	look := fs.Lstat
	if follow {
		look = fs.Stat
	}
	st, err := look(at.mount, at.sub)
	switch {
	case err != nil && at.node != nil && len(at.node.children) > 0 && errors.Is(err, fs.ErrNotExist):
		return at.node.stat(), 0 // a folder on the way to another mount
	case err != nil:
		return wsys.Stat_t{}, f.errno(err)
	case at.slash && !st.IsDir():
		return wsys.Stat_t{}, sys.ENOTDIR
	}
	return mountedStat(at, st), 0
}

func mountedStat(at place, st fs.FileInfo) wsys.Stat_t {
	out := wsys.Stat_t{Mode: st.Mode().Type() | 0o444, Nlink: 1, Size: st.Size()}
	if st.IsDir() {
		out.Mode |= 0o111
		out.Size = 0
	}
	if at.node != nil {
		out.Ino = at.node.ino
	} else {
		out.Ino = pathIno(at.sub, "")
	}
	return out
}

// pathIno numbers a file in a mount by its path, apart from the numbers of nodes.
func pathIno(dir, name string) uint64 {
	h := fnv.New64a()
	if dir != "." {
		io.WriteString(h, dir)
		if name != "" {
			io.WriteString(h, "/")
		}
	}
	io.WriteString(h, name)
	return h.Sum64() | 1<<63
}

// errno tells a guest what a mount's error means to it. What is not about the path is the host's
// failure, and kept.
func (f *FS) errno(err error) sys.Errno {
	switch {
	case err == nil || err == io.EOF:
		return 0
	case errors.Is(err, fs.ErrNotExist):
		return sys.ENOENT
	case errors.Is(err, syscall.ENOTDIR):
		return sys.ENOTDIR
	case errors.Is(err, syscall.ELOOP):
		return sys.ELOOP
	case errors.Is(err, fs.ErrInvalid):
		return sys.EINVAL
	case errors.Is(err, fs.ErrPermission):
		return sys.EACCES
	}
	if f.err == nil {
		f.err = err
	}
	return sys.EIO
}

// mounted is an open file of a mount.
type mounted struct {
	sys.UnimplementedFile
	fs     *FS
	in     fs.File
	at     io.ReaderAt // nil when the file has none
	seeker io.Seeker   // likewise
	stat   wsys.Stat_t
	off    int64
	closed bool
}

func (m *mounted) Ino() (wsys.Inode, sys.Errno)          { return m.stat.Ino, 0 }
func (m *mounted) Stat() (wsys.Stat_t, sys.Errno)        { return m.stat, m.check() }
func (m *mounted) Write([]byte) (int, sys.Errno)         { return 0, sys.EBADF }
func (m *mounted) Pwrite([]byte, int64) (int, sys.Errno) { return 0, sys.EBADF }
func (m *mounted) Truncate(int64) sys.Errno              { return sys.EBADF }
func (m *mounted) Utimens(int64, int64) sys.Errno        { return sys.EROFS }
func (m *mounted) SetAppend(bool) sys.Errno              { return 0 }

func (m *mounted) check() sys.Errno {
	if m.closed {
		return sys.EBADF
	}
	return 0
}

func (m *mounted) Read(b []byte) (int, sys.Errno) {
	if m.closed {
		return 0, sys.EBADF
	}
	if len(b) == 0 {
		return 0, 0
	}
	n, err := m.in.Read(b)
	m.off += int64(n)
	return n, m.fs.errno(err)
}

func (m *mounted) Pread(b []byte, off int64) (int, sys.Errno) {
	switch {
	case m.closed:
		return 0, sys.EBADF
	case off < 0:
		return 0, sys.EINVAL
	case m.at == nil:
		return 0, sys.ENOTSUP
	}
	n, err := m.at.ReadAt(b, off)
	return n, m.fs.errno(err)
}

func (m *mounted) Seek(offset position, whence int) (int64, sys.Errno) {
	if m.closed {
		return 0, sys.EBADF
	}
	to := m.off
	if _, errno := seek(&to, m.stat.Size, offset, whence); errno != 0 {
		return 0, errno
	}
	if to != m.off {
		if m.seeker == nil {
			return 0, sys.ENOTSUP
		}
		if _, err := m.seeker.Seek(to, io.SeekStart); err != nil {
			return 0, m.fs.errno(err)
		}
		m.off = to
	}
	return to, 0
}

func (m *mounted) Close() sys.Errno {
	if m.closed {
		return 0
	}
	m.closed = true
	m.fs.open--
	m.in.Close()
	return 0
}
