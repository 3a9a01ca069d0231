package wasmhost

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/wasmhost/module"
)

// While a module compiles for the first time, which takes seconds for a large one, its guests are tried by
// the interpreter. That is ready in a tenth of the time and does a short task long before the compiler is
// done. It is much slower at anything long; so a trial ends when the machine code is ready, and the guest
// then starts anew. Nobody can tell: a guest is a function of what it is given, what it has read is kept
// to be read again, and what it writes is held back until the trial has succeeded.

// maxHeld bounds what is kept of a trial's input, and of each of its outputs; in bytes. A guest with more
// waits for the compiler.
const maxHeld = 1 << 20

var (
	errReady = errors.New("the machine code is ready")
	errHeld  = errors.New("too much to hold back")
)

// interpret makes a module ready for interpretation.
func (h *Host) interpret(ctx context.Context, info *module.Info, binary []byte) (*program, error) {
	p := &program{tier: h.quick}
	if err := p.imports(ctx, info); err != nil {
		return nil, err
	}
	var err error
	if p.code, err = p.tier.runtime.CompileModule(ctx, binary); err != nil {
		if p.wasi != nil {
			p.wasi.Close(ctx)
		}
		return nil, err
	}
	return p, nil
}

// trial runs a guest by interpretation, until m is ready. When that came to nothing it gives the guest
// to run again.
func (h *Host) trial(ctx context.Context, s *sandbox, m *compiled, p *program, g *grid.Guest, limits grid.Limits) (again *grid.Guest, out grid.Outcome, err error) {
	if once(&m.info, g) || !h.trials.TryAcquire(1) {
		return g, out, nil
	}
	defer h.trials.Release(1)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := make(chan struct{})
	defer close(stop)
	go func() { // ends with the trial
		select {
		case <-m.ready:
			cancel(errReady)
		case <-stop:
		}
	}()
	held := *g
	stdin := &replay{from: g.Stdin, full: func() { cancel(errHeld) }}
	stdout, stderr := &holdBack{full: stdin.full}, &holdBack{full: stdin.full}
	if g.Stdin != nil {
		held.Stdin = stdin
	}
	held.Stdout, held.Stderr = stdout, stderr
	out, err = s.run(ctx, h, m, p, &held, limits)
	switch cause := context.Cause(ctx); {
	case cause == errReady, cause == errHeld, errors.Is(err, errTouched):
	case err != nil:
		return nil, out, err
	case !s.trapped && (out.Fault == nil || out.Fault.Code != grid.Deadline):
		n, err := stdout.release(g.Stdout)
		if err == nil {
			_, err = stderr.release(g.Stderr)
		} else if n == 0 {
			break // the guest is to see it
		}
		return nil, out, err
	}
	// Machine code tells a trap's stack better, and has more of it; a time limit is not meant for the interpreter.
	fresh := *g
	if g.Stdin != nil {
		fresh.Stdin = io.MultiReader(bytes.NewReader(stdin.read.Bytes()), g.Stdin)
	}
	return &fresh, grid.Outcome{}, nil
}

// once tells whether a guest must not be begun twice: what the world outside changes cannot be had twice, and nothing is
// spawned or written twice. That it is given a map or tasks says nothing, as every guest of a node is.
func once(info *module.Info, g *grid.Guest) bool {
	return g.Impure || len(g.Net) > 0 || info.Map && g.KV != nil || g.Profile || info.Spawns && g.Tasks != nil
}

// replay keeps what is read.
type replay struct {
	from io.Reader
	read bytes.Buffer
	full func()
}

func (r *replay) Read(b []byte) (int, error) {
	room := maxHeld - r.read.Len()
	if room == 0 && len(b) > 0 {
		r.full()
		return 0, errHeld
	}
	n, err := r.from.Read(b[:min(len(b), room)])
	r.read.Write(b[:n])
	return n, err
}

// holdBack keeps what is written.
type holdBack struct {
	bytes.Buffer
	full func()
}

func (w *holdBack) Write(b []byte) (int, error) {
	if w.Len()+len(b) > maxHeld {
		w.full()
		return 0, errHeld
	}
	return w.Buffer.Write(b)
}

// release hands on what was held back.
func (w *holdBack) release(to io.Writer) (n int, err error) {
	if to == nil || w.Len() == 0 {
		return 0, nil
	}
	if n, err = to.Write(w.Bytes()); err != nil {
		err = grid.Errorf(grid.Internal, "wasmhost: hand on a guest's output: %w", err)
	}
	return n, err
}
