package machine

import (
	"encoding/binary"

	"github.com/wasmgrid/wasmgrid/grid"
)

func appendText[T ~string | ~[]byte](dst []byte, s T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// reader takes fields off the front of b. After the first that is malformed it gives zeros, and err says why.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = grid.Errorf(grid.Corrupt, "%s", what)
	}
	r.b = nil
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail("it ends too early")
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) number() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || n > 1 && r.b[n-1] == 0 { // one way to write each number
		r.fail("a malformed number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count reads how many things follow, each of which takes at least size bytes.
func (r *reader) count(limit, size int) int {
	n := r.number()
	if n > uint64(limit) || n > uint64(len(r.b)/size) {
		r.fail("a list that is too long")
		return 0
	}
	return int(n)
}

// text reads at most limit bytes; they are part of what is read.
func (r *reader) text(limit int) []byte {
	n := r.count(limit, 1)
	s := r.b[:n:n]
	r.b = r.b[n:]
	return s
}
