package module

import "unicode/utf8"

// reader takes values of the binary format off a slice. After the first one that does not fit it has
// failed for good and gives zeros, so that loops end and callers may look once.
type reader struct {
	b      []byte
	off    int
	failed bool
}

func (r *reader) byte() byte {
	if r.failed || r.off >= len(r.b) {
		r.failed = true
		return 0
	}
	r.off++
	return r.b[r.off-1]
}

// u32 reads an unsigned LEB128 of at most 32 bits.
func (r *reader) u32() uint32 {
	var v uint64
	for shift := 0; shift < 35; shift += 7 {
		c := r.byte()
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			if v > 1<<32-1 {
				break
			}
			return uint32(v)
		}
	}
	r.failed = true
	return 0
}

// count reads the length of a list, which must not be above most.
func (r *reader) count(most uint32) uint32 {
	n := r.u32()
	if n > most {
		r.failed = true
		return 0
	}
	return n
}

// bytes takes n bytes, without copying.
func (r *reader) bytes(n uint32) []byte {
	if r.failed || uint64(n) > uint64(len(r.b)-r.off) {
		r.failed = true
		return nil
	}
	r.off += int(n)
	return r.b[r.off-int(n) : r.off : r.off]
}

func (r *reader) name() string {
	b := r.bytes(r.u32())
	if !utf8.Valid(b) {
		r.failed = true
		return ""
	}
	return string(b)
}

func appendU32(b []byte, v uint32) []byte {
	for ; v >= 0x80; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v))
}
