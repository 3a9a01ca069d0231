package ledger

import (
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
	"github.com/wasmgrid/wasmgrid/p2p/memnet"
)

// patient makes leaders keep their office on a busy machine.
func patient(c *Config) { c.Timing.Election = 2 * time.Second }

func TestContract(t *testing.T) {
	for _, c := range []struct {
		name            string
		voters, clients int
		at              int
	}{
		{"one", 1, 0, 0},
		{"leader of three", 3, 0, 0},
		{"follower of three", 3, 0, 1},
		{"client of three", 3, 1, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			gridtest.TestLedger(t, func(t *testing.T) grid.Ledger {
				w := newWorld(t, memnet.Config{}, patient)
				return w.cluster(c.voters, c.clients)[c.at]
			})
		})
	}
}
