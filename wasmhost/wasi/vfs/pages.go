package vfs

// pageSize is the unit in which a file takes memory: growing a file never copies more than that.
const pageSize = 64 << 10

// pages is the content of a file. A page is shorter than pageSize where the rest of it, up to the
// file's size, is zeros; nil where all of it is.
type pages struct {
	list [][]byte
	size int64
}

// readAt copies what there is at off into b and tells how much that was.
func (p *pages) readAt(b []byte, off int64) int {
	if off < 0 || off >= p.size {
		return 0
	}
	if left := p.size - off; int64(len(b)) > left {
		b = b[:left]
	}
	n := 0
	for n < len(b) {
		page, at := p.list[(off+int64(n))/pageSize], int((off+int64(n))%pageSize)
		want := min(len(b)-n, pageSize-at)
		have := 0
		if at < len(page) {
			have = copy(b[n:n+want], page[at:])
		}
		clear(b[n+have : n+want])
		n += want
	}
	return n
}

// writeAt puts b at off, all within the size.
func (p *pages) writeAt(b []byte, off int64) {
	for len(b) > 0 {
		i, at := off/pageSize, int(off%pageSize)
		n := min(len(b), pageSize-at)
		page := p.list[i]
		if at+n > len(page) {
			page = extend(page, at+n)
			p.list[i] = page
		}
		copy(page[at:], b[:n])
		b, off = b[n:], off+int64(n)
	}
}

// extend lengthens a page with zeros.
func extend(page []byte, n int) []byte {
	if n <= cap(page) {
		old := len(page)
		page = page[:n]
		clear(page[old:])
		return page
	}
	grown := make([]byte, n, min(pageSize, max(n, 2*cap(page))))
	copy(grown, page)
	return grown
}

// resize changes the size; what is new reads as zeros.
func (p *pages) resize(size int64) {
	n := int((size + pageSize - 1) / pageSize)
	if n < len(p.list) {
		clear(p.list[n:])
		p.list = p.list[:n]
	}
	for len(p.list) < n {
		p.list = append(p.list, nil)
	}
	if size < p.size && size%pageSize != 0 {
		if last := p.list[n-1]; int64(len(last)) > size%pageSize {
			p.list[n-1] = last[:size%pageSize]
		}
	}
	p.size = size
}
