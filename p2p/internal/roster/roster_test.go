package roster

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

func up(p peer.ID) grid.PeerEvent   { return grid.PeerEvent{Peer: p, Up: true} }
func down(p peer.ID) grid.PeerEvent { return grid.PeerEvent{Peer: p} }

func TestSubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Roster
		defer r.Close()
		r.Up("b")
		r.Up("a")
		var got []grid.PeerEvent
		var block chan struct{}
		stop := r.Subscribe(func(ev grid.PeerEvent) {
			got = append(got, ev)
			if block != nil {
				<-block
			}
		})
		check := func(want ...grid.PeerEvent) {
			t.Helper()
			synctest.Wait()
			if !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			got = nil
		}
		check(up("a"), up("b"))
		if r.Up("a") || r.Down("c") {
			t.Error("no news was taken for news")
		}
		r.Down("a")
		r.Up("a")
		check(down("a"), up("a"))

		// While f is busy: who came and went is not told, who went and came is.
		block = make(chan struct{})
		r.Up("x")
		synctest.Wait()
		for range 100 {
			r.Up("c")
			r.Down("c")
			r.Down("a")
			r.Up("a")
		}
		r.Down("b")
		for range 3 {
			block <- struct{}{}
		}
		synctest.Wait()
		close(block)
		synctest.Wait()
		if len(got) != 4 || got[0] != up("x") || !slices.Contains(got, down("a")) || !slices.Contains(got, down("b")) {
			t.Errorf("got %v", got)
		}
		got = nil
		stop()
		stop()
		r.Down("x")
		check()
	})
}

func TestStopWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Roster
		calls := 0
		var stop func()
		stop = r.Subscribe(func(grid.PeerEvent) { calls++; stop() })
		r.Up("a")
		r.Up("b")
		synctest.Wait()
		if calls != 1 {
			t.Errorf("%d calls", calls)
		}
		r.Close()
		r.Close()
		if r.Up("c") {
			t.Error("news after the end")
		}
	})
}
