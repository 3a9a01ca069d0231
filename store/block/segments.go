package block

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"

	"github.com/wasmgrid/wasmgrid/grid"
)

const (
	segmentSize  = 256 << 20 // a segment that has reached it gets no more records
	startEvery   = 4 << 20   // bytes that the disk is told to begin with, so that an fsync finds little to do
	syncEvery    = 64 << 20  // bytes that may wait for an fsync
	pendingMax   = 1 << 18   // index entries that may wait for one
	writeBuffer  = 256 << 10 // small records are gathered in it; values of more than a quarter go past it
	spaceEvery   = 8 << 20   // bytes written between looks at the free space
	spaceReserve = 32 << 20  // left free on the disk, so that the index can always be written
	moveReserve  = 8 << 20   // left free even by compaction, which is about to free space
	graveReserve = 2 << 20   // left free even by tombstones
)

// Config says where and how to keep segments.
type Config struct {
	Dir    string                     // made when missing; only one process may use it at a time
	Index  datastore.Batching         // not closed by Segments; its batches are atomic and keep their order
	Logger *slog.Logger               // nil: none
	open   func(string) (file, error) // for tests that break the disk
	size   int64                      // of a segment, for tests
	step   func(string) error         // told of each step of compaction, for tests that stop at one
}

// file is what a segment needs of an *os.File, and a hint.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(int64) error
	Sync() error
	// start has the disk begin to write a range, and does not wait for it. An error is of the kind that
	// Sync gives.
	start(offset, length int64) error
}

// diskFile is a file on disk.
type diskFile struct{ *os.File }

func openDisk(name string) (file, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	return diskFile{f}, err
}

// Segments is a datastore of blocks in segment files. Keys are multihashes as [New] encodes them, values
// have at most grid.MaxBlock bytes. It is safe for concurrent use: one write at a time, any number of
// reads beside it.
type Segments struct {
	dir   string
	index datastore.Batching
	log   *slog.Logger
	open  func(string) (file, error)
	limit int64
	step  func(string) error

	files sync.Map // segment number to file, opened when first used

	compacting sync.Mutex // held by Compact; taken before syncing
	syncing    sync.Mutex // held by whoever fsyncs or starts; taken before mu
	total      atomic.Int64
	tail       atomic.Uint64 // end as it was after the last write: segment and offset, 4 bytes each

	mu      sync.RWMutex
	closed  bool
	failed  error               // of an fsync: what was written before may be lost, and nobody can tell
	end     Position            // where the next record goes
	torn    bool                // bytes of a failed write may lie behind whole
	whole   Position            // of a failed write: where it began
	buf     []byte              // of the writer
	room    int64               // bytes that may be written before the free space is looked at again
	pending map[string]location // not yet fsynced
	flying  map[string]location // being fsynced and indexed
	flights uint64              // how many batches have left pending
	durable Position            // fsynced and indexed up to here
	started Position            // the disk was told to write up to here
	unsaved int64               // bytes written since durable
}

var (
	_ datastore.Batching            = (*Segments)(nil)
	_ datastore.PersistentDatastore = (*Segments)(nil)
)

// Open opens or creates the segments of a folder, and recovers what a crash has left.
func Open(ctx context.Context, cfg Config) (*Segments, error) {
	s := &Segments{
		dir: cfg.Dir, index: cfg.Index, log: cfg.Logger, open: cfg.open, limit: cfg.size, step: cfg.step,
		pending: map[string]location{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.open == nil {
		s.open = openDisk
	}
	if s.limit == 0 {
		s.limit = segmentSize
	}
	if s.step == nil {
		s.step = func(string) error { return nil }
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, grid.Errorf(grid.Internal, "store: open blocks: %w", err)
	}
	if err := s.recover(ctx); err != nil {
		s.closeFiles()
		return nil, grid.Errorf(codeOr(err, grid.Internal), "store: open blocks in %s: %w", s.dir, err)
	}
	s.setTail()
	return s, nil
}

func (s *Segments) path(segment uint32) string {
	return filepath.Join(s.dir, fmt.Sprintf("%08d.seg", segment))
}

// file returns the open file of a segment.
func (s *Segments) file(segment uint32) (file, error) {
	if f, ok := s.files.Load(segment); ok {
		return f.(file), nil
	}
	return s.openFile(segment)
}

func (s *Segments) openFile(segment uint32) (file, error) {
	f, err := s.open(s.path(segment))
	if err != nil {
		return nil, err
	}
	if other, loaded := s.files.LoadOrStore(segment, f); loaded {
		return other.(file), f.Close()
	}
	if _, err := os.Stat(s.path(segment)); err != nil { // removed meanwhile, maybe before it was stored above
		s.closeFile(segment)
		return nil, err
	}
	return f, nil
}

// closeFile closes the file of a segment if it is open.
func (s *Segments) closeFile(segment uint32) {
	if f, ok := s.files.LoadAndDelete(segment); ok {
		_ = f.(file).Close() // nothing of it is waiting to be written
	}
}

// unusable says why nothing can be written. The caller holds mu.
func (s *Segments) unusable() error {
	switch {
	case s.closed:
		return errClosed
	case s.failed != nil:
		return s.lost()
	}
	return nil
}

// lost tells of a failed fsync. The caller holds mu.
func (s *Segments) lost() error {
	return grid.Errorf(codeOr(s.failed, grid.Internal), "an earlier write to %s did not reach the disk: %w", s.dir, s.failed).
		Hint("check the disk, then restart the node")
}

var errClosed = grid.Errorf(grid.Unavailable, "the store is closed")

// op is a value to put or, when kind says so, a key to delete.
type op struct {
	kind  byte
	key   string
	value []byte
	when  condition
	at    location // for whenAt
	done  bool     // set by append: it was written
}

// condition says when an op is carried out.
type condition byte

const (
	whenNew condition = iota // a value that is not here, a tombstone of what is
	always
	whenAt // only if the value still lies at a location
)

// reserveFor is what ops must leave free on the disk: those that help to free space may use more of it.
func reserveFor(ops []op) int64 {
	reserve := int64(graveReserve)
	for _, o := range ops {
		switch {
		case o.kind == kindValue && o.when != whenAt:
			return spaceReserve
		case o.kind == kindValue:
			reserve = moveReserve
		}
	}
	return reserve
}

// Put stores a value. See write.
func (s *Segments) Put(ctx context.Context, k datastore.Key, value []byte) error {
	key, err := decodeKey(k)
	if err != nil {
		return err
	}
	return s.write(ctx, []op{{kind: kindValue, key: key, value: value}}, nil)
}

// Delete forgets a value; its bytes stay in the segment.
func (s *Segments) Delete(ctx context.Context, k datastore.Key) error {
	key, err := decodeKey(k)
	if err != nil {
		return err
	}
	return s.write(ctx, []op{{kind: kindTombstone, key: key}}, nil)
}

// write appends the records of ops, all of them or none. Values that are here already are left out, and
// so are tombstones of what is not here, unless ops say otherwise.
//
// look, when not nil, is shown each op and where its value lies now; it may change the op.
func (s *Segments) write(ctx context.Context, ops []op, look func(*op, location)) error {
	full, early, err := s.writeOnly(ctx, ops, look)
	switch {
	case err != nil:
		return err
	case full:
		return s.sync(ctx)
	case early:
		return s.start()
	}
	return nil
}

// writeOnly writes without waiting for the disk, and tells what is due: a sync, or a start.
func (s *Segments) writeOnly(ctx context.Context, ops []op, look func(*op, location)) (full, early bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, false, err
	}
	for _, o := range ops {
		if len(o.value) > grid.MaxBlock {
			return false, false, grid.Errorf(grid.Limit, "a value of %d bytes, at most %d are allowed", len(o.value), grid.MaxBlock)
		}
	}
	// The index is asked before the lock is taken: its answer stays right unless a batch of entries has
	// moved there in between.
	s.mu.RLock()
	flights := s.flights
	s.mu.RUnlock()
	var mem [8]location
	here := mem[:0]
	for i := range ops {
		l, err := s.locate(ctx, ops[i].key)
		if err != nil && !errors.Is(err, datastore.ErrNotFound) {
			return false, false, err
		}
		if look != nil {
			look(&ops[i], l)
		}
		here = append(here, l)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.append(ctx, ops, here, flights == s.flights)
	s.setTail()
	return s.unsaved >= syncEvery || len(s.pending) >= pendingMax, s.unstarted() >= startEvery, err
}

func (s *Segments) setTail() { s.tail.Store(uint64(s.end.Segment)<<32 | uint64(s.end.Offset)) }

// End is where the next record goes, or an earlier place if one is being written. It does not wait.
func (s *Segments) End() Position {
	t := s.tail.Load()
	return Position{uint32(t >> 32), int64(uint32(t))}
}

// unstarted counts the bytes of the last segment that the disk has not been told to write. The caller
// holds mu.
func (s *Segments) unstarted() int64 {
	if s.started.Segment != s.end.Segment {
		return s.end.Offset // what the segment before still had is left to fsync
	}
	return s.end.Offset - s.started.Offset
}

// start has the disk begin to write what was appended last, while others append. It never runs beside an
// fsync: which of the two hears of a failure would be anybody's guess.
func (s *Segments) start() error {
	if !s.syncing.TryLock() {
		return nil // somebody is at it; what has come since is for the next one
	}
	defer s.syncing.Unlock()
	s.mu.Lock()
	n, to := s.unstarted(), s.end
	err := s.unusable()
	s.started = to
	s.mu.Unlock()
	if err != nil || n <= 0 {
		return err
	}
	f, err := s.file(to.Segment)
	if err != nil {
		return err
	}
	if err := f.start(to.Offset-n, n); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.failed = fsyncError{err}
		return s.explain(s.lost())
	}
	return nil
}

// append writes records at the end. here says what the index knew, if that is fresh. The caller holds mu.
func (s *Segments) append(ctx context.Context, ops []op, here []location, fresh bool) (err error) {
	if err := s.unusable(); err != nil {
		return err
	}
	var (
		start   = s.end
		done    = 0
		undo    = make([]location, len(ops)) // what pending held before
		had     = make([]bool, len(ops))
		written int64
	)
	defer func() {
		if err == nil {
			s.unsaved += written
			s.total.Add(written)
			return
		}
		for i := done - 1; i >= 0; i-- {
			if had[i] {
				s.pending[ops[i].key] = undo[i]
			} else {
				delete(s.pending, ops[i].key)
			}
		}
		if !s.torn {
			s.torn, s.whole = true, start
		}
		// Segments begun meanwhile keep their place: only the end of the last one moves back.
		if s.end.Segment == start.Segment {
			s.end = start
		} else {
			s.end.Offset = int64(len(fileHeader))
		}
		err = s.explain(err)
	}()

	if err := s.makeRoom(reserveFor(ops)); err != nil {
		return err
	}
	var f file
	s.buf = s.buf[:0]
	flushed := s.end.Offset // what lies before it is in the file; after it comes buf
	flush := func() error {
		if len(s.buf) == 0 {
			return nil
		}
		_, err := f.WriteAt(s.buf, flushed)
		flushed += int64(len(s.buf))
		s.room -= int64(len(s.buf))
		s.buf = s.buf[:0]
		return err
	}
	for i, o := range ops {
		was, known := s.lookup(o.key)
		had[i] = false
		if p, ok := s.pending[o.key]; ok {
			undo[i], had[i] = p, true
		}
		if !known {
			was = here[i]
			if !fresh {
				if was, err = s.indexed(ctx, o.key); err != nil && !errors.Is(err, datastore.ErrNotFound) {
					return err
				}
			}
		}
		done = i + 1
		if o.when == whenAt && was != o.at || o.when == whenNew && was.deleted() == (o.kind == kindTombstone) {
			continue
		}
		ops[i].done = true
		size := int64(recordHeader + len(o.key) + len(o.value))
		if s.end.Segment == 0 || s.end.Offset+size > s.limit && s.end.Offset > int64(len(fileHeader)) {
			if f != nil {
				if err := flush(); err != nil {
					return err
				}
			}
			if err := s.roll(); err != nil {
				return err
			}
			f, flushed = nil, s.end.Offset
		}
		if f == nil {
			if f, err = s.file(s.end.Segment); err != nil {
				return err
			}
		}
		s.buf = appendHeader(s.buf, o.kind, o.key, o.value)
		if len(o.value) > writeBuffer/4 {
			if err := flush(); err != nil {
				return err
			}
			if _, err := f.WriteAt(o.value, flushed); err != nil {
				return err
			}
			flushed += int64(len(o.value))
			s.room -= int64(len(o.value))
		} else if s.buf = append(s.buf, o.value...); len(s.buf) >= writeBuffer {
			if err := flush(); err != nil {
				return err
			}
		}
		loc := location{} // deleted
		if o.kind == kindValue {
			loc = location{s.end.Segment, uint32(s.end.Offset) + uint32(recordHeader+len(o.key)), uint32(len(o.value))}
		}
		s.pending[o.key] = loc
		s.end.Offset += size
		written += size
	}
	return flush()
}

// cut cuts off, durably, what a failed write has left: it has failed, and must not be found to have been done after a restart. The caller holds mu.
func (s *Segments) cut() error {
	for n := max(s.whole.Segment, 1); s.torn && n <= s.end.Segment; n++ {
		f, err := s.file(n)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		size := int64(len(fileHeader))
		if n == s.whole.Segment {
			size = s.whole.Offset
		}
		if err := f.Truncate(size); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return fsyncError{err}
		}
	}
	s.torn = false
	return nil
}

// makeRoom cuts off what a failed write has left, and sees to it that the disk does not become quite full.
func (s *Segments) makeRoom(reserve int64) error {
	if err := s.cut(); err != nil {
		return err
	}
	if s.room <= 0 {
		free, err := freeSpace(s.dir)
		if err != nil {
			return err
		}
		switch {
		case free >= spaceReserve:
			s.room = spaceEvery
		case free < reserve:
			return syscall.ENOSPC
		}
	}
	return nil
}

// roll begins the next segment.
func (s *Segments) roll() error {
	next := s.end.Segment + 1
	if err := create(s.path(next)); err != nil {
		return err
	}
	f, err := s.openFile(next)
	if err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	if _, err := f.WriteAt([]byte(fileHeader), 0); err != nil {
		return err
	}
	if err := syncDir(s.dir); err != nil {
		return err
	}
	s.end = Position{next, int64(len(fileHeader))}
	s.total.Add(s.end.Offset)
	return nil
}

func create(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func (s *Segments) explain(err error) error {
	if grid.CodeOf(err) != grid.NoSpace && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)) {
		return grid.Errorf(grid.NoSpace, "no space left for %s: %w", s.dir, err).
			Hint("free some space on that disk, or move the data folder to a larger one")
	}
	return err
}

// lookup finds what has not reached the index yet. The caller holds mu.
func (s *Segments) lookup(key string) (location, bool) {
	if l, ok := s.pending[key]; ok {
		return l, true
	}
	l, ok := s.flying[key]
	return l, ok
}

// locate finds a value; the error is datastore.ErrNotFound when it is not here.
func (s *Segments) locate(ctx context.Context, key string) (location, error) {
	if err := ctx.Err(); err != nil {
		return location{}, err
	}
	s.mu.RLock()
	l, ok := s.lookup(key)
	closed := s.closed
	s.mu.RUnlock()
	switch {
	case closed:
		return location{}, errClosed
	case ok && l.deleted():
		return location{}, datastore.ErrNotFound
	case ok:
		return l, nil
	}
	return s.indexed(ctx, key)
}

// indexed finds a value in the index.
func (s *Segments) indexed(ctx context.Context, key string) (location, error) {
	b, err := s.index.Get(ctx, indexKey(key))
	if err != nil {
		return location{}, err
	}
	return decodeLocation(b)
}

// Get reads a value. It is as the disk gives it: [New]'s blocks check it against its hash.
func (s *Segments) Get(ctx context.Context, k datastore.Key) ([]byte, error) {
	key, err := decodeKey(k)
	if err != nil {
		return nil, err
	}
	return s.get(ctx, key)
}

func (s *Segments) get(ctx context.Context, key string) ([]byte, error) {
	l, err := s.locate(ctx, key)
	if err != nil {
		return nil, err
	}
	for {
		data, err := s.read(l)
		if err == nil {
			return data, nil
		}
		// It may have been moved, and its segment removed, since it was located.
		again, lerr := s.locate(ctx, key)
		if lerr != nil {
			return nil, lerr
		}
		if again == l {
			return nil, err
		}
		l = again
	}
}

// read reads the value at a location.
func (s *Segments) read(l location) ([]byte, error) {
	f, err := s.file(l.segment)
	if err != nil {
		return nil, grid.Errorf(grid.Corrupt, "segment %d cannot be opened: %w", l.segment, err)
	}
	data := make([]byte, l.length)
	if n, err := f.ReadAt(data, int64(l.offset)); n < len(data) {
		if errors.Is(err, io.EOF) {
			return nil, grid.Errorf(grid.Corrupt, "segment %d ends before the value at %d", l.segment, l.offset)
		}
		return nil, err
	}
	return data, nil
}

// Has reports whether a value is here.
func (s *Segments) Has(ctx context.Context, k datastore.Key) (bool, error) {
	_, err := s.GetSize(ctx, k)
	if errors.Is(err, datastore.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// GetSize tells the length of a value.
func (s *Segments) GetSize(ctx context.Context, k datastore.Key) (int, error) {
	key, err := decodeKey(k)
	if err != nil {
		return -1, err
	}
	l, err := s.locate(ctx, key)
	if err != nil {
		return -1, err
	}
	return int(l.length), nil
}

// Batch gathers writes; Commit appends them in one go, all of them or none. It keeps the values it is
// given until then.
func (s *Segments) Batch(context.Context) (datastore.Batch, error) { return &batch{s: s}, nil }

type batch struct {
	s   *Segments
	ops []op
}

func (b *batch) Put(_ context.Context, k datastore.Key, value []byte) error {
	key, err := decodeKey(k)
	b.ops = append(b.ops, op{kind: kindValue, key: key, value: value})
	return err
}

func (b *batch) Delete(_ context.Context, k datastore.Key) error {
	key, err := decodeKey(k)
	b.ops = append(b.ops, op{kind: kindTombstone, key: key})
	return err
}

func (b *batch) Commit(ctx context.Context) error {
	ops := b.ops
	b.ops = nil
	if len(ops) == 0 {
		return nil
	}
	return b.s.write(ctx, ops, nil)
}

// Sync makes all writes that have returned durable, whatever the prefix.
func (s *Segments) Sync(ctx context.Context, _ datastore.Key) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.sync(ctx)
}

func (s *Segments) sync(ctx context.Context) error {
	s.mu.RLock()
	goal, torn, err := s.end, s.torn, s.unusable()
	s.mu.RUnlock()
	if err == nil && torn { // hardly ever, and readers need not wait otherwise
		s.mu.Lock()
		err = s.cut()
		s.mu.Unlock()
	}
	if err != nil {
		return s.explain(err)
	}
	s.syncing.Lock()
	defer s.syncing.Unlock()
	return s.explain(s.flush(ctx, goal))
}

// flush fsyncs and indexes everything written, unless that has been done up to goal. The caller holds
// syncing.
func (s *Segments) flush(ctx context.Context, goal Position) error {
	s.mu.Lock()
	switch {
	case !s.durable.Before(goal):
		s.mu.Unlock()
		return nil
	case s.failed != nil: // while the caller waited for syncing
		defer s.mu.Unlock()
		return s.lost()
	}
	from, to, unsaved := s.durable, s.end, s.unsaved
	s.flying, s.pending, s.unsaved = s.pending, make(map[string]location, len(s.pending)), 0
	s.flights++
	s.mu.Unlock()

	err := s.settle(context.WithoutCancel(ctx), from, to)

	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil { // they wait again, below what was written since
		if errors.As(err, new(fsyncError)) {
			s.failed = err
		}
		for k, l := range s.pending {
			s.flying[k] = l
		}
		s.pending, s.unsaved = s.flying, s.unsaved+unsaved
	} else {
		s.durable = to
	}
	s.flying = nil
	s.flights++
	return err
}

// settle makes the segments between two positions durable and indexes s.flying, which nobody changes
// meanwhile.
func (s *Segments) settle(ctx context.Context, from, to Position) error {
	for n := max(from.Segment, 1); n <= to.Segment; n++ {
		f, err := s.file(n)
		if errors.Is(err, fs.ErrNotExist) {
			continue // recovery has told of it; its blocks are lost
		}
		if err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return fsyncError{err}
		}
	}
	b, err := s.index.Batch(ctx)
	if err != nil {
		return err
	}
	for key, l := range s.flying {
		if l.deleted() {
			err = b.Delete(ctx, indexKey(key))
		} else {
			err = b.Put(ctx, indexKey(key), l.encode())
		}
		if err != nil {
			return err
		}
	}
	if err := b.Put(ctx, endKey, to.encode()); err != nil {
		return err
	}
	if err := b.Commit(ctx); err != nil {
		return err
	}
	if from.Segment != to.Segment { // bounds what recovery has to read
		return s.index.Sync(ctx, datastore.NewKey("/"))
	}
	return nil
}

// fsyncError marks the one error after which trying again would lie: the kernel may have dropped the
// bytes and forgotten about it.
type fsyncError struct{ error }

func (e fsyncError) Unwrap() error { return e.error }

// Query lists values, whose Sizes are always set.
func (s *Segments) Query(ctx context.Context, q query.Query) (query.Results, error) {
	if err := s.sync(ctx); err != nil {
		return nil, err
	}
	entries, err := s.index.Query(ctx, query.Query{Prefix: indexRoot})
	if err != nil {
		return nil, err
	}
	next := func() (query.Result, bool) {
		for {
			r, ok := entries.NextSync()
			if !ok || r.Error != nil {
				return r, ok
			}
			l, err := decodeLocation(r.Value)
			if err != nil {
				return query.Result{Error: err}, true
			}
			e := query.Entry{Key: r.Key[len(indexRoot):], Size: int(l.length)}
			if !q.KeysOnly {
				e.Value, err = s.Get(ctx, datastore.RawKey(e.Key))
				if errors.Is(err, datastore.ErrNotFound) { // deleted meanwhile
					continue
				}
			}
			return query.Result{Entry: e, Error: err}, true
		}
	}
	all := query.ResultsFromIterator(q, query.Iterator{Next: next, Close: entries.Close})
	return query.NaiveQueryApply(q, all), nil
}

// DiskUsage is how many bytes the segments have.
func (s *Segments) DiskUsage(context.Context) (uint64, error) {
	return uint64(s.total.Load()), nil
}

// Close makes everything durable and closes the files. No other call may be under way.
func (s *Segments) Close() error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.Lock()
	closed, goal := s.closed, s.end
	var torn error
	if !closed && s.failed == nil {
		torn = s.cut()
	}
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	err := s.flush(context.Background(), goal)
	return errors.Join(s.explain(errors.Join(torn, err)), s.closeFiles())
}

func (s *Segments) closeFiles() (err error) {
	s.files.Range(func(_, f any) bool {
		err = errors.Join(err, f.(file).Close())
		return true
	})
	return err
}

// segment is a file of the folder.
type segment struct {
	number uint32
	size   int64
}

// segments lists the files there are, in order.
func (s *Segments) segments() ([]segment, error) {
	names, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var all []segment
	for _, e := range names {
		var n uint32
		if _, err := fmt.Sscanf(e.Name(), "%d.seg", &n); err != nil || filepath.Base(s.path(n)) != e.Name() || n == 0 {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) { // compacted away just now
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, segment{n, info.Size()})
	}
	slices.SortFunc(all, func(a, b segment) int { return cmp.Compare(a.number, b.number) })
	return all, nil
}
