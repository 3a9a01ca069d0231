package plugin

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Measure is how fast a case is.
type Measure struct {
	Case      string        `json:"case"`
	Func      string        `json:"func"`
	Calls     int           `json:"calls"`      // that were timed, one after the other, warm
	Median    time.Duration `json:"median_ns"`  // of one call, from before its sandbox is made until its output is there
	Slow      time.Duration `json:"slow_ns"`    // that one call in a hundred exceeds
	Fuel      uint64        `json:"fuel"`       // of one call
	PerSecond float64       `json:"per_second"` // calls on all cores
	Ratio     float64       `json:"ratio"`      // of the median to that of an empty function
	Cold      time.Duration `json:"cold_ns"`    // of the first call in a fresh sandbox, which has not seen the module before
}

// Bench is what was measured in one run.
type Bench struct {
	Cores int       `json:"cores"`
	Empty Measure   `json:"empty"` // a function that does nothing, of a module of a few bytes
	Cases []Measure `json:"cases"`
}

// emptyModule is (module (func (export "empty"))).
var emptyModule = []byte("\x00asm\x01\x00\x00\x00" + "\x01\x04\x01\x60\x00\x00" + "\x03\x02\x01\x00" + "\x07\x09\x01\x05empty\x00\x00" + "\x0a\x04\x01\x02\x00\x0b")

// maxTimed bounds the calls that are timed one by one.
const maxTimed = 1 << 18

// Bench measures cases, each for about a span of time, beside a function that does nothing. fresh opens sandboxes that
// have seen nothing. The cases are expected to succeed as they did when they were tested; how they end is not looked at.
func (r *Runner) Bench(ctx context.Context, cases []*Case, span time.Duration, fresh func() (Sandbox, error), binary []byte) (*Bench, error) {
	b := &Bench{Cores: runtime.GOMAXPROCS(0)}
	id, err := r.Sandbox.Add(emptyModule)
	if err != nil {
		return nil, err
	}
	empty := &Runner{Sandbox: r.Sandbox, Module: id, Manifest: &grid.Manifest{Functions: []grid.Function{{Name: "empty"}}}}
	if b.Empty, err = empty.measure(ctx, &Case{Name: "empty"}, span, fresh, emptyModule); err != nil {
		return nil, err
	}
	b.Empty.Ratio = 1
	for _, c := range cases {
		m, err := r.measure(ctx, c, span, fresh, binary)
		if err != nil {
			return nil, err
		}
		m.Ratio = float64(m.Median) / float64(max(b.Empty.Median, 1))
		b.Cases = append(b.Cases, m)
	}
	return b, nil
}

func (r *Runner) measure(ctx context.Context, c *Case, span time.Duration, fresh func() (Sandbox, error), binary []byte) (m Measure, err error) {
	k, err := r.open(c)
	if err != nil {
		return m, err
	}
	defer k.close()
	m.Case, m.Func = c.Name, k.fn
	if m.Cold, err = k.cold(ctx, fresh, binary); err != nil {
		return m, err
	}
	if _, err := r.Sandbox.Inspect(ctx, r.Module, true); err != nil { // compiled from here on
		return m, err
	}
	res, err := k.run(ctx)
	if err != nil {
		return m, err
	}
	m.Fuel = res.Fuel
	var times []time.Duration
	for end := time.Now().Add(span / 2); len(times) < maxTimed; {
		began := time.Now()
		if _, err := k.run(ctx); err != nil {
			return m, err
		}
		now := time.Now()
		if times = append(times, now.Sub(began)); now.After(end) {
			break
		}
	}
	slices.Sort(times)
	m.Calls, m.Median, m.Slow = len(times), times[len(times)/2], times[len(times)*99/100]
	m.PerSecond, err = k.throughput(ctx, span/2)
	return m, err
}

// throughput runs the case on all cores.
func (k *call) throughput(ctx context.Context, span time.Duration) (perSecond float64, err error) {
	var calls atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, runtime.GOMAXPROCS(0))
	began := time.Now()
	end := began.Add(span)
	for i := range errs {
		wg.Go(func() {
			for errs[i] == nil {
				_, errs[i] = k.run(ctx)
				if calls.Add(1); time.Now().After(end) {
					return
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	for _, err := range errs {
		if err != nil {
			return 0, err
		}
	}
	return float64(calls.Load()) / took.Seconds(), nil
}

// cold runs the case once where nothing is known of its module.
func (k *call) cold(ctx context.Context, fresh func() (Sandbox, error), binary []byte) (time.Duration, error) {
	box, err := fresh()
	if err != nil {
		return 0, err
	}
	defer box.Close()
	id, err := box.Add(binary)
	if err != nil {
		return 0, err
	}
	one := *k
	one.r = &Runner{Sandbox: box, Module: id, Manifest: k.r.Manifest}
	one.guest.Module = id
	began := time.Now()
	_, err = one.run(ctx)
	return time.Since(began), err
}
