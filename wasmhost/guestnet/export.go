package guestnet

import (
	"context"
	"encoding/binary"
	"errors"
	"io"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasmgrid/wasmgrid/sdk/abi"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi"
)

// Functions are the host functions, for [wasi.ExportFunctions] of what is to be instantiated as [abi.Module]. They work
// for guests that are called with a context that has a wasi.State and a [Key]; without the latter every request is refused
// with EACCES.
func Functions() []wasi.Function {
	return []wasi.Function{
		{Name: abi.HTTPOpen, Params: "iii", Call: httpOpen},
	}
}

// stateOf finds the caller's state; a new one, without network, when it has none.
func stateOf(ctx context.Context) *State {
	if s, ok := ctx.Value(Key{}).(*State); ok {
		return s
	}
	return new(State)
}

// httpOpen(ptr, len, fd) makes the request that is in memory and gives a descriptor of the response.
func httpOpen(ctx context.Context, w *wasi.State, mem api.Memory, p []uint64) wasi.Errno {
	in, out := wasi.View(mem, p[0], p[1]), wasi.View(mem, p[2], 4)
	if in == nil || out == nil {
		return w.Outside()
	}
	w.Moved(ctx, len(in))
	s := stateOf(ctx)
	fd, errno := w.OpenStream(func() (io.ReadCloser, wasi.Errno) {
		r, err := s.fetch(ctx, in)
		if err != nil {
			errno := eio
			errors.As(err, &errno)
			return nil, w.Failed(errno, err.Error())
		}
		return r, 0
	})
	w.Proceed(ctx)
	if errno == 0 {
		binary.LittleEndian.PutUint32(out, fd)
	}
	return errno
}
