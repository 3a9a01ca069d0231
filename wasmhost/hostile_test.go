package wasmhost_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
	"github.com/wasmgrid/wasmgrid/wasmhost"
)

// What today's sandbox fails, and why.
const longCalls = "a host call costs 256 fuel however long it takes, and time limits are looked at between slices of fuel only"

var shortfalls = []gridtest.Shortfall{
	{Case: "endless/random_get 64 MiB", Why: longCalls},
	{Case: "endless/a million vectors", Why: longCalls},
	{Case: "files/names", Why: "a file's name may hold a zero byte, and is then listed as another name"},
	{Case: "calls/fd_renumber", Why: "high numbers of descriptors made the host allocate 16 GiB in 609 calls"},
	{Case: "calls/fd_filestat_set_times", Why: "the host follows a nil pointer; wazero recovers, and the guest traps"},
	{Case: "calls/poll_oneoff", Why: "the host indexes an empty slice; wazero recovers, and the guest traps"},
}

func TestHostileGuests(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	gridtest.TestHostileGuests(t, func(t *testing.T, load gridtest.ModuleLoader) grid.Engine {
		return open(t, wasmhost.Config{Load: load})
	}, shortfalls...)
}

// Engines with separate caches stand for separate nodes.
func TestDeterministicGuests(t *testing.T) {
	gridtest.TestDeterministicGuests(t, func(t *testing.T, load gridtest.ModuleLoader) grid.Engine {
		return open(t, wasmhost.Config{Load: load, CacheDir: t.TempDir()})
	}, func(t *testing.T, load gridtest.ModuleLoader) grid.Engine {
		return closing(t)(wasmhost.OpenFresh(wasmhost.Config{Load: load, CacheDir: t.TempDir()}))
	})
}
