package daemon

import (
	"cmp"
	"context"
	"path/filepath"
	"runtime"

	"github.com/wasmgrid/wasmgrid/cmd/grid/bench"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/sched"
	"github.com/wasmgrid/wasmgrid/store/cache"
)

// enoughReads of blocks tell how good the cache is: fewer are chance, or of measuring.
const enoughReads = 10_000

// bench measures the node, after it has told what there is and how it is set.
func (d *Daemon) bench(ctx context.Context, quick bool, each func(grid.Measured) error) error {
	c := &d.cfg
	total, limit := MachineMemory()
	if limit > 0 && limit < total {
		total = limit
	}
	facts := []grid.Measured{
		{Name: "cores", Does: "processors of the machine, or that the container may use", Value: float64(runtime.GOMAXPROCS(0)), Unit: "cores"},
		{Name: "memory", Does: "memory of the machine, or of the container", Value: float64(total), Unit: "bytes"},
		{Name: "workers", Does: "tasks that the node runs at once", Value: float64(c.Workers), Unit: "tasks"},
		{Name: "task-memory", Does: "memory of all tasks together", Value: float64(c.Memory), Unit: "bytes"},
		{Name: "block-cache", Does: "blocks kept in memory", Value: float64(cmp.Or(c.Cache, cache.DefaultSize)), Unit: "bytes"},
		{Name: "grain", Does: "running time that a worker is given at once", Value: cmp.Or(c.Grain, sched.DefaultGrain).Seconds(), Unit: "s"},
	}
	if st, err := d.store.Keeper().Stats(); err == nil {
		facts = append(facts,
			grid.Measured{Name: "store-quota", Does: "disk that blocks may take", Value: float64(st.Quota), Unit: "bytes"},
			grid.Measured{Name: "disk-free", Does: "disk that is free", Value: float64(st.Free), Unit: "bytes"})
		if all := st.Hits + st.Misses; all >= enoughReads {
			facts = append(facts, grid.Measured{Name: "cache-hits", Does: "reads of blocks that were in memory since the start", Value: float64(st.Hits) / float64(all), Unit: "of all"})
		}
	}
	for _, m := range facts {
		if err := each(m); err != nil {
			return err
		}
	}
	return bench.Run(ctx, bench.Config{Node: d.node, Dir: filepath.Join(c.Home, storeDir), Quick: quick}, each)
}
