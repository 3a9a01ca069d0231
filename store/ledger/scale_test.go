package ledger

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p/memnet"
)

// followed is what a node follows in the ledger of its realm.
var followed = []string{
	grid.NodeKeys, grid.OpenKeys, grid.MemberKeys, grid.SecretKeys, grid.ExtensionKeys, grid.StandingKeys, grid.QuotaKeys,
}

// crowd is what a realm of many came to: three voters, and clients that do what nodes do. Figures are of one node and one second.
type crowd struct {
	calls, bytes float64 // of each client at rest: what it sends and gets
	lead         float64 // messages of the leader, of all clients together
	members      float64 // bytes of reading who is in the realm, once
	refused      int     // watches that ended, as there was no room for them
	entries      int
	writes       float64       // of the ledger for a client that comes
	joined       float64       // bytes that a client sends and gets as it comes, and that others get of it, each
	ended        time.Duration // until all know that some have gone
}

func crowded(t *testing.T, clients int) (c crowd) {
	var calls, bytes atomic.Int64
	var leader atomic.Pointer[peer.ID]
	var atLeader atomic.Int64
	w := newWorld(t, memnet.Config{
		Seed: 1, Degree: 8,
		Latency: func(r *rand.Rand, _, _ peer.ID) time.Duration {
			return time.Duration(200+r.IntN(600)) * time.Microsecond
		},
		Sent: func(from, to peer.ID, _ grid.Protocol, n int) {
			calls.Add(1)
			bytes.Add(int64(n))
			if l := leader.Load(); l != nil && (from == *l || to == *l) {
				atLeader.Add(1)
			}
		},
	}, nil)
	nodes := w.cluster(3, 0)
	lead := w.leader(nodes...)
	leader.Store(&lead.id)
	var voters []peer.ID
	for _, n := range nodes {
		voters = append(voters, n.id)
	}
	before, err := lead.Status(w.ctx)
	w.must(err)

	ctx, stop := context.WithCancel(w.ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	var refused atomic.Int64
	var mu sync.Mutex
	seen := map[peer.ID]map[string]bool{} // the nodes that each knows to be up
	follow := func(n *node, prefix string) {
		for ctx.Err() == nil {
			all := map[string]bool{}
			revision, err := grid.RangeAll(ctx, n, prefix, false, func(e grid.Entry) error { all[e.Key] = true; return nil })
			if err == nil {
				if prefix == grid.NodeKeys {
					mu.Lock()
					seen[n.id] = all
					mu.Unlock()
				}
				err = n.Watch(ctx, prefix, revision, func(ch grid.Changes) error {
					if prefix == grid.NodeKeys {
						mu.Lock()
						defer mu.Unlock()
						for _, e := range ch.Put {
							all[e.Key] = true
						}
						for _, k := range ch.Delete {
							delete(all, k)
						}
					}
					return nil
				})
			}
			if grid.CodeOf(err) == grid.Limit {
				refused.Add(1)
			}
			select {
			case <-ctx.Done():
			case <-time.After(2 * time.Second):
			}
		}
	}
	came := bytes.Load()
	var all []*node
	for i := range clients {
		n := w.start(3 + i)
		w.must(n.follow(w.ctx, testRealm, voters))
		s, err := n.OpenSession(w.ctx, 5*time.Second)
		w.must(err)
		_, err = n.Commit(w.ctx, grid.Txn{Put: []grid.Entry{
			{Key: grid.NodeKeys + n.id.String(), Value: make([]byte, 120), Session: s.ID()},
			{Key: grid.MemberKeys + n.id.String(), Value: make([]byte, 60)},
		}})
		w.must(err)
		for _, prefix := range followed {
			wg.Go(func() { follow(n, prefix) })
		}
		all = append(all, n)
	}
	knows := func(but map[string]bool) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			for _, n := range all {
				if but[grid.NodeKeys+n.id.String()] {
					continue
				}
				if len(seen[n.id]) != clients-len(but) {
					return false
				}
			}
			return true
		}
	}
	w.until("all know one another", knows(nil))
	c.joined = float64(bytes.Load()-came) / float64(clients)
	after, err := lead.Status(w.ctx)
	w.must(err)
	c.entries, c.writes = int(after.Entries), float64(after.Revision-before.Revision)/float64(clients)

	if n := len(lead.Clients()); n < clients {
		t.Errorf("the leader knows of %d nodes that use it, of %d", n, clients)
	}
	refused.Store(0)
	n, b, l := calls.Load(), bytes.Load(), atLeader.Load()
	const rest = 10 * time.Second
	<-time.After(rest)
	per := rest.Seconds() * float64(clients)
	c.calls, c.bytes, c.lead = float64(calls.Load()-n)/per, float64(bytes.Load()-b)/per, float64(atLeader.Load()-l)/rest.Seconds()
	c.refused = int(refused.Load())

	b = bytes.Load()
	_, err = grid.RangeAll(w.ctx, all[0], grid.MemberKeys, true, func(grid.Entry) error { return nil })
	w.must(err)
	c.members = float64(bytes.Load()-b) - c.bytes*0.001*float64(clients) // others go on meanwhile

	gone := map[string]bool{}
	for _, n := range all[:max(clients/100, 1)] {
		w.net.Kill(n.id)
		gone[grid.NodeKeys+n.id.String()] = true
	}
	began := time.Now()
	w.until("all know who has gone", knows(gone))
	c.ended = time.Since(began)
	return c
}

// TestScale: what a node of a realm says and hears at rest does not grow with the realm, it costs the ledger one write to come, and all of its
// watches have room. What the leader hears grows with the nodes, and so does what one hears that comes. SCALE=1000 plays a realm of that size.
func TestScale(t *testing.T) {
	many := 100
	if n, err := strconv.Atoi(os.Getenv("SCALE")); err == nil {
		many = n
	}
	play := func(clients int) (c crowd) {
		began := time.Now()
		virtual(t, func(t *testing.T) { c = crowded(t, clients) })
		t.Logf("%d clients: %+v, simulated in %v", clients, c, time.Since(began).Round(time.Millisecond))
		return c
	}
	few, c := play(10), play(many)
	switch {
	case c.calls > 1.2*few.calls, c.bytes > 1.2*few.bytes:
		t.Errorf("a node sends and gets %.1f messages of %.0f bytes in a second, of ten it is %.1f of %.0f", c.calls, c.bytes, few.calls, few.bytes)
	case c.refused > 0:
		t.Errorf("%d watches had no room", c.refused)
	case c.entries > 2*many, c.writes > 1:
		t.Errorf("%d entries, and %.1f writes for each node that came", c.entries, c.writes)
	case c.lead > 20*float64(many)+100:
		t.Errorf("the leader gets and sends %.0f messages in a second", c.lead)
	case c.ended > 6*time.Second:
		t.Errorf("that nodes have gone was known after %v", c.ended)
	}
}
