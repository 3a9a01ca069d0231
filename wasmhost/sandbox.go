package wasmhost

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	wsys "github.com/tetratelabs/wazero/sys"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/wasmhost/extism"
	"github.com/wasmgrid/wasmgrid/wasmhost/guestkv"
	"github.com/wasmgrid/wasmgrid/wasmhost/guestnet"
	"github.com/wasmgrid/wasmgrid/wasmhost/guestreport"
	"github.com/wasmgrid/wasmgrid/wasmhost/guesttask"
	"github.com/wasmgrid/wasmgrid/wasmhost/module"
	"github.com/wasmgrid/wasmgrid/wasmhost/rewrite"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi"
)

// maxStack bounds the guest's stack trace in a fault, and maxMessage its message; in bytes.
const (
	maxStack   = 8 << 10
	maxMessage = 1 << 10
)

func sprintf(format string, args ...any) string { return fmt.Sprintf(format, args...) }

// sandbox is what surrounds one guest. It is reused for the next one.
type sandbox struct {
	wasi           wasi.State
	net            guestnet.State
	tasks          guesttask.State
	kv             guestkv.State
	report         guestreport.State
	extism         *extism.State // nil before there was a plug-in for Extism
	kernel         kernel        // of that
	linear         func(uint64)  // sets the limit of linear memory
	room           *room         // of the guest, on its node
	waited         time.Duration // for others
	memory         memory
	meter          meter
	stdout, stderr output
	trapped        bool
}

// output bounds what a guest writes to one of its streams.
type output struct {
	to   io.Writer // nil discards
	room uint64
	over bool // it wrote more
}

var errOutput = errors.New("output limit")

func (o *output) Write(b []byte) (n int, err error) {
	if uint64(len(b)) > o.room {
		b, err = b[:o.room], errOutput
		o.over = true
	}
	n = len(b)
	if o.to != nil && n > 0 {
		var failed error
		if n, failed = o.to.Write(b); failed != nil {
			err = failed
		}
	}
	o.room -= uint64(max(n, 0))
	return n, err
}

func newSandbox(pool *memoryPool) *sandbox {
	return &sandbox{memory: memory{pool: pool}, kernel: kernel{memory{pool: pool}}}
}

// reset lets go of the guest.
func (s *sandbox) reset() {
	s.memory.release()
	s.meter, s.stdout, s.stderr, s.trapped = meter{}, output{}, output{}, false
	s.wasi.Release()
	s.net.Reset(nil, nil)
	s.tasks.Reset(guesttask.Config{})
	s.kv.Reset(nil)
	s.report.Reset(nil)
	s.room, s.waited, s.linear = nil, 0, nil
	if s.extism != nil {
		s.extism.Release()
	}
	s.kernel.release()
}

// run runs one guest to its end, by one of its module's programs.
func (s *sandbox) run(ctx context.Context, h *Host, m *compiled, p *program, g *grid.Guest, limits grid.Limits) (out grid.Outcome, err error) {
	for _, e := range g.Env {
		if k, _, ok := strings.Cut(e, "="); !ok || k == "" || strings.ContainsRune(e, 0) {
			return out, grid.Errorf(grid.Invalid, "wasmhost: environment variable %q: want NAME=value", e)
		}
	}
	for _, a := range g.Args {
		if strings.ContainsRune(a, 0) {
			return out, grid.Errorf(grid.Invalid, "wasmhost: argument %q: has a zero byte", a)
		}
	}
	entry := m.info.Entry(g.Func)
	if m.info.Kind == grid.Reactor && entry != module.Call && !slices.Contains(m.info.Functions, entry) {
		return out, grid.Errorf(grid.Invalid, "wasmhost: module %s has no function %q", g.Module, entry).
			Hint("it has %s", strings.Join(m.info.Functions, ", "))
	}
	s.stdout, s.stderr = output{to: g.Stdout, room: limits.Output}, output{to: g.Stderr, room: limits.Output}
	cfg := wasi.Config{
		Args: g.Args, Env: g.Env,
		Stdin: g.Stdin, Stdout: &s.stdout, Stderr: &s.stderr,
		Mounts: g.Mounts,
		Bytes:  int64(min(limits.Scratch, math.MaxInt64)),
		Files:  int(limits.Files),
		Open:   int(limits.Open),
		Calls:  limits.Calls,
		Meter:  &s.meter,
		Seed:   g.Seed,
	}
	if g.Impure {
		cfg.Clock, cfg.Random = wasi.RealClock(m.elapsed), rand.Reader
	}
	if err := s.net.Reset(h.net, g.Net); err != nil {
		return out, err
	}
	s.kv.Reset(g.KV)
	s.report.Reset(g.Progress)
	s.memory.limit = limits.Memory
	s.meter = newMeter(limits.Fuel)
	if g.Profile {
		s.meter.profile = newProfile(p.tier.sampler, g.Module)
	}

	defer func() {
		if r := recover(); r != nil { // wazero recovers what guests cause; this is for what it does not
			h.log.Error("a guest's run panicked", "module", g.Module, "panic", r)
			err = grid.Errorf(grid.Internal, "wasmhost: run module %s: %v", g.Module, r)
		}
	}()
	if ctx.Err() != nil {
		return out, ended(ctx, sprintf("run module %s", g.Module))
	}
	began := time.Now()
	bounded := &guestContext{Context: ctx, sandbox: s, end: began.Add(limits.Wall)}
	defer bounded.close()
	s.meter.clock = bounded
	if m.info.Extism {
		s.begin(g, limits)
	}
	if m.info.Spawns {
		s.tasks.Reset(guesttask.Config{Context: ctx, Tasks: g.Tasks, Idle: func(size uint64, wait func() error) error { return s.idle(ctx, bounded, size, wait) }})
	}
	var end ending
	if p == &m.program && m.image != nil {
		cfg.Elapsed = m.elapsed
		s.wasi.Reset(cfg)
		end, err = s.callWarm(s.context(bounded, m), h, m, entry)
	} else {
		end, err = s.callFresh(bounded, h, m, p, entry, cfg)
	}
	if err != nil {
		return out, grid.Errorf(grid.CodeOf(err), "wasmhost: make an instance of module %s: %w", g.Module, err)
	}
	out.Run, out.Exit, out.Fuel, out.Memory, out.Calls = time.Since(began)-s.waited, end.exit, end.fuel, end.memory, s.wasi.Calls()

	out.Parked = s.waited
	out.Metrics = s.report.Metrics()

	if f := s.meter.profile; f != nil {
		if out.Profile, err = f.encode(out.Fuel); err != nil {
			return grid.Outcome{}, grid.Errorf(grid.Internal, "wasmhost: profile module %s: %w", g.Module, err)
		}
	}
	stopped := s.meter.why == ctxEnded || s.wasi.Stopped()
	if err := s.tasks.Err(); err != nil && ctx.Err() == nil {
		return grid.Outcome{}, grid.Errorf(grid.CodeOf(err), "wasmhost: run module %s: %w", g.Module, err)
	}
	switch {
	case s.tasks.Fault() != nil:
		out.Fault = s.tasks.Fault()
	case s.meter.why == fuelSpent:
		out.Fault = &grid.Fault{Code: grid.Limit, Message: sprintf("used %d of %d fuel, its limit", out.Fuel, limits.Fuel)}
	case s.wasi.CallsSpent():
		out.Calls = limits.Calls
		out.Fault = &grid.Fault{Code: grid.Limit, Message: sprintf("made %d of %d system calls, its limit", limits.Calls, limits.Calls)}
	case stopped && ctx.Err() != nil:
		return grid.Outcome{}, ended(ctx, sprintf("run module %s", g.Module))
	case stopped:
		out.Fault = &grid.Fault{Code: grid.Deadline, Message: sprintf("ran for more than %v, its time limit", limits.Wall)}
	case end.err != nil:
		out.Exit, out.Fault = h.judge(end.err)
		s.trapped = out.Fault != nil
		if s.meter.why == stackFull && out.Fault != nil {
			out.Fault.Message = sprintf("stack overflow: the stack is deeper than %d calls, its limit", rewrite.MaxDepth)
		}
	}
	if m.info.Extism {
		if err := s.finish(&out, &end); err != nil {
			return grid.Outcome{}, grid.Errorf(grid.CodeOf(err), "wasmhost: hand on the output of a guest of module %s: %w", g.Module, err)
		}
	}
	if err := s.wasi.Err(); err != nil {
		if ctx.Err() != nil {
			return grid.Outcome{}, ended(ctx, sprintf("run module %s", g.Module))
		}
		return grid.Outcome{}, grid.Errorf(grid.CodeOf(err), "wasmhost: serve a guest of module %s: %w", g.Module, err)
	}
	if out.Exit != 0 || s.trapped {
		s.explain(&out, end.refused, limits)
	}
	if out.Fault == nil {
		out.Fault = cmp.Or(s.stdout.fault("stdout", limits.Output), s.stderr.fault("stderr", limits.Output))
	}
	out.Out = s.wasi.Out()
	return out, nil
}

// explain looks for a limit behind the failure of a guest that was not stopped: it gave up, or ran into a trap,
// after it was refused something. refused is how much memory it asked for and did not get, 0 for none.
func (s *sandbox) explain(out *grid.Outcome, refused uint64, limits grid.Limits) {
	how := sprintf("gave up with exit code %d", out.Exit)
	fault := grid.Fault{}
	if out.Fault != nil {
		if s.meter.why == stackFull {
			return
		}
		how, fault.Stack = "failed: "+out.Fault.Message, out.Fault.Stack
	}
	full := s.wasi.Refused()
	switch {
	case s.net.Denied() != "":
		fault.Code = grid.Denied
		fault.Message = sprintf("%s; and the guest %s", s.net.Denied(), how)
	case s.kv.Denied() != "":
		fault.Code = grid.Denied
		fault.Message = sprintf("%s; and the guest %s", s.kv.Denied(), how)
	case refused > 0:
		fault.Code = grid.Limit
		fault.Message = sprintf("asked for %.5g MiB of memory, its limit is %.5g MiB, and %s", mebibytes(refused), mebibytes(limits.Memory), how)
	case full.Bytes:
		fault.Code = grid.NoSpace
		fault.Message = sprintf("wrote more than %d bytes into %s and %s, its limit, and %s", limits.Scratch, grid.GuestOut, grid.GuestTmp, how)
	case full.Files:
		fault.Code = grid.NoSpace
		fault.Message = sprintf("made more than %d files in %s and %s, its limit, and %s", limits.Files, grid.GuestOut, grid.GuestTmp, how)
	case full.Open:
		fault.Code = grid.Limit
		fault.Message = sprintf("opened more than %d files at a time, its limit, and %s", limits.Open, how)
	default:
		return
	}
	out.Exit, out.Fault = 0, &fault
}

func mebibytes(n uint64) float64 { return float64(n) / (1 << 20) }

// fault is the outcome of a guest that wrote more than it may, nil when it did not.
func (o *output) fault(stream string, limit uint64) *grid.Fault {
	if !o.over {
		return nil
	}
	return &grid.Fault{Code: grid.Limit, Message: sprintf("wrote more than %d bytes to %s, its limit", limit, stream)}
}

// returned tells whether a guest ended by itself: returned or exited, but was not stopped and did not trap.
func (s *sandbox) returned(end error) bool {
	if s.meter.why != running || s.wasi.Stopped() || s.wasi.CallsSpent() || s.wasi.Err() != nil || s.tasks.Stopped() {
		return false
	}
	var exit *wsys.ExitError
	return end == nil || errors.As(end, &exit)
}

// judge reads how a guest ended off wazero's error.
func (h *Host) judge(err error) (exit uint32, fault *grid.Fault) {
	if err == nil {
		return 0, nil
	}
	var ee *wsys.ExitError
	if errors.As(err, &ee) {
		return ee.ExitCode(), nil
	}
	text, hostStack, recovered := strings.Cut(err.Error(), "\n\nGo runtime stack trace:")
	if recovered {
		h.log.Error("a guest made a host function panic", "panic", text, "stack", hostStack)
	}
	message, stack, _ := strings.Cut(text, "\nwasm stack trace:\n")
	message = strings.TrimSuffix(strings.TrimPrefix(message, "wasm error: "), " (recovered by wazero)")
	return 0, &grid.Fault{Code: grid.Trap, Message: clip(message, maxMessage), Stack: clip(plainStack(unframe.Replace("\n" + stack)[1:]), maxStack)}
}

// unframe takes off what wazero puts before the names of functions: a tab, and the name of their module, which
// guests do not have.
var unframe = strings.NewReplacer("\n\t.", "\n", "\t", "")

func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	const more = "…"
	return strings.ToValidUTF8(s[:most-len(more)], "") + more
}
