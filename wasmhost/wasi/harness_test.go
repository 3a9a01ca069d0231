package wasi

import (
	"context"
	"errors"
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"
	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const moduleName = "wasi_snapshot_preview1"

// The tests call the functions as a guest would: parameters as 64-bit words, all else in its memory.
type guest struct {
	t     testing.TB
	ctx   context.Context
	state *State
	mod   api.Module
	mem   api.Memory
	calls map[string]handler
	heap  uint32 // where the next bytes are put
}

// newModule instantiates a module that has nothing but memory.
func newModule(t testing.TB, pages uint32) api.Module {
	t.Helper()
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	t.Cleanup(func() { r.Close(ctx) })
	binary := wasmbytes.Module{MinPages: pages}.Bytes()
	if pages == 0 {
		binary = wasmbytes.Module{NoMemory: true}.Bytes()
	}
	mod, err := r.InstantiateWithConfig(ctx, binary, wazero.NewModuleConfig().WithStartFunctions())
	if err != nil {
		t.Fatal(err)
	}
	return mod
}

func newGuest(t testing.TB, cfg Config) *guest {
	t.Helper()
	g := &guest{t: t, state: new(State), mod: newModule(t, 16), calls: map[string]handler{}, heap: 1 << 16}
	g.mem = g.mod.Memory()
	g.state.Reset(cfg)
	t.Cleanup(func() { g.state.Reset(Config{}) })
	g.ctx = g.state.Context(context.Background())
	for _, f := range functions() {
		g.calls[f.name] = f.handler
	}
	return g
}

var roomy = Config{Bytes: 1 << 20, Files: 2000}

func withInputs() Config {
	cfg := roomy
	cfg.Mounts = map[string]fs.FS{"/in": fstest.MapFS{
		"a.txt": {Data: []byte("input a")}, "d/b.txt": {Data: []byte("input b")},
	}}
	return cfg
}

// call makes one call.
func (g *guest) call(name string, params ...uint64) Errno {
	g.t.Helper()
	stack := make([]uint64, max(1, len(params)))
	copy(stack, params)
	g.calls[name].Call(g.ctx, g.mod, stack)
	return Errno(stack[0])
}

// exit makes a call that is to end the guest, and gives the exit code.
func (g *guest) exit(name string, params ...uint64) (code uint32) {
	g.t.Helper()
	defer func() {
		var e *sys.ExitError
		if err, ok := recover().(error); !ok || !errors.As(err, &e) {
			g.t.Errorf("%s: the guest goes on", name)
			return
		}
		code = e.ExitCode()
	}()
	g.call(name, params...)
	return 0
}

// put places bytes in the guest's memory, and gives what to call with.
func (g *guest) put(b string) (ptr, n uint64) {
	g.t.Helper()
	if g.heap+uint32(len(b)) > 8<<16 {
		g.heap = 1 << 16
	}
	ptr = uint64(g.heap)
	if !g.mem.WriteString(g.heap, b) {
		g.t.Fatal("test strings take too much room")
	}
	g.heap += uint32(len(b)+7) &^ 7
	return ptr, uint64(len(b))
}

// Where results are put: apart from all else.
const (
	resultAt = 1024
	vectorAt = 2048
	bufferAt = 8 << 16
)

func (g *guest) u32(at uint32) uint32 { v, _ := g.mem.ReadUint32Le(at); return v }
func (g *guest) u64(at uint32) uint64 { v, _ := g.mem.ReadUint64Le(at); return v }

// str is what follows in the guest's memory.
func (g *guest) str(at, n uint32) string { b, _ := g.mem.Read(at, n); return string(b) }

const (
	rw     = rightRead | rightWrite
	follow = 1
)

// openWith is path_open in full.
func (g *guest) openWith(dir uint64, lookup uint64, name string, oflags uint64, base, inheriting rights, fdflags uint64) (uint64, Errno) {
	g.t.Helper()
	ptr, n := g.put(name)
	errno := g.call("path_open", dir, lookup, ptr, n, oflags, uint64(base), uint64(inheriting), fdflags, resultAt)
	return uint64(g.u32(resultAt)), errno
}

// open opens a path, which must work.
func (g *guest) open(dir uint64, name string, oflags uint64, base rights) uint64 {
	g.t.Helper()
	inheriting := rights(0)
	if oflags&openDirectory != 0 {
		inheriting = allRights
	}
	fd, errno := g.openWith(dir, 0, name, oflags, base, inheriting, 0)
	if errno != 0 {
		g.t.Fatalf("path_open %q: %v", name, errno)
	}
	return fd
}

// path calls a function that takes a folder and a path.
func (g *guest) path(function string, dir uint64, name string) Errno {
	g.t.Helper()
	ptr, n := g.put(name)
	return g.call(function, dir, ptr, n)
}

func (g *guest) symlink(target string, dir uint64, name string) Errno {
	g.t.Helper()
	tp, tn := g.put(target)
	ptr, n := g.put(name)
	return g.call("path_symlink", tp, tn, dir, ptr, n)
}

func (g *guest) rename(dir uint64, from string, to uint64, name string) Errno {
	g.t.Helper()
	fp, fn := g.put(from)
	ptr, n := g.put(name)
	return g.call("path_rename", dir, fp, fn, to, ptr, n)
}

func (g *guest) link(dir, lookup uint64, from string, to uint64, name string) Errno {
	g.t.Helper()
	fp, fn := g.put(from)
	ptr, n := g.put(name)
	return g.call("path_link", dir, lookup, fp, fn, to, ptr, n)
}

func (g *guest) readlink(dir uint64, name string, size uint64) (string, Errno) {
	g.t.Helper()
	ptr, n := g.put(name)
	errno := g.call("path_readlink", dir, ptr, n, bufferAt, size, resultAt)
	return g.str(bufferAt, g.u32(resultAt)), errno
}

// vectors describes buffers one behind the other from bufferAt.
func (g *guest) vectors(sizes ...int) (ptr, n uint64) {
	at := uint32(bufferAt)
	for i, size := range sizes {
		g.mem.WriteUint32Le(vectorAt+uint32(8*i), at)
		g.mem.WriteUint32Le(vectorAt+uint32(8*i)+4, uint32(size))
		at += uint32(size)
	}
	return vectorAt, uint64(len(sizes))
}

func (g *guest) write(fd uint64, data string) (int, Errno) {
	g.t.Helper()
	g.mem.WriteString(bufferAt, data)
	ptr, n := g.vectors(len(data))
	errno := g.call("fd_write", fd, ptr, n, resultAt)
	return int(g.u32(resultAt)), errno
}

func (g *guest) read(fd uint64, size int) (string, Errno) {
	g.t.Helper()
	ptr, n := g.vectors(size)
	errno := g.call("fd_read", fd, ptr, n, resultAt)
	if errno != 0 {
		return "", errno
	}
	return g.str(bufferAt, g.u32(resultAt)), 0
}

func (g *guest) pwrite(fd uint64, data string, off uint64) (int, Errno) {
	g.t.Helper()
	g.mem.WriteString(bufferAt, data)
	ptr, n := g.vectors(len(data))
	errno := g.call("fd_pwrite", fd, ptr, n, off, resultAt)
	return int(g.u32(resultAt)), errno
}

func (g *guest) pread(fd uint64, size int, off uint64) (string, Errno) {
	g.t.Helper()
	ptr, n := g.vectors(size)
	errno := g.call("fd_pread", fd, ptr, n, off, resultAt)
	if errno != 0 {
		return "", errno
	}
	return g.str(bufferAt, g.u32(resultAt)), 0
}

func (g *guest) seek(fd uint64, by int64, whence uint64) (uint64, Errno) {
	g.t.Helper()
	errno := g.call("fd_seek", fd, uint64(by), whence, resultAt)
	return g.u64(resultAt), errno
}

func (g *guest) tell(fd uint64) (uint64, Errno) {
	g.t.Helper()
	errno := g.call("fd_tell", fd, resultAt)
	return g.u64(resultAt), errno
}

type filestat struct {
	dev, ino, nlink, size, atim, mtim, ctim uint64
	filetype                                vfs.Kind
}

func (g *guest) filestat() filestat {
	t, _ := g.mem.ReadByte(resultAt + 16)
	return filestat{
		g.u64(resultAt), g.u64(resultAt + 8), g.u64(resultAt + 24), g.u64(resultAt + 32),
		g.u64(resultAt + 40), g.u64(resultAt + 48), g.u64(resultAt + 56), vfs.Kind(t),
	}
}

func (g *guest) fstat(fd uint64) (filestat, Errno) {
	g.t.Helper()
	errno := g.call("fd_filestat_get", fd, resultAt)
	return g.filestat(), errno
}

func (g *guest) stat(dir, lookup uint64, name string) (filestat, Errno) {
	g.t.Helper()
	ptr, n := g.put(name)
	errno := g.call("path_filestat_get", dir, lookup, ptr, n, resultAt)
	return g.filestat(), errno
}

func (g *guest) setTimes(dir, lookup uint64, name string, atim, mtim, flags uint64) Errno {
	g.t.Helper()
	ptr, n := g.put(name)
	return g.call("path_filestat_set_times", dir, lookup, ptr, n, atim, mtim, flags)
}

type fdstat struct {
	filetype         vfs.Kind
	flags            uint32
	base, inheriting rights
}

func (g *guest) fdstat(fd uint64) (fdstat, Errno) {
	g.t.Helper()
	errno := g.call("fd_fdstat_get", fd, resultAt)
	t, _ := g.mem.ReadByte(resultAt)
	flags, _ := g.mem.ReadUint16Le(resultAt + 2)
	return fdstat{vfs.Kind(t), uint32(flags), rights(g.u64(resultAt + 8)), rights(g.u64(resultAt + 16))}, errno
}

type dirent struct {
	next, ino uint64
	name      string
	kind      vfs.Kind
}

// readdir reads one buffer of a folder's list; end is whether it was not filled.
func (g *guest) readdir(fd uint64, size int, cookie uint64) (list []dirent, end bool) {
	g.t.Helper()
	if errno := g.call("fd_readdir", fd, bufferAt, uint64(size), cookie, resultAt); errno != 0 {
		g.t.Fatalf("fd_readdir: %v", errno)
	}
	used := g.u32(resultAt)
	for at := uint32(bufferAt); at+direntSize <= bufferAt+used; {
		n := g.u32(at + 16)
		if at+direntSize+n > bufferAt+used {
			break
		}
		k, _ := g.mem.ReadByte(at + 20)
		list = append(list, dirent{g.u64(at), g.u64(at + 8), g.str(at+direntSize, n), vfs.Kind(k)})
		at += direntSize + n
	}
	return list, int(used) < size
}

// ok fails the test when a call did.
func (g *guest) ok(errno Errno) {
	g.t.Helper()
	if errno != 0 {
		g.t.Fatalf("%v, want success", errno)
	}
}

// want checks an error number; a call may have a choice.
func (g *guest) want(got Errno, want ...Errno) {
	g.t.Helper()
	for _, w := range want {
		if got == w {
			return
		}
	}
	g.t.Errorf("%v, want %v", got, want)
}

// root is a descriptor on the root that was opened by the guest, with all rights.
func (g *guest) root() uint64 {
	g.t.Helper()
	return g.open(3, ".", openDirectory, folderRights)
}

// scratch makes a folder, and gives a descriptor on it.
func (g *guest) scratch() uint64 {
	g.t.Helper()
	g.ok(g.path("path_create_directory", 3, "tmp/dir.cleanup"))
	return g.open(3, "tmp/dir.cleanup", openDirectory, folderRights)
}

func (g *guest) create(dir uint64, name string) {
	g.t.Helper()
	g.ok(g.call("fd_close", g.open(dir, name, openCreate, 0)))
}
