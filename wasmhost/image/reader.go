package image

import (
	"unicode/utf8"

	"github.com/wasmgrid/wasmgrid/grid"
)

// reader takes values of the binary format off a slice. After the first that does not fit it has failed
// for good, gives zeros and has nothing left, so that loops end and callers may look once. It need not
// find everything that is wrong with a module, for the engine does; but what it takes for one value must
// be what the engine takes for it.
type reader struct {
	b   []byte
	off int // in the module
	err error
}

func (r *reader) stop(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = r.b[:r.off]
}

func (r *reader) fail(what string) {
	r.stop(grid.Errorf(grid.Invalid, "byte %d of the module: %s", r.off, what).
		Hint("upload the module again, or rebuild it with a current toolchain"))
}

func (r *reader) more() bool { return r.off < len(r.b) }

func (r *reader) byte() byte {
	if r.off >= len(r.b) {
		r.fail("it ends early, or a size is wrong")
		return 0
	}
	r.off++
	return r.b[r.off-1]
}

// u32 reads an unsigned LEB128 of at most 32 bits.
func (r *reader) u32() uint32 {
	if r.off < len(r.b) && r.b[r.off] < 0x80 {
		r.off++
		return uint32(r.b[r.off-1])
	}
	var v uint32
	for shift := 0; shift < 35; shift += 7 {
		c := r.byte()
		if shift == 28 && c > 0x0f {
			break
		}
		v |= uint32(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
	r.fail("a number has more than 32 bits")
	return 0
}

// leb skips a LEB128 of at most so many bytes, signed or not.
func (r *reader) leb(most int) {
	for range most {
		if r.byte() < 0x80 {
			return
		}
	}
	r.fail("a number is too long")
}

// bytes takes n bytes, without copying.
func (r *reader) bytes(n uint32) []byte {
	if uint64(n) > uint64(len(r.b)-r.off) {
		r.fail("a list or section is longer than what is left")
		return nil
	}
	r.off += int(n)
	return r.b[r.off-int(n) : r.off : r.off]
}

// count reads the length of a list whose elements take a byte each at least.
func (r *reader) count() int {
	n := r.u32()
	if uint64(n) > uint64(len(r.b)-r.off) {
		r.fail("a list is longer than its section")
		return 0
	}
	return int(n)
}

func (r *reader) name() []byte {
	b := r.bytes(r.u32())
	if !utf8.Valid(b) {
		r.fail("a name is not UTF-8")
	}
	return b
}

// sub reads a size and gives a reader of that many bytes, which counts on from here.
func (r *reader) sub() reader {
	n := r.u32()
	start := r.off
	r.bytes(n)
	return reader{b: r.b[:r.off], off: min(start, r.off), err: r.err}
}
