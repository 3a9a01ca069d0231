package wasmhost

import (
	"context"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/wasmhost/extism"
)

// A plug-in for Extism is a library whose input is its guest's stdin, and whose output is written to stdout when its
// function has returned. Beside its own memory it has the kernel's, within the same limit.

// kernel is that memory, taken when it is first needed.
type kernel struct{ memory }

// Reallocate is what package extism asks for.
func (k *kernel) Reallocate(size uint64) []byte {
	if k.size == 0 {
		k.Allocate(0, 0)
	}
	return k.memory.Reallocate(size)
}

// begin readies Extism's functions for a guest.
func (s *sandbox) begin(g *grid.Guest, limits grid.Limits) {
	if s.extism == nil {
		s.extism = new(extism.State)
	}
	s.kernel.limit = limits.Memory
	s.extism.Reset(extism.Config{
		WASI: &s.wasi, Env: g.Env, Stderr: &s.stderr, Net: &s.net, Limit: limits.Memory, Memory: &s.kernel,
		Linear: func(limit uint64) { s.linear(limit) },
	})
}

// context is that of calls into a guest.
func (s *sandbox) context(ctx context.Context, m *compiled) context.Context {
	ctx = s.wasi.Context(ctx)
	if m.info.Extism {
		ctx = s.extism.Context(ctx)
	}
	return ctx
}

// finish hands over what a plug-in has left. One that set an error has failed, whatever its function gave.
func (s *sandbox) finish(out *grid.Outcome, end *ending) error {
	if end.refused > 0 {
		end.refused += s.extism.Taken()
	}
	out.Memory, end.refused = out.Memory+s.extism.Taken(), max(end.refused, s.extism.Refused())
	if !s.returned(end.err) {
		return nil
	}
	output, message, failed := s.extism.Result()
	if failed {
		if out.Exit == 0 {
			out.Exit = 1
		}
		s.stderr.Write(append(message[:len(message):len(message)], '\n')) // lost where the log is
	}
	if _, err := s.stdout.Write(output); err != nil && err != errOutput {
		return err
	}
	return nil
}
