package block

import (
	"cmp"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	mh "github.com/multiformats/go-multihash"

	"github.com/wasmgrid/wasmgrid/grid"
)

const (
	moveBytes  = 4 << 20 // compaction appends so many bytes, or
	moveBlocks = 256     // so many values at a time, and others write in between
	groupMax   = 1 << 18 // index entries held in memory by compaction and scrubbing, unless one segment has more
)

// Entry is a value as the index knows it.
type Entry struct {
	Key    string // the multihash
	At     Position
	Length int
}

// Size is what the value's record takes in its segment.
func (e Entry) Size() int64 { return int64(recordHeader + len(e.Key) + e.Length) }

func (e Entry) location() location {
	return location{e.At.Segment, uint32(e.At.Offset), uint32(e.Length)}
}

// Scan shows every value of the index to f, in no order, as they were at one moment after the call began.
// Others read and write meanwhile. An error of f ends it.
func (s *Segments) Scan(ctx context.Context, f func(Entry) error) error {
	if err := s.sync(ctx); err != nil {
		return err
	}
	entries, err := s.index.Query(ctx, query.Query{Prefix: indexRoot})
	if err != nil {
		return err
	}
	defer entries.Close()
	for {
		r, ok := entries.NextSync()
		if err := ctx.Err(); err != nil { // a query that was cut short looks like one at its end
			return err
		}
		if !ok || r.Error != nil {
			return r.Error
		}
		l, err := decodeLocation(r.Value)
		if err != nil {
			return err
		}
		key, err := decodeKey(datastore.RawKey(r.Key[len(indexRoot):]))
		if err != nil {
			return grid.Errorf(grid.Corrupt, "index: %w", err)
		}
		if err := f(Entry{key, Position{l.segment, int64(l.offset)}, int(l.length)}); err != nil {
			return err
		}
	}
}

// DeleteAt forgets values that still lie where the entries say; others it leaves alone. It does not wait
// for the disk, and returns those that it deleted.
func (s *Segments) DeleteAt(ctx context.Context, entries []Entry) (deleted []Entry, err error) {
	ops := make([]op, len(entries))
	for i, e := range entries {
		ops[i] = op{kind: kindTombstone, key: e.Key, when: whenAt, at: e.location()}
	}
	if _, _, err := s.writeOnly(ctx, ops, nil); err != nil {
		return nil, err
	}
	for i, e := range entries {
		if ops[i].done {
			deleted = append(deleted, e)
		}
	}
	return deleted, nil
}

// Usage is what one segment holds.
type Usage struct {
	Segment uint32
	Size    int64 // of the file
	Live    int64 // of that, records of values that are here
	Blocks  int   // how many these are
}

// Usage tells what each segment holds, in order. f, when not nil, is shown every value, as in Scan.
func (s *Segments) Usage(ctx context.Context, f func(Entry) error) ([]Usage, error) {
	found := map[uint32]Usage{}
	err := s.Scan(ctx, func(e Entry) error {
		u := found[e.At.Segment]
		u.Live += e.Size()
		u.Blocks++
		found[e.At.Segment] = u
		if f != nil {
			return f(e)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	files, err := s.segments()
	if err != nil {
		return nil, err
	}
	out := make([]Usage, len(files))
	for i, file := range files {
		out[i] = found[file.number]
		out[i].Segment, out[i].Size = file.number, file.size
	}
	return out, nil
}

// entries collects the values of some segments, by segment and in order of their offsets.
func (s *Segments) entries(ctx context.Context, of func(segment uint32) bool) (map[uint32][]Entry, error) {
	found := map[uint32][]Entry{}
	err := s.Scan(ctx, func(e Entry) error {
		if of(e.At.Segment) {
			found[e.At.Segment] = append(found[e.At.Segment], e)
		}
		return nil
	})
	for _, es := range found {
		slices.SortFunc(es, func(a, b Entry) int { return cmp.Compare(a.At.Offset, b.At.Offset) })
	}
	return found, err
}

// groups divides segments, in order, into runs of at most groupMax values.
func groups(usage []Usage) (out [][]Usage) {
	blocks := 0
	for _, u := range usage {
		if blocks += u.Blocks; len(out) == 0 || blocks > groupMax {
			out, blocks = append(out, nil), u.Blocks
		}
		out[len(out)-1] = append(out[len(out)-1], u)
	}
	return out
}

// Compact frees the space of deleted values in some segments: it moves what they still hold to the end,
// and removes their files. A value that is damaged beyond use is dropped, and lost is told of its key. One
// call is carried out at a time; others read and write meanwhile. freed is the bytes by which the files
// have become smaller altogether; it may be negative after an error.
func (s *Segments) Compact(ctx context.Context, segments []uint32, lost func(key string)) (freed int64, err error) {
	s.compacting.Lock()
	defer s.compacting.Unlock()
	before := s.total.Load()
	defer func() { freed = before - s.total.Load() }()
	var failed []error
	chosen := map[uint32]bool{}
	for _, n := range segments {
		chosen[n] = true
	}
	end, err := s.turn(chosen)
	if err != nil {
		return 0, s.explain(err)
	}
	usage, err := s.Usage(ctx, nil)
	if err != nil {
		return 0, err
	}
	// A write that failed may have left an empty file behind the end, which the next one will fill.
	usage = slices.DeleteFunc(usage, func(u Usage) bool { return !chosen[u.Segment] || u.Segment >= end })
	// Those with the least to move come first: on a disk that is nearly full they make room for the others.
	slices.SortStableFunc(usage, func(a, b Usage) int { return cmp.Compare(a.Live, b.Live) })
	for _, group := range groups(usage) {
		in := map[uint32]bool{}
		for _, u := range group {
			in[u.Segment] = true
		}
		entries, err := s.entries(ctx, func(n uint32) bool { return in[n] })
		if err != nil {
			return 0, err
		}
		for _, u := range group {
			// Values that are moved only in part take more room than before.
			free, err := s.Free()
			if err == nil && u.Live > 0 && free < u.Live+moveReserve {
				err = syscall.ENOSPC
			}
			if err != nil {
				return 0, s.explain(err)
			}
			switch err := s.empty(ctx, u.Segment, entries[u.Segment], lost); {
			case errors.Is(err, syscall.EIO) && s.usable() == nil: // a place that cannot be read keeps no other segment from being compacted
				s.log.Error("a segment cannot be compacted", "file", s.path(u.Segment), "err", err)
				failed = append(failed, s.explain(err))
			case err != nil:
				return 0, s.explain(err)
			}
		}
	}
	return 0, errors.Join(failed...)
}

// usable is unusable's, for who does not hold mu.
func (s *Segments) usable() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.unusable()
}

// turn sees to it that the segment that is being written is not one to compact, unless it is empty, and
// returns its number.
func (s *Segments) turn(chosen map[uint32]bool) (end uint32, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.unusable(); err != nil || !chosen[s.end.Segment] || s.end.Offset == int64(len(fileHeader)) {
		return s.end.Segment, err
	}
	if err := s.makeRoom(moveReserve); err != nil {
		return 0, err
	}
	err = s.roll()
	s.setTail()
	return s.end.Segment, err
}

// empty moves the values of a segment to the end and removes it. All of them are in entries.
func (s *Segments) empty(ctx context.Context, n uint32, entries []Entry, lost func(string)) error {
	if err := s.step("move"); err != nil {
		return err
	}
	for len(entries) > 0 {
		var ops []op
		size := 0
		for len(entries) > 0 && len(ops) < moveBlocks && size < moveBytes {
			e := entries[0]
			value, whole, err := s.record(e)
			if err != nil {
				return err
			}
			o := op{kind: kindValue, key: e.Key, value: value, when: whenAt, at: e.location()}
			if !whole {
				o.kind, o.value = kindTombstone, nil
			}
			ops, entries, size = append(ops, o), entries[1:], size+len(value)
		}
		if err := s.write(ctx, ops, nil); err != nil {
			return err
		}
		for _, o := range ops {
			if o.kind == kindTombstone && o.done {
				s.log.Error("a damaged block is lost", "key", encodeKey([]byte(o.key)), "file", s.path(n))
				if lost != nil {
					lost(o.key)
				}
			}
		}
		if err := s.step("moved"); err != nil {
			return err
		}
	}
	if err := s.sync(ctx); err != nil {
		return err
	}
	if err := s.step("indexed"); err != nil {
		return err
	}
	if err := s.index.Sync(ctx, datastore.NewKey("/")); err != nil {
		return err
	}
	if err := s.step("index synced"); err != nil {
		return err
	}
	if err := s.remove(n); err != nil {
		return err
	}
	return s.step("removed")
}

// record reads the value of an entry. whole is false when it is not what was written.
func (s *Segments) record(e Entry) (value []byte, whole bool, err error) {
	f, err := s.file(e.At.Segment)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	buf := make([]byte, e.Size())
	start := e.At.Offset - int64(recordHeader+len(e.Key))
	if start < 0 {
		return nil, false, nil
	}
	if n, err := f.ReadAt(buf, start); n < len(buf) {
		if errors.Is(err, io.EOF) {
			return nil, false, nil
		}
		return nil, false, err
	}
	value = buf[recordHeader+len(e.Key):]
	h, ok := parseHeader(buf)
	ok = ok && h.kind == kindValue && h.size() == e.Size() && string(buf[recordHeader:recordHeader+h.key]) == e.Key &&
		h.sum == crc32.Checksum(buf[4:], castagnoli)
	return value, ok || matches(e.Key, value), nil
}

// matches reports whether a value is what its key, a multihash, says.
func matches(key string, value []byte) bool {
	if _, err := mh.Decode([]byte(key)); err != nil {
		return false
	}
	c := cid.NewCidV1(cid.Raw, mh.Multihash(key))
	sum, err := c.Prefix().Sum(value)
	return err == nil && sum.Equals(c)
}

// remove removes the file of a segment of which the index names nothing, now and after a crash.
func (s *Segments) remove(n uint32) error {
	info, err := os.Stat(s.path(n))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Remove(s.path(n)); err != nil {
		return err
	}
	s.closeFile(n)
	s.total.Add(-info.Size())
	return nil
}

// Free is how many bytes there are left on the disk.
func (s *Segments) Free() (int64, error) { return freeSpace(s.dir) }

// Scrub says how to go through all values.
type Scrub struct {
	From Position // go on from here
	Rate int64    // bytes to read in a second; 0: no bound
	// Damaged is told of values that do not match their key, or cannot be read.
	Damaged func(Entry)
	// Passed, when not nil, is told now and then up to where all has been read. An error of it ends the scrub.
	Passed func(Position) error
}

// Scrubbed is what a scrub came to.
type Scrubbed struct {
	Blocks, Damaged int
	Bytes           int64
}

// Scrub reads the values that there are when it begins, in the order in which they lie, and checks each
// against its key. It changes nothing.
func (s *Segments) Scrub(ctx context.Context, c Scrub) (Scrubbed, error) {
	var done Scrubbed
	usage, err := s.Usage(ctx, nil)
	if err != nil {
		return done, err
	}
	usage = slices.DeleteFunc(usage, func(u Usage) bool { return u.Segment < c.From.Segment })
	began := time.Now()
	all := groups(usage)
	for i, group := range all {
		first, last := group[0].Segment, group[len(group)-1].Segment
		entries, err := s.entries(ctx, func(n uint32) bool {
			return n >= first && (n <= last || i == len(all)-1) // what was moved meanwhile lies behind the last one
		})
		if err != nil {
			return done, err
		}
		for _, n := range slices.Sorted(maps.Keys(entries)) {
			for _, e := range entries[n] {
				if e.At.Before(c.From) {
					continue
				}
				data, err := s.get(ctx, e.Key)
				switch {
				case errors.Is(err, datastore.ErrNotFound):
					continue // deleted meanwhile
				case ctx.Err() != nil:
					return done, ctx.Err()
				case grid.CodeOf(err) == grid.Unavailable: // the store is closed
					return done, err
				case err != nil || !matches(e.Key, data):
					done.Damaged++
					c.Damaged(e)
				}
				done.Blocks++
				done.Bytes += int64(e.Length)
				if c.Passed != nil {
					if err := c.Passed(Position{e.At.Segment, e.At.Offset + 1}); err != nil {
						return done, err
					}
				}
				if err := pace(ctx, began, done.Bytes, c.Rate); err != nil {
					return done, err
				}
			}
		}
	}
	return done, nil
}

// pace waits until so many bytes since began are no more than the rate allows.
func pace(ctx context.Context, began time.Time, bytes, rate int64) error {
	if rate <= 0 {
		return ctx.Err()
	}
	wait := time.Until(began.Add(time.Duration(float64(bytes) / float64(rate) * float64(time.Second))))
	if wait < time.Millisecond {
		return ctx.Err()
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
