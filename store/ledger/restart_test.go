package ledger

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/ledger/member"
)

// All nodes of a realm end at about the same moment, most in good order and some without a word, and come back in another order, with
// more beside them or without those that can be spared. What was acknowledged is there, and there is a leader soon.
func TestEndAllAtOnce(t *testing.T) {
	for seed := range 10 {
		nodes := []int{3, 5, 2, 4, 7}[seed%5]
		t.Run(fmt.Sprintf("%d of %d", seed, nodes), func(t *testing.T) {
			inTown(t, nodes+2, uint64(100+seed), func(t *testing.T, w *town) { endAllAtOnce(t, w, nodes) })
		})
	}
}

func endAllAtOnce(t *testing.T, w *town, nodes int) {
	for i := range nodes {
		w.start(i)
	}
	voters := min(5, nodes-1+nodes%2)
	learners := min(2, nodes-voters)
	calm := w.rand.IntN(3) > 0
	if calm {
		w.eventually("one realm", func() error { return w.settled(voters, learners) })
	} else { // still at it
		<-time.After(time.Duration(w.rand.IntN(8000)) * time.Millisecond)
	}
	n := nodes
	for round := range 2 {
		sure := w.write(fmt.Sprint("r", round, "-"))
		var all sync.WaitGroup
		for i, r := range w.up {
			if r == nil {
				continue
			}
			delay := time.Duration(w.rand.IntN(1+[]int{0, 20, 1000, 5000}[w.rand.IntN(4)])) * time.Millisecond
			killed := w.rand.IntN(4) == 0
			all.Go(func() {
				<-time.After(delay)
				if killed {
					w.kill(i)
				} else {
					w.stop(i)
				}
			})
		}
		all.Wait()
		n += w.rand.IntN(1 + nodes + 2 - n) // some are new
		for _, i := range w.rand.Perm(n) {
			<-time.After(time.Duration(w.rand.IntN(1+[]int{0, 20, 2000}[w.rand.IntN(3)])) * time.Millisecond)
			w.start(i)
		}
		began := time.Now()
		for key := range sure {
			w.want(w.up[w.rand.IntN(n)], key, "x")
		}
		voters = min(5, n-1+n%2)
		learners = min(2, n-voters)
		w.eventually("one realm again", func() error { return w.settled(voters, learners) })
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("round %d: took %v", round, took)
		}
	}
}

// write writes some keys, by any node, and tells which were acknowledged.
func (w *town) write(prefix string) map[string]bool {
	sure := map[string]bool{}
	for k := range 5 {
		r := w.up[w.rand.IntN(len(w.up))]
		if r == nil {
			continue
		}
		key := fmt.Sprint(prefix, k)
		ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Second)
		if _, err := r.Commit(ctx, grid.Txn{Put: []grid.Entry{{Key: grid.UserKey(key), Value: []byte("x")}}}); err == nil {
			sure[key] = true
		}
		cancel()
	}
	return sure
}

// lateNet is a network that counts a peer among its own only some time after that one does, as one does who has more to do.
type lateNet struct {
	grid.Network
	late func() time.Duration

	mu   sync.Mutex
	from map[peer.ID]time.Time
}

func (n *lateNet) Peers() []grid.PeerInfo {
	peers := n.Network.Peers()
	n.mu.Lock()
	defer n.mu.Unlock()
	from := map[peer.ID]time.Time{}
	for _, p := range peers {
		if from[p.ID] = n.from[p.ID]; from[p.ID].IsZero() {
			from[p.ID] = time.Now().Add(n.late())
		}
	}
	n.from = from
	return slices.DeleteFunc(peers, func(p grid.PeerInfo) bool { return time.Now().Before(from[p.ID]) })
}

// Of two nodes that meet, one may see the other earlier, and ask it, before that one counts it among its peers. What that one says then, and
// afterwards, must not make the other take its copy for an old one, or all would wait for one another.
func TestRestartMeetLate(t *testing.T) {
	for seed := range 5 {
		inTown(t, 3, uint64(200+seed), func(t *testing.T, w *town) {
			late := func(c *RealmConfig) {
				c.Network = &lateNet{Network: c.Network, late: func() time.Duration {
					w.mu.Lock()
					defer w.mu.Unlock()
					return time.Duration(w.rand.IntN(2000)) * time.Millisecond
				}}
			}
			for i := range 3 {
				w.start(i, late)
			}
			w.eventually("one realm", func() error { return w.settled(3, 0) })
			for range 2 {
				sure := w.write("k")
				for i := range 3 {
					w.stop(i)
				}
				for i := range 3 {
					w.start(i, late)
				}
				w.eventually("one realm again", func() error {
					for i, r := range w.up {
						r.mu.Lock()
						old := r.old
						r.mu.Unlock()
						if old {
							t.Fatalf("node %d takes its copy for an old one", i)
						}
					}
					return w.settled(3, 0)
				})
				for key := range sure {
					w.want(w.up[0], key, "x")
				}
			}
		})
	}
}

// The only voter of three leaves its vote to one that is about to be ended itself a moment later: that one waits until it has the vote, and
// is enough to go on with when it is back, with any of the others or alone.
func TestHeirEnds(t *testing.T) {
	for seed := range 6 {
		inTown(t, 3, uint64(300+seed), func(t *testing.T, w *town) {
			rules := func(c *RealmConfig) { c.Plan = member.Config{Voters: 1} }
			for i := range 3 {
				w.start(i, rules)
			}
			w.eventually("one voter", func() error { return w.settled(1, 2) })
			sure := w.write("k")
			var all sync.WaitGroup
			for i := range 3 {
				delay := time.Duration(w.rand.IntN(1+[]int{0, 5, 40}[w.rand.IntN(3)])) * time.Millisecond
				all.Go(func() {
					<-time.After(delay)
					w.stop(i)
				})
			}
			all.Wait()
			voter, sole := -1, 0
			for i := range 3 {
				st, _, err := readState(w.dirs[i], w.ids[i])
				if err != nil {
					t.Fatal(err)
				}
				if s, ok := find(st.Known, w.ids[i]); ok && s.Voter && voters(st.Known) == 1 {
					voter = i
					sole++
				}
			}
			if sole != 1 {
				t.Fatalf("%d nodes are the only voter", sole)
			}
			w.start(voter, rules)
			for key := range sure {
				w.want(w.up[voter], key, "x")
			}
			for i := range 3 {
				if i != voter {
					w.start(i, rules)
				}
			}
			w.eventually("one realm again", func() error { return w.settled(1, 2) })
			for key := range sure {
				w.want(w.up[0], key, "x")
			}
		})
	}
}
