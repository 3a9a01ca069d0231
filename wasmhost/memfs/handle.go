package memfs

import (
	"io"
	"io/fs"
	"iter"
	"maps"
	"slices"

	"github.com/tetratelabs/wazero/experimental/sys"
	wsys "github.com/tetratelabs/wazero/sys"
)

func mapKeys[V any](m map[string]V) iter.Seq[string] { return maps.Keys(m) }

// position is int64 by another name, without which vet takes Seek for a misspelt io.Seeker.
type position = int64

// file is an open file in memory.
type file struct {
	sys.UnimplementedFile
	fs                    *FS
	node                  *node
	off                   int64
	read, write, appendTo bool
	closed                bool
}

func (h *file) Ino() (wsys.Inode, sys.Errno)   { return h.node.ino, 0 }
func (h *file) Stat() (wsys.Stat_t, sys.Errno) { return h.node.stat(), h.check(true) }
func (h *file) IsAppend() bool                 { return h.appendTo }
func (h *file) SetAppend(on bool) sys.Errno    { h.appendTo = on; return h.check(true) }
func (h *file) Utimens(atime, mtime int64) sys.Errno {
	h.node.touch(atime, mtime)
	return h.check(true)
}

func (h *file) check(allowed bool) sys.Errno {
	if h.closed || !allowed {
		return sys.EBADF
	}
	return 0
}

func (h *file) Read(b []byte) (int, sys.Errno) {
	n, errno := h.Pread(b, h.off)
	h.off += int64(n)
	return n, errno
}

func (h *file) Pread(b []byte, off int64) (int, sys.Errno) {
	if errno := h.check(h.read); errno != 0 {
		return 0, errno
	}
	if off < 0 {
		return 0, sys.EINVAL
	}
	return h.node.data.readAt(b, off), 0
}

func (h *file) Write(b []byte) (int, sys.Errno) {
	if h.appendTo {
		h.off = h.node.data.size
	}
	n, errno := h.Pwrite(b, h.off)
	h.off += int64(n)
	return n, errno
}

// Pwrite writes all of b or, when there is no room for it, nothing.
func (h *file) Pwrite(b []byte, off int64) (int, sys.Errno) {
	if errno := h.check(h.write); errno != 0 {
		return 0, errno
	}
	if off < 0 || off > 1<<62 {
		return 0, sys.EINVAL
	}
	if len(b) == 0 {
		return 0, 0
	}
	if end := off + int64(len(b)); end > h.node.data.size && !h.fs.resize(h.node, end) {
		return 0, errFull
	}
	h.node.data.writeAt(b, off)
	h.node.mtime = h.fs.now()
	return len(b), 0
}

func (h *file) Seek(offset position, whence int) (int64, sys.Errno) {
	if errno := h.check(true); errno != 0 {
		return 0, errno
	}
	return seek(&h.off, h.node.data.size, offset, whence)
}

// seek moves *off; the end of the file is at size.
func seek(off *int64, size, offset int64, whence int) (int64, sys.Errno) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += *off
	case io.SeekEnd:
		offset += size
	default:
		return 0, sys.EINVAL
	}
	if offset < 0 {
		return 0, sys.EINVAL
	}
	*off = offset
	return offset, 0
}

func (h *file) Truncate(size int64) sys.Errno {
	if errno := h.check(h.write); errno != 0 {
		return errno
	}
	if size < 0 {
		return sys.EINVAL
	}
	if !h.fs.resize(h.node, size) {
		return errFull
	}
	return 0
}

func (h *file) Close() sys.Errno {
	if !h.closed {
		h.closed = true
		h.fs.open--
		h.node.opens--
		h.fs.free(h.node)
	}
	return 0
}

// dir is an open folder, in memory or mounted. It lists what was there at its first read, sorted.
type dir struct {
	sys.DirFile
	fs     *FS
	node   *node // nil inside a mount
	mount  fs.FS
	sub    string
	list   []sys.Dirent
	listed bool
	pos    int
	closed bool
}

func (d *dir) Dev() (uint64, sys.Errno)     { return 0, 0 }
func (d *dir) Sync() sys.Errno              { return 0 }
func (d *dir) Datasync() sys.Errno          { return 0 }
func (d *dir) Ino() (wsys.Inode, sys.Errno) { st, errno := d.Stat(); return st.Ino, errno }

func (d *dir) Stat() (wsys.Stat_t, sys.Errno) {
	switch {
	case d.closed:
		return wsys.Stat_t{}, sys.EBADF
	case d.mount != nil:
		return d.fs.statMounted(place{node: d.node, mount: d.mount, sub: d.sub}, true)
	}
	return d.node.stat(), 0
}

func (d *dir) Utimens(atime, mtime int64) sys.Errno {
	switch {
	case d.closed:
		return sys.EBADF
	case d.node == nil || !d.node.writable:
		return sys.EROFS
	}
	d.node.touch(atime, mtime)
	return 0
}

// Seek only rewinds.
func (d *dir) Seek(offset position, whence int) (int64, sys.Errno) {
	if offset != 0 || whence != io.SeekStart {
		return 0, sys.EINVAL
	}
	d.list, d.listed, d.pos = nil, false, 0
	return 0, 0
}

func (d *dir) Readdir(n int) ([]sys.Dirent, sys.Errno) {
	if d.closed {
		return nil, sys.EBADF
	}
	if !d.listed {
		if errno := d.read(); errno != 0 {
			return nil, errno
		}
	}
	rest := d.list[d.pos:]
	if n > 0 && n < len(rest) {
		rest = rest[:n]
	}
	d.pos += len(rest)
	return slices.Clone(rest), 0
}

func (d *dir) read() sys.Errno {
	d.listed = true
	if d.mount != nil {
		entries, err := fs.ReadDir(d.mount, d.sub)
		if err != nil {
			return d.fs.errno(err)
		}
		for _, e := range entries {
			if d.node == nil || d.node.children[e.Name()] == nil {
				d.list = append(d.list, sys.Dirent{Name: e.Name(), Ino: pathIno(d.sub, e.Name()), Type: e.Type()})
			}
		}
	}
	if d.node != nil {
		for name, c := range d.node.children {
			d.list = append(d.list, sys.Dirent{Name: name, Ino: c.ino, Type: c.kind})
		}
	}
	slices.SortFunc(d.list, func(a, b sys.Dirent) int {
		switch {
		case a.Name < b.Name:
			return -1
		case a.Name > b.Name:
			return 1
		}
		return 0
	})
	return 0
}

func (d *dir) Close() sys.Errno {
	if !d.closed {
		d.closed = true
		d.fs.open--
	}
	return 0
}
