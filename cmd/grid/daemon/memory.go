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

// MachineMemory is how much there is, and how much of it the container that this process is in may have, in bytes; 0 where that
// is not known, or not limited.
func MachineMemory() (total, limit uint64) {
	text, _ := os.ReadFile(cgroupLimit)
	limit, _ = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	return memory.TotalMemory(), limit
}

// taskShare is taskMemory on a machine of total bytes, 0 if that is unknown, in a container with a limit, as the
// kernel writes it.
func taskShare(total uint64, limit string) uint64 {
	if n, err := strconv.ParseUint(strings.TrimSpace(limit), 10, 64); err == nil && (total == 0 || n < total) {
		total = n
	}
	return max(total/4*3, grid.DefaultLimits.Memory)
}
