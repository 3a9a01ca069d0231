package wasmhost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/experimental/sysfs"
	wsys "github.com/tetratelabs/wazero/sys"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/wasmhost/memfs"
)

// maxStack bounds the guest's stack trace in a fault, and maxMessage its message; in bytes.
const (
	maxStack   = 8 << 10
	maxMessage = 1 << 10
)

// WASI's error numbers that are given here.
const (
	errnoFault = 21
	errnoNosys = 52
)

func sprintf(format string, args ...any) string { return fmt.Sprintf(format, args...) }

// sandbox is what surrounds one guest. It is reused for the next one, since the configuration that
// points into it is worth keeping.
type sandbox struct {
	config wazero.ModuleConfig
	clock  clock
	random *rand.ChaCha8
	files  memfs.FS
	memory memory
	env    []string
	stdin  input
	stdout output
	stderr output
}

func newSandbox(pool *memoryPool) *sandbox {
	s := &sandbox{random: rand.NewChaCha8([32]byte{}), memory: memory{pool: pool}}
	tree := wazero.NewFSConfig().(sysfs.FSConfig).WithSysFSMount(&s.files, "/")
	s.config = wazero.NewModuleConfig().
		WithName(""). // so that instances do not clash
		WithStartFunctions().
		WithStdin(&s.stdin).WithStdout(&s.stdout).WithStderr(&s.stderr).
		WithRandSource(s.random).
		WithWalltime(s.clock.walltime, 1e6).
		WithNanotime(s.clock.nanotime, 1e6).
		WithNanosleep(s.clock.sleep).
		WithFSConfig(tree)
	return s
}

// reset lets go of the guest.
func (s *sandbox) reset() {
	s.memory.release()
	s.files.Reset(memfs.Config{})
	s.env = nil
	s.stdin, s.stdout, s.stderr = input{}, output{}, output{}
}

// run runs one guest to its end.
func (s *sandbox) run(ctx context.Context, h *Host, m *compiled, g *grid.Guest, limits grid.Limits) (out grid.Outcome, err error) {
	for _, e := range g.Env {
		if k, _, ok := strings.Cut(e, "="); !ok || k == "" || strings.ContainsRune(e, 0) {
			return out, grid.Errorf(grid.Invalid, "wasmhost: environment variable %q: want NAME=value", e)
		}
	}
	s.clock = clock{}
	s.random.Seed(g.Seed)
	s.files.Reset(memfs.Config{
		Mounts: g.Mounts,
		Bytes:  int64(min(limits.Scratch, math.MaxInt64)),
		Files:  int(limits.Files),
		Now:    s.clock.now,
	})
	s.memory.limit = limits.Memory
	s.env = g.Env
	s.stdin.r, s.stdout.w, s.stderr.w = g.Stdin, g.Stdout, g.Stderr
	config := s.config
	if len(g.Args) > 0 {
		config = config.WithArgs(g.Args...)
	}

	defer func() {
		if r := recover(); r != nil { // wazero recovers what guests cause; this is for what it does not
			h.log.Error("a guest's run panicked", "module", g.Module, "panic", r)
			err = grid.Errorf(grid.Internal, "wasmhost: run module %s: %v", g.Module, r)
		}
	}()
	bounded, cancel := context.WithTimeout(ctx, limits.Wall)
	defer cancel()
	call := context.WithValue(bounded, sandboxKey{}, s)
	call = experimental.WithMemoryAllocator(call, &s.memory)
	if m.wasi != nil {
		call = experimental.WithImportResolver(call, func(string) api.Module { return m.wasi })
	}
	began := time.Now()
	end := h.call(call, m.code, config)
	out.Run = time.Since(began)
	out.Memory = s.memory.size

	out.Exit, out.Fault = h.judge(end, g)
	if stopped(end) && bounded.Err() != nil {
		if ctx.Err() != nil {
			return grid.Outcome{}, ended(ctx, sprintf("run module %s", g.Module))
		}
		out.Exit, out.Fault = 0, &grid.Fault{Code: grid.Deadline, Message: sprintf("ran for more than %v, its time limit", limits.Wall)}
	}
	if err := errors.Join(s.files.Err(), s.stdin.err); err != nil {
		if ctx.Err() != nil {
			return grid.Outcome{}, ended(ctx, sprintf("run module %s", g.Module))
		}
		return grid.Outcome{}, grid.Errorf(grid.CodeOf(err), "wasmhost: read the inputs of a guest of module %s: %w", g.Module, err)
	}
	if out.Exit != 0 && s.files.Full() {
		out.Fault = &grid.Fault{Code: grid.NoSpace, Message: sprintf(
			"wrote more than its limits of %d bytes and %d files into %s and %s, and gave up with exit code %d",
			limits.Scratch, limits.Files, grid.GuestOut, grid.GuestTmp, out.Exit)}
		out.Exit = 0
	}
	out.Out = s.files.Out()
	return out, nil
}

// call instantiates the module, runs its _start and closes it again.
func (h *Host) call(ctx context.Context, code wazero.CompiledModule, config wazero.ModuleConfig) error {
	mod, err := h.runtime.InstantiateModule(ctx, code, config)
	if err != nil {
		return err
	}
	defer mod.Close(context.WithoutCancel(ctx))
	_, err = mod.ExportedFunction("_start").Call(ctx)
	return err
}

// stopped tells whether a guest ended because its context did, or looks like it: exit codes are the
// guest's to choose.
func stopped(err error) bool {
	var exit *wsys.ExitError
	return errors.As(err, &exit) && (exit.ExitCode() == wsys.ExitCodeContextCanceled || exit.ExitCode() == wsys.ExitCodeDeadlineExceeded)
}

// judge reads how a guest ended off wazero's error.
func (h *Host) judge(err error, g *grid.Guest) (exit uint32, fault *grid.Fault) {
	if err == nil {
		return 0, nil
	}
	var ee *wsys.ExitError
	if errors.As(err, &ee) {
		return ee.ExitCode(), nil
	}
	text, hostStack, recovered := strings.Cut(err.Error(), "\n\nGo runtime stack trace:")
	if recovered {
		h.log.Error("a guest made a host function panic", "module", g.Module, "panic", text, "stack", hostStack)
	}
	message, stack, _ := strings.Cut(text, "\nwasm stack trace:\n")
	message = strings.TrimPrefix(message, "wasm error: ")
	return 0, &grid.Fault{Code: grid.Trap, Message: clip(message, maxMessage), Stack: clip(strings.ReplaceAll(stack, "\t", ""), maxStack)}
}

func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	const more = "…"
	return strings.ToValidUTF8(s[:most-len(more)], "") + more
}

// clock is a guest's time: a function of how often it looked and how long it slept.
type clock struct{ ns int64 }

const (
	epoch = 1640995200 * int64(time.Second) // 2022-01-01 00:00 UTC
	tick  = int64(time.Millisecond)         // how far each look moves it
)

func (c *clock) now() int64 { return epoch + c.ns }

func (c *clock) walltime() (sec int64, nsec int32) {
	t := epoch + c.nanotime()
	return t / 1e9, int32(t % 1e9)
}

func (c *clock) nanotime() int64 {
	t := c.ns
	c.sleep(tick)
	return t
}

// sleep moves the clock on, no further than three centuries hence where int64 ends.
func (c *clock) sleep(ns int64) {
	if ns > 0 {
		c.ns += min(ns, math.MaxInt64-epoch-c.ns)
	}
}

// input is stdin. It remembers a failure, which the guest takes for an I/O error of its own.
type input struct {
	r   io.Reader
	err error
}

func (i *input) Read(b []byte) (int, error) {
	if i.r == nil {
		return 0, io.EOF
	}
	if i.err != nil {
		return 0, i.err
	}
	n, err := i.r.Read(b)
	if err != nil && err != io.EOF {
		i.err = err
	}
	return n, err
}

// output is stdout or stderr.
type output struct{ w io.Writer }

func (o *output) Write(b []byte) (int, error) {
	if o.w == nil {
		return len(b), nil
	}
	return o.w.Write(b)
}

type sandboxKey struct{}

// environSizesGet and environGet are ours because wazero's configuration takes quadratic time over
// variables.
func environSizesGet(ctx context.Context, mod api.Module, stack []uint64) {
	env := ctx.Value(sandboxKey{}).(*sandbox).env
	size := len(env) // of the zero bytes
	for _, e := range env {
		size += len(e)
	}
	mem := mod.Memory()
	ok := mem.WriteUint32Le(uint32(stack[0]), uint32(len(env))) && mem.WriteUint32Le(uint32(stack[1]), uint32(size))
	stack[0] = errno(ok)
}

func environGet(ctx context.Context, mod api.Module, stack []uint64) {
	pointers, at := uint32(stack[0]), uint32(stack[1])
	mem := mod.Memory()
	ok := true
	for _, e := range ctx.Value(sandboxKey{}).(*sandbox).env {
		ok = ok && mem.WriteUint32Le(pointers, at) && mem.WriteString(at, e)
		at += uint32(len(e))
		ok = ok && mem.WriteByte(at, 0)
		at++
		pointers += 4
	}
	stack[0] = errno(ok)
}

func errno(ok bool) uint64 {
	if ok {
		return 0
	}
	return errnoFault
}
