package wasmhost

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	wsys "github.com/tetratelabs/wazero/sys"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/wasmhost/rewrite"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi"
)

// maxStack bounds the guest's stack trace in a fault, and maxMessage its message; in bytes.
const (
	maxStack   = 8 << 10
	maxMessage = 1 << 10
)

func sprintf(format string, args ...any) string { return fmt.Sprintf(format, args...) }

type sandboxKey struct{}

// sandbox is what surrounds one guest. It is reused for the next one.
type sandbox struct {
	wasi   wasi.State
	memory memory
	meter  meter
}

func newSandbox(pool *memoryPool) *sandbox { return &sandbox{memory: memory{pool: pool}} }

// reset lets go of the guest.
func (s *sandbox) reset() {
	s.memory.release()
	s.meter = meter{}
	s.wasi.Reset(wasi.Config{})
}

// run runs one guest to its end.
func (s *sandbox) run(ctx context.Context, h *Host, m *compiled, g *grid.Guest, limits grid.Limits) (out grid.Outcome, err error) {
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
	s.wasi.Reset(wasi.Config{
		Args: g.Args, Env: g.Env,
		Stdin: g.Stdin, Stdout: g.Stdout, Stderr: g.Stderr,
		Mounts: g.Mounts,
		Bytes:  int64(min(limits.Scratch, math.MaxInt64)),
		Files:  int(limits.Files),
		Seed:   g.Seed,
	})
	s.memory.limit = limits.Memory
	s.meter = newMeter(limits.Fuel)

	defer func() {
		if r := recover(); r != nil { // wazero recovers what guests cause; this is for what it does not
			h.log.Error("a guest's run panicked", "module", g.Module, "panic", r)
			err = grid.Errorf(grid.Internal, "wasmhost: run module %s: %v", g.Module, r)
		}
	}()
	if ctx.Err() != nil {
		return out, ended(ctx, sprintf("run module %s", g.Module))
	}
	bounded, cancel := context.WithTimeout(ctx, limits.Wall)
	defer cancel()
	call := context.WithValue(bounded, sandboxKey{}, s)
	call = s.wasi.Context(call)
	began := time.Now()
	var end ending
	if m.image == nil {
		end = s.callFresh(call, h, m)
	} else if end, err = s.callWarm(call, h, m); err != nil {
		return out, grid.Errorf(grid.CodeOf(err), "wasmhost: make an instance of module %s: %w", g.Module, err)
	}
	out.Run, out.Fuel, out.Memory = time.Since(began), end.fuel, end.memory

	stopped := s.meter.why == ctxEnded || s.wasi.Stopped()
	switch {
	case s.meter.why == fuelSpent:
		out.Fault = &grid.Fault{Code: grid.Limit, Message: sprintf("used %d of %d fuel, its limit", out.Fuel, limits.Fuel)}
	case stopped && ctx.Err() != nil:
		return grid.Outcome{}, ended(ctx, sprintf("run module %s", g.Module))
	case stopped:
		out.Fault = &grid.Fault{Code: grid.Deadline, Message: sprintf("ran for more than %v, its time limit", limits.Wall)}
	default:
		out.Exit, out.Fault = h.judge(end.err, g)
		if s.meter.why == stackFull && out.Fault != nil {
			out.Fault.Message = sprintf("stack overflow: the stack is deeper than %d calls, its limit", rewrite.MaxDepth)
		}
	}
	if err := s.wasi.Err(); err != nil {
		if ctx.Err() != nil {
			return grid.Outcome{}, ended(ctx, sprintf("run module %s", g.Module))
		}
		return grid.Outcome{}, grid.Errorf(grid.CodeOf(err), "wasmhost: read the inputs of a guest of module %s: %w", g.Module, err)
	}
	if out.Exit != 0 && s.wasi.Full() {
		out.Fault = &grid.Fault{Code: grid.NoSpace, Message: sprintf(
			"wrote more than its limits of %d bytes and %d files into %s and %s, and gave up with exit code %d",
			limits.Scratch, limits.Files, grid.GuestOut, grid.GuestTmp, out.Exit)}
		out.Exit = 0
	}
	out.Out = s.wasi.Out()
	return out, nil
}

// returned tells whether a guest ended by itself: returned or exited, but was not stopped and did not trap.
func (s *sandbox) returned(end error) bool {
	if s.meter.why != running || s.wasi.Stopped() || s.wasi.Err() != nil {
		return false
	}
	var exit *wsys.ExitError
	return end == nil || errors.As(end, &exit)
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
