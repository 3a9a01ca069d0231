package crypt

import (
	"context"
	"io"
	"io/fs"
	"sync"

	"filippo.io/age"
	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Bounds of one view.
const (
	maxOpen    = 256            // encrypted files whose keys are remembered
	maxEntries = 4 * MaxEntries // of all encrypted folders that it shows: they are in memory
)

// View is files among which those that are encrypted are seen as they were: a file as a file, a folder as a folder.
// Others are seen as they are. In a folder that is not itself encrypted, an encrypted folder is seen as an archive. What
// is added is not encrypted. lost, if it is not nil, is told of what cannot be shown because no key fits or because it is damaged.
func View(files grid.Files, ids []age.Identity, lost func(error)) grid.Files {
	if lost == nil {
		lost = func(error) {}
	}
	return &view{Files: files, ids: ids, lost: lost, open: map[cid.Cid]*opened{}, left: maxEntries}
}

type view struct {
	grid.Files
	ids  []age.Identity
	lost func(error)

	mu   sync.Mutex
	open map[cid.Cid]*opened
	left int // entries
}

// opened is an encrypted file; nil stands for one that is not encrypted.
type opened struct {
	file   *File
	folder *Folder // nil: it was made of a file
}

// find opens a file if it is encrypted.
func (v *view) find(ctx context.Context, c cid.Cid) (*opened, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if o, ok := v.open[c]; ok {
		return o, nil
	}
	at, err := v.Files.Look(ctx, c)
	if err != nil {
		return nil, err
	}
	var o *opened
	if at.Kind == grid.KindFile {
		r, err := v.Files.Open(ctx, c)
		if err != nil {
			return nil, err
		}
		if o, err = v.unlock(c.String(), r, at.Size); err == nil && o != nil {
			err = v.unfold(c, o)
		}
		if err != nil {
			return nil, err
		}
	}
	if len(v.open) >= maxOpen {
		clear(v.open)
	}
	v.open[c] = o
	return o, nil
}

// unfold finds out whether a file was made of a folder. v.mu is held.
func (v *view) unfold(c cid.Cid, o *opened) (err error) {
	if o.folder, err = o.file.Folder(); err == nil && o.folder != nil {
		if v.left -= len(o.folder.nodes); v.left < 0 {
			err = grid.Errorf(grid.Limit, "the encrypted folders have more than %d entries together", maxEntries)
		}
	}
	if err != nil {
		err = grid.Errorf(grid.CodeOf(err), "decrypt %s: %w", c, err)
		v.lost(err)
	}
	return err
}

// unlock opens what is encrypted; nil if it is not.
func (v *view) unlock(name string, r io.ReadSeeker, size int64) (*opened, error) {
	at, ok := r.(io.ReaderAt)
	if !ok {
		at = &turns{r: r}
	}
	head := make([]byte, len(Intro))
	if n, err := at.ReadAt(head, 0); n < len(head) || !Is(head) {
		if err == io.EOF {
			err = nil
		}
		return nil, err
	}
	f, err := Open(at, size, v.ids...)
	if err != nil {
		err = grid.Errorf(grid.CodeOf(err), "decrypt %s: %w", name, err)
		v.lost(err)
		return nil, err
	}
	f.lost = func(err error) { v.lost(grid.Errorf(grid.CodeOf(err), "decrypt %s: %w", name, err)) }
	return &opened{file: f}, nil
}

// turns reads at offsets by moving.
type turns struct {
	mu sync.Mutex
	r  io.ReadSeeker
}

func (t *turns) ReadAt(p []byte, off int64) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, err := t.r.Seek(off, io.SeekStart); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(t.r, p)
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	return n, err
}

// Look is that of grid.Files.
func (v *view) Look(ctx context.Context, c cid.Cid) (grid.FileInfo, error) {
	return v.info(ctx, c, v.Files.Look)
}

// Stat is that of grid.Files.
func (v *view) Stat(ctx context.Context, c cid.Cid) (grid.FileInfo, error) {
	return v.info(ctx, c, v.Files.Stat)
}

func (v *view) info(ctx context.Context, c cid.Cid, look func(context.Context, cid.Cid) (grid.FileInfo, error)) (grid.FileInfo, error) {
	e, err := look(ctx, c)
	if err != nil || e.Kind != grid.KindFile {
		return e, err
	}
	o, err := v.find(ctx, c)
	switch {
	case err != nil || o == nil:
	case o.folder != nil:
		e.Kind, e.Size, e.Exec = grid.KindDir, o.folder.Size(), false
	default:
		e.Size = o.file.Size()
	}
	return e, err
}

// Open is that of grid.Files.
func (v *view) Open(ctx context.Context, c cid.Cid) (io.ReadSeekCloser, error) {
	o, err := v.find(ctx, c)
	switch {
	case err != nil:
		return nil, err
	case o == nil:
		return v.Files.Open(ctx, c)
	case o.folder != nil:
		return nil, grid.Errorf(grid.Invalid, "open %s: it is an encrypted folder", c)
	}
	return o.file.Reader(), nil
}

// List is that of grid.Files. What is in an encrypted folder has no CIDs.
func (v *view) List(ctx context.Context, c cid.Cid) ([]grid.FileInfo, error) {
	o, err := v.find(ctx, c)
	if err == nil && o != nil {
		err = grid.Errorf(grid.Invalid, "list %s: what is encrypted in it has no CIDs", c).Hint("mount it as a folder")
	}
	if err != nil {
		return nil, err
	}
	return v.Files.List(ctx, c)
}

// FS is that of grid.Files.
func (v *view) FS(ctx context.Context, c cid.Cid) (fs.FS, error) {
	o, err := v.find(ctx, c)
	if err != nil {
		return nil, err
	}
	if o != nil && o.folder != nil {
		return o.folder, nil
	}
	tree, err := v.Files.FS(ctx, c)
	if err != nil {
		return nil, err
	}
	return &treeFS{v, tree}, nil
}

// treeFS is a folder in which some files are encrypted.
type treeFS struct {
	v  *view
	fs fs.FS
}

// Open implements fs.FS.
func (t *treeFS) Open(name string) (fs.File, error) {
	f, err := t.fs.Open(name)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	if dir, ok := f.(fs.ReadDirFile); ok && st.IsDir() {
		return &treeDir{dir, t, name}, nil
	}
	r, ok := f.(io.ReadSeeker)
	if !ok || !st.Mode().IsRegular() {
		return f, nil
	}
	o, err := t.v.unlock(name, r, st.Size())
	if err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	if o == nil {
		return f, nil
	}
	return &treeFile{o.file.Reader(), f, info{st.Name(), o.file.Size(), st.Mode()}}, nil
}

// Stat implements fs.StatFS.
func (t *treeFS) Stat(name string) (fs.FileInfo, error) { return t.stat(name, fs.Stat) }

// Lstat implements fs.ReadLinkFS.
func (t *treeFS) Lstat(name string) (fs.FileInfo, error) { return t.stat(name, fs.Lstat) }

// ReadLink implements fs.ReadLinkFS.
func (t *treeFS) ReadLink(name string) (string, error) { return fs.ReadLink(t.fs, name) }

func (t *treeFS) stat(name string, look func(fs.FS, string) (fs.FileInfo, error)) (fs.FileInfo, error) {
	st, err := look(t.fs, name)
	if err != nil || !st.Mode().IsRegular() {
		return st, err
	}
	f, err := t.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	of, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return info{st.Name(), of.Size(), st.Mode()}, nil
}

// treeFile is an encrypted file that is open.
type treeFile struct {
	*Reader
	below fs.File
	info  info
}

func (f *treeFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *treeFile) Close() error               { return f.below.Close() }

// treeDir is a folder that is open.
type treeDir struct {
	fs.ReadDirFile
	t    *treeFS
	name string
}

// ReadDir implements fs.ReadDirFile.
func (d *treeDir) ReadDir(n int) ([]fs.DirEntry, error) {
	list, err := d.ReadDirFile.ReadDir(n)
	for i, e := range list {
		if e.Type().IsRegular() {
			list[i] = &treeEntry{e, d}
		}
	}
	return list, err
}

// treeEntry is a file in a folder, that may be encrypted.
type treeEntry struct {
	fs.DirEntry
	d *treeDir
}

// Info implements fs.DirEntry.
func (e *treeEntry) Info() (fs.FileInfo, error) {
	name := e.Name()
	if e.d.name != "." {
		name = e.d.name + "/" + name
	}
	return e.d.t.Lstat(name)
}
