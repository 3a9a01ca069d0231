package wasi

import (
	"context"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"

	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmgrid/wasmgrid/wasmhost/wasi/vfs"
)

// Config is what a guest is given. The zero Config gives it nothing.
type Config struct {
	Args, Env []string // without zero bytes
	// Stdin is read until EOF; another error is the host's failure. nil is empty.
	Stdin io.Reader
	// Stdout and Stderr bound what they take: an error they return is the guest's to handle, as EIO,
	// or EPIPE for [io.ErrClosedPipe]. nil discards.
	Stdout, Stderr io.Writer

	Mounts map[string]fs.FS // absolute guest path to read-only tree
	Bytes  int64            // of content under /out and /tmp, at most
	Files  int              // names there, at most

	Seed   [32]byte  // of random_get
	Random io.Reader // instead of the stream from Seed, when not nil; must not fail
	Clock  Clock     // instead of the virtual clock, when not nil
	// Elapsed is how long the virtual clock has run before, in nanoseconds: since a reactor was initialised.
	Elapsed int64
}

// State is all that the functions know of one guest. It is for one call into a guest at a time, and
// needs a Reset before the first.
type State struct {
	cfg     Config
	clock   Clock
	virtual virtualClock
	random  rand.ChaCha8
	files   vfs.FS
	table   table
	stopped bool
	err     error
	now     func() int64 // of files; made once
}

// Reset makes the state that of a new guest. Nothing of the one before is left, and what it had open
// is closed; Reset with the zero Config lets go of everything.
func (s *State) Reset(cfg Config) {
	s.table.reset()
	s.cfg, s.err, s.stopped = cfg, nil, false
	s.virtual = virtualClock{cfg.Elapsed}
	if s.clock = cfg.Clock; s.clock == nil {
		s.clock = &s.virtual
	}
	s.random.Seed(cfg.Seed)
	if s.now == nil {
		s.now = func() int64 { return s.clock.Now(Realtime) }
	}
	s.files.Reset(vfs.Config{Mounts: cfg.Mounts, Bytes: cfg.Bytes, Files: cfg.Files, Now: s.now})
	s.table.open(descriptor{kind: input, in: cfg.Stdin, base: stdinRights})
	s.table.open(descriptor{kind: output, out: cfg.Stdout, base: stdoutRights})
	s.table.open(descriptor{kind: output, out: cfg.Stderr, base: stdoutRights})
	s.table.open(descriptor{kind: folder, dir: s.files.Root(), preopen: "/", base: folderRights, inheriting: allRights})
}

// Err is the host's failure that ended the guest, if one did.
func (s *State) Err() error { return s.err }

// Elapsed is how long the virtual clock has run, in nanoseconds.
func (s *State) Elapsed() int64 { return s.virtual.ns }

// Stopped reports whether a call ended the guest because its context was over.
func (s *State) Stopped() bool { return s.stopped }

// Full reports whether the guest was refused room in its folders.
func (s *State) Full() bool { return s.files.Full() }

// Out hands over what the guest left in /out, or nil when that is nothing; see [vfs.FS.Out]. It
// outlives Reset, until which the guest must not run any more.
func (s *State) Out() fs.FS { return s.files.Out() }

// Context gives the context for calls into the guest whose state this is. Calls are quicker when
// nothing is wrapped around it.
func (s *State) Context(ctx context.Context) context.Context { return &guestContext{ctx, s} }

type stateKey struct{}

type guestContext struct {
	context.Context
	state *State
}

func (c *guestContext) Value(key any) any {
	if _, ok := key.(stateKey); ok {
		return c.state
	}
	return c.Context.Value(key)
}

// stateOf finds the state of the guest that makes a call.
func stateOf(ctx context.Context) *State {
	if c, ok := ctx.(*guestContext); ok {
		return c.state
	}
	s, ok := ctx.Value(stateKey{}).(*State)
	if !ok {
		panic("wasi: call into a guest without State.Context")
	}
	return s
}

// ExitHostFailure is the exit code of a guest that the host's failure ended.
const ExitHostFailure = math.MaxUint32 - 2

// fail ends the guest for a failure of the host's.
func (s *State) fail(err error) {
	if s.err == nil {
		s.err = err
	}
	panic(sys.NewExitError(ExitHostFailure))
}

// proceed ends the guest when its context is over.
func (s *State) proceed(ctx context.Context) {
	err := ctx.Err()
	if err == nil {
		return
	}
	s.stopped = true
	if err == context.DeadlineExceeded {
		panic(sys.NewExitError(sys.ExitCodeDeadlineExceeded))
	}
	panic(sys.NewExitError(sys.ExitCodeContextCanceled))
}
