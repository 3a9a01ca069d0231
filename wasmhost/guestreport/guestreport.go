// Package guestreport lets guests tell how far they are, and count and measure, by three host functions (see
// [Functions]; docs/abi.md specifies them under "Progress and metrics").
//
// Nothing that a guest can learn from them depends on who listens. A guest may call them a million times: they wait for
// nothing, and what is kept is bounded by the number of names.
package guestreport

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/sdk/abi"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi/vfs"
)

// State is what one guest has reported. Like a wasi.State it is for one call into a guest at a time, and is reused by
// Reset. The zero State tells nobody of progress.
type State struct {
	progress func(done, total uint64)
	metrics  []grid.Metric
}

// Reset makes the state that of a new guest, whose progress is told to progress, unless that is nil.
func (s *State) Reset(progress func(done, total uint64)) { *s = State{progress: progress} }

// Metrics are what the guest has counted and measured so far, in order of names. They are the caller's once the guest
// has ended.
func (s *State) Metrics() []grid.Metric {
	slices.SortFunc(s.metrics, func(a, b grid.Metric) int { return strings.Compare(a.Name, b.Name) })
	return s.metrics
}

// Key finds a guest's *State in the context of a call.
type Key struct{}

// Functions are the host functions, for [wasi.ExportFunctions] of what is to be instantiated as [abi.Module]. They work
// for guests that are called with a context that has a wasi.State and a [Key]; without the latter what is reported is lost.
func Functions() []wasi.Function {
	return []wasi.Function{
		{Name: abi.Progress, Params: "II", Call: progress},
		{Name: abi.Count, Params: "iiI", Call: count},
		{Name: abi.Observe, Params: "iiF", Call: observe},
	}
}

func stateOf(ctx context.Context) *State {
	if s, ok := ctx.Value(Key{}).(*State); ok {
		return s
	}
	return new(State)
}

// progress(done, total) tells how far the guest is.
func progress(ctx context.Context, _ *wasi.State, _ api.Memory, p []uint64) wasi.Errno {
	done, total := p[0], p[1]
	if total > 0 {
		done = min(done, total)
	}
	if s := stateOf(ctx); s.progress != nil {
		s.progress(done, total)
	}
	return 0
}

// count(ptr, len, n) adds n to a counter.
func count(ctx context.Context, w *wasi.State, mem api.Memory, p []uint64) wasi.Errno {
	m, errno := stateOf(ctx).metric(ctx, w, mem, p, grid.Counter)
	if errno != 0 {
		return errno
	}
	m.Add(p[2])
	return 0
}

// observe(ptr, len, v) adds a value to a histogram.
func observe(ctx context.Context, w *wasi.State, mem api.Memory, p []uint64) wasi.Errno {
	v := api.DecodeF64(p[2])
	if math.IsNaN(v) || math.IsInf(v, 0) {
		if wasi.View(mem, p[0], p[1]) == nil {
			return w.Outside()
		}
		return w.Failed(vfs.EINVAL, fmt.Sprintf("%v is no value for a histogram", v))
	}
	m, errno := stateOf(ctx).metric(ctx, w, mem, p, grid.Histogram)
	if errno != 0 {
		return errno
	}
	m.Observe(v)
	return 0
}

// metric finds the metric whose name is in memory, and makes it when it is new.
func (s *State) metric(ctx context.Context, w *wasi.State, mem api.Memory, p []uint64, kind grid.MetricKind) (*grid.Metric, wasi.Errno) {
	name := wasi.View(mem, p[0], p[1])
	if name == nil {
		return nil, w.Outside()
	}
	if len(name) <= grid.MaxMetricName {
		w.Moved(ctx, len(name))
		for i := range s.metrics {
			if m := &s.metrics[i]; m.Name == string(name) {
				if m.Kind != kind {
					return nil, w.Failed(vfs.EINVAL, fmt.Sprintf("%s is a %s, not a %s", m.Name, m.Kind, kind))
				}
				return m, 0
			}
		}
	}
	// What is too long is not a name, however long it is.
	text := strings.ToValidUTF8(string(name[:min(len(name), grid.MaxMetricName+1)]), "\uFFFD")
	if err := grid.CheckMetricName(text); err != nil {
		return nil, w.Failed(vfs.EINVAL, err.Error())
	}
	if len(s.metrics) >= grid.MaxMetrics {
		return nil, w.Failed(vfs.ENOSPC, fmt.Sprintf("no room for the metric %s: a task has at most %d", text, grid.MaxMetrics))
	}
	s.metrics = append(s.metrics, grid.Metric{Name: text, Kind: kind})
	return &s.metrics[len(s.metrics)-1], 0
}
