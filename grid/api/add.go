package api

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

// PAX records of an entry that names a file or folder instead of holding it: its CID, and its size in bytes. The
// entry itself is empty. The node refuses it unless all of that is there; see [Client.Missing]. A folder that is
// named "./" and is the only entry is all that is added.
const (
	RecordCID  = "GRID.cid"
	RecordSize = "GRID.size"
)

// Small files are stored a step at a time, several steps at once; larger ones as they come.
const (
	stepBytes   = 1 << 20 // of small files in one step, which is also the largest file that counts as small
	stepEntries = 1024
	maxSteps    = 6       // at once, each with its bytes in memory
	maxMissing  = 1 << 20 // CIDs asked for in one request
)

// add stores a tar archive as it comes. Every entry is durable when the last line is sent.
func (s *Server) add(w http.ResponseWriter, r *http.Request) (err error) {
	defer s.Node.HoldUsed()()
	defer func() {
		if err != nil { // a sender that is cut off does not get to read why
			_, _ = io.Copy(io.Discard, r.Body)
		}
	}()
	_ = http.NewResponseController(w).EnableFullDuplex() // answers go out while the archive comes in
	var out *stream
	send := func(e grid.FileInfo) error {
		if out == nil {
			out = newStream(w, r)
		}
		return out.send(e)
	}
	hold := func(c cid.Cid) { // stays until the folder that it is put into does
		context.AfterFunc(r.Context(), s.Node.Hold(c))
	}
	entries, err := takeIn(r.Context(), s.Node.Files, tar.NewReader(r.Body), hold, send)
	if err != nil {
		return err
	}
	// A closing archive is followed by padding, which the sender must not be stopped from sending.
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return grid.Errorf(grid.Invalid, "the archive cannot be read: %w", err)
	}
	ctx := r.Context()
	root, size, err := s.addTree(ctx, entries)
	if err != nil {
		return err
	}
	if err := s.Node.Blocks.Sync(ctx); err != nil {
		return err
	}
	announce := []cid.Cid{root}
	if len(entries) == 1 && entries[0].CID.Defined() && entries[0].CID.Cid != root { // a file that was added alone goes by its own name
		announce = append(announce, entries[0].CID.Cid)
	}
	s.Node.Linger(addGrace, announce...)
	for _, c := range announce {
		if err := s.Node.Network.Provide(ctx, c); err != nil {
			s.Logger.Debug("root not announced", "cid", c, "err", err)
		}
	}
	err = send(grid.FileInfo{CID: grid.Link{Cid: root}, Kind: grid.KindDir, Size: size})
	return out.end(err)
}

// addTree stores the folder of the entries, or takes the one that an entry named as all of it.
func (s *Server) addTree(ctx context.Context, entries []grid.FileInfo) (cid.Cid, int64, error) {
	if len(entries) == 1 && entries[0].Name == "." && entries[0].Kind == grid.KindDir && entries[0].CID.Defined() {
		return entries[0].CID.Cid, entries[0].Size, nil
	}
	return s.Node.Files.AddTree(ctx, entries)
}

// takeIn stores the files of an archive and returns its entries, each of which it sends, in order, once it is
// stored. The error is that of the first entry that could not be stored.
func takeIn(ctx context.Context, files grid.Files, tr *tar.Reader, hold func(cid.Cid), send func(grid.FileInfo) error) ([]grid.FileInfo, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	in := &intake{ctx: ctx, files: files, tr: tr, hold: hold, steps: make(chan *step, maxSteps), free: make(chan []byte, maxSteps)}
	for range min(runtime.GOMAXPROCS(0)+2, maxSteps) {
		in.free <- nil // made when first used
	}
	var entries []grid.FileInfo
	var wg sync.WaitGroup
	wg.Go(func() {
		for st := range in.steps {
			<-st.done
			for _, e := range st.entries[:st.good] {
				if ctx.Err() != nil {
					break
				}
				if err := send(e); err != nil {
					cancel(err)
				}
			}
			if st.err != nil {
				cancel(st.err) // the first one counts
			}
			entries = append(entries, st.entries...)
		}
	})
	err := in.read()
	close(in.steps)
	wg.Wait()
	in.wg.Wait()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return entries, err
}

// intake reads an archive. It belongs to one goroutine, which hands steps to others.
type intake struct {
	ctx   context.Context
	files grid.Files
	tr    *tar.Reader
	wg    sync.WaitGroup
	steps chan *step    // in the order of the archive
	free  chan []byte   // memory for the files of a step
	open  *step         // nil: none
	hold  func(cid.Cid) // keeps what was named from being collected
}

// step is entries that lie next to one another in the archive and are stored together.
type step struct {
	entries []grid.FileInfo
	small   []grid.Content // files in it that have come in the archive
	at      []int          // which entries those are
	named   []int          // entries that came as CIDs
	memory  []byte
	done    chan struct{}
	good    int   // entries before the first that could not be stored, once done
	err     error // of that one
}

func (in *intake) read() error {
	for in.ctx.Err() == nil {
		h, err := in.tr.Next()
		if err == io.EOF {
			in.flush()
			return nil
		}
		if err == nil {
			err = in.entry(h)
		} else {
			err = grid.Errorf(grid.Invalid, "the archive cannot be read: %w", err)
		}
		if err != nil {
			in.flush() // an entry before this one may have an error, too
			return err
		}
	}
	return context.Cause(in.ctx)
}

// entry takes one entry in.
func (in *intake) entry(h *tar.Header) error {
	e := grid.FileInfo{Name: strings.TrimSuffix(h.Name, "/")}
	exec := h.Mode&0o111 != 0
	_, named := h.PAXRecords[RecordCID]
	switch h.Typeflag {
	case tar.TypeReg:
		e.Kind, e.Size = grid.KindFile, h.Size
		switch {
		case named:
			return in.byName(e, h)
		case h.Size <= stepBytes:
			return in.smallFile(e, h, exec)
		}
		return in.largeFile(e, h, exec)
	case tar.TypeDir:
		e.Kind = grid.KindDir
		if named {
			return in.byName(e, h)
		}
	case tar.TypeSymlink:
		e.Kind, e.Target = grid.KindSymlink, h.Linkname
	default:
		return grid.Errorf(grid.Unsupported, "add %s: only files, folders and symlinks can be stored", h.Name)
	}
	st := in.room(0)
	st.entries = append(st.entries, e)
	return nil
}

// byName takes in an entry that names its file or folder.
func (in *intake) byName(e grid.FileInfo, h *tar.Header) error {
	if err := readName(&e, h); err != nil {
		return grid.Errorf(grid.CodeOf(err), "add %s: %w", h.Name, err)
	}
	in.hold(e.CID.Cid)
	st := in.room(0)
	st.named = append(st.named, len(st.entries))
	st.entries = append(st.entries, e)
	return nil
}

// readName reads the records of such an entry.
func readName(e *grid.FileInfo, h *tar.Header) (err error) {
	if h.Size != 0 {
		return grid.Errorf(grid.Invalid, "it has content beside its record %s", RecordCID)
	}
	if e.CID, err = grid.ParseLink(h.PAXRecords[RecordCID]); err != nil {
		return err
	}
	if err := grid.CheckCID(e.CID.Cid); err != nil {
		return err
	}
	if e.Size, err = strconv.ParseInt(h.PAXRecords[RecordSize], 10, 64); err != nil || e.Size < 0 {
		return grid.Errorf(grid.Invalid, "its record %s is %q, want its size", RecordSize, h.PAXRecords[RecordSize])
	}
	return nil
}

// room is the open step, with memory for so many bytes more.
func (in *intake) room(bytes int) *step {
	if st := in.open; st != nil && (len(st.entries) >= stepEntries || bytes > cap(st.memory)-len(st.memory)) {
		if len(st.entries) >= stepEntries || st.memory != nil {
			in.flush()
		}
	}
	if in.open == nil {
		in.open = &step{done: make(chan struct{})}
	}
	if in.open.memory == nil && bytes > 0 {
		if in.open.memory = (<-in.free)[:0]; in.open.memory == nil {
			in.open.memory = make([]byte, 0, stepBytes)
		}
	}
	return in.open
}

func (in *intake) smallFile(e grid.FileInfo, h *tar.Header, exec bool) error {
	st := in.room(int(h.Size))
	from := len(st.memory)
	st.memory = st.memory[:from+int(h.Size)]
	data := st.memory[from:]
	if _, err := io.ReadFull(in.tr, data); err != nil {
		st.memory = st.memory[:from]
		return unreadable(h.Name, err)
	}
	e.Exec = exec
	st.at = append(st.at, len(st.entries))
	st.small = append(st.small, grid.Content{Data: data, Exec: exec})
	st.entries = append(st.entries, e)
	return nil
}

func unreadable(name string, err error) error {
	code := grid.CodeOf(err)
	if code == grid.Unknown {
		code = grid.Invalid
	}
	return grid.Errorf(code, "add %s: the archive cannot be read: %w", name, err)
}

// largeFile stores a file as it comes, as a step of its own.
func (in *intake) largeFile(e grid.FileInfo, h *tar.Header, exec bool) error {
	in.flush()
	c, size, err := in.files.Add(in.ctx, in.tr)
	if err == nil && exec {
		c, err = in.files.Executable(in.ctx, c)
	}
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return unreadable(h.Name, err)
	case err != nil:
		return grid.Errorf(grid.CodeOf(err), "add %s: %w", h.Name, err)
	}
	e.CID, e.Size, e.Exec = grid.Link{Cid: c}, size, exec
	st := &step{entries: []grid.FileInfo{e}, good: 1, done: make(chan struct{})}
	close(st.done)
	in.steps <- st
	return nil
}

// flush begins to store the open step.
func (in *intake) flush() {
	st := in.open
	if st == nil {
		return
	}
	in.open = nil
	in.steps <- st
	in.wg.Go(func() {
		defer close(st.done)
		st.store(in.ctx, in.files)
		if st.memory != nil {
			in.free <- st.memory
			st.memory, st.small = nil, nil
		}
	})
}

// store stores the files of a step and finds the first entry that cannot be.
func (st *step) store(ctx context.Context, files grid.Files) {
	st.good = len(st.entries)
	bad := func(i int, err error) {
		if i < st.good {
			st.good, st.err = i, grid.Errorf(grid.CodeOf(err), "add %s: %w", st.entries[i].Name, err)
		}
	}
	for _, i := range st.named {
		if err := confirm(ctx, files, &st.entries[i]); err != nil {
			bad(i, err)
		}
	}
	if len(st.small) == 0 {
		return
	}
	cids, err := files.AddMany(ctx, st.small)
	for k, i := range st.at {
		if err == nil {
			st.entries[i].CID = grid.Link{Cid: cids[k]}
			continue
		}
		one, err := files.AddMany(ctx, st.small[k:k+1]) // whose error is it?
		if err != nil {
			bad(i, err)
			return
		}
		st.entries[i].CID = grid.Link{Cid: one[0]}
	}
}

// confirm sees that all of a file that was named is here, and tells what its CID says of it. AddTree looks for files
// of one raw block, whose sizes are the sender's to tell, as those of AddTree's entries are.
func confirm(ctx context.Context, files grid.Files, e *grid.FileInfo) error {
	if e.CID.Prefix().Codec == cid.Raw && e.Kind == grid.KindFile {
		return nil
	}
	ok, err := files.Whole(ctx, e.CID.Cid)
	if err != nil {
		return err
	}
	if !ok {
		return grid.Errorf(grid.NotFound, "not all of %s is on the node any more", e.CID).Hint("add it again")
	}
	info, err := files.Look(ctx, e.CID.Cid)
	if err != nil {
		return err
	}
	if info.Kind != e.Kind {
		return grid.Errorf(grid.Invalid, "%s is a %s, not a %s", e.CID, info.Kind, e.Kind)
	}
	if e.Kind == grid.KindFile { // of a folder it is not told without going through it
		e.Size, e.Exec = info.Size, info.Exec
	}
	return nil
}

// wanted is the question of POST /have.
type wanted struct {
	CIDs []grid.Link `json:"cids"` // of files and folders
}

// missing is the answer to wanted.
type missing struct {
	Missing []grid.Link `json:"missing"` // those of which not all is here, in the order of the question
}

// have tells which of some files and folders are not here, or not whole.
func (s *Server) have(w http.ResponseWriter, r *http.Request) error {
	var q wanted
	if err := readBody(w, r, "the question which CIDs are here", maxRequestJSON, &q); err != nil {
		return err
	}
	if len(q.CIDs) > maxMissing {
		return grid.Errorf(grid.Limit, "%d CIDs in one question, at most %d are allowed", len(q.CIDs), maxMissing)
	}
	a := missing{Missing: []grid.Link{}}
	for _, l := range q.CIDs {
		ok, err := s.Node.Files.Whole(r.Context(), l.Cid)
		if err != nil {
			return err
		}
		if !ok {
			a.Missing = append(a.Missing, l)
		}
	}
	return reply(w, a, nil)
}
