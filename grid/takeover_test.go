package grid_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

// TestResumeWithoutSpec: a job of which the spec is lost is tried for a while, and then has failed.
func TestResumeWithoutSpec(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := fake.NewWorld(new(fake.Hub), "a")
		started := make(chan struct{}, 1)
		w.Engine.Guest = blocked(started)
		n := open(t, w.Config())
		id := submit(t, n, request(w, 1))
		<-started
		n.Close()
		if err := w.Blocks.Delete(within(t), record(t, w, id).Spec.Cid); err != nil {
			t.Fatal(err)
		}
		n = open(t, w.Config())
		time.Sleep(4 * time.Minute)
		if rec := record(t, w, id); rec.State != grid.Running {
			t.Errorf("state %s although its spec may still turn up", rec.State)
		}
		time.Sleep(2 * time.Minute)
		if rec := record(t, w, id); rec.State != grid.Failed || !strings.Contains(rec.Error, "cannot be taken up again") {
			t.Errorf("record %+v", rec)
		}
		if _, err := w.Ledger.Get(within(t), "open/"+string(id)); grid.CodeOf(err) != grid.NotFound {
			t.Errorf("it is still among the open jobs: %v", err)
		}
		n.Close()
	})
}
