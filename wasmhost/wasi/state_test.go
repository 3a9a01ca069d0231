package wasi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmgrid/wasmgrid/wasmhost/wasi/vfs"
)

var errHost = errors.New("the disk is broken")

// brokenFS lists a file that it cannot give.
type brokenFS struct{ fs.FS }

func (f brokenFS) Open(name string) (fs.File, error) {
	if name == "broken" {
		return nil, errHost
	}
	return f.FS.Open(name)
}

// A failure of the host's ends the guest, and is not taken for the guest's own.
func TestHostFailure(t *testing.T) {
	g := newGuest(t, Config{Stdin: io.MultiReader(strings.NewReader("some"), iotest.ErrReader(errHost))})
	ptr, n := g.vectors(100)
	if code := g.exit("fd_read", 0, ptr, n, resultAt); code != ExitHostFailure || g.state.Err() != errHost {
		t.Errorf("stdin: exit code %d, %v", code, g.state.Err())
	}
	g = newGuest(t, Config{Mounts: map[string]fs.FS{"/in": brokenFS{fstest.MapFS{"broken": {}}}}})
	ptr, n = g.put("in/broken")
	if code := g.exit("path_open", 3, 0, ptr, n, 0, uint64(rightRead), 0, 0, resultAt); code != ExitHostFailure || g.state.Err() != errHost {
		t.Errorf("mount: exit code %d, %v", code, g.state.Err())
	}
	g.state.Reset(Config{})
	if g.state.Err() != nil {
		t.Error("Reset keeps the failure")
	}
	g.ok(g.call("sched_yield"))
}

func TestContextOver(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	for ctx, want := range map[context.Context]uint32{canceled: sys.ExitCodeContextCanceled, late: sys.ExitCodeDeadlineExceeded} {
		g := newGuest(t, Config{})
		g.ctx = g.state.Context(ctx)
		for name := range g.calls {
			if code := g.exit(name, make([]uint64, 9)...); code != want || !g.state.Stopped() {
				t.Errorf("%s: exit code %x, want %x", name, code, want)
			}
		}
	}
	// One call on all of memory, whose context ends meanwhile.
	ctx, cancel := context.WithCancel(t.Context())
	g := newGuest(t, Config{Random: readerFunc(func(b []byte) (int, error) { cancel(); return len(b), nil })})
	g.ctx = g.state.Context(ctx)
	if code := g.exit("random_get", 0, 16<<16); code != sys.ExitCodeContextCanceled {
		t.Errorf("random_get: exit code %x", code)
	}
	// The state is found whatever is wrapped around its context.
	type key struct{}
	g = newGuest(t, Config{})
	g.ctx = context.WithValue(g.ctx, key{}, 1)
	g.ok(g.call("sched_yield"))
	if g.ctx = g.state.Context(g.ctx); g.ctx.Value(key{}) != 1 {
		t.Error("a value is lost")
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestStreams(t *testing.T) {
	data := strings.Repeat("0123456789", 300_000)
	var out bytes.Buffer
	// What the host has in small pieces, a guest reads in one.
	g := newGuest(t, Config{Stdin: iotest.OneByteReader(strings.NewReader(data[:5000])), Stdout: &out})
	if got, errno := g.read(0, 4000); got != data[:4000] || errno != 0 {
		t.Errorf("%d bytes, %v", len(got), errno)
	}
	if got, errno := g.read(0, 4000); got != data[4000:5000] || errno != 0 {
		t.Errorf("%d bytes, %v", len(got), errno)
	}
	for i := range 3 {
		g.mem.WriteString(uint32(bufferAt+i*10), data[:10])
	}
	ptr, n := g.vectors(4, 0, 6, 10)
	g.ok(g.call("fd_write", 1, ptr, n, resultAt))
	if out.String() != data[:20] || g.u32(resultAt) != 20 {
		t.Errorf("wrote %q, %d", out.String(), g.u32(resultAt))
	}
	g = newGuest(t, Config{Stdin: readerFunc(func([]byte) (int, error) { return 0, nil })})
	if ptr, n = g.vectors(1); g.exit("fd_read", 0, ptr, n, resultAt) != ExitHostFailure || g.state.Err() != io.ErrNoProgress {
		t.Errorf("a reader that gives nothing: %v", g.state.Err())
	}
	for name, test := range map[string]struct {
		w     io.Writer
		n     int
		errno Errno
	}{
		"fails":        {writerFunc(func([]byte) (int, error) { return 0, errHost }), 0, vfs.EIO},
		"closed":       {writerFunc(func([]byte) (int, error) { return 0, io.ErrClosedPipe }), 0, vfs.EPIPE},
		"takes a part": {writerFunc(func([]byte) (int, error) { return 3, errHost }), 3, 0},
		"lies":         {writerFunc(func(b []byte) (int, error) { return len(b) + 100, nil }), 5, 0},
		"lies below":   {writerFunc(func(b []byte) (int, error) { return -100, nil }), 0, vfs.EIO},
	} {
		g := newGuest(t, Config{Stderr: test.w})
		g.mem.WriteUint32Le(resultAt, 0)
		if n, errno := g.write(2, "hello"); n != test.n || errno != test.errno {
			t.Errorf("a writer that %s: %d, %v; want %d, %v", name, n, errno, test.n, test.errno)
		}
	}
	// Many buffers that are all of the memory: the sum is bounded.
	total := 0
	g = newGuest(t, Config{Stdout: writerFunc(func(b []byte) (int, error) { total += len(b); return len(b), nil })})
	for i := range uint32(2000) {
		g.mem.WriteUint32Le(vectorAt+8*i, 0)
		g.mem.WriteUint32Le(vectorAt+8*i+4, 16<<16)
	}
	g.ok(g.call("fd_write", 1, vectorAt, 2000, resultAt))
	if total != maxTransfer || g.u32(resultAt) != maxTransfer {
		t.Errorf("wrote %d, %d", total, g.u32(resultAt))
	}
}

// A used state is like a new one.
func TestReset(t *testing.T) {
	g := newGuest(t, Config{Args: []string{"canary"}, Env: []string{"CANARY=1"}, Bytes: 100, Files: 10, Seed: [32]byte{1}, Stdin: strings.NewReader("canary")})
	first := func() string {
		g.ok(g.call("random_get", bufferAt, 16))
		r := g.str(bufferAt, 16)
		g.ok(g.call("clock_time_get", 0, 0, resultAt))
		return r + g.str(resultAt, 8)
	}
	fresh := first()
	fd := g.open(3, "tmp/canary", openCreate, rw)
	g.write(fd, strings.Repeat("x", 100))
	g.want(g.call("fd_allocate", g.open(3, "tmp/canary", 0, rightAllocate), 0, 101), vfs.ENOSPC)
	g.ok(g.call("fd_renumber", fd, 3))
	if !g.state.Refused().Bytes {
		t.Error("not full")
	}
	g.state.Reset(Config{Bytes: 100, Files: 10, Seed: [32]byte{1}})
	if got := first(); got != fresh {
		t.Errorf("%x, want %x", got, fresh)
	}
	if g.state.Refused() != (Refused{}) || g.state.Err() != nil || g.state.Out() != nil {
		t.Error("something is left")
	}
	for _, fd := range []uint64{4, 5} {
		_, errno := g.fdstat(fd)
		g.want(errno, vfs.EBADF)
	}
	_, errno := g.stat(3, 0, "tmp/canary")
	g.want(errno, vfs.ENOENT)
	if got, errno := g.read(0, 100); got != "" || errno != 0 {
		t.Errorf("%q, %v", got, errno)
	}
	for _, name := range []string{"args_sizes_get", "environ_sizes_get"} {
		g.ok(g.call(name, resultAt, resultAt+4))
		if g.u64(resultAt) != 0 {
			t.Errorf("%s: %x", name, g.u64(resultAt))
		}
	}
}

func TestMaxOpen(t *testing.T) {
	g := newGuest(t, roomy)
	for range maxOpen - 4 {
		g.open(3, "tmp", 0, 0)
	}
	_, errno := g.openWith(3, 0, "tmp", 0, 0, 0, 0)
	g.want(errno, vfs.EMFILE)
	g.ok(g.call("fd_close", 7))
	if fd := g.open(3, "tmp", 0, 0); fd != 7 {
		t.Errorf("%d, want what was closed", fd)
	}
}

// Mounted files are closed with their guest.
func TestResetCloses(t *testing.T) {
	m := &countingFS{fs: fstest.MapFS{"f": {Data: []byte("x")}}}
	g := newGuest(t, Config{Mounts: map[string]fs.FS{"/in": m}})
	g.ok(g.call("fd_close", g.open(3, "in/f", 0, rightRead)))
	for range 3 {
		g.open(3, "in/f", 0, rightRead)
	}
	g.ok(g.call("fd_renumber", 4, 5))
	if g.state.Reset(Config{}); m.opened == 0 || m.opened != m.closed {
		t.Errorf("%d opened, %d closed", m.opened, m.closed)
	}
}

type countingFS struct {
	fs             fs.FS
	opened, closed int
}

func (c *countingFS) Open(name string) (fs.File, error) {
	f, err := c.fs.Open(name)
	c.opened++
	return countingFile{f, c}, err
}

type countingFile struct {
	fs.File
	c *countingFS
}

func (f countingFile) Close() error { f.c.closed++; return f.File.Close() }

// A sequential file, with neither ReadAt nor Seek, can be read from front to back.
func TestSequentialMount(t *testing.T) {
	g := newGuest(t, Config{Mounts: map[string]fs.FS{"/in": &countingFS{fs: fstest.MapFS{"f": {Data: []byte("0123456789")}}}}})
	fd := g.open(3, "in/f", 0, rightRead|rightSeek)
	for _, want := range []string{"0123", "4567", "89", ""} {
		if got, errno := g.read(fd, 4); got != want || errno != 0 {
			t.Errorf("%q, %v; want %q", got, errno, want)
		}
	}
	_, errno := g.pread(fd, 4, 0)
	g.want(errno, vfs.ENOTSUP)
}

// The stream of random bytes does not depend on how it is asked for.
func TestRandom(t *testing.T) {
	g := newGuest(t, Config{Seed: [32]byte{7}})
	g.ok(g.call("random_get", 0, 2*piece-piece))
	whole := g.str(0, 1000)
	g.state.Reset(Config{Seed: [32]byte{7}})
	var parts strings.Builder
	for n := range uint32(50) {
		g.ok(g.call("random_get", bufferAt, uint64(n)))
		parts.WriteString(g.str(bufferAt, n))
	}
	if got := parts.String()[:1000]; got != whole {
		t.Error("other bytes in other pieces")
	}
	want := make([]byte, 1000)
	rand.NewChaCha8([32]byte{7}).Read(want)
	if whole != string(want) {
		t.Error("not the ChaCha8 stream of the seed")
	}
}

// A guest that uses no files costs no allocation, nor do the hot calls.
func TestAllocations(t *testing.T) {
	s := new(State)
	cfg := Config{Args: []string{"x"}, Stdout: io.Discard, Bytes: 1 << 20, Files: 10}
	s.Reset(cfg)
	if n := testing.AllocsPerRun(100, func() { s.Reset(cfg) }); n != 0 {
		t.Errorf("Reset: %v allocations", n)
	}
	g := newGuest(t, cfg)
	fd := g.open(3, "tmp/f", openCreate, rw|rightSeek)
	g.write(fd, "hello")
	ptr, n := g.vectors(5)
	for name, params := range map[string][]uint64{
		"fd_write": {1, ptr, n, resultAt}, "fd_read": {fd, ptr, n, resultAt}, "fd_pwrite": {fd, ptr, n, 0, resultAt},
		"fd_pread": {fd, ptr, n, 0, resultAt}, "fd_seek": {fd, 0, 0, resultAt}, "clock_time_get": {0, 0, resultAt},
		"random_get": {bufferAt, 32}, "args_get": {bufferAt, bufferAt + 100}, "fd_filestat_get": {0, resultAt}, "sched_yield": {0},
		"fd_readdir": {3, bufferAt, 100, 1, resultAt}, "poll_oneoff": {vectorAt, bufferAt, 1, resultAt},
	} {
		h, stack := g.calls[name], make([]uint64, 9)
		if n := testing.AllocsPerRun(100, func() {
			copy(stack, params)
			h.Call(g.ctx, g.mod, stack)
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// Export offers what preview 1 has, with its types.
func TestExport(t *testing.T) {
	ctx := t.Context()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer r.Close(ctx)
	b := r.NewHostModuleBuilder(moduleName)
	Export(b)
	m, err := b.Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defs := m.ExportedFunctionDefinitions()
	if len(defs) != 46 {
		t.Errorf("%d functions, want 46", len(defs))
	}
	if d := defs["fd_seek"]; len(d.ParamTypes()) != 4 || d.ParamTypes()[1] != api.ValueTypeI64 || len(d.ResultTypes()) != 1 {
		t.Errorf("fd_seek: %v, %v", d.ParamTypes(), d.ResultTypes())
	}
	if d := defs["proc_exit"]; len(d.ResultTypes()) != 0 {
		t.Errorf("proc_exit returns %v", d.ResultTypes())
	}
}

// fakeClock stands for a clock of the host's.
type fakeClock struct {
	now   int64
	sleep func()
}

func (c *fakeClock) Read(id ClockID) int64 { return c.Now(id) }
func (c *fakeClock) Now(id ClockID) int64  { return c.now + int64(id) }
func (c *fakeClock) Resolution() int64     { return 7 }

func (c *fakeClock) Sleep(_ context.Context, ns int64) {
	c.now += ns
	c.sleep()
}

// A guest may be given another clock and another source.
func TestImpure(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	clock := &fakeClock{now: 1000, sleep: func() {}}
	cfg := roomy
	cfg.Clock, cfg.Random = clock, strings.NewReader("abcdef")
	g := newGuest(t, cfg)
	g.ctx = g.state.Context(ctx)
	for id := range uint64(2) {
		g.ok(g.call("clock_time_get", id, 0, resultAt))
		if got := g.u64(resultAt); got != 1000+id {
			t.Errorf("clock %d: %d", id, got)
		}
	}
	g.ok(g.call("clock_res_get", 0, resultAt))
	if g.u64(resultAt) != 7 {
		t.Errorf("resolution %d", g.u64(resultAt))
	}
	g.create(3, "tmp/f")
	if st, _ := g.stat(3, 0, "tmp/f"); st.mtim != 1000 {
		t.Errorf("a file's time: %d", st.mtim)
	}
	g.subscribe(0, 1, eventClock, 1, 500, 0)
	if events, errno := g.poll(1); errno != 0 || len(events) != 1 || clock.now != 1500 {
		t.Errorf("%+v, %v at %d", events, errno, clock.now)
	}
	g.ok(g.call("random_get", bufferAt, 5))
	if got := g.str(bufferAt, 5); got != "abcde" {
		t.Errorf("random %q", got)
	}
	clock.sleep = cancel
	g.subscribe(0, 1, eventClock, 1, 500, 0)
	if g.exit("poll_oneoff", bufferAt, 3<<16, 1, resultAt) != sys.ExitCodeContextCanceled || !g.state.Stopped() {
		t.Error("slept through the end of the context")
	}
}
