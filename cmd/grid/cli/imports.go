package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// What is remembered of earlier adds lies in the home, a file for each file or folder that was added:
//
//	imports/HASH       of the absolute path, SHA-256, the first 16 bytes in hexadecimal
//
//	 0  13  "grid imports" and 1, the version
//	13  32  SHA-256 of what follows
//	45  …   a record in CBOR, see importRecord
//
// It only saves reading: what is not to be trusted is not used, and what cannot be read is as if it were not
// there.
const (
	importsDir   = "imports"
	importsMagic = "grid imports\x01"
	maxImport    = 256 << 20 // bytes of one file
	maxImported  = 1 << 19   // files in one
	maxImports   = 64        // files; older ones go
)

// racyTime is how long a file must have been left alone before it is remembered: one that changed just now may
// change once more without its times telling so.
const racyTime = 2 * time.Second

// importRecord is what is remembered of one file or folder.
type importRecord struct {
	Path  string     `cbor:"path"` // absolute
	Files []imported `cbor:"files"`
	// Of a folder of which every file is in Files, what it was stored as and what else is in it.
	Root   grid.Link      `cbor:"root,omitzero"`
	Size   int64          `cbor:"size,omitzero"`
	Others []importedElse `cbor:"others,omitzero"`
}

// importedElse is a folder or a symlink.
type importedElse struct {
	_      struct{} `cbor:",toarray"`
	Name   string   // in the archive
	Target string   // of a symlink; "" for a folder
}

// imported is one file as it was when it was read.
type imported struct {
	_      struct{}  `cbor:",toarray"`
	Name   string    // in the archive
	CID    grid.Link // what it was stored as
	Size   int64
	Mtime  int64 // nanoseconds
	Ctime  int64 // nanoseconds; 0 where the platform does not tell
	Inode  uint64
	Device uint64
	Exec   bool
}

// same reports whether two looks at a file saw it unchanged.
func (f *imported) same(g *imported) bool {
	return f.Size == g.Size && f.Mtime == g.Mtime && f.Ctime == g.Ctime && f.Inode == g.Inode && f.Device == g.Device && f.Exec == g.Exec
}

func lookAt(name string, info fs.FileInfo) imported {
	f := imported{Name: name, Size: info.Size(), Mtime: info.ModTime().UnixNano(), Exec: info.Mode()&0o111 != 0}
	f.Ctime, f.Inode, f.Device = changeOf(info)
	return f
}

// imports is what is remembered of one file or folder, and what is going to be. Methods of nil do nothing.
type imports struct {
	file string // where it lies
	path string // of the file or folder
	now  func() time.Time

	known  map[string]imported // files that are whole on the node, by name
	others map[string]string   // targets of symlinks by name, "" for folders
	root   grid.FileInfo       // of a folder all of which is remembered

	mu         sync.Mutex
	next       map[string]imported // by name; without their CIDs until they are stored
	nextOthers []importedElse
	partly     bool // something will not be remembered
	used       int  // files that were not read
}

// openImports reads what is remembered of a path; nil when the home is not there to keep anything in.
func openImports(home, path string, now func() time.Time) *imports {
	if info, err := os.Stat(home); err != nil || !info.IsDir() {
		return nil
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil
	}
	sum := sha256.Sum256([]byte(path))
	x := &imports{
		file: filepath.Join(home, importsDir, hex.EncodeToString(sum[:16])), path: path, now: now,
		known: map[string]imported{}, others: map[string]string{}, next: map[string]imported{},
	}
	if data, err := readAtMost(x.file, maxImport); err == nil {
		if rec, err := parseImports(data); err == nil && rec.Path == path {
			for _, f := range rec.Files {
				x.known[f.Name] = f
			}
			for _, o := range rec.Others {
				x.others[o.Name] = o.Target
			}
			if rec.Root.Defined() {
				x.root = grid.FileInfo{CID: rec.Root, Kind: grid.KindDir, Size: rec.Size}
			}
		}
	}
	return x
}

// addAgain is addItems of an item that may have been added before. What the node turns out not to have any more is
// sent.
func (e *env) addAgain(ctx context.Context, s *session, p string, how uploading, it item) (grid.FileInfo, error) {
	add := func(items ...item) (grid.FileInfo, error) { return e.addItems(ctx, s, p, how, items, it.name != "") }
	x := how.imports
	if x == nil {
		return add(it)
	}
	if how.whole = x.wholeFolder(ctx, how.skipSpecial); how.whole != nil {
		out, err := add()
		if !errors.Is(err, grid.NotFound) {
			return out, err
		}
		how.whole = nil
		x.again(false)
	}
	if err := x.confirm(ctx, s); err != nil {
		return grid.FileInfo{}, err
	}
	out, err := add(it)
	if x.used > 0 && errors.Is(err, grid.NotFound) { // it has just let go of something
		x.again(true)
		out, err = add(it)
	}
	if err == nil {
		x.save(out)
	}
	return out, err
}

func readAtMost(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = grid.Errorf(grid.Limit, "%s has more than %d bytes", name, most)
	}
	return data, err
}

func parseImports(data []byte) (rec importRecord, err error) {
	const head = len(importsMagic) + sha256.Size
	if len(data) < head || !strings.HasPrefix(string(data[:head]), importsMagic) {
		return rec, grid.Errorf(grid.Unsupported, "not a record of imports of this version")
	}
	if sum := sha256.Sum256(data[head:]); !bytes.Equal(sum[:], data[len(importsMagic):head]) {
		return rec, grid.Errorf(grid.Corrupt, "a record of imports does not match its checksum")
	}
	if err := grid.Unmarshal(data[head:], &rec); err != nil {
		return rec, err
	}
	for i := range rec.Files {
		if err := grid.CheckCID(rec.Files[i].CID.Cid); err != nil {
			return rec, err
		}
	}
	if rec.Root.Defined() {
		return rec, grid.CheckCID(rec.Root.Cid)
	}
	return rec, nil
}

func formatImports(rec importRecord) ([]byte, error) {
	body, err := grid.Marshal(rec)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	return slices.Concat([]byte(importsMagic), sum[:], body), nil
}

// again prepares for another attempt; with all, one that reads everything.
func (x *imports) again(all bool) {
	if x == nil {
		return
	}
	clear(x.next)
	x.root, x.nextOthers, x.partly, x.used = grid.FileInfo{}, nil, false, 0
	if all {
		clear(x.known)
	}
}

// confirm asks the node what it still has, and forgets the rest.
func (x *imports) confirm(ctx context.Context, s *session) error {
	if x == nil || len(x.known) == 0 {
		return nil
	}
	seen := make(map[grid.Link]bool, len(x.known))
	cids := make([]grid.Link, 0, len(x.known))
	for _, f := range x.known {
		if !seen[f.CID] {
			seen[f.CID] = true
			cids = append(cids, f.CID)
		}
	}
	missing, err := s.Missing(ctx, cids)
	if err != nil {
		return err
	}
	gone := make(map[grid.Link]bool, len(missing))
	for _, c := range missing {
		gone[c] = true
	}
	for name, f := range x.known {
		if gone[f.CID] {
			delete(x.known, name)
		}
	}
	return nil
}

// wholeFolder returns what a folder was stored as if all below it is as it was then; nil if it is not.
func (x *imports) wholeFolder(ctx context.Context, skipSpecial bool) *grid.FileInfo {
	if x == nil || !x.root.CID.Defined() {
		return nil
	}
	found, same := 0, true
	errOther := errors.New("something is not as it was")
	err := filepath.WalkDir(x.path, func(p string, d fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		rel, err := filepath.Rel(x.path, p)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		switch {
		case name == ".":
			return nil
		case d.Type().IsRegular():
			info, err := d.Info()
			if err != nil {
				return err
			}
			f, ok := x.known[name]
			now := lookAt(name, info)
			same = ok && f.same(&now)
		case d.IsDir():
			target, ok := x.others[name]
			same = ok && target == ""
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			before, ok := x.others[name]
			same = ok && before == filepath.ToSlash(target)
		case skipSpecial:
			return nil
		default:
			same = false
		}
		if found++; !same {
			return errOther
		}
		return nil
	})
	if err != nil || found != len(x.known)+len(x.others) {
		return nil // reading it will tell of the error
	}
	x.used = len(x.known)
	root := x.root
	return &root
}

// unchanged returns what a file was stored as, if it is as it was then and still on the node.
func (x *imports) unchanged(name string, info fs.FileInfo) (grid.Link, bool) {
	if x == nil {
		return grid.Link{}, false
	}
	f, ok := x.known[name]
	if now := lookAt(name, info); !ok || !f.same(&now) {
		return grid.Link{}, false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.used++
	x.next[name] = f
	return f.CID, true
}

// reading takes down what a file is like right before it is read.
func (x *imports) reading(name string, info fs.FileInfo) {
	if x == nil {
		return
	}
	f := lookAt(name, info)
	settled := x.now().Add(-racyTime).UnixNano()
	x.mu.Lock()
	defer x.mu.Unlock()
	if f.Mtime > settled || f.Ctime > settled {
		x.partly = true
		return
	}
	x.next[name] = f
}

// other takes down a symlink, or a folder, whose target is "".
func (x *imports) other(name, target string) {
	if x == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.nextOthers = append(x.nextOthers, importedElse{Name: name, Target: target})
}

// stored takes down what a file became.
func (x *imports) stored(info grid.FileInfo) {
	if x == nil || info.Kind != grid.KindFile {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if f, ok := x.next[info.Name]; ok {
		f.CID = info.CID
		x.next[info.Name] = f
	}
}

// save remembers what was stored, in place of what was remembered. It replaces the file whole, so that of several
// commands at once one wins. That it cannot be kept is not worth an error.
func (x *imports) save(out grid.FileInfo) {
	if x == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	rec := importRecord{Path: x.path}
	for _, f := range x.next {
		if f.CID.Defined() {
			rec.Files = append(rec.Files, f)
		} else {
			x.partly = true
		}
	}
	if len(rec.Files) > maxImported || len(x.nextOthers) > maxImported {
		rec.Files, x.partly = nil, true // too much to be worth it
	}
	if out.Kind == grid.KindDir && !x.partly {
		rec.Root, rec.Size, rec.Others = out.CID, out.Size, x.nextOthers
	}
	slices.SortFunc(rec.Files, func(a, b imported) int { return strings.Compare(a.Name, b.Name) })
	data, err := formatImports(rec)
	if err != nil || len(data) > maxImport {
		return
	}
	if err := os.MkdirAll(filepath.Dir(x.file), 0o700); err != nil {
		return
	}
	pruneImports(filepath.Dir(x.file), maxImports-1)
	temp, err := os.CreateTemp(filepath.Dir(x.file), ".tmp-*")
	if err != nil {
		return
	}
	_, err = temp.Write(data)
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), x.file)
	}
	if err != nil {
		os.Remove(temp.Name())
	}
}

// pruneImports keeps the newest so many files of a folder.
func pruneImports(dir string, most int) {
	list, err := os.ReadDir(dir)
	if err != nil || len(list) <= most {
		return
	}
	age := make(map[string]time.Time, len(list))
	for _, d := range list {
		if info, err := d.Info(); err == nil {
			age[d.Name()] = info.ModTime()
		}
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return age[a.Name()].Compare(age[b.Name()]) })
	for _, d := range list[:len(list)-most] {
		os.Remove(filepath.Join(dir, d.Name()))
	}
}
