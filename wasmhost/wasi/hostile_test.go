package wasi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmgrid/wasmgrid/wasmhost/wasi/vfs"
)

const memorySize = 16 << 16

// Pointers and lengths around everything that can go wrong.
var hostile = []uint64{
	0, 1, 3, 4, 7, 8, 100, 1 << 16, memorySize - 64, memorySize - 8, memorySize - 4, memorySize - 1, memorySize, memorySize + 1,
	1<<31 - 1, 1 << 31, 1<<32 - 65, 1<<32 - 8, 1<<32 - 1, 1 << 32, 1<<63 - 1, 1 << 63, 1<<64 - 1,
}

// tryCall makes a call with any parameters. Nothing but a guest's end may come of it.
func tryCall(t testing.TB, ctx context.Context, mod api.Module, name string, h handler, params []uint64) {
	t.Helper()
	defer func() {
		r := recover()
		var exit *sys.ExitError
		if err, ok := r.(error); r != nil && !(ok && errors.As(err, &exit)) {
			t.Fatalf("%s(%x): panic: %v", name, params, r)
		}
	}()
	stack := make([]uint64, max(1, len(params)))
	copy(stack, params)
	h.Call(ctx, mod, stack)
}

// Every function gets every pair of hostile values at every two places.
func TestHostilePointers(t *testing.T) {
	g := newGuest(t, withInputs())
	g.put("tmp/x")
	none := newModule(t, 0)
	for _, f := range functions() {
		for i := range f.params {
			for j := range i + 1 {
				for _, a := range hostile {
					for _, b := range hostile {
						params := []uint64{3, 8, 8, 8, 8, 8, 8, 8, 8}[:len(f.params)]
						params[i], params[j] = a, b
						tryCall(t, g.ctx, g.mod, f.name, f.handler, params)
						if a > 1<<31 && b > 1<<31 {
							tryCall(t, g.ctx, none, f.name, f.handler, params)
						}
					}
				}
			}
		}
		g.state.Reset(withInputs())
	}
}

// A pointer that is wrong by one byte is refused, before anything is done.
func TestFault(t *testing.T) {
	cfg := withInputs()
	cfg.Stdin = bytes.NewReader([]byte("stdin"))
	g := newGuest(t, cfg)
	dir := g.scratch()
	fd := g.open(dir, "f", openCreate, fileRights)
	name, n := g.put("new")
	vec, count := g.vectors(4)
	const end = memorySize
	for _, test := range []struct {
		name   string
		params []uint64
	}{
		{"args_sizes_get", []uint64{end - 3, 0}}, {"args_sizes_get", []uint64{0, end - 3}}, {"args_sizes_get", []uint64{0, 1<<32 - 1}},
		{"clock_res_get", []uint64{0, end - 7}}, {"clock_time_get", []uint64{0, 0, end - 7}},
		{"fd_fdstat_get", []uint64{fd, end - 23}}, {"fd_filestat_get", []uint64{fd, end - 63}},
		{"fd_prestat_get", []uint64{3, end - 7}}, {"fd_prestat_dir_name", []uint64{3, end, 1}},
		{"fd_read", []uint64{0, vec, count, end - 3}}, {"fd_read", []uint64{0, end - 7, 1, resultAt}},
		{"fd_write", []uint64{fd, vec, count, end - 3}}, {"fd_write", []uint64{fd, end - 7, 1, resultAt}},
		{"fd_pread", []uint64{fd, vec, count, 0, end - 3}}, {"fd_pwrite", []uint64{fd, vec, count, 0, end - 3}},
		{"fd_readdir", []uint64{dir, end - 10, 11, 0, resultAt}}, {"fd_readdir", []uint64{dir, bufferAt, 100, 0, end - 3}},
		{"fd_seek", []uint64{fd, 0, 0, end - 7}}, {"fd_tell", []uint64{fd, end - 7}},
		{"path_create_directory", []uint64{dir, end - 2, 3}}, {"path_filestat_get", []uint64{dir, 0, end - 2, 3, resultAt}},
		{"path_open", []uint64{dir, 0, name, n, openCreate, 0, 0, 0, end - 3}}, {"path_open", []uint64{dir, 0, end - 2, 3, openCreate, 0, 0, 0, resultAt}},
		{"path_readlink", []uint64{dir, name, n, end - 3, 4, resultAt}}, {"path_symlink", []uint64{end - 3, 4, dir, name, n}},
		{"path_symlink", []uint64{name, n, dir, 1<<32 - 1, 2}}, {"path_rename", []uint64{dir, name, n, dir, end, 1}},
		{"path_unlink_file", []uint64{dir, 1<<32 - 3, 3}}, {"path_link", []uint64{dir, 0, name, n, dir, end, 1}},
		{"poll_oneoff", []uint64{end - 47, bufferAt, 1, resultAt}}, {"poll_oneoff", []uint64{bufferAt, end - 31, 1, resultAt}},
		{"poll_oneoff", []uint64{bufferAt, bufferAt + 100, 1, end - 3}}, {"random_get", []uint64{end - 7, 8}}, {"random_get", []uint64{1<<32 - 8, 8}},
	} {
		if errno := g.call(test.name, test.params...); errno != vfs.EFAULT {
			t.Errorf("%s(%x): %v, want EFAULT", test.name, test.params, errno)
		}
	}
	if list, _ := g.readdir(dir, 1000, 0); len(list) != 3 {
		t.Errorf("a refused call left something: %+v", list)
	}
	if st, _ := g.fstat(fd); st.size != 0 {
		t.Errorf("a refused write wrote %d bytes", st.size)
	}
	if got, _ := g.read(0, 10); got != "stdin" {
		t.Errorf("a refused read took some of stdin: %q left", got)
	}
}

// FuzzCalls lets a guest do anything: fill its memory and call functions in any order.
func FuzzCalls(f *testing.F) {
	f.Add([]byte("tmp/a\x00\x00\x00"), []byte{31, 3, 0, 0, 5, 1, 0xff, 0xff, 0, 64, 26, 4, 8, 1, 64})
	for i := range 46 {
		f.Add([]byte{0, 0, 0, 0, 64, 0, 0, 0, 'o', 'u', 't', '/', 'x', 0}, []byte{byte(i), 3, 8, 5, 16, 1, 2, 3, 4, 5, byte(i), 4, 0, 1, 200})
	}
	mod := newModule(f, 16)
	list := functions()
	state := new(State)
	f.Fuzz(func(t *testing.T, memory, calls []byte) {
		if len(memory) > 1<<16 || len(calls) > 1<<10 {
			return
		}
		cfg := withInputs()
		cfg.Args, cfg.Stdin, cfg.Stdout = []string{"x"}, bytes.NewReader(memory), io.Discard
		state.Reset(cfg)
		ctx := state.Context(context.Background())
		mod.Memory().Write(0, memory)
		for len(calls) > 0 {
			fn := list[int(calls[0])%len(list)]
			calls = calls[1:]
			params := make([]uint64, len(fn.params))
			for i := range params {
				if len(calls) == 0 {
					break
				}
				switch v := calls[0]; {
				case v < 0x80:
					params[i] = uint64(v)
				case int(v-0x80) < len(hostile):
					params[i] = hostile[v-0x80]
				default:
					params[i] = uint64(v-0x80) << 3
				}
				if len(calls) >= 9 && calls[0] == 0xfe {
					params[i], calls = binary.LittleEndian.Uint64(calls[1:]), calls[8:]
				}
				calls = calls[1:]
			}
			tryCall(t, ctx, mod, fn.name, fn.handler, params)
		}
		if err := state.Err(); err != nil {
			t.Errorf("taken for the host's failure: %v", err)
		}
	})
}
