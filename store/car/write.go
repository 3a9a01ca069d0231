package car

import (
	"bufio"
	"encoding/binary"
	"io"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

// header is that of a CARv1; a CARv2 begins with one that has no roots.
type header struct {
	Roots   []grid.Link `cbor:"roots"`
	Version uint64      `cbor:"version"`
}

// section is a block as it stands in a file. The zero section is none.
type section struct {
	cid  cid.Cid
	data []byte
}

// writer writes a CARv1.
type writer struct {
	w   *bufio.Writer
	buf []byte
}

// newWriter writes the header.
func newWriter(w io.Writer, roots []cid.Cid) (*writer, error) {
	h := header{Roots: make([]grid.Link, len(roots)), Version: 1}
	for i, c := range roots {
		h.Roots[i].Cid = c
	}
	data, err := grid.Marshal(h)
	if err == nil && len(data) > maxHeader {
		err = grid.Errorf(grid.Limit, "store: export: %d roots do not fit into one file", len(roots))
	}
	if err != nil {
		return nil, err
	}
	out := &writer{w: bufio.NewWriterSize(w, 64<<10)}
	out.buf = binary.AppendUvarint(out.buf, uint64(len(data)))
	out.buf = append(out.buf, data...)
	_, err = out.w.Write(out.buf)
	return out, err
}

func (w *writer) section(s section) error {
	name := s.cid.KeyString()
	w.buf = binary.AppendUvarint(w.buf[:0], uint64(len(name)+len(s.data)))
	w.buf = append(w.buf, name...)
	if _, err := w.w.Write(w.buf); err != nil {
		return err
	}
	_, err := w.w.Write(s.data)
	return err
}

func (w *writer) flush() error { return w.w.Flush() }
