package daemon

import (
	"os"
	"strconv"
	"strings"

	"github.com/pbnjay/memory"

	"github.com/wasmgrid/wasmgrid/grid"
)

// cgroupLimit is where Linux tells the memory limit of the container that this process is in.
const cgroupLimit = "/sys/fs/cgroup/memory.max"

// taskMemory is how many bytes of memory all tasks may have when nobody says: three quarters of what there
// is, so that the rest of the node and the machine live, but never so few that a task with the usual limit could
// not run.
func taskMemory() uint64 {
	limit, _ := os.ReadFile(cgroupLimit)
	return taskShare(memory.TotalMemory(), string(limit))
}

// taskShare is taskMemory on a machine of total bytes, 0 if that is unknown, in a container with a limit, as the
// kernel writes it.
func taskShare(total uint64, limit string) uint64 {
	if n, err := strconv.ParseUint(strings.TrimSpace(limit), 10, 64); err == nil && (total == 0 || n < total) {
		total = n
	}
	return max(total/4*3, grid.DefaultLimits.Memory)
}
