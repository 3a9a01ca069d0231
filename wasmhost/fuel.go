package wasmhost

import (
	"context"
	"runtime"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	wsys "github.com/tetratelabs/wazero/sys"

	"github.com/wasmgrid/wasmgrid/wasmhost/rewrite"
)

// Slices of fuel. Compiled code cannot be preempted: between two refuels a guest holds a thread, and
// whatever wants to stop the world, such as the garbage collector, waits for it. How long a unit takes
// varies a lot, from a third of a nanosecond to microseconds where every store hits a new page, so
// slices follow the clock. They do not change what is counted.
const (
	firstSlice = 100_000
	leastSlice = 10_000
	mostSlice  = 4_000_000
	sliceTime  = time.Millisecond
)

// stop is why a guest was stopped.
type stop byte

const (
	running   stop = iota
	ctxEnded       // its context is over
	fuelSpent      // it has reached its limit
	stackFull      // its calls are too deep; it traps
)

// meter gives a guest its fuel, counts it, and stops the guest. It is used from the guest's goroutine.
type meter struct {
	limit   uint64 // 0: none
	given   uint64
	slice   uint64
	since   time.Time         // the last slice was given
	yielded time.Time         // the guest last let others run
	left    api.MutableGlobal // nil until the first slice
	why     stop
	clock   *guestContext // is told the time
	profile *profile      // nil unless the guest is profiled
}

func newMeter(limit uint64) meter { return meter{limit: limit, slice: firstSlice} }

// refuel is what guests import.
func refuel(ctx context.Context, mod api.Module, stack []uint64) {
	m := &ctx.Value(sandboxKey{}).(*sandbox).meter
	if m.left == nil {
		m.left = mod.ExportedGlobal(rewrite.ExportFuel).(api.MutableGlobal)
	}
	if left := int64(stack[0]); left == rewrite.StackFull {
		m.why = stackFull
	} else {
		stack[0] = uint64(m.refuel(ctx, left))
	}
}

// refuel takes what is left, which is negative, and gives what is left with the next slice; or it ends
// the guest.
func (m *meter) refuel(ctx context.Context, left int64) int64 {
	if m.given > 0 {
		now := time.Now()
		switch took := now.Sub(m.since); {
		case m.profile != nil:
		case took > 2*sliceTime:
			m.slice = max(m.slice/2, leastSlice)
		case took < sliceTime/2:
			m.slice = min(m.slice*2, mostSlice)
		}
		if now.Sub(m.yielded) > sliceTime/2 {
			runtime.Gosched()
			now = time.Now()
			m.yielded = now
		}
		m.clock.tell(now)
		m.since = now
	} else {
		m.since = time.Now()
		m.yielded = m.since
	}
	if m.profile != nil {
		m.slice = m.profile.slice()
	}
	if ctx.Err() != nil {
		m.exit(ctxEnded)
	}
	more := max(m.slice, uint64(-left))
	if m.limit > 0 {
		if more = min(more, m.limit-m.given); int64(more) < -left {
			m.exit(fuelSpent)
		}
	}
	m.given += more
	return left + int64(more)
}

// Charge implements [wasi.Meter]: the work that a call does for the guest is taken off its fuel.
func (m *meter) Charge(ctx context.Context, units uint64) {
	if m.left == nil { // a call from code that is not metered, which there is none of
		return
	}
	left := int64(m.left.Get()) - int64(units)
	if left < 0 {
		left = m.refuel(ctx, left)
	}
	m.left.Set(uint64(left))
}

// exit unwinds the guest from within a host function.
func (m *meter) exit(why stop) {
	m.why = why
	panic(wsys.NewExitError(wsys.ExitCodeContextCanceled))
}

// used is how much fuel the guest has used up.
func (m *meter) used() uint64 {
	switch {
	case m.left == nil:
		return 0
	case m.why == fuelSpent:
		return m.limit
	}
	return uint64(int64(m.given) - int64(m.left.Get()))
}

// instantiateFuel makes what instrumented modules import.
func instantiateFuel(ctx context.Context, rt wazero.Runtime) error {
	_, err := instantiateRefuel(ctx, rt, rewrite.ImportModule)
	return err
}

// instantiateRefuel makes a module of that name that has the function.
func instantiateRefuel(ctx context.Context, rt wazero.Runtime, name string) (api.Module, error) {
	i64 := []api.ValueType{api.ValueTypeI64}
	code, err := rt.NewHostModuleBuilder(rewrite.ImportModule).NewFunctionBuilder().
		WithGoModuleFunction(api.GoModuleFunc(refuel), i64, i64).Export(rewrite.ImportRefuel).Compile(ctx)
	if err != nil {
		return nil, err
	}
	return rt.InstantiateModule(ctx, code, wazero.NewModuleConfig().WithName(name))
}
