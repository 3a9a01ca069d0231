package crypt

import (
	"archive/zip"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Mark is the comment of an archive that is a folder's.
const Mark = "grid folder 1"

// Bounds on a folder.
const (
	MaxEntries   = 1 << 16
	maxNodes     = 2 * MaxEntries // with folders that only names of others imply
	maxDirectory = 16 << 20       // bytes of the list of entries
	maxTarget    = 4096           // bytes of a symlink's target
	maxNested    = 1000           // folders in folders
)

// The ends of an archive; see APPNOTE.TXT, 4.3.14 to 4.3.16.
const (
	endLen     = 22
	locatorLen = 20
	end64Len   = 56
)

// Packer writes a folder's archive, for a [Sealer]. Entries come in order of names, folders before what is in them.
type Packer struct {
	z    *zip.Writer
	n    int
	list int64 // bytes of the list of entries, about
	dry  bool
}

// NewPacker makes a packer that writes to w.
func NewPacker(w io.Writer) *Packer { return &Packer{z: zip.NewWriter(w)} }

// Add writes an entry. The content of a file, so many bytes as it says, is to be written to the result before the next
// call; others have none.
func (p *Packer) Add(e grid.FileInfo) (io.Writer, error) {
	if err := checkName(e.Name); err != nil {
		return nil, err
	}
	p.list += int64(64 + len(e.Name))
	if p.n++; p.n > MaxEntries || p.list > maxDirectory {
		return nil, grid.Errorf(grid.Limit, "the folder has more than %d entries, or too long names", min(p.n-1, MaxEntries)).
			Hint("encrypt parts of it one by one")
	}
	h := &zip.FileHeader{Name: e.Name, Method: zip.Store}
	content := ""
	switch {
	case e.Kind == grid.KindDir:
		h.Name += "/"
		h.SetMode(fs.ModeDir | 0o755)
	case e.Kind == grid.KindSymlink:
		if content = e.Target; len(content) > maxTarget {
			return nil, grid.Errorf(grid.Limit, "the symlink %q leads to a name of %d bytes, at most %d are allowed", e.Name, len(content), maxTarget)
		}
		h.SetMode(fs.ModeSymlink | 0o777)
	case e.Exec:
		h.SetMode(0o755)
	default:
		h.SetMode(0o644)
	}
	if p.dry && e.Kind == grid.KindFile {
		h.Flags |= 0x8 // sizes follow the content, as they do when it is not known
		h.CompressedSize64, h.UncompressedSize64 = uint64(e.Size), uint64(e.Size)
		return p.z.CreateRaw(h)
	}
	w, err := p.z.CreateHeader(h)
	if err == nil && content != "" {
		_, err = io.WriteString(w, content)
	}
	return w, err
}

// Close writes the list of entries.
func (p *Packer) Close() error {
	if err := p.z.SetComment(Mark); err != nil {
		return err
	}
	return p.z.Close()
}

// FolderSize is how many bytes the archive of some entries will have.
func FolderSize(entries []grid.FileInfo) (int64, error) {
	var sum counter
	p := NewPacker(&sum)
	p.dry = true
	zeros := make([]byte, 1<<20)
	for i := range entries {
		w, err := p.Add(entries[i])
		if err != nil {
			return 0, err
		}
		if entries[i].Kind != grid.KindFile {
			continue
		}
		for left := entries[i].Size; left > 0; left -= int64(len(zeros)) {
			if _, err := w.Write(zeros[:min(left, int64(len(zeros)))]); err != nil {
				return 0, err
			}
		}
	}
	if err := p.Close(); err != nil {
		return 0, err
	}
	return int64(sum), nil
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

func checkName(name string) error {
	if !fs.ValidPath(name) || name == "." || len(name) > 4096 || strings.ContainsAny(name, "\x00\\") || !utf8.ValidString(name) || strings.Count(name, "/") > maxNested {
		return grid.Errorf(grid.Invalid, "the entry %.80q: its name cannot be kept in an encrypted folder", name)
	}
	return nil
}

// Folder is an encrypted folder that was opened, as a file system that implements fs.StatFS and fs.ReadLinkFS. Its files
// also implement io.Seeker and io.ReaderAt. Symlinks resolve inside only. It is safe for concurrent use.
type Folder struct {
	of    *File
	nodes map[string]*entry // by path; "." is the folder itself
	order []string          // of entries, as they lie in the archive
	size  int64             // of all files
}

type entry struct {
	mode  fs.FileMode
	size  int64
	zip   *zip.File // nil for a folder that is only implied
	names []string  // in a folder, sorted
}

// Folder shows what a file holds as the folder that it was made of. It is nil when it was made of a file.
func (f *File) Folder() (*Folder, error) {
	is, err := f.isFolder()
	if err != nil || !is {
		return nil, err
	}
	from := &directory{File: f, left: maxDirectory * 2, bounded: true}
	z, err := zip.NewReader(from, f.size)
	from.bounded = false
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		if grid.CodeOf(err) == grid.Unknown {
			err = grid.Errorf(grid.Corrupt, "the list of what is in the encrypted folder cannot be read: %w", err)
		}
		return nil, err
	}
	d := &Folder{of: f, nodes: map[string]*entry{".": {mode: fs.ModeDir | 0o555}}}
	for _, e := range z.File {
		if err := d.add(e); err != nil {
			return nil, err
		}
		if len(d.nodes) > maxNodes {
			return nil, grid.Errorf(grid.Limit, "the encrypted folder has more than %d files and folders, with those that names imply", maxNodes)
		}
	}
	for _, n := range d.nodes {
		slices.Sort(n.names)
	}
	return d, nil
}

// isFolder reports whether the content is an archive with our mark, and refuses one that would take too much memory.
func (f *File) isFolder() (bool, error) {
	const tail = endLen + len(Mark)
	if f.size < int64(tail) {
		return false, nil
	}
	buf := make([]byte, min(f.size, int64(tail+locatorLen+end64Len)))
	if n, err := f.ReadAt(buf, f.size-int64(len(buf))); n < len(buf) {
		return false, err
	}
	end := buf[len(buf)-tail:]
	if string(end[:4]) != "PK\x05\x06" || int(binary.LittleEndian.Uint16(end[20:])) != len(Mark) || string(end[endLen:]) != Mark {
		return false, nil
	}
	n, list := uint64(binary.LittleEndian.Uint16(end[10:])), uint64(binary.LittleEndian.Uint32(end[12:]))
	if rest := buf[:len(buf)-tail]; len(rest) == end64Len+locatorLen && string(rest[end64Len:][:4]) == "PK\x06\x07" && string(rest[:4]) == "PK\x06\x06" {
		n, list = binary.LittleEndian.Uint64(rest[32:]), binary.LittleEndian.Uint64(rest[40:])
	}
	if n > MaxEntries || list > 2*maxDirectory {
		return false, grid.Errorf(grid.Limit, "the encrypted folder says that it has %d entries, in a list of %d bytes: at most %d are allowed", n, list, MaxEntries)
	}
	return true, nil
}

// directory is a file whose list of entries is read, however long it says that this is.
type directory struct {
	*File
	bounded bool
	left    int // bytes
}

func (d *directory) ReadAt(p []byte, off int64) (int, error) {
	if d.bounded {
		if d.left -= len(p); d.left < 0 {
			return 0, grid.Errorf(grid.Limit, "the list of what is in the encrypted folder is too long")
		}
	}
	return d.File.ReadAt(p, off)
}

// add takes an entry up. What an archive says is not believed.
func (d *Folder) add(z *zip.File) error {
	name, isDir := strings.CutSuffix(z.Name, "/")
	if err := checkName(name); err != nil {
		return grid.Errorf(grid.Corrupt, "%w", err)
	}
	n := &entry{zip: z, mode: 0o444}
	switch mode := z.Mode(); {
	case isDir:
		n.mode = fs.ModeDir | 0o555
	case mode&fs.ModeSymlink != 0:
		n.mode = fs.ModeSymlink | 0o777
	case mode&0o111 != 0:
		n.mode = 0o555
	}
	if !isDir {
		n.size = int64(z.UncompressedSize64)
		if z.Method != zip.Store || z.CompressedSize64 != z.UncompressedSize64 || n.size < 0 || n.size > d.of.size {
			return grid.Errorf(grid.Corrupt, "the entry %q of the encrypted folder is not stored as it is", name)
		}
	}
	if old := d.nodes[name]; old != nil {
		if isDir && old.mode.IsDir() && old.zip == nil { // it was implied
			old.zip = z
			return nil
		}
		return grid.Errorf(grid.Corrupt, "the entry %q is in the encrypted folder twice", name)
	}
	d.nodes[name] = n
	d.order = append(d.order, name)
	if n.mode.IsRegular() {
		d.size += n.size
	}
	for child := name; child != "."; {
		dir := path.Dir(child)
		parent, known := d.nodes[dir]
		if !known {
			parent = &entry{mode: fs.ModeDir | 0o555}
			d.nodes[dir] = parent
		}
		if !parent.mode.IsDir() {
			return grid.Errorf(grid.Corrupt, "the entry %q of the encrypted folder lies below a file", name)
		}
		parent.names = append(parent.names, path.Base(child))
		if known {
			break
		}
		child = dir
	}
	return nil
}

// Size is how many bytes all files have together.
func (d *Folder) Size() int64 { return d.size }

// Entries lists all that was put in, in the order in which it lies there, so that reading it in this order is cheap.
func (d *Folder) Entries() ([]grid.FileInfo, error) {
	out := make([]grid.FileInfo, 0, len(d.order))
	for _, name := range d.order {
		e, err := d.Info(name)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// List describes the entries of a folder below, sorted by name.
func (d *Folder) List(dir string) ([]grid.FileInfo, error) {
	n, dir, err := d.find("list", dir, true)
	if err != nil {
		return nil, err
	}
	if !n.mode.IsDir() {
		return nil, grid.Errorf(grid.Invalid, "%s is not a folder", dir)
	}
	out := make([]grid.FileInfo, 0, len(n.names))
	for _, name := range n.names {
		e, err := d.Info(path.Join(dir, name))
		if err != nil {
			return nil, err
		}
		e.Name = name
		out = append(out, e)
	}
	return out, nil
}

// Info describes an entry; a symlink is not followed. It has no CID: what is in an encrypted folder is no block by itself.
func (d *Folder) Info(name string) (e grid.FileInfo, err error) {
	n, _, err := d.find("stat", name, false)
	if err != nil {
		return e, err
	}
	e = grid.FileInfo{Name: name, Kind: grid.KindFile, Size: n.size, Exec: n.mode.IsRegular() && n.mode&0o111 != 0}
	switch {
	case n.mode.IsDir():
		e.Kind, e.Size = grid.KindDir, 0
	case n.mode&fs.ModeSymlink != 0:
		e.Kind, e.Size = grid.KindSymlink, 0
		e.Target, err = d.target(n)
	}
	return e, err
}

// section is the content of a file or symlink.
func (d *Folder) section(n *entry) (*Reader, error) {
	off, err := n.zip.DataOffset()
	if err == nil && (off < 0 || off > d.of.size-n.size) {
		err = grid.Errorf(grid.Corrupt, "an entry of the encrypted folder lies outside of it")
	}
	if err != nil {
		if grid.CodeOf(err) == grid.Unknown {
			err = grid.Errorf(grid.Corrupt, "an entry of the encrypted folder cannot be read: %w", err)
		}
		return nil, err
	}
	return newReader(d.of, off, n.size), nil
}

func (d *Folder) target(n *entry) (string, error) {
	if n.size > maxTarget {
		return "", grid.Errorf(grid.Corrupt, "a symlink of the encrypted folder leads to a name of %d bytes", n.size)
	}
	r, err := d.section(n)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(r)
	return string(b), err
}
