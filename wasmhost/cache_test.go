package wasmhost_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/wasmhost"
)

// logs collects what a host logs.
type logs struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logs) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), s)
}

func (l *logs) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// entries are the files of a cache.
func entries(t testing.TB, dir string) (paths []string) {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if e.Type().IsRegular() {
			paths = append(paths, filepath.Join(dir, e.Name()))
		} else if !strings.HasPrefix(e.Name(), "work-") {
			t.Errorf("%s is in the cache's folder", e.Name())
		}
	}
	return paths
}

// exits runs a guest of wasmbytes.Exit.
func exits(t testing.TB, h *wasmhost.Host, id cid.Cid, code uint32) {
	t.Helper()
	if out, err := h.Run(t.Context(), &grid.Guest{Module: id}); err != nil || out.Exit != code || out.Fault != nil {
		t.Errorf("%+v, %v; want exit code %d", out, err, code)
	}
}

func counts(t testing.TB, h *wasmhost.Host, hits, made, damaged int) {
	t.Helper()
	a, b, c, _ := wasmhost.CacheCounts(h)
	if a != hits || b != made || c != damaged {
		t.Errorf("%d hits, %d made, %d damaged; want %d, %d, %d", a, b, c, hits, made, damaged)
	}
}

// once opens a host, gives it to do, and closes it.
func once(t testing.TB, cfg wasmhost.Config, do func(h *wasmhost.Host)) {
	t.Helper()
	h, err := wasmhost.OpenCompiled(cfg)
	if err != nil {
		t.Fatal(err)
	}
	do(h)
	if err := h.Close(); err != nil {
		t.Error(err)
	}
}

func TestCacheIsUsed(t *testing.T) {
	dir := t.TempDir()
	var l loader
	// One that is stripped for its image, and one that has none.
	programs := []cid.Cid{
		l.add(wasmbytes.Exit(3)), l.add(wasmbytes.Program{Funcs: []wasmbytes.Func{{}}, MinPages: 1, Data: []byte("data")}.Bytes()),
		l.add(wasmbytes.Program{Funcs: []wasmbytes.Func{{}}, Begin: true}.Bytes()),
	}
	for i, open := range []func(wasmhost.Config) (*wasmhost.Host, error){wasmhost.Open, wasmhost.Open, wasmhost.OpenFresh} {
		h, err := open(wasmhost.Config{Load: l.load, CacheDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		exits(t, h, programs[0], 3)
		exits(t, h, programs[1], 0)
		exits(t, h, programs[2], 0)
		switch i {
		case 0:
			counts(t, h, 0, 3, 0)
		case 1:
			counts(t, h, 3, 0, 0)
		case 2: // which compiles what was not stripped
			counts(t, h, 2, 1, 0)
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "work-*")); len(left) > 0 {
			t.Errorf("a closed host left %v", left)
		}
	}
	if n := len(entries(t, dir)); n != 4 {
		t.Errorf("%d files, want 4", n)
	}
}

// TestCacheDamage damages each region of a file, and the whole.
func TestCacheDamage(t *testing.T) {
	f := &fixed{binary: wasmbytes.Exit(7)}
	dir := t.TempDir()
	cfg := wasmhost.Config{Load: f.load, CacheDir: dir}
	once(t, cfg, func(h *wasmhost.Host) { exits(t, h, f.cid(), 7) })
	path := entries(t, dir)[0]
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := &fixed{binary: wasmbytes.Exit(8)}
	elsewhere := t.TempDir()
	once(t, wasmhost.Config{Load: other.load, CacheDir: elsewhere}, func(h *wasmhost.Host) { exits(t, h, other.cid(), 8) })
	foreign, err := os.ReadFile(entries(t, elsewhere)[0])
	if err != nil {
		t.Fatal(err)
	}

	// What the engine wrote: magic, version, offsets of functions, code, its checksum, tables.
	native := len(good) - wasmhost.SealLen
	version := 7 + int(good[6])
	functions := int(binary.LittleEndian.Uint32(good[version:]))
	offsets := version + 4
	code := offsets + 8*functions + 8
	codeLen := int(binary.LittleEndian.Uint64(good[code-8:]))
	if string(good[:6]) != "WAZEVO" || functions == 0 || codeLen == 0 || code+codeLen+4 >= native {
		t.Fatalf("the engine's format has changed: %d functions, %d bytes of code at %d of %d", functions, codeLen, code, native)
	}
	flip := func(at int) []byte {
		b := bytes.Clone(good)
		b[at] ^= 0x10
		return b
	}
	cases := map[string][]byte{
		"empty": {}, "half": good[:len(good)/2], "without its end": good[:len(good)-1], "sealed end only": good[native:],
		"one byte more": append(bytes.Clone(good), 0), "zeros": make([]byte, len(good)), "of another module": foreign,
		"magic": flip(0), "length of version": flip(6), "version": flip(8), "number of functions": flip(version),
		"offset of the first function": flip(offsets), "offset of the last function": flip(code - 16), "length of code": flip(code - 8),
		"first instruction": flip(code), "middle of the code": flip(code + codeLen/2), "last instruction": flip(code + codeLen - 1),
		"checksum": flip(code + codeLen), "tables": flip(code + codeLen + 4), "last byte of tables": flip(native - 1),
		"seal: magic": flip(native), "seal: key": flip(native + 8), "seal: name": flip(native + 40), "seal: name's end": flip(native + 103),
		"seal: digest": flip(len(good) - 1),
	}
	for name, content := range cases {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			var l logs
			cfg := cfg
			cfg.Logger = l.logger()
			once(t, cfg, func(h *wasmhost.Host) {
				exits(t, h, f.cid(), 7)
				counts(t, h, 0, 1, 1)
			})
			if l.count("is damaged") != 1 || l.count(filepath.Base(path)) != 1 {
				t.Errorf("the log does not name it: %s", l.text.String())
			}
			if again, err := os.ReadFile(path); err != nil || !bytes.Equal(again, good) {
				t.Errorf("was not replaced: %v", err)
			}
		})
	}
	t.Run("a folder", func(t *testing.T) {
		os.Remove(path)
		if err := os.MkdirAll(filepath.Join(path, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		once(t, cfg, func(h *wasmhost.Host) { exits(t, h, f.cid(), 7); counts(t, h, 0, 1, 1) })
	})
	once(t, cfg, func(h *wasmhost.Host) { exits(t, h, f.cid(), 7); counts(t, h, 1, 0, 0) })
}

// Every bit of a small file matters.
func TestCacheEveryByte(t *testing.T) {
	f := &fixed{binary: wasmbytes.Noop()}
	dir := t.TempDir()
	cfg := wasmhost.Config{Load: f.load, CacheDir: dir}
	once(t, cfg, func(h *wasmhost.Host) { exits(t, h, f.cid(), 0) })
	path := entries(t, dir)[0]
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	step := 1
	if testing.Short() {
		step = 17
	}
	for at := 0; at < len(good); at += step {
		bad := bytes.Clone(good)
		bad[at] ^= 1 << (at % 8)
		if err := wasmhost.CheckSealed(t.TempDir(), path, bad); err == nil {
			t.Fatalf("a flipped bit of byte %d was not noticed", at)
		}
	}
	if err := wasmhost.CheckSealed(t.TempDir(), path, good); err != nil {
		t.Error(err)
	}
}

func TestCacheTotal(t *testing.T) {
	dir := t.TempDir()
	var l loader
	total := uint64(64 * 32 << 10) // small files count 32 KiB
	cfg := wasmhost.Config{Load: l.load, CacheDir: dir, CacheTotal: total}
	first := l.add(wasmbytes.Exit(0))
	once(t, cfg, func(h *wasmhost.Host) {
		exits(t, h, first, 0)
		kept := entries(t, dir)[0]
		old := time.Now().Add(-time.Hour)
		if err := os.Chtimes(kept, old, old); err != nil {
			t.Fatal(err)
		}
		for i := range int32(100) {
			exits(t, h, l.add(wasmbytes.Exit(i+1)), uint32(i+1))
			if n := len(entries(t, dir)); n > 64 {
				t.Fatalf("%d files after %d modules, want at most 64", n, i+2)
			}
		}
		if _, err := os.Stat(kept); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the file used longest ago is still there: %v", err)
		}
		if _, _, _, evicted := wasmhost.CacheCounts(h); evicted < 101-64 {
			t.Errorf("%d evicted", evicted)
		}
	})
	// What was used last stays when the bound is lowered, and a file that was only read was used.
	for _, f := range entries(t, dir) { // all grow older, in the order in which they were used
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		old := info.ModTime().Add(-time.Hour)
		if err := os.Chtimes(f, old, old); err != nil {
			t.Fatal(err)
		}
	}
	last := l.add(wasmbytes.Exit(100))
	once(t, cfg, func(h *wasmhost.Host) { exits(t, h, last, 100); counts(t, h, 1, 0, 0) })
	cfg.CacheTotal = 2 * 32 << 10
	once(t, cfg, func(h *wasmhost.Host) {
		if n := len(entries(t, dir)); n != 1 {
			t.Errorf("%d files, want one", n)
		}
		exits(t, h, last, 100)
		counts(t, h, 1, 0, 0)
	})
	// Code larger than half of it all is not kept.
	cfg.CacheTotal = 1000
	once(t, cfg, func(h *wasmhost.Host) {
		exits(t, h, last, 100)
		if n := len(entries(t, dir)); n != 0 {
			t.Errorf("%d files, want none", n)
		}
	})
}

func TestCacheDirIsPrivate(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("folders have no modes")
	}
	f := &fixed{binary: wasmbytes.Noop()}
	readable := t.TempDir()
	if err := os.Chmod(readable, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(readable, link); err != nil {
		t.Fatal(err)
	}
	made := filepath.Join(t.TempDir(), "a", "b")
	for _, dir := range []string{readable, link, made} {
		once(t, wasmhost.Config{Load: f.load, CacheDir: dir}, func(h *wasmhost.Host) { exits(t, h, f.cid(), 0) })
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("mode %v, %v; want 0700", info.Mode(), err)
		}
		if len(entries(t, dir)) != 1 {
			t.Error("nothing was cached")
		}
		if info, err := os.Stat(entries(t, dir)[0]); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("a file's mode is %v, %v; want 0600", info.Mode(), err)
		}
	}
	refused := func(dir string) {
		t.Helper()
		h, err := wasmhost.OpenCompiled(wasmhost.Config{Load: f.load, CacheDir: dir})
		if h != nil {
			h.Close()
		}
		if !errors.Is(err, grid.Denied) || grid.AdviceOf(err) == "" || !strings.Contains(err.Error(), filepath.Base(dir)) {
			t.Errorf("%s: %v, want Denied with advice", dir, err)
		}
	}
	for _, mode := range []os.FileMode{0o770, 0o707, 0o722} {
		dir := t.TempDir()
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		refused(dir)
		toIt := filepath.Join(t.TempDir(), filepath.Base(dir))
		if err := os.Symlink(dir, toIt); err != nil {
			t.Fatal(err)
		}
		refused(toIt)
	}
	const nobody = 65534
	foreign := t.TempDir()
	if err := os.Chown(foreign, nobody, nobody); err != nil {
		t.Logf("not all was tested: %v", err)
		return
	}
	refused(foreign)
	foreignLink := filepath.Join(t.TempDir(), "link")
	if err := errors.Join(os.Symlink(made, foreignLink), os.Lchown(foreignLink, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	refused(foreignLink)
}

// A folder that goes away costs no guest anything, is told once, and is made again.
func TestCacheFails(t *testing.T) {
	dir := t.TempDir()
	var l loader
	var log logs
	h := open(t, wasmhost.Config{Load: l.load, CacheDir: dir, Logger: log.logger()})
	exits(t, h, l.add(wasmbytes.Exit(0)), 0)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	exits(t, h, l.add(wasmbytes.Exit(1)), 1)
	if log.count("level=WARN") != 1 || log.count("the compilation cache fails") != 1 || log.count("works again") != 0 {
		t.Errorf("want one warning: %s", log.text.String())
	}
	exits(t, h, l.add(wasmbytes.Exit(2)), 2)
	if log.count("works again") != 1 {
		t.Error("it was not noticed that it works again")
	}
	exits(t, h, l.add(wasmbytes.Exit(3)), 3)
	if n := len(entries(t, dir)); n != 1 {
		t.Errorf("%d files, want one", n)
	}
	if log.count("level=WARN") != 1 {
		t.Error(log.text.String())
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v; want 0700", info.Mode(), err)
	}
}

// A folder that cannot be made is none.
func TestCacheCannotBeMade(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var log logs
	f := &fixed{binary: wasmbytes.Exit(3)}
	h := open(t, wasmhost.Config{Load: f.load, CacheDir: filepath.Join(file, "dir"), Logger: log.logger()})
	exits(t, h, f.cid(), 3)
	if wasmhost.HasCache(h) || log.count("level=WARN") != 1 {
		t.Errorf("a cache: %v; %s", wasmhost.HasCache(h), log.text.String())
	}
}

// An interpreter makes nothing that could be kept.
func TestCacheOfInterpreter(t *testing.T) {
	dir := t.TempDir()
	var l loader
	var log logs
	h := openInterpreter(t, wasmhost.Config{Load: l.load, CacheDir: dir, Logger: log.logger()})
	for i := range int32(3) {
		exits(t, h, l.add(wasmbytes.Exit(i)), uint32(i))
	}
	if n := len(entries(t, dir)); n != 0 || log.count("level=WARN") != 0 || log.count("is not used") != 1 {
		t.Errorf("%d files; %s", n, log.text.String())
	}
}

// Hosts of one process and of several share a folder.
func TestCacheIsShared(t *testing.T) {
	dir := t.TempDir()
	var l loader
	var ids []cid.Cid
	for i := range int32(8) {
		ids = append(ids, l.add(wasmbytes.Exit(i)))
	}
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			once(t, wasmhost.Config{Load: l.load, CacheDir: dir}, func(h *wasmhost.Host) {
				var each sync.WaitGroup
				for i, id := range ids {
					each.Go(func() { exits(t, h, id, uint32(i)) })
				}
				each.Wait()
				if hits, made, damaged, _ := wasmhost.CacheCounts(h); hits+made != len(ids) || damaged != 0 {
					t.Errorf("%d hits, %d made, %d damaged", hits, made, damaged)
				}
			})
		})
	}
	wg.Wait()
	if n := len(entries(t, dir)); n != len(ids) {
		t.Errorf("%d files, want %d", n, len(ids))
	}
}

// Two modules that are the same once they are rewritten are one to the cache.
func TestCacheSameCode(t *testing.T) {
	dir := t.TempDir()
	var l loader
	program := wasmbytes.Program{Funcs: []wasmbytes.Func{{}}}
	h := open(t, wasmhost.Config{Load: l.load, CacheDir: dir})
	var wg sync.WaitGroup
	for _, custom := range []string{"\x01a", "\x01b", "\x01c"} { // sections of those names, which are dropped
		program.Custom = []byte(custom)
		id := l.add(program.Bytes())
		wg.Go(func() { exits(t, h, id, 0) })
	}
	wg.Wait()
	counts(t, h, 2, 1, 0)
}

const childEnv = "WASMHOST_CACHE_CHILD"

// child is this program again, as another process on the same cache.
func child(t *testing.T, how, dir, module string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCacheChild$", "-test.v")
	cmd.Env = append(os.Environ(), childEnv+"="+how, "CHILD_DIR="+dir, "CHILD_MODULE="+module)
	return cmd
}

// TestCacheChild is what the other processes do.
func TestCacheChild(t *testing.T) {
	how := os.Getenv(childEnv)
	if how == "" {
		t.Skip("not a child")
	}
	binary, err := os.ReadFile(os.Getenv("CHILD_MODULE"))
	if err != nil {
		t.Fatal(err)
	}
	if how == "full" {
		limitFiles(t, 16<<10)
	}
	f := &fixed{binary: binary}
	var log logs
	once(t, wasmhost.Config{Load: f.load, CacheDir: os.Getenv("CHILD_DIR"), Logger: log.logger()}, func(h *wasmhost.Host) {
		for range 2 {
			out, err := h.Run(t.Context(), &grid.Guest{Module: f.cid(), Stdout: io.Discard, Stderr: io.Discard})
			if err != nil || out.Fault != nil || out.Exit != 0 {
				t.Errorf("%+v, %v", out, err)
			}
		}
		if _, _, damaged, _ := wasmhost.CacheCounts(h); damaged > 0 {
			t.Errorf("%d damaged", damaged)
		}
	})
	if n := log.count("level=WARN"); (how == "full") != (n == 1) || n > 1 {
		t.Errorf("%d warnings: %s", n, log.text.String())
	}
}

// Several processes compile the same module at once, and one of them is killed amid that.
func TestCacheProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("takes the compiler some seconds")
	}
	hello, err := goHello()
	if err != nil {
		t.Fatal(err)
	}
	dir, module := t.TempDir(), filepath.Join(t.TempDir(), "hello.wasm")
	if err := os.WriteFile(module, hello, 0o600); err != nil {
		t.Fatal(err)
	}
	finish := func(cmd *exec.Cmd) {
		t.Helper()
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: TestCacheChild")) {
			t.Errorf("%v\n%s", err, out)
		}
	}

	victim := child(t, "run", dir, module)
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	for { // until it compiles; the test's own deadline is the bound
		if at, _ := filepath.Glob(filepath.Join(dir, "work-*", "make-*", "files", "wazero-*")); len(at) > 0 {
			break
		}
		runtime.Gosched()
	}
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := victim.Wait(); err == nil {
		t.Error("was not killed")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "work-*")); len(left) != 1 {
		t.Fatalf("the killed one left %v", left)
	}
	if n := len(entries(t, dir)); n != 0 {
		t.Errorf("%d files of one that was killed while it compiled", n)
	}

	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { finish(child(t, "run", dir, module)) })
	}
	wg.Wait()
	if left, _ := filepath.Glob(filepath.Join(dir, "work-*")); len(left) > 0 {
		t.Errorf("what the killed one left is still there: %v", left)
	}
	if n := len(entries(t, dir)); n != 1 {
		t.Errorf("%d files, want one", n)
	}
	f := &fixed{binary: hello}
	once(t, wasmhost.Config{Load: f.load, CacheDir: dir}, func(h *wasmhost.Host) {
		exits(t, h, f.cid(), 0)
		counts(t, h, 1, 0, 0)
	})

	// The disk is full. What is there is read no more then, but nothing fails.
	full := t.TempDir()
	finish(child(t, "full", full, module))
	if n := len(entries(t, full)); n != 0 {
		t.Errorf("%d files on a full disk", n)
	}
	finish(child(t, "full", dir, module))
	if n := len(entries(t, dir)); n != 1 {
		t.Errorf("%d files, want the one that was there", n)
	}
}

// BenchmarkCompile measures how long a module takes to be ready: compiled, compiled and kept, and from
// the cache; each by a host of its own.
func BenchmarkCompile(b *testing.B) {
	hello, err := goHello()
	if err != nil {
		b.Fatal(err)
	}
	for _, module := range []struct {
		name   string
		binary []byte
	}{{"tiny", wasmbytes.Noop()}, {"go", hello}} {
		f := &fixed{binary: module.binary}
		prepare := func(b *testing.B, dir string) {
			once(b, wasmhost.Config{Load: f.load, CacheDir: dir}, func(h *wasmhost.Host) {
				if err := h.Prepare(b.Context(), f.cid()); err != nil {
					b.Fatal(err)
				}
			})
		}
		b.Run(module.name+"/without", func(b *testing.B) {
			for b.Loop() {
				prepare(b, "")
			}
		})
		b.Run(module.name+"/cold", func(b *testing.B) {
			for b.Loop() {
				prepare(b, b.TempDir())
			}
		})
		b.Run(module.name+"/cached", func(b *testing.B) {
			dir := b.TempDir()
			prepare(b, dir)
			for b.Loop() {
				prepare(b, dir)
			}
		})
	}
}
