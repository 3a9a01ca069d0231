package jobfile

import (
	"bytes"
	"io"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Cut says how a file is cut into chunks, each of which ends where a record does.
type Cut struct {
	Bytes  int64  // a chunk has at most so many, unless its only record has more; 0: Count decides
	Count  int64  // a chunk has so many records
	End    string // what each record ends with; the last one of a file need not
	Record int64  // or the bytes of each record
}

// MaxChunk bounds one chunk, so that one task's input.
const MaxChunk = 1 << 30

// maxEnd bounds what records end with.
const maxEnd = 1 << 10

// window is how much is read at a time.
const window = 64 << 10

// Chunks finds the chunks of a file of the given size. They cover it, in order, and none is empty. Little is held in
// memory, and of a file that is cut by bytes only what lies about the cuts is read.
func (c *Cut) Chunks(r io.ReaderAt, size int64, each func(offset, length int64) error) error {
	if c.Record > 0 {
		return c.fixed(size, each)
	}
	next := c.byBytes
	if c.Bytes == 0 {
		next = c.byCount
	}
	buf := make([]byte, window+len(c.End))
	for from := int64(0); from < size; {
		to, err := next(r, from, size, buf)
		if err != nil {
			return err
		}
		if to-from > MaxChunk {
			return grid.Errorf(grid.Limit, "from byte %d on there are more than %d MiB up to the end of the chunk", from, MaxChunk>>20).
				Hint("is it the right end of a record, in split-at?")
		}
		if err := each(from, to-from); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// fixed cuts a file whose records have one size.
func (c *Cut) fixed(size int64, each func(offset, length int64) error) error {
	if rest := size % c.Record; rest != 0 {
		return grid.Errorf(grid.Invalid, "%d bytes are left over after the last whole record of %d bytes", rest, c.Record)
	}
	n := max(c.Bytes/c.Record, 1)
	if c.Bytes == 0 {
		n = c.Count
	}
	chunk := min(n, MaxChunk/c.Record) * c.Record
	for from := int64(0); from < size; from += chunk {
		if err := each(from, min(chunk, size-from)); err != nil {
			return err
		}
	}
	return nil
}

// byBytes finds the last end of a record that is not too far, else the first one.
func (c *Cut) byBytes(r io.ReaderAt, from, size int64, buf []byte) (int64, error) {
	if size-from <= c.Bytes {
		return size, nil
	}
	limit := from + c.Bytes
	for hi := limit; hi > from; {
		lo := max(from, hi-window)
		part, err := readAt(r, buf, lo, min(hi+int64(len(c.End))-1, limit))
		if err != nil {
			return 0, err
		}
		if i := bytes.LastIndex(part, []byte(c.End)); i >= 0 {
			return lo + int64(i+len(c.End)), nil
		}
		hi = lo
	}
	return c.firstEnd(r, max(from, limit-int64(len(c.End))+1), size, buf)
}

// firstEnd is the first end of a record that begins at or after from.
func (c *Cut) firstEnd(r io.ReaderAt, from, size int64, buf []byte) (int64, error) {
	for lo := from; lo < size; lo += window {
		if lo-from > MaxChunk {
			return lo, nil // which is too far
		}
		part, err := readAt(r, buf, lo, min(lo+window+int64(len(c.End))-1, size))
		if err != nil {
			return 0, err
		}
		if i := bytes.Index(part, []byte(c.End)); i >= 0 {
			return lo + int64(i+len(c.End)), nil
		}
	}
	return size, nil
}

// byCount finds the end of so many records.
func (c *Cut) byCount(r io.ReaderAt, from, size int64, buf []byte) (int64, error) {
	end, left := []byte(c.End), c.Count
	for lo := from; lo < size; {
		if lo-from > MaxChunk {
			return lo, nil
		}
		part, err := readAt(r, buf, lo, min(lo+window+int64(len(end))-1, size))
		if err != nil {
			return 0, err
		}
		at := 0
		for at < window {
			i := bytes.Index(part[at:], end)
			if i < 0 || at+i >= window {
				break
			}
			at += i + len(end)
			if left--; left == 0 {
				return lo + int64(at), nil
			}
		}
		lo += int64(max(at, min(window, len(part))))
	}
	return size, nil
}

// readAt reads the bytes from lo to hi.
func readAt(r io.ReaderAt, buf []byte, lo, hi int64) ([]byte, error) {
	part := buf[:hi-lo]
	if n, err := r.ReadAt(part, lo); n < len(part) {
		if err == io.EOF {
			return nil, grid.Errorf(grid.Conflict, "it became shorter while it was read").Hint("wait until nothing writes to it, or give a copy")
		}
		return nil, err
	}
	return part, nil
}
