package grid

import (
	"context"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// mounts shows a task's inputs and the stage's mounts as file systems, by guest path.
func mounts(ctx context.Context, files Files, t *Task) (map[string]fs.FS, error) {
	if len(t.Inputs) == 0 && len(t.Mounts) == 0 {
		return nil, nil
	}
	m := make(map[string]fs.FS, 1+len(t.Mounts))
	switch {
	case isWholeTree(t.Inputs):
		tree, err := files.FS(ctx, t.Inputs[0].CID.Cid)
		if err != nil {
			return nil, Errorf(CodeOf(err), "inputs: %w", err)
		}
		m[GuestIn] = tree
	case len(t.Inputs) > 0:
		in := newInputFS(ctx, files)
		for _, i := range t.Inputs {
			if err := in.add(i.Name, i.CID); err != nil {
				return nil, err
			}
		}
		m[GuestIn] = in
	}
	for _, mount := range t.Mounts {
		if err := addMount(ctx, files, m, mount); err != nil {
			return nil, Errorf(CodeOf(err), "mount %s: %w", mount.Path, err)
		}
	}
	return m, nil
}

// addMount adds one mount. WASI shows only folders, so a file is mounted as the one entry of its folder.
func addMount(ctx context.Context, files Files, m map[string]fs.FS, mount Mount) error {
	info, err := files.Look(ctx, mount.CID.Cid)
	if err != nil {
		return err
	}
	if info.Kind == KindDir {
		m[mount.Path], err = files.FS(ctx, mount.CID.Cid)
		return err
	}
	dir, name := path.Split(mount.Path)
	if dir != "/" {
		dir = strings.TrimSuffix(dir, "/")
	}
	folder, ok := m[dir].(*inputFS)
	if !ok {
		if m[dir] != nil {
			return Errorf(Invalid, "%s is a mounted folder already", dir)
		}
		folder = newInputFS(ctx, files)
		m[dir] = folder
	}
	return folder.add(name, mount.CID)
}

// inputFS is a read-only file system made of named DAGs; folders on the way to a name are implied.
type inputFS struct {
	ctx   context.Context
	files Files
	nodes map[string]*inputNode // by path; the root is "."
}

type inputNode struct {
	link     Link                // of a leaf; undefined for an implied folder
	children map[string]struct{} // of an implied folder
}

func newInputFS(ctx context.Context, files Files) *inputFS {
	return &inputFS{ctx, files, map[string]*inputNode{".": {children: map[string]struct{}{}}}}
}

func (f *inputFS) add(name string, l Link) error {
	if !fs.ValidPath(name) || name == "." {
		return Errorf(Invalid, "input name %q: want a clean relative path", name)
	}
	if f.nodes[name] != nil {
		return Errorf(Invalid, "two inputs are named %q, or one is a folder of that name", name)
	}
	f.nodes[name] = &inputNode{link: l}
	for name != "." {
		dir := path.Dir(name)
		parent := f.nodes[dir]
		if parent == nil {
			parent = &inputNode{children: map[string]struct{}{}}
			f.nodes[dir] = parent
		}
		if parent.children == nil {
			return Errorf(Invalid, "input %q lies below another input", name)
		}
		parent.children[path.Base(name)] = struct{}{}
		name = dir
	}
	return nil
}

// find resolves a name to an implied folder, or to a leaf and the rest of the name below it.
func (f *inputFS) find(op, name string) (n *inputNode, rest string, err error) {
	if !fs.ValidPath(name) {
		return nil, "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	if n = f.nodes[name]; n != nil {
		return n, ".", nil
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if n = f.nodes[dir]; n != nil && n.children == nil {
			return n, strings.TrimPrefix(name, dir+"/"), nil
		}
	}
	return nil, "", &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

// Open implements fs.FS.
func (f *inputFS) Open(name string) (fs.File, error) {
	n, rest, err := f.find("open", name)
	if err != nil {
		return nil, err
	}
	if n.children != nil {
		return &inputDir{fsys: f, name: name, node: n}, nil
	}
	info, err := f.files.Look(f.ctx, n.link.Cid)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	if info.Kind == KindDir {
		tree, err := f.files.FS(f.ctx, n.link.Cid)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		f, err := tree.Open(rest)
		if dir, ok := f.(fs.ReadDirFile); ok && rest == "." { // it knows itself as ".", not by its name here
			return &inputTree{dir, inputInfo{path.Base(name), 0, fs.ModeDir | 0o555}}, nil
		}
		return f, err
	}
	if rest != "." {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	r, err := f.files.Open(f.ctx, n.link.Cid)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &inputFile{ReadSeekCloser: r, info: inputInfo{path.Base(name), info.Size, permissions(info)}}, nil
}

// Stat implements fs.StatFS.
func (f *inputFS) Stat(name string) (fs.FileInfo, error) {
	n, rest, err := f.find("stat", name)
	if err != nil {
		return nil, err
	}
	if n.children != nil {
		return inputInfo{path.Base(name), 0, fs.ModeDir | 0o555}, nil
	}
	info, err := f.files.Look(f.ctx, n.link.Cid)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	if info.Kind == KindDir {
		tree, err := f.files.FS(f.ctx, n.link.Cid)
		if err != nil {
			return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
		}
		fi, err := fs.Stat(tree, rest)
		if err != nil || rest != "." {
			return fi, err
		}
		return inputInfo{path.Base(name), 0, fs.ModeDir | 0o555}, nil
	}
	if rest != "." {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	return inputInfo{path.Base(name), info.Size, permissions(info)}, nil
}

type inputFile struct {
	io.ReadSeekCloser
	info inputInfo
}

func (f *inputFile) Stat() (fs.FileInfo, error) { return f.info, nil }

// inputTree is an open folder that is an input.
type inputTree struct {
	fs.ReadDirFile
	info inputInfo
}

func (f *inputTree) Stat() (fs.FileInfo, error) { return f.info, nil }

// inputDir is an open implied folder.
type inputDir struct {
	fsys *inputFS
	name string
	node *inputNode
	list []string // sorted, once reading has begun
	next int
}

func (d *inputDir) Stat() (fs.FileInfo, error) {
	return inputInfo{path.Base(d.name), 0, fs.ModeDir | 0o555}, nil
}
func (d *inputDir) Close() error { return nil }
func (d *inputDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.name, Err: fs.ErrInvalid}
}

// ReadDir implements fs.ReadDirFile; entries come sorted by name.
func (d *inputDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if d.list == nil {
		for name := range d.node.children {
			d.list = append(d.list, name)
		}
		slices.Sort(d.list)
	}
	if n > 0 && d.next == len(d.list) {
		return nil, io.EOF
	}
	end := len(d.list)
	if n > 0 {
		end = min(end, d.next+n)
	}
	entries := make([]fs.DirEntry, 0, end-d.next)
	for ; d.next < end; d.next++ {
		info, err := d.fsys.Stat(path.Join(d.name, d.list[d.next]))
		if err != nil {
			return entries, err
		}
		entries = append(entries, fs.FileInfoToDirEntry(info))
	}
	return entries, nil
}

// permissions of a file, as those of what lies in a folder.
func permissions(info FileInfo) fs.FileMode {
	if info.Exec {
		return 0o555
	}
	return 0o444
}

// inputInfo describes an entry; times are zero, so that guests see the same everywhere.
type inputInfo struct {
	name string
	size int64
	mode fs.FileMode
}

func (i inputInfo) Name() string       { return i.name }
func (i inputInfo) Size() int64        { return i.size }
func (i inputInfo) Mode() fs.FileMode  { return i.mode }
func (i inputInfo) ModTime() time.Time { return time.Time{} }
func (i inputInfo) IsDir() bool        { return i.mode.IsDir() }
func (i inputInfo) Sys() any           { return nil }
