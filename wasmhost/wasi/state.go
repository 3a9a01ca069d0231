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
	Open   int              // descriptors at a time, with the four that are there; 0: 4,096
	Calls  uint64           // of functions, at most; 0: no bound
	Meter  Meter            // is told what calls cost, when not nil

	Seed   [32]byte  // of random_get
	Random io.Reader // instead of the stream from Seed, when not nil; must not fail
	Clock  Clock     // instead of the virtual clock, when not nil
	// Elapsed is how long the virtual clock has run before, in nanoseconds: since a reactor was initialised.
	Elapsed int64
}

// Meter counts the work that calls do for a guest.
type Meter interface {
	// Charge counts units of work: one for 8 bytes that are moved to or from the guest's memory, and some for
	// each thing that is looked at. What is charged depends on nothing but what the guest sees. It may end the
	// guest by a panic with a [sys.ExitError].
	Charge(ctx context.Context, units uint64)
}

// State is all that the functions know of one guest. It is for one call into a guest at a time, and
// needs a Reset before the first.
type State struct {
	cfg     Config
	clock   Clock
	virtual virtualClock
	random  rand.ChaCha8
	seeded  bool // random was
	calls   uint64
	moved   uint64 // bytes
	files   vfs.FS
	table   table
	stopped bool
	err     error
	message string       // of the last failure of another host module's function
	now     func() int64 // of files; made once
}

// Reset makes the state that of a new guest. Nothing of the one before is left, and what it had open
// is closed; Reset with the zero Config lets go of everything.
func (s *State) Reset(cfg Config) {
	s.table.reset()
	s.cfg, s.err, s.stopped, s.seeded, s.calls, s.moved, s.message = cfg, nil, false, false, 0, 0, ""
	if cfg.Open > 0 {
		s.table.most = cfg.Open
	}
	s.virtual = virtualClock{cfg.Elapsed}
	if s.clock = cfg.Clock; s.clock == nil {
		s.clock = &s.virtual
	}
	if s.now == nil {
		s.now = func() int64 { return s.clock.Now(Realtime) }
	}
	s.files.Reset(vfs.Config{Mounts: cfg.Mounts, Bytes: cfg.Bytes, Files: cfg.Files, Now: s.now})
	s.table.open(descriptor{kind: input, in: cfg.Stdin, base: stdinRights})
	s.table.open(descriptor{kind: output, out: cfg.Stdout, base: stdoutRights})
	s.table.open(descriptor{kind: output, out: cfg.Stderr, base: stdoutRights})
	s.table.open(descriptor{kind: folder, dir: s.files.Root(), preopen: "/", base: folderRights, inheriting: allRights})
}

// Release lets go of all that the guest was given. Reset comes before the next one.
func (s *State) Release() {
	s.table.reset()
	s.files.Reset(vfs.Config{})
	s.cfg, s.clock, s.message = Config{}, nil, ""
}

// Err is the host's failure that ended the guest, if one did.
func (s *State) Err() error { return s.err }

// Elapsed is how long the virtual clock has run, in nanoseconds.
func (s *State) Elapsed() int64 { return s.virtual.ns }

// Stopped reports whether a call ended the guest because its context was over.
func (s *State) Stopped() bool { return s.stopped }

// Calls is how many functions the guest has called.
func (s *State) Calls() uint64 { return s.calls }

// CallsSpent reports whether a call ended the guest because it was one more than it may make.
func (s *State) CallsSpent() bool { return s.cfg.Calls > 0 && s.calls > s.cfg.Calls }

// Refused is what a guest wanted and did not get, for it would have been more than its limits.
type Refused struct {
	vfs.Full      // room in its folders
	Open     bool // one more descriptor
}

// Refused tells what the guest was refused so far.
func (s *State) Refused() Refused { return Refused{s.files.Full(), s.table.refused} }

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

// Fail ends the guest for a failure of the host's, which [State.Err] tells.
func (s *State) Fail(err error) {
	if s.err == nil {
		s.err = err
	}
	panic(sys.NewExitError(ExitHostFailure))
}

// begin counts a call, and ends the guest when it is one too many or its context is over.
func (s *State) begin(ctx context.Context) {
	s.Count()
	s.proceed(ctx)
}

// Costs of what calls look at, in units of a [Meter]. A call itself is paid for by who made it.
const (
	byteShift   = 3 // 8 bytes a unit
	costVector  = 2
	costEntry   = 8 // of a folder's list, or of what is polled
	costPath    = 16
	costStrings = 2 // of an argument or variable
)

// charge tells the meter of units of work.
func (s *State) charge(ctx context.Context, units uint64) {
	if s.cfg.Meter != nil {
		s.cfg.Meter.Charge(ctx, units)
	}
}

// chargeBytes is charge for bytes that are moved. In what pieces they come makes no difference in the end.
func (s *State) chargeBytes(ctx context.Context, n int) {
	paid := s.moved >> byteShift
	s.moved += uint64(n)
	s.charge(ctx, s.moved>>byteShift-paid)
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
