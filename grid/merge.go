package grid

import (
	"bytes"
	"container/heap"
	"context"
	"io"
	"path"

	"github.com/ipfs/go-cid"
)

const (
	// mergeMemory is what the buffers of all inputs of a merge have together, about: of each input only a stretch is
	// read at a time, and nothing is kept open meanwhile. Each buffer has leastStretch to mostStretch bytes.
	mergeMemory  = 64 << 20
	leastStretch = 4 << 10
	mostStretch  = 1 << 20
	// maxMerging bounds the lines that a merge compares at a time, in bytes: one of each input.
	maxMerging = 256 << 20
)

// stream is one file that a task's stdin is made of.
type stream struct {
	name string
	cid  cid.Cid
}

// streams lists the files that a task's inputs are when they are read as stdin: each input that is a file, and of a
// folder of outputs what each task has printed. What tasks have left in folders besides is left out.
func streams(ctx context.Context, files Files, inputs []Input) ([]stream, error) {
	out := make([]stream, 0, len(inputs))
	for _, s := range named(inputs) {
		info, err := files.Look(ctx, s.cid)
		if err != nil {
			return nil, Errorf(CodeOf(err), "input %s: %w", s.name, err)
		}
		if info.Kind != KindDir {
			out = append(out, s)
			continue
		}
		below, err := printed(ctx, files, s)
		if err != nil {
			return nil, err
		}
		out = append(out, below...)
	}
	return out, nil
}

// named are inputs as streams, without the folders that tasks have left. Others may turn out to be folders.
func named(inputs []Input) []stream {
	out := make([]stream, 0, len(inputs))
	for _, in := range inputs {
		if !isGatheredDir(path.Base(in.Name)) {
			out = append(out, stream{in.Name, in.CID.Cid})
		}
	}
	return out
}

// printed lists what tasks have printed, in a folder of outputs.
func printed(ctx context.Context, files Files, folder stream) (out []stream, err error) {
	list, err := files.List(ctx, folder.cid)
	if err != nil {
		return nil, Errorf(CodeOf(err), "input %s: %w", folder.name, err)
	}
	for _, e := range list {
		if isGatheredDir(e.Name) {
			continue
		}
		if _, ok := gatheredNumber(e.Name); !ok || e.Kind != KindFile {
			return nil, Errorf(Invalid, "input %s is a folder with %q in it: only files can be read as stdin", folder.name, e.Name)
		}
		out = append(out, stream{path.Join(folder.name, e.Name), e.CID.Cid})
	}
	return out, nil
}

// isGatheredDir recognises the name of the folder that a task has left.
func isGatheredDir(name string) bool {
	if len(name) <= len(gatheredDir) || name[len(name)-len(gatheredDir):] != gatheredDir {
		return false
	}
	_, ok := gatheredNumber(name[:len(name)-len(gatheredDir)])
	return ok
}

// merger reads the lines of several files in order of their keys; of equal keys, those of the first file come first.
// Each file must be in that order.
type merger struct {
	heap    cursors
	holding int    // bytes in the buffers
	line    []byte // what is left of the line that is being read, of the first in the heap
	end     bool   // and its end is to follow
	began   bool
	err     error
	wrong   func(error) // told if a file is not as it must be; nil: nobody
}

// cursor is a place in a file.
type cursor struct {
	stream
	number  int
	open    func() (io.ReadSeekCloser, error)
	stretch int

	buf   []byte // from the line that is next on
	at    int    // in buf, of that line
	line  []byte // without its end
	key   []byte
	count int    // lines so far
	last  []byte // the key of the line before
	off   int64  // of what follows buf in the file
	ended bool   // nothing follows
}

// newMerger begins to merge files.
func newMerger(ctx context.Context, files Files, of []stream, wrong func(error)) *merger {
	m := &merger{wrong: wrong}
	stretch := min(max(mergeMemory/max(len(of), 1), leastStretch), mostStretch)
	for i, s := range of {
		m.heap = append(m.heap, &cursor{stream: s, number: i, stretch: stretch,
			open: func() (io.ReadSeekCloser, error) { return files.Open(ctx, s.cid) }})
	}
	return m
}

// Read implements io.Reader.
func (m *merger) Read(p []byte) (n int, err error) {
	for n < len(p) && m.err == nil {
		switch {
		case len(m.line) > 0:
			k := copy(p[n:], m.line)
			n, m.line = n+k, m.line[k:]
		case m.end:
			p[n] = '\n'
			n, m.end = n+1, false
		default:
			m.err = m.next()
		}
	}
	if n > 0 {
		return n, nil
	}
	return 0, m.err
}

// Close implements io.Closer.
func (m *merger) Close() error {
	m.heap = nil
	return nil
}

// next takes the next line.
func (m *merger) next() error {
	if !m.began {
		m.began = true
		all := m.heap
		m.heap = m.heap[:0]
		for _, c := range all {
			if ok, err := m.advance(c); err != nil {
				return err
			} else if ok {
				m.heap = append(m.heap, c)
			}
		}
		heap.Init(&m.heap)
	} else if len(m.heap) > 0 {
		ok, err := m.advance(m.heap[0])
		switch {
		case err != nil:
			return err
		case ok:
			heap.Fix(&m.heap, 0)
		default:
			heap.Pop(&m.heap)
		}
	}
	if len(m.heap) == 0 {
		return io.EOF
	}
	m.line, m.end = m.heap[0].line, true
	return nil
}

// advance goes on to the next line of a file; it is false at its end.
func (m *merger) advance(c *cursor) (bool, error) {
	c.last = append(c.last[:0], c.key...)
	if c.count > 0 {
		c.at = min(c.at+len(c.line)+1, len(c.buf))
	}
	for from := c.at; ; {
		if i := bytes.IndexByte(c.buf[from:], '\n'); i >= 0 {
			c.line = c.buf[c.at : from+i]
			break
		}
		if c.ended {
			if c.line = c.buf[c.at:]; len(c.line) == 0 {
				m.holding -= cap(c.buf)
				c.buf = nil
				return false, nil
			}
			break
		}
		from = len(c.buf) - c.at
		if err := m.more(c); err != nil {
			return false, err
		}
	}
	c.count++
	if len(c.line) > maxLine {
		return false, m.refuse(Errorf(Limit, "input %s, line %d: it has more than %d bytes, the most that can be merged", c.name, c.count, maxLine))
	}
	if c.key = lineKey(c.line); c.count > 1 && bytes.Compare(c.key, c.last) < 0 {
		return false, m.refuse(Errorf(Invalid, "input %s, line %d: key %.40q comes after %.40q, so the input is not in order of keys", c.name, c.count, c.key, c.last))
	}
	return true, nil
}

// more reads the next stretch of a file behind what is left of the last one, which goes to the front of its buffer.
func (m *merger) more(c *cursor) error {
	left := len(c.buf) - c.at
	if left > maxLine {
		return m.refuse(Errorf(Limit, "input %s, line %d: it has more than %d bytes, the most that can be merged", c.name, c.count+1, maxLine))
	}
	f, err := c.open()
	if err != nil {
		return Errorf(CodeOf(err), "input %s: %w", c.name, err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = f.Seek(c.off, io.SeekStart)
	}
	if err != nil {
		return Errorf(CodeOf(err), "input %s: %w", c.name, err)
	}
	stretch := int(min(max(int64(c.stretch), int64(left)), size-c.off)) // a long line is read in few steps
	buf, room := c.buf, left+stretch
	if cap(buf) < room || cap(buf) > 4*max(room, c.stretch) {
		if m.holding += room - cap(buf); m.holding > maxMerging {
			return m.refuse(Errorf(Limit, "the lines of its inputs that must be compared at a time have more than %d bytes, the most that can be merged", maxMerging))
		}
		buf = make([]byte, room)
	}
	buf = buf[:room]
	copy(buf, c.buf[c.at:])
	n, err := io.ReadFull(f, buf[left:])
	if err != nil {
		return Errorf(CodeOf(err), "input %s: %w", c.name, err)
	}
	c.buf, c.at, c.off = buf, 0, c.off+int64(n)
	c.ended = c.off == size
	return nil
}

// refuse tells of inputs that are not as they must be.
func (m *merger) refuse(err error) error {
	if m.wrong != nil {
		m.wrong(err)
	}
	return err
}

// cursors is a heap by key, then by number.
type cursors []*cursor

func (h cursors) Len() int { return len(h) }
func (h cursors) Less(i, j int) bool {
	c := bytes.Compare(h[i].key, h[j].key)
	return c < 0 || c == 0 && h[i].number < h[j].number
}
func (h cursors) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface; it is not used.
func (h *cursors) Push(x any) { *h = append(*h, x.(*cursor)) }

// Pop implements heap.Interface.
func (h *cursors) Pop() any {
	old := *h
	c := old[len(old)-1]
	*h = old[:len(old)-1]
	return c
}
