package wasmhost_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
	"github.com/wasmgrid/wasmgrid/wasmhost"
)

func TestHostileGuests(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	gridtest.TestHostileGuests(t, func(t *testing.T, load gridtest.ModuleLoader) grid.Engine {
		return open(t, wasmhost.Config{Load: load})
	})
}

// Engines with separate caches stand for separate nodes.
func TestDeterministicGuests(t *testing.T) {
	gridtest.TestDeterministicGuests(t, func(t *testing.T, load gridtest.ModuleLoader) grid.Engine {
		return open(t, wasmhost.Config{Load: load, CacheDir: t.TempDir()})
	}, func(t *testing.T, load gridtest.ModuleLoader) grid.Engine {
		return closing(t)(wasmhost.OpenFresh(wasmhost.Config{Load: load, CacheDir: t.TempDir()}))
	})
}
