package wasmhost

import (
	"sync/atomic"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/wasmhost/image"
)

type stats struct {
	running  atomic.Int64
	compiled grid.Timing
	unfit    atomic.Uint64
}

// Stats is what can be told of a host.
type Stats struct {
	Running  int64           // guests
	Pool     image.PoolStats // instances that wait for the next guest of their module
	Compiled *grid.Timing    // modules of which machine code was made, or read from the cache; to be read
	Unfit    uint64          // modules of which none could be made
}

// Stats tells it.
func (h *Host) Stats() Stats {
	s := Stats{Running: h.stats.running.Load(), Compiled: &h.stats.compiled, Unfit: h.stats.unfit.Load()}
	if h.pool != nil {
		s.Pool = h.pool.Stats()
	}
	return s
}
