package crypt

import "io"

// Reader reads a file, or a part of one. It is for one goroutine, but for its ReadAt.
type Reader struct{ *io.SectionReader }

func newReader(of io.ReaderAt, offset, size int64) *Reader {
	return &Reader{io.NewSectionReader(of, offset, size)}
}

// Close is there for io.Closer: there is nothing to close.
func (r *Reader) Close() error { return nil }
