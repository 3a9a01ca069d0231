// Package guestkv lets guests read and write the part of the realm's map that they were granted, by one host function
// (see [Functions]; docs/abi.md specifies it under "The map").
//
// The package decodes and bounds what guests hand over, and encodes what they are given; which keys a guest may use, and
// what becomes of a transaction, is up to a [grid.KV]. Everything here happens on the guest's own goroutine, which waits;
// its time goes on meanwhile, and when its context ends so does the wait.
package guestkv

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/sdk/abi"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi/vfs"
)

// Responses are in the host's memory until they are closed. A guest that has so many open, or so many bytes of them, is
// not given another.
const (
	MaxOpen = 8
	MaxHeld = 8 << 20
)

// State is one guest's part of the map. Like a wasi.State it is for one call into a guest at a time, and is reused by
// Reset. With the zero State there is no map.
type State struct {
	kv     grid.KV
	denied string
	open   int // responses
	held   int // bytes of them
}

// Reset makes the state that of a new guest, which may use kv; nil is no map. What the guest before had open is to be
// closed before, by its wasi.State.
func (s *State) Reset(kv grid.KV) { *s = State{kv: kv} }

// Denied is the first message about a request that was refused for want of a grant, or "": what to tell a person whose
// guest has failed.
func (s *State) Denied() string { return s.denied }

// Key finds a guest's *State in the context of a call.
type Key struct{}

// Functions are the host functions, for [wasi.ExportFunctions] of what is to be instantiated as [abi.Module]. They work
// for guests that are called with a context that has a wasi.State and a [Key]; without the latter they fail with ENOTSUP.
func Functions() []wasi.Function {
	return []wasi.Function{{Name: abi.KV, Params: "iii", Call: kv}}
}

// kv(ptr, len, fd) does what is in memory and gives a descriptor of the response.
func kv(ctx context.Context, w *wasi.State, mem api.Memory, p []uint64) wasi.Errno {
	in, out := wasi.View(mem, p[0], p[1]), wasi.View(mem, p[2], 4)
	if in == nil || out == nil {
		return w.Outside()
	}
	s, _ := ctx.Value(Key{}).(*State)
	if s == nil || s.kv == nil {
		return w.Failed(vfs.ENOTSUP, "there is no map here: the task was granted no keys, or nobody keeps one")
	}
	w.Moved(ctx, len(in))
	r, err := Decode(in)
	if grid.CodeOf(err) == grid.Limit {
		return w.Failed(vfs.EFBIG, err.Error())
	} else if err != nil {
		return w.Failed(vfs.EINVAL, err.Error())
	}
	if s.open >= MaxOpen || s.held >= MaxHeld {
		return w.Failed(vfs.EMFILE, "as many responses of the map are open as may be: close one")
	}
	fd, errno := w.OpenStream(func() (io.ReadCloser, wasi.Errno) {
		b, err := s.do(ctx, r)
		if err != nil {
			return nil, s.failed(ctx, w, err)
		}
		s.open++
		s.held += len(b)
		return &response{*bytes.NewReader(b), s}, 0
	})
	w.Proceed(ctx)
	if errno == 0 {
		binary.LittleEndian.PutUint32(out, fd)
	}
	return errno
}

// do asks the map, and encodes what it says.
func (s *State) do(ctx context.Context, r Request) ([]byte, error) {
	switch r.Op {
	case abi.KVGet:
		e, err := s.kv.Get(ctx, r.Key)
		if err != nil {
			return nil, err
		}
		return EncodeEntry(e), nil
	case abi.KVList:
		entries, more, err := s.kv.List(ctx, r.Prefix, r.After, r.Limit)
		if err != nil {
			return nil, err
		}
		if len(entries) > r.Limit {
			return nil, grid.Errorf(grid.Internal, "guestkv: the map gave %d entries, %d were asked for", len(entries), r.Limit)
		}
		return EncodeList(entries, more), nil
	}
	revision, err := s.kv.Commit(ctx, r.Txn)
	if err != nil {
		return nil, err
	}
	return EncodeRevision(revision), nil
}

// failed makes an errno of what the guest can handle, and ends it for the rest.
func (s *State) failed(ctx context.Context, w *wasi.State, err error) wasi.Errno {
	code := grid.CodeOf(err)
	if end, ok := ctx.Deadline(); ok && code == grid.Deadline && !time.Now().Before(end) {
		<-ctx.Done() // the map was a moment quicker to see that the guest's time is over
	}
	w.Proceed(ctx)
	switch code {
	case grid.NotFound:
		return w.Failed(vfs.ENOENT, err.Error())
	case grid.Conflict:
		return w.Failed(vfs.EAGAIN, err.Error())
	case grid.Denied:
		if s.denied == "" {
			s.denied = wasi.Clip(err.Error())
		}
		return w.Failed(vfs.ENOTCAPABLE, err.Error())
	case grid.Invalid:
		return w.Failed(vfs.EINVAL, err.Error())
	case grid.Limit:
		return w.Failed(vfs.ENOSPC, err.Error())
	}
	w.Fail(grid.Errorf(code, "use the realm's map: %w", err))
	return 0
}

// response is what a guest reads.
type response struct {
	bytes.Reader
	s *State
}

// Close implements io.Closer. It is called once.
func (r *response) Close() error {
	r.s.open--
	r.s.held -= int(r.Size())
	return nil
}
