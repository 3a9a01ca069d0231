package wasmhost

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestHurry: machine code for later has its time when a process ends by itself, and none when somebody waits for its end.
func TestHurry(t *testing.T) {
	for _, hurry := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := newModules(maker{finish: time.Hour})
			c.wait.Go(func() { <-c.ctx.Done() }) // a compilation
			if hurry {
				c.hurry()
			}
			start := time.Now()
			c.close()
			if took := time.Since(start); took != 0 == hurry {
				t.Errorf("hurry %v: it took %v", hurry, took)
			}
		})
	}
}
