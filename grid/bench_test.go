package grid_test

import (
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

// Nodes of one realm measure one another; others are refused, and so is who wants more than is sent.
func TestSpeed(t *testing.T) {
	r := newRemoteRealm(t, "a", "b")
	r.share()
	a, b := r.all[0], r.all[1]
	if took, err := a.Trip(within(t), b.w.ID); err != nil || took <= 0 {
		t.Errorf("%v, %v", took, err)
	}
	if rate, err := a.Speed(within(t), b.w.ID, 20*time.Millisecond); err != nil || rate <= 0 {
		t.Errorf("%v, %v", rate, err)
	}
	ask := func(bytes int) error {
		req, err := grid.Marshal(map[string]int{"bytes": bytes})
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.net.Call(within(t), b.w.ID, grid.ProtoSpeed, req)
		return err
	}
	if err := ask(grid.MaxSpeed + 1); grid.CodeOf(err) != grid.Limit {
		t.Errorf("too much: %v", err)
	}
	stranger := r.join("c", func(c *grid.NodeConfig) { c.Ledger = fake.NewSeat(new(fake.Ledger)) })
	if _, err := stranger.Trip(within(t), b.w.ID); grid.CodeOf(err) != grid.Denied {
		t.Errorf("of another realm: %v", err)
	}
}
