package crypt

import (
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

const maxFollow = 40 // symlinks on one path, as Linux has it

// find walks to a name, following symlinks, the last one only if asked to, and tells where that leads.
func (d *Folder) find(op, name string, follow bool) (*entry, string, error) {
	fail := func(err error) (*entry, string, error) { return nil, "", &fs.PathError{Op: op, Path: name, Err: err} }
	if !fs.ValidPath(name) {
		return fail(fs.ErrInvalid)
	}
	if n := d.nodes[name]; n != nil && n.mode&fs.ModeSymlink == 0 {
		return n, name, nil
	}
	at, todo, links := ".", strings.Split(name, "/"), 0
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..": // only of a symlink's target
			if at == "." {
				return fail(grid.Errorf(grid.Denied, "a symlink leads outside of the folder"))
			}
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, part)
		n := d.nodes[next]
		if n == nil {
			return fail(fs.ErrNotExist)
		}
		if n.mode&fs.ModeSymlink == 0 || len(todo) == 0 && !follow {
			at = next
			continue
		}
		if links++; links > maxFollow {
			return fail(grid.Errorf(grid.Limit, "more than %d symlinks", maxFollow))
		}
		target, err := d.target(n)
		if err != nil {
			return fail(err)
		}
		if path.IsAbs(target) {
			return fail(grid.Errorf(grid.Denied, "a symlink leads outside of the folder"))
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return d.nodes[at], at, nil
}

// Open implements fs.FS.
func (d *Folder) Open(name string) (fs.File, error) {
	n, at, err := d.find("open", name, true)
	if err != nil {
		return nil, err
	}
	if n.mode.IsDir() {
		return &folder{d: d, at: at, left: n.names}, nil
	}
	r, err := d.section(n)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &file{r, info{path.Base(at), n.size, n.mode}}, nil
}

// Stat implements fs.StatFS.
func (d *Folder) Stat(name string) (fs.FileInfo, error) { return d.stat(name, true) }

// Lstat implements fs.ReadLinkFS.
func (d *Folder) Lstat(name string) (fs.FileInfo, error) { return d.stat(name, false) }

func (d *Folder) stat(name string, follow bool) (fs.FileInfo, error) {
	n, at, err := d.find("stat", name, follow)
	if err != nil {
		return nil, err
	}
	return info{path.Base(at), n.size, n.mode}, nil
}

// ReadLink implements fs.ReadLinkFS.
func (d *Folder) ReadLink(name string) (string, error) {
	n, _, err := d.find("readlink", name, false)
	if err == nil && n.mode&fs.ModeSymlink == 0 {
		err = &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	if err != nil {
		return "", err
	}
	return d.target(n)
}

// file is one that is open.
type file struct {
	*Reader
	info info
}

func (f *file) Stat() (fs.FileInfo, error) { return f.info, nil }

// folder is one that is open.
type folder struct {
	d    *Folder
	at   string
	left []string
}

func (f *folder) Stat() (fs.FileInfo, error) { return f.d.Lstat(f.at) }
func (f *folder) Close() error               { return nil }
func (f *folder) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: f.at, Err: fs.ErrInvalid}
}

// ReadDir implements fs.ReadDirFile; entries come sorted by name.
func (f *folder) ReadDir(n int) ([]fs.DirEntry, error) {
	if n > 0 && len(f.left) == 0 {
		return nil, io.EOF
	}
	if n <= 0 || n > len(f.left) {
		n = len(f.left)
	}
	out := make([]fs.DirEntry, n)
	for i, name := range f.left[:n] {
		e := f.d.nodes[path.Join(f.at, name)]
		out[i] = fs.FileInfoToDirEntry(info{name, e.size, e.mode})
	}
	f.left = f.left[n:]
	return out, nil
}

// info describes an entry; there are no times, so that guests see the same everywhere.
type info struct {
	name string
	size int64
	mode fs.FileMode
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) Mode() fs.FileMode  { return i.mode }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.mode.IsDir() }
func (i info) Sys() any           { return nil }
