package daemon

import (
	"errors"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestCondition: what lasts is told when it begins and when it ends, and what does not is not.
func TestCondition(t *testing.T) {
	var c condition
	told := ""
	for _, now := range []bool{false, true, false, true, true, true, false, true, false, false, false} {
		told += map[bool]string{true: "!", false: "."}[c.changed(now)]
	}
	if told != "....!....!." {
		t.Error(told)
	}
}

// TestVitals: a node's pulse tells of its rooms, and its events that it is up and leads its ledger.
func TestVitals(t *testing.T) {
	d, err := Open(t.Context(), Config{Home: t.TempDir(), NoMDNS: true, NoNearby: true, NoUPnP: true, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Zone: "attic"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	enough := errors.New("enough")
	err = d.Client().FollowNodes(t.Context(), time.Second, func(list []grid.Pulse) error {
		if p := list[0]; len(list) == 1 && p.Zone == "attic" && p.Quota > 0 && p.Memory > 0 && p.Leader {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
	want := map[string]bool{grid.KindUp: true, grid.KindLeader: true}
	err = d.Client().RealmEvents(t.Context(), grid.EventQuery{Follow: true}, func(ev grid.RealmEvent) error {
		if delete(want, ev.Kind); len(want) == 0 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatal(err, want)
	}
}
