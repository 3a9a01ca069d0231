package dag

import (
	"context"
	"errors"
	"io"
	"sort"
	"sync"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Open reads a file.
func (f *Files) Open(ctx context.Context, c cid.Cid) (io.ReadSeekCloser, error) {
	n, err := f.load(ctx, c)
	if err == nil && n.kind() != grid.KindFile {
		err = grid.Errorf(grid.Invalid, "it is a %s", n.kind())
	}
	if err != nil {
		return nil, wrap(err, "open %s", c)
	}
	return f.reader(ctx, n), nil
}

func (f *Files) reader(ctx context.Context, root *node) *reader {
	return &reader{content: content{f: f, ctx: ctx, path: []span{{root, 0}}}}
}

// leavesAhead is how many leaves of a file are asked for ahead of need at most.
const leavesAhead = 8

// content is a file's bytes. It is safe for concurrent use.
type content struct {
	f   *Files
	ctx context.Context // of the opener, as io.Reader has none

	mu   sync.Mutex
	path []span // from the root down to where the last read was
	gait gait   // in bytes of the file
}

// span is a node and the offset in the file at which its bytes begin.
type span struct {
	*node
	start int64
}

func (s span) end() int64 { return s.start + int64(s.size) }

func (c *content) size() int64 { return int64(c.path[0].node.size) }

// at returns the bytes from an offset on, to the end of the block that they lie in; none at the end. They
// are shared and read-only.
func (c *content) at(off int64) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if off >= c.path[0].end() {
		return nil, c.ctx.Err()
	}
	for last := c.path[len(c.path)-1]; off < last.start || off >= last.end(); last = c.path[len(c.path)-1] {
		c.path = c.path[:len(c.path)-1]
	}
	for {
		n := c.path[len(c.path)-1]
		in := off - n.start
		if own := n.unixfs.data; in < int64(len(own)) {
			return own[in:], nil
		}
		if err := c.ctx.Err(); err != nil {
			return nil, err
		}
		if len(c.path) == maxDepth {
			return nil, grid.Errorf(grid.Invalid, "store: read %s: the tree is more than %d levels deep", c.path[0].cid, maxDepth)
		}
		// Which child? ends(i) is where the i-th ends, counted from n's start.
		if n.ends == nil {
			sum := int64(len(n.unixfs.data))
			n.ends = make([]int64, len(n.sizes))
			for i, s := range n.sizes {
				sum += int64(s)
				n.ends[i] = sum
			}
		}
		i := sort.Search(len(n.ends), func(i int) bool { return n.ends[i] > in })
		var next []cid.Cid
		if c.f.ahead != nil && n.sizes[i] <= grid.MaxBlock { // it is a leaf
			steps := c.gait.step(n.start+n.ends[i]-int64(n.sizes[i]), n.start+n.ends[i], leavesAhead)
			next = c.f.coming(n.links[i+1:][:min(steps, len(n.links)-i-1)], anyLink)
		}
		child, err := c.f.loadAhead(c.ctx, n.links[i].CID, next)
		if err != nil {
			return nil, wrap(err, "read %s", c.path[0].cid)
		}
		if child.kind() != grid.KindFile || child.size != n.sizes[i] {
			return nil, grid.Errorf(grid.Invalid, "store: read %s: its part %s is not the %d bytes of file it should be",
				c.path[0].cid, child.cid, n.sizes[i])
		}
		c.path = append(c.path, span{child, n.start + n.ends[i] - int64(n.sizes[i])})
	}
}

// ReadAt is io.ReaderAt.
func (c *content) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, grid.Errorf(grid.Invalid, "store: read %s at %d", c.path[0].cid, off)
	}
	for n < len(p) {
		b, err := c.at(off + int64(n))
		if err != nil {
			return n, err
		}
		if len(b) == 0 {
			return n, io.EOF
		}
		n += copy(p[n:], b)
	}
	return n, nil
}

// reader is a file being read.
type reader struct {
	content
	off    int64
	closed bool
}

var errClosed = errors.New("file already closed")

func (r *reader) Read(p []byte) (int, error) {
	if r.closed {
		return 0, errClosed
	}
	if len(p) == 0 {
		return 0, nil
	}
	b, err := r.at(r.off)
	if err != nil {
		return 0, err
	}
	if len(b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b)
	r.off += int64(n)
	return n, nil
}

// WriteTo spares io.Copy its buffer.
func (r *reader) WriteTo(w io.Writer) (n int64, err error) {
	if r.closed {
		return 0, errClosed
	}
	for {
		b, err := r.at(r.off)
		if err != nil || len(b) == 0 {
			return n, err
		}
		m, err := w.Write(b)
		n += int64(m)
		r.off += int64(m)
		if err != nil {
			return n, err
		}
	}
}

func (r *reader) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		off += r.off
	case io.SeekEnd:
		off += r.size()
	default:
		off = -1
	}
	if off < 0 {
		return 0, grid.Errorf(grid.Invalid, "store: seek to %d", off)
	}
	r.off = off
	return off, nil
}

func (r *reader) Close() error {
	r.closed = true
	return nil
}
