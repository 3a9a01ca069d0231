package daemon

import (
	"errors"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestSwarmNews: what is done to a private swarm is told, and what failed is not.
func TestSwarmNews(t *testing.T) {
	d := whole(t)
	stranger := d.swarm.Self()[:len(d.swarm.Self())-1] + "x"
	if err := d.Client().Revoke(t.Context(), stranger); err == nil {
		t.Error("a stranger was revoked")
	}
	if _, err := d.Client().RotateKey(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	if err := d.Client().RealmEvents(t.Context(), grid.EventQuery{Room: grid.RoomSwarm, Follow: true}, func(ev grid.RealmEvent) error {
		switch ev.Kind {
		case grid.KindRevoked:
			t.Errorf("told: %+v", ev)
		case grid.KindRotated:
			return enough
		}
		return nil
	}); !errors.Is(err, enough) {
		t.Fatal(err)
	}
}
