package p2p

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// Whoever makes a node find thousands that there are not, by multicast, say, does not keep it from dialling those it knows.
func TestFalseFindsTakeNoPlaces(t *testing.T) {
	at := []ma.Multiaddr{ma.StringCast("/ip4/192.0.2.1/tcp/1")}
	busy, known := make(chan struct{}, 1000), make(chan peer.ID, 1)
	k := newKeeper()
	k.connected, k.members = func(peer.ID) bool { return false }, func() int { return 0 }
	k.dial = func(ctx context.Context, info peer.AddrInfo, again bool) error {
		if again {
			known <- info.ID
			return nil
		}
		busy <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { k.run(ctx) })
	defer wg.Wait()
	defer cancel()
	for i := 0; len(busy) < findsAtOnce; i++ {
		k.offer(peer.AddrInfo{ID: peer.ID(fmt.Sprint(i)), Addrs: at})
	}
	k.fix(peer.AddrInfo{ID: "friend", Addrs: at})
	if id := <-known; id != "friend" {
		t.Errorf("%s was dialled", id)
	}
	if n := len(busy); n != findsAtOnce {
		t.Errorf("%d finds are dialled at once", n)
	}
}
