package grid

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// TestAwaitOwner: who waits to send to the next owner of a job goes on as soon as that is heard of, and not for what becomes of other jobs, nor of
// this one while its owner stays; if nothing is heard, when the time is up.
func TestAwaitOwner(t *testing.T) {
	const here, there, other = peer.ID("\x00\x04here"), peer.ID("\x00\x05there"), peer.ID("\x00\x05other")
	for _, c := range []struct {
		name string
		had  peer.ID
		want time.Duration
	}{
		{"the next one is heard of", here, 700 * time.Millisecond},
		{"it is known already", other, 0},
		{"time is up", there, time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &Node{realm: newRealm()}
				version := uint64(0)
				put := func(job JobID, owner peer.ID) {
					version++
					n.realm.mu.Lock()
					defer n.realm.mu.Unlock()
					n.openPut(Entry{Key: openKey(job), Value: []byte(owner.String()), Version: version}, n.realm.open[job])
				}
				first := here
				if c.had == there {
					first = there
				}
				put("job", first)
				put("another", there)
				go func() {
					time.Sleep(300 * time.Millisecond)
					put("another", other)
					put("job", first)
					time.Sleep(400 * time.Millisecond)
					put("job", there)
				}()
				began := time.Now()
				n.realm.await(context.Background(), "job", c.had, time.Minute)
				if took := time.Since(began); took != c.want {
					t.Errorf("it took %v, want %v", took, c.want)
				}
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				if n.realm.await(ctx, "gone", here, time.Minute); ctx.Err() == nil {
					t.Error("it goes on when there is no such job")
				}
			})
		})
	}
}
