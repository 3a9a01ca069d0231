package machine

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"

	"github.com/tidwall/btree"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Snapshot is a machine's state at one moment. It does not change, and is for any number of goroutines.
type Snapshot struct {
	state
	sessions []Session
	tail     []record // of the history
}

// Revision is that of the last transaction in it.
func (s *Snapshot) Revision() uint64 { return s.revision }

// Applied is the index of the last log entry in it.
func (s *Snapshot) Applied() uint64 { return s.applied }

// How much history a snapshot holds, so that watches outlive a restart or a change of nodes.
const (
	tailRecords = 1 << 12
	tailBytes   = 4 << 20
)

// Snapshot takes one, at no cost that grows with the entries: they are shared until either side changes them.
func (m *Machine) Snapshot() *Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &Snapshot{state: m.state, sessions: m.listSessions(), tail: m.history.tail(tailRecords, tailBytes)}
	s.entries = m.entries.Copy()
	s.requests = s.requests[:len(s.requests):len(s.requests)]
	return s
}

const (
	snapshotMagic   = "gridlgr"
	snapshotVersion = 1

	frameSize = 64 << 10 // that is written when reached
	maxFrame  = 4 << 20  // that is read: a frame and one item with two of the largest entries
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// WriteTo writes the snapshot, in pieces of little more than 64 KiB unless an entry is larger.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) {
	f := &framer{w: w}
	f.begin()
	s.encode(f)
	for _, r := range s.tail {
		f.done(append(f.item(), 'c'))
		for _, c := range r {
			f.done(c.append(append(f.item(), 'd')))
		}
	}
	if len(f.b) > 0 {
		f.flush()
	}
	f.flush() // an empty frame ends it
	return f.n, f.err
}

// Sum is equal for machines that have applied the same log, whatever of it they have from a snapshot.
func (s *Snapshot) Sum() [sha256.Size]byte {
	h := sha256.New()
	f := &framer{w: h}
	s.encode(f)
	f.flush()
	return [sha256.Size]byte(h.Sum(nil))
}

// encode writes all but the history.
func (s *Snapshot) encode(f *framer) {
	b := append(f.item(), 'h')
	for _, v := range []uint64{
		s.revision, s.applied, s.forgot, uint64(s.maxBytes), uint64(s.remember),
		uint64(len(s.sessions)), uint64(len(s.requests)), uint64(s.entries.Len()),
	} {
		b = binary.AppendUvarint(b, v)
	}
	f.done(b)
	for i := range s.sessions {
		f.done(s.sessions[i].append(append(f.item(), 's')))
	}
	for i := range s.requests {
		b := binary.AppendUvarint(append(f.item(), 'r'), s.requests[i].revision)
		f.done(append(b, s.requests[i].id[:]...))
	}
	s.entries.Scan(func(_ string, e *entry) bool {
		f.done(e.append(append(f.item(), 'e')))
		return f.err == nil
	})
}

func (e *entry) append(b []byte) []byte {
	b = binary.AppendUvarint(appendText(appendText(b, e.key), e.value), e.version)
	return appendText(b, e.session)
}

func (c change) append(b []byte) []byte {
	switch {
	case c.new == nil:
		return c.old.append(append(b, 1))
	case c.old == nil:
		return c.new.append(append(b, 2))
	}
	return c.new.append(c.old.append(append(b, 3)))
}

// framer writes frames. After an error it does nothing.
type framer struct {
	w    io.Writer
	b    []byte // header and items of the next frame
	crc  uint32 // of the frame before
	n    int64  // bytes written
	err  error
	head [8]byte
}

func (f *framer) begin() {
	head := append([]byte(snapshotMagic), snapshotVersion)
	f.crc = crc32.Checksum(head, castagnoli)
	f.write(head)
}

func (f *framer) write(p []byte) {
	if f.err == nil {
		var n int
		n, f.err = f.w.Write(p)
		f.n += int64(n)
	}
}

// item is what to append the next item to; done gives it back.
func (f *framer) item() []byte {
	if len(f.b) == 0 {
		f.b = append(f.b, f.head[:]...) // its place
	}
	return f.b
}

func (f *framer) done(b []byte) {
	if f.b = b; len(b) >= frameSize {
		f.flush()
	}
}

func (f *framer) flush() {
	b := f.item()
	items := b[len(f.head):]
	f.crc = crc32.Update(f.crc, castagnoli, items)
	binary.BigEndian.PutUint32(b, uint32(len(items)))
	binary.BigEndian.PutUint32(b[4:], f.crc)
	f.write(b)
	f.b = b[:0]
}

// Restore replaces everything by a snapshot. When it fails, everything is as before: Unsupported says that a newer
// version has written it, Corrupt that it is damaged, anything else comes from r.
func (m *Machine) Restore(r io.Reader) error {
	s, err := readSnapshot(r)
	if err != nil {
		if c := grid.CodeOf(err); c != grid.Unknown {
			return grid.Errorf(c, "ledger: restore a snapshot: %w", err)
		}
		return fmt.Errorf("ledger: restore a snapshot: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.install(s)
	m.wakeAll()
	return nil
}

// readSnapshot reads the snapshot's state.
func readSnapshot(r io.Reader) (*Snapshot, error) {
	u := &unframer{r: r}
	if err := u.begin(); err != nil {
		return nil, err
	}
	s := &Snapshot{state: state{entries: new(btree.Map[string, *entry])}}
	err := s.decode(u)
	return s, err
}

func damaged(format string, args ...any) error {
	return grid.Errorf(grid.Corrupt, "the snapshot is damaged: "+format, args...).
		Hint("check the disk, and let the node fetch the state from the others of its realm")
}

// unframer reads frames.
type unframer struct {
	r   io.Reader
	buf []byte
	crc uint32
	in  reader // of the frame
	end bool
}

func (u *unframer) full(p []byte) error {
	_, err := io.ReadFull(u.r, p)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return damaged("it ends too early")
	}
	return err
}

func (u *unframer) begin() error {
	var b [len(snapshotMagic) + 1]byte
	if err := u.full(b[:]); err != nil {
		return err
	}
	if string(b[:len(snapshotMagic)]) != snapshotMagic || b[len(snapshotMagic)] == 0 {
		return damaged("it does not begin as one")
	}
	if v := b[len(snapshotMagic)]; v > snapshotVersion {
		return grid.Errorf(grid.Unsupported, "the snapshot has format %d, this version reads up to %d", v, snapshotVersion).
			Hint("run the version of grid that wrote it, or a newer one")
	}
	u.crc = crc32.Checksum(b[:], castagnoli)
	return nil
}

// next is the kind of the next item, and what to read it from; 0 at the end.
func (u *unframer) next() (byte, error) {
	for len(u.in.b) == 0 && !u.end {
		if err := u.frame(); err != nil {
			return 0, err
		}
	}
	if u.end {
		return 0, nil
	}
	return u.in.byte(), nil
}

func (u *unframer) frame() error {
	var head [8]byte
	if err := u.full(head[:]); err != nil {
		return err
	}
	n := int(binary.BigEndian.Uint32(head[:]))
	if n > maxFrame {
		return damaged("a frame of %d bytes", n)
	}
	if n > cap(u.buf) {
		u.buf = make([]byte, n, max(n, frameSize+frameSize/4))
	}
	u.buf = u.buf[:n]
	if err := u.full(u.buf); err != nil {
		return err
	}
	if u.crc = crc32.Update(u.crc, castagnoli, u.buf); u.crc != binary.BigEndian.Uint32(head[4:]) {
		return damaged("a frame does not match its checksum")
	}
	u.in.b, u.end = u.buf, n == 0
	return nil
}

// decode reads the items. Their order is that in which they are written.
func (s *Snapshot) decode(u *unframer) error {
	var left [3]uint64 // sessions, requests, entries
	sessions := make(map[grid.SessionID]struct{})
	last := ""
	for stage := byte('h'); ; {
		kind, err := u.next()
		if err != nil {
			return err
		}
		in := &u.in
		switch {
		case kind == 'h' && stage == 'h':
			s.revision, s.applied, s.forgot = in.number(), in.number(), in.number()
			maxBytes, remember := in.number(), in.number()
			for i := range left {
				left[i] = in.number()
			}
			if maxBytes == 0 || maxBytes > math.MaxInt64/2 || remember == 0 || remember > math.MaxInt32 ||
				s.forgot > s.revision || s.revision > math.MaxUint64/2 || left[0] > maxSessions || left[1] > remember {
				return damaged("its numbers are impossible")
			}
			s.maxBytes, s.remember = int64(maxBytes), int(remember)
			stage = 'e'
		case kind == 's' && left[0] > 0:
			var v Session
			v.read(in)
			if n := len(s.sessions); n > 0 && v.ID <= s.sessions[n-1].ID || in.err == nil && v.check() != nil {
				return damaged("a session is impossible")
			}
			s.sessions = append(s.sessions, v)
			sessions[v.ID] = struct{}{}
			left[0]--
		case kind == 'r' && left[0] == 0 && left[1] > 0:
			v := request{revision: in.number()}
			newest := s.forgot
			if n := len(s.requests); n > 0 {
				newest = s.requests[n-1].revision
			}
			if len(in.b) < len(v.id) || v.revision <= newest || v.revision > s.revision {
				return damaged("a remembered request is impossible")
			}
			in.b = in.b[copy(v.id[:], in.b):]
			s.requests = append(s.requests, v)
			left[1]--
		case kind == 'e' && left[0] == 0 && left[1] == 0 && left[2] > 0:
			e := readEntry(in)
			_, alive := sessions[e.session]
			if e.key <= last || e.version == 0 || e.version > s.revision || e.session != "" && !alive {
				return damaged("an entry is impossible")
			}
			last = e.key
			s.entries.Load(e.key, e)
			s.bytes += e.size()
			left[2]--
		case kind == 'c' && stage != 'h' && left == [3]uint64{}:
			stage = 'd'
			s.tail = append(s.tail, nil)
		case kind == 'd' && stage == 'd':
			c := readChange(in)
			r := &s.tail[len(s.tail)-1]
			*r = append(*r, c)
		case kind == 0 && stage != 'h' && left == [3]uint64{}:
			return s.checkTail()
		default:
			return damaged("an item is out of place")
		}
		if in.err != nil {
			return damaged("%v", in.err)
		}
	}
}

func (s *Snapshot) checkTail() error {
	if uint64(len(s.tail)) > s.revision {
		return damaged("its history is longer than its life")
	}
	for i, r := range s.tail {
		revision := s.revision - uint64(len(s.tail)-1-i)
		for _, c := range r {
			if c.old == nil && c.new == nil || c.old != nil && c.old.version >= revision ||
				c.new != nil && c.new.version != revision || c.old != nil && c.new != nil && c.old.key != c.new.key {
				return damaged("a change at revision %d is impossible", revision)
			}
		}
	}
	return nil
}

func readEntry(in *reader) *entry {
	key := string(in.text(grid.MaxLedgerKey))
	value := string(in.text(grid.MaxLedgerValue))
	return &entry{key, value, in.number(), grid.SessionID(in.text(grid.MaxName))}
}

func readChange(in *reader) (c change) {
	kind := in.byte()
	if kind&1 != 0 {
		c.old = readEntry(in)
	}
	if kind&2 != 0 {
		c.new = readEntry(in)
	}
	if kind > 3 {
		in.fail("a change of an unknown kind")
	}
	return c
}
