package rewrite

import (
	"unicode/utf8"

	"github.com/wasmgrid/wasmgrid/grid"
)

// reader takes values of the binary format off a slice. After the first one that does not fit it has
// failed for good and gives zeros, so that callers may look once.
type reader struct {
	b   []byte // from off to len(b) is still to be read
	off int    // in the whole module, as errors tell it
	err error
}

// fail settles the error, unless there is one.
func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = grid.Errorf(grid.Invalid, "byte %d: "+format, append([]any{r.off}, args...)...).
			Hint("upload the module again, or rebuild it with a current toolchain for Wasm 2.0")
	}
	r.b = r.b[:r.off]
}

func (r *reader) unsupported(what string) {
	if r.err == nil {
		r.err = grid.Errorf(grid.Unsupported, "byte %d: %s, which does not run here", r.off, what).
			Hint("rebuild the module for Wasm 2.0 without experimental features")
	}
	r.b = r.b[:r.off]
}

func (r *reader) limit(what string, n, most uint64) {
	if r.err == nil {
		r.err = grid.Errorf(grid.Limit, "byte %d: %d %s, at most %d are allowed, to bound what compiling takes", r.off, n, what, most).
			Hint("split the function or the program, or build it with less inlining")
	}
	r.b = r.b[:r.off]
}

func (r *reader) more() bool { return r.off < len(r.b) }

func (r *reader) byte() byte {
	if r.off >= len(r.b) {
		r.fail("the module ends early, or a size is wrong")
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
	for shift := 0; ; shift += 7 {
		c := r.byte()
		if shift == 28 && c > 0x0f {
			r.fail("a number has more than 32 bits")
			return 0
		}
		v |= uint32(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
}

// signed reads a signed LEB128 of the given number of bits.
func (r *reader) signed(bits int) int64 {
	var v int64
	for shift := 0; ; shift += 7 {
		c := r.byte()
		if left := bits - shift; left < 7 { // the last byte: its upper bits repeat the sign
			sign := int8(c<<1) >> left
			if c >= 0x80 || sign != 0 && sign != -1 {
				r.fail("a number has more than %d bits", bits)
				return 0
			}
		}
		v |= int64(c&0x7f) << shift
		if c < 0x80 {
			if shift += 7; shift < 64 && c&0x40 != 0 {
				v |= -1 << shift
			}
			return v
		}
	}
}

// bytes takes n bytes, without copying.
func (r *reader) bytes(n uint32) []byte {
	if uint64(n) > uint64(len(r.b)-r.off) {
		r.fail("%d bytes are announced, %d are left", n, len(r.b)-r.off)
		return nil
	}
	r.off += int(n)
	return r.b[r.off-int(n) : r.off : r.off]
}

// count reads the length of a list, whose elements take at least size bytes each.
func (r *reader) count(what string, most uint32, size int) int {
	n := r.u32()
	if n > most {
		r.limit(what, uint64(n), uint64(most))
		return 0
	}
	if int(n) > (len(r.b)-r.off)/size {
		r.fail("%d %s are announced, but the section is too short for them", n, what)
		return 0
	}
	return int(n)
}

// index reads an index that must be below n.
func (r *reader) index(what string, n int) uint32 {
	i := r.u32()
	if int(i) >= n {
		r.fail("%s %d, but there are %d", what, i, n)
		return 0
	}
	return i
}

func (r *reader) name() []byte {
	b := r.bytes(r.u32())
	if !utf8.Valid(b) {
		r.fail("a name is not UTF-8")
	}
	return b
}

// sub reads a size and gives a reader of that many bytes.
func (r *reader) sub() reader {
	n := r.u32()
	start := r.off
	r.bytes(n)
	return reader{b: r.b[:r.off], off: min(start, r.off), err: r.err}
}

// end fails unless everything was read.
func (r *reader) end() {
	if r.more() {
		r.fail("%d bytes are left over", len(r.b)-r.off)
	}
}

func appendU32(b []byte, v uint32) []byte {
	for ; v >= 0x80; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v))
}

// appendS64 appends a signed LEB128.
func appendS64(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func appendName(b []byte, name string) []byte {
	return append(appendU32(b, uint32(len(name))), name...)
}
