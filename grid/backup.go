package grid

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// A backup is a file that holds what a realm's ledger knew at one moment, the pins that its node knew, and, if that is wanted, the
// data that these name. It begins with the line "grid backup 1". Frames follow: a byte that tells the kind, the length of the rest in
// four bytes, big-endian, and the rest:
//
//	h  a BackupHeader, in CBOR, the first
//	e  a list of entries of the ledger, in CBOR: at one revision, in order of keys
//	p  a list of pins, in CBOR
//	d  a piece of a CARv1; an empty one ends it, and another may follow
//	z  a Backup, in CBOR, the last; its Sum is the SHA-256 of all bytes before this frame
//
// A file without its end, or with another sum, changes nothing in the ledger that it is restored into.
const (
	backupMagic   = "grid backup "
	backupVersion = 1

	maxBackupFrame   = MaxLedgerBytes + 4<<20 // of entries: a page of the ledger, and what CBOR adds
	maxBackupEntries = 512 << 20              // bytes of all entries, which are held until all of them are known to be right
	maxBackupPins    = 1 << 20
	backupPiece      = 256 << 10 // of data
	backupRoots      = 1024      // of one CAR
	maxBackupNamed   = 20        // keys or roots that an answer names
)

// BackupHeader says what a backup is of.
type BackupHeader struct {
	Made     time.Time `cbor:"made" json:"made"`         // when, by the clock of the node
	Node     peer.ID   `cbor:"node" json:"node"`         // that made it
	Version  string    `cbor:"version" json:"version"`   // of grid
	Realm    string    `cbor:"realm" json:"realm"`       // its name
	RealmID  string    `cbor:"realm_id" json:"realm_id"` // drawn when the realm was founded
	Revision uint64    `cbor:"revision" json:"revision"` // of the ledger, which it was at when the entries were read, or before
	Data     bool      `cbor:"data" json:"data"`         // data is in it, too
}

// Backup is what is in a backup.
type Backup struct {
	Entries int    `cbor:"entries" json:"entries"` // of the ledger
	Pins    int    `cbor:"pins" json:"pins"`       // how many pins it tells of
	Roots   int    `cbor:"roots" json:"roots"`     // of data
	Missing []Link `cbor:"missing" json:"missing"` // roots that were not to be had; the first ones
	Lacks   int    `cbor:"lacks" json:"lacks"`     // how many these are
	Sum     []byte `cbor:"sum" json:"-"`
}

// BackupOptions say what goes into a backup.
type BackupOptions struct {
	Data    bool // the data of pins, refs, plugins and jobs, too
	Partial bool // without what is not to be had; else that is an error
}

// Restored is what came of restoring a backup.
type Restored struct {
	Header BackupHeader `json:"backup"` // what the backup is of
	Held   Backup       `json:"held"`   // what the backup holds
	Put    int          `json:"put"`    // entries that were written
	Same   int          `json:"same"`   // that were there already
	Kept   int          `json:"kept"`   // that were there with another value, which stays
	Pinned int          `json:"pinned"` // pins that are kept now
	// Unpinned counts pins whose data is neither in the backup nor to be had; Why is why, of the first.
	Unpinned int    `json:"unpinned"`
	Why      string `json:"why,omitempty"`
	// Sealed counts secrets that this node cannot read, as they are encrypted to others.
	Sealed int `json:"sealed_secrets"`
}

// Clash reports whether an entry must not be lost for another one of the same key: users have put both there. Of other entries that
// which is there is as good.
func Clash(key string, mine, theirs []byte) bool {
	for _, of := range []string{UserKeys, RefKeys, SecretKeys, AliasKeys} {
		if strings.HasPrefix(key, of) {
			return true
		}
	}
	if !strings.HasPrefix(key, PluginKeys) {
		return false
	}
	var here, there Plugin
	if UnmarshalMessage(mine, &here) != nil || UnmarshalMessage(theirs, &there) != nil {
		return true
	}
	return here.CID != there.CID && here.Removed.IsZero() // a version never changes
}

// KeyForPeople names an entry of the ledger as people know it.
func KeyForPeople(key string) string {
	for _, k := range []struct{ prefix, what string }{
		{UserKeys, "the key "}, {RefKeys, "the ref "}, {SecretKeys, "the secret "}, {PluginKeys, "the plugin "}, {AliasKeys, "the alias "},
	} {
		if rest, ok := strings.CutPrefix(key, k.prefix); ok {
			return k.what + rest
		}
	}
	return key
}

// backedUp reports whether an entry belongs into a backup. Nodes that are up, and members, are those of the realm that it is restored
// into; tokens for the API are made anew, as one that was removed since must not come back.
func backedUp(e *Entry) bool {
	for _, own := range []string{NodeKeys, MemberKeys, SwarmKeys, TokenKeys} {
		if strings.HasPrefix(e.Key, own) {
			return false
		}
	}
	return e.Session == ""
}

// fresh reports whether an entry may be in a realm that nobody has used yet.
func fresh(e *Entry) bool {
	return !backedUp(e) || strings.HasPrefix(e.Key, AuditKeys) || strings.HasPrefix(e.Key, StandingKeys)
}

// summer is a hash.Hash.
type summer interface {
	io.Writer
	Sum([]byte) []byte
}

// backupWriter writes frames and sums them up.
type backupWriter struct {
	w   io.Writer
	sum summer
}

func (b *backupWriter) write(p []byte) error {
	b.sum.Write(p)
	_, err := b.w.Write(p)
	return err
}

func (b *backupWriter) frame(kind byte, data []byte) error {
	if len(data) > maxBackupFrame {
		return Errorf(Limit, "backup: a frame of %d bytes, at most %d are allowed", len(data), maxBackupFrame)
	}
	if err := b.write(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(data)))); err != nil {
		return err
	}
	return b.write(data)
}

func (b *backupWriter) value(kind byte, v any) error {
	data, err := Marshal(v)
	if err != nil {
		return err
	}
	return b.frame(kind, data)
}

// Write makes a frame of a piece of data.
func (b *backupWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		piece := p[:min(len(p), backupPiece)]
		if err := b.frame('d', piece); err != nil {
			return n, err
		}
		n, p = n+len(piece), p[len(piece):]
	}
	return n, nil
}

// Backup writes a backup. archive is that of the node's blocks; it is needed for data. On error what was written is cut short, and
// nobody takes it for whole.
func (n *Node) Backup(ctx context.Context, w io.Writer, archive Archive, o BackupOptions) (b Backup, err error) {
	if err := n.mayAdminister(); err != nil {
		return b, Errorf(CodeOf(err), "backup: %w", err).Hint("%s", AdviceOf(err))
	}
	st, err := n.Ledger.Status(ctx)
	if err != nil {
		return b, Errorf(CodeOf(err), "backup: %w", err)
	}
	out := &backupWriter{w, sha256.New()}
	h := BackupHeader{Made: time.Now().UTC(), Node: n.self, Version: Version, Realm: st.Realm, RealmID: st.RealmID, Revision: st.Revision, Data: o.Data}
	if err = out.write([]byte(backupMagic + strconv.Itoa(backupVersion) + "\n")); err == nil {
		err = out.value('h', h)
	}
	if err != nil {
		return b, err
	}
	named := newRootSet()
	if b.Entries, err = n.backupEntries(ctx, out, named); err != nil {
		return b, err
	}
	if b.Pins, err = n.backupPins(ctx, out, named); err != nil {
		return b, err
	}
	if o.Data {
		if err := n.backupData(ctx, out, archive, named.list, o.Partial, &b); err != nil {
			return b, err
		}
	}
	b.Sum = out.sum.Sum(nil)
	if err := out.value('z', b); err != nil {
		return b, err
	}
	n.log.Info("a backup was made", "entries", b.Entries, "pins", b.Pins, "roots", b.Roots, "missing", b.Lacks)
	return b, nil
}

// rootSet is roots, each once, in order.
type rootSet struct {
	list []cid.Cid
	has  map[cid.Cid]struct{}
}

func newRootSet() *rootSet { return &rootSet{has: make(map[cid.Cid]struct{})} }

func (s *rootSet) add(links ...Link) {
	for _, l := range links {
		if _, again := s.has[l.Cid]; !again && l.Defined() {
			s.has[l.Cid] = struct{}{}
			s.list = append(s.list, l.Cid)
		}
	}
}

// backupEntries writes the ledger's entries, and gathers what they name.
func (n *Node) backupEntries(ctx context.Context, out *backupWriter, named *rootSet) (count int, err error) {
	var piece []Entry
	size := 0
	flush := func() error {
		err := out.value('e', piece)
		piece, size = piece[:0], 0
		return err
	}
	_, err = RangeAll(ctx, n.Ledger, "", false, func(e Entry) error {
		if !backedUp(&e) {
			return nil
		}
		named.add(namedBy(&e)...)
		k := len(e.Key) + len(e.Value)
		if len(piece) > 0 && (size+k > backupPiece || len(piece) == MaxLedgerPage) {
			if err := flush(); err != nil {
				return err
			}
		}
		piece = append(piece, Entry{Key: e.Key, Value: e.Value})
		size += k
		count++
		return nil
	})
	if err == nil && len(piece) > 0 {
		err = flush()
	}
	if err != nil {
		return count, Errorf(CodeOf(err), "backup: the ledger: %w", err)
	}
	return count, nil
}

// namedBy lists the DAGs that an entry of the ledger names. What cannot be read names nothing.
func namedBy(e *Entry) []Link {
	switch {
	case strings.HasPrefix(e.Key, JobKeys):
		if rec, err := decodeRecord(*e); err == nil {
			return []Link{rec.Spec, rec.Kit, rec.Checkpoint, rec.Result}
		}
	case strings.HasPrefix(e.Key, RefKeys):
		if r, err := decodeRef(*e); err == nil {
			return []Link{r.CID}
		}
	case strings.HasPrefix(e.Key, PluginKeys):
		if p, err := decodePlugin(*e); err == nil && p.Removed.IsZero() {
			return []Link{p.CID}
		}
	}
	return nil
}

func (n *Node) backupPins(ctx context.Context, out *backupWriter, named *rootSet) (int, error) {
	list, err := n.Pins.Pins(ctx)
	if err != nil {
		return 0, Errorf(CodeOf(err), "backup: the pins: %w", err)
	}
	pins := make([]Pin, 0, len(list))
	for i := range list {
		pins = append(pins, list[i].Pin)
		named.add(list[i].Root)
	}
	for piece := range slices.Chunk(pins, 1024) {
		if err := out.value('p', piece); err != nil {
			return 0, err
		}
	}
	return len(pins), nil
}

// backupData writes what was named, as far as it is to be had.
func (n *Node) backupData(ctx context.Context, out *backupWriter, archive Archive, roots []cid.Cid, partial bool, b *Backup) error {
	held := holds{n: n}
	defer held.end()
	held.add(roots...)
	var parts []Selection
	for _, root := range roots {
		if err := n.Ensure(ctx, []cid.Cid{root}); err == nil {
			parts = append(parts, Selection{Root: root})
			continue
		} else if ctx.Err() != nil {
			return context.Cause(ctx)
		} else if !partial {
			return Errorf(CodeOf(err), "backup: %s is not to be had: %w", root, err).
				Hint("start the nodes that have it; --partial makes a backup without what cannot be had, and names it")
		}
		if b.Lacks++; len(b.Missing) < maxBackupNamed {
			b.Missing = append(b.Missing, Link{Cid: root})
		}
	}
	for piece := range slices.Chunk(parts, backupRoots) {
		if err := archive.Export(ctx, out, piece...); err != nil {
			return Errorf(CodeOf(err), "backup: the data: %w", err)
		}
		if err := out.frame('d', nil); err != nil {
			return err
		}
	}
	b.Roots = len(parts)
	return nil
}

// backupReader reads frames. It hands pieces of data out as one stream.
type backupReader struct {
	r    io.Reader
	sum  summer
	data []byte // the rest of a piece
	end  bool   // of a CAR
}

// errCut is for files that are cut short.
func errCut(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return Errorf(Corrupt, "the backup is cut short").Hint("make it again, or copy it again; nothing of the ledger was changed")
	}
	return Errorf(CodeOf(err), "the backup cannot be read: %w", err)
}

// begin reads the first line.
func (b *backupReader) begin() error {
	var line [len(backupMagic) + 12]byte
	n := 0
	for ; n < len(line) && (n == 0 || line[n-1] != '\n'); n++ {
		if _, err := io.ReadFull(b.r, line[n:n+1]); err != nil {
			if n == 0 || !strings.HasPrefix(backupMagic, string(line[:min(n, len(backupMagic))])) {
				break
			}
			return errCut(err)
		}
	}
	version, ok := strings.CutPrefix(string(line[:n]), backupMagic)
	version, ended := strings.CutSuffix(version, "\n")
	v, err := strconv.Atoi(version)
	if !ok || !ended || err != nil {
		return Errorf(Invalid, "this is no backup").Hint("`grid backup FILE` makes one; a CAR file is read by `grid car import`")
	}
	if v != backupVersion {
		return Errorf(Unsupported, "this backup has format %d, and this grid reads %d", v, backupVersion).Hint("restore it with the version of grid that made it")
	}
	b.sum.Write(line[:n])
	return nil
}

// frame reads the next frame. sum is that of all bytes before it.
func (b *backupReader) frame() (kind byte, data, sum []byte, err error) {
	sum = b.sum.Sum(nil)
	var head [5]byte
	if _, err := io.ReadFull(b.r, head[:]); err != nil {
		return 0, nil, nil, errCut(err)
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > maxBackupFrame {
		return 0, nil, nil, Errorf(Corrupt, "the backup has a frame of %d bytes, at most %d are allowed", size, maxBackupFrame)
	}
	var buf bytes.Buffer // which grows with what really comes
	if m, err := io.CopyN(&buf, b.r, int64(size)); err != nil {
		if m < int64(size) && err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, nil, errCut(err)
	}
	b.sum.Write(head[:])
	b.sum.Write(buf.Bytes())
	return head[0], buf.Bytes(), sum, nil
}

// Read reads a CAR, which has begun with the piece in data.
func (b *backupReader) Read(p []byte) (int, error) {
	for len(b.data) == 0 {
		if b.end {
			return 0, io.EOF
		}
		kind, data, _, err := b.frame()
		if err != nil {
			return 0, err
		}
		if kind != 'd' {
			return 0, Errorf(Corrupt, "the backup has a frame %q amid data", kind)
		}
		b.data, b.end = data, len(data) == 0
	}
	n := copy(p, b.data)
	b.data = b.data[n:]
	return n, nil
}

// contents is what a backup holds besides data.
type contents struct {
	header  BackupHeader
	entries []Entry
	pins    []Pin
	held    Backup
}

// readBackup reads a backup to its end. Data goes to car, one CAR after the other, and is done with when that returns.
func readBackup(r io.Reader, car func(io.Reader) error) (c contents, err error) {
	b := &backupReader{r: r, sum: sha256.New()}
	if err := b.begin(); err != nil {
		return c, err
	}
	size := 0
	for first := true; ; first = false {
		kind, data, sum, err := b.frame()
		if err != nil {
			return c, err
		}
		if first != (kind == 'h') {
			return c, Errorf(Corrupt, "the backup does not have its header where it belongs")
		}
		switch kind {
		case 'h':
			err = UnmarshalMessage(data, &c.header)
		case 'e':
			var piece []Entry
			if err = UnmarshalMessage(data, &piece); err != nil {
				break
			}
			for i := range piece {
				e := &piece[i]
				if err := checkLedgerKey(e.Key); err != nil {
					return c, Errorf(Corrupt, "the backup has an entry that no ledger takes: %w", err)
				}
				if len(e.Value) > MaxLedgerValue || !backedUp(e) {
					return c, Errorf(Corrupt, "the backup has an entry %.80q, which does not belong there", e.Key)
				}
				if size += len(e.Key) + len(e.Value); size > maxBackupEntries {
					return c, Errorf(Limit, "the backup has entries of more than %d bytes", maxBackupEntries)
				}
			}
			c.entries = append(c.entries, piece...)
		case 'p':
			var piece []Pin
			if err = UnmarshalMessage(data, &piece); err != nil {
				break
			}
			for i := range piece {
				if err := piece[i].Check(); err != nil {
					return c, Errorf(Corrupt, "the backup: %w", err)
				}
			}
			if c.pins = append(c.pins, piece...); len(c.pins) > maxBackupPins {
				return c, Errorf(Limit, "the backup has more than %d pins", maxBackupPins)
			}
		case 'd':
			b.data, b.end = data, len(data) == 0
			if err := car(b); err != nil {
				return c, err
			}
			if _, err := io.Copy(io.Discard, b); err != nil {
				return c, err
			}
		case 'z':
			if err = UnmarshalMessage(data, &c.held); err != nil {
				break
			}
			if !bytes.Equal(c.held.Sum, sum) || c.held.Entries != len(c.entries) || c.held.Pins != len(c.pins) {
				return c, Errorf(Corrupt, "the backup is damaged: it is not what its checksum says").Hint("copy it again; nothing of the ledger was changed")
			}
			if m, err := io.ReadFull(r, make([]byte, 1)); m > 0 || err != io.EOF {
				return c, Errorf(Corrupt, "the backup goes on behind its end")
			}
			return c, nil
		default:
			return c, Errorf(Corrupt, "the backup has a frame of an unknown kind, %q", kind)
		}
		if err != nil {
			return c, Errorf(Corrupt, "the backup has a frame %q that cannot be read: %w", kind, err)
		}
	}
}

// Pieces in which entries are restored: each is a transaction, with a condition for each entry.
const (
	restoreEntries = 400
	restoreBytes   = 2 << 20
)

// Restore reads a backup into the node's realm, which must be one that nobody has used, unless merge is true. Then what is there
// stays; if users have put something else there, that is a Conflict, and the ledger is as it was. The file is checked to its end
// before the ledger is changed. An end in the midst of it leaves a part of the entries: doing it again, with merge, does the rest.
func (n *Node) Restore(ctx context.Context, r io.Reader, archive Archive, merge bool) (done Restored, err error) {
	if err := n.mayAdminister(); err != nil {
		return done, Errorf(CodeOf(err), "restore: %w", err).Hint("%s", AdviceOf(err))
	}
	if !merge {
		if err := n.checkFresh(ctx); err != nil { // before all of it is read
			return done, err
		}
	}
	held := holds{n: n}
	defer held.end()
	held.used() // what is imported is not collected
	c, err := readBackup(r, func(r io.Reader) error {
		in, err := archive.Import(ctx, r, true)
		for _, root := range in.Roots {
			held.add(root.CID.Cid)
			n.Linger(restoreGrace, root.CID.Cid)
		}
		return err
	})
	if err != nil {
		return done, Errorf(CodeOf(err), "restore: %w", err).Hint("%s", AdviceOf(err))
	}
	done.Header, done.Held = c.header, c.held
	todo, err := n.compare(ctx, c.entries, merge, &done)
	if err != nil {
		return done, err
	}
	n.restorePins(ctx, c.pins, &done)
	if err := n.restoreEntries(ctx, todo, c.header, &done); err != nil {
		return done, err
	}
	n.log.Info("a backup was restored", "realm", c.header.RealmID, "made", c.header.Made, "put", done.Put, "same", done.Same, "kept", done.Kept,
		"pinned", done.Pinned, "unpinned", done.Unpinned)
	return done, nil
}

// restoreGrace is how long data of a backup stays that nothing names yet, such as that of jobs that are to be taken over.
const restoreGrace = time.Hour

// checkFresh refuses a realm that somebody has used.
func (n *Node) checkFresh(ctx context.Context) error {
	return n.eachEntry(ctx, func(e Entry) error {
		if fresh(&e) {
			return nil
		}
		return Errorf(Conflict, "restore: this realm is in use: it has %s", KeyForPeople(e.Key)).
			Hint("restore into a new home (`grid --home NEW restore FILE`), or use --merge, with which what is here stays")
	})
}

func (n *Node) eachEntry(ctx context.Context, f func(Entry) error) error {
	_, err := RangeAll(ctx, n.Ledger, "", false, f)
	return err
}

// compare leaves entries out that are there already. Those that clash end it.
func (n *Node) compare(ctx context.Context, entries []Entry, merge bool, done *Restored) (todo []Entry, err error) {
	if !merge {
		if err := n.checkFresh(ctx); err != nil {
			return nil, err
		}
	}
	index := make(map[string]int, len(entries))
	for i := range entries {
		index[entries[i].Key] = i
	}
	if len(index) != len(entries) {
		return nil, Errorf(Corrupt, "restore: the backup has a key twice")
	}
	there := make(map[int]bool)
	var clashes []string
	conflicts := 0
	err = n.eachEntry(ctx, func(e Entry) error {
		i, both := index[e.Key]
		if !both {
			return nil
		}
		there[i] = true
		mine := n.adopted(entries[i])
		switch {
		case bytes.Equal(e.Value, entries[i].Value), bytes.Equal(e.Value, mine.Value):
			done.Same++
		case Clash(e.Key, entries[i].Value, e.Value):
			if conflicts++; len(clashes) < maxBackupNamed {
				clashes = append(clashes, KeyForPeople(e.Key))
			}
		default:
			done.Kept++
		}
		return nil
	})
	if err != nil {
		return nil, Errorf(CodeOf(err), "restore: the ledger: %w", err)
	}
	if conflicts > 0 {
		list := strings.Join(clashes, ", ")
		if more := conflicts - len(clashes); more > 0 {
			list += fmt.Sprintf(", and %d more", more)
		}
		return nil, Errorf(Conflict, "restore: in the backup and here, with different values: %s", list).
			Hint("delete, remove or rename what is here, or restore into a new home; nothing of the ledger was changed")
	}
	var open []Entry // those come last: who finds an open job finds the job, too
	for i := range entries {
		if strings.HasPrefix(entries[i].Key, SecretKeys) {
			if _, s, err := decodeSecret(&entries[i]); err != nil || !slices.Contains(s.To, n.self) {
				done.Sealed++
			}
		}
		switch {
		case there[i]:
		case strings.HasPrefix(entries[i].Key, OpenKeys):
			open = append(open, entries[i])
		default:
			todo = append(todo, n.adopted(entries[i]))
		}
	}
	return append(todo, open...), nil
}

// adopted is an entry as this node puts it: a job that has ended is this node's, so that it keeps what the job came to.
func (n *Node) adopted(e Entry) Entry {
	if !strings.HasPrefix(e.Key, JobKeys) {
		return e
	}
	rec, err := decodeRecord(e)
	if err != nil || !rec.State.Final() || rec.Owner == n.self {
		return e
	}
	rec.Origin, rec.Owner = rec.origin(), n.self
	if data, err := Marshal(rec); err == nil {
		e.Value = data
	}
	return e
}

// restorePins makes the promises again. Those whose data is not to be had are counted.
func (n *Node) restorePins(ctx context.Context, pins []Pin, done *Restored) {
	for _, p := range pins {
		err := n.Ensure(ctx, []cid.Cid{p.Root.Cid})
		if err == nil {
			_, err = n.Pins.Pin(ctx, p)
		}
		if err == nil {
			done.Pinned++
		} else if done.Unpinned++; done.Why == "" {
			done.Why = clean(fmt.Sprintf("%s: %v", p.Root, err), maxMessage)
		}
	}
}

func (n *Node) restoreEntries(ctx context.Context, todo []Entry, h BackupHeader, done *Restored) error {
	for len(todo) > 0 {
		t := Txn{ID: NewRequestID()}
		size := 0
		for len(t.Put) < min(restoreEntries, len(todo)) && (len(t.Put) == 0 || size+len(todo[len(t.Put)].Value) <= restoreBytes) {
			e := todo[len(t.Put)]
			size += len(e.Key) + len(e.Value)
			t.If = append(t.If, Cond{Key: e.Key})
			t.Put = append(t.Put, e)
		}
		count := len(t.Put)
		var err error
		if count == len(todo) {
			err = n.audit(&t, AuditFact{Act: ActRestore, Subject: h.RealmID, User: UserOf(ctx), Note: fmt.Sprintf("%d entries, of %s", done.Put+count, h.Made.Format(time.RFC3339))})
		}
		if err == nil {
			_, err = n.Ledger.Commit(ctx, t)
		}
		if err != nil {
			return Errorf(CodeOf(err), "restore: %d entries are here, and %d are not: %w", done.Put, len(todo), err).
				Hint("do it again with --merge: what is here already is left alone")
		}
		done.Put += count
		todo = todo[count:]
	}
	return nil
}
