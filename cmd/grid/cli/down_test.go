package cli

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestAwaitEnd: who waits long for a node's end is told once what for, and at last that it was in vain.
func TestAwaitEnd(t *testing.T) {
	for _, test := range []struct {
		takes time.Duration
		notes int
		code  grid.Code
	}{
		{time.Second, 0, grid.Unknown},
		{20 * time.Second, 1, grid.Unknown},
		{time.Hour, 1, grid.Deadline},
	} {
		synctest.Test(t, func(t *testing.T) {
			e, errs := testEnv("")
			end := time.Now().Add(test.takes)
			err := e.awaitEnd(t.Context(), &grid.NodeStatus{PID: 4711, Home: "/the/home"}, func(context.Context) bool { return !time.Now().Before(end) })
			if grid.CodeOf(err) != test.code {
				t.Errorf("%v: %v", test.takes, err)
			}
			if n := strings.Count(errs.String(), "waiting for the node, process 4711, to end its tasks and to close its stores in /the/home"); n != test.notes {
				t.Errorf("%v: said %d times, want %d: %s", test.takes, n, test.notes, errs)
			}
		})
	}
}
