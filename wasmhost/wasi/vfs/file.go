package vfs

// File is an open file. It has no position: whoever opens it keeps one. It is for one goroutine.
type File interface {
	Stat() Stat
	// Size is Stat().Size.
	Size() int64
	// ReadAt fills b unless the file ends before, off being 0 or more.
	ReadAt(b []byte, off int64) (int, Errno)
	// WriteAt writes all of b or, when there is no room for it, nothing. What lies between the end
	// of the file and off becomes zeros.
	WriteAt(b []byte, off int64) (int, Errno)
	// Truncate changes the size, which must not be negative; what is new reads as zeros.
	Truncate(size int64) Errno
	Touch(Times) Errno
	// Close may be called twice. The file must not be used after it.
	Close()
}

// maxSize bounds sizes and offsets far below where adding them could overflow.
const maxSize = 1 << 62

// memFile is a file in memory. Whether it may be written to is up to who opened it.
type memFile struct {
	fs     *FS
	node   *node
	closed bool
}

func (h *memFile) Stat() Stat  { return h.node.stat() }
func (h *memFile) Size() int64 { return h.node.data.size }

func (h *memFile) ReadAt(b []byte, off int64) (int, Errno) {
	return h.node.data.readAt(b, off), ESUCCESS
}

func (h *memFile) WriteAt(b []byte, off int64) (int, Errno) {
	if off > maxSize {
		return 0, EFBIG
	}
	if len(b) == 0 {
		return 0, ESUCCESS
	}
	if end := off + int64(len(b)); end > h.node.data.size {
		if errno := h.fs.resize(h.node, end); errno != ESUCCESS {
			return 0, errno
		}
	} else {
		h.fs.modified(h.node)
	}
	h.node.data.writeAt(b, off)
	return len(b), ESUCCESS
}

func (h *memFile) Truncate(size int64) Errno {
	if size > maxSize {
		return EFBIG
	}
	return h.fs.resize(h.node, size)
}

func (h *memFile) Touch(t Times) Errno {
	h.fs.touch(h.node, t)
	return ESUCCESS
}

func (h *memFile) Close() {
	if !h.closed {
		h.closed = true
		h.node.opens--
		h.fs.free(h.node)
	}
}
