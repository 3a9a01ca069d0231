package wasmhost

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"golang.org/x/sys/cpu"

	"github.com/wasmgrid/wasmgrid/grid"
)

// The folder of a cache has a file for each module, named for what it depends on, and a folder for each
// process that uses it:
//
//	0f3c…           native code, sealed
//	work-1234567/   of one host; it holds a lock on it
//	    load/       where the engine looks for native code, and finds only what was just verified
//	    make-89/    where it leaves that of one module
//
// wazero can read and write files of native code by itself, but names them by a key that it does not
// tell, believes most of what it reads, and deletes nothing. So it is only lent a file at a time. A
// module that is not there is compiled by an engine of its own, in a folder of its own, which then holds
// one file: that one is sealed and moved to its place. To use a file, it is checked while it is copied to
// where the host's engine looks; what the engine loads are the bytes that were checked.
//
// A sealed file is what wazero wrote followed by
//
//	8   "gridcod1"
//	32  the key: SHA-256 of what the native code depends on
//	64  the name by which wazero asks for it, in hexadecimal
//	32  SHA-256 of all of the above
//
// The key covers the module's bytes as they are compiled, that is after all rewriting: what depends on
// the version of the rewriting, or of what is stripped for images, is in them. Files come to their names
// by renaming, are never changed, and may be deleted at any time, for who reads one has it open.
const (
	sealMagic = "gridcod1"
	nameLen   = 2 * sha256.Size
	sealLen   = len(sealMagic) + sha256.Size + nameLen + sha256.Size
)

// defaultCacheTotal is how much is kept when the configuration does not say, in bytes.
const defaultCacheTotal = 1 << 30

// least is what a file counts at least, in bytes, so that small ones do not become too many to list.
const least = 32 << 10

const workPrefix = "work-"

// cache compiles modules, and keeps the native code on disk. It is safe for concurrent use, also by
// other processes on the same folder. A nil cache compiles only.
type cache struct {
	dir    string
	work   string
	load   string // where code looks
	lock   io.Closer
	code   wazero.CompilationCache // for the host's runtime
	rc     wazero.RuntimeConfig    // of engines that compile one module
	engine []byte                  // what native code depends on besides the module
	total  int64                   // bytes to keep
	log    *slog.Logger

	mu     sync.Mutex
	busy   map[[sha256.Size]byte]chan struct{} // modules at work; closed when done
	lent   map[string]bool                     // names of files in load that were put there
	added  int64                               // bytes since files were counted
	broken bool                                // the disk failed; modules are compiled without files
	off    bool                                // the engine leaves no files, as an interpreter does not
	counts cacheCounts
}

// cacheCounts tells what became of modules.
type cacheCounts struct{ hits, made, damaged, evicted int }

// openCache opens a cache for a runtime of that configuration. The error says that the folder must not be
// used; if it just cannot be written to, that is logged and the cache is nil.
func openCache(dir string, total uint64, rc wazero.RuntimeConfig, log *slog.Logger) (*cache, error) {
	dir, err := privateDir(dir)
	if err == nil {
		c := &cache{
			dir: dir, rc: rc, total: int64(min(total, 1<<62)), log: log,
			busy: map[[sha256.Size]byte]chan struct{}{}, lent: map[string]bool{},
		}
		if total == 0 {
			c.total = defaultCacheTotal
		}
		c.sweep()
		if err = c.begin(); err == nil {
			c.trim()
			return c, nil
		}
	}
	if !diskError(err) {
		return nil, err
	}
	log.Warn("the compilation cache cannot be used: modules will be compiled each time; free space, or make the folder writable",
		"folder", dir, "cause", err)
	return nil, nil
}

// begin makes this host's folder.
func (c *cache) begin() (err error) {
	for range 10 { // for another process may take it for an abandoned one before it is locked
		if c.work, err = os.MkdirTemp(c.dir, workPrefix); err != nil {
			return err
		}
		if c.lock, err = lockDir(c.work); !errors.Is(err, errLocked) {
			if _, err := os.Stat(c.work); err == nil {
				break
			}
		}
		if c.lock != nil {
			c.lock.Close()
		}
		c.lock, err = nil, errLocked
	}
	if errors.Is(err, errLocked) {
		return &fs.PathError{Op: "lock", Path: c.work, Err: err}
	}
	// Any other error means that there are no locks here. Then nobody takes the folder for an abandoned
	// one either.
	c.load = filepath.Join(c.work, "load")
	if c.code, err = engineCache(c.load); err != nil {
		c.end()
		return err
	}
	versions, err := os.ReadDir(c.load)
	if err != nil || len(versions) != 1 {
		c.end()
		return fmt.Errorf("the engine does not lay out its files as expected: %w", errors.Join(err, errLayout))
	}
	c.load = filepath.Join(c.load, versions[0].Name())
	c.engine = engineID(versions[0].Name())
	return nil
}

// end removes this host's folder.
func (c *cache) end() {
	os.RemoveAll(c.work)
	if c.lock != nil {
		c.lock.Close()
	}
}

// close is for when nothing is compiled any more and no module is in use.
func (c *cache) close(ctx context.Context) error {
	err := c.code.Close(ctx)
	c.end()
	return err
}

// engineCache is wazero's cache of files. It wraps errors without keeping them.
func engineCache(dir string) (wazero.CompilationCache, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	code, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return nil, &fs.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	return code, nil
}

// engineID is what native code depends on besides the module: the engine's version, the platform, and
// the processor, of which wazero looks at a part.
func engineID(name string) []byte {
	h := sha256.New()
	fmt.Fprintf(h, "%q %+v %+v ", name, cpu.X86, cpu.ARM64)
	known := false
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == "github.com/tetratelabs/wazero" {
				known = true
				fmt.Fprintf(h, "%q %q ", d.Version, d.Sum)
				if r := d.Replace; r != nil {
					known = r.Sum != "" // else it is a folder of somebody who works on it
					fmt.Fprintf(h, "%q %q %q ", r.Path, r.Version, r.Sum)
				}
			}
		}
	}
	if !known { // as in tests: then the code of another program is not trusted
		if exe, err := os.Executable(); err == nil {
			if info, err := os.Stat(exe); err == nil {
				fmt.Fprintf(h, "%d %d", info.Size(), info.ModTime().UnixNano())
			}
		}
	}
	return h.Sum(nil)
}

var errLayout = errors.New("want one file in one folder")

// diskError tells failures of the disk from everything else that compiling can fail of.
func diskError(err error) bool {
	var p *fs.PathError
	var l *os.LinkError
	return errors.As(err, &p) || errors.As(err, &l) || errors.Is(err, errLayout)
}

// compile compiles a module for rt, which has this cache, or loads it. One module at a time is
// compiled only once.
func (c *cache) compile(ctx context.Context, rt wazero.Runtime, binary []byte) (wazero.CompiledModule, error) {
	if c == nil {
		return rt.CompileModule(ctx, binary)
	}
	key := c.key(binary)
	done, err := c.turn(ctx, key)
	if err != nil {
		return nil, err
	}
	defer done()

	c.mu.Lock()
	broken, off := c.broken, c.off
	c.mu.Unlock()
	defer c.tidy()
	if broken {
		os.MkdirAll(c.load, 0o700) // should that be what was wrong
	} else if !off {
		takeBack, err := c.fetch(ctx, key, binary)
		if err == nil {
			code, err := rt.CompileModule(ctx, binary)
			takeBack()
			if err == nil || ctx.Err() != nil {
				return code, err
			}
			c.log.Warn("the engine refuses what it wrote itself: the module is compiled again", "key", hex.EncodeToString(key[:]), "cause", err)
			os.Remove(c.file(key))
		} else if diskError(err) {
			c.fails(err)
		} else {
			return nil, err
		}
	}
	code, err := rt.CompileModule(ctx, binary)
	if diskError(err) {
		c.fails(err)
		// It was compiled, but could not be written down. The engine has it in its memory and gives it now;
		// it has counted two users then, of which one got nothing.
		if code, err = rt.CompileModule(ctx, binary); err == nil {
			err = code.Close(ctx)
		}
	} else if err == nil && broken {
		c.works()
	}
	return code, err
}

func (c *cache) key(binary []byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte(sealMagic))
	h.Write(c.engine)
	h.Write(binary)
	return [sha256.Size]byte(h.Sum(nil))
}

// has reports whether a module's native code seems to be there.
func (c *cache) has(binary []byte) bool {
	if c == nil {
		return false
	}
	_, err := os.Stat(c.file(c.key(binary)))
	return err == nil
}

func (c *cache) file(key [sha256.Size]byte) string {
	return filepath.Join(c.dir, hex.EncodeToString(key[:]))
}

// turn waits until nobody else in this process has that module at work. Call done afterwards.
func (c *cache) turn(ctx context.Context, key [sha256.Size]byte) (done func(), err error) {
	for {
		c.mu.Lock()
		other, found := c.busy[key]
		if !found {
			mine := make(chan struct{})
			c.busy[key] = mine
			c.mu.Unlock()
			return func() {
				c.mu.Lock()
				delete(c.busy, key)
				c.mu.Unlock()
				close(mine)
			}, nil
		}
		c.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// fetch puts a module's native code where the host's engine looks, making it when it is not there. Call
// takeBack when it was loaded. The error is the disk's, the module's or the context's.
func (c *cache) fetch(ctx context.Context, key [sha256.Size]byte, binary []byte) (takeBack func(), err error) {
	file := c.file(key)
	takeBack, err = c.lend(file, key)
	var d *damage
	switch {
	case err == nil:
		now := time.Now()
		os.Chtimes(file, now, now) // the order in which they go; see trim
		c.count(func(n *cacheCounts) { n.hits++ })
		return takeBack, nil
	case errors.As(err, &d):
		c.log.Warn("a file of the compilation cache is damaged: it is removed, and the module compiled again", "file", file, "cause", d.why)
		c.count(func(n *cacheCounts) { n.damaged++ })
		if err := os.RemoveAll(file); err != nil {
			return nil, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	made, err := os.MkdirTemp(c.work, "make-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(made)
	if err := c.make(ctx, made, key, binary); err != nil {
		return nil, err
	}
	c.count(func(n *cacheCounts) { n.made++ })
	sealed := filepath.Join(made, sealedName)
	if takeBack, err = c.lend(sealed, key); err != nil {
		if errors.As(err, &d) {
			err = &fs.PathError{Op: "read", Path: sealed, Err: d} // what was just written
		}
		return nil, err
	}
	if err := c.keep(sealed, file); err != nil {
		c.fails(err)
	}
	return takeBack, nil
}

const sealedName = "sealed"

// make compiles a module into a sealed file in dir, by an engine that ends with it.
func (c *cache) make(ctx context.Context, dir string, key [sha256.Size]byte, binary []byte) error {
	files := filepath.Join(dir, "files")
	code, err := engineCache(files)
	if err != nil {
		return err
	}
	rt := wazero.NewRuntimeWithConfig(ctx, c.rc.WithCompilationCache(code))
	_, err = rt.CompileModule(ctx, binary)
	for _, close := range []func(context.Context) error{rt.Close, code.Close} {
		if e := close(context.WithoutCancel(ctx)); err == nil {
			err = e
		}
	}
	if err != nil {
		return err
	}
	made, err := filepath.Glob(filepath.Join(files, filepath.Base(c.load), "*"))
	if err != nil || len(made) != 1 {
		return fmt.Errorf("compile into %s: %d files: %w", files, len(made), errLayout)
	}
	if err := seal(made[0], key); err != nil {
		return err
	}
	return os.Rename(made[0], filepath.Join(dir, sealedName))
}

// seal appends to a file that wazero wrote what makes it verifiable.
func seal(path string, key [sha256.Size]byte) error {
	name := filepath.Base(path)
	if len(name) != nameLen {
		return fmt.Errorf("%s: a name of %d characters: %w", path, len(name), errLayout)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	tail := slices.Concat([]byte(sealMagic), key[:], []byte(name))
	h.Write(tail)
	if _, err := f.Write(h.Sum(tail)); err != nil {
		return err
	}
	return f.Close()
}

// damage is why a file of the cache is not used.
type damage struct{ why string }

func (d *damage) Error() string { return d.why }

// lend copies the content of a sealed file to where the host's engine looks, and verifies it. The error
// is damage, or the disk's: fs.ErrNotExist when there is no such file.
func (c *cache) lend(path string, key [sha256.Size]byte) (takeBack func(), err error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return nil, err
	}
	size := info.Size() - int64(sealLen)
	if !info.Mode().IsRegular() || size < 0 {
		return nil, &damage{sprintf("not a file of at least %d bytes", sealLen)}
	}
	var tail [sealLen]byte
	if _, err := in.ReadAt(tail[:], size); err != nil {
		return nil, &damage{err.Error()}
	}
	body, digest := tail[:sealLen-sha256.Size], tail[sealLen-sha256.Size:]
	rest, ok := bytes.CutPrefix(body, []byte(sealMagic))
	if !ok {
		return nil, &damage{"it does not end as such files do"}
	}
	if !bytes.Equal(rest[:sha256.Size], key[:]) {
		return nil, &damage{"it is of another module, engine or processor"}
	}
	name := string(rest[sha256.Size:])
	if _, err := hex.DecodeString(name); err != nil {
		return nil, &damage{"the engine's name for it is not a name"}
	}

	c.mu.Lock()
	c.lent[name] = true
	c.mu.Unlock()
	target := filepath.Join(c.load, name)
	remove := func() {
		os.Remove(target)
		c.mu.Lock()
		delete(c.lent, name)
		c.mu.Unlock()
	}
	defer func() {
		if err != nil {
			remove()
		}
	}()
	out, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(h, out), io.NewSectionReader(in, 0, size))
	h.Write(body)
	var p *fs.PathError
	switch {
	case errors.As(err, &p) && p.Path == path: // it cannot be read: a bad disk
		return nil, &damage{err.Error()}
	case err != nil:
		return nil, err
	case n != size || !bytes.Equal(h.Sum(nil), digest):
		return nil, &damage{"its content does not match its digest"}
	}
	return remove, out.Close()
}

// tidy removes what the engine wrote where it is only to read.
func (c *cache) tidy() {
	files, err := os.ReadDir(c.load)
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range files {
		// A name with more to it is of a file that is being written.
		if name := f.Name(); len(name) == nameLen && !c.lent[name] {
			os.Remove(filepath.Join(c.load, name))
		}
	}
}

// keep moves a sealed file to its place, and makes room.
func (c *cache) keep(sealed, file string) error {
	info, err := os.Stat(sealed)
	if err != nil {
		return err
	}
	if info.Size() > c.total/2 {
		c.log.Debug("native code is too large to be kept", "bytes", info.Size(), "limit", c.total/2)
		return nil
	}
	if err := os.Rename(sealed, file); err != nil {
		return err
	}
	c.mu.Lock()
	c.added += max(info.Size(), least)
	full := c.added > c.total/16
	c.mu.Unlock()
	if full {
		c.sweep()
		c.trim()
	}
	return nil
}

// trim removes the files that were used longest ago while there are more than fit, with a sixteenth to
// spare, so that files need not be counted each time.
func (c *cache) trim() {
	c.mu.Lock()
	c.added = 0
	c.mu.Unlock()
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return // compiling will tell
	}
	type file struct {
		name string
		size int64
		used time.Time
	}
	var files []file
	var sum int64
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || len(e.Name()) != nameLen {
			continue
		}
		f := file{e.Name(), max(info.Size(), least), info.ModTime()}
		files = append(files, f)
		sum += f.size
	}
	slices.SortFunc(files, func(a, b file) int { return a.used.Compare(b.used) })
	for _, f := range files {
		if sum <= c.total-c.total/16 {
			return
		}
		if err := os.Remove(filepath.Join(c.dir, f.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		sum -= f.size
		c.count(func(n *cacheCounts) { n.evicted++ })
		c.log.Debug("evicted from the compilation cache", "file", f.name, "bytes", f.size, "used", f.used)
	}
}

// sweep removes the folders of hosts that ended without doing so.
func (c *cache) sweep() {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), workPrefix) {
			continue
		}
		dir := filepath.Join(c.dir, e.Name())
		if lock, err := lockDir(dir); err == nil {
			os.RemoveAll(dir) // before its lock is given up; see begin
			lock.Close()
		}
	}
}

// fails and works note whether the disk does what it should, and tell when that changes.
func (c *cache) fails(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.off || c.broken:
	case errors.Is(err, errLayout):
		c.off = true
		c.log.Info("the compilation cache is not used, since the engine leaves no native code as expected", "cause", err)
	default:
		c.broken = true
		c.log.Warn("the compilation cache fails: modules are compiled without it until it can be written to again", "folder", c.dir, "cause", err)
	}
}

func (c *cache) works() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken {
		c.broken = false
		c.log.Info("the compilation cache works again", "folder", c.dir)
	}
}

func (c *cache) count(f func(*cacheCounts)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.counts)
}

// privateDir makes a folder that only this user can reach, or makes sure that one is, and returns where it
// really is. A folder that others could have put native code into is refused.
func privateDir(dir string) (string, error) {
	link, err := os.Lstat(dir)
	if err == nil && link.Mode()&fs.ModeSymlink != 0 && !ownedByUsOrRoot(link) {
		return dir, grid.Errorf(grid.Denied, "wasmhost: the cache folder %s is a link that belongs to another user", dir).
			Hint("name a folder of this user's own; whoever can change it can run code as this user")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return dir, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return dir, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return dir, err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return dir, err
	}
	if !ownedByUs(info) {
		return dir, grid.Errorf(grid.Denied, "wasmhost: the cache folder %s belongs to another user", dir).
			Hint("name a folder of this user's own; whoever can change it can run code as this user")
	}
	if writableByOthers(info) {
		return dir, grid.Errorf(grid.Denied, "wasmhost: other users may write to the cache folder %s (mode %04o)", dir, info.Mode().Perm()).
			Hint("remove it, it will be made again: native code that others put there would run as this user")
	}
	if info.Mode().Perm() != 0o700 {
		return dir, os.Chmod(dir, 0o700)
	}
	return dir, nil
}
