package wasi

import (
	"context"
	"errors"
	"io"
	"math"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasmgrid/wasmgrid/wasmhost/wasi/vfs"
)

// open finds a descriptor that may be used in a way.
func (s *State) open(fd uint64, need rights) (*descriptor, Errno) {
	d := s.table.get(fd)
	switch {
	case d == nil:
		return nil, vfs.EBADF
	case d.base&need != need:
		return nil, vfs.ENOTCAPABLE
	}
	return d, vfs.ESUCCESS
}

// openFile is open for what only files can do.
func (s *State) openFile(fd uint64, need rights) (*descriptor, Errno) {
	d := s.table.get(fd)
	switch {
	case d == nil:
		return nil, vfs.EBADF
	case d.kind == folder:
		return nil, vfs.EISDIR
	case d.kind != file:
		return nil, vfs.ESPIPE
	case d.base&need != need:
		return nil, vfs.ENOTCAPABLE
	}
	return d, vfs.ESUCCESS
}

func fdAdvise(_ context.Context, s *State, _ api.Memory, p []uint64) Errno {
	_, errno := s.openFile(p[0], rightAdvise)
	switch {
	case errno != vfs.ESUCCESS:
		return errno
	case uint32(p[3]) > 5 || p[1]+p[2] < p[1]:
		return vfs.EINVAL
	}
	return vfs.ESUCCESS
}

func fdAllocate(_ context.Context, s *State, _ api.Memory, p []uint64) Errno {
	d, errno := s.openFile(p[0], rightAllocate)
	end := p[1] + p[2]
	switch {
	case errno != vfs.ESUCCESS:
		return errno
	case p[2] == 0:
		return vfs.EINVAL
	case end < p[1] || end > math.MaxInt64:
		return vfs.EFBIG
	case int64(end) <= d.file.Size():
		return vfs.ESUCCESS
	}
	return d.file.Truncate(int64(end))
}

func fdClose(_ context.Context, s *State, _ api.Memory, p []uint64) Errno { return s.table.close(p[0]) }

func fdRenumber(_ context.Context, s *State, _ api.Memory, p []uint64) Errno {
	return s.table.renumber(p[0], p[1])
}

func fdSync(_ context.Context, s *State, _ api.Memory, p []uint64) Errno {
	_, errno := s.open(p[0], rightSync)
	return errno
}

func fdDatasync(_ context.Context, s *State, _ api.Memory, p []uint64) Errno {
	_, errno := s.open(p[0], rightDatasync)
	return errno
}

func fdFdstatGet(_ context.Context, s *State, mem api.Memory, p []uint64) Errno {
	d, errno := s.open(p[0], 0)
	if errno != vfs.ESUCCESS {
		return errno
	}
	out := view(mem, p[1], 24)
	if out == nil {
		return vfs.EFAULT
	}
	clear(out)
	out[0] = byte(d.filetype())
	le.PutUint16(out[2:], d.flags)
	le.PutUint64(out[8:], uint64(d.base))
	le.PutUint64(out[16:], uint64(d.inheriting))
	return vfs.ESUCCESS
}

// filetype: streams are of none of WASI's types, above all they are no terminals.
func (d *descriptor) filetype() vfs.Kind {
	switch d.kind {
	case file:
		return vfs.Regular
	case folder:
		return vfs.Folder
	}
	return vfs.Unknown
}

func fdFdstatSetFlags(_ context.Context, s *State, _ api.Memory, p []uint64) Errno {
	d, errno := s.open(p[0], rightSetFlags)
	switch {
	case errno != vfs.ESUCCESS:
		return errno
	case uint32(p[1])&^allFlags != 0:
		return vfs.EINVAL
	}
	d.flags = uint16(p[1])
	return vfs.ESUCCESS
}

func fdFdstatSetRights(_ context.Context, s *State, _ api.Memory, p []uint64) Errno {
	d, errno := s.open(p[0], 0)
	base, inheriting := rights(p[1]), rights(p[2])
	switch {
	case errno != vfs.ESUCCESS:
		return errno
	case base&^d.base != 0 || inheriting&^d.inheriting != 0:
		return vfs.ENOTCAPABLE
	}
	d.base, d.inheriting = base, inheriting
	return vfs.ESUCCESS
}

func fdFilestatGet(_ context.Context, s *State, mem api.Memory, p []uint64) Errno {
	d, errno := s.open(p[0], rightStat)
	if errno != vfs.ESUCCESS {
		return errno
	}
	var st vfs.Stat
	switch d.kind {
	case file:
		st = d.file.Stat()
	case folder:
		if st, errno = d.dir.Self(); errno != vfs.ESUCCESS {
			return errno
		}
	}
	return putStat(mem, p[1], st)
}

// putStat writes a filestat.
func putStat(mem api.Memory, ptr uint64, st vfs.Stat) Errno {
	out := view(mem, ptr, 64)
	if out == nil {
		return vfs.EFAULT
	}
	clear(out)
	le.PutUint64(out, 1) // the one device
	le.PutUint64(out[8:], st.Ino)
	out[16] = byte(st.Kind)
	le.PutUint64(out[24:], st.Nlink)
	le.PutUint64(out[32:], uint64(st.Size))
	le.PutUint64(out[40:], uint64(st.Atime))
	le.PutUint64(out[48:], uint64(st.Mtime))
	le.PutUint64(out[56:], uint64(st.Ctime))
	return vfs.ESUCCESS
}

func fdFilestatSetSize(_ context.Context, s *State, _ api.Memory, p []uint64) Errno {
	d, errno := s.openFile(p[0], rightSetSize)
	switch {
	case errno != vfs.ESUCCESS:
		return errno
	case p[1] > math.MaxInt64:
		return vfs.EFBIG
	}
	return d.file.Truncate(int64(p[1]))
}

func fdFilestatSetTimes(_ context.Context, s *State, _ api.Memory, p []uint64) Errno {
	d, errno := s.open(p[0], rightSetTimes)
	if errno != vfs.ESUCCESS {
		return errno
	}
	t, errno := s.times(p[1], p[2], p[3])
	switch {
	case errno != vfs.ESUCCESS:
		return errno
	case d.kind == folder:
		return d.dir.TouchSelf(t)
	}
	return d.file.Touch(t)
}

// times reads what times to set. Later than 2262 is not known here.
func (s *State) times(atime, mtime, flags uint64) (t vfs.Times, errno Errno) {
	const setAtime, atimeNow, setMtime, mtimeNow = 1, 2, 4, 8
	f := uint32(flags)
	if f&^15 != 0 || f&(setAtime|atimeNow) == setAtime|atimeNow || f&(setMtime|mtimeNow) == setMtime|mtimeNow {
		return t, vfs.EINVAL
	}
	if f&setAtime != 0 && atime > math.MaxInt64 || f&setMtime != 0 && mtime > math.MaxInt64 {
		return t, vfs.EINVAL
	}
	now := s.clock.Now(Realtime)
	pick := func(v uint64, set, setNow bool) *int64 {
		switch n := int64(v); {
		case set:
			return &n
		case setNow:
			return &now
		}
		return nil
	}
	t.Atime = pick(atime, f&setAtime != 0, f&atimeNow != 0)
	t.Mtime = pick(mtime, f&setMtime != 0, f&mtimeNow != 0)
	return t, vfs.ESUCCESS
}

func fdPrestatGet(_ context.Context, s *State, mem api.Memory, p []uint64) Errno {
	d, errno := s.preopened(p[0])
	if errno != vfs.ESUCCESS {
		return errno
	}
	out := view(mem, p[1], 8)
	if out == nil {
		return vfs.EFAULT
	}
	clear(out) // type 0: a folder
	le.PutUint32(out[4:], uint32(len(d.preopen)))
	return vfs.ESUCCESS
}

func fdPrestatDirName(_ context.Context, s *State, mem api.Memory, p []uint64) Errno {
	d, errno := s.preopened(p[0])
	switch {
	case errno != vfs.ESUCCESS:
		return errno
	case uint64(uint32(p[2])) < uint64(len(d.preopen)):
		return vfs.ENAMETOOLONG
	}
	out := view(mem, p[1], uint64(len(d.preopen)))
	if out == nil {
		return vfs.EFAULT
	}
	copy(out, d.preopen)
	return vfs.ESUCCESS
}

func (s *State) preopened(fd uint64) (*descriptor, Errno) {
	d := s.table.get(fd)
	if d == nil || d.preopen == "" {
		return nil, vfs.EBADF
	}
	return d, vfs.ESUCCESS
}

func fdSeek(_ context.Context, s *State, mem api.Memory, p []uint64) Errno {
	d, errno := s.openFile(p[0], 0)
	if errno != vfs.ESUCCESS {
		return errno
	}
	by, from := int64(p[1]), int64(0)
	need := rightSeek
	switch uint32(p[2]) {
	case 0:
	case 1:
		if from = d.off; by == 0 {
			need = rightTell // just asking
			if d.base&rightSeek != 0 {
				need = rightSeek
			}
		}
	case 2:
		from = d.file.Size()
	default:
		return vfs.EINVAL
	}
	if d.base&need == 0 {
		return vfs.ENOTCAPABLE
	}
	if by > math.MaxInt64-from {
		return vfs.EOVERFLOW
	}
	if from+by < 0 {
		return vfs.EINVAL
	}
	out := view(mem, p[3], 8)
	if out == nil {
		return vfs.EFAULT
	}
	d.off = from + by
	le.PutUint64(out, uint64(d.off))
	return vfs.ESUCCESS
}

func fdTell(_ context.Context, s *State, mem api.Memory, p []uint64) Errno {
	d, errno := s.openFile(p[0], rightTell)
	if errno != vfs.ESUCCESS {
		return errno
	}
	out := view(mem, p[1], 8)
	if out == nil {
		return vfs.EFAULT
	}
	le.PutUint64(out, uint64(d.off))
	return vfs.ESUCCESS
}

// What one call reads or writes at most, so that it ends soon and counts fit; more is for the next
// call, as for any short read or write.
const (
	maxVectors  = 1024
	maxTransfer = 1 << 30
)

// transfer goes over a list of buffers, until one is not done in full. f reports how much of a buffer
// it did; what was done before an error counts as success.
func (s *State) transfer(ctx context.Context, mem api.Memory, list, n, count uint64, f func(b []byte) (int, Errno)) Errno {
	n = min(uint64(uint32(n)), maxVectors)
	s.charge(ctx, costVector*n)
	vectors, out := view(mem, list, 8*n), view(mem, count, 4)
	if vectors == nil || out == nil {
		return vfs.EFAULT
	}
	total := 0
	for ; len(vectors) > 0; vectors = vectors[8:] {
		b := view(mem, uint64(le.Uint32(vectors)), uint64(le.Uint32(vectors[4:])))
		if b == nil {
			if total > 0 {
				break
			}
			return vfs.EFAULT
		}
		if len(b) == 0 {
			continue
		}
		b = b[:min(len(b), maxTransfer-total)]
		done, errno := f(b)
		total += done
		if errno != vfs.ESUCCESS && total == 0 {
			return errno
		}
		if errno != vfs.ESUCCESS || done < len(b) || total == maxTransfer {
			break
		}
	}
	le.PutUint32(out, uint32(total))
	return vfs.ESUCCESS
}

func fdRead(ctx context.Context, s *State, mem api.Memory, p []uint64) Errno {
	d := s.table.get(p[0])
	switch {
	case d == nil:
		return vfs.EBADF
	case d.kind == folder:
		return vfs.EISDIR
	case d.base&rightRead == 0:
		return vfs.ENOTCAPABLE
	case d.kind == input:
		return s.transfer(ctx, mem, p[1], p[2], p[3], func(b []byte) (int, Errno) { return s.readStream(ctx, d.in, b), vfs.ESUCCESS })
	case d.kind == stream:
		return s.transfer(ctx, mem, p[1], p[2], p[3], s.readOpened(ctx, d.in))
	}
	return s.transfer(ctx, mem, p[1], p[2], p[3], func(b []byte) (int, Errno) {
		n, errno := s.readFile(ctx, d.file, b, d.off)
		d.off += int64(n)
		return n, errno
	})
}

func fdPread(ctx context.Context, s *State, mem api.Memory, p []uint64) Errno {
	d, errno := s.openFile(p[0], rightRead)
	switch {
	case errno != vfs.ESUCCESS:
		return errno
	case p[3] > math.MaxInt64:
		return vfs.EINVAL
	}
	off := int64(p[3])
	return s.transfer(ctx, mem, p[1], p[2], p[4], func(b []byte) (int, Errno) {
		n, errno := s.readFile(ctx, d.file, b, off)
		off += int64(n)
		return n, errno
	})
}

// readFile fills b unless the file ends before.
func (s *State) readFile(ctx context.Context, f vfs.File, b []byte, off int64) (int, Errno) {
	total := 0
	for {
		n, errno := f.ReadAt(b[total:min(len(b), total+piece)], off+int64(total))
		total += n
		s.chargeBytes(ctx, n)
		if errno != vfs.ESUCCESS || n < piece || total == len(b) {
			return total, errno
		}
		s.proceed(ctx)
	}
}

// readStream fills b unless the stream ends before. Other errors end the guest.
func (s *State) readStream(ctx context.Context, r io.Reader, b []byte) int {
	if r == nil {
		return 0
	}
	n := 0
	for idle := 0; n < len(b); {
		k, err := r.Read(b[n:min(len(b), n+piece)])
		n += k
		s.chargeBytes(ctx, k)
		switch {
		case err == io.EOF:
			return n
		case err != nil:
			s.Fail(err)
		case k > 0:
			idle = 0
		default:
			if idle++; idle > 100 {
				s.Fail(io.ErrNoProgress)
			}
		}
		if n < len(b) {
			s.proceed(ctx)
		}
	}
	return n
}

func fdWrite(ctx context.Context, s *State, mem api.Memory, p []uint64) Errno {
	d := s.table.get(p[0])
	switch {
	case d == nil:
		return vfs.EBADF
	case d.kind == folder:
		return vfs.EISDIR
	case d.base&rightWrite == 0:
		return vfs.ENOTCAPABLE
	case d.kind == output:
		return s.transfer(ctx, mem, p[1], p[2], p[3], func(b []byte) (int, Errno) { return s.writeStream(ctx, d.out, b) })
	}
	if d.flags&flagAppend != 0 {
		d.off = d.file.Size()
	}
	return s.transfer(ctx, mem, p[1], p[2], p[3], func(b []byte) (int, Errno) {
		s.chargeBytes(ctx, len(b))
		n, errno := d.file.WriteAt(b, d.off)
		d.off += int64(n)
		return n, errno
	})
}

// fdPwrite writes where it is told to, as POSIX has it, even with the append flag.
func fdPwrite(ctx context.Context, s *State, mem api.Memory, p []uint64) Errno {
	d, errno := s.openFile(p[0], rightWrite)
	switch {
	case errno != vfs.ESUCCESS:
		return errno
	case p[3] > math.MaxInt64:
		return vfs.EINVAL
	}
	off := int64(p[3])
	return s.transfer(ctx, mem, p[1], p[2], p[4], func(b []byte) (int, Errno) {
		s.chargeBytes(ctx, len(b))
		n, errno := d.file.WriteAt(b, off)
		off += int64(n)
		return n, errno
	})
}

func (s *State) writeStream(ctx context.Context, w io.Writer, b []byte) (int, Errno) {
	if w == nil {
		s.chargeBytes(ctx, len(b))
		return len(b), vfs.ESUCCESS
	}
	total := 0
	for {
		s.chargeBytes(ctx, min(len(b)-total, piece))
		n, err := w.Write(b[total:min(len(b), total+piece)])
		total += min(max(n, 0), len(b)-total)
		switch {
		case errors.Is(err, io.ErrClosedPipe):
			return total, vfs.EPIPE
		case err != nil:
			return total, vfs.EIO
		case total == len(b):
			return total, vfs.ESUCCESS
		case n < piece:
			return total, vfs.EIO // a writer that breaks its word
		}
		s.proceed(ctx)
	}
}

// direntSize is what each entry takes before its name.
const direntSize = 24

// fdReaddir writes entries until the buffer is full, the last one perhaps in part, so that a guest
// knows the end by a buffer that is not full. An entry's cookie is its place in the list.
func fdReaddir(ctx context.Context, s *State, mem api.Memory, p []uint64) Errno {
	d := s.table.get(p[0])
	switch {
	case d == nil:
		return vfs.EBADF
	case d.kind != folder:
		return vfs.ENOTDIR
	case d.base&rightReaddir == 0:
		return vfs.ENOTCAPABLE
	}
	buf, used := view(mem, p[1], p[2]), view(mem, p[4], 4)
	if buf == nil || used == nil {
		return vfs.EFAULT
	}
	entries, errno := d.dir.List(p[3])
	if errno != vfs.ESUCCESS {
		return errno
	}
	if p[3] == 0 { // it was read just now
		s.charge(ctx, costEntry*uint64(len(entries)))
	}
	at := 0
	for i, e := range entries {
		var head [direntSize]byte
		le.PutUint64(head[:], p[3]+uint64(i)+1)
		le.PutUint64(head[8:], e.Ino)
		le.PutUint32(head[16:], uint32(len(e.Name)))
		head[20] = byte(e.Kind)
		at += copy(buf[at:], head[:])
		at += copy(buf[at:], e.Name)
		if at == len(buf) {
			break
		}
	}
	s.chargeBytes(ctx, at)
	le.PutUint32(used, uint32(at))
	return vfs.ESUCCESS
}
