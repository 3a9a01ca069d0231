package wasi

import (
	"context"
	"encoding/binary"
	"math"
	"reflect"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wasmgrid/wasmgrid/wasmhost/wasi/vfs"
)

// Errno is an error number of preview 1.
type Errno = vfs.Errno

// handler is one function: it works on the caller's state and memory; p are the parameters.
type handler func(ctx context.Context, s *State, mem api.Memory, p []uint64) Errno

// Call implements api.GoModuleFunction.
func (h handler) Call(ctx context.Context, mod api.Module, stack []uint64) {
	s := stateOf(ctx)
	s.begin(ctx)
	mem := mod.Memory()
	if reflect.ValueOf(mem).IsNil() { // a module without memory has a nil of some type
		mem = noMemory{}
	}
	errno := h(ctx, s, mem, stack)
	if err := s.files.Err(); err != nil {
		s.Fail(err)
	}
	stack[0] = uint64(errno)
}

// noMemory is what modules without memory have: all of its 0 bytes. Read is the only method that is
// called.
type noMemory struct{ api.Memory }

func (noMemory) Read(_, n uint32) ([]byte, bool) { return nil, n == 0 }

// function is one of preview 1, with its parameters: i for i32, I for i64. Each returns an errno, but
// for proc_exit, which does not return.
type function struct {
	name, params string
	handler      handler
}

func functions() []function {
	return []function{
		{"args_get", "ii", argsGet},
		{"args_sizes_get", "ii", argsSizesGet},
		{"clock_res_get", "ii", clockResGet},
		{"clock_time_get", "iIi", clockTimeGet},
		{"environ_get", "ii", environGet},
		{"environ_sizes_get", "ii", environSizesGet},
		{"fd_advise", "iIIi", fdAdvise},
		{"fd_allocate", "iII", fdAllocate},
		{"fd_close", "i", fdClose},
		{"fd_datasync", "i", fdDatasync},
		{"fd_fdstat_get", "ii", fdFdstatGet},
		{"fd_fdstat_set_flags", "ii", fdFdstatSetFlags},
		{"fd_fdstat_set_rights", "iII", fdFdstatSetRights},
		{"fd_filestat_get", "ii", fdFilestatGet},
		{"fd_filestat_set_size", "iI", fdFilestatSetSize},
		{"fd_filestat_set_times", "iIIi", fdFilestatSetTimes},
		{"fd_pread", "iiiIi", fdPread},
		{"fd_prestat_dir_name", "iii", fdPrestatDirName},
		{"fd_prestat_get", "ii", fdPrestatGet},
		{"fd_pwrite", "iiiIi", fdPwrite},
		{"fd_read", "iiii", fdRead},
		{"fd_readdir", "iiiIi", fdReaddir},
		{"fd_renumber", "ii", fdRenumber},
		{"fd_seek", "iIii", fdSeek},
		{"fd_sync", "i", fdSync},
		{"fd_tell", "ii", fdTell},
		{"fd_write", "iiii", fdWrite},
		{"path_create_directory", "iii", pathCreateDirectory},
		{"path_filestat_get", "iiiii", pathFilestatGet},
		{"path_filestat_set_times", "iiiiIIi", pathFilestatSetTimes},
		{"path_link", "iiiiiii", pathLink},
		{"path_open", "iiiiiIIii", pathOpen},
		{"path_readlink", "iiiiii", pathReadlink},
		{"path_remove_directory", "iii", pathRemoveDirectory},
		{"path_rename", "iiiiii", pathRename},
		{"path_symlink", "iiiii", pathSymlink},
		{"path_unlink_file", "iii", pathUnlinkFile},
		{"poll_oneoff", "iiii", pollOneoff},
		{"proc_exit", "i", procExit},
		{"proc_raise", "i", procRaise},
		{"random_get", "ii", randomGet},
		{"sched_yield", "", schedYield},
		{"sock_accept", "iii", sock},
		{"sock_recv", "iiiiii", sock},
		{"sock_send", "iiiii", sock},
		{"sock_shutdown", "ii", sock},
	}
}

// Export adds the functions to a host module, which is to be instantiated as wasi_snapshot_preview1 or
// be given to guests by an import resolver.
func Export(b wazero.HostModuleBuilder) {
	for _, f := range functions() {
		params := make([]api.ValueType, len(f.params))
		for i, p := range f.params {
			params[i] = api.ValueTypeI32
			if p == 'I' {
				params[i] = api.ValueTypeI64
			}
		}
		results := []api.ValueType{api.ValueTypeI32}
		if f.name == "proc_exit" {
			results = nil
		}
		b.NewFunctionBuilder().WithGoModuleFunction(f.handler, params, results).Export(f.name)
	}
}

// view is the guest's memory at a pointer: n bytes, or nil when they are not all there. The slice is
// the memory itself.
func view(mem api.Memory, ptr, n uint64) []byte {
	at, size := uint32(ptr), uint32(n)
	if uint64(at)+uint64(size) > math.MaxUint32 { // wazero would overflow at the very end of 4 GiB
		return nil
	}
	b, ok := mem.Read(at, size)
	switch {
	case !ok:
		return nil
	case b == nil:
		return []byte{} // of no memory
	}
	return b
}

var le = binary.LittleEndian
