package car

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"math"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/dag"
)

const (
	maxHeader  = 1 << 20
	maxCID     = 256                  // bytes
	maxSection = maxCID + 2<<20       // a CID and a block of grid.MaxBlock
	v2Header   = 40                   // bytes
	v2Start    = int64(11 + v2Header) // where the CARv1 in a CARv2 begins at the earliest
)

// reader reads the sections of a CARv1, or of the one in a CARv2.
type reader struct {
	r     *bufio.Reader
	off   int64 // in the file
	end   int64 // of the sections, when known: a CARv2 says so
	index bool  // something follows that is ignored
	roots []cid.Cid
}

// fail is an error at an offset.
func (r *reader) fail(off int64, code grid.Code, format string, args ...any) *grid.Error {
	return grid.Errorf(code, "at byte %d: "+format, append([]any{off}, args...)...)
}

// newReader reads the header.
func newReader(src io.Reader) (*reader, error) {
	r := &reader{r: bufio.NewReaderSize(src, 64<<10), end: math.MaxInt64}
	h, err := r.header()
	if err != nil {
		return nil, err
	}
	if h.Version == 2 {
		if h, err = r.wrapped(h); err != nil {
			return nil, err
		}
	}
	if h.Version != 1 {
		return nil, r.fail(0, grid.Unsupported, "version %d of the format is not known here, only 1 and 2 are", h.Version)
	}
	for i, l := range h.Roots {
		if _, own := dag.Identity(l.Cid); !own {
			if err := grid.CheckCID(l.Cid); err != nil {
				return nil, r.fail(0, grid.CodeOf(err), "root %d: %w", i, err)
			}
		}
		r.roots = append(r.roots, l.Cid)
	}
	return r, nil
}

// header reads the header of a CARv1.
func (r *reader) header() (h header, err error) {
	start := r.off
	n, err := r.uvarint()
	if err == io.EOF {
		return h, r.fail(start, grid.Invalid, "there is no header: the file is empty, or cut short")
	}
	if err != nil {
		return h, err
	}
	if n > maxHeader {
		return h, r.fail(start, grid.Limit, "a header of %d bytes, at most %d are allowed; is it a CAR file?", n, maxHeader)
	}
	data, err := r.some(start, int(n), "header")
	if err != nil {
		return h, err
	}
	if err := grid.Unmarshal(data, &h); err != nil {
		return h, r.fail(start, grid.Invalid, "this is no header of a CAR file: %w", err)
	}
	return h, nil
}

// wrapped reads the rest of a CARv2's header, and the header of the CARv1 in it.
func (r *reader) wrapped(outer header) (h header, err error) {
	if r.off != v2Start-v2Header || len(outer.Roots) > 0 {
		return h, r.fail(0, grid.Invalid, "this is no header of a CARv2")
	}
	at := r.off
	data, err := r.some(at, v2Header, "header")
	if err != nil {
		return h, err
	}
	start, size, index := binary.LittleEndian.Uint64(data[16:]), binary.LittleEndian.Uint64(data[24:]), binary.LittleEndian.Uint64(data[32:])
	const most = 1 << 62
	switch {
	case start < uint64(v2Start) || start > most || size > most:
		return h, r.fail(at, grid.Invalid, "its data cannot be %d bytes from byte %d on", size, start)
	case index != 0 && (index < start+size || index > math.MaxInt64):
		return h, r.fail(at, grid.Invalid, "its index cannot begin at byte %d, inside of the data", index)
	}
	if n, err := io.CopyN(io.Discard, r.r, int64(start)-r.off); err != nil {
		return h, r.ended(at, err, r.off+n, "padding")
	}
	r.off, r.end, r.index = int64(start), int64(start+size), index != 0
	if h, err = r.header(); err == nil && h.Version != 1 {
		err = r.fail(r.off, grid.Invalid, "in a CARv2 is one of version %d, want 1", h.Version)
	}
	return h, err
}

// ended explains an error of reading something that begins at start.
func (r *reader) ended(start int64, err error, at int64, what string) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return r.fail(start, grid.Invalid, "the file is cut short: it ends at byte %d, inside of a %s", at, what)
	}
	return err
}

// some reads n bytes, which the caller has bounded.
func (r *reader) some(start int64, n int, what string) ([]byte, error) {
	buf := make([]byte, n)
	return buf, r.fill(start, buf, what)
}

func (r *reader) fill(start int64, buf []byte, what string) error {
	if int64(len(buf)) > r.end-r.off {
		return r.fail(start, grid.Invalid, "a %s runs past the end of the data at byte %d", what, r.end)
	}
	n, err := io.ReadFull(r.r, buf)
	r.off += int64(n)
	if err != nil {
		return r.ended(start, err, r.off, what)
	}
	return nil
}

// uvarint reads a number. The error is io.EOF when there is nothing any more.
func (r *reader) uvarint() (v uint64, err error) {
	start := r.off
	for shift := 0; ; shift += 7 {
		if r.off == r.end {
			if shift == 0 {
				return 0, io.EOF
			}
			return 0, r.fail(start, grid.Invalid, "a length runs past the end of the data")
		}
		b, err := r.r.ReadByte()
		if err == io.EOF && shift == 0 && r.end == math.MaxInt64 {
			return 0, io.EOF
		}
		if err != nil {
			return 0, r.ended(start, err, r.off, "length")
		}
		r.off++
		if shift == 63 || b == 0 && shift > 0 { // multiformats: nine bytes, and the shortest form
			return 0, r.fail(start, grid.Invalid, "a malformed length")
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v, nil
		}
	}
}

// length reads that of the next section, which is possible then. The error is io.EOF at the end.
func (r *reader) length() (int, error) {
	start := r.off
	n, err := r.uvarint()
	switch {
	case err == io.EOF:
		return 0, r.rest()
	case err != nil:
		return 0, err
	case n == 0:
		return 0, r.fail(start, grid.Invalid, "an empty section: the file is padded with zeros, or damaged")
	case n > maxSection:
		return 0, r.fail(start, grid.Limit, "a section of %d bytes, at most %d are allowed", n, maxSection)
	case int64(n) > r.end-r.off:
		return 0, r.fail(start, grid.Invalid, "a section of %d bytes runs past the end of the data at byte %d", n, r.end)
	}
	return int(n), nil
}

// rest checks what is behind the last section. Its error is io.EOF when all is well.
func (r *reader) rest() error {
	if r.index {
		return io.EOF
	}
	switch _, err := r.r.Peek(1); err {
	case nil:
		return r.fail(r.off, grid.Invalid, "the data has ended, but the file goes on")
	default:
		return err
	}
}

// section reads a section into buf, which is as long as it is, and keeps to it. The zero section is one that is
// left out, since its CID holds the data. start is its offset.
func (r *reader) section(start int64, buf []byte) (section, error) {
	if err := r.fill(start, buf, "section"); err != nil {
		return section{}, err
	}
	n, c, err := cid.CidFromBytes(buf)
	if err != nil || n > maxCID {
		return section{}, r.fail(start, grid.Invalid, "a section does not begin with a CID")
	}
	data := buf[n:]
	if held, own := dag.Identity(c); own {
		if !bytes.Equal(held, data) {
			return section{}, r.fail(start, grid.Corrupt, "block %s: %d bytes do not match their CID", c, len(data))
		}
		return section{}, nil
	}
	if err := grid.CheckCID(c); err != nil {
		return section{}, r.fail(start, grid.CodeOf(err), "%w", err)
	}
	if len(data) > grid.MaxBlock {
		return section{}, r.fail(start, grid.Limit, "block %s has %d bytes, at most %d are allowed", c, len(data), grid.MaxBlock)
	}
	return section{c, data}, nil
}
