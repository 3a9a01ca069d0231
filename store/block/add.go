package block

import (
	"bytes"
	"context"
	"sync"

	"github.com/wasmgrid/wasmgrid/grid"
)

// compareChunk is how much of a value is read at a time to be compared.
const compareChunk = 256 << 10

var compareBuffers = sync.Pool{New: func() any { b := make([]byte, compareChunk); return &b }}

// Add stores the blocks that are not here yet, and those that are here but damaged. It returns the places
// in blocks of those that were here and whole. Those are read, not written.
func (s *Segments) Add(ctx context.Context, blocks ...grid.Block) (here []int, err error) {
	if len(blocks) == 0 {
		return nil, nil
	}
	var mem [8]op
	ops := mem[:0]
	for _, b := range blocks {
		if !b.CID().Defined() {
			return nil, grid.Errorf(grid.Invalid, "store: put: an empty Block")
		}
		ops = append(ops, op{kind: kindValue, key: string(b.CID().Hash()), value: b.Data()})
	}
	i := 0
	err = s.write(ctx, ops, func(o *op, l location) {
		switch {
		case l.deleted():
		case s.same(l, o.value):
			here = append(here, i)
		default:
			o.when = always
		}
		i++
	})
	if err != nil {
		return nil, fail("put", blocks[0].CID(), err)
	}
	return here, nil
}

// same reports whether the value at a location can be read and is equal. When it was moved just now, it may
// say no.
func (s *Segments) same(l location, value []byte) bool {
	f, err := s.file(l.segment)
	if err != nil || int(l.length) != len(value) {
		return false
	}
	buf := compareBuffers.Get().(*[]byte)
	defer compareBuffers.Put(buf)
	for at := 0; at < len(value); {
		part := (*buf)[:min(compareChunk, len(value)-at)]
		if n, _ := f.ReadAt(part, int64(l.offset)+int64(at)); n < len(part) || !bytes.Equal(part, value[at:at+n]) {
			return false
		}
		at += len(part)
	}
	return true
}
