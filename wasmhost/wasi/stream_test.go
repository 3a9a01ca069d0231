package wasi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi/vfs"
)

// pieces gives one piece a read, then an error.
type pieces struct {
	list   []string
	err    error
	closed int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.list) == 0 {
		return 0, p.err
	}
	n := copy(b, p.list[0])
	if p.list[0] = p.list[0][n:]; p.list[0] == "" {
		p.list = p.list[1:]
	}
	return n, nil
}

func (p *pieces) Close() error { p.closed++; return nil }

func (g *guest) stream(p *pieces) uint64 {
	g.t.Helper()
	fd, errno := g.state.OpenStream(func() (io.ReadCloser, Errno) { return p, vfs.ESUCCESS })
	g.ok(errno)
	return uint64(fd)
}

func TestOpenStream(t *testing.T) {
	g := newGuest(t, roomy)
	p := &pieces{list: []string{"abc", "defg"}, err: io.EOF}
	fd := g.stream(p)
	// A read gives what there is, and goes on to the next buffer in the next call only.
	for _, want := range []string{"abc", "defg", "", ""} {
		if got, errno := g.read(fd, 100); got != want || errno != 0 {
			t.Errorf("%q, %v, want %q", got, errno, want)
		}
	}
	q := &pieces{list: []string{"ab", "cd"}, err: io.EOF}
	fd2 := g.stream(q)
	ptr, n := g.vectors(0, 2, 5)
	if g.ok(g.call("fd_read", fd2, ptr, n, resultAt)); g.u32(resultAt) != 2 {
		t.Errorf("read %d bytes, want those that were there", g.u32(resultAt))
	}
	for name, errno := range map[string]Errno{
		"fd_seek": g.call("fd_seek", fd, 0, 0, resultAt), "fd_tell": g.call("fd_tell", fd, resultAt), "fd_pread": g.call("fd_pread", fd, ptr, n, 0, resultAt),
	} {
		if errno != vfs.ESPIPE {
			t.Errorf("%s: %v", name, errno)
		}
	}
	if errno := g.call("fd_write", fd, ptr, n, resultAt); errno != vfs.ENOTCAPABLE {
		t.Errorf("fd_write: %v", errno)
	}
	g.ok(g.call("fd_filestat_get", fd, resultAt))
	if kind, _ := g.mem.ReadByte(resultAt + 16); kind != 0 {
		t.Errorf("filetype %d", kind)
	}
	g.ok(g.call("fd_close", fd))
	if p.closed != 1 {
		t.Errorf("closed %d times", p.closed)
	}
	g.ok(g.call("fd_renumber", fd2, 0))
	if q.closed != 0 {
		t.Error("renumbering closed the stream")
	}
	if got, errno := g.read(0, 100); got != "cd" || errno != 0 {
		t.Errorf("%q, %v", got, errno)
	}
	g.state.Reset(Config{})
	if q.closed != 1 {
		t.Errorf("Reset closed it %d times", q.closed)
	}
}

func TestStreamErrors(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want Errno
	}{
		{errHost, vfs.EIO},
		{vfs.EFBIG, vfs.EFBIG},
		{fmt.Errorf("too much: %w", vfs.EFBIG), vfs.EFBIG},
		{vfs.ESUCCESS, vfs.EIO},
		{nil, vfs.EIO}, // no progress
	} {
		g := newGuest(t, roomy)
		fd := g.stream(&pieces{list: []string{"a"}, err: tt.err})
		if got, errno := g.read(fd, 9); got != "a" || errno != 0 {
			t.Errorf("%v: %q, %v", tt.err, got, errno)
		}
		if _, errno := g.read(fd, 9); errno != tt.want || g.state.Err() != nil {
			t.Errorf("%v: %v, %v, want %v", tt.err, errno, g.state.Err(), tt.want)
		}
	}
	// A stream that is cut short because the guest's context is over ends the guest.
	ctx, cancel := context.WithCancel(t.Context())
	g := newGuest(t, roomy)
	g.ctx = g.state.Context(ctx)
	fd, errno := g.state.OpenStream(func() (io.ReadCloser, Errno) {
		return io.NopCloser(readerFunc(func([]byte) (int, error) { cancel(); return 0, errHost })), 0
	})
	g.ok(errno)
	ptr, n := g.vectors(9)
	if code := g.exit("fd_read", uint64(fd), ptr, n, resultAt); code != sys.ExitCodeContextCanceled || !g.state.Stopped() {
		t.Errorf("exit code %x", code)
	}
}

func TestOpenStreamRefused(t *testing.T) {
	g := newGuest(t, roomy)
	if _, errno := g.state.OpenStream(func() (io.ReadCloser, Errno) { return nil, vfs.EACCES }); errno != vfs.EACCES {
		t.Error(errno)
	}
	var open []*pieces
	for {
		p := &pieces{err: io.EOF}
		called := false
		_, errno := g.state.OpenStream(func() (io.ReadCloser, Errno) { called = true; return p, 0 })
		if errno != 0 {
			if errno != vfs.EMFILE || called {
				t.Errorf("%v, called: %v", errno, called)
			}
			break
		}
		open = append(open, p)
	}
	if len(open) != maxOpen-4 {
		t.Errorf("opened %d", len(open))
	}
	g.state.Reset(Config{})
	for i, p := range open {
		if p.closed != 1 {
			t.Fatalf("stream %d was closed %d times", i, p.closed)
		}
	}
}

func TestExportFunctions(t *testing.T) {
	g := newGuest(t, roomy)
	r := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigInterpreter())
	defer r.Close(context.Background())
	ctx, cancel := context.WithCancel(t.Context())
	var views []int
	b := r.NewHostModuleBuilder("other")
	ExportFunctions(b, []Function{{"f", "iI", func(_ context.Context, s *State, mem api.Memory, p []uint64) Errno {
		if s != g.state {
			t.Error("another guest's state")
		}
		v := View(mem, p[0], p[1])
		if views = append(views, len(v)); v == nil {
			cancel()
		}
		return vfs.EACCES
	}}})
	if _, err := b.Instantiate(t.Context()); err != nil {
		t.Fatal(err)
	}
	call := func(n int64) []byte {
		return wasmbytes.Code(wasmbytes.Const(8), wasmbytes.Const64(n), wasmbytes.Call(0),
			wasmbytes.Const(int32(vfs.EACCES)), []byte{0x47}, wasmbytes.If([]byte{0x00})) // i32.ne, unreachable
	}
	binary := wasmbytes.Module{
		Imports: []wasmbytes.Import{{Module: "other", Name: "f", Params: []byte{wasmbytes.I32, wasmbytes.I64}, Results: []byte{wasmbytes.I32}}},
		// The last of the calls is not made: the context is over.
		MinPages: 1, Code: wasmbytes.Code(call(5), call(1<<16-7), call(1)),
	}.Bytes()
	mod, err := r.InstantiateWithConfig(t.Context(), binary, wazero.NewModuleConfig().WithStartFunctions())
	if err != nil {
		t.Fatal(err)
	}
	_, err = mod.ExportedFunction("_start").Call(g.state.Context(ctx))
	var exit *sys.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != sys.ExitCodeContextCanceled {
		t.Errorf("ended with %v", err)
	}
	if !slices.Equal(views, []int{5, 0}) {
		t.Errorf("saw %d bytes", views)
	}
}
