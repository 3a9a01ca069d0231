package grid

import (
	"context"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
)

// dataFS shows the DAGs that a guest was granted, each under its CID. Nothing of one is fetched before the guest looks
// at it, and then as with inputs: what is small as a whole, of what is large what is read. What cannot be had ends the
// attempt, so that a guest's result does not depend on who is there.
type dataFS struct {
	ctx     context.Context
	n       *Node
	from    *sources
	keys    [][]byte // that decrypt what is encrypted
	lost    func(error)
	any     bool
	granted []string // CIDs, sorted

	mu     sync.Mutex
	held   holds
	trees  map[cid.Cid]*dataTree
	waited time.Duration // for the beginnings of trees, and for what was read of those that are no longer in trees
}

// dataTree is one DAG, under its CID.
type dataTree struct {
	*inputFS
	read *reading // nil: it was fetched as a whole
}

// maxDataTrees bounds the DAGs that are remembered to have been looked at, and held.
const maxDataTrees = 256

// dataFor makes it of grants that were checked, nil of none; from are those who are likely to have what is granted.
func (n *Node) dataFor(ctx context.Context, grants []string, from *sources, keys [][]byte, lost func(error)) *dataFS {
	if len(grants) == 0 {
		return nil
	}
	f := &dataFS{ctx: ctx, n: n, from: from, keys: keys, lost: lost, held: holds{n: n}, trees: map[cid.Cid]*dataTree{}}
	for _, g := range grants {
		if g == AnyData {
			f.any = true
		} else {
			f.granted = append(f.granted, g)
		}
	}
	slices.Sort(f.granted)
	return f
}

// close ends what was held for the guest.
func (f *dataFS) close() {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held.end()
}

// waitedFor is how long the guest has waited for data to come.
func (f *dataFS) waitedFor() time.Duration {
	if f == nil {
		return 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.waited
	for _, t := range f.trees {
		d += t.waited()
	}
	return d
}

func (t *dataTree) waited() time.Duration {
	if t.read == nil {
		return 0
	}
	return time.Duration(t.read.waited.Load())
}

// find gives the DAG that a name below the root begins with, and the name in it.
func (f *dataFS) find(op, name string) (*dataTree, string, error) {
	first, rest, below := strings.Cut(name, "/")
	link, err := ParseLink(first)
	switch {
	case !fs.ValidPath(name):
		return nil, "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	case err != nil:
		return nil, "", &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	inside := link.String()
	if _, ok := slices.BinarySearch(f.granted, inside); !ok && !f.any {
		return nil, "", &fs.PathError{Op: op, Path: name, Err: fs.ErrPermission}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.trees[link.Cid]
	if t == nil {
		if len(f.held.release) >= maxDataTrees {
			f.forget()
		}
		start := time.Now()
		t, err = f.begin(link)
		f.waited += time.Since(start)
		if code := CodeOf(err); code == Invalid || code == Unsupported { // it is no file or folder, wherever it is looked at
			return nil, "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
		}
		if err != nil {
			if f.ctx.Err() == nil {
				f.lost(Errorf(CodeOf(err), "%s/%s: %w", GuestData, inside, err))
			}
			return nil, "", &fs.PathError{Op: op, Path: name, Err: err}
		}
		f.trees[link.Cid] = t
	}
	if below {
		inside += "/" + rest
	}
	return t, inside, nil
}

// forget lets go of all DAGs: a guest may look at any number. What it has open of them it can read on; what is collected
// meanwhile comes again. f.mu is held.
func (f *dataFS) forget() {
	for _, old := range f.trees {
		f.waited += old.waited()
	}
	clear(f.trees)
	f.held.end()
}

// begin brings what is needed to look at a DAG. f.mu is held.
func (f *dataFS) begin(link Link) (*dataTree, error) {
	f.held.add(link.Cid)
	from := &sources{above: f.from}
	if err := f.n.bring(f.ctx, nil, []cid.Cid{link.Cid}, from); err != nil {
		return nil, err
	}
	t := &dataTree{}
	files := f.n.Files
	if f.n.FilesOver != nil {
		t.read = &reading{Blocks: f.n.Blocks, n: f.n, from: from, lost: f.lost}
		files = f.n.FilesOver(t.read)
	}
	files, err := f.n.unlocked(files, f.keys, f.lost)
	if err != nil {
		return nil, err
	}
	info, err := files.Look(f.ctx, link.Cid)
	if err != nil {
		return nil, err
	}
	f.n.addInputs(f.ctx, []Input{{CID: link, Size: info.Size}}) // work that reads it may come here
	t.inputFS = newInputFS(f.ctx, files)
	return t, t.add(link.String(), link)
}

// Open implements fs.FS.
func (f *dataFS) Open(name string) (fs.File, error) {
	if name == "." {
		return &dataDir{of: f, left: f.granted}, nil
	}
	t, inside, err := f.find("open", name)
	if err != nil {
		return nil, err
	}
	return t.Open(inside)
}

// Stat implements fs.StatFS.
func (f *dataFS) Stat(name string) (fs.FileInfo, error) {
	if name == "." {
		return inputInfo{".", 0, fs.ModeDir | 0o555}, nil
	}
	t, inside, err := f.find("stat", name)
	if err != nil {
		return nil, err
	}
	return t.Stat(inside)
}

// dataDir lists the CIDs that were granted one by one.
type dataDir struct {
	of   *dataFS
	left []string
}

func (d *dataDir) Stat() (fs.FileInfo, error) { return d.of.Stat(".") }
func (d *dataDir) Close() error               { return nil }
func (d *dataDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: ".", Err: fs.ErrInvalid}
}

// ReadDir implements fs.ReadDirFile; entries come sorted by name.
func (d *dataDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n > 0 && len(d.left) == 0 {
		return nil, io.EOF
	}
	if n <= 0 || n > len(d.left) {
		n = len(d.left)
	}
	entries := make([]fs.DirEntry, 0, n)
	for _, name := range d.left[:n] {
		info, err := d.of.Stat(name)
		if err != nil {
			return entries, err
		}
		entries = append(entries, fs.FileInfoToDirEntry(info))
	}
	d.left = d.left[n:]
	return entries, nil
}
