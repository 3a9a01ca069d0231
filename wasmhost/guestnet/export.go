package guestnet

import (
	"context"
	"encoding/binary"
	"errors"
	"io"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wasmgrid/wasmgrid/sdk/abi"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi"
)

// Functions are the host functions, for [wasi.ExportFunctions].
func Functions() []wasi.Function {
	return []wasi.Function{
		{Name: abi.HTTPOpen, Params: "iii", Call: httpOpen},
		{Name: abi.HTTPError, Params: "iii", Call: httpError},
	}
}

// Export adds the functions to a host module, which is to be instantiated as [abi.Module]. They work for
// guests that are called with the contexts of a wasi.State and of a [State]; without the latter every
// request is refused with EACCES.
func Export(b wazero.HostModuleBuilder) { wasi.ExportFunctions(b, Functions()) }

// stateOf finds the caller's state; a new one, without network, when it has none.
func stateOf(ctx context.Context) *State {
	if s, ok := ctx.Value(stateKey{}).(*State); ok {
		return s
	}
	return new(State)
}

// httpOpen(ptr, len, fd) makes the request that is in memory and gives a descriptor of the response.
func httpOpen(ctx context.Context, w *wasi.State, mem api.Memory, p []uint64) wasi.Errno {
	in, out := wasi.View(mem, p[0], p[1]), wasi.View(mem, p[2], 4)
	if in == nil || out == nil {
		return efault
	}
	s := stateOf(ctx)
	s.message = "no descriptor is free: close one"
	fd, errno := w.OpenStream(func() (io.ReadCloser, wasi.Errno) {
		r, err := s.fetch(ctx, in)
		if err != nil {
			errno := eio
			errors.As(err, &errno)
			return nil, errno
		}
		return r, 0
	})
	w.Proceed(ctx)
	if errno == 0 {
		s.message = ""
		binary.LittleEndian.PutUint32(out, fd)
	}
	return errno
}

// httpError(ptr, len, used) gives the message of the guest's last failure, as far as there is room.
func httpError(ctx context.Context, _ *wasi.State, mem api.Memory, p []uint64) wasi.Errno {
	buf, used := wasi.View(mem, p[0], p[1]), wasi.View(mem, p[2], 4)
	if buf == nil || used == nil {
		return efault
	}
	binary.LittleEndian.PutUint32(used, uint32(copy(buf, stateOf(ctx).message)))
	return 0
}
