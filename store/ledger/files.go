package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"github.com/wasmgrid/wasmgrid/grid"
)

// openFiles opens a replica's folder: a database "log" with the log and the vote, and the folder "snapshots" with the
// newest two. Both check what they read.
func openFiles(dir string) (d Disk, err error) {
	fail := func(err error) (Disk, error) {
		code := grid.Internal
		hint := "look at the folder and its disk"
		switch {
		case errors.Is(err, syscall.EAGAIN), strings.Contains(err.Error(), "lock held by current process"):
			code, hint = grid.Busy, "stop the other node, or give this one a data folder of its own"
		case errors.Is(err, pebble.ErrCorruption):
			code, hint = grid.Corrupt, "check the disk; delete the folder, and the node gets a new copy from the others of its realm"
		case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
			code, hint = grid.NoSpace, "make room on the disk"
		case errors.Is(err, os.ErrPermission):
			code = grid.Denied
		}
		return Disk{}, grid.Errorf(code, "ledger: open the replica in %s: %w", dir, err).Hint("%s", hint)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fail(err)
	}
	log, err := openLog(filepath.Join(dir, "log"))
	if err != nil {
		return fail(err)
	}
	snapshots, err := raft.NewFileSnapshotStore(dir, 2, io.Discard)
	if err != nil {
		_ = log.Close()
		return fail(err)
	}
	return Disk{Log: log, Stable: log, Snapshots: snapshots, Close: log.Close, Wipe: func() error {
		if err := log.Close(); err != nil {
			return err
		}
		return os.RemoveAll(dir)
	}}, nil
}

// logFiles is raft's log and its few values in a database. Keys are 'l' and an entry's index in eight bytes,
// big-endian, or 'v' and a value's name.
type logFiles struct {
	db *pebble.DB

	mu          sync.Mutex
	first, last uint64 // of the log; 0: it is empty
}

// An entry is its term (8 bytes), the time it was made (8, Unix nanoseconds), its type (1), the length of its extensions (4),
// these, and its data.
const logHeader = 8 + 8 + 1 + 4

func openLog(dir string) (*logFiles, error) {
	cache := pebble.NewCache(1 << 20) // the log is read once
	defer cache.Unref()
	db, err := pebble.Open(dir, &pebble.Options{
		Cache: cache, MemTableSize: 8 << 20, MaxOpenFiles: 128, FormatMajorVersion: pebble.FormatNewest,
		FS:     vfs.Default, // without the watchdog goroutine that pebble adds otherwise
		Logger: silent{},
	})
	if err != nil {
		return nil, err
	}
	f := &logFiles{db: db}
	if err := f.bounds(); err != nil {
		_ = db.Close()
		return nil, err
	}
	return f, nil
}

type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}

// Fatalf must not return: pebble cannot go on.
func (silent) Fatalf(format string, args ...any) {
	panic("ledger: the log of the replica cannot be written: " + fmt.Sprintf(format, args...))
}

func logKey(index uint64) []byte { return binary.BigEndian.AppendUint64([]byte{'l'}, index) }

// bounds finds the first and the last entry.
func (f *logFiles) bounds() error {
	it, err := f.db.NewIter(&pebble.IterOptions{LowerBound: []byte{'l'}, UpperBound: []byte{'l' + 1}})
	if err != nil {
		return err
	}
	f.first, f.last = 0, 0
	if it.First() {
		f.first = binary.BigEndian.Uint64(it.Key()[1:])
	}
	if it.Last() {
		f.last = binary.BigEndian.Uint64(it.Key()[1:])
	}
	return it.Close()
}

// Close is told at Disk.
func (f *logFiles) Close() error { return f.db.Close() }

// IsMonotonic is told at raft.MonotonicLogStore: gaps are no trouble here.
func (f *logFiles) IsMonotonic() bool { return false }

// FirstIndex and what follows are told at raft.LogStore.
func (f *logFiles) FirstIndex() (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.first, nil
}

func (f *logFiles) LastIndex() (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last, nil
}

func (f *logFiles) GetLog(index uint64, out *raft.Log) error {
	data, closer, err := f.db.Get(logKey(index))
	if errors.Is(err, pebble.ErrNotFound) {
		return raft.ErrLogNotFound
	}
	if err != nil {
		return grid.Errorf(grid.Corrupt, "read entry %d of the log: %w", index, err)
	}
	defer closer.Close()
	if len(data) < logHeader || len(data)-logHeader < int(binary.BigEndian.Uint32(data[17:])) {
		return grid.Errorf(grid.Corrupt, "entry %d of the log has %d bytes", index, len(data))
	}
	n := logHeader + int(binary.BigEndian.Uint32(data[17:]))
	*out = raft.Log{
		Index: index, Term: binary.BigEndian.Uint64(data), Type: raft.LogType(data[16]),
		AppendedAt: time.Unix(0, int64(binary.BigEndian.Uint64(data[8:]))),
		Data:       append([]byte(nil), data[n:]...),
	}
	if n > logHeader {
		out.Extensions = append([]byte(nil), data[logHeader:n]...)
	}
	return nil
}

func (f *logFiles) StoreLog(log *raft.Log) error { return f.StoreLogs([]*raft.Log{log}) }

// StoreLogs writes entries durably, all or none of them.
func (f *logFiles) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	b := f.db.NewBatch()
	defer b.Close()
	for _, e := range logs {
		op := b.SetDeferred(9, logHeader+len(e.Extensions)+len(e.Data))
		op.Key[0] = 'l'
		binary.BigEndian.PutUint64(op.Key[1:], e.Index)
		v := op.Value
		binary.BigEndian.PutUint64(v, e.Term)
		binary.BigEndian.PutUint64(v[8:], uint64(e.AppendedAt.UnixNano()))
		v[16] = byte(e.Type)
		binary.BigEndian.PutUint32(v[17:], uint32(len(e.Extensions)))
		copy(v[logHeader+copy(v[logHeader:], e.Extensions):], e.Data)
		if err := op.Finish(); err != nil {
			return err
		}
	}
	if err := b.Commit(pebble.Sync); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.first == 0 {
		f.first = logs[0].Index
	}
	f.first, f.last = min(f.first, logs[0].Index), max(f.last, logs[len(logs)-1].Index)
	return nil
}

// DeleteRange deletes entries at one end of the log, up to hi included.
func (f *logFiles) DeleteRange(lo, hi uint64) error {
	if err := f.db.DeleteRange(logKey(lo), logKey(hi+1), pebble.Sync); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bounds()
}

var errNoValue = errors.New("not found") // as raft wants to read it

// Set and what follows are told at raft.StableStore.
func (f *logFiles) Set(key, value []byte) error {
	return f.db.Set(append([]byte{'v'}, key...), value, pebble.Sync)
}

func (f *logFiles) Get(key []byte) ([]byte, error) {
	data, closer, err := f.db.Get(append([]byte{'v'}, key...))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, errNoValue
	}
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return append([]byte(nil), data...), nil
}

func (f *logFiles) SetUint64(key []byte, value uint64) error {
	return f.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

func (f *logFiles) GetUint64(key []byte) (uint64, error) {
	data, err := f.Get(key)
	if err != nil {
		return 0, err
	}
	if len(data) != 8 {
		return 0, grid.Errorf(grid.Corrupt, "the value %q has %d bytes, want 8", key, len(data))
	}
	return binary.BigEndian.Uint64(data), nil
}
