package ledger

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Nodes leave one after the other, leaders first, until the last is alone; what they shared stays with it.
func TestLeave(t *testing.T) {
	inTown(t, 4, 21, func(t *testing.T, w *town) {
		for i := range 4 {
			w.start(i)
		}
		w.eventually("one realm", func() error { return w.settled(3, 1) })
		w.put(w.up[0], "k", "v")
		for left := 3; left > 0; left-- {
			who := w.leader()
			if left == 2 { // one that does not lead
				for i, r := range w.up {
					if r != nil && i != who {
						who = i
					}
				}
			}
			r, realm := w.up[who], w.up[who].realmID()
			w.eventually("it may leave", func() error {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				return r.Leave(ctx)
			})
			if r.realmID() == realm {
				t.Error("it is in the realm still")
			}
			id := w.ids[who]
			w.stop(who)
			w.eventually(fmt.Sprint(left, " go on"), func() error {
				for _, o := range w.up {
					if o == nil {
						continue
					}
					st, err := o.Status(t.Context())
					if err != nil {
						return err
					}
					if len(st.Members) != left || o.realmID() != realm {
						return fmt.Errorf("%+v", st)
					}
					for _, m := range st.Members {
						if m.ID == id {
							return fmt.Errorf("%s is listed still", id)
						}
					}
				}
				return nil
			})
			for _, o := range w.up {
				if o != nil {
					w.want(o, "k", "v")
				}
			}
		}
		for _, r := range w.up {
			if r == nil {
				continue
			}
			if err := r.Leave(t.Context()); err != nil {
				t.Errorf("alone: %v", err)
			}
			w.want(r, "k", "v")
		}
	})
}

// Without a majority nobody leaves, and is told why.
func TestLeaveAlone(t *testing.T) {
	inTown(t, 3, 22, func(t *testing.T, w *town) {
		for i := range 3 {
			w.start(i)
		}
		w.eventually("one realm", func() error { return w.settled(3, 0) })
		w.kill(1)
		w.kill(2)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err := w.up[0].Leave(ctx)
		if c := grid.CodeOf(err); c != grid.Unavailable && c != grid.Deadline || grid.AdviceOf(err) == "" {
			t.Errorf("%v", err)
		}
	})
	// Nor does the only one that may keep the ledger.
	inTown(t, 2, 23, func(t *testing.T, w *town) {
		first := w.ids[0]
		keeps := func(c *RealmConfig) { c.Keeps = func(id peer.ID) bool { return id == first } }
		w.start(0, keeps)
		w.start(1, keeps)
		w.eventually("one realm", func() error { return w.settled(1, 0) })
		w.eventually("both are listed", func() error {
			if n, err := w.up[0].listed(t.Context()); err != nil || n != 1 {
				return fmt.Errorf("%d, %v", n, err)
			}
			return nil
		})
		if err := w.up[0].Leave(t.Context()); !errors.Is(err, grid.Conflict) || grid.AdviceOf(err) == "" {
			t.Errorf("%v", err)
		}
		if err := w.up[1].Leave(t.Context()); err != nil {
			t.Errorf("the other: %v", err)
		}
	})
}
