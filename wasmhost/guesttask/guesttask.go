// Package guesttask lets guests spawn tasks and wait for them, by two host functions (see [Functions]; docs/abi.md
// specifies them under "Tasks of tasks").
//
// What a guest can learn is a function of what it asked for: children have small numbers in the order in which they
// were spawned, and a child's end is told only to who awaits it. A guest that asks for more than it may, or whose
// child came to an end that is no function of the call, such as by a time limit, is ended: it must not know, lest
// its result depended on it.
//
// The package decodes and bounds what guests hand over; who runs the children is the engine's caller, see
// [grid.Tasks]. Everything here happens on the guest's own goroutine, which waits.
package guesttask

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/sdk/abi"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi/vfs"
)

// Config is what a guest's tasks need.
type Config struct {
	// Context is the guest's without its time limit, which does not run while it waits.
	Context context.Context
	Tasks   grid.Tasks // nil: it may spawn none
	// Idle calls wait, while the guest does not run. size is what it has in memory.
	Idle func(size uint64, wait func() error) error
}

// State is one guest's part. Like a wasi.State it is for one call into a guest at a time, and is reused by Reset. With
// the zero State nothing can be spawned.
type State struct {
	cfg   Config
	fault *grid.Fault
	err   error
}

// Reset makes the state that of a new guest.
func (s *State) Reset(cfg Config) { *s = State{cfg: cfg} }

// Fault is what the guest was ended for, nil when it was not.
func (s *State) Fault() *grid.Fault { return s.fault }

// Err is the host's failure that the guest was ended for, nil when it was not.
func (s *State) Err() error { return s.err }

// Stopped reports whether the guest was ended.
func (s *State) Stopped() bool { return s.fault != nil || s.err != nil }

// Key finds a guest's *State in the context of a call.
type Key struct{}

func stateOf(ctx context.Context) *State {
	if s, ok := ctx.Value(Key{}).(*State); ok {
		return s
	}
	return new(State)
}

// Functions are the host functions, for [wasi.ExportFunctions] of what is to be instantiated as [abi.Module]. They work
// for guests that are called with a context that has a wasi.State and a [Key]; without the latter they fail with ENOTSUP.
func Functions() []wasi.Function {
	return []wasi.Function{
		{Name: abi.Spawn, Params: "iii", Call: spawn},
		{Name: abi.Await, Params: "iii", Call: await},
	}
}

// stop ends the guest.
func stop() { panic(sys.NewExitError(wasi.ExitHostFailure)) }

// failed makes an errno of what the guest can handle, and ends it for the rest.
func (s *State) failed(ctx context.Context, w *wasi.State, err error) wasi.Errno {
	w.Proceed(ctx)
	switch grid.CodeOf(err) {
	case grid.Invalid:
		return w.Failed(vfs.EINVAL, err.Error())
	case grid.NotFound:
		return w.Failed(vfs.ECHILD, err.Error())
	case grid.Limit:
		s.fault = &grid.Fault{Code: grid.Limit, Message: err.Error()}
	default:
		s.err = err
	}
	stop()
	return 0
}

// spawn(ptr, len, child) spawns what is in memory and gives the child's number.
func spawn(ctx context.Context, w *wasi.State, mem api.Memory, p []uint64) wasi.Errno {
	in, out := wasi.View(mem, p[0], p[1]), wasi.View(mem, p[2], 4)
	if in == nil || out == nil {
		return w.Outside()
	}
	s := stateOf(ctx)
	if s.cfg.Tasks == nil {
		return w.Failed(vfs.ENOTSUP, "tasks cannot be spawned here")
	}
	w.Moved(ctx, len(in))
	c, err := Decode(in)
	if err == nil {
		var child uint32
		if child, err = s.cfg.Tasks.Spawn(s.cfg.Context, c); err == nil {
			binary.LittleEndian.PutUint32(out, child)
			return 0
		}
	}
	return s.failed(ctx, w, err)
}

// await(child, fd, exit) waits for a child, and gives a descriptor of what it printed and its exit code.
func await(ctx context.Context, w *wasi.State, mem api.Memory, p []uint64) wasi.Errno {
	fd, exit := wasi.View(mem, p[1], 4), wasi.View(mem, p[2], 4)
	if fd == nil || exit == nil {
		return w.Outside()
	}
	s := stateOf(ctx)
	if s.cfg.Tasks == nil {
		return w.Failed(vfs.ENOTSUP, "tasks cannot be spawned here")
	}
	child := uint32(p[0])
	n, errno := w.OpenStream(func() (io.ReadCloser, wasi.Errno) {
		e, err := s.await(child, uint64(mem.Size()))
		switch {
		case err != nil:
			return nil, s.failed(ctx, w, err)
		case e.Fault != nil && e.Fault.Fatal:
			s.fault = e.Fault
			stop()
		case e.Fault != nil:
			return nil, w.Failed(vfs.ECANCELED, fmt.Sprintf("%v: %s", e.Fault.Code, e.Fault.Message))
		}
		w.Note("")
		if e.Exit != 0 {
			w.Note(string(e.Stderr))
		}
		binary.LittleEndian.PutUint32(exit, e.Exit)
		return e.Stdout, 0
	})
	w.Proceed(ctx)
	if errno == 0 {
		binary.LittleEndian.PutUint32(fd, n)
	}
	return errno
}

// await waits for a child without the guest, unless that has ended.
func (s *State) await(child uint32, size uint64) (e grid.Ending, err error) {
	t := s.cfg.Tasks
	if t.Ended(child) {
		return t.Await(s.cfg.Context, child)
	}
	err = s.cfg.Idle(size, func() error {
		e, err = t.Await(s.cfg.Context, child)
		return err
	})
	if err != nil && e.Stdout != nil {
		e.Stdout.Close()
	}
	return e, err
}

// Decode reads a request: the function's name, the number of arguments and these, each name and argument behind its
// length, all numbers of 32 bits with the lowest byte first; the rest is the child's stdin. Errors are Invalid.
func Decode(b []byte) (grid.Call, error) {
	var c grid.Call
	var ok bool
	if c.Func, b, ok = word(b, grid.MaxName); !ok {
		return c, malformed("the function's name")
	}
	if len(b) < 4 {
		return c, malformed("the number of arguments")
	}
	n := binary.LittleEndian.Uint32(b)
	b = b[4:]
	if n > grid.MaxArgs || uint64(n)*4 > uint64(len(b)) {
		return c, malformed("the number of arguments")
	}
	if n > 0 {
		c.Args = make([]string, n)
	}
	for i := range c.Args {
		if c.Args[i], b, ok = word(b, grid.MaxArgBytes); !ok {
			return c, malformed(fmt.Sprintf("argument %d", i))
		}
	}
	if len(b) > grid.MaxChildStdin {
		return c, grid.Errorf(grid.Invalid, "%d bytes of input, at most %d are allowed", len(b), grid.MaxChildStdin)
	}
	c.Stdin = append([]byte(nil), b...) // the memory is the guest's
	return c, nil
}

func word(b []byte, most int) (string, []byte, bool) {
	if len(b) < 4 {
		return "", nil, false
	}
	n := binary.LittleEndian.Uint32(b)
	b = b[4:]
	if n > math.MaxInt32 || int(n) > most || int(n) > len(b) {
		return "", nil, false
	}
	return string(b[:n]), b[n:], true
}

func malformed(what string) error {
	return grid.Errorf(grid.Invalid, "malformed request: %s is cut off, or larger than allowed", what)
}
