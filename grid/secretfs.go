package grid

import (
	"bytes"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
)

// secretFS is a folder of secrets in memory, a file each. It does not change.
type secretFS struct{ values map[string][]byte }

const (
	secretMode    = 0o400
	secretDirMode = fs.ModeDir | 0o500
)

// Open implements fs.FS.
func (f *secretFS) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	if name == "." {
		return &secretDir{f, slices.Sorted(maps.Keys(f.values))}, nil
	}
	value, ok := f.values[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &secretFile{bytes.NewReader(value), name}, nil
}

type secretFile struct {
	*bytes.Reader
	name string
}

func (f *secretFile) Stat() (fs.FileInfo, error) {
	return inputInfo{path.Base(f.name), f.Size(), secretMode}, nil
}
func (f *secretFile) Close() error { return nil }

type secretDir struct {
	of   *secretFS
	left []string
}

func (d *secretDir) Stat() (fs.FileInfo, error) { return inputInfo{".", 0, secretDirMode}, nil }
func (d *secretDir) Close() error               { return nil }
func (d *secretDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: ".", Err: fs.ErrInvalid}
}

// ReadDir implements fs.ReadDirFile; entries come sorted by name.
func (d *secretDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n > 0 && len(d.left) == 0 {
		return nil, io.EOF
	}
	if n <= 0 || n > len(d.left) {
		n = len(d.left)
	}
	entries := make([]fs.DirEntry, n)
	for i, name := range d.left[:n] {
		entries[i] = fs.FileInfoToDirEntry(inputInfo{name, int64(len(d.of.values[name])), secretMode})
	}
	d.left = d.left[n:]
	return entries, nil
}
