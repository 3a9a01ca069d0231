package ledger

import (
	"context"
	"testing"
	"time"
)

func TestLeaveRestarted(t *testing.T) {
	inTown(t, 3, 31, func(t *testing.T, w *town) {
		for i := range 3 {
			w.start(i)
		}
		w.eventually("one realm", func() error { return w.settled(3, 0) })
		lead := w.leader()
		other := (lead + 1) % 3
		w.stop(other)
		w.start(other)
		w.eventually("one realm", func() error { return w.settled(3, 0) })
		<-time.After(10 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := w.up[lead].Leave(ctx); err != nil {
			t.Fatal(err)
		}
		w.stop(lead)
		w.put(w.up[other], "k", "v")
		w.put(w.up[3-lead-other], "k", "v")
	})
}
