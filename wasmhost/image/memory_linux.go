package image

import (
	"io"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

func openPagemap() (*os.File, error) { return os.Open("/proc/self/pagemap") }

// seal puts mem into a file in memory that nobody can change any more, and gives a read-only view of it.
// Pages that are zero stay holes. Without any bytes there is no file.
func seal(mem []byte, page int) (data []byte, fd int, err error) {
	if len(mem) == 0 {
		return nil, -1, nil
	}
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err = unix.MemfdCreate("wasm-image", flags|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate("wasm-image", flags)
	}
	if err != nil {
		return nil, -1, os.NewSyscallError("memfd_create", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
			data, fd = nil, -1
		}
	}()
	if err := unix.Ftruncate(fd, int64(len(mem))); err != nil {
		return nil, fd, os.NewSyscallError("ftruncate", err)
	}
	for lo := 0; lo < len(mem); {
		hi := lo
		for hi < len(mem) && !isZero(mem[hi:hi+page]) {
			hi += page
		}
		if err := writeAt(fd, mem[lo:hi], int64(lo)); err != nil {
			return nil, fd, os.NewSyscallError("pwrite", err)
		}
		lo = hi + page
	}
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return nil, fd, os.NewSyscallError("fcntl", err)
	}
	at, err := unix.MmapPtr(fd, 0, nil, uintptr(len(mem)), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fd, os.NewSyscallError("mmap", err)
	}
	return unsafe.Slice((*byte)(at), len(mem)), fd, nil
}

func writeAt(fd int, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, off)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return io.ErrShortWrite
		default:
			b, off = b[n:], off+int64(n)
		}
	}
	return nil
}

func unseal(data []byte, fd int) {
	if fd >= 0 {
		unreserve(data)
		unix.Close(fd)
	}
}

// view reserves addresses for size bytes, of which the first show the file. It is nil when the system
// refuses.
func view(size uint64, fd int, stored uint64) []byte {
	if size == 0 || uint64(uintptr(size)) != size || uint64(int(size)) != size {
		return nil
	}
	const access = unix.PROT_READ | unix.PROT_WRITE
	at, err := unix.MmapPtr(-1, 0, nil, uintptr(size), access, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil
	}
	region := unsafe.Slice((*byte)(at), int(size))
	if fd >= 0 {
		_, err = unix.MmapPtr(fd, 0, at, uintptr(stored), access, unix.MAP_PRIVATE|unix.MAP_FIXED|unix.MAP_NORESERVE)
		if err != nil {
			unreserve(region)
			return nil
		}
	}
	// A huge page would be dirty as a whole. Kernels without them say no; that is as good.
	_ = unix.Madvise(region, unix.MADV_NOHUGEPAGE)
	return region
}

func unreserve(b []byte) {
	if len(b) > 0 {
		_ = unix.MunmapPtr(unsafe.Pointer(&b[0]), uintptr(len(b)))
	}
}

func giveBack(b []byte) error {
	for {
		if err := unix.Madvise(b, unix.MADV_DONTNEED); err != unix.EINTR && err != unix.EAGAIN {
			return err
		}
	}
}

// finder is room for what the kernel tells.
type finder struct {
	runs    [maxRuns]run
	scan    pmScan
	regions [maxRuns]pageRegion
	entries []uint64 // of pagemap
}

// newFinder makes a finder. It must be in the heap, for the kernel is given its address as a number.
func newFinder(w Way) *finder {
	f := new(finder)
	if w == Pagemap {
		f.entries = make([]uint64, 512)
	}
	return f
}

// pmScan is struct pm_scan_arg of linux/fs.h, and pageRegion is struct page_region.
type pmScan struct {
	size, flags                                           uint64
	start, end, walkEnd                                   uint64
	vec, vecLen, maxPages                                 uint64
	categoryInverted, categoryMask, categoryAny, returned uint64
}

type pageRegion struct{ start, end, categories uint64 }

const (
	pagemapScan = 0xc0606610 // _IOWR('f', 16, struct pm_scan_arg)

	pageIsFile    = 1 << 2
	pageIsPresent = 1 << 3
	pageIsSwapped = 1 << 4
	pageIsPFNZero = 1 << 5
)

// dirty finds pages between at and high that are the memory's own. What it gives is valid until the next
// call, and is all there is up to next.
func (m *Memory) dirty(at, high uint64) (runs []run, next uint64, err error) {
	base := uint64(uintptr(unsafe.Pointer(&m.region[0])))
	fd := int(m.image.store.maps.Fd())
	defer runtime.KeepAlive(m)
	if m.image.store.way == Pagemap {
		return m.find.pagemap(fd, base, at, high, uint64(m.image.store.page))
	}
	return m.find.scanPages(fd, base, at, high)
}

// scanPages asks for pages that are there or swapped out, and neither a file's nor the one of all zeros.
func (f *finder) scanPages(fd int, base, at, high uint64) ([]run, uint64, error) {
	const not = pageIsFile | pageIsPFNZero
	f.scan = pmScan{
		size: uint64(unsafe.Sizeof(f.scan)), start: base + at, end: base + high,
		vec: uint64(uintptr(unsafe.Pointer(&f.regions[0]))), vecLen: maxRuns,
		categoryInverted: not, categoryMask: not, categoryAny: pageIsPresent | pageIsSwapped, returned: pageIsPresent,
	}
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), pagemapScan, uintptr(unsafe.Pointer(&f.scan)))
	if errno != 0 {
		return nil, 0, os.NewSyscallError("ioctl PAGEMAP_SCAN", errno)
	}
	if n > maxRuns || f.scan.walkEnd <= base+at || f.scan.walkEnd > base+high {
		return nil, 0, os.NewSyscallError("ioctl PAGEMAP_SCAN", unix.EPROTO)
	}
	for i, r := range f.regions[:n] {
		if r.start < base+at || r.end > base+high || r.start >= r.end {
			return nil, 0, os.NewSyscallError("ioctl PAGEMAP_SCAN", unix.EPROTO)
		}
		f.runs[i] = run{r.start - base, r.end - base}
	}
	return f.runs[:n], f.scan.walkEnd - base, nil
}

// pagemap reads an entry of 64 bits for each page. See Documentation/admin-guide/mm/pagemap.rst.
func (f *finder) pagemap(fd int, base, at, high, page uint64) ([]run, uint64, error) {
	entries := f.entries[:min(uint64(len(f.entries)), (high-at)/page)]
	b := unsafe.Slice((*byte)(unsafe.Pointer(&entries[0])), 8*len(entries))
	n, err := unix.Pread(fd, b, int64((base+at)/page*8))
	if err == nil && n != len(b) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, 0, os.NewSyscallError("read /proc/self/pagemap", err)
	}
	const present, swapped, file = 1 << 63, 1 << 62, 1 << 61
	found := 0
	for i, e := range entries {
		if e&(present|swapped) == 0 || e&file != 0 {
			continue
		}
		lo := at + uint64(i)*page
		switch {
		case found > 0 && f.runs[found-1].hi == lo:
			f.runs[found-1].hi += page
		case found == maxRuns:
			return f.runs[:found], lo, nil
		default:
			f.runs[found] = run{lo, lo + page}
			found++
		}
	}
	return f.runs[:found], at + uint64(len(entries))*page, nil
}
