package cli

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"unicode/utf8"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
	"github.com/wasmgrid/wasmgrid/store/remote"
)

// item is a file or folder to be put into an archive. A folder is put in whole, its symlinks as
// symlinks; what the item itself is, is found by following links.
type item struct {
	name string // in the archive; "" puts a folder's entries at the top
	path string // or the URL of one file outside
}

// uploading says how to put items into an archive.
type uploading struct {
	what        string          // for the progress bar
	total       uint64          // bytes, if that is known
	skipSpecial bool            // leave out what is neither file, folder nor symlink
	plain       bool            // leave out which files are executable
	parts       map[string]part // by name of an item: it is but a part of its file
	imports     *imports        // files that need not be read; nil: none
	whole       *grid.FileInfo  // a folder that the node has, to be named in place of all items
}

// upload sends items to the node as one archive, shows how far that is, and returns the folder that
// holds them. each, when not nil, is told of every entry stored. Nothing is held in memory.
func (e *env) upload(ctx context.Context, s *session, how uploading, items []item, each func(grid.FileInfo)) (grid.FileInfo, error) {
	held, err := e.held(ctx, s, items)
	if err != nil {
		return grid.FileInfo{}, err
	}
	m := e.startMeter(progress{what: how.what, total: how.total})
	defer m.stop()
	pr, pw := io.Pipe()
	written := make(chan error, 1)
	go func() {
		a := newArchiver(pw)
		a.count, a.how, a.note, a.open, a.held = m.add, how, e.note, e.open, held
		if how.total == 0 {
			a.expect = m.expect
		}
		err := a.write(ctx, items)
		pw.CloseWithError(err) // nil: io.EOF
		written <- err
	}()
	root, err := s.Add(ctx, pr, func(info grid.FileInfo) {
		how.imports.stored(info)
		if each != nil {
			each(info)
		}
	})
	pr.CloseWithError(errNodeStopped)
	if werr := <-written; werr != nil && !stopped(werr) {
		return root, werr // the cause of err, if there is one
	}
	return root, err
}

// errNodeStopped ends the archiver when the node has read enough.
var errNodeStopped = errors.New("the node stopped reading")

// stopped reports whether the archiver has ended because nobody reads any more: HTTP closes the pipe when the node has answered
// before it has read all.
func stopped(err error) bool {
	return errors.Is(err, errNodeStopped) || errors.Is(err, io.ErrClosedPipe)
}

// pieceSize is how many bytes are read and sent at a time.
const pieceSize = 256 << 10

// archiver writes files and folders as a tar archive that holds names, contents and whether a file is
// executable: what belongs to this machine, such as times and owners, would only change CIDs.
type archiver struct {
	out   *bufio.Writer // below tar; gathers what is small
	tar   *tar.Writer
	how   uploading
	count func(bytes int)

	expect func(bytes int64) // told of the size of what comes from outside
	open   func(ctx context.Context, url string) (*remote.Stream, error)
	held   map[string]grid.FileInfo // by URL: what need not be fetched

	note func(format string, args ...any)
	buf  []byte
}

func newArchiver(w io.Writer) *archiver {
	out := bufio.NewWriterSize(w, pieceSize)
	return &archiver{out: out, tar: tar.NewWriter(out), count: func(int) {}, expect: func(int64) {}, buf: make([]byte, pieceSize)}
}

func (a *archiver) write(ctx context.Context, items []item) error {
	if f := a.how.whole; f != nil {
		a.count(int(f.Size))
		if err := a.header(&tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755, PAXRecords: byName(f.CID, f.Size)}); err != nil {
			return err
		}
	}
	outside := a.openAhead(ctx, items)
	defer outside.stop()
	for _, it := range items {
		var err error
		if remote.Is(it.path) {
			err = a.outside(ctx, it, outside)
		} else {
			err = a.item(ctx, it)
		}
		if err != nil {
			return err
		}
	}
	if err := a.tar.Close(); err != nil {
		return err
	}
	return a.out.Flush()
}

func (a *archiver) item(ctx context.Context, it item) error {
	if p, ok := a.how.parts[it.name]; ok {
		return a.part(ctx, it, p)
	}
	info, err := os.Stat(it.path)
	switch {
	case err != nil:
		return grid.Errorf(codeOfOS(err), "%s: %w", it.path, reason(err))
	case info.Mode().IsRegular():
		return a.file(ctx, it.name, it.path)
	case !info.IsDir():
		return grid.Errorf(grid.Unsupported, "%s is neither a file nor a folder", it.path)
	}
	top, err := filepath.EvalSymlinks(it.path) // WalkDir does not follow its root
	if err != nil {
		return grid.Errorf(codeOfOS(err), "%s: %w", it.path, reason(err))
	}
	return filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return grid.Errorf(codeOfOS(err), "%s: %w", p, reason(err))
		}
		rel, err := filepath.Rel(top, p)
		if err != nil {
			return grid.Errorf(grid.Internal, "%s: %w", p, err)
		}
		return a.entry(ctx, path.Join(it.name, filepath.ToSlash(rel)), p, d)
	})
}

// entry writes one entry of a folder.
func (a *archiver) entry(ctx context.Context, name, p string, d fs.DirEntry) error {
	if !utf8.ValidString(name) {
		return grid.Errorf(grid.Invalid, "%q: its name is not UTF-8", p).Hint("rename it")
	}
	switch {
	case d.Type().IsRegular():
		return a.file(ctx, name, p)
	case d.IsDir():
		if name == "." {
			return nil
		}
		a.how.imports.other(name, "")
		return a.header(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755})
	case d.Type()&fs.ModeSymlink != 0:
		target, err := os.Readlink(p)
		if err != nil {
			return grid.Errorf(codeOfOS(err), "%s: %w", p, reason(err))
		}
		a.how.imports.other(name, filepath.ToSlash(target))
		return a.header(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: filepath.ToSlash(target), Mode: 0o777})
	case a.how.skipSpecial:
		a.note("left out %s, which is neither file, folder nor symlink", printable(p))
		return nil
	}
	return grid.Errorf(grid.Unsupported, "%s is neither file, folder nor symlink", p).Hint("leave such entries out with --skip-special")
}

// file writes a regular file, whose size must not change meanwhile, or what it was stored as before.
func (a *archiver) file(ctx context.Context, name, p string) error {
	if a.how.imports != nil {
		info, err := os.Stat(p)
		if err != nil {
			return grid.Errorf(codeOfOS(err), "read %s: %w", p, reason(err))
		}
		if c, ok := a.how.imports.unchanged(name, info); ok {
			a.count(int(info.Size()))
			return a.header(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: a.mode(info), PAXRecords: byName(c, info.Size())})
		}
	}
	f, err := os.Open(p)
	if err != nil {
		return grid.Errorf(codeOfOS(err), "read %s: %w", p, reason(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return grid.Errorf(codeOfOS(err), "read %s: %w", p, reason(err))
	}
	a.how.imports.reading(name, info)
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: info.Size(), Mode: a.mode(info)}
	if err := a.header(h); err != nil {
		return err
	}
	return a.content(ctx, p, f, info.Size(), a.count)
}

// part is some bytes of a file, as it was when the part was chosen.
type part struct {
	offset, size int64
	of           fs.FileInfo
}

// part writes a part of a file, which must not have changed.
func (a *archiver) part(ctx context.Context, it item, p part) error {
	f, err := os.Open(it.path)
	if err != nil {
		return grid.Errorf(codeOfOS(err), "read %s: %w", it.path, reason(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return grid.Errorf(codeOfOS(err), "read %s: %w", it.path, reason(err))
	}
	if info.Size() != p.of.Size() || !info.ModTime().Equal(p.of.ModTime()) {
		return changed(it.path, "changed")
	}
	if err := a.header(&tar.Header{Typeflag: tar.TypeReg, Name: it.name, Size: p.size, Mode: 0o644}); err != nil {
		return err
	}
	return a.content(ctx, it.path, io.NewSectionReader(f, p.offset, p.size), p.size, a.count)
}

// content writes what follows a header: so many bytes of r, which is called p.
func (a *archiver) content(ctx context.Context, p string, r io.Reader, left int64, count func(int)) error {
	if left >= pieceSize {
		if err := a.out.Flush(); err != nil { // an empty buffer lets large pieces pass it
			return err
		}
	}
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := r.Read(a.buf)
		if int64(n) > left {
			return changed(p, "grew")
		}
		left -= int64(n)
		if _, werr := a.tar.Write(a.buf[:n]); werr != nil {
			return werr
		}
		count(n)
		switch {
		case err == io.EOF && left > 0:
			return changed(p, "shrank")
		case err == io.EOF:
			return nil
		case grid.CodeOf(err) != grid.Unknown:
			return err
		case err != nil:
			return grid.Errorf(codeOfOS(err), "read %s: %w", p, reason(err))
		}
	}
}

// mode tells of a file's mode whether it may be executed.
func (a *archiver) mode(info fs.FileInfo) int64 {
	if info.Mode()&0o111 != 0 && !a.how.plain {
		return 0o755
	}
	return 0o644
}

// byName names what the node has.
func byName(c grid.Link, size int64) map[string]string {
	return map[string]string{api.RecordCID: c.String(), api.RecordSize: strconv.FormatInt(size, 10)}
}

func changed(p, how string) error {
	return grid.Errorf(grid.Conflict, "%s %s while it was read", p, how).Hint("wait until nothing writes to it, or give a copy")
}

func (a *archiver) header(h *tar.Header) error {
	h.Format = tar.FormatPAX // long and non-ASCII names
	return a.tar.WriteHeader(h)
}
