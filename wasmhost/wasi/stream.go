package wasi

import (
	"context"
	"errors"
	"io"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmgrid/wasmgrid/wasmhost/wasi/vfs"
)

// This file is for other host modules, whose functions guests call beside those of preview 1 and which
// give out descriptors.

// Function is one function of another host module. It takes numbers, i for i32, I for i64 and F for f64
// in Params, and returns an errno. Call works on the caller's state and memory, as the functions of preview 1
// do: it is not called when ctx is over, and mem has 0 bytes in a module without memory; only Read may be
// called on it, best by [View].
type Function struct {
	Name, Params string
	Call         func(ctx context.Context, s *State, mem api.Memory, params []uint64) Errno
}

// ExportFunctions adds functions to a host module.
func ExportFunctions(b wazero.HostModuleBuilder, list []Function) {
	for _, f := range list {
		params := make([]api.ValueType, len(f.Params))
		for i, p := range f.Params {
			switch p {
			case 'I':
				params[i] = api.ValueTypeI64
			case 'F':
				params[i] = api.ValueTypeF64
			default:
				params[i] = api.ValueTypeI32
			}
		}
		b.NewFunctionBuilder().WithGoModuleFunction(handler(f.Call), params, []api.ValueType{api.ValueTypeI32}).Export(f.Name)
	}
}

// View is the guest's memory at a pointer: n bytes, or nil when they are not all there. The slice is the
// memory itself, so it changes under the guest's hands, and is void once the guest runs on.
func View(mem api.Memory, ptr, n uint64) []byte { return view(mem, ptr, n) }

// OpenStream gives the guest a descriptor to read from what open returns, unless open fails. There is
// room for the descriptor when open is called. The guest's end of it, [State.Reset] at the latest, closes
// the stream.
//
// A read of the stream gives what there is, once there is something, and does not wait for more. The
// stream must end its reads when the guest's context is over. An error of the stream's is the guest's to
// handle: as the Errno that it wraps, with its message, or EIO. It should come again at further reads.
func (s *State) OpenStream(open func() (io.ReadCloser, Errno)) (fd uint32, errno Errno) {
	if s.table.full() {
		return 0, s.Failed(vfs.EMFILE, "no descriptor is free: close one")
	}
	r, errno := open()
	if errno != vfs.ESUCCESS {
		return 0, errno
	}
	return s.table.open(descriptor{kind: stream, in: r, base: stdinRights})
}

// Count counts a call, and ends the guest when it is one too many. It is for functions that are not made by
// [ExportFunctions], which do that by themselves; those that may take long call Proceed, too.
func (s *State) Count() {
	s.calls++
	if s.CallsSpent() {
		panic(sys.NewExitError(sys.ExitCodeContextCanceled))
	}
}

// ReadStdin fills b with what is next of stdin, unless that ends before, and gives how many bytes there are. It ends the
// guest when stdin fails, or when ctx is over.
func (s *State) ReadStdin(ctx context.Context, b []byte) int {
	return s.readStream(ctx, s.cfg.Stdin, b)
}

// Moved charges the guest for bytes that a function moves to or from its memory.
func (s *State) Moved(ctx context.Context, bytes int) { s.chargeBytes(ctx, bytes) }

// Proceed ends the guest when its context is over. Functions call it after they waited for something.
func (s *State) Proceed(ctx context.Context) { s.proceed(ctx) }

// readOpened reads once from a stream. After that nothing is read in the same call: it might wait.
func (s *State) readOpened(ctx context.Context, r io.Reader) func(b []byte) (int, Errno) {
	done := false
	return func(b []byte) (int, Errno) {
		if done {
			return 0, vfs.ESUCCESS
		}
		done = true
		for range 100 {
			n, err := r.Read(b[:min(len(b), piece)])
			s.chargeBytes(ctx, max(n, 0))
			var errno Errno
			switch {
			case n > 0:
				return n, vfs.ESUCCESS
			case err == io.EOF:
				return 0, vfs.ESUCCESS
			case err != nil:
				s.proceed(ctx)
				if !errors.As(err, &errno) || errno == vfs.ESUCCESS {
					return 0, s.Failed(vfs.EIO, "the stream broke off")
				}
				return 0, s.Failed(errno, err.Error())
			}
			s.proceed(ctx)
		}
		return 0, vfs.EIO
	}
}
