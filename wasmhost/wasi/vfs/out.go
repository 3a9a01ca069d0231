package vfs

import (
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Out hands over what is in /out, or nil when nothing is. The tree is read-only, safe for concurrent
// use, and lives on after Reset; until then the FS must not be used any more. It implements
// fs.ReadDirFS and fs.ReadLinkFS; its files implement io.Seeker and io.ReaderAt. Links are listed as
// links, whatever they point at; opening one follows it inside /out.
func (f *FS) Out() fs.FS {
	if f.root == nil {
		return nil
	}
	out := f.root.children[OutDir]
	if len(out.children) == 0 {
		return nil
	}
	out.parent = nil // lets go of the rest
	return tree{new(FS), out}
}

// tree is a finished /out.
type tree struct {
	fs   *FS // with no mounts and no limits: only to walk by
	root *node
}

func (t tree) find(op, name string, follow bool) (*node, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	at, errno := t.fs.walk(t.root.step(), name, follow)
	if errno != ESUCCESS || at.node == nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	return at.node, nil
}

// base is the last name of a path.
func base(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

func (t tree) Open(name string) (fs.File, error) {
	n, err := t.find("open", name, true)
	if err != nil {
		return nil, err
	}
	info := outInfo{n, base(name)}
	if n.isDir() {
		return &outDir{info: info, entries: entries(n)}, nil
	}
	return &outFile{info: info, SectionReader: io.NewSectionReader(outBytes{n}, 0, n.data.size)}, nil
}

func (t tree) Stat(name string) (fs.FileInfo, error) {
	n, err := t.find("stat", name, true)
	if err != nil {
		return nil, err
	}
	return outInfo{n, base(name)}, nil
}

func (t tree) Lstat(name string) (fs.FileInfo, error) {
	n, err := t.find("lstat", name, false)
	if err != nil {
		return nil, err
	}
	return outInfo{n, base(name)}, nil
}

func (t tree) ReadLink(name string) (string, error) {
	n, err := t.find("readlink", name, false)
	if err == nil && n.kind != Symlink {
		err = &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	if err != nil {
		return "", err
	}
	return n.target, nil
}

func (t tree) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := t.find("readdir", name, true)
	if err == nil && !n.isDir() {
		err = &fs.PathError{Op: "readdir", Path: name, Err: syscall.ENOTDIR}
	}
	if err != nil {
		return nil, err
	}
	return entries(n), nil
}

func entries(n *node) []fs.DirEntry {
	list := make([]fs.DirEntry, 0, len(n.children))
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		list = append(list, fs.FileInfoToDirEntry(outInfo{n.children[name], name}))
	}
	return list
}

// outInfo is a node as fs.FileInfo.
type outInfo struct {
	node *node
	name string
}

func (i outInfo) Name() string { return i.name }
func (i outInfo) Size() int64  { return i.node.stat().Size }
func (i outInfo) Mode() fs.FileMode {
	switch i.node.kind {
	case Folder:
		return fs.ModeDir | 0o755
	case Symlink:
		return fs.ModeSymlink | 0o777
	}
	return 0o644
}
func (i outInfo) ModTime() time.Time { return time.Unix(0, i.node.mtime).UTC() }
func (i outInfo) IsDir() bool        { return i.node.isDir() }
func (i outInfo) Sys() any           { return nil }

// outBytes reads a file's pages.
type outBytes struct{ node *node }

func (b outBytes) ReadAt(p []byte, off int64) (int, error) {
	n := b.node.data.readAt(p, off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

type outFile struct {
	*io.SectionReader
	info outInfo
}

func (f *outFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *outFile) Close() error               { return nil }

type outDir struct {
	info    outInfo
	entries []fs.DirEntry
}

func (d *outDir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *outDir) Close() error               { return nil }
func (d *outDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.info.name, Err: fs.ErrInvalid}
}

func (d *outDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		list := d.entries
		d.entries = nil
		return list, nil
	}
	if len(d.entries) == 0 {
		return nil, io.EOF
	}
	list := d.entries[:min(n, len(d.entries))]
	d.entries = d.entries[len(list):]
	return list, nil
}
