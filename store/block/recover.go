package block

import (
	"bufio"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"slices"

	"github.com/ipfs/go-datastore"

	"github.com/wasmgrid/wasmgrid/grid"
)

// recover finds the end of the segments, indexing on the way what the index has not heard of.
func (s *Segments) recover(ctx context.Context) error {
	b, err := s.index.Get(ctx, endKey)
	if err != nil && !errors.Is(err, datastore.ErrNotFound) {
		return err
	}
	s.durable, _ = decodePosition(b) // the zero position when there is none: everything is read
	files, err := s.segments()
	if err != nil {
		return err
	}
	numbers := make([]uint32, len(files))
	for i, f := range files {
		numbers[i] = f.number
		s.total.Add(f.size)
	}
	s.end = s.durable
	for i, n := range numbers {
		if n < s.durable.Segment {
			continue
		}
		from := int64(len(fileHeader))
		if n == s.durable.Segment {
			from = s.durable.Offset
		}
		if err := s.replay(ctx, n, from, i == len(numbers)-1); err != nil {
			return err
		}
	}
	if s.end == s.durable && s.end.Segment > 0 && !slices.Contains(numbers, s.end.Segment) {
		// The segment that the index ends in is gone. Go on behind it, so that no stale entry ever
		// names new bytes.
		s.log.Error("a segment of blocks is missing", "file", s.path(s.end.Segment))
		if err := s.roll(); err != nil {
			return err
		}
	}
	if s.durable.Before(s.end) {
		return s.flush(ctx, s.end)
	}
	return nil
}

// replay reads the records of a segment from an offset on and leaves the end behind the last whole one.
func (s *Segments) replay(ctx context.Context, n uint32, from int64, last bool) error {
	f, err := s.file(n)
	if err != nil {
		return err
	}
	info, err := os.Stat(s.path(n))
	if err != nil {
		return err
	}
	size := info.Size()
	if err := checkHeader(f, s.path(n), size); err != nil {
		return err
	}
	s.end = Position{n, from}
	switch {
	case size == from:
		return nil
	case size < from && from > int64(len(fileHeader)):
		s.log.Error("a segment of blocks has lost its end", "file", s.path(n), "bytes", size, "want", from)
		if last {
			return s.roll()
		}
		return nil
	case size < from: // not even a header: a crash just after it was made
		if !last {
			return nil
		}
		s.end.Segment--
		return s.roll()
	}

	r := bufio.NewReaderSize(io.NewSectionReader(f, from, size-from), 1<<20)
	scan := scanner{r: r, left: size - from}
	good := from // the end of the last whole record
	for {
		rec, ok, err := scan.next()
		if err != nil {
			return err
		}
		if rec.size == 0 {
			break // nothing that looks like a record
		}
		offset := from
		from += rec.size
		if !ok {
			continue // whether it is skipped or cut off depends on what follows
		}
		if good != offset {
			s.log.Error("damaged blocks are skipped", "file", s.path(n), "from", good, "to", offset)
		}
		good = from
		if rec.kind == kindTombstone {
			s.pending[rec.name] = location{}
		} else {
			s.pending[rec.name] = location{n, uint32(from) - uint32(rec.length), uint32(rec.length)}
		}
		if s.end = (Position{n, good}); len(s.pending) >= pendingMax {
			if err := s.flush(ctx, s.end); err != nil {
				return err
			}
		}
	}
	s.end = Position{n, good}
	if good == size {
		return nil
	}
	s.log.Warn("the end of a segment of blocks was never finished and is cut off",
		"file", s.path(n), "from", good, "bytes", size-good)
	if !last {
		return nil // nothing is appended to it any more
	}
	s.total.Add(good - size)
	return f.Truncate(good)
}

// checkHeader refuses a segment that a newer version has written. Any other damage is not its business.
func checkHeader(f io.ReaderAt, path string, size int64) error {
	var head [len(fileHeader)]byte
	if size < int64(len(head)) {
		return nil
	}
	if _, err := f.ReadAt(head[:], 0); err != nil {
		return err
	}
	const version = len(head) - 1
	if string(head[:version]) == fileHeader[:version] && head[version] > fileHeader[version] {
		return grid.Errorf(grid.Unsupported, "%s was written by a newer version of grid, in format %d; this one reads up to %d", path, head[version], fileHeader[version]).
			Hint("install the version that wrote it, or a newer one; or restore a backup into another home")
	}
	return nil
}

// scanner reads records in sequence.
type scanner struct {
	r    *bufio.Reader
	left int64
	buf  []byte
}

type record struct {
	header
	name string
	size int64 // 0: there is no record here
}

// next reads one record; ok is false when its checksum is wrong.
func (s *scanner) next() (rec record, ok bool, err error) {
	var head [recordHeader]byte
	if s.left < recordHeader {
		return record{}, false, nil
	}
	if _, err := io.ReadFull(s.r, head[:]); err != nil {
		return record{}, false, err
	}
	h, ok := parseHeader(head[:])
	if !ok || h.size() > s.left {
		return record{}, false, nil
	}
	n := h.key + h.length
	if cap(s.buf) < n {
		s.buf = make([]byte, n)
	}
	if _, err := io.ReadFull(s.r, s.buf[:n]); err != nil {
		return record{}, false, err
	}
	s.left -= h.size()
	sum := crc32.Update(crc32.Checksum(head[4:], castagnoli), castagnoli, s.buf[:n])
	return record{h, string(s.buf[:h.key]), h.size()}, sum == h.sum, nil
}
