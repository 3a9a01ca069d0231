// Package wal keeps what Raft needs on disk: a log of entries and a few stable values, in one folder.
//
// Segments are named by a number that grows by one (0000000000000001.wal) and are only ever appended to. All numbers are little endian.
//
//	segment: magic "gridwal\n" | version u32 | number u64 | first live index u64 | sha256 of the log's ID | CRC-32C of all before
//	frame:   magic "frm1" | kind u32 | sequence u64 | commit index u64 | body length u32 | CRC of body u32 | CRC of all before
//	kind 1:  a batch of entries, each CRC of all behind it u32 | length of data u32 | length of extensions u32 | type u32 |
//	         index u64 | term u64 | appended at, Unix nanoseconds u64 | data | extensions
//	kind 2:  the entries up to an index are deleted: u64
//	kind 3:  the entries from an index on are deleted: u64
//
// One StoreLogs is one frame, one write and one fdatasync. A deletion is a frame too, so an old suffix can never come back behind
// newer entries. A bad frame is the torn end of an unacknowledged write if no frame with a sound header follows it; else it is damage.
//
// Stable values are in the file "stable", replaced whole: magic "gridstb\n" | CRC of the rest | sha256 of the ID | JSON object.
package wal

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/wasmgrid/wasmgrid/grid"
)

const (
	segmentMagic, frameMagic, stableMagic = "gridwal\n", "frm1", "gridstb\n"
	version                               = 1
	segmentHeader, frameHeader, entryHead = 64, 36, 40
	maxBody                               = 256 << 20
	tailBytes                             = 4 << 20
	kindEntries, kindPrefix, kindSuffix   = 1, 2, 3
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	le         = binary.LittleEndian

	segmentSize int64 = 16 << 20 // a segment longer than this is followed by a new one; tests make it small
)

func crc(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

type segment struct {
	number uint64
	last   uint64 // the highest index ever written here, or 0
	size   int64
	file   *os.File
}

type place struct {
	seg    *segment
	offset int64
	length int
}

// Log is a raft.LogStore, raft.StableStore and raft.CommitTrackingLogStore in a folder. Safe for concurrent use.
type Log struct {
	dir string
	id  [32]byte

	mu       sync.RWMutex
	segments []*segment
	first    uint64 // the index of places[0]; without entries the lowest that may come
	places   []place
	tail     []raft.Log // the newest entries
	tailSize int
	seq      uint64
	staged   uint64
	commit   uint64
	stable   map[string][]byte
	failed   error // why nothing is written any more
}

// Open opens the log in dir, or makes one. The id is that of the realm and node it belongs to: another one's log is refused.
func Open(dir, id string) (*Log, error) {
	l := &Log{dir: dir, id: sha256.Sum256([]byte(id)), first: 1, stable: map[string][]byte{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := l.load(); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (l *Log) load() error {
	if err := l.readStable(); err != nil {
		return err
	}
	names, err := filepath.Glob(filepath.Join(l.dir, "*.wal"))
	if err != nil {
		return err
	}
	for i, name := range names {
		if err := l.loadSegment(name, i == len(names)-1); err != nil {
			return err
		}
	}
	if len(l.places) > 0 && len(l.segments) > 0 && l.commit > l.lastIndex() {
		l.commit = l.lastIndex()
	}
	if len(l.segments) == 0 {
		return l.rotate(1)
	}
	return nil
}

func damaged(name string, offset int64, index uint64, what string) error {
	return grid.Errorf(grid.Corrupt, "ledger log %s is damaged at offset %d, near entry %d: %s", name, offset, index, what).
		Hint("move the ledger's folder of this node away and let the node join its realm again, or restore it from a copy")
}

func (l *Log) loadSegment(name string, newest bool) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if newest && (len(b) < segmentHeader || len(b) == segmentHeader && len(bytes.Trim(b, "\x00")) == 0) {
		return os.Remove(name) // its making was not finished, so nothing in it was acknowledged
	}
	if len(b) < segmentHeader || string(b[:8]) != segmentMagic {
		return damaged(name, 0, l.lastIndex()+1, "it does not start like a segment")
	}
	if v := le.Uint32(b[8:]); v > version && crc(b[:60]) == le.Uint32(b[60:]) {
		return grid.Errorf(grid.Unsupported, "ledger log %s was written by a newer version of grid, in format %d; this one reads up to %d", name, v, version).
			Hint("install the version that wrote it, or a newer one; or let the node join its realm with a new home")
	}
	number, first := le.Uint64(b[12:]), le.Uint64(b[20:])
	if crc(b[:60]) != le.Uint32(b[60:]) || fmt.Sprintf("%016x.wal", number) != filepath.Base(name) {
		return damaged(name, 0, l.lastIndex()+1, "its header does not match its checksum or name")
	}
	if !bytes.Equal(b[28:60], l.id[:]) {
		return otherID(name)
	}
	if n := len(l.segments); n > 0 && l.segments[n-1].number+1 != number {
		return damaged(name, 0, l.lastIndex()+1, fmt.Sprintf("segment %016x.wal before it is missing", number-1))
	} else if n == 0 {
		l.first = first
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	s := &segment{number: number, file: f}
	l.segments = append(l.segments, s)
	at := segmentHeader
	for at < len(b) {
		n, err := l.replay(s, b, at)
		if err != nil {
			if !newest || l.laterFrame(b[at+1:]) {
				return damaged(name, int64(at), l.lastIndex()+1, err.Error())
			}
			if err := f.Truncate(int64(at)); err != nil {
				return err
			}
			if err := f.Sync(); err != nil {
				return err
			}
			break
		}
		at += n
	}
	s.size = int64(at)
	return nil
}

func otherID(name string) error {
	return grid.Errorf(grid.Corrupt, "ledger log %s belongs to another realm or node", name).Hint("start the node with the folder it had before")
}

// laterFrame tells whether b holds the header of a frame newer than the one that was expected.
func (l *Log) laterFrame(b []byte) bool {
	for {
		i := bytes.Index(b, []byte(frameMagic))
		if i < 0 || len(b)-i < frameHeader {
			return false
		}
		b = b[i:]
		if crc(b[:32]) == le.Uint32(b[32:]) && le.Uint64(b[8:]) > l.seq+1 {
			return true
		}
		b = b[1:]
	}
}

func (l *Log) replay(s *segment, b []byte, at int) (int, error) {
	kind, seq, commit, body, err := decodeFrame(b[at:])
	if err != nil {
		return 0, err
	}
	if l.seq != 0 && seq != l.seq+1 {
		return 0, fmt.Errorf("frame %d follows frame %d", seq, l.seq)
	}
	switch kind {
	case kindEntries:
		offset := int64(at + frameHeader)
		for rest := body; len(rest) > 0; {
			e, n, err := decodeEntry(rest)
			if err != nil {
				return 0, err
			}
			if len(l.places) == 0 && e.Index >= l.first {
				l.first = e.Index
			} else if e.Index != l.lastIndex()+1 {
				return 0, fmt.Errorf("entry %d follows entry %d", e.Index, l.lastIndex())
			}
			l.add(&e, place{s, offset, n})
			offset, rest = offset+int64(n), rest[n:]
		}
	case kindPrefix, kindSuffix:
		if len(body) != 8 {
			return 0, errors.New("a deletion of the wrong length")
		}
		l.drop(kind, le.Uint64(body))
	default:
		return 0, fmt.Errorf("frame of unknown kind %d", kind)
	}
	l.seq, l.commit = seq, max(l.commit, commit)
	return frameHeader + len(body), nil
}

func decodeFrame(b []byte) (kind uint32, seq, commit uint64, body []byte, err error) {
	if len(b) < frameHeader || string(b[:4]) != frameMagic || crc(b[:32]) != le.Uint32(b[32:]) {
		return 0, 0, 0, nil, errors.New("a frame's header does not match its checksum")
	}
	n := le.Uint32(b[24:])
	if n > maxBody || int(n) > len(b)-frameHeader {
		return 0, 0, 0, nil, errors.New("a frame is longer than its file")
	}
	body = b[frameHeader : frameHeader+int(n)]
	if crc(body) != le.Uint32(b[28:]) {
		return 0, 0, 0, nil, errors.New("a frame does not match its checksum")
	}
	return le.Uint32(b[4:]), le.Uint64(b[8:]), le.Uint64(b[16:]), body, nil
}

func decodeEntry(b []byte) (raft.Log, int, error) {
	if len(b) < entryHead {
		return raft.Log{}, 0, errors.New("an entry is cut short")
	}
	d, x := int(le.Uint32(b[4:])), int(le.Uint32(b[8:]))
	if d > maxBody || x > maxBody || d+x > len(b)-entryHead {
		return raft.Log{}, 0, errors.New("an entry is longer than its frame")
	}
	n := entryHead + d + x
	if crc(b[4:n]) != le.Uint32(b) {
		return raft.Log{}, 0, errors.New("an entry does not match its checksum")
	}
	e := raft.Log{Type: raft.LogType(le.Uint32(b[12:])), Index: le.Uint64(b[16:]), Term: le.Uint64(b[24:])}
	if t := le.Uint64(b[32:]); t != 0 {
		e.AppendedAt = time.Unix(0, int64(t))
	}
	e.Data = bytes.Clone(b[entryHead : entryHead+d])
	if x > 0 {
		e.Extensions = bytes.Clone(b[entryHead+d : n])
	}
	return e, n, nil
}

func appendEntry(b []byte, e *raft.Log) []byte {
	start := len(b)
	var at uint64
	if !e.AppendedAt.IsZero() {
		at = uint64(e.AppendedAt.UnixNano())
	}
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, uint32(len(e.Data)))
	b = le.AppendUint32(b, uint32(len(e.Extensions)))
	b = le.AppendUint32(b, uint32(e.Type))
	b = le.AppendUint64(b, e.Index)
	b = le.AppendUint64(b, e.Term)
	b = le.AppendUint64(b, at)
	b = append(append(b, e.Data...), e.Extensions...)
	le.PutUint32(b[start:], crc(b[start+4:]))
	return b
}

func (l *Log) lastIndex() uint64 { return l.first + uint64(len(l.places)) - 1 }

func (l *Log) add(e *raft.Log, p place) {
	l.places = append(l.places, p)
	p.seg.last = max(p.seg.last, e.Index)
	l.tail = append(l.tail, *e)
	for l.tailSize += p.length; l.tailSize > tailBytes && len(l.tail) > 1; l.tail = l.tail[1:] {
		l.tailSize -= entryHead + len(l.tail[0].Data) + len(l.tail[0].Extensions)
	}
}

// drop forgets the entries up to an index, or from it on. Read again, a deletion may meet only some of the entries it met
// when it was made, for whole segments went after it.
func (l *Log) drop(kind uint32, index uint64) {
	switch {
	case kind == kindPrefix && index >= l.first:
		n := min(index+1-l.first, uint64(len(l.places)))
		l.places, l.first = l.places[n:], index+1
	case kind == kindSuffix && index <= l.first:
		l.places, l.first = nil, index
	case kind == kindSuffix && index <= l.lastIndex():
		l.places = l.places[:index-l.first]
	}
	l.tail, l.tailSize = nil, 0
}

// rotate starts segment number, durably before anything is written into it.
func (l *Log) rotate(number uint64) error {
	h := append([]byte(segmentMagic), version, 0, 0, 0)
	h = le.AppendUint64(h, number)
	h = le.AppendUint64(h, l.first)
	h = append(h, l.id[:]...)
	h = le.AppendUint32(h, crc(h))
	name := filepath.Join(l.dir, fmt.Sprintf("%016x.wal", number))
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(h); err == nil {
		if err = f.Sync(); err == nil {
			err = syncDir(l.dir)
		}
	}
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(name))
	}
	l.segments = append(l.segments, &segment{number: number, size: segmentHeader, file: f})
	return nil
}

// write appends one frame and returns where its body starts.
func (l *Log) write(kind uint32, frame []byte) (*segment, int64, error) {
	if l.failed != nil {
		return nil, 0, l.failed
	}
	s := l.segments[len(l.segments)-1]
	if s.size > segmentSize {
		if err := l.rotate(s.number + 1); err != nil {
			return nil, 0, fmt.Errorf("start a segment of the ledger's log: %w", err)
		}
		s = l.segments[len(l.segments)-1]
	}
	body := frame[frameHeader:]
	copy(frame, frameMagic)
	le.PutUint32(frame[4:], kind)
	le.PutUint64(frame[8:], l.seq+1)
	le.PutUint64(frame[16:], max(l.staged, l.commit))
	le.PutUint32(frame[24:], uint32(len(body)))
	le.PutUint32(frame[28:], crc(body))
	le.PutUint32(frame[32:], crc(frame[:32]))
	if _, err := s.file.WriteAt(frame, s.size); err != nil {
		if cut := s.file.Truncate(s.size); cut != nil {
			l.failed = fmt.Errorf("the ledger's log %s takes no more writes until it is opened again: %w", s.file.Name(), cut)
		}
		return nil, 0, fmt.Errorf("write the ledger's log: %w", err)
	}
	if err := datasync(s.file); err != nil {
		l.failed = fmt.Errorf("the ledger's log %s takes no more writes until it is opened again: %w", s.file.Name(), err)
		return nil, 0, l.failed
	}
	at := s.size + frameHeader
	s.size += int64(len(frame))
	l.seq++
	l.commit = max(l.staged, l.commit)
	return s, at, nil
}

// StoreLog stores one entry.
func (l *Log) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

// StoreLogs stores entries that follow the last one, all or none, durably.
func (l *Log) StoreLogs(entries []*raft.Log) error {
	if len(entries) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	next, size := l.lastIndex()+1, frameHeader
	if len(l.places) == 0 {
		if entries[0].Index < l.first {
			return fmt.Errorf("ledger log: entry %d lies before %d, which is deleted", entries[0].Index, l.first)
		}
		next = entries[0].Index
	}
	for i, e := range entries {
		if e.Index != next+uint64(i) {
			return fmt.Errorf("ledger log: entry %d where %d is next", e.Index, next+uint64(i))
		}
		size += entryHead + len(e.Data) + len(e.Extensions)
	}
	if size > maxBody {
		return grid.Errorf(grid.Limit, "ledger log: a batch of %d bytes, and at most %d fit", size, maxBody)
	}
	frame := make([]byte, frameHeader, size)
	for _, e := range entries {
		frame = appendEntry(frame, e)
	}
	s, at, err := l.write(kindEntries, frame)
	if err != nil {
		return err
	}
	if len(l.places) == 0 {
		l.first = next
	}
	for _, e := range entries {
		n := entryHead + len(e.Data) + len(e.Extensions)
		l.add(e, place{s, at, n})
		at += int64(n)
	}
	return nil
}

// DeleteRange deletes the entries from lo to hi, which must be at one end of the log, durably.
func (l *Log) DeleteRange(lo, hi uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.places) == 0 || hi < l.first || lo > l.lastIndex() || lo > hi {
		return nil
	}
	if lo > l.first && hi < l.lastIndex() {
		return fmt.Errorf("ledger log: entries %d to %d are in the middle of %d to %d", lo, hi, l.first, l.lastIndex())
	}
	kind, index := uint32(kindPrefix), hi
	if hi >= l.lastIndex() {
		kind, index = kindSuffix, max(lo, l.first)
	}
	if _, _, err := l.write(kind, le.AppendUint64(make([]byte, frameHeader), index)); err != nil {
		return err
	}
	l.drop(kind, index)
	for len(l.segments) > 1 && l.segments[0].last < l.first {
		l.segments[0].file.Close() // some systems remove only closed files
		if err := os.Remove(l.segments[0].file.Name()); err != nil {
			return err
		}
		l.segments = l.segments[1:]
	}
	return syncDir(l.dir)
}

// GetLog reads one entry, or fails with raft.ErrLogNotFound.
func (l *Log) GetLog(index uint64, e *raft.Log) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if len(l.places) == 0 || index < l.first || index > l.lastIndex() {
		return raft.ErrLogNotFound
	}
	if back := l.lastIndex() - index; back < uint64(len(l.tail)) {
		*e = l.tail[uint64(len(l.tail))-1-back]
		return nil
	}
	p := l.places[index-l.first]
	b := make([]byte, p.length)
	if _, err := p.seg.file.ReadAt(b, p.offset); err != nil {
		return fmt.Errorf("read entry %d of the ledger's log: %w", index, err)
	}
	got, _, err := decodeEntry(b)
	if err != nil || got.Index != index {
		return damaged(p.seg.file.Name(), p.offset, index, fmt.Sprint("what is read is not what was written: ", err))
	}
	*e = got
	return nil
}

// FirstIndex is the lowest index held, or 0.
func (l *Log) FirstIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if len(l.places) == 0 {
		return 0, nil
	}
	return l.first, nil
}

// LastIndex is the highest index held, or 0.
func (l *Log) LastIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if len(l.places) == 0 {
		return 0, nil
	}
	return l.lastIndex(), nil
}

// IsMonotonic says that entries have no gaps, so Raft empties the log after it took a snapshot from another node.
func (l *Log) IsMonotonic() bool { return true }

// StageCommitIndex has the next batch carry a commit index.
func (l *Log) StageCommitIndex(index uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.staged = max(l.staged, index)
	return nil
}

// GetCommitIndex is the highest commit index stored, at most the last index.
func (l *Log) GetCommitIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if len(l.places) == 0 {
		return 0, nil
	}
	return min(l.commit, l.lastIndex()), nil
}

func (l *Log) readStable() error {
	name := filepath.Join(l.dir, "stable")
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if len(b) < 44 || string(b[:8]) != stableMagic || crc(b[12:]) != le.Uint32(b[8:]) {
		return damaged(name, 0, 0, "the stable values do not match their checksum")
	}
	if !bytes.Equal(b[12:44], l.id[:]) {
		return otherID(name)
	}
	return json.Unmarshal(b[44:], &l.stable)
}

// Set stores a small value, durably.
func (l *Log) Set(key, value []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return l.failed
	}
	next := map[string][]byte{string(key): bytes.Clone(value)}
	for k, v := range l.stable {
		if k != string(key) {
			next[k] = v
		}
	}
	j, err := json.Marshal(next)
	if err != nil {
		return err
	}
	rest := append(l.id[:len(l.id):len(l.id)], j...)
	b := append(le.AppendUint32([]byte(stableMagic), crc(rest)), rest...)
	name := filepath.Join(l.dir, "stable")
	if err := replace(name, b); err != nil {
		return fmt.Errorf("store %q of the ledger: %w", key, err)
	}
	if err := syncDir(l.dir); err != nil {
		l.failed = fmt.Errorf("the ledger's log in %s takes no more writes until it is opened again: %w", l.dir, err)
		return l.failed
	}
	l.stable = next
	return nil
}

func replace(name string, b []byte) error {
	f, err := os.Create(name + ".new")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// Get reads a small value; without one it is empty.
func (l *Log) Get(key []byte) ([]byte, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return bytes.Clone(l.stable[string(key)]), nil
}

// SetUint64 stores a number, durably.
func (l *Log) SetUint64(key []byte, v uint64) error { return l.Set(key, le.AppendUint64(nil, v)) }

// GetUint64 reads a number; without one it is 0.
func (l *Log) GetUint64(key []byte) (uint64, error) {
	b, _ := l.Get(key)
	if len(b) != 8 {
		return 0, nil
	}
	return le.Uint64(b), nil
}

// Close closes the files. What was stored is durable already.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	for _, s := range l.segments {
		err = errors.Join(err, s.file.Close())
	}
	l.failed = errors.New("the ledger's log is closed")
	return err
}
