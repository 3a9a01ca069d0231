package placement

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// TestScale: what a node keeps moves when it leaves, and no more, whatever the size of the swarm; nothing moves when one comes; and no node
// has much more than its share. The time that one choice takes grows with the nodes that are to choose from: it is logged. SCALE=10000 plays
// a swarm of that size.
func TestScale(t *testing.T) {
	sizes := []int{10, 100, 1000}
	if n, err := strconv.Atoi(os.Getenv("SCALE")); err == nil {
		sizes = append(sizes, n)
	}
	const replicas = 3
	for _, n := range sizes {
		keys := min(10*n, 500_000/n) // all of this takes as long for each size
		ns := equal(n, 0)
		held := make([][]peer.ID, keys)
		load := map[peer.ID]int{}
		began := time.Now()
		for k := range held {
			held[k] = Choose(key(k), ns, replicas, nil)
			for _, id := range held[k] {
				load[id]++
			}
		}
		each := time.Since(began) / time.Duration(keys)
		most := 0
		for _, l := range load {
			most = max(most, l)
		}
		went, moved, came := 0, 0, 0
		changes := func(k int, nodes []Node) (c int) {
			for _, id := range Choose(key(k), nodes, replicas, held[k]) {
				if !slices.Contains(held[k], id) {
					c++
				}
			}
			return c
		}
		gone := held[0][0]
		left := slices.DeleteFunc(slices.Clone(ns), func(n Node) bool { return n.ID == gone })
		more := append(slices.Clone(ns), Node{ID: peer.ID(fmt.Sprintf("node %d", n)), Free: 1000 * gib})
		for k := range held {
			if slices.Contains(held[k], gone) {
				went++
				moved += changes(k, left)
			} else if k < keys/10 {
				moved += changes(k, left)
			}
			if k < keys/10 {
				came += changes(k, more)
			}
		}
		mean := float64(keys*replicas) / float64(n)
		t.Logf("%d nodes, %d keys: %.1f copies each, at most %d; one leaves: %d of its %d move; one comes: %d move; %v for each choice", n, keys, mean, most, moved, went, came, each)
		if moved != went || came != 0 {
			t.Errorf("%d nodes: %d copies moved for %d that went, and %d for a node that came", n, moved, went, came)
		}
		if float64(most) > 2*mean+10 {
			t.Errorf("%d nodes: one has %d copies, of %.1f on average", n, most, mean)
		}
	}
}
